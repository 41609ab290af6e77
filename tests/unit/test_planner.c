/* planner.h is pure: costs and counts in, owners out. */
#include "plan/planner.h"

#include "base/rng.h"
#include "suite.h"

#include <math.h>

enum { LAYERS_MAX = 10000, OWNERS_MAX = 4096 };

static double cost[LAYERS_MAX], load[OWNERS_MAX];
static int32_t owner[LAYERS_MAX], order[2 * LAYERS_MAX];

static void draw_costs(uint64_t seed, int32_t n) {
  const cv_rng rng = {.seed = seed, .stream = CV_RNG_PROBE};
  for (int32_t i = 0; i < n; i++) cost[i] = pow(10, 3 * cv_rng_uniform(&rng, (uint64_t)i));
}

static double largest(int32_t n, const double *x) {
  double most = 0;
  for (int32_t i = 0; i < n; i++) most = fmax(most, x[i]);
  return most;
}

static double total(int32_t n, const double *x) {
  double sum = 0;
  for (int32_t i = 0; i < n; i++) sum += x[i];
  return sum;
}

/* Every layer has an owner in range, and a load is the sum of the costs of its layers. */
static void check_loads(int32_t n, int32_t owners) {
  for (int32_t i = 0; i < n; i++) {
    ck_assert(owner[i] >= 0 && owner[i] < owners);
    load[owner[i]] -= cost[i];
  }
  for (int32_t o = 0; o < owners; o++) ck_assert_double_eq_tol(load[o], 0, 1e-9 * total(n, cost));
}

/* Smallest possible largest load, over all assignments. */
static double optimum(int32_t n, int32_t owners, int32_t at, double *loads) {
  double best = INFINITY;
  if (at == n) return largest(owners, loads);
  for (int32_t o = 0; o < owners; o++) {
    loads[o] += cost[at];
    best = fmin(best, optimum(n, owners, at + 1, loads));
    loads[o] -= cost[at];
  }
  return best;
}

START_TEST(one_owner_takes_all) {
  draw_costs(1, 20);
  cv_plan_owners(cost, 20, 1, owner, load, order);
  ck_assert_double_eq_tol(load[0], total(20, cost), 1e-9);
  check_loads(20, 1);
}
END_TEST

START_TEST(no_layer_no_load) {
  load[0] = load[1] = 7;
  cv_plan_owners(cost, 0, 2, owner, load, order);
  ck_assert(load[0] == 0 && load[1] == 0);
}
END_TEST

START_TEST(more_owners_than_layers) {
  static const double costs[] = {5, 9, 1};
  cv_plan_owners(costs, 3, 7, owner, load, order);
  ck_assert_int_eq(owner[1], 0);
  ck_assert_int_eq(owner[0], 1);
  ck_assert_int_eq(owner[2], 2);
  for (int o = 3; o < 7; o++) ck_assert(load[o] == 0);
}
END_TEST

/* Every rank must find the same plan: equals keep the order of the layers and go to the lowest number. */
START_TEST(equal_costs_go_round) {
  static const double costs[] = {2, 2, 2, 2, 2, 2, 2};
  cv_plan_owners(costs, 7, 3, owner, load, order);
  for (int i = 0; i < 7; i++) ck_assert_int_eq(owner[i], i % 3);
}
END_TEST

/* Graham 1969: with 2 m + 1 jobs of lengths 2m-1, 2m-1, 2m-2, 2m-2, ..., m+1, m+1, m, m, m the rule needs 4m - 1 where
 * 3m would do, and no case is worse than 4/3 - 1/(3m). */
START_TEST(worst_case_of_graham) {
  for (int32_t m = 2; m <= 50; m++) {
    for (int32_t i = 0; i < 2 * (m - 1); i++) cost[i] = 2 * m - 1 - i / 2;
    for (int32_t i = 2 * (m - 1); i < 2 * m + 1; i++) cost[i] = m;
    cv_plan_owners(cost, 2 * m + 1, m, owner, load, order);
    ck_assert_double_eq_tol(largest(m, load), 4 * m - 1, 1e-9);
    check_loads(2 * m + 1, m);
  }
}
END_TEST

START_TEST(within_the_bound_of_the_optimum) {
  for (uint64_t seed = 1; seed <= 30; seed++) {
    double loads[3] = {0};
    draw_costs(seed, 8);
    cv_plan_owners(cost, 8, 3, owner, load, order);
    double most = largest(3, load), best = optimum(8, 3, 0, loads);
    ck_assert_msg(most >= best * (1 - 1e-12) && most <= best * (4.0 / 3 - 1.0 / 9), "%g, optimum %g", most, best);
    check_loads(8, 3);
  }
}
END_TEST

START_TEST(thousands_of_owners) {
  draw_costs(2, LAYERS_MAX);
  cv_plan_owners(cost, LAYERS_MAX, OWNERS_MAX, owner, load, order);
  double mean = total(LAYERS_MAX, cost) / OWNERS_MAX, longest = largest(LAYERS_MAX, cost);
  ck_assert_double_le(largest(OWNERS_MAX, load), fmax(longest, mean * 4 / 3));
  check_loads(LAYERS_MAX, OWNERS_MAX);
}
END_TEST

/* The rule in its plainest form: the largest cost that is left, to the least loaded owner; n (n + n_owners) looks. */
static void plain_rule(int32_t n, int32_t owners, int32_t *to, double *loads) {
  static bool is_done[LAYERS_MAX];
  for (int32_t i = 0; i < n; i++) is_done[i] = false;
  for (int32_t o = 0; o < owners; o++) loads[o] = 0;
  for (int32_t round = 0; round < n; round++) {
    int32_t next = -1, least = 0;
    for (int32_t i = 0; i < n; i++) next = !is_done[i] && (next < 0 || cost[i] > cost[next]) ? i : next;
    for (int32_t o = 1; o < owners; o++) least = loads[o] < loads[least] ? o : least;
    is_done[next] = true;
    to[next] = least;
    loads[least] += cost[next];
  }
}

/* With costs of 0 .. 4 most are equal, and the sums are exact. */
START_TEST(same_as_the_plain_rule) {
  static int32_t expected[LAYERS_MAX];
  static double loads[OWNERS_MAX];
  for (uint64_t seed = 1; seed <= 40; seed++) {
    const cv_rng rng = {.seed = seed, .stream = CV_RNG_PROBE};
    int32_t n = 1 + (int32_t)(seed * 37 % 150), owners = 1 + (int32_t)(seed * 13 % 170);
    for (int32_t i = 0; i < n; i++) cost[i] = floor(5 * cv_rng_uniform(&rng, (uint64_t)i));
    plain_rule(n, owners, expected, loads);
    cv_plan_owners(cost, n, owners, owner, load, order);
    for (int32_t i = 0; i < n; i++) ck_assert_int_eq(owner[i], expected[i]);
    for (int32_t o = 0; o < owners; o++) ck_assert(load[o] == loads[o]);
  }
}
END_TEST

/* Two heaps of at most n items: 2 n comparisons to build each, 2 log2 n for each of n items taken from it. */
START_TEST(comparisons_grow_as_n_log_n) {
  for (int32_t n = 2; n <= LAYERS_MAX; n *= 3) {
    for (int32_t owners = 1; owners <= OWNERS_MAX; owners *= 8) {
      draw_costs(3, n);
      int64_t comparisons = cv_plan_owners(cost, n, owners, owner, load, order);
      ck_assert_double_le((double)comparisons, 4 * n * (log2(n) + 1));
      ck_assert_int_ge(comparisons, n - 1); /* no fewer find even the largest */
    }
  }
  draw_costs(4, 200);
  ck_assert_int_lt(cv_plan_owners(cost, 200, OWNERS_MAX, owner, load, order), 10000);
}
END_TEST

START_TEST(room_of_owners) {
  static const double bytes[] = {5, 7, 1, 9};
  static const int32_t owners[] = {1, 0, 1, -1};
  double used[3];
  ck_assert_int_eq(cv_plan_overfull(bytes, owners, 4, 3, 7, used), -1);
  ck_assert(used[0] == 7 && used[1] == 6 && used[2] == 0);
  ck_assert_int_eq(cv_plan_overfull(bytes, owners, 4, 3, 6.5, used), 0);
  ck_assert_int_eq(cv_plan_overfull(bytes, owners, 4, 3, 1, used), 0); /* two are above: the fuller one */
  ck_assert_int_eq(cv_plan_overfull(bytes, owners, 3, 2, 1, used), 0);
  ck_assert_int_eq(cv_plan_overfull(bytes, owners, 1, 2, 4, used), 1);
}
END_TEST

START_TEST(flops_of_a_refresh) {
  ck_assert_double_eq_tol(cv_plan_refresh_flops(1000, 1000, 5, true), 9e9, 1);
  ck_assert_double_eq_tol(cv_plan_refresh_flops(1000, 10, 0, false), 2e7 + 1e6 + 9e3, 1);
  ck_assert_double_eq_tol(cv_plan_refresh_flops(1000, 10, 2, false), 6e7 + 1e6 + 9e3, 1);
  /* sizes whose cube leaves 64 bits */
  ck_assert_double_eq_tol(cv_plan_refresh_flops(4000000, 1, 0, true), 9 * 6.4e19, 1e6);
}
END_TEST

/* ---- products over a grid ---- */

enum { PLACES = 5 };
static const int64_t widths[PLACES] = {256, 1024, 4096, 8192, 65536}, rows[PLACES] = {1, 10, 32, 74, 1024};

static double seconds(cv_plan_product how, int i, int64_t ranks) {
  return cv_plan_product_seconds(how, widths[i / PLACES], rows[i % PLACES], ranks);
}

/* Nothing is sent on one rank: both do the 2 n^2 k flops, and what else they do is small: a twentieth of that, copies
 * of 2 k n numbers (2 ns each, slower than any machine), and the call. */
START_TEST(products_of_one_rank_cost_the_same) {
  for (int i = 0; i < PLACES * PLACES; i++) {
    double slab = seconds(CV_PLAN_SLAB, i, 1), scalapack = seconds(CV_PLAN_SCALAPACK, i, 1);
    double overhead = 0.05 * scalapack + 4e-9 * (double)(widths[i / PLACES] * rows[i % PLACES]) + 1e-5;
    ck_assert_msg(fabs(slab - scalapack) <= overhead, "n %d, k %d: %g and %g", (int)widths[i / PLACES],
                  (int)rows[i % PLACES], slab, scalapack);
  }
}
END_TEST

/* Up to 8 ranks, and for products large enough that messages do not weigh. */
START_TEST(slab_gets_cheaper_with_ranks) {
  for (int i = 2 * PLACES; i < PLACES * PLACES; i++) {
    for (int64_t ranks = 2; ranks <= 8 && rows[i % PLACES] >= 32; ranks *= 2) {
      double now = seconds(CV_PLAN_SLAB, i, ranks), before = seconds(CV_PLAN_SLAB, i, ranks / 2);
      ck_assert_msg(now < before && now > before / 2, "n %d, k %d, %d ranks: %g after %g", (int)widths[i / PLACES],
                    (int)rows[i % PLACES], (int)ranks, now, before);
    }
  }
}
END_TEST

/* Every rank must choose the same: no number depends on when or how often it is asked for. */
START_TEST(choice_of_a_product_is_a_pure_function) {
  for (int i = 0; i < PLACES * PLACES; i++) {
    for (int64_t ranks = 1; ranks <= 4096; ranks *= 2) {
      double slab = seconds(CV_PLAN_SLAB, i, ranks), scalapack = seconds(CV_PLAN_SCALAPACK, i, ranks);
      bool is_slab = cv_plan_slab_is_faster(widths[i / PLACES], rows[i % PLACES], ranks);
      ck_assert(is_slab == (slab < scalapack));
      ck_assert(slab == seconds(CV_PLAN_SLAB, i, ranks) && scalapack == seconds(CV_PLAN_SCALAPACK, i, ranks));
      ck_assert(is_slab == cv_plan_slab_is_faster(widths[i / PLACES], rows[i % PLACES], ranks));
    }
  }
}
END_TEST

/* More of anything but ranks costs more, up to sizes whose square leaves 64 bits. */
START_TEST(products_beyond_64_bits) {
  static const cv_plan_product both[] = {CV_PLAN_SCALAPACK, CV_PLAN_SLAB};
  for (int i = 0; i < 2; i++) {
    double last = 0;
    for (int64_t n = 1024; n <= (int64_t)1 << 40; n *= 16) {
      double now = cv_plan_product_seconds(both[i], n, n / 16, 4096);
      ck_assert_msg(isfinite(now) && now > last, "n %lld: %g after %g", (long long)n, now, last);
      ck_assert_double_gt(cv_plan_product_seconds(both[i], n, n / 8, 4096), now);
      last = now;
    }
  }
}
END_TEST

/* ---- moves between owners ---- */

static double longest_load(int32_t n, int32_t n_owners) {
  double sum[8] = {0}, most = 0;
  for (int32_t i = 0; i < n; i++) sum[owner[i]] += cost[i];
  for (int32_t o = 0; o < n_owners; o++) most = fmax(most, sum[o]);
  return most;
}

START_TEST(moves_that_are_known) {
  const double cost_of[] = {1, 5, 4};
  int32_t owner_of[] = {0, 1, 1};
  double load_of[2];
  ck_assert_int_eq(cv_plan_rebalance(cost_of, 3, 2, owner_of, load_of), 1);
  ck_assert(owner_of[0] == 0 && owner_of[1] == 1 && owner_of[2] == 0);
  ck_assert(load_of[0] == 5 && load_of[1] == 5);
  ck_assert_int_eq(cv_plan_rebalance(cost_of, 3, 2, owner_of, load_of), 0);
  const double one[] = {3};
  int32_t only[] = {1};
  ck_assert_int_eq(cv_plan_rebalance(one, 1, 2, only, load_of), 0); /* alone, a move is no gain */
  ck_assert(only[0] == 1 && load_of[0] == 0 && load_of[1] == 3);
}
END_TEST

/* Against all single moves, tried one by one: at the end none from the longest load to the shortest is a gain; loads
 * are the sums; and the longest never grew. */
START_TEST(moves_leave_none_that_is_a_gain) {
  enum { N = 12, OWNERS = 4 };
  for (uint64_t trial = 0; trial < 200; trial++) {
    const cv_rng rng = {.seed = trial, .stream = CV_RNG_PROBE};
    int32_t from = 0, to = 0;
    for (uint64_t i = 0; i < N; i++) {
      cost[i] = cv_rng_uniform(&rng, i);
      owner[i] = (int32_t)(OWNERS * cv_rng_uniform(&rng, N + i));
    }
    double before = longest_load(N, OWNERS);
    int32_t moves = cv_plan_rebalance(cost, N, OWNERS, owner, load);
    double after = longest_load(N, OWNERS);
    ck_assert(moves <= N && after <= before + 1e-12);
    for (int32_t o = 0; o < OWNERS; o++) {
      if (load[o] > load[from]) from = o;
      if (load[o] < load[to]) to = o;
    }
    ck_assert_double_eq_tol(load[from], after, 1e-12);
    for (int32_t i = 0; i < N && moves < N; i++)
      ck_assert(owner[i] != from || load[to] + cost[i] >= load[from] - 1e-12);
  }
}
END_TEST

int main(void) {
  const TTest *const tests[] = {one_owner_takes_all,
                                no_layer_no_load,
                                more_owners_than_layers,
                                equal_costs_go_round,
                                worst_case_of_graham,
                                within_the_bound_of_the_optimum,
                                thousands_of_owners,
                                same_as_the_plain_rule,
                                comparisons_grow_as_n_log_n,
                                room_of_owners,
                                flops_of_a_refresh,
                                products_of_one_rank_cost_the_same,
                                slab_gets_cheaper_with_ranks,
                                choice_of_a_product_is_a_pure_function,
                                products_beyond_64_bits,
                                moves_that_are_known,
                                moves_leave_none_that_is_a_gain};
  return suite_run("planner", tests, sizeof tests / sizeof tests[0], NULL);
}
