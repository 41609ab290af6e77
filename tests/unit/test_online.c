/* Online methods through the public functions, against dense fp64: updates with truncation, renewals and corrections by
 * the whole average, certificates.
 *
 * Tolerance: an update is exact to about 1e-6 of the trace (linalg/brand.h). Truncation turns that into 1e-6 / gap,
 * where gap is the relative distance of the last eigenvalue kept from the first one dropped: above GAP here, checked.
 * Damping by a tenth of the mean eigenvalue makes of it 1e-6 / GAP * n / 0.1 at most, 24 / 0.1 = 240 times: 4.8e-3. */
#include "mpi_assert.h"
#include "online_fixture.h"
#include "service_fixture.h"

#include "curvature/internal.h"

#define COUNT(list) (sizeof list / sizeof list[0])

enum { N = 24, M = 20, ROWS = 12, STEPS = 12, RANK = 6, OVER = 3 };

static const double TOLERANCE = 4.8e-3, GAP = 0.05;
static const service_layer fc = {"fc", N - 1, M, true};
static const kfac_case plain = {"relative-mean", "norm", "eigen", 0.1, 1, 1, 0.8};
static const char *const methods[] = {"b-kfac", "b-r-kfac", "b-r-c-kfac"};
static const char *const averages[] = {"norm", "id", "zero", "first", "mg", "sum"};

static dense S_A[STEPS], S_G[STEPS]; /* exact statistics */

/* Columns fall off as 1 / j^2, and which ones are long changes with time: truncation loses something that counts. */
static dense data(int what, int step, int64_t d) {
  dense X = dense_random((uint64_t)(100 * what + step), ROWS, d);
  for (int64_t i = 0; i < ROWS; i++) {
    for (int64_t j = 0; j < d; j++) X.x[i][j] = (float)(X.x[i][j] / pow((double)(1 + (j + step / 2) % d), 1.5));
  }
  return X;
}

static dense V_of(int step) {
  return dense_random((uint64_t)(900 + step), M, N);
}

static curvd_ctx *open_method(const kfac_case *c, const char *method, const char *more) {
  char text[400];
  snprintf(text, sizeof text,
           "method=%s loss_reduction=sum full_share=1 eig_rank=%d oversampling=%d power_iters=60 warm_power_iters=60 "
           "drift_max=0 %s",
           method, (int)RANK, (int)OVER, more);
  return service_open(MPI_COMM_SELF, kfac_options(c, text), 1, &fc);
}

static dense step_of(curvd_ctx *ctx, int step) {
  dense a = data(1, step, N - 1), g = data(2, step, M);
  S_A[step] = kfac_statistic(a, true), S_G[step] = kfac_statistic(g, false);
  service_capture(ctx, 0, a, g);
  return service_step(ctx, &fc, V_of(step));
}

/* ---- a dense twin ---- */

typedef struct twin {
  const kfac_case *c;
  online A, G;
} twin;

static twin twin_new(const kfac_case *c) {
  return (twin){c, online_new(c, N, RANK + OVER), online_new(c, M, RANK + OVER)};
}

static void twin_update(twin *t, int step) {
  online_update(&t->A, t->c, step + 1, data(1, step, N - 1), true, 1);
  online_update(&t->G, t->c, step + 1, data(2, step, M), false, 1);
}

static dense twin_direction(const twin *t, int step, const char *tail) {
  double leak = kfac_is(t->c->average, "zero") ? pow(t->c->decay, step + 1) : 0;
  return online_direction(t->c, &t->A, &t->G, leak, RANK, tail, V_of(step));
}

static dense pairs_of(const cv_factor *factor, int64_t count) {
  dense P = dense_zero(factor->n, factor->n);
  for (int64_t l = 0; l < count; l++) {
    const float *u = factor->own.basis + l * factor->own.ld;
    for (int64_t i = 0; i < factor->n * factor->n; i++)
      P.x[i / factor->n][i % factor->n] += (double)factor->own.eigenvalues[l] * u[i / factor->n] * u[i % factor->n];
  }
  return P;
}

/* What the owner holds now becomes the twin's. */
static void twin_follow(twin *t, const curvd_ctx *ctx) {
  const cv_factor *f = ctx->layer[0].factor;
  t->A.L = pairs_of(&f[CV_A], f[CV_A].own.online.r);
  t->G.L = pairs_of(&f[CV_G], f[CV_G].own.online.r);
}

static dense exact_average(const twin *t, int step, int which) {
  return kfac_average(t->c, step + 1, which == CV_A ? S_A : S_G);
}

static void check(dense direction, const twin *t, int step, const char *tail, const char *what) {
  double distance = dense_distance(direction, twin_direction(t, step, tail));
  ck_assert_msg(t->A.least_gap > GAP && t->G.least_gap > GAP, "%s: gaps %g and %g", what, t->A.least_gap,
                t->G.least_gap);
  ck_assert_msg(distance < TOLERANCE, "%s, step %d: %.1e", what, step, distance);
}

/* ---- directions ---- */

START_TEST(directions_are_those_of_dense_updates) {
  static const char *const tails[] = {"mean", "zero", "min"};
  double lost = 0;
  for (size_t i = 0; i < COUNT(averages) * COUNT(tails); i++) {
    kfac_case c = plain;
    char more[64];
    c.average = averages[i % COUNT(averages)];
    const char *tail = tails[i / COUNT(averages)];
    snprintf(more, sizeof more, "tail=%s", tail);
    curvd_ctx *ctx = open_method(&c, "b-kfac", more);
    twin t = twin_new(&c);
    for (int step = 0; step < STEPS; step++) {
      dense direction = step_of(ctx, step);
      twin_update(&t, step);
      check(direction, &t, step, tail, c.average);
      dense A = exact_average(&t, step, CV_A);
      lost = fmax(lost, dense_distance(online_cut(A, RANK + OVER, 0), t.A.L));
    }
    ck_assert_str_eq(service_factor(ctx, 0, CV_A).store, "online");
    ck_assert_str_eq(service_factor(ctx, 0, CV_G).carrier, "columns");
    service_close(&ctx);
  }
  ck_assert_msg(lost > 0.02, "truncation lost %g: these data cannot tell updates from solves", lost);
}
END_TEST

/* All statistics in one subspace of RANK dimensions, so nothing is ever dropped: exact K-FAC. */
START_TEST(nothing_is_lost_while_the_rank_holds_all) {
  dense C_A = dense_random(1, RANK, N - 1), C_G = dense_random(2, RANK, M);
  for (size_t i = 0; i < COUNT(methods); i++) {
    curvd_ctx *ctx = open_method(&plain, methods[i], "eig_rank=8");
    for (int step = 0; step < STEPS; step++) {
      dense a = dense_product(dense_random((uint64_t)(20 + step), ROWS, RANK), C_A);
      dense g = dense_product(dense_random((uint64_t)(50 + step), ROWS, RANK), C_G);
      for (int64_t k = 0; k < ROWS * N; k++) a.x[k / N][k % N] = (float)a.x[k / N][k % N];
      for (int64_t k = 0; k < ROWS * M; k++) g.x[k / M][k % M] = (float)g.x[k / M][k % M];
      S_A[step] = kfac_statistic(a, true), S_G[step] = kfac_statistic(g, false);
      service_capture(ctx, 0, a, g);
      double distance =
          dense_distance(service_step(ctx, &fc, V_of(step)), kfac_direction(&plain, step + 1, S_A, S_G, V_of(step)));
      ck_assert_msg(distance < 2.4e-4, "%s, step %d: %.1e", methods[i], step, distance); /* no gap: nothing dropped */
    }
    service_close(&ctx);
  }
}
END_TEST

/* Every third refresh is the decomposition of the whole average; between two of them, updates from there on. */
START_TEST(renewals_decompose_the_whole_average) {
  for (size_t i = 0; i < COUNT(averages); i++) {
    kfac_case c = plain;
    c.average = averages[i];
    curvd_ctx *ctx = open_method(&c, "b-r-kfac", "online_renew=3");
    twin t = twin_new(&c);
    for (int step = 0; step < STEPS; step++) {
      dense direction = step_of(ctx, step);
      twin_update(&t, step);
      if (step % 3 == 2) {
        t.A.L = online_cut(exact_average(&t, step, CV_A), RANK + OVER, 0);
        t.G.L = online_cut(exact_average(&t, step, CV_G), RANK + OVER, 0);
      }
      check(direction, &t, step, "mean", averages[i]);
      ck_assert_int_eq(service_factor(ctx, 0, CV_A).products > 0, step % 3 == 2);
      if (step % 3 == 2) twin_follow(&t, ctx); /* pairs beyond eig_rank are not converged */
    }
    service_close(&ctx);
  }
}
END_TEST

START_TEST(never_renewed_is_never_decomposed) {
  curvd_ctx *b = open_method(&plain, "b-kfac", ""), *b_r = open_method(&plain, "b-r-kfac", "online_renew=0");
  for (int step = 0; step < STEPS; step++) {
    dense one = step_of(b, step), other = step_of(b_r, step);
    ck_assert(memcmp(&one, &other, sizeof one) == 0);
  }
  service_close(&b);
  service_close(&b_r);
}
END_TEST

/* ---- corrections ---- */

/* A correction of all pairs in every second refresh is P M P, P the projector on their span. */
START_TEST(corrections_of_all_pairs_are_rayleigh_ritz) {
  for (size_t i = 0; i < COUNT(averages); i++) {
    kfac_case c = plain;
    c.average = averages[i];
    curvd_ctx *ctx = open_method(&c, "b-r-c-kfac", "online_renew=0 online_correct=2 online_share=1");
    twin t = twin_new(&c);
    for (int step = 0; step < STEPS; step++) {
      dense direction = step_of(ctx, step);
      twin_update(&t, step);
      if (step % 2 == 1) {
        online_correct(&t.A, exact_average(&t, step, CV_A));
        online_correct(&t.G, exact_average(&t, step, CV_G));
      }
      check(direction, &t, step, "mean", averages[i]);
    }
    service_close(&ctx);
  }
}
END_TEST

/* |M - U^T D U|_F after a refresh against that of the same pairs with this step's update alone. Rounding: 1e-6 of the
 * trace, above. */
START_TEST(corrections_never_worsen_the_error) {
  static const char *const shares[] = {"0", "0.2", "0.6", "1"};
  static const double enough[] = {0.9999, 0.999, 0.99, 0.99}; /* of the old error: 1, 3, 6 and 9 rows of 9 */
  for (size_t i = 0; i < COUNT(shares); i++) {
    char more[80];
    double best = 1;
    snprintf(more, sizeof more, "online_renew=0 online_share=%s", shares[i]);
    curvd_ctx *ctx = open_method(&plain, "b-r-c-kfac", more);
    twin t = twin_new(&plain);
    for (int step = 0; step < STEPS; step++) {
      step_of(ctx, step);
      twin_update(&t, step);
      twin after = t;
      twin_follow(&after, ctx);
      for (int f = 0; f < CV_FACTORS; f++) {
        dense M_f = exact_average(&t, step, f);
        const online *before = f == CV_A ? &t.A : &t.G, *now = f == CV_A ? &after.A : &after.G;
        double error = dense_norm(dense_sum(1, M_f, -1, now->L)), old = dense_norm(dense_sum(1, M_f, -1, before->L));
        ck_assert_msg(error <= old + 1e-6 * now->trace, "share %s, step %d: %.4e after %.4e", shares[i], step, error,
                      old);
        best = fmin(best, error / old);
      }
      twin_follow(&t, ctx);
    }
    ck_assert_msg(best < enough[i], "share %s never made the error smaller: %g", shares[i], best);
    service_close(&ctx);
  }
}
END_TEST

/* ---- certificates ---- */

/* error_bound is one of the spectral norm of what {U, D, tau} leaves of the whole average. */
static void check_bound(const curvd_ctx *ctx, const twin *t, int step, int f, const char *what) {
  const cv_factor *factor = &ctx->layer[0].factor[f];
  curvd_factor_metrics now = service_factor(ctx, 0, f);
  dense whole = exact_average(t, step, f), estimate = pairs_of(factor, now.eig_rank), I = dense_identity(factor->n);
  for (int64_t l = 0; l < now.eig_rank; l++) {
    const float *u = factor->own.basis + l * factor->own.ld;
    for (int64_t i = 0; i < factor->n * factor->n; i++)
      I.x[i / factor->n][i % factor->n] -= (double)u[i / factor->n] * u[i % factor->n];
  }
  dense_eigen e = dense_eig(dense_sum(1, dense_sum(1, whole, -1, estimate), -now.tau, I));
  double norm = fmax(e.w[0], -e.w[factor->n - 1]);
  ck_assert_msg(norm <= now.error_bound + 1e-6 * now.trace, "%s, factor %d, step %d: %.4e, bound %.4e", what, f, step,
                norm, now.error_bound);
  ck_assert_double_eq_tol(now.trace, dense_trace(whole), 1e-5 * now.trace);
}

START_TEST(error_bounds_hold) {
  static const char *const more[] = {"tail=mean", "tail=zero", "tail=min", "tail=mean skip_error=0.5",
                                     "tail=mean online_correct=2 online_renew=4 eig_rank=9 oversampling=0"};
  for (size_t i = 0; i < COUNT(averages) * COUNT(methods) * COUNT(more); i++) {
    kfac_case c = plain;
    char what[160];
    c.average = averages[i % 6];
    const char *method = methods[i / 6 % 3], *options = more[i / 18];
    snprintf(what, sizeof what, "%s, average %s, %s", method, c.average, options);
    curvd_ctx *ctx = open_method(&c, method, options);
    twin t = twin_new(&c);
    for (int step = 0; step < STEPS; step++) {
      step_of(ctx, step);
      if (service_factor(ctx, 0, CV_A).statistics_step != step) continue; /* skipped: of an older average */
      for (int f = 0; f < CV_FACTORS; f++) {
        if (service_factor(ctx, 0, f).statistics_step == step) check_bound(ctx, &t, step, f, what);
      }
    }
    service_close(&ctx);
  }
}
END_TEST

/* A renewal that is skipped, as the pairs still fit, brings the workers what updates have made of them meanwhile. */
START_TEST(skipped_renewals_publish_the_updated_pairs) {
  curvd_ctx *ctx = open_method(&plain, "b-r-kfac", "online_renew=1 skip_error=1");
  twin t = twin_new(&plain);
  for (int step = 0; step < STEPS; step++) {
    int64_t before = service_metrics(ctx).events[CURVD_EVENT_SKIPPED];
    dense direction = step_of(ctx, step);
    twin_update(&t, step);
    ck_assert_int_eq(service_factor(ctx, 0, CV_A).statistics_step, step);
    ck_assert_int_eq(service_factor(ctx, 0, CV_G).statistics_step, step);
    if (service_metrics(ctx).events[CURVD_EVENT_SKIPPED] == before + 2) check(direction, &t, step, "mean", "skipped");
    twin_follow(&t, ctx);
  }
  ck_assert_int_gt(service_metrics(ctx).events[CURVD_EVENT_SKIPPED], STEPS);
  service_close(&ctx);
}
END_TEST

/* ---- bad rows and small layers ---- */

START_TEST(rows_that_are_not_finite_are_refused) {
  for (size_t i = 0; i < 2 * COUNT(methods); i++) {
    bool is_g = i % 2;
    curvd_ctx *ctx = open_method(&plain, methods[i / 2], "online_renew=0 online_correct=0");
    dense a = data(1, 1, N - 1), g = data(2, 1, M);
    twin t = twin_new(&plain);
    step_of(ctx, 0);
    twin_update(&t, 0);
    (is_g ? &g : &a)->x[5][3] = NAN;
    service_capture(ctx, 0, a, g);
    dense direction = service_step(ctx, &fc, V_of(1));
    online *good = is_g ? &t.A : &t.G;
    online_update(good, &plain, 2, is_g ? data(1, 1, N - 1) : g, is_g, 1);
    check(direction, &t, 1, "mean", methods[i / 2]);
    ck_assert_int_eq(service_factor(ctx, 0, is_g).refused, 1);
    ck_assert_int_eq(service_factor(ctx, 0, is_g).statistics_step, 0);
    ck_assert_int_eq(service_factor(ctx, 0, !is_g).statistics_step, 1);
    service_close(&ctx);
  }
}
END_TEST

/* eig_rank + oversampling reach the whole factor: decomposed exactly, from triangles. Condition 200, as of kfac. */
START_TEST(small_layers_are_exact) {
  for (size_t i = 0; i < COUNT(methods); i++) {
    curvd_ctx *ctx = open_method(&plain, methods[i], "eig_rank=17"); /* 20 rows: all of G, not of A */
    ck_assert_str_eq(service_factor(ctx, 0, CV_G).store, "full");
    ck_assert_str_eq(service_factor(ctx, 0, CV_G).carrier, "triangle");
    ck_assert_str_eq(service_factor(ctx, 0, CV_A).store, "online");
    service_close(&ctx);
    ctx = open_method(&plain, methods[i], "eig_rank=64");
    for (int step = 0; step < 4; step++) {
      dense direction = step_of(ctx, step), expected = kfac_direction(&plain, step + 1, S_A, S_G, V_of(step));
      ck_assert_double_lt(dense_distance(direction, expected), 5e-5);
    }
    service_close(&ctx);
  }
}
END_TEST

START_TEST(carriers_without_rows_are_refused) {
  static const char *const some[] = {"carrier=triangle", "carrier=sketch", "store=full", "store=stream"};
  for (size_t i = 0; i < COUNT(some) * COUNT(methods); i++) {
    char text[128];
    snprintf(text, sizeof text, "method=%s %s", methods[i / COUNT(some)], some[i % COUNT(some)]);
    curvd_ctx *ctx = service_make(MPI_COMM_SELF, text, 1, &fc);
    ck_assert_int_eq(curvd_plan(ctx), CURVD_ERR_OPTION);
    ck_assert_ptr_nonnull(strstr(curvd_last_error(ctx), "online methods"));
    curvd_destroy(&ctx);
  }
}
END_TEST

static Suite *make_suite(void) {
  const TTest *const tests[] = {directions_are_those_of_dense_updates,
                                nothing_is_lost_while_the_rank_holds_all,
                                renewals_decompose_the_whole_average,
                                never_renewed_is_never_decomposed,
                                corrections_of_all_pairs_are_rayleigh_ritz,
                                corrections_never_worsen_the_error,
                                error_bounds_hold,
                                skipped_renewals_publish_the_updated_pairs,
                                rows_that_are_not_finite_are_refused,
                                small_layers_are_exact,
                                carriers_without_rows_are_refused};
  return service_suite("online", tests, COUNT(tests));
}

int main(int argc, char **argv) {
  return mpi_test_main(argc, argv, make_suite);
}
