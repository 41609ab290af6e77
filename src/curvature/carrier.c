/* The carriers that need no test matrix: packed triangles, and the rows themselves. */
#include "curvature/carrier.h"

#include "base/order.h"
#include "curvature/link.h"
#include "curvature/rounding.h"
#include "curvature/store.h"
#include "linalg/dense.h"

#include <math.h>
#include <string.h>

/* ---- triangle: statistic (n, ld), lower triangle ---- */

static int64_t triangle_room(const curvd_ctx *ctx, const cv_factor *factor) {
  (void)ctx;
  return factor->n * factor->ld;
}

/* last (d) += scale times the sums of the columns of X. Where X is rounded, so is what is summed: sums of other numbers
 * would make the whole matrix indefinite. */
static void add_sums(const cv_multiplier *by, int64_t d, const cv_rows *x, float *last) {
  enum { BLOCK = 256 };
  float ones[BLOCK];
  if (!by) {
    cv_column_sums(x->rows, d, x->scale, x->X, x->ld, last);
    return;
  }
  for (int i = 0; i < BLOCK; i++) ones[i] = 1;
  for (int64_t i = 0; i < x->rows; i += BLOCK)
    cv_multiply(by, CV_N, CV_N, 1, d, cv_smaller(x->rows - i, BLOCK), x->scale, ones, BLOCK, x->X + i * x->ld, x->ld, 1,
                last, d);
}

/* The 1 is appended here, so the caller's array needs no extra column. */
static void triangle_add(curvd_ctx *ctx, cv_factor *factor, const cv_rows *x) {
  const cv_multiplier *by = cv_rounding_by(ctx, factor, cv_rounding_missed(factor), x);
  int64_t d = x->has_one ? factor->n - 1 : factor->n;
  bool is_first = factor->captured.rows == 0;
  float *S = factor->captured.statistic;
  cv_multiply_gram(by, d, x->rows, x->scale, x->X, x->ld, is_first ? 0 : 1, S, factor->ld);
  if (!x->has_one) return;
  float *last = S + d * factor->ld;
  if (is_first) memset(last, 0, (size_t)(d + 1) * sizeof *last);
  add_sums(by, d, x, last);
  last[d] += x->scale * (float)x->rows;
}

/* By Cauchy-Schwarz, a sum of outer products is finite when its diagonal, and so its trace is; NaN or Inf in the data
 * reaches it. */
static double triangle_trace(const cv_factor *factor) {
  double sum = 0;
  for (int64_t i = 0; i < factor->n; i++) sum += factor->captured.statistic[i * factor->ld + i];
  return sum;
}

static int64_t triangle_summed(const cv_factor *factor) {
  return factor->n * (factor->n + 1) / 2;
}

static void triangle_pack(const cv_factor *factor, float *wire) {
  for (int64_t i = 0; i < factor->n; wire += ++i)
    memcpy(wire, factor->captured.statistic + i * factor->ld, (size_t)(i + 1) * sizeof *wire);
}

static double triangle_trace_of(const cv_factor *factor, const float *wire) {
  double sum = 0;
  for (int64_t i = 0; i < factor->n; i++) sum += (double)wire[i * (i + 1) / 2 + i];
  return sum;
}

const cv_carrier cv_carrier_triangle = {.name = "triangle",
                                        .room = triangle_room,
                                        .add = triangle_add,
                                        .trace = triangle_trace,
                                        .summed = triangle_summed,
                                        .pack = triangle_pack,
                                        .trace_of = triangle_trace_of};

/* ---- rows: statistic (rows_room, ld) ---- */

static int64_t rows_room(const curvd_ctx *ctx, const cv_factor *factor) {
  (void)ctx;
  return factor->rows_room * factor->ld;
}

/* Rows that travel rounded are rounded here, so that the trace that goes with them is theirs. */
static void round_rows(cv_factor *factor, int64_t rows, float *X) {
  for (int64_t i = 0; i < rows; i++) {
    cv_bf16_error_add(factor->n, X + i * factor->ld, &factor->captured.wire_squares);
    cv_round_through_bf16(factor->n, X + i * factor->ld);
  }
}

static void rows_add(curvd_ctx *ctx, cv_factor *factor, const cv_rows *x) {
  int64_t d = x->has_one ? factor->n - 1 : factor->n;
  float *to = factor->captured.statistic + factor->captured.rows * factor->ld, root = sqrtf(x->scale);
  (void)ctx;
  cv_mix(x->rows, d, root, x->X, x->ld, 0, to, factor->ld);
  for (int64_t i = 0; x->has_one && i < x->rows; i++) to[i * factor->ld + d] = root;
  if (factor->sends_bf16 && factor->carrier->sends_rows) round_rows(factor, x->rows, to);
}

/* Their product is made here, block by block: all of them by the same rule. */
static void blocks_add(curvd_ctx *ctx, cv_factor *factor, const cv_rows *x) {
  if (factor->captured.rows == 0)
    factor->captured.is_rounded = cv_rounding_by(ctx, factor, cv_rounding_missed(factor), x) != NULL;
  rows_add(ctx, factor, x);
}

static double rows_trace(const cv_factor *factor) {
  return cv_sum_squares(factor->captured.rows, factor->n, factor->captured.statistic, factor->ld);
}

static int64_t rows_summed(const cv_factor *factor) {
  (void)factor;
  return 0;
}

static void rows_pack(const cv_factor *factor, float *wire) {
  (void)factor, (void)wire;
}

const cv_carrier cv_carrier_columns = {.name = "columns",
                                       .keeps_rows = true,
                                       .sends_rows = true,
                                       .room = rows_room,
                                       .add = rows_add,
                                       .trace = rows_trace,
                                       .summed = rows_summed,
                                       .pack = rows_pack};
const cv_carrier cv_carrier_blocks = {.name = "blocks",
                                      .keeps_rows = true,
                                      .room = rows_room,
                                      .add = blocks_add,
                                      .trace = rows_trace,
                                      .summed = rows_summed,
                                      .pack = rows_pack};

/* ---- choice ---- */

static const cv_carrier *carrier_of(const cv_factor_plan *plan) {
  /* rows go to every owner of a spread factor; blocks, one to each, hold workers up until the owners come to them */
  if (plan->is_spread) return plan->carrier == CV_PLAN_COLUMNS ? &cv_carrier_columns : &cv_carrier_blocks;
  if (plan->carrier == CV_PLAN_SKETCH) return &cv_carrier_sketch;
  bool is_local = plan->carrier == CV_PLAN_LOCAL, has_average = plan->store == CV_PLAN_FULL;
  return plan->carrier == CV_PLAN_TRIANGLE || (is_local && has_average) ? &cv_carrier_triangle : &cv_carrier_columns;
}

void cv_carrier_choose(const cv_factor_plan *plan, cv_factor *factor) {
  const cv_store *const store[] = {
      [CV_PLAN_FULL] = &cv_store_full, [CV_PLAN_STREAM] = &cv_store_stream, [CV_PLAN_ONLINE] = &cv_store_online};
  factor->is_spread = plan->is_spread;
  factor->store = store[plan->store];
  factor->carrier = carrier_of(plan);
  factor->seeds_workers = factor->carrier == &cv_carrier_sketch;
}
