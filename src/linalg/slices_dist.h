/* Slices of a problem over a process grid. */
#ifndef CV_LINALG_SLICES_DIST_H
#define CV_LINALG_SLICES_DIST_H

#include "linalg/slices.h"

/* How Y = Q M is formed. */
typedef enum cv_dist_product {
  CV_DIST_SCALAPACK, /* psgemm */
  CV_DIST_SLAB       /* one gather of Q, then this rank's columns of Y by one local product; grids of one column */
} cv_dist_product;

/* Columns of a basis on this rank, and floats of room for products of k rows. */
int64_t cv_dist_mine(int64_t n, const struct cv_grid *grid);
int64_t cv_dist_room(int64_t n, int64_t k, const struct cv_grid *grid, cv_dist_product how);

/* SIZE: a piece has more entries than ScaLAPACK's 32-bit offsets reach, or a basis of k rows than MPI's counts do. */
curvd_status cv_dist_fits(int64_t n, int64_t k, const struct cv_grid *grid, cv_error *err);

/* [collective over the grid] LAYOUT: a slab needs a grid of one column. */
curvd_status cv_slices_dist(const cv_eig_problem *problem, cv_dist_product how, float *room, cv_slices *slices,
                            cv_error *err);

/* ScaLAPACK's descriptor of an (n, columns) matrix whose piece has ld entries a column: 9 ints. */
void cv_dist_descriptor(const struct cv_grid *grid, int64_t n, int64_t columns, int64_t ld, int32_t descriptor[9]);

#endif
