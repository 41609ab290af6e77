/* mpi_assert and mpi_test_run themselves: provoked failures must be seen on every rank.
 * Check cannot run a suite inside a test, so the provoked suites run first, while the real suite is being made. */
#include "mpi_assert.h"

#include <stdbool.h>
#include <string.h>

static struct {
  int n_run, n_failed;
  char message[4][1024]; /* of the failed tests, in order */
  int reached_end;       /* tests that came past their last assertion */
} inner;
static int run_of_uneven, run_of_passing, run_of_empty;

static int my_rank(void) {
  int rank;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  return rank;
}

static int last_rank(void) {
  int count;
  MPI_Comm_size(MPI_COMM_WORLD, &count);
  return count - 1;
}

START_TEST(fails_on_last_rank) {
  mpi_assert(true);
  mpi_assert(my_rank() != last_rank());
  inner.reached_end++;
}
END_TEST

START_TEST(passes) {
  int sum, one = 1;
  MPI_Allreduce(&one, &sum, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
  mpi_assert(sum == last_rank() + 1);
  mpi_assert_msg(sum > 0, "sum %d", sum);
  inner.reached_end++;
}
END_TEST

START_TEST(fails_with_text) {
  mpi_assert_msg(my_rank() < last_rank(), "100%% of %d", my_rank() + 40);
  inner.reached_end++;
}
END_TEST

START_TEST(fails_on_all) {
  mpi_assert(my_rank() < 0);
  inner.reached_end++;
}
END_TEST

START_TEST(fails_alone_without_agreement) {
  ck_assert_int_ne(my_rank(), last_rank());
}
END_TEST

static Suite *suite_of(const char *name, int n, const TTest *const *tests) {
  Suite *suite = suite_create(name);
  TCase *tcase = tcase_create(name);
  for (int i = 0; i < n; i++) tcase_add_test(tcase, tests[i]);
  suite_add_tcase(suite, tcase);
  return suite;
}

static void run_provoked(void) {
  const TTest *tests[] = {fails_on_last_rank, passes, fails_with_text, fails_on_all};
  SRunner *runner = srunner_create(suite_of("provoked", 4, tests));
  srunner_set_fork_status(runner, CK_NOFORK);
  srunner_run_all(runner, CK_SILENT);
  inner.n_run = srunner_ntests_run(runner);
  inner.n_failed = srunner_ntests_failed(runner);
  TestResult **failure = srunner_failures(runner);
  for (int i = 0; i < inner.n_failed && i < 4; i++)
    snprintf(inner.message[i], sizeof inner.message[i], "%s", tr_msg(failure[i]));
  free(failure);
  srunner_free(runner);
}

/* Is value the same on every rank? By MPI alone, not by what is being tested. */
static bool is_agreed(int value) {
  int pair[2] = {value, -value}, most[2];
  MPI_Allreduce(pair, most, 2, MPI_INT, MPI_MAX, MPI_COMM_WORLD);
  return most[0] == -most[1];
}

START_TEST(test_every_rank_counts_the_failures) {
  bool agreed = is_agreed(inner.n_run) && is_agreed(inner.n_failed) && is_agreed(inner.reached_end);
  ck_assert(agreed);
  ck_assert_int_eq(inner.n_run, 4);
  ck_assert_int_eq(inner.n_failed, 3);
  ck_assert_int_eq(inner.reached_end, 1);
}
END_TEST

START_TEST(test_message_names_rank_and_expression) {
  char rank[32], text[64];
  snprintf(rank, sizeof rank, "rank %d: ", last_rank());
  snprintf(text, sizeof text, "my_rank() < last_rank() 100%% of %d", last_rank() + 40);
  ck_assert_ptr_nonnull(strstr(inner.message[0], rank));
  ck_assert_ptr_nonnull(strstr(inner.message[0], "test_mpi_assert.c:"));
  ck_assert_ptr_nonnull(strstr(inner.message[0], "my_rank() != last_rank()"));
  ck_assert_ptr_nonnull(strstr(inner.message[1], rank));
  ck_assert_ptr_nonnull(strstr(inner.message[1], text));
  ck_assert_ptr_nonnull(strstr(inner.message[2], "rank 0: "));
}
END_TEST

START_TEST(test_result_is_the_worst_of_all_ranks) {
  bool agreed = is_agreed(run_of_uneven) && is_agreed(run_of_passing) && is_agreed(run_of_empty);
  ck_assert(agreed);
  ck_assert_int_eq(run_of_uneven, 1);
  ck_assert_int_eq(run_of_passing, 0);
  ck_assert_int_eq(run_of_empty, 1);
}
END_TEST

static Suite *make_suite(void) {
  const TTest *uneven[] = {fails_alone_without_agreement}, *passing[] = {passes};
  run_provoked();
  int reached_end = inner.reached_end;
  run_of_uneven = mpi_test_run(suite_of("uneven", 1, uneven), CK_SILENT);
  run_of_passing = mpi_test_run(suite_of("passing", 1, passing), CK_SILENT);
  run_of_empty = mpi_test_run(suite_of("empty", 0, NULL), CK_SILENT);
  inner.reached_end = reached_end;
  const TTest *tests[] = {test_every_rank_counts_the_failures, test_message_names_rank_and_expression,
                          test_result_is_the_worst_of_all_ranks};
  return suite_of("mpi_assert", 3, tests);
}

int main(int argc, char **argv) {
  return mpi_test_main(argc, argv, make_suite);
}
