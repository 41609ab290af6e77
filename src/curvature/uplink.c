/* Statistics on their way up. A slot of an owner's uplink fuses what all its layers send; the order is that of the
 * plan: owner 0, 1, 2, ... */
#include "curvature/carrier.h"
#include "curvature/link.h"
#include "curvature/method.h"
#include "curvature/rebalance.h"
#include "curvature/uplink_bf16.h"

#include <string.h>

static float *slot_of(const cv_uplink *up) {
  return up->slots + up->next * up->slot_floats;
}

static void pack(curvd_ctx *ctx, int owner, float *wire) {
  for (int32_t i = 0; i < ctx->n_layers; i++) {
    cv_layer *layer = &ctx->layer[i];
    if (cv_holds(layer, owner)) wire = layer->method->pack(ctx, layer, owner, wire);
  }
}

curvd_status cv_up_wait(curvd_ctx *ctx, cv_transfer *transfer, cv_wait how) {
  bool is_done = false;
  CV_TRY(cv_coll_test(transfer, &is_done, &ctx->error));
  if (is_done) return CURVD_OK;
  cv_links_wait_begin(ctx);
  cv_coll_wait_begin(transfer);
  curvd_status status = CURVD_OK;
  for (int64_t n = 0; status == CURVD_OK && !is_done; n++) {
    status = cv_links_advance(ctx);
    cv_coll_pause(how, n);
    if (status == CURVD_OK) status = cv_coll_test(transfer, &is_done, &ctx->error);
  }
  cv_coll_wait_end(transfer);
  cv_links_wait_end(ctx);
  return status;
}

curvd_status cv_up_wait_for_slot(curvd_ctx *ctx, cv_uplink *up, int64_t slot) {
  CV_TRY(cv_up_wait(ctx, &up->transfer[slot], CV_WAIT_GENTLY));
  return up->rows_way ? cv_up_wait(ctx, &up->rows_way[slot], CV_WAIT_GENTLY) : CURVD_OK;
}

static bool is_any_pending(const cv_transfer *transfer, int64_t n) {
  for (int64_t i = 0; transfer && i < n; i++) {
    if (transfer[i].n > 0) return true;
  }
  return false;
}

bool cv_up_is_sending(const curvd_ctx *ctx) {
  for (int o = 0; ctx->route && o < ctx->comm.n_owners; o++) {
    const cv_uplink *up = &ctx->route[o].up;
    if (is_any_pending(up->transfer, up->n_slots) || is_any_pending(up->rows_way, up->n_slots)) return true;
  }
  return false;
}

static bool is_local(const curvd_ctx *ctx) {
  return cv_settings_of(ctx)->carrier == CV_CARRY_LOCAL;
}

static bool is_mine(const curvd_ctx *ctx, int owner) {
  return cv_comm_my_owner(&ctx->comm) == owner;
}

/* The owner's part of what came with the gradients. */
static const float *sum_of(const curvd_ctx *ctx, int owner) {
  const float *sum = ctx->bucket + ctx->bucket_floats + ctx->bucket_votes;
  for (int o = 0; o < owner; o++) sum += ctx->route[o].up.n_floats;
  return sum;
}

void cv_up_pack(curvd_ctx *ctx, float *wire) {
  for (int o = 0; o < ctx->comm.n_owners; wire += ctx->route[o++].up.n_floats) {
    if (ctx->route[o].up.n_floats > 0) pack(ctx, o, wire);
  }
}

/* The worker that hands the sums over to a curvature rank. */
static int courier(const curvd_ctx *ctx, int owner) {
  return owner % ctx->comm.n_workers;
}

static curvd_status hand_over(curvd_ctx *ctx, int owner) {
  cv_uplink *up = &ctx->route[owner].up;
  int64_t bytes = up->n_floats * (int64_t)sizeof(float);
  if (!is_mine(ctx, owner) && (ctx->comm.n_curvature == 0 || courier(ctx, owner) != ctx->comm.rank)) return CURVD_OK;
  memcpy(slot_of(up), sum_of(ctx, owner), (size_t)bytes);
  if (is_mine(ctx, owner)) return CURVD_OK;
  ctx->sent_bytes[CURVD_TRAFFIC_STATISTICS] += bytes;
  return cv_coll_begin_send(&ctx->comm, owner, slot_of(up), bytes, &up->transfer[up->next], &ctx->error);
}

static char *rows_of(const cv_uplink *up) {
  return up->rows + up->next * up->row_bytes;
}

/* Rows of all its layers in one message; the owner's own wait in their slot. */
static curvd_status send_rows(curvd_ctx *ctx, int owner) {
  cv_uplink *up = &ctx->route[owner].up;
  char *message = rows_of(up);
  for (int32_t i = 0; i < ctx->n_layers; i++) {
    cv_layer *layer = &ctx->layer[i];
    if (cv_holds(layer, owner) && layer->method->pack_rows) message = layer->method->pack_rows(layer, owner, message);
  }
  int64_t bytes = message - rows_of(up);
  if (bytes == 0 || is_mine(ctx, owner)) return CURVD_OK;
  ctx->sent_bytes[CURVD_TRAFFIC_STATISTICS] += bytes;
  return cv_coll_begin_send(&ctx->comm, owner, rows_of(up), bytes, &up->rows_way[up->next], &ctx->error);
}

static curvd_status begin_sending(curvd_ctx *ctx, int owner, cv_uplink *up) {
  int64_t exact = cv_rounded_exact(up), rounded = up->n_rounded;
  if (!is_mine(ctx, owner))
    ctx->sent_bytes[CURVD_TRAFFIC_STATISTICS] += exact * (int64_t)sizeof(float) + rounded * (int64_t)sizeof(uint16_t);
  return cv_coll_begin_reduce(&ctx->comm, owner, slot_of(up), NULL, exact, rounded, &up->transfer[up->next],
                              &ctx->error);
}

static void pack_rounded(curvd_ctx *ctx, int owner, float *slot) {
  float *wide = cv_rounded_room(ctx);
  pack(ctx, owner, wide);
  cv_rounded_send(ctx, owner, wide, slot);
}

static curvd_status fill_and_send(curvd_ctx *ctx, int owner) {
  cv_uplink *up = &ctx->route[owner].up;
  if (ctx->bucket_statistics > 0) {
    CV_TRY(hand_over(ctx, owner));
  } else if (up->n_rounded > 0) {
    pack_rounded(ctx, owner, slot_of(up));
  } else {
    pack(ctx, owner, slot_of(up));
  }
  if (ctx->bucket_statistics == 0 && !is_local(ctx)) CV_TRY(begin_sending(ctx, owner, up));
  return up->row_bytes > 0 ? send_rows(ctx, owner) : CURVD_OK;
}

static curvd_status send(curvd_ctx *ctx, int owner) {
  cv_uplink *up = &ctx->route[owner].up;
  if (up->n_floats == 0 || (is_local(ctx) && !is_mine(ctx, owner))) return CURVD_OK;
  cv_stage_begin(&ctx->stage[CURVD_STAGE_WAIT]);
  curvd_status status = cv_up_wait_for_slot(ctx, up, up->next);
  cv_stage_end(&ctx->stage[CURVD_STAGE_WAIT]);
  CV_TRY(status);
  cv_stage_begin(&ctx->stage[CURVD_STAGE_STATISTICS]);
  status = fill_and_send(ctx, owner);
  cv_links_note(ctx);
  cv_stage_end(&ctx->stage[CURVD_STAGE_STATISTICS]);
  if (!is_mine(ctx, owner)) up->next = (up->next + 1) % up->n_slots; /* its own owner takes it from there */
  return status;
}

curvd_status cv_up_send(curvd_ctx *ctx) {
  for (int o = 0; o < ctx->comm.n_owners; o++) CV_TRY(send(ctx, o));
  for (int32_t i = 0; i < ctx->n_layers; i++) {
    for (int f = 0; f < CV_FACTORS; f++) {
      cv_factor *factor = &ctx->layer[i].factor[f];
      if (factor->is_spread && factor->carrier->sends_rows) cv_factor_forget(factor); /* all owners have its rows */
    }
  }
  return CURVD_OK;
}

static float *inbox_of(const cv_uplink *up) {
  return (float *)(void *)up->inbox;
}

/* To a sum a curvature rank has nothing to add. */
static curvd_status begin_taking(curvd_ctx *ctx, int me, cv_uplink *up) {
  if (cv_is_with_gradients(ctx))
    return cv_coll_begin_receive(&ctx->comm, me, courier(ctx, me), slot_of(up), up->n_floats * (int64_t)sizeof(float),
                                 up->transfer, &ctx->error);
  memset(slot_of(up), 0, (size_t)up->n_floats * sizeof(float));
  return cv_coll_begin_reduce(&ctx->comm, me, slot_of(up), inbox_of(up), cv_rounded_exact(up), up->n_rounded,
                              up->transfer, &ctx->error);
}

curvd_status cv_up_take(curvd_ctx *ctx, const float **wire) {
  int me = cv_comm_my_owner(&ctx->comm);
  cv_uplink *up = &ctx->route[me].up;
  bool is_worker = cv_comm_is_worker(&ctx->comm);
  *wire = slot_of(up);
  if (up->n_floats == 0) return CURVD_OK;
  if (!is_worker) CV_TRY(begin_taking(ctx, me, up));
  /* Workers that wait for this refresh look at the transfer all the time, and so must its other end: a sleep for each
   * of Open MPI's fragments of 32 KiB would be most of its time. */
  bool is_awaited = is_worker || cv_staleness_bound(cv_settings_of(ctx)) == 0;
  CV_TRY(cv_up_wait(ctx, &up->transfer[up->next], is_awaited ? CV_WAIT_ACTIVE : CV_WAIT_GENTLY));
  if (up->n_rounded == 0) return CURVD_OK;
  *wire = cv_rounded_room(ctx);
  cv_rounded_take(ctx, me, slot_of(up), cv_rounded_room(ctx));
  return CURVD_OK;
}

static void absorb_rows(curvd_ctx *ctx, const char *message) {
  int me = cv_comm_my_owner(&ctx->comm);
  for (int32_t i = 0; i < ctx->n_layers; i++) {
    cv_layer *layer = &ctx->layer[i];
    if (!cv_holds(layer, me) || !layer->method->absorb_rows) continue;
    double begin_s = cv_wall_s();
    uint64_t operation = cv_trace_begin(&ctx->trace, CV_TRACE_PHASE, "average", layer->name, CV_PEER_NONE, 0);
    message = layer->method->absorb_rows(ctx, layer, message);
    cv_trace_end(&ctx->trace, operation);
    cv_rebalance_note(layer, cv_wall_s() - begin_s);
  }
}

/* One worker after the other, in order: the sums do not depend on who comes first. */
curvd_status cv_up_take_rows(curvd_ctx *ctx) {
  int me = cv_comm_my_owner(&ctx->comm);
  cv_uplink *up = &ctx->route[me].up;
  if (up->n_floats == 0) return CURVD_OK;
  for (int w = 0; w < ctx->comm.n_workers && up->row_bytes > 0; w++) {
    if (w == ctx->comm.rank) absorb_rows(ctx, rows_of(up));
    if (w == ctx->comm.rank || is_local(ctx)) continue;
    cv_transfer transfer;
    CV_TRY(cv_coll_begin_receive(&ctx->comm, me, w, up->inbox, up->row_bytes, &transfer, &ctx->error));
    CV_TRY(cv_up_wait(ctx, &transfer, CV_WAIT_GENTLY));
    absorb_rows(ctx, up->inbox);
  }
  up->next = (up->next + 1) % up->n_slots;
  return CURVD_OK;
}

/* ---- spread factors ---- */

/* One block of a spread factor to its owner. */
static curvd_status reduce_block(curvd_ctx *ctx, cv_factor *factor, int owner, const cv_cyclic *piece, int64_t local) {
  int64_t floats = cv_spread_block_floats(piece, local), rounded = factor->sends_bf16 ? floats : 0,
          exact = floats - rounded;
  bool is_worker = cv_comm_is_worker(&ctx->comm), is_mine = cv_comm_my_owner(&ctx->comm) == owner;
  if (is_worker) {
    cv_spread_pack(ctx, factor, piece, local, ctx->block);
    cv_bf16_error_add(rounded, ctx->block, &factor->captured.wire_squares);
    cv_round_in_place(rounded, ctx->block);
  } else {
    memset(ctx->block, 0, (size_t)floats * sizeof *ctx->block);
  }
  cv_transfer transfer;
  CV_TRY(cv_coll_begin_reduce(&ctx->comm, owner, ctx->block, ctx->block_inbox, exact, rounded, &transfer, &ctx->error));
  if (is_worker && !is_mine)
    ctx->sent_bytes[CURVD_TRAFFIC_STATISTICS] +=
        exact * (int64_t)sizeof *ctx->block + rounded * (int64_t)sizeof(uint16_t);
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
  if (factor->captured.rows > 0) factor->captured.wire_error = cv_bf16_error_of(&factor->captured.wire_squares);
  cv_factor_forget(factor);
  return CURVD_OK;
}

curvd_status cv_up_blocks(curvd_ctx *ctx) {
  for (int32_t i = 0; i < ctx->n_layers; i++) {
    for (int f = 0; f < CV_FACTORS; f++) {
      cv_factor *factor = &ctx->layer[i].factor[f];
      if (factor->carrier == &cv_carrier_blocks) CV_TRY(reduce_factor(ctx, factor));
    }
  }
  return CURVD_OK;
}
