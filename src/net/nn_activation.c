/* Activations, in place: one pass over the columns 0 .. d-1 of each row. NaN stays NaN everywhere.
 * gelu is x Phi(x) in its erf form (not the tanh approximation). Its derivative Phi(x) + x phi(x) shares the
 * exponential and is no function of the output, so the forward pass keeps it. */
#include "net/nn.h"
#include "net/nn_math.h"

static void relu_row(int64_t d, float *restrict y) {
  for (int64_t j = 0; j < d; j++) y[j] = y[j] < 0 ? 0 : y[j];
}

static void tanh_row(int64_t d, float *restrict y) {
  for (int64_t j = 0; j < d; j++) y[j] = nn_tanh(y[j]);
}

static void sigmoid_row(int64_t d, float *restrict y) {
  for (int64_t j = 0; j < d; j++) y[j] = nn_sigmoid_from(y[j], nn_exp_negative(-fabsf(y[j])));
}

static void gelu_row(int64_t d, float *restrict y, float *restrict slope) {
  const float density = 0.3989422804f; /* 1 / sqrt(2 pi) */
  for (int64_t j = 0; j < d; j++) {
    float x = y[j], e = nn_exp_negative(-0.5f * x * x), normal = nn_normal_from(x, e);
    slope[j] = normal + x * density * e;
    y[j] = x * normal;
  }
}

void nn_activation_forward(nn_activation_kind kind, int64_t rows, int64_t d, float *y, int64_t ld, float *slope) {
  if (kind == NN_LINEAR) return;
  for (int64_t i = 0; i < rows; i++) {
    float *row = y + i * ld;
    switch (kind) {
    case NN_LINEAR:
      break;
    case NN_RELU:
      relu_row(d, row);
      break;
    case NN_TANH:
      tanh_row(d, row);
      break;
    case NN_SIGMOID:
      sigmoid_row(d, row);
      break;
    case NN_GELU:
      gelu_row(d, row, slope + i * ld);
      break;
    }
  }
}

static void relu_slope(int64_t d, const float *restrict y, float *restrict g) {
  for (int64_t j = 0; j < d; j++) g[j] = y[j] <= 0 ? 0 : g[j];
}

static void tanh_slope(int64_t d, const float *restrict y, float *restrict g) {
  for (int64_t j = 0; j < d; j++) g[j] *= 1 - y[j] * y[j];
}

static void sigmoid_slope(int64_t d, const float *restrict y, float *restrict g) {
  for (int64_t j = 0; j < d; j++) g[j] *= y[j] * (1 - y[j]);
}

static void gelu_slope(int64_t d, const float *restrict slope, float *restrict g) {
  for (int64_t j = 0; j < d; j++) g[j] *= slope[j];
}

void nn_activation_backward(nn_activation_kind kind, int64_t rows, int64_t d, const float *y, const float *slope,
                            float *g, int64_t ld) {
  if (kind == NN_LINEAR) return;
  for (int64_t i = 0; i < rows; i++) {
    const float *row = y + i * ld;
    switch (kind) {
    case NN_LINEAR:
      break;
    case NN_RELU:
      relu_slope(d, row, g + i * ld);
      break;
    case NN_TANH:
      tanh_slope(d, row, g + i * ld);
      break;
    case NN_SIGMOID:
      sigmoid_slope(d, row, g + i * ld);
      break;
    case NN_GELU:
      gelu_slope(d, slope + i * ld, g + i * ld);
      break;
    }
  }
}
