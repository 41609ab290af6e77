/* Pooling: the largest or the mean of every window, channel by channel. */
#include "net/nn.h"

static nn_pool pool_of(const nn_layer *layer) {
  const nn_layer_spec *s = &layer->spec;
  return (nn_pool){.kind = s->kind == NN_MAX ? NN_POOL_MAX : NN_POOL_AVERAGE,
                   .channels = s->in.channels,
                   .in = {s->in.height, s->in.width},
                   .out = {s->out.height, s->out.width},
                   .kernel = {s->window.kernel[0], s->window.kernel[1]},
                   .stride = {s->window.stride[0], s->window.stride[1]},
                   .pad = {s->window.pad[0], s->window.pad[1]}};
}

static void pool_forward(nn_layer *layer, const nn_pass *pass, int64_t rows, const float *const *x, float *y) {
  nn_pool pool = pool_of(layer);
  (void)pass;
  if (rows > 0) layer->kernels->pool_forward(&pool, rows, x[0], y);
}

static void pool_backward_input(nn_layer *layer, int64_t rows, const float *x, const float *y, const float *g,
                                float *dx) {
  nn_pool pool = pool_of(layer);
  if (rows > 0) layer->kernels->pool_backward(&pool, rows, x, y, g, dx);
}

const nn_ops nn_pooling = {.name = "pooling", .forward = pool_forward, .backward_input = pool_backward_input};
