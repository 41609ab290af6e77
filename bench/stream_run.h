/* The streaming sketch on averages that drift: how close it stays to the optimum, and what it costs. */
#ifndef STREAM_RUN_H
#define STREAM_RUN_H

#include "multiplier.h"

#include <stdbool.h>
#include <stdint.h>

enum { STREAM_REFRESHES_MAX = 1000 };

typedef struct stream_options {
  int64_t n, eig_rank, batch, updates, refreshes, settle, seed;
  double jump; /* radians; 0: none */
  bool is_repaired;
  cv_multiplier by; /* of the sketch's updates */
} stream_options;

/* Of the first `settle` refreshes, of the `refreshes` behind them, and of STREAM_AFTER from the jump on. full: warm
 * Nystrom refreshes of the average itself. */
enum { STREAM_AFTER = 6 };
typedef struct stream_errors {
  double over_optimum[STREAM_REFRESHES_MAX + STREAM_AFTER], full_over_optimum[STREAM_REFRESHES_MAX + STREAM_AFTER];
  double reference_off; /* largest share by which the reference's error is above the exact optimum */
  int64_t count;
} stream_errors;

/* CPU milliseconds of a window: all its updates, and the refresh. */
typedef struct stream_costs {
  double update_ms[STREAM_REFRESHES_MAX], refresh_ms[STREAM_REFRESHES_MAX];
  double full_update_ms[STREAM_REFRESHES_MAX], full_refresh_ms[STREAM_REFRESHES_MAX];
} stream_costs;

/* NUMERIC when a check fails: then there is no number. */
curvd_status stream_run_errors(const stream_options *options, cv_memory *memory, stream_errors *errors, cv_error *err);
curvd_status stream_run_costs(const stream_options *options, cv_memory *memory, stream_costs *costs, cv_error *err);

#endif
