/* Owners and memory: everything that a run will need, sized once. */
#include "base/order.h"
#include "curvature/capture.h"
#include "curvature/factor_plan.h"
#include "curvature/internal.h"
#include "curvature/link.h"
#include "curvature/method.h"
#include "curvature/precision.h"
#include "curvature/rebalance.h"
#include "curvature/rounding.h"
#include "curvature/store.h"
#include "linalg/dense.h"
#include "plan/planner.h"

#include <stdio.h>
#include <string.h>

cv_plan_run cv_planned_run(const curvd_ctx *ctx) {
  cv_plan_run run = cv_plan_run_of(cv_settings_of(ctx), ctx->comm.n_workers);
  for (int32_t i = 0; i < ctx->n_layers; i++) {
    cv_plan_layer layer = cv_planned_layer(&ctx->layer[i]);
    run.row_bytes += cv_plan_row_bytes(&run, &layer);
  }
  return run;
}

cv_plan_layer cv_planned_layer(const cv_layer *layer) {
  return (cv_plan_layer){.m = layer->m,
                         .n = layer->n,
                         .is_skipped = layer->method == NULL,
                         .is_unit = layer->kind == CURVD_LAYER_NORM,
                         .positions = layer->positions};
}

static void choose_methods(curvd_ctx *ctx) {
  const cv_settings *s = cv_settings_of(ctx);
  for (int32_t i = 0; i < ctx->n_layers; i++) {
    cv_layer *layer = &ctx->layer[i];
    layer->owner = -1;
    layer->method = cv_method_find((cv_method_kind)s->method, layer->kind);
    if (!layer->method) {
      snprintf(layer->reason, sizeof layer->reason, "method none");
    } else if (cv_is_skipped(s->skip, layer->name)) {
      snprintf(layer->reason, sizeof layer->reason, "skip list");
      layer->method = NULL;
    } else {
      bool can_be_factored = layer->method->precondition && layer->positions == 0;
      layer->is_factored = s->apply == CV_APPLY_FACTORED && can_be_factored;
      ctx->is_factored = s->apply == CV_APPLY_FACTORED; /* refreshes land as if all were (cv_landing_age) */
      layer->method->size(ctx, layer);
    }
  }
}

/* Longest processing time first over the layers that have a method; scratch holds their costs, loads and numbers. */
static curvd_status assign_owners(curvd_ctx *ctx) {
  int32_t n = ctx->n_layers, owners = ctx->comm.n_owners, used = 0;
  double *cost = NULL;
  void *numbers = NULL;
  curvd_status status = cv_doubles_new(&ctx->memory, CV_MEMORY_WORKSPACE, n + owners, "the plan", &cost, &ctx->error);
  if (status == CURVD_OK) {
    status = cv_memory_new(&ctx->memory, CV_MEMORY_WORKSPACE, 4 * (int64_t)n, sizeof(int32_t), "the plan", &numbers,
                           &ctx->error);
  }
  if (status == CURVD_OK) {
    int32_t *which = numbers, *owner = which + n, *order = owner + n;
    for (int32_t i = 0; i < n; i++) {
      if (!ctx->layer[i].method) continue;
      cost[used] = ctx->layer[i].method->cost(ctx, &ctx->layer[i]);
      which[used++] = i;
    }
    cv_plan_owners(cost, used, owners, owner, cost + n, order);
    for (int32_t i = 0; i < used; i++) ctx->layer[which[i]].owner = owner[i];
  }
  cv_memory_free(&ctx->memory, &numbers);
  cv_doubles_free(&ctx->memory, &cost);
  return status;
}

static curvd_status allocate_layers(curvd_ctx *ctx) {
  bool is_worker = cv_comm_is_worker(&ctx->comm);
  for (int32_t i = 0; i < ctx->n_layers; i++) {
    cv_layer *layer = &ctx->layer[i];
    if (is_worker && cv_settings_of(ctx)->method != CV_METHOD_NONE && cv_shard_applies(ctx, layer)) {
      CV_TRY(
          cv_floats_new(&ctx->memory, CV_MEMORY_MOMENTUM, layer->m * layer->ld, "momentum", &layer->own, &ctx->error));
    }
    if (layer->method) CV_TRY(layer->method->allocate(ctx, layer));
  }
  return CURVD_OK;
}

static curvd_status allocate_routes(curvd_ctx *ctx) {
  CV_TRY(cv_routes_new(ctx, &ctx->route));
  CV_TRY(cv_links_connect(ctx));
  ctx->memory.is_dry = cv_settings_of(ctx)->dry_run;
  CV_TRY(cv_links_allocate(ctx));
  bool needs_bucket =
      cv_comm_is_worker(&ctx->comm) && ctx->comm.n_workers > 1 && cv_settings_of(ctx)->grad_reduction != CV_GRAD_NONE;
  if (!needs_bucket) return CURVD_OK;
  ctx->bucket_votes = cv_down_votes(ctx);
  for (int o = 0; o < ctx->comm.n_owners && cv_is_with_gradients(ctx); o++)
    ctx->bucket_statistics += ctx->route[o].up.n_floats;
  return cv_floats_new(&ctx->memory, CV_MEMORY_TRANSFER,
                       ctx->bucket_floats + ctx->bucket_votes + ctx->bucket_statistics, "the gradients", &ctx->bucket,
                       &ctx->error);
}

/* Of lrps_rows.h, for a block of rows. */
static int64_t rows_work_floats(const cv_layer *layer) {
  const cv_factor *A = &layer->factor[CV_A], *G = &layer->factor[CV_G];
  if (!layer->is_factored) return 0;
  return cv_lrps_rows_direction_scratch(G->n, G->k_max, A->n, A->k_max, CV_LRPS_ROWS_BLOCK);
}

/* Workspace of the applies: planes only where a side is full or a method works on dense inverses, and X is projected.
 */
static curvd_status allocate_apply(curvd_ctx *ctx) {
  int64_t plane = 0, core = 0, scatter = 0, thin = 0, rows = 0;
  for (int32_t i = 0; i < ctx->n_layers; i++) {
    const cv_layer *layer = &ctx->layer[i];
    const cv_factor *A = &layer->factor[CV_A], *G = &layer->factor[CV_G];
    if (!layer->method) continue;
    scatter = cv_larger(scatter, layer->m * layer->ld);
    rows = cv_larger(rows, rows_work_floats(layer));
    if (!cv_precond_has_pair(ctx, layer)) continue;
    if (A->is_full || G->is_full) plane = cv_larger(plane, 2 * layer->m * layer->ld);
    core = cv_larger(core, A->k_max * G->k_max);
    if (layer->follows)
      thin = cv_larger(thin, cv_larger(CV_THIN_ROWS * cv_larger(A->k_max, G->k_max), layer->m + layer->n));
  }
  CV_TRY(cv_floats_new(&ctx->memory, CV_MEMORY_WORKSPACE, rows, "workspace", &ctx->rows_work, &ctx->error));
  CV_TRY(cv_floats_new(&ctx->memory, CV_MEMORY_WORKSPACE, thin, "workspace", &ctx->thin, &ctx->error));
  CV_TRY(cv_floats_new(&ctx->memory, CV_MEMORY_WORKSPACE, plane, "workspace", &ctx->plane, &ctx->error));
  CV_TRY(cv_floats_new(&ctx->memory, CV_MEMORY_WORKSPACE, core, "workspace", &ctx->core, &ctx->error));
  return cv_floats_new(&ctx->memory, CV_MEMORY_WORKSPACE, scatter, "workspace", &ctx->scatter, &ctx->error);
}

/* ---- solvers ---- */

/* Is any factor spread? And the largest sizes of those. */
static bool is_any_spread(const curvd_ctx *ctx, int64_t *n_max, int64_t *k_max) {
  bool is_any = false;
  for (int32_t i = 0; i < ctx->n_layers; i++) {
    for (int f = 0; f < CV_FACTORS; f++) {
      const cv_factor *factor = &ctx->layer[i].factor[f];
      if (!factor->is_spread) continue;
      is_any = true;
      *n_max = cv_larger(*n_max, factor->n);
      *k_max = cv_larger(*k_max, factor->k_max);
    }
  }
  return is_any;
}

static void choose_solvers(curvd_ctx *ctx, int64_t n, int64_t k) {
  const cv_settings *s = cv_settings_of(ctx);
  bool is_slab = s->grid_product == CV_PRODUCT_SLAB ||
                 (s->grid_product == CV_PRODUCT_AUTO && cv_plan_slab_is_faster(n, k, ctx->comm.n_owners));
  ctx->solver = s->method == CV_METHOD_KFAC ? &cv_eig_exact : &cv_eig_rand;
  ctx->spread_solver = s->method == CV_METHOD_KFAC ? &cv_eig_exact_dist
                       : is_slab                   ? &cv_eig_rand_slab
                                                   : &cv_eig_rand_dist;
}

static curvd_status make_grid(curvd_ctx *ctx) {
  int64_t n = 0, k = 0;
  ctx->has_grid = is_any_spread(ctx, &n, &k);
  choose_solvers(ctx, n, k);
  if (!ctx->has_grid || cv_comm_my_owner(&ctx->comm) < 0) return CURVD_OK;
  return cv_grid_create(ctx->comm.owners, ctx->comm.n_owners, 1, &ctx->memory, &ctx->grid, &ctx->error);
}

/* Room of a factor's solver. */
static curvd_status solver_needs(curvd_ctx *ctx, const cv_layer *layer, const cv_factor *factor, cv_eig_scratch *most) {
  const cv_grid *grid = factor->is_spread ? &ctx->grid : NULL;
  cv_error why = {0};
  if (cv_solver_of(ctx, factor)->fits(factor->n, factor->k_max, grid, &why) != CURVD_OK)
    return cv_fail(&ctx->error, why.code, "layer %s: %s", layer->name, why.text);
  cv_eig_scratch need = factor->store->scratch(ctx, factor);
  most->floats = cv_larger(most->floats, need.floats);
  most->doubles = cv_larger(most->doubles, need.doubles);
  most->ints = cv_larger(most->ints, need.ints);
  return CURVD_OK;
}

curvd_status cv_plan_solver_room(curvd_ctx *ctx) {
  cv_eig_scratch most = {0};
  for (int32_t i = 0; i < ctx->n_layers; i++) {
    for (int f = 0; f < ctx->layer[i].n_factors; f++) {
      const cv_factor *factor = &ctx->layer[i].factor[f];
      bool is_mine = cv_holds_factor(&ctx->layer[i], factor, cv_comm_my_owner(&ctx->comm));
      if (is_mine && factor->store->scratch && cv_settings_of(ctx)->form == CV_FORM_EIGEN)
        CV_TRY(solver_needs(ctx, &ctx->layer[i], factor, &most));
    }
  }
  return cv_solver_room_new(ctx, most, &ctx->eig_work);
}

static curvd_status allocate_solver(curvd_ctx *ctx) {
  int64_t block = 0, sketched = 0;
  for (int32_t i = 0; i < ctx->n_layers; i++) {
    for (int f = 0; f < ctx->layer[i].n_factors; f++) {
      const cv_factor *factor = &ctx->layer[i].factor[f];
      if (factor->is_spread) block = cv_larger(block, CV_GRID_BLOCK * factor->n);
      if (factor->store == &cv_store_stream)
        sketched = cv_larger(sketched, cv_stream_add_scratch(factor->k_max + CV_EIG_PROBES));
    }
  }
  CV_TRY(cv_floats_new(&ctx->memory, CV_MEMORY_TRANSFER, block, "a block of statistics", &ctx->block, &ctx->error));
  bool rounds = cv_settings_of(ctx)->wire_precision == CV_BF16; /* one worker's numbers are widened, too */
  if (!cv_comm_is_worker(&ctx->comm) && cv_coll_sums_parts(&ctx->comm) && (ctx->comm.n_workers > 1 || rounds))
    CV_TRY(cv_floats_new(&ctx->memory, CV_MEMORY_TRANSFER, block, "a block of statistics", &ctx->block_inbox,
                         &ctx->error));
  CV_TRY(cv_capture_allocate(ctx));
  CV_TRY(cv_floats_new(&ctx->memory, CV_MEMORY_WORKSPACE, sketched, "a sketch", &ctx->sketched, &ctx->error));
  CV_TRY(cv_rounding_allocate(ctx));
  CV_TRY(cv_rebalance_allocate(ctx));
  return cv_plan_solver_room(ctx);
}

curvd_status cv_plan_make(curvd_ctx *ctx) {
  choose_methods(ctx);
  CV_TRY(cv_comm_agree(&ctx->comm, CV_ALL_RANKS, cv_precision_make(ctx), &ctx->error));
  CV_TRY(cv_capture_fits(ctx));
  CV_TRY(cv_comm_agree(&ctx->comm, CV_ALL_RANKS, assign_owners(ctx), &ctx->error)); /* a grid is made together */
  CV_TRY(make_grid(ctx));
  CV_TRY(cv_shard_plan(ctx));
  CV_TRY(allocate_routes(ctx));
  CV_TRY(cv_shard_allocate(ctx));
  CV_TRY(allocate_layers(ctx));
  if (cv_comm_is_worker(&ctx->comm)) CV_TRY(allocate_apply(ctx));
  return allocate_solver(ctx);
}

void cv_plan_free(curvd_ctx *ctx) {
  for (int32_t i = 0; i < ctx->n_layers; i++) {
    cv_floats_free(&ctx->memory, &ctx->layer[i].own);
    if (ctx->layer[i].method) ctx->layer[i].method->release(ctx, &ctx->layer[i]);
  }
  cv_routes_free(ctx, &ctx->route);
  cv_shard_free(ctx);
  cv_rebalance_free(ctx);
  float **block[] = {&ctx->bucket, &ctx->plane, &ctx->core, &ctx->scatter, &ctx->thin, &ctx->rows_work};
  for (size_t i = 0; i < sizeof block / sizeof block[0]; i++) cv_floats_free(&ctx->memory, block[i]);
  cv_floats_free(&ctx->memory, &ctx->block);
  cv_floats_free(&ctx->memory, &ctx->block_inbox);
  cv_floats_free(&ctx->memory, &ctx->sketched);
  cv_capture_free(ctx);
  cv_rounding_free(ctx);
  cv_precision_free(ctx);
  cv_solver_room_free(ctx, &ctx->eig_work);
  cv_grid_free(&ctx->grid, &ctx->memory);
}
