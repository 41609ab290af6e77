/* Runs of mpi_service.h whose statistics travel by a chosen carrier: any number of captures in a step, losses that are
 * sums or means, data whose leading directions turn, and numbers that are spoilt on purpose. */
#ifndef TESTS_CARRIER_FIXTURE_H
#define TESTS_CARRIER_FIXTURE_H

#include "mpi_service.h"

#include "curvature/internal.h"

typedef struct carrier_run {
  service_run base;
  int n_captures;         /* calls in a step; 0 counts as 1 */
  bool is_mean;           /* each call's output gradients are those of its mean loss */
  int turn;               /* the leading column of the data moves on by so many in a step */
  int64_t dim;            /* examples of all steps lie in one subspace of so many dimensions; 0: anywhere */
  int dead_from, dead_to; /* steps in which the output gradients of fc1 are 0 */
  int bad_step;           /* in which the worker of number bad_worker has a NaN in the inputs of fc1; 0: none */
  int bad_worker;
} carrier_run;

enum { CARRIER_BAD_LAYER = 1 };

static inline curvd_ctx *carrier_make(const carrier_run *run) {
  char options[768];
  snprintf(options, sizeof options, "%s loss_reduction=%s grad_reduction=sum curvature_ranks=%d", run->base.options,
           run->is_mean ? "mean" : "sum", run->base.n_curvature);
  return service_make(run->base.comm, options, RUN_LAYERS, run_layer);
}

static inline curvd_ctx *carrier_open(const carrier_run *run) {
  curvd_ctx *ctx = carrier_make(run);
  ck_assert_msg(curvd_plan(ctx) == CURVD_OK, "%s", curvd_last_error(ctx));
  return ctx;
}

/* Examples (rows, d) of factor f in the global batch; column j is of size 1 / (1 + its place behind the leading one).
 */
static inline dense carrier_examples(const carrier_run *run, int step, int l, int f) {
  int64_t d = f == CV_A ? run_layer[l].d_in : run_layer[l].d_out, wide = run->dim > 0 ? run->dim : d;
  bool is_dead = f == CV_G && l == CARRIER_BAD_LAYER && step >= run->dead_from && step < run->dead_to;
  dense X = dense_random((uint64_t)(1000 * (f + 1) + 10 * step + l), run->base.rows, wide);
  for (int64_t i = 0; i < X.m; i++) {
    for (int64_t j = 0; j < wide; j++) X.x[i][j] /= (double)(1 + (j + (int64_t)run->turn * step) % wide);
  }
  if (run->dim > 0) X = dense_product(X, dense_random((uint64_t)(90 + 2 * l + f), wide, d));
  for (int64_t i = 0; i < X.m; i++) {
    for (int64_t j = 0; j < d; j++) X.x[i][j] = is_dead ? 0 : (float)X.x[i][j];
  }
  return X;
}

static inline dense carrier_rows(dense X, int64_t from, int64_t to) {
  dense Y = dense_zero(to - from, X.n);
  for (int64_t i = from; i < to; i++) memcpy(Y.x[i - from], X.x[i], sizeof Y.x[0]);
  return Y;
}

/* The statistic of examples from .. to of the global batch: (n, n). */
static inline dense carrier_statistic(const carrier_run *run, int step, int l, int f, int64_t from, int64_t to) {
  return kfac_statistic(carrier_rows(carrier_examples(run, step, l, f), from, to), f == CV_A && run_layer[l].has_bias);
}

/* Examples from .. to of one layer, in one call. */
static inline curvd_status carrier_capture_part(curvd_ctx *ctx, const carrier_run *run, int step, int l, int64_t from,
                                                int64_t to) {
  dense a = carrier_examples(run, step, l, CV_A), g = carrier_examples(run, step, l, CV_G);
  if (run->is_mean && to > from) g = dense_scaled(1 / (double)(to - from), g);
  bool is_bad = run->bad_step > 0 && step == run->bad_step && l == CARRIER_BAD_LAYER && to > from;
  if (is_bad && curvd_worker_index(ctx) == run->bad_worker) a.x[from][3] = NAN;
  return service_capture_part(ctx, l, a, g, from, to);
}

/* This worker's share. */
static inline curvd_status carrier_capture(curvd_ctx *ctx, const carrier_run *run, int step) {
  int n = curvd_worker_count(ctx), w = curvd_worker_index(ctx), calls = run->n_captures > 0 ? run->n_captures : 1;
  int64_t begin = run_cut(run->base.rows, n, w), mine = run_cut(run->base.rows, n, w + 1) - begin;
  curvd_status status = CURVD_OK;
  for (int i = 0; i < RUN_LAYERS * calls && status == CURVD_OK; i++) {
    int64_t c = i / RUN_LAYERS;
    status = carrier_capture_part(ctx, run, step, i % RUN_LAYERS, begin + run_cut(mine, calls, (int)c),
                                  begin + run_cut(mine, calls, (int)c + 1));
  }
  return status;
}

/* Capture and step; V: the directions. */
static inline curvd_status carrier_step(curvd_ctx *ctx, const carrier_run *run, int step, dense *V) {
  curvd_status status = carrier_capture(ctx, run, step);
  run_gradients(ctx, &run->base, step, V);
  return status == CURVD_OK ? service_try(ctx, 0.1, SERVICE_APART, RUN_LAYERS, run_layer, V) : status;
}

/* A whole life; on a worker V (n_steps, RUN_LAYERS) are the directions, elsewhere 0. */
static inline curvd_status carrier_all(const carrier_run *run, dense (*V)[RUN_LAYERS]) {
  curvd_ctx *ctx = carrier_open(run);
  curvd_status status = CURVD_OK;
  memset(V, 0, (size_t)run->base.n_steps * sizeof *V);
  bool is_worker = run_is_worker(ctx);
  for (int step = 0; step < run->base.n_steps && is_worker && status == CURVD_OK; step++)
    status = carrier_step(ctx, run, step, V[step]);
  run_close(&ctx);
  return status;
}

/* ---- lines of the log ---- */

typedef struct carrier_log {
  int n;
  char text[8][480];
} carrier_log;

static inline void carrier_keep_line(void *user, int level, const char *line) {
  carrier_log *lines = user;
  (void)level;
  if (lines->n < (int)(sizeof lines->text / sizeof lines->text[0]))
    snprintf(lines->text[lines->n], sizeof lines->text[0], "%s", line);
  lines->n++;
}

#endif
