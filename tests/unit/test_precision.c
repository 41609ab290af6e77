/* The products of fully connected layers in every precision, on every matrix unit of this machine, against plain fp64
 * loops. */
#include "net/model_build.h"
#include "suite.h"
#include "train/network.h"

#include <math.h>

enum { ROWS = 37, D_IN = 101, D_OUT = 45, PRODUCTS = 3 };

/* From -1 to 1. */
static void fill(int64_t rows, int64_t columns, int64_t ld, uint64_t seed, float *x) {
  for (int64_t i = 0; i < rows; i++)
    for (int64_t j = 0; j < columns; j++) {
      seed = seed * 6364136223846793005u + 1442695040888963407u;
      x[i * ld + j] = (float)((double)(seed >> 11) * 0x1p-52 - 1);
    }
}

typedef struct layer_twin {
  cv_memory memory;
  model net; /* D_IN - 7 - D_OUT: the second layer's input has a gradient */
  double error[PRODUCTS];
  float *result[PRODUCTS]; /* y (ROWS, D_OUT), dw (D_OUT, D_IN + 1), dx (ROWS, D_IN), dense */
} layer_twin;

static void make(layer_twin *t, cv_precision precision, const cv_unit *unit) {
  model_spec spec;
  cv_error err = {0};
  static const char text[] = "- input: 7\n- dense: 101\n- dense: 45\n";
  ck_assert_msg(network_file_parse(text, strlen(text), "test.yaml", &spec, &err) == CURVD_OK, "%s", err.text);
  const model_settings settings = {.rows_max = ROWS, .seed = 1, .precision = precision, .unit = unit};
  *t = (layer_twin){.error = {0}};
  ck_assert_int_eq(model_create(&spec, &settings, &t->memory, &t->net, &err), CURVD_OK);
  nn_layer *layer = &t->net.layer[1];
  ck_assert(layer->d_in == D_IN && layer->d_out == D_OUT);
  fill(ROWS, D_IN, nn_ld(D_IN), 1, t->net.x[1]);
  fill(D_OUT, D_IN + 1, layer->ld, 2, layer->weight);
  fill(ROWS, D_OUT, nn_ld(D_OUT), 3, t->net.g[2]);
}

static void release(layer_twin *t) {
  for (int p = 0; p < PRODUCTS; p++) free(t->result[p]);
  model_free(&t->memory, &t->net);
}

/* sum over k of a[k step_a] b[k step_b] */
static double dot(int64_t n, const float *a, int64_t step_a, const float *b, int64_t step_b) {
  double sum = 0;
  for (int64_t k = 0; k < n; k++) sum += (double)a[k * step_a] * b[k * step_b];
  return sum;
}

/* (rows, columns) of found against expected(i, j), relative, Frobenius; keeps found. */
static double compare(const layer_twin *t, int product, int64_t rows, int64_t columns, const float *found, int64_t ld,
                      float *kept) {
  const nn_layer *layer = &t->net.layer[1];
  const float *x = t->net.x[1], *w = layer->weight, *g = t->net.g[2];
  int64_t ldx = nn_ld(D_IN), ldw = layer->ld, ldg = nn_ld(D_OUT);
  double difference = 0, size = 0;
  for (int64_t i = 0; i < rows; i++)
    for (int64_t j = 0; j < columns; j++) {
      double expected = product == 0   ? dot(D_IN + 1, x + i * ldx, 1, w + j * ldw, 1)
                        : product == 1 ? 0.5 * dot(ROWS, g + i, ldg, x + j, ldx)
                                       : dot(D_OUT, g + i * ldg, 1, w + j, ldw);
      difference += pow(found[i * ld + j] - expected, 2);
      size += expected * expected;
      kept[i * columns + j] = found[i * ld + j];
    }
  return sqrt(difference / size);
}

static void run(layer_twin *t) {
  nn_layer *layer = &t->net.layer[1];
  const float *x[NN_INPUTS_MAX] = {t->net.x[1]};
  const nn_pass pass = {.is_training = true};
  int64_t allocations = t->memory.n_allocations;
  layer->ops->forward(layer, &pass, ROWS, x, t->net.x[2]);
  layer->ops->backward_weight(layer, ROWS, x[0], t->net.g[2], 0.5f, 0);
  layer->ops->backward_input(layer, ROWS, x[0], t->net.x[2], t->net.g[2], t->net.g[1]);
  ck_assert_int_eq(t->memory.n_allocations, allocations);
  const struct {
    int64_t rows, columns, ld;
    const float *found;
  } each[PRODUCTS] = {{ROWS, D_OUT, nn_ld(D_OUT), t->net.x[2]},
                      {D_OUT, D_IN + 1, layer->ld, layer->gradient},
                      {ROWS, D_IN, nn_ld(D_IN), t->net.g[1]}};
  for (int p = 0; p < PRODUCTS; p++) {
    t->result[p] = malloc((size_t)(each[p].rows * each[p].columns) * sizeof(float));
    t->error[p] = compare(t, p, each[p].rows, each[p].columns, each[p].found, each[p].ld, t->result[p]);
  }
}

/* Rounding both factors makes sqrt(2) of a number's error, of which these numbers have about that of log-uniform ones;
 * three products reach its square, which is more than 100 times less. */
START_TEST(test_errors_of_a_layer) {
  const double one_term = sqrt(2) * cv_precision_error(CV_BF16);
  layer_twin fp32;
  make(&fp32, CV_FP32, NULL);
  run(&fp32);
  for (int u = 0; cv_units[u]; u++) {
    layer_twin bf16, bf16x3;
    if (!cv_units[u]->is_there()) continue;
    make(&bf16, CV_BF16, cv_units[u]);
    make(&bf16x3, CV_BF16X3, cv_units[u]);
    run(&bf16);
    run(&bf16x3);
    for (int p = 0; p < PRODUCTS; p++) {
      ck_assert_double_lt(fp32.error[p], 1e-6);
      ck_assert_msg(bf16.error[p] > one_term / 2 && bf16.error[p] < one_term * 2, "%s, product %d: error %g, not %g",
                    cv_units[u]->name, p, bf16.error[p], one_term);
      ck_assert_msg(bf16x3.error[p] < bf16.error[p] / 100, "%s, product %d: error %g by three products, %g by one",
                    cv_units[u]->name, p, bf16x3.error[p], bf16.error[p]);
    }
    release(&bf16), release(&bf16x3);
  }
  release(&fp32);
}
END_TEST

/* Frobenius norm of the difference over that of b. */
static double apart(int64_t n, const float *a, const float *b) {
  double difference = 0, size = 0;
  for (int64_t i = 0; i < n; i++) difference += pow((double)a[i] - b[i], 2), size += (double)b[i] * b[i];
  return sqrt(difference / size);
}

/* Units round alike, and differ in the order of fp32 sums alone. */
START_TEST(test_units_agree) {
  const int64_t n[PRODUCTS] = {ROWS * D_OUT, D_OUT * (D_IN + 1), ROWS * D_IN};
  for (cv_precision precision = CV_BF16; precision <= CV_BF16X3; precision++) {
    layer_twin portable;
    make(&portable, precision, &cv_unit_portable);
    run(&portable);
    for (int u = 0; cv_units[u]; u++) {
      layer_twin t;
      if (!cv_units[u]->is_there()) continue;
      make(&t, precision, cv_units[u]);
      run(&t);
      for (int p = 0; p < PRODUCTS; p++)
        ck_assert_msg(apart(n[p], t.result[p], portable.result[p]) < 1e-6, "%s, product %d", cv_units[u]->name, p);
      release(&t);
    }
    release(&portable);
  }
}
END_TEST

/* One room for all layers, which is given back. */
START_TEST(test_memory) {
  model_spec spec;
  cv_error err = {0};
  static const char text[] = "- input: 12x12x3\n- conv: 20\n  kernel: 3\n- dense: 4\n";
  ck_assert_int_eq(network_file_parse(text, strlen(text), "test.yaml", &spec, &err), CURVD_OK);
  for (cv_precision precision = CV_FP32; precision <= CV_BF16X3; precision++) {
    cv_memory memory = {0};
    model net;
    const cv_unit *unit = NULL;
    ck_assert_int_eq(cv_unit_find("auto", &unit, &err), CURVD_OK);
    const model_settings settings = {.rows_max = 9, .seed = 1, .precision = precision, .unit = unit};
    ck_assert_int_eq(model_create(&spec, &settings, &memory, &net, &err), CURVD_OK);
    int64_t room = 2 * cv_multiplier_room(precision), most = room + (1 << 21);
    ck_assert_int_ge(memory.bytes[CV_MEMORY_WORKSPACE], room);
    ck_assert_int_lt(memory.bytes[CV_MEMORY_WORKSPACE], most);
    model_free(&memory, &net);
    for (int k = 0; k < CV_MEMORY_KINDS; k++) ck_assert_int_eq(memory.bytes[k], 0);
  }
}
END_TEST

int main(void) {
  const TTest *const tests[] = {test_errors_of_a_layer, test_units_agree, test_memory};
  return suite_run("precision", tests, sizeof tests / sizeof *tests, NULL);
}
