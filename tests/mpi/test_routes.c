/* Statistics that travel with the gradients' sum (option route): the same directions as when they go straight to their
 * owners, by two ways whose sums differ in their order alone.
 *
 * Tolerance: eps, 6e-8, times the number of workers in a sum, at most 7, relative to a statistic's norm; factors damped
 * by a tenth of the mean eigenvalue of n <= 25 have a condition of at most 251: 1e-4. */
#include "mpi_service.h"

#include "curvature/internal.h"

#define COUNT(list) (sizeof list / sizeof list[0])

enum { STEPS = 7, LINES = 8 };

static const double TOLERANCE = 1e-4;

static int size, rank;
static dense straight[STEPS][RUN_LAYERS], riding[STEPS][RUN_LAYERS], again[STEPS][RUN_LAYERS];

static service_run run_with(const char *options, int n_curvature) {
  service_run run = run_of(options, n_curvature);
  run.n_steps = STEPS;
  return run;
}

static bool works(int n_curvature) {
  return rank < size - n_curvature;
}

/* With the gradients, on MPI_COMM_WORLD: the same bits on every worker. */
static void ride(const char *options, int n_curvature, const char *reduction, dense (*D)[RUN_LAYERS]) {
  static dense of_rank_0[STEPS][RUN_LAYERS];
  char text[320];
  snprintf(text, sizeof text, "%s route=gradients", options);
  service_run run = run_with(text, n_curvature);
  run.grad_reduction = reduction;
  memset(D, 0, sizeof of_rank_0);
  curvd_status status = run_all(&run, D);
  mpi_assert_msg(status == CURVD_OK, "%s, %d curvature ranks: %s", text, n_curvature, curvd_status_name(status));
  memcpy(of_rank_0, D, sizeof of_rank_0);
  MPI_Bcast(of_rank_0, sizeof of_rank_0, MPI_BYTE, 0, MPI_COMM_WORLD);
  mpi_assert_msg(!works(n_curvature) || memcmp(of_rank_0, D, sizeof of_rank_0) == 0,
                 "%s, %d curvature ranks: other bits than on rank 0", text, n_curvature);
}

/* ---- directions ---- */

static const char *const some[] = {
    "method=kfac factor_update_steps=1 inv_update_steps=1",
    "method=kfac factor_update_steps=2 inv_update_steps=3 staleness=2 step=plain",
    "method=kfac factor_update_steps=3 inv_update_steps=2 staleness=5",
    "method=kfac form=cholesky exponent_a=1 exponent_g=1 damping_mode=pi damping=0.01 factor_update_steps=2 "
    "inv_update_steps=2",
    "method=nystrom-kfac eig_rank=4 carrier=triangle factor_update_steps=1 inv_update_steps=2 staleness=1 damping=1",
    "method=nystrom-kfac eig_rank=6 carrier=sketch factor_update_steps=1 inv_update_steps=2 damping=1",
    "method=nystrom-kfac eig_rank=6 carrier=columns factor_update_steps=2 inv_update_steps=2 staleness=3 damping=1",
    "method=kfac apply=sharded factor_update_steps=2 inv_update_steps=2 staleness=1 step=kl-clip"};

START_TEST(directions_are_those_of_the_straight_route) {
  for (size_t i = 0; i < COUNT(some) * (size_t)size; i++) {
    const char *options = some[i % COUNT(some)], *reduction = i % 3 ? "sum" : "mean";
    int c = (int)(i / COUNT(some));
    service_run run = run_with(options, c);
    run.grad_reduction = reduction;
    memset(straight, 0, sizeof straight);
    mpi_assert(run_all(&run, straight) == CURVD_OK);
    ride(options, c, reduction, riding);
    double distance = works(c) ? run_distance(STEPS, riding, straight) : 0;
    mpi_assert_msg(distance < TOLERANCE, "%s, %d curvature ranks: %.1e", options, c, distance);
    if (c != 0 && c != size - 1) continue;
    ride(options, c, reduction, again);
    mpi_assert_msg(memcmp(riding, again, sizeof again) == 0, "%s: other bits the second time", options);
  }
}
END_TEST

/* Votes lie in the same sum, before the statistics; statistics in every step, and now and then. */
START_TEST(free_running_workers_agree) {
  static const char *const kinds[] = {"factor_update_steps=1 inv_update_steps=1",
                                      "factor_update_steps=3 inv_update_steps=2",
                                      "factor_update_steps=2 inv_update_steps=2 apply=sharded"};
  for (size_t i = 0; i < COUNT(kinds) * (size_t)size; i++) {
    char options[256];
    snprintf(options, sizeof options, "method=kfac staleness=free staleness_max=2 %s", kinds[i % COUNT(kinds)]);
    ride(options, (int)(i / COUNT(kinds)), "sum", riding);
  }
}
END_TEST

/* ---- bytes ---- */

static int64_t triangle(int64_t n) {
  return n * (n + 1) / 2;
}

/* Steps 0, 2, 4, 6 bring statistics: packed triangles of all layers and four numbers a factor, from every worker, its
 * own layers' included, and a float that keeps a vote's place. To each curvature rank one worker hands the sums over:
 * rank `owner mod workers`. */
static void check_bytes(int c) {
  enum { STATISTICS = 4 };
  service_run run = run_with("method=kfac route=gradients factor_update_steps=2 inv_update_steps=3 staleness=2", c);
  curvd_ctx *ctx = run_open(&run);
  int64_t gradients = 0, all = 0, handed = 0, n_workers = size - c;
  bool ok = true, is_worker = run_is_worker(ctx);
  for (int step = 0; step < STEPS && is_worker; step++) ok = ok && run_step(ctx, &run, step, riding[step]) == CURVD_OK;
  for (int l = 0; l < RUN_LAYERS; l++) {
    curvd_layer_metrics layer = {.owner = -1};
    curvd_layer_metrics_read(ctx, l, &layer);
    int64_t n = service_columns(&run_layer[l]), m = run_layer[l].d_out, bytes = 4 * (triangle(n) + triangle(m) + 8);
    gradients += 4 * m * n;
    all += bytes;
    if (c > 0 && (layer.owner - n_workers) % n_workers == rank) handed += bytes;
  }
  curvd_metrics metrics = service_metrics(ctx);
  run_close(&ctx);
  mpi_assert(ok);
  int64_t sent[] = {STEPS * gradients + STATISTICS * 4, STATISTICS * (all + handed)};
  if (!is_worker) sent[0] = sent[1] = 0;
  if (n_workers == 1) sent[0] = 0, sent[1] = is_worker && c > 0 ? STATISTICS * all : 0; /* there is no sum to join */
  for (int i = 0; i < 2; i++) {
    int64_t found = metrics.sent_bytes[i == 0 ? CURVD_TRAFFIC_GRADIENTS : CURVD_TRAFFIC_STATISTICS];
    mpi_assert_msg(found == sent[i], "%d curvature ranks: %lld bytes of %s, not %lld", c, (long long)found,
                   i == 0 ? "gradients" : "statistics", (long long)sent[i]);
  }
}

START_TEST(bytes_are_those_of_one_sum_and_one_handing_over) {
  for (int c = 0; c < size; c++) check_bytes(c);
}
END_TEST

/* ---- statistics that are not finite ---- */

static char lines[LINES][256];
static int n_lines;

static void keep_line(void *user, int level, const char *line) {
  (void)user, (void)level;
  if (n_lines < LINES) snprintf(lines[n_lines++], sizeof lines[0], "%s", line);
}

/* In step 1 the last worker's inputs of layer 1 hold NaN. */
static curvd_status feed(curvd_ctx *ctx, const service_run *run, int step, dense *V) {
  int n = curvd_worker_count(ctx), w = curvd_worker_index(ctx);
  for (int l = 0; l < RUN_LAYERS; l++) {
    dense a = run_inputs(step, l, run->rows);
    if (step == 1 && l == 1 && w == n - 1) a.x[run->rows - 1][3] = NAN;
    CV_TRY(service_capture_part(ctx, l, a, run_output_gradients(step, l, run->rows), run_cut(run->rows, n, w),
                                run_cut(run->rows, n, w + 1)));
  }
  run_gradients(ctx, run, step, V);
  return service_try(ctx, 0.1, SERVICE_APART, RUN_LAYERS, run_layer, V);
}

/* The owner refuses this one statistic and names who sent it; directions stay those without it. */
static void check_refusal(const char *options, int c) {
  service_run run = run_with(options, c);
  bool is_right = true;
  curvd_status status = CURVD_OK;
  char expected[128];
  n_lines = 0;
  curvd_ctx *ctx = run_open(&run);
  curvd_log_to(ctx, keep_line, NULL, 1);
  bool is_worker = run_is_worker(ctx), is_owner = ctx->layer[1].owner == cv_comm_my_owner(&ctx->comm);
  for (int step = 0; step < 3 && is_worker && status == CURVD_OK; step++) {
    status = feed(ctx, &run, step, riding[step]);
    int64_t newest = service_factor(ctx, 1, CV_A).statistics_step, other = service_factor(ctx, 1, CV_G).statistics_step;
    is_right = is_right && newest == (step == 1 ? 0 : step) && other == step;
    for (int l = 0; l < RUN_LAYERS; l++) is_right = is_right && isfinite(dense_norm(riding[step][l]));
  }
  is_right = is_right && (!is_worker || service_factor(ctx, 1, CV_A).refused == 1);
  snprintf(expected, sizeof expected, "layer fc1: statistics of A in step 1 refused: not finite on rank %d",
           size - c - 1);
  bool is_told = n_lines == is_owner && (!is_owner || kfac_is(lines[0], expected));
  run_close(&ctx);
  mpi_assert_msg(status == CURVD_OK && is_right, "%s, %d curvature ranks: %s", options, c, curvd_status_name(status));
  mpi_assert_msg(is_told, "%s, %d curvature ranks: %d lines, '%s'", options, c, n_lines, lines[0]);
}

START_TEST(bad_statistics_are_refused_and_named) {
  static const char *const kinds[] = {"method=kfac", "method=nystrom-kfac eig_rank=4 carrier=columns",
                                      "method=nystrom-kfac eig_rank=4 carrier=sketch", "method=b-kfac eig_rank=4"};
  for (size_t i = 0; i < COUNT(kinds) * (size_t)size; i++) {
    char options[256];
    snprintf(options, sizeof options, "%s route=gradients factor_update_steps=1 inv_update_steps=1",
             kinds[i % COUNT(kinds)]);
    check_refusal(options, (int)(i / COUNT(kinds)));
  }
}
END_TEST

START_TEST(routes_without_a_sum_are_refused) {
  static const char *const kinds[] = {"route=gradients carrier=local", "route=gradients"};
  for (size_t i = 0; i < COUNT(kinds); i++) {
    service_run run = run_of(kinds[i], 0);
    run.grad_reduction = i == 1 ? "none" : "sum";
    curvd_ctx *ctx = run_make(&run);
    curvd_status status = curvd_plan(ctx);
    curvd_destroy(&ctx);
    mpi_assert(status == CURVD_ERR_OPTION);
  }
}
END_TEST

static Suite *make_suite(void) {
  const TTest *const tests[] = {directions_are_those_of_the_straight_route, free_running_workers_agree,
                                bytes_are_those_of_one_sum_and_one_handing_over, bad_statistics_are_refused_and_named,
                                routes_without_a_sum_are_refused};
  size = run_size(MPI_COMM_WORLD);
  rank = run_rank(MPI_COMM_WORLD);
  return service_suite("routes", tests, COUNT(tests));
}

int main(int argc, char **argv) {
  return mpi_test_main(argc, argv, make_suite);
}
