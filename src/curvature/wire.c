#include "curvature/wire.h"

#include "base/order.h"
#include "linalg/dense.h"

#include <string.h>

/* ---- sizes ---- */

enum { FLOAT = sizeof(float) };

static int64_t vector_bytes(const cv_factor *factor, int64_t numbers) {
  return numbers * (int64_t)(factor->publishes_bf16 ? sizeof(uint16_t) : sizeof(float));
}

/* Up to the next place for a float. */
static int64_t factor_bytes(const curvd_ctx *ctx, const cv_factor *factor, int owner, const cv_factor_state *state) {
  int64_t n = factor->n;
  cv_cyclic piece = cv_spread_piece(ctx, factor, owner);
  if (!state->is_new) return 0;
  if (state->kind == CV_KIND_INVERSE) return FLOAT * (n * (n + 1) / 2);
  if (state->kind == CV_KIND_UNITS) return FLOAT * cv_unit_floats(factor);
  if (state->kind != CV_KIND_EIGEN) return 0;
  return FLOAT * (state->r + cv_divide_up(vector_bytes(factor, state->rows * cv_cyclic_count(&piece)), FLOAT));
}

int64_t cv_wire_payload_most(const curvd_ctx *ctx, const cv_layer *layer, int owner) {
  int64_t bytes = 0;
  for (int f = 0; f < layer->n_factors; f++) {
    const cv_factor *factor = &layer->factor[f];
    int64_t kind = layer->kind == CURVD_LAYER_NORM ? CV_KIND_UNITS : CV_KIND_EIGEN;
    cv_factor_state most = {.is_new = 1, .kind = kind, .r = factor->k_max, .rows = factor->k_max};
    if (cv_holds_factor(layer, factor, owner)) bytes += factor_bytes(ctx, factor, owner, &most);
  }
  return bytes;
}

/* ---- owner ---- */

/* Of the vectors that this owner sends. */
static double rounding_of(const cv_factor *factor) {
  cv_bf16_error sum = {0};
  if (!factor->publishes_bf16 || factor->own.fresh.kind != CV_KIND_EIGEN) return 0;
  for (int64_t i = 0; i < factor->own.fresh.rows; i++)
    cv_bf16_error_add(factor->own.cols, factor->own.basis + i * factor->own.ld, &sum);
  return cv_bf16_error_of(&sum);
}

/* What this owner does not hold is not new. */
void cv_wire_publish_header(const cv_layer *layer, int owner, char *header) {
  for (int f = 0; f < layer->n_factors; f++) {
    cv_factor_state state = layer->factor[f].own.fresh;
    if (!cv_holds_factor(layer, &layer->factor[f], owner)) state.is_new = 0;
    if (state.is_new) state.wire_error = rounding_of(&layer->factor[f]);
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
  return factor_bytes(ctx, factor, owner, &state);
}

int64_t cv_wire_payload_bytes(const curvd_ctx *ctx, const cv_layer *layer, int owner, const char *header) {
  int64_t bytes = 0;
  for (int f = 0; f < layer->n_factors; f++) bytes += cv_wire_factor_bytes(ctx, &layer->factor[f], owner, header, f);
  return bytes;
}

char *cv_wire_vectors(const cv_factor_state *state, char *payload) {
  return payload + FLOAT * state->r;
}

void cv_wire_vectors_get(const cv_factor *factor, int64_t rows, int64_t columns, const char *from, float *U) {
  if (factor->publishes_bf16) {
    cv_widen_from_bf16(rows * columns, (const uint16_t *)(const void *)from, U);
  } else {
    memcpy(U, from, (size_t)(rows * columns) * sizeof *U);
  }
}

void cv_wire_vectors_put(const cv_factor *factor, int64_t rows, int64_t columns, const float *U, char *to) {
  if (factor->publishes_bf16) {
    cv_round_to_bf16(rows * columns, U, (uint16_t *)(void *)to);
  } else {
    memcpy(to, U, (size_t)(rows * columns) * sizeof *U);
  }
}

static void publish_inverse(const cv_factor *factor, float *to) {
  for (int64_t i = 0; i < factor->n; to += ++i)
    memcpy(to, factor->own.basis + i * factor->ld, (size_t)(i + 1) * sizeof *to);
}

static void publish_pairs(const cv_factor *factor, char *payload) {
  char *to = cv_wire_vectors(&factor->own.fresh, payload);
  memcpy(payload, factor->own.eigenvalues, (size_t)factor->own.fresh.r * sizeof(float));
  for (int64_t i = 0; i < factor->own.fresh.rows; i++, to += vector_bytes(factor, factor->own.cols))
    cv_wire_vectors_put(factor, 1, factor->own.cols, factor->own.basis + i * factor->own.ld, to);
}

static void publish_factor(const cv_factor *factor, char *payload) {
  switch ((cv_factor_kind)factor->own.fresh.kind) {
  case CV_KIND_INVERSE:
    publish_inverse(factor, (float *)(void *)payload);
    break;
  case CV_KIND_UNITS:
    memcpy(payload, factor->own.average, (size_t)cv_unit_floats(factor) * sizeof(float));
    break;
  case CV_KIND_EIGEN:
    publish_pairs(factor, payload);
    break;
  case CV_KIND_IDENTITY:
    break;
  }
}

void cv_wire_publish(const curvd_ctx *ctx, const cv_layer *layer, int owner, char *payload) {
  for (int f = 0; f < layer->n_factors; f++) {
    const cv_factor *factor = &layer->factor[f];
    if (!cv_holds_factor(layer, factor, owner) || !factor->own.fresh.is_new) continue;
    publish_factor(factor, payload);
    payload += factor_bytes(ctx, factor, owner, &factor->own.fresh);
  }
}

/* ---- worker ---- */

/* One that does not apply the layer keeps none. */
static void receive_inverse(cv_factor *factor, const float *from) {
  if (!factor->applied.inverse) return;
  for (int64_t i = 0; i < factor->n; from += ++i)
    memcpy(factor->applied.inverse + i * factor->ld, from, (size_t)(i + 1) * sizeof *from);
  cv_mirror(factor->n, factor->applied.inverse, factor->ld);
}

/* Columns of the eigenvectors that lie on one owner. */
static void receive_pairs(cv_factor *factor, const cv_cyclic *piece, const char *payload) {
  int64_t r = factor->applied.side.r, rows = factor->applied.state.rows, mine = cv_cyclic_count(piece);
  const char *from = payload + FLOAT * r;
  memcpy(factor->applied.side.D, payload, (size_t)r * sizeof(float));
  factor->captured.has_seed_next = factor->seeds_workers;
  for (int64_t i = 0; i < rows; i++, from += vector_bytes(factor, mine)) {
    if (factor->seeds_workers) cv_wire_vectors_get(factor, 1, mine, from, factor->captured.seed_next + i * factor->ld);
    for (int64_t j = 0, run; j < mine && i < r && factor->applied.side.U; j += run) {
      run = cv_cyclic_run(piece, j);
      cv_wire_vectors_get(factor, 1, run, from + vector_bytes(factor, j),
                          factor->applied.side.U + i * factor->ld + cv_cyclic_global(piece, j));
    }
  }
}

static void receive_factor(const curvd_ctx *ctx, cv_factor *factor, int owner, cv_factor_state state,
                           const char *payload) {
  const float *floats = (const float *)(const void *)payload;
  cv_cyclic piece = cv_spread_piece(ctx, factor, owner);
  factor->applied.state = state;
  factor->applied.is_fresh = true;
  if (state.kind == CV_KIND_INVERSE) {
    receive_inverse(factor, floats);
  } else if (state.kind == CV_KIND_UNITS) {
    if (factor->applied.units) memcpy(factor->applied.units, floats, (size_t)cv_unit_floats(factor) * sizeof *floats);
  } else {
    factor->applied.side.r = state.kind == CV_KIND_EIGEN ? state.r : 0;
    factor->applied.side.tau = state.tau;
    if (state.kind == CV_KIND_EIGEN) receive_pairs(factor, &piece, payload);
  }
}

void cv_wire_receive(curvd_ctx *ctx, cv_layer *layer, int owner, const char *header, const char *payload) {
  for (int f = 0; f < layer->n_factors; f++) {
    cv_factor *factor = &layer->factor[f];
    cv_factor_state state = state_in(header, f);
    if (!cv_holds_factor(layer, factor, owner)) continue;
    factor->applied.state.refused = state.refused;
    factor->applied.state.work_s = state.work_s;
    if (!state.is_new) continue; /* nothing, or a refresh that was skipped: tables and projections stay */
    receive_factor(ctx, factor, owner, state, payload);
    payload += factor_bytes(ctx, factor, owner, &state);
    layer->table_is_due = true;
    layer->is_following = false;
  }
}
