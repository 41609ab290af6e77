/* The public functions: check the arguments, then one call. */
#include "curvature/conv.h"
#include "curvature/guard.h"
#include "curvature/internal.h"
#include "curvature/link.h"
#include "curvature/method.h"
#include "curvature/overlap.h"
#include "curvature/state.h"
#include "linalg/dense.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Behind those of curvd.h. */
enum { FLAG_DAMAGE = 1 << CURVD_FLAGS };
_Static_assert((int)CURVD_FLAGS < (int)CV_FLAGS, "comm.h carries the flags of curvd.h, and one more");

static curvd_status fail(curvd_ctx *ctx, curvd_status code, const char *why) {
  ctx->error = (cv_error){0};
  return cv_fail(&ctx->error, code, "%s", why);
}

/* ---- life cycle ---- */

curvd_status curvd_create(MPI_Comm comm, curvd_ctx **out) {
  if (!out) return CURVD_ERR_ARGUMENT;
  *out = NULL;
  curvd_ctx *ctx = calloc(1, sizeof *ctx);
  if (!ctx) return CURVD_ERR_MEMORY;
  cv_settings_init(&ctx->book);
  ctx->clip_scale = 1;
  curvd_status status = cv_comm_create(comm, &ctx->comm, &ctx->error);
  if (status != CURVD_OK) {
    free(ctx);
    return status;
  }
  cv_record(ctx);
  *out = ctx;
  return CURVD_OK;
}

curvd_status curvd_create_f(MPI_Fint comm, curvd_ctx **ctx) {
  return curvd_create(MPI_Comm_f2c(comm), ctx);
}

/* Whatever is under way must end before its memory does, on either side. */
static curvd_status finish(curvd_ctx *ctx) {
  if (ctx->is_finished) return CURVD_OK;
  return cv_comm_is_worker(&ctx->comm) ? cv_step_finish(ctx) : cv_step_serve(ctx);
}

void curvd_destroy(curvd_ctx **ctx) {
  if (!ctx || !*ctx) return;
  bool can_run = (*ctx)->is_planned && !(*ctx)->is_broken && !cv_settings_of(*ctx)->dry_run;
  if (can_run) finish(*ctx);
  cv_progress_stop(&(*ctx)->progress);
  cv_plan_free(*ctx);
  cv_comm_free(&(*ctx)->comm, &(*ctx)->memory);
  free((*ctx)->layer);
  free(*ctx);
  *ctx = NULL;
}

curvd_status curvd_set(curvd_ctx *ctx, const char *key, const char *value) {
  if (!ctx) return CURVD_ERR_ARGUMENT;
  ctx->error = (cv_error){0};
  if (ctx->is_planned) return fail(ctx, CURVD_ERR_STATE, "curvd_set comes before curvd_plan");
  return cv_settings_put(&ctx->book, key, value, &ctx->error);
}

const char *curvd_get(const curvd_ctx *ctx, const char *key) {
  int row = 0;
  cv_error ignored = {0};
  if (!ctx || cv_settings_row(key, &row, &ignored) != CURVD_OK) return NULL;
  return ctx->book.text[row];
}

static curvd_status check_layer(curvd_ctx *ctx, const char *name, int64_t d_in, int64_t d_out) {
  if (ctx->is_planned) return fail(ctx, CURVD_ERR_STATE, "curvd_layer_add comes before curvd_plan");
  if (!name || !*name || strlen(name) >= CV_NAME_MAX)
    return fail(ctx, CURVD_ERR_ARGUMENT, "a layer needs a name of 1 to 63 characters");
  if (d_in < 1 || d_out < 1 || d_in >= CV_DENSE_MAX || d_out >= CV_DENSE_MAX) {
    return cv_fail(&ctx->error, CURVD_ERR_ARGUMENT, "layer %s: sizes %lld x %lld are outside 1 .. %lld", name,
                   (long long)d_out, (long long)d_in, (long long)CV_DENSE_MAX - 1);
  }
  for (int32_t i = 0; i < ctx->n_layers; i++) {
    if (strcmp(ctx->layer[i].name, name) == 0)
      return cv_fail(&ctx->error, CURVD_ERR_ARGUMENT, "layer %s was added before: names are unique", name);
  }
  return CURVD_OK;
}

static curvd_status make_room(curvd_ctx *ctx) {
  if (ctx->n_layers < ctx->layers_room) return CURVD_OK;
  int32_t room = ctx->layers_room ? 2 * ctx->layers_room : 16;
  cv_layer *layer = realloc(ctx->layer, (size_t)room * sizeof *layer);
  if (!layer) return fail(ctx, CURVD_ERR_MEMORY, "no memory for another layer");
  ctx->layer = layer;
  ctx->layers_room = room;
  return CURVD_OK;
}

static curvd_status add_layer(curvd_ctx *ctx, curvd_layer_kind kind, const char *name, int64_t d_in, int64_t d_out,
                              bool has_bias, int32_t *index, cv_layer **added) {
  CV_TRY(check_layer(ctx, name, d_in, d_out));
  CV_TRY(make_room(ctx));
  cv_layer *layer = &ctx->layer[ctx->n_layers];
  *layer = (cv_layer){
      .kind = kind, .d_in = d_in, .d_out = d_out, .m = d_out, .n = d_in + has_bias, .has_bias = has_bias, .owner = -1};
  layer->ld = kind == CURVD_LAYER_NORM ? layer->n : cv_dense_ld(layer->n); /* 2 numbers a row: padding would be most */
  snprintf(layer->name, sizeof layer->name, "%s", name);
  if (index) *index = ctx->n_layers;
  ctx->n_layers++;
  *added = layer;
  return CURVD_OK;
}

curvd_status curvd_layer_add(curvd_ctx *ctx, const char *name, int64_t d_in, int64_t d_out, bool has_bias,
                             int32_t *index) {
  cv_layer *added;
  if (!ctx) return CURVD_ERR_ARGUMENT;
  ctx->error = (cv_error){0};
  return add_layer(ctx, CURVD_LAYER_DENSE, name, d_in, d_out, has_bias, index, &added);
}

curvd_status curvd_layer_add_norm(curvd_ctx *ctx, const char *name, int64_t channels, int32_t *index) {
  cv_layer *added;
  if (!ctx) return CURVD_ERR_ARGUMENT;
  ctx->error = (cv_error){0};
  return add_layer(ctx, CURVD_LAYER_NORM, name, 1, channels, true, index, &added);
}

curvd_status curvd_layer_add_conv(curvd_ctx *ctx, const char *name, const curvd_conv *shape, bool has_bias,
                                  int32_t *index) {
  cv_layer *added;
  cv_patches inputs, outputs;
  if (!ctx) return CURVD_ERR_ARGUMENT;
  ctx->error = (cv_error){0};
  if (!shape) return fail(ctx, CURVD_ERR_ARGUMENT, "curvd_layer_add_conv needs a shape");
  CV_TRY(cv_conv_make(name ? name : "", shape, &inputs, &outputs, &ctx->error));
  CV_TRY(add_layer(ctx, CURVD_LAYER_DENSE, name, cv_patches_columns(&inputs), shape->c_out, has_bias, index, &added));
  added->positions = cv_patches_positions(&inputs);
  added->window[CV_A] = inputs;
  added->window[CV_G] = outputs;
  return CURVD_OK;
}

static uint64_t window_hash(uint64_t hash, const cv_patches *p) {
  hash = (hash * 31 + (uint64_t)p->channels) * 31 + p->is_channels_first;
  for (int i = 0; i < 2; i++) {
    const int64_t number[] = {p->size[i], p->kernel[i], p->stride[i], p->pad[i], p->dilation[i]};
    for (size_t k = 0; k < sizeof number / sizeof number[0]; k++) hash = (hash ^ (uint64_t)number[k]) * 1099511628211u;
  }
  return hash;
}

static uint64_t layers_hash(const curvd_ctx *ctx) {
  uint64_t hash = (uint64_t)ctx->n_layers;
  for (int32_t i = 0; i < ctx->n_layers; i++) {
    const cv_layer *layer = &ctx->layer[i];
    for (const char *c = layer->name; *c; c++) hash = hash * 1099511628211u + (unsigned char)*c;
    hash = (hash * 31 + (uint64_t)layer->d_in) * 31 + (uint64_t)layer->d_out;
    hash = (hash * 31 + layer->has_bias) * 31 + (uint64_t)layer->kind;
    if (layer->positions > 0) hash = window_hash(hash, &layer->window[CV_A]);
  }
  return hash;
}

static curvd_status plan(curvd_ctx *ctx) {
  CV_TRY(cv_comm_same(&ctx->comm, cv_settings_hash(&ctx->book), "their options", &ctx->error));
  CV_TRY(cv_comm_same(&ctx->comm, layers_hash(ctx), "their layers", &ctx->error));
  CV_TRY(cv_settings_resolve(&ctx->book, &ctx->error));
  CV_TRY(cv_comm_split(&ctx->comm, cv_settings_of(ctx)->curvature_ranks, &ctx->memory, &ctx->error));
  CV_TRY(cv_comm_agree(&ctx->comm, CV_ALL_RANKS, cv_plan_make(ctx), &ctx->error));
  if (!cv_settings_of(ctx)->dry_run) cv_guard_note_all(ctx);
  return cv_overlap_choose(ctx);
}

curvd_status curvd_plan(curvd_ctx *ctx) {
  if (!ctx) return CURVD_ERR_ARGUMENT;
  ctx->error = (cv_error){0};
  if (ctx->is_planned) return fail(ctx, CURVD_ERR_STATE, "curvd_plan was called before");
  curvd_status status = plan(ctx);
  ctx->is_planned = true;
  ctx->is_broken = status != CURVD_OK;
  return status;
}

curvd_role curvd_role_get(const curvd_ctx *ctx) {
  return ctx && ctx->is_planned && !cv_comm_is_worker(&ctx->comm) ? CURVD_ROLE_CURVATURE : CURVD_ROLE_WORKER;
}

int curvd_worker_count(const curvd_ctx *ctx) {
  return ctx ? ctx->comm.n_workers : 0;
}

int curvd_worker_index(const curvd_ctx *ctx) {
  return ctx && cv_comm_is_worker(&ctx->comm) ? ctx->comm.rank : -1;
}

/* ---- training ---- */

static curvd_status check_running(curvd_ctx *ctx, bool worker_only) {
  ctx->error = (cv_error){0};
  if (!ctx->is_planned || ctx->is_broken) return fail(ctx, CURVD_ERR_STATE, "curvd_plan must succeed first");
  if (cv_settings_of(ctx)->dry_run)
    return fail(ctx, CURVD_ERR_STATE, "this is a plan without memory (dry_run): nothing can be run");
  if (worker_only && !cv_comm_is_worker(&ctx->comm))
    return fail(ctx, CURVD_ERR_STATE, "this is a curvature rank: it calls curvd_serve");
  return CURVD_OK;
}

bool curvd_wants_capture(const curvd_ctx *ctx) {
  return ctx && ctx->is_planned && !ctx->is_broken && cv_comm_is_worker(&ctx->comm) && cv_step_wants_statistics(ctx);
}

/* Of a convolution between pixels, or with channels first between examples. */
static int64_t least_ld(const cv_layer *layer, int f) {
  const cv_patches *p = &layer->window[f];
  if (layer->positions == 0) return f == CV_A ? layer->d_in : layer->d_out;
  return p->channels * (p->is_channels_first ? p->size[0] * p->size[1] : 1);
}

static curvd_status check_capture(curvd_ctx *ctx, int32_t index, int64_t rows, const float *a, int64_t lda,
                                  const float *g, int64_t ldg) {
  CV_TRY(check_running(ctx, true));
  if (index < 0 || index >= ctx->n_layers)
    return cv_fail(&ctx->error, CURVD_ERR_ARGUMENT, "there is no layer %d: %d were added", index, ctx->n_layers);
  const cv_layer *layer = &ctx->layer[index];
  bool is_norm = layer->kind == CURVD_LAYER_NORM;
  int64_t least_a = is_norm ? layer->d_out : least_ld(layer, CV_A), least_g = least_ld(layer, CV_G);
  if (is_norm && rows > 0 && (!a || !g))
    return cv_fail(&ctx->error, CURVD_ERR_ARGUMENT,
                   "layer %s normalises: capture needs its gradients in gamma and in beta, both of the same rows",
                   layer->name);
  if (rows < 0 || !cv_dense_fits(rows) || (a && lda < least_a) || (g && ldg < least_g)) {
    return cv_fail(&ctx->error, CURVD_ERR_ARGUMENT,
                   "layer %s: %lld rows with lda %lld (at least %lld), ldg %lld (at least %lld)", layer->name,
                   (long long)rows, (long long)lda, (long long)least_a, (long long)ldg, (long long)least_g);
  }
  if (layer->positions > 0 && rows > CV_ROWS_MAX / layer->positions)
    return cv_fail(&ctx->error, CURVD_ERR_ARGUMENT,
                   "layer %s: %lld examples of %lld positions at once: capture at most %lld, and the others after them",
                   layer->name, (long long)rows, (long long)layer->positions,
                   (long long)(CV_ROWS_MAX / layer->positions));
  return CURVD_OK;
}

curvd_status curvd_capture(curvd_ctx *ctx, int32_t index, int64_t rows, const float *a, int64_t lda, const float *g,
                           int64_t ldg) {
  if (!ctx) return CURVD_ERR_ARGUMENT;
  CV_TRY(check_capture(ctx, index, rows, a, lda, g, ldg));
  cv_layer *layer = &ctx->layer[index];
  if (!layer->method || !cv_step_wants_statistics(ctx)) return cv_links_advance(ctx);
  cv_stage_begin(&ctx->stage[CURVD_STAGE_CAPTURE]);
  curvd_status status = layer->method->capture(ctx, layer, rows, a, lda, g, ldg);
  cv_stage_end(&ctx->stage[CURVD_STAGE_CAPTURE]);
  return status == CURVD_OK ? cv_links_advance(ctx) : status;
}

curvd_status curvd_capture_gradient(curvd_ctx *ctx, int32_t index, int64_t rows, const float *a, int64_t lda,
                                    const float *g, int64_t ldg, float scale) {
  if (!ctx) return CURVD_ERR_ARGUMENT;
  CV_TRY(check_capture(ctx, index, rows, a, lda, g, ldg));
  if (!a || !g) return fail(ctx, CURVD_ERR_ARGUMENT, "curvd_capture_gradient needs both a and g");
  cv_layer *layer = &ctx->layer[index];
  if (!layer->method || !layer->method->follow) return cv_links_advance(ctx);
  cv_stage_begin(&ctx->stage[CURVD_STAGE_FOLLOW]);
  layer->method->follow(ctx, layer, rows, a, lda, g, ldg, scale);
  cv_stage_end(&ctx->stage[CURVD_STAGE_FOLLOW]);
  return cv_links_advance(ctx);
}

bool curvd_is_factored(const curvd_ctx *ctx, int32_t index) {
  return ctx && ctx->is_planned && !ctx->is_broken && index >= 0 && index < ctx->n_layers &&
         ctx->layer[index].is_factored;
}

/* The caller's memory must hold a gradient of the layer. */
static bool is_gradient(const cv_layer *layer, const curvd_gradient *g) {
  bool is_bias_bad = layer->has_bias && (!g->bias || g->bias_stride < 1 || (g->parameter && !g->parameter_bias));
  return g->weight && g->ld >= layer->d_in && cv_dense_fits(g->ld) && !is_bias_bad;
}

static curvd_status fail_gradient(curvd_ctx *ctx, const cv_layer *layer) {
  return cv_fail(&ctx->error, CURVD_ERR_ARGUMENT, "layer %s: the gradient needs a weight with ld >= %lld%s",
                 layer->name, (long long)layer->d_in,
                 layer->has_bias ? " and a bias with stride >= 1, the same for parameters" : "");
}

static curvd_status check_precondition(curvd_ctx *ctx, const cv_layer *layer, int64_t rows, const float *a,
                                       const float *g, float scale, float keep, const curvd_gradient *to) {
  if (ctx->is_finished) return fail(ctx, CURVD_ERR_STATE, "curvd_precondition after curvd_finish");
  if (!layer->is_factored)
    return cv_fail(&ctx->error, CURVD_ERR_STATE,
                   "layer %s is not factored: curvd_step preconditions its gradient (option apply)", layer->name);
  if ((rows > 0 && (!a || !g)) || !to || !isfinite(scale) || !isfinite(keep))
    return cv_fail(&ctx->error, CURVD_ERR_ARGUMENT,
                   "layer %s: curvd_precondition needs a, g, to, and finite scale and keep, not %g and %g", layer->name,
                   (double)scale, (double)keep);
  return is_gradient(layer, to) ? CURVD_OK : fail_gradient(ctx, layer);
}

curvd_status curvd_precondition(curvd_ctx *ctx, int32_t index, int64_t rows, const float *a, int64_t lda,
                                const float *g, int64_t ldg, float scale, float keep, const curvd_gradient *to) {
  if (!ctx) return CURVD_ERR_ARGUMENT;
  CV_TRY(check_capture(ctx, index, rows, a, lda, g, ldg));
  CV_TRY(check_precondition(ctx, &ctx->layer[index], rows, a, g, scale, keep, to));
  return cv_step_precondition(ctx, &ctx->layer[index], rows, a, lda, g, ldg, scale, keep, to);
}

curvd_status curvd_progress(curvd_ctx *ctx) {
  if (!ctx) return CURVD_ERR_ARGUMENT;
  CV_TRY(check_running(ctx, true));
  return cv_links_advance(ctx);
}

static curvd_status check_step(curvd_ctx *ctx, double lr, const curvd_gradient *gradients, int32_t n_layers) {
  if (n_layers != ctx->n_layers || !gradients)
    return cv_fail(&ctx->error, CURVD_ERR_ARGUMENT, "curvd_step needs %d gradients, not %d", ctx->n_layers, n_layers);
  if (!(lr >= 0) || !isfinite(lr))
    return cv_fail(&ctx->error, CURVD_ERR_ARGUMENT, "learning rate %g is not a number >= 0", lr);
  for (int32_t i = 0; i < n_layers; i++) {
    const cv_layer *layer = &ctx->layer[i];
    if (!is_gradient(layer, &gradients[i])) return fail_gradient(ctx, layer);
    if (!layer->is_factored || layer->factored_step == ctx->step) continue;
    return cv_fail(&ctx->error, CURVD_ERR_STATE,
                   "layer %s, step %lld: rank %d has not called curvd_precondition, so its gradient is no direction: "
                   "call it first, without examples with 0 rows",
                   layer->name, (long long)ctx->step, ctx->comm.rank);
  }
  return CURVD_OK;
}

/* All workers take the step, or none; what each of them has to tell comes to all. */
static curvd_status agree_on_step(curvd_ctx *ctx, curvd_status mine) {
  bool is_damaged = ctx->damage.code != CURVD_OK;
  uint32_t raised = ctx->flags_mine | (is_damaged ? FLAG_DAMAGE : 0), all = 0;
  curvd_status status = cv_comm_agree_flags(&ctx->comm, mine, raised, &all, &ctx->error);
  ctx->flags = all & (FLAG_DAMAGE - 1);
  ctx->flags_mine = 0;
  if (status != CURVD_OK || !(all & FLAG_DAMAGE)) return status;
  if (is_damaged) return cv_fail(&ctx->error, CURVD_ERR_DAMAGE, "%s", ctx->damage.text);
  return cv_fail(&ctx->error, CURVD_ERR_REMOTE,
                 "another worker has found changed numbers: its curvd_last_error names them");
}

curvd_status curvd_step(curvd_ctx *ctx, double lr, const curvd_gradient *gradients, int32_t n_layers) {
  if (!ctx) return CURVD_ERR_ARGUMENT;
  CV_TRY(check_running(ctx, true));
  if (ctx->is_finished) return fail(ctx, CURVD_ERR_STATE, "curvd_step after curvd_finish");
  curvd_status status = check_step(ctx, lr, gradients, n_layers);
  status = agree_on_step(ctx, status);
  return status == CURVD_OK ? cv_step_run(ctx, lr, gradients) : status;
}

curvd_status curvd_serve(curvd_ctx *ctx) {
  if (!ctx) return CURVD_ERR_ARGUMENT;
  CV_TRY(check_running(ctx, false));
  if (cv_comm_is_worker(&ctx->comm)) return CURVD_OK;
  curvd_status status = finish(ctx);
  ctx->is_broken = status != CURVD_OK;
  return status;
}

curvd_status curvd_finish(curvd_ctx *ctx) {
  if (!ctx) return CURVD_ERR_ARGUMENT;
  CV_TRY(check_running(ctx, true));
  return finish(ctx);
}

/* ---- state ---- */

curvd_status curvd_on_state(curvd_ctx *ctx, const curvd_state_hooks *hooks, void *user) {
  if (!ctx) return CURVD_ERR_ARGUMENT;
  ctx->error = (cv_error){0};
  if (!hooks || !hooks->begin || !hooks->array || !hooks->end)
    return fail(ctx, CURVD_ERR_ARGUMENT, "curvd_on_state needs the hooks begin, array and end");
  ctx->hooks = *hooks;
  ctx->hooks_user = user;
  return CURVD_OK;
}

/* Captures are part of no state. */
static curvd_status check_captures(const curvd_ctx *ctx, cv_error *err) {
  for (int32_t i = 0; i < ctx->n_layers; i++) {
    for (int f = 0; f < ctx->layer[i].n_factors; f++) {
      if (ctx->layer[i].factor[f].captured.rows == 0) continue;
      return cv_fail(err, CURVD_ERR_STATE, "layer %s, rank %d: captured statistics wait for curvd_step: call it first",
                     ctx->layer[i].name, ctx->comm.rank);
    }
  }
  return CURVD_OK;
}

static curvd_status begin_state(curvd_ctx *ctx, bool is_load) {
  CV_TRY(check_running(ctx, true));
  if (ctx->is_finished) return fail(ctx, CURVD_ERR_STATE, "the state is saved and loaded before curvd_finish");
  curvd_status status = is_load ? CURVD_OK : check_captures(ctx, &ctx->error);
  return cv_comm_agree(&ctx->comm, CV_WORKERS, status, &ctx->error);
}

curvd_status curvd_save(curvd_ctx *ctx) {
  if (!ctx) return CURVD_ERR_ARGUMENT;
  CV_TRY(begin_state(ctx, false));
  return cv_state_save(ctx);
}

curvd_status curvd_load(curvd_ctx *ctx, int64_t step) {
  if (!ctx) return CURVD_ERR_ARGUMENT;
  CV_TRY(begin_state(ctx, true));
  if (step < 0) return cv_fail(&ctx->error, CURVD_ERR_ARGUMENT, "there is no step %lld", (long long)step);
  return cv_state_load(ctx, step);
}

curvd_status curvd_check(curvd_ctx *ctx, uint64_t *replica) {
  if (!ctx) return CURVD_ERR_ARGUMENT;
  CV_TRY(check_running(ctx, true));
  cv_guard_check_applied(ctx);
  if (replica) *replica = cv_guard_replica(ctx);
  if (ctx->damage.code == CURVD_OK) return CURVD_OK;
  return cv_fail(&ctx->error, CURVD_ERR_DAMAGE, "%s", ctx->damage.text);
}

void curvd_raise(curvd_ctx *ctx, uint32_t flags) {
  if (ctx) ctx->flags_mine |= flags & ((1u << CURVD_FLAGS) - 1);
}

uint32_t curvd_flags(const curvd_ctx *ctx) {
  return ctx ? ctx->flags : 0;
}

/* ---- errors and version ---- */

const char *curvd_last_error(const curvd_ctx *ctx) {
  return ctx ? ctx->error.text : "";
}

const char *curvd_status_name(curvd_status code) {
  return cv_status_name(code);
}

const char *curvd_status_text(curvd_status code) {
  return cv_status_text(code);
}

curvd_status curvd_log_to(curvd_ctx *ctx, void (*write)(void *user, int level, const char *line), void *user,
                          int level) {
  if (!ctx) return CURVD_ERR_ARGUMENT;
  ctx->log = (cv_log){write, user, level};
  return CURVD_OK;
}
