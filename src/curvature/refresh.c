/* A new decomposition of a running average, with the ladder that it climbs when a solver fails:
 * the chosen solver, the exact one, the exact one in fp64, the previous preconditioner. Never an error: each rung is
 * counted and told. */
#include "curvature/internal.h"
#include "linalg/dense.h"

#include <math.h>
#include <string.h>

/* Orthogonality beyond which a basis is useless, and the excess of eigenvalues over the trace that rounding may cause.
 */
static const double ORTHOGONALITY_MAX = 1e-4, TRACE_EXCESS_MAX = 1e-3;

static int64_t smaller(int64_t x, int64_t y) {
  return x < y ? x : y;
}

/* Wanted pairs of this refresh: the schedule's, or the adaptive rank. */
static int64_t wanted_rank(curvd_ctx *ctx, cv_factor *factor) {
  const cv_settings *s = cv_settings_of(ctx);
  if (factor->is_full) return factor->n;
  int64_t scheduled = (int64_t)cv_now(ctx, &s->eig_rank);
  if (s->missing_trace == 0) return smaller(scheduled, factor->k_max);
  if (factor->eig_rank == 0) factor->eig_rank = scheduled;
  factor->eig_rank = smaller(
      smaller(factor->eig_rank > s->eig_rank_min ? factor->eig_rank : s->eig_rank_min, s->eig_rank_max), factor->k_max);
  return factor->eig_rank;
}

/* Grows by half when too much of the trace is missing, shrinks by a quarter when nearly nothing is. */
static void adapt_rank(const cv_settings *s, cv_factor *factor) {
  if (s->missing_trace == 0 || factor->is_full) return;
  if (factor->fresh.missing_trace > s->missing_trace) factor->eig_rank += (factor->eig_rank + 1) / 2;
  if (factor->fresh.missing_trace < s->missing_trace / 4) factor->eig_rank -= factor->eig_rank / 4;
}

static cv_eig_problem problem_of(curvd_ctx *ctx, const cv_layer *layer, cv_factor *factor, int32_t index) {
  const cv_settings *s = cv_settings_of(ctx);
  bool is_warm = s->warm_start && factor->found > 0;
  int64_t rank = wanted_rank(ctx, factor), over = (int64_t)cv_now(ctx, &s->oversampling);
  int which = factor == &layer->factor[CV_A] ? CV_A : CV_G;
  return (cv_eig_problem){
      .n = factor->n,
      .M = factor->average,
      .ld = factor->ld,
      .eig_rank = rank,
      .oversampling = smaller(over, factor->k_max - rank),
      .power_iters = (int64_t)cv_now(ctx, is_warm ? &s->warm_power_iters : &s->power_iters),
      .orthonormalise = (cv_orthonormalise)s->orthonormalise,
      .n_start = is_warm ? factor->found : 0,
      .key = {(uint64_t)s->seed, CV_RNG_SKETCH, (uint32_t)(2 * index + which), (uint32_t)ctx->step}};
}

static double sum_of(int64_t r, const float *D) {
  double sum = 0;
  for (int64_t i = 0; i < r; i++) sum += D[i];
  return sum;
}

/* Comparisons are written so that NaN is not sound. */
static bool is_sound(const cv_factor *factor, const cv_eig_result *result) {
  double trace = factor->fresh.trace;
  return result->orthogonality <= ORTHOGONALITY_MAX &&
         sum_of(result->found, factor->eigenvalues) <= trace * (1 + TRACE_EXCESS_MAX);
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

/* The exact rungs of a factor that is normally sketched need room for all n pairs; the only memory that a step ever
 * makes. U: its last n floats take the eigenvalues. */
static curvd_status solve_exactly(curvd_ctx *ctx, const cv_eig_ops *ops, const cv_eig_problem *p, cv_factor *factor,
                                  cv_eig_result *result, cv_error *err) {
  cv_eig_work work = {0};
  float *U = NULL;
  curvd_status status = cv_solver_room_new(ctx, ops->scratch(p->n, p->n), &work);
  if (status == CURVD_OK) {
    status = cv_floats_new(&ctx->memory, CV_MEMORY_WORKSPACE, p->n * (factor->ld + 1), "the solver", &U, &ctx->error);
  }
  if (status != CURVD_OK) cv_fail(err, status, "%s", ctx->error.text);
  float *D = U ? U + p->n * factor->ld : NULL;
  if (status == CURVD_OK) status = ops->solve(p, &work, U, factor->ld, D, result, err);
  if (status == CURVD_OK) {
    result->found = smaller(result->found, factor->k_max);
    memcpy(factor->basis, U, (size_t)(result->found * factor->ld) * sizeof *U);
    memcpy(factor->eigenvalues, D, (size_t)result->found * sizeof *D);
  }
  ctx->error = (cv_error){0}; /* a rung that found no memory is one that failed, not an error of the step */
  cv_solver_room_free(ctx, &work);
  cv_floats_free(&ctx->memory, &U);
  return status;
}

/* One rung: solved and sound, or the reason why not. */
static bool try_solver(curvd_ctx *ctx, const cv_eig_ops *ops, const cv_eig_problem *p, cv_factor *factor,
                       cv_eig_result *result, cv_error *why) {
  *why = (cv_error){0};
  *result = (cv_eig_result){0};
  bool has_room = ops == ctx->solver || (ops == &cv_eig_exact && factor->is_full);
  curvd_status status = has_room
                            ? ops->solve(p, &ctx->eig_work, factor->basis, factor->ld, factor->eigenvalues, result, why)
                            : solve_exactly(ctx, ops, p, factor, result, why);
  if (status == CURVD_OK && !is_sound(factor, result)) {
    cv_fail(why, CURVD_ERR_NUMERIC, "orthogonality %.1e, sum of eigenvalues %.6e, trace %.6e", result->orthogonality,
            sum_of(result->found, factor->eigenvalues), factor->fresh.trace);
  }
  return why->code == CURVD_OK;
}

static bool climb(curvd_ctx *ctx, const cv_layer *layer, cv_factor *factor, const cv_eig_problem *p,
                  cv_eig_result *result) {
  const cv_eig_ops *rung[] = {factor->is_full ? &cv_eig_exact : ctx->solver, &cv_eig_exact, &cv_eig_exact_f64};
  const curvd_event event[] = {CURVD_EVENT_REFRESHES, CURVD_EVENT_EXACT_FALLBACK, CURVD_EVENT_RETRIED};
  enum { RUNGS = sizeof rung / sizeof rung[0] };
  cv_error why = {0};
  for (int i = 0; i < RUNGS; i++) {
    if (i > 0 && rung[i] == rung[i - 1]) continue;
    if (i > 0) ctx->my_events[event[i]]++;
    if (try_solver(ctx, rung[i], p, factor, result, &why)) return true;
    factor->found = 0; /* the failed solver may have spoilt the basis: no warm start from it */
    cv_log_line(&ctx->log, CV_LOG_WARNING, "layer %s, %c, step %lld, solver %s: %s", layer->name,
                factor == &layer->factor[CV_A] ? 'A' : 'G', (long long)ctx->step, rung[i]->name, why.text);
  }
  ctx->my_events[CURVD_EVENT_KEPT_PREVIOUS]++;
  return false;
}

static void describe(const cv_settings *s, cv_factor *factor, int64_t rank) {
  cv_factor_state *fresh = &factor->fresh;
  int64_t r = smaller(rank, factor->found), n = factor->n;
  double kept = sum_of(r, factor->eigenvalues), rest = fmax(fresh->trace - kept, 0);
  fresh->is_new = 1;
  fresh->kind = CV_KIND_EIGEN;
  fresh->r = r;
  fresh->lambda_max = r > 0 ? factor->eigenvalues[0] : 0;
  fresh->lambda_min = r > 0 ? factor->eigenvalues[r - 1] : 0;
  fresh->missing_trace = r < n && fresh->trace > 0 ? rest / fresh->trace : 0;
  fresh->tau = 0;
  if (r < n && s->tail == CV_TAIL_MEAN) fresh->tau = rest / (double)(n - r);
  if (r < n && s->tail == CV_TAIL_MIN) fresh->tau = fresh->lambda_min;
}

static void refresh_eigen(curvd_ctx *ctx, const cv_layer *layer, cv_factor *factor, int32_t index) {
  cv_eig_problem problem = problem_of(ctx, layer, factor, index);
  cv_eig_result result;
  cv_mirror(factor->n, factor->average, factor->ld);
  if (!climb(ctx, layer, factor, &problem, &result)) return;
  factor->found = result.found;
  describe(cv_settings_of(ctx), factor, problem.eig_rank);
  adapt_rank(cv_settings_of(ctx), factor);
}

/* (M + damping I)^-1; damping grows tenfold on each failure, then the previous inverse stays. */
static void refresh_inverse(curvd_ctx *ctx, const cv_layer *layer, cv_factor *factor) {
  enum { TRIES = 4 };
  const cv_settings *s = cv_settings_of(ctx);
  const cv_factor *A = &layer->factor[CV_A], *G = &layer->factor[CV_G];
  int which = factor == A ? CV_A : CV_G;
  double damping = cv_damping_of(s, cv_now(ctx, &s->damping), &A->fresh, &G->fresh, layer->n, layer->m, which);
  cv_error why = {0};
  for (int t = 0; t < TRIES; t++, damping *= 10) {
    float *M = factor->basis;
    for (int64_t i = 0; i < factor->n; i++) {
      memcpy(M + i * factor->ld, factor->average + i * factor->ld, (size_t)(i + 1) * sizeof *M);
      M[i * factor->ld + i] += (float)damping;
    }
    why = (cv_error){0};
    if (cv_spd_inverse(factor->n, M, factor->ld, &why) == CURVD_OK &&
        isfinite(cv_sum_squares(factor->n, factor->n, M, factor->ld))) {
      factor->fresh.is_new = 1;
      factor->fresh.kind = CV_KIND_INVERSE;
      factor->fresh.r = factor->n;
      return;
    }
    ctx->my_events[CURVD_EVENT_RETRIED]++;
  }
  ctx->my_events[CURVD_EVENT_KEPT_PREVIOUS]++;
  cv_log_line(&ctx->log, CV_LOG_WARNING, "layer %s, step %lld: no inverse even with damping %.1e: %s", layer->name,
              (long long)ctx->step, damping, why.text);
}

void cv_refresh_layer(curvd_ctx *ctx, cv_layer *layer, int32_t index) {
  for (int f = 0; f < CV_FACTORS; f++) {
    cv_factor *factor = &layer->factor[f];
    factor->fresh.is_new = 0;
    if (factor->updates == 0) continue;
    if (factor->fresh.trace <= 0) { /* a dead factor: its side is the identity */
      factor->fresh.is_new = 1;
      factor->fresh.kind = CV_KIND_IDENTITY;
      factor->fresh.r = 0;
    } else if (cv_settings_of(ctx)->form == CV_FORM_CHOLESKY) {
      refresh_inverse(ctx, layer, factor);
    } else {
      refresh_eigen(ctx, layer, factor, index);
    }
    ctx->my_events[CURVD_EVENT_REFRESHES] += factor->fresh.is_new;
  }
}
