/* Transfers while workers compute: who moves them makes no difference to results; threads come and go; waits are on the
 * clock. usage: test_progress [multiple|funneled|single] [hash] */
#include "mpi_service.h"

#include "comm/progress.h"
#include "curvature/internal.h"
#include "train/mpi_end.h"

#include <dirent.h>
#include <sys/resource.h>
#include <time.h>

#define COUNT(list) (sizeof list / sizeof list[0])

static int size, rank;

static void sleep_ms(int64_t ms) {
  nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000}, NULL);
}

/* ---- results ---- */

enum { STEPS = 7 };

/* Steps that follow each other at once, and statistics in every one: as much as can be is under way. */
static void run_with(const char *progress, int n_curvature, dense (*V)[RUN_LAYERS]) {
  char options[256];
  snprintf(options, sizeof options, "%s staleness=3 progress=%s", run_nystrom, progress);
  service_run run = run_of(options, n_curvature);
  run.n_steps = STEPS;
  mpi_assert(run_all(&run, V) == CURVD_OK);
}

START_TEST(results_do_not_depend_on_who_moves_transfers) {
  static dense V[STEPS][RUN_LAYERS], W[STEPS][RUN_LAYERS];
  for (int c = 0; c < size; c++) {
    bool is_worker = rank < size - c;
    run_with("test", c, V);
    run_with("auto", c, W);
    mpi_assert(!is_worker || memcmp(V, W, sizeof V) == 0);
    if (!cv_progress_is_possible()) continue;
    run_with("thread", c, W);
    mpi_assert(!is_worker || memcmp(V, W, sizeof V) == 0);
  }
}
END_TEST

/* For mpi_levels.sh: FNV-1a of worker 0's directions, by a thread where one is possible. */
START_TEST(directions_are_hashed) {
  static dense V[STEPS][RUN_LAYERS];
  uint64_t hash = 14695981039346656037u;
  run_with(cv_progress_is_possible() ? "thread" : "test", size > 1, V);
  for (size_t i = 0; i < sizeof V; i++) hash = (hash ^ ((const unsigned char *)V)[i]) * 1099511628211u;
  if (rank == 0) printf("directions %016llx\n", (unsigned long long)hash);
}
END_TEST

/* ---- the thread ---- */

static int count_threads(void) {
  int n = 0;
  DIR *tasks = opendir("/proc/self/task");
  for (struct dirent *entry = tasks ? readdir(tasks) : NULL; entry; entry = readdir(tasks))
    n += entry->d_name[0] != '.';
  if (tasks) closedir(tasks);
  return n;
}

START_TEST(threads_come_and_go) {
  service_run run = run_of("method=kfac progress=thread", size > 1);
  int before = count_threads(), least = before, most = before;
  for (int i = 0; i < 100 && cv_progress_is_possible(); i++) {
    curvd_ctx *ctx = run_open(&run);
    int now = count_threads();
    least = i == 0 || now < least ? now : least;
    most = now > most ? now : most;
    run_close(&ctx);
  }
  bool has_one = cv_progress_is_possible() && size > 1 && rank < size - 1; /* workers beside a curvature rank */
  mpi_assert_msg(least == before + has_one && most == before + has_one, "%d .. %d threads", least, most);
  mpi_assert_msg(count_threads() == before, "%d threads are left of %d", count_threads(), before);
}
END_TEST

START_TEST(thread_needs_thread_multiple) {
  for (int c = 0; c < size; c++) {
    service_run run = run_of("method=kfac progress=thread", c);
    curvd_ctx *ctx = run_make(&run);
    curvd_status expected = cv_progress_is_possible() ? CURVD_OK : CURVD_ERR_STATE;
    mpi_assert_msg(curvd_plan(ctx) == expected, "%s", curvd_last_error(ctx));
    mpi_assert(expected == CURVD_OK || strstr(curvd_last_error(ctx), "MPI_THREAD_MULTIPLE") != NULL);
    curvd_destroy(&ctx);
  }
}
END_TEST

/* Rank 1 computes on while rank 0's message comes; it looks at its own memory only. */
START_TEST(thread_receives_while_its_rank_computes) {
  enum { N = 1 << 21, TRIES = 2000 };
  float *x = calloc(N, sizeof *x);
  cv_progress progress = {.is_running = false};
  MPI_Request request = MPI_REQUEST_NULL;
  bool is_ready = x && cv_progress_start(&progress, NULL) == CURVD_OK;
  mpi_assert(is_ready == cv_progress_is_possible());
  for (int i = 0; i < N && rank == 0; i++) x[i] = 1;
  if (is_ready && rank == 1) MPI_Irecv(x, N, MPI_FLOAT, 0, 0, MPI_COMM_WORLD, &request);
  MPI_Barrier(MPI_COMM_WORLD);
  cv_progress_want(&progress, rank == 1);
  if (rank == 0) sleep_ms(50); /* rank 1 has left the barrier, and MPI */
  if (is_ready && rank == 0 && size > 1) MPI_Send(x, N, MPI_FLOAT, 1, 0, MPI_COMM_WORLD);
  bool is_here = rank != 1;
  for (int i = 0; i < TRIES && is_ready && !is_here; i++) {
    sleep_ms(5);
    is_here = ((volatile float *)x)[N - 1] == 1;
  }
  mpi_assert(is_here || !is_ready);
  MPI_Wait(&request, MPI_STATUS_IGNORE);
  cv_progress_stop(&progress);
  cv_progress_stop(&progress);
  free(x);
}
END_TEST

/* ---- the trial ---- */

static bool is_zero(const void *block, int64_t bytes) {
  const char *at = block;
  for (int64_t i = 0; at && i < bytes; i++) {
    if (at[i] != 0) return false;
  }
  return true;
}

static bool has_clean_buffers(const curvd_ctx *ctx) {
  bool is_clean = true;
  for (int o = 0; o < ctx->comm.n_owners; o++) {
    const cv_uplink *up = &ctx->route[o].up;
    const cv_downlink *down = &ctx->route[o].down;
    is_clean = is_clean && is_zero(up->slots, up->n_slots * up->n_floats * (int64_t)sizeof(float)) &&
               is_zero(up->rows, up->n_slots * up->row_bytes) && is_zero(up->inbox, up->row_bytes) &&
               is_zero(down->payloads, down->n_slots * down->payload_bytes);
  }
  return is_clean;
}

static int extreme(int x, MPI_Op op) {
  int y = 0;
  MPI_Allreduce(&x, &y, 1, MPI_INT, op, MPI_COMM_WORLD);
  return y;
}

/* With transfers of megabytes; plans only. */
static void check_trial(const char *options, int c, bool may_measure) {
  const service_layer wide = {"wide", 700, 700, true};
  char text[256];
  snprintf(text, sizeof text, "%s curvature_ranks=%d", options, c);
  curvd_ctx *ctx = service_open(MPI_COMM_WORLD, text, 1, &wide);
  curvd_metrics metrics = service_metrics(ctx);
  double overlap = metrics.overlap_measured;
  curvd_progress_kind kind = metrics.progress;
  mpi_assert_msg(overlap == -1 || (may_measure && overlap >= 0 && overlap <= 1), "overlap %g", overlap);
  mpi_assert(extreme((int)kind, MPI_MIN) == extreme((int)kind, MPI_MAX));
  mpi_assert((kind == CURVD_PROGRESS_NONE) == (size == 1));
  mpi_assert(kind != CURVD_PROGRESS_THREAD || cv_progress_is_possible());
  mpi_assert(ctx->progress.is_running == (kind == CURVD_PROGRESS_THREAD && rank < size - c));
  mpi_assert(has_clean_buffers(ctx));
  mpi_assert(is_zero(&metrics.transfer_s, sizeof metrics.transfer_s));
  run_close(&ctx);
}

START_TEST(all_ranks_choose_alike_and_buffers_stay_clean) {
  for (int c = 0; c < size; c++) {
    check_trial("method=kfac staleness=4", c, true);
    check_trial("method=nystrom-kfac eig_rank=64 carrier=columns capture_rows=500 staleness=4", c, true);
    check_trial("method=kfac staleness=0", c, false);
    check_trial("method=kfac staleness=4 progress=test", c, false);
  }
}
END_TEST

/* ---- the clock ---- */

/* Without staleness a worker waits for its curvature rank, which comes late by 300 ms. */
START_TEST(a_late_owner_is_waited_for_on_the_clock) {
  service_run run = run_of(run_kfac, 1);
  dense V[RUN_LAYERS];
  if (size == 1) return;
  curvd_ctx *ctx = run_open(&run);
  MPI_Barrier(MPI_COMM_WORLD);
  if (rank == size - 1) sleep_ms(300);
  curvd_status status = run_is_worker(ctx) ? run_step(ctx, &run, 0, V) : CURVD_OK;
  curvd_metrics metrics = service_metrics(ctx);
  run_close(&ctx);
  bool is_worker = rank < size - 1;
  mpi_assert(status == CURVD_OK);
  mpi_assert_msg(!is_worker || metrics.exposed_s > 0.2, "%g s", metrics.exposed_s);
  mpi_assert_msg(!is_worker || metrics.transfer_s >= metrics.exposed_s, "%g s", metrics.transfer_s);
  mpi_assert(is_worker || (metrics.exposed_s == 0 && metrics.transfer_s == 0));
}
END_TEST

/* With it, the worker is busy elsewhere: what is under way costs it nothing. */
START_TEST(a_late_owner_costs_nothing_behind_the_back) {
  char options[256];
  snprintf(options, sizeof options, "%s staleness=5 progress=test", run_kfac);
  service_run run = run_of(options, 1);
  dense V[RUN_LAYERS];
  if (size == 1) return;
  curvd_ctx *ctx = run_open(&run);
  bool is_worker = rank < size - 1;
  curvd_status status = CURVD_OK;
  MPI_Barrier(MPI_COMM_WORLD);
  sleep_ms(is_worker ? 0 : 200);
  if (is_worker) {
    status = run_step(ctx, &run, 0, V);
    sleep_ms(300);
    curvd_progress(ctx);
  }
  curvd_metrics metrics = service_metrics(ctx);
  run_close(&ctx);
  mpi_assert(status == CURVD_OK);
  mpi_assert_msg(!is_worker || metrics.transfer_s >= 0.29, "%g s", metrics.transfer_s);
  mpi_assert_msg(!is_worker || metrics.exposed_s < 0.1, "%g s", metrics.exposed_s);
}
END_TEST

/* ---- idle ranks ---- */

static double cpu_s(void) {
  struct rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
         1e-6 * (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

/* About 2 % in Release; spinning would be near 100 %, and 50 % where two ranks share a core. */
START_TEST(an_idle_curvature_rank_leaves_its_core) {
  service_run run = run_of(run_kfac, 1);
  if (size == 1) return;
  curvd_ctx *ctx = run_open(&run);
  MPI_Barrier(MPI_COMM_WORLD);
  double begin_s = cpu_s();
  if (rank < size - 1) sleep_ms(500);
  run_close(&ctx);
  double used_s = cpu_s() - begin_s;
  mpi_assert_msg(rank < size - 1 || used_s < 0.2 * 0.5, "%g s of CPU in 0.5 s", used_s);
}
END_TEST

static Suite *make_suite(void) {
  const TTest *const tests[] = {results_do_not_depend_on_who_moves_transfers,
                                threads_come_and_go,
                                thread_needs_thread_multiple,
                                thread_receives_while_its_rank_computes,
                                all_ranks_choose_alike_and_buffers_stay_clean,
                                a_late_owner_is_waited_for_on_the_clock,
                                a_late_owner_costs_nothing_behind_the_back,
                                an_idle_curvature_rank_leaves_its_core};
  return service_suite("progress", tests, COUNT(tests));
}

static Suite *make_hash_suite(void) {
  const TTest *const tests[] = {directions_are_hashed};
  return service_suite("hash", tests, COUNT(tests));
}

static int level_of(const char *name) {
  return kfac_is(name, "funneled") ? MPI_THREAD_FUNNELED
         : kfac_is(name, "single") ? MPI_THREAD_SINGLE
                                   : MPI_THREAD_MULTIPLE;
}

int main(int argc, char **argv) {
  int provided = 0;
  MPI_Init_thread(NULL, NULL, level_of(argc > 1 ? argv[1] : "multiple"), &provided);
  size = run_size(MPI_COMM_WORLD);
  rank = run_rank(MPI_COMM_WORLD);
  int failed = argc > 2 ? mpi_test_run(make_hash_suite(), CK_SILENT) : mpi_test_run(make_suite(), CK_NORMAL);
  mpi_end();
  return failed > 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
