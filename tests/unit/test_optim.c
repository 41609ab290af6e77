/* Optimizers against their definitions, one weight at a time in fp64; learning rates by hand. */
#include "train/network.h"
#include "train/optim.h"

#include "suite.h"

#include <math.h>
#include <string.h>

enum { D_IN = 20, D_OUT = 3, LD = 32, N = D_OUT * LD, STEPS = 25 };

static model small_model(cv_memory *memory) {
  cv_error err = {CURVD_OK, ""};
  model_spec spec;
  model net;
  ck_assert_int_eq(network_parse("20-3", NN_RELU, NN_LOSS_AUTO, &spec, &err), CURVD_OK);
  ck_assert_int_eq(
      model_create(&spec, &(model_settings){.rows_max = 1, .init = MODEL_INIT_AUTO, .seed = 5}, memory, &net, &err),
      CURVD_OK);
  ck_assert_int_eq(net.layer[0].ld, LD);
  return net;
}

static float direction_of(int step, int i) {
  return i % LD > D_IN ? 0 : (float)sin(step * 7.3 + i);
}

/* One weight in fp64, straight from the papers. */
typedef struct scalar {
  double w, m, v;
} scalar;

static void reference_step(scalar *s, const optim *opt, double lr, double d, int t) {
  if (opt->decay == OPTIM_COUPLED_AFTER) d += opt->weight_decay * s->w;
  if (opt->decay == OPTIM_DECOUPLED) s->w -= lr * opt->weight_decay * s->w;
  if (opt->kind == TRAIN_SGD) {
    s->m = opt->momentum * s->m + d;
    s->w -= lr * s->m;
    return;
  }
  s->m = opt->beta1 * s->m + (1 - opt->beta1) * d;
  s->v = opt->beta2 * s->v + (1 - opt->beta2) * d * d;
  double m_hat = s->m / (1 - pow(opt->beta1, t)), v_hat = s->v / (1 - pow(opt->beta2, t));
  s->w -= lr * m_hat / (sqrt(v_hat) + opt->epsilon);
}

static void check_optimizer(const optim *settings) {
  cv_memory memory = {0};
  cv_error err = {CURVD_OK, ""};
  model net = small_model(&memory);
  int64_t bytes = memory.bytes[CV_MEMORY_MOMENTUM], n_allocations;
  optim opt;
  scalar expected[N];
  ck_assert_int_eq(optim_create(settings, &net, &memory, &opt, &err), CURVD_OK);
  int n_moments = settings->kind == TRAIN_ADAMW ? 2 : settings->momentum != 0;
  ck_assert_int_eq(memory.bytes[CV_MEMORY_MOMENTUM] - bytes, (int64_t)(n_moments * N * (int)sizeof(float)));
  n_allocations = memory.n_allocations;
  for (int i = 0; i < N; i++) expected[i] = (scalar){.w = net.layer[0].weight[i]};
  for (int t = 1; t <= STEPS; t++) {
    double lr = 0.1 / t;
    for (int i = 0; i < N; i++) {
      net.layer[0].gradient[i] = direction_of(t, i);
      reference_step(&expected[i], settings, lr, direction_of(t, i), t);
    }
    optim_step(&opt, &net, lr);
    for (int i = 0; i < N; i++) {
      ck_assert_double_le(fabs(net.layer[0].weight[i] - expected[i].w), 2e-6 * (1 + fabs(expected[i].w)));
      if (i % LD > D_IN) ck_assert_float_eq(net.layer[0].weight[i], 0);
    }
  }
  ck_assert_int_eq(opt.step, STEPS);
  ck_assert_int_eq(memory.n_allocations, n_allocations);
  optim_free(&memory, &opt);
  ck_assert_int_eq(memory.bytes[CV_MEMORY_MOMENTUM], bytes);
  model_free(&memory, &net);
}

START_TEST(test_optimizers) {
  const double momenta[] = {0, 0.9}, decays[] = {0, 0.5};
  const optim_decay kinds[] = {OPTIM_DECOUPLED, OPTIM_COUPLED_BEFORE, OPTIM_COUPLED_AFTER};
  for (int m = 0; m < 2; m++)
    for (int d = 0; d < 2; d++)
      for (int k = 0; k < 3; k++) {
        optim settings = {.momentum = momenta[m],
                          .weight_decay = decays[d],
                          .decay = kinds[k],
                          .beta1 = 0.9,
                          .beta2 = 0.999,
                          .epsilon = 1e-8};
        settings.kind = TRAIN_SGD;
        check_optimizer(&settings);
        settings.kind = TRAIN_ADAMW;
        check_optimizer(&settings);
      }
}
END_TEST

START_TEST(test_coupled_decay_before_preconditioning) {
  cv_memory memory = {0};
  model net = small_model(&memory);
  const optim_decay kinds[] = {OPTIM_DECOUPLED, OPTIM_COUPLED_BEFORE, OPTIM_COUPLED_AFTER};
  const double shares[] = {0.25, 0.75}; /* of two workers: together the whole decay */
  for (int k = 0; k < 3; k++) {
    optim opt = {.weight_decay = 0.5, .decay = kinds[k]};
    for (int i = 0; i < N; i++) net.layer[0].gradient[i] = direction_of(0, i);
    for (int s = 0; s < 2; s++) optim_couple_decay(&opt, &net, shares[s]);
    for (int i = 0; i < N; i++) {
      double added = kinds[k] == OPTIM_COUPLED_BEFORE ? 0.5 * net.layer[0].weight[i] : 0;
      ck_assert_double_le(fabs(net.layer[0].gradient[i] - (direction_of(0, i) + added)), 1e-6);
    }
  }
  model_free(&memory, &net);
}
END_TEST

START_TEST(test_all_layers_move) {
  cv_memory memory = {0};
  cv_error err = {CURVD_OK, ""};
  model_spec spec;
  model net;
  optim opt, settings = {.kind = TRAIN_SGD, .momentum = 0.5};
  ck_assert_int_eq(network_parse("4-5-6-2", NN_RELU, NN_LOSS_AUTO, &spec, &err), CURVD_OK);
  ck_assert_int_eq(
      model_create(&spec, &(model_settings){.rows_max = 1, .init = MODEL_INIT_AUTO, .seed = 5}, &memory, &net, &err),
      CURVD_OK);
  ck_assert_int_eq(optim_create(&settings, &net, &memory, &opt, &err), CURVD_OK);
  for (int l = 0; l < 3; l++) net.layer[l].gradient[4] = (float)(l + 1);
  float before[3];
  for (int l = 0; l < 3; l++) before[l] = net.layer[l].weight[4];
  optim_step(&opt, &net, 1);
  optim_step(&opt, &net, 1);
  for (int l = 0; l < 3; l++) /* m = g, then 1.5 g */
    ck_assert_double_eq_tol(before[l] - net.layer[l].weight[4], 2.5 * (l + 1), 1e-5);
  optim_free(&memory, &opt);
  model_free(&memory, &net);
}
END_TEST

/* Scales and shifts of a normalisation feel no decay of any kind; the convolution beside them does. */
START_TEST(test_normalisations_do_not_decay) {
  const char *text = "- input: 4x4x2\n- conv: 3\n  kernel: 2\n- norm: batch\n- dense: 2\n";
  const optim_decay kinds[] = {OPTIM_DECOUPLED, OPTIM_COUPLED_BEFORE, OPTIM_COUPLED_AFTER};
  for (int k = 0; k < 3; k++) {
    cv_memory memory = {0};
    cv_error err = {CURVD_OK, ""};
    model_spec spec;
    model net;
    optim opt, settings = {.kind = TRAIN_SGD, .weight_decay = 0.5, .decay = kinds[k]};
    ck_assert_int_eq(network_file_parse(text, strlen(text), "net.yaml", &spec, &err), CURVD_OK);
    ck_assert_int_eq(model_create(&spec, &(model_settings){.rows_max = 1, .seed = 5}, &memory, &net, &err), CURVD_OK);
    ck_assert_int_eq(optim_create(&settings, &net, &memory, &opt, &err), CURVD_OK);
    const nn_layer *conv = &net.layer[0], *norm = &net.layer[1];
    float before = conv->weight[0];
    optim_couple_decay(&opt, &net, 1);
    optim_step(&opt, &net, 0.1);
    ck_assert_double_eq_tol(conv->weight[0], before * (1 - 0.1 * 0.5), 1e-6);
    for (int64_t c = 0; c < norm->d_out; c++) ck_assert_float_eq(norm->weight[c * norm->ld], 1);
    optim_free(&memory, &opt);
    model_free(&memory, &net);
  }
}
END_TEST

START_TEST(test_learning_rates) {
  cv_schedule constant = cv_schedule_constant(2), stepped;
  ck_assert_double_eq(optim_lr(&constant, 0, 0, 0, 100, 10), 2);
  ck_assert_double_eq(optim_lr(&constant, 0, 0, 99, 100, 10), 2);
  ck_assert_double_eq_tol(optim_lr(&constant, 1, 0, 0, 100, 10), 2, 1e-15);
  ck_assert_double_eq_tol(optim_lr(&constant, 1, 0, 25, 100, 10), 1.5, 1e-15);
  ck_assert_double_eq_tol(optim_lr(&constant, 1, 0, 99, 100, 10), 0.02, 1e-15);
  ck_assert_double_eq(optim_lr(&constant, 1, 0, 100, 100, 10), 0);
  ck_assert_double_eq(optim_lr(&constant, 1, 0, 150, 100, 10), 0); /* never below 0 */
  ck_assert_double_eq_tol(optim_lr(&constant, 2, 0, 25, 100, 10), 1 + sqrt(0.5), 1e-14);
  ck_assert_double_eq_tol(optim_lr(&constant, 2, 0, 50, 100, 10), 1, 1e-14);
  ck_assert_double_eq_tol(optim_lr(&constant, 2, 0, 100, 100, 10), 0, 1e-14);
  ck_assert_double_eq(optim_lr(&constant, 2, 0, 7, 0, 10), 2); /* no known end: no decay */
  ck_assert_double_eq(optim_lr(&constant, 0, 4, 0, 100, 10), 0.5);
  ck_assert_double_eq(optim_lr(&constant, 0, 4, 2, 100, 10), 1.5);
  ck_assert_double_eq(optim_lr(&constant, 0, 4, 3, 100, 10), 2);
  ck_assert_double_eq_tol(optim_lr(&constant, 1, 4, 1, 10, 10), 2 * 0.5 * 0.9, 1e-15);
  cv_error err = {CURVD_OK, ""};
  ck_assert_int_eq(cv_schedule_parse("0.1, 0.05@2e, 0.01@30", 0, 1, &stepped, &err), CURVD_OK);
  ck_assert_double_eq(optim_lr(&stepped, 0, 0, 19, 100, 10), 0.1);
  ck_assert_double_eq(optim_lr(&stepped, 0, 0, 20, 100, 10), 0.05);
  ck_assert_double_eq_tol(optim_lr(&stepped, 1, 0, 50, 100, 10), 0.005, 1e-15);
}
END_TEST

int main(void) {
  const TTest *const tests[] = {test_optimizers, test_coupled_decay_before_preconditioning, test_all_layers_move,
                                test_normalisations_do_not_decay, test_learning_rates};
  return suite_run("optim", tests, sizeof tests / sizeof tests[0], NULL);
}
