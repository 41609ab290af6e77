#include "curvature/exchange.h"

#include "curvature/link.h"
#include "linalg/dense.h"

static curvd_gradient contiguous(const cv_layer *layer, float *at) {
  return (curvd_gradient){.weight = at, .ld = layer->n, .bias = at + layer->d_in, .bias_stride = layer->n};
}

curvd_gradient cv_exchange_part(const curvd_ctx *ctx, int32_t layer) {
  return contiguous(&ctx->layer[layer], ctx->bucket + ctx->layer[layer].bucket_at);
}

curvd_gradient cv_exchange_gradient_of(const curvd_ctx *ctx, int32_t layer, const curvd_gradient *gradients) {
  const cv_layer *l = &ctx->layer[layer];
  if (!ctx->bucket) return gradients[layer];
  return l->shard < 0 ? cv_exchange_part(ctx, layer) : contiguous(l, cv_shard_gradient(ctx, l));
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

static void write_votes(const curvd_ctx *ctx, float *vote, int64_t n) {
  for (int64_t i = 0; i < n; i++) vote[i] = i < ctx->here_everywhere;
}

/* Refreshes land in order, so those behind one that is missing somewhere do not count. */
static int64_t count_votes(const curvd_ctx *ctx, const float *vote, int64_t n) {
  int64_t i = 0;
  while (i < n && vote[i] == (float)ctx->comm.n_workers) i++;
  return i;
}

/* Free-running workers vote in the same sum which of the refreshes under way they have. Due statistics that take this
 * route come behind the votes. */
curvd_status cv_exchange_gradients(curvd_ctx *ctx, const curvd_gradient *gradients, bool has_vote) {
  if (!ctx->bucket) return CURVD_OK;
  int64_t statistics = cv_step_wants_statistics(ctx) ? ctx->bucket_statistics : 0;
  for (int32_t i = 0; i < ctx->n_layers; i++) {
    curvd_gradient part = cv_exchange_part(ctx, i);
    cv_gradient_mix(&ctx->layer[i], 1, &gradients[i], 0, &part);
  }
  float *vote = ctx->bucket + ctx->bucket_floats;
  float *from = ctx->bucket + ctx->shards.n_floats;
  int64_t votes = has_vote || statistics > 0 ? ctx->bucket_votes : 0, floats = vote - from + votes;
  write_votes(ctx, vote, votes);
  if (statistics > 0) cv_up_pack(ctx, vote + votes);
  if (ctx->shards.count) CV_TRY(cv_shard_sum(ctx));
  CV_TRY(cv_coll_sum(&ctx->comm, from, floats + statistics, &ctx->error));
  ctx->sent_bytes[CURVD_TRAFFIC_GRADIENTS] += floats * (int64_t)sizeof(float);
  ctx->sent_bytes[CURVD_TRAFFIC_STATISTICS] += statistics * (int64_t)sizeof(float);
  if (has_vote) ctx->here_everywhere = count_votes(ctx, vote, votes);
  return CURVD_OK;
}
