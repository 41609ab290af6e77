/* The seam: what an owner keeps of a factor, and how eigenpairs come of it.
 *
 *   full     the running average itself, (n, n), on one rank or spread over all owners (refresh.c)
 *   stream   a sketch of it, (k, n): no rank ever holds n^2 numbers (sketch.c)
 *   online   its eigenpairs, updated by every statistic (Brand), with or without the average beside them (online.c)
 *   units    the blocks of a unit layer (method_unit.c, which decomposes them itself)
 *
 * Of each statistic the owner gets either the sum over the workers (mix), or rows, worker by worker (add_rows); weights
 * are those of the running average: M <- keep M + add S. */
#ifndef CV_CURVATURE_STORE_H
#define CV_CURVATURE_STORE_H

#include "curvature/internal.h"

/* How an array lies in memory: rows of n (of a spread factor: this owner's columns of them), own.ld apart; such rows of
 * a symmetric matrix, of which a triangle counts; numbers; or room that holds nothing from one use to the next. */
typedef enum cv_array_form { CV_ARRAY_ROWS, CV_ARRAY_SYMMETRIC, CV_ARRAY_NUMBERS, CV_ARRAY_ROOM } cv_array_form;

/* An array of a factor's owner: *x (count) floats. Its name is one of the state (state.h). */
typedef struct cv_array {
  float **x;
  int64_t count;
  const char *name;
  cv_array_form form;
} cv_array;

enum { CV_ARRAYS_MAX = 8 };

typedef struct cv_store {
  const char *name;
  /* Sizes before memory is made; the arrays that it keeps, how many; and, optional, what they hold at first (index: of
   * the layer). */
  void (*size)(const curvd_ctx *ctx, cv_factor *factor);
  int (*arrays)(const curvd_ctx *ctx, cv_factor *factor, cv_array list[CV_ARRAYS_MAX]);
  curvd_status (*begin)(curvd_ctx *ctx, cv_factor *factor, int32_t index);
  /* Room of its solver; NULL where it has none, and no solve. */
  cv_eig_scratch (*scratch)(const curvd_ctx *ctx, const cv_factor *factor);
  void (*begin_with_identity)(const curvd_ctx *ctx, cv_factor *factor);
  /* wire: what the factor's carrier packed, summed. NUMERIC: the statistic is lost, what is kept stays sound. */
  curvd_status (*mix)(curvd_ctx *ctx, cv_factor *factor, cv_weights w, const float *wire, cv_error *why);
  curvd_status (*add_rows)(curvd_ctx *ctx, cv_factor *factor, cv_weights w, int64_t rows, const float *X, int64_t ldx,
                           cv_error *why);
  /* Pairs in basis and eigenvalues, and last tells of them. false: the previous ones stay in force. */
  bool (*solve)(curvd_ctx *ctx, const cv_layer *layer, cv_factor *factor, int32_t index);
} cv_store;

/* The owner's part of a factor (owned.c): its memory; and all of it to another owner, or from one, whose part has been
 * allocated. */
curvd_status cv_owned_allocate(curvd_ctx *ctx, cv_factor *factor);
void cv_owned_release(curvd_ctx *ctx, cv_factor *factor);
curvd_status cv_owned_send(curvd_ctx *ctx, cv_factor *factor, int owner);
curvd_status cv_owned_receive(curvd_ctx *ctx, cv_factor *factor, int owner);

/* Basis and eigenvalues, the last arrays of a store that has them; how many. */
int cv_pairs_arrays(cv_factor *factor, cv_array *list);

extern const cv_store cv_store_full, cv_store_stream, cv_store_online, cv_store_units;

#endif
