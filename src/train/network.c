/* The words of --network: WIDTH-WIDTH[xTIMES][:ACTIVATION]-...-WIDTH, a name, or a file. */
#include "train/network.h"
#include "base/number.h"
#include "base/options.h"
#include "net/model_build.h"

#include <ctype.h>
#include <inttypes.h>
#include <string.h>

enum { WIDTH_MAX = 1 << 24, WORD_MAX = 64 }; /* a weight of the largest layer has 2^48 numbers: sums fit 64 bits */

static const char *const autoencoder_words =
    "784-1000:sigmoid-500:sigmoid-250:sigmoid-30:linear-250:sigmoid-500:sigmoid-1000:sigmoid-784";

static curvd_status parse_activation(const char *name, const char *text, nn_activation_kind *activation,
                                     cv_error *err) {
  const char *nearest;
  if (model_activation_parse(name, activation, &nearest)) return CURVD_OK;
  return cv_fail(err, CURVD_ERR_OPTION,
                 "network %.100s: unknown activation \"%s\"%s%s%s; use linear, relu, tanh, sigmoid or gelu", text, name,
                 nearest == NULL ? "" : ", did you mean \"", nearest == NULL ? "" : nearest,
                 nearest == NULL ? "" : "\"?");
}

/* One word: "500", "500:tanh", "500x3". */
typedef struct network_word {
  int64_t width, times;
  bool has_activation;
  nn_activation_kind activation;
} network_word;

static curvd_status parse_times(const char *number, const char *text, int64_t *times, cv_error *err) {
  if (cv_integer_parse(number, times) && *times >= 1 && *times <= MODEL_LAYERS_MAX + 1) return CURVD_OK;
  return cv_fail(err, CURVD_ERR_OPTION, "network %.100s: a width cannot be repeated \"%s\" times; use 1 to %d", text,
                 number, (int)MODEL_LAYERS_MAX + 1);
}

static curvd_status parse_word(char *word, const char *text, network_word *parsed, cv_error *err) {
  char *colon = strchr(word, ':');
  int64_t *width = &parsed->width;
  if (colon != NULL) *colon = '\0';
  char *times = strchr(word, 'x');
  if (times != NULL) *times = '\0';
  parsed->times = 1;
  parsed->has_activation = colon != NULL;
  if (times != NULL) CV_TRY(parse_times(times + 1, text, &parsed->times, err));
  if (!cv_integer_parse(word, width) || *width < 1 || *width > WIDTH_MAX)
    return cv_fail(err, CURVD_ERR_OPTION, "network %.100s: \"%s\" is no width; use an integer from 1 to %d", text, word,
                   (int)WIDTH_MAX);
  return colon == NULL ? CURVD_OK : parse_activation(colon + 1, text, &parsed->activation, err);
}

/* Copies the word at *cursor and moves *cursor behind its '-', or to NULL after the last word. */
static curvd_status next_word(const char **cursor, const char *text, char word[WORD_MAX], cv_error *err) {
  size_t length = strcspn(*cursor, "-");
  if (length >= WORD_MAX)
    return cv_fail(err, CURVD_ERR_OPTION, "network %.100s: a word of %zu characters; use WIDTH or WIDTH:ACTIVATION",
                   text, length);
  memcpy(word, *cursor, length);
  word[length] = '\0';
  *cursor = (*cursor)[length] == '-' ? *cursor + length + 1 : NULL;
  return CURVD_OK;
}

/* Widths in turn; the first is the input. */
typedef struct chain {
  model_spec *spec;
  const char *text;
  nn_activation_kind hidden;
  int n_widths;
} chain;

static curvd_status add_width(chain *to, const network_word *word, cv_error *err) {
  nn_layer_spec layer = {.kind = NN_DENSE,
                         .out = nn_flat(word->width),
                         .activation = word->has_activation ? word->activation : to->hidden,
                         .has_bias = true};
  if (to->n_widths++ > 0) return model_build_add(to->spec, &layer, err);
  model_build_begin(to->spec, nn_flat(word->width));
  return CURVD_OK;
}

static curvd_status add_word(chain *to, char *word, bool *has_activation, cv_error *err) {
  network_word parsed;
  if (to->n_widths == 0 && strchr(word, ':') != NULL)
    return cv_fail(err, CURVD_ERR_OPTION, "network %.100s: the input \"%s\" takes no activation", to->text, word);
  CV_TRY(parse_word(word, to->text, &parsed, err));
  if (to->n_widths + parsed.times > MODEL_LAYERS_MAX + 1)
    return cv_fail(err, CURVD_ERR_OPTION, "network %.100s...: more than %d layers", to->text, (int)MODEL_LAYERS_MAX);
  for (int64_t i = 0; i < parsed.times; i++) CV_TRY(add_width(to, &parsed, err));
  *has_activation = parsed.has_activation;
  return CURVD_OK;
}

static curvd_status parse_chain(const char *text, nn_activation_kind hidden, model_spec *spec, cv_error *err) {
  chain to = {spec, text, hidden, 0};
  bool is_named = false; /* the last activation, by its word */
  for (const char *cursor = text; cursor != NULL;) {
    char word[WORD_MAX];
    CV_TRY(next_word(&cursor, text, word, err));
    CV_TRY(add_word(&to, word, &is_named, err));
  }
  if (spec->n_layers < 1)
    return cv_fail(err, CURVD_ERR_OPTION, "network \"%.100s\" has one width; use at least two, as in 784-10", text);
  nn_layer_spec *last = &spec->layer[spec->n_layers - 1];
  if (!is_named) last->activation = NN_LINEAR;
  if (last->activation != NN_LINEAR)
    return cv_fail(err, CURVD_ERR_OPTION,
                   "network %.100s: the last width takes no activation, as the loss takes logits", text);
  return CURVD_OK;
}

/* Of a model: named by its end, whether it is there or not. */
static bool is_file(const char *text) {
  size_t length = strlen(text);
  return (length > 5 && strcmp(text + length - 5, ".yaml") == 0) ||
         (length > 4 && strcmp(text + length - 4, ".yml") == 0);
}

curvd_status network_parse(const char *text, nn_activation_kind hidden, nn_loss_kind loss, model_spec *spec,
                           cv_error *err) {
  model_spec parsed = {.n_layers = 0};
  bool is_autoencoder = strcmp(text, "autoencoder") == 0;
  if (is_file(text)) {
    CV_TRY(network_file_read(text, &parsed, err));
  } else if (model_has_name(text)) {
    CV_TRY(model_named(text, &parsed, err));
  } else if (!is_autoencoder && isalpha((unsigned char)text[0])) {
    return cv_fail(err, CURVD_ERR_OPTION,
                   "network %.100s: no network of this name; use autoencoder, cnn, vgg16_bn, resnet20, widths as "
                   "784-1000-10, or a model file that ends in .yaml",
                   text);
  } else {
    CV_TRY(parse_chain(is_autoencoder ? autoencoder_words : text, hidden, &parsed, err));
  }
  parsed.is_autoencoder = is_autoencoder;
  if (parsed.is_autoencoder && loss == NN_SOFTMAX_CE)
    return cv_fail(err, CURVD_ERR_OPTION, "network autoencoder has no classes for a softmax loss; use loss auto");
  nn_loss_kind automatic = parsed.is_autoencoder ? NN_SIGMOID_CE : NN_SOFTMAX_CE;
  parsed.loss = loss == NN_LOSS_AUTO ? automatic : loss;
  *spec = parsed;
  return CURVD_OK;
}
