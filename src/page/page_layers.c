/* Spectra and ranks of the factors, layer by layer, over the steps. */
#include "page/page_parts.h"

#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
  CELLS_MAX = 12,
  COLUMNS = 4,
  LEFT = 46,
  STEP_X = 256,
  WIDTH = 192,
  TOP = 52,
  HEIGHT = 118,
  STEP_Y = 186,
  SPECTRA_MAX = 3
};

static const double TITLE_SIZE = 1.16; /* of a title over other words */

/* A factor of a layer; n: its largest size in any run. */
typedef struct cell {
  const char *layer;
  int factor;
  double n;
} cell;

typedef struct cells {
  cell *cell;
  int n, room;
} cells;

static const series *series_of(const page_run *run, const cell *c) {
  for (int64_t i = 0; i < run->history.n_layers; i++)
    if (strcmp(run->history.layer[i].name, c->layer) == 0) return &run->history.layer[i].factor[c->factor];
  return NULL;
}

/* ---- which factors ---- */

/* Its size, if anything was ever decomposed; 0: no. */
static double size_of(const series *s) {
  double n = 0;
  for (int64_t i = 0; i < s->n; i++)
    if (series_at(s, i, FACTOR_EIG_RANK) > 0) n = fmax(n, series_at(s, i, FACTOR_N));
  return n;
}

static curvd_status add_cell(cells *all, const char *layer, int factor, double n, cv_error *err) {
  for (int i = 0; i < all->n; i++)
    if (all->cell[i].factor == factor && strcmp(all->cell[i].layer, layer) == 0) return CURVD_OK;
  if (all->n == all->room) {
    int room = 2 * all->room + 16;
    cell *more = realloc(all->cell, (size_t)room * sizeof *more);
    if (more == NULL) return cv_fail(err, CURVD_ERR_MEMORY, "no memory for %d factors", room);
    all->cell = more, all->room = room;
  }
  all->cell[all->n++] = (cell){layer, factor, n};
  return CURVD_OK;
}

/* Of the first run of each group: seeds of it have the same layers. */
static curvd_status find_cells(const page_data *d, cells *all, cv_error *err) {
  for (int g = 0; g < d->n_groups; g++) {
    const history *h = &d->run[d->group[g].first].history;
    for (int64_t i = 0; i < h->n_layers; i++)
      for (int f = 0; f < 2; f++) {
        double n = size_of(&h->layer[i].factor[f]);
        if (n > 0) CV_TRY(add_cell(all, h->layer[i].name, f, n, err));
      }
  }
  return CURVD_OK;
}

/* Keeps the largest, in the order of the layers. */
static void keep_largest(cells *all) {
  while (all->n > CELLS_MAX) {
    int least = 0;
    for (int i = 1; i < all->n; i++)
      if (all->cell[i].n <= all->cell[least].n) least = i;
    memmove(all->cell + least, all->cell + least + 1, (size_t)(all->n - least - 1) * sizeof *all->cell);
    all->n--;
  }
}

/* ---- one panel ---- */

static curvd_status factor_curve(const page_data *d, int group, const cell *c, int column, curve *made, cv_error *err) {
  const series *list[PAGE_RUNS_MAX];
  int n = 0;
  for (int i = page_next_run(d, group, -1); i >= 0; i = page_next_run(d, group, i)) {
    const series *s = series_of(&d->run[i], c);
    if (s != NULL && s->n > 0) list[n++] = s;
  }
  return curve_make(list, n, SERIES_STEP, column, made, err);
}

enum { LINES_MAX = 3 };

/* What a panel shows of each group: a line for each of the columns; the space between the first two may be filled. */
typedef struct view {
  const char *title;
  int column[LINES_MAX], dash[LINES_MAX], n_lines;
  const int *group; /* (n_groups) */
  int n_groups;
  bool is_filled;
} view;

static const double DECADES = 1e6; /* that a panel shows at most: of a full spectrum the end is rounding */

static chart_range largest_of(const curve *curves, int n) {
  chart_range y = chart_nothing;
  for (int i = 0; i < n; i++)
    for (int64_t j = 0; j < curves[i].n; j++) chart_range_add_positive(&y, curves[i].y[j]);
  return y;
}

/* Values below the floor are lifted to it. */
static void fit_curves(const view *v, const curve *curves, chart_range *x, chart_range *y) {
  int n = v->n_groups * v->n_lines;
  *x = chart_nothing;
  *y = largest_of(curves, n);
  y->least = fmax(y->least, y->most / DECADES);
  for (int i = 0; i < n; i++)
    for (int64_t j = 0; j < curves[i].n; j++) {
      if (curves[i].y[j] == 0 && v->column[i % v->n_lines] == FACTOR_TAU) curves[i].y[j] = NAN; /* of a full spectrum */
      if (curves[i].y[j] < y->least) curves[i].y[j] = y->least;
      if (!isnan(curves[i].y[j])) chart_range_add(x, curves[i].x[j]);
    }
  chart_range_add(x, 0);
}

static void draw_group(markup *m, const chart_panel *p, const view *v, const page_group *g, const curve *c) {
  if (v->is_filled && v->n_groups == 1) chart_band(m, p, g->style, c[0].n, c[0].x, c[1].y, c[0].y);
  for (int i = 0; i < v->n_lines; i++) {
    chart_style style = {g->style.colour, v->dash[i]};
    chart_line(m, p, style, g->label, c[i].n, c[i].x, c[i].y);
    for (int64_t j = 0; c[i].n == 1 && j < 1; j++)
      chart_dot(m, chart_place(&p->x, c[i].x[0]), chart_place(&p->y, c[i].y[0]), style, v->dash[i] > 0, g->label);
  }
}

static void draw_panel(markup *m, const page_data *d, const view *v, const cell *c, int at, const curve *curves) {
  char title[160], name[HISTORY_NAME_MAX + 8], size[60];
  const int column = at % COLUMNS, row = at / COLUMNS;
  snprintf(size, sizeof size, " %s, n %.0f", c->factor == 0 ? "A" : "G", c->n);
  chart_text_cut(c->layer, (WIDTH + 30) / TITLE_SIZE - chart_text_width(size), name, sizeof name);
  snprintf(title, sizeof title, "%s%s", name, size);
  chart_panel p = {.title = title,
                   .x_title = "",
                   .left = LEFT + column * STEP_X,
                   .top = TOP + row * STEP_Y,
                   .width = WIDTH,
                   .height = HEIGHT,
                   .has_y_texts = true,
                   .y = {.is_log = true}};
  chart_range x, y;
  fit_curves(v, curves, &x, &y);
  chart_panel_fit(&p, x, y);
  chart_frame(m, &p);
  for (int i = 0; i < v->n_groups; i++)
    draw_group(m, &p, v, &d->group[v->group[i]], curves + (ptrdiff_t)i * v->n_lines);
}

static curvd_status make_panel(page *p, const view *v, const cell *c, int at, cv_error *err) {
  curve *curves = calloc((size_t)(v->n_groups * v->n_lines) + 1, sizeof *curves);
  curvd_status status = CURVD_OK;
  if (curves == NULL) return cv_fail(err, CURVD_ERR_MEMORY, "no memory for %d curves", v->n_groups * v->n_lines);
  for (int i = 0; i < v->n_groups * v->n_lines && status == CURVD_OK; i++)
    status = factor_curve(p->data, v->group[i / v->n_lines], c, v->column[i % v->n_lines], &curves[i], err);
  if (status == CURVD_OK) draw_panel(p->out, p->data, v, c, at, curves);
  for (int i = 0; i < v->n_groups * v->n_lines; i++) curve_free(&curves[i]);
  free(curves);
  return status;
}

static curvd_status draw_view(page *p, const view *v, const cells *shown, cv_error *err) {
  page_swatch *swatch = calloc((size_t)v->n_groups + 1, sizeof *swatch);
  if (swatch == NULL) return cv_fail(err, CURVD_ERR_MEMORY, "no memory for %d names", v->n_groups);
  for (int i = 0; i < v->n_groups; i++) {
    const page_group *g = &p->data->group[v->group[i]];
    swatch[i] = (page_swatch){g->label, g->style, 1};
  }
  const int rows = (shown->n - 1) / COLUMNS + 1;
  chart_begin(p->out, PAGE_WIDTH, TOP + rows * STEP_Y - 34, v->title);
  if (v->n_groups > 1) page_swatches(p->out, swatch, v->n_groups, LEFT, 4, PAGE_WIDTH - LEFT);
  free(swatch);
  for (int i = 0; i < shown->n; i++) CV_TRY(make_panel(p, v, &shown->cell[i], i, err));
  chart_end(p->out);
  return CURVD_OK;
}

/* ---- the last values ---- */

static void table_row(markup *m, const page_group *g, const cell *c, const series *s) {
  static const int columns[] = {FACTOR_N,          FACTOR_EIG_RANK, FACTOR_EFFECTIVE, FACTOR_LAMBDA_MAX,
                                FACTOR_LAMBDA_MIN, FACTOR_TAU,      FACTOR_TRACE};
  markup_put(m, "<tr>");
  markup_element(m, "td", g->label);
  markup_element(m, "td", c->layer);
  markup_element(m, "td", c->factor == 0 ? "A" : "G");
  for (size_t i = 0; i < sizeof columns / sizeof *columns; i++)
    markup_number_cell(m, series_at(s, s->n - 1, columns[i]));
  markup_percent_cell(m, 100 * series_at(s, s->n - 1, FACTOR_MISSING));
  markup_number_cell(m, series_at(s, s->n - 1, FACTOR_AGE));
  markup_put(m, "</tr>\n");
}

static void layers_table(page *p, const cells *all) {
  static const char *const heads[] = {"configuration",
                                      "layer",
                                      "factor",
                                      "n",
                                      "pairs kept",
                                      "effective rank",
                                      "largest",
                                      "smallest kept",
                                      "tail tau",
                                      "trace",
                                      "missing trace (%)",
                                      "age (steps)",
                                      NULL};
  page_table_begin(p, "Last values of all factors, of the first run of each configuration", heads, 3);
  for (int g = 0; g < p->data->n_groups; g++)
    for (int i = 0; i < all->n; i++) {
      const series *s = series_of(&p->data->run[p->data->group[g].first], &all->cell[i]);
      if (s != NULL && s->n > 0) table_row(p->out, &p->data->group[g], &all->cell[i], s);
    }
  page_table_end(p);
}

/* Which groups have decomposed anything; returns how many. */
static int groups_with_layers(const page_data *d, int group[PAGE_RUNS_MAX]) {
  int n = 0;
  for (int g = 0; g < d->n_groups; g++) {
    const history *h = &d->run[d->group[g].first].history;
    double largest = 0;
    for (int64_t i = 0; i < h->n_layers; i++)
      for (int f = 0; f < 2; f++) largest = fmax(largest, size_of(&h->layer[i].factor[f]));
    if (largest > 0) group[n++] = g;
  }
  return n;
}

static curvd_status draw_views(page *p, const cells *all, const cells *shown, cv_error *err) {
  int group[PAGE_RUNS_MAX], n_groups = groups_with_layers(p->data, group);
  const view spectra = {"Spectra of the factors over the steps",
                        {FACTOR_LAMBDA_MAX, FACTOR_LAMBDA_MIN, FACTOR_TAU},
                        {0, 0, 2},
                        3,
                        group,
                        n_groups < SPECTRA_MAX ? n_groups : SPECTRA_MAX,
                        true};
  const view ranks = {"Pairs kept and effective ranks over the steps",
                      {FACTOR_EIG_RANK, FACTOR_EFFECTIVE},
                      {0, 2},
                      2,
                      group,
                      n_groups,
                      false};
  page_section_begin(p, "spectra", spectra.title);
  CV_TRY(draw_view(p, &spectra, shown, err));
  page_caption(p, "Solid: the largest and the smallest eigenvalue that is kept. Dotted: tau, which stands for all "
                  "others. Below a millionth of the largest, lines stay at the bottom. At most the 12 largest factors "
                  "and 3 configurations are drawn.");
  layers_table(p, all);
  page_section_end(p);
  page_section_begin(p, "ranks", ranks.title);
  CV_TRY(draw_view(p, &ranks, shown, err));
  page_caption(p, "Solid: eigenpairs kept. Dotted: the effective rank, trace over largest eigenvalue.");
  page_section_end(p);
  return CURVD_OK;
}

static curvd_status write_layers(page *p, const cells *all, cv_error *err) {
  cells shown = {.cell = malloc((size_t)all->n * sizeof *all->cell), .n = all->n};
  if (shown.cell == NULL) return cv_fail(err, CURVD_ERR_MEMORY, "no memory for %d factors", all->n);
  memcpy(shown.cell, all->cell, (size_t)all->n * sizeof *all->cell);
  keep_largest(&shown);
  curvd_status status = draw_views(p, all, &shown, err);
  free(shown.cell);
  return status;
}

curvd_status page_layers(page *p, cv_error *err) {
  cells all = {.n = 0};
  curvd_status status = find_cells(p->data, &all, err);
  if (status == CURVD_OK && all.n > 0) status = write_layers(p, &all, err);
  if (status == CURVD_OK && all.n == 0)
    page_missing(p, "Spectra and effective ranks.",
                 "Runs of a method with curvature write them at each evaluation (eval_every).");
  free(all.cell);
  return status;
}
