/* Scales and ticks of charts. */
#include "page/chart.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* Sizes of an axis' ends: beyond them margins and parts of a number overflow, or vanish. */
static const double LEAST = 1e-300, MOST = 1e300;

const chart_range chart_nothing = {INFINITY, -INFINITY};

void chart_range_add(chart_range *range, double value) {
  if (!isfinite(value)) return;
  range->least = fmin(range->least, value);
  range->most = fmax(range->most, value);
}

void chart_range_add_positive(chart_range *range, double value) {
  if (value > 0) chart_range_add(range, value);
}

static double within(double value, double least, double most) {
  return fmin(fmax(value, least), most);
}

static void fit_log(chart_axis *axis, chart_range range, double margin) {
  if (!(range.least <= range.most)) range = (chart_range){1, 10};
  if (!(range.least > 0)) range.least = range.most > 0 ? range.most / 10 : 1;
  if (!(range.most > 0)) range.most = 10;
  range = (chart_range){within(range.least, LEAST, MOST), within(range.most, LEAST, MOST)};
  double length = log(range.most) - log(range.least);
  double factor = length < 1e-9 ? 2 : exp(margin * length);
  axis->from = within(range.least / factor, LEAST, MOST);
  axis->to = within(range.most * factor, LEAST, MOST);
}

void chart_axis_fit(chart_axis *axis, chart_range range, double margin) {
  if (axis->is_log) {
    fit_log(axis, range, margin);
    return;
  }
  if (!(range.least <= range.most)) range = (chart_range){0, 1};
  range = (chart_range){within(range.least, -MOST, MOST), within(range.most, -MOST, MOST)};
  if (fmax(fabs(range.least), fabs(range.most)) < LEAST) range = (chart_range){0, 0};
  double length = range.most - range.least, size = fmax(fabs(range.least), fabs(range.most));
  double more = length > 1e-9 * size ? margin * length : size > 0 ? 0.5 * size : 0.5;
  bool is_point = !(length > 1e-9 * size);
  axis->from = range.least == 0 && !is_point ? 0 : range.least - more;
  axis->to = range.most == 0 && !is_point ? 0 : range.most + more;
}

double chart_place(const chart_axis *axis, double value) {
  if (!isfinite(value) || (axis->is_log && !(value > 0))) return NAN;
  double part = axis->is_log ? (log(value) - log(axis->from)) / (log(axis->to) - log(axis->from))
                             : (value - axis->from) / (axis->to - axis->from);
  return axis->at + axis->length * part;
}

/* ---- ticks ---- */

static void tick_add(const chart_axis *axis, chart_ticks *ticks, double value) {
  double slack = axis->is_log ? 1e-9 * value : 1e-9 * (axis->to - axis->from);
  if (value < axis->from - slack || value > axis->to + slack || ticks->n == CHART_TICKS_MAX) return;
  ticks->value[ticks->n++] = value;
}

/* The least of 1, 2, 5 times a power of ten that is no less. */
static double round_up(double x) {
  double power = pow(10, floor(log10(x))), part = x / power;
  return power * (part <= 1 + 1e-9 ? 1 : part <= 2 + 1e-9 ? 2 : part <= 5 + 1e-9 ? 5 : 10);
}

static void linear_ticks(const chart_axis *axis, int most, chart_ticks *ticks) {
  double step = round_up((axis->to - axis->from) / most);
  double first = ceil(axis->from / step - 1e-9);
  *ticks = (chart_ticks){.step = step};
  /* a margin of less than a step at both ends: `most` steps may hold one tick more */
  if (floor(axis->to / step + 1e-9) - first + 1 > most) step = ticks->step = round_up(1.01 * step);
  first = ceil(axis->from / step - 1e-9);
  for (int i = 0; i < most; i++) tick_add(axis, ticks, (first + i) * step + 0.0);
}

static void power_ticks(const chart_axis *axis, int most, chart_ticks *ticks) {
  int first = (int)ceil(log10(axis->from) - 1e-9), last = (int)floor(log10(axis->to) + 1e-9);
  int every = (last - first) / most + 1;
  *ticks = (chart_ticks){.n = 0};
  for (int i = first; i <= last; i++)
    if (((i % every) + every) % every == 0) tick_add(axis, ticks, pow(10, i));
}

/* 1, 2, 5, 10, 20, ...; or 1, 3, 10, 30, ..., where these are too many. */
static void part_ticks(const chart_axis *axis, int most, chart_ticks *ticks) {
  static const struct {
    int n;
    double part[3];
  } ways[] = {{3, {1, 2, 5}}, {2, {1, 3}}};
  int first = (int)floor(log10(axis->from)), last = (int)floor(log10(axis->to) + 1e-9);
  for (int way = 0; way < 2; way++) {
    *ticks = (chart_ticks){.n = 0};
    for (int i = first; i <= last; i++)
      for (int j = 0; j < ways[way].n; j++) tick_add(axis, ticks, ways[way].part[j] * pow(10, i));
    if (ticks->n <= most) return;
  }
  power_ticks(axis, most, ticks);
}

void chart_ticks_make(const chart_axis *axis, int most, chart_ticks *ticks) {
  if (!axis->is_log) {
    linear_ticks(axis, most, ticks);
    return;
  }
  if (axis->to / axis->from > 100) power_ticks(axis, most, ticks);
  if (axis->to / axis->from <= 100) part_ticks(axis, most, ticks);
  if (ticks->n < 3 && axis->to / axis->from < 20) linear_ticks(axis, most, ticks); /* 2, 4, 6, 8 say more than 2, 5 */
}

/* 10 and the exponent as superscript digits of UTF-8 */
static void power_text(int exponent, char text[CHART_TICK_TEXT_MAX]) {
  static const char *const digit[] = {"\xE2\x81\xB0", "\xC2\xB9",     "\xC2\xB2",     "\xC2\xB3",     "\xE2\x81\xB4",
                                      "\xE2\x81\xB5", "\xE2\x81\xB6", "\xE2\x81\xB7", "\xE2\x81\xB8", "\xE2\x81\xB9"};
  int size = exponent < 0 ? -exponent : exponent;
  snprintf(text, CHART_TICK_TEXT_MAX, "10%s%s%s%s", exponent < 0 ? "\xE2\x81\xBB" : "",
           size >= 100 ? digit[size / 100 % 10] : "", size >= 10 ? digit[size / 10 % 10] : "", digit[size % 10]);
}

static void plain_text(double value, char text[CHART_TICK_TEXT_MAX]) {
  double size = fabs(value);
  static const double unit[] = {1e9, 1e6, 1e3};
  for (int i = 0; i < 3; i++)
    if (size >= (i < 2 ? unit[i] : 1e4)) {
      snprintf(text, CHART_TICK_TEXT_MAX, "%.4g%c", value / unit[i], "GMk"[i]);
      return;
    }
  snprintf(text, CHART_TICK_TEXT_MAX, "%.4g", value);
}

void chart_tick_text(const chart_axis *axis, const chart_ticks *ticks, double value, char text[CHART_TICK_TEXT_MAX]) {
  double exponent = value > 0 ? round(log10(value)) : 0;
  bool is_power = value > 0 && fabs(log10(value) - exponent) < 1e-6;
  double largest = ticks->n > 0 ? fmax(fabs(ticks->value[0]), fabs(ticks->value[ticks->n - 1])) : 0;
  if (axis->is_log && is_power && fabs(exponent) >= 4)
    power_text((int)exponent, text);
  else if (ticks->step > 0 && ticks->step < 1e-3 * largest)
    snprintf(text, CHART_TICK_TEXT_MAX, "%.10g", value); /* neighbours would read the same */
  else if (ticks->step > 0 && ticks->step < 1 && ticks->step >= 1e-4 && largest < 1e4)
    snprintf(text, CHART_TICK_TEXT_MAX, "%.*f", (int)ceil(-log10(ticks->step) - 1e-9), value);
  else
    plain_text(value, text);
}
