#include "curvature/inject.h"

#include "curvature/carrier.h"
#include "curvature/store.h"

curvd_status curvd_inject(curvd_ctx *ctx, const curvd_fault *fault) {
  if (!ctx) return CURVD_ERR_ARGUMENT;
  ctx->error = (cv_error){0};
  cv_faults *faults = &ctx->faults;
  if (!ctx->is_planned || ctx->is_broken)
    return cv_fail(&ctx->error, CURVD_ERR_STATE, "faults are injected after curvd_plan");
  if (!fault || fault->kind < CURVD_FAULT_SOLVER || fault->kind > CURVD_FAULT_STATISTIC || fault->layer < 0 ||
      fault->layer >= ctx->n_layers || fault->factor < 0 || fault->factor >= CV_FACTORS || fault->bit < 0)
    return cv_fail(&ctx->error, CURVD_ERR_ARGUMENT, "there is no such fault");
  if (faults->n == CV_FAULTS_MAX)
    return cv_fail(&ctx->error, CURVD_ERR_SIZE, "at most %d faults are injected", (int)CV_FAULTS_MAX);
  faults->is_done[faults->n] = false;
  faults->list[faults->n++] = *fault;
  return CURVD_OK;
}

/* The next fault of a kind that is due, NULL: none. It is done then. */
static const curvd_fault *take(curvd_ctx *ctx, curvd_fault_kind kind,
                               bool (*fits)(const curvd_ctx *, const curvd_fault *, const void *), const void *what) {
  for (int i = 0; i < ctx->faults.n; i++) {
    const curvd_fault *fault = &ctx->faults.list[i];
    if (ctx->faults.is_done[i] || fault->kind != kind || ctx->step < fault->step || !fits(ctx, fault, what)) continue;
    ctx->faults.is_done[i] = true;
    return fault;
  }
  return NULL;
}

static void flip(void *x, int64_t bytes, int64_t bit) {
  unsigned char *at = x;
  if (!at || bytes <= 0) return;
  bit %= 8 * bytes;
  at[bit / 8] ^= (unsigned char)(1u << bit % 8);
}

static bool is_of_factor(const curvd_ctx *ctx, const curvd_fault *fault, const void *factor) {
  return factor == &ctx->layer[fault->layer].factor[fault->factor];
}

bool cv_inject_solver(curvd_ctx *ctx, const cv_factor *factor) {
  return take(ctx, CURVD_FAULT_SOLVER, is_of_factor, factor) != NULL;
}

static bool is_held(const curvd_ctx *ctx, const curvd_fault *fault, const void *nothing) {
  const cv_layer *layer = &ctx->layer[fault->layer];
  (void)nothing;
  return fault->factor < layer->n_factors &&
         cv_holds_factor(layer, &layer->factor[fault->factor], cv_comm_my_owner(&ctx->comm));
}

void cv_inject_owned(curvd_ctx *ctx) {
  const curvd_fault *fault;
  while ((fault = take(ctx, CURVD_FAULT_FACTOR, is_held, NULL))) {
    cv_array list[CV_ARRAYS_MAX];
    cv_factor *factor = &ctx->layer[fault->layer].factor[fault->factor];
    if (factor->store->arrays(ctx, factor, list) > 0)
      flip(*list[0].x, list[0].count * (int64_t)sizeof(float), fault->bit);
  }
}

void cv_inject_statistic(curvd_ctx *ctx, const cv_factor *factor, const float *wire) {
  const curvd_fault *fault = take(ctx, CURVD_FAULT_STATISTIC, is_of_factor, factor);
  int64_t bytes = factor->carrier->summed(factor) * (int64_t)sizeof *wire;
  if (fault) flip((void *)(uintptr_t)wire, bytes, fault->bit);
}

static bool is_from(const curvd_ctx *ctx, const curvd_fault *fault, const void *owner) {
  return cv_comm_is_worker(&ctx->comm) && cv_holds(&ctx->layer[fault->layer], *(const int *)owner);
}

void cv_inject_transfer(curvd_ctx *ctx, int owner, char *payload, int64_t bytes) {
  const curvd_fault *fault;
  while (bytes > 0 && (fault = take(ctx, CURVD_FAULT_TRANSFER, is_from, &owner))) flip(payload, bytes, fault->bit);
}

static bool is_in_force(const curvd_ctx *ctx, const curvd_fault *fault, const void *nothing) {
  const cv_factor *factor = &ctx->layer[fault->layer].factor[fault->factor];
  (void)nothing;
  return factor->applied.state.kind != CV_KIND_IDENTITY && factor->applied.state.r > 0;
}

void cv_inject_applied(curvd_ctx *ctx) {
  const curvd_fault *fault;
  while ((fault = take(ctx, CURVD_FAULT_PRECONDITIONER, is_in_force, NULL))) {
    cv_factor *factor = &ctx->layer[fault->layer].factor[fault->factor];
    cv_applied *a = &factor->applied;
    if (a->side.U) {
      flip(a->side.U, a->side.n * (int64_t)sizeof(float), fault->bit);
    } else if (a->inverse) {
      flip(a->inverse, factor->n * (int64_t)sizeof(float), fault->bit);
    } else {
      flip(a->units, cv_unit_floats(factor) * (int64_t)sizeof(float), fault->bit);
    }
  }
}
