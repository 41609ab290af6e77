/* Every transfer of a step. A buffer per owner fuses what all its layers send; the order is that of the plan: owner 0,
 * 1, 2, ... */
#include "curvature/exchange.h"

#include "curvature/internal.h"
#include "curvature/method.h"
#include "linalg/dense.h"

#include <string.h>

/* Layer i's part of the bucket: its gradient (m, n), contiguous. */
curvd_gradient cv_exchange_gradient_of(const curvd_ctx *ctx, int32_t layer, const curvd_gradient *gradients) {
  if (!ctx->bucket) return gradients[layer];
  const cv_layer *l = &ctx->layer[layer];
  float *at = ctx->bucket + l->bucket_at;
  return (curvd_gradient){.weight = at, .ld = l->n, .bias = at + l->d_in, .bias_stride = l->n};
}

bool cv_gradient_is_joined(const cv_layer *layer, const curvd_gradient *g) {
  return !layer->has_bias || (g->bias == g->weight + layer->d_in && g->bias_stride == g->ld);
}

void cv_gradient_mix(const cv_layer *layer, float scale, const curvd_gradient *from, float keep,
                     const curvd_gradient *to) {
  bool is_one = cv_gradient_is_joined(layer, from) && cv_gradient_is_joined(layer, to);
  int64_t cols = is_one ? layer->n : layer->d_in;
  cv_mix(layer->m, cols, scale, from->weight, from->ld, keep, to->weight, to->ld);
  if (cols < layer->n) cv_mix(layer->m, 1, scale, from->bias, from->bias_stride, keep, to->bias, to->bias_stride);
}

curvd_status cv_exchange_gradients(curvd_ctx *ctx, const curvd_gradient *gradients) {
  if (!ctx->bucket) return CURVD_OK;
  for (int32_t i = 0; i < ctx->n_layers; i++) {
    curvd_gradient part = cv_exchange_gradient_of(ctx, i, gradients);
    cv_gradient_mix(&ctx->layer[i], 1, &gradients[i], 0, &part);
  }
  cv_transfer transfer;
  CV_TRY(cv_coll_begin_sum(&ctx->comm, ctx->bucket, ctx->bucket_floats, &transfer, &ctx->error));
  ctx->sent_bytes[CURVD_TRAFFIC_GRADIENTS] += ctx->bucket_floats * (int64_t)sizeof(float);
  return cv_coll_end(&transfer, CV_WAIT_ACTIVE, &ctx->error);
}

static void pack_route(curvd_ctx *ctx, int owner) {
  float *wire = ctx->route[owner].statistics;
  for (int32_t i = 0; i < ctx->n_layers; i++) {
    cv_layer *layer = &ctx->layer[i];
    if (cv_holds(layer, owner)) wire = layer->method->pack(ctx, layer, owner, wire);
  }
}

static bool is_member(const curvd_ctx *ctx, int owner) {
  return cv_comm_is_worker(&ctx->comm) || cv_comm_my_owner(&ctx->comm) == owner;
}

static bool is_mine(const curvd_ctx *ctx, int owner) {
  return cv_comm_my_owner(&ctx->comm) == owner;
}

curvd_status cv_exchange_statistics(curvd_ctx *ctx) {
  bool is_worker = cv_comm_is_worker(&ctx->comm);
  for (int o = 0; o < ctx->comm.n_owners; o++) {
    cv_route *route = &ctx->route[o];
    if (route->n_statistics == 0 || !is_member(ctx, o)) continue;
    if (is_worker) {
      pack_route(ctx, o);
    } else {
      memset(route->statistics, 0, (size_t)route->n_statistics * sizeof(float));
    }
    cv_transfer transfer;
    CV_TRY(cv_coll_begin_reduce(&ctx->comm, o, route->statistics, route->n_statistics, &transfer, &ctx->error));
    if (is_worker && !is_mine(ctx, o))
      ctx->sent_bytes[CURVD_TRAFFIC_STATISTICS] += route->n_statistics * (int64_t)sizeof(float);
    CV_TRY(cv_coll_end(&transfer, CV_WAIT_ACTIVE, &ctx->error));
  }
  return CURVD_OK;
}

/* One block of a spread factor to its owner. A curvature rank has nothing to add. */
static curvd_status exchange_block(curvd_ctx *ctx, cv_factor *factor, int owner, const cv_cyclic *piece,
                                   int64_t local) {
  int64_t floats = cv_spread_block_floats(piece, local);
  bool is_worker = cv_comm_is_worker(&ctx->comm);
  if (is_worker) {
    cv_spread_pack(factor, piece, local, ctx->block);
  } else {
    memset(ctx->block, 0, (size_t)floats * sizeof *ctx->block);
  }
  cv_transfer transfer;
  CV_TRY(cv_coll_begin_reduce(&ctx->comm, owner, ctx->block, floats, &transfer, &ctx->error));
  if (is_worker && !is_mine(ctx, owner))
    ctx->sent_bytes[CURVD_TRAFFIC_STATISTICS] += floats * (int64_t)sizeof *ctx->block;
  CV_TRY(cv_coll_end(&transfer, CV_WAIT_ACTIVE, &ctx->error));
  if (is_mine(ctx, owner)) cv_spread_absorb(factor, piece, local, ctx->block);
  return CURVD_OK;
}

static curvd_status exchange_factor(curvd_ctx *ctx, cv_factor *factor) {
  for (int o = 0; o < ctx->comm.n_owners; o++) {
    if (!is_member(ctx, o)) continue;
    cv_cyclic piece = cv_spread_piece(ctx, factor, o);
    int64_t count = cv_cyclic_count(&piece);
    for (int64_t local = 0; local < count; local += cv_cyclic_run(&piece, local))
      CV_TRY(exchange_block(ctx, factor, o, &piece, local));
  }
  cv_factor_forget(factor);
  return CURVD_OK;
}

curvd_status cv_exchange_blocks(curvd_ctx *ctx) {
  for (int32_t i = 0; i < ctx->n_layers; i++) {
    for (int f = 0; f < CV_FACTORS; f++) {
      cv_factor *factor = &ctx->layer[i].factor[f];
      if (factor->is_spread) CV_TRY(exchange_factor(ctx, factor));
    }
  }
  return CURVD_OK;
}

static curvd_status broadcast(curvd_ctx *ctx, int owner, char *bytes, int64_t n, cv_wait how) {
  cv_transfer transfer;
  CV_TRY(cv_coll_begin_broadcast(&ctx->comm, owner, bytes, n, &transfer, &ctx->error));
  if (is_mine(ctx, owner) && ctx->comm.n_ranks > 1) ctx->sent_bytes[CURVD_TRAFFIC_PRECONDITIONERS] += n;
  return cv_coll_end(&transfer, how, &ctx->error);
}

/* Calls with each layer of which the owner holds a factor, and its places in header and payload; returns the bytes of
 * the payload. */
typedef void (*visit_layer)(curvd_ctx *ctx, cv_layer *layer, int owner, char *header, char *payload);

static int64_t visit(curvd_ctx *ctx, int owner, visit_layer each) {
  char *header = ctx->route[owner].header, *payload = ctx->route[owner].payload;
  for (int32_t i = 0; i < ctx->n_layers; i++) {
    cv_layer *layer = &ctx->layer[i];
    if (!cv_holds(layer, owner)) continue;
    each(ctx, layer, owner, header, payload);
    payload += layer->method->payload_bytes(ctx, layer, owner, header);
    header += layer->method->header_bytes;
  }
  return payload - ctx->route[owner].payload;
}

static void publish_header(curvd_ctx *ctx, cv_layer *layer, int owner, char *header, char *payload) {
  (void)ctx, (void)payload;
  layer->method->publish_header(layer, owner, header);
}

static void publish(curvd_ctx *ctx, cv_layer *layer, int owner, char *header, char *payload) {
  (void)ctx, (void)header;
  layer->method->publish(layer, owner, payload);
}

static void measure(curvd_ctx *ctx, cv_layer *layer, int owner, char *header, char *payload) {
  (void)ctx, (void)layer, (void)owner, (void)header, (void)payload;
}

static void receive(curvd_ctx *ctx, cv_layer *layer, int owner, char *header, char *payload) {
  layer->method->receive(ctx, layer, owner, header, payload);
}

curvd_status cv_exchange_preconditioners(curvd_ctx *ctx) {
  for (int o = 0; o < ctx->comm.n_owners; o++) {
    cv_route *route = &ctx->route[o];
    if (route->header_bytes == 0 || !is_member(ctx, o)) continue;
    char *events = route->header + route->header_bytes - sizeof route->events;
    if (is_mine(ctx, o)) {
      visit(ctx, o, publish_header);
      visit(ctx, o, publish);
      memcpy(events, ctx->my_events, sizeof route->events);
    }
    CV_TRY(broadcast(ctx, o, route->header, route->header_bytes, CV_WAIT_IDLE)); /* the owner may still be refreshing */
    CV_TRY(broadcast(ctx, o, route->payload, visit(ctx, o, measure), CV_WAIT_ACTIVE));
    memcpy(route->events, events, sizeof route->events);
    if (cv_comm_is_worker(&ctx->comm)) visit(ctx, o, receive);
  }
  return CURVD_OK;
}
