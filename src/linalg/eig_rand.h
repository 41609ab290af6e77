/* The randomized methods of eig.h, for a problem that lies in slices. A backend makes the slices and calls these. */
#ifndef CV_LINALG_EIG_RAND_H
#define CV_LINALG_EIG_RAND_H

#include "linalg/slices.h"

/* SIZE: k_max is above what the libraries take of small matrices (k_max, k_max). */
curvd_status cv_eig_rand_fits(int64_t k_max, int64_t most, cv_error *err);

/* mine: columns of a rank. Backends may ask for more behind it. */
cv_eig_scratch cv_eig_rand_scratch(int64_t mine, int64_t k_max);

curvd_status cv_eig_rand_solve(const cv_slices *slices, const cv_eig_work *work, float *U, int64_t ldu, float *D,
                               cv_eig_result *result, cv_error *err);

/* check of eig.h. */
curvd_status cv_eig_rand_check(const cv_slices *slices, const cv_eig_work *work, float *U, int64_t ldu, const float *D,
                               cv_eig_result *result, cv_error *err);

#endif
