#include "curvature/uplink_bf16.h"

#include "base/order.h"
#include "curvature/carrier.h"

#include <string.h>

int64_t cv_rounded_exact(const cv_uplink *up) {
  return up->n_floats - up->n_rounded;
}

int64_t cv_rounded_floats(const cv_uplink *up) {
  return cv_rounded_exact(up) + cv_divide_up(up->n_rounded, 2);
}

/* ---- room ---- */

/* Rows of one factor, at its owner. */
static int64_t most_rows(const curvd_ctx *ctx) {
  int64_t most = 0;
  for (int32_t i = 0; i < ctx->n_layers; i++) {
    const cv_layer *layer = &ctx->layer[i];
    for (int f = 0; f < layer->n_factors; f++) {
      const cv_factor *factor = &layer->factor[f];
      bool is_mine = cv_holds_factor(layer, factor, cv_comm_my_owner(&ctx->comm));
      if (is_mine && factor->sends_bf16 && factor->carrier->sends_rows)
        most = cv_larger(most, factor->rows_room * factor->n);
    }
  }
  return most;
}

curvd_status cv_rounded_allocate(curvd_ctx *ctx) {
  int64_t most = most_rows(ctx);
  int at = 0;
  for (int o = 0; o < ctx->comm.n_owners; o++) {
    const cv_uplink *up = &ctx->route[o].up;
    if (up->n_rounded > 0 && up->n_floats > most) most = up->n_floats, at = o;
  }
  if (most == 0) return CURVD_OK;
  return cv_floats_new(&ctx->memory, CV_MEMORY_TRANSFER, most, "numbers before and after they are rounded",
                       &ctx->route[at].up.wide, &ctx->error);
}

float *cv_rounded_room(const curvd_ctx *ctx) {
  for (int o = 0; o < ctx->comm.n_owners; o++) {
    if (ctx->route[o].up.wide) return ctx->route[o].up.wide;
  }
  return NULL;
}

void cv_rounded_tell(curvd_ctx *ctx) {
  int all = 0, sent = 0, published = 0;
  for (int32_t i = 0; i < ctx->n_layers; i++) {
    for (int f = 0; f < ctx->layer[i].n_factors && ctx->layer[i].method; f++) {
      all++;
      sent += ctx->layer[i].factor[f].sends_bf16;
      published += ctx->layer[i].factor[f].publishes_bf16;
    }
  }
  if (ctx->comm.rank > 0 || ctx->comm.n_ranks == 1 || cv_settings_of(ctx)->wire_precision != CV_BF16) return;
  cv_log_line(&ctx->log, CV_LOG_NOTE,
              "wire_precision bf16: statistics of %d and eigenvectors of %d factors of %d; others stay fp32", sent,
              published, all);
}

/* ---- numbers ---- */

/* Calls with the numbers of each factor that the owner holds: rounded ones first, then those that travel as they are.
 */
typedef struct cursor {
  float *wide, *exact;
  void *rounded; /* bf16 on the way out, floats when summed */
} cursor;

typedef void (*move_factor)(cursor *at, int64_t rounded, int64_t exact);

static void visit(const curvd_ctx *ctx, int owner, cursor at, move_factor move) {
  for (int32_t i = 0; i < ctx->n_layers; i++) {
    const cv_layer *layer = &ctx->layer[i];
    for (int f = 0; f < layer->n_factors; f++) {
      const cv_factor *factor = &layer->factor[f];
      if (!cv_holds_factor(layer, factor, owner)) continue;
      int64_t rounded = cv_factor_rounded(factor), exact = cv_factor_wire_floats(factor) - rounded;
      move(&at, rounded, exact);
      at.wide += rounded + exact;
      at.exact += exact;
    }
  }
}

static void send_factor(cursor *at, int64_t rounded, int64_t exact) {
  uint16_t *to = at->rounded;
  cv_round_to_bf16(rounded, at->wide, to);
  memcpy(at->exact, at->wide + rounded, (size_t)exact * sizeof *at->exact);
  at->rounded = to + rounded;
}

static void take_factor(cursor *at, int64_t rounded, int64_t exact) {
  const float *from = at->rounded;
  memcpy(at->wide, from, (size_t)rounded * sizeof *from);
  memcpy(at->wide + rounded, at->exact, (size_t)exact * sizeof *at->exact);
  at->rounded = (float *)at->rounded + rounded;
}

void cv_rounded_send(const curvd_ctx *ctx, int owner, const float *wide, float *slot) {
  float *from = (float *)(uintptr_t)wide; /* which is only read */
  visit(ctx, owner, (cursor){from, slot, slot + cv_rounded_exact(&ctx->route[owner].up)}, send_factor);
}

void cv_rounded_take(const curvd_ctx *ctx, int owner, const float *slot, float *wide) {
  float *from = (float *)(uintptr_t)slot; /* which is only read */
  visit(ctx, owner, (cursor){wide, from, from + cv_rounded_exact(&ctx->route[owner].up)}, take_factor);
}
