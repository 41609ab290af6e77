#include "curvature/wire.h"

#include "linalg/dense.h"

#include <string.h>

static int64_t factor_floats(const curvd_ctx *ctx, const cv_factor *factor, int owner, const cv_factor_state *state) {
  int64_t n = factor->n;
  cv_cyclic piece = cv_spread_piece(ctx, factor, owner);
  if (!state->is_new) return 0;
  if (state->kind == CV_KIND_INVERSE) return n * (n + 1) / 2;
  if (state->kind == CV_KIND_UNITS) return cv_unit_floats(factor);
  return state->kind == CV_KIND_EIGEN ? state->rows * cv_cyclic_count(&piece) + state->r : 0;
}

int64_t cv_wire_payload_most(const curvd_ctx *ctx, const cv_layer *layer, int owner) {
  int64_t floats = 0;
  for (int f = 0; f < layer->n_factors; f++) {
    const cv_factor *factor = &layer->factor[f];
    int64_t kind = layer->kind == CURVD_LAYER_NORM ? CV_KIND_UNITS : CV_KIND_EIGEN;
    cv_factor_state most = {.is_new = 1, .kind = kind, .r = factor->k_max, .rows = factor->k_max};
    if (cv_holds_factor(layer, factor, owner)) floats += factor_floats(ctx, factor, owner, &most);
  }
  return floats * (int64_t)sizeof(float);
}

/* What this owner does not hold is not new. */
void cv_wire_publish_header(const cv_layer *layer, int owner, char *header) {
  for (int f = 0; f < layer->n_factors; f++) {
    cv_factor_state state = layer->factor[f].own.fresh;
    if (!cv_holds_factor(layer, &layer->factor[f], owner)) state.is_new = 0;
    memcpy(header + f * sizeof state, &state, sizeof state);
  }
}

static cv_factor_state state_in(const char *header, int f) {
  cv_factor_state state;
  memcpy(&state, header + f * sizeof state, sizeof state);
  return state;
}

int64_t cv_wire_factor_bytes(const curvd_ctx *ctx, const cv_factor *factor, int owner, const char *header, int f) {
  cv_factor_state state = state_in(header, f);
  return factor_floats(ctx, factor, owner, &state) * (int64_t)sizeof(float);
}

int64_t cv_wire_payload_bytes(const curvd_ctx *ctx, const cv_layer *layer, int owner, const char *header) {
  int64_t bytes = 0;
  for (int f = 0; f < layer->n_factors; f++) bytes += cv_wire_factor_bytes(ctx, &layer->factor[f], owner, header, f);
  return bytes;
}

static float *publish_factor(const cv_factor *factor, float *to) {
  int64_t n = factor->n, r = factor->own.fresh.r, rows = factor->own.fresh.rows, mine = factor->own.cols;
  if (factor->own.fresh.kind == CV_KIND_INVERSE) {
    for (int64_t i = 0; i < n; to += ++i) memcpy(to, factor->own.basis + i * factor->ld, (size_t)(i + 1) * sizeof *to);
    return to;
  }
  if (factor->own.fresh.kind == CV_KIND_UNITS) {
    memcpy(to, factor->own.average, (size_t)cv_unit_floats(factor) * sizeof *to);
    return to + cv_unit_floats(factor);
  }
  if (factor->own.fresh.kind != CV_KIND_EIGEN) return to;
  memcpy(to, factor->own.eigenvalues, (size_t)r * sizeof *to);
  to += r;
  for (int64_t i = 0; i < rows; i++, to += mine)
    memcpy(to, factor->own.basis + i * factor->own.ld, (size_t)mine * sizeof *to);
  return to;
}

void cv_wire_publish(const cv_layer *layer, int owner, char *payload) {
  float *to = (float *)(void *)payload;
  for (int f = 0; f < layer->n_factors; f++) {
    const cv_factor *factor = &layer->factor[f];
    if (cv_holds_factor(layer, factor, owner) && factor->own.fresh.is_new) to = publish_factor(factor, to);
  }
}

/* A worker that does not apply the layer keeps none. */
static const float *receive_inverse(cv_factor *factor, const float *from) {
  if (!factor->applied.inverse) return from + factor->n * (factor->n + 1) / 2;
  for (int64_t i = 0; i < factor->n; from += ++i)
    memcpy(factor->applied.inverse + i * factor->ld, from, (size_t)(i + 1) * sizeof *from);
  cv_mirror(factor->n, factor->applied.inverse, factor->ld);
  return from;
}

static const float *receive_units(cv_factor *factor, const float *from) {
  int64_t floats = cv_unit_floats(factor);
  if (factor->applied.units) memcpy(factor->applied.units, from, (size_t)floats * sizeof *from);
  return from + floats;
}

/* Columns of the eigenvectors that lie on one owner. */
static const float *receive_pairs(cv_factor *factor, const cv_cyclic *piece, const float *from) {
  int64_t r = factor->applied.side.r, rows = factor->applied.state.rows, mine = cv_cyclic_count(piece);
  memcpy(factor->applied.side.D, from, (size_t)r * sizeof *from);
  factor->captured.has_seed_next = factor->seeds_workers;
  from += r;
  for (int64_t i = 0; i < rows; i++, from += mine) {
    if (factor->seeds_workers) memcpy(factor->captured.seed_next + i * factor->ld, from, (size_t)mine * sizeof *from);
    for (int64_t j = 0, run; j < mine && i < r && factor->applied.side.U; j += run) {
      run = cv_cyclic_run(piece, j);
      memcpy(factor->applied.side.U + i * factor->ld + cv_cyclic_global(piece, j), from + j,
             (size_t)run * sizeof *from);
    }
  }
  return from;
}

static const float *receive_factor(const curvd_ctx *ctx, cv_factor *factor, int owner, cv_factor_state state,
                                   const float *from) {
  cv_cyclic piece = cv_spread_piece(ctx, factor, owner);
  factor->applied.state = state;
  factor->applied.is_fresh = true;
  if (state.kind == CV_KIND_INVERSE) return receive_inverse(factor, from);
  if (state.kind == CV_KIND_UNITS) return receive_units(factor, from);
  factor->applied.side.r = state.kind == CV_KIND_EIGEN ? state.r : 0;
  factor->applied.side.tau = state.tau;
  return state.kind == CV_KIND_EIGEN ? receive_pairs(factor, &piece, from) : from;
}

void cv_wire_receive(curvd_ctx *ctx, cv_layer *layer, int owner, const char *header, const char *payload) {
  const float *from = (const float *)(const void *)payload;
  for (int f = 0; f < layer->n_factors; f++) {
    cv_factor *factor = &layer->factor[f];
    cv_factor_state state = state_in(header, f);
    if (!cv_holds_factor(layer, factor, owner)) continue;
    factor->applied.state.refused = state.refused;
    factor->applied.state.work_s = state.work_s;
    if (!state.is_new) continue; /* nothing, or a refresh that was skipped: tables and projections stay */
    from = receive_factor(ctx, factor, owner, state, from);
    layer->table_is_due = true;
    layer->is_following = false;
  }
}
