#include "plan/planner.h"

double cv_plan_refresh_flops(int64_t n, int64_t k, int64_t q, bool is_exact) {
  double N = (double)n, K = (double)k;
  if (is_exact) return 9 * N * N * N;
  return 2 * N * N * K * (double)(q + 1) + 10 * N * K * K + 9 * K * K * K;
}

/* ---- owners ---- */

/* A heap of numbers, the first of which comes before all others in an order that has no equals: every rank finds the
 * same. */
typedef struct heap {
  int32_t *item, n;
  const double *key;
  bool is_falling;     /* the largest key first; equal keys: the lowest number first */
  int64_t comparisons; /* made so far */
} heap;

static bool comes_before(heap *h, int32_t x, int32_t y) {
  h->comparisons++;
  if (h->key[x] != h->key[y]) return (h->key[x] > h->key[y]) == h->is_falling;
  return x < y;
}

/* Lets the item at a place sink until none below comes before it. */
static void sink(heap *h, int32_t at) {
  int32_t item = h->item[at];
  for (int32_t below = 2 * at + 1; below < h->n; at = below, below = 2 * at + 1) {
    if (below + 1 < h->n && comes_before(h, h->item[below + 1], h->item[below])) below++;
    if (comes_before(h, item, h->item[below])) break;
    h->item[at] = h->item[below];
  }
  h->item[at] = item;
}

static void build(heap *h) {
  for (int32_t i = 0; i < h->n; i++) h->item[i] = i;
  for (int32_t i = h->n / 2 - 1; i >= 0; i--) sink(h, i);
}

static int32_t take_first(heap *h) {
  int32_t first = h->item[0];
  h->item[0] = h->item[--h->n];
  if (h->n > 0) sink(h, 0);
  return first;
}

/* Owners beyond the number of layers stay empty, whatever the costs: equal loads go to the lowest number. */
int64_t cv_plan_owners(const double *cost, int32_t n, int32_t n_owners, int32_t *owner, double *load, int32_t *order) {
  heap layers = {.item = order, .n = n, .key = cost, .is_falling = true};
  heap owners = {.item = order + n, .n = n < n_owners ? n : n_owners, .key = load};
  for (int32_t o = 0; o < n_owners; o++) load[o] = 0;
  build(&layers);
  build(&owners);
  while (layers.n > 0) {
    int32_t layer = take_first(&layers), least = owners.item[0];
    owner[layer] = least;
    load[least] += cost[layer];
    sink(&owners, 0);
  }
  return layers.comparisons + owners.comparisons;
}

static int32_t extreme(const double *load, int32_t n, double sign) {
  int32_t at = 0;
  for (int32_t o = 1; o < n; o++) {
    if (sign * load[o] > sign * load[at]) at = o;
  }
  return at;
}

/* -1: none shortens it. */
static int32_t layer_to_move(const double *cost, const int32_t *owner, int32_t n, const double *load, int32_t from,
                             int32_t to) {
  int32_t best = -1;
  double least = load[from];
  for (int32_t i = 0; i < n; i++) {
    double left = load[from] - cost[i], moved = load[to] + cost[i], longer = left > moved ? left : moved;
    if (owner[i] != from || longer >= least) continue;
    least = longer;
    best = i;
  }
  return best;
}

int32_t cv_plan_rebalance(const double *cost, int32_t n, int32_t n_owners, int32_t *owner, double *load) {
  int32_t moves = 0;
  for (int32_t o = 0; o < n_owners; o++) load[o] = 0;
  for (int32_t i = 0; i < n; i++) load[owner[i]] += cost[i];
  for (; moves < n; moves++) {
    int32_t from = extreme(load, n_owners, 1), to = extreme(load, n_owners, -1),
            layer = layer_to_move(cost, owner, n, load, from, to);
    if (layer < 0) break;
    owner[layer] = to;
    load[from] -= cost[layer];
    load[to] += cost[layer];
  }
  return moves;
}

int32_t cv_plan_overfull(const double *bytes, const int32_t *owner, int32_t n, int32_t n_owners, double room_bytes,
                         double *used) {
  int32_t worst = 0;
  for (int32_t o = 0; o < n_owners; o++) used[o] = 0;
  for (int32_t i = 0; i < n; i++) {
    if (owner[i] >= 0) used[owner[i]] += bytes[i];
  }
  for (int32_t o = 1; o < n_owners; o++) {
    if (used[o] > used[worst]) worst = o;
  }
  return n_owners > 0 && used[worst] > room_bytes ? worst : -1;
}

/* ---- the machine ---- */

const cv_plan_machine cv_plan_machine_default = {.gemm_flops_s = 1.2e11,
                                                 .syrk_flops_s = 1.1e11,
                                                 .copy_bytes_s = 8e9,
                                                 .eig_f32 = {3.8e-8, 5.5e-11},
                                                 .eig_f64 = {5.5e-8, 1.1e-10},
                                                 .within = {2e-6, 8.5e9},
                                                 .between = {3e-5, 1.2e9},
                                                 .ranks_per_node = 64,
                                                 .overlap = 0.9};

/* What psgemm's sweeps of 32 columns cost over the local product, on one rank and on several (bench/eig). */
static const double SWEEPS_ALONE = 1.01, SWEEPS = 1.4, SWEEP_ROWS = 32;

double cv_plan_product_seconds(cv_plan_product how, int64_t n, int64_t k, int64_t ranks) {
  const cv_plan_machine *machine = &cv_plan_machine_default;
  const cv_plan_link *link = &machine->within;
  double N = (double)n, K = (double)k, P = (double)ranks, product = 2 * N * N * K / P / machine->gemm_flops_s,
         sent = ranks > 1 ? 4 * N * K / link->bytes_s : 0;
  if (how == CV_PLAN_SLAB) return product + sent + 2 * 4 * N * K / machine->copy_bytes_s + P * link->latency_s;
  return product * (ranks > 1 ? SWEEPS : SWEEPS_ALONE) + sent + (ranks > 1 ? K / SWEEP_ROWS * P * link->latency_s : 0);
}

bool cv_plan_slab_is_faster(int64_t n, int64_t k, int64_t ranks) {
  return cv_plan_product_seconds(CV_PLAN_SLAB, n, k, ranks) < cv_plan_product_seconds(CV_PLAN_SCALAPACK, n, k, ranks);
}
