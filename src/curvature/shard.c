/* The sharded way to apply: a layer's gradients are summed on one worker, which alone averages and preconditions them,
 * and its direction comes back to all. Together a sum and a gather send what one sum over all workers would, but each
 * worker applies only its layers and keeps momentum and preconditioners of those. In the bucket the sharded layers of
 * worker 0 come first, then those of worker 1, ...; then all others, which are summed on every worker. */
#include "curvature/exchange.h"
#include "curvature/factor_plan.h"
#include "curvature/internal.h"
#include "curvature/method.h"

_Static_assert(CV_GATHER_MAX == CV_PLAN_GATHER_MAX, "model.h has the limit of coll.h");

bool cv_shard_applies(const curvd_ctx *ctx, const cv_layer *layer) {
  return layer->shard < 0 || layer->shard == ctx->comm.rank;
}

/* ---- plan ---- */

static curvd_status make_draft(curvd_ctx *ctx, cv_plan_draft *draft) {
  int64_t n = ctx->n_layers;
  void *layers = NULL, *choices = NULL, *numbers = NULL;
  curvd_status status =
      cv_memory_new(&ctx->memory, CV_MEMORY_WORKSPACE, n, sizeof(cv_plan_layer), "the plan", &layers, &ctx->error);
  if (status == CURVD_OK)
    status =
        cv_memory_new(&ctx->memory, CV_MEMORY_WORKSPACE, n, sizeof(cv_plan_choice), "the plan", &choices, &ctx->error);
  if (status == CURVD_OK)
    status =
        cv_memory_new(&ctx->memory, CV_MEMORY_WORKSPACE, 3 * n, sizeof(int32_t), "the plan", &numbers, &ctx->error);
  *draft = (cv_plan_draft){.n_layers = ctx->n_layers, .layer = layers, .choice = choices, .shard = numbers};
  CV_TRY(status);
  draft->order = draft->shard + n;
  CV_TRY(cv_doubles_new(&ctx->memory, CV_MEMORY_WORKSPACE, 2 * n + ctx->comm.n_workers, "the plan", &draft->flops,
                        &ctx->error));
  draft->cost = draft->flops + n;
  draft->load = draft->cost + n;
  cv_plan_layer *layer = layers;
  for (int32_t i = 0; i < ctx->n_layers; i++) layer[i] = cv_planned_layer(&ctx->layer[i]);
  return CURVD_OK;
}

static void free_draft(curvd_ctx *ctx, cv_plan_draft *draft) {
  void *block[] = {(void *)draft->layer, draft->choice, draft->shard};
  for (size_t i = 0; i < sizeof block / sizeof block[0]; i++) cv_memory_free(&ctx->memory, &block[i]);
  cv_doubles_free(&ctx->memory, &draft->flops);
}

/* Which worker applies which layer; true where there is any that not all apply. */
static curvd_status assign(curvd_ctx *ctx, bool *is_any) {
  cv_plan_draft draft;
  curvd_status status = make_draft(ctx, &draft);
  cv_plan_run run = cv_planned_run(ctx);
  if (status == CURVD_OK) cv_layers_plan(cv_settings_of(ctx), &run, &draft);
  for (int32_t i = 0; i < ctx->n_layers && status == CURVD_OK; i++) {
    ctx->layer[i].shard = draft.shard[i];
    *is_any = *is_any || draft.shard[i] >= 0;
  }
  free_draft(ctx, &draft);
  return status;
}

/* Layers of worker w, or those that all apply (-1), behind what is in the bucket. Returns their floats. */
static int64_t place_layers(curvd_ctx *ctx, int w) {
  int64_t begin = ctx->bucket_floats;
  for (int32_t i = 0; i < ctx->n_layers; i++) {
    cv_layer *layer = &ctx->layer[i];
    if (layer->shard != w) continue;
    layer->bucket_at = ctx->bucket_floats;
    ctx->bucket_floats += layer->m * layer->n;
  }
  return ctx->bucket_floats - begin;
}

static curvd_status place(curvd_ctx *ctx) {
  cv_shards *shards = &ctx->shards;
  for (int w = 0; w < ctx->comm.n_workers; w++) {
    int64_t begin = ctx->bucket_floats, floats = place_layers(ctx, w);
    if (ctx->bucket_floats > CV_GATHER_MAX)
      return cv_fail(&ctx->error, CURVD_ERR_SIZE,
                     "apply sharded takes up to %lld parameters, these layers have more: use apply auto or replicated",
                     (long long)CV_GATHER_MAX);
    shards->count[w] = (int)floats;
    shards->begin[w] = (int)begin;
    shards->n_floats += floats;
  }
  place_layers(ctx, -1);
  return CURVD_OK;
}

curvd_status cv_shard_plan(curvd_ctx *ctx) {
  void *block = NULL;
  bool is_any = false;
  CV_TRY(assign(ctx, &is_any));
  if (is_any) {
    CV_TRY(cv_memory_new(&ctx->memory, CV_MEMORY_WORKSPACE, 2 * (int64_t)ctx->comm.n_workers, sizeof(int), "shards",
                         &block, &ctx->error));
    ctx->shards.count = block;
    ctx->shards.begin = ctx->shards.count + ctx->comm.n_workers;
    return place(ctx);
  }
  place_layers(ctx, -1);
  return CURVD_OK;
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

curvd_status cv_shard_sum(curvd_ctx *ctx) {
  ctx->sent_bytes[CURVD_TRAFFIC_GRADIENTS] += ctx->shards.n_floats * (int64_t)sizeof(float);
  return cv_coll_scatter_sum(&ctx->comm, ctx->bucket, ctx->shards.mine, ctx->shards.count, &ctx->error);
}

float *cv_shard_gradient(const curvd_ctx *ctx, const cv_layer *layer) {
  return ctx->shards.mine + layer->bucket_at - ctx->shards.begin[ctx->comm.rank];
}

/* Every worker knows the lengths of the directions that it makes; a clip asks for all. */
curvd_status cv_shard_share_sums(curvd_ctx *ctx) {
  double *sums = ctx->shards.sums;
  int n = 0, at = 0;
  if (!ctx->shards.count) return CURVD_OK;
  for (int32_t i = 0; i < ctx->n_layers; i++) {
    const cv_layer *layer = &ctx->layer[i];
    if (layer->shard < 0) continue;
    bool is_mine = layer->shard == ctx->comm.rank;
    sums[n++] = is_mine ? layer->sums.squares : 0;
    sums[n++] = is_mine ? layer->sums.dot : 0;
  }
  CV_TRY(cv_coll_sum_doubles(&ctx->comm, sums, n, &ctx->error));
  for (int32_t i = 0; i < ctx->n_layers; i++) {
    if (ctx->layer[i].shard < 0) continue;
    ctx->layer[i].sums.squares = sums[at++];
    ctx->layer[i].sums.dot = sums[at++];
  }
  return CURVD_OK;
}

/* Directions of the sharded layers, each in its place in the bucket. */
curvd_status cv_shard_gather(curvd_ctx *ctx) {
  int mine = ctx->shards.count[ctx->comm.rank];
  ctx->sent_bytes[CURVD_TRAFFIC_GRADIENTS] += mine * (int64_t)sizeof(float);
  return cv_coll_gather(&ctx->comm, ctx->bucket, ctx->shards.count, ctx->shards.begin, &ctx->error);
}
