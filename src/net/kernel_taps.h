/* The gradient in the weight of a convolution of small images, tap by tap: a matrix product over the pixels that the
 * tap does not find in the padding, straight into the columns of dW. oneDNN goes through all of dW image by image,
 * padding included: with 512 channels, 64 rows, that takes 4.8 times as long on 2 x 2 pixels, 1.4 times on 4 x 4. */
#ifndef NET_KERNEL_TAPS_H
#define NET_KERNEL_TAPS_H

#include "net/kernel.h"

typedef struct nn_taps {
  int64_t images; /* gathered at a time */
  float *x, *g;   /* (images * pixels, c_in), (images * pixels, c_out): pairs of pixels that meet at a tap */
  double *sums;   /* (2, c_out) */
  cv_multiplier by;
} nn_taps;

/* Whether it is faster than oneDNN, by what was measured: at most 16 pixels, from 64 channels on, one group. */
bool nn_taps_pay(const nn_conv *shape);

curvd_status nn_taps_create(const nn_conv *shape, const nn_conv_settings *settings, cv_memory *memory, nn_taps *made,
                            cv_error *err);
void nn_taps_free(cv_memory *memory, nn_taps *taps);

/* conv_backward_weight of kernel.h, on as many threads as BLAS uses, or in bf16 on one. */
void nn_taps_backward_weight(const nn_taps *taps, const nn_conv *shape, int64_t rows, const float *x, const float *g,
                             float scale, bool has_bias, float beta, float *dw, int64_t lddw);

#endif
