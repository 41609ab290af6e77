/* The rows that a stream has got since its last seed, kept for a second product (linalg/stream.h, cv_stream_repair).
 * Scaled so that one weight, which decays with the running average, is that of them all. */
#ifndef CV_CURVATURE_WINDOW_H
#define CV_CURVATURE_WINDOW_H

#include "curvature/store.h"

/* Its room, before memory is made; and its arrays, how many. */
void cv_window_size(const curvd_ctx *ctx, cv_factor *factor);
int cv_window_arrays(cv_factor *factor, cv_array *list);
cv_eig_scratch cv_window_scratch(const cv_factor *factor);

/* Empty: the stream has a new seed. */
void cv_window_clear(cv_window *window);

/* Rows X (rows, n) enter the running average with weights w. Too many: the window is of no use until it is cleared. */
void cv_window_add(cv_window *window, int64_t n, cv_weights w, int64_t rows, const float *X, int64_t ldx);

/* Does a solve that misses so much of the trace, after one that missed `before` (< 0: none), want repair? */
bool cv_window_is_wanted(const cv_window *window, double before, double now);

/* A better solve of factor->own.stream, whose pairs are in basis and eigenvalues, result: into the same places. The
 * stream goes over to a seed of its own, near the pairs. NUMERIC: as cv_stream_repair; nothing has changed but the
 * pairs. */
curvd_status cv_window_repair(curvd_ctx *ctx, cv_factor *factor, const cv_eig_problem *problem, cv_error *why);

#endif
