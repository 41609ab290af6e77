/* What goes wrong on one rank, and what the service makes of it: bad numbers, dead and rank-one factors, solvers that
 * fail, calls in the wrong order and with wrong arguments. Faults that need several ranks are in mpi/test_service.c. */
#include "kfac_reference.h"
#include "mpi_assert.h"
#include "service_fixture.h"

#include "curvature/internal.h"

#define COUNT(list) (sizeof list / sizeof list[0])

enum { ROWS = 48, N = 40, M = 36 };

static const service_layer fc = {"body.fc", N, M, false};
static const kfac_case plain = {"relative-mean", "norm", "eigen", 0.1, 1, 1, 0.9};
static const char *const methods[] = {"kfac", "rs-kfac", "sre-kfac", "nystrom-kfac"};

static char lines[8][480];
static int n_lines;

static void keep_line(void *user, int level, const char *line) {
  ck_assert_ptr_eq(user, lines);
  ck_assert_int_eq(level, 1);
  ck_assert_int_lt(n_lines, COUNT(lines));
  snprintf(lines[n_lines++], sizeof lines[0], "%s", line);
}

static curvd_ctx *open_method(const char *method, const char *more) {
  char text[512];
  snprintf(text, sizeof text, "method=%s loss_reduction=sum eig_rank=6 full_share=1 tail=zero %s", method, more);
  curvd_ctx *ctx = service_open(MPI_COMM_SELF, kfac_options(&plain, text), 1, &fc);
  ck_assert_int_eq(curvd_log_to(ctx, keep_line, lines, 1), CURVD_OK);
  n_lines = 0;
  return ctx;
}

/* Few modes (6), so that every method finds them all. */
static dense few_modes(uint64_t seed, int64_t n) {
  return dense_product(dense_random(seed, ROWS, 6), dense_random(seed + 1, 6, n));
}

static dense inputs(void) {
  dense X = few_modes(1, N);
  for (int64_t i = 0; i < X.m; i++) {
    for (int64_t j = 0; j < X.n; j++) X.x[i][j] = (float)X.x[i][j];
  }
  return X;
}

static dense output_gradients(void) {
  dense X = few_modes(11, M);
  for (int64_t i = 0; i < X.m; i++) {
    for (int64_t j = 0; j < X.n; j++) X.x[i][j] = (float)X.x[i][j];
  }
  return X;
}

static dense V_of(uint64_t seed) {
  return dense_random(seed, M, N);
}

/* Condition of the damped factors: 6 equal modes of N against 0.1 of the mean, 70 and some; eps 6e-8; spread of 10. */
static void check_exact(dense direction, dense V) {
  dense A = kfac_statistic(inputs(), false), G = kfac_statistic(output_gradients(), false);
  ck_assert_double_lt(dense_distance(direction, kfac_apply(&plain, 1, A, G, V)), 5e-5);
}

static void good_step(curvd_ctx *ctx, uint64_t seed) {
  service_capture(ctx, 0, inputs(), output_gradients());
  check_exact(service_step(ctx, &fc, V_of(seed)), V_of(seed));
}

static bool same_bits(dense X, dense Y) {
  return memcmp(&X, &Y, sizeof X) == 0;
}

/* ---- bad numbers ---- */

START_TEST(statistic_that_is_not_finite_is_refused) {
  static const double bad[] = {NAN, INFINITY, -INFINITY, 1e30}; /* the square of the last overflows fp32 */
  for (size_t i = 0; i < COUNT(methods) * COUNT(bad) * 2; i++) {
    bool is_g = i % 2;
    curvd_ctx *ctx = open_method(methods[i / 2 / COUNT(bad)], "");
    dense a = inputs(), g = output_gradients(), before, after;
    good_step(ctx, 3);
    service_capture(ctx, 0, a, g);
    before = service_step(ctx, &fc, V_of(4)); /* the same statistic again: the same average */
    (is_g ? &g : &a)->x[ROWS / 2][3] = bad[i / 2 % COUNT(bad)];
    service_capture(ctx, 0, a, g);
    after = service_step(ctx, &fc, V_of(4));
    check_exact(after, V_of(4));
    ck_assert_double_lt(dense_distance(after, before), 1e-5);
    ck_assert_int_eq(service_metrics(ctx).events[CURVD_EVENT_REFUSED_STATISTICS], 1);
    ck_assert_int_eq(service_factor(ctx, 0, is_g).refused, 1);
    ck_assert_int_eq(service_factor(ctx, 0, !is_g).refused, 0);
    ck_assert_int_eq(service_factor(ctx, 0, is_g).statistics_step, 1);
    ck_assert_int_eq(service_factor(ctx, 0, !is_g).statistics_step, 2);
    ck_assert_int_eq(n_lines, 1);
    ck_assert_msg(strstr(lines[0], "body.fc") && strstr(lines[0], is_g ? " G " : " A ") && strstr(lines[0], "step 2") &&
                      strstr(lines[0], "rank 0"),
                  "%s", lines[0]);
    good_step(ctx, 5);
    ck_assert_int_eq(service_factor(ctx, 0, is_g).statistics_step, 3);
    service_close(&ctx);
  }
}
END_TEST

/* Nothing good has come yet: the side stays the identity. */
START_TEST(first_statistic_refused) {
  for (size_t i = 0; i < COUNT(methods); i++) {
    curvd_ctx *ctx = open_method(methods[i], "");
    dense a = inputs(), g = output_gradients(), V = V_of(3);
    a.x[1][1] = g.x[2][2] = NAN;
    service_capture(ctx, 0, a, g);
    ck_assert_double_lt(dense_distance(service_step(ctx, &fc, V), V), 1e-6);
    ck_assert_int_eq(service_factor(ctx, 0, 0).eig_rank, 0);
    ck_assert_int_eq(service_metrics(ctx).events[CURVD_EVENT_REFUSED_STATISTICS], 2);
    good_step(ctx, 4);
    service_close(&ctx);
  }
}
END_TEST

START_TEST(gradient_that_is_not_finite_is_an_error) {
  static const float bad[] = {NAN, INFINITY, -INFINITY};
  for (size_t i = 0; i < COUNT(methods) * COUNT(bad); i++) {
    curvd_ctx *ctx = open_method(methods[i / COUNT(bad)], "momentum=0.5"),
              *twin = open_method(methods[i / COUNT(bad)], "");
    dense V = V_of(3);
    service_capture(ctx, 0, inputs(), output_gradients());
    service_step(ctx, &fc, V);
    V.x[M - 1][N - 1] = bad[i % COUNT(bad)];
    ck_assert_int_eq(service_try(ctx, 1, SERVICE_JOINED, 1, &fc, &V), CURVD_ERR_NUMERIC);
    const char *text = curvd_last_error(ctx);
    ck_assert_msg(strstr(text, "body.fc") && strstr(text, "step 1") && strstr(text, "rank 0"), "%s", text);
    ck_assert_int_eq(service_metrics(ctx).step, 2);
    /* the momentum starts anew: half the direction of the gradient alone */
    service_capture(twin, 0, inputs(), output_gradients());
    dense alone = service_step(twin, &fc, V_of(5)), after = service_step(ctx, &fc, V_of(5));
    ck_assert_double_lt(dense_distance(after, dense_scaled(0.5, alone)), 1e-5);
    ck_assert_str_eq(curvd_last_error(ctx), "");
    service_close(&ctx);
    service_close(&twin);
  }
}
END_TEST

/* A dead layer: a zero factor leaves its side alone, and comes to life when statistics do. */
START_TEST(zero_factors) {
  for (size_t i = 0; i < COUNT(methods) * 3; i++) {
    int dead = 1 + (int)(i % 3); /* bit 0: A, bit 1: G */
    curvd_ctx *ctx = open_method(methods[i / 3], "factor_decay=0");
    dense a = dense_scaled(!(dead & 1), inputs()), g = dense_scaled(!(dead & 2), output_gradients()),
          expected = V_of(3);
    service_capture(ctx, 0, a, g);
    if (dead == 1) {
      dense G = kfac_statistic(g, false);
      expected = dense_product(dense_inverse_power(G, 0.1 * dense_trace(G) / M, 1), expected);
    } else if (dead == 2) {
      dense A = kfac_statistic(a, false);
      expected = dense_product(expected, dense_inverse_power(A, 0.1 * dense_trace(A) / N, 1));
    }
    ck_assert_double_lt(dense_distance(service_step(ctx, &fc, V_of(3)), expected), 5e-5);
    good_step(ctx, 4);
    service_close(&ctx);
  }
}
END_TEST

START_TEST(rank_one_factors) {
  for (size_t i = 0; i < COUNT(methods); i++) {
    curvd_ctx *ctx = open_method(methods[i], "");
    dense a = dense_random(1, 1, N), g = dense_random(2, 1, M), V = V_of(3);
    service_capture(ctx, 0, a, g);
    dense expected = kfac_apply(&plain, 1, kfac_statistic(a, false), kfac_statistic(g, false), V);
    ck_assert_double_lt(dense_distance(service_step(ctx, &fc, V), expected), 2e-4); /* condition 10 N = 400 */
    service_close(&ctx);
  }
}
END_TEST

START_TEST(singular_factor_without_damping_is_an_error) {
  for (size_t i = 1; i < COUNT(methods); i++) { /* tail zero; the exact method has no zero but for rounding */
    curvd_ctx *ctx = open_method(methods[i], "damping=0,0.1@1");
    dense V = V_of(3);
    service_capture(ctx, 0, inputs(), output_gradients());
    ck_assert_int_eq(service_try(ctx, 1, SERVICE_JOINED, 1, &fc, &V), CURVD_ERR_NUMERIC);
    ck_assert_ptr_nonnull(strstr(curvd_last_error(ctx), "body.fc"));
    ck_assert_ptr_nonnull(strstr(curvd_last_error(ctx), "damping"));
    good_step(ctx, 4);
    service_close(&ctx);
  }
}
END_TEST

/* ---- solvers that fail ---- */

static curvd_status fails(const cv_eig_problem *problem, const cv_eig_work *work, float *U, int64_t ldu, float *D,
                          cv_eig_result *result, cv_error *err) {
  (void)problem, (void)work, (void)U, (void)ldu, (void)D, (void)result;
  return cv_fail(err, CURVD_ERR_NUMERIC, "the stub fails");
}

/* What a stub does to a sound decomposition, and the certificate of the ladder (solve.c) that must show it. */
typedef enum fault { NOT_ORTHOGONAL, NOT_ITS_PAIRS, TAIL_TOO_LARGE, TRACE_EXCEEDED, CERTIFICATES } fault;

static fault fault_now;
static bool fault_is_nan; /* the certificate itself is NaN */

/* Leaves U orthonormal but for NOT_ORTHOGONAL: coordinate vectors are as orthonormal as any. */
static void spoil(const cv_eig_problem *p, float *U, int64_t ldu, float *D, cv_eig_result *result) {
  for (int64_t j = 0; j < p->n && fault_now == NOT_ORTHOGONAL; j++) U[ldu + j] += 1e-3f * U[j];
  for (int64_t i = 0; i < result->found && fault_now == NOT_ITS_PAIRS; i++) {
    for (int64_t j = 0; j < p->n; j++) U[i * ldu + j] = i == j;
  }
  for (int64_t i = 0; i < result->found && fault_now == TRACE_EXCEEDED; i++) D[i] *= 1.1f;
  if (fault_now == TAIL_TOO_LARGE) result->tau = result->trace;
}

static void spoil_certificate(float *D, cv_eig_result *result) {
  if (fault_now == NOT_ORTHOGONAL) result->orthogonality = NAN;
  if (fault_now == NOT_ITS_PAIRS) result->residual = NAN;
  if (fault_now == TAIL_TOO_LARGE) result->error_norm = NAN;
  if (fault_now == TRACE_EXCEEDED) D[1] = NAN;
}

/* Certifies honestly what it spoilt, as a backend that went wrong would. */
static curvd_status spoils(const cv_eig_problem *problem, const cv_eig_work *work, float *U, int64_t ldu, float *D,
                           cv_eig_result *result, cv_error *err) {
  CV_TRY(cv_eig_rand.solve(problem, work, U, ldu, D, result, err));
  if (fault_is_nan) {
    spoil_certificate(D, result);
    return CURVD_OK;
  }
  spoil(problem, U, ldu, D, result);
  return cv_eig_rand.check(problem, work, U, ldu, D, result, err);
}

/* Nothing but NaN, in the certificates as well. */
static curvd_status is_nan(const cv_eig_problem *p, const cv_eig_work *work, float *U, int64_t ldu, float *D,
                           cv_eig_result *result, cv_error *err) {
  (void)work, (void)err;
  for (int64_t i = 0; i < p->eig_rank; i++) {
    for (int64_t j = 0; j < p->n; j++) U[i * ldu + j] = NAN;
    D[i] = NAN;
  }
  *result = (cv_eig_result){.found = p->eig_rank, .kept = p->eig_rank};
  result->trace = result->missing_trace = result->tau = result->error_bound = result->error_norm = NAN;
  result->residual = result->orthogonality = result->drift = NAN;
  return CURVD_OK;
}

static cv_eig_ops stub_of(curvd_status (*solve)(const cv_eig_problem *, const cv_eig_work *, float *, int64_t, float *,
                                                cv_eig_result *, cv_error *)) {
  return (cv_eig_ops){"stub", false, cv_eig_rand.fits, cv_eig_rand.scratch, solve, cv_eig_rand.check};
}

static void check_events(const curvd_ctx *ctx, int64_t refreshes, int64_t exact, int64_t retried, int64_t kept) {
  curvd_metrics metrics = service_metrics(ctx);
  ck_assert_int_eq(metrics.events[CURVD_EVENT_REFRESHES], refreshes);
  ck_assert_int_eq(metrics.events[CURVD_EVENT_EXACT_FALLBACK], exact);
  ck_assert_int_eq(metrics.events[CURVD_EVENT_RETRIED], retried);
  ck_assert_int_eq(metrics.events[CURVD_EVENT_KEPT_PREVIOUS], kept);
}

/* The first rung fails on both factors and the exact solver takes over; then the solver is well again, and comes back
 * from the exact pairs, or from a cold start. The line that told of the first failure. */
static const char *check_takeover(const cv_eig_ops *stub, const char *method) {
  curvd_ctx *ctx = open_method(method, "");
  ctx->solver = stub;
  good_step(ctx, 3);
  check_events(ctx, 2, 2, 0, 0);
  ck_assert_int_eq(n_lines, 2);
  ck_assert_msg(strstr(lines[0], "body.fc, A, step 0") && strstr(lines[1], "body.fc, G, step 0") &&
                    strstr(lines[0], "stub"),
                "%s", lines[0]);
  ctx->solver = &cv_eig_rand;
  good_step(ctx, 4);
  check_events(ctx, 4, 2, 0, 0);
  service_close(&ctx);
  return lines[0];
}

START_TEST(exact_solver_takes_over) {
  const cv_eig_ops stubs[] = {stub_of(fails), stub_of(is_nan)};
  for (size_t i = 0; i < COUNT(stubs); i++) check_takeover(&stubs[i], "rs-kfac");
}
END_TEST

/* The bounds are the ladder's, the numbers those that it told: one of the four is beyond its bound, or NaN. */
static void check_only_reason(const char *line, fault expected) {
  double is[CERTIFICATES], trace;
  const char *told = strstr(line, "orthogonality");
  ck_assert_msg(told && sscanf(told, "orthogonality %lf, residual %lf, error %lf, sum of eigenvalues %lf, trace %lf",
                               &is[NOT_ORTHOGONAL], &is[NOT_ITS_PAIRS], &is[TAIL_TOO_LARGE], &is[TRACE_EXCEEDED],
                               &trace) == 5,
                "%s", line);
  const double most[CERTIFICATES] = {1e-4, 0.5, 2 * trace, 1.001 * trace};
  for (int i = 0; i < CERTIFICATES; i++) ck_assert_msg((is[i] <= most[i]) == (i != (int)expected), "%s", line);
}

START_TEST(each_certificate_alone_refuses_a_decomposition) {
  const cv_eig_ops stub = stub_of(spoils);
  for (int i = 0; i < 2 * CERTIFICATES; i++) {
    fault_now = (fault)(i / 2);
    fault_is_nan = i % 2;
    for (size_t m = 1; m < COUNT(methods); m++) check_only_reason(check_takeover(&stub, methods[m]), fault_now);
  }
}
END_TEST

/* Value of the running average of factor f that a test spoils. */
static float *average_of(curvd_ctx *ctx, int f) {
  return &ctx->layer[0].factor[f].own.average[5 * ctx->layer[0].factor[f].ld + 2];
}

/* A running average that went bad in memory: no solver takes it, and the previous preconditioner stays. When it is well
 * again, what the failed solvers left behind is no start for the next: once it is what the sketch itself left, once NaN
 * from end to end. */
START_TEST(previous_preconditioner_is_kept) {
  static const char *const forms[] = {"exponent_a=1", "form=cholesky"};
  for (size_t i = 0; i < 2 * COUNT(methods); i++) {
    bool is_exact = i % COUNT(methods) == 0, has_stub = i > COUNT(methods), is_cholesky = i == COUNT(methods);
    curvd_ctx *ctx = open_method(methods[i % COUNT(methods)], forms[is_cholesky]);
    service_capture(ctx, 0, inputs(), output_gradients());
    dense before = service_step(ctx, &fc, V_of(3));
    float kept[CV_FACTORS];
    const cv_eig_ops *solver = ctx->solver, stub = stub_of(is_nan);
    if (has_stub) ctx->solver = &stub;
    for (int f = 0; f < CV_FACTORS; f++) kept[f] = *average_of(ctx, f), *average_of(ctx, f) = NAN;
    ck_assert(same_bits(service_step(ctx, &fc, V_of(3)), before));
    ck_assert_int_eq(service_metrics(ctx).events[CURVD_EVENT_KEPT_PREVIOUS], 2);
    for (int f = 0; f < CV_FACTORS; f++) *average_of(ctx, f) = kept[f];
    ctx->solver = solver;
    check_exact(service_step(ctx, &fc, V_of(4)), V_of(4));
    ck_assert_int_eq(service_metrics(ctx).events[CURVD_EVENT_EXACT_FALLBACK], is_exact ? 0 : 2);
    if (!is_cholesky) check_events(ctx, 4, is_exact ? 0 : 2, 2, 2); /* the failed ones refreshed nothing */
    service_close(&ctx);
  }
}
END_TEST

static Suite *make_suite(void) {
  const TTest *const tests[] = {statistic_that_is_not_finite_is_refused,
                                first_statistic_refused,
                                gradient_that_is_not_finite_is_an_error,
                                zero_factors,
                                rank_one_factors,
                                singular_factor_without_damping_is_an_error,
                                exact_solver_takes_over,
                                each_certificate_alone_refuses_a_decomposition,
                                previous_preconditioner_is_kept};
  return service_suite("curvature faults", tests, COUNT(tests));
}

int main(int argc, char **argv) {
  return mpi_test_main(argc, argv, make_suite);
}
