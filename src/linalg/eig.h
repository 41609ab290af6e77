/* The seam: how a symmetric positive semidefinite matrix M (n, n) is decomposed into U, D, tau (lrps.h).
 *
 * A backend is one cv_eig_ops. It writes at most r_max = eig_rank + oversampling eigenpairs, largest first, and tells
 * how many (found). The caller keeps eig_rank of them for the preconditioner and all of them as the start of the next
 * refresh. To add one: fill a cv_eig_ops in eig_<name>.c, declare it below, and add it to the list in
 * tests/unit/test_eig.c, whose body every backend passes: residual and orthogonality against thresholds, with the exact
 * solver in fp64 as the oracle. */
#ifndef CV_LINALG_EIG_H
#define CV_LINALG_EIG_H

#include "base/rng.h"
#include "base/status.h"

#include <stdbool.h>
#include <stdint.h>

typedef enum cv_orthonormalise {
  CV_ORTHONORMALISE_EACH, /* after every product */
  CV_ORTHONORMALISE_LAST  /* once, before the finish: the published SRE-KFAC; loses modes below lambda_1
                             eps^(1/power_iters) */
} cv_orthonormalise;

typedef struct cv_eig_problem {
  int64_t n;
  const float *M; /* (n, n), both triangles, rows ld apart; not changed. Semidefinite up to rounding */
  int64_t ld;
  int64_t eig_rank;     /* wanted eigenpairs, 1 .. n */
  int64_t oversampling; /* further columns of the sketch; eig_rank + oversampling <= n */
  int64_t power_iters;  /* further products with M; see each backend */
  cv_orthonormalise orthonormalise;
  int64_t n_start; /* rows of U that hold a start (the previous basis); exact backends ignore it */
  cv_rng key;      /* of the rows that are not given: n_start .. eig_rank + oversampling - 1 */
} cv_eig_problem;

/* found: eigenpairs in U and D; rows and numbers behind them hold anything. Exact: n, zeros included. Randomized: at
 * most eig_rank + oversampling, and fewer, even 0, when the other eigenvalues lie below the rounding of a product with
 * M (about 1e-7 of its norm). Then keep r = min(eig_rank, found), let tau stand for the rest, and start the next
 * refresh with n_start = found. */
typedef struct cv_eig_result {
  int64_t found;
  double orthogonality;  /* estimate of the largest row norm of U U^T - I (cv_orthogonality) */
  int64_t products;      /* with M */
  bool used_householder; /* Cholesky QR failed and Householder QR took over */
} cv_eig_result;

/* Scratch of one backend for sizes up to (n, k): numbers of each kind. */
typedef struct cv_eig_scratch {
  int64_t floats, doubles, ints;
} cv_eig_scratch;

typedef struct cv_eig_work {
  float *floats;
  double *doubles;
  int32_t *ints;
} cv_eig_work;

typedef struct cv_eig_ops {
  const char *name;
  bool is_exact; /* finds all n eigenpairs whatever eig_rank says; U then has room for n rows */
  cv_eig_scratch (*scratch)(int64_t n, int64_t k);
  /* U: (k or n, ldu) rows; on entry its first n_start rows are orthonormal. D: as many numbers, descending, >= 0.
   * NUMERIC: M or the start is not finite (every backend looks: LAPACK might not return), M is far from semidefinite
   * (nystrom), or the solver failed; U, D and *result hold anything. The same inputs give the same bits, whatever the
   * scratch holds. */
  curvd_status (*solve)(const cv_eig_problem *problem, const cv_eig_work *work, float *U, int64_t ldu, float *D,
                        cv_eig_result *result, cv_error *err);
} cv_eig_ops;

extern const cv_eig_ops cv_eig_exact;     /* ssyevd */
extern const cv_eig_ops cv_eig_exact_f64; /* dsyevd: the retry of the failure ladder, and the oracle */

/* RS-KFAC: 2 power_iters + 2 products, SVD of Q M. */
extern const cv_eig_ops cv_eig_rsvd;

/* SRE-KFAC: power_iters + 1 products, eigendecomposition of Q M Q^T. With power_iters 0 it never leaves the span of its
 * start. */
extern const cv_eig_ops cv_eig_sre;

/* power_iters + 1 products, shifted Nystrom finish; never exceeds M. The one for a warm start with power_iters 0: one
 * product follows a drifting M. No start sees an eigenvector that is exactly orthogonal to it. */
extern const cv_eig_ops cv_eig_nystrom;

#endif
