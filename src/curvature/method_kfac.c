/* K-FAC and its randomized forms: A and G of every layer, each decomposed by the solver in use.
 * Martens and Grosse 2015 (arXiv:1503.05671); Puiu 2022 (arXiv:2206.15397).
 * Cost per layer: statistics rows (n^2 + m^2) flops, refresh 9 (n^3 + m^3) exact or 2 k (n^2 + m^2) a product,
 * apply 4 m n (r_A + r_G) of low rank or 4 m n (m + n) exact; words sent (n^2 + m^2) / 2 and n r_A + m r_G.
 * Bad when inputs and output gradients are far from independent; then F is not near A (x) G. */
#include "base/order.h"
#include "curvature/capture.h"
#include "curvature/carrier.h"
#include "curvature/method.h"
#include "curvature/store.h"
#include "curvature/uplink_bf16.h"
#include "curvature/wire.h"
#include "linalg/dense.h"
#include "plan/planner.h"

#include <math.h>
#include <string.h>

static void size_factor(const cv_settings *s, const cv_plan_run *run, const cv_plan_layer *shape, int f,
                        cv_factor *factor) {
  cv_factor_plan plan = cv_factor_plan_of(s, run, shape, f);
  factor->n = f == CV_A ? shape->n : shape->m;
  factor->rule = cv_plan_rule(run, shape, f);
  factor->rows_room = cv_rows_room(&factor->rule, s->capture_rows);
  factor->ld = cv_dense_ld(factor->n);
  factor->is_full = plan.is_full;
  factor->k_max = plan.k_max;
  factor->own.fresh.statistics_step = factor->applied.state.statistics_step = -1;
  factor->sends_bf16 = plan.sends_bf16;
  factor->publishes_bf16 = plan.publishes_bf16;
  cv_carrier_choose(&plan, factor);
}

/* Each worker rounds its own numbers, rows before they make a sum. */
static int roundings_of(const curvd_ctx *ctx, const cv_factor *factor) {
  bool is_sum = factor->sends_bf16 && !factor->carrier->sends_rows;
  return is_sum ? 1 + cv_coll_roundings(&ctx->comm) : 0;
}

static void size(const curvd_ctx *ctx, cv_layer *layer) {
  cv_plan_run run = cv_planned_run(ctx);
  cv_plan_layer shape = cv_planned_layer(layer);
  layer->n_factors = CV_FACTORS;
  for (int f = 0; f < CV_FACTORS; f++) {
    size_factor(cv_settings_of(ctx), &run, &shape, f, &layer->factor[f]);
    layer->factor[f].wire_roundings = roundings_of(ctx, &layer->factor[f]);
  }
}

/* A spread factor costs every owner the same. */
static double cost(const curvd_ctx *ctx, const cv_layer *layer) {
  const cv_settings *s = cv_settings_of(ctx);
  cv_plan_run run = cv_planned_run(ctx);
  cv_plan_layer shape = cv_planned_layer(layer);
  double flops = 0;
  for (int f = 0; f < CV_FACTORS; f++) {
    cv_factor_plan plan = cv_factor_plan_of(s, &run, &shape, f);
    flops += cv_factor_plan_flops(s, layer->factor[f].n, &plan);
  }
  return flops;
}

static bool is_inverse(const curvd_ctx *ctx) {
  return cv_settings_of(ctx)->form == CV_FORM_CHOLESKY;
}

static curvd_status allocate_worker(curvd_ctx *ctx, const cv_layer *layer, cv_factor *factor) {
  int32_t index = (int32_t)(layer - ctx->layer);
  CV_TRY(cv_floats_new(&ctx->memory, CV_MEMORY_STATISTICS, factor->carrier->room(ctx, factor), "a statistic",
                       &factor->captured.statistic, &ctx->error));
  if (factor->seeds_workers) {
    int64_t floats = (factor->k_max + CV_EIG_PROBES) * factor->ld;
    CV_TRY(cv_floats_new(&ctx->memory, CV_MEMORY_STATISTICS, floats, "a test matrix", &factor->captured.seed,
                         &ctx->error));
    CV_TRY(cv_floats_new(&ctx->memory, CV_MEMORY_STATISTICS, floats, "a test matrix", &factor->captured.seed_next,
                         &ctx->error));
    CV_TRY(cv_sketch_seed(ctx, factor, index, factor->captured.seed));
    if (factor->captured.seed_next)
      memcpy(factor->captured.seed_next, factor->captured.seed, (size_t)floats * sizeof(float));
  }
  if (!is_inverse(ctx)) {
    return cv_floats_new(&ctx->memory, CV_MEMORY_PRECONDITIONER, factor->k_max, "eigenvalues", &factor->applied.side.D,
                         &ctx->error);
  }
  if (!cv_shard_applies(ctx, layer)) return CURVD_OK;
  return cv_floats_new(&ctx->memory, CV_MEMORY_PRECONDITIONER, factor->n * factor->ld, "an inverse",
                       &factor->applied.inverse, &ctx->error);
}

/* U_A below room for r_G rows, U_G above room for r_A rows: the last product takes both as one (pair.h). */
static curvd_status allocate_planes(curvd_ctx *ctx, cv_layer *layer) {
  cv_factor *A = &layer->factor[CV_A], *G = &layer->factor[CV_G];
  bool has_pair = cv_precond_has_pair(ctx, layer), is_low = has_pair && !A->is_full && !G->is_full;
  int64_t above = is_low ? G->k_max : 0, below = is_low ? A->k_max : 0;
  int64_t points = (A->k_max + 1) * (G->k_max + 1);
  CV_TRY(cv_floats_new(&ctx->memory, CV_MEMORY_PRECONDITIONER, (above + A->k_max) * A->ld, "a basis", &layer->rows_n,
                       &ctx->error));
  CV_TRY(cv_floats_new(&ctx->memory, CV_MEMORY_PRECONDITIONER, (below + G->k_max) * G->ld, "a basis", &layer->rows_m,
                       &ctx->error));
  if (has_pair)
    CV_TRY(cv_floats_new(&ctx->memory, CV_MEMORY_PRECONDITIONER, points, "a spectral table", &layer->H, &ctx->error));
  A->applied.side = (cv_lrps){
      .n = A->n, .ld = A->ld, .U = layer->rows_n ? layer->rows_n + above * A->ld : NULL, .D = A->applied.side.D};
  G->applied.side = (cv_lrps){.n = G->n, .ld = G->ld, .U = layer->rows_m, .D = G->applied.side.D};
  layer->follows = is_low && !layer->is_factored && layer->positions == 0 && cv_follow_is_gain(ctx, layer, 0);
  if (!layer->follows) return CURVD_OK;
  CV_TRY(
      cv_floats_new(&ctx->memory, CV_MEMORY_PRECONDITIONER, G->k_max * A->ld, "projections", &layer->P, &ctx->error));
  return cv_floats_new(&ctx->memory, CV_MEMORY_PRECONDITIONER, A->k_max * G->ld, "projections", &layer->R, &ctx->error);
}

static curvd_status allocate_functions(curvd_ctx *ctx, cv_layer *layer) {
  cv_precision precision = (cv_precision)cv_settings_of(ctx)->apply_precision;
  for (int f = 0; f < CV_FACTORS; f++) {
    cv_factor *factor = &layer->factor[f];
    void *packed = NULL;
    CV_TRY(cv_floats_new(&ctx->memory, CV_MEMORY_PRECONDITIONER, cv_lrps_rows_store(factor->n, factor->k_max),
                         "a function of a factor", &factor->applied.kept, &ctx->error));
    if (precision == CV_FP32) continue;
    CV_TRY(cv_memory_new(&ctx->memory, CV_MEMORY_PRECONDITIONER,
                         cv_lrps_rows_packed(precision, factor->n, factor->k_max), sizeof *factor->applied.packed,
                         "a packed function of a factor", &packed, &ctx->error));
    factor->applied.packed = packed;
  }
  return CURVD_OK;
}

static curvd_status allocate(curvd_ctx *ctx, cv_layer *layer) {
  int32_t index = (int32_t)(layer - ctx->layer);
  for (int f = 0; f < CV_FACTORS; f++) {
    cv_factor *factor = &layer->factor[f];
    bool is_mine = cv_holds_factor(layer, factor, cv_comm_my_owner(&ctx->comm));
    if (is_mine) CV_TRY(cv_owned_allocate(ctx, factor));
    if (is_mine && factor->store->begin) CV_TRY(factor->store->begin(ctx, factor, index));
    if (cv_comm_is_worker(&ctx->comm)) CV_TRY(allocate_worker(ctx, layer, factor));
  }
  layer->table_is_due = true;
  layer->factored_step = -1;
  if (!cv_comm_is_worker(&ctx->comm) || is_inverse(ctx) || !cv_shard_applies(ctx, layer)) return CURVD_OK;
  CV_TRY(allocate_planes(ctx, layer));
  return layer->is_factored ? allocate_functions(ctx, layer) : CURVD_OK;
}

static void release(curvd_ctx *ctx, cv_layer *layer) {
  for (int f = 0; f < CV_FACTORS; f++) {
    cv_factor *factor = &layer->factor[f];
    float **block[] = {&factor->captured.statistic, &factor->captured.seed,   &factor->captured.seed_next,
                       &factor->applied.side.D,     &factor->applied.inverse, &factor->applied.kept};
    if (factor->store) cv_owned_release(ctx, factor);
    for (size_t i = 0; i < sizeof block / sizeof block[0]; i++) cv_floats_free(&ctx->memory, block[i]);
    void *packed = factor->applied.packed;
    cv_memory_free(&ctx->memory, &packed);
    factor->applied.packed = NULL;
  }
  cv_floats_free(&ctx->memory, &layer->rows_n);
  cv_floats_free(&ctx->memory, &layer->rows_m);
  cv_floats_free(&ctx->memory, &layer->H);
  cv_floats_free(&ctx->memory, &layer->P);
  cv_floats_free(&ctx->memory, &layer->R);
}

/* How a convolution's rows count: KFC's Omega is summed over positions and Gamma averaged, with the other splits of the
 * same product beside it (Grosse and Martens 2016; Puiu 2022 for published; Eschenhagen et al. 2023 for expand and
 * reduce). */
static void weigh_shared(cv_sharing sharing, double T, cv_source *a, cv_source *g) {
  static const struct {
    double a, g; /* powers of T */
  } powers[] = {[CV_SHARING_KFC] = {0, -1},
                [CV_SHARING_PUBLISHED] = {-2, 1},
                [CV_SHARING_EXPAND] = {-1, 0},
                [CV_SHARING_REDUCE] = {0, 0}};
  a->scale *= (float)pow(T, powers[sharing].a);
  g->scale *= (float)pow(T, powers[sharing].g);
  a->is_reduced = g->is_reduced = sharing == CV_SHARING_REDUCE;
  a->row_scale = (float)(1 / T), g->row_scale = 1;
}

/* G is that of per-example gradients: a mean over rows examples divided each of them by rows. */
static curvd_status capture(curvd_ctx *ctx, cv_layer *layer, int64_t rows, const float *a, int64_t lda, const float *g,
                            int64_t ldg) {
  const cv_settings *s = cv_settings_of(ctx);
  cv_source x_a = {.X = a, .examples = rows, .ld = lda, .has_one = layer->has_bias, .scale = 1},
            x_g = {.X = g, .examples = rows, .ld = ldg, .scale = 1};
  if (s->loss_reduction == CV_LOSS_MEAN) x_g.scale = (float)rows * (float)rows;
  if (layer->positions > 0) {
    x_a.window = &layer->window[CV_A], x_g.window = &layer->window[CV_G];
    weigh_shared((cv_sharing)s->weight_sharing, (double)layer->positions, &x_a, &x_g);
  }
  if (a) CV_TRY(cv_capture_check(ctx, layer, &layer->factor[CV_A], &x_a));
  if (g) CV_TRY(cv_capture_check(ctx, layer, &layer->factor[CV_G], &x_g));
  if (a) cv_capture_add(ctx, layer, &layer->factor[CV_A], &x_a);
  if (g) cv_capture_add(ctx, layer, &layer->factor[CV_G], &x_g);
  return CURVD_OK;
}

/* A message: of each factor that is carried as columns, the number of rows, then the rows, n numbers each. Rounded rows
 * have been rounded already (carrier.c). */
static bool sends_rows(const cv_layer *layer, int f, int owner) {
  return cv_holds_factor(layer, &layer->factor[f], owner) && layer->factor[f].carrier->sends_rows;
}

static int64_t row_bytes(const cv_factor *factor) {
  return factor->n * (int64_t)(factor->sends_bf16 ? sizeof(uint16_t) : sizeof(float));
}

static int64_t rows_most(const curvd_ctx *ctx, const cv_layer *layer, int owner) {
  int64_t bytes = 0;
  (void)ctx;
  for (int f = 0; f < CV_FACTORS; f++) {
    int64_t rows = layer->factor[f].rows_room;
    if (sends_rows(layer, f, owner)) bytes += (int64_t)sizeof rows + rows * row_bytes(&layer->factor[f]);
  }
  return bytes;
}

static void pack_row(const cv_factor *factor, const float *row, char *to) {
  if (factor->sends_bf16) {
    cv_round_to_bf16(factor->n, row, (uint16_t *)(void *)to);
  } else {
    memcpy(to, row, (size_t)row_bytes(factor));
  }
}

static char *pack_rows(cv_layer *layer, int owner, char *message) {
  for (int f = 0; f < CV_FACTORS; f++) {
    cv_factor *factor = &layer->factor[f];
    if (!sends_rows(layer, f, owner)) continue;
    memcpy(message, &factor->captured.rows, sizeof factor->captured.rows);
    message += sizeof factor->captured.rows;
    for (int64_t i = 0; i < factor->captured.rows; i++, message += row_bytes(factor))
      pack_row(factor, factor->captured.statistic + i * factor->ld, message);
    if (!factor->is_spread) cv_factor_forget(factor);
  }
  return message;
}

/* Rows of a message, as floats. */
static const float *unpack_rows(const curvd_ctx *ctx, const cv_factor *factor, int64_t rows, const char *from) {
  float *wide = cv_rounded_room(ctx);
  if (!factor->sends_bf16) return (const float *)(const void *)from;
  cv_widen_from_bf16(rows * factor->n, (const uint16_t *)(const void *)from, wide);
  return wide;
}

static const char *absorb_rows(curvd_ctx *ctx, cv_layer *layer, const char *message) {
  for (int f = 0; f < CV_FACTORS; f++) {
    cv_factor *factor = &layer->factor[f];
    int64_t rows;
    if (!sends_rows(layer, f, cv_comm_my_owner(&ctx->comm))) continue;
    memcpy(&rows, message, sizeof rows);
    message += sizeof rows;
    cv_factor_absorb_rows(ctx, layer, factor, rows, unpack_rows(ctx, factor, rows, message));
    message += rows * row_bytes(factor);
  }
  return message;
}

const cv_method cv_method_kfac = {
    .size = size,
    .cost = cost,
    .allocate = allocate,
    .release = release,
    .capture = capture,
    .statistics_floats = cv_factors_floats,
    .pack = cv_factors_pack,
    .absorb = cv_factors_absorb,
    .rows_most = rows_most,
    .pack_rows = pack_rows,
    .absorb_rows = absorb_rows,
    .refresh = cv_refresh_layer,
    .header_bytes = CV_WIRE_HEADER_BYTES,
    .payload_most = cv_wire_payload_most,
    .publish_header = cv_wire_publish_header,
    .payload_bytes = cv_wire_payload_bytes,
    .publish = cv_wire_publish,
    .receive = cv_wire_receive,
    .project = cv_precond_project,
    .expand = cv_precond_expand,
    .follow = cv_follow_gradient,
    .precondition = cv_factored_precondition,
};
