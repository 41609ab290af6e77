#include "curvature/rounding.h"

#include "base/order.h"
#include "curvature/precision.h"
#include "curvature/store.h"
#include "linalg/dense.h"

#include <math.h>
#include <string.h>

/* Vectors to measure with, rows at a time, and most rows of a statistic that are looked at: of more, independent
 * rounding would be a smaller share. */
enum { VECTORS = 4, ROWS = 32, ROWS_MAX = 128 };

/* In ctx->rounding, rows ld apart. */
typedef struct room {
  int64_t ld;
  float *W; /* (VECTORS, n) Gaussian */
  float *D; /* (VECTORS, n) W (X~^T X~ - X^T X) */
  float *X; /* (ROWS, n) rounded rows */
} room;

static room room_of(const curvd_ctx *ctx) {
  int64_t ld = ctx->rounding_ld;
  float *W = ctx->rounding, *D = W + VECTORS * ld, *X = D + VECTORS * ld;
  return (room){ld, W, D, X};
}

int64_t cv_rounding_rows(const cv_settings *s) {
  return s->statistics_precision == CV_BF16 ? 2 * VECTORS + ROWS : 0;
}

curvd_status cv_rounding_allocate(curvd_ctx *ctx) {
  const cv_settings *s = cv_settings_of(ctx);
  cv_rng key = {(uint64_t)s->seed, CV_RNG_PROBE, UINT32_MAX, 0}; /* certificates have a = 2 * layer + factor */
  if (cv_rounding_rows(s) == 0) return CURVD_OK;
  for (int32_t i = 0; i < ctx->n_layers; i++) {
    for (int f = 0; f < ctx->layer[i].n_factors; f++)
      ctx->rounding_ld = cv_larger(ctx->rounding_ld, ctx->layer[i].factor[f].ld);
  }
  CV_TRY(cv_floats_new(&ctx->memory, CV_MEMORY_WORKSPACE, cv_rounding_rows(s) * ctx->rounding_ld, "rounded rows",
                       &ctx->rounding, &ctx->error));
  if (ctx->rounding) cv_rng_normal(&key, 0, VECTORS * ctx->rounding_ld, ctx->rounding);
  return CURVD_OK;
}

void cv_rounding_free(curvd_ctx *ctx) {
  cv_floats_free(&ctx->memory, &ctx->rounding);
}

/* D (VECTORS, n) += sign W X^T X; what the constant 1 adds is in T = W X^T, and in D's last column. */
static void add_products(const room *r, int64_t n, bool has_one, int64_t rows, float sign, const float *X,
                         int64_t ldx) {
  float T[VECTORS * ROWS];
  int64_t d = has_one ? n - 1 : n;
  cv_gemm(CV_N, CV_T, VECTORS, rows, d, 1, r->W, r->ld, X, ldx, 0, T, ROWS);
  for (int64_t i = 0; has_one && i < VECTORS; i++) {
    for (int64_t j = 0; j < rows; j++) {
      T[i * ROWS + j] += r->W[i * r->ld + d];
      r->D[i * r->ld + d] += sign * T[i * ROWS + j];
    }
  }
  cv_gemm(CV_N, CV_N, VECTORS, d, rows, sign, T, ROWS, X, ldx, 1, r->D, r->ld);
}

/* Estimate of ||X~^T X~ - X^T X|| / trace X^T X over the first rows, Frobenius norm; not a number where X is not. */
static double measured(const curvd_ctx *ctx, int64_t n, const cv_rows *x) {
  room r = room_of(ctx);
  int64_t d = x->has_one ? n - 1 : n, all = cv_smaller(x->rows, ROWS_MAX);
  for (int64_t i = 0; i < VECTORS; i++) memset(r.D + i * r.ld, 0, (size_t)n * sizeof *r.D);
  for (int64_t i = 0; i < all; i += ROWS) {
    const float *X = x->X + i * x->ld;
    int64_t rows = cv_smaller(all - i, ROWS);
    cv_copy_rows(rows, d, X, x->ld, r.X, r.ld);
    cv_round_rows(&ctx->statistics_by, rows, d, r.X, r.ld);
    add_products(&r, n, x->has_one, rows, 1, r.X, r.ld);
    add_products(&r, n, x->has_one, rows, -1, X, x->ld);
  }
  double trace = cv_sum_squares_f32(all, d, x->X, x->ld) + (x->has_one ? (double)all : 0);
  return trace == 0 ? 0 : sqrt(cv_sum_squares(VECTORS, n, r.D, r.ld) / VECTORS) / trace;
}

static const cv_layer *layer_of(const curvd_ctx *ctx, const cv_factor *factor) {
  const cv_layer *layer = ctx->layer;
  while (factor != &layer->factor[CV_A] && factor != &layer->factor[CV_G]) layer++;
  return layer;
}

/* Once for a factor, by its owner; for workers that own nothing by the first one. */
static void tell(curvd_ctx *ctx, cv_factor *factor, double rounding, double missed) {
  const cv_layer *layer = layer_of(ctx, factor);
  bool is_speaker = cv_owns(ctx, layer) || (ctx->comm.n_curvature > 0 && ctx->comm.rank == 0);
  if (factor->is_rounding_told || !is_speaker) return;
  factor->is_rounding_told = true;
  cv_log_line(&ctx->log, CV_LOG_WARNING,
              "layer %s, %s, step %lld: statistics_precision bf16 changes the statistics by %.1e of their trace, more "
              "than a tenth of the %.1e that the pairs in force miss: they are made in fp32",
              layer->name, cv_factor_name(layer, factor), (long long)ctx->step, rounding, missed);
}

const cv_multiplier *cv_rounding_by(curvd_ctx *ctx, cv_factor *factor, double missed, const cv_rows *x) {
  const cv_multiplier *by = &ctx->statistics_by;
  if (by->precision == CV_FP32 || factor->is_full || factor->store == &cv_store_online) return NULL;
  if (by->precision == CV_BF16X3) return by;
  if (x->rows == 0) return NULL;
  double rounding = measured(ctx, factor->n, x);
  if (rounding <= CV_ROUNDING_MAX * missed) return by;
  if (isfinite(rounding) && missed > 0) tell(ctx, factor, rounding, missed);
  return NULL;
}
