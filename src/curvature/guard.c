#include "curvature/guard.h"

#include "base/hash.h"
#include "base/order.h"
#include "curvature/store.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* How far the squares of U^T c, c random signs, may be from r: rows of U U^T - I have norms below 1e-4 (solve.c), so it
 * is 1e-4 sqrt(r) r at most. */
static const double TURN_MAX = 2e-4;

/* And the squares of (U + E)^T c, |E| <= CV_BF16_ROUNDING |U| entry by entry: 2 |U^T c| |E^T c| more, |U^T c| about
 * sqrt(r), and |E^T c| at most that times CV_BF16_ROUNDING where E looks like U; twice as much is allowed. */
static const double ROUNDED_MAX = 4 * CV_BF16_ROUNDING;

static bool guards(const curvd_ctx *ctx, cv_integrity least) {
  return (cv_integrity)cv_settings_of(ctx)->integrity >= least;
}

void cv_guard_tell(curvd_ctx *ctx, const char *format, ...) {
  char text[sizeof ctx->damage.text];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  ctx->my_events[CURVD_EVENT_DAMAGED]++;
  cv_fail(&ctx->damage, CURVD_ERR_DAMAGE, "rank %d, step %lld: %s: load an earlier state", ctx->comm.rank,
          (long long)ctx->step, text);
}

void cv_guard_forget(curvd_ctx *ctx) {
  ctx->damage = (cv_error){0};
  ctx->damaged_factor = 0;
}

/* "layer fc1, A" of a factor's number in a seal. */
static const char *name_of(const curvd_ctx *ctx, int64_t number, char text[CV_NAME_MAX + 32]) {
  int64_t i = (number - 1) / CV_FACTORS, f = (number - 1) % CV_FACTORS;
  snprintf(text, CV_NAME_MAX + 32, "a factor");
  if (number < 1 || i >= ctx->n_layers) return text;
  const cv_layer *layer = &ctx->layer[i];
  snprintf(text, CV_NAME_MAX + 32, "layer %s, %s", layer->name, cv_factor_name(layer, &layer->factor[f]));
  return text;
}

static int64_t number_of(const curvd_ctx *ctx, const cv_layer *layer, int f) {
  return (layer - ctx->layer) * CV_FACTORS + f + 1;
}

/* ---- parcels ---- */

/* A seal of a header is the last thing in it. */
static char *seal_at(const cv_downlink *down, const cv_parcel *parcel) {
  return parcel->header + down->header_bytes - (int64_t)sizeof(cv_seal);
}

static cv_seal seal_of(const cv_downlink *down, const cv_parcel *parcel) {
  cv_seal seal;
  memcpy(&seal, seal_at(down, parcel), sizeof seal);
  return seal;
}

static uint64_t header_hash(const cv_downlink *down, const cv_parcel *parcel) {
  return cv_hash(parcel->header, down->header_bytes - (int64_t)sizeof(uint64_t));
}

void cv_guard_seal(curvd_ctx *ctx, const cv_downlink *down, cv_parcel *parcel, int64_t payload_bytes) {
  cv_seal seal = {.damaged = ctx->damaged_factor};
  if (guards(ctx, CV_INTEGRITY_TRANSFERS)) seal.payload = cv_hash(parcel->payload, payload_bytes);
  memcpy(seal_at(down, parcel), &seal, sizeof seal);
  if (!guards(ctx, CV_INTEGRITY_TRANSFERS)) return;
  seal.header = header_hash(down, parcel);
  memcpy(seal_at(down, parcel), &seal, sizeof seal);
}

bool cv_guard_header_is_sound(const curvd_ctx *ctx, const cv_downlink *down, const cv_parcel *parcel) {
  return !guards(ctx, CV_INTEGRITY_TRANSFERS) || seal_of(down, parcel).header == header_hash(down, parcel);
}

void cv_guard_check_parcel(curvd_ctx *ctx, int owner, const cv_downlink *down, const cv_parcel *parcel,
                           int64_t payload_bytes) {
  cv_seal seal = seal_of(down, parcel);
  char name[CV_NAME_MAX + 32];
  int rank = cv_comm_owner_rank(&ctx->comm, owner);
  if (seal.damaged > 0)
    cv_guard_tell(ctx, "%s: what rank %d keeps of it changed in memory", name_of(ctx, seal.damaged, name), rank);
  if (!guards(ctx, CV_INTEGRITY_TRANSFERS) || seal.payload == cv_hash(parcel->payload, payload_bytes)) return;
  cv_guard_tell(ctx, "the preconditioners of rank %d of step %lld changed on their way", rank, (long long)parcel->step);
}

/* ---- eigenpairs ---- */

/* Their sum was looked at beside the trace when they were found (solve.c). */
static bool is_spectrum(const cv_factor_state *state, const float *D) {
  double sum = 0;
  for (int64_t i = 0; i < state->r; i++) {
    if (!(D[i] >= 0) || (i > 0 && D[i] > D[i - 1])) return false;
    sum += (double)D[i];
  }
  return state->tau >= 0 && isfinite(state->tau) && sum == state->kept_sum;
}

/* Block by block of columns: 2 r n flops and no memory. */
static bool is_orthonormal(const curvd_ctx *ctx, const cv_lrps *side, bool is_rounded) {
  enum { BLOCK = 64 };
  const cv_rng key = {(uint64_t)cv_settings_of(ctx)->seed, CV_RNG_PROBE, 0, (uint32_t)ctx->step};
  double squares = 0, r = (double)side->r;
  for (int64_t at = 0; at < side->n; at += BLOCK) {
    int64_t width = cv_smaller(BLOCK, side->n - at);
    float y[BLOCK] = {0};
    for (int64_t i = 0; i < side->r; i++) {
      const float *u = side->U + i * side->ld + at, sign = cv_rng_below(&key, (uint64_t)i, 2) ? 1.0f : -1.0f;
      for (int64_t j = 0; j < width; j++) y[j] += sign * u[j];
    }
    for (int64_t j = 0; j < width; j++) squares += (double)y[j] * (double)y[j];
  }
  double allowed = TURN_MAX * sqrt(r) * r + (is_rounded ? ROUNDED_MAX * r : 0);
  return fabs(squares - r) <= allowed; /* NaN is not */
}

void cv_guard_check_pairs(curvd_ctx *ctx, const cv_layer *layer, const cv_factor *factor) {
  const cv_applied *applied = &factor->applied;
  if (!guards(ctx, CV_INTEGRITY_TRANSFERS) || applied->state.kind != CV_KIND_EIGEN || applied->state.r == 0) return;
  /* now, or by the run whose state this one goes on with */
  bool is_rounded = factor->publishes_bf16 || applied->state.wire_error > 0;
  const char *what = NULL;
  if (!is_spectrum(&applied->state, applied->side.D)) what = "eigenvalues that are none of it";
  if (!what && applied->side.U && !is_orthonormal(ctx, &applied->side, is_rounded))
    what = "eigenvectors that are not orthonormal";
  if (what) cv_guard_tell(ctx, "layer %s, %s: %s have come", layer->name, cv_factor_name(layer, factor), what);
}

/* ---- at rest ---- */

static uint64_t mix(uint64_t sum, uint64_t more) {
  const uint64_t pair[2] = {sum, more};
  return cv_hash(pair, sizeof pair);
}

static uint64_t owned_hash(const curvd_ctx *ctx, cv_factor *factor) {
  cv_array list[CV_ARRAYS_MAX];
  uint64_t sum = 0;
  int n = factor->store->arrays(ctx, factor, list);
  for (int i = 0; i < n; i++) {
    if (list[i].form != CV_ARRAY_ROOM) sum = mix(sum, cv_hash(*list[i].x, list[i].count * (int64_t)sizeof(float)));
  }
  return sum;
}

void cv_guard_note_owned(curvd_ctx *ctx) {
  int me = cv_comm_my_owner(&ctx->comm);
  for (int32_t i = 0; i < ctx->n_layers && guards(ctx, CV_INTEGRITY_ALL); i++) {
    cv_layer *layer = &ctx->layer[i];
    for (int f = 0; f < layer->n_factors; f++) {
      if (cv_holds_factor(layer, &layer->factor[f], me)) layer->factor[f].own.hash = owned_hash(ctx, &layer->factor[f]);
    }
  }
}

void cv_guard_check_owned(curvd_ctx *ctx) {
  int me = cv_comm_my_owner(&ctx->comm);
  for (int32_t i = 0; i < ctx->n_layers && guards(ctx, CV_INTEGRITY_ALL); i++) {
    cv_layer *layer = &ctx->layer[i];
    for (int f = 0; f < layer->n_factors; f++) {
      if (!cv_holds_factor(layer, &layer->factor[f], me) ||
          layer->factor[f].own.hash == owned_hash(ctx, &layer->factor[f]))
        continue;
      if (ctx->damaged_factor == 0) ctx->damaged_factor = number_of(ctx, layer, f);
      cv_log_line(&ctx->log, CV_LOG_WARNING, "layer %s, step %lld: what is kept of %s changed in memory", layer->name,
                  (long long)ctx->step, cv_factor_name(layer, &layer->factor[f]));
    }
  }
}

curvd_status cv_guard_allow_save(curvd_ctx *ctx) {
  char name[CV_NAME_MAX + 32];
  if (cv_comm_my_owner(&ctx->comm) >= 0) cv_guard_check_owned(ctx);
  if (ctx->damaged_factor == 0) return CURVD_OK;
  return cv_fail(&ctx->error, CURVD_ERR_DAMAGE, "%s: what rank %d keeps of it changed in memory: it is not saved",
                 name_of(ctx, ctx->damaged_factor, name), ctx->comm.rank);
}

static uint64_t floats_hash(uint64_t sum, const float *x, int64_t rows, int64_t columns, int64_t ld) {
  for (int64_t i = 0; i < rows && x; i++) sum = mix(sum, cv_hash(x + i * ld, columns * (int64_t)sizeof *x));
  return sum;
}

/* What is in force of a factor; all_alike: without what only the worker has that applies the layer. */
static uint64_t applied_hash(const cv_layer *layer, const cv_factor *factor, bool all_alike) {
  const cv_applied *a = &factor->applied;
  const int64_t version[] = {a->state.kind, a->state.r, a->state.statistics_step};
  uint64_t sum = cv_hash(version, sizeof version);
  if (a->side.D) sum = floats_hash(sum, a->side.D, 1, a->side.r, 0);
  if (all_alike && layer->shard >= 0) return sum;
  if (a->side.U) sum = floats_hash(sum, a->side.U, a->side.r, a->side.n, a->side.ld);
  if (a->state.kind == CV_KIND_INVERSE) sum = floats_hash(sum, a->inverse, factor->n, factor->n, factor->ld);
  if (a->state.kind == CV_KIND_UNITS) sum = floats_hash(sum, a->units, 1, cv_unit_floats(factor), 0);
  return sum;
}

void cv_guard_note_applied(curvd_ctx *ctx, cv_layer *layer) {
  for (int f = 0; f < layer->n_factors && guards(ctx, CV_INTEGRITY_ALL); f++)
    layer->factor[f].applied.hash = applied_hash(layer, &layer->factor[f], false);
}

void cv_guard_check_applied(curvd_ctx *ctx) {
  for (int32_t i = 0; i < ctx->n_layers && guards(ctx, CV_INTEGRITY_ALL); i++) {
    const cv_layer *layer = &ctx->layer[i];
    for (int f = 0; f < layer->n_factors; f++) {
      const cv_factor *factor = &layer->factor[f];
      if (factor->applied.hash != applied_hash(layer, factor, false))
        cv_guard_tell(ctx, "layer %s, %s: the preconditioner in force changed in memory", layer->name,
                      cv_factor_name(layer, factor));
    }
  }
}

void cv_guard_note_all(curvd_ctx *ctx) {
  cv_guard_note_owned(ctx);
  for (int32_t i = 0; i < ctx->n_layers && cv_comm_is_worker(&ctx->comm); i++)
    cv_guard_note_applied(ctx, &ctx->layer[i]);
}

uint64_t cv_guard_replica(const curvd_ctx *ctx) {
  uint64_t sum = 0;
  for (int32_t i = 0; i < ctx->n_layers; i++) {
    const cv_layer *layer = &ctx->layer[i];
    for (int f = 0; f < layer->n_factors; f++) sum = mix(sum, applied_hash(layer, &layer->factor[f], true));
    if (layer->shard < 0 && layer->own && cv_momentum_here(cv_settings_of(ctx)) > 0)
      sum = floats_hash(sum, layer->own, layer->m, layer->n, layer->ld);
  }
  return sum;
}
