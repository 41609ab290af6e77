/* May statistics of a factor be made of rounded numbers? statistics_precision asks for it; how coarse that is depends
 * on the data, so it is measured, and a factor whose spectrum needs more gets fp32.
 *
 * With X~ for X rounded, a statistic is X~^T X~: semidefinite whatever the rounding was. What it is off by, measured on
 * Gaussian vectors as certificates are (linalg/certify.h), is held against what the pairs in force miss: both are
 * Frobenius norms, as shares of the trace. Rows of independent rounding are off by cv_precision_error over the root of
 * their number; a mean far above what varies, which rounds the same way in every row, by more.
 *
 * Sketches are always made in three terms, which is as good as fp32 here (linalg/stream.h). Pairs that are found
 * exactly, and those of online methods, get fp32: their certificates leave no room for rounding. */
#ifndef CV_CURVATURE_ROUNDING_H
#define CV_CURVATURE_ROUNDING_H

#include "curvature/carrier.h"
#include "curvature/internal.h"

/* Numbers for each column of the widest factor, which is all that is needed to measure. */
int64_t cv_rounding_rows(const cv_settings *settings);
curvd_status cv_rounding_allocate(curvd_ctx *ctx);
void cv_rounding_free(curvd_ctx *ctx);

/* How these rows of the factor, which is not a stream, are to be multiplied; NULL: fp32. missed: Frobenius norm of what
 * the pairs in force miss over the trace; 0 while there are none. A function of rows and pairs alone, so that a run
 * that goes on decides as one that never ended. */
const cv_multiplier *cv_rounding_by(curvd_ctx *ctx, cv_factor *factor, double missed, const cv_rows *x);

/* missed, as a worker knows it. */
static inline double cv_rounding_missed(const cv_factor *factor) {
  const cv_factor_state *pairs = &factor->applied.state;
  return pairs->r > 0 ? pairs->error_norm / pairs->trace : 0;
}

#endif
