/* What the implementations of kernel.h share. */
#ifndef NET_KERNEL_PARTS_H
#define NET_KERNEL_PARTS_H

#include "net/kernel.h"

extern const nn_kernels nn_kernels_plain;
extern const nn_kernels nn_kernels_onednn; /* in a build with oneDNN */

/* Checks the shape, its out included, and rows_max. */
curvd_status nn_conv_check(const nn_conv *shape, int64_t rows_max, cv_error *err);

/* Numbers of one image of x, and of y. */
static inline int64_t nn_conv_input(const nn_conv *s) {
  return s->in[0] * s->in[1] * s->c_in;
}

static inline int64_t nn_conv_output(const nn_conv *s) {
  return s->out[0] * s->out[1] * s->c_out;
}

/* Pixel of the image under tap k of the window of output pixel o, along one axis; false: in the padding. */
static inline bool nn_window_pixel(int64_t in, int64_t stride, int64_t pad, int64_t dilation, int64_t o, int64_t k,
                                   int64_t *i) {
  *i = o * stride + k * dilation - pad;
  return *i >= 0 && *i < in;
}

/* Pooling and normalisation, plain loops of channels: they are bound by memory, and oneDNN's are no faster. */
void nn_pool_forward(const nn_pool *shape, int64_t rows, const float *x, float *y);
void nn_pool_backward(const nn_pool *shape, int64_t rows, const float *x, const float *y, const float *g, float *dx);
void nn_norm_sums(int64_t rows, int64_t c, const float *x, double *sum, double *square);
void nn_norm_apply(int64_t rows, int64_t c, const float *x, const float *mean, const float *inv_std, const float *gamma,
                   const float *beta, float *y);
void nn_norm_backward_sums(int64_t rows, int64_t c, const float *x, const float *g, const float *mean,
                           const float *inv_std, double *sum_g, double *sum_gx);
void nn_norm_backward_apply(int64_t rows, int64_t c, const float *x, const float *g, const float *mean,
                            const float *inv_std, const float *gamma, const float *mean_g, const float *mean_gx,
                            float *dx);

#endif
