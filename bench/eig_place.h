/* Where a solver runs: on rank 0 alone, or over a process grid of the first ranks. */
#ifndef EIG_PLACE_H
#define EIG_PLACE_H

#include "comm/grid.h"

#include <stdbool.h>

typedef struct eig_place {
  int nprow, npcol; /* 0: no grid, M as it is on rank 0 */
  bool is_in;       /* does this rank take part? */
  MPI_Comm comm;    /* of the ranks that do */
  cv_grid grid;
  int64_t n, mine, columns, ld; /* this rank's piece of M: (columns, ld), mine numbers a row */
  const float *piece;
  float *own; /* piece, where it is not M itself */
  cv_memory *memory;
} eig_place;

/* [collective over all ranks] */
curvd_status eig_place_open(int nprow, int npcol, cv_memory *memory, eig_place *place, cv_error *err);
void eig_place_close(eig_place *place);

/* Room for pieces of size n; and the piece of an M that every rank of the place has. */
curvd_status eig_place_size(eig_place *place, int64_t n, cv_error *err);
void eig_place_take(eig_place *place, const float *M, int64_t ld);

/* [collective over the place] full (k, ld) on rank 0 = the rows of a basis; room: k ld floats on every rank. */
void eig_place_gather(const eig_place *place, int64_t k, const float *U, int64_t ldu, float *full, int64_t ld,
                      float *room);

/* [collective over all ranks] All ranks come here; one that waits sleeps, so that the others have the processor. */
void eig_wait(void);

/* [collective over all ranks] eig_wait; the failure of any rank comes to all. */
curvd_status eig_agree(cv_error *err);

#endif
