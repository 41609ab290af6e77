/* K-FAC and its randomized forms: A and G of every layer, each decomposed by the solver in use.
 * Martens and Grosse 2015 (arXiv:1503.05671); Puiu 2022 (arXiv:2206.15397).
 * Cost per layer: statistics rows (n^2 + m^2) flops, refresh 9 (n^3 + m^3) exact or 2 k (n^2 + m^2) a product,
 * apply 4 m n (r_A + r_G) of low rank or 4 m n (m + n) exact; words sent (n^2 + m^2) / 2 and n r_A + m r_G.
 * Bad when inputs and output gradients are far from independent; then F is not near A (x) G. */
#include "curvature/method.h"
#include "curvature/planner.h"
#include "linalg/dense.h"

#include <string.h>

static int64_t smaller(int64_t x, int64_t y) {
  return x < y ? x : y;
}

static int64_t largest_k(const cv_settings *s) {
  double rank = s->missing_trace > 0 ? (double)s->eig_rank_max : 0, scheduled = cv_schedule_max(&s->eig_rank);
  return (int64_t)(rank > scheduled ? rank : scheduled) + (int64_t)cv_schedule_max(&s->oversampling);
}

static void size(const curvd_ctx *ctx, cv_layer *layer) {
  const cv_settings *s = cv_settings_of(ctx);
  for (int f = 0; f < CV_FACTORS; f++) {
    cv_factor *factor = &layer->factor[f];
    factor->n = f == CV_A ? layer->n : layer->m;
    factor->ld = cv_dense_ld(factor->n);
    int64_t k = smaller(largest_k(s), factor->n);
    factor->is_full = s->method == CV_METHOD_KFAC || (double)k >= s->full_share * (double)factor->n;
    factor->k_max = factor->is_full ? factor->n : k;
    factor->fresh.statistics_step = factor->state.statistics_step = -1;
  }
}

static double cost(const curvd_ctx *ctx, const cv_layer *layer) {
  int64_t q = (int64_t)cv_settings_of(ctx)->warm_power_iters.piece[0].value;
  double flops = 0;
  for (int f = 0; f < CV_FACTORS; f++) {
    const cv_factor *factor = &layer->factor[f];
    flops += cv_plan_refresh_flops(factor->n, factor->k_max, q, factor->is_full);
  }
  return flops;
}

static bool is_inverse(const curvd_ctx *ctx) {
  return cv_settings_of(ctx)->form == CV_FORM_CHOLESKY;
}

static curvd_status allocate_owner(curvd_ctx *ctx, cv_factor *factor) {
  CV_TRY(cv_floats_new(&ctx->memory, CV_MEMORY_FACTORS, factor->n * factor->ld, "a running average", &factor->average,
                       &ctx->error));
  CV_TRY(cv_floats_new(&ctx->memory, CV_MEMORY_FACTORS, factor->k_max * factor->ld, "a basis", &factor->basis,
                       &ctx->error));
  return cv_floats_new(&ctx->memory, CV_MEMORY_FACTORS, factor->k_max, "eigenvalues", &factor->eigenvalues,
                       &ctx->error);
}

static curvd_status allocate_worker(curvd_ctx *ctx, cv_factor *factor) {
  CV_TRY(cv_floats_new(&ctx->memory, CV_MEMORY_STATISTICS, factor->n * factor->ld, "a statistic", &factor->statistic,
                       &ctx->error));
  if (!is_inverse(ctx)) {
    return cv_floats_new(&ctx->memory, CV_MEMORY_PRECONDITIONER, factor->k_max, "eigenvalues", &factor->side.D,
                         &ctx->error);
  }
  return cv_floats_new(&ctx->memory, CV_MEMORY_PRECONDITIONER, factor->n * factor->ld, "an inverse", &factor->inverse,
                       &ctx->error);
}

/* U_A below room for r_G rows, U_G above room for r_A rows: the last product takes both as one (pair.h). */
static curvd_status allocate_planes(curvd_ctx *ctx, cv_layer *layer) {
  cv_factor *A = &layer->factor[CV_A], *G = &layer->factor[CV_G];
  bool is_low = !A->is_full && !G->is_full;
  int64_t above = is_low ? G->k_max : 0, below = is_low ? A->k_max : 0;
  int64_t points = (A->k_max + 1) * (G->k_max + 1);
  CV_TRY(cv_floats_new(&ctx->memory, CV_MEMORY_PRECONDITIONER, (above + A->k_max) * A->ld, "a basis", &layer->rows_n,
                       &ctx->error));
  CV_TRY(cv_floats_new(&ctx->memory, CV_MEMORY_PRECONDITIONER, (below + G->k_max) * G->ld, "a basis", &layer->rows_m,
                       &ctx->error));
  CV_TRY(cv_floats_new(&ctx->memory, CV_MEMORY_PRECONDITIONER, points, "a spectral table", &layer->H, &ctx->error));
  A->side = (cv_lrps){.n = A->n, .ld = A->ld, .U = layer->rows_n + above * A->ld, .D = A->side.D};
  G->side = (cv_lrps){.n = G->n, .ld = G->ld, .U = layer->rows_m, .D = G->side.D};
  if (!is_low || !cv_follow_is_gain(ctx, layer, 0)) return CURVD_OK;
  CV_TRY(
      cv_floats_new(&ctx->memory, CV_MEMORY_PRECONDITIONER, G->k_max * A->ld, "projections", &layer->P, &ctx->error));
  return cv_floats_new(&ctx->memory, CV_MEMORY_PRECONDITIONER, A->k_max * G->ld, "projections", &layer->R, &ctx->error);
}

static curvd_status allocate(curvd_ctx *ctx, cv_layer *layer) {
  for (int f = 0; f < CV_FACTORS; f++) {
    if (cv_owns(ctx, layer)) CV_TRY(allocate_owner(ctx, &layer->factor[f]));
    if (cv_comm_is_worker(&ctx->comm)) CV_TRY(allocate_worker(ctx, &layer->factor[f]));
  }
  layer->table_is_due = true;
  if (!cv_comm_is_worker(&ctx->comm) || is_inverse(ctx)) return CURVD_OK;
  return allocate_planes(ctx, layer);
}

static void release(curvd_ctx *ctx, cv_layer *layer) {
  for (int f = 0; f < CV_FACTORS; f++) {
    cv_factor *factor = &layer->factor[f];
    float **block[] = {&factor->average,   &factor->basis,  &factor->eigenvalues,
                       &factor->statistic, &factor->side.D, &factor->inverse};
    for (size_t i = 0; i < sizeof block / sizeof block[0]; i++) cv_floats_free(&ctx->memory, block[i]);
  }
  cv_floats_free(&ctx->memory, &layer->rows_n);
  cv_floats_free(&ctx->memory, &layer->rows_m);
  cv_floats_free(&ctx->memory, &layer->H);
  cv_floats_free(&ctx->memory, &layer->P);
  cv_floats_free(&ctx->memory, &layer->R);
}

/* G is that of per-example gradients: a mean over rows examples divided each of them by rows. */
static void capture(curvd_ctx *ctx, cv_layer *layer, int64_t rows, const float *a, int64_t lda, const float *g,
                    int64_t ldg) {
  float scale = cv_settings_of(ctx)->loss_reduction == CV_LOSS_MEAN ? (float)rows * (float)rows : 1;
  if (a) cv_capture_add(&layer->factor[CV_A], rows, a, lda, layer->has_bias, 1);
  if (g) cv_capture_add(&layer->factor[CV_G], rows, g, ldg, false, scale);
}

static int64_t statistics_floats(const cv_layer *layer) {
  return cv_factor_wire_floats(layer->n) + cv_factor_wire_floats(layer->m);
}

static void pack(curvd_ctx *ctx, cv_layer *layer, float *wire) {
  cv_factor_pack(&layer->factor[CV_A], ctx->comm.rank, wire);
  cv_factor_pack(&layer->factor[CV_G], ctx->comm.rank, wire + cv_factor_wire_floats(layer->n));
}

static void absorb(curvd_ctx *ctx, cv_layer *layer, const float *wire) {
  cv_factor_absorb(ctx, layer, &layer->factor[CV_A], wire);
  cv_factor_absorb(ctx, layer, &layer->factor[CV_G], wire + cv_factor_wire_floats(layer->n));
}

/* ---- the wire of a preconditioner: two states; then of each factor D (r) and U (r, n), or the inverse's rows (n, n)
 * ---- */

static int64_t factor_floats(int64_t n, const cv_factor_state *state) {
  if (!state->is_new) return 0;
  if (state->kind == CV_KIND_INVERSE) return n * (n + 1) / 2;
  return state->kind == CV_KIND_EIGEN ? state->r * (n + 1) : 0;
}

static int64_t payload_most(const cv_layer *layer) {
  int64_t floats = 0;
  for (int f = 0; f < CV_FACTORS; f++) floats += layer->factor[f].k_max * (layer->factor[f].n + 1);
  return floats * (int64_t)sizeof(float);
}

static void publish_header(const cv_layer *layer, char *header) {
  for (int f = 0; f < CV_FACTORS; f++)
    memcpy(header + f * sizeof(cv_factor_state), &layer->factor[f].fresh, sizeof(cv_factor_state));
}

static cv_factor_state state_in(const char *header, int f) {
  cv_factor_state state;
  memcpy(&state, header + f * sizeof state, sizeof state);
  return state;
}

static int64_t payload_bytes(const cv_layer *layer, const char *header) {
  int64_t floats = 0;
  for (int f = 0; f < CV_FACTORS; f++) {
    cv_factor_state state = state_in(header, f);
    floats += factor_floats(layer->factor[f].n, &state);
  }
  return floats * (int64_t)sizeof(float);
}

static float *publish_factor(const cv_factor *factor, float *to) {
  int64_t n = factor->n, r = factor->fresh.r;
  if (!factor->fresh.is_new) return to;
  if (factor->fresh.kind == CV_KIND_INVERSE) {
    for (int64_t i = 0; i < n; to += ++i) memcpy(to, factor->basis + i * factor->ld, (size_t)(i + 1) * sizeof *to);
    return to;
  }
  if (factor->fresh.kind != CV_KIND_EIGEN) return to;
  memcpy(to, factor->eigenvalues, (size_t)r * sizeof *to);
  to += r;
  for (int64_t i = 0; i < r; i++, to += n) memcpy(to, factor->basis + i * factor->ld, (size_t)n * sizeof *to);
  return to;
}

static void publish(const cv_layer *layer, char *payload) {
  float *to = (float *)(void *)payload;
  for (int f = 0; f < CV_FACTORS; f++) to = publish_factor(&layer->factor[f], to);
}

static const float *receive_factor(cv_factor *factor, cv_factor_state state, const float *from) {
  int64_t n = factor->n, r = state.r;
  factor->state.refused = state.refused;
  if (!state.is_new) return from;
  factor->state = state;
  if (factor->state.kind == CV_KIND_INVERSE) {
    for (int64_t i = 0; i < n; from += ++i)
      memcpy(factor->inverse + i * factor->ld, from, (size_t)(i + 1) * sizeof *from);
    cv_mirror(n, factor->inverse, factor->ld);
    return from;
  }
  factor->side.r = 0;
  factor->side.tau = factor->state.tau;
  if (factor->state.kind != CV_KIND_EIGEN) return from;
  factor->side.r = r;
  memcpy(factor->side.D, from, (size_t)r * sizeof *from);
  from += r;
  for (int64_t i = 0; i < r; i++, from += n) memcpy(factor->side.U + i * factor->ld, from, (size_t)n * sizeof *from);
  return from;
}

static void receive(cv_layer *layer, const char *header, const char *payload) {
  const float *from = (const float *)(const void *)payload;
  for (int f = 0; f < CV_FACTORS; f++) {
    from = receive_factor(&layer->factor[f], state_in(header, f), from);
  }
  layer->table_is_due = true;
  layer->is_following = false;
}

const cv_method cv_method_kfac = {
    .size = size,
    .cost = cost,
    .allocate = allocate,
    .release = release,
    .capture = capture,
    .statistics_floats = statistics_floats,
    .pack = pack,
    .absorb = absorb,
    .refresh = cv_refresh_layer,
    .header_bytes = CV_FACTORS * sizeof(cv_factor_state),
    .payload_most = payload_most,
    .publish_header = publish_header,
    .payload_bytes = payload_bytes,
    .publish = publish,
    .receive = receive,
    .project = cv_precond_project,
    .expand = cv_precond_expand,
    .follow = cv_follow_gradient,
};

const cv_method *cv_method_find(cv_method_kind kind) {
  return kind == CV_METHOD_NONE ? NULL : &cv_method_kfac;
}
