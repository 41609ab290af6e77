/* Runs whose factors are wide enough to be spread, over the ranks of MPI_COMM_WORLD, and dense K-FAC of them in fp64.
 * What is fed depends on the step and the place in the global batch alone; every worker hands over the whole gradient.
 * Factors have few modes (SPREAD_MODES, one more with a bias), so that every method finds them all. */
#ifndef TESTS_SPREAD_FIXTURE_H
#define TESTS_SPREAD_FIXTURE_H

#include "kfac_reference.h"
#include "mpi_assert.h"
#include "service_fixture.h"

#include "curvature/internal.h"

enum {
  SPREAD_LAYERS = 2,
  SPREAD_STEPS = 3,
  SPREAD_ROWS = 24, /* of the global batch */
  SPREAD_MODES = 6,
  SPREAD_MAX = 200, /* largest factor */
  SPREAD_FLOATS = 70 * 130
};

/* n: 130 (three blocks of 64, the last one of 2), 70, 200, and 20, of which all but the first owner hold nothing. */
static const service_layer spread_layer[SPREAD_LAYERS] = {{"fc0", 129, 70, true}, {"fc1", 200, 20, false}};

/* Damping that leaves the condition of existing tests: 6 equal modes of 40 against 0.1 of the mean. */
static const kfac_case spread_plain = {"relative-mean", "norm", "eigen", 0.5, 1, 1, 0.9};
static const double spread_tolerance = 5e-5;

typedef struct spread_run {
  char options[2048];
  int n_curvature, n_steps;
  int64_t rows;                  /* of the global batch */
  int n_captures;                /* calls that a worker's share comes in */
  int n_modes;                   /* of inputs and output gradients */
  bool is_dead_g[SPREAD_LAYERS]; /* output gradients are 0 */
  bool is_mean;                  /* loss_reduction mean: of the rows of each call */
} spread_run;

typedef struct spread_directions {
  float x[SPREAD_STEPS][SPREAD_LAYERS][SPREAD_FLOATS];
} spread_directions;

static inline int spread_size(void) {
  int size;
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  return size;
}

static inline int spread_rank(void) {
  int rank;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  return rank;
}

/* Refreshes in every step, all modes of the factors kept. The method comes last, and wins. */
static inline spread_run spread_run_of(const kfac_case *c, int n_curvature, const char *more) {
  spread_run run = {.n_curvature = n_curvature,
                    .n_steps = SPREAD_STEPS,
                    .rows = SPREAD_ROWS,
                    .n_captures = 1,
                    .n_modes = SPREAD_MODES};
  snprintf(run.options, sizeof run.options,
           "%s loss_reduction=sum grad_reduction=none eig_rank=7 oversampling=3 full_share=1 tail=zero %s "
           "curvature_ranks=%d",
           kfac_options(c, ""), more, n_curvature);
  return run;
}

static inline int spread_owners(const spread_run *run) {
  return run->n_curvature > 0 ? run->n_curvature : spread_size();
}

/* ---- what is fed ---- */

static inline double spread_uniform(uint64_t seed, int64_t i) {
  const cv_rng rng = {.seed = seed, .stream = CV_RNG_PROBE};
  return 2 * cv_rng_uniform(&rng, (uint64_t)i) - 1;
}

static inline int64_t spread_width(int l, int f) {
  return f == CV_A ? spread_layer[l].d_in : spread_layer[l].d_out;
}

static inline int64_t spread_n(int l, int f) {
  return f == CV_A ? service_columns(&spread_layer[l]) : spread_layer[l].d_out;
}

/* x (rows, d) = mixture of the step (rows, n_modes) times the factor's span (n_modes, d) */
static inline void spread_examples(const spread_run *run, int step, int l, int f, float *x) {
  static double span[SPREAD_ROWS * SPREAD_MAX];
  int64_t d = spread_width(l, f), modes = run->n_modes;
  uint64_t of_span = (uint64_t)(10 * l + f + 1), of_mix = (uint64_t)(1000 * (step + 1) + 10 * l + f);
  for (int64_t i = 0; i < modes * d; i++) span[i] = spread_uniform(of_span, i);
  for (int64_t i = 0; i < run->rows; i++) {
    double row[SPREAD_MAX] = {0};
    for (int64_t q = 0; q < modes; q++) {
      double mix = f == CV_G && run->is_dead_g[l] ? 0 : spread_uniform(of_mix, i * modes + q);
      for (int64_t j = 0; j < d; j++) row[j] += mix * span[q * d + j];
    }
    for (int64_t j = 0; j < d; j++) x[i * d + j] = (float)row[j];
  }
}

/* Examples from .. to of a layer. */
static inline curvd_status spread_capture_part(curvd_ctx *ctx, const spread_run *run, int step, int l, int64_t from,
                                               int64_t to) {
  static float a[SPREAD_ROWS * SPREAD_MAX], g[SPREAD_ROWS * SPREAD_MAX];
  int64_t lda = spread_width(l, CV_A), ldg = spread_width(l, CV_G);
  spread_examples(run, step, l, CV_A, a);
  spread_examples(run, step, l, CV_G, g);
  for (int64_t i = from * ldg; run->is_mean && i < to * ldg; i++) g[i] /= (float)(to - from);
  return curvd_capture(ctx, l, to - from, a + from * lda, lda, g + from * ldg, ldg);
}

/* This worker's share of a step, in n_captures calls. */
static inline curvd_status spread_capture(curvd_ctx *ctx, const spread_run *run, int step) {
  int64_t w = curvd_worker_index(ctx), n = curvd_worker_count(ctx);
  int64_t begin = run->rows * w / n, mine = run->rows * (w + 1) / n - begin;
  curvd_status status = CURVD_OK;
  for (int i = 0; i < SPREAD_LAYERS * run->n_captures && status == CURVD_OK; i++) {
    int64_t c = i / SPREAD_LAYERS, from = begin + mine * c / run->n_captures;
    status = spread_capture_part(ctx, run, step, i % SPREAD_LAYERS, from, begin + mine * (c + 1) / run->n_captures);
  }
  return status;
}

static inline void spread_gradient(int step, int l, float *V) {
  int64_t count = spread_n(l, CV_A) * spread_n(l, CV_G);
  for (int64_t i = 0; i < count; i++) V[i] = (float)spread_uniform((uint64_t)(7000 + 10 * step + l), i);
}

/* A step without captures; x: the directions. */
static inline curvd_status spread_step(curvd_ctx *ctx, int step, float (*x)[SPREAD_FLOATS]) {
  curvd_gradient g[SPREAD_LAYERS];
  for (int l = 0; l < SPREAD_LAYERS; l++) {
    int64_t n = spread_n(l, CV_A);
    spread_gradient(step, l, x[l]);
    g[l] = (curvd_gradient){.weight = x[l], .ld = n, .bias = x[l] + spread_layer[l].d_in, .bias_stride = n};
  }
  return curvd_step(ctx, 0.1, g, SPREAD_LAYERS);
}

static inline curvd_status spread_feed(curvd_ctx *ctx, const spread_run *run, int step, float (*x)[SPREAD_FLOATS]) {
  curvd_status status = spread_capture(ctx, run, step);
  return status == CURVD_OK ? spread_step(ctx, step, x) : status;
}

static inline curvd_ctx *spread_open(const spread_run *run) {
  return service_open(MPI_COMM_WORLD, run->options, SPREAD_LAYERS, spread_layer);
}

/* A curvature rank serves and returns false; a worker goes on, and must call curvd_finish before the next mpi_assert.
 */
static inline bool spread_is_worker(curvd_ctx *ctx, curvd_status *status) {
  *status = CURVD_OK;
  if (curvd_role_get(ctx) == CURVD_ROLE_WORKER) return true;
  *status = curvd_serve(ctx);
  return false;
}

/* A whole life; on a curvature rank the directions are 0. */
static inline curvd_status spread_all(const spread_run *run, spread_directions *out) {
  curvd_ctx *ctx = spread_open(run);
  curvd_status status;
  memset(out, 0, sizeof *out);
  if (spread_is_worker(ctx, &status)) {
    for (int step = 0; step < run->n_steps && status == CURVD_OK; step++)
      status = spread_feed(ctx, run, step, out->x[step]);
    curvd_finish(ctx);
  }
  curvd_destroy(&ctx);
  return status;
}

/* ---- dense K-FAC ---- */

/* B (n, r) <- M^-1 B, M (n, n) positive definite and destroyed: Cholesky, by its definition. */
static inline void spread_solve(int64_t n, double *M, int64_t r, double *B) {
  for (int64_t j = 0; j < n; j++) {
    for (int64_t k = 0; k < j; k++) {
      for (int64_t i = j; i < n; i++) M[i * n + j] -= M[i * n + k] * M[j * n + k];
    }
    double root = sqrt(M[j * n + j]);
    for (int64_t i = j; i < n; i++) M[i * n + j] /= root;
  }
  for (int64_t i = 0; i < n; i++) {
    for (int64_t k = 0; k <= i; k++) {
      for (int64_t c = 0; c < r; c++)
        B[i * r + c] = k < i ? B[i * r + c] - M[i * n + k] * B[k * r + c] : B[i * r + c] / M[i * n + i];
    }
  }
  for (int64_t i = n - 1; i >= 0; i--) {
    for (int64_t k = n - 1; k >= i; k--) {
      for (int64_t c = 0; c < r; c++)
        B[i * r + c] = k > i ? B[i * r + c] - M[k * n + i] * B[k * r + c] : B[i * r + c] / M[i * n + i];
    }
  }
}

/* M (n, n) += weight * X^T X / rows, with a column of ones when there is a bias. */
static inline void spread_add_statistic(const spread_run *run, int step, int l, int f, double weight, double *M) {
  static float x[SPREAD_ROWS * SPREAD_MAX];
  int64_t n = spread_n(l, f), d = spread_width(l, f);
  spread_examples(run, step, l, f, x);
  for (int64_t i = 0; i < n; i++) {
    for (int64_t j = 0; j < n; j++) {
      double sum = 0;
      for (int64_t e = 0; e < run->rows; e++)
        sum += (i < d ? (double)x[e * d + i] : 1) * (j < d ? (double)x[e * d + j] : 1);
      M[i * n + j] += weight * sum / (double)run->rows;
    }
  }
}

/* M = average of factor f after k updates, damped. */
static inline void spread_damped(const spread_run *run, const kfac_case *c, int k, int l, int f, double *M) {
  int64_t n = spread_n(l, f);
  double trace = 0, leak = kfac_is(c->average, "zero") ? pow(c->decay, k) : 0;
  memset(M, 0, (size_t)(n * n) * sizeof *M);
  for (int i = 0; i < k; i++) spread_add_statistic(run, i, l, f, kfac_weight(c, i, k), M);
  for (int64_t i = 0; i < n; i++) {
    if (kfac_is(c->average, "id")) M[i * n + i] += pow(c->decay, k);
    trace += M[i * n + i];
  }
  for (int64_t i = 0; i < n; i++) M[i * n + i] += c->damping * trace / (double)n + leak;
}

static inline void spread_transpose(int64_t m, int64_t n, const double *X, double *Y) {
  for (int64_t i = 0; i < m * n; i++) Y[i % n * m + i / n] = X[i];
}

/* (G + d)^-1 V (A + d)^-1 of exponents 1 and relative-mean damping, in the step after k updates; a dead G is the
 * identity. */
static inline void spread_reference(const spread_run *run, const kfac_case *c, int k, int step, int l, double *out) {
  static double M[SPREAD_MAX * SPREAD_MAX], T[SPREAD_FLOATS];
  static float V[SPREAD_FLOATS];
  int64_t m = spread_n(l, CV_G), n = spread_n(l, CV_A);
  spread_gradient(step, l, V);
  for (int64_t i = 0; i < m * n; i++) out[i] = V[i];
  spread_damped(run, c, k, l, CV_G, M);
  if (!run->is_dead_g[l]) spread_solve(m, M, n, out);
  spread_damped(run, c, k, l, CV_A, M);
  spread_transpose(m, n, out, T);
  spread_solve(n, M, m, T);
  spread_transpose(n, m, T, out);
}

/* ||x - reference|| / ||reference||; NaN counts as infinite. */
static inline double spread_error(int64_t count, const float *x, const double *reference) {
  double error = 0, norm = 0;
  for (int64_t i = 0; i < count; i++) {
    error += (x[i] - reference[i]) * (x[i] - reference[i]);
    norm += reference[i] * reference[i];
  }
  return isfinite(error) ? sqrt(error / norm) : INFINITY;
}

/* Largest error of the directions x of a step after k updates. */
static inline double spread_step_error(const spread_run *run, const kfac_case *c, int k, int step,
                                       float (*x)[SPREAD_FLOATS]) {
  static double reference[SPREAD_FLOATS];
  double worst = 0;
  for (int l = 0; l < SPREAD_LAYERS; l++) {
    spread_reference(run, c, k, step, l, reference);
    worst = fmax(worst, spread_error(spread_n(l, CV_A) * spread_n(l, CV_G), x[l], reference));
  }
  return worst;
}

/* Largest distance of directions from their counterparts. */
static inline double spread_distance(const spread_run *run, const spread_directions *x, const spread_directions *y) {
  static double reference[SPREAD_FLOATS];
  double worst = 0;
  for (int i = 0; i < run->n_steps * SPREAD_LAYERS; i++) {
    int step = i / SPREAD_LAYERS, l = i % SPREAD_LAYERS;
    int64_t count = spread_n(l, CV_A) * spread_n(l, CV_G);
    for (int64_t j = 0; j < count; j++) reference[j] = y->x[step][l][j];
    worst = fmax(worst, spread_error(count, x->x[step][l], reference));
  }
  return worst;
}

#endif
