/* Runs whose refreshes land behind the workers' backs: what their directions must be, in dense fp64, and delays in
 * every stage.
 *
 * Tolerance: the service works in fp32. A factor M damped by a tenth of its mean eigenvalue has a condition number of
 * at most 10 n + 1, 251 here (the largest eigenvalue is at most the trace), which amplifies the rounding of sums over
 * 10 rows and of products with n = 25, some eps (6e-8) in norm, to 1.5e-5 for each eps in the worst direction; the root
 * halves it. 1e-4 leaves ten of them. Preconditioners of neighbouring statistics are required to be 100 times as far
 * apart (stale_reference_make), so a refresh that lands a step early or late cannot pass. */
#ifndef TESTS_STALENESS_FIXTURE_H
#define TESTS_STALENESS_FIXTURE_H

#include "mpi_delays.h"
#include "mpi_service.h"

#include "curvature/method.h"

enum { STALE_STEPS = 13, STALE_FREE = -1 };

static const double STALE_TOLERANCE = 1e-4;

/* One value, or another one from a step on. */
typedef struct stale_interval {
  int first, then, from; /* then 0: first for ever */
} stale_interval;

typedef struct stale_case {
  int staleness, staleness_max; /* STALE_FREE; staleness_max 0: the default */
  stale_interval factor, inv;
  const char *method; /* and further options */
} stale_case;

/* Decays fast, so that each version differs much from the last. */
static const char stale_kfac[] = "method=kfac step=plain momentum=0 factor_decay=0.5";

static inline bool stale_is_due(stale_interval i, int step) {
  return step % (i.then > 0 && step >= i.from ? i.then : i.first) == 0;
}

static inline const char *stale_interval_text(stale_interval i, char text[32]) {
  snprintf(text, 32, i.then > 0 ? "%d,%d@%d" : "%d", i.first, i.then, i.from);
  return text;
}

static inline const char *stale_options(const stale_case *c) {
  static char text[400];
  char factor[32], inv[32], staleness[32] = "free", max[64] = "";
  if (c->staleness != STALE_FREE) snprintf(staleness, sizeof staleness, "%d", c->staleness);
  if (c->staleness_max > 0) snprintf(max, sizeof max, " staleness_max=%d", c->staleness_max);
  snprintf(text, sizeof text, "%s factor_update_steps=%s inv_update_steps=%s staleness=%s%s", c->method,
           stale_interval_text(c->factor, factor), stale_interval_text(c->inv, inv), staleness, max);
  return text;
}

/* ---- reference ---- */

/* After u updates: G^-1/2 and A^-1/2 with their damping; u = 0: identities. */
typedef struct stale_preconditioner {
  dense A, G;
} stale_preconditioner;

static stale_preconditioner stale_version[STALE_STEPS + 1][RUN_LAYERS];

/* G^-1/2 V A^-1/2 */
static inline dense stale_direction(int updates, int layer, dense V) {
  const stale_preconditioner *P = &stale_version[updates][layer];
  return dense_product(dense_product(P->G, V), P->A);
}

/* The whole gradient of a step, for grad_reduction sum. */
static inline dense stale_gradient(int step, int layer, int64_t rows) {
  return run_gradient(step, layer, 0, rows);
}

static inline void stale_layer_make(const kfac_case *c, stale_interval factor, int layer, int64_t rows) {
  static dense S[CV_FACTORS][STALE_STEPS];
  const service_layer *l = &run_layer[layer];
  stale_version[0][layer] = (stale_preconditioner){dense_identity(service_columns(l)), dense_identity(l->d_out)};
  for (int step = 0, k = 0; step < STALE_STEPS; step++) {
    if (!stale_is_due(factor, step)) continue;
    S[CV_A][k] = kfac_statistic(run_inputs(step, layer, rows), l->has_bias);
    S[CV_G][k++] = kfac_statistic(run_output_gradients(step, layer, rows), false);
    dense A = kfac_average(c, k, S[CV_A]), G = kfac_average(c, k, S[CV_G]);
    stale_version[k][layer] =
        (stale_preconditioner){dense_inverse_power(A, kfac_damping(c, k, A, G, CV_A), c->exponent_a),
                               dense_inverse_power(G, kfac_damping(c, k, A, G, CV_G), c->exponent_g)};
  }
}

/* Number of statistics up to a step, this one included. */
static inline int stale_updates(stale_interval factor, int step) {
  int n = 0;
  for (int i = 0; i <= step; i++) n += stale_is_due(factor, i);
  return n;
}

/* For stale_kfac. Returns how far neighbouring versions are apart at least. */
static inline double stale_reference_make(stale_interval factor, int64_t rows) {
  static const kfac_case c = {"relative-mean", "norm", "eigen", 0.1, 0.5, 0.5, 0.5};
  double least = INFINITY;
  for (int l = 0; l < RUN_LAYERS; l++) {
    stale_layer_make(&c, factor, l, rows);
    for (int k = 0; k < stale_updates(factor, STALE_STEPS - 1); k++) {
      dense V = stale_gradient(0, l, rows);
      least = fmin(least, dense_distance(stale_direction(k, l, V), stale_direction(k + 1, l, V)));
    }
  }
  return least;
}

/* Statistics behind the preconditioner of a step: those up to the newest refresh that has landed. */
static inline int stale_version_at(const stale_case *c, int step) {
  for (int j = step - c->staleness; j >= 0; j--) {
    if (stale_is_due(c->inv, j)) return stale_updates(c->factor, j);
  }
  return 0;
}

/* ---- delays in the stages that are not MPI's ---- */

static inline void stale_late_refresh(curvd_ctx *ctx, cv_layer *layer, int32_t index) {
  delay_call();
  cv_method_kfac.refresh(ctx, layer, index);
}

static inline const float *stale_late_absorb(curvd_ctx *ctx, cv_layer *layer, const float *wire) {
  delay_call();
  return cv_method_kfac.absorb(ctx, layer, wire);
}

static inline float *stale_late_pack(curvd_ctx *ctx, cv_layer *layer, int owner, float *wire) {
  delay_call();
  return cv_method_kfac.pack(ctx, layer, owner, wire);
}

static inline void stale_late_receive(curvd_ctx *ctx, cv_layer *layer, int owner, const char *header,
                                      const char *payload) {
  delay_call();
  cv_method_kfac.receive(ctx, layer, owner, header, payload);
}

static inline curvd_ctx *stale_open(const service_run *run) {
  static cv_method late;
  curvd_ctx *ctx = run_open(run);
  late = cv_method_kfac;
  late.refresh = stale_late_refresh;
  late.absorb = stale_late_absorb;
  late.pack = stale_late_pack;
  late.receive = stale_late_receive;
  for (int l = 0; l < RUN_LAYERS; l++) ctx->layer[l].method = &late;
  return ctx;
}

/* ---- whole runs ---- */

typedef dense stale_directions[STALE_STEPS][RUN_LAYERS];

/* On a worker V are the directions of all steps; zero elsewhere. */
static inline curvd_status stale_all(const service_run *run, stale_directions V) {
  curvd_status status = CURVD_OK;
  memset(V, 0, sizeof(stale_directions));
  curvd_ctx *ctx = stale_open(run);
  bool is_worker = run_is_worker(ctx);
  for (int step = 0; step < run->n_steps && is_worker && status == CURVD_OK; step++) {
    status = run_step(ctx, run, step, V[step]);
  }
  run_close(&ctx);
  return status;
}

#endif
