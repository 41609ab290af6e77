/* What exact backends share: their scratch for the certificate, and the look at what a solver returned. */
#ifndef CV_LINALG_EIG_EXACT_H
#define CV_LINALG_EIG_EXACT_H

#include "linalg/slices.h"

/* mine: columns of a rank. Backends may ask for more floats behind it, and for more doubles at the same place. */
cv_eig_scratch cv_eig_exact_scratch(int64_t mine, int64_t k_max);

/* check of eig.h. */
curvd_status cv_eig_exact_check(const cv_slices *slices, const cv_eig_work *work, float *U, int64_t ldu, const float *D,
                                cv_eig_result *result, cv_error *err);

/* A solver may return code 0 and garbage: certifies all k_max pairs; NUMERIC when their residual is beyond rounding. */
curvd_status cv_eig_exact_verify(const cv_slices *slices, const char *solver, const cv_eig_work *work, float *U,
                                 int64_t ldu, const float *D, cv_eig_result *result, cv_error *err);

/* An eigenvalue below 0 is rounding; NaN stays NaN, unlike with fmax. */
static inline float cv_eig_clamp(double x) {
  return x < 0 ? 0 : (float)x;
}

#endif
