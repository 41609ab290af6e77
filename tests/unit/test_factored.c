/* The factored way to apply, against dense fp64: rows are preconditioned before they make a gradient, so a direction is
 * P (g^T [a 1]) with the preconditioner of the step before, and momentum, scale and clip come after it.
 *
 * Statistics of 3 rows have rank 3, so randomized methods of rank 6 find two of them exactly. Tolerance: the largest
 * eigenvalue is at most n = 15 times the mean one, so a factor damped by a tenth of the mean (or of the largest) has a
 * condition of at most 151; two such sides in fp32, eps = 6e-8, with two roundings each: 4e-5. */
#include "kfac_reference.h"
#include "mpi_assert.h"
#include "service_fixture.h"

#define COUNT(list) (sizeof list / sizeof list[0])

enum { LAYERS = 2, ROWS = 3, BATCH = 7, STEPS = 3, PARTS = 3 };

static const double TOLERANCE = 4e-5, LR = 0.3;
static const service_layer layers[LAYERS] = {{"fc0", 14, 12, true}, {"fc1", 12, 9, false}};

/* Decompositions of both kinds, and one with A of low rank beside a full G and the reverse. */
static const char *const methods[] = {"method=kfac",
                                      "method=nystrom-kfac eig_rank=6 oversampling=2 full_share=1 warm_start=false",
                                      "method=rs-kfac eig_rank=6 oversampling=2 full_share=0.8 warm_start=false"};

/* Where the rows of a batch are cut. */
static const int64_t cuts[][PARTS + 1] = {{0, BATCH, BATCH, BATCH}, {0, 3, 3, BATCH}, {0, 0, 1, BATCH}};

static const kfac_case half = {"relative-mean", "norm", "eigen", 0.1, 0.5, 0.5, 0.8};

static curvd_ctx *open_case(const kfac_case *c, const char *method, const char *more) {
  char options[1024];
  snprintf(options, sizeof options,
           "%s apply=factored factor_update_steps=1 inv_update_steps=1 loss_reduction=sum damping_mode=%s average=%s "
           "damping=%.17g exponent_a=%g exponent_g=%g factor_decay=%g %s",
           method, c->mode, c->average, c->damping, c->exponent_a, c->exponent_g, c->decay, more);
  return service_open(MPI_COMM_SELF, options, LAYERS, layers);
}

static dense inputs(int step, int l) {
  return dense_random(5000 + (uint64_t)(10 * step + l), BATCH, layers[l].d_in);
}

static dense output_gradients(int step, int l) {
  return dense_random(6000 + (uint64_t)(10 * step + l), BATCH, layers[l].d_out);
}

static dense with_one(dense a, bool has_bias) {
  dense b = dense_zero(a.m, a.n + has_bias);
  for (int64_t i = 0; i < a.m; i++) {
    for (int64_t j = 0; j < b.n; j++) b.x[i][j] = j < a.n ? a.x[i][j] : 1;
  }
  return b;
}

/* g^T [a 1] / BATCH */
static dense gradient(int step, int l) {
  dense b = with_one(inputs(step, l), layers[l].has_bias);
  return dense_scaled(1.0 / BATCH, dense_product(dense_transposed(output_gradients(step, l)), b));
}

static dense captured(int step, int l, int which) {
  return dense_random(100 + (uint64_t)(10 * step + 2 * l + which), ROWS, which == 0 ? layers[l].d_in : layers[l].d_out);
}

/* P or, with negated exponents, its inverse, applied to V in step `step`: that of the statistics of the steps before.
 */
static dense apply(const kfac_case *c, int step, int l, dense V) {
  dense S_A[STEPS], S_G[STEPS];
  if (step == 0) return V;
  for (int i = 0; i < step; i++) {
    S_A[i] = kfac_statistic(captured(i, l, 0), layers[l].has_bias);
    S_G[i] = kfac_statistic(captured(i, l, 1), false);
  }
  return kfac_direction(c, step, S_A, S_G, V);
}

static dense unapply(const kfac_case *c, int step, int l, dense D) {
  kfac_case inverse = *c;
  inverse.exponent_a = -c->exponent_a, inverse.exponent_g = -c->exponent_g;
  return apply(&inverse, step, l, D);
}

/* Rows from .. to of the batch; `to` keeps what it holds times keep. */
static curvd_status rows_of(curvd_ctx *ctx, int step, int l, int64_t from, int64_t to, double scale, double keep,
                            const curvd_gradient *out) {
  static float a[DENSE_MAX * SERVICE_LD_MAX], g[DENSE_MAX * SERVICE_LD_MAX], a_was[COUNT(a)], g_was[COUNT(g)];
  service_floats(inputs(step, l), from, to, a);
  service_floats(output_gradients(step, l), from, to, g);
  memcpy(a_was, a, sizeof a);
  memcpy(g_was, g, sizeof g);
  curvd_status status = curvd_precondition(ctx, l, to - from, a, layers[l].d_in + SERVICE_PAD, g,
                                           layers[l].d_out + SERVICE_PAD, (float)scale, (float)keep, out);
  ck_assert(memcmp(a, a_was, sizeof a) == 0 && memcmp(g, g_was, sizeof g) == 0);
  return status;
}

static void whole_batch(curvd_ctx *ctx, int step, int l, const int64_t *cut, double scale, double keep,
                        const curvd_gradient *out) {
  for (int p = 0; p < PARTS; p++) {
    curvd_status status = rows_of(ctx, step, l, cut[p], cut[p + 1], scale, p == 0 ? keep : 1, out);
    ck_assert_msg(status == CURVD_OK, "%s", curvd_last_error(ctx));
  }
}

/* Captures, preconditions into memory that holds NaN, and steps: direction[l]. */
static void one_step(curvd_ctx *ctx, int step, service_layout layout, const int64_t *cut, dense *direction) {
  static service_gradient g[LAYERS];
  curvd_gradient view[LAYERS] = {{.weight = NULL}};
  for (int l = 0; l < LAYERS; l++) {
    dense nothing = dense_scaled(NAN, dense_zero(layers[l].d_out, service_columns(&layers[l])));
    service_capture(ctx, l, captured(step, l, 0), captured(step, l, 1));
    service_put(&layers[l], layout, nothing, &g[l]);
    whole_batch(ctx, step, l, cut, 1.0 / BATCH, 0, &g[l].view);
    view[l] = g[l].view;
  }
  ck_assert_msg(curvd_step(ctx, LR, view, LAYERS) == CURVD_OK, "%s", curvd_last_error(ctx));
  for (int l = 0; l < LAYERS; l++) direction[l] = service_take(&layers[l], &g[l]);
}

static void check_close(dense x, dense expected, double tolerance, const char *what, int step, int l) {
  double distance = dense_distance(x, expected);
  ck_assert_msg(distance < tolerance, "%s, step %d, layer %d: %.1e", what, step, l, distance);
}

/* ---- directions ---- */

START_TEST(directions_are_those_of_dense_kfac) {
  static const char *const modes[] = {"relative-mean", "relative-max", "pi"}, *const averages[] = {"norm", "zero"};
  static const double exponents[][2] = {{1, 1}, {0.5, 0.5}, {0.5, 1}, {0.25, 0}, {0, 0.5}};
  for (size_t i = 0; i < COUNT(methods) * COUNT(modes) * COUNT(averages) * COUNT(exponents); i++) {
    const double *p = exponents[i % COUNT(exponents)];
    const char *method = methods[i / COUNT(exponents) % COUNT(methods)];
    size_t rest = i / COUNT(exponents) / COUNT(methods);
    kfac_case c = {modes[rest % COUNT(modes)], averages[rest / COUNT(modes)], "eigen", 0.1, p[0], p[1], 0.8};
    curvd_ctx *ctx = open_case(&c, method, "step=plain momentum=0");
    for (int step = 0; step < STEPS; step++) {
      dense D[LAYERS];
      one_step(ctx, step, i % 2 ? SERVICE_APART : SERVICE_JOINED, cuts[i % COUNT(cuts)], D);
      for (int l = 0; l < LAYERS; l++)
        check_close(D[l], apply(&c, step, l, gradient(step, l)), TOLERANCE, method, step, l);
    }
    service_close(&ctx);
  }
}
END_TEST

/* More rows than a block of them. */
START_TEST(large_batches_go_in_blocks) {
  enum { ROWS_ALL = 600, D_IN = 5, D_OUT = 4 };
  static const service_layer small = {"fc", D_IN, D_OUT, true};
  static float a[ROWS_ALL * D_IN], g[ROWS_ALL * D_OUT];
  static service_gradient to;
  dense V = dense_zero(D_OUT, D_IN + 1);
  for (int i = 0; i < ROWS_ALL; i++) {
    for (int j = 0; j < D_IN; j++) a[i * D_IN + j] = (float)cos(0.7 * i + j);
    for (int j = 0; j < D_OUT; j++) g[i * D_OUT + j] = (float)sin(1.3 * i + 2 * j);
    for (int j = 0; j < D_OUT; j++) {
      for (int k = 0; k <= D_IN; k++) V.x[j][k] += (double)g[i * D_OUT + j] * (k < D_IN ? (double)a[i * D_IN + k] : 1);
    }
  }
  curvd_ctx *ctx = service_open(MPI_COMM_SELF, "apply=factored step=plain momentum=0", 1, &small);
  service_put(&small, SERVICE_APART, V, &to);
  ck_assert_int_eq(curvd_precondition(ctx, 0, ROWS_ALL, a, D_IN, g, D_OUT, 2, 0.5f, &to.view), CURVD_OK);
  /* fp32 sums of 600 products: sqrt(600) eps, of numbers above their sum's size */
  check_close(service_take(&small, &to), dense_scaled(2.5, V), 1e-5, "blocks", 0, 0);
  service_close(&ctx);
}
END_TEST

/* ---- length ---- */

typedef struct length {
  const char *options;
  double bound;
} length;

static const length lengths[] = {{"step=normalised", 0},
                                 {"step=plain", 0},
                                 {"step=rms-clip kl_clip=0.005", 0.005},
                                 {"step=rms-clip kl_clip=1000", 1000},
                                 {"step=kl-clip kl_clip=1e-5", 1e-5},
                                 {"step=norm-constraint kl_clip=1e-5", 1e-5},
                                 {"step=kl-clip kl_clip=1000", 1000}};

static double scale_of(const length *how, double rms, double dot) {
  if (strstr(how->options, "normalised")) return 1 / rms;
  if (strstr(how->options, "rms-clip")) return fmin(1, how->bound / rms);
  if (strstr(how->options, "plain")) return 1;
  return fmin(1, sqrt(how->bound / (LR * LR * dot)));
}

/* momentum 0: the clips' inner product is with the gradient itself; otherwise with what P makes the direction from. */
static void check_lengths(const char *method, const length *how, double momentum) {
  char more[128];
  dense M[LAYERS];
  snprintf(more, sizeof more, "%s momentum=%g", how->options, momentum);
  curvd_ctx *ctx = open_case(&half, method, more);
  for (int l = 0; l < LAYERS; l++) M[l] = dense_zero(layers[l].d_out, service_columns(&layers[l]));
  for (int step = 0; step < STEPS; step++) {
    dense D[LAYERS];
    double dot = 0, least = 1;
    one_step(ctx, step, step % 2 ? SERVICE_APART : SERVICE_JOINED, cuts[step], D);
    for (int l = 0; l < LAYERS; l++) {
      M[l] = dense_sum(momentum, M[l], 1 - momentum, apply(&half, step, l, gradient(step, l)));
      dot += dense_dot(M[l], momentum == 0 ? gradient(step, l) : unapply(&half, step, l, M[l]));
    }
    for (int l = 0; l < LAYERS; l++) {
      double scale = scale_of(how, dense_rms(M[l]), dot);
      curvd_layer_metrics metrics;
      least = fmin(least, scale);
      check_close(D[l], dense_scaled(scale, M[l]), TOLERANCE, more, step, l);
      ck_assert_int_eq(curvd_layer_metrics_read(ctx, l, &metrics), CURVD_OK);
      ck_assert_double_eq_tol(metrics.direction_rms, dense_rms(D[l]), 1e-5 * dense_rms(D[l]));
    }
    if (how->bound > 0) ck_assert_double_eq_tol(service_metrics(ctx).clip_scale, least, TOLERANCE * least);
    if (how->bound > 0) ck_assert_msg((least < 1) == (how->bound < 1), "%s: scale %g", more, least); /* both are seen */
  }
  service_close(&ctx);
}

START_TEST(lengths_and_clips) {
  for (size_t i = 0; i < COUNT(methods) * COUNT(lengths); i++)
    check_lengths(methods[i / COUNT(lengths)], &lengths[i % COUNT(lengths)], 0);
}
END_TEST

START_TEST(momentum_comes_after_preconditioning) {
  for (size_t i = 0; i < COUNT(methods) * COUNT(lengths); i++)
    check_lengths(methods[i / COUNT(lengths)], &lengths[i % COUNT(lengths)], 0.9);
}
END_TEST

/* The caller's memory is the average: keep is the momentum; the step updates parameters and leaves it alone. */
START_TEST(caller_keeps_the_momentum) {
  static service_gradient g[LAYERS], was[LAYERS], W[LAYERS];
  for (size_t i = 0; i < 2 * COUNT(methods); i++) {
    service_layout layout = i % 2 ? SERVICE_APART : SERVICE_JOINED;
    curvd_gradient view[LAYERS] = {{.weight = NULL}};
    dense M[LAYERS], start[LAYERS];
    curvd_ctx *ctx = open_case(&half, methods[i / 2], "momentum=0.9 momentum_place=caller");
    for (int l = 0; l < LAYERS; l++) {
      M[l] = dense_zero(layers[l].d_out, service_columns(&layers[l]));
      service_put(&layers[l], layout, M[l], &g[l]);
    }
    for (int step = 0; step < STEPS; step++) {
      for (int l = 0; l < LAYERS; l++) {
        start[l] = dense_random(70, M[l].m, M[l].n);
        service_put(&layers[l], layout, start[l], &W[l]);
        service_capture(ctx, l, captured(step, l, 0), captured(step, l, 1));
        whole_batch(ctx, step, l, cuts[step], 0.1 / BATCH, 0.9, &g[l].view);
        M[l] = dense_sum(0.9, M[l], 0.1, apply(&half, step, l, gradient(step, l)));
        view[l] = g[l].view;
        view[l].parameter = W[l].view.weight, view[l].parameter_bias = W[l].view.bias;
        was[l] = g[l];
      }
      ck_assert_int_eq(curvd_step(ctx, LR, view, LAYERS), CURVD_OK);
      for (int l = 0; l < LAYERS; l++) {
        dense moved = dense_scaled(-1 / LR, dense_sum(1, service_take(&layers[l], &W[l]), -1, start[l]));
        check_close(moved, dense_scaled(1 / dense_rms(M[l]), M[l]), TOLERANCE, "update", step, l);
        ck_assert(memcmp(g[l].weight, was[l].weight, sizeof g[l].weight) == 0 &&
                  memcmp(g[l].bias, was[l].bias, sizeof g[l].bias) == 0);
      }
    }
    service_close(&ctx);
  }
}
END_TEST

/* Without momentum the two ways are one update, when the replicated one also uses the refresh of the step before. */
START_TEST(equals_the_replicated_way) {
  for (size_t i = 0; i < COUNT(methods) * COUNT(lengths); i++) {
    char more[128];
    dense D[LAYERS], V[LAYERS];
    snprintf(more, sizeof more, "%s momentum=0", lengths[i % COUNT(lengths)].options);
    curvd_ctx *ctx = open_case(&half, methods[i / COUNT(lengths)], more);
    snprintf(more, sizeof more, "%s momentum=0 apply=replicated staleness=1", lengths[i % COUNT(lengths)].options);
    curvd_ctx *twin = open_case(&half, methods[i / COUNT(lengths)], more);
    for (int step = 0; step < STEPS; step++) {
      for (int l = 0; l < LAYERS; l++) {
        service_capture(twin, l, captured(step, l, 0), captured(step, l, 1));
        V[l] = gradient(step, l);
      }
      one_step(ctx, step, SERVICE_JOINED, cuts[0], D);
      ck_assert_int_eq(service_try(twin, LR, SERVICE_JOINED, LAYERS, layers, V), CURVD_OK);
      for (int l = 0; l < LAYERS; l++) check_close(D[l], V[l], TOLERANCE, more, step, l);
    }
    service_close(&ctx);
    service_close(&twin);
  }
}
END_TEST

/* ---- what is refused ---- */

static void check_refused(curvd_ctx *ctx, curvd_status status, curvd_status expected, const char *words) {
  ck_assert_msg(status == expected && strstr(curvd_last_error(ctx), words), "%d: %s", (int)status,
                curvd_last_error(ctx));
}

START_TEST(a_step_needs_rows_that_were_preconditioned) {
  static service_gradient g[LAYERS];
  curvd_gradient view[LAYERS];
  curvd_ctx *ctx = open_case(&half, methods[0], "step=plain");
  for (int l = 0; l < LAYERS; l++) {
    service_put(&layers[l], SERVICE_JOINED, gradient(0, l), &g[l]);
    view[l] = g[l].view;
  }
  for (int step = 0; step < 2; step++) {
    check_refused(ctx, curvd_step(ctx, LR, view, LAYERS), CURVD_ERR_STATE, "curvd_precondition");
    ck_assert_int_eq(curvd_precondition(ctx, 0, 0, NULL, 14, NULL, 12, 1, 1, &view[0]), CURVD_OK);
    check_refused(ctx, curvd_step(ctx, LR, view, LAYERS), CURVD_ERR_STATE, "layer fc1");
    ck_assert_int_eq(curvd_precondition(ctx, 1, 0, NULL, 12, NULL, 9, 1, 1, &view[1]), CURVD_OK);
    ck_assert_int_eq(curvd_step(ctx, LR, view, LAYERS), CURVD_OK);
  }
  service_close(&ctx);
}
END_TEST

START_TEST(arguments) {
  static float x[64];
  service_gradient g;
  curvd_ctx *ctx = open_case(&half, methods[0], "skip=fc1");
  ck_assert(!curvd_is_factored(NULL, 0) && !curvd_is_factored(ctx, -1) && !curvd_is_factored(ctx, LAYERS));
  ck_assert(curvd_is_factored(ctx, 0) && !curvd_is_factored(ctx, 1)); /* skipped: nothing to apply */
  service_put(&layers[0], SERVICE_JOINED, gradient(0, 0), &g);
  curvd_gradient bad = {.weight = NULL};
  ck_assert_int_eq(curvd_precondition(NULL, 0, 1, x, 14, x, 12, 1, 0, &g.view), CURVD_ERR_ARGUMENT);
  check_refused(ctx, curvd_precondition(ctx, LAYERS, 1, x, 14, x, 12, 1, 0, &g.view), CURVD_ERR_ARGUMENT, "no layer");
  check_refused(ctx, curvd_precondition(ctx, 1, 1, x, 12, x, 9, 1, 0, &g.view), CURVD_ERR_STATE, "not factored");
  check_refused(ctx, curvd_precondition(ctx, 0, 1, NULL, 14, x, 12, 1, 0, &g.view), CURVD_ERR_ARGUMENT, "needs a, g");
  check_refused(ctx, curvd_precondition(ctx, 0, 1, x, 14, NULL, 12, 1, 0, &g.view), CURVD_ERR_ARGUMENT, "needs a, g");
  check_refused(ctx, curvd_precondition(ctx, 0, 1, x, 14, x, 12, 1, 0, NULL), CURVD_ERR_ARGUMENT, "needs a, g");
  check_refused(ctx, curvd_precondition(ctx, 0, 1, x, 14, x, 12, NAN, 0, &g.view), CURVD_ERR_ARGUMENT, "finite");
  check_refused(ctx, curvd_precondition(ctx, 0, 1, x, 14, x, 12, 1, INFINITY, &g.view), CURVD_ERR_ARGUMENT, "finite");
  check_refused(ctx, curvd_precondition(ctx, 0, 1, x, 13, x, 12, 1, 0, &g.view), CURVD_ERR_ARGUMENT, "lda 13");
  check_refused(ctx, curvd_precondition(ctx, 0, -1, x, 14, x, 12, 1, 0, &g.view), CURVD_ERR_ARGUMENT, "-1 rows");
  check_refused(ctx, curvd_precondition(ctx, 0, 1, x, 14, x, 12, 1, 0, &bad), CURVD_ERR_ARGUMENT, "needs a weight");
  ck_assert_int_eq(curvd_finish(ctx), CURVD_OK);
  check_refused(ctx, curvd_precondition(ctx, 0, 1, x, 14, x, 12, 1, 0, &g.view), CURVD_ERR_STATE, "after curvd_finish");
  curvd_destroy(&ctx);
}
END_TEST

/* Statistics of rank 3 without damping: the function of the zero eigenvalues is infinite. */
START_TEST(damping_that_makes_no_preconditioner) {
  static service_gradient g, was;
  kfac_case none = half;
  dense D[LAYERS];
  none.damping = 0;
  curvd_ctx *ctx = open_case(&none, methods[0], "step=plain tail=zero");
  one_step(ctx, 0, SERVICE_JOINED, cuts[0], D);
  service_put(&layers[0], SERVICE_JOINED, gradient(0, 0), &g);
  was = g;
  check_refused(ctx, rows_of(ctx, 1, 0, 0, BATCH, 1, 0.5, &g.view), CURVD_ERR_NUMERIC, "layer fc0");
  ck_assert(memcmp(g.weight, was.weight, sizeof g.weight) == 0);
  service_close(&ctx);
}
END_TEST

START_TEST(combinations_that_mean_nothing) {
  static const char *const bad[][2] = {
      {"damping_mode=scalar", "apart"},
      {"damping_mode=product-max", "apart"},
      {"method=kfac form=cholesky damping_mode=pi exponent_a=1 exponent_g=1", "form eigen"}};
  for (size_t i = 0; i < COUNT(bad); i++) {
    char options[128];
    snprintf(options, sizeof options, "apply=factored %s", bad[i][0]);
    curvd_ctx *ctx = service_make(MPI_COMM_SELF, options, LAYERS, layers);
    check_refused(ctx, curvd_plan(ctx), CURVD_ERR_OPTION, bad[i][1]);
    curvd_destroy(&ctx);
    ctx = service_open(MPI_COMM_SELF, bad[i][0], LAYERS, layers);
    ck_assert(!curvd_is_factored(ctx, 0));
    service_close(&ctx);
  }
}
END_TEST

/* Nothing is allocated in a step, its time is told, and gradients that are told of are of no use. */
START_TEST(a_step_allocates_nothing) {
  static float x[BATCH * 64];
  for (size_t i = 0; i < COUNT(methods); i++) {
    dense D[LAYERS];
    curvd_ctx *ctx = open_case(&half, methods[i], "step=kl-clip");
    int64_t before = service_metrics(ctx).n_allocations;
    for (int step = 0; step < STEPS; step++) {
      ck_assert_int_eq(curvd_capture_gradient(ctx, 0, BATCH, x, 14, x, 12, 1), CURVD_OK);
      one_step(ctx, step, SERVICE_APART, cuts[step], D);
    }
    curvd_metrics after = service_metrics(ctx);
    ck_assert_int_eq(after.n_allocations, before);
    ck_assert_int_eq(after.stage_calls[CURVD_STAGE_PRECONDITION], STEPS * (LAYERS * PARTS + 1));
    service_close(&ctx);
  }
}
END_TEST

static Suite *make_suite(void) {
  const TTest *const tests[] = {directions_are_those_of_dense_kfac,
                                large_batches_go_in_blocks,
                                lengths_and_clips,
                                momentum_comes_after_preconditioning,
                                caller_keeps_the_momentum,
                                equals_the_replicated_way,
                                a_step_needs_rows_that_were_preconditioned,
                                arguments,
                                damping_that_makes_no_preconditioner,
                                combinations_that_mean_nothing,
                                a_step_allocates_nothing};
  return service_suite("factored", tests, COUNT(tests));
}

int main(int argc, char **argv) {
  return mpi_test_main(argc, argv, make_suite);
}
