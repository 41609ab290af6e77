/* Who multiplies in which precision. The three uses of a rank come one after the other, so they share their room. */
#include "curvature/precision.h"

#include "base/order.h"
#include "curvature/internal.h"

/* One term is too coarse for a sketch (linalg/stream.h). */
static int32_t sketch_precision(const cv_settings *s) {
  return s->statistics_precision == CV_FP32 ? CV_FP32 : CV_BF16X3;
}

/* What a refresh in one term falls back to. */
static int32_t finer_precision(const cv_settings *s) {
  return s->refresh_precision == CV_FP32 ? CV_FP32 : CV_BF16X3;
}

int64_t cv_precision_room(const cv_settings *s) {
  return cv_larger(cv_multiplier_room((cv_precision)finer_precision(s)),
                   cv_larger(cv_multiplier_room((cv_precision)sketch_precision(s)),
                             cv_multiplier_room((cv_precision)s->apply_precision)));
}

static cv_multiplier multiplier(const curvd_ctx *ctx, int32_t precision) {
  cv_multiplier fp32 = {0};
  return precision == CV_FP32 ? fp32 : (cv_multiplier){(cv_precision)precision, ctx->unit, ctx->unit_room};
}

curvd_status cv_precision_make(curvd_ctx *ctx) {
  const cv_settings *s = cv_settings_of(ctx);
  void *room = NULL;
  CV_TRY(cv_unit_find(curvd_get(ctx, "matrix_unit"), &ctx->unit,
                      &ctx->error)); /* a name that is not there is told in any case */
  if (cv_precision_room(s) == 0) {
    ctx->unit = NULL;
    return CURVD_OK;
  }
  CV_TRY(cv_memory_new(&ctx->memory, CV_MEMORY_WORKSPACE, cv_precision_room(s), sizeof *ctx->unit_room,
                       "rounded matrices", &room, &ctx->error));
  ctx->unit_room = room;
  ctx->refresh_by = multiplier(ctx, s->refresh_precision);
  ctx->refresh_finer_by = multiplier(ctx, finer_precision(s));
  ctx->statistics_by = multiplier(ctx, s->statistics_precision);
  ctx->sketch_by = multiplier(ctx, sketch_precision(s));
  ctx->apply_by = multiplier(ctx, s->apply_precision);
  return CURVD_OK;
}

void cv_precision_free(curvd_ctx *ctx) {
  void *room = ctx->unit_room;
  cv_memory_free(&ctx->memory, &room);
  ctx->unit_room = NULL;
}

const char *curvd_matrix_unit(const curvd_ctx *ctx) {
  return ctx && ctx->unit ? ctx->unit->name : "";
}
