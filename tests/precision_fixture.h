/* Multipliers for tests, and what their rounding may do. */
#ifndef TESTS_PRECISION_FIXTURE_H
#define TESTS_PRECISION_FIXTURE_H

#include "product/multiply.h"

#include <check.h>
#include <stdlib.h>

/* Every precision on the best unit of this machine, and those of bf16 on the portable one. */
static const struct {
  cv_precision precision;
  const char *unit;
} precision_cases[] = {
    {CV_FP32, "auto"}, {CV_BF16, "auto"}, {CV_BF16X3, "auto"}, {CV_BF16, "portable"}, {CV_BF16X3, "portable"}};

enum { PRECISION_CASES = sizeof precision_cases / sizeof precision_cases[0] };

static inline cv_multiplier precision_new(cv_precision precision, const char *unit) {
  cv_multiplier by = {.precision = precision};
  if (precision == CV_FP32) return by;
  ck_assert_int_eq(cv_unit_find(unit, &by.unit, NULL), CURVD_OK);
  by.room = malloc((size_t)cv_multiplier_room(precision) * sizeof *by.room);
  ck_assert_ptr_nonnull(by.room);
  return by;
}

static inline cv_multiplier precision_case(int i) {
  return precision_new(precision_cases[i].precision, precision_cases[i].unit);
}

static inline void precision_free(cv_multiplier *by) {
  free(by->room);
  by->room = NULL;
}

/* By which the numbers of an operand are off, relative, root mean square: 1.66e-3 of numbers of all sizes, below 2^-9
 * (a single one by up to 2^-8); of two terms below 2^-17, and 2^-18 of the product of both second terms, half of it
 * counted for either operand. What fp32 sums add comes on top. */
static inline double precision_rounding(const cv_multiplier *by) {
  static const double rounding[] = {[CV_FP32] = 0, [CV_BF16] = 0x1p-9, [CV_BF16X3] = 0x1p-17 + 0x1p-19};
  return rounding[by ? by->precision : CV_FP32];
}

#endif
