/* Projections that follow the momentum (curvd_capture_gradient), and what projections promise about a direction before
 * it is written (pair.h). A context that is told its gradients is compared with a twin that is not.
 *
 * Rounding: a number of P or R is a sum of m or n products, then of the batch's rows, then over steps that fade with
 * momentum .9 (like 2 / (1 - .9) = 20 more terms). Errors of fp32, u = 6e-8 each, add up like a random walk, as the
 * random terms themselves do: u sqrt(m + n + rows + 20) |X|. X lies in all modes alike, so the function that multiplies
 * the modes makes error and direction equally longer, and the relative error stays. A factor 4 is left. */
#include "mpi_assert.h"
#include "update_fixture.h"

#include "curvature/internal.h"

#define COUNT(list) (sizeof list / sizeof list[0])

enum { LAYERS = 3, ROWS_STATISTICS = 48, STEPS = 30, REFRESH = 10, FEW = 6, MANY = 30 };

/* The first two gain up to 17 and 19 rows; G of the third is decomposed exactly, which leaves nothing to follow. */
static const service_layer layers[LAYERS] = {{"wide", 40, 30, true}, {"bare", 36, 44, false}, {"full", 40, 5, true}};

static const char base[] = "factor_update_steps=10 inv_update_steps=10 loss_reduction=sum eig_rank=6 oversampling=2 ";

/* ---- a run ---- */

/* How a step's gradient is told. */
typedef enum feed {
  FEED_WHOLE,
  FEED_PIECES,       /* with empty ones between */
  FEED_NOW_AND_THEN, /* nothing in two steps of five, one of them before a refresh */
  FEED_EMPTY,        /* no rows at all */
  FEED_MIXED         /* a piece that gains and a piece that does not */
} feed;

typedef struct follow_case {
  const char *options;
  feed feed;
  int64_t rows;
} follow_case;

typedef struct pair_of_runs {
  curvd_ctx *told, *twin;
  dense M[LAYERS]; /* the caller's average */
} pair_of_runs;

static char lines[8][480];
static int n_lines;

static void keep_line(void *user, int level, const char *line) {
  (void)user;
  ck_assert_int_eq(level, 1);
  ck_assert_int_lt(n_lines, COUNT(lines));
  snprintf(lines[n_lines++], sizeof lines[0], "%s", line);
}

/* Columns fall off as 1 / j: a few modes hold most of the trace. */
static dense falling(uint64_t seed, int64_t rows, int64_t d) {
  dense X = dense_random(seed, rows, d);
  for (int64_t i = 0; i < rows; i++) {
    for (int64_t j = 0; j < d; j++) X.x[i][j] /= (double)(1 + j);
  }
  return update_rounded(X);
}

static curvd_ctx *open_with(const char *options) {
  char text[512];
  snprintf(text, sizeof text, "%s%s", base, options);
  curvd_ctx *ctx = service_open(MPI_COMM_SELF, text, LAYERS, layers);
  ck_assert_int_eq(curvd_log_to(ctx, keep_line, NULL, 1), CURVD_OK);
  return ctx;
}

static pair_of_runs open_pair(const char *options) {
  pair_of_runs p = {.told = open_with(options), .twin = open_with(options)};
  for (int l = 0; l < LAYERS; l++) p.M[l] = dense_zero(layers[l].d_out, service_columns(&layers[l]));
  n_lines = 0;
  return p;
}

static void close_pair(pair_of_runs *p) {
  service_close(&p->told);
  service_close(&p->twin);
}

static void capture_statistics(curvd_ctx *ctx, int step) {
  for (int l = 0; l < LAYERS && curvd_wants_capture(ctx); l++) {
    uint64_t seed = 1000 + (uint64_t)(10 * step + l);
    service_capture(ctx, l, falling(seed, ROWS_STATISTICS, layers[l].d_in),
                    falling(seed + 500, ROWS_STATISTICS, layers[l].d_out));
  }
}

static dense inputs(int step, int l, int64_t rows) {
  return dense_random(5000 + (uint64_t)(10 * step + l), rows, layers[l].d_in);
}

static dense output_gradients(int step, int l, int64_t rows) {
  return dense_random(6000 + (uint64_t)(10 * step + l), rows, layers[l].d_out);
}

/* g^T [a 1] / rows */
static dense gradient(int step, int l, int64_t rows) {
  dense a = inputs(step, l, rows), g = output_gradients(step, l, rows),
        b = dense_zero(rows, service_columns(&layers[l]));
  for (int64_t i = 0; i < rows; i++) {
    for (int64_t j = 0; j < b.n; j++) b.x[i][j] = j < a.n ? a.x[i][j] : 1;
  }
  return dense_scaled(1 / (double)rows, dense_product(dense_transposed(g), b));
}

static bool is_caller(const curvd_ctx *ctx) {
  return strcmp(curvd_get(ctx, "momentum_place"), "caller") == 0;
}

static double momentum_of(const curvd_ctx *ctx) {
  return strtod(curvd_get(ctx, "momentum"), NULL);
}

/* Rows from .. to of what g says the gradient is. */
static void tell(curvd_ctx *ctx, int l, dense a, dense g, int64_t from, int64_t to) {
  static float a_rows[DENSE_MAX * SERVICE_LD_MAX], g_rows[DENSE_MAX * SERVICE_LD_MAX];
  double scale = (is_caller(ctx) ? 1 - momentum_of(ctx) : 1) / (double)a.m;
  service_floats(a, from, to, a_rows);
  service_floats(g, from, to, g_rows);
  ck_assert_int_eq(
      curvd_capture_gradient(ctx, l, to - from, a_rows, a.n + SERVICE_PAD, g_rows, g.n + SERVICE_PAD, (float)scale),
      CURVD_OK);
}

static void tell_as(curvd_ctx *ctx, feed how, int step, int l, int64_t rows) {
  dense a = inputs(step, l, rows), g = output_gradients(step, l, rows);
  if (how == FEED_WHOLE || (how == FEED_NOW_AND_THEN && step % 5 != 4 && step % 5 != 2)) tell(ctx, l, a, g, 0, rows);
  if (how == FEED_EMPTY) tell(ctx, l, a, g, 0, 0);
  if (how == FEED_MIXED) {
    tell(ctx, l, a, g, 0, 2);
    tell(ctx, l, a, g, 2, rows);
  }
  for (int64_t i = 0; how == FEED_PIECES && i < rows; i += 2) {
    tell(ctx, l, a, g, i, i);
    tell(ctx, l, a, g, i, i + 2);
  }
}

/* What both contexts get of a step; keeps the caller's average. */
static void next_gradients(pair_of_runs *p, int step, int64_t rows, dense *V) {
  for (int l = 0; l < LAYERS; l++) {
    double mu = momentum_of(p->told);
    V[l] = gradient(step, l, rows);
    update_average(mu, V[l], &p->M[l]);
    if (is_caller(p->told)) V[l] = p->M[l];
  }
}

/* Of a product of random numbers (multiply.h). */
static double product_error(const char *options) {
  if (strstr(options, "apply_precision=bf16x3")) return 4.4e-6;
  return strstr(options, "apply_precision=bf16") ? 2.4e-3 : 0;
}

/* Relative to the length of X, and to that of a direction. */
static double rounding(const char *options, int l, int64_t rows) {
  double terms = (double)(layers[l].d_out + service_columns(&layers[l]) + rows + 20);
  return 4 * ((double)FLT_EPSILON / 2 * sqrt(terms) + product_error(options));
}

/* One step of both; distance[l]: of the told context's directions from the twin's. */
static void step_both(pair_of_runs *p, const dense *V, double *distance) {
  dense x[LAYERS], y[LAYERS];
  memcpy(x, V, sizeof x);
  memcpy(y, V, sizeof y);
  ck_assert_int_eq(service_try(p->told, 1, SERVICE_JOINED, LAYERS, layers, x), CURVD_OK);
  ck_assert_int_eq(service_try(p->twin, 1, SERVICE_JOINED, LAYERS, layers, y), CURVD_OK);
  for (int l = 0; l < LAYERS; l++) distance[l] = dense_distance(x[l], y[l]);
}

/* Where nothing is followed, not a bit changes: in the last layer, unless all layers share the scale of a clip. */
static void check_run(const follow_case *c, bool is_followed) {
  pair_of_runs p = open_pair(c->options);
  double distance[LAYERS];
  dense V[LAYERS];
  for (int step = 0; step < STEPS; step++) {
    capture_statistics(p.told, step);
    capture_statistics(p.twin, step);
    next_gradients(&p, step, c->rows, V);
    for (int l = 0; l < LAYERS; l++) tell_as(p.told, c->feed, step, l, c->rows);
    step_both(&p, V, distance);
    for (int l = 0; l < LAYERS; l++) {
      bool may_differ = is_followed && (l < 2 || strstr(c->options, "kl-clip"));
      double allowed = may_differ ? rounding(c->options, l, c->rows) : 0;
      ck_assert_msg(distance[l] <= allowed, "%s, feed %d, %d rows, layer %s, step %d: %.1e above %.1e", c->options,
                    c->feed, (int)c->rows, layers[l].name, step, distance[l], allowed);
    }
  }
  ck_assert_int_eq(n_lines, 0);
  close_pair(&p);
}

/* ---- told rightly ---- */

static const char *const settings[] = {
    "method=nystrom-kfac",
    "method=nystrom-kfac momentum_place=caller",
    "method=rs-kfac step=plain damping_mode=scalar damping=0.01",
    "method=sre-kfac step=kl-clip tail=min momentum_place=caller inv_update_steps=1000",
    "method=nystrom-kfac momentum=0 step=rms-clip",
    "method=nystrom-kfac apply_precision=bf16",
    "method=nystrom-kfac step=plain apply_precision=bf16x3",
    "method=nystrom-kfac momentum=0 apply_precision=bf16",
};
enum { BF16 = COUNT(settings) - 3 };

START_TEST(told_context_steps_like_its_twin) {
  static const feed feeds[] = {FEED_WHOLE, FEED_PIECES, FEED_NOW_AND_THEN};
  for (size_t i = 0; i < COUNT(settings) * COUNT(feeds); i++) {
    follow_case c = {settings[i / COUNT(feeds)], feeds[i % COUNT(feeds)], FEW};
    check_run(&c, true);
  }
  follow_case small_pieces = {settings[0], FEED_PIECES, MANY};
  check_run(&small_pieces, true);
}
END_TEST

/* || P - U Y || where Y is X or its transpose, U (r, n) in fp32. */
static double projection_error(const cv_lrps *side, dense Y, const float *P, int64_t ld) {
  dense U = dense_zero(side->r, side->n), Q = dense_zero(side->r, Y.n);
  for (int64_t i = 0; i < U.m; i++) {
    for (int64_t j = 0; j < U.n; j++) U.x[i][j] = side->U[i * side->ld + j];
    for (int64_t j = 0; j < Q.n; j++) Q.x[i][j] = P[i * ld + j];
  }
  return dense_norm(dense_sum(1, Q, -1, dense_product(U, Y)));
}

/* The momentum in fp64, from the gradients' definition, and its projections onto the bases in force. Without momentum
 * all of them are of this step's rows, and products in bf16 show. */
START_TEST(projections_are_those_of_the_momentum_in_fp64) {
  static const int which[] = {0, 1, BF16, BF16 + 1, BF16 + 2};
  for (size_t c = 0; c < COUNT(which); c++) {
    int i = which[c];
    pair_of_runs p = open_pair(settings[i]);
    double distance[LAYERS];
    dense V[LAYERS], X[2] = {dense_zero(30, 41), dense_zero(44, 36)};
    for (int step = 0; step < STEPS; step++) {
      capture_statistics(p.told, step);
      capture_statistics(p.twin, step);
      next_gradients(&p, step, FEW, V);
      for (int l = 0; l < LAYERS; l++) tell_as(p.told, FEED_WHOLE, step, l, FEW);
      step_both(&p, V, distance);
      for (int l = 0; l < 2; l++) {
        const cv_layer *layer = &p.told->layer[l];
        const cv_factor *A = &layer->factor[CV_A], *G = &layer->factor[CV_G];
        double mu = momentum_of(p.told), least = mu == 0 ? 1e-4 * dense_norm(V[l]) : 0;
        X[l] = dense_sum(mu, X[l], 1 - mu, gradient(step, l, FEW));
        ck_assert(layer->is_following);
        double allowed = rounding(settings[i], l, FEW) * dense_norm(X[l]);
        double error_p = projection_error(&G->applied.side, X[l], layer->P, A->ld),
               error_r = projection_error(&A->applied.side, dense_transposed(X[l]), layer->R, G->ld);
        ck_assert(error_p >= least && error_r >= least);
        ck_assert_double_le(error_p, allowed);
        ck_assert_double_le(error_r, allowed);
      }
    }
    close_pair(&p);
  }
}
END_TEST

/* ---- ignored ---- */

START_TEST(what_is_no_gain_is_ignored) {
  const follow_case cases[] = {{settings[0], FEED_WHOLE, MANY},
                               {settings[1], FEED_WHOLE, MANY},
                               {settings[0], FEED_EMPTY, FEW},
                               {"method=kfac", FEED_WHOLE, FEW},
                               {"method=kfac form=cholesky exponent_a=1 exponent_g=1", FEED_WHOLE, FEW},
                               {"method=nystrom-kfac skip=*", FEED_WHOLE, FEW},
                               {"method=none", FEED_WHOLE, FEW}};
  for (size_t i = 0; i < COUNT(cases); i++) check_run(&cases[i], false);
}
END_TEST

/* Pieces of 2 and of 28 rows, 17 being the limit of the first layer. */
START_TEST(pieces_of_which_one_is_no_gain) {
  follow_case c = {settings[0], FEED_MIXED, MANY};
  check_run(&c, true);
}
END_TEST

/* ---- told wrongly ---- */

enum { WRONG_STEP = 2, CHECK_STEP = 7 };

/* Says of the layer "wide" in step 2 that its gradient is another one. */
static void check_wrong(const char *options) {
  pair_of_runs p = open_pair(options);
  double distance[LAYERS];
  dense V[LAYERS];
  for (int step = 0; step < REFRESH; step++) {
    capture_statistics(p.told, step);
    capture_statistics(p.twin, step);
    next_gradients(&p, step, FEW, V);
    for (int l = 0; l < LAYERS; l++)
      tell_as(p.told, FEED_WHOLE, step + (l == 0 && step == WRONG_STEP ? 50 : 0), l, FEW);
    step_both(&p, V, distance);
    bool is_wrong = step >= WRONG_STEP && step < CHECK_STEP;
    if (is_wrong) ck_assert_msg(distance[0] > 0.01, "step %d: %.1e", step, distance[0]);
    if (!is_wrong) ck_assert_double_le(distance[0], rounding(options, 0, FEW));
    ck_assert_double_le(distance[1], rounding(options, 1, FEW));
    ck_assert_int_eq(n_lines, step >= CHECK_STEP);
  }
  ck_assert_msg(strstr(lines[0], "layer wide,") && strstr(lines[0], "step 7:"), "%s", lines[0]);
  close_pair(&p);
}

/* One row of P or R of the layer "wide" goes wrong in step 2: the check looks at every row of both. */
static void check_spoilt_row(bool in_p, bool is_last) {
  pair_of_runs p = open_pair(settings[0]);
  double distance[LAYERS];
  dense V[LAYERS];
  for (int step = 0; step < REFRESH; step++) {
    capture_statistics(p.told, step);
    capture_statistics(p.twin, step);
    next_gradients(&p, step, FEW, V);
    for (int l = 0; l < LAYERS; l++) tell_as(p.told, FEED_WHOLE, step, l, FEW);
    step_both(&p, V, distance);
    ck_assert_int_eq(n_lines, step >= CHECK_STEP);
    if (step >= CHECK_STEP) ck_assert_double_le(distance[0], rounding(settings[0], 0, FEW));
    if (step != WRONG_STEP) continue;
    const cv_layer *layer = &p.told->layer[0];
    const cv_factor *rows = &layer->factor[in_p ? CV_G : CV_A], *columns = &layer->factor[in_p ? CV_A : CV_G];
    float *row = (in_p ? layer->P : layer->R) + (is_last ? rows->applied.side.r - 1 : 0) * columns->ld;
    for (int64_t j = 0; j < columns->n; j++) row[j] += 1;
  }
  close_pair(&p);
}

START_TEST(spoilt_projection_is_noticed_and_repaired) {
  for (int i = 0; i < 4; i++) check_spoilt_row(i % 2, i / 2);
}
END_TEST

/* That it shows is the proof that P and R follow what is captured and nothing else. */
START_TEST(wrong_gradient_is_noticed_and_repaired) {
  check_wrong(settings[0]);
  check_wrong(settings[1]);
  check_wrong(settings[BF16]);
}
END_TEST

/* ---- steps that fail ---- */

/* In step 4 of 0 .. 7 something goes wrong; the twin fails alike. */
static void check_failure(const char *options, void (*go_wrong)(pair_of_runs *p, const dense *V)) {
  pair_of_runs p = open_pair(options);
  double distance[LAYERS];
  dense V[LAYERS];
  for (int step = 0; step < CHECK_STEP; step++) {
    capture_statistics(p.told, step);
    capture_statistics(p.twin, step);
    next_gradients(&p, step, FEW, V);
    for (int l = 0; l < LAYERS; l++) tell_as(p.told, FEED_WHOLE, step, l, FEW);
    if (step == 4) go_wrong(&p, V);
    if (step == 4 && p.told->step > step) continue;
    step_both(&p, V, distance);
    for (int l = 0; l < 2; l++) {
      double allowed = rounding(options, l, FEW);
      ck_assert_msg(distance[l] <= allowed, "layer %s, step %d: %.1e above %.1e", layers[l].name, step, distance[l],
                    allowed);
    }
  }
  close_pair(&p);
}

static void fail_both(pair_of_runs *p, double lr, const dense *V, curvd_status expected) {
  dense x[LAYERS], y[LAYERS];
  memcpy(x, V, sizeof x);
  memcpy(y, V, sizeof y);
  ck_assert_int_eq(service_try(p->told, lr, SERVICE_JOINED, LAYERS, layers, x), expected);
  ck_assert_int_eq(service_try(p->twin, lr, SERVICE_JOINED, LAYERS, layers, y), expected);
}

static void fail_by_argument(pair_of_runs *p, const dense *V) {
  fail_both(p, -1, V, CURVD_ERR_ARGUMENT);
}

static void fail_by_damping(pair_of_runs *p, const dense *V) {
  fail_both(p, 1, V, CURVD_ERR_NUMERIC);
}

/* The average starts anew. */
static void fail_by_gradient(pair_of_runs *p, const dense *V) {
  dense bad[LAYERS];
  memcpy(bad, V, sizeof bad);
  bad[1].x[3][4] = NAN;
  fail_both(p, 1, bad, CURVD_ERR_NUMERIC);
  for (int l = 0; l < LAYERS; l++) p->M[l] = dense_scaled(0, p->M[l]);
}

START_TEST(refused_step_is_made_again) {
  check_failure(settings[0], fail_by_argument);
}
END_TEST

START_TEST(bad_gradient_is_not_followed) {
  check_failure(settings[0], fail_by_gradient);
}
END_TEST

/* Damping 0 with a tail of 0 in step 4 alone. */
START_TEST(step_without_a_direction_is_followed) {
  check_failure("method=nystrom-kfac tail=zero damping=0.1,0@4,0.1@5", fail_by_damping);
}
END_TEST

START_TEST(arguments_are_checked) {
  curvd_ctx *ctx = open_with(settings[0]);
  float x[64] = {0};
  ck_assert_int_eq(curvd_capture_gradient(NULL, 0, 1, x, 40, x, 30, 1), CURVD_ERR_ARGUMENT);
  ck_assert_int_eq(curvd_capture_gradient(ctx, LAYERS, 1, x, 40, x, 30, 1), CURVD_ERR_ARGUMENT);
  ck_assert_int_eq(curvd_capture_gradient(ctx, 0, -1, x, 40, x, 30, 1), CURVD_ERR_ARGUMENT);
  ck_assert_int_eq(curvd_capture_gradient(ctx, 0, 1, NULL, 40, x, 30, 1), CURVD_ERR_ARGUMENT);
  ck_assert_int_eq(curvd_capture_gradient(ctx, 0, 1, x, 40, NULL, 30, 1), CURVD_ERR_ARGUMENT);
  ck_assert_int_eq(curvd_capture_gradient(ctx, 0, 1, x, 39, x, 30, 1), CURVD_ERR_ARGUMENT);
  ck_assert_int_eq(service_metrics(ctx).stage_calls[CURVD_STAGE_FOLLOW], 0);
  ck_assert_int_eq(curvd_capture_gradient(ctx, 0, 1, x, 40, x, 30, 1), CURVD_OK);
  ck_assert_int_eq(service_metrics(ctx).stage_calls[CURVD_STAGE_FOLLOW], 1);
  service_close(&ctx);
}
END_TEST

static Suite *make_suite(void) {
  const TTest *const tests[] = {told_context_steps_like_its_twin,
                                projections_are_those_of_the_momentum_in_fp64,
                                what_is_no_gain_is_ignored,
                                pieces_of_which_one_is_no_gain,
                                wrong_gradient_is_noticed_and_repaired,
                                spoilt_projection_is_noticed_and_repaired,
                                refused_step_is_made_again,
                                bad_gradient_is_not_followed,
                                step_without_a_direction_is_followed,
                                arguments_are_checked};
  return service_suite("follow", tests, COUNT(tests));
}

int main(int argc, char **argv) {
  return mpi_test_main(argc, argv, make_suite);
}
