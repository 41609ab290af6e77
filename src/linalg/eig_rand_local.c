/* The randomized methods on one rank. */
#include "linalg/dense.h"
#include "linalg/eig_rand.h"

static curvd_status fits(int64_t n, int64_t k_max, const struct cv_grid *grid, cv_error *err) {
  (void)grid;
  if (cv_dense_fits(n)) return cv_eig_rand_fits(k_max, CV_SYEV_MAX, err);
  return cv_fail(err, CURVD_ERR_SIZE, "a factor of n = %lld is above the limit of %lld", (long long)n,
                 (long long)CV_DENSE_MAX);
}

static cv_eig_scratch scratch(int64_t n, int64_t k_max, const struct cv_grid *grid) {
  (void)grid;
  return cv_eig_rand_scratch(n, k_max);
}

static curvd_status solve(const cv_eig_problem *problem, const cv_eig_work *work, float *U, int64_t ldu, float *D,
                          cv_eig_result *result, cv_error *err) {
  cv_slices slices = cv_slices_local(problem);
  return cv_eig_rand_solve(&slices, work, U, ldu, D, result, err);
}

static curvd_status check(const cv_eig_problem *problem, const cv_eig_work *work, float *U, int64_t ldu, const float *D,
                          cv_eig_result *result, cv_error *err) {
  cv_slices slices = cv_slices_local(problem);
  return cv_eig_rand_check(&slices, work, U, ldu, D, result, err);
}

const cv_eig_ops cv_eig_rand = {"randomized", false, fits, scratch, solve, check};
