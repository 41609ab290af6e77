/* Eigenpairs of a small symmetric matrix in fp64 that are looked at before anyone believes them. */
#ifndef CV_LINALG_SMALL_EIG_H
#define CV_LINALG_SMALL_EIG_H

#include "base/status.h"

#include <stdint.h>

/* Doubles of scratch; and cv_syev_iscratch(k) ints. */
int64_t cv_small_eig_scratch(int64_t k);

/* Rows of A (k, k), lda apart, become eigenvectors of its lower triangle, w (k) ascending. NUMERIC or SIZE as
 * cv_syev_f64; NUMERIC too where LAPACK returned info 0 and pairs that are not those of A, which 8 k^2 flops find out.
 * A and w then hold anything. */
curvd_status cv_small_eig(int64_t k, double *A, int64_t lda, double *w, double *work, int32_t *iwork, cv_error *err);

#endif
