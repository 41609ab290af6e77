/* Both links of every owner: how large their rings are, and what is common to all that is under way. */
#include "curvature/link.h"

#include "base/order.h"
#include "curvature/guard.h"
#include "curvature/method.h"
#include "curvature/uplink_bf16.h"
#include "plan/model.h"

_Static_assert((int)CV_PLAN_PARTS_MAX == (int)CV_SUM_PARTS_MAX, "the model sums as coll.h does");

bool cv_is_due(const curvd_ctx *ctx, const cv_schedule *interval, int64_t step) {
  const cv_settings *s = cv_settings_of(ctx);
  return s->method != CV_METHOD_NONE && step % (int64_t)cv_schedule_at(interval, step, s->steps_per_epoch) == 0;
}

int64_t cv_staleness_bound(const cv_settings *s) {
  return s->staleness == CV_STALENESS_FREE ? s->staleness_max : s->staleness;
}

bool cv_is_with_gradients(const curvd_ctx *ctx) {
  return cv_settings_of(ctx)->route == CV_ROUTE_GRADIENTS && ctx->comm.n_workers > 1;
}

/* How many things of an interval a worker begins before the first of them must have ended. */
static int64_t ring(const cv_settings *s, const cv_schedule *interval) {
  int64_t least = cv_schedule_least_gap(interval, s->steps_per_epoch);
  return cv_larger((cv_staleness_bound(s) + least - 1) / least, 1);
}

/* ---- memory ---- */

static curvd_status bytes_new(curvd_ctx *ctx, int64_t n, char **block) {
  void *bytes = NULL;
  CV_TRY(cv_memory_new(&ctx->memory, CV_MEMORY_TRANSFER, n, 1, "a transfer buffer", &bytes, &ctx->error));
  *block = bytes;
  return CURVD_OK;
}

/* What comes of another worker, on an owner. */
static int64_t inbox_bytes(const curvd_ctx *ctx, const cv_uplink *up) {
  bool has_others = ctx->comm.n_workers > 1 || up->n_rounded > 0, /* rounded numbers are widened out of it */
      has_parts = cv_coll_sums_parts(&ctx->comm) && has_others && !cv_is_with_gradients(ctx);
  int64_t parts = has_parts ? cv_rounded_floats(up) * (int64_t)sizeof(float) : 0;
  return cv_larger(ctx->comm.n_ranks > 1 ? up->row_bytes : 0, parts);
}

/* A worker's own messages. */
static curvd_status allocate_rows(curvd_ctx *ctx, cv_uplink *up) {
  void *ways = NULL;
  bool is_worker = cv_comm_is_worker(&ctx->comm);
  if (up->row_bytes > CV_MESSAGE_MAX_BYTES) {
    return cv_fail(&ctx->error, CURVD_ERR_SIZE,
                   "rank %d: a message of captured rows may take %lld bytes, at most %lld fit: lower capture_rows, or "
                   "use more owners",
                   ctx->comm.rank, (long long)up->row_bytes, (long long)CV_MESSAGE_MAX_BYTES);
  }
  if (is_worker) CV_TRY(bytes_new(ctx, up->n_slots * up->row_bytes, &up->rows));
  CV_TRY(cv_memory_new(&ctx->memory, CV_MEMORY_TRANSFER, up->n_slots, sizeof *up->rows_way, "transfers", &ways,
                       &ctx->error));
  up->rows_way = ways;
  return CURVD_OK;
}

static curvd_status allocate_up(curvd_ctx *ctx, cv_uplink *up, bool is_owner) {
  const cv_settings *s = cv_settings_of(ctx);
  bool is_ahead = cv_comm_is_worker(&ctx->comm) && ctx->comm.n_curvature > 0; /* of its owner */
  void *ways = NULL;
  up->n_slots = is_ahead ? cv_smaller(ring(s, &s->factor_update_steps), CV_PLAN_UP_SLOTS_MAX) : 1;
  up->slot_floats = is_owner ? up->n_floats : cv_rounded_floats(up);
  CV_TRY(cv_floats_new(&ctx->memory, CV_MEMORY_TRANSFER, up->n_slots * up->slot_floats, "a transfer buffer", &up->slots,
                       &ctx->error));
  CV_TRY(cv_memory_new(&ctx->memory, CV_MEMORY_TRANSFER, up->n_slots, sizeof *up->transfer, "transfers", &ways,
                       &ctx->error));
  up->transfer = ways;
  if (is_owner && inbox_bytes(ctx, up) > 0) CV_TRY(bytes_new(ctx, inbox_bytes(ctx, up), &up->inbox));
  return up->row_bytes > 0 ? allocate_rows(ctx, up) : CURVD_OK;
}

static curvd_status allocate_down(curvd_ctx *ctx, cv_downlink *down) {
  const cv_settings *s = cv_settings_of(ctx);
  void *parcels = NULL;
  down->n_slots = cv_comm_is_worker(&ctx->comm) ? ring(s, &s->inv_update_steps) : 1;
  CV_TRY(bytes_new(ctx, down->n_slots * down->header_bytes, &down->headers));
  CV_TRY(bytes_new(ctx, down->n_slots * down->payload_bytes, &down->payloads));
  CV_TRY(cv_memory_new(&ctx->memory, CV_MEMORY_TRANSFER, down->n_slots, sizeof *down->parcel, "parcels", &parcels,
                       &ctx->error));
  down->parcel = parcels;
  for (int64_t i = 0; i < down->n_slots && parcels; i++) {
    down->parcel[i].header = down->headers + i * down->header_bytes;
    down->parcel[i].payload = down->payloads + i * down->payload_bytes;
  }
  return CURVD_OK;
}

static curvd_status allocate_route(curvd_ctx *ctx, int owner) {
  cv_uplink up = {0};
  cv_downlink down = {0};
  for (int32_t i = 0; i < ctx->n_layers; i++) {
    cv_layer *layer = &ctx->layer[i];
    if (!cv_holds(layer, owner)) continue;
    up.n_floats += layer->method->statistics_floats(layer, owner);
    up.n_rounded += cv_factors_rounded(layer, owner);
    if (layer->method->rows_most) up.row_bytes += layer->method->rows_most(ctx, layer, owner);
    down.header_bytes += layer->method->header_bytes;
    down.payload_bytes += layer->method->payload_most(ctx, layer, owner);
  }
  if (down.header_bytes == 0 || !cv_is_linked(ctx, owner)) return CURVD_OK;
  down.header_bytes += (int64_t)(sizeof down.events + sizeof(cv_seal));
  int64_t sum = up.n_floats * (int64_t)sizeof(float), most = cv_larger(sum, down.payload_bytes);
  if (most > CV_TRANSFER_MAX_BYTES || (cv_is_with_gradients(ctx) && sum > CV_MESSAGE_MAX_BYTES)) {
    return cv_fail(&ctx->error, CURVD_ERR_SIZE,
                   "owner %d would send %lld bytes at once, at most %lld fit: use more curvature ranks", owner,
                   (long long)most, (long long)CV_TRANSFER_MAX_BYTES);
  }
  ctx->route[owner] = (cv_route){up, down};
  CV_TRY(allocate_up(ctx, &ctx->route[owner].up, cv_comm_my_owner(&ctx->comm) == owner));
  return allocate_down(ctx, &ctx->route[owner].down);
}

curvd_status cv_links_connect(curvd_ctx *ctx) {
  for (int o = 0; o < ctx->comm.n_owners; o++) {
    bool is_any = false;
    for (int32_t i = 0; i < ctx->n_layers && !is_any; i++) is_any = cv_holds(&ctx->layer[i], o);
    if (is_any) CV_TRY(cv_comm_connect(&ctx->comm, o, &ctx->error));
  }
  return CURVD_OK;
}

curvd_status cv_links_allocate(curvd_ctx *ctx) {
  for (int o = 0; o < ctx->comm.n_owners; o++) CV_TRY(allocate_route(ctx, o));
  return cv_rounded_allocate(ctx);
}

void cv_routes_free(curvd_ctx *ctx, cv_route **routes) {
  for (int o = 0; *routes && o < ctx->comm.n_owners; o++) {
    cv_route *route = &(*routes)[o];
    cv_floats_free(&ctx->memory, &route->up.slots);
    cv_floats_free(&ctx->memory, &route->up.wide);
    void *blocks[] = {route->up.transfer, route->up.rows,      route->up.inbox,     route->up.rows_way,
                      route->down.parcel, route->down.headers, route->down.payloads};
    for (size_t i = 0; i < sizeof blocks / sizeof blocks[0]; i++) cv_memory_free(&ctx->memory, &blocks[i]);
  }
  void *block = *routes;
  cv_memory_free(&ctx->memory, &block);
  *routes = NULL;
}

curvd_status cv_routes_new(curvd_ctx *ctx, cv_route **routes) {
  void *block = NULL;
  curvd_status status = cv_memory_new(&ctx->memory, CV_MEMORY_TRANSFER, ctx->comm.n_owners, sizeof **routes, "routes",
                                      &block, &ctx->error);
  *routes = block;
  return status;
}

/* ---- what is under way ---- */

/* As far as was seen when last looked at. */
static bool is_under_way(const curvd_ctx *ctx) {
  if (ctx->flight.waits > 0 || cv_up_is_sending(ctx)) return true;
  for (int o = 0; ctx->route && o < ctx->comm.n_owners; o++) {
    if (cv_down_is_awaited(&ctx->route[o].down)) return true;
  }
  return false;
}

/* What is waited for after the last step is not the run's. */
void cv_links_note(curvd_ctx *ctx) {
  if (ctx->comm.n_ranks == 1 || !cv_comm_is_worker(&ctx->comm)) return;
  cv_flight *flight = &ctx->flight;
  double now = cv_wall_s();
  if (flight->is_under_way && !ctx->is_finished) flight->transfer_s += now - flight->looked_s;
  flight->looked_s = now;
  flight->is_under_way = is_under_way(ctx);
  cv_progress_want(&ctx->progress, flight->is_under_way);
}

void cv_links_wait_begin(curvd_ctx *ctx) {
  ctx->flight.waits++;
  cv_links_note(ctx);
  ctx->flight.wait_begin_s = ctx->flight.looked_s;
}

void cv_links_wait_end(curvd_ctx *ctx) {
  ctx->flight.waits--;
  cv_links_note(ctx);
  if (!ctx->is_finished) ctx->flight.exposed_s += ctx->flight.looked_s - ctx->flight.wait_begin_s;
}

curvd_status cv_links_advance(curvd_ctx *ctx) {
  bool is_done;
  for (int o = 0; ctx->route && o < ctx->comm.n_owners; o++) {
    cv_uplink *up = &ctx->route[o].up;
    for (int64_t i = 0; i < up->n_slots; i++) {
      CV_TRY(cv_coll_test(&up->transfer[i], &is_done, &ctx->error));
      if (up->rows_way) CV_TRY(cv_coll_test(&up->rows_way[i], &is_done, &ctx->error));
    }
    CV_TRY(cv_down_advance(ctx, o));
  }
  cv_links_note(ctx);
  return CURVD_OK;
}

static curvd_status wait_for_slots(curvd_ctx *ctx) {
  for (int o = 0; ctx->route && o < ctx->comm.n_owners; o++) {
    cv_uplink *up = &ctx->route[o].up;
    for (int64_t i = 0; i < up->n_slots; i++) CV_TRY(cv_up_wait_for_slot(ctx, up, i));
  }
  return CURVD_OK;
}

curvd_status cv_links_settle(curvd_ctx *ctx) {
  CV_TRY(wait_for_slots(ctx));
  CV_TRY(cv_down_wait_all(ctx));
  if (!cv_comm_is_worker(&ctx->comm)) cv_down_forget(ctx);
  return CURVD_OK;
}

curvd_status cv_links_drain(curvd_ctx *ctx) {
  CV_TRY(cv_coll_told(&ctx->comm, &ctx->error));
  CV_TRY(wait_for_slots(ctx));
  while (cv_down_oldest(ctx) >= 0) {
    CV_TRY(cv_down_wait(ctx));
    for (int o = 0; o < ctx->comm.n_owners; o++) {
      if (ctx->route[o].down.n_under_way > 0) cv_down_skip(ctx, o);
    }
  }
  return CURVD_OK;
}
