#include "linalg/slices_dist.h"

#include "comm/grid.h"
#include "linalg/dense.h"

#include <string.h>

/* ScaLAPACK's Fortran symbol; string lengths trail as size_t. */
void psgemm_(const char *trans_a, const char *trans_b, const int *m, const int *n, const int *k, const float *alpha,
             const float *A, const int *ia, const int *ja, const int *desc_a, const float *B, const int *ib,
             const int *jb, const int *desc_b, const float *beta, float *C, const int *ic, const int *jc,
             const int *desc_c, size_t, size_t);

void cv_dist_descriptor(const cv_grid *grid, int64_t n, int64_t columns, int64_t ld, int32_t descriptor[9]) {
  enum { DENSE = 1 };
  const int32_t all[9] = {DENSE, grid->context, (int32_t)n, (int32_t)columns, CV_GRID_BLOCK, CV_GRID_BLOCK, 0,
                          0,     (int32_t)ld};
  memcpy(descriptor, all, sizeof all);
}

int64_t cv_dist_mine(int64_t n, const cv_grid *grid) {
  cv_cyclic rows = cv_grid_rows(grid, n);
  return cv_cyclic_count(&rows);
}

/* scalapack: this rank's columns of Q and Y as psgemm wants them; slab: its part of Q, all parts, and Q (k, n) */
int64_t cv_dist_room(int64_t n, int64_t k, const cv_grid *grid, cv_dist_product how) {
  int64_t mine = cv_dist_mine(n, grid);
  if (how == CV_DIST_SLAB) return k * (mine + n + cv_dense_ld(n));
  return grid->npcol > 1 ? 2 * k * mine : 0;
}

static float *room_of(const cv_slices *s) {
  return s->part;
}

/* fp32, whatever is asked for. Y (k, ldy) = Q M: column-major (n, k) = M (n, n) Q (n, k). Q and Y: this rank's rows and
 * columns of them. */
static void psgemm(const cv_slices *s, int64_t k, const float *Q, int64_t ldq, float *Y, int64_t ldy) {
  const cv_eig_problem *p = s->problem;
  const int one = 1, n = (int)p->n, kk = (int)k;
  const float plus = 1, zero = 0;
  int32_t of_M[9], of_Q[9], of_Y[9];
  cv_dist_descriptor(p->grid, n, n, p->ld, of_M);
  cv_dist_descriptor(p->grid, n, k, ldq, of_Q);
  cv_dist_descriptor(p->grid, n, k, ldy, of_Y);
  psgemm_("N", "N", &n, &kk, &n, &plus, p->M, &one, &one, of_M, Q, &one, &one, of_Q, &zero, Y, &one, &one, of_Y, 1, 1);
}

static curvd_status tall_product(const cv_slices *s, const cv_multiplier *by, int64_t k, const float *Q, int64_t ldq,
                                 float *Y, int64_t ldy, cv_error *err) {
  (void)by, (void)err;
  psgemm(s, k, Q, ldq, Y, ldy);
  return CURVD_OK;
}

/* With several grid columns psgemm wants the rows of Q dealt out over them, and returns Y that way. */
static curvd_status wide_product(const cv_slices *s, const cv_multiplier *by, int64_t k, const float *Q, int64_t ldq,
                                 float *Y, int64_t ldy, cv_error *err) {
  const cv_grid *grid = s->problem->grid;
  (void)by;
  cv_cyclic columns = cv_grid_columns(grid, k);
  int64_t mine = s->mine, ld = mine > 0 ? mine : 1, count = cv_cyclic_count(&columns);
  float *q = room_of(s), *all = q + count * mine;
  for (int64_t i = 0; i < count; i++)
    memcpy(q + i * mine, Q + cv_cyclic_global(&columns, i) * ldq, (size_t)mine * sizeof *q);
  memset(all, 0, (size_t)(k * mine) * sizeof *all);
  psgemm(s, k, q, ld, Y, ldy);
  for (int64_t i = 0; i < count; i++)
    memcpy(all + cv_cyclic_global(&columns, i) * mine, Y + i * ldy, (size_t)mine * sizeof *all);
  CV_TRY(cv_grid_add_f32(grid, all, k * mine, err));
  cv_copy_rows(k, mine, all, mine, Y, ldy);
  return CURVD_OK;
}

/* full (k, n) = the parts of all ranks, from their gather */
static void unpack(const cv_grid *grid, int64_t n, int64_t k, const float *all, float *full, int64_t ld) {
  cv_cyclic c = cv_grid_rows(grid, n);
  for (c.part = 0; c.part < c.parts; c.part++) {
    int64_t count = cv_cyclic_count(&c);
    for (int64_t j = 0, run; j < count; j += run) {
      float *to = full + cv_cyclic_global(&c, j);
      run = cv_cyclic_run(&c, j);
      cv_copy_rows(k, run, all + j, count, to, ld);
    }
    all += k * count;
  }
}

static curvd_status slab_product(const cv_slices *s, const cv_multiplier *by, int64_t k, const float *Q, int64_t ldq,
                                 float *Y, int64_t ldy, cv_error *err) {
  const cv_eig_problem *p = s->problem;
  int64_t n = p->n, mine = s->mine, ld = cv_dense_ld(n);
  float *part = room_of(s), *all = part + k * mine, *full = all + k * n;
  cv_copy_rows(k, mine, Q, ldq, part, mine);
  CV_TRY(cv_grid_gather_rows(p->grid, n, k, part, all, err));
  unpack(p->grid, n, k, all, full, ld);
  if (mine > 0) cv_multiply(by, CV_N, CV_N, k, mine, n, 1, full, ld, p->M, p->ld, 0, Y, ldy);
  return CURVD_OK;
}

static curvd_status sum(const cv_slices *s, double *x, int64_t count, cv_error *err) {
  return cv_grid_sum(s->problem->grid, x, count, err);
}

static curvd_status share(const cv_slices *s, void *x, int64_t bytes, cv_error *err) {
  return cv_grid_share(s->problem->grid, x, bytes, err);
}

/* Diagonal entries of this rank's piece; summed over the grid row, as cv_grid_sum runs over a grid column. */
static curvd_status trace_of(const cv_eig_problem *p, double *trace, cv_error *err) {
  cv_cyclic rows = cv_grid_rows(p->grid, p->n), columns = cv_grid_columns(p->grid, p->n);
  int64_t count = cv_cyclic_count(&columns);
  *trace = 0;
  for (int64_t j = 0; j < count; j++) {
    int64_t i = cv_cyclic_global(&columns, j), before = cv_cyclic_below(&rows, i);
    if (cv_cyclic_below(&rows, i + 1) > before) *trace += p->M[j * p->ld + before];
  }
  return cv_grid_add_f64(p->grid, trace, 1, err);
}

/* The first part of a cyclic deal is the largest: every rank refuses alike. */
curvd_status cv_dist_fits(int64_t n, int64_t k, const cv_grid *grid, cv_error *err) {
  cv_cyclic rows = cv_grid_rows(grid, n), columns = cv_grid_columns(grid, n);
  rows.part = columns.part = 0;
  int64_t entries = cv_dense_ld(cv_cyclic_count(&rows)) * cv_cyclic_count(&columns);
  if (entries > INT32_MAX) {
    return cv_fail(err, CURVD_ERR_SIZE,
                   "a factor of n = %lld on a grid of %d x %d ranks has %lld entries on a rank, more than ScaLAPACK's "
                   "32-bit offsets reach (%d): use more ranks",
                   (long long)n, grid->nprow, grid->npcol, (long long)entries, INT32_MAX);
  }
  if ((k + CV_EIG_PROBES) * cv_dense_ld(n) <= INT32_MAX) return CURVD_OK;
  return cv_fail(err, CURVD_ERR_SIZE,
                 "a basis of %lld rows of length %lld is above MPI's 32-bit counts (%d): lower eig_rank", (long long)k,
                 (long long)n, INT32_MAX);
}

curvd_status cv_slices_dist(const cv_eig_problem *p, cv_dist_product how, float *room, cv_slices *slices,
                            cv_error *err) {
  CV_TRY(cv_dist_fits(p->n, p->k_max, p->grid, err));
  if (how == CV_DIST_SLAB && p->grid->npcol > 1) {
    return cv_fail(err, CURVD_ERR_LAYOUT, "a product by slabs needs a process grid of one column, not %d",
                   p->grid->npcol);
  }
  *slices = (cv_slices){.columns = cv_grid_rows(p->grid, p->n),
                        .mine = cv_dist_mine(p->n, p->grid),
                        .is_first = p->grid->my_row == 0 && p->grid->my_column == 0,
                        .problem = p,
                        .part = room,
                        .product = how == CV_DIST_SLAB   ? slab_product
                                   : p->grid->npcol == 1 ? tall_product
                                                         : wide_product,
                        .sum = sum,
                        .share = share};
  return trace_of(p, &slices->trace, err);
}
