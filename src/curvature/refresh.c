/* New preconditioners from running averages. Certificates (linalg/certify.h) drive it: how many pairs are kept, how
 * many products are spent, and whether the old pairs still do. */
#include "base/order.h"
#include "curvature/rounding.h"
#include "curvature/store.h"
#include "linalg/dense.h"

#include <math.h>
#include <string.h>

/* Wanted pairs of this refresh: the schedule's, or the adaptive rank. */
static int64_t wanted_rank(curvd_ctx *ctx, cv_factor *factor) {
  const cv_settings *s = cv_settings_of(ctx);
  int64_t scheduled = (int64_t)cv_now(ctx, &s->eig_rank);
  if (factor->is_full) return factor->n;
  if (s->missing_trace == 0) return cv_smaller(scheduled, factor->k_max);
  if (factor->own.eig_rank == 0) factor->own.eig_rank = scheduled;
  factor->own.eig_rank =
      cv_smaller(cv_smaller(cv_larger(factor->own.eig_rank, s->eig_rank_min), s->eig_rank_max), factor->k_max);
  return factor->own.eig_rank;
}

/* The next refresh begins with what this one kept; with half as much again where that left too much of the trace. */
static void adapt_rank(const cv_settings *s, cv_factor *factor) {
  if (s->missing_trace == 0 || factor->is_full) return;
  factor->own.eig_rank = factor->own.last.kept;
  if (factor->own.last.missing_trace > s->missing_trace) factor->own.eig_rank += (factor->own.eig_rank + 1) / 2;
}

static cv_eig_method eig_method_of(const cv_settings *s) {
  switch ((cv_method_kind)s->method) {
  case CV_METHOD_RS:
    return CV_EIG_RSVD;
  case CV_METHOD_SRE:
    return CV_EIG_SRE;
  case CV_METHOD_NYSTROM:
  case CV_METHOD_B:
  case CV_METHOD_BR:
  case CV_METHOD_BRC:
  case CV_METHOD_KFAC:
  case CV_METHOD_NONE:
    break;
  }
  return s->range_finder == CV_RANGE_KRYLOV ? CV_EIG_KRYLOV : CV_EIG_NYSTROM;
}

static cv_eig_problem problem_of(curvd_ctx *ctx, const cv_layer *layer, cv_factor *factor, int32_t index) {
  const cv_settings *s = cv_settings_of(ctx);
  bool is_warm = s->warm_start && factor->own.last.found > 0;
  int64_t rank = wanted_rank(ctx, factor),
          over = cv_smaller(cv_oversampling(cv_now(ctx, &s->oversampling), rank, false), factor->k_max - rank);
  int which = factor == &layer->factor[CV_A] ? CV_A : CV_G;
  return (cv_eig_problem){.n = factor->n,
                          .grid = factor->is_spread ? &ctx->grid : NULL,
                          .M = factor->own.average,
                          .ld = factor->own.ld,
                          .method = eig_method_of(s),
                          .eig_rank = rank,
                          .oversampling = over,
                          .k_max = factor->k_max,
                          .tolerance = factor->is_full ? 0 : s->missing_trace,
                          .kept_min = cv_smaller(s->eig_rank_min, factor->k_max),
                          .kept_max = cv_smaller(s->eig_rank_max, factor->k_max),
                          .power_iters = (int64_t)cv_now(ctx, is_warm ? &s->warm_power_iters : &s->power_iters),
                          .settle = s->drift_max,
                          .products_more = s->drift_products,
                          .orthonormalise = (cv_orthonormalise)s->orthonormalise,
                          .tail = (cv_tail)s->tail,
                          .n_start = is_warm ? cv_smaller(factor->own.last.found, rank + over) : 0,
                          .key = {(uint64_t)s->seed, CV_RNG_SKETCH, (uint32_t)(2 * index + which), (uint32_t)ctx->step},
                          .by = cv_refresh_by(ctx, factor)};
}

static void describe(cv_factor *factor) {
  const cv_eig_result *r = &factor->own.last;
  cv_factor_state *fresh = &factor->own.fresh;
  fresh->is_new = 1;
  fresh->kind = CV_KIND_EIGEN;
  fresh->r = r->kept;
  fresh->rows = factor->seeds_workers ? factor->k_max : r->kept;
  fresh->lambda_max = r->kept > 0 ? factor->own.eigenvalues[0] : 0;
  fresh->lambda_min = r->kept > 0 ? factor->own.eigenvalues[r->kept - 1] : 0;
  fresh->tau = r->tau;
  fresh->kept_sum = 0;
  for (int64_t i = 0; i < r->kept; i++) fresh->kept_sum += (double)factor->own.eigenvalues[i];
  fresh->missing_trace = r->missing_trace;
  fresh->error_bound = r->error_bound;
  fresh->error_norm = r->error_norm;
  fresh->residual = r->residual;
  fresh->orthogonality = r->orthogonality;
  fresh->drift = r->drift;
  fresh->products = r->products;
  fresh->seconds = r->seconds;
}

static double norm_of(int64_t r, const float *D) {
  double sum = 0;
  for (int64_t i = 0; i < r; i++) sum += (double)D[i] * D[i];
  return sqrt(sum);
}

/* Do the pairs in force still fit the average? Costs products of a few random vectors. */
static bool still_fits(curvd_ctx *ctx, cv_factor *factor, const cv_eig_problem *problem) {
  double allowed = cv_settings_of(ctx)->skip_error * norm_of(factor->own.last.kept, factor->own.eigenvalues);
  cv_eig_result now = factor->own.last;
  cv_error why = {0};
  if (allowed == 0 || factor->own.last.found == 0) return false;
  curvd_status status =
      cv_solver_of(ctx, factor)
          ->check(problem, &ctx->eig_work, factor->own.basis, factor->own.ld, factor->own.eigenvalues, &now, &why);
  return status == CURVD_OK && now.error_norm <= factor->own.last.error_norm + allowed;
}

/* ---- the store of whole averages: (n, mine), lower triangle (spread: upper) ---- */

static void size(const curvd_ctx *ctx, cv_factor *factor) {
  (void)ctx, (void)factor;
}

static int arrays(const curvd_ctx *ctx, cv_factor *factor, cv_array list[CV_ARRAYS_MAX]) {
  (void)ctx;
  list[0] = (cv_array){&factor->own.average, factor->n * factor->own.ld, "average", CV_ARRAY_SYMMETRIC};
  return 1 + cv_pairs_arrays(factor, list + 1);
}

/* A spread average is mirrored in the solver's floats. */
static cv_eig_scratch scratch(const curvd_ctx *ctx, const cv_factor *factor) {
  cv_eig_scratch need =
      cv_solver_of(ctx, factor)->scratch(factor->n, factor->k_max, factor->is_spread ? &ctx->grid : NULL);
  if (factor->is_spread) need.floats = cv_larger(need.floats, factor->n * 2 * CV_GRID_BLOCK);
  return need;
}

/* This rank's ones. */
static void begin_with_identity(const curvd_ctx *ctx, cv_factor *factor) {
  cv_cyclic piece = cv_spread_piece(ctx, factor, cv_comm_my_owner(&ctx->comm));
  for (int64_t i = 0; i < factor->own.cols; i++)
    factor->own.average[cv_cyclic_global(&piece, i) * factor->own.ld + i] = 1;
}

/* The sum's packed triangle. */
static curvd_status mix(curvd_ctx *ctx, cv_factor *factor, cv_weights w, const float *wire, cv_error *why) {
  float keep = (float)w.keep, add = (float)w.add;
  (void)ctx, (void)why;
  for (int64_t i = 0; i < factor->n; wire += ++i) {
    float *row = factor->own.average + i * factor->own.ld;
    for (int64_t j = 0; j <= i; j++) row[j] = keep * row[j] + add * wire[j];
  }
  return CURVD_OK;
}

/* Rows 0 .. end - 1 of each block of this rank's columns. */
static void add_rows_to_piece(const curvd_ctx *ctx, const cv_multiplier *by, cv_factor *factor, cv_weights w,
                              int64_t rows, const float *X, int64_t ldx) {
  cv_cyclic piece = cv_spread_piece(ctx, factor, cv_comm_my_owner(&ctx->comm));
  for (int64_t local = 0, width; local < factor->own.cols; local += width) {
    int64_t begin = cv_cyclic_global(&piece, local);
    width = cv_cyclic_run(&piece, local);
    cv_multiply(by, CV_T, CV_N, begin + width, width, rows, (float)w.add, X, ldx, X + begin, ldx, (float)w.keep,
                factor->own.average + local, factor->own.ld);
  }
}

static curvd_status add_rows(curvd_ctx *ctx, cv_factor *factor, cv_weights w, int64_t rows, const float *X, int64_t ldx,
                             cv_error *why) {
  const cv_eig_result *last = &factor->own.last; /* the same on all owners, as X is */
  double missed = last->found > 0 ? last->error_norm / last->trace : 0;
  const cv_multiplier *by = cv_rounding_by(ctx, factor, missed, &(cv_rows){rows, ldx, X, false, 1});
  (void)why;
  if (factor->is_spread) {
    add_rows_to_piece(ctx, by, factor, w, rows, X, ldx);
    return CURVD_OK;
  }
  cv_multiply_gram(by, factor->n, rows, (float)w.add, X, ldx, (float)w.keep, factor->own.average, factor->own.ld);
  return CURVD_OK;
}

static bool solve(curvd_ctx *ctx, const cv_layer *layer, cv_factor *factor, int32_t index) {
  cv_eig_problem problem = problem_of(ctx, layer, factor, index);
  cv_error why = {0};
  if (!factor->is_spread) {
    cv_mirror(factor->n, factor->own.average, factor->own.ld);
  } else if (cv_grid_mirror(&ctx->grid, factor->n, factor->own.average, factor->own.ld, ctx->eig_work.floats, &why) !=
             CURVD_OK) {
    cv_solve_tell(ctx, layer, factor, "mirror", &why);
    return false;
  }
  if (still_fits(ctx, factor, &problem)) {
    cv_count(ctx, layer, CURVD_EVENT_SKIPPED);
    return false;
  }
  if (!cv_solve(ctx, layer, factor, &problem)) return false;
  adapt_rank(cv_settings_of(ctx), factor);
  return true;
}

const cv_store cv_store_full = {"full", size, arrays, NULL, scratch, begin_with_identity, mix, add_rows, solve};

/* ---- a refresh ---- */

/* (M + damping I)^-1; damping grows tenfold on each failure, then the previous inverse stays. */
static void refresh_inverse(curvd_ctx *ctx, const cv_layer *layer, cv_factor *factor) {
  enum { TRIES = 4 };
  const cv_settings *s = cv_settings_of(ctx);
  const cv_factor *A = &layer->factor[CV_A], *G = &layer->factor[CV_G];
  int which = factor == A ? CV_A : CV_G;
  double damping = cv_damping_of(s, cv_now(ctx, &s->damping), &A->own.fresh, &G->own.fresh, layer->n, layer->m, which);
  cv_error why = {0};
  for (int t = 0; t < TRIES; t++, damping *= 10) {
    float *M = factor->own.basis;
    for (int64_t i = 0; i < factor->n; i++) {
      memcpy(M + i * factor->ld, factor->own.average + i * factor->ld, (size_t)(i + 1) * sizeof *M);
      M[i * factor->ld + i] += (float)damping;
    }
    why = (cv_error){0};
    if (cv_spd_inverse(factor->n, M, factor->ld, &why) == CURVD_OK &&
        isfinite(cv_sum_squares(factor->n, factor->n, M, factor->ld))) {
      factor->own.fresh.is_new = 1;
      factor->own.fresh.kind = CV_KIND_INVERSE;
      factor->own.fresh.r = factor->n;
      return;
    }
    ctx->my_events[CURVD_EVENT_RETRIED]++;
  }
  ctx->my_events[CURVD_EVENT_KEPT_PREVIOUS]++;
  cv_log_line(&ctx->log, CV_LOG_WARNING, "layer %s, step %lld: no inverse even with damping %.1e: %s", layer->name,
              (long long)ctx->step, damping, why.text);
}

bool cv_refresh_begin(cv_factor *factor) {
  factor->own.fresh.is_new = 0;
  if (factor->own.updates == 0) return false;
  if (!(factor->own.fresh.trace <= 0)) return true; /* not a number: the solver tells */
  factor->own.fresh.is_new = 1;                     /* a dead factor: its side is the identity */
  factor->own.fresh.kind = CV_KIND_IDENTITY;
  factor->own.fresh.r = 0;
  factor->own.last.found = 0;
  return false;
}

static void refresh_factor(curvd_ctx *ctx, const cv_layer *layer, cv_factor *factor, int32_t index) {
  if (cv_refresh_begin(factor)) {
    if (cv_settings_of(ctx)->form == CV_FORM_CHOLESKY) {
      refresh_inverse(ctx, layer, factor);
    } else if (factor->store->solve(ctx, layer, factor, index)) {
      describe(factor);
    }
  }
  if (factor->own.fresh.is_new) cv_count(ctx, layer, CURVD_EVENT_REFRESHES);
}

void cv_refresh_layer(curvd_ctx *ctx, cv_layer *layer, int32_t index) {
  int me = cv_comm_my_owner(&ctx->comm);
  for (int f = 0; f < CV_FACTORS; f++) {
    if (cv_holds_factor(layer, &layer->factor[f], me)) refresh_factor(ctx, layer, &layer->factor[f], index);
  }
}
