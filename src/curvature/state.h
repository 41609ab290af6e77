/* The state of a run (curvd_save, curvd_load): one walk over it serves both ways.
 *
 *   curvature.run                       step, refreshes under way, counts of events
 *   curvature.under_way                 their steps, oldest first
 *   curvature.LAYER.run, .momentum, .P, .R
 *   curvature.LAYER.A.owner, .owner_state   numbers of cv_owned; then the arrays of its store (store.h)
 *   curvature.LAYER.A.applied           cv_factor_state in force (its seconds apart: .applied_seconds); then .D, .U, or
 * .inverse, or .units; .seed curvature.LAYER.A.parcel0           the same of a refresh under way; then .parcel0.D, ...
 *
 * Factors are A, G, or the "blocks" of a unit layer. Saved, every number comes on one rank: what all workers hold alike
 * on the worker that applies the layer, or else on one of them after the other; what owners hold on them. Loaded, every
 * rank asks for all that it holds. */
#ifndef CV_CURVATURE_STATE_H
#define CV_CURVATURE_STATE_H

#include "curvature/internal.h"

/* Words of worker 0 to the curvature ranks, in place of a step's number, which follows. */
enum { CV_WORD_SAVE = -3, CV_WORD_LOAD = -4 };

/* A walk, and the name that arrays get. */
typedef struct cv_walk {
  curvd_ctx *ctx;
  bool is_load;
  const char *layer, *part; /* NULL: not in a layer, not in a part of it */
} cv_walk;

/* One array: name is its last word; of the rest what curvd_array says. */
curvd_status cv_walk_array(const cv_walk *walk, const char *name, curvd_array array);

/* Numbers x (count), which a load fills. */
curvd_status cv_walk_numbers(const cv_walk *walk, const char *name, double *x, int64_t count);
curvd_status cv_walk_floats(const cv_walk *walk, const char *name, float *x, int64_t count);

/* x (rows, n), rows ld apart, of which column j is row j of the array: U (r, n) comes as (n, r), eigenvectors in
 * columns. piece: which columns of the whole these are. */
curvd_status cv_walk_columns(const cv_walk *walk, const char *name, float *x, int64_t rows, int64_t ld,
                             const cv_cyclic *piece);

/* state_numbers.c: a struct's numbers by the name of the array. DATA: what was loaded cannot be (the caller's memory
 * would be left), or lies beyond 2^53; the struct is as it was then. */
curvd_status cv_walk_owned(const cv_walk *walk, cv_factor *factor);
curvd_status cv_walk_factor_state(const cv_walk *walk, const char *name, const cv_factor *factor,
                                  cv_factor_state *state);

/* state_wire.c: refreshes under way, which are all here. [workers] */
int64_t cv_state_under_way(const curvd_ctx *ctx);
int64_t cv_state_room(const curvd_ctx *ctx); /* most refreshes that may be under way */
curvd_status cv_walk_under_way(cv_walk *walk, int64_t n);

/* What names call a factor of the layer. */
const char *cv_state_factor(const cv_layer *layer, int f);

/* Does this worker save what all of them hold of a layer? */
bool cv_state_is_mine(const curvd_ctx *ctx, const cv_layer *layer);

/* [collective: workers; and, from step.c, curvature ranks that have heard a word] */
curvd_status cv_state_save(curvd_ctx *ctx);
curvd_status cv_state_load(curvd_ctx *ctx, int64_t step);
curvd_status cv_state_serve(curvd_ctx *ctx, int64_t word);

#endif
