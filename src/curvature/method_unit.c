/* Unit-wise blocks of normalisation layers: each of C units has a scale gamma and a shift beta, and its own 2 by 2
 * block F = E[(d gamma, d beta)^T (d gamma, d beta)] of the Fisher matrix. Osawa et al. 2020 (arXiv:2002.06015).
 * Statistics, averages and powers of all blocks lie in three rows of C: F_gamma_gamma, F_gamma_beta, F_beta_beta. The
 * layer's owner averages them and looks at their eigenvalues; what it sends is the averages, fewer numbers than
 * eigenvectors, and whoever applies them decomposes them for the damping of the step.
 * Cost per layer: statistics 6 rows C flops, refresh and damping about 50 C each, apply 12 C; 3 C words each way. */
#include "curvature/carrier.h"
#include "curvature/method.h"
#include "curvature/store.h"
#include "curvature/wire.h"
#include "linalg/dense.h"

#include <math.h>
#include <string.h>

static int64_t units_of(const cv_factor *factor) {
  return factor->n / 2;
}

typedef struct eigen2 {
  double max, min;
  double gamma, cross, beta; /* v v^T, v the unit eigenvector of max */
} eigen2;

/* Of [a b; b d] in fp64, where products of fp32 numbers are exact: so is the determinant, but for one rounding. */
static eigen2 decompose(double a, double b, double d) {
  double half = (a - d) / 2, radius = hypot(half, b), max = (a + d) / 2 + radius,
         cosine = radius > 0 ? half / radius : 1, sine = radius > 0 ? b / radius : 0;
  return (eigen2){max, max > 0 ? (a * d - b * b) / max : 0, (1 + cosine) / 2, sine / 2, (1 - cosine) / 2};
}

static eigen2 block_of(const float *blocks, int64_t units, int64_t i) {
  return decompose(blocks[i], blocks[units + i], blocks[2 * units + i]);
}

/* ---- carrier ---- */

static int64_t room(const curvd_ctx *ctx, const cv_factor *factor) {
  (void)ctx;
  return cv_unit_floats(factor);
}

/* Of all blocks. A block is finite when its diagonal is (Cauchy-Schwarz). */
static double sum_of_diagonals(int64_t units, const float *blocks) {
  double sum = 0;
  for (int64_t i = 0; i < units; i++) sum += (double)blocks[i] + (double)blocks[2 * units + i];
  return sum;
}

static double trace(const cv_factor *factor) {
  return sum_of_diagonals(units_of(factor), factor->captured.statistic);
}

static int64_t summed(const cv_factor *factor) {
  return cv_unit_floats(factor);
}

static void pack(const cv_factor *factor, float *wire) {
  memcpy(wire, factor->captured.statistic, (size_t)cv_unit_floats(factor) * sizeof *wire);
}

static double trace_of(const cv_factor *factor, const float *wire) {
  return sum_of_diagonals(units_of(factor), wire);
}

/* No add: rows of both parameters come together. */
const cv_carrier cv_carrier_units = {
    .name = "units", .room = room, .trace = trace, .summed = summed, .pack = pack, .trace_of = trace_of};

/* ---- store ---- */

static void size_store(const curvd_ctx *ctx, cv_factor *factor) {
  (void)ctx, (void)factor;
}

static int arrays(const curvd_ctx *ctx, cv_factor *factor, cv_array list[CV_ARRAYS_MAX]) {
  (void)ctx;
  list[0] = (cv_array){&factor->own.average, cv_unit_floats(factor), "average", CV_ARRAY_NUMBERS};
  return 1;
}

static void begin_with_identity(const curvd_ctx *ctx, cv_factor *factor) {
  int64_t units = units_of(factor);
  (void)ctx;
  for (int64_t i = 0; i < units; i++) factor->own.average[i] = factor->own.average[2 * units + i] = 1;
}

static curvd_status mix(curvd_ctx *ctx, cv_factor *factor, cv_weights w, const float *wire, cv_error *why) {
  int64_t units = units_of(factor);
  (void)ctx, (void)why;
  cv_mix(3, units, (float)w.add, wire, units, (float)w.keep, factor->own.average, units);
  factor->own.fresh.trace = sum_of_diagonals(units, factor->own.average);
  return CURVD_OK;
}

const cv_store cv_store_units = {
    .name = "units", .size = size_store, .arrays = arrays, .begin_with_identity = begin_with_identity, .mix = mix};

/* ---- a layer's one factor: sizes, memory, statistics ---- */

static void size(const curvd_ctx *ctx, cv_layer *layer) {
  cv_factor *factor = &layer->factor[0];
  (void)ctx;
  layer->n_factors = 1;
  factor->n = 2 * layer->m;
  factor->ld = cv_dense_ld(factor->n);
  factor->carrier = &cv_carrier_units;
  factor->store = &cv_store_units;
  factor->own.fresh.statistics_step = factor->applied.state.statistics_step = -1;
}

static double cost(const curvd_ctx *ctx, const cv_layer *layer) {
  (void)ctx;
  return cv_unit_plan_flops(layer->m);
}

static curvd_status allocate(curvd_ctx *ctx, cv_layer *layer) {
  cv_factor *factor = &layer->factor[0];
  int64_t floats = cv_unit_floats(factor);
  layer->table_is_due = true;
  if (cv_owns(ctx, layer)) CV_TRY(cv_owned_allocate(ctx, factor));
  if (!cv_comm_is_worker(&ctx->comm)) return CURVD_OK;
  CV_TRY(cv_floats_new(&ctx->memory, CV_MEMORY_STATISTICS, factor->carrier->room(ctx, factor), "a statistic",
                       &factor->captured.statistic, &ctx->error));
  if (!cv_shard_applies(ctx, layer)) return CURVD_OK;
  CV_TRY(cv_floats_new(&ctx->memory, CV_MEMORY_PRECONDITIONER, floats, "blocks of units", &factor->applied.units,
                       &ctx->error));
  return cv_floats_new(&ctx->memory, CV_MEMORY_PRECONDITIONER, floats, "powers of blocks", &factor->applied.kept,
                       &ctx->error);
}

static void release(curvd_ctx *ctx, cv_layer *layer) {
  cv_factor *factor = &layer->factor[0];
  cv_owned_release(ctx, factor);
  cv_floats_free(&ctx->memory, &factor->captured.statistic);
  cv_floats_free(&ctx->memory, &factor->applied.units);
  cv_floats_free(&ctx->memory, &factor->applied.kept);
}

/* blocks += scale * sum over rows of (gamma, beta)^T (gamma, beta), unit by unit */
static void add_blocks(int64_t rows, int64_t units, float scale, const float *gamma, int64_t ld_gamma,
                       const float *beta, int64_t ld_beta, float *blocks) {
  float *restrict of_gamma = blocks, *restrict cross = blocks + units, *restrict of_beta = blocks + 2 * units;
  for (int64_t i = 0; i < rows; i++, gamma += ld_gamma, beta += ld_beta) {
    for (int64_t j = 0; j < units; j++) {
      of_gamma[j] += scale * gamma[j] * gamma[j];
      cross[j] += scale * gamma[j] * beta[j];
      of_beta[j] += scale * beta[j] * beta[j];
    }
  }
}

/* Scaled as output gradients are (method_kfac.c). An owner that uses its own batch has no use for others' layers. */
static curvd_status capture(curvd_ctx *ctx, cv_layer *layer, int64_t rows, const float *a, int64_t lda, const float *g,
                            int64_t ldg) {
  const cv_settings *s = cv_settings_of(ctx);
  cv_factor *factor = &layer->factor[0];
  float scale = s->loss_reduction == CV_LOSS_MEAN ? (float)rows * (float)rows : 1;
  if (rows == 0 || (s->carrier == CV_CARRY_LOCAL && !cv_owns(ctx, layer))) return CURVD_OK;
  if (factor->captured.rows == 0) memset(factor->captured.statistic, 0, (size_t)cv_unit_floats(factor) * sizeof(float));
  add_blocks(rows, layer->m, scale, a, lda, g, ldg, factor->captured.statistic);
  factor->captured.rows += rows;
  factor->captured.examples += rows;
  return CURVD_OK;
}

/* ---- owner ---- */

/* Largest and smallest eigenvalue of all blocks; false: a block is not finite. */
static bool look_at_eigenvalues(const cv_factor *factor, double *max, double *min) {
  int64_t units = units_of(factor);
  bool is_finite = true;
  *max = 0, *min = INFINITY;
  for (int64_t i = 0; i < units; i++) {
    eigen2 e = block_of(factor->own.average, units, i);
    is_finite = is_finite && isfinite(e.max);
    *max = fmax(*max, e.max);
    *min = fmin(*min, fmax(e.min, 0));
  }
  return is_finite;
}

static void refresh_blocks(curvd_ctx *ctx, const cv_layer *layer, cv_factor *factor) {
  cv_factor_state *fresh = &factor->own.fresh;
  cv_error why = {0};
  double begin_s = cv_cpu_s(), max, min;
  if (!look_at_eigenvalues(factor, &max, &min)) {
    cv_fail(&why, CURVD_ERR_NUMERIC, "an eigenvalue of a block is not finite");
    cv_count(ctx, layer, CURVD_EVENT_KEPT_PREVIOUS);
    cv_solve_tell(ctx, layer, factor, "units", &why);
    return;
  }
  fresh->is_new = 1;
  fresh->kind = CV_KIND_UNITS;
  fresh->r = factor->n;
  fresh->lambda_max = max;
  fresh->lambda_min = min;
  fresh->seconds = cv_cpu_s() - begin_s;
}

static void refresh(curvd_ctx *ctx, cv_layer *layer, int32_t index) {
  cv_factor *factor = &layer->factor[0];
  (void)index;
  if (cv_refresh_begin(factor)) refresh_blocks(ctx, layer, factor);
  if (factor->own.fresh.is_new) cv_count(ctx, layer, CURVD_EVENT_REFRESHES);
}

/* ---- worker ---- */

/* What damps a product of two factors damps the blocks: pi, which splits it between the factors, has nothing to do. */
static double damping_of(const cv_settings *s, double damping, const cv_factor_state *state, int64_t n) {
  switch ((cv_damping_mode)s->damping_mode) {
  case CV_DAMPING_RELATIVE_MEAN:
    return damping * state->trace / (double)n + state->extra_damping;
  case CV_DAMPING_RELATIVE_MAX:
    return damping * state->lambda_max + state->extra_damping;
  case CV_DAMPING_PI:
    return damping + state->extra_damping;
  case CV_DAMPING_PRODUCT_MAX:
    return damping * state->lambda_max;
  case CV_DAMPING_SCALAR:
    break;
  }
  return damping;
}

/* Where both factors of a layer have the exponent p, it has (A (x) G)^-p, its Fisher matrix to that power. */
static double exponent_of(const cv_settings *s) {
  return (s->exponent_a + s->exponent_g) / 2;
}

/* power = (blocks + damping)^-exponent; false when it is not finite. Rounding may leave a small eigenvalue below 0. */
static bool make_powers(int64_t units, const float *blocks, double damping, double exponent, float *power) {
  bool is_finite = true;
  for (int64_t i = 0; i < units; i++) {
    eigen2 e = block_of(blocks, units, i);
    double max = pow(e.max + damping, -exponent), min = pow(fmax(e.min, 0) + damping, -exponent);
    power[i] = (float)(max * e.gamma + min * e.beta);
    power[units + i] = (float)((max - min) * e.cross);
    power[2 * units + i] = (float)(max * e.beta + min * e.gamma);
    is_finite = is_finite && isfinite(power[i]) && isfinite(power[units + i]) && isfinite(power[2 * units + i]);
  }
  return is_finite;
}

/* Only when a refresh came or the damping changed. */
static curvd_status damp(curvd_ctx *ctx, cv_layer *layer) {
  const cv_settings *s = cv_settings_of(ctx);
  cv_applied *applied = &layer->factor[0].applied;
  double damping = cv_now(ctx, &s->damping);
  if (!layer->table_is_due && damping == layer->table_damping) return CURVD_OK;
  applied->damping = damping_of(s, damping, &applied->state, layer->factor[0].n);
  layer->table_damping = damping;
  layer->table_is_due = applied->state.kind == CV_KIND_UNITS &&
                        !make_powers(layer->m, applied->units, applied->damping, exponent_of(s), applied->kept);
  if (!layer->table_is_due) return CURVD_OK;
  return cv_fail(&ctx->error, CURVD_ERR_NUMERIC, "layer %s: a zero eigenvalue meets zero damping: raise damping",
                 layer->name);
}

/* So short that it is written at once. */
static curvd_status project(curvd_ctx *ctx, cv_layer *layer, float *out, int64_t ldo, cv_pair_sums *sums) {
  const cv_applied *applied = &layer->factor[0].applied;
  int64_t units = layer->m, ldx = layer->ldx;
  const float *X = layer->X;
  CV_TRY(damp(ctx, layer));
  if (applied->state.kind != CV_KIND_UNITS) {
    cv_copy_rows(units, 2, X, ldx, out, ldo);
  } else {
    for (int64_t i = 0; i < units; i++) {
      float gamma = X[i * ldx], beta = X[i * ldx + 1], cross = applied->kept[units + i];
      out[i * ldo] = applied->kept[i] * gamma + cross * beta;
      out[i * ldo + 1] = cross * gamma + applied->kept[2 * units + i] * beta;
    }
  }
  *sums = (cv_pair_sums){cv_sum_squares(units, 2, out, ldo), cv_dot(units, 2, out, ldo, X, ldx), true, true};
  return CURVD_OK;
}

const cv_method cv_method_unit = {
    .size = size,
    .cost = cost,
    .allocate = allocate,
    .release = release,
    .capture = capture,
    .statistics_floats = cv_factors_floats,
    .pack = cv_factors_pack,
    .absorb = cv_factors_absorb,
    .refresh = refresh,
    .header_bytes = CV_WIRE_STATE_BYTES,
    .payload_most = cv_wire_payload_most,
    .publish_header = cv_wire_publish_header,
    .payload_bytes = cv_wire_payload_bytes,
    .publish = cv_wire_publish,
    .receive = cv_wire_receive,
    .project = project,
};
