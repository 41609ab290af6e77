/* Faults on some ranks that all must hear of, in the same call, without hanging; then the run goes on.
 * Each test goes through every number of curvature ranks that leaves a worker. */
#include "mpi_service.h"

#include "curvature/internal.h"

#define COUNT(list) (sizeof list / sizeof list[0])

static int size, rank;

static bool tells(const char *text, const char *what, int number) {
  char word[64];
  snprintf(word, sizeof word, "%s%d", what, number);
  const char *at = strstr(text, word);
  return at && (at[strlen(word)] < '0' || at[strlen(word)] > '9');
}

typedef struct log_lines {
  int n;
  char text[8][480];
} log_lines;

static void keep_line(void *user, int level, const char *line) {
  log_lines *lines = user;
  (void)level;
  if (lines->n < (int)COUNT(lines->text)) snprintf(lines->text[lines->n++], sizeof lines->text[0], "%s", line);
}

/* Captures of a step in which some workers hold a bad number in the inputs of layer 1 ("fc1"). */
static curvd_status capture_bad(curvd_ctx *ctx, const service_run *run, int step, bool is_bad) {
  curvd_status status = run_capture(ctx, run, step);
  float x[20 + 1] = {0};
  x[7] = step % 2 ? NAN : INFINITY;
  return status == CURVD_OK && is_bad ? curvd_capture(ctx, 1, 1, x, 20, NULL, 0) : status;
}

/* Step 1 repeats step 0 but for the bad number, so its directions must be step 0's; step 2 is well again. */
static void check_refused(const char *options, int c, int bad_from, int bad_to) {
  service_run run = run_of(options, c);
  log_lines lines = {0};
  dense first[RUN_LAYERS], V[RUN_LAYERS];
  bool ok = true, same = true;
  curvd_ctx *ctx = run_open(&run);
  curvd_log_to(ctx, keep_line, &lines, 1);
  if (run_is_worker(ctx)) {
    ok = run_step(ctx, &run, 0, first) == CURVD_OK &&
         capture_bad(ctx, &run, 0, rank >= bad_from && rank < bad_to) == CURVD_OK;
    run_gradients(ctx, &run, 0, V);
    ok = ok && service_try(ctx, 0.1, SERVICE_APART, RUN_LAYERS, run_layer, V) == CURVD_OK;
    for (int l = 0; l < RUN_LAYERS; l++) same = same && dense_distance(V[l], first[l]) < 1e-5;
    ok = ok && run_step(ctx, &run, 2, V) == CURVD_OK && service_factor(ctx, 1, 0).statistics_step == 2;
    ok = ok && service_metrics(ctx).events[CURVD_EVENT_REFUSED_STATISTICS] == 1;
    ok = ok && service_factor(ctx, 1, 0).refused == 1 && service_factor(ctx, 1, 1).refused == 0;
    curvd_finish(ctx);
  }
  curvd_layer_metrics metrics = {.owner = -1};
  curvd_layer_metrics_read(ctx, 1, &metrics);
  mpi_assert(ok);
  mpi_assert(same);
  mpi_assert(lines.n == (metrics.owner == rank));
  bool one = bad_to - bad_from == 1;
  mpi_assert_msg(lines.n == 0 ||
                     (strstr(lines.text[0], "fc1") && strstr(lines.text[0], " A ") &&
                      tells(lines.text[0], "step ", 1) &&
                      (one ? tells(lines.text[0], "rank ", bad_from) : tells(lines.text[0], "on ", bad_to - bad_from))),
                 "%s", lines.text[0]);
  run_close(&ctx);
}

START_TEST(statistic_that_is_bad_on_some_workers) {
  for (int c = 0; c < size; c++) {
    check_refused(run_kfac, c, 0, 1);
    check_refused(run_nystrom, c, size - c - 1, size - c);
    if (size - c > 2) check_refused(run_nystrom, c, 1, size - c);
  }
}
END_TEST

/* The last worker's gradient of fc2 is not finite: everybody hears layer, step and rank, and the run goes on. */
START_TEST(gradient_that_is_bad_on_one_worker) {
  static const double bad[] = {NAN, INFINITY};
  for (int i = 0; i < 2 * size; i++) {
    service_run run = run_of(i < size ? run_kfac : run_nystrom, i % size);
    dense V[RUN_LAYERS];
    curvd_status status = CURVD_ERR_NUMERIC, after = CURVD_OK;
    bool is_told = true, ok = true;
    curvd_ctx *ctx = run_open(&run);
    if (run_is_worker(ctx)) {
      int culprit = curvd_worker_count(ctx) - 1;
      ok = run_step(ctx, &run, 0, V) == CURVD_OK && run_capture(ctx, &run, 1) == CURVD_OK;
      run_gradients(ctx, &run, 1, V);
      if (rank == culprit) V[2].x[2][16] = bad[i < size]; /* in the bias */
      status = service_try(ctx, 0.1, SERVICE_APART, RUN_LAYERS, run_layer, V);
      const char *text = curvd_last_error(ctx);
      is_told = strstr(text, "fc2") && tells(text, "step ", 1) && tells(text, "rank ", culprit);
      after = run_step(ctx, &run, 2, V);
      for (int l = 0; l < RUN_LAYERS; l++) ok = ok && isfinite(dense_norm(V[l]));
      curvd_finish(ctx);
    }
    mpi_assert(status == CURVD_ERR_NUMERIC);
    mpi_assert(is_told);
    mpi_assert(ok && after == CURVD_OK);
    run_close(&ctx);
  }
}
END_TEST

/* Worker w passes a wrong argument: its own code there, REMOTE elsewhere; then the step is made again, rightly, and
 * gives what it would have given. */
static void check_argument(int c, int w, bool is_lr) {
  service_run run = run_of(run_kfac, c);
  static dense clean[1][RUN_LAYERS];
  dense V[RUN_LAYERS];
  curvd_gradient none[RUN_LAYERS] = {{.weight = NULL}};
  curvd_status status = CURVD_OK, expected = CURVD_OK, after = CURVD_OK;
  bool same = true, is_told = true;
  run.n_steps = 1;
  mpi_assert(run_all(&run, clean) == CURVD_OK);
  curvd_ctx *ctx = run_open(&run);
  if (run_is_worker(ctx)) {
    expected = rank == w ? CURVD_ERR_ARGUMENT : CURVD_ERR_REMOTE;
    run_capture(ctx, &run, 0);
    run_gradients(ctx, &run, 0, V);
    if (rank != w || is_lr) {
      status = service_try(ctx, rank == w ? -1 : 0.1, SERVICE_APART, RUN_LAYERS, run_layer, V);
    } else {
      status = curvd_step(ctx, 0.1, none, RUN_LAYERS);
    }
    is_told = rank == w || tells(curvd_last_error(ctx), "rank ", w);
    run_gradients(ctx, &run, 0, V);
    after = service_try(ctx, 0.1, SERVICE_APART, RUN_LAYERS, run_layer, V);
    same = memcmp(V, clean[0], sizeof V) == 0;
    curvd_finish(ctx);
  }
  mpi_assert_msg(status == expected, "worker %d: %s", w, curvd_status_name(status));
  mpi_assert(is_told);
  mpi_assert(after == CURVD_OK && same);
  run_close(&ctx);
}

START_TEST(wrong_argument_on_one_worker) {
  for (int c = 0; c < size; c++) {
    check_argument(c, 0, true);
    check_argument(c, size - c - 1, false);
  }
}
END_TEST

/* Each rank in turn, the first and the last, is the odd one. */
START_TEST(ranks_that_differ_in_options_or_layers) {
  static const struct {
    const char *option;
    service_layer layer;
  } odd[] = {{"damping=0.2", {"fc2", 16, 3, true}},
             {"seed=1", {"fc3", 16, 3, true}},
             {"seed=1", {"fc2", 17, 3, true}},
             {"seed=1", {"fc2", 16, 4, true}},
             {"seed=1", {"fc2", 16, 3, false}}};
  for (size_t i = 0; size > 1 && i < 2 * COUNT(odd); i++) {
    bool is_odd = rank == (i % 2 ? size - 1 : 0);
    service_layer layers[RUN_LAYERS];
    memcpy(layers, run_layer, sizeof layers);
    if (is_odd) layers[2] = odd[i / 2].layer;
    curvd_ctx *ctx = service_make(MPI_COMM_WORLD, is_odd ? odd[i / 2].option : "seed=1", RUN_LAYERS, layers);
    mpi_assert(curvd_plan(ctx) == CURVD_ERR_MISMATCH);
    mpi_assert(strstr(curvd_last_error(ctx), i / 2 == 0 ? "options" : "layers") != NULL);
    mpi_assert(curvd_plan(ctx) == CURVD_ERR_STATE);
    curvd_destroy(&ctx);
  }
}
END_TEST

START_TEST(one_layer_less_on_one_rank) {
  curvd_ctx *ctx = service_make(MPI_COMM_WORLD, "method=kfac", rank == size - 1 ? 2 : 3, run_layer);
  mpi_assert(curvd_plan(ctx) == (size > 1 ? CURVD_ERR_MISMATCH : CURVD_OK));
  curvd_destroy(&ctx);
}
END_TEST

START_TEST(no_rank_left_to_train) {
  for (int c = size; c < size + 3; c++) {
    service_run run = run_of(run_kfac, c);
    curvd_ctx *ctx = run_make(&run);
    mpi_assert(curvd_plan(ctx) == CURVD_ERR_LAYOUT);
    mpi_assert(strstr(curvd_last_error(ctx), "curvature_ranks") != NULL);
    curvd_destroy(&ctx);
  }
}
END_TEST

/* A solver that fails on the owners: the exact one takes over, and every worker hears of it. */
static curvd_status fails(const cv_eig_problem *problem, const cv_eig_work *work, float *U, int64_t ldu, float *D,
                          cv_eig_result *result, cv_error *err) {
  (void)problem, (void)work, (void)U, (void)ldu, (void)D, (void)result;
  return cv_fail(err, CURVD_ERR_NUMERIC, "the stub fails");
}

START_TEST(solver_that_fails_on_its_owner) {
  static const cv_eig_ops stub = {.name = "stub", .solve = fails};
  static dense exact[1][RUN_LAYERS];
  for (int c = 0; c < size; c++) {
    service_run run = run_of(run_nystrom, c),
                reference = run_of("method=rs-kfac power_iters=8 eig_rank=4 step=plain momentum=0", c);
    dense V[RUN_LAYERS];
    bool ok = true;
    double worst = 0;
    reference.n_steps = 1;
    mpi_assert(run_all(&reference, exact) == CURVD_OK);
    curvd_ctx *ctx = run_open(&run);
    ctx->solver = &stub;
    if (run_is_worker(ctx)) {
      ok = run_step(ctx, &run, 0, V) == CURVD_OK;
      ok = ok &&
           service_metrics(ctx).events[CURVD_EVENT_EXACT_FALLBACK] == 4; /* fc1 and fc2 have a small G: exact anyway */
      for (int l = 0; l < RUN_LAYERS; l++) worst = fmax(worst, dense_distance(V[l], exact[0][l]));
      curvd_finish(ctx);
    }
    mpi_assert(ok);
    mpi_assert_msg(worst < 1e-3, "%.1e", worst); /* the sketch has converged to so much */
    run_close(&ctx);
  }
}
END_TEST

static Suite *make_suite(void) {
  const TTest *const tests[] = {
      statistic_that_is_bad_on_some_workers,  gradient_that_is_bad_on_one_worker, wrong_argument_on_one_worker,
      ranks_that_differ_in_options_or_layers, one_layer_less_on_one_rank,         no_rank_left_to_train,
      solver_that_fails_on_its_owner};
  size = run_size(MPI_COMM_WORLD);
  rank = run_rank(MPI_COMM_WORLD);
  return service_suite("service faults", tests, COUNT(tests));
}

int main(int argc, char **argv) {
  return mpi_test_main(argc, argv, make_suite);
}
