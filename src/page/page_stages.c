/* Where a step goes, and what it sends: stacked bars. */
#include "page/page_parts.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { NAMES = 280, ROW = 26, BAR = 17, TOP = 8, AXIS = 44, KINDS_MAX = 16, RIGHT = 66 };

/* ---- stages: colours tell families apart, shades what is in them ---- */

typedef struct stage {
  const char *name; /* as in metrics.jsonl */
  chart_style style;
  double opacity;
} stage;

static const stage stages[] = {{"make batch", {0}, 0.45},
                               {"forward", {0}, 0.7},
                               {"backward", {0}, 1},
                               {"backward for sampled targets", {7}, 0.75},
                               {"update weights", {5}, 0.7},
                               {"capture statistics", {2}, 0.5},
                               {"running average", {2}, 0.75},
                               {"refresh", {2}, 1},
                               {"momentum", {4}, 0.55},
                               {"project gradients", {4}, 0.8},
                               {"precondition", {4}, 1},
                               {"reduce gradients", {3}, 0.55},
                               {"reduce statistics", {3}, 0.8},
                               {"receive preconditioners", {3}, 1},
                               {"move factors", {6}, 0.8},
                               {"wait for curvature", {1}, 0.9},
                               {"wait for workers", {CHART_GREY}, 0.3}};
enum { STAGES = sizeof stages / sizeof stages[0], IDLE = STAGES - 1, REST = STAGES };

static const stage rest = {"anything else", {CHART_GREY}, 0.15};

static const stage *stage_of(int i) {
  return i < STAGES ? &stages[i] : &rest;
}

typedef struct question {
  const char *stage, *key;
} question;

static double end_number(const page_run *run, const char *key) {
  return jsonl_number(run->history.end, key);
}

/* Steps that the process took whose record "end" this is. */
static double steps_of(const page_run *run) {
  double steps = end_number(run, "process_steps");
  return isnan(steps) ? end_number(run, "step") : steps;
}

static double stage_ms(const page_run *run, const void *user) {
  const question *q = user;
  const json_t *all = json_object_get(run->history.end, "stages");
  double seconds = jsonl_number(json_object_get(all, q->stage), q->key), steps = steps_of(run);
  if (!(steps > 0) || json_object_get(run->history.end, "stages") == NULL) return NAN;
  return json_object_get(all, q->stage) == NULL ? 0 : 1e3 * seconds / steps;
}

static double wall_ms(const page_run *run, const void *user) {
  (void)user;
  double steps = steps_of(run);
  return steps > 0 ? 1e3 * end_number(run, "wall_s") / steps : NAN;
}

/* ms of a mean step, of one role of a group. */
typedef struct stage_row {
  int group;
  const char *role, *key;
  bool is_second; /* below the row of the group's workers */
  double part[STAGES + 1], total;
} stage_row;

/* false: nothing is known of this role. */
static bool make_row(const page_data *d, int group, const char *role, const char *key, stage_row *row) {
  double sum = 0;
  *row = (stage_row){.group = group, .role = role, .key = key};
  row->total = page_group_median(d, group, wall_ms, NULL);
  for (int i = 0; i < STAGES; i++) {
    const question q = {stages[i].name, key};
    double ms = page_group_median(d, group, stage_ms, &q);
    row->part[i] = isnan(ms) ? 0 : ms;
    sum += row->part[i];
  }
  /* curvature ranks wait through evaluations, too, which are no part of a step */
  row->part[IDLE] = fmax(0, fmin(row->part[IDLE], row->total - (sum - row->part[IDLE])));
  row->part[REST] = row->total;
  for (int i = 0; i < STAGES; i++) row->part[REST] -= row->part[i];
  row->part[REST] = fmax(row->part[REST], 0);
  return sum > 0 && row->total > 0;
}

static int make_rows(const page_data *d, stage_row rows[2 * PAGE_RUNS_MAX]) {
  int n = 0;
  for (int g = 0; g < d->n_groups; g++) {
    n += make_row(d, g, "workers", "worker_mean_s", &rows[n]);
    if (!make_row(d, g, "curvature ranks", "curvature_mean_s", &rows[n])) continue;
    rows[n].is_second = n > 0 && rows[n - 1].group == g;
    n++;
  }
  return n;
}

/* ---- bars ---- */

static void bar_axis(markup *m, chart_panel *p, double most, int n_rows, const char *title) {
  p->left = NAMES, p->top = TOP, p->width = PAGE_WIDTH - NAMES - RIGHT, p->height = n_rows * ROW;
  p->title = "", p->x_title = title;
  p->x.at = p->left, p->x.length = p->width;
  chart_axis_fit(&p->x, (chart_range){0, most > 0 ? most : 1}, 0);
  p->x.from = 0;
  chart_ticks_make(&p->x, 8, &p->x_ticks);
  chart_frame(m, p);
}

static void row_name(markup *m, double y, const char *name, chart_style style) {
  char cut[170];
  chart_text_cut(name, NAMES - 14, cut, sizeof cut);
  if (style.colour == CHART_GREY) chart_words(m, NAMES - 10, y + BAR / 2.0 + 4, CHART_TEXT_TICK, CHART_END, cut);
  if (style.colour != CHART_GREY) chart_words_of(m, NAMES - 10, y + BAR / 2.0 + 4, style, CHART_END, cut);
}

static void stage_bars(markup *m, const page_data *d, const chart_panel *p, const stage_row *row, double y) {
  double at = p->left;
  char text[120], number[NUMBER_TEXT_MAX];
  const page_group *g = &d->group[row->group];
  row_name(m, y, row->is_second ? row->role : g->label, row->is_second ? (chart_style){CHART_GREY, 0} : g->style);
  for (int i = 0; i <= STAGES; i++) {
    double width = p->x.length * row->part[i] / p->x.to;
    number_text(row->part[i], number);
    snprintf(text, sizeof text, "%s: %s ms", stage_of(i)->name, number);
    chart_bar(m, at, y, width, BAR, stage_of(i)->style, stage_of(i)->opacity, text);
    at += width;
  }
  number_text(row->total, number);
  snprintf(text, sizeof text, "%s ms", number);
  chart_words(m, fmax(at, p->left) + 6, y + BAR / 2.0 + 4, CHART_TEXT_NAME, CHART_START, text);
}

static int used_stages(const stage_row *rows, int n, page_swatch swatch[STAGES + 1]) {
  int used = 0;
  for (int i = 0; i <= STAGES; i++) {
    double most = 0;
    for (int j = 0; j < n; j++) most = fmax(most, rows[j].part[i] / rows[j].total);
    if (most > 0.002) swatch[used++] = (page_swatch){stage_of(i)->name, stage_of(i)->style, stage_of(i)->opacity};
  }
  return used;
}

static void draw_stages(page *p, const stage_row *rows, int n) {
  chart_panel axis = {.title = ""};
  page_swatch swatch[STAGES + 1];
  double most = 0, bottom = TOP + n * ROW + AXIS;
  for (int i = 0; i < n; i++) most = fmax(most, rows[i].total);
  int used = used_stages(rows, n, swatch);
  markup nothing = {.n = 0};
  double height = page_swatches(&nothing, swatch, used, NAMES, 0, PAGE_WIDTH - NAMES);
  markup_free(&nothing);
  chart_begin(p->out, PAGE_WIDTH, bottom + height + 4, "Where a step goes");
  bar_axis(p->out, &axis, most, n, "ms of a mean step");
  for (int i = 0; i < n; i++) stage_bars(p->out, p->data, &axis, &rows[i], TOP + i * ROW + (ROW - BAR) / 2.0);
  page_swatches(p->out, swatch, used, NAMES, bottom, PAGE_WIDTH - NAMES);
  chart_end(p->out);
}

static void stage_table(page *p, const stage_row *rows, int n) {
  static const char *const heads[] = {"configuration", "ranks", "stage", "ms of a mean step", "share (%)", NULL};
  page_table_begin(p, "Numbers of the stages", heads, 3);
  for (int i = 0; i < n; i++)
    for (int j = 0; j <= STAGES; j++) {
      if (!(rows[i].part[j] > 0)) continue;
      markup_put(p->out, "<tr>");
      markup_element(p->out, "td", p->data->group[rows[i].group].label);
      markup_element(p->out, "td", rows[i].role);
      markup_element(p->out, "td", stage_of(j)->name);
      markup_number_cell(p->out, rows[i].part[j]);
      markup_percent_cell(p->out, 100 * rows[i].part[j] / rows[i].total);
      markup_put(p->out, "</tr>\n");
    }
  page_table_end(p);
}

void page_stages(page *p) {
  static stage_row rows[2 * PAGE_RUNS_MAX];
  int n = make_rows(p->data, rows);
  if (n == 0) {
    page_missing(p, "Where a step goes.", "The record \"end\" of a run that was not broken off has its stages.");
    return;
  }
  page_section_begin(p, "stages", "Where a step goes: wall clock of a mean step");
  draw_stages(p, rows, n);
  page_caption(
      p, "Means over the ranks of each kind, medians over seeds; evaluation left out. Blue is the network, green and "
         "orange are curvature, purple is what travels, vermilion and grey are waits.");
  stage_table(p, rows, n);
  page_section_end(p);
}

/* ---- bytes ---- */

static const stage kinds[] = {{"gradients", {0}, 0.85},
                              {"statistics", {2}, 0.85},
                              {"preconditioners", {4}, 0.9},
                              {"moved factors", {6}, 0.85},
                              {"control", {CHART_GREY}, 0.6}};
enum { KINDS = sizeof kinds / sizeof kinds[0] };

static double sent_mb(const page_run *run, const void *user) {
  const json_t *sent = json_object_get(run->history.end, "sent_bytes");
  double steps = steps_of(run);
  return steps > 0 ? jsonl_number(sent, user) / 1e6 / steps : NAN;
}

typedef struct traffic_row {
  int group;
  double part[KINDS], total;
} traffic_row;

static int make_traffic(const page_data *d, traffic_row rows[PAGE_RUNS_MAX], double *most) {
  int n = 0;
  *most = 0;
  for (int g = 0; g < d->n_groups; g++) {
    traffic_row row = {.group = g};
    bool is_known = false;
    for (int i = 0; i < KINDS; i++) {
      double mb = page_group_median(d, g, sent_mb, kinds[i].name);
      is_known = is_known || !isnan(mb);
      row.part[i] = isnan(mb) ? 0 : mb;
      row.total += row.part[i];
    }
    if (is_known) rows[n++] = row;
    *most = fmax(*most, row.total);
  }
  return n;
}

static void traffic_bars(markup *m, const page_data *d, const chart_panel *p, const traffic_row *row, double y) {
  double at = p->left;
  char text[120], number[NUMBER_TEXT_MAX];
  row_name(m, y, d->group[row->group].label, d->group[row->group].style);
  for (int i = 0; i < KINDS; i++) {
    double width = p->x.length * row->part[i] / p->x.to;
    number_text(row->part[i], number);
    snprintf(text, sizeof text, "%s: %s MB", kinds[i].name, number);
    chart_bar(m, at, y, width, BAR, kinds[i].style, kinds[i].opacity, text);
    at += width;
  }
  number_text(row->total, number);
  snprintf(text, sizeof text, "%s MB", number);
  chart_words(m, at + 6, y + BAR / 2.0 + 4, CHART_TEXT_NAME, CHART_START, text);
}

static void traffic_table(page *p, const traffic_row *rows, int n) {
  static const char *const heads[] = {"configuration",      "gradients (MB)", "statistics (MB)", "preconditioners (MB)",
                                      "moved factors (MB)", "control (MB)",   "all (MB)",        NULL};
  page_table_begin(p, "Numbers of the bytes, of a mean step", heads, 1);
  for (int i = 0; i < n; i++) {
    markup_put(p->out, "<tr>");
    markup_element(p->out, "td", p->data->group[rows[i].group].label);
    for (int j = 0; j < KINDS; j++) markup_number_cell(p->out, rows[i].part[j]);
    markup_number_cell(p->out, rows[i].total);
    markup_put(p->out, "</tr>\n");
  }
  page_table_end(p);
}

static void draw_traffic(page *p, const traffic_row *rows, int n, double most) {
  chart_panel axis = {.title = ""};
  page_swatch swatch[KINDS];
  double bottom = TOP + n * ROW + AXIS;
  for (int i = 0; i < KINDS; i++) swatch[i] = (page_swatch){kinds[i].name, kinds[i].style, kinds[i].opacity};
  chart_begin(p->out, PAGE_WIDTH, bottom + 22, "Bytes by kind");
  bar_axis(p->out, &axis, most, n, "MB that all ranks send in a mean step");
  for (int i = 0; i < n; i++) traffic_bars(p->out, p->data, &axis, &rows[i], TOP + i * ROW + (ROW - BAR) / 2.0);
  page_swatches(p->out, swatch, KINDS, NAMES, bottom, PAGE_WIDTH - NAMES);
  chart_end(p->out);
}

void page_traffic(page *p) {
  static traffic_row rows[PAGE_RUNS_MAX];
  double most = 0;
  int n = make_traffic(p->data, rows, &most);
  if (n == 0 || !(most > 0)) {
    page_missing(p, "Bytes by kind.",
                 "Runs of several ranks that were not broken off have them in the record \"end\".");
    return;
  }
  page_section_begin(p, "traffic", "Bytes that travel, by kind");
  draw_traffic(p, rows, n, most);
  page_caption(p, "Payload handed to MPI, summed over all ranks; medians over seeds.");
  traffic_table(p, rows, n);
  page_section_end(p);
}
