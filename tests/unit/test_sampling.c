/* Statistics of sampled rows (option sample_rows): what they are in the mean, and when they are exact.
 *
 * c rows drawn of X have E|S^T S - X^T X|_F^2 <= (|X|_F^4 / 0.9 - |X^T X|_F^2) / c (linalg/thin.h, proved there), and
 * steps draw independently, so the mean over DRAWS steps keeps a DRAWS-th of that. The trace is that of all rows. */
#include "kfac_reference.h"
#include "mpi_assert.h"
#include "service_fixture.h"

#include "curvature/internal.h"

#define COUNT(list) (sizeof list / sizeof list[0])

enum { N = 24, M = 20, ROWS = 48, SAMPLES = 8, DRAWS = 400 };

static const service_layer fc = {"body.fc", N - 1, M, true};
static const char *const carriers[] = {
    "method=kfac carrier=triangle inv_update_steps=1", "method=kfac carrier=columns inv_update_steps=1",
    "method=nystrom-kfac eig_rank=6 full_share=1 carrier=sketch inv_update_steps=1000000",
    "method=nystrom-kfac eig_rank=6 full_share=1 carrier=columns store=stream inv_update_steps=1000000"};

static char lines[8][256];
static int n_lines;

static void keep_line(void *user, int level, const char *line) {
  (void)user, (void)level;
  if (n_lines < (int)COUNT(lines)) snprintf(lines[n_lines++], sizeof lines[0], "%s", line);
}

/* Nothing is remembered: the average is the newest statistic. */
static curvd_ctx *open_sampled(const char *carrier, const char *more) {
  char text[400];
  snprintf(text, sizeof text,
           "factor_update_steps=1 factor_decay=0 step=plain momentum=0 sample_rows=%d capture_rows=%d %s %s",
           (int)SAMPLES, (int)ROWS, carrier, more);
  curvd_ctx *ctx = service_open(MPI_COMM_SELF, text, 1, &fc);
  curvd_log_to(ctx, keep_line, NULL, 1);
  n_lines = 0;
  return ctx;
}

/* Rows of very different lengths, as activations have them. */
static dense data(uint64_t seed, int64_t rows, int64_t d) {
  dense X = dense_random(seed, rows, d);
  for (int64_t i = 0; i < rows; i++) {
    for (int64_t j = 0; j < d; j++) X.x[i][j] = (float)(X.x[i][j] * (1 + i % 5) / (double)(1 + j));
  }
  return X;
}

static dense inputs(void) {
  return data(1, ROWS, N - 1);
}

static dense output_gradients(void) {
  return data(2, ROWS, M);
}

static dense V_of(uint64_t seed) {
  return dense_random(seed, M, N);
}

/* Of one example's loss: those of the mean over rows are ROWS times too small. */
static dense exact_statistic(int f) {
  return f == CV_A ? kfac_statistic(inputs(), true) : kfac_statistic(dense_scaled(ROWS, output_gradients()), false);
}

static dense take(const float *X, int64_t ld, int64_t rows, int64_t n) {
  dense Y = dense_zero(rows, n);
  for (int64_t i = 0; i < rows * n; i++) Y.x[i / n][i % n] = X[i / n * ld + i % n];
  return Y;
}

/* What is kept of the statistic: itself, or its product with an orthonormal seed, and that of S. */
static dense kept_statistic(const cv_factor *factor, dense S, dense *expected) {
  int64_t n = factor->n;
  *expected = S;
  if (factor->own.average) {
    dense L = take(factor->own.average, factor->own.ld, n, n);
    for (int64_t i = 0; i < n * n; i++)
      L.x[i / n][i % n] = L.x[i / n > i % n ? i / n : i % n][i / n > i % n ? i % n : i / n];
    return L;
  }
  *expected = dense_product(take(factor->own.stream.Omega, factor->own.stream.ld, factor->k_max, n), S);
  return take(factor->own.stream.Y, factor->own.stream.ld, factor->k_max, n);
}

/* ---- the mean ---- */

typedef struct moments {
  dense sum, expected;
  double trace;   /* largest difference of a trace from the exact one */
  double squares; /* of the differences of single statistics */
} moments;

static void add_draw(moments *m, const cv_factor *factor, dense S) {
  dense now = kept_statistic(factor, S, &m->expected);
  double off = factor->own.fresh.trace - dense_trace(S), distance = dense_norm(dense_sum(1, now, -1, m->expected));
  m->sum = m->sum.n == 0 ? now : dense_sum(1, m->sum, 1, now);
  m->trace = fmax(m->trace, fabs(off));
  m->squares += distance * distance / DRAWS;
}

static void check_moments(const moments *m, dense S, const char *what) {
  double trace = dense_trace(S), bound = (trace * trace / 0.9 - dense_dot(S, S)) / SAMPLES;
  double error = dense_norm(dense_sum(1.0 / DRAWS, m->sum, -1, m->expected));
  ck_assert_msg(error < 2 * sqrt(bound / DRAWS), "%s: the mean is off by %.3e, scatter allows %.3e", what, error,
                sqrt(bound / DRAWS));
  ck_assert_msg(m->trace < 1e-6 * trace, "%s: a trace of %.6e is off by %.3e", what, trace,
                m->trace); /* on the wire in fp32 */
  ck_assert_msg(m->squares < bound && m->squares > 0.02 * bound, "%s: squared error %.3e, bound %.3e", what, m->squares,
                bound);
}

START_TEST(mean_of_many_draws_is_the_whole_statistic) {
  static moments m[CV_FACTORS];
  for (size_t i = 0; i < COUNT(carriers); i++) {
    curvd_ctx *ctx = open_sampled(carriers[i], "");
    memset(m, 0, sizeof m);
    int64_t allocations = service_metrics(ctx).n_allocations;
    for (int step = 0; step < DRAWS + 2; step++) { /* from step 2 on a sketch keeps its seed */
      service_capture(ctx, 0, inputs(), output_gradients());
      service_step(ctx, &fc, V_of(3));
      for (int f = 0; f < CV_FACTORS && step >= 2; f++) add_draw(&m[f], &ctx->layer[0].factor[f], exact_statistic(f));
    }
    for (int f = 0; f < CV_FACTORS; f++) check_moments(&m[f], exact_statistic(f), carriers[i]);
    ck_assert_int_eq(service_metrics(ctx).n_allocations, allocations);
    service_close(&ctx);
  }
}
END_TEST

/* Two captures of one step, of the same rows, draw different ones of them; so do two steps, layers' sides and seeds. */
START_TEST(every_piece_and_step_draws_anew) {
  curvd_ctx *one = open_sampled(carriers[0], ""), *two = open_sampled(carriers[0], ""),
            *other = open_sampled(carriers[0], "seed=2"), *same = open_sampled(carriers[0], "");
  dense S = exact_statistic(CV_A), ignored, first = dense_zero(N, N);
  for (int step = 0; step < 2; step++) {
    curvd_ctx *all[] = {one, two, two, other, same};
    for (size_t i = 0; i < COUNT(all); i++) service_capture(all[i], 0, inputs(), output_gradients());
    for (size_t i = 0; i < COUNT(all); i++) {
      if (i != 2) service_step(all[i], &fc, V_of(3));
    }
    dense a = kept_statistic(&one->layer[0].factor[CV_A], S, &ignored);
    ck_assert_double_gt(dense_distance(kept_statistic(&two->layer[0].factor[CV_A], S, &ignored), a), 1e-3);
    ck_assert_double_gt(dense_distance(kept_statistic(&other->layer[0].factor[CV_A], S, &ignored), a), 1e-3);
    ck_assert_double_gt(dense_distance(first, a), 1e-3);
    ck_assert(dense_distance(kept_statistic(&same->layer[0].factor[CV_A], S, &ignored), a) == 0);
    first = a;
  }
  service_close(&one);
  service_close(&two);
  service_close(&other);
  service_close(&same);
}
END_TEST

/* ---- what is not sampled, and what is refused ---- */

START_TEST(few_rows_are_taken_as_they_are) {
  for (size_t i = 0; i < COUNT(carriers); i++) {
    curvd_ctx *sampled = open_sampled(carriers[i], ""), *whole = open_sampled(carriers[i], "sample_rows=0");
    for (int step = 0; step < 3; step++) {
      dense a = data((uint64_t)(5 + step), SAMPLES, N - 1), g = data((uint64_t)(9 + step), SAMPLES, M);
      service_capture(sampled, 0, a, g);
      service_capture(whole, 0, a, g);
      dense one = service_step(sampled, &fc, V_of(3)), other = service_step(whole, &fc, V_of(3));
      ck_assert_msg(memcmp(&one, &other, sizeof one) == 0, "%s, step %d", carriers[i], step);
    }
    service_close(&sampled);
    service_close(&whole);
  }
}
END_TEST

/* NaN in the first or the second of two pieces: the whole statistic is refused, the next one is not. */
START_TEST(rows_that_are_not_finite_are_refused) {
  static const double bad[] = {NAN, INFINITY, 1e30}; /* the square of the last overflows fp32 */
  for (size_t i = 0; i < COUNT(carriers) * COUNT(bad) * 4; i++) {
    bool is_g = i % 2, is_second = i / 2 % 2;
    const char *carrier = carriers[i / 4 / COUNT(bad)];
    curvd_ctx *ctx = open_sampled(carrier, "");
    for (int step = 0; step < 3; step++) {
      for (int piece = 0; piece < 2; piece++) {
        dense a = inputs(), g = output_gradients();
        if (step == 1 && piece == is_second)
          for (int64_t k = 0; k < ROWS; k++) (is_g ? &g : &a)->x[k][3] = bad[i / 4 % COUNT(bad)];
        service_capture(ctx, 0, a, g);
      }
      dense direction = service_step(ctx, &fc, V_of(3));
      ck_assert(isfinite(dense_norm(direction)));
      ck_assert_int_eq(ctx->layer[0].factor[is_g].own.fresh.statistics_step, step == 1 ? 0 : step);
      ck_assert_int_eq(ctx->layer[0].factor[!is_g].own.fresh.statistics_step, step);
    }
    ck_assert_int_eq(ctx->layer[0].factor[is_g].own.fresh.refused, 1);
    ck_assert_msg(n_lines == 1 && strstr(lines[0], "body.fc") && strstr(lines[0], is_g ? " G " : " A ") &&
                      strstr(lines[0], "step 1") && strstr(lines[0], "rank 0"),
                  "%s: %d lines, '%s'", carrier, n_lines, lines[0]);
    service_close(&ctx);
  }
}
END_TEST

/* A refused capture leaves the statistics as they were: the direction is that of a twin that never tried. */
static void check_refusal(curvd_ctx *ctx, curvd_ctx *twin, int64_t rows, const char *cure, const char *what) {
  dense a = data(7, rows, N - 1), g = data(8, rows, M);
  ck_assert_msg(service_capture_part(ctx, 0, a, g, 0, rows) == CURVD_ERR_SIZE, "%s", what);
  const char *text = curvd_last_error(ctx);
  ck_assert_msg(strstr(text, "body.fc") && strstr(text, "rank 0") && strstr(text, "capture_rows") && strstr(text, cure),
                "%s: %s", what, text);
  dense one = service_step(ctx, &fc, V_of(3)), other = service_step(twin, &fc, V_of(3));
  ck_assert_msg(memcmp(&one, &other, sizeof one) == 0, "%s", what);
  service_close(&ctx);
  service_close(&twin);
}

START_TEST(more_rows_than_can_be_drawn_from_are_refused) {
  for (size_t i = 0; i < COUNT(carriers); i++) {
    curvd_ctx *ctx = open_sampled(carriers[i], "capture_rows=30"), *twin = open_sampled(carriers[i], "capture_rows=30");
    service_capture(ctx, 0, data(1, 30, N - 1), data(2, 30, M));
    service_capture(twin, 0, data(1, 30, N - 1), data(2, 30, M));
    check_refusal(ctx, twin, 31, "piece by piece", carriers[i]);
  }
}
END_TEST

/* Three times 8 drawn rows do not fit into 20. */
START_TEST(more_drawn_rows_than_fit_are_refused) {
  curvd_ctx *ctx = open_sampled(carriers[1], "capture_rows=20"), *twin = open_sampled(carriers[1], "capture_rows=20");
  for (int piece = 0; piece < 2; piece++) {
    service_capture(ctx, 0, data(1, 20, N - 1), data(2, 20, M));
    service_capture(twin, 0, data(1, 20, N - 1), data(2, 20, M));
  }
  check_refusal(ctx, twin, 20, "another carrier", carriers[1]);
}
END_TEST

static Suite *make_suite(void) {
  const TTest *const tests[] = {mean_of_many_draws_is_the_whole_statistic,
                                every_piece_and_step_draws_anew,
                                few_rows_are_taken_as_they_are,
                                rows_that_are_not_finite_are_refused,
                                more_rows_than_can_be_drawn_from_are_refused,
                                more_drawn_rows_than_fit_are_refused};
  return service_suite("sampling", tests, COUNT(tests));
}

int main(int argc, char **argv) {
  return mpi_test_main(argc, argv, make_suite);
}
