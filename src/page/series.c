#include "page/series.h"

#include "page/interval.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static curvd_status grow(series *s, cv_error *err) {
  if (s->n < s->room) return CURVD_OK;
  int64_t room = 2 * s->room + 16;
  double *cell = realloc(s->cell, (size_t)room * (size_t)s->width * sizeof *cell);
  if (cell == NULL) return cv_fail(err, CURVD_ERR_MEMORY, "no memory for %lld records", (long long)room);
  s->cell = cell;
  s->room = room;
  return CURVD_OK;
}

curvd_status series_add(series *s, const double *row, cv_error *err) {
  while (s->n > 0 && series_at(s, s->n - 1, SERIES_STEP) >= row[SERIES_STEP]) s->n--;
  CV_TRY(grow(s, err));
  memcpy(s->cell + s->n * s->width, row, (size_t)s->width * sizeof *row);
  s->n++;
  return CURVD_OK;
}

void series_free(series *s) {
  free(s->cell);
  *s = (series){.width = s->width};
}

/* ---- curves ---- */

/* Series that are walked through together: at[i] is the next row of series i. */
typedef struct walk {
  const series *const *s;
  int n_series;
  int64_t *at;
  double *value; /* (n_series) of the step now */
} walk;

/* The next step that all series have; INFINITY: none. Passes those that some do not have. */
static double next_step(walk *w) {
  double step = -INFINITY;
  for (int i = 0; i < w->n_series;) {
    while (w->at[i] < w->s[i]->n && series_at(w->s[i], w->at[i], SERIES_STEP) < step) w->at[i]++;
    if (w->at[i] == w->s[i]->n) return INFINITY;
    double found = series_at(w->s[i], w->at[i], SERIES_STEP);
    i = found > step ? 0 : i + 1; /* those before this one may not have it */
    step = found;
  }
  return w->n_series > 0 ? step : INFINITY;
}

/* A column of all series at this step; how many of them are numbers. */
static int64_t values_at(const walk *w, int column) {
  int64_t n = 0;
  for (int i = 0; i < w->n_series; i++) {
    double value = series_at(w->s[i], w->at[i], column);
    if (!isnan(value)) w->value[n++] = value;
  }
  return n;
}

static void pass(walk *w) {
  for (int i = 0; i < w->n_series; i++) w->at[i]++;
}

static void walk_all(walk *w, int x, int y, curve *made) {
  for (double step; isfinite(step = next_step(w)); pass(w)) {
    int64_t at = made->n++, n = values_at(w, x);
    made->step[at] = step;
    made->x[at] = n == w->n_series ? median_of(w->value, n) : NAN;
    n = values_at(w, y);
    made->y[at] = median_of(w->value, n); /* sorts them */
    made->low[at] = n > 0 ? w->value[0] : NAN;
    made->high[at] = n > 0 ? w->value[n - 1] : NAN;
  }
}

curvd_status curve_make(const series *const *s, int n_series, int x, int y, curve *made, cv_error *err) {
  int64_t rows = 0;
  for (int i = 0; i < n_series; i++) rows += s[i]->n;
  *made = (curve){.step = calloc(5 * (size_t)rows + 1, sizeof(double))};
  walk w = {s, n_series, calloc((size_t)n_series + 1, sizeof *w.at), calloc((size_t)n_series + 1, sizeof *w.value)};
  bool is_ready = made->step != NULL && w.at != NULL && w.value != NULL;
  if (is_ready) {
    made->x = made->step + rows, made->y = made->x + rows, made->low = made->y + rows, made->high = made->low + rows;
    walk_all(&w, x, y, made);
  }
  free(w.at);
  free(w.value);
  if (is_ready) return CURVD_OK;
  curve_free(made);
  return cv_fail(err, CURVD_ERR_MEMORY, "no memory for a curve of %lld records", (long long)rows);
}

void curve_free(curve *c) {
  free(c->step);
  *c = (curve){.n = 0};
}
