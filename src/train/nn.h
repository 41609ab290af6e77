/* The seam of the trainer's layers. Letters: B rows (examples), all arrays row-major, batch first.
 *
 * An activation buffer of width d has ld = nn_ld(d) >= d + 1 floats a row and holds the constant 1 in column d, so that
 * the bias is the last column of W and one matrix product does all. Functions write columns 0 .. d-1 only.
 *
 * To add a kind of layer: fill an nn_ops in nn_<kind>.c, name it in nn_kinds (model.c), and add it to the gradient
 * check of tests/unit/test_nn.c, which every kind passes. */
#ifndef TRAIN_NN_H
#define TRAIN_NN_H

#include "base/memory.h"
#include "base/status.h"

#include <stdint.h>

typedef enum nn_activation_kind { NN_LINEAR, NN_RELU, NN_TANH, NN_SIGMOID, NN_GELU } nn_activation_kind;
typedef enum nn_loss_kind { NN_LOSS_AUTO, NN_SOFTMAX_CE, NN_SIGMOID_CE, NN_SQUARED } nn_loss_kind;

/* Padded row length for width d with its constant 1: a multiple of 16 floats and never of 512 (cache sets). */
int64_t nn_ld(int64_t d);

struct nn_layer;
typedef struct nn_ops {
  const char *name;
  /* y (B, d_out) from x (B, d_in); keeps what backward needs in the layer (aux). */
  void (*forward)(struct nn_layer *layer, int64_t rows, const float *x, float *y);
  /* g (B, d_out), the gradient before the activation, in place of dy, the gradient after it. */
  void (*backward_output)(struct nn_layer *layer, int64_t rows, const float *y, float *g);
  /* gradient = beta * gradient + scale * g^T [x 1]   (d_out, d_in + 1) */
  void (*backward_weight)(struct nn_layer *layer, int64_t rows, const float *x, const float *g, float scale,
                          float beta);
  /* dx (B, d_in) = g W */
  void (*backward_input)(struct nn_layer *layer, int64_t rows, const float *g, float *dx);
} nn_ops;

typedef struct nn_layer {
  const nn_ops *ops;
  char name[64];
  int64_t d_in, d_out;
  nn_activation_kind activation;
  int64_t ld;               /* of weight and gradient: nn_ld(d_in) */
  float *weight, *gradient; /* (d_out, d_in + 1), padding is 0 */
  float *aux;               /* (max rows, nn_ld(d_out)), slopes of a gelu; NULL otherwise */
} nn_layer;

extern const nn_ops nn_dense;          /* y = activation([x 1] W^T) */
extern const nn_ops *const nn_kinds[]; /* all kinds; NULL ends the list */

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
