#include "curvature/rebalance.h"

#include "curvature/link.h"
#include "curvature/method.h"
#include "curvature/store.h"
#include "plan/planner.h"

/* The longest load must get shorter than this share of what it was: a move makes every rank wait once. */
static const double WORTH = 0.9;

static bool is_wanted(const curvd_ctx *ctx) {
  const cv_settings *s = cv_settings_of(ctx);
  return s->rebalance_steps > 0 && s->method != CV_METHOD_NONE && ctx->comm.n_owners > 1;
}

curvd_status cv_rebalance_allocate(curvd_ctx *ctx) {
  int64_t n = ctx->n_layers, owners = ctx->comm.n_owners;
  void *numbers = NULL;
  if (!is_wanted(ctx)) return CURVD_OK;
  CV_TRY(cv_memory_new(&ctx->memory, CV_MEMORY_WORKSPACE, 4 * n, sizeof(int32_t), "owners of layers", &numbers,
                       &ctx->error));
  ctx->balance.owner = numbers;
  return cv_doubles_new(&ctx->memory, CV_MEMORY_WORKSPACE, n + owners, "costs of layers", &ctx->balance.cost,
                        &ctx->error);
}

void cv_rebalance_free(curvd_ctx *ctx) {
  void *numbers = ctx->balance.owner;
  cv_memory_free(&ctx->memory, &numbers);
  cv_doubles_free(&ctx->memory, &ctx->balance.cost);
  ctx->balance.owner = NULL;
}

/* ---- worker: what to move ---- */

static bool can_move(const cv_layer *layer) {
  return layer->method && !layer->factor[CV_A].is_spread && !layer->factor[CV_G].is_spread;
}

static double longest(const double *load, int32_t n) {
  double most = 0;
  for (int32_t o = 0; o < n; o++) most = load[o] > most ? load[o] : most;
  return most;
}

/* Layers that can move, with what they have cost since the last look; how many. */
static int32_t take_costs(curvd_ctx *ctx, int32_t *which, int32_t *owner, double *cost) {
  int32_t n = 0;
  for (int32_t i = 0; i < ctx->n_layers; i++) {
    cv_layer *layer = &ctx->layer[i];
    double work_s = layer->factor[CV_A].applied.state.work_s;
    if (!can_move(layer)) continue;
    which[n] = i;
    owner[n] = layer->owner;
    cost[n++] = work_s - layer->balanced_s;
    layer->balanced_s = work_s;
  }
  return n;
}

bool cv_rebalance_is_gain(curvd_ctx *ctx) {
  cv_balance *b = &ctx->balance;
  int32_t owners = ctx->comm.n_owners, *which = b->owner + ctx->n_layers, *owner = which + ctx->n_layers;
  double *load = b->cost + ctx->n_layers;
  if (!b->owner || ctx->step == 0 || ctx->step % cv_settings_of(ctx)->rebalance_steps != 0) return false;
  int32_t n = take_costs(ctx, which, owner, b->cost);
  for (int32_t o = 0; o < owners; o++) load[o] = 0;
  for (int32_t i = 0; i < n; i++) load[owner[i]] += b->cost[i];
  double before = longest(load, owners);
  int32_t moves = cv_plan_rebalance(b->cost, n, owners, owner, load);
  if (moves == 0 || longest(load, owners) > WORTH * before) return false;
  for (int32_t i = 0; i < ctx->n_layers; i++) b->owner[i] = ctx->layer[i].owner;
  for (int32_t i = 0; i < n; i++) b->owner[which[i]] = owner[i];
  return true;
}

/* ---- all ranks: moving ---- */

/* What is made ahead, so that a rank without memory is known before anything has changed. */
typedef struct move {
  cv_route *routes; /* the old ones */
  int32_t *owner;   /* [n_layers] the old ones */
  cv_eig_work work; /* the old one */
  void *cursors;
} move;

static bool moves_here(const curvd_ctx *ctx, const move *m, int32_t i) {
  int me = cv_comm_my_owner(&ctx->comm);
  return me >= 0 && ctx->layer[i].owner != m->owner[i] && ctx->layer[i].owner == me;
}

static bool moves_away(const curvd_ctx *ctx, const move *m, int32_t i) {
  int me = cv_comm_my_owner(&ctx->comm);
  return me >= 0 && ctx->layer[i].owner != m->owner[i] && m->owner[i] == me;
}

static void swap_owners(curvd_ctx *ctx, int32_t *owner) {
  for (int32_t i = 0; i < ctx->n_layers; i++) {
    int32_t now = ctx->layer[i].owner;
    ctx->layer[i].owner = owner[i];
    owner[i] = now;
  }
}

static curvd_status make_room(curvd_ctx *ctx, move *m) {
  m->routes = ctx->route;
  m->work = ctx->eig_work;
  ctx->route = NULL;
  ctx->eig_work = (cv_eig_work){0};
  CV_TRY(cv_routes_new(ctx, &ctx->route));
  CV_TRY(cv_links_allocate(ctx));
  CV_TRY(cv_plan_solver_room(ctx));
  CV_TRY(cv_memory_new(&ctx->memory, CV_MEMORY_WORKSPACE, 2 * (int64_t)ctx->comm.n_owners, sizeof(cv_cursor),
                       "sorting of parcels", &m->cursors, &ctx->error));
  for (int32_t i = 0; i < ctx->n_layers; i++) {
    for (int f = 0; f < ctx->layer[i].n_factors && moves_here(ctx, m, i); f++)
      CV_TRY(cv_owned_allocate(ctx, &ctx->layer[i].factor[f]));
  }
  return CURVD_OK;
}

static void release(curvd_ctx *ctx, cv_layer *layer) {
  for (int f = 0; f < layer->n_factors; f++) {
    cv_owned_release(ctx, &layer->factor[f]);
    layer->factor[f].own = (cv_owned){.fresh = {.statistics_step = -1}};
  }
}

/* As it was. */
static void undo(curvd_ctx *ctx, move *m) {
  for (int32_t i = 0; i < ctx->n_layers; i++) {
    if (moves_here(ctx, m, i)) release(ctx, &ctx->layer[i]);
  }
  cv_routes_free(ctx, &ctx->route);
  cv_solver_room_free(ctx, &ctx->eig_work);
  ctx->route = m->routes;
  ctx->eig_work = m->work;
  swap_owners(ctx, m->owner);
}

/* Layer after layer on all ranks, so that nobody waits for one that waits for it. */
static curvd_status move_factors(curvd_ctx *ctx, const move *m) {
  for (int32_t i = 0; i < ctx->n_layers; i++) {
    cv_layer *layer = &ctx->layer[i];
    for (int f = 0; f < layer->n_factors; f++) {
      if (moves_away(ctx, m, i)) CV_TRY(cv_owned_send(ctx, &layer->factor[f], layer->owner));
      if (moves_here(ctx, m, i)) CV_TRY(cv_owned_receive(ctx, &layer->factor[f], m->owner[i]));
    }
    if (moves_away(ctx, m, i)) release(ctx, layer);
  }
  return CURVD_OK;
}

static void tell(curvd_ctx *ctx, const move *m) {
  for (int32_t i = 0; i < ctx->n_layers; i++) {
    const cv_layer *layer = &ctx->layer[i];
    if (layer->owner == m->owner[i]) continue;
    ctx->my_events[CURVD_EVENT_MOVED]++;
    if (ctx->comm.rank > 0) continue;
    cv_log_line(&ctx->log, CV_LOG_NOTE, "layer %s, step %lld: moved from rank %d to rank %d, which had less to do",
                layer->name, (long long)ctx->step, cv_comm_owner_rank(&ctx->comm, m->owner[i]),
                cv_comm_owner_rank(&ctx->comm, layer->owner));
  }
}

static curvd_status move_all(curvd_ctx *ctx, move *m) {
  CV_TRY(cv_links_settle(ctx));
  swap_owners(ctx, m->owner);
  curvd_status status = cv_comm_agree(&ctx->comm, CV_ALL_RANKS, make_room(ctx, m), &ctx->error);
  if (status == CURVD_OK) {
    cv_down_repack(ctx, m->routes, m->owner, m->cursors);
    cv_routes_free(ctx, &m->routes);
    cv_solver_room_free(ctx, &m->work);
    status = move_factors(ctx, m);
    tell(ctx, m);
  } else {
    cv_log_line(&ctx->log, CV_LOG_WARNING, "step %lld: layers stay with their owners: %s", (long long)ctx->step,
                ctx->error.text);
    undo(ctx, m);
    status = CURVD_OK;
  }
  cv_memory_free(&ctx->memory, &m->cursors);
  return status;
}

curvd_status cv_rebalance(curvd_ctx *ctx) {
  move m = {.owner = ctx->balance.owner};
  cv_stage_begin(&ctx->stage[CURVD_STAGE_MOVE]);
  curvd_status status = cv_coll_share(&ctx->comm, m.owner, ctx->n_layers, &ctx->error);
  if (status == CURVD_OK) status = move_all(ctx, &m);
  cv_stage_end(&ctx->stage[CURVD_STAGE_MOVE]);
  return status;
}
