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
