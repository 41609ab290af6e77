/* The randomized methods over a process grid: products by ScaLAPACK, or by slabs. */
#include "linalg/eig_rand.h"
#include "linalg/slices_dist.h"

/* MPI counts the bytes of a (k, k) fp32 matrix in an int. */
enum { K_MAX = 23170 };

static curvd_status fits(int64_t n, int64_t k_max, const struct cv_grid *grid, cv_error *err) {
  CV_TRY(cv_eig_rand_fits(k_max, K_MAX, err));
  return cv_dist_fits(n, k_max, grid, err);
}

/* Scratch of the methods, and the room for products right behind it. */
static cv_eig_scratch with_room(int64_t n, int64_t k_max, const struct cv_grid *grid, cv_dist_product how) {
  cv_eig_scratch need = cv_eig_rand_scratch(cv_dist_mine(n, grid), k_max);
  need.floats += cv_dist_room(n, k_max + CV_EIG_PROBES, grid, how);
  return need;
}

static curvd_status slices_of(const cv_eig_problem *p, cv_dist_product how, const cv_eig_work *work, cv_slices *slices,
                              cv_error *err) {
  float *room = work->floats + cv_eig_rand_scratch(cv_dist_mine(p->n, p->grid), p->k_max).floats;
  return cv_slices_dist(p, how, room, slices, err);
}

static cv_eig_scratch scratch_scalapack(int64_t n, int64_t k_max, const struct cv_grid *grid) {
  return with_room(n, k_max, grid, CV_DIST_SCALAPACK);
}

static cv_eig_scratch scratch_slab(int64_t n, int64_t k_max, const struct cv_grid *grid) {
  return with_room(n, k_max, grid, CV_DIST_SLAB);
}

static curvd_status solve_scalapack(const cv_eig_problem *problem, const cv_eig_work *work, float *U, int64_t ldu,
                                    float *D, cv_eig_result *result, cv_error *err) {
  cv_slices slices;
  CV_TRY(slices_of(problem, CV_DIST_SCALAPACK, work, &slices, err));
  return cv_eig_rand_solve(&slices, work, U, ldu, D, result, err);
}

static curvd_status solve_slab(const cv_eig_problem *problem, const cv_eig_work *work, float *U, int64_t ldu, float *D,
                               cv_eig_result *result, cv_error *err) {
  cv_slices slices;
  CV_TRY(slices_of(problem, CV_DIST_SLAB, work, &slices, err));
  return cv_eig_rand_solve(&slices, work, U, ldu, D, result, err);
}

static curvd_status check_scalapack(const cv_eig_problem *problem, const cv_eig_work *work, float *U, int64_t ldu,
                                    const float *D, cv_eig_result *result, cv_error *err) {
  cv_slices slices;
  CV_TRY(slices_of(problem, CV_DIST_SCALAPACK, work, &slices, err));
  return cv_eig_rand_check(&slices, work, U, ldu, D, result, err);
}

static curvd_status check_slab(const cv_eig_problem *problem, const cv_eig_work *work, float *U, int64_t ldu,
                               const float *D, cv_eig_result *result, cv_error *err) {
  cv_slices slices;
  CV_TRY(slices_of(problem, CV_DIST_SLAB, work, &slices, err));
  return cv_eig_rand_check(&slices, work, U, ldu, D, result, err);
}

const cv_eig_ops cv_eig_rand_dist = {"randomized over a grid", false,           fits,
                                     scratch_scalapack,        solve_scalapack, check_scalapack};
const cv_eig_ops cv_eig_rand_slab = {"randomized over slabs", false, fits, scratch_slab, solve_slab, check_slab};
