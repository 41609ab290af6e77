#include "eig_place.h"

#include "linalg/dense.h"

#include <string.h>
#include <time.h>

curvd_status eig_place_open(int nprow, int npcol, cv_memory *memory, eig_place *place, cv_error *err) {
  int rank, ranks = nprow == 0 ? 1 : nprow * npcol;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  *place = (eig_place){.nprow = nprow, .npcol = npcol, .is_in = rank < ranks, .memory = memory};
  MPI_Comm_split(MPI_COMM_WORLD, place->is_in ? 0 : MPI_UNDEFINED, rank, &place->comm);
  if (!place->is_in || nprow == 0) return CURVD_OK;
  return cv_grid_create(place->comm, nprow, npcol, memory, &place->grid, err);
}

void eig_place_close(eig_place *place) {
  cv_floats_free(place->memory, &place->own);
  if (!place->is_in) return;
  if (place->nprow > 0) cv_grid_free(&place->grid, place->memory);
  MPI_Comm_free(&place->comm);
}

curvd_status eig_place_size(eig_place *place, int64_t n, cv_error *err) {
  cv_floats_free(place->memory, &place->own);
  place->n = place->mine = place->columns = n;
  place->ld = cv_dense_ld(n);
  if (!place->is_in || place->nprow == 0) return CURVD_OK;
  cv_cyclic rows = cv_grid_rows(&place->grid, n), columns = cv_grid_columns(&place->grid, n);
  place->mine = cv_cyclic_count(&rows);
  place->columns = cv_cyclic_count(&columns);
  place->ld = cv_dense_ld(place->mine);
  return cv_floats_new(place->memory, CV_MEMORY_FACTORS, place->columns * place->ld, "a piece", &place->own, err);
}

void eig_place_take(eig_place *place, const float *M, int64_t ld) {
  if (!place->is_in) return;
  place->piece = place->own ? place->own : M;
  if (place->own == NULL) return;
  cv_cyclic rows = cv_grid_rows(&place->grid, place->n), columns = cv_grid_columns(&place->grid, place->n);
  for (int64_t i = 0; i < place->columns; i++) {
    for (int64_t j = 0; j < place->mine; j++)
      place->own[i * place->ld + j] = M[cv_cyclic_global(&columns, i) * ld + cv_cyclic_global(&rows, j)];
  }
}

void eig_place_gather(const eig_place *place, int64_t k, const float *U, int64_t ldu, float *full, int64_t ld,
                      float *room) {
  if (place->nprow == 0) {
    for (int64_t i = 0; i < k; i++) memcpy(full + i * ld, U + i * ldu, (size_t)place->n * sizeof *full);
    return;
  }
  cv_cyclic rows = cv_grid_rows(&place->grid, place->n);
  memset(room, 0, (size_t)(k * ld) * sizeof *room);
  for (int64_t i = 0; i < k && place->grid.my_column == 0; i++) {
    for (int64_t j = 0; j < place->mine; j++) room[i * ld + cv_cyclic_global(&rows, j)] = U[i * ldu + j];
  }
  MPI_Reduce(room, full, (int)(k * ld), MPI_FLOAT, MPI_SUM, 0, place->comm);
}

void eig_wait(void) {
  MPI_Request request;
  int is_done = 0;
  MPI_Ibarrier(MPI_COMM_WORLD, &request);
  for (MPI_Test(&request, &is_done, MPI_STATUS_IGNORE); !is_done; MPI_Test(&request, &is_done, MPI_STATUS_IGNORE))
    nanosleep(&(struct timespec){.tv_nsec = 500000}, NULL);
}

curvd_status eig_agree(cv_error *err) {
  struct {
    int code, rank;
  } mine = {.code = (int)err->code}, worst; /* codes of failures are below 0 */
  MPI_Comm_rank(MPI_COMM_WORLD, &mine.rank);
  eig_wait();
  MPI_Allreduce(&mine, &worst, 1, MPI_2INT, MPI_MINLOC, MPI_COMM_WORLD);
  if (worst.code == CURVD_OK) return CURVD_OK;
  MPI_Bcast(err, (int)sizeof *err, MPI_BYTE, worst.rank, MPI_COMM_WORLD);
  return err->code;
}
