/* The sharded way to apply: a layer's gradients are summed on one worker, which alone averages and preconditions them,
 * and its direction comes back to all. Together a sum and a gather send what one sum over all workers would, but each
 * worker applies only its layers and keeps momentum and preconditioners of those. In the bucket the layers of worker 0
 * come first, then those of worker 1, ... */
#include "base/order.h"
#include "curvature/exchange.h"
#include "curvature/internal.h"
#include "curvature/method.h"
#include "curvature/planner.h"

bool cv_shard_applies(const curvd_ctx *ctx, const cv_layer *layer) {
  return layer->shard < 0 || layer->shard == ctx->comm.rank;
}

/* Flops of a layer's apply, with as many pairs as there may be. */
static double apply_flops(const cv_layer *layer) {
  double r = (double)(layer->factor[CV_A].k_max + layer->factor[CV_G].k_max);
  return layer->method ? 4 * (double)layer->m * (double)layer->n * r : (double)layer->m * (double)layer->n;
}

/* Layers to workers, as layers to owners. Scratch as there. */
static curvd_status assign(curvd_ctx *ctx) {
  int32_t n = ctx->n_layers, workers = ctx->comm.n_workers;
  double *cost = NULL;
  void *numbers = NULL;
  curvd_status status = cv_doubles_new(&ctx->memory, CV_MEMORY_WORKSPACE, n + workers, "the plan", &cost, &ctx->error);
  if (status == CURVD_OK)
    status = cv_memory_new(&ctx->memory, CV_MEMORY_WORKSPACE, 2 * (int64_t)n, sizeof(int32_t), "the plan", &numbers,
                           &ctx->error);
  if (status == CURVD_OK) {
    int32_t *shard = numbers, *order = shard + n;
    for (int32_t i = 0; i < n; i++) cost[i] = apply_flops(&ctx->layer[i]);
    cv_plan_owners(cost, n, workers, shard, cost + n, order);
    for (int32_t i = 0; i < n; i++) ctx->layer[i].shard = shard[i];
  }
  cv_memory_free(&ctx->memory, &numbers);
  cv_doubles_free(&ctx->memory, &cost);
  return status;
}

/* Places in the bucket, and each worker's part of it. */
static curvd_status place(curvd_ctx *ctx) {
  cv_shards *shards = &ctx->shards;
  for (int w = 0; w < ctx->comm.n_workers; w++) {
    int64_t begin = ctx->bucket_floats;
    for (int32_t i = 0; i < ctx->n_layers; i++) {
      cv_layer *layer = &ctx->layer[i];
      if (layer->shard != w) continue;
      layer->bucket_at = ctx->bucket_floats;
      ctx->bucket_floats += layer->m * layer->n;
    }
    if (ctx->bucket_floats > CV_GATHER_MAX)
      return cv_fail(&ctx->error, CURVD_ERR_SIZE,
                     "apply sharded takes up to %lld parameters, these layers have more: use apply replicated",
                     (long long)CV_GATHER_MAX);
    shards->count[w] = (int)(ctx->bucket_floats - begin);
    shards->begin[w] = (int)begin;
  }
  return CURVD_OK;
}

curvd_status cv_shard_plan(curvd_ctx *ctx) {
  const cv_settings *s = cv_settings_of(ctx);
  void *block = NULL;
  bool is_sharded = s->apply == CV_APPLY_SHARDED && ctx->comm.n_workers > 1 && s->method != CV_METHOD_NONE;
  for (int32_t i = 0; i < ctx->n_layers; i++) ctx->layer[i].shard = -1;
  if (!is_sharded) return CURVD_OK;
  CV_TRY(assign(ctx));
  CV_TRY(cv_memory_new(&ctx->memory, CV_MEMORY_WORKSPACE, 2 * (int64_t)ctx->comm.n_workers, sizeof(int), "shards",
                       &block, &ctx->error));
  ctx->shards.count = block;
  ctx->shards.begin = ctx->shards.count + ctx->comm.n_workers;
  return place(ctx);
}

curvd_status cv_shard_allocate(curvd_ctx *ctx) {
  int64_t sums = 2 * (int64_t)ctx->n_layers;
  if (!ctx->shards.count || !cv_comm_is_worker(&ctx->comm)) return CURVD_OK;
  CV_TRY(cv_floats_new(&ctx->memory, CV_MEMORY_TRANSFER, ctx->shards.count[ctx->comm.rank], "summed gradients",
                       &ctx->shards.mine, &ctx->error));
  return cv_doubles_new(&ctx->memory, CV_MEMORY_TRANSFER, sums, "sums of directions", &ctx->shards.sums, &ctx->error);
}

void cv_shard_free(curvd_ctx *ctx) {
  void *block = ctx->shards.count;
  cv_floats_free(&ctx->memory, &ctx->shards.mine);
  cv_doubles_free(&ctx->memory, &ctx->shards.sums);
  cv_memory_free(&ctx->memory, &block);
  ctx->shards = (cv_shards){0};
}

/* ---- a step ---- */

curvd_status cv_shard_begin_sum(curvd_ctx *ctx, cv_transfer *transfer) {
  ctx->sent_bytes[CURVD_TRAFFIC_GRADIENTS] += ctx->bucket_floats * (int64_t)sizeof(float);
  return cv_coll_begin_scatter_sum(&ctx->comm, ctx->bucket, ctx->shards.mine, ctx->shards.count, transfer, &ctx->error);
}

float *cv_shard_gradient(const curvd_ctx *ctx, const cv_layer *layer) {
  return ctx->shards.mine + layer->bucket_at - ctx->shards.begin[ctx->comm.rank];
}

/* Every worker knows the lengths of its own directions; a clip asks for all. */
curvd_status cv_shard_share_sums(curvd_ctx *ctx) {
  double *sums = ctx->shards.sums;
  if (!ctx->shards.count) return CURVD_OK;
  for (int32_t i = 0; i < ctx->n_layers; i++) {
    const cv_layer *layer = &ctx->layer[i];
    bool is_mine = layer->shard == ctx->comm.rank;
    sums[2 * i] = is_mine ? layer->sums.squares : 0;
    sums[2 * i + 1] = is_mine ? layer->sums.dot : 0;
  }
  CV_TRY(cv_coll_sum_doubles(&ctx->comm, sums, 2 * ctx->n_layers, &ctx->error));
  for (int32_t i = 0; i < ctx->n_layers; i++) {
    ctx->layer[i].sums.squares = sums[2 * i];
    ctx->layer[i].sums.dot = sums[2 * i + 1];
  }
  return CURVD_OK;
}

/* Directions of all layers, each in its place in the bucket. */
curvd_status cv_shard_gather(curvd_ctx *ctx) {
  cv_transfer transfer;
  int mine = ctx->shards.count[ctx->comm.rank];
  ctx->sent_bytes[CURVD_TRAFFIC_GRADIENTS] += mine * (int64_t)sizeof(float);
  CV_TRY(cv_coll_begin_gather(&ctx->comm, ctx->bucket, ctx->shards.count, ctx->shards.begin, &transfer, &ctx->error));
  return cv_coll_end(&transfer, CV_WAIT_ACTIVE, &ctx->error);
}
