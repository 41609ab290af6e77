/* The network of src/train written again in plain fp64 loops, to compare with; its own gradient is checked by central
 * differences in test_nn.c. Weights are (d_out, d_in + 1), the bias last. */
#ifndef TESTS_UNIT_REFERENCE_NET_H
#define TESTS_UNIT_REFERENCE_NET_H

#include "net/nn.h"

#include <math.h>
#include <stdlib.h>

enum { REFERENCE_LAYERS_MAX = 8, REFERENCE_WIDTH_MAX = 64 };

typedef struct reference_net {
  int n_layers;
  int64_t width[REFERENCE_LAYERS_MAX + 1];
  nn_activation_kind activation[REFERENCE_LAYERS_MAX];
  nn_loss_kind loss;
  double *weight[REFERENCE_LAYERS_MAX], *gradient[REFERENCE_LAYERS_MAX];
} reference_net;

static inline int64_t reference_count(const reference_net *net, int i) {
  return net->width[i + 1] * (net->width[i] + 1);
}

static inline void reference_new(reference_net *net) {
  for (int i = 0; i < net->n_layers; i++) {
    net->weight[i] = calloc((size_t)reference_count(net, i), sizeof(double));
    net->gradient[i] = calloc((size_t)reference_count(net, i), sizeof(double));
  }
}

static inline void reference_free(reference_net *net) {
  for (int i = 0; i < net->n_layers; i++) {
    free(net->weight[i]);
    free(net->gradient[i]);
  }
}

static inline double reference_activation(nn_activation_kind kind, double x) {
  switch (kind) {
  case NN_LINEAR:
    return x;
  case NN_RELU:
    return fmax(x, 0);
  case NN_TANH:
    return tanh(x);
  case NN_SIGMOID:
    return 1 / (1 + exp(-x));
  case NN_GELU:
    return x * erfc(-x / sqrt(2)) / 2;
  }
  return NAN;
}

static inline double reference_slope(nn_activation_kind kind, double x) {
  double y = reference_activation(kind, x);
  switch (kind) {
  case NN_LINEAR:
    return 1;
  case NN_RELU:
    return x > 0;
  case NN_TANH:
    return 1 - y * y;
  case NN_SIGMOID:
    return y * (1 - y);
  case NN_GELU:
    return erfc(-x / sqrt(2)) / 2 + x * exp(-x * x / 2) / sqrt(8 * atan(1));
  }
  return NAN;
}

/* Loss of one example's logits z, and its gradient dz. */
static inline double reference_loss(nn_loss_kind kind, int64_t d, const double *z, int32_t label, const double *target,
                                    double *dz) {
  double loss = 0, sum = 0;
  for (int64_t j = 0; j < d; j++) sum += exp(z[j] - z[0]);
  if (kind == NN_SOFTMAX_CE) loss = log(sum) + z[0] - z[label];
  for (int64_t j = 0; j < d; j++) {
    double p = 1 / (1 + exp(-z[j]));
    if (kind == NN_SOFTMAX_CE) dz[j] = exp(z[j] - z[0]) / sum - (j == label);
    if (kind == NN_SIGMOID_CE) {
      loss += target[j] * log1p(exp(-z[j])) + (1 - target[j]) * log1p(exp(z[j]));
      dz[j] = p - target[j];
    }
    if (kind == NN_SQUARED) {
      loss += (z[j] - target[j]) * (z[j] - target[j]) / 2;
      dz[j] = z[j] - target[j];
    }
  }
  return loss;
}

/* Loss of one example x (width[0]); adds its gradient to net->gradient and, if dx is not NULL, sets dx (width[0]). */
static inline double reference_example(reference_net *net, const double *x, int32_t label, const double *target,
                                       double *dx) {
  double input[REFERENCE_LAYERS_MAX + 1][REFERENCE_WIDTH_MAX + 1], before[REFERENCE_LAYERS_MAX][REFERENCE_WIDTH_MAX];
  double g[REFERENCE_LAYERS_MAX + 1][REFERENCE_WIDTH_MAX];
  for (int64_t j = 0; j < net->width[0]; j++) input[0][j] = x[j];
  for (int l = 0; l < net->n_layers; l++) {
    int64_t n = net->width[l] + 1;
    input[l][n - 1] = 1;
    for (int64_t i = 0; i < net->width[l + 1]; i++) {
      before[l][i] = 0;
      for (int64_t j = 0; j < n; j++) before[l][i] += net->weight[l][i * n + j] * input[l][j];
      input[l + 1][i] = reference_activation(net->activation[l], before[l][i]);
    }
  }
  int top = net->n_layers;
  double loss = reference_loss(net->loss, net->width[top], input[top], label, target, g[top]);
  for (int l = top - 1; l >= 0; l--) {
    int64_t n = net->width[l] + 1;
    for (int64_t j = 0; j < net->width[l]; j++) g[l][j] = 0;
    for (int64_t i = 0; i < net->width[l + 1]; i++) {
      double slope = g[l + 1][i] * reference_slope(net->activation[l], before[l][i]);
      for (int64_t j = 0; j < n; j++) net->gradient[l][i * n + j] += slope * input[l][j];
      for (int64_t j = 0; j < n - 1; j++) g[l][j] += slope * net->weight[l][i * n + j];
    }
  }
  for (int64_t j = 0; dx != NULL && j < net->width[0]; j++) dx[j] = g[0][j];
  return loss;
}

#endif
