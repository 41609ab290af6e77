/* Open MPI's own thread may be about to call a plug-in at the end. */
#include "train/mpi_end.h"

#include "suite.h"

#include <check.h>
#include <mpi.h>
#include <stdio.h>
#include <string.h>

/* Code of plug-ins in this process. */
static int count_plugins(void) {
  FILE *maps = fopen("/proc/self/maps", "r");
  char line[4400];
  int n = 0;
  ck_assert_ptr_nonnull(maps);
  while (fgets(line, sizeof line, maps)) n += strstr(line, "/mca_") != NULL && strstr(line, " r-xp ") != NULL;
  fclose(maps);
  return n;
}

START_TEST(test_plugins_stay) {
  MPI_Init(NULL, NULL);
  int before = count_plugins();
  mpi_end();
  int is_finalized = 0;
  MPI_Finalized(&is_finalized);
  ck_assert_int_eq(is_finalized, 1);
  ck_assert_int_ge(count_plugins(), before);
}
END_TEST

int main(void) {
  const TTest *const tests[] = {test_plugins_stay};
  return suite_run("mpi_end", tests, sizeof tests / sizeof tests[0], NULL);
}
