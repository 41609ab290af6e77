/* From a refreshed pair of factors to a direction: damping, the spectral table, and the two halves of pair.h. */
#include "curvature/internal.h"
#include "linalg/dense.h"

#include <math.h>

static double mean_eigenvalue(const cv_factor_state *state, int64_t n) {
  return state->trace / (double)n;
}

/* pi of factored Tikhonov by the trace norm; 1 where a factor is zero, kept within the bound. */
static double pi_of(const cv_settings *s, double mean_a, double mean_g) {
  if (!(mean_a > 0) || !(mean_g > 0)) return 1;
  return fmin(fmax(sqrt(mean_a / mean_g), 1 / s->pi_bound), s->pi_bound);
}

double cv_damping_of(const cv_settings *s, double damping, const cv_factor_state *A, const cv_factor_state *G,
                     int64_t n, int64_t m, int which) {
  const cv_factor_state *state = which == CV_A ? A : G;
  double mean_a = mean_eigenvalue(A, n), mean_g = mean_eigenvalue(G, m), pi;
  switch ((cv_damping_mode)s->damping_mode) {
  case CV_DAMPING_RELATIVE_MEAN:
    return damping * (which == CV_A ? mean_a : mean_g) + state->extra_damping;
  case CV_DAMPING_RELATIVE_MAX:
    return damping * state->lambda_max + state->extra_damping;
  case CV_DAMPING_PI:
    pi = pi_of(s, mean_a, mean_g);
    return sqrt(damping) * (which == CV_A ? pi : 1 / pi) + state->extra_damping;
  case CV_DAMPING_PRODUCT_MAX:
    return damping * A->lambda_max * G->lambda_max;
  case CV_DAMPING_SCALAR:
    break;
  }
  return damping;
}

bool cv_precond_has_pair(const curvd_ctx *ctx, const cv_layer *layer) {
  return !layer->is_factored || cv_clip_needs_dot(cv_settings_of(ctx));
}

/* A factored layer's table is that of the inverse: all that its clip asks for. */
static curvd_status make_table(const curvd_ctx *ctx, cv_layer *layer, cv_error *why) {
  const cv_settings *s = cv_settings_of(ctx);
  const cv_factor *A = &layer->factor[CV_A], *G = &layer->factor[CV_G];
  double sign = layer->is_factored ? -1 : 1;
  cv_spectral f = {.is_joint = s->damping_mode == CV_DAMPING_SCALAR || s->damping_mode == CV_DAMPING_PRODUCT_MAX,
                   .damping_g = G->applied.damping,
                   .damping_a = A->applied.damping,
                   .damping_joint = A->applied.damping,
                   .exponent_g = sign * s->exponent_g,
                   .exponent_a = sign * s->exponent_a,
                   .identity_g = G->applied.state.kind == CV_KIND_IDENTITY,
                   .identity_a = A->applied.state.kind == CV_KIND_IDENTITY};
  if (layer->is_factored) CV_TRY(cv_factored_make(ctx, layer, why));
  return layer->H != NULL ? cv_spectral_table(&f, &G->applied.side, &A->applied.side, layer->H, why) : CURVD_OK;
}

/* Only when a refresh came or the damping changed. */
curvd_status cv_precond_damp(curvd_ctx *ctx, cv_layer *layer) {
  const cv_settings *s = cv_settings_of(ctx);
  double damping = cv_now(ctx, &s->damping);
  if (!layer->table_is_due && damping == layer->table_damping) return CURVD_OK;
  cv_factor *A = &layer->factor[CV_A], *G = &layer->factor[CV_G];
  A->applied.damping = cv_damping_of(s, damping, &A->applied.state, &G->applied.state, layer->n, layer->m, CV_A);
  G->applied.damping = cv_damping_of(s, damping, &A->applied.state, &G->applied.state, layer->n, layer->m, CV_G);
  layer->table_damping = damping;
  layer->table_is_due = false;
  if (s->form == CV_FORM_CHOLESKY) return CURVD_OK; /* the owner has damped it */
  cv_error why = {0};
  if (make_table(ctx, layer, &why) == CURVD_OK) return CURVD_OK;
  layer->table_is_due = true;
  return cv_fail(&ctx->error, CURVD_ERR_NUMERIC, "layer %s: %s", layer->name, why.text);
}

/* G^-1 X A^-1 with dense inverses; an identity side is left out. */
static void apply_inverses(curvd_ctx *ctx, cv_layer *layer, float *out, int64_t ldo) {
  const cv_factor *A = &layer->factor[CV_A], *G = &layer->factor[CV_G];
  const float *X = layer->X;
  int64_t m = layer->m, n = layer->n, ldx = layer->ldx;
  if (G->applied.state.kind == CV_KIND_INVERSE) {
    cv_multiply(&ctx->apply_by, CV_N, CV_N, m, n, m, 1, G->applied.inverse, G->ld, X, ldx, 0, ctx->plane, layer->ld);
    X = ctx->plane, ldx = layer->ld;
  }
  if (A->applied.state.kind == CV_KIND_INVERSE) {
    cv_multiply(&ctx->apply_by, CV_N, CV_N, m, n, n, 1, X, ldx, A->applied.inverse, A->ld, 0, out, ldo);
  } else {
    cv_copy_rows(m, n, X, ldx, out, ldo);
  }
}

static cv_pair pair_of(curvd_ctx *ctx, cv_layer *layer) {
  return (cv_pair){&layer->factor[CV_G].applied.side,
                   &layer->factor[CV_A].applied.side,
                   layer->H,
                   ctx->plane,
                   ctx->core,
                   &ctx->apply_by};
}

static cv_pair_sums measure(const cv_layer *layer, const float *out, int64_t ldo) {
  return (cv_pair_sums){cv_sum_squares(layer->m, layer->n, out, ldo),
                        cv_dot(layer->m, layer->n, out, ldo, layer->X, layer->ldx), true, true};
}

curvd_status cv_precond_project(curvd_ctx *ctx, cv_layer *layer, float *out, int64_t ldo, cv_pair_sums *sums) {
  CV_TRY(cv_precond_damp(ctx, layer));
  if (cv_settings_of(ctx)->form == CV_FORM_CHOLESKY) {
    apply_inverses(ctx, layer, out, ldo);
    *sums = measure(layer, out, ldo);
    return CURVD_OK;
  }
  cv_pair pair = pair_of(ctx, layer);
  bool has_projections = cv_follow_take(ctx, layer, &pair);
  *sums = cv_pair_project(&pair, layer->X, layer->ldx, layer->squares_x, has_projections ? layer->P : NULL,
                          has_projections ? layer->R : NULL, out, ldo);
  if (sums->is_certain) return CURVD_OK;
  if (!sums->is_written) cv_pair_expand(&pair, 1, layer->X, layer->ldx, 0, out, ldo);
  *sums = measure(layer, out, ldo);
  return CURVD_OK;
}

void cv_precond_expand(curvd_ctx *ctx, cv_layer *layer, float scale, float keep, float *out, int64_t ldo) {
  cv_pair pair = pair_of(ctx, layer);
  cv_pair_expand(&pair, scale, layer->X, layer->ldx, keep, out, ldo);
}
