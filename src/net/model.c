#include "net/model.h"

#include "base/rng.h"

#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <string.h>

static const nn_ops *const kinds[NN_KINDS] = {
    [NN_DENSE] = &nn_dense,     [NN_CONV] = &nn_convolution, [NN_NORM] = &nn_norm,       [NN_MAX] = &nn_pooling,
    [NN_AVERAGE] = &nn_pooling, [NN_DROPOUT] = &nn_dropout,  [NN_FLATTEN] = &nn_flatten, [NN_ADD] = &nn_add};

/* ---- initial weights ---- */

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

static void init_layer(nn_layer *layer, model_init init, uint64_t seed) {
  cv_rng rng = {.seed = seed, .stream = CV_RNG_INIT, .a = (uint32_t)layer->index};
  nn_activation_kind activation = layer->spec.activation;
  bool rectifies = activation == NN_RELU || activation == NN_GELU || layer->spec.kind == NN_CONV;
  if (layer->spec.kind == NN_NORM) return;
  if (init == MODEL_INIT_HE || (init == MODEL_INIT_AUTO && rectifies))
    init_he(layer, &rng);
  else
    init_xavier(layer, &rng);
}

/* ---- memory ---- */

static curvd_status weights_create(nn_layer *layer, cv_memory *memory, cv_error *err) {
  int64_t count = layer->d_out * layer->ld;
  CV_TRY(cv_floats_new(memory, CV_MEMORY_PARAMETERS, count, "weights", &layer->weight, err));
  return cv_floats_new(memory, CV_MEMORY_PARAMETERS, count, "gradients", &layer->gradient, err);
}

static curvd_status layer_create(const model *net, int index, const model_settings *settings, cv_memory *memory,
                                 nn_layer *layer, cv_error *err) {
  const nn_layer_spec *spec = &net->spec.layer[index];
  int64_t rows_max = settings->rows_max;
  *layer = (nn_layer){.ops = kinds[spec->kind],
                      .spec = *spec,
                      .index = index,
                      .by = net->by,
                      .kernels = settings->kernels,
                      .threads = settings->threads > 0 ? settings->threads : 1,
                      .d_in = nn_weight_columns(spec),
                      .d_out = nn_weight_rows(spec),
                      .ld = nn_ld(nn_weight_columns(spec))};
  if (layer->ops->backward_weight) CV_TRY(weights_create(layer, memory, err));
  if (layer->ops->create) CV_TRY(layer->ops->create(layer, rows_max, memory, err));
  if (spec->activation != NN_GELU) return CURVD_OK;
  return cv_floats_new(memory, CV_MEMORY_ACTIVATIONS, rows_max * nn_stride(spec->out), "activations", &layer->slope,
                       err);
}

/* x[t], with its column of ones where it is flat, and g[t] unless it is the network's input. */
static curvd_status tensor_create(model *net, int t, cv_memory *memory, cv_error *err) {
  nn_shape shape = model_shape(&net->spec, t);
  int64_t stride = nn_stride(shape), count = net->rows_max * stride;
  CV_TRY(cv_floats_new(memory, CV_MEMORY_ACTIVATIONS, count, "activations", &net->x[t], err));
  for (int64_t row = 0; row < net->rows_max && !shape.is_image; row++) net->x[t][row * stride + shape.channels] = 1;
  if (t == 0) return CURVD_OK;
  return cv_floats_new(memory, CV_MEMORY_ACTIVATIONS, count, "activation gradients", &net->g[t], err);
}

/* Room for the largest tensor that more than one layer takes. */
static curvd_status branch_create(model *net, cv_memory *memory, cv_error *err) {
  int64_t taken[MODEL_LAYERS_MAX + 1] = {0}, most = 0;
  for (int i = 0; i < net->spec.n_layers; i++) {
    for (int k = 0; k < nn_inputs(net->spec.layer[i].kind); k++) {
      int t = net->spec.layer[i].from[k];
      int64_t stride = nn_stride(model_shape(&net->spec, t));
      if (++taken[t] > 1 && t > 0 && stride > most) most = stride;
    }
  }
  if (most == 0) return CURVD_OK;
  return cv_floats_new(memory, CV_MEMORY_ACTIVATIONS, net->rows_max * most, "activation gradients", &net->branch, err);
}

static curvd_status multiplier_create(const model_settings *settings, cv_memory *memory, cv_multiplier *by,
                                      cv_error *err) {
  void *room = NULL;
  if (settings->precision == CV_FP32) return CURVD_OK;
  CV_TRY(cv_memory_new(memory, CV_MEMORY_WORKSPACE, cv_multiplier_room(settings->precision), sizeof *by->room,
                       "rounded matrices", &room, err));
  *by = (cv_multiplier){settings->precision, settings->unit, room};
  return CURVD_OK;
}

static curvd_status parts_create(model *net, const model_settings *given, cv_memory *memory, cv_error *err) {
  model_settings settings = *given;
  if (settings.kernels == NULL) CV_TRY(nn_kernels_find("auto", &settings.kernels, err));
  CV_TRY(multiplier_create(&settings, memory, &net->by, err));
  for (int i = 0; i < net->spec.n_layers; i++) CV_TRY(layer_create(net, i, &settings, memory, &net->layer[i], err));
  for (int t = 0; t <= net->spec.n_layers; t++) CV_TRY(tensor_create(net, t, memory, err));
  return branch_create(net, memory, err);
}

curvd_status model_create(const model_spec *spec, const model_settings *settings, cv_memory *memory, model *net,
                          cv_error *err) {
  if (settings->rows_max < 1 || settings->rows_max > INT_MAX)
    return cv_fail(err, CURVD_ERR_SIZE,
                   "a piece of %" PRId64 " examples does not fit BLAS (1 to %d); change accumulate", settings->rows_max,
                   INT_MAX);
  *net = (model){.spec = *spec, .rows_max = settings->rows_max};
  curvd_status status = parts_create(net, settings, memory, err);
  if (status != CURVD_OK) {
    model_free(memory, net);
    return status;
  }
  for (int i = 0; i < spec->n_layers; i++) {
    if (net->layer[i].weight) init_layer(&net->layer[i], settings->init, settings->seed);
  }
  return CURVD_OK;
}

curvd_status model_prepare(model *net, int64_t rows, cv_memory *memory, cv_error *err) {
  if (rows < 1 || rows >= net->rows_max) return CURVD_OK;
  for (int i = 0; i < net->spec.n_layers; i++) {
    nn_layer *layer = &net->layer[i];
    if (layer->ops->prepare) CV_TRY(layer->ops->prepare(layer, rows, memory, err));
  }
  return CURVD_OK;
}

void model_free(cv_memory *memory, model *net) {
  for (int i = 0; i < MODEL_LAYERS_MAX; i++) {
    nn_layer *layer = &net->layer[i];
    if (layer->ops && layer->ops->release) layer->ops->release(layer, memory);
    cv_floats_free(memory, &layer->weight);
    cv_floats_free(memory, &layer->gradient);
    cv_floats_free(memory, &layer->slope);
  }
  for (int i = 0; i <= MODEL_LAYERS_MAX; i++) {
    cv_floats_free(memory, &net->x[i]);
    cv_floats_free(memory, &net->g[i]);
  }
  cv_floats_free(memory, &net->branch);
  void *room = net->by.room;
  cv_memory_free(memory, &room);
  net->by = (cv_multiplier){CV_FP32};
}

/* ---- passes ---- */

/* A tensor as a matrix whose rows are pixels. */
static int64_t pixels(nn_shape shape, int64_t rows) {
  return rows * shape.height * shape.width;
}

static int64_t pixel_ld(nn_shape shape) {
  return shape.is_image ? shape.channels : nn_ld(shape.channels);
}

void model_forward(model *net, const nn_pass *pass, int64_t rows) {
  for (int i = 0; i < net->spec.n_layers; i++) {
    nn_layer *layer = &net->layer[i];
    const nn_layer_spec *s = &layer->spec;
    const float *x[NN_INPUTS_MAX];
    for (int k = 0; k < NN_INPUTS_MAX; k++) x[k] = net->x[s->from[k]];
    layer->ops->forward(layer, pass, rows, x, net->x[i + 1]);
    nn_activation_forward(s->activation, pixels(s->out, rows), s->out.channels, net->x[i + 1], pixel_ld(s->out),
                          layer->slope);
  }
}

static void add_branch(const model *net, int t, int64_t rows) {
  int64_t count = rows * nn_stride(model_shape(&net->spec, t));
  float *g = net->g[t];
  for (int64_t j = 0; j < count; j++) g[j] += net->branch[j];
}

/* A tensor that several layers take has the sum of what comes back from them. */
static void backward_inputs(model *net, int i, int64_t rows, bool *is_there) {
  nn_layer *layer = &net->layer[i];
  for (int k = 0; k < nn_inputs(layer->spec.kind); k++) {
    int t = layer->spec.from[k];
    if (t == 0) continue;
    layer->ops->backward_input(layer, rows, net->x[t], net->x[i + 1], net->g[i + 1],
                               is_there[t] ? net->branch : net->g[t]);
    if (is_there[t]) add_branch(net, t, rows);
    is_there[t] = true;
  }
}

void model_backward(model *net, const nn_pass *pass, int64_t rows, bool weights, float scale, float beta,
                    model_ready ready, void *user) {
  bool is_there[MODEL_LAYERS_MAX + 1] = {false};
  for (int i = net->spec.n_layers - 1; i >= 0; i--) {
    nn_layer *layer = &net->layer[i];
    const nn_layer_spec *s = &layer->spec;
    const float *x = net->x[s->from[0]];
    float *g = net->g[i + 1];
    nn_activation_backward(s->activation, pixels(s->out, rows), s->out.channels, net->x[i + 1], layer->slope, g,
                           pixel_ld(s->out));
    if (layer->ops->backward_begin) layer->ops->backward_begin(layer, pass, rows, x, g);
    bool is_made = ready != NULL && layer->weight != NULL && ready(user, i);
    if (weights && layer->weight != NULL && !is_made) layer->ops->backward_weight(layer, rows, x, g, scale, beta);
    backward_inputs(net, i, rows, is_there);
  }
}

curvd_status model_check(const model *net, cv_error *err) {
  for (int i = 0; i < net->spec.n_layers; i++) {
    const nn_layer *layer = &net->layer[i];
    if (layer->fault.code != CURVD_OK) return cv_fail(err, layer->fault.code, "%s", layer->fault.text);
  }
  return CURVD_OK;
}
