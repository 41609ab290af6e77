/* The algorithm: one stage after the other, each timed.
 *
 *   worker:     gradients -> statistics -> [average, refresh of owned layers] -> preconditioners -> momentum ->
 * precondition -> clip curvature:  idle until a step has something due -> statistics -> average -> refresh ->
 * preconditioners
 *
 * Blocks of spread factors follow the other statistics, once the averages know their weights.
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
  int me = cv_comm_my_owner(&ctx->comm);
  const float *wire = ctx->route[me].statistics;
  for (int32_t i = 0; i < ctx->n_layers; i++) {
    cv_layer *layer = &ctx->layer[i];
    if (cv_holds(layer, me)) wire = layer->method->absorb(ctx, layer, wire);
  }
  return CURVD_OK;
}

static curvd_status refresh(curvd_ctx *ctx) {
  int me = cv_comm_my_owner(&ctx->comm);
  for (int32_t i = 0; i < ctx->n_layers; i++) {
    if (cv_holds(&ctx->layer[i], me)) ctx->layer[i].method->refresh(ctx, &ctx->layer[i], i);
  }
  return CURVD_OK;
}

/* What workers and curvature ranks do together in a step that has something due. */
static curvd_status run_service(curvd_ctx *ctx) {
  bool is_owner = cv_comm_my_owner(&ctx->comm) >= 0;
  if (cv_step_wants_statistics(ctx)) {
    CV_TRY(timed(ctx, CURVD_STAGE_STATISTICS, cv_exchange_statistics));
    if (is_owner) CV_TRY(timed(ctx, CURVD_STAGE_AVERAGE, average));
    if (ctx->has_grid) CV_TRY(timed(ctx, CURVD_STAGE_STATISTICS, cv_exchange_blocks));
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

static curvd_status precondition(curvd_ctx *ctx, double lr, const curvd_gradient *gradients) {
  cv_stage_begin(&ctx->stage[CURVD_STAGE_PRECONDITION]);
  curvd_status status = cv_direction_write(ctx, lr, gradients);
  cv_stage_end(&ctx->stage[CURVD_STAGE_PRECONDITION]);
  return status;
}

static curvd_status run_stages(curvd_ctx *ctx, double lr, const curvd_gradient *gradients) {
  cv_stage_begin(&ctx->stage[CURVD_STAGE_GRADIENTS]);
  curvd_status status = cv_exchange_gradients(ctx, gradients);
  if (status == CURVD_OK && cv_settings_of(ctx)->method == CV_METHOD_NONE) cv_direction_hand_back(ctx, lr, gradients);
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
