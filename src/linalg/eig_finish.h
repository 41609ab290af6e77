/* The small matrices of a randomized solve, on the first rank: from Gram matrices over all columns to the eigenpairs,
 * and the combination of rows that U is. See eig_rand.c for the formulas. */
#ifndef CV_LINALG_EIG_FINISH_H
#define CV_LINALG_EIG_FINISH_H

#include "linalg/eig.h"

/* Sums over columns lie one behind the other; room for the kernels of dense.h is behind them. */
typedef struct cv_finish {
  const cv_eig_problem *problem;
  int64_t k;        /* rows of the basis Q and of Y = Q M */
  int64_t products; /* made so far */
  double *G;        /* (k, k) Y Y^T; out: U is its first rows times Y (sre: times Q) */
  double *H;        /* (k, k) Q Y^T */
  double *squares;  /* (k) of the rows of Y */
  double *trace;    /* of M */
  double *room;     /* not among the sums */
  double *w;        /* (k) out: eigenvalues, descending; not among the sums */
  int32_t *ints;
} cv_finish;

/* What the first rank tells the others. */
typedef struct cv_verdict {
  bool is_done;  /* else: another product, perhaps with more rows */
  bool is_mixed; /* rows of U cancel long terms: they need mending */
  int64_t found, rows;
  double drift;
} cv_verdict;

/* Doubles of the sums and the room; and of the sums alone. */
int64_t cv_finish_scratch(int64_t k);
int64_t cv_finish_sums(int64_t k);

/* sums: cv_finish_scratch(k) doubles; w: k; ints: cv_syev_iscratch(k). */
cv_finish cv_finish_at(const cv_eig_problem *problem, int64_t k, double *sums, double *w, int32_t *ints);

/* NUMERIC: a product is not finite, M is far from semidefinite (nystrom), or LAPACK failed. */
curvd_status cv_finish_solve(const cv_finish *f, cv_verdict *verdict, cv_error *err);

#endif
