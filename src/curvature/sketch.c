/* The carrier and the store of streams: sketches of statistics, and of the running average (linalg/stream.h).
 *
 * The test matrix of the workers' sketches is what the last refresh brought them, so it changes when one lands. The
 * owner changes to it when the first statistic of that matrix comes: its history is expressed anew then. Statistics
 * that came between the refresh and that step have entered the history, so it is solved once more for the estimate.
 * With rows (carrier columns) the owner sketches itself, and changes with every refresh. */
#include "base/order.h"
#include "curvature/carrier.h"
#include "curvature/link.h"
#include "curvature/store.h"
#include "curvature/window.h"
#include "linalg/dense.h"
#include "linalg/stream.h"

#include <string.h>

static int64_t sketch_rows(const cv_factor *factor) {
  return factor->k_max + CV_EIG_PROBES;
}

static cv_rng key_of(const curvd_ctx *ctx, const cv_factor *factor, int32_t index, int64_t step) {
  int which = factor == &ctx->layer[index].factor[CV_A] ? CV_A : CV_G;
  return (cv_rng){(uint64_t)cv_settings_of(ctx)->seed, CV_RNG_SKETCH, (uint32_t)(2 * index + which), (uint32_t)step};
}

/* A cold start's, the same on all ranks. */
curvd_status cv_sketch_seed(curvd_ctx *ctx, const cv_factor *factor, int32_t index, float *Omega) {
  enum { BEFORE_ALL_STEPS = -1 };
  cv_eig_work work = {0};
  if (!Omega) return CURVD_OK; /* a plan without memory */
  CV_TRY(cv_solver_room_new(ctx, cv_stream_scratch(factor->n, factor->k_max), &work));
  curvd_status status = cv_stream_seed(key_of(ctx, factor, index, BEFORE_ALL_STEPS), factor->k_max, factor->n, Omega,
                                       factor->ld, &work, &ctx->error);
  cv_solver_room_free(ctx, &work);
  return status;
}

/* A refresh may land before a step's rows are captured or after; so that all of them meet one test matrix, it is used
 * from the next step on. */
void cv_sketch_change_seeds(curvd_ctx *ctx) {
  for (int32_t i = 0; i < ctx->n_layers; i++) {
    for (int f = 0; f < CV_FACTORS; f++) {
      cv_factor *factor = &ctx->layer[i].factor[f];
      float *seed = factor->seed;
      if (!factor->has_seed_next) continue;
      factor->seed = factor->seed_next;
      factor->seed_next = seed;
      factor->has_seed_next = false;
    }
  }
}

/* ---- carrier: statistic (k + probes, ld) ---- */

static int64_t room(const curvd_ctx *ctx, const cv_factor *factor) {
  (void)ctx;
  return sketch_rows(factor) * factor->ld;
}

static cv_stream_rows weighted(const cv_rows *x) {
  return (cv_stream_rows){x->rows, x->ld, x->X, x->has_one, x->scale};
}

static void add(curvd_ctx *ctx, cv_factor *factor, const cv_rows *x) {
  cv_stream_rows rows = weighted(x);
  bool is_first = factor->rows == 0;
  cv_stream_add(sketch_rows(factor), factor->n, factor->seed, factor->ld, &rows, is_first ? 0 : 1, factor->statistic,
                factor->ld, ctx->sketched);
  factor->captured_trace = (is_first ? 0 : factor->captured_trace) + cv_stream_trace(&rows, factor->n);
}

static double trace(const cv_factor *factor) {
  return factor->captured_trace;
}

static int64_t summed(const cv_factor *factor) {
  return sketch_rows(factor) * factor->n;
}

static void pack(const cv_factor *factor, float *wire) {
  for (int64_t i = 0; i < sketch_rows(factor); i++, wire += factor->n)
    memcpy(wire, factor->statistic + i * factor->ld, (size_t)factor->n * sizeof *wire);
}

const cv_carrier cv_carrier_sketch = {"sketch", false, false, room, add, trace, summed, pack};

/* ---- store ---- */

static curvd_status allocate(curvd_ctx *ctx, cv_factor *factor, int32_t index) {
  cv_stream *stream = &factor->stream;
  int64_t floats = sketch_rows(factor) * factor->ld;
  *stream = (cv_stream){.n = factor->n, .k = factor->k_max, .ld = factor->ld};
  CV_TRY(cv_floats_new(&ctx->memory, CV_MEMORY_FACTORS, floats, "a test matrix", &stream->Omega, &ctx->error));
  CV_TRY(cv_floats_new(&ctx->memory, CV_MEMORY_FACTORS, floats, "a sketch", &stream->Y, &ctx->error));
  CV_TRY(cv_window_allocate(ctx, factor));
  return cv_sketch_seed(ctx, factor, index, stream->Omega);
}

static void release(curvd_ctx *ctx, cv_factor *factor) {
  cv_floats_free(&ctx->memory, &factor->stream.Omega);
  cv_floats_free(&ctx->memory, &factor->stream.Y);
  cv_window_release(ctx, factor);
}

/* Behind what a solve needs: room for a second set of pairs. */
static cv_eig_scratch scratch(const curvd_ctx *ctx, const cv_factor *factor) {
  cv_eig_scratch need = cv_stream_scratch(factor->n, factor->k_max);
  (void)ctx;
  need.floats += sketch_rows(factor) * factor->ld + factor->k_max;
  if (cv_settings_of(ctx)->window_rows > 0) need.floats = cv_larger(need.floats, cv_window_scratch(factor).floats);
  return need;
}

static void begin_with_identity(const curvd_ctx *ctx, cv_factor *factor) {
  (void)ctx;
  memcpy(factor->stream.Y, factor->stream.Omega, (size_t)(sketch_rows(factor) * factor->ld) * sizeof(float));
  factor->stream.trace = (double)factor->n;
}

static cv_eig_problem problem_of(curvd_ctx *ctx, const cv_factor *factor, int32_t index) {
  const cv_settings *s = cv_settings_of(ctx);
  int64_t rank = cv_smaller((int64_t)cv_now(ctx, &s->eig_rank), factor->k_max);
  return (cv_eig_problem){.n = factor->n,
                          .method = CV_EIG_NYSTROM,
                          .eig_rank = rank,
                          .oversampling = factor->k_max - rank,
                          .k_max = factor->k_max,
                          .tolerance = s->missing_trace,
                          .kept_min = cv_smaller(s->eig_rank_min, factor->k_max),
                          .kept_max = cv_smaller(s->eig_rank_max, factor->k_max),
                          .tail = (cv_tail)s->tail,
                          .key = key_of(ctx, factor, index, ctx->step)};
}

/* The history on the seed that the last refresh made, which lies in basis. When that fails it stays due: workers have
 * that seed, so no sketch may be added before. */
static curvd_status reseed(curvd_ctx *ctx, cv_factor *factor, int32_t index, cv_error *why) {
  const float *U = factor->basis, *D = factor->eigenvalues;
  int64_t found = factor->last.found;
  if (factor->has_absorbed) {
    cv_eig_problem problem = problem_of(ctx, factor, index);
    cv_eig_scratch need = cv_stream_scratch(factor->n, factor->k_max);
    float *V = ctx->eig_work.floats + need.floats, *w = V + sketch_rows(factor) * factor->ld;
    cv_eig_result result = {0};
    CV_TRY(cv_stream_solve(&factor->stream, &problem, &ctx->eig_work, V, factor->ld, w, &result, why));
    U = V, D = w, found = result.found;
  }
  CV_TRY(cv_stream_reseed(&factor->stream, found, U, factor->ld, D, factor->k_max, factor->basis, factor->own_ld,
                          key_of(ctx, factor, index, factor->reseed_step), &ctx->eig_work, why));
  factor->is_reseed_due = false;
  cv_window_clear(&factor->window);
  return CURVD_OK;
}

static int32_t index_of(const curvd_ctx *ctx, const cv_factor *factor) {
  int32_t i = 0;
  while (factor != &ctx->layer[i].factor[CV_A] && factor != &ctx->layer[i].factor[CV_G]) i++;
  return i;
}

/* Workers capture before a refresh lands in the same step. */
static bool is_of_new_seed(const curvd_ctx *ctx, const cv_factor *factor) {
  return factor->is_reseed_due && ctx->step > factor->reseed_step + cv_landing_age(cv_settings_of(ctx));
}

static curvd_status mix(curvd_ctx *ctx, cv_factor *factor, cv_weights w, const float *wire, cv_error *why) {
  if (is_of_new_seed(ctx, factor)) CV_TRY(reseed(ctx, factor, index_of(ctx, factor), why));
  cv_stream_mix(&factor->stream, w.keep, w.add, wire, factor->n, 0);
  factor->stream.trace = factor->fresh.trace;
  factor->has_absorbed = true;
  return CURVD_OK;
}

static curvd_status add_rows(curvd_ctx *ctx, cv_factor *factor, cv_weights w, int64_t rows, const float *X, int64_t ldx,
                             cv_error *why) {
  cv_stream_rows x = {rows, ldx, X, false, w.add};
  if (factor->is_reseed_due) CV_TRY(reseed(ctx, factor, index_of(ctx, factor), why));
  cv_stream_add(sketch_rows(factor), factor->n, factor->stream.Omega, factor->ld, &x, (float)w.keep, factor->stream.Y,
                factor->ld, ctx->sketched);
  cv_window_add(&factor->window, factor->n, w, rows, X, ldx);
  factor->stream.trace = factor->fresh.trace;
  factor->has_absorbed = true;
  return CURVD_OK;
}

/* A repair that fails spoils the pairs, so they are found once more. */
static curvd_status repair(curvd_ctx *ctx, const cv_layer *layer, cv_factor *factor, const cv_eig_problem *problem,
                           cv_error *why) {
  if (cv_window_repair(ctx, factor, problem, why) == CURVD_OK) {
    cv_count(ctx, layer, CURVD_EVENT_REPAIRED);
    return CURVD_OK;
  }
  cv_solve_tell(ctx, layer, factor, "window", why);
  *why = (cv_error){0};
  return cv_stream_solve(&factor->stream, problem, &ctx->eig_work, factor->basis, factor->own_ld, factor->eigenvalues,
                         &factor->last, why);
}

/* The last seed has landed everywhere by now, and basis is needed for the next one.
 * The pairs, and below them rows that make up a whole seed: those are sent, too, since workers sketch with them. */
static bool solve(curvd_ctx *ctx, const cv_layer *layer, cv_factor *factor, int32_t index) {
  cv_eig_problem problem = problem_of(ctx, factor, index);
  cv_error why = {0};
  double before = factor->last.found > 0 ? factor->last.missing_trace : -1;
  curvd_status status = factor->is_reseed_due ? reseed(ctx, factor, index, &why) : CURVD_OK;
  if (status == CURVD_OK) {
    factor->last = (cv_eig_result){0};
    status = cv_stream_solve(&factor->stream, &problem, &ctx->eig_work, factor->basis, factor->own_ld,
                             factor->eigenvalues, &factor->last, &why);
  }
  if (status == CURVD_OK && cv_window_is_wanted(&factor->window, before, factor->last.missing_trace))
    status = repair(ctx, layer, factor, &problem, &why);
  if (status == CURVD_OK) status = cv_solve_check(factor, &factor->last, &why);
  if (status == CURVD_OK)
    status = cv_stream_complete(factor->n, factor->k_max, factor->last.found, factor->basis, factor->own_ld,
                                key_of(ctx, factor, index, ctx->step), &ctx->eig_work, &why);
  if (status != CURVD_OK) {
    cv_solve_tell(ctx, layer, factor, "stream", &why);
    cv_count(ctx, layer, CURVD_EVENT_KEPT_PREVIOUS);
    return false;
  }
  factor->is_reseed_due = true;
  factor->reseed_step = ctx->step;
  factor->has_absorbed = false;
  return true;
}

const cv_store cv_store_stream = {"stream", allocate, release, scratch, begin_with_identity, mix, add_rows, solve};
