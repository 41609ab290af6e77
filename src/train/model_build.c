#include "train/model_build.h"

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
  return spec->out.channels;
}

int64_t nn_weight_columns(const nn_layer_spec *spec) {
  return spec->in.channels;
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
  static const char *const stem[NN_KINDS] = {[NN_DENSE] = "fc"};
  if (layer->name[0] == '\0')
    snprintf(layer->name, sizeof layer->name, "%s%d", stem[layer->kind], number_of(spec, layer->kind));
  for (int i = 0; i < spec->n_layers; i++) {
    if (strcmp(spec->layer[i].name, layer->name) == 0)
      return cv_fail(err, CURVD_ERR_OPTION, "%s: a second layer of this name", layer->name);
  }
  return CURVD_OK;
}

curvd_status model_build_add(model_spec *spec, const nn_layer_spec *wanted, cv_error *err) {
  nn_layer_spec layer = *wanted;
  if (spec->n_layers == MODEL_LAYERS_MAX)
    return cv_fail(err, CURVD_ERR_OPTION, "more than %d layers", (int)MODEL_LAYERS_MAX);
  CV_TRY(name_layer(spec, &layer, err));
  for (int k = 0; k < NN_INPUTS_MAX; k++) layer.from[k] = tensor_of(spec, wanted->from[k]);
  layer.in = model_shape(spec, layer.from[0]);
  layer.out = nn_flat(wanted->out.channels);
  spec->layer[spec->n_layers++] = layer;
  return CURVD_OK;
}

curvd_status model_build_end(const model_spec *spec, cv_error *err) {
  if (spec->n_layers == 0) return cv_fail(err, CURVD_ERR_OPTION, "a network without layers");
  const nn_layer_spec *last = &spec->layer[spec->n_layers - 1];
  if (last->out.is_image || last->activation != NN_LINEAR)
    return cv_fail(err, CURVD_ERR_OPTION,
                   "%s: the last layer is fully connected and has no activation: the loss takes logits", last->name);
  return CURVD_OK;
}
