#include "linalg/eig_exact.h"

#include "base/clock.h"
#include "linalg/certify.h"
#include "linalg/dense.h"

#include <math.h>
#include <stddef.h>

/* Relative residual of the pairs beyond which they are not those of M, over the root of n. */
static const double RESIDUAL_MAX = 100 * 6e-8;

/* floats: the certificate's, then the products of the probes (probes, mine) */
cv_eig_scratch cv_eig_exact_scratch(int64_t mine, int64_t k_max) {
  cv_eig_scratch need = cv_certify_scratch(k_max);
  need.floats += CV_EIG_PROBES * cv_dense_ld(mine);
  return need;
}

static curvd_status certify(const cv_slices *s, const cv_eig_work *work, float *U, int64_t ldu, const float *D,
                            bool keep_tau, cv_eig_result *result, cv_error *err) {
  int64_t k_max = s->problem->k_max, ld = cv_dense_ld(s->mine);
  float *W = U + k_max * ldu, *MW = work->floats + cv_certify_scratch(k_max).floats;
  cv_certify_draw(s, W, ldu);
  CV_TRY(s->product(s, NULL, CV_EIG_PROBES, W, ldu, MW, ld, err));
  cv_probed probed = {W, ldu, MW, ld, NULL};
  return cv_certify(s, U, ldu, D, &probed, keep_tau, work, result, err);
}

curvd_status cv_eig_exact_check(const cv_slices *s, const cv_eig_work *work, float *U, int64_t ldu, const float *D,
                                cv_eig_result *result, cv_error *err) {
  double begin = cv_cpu_s();
  CV_TRY(certify(s, work, U, ldu, D, true, result, err));
  result->seconds = cv_cpu_s() - begin;
  return CURVD_OK;
}

/* The comparison is written so that NaN does not pass. */
curvd_status cv_eig_exact_verify(const cv_slices *s, const char *solver, const cv_eig_work *work, float *U, int64_t ldu,
                                 const float *D, cv_eig_result *result, cv_error *err) {
  const cv_eig_problem *p = s->problem;
  *result = (cv_eig_result){.found = p->k_max};
  CV_TRY(certify(s, work, U, ldu, D, false, result, err));
  bool is_descending = true;
  for (int64_t i = 1; i < p->k_max; i++) is_descending = is_descending && D[i] <= D[i - 1];
  if (is_descending && result->residual <= RESIDUAL_MAX * sqrt((double)p->n) && isfinite(result->error_norm))
    return CURVD_OK;
  return cv_fail(
      err, CURVD_ERR_NUMERIC,
      "%s of a finite %lld x %lld matrix returned info 0 and pairs out of order, or with a relative residual of %.1e",
      solver, (long long)p->n, (long long)p->n, result->residual);
}
