/* Refreshes under way, as they lie in their parcels (wire.h): of every owner the headers and payloads of its layers. */
#include "curvature/guard.h"
#include "curvature/link.h"
#include "curvature/method.h"
#include "curvature/state.h"
#include "curvature/store.h"
#include "curvature/wire.h"

#include "base/order.h"

#include <stdio.h>
#include <string.h>

int64_t cv_state_under_way(const curvd_ctx *ctx) {
  int64_t n = 0;
  for (int o = 0; o < ctx->comm.n_owners; o++) n = cv_larger(n, ctx->route[o].down.n_under_way);
  return n;
}

int64_t cv_state_room(const curvd_ctx *ctx) {
  int64_t room = INT64_MAX;
  for (int o = 0; o < ctx->comm.n_owners; o++) {
    const cv_downlink *down = &ctx->route[o].down;
    if (down->header_bytes > 0) room = cv_smaller(room, down->n_slots);
  }
  return room == INT64_MAX ? 0 : room;
}

/* In fp32 whatever they travel in, so that a state saved with one wire_precision can be loaded with the other. */
static curvd_status walk_vectors(const cv_walk *walk, const cv_factor *factor, int owner, const cv_factor_state *state,
                                 char *payload) {
  curvd_ctx *ctx = walk->ctx;
  cv_cyclic piece = cv_spread_piece(ctx, factor, owner);
  int64_t rows = state->rows, columns = cv_cyclic_count(&piece);
  char *at = cv_wire_vectors(state, payload);
  float *U = NULL;
  CV_TRY(cv_floats_new(&ctx->memory, CV_MEMORY_TRANSFER, rows * columns, "eigenvectors on their way", &U, &ctx->error));
  if (!walk->is_load) cv_wire_vectors_get(factor, rows, columns, at, U);
  curvd_status status = cv_walk_columns(walk, "U", U, rows, columns, &piece);
  if (walk->is_load && status == CURVD_OK) cv_wire_vectors_put(factor, rows, columns, U, at);
  cv_floats_free(&ctx->memory, &U);
  return status;
}

/* What came of one factor from one owner: its eigenvalues, and behind them eigenvectors; or all of it as one list. */
static curvd_status walk_payload(const cv_walk *walk, const cv_layer *layer, const cv_factor *factor, int owner,
                                 const cv_factor_state *state, char *payload) {
  bool has_numbers = walk->is_load || owner == layer->owner;
  float *floats = (float *)(void *)payload;
  int64_t n = factor->n;
  if (state->kind == CV_KIND_INVERSE) return cv_walk_floats(walk, "inverse", floats, n * (n + 1) / 2);
  if (state->kind == CV_KIND_UNITS) return cv_walk_floats(walk, "units", floats, cv_unit_floats(factor));
  if (state->kind != CV_KIND_EIGEN) return CURVD_OK;
  if (has_numbers) CV_TRY(cv_walk_floats(walk, "D", floats, state->r));
  return walk_vectors(walk, factor, owner, state, payload);
}

/* Factor f of a layer in an owner's parcel. */
static curvd_status walk_factor(cv_walk *walk, const cv_layer *layer, int f, int owner, int64_t number, char *header,
                                char *payload) {
  const cv_factor *factor = &layer->factor[f];
  char part[48];
  cv_factor_state state = {0};
  snprintf(part, sizeof part, "%s.parcel%lld", cv_state_factor(layer, f), (long long)number);
  walk->part = part;
  if (!walk->is_load) memcpy(&state, header + f * (int64_t)sizeof state, sizeof state);
  if (walk->is_load || owner == layer->owner) CV_TRY(cv_walk_factor_state(walk, "state", factor, &state));
  if (walk->is_load) memcpy(header + f * (int64_t)sizeof state, &state, sizeof state);
  curvd_status status = state.is_new ? walk_payload(walk, layer, factor, owner, &state, payload) : CURVD_OK;
  walk->part = NULL;
  return status;
}

/* The factors of one layer follow each other in the payload: what those in front take is told by the header without the
 * others. */
static curvd_status walk_layer(cv_walk *walk, const cv_layer *layer, int owner, int64_t number, char *header,
                               char *payload) {
  cv_factor_state none = {0};
  for (int f = 0; f < layer->n_factors && walk->is_load; f++)
    memcpy(header + f * (int64_t)sizeof none, &none, sizeof none);
  walk->layer = layer->name;
  for (int f = 0; f < layer->n_factors; f++) {
    if (!cv_holds_factor(layer, &layer->factor[f], owner)) continue;
    CV_TRY(walk_factor(walk, layer, f, owner, number, header, payload));
    payload += cv_wire_factor_bytes(walk->ctx, &layer->factor[f], owner, header, f);
  }
  walk->layer = NULL;
  return CURVD_OK;
}

static curvd_status walk_parcel(cv_walk *walk, int owner, int64_t number, cv_parcel *parcel) {
  curvd_ctx *ctx = walk->ctx;
  char *header = parcel->header, *payload = parcel->payload;
  for (int32_t i = 0; i < ctx->n_layers; i++) {
    const cv_layer *layer = &ctx->layer[i];
    if (!cv_holds(layer, owner)) continue;
    if (walk->is_load || cv_state_is_mine(ctx, layer)) CV_TRY(walk_layer(walk, layer, owner, number, header, payload));
    payload += layer->method->payload_bytes(ctx, layer, owner, header);
    header += layer->method->header_bytes;
  }
  if (!walk->is_load) return CURVD_OK;
  memset(header, 0, sizeof ctx->route[owner].down.events); /* counted in events_before */
  cv_guard_seal(ctx, &ctx->route[owner].down, parcel, payload - parcel->payload);
  return CURVD_OK;
}

static double step_of(const curvd_ctx *ctx, int64_t number) {
  for (int o = 0; o < ctx->comm.n_owners; o++) {
    const cv_downlink *down = &ctx->route[o].down;
    if (down->n_under_way > number) return (double)cv_down_parcel(down, number)->step;
  }
  return -1;
}

curvd_status cv_walk_under_way(cv_walk *walk, int64_t n) {
  curvd_ctx *ctx = walk->ctx;
  for (int64_t p = 0; p < n; p++) {
    char name[48];
    double step = walk->is_load ? 0 : step_of(ctx, p);
    snprintf(name, sizeof name, "under_way%lld", (long long)p);
    if (walk->is_load || ctx->comm.rank == 0) CV_TRY(cv_walk_numbers(walk, name, &step, 1));
    if (!(step >= 0 && step < (double)ctx->step))
      return cv_fail(&ctx->error, CURVD_ERR_DATA, "curvature.%s: a refresh of step %g, in front of step %lld", name,
                     step, (long long)ctx->step);
    for (int o = 0; o < ctx->comm.n_owners; o++) {
      cv_downlink *down = &ctx->route[o].down;
      if (down->header_bytes == 0) continue;
      cv_parcel *parcel = walk->is_load ? cv_down_put(ctx, down, (int64_t)step) : cv_down_parcel(down, p);
      CV_TRY(walk_parcel(walk, o, p, parcel));
    }
  }
  return CURVD_OK;
}
