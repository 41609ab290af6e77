#include "blocks.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static int by_size(const void *x, const void *y) {
  double a = *(const double *)x, b = *(const double *)y;
  return (a > b) - (a < b);
}

double blocks_median(const double *x, int n) {
  double sorted[BLOCKS_MAX];
  memcpy(sorted, x, (size_t)n * sizeof *x);
  qsort(sorted, (size_t)n, sizeof *sorted, by_size);
  return n % 2 ? sorted[n / 2] : (sorted[n / 2 - 1] + sorted[n / 2]) / 2;
}

static double least(const double *x, int n) {
  double result = x[0];
  for (int i = 1; i < n; i++) result = fmin(result, x[i]);
  return result;
}

json_t *blocks_times(const double *ms, int n) {
  return json_pack("{s:f, s:f}", "median", blocks_median(ms, n), "min", least(ms, n));
}

/* Blocks of one round ran next to each other: their ratio is free of what changed from round to round. */
json_t *blocks_ratio(const double *ms, const double *over, int n) {
  double ratio[BLOCKS_MAX];
  for (int i = 0; i < n; i++) ratio[i] = ms[i] / over[i];
  return json_pack("{s:f, s:f}", "median", blocks_median(ratio, n), "of_minima", least(ms, n) / least(over, n));
}
