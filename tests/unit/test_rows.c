/* How many rows a statistic is made of, against numbers worked out by hand. */
#include "unit/suite.h"

#include "plan/model.h"

#include <math.h>

#define COUNT(list) (sizeof list / sizeof list[0])

/* 32 -> 64 channels, 3 x 3, with a bias, on 14 x 14 pixels. */
static cv_rows_rule rule_of(int64_t sample_rows, bool is_a, int64_t positions) {
  return (cv_rows_rule){
      .sample_rows = sample_rows, .n = is_a ? 289 : 64, .other = is_a ? 64 : 289, .positions = positions};
}

START_TEST(fully_connected_layers_use_all_rows_unless_told) {
  cv_rows_rule all = rule_of(CV_ROWS_AUTO, true, 0), some = rule_of(100, true, 0), none = rule_of(CV_ROWS_ALL, true, 0);
  ck_assert_int_eq(cv_rows_captured(&all, 1000000), 1000000);
  ck_assert_int_eq(cv_rows_captured(&none, 1000000), 1000000);
  ck_assert_int_eq(cv_rows_captured(&some, 1000000), 100);
  ck_assert_int_eq(cv_rows_captured(&some, 99), 99);
  ck_assert_int_eq(cv_rows_room(&some, 500), 500); /* for five captures */
}
END_TEST

/* 64 examples of 196 rows: A takes ceil(0.6 * 12544 * 64 / 289) = 1667 of them, whose outer products cost a tenth of 6
 * * 12544 * 289 * 64 flops; G would take 0.6 * 289 / 64 = 2.7 times as many as there are. */
START_TEST(convolutions_draw_a_tenth_of_their_own_products) {
  cv_rows_rule a = rule_of(CV_ROWS_AUTO, true, 196), g = rule_of(CV_ROWS_AUTO, false, 196);
  ck_assert_int_eq(cv_rows_captured(&a, 64), 1667);
  ck_assert_int_eq(cv_rows_captured(&g, 64), 12544);
  ck_assert_int_eq(cv_rows_captured(&a, 2), 256); /* 53 would do */
  ck_assert_int_eq(cv_rows_captured(&a, 1), 196);
  ck_assert_int_eq(cv_rows_captured(&a, 0), 0);
  a.sample_rows = CV_ROWS_ALL;
  ck_assert_int_eq(cv_rows_captured(&a, 64), 12544);
  a.sample_rows = 77;
  ck_assert_int_eq(cv_rows_captured(&a, 64), 77);
  cv_rows_rule small = {.sample_rows = CV_ROWS_AUTO, .n = 63, .other = 1, .positions = 196};
  ck_assert_int_eq(cv_rows_captured(&small, 64), 12544);
  small.n = 64; /* 0.6 * 12544 / 64 = 118 */
  ck_assert_int_eq(cv_rows_captured(&small, 64), 256);
  small.is_reduced = true;
  ck_assert_int_eq(cv_rows_captured(&small, 64), 64);
}
END_TEST

/* 2^18 rows at once: 1337 whole examples of 196. */
START_TEST(large_captures_are_drawn_from_in_pieces) {
  cv_rows_rule a = rule_of(CV_ROWS_AUTO, true, 196), one = rule_of(10, true, 1 << 20);
  int64_t of_piece = (int64_t)ceil(0.6 * 1337 * 196 * 64 / 289), of_rest = (int64_t)ceil(0.6 * 63 * 196 * 64 / 289);
  ck_assert_int_eq(cv_rows_piece(&a), 1337);
  ck_assert_int_eq(cv_rows_captured(&a, 2 * 1337 + 63), 2 * of_piece + of_rest);
  ck_assert_int_eq(cv_rows_room(&a, 2 * 1337 + 63), 2 * of_piece + of_rest);
  ck_assert_int_eq(cv_rows_piece(&one), 1);
  ck_assert_int_eq(cv_rows_captured(&one, 7), 70);
}
END_TEST

/* A convolution trains at 6 T m n flops an example, its statistics are of T rows each, and gradients that are told of
 * are no help to it. */
START_TEST(costs_are_those_of_all_positions) {
  const cv_plan_layer fc = {.m = 64, .n = 289}, conv = {.m = 64, .n = 289, .positions = 196};
  const cv_plan_choice choice = {.apply = CV_PLAN_REPLICATED};
  cv_plan_cost of_fc[CV_PLAN_STAGES], of_conv[CV_PLAN_STAGES];
  cv_plan_run run = cv_plan_run_default;
  run.batch_rows = 10, run.statistics_rows = 5, run.sample_rows = CV_ROWS_ALL, run.eig_rank = 20;
  cv_plan_layer_costs(&cv_plan_machine_default, &run, &fc, &choice, of_fc);
  cv_plan_layer_costs(&cv_plan_machine_default, &run, &conv, &choice, of_conv);
  ck_assert_double_eq_tol(of_conv[CV_PLAN_TRAIN].flops, 196 * of_fc[CV_PLAN_TRAIN].flops, 1);
  double whole = of_conv[CV_PLAN_PROJECT].seconds;
  run.follows = true;
  cv_plan_layer_costs(&cv_plan_machine_default, &run, &fc, &choice, of_fc);
  cv_plan_layer_costs(&cv_plan_machine_default, &run, &conv, &choice, of_conv);
  ck_assert_double_eq_tol(of_conv[CV_PLAN_PROJECT].seconds, whole, 1e-12);
  ck_assert_double_lt(of_fc[CV_PLAN_PROJECT].seconds, 0.9 * whole);
  cv_plan_run of_factor = cv_plan_factor_run(&run, &conv, CV_PLAN_A);
  ck_assert_int_eq(of_factor.statistics_rows, 5 * 196);
  ck_assert_int_eq(of_factor.capture_rows, 1024 * 196);
  cv_plan_factor_costs(&cv_plan_machine_default, &of_factor, 289, CV_PLAN_TRIANGLE, of_conv);
  ck_assert_double_eq_tol(of_conv[CV_PLAN_CAPTURE].flops, 5.0 * 196 * 289 * 290, 1);
}
END_TEST

int main(void) {
  const TTest *const tests[] = {fully_connected_layers_use_all_rows_unless_told,
                                convolutions_draw_a_tenth_of_their_own_products,
                                large_captures_are_drawn_from_in_pieces, costs_are_those_of_all_positions};
  return suite_run("rows", tests, COUNT(tests), NULL);
}
