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
      float *seed = factor->captured.seed;
      if (!factor->captured.has_seed_next) continue;
      factor->captured.seed = factor->captured.seed_next;
      factor->captured.seed_next = seed;
      factor->captured.has_seed_next = false;
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
  bool is_first = factor->captured.rows == 0;
  cv_stream_add(&ctx->sketch_by, sketch_rows(factor), factor->n, factor->captured.seed, factor->ld, &rows,
                is_first ? 0 : 1, factor->captured.statistic, factor->ld, ctx->sketched);
  factor->captured.trace = (is_first ? 0 : factor->captured.trace) + cv_stream_trace(&rows, factor->n);
}

static double trace(const cv_factor *factor) {
  return factor->captured.trace;
}

static int64_t summed(const cv_factor *factor) {
  return sketch_rows(factor) * factor->n;
}

static void pack(const cv_factor *factor, float *wire) {
  for (int64_t i = 0; i < sketch_rows(factor); i++, wire += factor->n)
    memcpy(wire, factor->captured.statistic + i * factor->ld, (size_t)factor->n * sizeof *wire);
}

const cv_carrier cv_carrier_sketch = {"sketch", false, false, room, add, trace, summed, pack, NULL};

/* ---- store ---- */

static void size(const curvd_ctx *ctx, cv_factor *factor) {
  factor->own.stream = (cv_stream){.n = factor->n, .k = factor->k_max, .ld = factor->ld};
  cv_window_size(ctx, factor);
}

static int arrays(const curvd_ctx *ctx, cv_factor *factor, cv_array list[CV_ARRAYS_MAX]) {
  cv_stream *stream = &factor->own.stream;
  int64_t floats = sketch_rows(factor) * factor->ld;
  (void)ctx;
  list[0] = (cv_array){&stream->Omega, floats, "test_matrix", CV_ARRAY_ROWS};
  list[1] = (cv_array){&stream->Y, floats, "sketch", CV_ARRAY_ROWS};
  int n = 2 + cv_window_arrays(factor, list + 2);
  return n + cv_pairs_arrays(factor, list + n);
}

static curvd_status begin(curvd_ctx *ctx, cv_factor *factor, int32_t index) {
  return cv_sketch_seed(ctx, factor, index, factor->own.stream.Omega);
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
  memcpy(factor->own.stream.Y, factor->own.stream.Omega, (size_t)(sketch_rows(factor) * factor->ld) * sizeof(float));
  factor->own.stream.trace = (double)factor->n;
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
  const float *U = factor->own.basis, *D = factor->own.eigenvalues;
  int64_t found = factor->own.last.found;
  if (factor->own.has_absorbed) {
    cv_eig_problem problem = problem_of(ctx, factor, index);
    cv_eig_scratch need = cv_stream_scratch(factor->n, factor->k_max);
    float *V = ctx->eig_work.floats + need.floats, *w = V + sketch_rows(factor) * factor->ld;
    cv_eig_result result = {0};
    CV_TRY(cv_stream_solve(&factor->own.stream, &problem, &ctx->eig_work, V, factor->ld, w, &result, why));
    U = V, D = w, found = result.found;
  }
  CV_TRY(cv_stream_reseed(&factor->own.stream, found, U, factor->ld, D, factor->k_max, factor->own.basis,
                          factor->own.ld, key_of(ctx, factor, index, factor->own.reseed_step), &ctx->eig_work, why));
  factor->own.is_reseed_due = false;
  cv_window_clear(&factor->own.window);
  return CURVD_OK;
}

static int32_t index_of(const curvd_ctx *ctx, const cv_factor *factor) {
  int32_t i = 0;
  while (factor != &ctx->layer[i].factor[CV_A] && factor != &ctx->layer[i].factor[CV_G]) i++;
  return i;
}

/* Workers capture before a refresh lands in the same step. */
static bool is_of_new_seed(const curvd_ctx *ctx, const cv_factor *factor) {
  return factor->own.is_reseed_due && ctx->step > factor->own.reseed_step + cv_landing_age(cv_settings_of(ctx));
}

static curvd_status mix(curvd_ctx *ctx, cv_factor *factor, cv_weights w, const float *wire, cv_error *why) {
  if (is_of_new_seed(ctx, factor)) CV_TRY(reseed(ctx, factor, index_of(ctx, factor), why));
  cv_stream_mix(&factor->own.stream, w.keep, w.add, wire, factor->n, 0);
  factor->own.stream.trace = factor->own.fresh.trace;
  factor->own.has_absorbed = true;
  return CURVD_OK;
}

/* A window is taken from the stream again, and what rounding left of it would count as history. */
static const cv_multiplier *sketch_by(const curvd_ctx *ctx, const cv_factor *factor) {
  return factor->own.window.room > 0 ? NULL : &ctx->sketch_by;
}

static curvd_status add_rows(curvd_ctx *ctx, cv_factor *factor, cv_weights w, int64_t rows, const float *X, int64_t ldx,
                             cv_error *why) {
  cv_stream_rows x = {rows, ldx, X, false, w.add};
  if (factor->own.is_reseed_due) CV_TRY(reseed(ctx, factor, index_of(ctx, factor), why));
  cv_stream_add(sketch_by(ctx, factor), sketch_rows(factor), factor->n, factor->own.stream.Omega, factor->ld, &x,
                (float)w.keep, factor->own.stream.Y, factor->ld, ctx->sketched);
  cv_window_add(&factor->own.window, factor->n, w, rows, X, ldx);
  factor->own.stream.trace = factor->own.fresh.trace;
  factor->own.has_absorbed = true;
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
  return cv_stream_solve(&factor->own.stream, problem, &ctx->eig_work, factor->own.basis, factor->own.ld,
                         factor->own.eigenvalues, &factor->own.last, why);
}

/* The last seed has landed everywhere by now, and basis is needed for the next one.
 * The pairs, and below them rows that make up a whole seed: those are sent, too, since workers sketch with them. */
static bool solve(curvd_ctx *ctx, const cv_layer *layer, cv_factor *factor, int32_t index) {
  cv_eig_problem problem = problem_of(ctx, factor, index);
  cv_error why = {0};
  double before = factor->own.last.found > 0 ? factor->own.last.missing_trace : -1;
  curvd_status status = factor->own.is_reseed_due ? reseed(ctx, factor, index, &why) : CURVD_OK;
  if (status == CURVD_OK) {
    factor->own.last = (cv_eig_result){0};
    status = cv_stream_solve(&factor->own.stream, &problem, &ctx->eig_work, factor->own.basis, factor->own.ld,
                             factor->own.eigenvalues, &factor->own.last, &why);
  }
  if (status == CURVD_OK && cv_window_is_wanted(&factor->own.window, before, factor->own.last.missing_trace))
    status = repair(ctx, layer, factor, &problem, &why);
  if (status == CURVD_OK) status = cv_solve_check(factor, &factor->own.last, &why);
  if (status == CURVD_OK)
    status = cv_stream_complete(factor->n, factor->k_max, factor->own.last.found, factor->own.basis, factor->own.ld,
                                key_of(ctx, factor, index, ctx->step), &ctx->eig_work, &why);
  if (status != CURVD_OK) {
    cv_solve_tell(ctx, layer, factor, "stream", &why);
    cv_count(ctx, layer, CURVD_EVENT_KEPT_PREVIOUS);
    return false;
  }
  factor->own.is_reseed_due = true;
  factor->own.reseed_step = ctx->step;
  factor->own.has_absorbed = false;
  return true;
}

const cv_store cv_store_stream = {"stream", size, arrays, begin, scratch, begin_with_identity, mix, add_rows, solve};
