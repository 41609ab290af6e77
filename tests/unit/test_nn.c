/* Layers, activations and losses against fp64: functions over their whole range, gradients against central differences,
 * sampled gradients against the covariance that they stand for. */
#include "net/nn.h"

#include "reference_net.h"
#include "suite.h"
#include "net/nn_math.h"

#include <string.h>

static float float_of(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

static double ulp_of(double x) {
  return ldexp(1, ilogb(x) - 23);
}

/* A cheap sequence in [-1, 1), so that the tests depend on nothing else. */
static double next_number(uint64_t *state) {
  *state = *state * 6364136223846793005u + 1442695040888963407u;
  return (double)(int64_t)(*state >> 11) * 0x1p-52 - 1;
}

START_TEST(test_functions_over_all_numbers) {
  for (uint32_t bits = 0; bits < 0x7f800000; bits += 4001) { /* positive, from 0 to the largest */
    float x = float_of(bits), e = nn_exp_negative(-x);
    if (x <= 87.3f) ck_assert_double_le(fabs(e - exp(-(double)x)), ulp_of(exp(-(double)x)));
    if (x > 87.4f) ck_assert_float_eq(e, 0);
    ck_assert_double_le(fabs(nn_tanh(x) - tanh(x)), 3 * ulp_of(x == 0 ? 1 : tanh(x)));
    ck_assert_float_eq(nn_tanh(-x), -nn_tanh(x));
    double p = 1 / (1 + exp(-(double)x)), q = 1 / (1 + exp((double)x));
    ck_assert_double_le(fabs(nn_sigmoid_from(x, e) - p), 3 * ulp_of(p));
    if (x <= 87) ck_assert_double_le(fabs(nn_sigmoid_from(-x, e) - q), 3 * ulp_of(q));
    double tail = erfc(x / sqrt(2)) / 2, half = (double)x * x / 2;
    float gauss = nn_exp_negative(-0.5f * x * x);
    if (x < 13) ck_assert_double_le(fabs(nn_normal_from(-x, gauss) - tail), 4e-7 * (1 + half) * tail);
    ck_assert_double_le(fabs(nn_normal_from(x, gauss) - (1 - tail)), 4 * 0x1p-24);
  }
}
END_TEST

START_TEST(test_functions_at_the_ends) {
  ck_assert_float_eq(nn_exp_negative(0), 1);
  ck_assert_float_eq(nn_exp_negative(-INFINITY), 0);
  ck_assert_float_eq(nn_tanh(INFINITY), 1);
  ck_assert_float_eq(nn_tanh(-INFINITY), -1);
  ck_assert(signbit(nn_tanh(-0.0f)) && nn_tanh(-0.0f) == 0);
  const float nans[] = {NAN, -NAN, float_of(0x7f800001), float_of(0xffffffff)};
  for (int i = 0; i < 4; i++) {
    ck_assert(isnan(nn_exp_negative(nans[i])) && isnan(nn_tanh(nans[i])));
    ck_assert(isnan(nn_sigmoid_from(nans[i], nn_exp_negative(nans[i]))));
    ck_assert(isnan(nn_normal_from(nans[i], nn_exp_negative(nans[i]))));
  }
}
END_TEST

static const nn_activation_kind activations[] = {NN_LINEAR, NN_RELU, NN_TANH, NN_SIGMOID, NN_GELU};
enum { N_ACTIVATIONS = sizeof activations / sizeof *activations };

START_TEST(test_activations_and_their_slopes) {
  enum { ROWS = 3, D = 37, LD = 41 };
  for (int a = 0; a < N_ACTIVATIONS; a++) {
    float x[ROWS * LD], y[ROWS * LD], g[ROWS * LD], slope[ROWS * LD];
    uint64_t state = 1;
    for (int i = 0; i < ROWS * LD; i++) x[i] = y[i] = (float)(6 * next_number(&state)), g[i] = x[i] / 3 + 0.1f;
    nn_activation_forward(activations[a], ROWS, D, y, LD, slope);
    nn_activation_backward(activations[a], ROWS, D, y, slope, g, LD);
    for (int i = 0; i < ROWS * LD; i++) {
      float before = x[i] / 3 + 0.1f;
      if (i % LD >= D) {
        ck_assert_float_eq(y[i], x[i]); /* columns beyond D are left alone */
        ck_assert_float_eq(g[i], before);
        continue;
      }
      ck_assert_double_le(fabs(y[i] - reference_activation(activations[a], x[i])), 1e-6);
      ck_assert_double_le(fabs(g[i] - before * reference_slope(activations[a], x[i])), 2e-6);
    }
  }
}
END_TEST

START_TEST(test_activations_pass_nan_on) {
  for (int a = 0; a < N_ACTIVATIONS; a++) {
    float y[40], g[40], slope[40];
    for (int i = 0; i < 40; i++) y[i] = i % 3 == 0 ? NAN : (float)i - 20, g[i] = NAN;
    nn_activation_forward(activations[a], 1, 40, y, 40, slope);
    for (int i = 0; i < 40; i++) ck_assert_int_eq(!isnan(y[i]), i % 3 != 0);
    nn_activation_backward(activations[a], 1, 40, y, slope, g, 40);
    for (int i = 0; i < 40; i++) ck_assert(isnan(g[i]) || (activations[a] == NN_RELU && y[i] <= 0));
  }
  float large[2] = {INFINITY, -INFINITY};
  nn_activation_forward(NN_RELU, 1, 2, large, 2, NULL);
  ck_assert(large[0] == INFINITY && large[1] == 0);
}
END_TEST

START_TEST(test_padding) {
  for (int64_t d = 1; d < 5000; d++) {
    int64_t ld = nn_ld(d);
    ck_assert(ld >= d + 1 && ld < d + 33 && ld % 16 == 0 && ld % 512 != 0);
  }
}
END_TEST

static const nn_loss_kind losses[] = {NN_SOFTMAX_CE, NN_SIGMOID_CE, NN_SQUARED};

START_TEST(test_losses) {
  enum { ROWS = 5, D = 1037, LD = 1040, LDT = 1039 };
  static float z[ROWS * LD], dz[ROWS * LD], target[ROWS * LDT];
  static double z64[D], target64[D], dz64[D];
  int32_t label[ROWS];
  uint64_t state = 2;
  for (int i = 0; i < ROWS * LD; i++) z[i] = (float)(8 * next_number(&state));
  for (int i = 0; i < ROWS * LDT; i++) target[i] = (float)(next_number(&state) / 2 + 0.5);
  for (int i = 0; i < ROWS; i++) label[i] = 200 * i;
  for (int k = 0; k < 3; k++) {
    double expected = 0;
    int64_t n_correct = -1;
    double sum = nn_loss(losses[k], ROWS, D, z, LD, label, target, LDT, dz, &n_correct);
    for (int i = 0; i < ROWS; i++) {
      for (int j = 0; j < D; j++) z64[j] = z[i * LD + j], target64[j] = target[i * LDT + j];
      expected += reference_loss(losses[k], D, z64, label[i], target64, dz64);
      for (int j = 0; j < D; j++) ck_assert_double_le(fabs(dz[i * LD + j] - dz64[j]), 2e-6 * (1 + fabs(dz64[j])));
    }
    ck_assert_double_le(fabs(sum - expected), 1e-6 * expected);
    ck_assert_int_eq(n_correct, 0);
  }
}
END_TEST

/* log 2 for each of many units: the product whose logarithm is taken would overflow without a cut. */
START_TEST(test_loss_of_many_undecided_units) {
  enum { D = 5000 };
  static float z[D], dz[D], target[D];
  int64_t n_correct;
  double loss = nn_loss(NN_SIGMOID_CE, 1, D, z, D, NULL, target, D, dz, &n_correct);
  ck_assert_double_eq_tol(loss, D * log(2), 1e-9);
  for (int i = 0; i < D; i++) ck_assert_float_eq(dz[i], 0.5f);
}
END_TEST

START_TEST(test_correct_answers) {
  const float z[] = {1, 3, 2, /**/ 5, 5, 0, /**/ 5, 5, 0, /**/ NAN, 0, 0, /**/ 0, NAN, 9};
  const int32_t label[] = {1, 0, 1, 0, 2};
  float dz[15];
  int64_t n_correct;
  ck_assert(isnan(nn_loss(NN_SOFTMAX_CE, 5, 3, z, 3, label, NULL, 0, dz, &n_correct)));
  ck_assert_int_eq(n_correct, 2); /* of equals the first; a row with a NaN never counts */
  ck_assert(isfinite(dz[8]) && isnan(dz[9]) && isnan(dz[10]) && isnan(dz[14]));
}
END_TEST

START_TEST(test_losses_of_huge_logits) {
  const float z[] = {1e4f, -1e4f, 0}, target[] = {1, 0, 1}, wrong[] = {0, 1, 1};
  const int32_t label[] = {0}, wrong_label[] = {1};
  float dz[3];
  int64_t n_correct;
  ck_assert_double_eq(nn_loss(NN_SOFTMAX_CE, 1, 3, z, 3, label, NULL, 0, dz, &n_correct), 0);
  ck_assert(n_correct == 1 && dz[0] == 0 && dz[1] == 0 && dz[2] == 0);
  ck_assert_double_eq(nn_loss(NN_SOFTMAX_CE, 1, 3, z, 3, wrong_label, NULL, 0, dz, &n_correct), 2e4);
  ck_assert_double_eq_tol(nn_loss(NN_SIGMOID_CE, 1, 3, z, 3, NULL, target, 3, dz, &n_correct), log(2), 1e-12);
  ck_assert_double_eq_tol(nn_loss(NN_SIGMOID_CE, 1, 3, z, 3, NULL, wrong, 3, dz, &n_correct), 2e4 + log(2), 1e-9);
  ck_assert(dz[0] == 1 && dz[1] == -1 && dz[2] == -0.5f);
  ck_assert_double_eq(nn_loss(NN_SQUARED, 0, 3, z, 3, NULL, target, 3, dz, &n_correct), 0);
}
END_TEST

enum { CLASSES = 4, DRAWS = 100000 };
static const float logits[CLASSES] = {0.3f, -1.2f, 1.1f, 0.1f};

/* Is the average of dz dz^T over many draws the covariance C within 3 standard errors (that of the products, measured)?
 */
static void assert_covariance(nn_loss_kind kind, const double expected[CLASSES][CLASSES]) {
  double sum[CLASSES][CLASSES] = {{0}}, squares[CLASSES][CLASSES] = {{0}};
  for (int n = 0; n < DRAWS; n++) {
    float dz[CLASSES];
    nn_loss_sampled(kind, 1, CLASSES, logits, CLASSES, 42, 7, n, dz);
    for (int i = 0; i < CLASSES; i++)
      for (int j = 0; j < CLASSES; j++) {
        double product = (double)dz[i] * dz[j];
        sum[i][j] += product;
        squares[i][j] += product * product;
      }
  }
  for (int i = 0; i < CLASSES; i++)
    for (int j = 0; j < CLASSES; j++) {
      double mean = sum[i][j] / DRAWS, variance = squares[i][j] / DRAWS - mean * mean;
      ck_assert_double_le(fabs(mean - expected[i][j]), 3 * sqrt(variance / DRAWS) + 1e-7);
    }
}

START_TEST(test_sampled_gradients_have_the_fisher_covariance) {
  double softmax[CLASSES][CLASSES], bernoulli[CLASSES][CLASSES] = {{0}}, unit[CLASSES][CLASSES] = {{0}};
  double p[CLASSES], sum = 0;
  for (int i = 0; i < CLASSES; i++) sum += exp(logits[i]);
  for (int i = 0; i < CLASSES; i++) p[i] = exp(logits[i]) / sum;
  for (int i = 0; i < CLASSES; i++) {
    for (int j = 0; j < CLASSES; j++) softmax[i][j] = (i == j ? p[i] : 0) - p[i] * p[j];
    double q = 1 / (1 + exp(-(double)logits[i]));
    bernoulli[i][i] = q * (1 - q);
    unit[i][i] = 1;
  }
  assert_covariance(NN_SOFTMAX_CE, softmax);
  assert_covariance(NN_SIGMOID_CE, bernoulli);
  assert_covariance(NN_SQUARED, unit);
}
END_TEST

/* A row's draw depends on seed, step and its position in the global batch, not on how the batch is cut. */
START_TEST(test_sampled_gradients_depend_on_the_position_only) {
  enum { ROWS = 24, D = 7, LD = 9 };
  for (int k = 0; k < 3; k++) {
    float z[ROWS * LD], whole[ROWS * LD], pieces[ROWS * LD], other[ROWS * LD];
    uint64_t state = 3;
    for (int i = 0; i < ROWS * LD; i++) z[i] = (float)next_number(&state), whole[i] = pieces[i] = other[i] = 77;
    nn_loss_sampled(losses[k], ROWS, D, z, LD, 1, 5, 1000, whole);
    nn_loss_sampled(losses[k], 10, D, z, LD, 1, 5, 1000, pieces);
    nn_loss_sampled(losses[k], ROWS - 10, D, z + 10 * LD, LD, 1, 5, 1010, pieces + 10 * LD);
    ck_assert_mem_eq(whole, pieces, sizeof whole);
    for (int i = 0; i < ROWS * LD; i++) ck_assert((whole[i] == 77) == (i % LD >= D));
    const struct {
      uint64_t seed;
      int64_t step, first;
    } changed[] = {{2, 5, 1000}, {1, 6, 1000}, {1, 5 + (1LL << 32), 1000}, {1, 5, 1001}};
    for (int c = 0; c < 4; c++) {
      nn_loss_sampled(losses[k], ROWS, D, z, LD, changed[c].seed, changed[c].step, changed[c].first, other);
      ck_assert_mem_ne(whole, other, sizeof whole);
    }
  }
}
END_TEST

START_TEST(test_sampled_gradients_pass_nan_on) {
  for (int k = 0; k < 3; k++) {
    const float z[] = {0, NAN, 1};
    float dz[3];
    nn_loss_sampled(losses[k], 1, 3, z, 3, 1, 1, 0, dz);
    ck_assert(isnan(dz[1]));
  }
}
END_TEST

/* Two layers of a kind with their buffers, and the same network in fp64. */
typedef struct pair {
  int64_t rows;
  nn_layer layer[2];
  float *x[3], *g[3];
  int32_t label[16];
  float *target; /* (rows, ld of the logits) */
  reference_net reference;
} pair;

static float *floats(int64_t count) {
  float *block = calloc((size_t)count, sizeof *block);
  ck_assert_ptr_nonnull(block);
  return block;
}

static void pair_layer(pair *net, int l, const nn_ops *kind, uint64_t *state) {
  const reference_net *reference = &net->reference;
  nn_layer *layer = &net->layer[l];
  *layer = (nn_layer){.ops = kind, .d_in = reference->width[l], .d_out = reference->width[l + 1]};
  layer->spec.activation = reference->activation[l];
  layer->ld = nn_ld(layer->d_in);
  layer->weight = floats(layer->d_out * layer->ld);
  layer->gradient = floats(layer->d_out * layer->ld);
  layer->slope = floats(net->rows * nn_ld(layer->d_out));
  for (int64_t i = 0; i < layer->d_out; i++)
    for (int64_t j = 0; j <= layer->d_in; j++) {
      float w = (float)next_number(state);
      layer->weight[i * layer->ld + j] = w;
      reference->weight[l][i * (layer->d_in + 1) + j] = w;
    }
}

static void pair_new(pair *net, const nn_ops *kind, int64_t rows, uint64_t *state) {
  net->rows = rows;
  reference_new(&net->reference);
  for (int i = 0; i < 3; i++) {
    int64_t d = net->reference.width[i], ld = nn_ld(d);
    net->x[i] = floats(rows * ld);
    net->g[i] = floats(rows * ld);
    for (int64_t row = 0; row < rows; row++) net->x[i][row * ld + d] = 1;
    if (i < 2) pair_layer(net, i, kind, state);
  }
  int64_t d_in = net->reference.width[0], d_out = net->reference.width[2];
  net->target = floats(rows * nn_ld(d_out));
  for (int64_t row = 0; row < rows; row++) {
    net->label[row] = (int32_t)(row % d_out);
    for (int64_t j = 0; j < d_in; j++) net->x[0][row * nn_ld(d_in) + j] = (float)next_number(state);
    for (int64_t j = 0; j < d_out; j++) net->target[row * nn_ld(d_out) + j] = (float)(next_number(state) / 2 + 0.5);
  }
}

static void pair_free(pair *net) {
  reference_free(&net->reference);
  for (int i = 0; i < 3; i++) free(net->x[i]), free(net->g[i]);
  for (int i = 0; i < 2; i++) free(net->layer[i].weight), free(net->layer[i].gradient), free(net->layer[i].slope);
  free(net->target);
}

/* Loss of all rows; the gradient is left in the layers, dx in g[0]. */
static double pair_run(pair *net) {
  int64_t d_out = net->reference.width[2], n_correct;
  for (int l = 0; l < 2; l++) {
    nn_layer *layer = &net->layer[l];
    const float *const x[] = {net->x[l], NULL};
    layer->ops->forward(layer, NULL, net->rows, x, net->x[l + 1]);
    nn_activation_forward(layer->spec.activation, net->rows, layer->d_out, net->x[l + 1], nn_ld(layer->d_out),
                          layer->slope);
  }
  double loss = nn_loss(net->reference.loss, net->rows, d_out, net->x[2], nn_ld(d_out), net->label, net->target,
                        nn_ld(d_out), net->g[2], &n_correct);
  for (int l = 1; l >= 0; l--) {
    nn_layer *layer = &net->layer[l];
    nn_activation_backward(layer->spec.activation, net->rows, layer->d_out, net->x[l + 1], layer->slope, net->g[l + 1],
                           nn_ld(layer->d_out));
    layer->ops->backward_weight(layer, net->rows, net->x[l], net->g[l + 1], 1, 0);
    layer->ops->backward_input(layer, net->rows, net->x[l], net->x[l + 1], net->g[l + 1], net->g[l]);
  }
  return loss;
}

static double reference_run(pair *net, double *dx) {
  int64_t d_in = net->reference.width[0], d_out = net->reference.width[2];
  double x[REFERENCE_WIDTH_MAX], target[REFERENCE_WIDTH_MAX], loss = 0;
  for (int l = 0; l < 2; l++)
    for (int64_t i = 0; i < reference_count(&net->reference, l); i++) net->reference.gradient[l][i] = 0;
  for (int64_t row = 0; row < net->rows; row++) {
    for (int64_t j = 0; j < d_in; j++) x[j] = net->x[0][row * nn_ld(d_in) + j];
    for (int64_t j = 0; j < d_out; j++) target[j] = net->target[row * nn_ld(d_out) + j];
    loss += reference_example(&net->reference, x, net->label[row], target, dx == NULL ? NULL : dx + row * d_in);
  }
  return loss;
}

/* The reference's own gradient against central differences of its loss. */
static void assert_central_differences(pair *net) {
  const double h = 1e-5;
  for (int l = 0; l < 2; l++)
    for (int64_t i = 0; i < reference_count(&net->reference, l); i += 3) {
      double *w = &net->reference.weight[l][i], middle = *w;
      *w = middle + h;
      double above = reference_run(net, NULL);
      *w = middle - h;
      double below = reference_run(net, NULL);
      *w = middle;
      reference_run(net, NULL);
      double gradient = net->reference.gradient[l][i], difference = (above - below) / (2 * h);
      ck_assert_double_le(fabs(gradient - difference), 1e-7 * (1 + fabs(gradient)));
    }
}

/* rows x d numbers, rows ld apart, against rows of fp64, relative to their norm. */
static void assert_close(int64_t rows, int64_t d, const float *x, int64_t ld, const double *expected,
                         double tolerance) {
  double error = 0, norm = 0;
  for (int64_t i = 0; i < rows; i++)
    for (int64_t j = 0; j < d; j++) {
      double e = expected[i * d + j];
      error += (x[i * ld + j] - e) * (x[i * ld + j] - e);
      norm += e * e;
    }
  ck_assert_double_le(sqrt(error), tolerance * sqrt(norm) + 1e-30);
}

static void check_gradients(const nn_ops *kind, nn_activation_kind activation, nn_loss_kind loss,
                            const int64_t shape[4]) {
  uint64_t state = (uint64_t)shape[1] + 10;
  pair net = {.reference = {.n_layers = 2, .loss = loss, .activation = {activation, NN_LINEAR}}};
  for (int i = 0; i < 3; i++) net.reference.width[i] = shape[i + 1];
  pair_new(&net, kind, shape[0], &state);
  double dx[16 * REFERENCE_WIDTH_MAX];
  double loss32 = pair_run(&net);
  assert_central_differences(&net);
  double loss64 = reference_run(&net, dx);
  ck_assert_double_le(fabs(loss32 - loss64), 1e-5 * fabs(loss64));
  for (int l = 0; l < 2; l++) {
    nn_layer *layer = &net.layer[l];
    assert_close(layer->d_out, layer->d_in + 1, layer->gradient, layer->ld, net.reference.gradient[l], 1e-5);
  }
  assert_close(net.rows, shape[1], net.g[0], nn_ld(shape[1]), dx, 1e-5);
  pair_free(&net);
}

START_TEST(test_gradients_of_a_dense_layer) {
  static const int64_t shapes[][4] = {
      /* rows, widths */ {1, 1, 1, 2}, {1, 5, 1, 3}, {3, 1, 7, 2}, {5, 16, 15, 17}, {16, 31, 33, 10}};
  for (int a = 0; a < N_ACTIVATIONS; a++)
    for (int l = 0; l < 3; l++)
      for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
        check_gradients(&nn_dense, activations[a], losses[l], shapes[s]);
}
END_TEST

START_TEST(test_weight_gradient_scales_and_adds_up) {
  uint64_t state = 4;
  pair net = {.reference = {.n_layers = 2, .loss = NN_SQUARED, .width = {6, 5, 3}, .activation = {NN_TANH, NN_LINEAR}}};
  pair_new(&net, &nn_dense, 4, &state);
  pair_run(&net);
  reference_run(&net, NULL);
  nn_layer *layer = &net.layer[1];
  double *expected = net.reference.gradient[1];
  layer->ops->backward_weight(layer, 4, net.x[1], net.g[2], -0.5f, 2); /* 2 G - G / 2 */
  for (int i = 0; i < 3 * 6; i++) expected[i] *= 1.5;
  assert_close(3, 6, layer->gradient, layer->ld, expected, 1e-5);
  layer->ops->backward_weight(layer, 0, net.x[1], net.g[2], 1, 2); /* no rows: only beta counts */
  for (int i = 0; i < 3 * 6; i++) expected[i] *= 2;
  assert_close(3, 6, layer->gradient, layer->ld, expected, 1e-5);
  for (int64_t i = 0; i < 3; i++)
    for (int64_t j = 6; j < layer->ld; j++) ck_assert_float_eq(layer->gradient[i * layer->ld + j], 0);
  layer->gradient[0] = NAN; /* what was there before does not count when beta is 0 */
  layer->ops->backward_weight(layer, 4, net.x[1], net.g[2], 1, 0);
  ck_assert(isfinite(layer->gradient[0]));
  pair_free(&net);
}
END_TEST

int main(void) {
  const TTest *const tests[] = {test_functions_over_all_numbers,
                                test_functions_at_the_ends,
                                test_activations_and_their_slopes,
                                test_activations_pass_nan_on,
                                test_padding,
                                test_losses,
                                test_loss_of_many_undecided_units,
                                test_correct_answers,
                                test_losses_of_huge_logits,
                                test_sampled_gradients_have_the_fisher_covariance,
                                test_sampled_gradients_depend_on_the_position_only,
                                test_sampled_gradients_pass_nan_on,
                                test_gradients_of_a_dense_layer,
                                test_weight_gradient_scales_and_adds_up};
  return suite_run("nn", tests, sizeof tests / sizeof tests[0], NULL);
}
