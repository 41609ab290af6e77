/* Scales, ticks and labels, and lines whose pixels are turned back into numbers. */
#include "suite.h"

#include "page/chart.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define COUNT(list) (sizeof list / sizeof list[0])

/* ---- scales ---- */

START_TEST(test_places) {
  const chart_axis even = {false, 10, 20, 100, 50}, upwards = {false, 0, 4, 200, -100}, log = {true, 0.01, 100, 0, 80};
  ck_assert_double_eq_tol(chart_place(&even, 10), 100, 1e-12);
  ck_assert_double_eq_tol(chart_place(&even, 15), 125, 1e-12);
  ck_assert_double_eq_tol(chart_place(&upwards, 3), 125, 1e-12);
  ck_assert_double_eq_tol(chart_place(&log, 1), 40, 1e-12);
  ck_assert_double_eq_tol(chart_place(&log, 10), 60, 1e-12);
  ck_assert(isnan(chart_place(&log, 0)) && isnan(chart_place(&log, -1)) && isnan(chart_place(&even, NAN)));
  ck_assert(isnan(chart_place(&even, INFINITY)));
}
END_TEST

static chart_axis fitted(bool is_log, double least, double most) {
  chart_axis axis = {.is_log = is_log, .at = 0, .length = 100};
  chart_axis_fit(&axis, (chart_range){least, most}, 0.1);
  return axis;
}

START_TEST(test_ranges) {
  static const double ends[][2] = {{1, 2},      {0, 5},      {-3, -1},        {-4, 0},       {3, 3},
                                   {0, 0},      {-2, -2},    {1e30, 1e30},    {-1e30, 1e30}, {1, 1 + 1e-15},
                                   {0, 1e-300}, {0, 5e-324}, {5e-324, 5e-324}};
  for (size_t i = 0; i < COUNT(ends); i++) {
    chart_axis axis = fitted(false, ends[i][0], ends[i][1]);
    ck_assert(isfinite(axis.from) && isfinite(axis.to) && axis.from < axis.to);
    ck_assert(axis.from <= ends[i][0] && axis.to >= ends[i][1]);
  }
  ck_assert_double_eq(fitted(false, 0, 5).from, 0); /* no margin beyond 0 */
  ck_assert_double_eq(fitted(false, -4, 0).to, 0);
  chart_axis nothing = {.is_log = false};
  chart_axis_fit(&nothing, chart_nothing, 0.1);
  ck_assert(nothing.from < nothing.to && isfinite(nothing.to - nothing.from));
  nothing.is_log = true;
  chart_axis_fit(&nothing, chart_nothing, 0.1);
  ck_assert(nothing.from > 0 && nothing.from < nothing.to && isfinite(nothing.to));
}
END_TEST

/* Of any numbers the ends are such that the ticks are numbers and stand within the axis, and few. */
START_TEST(test_log_ranges) {
  static const double ends[][2] = {{1, 2},           {1e-30, 1e30},    {5, 5},           {-1, 5},
                                   {-2, -1},         {0, 0},           {5e-324, 1},      {5e-324, 5e-324},
                                   {5e-324, 1e-300}, {1e-300, 1e-299}, {1e-310, 1e-305}, {1e-300, 1e30},
                                   {1e-300, 1e300},  {1e300, 1e300},   {1e301, 1.7e308}};
  for (size_t i = 0; i < COUNT(ends); i++) {
    chart_axis axis = fitted(true, ends[i][0], ends[i][1]);
    ck_assert_msg(axis.from >= 1e-300 && axis.from < axis.to && axis.to <= 1e300, "%g to %g", axis.from, axis.to);
    chart_ticks ticks;
    chart_ticks_make(&axis, 6, &ticks);
    ck_assert_int_le(ticks.n, 6);
    ck_assert_int_ge(ticks.n, 1);
    for (int j = 0; j < ticks.n; j++) {
      double place = chart_place(&axis, ticks.value[j]);
      ck_assert_msg(place > -1e-6 && place < 100 + 1e-6, "%g of %g to %g", ticks.value[j], axis.from, axis.to);
    }
  }
}
END_TEST

/* Of numbers next to nothing, too. */
START_TEST(test_tiny_ticks) {
  static const double most[] = {5e-324, 1e-310, 1e-300, 1e-290};
  for (size_t i = 0; i < COUNT(most); i++) {
    chart_axis axis = fitted(false, 0, most[i]);
    chart_ticks ticks;
    chart_ticks_make(&axis, 6, &ticks);
    ck_assert(ticks.n >= 1 && ticks.n <= 6);
    for (int j = 0; j < ticks.n; j++) {
      double place = chart_place(&axis, ticks.value[j]);
      ck_assert_msg(place > -1e-6 && place < 100 + 1e-6, "%g of %g to %g", ticks.value[j], axis.from, axis.to);
    }
  }
}
END_TEST

/* ---- ticks ---- */

static void assert_ticks(bool is_log, double from, double to, int most, const char *expected) {
  const chart_axis axis = {is_log, from, to, 0, 100};
  chart_ticks ticks;
  char all[400] = "", text[CHART_TICK_TEXT_MAX];
  chart_ticks_make(&axis, most, &ticks);
  for (int i = 0; i < ticks.n; i++) {
    chart_tick_text(&axis, &ticks, ticks.value[i], text);
    snprintf(all + strlen(all), sizeof all - strlen(all), "%s%s", i > 0 ? " " : "", text);
  }
  ck_assert_msg(strcmp(all, expected) == 0, "%g to %g: '%s', expected '%s'", from, to, all, expected);
}

START_TEST(test_tick_texts) {
  assert_ticks(false, 0, 100, 6, "0 20 40 60 80 100");
  assert_ticks(false, 0.13, 0.87, 6, "0.2 0.4 0.6 0.8");
  assert_ticks(false, -1.2, 1.3, 6, "-1.0 -0.5 0.0 0.5 1.0");
  assert_ticks(false, 0, 0.05, 6, "0.00 0.01 0.02 0.03 0.04 0.05");
  assert_ticks(false, 0, 46900, 6, "0 10k 20k 30k 40k");
  assert_ticks(false, 0, 3e6, 4, "0 1M 2M 3M");
  assert_ticks(false, 1000000, 1000002, 3, "1000000 1000001 1000002");
  assert_ticks(true, 0.5, 30, 6, "0.5 1 2 5 10 20");
  assert_ticks(true, 1e-6, 1, 8,
               "10\xE2\x81\xBB\xE2\x81\xB6 10\xE2\x81\xBB\xE2\x81\xB5 10\xE2\x81\xBB\xE2\x81\xB4 0.001 0.01 0.1 1");
  assert_ticks(true, 1e-13, 1e12, 3, "10\xE2\x81\xBB\xE2\x81\xB9 1 10\xE2\x81\xB9");
  assert_ticks(true, 1.9, 66, 4, "3 10 30");
  assert_ticks(true, 1.9, 8.1, 6, "2 4 6 8");
  assert_ticks(true, 3.1, 3.9, 6, "3.2 3.4 3.6 3.8");
}
END_TEST

/* Of any range: within it, rising, 1, 2 or 5 times a power of ten apart, and no more than asked for. */
START_TEST(test_tick_rules) {
  for (int i = 0; i < 4000; i++) {
    double size = pow(10, i % 13 - 6), from = size * sin(i), to = from + size * (0.01 + i % 7);
    int most = 3 + i % 6;
    const chart_axis axis = {false, from, to, 0, 100};
    chart_ticks ticks;
    chart_ticks_make(&axis, most, &ticks);
    ck_assert_msg(ticks.n >= 1 && ticks.n <= most, "%d ticks of %d in %g to %g", ticks.n, most, from, to);
    double part = ticks.step / pow(10, floor(log10(ticks.step) + 1e-9));
    ck_assert(fabs(part - 1) < 1e-6 || fabs(part - 2) < 1e-6 || fabs(part - 5) < 1e-6);
    for (int j = 0; j < ticks.n; j++) {
      double times = ticks.value[j] / ticks.step;
      ck_assert_double_eq_tol(times, round(times), 1e-5 * fmax(1, fabs(times)));
      ck_assert(chart_place(&axis, ticks.value[j]) > -1e-6 && chart_place(&axis, ticks.value[j]) < 100 + 1e-6);
    }
  }
}
END_TEST

/* ---- lines ---- */

static chart_panel unit_panel(void) {
  chart_panel p = {.title = "", .x_title = "", .left = 0, .top = 0, .width = 1000, .height = 1000};
  p.x = (chart_axis){false, 0, 1000, 0, 1000};
  p.y = (chart_axis){false, 0, 1000, 1000, -1000};
  return p;
}

/* Points of all polylines in m: x and 1000 - y. */
static int points_of(const markup *m, double *x, double *y, int most) {
  int n = 0;
  for (const char *line = m->bytes; line != NULL && (line = strstr(line, " points=\"")) != NULL; line++) {
    const char *c = line + 9;
    for (int used; n < most && sscanf(c, "%lf,%lf %n", &x[n], &y[n], &used) == 2; c += used, n++) y[n] = 1000 - y[n];
  }
  return n;
}

static int count_of(const markup *m, const char *words) {
  int n = 0;
  for (const char *c = m->bytes; c != NULL && (c = strstr(c, words)) != NULL; c++) n++;
  return n;
}

START_TEST(test_line_and_gaps) {
  const chart_panel p = unit_panel();
  const double x[] = {0, 10, 20, 30, 40, 50}, y[] = {5, 7, NAN, 11.25, INFINITY, 3};
  double back_x[8], back_y[8];
  markup m = {.n = 0};
  chart_line(&m, &p, (chart_style){1, 2}, "a<\"b", 6, x, y);
  ck_assert_int_eq(count_of(&m, "<polyline"), 3);
  ck_assert_int_eq(count_of(&m, "data-series=\"a&#60;&#34;b\""), 3);
  ck_assert_int_eq(points_of(&m, back_x, back_y, 8), 4);
  ck_assert(back_x[2] == 30 && fabs(back_y[2] - 11.25) < 0.006 && back_x[3] == 50);
  markup_free(&m);
}
END_TEST

START_TEST(test_long_line) {
  enum { N = 100000 };
  static double x[N], y[N], back_x[CHART_POINTS_MAX + 1], back_y[CHART_POINTS_MAX + 1];
  const chart_panel p = unit_panel();
  for (int i = 0; i < N; i++) x[i] = i / 100.0, y[i] = 500 + (i % 1000) / 10.0;
  y[33333] = 2, y[77777] = 998; /* spikes of one point stay */
  markup m = {.n = 0};
  chart_line(&m, &p, (chart_style){0, 0}, "", N, x, y);
  int n = points_of(&m, back_x, back_y, CHART_POINTS_MAX + 1);
  ck_assert(n > CHART_POINTS_MAX / 2 && n <= CHART_POINTS_MAX);
  chart_range range = chart_nothing;
  for (int i = 0; i < n; i++) {
    chart_range_add(&range, back_y[i]);
    ck_assert(i == 0 || back_x[i] >= back_x[i - 1]);
  }
  ck_assert(fabs(range.least - 2) < 0.006 && fabs(range.most - 998) < 0.006);
  markup_free(&m);
}
END_TEST

/* ---- labels ---- */

START_TEST(test_labels) {
  chart_label label[] = {{50, "d", {0}}, {10, "a", {0}}, {12, "b", {0}}, {12, "c", {0}}, {200, "e", {0}}};
  chart_labels_spread(label, 5, 14, 0, 100);
  static const char *const order = "abcde";
  for (int i = 0; i < 5; i++) {
    ck_assert(label[i].text[0] == order[i] || (i > 0 && i < 3));
    ck_assert(label[i].y >= 0 && label[i].y <= 100 + 1e-9);
    ck_assert(i == 0 || label[i].y - label[i - 1].y >= 14 - 1e-9);
  }
  chart_label crowd[] = {{99, "a", {0}}, {99, "b", {0}}, {99, "c", {0}}};
  chart_labels_spread(crowd, 3, 14, 0, 100);
  ck_assert(crowd[2].y <= 100 && crowd[0].y <= 72 + 1e-9);
  markup m = {.n = 0};
  chart_label many[20];
  for (int i = 0; i < 20; i++) many[i] = (chart_label){i == 3 ? NAN : i, "name", {0}};
  chart_labels_write(&m, many, 20, 0, 100, 0, 100);
  ck_assert_int_eq(count_of(&m, ">name</text>"), 7); /* 8 have room, the last says how many more */
  ck_assert_int_eq(count_of(&m, ">and 12 more</text>"), 1);
  markup_free(&m);
}
END_TEST

START_TEST(test_cut) {
  char cut[40], tiny[6];
  chart_text_cut("short", 200, cut, sizeof cut);
  ck_assert_str_eq(cut, "short");
  chart_text_cut("0123456789", 45, cut, sizeof cut);
  ck_assert_str_eq(cut, "01234\xE2\x80\xA6");
  chart_text_cut("\xC3\xA9\xC3\xA9\xC3\xA9\xC3\xA9\xC3\xA9\xC3\xA9\xC3\xA9", 32, cut, sizeof cut);
  ck_assert_str_eq(cut, "\xC3\xA9\xC3\xA9\xC3\xA9\xE2\x80\xA6"); /* no character is torn */
  chart_text_cut("0123456789", 1000, tiny, sizeof tiny);
  ck_assert_str_eq(tiny, "01\xE2\x80\xA6");
}
END_TEST

int main(void) {
  const TTest *const tests[] = {test_places,     test_ranges,        test_log_ranges, test_tiny_ticks, test_tick_texts,
                                test_tick_rules, test_line_and_gaps, test_long_line,  test_labels,     test_cut};
  return suite_run("chart", tests, COUNT(tests), NULL);
}
