/* Exact eigendecomposition over a process grid: ScaLAPACK's divide and conquer (pssyevd), 5 n^2 / ranks numbers of
 * scratch. With the workspace that it asks for it can return wrong vectors with info 0, or never return (ScaLAPACK
 * issue 74; seen with 2.2.1), so it gets more, only finite matrices, and its pairs are always verified. */
#include "base/clock.h"
#include "base/order.h"
#include "comm/grid.h"
#include "linalg/dense.h"
#include "linalg/eig_exact.h"
#include "linalg/slices_dist.h"

#include <string.h>

void pssyevd_(const char *jobz, const char *uplo, const int *n, float *A, const int *ia, const int *ja,
              const int *desc_a, float *w, float *Z, const int *iz, const int *jz, const int *desc_z, float *work,
              const int *lwork, int *iwork, const int *liwork, int *info, size_t, size_t);

/* The documented workspace, and what its PSORMTR and PSLASRT need beyond it. The same on every rank. */
static int64_t solver_floats(int64_t n, const cv_grid *grid) {
  cv_cyclic rows = cv_grid_rows(grid, n), columns = cv_grid_columns(grid, n);
  rows.part = columns.part = 0;
  int64_t nb = CV_GRID_BLOCK, np = cv_cyclic_count(&rows), nq = cv_cyclic_count(&columns);
  int64_t tridiagonal = 3 * n + cv_larger(nb * (np + 1), 3 * nb);
  return cv_larger(1 + 6 * n + 2 * np * nq, tridiagonal) + 2 * n + nb * (2 * nb + np + nq);
}

static int64_t solver_ints(int64_t n, const cv_grid *grid) {
  return 7 * n + 8 * (int64_t)grid->npcol + 2;
}

/* A and Z: pieces (columns, rows), w (n), the solver's; behind the certificate's and the room for products. A also
 * takes the pairs (k_max, rows). */
typedef struct layout {
  int64_t columns, ld, before, of_A;
} layout;

static layout layout_of(int64_t n, int64_t k_max, const cv_grid *grid) {
  cv_cyclic deal = cv_grid_columns(grid, n);
  int64_t mine = cv_dist_mine(n, grid), columns = cv_cyclic_count(&deal), ld = cv_dense_ld(mine);
  return (layout){.columns = columns,
                  .ld = ld,
                  .of_A = cv_larger(columns, k_max) * ld,
                  .before = cv_eig_exact_scratch(mine, k_max).floats +
                            cv_dist_room(n, CV_EIG_PROBES, grid, CV_DIST_SCALAPACK)};
}

static cv_eig_scratch scratch(int64_t n, int64_t k_max, const cv_grid *grid) {
  layout l = layout_of(n, k_max, grid);
  cv_eig_scratch need = cv_eig_exact_scratch(cv_dist_mine(n, grid), k_max);
  need.floats = l.before + l.of_A + l.columns * l.ld + n + solver_floats(n, grid);
  need.ints = solver_ints(n, grid);
  return need;
}

static curvd_status fits(int64_t n, int64_t k_max, const cv_grid *grid, cv_error *err) {
  int64_t floats = solver_floats(n, grid);
  CV_TRY(cv_dist_fits(n, k_max, grid, err));
  if (floats <= INT32_MAX) return CURVD_OK;
  return cv_fail(err, CURVD_ERR_SIZE,
                 "pssyevd of n = %lld on %d x %d ranks needs workspace of %lld numbers, above its 32-bit limit of %d: "
                 "use more ranks or a randomized method",
                 (long long)n, grid->nprow, grid->npcol, (long long)floats, INT32_MAX);
}

static curvd_status slices_of(const cv_eig_problem *p, const cv_eig_work *work, cv_slices *slices, cv_error *err) {
  float *room = work->floats + cv_eig_exact_scratch(cv_dist_mine(p->n, p->grid), p->k_max).floats;
  return cv_slices_dist(p, CV_DIST_SCALAPACK, room, slices, err);
}

/* A (columns, ld) = the piece of M. With infinity in it pssyevd never returns. */
static curvd_status copy_finite(const cv_eig_problem *p, const layout *l, float *A, cv_error *err) {
  int64_t mine = cv_dist_mine(p->n, p->grid), least = 0;
  float zero = 0;
  for (int64_t i = 0; i < l->columns; i++) {
    for (int64_t j = 0; j < mine; j++) zero += p->M[i * p->ld + j] - p->M[i * p->ld + j];
    memcpy(A + i * l->ld, p->M + i * p->ld, (size_t)mine * sizeof *A);
  }
  CV_TRY(cv_grid_least(p->grid, zero == 0, &least, err));
  if (least == 1) return CURVD_OK;
  return cv_fail(err, CURVD_ERR_NUMERIC, "a %lld x %lld matrix is not finite", (long long)p->n, (long long)p->n);
}

static curvd_status pssyevd(const cv_eig_problem *p, const layout *l, float *A, float *Z, float *w, float *room,
                            int32_t *iroom, cv_error *err) {
  const int one = 1, n = (int)p->n, lwork = (int)solver_floats(p->n, p->grid), liwork = (int)solver_ints(p->n, p->grid);
  int32_t desc[9];
  int info = 0;
  int64_t least = 0;
  cv_dist_descriptor(p->grid, p->n, p->n, l->ld, desc);
  pssyevd_("V", "L", &n, A, &one, &one, desc, w, Z, &one, &one, desc, room, &lwork, iroom, &liwork, &info, 1, 1);
  CV_TRY(cv_grid_least(p->grid, -(int64_t)(info < 0 ? -info : info), &least, err));
  if (least == 0) return CURVD_OK;
  return cv_fail(err, CURVD_ERR_NUMERIC, "pssyevd of a %lld x %lld matrix returned info %lld", (long long)p->n,
                 (long long)p->n, (long long)-least);
}

/* U (k_max, mine) = the last columns of Z, which lie on one grid column each. */
static curvd_status take_pairs(const cv_eig_problem *p, const layout *l, const float *Z, const float *w, float *all,
                               float *U, int64_t ldu, float *D, cv_error *err) {
  cv_cyclic columns = cv_grid_columns(p->grid, p->n);
  int64_t mine = cv_dist_mine(p->n, p->grid);
  memset(all, 0, (size_t)(p->k_max * mine) * sizeof *all);
  for (int64_t i = 0; i < l->columns; i++) {
    int64_t to = p->n - 1 - cv_cyclic_global(&columns, i);
    if (to < p->k_max) memcpy(all + to * mine, Z + i * l->ld, (size_t)mine * sizeof *all);
  }
  CV_TRY(cv_grid_add_f32(p->grid, all, p->k_max * mine, err));
  for (int64_t i = 0; i < p->k_max; i++) {
    D[i] = cv_eig_clamp(w[p->n - 1 - i]);
    memcpy(U + i * ldu, all + i * mine, (size_t)mine * sizeof *U);
  }
  return CURVD_OK;
}

static curvd_status solve(const cv_eig_problem *p, const cv_eig_work *work, float *U, int64_t ldu, float *D,
                          cv_eig_result *result, cv_error *err) {
  double begin = cv_cpu_s();
  layout l = layout_of(p->n, p->k_max, p->grid);
  float *A = work->floats + l.before, *Z = A + l.of_A, *w = Z + l.columns * l.ld;
  cv_slices slices;
  CV_TRY(fits(p->n, p->k_max, p->grid, err));
  CV_TRY(slices_of(p, work, &slices, err));
  CV_TRY(copy_finite(p, &l, A, err));
  CV_TRY(pssyevd(p, &l, A, Z, w, w + p->n, work->ints, err));
  CV_TRY(take_pairs(p, &l, Z, w, A, U, ldu, D, err));
  CV_TRY(cv_slices_share(&slices, D, p->k_max * (int64_t)sizeof *D, err));
  CV_TRY(cv_eig_exact_verify(&slices, "pssyevd", work, U, ldu, D, result, err));
  result->seconds = cv_cpu_s() - begin;
  return CURVD_OK;
}

static curvd_status check(const cv_eig_problem *p, const cv_eig_work *work, float *U, int64_t ldu, const float *D,
                          cv_eig_result *result, cv_error *err) {
  cv_slices slices;
  CV_TRY(slices_of(p, work, &slices, err));
  return cv_eig_exact_check(&slices, work, U, ldu, D, result, err);
}

const cv_eig_ops cv_eig_exact_dist = {"exact over a grid", true, fits, scratch, solve, check};
