/* What spread factors take: memory per rank, none of it made inside a step, and plans without memory of factors that no
 * rank here could hold. Each test goes through every number of curvature ranks that leaves a worker. */
#include "spread_fixture.h"

#include "linalg/dense.h"

#define COUNT(list) (sizeof list / sizeof list[0])

static int size, rank;

static int64_t blocks_of(const spread_run *run, int64_t n, int owner) {
  int64_t mine = 0, p = spread_owners(run);
  for (int64_t begin = 64 * owner; begin < n; begin += 64 * p) mine += n - begin < 64 ? n - begin : 64;
  return mine;
}

/* ---- while it runs ---- */

static void check_ranks(const curvd_ctx *ctx, const spread_run *run, int64_t min_n) {
  int owners = spread_owners(run);
  for (int i = 0; i < SPREAD_LAYERS * CV_FACTORS; i++) {
    curvd_factor_metrics factor = service_factor(ctx, i / CV_FACTORS, i % CV_FACTORS);
    mpi_assert(factor.n == spread_n(i / CV_FACTORS, i % CV_FACTORS));
    mpi_assert(factor.ranks == (factor.n >= min_n ? owners : 1));
  }
}

static void check_life(const char *method, int c, int64_t min_n) {
  static spread_directions V;
  char options[256];
  snprintf(options, sizeof options, "%s grid_min_n=%d", method, (int)min_n);
  spread_run run = spread_run_of(&spread_plain, c, options);
  curvd_ctx *ctx = spread_open(&run);
  curvd_metrics before = service_metrics(ctx), after;
  curvd_status status;
  check_ranks(ctx, &run, min_n);
  if (spread_is_worker(ctx, &status)) {
    for (int step = 0; step < SPREAD_STEPS && status == CURVD_OK; step++)
      status = spread_feed(ctx, &run, step, V.x[step]);
    curvd_finish(ctx);
  }
  after = service_metrics(ctx);
  bool is_owner = c == 0 || rank >= size - c;
  mpi_assert(status == CURVD_OK);
  mpi_assert(after.n_allocations == before.n_allocations);
  mpi_assert(after.memory_peak_bytes == before.memory_peak_bytes);
  mpi_assert(memcmp(after.memory_bytes, before.memory_bytes, sizeof before.memory_bytes) == 0);
  mpi_assert(is_owner || after.memory_bytes[CURVD_MEMORY_FACTORS] == 0);
  mpi_assert(after.events[CURVD_EVENT_REFRESHES] ==
             (rank < size - c ? SPREAD_STEPS * SPREAD_LAYERS * CV_FACTORS : after.events[CURVD_EVENT_REFRESHES]));
  curvd_destroy(&ctx);
}

START_TEST(a_step_makes_no_memory_and_every_rank_tells_the_plan) {
  for (int c = 0; c < size; c++) {
    check_life("method=kfac", c, 2);
    check_life("method=nystrom-kfac grid_product=slab", c, 100);
    check_life("method=rs-kfac grid_product=scalapack", c, 70);
  }
}
END_TEST

/* ---- memory of one wide factor ---- */

enum { WIDE = 1000, NARROW = 8, KEPT = 20, CAPTURED = 32 };

static curvd_metrics plan_of(const char *method, int c, const char *more, service_layer layer) {
  char options[512];
  snprintf(options, sizeof options, "%s curvature_ranks=%d eig_rank=%d oversampling=0 capture_rows=%d %s", method, c,
           (int)KEPT, (int)CAPTURED, more);
  curvd_ctx *ctx = service_open(MPI_COMM_WORLD, options, 1, &layer);
  curvd_metrics metrics = service_metrics(ctx);
  curvd_destroy(&ctx);
  return metrics;
}

/* An owner has its columns of the average and of the basis with its probes, and a small G. */
static void check_wide(const char *method, int c, int64_t pairs) {
  const service_layer wide = {"wide", WIDE, NARROW, false};
  const spread_run run = {.n_curvature = c};
  curvd_metrics metrics = plan_of(method, c, "grid_min_n=1000", wide);
  int owner = c == 0 ? rank : rank - (size - c);
  int64_t ld = owner >= 0 ? cv_dense_ld(blocks_of(&run, WIDE, owner)) : 0,
          G = 4 * (2 * NARROW + CV_EIG_PROBES + 1) * cv_dense_ld(NARROW);
  int64_t most = owner >= 0 ? 4 * ((WIDE + pairs + CV_EIG_PROBES) * ld + pairs) + G : 0;
  mpi_assert_msg(metrics.memory_bytes[CURVD_MEMORY_FACTORS] <= most, "%s: factors take %lld bytes, at most %lld",
                 method, (long long)metrics.memory_bytes[CURVD_MEMORY_FACTORS], (long long)most);
  mpi_assert(metrics.memory_bytes[CURVD_MEMORY_STATISTICS] <=
             4 * (CAPTURED * cv_dense_ld(WIDE) + NARROW * cv_dense_ld(NARROW)));
  if (pairs == WIDE) return; /* the exact solver wants 5 n^2 / owners */
  for (int kind = 0; kind < CURVD_MEMORIES; kind++)
    mpi_assert_msg(metrics.memory_bytes[kind] < 4 * WIDE * WIDE, "%s: %lld bytes of kind %s", method,
                   (long long)metrics.memory_bytes[kind], curvd_memory_name(kind));
}

START_TEST(no_rank_holds_a_spread_factor) {
  for (int c = 0; c < size; c++) {
    if ((c == 0 ? size : c) < 2) continue;
    check_wide("method=kfac", c, WIDE);
    check_wide("method=nystrom-kfac grid_product=slab", c, KEPT);
    check_wide("method=sre-kfac grid_product=scalapack", c, KEPT);
  }
}
END_TEST

/* ---- without memory ---- */

/* A dry plan tells what the real one takes. */
START_TEST(dry_plan_tells_the_memory_of_the_real_one) {
  static const char *const options[] = {"method=kfac grid_min_n=2", "method=nystrom-kfac grid_min_n=1000",
                                        "method=kfac form=cholesky exponent_a=1 exponent_g=1 damping_mode=pi",
                                        "method=none"};
  for (int i = 0; i < size * (int)COUNT(options); i++) {
    const service_layer wide = {"wide", WIDE, 300, true};
    curvd_metrics real = plan_of(options[i / size], i % size, "dry_run=false", wide),
                  dry = plan_of(options[i / size], i % size, "dry_run=true", wide);
    for (int kind = 0; kind < CURVD_MEMORIES; kind++) {
      mpi_assert_msg(dry.memory_bytes[kind] == real.memory_bytes[kind],
                     "%s, %d curvature ranks, %s: %lld bytes, not %lld", options[i / size], i % size,
                     curvd_memory_name(kind), (long long)dry.memory_bytes[kind], (long long)real.memory_bytes[kind]);
    }
    mpi_assert(dry.memory_peak_bytes == real.memory_peak_bytes && dry.n_allocations == real.n_allocations);
  }
}
END_TEST

/* 32767 inputs and a bias: one more than LAPACK takes on one rank. */
static const service_layer huge = {"huge", 32767, 8, true};

static void check_refused(curvd_ctx *ctx) {
  float x[8] = {0};
  curvd_gradient g = {.weight = x, .ld = 32767, .bias = x, .bias_stride = 1};
  bool is_worker = curvd_role_get(ctx) == CURVD_ROLE_WORKER;
  mpi_assert(curvd_capture(ctx, 0, 1, NULL, 0, x, 8) == CURVD_ERR_STATE);
  mpi_assert(curvd_step(ctx, 1, &g, 1) == CURVD_ERR_STATE);
  mpi_assert_msg(strstr(curvd_last_error(ctx), "dry_run") != NULL, "%s", curvd_last_error(ctx));
  mpi_assert(is_worker || curvd_serve(ctx) == CURVD_ERR_STATE);
  mpi_assert(curvd_finish(ctx) == CURVD_ERR_STATE);
}

static void check_dry(const char *method, int c) {
  char options[256];
  const spread_run run = {.n_curvature = c};
  snprintf(options, sizeof options, "method=%s dry_run=true curvature_ranks=%d", method, c);
  curvd_ctx *ctx = service_make(MPI_COMM_WORLD, options, 1, &huge);
  bool is_alone = spread_owners(&run) == 1, is_exact = kfac_is(method, "kfac");
  curvd_status status = curvd_plan(ctx);
  mpi_assert_msg(status == (is_alone && is_exact ? CURVD_ERR_SIZE : CURVD_OK) ||
                     (status == CURVD_ERR_REMOTE && is_alone && is_exact && c > 0),
                 "%s: %s", options, curvd_last_error(ctx));
  if (status == CURVD_OK) {
    int owner = c == 0 ? rank : rank - (size - c);
    int64_t factors = service_metrics(ctx).memory_bytes[CURVD_MEMORY_FACTORS], n = 32768,
            mine = owner >= 0 ? blocks_of(&run, n, owner) : 0, columns = is_exact ? 2 * n : n;
    mpi_assert_msg(factors >= 4 * columns * mine && (double)factors <= 1.01 * 4 * (double)columns * (double)(mine + 16),
                   "%s: %lld bytes", options, (long long)factors);
    mpi_assert(service_factor(ctx, 0, CV_A).ranks == spread_owners(&run));
    check_refused(ctx);
  }
  curvd_destroy(&ctx);
}

START_TEST(dry_plan_of_a_factor_that_no_rank_could_hold) {
  for (int c = 0; c < size; c++) {
    check_dry("kfac", c);
    check_dry("nystrom-kfac store=full", c);
  }
}
END_TEST

static Suite *make_suite(void) {
  const TTest *const tests[] = {a_step_makes_no_memory_and_every_rank_tells_the_plan, no_rank_holds_a_spread_factor,
                                dry_plan_tells_the_memory_of_the_real_one,
                                dry_plan_of_a_factor_that_no_rank_could_hold};
  size = spread_size();
  rank = spread_rank();
  return service_suite("spread plans", tests, COUNT(tests));
}

int main(int argc, char **argv) {
  return mpi_test_main(argc, argv, make_suite);
}
