/* The window of rows beside a stream: its bookkeeping, and the second product after a jump, against the dense average.
 */
#include "kfac_reference.h"
#include "mpi_assert.h"
#include "service_fixture.h"

#include "curvature/window.h"

#define COUNT(list) (sizeof list / sizeof list[0])

enum { N = 40, M = 36, ROWS = 40, RANK = 8, INTERVAL = 2, JUMP = 12, STEPS = 20 };

static const service_layer fc = {"fc", N, M, false};
static const kfac_case plain = {"relative-mean", "norm", "eigen", 0.1, 1, 1, 0.7};

/* ---- bookkeeping ---- */

/* Windows of every length are the sum of their statistics with the weights that these have in the running average. */
START_TEST(window_is_the_weighted_sum_of_its_rows) {
  enum { BATCH = 3, BATCHES = 6, ROOM = BATCH * BATCHES, WIDE = 7 };
  static float X[ROOM * WIDE], rows[BATCH * WIDE];
  cv_window window = {.room = ROOM, .ld = WIDE, .X = X};
  dense sum = dense_zero(5, 5);
  cv_window_clear(&window);
  for (int b = 0; b < BATCHES; b++) {
    dense Y = dense_random((uint64_t)b, BATCH, 5);
    cv_weights w = {b == 2 ? 1 : 0.5 + 0.1 * b, 0.3 * (1 + b)};
    for (int64_t i = 0; i < BATCH * WIDE; i++) rows[i] = i % WIDE < 5 ? (float)Y.x[i / WIDE][i % WIDE] : NAN;
    cv_window_add(&window, 5, w, BATCH, rows, WIDE);
    sum = dense_sum(w.keep, sum, w.add, dense_product(dense_transposed(Y), Y));
    dense Z = dense_zero(window.rows, 5);
    for (int64_t i = 0; i < window.rows * 5; i++) Z.x[i / 5][i % 5] = X[i / 5 * WIDE + i % 5];
    dense now = dense_scaled(window.weight, dense_product(dense_transposed(Z), Z));
    ck_assert_int_eq(window.rows, BATCH * (b + 1));
    ck_assert(window.is_whole);
    ck_assert_double_lt(dense_distance(now, sum), 1e-6); /* a few roundings of fp32 */
  }
}
END_TEST

START_TEST(window_that_overflows_is_of_no_use_until_it_is_cleared) {
  static float X[4 * 2], rows[3 * 2] = {1, 2, 3, 4, 5, 6};
  cv_window window = {.room = 4, .ld = 2, .X = X};
  const cv_weights w = {0.5, 1}, anew = {0, 1};
  cv_window_clear(&window);
  ck_assert(!cv_window_is_wanted(&window, -1, 1)); /* empty */
  cv_window_add(&window, 2, w, 3, rows, 2);
  ck_assert(cv_window_is_wanted(&window, -1, 1));
  cv_window_add(&window, 2, w, 2, rows, 2);
  ck_assert(!cv_window_is_wanted(&window, -1, 1));
  cv_window_add(&window, 2, w, 0, rows, 2);
  ck_assert(!cv_window_is_wanted(&window, -1, 1));
  cv_window_add(&window, 2, anew, 2, rows, 2); /* the past counts for nothing */
  ck_assert(cv_window_is_wanted(&window, -1, 1) && window.rows == 2);
  cv_window_clear(&window);
  ck_assert(window.rows == 0 && window.is_whole);
  cv_window none = {.room = 0};
  cv_window_clear(&none);
  cv_window_add(&none, 2, w, 1, rows, 2);
  ck_assert(!cv_window_is_wanted(&none, -1, 1));
}
END_TEST

START_TEST(window_is_wanted_after_a_jump_of_the_missing_trace) {
  static float X[2], rows[2] = {1, 2};
  cv_window window = {.room = 1, .ld = 2, .X = X};
  cv_window_clear(&window);
  cv_window_add(&window, 2, (cv_weights){1, 1}, 1, rows, 2);
  ck_assert(cv_window_is_wanted(&window, -1, 0)); /* a first solve began with a random seed */
  ck_assert(cv_window_is_wanted(&window, 0.1, 0.13));
  ck_assert(!cv_window_is_wanted(&window, 0.1, 0.11));
  ck_assert(!cv_window_is_wanted(&window, 0.1, 0.05));
  ck_assert(!cv_window_is_wanted(&window, 0, 0));
}
END_TEST

/* ---- through the service ---- */

static double old_modes(int64_t i) {
  return i < 5 ? 1 / (double)(1 + i) : 0.05 * pow(0.9, (double)i);
}

/* Three directions that the average did not know. */
static double new_modes(int64_t i) {
  return i < 3 ? 2 / (double)(1 + i) : 0.05 * pow(0.9, (double)i);
}

typedef struct story {
  double error[STEPS]; /* of A: |M - U^T D U - tau (I - U^T U)| over the best of this rank without a tail, Frobenius */
  int64_t repaired[STEPS]; /* so far */
  double bound_excess;     /* largest spectral error over its certificate */
  dense direction[STEPS];
} story;

static dense estimate(const cv_factor *factor) {
  int64_t n = factor->n;
  dense P = dense_scaled(factor->applied.state.tau, dense_identity(n));
  for (int64_t l = 0; l < factor->applied.state.r; l++) {
    const float *u = factor->applied.side.U + l * factor->ld;
    for (int64_t i = 0; i < n * n; i++)
      P.x[i / n][i % n] += (factor->applied.side.D[l] - factor->applied.state.tau) * (double)u[i / n] * u[i % n];
  }
  return P;
}

static void judge(const cv_factor *factor, dense whole, double *error, double *excess) {
  dense E = dense_sum(1, whole, -1, estimate(factor));
  dense_eigen of_error = dense_eig(E), e = dense_eig(whole);
  double best = 0;
  for (int64_t i = RANK; i < N; i++) best += e.w[i] * e.w[i];
  *error = dense_norm(E) / sqrt(best);
  *excess = fmax(*excess, fmax(of_error.w[0], -of_error.w[N - 1]) / factor->applied.state.error_bound);
}

/* A's subspace jumps in step JUMP - 1; G's stays. Refreshes in every INTERVAL-th step. is_spoilt: the window is made
 * longer than it was when the jump comes, so that what it leaves of the stream is no sum of squares. */
static void tell(const char *options, bool is_spoilt, story *s) {
  static dense S_A[STEPS];
  char text[320];
  dense before = service_rows_of(ROWS, service_basis(1, N), old_modes);
  dense after = service_rows_of(ROWS, service_basis(2, N), new_modes);
  dense g = service_rows_of(ROWS, service_basis(3, M), old_modes);
  snprintf(text, sizeof text,
           "method=nystrom-kfac loss_reduction=sum eig_rank=%d oversampling=4 full_share=1 inv_update_steps=%d %s",
           (int)RANK, (int)INTERVAL, options);
  curvd_ctx *ctx = service_open(MPI_COMM_SELF, kfac_options(&plain, text), 1, &fc);
  int64_t allocations = service_metrics(ctx).n_allocations;
  memset(s, 0, sizeof *s);
  for (int step = 0; step < STEPS; step++) {
    dense a = step < JUMP - 1 ? before : after;
    S_A[step] = kfac_statistic(a, false);
    if (is_spoilt && step == JUMP) ctx->layer[0].factor[CV_A].own.window.weight *= 1.3;
    service_capture(ctx, 0, a, g);
    s->direction[step] = service_step(ctx, &fc, dense_random((uint64_t)step, M, N));
    s->repaired[step] = service_metrics(ctx).events[CURVD_EVENT_REPAIRED];
    if (step % INTERVAL == 0)
      judge(&ctx->layer[0].factor[CV_A], kfac_average(&plain, step + 1, S_A), &s->error[step], &s->bound_excess);
  }
  ck_assert_int_eq(service_metrics(ctx).n_allocations, allocations);
  service_close(&ctx);
}

static story with, without;

/* The window of the refresh in step JUMP holds the statistics of steps JUMP - 1 and JUMP: 2 ROWS rows. */
START_TEST(refresh_after_a_jump_is_repaired) {
  tell("carrier=columns store=stream window_rows=80", false, &with);
  tell("carrier=columns store=stream", false, &without);
  ck_assert_int_eq(with.repaired[0], 2); /* both factors began with a random seed */
  ck_assert_int_eq(with.repaired[JUMP - 1], 2);
  ck_assert_int_eq(with.repaired[JUMP], 3);
  ck_assert_int_eq(without.repaired[STEPS - 1], 0);
  ck_assert_msg(with.error[0] < 0.7 * without.error[0], "cold start: %.2f, without a window %.2f", with.error[0],
                without.error[0]);
  ck_assert_msg(with.error[JUMP] < 0.7 * without.error[JUMP], "after the jump: %.2f, without a window %.2f",
                with.error[JUMP], without.error[JUMP]);
  ck_assert_msg(with.error[JUMP] < 0.8 && with.error[STEPS - INTERVAL] < 0.8, "%.2f after the jump, %.2f at the end",
                with.error[JUMP], with.error[STEPS - INTERVAL]);
  ck_assert_msg(with.bound_excess <= 1 && without.bound_excess <= 1, "certificates: %.2f and %.2f", with.bound_excess,
                without.bound_excess);
}
END_TEST

/* The stream's own solve, as good as without a window, is in force, and the next refresh goes on from there. */
START_TEST(repair_that_fails_leaves_the_solve_of_the_stream) {
  tell("carrier=columns store=stream window_rows=80", true, &with);
  tell("carrier=columns store=stream", false, &without);
  ck_assert_int_eq(with.repaired[STEPS - 1], 2);
  for (int step = JUMP; step < STEPS; step += INTERVAL)
    ck_assert_msg(with.error[step] < 1.2 * without.error[step], "step %d: %.2f, without a window %.2f", step,
                  with.error[step], without.error[step]);
  ck_assert_double_le(with.bound_excess, 1);
}
END_TEST

/* Rows of one refresh are 40 after the first statistic, 80 later: 79 hold the first window alone, 39 none. */
START_TEST(window_that_is_too_small_is_not_used) {
  tell("carrier=columns store=stream window_rows=39", false, &with);
  tell("carrier=columns store=stream", false, &without);
  ck_assert_int_eq(with.repaired[STEPS - 1], 0);
  ck_assert(memcmp(with.direction, without.direction, sizeof with.direction) == 0);
  tell("carrier=columns store=stream window_rows=79", false, &with);
  ck_assert_int_eq(with.repaired[0], 2);
  ck_assert_int_eq(with.repaired[STEPS - 1], 2);
}
END_TEST

static int64_t factor_bytes(const char *options) {
  curvd_ctx *ctx = service_open(MPI_COMM_SELF, options, 1, &fc);
  int64_t bytes = service_metrics(ctx).memory_bytes[CURVD_MEMORY_FACTORS];
  service_close(&ctx);
  return bytes;
}

START_TEST(sketches_of_workers_are_never_repaired) {
  tell("carrier=sketch window_rows=80", false, &with);
  tell("carrier=sketch", false, &without);
  ck_assert_int_eq(with.repaired[STEPS - 1], 0);
  ck_assert(memcmp(with.direction, without.direction, sizeof with.direction) == 0);
  ck_assert_int_eq(factor_bytes("eig_rank=8 carrier=sketch window_rows=80"), factor_bytes("eig_rank=8 carrier=sketch"));
}
END_TEST

static Suite *make_suite(void) {
  const TTest *const tests[] = {window_is_the_weighted_sum_of_its_rows,
                                window_that_overflows_is_of_no_use_until_it_is_cleared,
                                window_is_wanted_after_a_jump_of_the_missing_trace,
                                refresh_after_a_jump_is_repaired,
                                repair_that_fails_leaves_the_solve_of_the_stream,
                                window_that_is_too_small_is_not_used,
                                sketches_of_workers_are_never_repaired};
  return service_suite("window", tests, COUNT(tests));
}

int main(int argc, char **argv) {
  return mpi_test_main(argc, argv, make_suite);
}
