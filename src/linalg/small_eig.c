#include "linalg/small_eig.h"

#include "linalg/dense.h"

#include <math.h>
#include <string.h>

int64_t cv_small_eig_scratch(int64_t k) {
  return k + cv_syev_scratch(k);
}

/* z = (1, -1, 1, -1, ...) */
static double sign_of(int64_t i) {
  return 1 - 2 * (double)(i & 1);
}

/* y (k) = A z for symmetric A, lower triangle; returns its Frobenius norm. */
static double multiply_signs(int64_t k, const double *A, int64_t lda, double *y) {
  double squares = 0;
  memset(y, 0, (size_t)k * sizeof *y);
  for (int64_t i = 0; i < k; i++) {
    for (int64_t j = 0; j <= i; j++) {
      double a = A[i * lda + j];
      y[i] += a * sign_of(j);
      if (j < i) y[j] += a * sign_of(i);
      squares += (j < i ? 2 : 1) * a * a;
    }
  }
  return sqrt(squares);
}

/* y (k) <- y - V^T w V z */
static void subtract_pairs(int64_t k, const double *V, int64_t ldv, const double *w, double *y) {
  for (int64_t i = 0; i < k; i++) {
    const double *v = V + i * ldv;
    double dot = 0;
    for (int64_t j = 0; j < k; j++) dot += v[j] * sign_of(j);
    for (int64_t j = 0; j < k; j++) y[j] -= w[i] * dot * v[j];
  }
}

/* A library may return info 0 and garbage: w must ascend, and V^T w V z be what A z was. */
curvd_status cv_small_eig(int64_t k, double *A, int64_t lda, double *w, double *work, int32_t *iwork, cv_error *err) {
  double *y = work, norm = multiply_signs(k, A, lda, y);
  bool is_ascending = true;
  CV_TRY(cv_syev_f64(k, A, lda, w, work + k, iwork, err));
  for (int64_t i = 1; i < k; i++) is_ascending = is_ascending && w[i] >= w[i - 1];
  subtract_pairs(k, A, lda, w, y);
  double worst = cv_largest_magnitude(k, y);
  if (is_ascending && worst <= 1e-12 * (double)k * norm) return CURVD_OK;
  return cv_fail(err, CURVD_ERR_NUMERIC,
                 "dsyevd of a %lld x %lld matrix returned info 0 and pairs that are %.1e off in a norm of %.1e",
                 (long long)k, (long long)k, worst, norm);
}
