#include "comm/grid.h"

#include "comm/comm.h"

#include <string.h>

/* The C interface of BLACS; ScaLAPACK installs no header. */
int Csys2blacs_handle(MPI_Comm comm);
void Cfree_blacs_system_handle(int handle);
void Cblacs_gridinit(int *context, const char *order, int nprow, int npcol);
void Cblacs_gridexit(int context);
void Cblacs_set(int context, int what, int *value);

enum { BLACS_REPEATABLE = 15 }; /* sums in the order of ranks, not of arrival: the same bits every time */

static curvd_status split(MPI_Comm all, int color, int key, MPI_Comm *part, cv_error *err) {
  return cv_comm_check(MPI_Comm_split(all, color, key, part), "MPI_Comm_split of a process grid", err);
}

curvd_status cv_grid_create(MPI_Comm comm, int nprow, int npcol, cv_memory *memory, cv_grid *grid, cv_error *err) {
  int rank = 0, n_ranks = 0, repeatable = 1;
  void *ints = NULL;
  *grid = (cv_grid){.all = MPI_COMM_NULL, .column = MPI_COMM_NULL, .row = MPI_COMM_NULL, .system = -1, .context = -1};
  MPI_Comm_rank(comm, &rank);
  MPI_Comm_size(comm, &n_ranks);
  if (nprow < 1 || npcol < 1 || (int64_t)nprow * npcol != n_ranks) {
    return cv_fail(err, CURVD_ERR_LAYOUT, "a process grid of %d x %d needs %lld ranks, not %d", nprow, npcol,
                   (long long)nprow * npcol, n_ranks);
  }
  CV_TRY(cv_memory_new(memory, CV_MEMORY_WORKSPACE, 2 * (int64_t)n_ranks, sizeof(int), "a process grid", &ints, err));
  grid->counts = ints;
  grid->places = grid->counts + n_ranks;
  grid->nprow = nprow, grid->npcol = npcol;
  grid->my_row = rank / npcol, grid->my_column = rank % npcol;
  CV_TRY(cv_comm_check(MPI_Comm_dup(comm, &grid->all), "MPI_Comm_dup of a process grid", err));
  MPI_Comm_set_errhandler(grid->all, MPI_ERRORS_RETURN);
  CV_TRY(split(grid->all, grid->my_column, grid->my_row, &grid->column, err));
  CV_TRY(split(grid->all, grid->my_row, grid->my_column, &grid->row, err));
  grid->system = Csys2blacs_handle(grid->all);
  grid->context = grid->system;
  Cblacs_gridinit(&grid->context, "Row", nprow, npcol);
  if (grid->context < 0) return cv_fail(err, CURVD_ERR_LAYOUT, "BLACS made no process grid of %d x %d", nprow, npcol);
  Cblacs_set(grid->context, BLACS_REPEATABLE, &repeatable);
  return CURVD_OK;
}

static void free_comm(MPI_Comm *comm) {
  if (*comm != MPI_COMM_NULL) MPI_Comm_free(comm);
}

void cv_grid_free(cv_grid *grid, cv_memory *memory) {
  void *ints = grid->counts;
  if (!ints) return; /* never made */
  if (grid->context >= 0) Cblacs_gridexit(grid->context);
  if (grid->system >= 0) Cfree_blacs_system_handle(grid->system);
  grid->context = grid->system = -1;
  free_comm(&grid->row);
  free_comm(&grid->column);
  free_comm(&grid->all);
  cv_memory_free(memory, &ints);
  grid->counts = NULL;
}

cv_cyclic cv_grid_rows(const cv_grid *grid, int64_t n) {
  return (cv_cyclic){.n = n, .block = CV_GRID_BLOCK, .parts = grid->nprow, .part = grid->my_row};
}

cv_cyclic cv_grid_columns(const cv_grid *grid, int64_t n) {
  return (cv_cyclic){.n = n, .block = CV_GRID_BLOCK, .parts = grid->npcol, .part = grid->my_column};
}

static curvd_status narrow(int64_t count, int *out, cv_error *err) {
  if (count < 0 || count > INT32_MAX) {
    return cv_fail(err, CURVD_ERR_SIZE, "a transfer of %lld numbers over a process grid is above the limit of %d",
                   (long long)count, INT32_MAX);
  }
  *out = (int)count;
  return CURVD_OK;
}

curvd_status cv_grid_sum(const cv_grid *grid, double *x, int64_t count, cv_error *err) {
  int n = 0;
  CV_TRY(narrow(count, &n, err));
  bool is_root = grid->my_row == 0;
  int code = MPI_Reduce(is_root ? MPI_IN_PLACE : x, is_root ? x : NULL, n, MPI_DOUBLE, MPI_SUM, 0, grid->column);
  return cv_comm_check(code, "MPI_Reduce over a process grid", err);
}

curvd_status cv_grid_share(const cv_grid *grid, void *x, int64_t bytes, cv_error *err) {
  int n = 0;
  CV_TRY(narrow(bytes, &n, err));
  return cv_comm_check(MPI_Bcast(x, n, MPI_BYTE, 0, grid->all), "MPI_Bcast over a process grid", err);
}

curvd_status cv_grid_least(const cv_grid *grid, int64_t x, int64_t *least, cv_error *err) {
  int code = MPI_Allreduce(&x, least, 1, MPI_INT64_T, MPI_MIN, grid->all);
  return cv_comm_check(code, "MPI_Allreduce over a process grid", err);
}

/* Counts and places of all parts of c, `width` numbers a thing, of things with an index below `end`. */
static curvd_status deal(const cv_grid *grid, cv_cyclic c, int64_t width, int64_t end, cv_error *err) {
  int64_t at = 0;
  for (int i = 0; i < (int)c.parts; i++) {
    c.part = i;
    int64_t count = cv_cyclic_below(&c, end) * width;
    CV_TRY(narrow(count, &grid->counts[i], err));
    CV_TRY(narrow(at, &grid->places[i], err));
    at += count;
  }
  return CURVD_OK;
}

curvd_status cv_grid_gather_rows(const cv_grid *grid, int64_t n, int64_t k, const float *part, float *all,
                                 cv_error *err) {
  CV_TRY(deal(grid, cv_grid_rows(grid, n), k, n, err));
  int code = MPI_Allgatherv(part, grid->counts[grid->my_row], MPI_FLOAT, all, grid->counts, grid->places, MPI_FLOAT,
                            grid->column);
  return cv_comm_check(code, "MPI_Allgatherv over a process grid", err);
}

static curvd_status add(const cv_grid *grid, void *x, int64_t count, MPI_Datatype type, cv_error *err) {
  int n = 0;
  if (grid->npcol == 1) return CURVD_OK;
  CV_TRY(narrow(count, &n, err));
  int code = MPI_Allreduce(MPI_IN_PLACE, x, n, type, MPI_SUM, grid->row);
  return cv_comm_check(code, "MPI_Allreduce over a process grid", err);
}

curvd_status cv_grid_add_f32(const cv_grid *grid, float *x, int64_t count, cv_error *err) {
  return add(grid, x, count, MPI_FLOAT, err);
}

curvd_status cv_grid_add_f64(const cv_grid *grid, double *x, int64_t count, cv_error *err) {
  return add(grid, x, count, MPI_DOUBLE, err);
}

/* ---- mirror ---- */

/* to = for each rank in turn, its rows i < end of this rank's `width` entries (i, first ..). */
static void pack_block(const cv_grid *grid, int64_t n, const float *piece, int64_t ld, int64_t first, int64_t width,
                       int64_t end, float *to) {
  cv_cyclic c = cv_grid_rows(grid, n);
  for (c.part = 0; c.part < c.parts; c.part++) {
    for (int64_t i = 0; i < cv_cyclic_below(&c, end); i++, to += width)
      memcpy(to, piece + cv_cyclic_global(&c, i) * ld + first, (size_t)width * sizeof *to);
  }
}

/* Entries (begin + b, i), i < begin + b, of this rank's rows i, from the (i, b) in from; tile by tile, as a column of
 * from is far longer than a cache. */
static void place_block(const cv_cyclic *c, const float *from, int64_t begin, int64_t width, float *piece, int64_t ld) {
  enum { TILE = 64 };
  int64_t most[CV_GRID_BLOCK], last = cv_cyclic_below(c, begin + width);
  for (int64_t b = 0; b < width; b++) most[b] = cv_cyclic_below(c, begin + b);
  for (int64_t tile = 0; tile < last; tile += TILE) {
    for (int64_t b = 0; b < width; b++) {
      float *row = piece + (begin + b) * ld;
      int64_t end = most[b] < tile + TILE ? most[b] : tile + TILE;
      for (int64_t i = tile; i < end; i++) row[i] = from[i * width + b];
    }
  }
}

curvd_status cv_grid_mirror(const cv_grid *grid, int64_t n, float *piece, int64_t ld, float *room, cv_error *err) {
  cv_cyclic c = cv_grid_rows(grid, n);
  float *got = room + CV_GRID_BLOCK * n;
  for (int64_t begin = 0, block = 0; begin < n; begin += CV_GRID_BLOCK, block++) {
    int64_t width = n - begin < CV_GRID_BLOCK ? n - begin : CV_GRID_BLOCK, end = begin + width;
    int root = (int)(block % grid->nprow);
    if (root == grid->my_row) pack_block(grid, n, piece, ld, block / grid->nprow * CV_GRID_BLOCK, width, end, room);
    CV_TRY(deal(grid, c, width, end, err));
    int code = MPI_Scatterv(room, grid->counts, grid->places, MPI_FLOAT, got, grid->counts[grid->my_row], MPI_FLOAT,
                            root, grid->column);
    CV_TRY(cv_comm_check(code, "MPI_Scatterv over a process grid", err));
    place_block(&c, got, begin, width, piece, ld);
  }
  return CURVD_OK;
}
