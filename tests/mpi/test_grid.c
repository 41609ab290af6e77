/* Process grids: what their few transfers do, on every grid that these ranks make. Numbers are integers, so that sums
 * are exact in any order. */
#include "grid_fixture.h"
#include "linalg_reference.h"

#include <stdbool.h>
#include <string.h>

#define COUNT(list) (sizeof list / sizeof list[0])

/* ---- life ---- */

START_TEST(ranks_stand_row_by_row) {
  for (int columns = 0; next_grid(&columns);) {
    int rank = world_rank(), in_column, in_row;
    MPI_Comm_rank(grid.column, &in_column);
    MPI_Comm_rank(grid.row, &in_row);
    mpi_assert(grid.npcol == columns && grid.nprow * columns == world_size());
    mpi_assert(grid.my_row == rank / columns && grid.my_column == rank % columns);
    mpi_assert(in_column == grid.my_row && in_row == grid.my_column);
    cv_cyclic rows = cv_grid_rows(&grid, 1000), cols = cv_grid_columns(&grid, 1000);
    mpi_assert(rows.n == 1000 && rows.parts == grid.nprow && rows.part == grid.my_row && rows.block == CV_GRID_BLOCK);
    mpi_assert(cols.n == 1000 && cols.parts == columns && cols.part == grid.my_column && cols.block == CV_GRID_BLOCK);
  }
}
END_TEST

/* A grid that does not fit is refused by all, and can be freed; a second free does nothing. */
START_TEST(grids_that_do_not_fit) {
  int size = world_size();
  const int shapes[][2] = {{size + 1, 1}, {1, size + 1}, {0, size}, {size, 0}, {-1, -size}, {size, 2}};
  int64_t before = memory.bytes[CV_MEMORY_WORKSPACE];
  for (size_t t = 0; t < COUNT(shapes); t++) {
    cv_error err = {0};
    curvd_status status = cv_grid_create(MPI_COMM_WORLD, shapes[t][0], shapes[t][1], &memory, &grid, &err);
    mpi_assert_msg(status == CURVD_ERR_LAYOUT && strstr(err.text, "process grid"), "%d x %d: %s", shapes[t][0],
                   shapes[t][1], err.text);
    cv_grid_free(&grid, &memory);
    cv_grid_free(&grid, &memory);
  }
  mpi_assert(memory.bytes[CV_MEMORY_WORKSPACE] == before);
}
END_TEST

/* Over part of the ranks, while the others do nothing; and a grid is its own: messages of the user do not meet its. */
START_TEST(a_grid_over_some_ranks) {
  int n = world_size() > 1 ? world_size() - 1 : 1;
  bool is_in = world_rank() < n;
  MPI_Comm some;
  MPI_Comm_split(MPI_COMM_WORLD, is_in ? 0 : MPI_UNDEFINED, 0, &some);
  cv_error err = {0};
  curvd_status status = is_in ? cv_grid_create(some, n, 1, &memory, &grid, &err) : CURVD_OK;
  mpi_assert_msg(status == CURVD_OK, "%s", err.text);
  int relation = MPI_UNEQUAL;
  double x = 1 + world_rank();
  if (is_in) {
    MPI_Comm_compare(some, grid.all, &relation);
    MPI_Comm_free(&some); /* the grid has its own */
    status = cv_grid_sum(&grid, &x, 1, &err);
  }
  mpi_assert(status == CURVD_OK && (!is_in || relation == MPI_CONGRUENT));
  mpi_assert(world_rank() > 0 || x == n * (n + 1) / 2.);
  if (is_in) cv_grid_free(&grid, &memory);
}
END_TEST

/* Open MPI has some 2^16 communicators, and BLACS few contexts before it asks for more memory; all are given back. */
START_TEST(many_grids) {
  enum { MANY = 200 };
  int64_t before = memory.bytes[CV_MEMORY_WORKSPACE];
  int first = 0, last = 0, wrong = 0;
  for (int i = 0; i < MANY; i++) {
    cv_error err = {0};
    int columns = i % 2 == 0 ? 1 : world_size();
    wrong += cv_grid_create(MPI_COMM_WORLD, world_size() / columns, columns, &memory, &grid, &err) != CURVD_OK;
    if (wrong) break;
    last = MPI_Comm_c2f(grid.row);
    if (i == 0) first = last;
    wrong += grid.context > 2 || grid.system > 2; /* numbers of before are used again */
    cv_grid_free(&grid, &memory);
  }
  mpi_assert_msg(wrong == 0 && last < first + 10, "Open MPI's index of a communicator went from %d to %d", first, last);
  mpi_assert(memory.bytes[CV_MEMORY_WORKSPACE] == before);
}
END_TEST

/* ---- transfers ---- */

START_TEST(sums_shares_and_least) {
  enum { N = 37 };
  for (int columns = 0; next_grid(&columns);) {
    cv_error err = {0};
    int rank = world_rank(), size = world_size(), wrong = 0;
    double x[N + 1], wide[N + 1];
    float narrow[N + 1];
    for (int i = 0; i <= N; i++) x[i] = wide[i] = narrow[i] = (float)(100 * rank + i);
    mpi_assert(cv_grid_sum(&grid, x, N, &err) == CURVD_OK);
    mpi_assert(cv_grid_add_f64(&grid, wide, N, &err) == CURVD_OK);
    mpi_assert(cv_grid_add_f32(&grid, narrow, N, &err) == CURVD_OK);
    for (int i = 0; i < N; i++) {
      double of_column = 0, of_row = 0;
      for (int r = grid.my_column; r < size; r += columns) of_column += 100 * r + i;
      for (int r = grid.my_row * columns; r < (grid.my_row + 1) * columns; r++) of_row += 100 * r + i;
      wrong += (grid.my_row == 0 && x[i] != of_column) || wide[i] != of_row || narrow[i] != (float)of_row;
    }
    wrong += x[N] != 100 * rank + N || wide[N] != x[N] || narrow[N] != (float)x[N];
    mpi_assert_msg(wrong == 0, "%d columns: %d sums", columns, wrong);
    char text[5] = {(char)('a' + rank), 'b', 'c', 'd', (char)('e' + rank)};
    mpi_assert(cv_grid_share(&grid, text, 4, &err) == CURVD_OK);
    mpi_assert(memcmp(text, "abcd", 4) == 0 && text[4] == 'e' + rank);
    int64_t least = 0;
    mpi_assert(cv_grid_least(&grid, ((int64_t)1 << 40) - rank, &least, &err) == CURVD_OK);
    mpi_assert(least == ((int64_t)1 << 40) - (size - 1));
    mpi_assert(cv_grid_least(&grid, rank == size - 1 ? -5 : rank, &least, &err) == CURVD_OK && least == -5);
    mpi_assert(cv_grid_sum(&grid, x, 0, &err) == CURVD_OK && cv_grid_share(&grid, text, 0, &err) == CURVD_OK);
  }
}
END_TEST

/* The count of what is moved is a 32-bit int; nothing is moved then. */
START_TEST(transfers_too_large) {
  for (int columns = 0; next_grid(&columns);) {
    cv_error err = {0};
    int64_t many = (int64_t)1 << 31;
    mpi_assert(cv_grid_sum(&grid, NULL, many, &err) == CURVD_ERR_SIZE && strstr(err.text, "2147483648"));
    mpi_assert(cv_grid_share(&grid, NULL, many, NULL) == CURVD_ERR_SIZE);
    mpi_assert(columns == 1 || cv_grid_add_f32(&grid, NULL, many, NULL) == CURVD_ERR_SIZE);
  }
}
END_TEST

static float entry(int64_t i, int64_t j) {
  return (float)(i * 4099 % 1021 + 1000 * (j % 997));
}

static const int64_t sizes[] = {1, 3, 63, 64, 65, 128, 129, 201, 450, 513};

/* Of each rank of the column its part (k, its rows), in order. */
START_TEST(rows_are_gathered) {
  enum { K = 5 };
  for (int columns = 0; next_grid(&columns);) {
    for (size_t t = 0; t < COUNT(sizes); t++) {
      cv_error err = {0};
      cv_cyclic c = cv_grid_rows(&grid, sizes[t]);
      int64_t mine = cv_cyclic_count(&c), wrong = 0;
      float *part = ref_floats(K * mine + 1), *all = ref_floats(K * sizes[t] + 1), *next = all;
      for (int64_t i = 0; i < K * mine; i++) part[i] = entry(i / mine, cv_cyclic_global(&c, i % mine));
      all[K * sizes[t]] = -1;
      mpi_assert(cv_grid_gather_rows(&grid, sizes[t], K, part, all, &err) == CURVD_OK);
      for (c.part = 0; c.part < c.parts; c.part++) {
        int64_t count = cv_cyclic_count(&c);
        for (int64_t i = 0; i < K * count; i++) wrong += *next++ != entry(i / count, cv_cyclic_global(&c, i % count));
      }
      mpi_assert_msg(wrong == 0 && *next == -1, "%d columns, n %d: %d numbers", columns, (int)sizes[t], (int)wrong);
      free(part), free(all);
    }
  }
}
END_TEST

/* Only entries (column <= row) are there, all else is NaN: then exactly all of a symmetric matrix, and nothing beyond.
 */
START_TEST(mirror_gives_the_other_triangle) {
  enum { PAD = 3 };
  int columns = 0;
  mpi_assert(next_grid(&columns) && grid.npcol == 1);
  for (size_t t = 0; t < COUNT(sizes); t++) {
    cv_error err = {0};
    int64_t n = sizes[t], wrong = 0, room = 2 * CV_GRID_BLOCK * n;
    cv_cyclic c = cv_grid_rows(&grid, n);
    int64_t rows = cv_cyclic_count(&c), ld = rows + PAD;
    float *piece = ref_floats(n * ld), *work = ref_floats(room + 1);
    for (int64_t i = 0; i < n * ld; i++) {
      int64_t column = i / ld, row = i % ld < rows ? cv_cyclic_global(&c, i % ld) : -1;
      piece[i] = column <= row ? entry(column, row) : NAN;
    }
    for (int64_t i = 0; i <= room; i++) work[i] = -7;
    mpi_assert_msg(cv_grid_mirror(&grid, n, piece, ld, work, &err) == CURVD_OK, "%s", err.text);
    for (int64_t i = 0; i < n * ld; i++) {
      int64_t column = i / ld;
      if (i % ld >= rows) {
        wrong += !isnan(piece[i]);
        continue;
      }
      int64_t row = cv_cyclic_global(&c, i % ld);
      wrong += !(piece[i] == (column <= row ? entry(column, row) : entry(row, column)));
    }
    mpi_assert_msg(wrong == 0 && work[room] == -7, "n %d: %d entries", (int)n, (int)wrong);
    free(piece), free(work);
  }
  cv_grid_free(&grid, &memory);
}
END_TEST

static Suite *make_suite(void) {
  const TTest *const tests[] = {
      ranks_stand_row_by_row, grids_that_do_not_fit, a_grid_over_some_ranks, many_grids,
      sums_shares_and_least,  transfers_too_large,   rows_are_gathered,      mirror_gives_the_other_triangle};
  Suite *suite = suite_create("grid");
  TCase *tcase = tcase_create("grid");
  for (size_t i = 0; i < COUNT(tests); i++) tcase_add_test(tcase, tests[i]);
  suite_add_tcase(suite, tcase);
  return suite;
}

int main(int argc, char **argv) {
  return mpi_test_main(argc, argv, make_suite);
}
