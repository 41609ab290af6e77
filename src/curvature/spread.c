/* Factors that no single rank holds. Owner o has the columns of cv_spread_piece of the running average, in blocks of
 * CV_GRID_BLOCK: ScaLAPACK's distribution over a grid of one column. A worker keeps the rows X of this step instead of
 * X^T X; a block of the statistic, rows 0 .. end - 1 of the columns begin .. end - 1, is made just before it is reduced
 * to its owner and mixed into the average on arrival. So a rank needs n^2 / owners numbers, and workers rows * n. */
#include "curvature/internal.h"
#include "linalg/dense.h"

#include <string.h>

cv_cyclic cv_spread_piece(const curvd_ctx *ctx, const cv_factor *factor, int owner) {
  if (!factor->is_spread) return (cv_cyclic){.n = factor->n, .block = factor->n, .parts = 1};
  return (cv_cyclic){.n = factor->n, .block = CV_GRID_BLOCK, .parts = ctx->comm.n_owners, .part = owner};
}

/* The block of the piece's columns from `local` on. */
static int64_t end_of(const cv_cyclic *piece, int64_t local) {
  return cv_cyclic_global(piece, local) + cv_cyclic_run(piece, local);
}

int64_t cv_spread_block_floats(const cv_cyclic *piece, int64_t local) {
  return end_of(piece, local) * cv_cyclic_run(piece, local);
}

/* block (end, width) = X^T X */
void cv_spread_pack(const curvd_ctx *ctx, const cv_factor *factor, const cv_cyclic *piece, int64_t local,
                    float *block) {
  const cv_multiplier *by = factor->captured.is_rounded ? &ctx->statistics_by : NULL;
  int64_t width = cv_cyclic_run(piece, local), end = end_of(piece, local);
  const float *X = factor->captured.statistic;
  if (factor->captured.rows == 0) {
    memset(block, 0, (size_t)(end * width) * sizeof *block);
  } else {
    cv_multiply(by, CV_T, CV_N, end, width, factor->captured.rows, 1, X, factor->ld, X + end - width, factor->ld, 0,
                block, width);
  }
}

void cv_spread_absorb(cv_factor *factor, const cv_cyclic *piece, int64_t local, const float *block) {
  int64_t width = cv_cyclic_run(piece, local), end = end_of(piece, local);
  if (factor->own.due.add == 0) return;
  cv_mix(end, width, (float)factor->own.due.add, block, width, (float)factor->own.due.keep, factor->own.average + local,
         factor->own.ld);
}
