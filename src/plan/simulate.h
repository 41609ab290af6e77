/* The service's schedule with seconds in place of work: how long steps are, who waits for whom, and how old the
 * preconditioners are. Deterministic; no MPI, no BLAS.
 *
 * Every rank has a clock. The workers share one: they do the same work, and each step's sum of gradients sets them to
 * the latest. A step (step.c): compute, sum the gradients, open the parcels of step - staleness, send statistics,
 * expect a parcel; then momentum and preconditioning. An owner, when it hears of a step: takes the statistics,
 * averages, refreshes, waits until its last parcel has left, publishes. A worker that has no free slot for statistics
 * waits for the owner to take the oldest. Of a transfer, the share overlap goes on behind the worker's back, once both
 * sides are there. Statistics of spread factors are waited for by all. Without curvature ranks the owners are workers:
 * each does all of this inside its step, and waits for the statistics at once; so it comes to the next sum of
 * gradients, and votes on what is here when workers run free, before slower ones. A clock for each owner and a few
 * sums: O(n_owners n_steps / interval). */
#ifndef CV_PLAN_SIMULATE_H
#define CV_PLAN_SIMULATE_H

#include "base/memory.h"
#include "plan/planner.h"

/* Seconds of what passes between the workers and one owner, each time. */
typedef struct cv_timetable_owner {
  double pack_s, up_s;                    /* statistics: worker packs them; transfer */
  double average_s, refresh_s, publish_s; /* owner */
  double down_s, receive_s;               /* preconditioners: transfer; worker unpacks them */
} cv_timetable_owner;

typedef struct cv_timetable {
  int64_t n_steps;   /* simulated, from step 0 */
  int64_t n_skipped; /* of them, before means are taken: the start is not typical */
  int64_t factor_update_steps, inv_update_steps, staleness; /* steps; intervals >= 1 */
  bool is_free;       /* a refresh is used from the first step on at whose sum of gradients all of it was here, and
                         staleness steps later at most */
  bool has_curvature; /* owners are curvature ranks; else workers */
  bool is_spread;     /* some factor lies over all owners: they begin a refresh together, and workers wait for its
                         statistics */
  double compute_s;   /* worker, a step: forward and backward */
  double capture_s;   /* and in a step with statistics */
  double gradients_s; /* sum over workers, not hidden */
  double command_s;   /* worker, a step with anything due */
  double finish_s;    /* worker, a step: momentum, preconditioning, the update */
  double overlap;     /* 0 .. 1 */
  int32_t n_owners;
  const cv_timetable_owner *owner; /* [n_owners] */
} cv_timetable;

/* Means over the steps behind n_skipped, and over the refreshes begun in them. */
typedef struct cv_simulation {
  double step_s, step_max_s;       /* one step of the workers; the longest */
  double wait_s;                   /* of a mean step, what workers wait for owners */
  double load_mean, load_max;      /* share of its time that an owner works; 1 - load is idle. Without curvature ranks:
                                      share of a step spent on curvature */
  double latency_s, latency_max_s; /* of a refresh: from the workers' send until the last owner's parcel is here */
  double age_mean;                 /* steps between the newest statistics in the preconditioner and its use */
  int64_t age_p99, age_max;        /* p99: no more than 1 % of the steps see an older one */
  int64_t n_without;               /* steps of all n_steps before the first preconditioner */
} cv_simulation;

/* load: NULL, or [n_owners] shares of each owner. ARGUMENT: a number out of its range; MEMORY. *out is untouched then.
 */
curvd_status cv_simulate(const cv_timetable *table, cv_memory *memory, cv_simulation *out, double *load, cv_error *err);

#endif
