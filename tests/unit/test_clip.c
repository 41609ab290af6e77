/* The length of the step and the momentum, on two layers: against scales computed in fp64 from the unscaled directions,
 * which a twin context with step plain returns. */
#include "kfac_reference.h"
#include "mpi_assert.h"
#include "service_fixture.h"

#define COUNT(list) (sizeof list / sizeof list[0])

enum { LAYERS = 2, ROWS = 24 };

static const service_layer layers[LAYERS] = {{"fc0", 6, 5, true}, {"fc1", 5, 3, false}};
static const char base[] = "method=kfac momentum=0 damping_mode=relative-mean damping=0.1 exponent_a=0.5 exponent_g=1 "
                           "factor_update_steps=1 inv_update_steps=1 loss_reduction=sum ";

static curvd_ctx *open_with(const char *more) {
  char options[512];
  snprintf(options, sizeof options, "%s%s", base, more);
  return service_open(MPI_COMM_SELF, options, LAYERS, layers);
}

static dense gradient(int step, int l) {
  return dense_random(40 + (uint64_t)(10 * step + l), layers[l].d_out, service_columns(&layers[l]));
}

/* Directions of one step at learning rate lr. */
static void one_step(curvd_ctx *ctx, int step, double lr, service_layout layout, dense *direction) {
  for (int l = 0; l < LAYERS; l++) {
    uint64_t seed = 100 + (uint64_t)(10 * step + l);
    service_capture(ctx, l, dense_random(seed, ROWS, layers[l].d_in), dense_random(seed + 500, ROWS, layers[l].d_out));
    direction[l] = gradient(step, l);
  }
  ck_assert_int_eq(service_try(ctx, lr, layout, LAYERS, layers, direction), CURVD_OK);
}

static void both(const char *options, double lr, dense *clipped, dense *plain, curvd_metrics *metrics) {
  curvd_ctx *ctx = open_with(options), *twin = open_with("step=plain");
  one_step(ctx, 0, lr, SERVICE_APART, clipped);
  one_step(twin, 0, lr, SERVICE_JOINED, plain);
  *metrics = service_metrics(ctx);
  ck_assert_int_eq(service_metrics(twin).events[CURVD_EVENT_CLIPPED], 0);
  ck_assert(service_metrics(twin).clip_scale == 1);
  service_close(&ctx);
  service_close(&twin);
}

static double product_with_gradients(const dense *direction, double lr) {
  double sum = 0;
  for (int l = 0; l < LAYERS; l++) sum += lr * lr * dense_dot(direction[l], gradient(0, l));
  return sum;
}

static void check_scaled(const dense *clipped, double scale, const dense *plain, int l) {
  ck_assert_double_lt(dense_distance(clipped[l], dense_scaled(scale, plain[l])), 2e-6); /* fp32 rounding of products */
}

/* CL-1: one scale for all layers, and lr^2 <nu dir, grad> nu = bound when it clips. */
START_TEST(kl_clip_and_norm_constraint) {
  static const char *const kinds[] = {"kl-clip", "norm-constraint"};
  static const double lrs[] = {0, 1e-4, 0.03, 1};
  for (size_t i = 0; i < COUNT(kinds) * COUNT(lrs); i++) {
    char options[80];
    double lr = lrs[i / 2], bound = 0.01;
    dense clipped[LAYERS], plain[LAYERS];
    curvd_metrics metrics;
    snprintf(options, sizeof options, "step=%s kl_clip=%g", kinds[i % 2], bound);
    both(options, lr, clipped, plain, &metrics);
    double sum = product_with_gradients(plain, lr), scale = sum > bound ? sqrt(bound / sum) : 1;
    for (int l = 0; l < LAYERS; l++) check_scaled(clipped, scale, plain, l);
    ck_assert_double_le(product_with_gradients(clipped, lr) * scale, bound * (1 + 1e-5));
    ck_assert_double_eq_tol(metrics.clip_scale, scale, 1e-5 * scale);
    ck_assert_int_eq(metrics.events[CURVD_EVENT_CLIPPED], scale < 1);
    ck_assert_int_eq(scale < 1, lr >= 0.03); /* both sides of the bound are seen */
  }
}
END_TEST

START_TEST(rms_clip_is_per_layer) {
  static const double bounds[] = {1e-3, 2.6, 1e3};
  int n_clipped = 0;
  for (size_t i = 0; i < COUNT(bounds); i++) {
    char options[80];
    dense clipped[LAYERS], plain[LAYERS];
    curvd_metrics metrics;
    double least = 1;
    snprintf(options, sizeof options, "step=rms-clip kl_clip=%g", bounds[i]);
    both(options, 0.1, clipped, plain, &metrics);
    for (int l = 0; l < LAYERS; l++) {
      double scale = fmin(1, bounds[i] / dense_rms(plain[l]));
      least = fmin(least, scale);
      n_clipped += scale < 1;
      check_scaled(clipped, scale, plain, l);
      ck_assert_double_le(dense_rms(clipped[l]), bounds[i] * (1 + 1e-6));
    }
    ck_assert_double_eq_tol(metrics.clip_scale, least, 1e-5 * least);
    ck_assert_int_eq(metrics.events[CURVD_EVENT_CLIPPED], least < 1);
  }
  ck_assert_int_eq(n_clipped, 3); /* both layers, one of them, none */
}
END_TEST

/* Without statistics a direction is the gradient, so it can be fed again. */
START_TEST(rms_clip_is_idempotent) {
  curvd_ctx *ctx = open_with("step=rms-clip kl_clip=0.07");
  dense once[LAYERS], twice[LAYERS];
  for (int l = 0; l < LAYERS; l++) once[l] = gradient(0, l);
  ck_assert_int_eq(service_try(ctx, 1, SERVICE_JOINED, LAYERS, layers, once), CURVD_OK);
  for (int l = 0; l < LAYERS; l++) {
    twice[l] = once[l];
    ck_assert_double_eq_tol(dense_rms(once[l]), 0.07, 1e-7);
  }
  ck_assert_int_eq(service_try(ctx, 1, SERVICE_JOINED, LAYERS, layers, twice), CURVD_OK);
  for (int l = 0; l < LAYERS; l++) ck_assert_double_lt(dense_distance(twice[l], once[l]), 1e-6);
  service_close(&ctx);
}
END_TEST

START_TEST(normalised_step_has_rms_one) {
  static const double lrs[] = {0, 1e-3, 10};
  for (size_t i = 0; i < COUNT(lrs); i++) {
    dense normal[LAYERS], plain[LAYERS];
    curvd_metrics metrics;
    both("step=normalised", lrs[i], normal, plain, &metrics);
    for (int l = 0; l < LAYERS; l++) {
      ck_assert_double_eq_tol(dense_rms(normal[l]), 1, 1e-6);
      check_scaled(normal, 1 / dense_rms(plain[l]), plain, l);
    }
    ck_assert_int_eq(metrics.events[CURVD_EVENT_CLIPPED], 0);
  }
}
END_TEST

START_TEST(zero_gradient_has_zero_direction) {
  static const char *const steps[] = {"normalised", "kl-clip", "norm-constraint", "rms-clip", "plain"};
  for (size_t i = 0; i < COUNT(steps); i++) {
    char options[32];
    dense direction[LAYERS];
    snprintf(options, sizeof options, "step=%s", steps[i]);
    curvd_ctx *ctx = open_with(options);
    one_step(ctx, 0, 1, SERVICE_JOINED, direction);
    for (int l = 0; l < LAYERS; l++) direction[l] = dense_scaled(0, direction[l]);
    ck_assert_int_eq(service_try(ctx, 1, SERVICE_JOINED, LAYERS, layers, direction), CURVD_OK);
    for (int l = 0; l < LAYERS; l++) ck_assert(dense_norm(direction[l]) == 0);
    service_close(&ctx);
  }
}
END_TEST

START_TEST(direction_rms_is_told) {
  static const char *const steps[] = {"normalised", "kl-clip", "rms-clip", "plain"};
  for (size_t i = 0; i < COUNT(steps); i++) {
    char options[32];
    dense direction[LAYERS];
    snprintf(options, sizeof options, "step=%s", steps[i]);
    curvd_ctx *ctx = open_with(options);
    one_step(ctx, 0, 1, SERVICE_JOINED, direction);
    for (int l = 0; l < LAYERS; l++) {
      curvd_layer_metrics metrics;
      ck_assert_int_eq(curvd_layer_metrics_read(ctx, l, &metrics), CURVD_OK);
      ck_assert_double_eq_tol(metrics.direction_rms, dense_rms(direction[l]), 1e-5 * dense_rms(direction[l]));
    }
    service_close(&ctx);
  }
}
END_TEST

/* M <- 0.9 M + 0.1 V, then the newest preconditioner on M: not an average of directions. */
START_TEST(momentum_comes_before_preconditioning) {
  enum { STEPS = 4 };
  kfac_case c = {"relative-mean", "norm", "eigen", 0.1, 0.5, 1, 0.8};
  dense M[LAYERS], S_A[LAYERS][STEPS], S_G[LAYERS][STEPS], direction[LAYERS];
  curvd_ctx *ctx = open_with("step=plain momentum=0.9 factor_decay=0.8");
  for (int l = 0; l < LAYERS; l++) M[l] = dense_scaled(0, gradient(0, l));
  for (int step = 0; step < STEPS; step++) {
    one_step(ctx, step, 1, SERVICE_APART, direction);
    for (int l = 0; l < LAYERS; l++) {
      uint64_t seed = 100 + (uint64_t)(10 * step + l);
      S_A[l][step] = kfac_statistic(dense_random(seed, ROWS, layers[l].d_in), layers[l].has_bias);
      S_G[l][step] = kfac_statistic(dense_random(seed + 500, ROWS, layers[l].d_out), false);
      M[l] = dense_sum(0.9, M[l], 0.1, gradient(step, l));
      dense expected = kfac_direction(&c, step + 1, S_A[l], S_G[l], M[l]);
      ck_assert_double_lt(dense_distance(direction[l], expected), 2e-5); /* eps x condition 20 x 10 */
    }
  }
  service_close(&ctx);
}
END_TEST

static Suite *make_suite(void) {
  const TTest *const tests[] = {kl_clip_and_norm_constraint,
                                rms_clip_is_per_layer,
                                rms_clip_is_idempotent,
                                normalised_step_has_rms_one,
                                zero_gradient_has_zero_direction,
                                direction_rms_is_told,
                                momentum_comes_before_preconditioning};
  return service_suite("clip", tests, COUNT(tests));
}

int main(int argc, char **argv) {
  return mpi_test_main(argc, argv, make_suite);
}
