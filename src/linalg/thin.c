#include "linalg/thin.h"

#include "base/order.h"
#include "linalg/dense.h"

#include <math.h>

/* Share of the probability that follows the lengths; the rest is the same for every row. */
static const double BY_LENGTH = 0.9;

void cv_thin_norms(int64_t rows, int64_t n, const float *X, int64_t ldx, bool has_one, double *norms) {
  int64_t wide = n - (has_one ? 1 : 0);
  for (int64_t i = 0; i < rows; i++) norms[i] = cv_sum_squares(1, wide, X + i * ldx, ldx) + (has_one ? 1 : 0);
}

static curvd_status total_of(int64_t rows, const double *norms, double *total, cv_error *err) {
  double sum = 0;
  for (int64_t i = 0; i < rows; i++) {
    if (!isfinite(norms[i]) || norms[i] < 0)
      return cv_fail(err, CURVD_ERR_NUMERIC, "row %lld of %lld has the squared length %g: look for NaN in the data",
                     (long long)i, (long long)rows, norms[i]);
    sum += norms[i];
  }
  if (!isfinite(sum))
    return cv_fail(err, CURVD_ERR_NUMERIC, "the squared lengths of %lld rows add up to infinity: scale the rows down",
                   (long long)rows);
  *total = sum;
  return CURVD_OK;
}

static void choose_all(int64_t rows, int64_t *index, double *weight) {
  for (int64_t i = 0; i < rows; i++) index[i] = i, weight[i] = 1;
}

/* Lays the rows end to end, row i as long as its mean count c p_i, and takes in each unit interval (a stratum) the row
 * under one uniform point. `covered` is measured from the start of the current stratum, not from the first row: it
 * stays near 1, so that a million rows cost no digits. */
static void choose_some(int64_t rows, const double *norms, double total, int64_t c, cv_rng key, int64_t *index,
                        double *weight) {
  double even = (1 - BY_LENGTH) * (double)c / (double)rows, covered = 0, point = cv_rng_uniform(&key, 0);
  int64_t k = 0;
  for (int64_t i = 0; i < rows && k < c; i++) {
    /* rows of zeros only: any choice is exact */
    double mass = total > 0 ? BY_LENGTH * (double)c * (norms[i] / total) + even : (double)c / (double)rows;
    bool is_last = i == rows - 1; /* takes what rounding leaves */
    covered += mass;
    while (k < c && (point < covered || is_last)) {
      index[k] = i, weight[k] = 1 / mass;
      covered -= 1;
      point = cv_rng_uniform(&key, (uint64_t)++k);
    }
  }
}

curvd_status cv_thin_choose(int64_t rows, const double *norms, int64_t c, cv_rng key, int64_t *index, double *weight,
                            cv_error *err) {
  double total = 0;
  if (c < 1 || rows < 0)
    return cv_fail(err, CURVD_ERR_ARGUMENT, "%lld samples of %lld rows: ask for at least 1 of 0 or more", (long long)c,
                   (long long)rows);
  CV_TRY(total_of(rows, norms, &total, err));
  if (c >= rows) {
    choose_all(rows, index, weight);
  } else {
    choose_some(rows, norms, total, c, key, index, weight);
  }
  return CURVD_OK;
}

void cv_thin_gather(int64_t count, int64_t n, const float *X, int64_t ldx, bool has_one, const int64_t *index,
                    const double *weight, float *out, int64_t ldo) {
  int64_t wide = n - (has_one ? 1 : 0);
  for (int64_t k = 0; k < count; k++) {
    float scale = (float)sqrt(weight[k]);
    cv_mix(1, wide, scale, X + index[k] * ldx, ldx, 0, out + k * ldo, ldo);
    if (has_one) out[k * ldo + wide] = scale;
  }
}

/* c times the square of cv_thin_error. */
static double variance(double srf2) {
  return srf2 / BY_LENGTH - 1;
}

double cv_thin_error(double srf2, int64_t c) {
  return sqrt(variance(srf2) / (double)c);
}

int64_t cv_thin_count(double srf2, double tolerance) {
  double count = ceil(variance(srf2) / (tolerance * tolerance));
  if (!(count < 0x1p62)) return INT64_MAX; /* NaN too */
  return cv_larger((int64_t)count, 1);
}
