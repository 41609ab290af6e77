/* planner.h is pure: costs and counts in, owners out. */
#include "curvature/planner.h"

#include "base/rng.h"
#include "suite.h"

#include <math.h>

enum { LAYERS_MAX = 10000, OWNERS_MAX = 4096 };

static double cost[LAYERS_MAX], load[OWNERS_MAX];
static int32_t owner[LAYERS_MAX], order[LAYERS_MAX];

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

START_TEST(flops_of_a_refresh) {
  ck_assert_double_eq_tol(cv_plan_refresh_flops(1000, 1000, 5, true), 9e9, 1);
  ck_assert_double_eq_tol(cv_plan_refresh_flops(1000, 10, 0, false), 2e7 + 1e6 + 9e3, 1);
  ck_assert_double_eq_tol(cv_plan_refresh_flops(1000, 10, 2, false), 6e7 + 1e6 + 9e3, 1);
  /* sizes whose cube leaves 64 bits */
  ck_assert_double_eq_tol(cv_plan_refresh_flops(4000000, 1, 0, true), 9 * 6.4e19, 1e6);
}
END_TEST

int main(void) {
  const TTest *const tests[] = {one_owner_takes_all,  no_layer_no_load,     more_owners_than_layers,
                                equal_costs_go_round, worst_case_of_graham, within_the_bound_of_the_optimum,
                                thousands_of_owners,  flops_of_a_refresh};
  return suite_run("planner", tests, sizeof tests / sizeof tests[0], NULL);
}
