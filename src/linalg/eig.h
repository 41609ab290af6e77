/* The seam: how a symmetric positive semidefinite matrix M (n, n) is decomposed into U, D, tau (lrps.h).
 *
 * A backend is one cv_eig_ops: where M lies (on this rank, or dealt out over a process grid) and how it is decomposed
 * (exactly, or by one of the randomized methods). It writes eigenpairs, largest first, tells how many (found), how many
 * of them the preconditioner keeps (kept), and how good they are. The found pairs are the start of the next solve. To
 * add a backend: fill a cv_eig_ops in eig_<name>.c, declare it below, and add it to the list in
 * tests/eig_conformance.h, whose body every backend passes: residual and orthogonality against thresholds, with LAPACK
 * in fp64 as the oracle. */
#ifndef CV_LINALG_EIG_H
#define CV_LINALG_EIG_H

#include "base/rng.h"
#include "base/status.h"
#include "product/multiply.h"

#include <stdbool.h>
#include <stdint.h>

struct cv_grid; /* comm/grid.h */

/* Random vectors that certify a result: the bound fails with probability 2^-CV_EIG_PROBES. */
enum { CV_EIG_PROBES = 10 };

/* Randomized methods, with q = power_iters; a cold start is Gaussian. */
typedef enum cv_eig_method {
  CV_EIG_RSVD,    /* 2 q + 2 products, singular values of Q M: RS-KFAC, Puiu 2022 */
  CV_EIG_SRE,     /* q + 1 products, eigenvalues of Q M Q^T: SRE-KFAC. With q = 0 it never leaves its start's span */
  CV_EIG_NYSTROM, /* q + 1 products, shifted; never exceeds M. The one for a warm start with q = 0 */
  CV_EIG_KRYLOV   /* rows behind the start: a block Krylov space of depth q; Nystrom finish */
} cv_eig_method;

typedef enum cv_orthonormalise {
  CV_ORTHONORMALISE_EACH, /* after every product */
  CV_ORTHONORMALISE_LAST  /* once, before the finish: the published SRE-KFAC; loses modes below lambda_1
                             eps^(1/power_iters) */
} cv_orthonormalise;

/* tau, the eigenvalue that stands for what is not kept. */
typedef enum cv_tail {
  CV_TAIL_MEAN, /* mean of the missing trace */
  CV_TAIL_ZERO,
  CV_TAIL_MIN /* smallest kept eigenvalue */
} cv_tail;

typedef struct cv_eig_problem {
  int64_t n;
  const struct cv_grid *grid; /* NULL: M lies on this rank; else solve is collective over the grid, and all but M and
                                 ld is the same on its ranks */
  const float *M; /* (n, n), both triangles, rows ld apart; over a grid the rank's piece, (columns, rows) of grid.h. Not
                     changed; semidefinite up to rounding */
  int64_t ld;
  cv_eig_method method;
  int64_t eig_rank;     /* wanted eigenpairs, 1 .. n; with tolerance > 0: a first guess */
  int64_t oversampling; /* further rows of the basis */
  int64_t k_max;        /* most rows: eig_rank + oversampling <= k_max <= n. Scratch and U have room for k_max */
  double tolerance; /* > 0: of kept_min .. kept_max pairs, keep the fewest that leave at most this share of the trace;
                       nystrom doubles the basis until they do, or k_max rows or kept_max pairs are reached
                       (Frangella, Tropp, Udell 2023) */
  int64_t kept_min, kept_max;
  int64_t power_iters;
  double settle;         /* > 0 (nystrom): further products while drift is above it ... */
  int64_t products_more; /* ... but at most so many */
  cv_orthonormalise orthonormalise;
  cv_tail tail;
  int64_t n_start; /* rows of U that hold a start (the previous basis); exact backends ignore it */
  cv_rng key;      /* of the rows that are not given, and of the probes */
  /* Products with M by the randomized methods, where M lies on this rank or in slabs; NULL: fp32. Those that certify
   * are fp32 in any case. */
  const cv_multiplier *by;
} cv_eig_problem;

/* found: eigenpairs in U and D; rows and numbers behind them hold anything. Exact: min(n, k_max), zeros included.
 * Randomized: fewer, even 0, when the other eigenvalues lie below the rounding of a product with M (about 1e-7 of its
 * norm). E is M - U^T D U - tau (I - U^T U) of the kept pairs. */
typedef struct cv_eig_result {
  int64_t found, kept;
  double trace;         /* of M */
  double missing_trace; /* share of it outside the kept pairs: for nystrom with tau 0, trace * missing_trace is the
                           nuclear norm of E, which no other norm exceeds */
  double tau;
  double error_bound;   /* the spectral norm of E is below it, but for a chance of 2^-CV_EIG_PROBES */
  double error_norm;    /* estimate of the Frobenius norm of E */
  double norm;          /* the same of M */
  double rounding;      /* ... and of what rounding M for the products changed in the kept pairs; 0 in fp32 */
  double residual;      /* estimate of the Frobenius norm of U M - D U over that of D U, kept pairs */
  double orthogonality; /* estimate of the largest row norm of U U^T - I (cv_orthogonality), found pairs */
  double drift;         /* nystrom, krylov: share of Q M outside the span of Q, before the last product; else 0 */
  int64_t products;     /* with M */
  int64_t replaced;     /* dependent rows of a basis that were drawn anew */
  double seconds;       /* process CPU of this rank */
} cv_eig_result;

/* Scratch of one backend for sizes up to (n, k_max): numbers of each kind. */
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
  bool is_exact;
  /* SIZE: beyond a 32-bit border of the libraries, with the cure; solve looks, too. */
  curvd_status (*fits)(int64_t n, int64_t k_max, const struct cv_grid *grid, cv_error *err);
  cv_eig_scratch (*scratch)(int64_t n, int64_t k_max, const struct cv_grid *grid);
  /* U: (k_max + CV_EIG_PROBES, ldu) rows, over a grid the rank's columns of each (rows of grid.h); on entry the first
   * n_start rows are orthonormal, on return those behind found hold anything. D: k_max numbers, descending, >= 0, on
   * every rank.
   * NUMERIC: M or the start is not finite (every backend looks: LAPACK might not return), M is far from semidefinite
   * (nystrom), the solver failed, or what it returned is no decomposition of M; LAYOUT: not on such a grid; SIZE: see
   * fits. err must be clean, and not NULL. U, D and *result then hold anything. Same status and sentence on every rank
   * of a grid. The same inputs give the same bits (but for seconds), whatever the scratch holds. */
  curvd_status (*solve)(const cv_eig_problem *problem, const cv_eig_work *work, float *U, int64_t ldu, float *D,
                        cv_eig_result *result, cv_error *err);
  /* How well the found, kept and tau of *result, with U and D of an earlier solve, fit this M: fills its trace,
   * missing_trace, error_bound, error_norm, residual, orthogonality, seconds. One product with CV_EIG_PROBES rows;
   * overwrites the rows of U behind k_max. */
  curvd_status (*check)(const cv_eig_problem *problem, const cv_eig_work *work, float *U, int64_t ldu, const float *D,
                        cv_eig_result *result, cv_error *err);
} cv_eig_ops;

extern const cv_eig_ops cv_eig_exact;     /* ssyevd */
extern const cv_eig_ops cv_eig_exact_f64; /* dsyevd: the retry of the failure ladder, and the oracle */
extern const cv_eig_ops cv_eig_rand;      /* the methods above */

/* Over a grid. */
extern const cv_eig_ops cv_eig_exact_dist; /* pssyevd */
extern const cv_eig_ops cv_eig_rand_dist;  /* products by ScaLAPACK's psgemm */
extern const cv_eig_ops cv_eig_rand_slab;  /* products by one gather of Q and one local product; grids of one column */

#endif
