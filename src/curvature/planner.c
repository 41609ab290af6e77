#include "curvature/planner.h"

double cv_plan_refresh_flops(int64_t n, int64_t k, int64_t q, bool is_exact) {
  double N = (double)n, K = (double)k;
  if (is_exact) return 9 * N * N * N;
  return 2 * N * N * K * (double)(q + 1) + 10 * N * K * K + 9 * K * K * K;
}

/* Stable insertion sort by falling cost: n is a number of layers, and equal costs keep their order on every rank. */
static void sort_by_cost(const double *cost, int32_t n, int32_t *order) {
  for (int32_t i = 0; i < n; i++) {
    int32_t j = i;
    for (; j > 0 && cost[order[j - 1]] < cost[i]; j--) order[j] = order[j - 1];
    order[j] = i;
  }
}

void cv_plan_owners(const double *cost, int32_t n, int32_t n_owners, int32_t *owner, double *load, int32_t *order) {
  sort_by_cost(cost, n, order);
  for (int32_t o = 0; o < n_owners; o++) load[o] = 0;
  for (int32_t i = 0; i < n; i++) {
    int32_t least = 0;
    for (int32_t o = 1; o < n_owners; o++) {
      if (load[o] < load[least]) least = o;
    }
    owner[order[i]] = least;
    load[least] += cost[order[i]];
  }
}

/* Measured with bench/eig on one machine (2 cores of an AVX-512 Xeon, shared memory): local product, copies and
 * transfers, latency of a message, and what psgemm's sweeps of 32 columns cost over the local product, on one rank and
 * on several. Fixed, not measured at start: the same seed and layout take the same path. */
static const double FLOPS = 1.2e11, COPY_BYTES = 8e9, SENT_BYTES = 4e9, MESSAGE_S = 5e-6, SWEEPS_ALONE = 1.01,
                    SWEEPS = 1.4, SWEEP_ROWS = 32;

double cv_plan_product_seconds(cv_plan_product how, int64_t n, int64_t k, int64_t ranks) {
  double N = (double)n, K = (double)k, P = (double)ranks, product = 2 * N * N * K / P / FLOPS,
         sent = ranks > 1 ? 4 * N * K / SENT_BYTES : 0;
  if (how == CV_PLAN_SLAB) return product + sent + 2 * 4 * N * K / COPY_BYTES + P * MESSAGE_S;
  return product * (ranks > 1 ? SWEEPS : SWEEPS_ALONE) + sent + (ranks > 1 ? K / SWEEP_ROWS * P * MESSAGE_S : 0);
}

bool cv_plan_slab_is_faster(int64_t n, int64_t k, int64_t ranks) {
  return cv_plan_product_seconds(CV_PLAN_SLAB, n, k, ranks) < cv_plan_product_seconds(CV_PLAN_SCALAPACK, n, k, ranks);
}
