/* A run of three layers over the ranks of a communicator, the global batch cut among the workers. What is fed depends
 * on the step and the place in the batch alone, so every split of the ranks sees the same run. */
#ifndef TESTS_MPI_SERVICE_H
#define TESTS_MPI_SERVICE_H

#include "kfac_reference.h"
#include "mpi_assert.h"
#include "service_fixture.h"

enum { RUN_LAYERS = 3, RUN_STEPS_MAX = 8 };

static const service_layer run_layer[RUN_LAYERS] = {
    {"fc0", 24, 20, true}, {"fc1", 20, 16, false}, {"fc2", 16, 3, true}};

typedef struct service_run {
  MPI_Comm comm;
  const char *options; /* without curvature_ranks and grad_reduction */
  int n_curvature, n_steps;
  int64_t rows; /* of the global batch */
  const char *grad_reduction;
} service_run;

/* Statistics and refreshes in every step, directions as they come. */
static const char run_kfac[] = "method=kfac factor_update_steps=1 inv_update_steps=1 step=plain momentum=0";
static const char run_nystrom[] =
    "method=nystrom-kfac eig_rank=4 factor_update_steps=1 inv_update_steps=1 step=plain momentum=0";

/* Over MPI_COMM_WORLD, with 10 examples: divided evenly by 1, 2 and 5 workers only. */
static inline service_run run_of(const char *options, int n_curvature) {
  return (service_run){.comm = MPI_COMM_WORLD, .options = options, .n_curvature = n_curvature, .rows = 10};
}

static inline int run_size(MPI_Comm comm) {
  int size;
  MPI_Comm_size(comm, &size);
  return size;
}

static inline int run_rank(MPI_Comm comm) {
  int rank;
  MPI_Comm_rank(comm, &rank);
  return rank;
}

/* (rows, d) in the global batch; columns fall off as 1 / j, so a few modes hold most of the trace. */
static inline dense run_data(int what, int step, int layer, int64_t rows, int64_t d) {
  dense X = dense_random((uint64_t)(1000 * what + 10 * step + layer), rows, d);
  for (int64_t i = 0; i < rows; i++) {
    for (int64_t j = 0; j < d; j++) X.x[i][j] = (float)(X.x[i][j] / (double)(1 + j));
  }
  return X;
}

static inline dense run_inputs(int step, int layer, int64_t rows) {
  return run_data(1, step, layer, rows, run_layer[layer].d_in);
}

static inline dense run_output_gradients(int step, int layer, int64_t rows) {
  return run_data(2, step, layer, rows, run_layer[layer].d_out);
}

/* Examples of worker w: from run_cut(w) up to run_cut(w + 1); none when there are more workers than examples. */
static inline int64_t run_cut(int64_t rows, int n_workers, int w) {
  return rows * w / n_workers;
}

/* Sum over examples from .. to of the global batch: cos(i) R + sin(i) S with random (m, n) matrices. */
static inline dense run_gradient(int step, int layer, int64_t from, int64_t to) {
  const service_layer *l = &run_layer[layer];
  uint64_t seed = (uint64_t)(10000 + 10 * step + layer);
  double c = 0, s = 0;
  for (int64_t i = from; i < to; i++) c += cos((double)i), s += sin((double)i);
  return dense_sum(c, dense_random(seed, l->d_out, service_columns(l)), s,
                   dense_random(seed + 5000, l->d_out, service_columns(l)));
}

static inline curvd_ctx *run_make(const service_run *run) {
  char options[512];
  snprintf(options, sizeof options, "%s loss_reduction=sum curvature_ranks=%d grad_reduction=%s", run->options,
           run->n_curvature, run->grad_reduction ? run->grad_reduction : "sum");
  return service_make(run->comm, options, RUN_LAYERS, run_layer);
}

static inline curvd_ctx *run_open(const service_run *run) {
  curvd_ctx *ctx = run_make(run);
  ck_assert_msg(curvd_plan(ctx) == CURVD_OK, "%s", curvd_last_error(ctx));
  return ctx;
}

/* A curvature rank serves and returns false; a worker goes on, and must call curvd_finish before the next mpi_assert,
 * at which the curvature ranks would not arrive. */
static inline bool run_is_worker(curvd_ctx *ctx) {
  if (curvd_role_get(ctx) == CURVD_ROLE_WORKER) return true;
  ck_assert_int_eq(curvd_serve(ctx), CURVD_OK);
  return false;
}

/* What the other role waits for is done, if it was not. */
static inline void run_close(curvd_ctx **ctx) {
  if (run_is_worker(*ctx)) curvd_finish(*ctx);
  curvd_destroy(ctx);
}

/* This worker's share of the statistics of a step. */
static inline curvd_status run_capture(curvd_ctx *ctx, const service_run *run, int step) {
  int n = curvd_worker_count(ctx), w = curvd_worker_index(ctx);
  curvd_status status = CURVD_OK;
  for (int l = 0; l < RUN_LAYERS && status == CURVD_OK; l++) {
    status = service_capture_part(ctx, l, run_inputs(step, l, run->rows), run_output_gradients(step, l, run->rows),
                                  run_cut(run->rows, n, w), run_cut(run->rows, n, w + 1));
  }
  return status;
}

/* This worker's contribution to the gradients, as its reduction wants it. */
static inline void run_gradients(const curvd_ctx *ctx, const service_run *run, int step, dense *V) {
  int n = curvd_worker_count(ctx), w = curvd_worker_index(ctx);
  bool is_whole = run->grad_reduction && kfac_is(run->grad_reduction, "none");
  bool is_mean = run->grad_reduction && kfac_is(run->grad_reduction, "mean");
  for (int l = 0; l < RUN_LAYERS; l++) {
    int64_t from = is_whole ? 0 : run_cut(run->rows, n, w), to = is_whole ? run->rows : run_cut(run->rows, n, w + 1);
    V[l] = dense_scaled(is_mean ? n : 1, run_gradient(step, l, from, to));
  }
}

/* Capture and step; V: the directions. */
static inline curvd_status run_step(curvd_ctx *ctx, const service_run *run, int step, dense *V) {
  curvd_status status = run_capture(ctx, run, step);
  run_gradients(ctx, run, step, V);
  return status == CURVD_OK ? service_try(ctx, 0.1, SERVICE_APART, RUN_LAYERS, run_layer, V) : status;
}

/* A whole life: on a worker V (n_steps, RUN_LAYERS) are the directions. */
static inline curvd_status run_all(const service_run *run, dense (*V)[RUN_LAYERS]) {
  curvd_ctx *ctx = run_open(run);
  curvd_status status = CURVD_OK;
  bool is_worker = run_is_worker(ctx);
  for (int step = 0; step < run->n_steps && is_worker && status == CURVD_OK; step++) {
    status = run_step(ctx, run, step, V[step]);
  }
  run_close(&ctx);
  return status;
}

/* Largest distance of a direction from its counterpart; NaN counts as infinite. */
static inline double run_distance(int n_steps, dense (*V)[RUN_LAYERS], dense (*W)[RUN_LAYERS]) {
  double worst = 0;
  for (int i = 0; i < n_steps * RUN_LAYERS; i++) {
    double distance = dense_distance(V[i / RUN_LAYERS][i % RUN_LAYERS], W[i / RUN_LAYERS][i % RUN_LAYERS]);
    worst = isfinite(distance) ? fmax(worst, distance) : INFINITY;
  }
  return worst;
}

#endif
