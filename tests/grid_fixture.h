/* Process grids for tests: one after the other, every grid that all ranks can make. */
#ifndef GRID_FIXTURE_H
#define GRID_FIXTURE_H

#include "comm/grid.h"
#include "mpi_assert.h"

#include <stdbool.h>

static cv_memory memory;
static cv_grid grid;

static int world_size(void) {
  int size;
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  return size;
}

static int world_rank(void) {
  int rank;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  return rank;
}

/* Opens the next grid that all ranks make, of more than *columns columns; false when there is none. */
static bool next_grid(int *columns) {
  cv_error err = {0};
  int size = world_size();
  if (*columns > 0) cv_grid_free(&grid, &memory);
  do ++*columns;
  while (*columns <= size && size % *columns != 0);
  if (*columns > size) return false;
  curvd_status status = cv_grid_create(MPI_COMM_WORLD, size / *columns, *columns, &memory, &grid, &err);
  mpi_assert_msg(status == CURVD_OK, "%s", err.text);
  return true;
}

#endif
