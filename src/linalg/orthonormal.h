/* Orthonormal rows. work: scratch of cv_orthonormal_scratch(k). */
#ifndef CV_LINALG_ORTHONORMAL_H
#define CV_LINALG_ORTHONORMAL_H

#include "linalg/eig.h"

cv_eig_scratch cv_orthonormal_scratch(int64_t k);

/* Q (k, n) = the rows of X (k, n), each divided by its norm; a zero row stays zero. X and Q may be the same.
 * NUMERIC when a row is not finite. */
curvd_status cv_unit_rows(int64_t k, int64_t n, const float *X, int64_t ldx, float *Q, int64_t ldq, cv_error *err);

/* Orthonormalises the rows of Q (k, n), k <= n, in place, to about 1e-6: the span stays when they are independent;
 * dependent rows become any others. Cholesky QR with a Gram matrix in fp64; Householder QR takes over, and
 * *used_householder becomes true, when that breaks down. NUMERIC when a row is not finite. */
curvd_status cv_orthonormalise_rows(int64_t k, int64_t n, float *Q, int64_t ldq, const cv_eig_work *work,
                                    bool *used_householder, cv_error *err);

/* The same to about 1e-3, mostly in one pass: enough between two products with a matrix, where only the span matters.
 */
curvd_status cv_separate_rows(int64_t k, int64_t n, float *Q, int64_t ldq, const cv_eig_work *work,
                              bool *used_householder, cv_error *err);

/* Largest entry of |(Q Q^T - I) z| for one fixed vector z of random signs, 4 n k flops: an estimate of the largest row
 * norm of Q Q^T - I that also shows a single bad pair of rows in full. NaN when an entry is. defect: scratch, k
 * doubles. */
double cv_orthogonality(int64_t k, int64_t n, const float *Q, int64_t ldq, double *defect);

#endif
