/* LAPACK fails, or returns garbage with code 0, inside the solvers: every step must come out right, or with the
 * previous preconditioner, told by events and log; never silently wrong. */
#include "lapack_faults.h"

#include "kfac_reference.h"
#include "mpi_assert.h"
#include "service_fixture.h"

#include "curvature/internal.h"

#define COUNT(list) (sizeof list / sizeof list[0])

enum { ROWS = 48, N = 40, M = 36, MODES = 6 };

static const service_layer fc = {"body.fc", N, M, false};
static const kfac_case plain = {"relative-mean", "norm", "eigen", 0.1, 1, 1, 0.9};
static const char *const methods[] = {"method=kfac", "method=rs-kfac", "method=sre-kfac", "method=nystrom-kfac",
                                      "method=nystrom-kfac range_finder=krylov warm_start=false"};

/* That of unit/test_curvature_faults.c for the same factors. */
static const double TOLERANCE = 5e-5;

static char lines[32][480];
static int n_lines;

static void keep_line(void *user, int level, const char *line) {
  (void)user, (void)level;
  ck_assert_int_lt(n_lines, COUNT(lines));
  snprintf(lines[n_lines++], sizeof lines[0], "%s", line);
}

static curvd_ctx *open_method(const char *method) {
  char text[512];
  snprintf(text, sizeof text, "loss_reduction=sum eig_rank=6 full_share=1 tail=zero %s", method);
  curvd_ctx *ctx = service_open(MPI_COMM_SELF, kfac_options(&plain, text), 1, &fc);
  curvd_log_to(ctx, keep_line, NULL, 1);
  n_lines = 0;
  return ctx;
}

/* Few modes, so that every method finds them all. */
static dense few_modes(uint64_t seed, int64_t n) {
  dense X = dense_product(dense_random(seed, ROWS, MODES), dense_random(seed + 1, MODES, n));
  for (int64_t i = 0; i < X.m; i++) {
    for (int64_t j = 0; j < X.n; j++) X.x[i][j] = (float)X.x[i][j];
  }
  return X;
}

static dense inputs, output_gradients, V, right[2][2]; /* [A left out][G left out] */

/* Expected directions, with sides that were never refreshed left out. */
static void make_references(void) {
  inputs = few_modes(1, N), output_gradients = few_modes(11, M), V = dense_random(3, M, N);
  dense A = kfac_statistic(inputs, false), G = kfac_statistic(output_gradients, false);
  dense left = dense_inverse_power(G, kfac_damping(&plain, 1, A, G, 1), 1),
        other = dense_inverse_power(A, kfac_damping(&plain, 1, A, G, 0), 1);
  right[1][1] = V;
  right[1][0] = dense_product(left, V);
  right[0][1] = dense_product(V, other);
  right[0][0] = dense_product(left, right[0][1]);
}

static dense step_of(curvd_ctx *ctx) {
  service_capture(ctx, 0, inputs, output_gradients);
  return service_step(ctx, &fc, V);
}

/* How far the direction of a step is from K-FAC's, without the sides that were never refreshed. */
static double error_of_step(curvd_ctx *ctx) {
  dense direction = step_of(ctx);
  int is_out_a = service_factor(ctx, 0, CV_A).eig_rank == 0, is_out_g = service_factor(ctx, 0, CV_G).eig_rank == 0;
  double error = dense_distance(direction, right[is_out_a][is_out_g]);
  return isfinite(error) ? error : INFINITY;
}

typedef struct injection {
  fault *routine;
  fault_kind kind;
  int64_t first, last; /* calls */
  int step;            /* in which it happens: 0 cold, 1 warm */
} injection;

static const char *routine_of(const injection *what) {
  return what->routine == &fault_ssyevd ? "ssyevd" : what->routine == &fault_dsyevd ? "dsyevd" : "dpotrf";
}

/* Every rung that failed has a line of its own, and led to the next one or to none. */
static void check_told(const curvd_ctx *ctx, int step) {
  curvd_metrics m = service_metrics(ctx);
  char when[32];
  snprintf(when, sizeof when, "step %d,", step);
  int64_t kept = m.events[CURVD_EVENT_KEPT_PREVIOUS];
  ck_assert_int_eq(m.events[CURVD_EVENT_REFRESHES] + kept, 2 * (step + 1));
  ck_assert_int_eq(n_lines, m.events[CURVD_EVENT_EXACT_FALLBACK] + m.events[CURVD_EVENT_RETRIED] + kept);
  for (int i = 0; i < n_lines; i++) {
    bool is_named = strstr(lines[i], "body.fc") && (strstr(lines[i], ", A,") || strstr(lines[i], ", G,"));
    ck_assert_msg(is_named && strstr(lines[i], when) && strstr(lines[i], "solver "), "%s", lines[i]);
  }
}

static void check_injection(const char *method, const injection *what) {
  curvd_ctx *ctx = open_method(method);
  if (what->step == 1) ck_assert_double_lt(error_of_step(ctx), TOLERANCE);
  fault_arm(what->routine, what->kind, what->first, what->last);
  double error = error_of_step(ctx);
  int64_t spoilt = what->routine->spoilt;
  fault_disarm();
  ck_assert_msg(error < TOLERANCE, "%s, %s %s in calls %d .. %d, step %d: error %.1e, %d lines", method,
                routine_of(what), fault_name[what->kind], (int)what->first, (int)what->last, what->step, error,
                n_lines);
  check_told(ctx, what->step);
  if (what->kind == FAULT_INFO && spoilt > 0 && what->routine != &fault_dpotrf)
    ck_assert_msg(n_lines > 0 && strstr(lines[0], "info 3"), "%s", lines[0]);
  ck_assert_double_lt(error_of_step(ctx), TOLERANCE); /* no start from what was spoilt */
  service_close(&ctx);
}

/* call -1: all of them. */
static void check_routine(fault *routine, int calls) {
  for (size_t i = 0; i < COUNT(methods); i++) {
    for (int j = 0; j < FAULT_KINDS * 2 * (calls + 1); j++) {
      int call = j / FAULT_KINDS / 2 - 1;
      injection what = {routine, (fault_kind)(j % FAULT_KINDS), call < 0 ? 0 : call, call < 0 ? 1000 : call,
                        j / FAULT_KINDS % 2};
      check_injection(methods[i], &what);
    }
  }
}

START_TEST(spoilt_ssyevd) {
  make_references();
  check_routine(&fault_ssyevd, 2);
}
END_TEST

START_TEST(spoilt_dsyevd) {
  make_references();
  check_routine(&fault_dsyevd, 2);
}
END_TEST

/* Of the sketch's rows, pass after pass, and of Nystrom's small matrix. */
START_TEST(spoilt_dpotrf) {
  make_references();
  check_routine(&fault_dpotrf, 8);
}
END_TEST

/* All solvers fail: nothing, then the previous preconditioner, bit by bit. */
START_TEST(previous_preconditioner_is_kept) {
  make_references();
  for (size_t i = 0; i < COUNT(methods) * FAULT_KINDS * 2; i++) {
    fault_kind kind = (fault_kind)(i / 2 % FAULT_KINDS);
    curvd_ctx *ctx = open_method(methods[i / 2 / FAULT_KINDS]);
    dense before = V;
    if (i % 2) before = step_of(ctx);
    fault_arm(&fault_ssyevd, kind, 0, 1000);
    fault_arm(&fault_dsyevd, kind, 0, 1000);
    dense kept = step_of(ctx);
    fault_disarm();
    ck_assert_msg(dense_distance(kept, before) < (i % 2 ? 1e-30 : 1e-6), "%s %s", methods[i / 2 / FAULT_KINDS],
                  fault_name[kind]);
    ck_assert_int_eq(service_metrics(ctx).events[CURVD_EVENT_KEPT_PREVIOUS], 2);
    check_told(ctx, i % 2);
    ck_assert_double_lt(error_of_step(ctx), TOLERANCE);
    service_close(&ctx);
  }
}
END_TEST

/* Right pairs, the smallest first: all of them, or the wrong share of them. With all modes present only the order
 * tells. */
START_TEST(pairs_in_the_wrong_order) {
  static const char *const some[] = {"method=kfac", "method=rs-kfac tail=mean", "method=nystrom-kfac tail=mean"};
  for (size_t i = 0; i < COUNT(some); i++) {
    curvd_ctx *ctx = open_method(some[i]);
    dense a = dense_random(5, ROWS, N), g = dense_random(6, ROWS, M), A = kfac_statistic(a, false);
    fault_arm(&fault_dsyevd, FAULT_INFO, 0, i > 0 ? 0 : -1); /* the sketch of A fails */
    fault_arm(&fault_ssyevd, FAULT_REVERSED, 0, 1000);
    service_capture(ctx, 0, a, g);
    service_step(ctx, &fc, dense_random(3, M, N));
    ck_assert_int_eq(fault_ssyevd.spoilt, i > 0 ? 1 : 2);
    fault_disarm();
    ck_assert_double_lt(fabs(service_factor(ctx, 0, CV_A).lambda_max / dense_eig(A).w[0] - 1), 1e-4);
    ck_assert_int_eq(service_metrics(ctx).events[CURVD_EVENT_RETRIED], i > 0 ? 1 : 2);
    service_close(&ctx);
  }
}
END_TEST

static Suite *make_suite(void) {
  const TTest *const tests[] = {spoilt_ssyevd, spoilt_dsyevd, spoilt_dpotrf, previous_preconditioner_is_kept,
                                pairs_in_the_wrong_order};
  return service_suite("solver faults", tests, COUNT(tests));
}

int main(int argc, char **argv) {
  return mpi_test_main(argc, argv, make_suite);
}
