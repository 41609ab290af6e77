#include "curvature/internal.h"
#include "linalg/dense.h"

/* Adds scale * [x 1]^T [x 1] to the statistic; the 1 is appended here, so the caller's array needs no extra column. */
void cv_capture_add(cv_factor *factor, int64_t rows, const float *x, int64_t ldx, bool has_one, float scale) {
  int64_t d = has_one ? factor->n - 1 : factor->n;
  bool is_first = factor->rows == 0;
  float *S = factor->statistic;
  if (rows == 0) return;
  cv_gram_columns(d, rows, scale, x, ldx, is_first ? 0 : 1, S, factor->ld);
  factor->rows += rows;
  if (!has_one) return;
  float *last = S + d * factor->ld;
  if (is_first) {
    for (int64_t j = 0; j <= d; j++) last[j] = 0;
  }
  cv_column_sums(rows, d, scale, x, ldx, last);
  last[d] += scale * (float)rows;
}
