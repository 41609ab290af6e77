/* The algorithm: one stage after the other, each timed.
 *
 *   worker:    gradients -> land what is due -> send statistics -> [owners: average, refresh, publish] -> momentum ->
 *              precondition -> clip
 *   curvature: idle until a step has something due -> take statistics -> average -> refresh -> publish
 *
 * A refresh begun in step k lands in step k + staleness, before that step's own statistics leave (with factored layers
 * before its first rows are preconditioned, and so not before step k + 1). Blocks of spread
 * factors follow the other statistics, once the averages know their weights. What is due depends on the step number
 * alone, so every rank knows the order of the transfers. */
#include "curvature/exchange.h"
#include "curvature/guard.h"
#include "curvature/inject.h"
#include "curvature/internal.h"
#include "curvature/link.h"
#include "curvature/method.h"
#include "curvature/rebalance.h"
#include "curvature/state.h"
#include "curvature/uplink_bf16.h"

static const int64_t FINISH = -1; /* in place of a step's number */

bool cv_step_wants_statistics(const curvd_ctx *ctx) {
  return cv_is_due(ctx, &cv_settings_of(ctx)->factor_update_steps, ctx->step);
}

static bool wants_refresh(const curvd_ctx *ctx) {
  return cv_is_due(ctx, &cv_settings_of(ctx)->inv_update_steps, ctx->step);
}

/* Ends a stage on every way out. */
static curvd_status timed(curvd_ctx *ctx, curvd_stage stage, curvd_status (*run)(curvd_ctx *)) {
  cv_stage_begin(&ctx->stage[stage]);
  curvd_status status = run(ctx);
  cv_stage_end(&ctx->stage[stage]);
  return status;
}

/* ---- owners ---- */

static void average(curvd_ctx *ctx, const float *wire) {
  int me = cv_comm_my_owner(&ctx->comm);
  cv_stage_begin(&ctx->stage[CURVD_STAGE_AVERAGE]);
  for (int32_t i = 0; i < ctx->n_layers; i++) {
    cv_layer *layer = &ctx->layer[i];
    if (!cv_holds(layer, me)) continue;
    double begin_s = cv_wall_s();
    uint64_t operation = cv_trace_begin(&ctx->trace, CV_TRACE_PHASE, "average", layer->name, CV_PEER_NONE, 0);
    wire = layer->method->absorb(ctx, layer, wire);
    cv_trace_end(&ctx->trace, operation);
    cv_rebalance_note(layer, cv_wall_s() - begin_s);
  }
  cv_stage_end(&ctx->stage[CURVD_STAGE_AVERAGE]);
}

static curvd_status take_statistics(curvd_ctx *ctx) {
  const float *wire = NULL;
  cv_stage_begin(&ctx->stage[CURVD_STAGE_STATISTICS]);
  curvd_status status = cv_up_take(ctx, &wire);
  cv_stage_end(&ctx->stage[CURVD_STAGE_STATISTICS]);
  CV_TRY(status);
  average(ctx, wire);
  return timed(ctx, CURVD_STAGE_AVERAGE, cv_up_take_rows);
}

static curvd_status refresh(curvd_ctx *ctx) {
  int me = cv_comm_my_owner(&ctx->comm);
  for (int32_t i = 0; i < ctx->n_layers; i++) {
    cv_layer *layer = &ctx->layer[i];
    if (!cv_holds(layer, me)) continue;
    double begin_s = cv_wall_s();
    uint64_t operation = cv_trace_begin(&ctx->trace, CV_TRACE_PHASE, "refresh", layer->name, CV_PEER_NONE, 0);
    layer->method->refresh(ctx, layer, i);
    cv_trace_end(&ctx->trace, operation);
    cv_rebalance_note(layer, cv_wall_s() - begin_s);
  }
  return CURVD_OK;
}

static curvd_status renew(curvd_ctx *ctx) {
  CV_TRY(timed(ctx, CURVD_STAGE_REFRESH, refresh));
  return timed(ctx, CURVD_STAGE_BROADCAST, cv_down_publish);
}

/* ---- workers ---- */

/* The same answer on every worker: from step numbers, or from what they have agreed on. */
static bool is_landing(const curvd_ctx *ctx) {
  int64_t oldest = cv_down_oldest(ctx);
  if (oldest < 0) return false;
  return ctx->here_everywhere > 0 || ctx->step >= oldest + cv_staleness_bound(cv_settings_of(ctx));
}

/* One refresh begins in a step at most, so a fixed staleness opens one at most; free-running workers open all that have
 * piled up behind a late owner. */
static curvd_status land(curvd_ctx *ctx) {
  for (; is_landing(ctx); ctx->here_everywhere -= ctx->here_everywhere > 0) CV_TRY(cv_down_land(ctx));
  return CURVD_OK;
}

static bool is_free_running(const curvd_ctx *ctx) {
  return cv_settings_of(ctx)->staleness == CV_STALENESS_FREE && cv_down_oldest(ctx) >= 0;
}

/* The gradients' sum carries the votes of free-running workers; without it they agree apart. */
static curvd_status exchange_gradients(curvd_ctx *ctx, const curvd_gradient *gradients) {
  bool has_vote = is_free_running(ctx);
  CV_TRY(cv_links_advance(ctx));
  ctx->here_everywhere = has_vote ? cv_down_here(ctx) : 0;
  CV_TRY(cv_exchange_gradients(ctx, gradients, has_vote));
  if (!has_vote || ctx->bucket || ctx->comm.n_workers == 1) return CURVD_OK;
  return cv_coll_min(&ctx->comm, ctx->here_everywhere, &ctx->here_everywhere, &ctx->error);
}

static curvd_status tell(curvd_ctx *ctx, int64_t word) {
  if (ctx->comm.rank == 0) ctx->sent_bytes[CURVD_TRAFFIC_CONTROL] += ctx->comm.n_curvature * (int64_t)sizeof word;
  return cv_coll_tell(&ctx->comm, word, &ctx->error);
}

/* ---- both ---- */

static curvd_status do_due(curvd_ctx *ctx) {
  bool is_worker = cv_comm_is_worker(&ctx->comm), is_owner = cv_comm_my_owner(&ctx->comm) >= 0;
  if (cv_step_wants_statistics(ctx)) {
    if (is_worker) CV_TRY(cv_up_send(ctx));
    if (is_owner) CV_TRY(take_statistics(ctx));
    if (ctx->has_grid) CV_TRY(timed(ctx, CURVD_STAGE_STATISTICS, cv_up_blocks));
  }
  if (!wants_refresh(ctx)) return CURVD_OK;
  if (is_owner) CV_TRY(renew(ctx));
  return is_worker ? cv_down_expect(ctx) : CURVD_OK;
}

/* What workers and owners do in a step that has something due. Only here do owners touch what they keep. */
static curvd_status run_service(curvd_ctx *ctx) {
  bool is_owner = cv_comm_my_owner(&ctx->comm) >= 0;
  if (is_owner) cv_inject_owned(ctx);
  if (is_owner) cv_guard_check_owned(ctx);
  curvd_status status = do_due(ctx);
  if (is_owner) cv_guard_note_owned(ctx);
  return status;
}

static curvd_status precondition(curvd_ctx *ctx, double lr, const curvd_gradient *gradients) {
  cv_stage_begin(&ctx->stage[CURVD_STAGE_PRECONDITION]);
  curvd_status status = cv_direction_write(ctx, lr, gradients);
  cv_stage_end(&ctx->stage[CURVD_STAGE_PRECONDITION]);
  return status;
}

static void count_ages(curvd_ctx *ctx) {
  for (int32_t i = 0; i < ctx->n_layers; i++) {
    for (int f = 0; f < ctx->layer[i].n_factors; f++) {
      int64_t statistics_step = ctx->layer[i].factor[f].applied.state.statistics_step;
      if (statistics_step >= 0) cv_ages_add(&ctx->ages, ctx->step - statistics_step);
    }
  }
}

/* Before statistics are packed for their owners. */
static curvd_status rebalance(curvd_ctx *ctx) {
  if (!cv_rebalance_is_gain(ctx)) return CURVD_OK;
  CV_TRY(tell(ctx, CV_WORD_MOVE));
  return cv_rebalance(ctx);
}

static curvd_status run_stages(curvd_ctx *ctx, double lr, const curvd_gradient *gradients) {
  CV_TRY(rebalance(ctx));
  cv_stage_begin(&ctx->stage[CURVD_STAGE_GRADIENTS]);
  curvd_status status = exchange_gradients(ctx, gradients);
  if (status == CURVD_OK && cv_settings_of(ctx)->method == CV_METHOD_NONE) cv_direction_hand_back(ctx, lr, gradients);
  cv_stage_end(&ctx->stage[CURVD_STAGE_GRADIENTS]);
  if (status != CURVD_OK || cv_settings_of(ctx)->method == CV_METHOD_NONE) return status;
  CV_TRY(land(ctx));
  if (cv_step_wants_statistics(ctx) || wants_refresh(ctx)) {
    CV_TRY(tell(ctx, ctx->step));
    CV_TRY(run_service(ctx));
    if (!ctx->is_factored) CV_TRY(land(ctx)); /* without staleness; factored directions have been made already */
  }
  cv_stage_begin(&ctx->stage[CURVD_STAGE_MOMENTUM]);
  status = cv_momentum_gather(ctx, gradients);
  if (ctx->comm.n_workers > 1 && cv_settings_of(ctx)->grad_reduction == CV_GRAD_NONE)
    status = cv_comm_agree(&ctx->comm, CV_WORKERS, status, &ctx->error); /* the callers' own sums may differ */
  cv_stage_end(&ctx->stage[CURVD_STAGE_MOMENTUM]);
  CV_TRY(status);
  count_ages(ctx);
  return precondition(ctx, lr, gradients);
}

/* A refresh that is due in this step comes into force before the first use of the old one. By the step number alone, so
 * workers that precondition no rows may leave it to curvd_step; free-running ones have to agree first, and do so there.
 */
curvd_status cv_step_precondition(curvd_ctx *ctx, cv_layer *layer, int64_t rows, const float *a, int64_t lda,
                                  const float *g, int64_t ldg, float scale, float keep, const curvd_gradient *to) {
  if (cv_settings_of(ctx)->staleness != CV_STALENESS_FREE) CV_TRY(land(ctx));
  cv_stage_begin(&ctx->stage[CURVD_STAGE_PRECONDITION]);
  curvd_status status = layer->method->precondition(ctx, layer, rows, a, lda, g, ldg, scale, keep, to);
  cv_stage_end(&ctx->stage[CURVD_STAGE_PRECONDITION]);
  if (status == CURVD_OK) layer->factored_step = ctx->step;
  return status == CURVD_OK ? cv_links_advance(ctx) : status;
}

curvd_status cv_step_run(curvd_ctx *ctx, double lr, const curvd_gradient *gradients) {
  if (ctx->step == 0) cv_rounded_tell(ctx);
  cv_inject_applied(ctx);
  curvd_status status = run_stages(ctx, lr, gradients);
  if (status != CURVD_OK) cv_follow_forget(ctx);
  cv_sketch_change_seeds(ctx);
  ctx->step++;
  return status;
}

static curvd_status serve_one(curvd_ctx *ctx, int64_t *word) {
  cv_stage_begin(&ctx->stage[CURVD_STAGE_IDLE]);
  curvd_status status = cv_coll_hear(&ctx->comm, word, &ctx->error);
  cv_stage_end(&ctx->stage[CURVD_STAGE_IDLE]);
  if (status != CURVD_OK || *word == FINISH) return status;
  if (*word == CV_WORD_MOVE) return cv_rebalance(ctx);
  if (*word == CV_WORD_SAVE || *word == CV_WORD_LOAD) return cv_state_serve(ctx, *word);
  ctx->step = *word;
  return run_service(ctx);
}

curvd_status cv_step_serve(curvd_ctx *ctx) {
  int64_t word = 0;
  while (word != FINISH) CV_TRY(serve_one(ctx, &word));
  ctx->is_finished = true;
  return cv_links_drain(ctx);
}

curvd_status cv_step_finish(curvd_ctx *ctx) {
  ctx->is_finished = true;
  CV_TRY(tell(ctx, FINISH));
  return cv_links_drain(ctx);
}
