/* Convolutions in the service: their factors against explicit loops in fp64, the cases in which expand and reduce are
 * exact against the dense Fisher, layouts, groups, sampling, and what is refused.
 *
 * Tolerance of factors: sums of rows fp32 products, rows eps (6e-8) of the magnitudes at most: entries within 1e-4 of
 * sqrt(S_ii S_jj) with up to 1000 rows. */
#include "conv_fixture.h"
#include "kfac_reference.h"
#include "mpi_assert.h"
#include "service_fixture.h"

#include "curvature/internal.h"

#define COUNT(list) (sizeof list / sizeof list[0])

static const char plain[] = "method=kfac loss_reduction=sum factor_update_steps=1 inv_update_steps=1 factor_decay=0 "
                            "step=plain momentum=0";

static curvd_ctx *open_conv(const char *options, const curvd_conv *shape, bool has_bias) {
  char text[512];
  snprintf(text, sizeof text, "%s %s", plain, options);
  curvd_ctx *ctx = service_make(MPI_COMM_SELF, text, 0, NULL);
  int32_t index = -1;
  ck_assert_msg(curvd_layer_add_conv(ctx, "features.conv", shape, has_bias, &index) == CURVD_OK && index == 0, "%s",
                curvd_last_error(ctx));
  ck_assert_msg(curvd_plan(ctx) == CURVD_OK, "%s", curvd_last_error(ctx));
  return ctx;
}

static curvd_status capture(curvd_ctx *ctx, const conv_image *a, const conv_image *g) {
  return curvd_capture(ctx, 0, a->examples, a->x, a->ld, g->x, g->ld);
}

static service_layer layer_of(const curvd_conv *s, bool has_bias) {
  return (service_layer){"features.conv", conv_columns(s), s->c_out, has_bias};
}

/* A step of one layer; the direction of V. */
static dense step(curvd_ctx *ctx, const curvd_conv *s, bool has_bias, dense V) {
  service_layer layer = layer_of(s, has_bias);
  return service_step(ctx, &layer, V);
}

static dense V_of(const curvd_conv *s, bool has_bias) {
  return dense_random(77, s->c_out, conv_columns(s) + has_bias);
}

static dense average(const curvd_ctx *ctx, int f) {
  const cv_factor *factor = &ctx->layer[0].factor[f];
  dense S = dense_zero(factor->n, factor->n);
  for (int64_t i = 0; i < S.n; i++) {
    for (int64_t j = 0; j <= i; j++) S.x[i][j] = S.x[j][i] = factor->own.average[i * factor->own.ld + j];
  }
  return S;
}

static void check_factor(dense S, dense expected, const char *what, int shape, char name) {
  for (int64_t i = 0; i < expected.n; i++) {
    for (int64_t j = 0; j <= i; j++) {
      double size = sqrt(expected.x[i][i] * expected.x[j][j]);
      ck_assert_msg(fabs(S.x[i][j] - expected.x[i][j]) <= 1e-4 * size, "%s, shape %d: %c[%d][%d] = %g, not %g", what,
                    shape, name, (int)i, (int)j, S.x[i][j], expected.x[i][j]);
    }
  }
}

/* ---- factors ---- */

enum { EXAMPLES = 7 };

START_TEST(factors_are_those_of_the_definition) {
  static const char *const carriers[] = {"triangle", "columns"};
  for (int i = 0; i < CONV_SHAPES * 4 * 4 * 2; i++) {
    curvd_conv s = conv_shapes[i % CONV_SHAPES];
    conv_sharing how = (conv_sharing)(i / CONV_SHAPES % 4);
    bool has_bias = i / CONV_SHAPES / 4 % 2;
    s.layout = i / CONV_SHAPES / 8 % 2 ? CURVD_CHANNELS_FIRST : CURVD_CHANNELS_LAST;
    char options[128];
    snprintf(options, sizeof options, "weight_sharing=%s carrier=%s sample_rows=0", conv_words[how],
             carriers[i / CONV_SHAPES / 16]);
    curvd_ctx *ctx = open_conv(options, &s, has_bias);
    conv_image a = conv_inputs(&s, EXAMPLES, 2, 1), g = conv_gradients(&s, EXAMPLES, 3, 2);
    ck_assert_msg(capture(ctx, &a, &g) == CURVD_OK, "%s", curvd_last_error(ctx));
    step(ctx, &s, has_bias, V_of(&s, has_bias));
    check_factor(average(ctx, CV_A), conv_factor_a(&s, &a, has_bias, how), options, i % CONV_SHAPES, 'A');
    check_factor(average(ctx, CV_G), conv_factor_g(&s, &g, how), options, i % CONV_SHAPES, 'G');
    service_close(&ctx);
    free(a.x), free(g.x);
  }
}
END_TEST

/* More rows than a tile, in pieces of one example to three. */
START_TEST(pieces_of_a_capture_add_up) {
  curvd_conv s = {.c_in = 2, .c_out = 3, .in = {17, 19}, .kernel = {3, 3}, .pad = {1, 1}};
  for (int i = 0; i < 2; i++) {
    s.layout = i ? CURVD_CHANNELS_FIRST : CURVD_CHANNELS_LAST;
    curvd_ctx *ctx = open_conv("sample_rows=0", &s, true);
    conv_image a = conv_inputs(&s, 6, 0, 1), g = conv_gradients(&s, 6, 0, 2);
    int64_t unit_a = i ? a.ld : a.ld * 17 * 19, unit_g = i ? g.ld : g.ld * 17 * 19;
    for (int64_t from = 0, n = 1; from < 6; from += n++)
      ck_assert_int_eq(curvd_capture(ctx, 0, n, a.x + from * unit_a, a.ld, g.x + from * unit_g, g.ld), CURVD_OK);
    step(ctx, &s, true, V_of(&s, true));
    check_factor(average(ctx, CV_A), conv_factor_a(&s, &a, true, CONV_KFC), "pieces", i, 'A');
    check_factor(average(ctx, CV_G), conv_factor_g(&s, &g, CONV_KFC), "pieces", i, 'G');
    service_close(&ctx);
    free(a.x), free(g.x);
  }
}
END_TEST

/* One example of 2^18 pixels is a piece to draw from: three are. Rows that are not drawn, and 64 columns that are. */
START_TEST(examples_as_large_as_a_piece) {
  curvd_conv s = {.c_in = 1, .c_out = 1, .in = {512, 512}, .kernel = {2, 2}, .pad = {1, 0}, .stride = {1, 1}};
  for (int i = 0; i < 2; i++) {
    s.layout = i ? CURVD_CHANNELS_FIRST : CURVD_CHANNELS_LAST;
    conv_image a = conv_inputs(&s, 3, 0, 1), g = conv_gradients(&s, 3, 0, 2);
    curvd_ctx *ctx = open_conv(i ? "sample_rows=0" : "sample_rows=100000", &s, false);
    ck_assert_int_eq(capture(ctx, &a, &g), CURVD_OK);
    ck_assert_int_eq(ctx->layer[0].factor[CV_A].captured.rows, i ? 3 * conv_positions(&s) : 300000);
    ck_assert_int_eq(ctx->layer[0].factor[CV_A].captured.examples, 3);
    step(ctx, &s, false, V_of(&s, false));
    /* 300000 draws err by sqrt((1 / 0.9 - 1 / 4) / 300000) of the trace at most: 1.7e-3; fp32 sums of 8e5 rows by 1e-3
     */
    dense A = conv_factor_a(&s, &a, false, CONV_KFC), off = dense_sum(1, average(ctx, CV_A), -1, A);
    ck_assert_msg(dense_norm(off) < 3e-3 * dense_trace(A), "%g of %g", dense_norm(off), dense_trace(A));
    service_close(&ctx);
    free(a.x), free(g.x);
  }
}
END_TEST

/* Loss means divide gradients by the examples of a call, not by its rows. */
START_TEST(gradients_of_a_mean_loss) {
  const curvd_conv s = conv_shapes[0];
  curvd_ctx *ctx = open_conv("loss_reduction=mean", &s, false);
  conv_image a = conv_inputs(&s, EXAMPLES, 0, 1), g = conv_gradients(&s, EXAMPLES, 0, 2);
  ck_assert_int_eq(capture(ctx, &a, &g), CURVD_OK);
  step(ctx, &s, false, V_of(&s, false));
  dense expected = dense_scaled(EXAMPLES * EXAMPLES, conv_factor_g(&s, &g, CONV_KFC));
  check_factor(average(ctx, CV_G), expected, "mean", 0, 'G');
  service_close(&ctx);
  free(a.x), free(g.x);
}
END_TEST

/* Each group has a pointer into the whole images, channels last with the distance of whole pixels, channels first with
 * that of whole examples. */
START_TEST(groups_are_layers_of_their_own) {
  for (int first = 0; first < 2; first++) {
    curvd_conv whole = {.c_in = 6, .c_out = 4, .in = {5, 4}, .kernel = {2, 3}, .pad = {1, 0}}, part = whole;
    whole.layout = part.layout = first ? CURVD_CHANNELS_FIRST : CURVD_CHANNELS_LAST;
    part.c_in = 3, part.c_out = 2;
    conv_image a = conv_inputs(&whole, EXAMPLES, 0, 1), g = conv_gradients(&whole, EXAMPLES, 0, 2);
    for (int64_t k = 0; k < 2; k++) {
      conv_image a_k = a, g_k = g;
      a_k.x += conv_at(&a, 0, 0, 0, 3 * k), g_k.x += conv_at(&g, 0, 0, 0, 2 * k);
      curvd_ctx *ctx = open_conv("sample_rows=0", &part, true);
      ck_assert_int_eq(capture(ctx, &a_k, &g_k), CURVD_OK);
      step(ctx, &part, true, V_of(&part, true));
      check_factor(average(ctx, CV_A), conv_factor_a(&part, &a_k, true, CONV_KFC), "group", (int)k, 'A');
      check_factor(average(ctx, CV_G), conv_factor_g(&part, &g_k, CONV_KFC), "group", (int)k, 'G');
      service_close(&ctx);
    }
    free(a.x), free(g.x);
  }
}
END_TEST

/* ---- directions ---- */

static dense direction_of(const char *options, const curvd_conv *s, conv_image a, conv_image g, dense V) {
  curvd_ctx *ctx = open_conv(options, s, true);
  ck_assert_msg(capture(ctx, &a, &g) == CURVD_OK, "%s", curvd_last_error(ctx));
  dense D = step(ctx, s, true, V);
  service_close(&ctx);
  return D;
}

/* Under relative damping a direction scales as A^-1/2 and G^-1/2 do, whose product is the same. T = 20 is no power of
 * two, so the factors differ by rounding, eps, which a condition number of 200 amplifies (test_layouts.c): 1e-4. The
 * mean patch makes other factors. */
START_TEST(three_splits_make_one_direction) {
  const curvd_conv s = conv_shapes[0];
  conv_image a = conv_inputs(&s, EXAMPLES, 0, 1), g = conv_gradients(&s, EXAMPLES, 0, 2);
  static const char *const more[] = {"", "method=nystrom-kfac eig_rank=3 oversampling=2 damping_mode=relative-max",
                                     "damping_mode=pi damping=0.01"};
  for (size_t i = 0; i < COUNT(more); i++) {
    dense D[4];
    for (int how = 0; how < 4; how++) {
      char options[256];
      snprintf(options, sizeof options, "%s%sweight_sharing=%s", more[i], *more[i] ? " " : "", conv_words[how]);
      D[how] = direction_of(options, &s, a, g, V_of(&s, true));
    }
    ck_assert_double_lt(dense_distance(D[CONV_PUBLISHED], D[CONV_KFC]), 1e-4);
    ck_assert_double_lt(dense_distance(D[CONV_EXPAND], D[CONV_KFC]), 1e-4);
    ck_assert_double_gt(dense_distance(D[CONV_REDUCE], D[CONV_KFC]), 0.05);
  }
  free(a.x), free(g.x);
}
END_TEST

/* The same network in both layouts: the columns of V and of the direction change places. */
START_TEST(layouts_make_one_direction) {
  for (int i = 0; i < CONV_SHAPES; i++) {
    curvd_conv s[2] = {conv_shapes[i], conv_shapes[i]};
    dense D[2];
    s[1].layout = CURVD_CHANNELS_FIRST;
    for (int l = 0; l < 2; l++) {
      conv_image a = conv_inputs(&s[l], EXAMPLES, l, 1), g = conv_gradients(&s[l], EXAMPLES, 1 - l, 2);
      dense V = V_of(&s[0], true), W = V;
      for (int64_t k = 0; k < conv_columns(&s[0]) * V.m; k++) {
        int64_t m = k % V.m, c = k / V.m % s[0].c_in, x = k / V.m / s[0].c_in % s[0].kernel[1],
                y = k / V.m / s[0].c_in / s[0].kernel[1];
        W.x[m][conv_column(&s[l], y, x, c)] = V.x[m][conv_column(&s[0], y, x, c)];
      }
      dense moved = direction_of("sample_rows=0", &s[l], a, g, W);
      D[l] = moved;
      for (int64_t k = 0; k < conv_columns(&s[0]) * V.m; k++) {
        int64_t m = k % V.m, c = k / V.m % s[0].c_in, x = k / V.m / s[0].c_in % s[0].kernel[1],
                y = k / V.m / s[0].c_in / s[0].kernel[1];
        D[l].x[m][conv_column(&s[0], y, x, c)] = moved.x[m][conv_column(&s[l], y, x, c)];
      }
      free(a.x), free(g.x);
    }
    ck_assert_msg(dense_distance(D[1], D[0]) < 1e-4, "shape %d: %g", i, dense_distance(D[1], D[0]));
  }
}
END_TEST

/* ---- against the dense Fisher ---- */

/* Gradients whose sum of g g^T over groups of c_out of them is c_out I: sqrt(c_out) e_k in turn, by position or, the
 * same at every position and T times smaller, by example. */
static conv_image unit_gradients(const curvd_conv *s, int64_t examples, bool is_pooled) {
  conv_image g = conv_gradients(s, examples, 0, 2);
  int64_t T = conv_positions(s);
  for (int64_t r = 0; r < examples * T * s->c_out; r++) {
    int64_t c = r % s->c_out, t = r / s->c_out % T, e = r / s->c_out / T, k = (is_pooled ? e : e * T + t) % s->c_out;
    double size = sqrt((double)s->c_out) / (is_pooled ? (double)T : 1);
    g.x[conv_at(&g, e, t / g.size[1], t % g.size[1], c)] = (float)(c == k ? size : 0);
  }
  return g;
}

/* F = mean over examples of E[vec(D) vec(D)^T], D = sum_t g_t p_t^T the example's gradient: with g_t ~ N(0, I)
 * independent over positions (a sum of squared errors at each of them), or g_t = r / T with one r ~ N(0, I) (squared
 * errors of the mean over positions). E over r is a sum over unit vectors, as the gradient is linear in them. */
static dense fisher(const curvd_conv *s, const conv_image *a, bool is_pooled) {
  int64_t n = conv_columns(s) + 1, m = s->c_out, T = conv_positions(s);
  dense F = dense_zero(m * n, m * n);
  for (int64_t e = 0; e < a->examples; e++) {
    double pooled[DENSE_MAX] = {0};
    for (int64_t t = 0; t < T; t++) {
      double row[DENSE_MAX];
      conv_patch(s, a, true, e, t / conv_out(s, 1), t % conv_out(s, 1), row);
      for (int64_t j = 0; j < n; j++) pooled[j] += row[j] / (double)T;
      for (int64_t k = 0; k < m && (!is_pooled || t == T - 1); k++) {
        double vec[DENSE_MAX] = {0};
        for (int64_t j = 0; j < n; j++) vec[j * m + k] = is_pooled ? pooled[j] : row[j];
        conv_add_square(&F, 1 / (double)a->examples, vec);
      }
    }
  }
  return F;
}

/* expand is exact where each position has its own loss, reduce where positions are averaged before the loss; each is
 * far off in the other case. Damped by lambda, a condition number below 1e3 times eps: 1e-4. */
START_TEST(expand_and_reduce_are_exact_in_their_cases) {
  const curvd_conv s = {.c_in = 2, .c_out = 3, .in = {4, 3}, .kernel = {2, 2}, .pad = {0, 1}};
  enum { MANY = 12 };
  conv_image a = conv_inputs(&s, MANY, 0, 1);
  for (int pooled = 0; pooled < 2; pooled++) {
    conv_image g = unit_gradients(&s, MANY, pooled);
    dense F = fisher(&s, &a, pooled), V = V_of(&s, true);
    double lambda = 0.02 * dense_trace(F) / (double)F.n;
    dense exact = dense_unvec(dense_product(dense_inverse_power(F, lambda, 1), dense_vec(V)), V.m);
    for (int how = 0; how < 4; how++) {
      char options[256];
      snprintf(options, sizeof options,
               "sample_rows=0 damping_mode=scalar damping=%.17g exponent_a=1 exponent_g=1 weight_sharing=%s", lambda,
               conv_words[how]);
      double off = dense_distance(direction_of(options, &s, a, g, V), exact);
      bool is_exact = (how == CONV_REDUCE) == (pooled == 1);
      ck_assert_msg(is_exact ? off < 1e-4 : off > 0.05, "%s, pooled %d: %g", conv_words[how], pooled, off);
    }
    free(g.x);
  }
  free(a.x);
}
END_TEST

/* ---- sampling ---- */

/* 512 positions of 8 examples: A has n = 64, so 0.6 * 4096 * 2 / 64 = 77 rows would do, and 256 are drawn; G has m = 2,
 * and all of its 4096 rows are used. */
static const curvd_conv large = {.c_in = 7, .c_out = 2, .in = {16, 32}, .kernel = {3, 3}, .pad = {1, 1}};

START_TEST(large_captures_are_sampled) {
  conv_image a = conv_inputs(&large, 8, 1, 1), g = conv_gradients(&large, 8, 0, 2);
  dense A = conv_factor_a(&large, &a, true, CONV_KFC), G = conv_factor_g(&large, &g, CONV_KFC);
  curvd_ctx *ctx = open_conv("carrier=columns capture_rows=8 average=first", &large, true);
  dense mean = dense_zero(64, 64);
  double error = 0, trace = dense_trace(A);
  enum { STEPS = 100 };
  int64_t allocations = service_metrics(ctx).n_allocations;
  for (int k = 0; k < STEPS; k++) {
    ck_assert_msg(capture(ctx, &a, &g) == CURVD_OK, "%s", curvd_last_error(ctx));
    ck_assert_int_eq(ctx->layer[0].factor[CV_A].captured.rows, 256);
    ck_assert_int_eq(ctx->layer[0].factor[CV_G].captured.rows, 4096);
    step(ctx, &large, true, V_of(&large, true));
    dense S = average(ctx, CV_A), off = dense_sum(1, S, -1, A);
    mean = dense_sum(1, mean, 1.0 / STEPS, S);
    error += dense_dot(off, off) / STEPS;
    ck_assert_double_lt(fabs(ctx->layer[0].factor[CV_A].own.fresh.trace - trace), 1e-6 * trace);
  }
  /* thin.h: E |S - A|^2 <= (tr^2 / 0.9 - |A|^2) / c; the mean of STEPS of them keeps a STEPS-th */
  double bound = (trace * trace / 0.9 - dense_dot(A, A)) / 256, off = dense_norm(dense_sum(1, mean, -1, A));
  ck_assert_msg(error < bound && error > 0.02 * bound, "squared error %g, bound %g", error, bound);
  ck_assert_msg(off < 2 * sqrt(bound / STEPS), "the mean is off by %g, bound %g", off, sqrt(bound / STEPS));
  check_factor(average(ctx, CV_G), G, "all rows", 0, 'G');
  ck_assert_int_eq(service_metrics(ctx).n_allocations, allocations);
  service_close(&ctx);
  free(a.x), free(g.x);
}
END_TEST

/* ---- what is refused, and left alone ---- */

START_TEST(shapes_without_output_are_refused) {
  const struct {
    curvd_conv shape;
    const char *word;
  } bad[] = {
      {{.c_in = 3, .c_out = 4, .in = {5, 5}, .kernel = {6, 1}}, "no output"},
      {{.c_in = 3, .c_out = 4, .in = {5, 5}, .kernel = {3, 3}, .dilation = {1, 3}}, "no output"},
      {{.c_in = 0, .c_out = 4, .in = {5, 5}, .kernel = {3, 3}}, "channels"},
      {{.c_in = 3, .c_out = -1, .in = {5, 5}, .kernel = {3, 3}}, "channels"},
      {{.c_in = 3, .c_out = 4, .in = {0, 5}, .kernel = {1, 1}}, "height"},
      {{.c_in = 3, .c_out = 4, .in = {5, 5}, .kernel = {1, 0}}, "width"},
      {{.c_in = 3, .c_out = 4, .in = {5, 5}, .kernel = {1, 1}, .stride = {-1, 1}}, "height"},
      {{.c_in = 3, .c_out = 4, .in = {5, 5}, .kernel = {1, 1}, .pad = {0, -1}}, "width"},
      {{.c_in = 3, .c_out = 4, .in = {5, 5}, .kernel = {1, 1}, .layout = (curvd_layout)7}, "layout"},
      {{.c_in = 1 << 20, .c_out = 4, .in = {99, 99}, .kernel = {40, 40}}, "exceeds"},
      {{.c_in = 1, .c_out = 4, .in = {1 << 20, 1 << 20}, .kernel = {1 << 20, 1}}, "exceeds"},
      {{.c_in = 1, .c_out = 4, .in = {1, 1}, .kernel = {1, 1}, .pad = {1 << 29, 1 << 29}}, "exceeds"},
  };
  curvd_ctx *ctx = service_make(MPI_COMM_SELF, plain, 0, NULL);
  for (size_t i = 0; i < COUNT(bad); i++) {
    ck_assert_int_eq(curvd_layer_add_conv(ctx, "conv7", &bad[i].shape, true, NULL), CURVD_ERR_ARGUMENT);
    const char *text = curvd_last_error(ctx);
    ck_assert_msg(strstr(text, "conv7") && strstr(text, bad[i].word), "case %zu: %s", i, text);
  }
  ck_assert_int_eq(curvd_layer_add_conv(ctx, "conv7", NULL, true, NULL), CURVD_ERR_ARGUMENT);
  ck_assert_int_eq(curvd_layer_add_conv(ctx, NULL, &conv_shapes[0], true, NULL), CURVD_ERR_ARGUMENT);
  ck_assert_int_eq(curvd_layer_count(ctx), 0);
  curvd_destroy(&ctx);
}
END_TEST

START_TEST(captures_that_do_not_fit_are_refused) {
  curvd_conv s = conv_shapes[0];
  float x[1] = {0};
  for (int first = 0; first < 2; first++) {
    s.layout = first ? CURVD_CHANNELS_FIRST : CURVD_CHANNELS_LAST;
    int64_t lda = first ? 60 : 3, ldg = first ? 80 : 4;
    curvd_ctx *ctx = open_conv("carrier=columns capture_rows=2 sample_rows=0", &s, true);
    ck_assert_int_eq(curvd_capture(ctx, 0, 1, x, lda - 1, x, ldg), CURVD_ERR_ARGUMENT);
    ck_assert_int_eq(curvd_capture(ctx, 0, 1, x, lda, x, ldg - 1), CURVD_ERR_ARGUMENT);
    ck_assert_int_eq(curvd_capture(ctx, 0, 1 << 29, x, lda, x, ldg), CURVD_ERR_ARGUMENT);
    ck_assert(strstr(curvd_last_error(ctx), "features.conv"));
    ck_assert_int_eq(curvd_capture(ctx, 0, 3, x, lda, x, ldg), CURVD_ERR_SIZE); /* 60 rows, room for 40 */
    ck_assert_msg(strstr(curvd_last_error(ctx), "60") && strstr(curvd_last_error(ctx), "40"), "%s",
                  curvd_last_error(ctx));
    ck_assert_int_eq(curvd_capture(ctx, 0, 0, NULL, 0, NULL, 0), CURVD_OK);
    service_close(&ctx);
  }
}
END_TEST

/* Rows of a factor beyond 2^30 are not kept: columns are refused where they are asked for, and not chosen by auto. */
START_TEST(carriers_without_room_for_all_rows) {
  const curvd_conv wide = {.c_in = 1, .c_out = 2, .in = {4096, 4096}, .kernel = {3, 3}, .pad = {1, 1}};
  curvd_ctx *ctx =
      service_make(MPI_COMM_SELF, "method=kfac carrier=columns capture_rows=100 sample_rows=0 dry_run=true", 0, NULL);
  ck_assert_int_eq(curvd_layer_add_conv(ctx, "wide", &wide, true, NULL), CURVD_OK);
  ck_assert_int_eq(curvd_plan(ctx), CURVD_ERR_SIZE);
  ck_assert_msg(strstr(curvd_last_error(ctx), "wide") && strstr(curvd_last_error(ctx), "capture_rows"), "%s",
                curvd_last_error(ctx));
  curvd_destroy(&ctx);
  ctx = service_make(MPI_COMM_SELF, "method=kfac capture_rows=100 sample_rows=0 dry_run=true", 0, NULL);
  ck_assert_int_eq(curvd_layer_add_conv(ctx, "wide", &wide, true, NULL), CURVD_OK);
  ck_assert_msg(curvd_plan(ctx) == CURVD_OK, "%s", curvd_last_error(ctx));
  ck_assert_str_eq(service_factor(ctx, 0, CV_A).carrier, "triangle");
  curvd_destroy(&ctx);
}
END_TEST

/* apply factored leaves convolutions to the step, and captured gradients change nothing. */
START_TEST(convolutions_are_not_factored_and_not_followed) {
  const curvd_conv s = conv_shapes[0];
  conv_image a = conv_inputs(&s, EXAMPLES, 0, 1), g = conv_gradients(&s, EXAMPLES, 0, 2);
  dense V = V_of(&s, true), D[3];
  static const char *const more[] = {"", "apply=factored", "method=nystrom-kfac eig_rank=3 oversampling=2"};
  for (size_t i = 0; i < COUNT(more); i++) {
    curvd_ctx *ctx = open_conv(more[i], &s, true), *twin = open_conv(more[i], &s, true);
    ck_assert(!curvd_is_factored(ctx, 0));
    curvd_gradient to = {.ld = 0};
    ck_assert_int_eq(curvd_precondition(ctx, 0, 1, a.x, a.ld, g.x, g.ld, 1, 0, &to), CURVD_ERR_STATE);
    for (int k = 0; k < 3; k++) {
      ck_assert_int_eq(capture(ctx, &a, &g), CURVD_OK);
      ck_assert_int_eq(capture(twin, &a, &g), CURVD_OK);
      ck_assert_int_eq(curvd_capture_gradient(ctx, 0, 1, a.x, a.ld, g.x, g.ld, 1), CURVD_OK);
      D[i] = step(ctx, &s, true, V);
      dense other = step(twin, &s, true, V);
      ck_assert_msg(memcmp(&D[i], &other, sizeof other) == 0, "%s, step %d", more[i], k);
    }
    service_close(&ctx);
    service_close(&twin);
  }
  ck_assert_double_lt(dense_distance(D[1], D[0]), 1e-5); /* of the same statistics, a step later */
  free(a.x), free(g.x);
}
END_TEST

/* Under apply factored a refresh lands a step later, as with staleness 1, even where no layer is factored: workers
 * change the test matrix of their sketches when the owner expects it. */
START_TEST(sketches_land_as_those_of_factored_layers) {
  static const char *const more[] = {"apply=factored", "apply=replicated staleness=1"};
  const curvd_conv s = conv_shapes[0];
  dense D[2][6];
  for (size_t i = 0; i < COUNT(more); i++) {
    char options[256];
    snprintf(options, sizeof options,
             "method=nystrom-kfac carrier=sketch eig_rank=3 oversampling=2 inv_update_steps=2 factor_decay=0.9 %s",
             more[i]);
    curvd_ctx *ctx = open_conv(options, &s, true);
    for (int k = 0; k < 6; k++) {
      conv_image a = conv_inputs(&s, EXAMPLES, 0, (uint64_t)(1 + k)),
                 g = conv_gradients(&s, EXAMPLES, 0, (uint64_t)(20 + k));
      ck_assert_int_eq(capture(ctx, &a, &g), CURVD_OK);
      D[i][k] = step(ctx, &s, true, V_of(&s, true));
      free(a.x), free(g.x);
    }
    service_close(&ctx);
  }
  ck_assert(memcmp(D[0], D[1], sizeof D[0]) == 0);
}
END_TEST

/* Without a method, and in the skip list, gradients come back as they were. */
START_TEST(convolutions_that_are_not_preconditioned) {
  static const char *const more[] = {"method=none", "skip=features.*"};
  const curvd_conv s = conv_shapes[0];
  conv_image a = conv_inputs(&s, EXAMPLES, 0, 1), g = conv_gradients(&s, EXAMPLES, 0, 2);
  for (size_t i = 0; i < COUNT(more); i++) {
    curvd_ctx *ctx = open_conv(more[i], &s, true);
    dense V = V_of(&s, true);
    ck_assert_int_eq(capture(ctx, &a, &g), CURVD_OK);
    ck_assert_double_lt(dense_distance(step(ctx, &s, true, V), V), 1e-6);
    service_close(&ctx);
  }
  free(a.x), free(g.x);
}
END_TEST

/* One pixel that is not finite makes the statistic worthless, sampled or not; the next one is used. */
START_TEST(images_that_are_not_finite_are_refused) {
  static const char *const more[] = {"sample_rows=0", "sample_rows=9", "sample_rows=0 weight_sharing=reduce"};
  const curvd_conv s = conv_shapes[0];
  for (size_t i = 0; i < COUNT(more); i++) {
    curvd_ctx *ctx = open_conv(more[i], &s, true);
    for (int k = 0; k < 3; k++) {
      conv_image a = conv_inputs(&s, EXAMPLES, 0, 1), g = conv_gradients(&s, EXAMPLES, 0, 2);
      if (k == 1) a.x[40] = NAN;
      ck_assert_int_eq(capture(ctx, &a, &g), CURVD_OK);
      ck_assert(isfinite(dense_norm(step(ctx, &s, true, V_of(&s, true)))));
      ck_assert_int_eq(ctx->layer[0].factor[CV_A].own.fresh.statistics_step, k == 1 ? 0 : k);
      ck_assert_int_eq(ctx->layer[0].factor[CV_G].own.fresh.statistics_step, k);
      free(a.x), free(g.x);
    }
    service_close(&ctx);
  }
}
END_TEST

static Suite *make_suite(void) {
  const TTest *const tests[] = {factors_are_those_of_the_definition,
                                pieces_of_a_capture_add_up,
                                examples_as_large_as_a_piece,
                                gradients_of_a_mean_loss,
                                groups_are_layers_of_their_own,
                                three_splits_make_one_direction,
                                layouts_make_one_direction,
                                expand_and_reduce_are_exact_in_their_cases,
                                large_captures_are_sampled,
                                shapes_without_output_are_refused,
                                captures_that_do_not_fit_are_refused,
                                carriers_without_room_for_all_rows,
                                convolutions_are_not_factored_and_not_followed,
                                sketches_land_as_those_of_factored_layers,
                                convolutions_that_are_not_preconditioned,
                                images_that_are_not_finite_are_refused};
  return service_suite("conv", tests, COUNT(tests));
}

int main(int argc, char **argv) {
  return mpi_test_main(argc, argv, make_suite);
}
