/* How old preconditioners were, how long workers waited for them, how busy curvature ranks were; and what the model had
 * said of a step. */
#include "page/page_parts.h"

#include <math.h>
#include <stdio.h>

enum { NAMES = 280, ROW = 26, TOP = 30, AXIS = 42, GAP = 40, PANELS = 3 };

static double end_value(const page_run *run, const void *key) {
  return jsonl_number(run->history.end, key);
}

/* ---- ages and waits ---- */

typedef struct service_row {
  int group;
  double age_mean, age_p99, age_max, waited, busy_min, busy_max;
} service_row;

static int make_rows(const page_data *d, service_row rows[PAGE_RUNS_MAX]) {
  int n = 0;
  for (int g = 0; g < d->n_groups; g++) {
    service_row row = {.group = g,
                       .age_mean = page_group_median(d, g, end_value, "age_mean"),
                       .age_p99 = page_group_median(d, g, end_value, "age_p99"),
                       .age_max = page_group_median(d, g, end_value, "age_max"),
                       .waited = 100 * page_group_median(d, g, end_value, "waited_share"),
                       .busy_min = 100 * page_group_median(d, g, end_value, "curvature_busy_min"),
                       .busy_max = 100 * page_group_median(d, g, end_value, "curvature_busy_max")};
    bool has_curvature = row.age_max > 0 || row.waited > 0 || !isnan(row.busy_max);
    if (has_curvature) rows[n++] = row;
  }
  return n;
}

static chart_panel panel_of(int i, double most, int n_rows, const char *title, const char *unit) {
  double width = (PAGE_WIDTH - NAMES - 24 - (PANELS - 1) * GAP) / (double)PANELS;
  chart_panel p = {.title = title,
                   .x_title = unit,
                   .left = NAMES + i * (width + GAP),
                   .top = TOP,
                   .width = width,
                   .height = n_rows * ROW};
  p.x.at = p.left, p.x.length = p.width;
  chart_axis_fit(&p.x, (chart_range){0, most > 0 ? most : 1}, 0.03);
  p.x.from = 0;
  chart_ticks_make(&p.x, 5, &p.x_ticks);
  return p;
}

/* A thin line from low to high, with ends. */
static void whisker(markup *m, const chart_panel *p, double low, double high, double y, chart_style style) {
  double from = chart_place(&p->x, low), to = chart_place(&p->x, high);
  chart_style solid = {style.colour, 0};
  chart_rule(m, from, y, to, y, solid);
  chart_rule(m, from, y - 3.5, from, y + 3.5, solid);
  chart_rule(m, to, y - 3.5, to, y + 3.5, solid);
}

static void draw_row(markup *m, const page_data *d, const chart_panel panel[PANELS], const service_row *row, double y) {
  const page_group *g = &d->group[row->group];
  char cut[PAGE_NAME_MAX + 8], text[100];
  chart_text_cut(g->label, NAMES - 14, cut, sizeof cut);
  chart_words_of(m, NAMES - 10, y + 4, g->style, CHART_END, cut);
  whisker(m, &panel[0], row->age_mean, row->age_max, y, g->style);
  snprintf(text, sizeof text, "mean %.3g, 99 %% %.3g, most %.3g steps", row->age_mean, row->age_p99, row->age_max);
  chart_dot(m, chart_place(&panel[0].x, row->age_p99), y, g->style, true, text);
  chart_dot(m, chart_place(&panel[0].x, row->age_mean), y, g->style, false, text);
  snprintf(text, sizeof text, "%.3g %%", row->waited);
  chart_bar(m, panel[1].left, y - 6, panel[1].x.length * row->waited / panel[1].x.to, 12, g->style, 0.85, text);
  if (isnan(row->busy_max)) return;
  whisker(m, &panel[2], row->busy_min, row->busy_max, y, g->style);
  snprintf(text, sizeof text, "%.3g to %.3g %%", row->busy_min, row->busy_max);
  chart_dot(m, chart_place(&panel[2].x, row->busy_min), y, g->style, false, text);
  chart_dot(m, chart_place(&panel[2].x, row->busy_max), y, g->style, false, text);
}

static void service_table(page *p, const service_row *rows, int n) {
  static const char *const heads[] = {"configuration", "age, mean (steps)", "99 %",        "most",
                                      "waited (%)",    "busy, least (%)",   "largest (%)", NULL};
  page_table_begin(p, "Numbers of ages and waits", heads, 1);
  for (int i = 0; i < n; i++) {
    const double ages[] = {rows[i].age_mean, rows[i].age_p99, rows[i].age_max},
                 shares[] = {rows[i].waited, rows[i].busy_min, rows[i].busy_max};
    markup_put(p->out, "<tr>");
    markup_element(p->out, "td", p->data->group[rows[i].group].label);
    for (int j = 0; j < 3; j++) markup_number_cell(p->out, ages[j]);
    for (int j = 0; j < 3; j++) markup_percent_cell(p->out, shares[j]);
    markup_put(p->out, "</tr>\n");
  }
  page_table_end(p);
}

static void draw_service(page *p, const service_row *rows, int n) {
  double age = 0, waited = 0;
  for (int i = 0; i < n; i++) age = fmax(age, rows[i].age_max), waited = fmax(waited, rows[i].waited);
  const chart_panel panel[PANELS] = {
      panel_of(0, age, n, "Ages of preconditioners", "steps"),
      panel_of(1, fmax(waited, 1), n, "Workers' waits for curvature", "% of their wall clock"),
      panel_of(2, 100, n, "Curvature ranks at work", "% of the wall clock")};
  chart_begin(p->out, PAGE_WIDTH, TOP + n * ROW + AXIS, "Ages of preconditioners and waits");
  for (int i = 0; i < PANELS; i++) chart_frame(p->out, &panel[i]);
  for (int i = 0; i < n; i++) draw_row(p->out, p->data, panel, &rows[i], TOP + (i + 0.5) * ROW);
  chart_end(p->out);
}

void page_service(page *p) {
  static service_row rows[PAGE_RUNS_MAX];
  int n = make_rows(p->data, rows);
  if (n == 0) {
    page_missing(p, "Ages and waits.",
                 "Runs of a method with curvature that were not broken off have them in the record \"end\".");
    return;
  }
  page_section_begin(p, "service", "How old preconditioners were, and who waited");
  draw_service(p, rows, n);
  page_caption(
      p, "Ages are counted from the statistics to their use, over all factors and steps: the filled dot is "
         "the mean, the open one "
         "99\xC2\xA0%, the end the oldest. Dots of the right panel are the least and the most busy curvature rank.");
  service_table(p, rows, n);
  page_section_end(p);
}

/* ---- predicted against measured ---- */

enum { STAGES = 7, COLUMNS = 3, PANEL_LEFT = 96, PANEL_STEP = 336, PANEL_HEIGHT = STAGES * 20, PANEL_ROW = 224 };
static const char *const predicted_stages[STAGES] = {"step",    "capture",  "gradients",   "average",
                                                     "refresh", "momentum", "precondition"};

typedef struct predicted_question {
  const char *stage;
  bool is_measured;
} predicted_question;

/* ms */
static double predicted_ms(const page_run *run, const void *user) {
  const predicted_question *q = user;
  const json_t *all = json_object_get(run->history.end, "predicted");
  if (q->stage == predicted_stages[0]) return 1e3 * jsonl_number(all, q->is_measured ? "measured_step_s" : "step_s");
  const json_t *stage = json_object_get(json_object_get(all, "stages"), q->stage);
  return 1e3 * jsonl_number(stage, q->is_measured ? "measured_s" : "predicted_s");
}

typedef struct predicted_row {
  int group;
  double predicted[STAGES], measured[STAGES];
} predicted_row;

static int make_predicted(const page_data *d, predicted_row rows[PAGE_RUNS_MAX]) {
  int n = 0;
  for (int g = 0; g < d->n_groups; g++) {
    predicted_row *row = &rows[n];
    row->group = g;
    for (int i = 0; i < STAGES; i++) {
      row->predicted[i] = page_group_median(d, g, predicted_ms, &(predicted_question){predicted_stages[i], false});
      row->measured[i] = page_group_median(d, g, predicted_ms, &(predicted_question){predicted_stages[i], true});
    }
    bool has_stages = false;
    for (int i = 1; i < STAGES; i++) has_stages = has_stages || (row->predicted[i] > 0 && row->measured[i] > 0);
    n += has_stages && row->predicted[0] > 0 && row->measured[0] > 0;
  }
  return n;
}

static chart_range predicted_range(const predicted_row *row) {
  chart_range range = chart_nothing;
  for (int i = 0; i < STAGES; i++) {
    chart_range_add_positive(&range, row->predicted[i]);
    chart_range_add_positive(&range, row->measured[i]);
  }
  range.least = fmax(range.least, range.most * 1e-4); /* what is less does not matter, and would take all the room */
  return range;
}

static void predicted_pair(markup *m, const chart_panel *p, const predicted_row *row, int i, double y,
                           chart_style style) {
  char text[100];
  double predicted = fmax(chart_place(&p->x, row->predicted[i]), p->left),
         measured = fmax(chart_place(&p->x, row->measured[i]), p->left);
  chart_style solid = {style.colour, 0};
  snprintf(text, sizeof text, "%s: predicted %.4g ms, measured %.4g ms", predicted_stages[i], row->predicted[i],
           row->measured[i]);
  chart_words(m, p->left - 8, y + 4, CHART_TEXT_NAME, CHART_END, predicted_stages[i]);
  if (!(row->predicted[i] > 0) || !(row->measured[i] > 0)) {
    chart_words(m, p->left + 4, y + 4, CHART_TEXT_TICK, CHART_START, "none");
    return;
  }
  chart_rule(m, predicted, y, measured, y, solid);
  chart_dot(m, measured, y, style, false, text);
  chart_dot(m, predicted, y, style, true, text);
}

static void predicted_panel(markup *m, const page_data *d, const predicted_row *row, int at) {
  const page_group *g = &d->group[row->group];
  char cut[PAGE_NAME_MAX + 8];
  const int column = at % COLUMNS, line = at / COLUMNS;
  double left = PANEL_LEFT + column * PANEL_STEP, top = TOP + line * PANEL_ROW;
  chart_panel p = {.title = "",
                   .x_title = "ms of a mean step",
                   .left = left,
                   .top = top,
                   .width = PANEL_STEP - PANEL_LEFT - 26,
                   .height = PANEL_HEIGHT};
  p.x = (chart_axis){.is_log = true, .at = left, .length = p.width};
  chart_axis_fit(&p.x, predicted_range(row), 0.05);
  chart_ticks_make(&p.x, 5, &p.x_ticks);
  chart_frame(m, &p);
  chart_text_cut(g->label, p.width + 60, cut, sizeof cut);
  chart_words_of(m, left - 40, top - 9, g->style, CHART_START, cut);
  for (int i = 0; i < STAGES; i++) predicted_pair(m, &p, row, i, top + 11 + i * 19.0, g->style);
}

static void predicted_table(page *p, const predicted_row *rows, int n) {
  static const char *const heads[] = {"configuration",        "stage", "predicted (ms)", "measured (ms)",
                                      "measured / predicted", NULL};
  page_table_begin(p, "Numbers predicted and measured, of a mean step", heads, 2);
  for (int i = 0; i < n; i++)
    for (int j = 0; j < STAGES; j++) {
      markup_put(p->out, "<tr>");
      markup_element(p->out, "td", p->data->group[rows[i].group].label);
      markup_element(p->out, "td", predicted_stages[j]);
      markup_number_cell(p->out, rows[i].predicted[j]);
      markup_number_cell(p->out, rows[i].measured[j]);
      markup_number_cell(p->out, rows[i].predicted[j] > 0 ? rows[i].measured[j] / rows[i].predicted[j] : NAN);
      markup_put(p->out, "</tr>\n");
    }
  page_table_end(p);
}

void page_prediction(page *p) {
  static predicted_row rows[PAGE_RUNS_MAX];
  int n = make_predicted(p->data, rows);
  if (n == 0) {
    page_missing(p, "Predicted against measured.",
                 "Runs that were not broken off, and that the model covers, have it in the record \"end\".");
    return;
  }
  page_section_begin(p, "prediction", "What the model said of a step, and what was measured");
  const int n_lines = (n - 1) / COLUMNS + 1;
  chart_begin(p->out, PAGE_WIDTH, TOP + n_lines * (double)PANEL_ROW - 40, "Predicted against measured");
  for (int i = 0; i < n; i++) predicted_panel(p->out, p->data, &rows[i], i);
  chart_end(p->out);
  page_caption(
      p,
      "Open: predicted. Filled: measured. The network's own passes are taken as measured; a step holds more than the "
      "stages below it.");
  predicted_table(p, rows, n);
  page_section_end(p);
}
