/* The factored way to apply: P (g^T [a 1]) = (P_G g)^T (P_A [a 1]), so each worker preconditions its own rows before
 * they make a gradient, at 4 rows (m r_G + n r_A) flops where the replicated way takes 4 m n (r_G + r_A); what workers
 * sum is the direction. Linear, so it is the same update, but where momentum comes before preconditioning. */
#include "curvature/exchange.h"
#include "curvature/internal.h"
#include "linalg/dense.h"

static curvd_status make_side(const cv_multiplier *by, double exponent, cv_applied *applied, cv_error *why) {
  return cv_lrps_rows_make(&applied->side, applied->state.kind == CV_KIND_IDENTITY, applied->damping, exponent, by,
                           applied->kept, applied->packed, &applied->function, why);
}

curvd_status cv_factored_make(const curvd_ctx *ctx, cv_layer *layer, cv_error *why) {
  const cv_settings *s = cv_settings_of(ctx);
  CV_TRY(make_side(&ctx->apply_by, s->exponent_g, &layer->factor[CV_G].applied, why));
  return make_side(&ctx->apply_by, s->exponent_a, &layer->factor[CV_A].applied, why);
}

curvd_status cv_factored_precondition(curvd_ctx *ctx, cv_layer *layer, int64_t rows, const float *a, int64_t lda,
                                      const float *g, int64_t ldg, float scale, float keep, const curvd_gradient *to) {
  bool is_joined = cv_gradient_is_joined(layer, to);
  float *out = is_joined ? to->weight : ctx->scatter;
  int64_t ldo = is_joined ? to->ld : layer->ld;
  cv_error why = {0};
  CV_TRY(cv_precond_damp(ctx, layer));
  if (cv_lrps_rows_direction(&layer->factor[CV_G].applied.function, &layer->factor[CV_A].applied.function, rows, g, ldg,
                             a, lda, layer->has_bias, scale, is_joined ? keep : 0, out, ldo, ctx->rows_work,
                             &why) != CURVD_OK)
    return cv_fail(&ctx->error, CURVD_ERR_NUMERIC, "layer %s: %s", layer->name, why.text);
  if (is_joined) return CURVD_OK;
  curvd_gradient made = {.weight = out, .ld = ldo, .bias = out + layer->d_in, .bias_stride = ldo};
  cv_gradient_mix(layer, 1, &made, keep, to);
  return CURVD_OK;
}
