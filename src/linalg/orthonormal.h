/* Orthonormal rows of a basis Q (k, n), k <= n, spread over slices. work: scratch of cv_orthonormal_scratch(k). */
#ifndef CV_LINALG_ORTHONORMAL_H
#define CV_LINALG_ORTHONORMAL_H

#include "linalg/slices.h"

cv_eig_scratch cv_orthonormal_scratch(int64_t k);

/* In place, to about 1e-6, row after row from those above. The span stays where rows are independent; a row that
 * depends on those above, to about 1e-6 of its length, is drawn anew and counted in *replaced. One sum of (k, k)
 * numbers a pass; two passes as a rule. NUMERIC when a row is not finite. */
curvd_status cv_orthonormalise_rows(const cv_slices *s, int64_t k, float *Q, int64_t ldq, const cv_eig_work *work,
                                    int64_t *replaced, cv_error *err);

/* The same to about 1e-3, mostly in one pass: enough between two products with a matrix, where only the span matters.
 */
curvd_status cv_separate_rows(const cv_slices *s, int64_t k, float *Q, int64_t ldq, const cv_eig_work *work,
                              int64_t *replaced, cv_error *err);

/* y (k) = Q Q^T z, this rank's part of it, for one fixed vector z of random signs: 4 n k flops. */
void cv_probe_orthogonality(int64_t k, int64_t n, const float *Q, int64_t ldq, double *y);

/* Largest entry of |y - z| for the sum y of those parts: an estimate of the largest row norm of Q Q^T - I that also
 * shows a single bad pair of rows in full. NaN when an entry is. */
double cv_orthogonality(int64_t k, const double *y);

#endif
