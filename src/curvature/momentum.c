/* Gathering the combined gradients into X, averaged over steps. */
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
    float *x = layer->own + i * layer->ld;
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
  if (who == INT_MAX) {
    return cv_fail(&ctx->error, CURVD_ERR_NUMERIC,
                   "layer %s, step %lld: the combined gradient is too large for its squares: lower the learning rate",
                   layer->name, (long long)ctx->step);
  }
  return cv_fail(
      &ctx->error, CURVD_ERR_NUMERIC,
      "layer %s, step %lld: the gradient of rank %lld is not finite: lower the learning rate or look at the data",
      layer->name, (long long)ctx->step, (long long)who);
}

/* A bad gradient has entered the averages. */
static void start_anew(curvd_ctx *ctx) {
  for (int32_t i = 0; i < ctx->n_layers; i++) {
    cv_layer *layer = &ctx->layer[i];
    if (layer->own) memset(layer->own, 0, (size_t)(layer->m * layer->ld) * sizeof(float));
  }
}

/* With nothing to average or to scale, X is the gradient where it lies; otherwise it is gathered into own. */
static void take(cv_layer *layer, float mu, float nu, const curvd_gradient *g) {
  bool is_plain = mu == 0 && nu == 1 && cv_gradient_is_joined(layer, g);
  if (mu == 0 && !is_plain) memset(layer->own, 0, (size_t)(layer->m * layer->ld) * sizeof(float)); /* 0 * NaN is NaN */
  layer->X = is_plain ? g->weight : layer->own;
  layer->ldx = is_plain ? g->ld : layer->ld;
  layer->squares_x = is_plain ? cv_sum_squares_f32(layer->m, layer->n, g->weight, g->ld) : gather(layer, mu, nu, g);
}

curvd_status cv_momentum_gather(curvd_ctx *ctx, const curvd_gradient *gradients) {
  const cv_settings *s = cv_settings_of(ctx);
  double share = s->grad_reduction == CV_GRAD_MEAN ? 1.0 / ctx->comm.n_workers : 1, mu = cv_momentum_here(s);
  int64_t bad = ctx->n_layers;
  for (int32_t i = 0; i < ctx->n_layers; i++) {
    cv_layer *layer = &ctx->layer[i];
    if (!cv_shard_applies(ctx, layer)) continue;
    curvd_gradient g = cv_exchange_gradient_of(ctx, i, gradients);
    take(layer, (float)mu, (float)((1 - mu) * share), &g);
    if (!isfinite(layer->squares_x) && bad == ctx->n_layers) bad = i;
  }
  if (ctx->shards.count) CV_TRY(cv_coll_min(&ctx->comm, bad, &bad, &ctx->error)); /* one worker has seen it */
  if (bad == ctx->n_layers) return CURVD_OK;
  start_anew(ctx);
  return blame(ctx, &ctx->layer[bad], &gradients[bad]);
}
