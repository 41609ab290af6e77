/* The arithmetic of convolutional layers behind one table of functions, with two implementations: "plain", clear loops
 * that are the reference and the fallback, and "onednn", Intel's library where the build found it.
 *
 * Images are channels last and dense: (rows, height, width, channels), row-major; pairs are (height, width). The weight
 * of a convolution is a row-major matrix (c_out, kh kw c_in / groups [+ 1]), rows ldw apart, columns in the order (kh,
 * kw, c_in / groups), the bias last: that of a fully connected layer on patches. Calls allocate nothing, and no memory
 * of one argument may overlap that of another unless it says so. */
#ifndef NET_KERNEL_H
#define NET_KERNEL_H

#include "base/memory.h"
#include "base/status.h"
#include "product/multiply.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct nn_conv {
  int64_t c_in, c_out, groups; /* output channels of group j see the input channels of group j alone */
  int64_t in[2], out[2];       /* out: filled by nn_conv_size */
  int64_t kernel[2], stride[2], pad[2], dilation[2]; /* pad: zeros on either side */
} nn_conv;

typedef enum nn_pool_kind { NN_POOL_MAX, NN_POOL_AVERAGE } nn_pool_kind;

typedef struct nn_pool {
  nn_pool_kind kind;
  bool counts_padding; /* an average divides by kh kw; otherwise by the number of pixels of the image in the window */
  int64_t channels;
  int64_t in[2], out[2];                /* out: filled by nn_pool_size */
  int64_t kernel[2], stride[2], pad[2]; /* kernel = in: one window, the global average */
} nn_pool;

typedef enum nn_conv_result { NN_CONV_Y, NN_CONV_DX, NN_CONV_DW, NN_CONV_RESULTS } nn_conv_result;

typedef struct nn_conv_settings {
  int64_t rows_max; /* images of a call */
  int threads;      /* 0: 1 */
  cv_multiplier by; /* bf16: x, g and w are rounded where that is faster on this unit; all else is fp32 */
} nn_conv_settings;

/* out = (in + 2 pad - dilation (kernel - 1) - 1) / stride + 1, rounded down, per axis. CURVD_ERR_ARGUMENT names the
 * number that is out of range; CURVD_ERR_SIZE when an image or the weight has 2^31 numbers or more. A window of a pool
 * holds at least one pixel of the image: pad < kernel. */
curvd_status nn_conv_size(nn_conv *shape, cv_error *err);
curvd_status nn_pool_size(nn_pool *shape, cv_error *err);

/* kh kw c_in / groups: columns of the weight without the bias. */
int64_t nn_conv_d_in(const nn_conv *shape);

typedef struct nn_kernels {
  const char *name;

  /* A convolution with its working memory (plain: on one thread; onednn: as many as BLAS for the weight of images of at
   * most 16 pixels). Of dry memory it is counted alone: *state is NULL. shape and settings are copied; the multiplier's
   * room is borrowed. */
  curvd_status (*conv_create)(const nn_conv *shape, const nn_conv_settings *settings, cv_memory *memory, void **state,
                              cv_error *err);
  /* Says that calls with this many rows will come, so that they are as fast as those with rows_max; other calls work in
   * pieces. Only a number of counts is kept; one too many changes nothing. Allocates. */
  curvd_status (*conv_prepare)(void *state, int64_t rows, cv_memory *memory, cv_error *err);
  void (*conv_free)(cv_memory *memory, void **state); /* *state NULL is fine */
  /* What makes a result, "jit:avx512_core_amx_bf16" for one, and whether from numbers rounded to bf16. */
  const char *(*conv_kernel)(const void *state, nn_conv_result result, cv_precision *precision);

  /* 1 <= rows <= rows_max in all calls. y (rows, out, c_out) from x (rows, in, c_in). */
  curvd_status (*conv_forward)(void *state, int64_t rows, const float *x, const float *w, int64_t ldw, bool has_bias,
                               float *y, cv_error *err);
  /* dx (rows, in, c_in) from g (rows, out, c_out). */
  curvd_status (*conv_backward_input)(void *state, int64_t rows, const float *g, const float *w, int64_t ldw, float *dx,
                                      cv_error *err);
  /* dw = beta dw + scale g^T [patches of x, 1]; beta 0 does not read dw. Columns from d_in (+ 1) on are left alone. */
  curvd_status (*conv_backward_weight)(void *state, int64_t rows, const float *x, const float *g, float scale,
                                       bool has_bias, float beta, float *dw, int64_t lddw, cv_error *err);

  /* The padding is no candidate of a maximum. backward wants x and y of forward; of equal largest pixels the first of
   * the window gets the gradient. dx is overwritten. */
  void (*pool_forward)(const nn_pool *shape, int64_t rows, const float *x, float *y);
  void (*pool_backward)(const nn_pool *shape, int64_t rows, const float *x, const float *y, const float *g, float *dx);

  /* The halves of batch normalisation, on x (rows, c), so that sums can be added up over ranks in between. With n rows
   * in all, xhat = (x - mean) inv_std:  mean = sum / n, variance = square / n - mean^2. y may be x. */
  void (*norm_sums)(int64_t rows, int64_t c, const float *x, double *sum, double *square);
  void (*norm_apply)(int64_t rows, int64_t c, const float *x, const float *mean, const float *inv_std,
                     const float *gamma, const float *beta, float *y);
  /* sum over rows of g, which is the gradient in beta, and of g xhat, that in gamma */
  void (*norm_backward_sums)(int64_t rows, int64_t c, const float *x, const float *g, const float *mean,
                             const float *inv_std, double *sum_g, double *sum_gx);
  /* dx = gamma inv_std (g - mean_g - xhat mean_gx), the means being the sums over n; both zero for statistics that do
   * not depend on the batch. dx may be g. */
  void (*norm_backward_apply)(int64_t rows, int64_t c, const float *x, const float *g, const float *mean,
                              const float *inv_std, const float *gamma, const float *mean_g, const float *mean_gx,
                              float *dx);
} nn_kernels;

/* "plain", "onednn", or "auto": onednn where this build has it. */
curvd_status nn_kernels_find(const char *name, const nn_kernels **kernels, cv_error *err);

#endif
