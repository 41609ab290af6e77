/* Every kind of layer of src/train written again as plain fp64 loops over a model_spec; gradients come from central
 * differences alone. */
#ifndef TESTS_UNIT_REFERENCE_LAYERS_H
#define TESTS_UNIT_REFERENCE_LAYERS_H

#include "reference_net.h"
#include "net/model.h"

#include <stdbool.h>
#include <string.h>

typedef struct reference_layers {
  const model_spec *spec;
  int64_t rows;
  double *x[MODEL_LAYERS_MAX + 1];      /* (rows, nn_size) */
  double *weight[MODEL_LAYERS_MAX];     /* (d_out, d_in + 1); NULL: none */
  const double *kept[MODEL_LAYERS_MAX]; /* factors of a dropout layer (rows, nn_size) */
} reference_layers;

static inline int64_t reference_at(nn_shape s, int64_t b, int64_t y, int64_t x, int64_t c) {
  return ((b * s.height + y) * s.width + x) * s.channels + c;
}

static inline void reference_conv(const nn_layer_spec *s, int64_t rows, const double *w, const double *x, double *y) {
  int64_t per = s->in.channels / s->groups, made = s->out.channels / s->groups, d_in = nn_weight_columns(s);
  const nn_window *v = &s->window;
  for (int64_t i = 0; i < rows * nn_size(s->out); i++) {
    int64_t o = i % s->out.channels, ox = i / s->out.channels % s->out.width,
            oy = i / s->out.channels / s->out.width % s->out.height, b = i / nn_size(s->out);
    double sum = s->has_bias ? w[o * (d_in + 1) + d_in] : 0;
    for (int64_t k = 0; k < d_in; k++) {
      int64_t c = k % per, kx = k / per % v->kernel[1], ky = k / per / v->kernel[1];
      int64_t iy = oy * v->stride[0] - v->pad[0] + ky * v->dilation[0],
              ix = ox * v->stride[1] - v->pad[1] + kx * v->dilation[1];
      if (iy < 0 || iy >= s->in.height || ix < 0 || ix >= s->in.width) continue;
      sum += w[o * (d_in + 1) + k] * x[reference_at(s->in, b, iy, ix, o / made * per + c)];
    }
    y[i] = sum;
  }
}

static inline void reference_pool(const nn_layer_spec *s, int64_t rows, const double *x, double *y) {
  const nn_window *v = &s->window;
  for (int64_t i = 0; i < rows * nn_size(s->out); i++) {
    int64_t c = i % s->out.channels, ox = i / s->out.channels % s->out.width,
            oy = i / s->out.channels / s->out.width % s->out.height, b = i / nn_size(s->out);
    double sum = 0, most = -INFINITY, n = 0;
    for (int64_t ky = 0; ky < v->kernel[0]; ky++)
      for (int64_t kx = 0; kx < v->kernel[1]; kx++) {
        int64_t iy = oy * v->stride[0] - v->pad[0] + ky, ix = ox * v->stride[1] - v->pad[1] + kx;
        if (iy < 0 || iy >= s->in.height || ix < 0 || ix >= s->in.width) continue;
        double value = x[reference_at(s->in, b, iy, ix, c)];
        sum += value, most = fmax(most, value), n++;
      }
    y[i] = s->kind == NN_MAX ? most : sum / n;
  }
}

static inline void reference_norm(const nn_layer_spec *s, int64_t rows, const double *w, const double *x, double *y) {
  int64_t c = s->in.channels, n = rows * nn_size(s->in) / c;
  for (int64_t j = 0; j < c; j++) {
    double mean = 0, variance = 0;
    for (int64_t i = 0; i < n; i++) mean += x[i * c + j] / (double)n;
    for (int64_t i = 0; i < n; i++) variance += (x[i * c + j] - mean) * (x[i * c + j] - mean) / (double)n;
    for (int64_t i = 0; i < n; i++)
      y[i * c + j] = (x[i * c + j] - mean) / sqrt(variance + 1e-5) * w[2 * j] + w[2 * j + 1];
  }
}

static inline void reference_layer(reference_layers *net, int l) {
  const nn_layer_spec *s = &net->spec->layer[l];
  const double *x = net->x[s->from[0]], *w = net->weight[l];
  double *y = net->x[l + 1];
  int64_t rows = net->rows, d = nn_size(s->in), all = rows * nn_size(s->out);
  switch (s->kind) {
  case NN_DENSE:
    for (int64_t i = 0; i < all; i++) {
      const double *row = w + i % s->out.channels * (d + 1);
      y[i] = s->has_bias ? row[d] : 0;
      for (int64_t j = 0; j < d; j++) y[i] += row[j] * x[i / s->out.channels * d + j];
    }
    break;
  case NN_CONV:
    reference_conv(s, rows, w, x, y);
    break;
  case NN_NORM:
    reference_norm(s, rows, w, x, y);
    break;
  case NN_MAX:
  case NN_AVERAGE:
    reference_pool(s, rows, x, y);
    break;
  case NN_DROPOUT:
    for (int64_t i = 0; i < all; i++) y[i] = net->kept[l][i] * x[i];
    break;
  case NN_FLATTEN:
    memcpy(y, x, (size_t)all * sizeof *y);
    break;
  case NN_ADD:
    for (int64_t i = 0; i < all; i++) y[i] = x[i] + net->x[s->from[1]][i];
    break;
  case NN_KINDS:
    break;
  }
  for (int64_t i = 0; i < all; i++) y[i] = reference_activation(s->activation, y[i]);
}

/* Sum over the first `counted` rows of 1/2 |z - target|^2. */
static inline double reference_squares(reference_layers *net, const double *target, int64_t counted) {
  double loss = 0;
  for (int l = 0; l < net->spec->n_layers; l++) reference_layer(net, l);
  const double *z = net->x[net->spec->n_layers];
  for (int64_t i = 0; i < counted * nn_size(model_output(net->spec)); i++)
    loss += (z[i] - target[i]) * (z[i] - target[i]) / 2;
  return loss;
}

static inline double *reference_numbers(int64_t count) {
  return calloc((size_t)count, sizeof(double));
}

static inline void reference_layers_new(reference_layers *net, const model_spec *spec, int64_t rows) {
  *net = (reference_layers){.spec = spec, .rows = rows};
  for (int t = 0; t <= spec->n_layers; t++) net->x[t] = reference_numbers(rows * nn_size(model_shape(spec, t)));
  for (int l = 0; l < spec->n_layers; l++) {
    const nn_layer_spec *s = &spec->layer[l];
    if (nn_weight_rows(s) > 0) net->weight[l] = reference_numbers(nn_weight_rows(s) * (nn_weight_columns(s) + 1));
  }
}

static inline void reference_layers_free(reference_layers *net) {
  for (int t = 0; t <= net->spec->n_layers; t++) free(net->x[t]);
  for (int l = 0; l < net->spec->n_layers; l++) free(net->weight[l]);
}

#endif
