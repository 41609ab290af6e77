/* Quantiles of step times against counting, which sorts nothing. */
#include "suite.h"

#include "train/step_times.h"

#include <math.h>

static step_times times;

static void fill(int64_t n) {
  times.n = 0;
  for (int64_t i = 0; i < n; i++)
    step_times_add(&times, (double)(i * 7919 % 104729)); /* exact in fp32, all different */
}

/* How many of the last `last` are at most x. */
static int64_t count(int64_t n, int64_t last, double x) {
  int64_t at_most = 0;
  for (int64_t i = n - last; i < n; i++) at_most += (double)(i * 7919 % 104729) <= x;
  return at_most;
}

START_TEST(quantile_is_the_least_that_the_share_does_not_exceed) {
  static const int64_t counts[] = {1, 2, 3, 31, 32, 33, 200, 1000}, lasts[] = {1, 2, 32, 1000};
  static const int percents[] = {0, 25, 50, 99, 100};
  for (size_t i = 0; i < sizeof counts / sizeof counts[0] * 20; i++) {
    int64_t n = counts[i / 20], wanted = lasts[i % 4], last = wanted < n ? wanted : n;
    int percent = percents[i / 4 % 5];
    fill(n);
    double q = step_times_quantile(&times, wanted, percent / 100.0);
    int64_t at_most = count(n, last, q);
    ck_assert_int_ge(100 * at_most, percent * last);
    if (at_most > 1)
      ck_assert_int_lt(100 * (at_most - 1), percent * last); /* values are different: the next one below */
  }
}
END_TEST

START_TEST(a_long_run_keeps_its_last_steps) {
  times.n = 0;
  for (int64_t i = 0; i < STEP_TIMES_MAX + 10; i++) step_times_add(&times, i < 10 ? 1e6 : 1);
  ck_assert(step_times_quantile(&times, times.n, 1) == 1);
  step_times_add(&times, 5);
  ck_assert(step_times_quantile(&times, times.n, 1) == 5);
  ck_assert(step_times_quantile(&times, 3, 0.5) == 1);
}
END_TEST

START_TEST(no_steps_have_no_quantile) {
  times.n = 0;
  ck_assert(isnan(step_times_quantile(&times, 32, 0.5)));
  step_times_add(&times, 2);
  ck_assert(isnan(step_times_quantile(&times, 0, 0.5)));
  ck_assert(step_times_quantile(&times, 32, 0.5) == 2);
}
END_TEST

int main(void) {
  const TTest *const tests[] = {quantile_is_the_least_that_the_share_does_not_exceed, a_long_run_keeps_its_last_steps,
                                no_steps_have_no_quantile};
  return suite_run("step_times", tests, sizeof tests / sizeof tests[0], NULL);
}
