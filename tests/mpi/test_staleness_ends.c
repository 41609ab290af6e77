/* Ends, failures and long runs with refreshes under way: nothing hangs, and every request that was begun has ended and
 * every communicator is freed afterwards. */
#include "staleness_fixture.h"

#define COUNT(list) (sizeof list / sizeof list[0])

static int size, rank;

static bool is_worker_of(int n_curvature) {
  return rank < size - n_curvature;
}

/* ---- what is under way ---- */

static mpi_counts start;

static void count_from_here(void) {
  start = counts;
}

static int64_t requests_under_way(void) {
  return (counts.begun - start.begun) - (counts.ended - start.ended);
}

static bool nothing_is_left(void) {
  return requests_under_way() == 0 && counts.live == start.live;
}

/* ---- ends ---- */

typedef enum ending {
  FINISH_AND_SERVE, /* curvd_finish on the workers, curvd_serve on the others, then curvd_destroy */
  DESTROY_WORKERS,  /* the workers leave it to curvd_destroy */
  DESTROY_OTHERS,   /* the curvature ranks never call curvd_serve */
  DESTROY_ALL,
  ENDINGS
} ending;

/* n_steps with a refresh in the last one. */
static bool work_and_end(const service_run *run, ending how) {
  dense V[RUN_LAYERS];
  curvd_ctx *ctx = stale_open(run);
  bool ok = true, is_worker = is_worker_of(run->n_curvature);
  for (int step = 0; step < run->n_steps && is_worker; step++) ok = run_step(ctx, run, step, V) == CURVD_OK && ok;
  if (is_worker && (how == FINISH_AND_SERVE || how == DESTROY_OTHERS)) ok = ok && curvd_finish(ctx) == CURVD_OK;
  if (!is_worker && (how == FINISH_AND_SERVE || how == DESTROY_WORKERS)) ok = curvd_serve(ctx) == CURVD_OK;
  curvd_destroy(&ctx);
  return ok && ctx == NULL;
}

static void check_ends(const stale_case *c, int n_steps, bool is_late) {
  for (int i = 0; i < size * ENDINGS; i++) {
    service_run run = run_of(stale_options(c), i / ENDINGS);
    run.n_steps = n_steps;
    if (is_late) delay_at_random((uint64_t)i, rank);
    count_from_here();
    bool ok = work_and_end(&run, i % ENDINGS);
    delay_never();
    mpi_assert(ok);
    mpi_assert_msg(nothing_is_left(), "%s, %d curvature ranks, ending %d: %lld requests, %lld communicators left",
                   run.options, run.n_curvature, i % ENDINGS, (long long)requests_under_way(),
                   (long long)(counts.live - start.live));
  }
}

/* None, one, and as many refreshes under way as there can be. */
START_TEST(ends_with_refreshes_under_way) {
  static const int staleness[] = {STALE_FREE, 1, 5, 0}, n_steps[] = {0, 1, 7};
  for (int i = 0; i < 3 * (int)COUNT(staleness); i++) {
    stale_case c = {.staleness = staleness[i % COUNT(staleness)],
                    .staleness_max = 4,
                    .factor = {.first = 1},
                    .inv = {.first = 1},
                    .method = stale_kfac};
    check_ends(&c, n_steps[i / COUNT(staleness)], i % 2);
  }
}
END_TEST

/* ---- a step that fails ---- */

/* Steps 0 .. n_steps - 1; in bad_step, if any, the last worker's gradient is not finite. */
static bool run_with_bad_step(const service_run *run, int bad_step, stale_directions V) {
  curvd_ctx *ctx = stale_open(run);
  bool ok = true, is_worker = run_is_worker(ctx);
  memset(V, 0, sizeof(stale_directions));
  for (int step = 0; step < run->n_steps && is_worker; step++) {
    ok = run_capture(ctx, run, step) == CURVD_OK && ok;
    run_gradients(ctx, run, step, V[step]);
    if (step == bad_step && rank == curvd_worker_count(ctx) - 1) V[step][2].x[1][3] = NAN;
    curvd_status status = service_try(ctx, 0.1, SERVICE_APART, RUN_LAYERS, run_layer, V[step]);
    ok = ok && status == (step == bad_step ? CURVD_ERR_NUMERIC : CURVD_OK);
  }
  run_close(&ctx);
  return ok;
}

/* A step that fails for its gradient has sent its statistics and begun and landed its refreshes: without momentum all
 * later directions have the bits of a run in which it was well. */
static void check_failure(int staleness, int bad_step, int n_curvature) {
  static stale_directions well, V;
  stale_case c = {.staleness = staleness, .factor = {.first = 1}, .inv = {.first = 2}, .method = stale_kfac};
  service_run run = run_of(stale_options(&c), n_curvature);
  run.n_steps = 10;
  count_from_here();
  mpi_assert(run_with_bad_step(&run, -1, well));
  delay_at_random((uint64_t)bad_step, rank);
  bool ok = run_with_bad_step(&run, bad_step, V);
  delay_never();
  mpi_assert(ok);
  memcpy(V[bad_step], well[bad_step], sizeof V[bad_step]);
  mpi_assert_msg(memcmp(V, well, sizeof V) == 0, "%s, %d curvature ranks, step %d", run.options, n_curvature, bad_step);
  mpi_assert(nothing_is_left());
}

/* In steps that begin a refresh, land one, do both, and do nothing. */
START_TEST(a_step_fails_while_refreshes_are_under_way) {
  for (int n = 0; n < size; n++) {
    for (int bad_step = 3; bad_step < 7; bad_step++) {
      check_failure(2, bad_step, n);
      check_failure(5, bad_step, n);
    }
  }
}
END_TEST

/* ---- a long run ---- */

enum { TINY_IN = 3, TINY_OUT = 2, TINY_LAYERS = 2, TINY_LD = TINY_IN + 1 };

static const service_layer tiny[TINY_LAYERS] = {{"fc0", TINY_IN, TINY_OUT, true}, {"fc1", TINY_IN, TINY_OUT, true}};

/* Numbers that differ in every step; two examples a worker. */
static bool tiny_step(curvd_ctx *ctx, int64_t step) {
  float a[2 * TINY_IN], g[2 * TINY_OUT], V[TINY_LAYERS][TINY_OUT * TINY_LD];
  curvd_gradient gradient[TINY_LAYERS];
  bool ok = true;
  for (int i = 0; i < 2 * TINY_IN; i++) a[i] = (float)sin((double)(step * 7 + i));
  for (int i = 0; i < 2 * TINY_OUT; i++) g[i] = (float)cos((double)(step * 5 + i));
  for (int l = 0; l < TINY_LAYERS; l++) {
    for (int i = 0; i < TINY_OUT * TINY_LD; i++) V[l][i] = (float)(i + l + 1);
    gradient[l] = (curvd_gradient){.weight = V[l], .ld = TINY_LD, .bias = V[l] + TINY_IN, .bias_stride = TINY_LD};
    ok = curvd_capture(ctx, l, 2, a, TINY_IN, g, TINY_OUT) == CURVD_OK && ok;
  }
  return curvd_step(ctx, 0.1, gradient, TINY_LAYERS) == CURVD_OK && ok;
}

/* Of one rank of each owner: slots of statistics; header and payload of each parcel; a word and its answer. */
static int64_t requests_at_most(int staleness) {
  int64_t ring = staleness > 1 ? staleness : 1;
  return TINY_LAYERS * (ring + 2 * (ring + 1)) + size;
}

static bool is_constant(const curvd_metrics *now, const curvd_metrics *before, int64_t communicators, int staleness) {
  return now->n_allocations == before->n_allocations && now->memory_peak_bytes == before->memory_peak_bytes &&
         memcmp(now->memory_bytes, before->memory_bytes, sizeof before->memory_bytes) == 0 &&
         counts.live == communicators && requests_under_way() <= requests_at_most(staleness);
}

/* A worker hears of another owner's refresh when it lands, or at the end of the run, and of its own at once. missing:
 * of the others', those that have not landed. A curvature rank hears of its own alone. */
static bool has_heard(const curvd_ctx *ctx, int64_t n_refreshes, int64_t missing) {
  int64_t n = 0;
  for (int l = 0; l < TINY_LAYERS; l++) {
    curvd_layer_metrics metrics = {.owner = -1};
    curvd_layer_metrics_read(ctx, l, &metrics);
    bool is_mine = metrics.owner == rank, is_worker = curvd_role_get(ctx) == CURVD_ROLE_WORKER;
    n += CV_FACTORS * (is_mine ? n_refreshes : is_worker ? n_refreshes - missing : 0);
  }
  return service_metrics(ctx).events[CURVD_EVENT_REFRESHES] == n;
}

/* Goes on to the end when something is wrong on this rank alone: the others wait for it in every step. */
static bool work_long(curvd_ctx *ctx, int64_t n_refreshes, int staleness) {
  curvd_metrics before = service_metrics(ctx), now;
  int64_t communicators = counts.live;
  bool ok = true;
  for (int64_t step = 0; step < n_refreshes; step++) {
    ok = tiny_step(ctx, step) && ok;
    if (step % 100 > 0) continue;
    now = service_metrics(ctx);
    ok = ok && is_constant(&now, &before, communicators, staleness);
  }
  now = service_metrics(ctx);
  return ok && now.step == n_refreshes && has_heard(ctx, n_refreshes, staleness);
}

static void check_long(int staleness, int n_curvature, int64_t n_refreshes) {
  char options[256];
  snprintf(options, sizeof options,
           "method=kfac factor_update_steps=1 inv_update_steps=1 staleness=%d curvature_ranks=%d", staleness,
           n_curvature);
  bool ok = true;
  count_from_here();
  curvd_ctx *ctx = service_open(MPI_COMM_WORLD, options, TINY_LAYERS, tiny);
  curvd_metrics before = service_metrics(ctx);
  int64_t communicators = counts.live;
  if (run_is_worker(ctx)) {
    ok = work_long(ctx, n_refreshes, staleness);
    curvd_finish(ctx);
  }
  curvd_metrics after = service_metrics(ctx);
  mpi_assert_msg(ok, "%s: %lld requests under way, %lld refreshes heard of", options, (long long)requests_under_way(),
                 (long long)after.events[CURVD_EVENT_REFRESHES]);
  mpi_assert(is_constant(&after, &before, communicators, staleness));
  mpi_assert_msg(has_heard(ctx, n_refreshes, 0), "%s: %lld refreshes heard of in the end", options,
                 (long long)after.events[CURVD_EVENT_REFRESHES]);
  mpi_assert(requests_under_way() == 0);
  curvd_destroy(&ctx);
  mpi_assert(nothing_is_left());
}

/* 10,000 of them where each rank has about a core. */
START_TEST(thousands_of_refreshes_leave_nothing_behind) {
  int64_t n = size <= 3 ? 10000 : 1000;
  check_long(2, size > 1, n);
  check_long(0, size > 1, n);
  check_long(2, 0, n / 10);
}
END_TEST

static Suite *make_suite(void) {
  const TTest *const tests[] = {ends_with_refreshes_under_way, a_step_fails_while_refreshes_are_under_way,
                                thousands_of_refreshes_leave_nothing_behind};
  size = run_size(MPI_COMM_WORLD);
  rank = run_rank(MPI_COMM_WORLD);
  return service_suite("staleness ends", tests, COUNT(tests));
}

int main(int argc, char **argv) {
  return mpi_test_main(argc, argv, make_suite);
}
