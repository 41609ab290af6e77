/* A network as a YAML list: first its input, then a layer an item, whose first line says its kind and width.
 *
 *   - input: 32x32x3            HEIGHTxWIDTHxCHANNELS, or one number
 *   - conv: 16                  kernel, stride, pad, dilation (one number, or YxX), groups, bias (true | false)
 *     kernel: 3
 *     pad: 1
 *   - norm: batch
 *     activation: relu
 *   - max: 2                    the kernel; stride (the kernel's own), pad. average: the same, or all
 *   - add: conv1                the layer before and the one of that name
 *   - dropout: 0.5
 *   - flatten: image            comes by itself before dense
 *   - dense: 10                 bias
 * Every layer may have a name and, in `from`, the name of the layer that it takes in place of the one before (input:
 * the network's input); conv, norm, add and dense an activation. */
#include "base/number.h"
#include "base/options.h"
#include "net/model_build.h"
#include "train/config_parts.h"
#include "train/network.h"

#include <stdio.h>
#include <string.h>

typedef struct reader {
  model_spec *spec;
  int64_t item;        /* that is being read; -1: none */
  nn_layer_spec layer; /* of it */
  uint32_t given;      /* which details it has had */
  char file[200];
  long line; /* where it begins */
} reader;

static curvd_status refuse(const config_pair *pair, long line, const char *what, cv_error *err) {
  return cv_fail(err, CURVD_ERR_OPTION, "%.200s:%ld: %s", pair->file, line, what);
}

/* ", did you mean "conv"?", or nothing. */
typedef struct hint {
  char text[96];
} hint;

static hint nearest_hint(const char *word, const char *const *names, int n) {
  const char *nearest = cv_nearest_name(word, names, n);
  hint to = {""};
  if (nearest && strcmp(nearest, word) != 0) snprintf(to.text, sizeof to.text, ", did you mean \"%.63s\"?", nearest);
  return to;
}

/* ---- values ---- */

static curvd_status read_integer(const config_pair *pair, int64_t *to, cv_error *err) {
  int64_t value;
  if (cv_integer_parse(pair->value, &value) && value >= 0 && value <= INT32_MAX) {
    *to = value;
    return CURVD_OK;
  }
  return cv_fail(err, CURVD_ERR_OPTION, "%.200s:%ld: %.60s needs a number from 0 to 2147483647, not \"%.60s\"",
                 pair->file, pair->value_line, pair->key, pair->value);
}

/* "3" for both directions, or "3x5". */
static curvd_status read_two(const config_pair *pair, int64_t to[2], cv_error *err) {
  char first[24];
  config_pair half = *pair;
  const char *times = strchr(pair->value, 'x');
  if (times == NULL) {
    CV_TRY(read_integer(pair, &to[0], err));
    to[1] = to[0];
    return CURVD_OK;
  }
  snprintf(first, sizeof first, "%.*s", (int)(times - pair->value < 23 ? times - pair->value : 23), pair->value);
  half.value = first;
  CV_TRY(read_integer(&half, &to[0], err));
  half.value = times + 1;
  return read_integer(&half, &to[1], err);
}

static curvd_status read_bias(const config_pair *pair, bool *to, cv_error *err) {
  *to = strcmp(pair->value, "true") == 0;
  if (*to || strcmp(pair->value, "false") == 0) return CURVD_OK;
  return refuse(pair, pair->value_line, "bias is true or false", err);
}

static curvd_status read_activation(const config_pair *pair, nn_activation_kind *to, cv_error *err) {
  const char *nearest;
  if (model_activation_parse(pair->value, to, &nearest)) return CURVD_OK;
  return cv_fail(err, CURVD_ERR_OPTION,
                 "%.200s:%ld: unknown activation \"%.60s\"; use linear, relu, tanh, sigmoid or gelu", pair->file,
                 pair->value_line, pair->value);
}

static curvd_status read_name(const config_pair *pair, char *to, cv_error *err) {
  size_t length = strlen(pair->value);
  if (length >= NN_NAME_MAX) return refuse(pair, pair->value_line, "a name has 63 characters at most", err);
  memcpy(to, pair->value, length + 1);
  return CURVD_OK;
}

/* As model_build_add wants it. */
static curvd_status read_from(const reader *r, const config_pair *pair, int *to, cv_error *err) {
  const char *name[MODEL_LAYERS_MAX + 1] = {"input"};
  for (int i = 0; i < r->spec->n_layers; i++) name[i + 1] = r->spec->layer[i].name;
  for (int i = 0; i <= r->spec->n_layers; i++) {
    if (strcmp(name[i], pair->value) != 0) continue;
    *to = i == 0 ? -1 : i;
    return CURVD_OK;
  }
  return cv_fail(err, CURVD_ERR_OPTION, "%.200s:%ld: no layer \"%.60s\" before this one%s", pair->file,
                 pair->value_line, pair->value, nearest_hint(pair->value, name, r->spec->n_layers + 1).text);
}

/* ---- layers ---- */

static const char *const kind_name[NN_KINDS] = {
    [NN_DENSE] = "dense",     [NN_CONV] = "conv",       [NN_NORM] = "norm",       [NN_MAX] = "max",
    [NN_AVERAGE] = "average", [NN_DROPOUT] = "dropout", [NN_FLATTEN] = "flatten", [NN_ADD] = "add"};

static curvd_status read_kind(reader *r, const config_pair *pair, cv_error *err) {
  nn_layer_spec *layer = &r->layer;
  int kind = 0;
  while (kind < NN_KINDS && strcmp(kind_name[kind], pair->key) != 0) kind++;
  if (kind == NN_KINDS)
    return cv_fail(err, CURVD_ERR_OPTION, "%.200s:%ld: no kind of layer \"%.60s\"%s", pair->file, pair->key_line,
                   pair->key, nearest_hint(pair->key, kind_name, NN_KINDS).text);
  *layer = (nn_layer_spec){.kind = (nn_kind)kind, .has_bias = kind == NN_DENSE || kind == NN_CONV};
  switch (layer->kind) {
  case NN_DENSE:
  case NN_CONV:
    return read_integer(pair, &layer->out.channels, err);
  case NN_AVERAGE:
    if (strcmp(pair->value, "all") == 0) return CURVD_OK;
    return read_two(pair, layer->window.kernel, err);
  case NN_MAX:
    return read_two(pair, layer->window.kernel, err);
  case NN_DROPOUT:
    if (cv_real_parse(pair->value, &layer->drop)) return CURVD_OK;
    return refuse(pair, pair->value_line, "dropout needs the share that is dropped, as 0.5", err);
  case NN_ADD:
    return read_from(r, pair, &layer->from[1], err);
  case NN_NORM:
    if (strcmp(pair->value, "batch") == 0) return CURVD_OK;
    return refuse(pair, pair->value_line, "the normalisation that there is is batch", err);
  case NN_FLATTEN:
    if (strcmp(pair->value, "image") == 0) return CURVD_OK;
    return refuse(pair, pair->value_line, "what can be flattened is an image", err);
  case NN_KINDS:
    break;
  }
  return CURVD_OK;
}

static bool has_window(nn_kind kind) {
  return kind == NN_CONV || kind == NN_MAX || kind == NN_AVERAGE;
}

static bool has_activation(nn_kind kind) {
  return kind == NN_DENSE || kind == NN_CONV || kind == NN_NORM || kind == NN_ADD;
}

static const char *const detail_name[] = {"name",     "from",   "activation", "kernel", "stride",
                                          "dilation", "groups", "pad",        "bias"};
enum { DETAILS = sizeof detail_name / sizeof detail_name[0] };

static curvd_status check_once(reader *r, const config_pair *pair, cv_error *err) {
  for (int i = 0; i < DETAILS; i++) {
    if (strcmp(pair->key, detail_name[i]) != 0) continue;
    if (r->given >> i & 1)
      return cv_fail(err, CURVD_ERR_OPTION, "%.200s:%ld: %s is set twice", pair->file, pair->key_line, pair->key);
    r->given |= UINT32_C(1) << i;
  }
  return CURVD_OK;
}

/* A further line of a layer. */
static curvd_status read_detail(reader *r, const config_pair *pair, cv_error *err) {
  nn_layer_spec *layer = &r->layer;
  const char *key = pair->key;
  bool is_conv = layer->kind == NN_CONV;
  CV_TRY(check_once(r, pair, err));
  if (strcmp(key, "name") == 0) return read_name(pair, layer->name, err);
  if (strcmp(key, "from") == 0) return read_from(r, pair, &layer->from[0], err);
  if (has_activation(layer->kind) && strcmp(key, "activation") == 0)
    return read_activation(pair, &layer->activation, err);
  if (is_conv && strcmp(key, "kernel") == 0) return read_two(pair, layer->window.kernel, err);
  if (is_conv && strcmp(key, "dilation") == 0) return read_two(pair, layer->window.dilation, err);
  if (is_conv && strcmp(key, "groups") == 0) return read_integer(pair, &layer->groups, err);
  if (has_window(layer->kind) && strcmp(key, "stride") == 0) return read_two(pair, layer->window.stride, err);
  if (has_window(layer->kind) && strcmp(key, "pad") == 0) return read_two(pair, layer->window.pad, err);
  if ((is_conv || layer->kind == NN_DENSE) && strcmp(key, "bias") == 0) return read_bias(pair, &layer->has_bias, err);
  return cv_fail(err, CURVD_ERR_OPTION, "%.200s:%ld: a layer \"%s\" knows no \"%.60s\"%s", pair->file, pair->key_line,
                 kind_name[layer->kind], key, nearest_hint(key, detail_name, DETAILS).text);
}

/* What the item before described. */
static curvd_status close_item(reader *r, cv_error *err) {
  cv_error why = {0};
  if (r->item < 1 || model_build_add(r->spec, &r->layer, &why) == CURVD_OK) return CURVD_OK;
  return cv_fail(err, CURVD_ERR_OPTION, "%.200s:%ld: %.400s", r->file, r->line, why.text);
}

static curvd_status open_item(reader *r, const config_pair *pair, cv_error *err) {
  CV_TRY(close_item(r, err));
  r->item = pair->item;
  r->given = 0;
  r->line = pair->key_line;
  snprintf(r->file, sizeof r->file, "%.199s", pair->file);
  if (pair->item > 0) return read_kind(r, pair, err);
  nn_shape input;
  if (strcmp(pair->key, "input") != 0 || !model_shape_parse(pair->value, &input))
    return refuse(pair, pair->key_line, "the first item is \"- input: HEIGHTxWIDTHxCHANNELS\" or one number", err);
  model_build_begin(r->spec, input);
  return CURVD_OK;
}

static curvd_status take(void *user, const config_pair *pair, cv_error *err) {
  reader *r = user;
  if (pair->item != r->item) return open_item(r, pair, err);
  if (pair->item == 0) return refuse(pair, pair->key_line, "the input has one line", err);
  return read_detail(r, pair, err);
}

static curvd_status end(reader *r, const char *path, curvd_status status, cv_error *err) {
  cv_error why = {0};
  CV_TRY(status);
  CV_TRY(close_item(r, err));
  if (r->item < 0) return cv_fail(err, CURVD_ERR_OPTION, "%.200s: no network", path);
  if (model_build_end(r->spec, &why) == CURVD_OK) return CURVD_OK;
  return cv_fail(err, CURVD_ERR_OPTION, "%.200s: %.400s", path, why.text);
}

curvd_status network_file_parse(const char *bytes, size_t n_bytes, const char *path, model_spec *spec, cv_error *err) {
  reader r = {.spec = spec, .item = -1};
  return end(&r, path, config_yaml_parse(bytes, n_bytes, path, CONFIG_LIST, take, &r, err), err);
}

curvd_status network_file_read(const char *path, model_spec *spec, cv_error *err) {
  reader r = {.spec = spec, .item = -1};
  return end(&r, path, config_yaml_read(path, CONFIG_LIST, take, &r, err), err);
}
