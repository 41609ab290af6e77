/* The algorithm: one stage after the other, each timed.
 *
 *   worker:     gradients -> statistics -> [average, refresh of owned layers] -> preconditioners -> momentum ->
 * precondition -> clip curvature:  idle until a step has something due -> statistics -> average -> refresh ->
 * preconditioners
 *
 * What is due depends on the step number alone, so every rank knows the order of the transfers. */
#include "curvature/exchange.h"
#include "curvature/internal.h"
#include "curvature/method.h"

enum { COMMAND_STEP, COMMAND_WORDS };
static const int64_t COMMAND_FINISH = -1;

static bool is_due(const curvd_ctx *ctx, const cv_schedule *interval) {
  return ctx->step % (int64_t)cv_now(ctx, interval) == 0;
}

bool cv_step_wants_statistics(const curvd_ctx *ctx) {
  const cv_settings *s = cv_settings_of(ctx);
  return s->method != CV_METHOD_NONE && is_due(ctx, &s->factor_update_steps);
}

static bool wants_refresh(const curvd_ctx *ctx) {
  const cv_settings *s = cv_settings_of(ctx);
  return s->method != CV_METHOD_NONE && is_due(ctx, &s->inv_update_steps);
}

/* Ends a stage on every way out. */
static curvd_status timed(curvd_ctx *ctx, curvd_stage stage, curvd_status (*run)(curvd_ctx *)) {
  cv_stage_begin(&ctx->stage[stage]);
  curvd_status status = run(ctx);
  cv_stage_end(&ctx->stage[stage]);
  return status;
}

static curvd_status average(curvd_ctx *ctx) {
  for (int32_t i = 0; i < ctx->n_layers; i++) {
    cv_layer *layer = &ctx->layer[i];
    if (cv_owns(ctx, layer))
      layer->method->absorb(ctx, layer, ctx->route[layer->owner].statistics + layer->statistics_at);
  }
  return CURVD_OK;
}

static curvd_status refresh(curvd_ctx *ctx) {
  for (int32_t i = 0; i < ctx->n_layers; i++) {
    if (cv_owns(ctx, &ctx->layer[i])) ctx->layer[i].method->refresh(ctx, &ctx->layer[i], i);
  }
  return CURVD_OK;
}

/* What workers and curvature ranks do together in a step that has something due. */
static curvd_status run_service(curvd_ctx *ctx) {
  bool is_owner = cv_comm_my_owner(&ctx->comm) >= 0;
  if (cv_step_wants_statistics(ctx)) {
    CV_TRY(timed(ctx, CURVD_STAGE_STATISTICS, cv_exchange_statistics));
    if (is_owner) CV_TRY(timed(ctx, CURVD_STAGE_AVERAGE, average));
  }
  if (!wants_refresh(ctx)) return CURVD_OK;
  if (is_owner) CV_TRY(timed(ctx, CURVD_STAGE_REFRESH, refresh));
  return timed(ctx, CURVD_STAGE_BROADCAST, cv_exchange_preconditioners);
}

static curvd_status command(curvd_ctx *ctx, int64_t *word) {
  if (ctx->comm.n_curvature == 0) return CURVD_OK;
  if (ctx->comm.rank == 0) ctx->sent_bytes[CURVD_TRAFFIC_CONTROL] += COMMAND_WORDS * (int64_t)sizeof *word;
  return cv_coll_command(&ctx->comm, word, COMMAND_WORDS, &ctx->error);
}

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

/* First half: how long each direction will be. */
static curvd_status project_layer(curvd_ctx *ctx, cv_layer *layer, const curvd_gradient *g) {
  curvd_gradient place = waiting_place(ctx, layer, g), out = whole(ctx, layer, &place);
  if (place.weight == layer->X) out = matrix(ctx->scatter, layer->ld, layer);    /* X is read until the end */
  layer->sums = (cv_pair_sums){layer->squares_x, layer->squares_x, false, true}; /* without a method: X itself */
  if (!layer->method) return CURVD_OK;
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
  if (layer->sums.is_written || !layer->method) {
    cv_gradient_mix(layer, scale, &from, keep, to);
  } else if (cv_gradient_is_joined(layer, to)) {
    layer->method->expand(ctx, layer, scale, keep, to->weight, to->ld);
  } else {
    curvd_gradient out = matrix(ctx->scatter, layer->ld, layer);
    layer->method->expand(ctx, layer, scale, 0, out.weight, out.ld);
    cv_gradient_mix(layer, 1, &out, keep, to);
  }
}

static curvd_status precondition(curvd_ctx *ctx, double lr, const curvd_gradient *gradients) {
  curvd_status status = CURVD_OK;
  cv_stage_begin(&ctx->stage[CURVD_STAGE_PRECONDITION]);
  for (int32_t i = 0; i < ctx->n_layers && status == CURVD_OK; i++) {
    status = project_layer(ctx, &ctx->layer[i], &gradients[i]);
  }
  if (status == CURVD_OK) cv_clip_scales(ctx, lr);
  for (int32_t i = 0; i < ctx->n_layers && status == CURVD_OK; i++)
    expand_layer(ctx, &ctx->layer[i], lr, &gradients[i]);
  cv_stage_end(&ctx->stage[CURVD_STAGE_PRECONDITION]);
  return status;
}

/* Method none: the combined gradient is the direction. */
static void hand_back(curvd_ctx *ctx, double lr, const curvd_gradient *gradients) {
  double share = cv_settings_of(ctx)->grad_reduction == CV_GRAD_MEAN ? 1.0 / ctx->comm.n_workers : 1;
  for (int32_t i = 0; i < ctx->n_layers; i++) {
    const curvd_gradient *to = &gradients[i];
    curvd_gradient g = cv_exchange_gradient_of(ctx, i, gradients);
    curvd_gradient parameter = parameter_of(to);
    if (to->parameter) cv_gradient_mix(&ctx->layer[i], (float)(-lr * share), &g, 1 - to->shrink, &parameter);
    if (!to->parameter && ctx->bucket) cv_gradient_mix(&ctx->layer[i], (float)share, &g, 0, to);
  }
}

static curvd_status run_stages(curvd_ctx *ctx, double lr, const curvd_gradient *gradients) {
  cv_stage_begin(&ctx->stage[CURVD_STAGE_GRADIENTS]);
  curvd_status status = cv_exchange_gradients(ctx, gradients);
  if (status == CURVD_OK && cv_settings_of(ctx)->method == CV_METHOD_NONE) hand_back(ctx, lr, gradients);
  cv_stage_end(&ctx->stage[CURVD_STAGE_GRADIENTS]);
  if (status != CURVD_OK || cv_settings_of(ctx)->method == CV_METHOD_NONE) return status;
  if (cv_step_wants_statistics(ctx) || wants_refresh(ctx)) {
    int64_t step = ctx->step;
    CV_TRY(command(ctx, &step));
    CV_TRY(run_service(ctx));
  }
  cv_stage_begin(&ctx->stage[CURVD_STAGE_MOMENTUM]);
  status = cv_momentum_gather(ctx, gradients);
  if (ctx->comm.n_workers > 1 && cv_settings_of(ctx)->grad_reduction == CV_GRAD_NONE)
    status = cv_comm_agree(&ctx->comm, CV_WORKERS, status, &ctx->error); /* the callers' own sums may differ */
  cv_stage_end(&ctx->stage[CURVD_STAGE_MOMENTUM]);
  return status == CURVD_OK ? precondition(ctx, lr, gradients) : status;
}

curvd_status cv_step_run(curvd_ctx *ctx, double lr, const curvd_gradient *gradients) {
  curvd_status status = run_stages(ctx, lr, gradients);
  if (status != CURVD_OK) cv_follow_forget(ctx);
  ctx->step++;
  return status;
}

static curvd_status serve_one(curvd_ctx *ctx, int64_t *word) {
  cv_stage_begin(&ctx->stage[CURVD_STAGE_IDLE]);
  curvd_status status = command(ctx, word);
  cv_stage_end(&ctx->stage[CURVD_STAGE_IDLE]);
  if (status != CURVD_OK || *word == COMMAND_FINISH) return status;
  ctx->step = *word;
  return run_service(ctx);
}

curvd_status cv_step_serve(curvd_ctx *ctx) {
  int64_t word = 0;
  while (word != COMMAND_FINISH) CV_TRY(serve_one(ctx, &word));
  ctx->is_finished = true;
  return CURVD_OK;
}

curvd_status cv_step_finish(curvd_ctx *ctx) {
  int64_t word = COMMAND_FINISH;
  ctx->is_finished = true;
  return command(ctx, &word);
}
