#include "train/model.h"

#include "base/rng.h"

#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>

const nn_ops *const nn_kinds[] = {&nn_dense, NULL};

static void init_he(nn_layer *layer, const cv_rng *rng) {
  float deviation = (float)sqrt(2 / (double)layer->d_in);
  for (int64_t i = 0; i < layer->d_out; i++) {
    float *row = layer->weight + i * layer->ld;
    cv_rng_normal(rng, (uint64_t)(i * layer->d_in), layer->d_in, row);
    for (int64_t j = 0; j < layer->d_in; j++) row[j] *= deviation;
  }
}

static void init_xavier(nn_layer *layer, const cv_rng *rng) {
  double limit = sqrt(6 / (double)(layer->d_in + layer->d_out));
  for (int64_t i = 0; i < layer->d_out; i++) {
    float *row = layer->weight + i * layer->ld;
    for (int64_t j = 0; j < layer->d_in; j++)
      row[j] = (float)(limit * (2 * cv_rng_uniform(rng, (uint64_t)(i * layer->d_in + j)) - 1));
  }
}

static void init_layer(nn_layer *layer, int index, model_init init, uint64_t seed) {
  cv_rng rng = {.seed = seed, .stream = CV_RNG_INIT, .a = (uint32_t)index};
  int rectifies = layer->activation == NN_RELU || layer->activation == NN_GELU;
  if (init == MODEL_INIT_HE || (init == MODEL_INIT_AUTO && rectifies))
    init_he(layer, &rng);
  else
    init_xavier(layer, &rng);
}

static curvd_status layer_create(const model_spec *spec, int index, int64_t rows_max, cv_memory *memory,
                                 nn_layer *layer, cv_error *err) {
  layer->ops = &nn_dense;
  layer->d_in = spec->width[index];
  layer->d_out = spec->width[index + 1];
  layer->activation = spec->activation[index];
  layer->ld = nn_ld(layer->d_in);
  snprintf(layer->name, sizeof layer->name, "fc%d", index + 1);
  int64_t count = layer->d_out * layer->ld;
  CV_TRY(cv_floats_new(memory, CV_MEMORY_PARAMETERS, count, "weights", &layer->weight, err));
  CV_TRY(cv_floats_new(memory, CV_MEMORY_PARAMETERS, count, "gradients", &layer->gradient, err));
  if (layer->activation != NN_GELU) return CURVD_OK;
  return cv_floats_new(memory, CV_MEMORY_ACTIVATIONS, rows_max * nn_ld(layer->d_out), "activations", &layer->aux, err);
}

/* x[i] with its column of ones, and g[i] unless i is the network's input. */
static curvd_status buffers_create(model *net, int i, cv_memory *memory, cv_error *err) {
  int64_t d = net->spec.width[i], ld = nn_ld(d), count = net->rows_max * ld;
  CV_TRY(cv_floats_new(memory, CV_MEMORY_ACTIVATIONS, count, "activations", &net->x[i], err));
  for (int64_t row = 0; row < net->rows_max; row++) net->x[i][row * ld + d] = 1;
  if (i == 0) return CURVD_OK;
  return cv_floats_new(memory, CV_MEMORY_ACTIVATIONS, count, "activation gradients", &net->g[i], err);
}

static curvd_status parts_create(model *net, cv_memory *memory, cv_error *err) {
  for (int i = 0; i < net->spec.n_layers; i++)
    CV_TRY(layer_create(&net->spec, i, net->rows_max, memory, &net->layer[i], err));
  for (int i = 0; i <= net->spec.n_layers; i++) CV_TRY(buffers_create(net, i, memory, err));
  return CURVD_OK;
}

curvd_status model_create(const model_spec *spec, int64_t rows_max, model_init init, uint64_t seed, cv_memory *memory,
                          model *net, cv_error *err) {
  if (rows_max < 1 || rows_max > INT_MAX)
    return cv_fail(err, CURVD_ERR_SIZE,
                   "a piece of %" PRId64 " examples does not fit BLAS (1 to %d); change accumulate", rows_max, INT_MAX);
  *net = (model){.spec = *spec, .rows_max = rows_max};
  curvd_status status = parts_create(net, memory, err);
  if (status != CURVD_OK) {
    model_free(memory, net);
    return status;
  }
  for (int i = 0; i < spec->n_layers; i++) init_layer(&net->layer[i], i, init, seed);
  return CURVD_OK;
}

void model_free(cv_memory *memory, model *net) {
  for (int i = 0; i < MODEL_LAYERS_MAX; i++) {
    cv_floats_free(memory, &net->layer[i].weight);
    cv_floats_free(memory, &net->layer[i].gradient);
    cv_floats_free(memory, &net->layer[i].aux);
  }
  for (int i = 0; i <= MODEL_LAYERS_MAX; i++) {
    cv_floats_free(memory, &net->x[i]);
    cv_floats_free(memory, &net->g[i]);
  }
}

void model_forward(model *net, int64_t rows) {
  for (int i = 0; i < net->spec.n_layers; i++) {
    nn_layer *layer = &net->layer[i];
    layer->ops->forward(layer, rows, net->x[i], net->x[i + 1]);
  }
}

void model_backward(model *net, int64_t rows, bool weights, float scale, float beta, model_ready ready, void *user) {
  for (int i = net->spec.n_layers - 1; i >= 0; i--) {
    nn_layer *layer = &net->layer[i];
    layer->ops->backward_output(layer, rows, net->x[i + 1], net->g[i + 1]);
    bool is_made = ready != NULL && ready(user, i);
    if (weights && !is_made) layer->ops->backward_weight(layer, rows, net->x[i], net->g[i + 1], scale, beta);
    if (i > 0) layer->ops->backward_input(layer, rows, net->g[i + 1], net->g[i]);
  }
}
