/* The length of the step: three clips of the literature, the normalised step, or none.
 *   kl-clip          nu = min(1, sqrt(bound / |sum over layers of lr^2 <direction, gradient>|))   [kfac-pytorch]
 *   norm-constraint  the same without the absolute value                                          [kfac-jax]
 *   rms-clip         per layer min(1, bound / rms(direction))                                     [RS-KFAC]
 *   normalised       per layer 1 / rms(direction)
 * With momentum before preconditioning, the averaged gradient stands for the gradient; where rows are preconditioned
 * and momentum comes after, what the preconditioner in force would make the direction from. */
#include "curvature/internal.h"

#include <math.h>

static double trust_scale(const curvd_ctx *ctx, double lr) {
  const cv_settings *s = cv_settings_of(ctx);
  double sum = 0;
  for (int32_t i = 0; i < ctx->n_layers; i++) sum += lr * lr * ctx->layer[i].sums.dot;
  if (s->step == CV_STEP_KL_CLIP) sum = fabs(sum);
  return sum > 0 ? fmin(1, sqrt(s->kl_clip / sum)) : 1;
}

static double layer_scale(const cv_settings *s, double rms) {
  if (!(rms > 0)) return 1;
  return s->step == CV_STEP_NORMALISED ? 1 / rms : fmin(1, s->kl_clip / rms);
}

void cv_clip_scales(curvd_ctx *ctx, double lr) {
  const cv_settings *s = cv_settings_of(ctx);
  bool is_global = cv_clip_needs_dot(s);
  double global = is_global ? trust_scale(ctx, lr) : 1, least = 1;
  for (int32_t i = 0; i < ctx->n_layers; i++) {
    cv_layer *layer = &ctx->layer[i];
    double rms = sqrt(layer->sums.squares / ((double)layer->m * (double)layer->n));
    layer->scale = is_global || s->step == CV_STEP_PLAIN ? global : layer_scale(s, rms);
    layer->direction_rms = rms * layer->scale;
    if (s->step != CV_STEP_NORMALISED) least = fmin(least, layer->scale);
  }
  ctx->clip_scale = least;
  if (least < 1) ctx->my_events[CURVD_EVENT_CLIPPED]++;
}
