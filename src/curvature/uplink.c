/* Statistics on their way up. A slot of an owner's uplink fuses what all its layers send; the order is that of the
 * plan: owner 0, 1, 2, ... */
#include "curvature/link.h"
#include "curvature/method.h"

#include <string.h>

static float *slot_of(const cv_uplink *up) {
  return up->slots + up->next * up->n_floats;
}

static void pack(curvd_ctx *ctx, int owner) {
  float *wire = slot_of(&ctx->route[owner].up);
  for (int32_t i = 0; i < ctx->n_layers; i++) {
    cv_layer *layer = &ctx->layer[i];
    if (cv_holds(layer, owner)) wire = layer->method->pack(ctx, layer, owner, wire);
  }
}

curvd_status cv_up_wait(curvd_ctx *ctx, cv_transfer *transfer, cv_wait how) {
  bool is_done = false;
  for (int64_t n = 0;; n++) {
    CV_TRY(cv_coll_test(transfer, &is_done, &ctx->error));
    if (is_done) return CURVD_OK;
    CV_TRY(cv_links_advance(ctx));
    cv_coll_pause(how, n);
  }
}

static curvd_status send(curvd_ctx *ctx, int owner) {
  cv_uplink *up = &ctx->route[owner].up;
  if (up->n_floats == 0) return CURVD_OK;
  cv_stage_begin(&ctx->stage[CURVD_STAGE_WAIT]);
  curvd_status status = cv_up_wait(ctx, &up->transfer[up->next], CV_WAIT_GENTLY);
  cv_stage_end(&ctx->stage[CURVD_STAGE_WAIT]);
  CV_TRY(status);
  cv_stage_begin(&ctx->stage[CURVD_STAGE_STATISTICS]);
  pack(ctx, owner);
  status = cv_coll_begin_reduce(&ctx->comm, owner, slot_of(up), up->n_floats, &up->transfer[up->next], &ctx->error);
  cv_stage_end(&ctx->stage[CURVD_STAGE_STATISTICS]);
  if (cv_comm_my_owner(&ctx->comm) == owner) return status; /* goes on in cv_up_take */
  ctx->sent_bytes[CURVD_TRAFFIC_STATISTICS] += up->n_floats * (int64_t)sizeof(float);
  up->next = (up->next + 1) % up->n_slots;
  return status;
}

curvd_status cv_up_send(curvd_ctx *ctx) {
  for (int o = 0; o < ctx->comm.n_owners; o++) CV_TRY(send(ctx, o));
  return CURVD_OK;
}

/* A curvature rank has nothing to add. */
curvd_status cv_up_take(curvd_ctx *ctx, const float **wire) {
  int me = cv_comm_my_owner(&ctx->comm);
  cv_uplink *up = &ctx->route[me].up;
  *wire = slot_of(up);
  if (up->n_floats == 0) return CURVD_OK;
  if (!cv_comm_is_worker(&ctx->comm)) {
    memset(slot_of(up), 0, (size_t)up->n_floats * sizeof(float));
    CV_TRY(cv_coll_begin_reduce(&ctx->comm, me, slot_of(up), up->n_floats, up->transfer, &ctx->error));
  }
  cv_wait how = cv_comm_is_worker(&ctx->comm) ? CV_WAIT_ACTIVE : CV_WAIT_GENTLY;
  CV_TRY(cv_up_wait(ctx, &up->transfer[up->next], how));
  up->next = (up->next + 1) % up->n_slots;
  return CURVD_OK;
}

/* ---- spread factors ---- */

/* One block of a spread factor to its owner. */
static curvd_status reduce_block(curvd_ctx *ctx, cv_factor *factor, int owner, const cv_cyclic *piece, int64_t local) {
  int64_t floats = cv_spread_block_floats(piece, local);
  bool is_worker = cv_comm_is_worker(&ctx->comm), is_mine = cv_comm_my_owner(&ctx->comm) == owner;
  if (is_worker) {
    cv_spread_pack(factor, piece, local, ctx->block);
  } else {
    memset(ctx->block, 0, (size_t)floats * sizeof *ctx->block);
  }
  cv_transfer transfer;
  CV_TRY(cv_coll_begin_reduce(&ctx->comm, owner, ctx->block, floats, &transfer, &ctx->error));
  if (is_worker && !is_mine) ctx->sent_bytes[CURVD_TRAFFIC_STATISTICS] += floats * (int64_t)sizeof *ctx->block;
  CV_TRY(cv_up_wait(ctx, &transfer, CV_WAIT_ACTIVE));
  if (is_mine) cv_spread_absorb(factor, piece, local, ctx->block);
  return CURVD_OK;
}

static curvd_status reduce_factor(curvd_ctx *ctx, cv_factor *factor) {
  for (int o = 0; o < ctx->comm.n_owners; o++) {
    if (!cv_is_linked(ctx, o)) continue;
    cv_cyclic piece = cv_spread_piece(ctx, factor, o);
    int64_t count = cv_cyclic_count(&piece);
    for (int64_t local = 0; local < count; local += cv_cyclic_run(&piece, local))
      CV_TRY(reduce_block(ctx, factor, o, &piece, local));
  }
  cv_factor_forget(factor);
  return CURVD_OK;
}

curvd_status cv_up_blocks(curvd_ctx *ctx) {
  for (int32_t i = 0; i < ctx->n_layers; i++) {
    for (int f = 0; f < CV_FACTORS; f++) {
      cv_factor *factor = &ctx->layer[i].factor[f];
      if (factor->is_spread) CV_TRY(reduce_factor(ctx, factor));
    }
  }
  return CURVD_OK;
}
