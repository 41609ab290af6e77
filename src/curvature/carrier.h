/* The seam: how a factor's statistics travel from the workers to its owner. A carrier is what a worker collects of the
 * captured rows, and what of it is summed over the workers on its way; four numbers (trace, examples, who is bad) go
 * with every one of them.
 *
 *   triangle   X^T X, packed: n (n + 1) / 2 numbers, summed
 *   sketch     (Omega X^T) X, Omega the last eigenvectors: (k + probes) n numbers, summed. For streams (store.h) only
 *   columns    X itself: rows n numbers from each worker
 *   blocks     X^T X of a spread factor, block by block as the owners want them (spread.c)
 *   units      the blocks of a unit layer: 3 numbers a unit, summed (method_unit.c, which adds to them itself)
 *
 * To add one: fill a cv_carrier, declare it below, choose it in factor_plan.c, and add it to the tests of
 * tests/mpi/test_carriers.c, which every carrier passes. */
#ifndef CV_CURVATURE_CARRIER_H
#define CV_CURVATURE_CARRIER_H

#include "curvature/factor_plan.h"
#include "curvature/internal.h"

/* Captured rows X (rows, n), or with has_one (rows, n - 1) with a 1 behind each; each counts scale times. */
typedef struct cv_rows {
  int64_t rows, ld;
  const float *X;
  bool has_one;
  float scale;
} cv_rows;

typedef struct cv_carrier {
  const char *name;
  bool keeps_rows; /* the statistic is the rows themselves, and there is room for rows_room of them */
  bool sends_rows; /* to the owner, in messages of their own */
  int64_t (*room)(const curvd_ctx *ctx, const cv_factor *factor); /* floats of a worker's statistic */
  void (*add)(curvd_ctx *ctx, cv_factor *factor, const cv_rows *x);
  double (*trace)(const cv_factor *factor);   /* of this step's X^T X; not finite where X is not */
  int64_t (*summed)(const cv_factor *factor); /* numbers that are summed over the workers */
  void (*pack)(const cv_factor *factor, float *wire);
  double (*trace_of)(const cv_factor *factor, const float *wire); /* of a sum that has come; NULL: not to be seen */
} cv_carrier;

extern const cv_carrier cv_carrier_triangle, cv_carrier_sketch, cv_carrier_columns, cv_carrier_blocks, cv_carrier_units;

/* A factor's carrier and store, as planned. */
void cv_carrier_choose(const cv_factor_plan *plan, cv_factor *factor);

#endif
