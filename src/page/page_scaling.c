/* Step times and efficiency against ranks, from the lines of bench/scale. */
#include "page/page_parts.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { LEFT = 58, GAP = 56, TOP = 30, HEIGHT = 210, BOTTOM = 40, PANELS = 3, SERIES_MAX = 32, CAPTION_MAX = 4096 };

/* Points of one line: what agrees but for the ranks (strong, weak) or the curvature ranks (curvature), and for hosts
 * that grow with them. */
typedef struct line {
  const scaling_point *point[CHART_TICKS_MAX]; /* by ranks; further ones are only in the table */
  int n;
  const scaling_point *base; /* the point with the fewest ranks of this method, rate, threads and batch */
  char name[PAGE_NAME_MAX];
  chart_style style;
} line;

/* One figure: points of one kind, network, options, target and length. */
typedef struct figure {
  const page_data *data;
  const scaling_point *first; /* of n points in a row */
  int64_t n;
  line line[SERIES_MAX];
  int n_lines;
  bool is_curvature; /* against curvature ranks */
  bool is_by_hosts;  /* a line for each number of hosts: else two points of one would stand at one place */
} figure;

/* The batch that a line keeps. */
static int64_t batch_of(const scaling_key *key) {
  return strcmp(key->kind, "weak") == 0 ? key->batch / key->workers : key->batch;
}

/* Of one figure: may their examples a second be compared? */
static bool is_one_base(const scaling_key *x, const scaling_key *y) {
  return strcmp(x->method, y->method) == 0 && strcmp(x->lr, y->lr) == 0 && x->threads == y->threads &&
         batch_of(x) == batch_of(y);
}

static bool is_one_figure(const scaling_key *x, const scaling_key *y) {
  return strcmp(x->kind, y->kind) == 0 && strcmp(x->network, y->network) == 0 && strcmp(x->options, y->options) == 0 &&
         x->target == y->target && strcmp(x->length, y->length) == 0;
}

/* What stays the same along a line, while ranks or curvature ranks grow. */
static int64_t kept_ranks(const figure *f, const scaling_key *key) {
  return f->is_curvature ? key->workers : key->curvature_ranks;
}

static bool is_one_line(const figure *f, const scaling_key *x, const scaling_key *y) {
  return is_one_base(x, y) && kept_ranks(f, x) == kept_ranks(f, y) && (!f->is_by_hosts || x->hosts == y->hosts);
}

/* Points that differ in hosts alone stand side by side. */
static bool has_hosts_apart(const scaling_point *point, int64_t n) {
  for (int64_t i = 1; i < n; i++) {
    const scaling_key *x = &point[i - 1].key, *y = &point[i].key;
    if (is_one_base(x, y) && x->workers == y->workers && x->curvature_ranks == y->curvature_ranks) return true;
  }
  return false;
}

/* ---- names ---- */

static void name_method(const scaling_key *key, char name[PAGE_NAME_MAX]) {
  snprintf(name, PAGE_NAME_MAX, key->lr[0] != '\0' ? "%.40s, lr %.12s" : "%.40s", key->method, key->lr);
}

static void name_add(char name[PAGE_NAME_MAX], const char *what, int64_t value, const char *unit) {
  size_t n = strlen(name);
  snprintf(name + n, PAGE_NAME_MAX - n, ", %s%lld%s", what, (long long)value, unit);
}

/* The method, and what tells it from the figure's others of another base. */
static void name_base(const figure *f, const scaling_key *key, char name[PAGE_NAME_MAX]) {
  bool has_batches = false, has_threads = false;
  for (int64_t i = 0; i < f->n; i++) {
    has_batches = has_batches || batch_of(&f->first[i].key) != batch_of(key);
    has_threads = has_threads || f->first[i].key.threads != key->threads;
  }
  name_method(key, name);
  if (has_batches) name_add(name, "batch ", batch_of(key), strcmp(key->kind, "weak") == 0 ? " a worker" : "");
  if (has_threads) name_add(name, "", key->threads, key->threads == 1 ? " thread" : " threads");
}

static void name_line(const figure *f, line *l) {
  const scaling_key *key = &l->point[0]->key;
  bool has_others = false;
  for (int64_t i = 0; i < f->n; i++)
    has_others =
        has_others || (is_one_base(&f->first[i].key, key) && kept_ranks(f, &f->first[i].key) != kept_ranks(f, key));
  name_base(f, key, l->name);
  if (has_others) name_add(l->name, f->is_curvature ? "W = " : "C = ", kept_ranks(f, key), "");
  if (f->is_by_hosts) name_add(l->name, "", key->hosts, key->hosts == 1 ? " host" : " hosts");
}

/* ---- lines ---- */

static void make_lines(figure *f) {
  for (int64_t i = 0; i < f->n; i++) {
    const scaling_point *point = &f->first[i];
    int at = 0;
    while (at < f->n_lines && !is_one_line(f, &f->line[at].point[0]->key, &point->key)) at++;
    if (at == SERIES_MAX) continue;
    if (at == f->n_lines) f->line[f->n_lines++] = (line){.base = point};
    line *l = &f->line[at];
    if (l->n < CHART_TICKS_MAX) l->point[l->n++] = point;
  }
  for (int i = 0; i < f->n_lines; i++) {
    line *l = &f->line[i];
    int n_before = 0;
    for (int64_t j = f->n - 1; j >= 0; j--)
      if (is_one_base(&f->first[j].key, &l->base->key)) l->base = &f->first[j]; /* points stand by ranks */
    for (int j = 0; j < i; j++) n_before += strcmp(f->line[j].base->key.method, l->base->key.method) == 0;
    l->style = page_method_style(f->data, l->base->key.method);
    l->style.dash = n_before % CHART_DASHES;
    name_line(f, l);
  }
}

/* ---- what is drawn against what ---- */

typedef enum view { STEP_TIME, OF_WORKERS, OF_RANKS, WAITS } view;

static double x_of(const figure *f, const scaling_point *point, view v) {
  if (f->is_curvature) return (double)point->key.curvature_ranks;
  return (double)(v == OF_WORKERS ? point->key.workers : point->key.ranks);
}

static double efficiency(const scaling_point *point, const scaling_point *base, bool of_workers) {
  double n = (double)(of_workers ? point->key.workers : point->key.ranks);
  return 100 * scaling_efficiency(point, n, base, (double)(of_workers ? base->key.workers : base->key.ranks));
}

/* Of a ratio of two medians: from the slowest step over the fastest one of the base to the other ends. The base is 100
 * % by definition. */
static interval efficiency_of(const line *l, const scaling_point *point, bool of_workers) {
  const interval step = point->measure[SCALING_STEP_S], base = l->base->measure[SCALING_STEP_S];
  double median = efficiency(point, l->base, of_workers);
  if (point == l->base) return (interval){step.n, median, median, median};
  return (interval){step.n, median, median * step.median / step.high * base.low / base.median,
                    median * step.median / step.low * base.high / base.median};
}

static interval value_of(const line *l, const scaling_point *point, view v) {
  if (v == WAITS) {
    interval wait = point->measure[SCALING_WAIT];
    return (interval){wait.n, 100 * wait.median, 100 * wait.low, 100 * wait.high};
  }
  interval step = point->measure[SCALING_STEP_S];
  if (v == STEP_TIME) return (interval){step.n, 1e3 * step.median, 1e3 * step.low, 1e3 * step.high};
  return efficiency_of(l, point, v == OF_WORKERS);
}

/* Step time if all ranks were worth as much as those of base. */
static double ideal_ms(const line *l, double ranks) {
  double base_ms = 1e3 * l->base->measure[SCALING_STEP_S].median;
  if (strcmp(l->base->key.kind, "weak") == 0) return base_ms;
  return base_ms * (double)l->base->key.ranks / ranks;
}

static chart_panel panel_make(const figure *f, view v, int at) {
  static const char *const titles[] = {"Step, ms", "Efficiency, workers only, %", "Efficiency, all ranks, %",
                                       "Workers' waits, %"};
  double width = (PAGE_WIDTH - LEFT - PAGE_NAMES - (PANELS - 1) * GAP) / (double)PANELS;
  chart_panel p = {.title = titles[v],
                   .x_title = f->is_curvature   ? "curvature ranks"
                              : v == OF_WORKERS ? "workers"
                                                : "ranks",
                   .left = LEFT + at * (width + GAP),
                   .top = TOP,
                   .width = width,
                   .height = HEIGHT,
                   .has_y_texts = true};
  p.x.is_log = !f->is_curvature;
  p.y.is_log = v == STEP_TIME && !f->is_curvature;
  return p;
}

/* Ticks at the numbers of ranks that there are. */
static void tick_add(chart_ticks *ticks, double value) {
  for (int i = 0; i < ticks->n; i++)
    if (ticks->value[i] == value) return;
  if (ticks->n < CHART_TICKS_MAX) ticks->value[ticks->n++] = value;
}

/* Those that are too near to the one before stay without. */
static void thin_ticks(const chart_axis *x, chart_ticks *ticks) {
  int kept = 0;
  for (int i = 1; i < ticks->n; i++)
    for (int j = i; j > 0 && ticks->value[j - 1] > ticks->value[j]; j--) {
      double larger = ticks->value[j - 1];
      ticks->value[j - 1] = ticks->value[j], ticks->value[j] = larger;
    }
  for (int i = 0; i < ticks->n; i++)
    if (kept == 0 || chart_place(x, ticks->value[i]) - chart_place(x, ticks->value[kept - 1]) > 18)
      ticks->value[kept++] = ticks->value[i];
  ticks->n = kept;
}

static void panel_fit(const figure *f, view v, chart_panel *p) {
  chart_range x = chart_nothing, y = chart_nothing;
  chart_ticks ticks = {.n = 0};
  for (int i = 0; i < f->n_lines; i++)
    for (int j = 0; j < f->line[i].n; j++) {
      interval value = value_of(&f->line[i], f->line[i].point[j], v);
      double at = x_of(f, f->line[i].point[j], v);
      chart_range_add(&x, at);
      chart_range_add(&y, value.low);
      chart_range_add(&y, value.high);
      if (v == STEP_TIME) chart_range_add(&y, 1e3 * f->line[i].point[j]->measure[SCALING_PREDICTED_S].median);
      tick_add(&ticks, at);
    }
  if (!p->y.is_log) chart_range_add(&y, 0);
  if (f->is_curvature) chart_range_add(&x, -0.25); /* its first point is 0, and stands free of the edge */
  if (v == OF_WORKERS || v == OF_RANKS) chart_range_add(&y, 100);
  chart_panel_fit(p, x, y);
  chart_axis_fit(&p->x, x, 0.06);
  thin_ticks(&p->x, &ticks);
  p->x_ticks = ticks;
}

/* ---- drawing ---- */

/* Of efficiencies 100 %; of step times a line for each method, from its base. */
static void draw_ideal(markup *m, const figure *f, const chart_panel *p, view v) {
  const chart_style grey = {CHART_GREY, 1};
  double left = p->x_ticks.value[0], right = p->x_ticks.value[p->x_ticks.n - 1];
  if (v == WAITS || (v == STEP_TIME && f->is_curvature)) return;
  for (int i = 0; i < (v == STEP_TIME ? f->n_lines : 1); i++) {
    const line *l = &f->line[i];
    if (v == STEP_TIME && l->point[0] != l->base) continue; /* one line a method */
    double from = v == STEP_TIME ? ideal_ms(l, left) : 100, to = v == STEP_TIME ? ideal_ms(l, right) : 100;
    double top = fmax(chart_place(&p->y, to), p->top), bottom = fmin(top, p->top + p->height);
    if (isfinite(bottom) && chart_place(&p->y, to) <= p->top + p->height)
      chart_rule(m, chart_place(&p->x, left), chart_place(&p->y, from), chart_place(&p->x, right), bottom, grey);
  }
}

static void draw_point(markup *m, const figure *f, const chart_panel *p, const line *l, const scaling_point *point,
                       view v) {
  char text[200];
  interval value = value_of(l, point, v);
  snprintf(text, sizeof text, "%s, %lld + %lld ranks: %.4g (%.4g to %.4g), %lld runs", l->name,
           (long long)point->key.workers, (long long)point->key.curvature_ranks, value.median, value.low, value.high,
           (long long)value.n);
  chart_point(m, p, l->style, x_of(f, point, v), value.median, value.low, value.high, text);
  double predicted = 1e3 * point->measure[SCALING_PREDICTED_S].median;
  if (v == STEP_TIME)
    chart_dot(m, chart_place(&p->x, x_of(f, point, v)), chart_place(&p->y, predicted), l->style, true, "predicted");
}

static double draw_line(markup *m, const figure *f, const chart_panel *p, const line *l, view v) {
  double x[CHART_TICKS_MAX], y[CHART_TICKS_MAX], last = NAN;
  for (int i = 0; i < l->n; i++) {
    x[i] = x_of(f, l->point[i], v);
    y[i] = value_of(l, l->point[i], v).median;
    if (!isnan(chart_place(&p->y, y[i]))) last = chart_place(&p->y, y[i]);
  }
  chart_line(m, p, l->style, l->name, l->n, x, y);
  for (int i = 0; i < l->n; i++) draw_point(m, f, p, l, l->point[i], v);
  return last;
}

static void draw_panel(markup *m, const figure *f, view v, int at) {
  chart_label label[SERIES_MAX];
  chart_panel p = panel_make(f, v, at);
  panel_fit(f, v, &p);
  markup_put(m, "<g data-panel=\"%s\">\n", p.title);
  chart_frame(m, &p);
  draw_ideal(m, f, &p, v);
  for (int i = 0; i < f->n_lines; i++)
    label[i] = (chart_label){draw_line(m, f, &p, &f->line[i], v), f->line[i].name, f->line[i].style};
  if (at == PANELS - 1)
    chart_labels_write(m, label, f->n_lines, p.left + p.width + 10, PAGE_NAMES - 12, p.top + 4, p.top + p.height);
  markup_put(m, "</g>\n");
}

/* How many runs reached the target, and their median time; none where a run has not, as its time is beyond theirs. */
static void target_cells(markup *m, const scaling_point *point) {
  const interval *target = &point->measure[SCALING_TARGET_S];
  if (point->key.target > 0)
    markup_put(m, "<td class=\"n\">%lld of %lld</td>", (long long)target->n, (long long)point->n_runs);
  else
    markup_number_cell(m, NAN);
  markup_number_cell(m, target->n == point->n_runs ? target->median : NAN);
}

static void table_row(markup *m, const figure *f, const scaling_point *point) {
  char name[PAGE_NAME_MAX];
  const scaling_point *base = point;
  for (int64_t i = f->n - 1; i >= 0; i--)
    if (is_one_base(&f->first[i].key, &point->key)) base = &f->first[i];
  const interval *step = &point->measure[SCALING_STEP_S];
  const double cells[] = {(double)point->key.workers,
                          (double)point->key.curvature_ranks,
                          (double)point->key.hosts,
                          (double)point->key.threads,
                          (double)point->key.batch,
                          (double)step->n,
                          1e3 * step->median,
                          1e3 * step->low,
                          1e3 * step->high,
                          1e3 * point->measure[SCALING_PREDICTED_S].median,
                          efficiency(point, base, true),
                          efficiency(point, base, false),
                          100 * point->measure[SCALING_WAIT].median,
                          point->measure[SCALING_CORE_S].median};
  name_method(&point->key, name);
  markup_put(m, "<tr>");
  markup_element(m, "td", name);
  for (size_t i = 0; i < sizeof cells / sizeof *cells; i++) markup_number_cell(m, cells[i]);
  target_cells(m, point);
  markup_number_cell(m, point->measure[SCALING_ACCURACY].median);
  markup_put(m, "</tr>\n");
}

static void scaling_table(page *p, const figure *f) {
  static const char *const heads[] = {"method",
                                      "W",
                                      "C",
                                      "hosts",
                                      "threads",
                                      "batch",
                                      "runs",
                                      "step (ms)",
                                      "from",
                                      "to",
                                      "predicted (ms)",
                                      "workers only (%)",
                                      "all ranks (%)",
                                      "wait (%)",
                                      "core-s",
                                      "reached",
                                      "target (s)",
                                      "accuracy (%)",
                                      NULL};
  page_table_begin(p, "Numbers of the points", heads, 1);
  for (int64_t i = 0; i < f->n; i++) table_row(p->out, f, &f->first[i]);
  page_table_end(p);
}

static void __attribute__((format(printf, 2, 3))) caption_add(char text[CAPTION_MAX], const char *format, ...) {
  size_t n = strlen(text);
  va_list list;
  va_start(list, format);
  vsnprintf(text + n, CAPTION_MAX - n, format, list);
  va_end(list);
}

/* What the intervals of points of few runs cover. */
static void coverage_caption(const figure *f, char text[CAPTION_MAX]) {
  for (int64_t n = 2; n <= INTERVAL_RANGE_MAX; n++) {
    bool is_here = false;
    for (int64_t i = 0; i < f->n; i++) is_here = is_here || f->first[i].measure[SCALING_STEP_S].n == n;
    if (is_here)
      caption_add(text, " Intervals of %lld runs are their range, which holds the true median in %.4g %% of cases.",
                  (long long)n, 100 * interval_range_coverage(n));
  }
}

static void figure_caption(const figure *f, char text[CAPTION_MAX]) {
  caption_add(text, "Mean steps: medians of runs, with the 95 %% interval of the median (bootstrap); open dots: "
                    "predicted. Dashed: ideal.");
  coverage_caption(f, text);
  caption_add(text, " Bars of efficiencies combine both intervals, the point's and the smallest run's, at their worst "
                    "ends; the smallest run has none.");
  caption_add(text, " 100 %% is what a rank does in the smallest run: ");
  for (int i = 0; i < f->n_lines; i++) {
    const line *l = &f->line[i];
    char name[PAGE_NAME_MAX];
    if (l->point[0] != l->base) continue;
    name_base(f, &l->base->key, name);
    caption_add(text, "%s%s on %lld + %lld ranks", i > 0 ? "; " : "", name, (long long)l->base->key.workers,
                (long long)l->base->key.curvature_ranks);
  }
  caption_add(text, ".");
}

/* size: above that of all texts but the options, of which it shows the beginning. */
static void figure_title(const scaling_key *key, char *title, size_t size) {
  size_t n = (size_t)snprintf(title, size, "Scaling, %s: %s", key->kind, key->network);
  if (key->target > 0) n += (size_t)snprintf(title + n, size - n, ", until %.6g %%", key->target);
  if (key->length[0] != '\0')
    n += (size_t)snprintf(title + n, size - n, key->target > 0 ? ", at most %s" : ", %s", key->length);
  if (key->options[0] != '\0') snprintf(title + n, size - n, ", %.600s", key->options);
}

static void draw_figure(page *p, figure *f) {
  char id[SCALING_TEXT_MAX + 40], title[1000], caption[CAPTION_MAX] = "";
  make_lines(f);
  figure_title(&f->first->key, title, sizeof title);
  snprintf(id, sizeof id, "scaling-%lld", (long long)(f->first - p->data->scaling.point));
  page_section_begin(p, id, title);
  chart_begin(p->out, PAGE_WIDTH, TOP + HEIGHT + BOTTOM, title);
  draw_panel(p->out, f, STEP_TIME, 0);
  draw_panel(p->out, f, f->is_curvature ? WAITS : OF_WORKERS, 1);
  draw_panel(p->out, f, OF_RANKS, 2);
  chart_end(p->out);
  figure_caption(f, caption);
  page_caption(p, caption);
  scaling_table(p, f);
  page_section_end(p);
}

void page_scaling(page *p) {
  const scaling *s = &p->data->scaling;
  if (s->n_points == 0) {
    page_missing(p, "Scaling and efficiency.", "Give the file of lines that bench/scale has written.");
    return;
  }
  for (int64_t i = 0, next; i < s->n_points; i = next) {
    const scaling_key *key = &s->point[i].key;
    for (next = i + 1; next < s->n_points && is_one_figure(&s->point[next].key, key);) next++;
    figure f = {.data = p->data,
                .first = &s->point[i],
                .n = next - i,
                .is_curvature = strcmp(key->kind, "curvature") == 0,
                .is_by_hosts = has_hosts_apart(&s->point[i], next - i)};
    draw_figure(p, &f);
  }
}
