/* Medians, and how sure they are. */
#ifndef PAGE_INTERVAL_H
#define PAGE_INTERVAL_H

#include "base/status.h"

#include <stdint.h>

/* Of n values, none of them NaN; NaN of none. Sorts x. */
double median_of(double *x, int64_t n);

typedef struct interval {
  int64_t n; /* values that there were; NaN is none */
  double median, low, high;
} interval;

/* The median and its 95 % interval by the percentile bootstrap (Efron and Tibshirani, 1993, ch. 13): the 50th and the
 * 1951st of 2000 sorted medians of samples of n drawn with replacement. The draws depend on n alone, so equal values
 * give equal intervals. Of 2 to INTERVAL_RANGE_MAX values it is their range, which covers less than 95 %. MEMORY. */
curvd_status interval_of_median(const double *x, int64_t n, interval *made, cv_error *err);

enum { INTERVAL_RANGE_MAX = 5 };

/* Chance that the range of n independent values holds their true median: all n on one side of it miss it. */
double interval_range_coverage(int64_t n);

#endif
