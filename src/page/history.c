#include "page/history.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SCHEMA = 1 };
static const json_int_t STEPS_MAX = (json_int_t)1 << 53; /* as numbers of fp64 they are whole */
static const double CORES_MAX = 1e9; /* more are no machine's; times seconds they might be no number to draw */

typedef struct reading {
  history *h;
  const char *name;
  int64_t line;
  double step;
  double cores; /* that the part of the run holds which writes now; NaN: not known */
  series held;  /* (n, HELD_WIDTH): core-seconds over the wall clock, of steps and evaluations alike */
} reading;

/* The first is SERIES_STEP; an evaluation stands half a step behind its step. */
enum { HELD_WALL = 1, HELD_SECONDS, HELD_WIDTH };

static curvd_status refuse(const reading *r, const char *what, cv_error *err) {
  return cv_fail(err, CURVD_ERR_DATA, "%.200s:%lld: %s", r->name, (long long)r->line, what);
}

static double number_or(const json_t *object, const char *key, double otherwise) {
  double number = jsonl_number(object, key);
  return isnan(number) ? otherwise : number;
}

/* ---- records ---- */

static curvd_status take_run(reading *r, json_t *record, cv_error *err) {
  history *h = r->h;
  if (number_or(record, "schema", SCHEMA) != SCHEMA)
    return refuse(r, "its schema is another than 1; read it with the curvd that wrote it", err);
  json_decref(h->run);
  json_decref(h->end);
  h->run = json_incref(record);
  h->end = NULL;
  h->n_starts++;
  double ranks = number_or(record, "workers", 1) + number_or(record, "curvature_ranks", 0);
  r->cores = ranks * number_or(record, "threads", 1);
  if (!(fabs(r->cores) <= CORES_MAX)) r->cores = NAN;
  return CURVD_OK;
}

static void take_end(history *h, json_t *record) {
  json_decref(h->end);
  h->end = json_incref(record);
}

/* Core-seconds until a record: those until the one before it in the file, of whichever kind, and the cores of this part
 * of the run times the seconds in between. What comes later in the run than this record was undone by a resume: a step
 * is done again, an evaluation does none. */
static curvd_status core_seconds(reading *r, double place, double wall, double *seconds, cv_error *err) {
  series *held = &r->held;
  held->width = HELD_WIDTH;
  *seconds = NAN;
  if (isnan(wall)) return CURVD_OK;
  while (held->n > 0 &&
         (series_at(held, held->n - 1, SERIES_STEP) >= place || series_at(held, held->n - 1, HELD_WALL) > wall))
    held->n--;
  double before = held->n > 0 ? series_at(held, held->n - 1, HELD_WALL) : 0;
  *seconds = held->n > 0 ? series_at(held, held->n - 1, HELD_SECONDS) : 0;
  *seconds += r->cores * fmax(wall - before, 0);
  return series_add(held, (double[HELD_WIDTH]){place, fmax(wall, before), *seconds}, err);
}

static curvd_status take_score(reading *r, series *s, const json_t *record, const char *loss, cv_error *err) {
  double wall = jsonl_number(record, "wall_s"), seconds;
  CV_TRY(core_seconds(r, s == &r->h->scores ? r->step + 0.5 : r->step, wall, &seconds, err));
  double row[HISTORY_WIDTH] = {r->step,
                               wall,
                               seconds,
                               jsonl_number(record, loss),
                               jsonl_number(record, "test_accuracy"),
                               jsonl_number(record, "epoch")};
  s->width = HISTORY_WIDTH;
  return series_add(s, row, err);
}

/* The layer of that name, made if it is new. NULL: refused. */
static curvd_status layer_of(const reading *r, const char *name, history_layer **found, cv_error *err) {
  history *h = r->h;
  char cut[HISTORY_NAME_MAX];
  snprintf(cut, sizeof cut, "%s", name);
  for (int64_t i = 0; i < h->n_layers; i++) {
    *found = &h->layer[i];
    if (strcmp(h->layer[i].name, cut) == 0) return CURVD_OK;
  }
  if (h->n_layers == HISTORY_LAYERS_MAX) return refuse(r, "more than 4096 layers", err);
  if (h->n_layers == h->layers_room) {
    int64_t room = 2 * h->layers_room + 8;
    history_layer *layer = realloc(h->layer, (size_t)room * sizeof *layer);
    if (layer == NULL) return cv_fail(err, CURVD_ERR_MEMORY, "no memory for %lld layers", (long long)room);
    h->layer = layer, h->layers_room = room;
  }
  *found = &h->layer[h->n_layers++];
  **found = (history_layer){.factor = {{.width = FACTOR_WIDTH}, {.width = FACTOR_WIDTH}}};
  memcpy((*found)->name, cut, sizeof cut);
  return CURVD_OK;
}

static curvd_status take_factor(const reading *r, series *s, const json_t *factor, cv_error *err) {
  double row[FACTOR_WIDTH] = {r->step,
                              jsonl_number(factor, "n"),
                              jsonl_number(factor, "eig_rank"),
                              jsonl_number(factor, "age"),
                              jsonl_number(factor, "trace"),
                              jsonl_number(factor, "lambda_max"),
                              jsonl_number(factor, "lambda_min"),
                              jsonl_number(factor, "tau"),
                              jsonl_number(factor, "missing_trace")};
  if (!(row[FACTOR_EIG_RANK] > 0)) row[FACTOR_LAMBDA_MAX] = row[FACTOR_LAMBDA_MIN] = row[FACTOR_TAU] = NAN;
  row[FACTOR_EFFECTIVE] = row[FACTOR_LAMBDA_MAX] > 0 ? row[FACTOR_TRACE] / row[FACTOR_LAMBDA_MAX] : NAN;
  return series_add(s, row, err);
}

static curvd_status take_layer(const reading *r, const json_t *record, cv_error *err) {
  history_layer *layer = NULL;
  const char *name = jsonl_text(record, "layer");
  if (name[0] == '\0') return refuse(r, "a record of kind layer without a text \"layer\"", err);
  CV_TRY(layer_of(r, name, &layer, err));
  for (int i = 0; i < 2; i++) {
    const json_t *factor = json_object_get(record, i == 0 ? "A" : "G");
    if (json_is_object(factor)) CV_TRY(take_factor(r, &layer->factor[i], factor, err));
  }
  return CURVD_OK;
}

static curvd_status take(void *user, json_t *record, int64_t line, cv_error *err) {
  reading *r = user;
  const char *kind = jsonl_text(record, "kind");
  const json_t *step = json_object_get(record, "step");
  r->line = line;
  json_int_t at = json_is_integer(step) ? json_integer_value(step) : -1;
  r->step = (double)at;
  if (kind[0] == '\0') return refuse(r, "a record without a text \"kind\": no metrics.jsonl of a run", err);
  if (at < 0 || at > STEPS_MAX) return refuse(r, "a record without a \"step\" of 0 or more", err);
  if (strcmp(kind, "run") == 0) return take_run(r, record, err);
  if (strcmp(kind, "step") == 0) return take_score(r, &r->h->steps, record, "loss", err);
  if (strcmp(kind, "epoch") == 0) return take_score(r, &r->h->scores, record, "test_loss", err);
  if (strcmp(kind, "layer") == 0) return take_layer(r, record, err);
  if (strcmp(kind, "end") == 0) take_end(r->h, record);
  return CURVD_OK;
}

/* ---- all of it ---- */

curvd_status history_parse(const char *bytes, int64_t n, const char *name, history *h, cv_error *err) {
  reading r = {.h = h, .name = name, .cores = 1};
  *h = (history){.n_layers = 0};
  curvd_status status = jsonl_each(bytes, n, name, take, &r, &h->is_cut, err);
  if (status == CURVD_OK && h->run == NULL && h->steps.n + h->scores.n + h->n_layers == 0)
    status = cv_fail(err, CURVD_ERR_DATA,
                     "%.200s: no record of a run; a run writes its first one when its set-up is done", name);
  series_free(&r.held);
  if (status != CURVD_OK) history_free(h);
  return status;
}

void history_free(history *h) {
  json_decref(h->run);
  json_decref(h->end);
  series_free(&h->steps);
  series_free(&h->scores);
  for (int64_t i = 0; i < h->n_layers; i++)
    for (int j = 0; j < 2; j++) series_free(&h->layer[i].factor[j]);
  free(h->layer);
  *h = (history){.n_layers = 0};
}
