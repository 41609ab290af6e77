/* Convolution: the layer's side of kernel.h. */
#include "net/nn.h"

static nn_conv conv_of(const nn_layer_spec *s) {
  return (nn_conv){.c_in = s->in.channels,
                   .c_out = s->out.channels,
                   .groups = s->groups,
                   .in = {s->in.height, s->in.width},
                   .kernel = {s->window.kernel[0], s->window.kernel[1]},
                   .stride = {s->window.stride[0], s->window.stride[1]},
                   .pad = {s->window.pad[0], s->window.pad[1]},
                   .dilation = {s->window.dilation[0], s->window.dilation[1]}};
}

static curvd_status conv_create(nn_layer *layer, int64_t rows_max, cv_memory *memory, cv_error *err) {
  nn_conv shape = conv_of(&layer->spec);
  CV_TRY(nn_conv_size(&shape, err));
  const nn_conv_settings settings = {rows_max, layer->threads, layer->by};
  return layer->kernels->conv_create(&shape, &settings, memory, &layer->state, err);
}

static curvd_status conv_prepare(nn_layer *layer, int64_t rows, cv_memory *memory, cv_error *err) {
  return layer->kernels->conv_prepare(layer->state, rows, memory, err);
}

static void conv_release(nn_layer *layer, cv_memory *memory) {
  if (layer->kernels) layer->kernels->conv_free(memory, &layer->state);
}

static void conv_forward(nn_layer *layer, const nn_pass *pass, int64_t rows, const float *const *x, float *y) {
  (void)pass;
  if (rows == 0) return;
  layer->kernels->conv_forward(layer->state, rows, x[0], layer->weight, layer->ld, layer->spec.has_bias, y,
                               &layer->fault);
}

/* No rows: only beta counts. */
static void decay(nn_layer *layer, float beta) {
  for (int64_t i = 0; i < layer->d_out * layer->ld; i++) layer->gradient[i] = beta == 0 ? 0 : beta * layer->gradient[i];
}

static void conv_backward_weight(nn_layer *layer, int64_t rows, const float *x, const float *g, float scale,
                                 float beta) {
  if (rows == 0) {
    decay(layer, beta);
    return;
  }
  layer->kernels->conv_backward_weight(layer->state, rows, x, g, scale, layer->spec.has_bias, beta, layer->gradient,
                                       layer->ld, &layer->fault);
}

static void conv_backward_input(nn_layer *layer, int64_t rows, const float *x, const float *y, const float *g,
                                float *dx) {
  (void)x, (void)y;
  if (rows == 0) return;
  layer->kernels->conv_backward_input(layer->state, rows, g, layer->weight, layer->ld, dx, &layer->fault);
}

const nn_ops nn_convolution = {.name = "convolution",
                               .forward = conv_forward,
                               .backward_weight = conv_backward_weight,
                               .backward_input = conv_backward_input,
                               .create = conv_create,
                               .prepare = conv_prepare,
                               .release = conv_release};
