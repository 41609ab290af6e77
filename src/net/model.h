/* A network: layers in the order in which they run, each taking tensors that are there already. */
#ifndef NET_MODEL_H
#define NET_MODEL_H

#include "net/nn.h"

enum { MODEL_LAYERS_MAX = 256 };

/* What the words of --network mean, without memory. */
typedef struct model_spec {
  int n_layers;
  nn_shape input;
  nn_layer_spec layer[MODEL_LAYERS_MAX]; /* the last is flat and linear: the loss takes logits */
  nn_loss_kind loss;
  bool is_autoencoder; /* target = input */
} model_spec;

nn_shape model_shape(const model_spec *spec, int tensor);
nn_shape model_output(const model_spec *spec);
int64_t model_parameters(const model_spec *spec);

typedef enum model_init { MODEL_INIT_AUTO, MODEL_INIT_HE, MODEL_INIT_XAVIER } model_init;

typedef struct model {
  model_spec spec;
  nn_layer layer[MODEL_LAYERS_MAX];
  int64_t rows_max;
  float *x[MODEL_LAYERS_MAX + 1]; /* x[0]: the input, x[i + 1] (rows_max, nn_stride): output of layer i */
  float *g[MODEL_LAYERS_MAX + 1]; /* g[i + 1]: gradient in it, before its activation after backward; g[0] is NULL */
  cv_multiplier by;               /* shared by all layers */
  float *branch;                  /* a further gradient of a tensor that several layers take; NULL: there is none */
} model;

typedef struct model_settings {
  int64_t rows_max; /* of a pass */
  model_init init;
  uint64_t seed;
  const nn_kernels *kernels; /* NULL: those of "auto" */
  int threads;               /* 0: 1 */
  cv_precision precision;    /* of the products of both passes; weights, gradients and activations are fp32 */
  const cv_unit *unit;       /* of precisions beside fp32 */
} model_settings;

/* Initial weights: He normal (auto for relu, gelu and convolutions) or Xavier uniform (auto otherwise), bias 0, from
 * the counter-based generator keyed by (seed, layer); scales of a normalisation are 1. */
curvd_status model_create(const model_spec *spec, const model_settings *settings, cv_memory *memory, model *net,
                          cv_error *err);
void model_free(cv_memory *memory, model *net);

/* Passes of so many examples, besides rows_max, will come often and shall be fast. */
curvd_status model_prepare(model *net, int64_t rows, cv_memory *memory, cv_error *err);

/* x[0] is filled by the caller; fills x[1 ..]. rows <= rows_max. */
void model_forward(model *net, const nn_pass *pass, int64_t rows);

/* Looks at layer i as soon as its inputs' x and g[i + 1] are those of a backward pass; true: its weight's gradient is
 * made. */
typedef bool (*model_ready)(void *user, int layer);

/* From g[n_layers] (per-example gradient in the logits, filled by the loss) down: g of every tensor, and, unless
 * weights is false, gradient = beta * gradient + scale * sum over rows. Calls ready(user, i) as soon as g[i + 1] of
 * layer i holds the gradient before its activation (for curvd_capture), before going to the layers below; when it says
 * so, it has made the layer's gradient itself. ready may be NULL. */
void model_backward(model *net, const nn_pass *pass, int64_t rows, bool weights, float scale, float beta,
                    model_ready ready, void *user);

/* Has a kernel failed since? Passes go on with wrong numbers then. */
curvd_status model_check(const model *net, cv_error *err);

#endif
