/* Exact eigendecomposition on one rank: LAPACK's divide and conquer (syevd), about 9 n^3 flops, 3 n^2 numbers of
 * scratch. Wanted pairs come first: LAPACK's ascending order is reversed. */
#include "linalg/dense.h"
#include "linalg/eig.h"
#include "linalg/orthonormal.h"

#include <math.h>
#include <string.h>

static cv_eig_scratch scratch_f32(int64_t n, int64_t k) {
  (void)k;
  return (cv_eig_scratch){.floats = n + cv_syev_scratch(n), .doubles = n, .ints = cv_syev_iscratch(n)};
}

static cv_eig_scratch scratch_f64(int64_t n, int64_t k) {
  (void)k;
  return (cv_eig_scratch){.doubles = n * n + n + cv_syev_scratch(n), .ints = cv_syev_iscratch(n)};
}

/* defect: scratch, n doubles */
static curvd_status check_solution(int64_t n, const float *U, int64_t ldu, const float *D, double *defect,
                                   cv_eig_result *result, cv_error *err) {
  *result = (cv_eig_result){.found = n, .orthogonality = cv_orthogonality(n, n, U, ldu, defect)};
  bool is_finite = isfinite(result->orthogonality);
  for (int64_t i = 0; i < n; i++) is_finite = is_finite && isfinite(D[i]);
  if (is_finite) return CURVD_OK;
  return cv_fail(err, CURVD_ERR_NUMERIC,
                 "syevd of a finite %lld x %lld matrix returned info 0 and numbers that are not finite", (long long)n,
                 (long long)n);
}

static void swap_rows(int64_t n, float *x, float *y) {
  for (int64_t j = 0; j < n; j++) {
    float t = x[j];
    x[j] = y[j];
    y[j] = t;
  }
}

/* x < 0 is rounding; NaN stays NaN, unlike with fmax. */
static float clamp(double x) {
  return x < 0 ? 0 : (float)x;
}

static curvd_status solve_f32(const cv_eig_problem *p, const cv_eig_work *work, float *U, int64_t ldu, float *D,
                              cv_eig_result *result, cv_error *err) {
  int64_t n = p->n;
  float *w = work->floats;
  for (int64_t i = 0; i < n; i++) memcpy(U + i * ldu, p->M + i * p->ld, (size_t)n * sizeof *U);
  CV_TRY(cv_syev_f32(n, U, ldu, w, w + n, work->ints, err));
  for (int64_t i = 0; i < n / 2; i++) swap_rows(n, U + i * ldu, U + (n - 1 - i) * ldu);
  for (int64_t i = 0; i < n; i++) D[i] = clamp(w[n - 1 - i]);
  return check_solution(n, U, ldu, D, work->doubles, result, err);
}

static curvd_status solve_f64(const cv_eig_problem *p, const cv_eig_work *work, float *U, int64_t ldu, float *D,
                              cv_eig_result *result, cv_error *err) {
  int64_t n = p->n;
  double *V = work->doubles, *w = V + n * n;
  for (int64_t i = 0; i < n; i++) {
    for (int64_t j = 0; j < n; j++) V[i * n + j] = p->M[i * p->ld + j];
  }
  CV_TRY(cv_syev_f64(n, V, n, w, w + n, work->ints, err));
  for (int64_t i = 0; i < n; i++) {
    int64_t from = n - 1 - i;
    D[i] = clamp(w[from]);
    for (int64_t j = 0; j < n; j++) U[i * ldu + j] = (float)V[from * n + j];
  }
  return check_solution(n, U, ldu, D, w + n, result, err);
}

const cv_eig_ops cv_eig_exact = {"exact", true, scratch_f32, solve_f32};
const cv_eig_ops cv_eig_exact_f64 = {"exact-fp64", true, scratch_f64, solve_f64};
