/* Schedules. */
#include "base/schedule.h"

#include "suite.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static cv_schedule parsed(const char *text) {
  cv_schedule schedule;
  cv_error err = {.code = CURVD_OK};
  ck_assert_msg(cv_schedule_parse(text, -INFINITY, INFINITY, &schedule, &err) == CURVD_OK, "%s", err.text);
  return schedule;
}

START_TEST(test_one_value) {
  cv_schedule schedule = parsed("1e-3");
  ck_assert_int_eq(schedule.n, 1);
  ck_assert(cv_schedule_at(&schedule, 0, 100) == 1e-3);
  ck_assert(cv_schedule_at(&schedule, INT64_MAX, 100) == 1e-3);
  schedule = cv_schedule_constant(-2);
  ck_assert_int_eq(schedule.n, 1);
  ck_assert(cv_schedule_at(&schedule, 5, 0) == -2);
}
END_TEST

START_TEST(test_epochs_and_steps) {
  cv_schedule schedule = parsed(" 0.1 , 0.05@25e,0.01@7000 ");
  ck_assert_int_eq(schedule.n, 3);
  ck_assert(cv_schedule_at(&schedule, 0, 117) == 0.1);
  ck_assert(cv_schedule_at(&schedule, 25 * 117 - 1, 117) == 0.1);
  ck_assert(cv_schedule_at(&schedule, 25 * 117, 117) == 0.05);
  ck_assert(cv_schedule_at(&schedule, 6999, 117) == 0.05);
  ck_assert(cv_schedule_at(&schedule, 7000, 117) == 0.01);
  /* the last piece in the list whose start has come, even when an earlier one starts later */
  ck_assert(cv_schedule_at(&schedule, 7000, 1000) == 0.01);
  ck_assert(cv_schedule_at(&schedule, 30000, 1000) == 0.01);
  /* without an epoch's length pieces in epochs never start */
  ck_assert(cv_schedule_at(&schedule, 6999, 0) == 0.1);
  ck_assert(cv_schedule_at(&schedule, 7000, 0) == 0.01);
  ck_assert(cv_schedule_max(&schedule) == 0.1);
}
END_TEST

START_TEST(test_fractions_of_epochs) {
  cv_schedule schedule = parsed("1, 5@1.1e, 2@2.5e");
  ck_assert(cv_schedule_at(&schedule, 10, 10) == 1);
  ck_assert(cv_schedule_at(&schedule, 11, 10) == 5); /* 1.1 * 10 > 11 in binary */
  ck_assert(cv_schedule_at(&schedule, 24, 10) == 5);
  ck_assert(cv_schedule_at(&schedule, 25, 10) == 2);
  ck_assert(cv_schedule_at(&schedule, 8, 3.3) == 5); /* 2.5 * 3.3 = 8.25 */
  ck_assert(cv_schedule_at(&schedule, 9, 3.3) == 2);
  ck_assert(cv_schedule_max(&schedule) == 5);
}
END_TEST

START_TEST(test_malformed_texts_are_refused) {
  static const char *const texts[] = {
      "",         ",",        "1,",      "1,,2@3", "x",       "1@5",         "1, 2",        "1, 2@",
      "1, 2@x",   "1, 2@5.5", "1, 2@-5", "1, 2@0", "1, 2@0e", "1, 2@5, 3@5", "1, 2@5, 3@4", "1, 2@2e, 3@1.5e",
      "1, 2@5ee", "1, 2@e",   "nan",     "inf",    "0x10",    "1 2",         "1, 2@5@6",    "1e999",
      "1, 2@1e5", "1;2",      "1, 2@5 e"};
  for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
    cv_schedule schedule = {.n = -7};
    cv_error err = {.code = CURVD_OK};
    ck_assert_msg(cv_schedule_parse(texts[i], -10, 10, &schedule, &err) == CURVD_ERR_OPTION, "accepted '%s'", texts[i]);
    ck_assert_int_eq(schedule.n, -7);
    ck_assert_uint_gt(strlen(err.text), 5);
  }
}
END_TEST

START_TEST(test_range_holds_for_every_value) {
  cv_schedule schedule;
  ck_assert_int_eq(cv_schedule_parse("0, 1@5", 0, 1, &schedule, NULL), CURVD_OK);
  ck_assert_int_eq(cv_schedule_parse("0, 1.01@5", 0, 1, &schedule, NULL), CURVD_ERR_OPTION);
  ck_assert_int_eq(cv_schedule_parse("-0.01", 0, 1, &schedule, NULL), CURVD_ERR_OPTION);
}
END_TEST

START_TEST(test_number_of_pieces) {
  char text[1024] = "1";
  cv_schedule schedule;
  for (int i = 1; i < CV_SCHEDULE_MAX; i++) snprintf(text + strlen(text), sizeof text - strlen(text), ", 1@%d", i);
  ck_assert_int_eq(cv_schedule_parse(text, 0, 1, &schedule, NULL), CURVD_OK);
  ck_assert_int_eq(schedule.n, CV_SCHEDULE_MAX);
  strcat(text, ", 1@1000");
  ck_assert_int_eq(cv_schedule_parse(text, 0, 1, &schedule, NULL), CURVD_ERR_OPTION);
}
END_TEST

/* By trying every step. */
static int64_t tried_gap(const cv_schedule *schedule, double steps_per_epoch) {
  int64_t least = INT64_MAX;
  for (int64_t step = 1, last = 0; step < 400; step++) {
    if (step % (int64_t)cv_schedule_at(schedule, step, steps_per_epoch) != 0) continue;
    if (step - last < least) least = step - last;
    last = step;
  }
  return least;
}

START_TEST(test_least_gap_of_intervals) {
  const char *const texts[] = {"7",
                               "10, 7@21",
                               "6, 4@7",
                               "10, 20@5, 3@50",
                               "5, 9@46, 4@47",
                               "10, 100@11",
                               "50, 30@20e",
                               "12, 8@1.5e",
                               "4, 6@2e, 10@35",
                               "1, 50@3",
                               "30, 10@2, 7@15",
                               "100, 90@1, 80@2",
                               "9, 9@10, 9@11",
                               "60, 7@61, 60@62, 11@200"};
  const double epochs[] = {0, 1, 7, 13.4};
  for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
    cv_schedule schedule = parsed(texts[i]);
    for (size_t j = 0; j < sizeof epochs / sizeof epochs[0]; j++)
      ck_assert_int_eq(cv_schedule_least_gap(&schedule, epochs[j]), tried_gap(&schedule, epochs[j]));
  }
  cv_schedule schedule = parsed("10, 7@21");
  ck_assert_int_eq(cv_schedule_least_gap(&schedule, 0), 1); /* steps 20 and 21 */
}
END_TEST

int main(void) {
  const TTest *const tests[] = {
      test_one_value,
      test_epochs_and_steps,
      test_fractions_of_epochs,
      test_malformed_texts_are_refused,
      test_range_holds_for_every_value,
      test_number_of_pieces,
      test_least_gap_of_intervals,
  };
  return suite_run("schedule", tests, sizeof tests / sizeof tests[0], NULL);
}
