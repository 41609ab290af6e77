/* Repeated Cholesky QR with a Gram matrix in fp64: Q <- L^-1 Q with L L^T = Q Q^T. The rows become orthonormal up to
 * fp32 rounding over the smallest pivot of L: where fp32 Gram matrices break down from a condition of 3e3, this holds
 * to about 1e6, and what depends beyond that is drawn anew. References: Yamamoto et al., ETNA 2015 (two passes); Fukaya
 * et al., SIAM J. Sci. Comput. 2020. */
#include "linalg/orthonormal.h"

#include "base/order.h"
#include "linalg/dense.h"

#include <math.h>
#include <string.h>

/* Smallest pivot after which no further pass is needed, and largest that shows nothing but rounding. Unit rows have
 * pivots in (0, 1]. */
static const double PIVOT_ORTHONORMAL = 0.5, PIVOT_SEPARATE = 1e-3, PIVOT_DEPENDENT = 1e-6;

/* NUMBER_APART: rows drawn anew have numbers that no other row of a sketch has. */
enum { PASSES = 6, PROBE_BLOCK = 256, NUMBER_APART = 1 << 20 };

/* floats: T (k, k); doubles: the Gram matrix and its factor (k, k), lengths (k), and room for the kernel */
cv_eig_scratch cv_orthonormal_scratch(int64_t k) {
  return (cv_eig_scratch){.floats = k * k, .doubles = k * k + cv_larger(cv_gram_rows_scratch(k), k * k + k)};
}

/* C <- C / (length_i length_j), with the lengths of the rows on the diagonal's square; 0: the row is dependent. */
static curvd_status scale_rows(int64_t k, double *C, double *length, cv_error *err) {
  for (int64_t i = 0; i < k; i++) {
    length[i] = sqrt(C[i * k + i]);
    if (isfinite(length[i])) continue;
    return cv_fail(err, CURVD_ERR_NUMERIC,
                   "row %lld of a sketch of %lld rows is not finite: the factor or the start is not", (long long)i,
                   (long long)k);
  }
  for (int64_t i = 0; i < k; i++) {
    for (int64_t j = 0; j < k; j++) {
      double product = length[i] * length[j];
      C[i * k + j] = product > 0 ? C[i * k + j] / product : 0;
    }
  }
  return CURVD_OK;
}

/* Cholesky factor L (k, k) of C, whose diagonal is 1; a dependent row gets length 0 and becomes that of the identity.
 */
static void forgiving_cholesky(int64_t k, const double *C, double *L, double *length) {
  for (int64_t i = 0; i < k; i++) {
    double *row = L + i * k, rest = 1;
    for (int64_t j = 0; j < i; j++) {
      double sum = C[i * k + j];
      for (int64_t l = 0; l < j; l++) sum -= row[l] * L[j * k + l];
      row[j] = length[j] > 0 ? sum / L[j * k + j] : 0;
      rest -= row[j] * row[j];
    }
    if (!(rest > PIVOT_DEPENDENT * PIVOT_DEPENDENT)) length[i] = 0;
    row[i] = length[i] > 0 ? sqrt(rest) : 1;
    if (length[i] == 0) memset(row, 0, (size_t)i * sizeof *row);
  }
}

static double smallest_pivot(int64_t k, const double *L) {
  double pivot = 1;
  for (int64_t i = 0; i < k; i++) pivot = fmin(pivot, L[i * k + i]);
  return pivot;
}

/* What the first rank tells the others, next to T. */
typedef struct verdict {
  double pivot;
  int64_t replaced;
} verdict;

/* T (k, k) = the lower triangle that makes rows with Gram matrix C orthonormal; the rows of dependent ones are 0. */
static curvd_status transform_of(int64_t k, double *C, double *room, float *T, verdict *v, cv_error *err) {
  double *L = room, *length = room + k * k;
  CV_TRY(scale_rows(k, C, length, err));
  memcpy(L, C, (size_t)(k * k) * sizeof *L);
  bool is_regular = cv_cholesky_f64(k, L, k, NULL) == CURVD_OK && cv_cholesky_matches(k, L, C, k + 1, 0) &&
                    smallest_pivot(k, L) > PIVOT_DEPENDENT;
  if (!is_regular) forgiving_cholesky(k, C, L, length);
  v->pivot = smallest_pivot(k, L);
  cv_invert_lower_f64(k, L);
  for (int64_t i = 0; i < k; i++) {
    v->replaced += length[i] == 0;
    for (int64_t j = 0; j <= i; j++)
      T[i * k + j] = length[i] > 0 && length[j] > 0 ? (float)(L[i * k + j] / length[j]) : 0;
  }
  return CURVD_OK;
}

/* One pass over Q. */
static curvd_status pass(const cv_slices *s, int64_t number, int64_t k, float *Q, int64_t ldq, const cv_eig_work *work,
                         verdict *v, cv_error *err) {
  double *C = work->doubles, *room = C + k * k;
  float *T = work->floats;
  *v = (verdict){0};
  cv_gram_rows(k, s->mine, Q, ldq, C, room);
  CV_TRY(cv_slices_sum(s, C, k * k, err));
  if (s->is_first) transform_of(k, C, room, T, v, err);
  CV_TRY(cv_slices_agree(s, err));
  CV_TRY(cv_slices_share(s, v, sizeof *v, err));
  CV_TRY(cv_slices_share(s, T, k * k * (int64_t)sizeof *T, err));
  cv_lower_times(k, s->mine, T, Q, ldq);
  for (int64_t i = 0; v->replaced > 0 && i < k; i++) {
    if (T[i * k + i] == 0) cv_slices_draw(s, s->problem->key, number + i, 1, Q + i * ldq, ldq);
  }
  return CURVD_OK;
}

static curvd_status orthonormalise(const cv_slices *s, int64_t k, float *Q, int64_t ldq, double pivot_min,
                                   const cv_eig_work *work, int64_t *replaced, cv_error *err) {
  for (int i = 1; i <= PASSES; i++) {
    verdict v;
    CV_TRY(pass(s, (int64_t)i * NUMBER_APART, k, Q, ldq, work, &v, err));
    *replaced += v.replaced;
    if (v.replaced == 0 && v.pivot >= pivot_min) return CURVD_OK;
  }
  return cv_fail(err, CURVD_ERR_NUMERIC, "%lld rows of length %lld do not become orthonormal in %d passes",
                 (long long)k, (long long)s->columns.n, PASSES);
}

curvd_status cv_orthonormalise_rows(const cv_slices *s, int64_t k, float *Q, int64_t ldq, const cv_eig_work *work,
                                    int64_t *replaced, cv_error *err) {
  return orthonormalise(s, k, Q, ldq, PIVOT_ORTHONORMAL, work, replaced, err);
}

curvd_status cv_separate_rows(const cv_slices *s, int64_t k, float *Q, int64_t ldq, const cv_eig_work *work,
                              int64_t *replaced, cv_error *err) {
  return orthonormalise(s, k, Q, ldq, PIVOT_SEPARATE, work, replaced, err);
}

static double probe_sign(int64_t i) {
  const cv_rng rng = {.stream = CV_RNG_PROBE};
  return cv_rng_below(&rng, (uint64_t)i, 2) ? 1 : -1;
}

void cv_probe_orthogonality(int64_t k, int64_t n, const float *Q, int64_t ldq, double *y) {
  for (int64_t i = 0; i < k; i++) y[i] = 0;
  for (int64_t j = 0; j < n; j += PROBE_BLOCK) {
    int64_t cols = n - j < PROBE_BLOCK ? n - j : PROBE_BLOCK;
    float x[PROBE_BLOCK] = {0}; /* Q^T z; its rounding adds about 1e-8 to the result */
    for (int64_t i = 0; i < k; i++) {
      float z = (float)probe_sign(i);
      for (int64_t l = 0; l < cols; l++) x[l] += z * Q[i * ldq + j + l];
    }
    for (int64_t i = 0; i < k; i++) y[i] += cv_dot(1, cols, Q + i * ldq + j, cols, x, cols);
  }
}

double cv_orthogonality(int64_t k, const double *y) {
  double worst = 0;
  for (int64_t i = 0; i < k; i++) {
    if (isnan(y[i])) return NAN;
    worst = fmax(worst, fabs(y[i] - probe_sign(i)));
  }
  return worst;
}
