/* Loss and accuracy against steps, seconds and core-seconds. */
#include "page/page_parts.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { ROWS = 3, COLUMNS = 3, LEFT = 58, GAP = 34, TOP = 30, HEIGHT = 186, ROW_STEP = 258, BOTTOM = 26 };
static const double LOG_FROM = 4; /* a loss that falls by more is shown on a logarithmic scale */

typedef struct measure {
  const char *title;
  int column;
  bool is_score; /* of evaluations, not of training steps */
  bool may_be_log;
} measure;

static const measure measures[ROWS] = {{"Training loss", HISTORY_LOSS, false, true},
                                       {"Test loss", HISTORY_LOSS, true, true},
                                       {"Test accuracy, %", HISTORY_ACCURACY, true, false}};
static const struct {
  const char *title;
  int column;
} against[COLUMNS] = {{"steps", SERIES_STEP}, {"seconds", HISTORY_WALL}, {"core-seconds, of all ranks", HISTORY_CORE}};

static const series *series_of(const page_run *run, const measure *row) {
  return row->is_score ? &run->history.scores : &run->history.steps;
}

static curvd_status group_curve(const page_data *d, int group, const measure *row, int x, curve *made, cv_error *err) {
  const series *list[PAGE_RUNS_MAX];
  int n = 0;
  for (int i = page_next_run(d, group, -1); i >= 0; i = page_next_run(d, group, i)) {
    const series *s = series_of(&d->run[i], row);
    if (s->n > 0) list[n++] = s;
  }
  return curve_make(list, n, x, row->column, made, err);
}

/* Is there any number to draw? */
static bool has_values(const page_data *d, const measure *row) {
  for (int i = 0; i < d->n_runs; i++) {
    const series *s = series_of(&d->run[i], row);
    for (int64_t j = 0; j < s->n; j++)
      if (!isnan(series_at(s, j, row->column))) return true;
  }
  return false;
}

/* ---- one panel ---- */

/* curves: (n_groups), of one row and column of the figure. */
static void panel_ranges(const curve *curves, int n, chart_range *x, chart_range *y) {
  *x = *y = chart_nothing;
  for (int g = 0; g < n; g++)
    for (int64_t i = 0; i < curves[g].n; i++) {
      if (isnan(curves[g].y[i])) continue;
      chart_range_add(x, curves[g].x[i]);
      chart_range_add(y, curves[g].low[i]);
      chart_range_add(y, curves[g].high[i]);
    }
  chart_range_add(x, 0);
}

static void draw_curves(markup *m, const chart_panel *p, const page_data *d, const curve *curves) {
  for (int g = 0; g < d->n_groups; g++) {
    const page_group *group = &d->group[g];
    const curve *c = &curves[g];
    if (group->n_runs > 1) chart_band(m, p, group->style, c->n, c->x, c->low, c->high);
    chart_line(m, p, group->style, group->label, c->n, c->x, c->y);
    if (c->n == 1)
      chart_dot(m, chart_place(&p->x, c->x[0]), chart_place(&p->y, c->y[0]), group->style, false, group->label);
  }
}

/* At the height where each line ends. */
static void draw_names(markup *m, const chart_panel *p, const page_data *d, const curve *curves) {
  chart_label label[PAGE_RUNS_MAX];
  for (int g = 0; g < d->n_groups; g++) {
    const curve *c = &curves[g];
    int64_t last = c->n - 1;
    while (last >= 0 && isnan(chart_place(&p->y, c->y[last]))) last--;
    label[g] = (chart_label){last >= 0 ? chart_place(&p->y, c->y[last]) : NAN, d->group[g].label, d->group[g].style};
  }
  chart_labels_write(m, label, d->n_groups, p->left + p->width + 8, PAGE_NAMES - 10, p->top + 4, p->top + p->height);
}

static void draw_panel(markup *m, const page_data *d, const measure *row, int column, double top, const curve *curves) {
  double width = (PAGE_WIDTH - LEFT - PAGE_NAMES - (COLUMNS - 1) * GAP) / (double)COLUMNS;
  chart_range x, y;
  char title[64];
  panel_ranges(curves, d->n_groups, &x, &y);
  bool is_log = row->may_be_log && y.least > 0 && y.most / y.least > LOG_FROM;
  snprintf(title, sizeof title, "%s%s", row->title, is_log ? ", logarithmic" : "");
  chart_panel p = {.title = column == 0 ? title : "",
                   .x_title = against[column].title,
                   .left = LEFT + column * (width + GAP),
                   .top = top,
                   .width = width,
                   .height = HEIGHT,
                   .has_y_texts = column == 0,
                   .y = {.is_log = is_log}};
  chart_panel_fit(&p, x, y);
  markup_put(m, "<g data-panel=\"%s, %s\">\n", row->title, against[column].title);
  chart_frame(m, &p);
  draw_curves(m, &p, d, curves);
  if (column == COLUMNS - 1) draw_names(m, &p, d, curves);
  markup_put(m, "</g>\n");
}

static void free_curves(curve *curves, int n) {
  for (int g = 0; g < n; g++) curve_free(&curves[g]);
}

static curvd_status make_panel(page *p, const measure *row, int column, double top, curve *curves, cv_error *err) {
  const page_data *d = p->data;
  curvd_status status = CURVD_OK;
  int n = 0;
  for (; n < d->n_groups && status == CURVD_OK; n++)
    status = group_curve(d, n, row, against[column].column, &curves[n], err);
  if (status == CURVD_OK) draw_panel(p->out, d, row, column, top, curves);
  free_curves(curves, n);
  return status;
}

/* ---- the numbers behind it ---- */

static void table_row(markup *m, const page_group *g, const curve *loss, const curve *accuracy, int64_t i) {
  markup_put(m, "<tr>");
  markup_element(m, "td", g->label);
  const double cells[] = {loss->step[i], loss->x[i],     loss->y[i],       loss->low[i],
                          loss->high[i], accuracy->y[i], accuracy->low[i], accuracy->high[i]};
  for (size_t j = 0; j < sizeof cells / sizeof *cells; j++) markup_number_cell(m, cells[j]);
  markup_put(m, "</tr>\n");
}

static curvd_status table_rows(page *p, int group, cv_error *err) {
  curve loss, accuracy;
  CV_TRY(group_curve(p->data, group, &measures[1], HISTORY_WALL, &loss, err));
  curvd_status status = group_curve(p->data, group, &measures[2], HISTORY_WALL, &accuracy, err);
  for (int64_t i = 0; status == CURVD_OK && i < loss.n; i++)
    table_row(p->out, &p->data->group[group], &loss, &accuracy, i);
  curve_free(&loss);
  if (status == CURVD_OK) curve_free(&accuracy);
  return status;
}

static curvd_status write_table(page *p, cv_error *err) {
  static const char *const heads[] = {"configuration", "step",         "seconds", "test loss", "least",
                                      "largest",       "accuracy (%)", "least",   "largest",   NULL};
  page_table_begin(p, "Numbers of the evaluations", heads, 1);
  for (int g = 0; g < p->data->n_groups; g++) CV_TRY(table_rows(p, g, err));
  page_table_end(p);
  return CURVD_OK;
}

static curvd_status draw_rows(page *p, const measure *const *row, int n_rows, curve *curves, cv_error *err) {
  chart_begin(p->out, PAGE_WIDTH, TOP + n_rows * ROW_STEP - BOTTOM,
              "Loss and accuracy against steps, seconds and core-seconds");
  for (int i = 0; i < n_rows; i++)
    for (int j = 0; j < COLUMNS; j++) CV_TRY(make_panel(p, row[i], j, TOP + i * ROW_STEP, curves, err));
  chart_end(p->out);
  return CURVD_OK;
}

curvd_status page_training(page *p, cv_error *err) {
  const page_data *d = p->data;
  const measure *row[ROWS];
  int n_rows = 0;
  for (int i = 0; i < ROWS; i++)
    if (has_values(d, &measures[i])) row[n_rows++] = &measures[i];
  if (n_rows == 0) {
    page_missing(p, "Loss and accuracy.", "Give run folders of `curvd train`.");
    return CURVD_OK;
  }
  curve *curves = calloc((size_t)d->n_groups, sizeof *curves);
  if (curves == NULL) return cv_fail(err, CURVD_ERR_MEMORY, "no memory for %d curves", d->n_groups);
  page_section_begin(p, "training", "Loss and accuracy against steps, seconds and core-seconds");
  curvd_status status = draw_rows(p, row, n_rows, curves, err);
  free(curves);
  CV_TRY(status);
  page_caption(
      p, "Lines are medians over the seeds of a configuration, bands their least and largest; they end with the "
         "seed that ends first. Seconds are those of training, evaluation left out; core-seconds count the threads "
         "of all ranks, curvature ranks too.");
  CV_TRY(write_table(p, err));
  page_section_end(p);
  return CURVD_OK;
}
