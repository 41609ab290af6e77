/* The workers' gradients, and the layouts in which a caller may have them. */
#ifndef CV_CURVATURE_EXCHANGE_H
#define CV_CURVATURE_EXCHANGE_H

#include "curvature/internal.h"

/* The workers' gradients summed into the bucket (in place, on all of them); nothing without a bucket. has_vote:
 * here_everywhere, the worker's own count, becomes that of all of them. */
curvd_status cv_exchange_gradients(curvd_ctx *ctx, const curvd_gradient *gradients, bool has_vote);

/* Layer's place in the bucket. */
curvd_gradient cv_exchange_part(const curvd_ctx *ctx, int32_t layer);

/* Where layer's combined gradient is: in the bucket or with the summed shards, or in the caller's memory when there are
 * none. */
curvd_gradient cv_exchange_gradient_of(const curvd_ctx *ctx, int32_t layer, const curvd_gradient *gradients);

/* Is the bias the last column of the weight's array (or absent)? Then the gradient is one (m, n) matrix. */
bool cv_gradient_is_joined(const cv_layer *layer, const curvd_gradient *g);

/* to = scale * from + keep * to, from one layout of a layer's gradient to another; with keep 0 `to` may hold anything,
 * and may be from. */
void cv_gradient_mix(const cv_layer *layer, float scale, const curvd_gradient *from, float keep,
                     const curvd_gradient *to);

#endif
