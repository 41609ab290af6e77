/* Fully connected layer: y = [x 1] W^T. The constant 1 stands in column d_in of x, so the bias needs no
 * code. Sizes fit BLAS's int: model_create refuses larger ones. */
#include "net/nn.h"

#include <cblas.h>

static void dense_forward(nn_layer *layer, const nn_pass *pass, int64_t rows, const float *const *x, float *y) {
  (void)pass;
  cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)rows, (int)layer->d_out, (int)layer->d_in + 1, 1, x[0],
              (int)layer->ld, layer->weight, (int)layer->ld, 0, y, (int)nn_ld(layer->d_out));
}

static void dense_backward_weight(nn_layer *layer, int64_t rows, const float *x, const float *g, float scale,
                                  float beta) {
  cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, (int)layer->d_out, (int)layer->d_in + 1, (int)rows, scale, g,
              (int)nn_ld(layer->d_out), x, (int)layer->ld, beta, layer->gradient, (int)layer->ld);
}

static void dense_backward_input(nn_layer *layer, int64_t rows, const float *x, const float *y, const float *g,
                                 float *dx) {
  (void)x, (void)y;
  cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)rows, (int)layer->d_in, (int)layer->d_out, 1, g,
              (int)nn_ld(layer->d_out), layer->weight, (int)layer->ld, 0, dx, (int)layer->ld);
}

const nn_ops nn_dense = {.name = "dense",
                         .forward = dense_forward,
                         .backward_weight = dense_backward_weight,
                         .backward_input = dense_backward_input};
