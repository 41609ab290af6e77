/* The randomized methods against dense K-FAC, through the public functions. Factors have spectra that the test lays
 * down: the captured rows are scaled orthonormal vectors. */
#include "kfac_reference.h"
#include "mpi_assert.h"
#include "service_fixture.h"

#include "curvature/internal.h"

#define COUNT(list) (sizeof list / sizeof list[0])

enum { N = 48, M = 40, ROWS = 48, SEEDS = 10 };

static const service_layer fc = {"fc", N, M, false};
static const char *const methods[] = {"rs-kfac", "sre-kfac", "nystrom-kfac"};
static const kfac_case plain = {"relative-mean", "norm", "eigen", 0.1, 1, 1, 0.9};

static double six_modes(int64_t i) {
  return i < 6 ? 1 / (double)(1 + i) : 0;
}

static double power_law(int64_t i) {
  return pow((double)(1 + i), -1.5);
}

static double six_above_a_floor(int64_t i) {
  return i < 6 ? 1 / (double)(1 + i) : 1e-3;
}

static double nearly_one_mode(int64_t i) {
  return i == 0 ? 1 : 1e-5;
}

static double flat(int64_t i) {
  return 1 + 1 / (double)(1 + i);
}

static dense basis(uint64_t seed, int64_t n) {
  return service_basis(seed, n);
}

static dense rows_of(dense Q, service_spectrum lambda) {
  return service_rows_of(ROWS, Q, lambda);
}

static curvd_ctx *open_method(const kfac_case *c, const char *method, const char *more) {
  char text[320];
  snprintf(text, sizeof text, "method=%s loss_reduction=sum full_share=1 power_iters=2 %s", method, more);
  return service_open(MPI_COMM_SELF, kfac_options(c, text), 1, &fc);
}

static dense V_of(uint64_t seed) {
  return dense_random(seed, M, N);
}

static dense one_direction(const kfac_case *c, const char *method, const char *more, dense a, dense g) {
  curvd_ctx *ctx = open_method(c, method, more);
  service_capture(ctx, 0, a, g);
  dense direction = service_step(ctx, &fc, V_of(3));
  service_close(&ctx);
  return direction;
}

static dense exact_direction(const kfac_case *c, dense a, dense g) {
  return kfac_apply(c, 1, kfac_statistic(a, false), kfac_statistic(g, false), V_of(3));
}

/* M with its eigenvalues after the first r replaced by what tail says. */
static dense truncated(dense X, int r, const char *tail) {
  dense_eigen e = dense_eig(X);
  double rest = dense_trace(X);
  for (int i = 0; i < r; i++) rest -= e.w[i];
  double tau = kfac_is(tail, "mean") ? rest / (double)(X.n - r) : kfac_is(tail, "min") ? e.w[r - 1] : 0;
  for (int64_t i = r; i < X.n; i++) e.w[i] = tau;
  return dense_composed(&e);
}

/* The direction of factors of rank r that know their leading eigenpairs exactly; damping is that of the whole factors.
 */
static dense ideal_direction(const kfac_case *c, dense A, dense G, int r, const char *tail) {
  dense left = dense_inverse_power(truncated(G, r, tail), kfac_damping(c, 1, A, G, 1), c->exponent_g);
  dense right = dense_inverse_power(truncated(A, r, tail), kfac_damping(c, 1, A, G, 0), c->exponent_a);
  return dense_product(dense_product(left, V_of(3)), right);
}

/* RK-3. Condition of a damped factor: lambda_max / (0.1 tr / n) + 1, about 200; times eps, 6e-8. */
START_TEST(factor_of_few_modes_is_found_exactly) {
  static const char *const options[] = {"eig_rank=6 oversampling=4 tail=zero", "eig_rank=6 oversampling=0 tail=mean",
                                        "eig_rank=12 oversampling=4 tail=mean"};
  dense a = rows_of(basis(1, N), six_modes), g = rows_of(basis(2, M), six_modes);
  for (size_t i = 0; i < COUNT(methods) * COUNT(options); i++) {
    const char *method = methods[i % COUNT(methods)], *more = options[i / COUNT(methods)];
    double distance = dense_distance(one_direction(&plain, method, more, a, g), exact_direction(&plain, a, g));
    ck_assert_msg(distance < 1.2e-5, "%s %s: %.1e", method, more, distance);
  }
}
END_TEST

/* Over cold sketches of SEEDS seeds. */
static double mean_error(const char *method, int rank, int power_iters, dense a, dense g, dense reference) {
  double sum = 0;
  for (int seed = 1; seed <= SEEDS; seed++) {
    char more[128];
    snprintf(more, sizeof more, "eig_rank=%d oversampling=2 power_iters=%d seed=%d tail=zero", rank, power_iters, seed);
    sum += dense_distance(one_direction(&plain, method, more, a, g), reference);
  }
  return sum / SEEDS;
}

/* RK-4: the distance from K-FAC falls with the rank, that from the best preconditioner of a rank with power iterations.
 */
START_TEST(error_falls_with_rank_and_power_iterations) {
  dense a = rows_of(basis(1, N), power_law), g = rows_of(basis(2, M), power_law);
  dense A = kfac_statistic(a, false), G = kfac_statistic(g, false);
  dense exact = exact_direction(&plain, a, g), ideal = ideal_direction(&plain, A, G, 8, "zero");
  for (size_t i = 0; i < COUNT(methods); i++) {
    double last = INFINITY;
    for (int rank = 4; rank <= 32; rank *= 2) {
      double now = mean_error(methods[i], rank, 2, a, g, exact);
      ck_assert_msg(now < last, "%s, rank %d: %.3e after %.3e", methods[i], rank, now, last);
      last = now;
    }
    last = INFINITY;
    for (int q = 1; q <= 4; q++) {
      double now = mean_error(methods[i], 8, q, a, g, ideal);
      ck_assert_msg(now < last, "%s, power_iters %d: %.3e after %.3e", methods[i], q, now, last);
      last = now;
    }
  }
}
END_TEST

/* RK-8: relative damping knows no unit, and powers of two leave the bits of fp32 alone but for the eigensolver's. */
START_TEST(invariant_to_the_scale_of_a_factor) {
  static const char *const modes[] = {"relative-mean", "relative-max"};
  dense a = rows_of(basis(1, N), power_law), g = rows_of(basis(2, M), power_law);
  for (size_t i = 0; i < COUNT(methods) * COUNT(modes); i++) {
    kfac_case c = plain;
    const char *method = methods[i % COUNT(methods)];
    c.mode = modes[i / COUNT(methods)];
    c.exponent_g = 0.5;
    dense one = one_direction(&c, method, "eig_rank=8", a, g);
    dense other = one_direction(&c, method, "eig_rank=8", dense_scaled(64, a), dense_scaled(1.0 / 16, g));
    ck_assert_double_lt(dense_distance(dense_scaled(64 * 64 / 16.0, other), one), 1e-5);
  }
}
END_TEST

/* eig_rank + oversampling = 30 is 0.75 of G's 40 rows and less of A's 48. */
START_TEST(large_share_of_a_factor_is_decomposed_exactly) {
  dense a = rows_of(basis(1, N), power_law), g = rows_of(basis(2, M), power_law);
  for (size_t i = 0; i < COUNT(methods); i++) {
    curvd_ctx *ctx = open_method(&plain, methods[i], "eig_rank=28 oversampling=2 full_share=0.75");
    service_capture(ctx, 0, a, g);
    service_step(ctx, &fc, V_of(3));
    ck_assert_int_eq(service_factor(ctx, 0, 0).eig_rank, 28);
    ck_assert_int_eq(service_factor(ctx, 0, 1).eig_rank, M);
    ck_assert(service_factor(ctx, 0, 1).missing_trace == 0);
    service_close(&ctx);
    dense direction = one_direction(&plain, methods[i], "eig_rank=64 full_share=0.75", a, g);
    ck_assert_double_lt(dense_distance(direction, exact_direction(&plain, a, g)), 1e-4); /* condition 200, as above */
  }
}
END_TEST

/* One side full, the other not: both orders of the layer's two sides. */
START_TEST(one_side_full_and_one_of_low_rank) {
  for (size_t i = 0; i < 2 * COUNT(methods); i++) {
    service_layer layer = {"fc", i % 2 ? 8 : N, i % 2 ? N : 8, false};
    dense wide = rows_of(basis(1, N), six_modes), narrow = dense_random(2, ROWS, 8),
          V = dense_random(3, layer.d_out, layer.d_in);
    char more[128];
    snprintf(more, sizeof more, "method=%s loss_reduction=sum eig_rank=6 full_share=0.75", methods[i / 2]);
    curvd_ctx *ctx = service_open(MPI_COMM_SELF, kfac_options(&plain, more), 1, &layer);
    dense a = i % 2 ? narrow : wide, g = i % 2 ? wide : narrow;
    service_capture(ctx, 0, a, g);
    dense expected = kfac_apply(&plain, 1, kfac_statistic(a, false), kfac_statistic(g, false), V);
    ck_assert_double_lt(dense_distance(service_step(ctx, &layer, V), expected), 1.2e-5);
    service_close(&ctx);
  }
}
END_TEST

/* Six modes stand 170 times above a flat floor: the sketch finds them, and the floor is what tail says. */
START_TEST(tail_is_mean_zero_or_smallest) {
  static const char *const tails[] = {"mean", "zero", "min"};
  dense a = rows_of(basis(1, N), six_above_a_floor), g = rows_of(basis(2, M), six_above_a_floor);
  dense A = kfac_statistic(a, false), G = kfac_statistic(g, false);
  for (size_t i = 0; i < COUNT(methods) * COUNT(tails); i++) {
    char more[64];
    const char *method = methods[i % COUNT(methods)], *tail = tails[i / COUNT(methods)];
    snprintf(more, sizeof more, "eig_rank=6 power_iters=4 tail=%s", tail);
    dense direction = one_direction(&plain, method, more, a, g);
    double distance = dense_distance(direction, ideal_direction(&plain, A, G, 6, tail));
    ck_assert_msg(distance < 1.2e-5, "%s, tail %s: %.1e", method, tail, distance);
    if (!kfac_is(tail, "mean")) continue; /* the mean of a flat floor is the floor: nothing is missing */
    ck_assert_double_lt(dense_distance(direction, exact_direction(&plain, a, g)), 1.2e-5);
  }
}
END_TEST

/* ---- the adaptive rank ---- */

enum { RANK_MIN = 3, RANK_MAX = 20, RANK_OVER = 2, REFRESHES = 14, GROWN = 6 };
static const double MISSING = 0.2;

/* Share of the trace outside the first r eigenvalues. */
static double rest_of(const dense_eigen *e, int64_t r) {
  double all = 0, rest = 0;
  for (int64_t i = 0; i < e->V.n; i++) {
    all += e->w[i];
    if (i >= r) rest += e->w[i];
  }
  return rest / all;
}

/* Fewest eigenpairs within the limits that leave no more than MISSING. The border is far from any rounding. */
static int64_t fewest_pairs(dense S) {
  dense_eigen e = dense_eig(S);
  int64_t r = RANK_MIN;
  while (r < RANK_MAX && rest_of(&e, r) > MISSING) r++;
  ck_assert(r == RANK_MAX || rest_of(&e, r) < 0.98 * MISSING);
  ck_assert(r == RANK_MIN || rest_of(&e, r - 1) > 1.02 * MISSING);
  return r;
}

/* Never fewer pairs than the best ones that are enough (Ky Fan: no pairs hold more of the trace); too much is missing
 * only where there were no more rows, and never where the solve itself makes more (must_do). In the end, as many as the
 * best, from a sketch that is no wider than they need. */
static void check_rank(const curvd_ctx *ctx, int f, int64_t fewest, const char *method, bool must_do, bool is_last) {
  curvd_factor_metrics now = service_factor(ctx, 0, f);
  bool is_enough = now.missing_trace <= MISSING;
  ck_assert_msg(now.eig_rank >= RANK_MIN && now.eig_rank <= RANK_MAX, "%s: %d pairs", method, (int)now.eig_rank);
  ck_assert_msg(now.eig_rank >= fewest || !is_enough, "%s: %d pairs, the best are %d", method, (int)now.eig_rank,
                (int)fewest);
  ck_assert_msg(is_enough || now.eig_rank == RANK_MAX || !(must_do || is_last), "%s: %g is missing", method,
                now.missing_trace);
  ck_assert_msg(now.eig_rank == fewest || !is_last, "%s: %d pairs in the end, the best are %d", method,
                (int)now.eig_rank, (int)fewest);
  ck_assert_int_le(is_last ? ctx->layer[0].factor[f].own.last.found : 0, fewest + RANK_OVER);
}

/* Half as many rows again in every refresh reach RANK_MAX from 4 in less than GROWN. */
START_TEST(rank_is_the_fewest_that_leave_the_missing_trace) {
  static const service_spectrum spectra[] = {flat, nearly_one_mode, power_law, six_modes, six_above_a_floor, power_law};
  static const char *const finders[] = {"power", "power", "power", "krylov"};
  kfac_case c = plain;
  c.decay = 0; /* nothing is remembered of earlier statistics */
  for (size_t i = 0; i < COUNT(finders); i++) {
    const char *method = methods[i < COUNT(methods) ? i : COUNT(methods) - 1];
    char more[192];
    snprintf(more, sizeof more,
             "eig_rank=4 oversampling=%d missing_trace=%g eig_rank_min=%d eig_rank_max=%d range_finder=%s",
             (int)RANK_OVER, MISSING, (int)RANK_MIN, (int)RANK_MAX, finders[i]);
    curvd_ctx *ctx = open_method(&c, method, more);
    for (size_t j = 0; j < COUNT(spectra); j++) {
      dense a = rows_of(basis(1, N), spectra[j]), g = rows_of(basis(2, M), spectra[j]);
      int64_t fewest[] = {fewest_pairs(kfac_statistic(a, false)), fewest_pairs(kfac_statistic(g, false))};
      for (int n = 1; n <= REFRESHES; n++) {
        service_capture(ctx, 0, a, g);
        service_step(ctx, &fc, V_of(3));
        for (int f = 0; f < 2; f++) check_rank(ctx, f, fewest[f], method, i == 2 || n >= GROWN, n == REFRESHES);
      }
    }
    service_close(&ctx);
  }
}
END_TEST

/* ---- warm starts ---- */

enum { DRIFT_STEPS = 30, WARM_RANK = 8 };

/* The basis turns by 0.05 in planes that mix kept and lost directions. */
static void drift(dense *Q) {
  for (int64_t i = 0; i + 7 < Q->n; i++) dense_rotate(Q, i, i + 7, cos(0.05), sin(0.05), false);
}

/* Mean distance from the best preconditioner of this rank over the last 20 refreshes of a drifting average. */
static double error_under_drift(const char *method, const char *more) {
  static dense S_A[DRIFT_STEPS], S_G[DRIFT_STEPS];
  kfac_case c = plain;
  dense Q_A = basis(1, N), Q_G = basis(2, M);
  double sum = 0;
  c.decay = 0.7;
  curvd_ctx *ctx = open_method(&c, method, more);
  for (int step = 0; step < DRIFT_STEPS; step++) {
    dense a = rows_of(Q_A, power_law), g = rows_of(Q_G, power_law);
    S_A[step] = kfac_statistic(a, false), S_G[step] = kfac_statistic(g, false);
    service_capture(ctx, 0, a, g);
    dense direction = service_step(ctx, &fc, V_of(3));
    drift(&Q_A), drift(&Q_G);
    if (step < DRIFT_STEPS - 20) continue;
    dense A = kfac_average(&c, step + 1, S_A), G = kfac_average(&c, step + 1, S_G);
    sum += dense_distance(direction, ideal_direction(&c, A, G, WARM_RANK, "mean"));
  }
  service_close(&ctx);
  return sum / 20;
}

/* One product with M a refresh (two for rs-kfac and sre-kfac), against as many from a cold start. Over 40 seeds: 0.011
 * at most, and at most a ninth of the cold start's. */
START_TEST(warm_start_stays_accurate_under_drift) {
  static const char *const cold_iters[] = {"0", "1", "0"};
  for (size_t i = 0; i < COUNT(methods); i++) {
    char more[128];
    double warm = error_under_drift(methods[i], "eig_rank=8 oversampling=4 drift_max=0 warm_start=true");
    snprintf(more, sizeof more, "eig_rank=8 oversampling=4 drift_max=0 warm_start=false power_iters=%s", cold_iters[i]);
    double cold = error_under_drift(methods[i], more);
    ck_assert_msg(warm < 0.02 && warm < 0.25 * cold, "%s: %.1e warm, %.1e cold", methods[i], warm, cold);
  }
}
END_TEST

/* The published step, its options written out one by one; sizes are the test's own. */
START_TEST(published_recipe_can_be_spelt_out) {
  static const char sizes[] = "eig_rank=8 oversampling=2 inv_update_steps=1 factor_update_steps=1 loss_reduction=sum";
  static const char spelt_out[] = "momentum=0 average=id exponent_a=1 exponent_g=1 step=rms-clip kl_clip=0.07 "
                                  "damping_mode=relative-max damping=0.1 power_iters=4 warm_start=false "
                                  "orthonormalise=last tail=zero recipe=normalised";
  static const char *const recipe[] = {"recipe=published", spelt_out};
  dense a = rows_of(basis(1, N), power_law), g = rows_of(basis(2, M), power_law);
  for (size_t i = 0; i < 2; i++) { /* rs-kfac and sre-kfac were published */
    dense direction[2][2];
    for (int j = 0; j < 2; j++) {
      char options[512];
      snprintf(options, sizeof options, "method=%s %s %s", methods[i], sizes, recipe[j]);
      curvd_ctx *ctx = service_open(MPI_COMM_SELF, options, 1, &fc);
      for (int step = 0; step < 2; step++) {
        service_capture(ctx, 0, a, dense_scaled(1 + step, g));
        direction[j][step] = service_step(ctx, &fc, V_of(3));
      }
      service_close(&ctx);
    }
    for (int step = 0; step < 2; step++) {
      ck_assert(dense_distance(direction[0][step], direction[1][step]) == 0);
      ck_assert_double_eq_tol(dense_rms(direction[0][step]), 0.07, 1e-7);
    }
  }
}
END_TEST

static Suite *make_suite(void) {
  const TTest *const tests[] = {factor_of_few_modes_is_found_exactly,
                                error_falls_with_rank_and_power_iterations,
                                invariant_to_the_scale_of_a_factor,
                                large_share_of_a_factor_is_decomposed_exactly,
                                one_side_full_and_one_of_low_rank,
                                tail_is_mean_zero_or_smallest,
                                rank_is_the_fewest_that_leave_the_missing_trace,
                                warm_start_stays_accurate_under_drift,
                                published_recipe_can_be_spelt_out};
  return service_suite("randomized", tests, COUNT(tests));
}

int main(int argc, char **argv) {
  return mpi_test_main(argc, argv, make_suite);
}
