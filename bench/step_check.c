#include "step_check.h"

#include "products.h"
#include "reference_net.h"
#include "train/trainer.h"

/* fp32 sums of k terms are off by about sqrt(k) 2^-24, 3e-6 at the widest of our layers; a wrong product by about 1. */
static const double tolerance = 1e-4;

/* ---- sgd against plain loops ---- */

static void copy_weights(const model *net, reference_net *plain) {
  plain->n_layers = net->spec.n_layers;
  plain->loss = net->spec.loss;
  for (int i = 0; i <= plain->n_layers; i++) plain->width[i] = nn_size(model_shape(&net->spec, i));
  for (int i = 0; i < plain->n_layers; i++) plain->activation[i] = net->spec.layer[i].activation;
  reference_new(plain);
  for (int i = 0; i < plain->n_layers; i++) {
    const nn_layer *layer = &net->layer[i];
    int64_t n = layer->d_in + 1;
    for (int64_t k = 0; k < layer->d_out * n; k++) plain->weight[i][k] = layer->weight[k / n * layer->ld + k % n];
  }
}

/* Sums the gradients of the first batch of epoch 0. */
static void plain_gradient(const trainer *t, reference_net *plain) {
  float x[REFERENCE_WIDTH_MAX];
  double input[REFERENCE_WIDTH_MAX];
  int32_t label;
  for (int64_t i = 0; i < t->config->values.batch; i++) {
    data_features(&t->data.train, t->order + i, 1, NULL, x, REFERENCE_WIDTH_MAX);
    data_labels(&t->data.train, t->order + i, 1, &label);
    for (int64_t j = 0; j < plain->width[0]; j++) input[j] = x[j];
    reference_example(plain, input, label, NULL, NULL);
  }
}

/* The first step of sgd moves a weight by lr times its gradient, with or without momentum. */
static curvd_status compare_layer(const nn_layer *layer, const double *weight, const double *sum, double batch,
                                  double lr, cv_error *err) {
  double largest = 0;
  int64_t n = layer->d_in + 1;
  for (int64_t k = 0; k < layer->d_out * n; k++) largest = fmax(largest, fabs(sum[k]) / batch);
  if (!(largest > 0)) return cv_fail(err, CURVD_ERR_NUMERIC, "check sgd: %s has no gradient", layer->spec.name);
  for (int64_t k = 0; k < layer->d_out * n; k++) {
    double wanted = sum[k] / batch, moved = (weight[k] - layer->weight[k / n * layer->ld + k % n]) / lr;
    if (fabs(moved - wanted) <= tolerance * largest) continue;
    return cv_fail(
        err, CURVD_ERR_NUMERIC,
        "check sgd: weight [%lld, %lld] of %s moved by lr times %.9g; plain fp64 loops find the gradient %.9g",
        (long long)(k / n), (long long)(k % n), layer->spec.name, moved, wanted);
  }
  return CURVD_OK;
}

static curvd_status one_step(trainer *t, cv_error *err) {
  reference_net plain = {.n_layers = 0};
  copy_weights(&t->model, &plain);
  curvd_status status = trainer_step(t, err);
  plain_gradient(t, &plain);
  for (int i = 0; i < plain.n_layers && status == CURVD_OK; i++)
    status = compare_layer(&t->model.layer[i], plain.weight[i], plain.gradient[i], (double)t->config->values.batch,
                           t->lr, err);
  reference_free(&plain);
  return status;
}

curvd_status step_check_sgd(cv_error *err) {
  const char *const words[] = {"--method",          "sgd", "--data",    "teacher",
                               "--teacher-samples", "240", "--network", "12-16-9-5",
                               "--batch",           "40",  "--lr",      "1"};
  config c;
  trainer t;
  CV_TRY(config_load(sizeof words / sizeof words[0], (char *const *)words, &c, err));
  curvd_status status = trainer_create(&c, MPI_COMM_SELF, &t, err);
  if (status != CURVD_OK) goto free_config;
  status = one_step(&t, err);
  trainer_free(&t);
free_config:
  config_free(&c);
  return status;
}

/* ---- products against the model ---- */

static curvd_status compare_products(const model *net, const model *twin, cv_error *err) {
  for (int i = 0; i < net->spec.n_layers; i++) {
    const nn_layer *layer = &net->layer[i];
    double difference = 0, norm = 0;
    for (int64_t k = 0; k < layer->d_out * layer->ld; k++) {
      double wanted = twin->layer[i].gradient[k], off = layer->gradient[k] - wanted;
      difference += off * off;
      norm += wanted * wanted;
    }
    if (norm > 0 && sqrt(difference) <= tolerance * sqrt(norm)) continue;
    return cv_fail(
        err, CURVD_ERR_NUMERIC,
        "check products: the bare products leave a gradient of %s that differs from the model's by %.3g of its "
        "norm %.3g; they are not the step's products",
        layer->spec.name, sqrt(difference / norm), sqrt(norm));
  }
  return CURVD_OK;
}

curvd_status step_check_products(const model *net, int64_t rows, uint64_t seed, cv_error *err) {
  cv_memory memory = {.n_allocations = 0};
  model twin;
  const model_settings settings = {.rows_max = net->rows_max, .seed = seed};
  CV_TRY(model_create(&net->spec, &settings, &memory, &twin, err));
  products_fill(&twin, rows, seed);
  const nn_pass pass = {.is_training = true};
  model_forward(&twin, &pass, rows);
  model_backward(&twin, &pass, rows, true, 1.0f / (float)rows, 0, NULL, NULL);
  curvd_status status = compare_products(net, &twin, err);
  model_free(&memory, &twin);
  return status;
}
