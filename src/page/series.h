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

/* Over all steps that any of the series has, of those that have it. */
typedef struct curve {
  int64_t n;
  double *step, *x, *y, *low, *high; /* (n) each: the step; median of x; median, least and largest of y */
} curve;

/* Columns x and y of n_series series. MEMORY. */
curvd_status curve_make(const series *const *s, int n_series, int x, int y, curve *made, cv_error *err);
void curve_free(curve *c);

#endif
