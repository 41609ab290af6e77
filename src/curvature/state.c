#include "curvature/state.h"

#include "curvature/carrier.h"
#include "curvature/guard.h"
#include "curvature/link.h"
#include "curvature/store.h"
#include "linalg/dense.h"

#include <stdio.h>
#include <string.h>

enum { STEP, UNDER_WAY, EVENTS, RUN_NUMBERS = EVENTS + CURVD_EVENTS };

/* ---- arrays ---- */

curvd_status cv_walk_array(const cv_walk *walk, const char *name, curvd_array array) {
  curvd_ctx *ctx = walk->ctx;
  char text[CURVD_ARRAY_NAME_MAX];
  if (array.rows == 0 || array.n_columns == 0) return CURVD_OK;
  snprintf(text, sizeof text, "curvature.%s%s%s%s%s", walk->layer ? walk->layer : "", walk->layer ? "." : "",
           walk->part ? walk->part : "", walk->part ? "." : "", name);
  array.name = text;
  curvd_status status = ctx->hooks.array(ctx->hooks_user, walk->is_load, &array);
  if (status == CURVD_OK) return status;
  return cv_fail(&ctx->error, status, "rank %d: the caller's hook %s %s: %s", ctx->comm.rank,
                 walk->is_load ? "did not fill" : "did not take", text, cv_status_text(status));
}

curvd_status cv_walk_numbers(const cv_walk *walk, const char *name, double *x, int64_t count) {
  return cv_walk_array(walk, name,
                       (curvd_array){.dtype = CURVD_F64,
                                     .n_rows = 1,
                                     .n_columns = count,
                                     .rows = 1,
                                     .row_stride = count,
                                     .column_stride = 1,
                                     .data = x});
}

/* (rows, columns), rows ld apart, all of it. */
static curvd_status walk_rows(const cv_walk *walk, const char *name, float *x, int64_t rows, int64_t columns,
                              int64_t ld) {
  return cv_walk_array(
      walk, name,
      (curvd_array){
          .n_rows = rows, .n_columns = columns, .rows = rows, .row_stride = ld, .column_stride = 1, .data = x});
}

curvd_status cv_walk_floats(const cv_walk *walk, const char *name, float *x, int64_t count) {
  return walk_rows(walk, name, x, 1, count, count);
}

/* Run by run of what lies together in the whole. is_triangle: x is (n, its columns), of which column j holds row j of
 * the lower triangle. */
static curvd_status walk_piece(const cv_walk *walk, const char *name, float *x, int64_t columns, bool is_triangle,
                               int64_t ld, const cv_cyclic *piece) {
  for (int64_t local = 0, n = cv_cyclic_count(piece), run; local < n; local += run) {
    run = cv_cyclic_run(piece, local);
    CV_TRY(cv_walk_array(walk, name,
                         (curvd_array){.is_triangle = is_triangle,
                                       .n_rows = piece->n,
                                       .n_columns = columns,
                                       .begin = cv_cyclic_global(piece, local),
                                       .rows = run,
                                       .row_stride = 1,
                                       .column_stride = ld,
                                       .data = x + local}));
  }
  return CURVD_OK;
}

curvd_status cv_walk_columns(const cv_walk *walk, const char *name, float *x, int64_t rows, int64_t ld,
                             const cv_cyclic *piece) {
  return walk_piece(walk, name, x, rows, false, ld, piece);
}

/* The lower triangle of x (n, n). */
static curvd_status walk_triangle(const cv_walk *walk, const char *name, float *x, int64_t n, int64_t ld) {
  return cv_walk_array(walk, name,
                       (curvd_array){.is_triangle = true,
                                     .n_rows = n,
                                     .n_columns = n,
                                     .rows = n,
                                     .row_stride = ld,
                                     .column_stride = 1,
                                     .data = x});
}

/* ---- owners ---- */

static curvd_status walk_owner_array(const cv_walk *walk, const cv_factor *factor, const cv_cyclic *piece,
                                     const cv_array *array) {
  float *x = *array->x;
  int64_t ld = factor->own.ld;
  switch (array->form) {
  case CV_ARRAY_ROWS:
    return cv_walk_columns(walk, array->name, x, array->count / ld, ld, piece);
  case CV_ARRAY_SYMMETRIC: /* spread: upper triangle */
    if (factor->is_spread) return walk_piece(walk, array->name, x, factor->n, true, ld, piece);
    return walk_triangle(walk, array->name, x, factor->n, ld);
  case CV_ARRAY_NUMBERS:
    return cv_walk_floats(walk, array->name, x, array->count);
  case CV_ARRAY_ROOM:
    break;
  }
  return CURVD_OK;
}

/* Of a spread factor each owner has its piece, and all of them the same numbers, which the layer's owner saves. */
static curvd_status walk_owner(const cv_walk *walk, const cv_layer *layer, cv_factor *factor) {
  curvd_ctx *ctx = walk->ctx;
  cv_array list[CV_ARRAYS_MAX];
  cv_cyclic piece = cv_spread_piece(ctx, factor, cv_comm_my_owner(&ctx->comm));
  bool has_numbers = walk->is_load || cv_owns(ctx, layer);
  int n = factor->store->arrays(ctx, factor, list);
  if (has_numbers) CV_TRY(cv_walk_owned(walk, factor));
  for (int i = 0; i < n; i++) {
    bool is_whole = list[i].form == CV_ARRAY_NUMBERS;
    if (!is_whole || has_numbers) CV_TRY(walk_owner_array(walk, factor, &piece, &list[i]));
  }
  return CURVD_OK;
}

/* ---- workers ---- */

const char *cv_state_factor(const cv_layer *layer, int f) {
  if (layer->kind == CURVD_LAYER_NORM) return "blocks";
  return f == CV_A ? "A" : "G";
}

bool cv_state_is_mine(const curvd_ctx *ctx, const cv_layer *layer) {
  int who = layer->shard >= 0 ? layer->shard : (int)((layer - ctx->layer) % ctx->comm.n_workers);
  return ctx->comm.rank == who;
}

static curvd_status walk_pairs(const cv_walk *walk, const cv_factor *factor) {
  const cv_lrps *side = &factor->applied.side;
  cv_cyclic whole = {.n = factor->n, .block = factor->n, .parts = 1};
  int64_t r = factor->applied.state.r;
  CV_TRY(cv_walk_floats(walk, "D", side->D, r));
  return side->U ? cv_walk_columns(walk, "U", side->U, r, side->ld, &whole) : CURVD_OK;
}

static curvd_status walk_inverse(const cv_walk *walk, cv_factor *factor) {
  float *inverse = factor->applied.inverse;
  if (!inverse) return CURVD_OK;
  CV_TRY(walk_triangle(walk, "inverse", inverse, factor->n, factor->ld));
  if (walk->is_load) cv_mirror(factor->n, inverse, factor->ld);
  return CURVD_OK;
}

/* In force, and the test matrix of sketches. */
static curvd_status walk_applied(const cv_walk *walk, cv_factor *factor) {
  cv_applied *applied = &factor->applied;
  cv_cyclic whole = {.n = factor->n, .block = factor->n, .parts = 1};
  int64_t kind, seed_rows = factor->k_max + CV_EIG_PROBES;
  CV_TRY(cv_walk_factor_state(walk, "applied", factor, &applied->state));
  kind = applied->state.kind;
  applied->side.r = kind == CV_KIND_EIGEN ? applied->state.r : 0;
  applied->side.tau = applied->state.tau;
  if (kind == CV_KIND_EIGEN) CV_TRY(walk_pairs(walk, factor));
  if (kind == CV_KIND_INVERSE) CV_TRY(walk_inverse(walk, factor));
  if (kind == CV_KIND_UNITS && applied->units)
    CV_TRY(cv_walk_floats(walk, "units", applied->units, cv_unit_floats(factor)));
  if (!factor->seeds_workers) return CURVD_OK;
  factor->captured.has_seed_next = false;
  return cv_walk_columns(walk, "seed", factor->captured.seed, seed_rows, factor->ld, &whole);
}

/* Projections follow the gradient of one worker alone; others begin anew. */
static curvd_status walk_projections(const cv_walk *walk, cv_layer *layer) {
  const cv_factor *A = &layer->factor[CV_A], *G = &layer->factor[CV_G];
  double following = layer->is_following;
  CV_TRY(cv_walk_numbers(walk, "run", &following, 1));
  layer->is_following = following == 1 && layer->P;
  if (!layer->is_following) return CURVD_OK;
  CV_TRY(walk_rows(walk, "P", layer->P, G->k_max, A->n, A->ld));
  return walk_rows(walk, "R", layer->R, A->k_max, G->n, G->ld);
}

static curvd_status walk_layer(cv_walk *walk, cv_layer *layer) {
  const curvd_ctx *ctx = walk->ctx;
  bool is_worker = cv_comm_is_worker(&ctx->comm) && (walk->is_load || cv_state_is_mine(ctx, layer));
  walk->layer = layer->name;
  if (is_worker && layer->own && cv_momentum_here(cv_settings_of(ctx)) > 0)
    CV_TRY(walk_rows(walk, "momentum", layer->own, layer->m, layer->n, layer->ld));
  if (is_worker && layer->method) CV_TRY(walk_projections(walk, layer));
  for (int f = 0; f < layer->n_factors; f++) {
    cv_factor *factor = &layer->factor[f];
    walk->part = cv_state_factor(layer, f);
    if (cv_holds_factor(layer, factor, cv_comm_my_owner(&ctx->comm))) CV_TRY(walk_owner(walk, layer, factor));
    if (is_worker) CV_TRY(walk_applied(walk, factor));
  }
  walk->part = NULL;
  if (!walk->is_load) return CURVD_OK;
  layer->table_is_due = true;
  layer->factored_step = -1;
  layer->followed_rows = 0;
  return CURVD_OK;
}

/* ---- the run ---- */

/* Those of parcels that are not open yet, too. */
static void count_events(const curvd_ctx *ctx, double *x) {
  for (int i = 0; i < CURVD_EVENTS; i++)
    x[i] = (double)(ctx->events_before[i] + (i < CV_OWNER_EVENTS ? 0 : ctx->my_events[i]));
  for (int o = 0; o < ctx->comm.n_owners; o++) {
    int64_t events[CV_OWNER_EVENTS];
    cv_down_events(ctx, o, events);
    for (int i = 0; i < CV_OWNER_EVENTS; i++) x[i] += (double)events[i];
  }
}

static curvd_status check_run(curvd_ctx *ctx, const double *x) {
  if (x[STEP] != (double)ctx->step)
    return cv_fail(&ctx->error, CURVD_ERR_DATA, "this is the state of step %.0f, not of step %lld", x[STEP],
                   (long long)ctx->step);
  int64_t room = cv_state_room(ctx);
  if (x[UNDER_WAY] >= 0 && x[UNDER_WAY] <= (double)room) return CURVD_OK;
  return cv_fail(&ctx->error, CURVD_ERR_DATA,
                 "%.0f refreshes were under way and there is room for %lld: resume with the staleness and the interval "
                 "that the state was saved with",
                 x[UNDER_WAY], (long long)room);
}

static curvd_status walk_run(cv_walk *walk) {
  curvd_ctx *ctx = walk->ctx;
  bool is_worker = cv_comm_is_worker(&ctx->comm);
  double x[RUN_NUMBERS] = {[STEP] = (double)ctx->step};
  if (is_worker) x[UNDER_WAY] = (double)cv_state_under_way(ctx);
  count_events(ctx, x + EVENTS);
  if (walk->is_load || ctx->comm.rank == 0) CV_TRY(cv_walk_numbers(walk, "run", x, RUN_NUMBERS));
  if (walk->is_load && is_worker) CV_TRY(check_run(ctx, x));
  for (int i = 0; i < CURVD_EVENTS && walk->is_load; i++) ctx->events_before[i] = (int64_t)x[EVENTS + i];
  for (int32_t i = 0; i < ctx->n_layers; i++) CV_TRY(walk_layer(walk, &ctx->layer[i]));
  walk->layer = NULL;
  return is_worker ? cv_walk_under_way(walk, (int64_t)x[UNDER_WAY]) : CURVD_OK;
}

/* begin, all arrays, end. */
static curvd_status visit(curvd_ctx *ctx, bool is_load) {
  cv_walk walk = {.ctx = ctx, .is_load = is_load};
  if (!ctx->hooks.array)
    return cv_fail(&ctx->error, CURVD_ERR_ARGUMENT, "rank %d has no hooks for the state: call curvd_on_state first",
                   ctx->comm.rank);
  curvd_status status = ctx->hooks.begin(ctx->hooks_user, is_load, ctx->step);
  if (status != CURVD_OK)
    cv_fail(&ctx->error, status, "rank %d: the caller's hook did not begin: %s", ctx->comm.rank,
            cv_status_text(status));
  if (status == CURVD_OK && !is_load) status = cv_guard_allow_save(ctx);
  if (status == CURVD_OK) status = walk_run(&walk);
  curvd_status end = ctx->hooks.end(ctx->hooks_user, is_load, status);
  if (status != CURVD_OK || end == CURVD_OK) return status;
  return cv_fail(&ctx->error, end, "rank %d: the caller's hook did not end: %s", ctx->comm.rank, cv_status_text(end));
}

/* Nothing is under way any more, and of this process's events nothing is left. */
static curvd_status forget(curvd_ctx *ctx) {
  CV_TRY(cv_links_settle(ctx));
  cv_down_forget(ctx);
  ctx->here_everywhere = 0;
  for (int32_t i = 0; i < ctx->n_layers; i++) {
    for (int f = 0; f < ctx->layer[i].n_factors; f++) cv_factor_forget(&ctx->layer[i].factor[f]);
  }
  memset(ctx->my_events, 0, sizeof ctx->my_events);
  for (int o = 0; ctx->route && o < ctx->comm.n_owners; o++)
    memset(ctx->route[o].down.events, 0, sizeof ctx->route[o].down.events);
  return CURVD_OK;
}

static curvd_status load(curvd_ctx *ctx, int64_t step) {
  curvd_status status = forget(ctx);
  ctx->step = step;
  cv_guard_forget(ctx);
  if (status == CURVD_OK) status = visit(ctx, true);
  cv_guard_note_all(ctx);
  return cv_comm_agree(&ctx->comm, CV_ALL_RANKS, status, &ctx->error);
}

static curvd_status tell(curvd_ctx *ctx, int64_t word, int64_t step) {
  if (ctx->comm.rank == 0)
    ctx->sent_bytes[CURVD_TRAFFIC_CONTROL] += (int64_t)ctx->comm.n_curvature * 2 * (int64_t)sizeof word;
  CV_TRY(cv_coll_tell(&ctx->comm, word, &ctx->error));
  return cv_coll_tell(&ctx->comm, step, &ctx->error);
}

curvd_status cv_state_save(curvd_ctx *ctx) {
  CV_TRY(tell(ctx, CV_WORD_SAVE, ctx->step));
  CV_TRY(cv_down_wait_all(ctx));
  return cv_comm_agree(&ctx->comm, CV_WORKERS, visit(ctx, false), &ctx->error);
}

curvd_status cv_state_load(curvd_ctx *ctx, int64_t step) {
  CV_TRY(tell(ctx, CV_WORD_LOAD, step));
  return load(ctx, step);
}

/* A curvature rank whose part cannot be saved goes on serving: its hook knows. */
curvd_status cv_state_serve(curvd_ctx *ctx, int64_t word) {
  int64_t step = 0;
  CV_TRY(cv_coll_hear(&ctx->comm, &step, &ctx->error));
  curvd_status status;
  if (word == CV_WORD_LOAD) {
    status = load(ctx, step);
  } else {
    ctx->step = step;
    status = visit(ctx, false);
  }
  if (status != CURVD_OK && status != CURVD_ERR_MPI) ctx->error = (cv_error){0};
  return status == CURVD_ERR_MPI ? status : CURVD_OK;
}
