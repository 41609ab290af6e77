/* The seam of the trainer's layers. Letters: B rows (examples), all arrays row-major, batch first, channels last.
 *
 * A tensor is (B, height, width, channels). An image's pixels lie one behind the other. A flat tensor, which fully
 * connected layers take and make, has one pixel, ld = nn_ld(d) >= d + 1 floats a row, and the constant 1 in column d,
 * so that the bias is the last column of W and one matrix product does all. Functions write columns 0 .. d-1 only.
 *
 * To add a kind of layer: fill an nn_ops in nn_<kind>.c, name it in nn_kind and nn_kinds (model.c), let model_build.c
 * find its output's shape, and add it to the gradient check of tests/unit/test_layers.c, which every kind passes. */
#ifndef NET_NN_H
#define NET_NN_H

#include "base/memory.h"
#include "base/status.h"
#include "net/kernel.h"
#include "product/multiply.h"

#include <stdbool.h>
#include <stdint.h>

typedef enum nn_activation_kind { NN_LINEAR, NN_RELU, NN_TANH, NN_SIGMOID, NN_GELU } nn_activation_kind;
typedef enum nn_loss_kind { NN_LOSS_AUTO, NN_SOFTMAX_CE, NN_SIGMOID_CE, NN_SQUARED } nn_loss_kind;

/* Padded row length for width d with its constant 1: a multiple of 16 floats and never of 512 (cache sets). */
int64_t nn_ld(int64_t d);

/* Of one example's tensor. */
typedef struct nn_shape {
  int64_t height, width, channels;
  bool is_image;
} nn_shape;

nn_shape nn_flat(int64_t d);
int64_t nn_size(nn_shape shape);   /* numbers of one example */
int64_t nn_stride(nn_shape shape); /* floats from one example to the next */

/* One pass through a network: what layers need beside numbers. */
typedef struct nn_pass {
  bool is_training; /* else running statistics, and nothing is dropped */
  uint64_t seed;
  int64_t step;
  const int64_t *position;                       /* (rows) of every example in the global batch; NULL: its row */
  void (*sum)(void *user, int64_t n, double *x); /* over all ranks that train, in place; NULL: statistics are local */
  void *user;
} nn_pass;

typedef enum nn_kind {
  NN_DENSE,   /* y = W [x; 1] */
  NN_CONV,    /* convolution */
  NN_NORM,    /* batch normalisation, with a scale and a shift for each channel */
  NN_MAX,     /* largest in each window */
  NN_AVERAGE, /* mean of each window; of the whole image with kernel 0 */
  NN_DROPOUT, /* zero with probability drop, the others divided by 1 - drop */
  NN_FLATTEN, /* an image as one flat row */
  NN_ADD,     /* sum of two tensors */
  NN_KINDS
} nn_kind;

enum { NN_INPUTS_MAX = 2, NN_NAME_MAX = 64 };

/* What a convolution or a pooling layer sees at once: y and x, in pixels. Output size in each direction:
 * (in + 2 pad - dilation (kernel - 1) - 1) / stride + 1. */
typedef struct nn_window {
  int64_t kernel[2], stride[2], pad[2], dilation[2];
} nn_window;

/* What a layer is, without memory. */
typedef struct nn_layer_spec {
  nn_kind kind;
  char name[NN_NAME_MAX];
  int from[NN_INPUTS_MAX]; /* tensors that it takes; tensor 0 is the network's input, i + 1 the output of layer i */
  nn_shape in, out;        /* of the first input; all inputs of a layer are alike */
  nn_activation_kind activation;
  bool has_bias;
  nn_window window; /* convolution, pooling */
  int64_t groups;   /* convolution: input and output channels fall into so many parts that do not mix */
  double drop;
} nn_layer_spec;

/* A weight is a matrix (d_out, d_in) with the bias as one more column; 0 rows: the layer has none. Of a convolution the
 * columns are (kernel y, kernel x, channel of the group); of a normalisation the one is the scale, the bias the shift.
 */
int64_t nn_weight_rows(const nn_layer_spec *spec);
int64_t nn_weight_columns(const nn_layer_spec *spec); /* d_in */

int nn_inputs(nn_kind kind); /* tensors that a layer takes */

struct nn_layer;
typedef struct nn_ops {
  const char *name;
  /* y (B, out) before the activation, from x[0 .. n_inputs - 1] */
  void (*forward)(struct nn_layer *layer, const nn_pass *pass, int64_t rows, const float *const *x, float *y);
  /* gradient = beta * gradient + scale * sum over rows; NULL: no weights */
  void (*backward_weight)(struct nn_layer *layer, int64_t rows, const float *x, const float *g, float scale,
                          float beta);
  /* dx (B, in), the gradient in input number `which`, from g, the gradient before the activation; x, y: as forward took
   * and made them */
  void (*backward_input)(struct nn_layer *layer, int64_t rows, const float *x, const float *y, const float *g,
                         float *dx);
  /* Optional. Own memory beside weights, for passes of at most rows_max examples, and giving it back. */
  curvd_status (*create)(struct nn_layer *layer, int64_t rows_max, cv_memory *memory, cv_error *err);
  void (*release)(struct nn_layer *layer, cv_memory *memory);
  /* Optional: passes of so many examples will come often. */
  curvd_status (*prepare)(struct nn_layer *layer, int64_t rows, cv_memory *memory, cv_error *err);
  /* Optional: what the three above share, once g is known. */
  void (*backward_begin)(struct nn_layer *layer, const nn_pass *pass, int64_t rows, const float *x, const float *g);
} nn_ops;

typedef struct nn_layer {
  const nn_ops *ops;
  nn_layer_spec spec;
  int index; /* in the network */
  int64_t d_in, d_out;
  int64_t ld;               /* of weight and gradient */
  float *weight, *gradient; /* (d_out, d_in [+ 1]), padding is 0; NULL without weights */
  float *slope;             /* (max rows, out), derivatives of a gelu; NULL otherwise */
  cv_multiplier by;         /* the model's, for products of matrices */
  const nn_kernels *kernels;
  int threads;
  void *state;    /* of the kind */
  cv_error fault; /* first failure of a kernel; model_check asks */
} nn_layer;

extern const nn_ops nn_dense, nn_convolution, nn_norm, nn_pooling, nn_dropout, nn_flatten, nn_add;

/* Of a normalisation, between backward_begin and the next forward: every example's gradient in scale and shift,
 * (rows, channels) each. */
void nn_norm_examples(const nn_layer *layer, const float **scale, const float **shift);

/* Its running statistics: 2 channels numbers, means and variances. */
float *nn_norm_running(const nn_layer *layer);

/* In place on (B, d), rows ld apart. slope: derivatives, written by forward and read by backward, rows ld apart; only
 * gelu (x Phi(x), the erf form) needs them (NULL otherwise). NaN gives NaN. */
void nn_activation_forward(nn_activation_kind kind, int64_t rows, int64_t d, float *y, int64_t ld, float *slope);
void nn_activation_backward(nn_activation_kind kind, int64_t rows, int64_t d, const float *y, const float *slope,
                            float *g, int64_t ld);

/* Losses on the last layer's outputs z (B, d), summed over the rows given (never averaged), nats:
 *   softmax: -log p[label];  sigmoid: sum over d of cross-entropy against targets in [0, 1];  squared: 1/2 |z - t|^2.
 * dz (B, d), rows ld apart: per-example gradient; not z itself. n_correct: rows whose label is the first largest logit
 * (softmax), else 0. Returns the sum of losses in fp64. */
double nn_loss(nn_loss_kind kind, int64_t rows, int64_t d, const float *z, int64_t ld, const int32_t *labels,
               const float *targets, int64_t ld_targets, float *dz, int64_t *n_correct);

/* dz of targets drawn from the model (true Fisher): softmax y ~ Cat(p); sigmoid y ~ Bern(p); squared t = z + N(0, 1).
 * Row i draws with index (first + i), so the draw depends on the position in the global batch only. */
void nn_loss_sampled(nn_loss_kind kind, int64_t rows, int64_t d, const float *z, int64_t ld, uint64_t seed,
                     int64_t step, int64_t first, float *dz);

#endif
