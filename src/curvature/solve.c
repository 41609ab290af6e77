/* One decomposition, with the ladder that it climbs when a solver fails: the chosen solver with rounded numbers, where
 * that is wanted, coarse ones first; the chosen solver; the exact one, on one rank the exact one in fp64; the previous
 * preconditioner. Never an error: each rung is counted and told. Of a spread factor every owner climbs the same rungs:
 * solvers tell all ranks the same, and memory is agreed on. */
#include "base/order.h"
#include "curvature/inject.h"
#include "curvature/precision.h"
#include "curvature/store.h"

#include <float.h>
#include <math.h>

/* Orthogonality beyond which a basis is useless, residual beyond which pairs are not those of the factor, and the
 * excess of eigenvalues over the trace that rounding may cause. */
static const double ORTHOGONALITY_MAX = 1e-4, RESIDUAL_MAX = 0.5, TRACE_EXCESS_MAX = 1e-3;

void cv_count(curvd_ctx *ctx, const cv_layer *layer, curvd_event event) {
  if (cv_owns(ctx, layer)) ctx->my_events[event]++; /* once, where several ranks hold a factor */
}

const cv_eig_ops *cv_solver_of(const curvd_ctx *ctx, const cv_factor *factor) {
  if (factor->is_spread) return factor->is_full ? &cv_eig_exact_dist : ctx->spread_solver;
  return factor->is_full ? &cv_eig_exact : ctx->solver;
}

curvd_status cv_solver_room_new(curvd_ctx *ctx, cv_eig_scratch need, cv_eig_work *work) {
  void *ints = NULL;
  CV_TRY(cv_floats_new(&ctx->memory, CV_MEMORY_WORKSPACE, need.floats, "the solver", &work->floats, &ctx->error));
  CV_TRY(cv_doubles_new(&ctx->memory, CV_MEMORY_WORKSPACE, need.doubles, "the solver", &work->doubles, &ctx->error));
  CV_TRY(
      cv_memory_new(&ctx->memory, CV_MEMORY_WORKSPACE, need.ints, sizeof(int32_t), "the solver", &ints, &ctx->error));
  work->ints = ints;
  return CURVD_OK;
}

void cv_solver_room_free(curvd_ctx *ctx, cv_eig_work *work) {
  void *ints = work->ints;
  cv_floats_free(&ctx->memory, &work->floats);
  cv_doubles_free(&ctx->memory, &work->doubles);
  cv_memory_free(&ctx->memory, &ints);
  work->ints = NULL;
}

/* A stream has one product, of an older seed: while its eigenvectors turn their residual is large without any fault,
 * and only a refresh brings the seed that follows them. */
static double residual_max(const cv_factor *factor) {
  return factor->store == &cv_store_stream ? DBL_MAX : RESIDUAL_MAX;
}

/* Rounding makes a sum M + E, of which negative eigenvalues count as 0. What is missing then is at most the sum of E's
 * singular values: sqrt(n) |E| in the Frobenius norm, and |E| <= CV_BF16_ROUNDING |M| of each rounding, |M| <= trace.
 */
static double trace_excess_max(const cv_factor *factor) {
  return TRACE_EXCESS_MAX + CV_BF16_ROUNDING * factor->wire_roundings * sqrt((double)factor->n);
}

/* Comparisons are written so that NaN is not sound. */
curvd_status cv_solve_check(const cv_factor *factor, const cv_eig_result *r, cv_error *why) {
  double sum = 0, trace = r->trace; /* the same on every owner */
  for (int64_t i = 0; i < r->found; i++) sum += factor->own.eigenvalues[i];
  bool is_sound = r->orthogonality <= ORTHOGONALITY_MAX && r->residual <= residual_max(factor) &&
                  r->error_norm <= 2 * trace && sum <= trace * (1 + trace_excess_max(factor));
  if (is_sound) return CURVD_OK;
  return cv_fail(why, CURVD_ERR_NUMERIC,
                 "orthogonality %.1e, residual %.1e, error %.1e, sum of eigenvalues %.6e, trace %.6e", r->orthogonality,
                 r->residual, r->error_norm, sum, trace);
}

/* The same on every owner of a spread factor. */
static curvd_status agree(curvd_ctx *ctx, const cv_factor *factor, curvd_status mine, cv_error *why) {
  int64_t least = mine == CURVD_OK;
  if (factor->is_spread) CV_TRY(cv_grid_least(&ctx->grid, least, &least, why));
  if (mine != CURVD_OK || least == 1) return mine;
  return cv_fail(why, CURVD_ERR_REMOTE, "another owner of the factor found no memory for the solver");
}

/* A rung that is normally not used finds its own room; the only memory that a step ever makes. */
static curvd_status solve_in_new_room(curvd_ctx *ctx, const cv_eig_ops *ops, const cv_eig_problem *p, cv_factor *factor,
                                      cv_eig_result *result, cv_error *why) {
  cv_eig_work work = {0};
  CV_TRY(ops->fits(p->n, p->k_max, p->grid, why));
  curvd_status status = cv_solver_room_new(ctx, ops->scratch(p->n, p->k_max, p->grid), &work);
  if (status != CURVD_OK) cv_fail(why, status, "%s", ctx->error.text);
  ctx->error = (cv_error){0}; /* a rung that found no memory is one that failed, not an error of the step */
  status = agree(ctx, factor, status, why);
  if (status == CURVD_OK) {
    status = ops->solve(p, &work, factor->own.basis, factor->own.ld, factor->own.eigenvalues, result, why);
  }
  cv_solver_room_free(ctx, &work);
  return status;
}

/* ---- sums that were rounded on their way ---- */

/* A rounded sum M + E has eigenvalues below 0, down to -|E|, which no solver takes from a sum of squares. |E| <=
 * CV_BF16_ROUNDING trace of each rounding; so much more on the diagonal makes it semidefinite. A randomized solver
 * needs less than its own rounding allows (cv_plan_sends_bf16), and would see little but the diagonal. */
static double lift_of(const cv_eig_ops *ops, const cv_factor *factor) {
  return ops->is_exact ? CV_BF16_ROUNDING * factor->wire_roundings * factor->own.fresh.trace : 0;
}

/* This rank's part of the diagonal. */
static void lift(const curvd_ctx *ctx, cv_factor *factor, float by) {
  cv_cyclic piece = cv_spread_piece(ctx, factor, cv_comm_my_owner(&ctx->comm));
  for (int64_t i = 0; i < factor->own.cols && by != 0; i++)
    factor->own.average[cv_cyclic_global(&piece, i) * factor->own.ld + i] += by;
}

/* Pairs of M + E + by I as those of M + E, of which nothing is below 0. */
static void lower(cv_factor *factor, double by) {
  cv_eig_result *r = &factor->own.last;
  double kept = 0;
  if (by == 0) return;
  for (int64_t i = 0; i < r->found; i++) {
    factor->own.eigenvalues[i] = fmaxf(factor->own.eigenvalues[i] - (float)by, 0);
    kept += i < r->kept ? (double)factor->own.eigenvalues[i] : 0;
  }
  r->trace -= (double)factor->n * by;
  r->tau = fmax(r->tau - by, 0);
  r->missing_trace = r->kept < factor->n && r->trace > 0 ? fmax(r->trace - kept, 0) / r->trace : 0;
}

/* ---- rungs ---- */

static bool try_solver(curvd_ctx *ctx, const cv_eig_ops *ops, const cv_eig_problem *p, cv_factor *factor,
                       cv_error *why) {
  cv_eig_result *result = &factor->own.last;
  double by = (double)(float)lift_of(ops, factor);
  *why = (cv_error){0};
  *result = (cv_eig_result){0};
  bool is_first = ops == cv_solver_of(ctx, factor);
  if (is_first && cv_inject_solver(ctx, factor))
    return cv_fail(why, CURVD_ERR_NUMERIC, "an injected failure") == CURVD_OK;
  lift(ctx, factor, (float)by);
  curvd_status status =
      is_first ? ops->solve(p, &ctx->eig_work, factor->own.basis, factor->own.ld, factor->own.eigenvalues, result, why)
               : solve_in_new_room(ctx, ops, p, factor, result, why);
  lift(ctx, factor, -(float)by);
  if (status == CURVD_OK) status = cv_solve_check(factor, result, why);
  if (status == CURVD_OK) lower(factor, by);
  return status == CURVD_OK;
}

void cv_solve_tell(curvd_ctx *ctx, const cv_layer *layer, const cv_factor *factor, const char *solver,
                   const cv_error *why) {
  if (!cv_owns(ctx, layer)) return;
  cv_log_line(&ctx->log, CV_LOG_WARNING, "layer %s, %s, step %lld, solver %s: %s", layer->name,
              cv_factor_name(layer, factor), (long long)ctx->step, solver, why->text);
}

/* ---- precision ---- */

/* NULL: fp32. An exact solver has no products. */
const cv_multiplier *cv_refresh_by(const curvd_ctx *ctx, const cv_factor *factor) {
  bool has_products = !cv_solver_of(ctx, factor)->is_exact;
  bool has_slices = !factor->is_spread || cv_solver_of(ctx, factor) == &cv_eig_rand_slab;
  bool is_finer = factor->own.finer_left > 0;
  cv_precision precision = is_finer ? (cv_precision)factor->own.finer : ctx->refresh_by.precision;
  if (precision == CV_FP32 || !has_products || !has_slices) return NULL;
  return is_finer ? &ctx->refresh_finer_by : &ctx->refresh_by;
}

static const cv_multiplier *finer_than(const curvd_ctx *ctx, const cv_multiplier *by) {
  return by->precision == CV_BF16 ? &ctx->refresh_finer_by : NULL;
}

static curvd_status check_rounding(const cv_multiplier *by, const cv_eig_result *r, cv_error *why) {
  if (r->rounding <= CV_ROUNDING_MAX * r->error_norm) return CURVD_OK;
  return cv_fail(why, CURVD_ERR_NUMERIC,
                 "%s changes it by %.1e, more than a tenth of the %.1e that its %lld pairs miss: it needs a finer one",
                 cv_precision_name(by->precision), r->rounding, r->error_norm, (long long)r->kept);
}

/* With rounded numbers. false: *problem begins with the pairs that were found, if any were. */
static bool try_rounded(curvd_ctx *ctx, const cv_layer *layer, cv_factor *factor, cv_eig_problem *problem) {
  const cv_eig_ops *ops = cv_solver_of(ctx, factor);
  cv_error why = {0};
  bool is_solved = try_solver(ctx, ops, problem, factor, &why);
  if (is_solved && check_rounding(problem->by, &factor->own.last, &why) == CURVD_OK) return true;
  cv_solve_tell(ctx, layer, factor, ops->name, &why);
  problem->n_start = is_solved ? cv_smaller(factor->own.last.found, problem->eig_rank + problem->oversampling) : 0;
  return false;
}

/* Each time twice as many: a spectrum may be another one later, and a look costs a product. */
static void go_on_finer(curvd_ctx *ctx, const cv_layer *layer, cv_factor *factor, cv_precision finer) {
  const int64_t most = 1 << 20;
  factor->own.finer_last = cv_smaller(cv_larger(2 * factor->own.finer_last, 1), most);
  factor->own.finer_left = factor->own.finer_last;
  factor->own.finer = finer;
  cv_count(ctx, layer, CURVD_EVENT_WIDENED);
}

/* The rungs of rounded numbers; false: *problem is one for fp32. */
static bool solve_rounded(curvd_ctx *ctx, const cv_layer *layer, cv_factor *factor, cv_eig_problem *problem) {
  const cv_multiplier *first = problem->by;
  factor->own.finer_left = cv_larger(factor->own.finer_left - 1, 0);
  for (; problem->by; problem->by = finer_than(ctx, problem->by)) {
    factor->own.fresh.precision = problem->by->precision;
    if (!try_rounded(ctx, layer, factor, problem)) continue;
    if (problem->by != first) go_on_finer(ctx, layer, factor, problem->by->precision);
    return true;
  }
  factor->own.fresh.precision = CV_FP32;
  return false;
}

bool cv_solve(curvd_ctx *ctx, const cv_layer *layer, cv_factor *factor, const cv_eig_problem *wanted) {
  cv_eig_problem problem = *wanted;
  const cv_eig_ops *exact = factor->is_spread ? &cv_eig_exact_dist : &cv_eig_exact,
                   *last = factor->is_spread ? exact : &cv_eig_exact_f64,
                   *rung[] = {cv_solver_of(ctx, factor), exact, last};
  const curvd_event event[] = {CURVD_EVENT_REFRESHES, CURVD_EVENT_EXACT_FALLBACK, CURVD_EVENT_RETRIED};
  enum { RUNGS = sizeof rung / sizeof rung[0] };
  cv_error why = {0};
  if (solve_rounded(ctx, layer, factor, &problem)) return true;
  for (int i = 0; i < RUNGS; i++) {
    if (i > 0 && rung[i] == rung[i - 1]) continue;
    if (i > 0) cv_count(ctx, layer, event[i]);
    if (try_solver(ctx, rung[i], &problem, factor, &why)) {
      if (wanted->by && i == 0) go_on_finer(ctx, layer, factor, CV_FP32);
      return true;
    }
    factor->own.last.found = 0; /* the failed solver may have spoilt the basis: no warm start from it */
    cv_solve_tell(ctx, layer, factor, rung[i]->name, &why);
  }
  cv_count(ctx, layer, CURVD_EVENT_KEPT_PREVIOUS);
  return false;
}
