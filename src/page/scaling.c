#include "page/scaling.h"

#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SCHEMA = 1 };
static const int64_t COUNT_MAX = (int64_t)1 << 40;

typedef struct reading {
  scaling *s;
  const char *name;
} reading;

static curvd_status add(scaling *s, const scaling_line *line, cv_error *err) {
  if (s->n_lines == s->room) {
    int64_t room = 2 * s->room + 64;
    scaling_line *more = realloc(s->line, (size_t)room * sizeof *more);
    if (more == NULL) return cv_fail(err, CURVD_ERR_MEMORY, "no memory for %lld lines", (long long)room);
    s->line = more, s->room = room;
  }
  json_incref(line->options);
  s->line[s->n_lines++] = *line;
  return CURVD_OK;
}

static bool read_count(const json_t *object, const char *key, int64_t least, int64_t *value) {
  const json_t *json = json_object_get(object, key);
  *value = json_is_integer(json) ? json_integer_value(json) : -1;
  return *value >= least && *value <= COUNT_MAX;
}

/* Runs to a target do as many steps as they need. */
static void read_length(const json_t *object, scaling_key *key) {
  int64_t steps;
  snprintf(key->length, sizeof key->length, "%s", jsonl_text(object, "length"));
  if (key->length[0] == '\0' && key->target == 0 && read_count(object, "steps", 1, &steps))
    snprintf(key->length, sizeof key->length, "%lld steps", (long long)steps);
}

/* NULL, or what is wrong with it. */
static const char *read_key(const json_t *object, scaling_key *key) {
  static const struct {
    const char *name;
    size_t offset;
    int64_t least;
  } counts[] = {{"ranks", offsetof(scaling_key, ranks), 1},
                {"workers", offsetof(scaling_key, workers), 1},
                {"curvature_ranks", offsetof(scaling_key, curvature_ranks), 0},
                {"hosts", offsetof(scaling_key, hosts), 1},
                {"threads", offsetof(scaling_key, threads), 1},
                {"batch", offsetof(scaling_key, batch), 1}};
  memset(key, 0, sizeof *key);
  for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
    if (!read_count(object, counts[i].name, counts[i].least, (int64_t *)(void *)((char *)key + counts[i].offset)))
      return counts[i].name;
  snprintf(key->kind, sizeof key->kind, "%s", jsonl_text(object, "kind"));
  snprintf(key->method, sizeof key->method, "%s", jsonl_text(object, "method"));
  snprintf(key->network, sizeof key->network, "%s", jsonl_text(object, "network"));
  snprintf(key->lr, sizeof key->lr, "%s", jsonl_text(object, "lr"));
  key->options = jsonl_text(object, "options");
  key->target = fmax(jsonl_number(object, "target"), 0); /* of NaN and 0 that is 0 */
  read_length(object, key);
  return key->kind[0] == '\0' ? "kind" : key->method[0] == '\0' ? "method" : NULL;
}

static void read_measures(const json_t *object, double measure[SCALING_MEASURES]) {
  static const char *const name[] = {"wall_s", "target_s", "predicted_step_s", "wait_share",
                                     "core_s", "accuracy", "test_loss"};
  for (int i = 0; i < SCALING_MEASURES; i++) measure[i] = jsonl_number(object, name[i]);
  double steps = jsonl_number(object, "steps");
  measure[SCALING_STEP_S] = steps >= 1 ? measure[SCALING_STEP_S] / steps : NAN;
}

static void take_environment(scaling *s, json_t *environment) {
  if (!json_is_object(environment)) return;
  if (s->environment == NULL) s->environment = json_incref(environment);
  s->has_environments = s->has_environments || !json_equal(s->environment, environment);
}

static curvd_status take(void *user, json_t *object, int64_t line, cv_error *err) {
  reading *r = user;
  scaling_line read;
  const char *bench = jsonl_text(object, "bench");
  if (bench[0] == '\0')
    return cv_fail(err, CURVD_ERR_DATA, "%.200s:%lld: no line of a benchmark (\"bench\": \"scale\")", r->name,
                   (long long)line);
  if (strcmp(bench, "scale") != 0) return CURVD_OK;
  if (jsonl_number(object, "schema") != SCHEMA)
    return cv_fail(err, CURVD_ERR_DATA, "%.200s:%lld: its schema is another than 1", r->name, (long long)line);
  const char *wrong = read_key(object, &read.key);
  if (wrong != NULL)
    return cv_fail(err, CURVD_ERR_DATA, "%.200s:%lld: \"%s\" is missing or out of range", r->name, (long long)line,
                   wrong);
  if (r->s->n_lines == SCALING_LINES_MAX)
    return cv_fail(err, CURVD_ERR_DATA, "%.200s:%lld: a page takes up to %d lines", r->name, (long long)line,
                   SCALING_LINES_MAX);
  read.options = json_object_get(object, "options");
  read_measures(object, read.measure);
  take_environment(r->s, json_object_get(object, "environment"));
  return add(r->s, &read, err);
}

curvd_status scaling_parse(const char *bytes, int64_t n, const char *name, scaling *s, cv_error *err) {
  reading r = {s, name};
  bool is_cut = false;
  int64_t n_before = s->n_lines;
  CV_TRY(jsonl_each(bytes, n, name, take, &r, &is_cut, err));
  s->is_cut = s->is_cut || is_cut;
  if (s->n_lines > n_before) return CURVD_OK;
  return cv_fail(err, CURVD_ERR_DATA, "%.200s: no line of bench/scale (\"bench\": \"scale\")", name);
}

/* ---- points ---- */

static int compare_counts(int64_t x, int64_t y) {
  return (x > y) - (x < y);
}

/* Strong, weak, curvature, and what else there may be. */
static int compare_kinds(const char *x, const char *y) {
  static const char *const known[] = {"strong", "weak", "curvature"};
  int at[2] = {3, 3};
  for (int i = 0; i < 3; i++) {
    if (strcmp(x, known[i]) == 0) at[0] = i;
    if (strcmp(y, known[i]) == 0) at[1] = i;
  }
  return at[0] != at[1] ? at[0] - at[1] : strcmp(x, y);
}

static int by_key(const void *x, const void *y) {
  const scaling_key *a = &((const scaling_line *)x)->key, *b = &((const scaling_line *)y)->key;
  int order = compare_kinds(a->kind, b->kind);
  if (order == 0) order = strcmp(a->network, b->network);
  if (order == 0) order = strcmp(a->options, b->options);
  if (order == 0) order = (a->target > b->target) - (a->target < b->target);
  if (order == 0) order = strcmp(a->length, b->length);
  if (order == 0) order = strcmp(a->method, b->method);
  if (order == 0) order = strcmp(a->lr, b->lr);
  if (order == 0) order = compare_counts(a->threads, b->threads);
  if (order == 0) order = compare_counts(a->ranks, b->ranks);
  if (order == 0) order = compare_counts(a->curvature_ranks, b->curvature_ranks);
  if (order == 0) order = compare_counts(a->workers, b->workers);
  if (order == 0) order = compare_counts(a->batch, b->batch);
  return order != 0 ? order : compare_counts(a->hosts, b->hosts);
}

/* The point of n lines that have one key. */
static curvd_status point_make(const scaling_line *line, int64_t n, scaling_point *point, cv_error *err) {
  double *values = calloc((size_t)n, sizeof *values);
  if (values == NULL) return cv_fail(err, CURVD_ERR_MEMORY, "no memory for a point of %lld runs", (long long)n);
  curvd_status status = CURVD_OK;
  point->key = line->key;
  point->n_runs = n;
  for (int i = 0; i < SCALING_MEASURES && status == CURVD_OK; i++) {
    for (int64_t j = 0; j < n; j++) values[j] = line[j].measure[i];
    status = interval_of_median(values, n, &point->measure[i], err);
  }
  free(values);
  return status;
}

curvd_status scaling_points(scaling *s, cv_error *err) {
  free(s->point);
  s->n_points = 0;
  s->point = calloc((size_t)s->n_lines + 1, sizeof *s->point);
  if (s->point == NULL)
    return cv_fail(err, CURVD_ERR_MEMORY, "no memory for the points of %lld lines", (long long)s->n_lines);
  if (s->n_lines > 0) qsort(s->line, (size_t)s->n_lines, sizeof *s->line, by_key);
  for (int64_t i = 0, next; i < s->n_lines; i = next) {
    for (next = i + 1; next < s->n_lines && by_key(&s->line[i], &s->line[next]) == 0;) next++;
    CV_TRY(point_make(&s->line[i], next - i, &s->point[s->n_points++], err));
  }
  return CURVD_OK;
}

void scaling_free(scaling *s) {
  for (int64_t i = 0; i < s->n_lines; i++) json_decref(s->line[i].options);
  free(s->line);
  free(s->point);
  json_decref(s->environment);
  *s = (scaling){.n_lines = 0};
}

double scaling_efficiency(const scaling_point *point, double n, const scaling_point *base, double n_base) {
  double rate = (double)point->key.batch / (n * point->measure[SCALING_STEP_S].median);
  return rate / ((double)base->key.batch / (n_base * base->measure[SCALING_STEP_S].median));
}
