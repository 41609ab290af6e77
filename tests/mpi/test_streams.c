/* Streams in the service: what workers and owners make of sketches together, over all splits of the ranks, for all
 * kinds of intervals, against dense fp64. */
#include "lapack_faults.h"

#include "stream_emulation.h"

#define COUNT(list) (sizeof list / sizeof list[0])

static int size, rank;

static dense V[EMU_STEPS][RUN_LAYERS], W[EMU_STEPS][RUN_LAYERS];
static emu_factor emulated[RUN_LAYERS][CV_FACTORS];

static const char plain[] = "method=nystrom-kfac step=plain momentum=0 damping_mode=relative-mean exponent_a=1 "
                            "exponent_g=1 store=stream full_share=1";

/* ---- against the emulation ----
 *
 * With 48 examples in a step all k pairs are found, and the k-th eigenvalue is above 1 / 100 of the first. Rounding of
 * a product with the statistics, eps sqrt(48) of the first eigenvalue, is 1e-4 of the k-th one, which the history takes
 * over with the weight of the decay; damping by the mean eigenvalue divides that by the ratio of the first to the mean
 * one (10) in directions. A statistic in the wrong place, or of the wrong test matrix, changes directions by a tenth.
 */

static const double TOLERANCE = 1e-4;

static const emu_case usual = {.average = "norm", .decay = 0.7, .damping = 1, .r = 6, .k = 9};

/* text: (TEXT) the run's options */
enum { TEXT = 640 };

static carrier_run run_with(const emu_case *c, int n_steps, char *text) {
  char then[48] = "";
  if (c->change > 0) snprintf(then, sizeof then, ",%d@%d", c->refreshes_then, c->change);
  snprintf(text, TEXT,
           "%s carrier=%s average=%s factor_decay=%.17g damping=%.17g eig_rank=%d oversampling=%d "
           "factor_update_steps=%d inv_update_steps=%d%s staleness=%d",
           plain, c->has_rows ? "columns" : "sketch", c->average, c->decay, c->damping, (int)c->r, (int)(c->k - c->r),
           c->statistics, c->refreshes, then, c->staleness);
  return (carrier_run){
      .base = {.comm = MPI_COMM_WORLD, .options = text, .n_steps = n_steps, .rows = 48}, .n_captures = 2, .turn = 2};
}

/* Of a service of this process alone: its test matrices are those of any layout. */
static void begin_emulation(const emu_case *c) {
  char text[TEXT];
  emu_case cold = *c;
  cold.has_rows = false, cold.staleness = 0;
  carrier_run run = run_with(&cold, 0, text);
  run.base.comm = MPI_COMM_SELF;
  curvd_ctx *ctx = carrier_open(&run);
  for (int i = 0; i < RUN_LAYERS * CV_FACTORS; i++) {
    const cv_factor *factor = &ctx->layer[i / CV_FACTORS].factor[i % CV_FACTORS];
    emu_begin(c, factor->n, factor->captured.seed, factor->ld, &emulated[i / CV_FACTORS][i % CV_FACTORS]);
  }
  run_close(&ctx);
}

static void emulate(const emu_case *c, const carrier_run *run) {
  begin_emulation(c);
  for (int step = 0; step < run->base.n_steps; step++) emu_step(c, run, emulated, step, W[step]);
}

/* V is W. One verdict for all steps: each costs the ranks a meeting. */
static void check_close(const emu_case *c, const carrier_run *run, curvd_status status) {
  mpi_assert_msg(status == CURVD_OK, "%s: %s", run->base.options, curvd_status_name(status));
  bool is_worker = rank < size - run->base.n_curvature;
  int step = 0;
  while (is_worker && step < run->base.n_steps && run_distance(1, V + step, W + step) < TOLERANCE) step++;
  bool is_off = is_worker && step < run->base.n_steps;
  double distance = is_off ? run_distance(1, V + step, W + step) : 0;
  mpi_assert_msg(!is_off,
                 "%s, statistics %d, refreshes %d, staleness %d, %d curvature ranks, all fails in %d, step %d: %.1e",
                 c->has_rows ? "rows" : "sketches", c->statistics, c->refreshes, c->staleness, run->base.n_curvature,
                 c->failing_step, step, distance);
}

static void check_split(const emu_case *c, carrier_run run, int n_curvature) {
  run.base.n_curvature = n_curvature;
  curvd_status status = carrier_all(&run, V);
  check_close(c, &run, status);
}

typedef struct intervals {
  int statistics, refreshes, staleness;
} intervals;

static emu_case case_of(const emu_case *of, intervals i, bool has_rows) {
  emu_case c = *of;
  c.statistics = i.statistics, c.refreshes = i.refreshes, c.staleness = i.staleness, c.has_rows = has_rows;
  return c;
}

/* Number i of a list, with one split of the ranks. */
static void check_intervals(const emu_case *of, intervals now, bool has_rows, size_t i) {
  emu_case c = case_of(of, now, has_rows);
  char text[TEXT];
  carrier_run run = run_with(&c, 2 * now.refreshes + now.staleness + 5, text); /* three refreshes have landed */
  emulate(&c, &run);
  check_split(&c, run, (int)i % size);
}

START_TEST(sketches_between_all_kinds_of_intervals) {
  static const intervals list[] = {{1, 1, 0},  {1, 3, 0},  {2, 3, 0},  {3, 2, 0},  {5, 2, 0},  {4, 4, 0},
                                   {1, 2, 1},  {3, 2, 1},  {5, 3, 1},  {1, 6, 1},  {2, 6, 1},  {3, 6, 1},
                                   {1, 6, 5},  {2, 6, 5},  {3, 6, 5},  {7, 6, 5},  {1, 10, 1}, {2, 10, 1},
                                   {3, 10, 1}, {1, 10, 5}, {2, 10, 5}, {3, 10, 5}, {6, 4, 3},  {4, 6, 2}};
  for (size_t i = 0; i < COUNT(list); i++) check_intervals(&usual, list[i], false, i);
}
END_TEST

START_TEST(rows_between_all_kinds_of_intervals) {
  static const intervals list[] = {{1, 1, 0}, {2, 3, 0}, {3, 2, 0}, {1, 6, 5}, {3, 10, 5}, {1, 2, 5}, {2, 3, 7}};
  for (size_t i = 0; i < COUNT(list); i++) check_intervals(&usual, list[i], true, i);
}
END_TEST

/* Refreshes in steps 0, 6, 8, 12, ...: two come closer than either interval says. */
static emu_case changing(int staleness, bool has_rows) {
  emu_case c = case_of(&usual, (intervals){1, 6, staleness}, has_rows);
  c.change = 7, c.refreshes_then = 4;
  return c;
}

START_TEST(intervals_that_change) {
  for (int i = 0; i < 6; i++) {
    emu_case c = changing(i < 2 ? 1 : i < 4 ? 3 : 9, i > 0);
    char text[TEXT];
    carrier_run run = run_with(&c, 24, text);
    emulate(&c, &run);
    check_split(&c, run, i % size);
  }
}
END_TEST

START_TEST(seeds_that_would_not_have_landed) {
  for (int staleness = 1; staleness < 4; staleness++) {
    emu_case c = changing(staleness, false);
    char text[TEXT];
    carrier_run run = run_with(&c, 1, text);
    curvd_ctx *ctx = carrier_make(&run);
    curvd_status status = curvd_plan(ctx);
    bool is_told = strstr(curvd_last_error(ctx), "carrier columns") != NULL;
    curvd_destroy(&ctx);
    mpi_assert_msg(status == (staleness < 2 ? CURVD_OK : CURVD_ERR_OPTION), "staleness %d", staleness);
    mpi_assert(is_told == (staleness >= 2));
  }
}
END_TEST

START_TEST(averages) {
  static const char *const list[] = {"id", "first", "mg", "sum"};
  for (size_t i = 0; i < COUNT(list); i++) {
    emu_case c = usual;
    c.average = list[i];
    check_intervals(&c, (intervals){1, 3, 1}, i % 2, i);
  }
}
END_TEST

/* ---- faults ---- */

/* A NaN of one worker in its inputs of fc1, in a step whose sketch is of the old seed, the new one, or the first of the
 * new one: that statistic is left out, and no other. */
START_TEST(statistic_that_is_bad_on_one_worker) {
  static const struct {
    intervals i;
    int step;
  } list[] = {{{1, 6, 5}, 3}, {{1, 6, 5}, 6}, {{1, 1, 0}, 1}, {{1, 4, 1}, 5}, {{1, 4, 1}, 6}};
  for (size_t i = 0; i < 2 * COUNT(list) - 3; i++) {
    emu_case c = case_of(&usual, list[i % COUNT(list)].i, i >= COUNT(list));
    char text[TEXT];
    carrier_run run = run_with(&c, 14, text);
    int n_curvature = (int)i % size;
    run.bad_step = list[i % COUNT(list)].step;
    run.bad_worker = (int)(i / 2) % (size - n_curvature);
    emulate(&c, &run);
    check_split(&c, run, n_curvature);
  }
}
END_TEST

/* decay 0: the average is the newest statistic, and its trace becomes 0 at once. */
START_TEST(factor_that_dies_and_lives_again) {
  static const intervals list[] = {{1, 1, 0}, {1, 4, 1}, {2, 4, 3}, {3, 2, 1}};
  static const int dead[][2] = {{0, 6}, {5, 9}, {4, 5}, {6, 13}};
  for (size_t i = 0; i < COUNT(list) * COUNT(dead); i++) {
    if ((i + i / COUNT(list)) % 2 == 0) continue; /* half of them will do */
    emu_case c = usual;
    c.decay = 0;
    c = case_of(&c, list[i % COUNT(list)], i % 3 == 2);
    char text[TEXT];
    carrier_run run = run_with(&c, 16, text);
    run.dead_from = dead[i / COUNT(list)][0], run.dead_to = dead[i / COUNT(list)][1];
    emulate(&c, &run);
    check_split(&c, run, (int)i % size);
  }
}
END_TEST

/* Every eigensolver call of streams fails in one step, if there is any. */
static void check_failing(intervals now, bool has_rows, int failing_step, bool is_met, int n_curvature) {
  emu_case c = case_of(&usual, now, has_rows);
  char text[TEXT];
  carrier_run run = run_with(&c, failing_step + now.refreshes + now.staleness + 3, text);
  c.failing_step = failing_step;
  run.base.n_curvature = n_curvature;
  emulate(&c, &run);
  fault_arm(&fault_dsyevd, FAULT_INFO, 0, INT64_MAX);
  curvd_ctx *ctx = carrier_open(&run);
  fault_dsyevd.clock = &ctx->step, fault_dsyevd.hour = failing_step;
  curvd_status status = CURVD_OK;
  bool is_worker = run_is_worker(ctx);
  for (int step = 0; is_worker && step < run.base.n_steps && status == CURVD_OK; step++)
    status = carrier_step(ctx, &run, step, V[step]);
  run_close(&ctx);
  int64_t spoilt = fault_dsyevd.spoilt, all = 0;
  fault_disarm();
  MPI_Allreduce(&spoilt, &all, 1, MPI_INT64_T, MPI_SUM, MPI_COMM_WORLD);
  mpi_assert_msg(is_met ? all >= 5 : all == 0, "%d decompositions of five streams met the fault", (int)all);
  check_close(&c, &run, status);
}

/* The refresh itself; the history that must move to the landed seed for a statistic, which is lost then, or for a
 * refresh without one. A history that has absorbed nothing since its refresh moves without a decomposition. */
START_TEST(solve_that_fails) {
  static const struct {
    intervals i;
    bool has_rows, is_met;
    int step;
  } list[] = {{{1, 2, 0}, false, true, 4},  {{3, 2, 0}, false, true, 8},  {{1, 6, 5}, false, true, 6},
              {{1, 6, 5}, false, true, 12}, {{4, 6, 5}, false, true, 6},  {{4, 6, 5}, false, true, 12},
              {{3, 6, 4}, false, true, 6},  {{1, 6, 1}, false, true, 8},  {{1, 6, 5}, true, true, 6},
              {{4, 6, 5}, true, true, 6},   {{1, 4, 0}, false, false, 5}, {{1, 6, 5}, true, false, 7}};
  for (size_t i = 0; i < COUNT(list); i++)
    check_failing(list[i].i, list[i].has_rows, list[i].step, list[i].is_met, (int)i % size);
}
END_TEST

/* ---- what streams are good for ---- */

/* All examples lie in 5 dimensions, the bias aside, so 6 rows of a sketch see all of the average: the directions are
 * those of dense K-FAC. Tolerance as above: eps of the first eigenvalue is lost outside the subspace, too, where
 * damping is the mean one. */
START_TEST(sketches_as_wide_as_the_statistics_are_exact) {
  static dense S[RUN_LAYERS][CV_FACTORS][8];
  kfac_case k = {.mode = "relative-mean",
                 .average = "norm",
                 .form = "eigen",
                 .damping = 1,
                 .exponent_a = 1,
                 .exponent_g = 1,
                 .decay = 0.7};
  for (int i = 0; i < 4; i++) {
    emu_case c = case_of(&usual, (intervals){1, 1, 0}, i % 2);
    char text[TEXT];
    carrier_run run = run_with(&c, 8, text);
    run.dim = 5;
    run.base.n_curvature = i < 2 ? 0 : size - 1;
    curvd_status status = carrier_all(&run, V);
    mpi_assert(status == CURVD_OK);
    bool is_worker = rank < size - run.base.n_curvature;
    double worst = 0;
    for (int j = 0; j < 8 * RUN_LAYERS; j++) {
      int step = j / RUN_LAYERS, l = j % RUN_LAYERS;
      for (int f = 0; f < CV_FACTORS; f++) S[l][f][step] = carrier_statistic(&run, step, l, f, 0, run.base.rows);
      dense right = kfac_direction(&k, step + 1, S[l][CV_A], S[l][CV_G], run_gradient(step, l, 0, run.base.rows));
      double distance = is_worker ? dense_distance(V[step][l], right) : 0;
      worst = isfinite(distance) ? fmax(worst, distance) : INFINITY;
    }
    mpi_assert_msg(worst < TOLERANCE, "%s: %.1e", i % 2 ? "rows" : "sketches", worst);
  }
}
END_TEST

/* ||M - (U^T D U + tau (I - U^T U))||, Frobenius, of a worker's preconditioner */
static double error_of(const cv_factor *factor, dense M) {
  const cv_lrps *side = &factor->applied.side;
  dense U = dense_zero(side->r, M.n), DU = U;
  for (int64_t i = 0; i < side->r; i++) {
    for (int64_t j = 0; j < M.n; j++)
      U.x[i][j] = side->U[i * side->ld + j], DU.x[i][j] = (side->D[i] - side->tau) * U.x[i][j];
  }
  M = dense_sum(1, M, -1, dense_product(dense_transposed(U), DU));
  return dense_norm(dense_shifted(M, -side->tau));
}

/* Examples of one distribution with a decaying spectrum: after the first refreshes a worker's preconditioner misses no
 * more than 1.10 times what the best one of rank 6 misses, whichever way statistics travel. */
START_TEST(error_is_near_that_of_the_best_of_that_rank) {
  for (int i = 0; i < 2; i++) {
    emu_case c = case_of(&usual, (intervals){1, 1, 0}, i % 2);
    char text[TEXT];
    double worst = 0;
    c.decay = 0.9;
    carrier_run run = run_with(&c, 24, text);
    run.turn = 0;
    curvd_ctx *ctx = carrier_open(&run);
    curvd_status status = CURVD_OK;
    dense M[RUN_LAYERS] = {{0}};
    for (int j = 0; j < 24 * RUN_LAYERS; j++) {
      int step = j / RUN_LAYERS, l = j % RUN_LAYERS;
      double keep, add;
      if (l == 0 && status == CURVD_OK) status = carrier_step(ctx, &run, step, V[0]);
      emu_weights(&c, step + 1, &keep, &add);
      dense S = carrier_statistic(&run, step, l, CV_A, 0, run.base.rows);
      if (step == 0) M[l] = dense_zero(S.n, S.n);
      M[l] = dense_sum(keep, M[l], add, S);
      dense_eigen best = dense_eig(M[l]);
      dense gap = dense_sum(1, M[l], -1, emu_truncated(best, c.r, dense_trace(M[l])));
      double ratio = error_of(&ctx->layer[l].factor[CV_A], M[l]) / dense_norm(gap);
      if (step >= 8) worst = fmax(worst, ratio);
    }
    run_close(&ctx);
    mpi_assert(status == CURVD_OK);
    mpi_assert_msg(worst < 1.10, "%.3f times the error of the best", worst);
  }
}
END_TEST

START_TEST(same_split_same_bits) {
  for (int i = 0; i < 4; i++) {
    emu_case c = case_of(&usual, (intervals){1, 4, 3}, i % 2);
    char text[TEXT];
    carrier_run run = run_with(&c, 12, text);
    run.base.n_curvature = i < 2 ? 0 : size - 1;
    curvd_status first = carrier_all(&run, V), second = carrier_all(&run, W);
    mpi_assert(first == CURVD_OK && second == CURVD_OK);
    mpi_assert(memcmp(V, W, 12 * sizeof V[0]) == 0);
  }
}
END_TEST

/* Without staleness an owner changes seeds when its workers do: what travels makes no difference but that of sums. */
START_TEST(rows_and_sketches_agree) {
  static const intervals list[] = {{1, 1, 0}, {1, 3, 0}, {3, 2, 0}};
  for (size_t i = 0; i < COUNT(list); i++) {
    emu_case c = case_of(&usual, list[i], false), d = case_of(&usual, list[i], true);
    char text[TEXT], other[TEXT];
    carrier_run sketches = run_with(&c, 12, text), rows = run_with(&d, 12, other);
    curvd_status first = carrier_all(&sketches, V), second = carrier_all(&rows, W);
    mpi_assert(first == CURVD_OK && second == CURVD_OK);
    double distance = run_distance(12, V, W);
    mpi_assert_msg(distance < TOLERANCE, "%.1e", distance);
  }
}
END_TEST

/* ---- memory ---- */

enum { WIDE = 5000, NARROW = 8, K = 96, ROWS = 40 };

/* Most bytes of a rank that is owner and worker. Sets of K and the probes' rows of n: test matrix, sketch and basis of
 * the owner, test matrix, statistic and basis of the worker, a slot up, a parcel down, two of a solver, and one to
 * spare. Of the layer itself (8, n): momentum, gradients, and places to work in. 20 small matrices of K^2 in fp64. */
static const int64_t MEMORY_MAX =
    4 * (11 * (int64_t)(K + CV_EIG_PROBES) + 6 * NARROW) * (WIDE + 64) + 8 * 20 * (int64_t)K * K;

/* A dry run, or, at WIDE, a real one. */
static curvd_status wide_life(const char *options, int64_t width, int n_curvature, int64_t *peak, int64_t *grown) {
  const service_layer layer = {"wide", width, NARROW, false};
  static float a[ROWS * WIDE], g[ROWS * NARROW], X[NARROW * WIDE];
  char text[512];
  snprintf(text, sizeof text, "%s %s curvature_ranks=%d eig_rank=64 oversampling=32 capture_rows=%d", plain, options,
           n_curvature, (int)ROWS);
  curvd_ctx *ctx = service_open(MPI_COMM_WORLD, text, 1, &layer);
  curvd_status status = CURVD_OK;
  curvd_gradient gradient = {.weight = X, .ld = WIDE};
  int64_t before = service_metrics(ctx).n_allocations;
  bool is_run = !strstr(options, "dry_run");
  for (int64_t i = 0; i < ROWS * WIDE; i++) a[i] = (float)sin((double)(i * i % 1009));
  for (int64_t i = 0; i < ROWS * NARROW; i++) g[i] = (float)cos((double)i);
  if (is_run && run_is_worker(ctx)) {
    for (int step = 0; step < 4 && status == CURVD_OK; step++) {
      for (int64_t i = 0; i < NARROW * WIDE; i++) X[i] = 1;
      status = curvd_capture(ctx, 0, ROWS, a, WIDE, g, NARROW);
      if (status == CURVD_OK) status = curvd_step(ctx, 0.1, &gradient, 1);
    }
    curvd_finish(ctx);
  }
  *peak = service_metrics(ctx).memory_peak_bytes;
  *grown = service_metrics(ctx).n_allocations - before;
  curvd_destroy(&ctx);
  return status;
}

START_TEST(memory_is_linear_in_the_width) {
  static const char *const list[] = {"carrier=sketch dry_run=true", "carrier=columns dry_run=true",
                                     "carrier=sketch factor_update_steps=1 inv_update_steps=2",
                                     "carrier=columns factor_update_steps=1 inv_update_steps=2"};
  ck_assert_int_lt(3 * MEMORY_MAX, (int64_t)4 * WIDE * WIDE); /* one matrix (n, n) alone */
  for (size_t i = 0; i < COUNT(list); i++) {
    int64_t peak, grown;
    curvd_status status = wide_life(list[i], WIDE, (int)i % 2 && size > 1 ? 1 : 0, &peak, &grown);
    mpi_assert_msg(status == CURVD_OK, "%s: %s", list[i], curvd_status_name(status));
    mpi_assert_msg(peak < MEMORY_MAX, "%s: %lld bytes, %lld are allowed", list[i], (long long)peak,
                   (long long)MEMORY_MAX);
    mpi_assert_msg(grown == 0, "%s: %d allocations in steps", list[i], (int)grown);
  }
  for (int i = 0; i < 2; i++) { /* twice the width, at most twice the memory */
    int64_t peak[2], grown;
    for (int j = 0; j < 2; j++) {
      curvd_status status = wide_life(list[i], (j + 1) * WIDE, size - 1, &peak[j], &grown);
      mpi_assert(status == CURVD_OK);
    }
    mpi_assert_msg(peak[0] > 0 && peak[1] <= 2 * peak[0], "%s: %lld and %lld bytes", list[i], (long long)peak[0],
                   (long long)peak[1]);
  }
}
END_TEST

static Suite *make_suite(void) {
  const TTest *const tests[] = {sketches_between_all_kinds_of_intervals,
                                rows_between_all_kinds_of_intervals,
                                intervals_that_change,
                                seeds_that_would_not_have_landed,
                                averages,
                                statistic_that_is_bad_on_one_worker,
                                factor_that_dies_and_lives_again,
                                solve_that_fails,
                                sketches_as_wide_as_the_statistics_are_exact,
                                error_is_near_that_of_the_best_of_that_rank,
                                same_split_same_bits,
                                rows_and_sketches_agree,
                                memory_is_linear_in_the_width};
  size = run_size(MPI_COMM_WORLD);
  rank = run_rank(MPI_COMM_WORLD);
  return service_suite("streams", tests, COUNT(tests));
}

int main(int argc, char **argv) {
  return mpi_test_main(argc, argv, make_suite);
}
