/* Every kind of layer inside small networks, against fp64 loops and their central differences. */
#include "net/model_build.h"
#include "reference_layers.h"
#include "suite.h"
#include "train/network.h"

static model_spec spec_of(const char *text) {
  model_spec spec;
  cv_error err = {0};
  ck_assert_msg(network_file_parse(text, strlen(text), "test.yaml", &spec, &err) == CURVD_OK, "%s", err.text);
  return spec;
}

static float next_number(uint32_t *state) {
  *state = *state * 1664525 + 1013904223;
  return (float)*state * 0x1p-31f - 1;
}

/* A network, the same in fp64, and a regression target. */
typedef struct twins {
  cv_memory memory;
  model net;
  reference_layers reference;
  double *target;
  int64_t rows;
  double rounding; /* relative error that both passes may make, beside that of fp32 */
} twins;

/* The same weights and inputs in both. */
static void fill(twins *t) {
  uint32_t state = 7;
  nn_shape input = t->net.spec.input;
  for (int64_t i = 0; i < t->rows; i++)
    for (int64_t j = 0; j < nn_size(input); j++) {
      float x = next_number(&state);
      t->net.x[0][i * nn_stride(input) + j] = x;
      t->reference.x[0][i * nn_size(input) + j] = x;
    }
  for (int l = 0; l < t->net.spec.n_layers; l++) {
    nn_layer *layer = &t->net.layer[l];
    for (int64_t i = 0; layer->weight && i < layer->d_out; i++)
      for (int64_t j = 0; j < layer->d_in + layer->spec.has_bias; j++) {
        if (j == layer->d_in || layer->spec.kind == NN_NORM) /* biases and scales that count */
          layer->weight[i * layer->ld + j] += 0.5f * next_number(&state);
        t->reference.weight[l][i * (layer->d_in + 1) + j] = layer->weight[i * layer->ld + j];
      }
  }
  for (int64_t i = 0; i < t->rows * nn_size(model_output(&t->net.spec)); i++) t->target[i] = next_number(&state);
}

static void twins_new_in(twins *t, const model_spec *spec, int64_t rows, const nn_kernels *kernels,
                         cv_precision precision, const cv_unit *unit) {
  cv_error err = {0};
  const model_settings settings = {
      .rows_max = rows + 2, .seed = 3, .kernels = kernels, .precision = precision, .unit = unit};
  *t = (twins){.rows = rows};
  ck_assert_msg(model_create(spec, &settings, &t->memory, &t->net, &err) == CURVD_OK, "%s", err.text);
  reference_layers_new(&t->reference, &t->net.spec, rows);
  t->target = reference_numbers(rows * nn_size(model_output(spec)));
  fill(t);
}

static void twins_new(twins *t, const model_spec *spec, int64_t rows, const nn_kernels *kernels) {
  twins_new_in(t, spec, rows, kernels, CV_FP32, NULL);
}

static void twins_free(twins *t) {
  free(t->target);
  reference_layers_free(&t->reference);
  model_free(&t->memory, &t->net);
}

/* Backward from the gradient of reference_squares; only the first `counted` examples have one. */
static void run(twins *t, const nn_pass *pass, int64_t counted, float scale, float beta) {
  int top = t->net.spec.n_layers;
  nn_shape out = model_output(&t->net.spec);
  cv_error err = {0};
  model_forward(&t->net, pass, t->rows);
  for (int64_t i = 0; i < counted; i++)
    for (int64_t j = 0; j < out.channels; j++)
      t->net.g[top][i * nn_stride(out) + j] =
          t->net.x[top][i * nn_stride(out) + j] - (float)t->target[i * out.channels + j];
  model_backward(&t->net, pass, counted, true, scale, beta, NULL, NULL);
  ck_assert_msg(model_check(&t->net, &err) == CURVD_OK, "%s", err.text);
}

static void assert_outputs(twins *t) {
  int top = t->net.spec.n_layers;
  nn_shape out = model_output(&t->net.spec);
  double error = 0, norm = 0;
  reference_squares(&t->reference, t->target, t->rows);
  for (int64_t i = 0; i < t->rows * out.channels; i++) {
    double expected = t->reference.x[top][i];
    error += pow(t->net.x[top][i / out.channels * nn_stride(out) + i % out.channels] - expected, 2);
    norm += expected * expected;
  }
  ck_assert_double_gt(norm, 0);
  ck_assert_double_le(sqrt(error / norm), 1e-5 + t->rounding);
}

/* Differences of step 1e-5 are right to about 1e-10 / 1e-5; fp32 sums of some hundred terms to about 1e-5. */
static void assert_gradients(twins *t, int64_t counted, double factor) {
  const double h = 1e-5;
  for (int l = 0; l < t->net.spec.n_layers; l++) {
    const nn_layer *layer = &t->net.layer[l];
    double error = 0, norm = 0;
    for (int64_t i = 0; layer->weight && i < layer->d_out * (layer->d_in + layer->spec.has_bias); i++) {
      int64_t n = layer->d_in + layer->spec.has_bias, row = i / n, column = i % n;
      double *w = &t->reference.weight[l][row * (layer->d_in + 1) + column], kept = *w;
      *w = kept + h;
      double above = reference_squares(&t->reference, t->target, counted);
      *w = kept - h;
      double expected = factor * (above - reference_squares(&t->reference, t->target, counted)) / (2 * h);
      *w = kept;
      error += pow(layer->gradient[row * layer->ld + column] - expected, 2);
      norm += expected * expected;
    }
    ck_assert_msg(sqrt(error) <= (1e-4 + t->rounding) * sqrt(norm) + 1e-7, "%s: off by %g of %g", layer->spec.name,
                  sqrt(error), sqrt(norm));
    ck_assert(layer->weight == NULL || norm > 0);
  }
}

static const nn_pass training = {.is_training = true, .seed = 5, .step = 3};

static const nn_kernels *kernels_of(int number) {
  const char *const name[] = {"plain", "auto"};
  const nn_kernels *kernels = NULL;
  cv_error err = {0};
  ck_assert_int_eq(nn_kernels_find(name[number], &kernels, &err), CURVD_OK);
  return kernels;
}

static const char *const network[] = {
    /* a grouped, dilated, rectangular convolution, pools, a second convolution */
    "- input: 9x7x4\n- conv: 6\n  kernel: 3x2\n  pad: 1\n  dilation: 2x1\n  groups: 2\n  activation: tanh\n"
    "- max: 2\n- conv: 5\n  kernel: 2\n  stride: 2x1\n  bias: false\n  activation: gelu\n- average: all\n- dense: 3\n",
    /* normalisation before an activation and behind a pool that overlaps */
    "- input: 6x6x2\n- conv: 4\n  kernel: 3\n- norm: batch\n  activation: tanh\n- average: 3x2\n  stride: 1\n  pad: 1\n"
    "- norm: batch\n- dense: 7\n  activation: sigmoid\n- dense: 2\n",
    /* a residual block, one way of which is projected, and one whose input goes around unchanged */
    "- input: 5x5x3\n- conv: 4\n  kernel: 3\n  pad: 1\n  stride: 2\n  name: a\n- norm: batch\n  activation: tanh\n"
    "- conv: 4\n  kernel: 1\n  name: b\n- conv: 4\n  from: input\n  kernel: 1\n  stride: 2\n- add: b\n"
    "  activation: tanh\n  name: sum\n- conv: 4\n  kernel: 3\n  pad: 1\n- add: sum\n- dense: 3\n",
    /* images of one pixel, one channel, depthwise, a stride beyond the kernel, padding beyond the image */
    "- input: 1x1x1\n- conv: 3\n  kernel: 3\n  pad: 3\n  stride: 4\n- conv: 6\n  kernel: 2\n  groups: 3\n"
    "  activation: tanh\n- dense: 2\n"};

START_TEST(test_gradients_of_every_kind) {
  for (size_t n = 0; n < sizeof network / sizeof network[0]; n++)
    for (int kernels = 0; kernels < 2; kernels++)
      for (int64_t rows = 1; rows <= 5; rows += 4) {
        model_spec spec = spec_of(network[n]);
        twins t;
        if (rows == 1 && n == 1) continue; /* one value a channel has no deviation */
        twins_new(&t, &spec, rows, kernels_of(kernels));
        int64_t n_allocations = t.memory.n_allocations;
        run(&t, &training, rows, 0.5f, 0);
        assert_outputs(&t);
        assert_gradients(&t, rows, 0.5);
        run(&t, &training, rows, 0.25f, 2); /* 2 * 0.5 + 0.25 */
        assert_gradients(&t, rows, 1.25);
        ck_assert_int_eq(t.memory.n_allocations, n_allocations);
        twins_free(&t);
      }
}
END_TEST

/* Rounding both factors of a product changes it by sqrt(2) of a number's rounding; the passes add up some ten products,
 * whose errors are independent, and differences of the loss are smaller than what they are differences of. */
START_TEST(test_gradients_in_every_precision) {
  const cv_precision precisions[] = {CV_BF16, CV_BF16X3};
  const char *const dense = "- input: 70\n- dense: 33\n  activation: tanh\n- dense: 17\n  activation: gelu\n"
                            "- dense: 16\n  activation: sigmoid\n- dense: 3\n";
  for (size_t n = 0; n <= sizeof network / sizeof network[0]; n++)
    for (int p = 0; p < 2; p++)
      for (int u = 0; cv_units[u]; u++) {
        if (!cv_units[u]->is_there()) continue;
        model_spec spec = spec_of(n == 0 ? dense : network[n - 1]);
        twins t;
        twins_new_in(&t, &spec, 5, kernels_of(1), precisions[p], cv_units[u]);
        t.rounding = 4 * sqrt(2) * sqrt(10) * cv_precision_error(precisions[p]);
        run(&t, &training, 5, 0.5f, 0);
        assert_outputs(&t);
        if (u == 0 || p == 0) assert_gradients(&t, 5, 0.5);
        twins_free(&t);
      }
}
END_TEST

/* A part of the batch goes back: the others' losses do not count, but their statistics do. Behind the first
 * normalisation from above nothing of the others' gradients is followed, so only layers above it are exact. */
START_TEST(test_part_of_a_batch_goes_back) {
  model_spec spec = spec_of("- input: 3x3x2\n- norm: batch\n- conv: 3\n  kernel: 2\n  activation: tanh\n- dense: 2\n");
  twins t;
  twins_new(&t, &spec, 6, kernels_of(0));
  run(&t, &training, 4, 1, 0);
  assert_gradients(&t, 4, 1);
  twins_free(&t);
}
END_TEST

START_TEST(test_dropout) {
  model_spec spec = spec_of("- input: 4x4x3\n- dropout: 0.3\n- conv: 5\n  kernel: 3\n  activation: tanh\n"
                            "- dropout: 0.5\n- dense: 40\n  activation: tanh\n- dropout: 0.25\n- dense: 3\n");
  twins t;
  twins_new(&t, &spec, 7, kernels_of(0));
  run(&t, &training, 7, 1, 0);
  for (int l = 0; l < spec.n_layers; l++) { /* factors as forward left them */
    if (spec.layer[l].kind != NN_DROPOUT) continue;
    int64_t d = nn_size(spec.layer[l].in);
    double *kept = reference_numbers(7 * d);
    for (int64_t i = 0; i < 7 * d; i++) {
      kept[i] = ((const float *)t.net.layer[l].state)[i];
      double whole = 1 / (1 - spec.layer[l].drop);
      ck_assert(kept[i] == 0 || fabs(kept[i] - whole) < 1e-6);
    }
    t.reference.kept[l] = kept;
  }
  assert_outputs(&t);
  assert_gradients(&t, 7, 1);
  for (int l = 0; l < spec.n_layers; l++) free((double *)t.reference.kept[l]);
  twins_free(&t);
}
END_TEST

/* A unit's fate goes with its example's place in the batch; shares are binomial (5 standard errors of 12000 units). */
START_TEST(test_dropout_depends_on_the_place_alone) {
  enum { ROWS = 100, UNITS = 120 };
  model_spec spec = spec_of("- input: 120\n- dropout: 0.3\n- dense: 2\n");
  twins t;
  twins_new(&t, &spec, ROWS, kernels_of(0));
  const float *factor = t.net.layer[0].state;
  model_forward(&t.net, &training, ROWS);
  float straight[UNITS];
  memcpy(straight, factor + 17 * UNITS, sizeof straight);
  double dropped = 0;
  for (int i = 0; i < ROWS * UNITS; i++) dropped += factor[i] == 0;
  ck_assert_double_le(fabs(dropped - 0.3 * ROWS * UNITS), 5 * sqrt(0.3 * 0.7 * ROWS * UNITS));
  const int64_t position[] = {40, 17};
  nn_pass pass = {.is_training = true, .seed = 5, .step = 3, .position = position};
  model_forward(&t.net, &pass, 2);
  ck_assert_mem_eq(straight, factor + UNITS, sizeof straight);
  ck_assert_mem_ne(straight, factor, sizeof straight); /* another place, other units */
  pass.step = 4;
  model_forward(&t.net, &pass, 2);
  ck_assert_mem_ne(straight, factor + UNITS, sizeof straight);
  nn_pass evaluation = {.is_training = false};
  model_forward(&t.net, &evaluation, ROWS);
  ck_assert_mem_eq(t.net.x[1], t.net.x[0], UNITS * sizeof(float));
  twins_free(&t);
}
END_TEST

/* Running statistics follow the published rule, and evaluation uses them. */
START_TEST(test_running_statistics) {
  enum { ROWS = 8, C = 2, PIXELS = 6 };
  model_spec spec = spec_of("- input: 2x3x2\n- norm: batch\n- dense: 1\n");
  twins t;
  twins_new(&t, &spec, ROWS, kernels_of(0));
  double mean[C] = {0}, square[C] = {0};
  for (int64_t i = 0; i < ROWS * PIXELS * C; i++) mean[i % C] += t.net.x[0][i] / (ROWS * PIXELS);
  for (int64_t i = 0; i < ROWS * PIXELS * C; i++)
    square[i % C] += pow(t.net.x[0][i] - mean[i % C], 2) / (ROWS * PIXELS - 1);
  model_forward(&t.net, &training, ROWS);
  model_forward(&t.net, &training, ROWS); /* 0.9 (0.9 begin + 0.1 s) + 0.1 s */
  const float *running = nn_norm_running(&t.net.layer[0]);
  for (int c = 0; c < C; c++) {
    ck_assert_double_eq_tol(running[c], 0.19 * mean[c], 1e-6);
    ck_assert_double_eq_tol(running[C + c], 0.81 + 0.19 * square[c], 1e-6);
  }
  nn_pass evaluation = {.is_training = false};
  model_forward(&t.net, &evaluation, 1);
  for (int64_t i = 0; i < PIXELS * C; i++) {
    const float *w = t.net.layer[0].weight + i % C * t.net.layer[0].ld;
    double expected = (t.net.x[0][i] - running[i % C]) / sqrt(running[C + i % C] + 1e-5) * w[0] + w[1];
    ck_assert_double_eq_tol(t.net.x[1][i], expected, 1e-5);
  }
  ck_assert_double_eq_tol(running[0], 0.19 * mean[0], 1e-6); /* evaluation leaves them alone */
  twins_free(&t);
}
END_TEST

/* Two halves of a batch whose sums meet are the whole batch. */
static double meeting[64];
static void meet(void *user, int64_t n, double *x) {
  const int *turn = user;
  for (int64_t i = 0; i < n; i++) x[i] = meeting[i] = *turn == 0 ? x[i] : meeting[i] + x[i];
}

START_TEST(test_statistics_of_all_ranks) {
  model_spec spec = spec_of("- input: 2x2x3\n- norm: batch\n- dense: 2\n");
  twins whole, half;
  int turn = 0;
  nn_pass first = {.is_training = true, .sum = meet, .user = &turn};
  twins_new(&whole, &spec, 6, kernels_of(0));
  twins_new(&half, &spec, 6, kernels_of(0));
  model_forward(&whole.net, &training, 6);
  float examples[6 * 12];
  memcpy(examples, half.net.x[0], sizeof examples);
  model_forward(&half.net, &first, 4); /* leaves its sums */
  turn = 1;
  memcpy(half.net.x[0], examples + 4 * 12, 2 * 12 * sizeof(float));
  model_forward(&half.net, &first, 2); /* those of all six */
  for (int i = 0; i < 2 * 12; i++) ck_assert_float_eq_tol(half.net.x[1][i], whole.net.x[1][4 * 12 + i], 1e-6f);
  twins_free(&whole);
  twins_free(&half);
}
END_TEST

/* Of one example, the sum over examples is the example. */
START_TEST(test_examples_of_a_normalisation) {
  model_spec spec = spec_of("- input: 3x2x4\n- norm: batch\n  activation: tanh\n- dense: 3\n");
  twins t;
  const float *scale, *shift;
  twins_new(&t, &spec, 5, kernels_of(0));
  run(&t, &training, 5, 1, 0);
  nn_norm_examples(&t.net.layer[0], &scale, &shift);
  for (int64_t c = 0; c < 4; c++) {
    double sum[2] = {0, 0};
    for (int64_t i = 0; i < 5; i++) sum[0] += scale[i * 4 + c], sum[1] += shift[i * 4 + c];
    for (int k = 0; k < 2; k++)
      ck_assert_double_eq_tol(t.net.layer[0].gradient[c * t.net.layer[0].ld + k], sum[k], 1e-5);
  }
  const float *g = t.net.g[1]; /* (5, 3, 2, 4): the shift's is the sum over pixels */
  for (int64_t c = 0; c < 4; c++) {
    double sum = 0;
    for (int64_t p = 0; p < 6; p++) sum += g[(2 * 6 + p) * 4 + c];
    ck_assert_double_eq_tol(shift[2 * 4 + c], sum, 1e-5);
  }
  twins_free(&t);
}
END_TEST

/* He et al. 2015 for convolutions, whatever comes behind them: variance 2 / d_in, to 5 standard errors; scales 1. */
START_TEST(test_initial_weights) {
  model_spec spec =
      spec_of("- input: 9x9x16\n- conv: 64\n  kernel: 3\n- norm: batch\n  activation: relu\n- dense: 2\n");
  cv_memory memory = {0};
  cv_error err = {0};
  model net;
  const model_settings settings = {.rows_max = 1, .seed = 3};
  ck_assert_int_eq(model_create(&spec, &settings, &memory, &net, &err), CURVD_OK);
  const nn_layer *conv = &net.layer[0], *norm = &net.layer[1];
  double n = (double)(conv->d_out * conv->d_in), square = 0, variance = 2.0 / (double)conv->d_in;
  for (int64_t i = 0; i < conv->d_out; i++) {
    for (int64_t j = 0; j < conv->d_in; j++) square += pow(conv->weight[i * conv->ld + j], 2) / n;
    ck_assert_float_eq(conv->weight[i * conv->ld + conv->d_in], 0);
  }
  ck_assert_double_le(fabs(square - variance), 5 * variance * sqrt(2 / n));
  for (int64_t c = 0; c < norm->d_out; c++) {
    ck_assert(norm->weight[c * norm->ld] == 1 && norm->weight[c * norm->ld + 1] == 0);
    ck_assert(nn_norm_running(norm)[c] == 0 && nn_norm_running(norm)[norm->d_out + c] == 1);
  }
  model_free(&memory, &net);
}
END_TEST

/* A kernel that fails is told of, by the sentence that it gave. */
static curvd_status failing(void *state, int64_t rows, const float *x, const float *w, int64_t ldw, bool has_bias,
                            float *y, cv_error *err) {
  (void)state, (void)rows, (void)x, (void)w, (void)ldw, (void)has_bias, (void)y;
  return cv_fail(err, CURVD_ERR_NUMERIC, "the kernel fails");
}

START_TEST(test_failing_kernels) {
  nn_kernels broken = *kernels_of(0);
  broken.conv_forward = failing;
  model_spec spec = spec_of(network[0]);
  twins t;
  cv_error err = {0};
  twins_new(&t, &spec, 3, &broken);
  ck_assert_int_eq(model_check(&t.net, &err), CURVD_OK);
  model_forward(&t.net, &training, 3);
  ck_assert_int_eq(model_check(&t.net, &err), CURVD_ERR_NUMERIC);
  ck_assert_str_eq(err.text, "the kernel fails");
  twins_free(&t);
}
END_TEST

int main(void) {
  const TTest *const tests[] = {test_gradients_of_every_kind,
                                test_gradients_in_every_precision,
                                test_part_of_a_batch_goes_back,
                                test_dropout,
                                test_dropout_depends_on_the_place_alone,
                                test_running_statistics,
                                test_statistics_of_all_ranks,
                                test_examples_of_a_normalisation,
                                test_initial_weights,
                                test_failing_kernels};
  return suite_run("layers", tests, sizeof tests / sizeof tests[0], NULL);
}
