/* The store of online low-rank updates (linalg/brand.h): eigenpairs that every statistic updates as it comes, so that a
 * refresh has nothing to decompose. Puiu 2022 (arXiv:2210.08494):
 *   b-kfac      nothing else: linear in the layer's width, but what truncation drops is lost
 *   b-r-kfac    the running average beside it, decomposed anew in every online_renew-th refresh
 *   b-r-c-kfac  and in every online_correct-th one a Rayleigh-Ritz step with it on some of the pairs
 * Statistics come as rows; a factor that is decomposed exactly is not kept so. */
#include "base/order.h"
#include "curvature/carrier.h"
#include "curvature/store.h"
#include "linalg/dense.h"

#include <math.h>

static bool has_average(const curvd_ctx *ctx) {
  return cv_settings_of(ctx)->method != CV_METHOD_B;
}

static void size(const curvd_ctx *ctx, cv_factor *factor) {
  (void)ctx;
  factor->own.online = (cv_brand){.n = factor->n, .r_max = factor->k_max, .ld = factor->own.ld};
}

static int arrays(const curvd_ctx *ctx, cv_factor *factor, cv_array list[CV_ARRAYS_MAX]) {
  return has_average(ctx) ? cv_store_full.arrays(ctx, factor, list) : cv_pairs_arrays(factor, list);
}

static cv_eig_scratch scratch(const curvd_ctx *ctx, const cv_factor *factor) {
  cv_eig_scratch a = cv_brand_scratch(factor->n, factor->k_max, cv_brand_block(factor->k_max)), b = {0};
  if (has_average(ctx)) b = cv_store_full.scratch(ctx, factor);
  return (cv_eig_scratch){cv_larger(a.floats, b.floats), cv_larger(a.doubles, b.doubles), cv_larger(a.ints, b.ints)};
}

/* All of an identity lies outside the kept pairs. */
static void begin_with_identity(const curvd_ctx *ctx, cv_factor *factor) {
  factor->own.online.trace = (double)factor->n;
  factor->own.online.error_bound = 1;
  if (has_average(ctx)) cv_store_full.begin_with_identity(ctx, factor);
}

static curvd_status mix(curvd_ctx *ctx, cv_factor *factor, cv_weights w, const float *wire, cv_error *why) {
  (void)ctx, (void)factor, (void)w, (void)wire;
  return cv_fail(why, CURVD_ERR_STATE, "online updates need rows: carrier columns or local");
}

/* None of the pairs is left: all of the average is error, which its trace bounds. The next updates build them anew. */
static void forget_pairs(cv_brand *state) {
  state->r = 0;
  state->error_bound = state->trace;
  state->is_corrected = false;
}

/* The pairs live where a refresh would put them. */
static cv_brand *state_of(cv_factor *factor) {
  factor->own.online.U = factor->own.basis;
  factor->own.online.D = factor->own.eigenvalues;
  return &factor->own.online;
}

static curvd_status add_rows(curvd_ctx *ctx, cv_factor *factor, cv_weights w, int64_t rows, const float *X, int64_t ldx,
                             cv_error *why) {
  cv_brand *state = state_of(factor);
  cv_brand_rows x = {rows, ldx, X, false, w.keep, w.add, cv_brand_block(factor->k_max)};
  cv_brand_result result = {0};
  curvd_status status = cv_brand_update(state, &x, &ctx->eig_work, &result, why);
  if (status == CURVD_OK) {
    factor->own.last.orthogonality = result.orthogonality;
  } else { /* pairs may hold anything */
    state->trace = w.keep * state->trace + w.add * cv_sum_squares(rows, factor->n, X, ldx);
    forget_pairs(state);
  }
  if (!has_average(ctx)) return status;
  curvd_status other = cv_store_full.add_rows(ctx, factor, w, rows, X, ldx, why);
  return status == CURVD_OK ? other : status;
}

static double tau_of(const cv_settings *s, const cv_factor *factor, int64_t kept, double rest) {
  if (s->tail == CV_TAIL_ZERO || kept == factor->n) return 0;
  if (s->tail == CV_TAIL_MIN) return kept > 0 ? factor->own.eigenvalues[kept - 1] : 0;
  return rest > 0 ? rest / (double)(factor->n - kept) : 0;
}

/* Of the spectral norm of what the kept pairs and tau leave of the average. Updates leave 0 <= E <= error_bound, a
 * correction |E| <= error_bound; dropped pairs add to E, and tau takes from it. */
static double error_bound_of(const cv_factor *factor, int64_t kept, double tau) {
  const cv_brand *state = &factor->own.online;
  double above = state->error_bound + (kept < state->r ? factor->own.eigenvalues[kept] : 0),
         below = tau + (state->is_corrected ? state->error_bound : 0);
  return fmax(above, below);
}

/* Those of the schedule, or the fewest that leave no more than missing_trace: pairs that are not kept cost nothing
 * here, and may be next time. */
static int64_t kept_of(const curvd_ctx *ctx, const cv_factor *factor) {
  const cv_settings *s = cv_settings_of(ctx);
  const cv_brand *state = &factor->own.online;
  int64_t kept = 0, most = cv_smaller(s->eig_rank_max, state->r);
  double rest = state->trace;
  if (s->missing_trace == 0) return cv_smaller((int64_t)cv_now(ctx, &s->eig_rank), state->r);
  while (kept < most && (kept < s->eig_rank_min || rest > s->missing_trace * state->trace))
    rest -= factor->own.eigenvalues[kept++];
  return kept;
}

/* What a solve would tell, as far as it is known. */
static void describe_pairs(curvd_ctx *ctx, cv_factor *factor) {
  const cv_settings *s = cv_settings_of(ctx);
  const cv_brand *state = &factor->own.online;
  cv_eig_result *last = &factor->own.last;
  double orthogonality = last->orthogonality, rest = state->trace;
  int64_t kept = kept_of(ctx, factor);
  for (int64_t i = 0; i < kept; i++) rest -= factor->own.eigenvalues[i];
  *last = (cv_eig_result){.found = state->r,
                          .kept = kept,
                          .trace = state->trace,
                          .missing_trace = rest > 0 ? rest / state->trace : 0,
                          .tau = tau_of(s, factor, kept, rest),
                          .orthogonality = orthogonality};
  last->error_bound = error_bound_of(factor, kept, last->tau);
}

/* A whole decomposition of the average takes the pairs' place. false: it was skipped, as they still fit, or failed, and
 * has spoilt them. */
static bool renew(curvd_ctx *ctx, const cv_layer *layer, cv_factor *factor, int32_t index) {
  cv_brand *state = state_of(factor);
  factor->own.last.found = state->r; /* updates have come since the last refresh */
  factor->own.last.kept = cv_smaller(factor->own.last.kept, state->r);
  if (!cv_store_full.solve(ctx, layer, factor, index)) {
    if (factor->own.last.found == 0) forget_pairs(state);
    return false;
  }
  state->r = factor->own.last.found;
  state->trace = factor->own.fresh.trace;
  state->error_bound = factor->own.last.error_bound + factor->own.last.tau; /* the former is of what tau leaves */
  state->is_corrected = false;
  return true;
}

static void correct(curvd_ctx *ctx, const cv_layer *layer, cv_factor *factor, int32_t index) {
  const cv_settings *s = cv_settings_of(ctx);
  int which = factor == &ctx->layer[index].factor[CV_A] ? CV_A : CV_G;
  cv_rng key = {(uint64_t)s->seed, CV_RNG_SKETCH, (uint32_t)(2 * index + which), (uint32_t)ctx->step};
  int64_t corrected = 0;
  cv_error why = {0};
  cv_mirror(factor->n, factor->own.average, factor->own.ld);
  if (cv_brand_correct(state_of(factor), factor->own.average, factor->own.ld, s->online_share, key,
                       cv_brand_block(factor->k_max), &ctx->eig_work, &corrected, &why) != CURVD_OK)
    cv_solve_tell(ctx, layer, factor, "correction", &why);
}

static bool is_turn(const cv_factor *factor, int64_t every) {
  return every > 0 && factor->own.refreshes % every == every - 1;
}

static bool solve(curvd_ctx *ctx, const cv_layer *layer, cv_factor *factor, int32_t index) {
  const cv_settings *s = cv_settings_of(ctx);
  bool is_renewed = has_average(ctx) && is_turn(factor, s->online_renew),
       is_corrected = s->method == CV_METHOD_BRC && is_turn(factor, s->online_correct);
  cv_error why = {0};
  factor->own.refreshes++;
  if (is_renewed && renew(ctx, layer, factor, index)) return true;
  if (is_corrected && factor->own.online.r > 0) correct(ctx, layer, factor, index);
  if (factor->own.online.r == 0) return false;
  describe_pairs(ctx, factor);
  if (cv_solve_check(factor, &factor->own.last, &why) == CURVD_OK) return true;
  cv_solve_tell(ctx, layer, factor, "online", &why);
  cv_count(ctx, layer, CURVD_EVENT_KEPT_PREVIOUS);
  return false;
}

const cv_store cv_store_online = {"online", size, arrays, NULL, scratch, begin_with_identity, mix, add_rows, solve};
