/* When a refresh serves must not depend on how fast a rank or a message is: late ranks, and calls that are late at
 * random, change no bit. With staleness free they change when, but on all workers together. */
#include "staleness_fixture.h"

#define COUNT(list) (sizeof list / sizeof list[0])

enum { SCHEDULES = 20, C_MAX = 2 };

static int size, rank;

static stale_directions in_time, V, W;

static bool is_worker_of(int n_curvature) {
  return rank < size - n_curvature;
}

static const char *const methods[] = {"method=kfac step=plain momentum=0 factor_decay=0.5",
                                      "method=nystrom-kfac eig_rank=2 oversampling=1 power_iters=1"};

static stale_case case_of(const char *method, int staleness) {
  return (stale_case){.staleness = staleness, .factor = {.first = 1}, .inv = {.first = 1}, .method = method};
}

/* ---- a fixed staleness ---- */

/* Once more, with this rank's delays as they are. */
static void check_bits(const service_run *run, const char *what, int number) {
  curvd_status status = stale_all(run, V);
  delay_never();
  bool is_same = memcmp(V, in_time, sizeof V) == 0;
  mpi_assert_msg(status == CURVD_OK, "%s", curvd_status_name(status));
  mpi_assert_msg(is_same, "%s, %d curvature ranks, %s %d: other bits than without delays", run->options,
                 run->n_curvature, what, number);
}

static void late_always(bool is_me) {
  delay = (delay_plan){.always_s = is_me ? 1e-3 : 0};
}

/* A rank whose every transfer begins late: it is behind in all steps. */
static void check_late_ranks(const service_run *run) {
  const int late[] = {0, size - run->n_curvature - 1, size - 1};
  for (size_t i = 0; i < COUNT(late); i++) {
    if (i > 0 && late[i] == late[i - 1]) continue;
    late_always(rank == late[i]);
    check_bits(run, "late rank", late[i]);
  }
}

/* Many ranks share a few cores: there each schedule meets one split in turn. */
static void check_weather(const service_run *run) {
  for (int schedule = 0; schedule < SCHEDULES; schedule++) {
    if (size > 3 && schedule % (C_MAX + 1) != run->n_curvature) continue;
    delay_at_random((uint64_t)schedule, rank);
    check_bits(run, "schedule", schedule);
  }
}

static void check_all(const char *method, int staleness, void (*check)(const service_run *)) {
  for (int c = 0; c <= C_MAX && c < size; c++) {
    stale_case stale = case_of(method, staleness);
    service_run run = run_of(stale_options(&stale), c);
    run.n_steps = 8;
    mpi_assert(stale_all(&run, in_time) == CURVD_OK);
    check(&run);
  }
}

START_TEST(calls_that_are_late_at_random_change_no_bit) {
  static const int staleness[] = {0, 1, 5};
  for (size_t i = 0; i < COUNT(staleness) * COUNT(methods); i++)
    check_all(methods[i % COUNT(methods)], staleness[i / COUNT(methods)], check_weather);
}
END_TEST

START_TEST(a_rank_that_is_late_throughout_changes_no_bit) {
  static const int staleness[] = {0, 1, 5};
  for (size_t i = 0; i < COUNT(staleness) * COUNT(methods); i++)
    check_all(methods[i % COUNT(methods)], staleness[i / COUNT(methods)], check_late_ranks);
}
END_TEST

/* ---- staleness free ---- */

/* Step of the statistics behind all preconditioners in force, -1: none yet; -2 when they differ. */
static int64_t version_in_force(const curvd_ctx *ctx) {
  int64_t version = service_factor(ctx, 0, CV_A).statistics_step;
  for (int l = 0; l < RUN_LAYERS; l++) {
    for (int f = 0; f < CV_FACTORS; f++) {
      if (service_factor(ctx, l, f).statistics_step != version) return -2;
    }
  }
  return version;
}

/* V: directions; version: behind them. */
static curvd_status run_free(const service_run *run, int64_t version[STALE_STEPS]) {
  curvd_status status = CURVD_OK;
  memset(V, 0, sizeof V);
  memset(version, 0, STALE_STEPS * sizeof *version);
  curvd_ctx *ctx = stale_open(run);
  bool is_worker = run_is_worker(ctx);
  for (int step = 0; step < STALE_STEPS && is_worker && status == CURVD_OK; step++) {
    status = run_step(ctx, run, step, V[step]);
    version[step] = version_in_force(ctx);
  }
  run_close(&ctx);
  delay_never();
  return status;
}

/* A refresh begun in step j is in force from step j + staleness_max on at the latest, and versions never go back. */
static bool ages_are_allowed(const stale_case *c, const int64_t *version) {
  stale_case latest = *c;
  latest.staleness = c->staleness_max;
  for (int step = 0; step < STALE_STEPS; step++) {
    bool is_forward = version[step] >= (step > 0 ? version[step - 1] : -1) && version[step] <= step;
    bool is_refresh = version[step] < 0 || stale_is_due(c->inv, (int)version[step]);
    bool is_soon = version[step] + 1 >= stale_version_at(&latest, step); /* statistics come in every step */
    if (!is_forward || !is_refresh || !is_soon) return false;
  }
  return true;
}

static double distance_from_versions(const int64_t *version, int64_t rows) {
  for (int step = 0; step < STALE_STEPS; step++) {
    for (int l = 0; l < RUN_LAYERS; l++)
      W[step][l] = stale_direction((int)version[step] + 1, l, stale_gradient(step, l, rows));
  }
  return run_distance(STALE_STEPS, V, W);
}

/* Every worker's versions and directions are those of worker 0, and the directions are what the versions make. */
static void check_free(const stale_case *c, int n_curvature, const char *grad_reduction, int schedule) {
  static stale_directions of_worker_0;
  int64_t version[STALE_STEPS], version_0[STALE_STEPS];
  service_run run = run_of(stale_options(c), n_curvature);
  bool is_worker = is_worker_of(n_curvature);
  run.grad_reduction = grad_reduction;
  delay_at_random(100 + (uint64_t)schedule, rank);
  mpi_assert(run_free(&run, version) == CURVD_OK);
  memcpy(of_worker_0, V, sizeof V);
  memcpy(version_0, version, sizeof version);
  MPI_Bcast(version_0, STALE_STEPS, MPI_INT64_T, 0, MPI_COMM_WORLD);
  MPI_Bcast(of_worker_0, sizeof of_worker_0, MPI_BYTE, 0, MPI_COMM_WORLD);
  mpi_assert_msg(!is_worker || memcmp(version, version_0, sizeof version) == 0, "%s: other versions than on worker 0",
                 run.options);
  mpi_assert(!is_worker || memcmp(V, of_worker_0, sizeof V) == 0);
  mpi_assert(!is_worker || ages_are_allowed(c, version));
  double distance = is_worker ? distance_from_versions(version, run.rows) : 0;
  mpi_assert_msg(distance < STALE_TOLERANCE, "%s, %d curvature ranks, %s: %.1e", run.options, n_curvature,
                 grad_reduction, distance);
}

/* Statistics in every step, so that statistics_step is the refresh's own. */
START_TEST(free_running_workers_agree_and_keep_the_largest_age) {
  static const char *const reductions[] = {"sum", "mean", "none"};
  stale_reference_make((stale_interval){.first = 1}, 10);
  for (int i = 0; i < 4 * (int)COUNT(reductions); i++) {
    stale_case c = {.staleness = STALE_FREE,
                    .staleness_max = 2 + i % 4,
                    .factor = {.first = 1},
                    .inv = {.first = i % 2 ? 3 : 1},
                    .method = stale_kfac};
    for (int n = 0; n < size; n++) check_free(&c, n, reductions[i % COUNT(reductions)], i * size + n);
  }
}
END_TEST

/* With nothing to wait for, a refresh lands long before it must: 400 ms of steps are enough for it on any machine. */
static void check_soon(int n_curvature, const char *grad_reduction) {
  enum { AGE_MAX = 200 };
  stale_case c = {.staleness = STALE_FREE,
                  .staleness_max = AGE_MAX,
                  .factor = {.first = 1000},
                  .inv = {.first = 1000},
                  .method = stale_kfac};
  service_run run = run_of(stale_options(&c), n_curvature);
  bool ok = true;
  int step = 0;
  run.grad_reduction = grad_reduction;
  curvd_ctx *ctx = run_open(&run);
  if (run_is_worker(ctx)) {
    for (; step < AGE_MAX && ok && version_in_force(ctx) < 0; step++) {
      ok = run_step(ctx, &run, step, V[0]) == CURVD_OK && curvd_progress(ctx) == CURVD_OK;
      delay_sleep(2e-3);
    }
    curvd_finish(ctx);
  }
  mpi_assert(ok);
  mpi_assert_msg(step < AGE_MAX, "%d curvature ranks, %s: nothing landed in %d steps", n_curvature, grad_reduction,
                 step);
  run_close(&ctx);
}

START_TEST(a_fast_curvature_rank_serves_free_running_workers_early) {
  static const char *const reductions[] = {"sum", "mean", "none"};
  for (size_t i = 0; i < COUNT(reductions); i++) {
    for (int n = 0; n < size; n++) check_soon(n, reductions[i]);
  }
}
END_TEST

/* ---- a backlog ---- */

/* Owners wait before their first refresh until worker 0 calls them, the owner of layer 0 in step BACKLOG, the others a
 * step later; then they are as fast as they can. AGE_MAX steps may pass before workers wait. */
enum { BACKLOG = 6, BACKLOG_STEPS = BACKLOG + 2, AGE_MAX = 12, TAG_CALL = 7 };

static bool is_held;

static void held_refresh(curvd_ctx *ctx, cv_layer *layer, int32_t index) {
  if (is_held) PMPI_Recv(NULL, 0, MPI_BYTE, 0, TAG_CALL, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
  is_held = false;
  cv_method_kfac.refresh(ctx, layer, index);
}

static curvd_ctx *open_held(const service_run *run) {
  static cv_method held;
  curvd_ctx *ctx = run_open(run);
  held = cv_method_kfac;
  held.refresh = held_refresh;
  is_held = true;
  for (int l = 0; l < RUN_LAYERS; l++) ctx->layer[l].method = &held;
  return ctx;
}

static int owners_with_layers(const curvd_ctx *ctx, int owner[RUN_LAYERS]) {
  int n = 0;
  for (int l = 0; l < RUN_LAYERS; l++) {
    bool is_new = true;
    for (int i = 0; i < n; i++) is_new = is_new && owner[i] != ctx->layer[l].owner;
    if (is_new) owner[n++] = ctx->layer[l].owner;
  }
  return n;
}

static int64_t parcels_here(const cv_downlink *down) {
  int64_t n = 0;
  while (n < down->n_under_way && down->parcel[(down->first + n) % down->n_slots].state == CV_PARCEL_HERE) n++;
  return n;
}

/* Owners from .. to are called, and all that they were asked for has come here. */
static bool let_come(curvd_ctx *ctx, const int *owner, int from, int to) {
  bool ok = true;
  for (int i = from; i < to && curvd_worker_index(ctx) == 0; i++)
    PMPI_Send(NULL, 0, MPI_BYTE, cv_comm_owner_rank(&ctx->comm, owner[i]), TAG_CALL, MPI_COMM_WORLD);
  for (int i = 0; i < to; i++) {
    const cv_downlink *down = &ctx->route[owner[i]].down;
    for (int n = 0; ok && parcels_here(down) < down->n_under_way; n++) {
      ok = curvd_progress(ctx) == CURVD_OK && n < 300000; /* 30 s */
      delay_sleep(1e-4);
    }
  }
  return ok;
}

static int64_t vote_bytes(const char *options, const char *reduction) {
  int64_t steps = strstr(options, "route=gradients") ? BACKLOG_STEPS : BACKLOG_STEPS - 1; /* before statistics always */
  return kfac_is(reduction, "none") ? 0 : steps * AGE_MAX * (int64_t)sizeof(float);
}

/* What is here of all owners, on all workers, comes into force in one step: all of a backlog, or nothing of it while
 * one owner is missing. */
static void check_backlog(const char *more, int n_curvature, const char *reduction) {
  char options[400];
  int owner[RUN_LAYERS];
  int64_t version[STALE_STEPS], gradients = 0;
  snprintf(options, sizeof options, "%s factor_update_steps=1 inv_update_steps=1 staleness=free staleness_max=%d %s",
           stale_kfac, (int)AGE_MAX, more);
  service_run run = run_of(options, n_curvature);
  run.grad_reduction = reduction;
  curvd_ctx *ctx = open_held(&run);
  bool ok = true, is_worker = run_is_worker(ctx);
  int n_owners = owners_with_layers(ctx, owner);
  for (int step = 0; step < BACKLOG_STEPS && is_worker; step++) {
    if (step == BACKLOG) ok = let_come(ctx, owner, 0, 1) && ok;
    if (step > BACKLOG) ok = let_come(ctx, owner, 1, n_owners) && ok;
    ok = run_step(ctx, &run, step, V[step]) == CURVD_OK && ok;
    version[step] = version_in_force(ctx);
  }
  int64_t sent = service_metrics(ctx).sent_bytes[CURVD_TRAFFIC_GRADIENTS];
  run_close(&ctx);
  mpi_assert(ok);
  for (int step = 0; step < BACKLOG_STEPS; step++) {
    int64_t right = step < BACKLOG ? -1 : step > BACKLOG ? BACKLOG : n_owners == 1 ? BACKLOG - 1 : -1;
    mpi_assert_msg(!is_worker || version[step] == right, "%s, %d curvature ranks, %s, step %d: version %d, not %d",
                   more, n_curvature, reduction, step, (int)version[step], (int)right);
    for (int l = 0; l < RUN_LAYERS && is_worker; l++) {
      W[step][l] = stale_direction((int)right + 1, l, stale_gradient(step, l, run.rows));
      gradients += run_layer[l].d_out * service_columns(&run_layer[l]) * (int64_t)sizeof(float);
    }
  }
  double distance = is_worker ? run_distance(BACKLOG_STEPS, V, W) : 0;
  mpi_assert_msg(distance < STALE_TOLERANCE, "%s, %d curvature ranks, %s: %.1e", more, n_curvature, reduction,
                 distance);
  if (kfac_is(reduction, "none")) gradients = 0;
  int64_t expected = is_worker && size - n_curvature > 1 ? gradients + vote_bytes(more, reduction) : 0;
  mpi_assert_msg(sent == expected, "%s, %d curvature ranks, %s: %lld bytes of gradients and votes, not %lld", more,
                 n_curvature, reduction, (long long)sent, (long long)expected);
}

START_TEST(a_backlog_lands_in_one_step) {
  stale_reference_make((stale_interval){.first = 1}, 10);
  for (int n = 1; n < size; n++) {
    check_backlog("route=owner", n, "sum");
    check_backlog("route=owner", n, "none");
    check_backlog("route=gradients", n, "sum");
  }
}
END_TEST

static Suite *make_suite(void) {
  const TTest *const tests[] = {calls_that_are_late_at_random_change_no_bit,
                                a_rank_that_is_late_throughout_changes_no_bit,
                                free_running_workers_agree_and_keep_the_largest_age,
                                a_fast_curvature_rank_serves_free_running_workers_early, a_backlog_lands_in_one_step};
  size = run_size(MPI_COMM_WORLD);
  rank = run_rank(MPI_COMM_WORLD);
  return service_suite("staleness delays", tests, COUNT(tests));
}

int main(int argc, char **argv) {
  return mpi_test_main(argc, argv, make_suite);
}
