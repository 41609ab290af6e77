/* A prediction as callers see it. */
#include "base/order.h"
#include "curvature/forecast.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct curvd_prediction {
  cv_forecast forecast; /* borrowed from by predicted: it does not move */
  cv_prediction predicted;
};

_Static_assert((int)CURVD_PREDICTED_UP == (int)CV_PLAN_STAGES && (int)CURVD_PREDICTED_TRAIN == (int)CV_PLAN_TRAIN &&
                   (int)CURVD_PREDICTED_REFRESH == (int)CV_PLAN_REFRESH &&
                   (int)CURVD_PREDICTED_APPLY == (int)CV_PLAN_APPLY,
               "predicted stages are those of model.h, and two transfers");

const char *curvd_predicted_name(int stage) {
#define PREDICTED_TEXT(name, text) text,
  static const char *const texts[] = {CURVD_PREDICTED_LIST(PREDICTED_TEXT)};
#undef PREDICTED_TEXT
  return stage >= 0 && stage < CURVD_PREDICTED_STAGES ? texts[stage] : "?";
}

curvd_status curvd_shape_check(const curvd_run_shape *shape, char *message, size_t size) {
  cv_error err = {.code = CURVD_OK};
  cv_forecast made;
  if (!shape) return CURVD_ERR_ARGUMENT;
  curvd_status status = cv_forecast_make(shape, &made, &err);
  if (status != CURVD_OK) return cv_forecast_fail(&err, status, message, size);
  cv_forecast_free(&made);
  return CURVD_OK;
}

_Static_assert(CURVD_PREDICTED_INTERVAL_MAX == CV_PREDICT_INTERVAL_MAX, "the manual has the limit of predict.h");

static curvd_status predict(const curvd_run_shape *shape, curvd_prediction *p, cv_error *err) {
  CV_TRY(cv_forecast_make(shape, &p->forecast, err));
  cv_predict_case *given = &p->forecast.given;
  cv_plan_share(&given->run, given->run.n_workers);
  return cv_predict(given, &p->forecast.memory, &p->predicted, err);
}

curvd_status curvd_predict(const curvd_run_shape *shape, curvd_prediction **out, char *message, size_t size) {
  cv_error err = {.code = CURVD_OK};
  if (!shape || !out) return CURVD_ERR_ARGUMENT;
  *out = NULL;
  curvd_prediction *p = calloc(1, sizeof *p);
  if (!p) return CURVD_ERR_MEMORY;
  curvd_status status = predict(shape, p, &err);
  if (status != CURVD_OK) {
    curvd_prediction_free(&p);
    return cv_forecast_fail(&err, status, message, size);
  }
  *out = p;
  return CURVD_OK;
}

void curvd_prediction_free(curvd_prediction **p) {
  if (!p || !*p) return;
  cv_prediction_free(&(*p)->predicted, &(*p)->forecast.memory);
  cv_forecast_free(&(*p)->forecast);
  free(*p);
  *p = NULL;
}

void curvd_prediction_read(const curvd_prediction *p, curvd_prediction_summary *out) {
  const cv_prediction *from = &p->predicted;
  const cv_simulation *sim = &from->simulation;
  *out = (curvd_prediction_summary){.n_workers = from->run.n_workers,
                                    .n_curvature = from->run.n_curvature,
                                    .n_owners = from->n_owners,
                                    .factor_update_steps = from->run.factor_update_steps,
                                    .inv_update_steps = from->run.inv_update_steps,
                                    .staleness = from->run.staleness,
                                    .step_s = sim->step_s,
                                    .step_max_s = sim->step_max_s,
                                    .wait_s = sim->wait_s,
                                    .load_mean = sim->load_mean,
                                    .load_max = sim->load_max,
                                    .latency_s = sim->latency_s,
                                    .latency_max_s = sim->latency_max_s,
                                    .age_mean = sim->age_mean,
                                    .age_p99 = sim->age_p99,
                                    .age_max = sim->age_max,
                                    .is_rough = cv_forecast_is_rough(&p->forecast.book.values)};
  for (int i = 0; i < CV_PLAN_STAGES; i++) out->stage_s[i] = from->stage_s[i];
  out->stage_s[CURVD_PREDICTED_GRADIENTS] = from->table.gradients_s;
  for (int32_t o = 0; o < from->n_owners; o++) {
    out->stage_s[CURVD_PREDICTED_UP] = fmax(out->stage_s[CURVD_PREDICTED_UP], from->times[o].up_s);
    out->stage_s[CURVD_PREDICTED_DOWN] = fmax(out->stage_s[CURVD_PREDICTED_DOWN], from->times[o].down_s);
  }
  out->exposed_s = fmax(sim->step_s - from->table.compute_s - from->table.gradients_s, 0);
}

/* ---- layers ---- */

static int rank_of_owner(const cv_prediction *p, int32_t owner) {
  return owner < 0 ? -1 : owner + (p->run.n_curvature > 0 ? p->run.n_workers : 0);
}

curvd_status curvd_prediction_layer(const curvd_prediction *p, int32_t i, curvd_predicted_layer *out) {
  static const char *const carriers[] = {
      [CV_PLAN_TRIANGLE] = "triangle", [CV_PLAN_SKETCH] = "sketch", [CV_PLAN_COLUMNS] = "columns",
      [CV_PLAN_LOCAL] = "local",       [CV_PLAN_UNITS] = "units",   [CV_PLAN_LOCAL_UNITS] = "local"};
  static const char *const applies[] = {
      [CV_PLAN_REPLICATED] = "replicated", [CV_PLAN_SHARDED] = "sharded", [CV_PLAN_FACTORED] = "factored"};
  if (!p || !out || i < 0 || i >= p->predicted.n_layers) return CURVD_ERR_ARGUMENT;
  const cv_prediction *from = &p->predicted;
  const cv_plan_choice *choice = &from->choice[i];
  *out =
      (curvd_predicted_layer){.owner = rank_of_owner(from, from->owner[i]),
                              .n = {cv_plan_size(&from->layer[i], CV_PLAN_A), cv_plan_size(&from->layer[i], CV_PLAN_G)},
                              .carrier = {"", ""},
                              .apply = applies[choice->apply],
                              .route = choice->route == CV_PLAN_TO_OWNER ? "owner" : "gradients"};
  for (int f = 0; f < CV_PLAN_FACTORS && out->n[f] > 0; f++) {
    cv_plan_run run = cv_plan_factor_run(&from->run, &from->layer[i], f);
    bool is_spread = cv_plan_is_spread(&run, out->n[f], choice->carrier[f]);
    out->carrier[f] = is_spread && choice->carrier[f] == CV_PLAN_TRIANGLE ? "blocks" : carriers[choice->carrier[f]];
    out->eig_rank[f] = cv_plan_pairs(&run, out->n[f], choice->carrier[f]);
    out->ranks[f] = out->owner < 0 ? 0 : is_spread ? from->n_owners : 1;
  }
  return CURVD_OK;
}

/* ---- ranks ---- */

curvd_status curvd_prediction_rank(const curvd_prediction *p, int32_t rank, curvd_predicted_rank *out) {
  if (!p || !out || rank < 0 || rank >= p->predicted.run.n_workers + p->predicted.run.n_curvature)
    return CURVD_ERR_ARGUMENT;
  const cv_prediction *from = &p->predicted;
  cv_plan_layout layout = cv_prediction_layout(from);
  int64_t sent[CV_PLAN_TRAFFICS], held[CV_MEMORY_KINDS], n_steps = from->table.n_steps;
  *out = (curvd_predicted_rank){.load = 0};
  cv_plan_traffic_of(&layout, rank, n_steps, sent);
  cv_plan_memory_of(&layout, rank, held);
  for (int i = 0; i < CURVD_TRAFFICS; i++) out->sent_bytes[i] = (double)sent[i] / (double)n_steps;
  for (int i = 0; i < CURVD_MEMORIES; i++) out->memory_bytes[i] = held[i];
  int32_t owner = from->run.n_curvature == 0 ? rank : rank - from->run.n_workers;
  if (owner >= 0) out->load = from->load[owner];
  return CURVD_OK;
}

static void take_larger(const curvd_predicted_rank *one, curvd_predicted_rank *most) {
  for (int i = 0; i < CURVD_TRAFFICS; i++) most->sent_bytes[i] = fmax(most->sent_bytes[i], one->sent_bytes[i]);
  for (int i = 0; i < CURVD_MEMORIES; i++)
    most->memory_bytes[i] = cv_larger(most->memory_bytes[i], one->memory_bytes[i]);
  most->load = fmax(most->load, one->load);
}

/* Workers beyond the second that own and apply nothing alone are alike, and none has such layers beyond the number of
 * layers (planner.h): what owners have of spread factors differs by a block. */
curvd_status curvd_prediction_most(const curvd_prediction *p, curvd_role role, curvd_predicted_rank *out) {
  enum { ALIKE_FROM = 2 };
  if (!p || !out) return CURVD_ERR_ARGUMENT;
  const cv_plan_run *run = &p->predicted.run;
  bool is_worker = role == CURVD_ROLE_WORKER, is_owner = !is_worker || run->n_curvature == 0, has_own = is_owner;
  for (int32_t i = 0; i < p->predicted.n_layers; i++) has_own = has_own || p->predicted.shard[i] >= 0;
  int32_t from = is_worker ? 0 : run->n_workers, count = is_worker ? run->n_workers : run->n_curvature,
          differ = has_own ? p->predicted.n_layers + ALIKE_FROM : ALIKE_FROM;
  if (count < 1) return CURVD_ERR_ARGUMENT;
  *out = (curvd_predicted_rank){.load = 0};
  for (int32_t i = 0; i < count && i < differ; i++) {
    curvd_predicted_rank one;
    CV_TRY(curvd_prediction_rank(p, from + i, &one));
    take_larger(&one, out);
  }
  return CURVD_OK;
}

/* ---- tuning ---- */

static bool is_listed(const curvd_trial *trial, int32_t n, int32_t n_curvature) {
  for (int32_t i = 0; i < n; i++) {
    if (trial[i].n_curvature == n_curvature) return true;
  }
  return false;
}

/* The fastest trial of a number of curvature ranks that is not listed yet; -1: none. */
static int32_t next_best(const cv_tuning *t, const curvd_trial *listed, int32_t n) {
  int32_t best = n == 0 ? t->best : -1;
  for (int32_t i = 0; i < t->n_trials && n > 0; i++) {
    if (!t->trial[i].has_room || is_listed(listed, n, t->trial[i].n_curvature)) continue;
    if (best < 0 || t->trial[i].step_s < t->trial[best].step_s) best = i;
  }
  return best;
}

static int32_t list_best(const cv_tuning *t, int32_t room, curvd_trial *trial) {
  int32_t n = 0;
  for (int32_t at = next_best(t, trial, 0); at >= 0 && n < room; at = next_best(t, trial, n)) {
    const cv_tune_trial *from = &t->trial[at];
    trial[n++] = (curvd_trial){.n_curvature = from->n_curvature,
                               .factor_update_steps = from->factor_update_steps,
                               .inv_update_steps = from->inv_update_steps,
                               .staleness = from->staleness,
                               .step_s = from->step_s,
                               .wait_s = from->wait_s,
                               .load_max = from->load_max,
                               .age_max = from->age_max};
  }
  return n;
}

curvd_status curvd_tune(const curvd_run_shape *shape, int64_t age_max, int32_t room, curvd_trial *trial, int32_t *n,
                        int32_t *n_tried, char *message, size_t size) {
  cv_error err = {.code = CURVD_OK};
  cv_forecast forecast;
  cv_tuning tuning;
  if (!shape || !trial || !n || !n_tried || room < 1) return CURVD_ERR_ARGUMENT;
  curvd_status status = cv_forecast_make(shape, &forecast, &err);
  if (status != CURVD_OK) return cv_forecast_fail(&err, status, message, size);
  if (forecast.book.values.carrier == CV_CARRY_LOCAL) {
    cv_forecast_free(&forecast);
    cv_fail(&err, CURVD_ERR_OPTION, "carrier local allows no curvature ranks, whose number is tuned: use another one");
    return cv_forecast_fail(&err, CURVD_ERR_OPTION, message, size);
  }
  status = cv_tune(&forecast.given, shape->n_ranks, age_max, &forecast.memory, &tuning, &err);
  if (status == CURVD_OK) {
    *n = list_best(&tuning, room, trial);
    *n_tried = tuning.n_trials;
    cv_tuning_free(&tuning, &forecast.memory);
  }
  cv_forecast_free(&forecast);
  return status == CURVD_OK ? status : cv_forecast_fail(&err, status, message, size);
}
