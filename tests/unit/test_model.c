/* The chain of layers: what its words mean, what is allocated and drawn, and its passes against fp64. */
#include "net/model.h"
#include "train/network.h"

#include "reference_net.h"
#include "suite.h"

#include <string.h>

/* Under the address sanitizer an impossible allocation shall fail as it does without. */
const char *__asan_default_options(void);
const char *__asan_default_options(void) {
  return "allocator_may_return_null=1";
}

static const nn_pass training = {.is_training = true};

static int64_t width_of(const model_spec *spec, int tensor) {
  return nn_size(model_shape(spec, tensor));
}

static int64_t live_bytes(const cv_memory *memory) {
  int64_t sum = 0;
  for (int kind = 0; kind < CV_MEMORY_KINDS; kind++) sum += memory->bytes[kind];
  return sum;
}

static model_spec spec_of(const char *text, nn_activation_kind hidden, nn_loss_kind loss) {
  model_spec spec;
  cv_error err = {CURVD_OK, ""};
  ck_assert_msg(network_parse(text, hidden, loss, &spec, &err) == CURVD_OK, "%s", err.text);
  return spec;
}

static model model_of(const char *text, nn_activation_kind hidden, int64_t rows, model_init init, cv_memory *memory) {
  model net;
  cv_error err = {CURVD_OK, ""};
  model_spec spec = spec_of(text, hidden, NN_LOSS_AUTO);
  ck_assert_msg(model_create(&spec, &(model_settings){.rows_max = rows, .init = init, .seed = 11}, memory, &net,
                             &err) == CURVD_OK,
                "%s", err.text);
  return net;
}

START_TEST(test_words_of_a_chain) {
  model_spec spec = spec_of("784-1000-500:tanh-10", NN_RELU, NN_LOSS_AUTO);
  ck_assert_int_eq(spec.n_layers, 3);
  const int64_t width[] = {784, 1000, 500, 10};
  for (int i = 0; i < 4; i++) ck_assert_int_eq(width_of(&spec, i), width[i]);
  ck_assert(spec.layer[0].activation == NN_RELU && spec.layer[1].activation == NN_TANH &&
            spec.layer[2].activation == NN_LINEAR);
  ck_assert(spec.loss == NN_SOFTMAX_CE && !spec.is_autoencoder);
  ck_assert_int_eq(model_parameters(&spec), 785 * 1000 + 1001 * 500 + 501 * 10);
  spec = spec_of("3-2:linear-1:linear", NN_GELU, NN_SQUARED);
  ck_assert(spec.layer[0].activation == NN_LINEAR && spec.layer[1].activation == NN_LINEAR && spec.loss == NN_SQUARED);
}
END_TEST

START_TEST(test_repeated_widths) {
  model_spec once = spec_of("3-5:tanh-5:tanh-5:tanh-7-7-2", NN_GELU, NN_SQUARED),
             spec = spec_of("3-5x3:tanh-7x2-2", NN_GELU, NN_SQUARED);
  ck_assert_int_eq(spec.n_layers, once.n_layers);
  for (int i = 0; i < once.n_layers; i++) {
    ck_assert_int_eq(width_of(&spec, i + 1), width_of(&once, i + 1));
    ck_assert_int_eq(spec.layer[i].activation, once.layer[i].activation);
  }
  spec = spec_of("4x201", NN_RELU, NN_SQUARED);
  ck_assert(spec.n_layers == 200 && width_of(&spec, 200) == 4);
  ck_assert(spec.layer[198].activation == NN_RELU && spec.layer[199].activation == NN_LINEAR);
}
END_TEST

START_TEST(test_words_of_the_autoencoder) {
  model_spec spec = spec_of("autoencoder", NN_RELU, NN_LOSS_AUTO);
  const int64_t width[] = {784, 1000, 500, 250, 30, 250, 500, 1000, 784};
  ck_assert_int_eq(spec.n_layers, 8);
  for (int i = 0; i < 9; i++) ck_assert_int_eq(width_of(&spec, i), width[i]);
  for (int i = 0; i < 8; i++) ck_assert_int_eq(spec.layer[i].activation, i == 3 || i == 7 ? NN_LINEAR : NN_SIGMOID);
  ck_assert(spec.loss == NN_SIGMOID_CE && spec.is_autoencoder);
  ck_assert_int_eq(spec_of("autoencoder", NN_RELU, NN_SQUARED).loss, NN_SQUARED);
}
END_TEST

START_TEST(test_refused_words) {
  static const char *const refused[][2] = {
      {"", "no width"},
      {"784", "one width"},
      {"784-", "no width"},
      {"-10", "no width"},
      {"784--10", "no width"},
      {"784-0-10", "\"0\""},
      {"784-1e3-10", "\"1e3\""},
      {"784-16777217-10", "16777217"},
      {"784-99999999999999999999-10", "99999999999999999999"},
      {"784 -10", "\"784 \""},
      {"784:relu-10", "input"},
      {"784-500:tahn-10", "did you mean \"tanh\""},
      {"784-500:-10", "unknown activation"},
      {"784-500:xyzzy-10", "use linear, relu"},
      {"784-500x0-10", "repeated"},
      {"784-500x-10", "repeated"},
      {"784-500x2.5-10", "repeated"},
      {"784-5x256-10", "more than 256 layers"},
      {"784-10x2:relu", "takes no activation"},
      {"784-10:relu", "last width"},
      {"Autoencoder", "no network of this name"},
  };
  for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
    model_spec spec = {.n_layers = -7};
    cv_error err = {CURVD_OK, ""};
    ck_assert_int_eq(network_parse(refused[i][0], NN_RELU, NN_LOSS_AUTO, &spec, &err), CURVD_ERR_OPTION);
    ck_assert_msg(strstr(err.text, refused[i][1]) != NULL, "%s: %s", refused[i][0], err.text);
    ck_assert_int_eq(spec.n_layers, -7);
  }
  cv_error err = {CURVD_OK, ""};
  model_spec spec;
  ck_assert_int_eq(network_parse("autoencoder", NN_RELU, NN_SOFTMAX_CE, &spec, &err), CURVD_ERR_OPTION);
}
END_TEST

START_TEST(test_layer_limits) {
  char text[1000] = "1";
  for (int i = 0; i < MODEL_LAYERS_MAX; i++) strcat(text, "-2");
  model_spec spec = spec_of(text, NN_RELU, NN_LOSS_AUTO);
  ck_assert_int_eq(spec.n_layers, MODEL_LAYERS_MAX);
  cv_error err = {CURVD_OK, ""};
  strcat(text, "-2");
  ck_assert_int_eq(network_parse(text, NN_RELU, NN_LOSS_AUTO, &spec, &err), CURVD_ERR_OPTION);
  ck_assert_ptr_nonnull(strstr(err.text, "more than 256 layers"));
  err = (cv_error){CURVD_OK, ""};
  memset(text, '1', 900);
  ck_assert_int_eq(network_parse(text, NN_RELU, NN_LOSS_AUTO, &spec, &err), CURVD_ERR_OPTION);
}
END_TEST

START_TEST(test_buffers_and_padding) {
  cv_memory memory = {0};
  model net = model_of("20-15:gelu-33-10", NN_TANH, 7, MODEL_INIT_AUTO, &memory);
  ck_assert_str_eq(net.layer[0].spec.name, "fc1");
  ck_assert_str_eq(net.layer[2].spec.name, "fc3");
  for (int i = 0; i < 3; i++) {
    const nn_layer *layer = &net.layer[i];
    ck_assert(layer->d_in == width_of(&net.spec, i) && layer->d_out == width_of(&net.spec, i + 1));
    ck_assert((layer->slope != NULL) == (i == 0));
    for (int64_t k = 0; k < layer->d_out * layer->ld; k++) {
      ck_assert((layer->weight[k] == 0) == (k % layer->ld >= layer->d_in)); /* bias and padding are 0 */
      ck_assert_float_eq(layer->gradient[k], 0);
    }
  }
  for (int i = 0; i < 4; i++) {
    int64_t d = width_of(&net.spec, i), ld = nn_ld(d);
    for (int64_t k = 0; k < 7 * ld; k++) {
      ck_assert_float_eq(net.x[i][k], k % ld == d);
      if (i > 0) ck_assert_float_eq(net.g[i][k], 0);
    }
  }
  ck_assert_ptr_null(net.g[0]);
  model_free(&memory, &net);
  ck_assert_int_eq(live_bytes(&memory), 0);
  model_free(&memory, &net); /* twice is fine */
}
END_TEST

/* Mean, mean square and largest magnitude of a layer's weights. */
typedef struct moments {
  double mean, square, largest;
} moments;

static moments moments_of(const nn_layer *layer) {
  moments m = {0, 0, 0};
  double n = (double)(layer->d_out * layer->d_in);
  for (int64_t i = 0; i < layer->d_out; i++)
    for (int64_t j = 0; j < layer->d_in; j++) {
      double w = layer->weight[i * layer->ld + j];
      m.mean += w / n;
      m.square += w * w / n;
      m.largest = fmax(m.largest, fabs(w));
    }
  return m;
}

/* 5 standard errors of the mean and of the mean square (kurtosis 3 normal, 9/5 uniform). */
static void assert_he(const nn_layer *layer) {
  moments m = moments_of(layer);
  double n = (double)(layer->d_out * layer->d_in), variance = 2.0 / (double)layer->d_in;
  ck_assert_double_le(fabs(m.mean), 5 * sqrt(variance / n));
  ck_assert_double_le(fabs(m.square - variance), 5 * variance * sqrt(2 / n));
  ck_assert_double_ge(m.largest, 3.5 * sqrt(variance)); /* not uniform */
}

static void assert_xavier(const nn_layer *layer) {
  moments m = moments_of(layer);
  double n = (double)(layer->d_out * layer->d_in), limit = sqrt(6.0 / (double)(layer->d_in + layer->d_out));
  double variance = limit * limit / 3;
  ck_assert_double_le(fabs(m.mean), 5 * sqrt(variance / n));
  ck_assert_double_le(fabs(m.square - variance), 5 * variance * sqrt(0.8 / n));
  ck_assert(m.largest <= limit * (1 + 1e-6) && m.largest > 0.999 * limit);
}

START_TEST(test_initial_weights) {
  cv_memory memory = {0};
  model automatic = model_of("100-300:relu-200:gelu-150:sigmoid-100", NN_TANH, 1, MODEL_INIT_AUTO, &memory);
  assert_he(&automatic.layer[0]);
  assert_he(&automatic.layer[1]);
  assert_xavier(&automatic.layer[2]);
  assert_xavier(&automatic.layer[3]);
  model he = model_of("100-300-200", NN_TANH, 1, MODEL_INIT_HE, &memory);
  assert_he(&he.layer[0]);
  model xavier = model_of("100-300-200", NN_RELU, 1, MODEL_INIT_XAVIER, &memory);
  assert_xavier(&xavier.layer[0]);
  ck_assert_mem_eq(he.layer[0].weight, automatic.layer[0].weight, 300 * 112 * sizeof(float)); /* (seed, layer) alone */
  model_free(&memory, &automatic);
  model_free(&memory, &he);
  model_free(&memory, &xavier);
}
END_TEST

START_TEST(test_initial_weights_depend_on_seed_and_layer) {
  cv_memory memory = {0};
  cv_error err = {CURVD_OK, ""};
  model_spec spec = spec_of("30-30-30", NN_RELU, NN_LOSS_AUTO);
  model one, two;
  ck_assert_int_eq(
      model_create(&spec, &(model_settings){.rows_max = 1, .init = MODEL_INIT_HE, .seed = 1}, &memory, &one, &err),
      CURVD_OK);
  ck_assert_int_eq(
      model_create(&spec, &(model_settings){.rows_max = 1, .init = MODEL_INIT_HE, .seed = 2}, &memory, &two, &err),
      CURVD_OK);
  size_t bytes = 30 * 32 * sizeof(float);
  ck_assert_mem_ne(one.layer[0].weight, two.layer[0].weight, bytes);
  ck_assert_mem_ne(one.layer[0].weight, one.layer[1].weight, bytes);
  model_free(&memory, &one);
  model_free(&memory, &two);
}
END_TEST

START_TEST(test_refused_models) {
  cv_memory memory = {0};
  model net;
  model_spec small = spec_of("4-3", NN_RELU, NN_LOSS_AUTO);
  const int64_t rows[] = {0, -1, (int64_t)1 << 31};
  for (int i = 0; i < 3; i++) {
    cv_error err = {CURVD_OK, ""};
    ck_assert_int_eq(model_create(&small, &(model_settings){.rows_max = rows[i], .init = MODEL_INIT_AUTO, .seed = 1},
                                  &memory, &net, &err),
                     CURVD_ERR_SIZE);
  }
  model_spec large = spec_of("100000-4", NN_RELU, NN_LOSS_AUTO);
  cv_error err = {CURVD_OK, ""};
  ck_assert_int_eq(model_create(&large, &(model_settings){.rows_max = INT32_MAX, .init = MODEL_INIT_AUTO, .seed = 1},
                                &memory, &net, &err),
                   CURVD_ERR_MEMORY);
  ck_assert_int_eq(live_bytes(&memory), 0); /* the weights were taken and given back */
  ck_assert_int_gt(memory.n_allocations, 0);
}
END_TEST

/* A deep network with every activation, and the same one in fp64. */
enum { DEEP_LAYERS = 5, ROWS = 6, ROWS_MAX = 9 };

static void fill(model *net, reference_net *reference) {
  uint32_t state = 1;
  *reference = (reference_net){.n_layers = net->spec.n_layers, .loss = net->spec.loss};
  for (int i = 0; i <= net->spec.n_layers; i++) reference->width[i] = width_of(&net->spec, i);
  for (int i = 0; i < net->spec.n_layers; i++) reference->activation[i] = net->spec.layer[i].activation;
  reference_new(reference);
  for (int l = 0; l < net->spec.n_layers; l++) {
    nn_layer *layer = &net->layer[l];
    for (int64_t i = 0; i < layer->d_out; i++)
      for (int64_t j = 0; j <= layer->d_in; j++) {
        state = state * 1664525 + 1013904223;
        if (j == layer->d_in)
          layer->weight[i * layer->ld + j] = (float)state * 0x1p-32f - 0.5f; /* a bias that counts */
        reference->weight[l][i * (layer->d_in + 1) + j] = layer->weight[i * layer->ld + j];
      }
  }
  for (int64_t i = 0; i < ROWS_MAX; i++)
    for (int64_t j = 0; j < width_of(&net->spec, 0); j++) {
      state = state * 1664525 + 1013904223;
      net->x[0][i * nn_ld(width_of(&net->spec, 0)) + j] = (float)state * 0x1p-31f - 1;
    }
}

static double reference_pass(const model *net, reference_net *reference, int64_t rows) {
  double loss = 0, x[REFERENCE_WIDTH_MAX];
  for (int64_t i = 0; i < rows; i++) {
    for (int64_t j = 0; j < width_of(&net->spec, 0); j++) x[j] = net->x[0][i * nn_ld(width_of(&net->spec, 0)) + j];
    loss += reference_example(reference, x, (int32_t)(i % 3), NULL, NULL);
  }
  return loss;
}

static double loss_of(model *net, int64_t rows) {
  int32_t label[ROWS_MAX];
  int top = net->spec.n_layers;
  int64_t d = width_of(&net->spec, top), n_correct;
  for (int i = 0; i < ROWS_MAX; i++) label[i] = i % 3;
  return nn_loss(net->spec.loss, rows, d, net->x[top], nn_ld(d), label, NULL, 0, net->g[top], &n_correct);
}

/* gradient = factor * reference within 1e-5 of the norm; padding 0. */
static void assert_gradients(const model *net, const reference_net *reference, double factor) {
  for (int l = 0; l < net->spec.n_layers; l++) {
    const nn_layer *layer = &net->layer[l];
    double error = 0, norm = 0;
    for (int64_t i = 0; i < layer->d_out; i++)
      for (int64_t j = 0; j < layer->ld; j++) {
        double expected = j > layer->d_in ? 0 : factor * reference->gradient[l][i * (layer->d_in + 1) + j];
        double difference = layer->gradient[i * layer->ld + j] - expected;
        error += difference * difference;
        norm += expected * expected;
      }
    ck_assert_double_le(sqrt(error), 1e-5 * sqrt(norm));
    ck_assert_double_gt(norm, 0);
  }
}

typedef struct calls {
  const model *net;
  int n, made; /* calls; layer whose gradient is made by them, -1: none */
  int layer[DEEP_LAYERS];
  float first[DEEP_LAYERS], bias_gradient[DEEP_LAYERS]; /* when layer i was ready */
} calls;

static bool note_call(void *user, int layer) {
  calls *seen = user;
  seen->layer[seen->n] = layer;
  seen->first[layer] = seen->net->g[layer + 1][0];
  seen->bias_gradient[layer] = seen->net->layer[layer].gradient[seen->net->layer[layer].d_in];
  seen->n++;
  return layer == seen->made;
}

START_TEST(test_passes_against_fp64) {
  cv_memory memory = {0};
  model net = model_of("7-13:gelu-9:tanh-17:sigmoid-5:relu-3", NN_RELU, ROWS_MAX, MODEL_INIT_AUTO, &memory);
  reference_net reference;
  fill(&net, &reference);
  int64_t n_allocations = memory.n_allocations;
  model_forward(&net, &training, ROWS);
  double loss = loss_of(&net, ROWS), expected = reference_pass(&net, &reference, ROWS);
  ck_assert_double_le(fabs(loss - expected), 1e-5 * expected);
  model_backward(&net, &training, ROWS, true, 0.25f, 0, NULL, NULL);
  assert_gradients(&net, &reference, 0.25);
  model_forward(&net, &training, ROWS); /* another piece of the batch adds up */
  loss_of(&net, ROWS);
  model_backward(&net, &training, ROWS, true, 0.5f, 1, NULL, NULL);
  assert_gradients(&net, &reference, 0.75);
  for (int i = 0; i <= DEEP_LAYERS; i++) { /* the constant 1 of every row is still there */
    int64_t d = width_of(&net.spec, i);
    for (int64_t row = 0; row < ROWS_MAX; row++) ck_assert_float_eq(net.x[i][row * nn_ld(d) + d], 1);
  }
  ck_assert_int_eq(memory.n_allocations, n_allocations);
  reference_free(&reference);
  model_free(&memory, &net);
}
END_TEST

START_TEST(test_ready_is_called_with_final_gradients) {
  cv_memory memory = {0};
  model net = model_of("7-13:gelu-9:tanh-17:sigmoid-5:relu-3", NN_RELU, ROWS_MAX, MODEL_INIT_AUTO, &memory);
  reference_net reference;
  fill(&net, &reference);
  model_forward(&net, &training, 1);
  loss_of(&net, 1);
  calls seen = {.net = &net, .made = -1};
  model_backward(&net, &training, 1, false, 1, 0, note_call, &seen);
  ck_assert_int_eq(seen.n, DEEP_LAYERS);
  reference_pass(&net, &reference, 1);
  for (int i = 0; i < DEEP_LAYERS; i++) {
    ck_assert_int_eq(seen.layer[i], DEEP_LAYERS - 1 - i);
    ck_assert_float_eq(seen.first[i], net.g[i + 1][0]);
    /* of one example, the gradient in the bias is the gradient before the activation */
    ck_assert_double_eq_tol(seen.first[i], reference.gradient[i][width_of(&net.spec, i)], 1e-6);
    for (int64_t k = 0; k < net.layer[i].d_out * net.layer[i].ld; k++)
      ck_assert_float_eq(net.layer[i].gradient[k], 0); /* weights = false */
  }
  loss_of(&net, 1);
  seen.n = 0;
  model_backward(&net, &training, 1, true, 1, 0, note_call, &seen);
  for (int i = 0; i < DEEP_LAYERS; i++)
    ck_assert_float_eq(seen.bias_gradient[i], 0); /* ready comes before the product */
  assert_gradients(&net, &reference, 1);
  seen.n = 0;
  seen.made = 1;
  for (int i = 0; i < DEEP_LAYERS; i++) net.layer[i].gradient[0] = 7;
  loss_of(&net, 1);
  model_backward(&net, &training, 1, true, 1, 0, note_call, &seen);
  for (int i = 0; i < DEEP_LAYERS; i++)
    ck_assert(i == 1 ? net.layer[i].gradient[0] == 7 : net.layer[i].gradient[0] != 7);
  reference_free(&reference);
  model_free(&memory, &net);
}
END_TEST

START_TEST(test_no_rows) {
  cv_memory memory = {0};
  model net = model_of("7-13-3", NN_RELU, ROWS_MAX, MODEL_INIT_AUTO, &memory);
  net.layer[0].gradient[0] = 3;
  model_forward(&net, &training, 0);
  model_backward(&net, &training, 0, true, 1, 1, NULL, NULL);
  ck_assert_float_eq(net.layer[0].gradient[0], 3);
  model_backward(&net, &training, 0, true, 1, 0, NULL, NULL);
  ck_assert_float_eq(net.layer[0].gradient[0], 0);
  model_free(&memory, &net);
}
END_TEST

int main(void) {
  const TTest *const tests[] = {test_words_of_a_chain,
                                test_repeated_widths,
                                test_words_of_the_autoencoder,
                                test_refused_words,
                                test_layer_limits,
                                test_buffers_and_padding,
                                test_initial_weights,
                                test_initial_weights_depend_on_seed_and_layer,
                                test_refused_models,
                                test_passes_against_fp64,
                                test_ready_is_called_with_final_gradients,
                                test_no_rows};
  return suite_run("model", tests, sizeof tests / sizeof tests[0], NULL);
}
