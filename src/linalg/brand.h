/* Online low-rank updates: the largest eigenpairs of a running average M (n, n) that is never made.
 *
 *   M <- keep M + add X^T X     U'^T D' U' = keep U^T D U + add X^T X, exactly; then the r_max largest pairs stay
 *
 * With X = P U + R Q, the rows of Q orthonormal and orthogonal to those of U, it is the eigendecomposition of one small
 * matrix (r + c, r + c), which costs for c rows
 *
 *   4 n r c (P, and X - P U)  +  n c^2 in fp64 (R)  +  2 n r (r + c) (U')  +  about 9 (r + c)^3 in fp64
 *
 * flops: linear in n. What is dropped stays dropped: U^T D U never exceeds M, and the error is semidefinite with a norm
 * of at most error_bound, a certificate that costs nothing. All this to rounding, about 1e-6 of the trace; with r = n,
 * where there is no room beside U, 4 times its orthogonality. Rows fp32, small matrices fp64.
 *
 * Bad where M turns or jumps out of the span faster than truncation lets new directions in (a direction needs one
 * update in which it is among the r_max largest), where r_max + rows comes near n (decompose M itself), and where
 * updates are frequent: a sketch (stream.h) does no eigendecomposition between two solves. Sources: Brand, Linear
 * Algebra Appl. 2006; for Kronecker factors Puiu 2022, arXiv:2210.08494. */
#ifndef CV_LINALG_BRAND_H
#define CV_LINALG_BRAND_H

#include "linalg/eig.h"

/* The low-rank part of M, and what is known of the rest. Empty: r = 0 and zeros. */
typedef struct cv_brand {
  int64_t n, r_max, r, ld;
  float *U;           /* (r_max, n), rows ld apart: r orthonormal rows */
  float *D;           /* (r_max): r numbers, descending, >= 0 */
  double trace;       /* of M, the dropped part included */
  double error_bound; /* the spectral norm of M - U^T D U is at most this, to rounding */
  bool is_corrected;  /* then M - U^T D U need not be semidefinite */
} cv_brand;

/* One update. X: (rows, n), or with has_one (rows, n - 1) with a constant 1 behind each row. */
typedef struct cv_brand_rows {
  int64_t rows, ldx;
  const float *X;
  bool has_one;
  double keep, add; /* >= 0 */
  int64_t block;    /* >= 1, rows at a time, with a truncation after each: many rows at once cost (r + rows)^3 */
} cv_brand_rows;

typedef struct cv_brand_result {
  int64_t blocks, projections; /* rows that lie nearly in the span of U are projected more than once */
  int64_t orthonormalised;     /* times U was made orthonormal anew; U^T D U stays what it was */
  double dropped;              /* sum over blocks of the largest dropped eigenvalue */
  double orthogonality;        /* of U afterwards: cv_orthogonality */
} cv_brand_result;

/* The cheapest block for rank r_max. */
int64_t cv_brand_block(int64_t r_max);

/* For updates with blocks of at most `block` rows, and corrections. */
cv_eig_scratch cv_brand_scratch(int64_t n, int64_t r_max, int64_t block);

/* NUMERIC: X, U or D is not finite, or keep or add is no weight, or the sum is beyond fp32; the state then is what it
 * was. NUMERIC or SIZE from the small eigensolver: U and D hold anything. err must be clean, and not NULL. The same
 * inputs give the same bits, whatever the scratch holds. */
curvd_status cv_brand_update(cv_brand *state, const cv_brand_rows *x, const cv_eig_work *work, cv_brand_result *result,
                             cv_error *err);

/* Rayleigh-Ritz on round(phi r + 1) rows of U, chosen by key without replacement: with Q those rows, Q M Q^T = V^T w V,
 * and they become V Q with the eigenvalues w. M (n, n), both triangles: what U^T D U stands for. 2 n^2 flops a row.
 * Brings back what truncation took from these eigenvalues, but no new direction, and never makes the Frobenius norm of
 * M - U^T D U larger. Of its spectral norm it keeps the bound, the first time; after that the bound grows by
 * 2 / sqrt(3). *corrected: the number of rows. NUMERIC: M is not finite; the state then is what it was. work: with
 * block rows of cv_brand_scratch. */
curvd_status cv_brand_correct(cv_brand *state, const float *M, int64_t ldm, double phi, cv_rng key, int64_t block,
                              const cv_eig_work *work, int64_t *corrected, cv_error *err);

#endif
