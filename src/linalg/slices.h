/* What the randomized algorithms know of the place where they run. A basis Q is (k, n); a rank holds all k rows of it,
 * but only its share of the n columns. Then sums over columns are partial sums, and all else is local. Matrices (k, k)
 * live on the first rank, which alone decides: what it finds is shared, so that no rounding can make ranks disagree. */
#ifndef CV_LINALG_SLICES_H
#define CV_LINALG_SLICES_H

#include "base/cyclic.h"
#include "linalg/eig.h"

typedef struct cv_slices cv_slices;
struct cv_slices {
  cv_cyclic columns; /* of n, those of this rank */
  int64_t mine;      /* how many */
  bool is_first;
  double trace; /* of M, this rank's part of the sum */
  const cv_eig_problem *problem;
  const float *probes; /* (CV_EIG_PROBES, mine) to certify with; NULL: they are drawn */
  int64_t probes_ld;
  void *part; /* the backend's own */
  /* Y (k, mine) = Q M, this rank's columns of it from those of Q; by: as problem->by, or NULL for fp32. */
  curvd_status (*product)(const cv_slices *s, const cv_multiplier *by, int64_t k, const float *Q, int64_t ldq, float *Y,
                          int64_t ldy, cv_error *err);
  /* NULL on one rank: x (count) becomes the sum over ranks, on the first one; the first one's bytes come to all. */
  curvd_status (*sum)(const cv_slices *s, double *x, int64_t count, cv_error *err);
  curvd_status (*share)(const cv_slices *s, void *x, int64_t bytes, cv_error *err);
};

/* The whole problem on this rank. */
cv_slices cv_slices_local(const cv_eig_problem *problem);

/* All columns on this rank, but no M: the caller adds trace and product where they are needed. */
cv_slices cv_slices_whole(const cv_eig_problem *problem);

curvd_status cv_slices_sum(const cv_slices *s, double *x, int64_t count, cv_error *err);
curvd_status cv_slices_share(const cv_slices *s, void *x, int64_t bytes, cv_error *err);

/* The first rank's status and sentence come to all. err may hold a failure already. */
curvd_status cv_slices_agree(const cv_slices *s, cv_error *err);

/* Q (rows, mine): Gaussian rows number .. number + rows - 1, which depend on their number, column and key alone. */
void cv_slices_draw(const cv_slices *s, cv_rng key, int64_t number, int64_t rows, float *Q, int64_t ldq);

#endif
