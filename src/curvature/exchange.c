#include "curvature/exchange.h"

#include "curvature/link.h"
#include "linalg/dense.h"

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

/* Free-running workers vote in the same sum whether they have what the oldest refresh sent. Due statistics that take
 * this route come behind the vote. */
curvd_status cv_exchange_gradients(curvd_ctx *ctx, const curvd_gradient *gradients, bool has_vote) {
  if (!ctx->bucket) return CURVD_OK;
  int64_t statistics = cv_step_wants_statistics(ctx) ? ctx->bucket_statistics : 0;
  for (int32_t i = 0; i < ctx->n_layers; i++) {
    curvd_gradient part = cv_exchange_gradient_of(ctx, i, gradients);
    cv_gradient_mix(&ctx->layer[i], 1, &gradients[i], 0, &part);
  }
  float *vote = ctx->bucket + ctx->bucket_floats;
  int64_t floats = ctx->bucket_floats + (has_vote || statistics > 0);
  *vote = ctx->is_here_everywhere;
  if (statistics > 0) cv_up_pack(ctx, vote + 1);
  cv_transfer transfer;
  CV_TRY(cv_coll_begin_sum(&ctx->comm, ctx->bucket, floats + statistics, &transfer, &ctx->error));
  ctx->sent_bytes[CURVD_TRAFFIC_GRADIENTS] += floats * (int64_t)sizeof(float);
  ctx->sent_bytes[CURVD_TRAFFIC_STATISTICS] += statistics * (int64_t)sizeof(float);
  CV_TRY(cv_coll_end(&transfer, CV_WAIT_ACTIVE, &ctx->error));
  if (has_vote) ctx->is_here_everywhere = *vote == (float)ctx->comm.n_workers;
  return CURVD_OK;
}
