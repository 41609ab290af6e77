/* Parameters handed to the step: W <- (1 - shrink) W - lr * direction, the direction being that of a twin context which
 * is handed none. Splits over several workers are in mpi/test_update.c. */
#include "kfac_reference.h"
#include "mpi_assert.h"
#include "update_fixture.h"

#define COUNT(list) (sizeof list / sizeof list[0])

enum { LAYERS = 4, ROWS = 48, STEPS = 3 };

/* With 6 + 2 columns of sketch: both sides low, G full, A full, not preconditioned at all. */
static const service_layer layers[LAYERS] = {
    {"low", 40, 30, true}, {"full_g", 40, 5, true}, {"full_a", 5, 40, false}, {"skipped", 12, 10, true}};

static const char base[] = "skip=skipped factor_update_steps=1 inv_update_steps=2 loss_reduction=sum eig_rank=6 "
                           "oversampling=2 kl_clip=0.001 ";

static const char *const methods[] = {
    "method=none", "method=kfac", "method=kfac form=cholesky exponent_a=1 exponent_g=1 damping_mode=pi damping=0.01",
    "method=nystrom-kfac", "method=sre-kfac damping_mode=scalar tail=min"};
static const char *const lengths[] = {"step=normalised", "step=kl-clip", "step=norm-constraint", "step=rms-clip",
                                      "step=plain"};
static const char *const momenta[] = {"momentum=0", "momentum=0.9", "momentum=0.9 momentum_place=caller"};

typedef struct update_case {
  const char *method, *length, *momentum;
  service_layout layout;
  float shrink;
} update_case;

static curvd_ctx *open_case(const update_case *c) {
  char options[512];
  snprintf(options, sizeof options, "%s%s %s %s", base, c->method, c->length, c->momentum);
  return service_open(MPI_COMM_SELF, options, LAYERS, layers);
}

static dense gradient(int step, int l) {
  return dense_random(40 + (uint64_t)(10 * step + l), layers[l].d_out, service_columns(&layers[l]));
}

static void capture(curvd_ctx *ctx, int step) {
  for (int l = 0; l < LAYERS; l++) {
    uint64_t seed = 1000 + (uint64_t)(10 * step + l);
    service_capture(ctx, l, dense_random(seed, ROWS, layers[l].d_in), dense_random(seed + 500, ROWS, layers[l].d_out));
  }
}

static void start_weights(dense *W) {
  for (int l = 0; l < LAYERS; l++) W[l] = dense_random(7 + (uint64_t)l, layers[l].d_out, service_columns(&layers[l]));
}

/* A context with parameters and its twin; the caller's average goes from step to step. */
static void check_case(const update_case *c) {
  curvd_ctx *ctx = open_case(c), *twin = open_case(c);
  const double lr = 0.3;
  bool is_caller = strstr(c->momentum, "caller") != NULL;
  dense W[LAYERS], old[LAYERS], V[LAYERS], M[LAYERS], direction[LAYERS];
  start_weights(W);
  for (int l = 0; l < LAYERS; l++) M[l] = dense_scaled(0, W[l]);
  for (int step = 0; step < STEPS; step++) {
    capture(ctx, step);
    capture(twin, step);
    for (int l = 0; l < LAYERS; l++) {
      update_average(0.9, gradient(step, l), &M[l]);
      direction[l] = V[l] = is_caller ? M[l] : gradient(step, l);
      old[l] = W[l];
    }
    ck_assert_int_eq(update_try(ctx, lr, c->layout, LAYERS, layers, V, c->shrink, W).status, CURVD_OK);
    ck_assert_int_eq(service_try(twin, lr, c->layout, LAYERS, layers, direction), CURVD_OK);
    for (int l = 0; l < LAYERS; l++) {
      double excess = update_excess(W[l], old[l], c->shrink, lr, direction[l]);
      ck_assert_msg(excess <= 1, "%s, %s, %s, layout %d, shrink %g, step %d, layer %s: %.1f times rounding", c->method,
                    c->length, c->momentum, c->layout, c->shrink, step, layers[l].name, excess);
    }
  }
  service_close(&ctx);
  service_close(&twin);
}

START_TEST(step_subtracts_its_direction) {
  static const float shrinks[] = {0, 0.01F, 1};
  for (size_t i = 0; i < COUNT(methods) * COUNT(lengths) * COUNT(momenta); i++) {
    update_case c = {methods[i % 5], lengths[i / 5 % 5], momenta[i / 25], SERVICE_JOINED, shrinks[i % 3]};
    check_case(&c);
    c.layout = SERVICE_APART;
    c.shrink = shrinks[(i + 1) % 3];
    check_case(&c);
  }
}
END_TEST

static void check_left_alone(const update_case *c) {
  curvd_ctx *ctx = open_case(c);
  dense W[LAYERS], V[LAYERS];
  start_weights(W);
  for (int step = 0; step < STEPS; step++) {
    capture(ctx, step);
    for (int l = 0; l < LAYERS; l++) V[l] = gradient(step, l);
    update_result result = update_try(ctx, 0.3, c->layout, LAYERS, layers, V, 0.01F, W);
    ck_assert_int_eq(result.status, CURVD_OK);
    ck_assert_msg(result.is_left_alone, "%s, %s, layout %d, step %d: the gradients were written", c->method,
                  c->momentum, c->layout, step);
  }
  service_close(&ctx);
}

static void check_all_left_alone(service_layout layout) {
  static const char *const some[] = {"momentum=0", "momentum=0.9 momentum_place=caller"};
  for (size_t i = 0; i < COUNT(methods) * COUNT(some); i++) {
    update_case c = {methods[i / 2], "step=normalised", some[i % 2], layout, 0};
    check_left_alone(&c);
  }
}

START_TEST(joined_gradients_are_left_alone) {
  check_all_left_alone(SERVICE_JOINED);
}
END_TEST

START_TEST(apart_gradients_are_left_alone) {
  check_all_left_alone(SERVICE_APART);
}
END_TEST

/* One step on V that must fail with NUMERIC and change no parameter. */
static void check_failing(curvd_ctx *ctx, service_layout layout, const dense *V) {
  dense W[LAYERS], old[LAYERS];
  start_weights(W);
  start_weights(old);
  update_result result = update_try(ctx, 0.3, layout, LAYERS, layers, V, 0.01F, W);
  ck_assert_int_eq(result.status, CURVD_ERR_NUMERIC);
  for (int l = 0; l < LAYERS; l++) ck_assert_msg(dense_distance(W[l], old[l]) == 0, "layer %s", layers[l].name);
}

/* NaN or infinity in the last of the layers, so that the others could have been updated before. */
static void check_bad_gradient(const char *method) {
  for (size_t i = 0; i < 2 * COUNT(momenta); i++) {
    update_case c = {method, "step=normalised", momenta[i / 2], i % 2 ? SERVICE_APART : SERVICE_JOINED, 0};
    curvd_ctx *ctx = open_case(&c);
    dense V[LAYERS];
    for (int l = 0; l < LAYERS; l++) V[l] = gradient(0, l);
    V[LAYERS - 1].x[9][12] = i % 2 ? NAN : INFINITY; /* in the bias */
    capture(ctx, 0);
    check_failing(ctx, c.layout, V);
    ck_assert_ptr_nonnull(strstr(curvd_last_error(ctx), layers[LAYERS - 1].name));
    service_close(&ctx);
  }
}

START_TEST(bad_gradient_changes_no_parameter) {
  for (size_t i = 1; i < COUNT(methods); i++) check_bad_gradient(methods[i]);
}
END_TEST

/* The tail's eigenvalue 0 meets damping 0: told before anything is written. */
START_TEST(impossible_damping_changes_no_parameter) {
  update_case c = {"method=nystrom-kfac tail=zero damping=0", "step=normalised", "momentum=0.9", SERVICE_JOINED, 0};
  curvd_ctx *ctx = open_case(&c);
  dense V[LAYERS];
  for (int l = 0; l < LAYERS; l++) V[l] = gradient(0, l);
  capture(ctx, 0);
  check_failing(ctx, c.layout, V);
  service_close(&ctx);
}
END_TEST

START_TEST(bias_must_come_with_its_weight) {
  float weight[5 * 4] = {0}, bias[4] = {0}, parameter[5 * 4], parameter_bias[4] = {0};
  const service_layer pair[] = {{"fc", 5, 4, true}, {"bare", 5, 4, false}};
  curvd_gradient g = {.weight = weight, .ld = 5, .bias = bias, .bias_stride = 1, .parameter = parameter};
  for (int i = 0; i < 20; i++) parameter[i] = 3;
  for (int i = 0; i < 2; i++) {
    curvd_ctx *ctx = service_open(MPI_COMM_SELF, "method=none", 1, &pair[i]);
    ck_assert_int_eq(curvd_step(ctx, 1, &g, 1), i == 0 ? CURVD_ERR_ARGUMENT : CURVD_OK);
    ck_assert(i == 1 || strstr(curvd_last_error(ctx), "fc"));
    for (int k = 0; k < 20; k++) ck_assert(parameter[k] == 3);
    g.parameter_bias = parameter_bias;
    ck_assert_int_eq(curvd_step(ctx, 1, &g, 1), CURVD_OK);
    g.parameter_bias = NULL;
    service_close(&ctx);
  }
}
END_TEST

static Suite *make_suite(void) {
  const TTest *const tests[] = {
      step_subtracts_its_direction,      joined_gradients_are_left_alone,         apart_gradients_are_left_alone,
      bad_gradient_changes_no_parameter, impossible_damping_changes_no_parameter, bias_must_come_with_its_weight};
  return service_suite("update", tests, COUNT(tests));
}

int main(int argc, char **argv) {
  return mpi_test_main(argc, argv, make_suite);
}
