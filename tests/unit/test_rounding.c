/* Covariances of rounded rows against dense fp64, on one rank: how far they are off, that they stay semidefinite, and
 * who gets fp32 whatever was asked for. */
#include "carrier_fixture.h"

#define COUNT(list) (sizeof list / sizeof list[0])

enum { N = 24, M = 20, ROWS = 64, STEPS = 3 };

static const service_layer fc = {"fc", N, M, true};
static const char *const precisions[] = {"fp32", "bf16", "bf16x3"};
enum { FP32, BF16, BF16X3, PRECISIONS };

/* Two pairs of 25, and no average: each statistic takes the place of the last. */
static curvd_ctx *open_with(const char *method, const char *precision, const char *more) {
  static const kfac_case forgetful = {"relative-mean", "norm", "eigen", 0.1, 1, 1, 0};
  char text[384];
  snprintf(text, sizeof text,
           "method=%s eig_rank=2 oversampling=2 full_share=1 capture_rows=%d loss_reduction=sum "
           "statistics_precision=%s %s",
           method, ROWS, precision, more);
  return service_open(MPI_COMM_SELF, kfac_options(&forgetful, text), 1, &fc);
}

/* Rows of A, without the 1, and of G. */
typedef struct sample {
  dense x[CV_FACTORS];
} sample;

static sample uniform(int step) {
  return (sample){{dense_random(10 + (uint64_t)step, ROWS, N), dense_random(20 + (uint64_t)step, ROWS, M)}};
}

/* Columns of A in front are constant, and rounding takes their last bits. */
enum { CONSTANT = 8 };
static sample with_constants(int step) {
  const double value = 1 + 0x1p-8 - 0x1p-10; /* a bf16 number is 1, or 1 + 2^-7 */
  sample s = uniform(step);
  for (int64_t i = 0; i < ROWS; i++) {
    for (int64_t j = 0; j < CONSTANT; j++) s.x[CV_A].x[i][j] = value;
  }
  return s;
}

/* Inputs of mean 1 that vary by so much. */
static sample varying_by(double size, int step) {
  sample s = uniform(step);
  for (int64_t i = 0; i < ROWS * N; i++) {
    double *x = &s.x[CV_A].x[i / N][i % N];
    *x = (float)(1 + size * *x);
  }
  return s;
}

/* Rounding makes more of them than their pairs miss, by a lot or a little; or a few times less than a tenth of that. */
static sample nearly_constant(int step) {
  return varying_by(1e-3, step);
}
static sample hardly_varying(int step) {
  return varying_by(0.06, step);
}
static sample just_varying(int step) {
  return varying_by(0.7, step);
}

static void step_with(curvd_ctx *ctx, const sample *s) {
  service_capture(ctx, 0, s->x[CV_A], s->x[CV_G]);
  service_step(ctx, &fc, dense_random(3, M, N + 1));
}

static dense average_of(const curvd_ctx *ctx, int f) {
  const cv_factor *factor = &ctx->layer[0].factor[f];
  dense S = dense_zero(factor->n, factor->n);
  for (int64_t i = 0; i < S.n; i++) {
    for (int64_t j = 0; j <= i; j++) S.x[i][j] = S.x[j][i] = factor->own.average[i * factor->own.ld + j];
  }
  return S;
}

/* Averages after some steps. */
typedef struct averages {
  dense x[CV_FACTORS];
} averages;

static averages run(curvd_ctx *ctx, sample (*make)(int), int steps) {
  for (int step = 0; step < steps; step++) {
    sample s = make(step);
    step_with(ctx, &s);
  }
  curvd_metrics metrics = service_metrics(ctx);
  ck_assert_int_eq(metrics.events[CURVD_EVENT_REFUSED_STATISTICS], 0);
  averages found = {{average_of(ctx, CV_A), average_of(ctx, CV_G)}};
  service_close(&ctx);
  return found;
}

static bool is_same(dense X, dense Y) {
  return memcmp(&X, &Y, sizeof X) == 0;
}

/* ---- how far they are off ---- */

static dense magnitudes(dense X) {
  for (int64_t i = 0; i < X.m * X.n; i++) X.x[i / X.n][i % X.n] = fabs(X.x[i / X.n][i % X.n]);
  return X;
}

/* Rounding of both factors of a product: 2^-8 each, or three terms; and sums of 64 products in fp32. */
static const double shares[PRECISIONS] = {0, 0x1.02p-7, 3 * 0x1p-16};

static double check_average(int precision, dense S, dense X, bool has_one, const char *what) {
  dense right = kfac_statistic(X, has_one), size = kfac_statistic(magnitudes(X), has_one);
  double share = shares[precision] + (ROWS + 6) * 0x1p-24;
  for (int64_t i = 0; i < S.n * S.n; i++) {
    int64_t r = i / S.n, c = i % S.n;
    if (!(fabs(S.x[r][c] - right.x[r][c]) <= share * size.x[r][c]))
      ck_abort_msg("%s, %s: (%d, %d) is %.9g, not %.9g", precisions[precision], what, (int)r, (int)c, S.x[r][c],
                   right.x[r][c]);
  }
  return dense_distance(S, right);
}

static void check_carrier(const char *carrier, const char *unit) {
  double off[PRECISIONS][CV_FACTORS];
  sample last = uniform(STEPS - 1);
  for (int p = 0; p < PRECISIONS; p++) {
    char more[96];
    snprintf(more, sizeof more, "store=full carrier=%s matrix_unit=%s", carrier, unit);
    averages found = run(open_with("nystrom-kfac", precisions[p], more), uniform, STEPS);
    for (int f = 0; f < CV_FACTORS; f++) off[p][f] = check_average(p, found.x[f], last.x[f], f == CV_A, more);
  }
  for (int f = 0; f < CV_FACTORS; f++) {
    ck_assert_msg(off[BF16][f] < 2.4e-3 && off[BF16][f] > 1e-4, "%s, %s: %g", carrier, unit, off[BF16][f]);
    ck_assert_msg(off[BF16X3][f] < 0.01 * off[BF16][f] && off[BF16X3][f] > off[FP32][f], "%s, %s: %g, fp32 %g", carrier,
                  unit, off[BF16X3][f], off[FP32][f]);
  }
}

START_TEST(every_precision_is_as_good_as_it_says) {
  static const char *const carriers[] = {"triangle", "columns", "local"};
  for (size_t i = 0; i < COUNT(carriers); i++) {
    check_carrier(carriers[i], "auto");
    for (const cv_unit *const *unit = cv_units; *unit; unit++)
      if ((*unit)->is_there()) check_carrier(carriers[i], (*unit)->name);
  }
}
END_TEST

/* X~^T X~ is semidefinite whatever the rounding was, and so it must be with the 1 of the bias. */
START_TEST(rounded_statistics_are_semidefinite) {
  static const char *const carriers[] = {"triangle", "columns"};
  for (size_t i = 0; i < COUNT(carriers); i++) {
    char more[64];
    snprintf(more, sizeof more, "store=full carrier=%s", carriers[i]);
    averages exact = run(open_with("nystrom-kfac", "fp32", more), with_constants, STEPS),
             found = run(open_with("nystrom-kfac", "bf16", more), with_constants, STEPS);
    dense_eigen e = dense_eig(found.x[CV_A]);
    ck_assert_msg(!is_same(exact.x[CV_A], found.x[CV_A]), "%s: nothing was rounded", carriers[i]);
    ck_assert_msg(e.w[N] >= -1e-6 * e.w[0], "%s: eigenvalues from %g to %g", carriers[i], e.w[0], e.w[N]);
  }
}
END_TEST

/* ---- who gets fp32 ---- */

static const char *const stores[] = {"store=full carrier=triangle", "store=full carrier=columns"};

/* Until there are pairs nobody knows what they miss. */
START_TEST(first_statistics_are_fp32) {
  for (size_t i = 0; i < COUNT(stores); i++) {
    averages exact = run(open_with("nystrom-kfac", "fp32", stores[i]), uniform, 1),
             found = run(open_with("nystrom-kfac", "bf16", stores[i]), uniform, 1);
    for (int f = 0; f < CV_FACTORS; f++) ck_assert(is_same(found.x[f], exact.x[f]));
  }
}
END_TEST

START_TEST(exact_and_online_pairs_get_fp32) {
  static const char *const list[][2] = {{"kfac", "carrier=triangle"},
                                        {"kfac", "carrier=columns"},
                                        {"b-r-kfac", "carrier=columns"},
                                        {"nystrom-kfac", "store=full carrier=triangle eig_rank=25"}};
  for (size_t i = 0; i < COUNT(list); i++) {
    averages exact = run(open_with(list[i][0], "fp32", list[i][1]), uniform, STEPS);
    for (int p = BF16; p <= BF16X3; p++) {
      averages found = run(open_with(list[i][0], precisions[p], list[i][1]), uniform, STEPS);
      for (int f = 0; f < CV_FACTORS; f++)
        ck_assert_msg(is_same(found.x[f], exact.x[f]), "%s, %s", list[i][0], precisions[p]);
    }
  }
}
END_TEST

/* A of nearly constant inputs, but not its G; told once. Three terms are fine enough. */
START_TEST(factor_that_needs_more_gets_fp32) {
  for (size_t i = 0; i < COUNT(stores); i++) {
    carrier_log lines = {0};
    averages exact = run(open_with("nystrom-kfac", "fp32", stores[i]), nearly_constant, STEPS),
             finer = run(open_with("nystrom-kfac", "bf16x3", stores[i]), nearly_constant, STEPS);
    curvd_ctx *ctx = open_with("nystrom-kfac", "bf16", stores[i]);
    curvd_log_to(ctx, carrier_keep_line, &lines, 1);
    averages found = run(ctx, nearly_constant, STEPS);
    ck_assert_msg(is_same(found.x[CV_A], exact.x[CV_A]) && !is_same(found.x[CV_G], exact.x[CV_G]), "%s", stores[i]);
    ck_assert_msg(!is_same(finer.x[CV_A], exact.x[CV_A]), "%s", stores[i]);
    ck_assert_msg(lines.n == 1 && strstr(lines.text[0], "layer fc, A, step 1: statistics_precision bf16 changes") &&
                      strstr(lines.text[0], "made in fp32"),
                  "%d lines, '%s'", lines.n, lines.text[0]);
  }
}
END_TEST

/* By the definition: to nearest, ties to even. */
static double bf16_of(double x) {
  float wide = (float)x;
  uint32_t bits;
  memcpy(&bits, &wide, sizeof bits);
  bits += 0x7fff + (bits >> 16 & 1);
  bits &= 0xffff0000;
  memcpy(&wide, &bits, sizeof wide);
  return wide;
}

/* ||X~^T X~ - X^T X|| / trace X^T X */
static double true_rounding(dense X, bool has_one) {
  dense right = kfac_statistic(X, has_one);
  for (int64_t i = 0; i < X.m * X.n; i++) X.x[i / X.n][i % X.n] = bf16_of(X.x[i / X.n][i % X.n]);
  return dense_norm(dense_sum(1, kfac_statistic(X, has_one), -1, right)) / dense_trace(right);
}

/* Is A of the second step rounded? Four Gaussian vectors are wrong by a factor of 3 with chance 1e-3. */
static void check_choice(const char *store, sample (*make)(int), bool is_fp32) {
  averages exact = run(open_with("nystrom-kfac", "fp32", store), make, 2);
  curvd_ctx *ctx = open_with("nystrom-kfac", "bf16", store);
  sample first = make(0), second = make(1);
  step_with(ctx, &first);
  curvd_factor_metrics told = service_factor(ctx, 0, CV_A);
  double missed = told.error_norm / told.trace, rounding = true_rounding(second.x[CV_A], true);
  ck_assert_msg(is_fp32 ? rounding > 0.3 * missed : rounding < 0.033 * missed, "%s: rounding %g, missed %g: not clear",
                store, rounding, missed);
  step_with(ctx, &second);
  ck_assert_msg(is_same(average_of(ctx, CV_A), exact.x[CV_A]) == is_fp32, "%s: rounding %g, missed %g", store, rounding,
                missed);
  service_close(&ctx);
}

START_TEST(rounding_is_held_against_what_pairs_miss) {
  for (size_t i = 0; i < COUNT(stores); i++) {
    check_choice(stores[i], hardly_varying, true);
    check_choice(stores[i], just_varying, false);
  }
}
END_TEST

static Suite *make_suite(void) {
  const TTest *const tests[] = {every_precision_is_as_good_as_it_says,
                                rounded_statistics_are_semidefinite,
                                first_statistics_are_fp32,
                                exact_and_online_pairs_get_fp32,
                                factor_that_needs_more_gets_fp32,
                                rounding_is_held_against_what_pairs_miss};
  return service_suite("rounding", tests, COUNT(tests));
}

int main(int argc, char **argv) {
  return mpi_test_main(argc, argv, make_suite);
}
