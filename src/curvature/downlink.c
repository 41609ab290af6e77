/* Refreshed preconditioners on their way down. Header and payload are two broadcasts: only the header tells how many
 * eigenpairs follow. Transfers of one owner are begun in one order on all its ranks: header and payload of a parcel,
 * then those of the next. */
#include "curvature/link.h"

#include "base/order.h"
#include "curvature/guard.h"
#include "curvature/inject.h"
#include "curvature/method.h"

#include <string.h>

cv_parcel *cv_down_parcel(const cv_downlink *down, int64_t i) {
  return &down->parcel[(down->first + i) % down->n_slots];
}

/* A parcel behind those under way. */
static cv_parcel *append(curvd_ctx *ctx, cv_downlink *down) {
  cv_parcel *parcel = cv_down_parcel(down, down->n_under_way++);
  parcel->state = CV_PARCEL_AWAITED;
  parcel->step = ctx->step;
  parcel->begin_s = cv_wall_s();
  parcel->header_way.n = parcel->payload_way.n = 0;
  return parcel;
}

cv_parcel *cv_down_put(curvd_ctx *ctx, cv_downlink *down, int64_t step) {
  cv_parcel *parcel = append(ctx, down);
  parcel->state = CV_PARCEL_HERE;
  parcel->step = step;
  return parcel;
}

static void drop(cv_downlink *down) {
  down->first = (down->first + 1) % down->n_slots;
  down->n_under_way--;
}

/* Calls with each layer of which the owner holds a factor, and its places in header and payload; returns the bytes of
 * the payload. */
typedef void (*visit_layer)(curvd_ctx *ctx, cv_layer *layer, int owner, char *header, char *payload);

static int64_t visit(curvd_ctx *ctx, int owner, const cv_parcel *parcel, visit_layer each) {
  char *header = parcel->header, *payload = parcel->payload;
  for (int32_t i = 0; i < ctx->n_layers; i++) {
    cv_layer *layer = &ctx->layer[i];
    if (!cv_holds(layer, owner)) continue;
    each(ctx, layer, owner, header, payload);
    payload += layer->method->payload_bytes(ctx, layer, owner, header);
    header += layer->method->header_bytes;
  }
  return payload - parcel->payload;
}

static void write_header(curvd_ctx *ctx, cv_layer *layer, int owner, char *header, char *payload) {
  (void)ctx, (void)payload;
  layer->method->publish_header(layer, owner, header);
}

static void write_payload(curvd_ctx *ctx, cv_layer *layer, int owner, char *header, char *payload) {
  (void)header;
  layer->method->publish(ctx, layer, owner, payload);
}

static void measure(curvd_ctx *ctx, cv_layer *layer, int owner, char *header, char *payload) {
  (void)ctx, (void)layer, (void)owner, (void)header, (void)payload;
}

static void receive(curvd_ctx *ctx, cv_layer *layer, int owner, char *header, char *payload) {
  layer->method->receive(ctx, layer, owner, header, payload);
}

static curvd_status begin_header(curvd_ctx *ctx, int owner, cv_parcel *parcel) {
  parcel->state = CV_PARCEL_HEADER;
  return cv_coll_begin_broadcast(&ctx->comm, owner, "broadcast header", parcel->header,
                                 ctx->route[owner].down.header_bytes, &parcel->header_way, &ctx->error);
}

static curvd_status begin_payload(curvd_ctx *ctx, int owner, cv_parcel *parcel, int64_t bytes) {
  parcel->state = CV_PARCEL_PAYLOAD;
  return cv_coll_begin_broadcast(&ctx->comm, owner, "broadcast preconditioners", parcel->payload, bytes,
                                 &parcel->payload_way, &ctx->error);
}

static void arrive(curvd_ctx *ctx, cv_parcel *parcel) {
  double latency_s = cv_wall_s() - parcel->begin_s;
  parcel->state = CV_PARCEL_HERE;
  ctx->latency_s += latency_s;
  ctx->latency_max_s = latency_s > ctx->latency_max_s ? latency_s : ctx->latency_max_s;
  ctx->n_latencies++;
}

/* One look at one parcel; moves it on as far as it goes. On its owner both parts are under way from the beginning. */
static curvd_status advance_parcel(curvd_ctx *ctx, int owner, cv_parcel *parcel) {
  bool is_done = false;
  if (parcel->state == CV_PARCEL_HERE) return CURVD_OK;
  if (parcel->state == CV_PARCEL_AWAITED) CV_TRY(begin_header(ctx, owner, parcel));
  CV_TRY(cv_coll_test(&parcel->header_way, &is_done, &ctx->error));
  if (!is_done) return CURVD_OK;
  if (parcel->state == CV_PARCEL_HEADER && !cv_guard_header_is_sound(ctx, &ctx->route[owner].down, parcel))
    return cv_fail(&ctx->error, CURVD_ERR_MPI,
                   "rank %d: the header of the refresh of step %lld from rank %d changed on its way, so its payload "
                   "cannot be received: start again from a checkpoint",
                   ctx->comm.rank, (long long)parcel->step, cv_comm_owner_rank(&ctx->comm, owner));
  if (parcel->state == CV_PARCEL_HEADER) CV_TRY(begin_payload(ctx, owner, parcel, visit(ctx, owner, parcel, measure)));
  CV_TRY(cv_coll_test(&parcel->payload_way, &is_done, &ctx->error));
  if (is_done) arrive(ctx, parcel);
  return CURVD_OK;
}

/* In order: the next parcel's header is asked for only behind this one's payload. */
curvd_status cv_down_advance(curvd_ctx *ctx, int owner) {
  cv_downlink *down = &ctx->route[owner].down;
  for (int64_t i = 0; i < down->n_under_way; i++) {
    cv_parcel *parcel = cv_down_parcel(down, i);
    CV_TRY(advance_parcel(ctx, owner, parcel));
    if (parcel->state < CV_PARCEL_PAYLOAD) break;
  }
  return CURVD_OK;
}

/* ---- worker ---- */

curvd_status cv_down_expect(curvd_ctx *ctx) {
  for (int o = 0; o < ctx->comm.n_owners; o++) {
    if (ctx->route[o].down.header_bytes == 0 || cv_comm_my_owner(&ctx->comm) == o) continue;
    append(ctx, &ctx->route[o].down);
    CV_TRY(cv_down_advance(ctx, o));
  }
  cv_links_note(ctx);
  return CURVD_OK;
}

int64_t cv_down_oldest(const curvd_ctx *ctx) {
  for (int o = 0; ctx->route && o < ctx->comm.n_owners; o++) {
    const cv_downlink *down = &ctx->route[o].down;
    if (down->n_under_way > 0) return cv_down_parcel(down, 0)->step;
  }
  return -1;
}

/* Refresh number i of those under way, from the oldest on: all owners that send have as many. */
static bool is_here(const curvd_ctx *ctx, int64_t i) {
  bool is_any = false;
  for (int o = 0; o < ctx->comm.n_owners; o++) {
    const cv_downlink *down = &ctx->route[o].down;
    if (i >= down->n_under_way) continue;
    if (cv_down_parcel(down, i)->state != CV_PARCEL_HERE) return false;
    is_any = true;
  }
  return is_any;
}

int64_t cv_down_here(const curvd_ctx *ctx) {
  int64_t n = 0;
  while (is_here(ctx, n)) n++;
  return n;
}

int64_t cv_down_votes(const curvd_ctx *ctx) {
  int64_t n = 1; /* a fixed staleness keeps a place, too */
  bool is_free = cv_settings_of(ctx)->staleness == CV_STALENESS_FREE;
  for (int o = 0; o < ctx->comm.n_owners && is_free; o++) n = cv_larger(n, ctx->route[o].down.n_slots);
  return n;
}

bool cv_down_is_awaited(const cv_downlink *down) {
  for (int64_t i = 0; i < down->n_under_way; i++) {
    if (cv_down_parcel(down, i)->state != CV_PARCEL_HERE) return true;
  }
  return false;
}

/* A payload, and statistics that the owner may be waiting for, move only while somebody looks; without either the owner
 * may still be refreshing, for long. */
static cv_wait way_to_wait(const curvd_ctx *ctx) {
  for (int o = 0; o < ctx->comm.n_owners; o++) {
    const cv_downlink *down = &ctx->route[o].down;
    if (down->n_under_way > 0 && cv_down_parcel(down, 0)->state == CV_PARCEL_PAYLOAD) return CV_WAIT_ACTIVE;
  }
  return cv_up_is_sending(ctx) ? CV_WAIT_GENTLY : CV_WAIT_IDLE;
}

/* The first owner of which something has not come. */
static int32_t late_owner(const curvd_ctx *ctx) {
  for (int o = 0; o < ctx->comm.n_owners; o++) {
    if (cv_down_is_awaited(&ctx->route[o].down)) return cv_comm_owner_rank(&ctx->comm, o);
  }
  return CV_PEER_NONE;
}

static curvd_status wait_until(curvd_ctx *ctx, bool (*is_done)(const curvd_ctx *ctx)) {
  int32_t peer = CV_PEER_NONE;
  uint64_t operation = 0;
  if (is_done(ctx)) return CURVD_OK;
  cv_links_wait_begin(ctx);
  curvd_status status = CURVD_OK;
  for (int64_t n = 0; status == CURVD_OK && !is_done(ctx); n++) {
    if (n == 0 || late_owner(ctx) != peer) {
      cv_trace_end(&ctx->trace, operation);
      peer = late_owner(ctx);
      operation = cv_trace_begin(&ctx->trace, CV_TRACE_WAIT, "wait for preconditioners", NULL, peer, 0);
    }
    status = cv_links_advance(ctx);
    cv_coll_pause(way_to_wait(ctx), n);
  }
  cv_trace_end(&ctx->trace, operation);
  cv_links_wait_end(ctx);
  return status;
}

static bool is_oldest_here(const curvd_ctx *ctx) {
  return cv_down_oldest(ctx) < 0 || is_here(ctx, 0);
}

curvd_status cv_down_wait(curvd_ctx *ctx) {
  return wait_until(ctx, is_oldest_here);
}

static bool is_all_here(const curvd_ctx *ctx) {
  for (int o = 0; o < ctx->comm.n_owners; o++) {
    if (cv_down_is_awaited(&ctx->route[o].down)) return false;
  }
  return true;
}

curvd_status cv_down_wait_all(curvd_ctx *ctx) {
  return wait_until(ctx, is_all_here);
}

static const char *events_in(const cv_downlink *down, const cv_parcel *parcel) {
  return parcel->header + down->header_bytes - sizeof(cv_seal) - sizeof down->events;
}

/* What an owner sent itself is older than its own counts. */
void cv_down_skip(curvd_ctx *ctx, int owner) {
  cv_downlink *down = &ctx->route[owner].down;
  if (cv_comm_my_owner(&ctx->comm) != owner)
    memcpy(down->events, events_in(down, cv_down_parcel(down, 0)), sizeof down->events);
  drop(down);
}

void cv_down_events(const curvd_ctx *ctx, int owner, int64_t events[CV_OWNER_EVENTS]) {
  const cv_downlink *down = &ctx->route[owner].down;
  bool is_newer = down->n_under_way > 0 && cv_comm_my_owner(&ctx->comm) != owner;
  const void *newest =
      is_newer ? events_in(down, cv_down_parcel(down, down->n_under_way - 1)) : (const void *)down->events;
  memcpy(events, newest, sizeof down->events);
}

void cv_down_forget(curvd_ctx *ctx) {
  for (int o = 0; o < ctx->comm.n_owners; o++) {
    while (ctx->route[o].down.n_under_way > 0) cv_down_skip(ctx, o);
  }
}

static void open_first(curvd_ctx *ctx, int owner) {
  cv_downlink *down = &ctx->route[owner].down;
  cv_parcel *parcel = cv_down_parcel(down, 0);
  int64_t bytes = visit(ctx, owner, parcel, measure);
  cv_inject_transfer(ctx, owner, parcel->payload, bytes);
  cv_guard_check_parcel(ctx, owner, down, parcel, bytes);
  visit(ctx, owner, parcel, receive);
  cv_down_skip(ctx, owner);
}

/* Of a spread factor pieces have come in several parcels. */
static void look_at_fresh(curvd_ctx *ctx) {
  for (int32_t i = 0; i < ctx->n_layers; i++) {
    cv_layer *layer = &ctx->layer[i];
    bool is_any = false;
    for (int f = 0; f < layer->n_factors; f++) {
      cv_factor *factor = &layer->factor[f];
      if (!factor->applied.is_fresh) continue;
      factor->applied.is_fresh = false;
      is_any = true;
      cv_guard_check_pairs(ctx, layer, factor);
    }
    if (is_any) cv_guard_note_applied(ctx, layer);
  }
}

curvd_status cv_down_land(curvd_ctx *ctx) {
  cv_stage_begin(&ctx->stage[CURVD_STAGE_WAIT]);
  curvd_status status = cv_down_wait(ctx);
  cv_stage_end(&ctx->stage[CURVD_STAGE_WAIT]);
  CV_TRY(status);
  cv_stage_begin(&ctx->stage[CURVD_STAGE_BROADCAST]);
  cv_guard_check_applied(ctx); /* it has been used until now */
  for (int o = 0; o < ctx->comm.n_owners; o++) {
    if (ctx->route[o].down.n_under_way > 0) open_first(ctx, o);
  }
  look_at_fresh(ctx);
  cv_stage_end(&ctx->stage[CURVD_STAGE_BROADCAST]);
  return CURVD_OK;
}

/* ---- owners that change ---- */

static bool is_spread(const cv_layer *layer) {
  return layer->factor[CV_A].is_spread || layer->factor[CV_G].is_spread;
}

/* What one layer has in the parcel of owner o, behind what owner `to` has already. */
static void repack_layer(curvd_ctx *ctx, const cv_layer *layer, int o, cv_cursor *from, cv_cursor *to) {
  int64_t header = layer->method->header_bytes, payload = layer->method->payload_bytes(ctx, layer, o, from->header);
  memcpy(to->header, from->header, (size_t)header);
  memcpy(to->payload, from->payload, (size_t)payload);
  *from = (cv_cursor){from->header + header, from->payload + payload};
  *to = (cv_cursor){to->header + header, to->payload + payload};
}

static void repack_layers(curvd_ctx *ctx, const int32_t *owner, cv_cursor *from, cv_cursor *to) {
  for (int32_t i = 0; i < ctx->n_layers; i++) {
    const cv_layer *layer = &ctx->layer[i];
    if (layer->method && !is_spread(layer)) repack_layer(ctx, layer, owner[i], &from[owner[i]], &to[layer->owner]);
    for (int o = 0; o < ctx->comm.n_owners && layer->method && is_spread(layer); o++) {
      if (cv_holds(layer, o)) repack_layer(ctx, layer, o, &from[o], &to[o]);
    }
  }
}

/* All owners have as many parcels under way. */
void cv_down_repack(curvd_ctx *ctx, const cv_route *old, const int32_t *owner, cv_cursor *cursors) {
  int n = ctx->comm.n_owners;
  cv_cursor *from = cursors, *to = cursors + n;
  int64_t under_way = 0;
  for (int o = 0; o < n; o++) {
    under_way = old[o].down.n_under_way > under_way ? old[o].down.n_under_way : under_way;
    memcpy(ctx->route[o].down.events, old[o].down.events, sizeof old[o].down.events);
  }
  for (int64_t p = 0; p < under_way; p++) {
    for (int o = 0; o < n; o++) {
      const cv_downlink *before = &old[o].down;
      if (before->n_under_way == 0) continue;
      const cv_parcel *parcel = cv_down_parcel(before, p);
      cv_parcel *copy = cv_down_put(ctx, &ctx->route[o].down, parcel->step);
      from[o] = (cv_cursor){parcel->header, parcel->payload};
      to[o] = (cv_cursor){copy->header, copy->payload};
    }
    repack_layers(ctx, owner, from, to);
    for (int o = 0; o < n; o++) { /* behind the layers: the owner's counts, and a seal */
      cv_downlink *down = &ctx->route[o].down;
      if (old[o].down.n_under_way == 0) continue;
      cv_parcel *copy = cv_down_parcel(down, down->n_under_way - 1);
      memcpy(to[o].header, from[o].header, sizeof down->events);
      cv_guard_seal(ctx, down, copy, to[o].payload - copy->payload);
    }
  }
}

/* ---- owner ---- */

/* A curvature rank has one parcel, and may not write into it before the last one has left. */
static curvd_status free_parcel(curvd_ctx *ctx, cv_downlink *down) {
  if (cv_comm_is_worker(&ctx->comm) || down->n_under_way == 0) return CURVD_OK;
  CV_TRY(cv_coll_end(&cv_down_parcel(down, 0)->header_way, CV_WAIT_GENTLY, &ctx->error));
  CV_TRY(cv_coll_end(&cv_down_parcel(down, 0)->payload_way, CV_WAIT_GENTLY, &ctx->error));
  drop(down);
  return CURVD_OK;
}

curvd_status cv_down_publish(curvd_ctx *ctx) {
  int me = cv_comm_my_owner(&ctx->comm);
  cv_downlink *down = &ctx->route[me].down;
  if (down->header_bytes == 0) return CURVD_OK;
  CV_TRY(free_parcel(ctx, down));
  cv_parcel *parcel = append(ctx, down);
  visit(ctx, me, parcel, write_header);
  int64_t bytes = visit(ctx, me, parcel, write_payload);
  memcpy(parcel->header + down->header_bytes - sizeof(cv_seal) - sizeof down->events, ctx->my_events,
         sizeof down->events);
  cv_guard_seal(ctx, down, parcel, bytes);
  memcpy(down->events, ctx->my_events, sizeof down->events);
  CV_TRY(begin_header(ctx, me, parcel));
  CV_TRY(begin_payload(ctx, me, parcel, bytes));
  if (ctx->comm.n_ranks > 1) ctx->sent_bytes[CURVD_TRAFFIC_PRECONDITIONERS] += down->header_bytes + bytes;
  return CURVD_OK;
}
