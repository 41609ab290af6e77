/* A refresh of step k serves from step k + staleness on, whatever is under way in between and however the ranks are
 * split; and curvd_progress, and what waiting is counted as. Delays: test_staleness_delays.c. */
#include "staleness_fixture.h"

#define COUNT(list) (sizeof list / sizeof list[0])

static int size, rank;

static stale_directions V, W;

static bool is_worker_of(int n_curvature) {
  return rank < size - n_curvature;
}

static service_run run_stale(const stale_case *c, int n_curvature) {
  service_run run = run_of(stale_options(c), n_curvature);
  run.n_steps = STALE_STEPS;
  return run;
}

/* ---- directions ---- */

/* Largest distance of V from what the newest landed refresh makes of each gradient. */
static double distance_from_reference(const stale_case *c, int64_t rows) {
  for (int step = 0; step < STALE_STEPS; step++) {
    for (int l = 0; l < RUN_LAYERS; l++)
      W[step][l] = stale_direction(stale_version_at(c, step), l, stale_gradient(step, l, rows));
  }
  return run_distance(STALE_STEPS, V, W);
}

static void check_exact(const stale_case *c, int n_curvature) {
  service_run run = run_stale(c, n_curvature);
  mpi_assert(stale_all(&run, V) == CURVD_OK);
  double distance = is_worker_of(n_curvature) ? distance_from_reference(c, run.rows) : 0;
  mpi_assert_msg(distance < STALE_TOLERANCE, "%s, %d curvature ranks: %.1e", run.options, n_curvature, distance);
}

/* Many ranks share a few cores: there each case meets one split, and each split some cases. */
static void check_splits(const stale_case *c) {
  static int turn = 0;
  for (int n = 0; n < size; n++) {
    if (size <= 4 || (turn + n) % size == 0) check_exact(c, n);
  }
  turn++;
}

/* staleness 5 and inv_update_steps 1: five refreshes under way. */
START_TEST(directions_are_those_of_the_newest_landed_refresh) {
  static const int factor[] = {1, 2, 3}, inv[] = {1, 2, 3, 5}, staleness[] = {0, 1, 2, 5};
  for (size_t f = 0; f < COUNT(factor); f++) {
    double apart = stale_reference_make((stale_interval){.first = factor[f]}, 10);
    mpi_assert_msg(apart > 100 * STALE_TOLERANCE, "%.1e", apart);
    for (size_t i = 0; i < COUNT(inv) * COUNT(staleness); i++) {
      check_splits(&(stale_case){.staleness = staleness[i % COUNT(staleness)],
                                 .factor = {.first = factor[f]},
                                 .inv = {.first = inv[i / COUNT(staleness)]},
                                 .method = stale_kfac});
    }
  }
}
END_TEST

/* At the change two refreshes are closer than the shorter interval: 3 and 4; 5 and 6; 4 and 5. */
START_TEST(directions_where_the_intervals_change) {
  static const stale_interval change[] = {{3, 2, 4}, {5, 3, 6}, {2, 5, 5}};
  for (size_t i = 0; i < COUNT(change); i++) {
    stale_interval factor = i == 1 ? change[1] : (stale_interval){.first = 1};
    stale_reference_make(factor, 10);
    for (int staleness = 0; staleness <= 5; staleness++)
      check_splits(&(stale_case){.staleness = staleness, .factor = factor, .inv = change[i], .method = stale_kfac});
  }
}
END_TEST

/* Longer than the run: every direction is the gradient, and the end waits for all refreshes. */
START_TEST(nothing_lands_in_a_run_shorter_than_the_staleness) {
  stale_case c = {.staleness = 40, .factor = {.first = 1}, .inv = {.first = 1}, .method = stale_kfac};
  stale_reference_make(c.factor, 10);
  for (int n = 0; n < size; n++) check_exact(&c, n);
}
END_TEST

/* Against one rank. Tolerance: as in test_layouts.c, the fp32 sums of another split through an inverse root. */
START_TEST(every_split_gives_the_directions_of_one_rank) {
  static stale_directions alone;
  static const char *const methods[] = {"method=nystrom-kfac eig_rank=4 oversampling=3",
                                        "method=rs-kfac eig_rank=4 oversampling=3 step=plain momentum=0",
                                        "method=kfac form=cholesky exponent_a=1 exponent_g=1"};
  for (int i = 0; i < 4 * (int)COUNT(methods); i++) {
    static const int staleness[] = {0, 1, 2, 5};
    stale_case c = {
        .staleness = staleness[i % 4], .factor = {.first = 1}, .inv = {.first = 1 + i % 2}, .method = methods[i / 4]};
    service_run one = run_stale(&c, 0);
    one.comm = MPI_COMM_SELF;
    mpi_assert(stale_all(&one, alone) == CURVD_OK);
    for (int n = 0; n < size; n++) {
      service_run run = run_stale(&c, n);
      mpi_assert(stale_all(&run, V) == CURVD_OK);
      double distance = is_worker_of(n) ? run_distance(STALE_STEPS, V, alone) : 0;
      mpi_assert_msg(distance < 1e-4, "%s, %d curvature ranks: %.1e", run.options, n, distance);
    }
  }
}
END_TEST

/* Parcels that land tell what their owner had counted when it sent them; its own count is further on by then. */
START_TEST(counts_of_refreshes_never_go_back) {
  stale_case c = {.staleness = 5, .factor = {.first = 1}, .inv = {.first = 3}, .method = stale_kfac};
  for (int n = 0; n < size; n++) {
    service_run run = run_stale(&c, n);
    int64_t before = 0;
    bool is_forward = true;
    curvd_ctx *ctx = run_open(&run);
    if (run_is_worker(ctx)) {
      for (int step = 0; step < STALE_STEPS; step++) {
        bool ok = run_step(ctx, &run, step, V[step]) == CURVD_OK;
        int64_t now = service_metrics(ctx).events[CURVD_EVENT_REFRESHES];
        is_forward = is_forward && ok && now >= before;
        before = now;
      }
      curvd_finish(ctx);
    }
    mpi_assert(is_forward);
    run_close(&ctx);
  }
}
END_TEST

/* ---- curvd_progress ---- */

START_TEST(progress_in_the_wrong_role_or_state) {
  mpi_assert(curvd_progress(NULL) == CURVD_ERR_ARGUMENT);
  for (int n = 0; n < size; n++) {
    service_run run = run_of("method=kfac staleness=3 inv_update_steps=1 factor_update_steps=1", n);
    curvd_ctx *ctx = run_make(&run);
    mpi_assert(curvd_progress(ctx) == CURVD_ERR_STATE);
    mpi_assert(strstr(curvd_last_error(ctx), "curvd_plan") != NULL);
    mpi_assert(curvd_plan(ctx) == CURVD_OK);
    bool is_right = is_worker_of(n) ? curvd_progress(ctx) == CURVD_OK
                                    : curvd_progress(ctx) == CURVD_ERR_STATE &&
                                          strstr(curvd_last_error(ctx), "curvd_serve") != NULL;
    mpi_assert(is_right);
    if (run_is_worker(ctx)) {
      is_right = run_step(ctx, &run, 0, V[0]) == CURVD_OK && curvd_progress(ctx) == CURVD_OK;
      is_right = is_right && curvd_finish(ctx) == CURVD_OK && curvd_progress(ctx) == CURVD_OK;
    }
    mpi_assert(is_right);
    run_close(&ctx);
  }
}
END_TEST

START_TEST(progress_of_a_plan_without_memory) {
  service_run run = run_of("method=kfac dry_run=true", 0);
  curvd_ctx *ctx = run_open(&run);
  mpi_assert(curvd_progress(ctx) == CURVD_ERR_STATE);
  curvd_destroy(&ctx);
}
END_TEST

/* ---- waiting ---- */

/* Sleeps of a curvature rank before each parcel, and of the workers between two steps, with looks at what comes. */
static const double OWNER_S = 10e-3, WORKER_S = 2e-3;

/* Returns the seconds that this worker's steps waited; *slept: those that the curvature rank slept before it sent. */
static double wait_seconds(int staleness, double *slept, double *broadcast) {
  stale_case c = {.staleness = staleness, .factor = {.first = 8}, .inv = {.first = 8}, .method = stale_kfac};
  service_run run = run_stale(&c, 1);
  double before = counts.slept_s, all = 0;
  bool ok = true;
  curvd_ctx *ctx = run_open(&run);
  if (!is_worker_of(1)) delay.always_s = OWNER_S;
  if (run_is_worker(ctx)) {
    for (int step = 0; step < 8 * 4; step++) {
      ok = run_step(ctx, &run, step, V[0]) == CURVD_OK && ok;
      delay_sleep(WORKER_S);
      ok = ok && curvd_progress(ctx) == CURVD_OK;
    }
    curvd_finish(ctx);
  }
  delay_never();
  curvd_metrics metrics = service_metrics(ctx);
  run_close(&ctx);
  mpi_assert(ok);
  *slept = counts.slept_s - before;
  MPI_Allreduce(slept, &all, 1, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD);
  *slept = all;
  *broadcast = metrics.stage_wall_s[CURVD_STAGE_BROADCAST];
  return is_worker_of(1) ? metrics.stage_wall_s[CURVD_STAGE_WAIT] : -1;
}

/* Each parcel comes three sleeps after its statistics were asked for (a reduction and two broadcasts). Without
 * staleness the workers spend them waiting; what a busy machine takes from a worker before it begins to wait is no part
 * of that, so the bound is half. With 7 steps of 2 ms in between nearly half of the 30 ms are hidden. */
START_TEST(waiting_for_a_late_curvature_rank_is_counted) {
  double slept, hidden_slept, broadcast;
  if (size < 2) return;
  double at_once = wait_seconds(0, &slept, &broadcast);
  mpi_assert_msg(!is_worker_of(1) || at_once > slept / 2, "waited %g s for %g s", at_once, slept);
  mpi_assert_msg(!is_worker_of(1) || broadcast < slept / 2, "took %g s to receive", broadcast);
  double later = wait_seconds(7, &hidden_slept, &broadcast);
  mpi_assert(fabs(hidden_slept - slept) < 1e-9);
  mpi_assert_msg(!is_worker_of(1) || (later > 0 && later < 0.8 * at_once), "waited %g s, %g s without staleness", later,
                 at_once);
}
END_TEST

static Suite *make_suite(void) {
  const TTest *const tests[] = {directions_are_those_of_the_newest_landed_refresh,
                                directions_where_the_intervals_change,
                                nothing_lands_in_a_run_shorter_than_the_staleness,
                                every_split_gives_the_directions_of_one_rank,
                                counts_of_refreshes_never_go_back,
                                progress_in_the_wrong_role_or_state,
                                progress_of_a_plan_without_memory,
                                waiting_for_a_late_curvature_rank_is_counted};
  size = run_size(MPI_COMM_WORLD);
  rank = run_rank(MPI_COMM_WORLD);
  return service_suite("staleness", tests, COUNT(tests));
}

int main(int argc, char **argv) {
  return mpi_test_main(argc, argv, make_suite);
}
