/* The matrix products that one training step cannot do without. */
#ifndef BENCH_PRODUCTS_H
#define BENCH_PRODUCTS_H

#include "net/model.h"

/* Do they exist? Only of fully connected layers alone: as some layer takes every tensor, they are a chain. */
bool products_exist(const model_spec *spec);

/* Just the sgemm calls of one step on the buffers of a model: every layer forward, then from the last layer down the
 * weight gradient (times 1 / rows) and, but for the first layer, the input gradient. Shapes, layouts and order are
 * those of model_forward and model_backward; with linear activations it computes what they do. */
void products_run(model *net, int64_t rows);

/* Floating-point operations of products_run. */
double products_flops(const model_spec *spec, int64_t rows);

/* Fills the input x[0] and the gradient g[n_layers] in the outputs with standard normal numbers. */
void products_fill(model *net, int64_t rows, uint64_t seed);

#endif
