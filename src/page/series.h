/* Numbers over the steps of a run, and several runs as one curve. */
#ifndef PAGE_SERIES_H
#define PAGE_SERIES_H

#include "base/status.h"

#include <stdint.h>

enum { SERIES_STEP = 0, SERIES_WIDTH_MAX = 12 };

/* n rows of `width` numbers each, the first of which is the step and rises. */
typedef struct series {
  int width;
  int64_t n, room;
  double *cell; /* (n, width) */
} series;

/* Appends a row. Rows from its step on go first: a run that was resumed repeats steps, and what came later counts.
 * MEMORY. */
curvd_status series_add(series *s, const double *row, cv_error *err);
void series_free(series *s);

static inline double series_at(const series *s, int64_t row, int column) {
  return s->cell[row * s->width + column];
}

/* Over the steps that all of the series have: where x rises in each of them its median rises too, which one of fewer
 * and fewer series does not. */
typedef struct curve {
  int64_t n;
  double *step, *x, *y, *low, *high; /* (n) each: the step; median of x, NaN where one is NaN; median, least and
                                          largest of those y that are numbers */
} curve;

/* Columns x and y of n_series series. MEMORY. */
curvd_status curve_make(const series *const *s, int n_series, int x, int y, curve *made, cv_error *err);
void curve_free(curve *c);

#endif
