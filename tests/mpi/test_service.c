/* The service over several ranks: who is what, what is sent and kept, how it ends.
 * Each test goes through every number of curvature ranks that leaves a worker. */
#include "mpi_service.h"

#include "curvature/guard.h"
#include "curvature/internal.h"

#define COUNT(list) (sizeof list / sizeof list[0])

static int size, rank;

/* ---- roles ---- */

START_TEST(last_ranks_are_curvature_ranks) {
  for (int c = 0; c < size; c++) {
    service_run run = run_of(run_kfac, c);
    curvd_ctx *ctx = run_open(&run);
    bool worker = rank < size - c;
    mpi_assert(curvd_role_get(ctx) == (worker ? CURVD_ROLE_WORKER : CURVD_ROLE_CURVATURE));
    mpi_assert(curvd_worker_count(ctx) == size - c);
    mpi_assert(curvd_worker_index(ctx) == (worker ? rank : -1));
    mpi_assert(curvd_wants_capture(ctx) == worker);
    int owners = 0;
    for (int l = 0; l < RUN_LAYERS; l++) {
      curvd_layer_metrics metrics = {.owner = -1};
      mpi_assert(curvd_layer_metrics_read(ctx, l, &metrics) == CURVD_OK);
      mpi_assert(metrics.owner >= (c > 0 ? size - c : 0) && metrics.owner < size);
      owners |= 1 << metrics.owner;
    }
    int expected = c > 0 ? c : size;
    mpi_assert(__builtin_popcount((unsigned)owners) == (expected < RUN_LAYERS ? expected : RUN_LAYERS));
    run_close(&ctx);
  }
}
END_TEST

START_TEST(calls_of_the_wrong_role) {
  for (int c = 0; c < size; c++) {
    service_run run = run_of(run_kfac, c);
    curvd_ctx *ctx = run_open(&run);
    curvd_status expected = rank < size - c ? CURVD_OK : CURVD_ERR_STATE;
    float x[24] = {0};
    mpi_assert(curvd_capture(ctx, 0, 1, x, 24, NULL, 0) == expected);
    mpi_assert(expected == CURVD_OK || curvd_step(ctx, 1, NULL, 0) == expected);
    mpi_assert(expected == CURVD_OK || curvd_finish(ctx) == expected);
    mpi_assert(expected != CURVD_OK || curvd_serve(ctx) == CURVD_OK); /* on a worker: returns at once */
    run_close(&ctx);
  }
}
END_TEST

/* ---- what is sent, kept and counted ---- */

static int64_t triangle(int64_t n) {
  return n * (n + 1) / 2;
}

static int64_t rows_of(int l, int f) {
  return f == CV_A ? service_columns(&run_layer[l]) : run_layer[l].d_out;
}

/* Bytes that this rank hands to MPI: gradients (m n) a step; packed triangles and four numbers a factor to each other
 * owner; a state, and r pairs of (eigenvector, eigenvalue) a factor from an owner, with its events; a word to each
 * curvature rank. */
static void expect_bytes(const curvd_ctx *ctx, int c, int n_steps, int n_statistics, int n_refreshes, int n_services,
                         int64_t r_max, int64_t *bytes) {
  bool worker = rank < size - c, owns_some = false;
  memset(bytes, 0, CURVD_TRAFFICS * sizeof *bytes);
  for (int l = 0; l < RUN_LAYERS; l++) {
    curvd_layer_metrics metrics = {.owner = -1};
    curvd_layer_metrics_read(ctx, l, &metrics);
    bool is_mine = metrics.owner == rank;
    owns_some = owns_some || is_mine;
    if (worker && size - c > 1) bytes[CURVD_TRAFFIC_GRADIENTS] += 4 * n_steps * rows_of(l, CV_A) * rows_of(l, CV_G);
    for (int f = 0; f < CV_FACTORS; f++) {
      int64_t n = rows_of(l, f), r = (double)r_max >= 0.75 * (double)n ? n : r_max;
      if (worker && !is_mine) bytes[CURVD_TRAFFIC_STATISTICS] += 4 * n_statistics * (triangle(n) + 4);
      int64_t refresh = (int64_t)sizeof(cv_factor_state) + 4 * r * (n + 1);
      if (is_mine && size > 1) bytes[CURVD_TRAFFIC_PRECONDITIONERS] += n_refreshes * refresh;
    }
  }
  if (owns_some && size > 1)
    bytes[CURVD_TRAFFIC_PRECONDITIONERS] += n_refreshes * (CV_OWNER_EVENTS * 8 + (int64_t)sizeof(cv_seal));
  if (rank == 0 && c > 0) bytes[CURVD_TRAFFIC_CONTROL] = 8 * c * (n_services + 1);
}

/* Statistics in steps 0, 2, 4, 6; refreshes in 0, 3, 6; nothing in 1, 5, 7. */
static void check_traffic(const char *method, int64_t r_max, int c) {
  enum { STEPS = 8, STATISTICS = 4, REFRESHES = 3, SERVICES = 5 };
  char options[256];
  snprintf(options, sizeof options, "%s eig_rank=6 oversampling=0 factor_update_steps=2 inv_update_steps=3", method);
  service_run run = run_of(options, c);
  int64_t bytes[CURVD_TRAFFICS];
  curvd_ctx *ctx = run_open(&run);
  curvd_metrics before = service_metrics(ctx);
  bool ok = true;
  if (run_is_worker(ctx)) {
    dense V[RUN_LAYERS];
    for (int step = 0; step < STEPS; step++) ok = ok && run_step(ctx, &run, step, V) == CURVD_OK;
    curvd_finish(ctx);
  }
  curvd_metrics metrics = service_metrics(ctx);
  mpi_assert(ok);
  expect_bytes(ctx, c, STEPS, STATISTICS, REFRESHES, SERVICES, r_max, bytes);
  for (int i = 0; i < CURVD_TRAFFICS; i++) {
    mpi_assert_msg(metrics.sent_bytes[i] == bytes[i], "%s, %d curvature ranks, %s: %lld, not %lld", method, c,
                   curvd_traffic_name(i), (long long)metrics.sent_bytes[i], (long long)bytes[i]);
  }
  mpi_assert(metrics.n_allocations == before.n_allocations);
  mpi_assert(memcmp(metrics.memory_bytes, before.memory_bytes, sizeof before.memory_bytes) == 0);
  mpi_assert(metrics.memory_peak_bytes == before.memory_peak_bytes);
  mpi_assert(rank >= size - c || metrics.step == STEPS);
  mpi_assert(rank >= size - c || metrics.events[CURVD_EVENT_REFRESHES] == REFRESHES * RUN_LAYERS * CV_FACTORS);
  mpi_assert((metrics.memory_bytes[CURVD_MEMORY_STATISTICS] > 0) == (rank < size - c));
  mpi_assert((metrics.stage_calls[CURVD_STAGE_IDLE] > 0) == (rank >= size - c));
  curvd_destroy(&ctx);
}

START_TEST(bytes_memory_and_events_are_those_of_the_plan) {
  for (int c = 0; c < size; c++) {
    check_traffic("method=kfac", 1000, c);
    check_traffic("method=nystrom-kfac", 6, c);
  }
}
END_TEST

/* ---- two contexts ---- */

START_TEST(two_contexts_of_one_communicator) {
  service_run run[2] = {run_of(run_kfac, 0), run_of(run_nystrom, 0)};
  static dense alone[2][3][RUN_LAYERS], both[2][3][RUN_LAYERS];
  curvd_ctx *ctx[2];
  bool ok = true;
  for (int i = 0; i < 2; i++) {
    run[i].n_steps = 3;
    mpi_assert(run_all(&run[i], alone[i]) == CURVD_OK);
    ctx[i] = run_open(&run[i]);
  }
  for (int step = 0; step < 3; step++) {
    for (int i = 0; i < 2; i++) ok = ok && run_step(ctx[i], &run[i], step, both[i][step]) == CURVD_OK;
  }
  for (int i = 0; i < 2; i++) run_close(&ctx[i]);
  mpi_assert(ok);
  mpi_assert(memcmp(alone, both, sizeof both) == 0);
}
END_TEST

/* Halves of the ranks with their own contexts, at different paces and with curvature ranks. */
START_TEST(contexts_of_disjoint_communicators) {
  MPI_Comm half;
  static dense V[RUN_STEPS_MAX][RUN_LAYERS];
  MPI_Comm_split(MPI_COMM_WORLD, rank % 2, 0, &half);
  service_run run = {.comm = half, .options = rank % 2 ? run_kfac : run_nystrom, .rows = 10};
  run.n_curvature = run_size(half) > 1;
  run.n_steps = rank % 2 ? 2 : 5;
  mpi_assert(run_all(&run, V) == CURVD_OK);
  MPI_Comm_free(&half);
}
END_TEST

START_TEST(ends_twice_and_steps_no_more) {
  for (int c = 0; c < size; c++) {
    service_run run = run_of(run_kfac, c);
    dense V[RUN_LAYERS];
    curvd_status status[3] = {CURVD_OK, CURVD_OK, CURVD_ERR_STATE};
    curvd_ctx *ctx = run_open(&run);
    if (run_is_worker(ctx)) {
      status[0] = curvd_finish(ctx);
      status[1] = curvd_finish(ctx);
      status[2] = run_step(ctx, &run, 0, V);
    } else {
      status[1] = curvd_serve(ctx); /* again: returns at once */
    }
    mpi_assert(status[0] == CURVD_OK && status[1] == CURVD_OK && status[2] == CURVD_ERR_STATE);
    curvd_destroy(&ctx);
  }
}
END_TEST

/* Destroyed at every point of its life, by all ranks together. */
START_TEST(half_made_contexts_are_destroyed) {
  for (int c = 0; c < size; c++) {
    service_run run = run_of(run_nystrom, c);
    curvd_ctx *ctx = NULL;
    mpi_assert(curvd_create(MPI_COMM_WORLD, &ctx) == CURVD_OK);
    curvd_destroy(&ctx);
    ctx = run_make(&run);
    curvd_destroy(&ctx);
    ctx = run_open(&run);
    curvd_destroy(&ctx);
    mpi_assert(ctx == NULL);
  }
}
END_TEST

static Suite *make_suite(void) {
  const TTest *const tests[] = {last_ranks_are_curvature_ranks,
                                calls_of_the_wrong_role,
                                bytes_memory_and_events_are_those_of_the_plan,
                                two_contexts_of_one_communicator,
                                contexts_of_disjoint_communicators,
                                ends_twice_and_steps_no_more,
                                half_made_contexts_are_destroyed};
  size = run_size(MPI_COMM_WORLD);
  rank = run_rank(MPI_COMM_WORLD);
  return service_suite("service", tests, COUNT(tests));
}

int main(int argc, char **argv) {
  return mpi_test_main(argc, argv, make_suite);
}
