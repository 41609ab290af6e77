#include "page/page_data.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* ---- reading ---- */

static bool is_folder(const char *path) {
  struct stat about;
  return stat(path, &about) == 0 && S_ISDIR(about.st_mode);
}

/* The last part of a path; of a run's metrics.jsonl the folder's. */
static void name_of(const char *path, char name[PAGE_NAME_MAX]) {
  size_t n = strlen(path);
  static const char file[] = "/metrics.jsonl";
  if (n >= sizeof file && strcmp(path + n - (sizeof file - 1), file) == 0) n -= sizeof file - 1;
  while (n > 1 && path[n - 1] == '/') n--;
  size_t begin = n;
  while (begin > 0 && path[begin - 1] != '/') begin--;
  snprintf(name, PAGE_NAME_MAX, "%.*s", (int)(n - begin), path + begin);
}

/* config.yaml beside a run's metrics.jsonl. Beside a file of another name it may be that of another run. */
static curvd_status settings_read(const char *file, settings *s, cv_error *err) {
  static const char metrics[] = "metrics.jsonl";
  char path[PAGE_PATH_MAX + 20], *bytes = NULL;
  struct stat about;
  const char *slash = strrchr(file, '/'), *last = slash != NULL ? slash + 1 : file;
  int64_t n = 0;
  if (strcmp(last, metrics) != 0) return CURVD_OK;
  snprintf(path, sizeof path, "%.*sconfig.yaml", (int)(last - file), file);
  if (stat(path, &about) != 0) return CURVD_OK;
  CV_TRY(jsonl_file_read(path, &bytes, &n, err));
  curvd_status status = settings_parse(bytes, n, s, err);
  free(bytes);
  return status;
}

static curvd_status add_run(page_data *d, const char *path, const char *file, const char *bytes, int64_t n,
                            cv_error *err) {
  if (d->n_runs == PAGE_RUNS_MAX)
    return cv_fail(err, CURVD_ERR_OPTION, "report: more than %d runs; give fewer", PAGE_RUNS_MAX);
  page_run *run = &d->run[d->n_runs];
  *run = (page_run){.group = 0};
  snprintf(run->path, sizeof run->path, "%s", path);
  name_of(path, run->name);
  CV_TRY(history_parse(bytes, n, file, &run->history, err));
  d->n_runs++; /* from here on page_data_free frees it */
  return settings_read(file, &run->settings, err);
}

/* Does the first record belong to a benchmark? */
static bool is_scaling(const char *bytes, int64_t n) {
  const char *end = n > 0 ? memchr(bytes, '\n', (size_t)n) : NULL;
  json_t *first = json_loadb(bytes, end != NULL ? (size_t)(end - bytes) : (size_t)n, 0, NULL);
  bool is_bench = json_object_get(first, "bench") != NULL;
  json_decref(first);
  return is_bench;
}

curvd_status page_data_take(page_data *d, const char *path, const char *file, bool is_run, const char *bytes, int64_t n,
                            cv_error *err) {
  if (d->run == NULL) d->run = calloc(PAGE_RUNS_MAX, sizeof *d->run);
  if (d->run == NULL) return cv_fail(err, CURVD_ERR_MEMORY, "no memory for a page");
  if (!is_run && is_scaling(bytes, n)) return scaling_parse(bytes, n, file, &d->scaling, err);
  return add_run(d, path, file, bytes, n, err);
}

curvd_status page_data_add(page_data *d, const char *path, cv_error *err) {
  char file[PAGE_PATH_MAX + 20], *bytes = NULL;
  struct stat about;
  int64_t n = 0;
  if (strlen(path) >= PAGE_PATH_MAX)
    return cv_fail(err, CURVD_ERR_OPTION, "report: a path of %zu bytes; up to %d are taken", strlen(path),
                   PAGE_PATH_MAX - 1);
  bool is_run = is_folder(path);
  snprintf(file, sizeof file, is_run ? "%s/metrics.jsonl" : "%s", path);
  if (is_run && stat(file, &about) != 0)
    return cv_fail(err, CURVD_ERR_DATA, "%.300s: no metrics.jsonl in it; give a folder that `curvd train` has written",
                   path);
  CV_TRY(jsonl_file_read(file, &bytes, &n, err));
  curvd_status status = page_data_take(d, path, file, is_run, bytes, n, err);
  free(bytes);
  return status;
}

void page_data_free(page_data *d) {
  for (int i = 0; i < d->n_runs; i++) {
    history_free(&d->run[i].history);
    settings_free(&d->run[i].settings);
  }
  free(d->run);
  free(d->group);
  scaling_free(&d->scaling);
  *d = (page_data){.n_runs = 0};
}

/* ---- runs of one configuration ---- */

/* Settings in which runs of one configuration may differ: they change no number that is drawn. */
static bool is_of_no_matter(const char *name) {
  static const char *const names[] = {"seed", "run_dir", "resume", "time_budget", "hang_timeout"};
  if (strncmp(name, "checkpoint_", 11) == 0) return true;
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    if (strcmp(name, names[i]) == 0) return true;
  return false;
}

static const char *method_of(const page_run *run) {
  const char *method = jsonl_text(run->history.run, "method");
  return method[0] != '\0' ? method : run->name;
}

/* Does this setting of x have another value in y? */
static bool differs(const setting *x, const settings *y) {
  const setting *other = settings_find(y, x->name);
  return !is_of_no_matter(x->name) && other != NULL && strcmp(x->value, other->value) != 0;
}

/* As far as is known. */
static bool has_same_ranks(const page_run *x, const page_run *y) {
  static const char *const keys[] = {"workers", "curvature_ranks"};
  for (int i = 0; i < 2; i++) {
    double a = jsonl_number(x->history.run, keys[i]), b = jsonl_number(y->history.run, keys[i]);
    if (!isnan(a) && !isnan(b) && a != b) return false;
  }
  return true;
}

static bool is_same(const page_run *x, const page_run *y) {
  static const char *const keys[] = {"method", "network", "batch"};
  if (x->history.run == NULL || y->history.run == NULL || !has_same_ranks(x, y)) return false;
  if (x->settings.n == 0 || y->settings.n == 0) return false; /* what they ran with is not known */
  for (int i = 0; i < 3; i++)
    if (!json_equal(json_object_get(x->history.run, keys[i]), json_object_get(y->history.run, keys[i]))) return false;
  for (int i = 0; i < x->settings.n; i++)
    if (differs(&x->settings.entry[i], &y->settings)) return false;
  return true;
}

static void group_runs(page_data *d) {
  for (int i = 0; i < d->n_runs; i++) {
    int g = 0;
    while (g < d->n_groups && !is_same(&d->run[d->group[g].first], &d->run[i])) g++;
    if (g == d->n_groups) d->group[d->n_groups++] = (page_group){.first = i};
    d->run[i].group = g;
    d->group[g].n_runs++;
  }
}

/* ---- their names and looks ---- */

static bool has_method(const page_data *d, int group, const char *method) {
  return strcmp(method_of(&d->run[d->group[group].first]), method) == 0;
}

/* Appends to the label, as far as there is room. */
__attribute__((format(printf, 2, 3))) static void append(page_group *g, const char *format, ...) {
  size_t n = strlen(g->label);
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(g->label + n, sizeof g->label - n, format, arguments);
  va_end(arguments);
}

/* Has somebody chosen another value of this setting, for this group or for one of the same method? */
static bool tells_apart(const page_data *d, int group, const setting *entry) {
  const char *method = method_of(&d->run[d->group[group].first]);
  for (int i = 0; i < d->n_groups; i++) {
    const settings *other = &d->run[d->group[i].first].settings;
    if (!has_method(d, i, method) || !differs(entry, other)) continue;
    if (entry->is_chosen || settings_find(other, entry->name)->is_chosen) return true;
  }
  return false;
}

/* Do groups of the same method run on other ranks? */
static bool have_other_ranks(const page_data *d, int group) {
  const page_run *run = &d->run[d->group[group].first];
  for (int i = 0; i < d->n_groups; i++)
    if (has_method(d, i, method_of(run)) && !has_same_ranks(run, &d->run[d->group[i].first])) return true;
  return false;
}

/* "nystrom-kfac", and behind a comma what tells it from other groups of the method: "4+1 ranks, staleness 5" */
static void label_group(const page_data *d, int group) {
  enum { DIFFERENCES_MAX = 2 };
  page_group *g = &d->group[group];
  const page_run *run = &d->run[g->first];
  int n_told = 0;
  snprintf(g->label, sizeof g->label, "%s", method_of(run));
  bool are_known =
      !isnan(jsonl_number(run->history.run, "workers") + jsonl_number(run->history.run, "curvature_ranks"));
  if (are_known && have_other_ranks(d, group))
    append(g, ", %.0f+%.0f ranks", jsonl_number(run->history.run, "workers"),
           jsonl_number(run->history.run, "curvature_ranks"));
  for (int i = 0; i < run->settings.n && n_told < DIFFERENCES_MAX; i++) {
    const setting *entry = &run->settings.entry[i];
    bool is_ranks = strcmp(entry->name, "curvature_ranks") == 0;
    if (is_ranks || !tells_apart(d, group, entry)) continue;
    append(g, ", %s %s", entry->name, entry->value);
    n_told++;
  }
}

/* Groups whose labels are equal get their folder's name. */
static void make_labels_different(const page_data *d) {
  for (int i = 0; i < d->n_groups; i++)
    for (int j = i + 1; j < d->n_groups; j++) {
      if (strcmp(d->group[i].label, d->group[j].label) != 0) continue;
      append(&d->group[j], ", %s", d->run[d->group[j].first].name);
    }
}

static int method_index(const page_data *d, const char *method) {
  int i = 0;
  while (i < d->n_methods && strncmp(d->method[i], method, SCALING_TEXT_MAX - 1) != 0) i++;
  return i;
}

static void method_add(page_data *d, const char *method) {
  int i = method_index(d, method);
  if (i < d->n_methods || i == PAGE_METHODS_MAX) return;
  snprintf(d->method[d->n_methods++], SCALING_TEXT_MAX, "%s", method);
}

/* Methods that only scaling lines have come behind the groups, whose colours are taken. */
chart_style page_method_style(const page_data *d, const char *method) {
  int at = method_index(d, method), n_new = 0;
  for (int i = 0; i < d->n_groups; i++)
    if (has_method(d, i, method)) return d->group[i].style;
  for (int i = 0; i < at; i++) {
    bool has_runs = false;
    for (int g = 0; g < d->n_groups; g++) has_runs = has_runs || has_method(d, g, d->method[i]);
    n_new += !has_runs;
  }
  return (chart_style){(d->n_groups <= CHART_COLOURS ? d->n_groups + n_new : at) % CHART_COLOURS, 0};
}

/* A colour a group; where there are too many, a colour a method, and a dash for each further group of it. */
static void style_groups(page_data *d) {
  for (int i = 0; i < d->n_groups; i++) {
    const char *method = method_of(&d->run[d->group[i].first]);
    int at = method_index(d, method), n_before = 0;
    for (int j = 0; j < i; j++) n_before += has_method(d, j, method);
    d->group[i].style = (chart_style){i, 0};
    if (d->n_groups > CHART_COLOURS)
      d->group[i].style = (chart_style){at % CHART_COLOURS, (n_before + at / CHART_COLOURS) % CHART_DASHES};
  }
}

curvd_status page_data_arrange(page_data *d, cv_error *err) {
  d->group = calloc((size_t)d->n_runs + 1, sizeof *d->group);
  if (d->group == NULL) return cv_fail(err, CURVD_ERR_MEMORY, "no memory for a page of %d runs", d->n_runs);
  group_runs(d);
  CV_TRY(scaling_points(&d->scaling, err));
  for (int i = 0; i < d->n_groups; i++) method_add(d, method_of(&d->run[d->group[i].first]));
  for (int64_t i = 0; i < d->scaling.n_points; i++) method_add(d, d->scaling.point[i].key.method);
  for (int i = 0; i < d->n_groups; i++) label_group(d, i);
  make_labels_different(d);
  style_groups(d);
  return CURVD_OK;
}

/* ---- what figures ask ---- */

int page_next_run(const page_data *d, int group, int run) {
  for (int i = run + 1; i < d->n_runs; i++)
    if (d->run[i].group == group) return i;
  return -1;
}

double page_group_median(const page_data *d, int group, double (*value)(const page_run *run, const void *user),
                         const void *user) {
  double values[PAGE_RUNS_MAX];
  int64_t n = 0;
  for (int i = page_next_run(d, group, -1); i >= 0; i = page_next_run(d, group, i)) {
    double x = value(&d->run[i], user);
    if (!isnan(x)) values[n++] = x;
  }
  return median_of(values, n);
}
