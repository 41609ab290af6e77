/* Ages of preconditioners: the counts against a sorted list, and those of a run against its schedule. */
#include "mpi_assert.h"
#include "service_fixture.h"

#include "curvature/ages.h"

#define COUNT(list) (sizeof list / sizeof list[0])

enum { MOST = 3000 };

static int64_t list[MOST];

static int by_age(const void *x, const void *y) {
  int64_t a = *(const int64_t *)x, b = *(const int64_t *)y;
  return (a > b) - (a < b);
}

static double mean_of(int n) {
  double sum = 0;
  for (int i = 0; i < n; i++) sum += (double)list[i];
  return sum / n;
}

/* Of the sorted list: the smallest age that at least percent of 100 do not exceed, in whole numbers. */
static int64_t quantile_of(int n, int percent) {
  int i = 0;
  while (100 * (i + 1) < percent * n) i++;
  return list[i];
}

static cv_ages ages_of(int n) {
  cv_ages ages = {.n = 0};
  for (int i = 0; i < n; i++) cv_ages_add(&ages, list[i]);
  qsort(list, (size_t)n, sizeof list[0], by_age);
  return ages;
}

static int64_t random_age(uint64_t seed, int i, uint64_t below) {
  const cv_rng rng = {.seed = seed, .stream = CV_RNG_PROBE};
  return (int64_t)cv_rng_below(&rng, (uint64_t)i, below);
}

/* 25, 50 and 75 of 100 are exact in fp64; counts that 100 divides make any share exact, too. */
START_TEST(mean_quantiles_and_most_are_those_of_a_sorted_list) {
  static const int counts[] = {1, 2, 3, 7, 100, 301, 1000, MOST}, percents[] = {25, 50, 75, 100};
  static const uint64_t widths[] = {1, 5, 60, CV_AGES - 1};
  for (size_t i = 0; i < COUNT(counts) * COUNT(widths); i++) {
    int n = counts[i / COUNT(widths)];
    for (int j = 0; j < n; j++) list[j] = random_age(i, j, widths[i % COUNT(widths)]);
    cv_ages ages = ages_of(n);
    ck_assert_double_eq_tol(cv_ages_mean(&ages), mean_of(n), 1e-12 * (1 + mean_of(n)));
    ck_assert_int_eq(ages.most, list[n - 1]);
    for (size_t p = 0; p < COUNT(percents); p++)
      ck_assert_int_eq(cv_ages_quantile(&ages, percents[p] / 100.0), quantile_of(n, percents[p]));
    if (n % 100 == 0) ck_assert_int_eq(cv_ages_quantile(&ages, 0.99), quantile_of(n, 99));
  }
}
END_TEST

/* 1 of 200 is old: beyond 99 of 100, within all. */
START_TEST(ages_beyond_the_last_place_count_as_the_oldest) {
  for (int i = 0; i < 200; i++) list[i] = i == 77 ? 5000 : i % 3;
  cv_ages ages = ages_of(200);
  ck_assert_int_eq(cv_ages_quantile(&ages, 0.99), 2);
  ck_assert_int_eq(cv_ages_quantile(&ages, 1), 5000);
  ck_assert_int_eq(ages.most, 5000);
  ck_assert_double_eq_tol(cv_ages_mean(&ages), mean_of(200), 1e-12);
}
END_TEST

START_TEST(without_any_they_are_zero) {
  cv_ages ages = {.n = 0};
  ck_assert(cv_ages_mean(&ages) == 0 && cv_ages_quantile(&ages, 0.99) == 0 && ages.most == 0);
}
END_TEST

/* ---- a run ---- */

enum { STEPS = 40 };

static const service_layer fc[] = {{"fc0", 12, 10, true}, {"fc1", 10, 6, false}, {"fc2", 6, 4, true}};

typedef struct schedule {
  int staleness, factor, inv;
} schedule;

/* Of every step in which a preconditioner is in force: its age, once. Refreshes of step r use statistics of the newest
 * multiple of the factors' interval, and come into force in step r + staleness. */
static int expected_ages(schedule s) {
  int n = 0;
  for (int step = 0; step < STEPS; step++) {
    int refresh = step - s.staleness;
    if (refresh < 0) continue;
    refresh -= refresh % s.inv;
    list[n++] = step - (refresh - refresh % s.factor);
  }
  return n;
}

static curvd_metrics run(schedule s, const char *more) {
  char text[256];
  snprintf(text, sizeof text, "staleness=%d factor_update_steps=%d inv_update_steps=%d %s", s.staleness, s.factor,
           s.inv, more);
  curvd_ctx *ctx = service_open(MPI_COMM_SELF, text, COUNT(fc), fc);
  for (int step = 0; step < STEPS; step++) {
    dense V[COUNT(fc)];
    for (int32_t l = 0; l < (int32_t)COUNT(fc); l++) {
      service_capture(ctx, l, dense_random(1, 5, fc[l].d_in), dense_random(2, 5, fc[l].d_out));
      V[l] = dense_random((uint64_t)(9 + l), fc[l].d_out, service_columns(&fc[l]));
    }
    curvd_metrics before = service_metrics(ctx);
    if (step == 0) ck_assert(before.age_mean == 0 && before.latency_mean_s == 0 && before.latency_max_s == 0);
    ck_assert_int_eq(service_try(ctx, 0.1, SERVICE_JOINED, COUNT(fc), fc, V), CURVD_OK);
  }
  curvd_metrics metrics = service_metrics(ctx);
  service_close(&ctx);
  return metrics;
}

START_TEST(ages_of_a_run_are_those_of_its_schedule) {
  static const schedule schedules[] = {{0, 1, 1}, {0, 10, 10}, {0, 1, 5}, {0, 3, 2}, {1, 1, 1},
                                       {3, 1, 5}, {5, 1, 2},   {4, 2, 4}, {7, 3, 5}};
  static const char *const methods[] = {"method=kfac", "method=nystrom-kfac eig_rank=3 skip=fc1",
                                        "method=b-kfac eig_rank=2 oversampling=1"};
  for (size_t i = 0; i < COUNT(schedules) * COUNT(methods); i++) {
    schedule s = schedules[i % COUNT(schedules)];
    int n = expected_ages(s);
    curvd_metrics m = run(s, methods[i / COUNT(schedules)]);
    qsort(list, (size_t)n, sizeof list[0], by_age);
    int64_t most = s.staleness + s.inv - 1 + s.factor - 1;
    ck_assert_msg(list[0] >= s.staleness && list[n - 1] <= most, "%d to %d", (int)list[0], (int)list[n - 1]);
    ck_assert_double_eq_tol(m.age_mean, mean_of(n), 1e-12 * (1 + mean_of(n)));
    ck_assert_int_eq(m.age_max, list[n - 1]);
    ck_assert_int_eq(m.age_p99, quantile_of(n, 99));
    ck_assert(m.latency_mean_s > 0 && m.latency_max_s >= m.latency_mean_s && m.latency_max_s < 60);
  }
}
END_TEST

START_TEST(without_preconditioners_nothing_has_an_age) {
  curvd_metrics m = run((schedule){0, 1, 1}, "method=none");
  ck_assert(m.age_mean == 0 && m.age_p99 == 0 && m.age_max == 0 && m.latency_max_s == 0);
}
END_TEST

static Suite *make_suite(void) {
  const TTest *const tests[] = {mean_quantiles_and_most_are_those_of_a_sorted_list,
                                ages_beyond_the_last_place_count_as_the_oldest, without_any_they_are_zero,
                                ages_of_a_run_are_those_of_its_schedule, without_preconditioners_nothing_has_an_age};
  return service_suite("ages", tests, COUNT(tests));
}

int main(int argc, char **argv) {
  return mpi_test_main(argc, argv, make_suite);
}
