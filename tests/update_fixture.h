/* Steps that update the parameters themselves (curvd_gradient.parameter), beside those of service_fixture.h. */
#ifndef TESTS_UPDATE_FIXTURE_H
#define TESTS_UPDATE_FIXTURE_H

#include "service_fixture.h"

#include <float.h>

typedef struct update_result {
  curvd_status status;
  bool is_left_alone; /* the gradients' memory holds the bits that it held before */
} update_result;

/* One step on gradients V, with W, laid out alike, handed over. W: what the step left, checked to be all that it wrote.
 */
static inline update_result update_try(curvd_ctx *ctx, double lr, service_layout layout, int n,
                                       const service_layer *layers, const dense *V, float shrink, dense *W) {
  static service_gradient g[SERVICE_LAYERS_MAX], before[SERVICE_LAYERS_MAX], parameter[SERVICE_LAYERS_MAX];
  curvd_gradient view[SERVICE_LAYERS_MAX] = {{.weight = NULL}};
  for (int i = 0; i < n; i++) {
    service_put(&layers[i], layout, V[i], &g[i]);
    service_put(&layers[i], layout, W[i], &parameter[i]);
    view[i] = g[i].view;
    view[i].parameter = parameter[i].view.weight;
    view[i].parameter_bias = parameter[i].view.bias;
    view[i].shrink = shrink;
    before[i] = g[i];
  }
  update_result result = {curvd_step(ctx, lr, view, n), true};
  for (int i = 0; i < n; i++) {
    W[i] = service_take(&layers[i], &parameter[i]);
    result.is_left_alone = result.is_left_alone && memcmp(g[i].weight, before[i].weight, sizeof g[i].weight) == 0 &&
                           memcmp(g[i].bias, before[i].bias, sizeof g[i].bias) == 0;
  }
  return result;
}

/* How far W is from (1 - shrink) old - lr * direction, in units of what fp32 rounding explains: 4 roundings of numbers
 * of W's size, and 2e-6 of the direction, whose products are summed in another order. NaN counts as infinite. */
static inline double update_excess(dense W, dense old, float shrink, double lr, dense direction) {
  dense expected = dense_sum(1 - (double)shrink, old, -lr, direction);
  double allowed = 4 * (double)FLT_EPSILON * dense_norm(old) + 2e-6 * lr * dense_norm(direction);
  double excess = dense_norm(dense_sum(1, W, -1, expected)) / allowed;
  return isfinite(excess) ? excess : INFINITY;
}

/* X in fp32, as a caller's memory holds it. */
static inline dense update_rounded(dense X) {
  for (int64_t i = 0; i < X.m; i++) {
    for (int64_t j = 0; j < X.n; j++) X.x[i][j] = (float)X.x[i][j];
  }
  return X;
}

/* What a caller does with momentum_place caller: M <- momentum M + (1 - momentum) V. */
static inline void update_average(double momentum, dense V, dense *M) {
  *M = update_rounded(dense_sum(momentum, *M, 1 - momentum, V));
}

#endif
