#include "page/interval.h"

#include "base/rng.h"

#include <math.h>
#include <stdlib.h>

enum { SAMPLES = 2000, SKIPPED = SAMPLES / 40 }; /* 2.5 % at each end */

static int by_value(const void *x, const void *y) {
  double a = *(const double *)x, b = *(const double *)y;
  return (a > b) - (a < b);
}

double median_of(double *x, int64_t n) {
  if (n == 0) return NAN;
  qsort(x, (size_t)n, sizeof *x, by_value);
  return n % 2 == 1 ? x[n / 2] : x[n / 2 - 1] / 2 + x[n / 2] / 2;
}

/* Medians of SAMPLES samples of the n values in x; sample: room for one. */
static void resample(const double *x, int64_t n, double *sample, double medians[SAMPLES]) {
  const cv_rng rng = {.seed = 2000, .stream = CV_RNG_PROBE, .a = (uint32_t)n};
  for (int64_t i = 0; i < SAMPLES; i++) {
    for (int64_t j = 0; j < n; j++) sample[j] = x[cv_rng_below(&rng, (uint64_t)(i * n + j), (uint64_t)n)];
    medians[i] = median_of(sample, n);
  }
}

double interval_range_coverage(int64_t n) {
  return 1 - pow(2, (double)(1 - n));
}

curvd_status interval_of_median(const double *x, int64_t n, interval *made, cv_error *err) {
  double *kept = calloc(2 * (size_t)n + SAMPLES + 1, sizeof *kept), *medians = kept + 2 * n;
  if (kept == NULL) return cv_fail(err, CURVD_ERR_MEMORY, "no memory for the interval of %lld values", (long long)n);
  *made = (interval){.n = 0};
  for (int64_t i = 0; i < n; i++)
    if (!isnan(x[i])) kept[made->n++] = x[i];
  made->median = made->low = made->high = median_of(kept, made->n);
  if (made->n > 1) {
    resample(kept, made->n, kept + n, medians);
    qsort(medians, SAMPLES, sizeof *medians, by_value);
    made->low = medians[SKIPPED - 1];
    made->high = medians[SAMPLES - SKIPPED];
  }
  free(kept);
  return CURVD_OK;
}
