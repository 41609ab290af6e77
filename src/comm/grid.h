/* A process grid for matrices that are spread over ranks: BLACS for ScaLAPACK, and the few transfers that the
 * randomized solvers need. Only src/linalg/<name>_dist.c and src/curvature use it; one thread owns all calls.
 *
 * Rank r of the grid stands in row r / npcol, column r % npcol. A symmetric M (n, n) is dealt out in square blocks; a
 * rank holds the entries whose row index is in cv_grid_rows and whose column index is in cv_grid_columns, as
 * ScaLAPACK's column-major (rows, columns), which is our row-major piece (columns, rows). A basis (k, n) is cut by
 * cv_grid_rows only: every rank of a grid row holds the same (k, rows). */
#ifndef CV_COMM_GRID_H
#define CV_COMM_GRID_H

#include "base/cyclic.h"
#include "base/memory.h"

#include <mpi.h>

/* Side of a block. ScaLAPACK's eigensolvers are unsafe above 64. */
enum { CV_GRID_BLOCK = 64 };

typedef struct cv_grid {
  MPI_Comm all;        /* our own duplicate */
  MPI_Comm column;     /* ranks of this grid column, by row */
  MPI_Comm row;        /* ranks of this grid row, by column */
  int system, context; /* of BLACS; -1: none */
  int nprow, npcol, my_row, my_column;
  int *counts, *places; /* of each rank of a row or column, for the transfer under way */
} cv_grid;

/* [collective over comm] LAYOUT unless nprow * npcol is its size. Free also after a failure. */
curvd_status cv_grid_create(MPI_Comm comm, int nprow, int npcol, cv_memory *memory, cv_grid *grid, cv_error *err);
void cv_grid_free(cv_grid *grid, cv_memory *memory);

cv_cyclic cv_grid_rows(const cv_grid *grid, int64_t n);
cv_cyclic cv_grid_columns(const cv_grid *grid, int64_t n);

/* [collective] x (count) becomes its sum over each grid column, on the first rank of the column. */
curvd_status cv_grid_sum(const cv_grid *grid, double *x, int64_t count, cv_error *err);

/* [collective] The first rank's bytes come to all. */
curvd_status cv_grid_share(const cv_grid *grid, void *x, int64_t bytes, cv_error *err);

/* [collective] *least = the smallest x. */
curvd_status cv_grid_least(const cv_grid *grid, int64_t x, int64_t *least, cv_error *err);

/* [collective] all = the parts of the ranks of this grid column, one behind the other: of each (k, its rows of n). */
curvd_status cv_grid_gather_rows(const cv_grid *grid, int64_t n, int64_t k, const float *part, float *all,
                                 cv_error *err);

/* [collective] x (count) becomes its sum over this grid row, on all its ranks. */
curvd_status cv_grid_add_f32(const cv_grid *grid, float *x, int64_t count, cv_error *err);
curvd_status cv_grid_add_f64(const cv_grid *grid, double *x, int64_t count, cv_error *err);

/* [collective, npcol = 1] The other triangle of a symmetric M of which only entries (column <= row) are there: piece
 * (n, rows), rows ld apart. room: 2 CV_GRID_BLOCK n floats. */
curvd_status cv_grid_mirror(const cv_grid *grid, int64_t n, float *piece, int64_t ld, float *room, cv_error *err);

#endif
