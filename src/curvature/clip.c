/* The two ends of a direction: gathering gradients into the momentum, and the length of the step. */
#include "curvature/exchange.h"
#include "curvature/internal.h"
#include "linalg/dense.h"

#include <limits.h>
#include <math.h>
#include <string.h>

enum { LANES = 16 };

/* x <- mu x + nu v over one row; returns the sum of squares of the new x, not finite when v is not. */
static double mix_row(int64_t n, float mu, float nu, const float *v, float *x) {
  float sum[LANES] = {0};
  int64_t j = 0;
  for (; j + LANES <= n; j += LANES) {
    for (int l = 0; l < LANES; l++) {
      x[j + l] = mu * x[j + l] + nu * v[j + l];
      sum[l] += x[j + l] * x[j + l];
    }
  }
  double total = 0;
  for (; j < n; j++) {
    x[j] = mu * x[j] + nu * v[j];
    total += (double)x[j] * (double)x[j];
  }
  for (int l = 0; l < LANES; l++) total += sum[l];
  return total;
}

static double gather(const cv_layer *layer, float mu, float nu, const curvd_gradient *g) {
  double squares = 0;
  int64_t cols = cv_gradient_is_joined(layer, g) ? layer->n : layer->d_in;
  for (int64_t i = 0; i < layer->m; i++) {
    float *x = layer->X + i * layer->ldx;
    squares += mix_row(cols, mu, nu, g->weight + i * g->ld, x);
    if (cols < layer->n) squares += mix_row(1, mu, nu, g->bias + i * g->bias_stride, x + layer->d_in);
  }
  return squares;
}

static bool layer_is_finite(const cv_layer *layer, const curvd_gradient *g) {
  double squares = cv_sum_squares(layer->d_out, layer->d_in, g->weight, g->ld);
  for (int64_t i = 0; layer->has_bias && i < layer->d_out; i++) squares += g->bias[i * g->bias_stride];
  return isfinite(squares);
}

/* All workers hold the same sum and come here together; each looks at what it gave to it. */
static curvd_status blame(curvd_ctx *ctx, const cv_layer *layer, const curvd_gradient *own) {
  int64_t who = layer_is_finite(layer, own) ? INT_MAX : ctx->comm.rank;
  if (cv_settings_of(ctx)->grad_reduction != CV_GRAD_NONE) CV_TRY(cv_coll_min(&ctx->comm, who, &who, &ctx->error));
  return cv_fail(&ctx->error, CURVD_ERR_NUMERIC,
                 "layer %s, step %lld: the gradient is not finite (first on rank %lld): lower the learning rate or look at the data",
                 layer->name, (long long)ctx->step, (long long)(who == INT_MAX ? -1 : who));
}

curvd_status cv_clip_gather(curvd_ctx *ctx, const curvd_gradient *gradients) {
  const cv_settings *s = cv_settings_of(ctx);
  double share = s->grad_reduction == CV_GRAD_MEAN ? 1.0 / ctx->comm.n_workers : 1;
  float mu = (float)s->momentum, nu = (float)((1 - s->momentum) * share);
  for (int32_t i = 0; i < ctx->n_layers; i++) {
    cv_layer *layer = &ctx->layer[i];
    curvd_gradient g = cv_exchange_gradient_of(ctx, i, gradients);
    if (isfinite(gather(layer, mu, nu, &g))) continue;
    for (int32_t j = 0; j < ctx->n_layers; j++) { /* averages that a bad gradient has entered start anew */
      memset(ctx->layer[j].X, 0, (size_t)(ctx->layer[j].m * ctx->layer[j].ldx) * sizeof(float));
    }
    return blame(ctx, layer, &gradients[i]);
  }
  return CURVD_OK;
}

static double dot_direction(const cv_layer *layer, const curvd_gradient *g, const curvd_gradient *with) {
  int64_t cols = cv_gradient_is_joined(layer, g) && cv_gradient_is_joined(layer, with) ? layer->n : layer->d_in;
  double sum = cv_dot(layer->m, cols, g->weight, g->ld, with->weight, with->ld);
  for (int64_t i = 0; cols < layer->n && i < layer->m; i++) {
    sum += (double)g->bias[i * g->bias_stride] * (double)with->bias[i * with->bias_stride];
  }
  return sum;
}

static void scale_direction(const cv_layer *layer, const curvd_gradient *g, float scale) {
  int64_t cols = cv_gradient_is_joined(layer, g) ? layer->n : layer->d_in;
  for (int64_t i = 0; i < layer->m; i++) {
    float *row = g->weight + i * g->ld;
    for (int64_t j = 0; j < cols; j++) row[j] *= scale;
    if (cols < layer->n) g->bias[i * g->bias_stride] *= scale;
  }
}

/* One scale for all layers: sqrt(bound / (lr^2 <direction, gradient>)), at most 1. kl-clip takes the absolute value of the sum. */
static double trust_scale(curvd_ctx *ctx, double lr, const curvd_gradient *gradients) {
  const cv_settings *s = cv_settings_of(ctx);
  double sum = 0;
  for (int32_t i = 0; i < ctx->n_layers; i++) {
    cv_layer *layer = &ctx->layer[i];
    curvd_gradient x = {layer->X, layer->ldx, layer->X + layer->d_in, layer->ldx};
    sum += lr * lr * dot_direction(layer, &gradients[i], &x);
  }
  if (s->step == CV_STEP_KL_CLIP) sum = fabs(sum);
  return sum > 0 ? fmin(1, sqrt(s->kl_clip / sum)) : 1;
}

static double layer_scale(const cv_settings *s, double rms) {
  if (!(rms > 0)) return 1;
  return s->step == CV_STEP_NORMALISED ? 1 / rms : fmin(1, s->kl_clip / rms);
}

void cv_clip_directions(curvd_ctx *ctx, double lr, const curvd_gradient *gradients) {
  const cv_settings *s = cv_settings_of(ctx);
  bool is_global = s->step == CV_STEP_KL_CLIP || s->step == CV_STEP_NORM_CONSTRAINT;
  double global = is_global ? trust_scale(ctx, lr, gradients) : 1, least = 1;
  for (int32_t i = 0; i < ctx->n_layers; i++) {
    cv_layer *layer = &ctx->layer[i];
    double squares = dot_direction(layer, &gradients[i], &gradients[i]);
    double rms = sqrt(squares / ((double)layer->m * (double)layer->n));
    double scale = is_global || s->step == CV_STEP_PLAIN ? global : layer_scale(s, rms);
    if (scale != 1) scale_direction(layer, &gradients[i], (float)scale);
    if (s->step != CV_STEP_NORMALISED) least = fmin(least, scale);
    layer->direction_rms = rms * scale;
  }
  ctx->clip_scale = least;
  if (least < 1) ctx->my_events[CURVD_EVENT_CLIPPED]++;
}
