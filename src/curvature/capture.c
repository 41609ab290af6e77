#include "curvature/capture.h"

#include "base/order.h"
#include "curvature/carrier.h"
#include "linalg/dense.h"
#include "linalg/thin.h"

static bool is_sampled(const curvd_ctx *ctx, const cv_factor *factor) {
  bool is_any = factor->rule.positions > 0 || cv_settings_of(ctx)->sample_rows > 0;
  return is_any && cv_settings_of(ctx)->sample_rows != CV_ROWS_ALL && !factor->rule.is_reduced;
}

/* ---- room ---- */

/* A fully connected layer's rows are drawn from all at once. */
static curvd_status check_draw(curvd_ctx *ctx, const cv_layer *layer, const cv_factor *factor, const cv_source *x) {
  int64_t room = cv_settings_of(ctx)->capture_rows;
  if (x->window || !is_sampled(ctx, factor) || x->examples <= room) return CURVD_OK;
  return cv_fail(&ctx->error, CURVD_ERR_SIZE,
                 "layer %s, rank %d: %lld rows captured at once in step %lld, sample_rows can draw from %lld: raise "
                 "capture_rows, or capture the rows piece by piece",
                 layer->name, ctx->comm.rank, (long long)x->examples, (long long)ctx->step, (long long)room);
}

curvd_status cv_capture_check(curvd_ctx *ctx, const cv_layer *layer, const cv_factor *factor, const cv_source *x) {
  int64_t kept = cv_rows_captured(&factor->rule, x->examples);
  CV_TRY(check_draw(ctx, layer, factor, x));
  if (!factor->carrier->keeps_rows || kept <= factor->rows_room - factor->captured.rows) return CURVD_OK;
  return cv_fail(
      &ctx->error, CURVD_ERR_SIZE,
      "layer %s, rank %d: %lld rows captured in step %lld, the carrier %s of its factor of n = %lld has room "
      "for %lld: raise capture_rows, or %s",
      layer->name, ctx->comm.rank, (long long)(factor->captured.rows + kept), (long long)ctx->step,
      factor->carrier->name, (long long)factor->n, (long long)factor->rows_room,
      factor->is_spread ? "grid_min_n" : "choose another carrier");
}

/* ---- to the carrier ---- */

static void hand_over(curvd_ctx *ctx, cv_factor *factor, const cv_rows *x) {
  if (x->rows == 0) return;
  factor->carrier->add(ctx, factor, x);
  factor->captured.rows += x->rows;
}

static cv_rows tile_of(const curvd_ctx *ctx, const cv_factor *factor, const cv_source *x, int64_t rows) {
  return (cv_rows){rows, factor->ld, ctx->tile, false, x->scale};
}

/* What lies as rows is used where it is. */
static void add_all(curvd_ctx *ctx, cv_factor *factor, const cv_source *x) {
  int64_t rows = x->examples * (x->window ? cv_patches_positions(x->window) : 1);
  if (!x->window || cv_patches_are_rows(x->window)) {
    cv_rows whole = {rows, x->ld, x->X, x->has_one, x->scale};
    hand_over(ctx, factor, &whole);
    return;
  }
  for (int64_t i = 0; i < rows; i += CV_ROWS_TILE) {
    cv_rows tile = tile_of(ctx, factor, x, cv_smaller(rows - i, CV_ROWS_TILE));
    cv_patches_write(x->window, x->X, x->ld, x->has_one, i, tile.rows, ctx->tile, factor->ld);
    hand_over(ctx, factor, &tile);
  }
}

static void add_sums(curvd_ctx *ctx, cv_factor *factor, const cv_source *x) {
  for (int64_t i = 0; i < x->examples; i += CV_ROWS_TILE) {
    cv_rows tile = tile_of(ctx, factor, x, cv_smaller(x->examples - i, CV_ROWS_TILE));
    cv_patches_sums(x->window, x->X, x->ld, x->has_one, i, tile.rows, x->row_scale, ctx->tile, factor->ld);
    hand_over(ctx, factor, &tile);
  }
}

/* ---- sampling ---- */

/* Every worker draws by its own key, and every piece of a step's capture by another, or their errors would add up. */
static cv_rng key_of(const curvd_ctx *ctx, const cv_layer *layer, const cv_factor *factor) {
  const cv_settings *s = cv_settings_of(ctx);
  int64_t worker = ctx->comm.rank, which = 2 * (layer - ctx->layer) + (factor == &layer->factor[CV_G]);
  uint32_t number = (uint32_t)(which + factor->captured.examples * 2 * ctx->n_layers);
  return (cv_rng){(uint64_t)s->seed + ((uint64_t)worker << 53), CV_RNG_ROWS, number, (uint32_t)ctx->step};
}

static void measure(curvd_ctx *ctx, const cv_factor *factor, const cv_source *x) {
  if (x->window) {
    cv_patches_norms(x->window, x->X, x->ld, x->has_one, x->examples, ctx->pixels, ctx->row_norms);
  } else {
    cv_thin_norms(x->examples, factor->n, x->X, x->ld, x->has_one, ctx->row_norms);
  }
}

static void gather(curvd_ctx *ctx, const cv_factor *factor, const cv_source *x, int64_t first, int64_t count) {
  const int64_t *index = ctx->row_index + first;
  const double *weight = ctx->row_weights + first;
  if (x->window) {
    cv_patches_gather(x->window, x->X, x->ld, x->has_one, count, index, weight, ctx->tile, factor->ld);
  } else {
    cv_thin_gather(count, factor->n, x->X, x->ld, x->has_one, index, weight, ctx->tile, factor->ld);
  }
}

/* By how much the sampled trace misses that of all rows. */
static double trace_off(const curvd_ctx *ctx, int64_t rows, int64_t drawn) {
  double off = 0;
  for (int64_t i = 0; i < rows; i++) off += ctx->row_norms[i];
  for (int64_t k = 0; k < drawn; k++) off -= ctx->row_weights[k] * ctx->row_norms[ctx->row_index[k]];
  return off;
}

/* c rows drawn by their squared length stand for all; their trace is known exactly. */
static void add_drawn(curvd_ctx *ctx, const cv_layer *layer, cv_factor *factor, const cv_source *x, int64_t rows,
                      int64_t c) {
  cv_error why = {0};
  measure(ctx, factor, x);
  if (cv_thin_choose(rows, ctx->row_norms, c, key_of(ctx, layer, factor), ctx->row_index, ctx->row_weights, &why) !=
      CURVD_OK) {
    factor->captured.is_bad = true;
    return;
  }
  factor->captured.trace_off += (double)x->scale * trace_off(ctx, rows, c);
  for (int64_t i = 0; i < c; i += CV_ROWS_TILE) {
    cv_rows tile = tile_of(ctx, factor, x, cv_smaller(c - i, CV_ROWS_TILE));
    gather(ctx, factor, x, i, tile.rows);
    hand_over(ctx, factor, &tile);
  }
}

/* ---- together ---- */

static void add_piece(curvd_ctx *ctx, const cv_layer *layer, cv_factor *factor, const cv_source *x) {
  int64_t rows = x->examples * (x->window ? cv_patches_positions(x->window) : 1),
          drawn = cv_rows_drawn(&factor->rule, x->examples);
  if (x->window && x->is_reduced) {
    add_sums(ctx, factor, x);
  } else if (drawn < rows) {
    add_drawn(ctx, layer, factor, x, rows, drawn);
  } else {
    add_all(ctx, factor, x);
  }
  factor->captured.examples += x->examples;
}

/* An owner that uses its own batch has no use for others' factors. */
void cv_capture_add(curvd_ctx *ctx, const cv_layer *layer, cv_factor *factor, const cv_source *x) {
  bool is_local = cv_settings_of(ctx)->carrier == CV_CARRY_LOCAL;
  int64_t most = x->window ? cv_rows_piece(&factor->rule) : x->examples;
  if (is_local && !cv_holds_factor(layer, factor, cv_comm_my_owner(&ctx->comm))) return;
  for (int64_t i = 0; i < x->examples; i += most) {
    cv_source piece = *x;
    piece.examples = cv_smaller(x->examples - i, most);
    if (x->window) piece.X += i * cv_patches_example(x->window, x->ld);
    add_piece(ctx, layer, factor, &piece);
  }
}

/* ---- plan ---- */

curvd_status cv_capture_fits(curvd_ctx *ctx) {
  for (int32_t i = 0; i < ctx->n_layers; i++) {
    for (int f = 0; f < CV_FACTORS && ctx->layer[i].method; f++) {
      const cv_factor *factor = &ctx->layer[i].factor[f];
      if (!factor->carrier || !factor->carrier->keeps_rows || factor->rows_room <= CV_ROWS_MAX) continue;
      return cv_fail(&ctx->error, CURVD_ERR_SIZE,
                     "layer %s: %lld captured examples of %lld positions may make %lld rows, the carrier %s of its "
                     "factor of n = %lld keeps at most %lld: lower capture_rows or sample_rows, or choose another "
                     "carrier",
                     ctx->layer[i].name, (long long)cv_settings_of(ctx)->capture_rows,
                     (long long)ctx->layer[i].positions, (long long)factor->rows_room, factor->carrier->name,
                     (long long)factor->n, (long long)CV_ROWS_MAX);
    }
  }
  return CURVD_OK;
}

/* Numbers of each kind. */
typedef struct needs {
  int64_t ld, rows, drawn, pixels;
} needs;

static void add_needs(const curvd_ctx *ctx, const cv_layer *layer, int f, needs *most) {
  const cv_factor *factor = &layer->factor[f];
  const cv_rows_rule *rule = &factor->rule;
  bool draws = is_sampled(ctx, factor);
  int64_t examples = rule->positions > 0 ? cv_rows_piece(rule) : cv_settings_of(ctx)->capture_rows,
          rows = examples * cv_larger(rule->positions, 1);
  if (draws || rule->positions > 0) most->ld = cv_larger(most->ld, factor->ld);
  if (!draws) return;
  most->rows = cv_larger(most->rows, rows);
  most->drawn = cv_larger(most->drawn, cv_rows_drawn(rule, examples));
  if (rule->positions > 0) most->pixels = cv_larger(most->pixels, layer->window[f].size[0] * layer->window[f].size[1]);
}

curvd_status cv_capture_allocate(curvd_ctx *ctx) {
  needs most = {0};
  void *index = NULL;
  if (!cv_comm_is_worker(&ctx->comm)) return CURVD_OK;
  for (int32_t i = 0; i < ctx->n_layers; i++) {
    for (int f = 0; f < CV_FACTORS && ctx->layer[i].method; f++) {
      if (ctx->layer[i].factor[f].carrier) add_needs(ctx, &ctx->layer[i], f, &most); /* units take no rows */
    }
  }
  CV_TRY(cv_floats_new(&ctx->memory, CV_MEMORY_WORKSPACE, CV_ROWS_TILE * most.ld, "a tile of rows", &ctx->tile,
                       &ctx->error));
  CV_TRY(cv_doubles_new(&ctx->memory, CV_MEMORY_WORKSPACE, most.rows, "lengths of rows", &ctx->row_norms, &ctx->error));
  CV_TRY(
      cv_doubles_new(&ctx->memory, CV_MEMORY_WORKSPACE, most.drawn, "weights of rows", &ctx->row_weights, &ctx->error));
  CV_TRY(
      cv_doubles_new(&ctx->memory, CV_MEMORY_WORKSPACE, most.pixels, "lengths of pixels", &ctx->pixels, &ctx->error));
  CV_TRY(cv_memory_new(&ctx->memory, CV_MEMORY_WORKSPACE, most.drawn, sizeof *ctx->row_index, "numbers of rows", &index,
                       &ctx->error));
  ctx->row_index = index;
  return CURVD_OK;
}

void cv_capture_free(curvd_ctx *ctx) {
  void *index = ctx->row_index;
  cv_floats_free(&ctx->memory, &ctx->tile);
  cv_doubles_free(&ctx->memory, &ctx->row_norms);
  cv_doubles_free(&ctx->memory, &ctx->row_weights);
  cv_doubles_free(&ctx->memory, &ctx->pixels);
  cv_memory_free(&ctx->memory, &index);
  ctx->row_index = NULL;
}
