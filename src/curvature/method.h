/* The seam: what a layer's method keeps, sends and does. Nothing outside a method's file knows which one runs.
 *
 * A worker captures into the statistic; pack writes it to the wire; wires of all workers are summed on the way; the
 * owner absorbs the sum, refreshes, and publishes; a worker receives and applies. To add a method: fill a cv_method in
 * method_<name>.c, return it from cv_method_find, and add its name to the tests of tests/unit/test_method.c, which
 * every method passes. */
#ifndef CV_CURVATURE_METHOD_H
#define CV_CURVATURE_METHOD_H

#include "curvature/internal.h"

typedef struct cv_method {
  /* Sizes (k_max, is_full, ...) of the layer's factors, before memory is made. */
  void (*size)(const curvd_ctx *ctx, cv_layer *layer);
  /* Flops of one refresh, for the planner. */
  double (*cost)(const curvd_ctx *ctx, const cv_layer *layer);
  /* Memory for the roles of this rank. */
  curvd_status (*allocate)(curvd_ctx *ctx, cv_layer *layer);
  void (*release)(curvd_ctx *ctx, cv_layer *layer);

  /* Adds rows of a (rows, d_in) and g (rows, d_out), each of which may be NULL, to this step's statistic. SIZE: no room
   * for so many. */
  curvd_status (*capture)(curvd_ctx *ctx, cv_layer *layer, int64_t rows, const float *a, int64_t lda, const float *g,
                          int64_t ldg);
  /* Of the factors that an owner holds: statistic to the wire, statistics_floats floats that are summed over workers;
   * returns the place behind them. */
  int64_t (*statistics_floats)(const cv_layer *layer, int owner);
  float *(*pack)(curvd_ctx *ctx, cv_layer *layer, int owner, float *wire);
  /* Optional, all three or none: of the factors that an owner holds: bytes of the rows that a worker sends apart
   * (most), the rows, and, on the owner, those of one worker. Each returns the place behind, or the bytes. */
  int64_t (*rows_most)(const curvd_ctx *ctx, const cv_layer *layer, int owner);
  char *(*pack_rows)(cv_layer *layer, int owner, char *message);
  const char *(*absorb_rows)(curvd_ctx *ctx, cv_layer *layer, const char *message);
  /* Owner: the summed wire into the running averages; refuses what is not finite. Returns the place behind it. */
  const float *(*absorb)(curvd_ctx *ctx, cv_layer *layer, const float *wire);
  /* Owner: a new preconditioner from the averages; keeps the previous one when all fails. */
  void (*refresh)(curvd_ctx *ctx, cv_layer *layer, int32_t index);

  /* Owner to worker, of the factors that this owner holds: a header of fixed size, then a payload whose size the header
   * tells. */
  int64_t header_bytes;
  int64_t (*payload_most)(const curvd_ctx *ctx, const cv_layer *layer, int owner);
  void (*publish_header)(const cv_layer *layer, int owner, char *header);
  int64_t (*payload_bytes)(const curvd_ctx *ctx, const cv_layer *layer, int owner, const char *header);
  void (*publish)(const curvd_ctx *ctx, const cv_layer *layer, int owner, char *payload);
  void (*receive)(curvd_ctx *ctx, cv_layer *layer, int owner, const char *header, const char *payload);

  /* Worker, from layer->X: first the sums of the unscaled direction (out (m, n), rows ldo apart, may be written
   * already), NUMERIC when damping cannot make it finite; then, unless it was written, out = keep * out + scale *
   * direction (keep 0: out holds anything). No expand where project always writes. */
  curvd_status (*project)(curvd_ctx *ctx, cv_layer *layer, float *out, int64_t ldo, cv_pair_sums *sums);
  void (*expand)(curvd_ctx *ctx, cv_layer *layer, float scale, float keep, float *out, int64_t ldo);
  /* Worker, optional: the gradient to come contains scale * g^T [a 1]; lets the projections follow it. */
  void (*follow)(curvd_ctx *ctx, cv_layer *layer, int64_t rows, const float *a, int64_t lda, const float *g,
                 int64_t ldg, float scale);
  /* Worker, optional: to = keep * to + scale * direction of g^T [a 1], from the rows themselves; where a layer
   * is_factored, X is the direction, and project applies the inverse to it. NUMERIC: as project. */
  curvd_status (*precondition)(curvd_ctx *ctx, cv_layer *layer, int64_t rows, const float *a, int64_t lda,
                               const float *g, int64_t ldg, float scale, float keep, const curvd_gradient *to);
} cv_method;

extern const cv_method cv_method_kfac, cv_method_unit;

/* That of a layer; NULL for CV_METHOD_NONE. */
const cv_method *cv_method_find(cv_method_kind kind, curvd_layer_kind layer);

#endif
