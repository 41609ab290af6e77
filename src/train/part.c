#include "train/part.h"

#include <stdio.h>

static int64_t groups_of(const nn_layer_spec *s) {
  return s->kind == NN_CONV ? s->groups : 1;
}

curvd_status part_list(const model_spec *spec, part list[PARTS_MAX], int first[MODEL_LAYERS_MAX + 1], cv_error *err) {
  int n = 0;
  for (int i = 0; i < spec->n_layers; i++) {
    const nn_layer_spec *s = &spec->layer[i];
    first[i] = n;
    if (nn_weight_rows(s) == 0) continue;
    if (groups_of(s) > PARTS_MAX - n)
      return cv_fail(err, CURVD_ERR_OPTION, "%s: more than %d groups and layers with weights", s->name, (int)PARTS_MAX);
    for (int64_t group = 0; group < groups_of(s); group++) list[n++] = (part){i, group};
  }
  first[spec->n_layers] = n;
  return CURVD_OK;
}

/* "conv3", or "conv3.7" of group 7. */
static const char *name_of(const model_spec *spec, part p, char text[NN_NAME_MAX]) {
  const nn_layer_spec *s = &spec->layer[p.layer];
  snprintf(text, NN_NAME_MAX, "%s", s->name);
  if (groups_of(s) > 1) snprintf(text, NN_NAME_MAX, "%.55s.%lld", s->name, (long long)p.group);
  return text;
}

static curvd_conv conv_of(const nn_layer_spec *s) {
  const nn_window *w = &s->window;
  return (curvd_conv){.c_in = s->in.channels / s->groups,
                      .c_out = s->out.channels / s->groups,
                      .in = {s->in.height, s->in.width},
                      .kernel = {w->kernel[0], w->kernel[1]},
                      .stride = {w->stride[0], w->stride[1]},
                      .pad = {w->pad[0], w->pad[1]},
                      .dilation = {w->dilation[0], w->dilation[1]},
                      .layout = CURVD_CHANNELS_LAST};
}

curvd_status part_add(curvd_ctx *ctx, const model_spec *spec, part p) {
  const nn_layer_spec *s = &spec->layer[p.layer];
  char text[NN_NAME_MAX];
  const char *name = name_of(spec, p, text);
  if (s->kind == NN_NORM) return curvd_layer_add_norm(ctx, name, s->out.channels, NULL);
  if (s->kind == NN_DENSE)
    return curvd_layer_add(ctx, name, nn_weight_columns(s), nn_weight_rows(s), s->has_bias, NULL);
  curvd_conv shape = conv_of(s);
  return curvd_layer_add_conv(ctx, name, &shape, s->has_bias, NULL);
}

curvd_layer_shape part_shape(const model_spec *spec, part p, char text[NN_NAME_MAX]) {
  const nn_layer_spec *s = &spec->layer[p.layer];
  return (curvd_layer_shape){.name = name_of(spec, p, text),
                             .d_in = nn_weight_columns(s),
                             .d_out = nn_weight_rows(s) / groups_of(s),
                             .has_bias = s->has_bias,
                             .kind = s->kind == NN_NORM ? CURVD_LAYER_NORM : CURVD_LAYER_DENSE,
                             .positions = s->kind == NN_CONV ? s->out.height * s->out.width : 0};
}

static int64_t first_row(const nn_layer *layer, part p) {
  return p.group * (layer->d_out / groups_of(&layer->spec));
}

curvd_gradient part_gradient(const model *net, part p) {
  const nn_layer *layer = &net->layer[p.layer];
  float *weight = layer->gradient + first_row(layer, p) * layer->ld;
  return (curvd_gradient){.weight = weight, .ld = layer->ld, .bias = weight + layer->d_in, .bias_stride = layer->ld};
}

float *part_weight(const model *net, part p) {
  const nn_layer *layer = &net->layer[p.layer];
  return layer->weight + first_row(layer, p) * layer->ld;
}

part_rows part_look(const model *net, part p) {
  const nn_layer *layer = &net->layer[p.layer];
  const nn_layer_spec *s = &layer->spec;
  part_rows rows = {net->x[s->from[0]], net->g[p.layer + 1], nn_stride(s->in), nn_stride(s->out)};
  if (s->kind == NN_NORM) {
    nn_norm_examples(layer, &rows.a, &rows.g);
    rows.lda = rows.ldg = s->out.channels;
  }
  if (s->kind == NN_CONV) {
    rows.a += p.group * (s->in.channels / s->groups);
    rows.g += p.group * (s->out.channels / s->groups);
    rows.lda = s->in.channels;
    rows.ldg = s->out.channels;
  }
  return rows;
}
