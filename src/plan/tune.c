/* The best run of a small grid. */
#include "base/order.h"
#include "plan/predict.h"

#include <stddef.h>

static const int64_t intervals[] = {1, 2, 5, 10, 20, 50, 100, 200, 500, 1000};
enum {
  INTERVALS = sizeof intervals / sizeof intervals[0],
  COUNTS_MAX = 64,
  TRIALS_MAX = COUNTS_MAX * INTERVALS * INTERVALS
};
static const double EQUAL = 1e-9;

/* More owners than layers have nothing to do, unless a factor is spread over all of them. */
static int32_t most_curvature(const cv_predict_case *given, int32_t n_ranks) {
  int32_t n_owned = 0;
  for (int32_t i = 0; i < given->n_layers; i++) {
    const cv_plan_layer *layer = &given->layer[i];
    int64_t n = cv_larger(layer->m, layer->n);
    if (layer->is_skipped) continue;
    if (!layer->is_unit && given->run.grid_min_n > 0 && n >= given->run.grid_min_n) return n_ranks - 1;
    n_owned++;
  }
  return (int32_t)cv_smaller(n_owned, n_ranks - 1);
}

/* 0, 1, 2, 3, 4, 6, 8, 12, ... */
static int32_t next_count(int32_t c) {
  if (c < 2) return c + 1;
  bool is_power = (c & (c - 1)) == 0;
  return is_power ? c / 2 * 3 : c / 3 * 4;
}

void cv_plan_share(cv_plan_run *run, int32_t n_workers) {
  run->batch_rows = cv_divide_up(run->batch_rows, n_workers);
  run->statistics_rows = cv_divide_up(run->statistics_rows, n_workers);
  run->train_s /= n_workers;
  run->capture_train_s /= n_workers;
}

/* The run that a trial stands for: its rows are a worker's. */
static cv_plan_run run_of(const cv_predict_case *given, int32_t n_ranks, const cv_tune_trial *trial) {
  cv_plan_run run = given->run;
  run.n_curvature = trial->n_curvature;
  run.n_workers = n_ranks - trial->n_curvature;
  cv_plan_share(&run, run.n_workers);
  run.factor_update_steps = trial->factor_update_steps;
  run.inv_update_steps = trial->inv_update_steps;
  run.staleness = trial->staleness;
  run.is_free = false;
  return run;
}

static curvd_status try_run(const cv_predict_case *given, int32_t n_ranks, cv_tune_trial *trial, cv_memory *memory,
                            cv_error *err) {
  cv_predict_case one = *given;
  cv_prediction p;
  one.run = run_of(given, n_ranks, trial);
  CV_TRY(cv_predict(&one, memory, &p, err));
  trial->step_s = p.simulation.step_s;
  trial->wait_s = p.simulation.wait_s;
  trial->load_max = p.simulation.load_max;
  trial->age_max = p.simulation.age_max;
  trial->has_room = p.overfull < 0;
  cv_prediction_free(&p, memory);
  return CURVD_OK;
}

static bool is_better(const cv_tuning *t, const cv_tune_trial *trial) {
  if (!trial->has_room) return false;
  return t->best < 0 || trial->step_s < (1 - EQUAL) * t->trial[t->best].step_s;
}

/* All intervals with so many curvature ranks. */
static curvd_status try_intervals(const cv_predict_case *given, int32_t n_ranks, int32_t c, int64_t age_max,
                                  cv_memory *memory, cv_tuning *out, cv_error *err) {
  for (int i = 0; i < INTERVALS && intervals[i] <= age_max + 1; i++) {
    for (int f = 0; f <= i; f++) {
      if (intervals[i] % intervals[f] != 0) continue;
      cv_tune_trial *trial = &out->trial[out->n_trials];
      *trial = (cv_tune_trial){.n_curvature = c,
                               .factor_update_steps = intervals[f],
                               .inv_update_steps = intervals[i],
                               .staleness = age_max + 1 - intervals[i]};
      CV_TRY(try_run(given, n_ranks, trial, memory, err));
      if (is_better(out, trial)) out->best = out->n_trials;
      out->n_trials++;
    }
  }
  return CURVD_OK;
}

curvd_status cv_tune(const cv_predict_case *given, int32_t n_ranks, int64_t age_max, cv_memory *memory, cv_tuning *out,
                     cv_error *err) {
  *out = (cv_tuning){.best = -1};
  if (n_ranks < 1 || age_max < 0)
    return cv_fail(err, CURVD_ERR_ARGUMENT, "tuning for %d ranks and an age of %lld steps", (int)n_ranks,
                   (long long)age_max);
  void *trials = NULL;
  CV_TRY(cv_memory_new(memory, CV_MEMORY_WORKSPACE, TRIALS_MAX, sizeof *out->trial, "tuning", &trials, err));
  out->trial = trials;
  int32_t most = most_curvature(given, n_ranks);
  curvd_status status = CURVD_OK;
  for (int32_t c = 0; c <= most && status == CURVD_OK; c = next_count(c))
    status = try_intervals(given, n_ranks, c, age_max, memory, out, err);
  if (status != CURVD_OK) cv_tuning_free(out, memory);
  return status;
}

void cv_tuning_free(cv_tuning *t, cv_memory *memory) {
  void *trials = t->trial;
  cv_memory_free(memory, &trials);
  *t = (cv_tuning){.best = -1};
}
