/* The exact method against K-FAC in dense fp64, through the public functions alone.
 *
 * Tolerance: the service works in fp32. Its eigenpairs are those of M + E with |E| about eps |M|, so an inverse power
 * is relatively wrong by at most eps n (lambda_max + damping) / (lambda_min + damping); the data and dampings below
 * keep that quotient under 100 in each factor (and the joint one), n is 6, eps is 6e-8: 4e-5 in the worst direction. */
#include "kfac_reference.h"
#include "mpi_assert.h"
#include "service_fixture.h"

#define COUNT(list) (sizeof list / sizeof list[0])

static const double TOLERANCE = 4e-5;

enum { ROWS = 24, STEPS_MAX = 30 };

static const service_layer with_bias = {"fc", 5, 4, true}, without_bias = {"fc", 5, 4, false};

/* What a run has seen. */
static struct {
  int n;
  dense A[STEPS_MAX], G[STEPS_MAX];
} seen;

/* (rows, d): columns of unequal size, with a mean that is not zero. */
static dense data(uint64_t seed, int64_t rows, int64_t d) {
  dense X = dense_random(seed, rows, d);
  for (int64_t i = 0; i < rows; i++) {
    for (int64_t j = 0; j < d; j++) X.x[i][j] = (float)((X.x[i][j] + 0.25) / (double)(1 + j));
  }
  return X;
}

static dense inputs(int step, const service_layer *layer) {
  return data(100 + (uint64_t)step, ROWS, layer->d_in);
}

static dense output_gradients(int step, const service_layer *layer) {
  return data(200 + (uint64_t)step, ROWS, layer->d_out);
}

static dense gradient(int step, const service_layer *layer) {
  return dense_random(300 + (uint64_t)step, layer->d_out, service_columns(layer));
}

static void see(int step, const service_layer *layer) {
  seen.A[seen.n] = kfac_statistic(inputs(step, layer), layer->has_bias);
  seen.G[seen.n++] = kfac_statistic(output_gradients(step, layer), false);
}

static dense expected(const kfac_case *c, dense V) {
  return kfac_direction(c, seen.n, seen.A, seen.G, V);
}

static void check(const kfac_case *c, dense direction, dense V, int step) {
  double distance = dense_distance(direction, expected(c, V));
  ck_assert_msg(distance < TOLERANCE, "%s damping %g, %s, %s, exponents %g and %g, step %d: %.1e", c->mode, c->damping,
                c->average, c->form, c->exponent_a, c->exponent_g, step, distance);
}

/* steps updates and directions of one layer. */
static void run(const kfac_case *c, const service_layer *layer, service_layout layout, int steps) {
  curvd_ctx *ctx = service_open(MPI_COMM_SELF, kfac_options(c, "loss_reduction=sum"), 1, layer);
  seen.n = 0;
  for (int step = 0; step < steps; step++) {
    dense V = gradient(step, layer), direction = V;
    service_capture(ctx, 0, inputs(step, layer), output_gradients(step, layer));
    see(step, layer);
    ck_assert_int_eq(service_try(ctx, 1, layout, 1, layer, &direction), CURVD_OK);
    check(c, direction, V, step);
  }
  service_close(&ctx);
}

static const char *const averages[] = {"norm", "id", "zero", "first", "mg", "sum"};

START_TEST(separable_damping_with_every_exponent_and_average) {
  static const char *const modes[] = {"relative-mean", "relative-max", "pi"};
  static const double exponents[][2] = {{1, 1},    {0.5, 0.5}, {0.25, 0.25}, {0, 0},
                                        {1, 0.25}, {0, 0.5},   {0.5, 0},     {0.3, 0.8}};
  for (size_t m = 0; m < COUNT(modes); m++) {
    for (size_t i = 0; i < COUNT(averages) * COUNT(exponents); i++) {
      const double *p = exponents[i / COUNT(averages)];
      kfac_case c = {modes[m], averages[i % COUNT(averages)], "eigen", m == 2 ? 0.01 : 0.1, p[0], p[1], 0.8};
      run(&c, &with_bias, SERVICE_JOINED, 3);
    }
  }
}
END_TEST

/* average zero is left out: where its identity goes when the product is damped is nowhere laid down. */
START_TEST(joint_damping_with_every_exponent_and_average) {
  static const char *const modes[] = {"scalar", "product-max"}, *const kinds[] = {"norm", "id", "first", "mg", "sum"};
  static const double exponents[] = {1, 0.5, 0.25, 0};
  for (size_t m = 0; m < COUNT(modes); m++) {
    for (size_t i = 0; i < COUNT(kinds) * COUNT(exponents); i++) {
      double p = exponents[i / COUNT(kinds)];
      kfac_case c = {modes[m], kinds[i % COUNT(kinds)], "eigen", 0.02, p, p, 0.8};
      run(&c, &with_bias, SERVICE_JOINED, 3);
    }
  }
}
END_TEST

START_TEST(cholesky_equals_dense) {
  static const char *const modes[] = {"relative-mean", "pi"};
  for (size_t i = 0; i < COUNT(modes) * COUNT(averages); i++) {
    kfac_case c = {modes[i % 2], averages[i / 2], "cholesky", i % 2 ? 0.01 : 0.1, 1, 1, 0.8};
    run(&c, &with_bias, SERVICE_JOINED, 3);
  }
}
END_TEST

START_TEST(bias_joined_apart_or_absent) {
  static const char *const forms[] = {"eigen", "cholesky"};
  for (int i = 0; i < 8; i++) {
    kfac_case c = {"relative-mean", "norm", forms[i % 2], 0.1, 1, 1, 0.9};
    run(&c, i & 2 ? &with_bias : &without_bias, i & 4 ? SERVICE_APART : SERVICE_JOINED, 2);
  }
}
END_TEST

/* A matrix of one row or one column, and one number. */
START_TEST(smallest_layers) {
  static const service_layer layers[] = {{"row", 5, 1, true}, {"column", 1, 4, false}, {"one", 1, 1, false}};
  for (size_t i = 0; i < COUNT(layers); i++) {
    kfac_case c = {"scalar", "norm", "eigen", 0.02, 1, 1, 0.9};
    run(&c, &layers[i], SERVICE_APART, 2);
  }
}
END_TEST

/* eps_k = min(1 - 1/k, 0.95) is a mean up to k = 20, then a decay. */
START_TEST(martens_grosse_average_after_twenty) {
  kfac_case c = {"relative-mean", "mg", "eigen", 0.1, 1, 1, 0.5};
  run(&c, &with_bias, SERVICE_JOINED, 25);
}
END_TEST

/* "mean" gradients are 1 / rows of an example's own, by the rows of their own call. */
START_TEST(batch_in_pieces) {
  static const int64_t cut[] = {0, 5, 6, 6, ROWS};
  for (int is_mean = 0; is_mean < 2; is_mean++) {
    kfac_case c = {"scalar", "norm", "eigen", 0.02, 1, 1, 0.9};
    const service_layer *layer = &with_bias;
    const char *more = is_mean ? "loss_reduction=mean" : "loss_reduction=sum";
    curvd_ctx *ctx = service_open(MPI_COMM_SELF, kfac_options(&c, more), 1, layer);
    dense a = inputs(0, layer), g = output_gradients(0, layer), V = gradient(0, layer);
    seen.n = 0;
    see(0, layer);
    for (size_t i = 0; i + 1 < COUNT(cut); i++) {
      dense scaled = dense_scaled(is_mean ? 1 / fmax(1, (double)(cut[i + 1] - cut[i])) : 1, g);
      ck_assert_int_eq(service_capture_part(ctx, 0, a, scaled, cut[i], cut[i + 1]), CURVD_OK);
    }
    check(&c, service_step(ctx, layer, V), V, 0);
    service_close(&ctx);
  }
}
END_TEST

START_TEST(inputs_and_output_gradients_in_calls_of_their_own) {
  static float a[ROWS * SERVICE_LD_MAX], g[ROWS * SERVICE_LD_MAX];
  kfac_case c = {"relative-max", "norm", "eigen", 0.1, 1, 0.5, 0.9};
  const service_layer *layer = &with_bias;
  curvd_ctx *ctx = service_open(MPI_COMM_SELF, kfac_options(&c, "loss_reduction=sum"), 1, layer);
  dense V = gradient(0, layer);
  seen.n = 0;
  see(0, layer);
  service_floats(inputs(0, layer), 0, ROWS, a);
  service_floats(output_gradients(0, layer), 0, ROWS, g);
  ck_assert_int_eq(curvd_capture(ctx, 0, ROWS, NULL, 0, g, layer->d_out + SERVICE_PAD), CURVD_OK);
  ck_assert_int_eq(curvd_capture(ctx, 0, ROWS, a, layer->d_in + SERVICE_PAD, NULL, 0), CURVD_OK);
  check(&c, service_step(ctx, layer, V), V, 0);
  service_close(&ctx);
}
END_TEST

/* Statistics in steps 0, 3, 6; refreshes in 0, 2, 4, 6: a direction knows what the last refresh knew. */
START_TEST(intervals_of_statistics_and_refreshes) {
  kfac_case c = {"relative-mean", "norm", "eigen", 0.1, 0.5, 0.5, 0.9};
  char more[] = "loss_reduction=sum factor_update_steps=3 inv_update_steps=2";
  const service_layer *layer = &with_bias;
  curvd_ctx *ctx = service_open(MPI_COMM_SELF, kfac_options(&c, more), 1, layer);
  seen.n = 0;
  for (int step = 0, absorbed = 0; step < 8; step++) {
    dense V = gradient(step, layer);
    ck_assert_int_eq(curvd_wants_capture(ctx), step % 3 == 0);
    service_capture(ctx, 0, inputs(step, layer), output_gradients(step, layer));
    absorbed += step % 3 == 0;
    while (step % 2 == 0 && seen.n < absorbed) see(3 * seen.n, layer);
    check(&c, service_step(ctx, layer, V), V, step);
    ck_assert_int_eq(service_factor(ctx, 0, 0).statistics_step, 3 * (seen.n - 1));
  }
  service_close(&ctx);
}
END_TEST

/* Eigenvalues are damped when they are used: a new damping needs no refresh. */
START_TEST(damping_changes_between_refreshes) {
  kfac_case c = {"scalar", "norm", "eigen", 0.1, 1, 1, 0.9};
  const service_layer *layer = &with_bias;
  char more[] = "loss_reduction=sum damping=0.1,0.03@1,0.2@1e steps_per_epoch=3 inv_update_steps=100";
  curvd_ctx *ctx = service_open(MPI_COMM_SELF, kfac_options(&c, more), 1, layer);
  static const double damping[] = {0.1, 0.03, 0.03, 0.2};
  seen.n = 0;
  see(0, layer);
  service_capture(ctx, 0, inputs(0, layer), output_gradients(0, layer));
  for (int step = 0; step < (int)COUNT(damping); step++) {
    dense V = gradient(step, layer);
    c.damping = damping[step];
    check(&c, service_step(ctx, layer, V), V, step);
    ck_assert_double_eq_tol(service_factor(ctx, 0, 1).damping, damping[step], 1e-15);
  }
  service_close(&ctx);
}
END_TEST

/* Without statistics, on the skip list, or with method none, a gradient comes back as it is. */
START_TEST(layers_that_are_not_preconditioned) {
  static const service_layer layers[] = {{"body.0", 5, 4, true}, {"head", 4, 3, true}, {"body.1", 3, 2, false}};
  static const char *const options[] = {"method=none grad_reduction=mean",
                                        "method=kfac skip=x,head*,b*.0 step=plain momentum=0"};
  for (int i = 0; i < 2; i++) {
    curvd_ctx *ctx = service_open(MPI_COMM_SELF, options[i], 3, layers);
    dense V[3], direction[3];
    for (int l = 0; l < 3; l++) {
      V[l] = direction[l] = gradient(l, &layers[l]);
      if (l < 2) service_capture(ctx, l, inputs(0, &layers[l]), output_gradients(0, &layers[l]));
    }
    ck_assert_int_eq(service_try(ctx, 1, SERVICE_APART, 3, layers, direction), CURVD_OK);
    for (int l = 0; l < 3; l++) {
      curvd_layer_metrics metrics;
      ck_assert_int_eq(curvd_layer_metrics_read(ctx, l, &metrics), CURVD_OK);
      bool is_kfac = i == 1 && l == 2; /* has no statistics yet */
      ck_assert_double_lt(dense_distance(direction[l], V[l]), is_kfac ? 1e-6 : 1e-30);
      ck_assert_str_eq(metrics.method, is_kfac ? "kfac" : "none");
      ck_assert_str_eq(metrics.reason, is_kfac ? "" : i == 0 ? "method none" : "skip list");
    }
    service_close(&ctx);
  }
}
END_TEST

static Suite *make_suite(void) {
  const TTest *const tests[] = {separable_damping_with_every_exponent_and_average,
                                joint_damping_with_every_exponent_and_average,
                                cholesky_equals_dense,
                                bias_joined_apart_or_absent,
                                smallest_layers,
                                martens_grosse_average_after_twenty,
                                batch_in_pieces,
                                inputs_and_output_gradients_in_calls_of_their_own,
                                intervals_of_statistics_and_refreshes,
                                damping_changes_between_refreshes,
                                layers_that_are_not_preconditioned};
  return service_suite("kfac", tests, COUNT(tests));
}

int main(int argc, char **argv) {
  return mpi_test_main(argc, argv, make_suite);
}
