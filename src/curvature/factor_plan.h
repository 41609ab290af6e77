/* How the service treats a factor: one rule, for the run itself (method_kfac.c) and for what is said of it before
 * (forecast.c). Pure: no MPI, no matrices. */
#ifndef CV_CURVATURE_FACTOR_PLAN_H
#define CV_CURVATURE_FACTOR_PLAN_H

#include "curvature/settings.h"
#include "plan/model.h"

typedef struct cv_factor_plan {
  int64_t k_max; /* rows of its basis; n where it is full */
  bool is_full, is_spread;
  cv_plan_carrier carrier; /* triangle of a spread factor: block by block */
  cv_plan_store store;
  bool sends_bf16, publishes_bf16; /* wire_precision, where it is for this factor */
} cv_factor_plan;

/* run: its ranks, row_bytes and what it says of rows count. With carrier auto, factors whose running average is kept
 * come as triangles or as rows, whichever costs less by cv_plan_factor_seconds of the default machine; as triangles
 * where it is not known how many rows there will be, or where all rows of a worker may not fit into one message. */
cv_factor_plan cv_factor_plan_of(const cv_settings *s, const cv_plan_run *run, const cv_plan_layer *layer, int which);

/* Are sketches of this run as large as those of streams? */
bool cv_has_stream_ranks(const cv_settings *s);

/* Largest eig_rank of the run, and products with a factor by one of its later refreshes. */
int64_t cv_largest_rank(const cv_settings *s);
int64_t cv_refresh_products(const cv_settings *s);

/* The run that the settings describe, on so many workers; row_bytes, rows and seconds are left open. */
cv_plan_run cv_plan_run_of(const cv_settings *s, int32_t n_workers);

/* Carriers, route, apply, shard and flops of all layers of a run. */
void cv_layers_plan(const cv_settings *s, const cv_plan_run *run, cv_plan_draft *draft);

/* Flops by which owners are chosen. */
double cv_factor_plan_flops(const cv_settings *s, int64_t n, const cv_factor_plan *plan);

double cv_unit_plan_flops(int64_t units);

/* Is the layer's name in the option `skip`? */
bool cv_is_skipped(const char *list, const char *name);

#endif
