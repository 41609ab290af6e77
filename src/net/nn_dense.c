/* Fully connected layer: y = [x 1] W^T. The constant 1 stands in column d_in of x, so the bias needs no
 * code. Sizes fit BLAS's int: model_create refuses larger ones. */
#include "net/nn.h"

static void dense_forward(nn_layer *layer, const nn_pass *pass, int64_t rows, const float *const *x, float *y) {
  (void)pass;
  cv_multiply(&layer->by, CV_N, CV_T, rows, layer->d_out, layer->d_in + 1, 1, x[0], layer->ld, layer->weight, layer->ld,
              0, y, nn_ld(layer->d_out));
}

static void dense_backward_weight(nn_layer *layer, int64_t rows, const float *x, const float *g, float scale,
                                  float beta) {
  cv_multiply(&layer->by, CV_T, CV_N, layer->d_out, layer->d_in + 1, rows, scale, g, nn_ld(layer->d_out), x, layer->ld,
              beta, layer->gradient, layer->ld);
}

static void dense_backward_input(nn_layer *layer, int64_t rows, const float *x, const float *y, const float *g,
                                 float *dx) {
  (void)x, (void)y;
  cv_multiply(&layer->by, CV_N, CV_N, rows, layer->d_in, layer->d_out, 1, g, nn_ld(layer->d_out), layer->weight,
              layer->ld, 0, dx, layer->ld);
}

const nn_ops nn_dense = {.name = "dense",
                         .forward = dense_forward,
                         .backward_weight = dense_backward_weight,
                         .backward_input = dense_backward_input};
