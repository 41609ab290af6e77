/* Fully connected layer: y = activation([x 1] W^T). The constant 1 stands in column d_in of x, so the bias needs no
 * code. Sizes fit BLAS's int: model_create refuses larger ones. */
#include "train/nn.h"

#include <cblas.h>

int64_t nn_ld(int64_t d) {
  int64_t ld = (d + 1 + 15) / 16 * 16;
  return ld % 512 == 0 ? ld + 16 : ld;
}

static void dense_forward(nn_layer *layer, int64_t rows, const float *x, float *y) {
  int64_t ld_y = nn_ld(layer->d_out);
  cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)rows, (int)layer->d_out, (int)layer->d_in + 1, 1, x,
              (int)layer->ld, layer->weight, (int)layer->ld, 0, y, (int)ld_y);
  nn_activation_forward(layer->activation, rows, layer->d_out, y, ld_y, layer->aux);
}

static void dense_backward_output(nn_layer *layer, int64_t rows, const float *y, float *g) {
  nn_activation_backward(layer->activation, rows, layer->d_out, y, layer->aux, g, nn_ld(layer->d_out));
}

static void dense_backward_weight(nn_layer *layer, int64_t rows, const float *x, const float *g, float scale,
                                  float beta) {
  cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, (int)layer->d_out, (int)layer->d_in + 1, (int)rows, scale, g,
              (int)nn_ld(layer->d_out), x, (int)layer->ld, beta, layer->gradient, (int)layer->ld);
}

static void dense_backward_input(nn_layer *layer, int64_t rows, const float *g, float *dx) {
  cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)rows, (int)layer->d_in, (int)layer->d_out, 1, g,
              (int)nn_ld(layer->d_out), layer->weight, (int)layer->ld, 0, dx, (int)layer->ld);
}

const nn_ops nn_dense = {.name = "dense",
                         .forward = dense_forward,
                         .backward_output = dense_backward_output,
                         .backward_weight = dense_backward_weight,
                         .backward_input = dense_backward_input};
