/* A convolution by oneDNN called bare: every array in the layout that the library likes best, no copies between layouts
 * but of the weight from that of the forward pass to that of the backward pass, which one who keeps it so pays too. */
#ifndef BENCH_CONV_BARE_H
#define BENCH_CONV_BARE_H

#include "net/kernel.h"

typedef struct conv_bare conv_bare;

/* Takes x (rows, in, c_in), g (rows, out, c_out) and w (c_out, d_in + 1) with the bias, laid out as in train/kernel.h;
 * has_input: the gradient in x is wanted as well. NULL: oneDNN refuses. */
conv_bare *conv_bare_new(const nn_conv *shape, int64_t rows, const float *x, const float *w, const float *g,
                         bool has_input);
void conv_bare_free(conv_bare *c);

/* Forward, gradient in x, gradient in w; false: oneDNN failed. */
bool conv_bare_run(conv_bare *c);

/* What it computed, in our layouts; dx and y dense, dw (c_out, d_in + 1) with the bias. dx NULL: not wanted. */
bool conv_bare_read(const conv_bare *c, float *y, float *dx, float *dw);

#endif
