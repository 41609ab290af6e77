/* Layers that change their owners during a run: nothing is dropped, nothing is computed differently, nothing is left
 * behind. What a layer costs is made by sleeps, so that the next move is known. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* RTLD_NEXT */
#endif
#include "staleness_fixture.h"

#include "curvature/rebalance.h"

#include <dlfcn.h>

#define COUNT(list) (sizeof list / sizeof list[0])

enum { STEPS = 24, PERIOD = 3 };

static int size, rank;

/* Memory that this rank asks for is refused. The library asks by this function alone. */
static bool is_memory_short;

void *aligned_alloc(size_t alignment, size_t bytes) {
  static void *(*real)(size_t, size_t);
  if (!real) *(void **)&real = dlsym(RTLD_NEXT, "aligned_alloc");
  return is_memory_short ? NULL : real(alignment, bytes);
}

typedef dense directions[STEPS][RUN_LAYERS];
static directions moved, still;

/* Three layers start on two owners as {fc0} and {fc1, fc2}. By each row one layer of the owner that has two moves to
 * the other one, and then comes the next row's turn. */
static const double cost_ms[3][RUN_LAYERS] = {{0.5, 2.5, 2}, {2, 0.5, 2.5}, {2.5, 2, 0.5}};

static void costly_refresh(curvd_ctx *ctx, cv_layer *layer, int32_t index) {
  delay_sleep(1e-3 * cost_ms[ctx->step / PERIOD % 3][index]);
  cv_method_kfac.refresh(ctx, layer, index);
}

typedef struct outcome {
  curvd_status status;
  curvd_metrics metrics;
  int64_t requests, communicators; /* left */
  bool is_forward;                 /* counts of refreshes never went back */
} outcome;

/* V: on a worker the directions of all steps. is_short: this rank gets no memory after its plan. */
static outcome live_short(const service_run *run, directions V, bool is_short) {
  static cv_method costly;
  outcome o = {.requests = counts.ended - counts.begun, .communicators = -counts.live, .is_forward = true};
  int64_t before = 0;
  costly = cv_method_kfac;
  costly.refresh = costly_refresh;
  memset(V, 0, sizeof(directions));
  curvd_ctx *ctx = run_open(run);
  for (int l = 0; l < RUN_LAYERS; l++) ctx->layer[l].method = &costly;
  is_memory_short = is_short;
  bool is_worker = run_is_worker(ctx);
  for (int step = 0; step < STEPS && is_worker && o.status == CURVD_OK; step++) {
    o.status = run_step(ctx, run, step, V[step]);
    int64_t now = service_metrics(ctx).events[CURVD_EVENT_REFRESHES];
    o.is_forward = o.is_forward && now >= before;
    before = now;
  }
  is_memory_short = false;
  if (is_worker && o.status == CURVD_OK) o.status = curvd_finish(ctx);
  o.metrics = service_metrics(ctx);
  curvd_destroy(&ctx);
  o.requests += counts.begun - counts.ended;
  o.communicators += counts.live;
  return o;
}

static outcome live(const service_run *run, directions V) {
  return live_short(run, V, false);
}

static service_run run_with(const char *options, int rebalance_steps, int n_curvature) {
  static char text[2][400];
  static int turn = 0;
  char *to = text[turn++ % 2];
  snprintf(to, sizeof text[0], "factor_update_steps=1 inv_update_steps=1 rebalance_steps=%d %s", rebalance_steps,
           options);
  return run_of(to, n_curvature);
}

/* The least over the workers. */
static int64_t least_moves(const outcome *o, int n_curvature) {
  int64_t mine = rank < size - n_curvature ? o->metrics.events[CURVD_EVENT_MOVED] : INT64_MAX, least = 0;
  MPI_Allreduce(&mine, &least, 1, MPI_INT64_T, MPI_MIN, MPI_COMM_WORLD);
  return least;
}

static int64_t over_all_ranks(int64_t mine) {
  int64_t all = 0;
  MPI_Allreduce(&mine, &all, 1, MPI_INT64_T, MPI_SUM, MPI_COMM_WORLD);
  return all;
}

/* Directions with moves and without; and that all ranks tell of the same moves, and of nothing left. */
static double check(const char *options, int n_curvature) {
  service_run with = run_with(options, PERIOD, n_curvature), without = run_with(options, 0, n_curvature);
  outcome a = live(&with, moved), b = live(&without, still);
  delay_never();
  mpi_assert_msg(a.status == CURVD_OK && b.status == CURVD_OK, "%s: %s, %s", options, curvd_status_name(a.status),
                 curvd_status_name(b.status));
  int64_t moves = a.metrics.events[CURVD_EVENT_MOVED], least = least_moves(&a, n_curvature);
  mpi_assert_msg(moves >= least && least >= 2, "%s, %d curvature ranks: %lld moves, %lld on another rank", options,
                 n_curvature, (long long)moves, (long long)least);
  mpi_assert(b.metrics.events[CURVD_EVENT_MOVED] == 0);
  int64_t sent = over_all_ranks(a.metrics.sent_bytes[CURVD_TRAFFIC_STATISTICS]),
          expected = over_all_ranks(b.metrics.sent_bytes[CURVD_TRAFFIC_STATISTICS]);
  mpi_assert_msg(sent == expected, "%s: %lld bytes of statistics, %lld without moves", options, (long long)sent,
                 (long long)expected);
  mpi_assert(a.requests == 0 && a.communicators == 0 && a.is_forward);
  return rank < size - n_curvature ? run_distance(STEPS, moved, still) : 0;
}

/* Every store and carrier, with refreshes under way at each move. Two owners, and as many as there are layers less
 * one. */
static const char *const kinds[] = {
    "method=kfac staleness=2 factor_decay=0.5 step=plain momentum=0",
    "method=kfac form=cholesky exponent_a=1 exponent_g=1 staleness=5",
    "method=nystrom-kfac eig_rank=4 oversampling=2 carrier=triangle staleness=0",
    "method=nystrom-kfac eig_rank=4 oversampling=2 carrier=triangle missing_trace=0.2 eig_rank_min=2 eig_rank_max=8",
    "method=nystrom-kfac eig_rank=4 oversampling=2 carrier=sketch full_share=1 staleness=0",
    "method=nystrom-kfac eig_rank=4 oversampling=2 carrier=columns store=stream window_rows=32 full_share=1 "
    "staleness=3",
    "method=nystrom-kfac eig_rank=4 oversampling=2 full_share=1 apply_precision=bf16 staleness=2",
    "method=kfac wire_precision=bf16 staleness=2",
    "method=kfac wire_precision=bf16 carrier=columns staleness=1",
    "method=b-kfac eig_rank=6 staleness=5",
    "method=b-r-c-kfac eig_rank=6 online_renew=4 online_correct=2 staleness=1",
    "method=nystrom-kfac eig_rank=4 average=mg warm_start=false power_iters=2 staleness=1"};

START_TEST(moves_change_no_bit) {
  if (size < 3) return;
  for (size_t i = 0; i < COUNT(kinds); i++) {
    double distance = check(kinds[i], 2);
    bool is_same = memcmp(moved, still, sizeof moved) == 0;
    mpi_assert_msg(is_same, "%s: other bits after moves, %.1e apart", kinds[i], distance);
  }
}
END_TEST

START_TEST(moves_change_no_bit_when_calls_are_late) {
  if (size < 3) return;
  for (int schedule = 0; schedule < 4; schedule++) {
    delay_at_random((uint64_t)schedule, rank);
    check(kinds[(size_t)schedule % COUNT(kinds)], 2);
    mpi_assert_msg(memcmp(moved, still, sizeof moved) == 0, "schedule %d", schedule);
  }
}
END_TEST

/* Sums that ride on the gradients' have another place after a move, workers that own sum in another order, and shards
 * are the workers': to rounding, with a tolerance as in staleness_fixture.h. */
START_TEST(moves_of_other_sums_keep_directions_to_rounding) {
  static const char *const riding = "method=kfac route=gradients staleness=2 step=plain momentum=0",
                           *const sharded = "method=kfac apply=sharded staleness=1 step=plain momentum=0",
                           *const owning = "method=kfac staleness=1 step=plain momentum=0";
  double distance = 0;
  if (size == 2) distance = check(owning, 0);
  if (size > 3) distance = fmax(check(riding, 2), check(sharded, 2));
  mpi_assert_msg(distance < STALE_TOLERANCE, "%.1e apart", distance);
}
END_TEST

START_TEST(free_running_workers_move_together) {
  if (size < 3) return;
  service_run run = run_with("method=kfac staleness=free staleness_max=4 step=plain momentum=0", PERIOD, 2);
  outcome o = live(&run, moved);
  mpi_assert_msg(o.status == CURVD_OK, "%s", curvd_status_name(o.status));
  mpi_assert(least_moves(&o, 2) >= 1 && o.requests == 0);
}
END_TEST

/* ---- memory ---- */

/* On workers the links of all owners together are as large as before. */
START_TEST(factors_are_held_once_after_moves) {
  if (size < 3) return;
  service_run with = run_with(kinds[0], PERIOD, 2), without = run_with(kinds[0], 0, 2);
  outcome a = live(&with, moved), b = live(&without, still);
  mpi_assert(a.status == CURVD_OK && b.status == CURVD_OK && least_moves(&a, 2) >= 2);
  int64_t after = over_all_ranks(a.metrics.memory_bytes[CURVD_MEMORY_FACTORS]),
          before = over_all_ranks(b.metrics.memory_bytes[CURVD_MEMORY_FACTORS]);
  mpi_assert_msg(after == before, "%lld bytes, %lld without moves", (long long)after, (long long)before);
  mpi_assert(rank >= size - 2 ||
             a.metrics.memory_bytes[CURVD_MEMORY_TRANSFER] == b.metrics.memory_bytes[CURVD_MEMORY_TRANSFER]);
}
END_TEST

/* On one rank; the others have enough. */
START_TEST(without_memory_all_stays_as_it_was) {
  if (size < 3) return;
  for (int poor = 0; poor < size; poor++) {
    service_run with = run_with(kinds[0], PERIOD, 2), without = run_with(kinds[0], 0, 2);
    outcome a = live_short(&with, moved, rank == poor), b = live(&without, still);
    mpi_assert_msg(a.status == CURVD_OK && b.status == CURVD_OK, "%s", curvd_status_name(a.status));
    mpi_assert(a.metrics.events[CURVD_EVENT_MOVED] == 0 && a.requests == 0 && a.communicators == 0);
    mpi_assert(memcmp(moved, still, sizeof moved) == 0);
    mpi_assert(memcmp(a.metrics.memory_bytes, b.metrics.memory_bytes, sizeof a.metrics.memory_bytes) == 0 ||
               a.metrics.memory_bytes[CURVD_MEMORY_WORKSPACE] > b.metrics.memory_bytes[CURVD_MEMORY_WORKSPACE]);
  }
}
END_TEST

START_TEST(what_cannot_move_is_refused) {
  service_run run = run_of("method=kfac carrier=local rebalance_steps=10", 0);
  curvd_ctx *ctx = run_make(&run);
  mpi_assert(curvd_plan(ctx) == CURVD_ERR_OPTION && strstr(curvd_last_error(ctx), "rebalance_steps"));
  curvd_destroy(&ctx);
}
END_TEST

static Suite *make_suite(void) {
  const TTest *const tests[] = {moves_change_no_bit,
                                moves_change_no_bit_when_calls_are_late,
                                moves_of_other_sums_keep_directions_to_rounding,
                                free_running_workers_move_together,
                                factors_are_held_once_after_moves,
                                without_memory_all_stays_as_it_was,
                                what_cannot_move_is_refused};
  size = run_size(MPI_COMM_WORLD);
  rank = run_rank(MPI_COMM_WORLD);
  return service_suite("rebalance", tests, COUNT(tests));
}

int main(int argc, char **argv) {
  return mpi_test_main(argc, argv, make_suite);
}
