/* The trial: workers take the time of products alone, of the run's largest transfer alone, and of both together, once
 * looking at the transfer between pieces of the products, once leaving it to the thread. With
 *
 *   overlap = 1 - max(0, t_both - t_products) / t_transfer
 *
 * the smaller t_both wins. Times are the slowest worker's, and the least of the rounds that fit into the budget, so all
 * workers choose alike. Owners that do not train serve as they would in the run. The run's own buffers travel; they
 * hold zeros before the first step, and after. */
#include "curvature/overlap.h"

#include "base/order.h"
#include "curvature/link.h"
#include "curvature/uplink_bf16.h"
#include "linalg/dense.h"

#include <math.h>

enum { ROUNDS = 16, SIDE = 256, CALIBRATIONS = 5, WAYS = 3 };

static const int64_t MOST_BYTES = 16 << 20, PROBE_BYTES = 1 << 20;
static const double PIECE_MIN_S = 1e-3, PIECE_MAX_S = 5e-3; /* of products between two looks */
static const double TRANSFER_S = 10e-3;                     /* about as long may a transfer take */
static const double SHORT_S = 1e-3; /* what is over so soon cannot be measured, and does not matter */
static const double BUDGET_S = 0.2; /* no round begins later */
static const double GAIN = 0.95;    /* by which a thread beats noise */
static const double ENOUGH = 0.95;  /* overlap by testing that a thread cannot beat */

typedef enum cv_measured { PRODUCTS, TRANSFER, BY_TEST, BY_THREAD, MEASURED } cv_measured;

typedef struct cv_trial {
  int owner; /* with the largest transfer */
  int64_t most_bytes, up_floats, row_bytes, down_bytes;
  float *room;              /* (3, SIDE, SIDE): A, B and their product */
  int64_t products, pieces; /* in a piece; in all */
  cv_transfer way[WAYS];    /* statistics, rows, preconditioners */
  double least_s[MEASURED]; /* the same on all workers */
} cv_trial;

/* ---- transfers ---- */

static int64_t bytes_of(const cv_route *route) {
  return cv_rounded_floats(&route->up) * (int64_t)sizeof(float) + route->up.row_bytes + route->down.payload_bytes;
}

/* Workers know every owner's. */
static void choose_owner(const curvd_ctx *ctx, cv_trial *trial) {
  for (int o = 1; o < ctx->comm.n_owners; o++) {
    if (bytes_of(&ctx->route[o]) > bytes_of(&ctx->route[trial->owner])) trial->owner = o;
  }
}

/* The same in all of the owner's group. Owners that train wait for statistics at once: only what they send can overlap.
 * Of statistics that ride on the gradients' sum only one worker's hand-over can. */
static void set_sizes(const curvd_ctx *ctx, cv_trial *trial, int64_t most_bytes) {
  const cv_route *route = &ctx->route[trial->owner];
  bool is_up = ctx->comm.n_curvature > 0, is_summed = is_up && !cv_is_with_gradients(ctx);
  trial->most_bytes = most_bytes;
  trial->up_floats = is_summed ? cv_smaller(cv_rounded_floats(&route->up), most_bytes / (int64_t)sizeof(float)) : 0;
  trial->row_bytes = is_up ? cv_smaller(route->up.row_bytes, most_bytes) : 0;
  trial->down_bytes = cv_smaller(route->down.payload_bytes, most_bytes);
}

/* Words of worker 0 to owners that do not train: a transfer begins, or the choice. */
static int64_t word_of_transfer(const curvd_ctx *ctx, const cv_trial *trial) {
  return trial->most_bytes * ctx->comm.n_owners + trial->owner;
}
static int64_t word_of_choice(curvd_progress_kind kind) {
  return -1 - (int64_t)kind;
}

static curvd_status begin(curvd_ctx *ctx, cv_trial *trial) {
  const cv_route *route = &ctx->route[trial->owner];
  cv_error *err = &ctx->error;
  for (int i = 0; i < WAYS; i++) trial->way[i].n = 0;
  CV_TRY(cv_coll_tell(&ctx->comm, word_of_transfer(ctx, trial), err));
  if (trial->up_floats > 0)
    CV_TRY(cv_coll_begin_reduce(&ctx->comm, trial->owner, route->up.slots, NULL, trial->up_floats, 0, &trial->way[0],
                                err));
  if (trial->row_bytes > 0)
    CV_TRY(cv_coll_begin_send(&ctx->comm, trial->owner, route->up.rows, trial->row_bytes, &trial->way[1], err));
  return cv_coll_begin_broadcast(&ctx->comm, trial->owner, "try the overlap", route->down.payloads, trial->down_bytes,
                                 &trial->way[2], err);
}

static curvd_status look(curvd_ctx *ctx, cv_trial *trial, bool *is_done) {
  bool is_all = true;
  for (int i = 0; i < WAYS; i++) {
    CV_TRY(cv_coll_test(&trial->way[i], is_done, &ctx->error));
    is_all = is_all && *is_done;
  }
  *is_done = is_all;
  return CURVD_OK;
}

/* An owner that does not train: what begin() begins, one after the other. */
static curvd_status serve(curvd_ctx *ctx, cv_trial *trial) {
  const cv_route *route = &ctx->route[trial->owner];
  cv_transfer *way = trial->way;
  cv_error *err = &ctx->error;
  if (trial->up_floats > 0) {
    float *inbox = (float *)(void *)route->up.inbox;
    CV_TRY(cv_coll_begin_reduce(&ctx->comm, trial->owner, route->up.slots, inbox, trial->up_floats, 0, way, err));
    CV_TRY(cv_coll_end(way, CV_WAIT_GENTLY, err));
  }
  for (int w = 0; w < ctx->comm.n_workers && trial->row_bytes > 0; w++) {
    CV_TRY(cv_coll_begin_receive(&ctx->comm, trial->owner, w, route->up.inbox, trial->row_bytes, way, err));
    CV_TRY(cv_coll_end(way, CV_WAIT_GENTLY, err));
  }
  CV_TRY(cv_coll_begin_broadcast(&ctx->comm, trial->owner, "try the overlap", route->down.payloads, trial->down_bytes,
                                 way, err));
  return cv_coll_end(way, CV_WAIT_GENTLY, err);
}

static curvd_status serve_all(curvd_ctx *ctx) {
  for (int64_t word = 0;;) {
    CV_TRY(cv_coll_hear(&ctx->comm, &word, &ctx->error));
    if (word < 0) {
      ctx->progress_kind = (curvd_progress_kind)(-1 - word);
      return CURVD_OK;
    }
    cv_trial trial = {.owner = (int)(word % ctx->comm.n_owners)};
    if (trial.owner != cv_comm_my_owner(&ctx->comm)) continue;
    set_sizes(ctx, &trial, word / ctx->comm.n_owners);
    CV_TRY(serve(ctx, &trial));
  }
}

/* ---- times ---- */

static void multiply(const cv_trial *trial) {
  float *A = trial->room, *B = A + (ptrdiff_t)SIDE * SIDE, *C = B + (ptrdiff_t)SIDE * SIDE;
  cv_gemm(CV_N, CV_N, SIDE, SIDE, SIDE, 1, A, SIDE, B, SIDE, 0, C, SIDE);
}

/* *seconds becomes the largest over the workers. */
static curvd_status take_slowest(curvd_ctx *ctx, double *seconds) {
  int64_t least = 0;
  CV_TRY(cv_coll_min(&ctx->comm, -(int64_t)(*seconds * 1e9), &least, &ctx->error));
  *seconds = -1e-9 * (double)least;
  return CURVD_OK;
}

static curvd_status take_time(curvd_ctx *ctx, cv_trial *trial, cv_measured what, double *seconds) {
  int64_t ignored = 0;
  bool is_done = what == PRODUCTS;
  CV_TRY(cv_coll_min(&ctx->comm, 0, &ignored, &ctx->error)); /* begin together */
  double begin_s = cv_wall_s();
  if (what != PRODUCTS) CV_TRY(begin(ctx, trial));
  cv_progress_want(&ctx->progress, what == BY_THREAD);
  for (int64_t piece = 0; piece < trial->pieces && what != TRANSFER; piece++) {
    for (int64_t i = 0; i < trial->products; i++) multiply(trial);
    if (what == BY_TEST) CV_TRY(look(ctx, trial, &is_done));
  }
  for (int64_t n = 0; !is_done; n++) {
    CV_TRY(look(ctx, trial, &is_done));
    cv_coll_pause(CV_WAIT_ACTIVE, n);
  }
  cv_progress_want(&ctx->progress, false);
  *seconds = cv_wall_s() - begin_s;
  return take_slowest(ctx, seconds);
}

/* A run looks between the products of its layers: pieces are as long as the largest of these. */
static curvd_status size_pieces(curvd_ctx *ctx, cv_trial *trial) {
  double product_s = INFINITY, entries = 0;
  for (int i = 0; i < CALIBRATIONS; i++) {
    double begin_s = cv_wall_s();
    multiply(trial);
    product_s = fmin(product_s, cv_wall_s() - begin_s);
  }
  CV_TRY(take_slowest(ctx, &product_s));
  product_s = fmax(product_s, 1e-6);
  for (int32_t i = 0; i < ctx->n_layers; i++)
    entries =
        fmax(entries, (double)ctx->layer[i].m * (double)ctx->layer[i].n * fmax((double)ctx->layer[i].positions, 1));
  double run_s = product_s * entries * (double)cv_settings_of(ctx)->capture_rows / pow(SIDE, 3);
  trial->products = (int64_t)ceil(fmin(fmax(run_s, PIECE_MIN_S), PIECE_MAX_S) / product_s);
  return CURVD_OK;
}

/* What the network does with a first part tells how much of the transfer fits into the trial. */
static curvd_status size_transfer(curvd_ctx *ctx, cv_trial *trial) {
  double seconds = 0;
  set_sizes(ctx, trial, PROBE_BYTES);
  for (int i = 0; i < 2; i++) CV_TRY(take_time(ctx, trial, TRANSFER, &seconds)); /* the first also connects */
  double fits = (double)PROBE_BYTES * TRANSFER_S / fmax(seconds, 1e-9);
  set_sizes(ctx, trial, fits < (double)MOST_BYTES ? cv_larger((int64_t)fits, PROBE_BYTES) : MOST_BYTES);
  return CURVD_OK;
}

static curvd_status run_round(curvd_ctx *ctx, cv_trial *trial) {
  for (int what = MEASURED - 1; what >= 0; what--) {
    double seconds = INFINITY;
    if (what == TRANSFER || (what == BY_THREAD && !ctx->progress.is_running)) continue;
    CV_TRY(take_time(ctx, trial, (cv_measured)what, &seconds));
    trial->least_s[what] = fmin(trial->least_s[what], seconds);
  }
  double seconds = 0;
  CV_TRY(take_time(ctx, trial, TRANSFER, &seconds));
  trial->least_s[TRANSFER] = fmin(trial->least_s[TRANSFER], seconds);
  return CURVD_OK;
}

static double overlap_of(const cv_trial *trial, cv_measured what) {
  double exposed = (trial->least_s[what] - trial->least_s[PRODUCTS]) / trial->least_s[TRANSFER];
  return fmin(fmax(1 - exposed, 0), 1);
}

static curvd_status measure(curvd_ctx *ctx, cv_trial *trial) {
  double begin_s = cv_wall_s(), seconds = 0, piece_s = 0;
  for (int i = 0; i < MEASURED; i++) trial->least_s[i] = INFINITY;
  CV_TRY(size_transfer(ctx, trial));
  CV_TRY(take_time(ctx, trial, TRANSFER, &trial->least_s[TRANSFER]));
  if (trial->least_s[TRANSFER] < SHORT_S) return CURVD_OK;
  CV_TRY(size_pieces(ctx, trial));
  trial->pieces = 1;
  CV_TRY(take_time(ctx, trial, PRODUCTS, &piece_s));
  trial->pieces = 1 + (int64_t)ceil(trial->least_s[TRANSFER] / fmax(piece_s, PIECE_MIN_S));
  for (int i = 0; i < ROUNDS && seconds < BUDGET_S && !(i > 0 && overlap_of(trial, BY_TEST) > ENOUGH); i++) {
    CV_TRY(run_round(ctx, trial));
    seconds = cv_wall_s() - begin_s;
    CV_TRY(take_slowest(ctx, &seconds));
  }
  return CURVD_OK;
}

/* ---- choice ---- */

static void judge(curvd_ctx *ctx, const cv_trial *trial) {
  double mb = 1e-6 * (double)(trial->up_floats * (int64_t)sizeof(float) + trial->row_bytes + trial->down_bytes);
  double transfer_ms = 1e3 * trial->least_s[TRANSFER];
  bool is_thread = trial->least_s[BY_THREAD] < GAIN * trial->least_s[BY_TEST] && overlap_of(trial, BY_TEST) <= ENOUGH;
  if (isinf(trial->least_s[BY_TEST])) {
    cv_log_line(&ctx->log, CV_LOG_NOTE, "the largest transfer, %.1f MB, takes %.1f ms: too short to measure", mb,
                transfer_ms);
    return;
  }
  ctx->progress_kind = is_thread ? CURVD_PROGRESS_THREAD : CURVD_PROGRESS_TEST;
  ctx->overlap_measured = overlap_of(trial, is_thread ? BY_THREAD : BY_TEST);
  double by_thread = isinf(trial->least_s[BY_THREAD]) ? NAN : overlap_of(trial, BY_THREAD);
  cv_log_line(&ctx->log, CV_LOG_NOTE,
              "a transfer of %.1f MB takes %.1f ms; behind %.1f ms of products overlap is %.0f %% by testing, %.0f %% "
              "by a thread: %s",
              mb, transfer_ms, 1e3 * trial->least_s[PRODUCTS], 100 * overlap_of(trial, BY_TEST), 100 * by_thread,
              is_thread ? "thread" : "test");
}

/* A worker's part. Threads run on all workers, or on none. */
static curvd_status try_both(curvd_ctx *ctx, cv_trial *trial) {
  cv_error ignored = {0};
  int64_t has_thread = cv_progress_start(&ctx->progress, &ignored) == CURVD_OK;
  CV_TRY(cv_coll_min(&ctx->comm, has_thread, &has_thread, &ctx->error));
  if (!has_thread) cv_progress_stop(&ctx->progress);
  choose_owner(ctx, trial);
  if (bytes_of(&ctx->route[trial->owner]) > 0) {
    CV_TRY(measure(ctx, trial));
    judge(ctx, trial);
  }
  if (ctx->progress_kind != CURVD_PROGRESS_THREAD) cv_progress_stop(&ctx->progress);
  return cv_coll_tell(&ctx->comm, word_of_choice(ctx->progress_kind), &ctx->error);
}

/* A plan without memory frees nothing, so this passing room is left out of its count. */
static curvd_status choose_by_trial(curvd_ctx *ctx) {
  cv_trial trial = {0};
  if (cv_settings_of(ctx)->dry_run) return CURVD_OK;
  curvd_status status =
      cv_floats_new(&ctx->memory, CV_MEMORY_WORKSPACE, (int64_t)3 * SIDE * SIDE, "a trial", &trial.room, &ctx->error);
  status = cv_comm_agree(&ctx->comm, CV_ALL_RANKS, status, &ctx->error);
  if (status == CURVD_OK) status = cv_comm_is_worker(&ctx->comm) ? try_both(ctx, &trial) : serve_all(ctx);
  cv_floats_free(&ctx->memory, &trial.room);
  return status;
}

curvd_status cv_overlap_choose(curvd_ctx *ctx) {
  const cv_settings *s = cv_settings_of(ctx);
  bool is_worker = cv_comm_is_worker(&ctx->comm), has_transfers = ctx->comm.n_ranks > 1 && s->method != CV_METHOD_NONE;
  ctx->overlap_measured = -1;
  if (s->progress == CV_PROGRESS_THREAD) {
    curvd_status status = CURVD_OK;
    if (!cv_progress_is_possible() || (is_worker && has_transfers && !s->dry_run))
      status = cv_progress_start(&ctx->progress, &ctx->error);
    CV_TRY(cv_comm_agree(&ctx->comm, CV_ALL_RANKS, status, &ctx->error));
  }
  if (!has_transfers) return CURVD_OK;
  ctx->progress_kind = s->progress == CV_PROGRESS_THREAD ? CURVD_PROGRESS_THREAD : CURVD_PROGRESS_TEST;
  return s->progress == CV_PROGRESS_AUTO && s->staleness != 0 ? choose_by_trial(ctx) : CURVD_OK;
}
