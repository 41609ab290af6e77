/* Words that describe networks: activations, shapes, and networks that have a name. */
#include "base/number.h"
#include "base/options.h"
#include "net/model_build.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { NUMBERS_MAX = 1 << 24 }; /* of one example */

static const char *const activation_names[] = {
    [NN_LINEAR] = "linear", [NN_RELU] = "relu", [NN_TANH] = "tanh", [NN_SIGMOID] = "sigmoid", [NN_GELU] = "gelu"};
enum { N_ACTIVATIONS = sizeof activation_names / sizeof *activation_names };

bool model_activation_parse(const char *name, nn_activation_kind *activation, const char **nearest) {
  for (int i = 0; i < N_ACTIVATIONS; i++) {
    if (strcmp(name, activation_names[i]) != 0) continue;
    *activation = (nn_activation_kind)i;
    return true;
  }
  *nearest = cv_nearest_name(name, activation_names, N_ACTIVATIONS);
  return false;
}

bool model_shape_parse(const char *text, nn_shape *shape) {
  int64_t number[3];
  int n = 0;
  for (const char *at = text; at != NULL && n < 3; n++) {
    char word[24];
    size_t length = strcspn(at, "x");
    if (length >= sizeof word) return false;
    memcpy(word, at, length);
    word[length] = '\0';
    if (!cv_integer_parse(word, &number[n]) || number[n] < 1 || number[n] > NUMBERS_MAX) return false;
    at = at[length] == 'x' ? at + length + 1 : NULL;
    if (at != NULL && n == 2) return false;
  }
  if (n == 2) return false;
  *shape = n == 1 ? nn_flat(number[0]) : (nn_shape){number[0], number[1], number[2], true};
  return n == 1 || number[0] * number[1] <= NUMBERS_MAX / number[2];
}

/* A builder that has failed once does nothing more. */
typedef struct builder {
  model_spec *spec;
  cv_error *err;
  curvd_status status;
} builder;

static void add(builder *b, nn_layer_spec layer) {
  if (b->status == CURVD_OK) b->status = model_build_add(b->spec, &layer, b->err);
}

static void conv(builder *b, int64_t channels, int64_t kernel, int64_t stride, bool has_bias,
                 nn_activation_kind activation) {
  int64_t pad = kernel / 2;
  add(b, (nn_layer_spec){.kind = NN_CONV,
                         .out.channels = channels,
                         .activation = activation,
                         .has_bias = has_bias,
                         .window = {{kernel, kernel}, {stride, stride}, {pad, pad}, {1, 1}}});
}

static void norm(builder *b, nn_activation_kind activation) {
  add(b, (nn_layer_spec){.kind = NN_NORM, .activation = activation});
}

static void halve(builder *b) {
  add(b, (nn_layer_spec){.kind = NN_MAX, .window = {.kernel = {2, 2}}});
}

static void average(builder *b) {
  add(b, (nn_layer_spec){.kind = NN_AVERAGE});
}

static void dense(builder *b, int64_t width, nn_activation_kind activation) {
  add(b, (nn_layer_spec){.kind = NN_DENSE, .out.channels = width, .activation = activation, .has_bias = true});
}

static void dropout(builder *b) {
  add(b, (nn_layer_spec){.kind = NN_DROPOUT, .drop = 0.5});
}

/* 3x3 convolutions of 32, 64, 128 channels, halved behind each, then two of 256. */
static void build_cnn(builder *b, int64_t classes) {
  static const int64_t channels[] = {32, 64, 128, 256, 256};
  for (int i = 0; i < 5; i++) {
    conv(b, channels[i], 3, 1, true, NN_RELU);
    if (i < 3) halve(b);
  }
  average(b);
  dense(b, classes, NN_LINEAR);
}

/* Configuration D of Simonyan and Zisserman (arXiv:1409.1556) for 32x32 images, normalised behind every convolution,
 * with the head 512-512-classes of the published Randomized K-FAC runs: 14,990,922 parameters for 10 classes. */
static void build_vgg16_bn(builder *b, int64_t classes) {
  static const int64_t channels[] = {64, 128, 256, 512, 512}, times[] = {2, 2, 3, 3, 3};
  for (int block = 0; block < 5; block++) {
    for (int64_t i = 0; i < times[block]; i++) {
      conv(b, channels[block], 3, 1, true, NN_LINEAR);
      norm(b, NN_RELU);
    }
    halve(b);
  }
  dropout(b);
  dense(b, 512, NN_RELU);
  dropout(b);
  dense(b, classes, NN_LINEAR);
}

/* Two convolutions and the way around them, which is projected where the shape changes. */
static void build_residual(builder *b, int64_t channels, int64_t stride) {
  int begin = b->spec->n_layers, around = begin;
  bool changes = stride != 1 || model_output(b->spec).channels != channels;
  conv(b, channels, 3, stride, false, NN_LINEAR);
  norm(b, NN_RELU);
  conv(b, channels, 3, 1, false, NN_LINEAR);
  norm(b, NN_LINEAR);
  int straight = b->spec->n_layers;
  if (changes) {
    add(b, (nn_layer_spec){.kind = NN_CONV,
                           .from = {begin},
                           .out.channels = channels,
                           .window = {.kernel = {1, 1}, .stride = {stride, stride}}});
    norm(b, NN_LINEAR);
    around = b->spec->n_layers;
  }
  add(b, (nn_layer_spec){.kind = NN_ADD, .from = {straight, around}, .activation = NN_RELU});
}

/* He et al. (arXiv:1512.03385), section 4.2, n = 3, with projections: 272,474 parameters for 10 classes. */
static void build_resnet20(builder *b, int64_t classes) {
  conv(b, 16, 3, 1, false, NN_LINEAR);
  norm(b, NN_RELU);
  for (int64_t stage = 0; stage < 3; stage++) {
    for (int64_t i = 0; i < 3; i++) build_residual(b, (int64_t)16 << stage, stage > 0 && i == 0 ? 2 : 1);
  }
  average(b);
  dense(b, classes, NN_LINEAR);
}

static const struct {
  const char *name;
  nn_shape input;
  void (*build)(builder *b, int64_t classes);
} named[] = {{"cnn", {28, 28, 1, true}, build_cnn},
             {"vgg16_bn", {32, 32, 3, true}, build_vgg16_bn},
             {"resnet20", {32, 32, 3, true}, build_resnet20}};

bool model_has_name(const char *text) {
  size_t length = strcspn(text, ":");
  for (size_t i = 0; i < sizeof named / sizeof named[0]; i++) {
    if (strlen(named[i].name) == length && strncmp(named[i].name, text, length) == 0) return true;
  }
  return false;
}

/* What stands behind the name: nothing, ":HEIGHTxWIDTHxCHANNELS", or that and ":CLASSES". */
static curvd_status parse_ends(const char *text, const char *ends, nn_shape *input, int64_t *classes, cv_error *err) {
  char shape[64];
  if (*ends == '\0') return CURVD_OK;
  size_t length = strcspn(++ends, ":");
  snprintf(shape, sizeof shape, "%.*s", (int)(length < sizeof shape ? length : sizeof shape - 1), ends);
  bool has_shape = model_shape_parse(shape, input) && input->is_image;
  bool has_classes = ends[length] == ':', is_number = has_classes && cv_integer_parse(ends + length + 1, classes);
  if (has_shape && (!has_classes || (is_number && *classes >= 1))) return CURVD_OK;
  return cv_fail(err, CURVD_ERR_OPTION,
                 "network %.100s: behind a name come HEIGHTxWIDTHxCHANNELS and the number of classes, as in "
                 "vgg16_bn:32x32x3:100",
                 text);
}

curvd_status model_named(const char *text, model_spec *spec, cv_error *err) {
  size_t length = strcspn(text, ":"), i = 0;
  while (strlen(named[i].name) != length || strncmp(named[i].name, text, length) != 0) i++; /* model_has_name */
  nn_shape input = named[i].input;
  int64_t classes = 10;
  CV_TRY(parse_ends(text, text + length, &input, &classes, err));
  builder b = {spec, err, CURVD_OK};
  model_build_begin(spec, input);
  named[i].build(&b, classes);
  if (b.status != CURVD_OK) {
    cv_error why = *err;
    *err = (cv_error){0};
    return cv_fail(err, b.status, "network %.100s: %.400s", text, why.text);
  }
  return model_build_end(spec, err);
}
