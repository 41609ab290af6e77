#include "net/model_build.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

int64_t nn_ld(int64_t d) {
  int64_t ld = (d + 1 + 15) / 16 * 16;
  return ld % 512 == 0 ? ld + 16 : ld;
}

nn_shape nn_flat(int64_t d) {
  return (nn_shape){1, 1, d, false};
}

int64_t nn_size(nn_shape shape) {
  return shape.height * shape.width * shape.channels;
}

int64_t nn_stride(nn_shape shape) {
  return shape.is_image ? nn_size(shape) : nn_ld(shape.channels);
}

nn_shape model_shape(const model_spec *spec, int tensor) {
  return tensor == 0 ? spec->input : spec->layer[tensor - 1].out;
}

nn_shape model_output(const model_spec *spec) {
  return model_shape(spec, spec->n_layers);
}

int64_t nn_weight_rows(const nn_layer_spec *spec) {
  return spec->kind == NN_DENSE || spec->kind == NN_CONV || spec->kind == NN_NORM ? spec->out.channels : 0;
}

int64_t nn_weight_columns(const nn_layer_spec *spec) {
  if (spec->kind == NN_CONV) return spec->window.kernel[0] * spec->window.kernel[1] * spec->in.channels / spec->groups;
  return spec->kind == NN_NORM ? 1 : spec->in.channels;
}

int64_t model_parameters(const model_spec *spec) {
  int64_t sum = 0;
  for (int i = 0; i < spec->n_layers; i++) {
    const nn_layer_spec *layer = &spec->layer[i];
    sum += nn_weight_rows(layer) * (nn_weight_columns(layer) + layer->has_bias);
  }
  return sum;
}

void model_build_begin(model_spec *spec, nn_shape input) {
  *spec = (model_spec){.input = input};
}

/* ---- shapes ---- */

enum { PIXELS_MAX = 1 << 20, CHANNELS_MAX = 1 << 24 };

static curvd_status refuse(const nn_layer_spec *layer, const char *what, cv_error *err) {
  return cv_fail(err, CURVD_ERR_OPTION, "%s: %s", layer->name, what);
}

static int64_t extent(const nn_window *w, int axis, int64_t in) {
  return (in + 2 * w->pad[axis] - w->dilation[axis] * (w->kernel[axis] - 1) - 1) / w->stride[axis] + 1;
}

static bool is_in_range(const nn_window *w, int axis) {
  return w->kernel[axis] >= 1 && w->kernel[axis] <= PIXELS_MAX && w->stride[axis] >= 1 &&
         w->stride[axis] <= PIXELS_MAX && w->pad[axis] >= 0 && w->pad[axis] <= PIXELS_MAX && w->dilation[axis] >= 1 &&
         w->dilation[axis] <= PIXELS_MAX;
}

/* The image that a window makes of another one; channels are left to the caller. */
static curvd_status slide(nn_layer_spec *layer, cv_error *err) {
  nn_window *w = &layer->window;
  const int64_t in[2] = {layer->in.height, layer->in.width};
  int64_t out[2];
  for (int axis = 0; axis < 2; axis++) {
    if (w->stride[axis] == 0) w->stride[axis] = 1;
    if (w->dilation[axis] == 0) w->dilation[axis] = 1;
    if (!is_in_range(w, axis))
      return refuse(layer, "kernel, stride and dilation are at least 1, pad at least 0, all at most 1048576", err);
    if (in[axis] + 2 * w->pad[axis] < w->dilation[axis] * (w->kernel[axis] - 1) + 1)
      return cv_fail(err, CURVD_ERR_OPTION,
                     "%s: a kernel of %lld with dilation %lld does not fit into %lld pixels with a pad of %lld",
                     layer->name, (long long)w->kernel[axis], (long long)w->dilation[axis], (long long)in[axis],
                     (long long)w->pad[axis]);
    out[axis] = extent(w, axis, in[axis]);
  }
  if (out[0] * out[1] > CHANNELS_MAX) return refuse(layer, "more than 16777216 pixels", err); /* channels follow */
  layer->out = (nn_shape){out[0], out[1], layer->out.channels, true};
  return CURVD_OK;
}

static curvd_status want_image(const nn_layer_spec *layer, cv_error *err) {
  return layer->in.is_image ? CURVD_OK : refuse(layer, "it takes an image, and what comes before it is flat", err);
}

static curvd_status shape_dense(nn_layer_spec *layer, cv_error *err) {
  (void)err;
  layer->out = nn_flat(layer->out.channels);
  return CURVD_OK;
}

static curvd_status shape_conv(nn_layer_spec *layer, cv_error *err) {
  CV_TRY(want_image(layer, err));
  if (layer->window.kernel[0] == 0 && layer->window.kernel[1] == 0)
    return refuse(layer, "it needs a kernel of 1 or more", err);
  if (layer->groups == 0) layer->groups = 1;
  if (layer->groups < 0 || layer->in.channels % layer->groups != 0 || layer->out.channels % layer->groups != 0)
    return cv_fail(err, CURVD_ERR_OPTION, "%s: %lld groups do not divide %lld input and %lld output channels",
                   layer->name, (long long)layer->groups, (long long)layer->in.channels,
                   (long long)layer->out.channels);
  CV_TRY(slide(layer, err)); /* the kernel's sides are at most 2^20 now */
  if (layer->window.kernel[0] * layer->window.kernel[1] > CHANNELS_MAX / (layer->in.channels / layer->groups))
    return refuse(layer, "its kernel sees more than 16777216 numbers", err);
  return CURVD_OK;
}

static curvd_status shape_pool(nn_layer_spec *layer, cv_error *err) {
  CV_TRY(want_image(layer, err));
  nn_window *w = &layer->window;
  if (layer->kind == NN_AVERAGE && w->kernel[0] == 0 && w->kernel[1] == 0) {
    w->kernel[0] = layer->in.height;
    w->kernel[1] = layer->in.width;
  }
  for (int axis = 0; axis < 2; axis++) {
    if (w->stride[axis] == 0) w->stride[axis] = w->kernel[axis];
    if (w->kernel[axis] > 0 && w->pad[axis] >= w->kernel[axis])
      return refuse(layer, "a window may lie outside the image altogether", err);
  }
  layer->out.channels = layer->in.channels;
  return slide(layer, err);
}

static curvd_status shape_norm(nn_layer_spec *layer, cv_error *err) {
  CV_TRY(want_image(layer, err));
  layer->has_bias = true;
  layer->out = layer->in;
  return CURVD_OK;
}

static curvd_status shape_dropout(nn_layer_spec *layer, cv_error *err) {
  layer->out = layer->in;
  return layer->drop >= 0 && layer->drop < 1 ? CURVD_OK
                                             : refuse(layer, "the share that is dropped is from 0 to below 1", err);
}

static curvd_status shape_flatten(nn_layer_spec *layer, cv_error *err) {
  CV_TRY(want_image(layer, err));
  layer->out = nn_flat(nn_size(layer->in));
  return CURVD_OK;
}

static curvd_status shape_add(nn_layer_spec *layer, cv_error *err) {
  (void)err;
  layer->out = layer->in;
  return CURVD_OK;
}

static const struct {
  const char *stem; /* of automatic names */
  int n_inputs;
  curvd_status (*shape)(nn_layer_spec *layer, cv_error *err);
} kinds[NN_KINDS] = {[NN_DENSE] = {"fc", 1, shape_dense},          [NN_CONV] = {"conv", 1, shape_conv},
                     [NN_NORM] = {"norm", 1, shape_norm},          [NN_MAX] = {"max", 1, shape_pool},
                     [NN_AVERAGE] = {"average", 1, shape_pool},    [NN_DROPOUT] = {"dropout", 1, shape_dropout},
                     [NN_FLATTEN] = {"flatten", 1, shape_flatten}, [NN_ADD] = {"add", 2, shape_add}};

int nn_inputs(nn_kind kind) {
  return kinds[kind].n_inputs;
}

/* ---- layers ---- */

/* 0: the layer before; -1: the network's input; else that tensor. */
static int tensor_of(const model_spec *spec, int from) {
  return from == 0 ? spec->n_layers : from < 0 ? 0 : from;
}

/* How many layers of this kind there are, this one included. */
static int number_of(const model_spec *spec, nn_kind kind) {
  int n = 1;
  for (int i = 0; i < spec->n_layers; i++) n += spec->layer[i].kind == kind;
  return n;
}

static curvd_status name_layer(const model_spec *spec, nn_layer_spec *layer, cv_error *err) {
  if (layer->name[0] == '\0')
    snprintf(layer->name, sizeof layer->name, "%s%d", kinds[layer->kind].stem, number_of(spec, layer->kind));
  if (strcmp(layer->name, "input") == 0) return refuse(layer, "this is the name of what the network takes", err);
  for (int i = 0; i < spec->n_layers; i++) {
    if (strcmp(spec->layer[i].name, layer->name) == 0) return refuse(layer, "a second layer of this name", err);
  }
  return CURVD_OK;
}

static bool is_alike(nn_shape x, nn_shape y) {
  return x.height == y.height && x.width == y.width && x.channels == y.channels && x.is_image == y.is_image;
}

static curvd_status connect(const model_spec *spec, const nn_layer_spec *wanted, nn_layer_spec *layer, cv_error *err) {
  for (int k = 0; k < NN_INPUTS_MAX; k++)
    layer->from[k] = k < kinds[layer->kind].n_inputs ? tensor_of(spec, wanted->from[k]) : 0;
  layer->in = model_shape(spec, layer->from[0]);
  for (int k = 1; k < kinds[layer->kind].n_inputs; k++) {
    nn_shape other = model_shape(spec, layer->from[k]);
    if (is_alike(layer->in, other)) continue;
    return cv_fail(err, CURVD_ERR_OPTION, "%s: %lldx%lldx%lld and %lldx%lldx%lld cannot be added", layer->name,
                   (long long)layer->in.height, (long long)layer->in.width, (long long)layer->in.channels,
                   (long long)other.height, (long long)other.width, (long long)other.channels);
  }
  return CURVD_OK;
}

static curvd_status append(model_spec *spec, const nn_layer_spec *wanted, cv_error *err) {
  nn_layer_spec layer = *wanted;
  if (spec->n_layers == MODEL_LAYERS_MAX)
    return cv_fail(err, CURVD_ERR_OPTION, "more than %d layers", (int)MODEL_LAYERS_MAX);
  CV_TRY(name_layer(spec, &layer, err));
  CV_TRY(connect(spec, wanted, &layer, err));
  bool has_channels = layer.kind == NN_DENSE || layer.kind == NN_CONV;
  if (has_channels && (layer.out.channels < 1 || layer.out.channels > CHANNELS_MAX))
    return refuse(&layer, "its width is from 1 to 16777216", err);
  CV_TRY(kinds[layer.kind].shape(&layer, err));
  if (nn_size(layer.out) > CHANNELS_MAX) return refuse(&layer, "more than 16777216 numbers of one example", err);
  spec->layer[spec->n_layers++] = layer;
  return CURVD_OK;
}

curvd_status model_build_add(model_spec *spec, const nn_layer_spec *wanted, cv_error *err) {
  nn_shape in = model_shape(spec, tensor_of(spec, wanted->from[0]));
  nn_layer_spec flatten = {.kind = NN_FLATTEN, .from = {wanted->from[0]}}, layer = *wanted;
  if (wanted->kind != NN_DENSE || !in.is_image) return append(spec, wanted, err);
  CV_TRY(append(spec, &flatten, err));
  layer.from[0] = 0;
  return append(spec, &layer, err);
}

/* A layer that nothing takes is a mistake in a model file. */
static curvd_status check_use(const model_spec *spec, cv_error *err) {
  bool is_taken[MODEL_LAYERS_MAX + 1] = {false};
  for (int i = 0; i < spec->n_layers; i++) {
    for (int k = 0; k < kinds[spec->layer[i].kind].n_inputs; k++) is_taken[spec->layer[i].from[k]] = true;
  }
  for (int i = 0; i + 1 < spec->n_layers; i++) {
    if (!is_taken[i + 1]) return refuse(&spec->layer[i], "no later layer takes what it makes", err);
  }
  return CURVD_OK;
}

curvd_status model_build_end(const model_spec *spec, cv_error *err) {
  if (spec->n_layers == 0) return cv_fail(err, CURVD_ERR_OPTION, "a network without layers");
  const nn_layer_spec *last = &spec->layer[spec->n_layers - 1];
  if (last->kind != NN_DENSE || last->activation != NN_LINEAR)
    return refuse(last, "the last layer is fully connected and linear: the loss takes logits", err);
  return check_use(spec, err);
}
