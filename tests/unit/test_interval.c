/* Medians and their intervals. References: all n^n samples of up to 5 values, and of more the binomial law of an order
 * statistic's rank. */
#include "suite.h"

#include "page/interval.h"

#include <math.h>
#include <stdbool.h>

#define COUNT(list) (sizeof list / sizeof list[0])

static interval of(const double *x, int64_t n) {
  cv_error err = {.code = CURVD_OK};
  interval made;
  ck_assert_int_eq(interval_of_median(x, n, &made, &err), CURVD_OK);
  return made;
}

START_TEST(test_median) {
  double odd[] = {3, 1, 2}, even[] = {4, 1, 3, 2}, two[] = {1e308, 1e308};
  ck_assert_double_eq(median_of(odd, 3), 2);
  ck_assert_double_eq(median_of(even, 4), 2.5);
  ck_assert_double_eq(median_of(two, 2), 1e308); /* their sum is infinite */
  ck_assert(isnan(median_of(odd, 0)));
}
END_TEST

START_TEST(test_few_values) {
  const double one[] = {7}, equal[] = {7, 7, 7}, gaps[] = {NAN, 2, NAN, 2};
  interval none = of(one, 0), single = of(one, 1), same = of(equal, 3), rest = of(gaps, 4);
  ck_assert(none.n == 0 && isnan(none.median) && isnan(none.low) && isnan(none.high));
  ck_assert(single.n == 1 && single.median == 7 && single.low == 7 && single.high == 7);
  ck_assert(same.n == 3 && same.median == 7 && same.low == 7 && same.high == 7);
  ck_assert(rest.n == 2 && rest.median == 2 && rest.low == 2 && rest.high == 2);
}
END_TEST

/* ---- all samples ---- */

/* Share of all n^n samples of x whose median is at most `bound` (or less than it). */
static double share_up_to(const double *x, int n, double bound, bool is_strict) {
  double sample[5], total = pow(n, n), within = 0;
  for (long i = 0; i < (long)total; i++) {
    long rest = i;
    for (int j = 0; j < n; j++, rest /= n) sample[j] = x[rest % n];
    double median = median_of(sample, n);
    within += is_strict ? median < bound : median <= bound;
  }
  return within / total;
}

/* Half of the share beyond each end is 2.5 %, give or take what 2000 draws leave open: four standard deviations. */
static const double OPEN = 4 * 0.0035;

START_TEST(test_all_samples) {
  static const double x[] = {1, 2, 4, 8, 16};
  for (int n = 2; n <= 5; n++) {
    interval made = of(x, n);
    ck_assert_double_le(share_up_to(x, n, made.low, true), 0.025 + OPEN);
    ck_assert_double_ge(share_up_to(x, n, made.low, false), 0.025 - OPEN);
    ck_assert_double_le(share_up_to(x, n, made.high, true), 0.975 + OPEN);
    ck_assert_double_ge(share_up_to(x, n, made.high, false), 0.975 - OPEN);
    ck_assert(made.low <= made.median && made.median <= made.high);
  }
}
END_TEST

/* ---- many values ---- */

/* P(at least m of n draws are among the k smallest): the median of an odd sample is then one of them. */
static double binomial_tail(int n, int m, double p) {
  double sum = 0;
  for (int i = m; i <= n; i++)
    sum += exp(lgamma(n + 1) - lgamma(i + 1) - lgamma(n - i + 1) + i * log(p) + (n - i) * log1p(-p));
  return sum;
}

static double law(int n, int k) {
  return k <= 0 ? 0 : k >= n ? 1 : binomial_tail(n, (n + 1) / 2, (double)k / n);
}

START_TEST(test_order_statistics) {
  static const int sizes[] = {7, 11, 25, 101};
  double x[101];
  for (size_t i = 0; i < COUNT(sizes); i++) {
    int n = sizes[i];
    for (int j = 0; j < n; j++) x[j] = n - j; /* k-th smallest: k */
    interval made = of(x, n);
    ck_assert_double_eq(made.median, (n + 1) / 2);
    ck_assert_double_le(law(n, (int)made.low - 1), 0.025 + OPEN);
    ck_assert_double_ge(law(n, (int)made.low), 0.025 - OPEN);
    ck_assert_double_le(law(n, (int)made.high - 1), 0.975 + OPEN);
    ck_assert_double_ge(law(n, (int)made.high), 0.975 - OPEN);
  }
}
END_TEST

START_TEST(test_again) {
  const double x[] = {3, 1, 4, 1, 5, 9, 2, 6}, shuffled[] = {9, 6, 5, 4, 3, 2, 1, 1};
  interval first = of(x, 8), second = of(x, 8), other = of(shuffled, 8);
  ck_assert(first.low == second.low && first.high == second.high);
  ck_assert(first.low == other.low && first.high == other.high);
}
END_TEST

int main(void) {
  const TTest *const tests[] = {test_median, test_few_values, test_all_samples, test_order_statistics, test_again};
  return suite_run("interval", tests, COUNT(tests), NULL);
}
