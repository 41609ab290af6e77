#include "curvature/window.h"

#include "linalg/dense.h"

#include <math.h>
#include <string.h>

/* A share of the missing trace that has grown by so much was a jump: its directions are new to the seed. */
static const double JUMP = 1.2;

/* Of a history with less than this share of the trace, what the difference of two fp32 sums leaves of its directions is
 * noise, which a solve would refuse: they leave about FLT_EPSILON of the trace, and a solve forgives a thousandfold of
 * that of its own. */
static const double NOISE = 1e-3;

static int64_t stream_floats(const cv_factor *factor) {
  return (factor->k_max + CV_EIG_PROBES) * factor->ld;
}

void cv_window_size(const curvd_ctx *ctx, cv_factor *factor) {
  cv_window *window = &factor->own.window;
  window->room = factor->seeds_workers ? 0 : cv_settings_of(ctx)->window_rows;
  window->ld = factor->ld;
  window->history = (cv_stream){.n = factor->n, .k = factor->k_max, .ld = factor->ld};
  cv_window_clear(window);
}

int cv_window_arrays(cv_factor *factor, cv_array *list) {
  cv_window *window = &factor->own.window;
  if (window->room == 0) return 0;
  list[0] = (cv_array){&window->X, window->room * window->ld, "window", CV_ARRAY_ROWS};
  list[1] = (cv_array){&window->history.Omega, stream_floats(factor), "history_test_matrix", CV_ARRAY_ROOM};
  list[2] = (cv_array){&window->history.Y, stream_floats(factor), "history_sketch", CV_ARRAY_ROOM};
  return 3;
}

cv_eig_scratch cv_window_scratch(const cv_factor *factor) {
  return cv_stream_repair_scratch(factor->n, factor->k_max);
}

void cv_window_clear(cv_window *window) {
  window->rows = 0;
  window->weight = 1;
  window->is_whole = window->room > 0;
}

void cv_window_add(cv_window *window, int64_t n, cv_weights w, int64_t rows, const float *X, int64_t ldx) {
  if (w.keep == 0) cv_window_clear(window); /* nothing of the past is left */
  if (w.keep > 0) window->weight *= w.keep;
  window->is_whole = window->is_whole && rows <= window->room - window->rows && window->weight > 0;
  if (!window->is_whole) return;
  float root = (float)sqrt(w.add / window->weight);
  cv_mix(rows, n, root, X, ldx, 0, window->X + window->rows * window->ld, window->ld);
  window->rows += rows;
}

bool cv_window_is_wanted(const cv_window *window, double before, double now) {
  return window->is_whole && window->rows > 0 && (before < 0 || now > JUMP * before);
}

/* The stream without the window's rows; a history of noise counts as isotropic. Products of the probes stay exact. */
static void make_history(curvd_ctx *ctx, const cv_factor *factor, cv_stream_rows rows, cv_stream *history) {
  int64_t k = factor->k_max + CV_EIG_PROBES;
  memcpy(history->Omega, factor->own.stream.Omega, (size_t)stream_floats(factor) * sizeof(float));
  memcpy(history->Y, factor->own.stream.Y, (size_t)stream_floats(factor) * sizeof(float));
  rows.weight = -rows.weight;
  cv_stream_add(NULL, k, factor->n, history->Omega, history->ld, &rows, 1, history->Y, history->ld, ctx->sketched);
  history->trace = fmax(0, factor->own.stream.trace + cv_stream_trace(&rows, factor->n));
  if (history->trace <= NOISE * factor->own.stream.trace)
    memset(history->Y, 0, (size_t)(factor->k_max * history->ld) * sizeof(float));
}

curvd_status cv_window_repair(curvd_ctx *ctx, cv_factor *factor, const cv_eig_problem *problem, cv_error *why) {
  cv_window *window = &factor->own.window;
  cv_stream old = factor->own.stream;
  cv_stream_rows rows = {window->rows, window->ld, window->X, false, window->weight};
  make_history(ctx, factor, rows, &window->history);
  CV_TRY(cv_stream_repair(&window->history, 1, &rows, problem, &ctx->eig_work, factor->own.last.found,
                          factor->own.basis, factor->own.ld, factor->own.eigenvalues, &factor->own.last, why));
  factor->own.stream = window->history;
  factor->own.stream.trace = old.trace;
  window->history = old;
  cv_window_clear(window);
  return CURVD_OK;
}
