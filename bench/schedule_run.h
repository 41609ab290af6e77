/* A run whose work is sleep: what cv_simulate says of it, and what it is. */
#ifndef SCHEDULE_RUN_H
#define SCHEDULE_RUN_H

#include "plan/simulate.h"

#include <mpi.h>

enum { SCHEDULE_OWNERS_MAX = 64, SCHEDULE_STEPS_MAX = 1000 };

typedef struct schedule_case {
  int n_curvature;
  int64_t staleness; /* with is_free: the most */
  bool is_free;
  int64_t factor_update_steps, inv_update_steps, steps;
  double train_s, capture_s;             /* a worker sleeps in every step, and longer in one with statistics */
  double refresh_s[SCHEDULE_OWNERS_MAX]; /* an owner sleeps in LAPACK, over both factors of its layer */
} schedule_case;

/* Simulated and measured alike. */
typedef struct schedule_times {
  double step_s, wait_s, latency_s, latency_max_s;
  double load[SCHEDULE_OWNERS_MAX];
  double age_mean;
  int64_t age_p99, age_max;
} schedule_times;

curvd_status schedule_simulate(const schedule_case *c, int n_owners, cv_memory *memory, schedule_times *out,
                               cv_error *err);

/* [collective over all ranks] *out is set on rank 0. NUMERIC: LAPACK was called more or less often than there are
 * factors to refresh, so nobody knows how long owners slept. */
curvd_status schedule_run(const schedule_case *c, schedule_times *out, cv_error *err);

/* [collective over all ranks] The largest status of all. */
curvd_status schedule_agree(curvd_status status);

#endif
