/* Assertions and a main for tests that run on several ranks.
 *
 * A plain ck_assert that fails on one rank leaves the others waiting in their next collective call. mpi_assert agrees
 * on the verdict first: then the test fails on every rank together, and the next test runs. Every rank must reach it.
 */
#ifndef TESTS_MPI_ASSERT_H
#define TESTS_MPI_ASSERT_H

#include "train/mpi_end.h"

#include <check.h>
#include <limits.h>
#include <mpi.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

/* [collective over MPI_COMM_WORLD] Fails on every rank when cond is false on one. The message holds the lowest rank
 * that failed, place and expression; with _msg also that rank's own printf-like text. */
#define mpi_assert(cond) mpi_assert_at((cond) ? 1 : 0, __FILE__, __LINE__, #cond, "%s", "")
#define mpi_assert_msg(cond, ...) mpi_assert_at((cond) ? 1 : 0, __FILE__, __LINE__, #cond, __VA_ARGS__)

__attribute__((format(printf, 5, 6))) static inline void
mpi_assert_at(int holds, const char *file, int line, const char *expression, const char *format, ...) {
  int rank, first;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  int mine = holds ? INT_MAX : rank;
  MPI_Allreduce(&mine, &first, 1, MPI_INT, MPI_MIN, MPI_COMM_WORLD);
  mark_point();
  if (first == INT_MAX) return;
  char text[1024]; /* the failing rank's words go to all: only rank 0 prints */
  char detail[480];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(detail, sizeof detail, format, arguments);
  va_end(arguments);
  snprintf(text, sizeof text, "rank %d: %s:%d: %s %s", rank, file, line, expression, detail);
  MPI_Bcast(text, (int)sizeof text, MPI_CHAR, first, MPI_COMM_WORLD);
  ck_abort_msg("%s", text);
}

/* [collective over MPI_COMM_WORLD] Runs the suite in this process (Check's own time-outs do not work then: CTest's
 * TIMEOUT guards) and frees it. Rank 0 prints. Returns the largest count of failed tests of any rank; running none
 * counts as 1. */
static inline int mpi_test_run(Suite *suite, enum print_output output) {
  int rank, worst;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  SRunner *runner = srunner_create(suite);
  srunner_set_fork_status(runner, CK_NOFORK);
  srunner_run_all(runner, rank == 0 ? output : CK_SILENT);
  int failed = srunner_ntests_run(runner) > 0 ? srunner_ntests_failed(runner) : 1;
  srunner_free(runner);
  MPI_Allreduce(&failed, &worst, 1, MPI_INT, MPI_MAX, MPI_COMM_WORLD);
  return worst;
}

/* main of a test program: int main(int argc, char **argv) { return mpi_test_main(argc, argv, make_suite); }
 * make is called after MPI_Init_thread. The exit code is the same on every rank. */
static inline int mpi_test_main(int argc, char **argv, Suite *(*make)(void)) {
  int provided;
  MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &provided);
  int failed = mpi_test_run(make(), CK_NORMAL);
  mpi_end();
  return failed > 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}

#endif
