/* From a machine, layers and a run to what the run will be like (cv_predict: `curvd plan`), and the best run of a grid
 * (cv_tune: `curvd tune`). Puts choices (model.h), owners (planner.h) and the schedule (simulate.h) together. Pure but
 * for memory; the same inputs give the same numbers. */
#ifndef CV_PLAN_PREDICT_H
#define CV_PLAN_PREDICT_H

#include "plan/model.h"
#include "plan/simulate.h"

/* Longest interval: a dozen of them are simulated, step by step. */
enum { CV_PREDICT_INTERVAL_MAX = 1000000 };

typedef struct cv_predict_case {
  const cv_plan_machine *machine;
  cv_plan_run run;
  int32_t n_layers;
  const cv_plan_layer *layer; /* [n_layers] borrowed, as long as the prediction is used */
  int64_t owner_room_bytes;   /* that an owner has for factors; 0: no limit */
  /* What the service would choose for the layers in this run, shards and flops included (forecast.c). */
  void (*choose)(const void *user, const cv_plan_run *run, cv_plan_draft *draft);
  const void *user;
} cv_predict_case;

typedef struct cv_prediction {
  cv_plan_run run; /* as given */
  int32_t n_layers, n_owners;
  const cv_plan_layer *layer;
  cv_plan_choice *choice;         /* [n_layers] */
  int32_t *owner;                 /* [n_layers] its number; -1: skipped */
  int32_t *shard;                 /* [n_layers] the worker that applies it; -1: all */
  cv_timetable_owner *times;      /* [n_owners] */
  double *load;                   /* [n_owners] share of its time that an owner works */
  int32_t overfull;               /* owner whose factors have no room; -1: none */
  double stage_s[CV_PLAN_STAGES]; /* computing, each time a stage is done: of a worker, or of the slowest owner */
  cv_timetable table;             /* what was simulated: starts, then steps that count */
  cv_simulation simulation;
} cv_prediction;

/* ARGUMENT: sizes, counts or constants out of range; MEMORY. On error *out is empty; cv_prediction_free takes it. */
curvd_status cv_predict(const cv_predict_case *given, cv_memory *memory, cv_prediction *out, cv_error *err);
void cv_prediction_free(cv_prediction *p, cv_memory *memory);

/* For cv_plan_traffic_of and cv_plan_memory_of; as long as the prediction lives. */
cv_plan_layout cv_prediction_layout(const cv_prediction *p);

/* From rows and seconds of all workers together to those of one of n_workers. */
void cv_plan_share(cv_plan_run *run, int32_t n_workers);

/* One run that was looked at. */
typedef struct cv_tune_trial {
  int32_t n_curvature;
  int64_t factor_update_steps, inv_update_steps, staleness;
  bool has_room; /* every owner has room for its factors; only such a trial is chosen */
  double step_s, wait_s, load_max;
  int64_t age_max;
} cv_tune_trial;

typedef struct cv_tuning {
  cv_tune_trial *trial; /* [n_trials] by falling number of workers, then by rising intervals */
  int32_t n_trials;
  int32_t best; /* -1: no trial has room */
} cv_tuning;

/* Which of n_ranks ranks serve, and how often they refresh: the least simulated seconds of a step, at preconditioners
 * that never are older than age_max steps. In given->run, batch_rows and statistics_rows are those of all workers
 * together, and each takes its share, so that a curvature rank costs the others work; counts, intervals and staleness
 * are not looked at. Tried are 0, 1, 2, 3, 4, 6, 8, 12, ... curvature ranks, up to the number of layers (n_ranks - 1
 * where factors are spread), intervals of 1, 2, 5, 10, ... 1000 steps with statistics at every refresh, or more often,
 * and the most staleness that the age allows: age_max + 1 - inv_update_steps. Runs that differ by less than 1e-9 of a
 * step are equal: then the fewest curvature ranks, the shortest intervals. ARGUMENT, MEMORY: as cv_predict. */
curvd_status cv_tune(const cv_predict_case *given, int32_t n_ranks, int64_t age_max, cv_memory *memory, cv_tuning *out,
                     cv_error *err);
void cv_tuning_free(cv_tuning *t, cv_memory *memory);

#endif
