/* Batch normalisation of (rows, c): sums in fp64, which is exact enough for square / n - mean^2. */
#include "net/kernel_parts.h"

enum { LANES = 64 }; /* channels summed side by side, in registers */

static inline void sums_of(int n, int64_t rows, int64_t c, const float *restrict x, double *restrict sum,
                           double *restrict square) {
  double s[LANES] = {0}, q[LANES] = {0};
  for (int64_t r = 0; r < rows; r++)
    for (int j = 0; j < n; j++) {
      double v = x[r * c + j];
      s[j] += v;
      q[j] += v * v;
    }
  for (int j = 0; j < n; j++) sum[j] = s[j], square[j] = q[j];
}

void nn_norm_sums(int64_t rows, int64_t c, const float *x, double *sum, double *square) {
  int64_t i = 0;
  for (; i + LANES <= c; i += LANES) sums_of(LANES, rows, c, x + i, sum + i, square + i);
  if (i < c) sums_of((int)(c - i), rows, c, x + i, sum + i, square + i);
}

void nn_norm_apply(int64_t rows, int64_t c, const float *x, const float *restrict mean, const float *restrict inv_std,
                   const float *restrict gamma, const float *restrict beta, float *y) {
  for (int64_t r = 0; r < rows; r++)
    for (int64_t i = 0; i < c; i++) y[r * c + i] = (x[r * c + i] - mean[i]) * (inv_std[i] * gamma[i]) + beta[i];
}

static inline void backward_sums_of(int n, int64_t rows, int64_t c, const float *restrict x, const float *restrict g,
                                    const float *restrict mean, const float *restrict inv_std, double *restrict sum_g,
                                    double *restrict sum_gx) {
  double s[LANES] = {0}, q[LANES] = {0};
  for (int64_t r = 0; r < rows; r++)
    for (int j = 0; j < n; j++) {
      float xhat = (x[r * c + j] - mean[j]) * inv_std[j];
      s[j] += g[r * c + j];
      q[j] += (double)g[r * c + j] * xhat;
    }
  for (int j = 0; j < n; j++) sum_g[j] = s[j], sum_gx[j] = q[j];
}

void nn_norm_backward_sums(int64_t rows, int64_t c, const float *x, const float *g, const float *mean,
                           const float *inv_std, double *sum_g, double *sum_gx) {
  int64_t i = 0;
  for (; i + LANES <= c; i += LANES)
    backward_sums_of(LANES, rows, c, x + i, g + i, mean + i, inv_std + i, sum_g + i, sum_gx + i);
  if (i < c) backward_sums_of((int)(c - i), rows, c, x + i, g + i, mean + i, inv_std + i, sum_g + i, sum_gx + i);
}

void nn_norm_backward_apply(int64_t rows, int64_t c, const float *x, const float *g, const float *restrict mean,
                            const float *restrict inv_std, const float *restrict gamma, const float *restrict mean_g,
                            const float *restrict mean_gx, float *dx) {
  for (int64_t r = 0; r < rows; r++)
    for (int64_t i = 0; i < c; i++) {
      float xhat = (x[r * c + i] - mean[i]) * inv_std[i];
      dx[r * c + i] = gamma[i] * inv_std[i] * (g[r * c + i] - mean_g[i] - xhat * mean_gx[i]);
    }
}
