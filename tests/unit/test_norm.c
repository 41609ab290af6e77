/* Normalisation layers on one rank: directions against the dense block-diagonal Fisher matrix in fp64, and what becomes
 * of statistics that are missing, zero, or not finite. */
#include "mpi_assert.h"
#include "norm_fixture.h"

#include "curvature/internal.h"

#define COUNT(list) (sizeof list / sizeof list[0])

enum { ROWS = 24, STEPS_MAX = 4 };

static const char *const averages[] = {"norm", "id", "zero", "first", "mg", "sum"};

static curvd_ctx *open_norm(const char *options) {
  curvd_ctx *ctx = norm_make(MPI_COMM_SELF, options, 1, &norm_layer, 0);
  ck_assert_msg(curvd_plan(ctx) == CURVD_OK, "%s", curvd_last_error(ctx));
  return ctx;
}

static dense step_norm(curvd_ctx *ctx, service_layout layout, dense V) {
  curvd_status status = service_try(ctx, 1, layout, 1, &norm_layer, &V);
  ck_assert_msg(status == CURVD_OK, "%s", curvd_last_error(ctx));
  return V;
}

static void run(const kfac_case *c, service_layout layout, const char *more) {
  dense S[STEPS_MAX];
  curvd_ctx *ctx = open_norm(kfac_options(c, more));
  for (int step = 0; step < 3; step++) {
    S[step] = norm_statistic(step, ROWS);
    service_capture(ctx, 0, norm_rows(step, ROWS, 0), norm_rows(step, ROWS, 1));
    dense V = norm_gradient(step), D = step_norm(ctx, layout, V);
    double distance = dense_distance(D, norm_direction(c, step + 1, S, V));
    ck_assert_msg(distance < NORM_TOLERANCE, "%s damping %g, %s, exponents %g and %g, %s, step %d: %.1e", c->mode,
                  c->damping, c->average, c->exponent_a, c->exponent_g, more, step, distance);
  }
  ck_assert_int_eq(service_metrics(ctx).age_max, 0); /* statistics and a refresh in every step */
  service_close(&ctx);
}

/* Dampings are at least a fiftieth of the largest eigenvalue (about 0.4), so that the tolerance holds. */
START_TEST(every_damping_average_and_exponent_equals_dense) {
  static const struct {
    const char *mode;
    double damping;
    bool is_joint;
  } modes[] = {{"relative-mean", 0.1, false},
               {"relative-max", 0.02, false},
               {"pi", 0.01, false},
               {"scalar", 0.01, true},
               {"product-max", 0.02, true}};
  static const double exponents[] = {0.5, 0.25, 0.15};
  for (size_t i = 0; i < COUNT(modes) * COUNT(averages) * COUNT(exponents); i++) {
    size_t m = i % COUNT(modes), a = i / COUNT(modes) % COUNT(averages), p = i / COUNT(modes) / COUNT(averages);
    kfac_case c = {modes[m].mode, averages[a], "eigen", modes[m].damping, exponents[p], exponents[p], 0.8};
    if (modes[m].is_joint && kfac_is(c.average, "zero")) continue; /* refused */
    run(&c, i % 2 ? SERVICE_APART : SERVICE_JOINED, "loss_reduction=sum");
  }
}
END_TEST

/* One side's exponent counts, too; and both sides' whole inverses are one whole inverse. */
START_TEST(exponents_of_both_sides_make_one) {
  static const double exponents[][2] = {{0.7, 0.1}, {0, 0.5}, {0, 0}, {1, 0}, {1, 1}};
  for (size_t i = 0; i < COUNT(exponents); i++) {
    kfac_case c = {"relative-mean", "norm", "eigen", 0.1, exponents[i][0], exponents[i][1], 0.9};
    run(&c, SERVICE_JOINED, "loss_reduction=sum");
  }
  kfac_case inverse = {"relative-mean", "norm", "cholesky", 0.1, 1, 1, 0.9};
  run(&inverse, SERVICE_JOINED, "loss_reduction=sum");
}
END_TEST

/* Blocks are what they are, whatever becomes of other layers' factors. The last word wins. */
START_TEST(methods_carriers_and_stores_do_not_matter) {
  static const char *const options[] = {"method=rs-kfac eig_rank=2",
                                        "method=nystrom-kfac carrier=sketch",
                                        "method=nystrom-kfac store=stream carrier=columns",
                                        "method=b-kfac",
                                        "method=b-r-c-kfac capture_rows=24",
                                        "carrier=local",
                                        "sample_rows=3",
                                        "grid_min_n=2"};
  kfac_case c = {"relative-mean", "norm", "eigen", 0.1, 0.5, 0.5, 0.9};
  for (size_t i = 0; i < COUNT(options); i++) {
    char more[200];
    snprintf(more, sizeof more, "loss_reduction=sum %s", options[i]);
    run(&c, SERVICE_APART, more);
  }
}
END_TEST

/* With the mean over the rows of a call, rows hold 1 / rows of each example's gradient. */
START_TEST(means_of_losses_and_batches_in_pieces) {
  static const int64_t cut[] = {0, 7, 7, ROWS};
  kfac_case c = {"relative-mean", "norm", "eigen", 0.1, 0.5, 0.5, 0.9};
  curvd_ctx *ctx = open_norm(kfac_options(&c, "loss_reduction=mean"));
  dense gamma = norm_rows(0, ROWS, 0), beta = norm_rows(0, ROWS, 1), S = norm_fisher(gamma, beta);
  for (size_t p = 0; p + 1 < COUNT(cut); p++) {
    double rows = (double)(cut[p + 1] - cut[p]), part = rows > 0 ? 1 / rows : 0;
    ck_assert_int_eq(
        service_capture_part(ctx, 0, dense_scaled(part, gamma), dense_scaled(part, beta), cut[p], cut[p + 1]),
        CURVD_OK);
  }
  dense V = norm_gradient(0);
  ck_assert_double_lt(dense_distance(step_norm(ctx, SERVICE_JOINED, V), norm_direction(&c, 1, &S, V)), NORM_TOLERANCE);
  service_close(&ctx);
}
END_TEST

/* A schedule of the damping alone remakes the powers. */
START_TEST(damping_changes_between_refreshes) {
  curvd_ctx *ctx =
      open_norm("method=kfac step=plain momentum=0 factor_update_steps=10 inv_update_steps=10 damping=0.1,1@1 "
                "loss_reduction=sum");
  dense S = norm_statistic(0, ROWS), V = norm_gradient(0);
  service_capture(ctx, 0, norm_rows(0, ROWS, 0), norm_rows(0, ROWS, 1));
  for (int step = 0; step < 2; step++) {
    kfac_case c = {"relative-mean", "norm", "eigen", step == 0 ? 0.1 : 1, 0.5, 0.5, 0.95};
    ck_assert_double_lt(dense_distance(step_norm(ctx, SERVICE_JOINED, V), norm_direction(&c, 1, &S, V)),
                        NORM_TOLERANCE);
  }
  ck_assert_int_eq(service_metrics(ctx).age_max, 1);
  service_close(&ctx);
}
END_TEST

/* ---- the step's length, with a fully connected layer beside it ---- */

static const service_layer both[] = {{"fc", 4, 3, true}, {"bn", 1, NORM_CHANNELS, true}};

/* scale of lr^2 (<D_0, V_0> + <D_1, V_1>), and each layer's own root mean square. */
START_TEST(clips_and_normalisation_see_its_length) {
  static const char *const steps[] = {"plain", "kl-clip kl_clip=1e-3", "normalised"};
  dense D[COUNT(steps)][2], V[2] = {dense_random(1, 3, 5), norm_gradient(0)};
  double lr = 0.5, dot = 0, scale;
  for (size_t i = 0; i < COUNT(steps); i++) {
    char options[200];
    snprintf(options, sizeof options, "method=kfac momentum=0 step=%s", steps[i]);
    curvd_ctx *ctx = norm_make(MPI_COMM_SELF, options, 2, both, 1);
    ck_assert_int_eq(curvd_plan(ctx), CURVD_OK);
    service_capture(ctx, 0, dense_random(2, ROWS, 4), dense_random(3, ROWS, 3));
    service_capture(ctx, 1, norm_rows(0, ROWS, 0), norm_rows(0, ROWS, 1));
    memcpy(D[i], V, sizeof V);
    ck_assert_int_eq(service_try(ctx, lr, SERVICE_APART, 2, both, D[i]), CURVD_OK);
    service_close(&ctx);
  }
  for (int l = 0; l < 2; l++) dot += dense_dot(D[0][l], V[l]);
  scale = sqrt(1e-3 / (lr * lr * dot));
  ck_assert_double_lt(scale, 1);
  for (int l = 0; l < 2; l++) {
    ck_assert_double_lt(dense_distance(D[1][l], dense_scaled(scale, D[0][l])), 1e-5);
    ck_assert_double_lt(dense_distance(D[2][l], dense_scaled(1 / dense_rms(D[0][l]), D[0][l])), 1e-5);
  }
}
END_TEST

/* Rows of the fully connected layer are preconditioned; the blocks wait for the step. */
START_TEST(beside_factored_layers) {
  curvd_ctx *ctx = norm_make(
      MPI_COMM_SELF, "method=kfac momentum=0 step=plain apply=factored inv_update_steps=1 factor_update_steps=1", 2,
      both, 1);
  float a[4] = {1, 2, 3, 4}, g[3] = {1, 0, 2}, weight[15] = {0};
  kfac_case c = {"relative-mean", "norm", "eigen", 0.1, 0.5, 0.5, 0.95};
  ck_assert_int_eq(curvd_plan(ctx), CURVD_OK);
  ck_assert(curvd_is_factored(ctx, 0) && !curvd_is_factored(ctx, 1));
  for (int step = 0; step < 2; step++) {
    dense gamma = norm_rows(0, ROWS, 0), beta = norm_rows(0, ROWS, 1), V = norm_gradient(step);
    dense S = norm_fisher(dense_scaled(ROWS, gamma), dense_scaled(ROWS, beta)); /* loss_reduction mean */
    dense seen[2] = {S, S}, D = V;
    service_gradient bn;
    service_capture(ctx, 1, gamma, beta);
    ck_assert_int_eq(curvd_capture(ctx, 0, 1, a, 4, g, 3), CURVD_OK);
    curvd_gradient to = {.weight = weight, .ld = 5, .bias = weight + 4, .bias_stride = 5};
    ck_assert_int_eq(curvd_precondition(ctx, 0, 1, a, 4, g, 3, 1, 0, &to), CURVD_OK);
    ck_assert_int_eq(curvd_precondition(ctx, 1, 1, a, 4, g, 3, 1, 0, &to), CURVD_ERR_ARGUMENT); /* too narrow */
    service_put(&norm_layer, SERVICE_JOINED, V, &bn);
    ck_assert_int_eq(curvd_step(ctx, 1, (curvd_gradient[]){to, bn.view}, 2), CURVD_OK);
    D = service_take(&norm_layer, &bn);
    if (step == 0) continue; /* the first refresh lands behind the rows of step 0 */
    ck_assert_double_lt(dense_distance(D, norm_direction(&c, 2, seen, V)), NORM_TOLERANCE);
  }
  service_close(&ctx);
}
END_TEST

/* ---- statistics that are no good ---- */

static char last_line[300];

static void keep_line(void *user, int level, const char *line) {
  (void)user, (void)level;
  snprintf(last_line, sizeof last_line, "%s", line);
}

START_TEST(statistics_that_are_not_finite_are_refused) {
  const double bad[] = {NAN, INFINITY, 3e38};
  kfac_case c = {"relative-mean", "norm", "eigen", 0.1, 0.5, 0.5, 0.8};
  for (size_t i = 0; i < 2 * COUNT(bad); i++) {
    dense S[2] = {norm_statistic(0, ROWS), norm_statistic(2, ROWS)}, V = norm_gradient(0), rows[2], D;
    curvd_ctx *ctx = open_norm(kfac_options(&c, "loss_reduction=sum"));
    curvd_log_to(ctx, keep_line, NULL, 1);
    service_capture(ctx, 0, norm_rows(0, ROWS, 0), norm_rows(0, ROWS, 1));
    D = step_norm(ctx, SERVICE_JOINED, V);
    for (int what = 0; what < 2; what++) rows[what] = norm_rows(1, ROWS, what);
    rows[i % 2].x[3][2] = bad[i / 2];
    service_capture(ctx, 0, rows[0], rows[1]);
    ck_assert_double_lt(dense_distance(step_norm(ctx, SERVICE_JOINED, V), D), 1e-30);
    ck_assert_int_eq(service_metrics(ctx).events[CURVD_EVENT_REFUSED_STATISTICS], 1);
    ck_assert_int_eq(service_factor(ctx, 0, 0).refused, 1);
    ck_assert_ptr_nonnull(strstr(last_line, "layer bn: statistics of its blocks in step 1 refused"));
    service_capture(ctx, 0, norm_rows(2, ROWS, 0), norm_rows(2, ROWS, 1)); /* nothing of the bad one is left */
    ck_assert_double_lt(dense_distance(step_norm(ctx, SERVICE_JOINED, V), norm_direction(&c, 2, S, V)), NORM_TOLERANCE);
    service_close(&ctx);
  }
}
END_TEST

/* An average that is spoilt brings no preconditioner: the one in force stays. */
START_TEST(spoilt_averages_keep_the_preconditioner) {
  const int64_t place[] = {1, NORM_CHANNELS + 1, 2 * NORM_CHANNELS + 1}; /* of the second unit's three numbers */
  for (size_t i = 0; i < COUNT(place); i++) {
    curvd_ctx *ctx = open_norm("method=kfac step=plain momentum=0 factor_update_steps=1 inv_update_steps=1");
    dense V = norm_gradient(0), rows[2] = {norm_rows(0, ROWS, 0), norm_rows(0, ROWS, 1)}, D;
    curvd_log_to(ctx, keep_line, NULL, 1);
    service_capture(ctx, 0, rows[0], rows[1]);
    D = step_norm(ctx, SERVICE_JOINED, V);
    ctx->layer[0].factor[0].own.average[place[i]] = NAN;
    service_capture(ctx, 0, rows[0], rows[1]);
    ck_assert_double_lt(dense_distance(step_norm(ctx, SERVICE_JOINED, V), D), 1e-30);
    curvd_metrics m = service_metrics(ctx);
    ck_assert(m.events[CURVD_EVENT_KEPT_PREVIOUS] == 1 && m.events[CURVD_EVENT_REFRESHES] == 1);
    ck_assert_ptr_nonnull(strstr(last_line, "layer bn, its blocks, step 1"));
    service_close(&ctx);
  }
}
END_TEST

/* Before any statistics, and where all are zero, the direction is the gradient. */
START_TEST(nothing_to_go_by_is_the_identity) {
  curvd_ctx *ctx = open_norm("method=kfac step=plain momentum=0 factor_update_steps=1 inv_update_steps=1");
  dense V = norm_gradient(0), zero = dense_zero(ROWS, NORM_CHANNELS);
  ck_assert_double_lt(dense_distance(step_norm(ctx, SERVICE_JOINED, V), V), 1e-30);
  ck_assert_int_eq(service_factor(ctx, 0, 0).statistics_step, -1);
  service_capture(ctx, 0, zero, zero);
  ck_assert_double_lt(dense_distance(step_norm(ctx, SERVICE_APART, V), V), 1e-30);
  service_close(&ctx);
}
END_TEST

/* One example makes blocks of rank one: without damping there is no inverse, and no number either. */
START_TEST(singular_blocks_need_damping) {
  static const struct {
    const char *damping;
    curvd_status status;
  } cases[] = {{"0", CURVD_ERR_NUMERIC}, {"0.1", CURVD_OK}};
  for (size_t i = 0; i < COUNT(cases); i++) {
    char options[200];
    snprintf(options, sizeof options, "method=kfac step=plain momentum=0 loss_reduction=sum damping=%s",
             cases[i].damping);
    curvd_ctx *ctx = open_norm(options);
    dense one = dense_zero(1, NORM_CHANNELS), V = norm_gradient(0);
    for (int64_t j = 0; j < NORM_CHANNELS; j++) one.x[0][j] = 1;
    service_capture(ctx, 0, one, one);
    curvd_status status = service_try(ctx, 1, SERVICE_JOINED, 1, &norm_layer, &V);
    ck_assert_msg(status == cases[i].status, "%s", curvd_last_error(ctx));
    if (status != CURVD_OK) ck_assert_ptr_nonnull(strstr(curvd_last_error(ctx), "layer bn: a zero eigenvalue"));
    service_close(&ctx);
  }
}
END_TEST

/* Uncorrelated, one of them so small that its inverse is no fp32 number: 2 / 1e-42. */
START_TEST(inverses_that_overflow_need_damping) {
  for (int what = 0; what < 2; what++) {
    curvd_ctx *ctx =
        open_norm("method=kfac step=plain momentum=0 loss_reduction=sum damping=0 damping_mode=scalar exponent_a=1 "
                  "exponent_g=1");
    dense rows[2] = {dense_zero(2, NORM_CHANNELS), dense_zero(2, NORM_CHANNELS)}, V = norm_gradient(0);
    for (int64_t j = 0; j < NORM_CHANNELS; j++) rows[what].x[0][j] = 1e-21, rows[1 - what].x[1][j] = 1;
    service_capture(ctx, 0, rows[0], rows[1]);
    ck_assert_int_eq(service_try(ctx, 1, SERVICE_JOINED, 1, &norm_layer, &V), CURVD_ERR_NUMERIC);
    service_close(&ctx);
  }
}
END_TEST

/* ---- what it is called, told and refused ---- */

START_TEST(metrics_are_those_of_the_blocks) {
  curvd_ctx *ctx = open_norm("method=kfac momentum=0 loss_reduction=sum damping=0.25");
  dense F = norm_statistic(0, ROWS), V = norm_gradient(0);
  curvd_layer_metrics layer;
  service_capture(ctx, 0, norm_rows(0, ROWS, 0), norm_rows(0, ROWS, 1));
  step_norm(ctx, SERVICE_JOINED, V);
  ck_assert_int_eq(curvd_layer_metrics_read(ctx, 0, &layer), CURVD_OK);
  const curvd_factor_metrics *f = &layer.factor[0];
  dense_eigen e = dense_eig(F);
  ck_assert_str_eq(layer.method, "unit");
  ck_assert_int_eq(layer.owner, 0);
  ck_assert(f->n == F.n && f->eig_rank == F.n && f->statistics_step == 0 && f->ranks == 1);
  ck_assert_double_eq_tol(f->trace, dense_trace(F), 1e-6);
  ck_assert_double_eq_tol(f->lambda_max, e.w[0], 1e-6);
  ck_assert_double_eq_tol(f->lambda_min, e.w[F.n - 1], 1e-6);
  ck_assert_double_eq_tol(f->damping, 0.25 * dense_trace(F) / (double)F.n, 1e-6);
  ck_assert_str_eq(f->carrier, "units");
  ck_assert_str_eq(f->store, "units");
  ck_assert(layer.factor[1].n == 0 && layer.factor[1].ranks == 0);
  ck_assert_str_eq(layer.factor[1].carrier, "");
  curvd_metrics m = service_metrics(ctx);
  ck_assert(m.events[CURVD_EVENT_REFRESHES] == 1 && m.age_max == 0);
  ck_assert_int_eq(m.memory_bytes[CURVD_MEMORY_FACTORS], 3 * NORM_CHANNELS * (int64_t)sizeof(float));
  service_close(&ctx);
}
END_TEST

START_TEST(calls_that_mean_nothing_are_refused) {
  static float x[2 * NORM_CHANNELS];
  curvd_ctx *ctx = open_norm("method=kfac");
  int64_t c = NORM_CHANNELS;
  ck_assert_int_eq(curvd_capture(ctx, 0, 2, x, c, NULL, c), CURVD_ERR_ARGUMENT);
  ck_assert_ptr_nonnull(strstr(curvd_last_error(ctx), "bn"));
  ck_assert_int_eq(curvd_capture(ctx, 0, 2, NULL, c, x, c), CURVD_ERR_ARGUMENT);
  ck_assert_int_eq(curvd_capture(ctx, 0, 2, x, c - 1, x, c), CURVD_ERR_ARGUMENT);
  ck_assert_int_eq(curvd_capture(ctx, 0, 2, x, c, x, c - 1), CURVD_ERR_ARGUMENT);
  ck_assert_int_eq(curvd_capture(ctx, 0, 0, NULL, 0, NULL, 0), CURVD_OK);
  ck_assert_int_eq(curvd_capture_gradient(ctx, 0, 2, x, c, x, c, 1), CURVD_OK); /* ignored */
  ck_assert_int_eq(curvd_layer_add_norm(ctx, "late", 3, NULL), CURVD_ERR_STATE);
  service_close(&ctx);
  ctx = service_make(MPI_COMM_SELF, "", 0, NULL);
  ck_assert_int_eq(curvd_layer_add_norm(ctx, "bn", 0, NULL), CURVD_ERR_ARGUMENT);
  ck_assert_int_eq(curvd_layer_add_norm(ctx, "bn", 3, NULL), CURVD_OK);
  ck_assert_int_eq(curvd_layer_add_norm(ctx, "bn", 3, NULL), CURVD_ERR_ARGUMENT);
  ck_assert_int_eq(curvd_layer_add_norm(NULL, "bn", 3, NULL), CURVD_ERR_ARGUMENT);
  curvd_destroy(&ctx);
}
END_TEST

START_TEST(left_out_by_skip_or_method_none) {
  static const char *const options[] = {"method=none", "method=kfac skip=b* step=plain momentum=0"};
  for (size_t i = 0; i < COUNT(options); i++) {
    curvd_ctx *ctx = open_norm(options[i]);
    dense V = norm_gradient(0);
    curvd_layer_metrics layer;
    service_capture(ctx, 0, norm_rows(0, ROWS, 0), norm_rows(0, ROWS, 1));
    ck_assert_double_lt(dense_distance(step_norm(ctx, SERVICE_APART, V), V), 1e-30);
    ck_assert_int_eq(curvd_layer_metrics_read(ctx, 0, &layer), CURVD_OK);
    ck_assert_str_eq(layer.method, "none");
    ck_assert(layer.owner == -1 && layer.factor[0].ranks == 0);
    service_close(&ctx);
  }
}
END_TEST

static Suite *make_suite(void) {
  const TTest *const tests[] = {every_damping_average_and_exponent_equals_dense,
                                exponents_of_both_sides_make_one,
                                methods_carriers_and_stores_do_not_matter,
                                means_of_losses_and_batches_in_pieces,
                                damping_changes_between_refreshes,
                                clips_and_normalisation_see_its_length,
                                beside_factored_layers,
                                statistics_that_are_not_finite_are_refused,
                                spoilt_averages_keep_the_preconditioner,
                                nothing_to_go_by_is_the_identity,
                                singular_blocks_need_damping,
                                inverses_that_overflow_need_damping,
                                metrics_are_those_of_the_blocks,
                                calls_that_mean_nothing_are_refused,
                                left_out_by_skip_or_method_none};
  return service_suite("norm", tests, COUNT(tests));
}

int main(int argc, char **argv) {
  return mpi_test_main(argc, argv, make_suite);
}
