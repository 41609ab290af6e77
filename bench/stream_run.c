#include "stream_run.h"

#include "base/clock.h"
#include "base/order.h"
#include "eig_score.h"
#include "linalg/dense.h"
#include "linalg/stream.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* Rows beyond those kept, of the full factor's sketch, and powers of its cold start: the defaults of the service. */
enum { FULL_OVERSAMPLING = 10, FULL_COLD_POWERS = 2, UPDATES_MAX = 100, EXACT_EVERY = 25 };
static const double KEEP = 0.95, TURN = 0.1;

/* The reference's error may be so far above that of the exact optimum, and below it by rounding. */
static const double REFERENCE_MAX = 2e-3, REFERENCE_MIN = -5e-4;

/* Eigenpairs, and the scratch of what makes them. */
typedef struct pairs {
  cv_eig_problem problem;
  cv_eig_work work;
  float *U, *D; /* (k + CV_EIG_PROBES, ld), (k) */
  cv_eig_result result;
} pairs;

typedef struct bench {
  const stream_options *options;
  cv_memory *memory;
  eig_kind kind; /* batches are drawn here, not by the source: its `more` is 0 */
  eig_source source;
  int64_t ld, k;
  float *window; /* (updates, batch, ld) */
  cv_stream_rows rows[UPDATES_MAX];
  cv_stream stream, history; /* history: without the window, when repaired */
  float *T;                  /* of cv_stream_add */
  pairs sketch;
  pairs full, reference; /* of M itself: the competitor, and what stands for the optimum */
} bench;

/* ---- memory ---- */

static curvd_status floats(bench *b, int64_t count, float **block, cv_error *err) {
  return cv_floats_new(b->memory, CV_MEMORY_WORKSPACE, count, "a stream", block, err);
}

static curvd_status stream_new(bench *b, cv_stream *s, cv_error *err) {
  *s = (cv_stream){.n = b->options->n, .k = b->k, .ld = b->ld};
  CV_TRY(floats(b, (b->k + CV_EIG_PROBES) * b->ld, &s->Omega, err));
  return floats(b, (b->k + CV_EIG_PROBES) * b->ld, &s->Y, err);
}

static curvd_status pairs_new(bench *b, pairs *p, int64_t k, cv_eig_scratch need, cv_error *err) {
  const stream_options *o = b->options;
  void *ints;
  p->problem = (cv_eig_problem){.n = o->n,
                                .M = b->source.M,
                                .ld = b->ld,
                                .method = CV_EIG_NYSTROM,
                                .eig_rank = o->eig_rank,
                                .oversampling = k - o->eig_rank,
                                .k_max = k,
                                .key = {.seed = (uint64_t)o->seed, .stream = CV_RNG_SKETCH}};
  CV_TRY(floats(b, (k + CV_EIG_PROBES) * b->ld, &p->U, err));
  CV_TRY(floats(b, k, &p->D, err));
  CV_TRY(floats(b, need.floats, &p->work.floats, err));
  CV_TRY(cv_doubles_new(b->memory, CV_MEMORY_WORKSPACE, need.doubles, "a stream", &p->work.doubles, err));
  CV_TRY(cv_memory_new(b->memory, CV_MEMORY_WORKSPACE, need.ints, sizeof(int32_t), "a stream", &ints, err));
  p->work.ints = ints;
  return CURVD_OK;
}

static void pairs_free(bench *b, pairs *p) {
  cv_floats_free(b->memory, &p->U);
  cv_floats_free(b->memory, &p->D);
  cv_floats_free(b->memory, &p->work.floats);
  cv_doubles_free(b->memory, &p->work.doubles);
  cv_memory_free(b->memory, (void **)&p->work.ints);
}

static curvd_status open_bench(bench *b, cv_error *err) {
  const stream_options *o = b->options;
  int64_t k_full = o->eig_rank + FULL_OVERSAMPLING;
  b->k = o->eig_rank + o->eig_rank / 2;
  b->ld = cv_dense_ld(o->n);
  b->kind = (eig_kind){.name = "stream", .alpha = 1.5, .keep = KEEP, .rows = o->batch, .turn = TURN};
  CV_TRY(eig_source_open(&b->kind, o->n, (uint64_t)o->seed, b->memory, &b->source, err));
  CV_TRY(floats(b, o->updates * o->batch * b->ld, &b->window, err));
  CV_TRY(floats(b, cv_stream_add_scratch(b->k + CV_EIG_PROBES), &b->T, err));
  CV_TRY(stream_new(b, &b->stream, err));
  CV_TRY(stream_new(b, &b->history, err));
  CV_TRY(pairs_new(b, &b->sketch, b->k, cv_stream_repair_scratch(o->n, b->k), err));
  CV_TRY(pairs_new(b, &b->full, k_full, cv_eig_rand.scratch(o->n, k_full, NULL), err));
  cv_stream *s = &b->stream;
  CV_TRY(cv_stream_seed(b->sketch.problem.key, s->k, s->n, s->Omega, s->ld, &b->sketch.work, err));
  memcpy(b->history.Omega, s->Omega, (size_t)((b->k + CV_EIG_PROBES) * b->ld) * sizeof *s->Omega);
  return CURVD_OK;
}

static void close_bench(bench *b) {
  float **const blocks[] = {&b->window, &b->T, &b->stream.Omega, &b->stream.Y, &b->history.Omega, &b->history.Y};
  if (b->source.close) b->source.close(&b->source);
  for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++) cv_floats_free(b->memory, blocks[i]);
  pairs_free(b, &b->sketch);
  pairs_free(b, &b->full);
  pairs_free(b, &b->reference);
}

/* ---- one window ---- */

/* Every direction turns by an angle; then the batches, with the weight of a new one each. */
static curvd_status next_window(bench *b, double angle, cv_error *err) {
  b->kind.turn = angle;
  CV_TRY(b->source.next(&b->source, err));
  for (int64_t u = 0; u < b->options->updates; u++) {
    float *X = b->window + u * b->options->batch * b->ld;
    b->source.examples(&b->source, X);
    b->rows[u] = (cv_stream_rows){
        .rows = b->options->batch, .ld = b->ld, .X = X, .weight = (1 - KEEP) / (double)b->options->batch};
  }
  return CURVD_OK;
}

static void update_full(bench *b) {
  float add = (float)b->rows[0].weight;
  for (int64_t u = 0; u < b->options->updates; u++)
    cv_gram_columns(b->options->n, b->options->batch, add, b->rows[u].X, b->ld, (float)KEEP, b->source.M, b->ld);
}

static void update_stream(bench *b) {
  cv_stream *s = &b->stream;
  for (int64_t u = 0; u < b->options->updates; u++) {
    cv_stream_add(&b->options->by, s->k + CV_EIG_PROBES, s->n, s->Omega, s->ld, &b->rows[u], (float)KEEP, s->Y, s->ld,
                  b->T);
    s->trace = KEEP * s->trace + cv_stream_trace(&b->rows[u], s->n);
  }
}

static void copy_stream(const bench *b, const cv_stream *from, cv_stream *to) {
  size_t bytes = (size_t)((b->k + CV_EIG_PROBES) * b->ld) * sizeof *from->Y;
  memcpy(to->Omega, from->Omega, bytes);
  memcpy(to->Y, from->Y, bytes);
  to->trace = from->trace;
}

/* A second product with the window, whose rows get their weights at its end; the stream becomes what it made. */
static curvd_status repair(bench *b, cv_error *err) {
  pairs *p = &b->sketch;
  int64_t updates = b->options->updates;
  double past = pow(KEEP, (double)updates);
  cv_mix(b->k + CV_EIG_PROBES, b->options->n, (float)past, b->history.Y, b->ld, 0, b->history.Y, b->ld);
  b->history.trace *= past;
  for (int64_t u = 0; u < updates; u++) b->rows[u].weight *= pow(KEEP, (double)(updates - 1 - u));
  CV_TRY(cv_stream_repair(&b->history, updates, b->rows, &p->problem, &p->work, p->result.found, p->U, b->ld, p->D,
                          &p->result, err));
  copy_stream(b, &b->history, &b->stream);
  return CURVD_OK;
}

static curvd_status refresh_stream(bench *b, cv_error *err) {
  pairs *p = &b->sketch;
  CV_TRY(cv_stream_solve(&b->stream, &p->problem, &p->work, p->U, b->ld, p->D, &p->result, err));
  return b->options->is_repaired ? repair(b, err) : CURVD_OK;
}

static curvd_status reseed(bench *b, cv_error *err) {
  pairs *p = &b->sketch;
  CV_TRY(cv_stream_reseed(&b->stream, p->result.found, p->U, b->ld, p->D, p->result.found, p->U, b->ld, p->problem.key,
                          &p->work, err));
  if (b->options->is_repaired) copy_stream(b, &b->stream, &b->history);
  return CURVD_OK;
}

static curvd_status refresh_pairs(const bench *b, pairs *p, int64_t power_iters, cv_error *err) {
  p->problem.power_iters = power_iters;
  CV_TRY(cv_eig_rand.solve(&p->problem, &p->work, p->U, b->ld, p->D, &p->result, err));
  p->problem.n_start = p->result.found;
  return CURVD_OK;
}

/* One product, from the pairs of the refresh before. */
static curvd_status refresh_full(bench *b, cv_error *err) {
  return refresh_pairs(b, &b->full, b->full.problem.n_start > 0 ? 0 : FULL_COLD_POWERS, err);
}

/* ---- errors ---- */

/* Frobenius norm of M minus the kept pairs. */
static double error_of(eig_truth *truth, const pairs *p, double *optimum) {
  eig_score score;
  eig_truth_score(truth, p->problem.eig_rank, p->result.found, p->result.kept, p->U, p->D, p->result.tau, &score);
  if (optimum) *optimum = score.optimum;
  return score.error;
}

/* Is the reference, as many rows as the sketch and three or more products with M from its last basis, the optimum? */
static curvd_status check_reference(bench *b, eig_truth *truth, double error, stream_errors *e, cv_error *err) {
  double optimum;
  CV_TRY(eig_truth_take(truth, &b->source, false, err));
  error_of(truth, &b->reference, &optimum);
  double off = error / optimum - 1;
  e->reference_off = fmax(e->reference_off, off);
  if (off >= REFERENCE_MIN && off <= REFERENCE_MAX) return CURVD_OK;
  return cv_fail(err, CURVD_ERR_NUMERIC, "check reference: error %.5f times that of the exact eigenpairs, n %lld",
                 off + 1, (long long)b->options->n);
}

static curvd_status measure_error(bench *b, eig_truth *truth, stream_errors *e, cv_error *err) {
  int64_t settled = e->count - b->options->settle;
  bool is_sudden = settled < 0 || settled >= b->options->refreshes; /* the last basis is far off */
  CV_TRY(refresh_pairs(b, &b->reference, is_sudden ? 8 : 2, err));
  CV_TRY(refresh_full(b, err));
  double best = error_of(truth, &b->reference, NULL), error = error_of(truth, &b->sketch, NULL);
  double full = error_of(truth, &b->full, NULL);
  e->full_over_optimum[e->count] = full / best;
  e->over_optimum[e->count++] = error / best;
  if (!(error / best >= 1 - REFERENCE_MAX && full / best >= 1 - REFERENCE_MAX))
    return cv_fail(err, CURVD_ERR_NUMERIC, "check error: %.5f and %.5f times that of the optimum", error / best,
                   full / best);
  if (!is_sudden && settled % EXACT_EVERY != 0) return CURVD_OK;
  fprintf(stderr, "bench_stream: n %lld, refresh %lld: error %.4f times the optimum\n", (long long)b->options->n,
          (long long)e->count, error / best);
  return check_reference(b, truth, best, e, err);
}

static curvd_status one_error(bench *b, double angle, eig_truth *truth, stream_errors *e, cv_error *err) {
  CV_TRY(next_window(b, angle, err));
  update_full(b);
  cv_mirror(b->options->n, b->source.M, b->ld);
  update_stream(b);
  CV_TRY(refresh_stream(b, err));
  CV_TRY(measure_error(b, truth, e, err));
  return reseed(b, err);
}

curvd_status stream_run_errors(const stream_options *o, cv_memory *memory, stream_errors *e, cv_error *err) {
  bench b = {.options = o, .memory = memory};
  eig_truth truth = {0};
  int64_t settled = o->settle + o->refreshes, all = settled + (o->jump > 0 ? STREAM_AFTER : 0);
  *e = (stream_errors){.reference_off = -INFINITY};
  curvd_status status = open_bench(&b, err);
  if (status == CURVD_OK) status = pairs_new(&b, &b.reference, b.k, cv_eig_rand.scratch(o->n, b.k, NULL), err);
  if (status == CURVD_OK) status = eig_truth_open(&b.source, cv_larger(b.k, b.full.problem.k_max), memory, &truth, err);
  for (int64_t i = 0; i < all && status == CURVD_OK; i++)
    status = one_error(&b, i == settled ? o->jump : TURN, &truth, e, err);
  eig_truth_close(&truth);
  close_bench(&b);
  return status;
}

/* ---- costs ---- */

static double lap(double *since) {
  double now = cv_cpu_s(), ms = 1e3 * (now - *since);
  *since = now;
  return ms;
}

/* The same window by both, in turn. */
static curvd_status one_cost(bench *b, int64_t at, stream_costs *c, cv_error *err) {
  CV_TRY(next_window(b, TURN, err));
  double clock = cv_cpu_s();
  update_stream(b);
  c->update_ms[at] = lap(&clock);
  CV_TRY(refresh_stream(b, err));
  CV_TRY(reseed(b, err));
  c->refresh_ms[at] = lap(&clock);
  update_full(b);
  c->full_update_ms[at] = lap(&clock);
  cv_mirror(b->options->n, b->source.M, b->ld);
  CV_TRY(refresh_full(b, err));
  c->full_refresh_ms[at] = lap(&clock);
  return CURVD_OK;
}

/* Windows before the first counted one settle both starts. */
curvd_status stream_run_costs(const stream_options *o, cv_memory *memory, stream_costs *c, cv_error *err) {
  bench b = {.options = o, .memory = memory};
  curvd_status status = open_bench(&b, err);
  for (int64_t i = 0; i < o->settle && status == CURVD_OK; i++) status = one_cost(&b, 0, c, err);
  for (int64_t i = 0; i < o->refreshes && status == CURVD_OK; i++) status = one_cost(&b, i, c, err);
  close_bench(&b);
  return status;
}
