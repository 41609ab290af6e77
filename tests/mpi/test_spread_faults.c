/* Bad and missing data of spread factors, on some workers only: what all ranks must agree on without a further message.
 * Each test goes through every number of curvature ranks that leaves a worker. */
#include "spread_fixture.h"

#define COUNT(list) (sizeof list / sizeof list[0])

static int size, rank;
static spread_directions V;

typedef struct log_lines {
  int n;
  char text[8][480];
} log_lines;

static void keep_line(void *user, int level, const char *line) {
  log_lines *lines = user;
  (void)level;
  if (lines->n < (int)COUNT(lines->text)) snprintf(lines->text[lines->n++], sizeof lines->text[0], "%s", line);
}

static int owner_of(const curvd_ctx *ctx, int layer) {
  curvd_layer_metrics metrics = {.owner = -1};
  curvd_layer_metrics_read(ctx, layer, &metrics);
  return metrics.owner;
}

static const char *const methods[] = {"method=kfac grid_min_n=2", "method=nystrom-kfac grid_min_n=2",
                                      "method=rs-kfac grid_min_n=100"};

/* ---- numbers that are not finite ---- */

/* Captures of a step in which ranks bad_from .. bad_to - 1 have one more row, with a bad number, of the inputs of fc1.
 */
static curvd_status capture_bad(curvd_ctx *ctx, const spread_run *run, int step, int bad_from, int bad_to) {
  float x[SPREAD_MAX] = {0};
  x[7 + 13 * rank] = rank % 2 ? NAN : INFINITY;
  curvd_status status = spread_capture(ctx, run, step);
  bool is_bad = rank >= bad_from && rank < bad_to;
  return status == CURVD_OK && is_bad ? curvd_capture(ctx, 1, 1, x, SPREAD_MAX, NULL, 0) : status;
}

typedef struct told {
  curvd_status status;
  int64_t statistics_step, refused_a, refused_g, events;
  double error;
} told;

/* Statistics of step 0 twice, the second time with bad numbers: the average, and so the preconditioner, is that of step
 * 0. Of G of fc1 and of fc0 both come: the same average again. Then a good step. */
static told feed_bad(curvd_ctx *ctx, const spread_run *run, int bad_from, int bad_to) {
  told t = {.status = spread_feed(ctx, run, 0, V.x[0])};
  if (t.status == CURVD_OK) t.status = capture_bad(ctx, run, 0, bad_from, bad_to);
  if (t.status == CURVD_OK) t.status = spread_step(ctx, 1, V.x[1]);
  curvd_factor_metrics a = service_factor(ctx, 1, CV_A);
  t.statistics_step = a.statistics_step;
  t.refused_a = a.refused;
  t.refused_g = service_factor(ctx, 1, CV_G).refused;
  t.events = service_metrics(ctx).events[CURVD_EVENT_REFUSED_STATISTICS];
  t.error = spread_step_error(run, &spread_plain, 1, 1, V.x[1]);
  if (t.status == CURVD_OK) t.status = spread_feed(ctx, run, 1, V.x[2]);
  return t;
}

static void check_refused(const char *method, int c, int bad_from, int bad_to) {
  spread_run run = spread_run_of(&spread_plain, c, method);
  log_lines lines = {0};
  told t = {.statistics_step = 0, .refused_a = 1, .events = 1};
  curvd_ctx *ctx = spread_open(&run);
  curvd_log_to(ctx, keep_line, &lines, 1);
  if (spread_is_worker(ctx, &t.status)) {
    t = feed_bad(ctx, &run, bad_from, bad_to);
    curvd_finish(ctx);
  }
  int n_lines = owner_of(ctx, 1) == rank;
  curvd_destroy(&ctx);
  mpi_assert(t.status == CURVD_OK);
  mpi_assert_msg(t.error < spread_tolerance, "%s, %d curvature ranks, bad on %d .. %d: %.1e", method, c, bad_from,
                 bad_to, t.error);
  mpi_assert(t.statistics_step == 0);
  mpi_assert(t.refused_a == 1 && t.refused_g == 0 && t.events == 1);
  mpi_assert_msg(lines.n == n_lines, "%d lines: %s", lines.n, lines.text[0]);
}

START_TEST(statistic_that_is_bad_on_some_workers) {
  for (int c = 0; c < size; c++) {
    int n_workers = size - c;
    for (int n_bad = 1; n_bad <= n_workers && n_bad <= 4; n_bad++)
      check_refused(methods[(c + n_bad) % (int)COUNT(methods)], c, n_workers - n_bad, n_workers);
    check_refused(methods[c % (int)COUNT(methods)], c, 0, 1);
  }
}
END_TEST

/* Nothing good has come yet: every side stays the identity, and no owner begins to solve what another one refused. */
static void check_first(const char *method, int c, int bad) {
  spread_run run = spread_run_of(&spread_plain, c, method);
  static float gradient[SPREAD_FLOATS];
  curvd_status status;
  double moved = 0, error = 0;
  curvd_ctx *ctx = spread_open(&run);
  if (spread_is_worker(ctx, &status)) {
    float x[SPREAD_MAX] = {[3] = NAN};
    status = rank == bad ? curvd_capture(ctx, 0, 1, x, SPREAD_MAX, x, SPREAD_MAX) : CURVD_OK;
    if (status == CURVD_OK) status = rank == bad ? curvd_capture(ctx, 1, 1, x, SPREAD_MAX, x, SPREAD_MAX) : CURVD_OK;
    if (status == CURVD_OK) status = spread_feed(ctx, &run, 0, V.x[0]);
    for (int l = 0; l < SPREAD_LAYERS; l++) {
      int64_t count = spread_n(l, CV_A) * spread_n(l, CV_G);
      spread_gradient(0, l, gradient);
      for (int64_t i = 0; i < count; i++) moved = fmax(moved, fabs((double)V.x[0][l][i] - gradient[i]));
    }
    if (status == CURVD_OK) status = spread_feed(ctx, &run, 0, V.x[1]);
    error = spread_step_error(&run, &spread_plain, 1, 0, V.x[1]);
    curvd_finish(ctx);
  }
  curvd_destroy(&ctx);
  mpi_assert_msg(status == CURVD_OK && moved < 1e-6, "%s: moved by %.1e", method, moved);
  mpi_assert_msg(error < spread_tolerance, "%s: %.1e", method, error);
}

START_TEST(first_statistic_is_bad_on_one_worker) {
  for (int c = 0; c < size; c++) {
    check_first(methods[c % (int)COUNT(methods)], c, 0);
    check_first(methods[(c + 1) % (int)COUNT(methods)], c, size - c - 1);
  }
}
END_TEST

/* ---- more rows than there is room for ---- */

/* After its share, each worker comes with more; the share stays, and the step is right. */
static void check_rows(int c, const char *more) {
  enum { ROOM = SPREAD_ROWS, TOO_MANY = ROOM + 1 };
  static float x[TOO_MANY * SPREAD_MAX];
  char options[256];
  snprintf(options, sizeof options, "%s capture_rows=%d", more, (int)ROOM);
  spread_run run = spread_run_of(&spread_plain, c, options);
  curvd_status status, refused[2] = {CURVD_ERR_SIZE, CURVD_ERR_SIZE};
  bool is_told = true;
  double error = 0;
  curvd_ctx *ctx = spread_open(&run);
  if (spread_is_worker(ctx, &status)) {
    int64_t mine = run.rows * (rank + 1) / (size - c) - run.rows * rank / (size - c);
    status = spread_capture(ctx, &run, 0);
    refused[0] = curvd_capture(ctx, 1, TOO_MANY - mine, x, SPREAD_MAX, x, SPREAD_MAX);
    const char *text = curvd_last_error(ctx);
    is_told = strstr(text, "fc1") && strstr(text, "25 rows") && strstr(text, "room for 24") &&
              strstr(text, "n = 200") && strstr(text, "capture_rows") && strstr(text, "grid_min_n");
    refused[1] = curvd_capture(ctx, 0, TOO_MANY, NULL, 0, x, SPREAD_MAX);
    if (status == CURVD_OK) status = spread_step(ctx, 0, V.x[0]);
    error = spread_step_error(&run, &spread_plain, 1, 0, V.x[0]);
    if (status == CURVD_OK) status = spread_feed(ctx, &run, 0, V.x[1]); /* there is room again */
    curvd_finish(ctx);
  }
  curvd_destroy(&ctx);
  mpi_assert(refused[0] == CURVD_ERR_SIZE && refused[1] == CURVD_ERR_SIZE);
  mpi_assert(is_told);
  mpi_assert_msg(status == CURVD_OK && error < spread_tolerance, "%s: %.1e", run.options, error);
}

START_TEST(more_rows_than_there_is_room_for) {
  for (int c = 0; c < size; c++) {
    if ((c == 0 ? size : c) < 2) continue; /* nothing is spread */
    check_rows(c, "grid_min_n=2");
    check_rows(c, "grid_min_n=60"); /* G of fc1 is whole */
  }
}
END_TEST

/* ---- nothing captured ---- */

START_TEST(steps_without_captures) {
  for (int c = 0; c < size; c++) {
    spread_run run = spread_run_of(&spread_plain, c, methods[c % (int)COUNT(methods)]);
    curvd_status status;
    double error = 0, kept = 0;
    curvd_ctx *ctx = spread_open(&run);
    if (spread_is_worker(ctx, &status)) {
      status = spread_step(ctx, 0, V.x[0]);
      if (status == CURVD_OK) status = spread_feed(ctx, &run, 0, V.x[1]);
      error = spread_step_error(&run, &spread_plain, 1, 0, V.x[1]);
      if (status == CURVD_OK) status = spread_step(ctx, 1, V.x[2]); /* the average stays */
      kept = spread_step_error(&run, &spread_plain, 1, 1, V.x[2]);
      curvd_finish(ctx);
    }
    curvd_destroy(&ctx);
    mpi_assert_msg(status == CURVD_OK && error < spread_tolerance && kept < spread_tolerance, "%s: %.1e, %.1e",
                   run.options, error, kept);
  }
}
END_TEST

static Suite *make_suite(void) {
  const TTest *const tests[] = {statistic_that_is_bad_on_some_workers, first_statistic_is_bad_on_one_worker,
                                more_rows_than_there_is_room_for, steps_without_captures};
  size = spread_size();
  rank = spread_rank();
  return service_suite("spread faults", tests, COUNT(tests));
}

int main(int argc, char **argv) {
  return mpi_test_main(argc, argv, make_suite);
}
