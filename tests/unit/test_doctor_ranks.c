/* Who runs where, judged on made-up machines: launchers, libraries, hosts, and masks of cores. */
#include "train/doctor_ranks.h"

#include "doctor_fixture.h"
#include "suite.h"

#include <mpi.h>
#include <stdio.h>

static const char LIBRARY[] = "Open MPI v4.1.4, package: Debian OpenMPI, ident: 4.1.4, repo rev: v4.1.4";

/* ---- launcher and MPI ---- */

START_TEST(test_launcher) {
  launcher l = {.kind = LAUNCHER_MPIRUN, .n_ranks = 3, .rank = 0, .has_pmix = true, .pmix_version = "4.2.2"};
  doctor_check_launcher(&l, 3, LIBRARY, &found);
  assert_line(DOCTOR_OK, "launcher", "mpirun, PMIx 4.2.2: 3 ranks, as promised");
  doctor_check_launcher(&l, 1, LIBRARY, &found);
  ck_assert_int_eq(found.line[0].code, EXIT_CODE_LAYOUT); /* as train ends */
  assert_line(DOCTOR_ERROR, "launcher", "mpirun started 3 ranks");
  l = (launcher){.kind = LAUNCHER_SRUN, .n_ranks = 4, .rank = 0};
  doctor_check_launcher(&l, 1, LIBRARY, &found);
  assert_line(DOCTOR_ERROR, "launcher", "srun --mpi=pmix");
  doctor_check_launcher(&l, 4, LIBRARY, &found);
  assert_line(DOCTOR_WARNING, "launcher", "4 ranks, as promised; SLURM 22.05 may");
  l.has_ring = true;
  doctor_check_launcher(&l, 4, LIBRARY, &found);
  assert_line(DOCTOR_OK, "launcher", "srun: 4 ranks, as promised");
  l = (launcher){.kind = LAUNCHER_NONE, .rank = -1, .job_tasks = 4};
  doctor_check_launcher(&l, 1, LIBRARY, &found);
  assert_line(DOCTOR_WARNING, "launcher", "none: 1 rank in a job of 4 tasks; start it by `srun --mpi=pmix` or mpirun");
  l.job_tasks = 1;
  doctor_check_launcher(&l, 1, LIBRARY, &found);
  assert_line(DOCTOR_OK, "launcher", "none: 1 rank");
}
END_TEST

START_TEST(test_mpi) {
  doctor_check_mpi(LIBRARY, 4, 1, 4, &found);
  assert_line(DOCTOR_OK, "MPI", "Open MPI 4.1.4, built with 4.1.4");
  doctor_check_mpi(LIBRARY, 4, 0, 9, &found);
  assert_line(DOCTOR_OK, "MPI", "built with 4.0.9");
  doctor_check_mpi(LIBRARY, 4, 2, 0, &found);
  assert_line(DOCTOR_WARNING, "MPI", "older than the 4.2.0");
  doctor_check_mpi(LIBRARY, 5, 0, 0, &found);
  assert_line(DOCTOR_ERROR, "MPI", "built with Open MPI 5.0.0; build it again");
  doctor_check_mpi("MPICH Version: 4.1", 4, 1, 4, &found);
  assert_line(DOCTOR_ERROR, "MPI", "MPICH Version: 4.1 is loaded");
}
END_TEST

START_TEST(test_threads) {
  doctor_check_threads(MPI_THREAD_MULTIPLE, &found);
  assert_line(DOCTOR_OK, "MPI threads", "multiple");
  doctor_check_threads(MPI_THREAD_SERIALIZED, &found);
  assert_line(DOCTOR_WARNING, "MPI threads", "serialized: no thread");
  doctor_check_threads(MPI_THREAD_FUNNELED, &found);
  assert_line(DOCTOR_WARNING, "MPI threads", "funneled");
  doctor_check_threads(MPI_THREAD_SINGLE, &found);
  assert_line(DOCTOR_WARNING, "MPI threads", "single");
}
END_TEST

/* ---- hosts and cores ---- */

enum { RANKS_MAX = 24 };
static doctor_rank rank[RANKS_MAX];

/* Rank r, on a host of n_cores, may run on those in "0-3,8". */
static void place(int r, const char *host, int n_cores, const char *cores, int blas_threads) {
  rank[r] = (doctor_rank){.n_cores = n_cores, .blas_threads = blas_threads};
  snprintf(rank[r].host, sizeof rank[r].host, "%s", host);
  for (const char *at = cores; *at != '\0';) {
    int first = 0, last = 0, n = 0;
    if (sscanf(at, "%d-%d%n", &first, &last, &n) < 2) sscanf(at, "%d%n", &first, &n), last = first;
    for (int c = first; c <= last; c++) rank[r].may[c / 64] |= (uint64_t)1 << c % 64;
    at += n + (at[n] == ',');
  }
}

static void assert_binding(int n, doctor_level level, const char *words) {
  doctor_check_binding(rank, n, &found);
  assert_line(level, "binding", words);
}

START_TEST(test_hosts) {
  int host_of[4];
  static const char *const names[] = {"n0", "n1", "n0", "n1"};
  for (int r = 0; r < 4; r++) place(r, names[r], 2, "0-1", 1);
  ck_assert_int_eq(doctor_hosts(rank, 4, host_of), 2);
  for (int r = 0; r < 4; r++) ck_assert_int_eq(host_of[r], r % 2);
  doctor_check_hosts(rank, 4, &found);
  assert_line(DOCTOR_OK, "hosts", "2: n0 (rank 0, 2), n1 (rank 1, 3)");
  for (int r = 0; r < RANKS_MAX; r++) place(r, "n0", 64, "0-63", 1);
  doctor_check_hosts(rank, RANKS_MAX, &found);
  assert_line(DOCTOR_OK, "hosts", "1: n0 (rank 0, 1, 2, 3, 4, 5, 6, 7, ...)");
  for (int r = 0; r < RANKS_MAX; r++) {
    char name[16];
    snprintf(name, sizeof name, "n%d", r);
    place(r, name, 64, "0-63", 1);
  }
  doctor_check_hosts(rank, RANKS_MAX, &found);
  assert_line(DOCTOR_OK, "hosts", "24: n0 (rank 0), n1 (rank 1), ");
}
END_TEST

START_TEST(test_bound_to_cores) {
  place(0, "n0", 4, "0", 1);
  place(1, "n0", 4, "2-3", 2);
  place(2, "n1", 4, "0", 1); /* the same core of another host */
  assert_binding(3, DOCTOR_OK, "3 of 3 ranks are bound: rank 0 to 0, rank 1 to 2-3, rank 2 to 0");
}
END_TEST

START_TEST(test_bound_to_the_same_core) {
  place(0, "n0", 4, "0", 1);
  place(1, "n0", 4, "3", 1);
  place(2, "n0", 4, "3", 1);
  assert_binding(3, DOCTOR_ERROR, "ranks 1, 2 on n0: 2 ranks are bound to 1 core (3); give each its own");
  place(2, "n1", 4, "3", 1);
  assert_binding(3, DOCTOR_OK, "bound");
}
END_TEST

/* Open MPI binds more than two ranks to sockets: overlapping masks, and a core for each. */
START_TEST(test_bound_to_sockets) {
  for (int r = 0; r < 8; r++) place(r, "n0", 8, r % 2 == 0 ? "0-3" : "4-7", 1);
  assert_binding(8, DOCTOR_OK, "8 of 8 ranks are bound");
  place(8, "n0", 8, "4-7", 1);
  assert_binding(9, DOCTOR_ERROR, "5 ranks are bound to 4 cores (4-7)");
}
END_TEST

/* A rank that may run anywhere takes no core from one that is bound, but both from those in its own cores. */
START_TEST(test_nested_masks) {
  place(0, "n0", 4, "0-1", 1);
  place(1, "n0", 4, "1", 1);
  place(2, "n0", 4, "0-3", 1);
  assert_binding(3, DOCTOR_OK, "2 of 3 ranks are bound");
  place(2, "n0", 4, "0", 1);
  assert_binding(3, DOCTOR_ERROR, "3 ranks are bound to 2 cores (0-1)");
}
END_TEST

START_TEST(test_not_bound) {
  for (int r = 0; r < 4; r++) place(r, "n0", 4, "0-3", 1);
  assert_binding(4, DOCTOR_OK, "none: a rank may run on all 4 cores of n0");
  place(4, "n0", 4, "0-3", 1);
  assert_binding(5, DOCTOR_WARNING, "5 ranks share the 4 cores of n0");
  assert_binding(1, DOCTOR_OK, "none");
}
END_TEST

START_TEST(test_more_threads_than_cores) {
  place(0, "n0", 4, "2", 2);
  assert_binding(1, DOCTOR_WARNING,
                 "rank 0 on n0 and those beside it have 2 BLAS threads for cores 2; --blas-threads 1");
  place(0, "n0", 4, "0-3", 4);
  assert_binding(1, DOCTOR_OK, "none");
  place(1, "n0", 4, "0-3", 4);
  assert_binding(2, DOCTOR_WARNING, "8 BLAS threads for cores 0-3; --blas-threads 2");
}
END_TEST

START_TEST(test_odd_masks) {
  place(0, "n0", 4096, "0,2,4,6,8,10,12,14,16,4095", 1);
  assert_binding(1, DOCTOR_OK, "rank 0 to 0, 2, 4, 6, 8, 10, 12, 14, ...");
  place(0, "n0", 4096, "4095", 1);
  place(1, "n0", 4096, "4095", 1);
  assert_binding(2, DOCTOR_ERROR, "1 core (4095)");
  place(1, "n0", 4, "", 1);
  assert_binding(2, DOCTOR_WARNING, "rank 1 on n0: the system does not tell its cores");
}
END_TEST

int main(void) {
  const TTest *const tests[] = {test_launcher,         test_mpi,
                                test_threads,          test_hosts,
                                test_bound_to_cores,   test_bound_to_the_same_core,
                                test_bound_to_sockets, test_nested_masks,
                                test_not_bound,        test_more_threads_than_cores,
                                test_odd_masks};
  return suite_run("doctor: ranks", tests, sizeof tests / sizeof tests[0], forget);
}
