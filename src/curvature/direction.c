/* Where directions go: from X to the caller's gradients or parameters, in whatever layout these have. */
#include "curvature/exchange.h"
#include "curvature/internal.h"
#include "curvature/method.h"

static curvd_gradient matrix(float *X, int64_t ld, const cv_layer *layer) {
  return (curvd_gradient){.weight = X, .ld = ld, .bias = X + layer->d_in, .bias_stride = ld};
}

/* The caller's memory as one (m, n) matrix, or scatter when its bias lies apart. */
static curvd_gradient whole(const curvd_ctx *ctx, const cv_layer *layer, const curvd_gradient *g) {
  return cv_gradient_is_joined(layer, g) ? *g : matrix(ctx->scatter, layer->ld, layer);
}

/* The parameters in the layout of their gradient. */
static curvd_gradient parameter_of(const curvd_gradient *g) {
  return (curvd_gradient){
      .weight = g->parameter, .ld = g->ld, .bias = g->parameter_bias, .bias_stride = g->bias_stride};
}

/* Where a direction that is made at once waits for its scale: own, or, while own is the momentum, the caller's
 * gradient. */
static curvd_gradient waiting_place(const curvd_ctx *ctx, const cv_layer *layer, const curvd_gradient *g) {
  return cv_momentum_here(cv_settings_of(ctx)) > 0 ? *g : matrix(layer->own, layer->ld, layer);
}

/* X is the direction; what it was made from, for a clip that asks, is P^-1 X. */
static curvd_status measure_factored(curvd_ctx *ctx, cv_layer *layer) {
  cv_pair_sums inverse;
  if (!cv_clip_needs_dot(cv_settings_of(ctx))) return CURVD_OK;
  CV_TRY(layer->method->project(ctx, layer, ctx->scatter, layer->ld, &inverse));
  layer->sums.dot = inverse.dot;
  return CURVD_OK;
}

/* First half: how long each direction will be. */
static curvd_status project_layer(curvd_ctx *ctx, cv_layer *layer, const curvd_gradient *g) {
  curvd_gradient place = waiting_place(ctx, layer, g), out = whole(ctx, layer, &place);
  if (place.weight == layer->X) out = matrix(ctx->scatter, layer->ld, layer);    /* X is read until the end */
  layer->sums = (cv_pair_sums){layer->squares_x, layer->squares_x, false, true}; /* without a method: X itself */
  if (!layer->method) return CURVD_OK;
  if (layer->is_factored) return measure_factored(ctx, layer);
  CV_TRY(layer->method->project(ctx, layer, out.weight, out.ld, &layer->sums));
  if (layer->sums.is_written && out.weight != place.weight) cv_gradient_mix(layer, 1, &out, 0, &place);
  return CURVD_OK;
}

/* Second half: the scaled direction in place of the gradient, or subtracted from the parameters. */
static void expand_layer(curvd_ctx *ctx, cv_layer *layer, double lr, const curvd_gradient *g) {
  bool is_update = g->parameter != NULL;
  curvd_gradient parameter = parameter_of(g), from = matrix(layer->X, layer->ldx, layer);
  const curvd_gradient *to = is_update ? &parameter : g;
  float scale = (float)(is_update ? -lr * layer->scale : layer->scale), keep = is_update ? 1 - g->shrink : 0;
  if (layer->sums.is_written) from = waiting_place(ctx, layer, g);
  if (layer->sums.is_written || !layer->method || layer->is_factored) {
    cv_gradient_mix(layer, scale, &from, keep, to);
  } else if (cv_gradient_is_joined(layer, to)) {
    layer->method->expand(ctx, layer, scale, keep, to->weight, to->ld);
  } else {
    curvd_gradient out = matrix(ctx->scatter, layer->ld, layer);
    layer->method->expand(ctx, layer, scale, 0, out.weight, out.ld);
    cv_gradient_mix(layer, 1, &out, keep, to);
  }
}

/* Where this worker's direction of a layer goes first: to its place, or into the bucket, from where all get it. */
static curvd_gradient place_of(const curvd_ctx *ctx, int32_t i, const curvd_gradient *gradients) {
  return ctx->layer[i].shard < 0 ? gradients[i] : cv_exchange_part(ctx, i);
}

static curvd_status project_layers(curvd_ctx *ctx, const curvd_gradient *gradients) {
  for (int32_t i = 0; i < ctx->n_layers; i++) {
    curvd_gradient place = place_of(ctx, i, gradients);
    if (cv_shard_applies(ctx, &ctx->layer[i])) CV_TRY(project_layer(ctx, &ctx->layer[i], &place));
  }
  return CURVD_OK;
}

/* Scaled directions of sharded layers, from the bucket. */
static void spread_out(curvd_ctx *ctx, double lr, const curvd_gradient *gradients) {
  for (int32_t i = 0; i < ctx->n_layers; i++) {
    if (ctx->layer[i].shard < 0) continue;
    curvd_gradient from = cv_exchange_part(ctx, i), parameter = parameter_of(&gradients[i]);
    if (gradients[i].parameter) cv_gradient_mix(&ctx->layer[i], (float)-lr, &from, 1 - gradients[i].shrink, &parameter);
    if (!gradients[i].parameter) cv_gradient_mix(&ctx->layer[i], 1, &from, 0, &gradients[i]);
  }
}

curvd_status cv_direction_write(curvd_ctx *ctx, double lr, const curvd_gradient *gradients) {
  bool has_shards = ctx->shards.count != NULL;
  curvd_status status = project_layers(ctx, gradients);
  if (has_shards) status = cv_comm_agree(&ctx->comm, CV_WORKERS, status, &ctx->error);
  CV_TRY(status);
  CV_TRY(cv_shard_share_sums(ctx));
  cv_clip_scales(ctx, lr);
  for (int32_t i = 0; i < ctx->n_layers; i++) {
    curvd_gradient place = place_of(ctx, i, gradients);
    if (cv_shard_applies(ctx, &ctx->layer[i])) expand_layer(ctx, &ctx->layer[i], lr, &place);
  }
  if (!has_shards) return CURVD_OK;
  CV_TRY(cv_shard_gather(ctx));
  spread_out(ctx, lr, gradients);
  return CURVD_OK;
}

void cv_direction_hand_back(curvd_ctx *ctx, double lr, const curvd_gradient *gradients) {
  double share = cv_settings_of(ctx)->grad_reduction == CV_GRAD_MEAN ? 1.0 / ctx->comm.n_workers : 1;
  for (int32_t i = 0; i < ctx->n_layers; i++) {
    const curvd_gradient *to = &gradients[i];
    curvd_gradient g = cv_exchange_gradient_of(ctx, i, gradients);
    curvd_gradient parameter = parameter_of(to);
    if (to->parameter) cv_gradient_mix(&ctx->layer[i], (float)(-lr * share), &g, 1 - to->shrink, &parameter);
    if (!to->parameter && ctx->bucket) cv_gradient_mix(&ctx->layer[i], (float)share, &g, 0, to);
  }
}
