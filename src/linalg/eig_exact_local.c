/* Exact eigendecomposition on one rank: LAPACK's divide and conquer (syevd), about 9 n^3 flops, 3 n^2 numbers of
 * scratch. LAPACK's ascending order is reversed. */
#include "base/clock.h"
#include "base/order.h"
#include "linalg/dense.h"
#include "linalg/eig_exact.h"

#include <string.h>

static curvd_status fits(int64_t n, int64_t k_max, const struct cv_grid *grid, cv_error *err) {
  (void)k_max, (void)grid;
  return cv_syev_fits(n, err);
}

/* floats behind the certificate's: V (n, n), w (n), LAPACK's */
static cv_eig_scratch scratch_f32(int64_t n, int64_t k_max, const struct cv_grid *grid) {
  (void)grid;
  cv_eig_scratch need = cv_eig_exact_scratch(n, k_max);
  need.floats += n * cv_dense_ld(n) + n + cv_syev_scratch(n);
  need.ints = cv_syev_iscratch(n);
  return need;
}

/* doubles: V (n, n), w (n), LAPACK's */
static cv_eig_scratch scratch_f64(int64_t n, int64_t k_max, const struct cv_grid *grid) {
  (void)grid;
  cv_eig_scratch need = cv_eig_exact_scratch(n, k_max);
  need.doubles = cv_larger(need.doubles, n * n + n + cv_syev_scratch(n));
  need.ints = cv_syev_iscratch(n);
  return need;
}

static curvd_status check(const cv_eig_problem *p, const cv_eig_work *work, float *U, int64_t ldu, const float *D,
                          cv_eig_result *result, cv_error *err) {
  cv_slices slices = cv_slices_local(p);
  return cv_eig_exact_check(&slices, work, U, ldu, D, result, err);
}

static curvd_status verify(const cv_eig_problem *p, double begin, const cv_eig_work *work, float *U, int64_t ldu,
                           const float *D, cv_eig_result *result, cv_error *err) {
  cv_slices slices = cv_slices_local(p);
  CV_TRY(cv_eig_exact_verify(&slices, "syevd", work, U, ldu, D, result, err));
  result->seconds = cv_cpu_s() - begin;
  return CURVD_OK;
}

static curvd_status solve_f32(const cv_eig_problem *p, const cv_eig_work *work, float *U, int64_t ldu, float *D,
                              cv_eig_result *result, cv_error *err) {
  double begin = cv_cpu_s();
  int64_t n = p->n, ld = cv_dense_ld(n);
  float *V = work->floats + cv_eig_exact_scratch(n, p->k_max).floats, *w = V + n * ld;
  cv_copy_rows(n, n, p->M, p->ld, V, ld);
  CV_TRY(cv_syev_f32(n, V, ld, w, w + n, work->ints, err));
  for (int64_t i = 0; i < p->k_max; i++) {
    D[i] = cv_eig_clamp(w[n - 1 - i]);
    memcpy(U + i * ldu, V + (n - 1 - i) * ld, (size_t)n * sizeof *U);
  }
  return verify(p, begin, work, U, ldu, D, result, err);
}

static curvd_status solve_f64(const cv_eig_problem *p, const cv_eig_work *work, float *U, int64_t ldu, float *D,
                              cv_eig_result *result, cv_error *err) {
  double begin = cv_cpu_s();
  int64_t n = p->n;
  double *V = work->doubles, *w = V + n * n;
  for (int64_t i = 0; i < n; i++) {
    for (int64_t j = 0; j < n; j++) V[i * n + j] = p->M[i * p->ld + j];
  }
  CV_TRY(cv_syev_f64(n, V, n, w, w + n, work->ints, err));
  for (int64_t i = 0; i < p->k_max; i++) {
    int64_t from = n - 1 - i;
    D[i] = cv_eig_clamp(w[from]);
    for (int64_t j = 0; j < n; j++) U[i * ldu + j] = (float)V[from * n + j];
  }
  return verify(p, begin, work, U, ldu, D, result, err);
}

const cv_eig_ops cv_eig_exact = {"exact", true, fits, scratch_f32, solve_f32, check};
const cv_eig_ops cv_eig_exact_f64 = {"exact-fp64", true, fits, scratch_f64, solve_f64, check};
