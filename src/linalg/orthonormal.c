/* Orthonormal rows by repeated Cholesky QR with a Gram matrix in fp64, and a check that costs next to nothing.
 * One pass is Q <- L^-1 Q with L L^T = Q Q^T: the rows become orthonormal up to fp32 rounding over the smallest pivot
 * of L. Where fp32 Gram matrices break down from a condition of 3e3, this one holds to about 1e7; beyond that
 * Householder QR takes over. References: Yamamoto et al., ETNA 2015 (two passes); Fukaya et al., SIAM J. Sci. Comput.
 * 2020. */
#include "linalg/orthonormal.h"

#include "linalg/dense.h"

#include <math.h>
#include <stddef.h>

/* Smallest pivot after which no further pass is needed. Unit rows have pivots in (0, 1]. */
static const double PIVOT_ORTHONORMAL = 0.5, PIVOT_SEPARATE = 1e-3;

enum { PASSES = 4, PROBE_BLOCK = 256 };

cv_eig_scratch cv_orthonormal_scratch(int64_t k) {
  return (cv_eig_scratch){.floats = k * k + k + cv_householder_scratch(k), .doubles = k * k + cv_gram_rows_scratch(k)};
}

curvd_status cv_unit_rows(int64_t k, int64_t n, const float *X, int64_t ldx, float *Q, int64_t ldq, cv_error *err) {
  for (int64_t i = 0; i < k; i++) {
    double norm = sqrt(cv_sum_squares(1, n, X + i * ldx, n));
    if (!isfinite(norm)) {
      return cv_fail(err, CURVD_ERR_NUMERIC,
                     "row %lld of a sketch of %lld x %lld is not finite: the factor or the start is not", (long long)i,
                     (long long)k, (long long)n);
    }
    double inverse = norm > 0 ? 1 / norm : 0;
    for (int64_t j = 0; j < n; j++) Q[i * ldq + j] = (float)(X[i * ldx + j] * inverse);
  }
  return CURVD_OK;
}

/* One pass; *pivot is the smallest one. NUMERIC when the rows are dependent even in fp64. */
static curvd_status cholesky_pass(int64_t k, int64_t n, float *Q, int64_t ldq, const cv_eig_work *work, double *pivot) {
  double *gram = work->doubles;
  cv_gram_rows(k, n, Q, ldq, gram, gram + k * k);
  CV_TRY(cv_cholesky_f64(k, gram, k, NULL));
  *pivot = gram[0];
  for (int64_t i = 0; i < k; i++) *pivot = fmin(*pivot, gram[i * k + i]);
  cv_solve_lower(k, n, gram, work->floats, Q, ldq);
  return CURVD_OK;
}

static curvd_status orthonormalise(int64_t k, int64_t n, float *Q, int64_t ldq, double pivot_min,
                                   const cv_eig_work *work, bool *used_householder, cv_error *err) {
  float *tau = work->floats + k * k;
  for (int pass = 0; pass < PASSES; pass++) {
    double pivot;
    CV_TRY(cv_unit_rows(k, n, Q, ldq, Q, ldq, err));
    if (cholesky_pass(k, n, Q, ldq, work, &pivot) != CURVD_OK) break;
    if (pivot >= pivot_min) return CURVD_OK;
  }
  *used_householder = true;
  return cv_householder_rows(k, n, Q, ldq, tau, tau + k, err);
}

curvd_status cv_orthonormalise_rows(int64_t k, int64_t n, float *Q, int64_t ldq, const cv_eig_work *work,
                                    bool *used_householder, cv_error *err) {
  return orthonormalise(k, n, Q, ldq, PIVOT_ORTHONORMAL, work, used_householder, err);
}

curvd_status cv_separate_rows(int64_t k, int64_t n, float *Q, int64_t ldq, const cv_eig_work *work,
                              bool *used_householder, cv_error *err) {
  return orthonormalise(k, n, Q, ldq, PIVOT_SEPARATE, work, used_householder, err);
}

static double probe_sign(int64_t i) {
  const cv_rng rng = {.stream = CV_RNG_PROBE};
  return cv_rng_below(&rng, (uint64_t)i, 2) ? 1 : -1;
}

double cv_orthogonality(int64_t k, int64_t n, const float *Q, int64_t ldq, double *defect) {
  for (int64_t i = 0; i < k; i++) defect[i] = -probe_sign(i);
  for (int64_t j = 0; j < n; j += PROBE_BLOCK) {
    int64_t cols = n - j < PROBE_BLOCK ? n - j : PROBE_BLOCK;
    float y[PROBE_BLOCK] = {0}; /* Q^T z; its rounding adds about 1e-8 to the result */
    for (int64_t i = 0; i < k; i++) {
      float z = (float)probe_sign(i);
      for (int64_t l = 0; l < cols; l++) y[l] += z * Q[i * ldq + j + l];
    }
    for (int64_t i = 0; i < k; i++) defect[i] += cv_dot(1, cols, Q + i * ldq + j, cols, y, cols);
  }
  double worst = 0;
  for (int64_t i = 0; i < k; i++) {
    if (isnan(defect[i])) return NAN;
    worst = fmax(worst, fabs(defect[i]));
  }
  return worst;
}
