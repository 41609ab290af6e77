#include "products.h"

#include "base/rng.h"

#include <cblas.h>

bool products_exist(const model_spec *spec) {
  for (int i = 0; i < spec->n_layers; i++) {
    if (spec->layer[i].kind != NN_DENSE) return false;
  }
  return true;
}

static void forward(const nn_layer *layer, int rows, const float *x, float *y) {
  cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, rows, (int)layer->d_out, (int)layer->d_in + 1, 1, x,
              (int)layer->ld, layer->weight, (int)layer->ld, 0, y, (int)nn_ld(layer->d_out));
}

static void backward_weight(nn_layer *layer, int rows, const float *x, const float *g) {
  cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, (int)layer->d_out, (int)layer->d_in + 1, rows,
              1.0f / (float)rows, g, (int)nn_ld(layer->d_out), x, (int)layer->ld, 0, layer->gradient, (int)layer->ld);
}

static void backward_input(const nn_layer *layer, int rows, const float *g, float *dx) {
  cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, rows, (int)layer->d_in, (int)layer->d_out, 1, g,
              (int)nn_ld(layer->d_out), layer->weight, (int)layer->ld, 0, dx, (int)layer->ld);
}

void products_run(model *net, int64_t rows) {
  int n = net->spec.n_layers;
  for (int i = 0; i < n; i++) forward(&net->layer[i], (int)rows, net->x[i], net->x[i + 1]);
  for (int i = n - 1; i >= 0; i--) {
    backward_weight(&net->layer[i], (int)rows, net->x[i], net->g[i + 1]);
    if (i > 0) backward_input(&net->layer[i], (int)rows, net->g[i + 1], net->g[i]);
  }
}

double products_flops(const model_spec *spec, int64_t rows) {
  double flops = 0;
  for (int i = 0; i < spec->n_layers; i++) {
    double d_in = (double)nn_weight_columns(&spec->layer[i]), d_out = (double)nn_weight_rows(&spec->layer[i]);
    flops += 2 * (double)rows * d_out * (2 * (d_in + 1) + (i > 0 ? d_in : 0));
  }
  return flops;
}

void products_fill(model *net, int64_t rows, uint64_t seed) {
  int n = net->spec.n_layers;
  int64_t d_in = nn_size(net->spec.input), d_out = model_output(&net->spec).channels;
  cv_rng input = {.seed = seed, .stream = CV_RNG_PROBE, .a = 0},
         output = {.seed = seed, .stream = CV_RNG_PROBE, .a = 1};
  for (int64_t i = 0; i < rows; i++) {
    cv_rng_normal(&input, (uint64_t)(i * d_in), d_in, net->x[0] + i * nn_ld(d_in));
    cv_rng_normal(&output, (uint64_t)(i * d_out), d_out, net->g[n] + i * nn_ld(d_out));
  }
}
