/* An image (height, width, channels) as one flat row, in this order. */
#include "net/nn.h"

#include <string.h>

static void flatten_forward(nn_layer *layer, const nn_pass *pass, int64_t rows, const float *const *x, float *y) {
  int64_t d = nn_size(layer->spec.in), ld = nn_stride(layer->spec.out);
  (void)pass;
  for (int64_t i = 0; i < rows; i++) memcpy(y + i * ld, x[0] + i * d, (size_t)d * sizeof *y);
}

static void flatten_backward_input(nn_layer *layer, int64_t rows, const float *x, const float *y, const float *g,
                                   float *dx) {
  int64_t d = nn_size(layer->spec.in), ld = nn_stride(layer->spec.out);
  (void)x, (void)y;
  for (int64_t i = 0; i < rows; i++) memcpy(dx + i * d, g + i * ld, (size_t)d * sizeof *dx);
}

const nn_ops nn_flatten = {.name = "flatten", .forward = flatten_forward, .backward_input = flatten_backward_input};
