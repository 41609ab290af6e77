/* bf16 against rounding by its definition, in fp64: the nearest multiple of 2^(e - 7) of a number in [2^e, 2^(e + 1)).
 */
#include "product/bf16.h"
#include "suite.h"

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define COUNT(list) (sizeof list / sizeof list[0])

static float float_of(uint32_t bits) {
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

static uint32_t bits_of(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  return bits;
}

/* x finite and at least the least normal number; a tie goes to the even multiple. */
static double rounded(double x) {
  int e;
  double multiple = ldexp(frexp(fabs(x), &e), 8), down = floor(multiple), rest = multiple - down;
  bool is_up = rest > 0.5 || (rest == 0.5 && fmod(down, 2) == 1);
  double result = copysign(ldexp(down + (is_up ? 1 : 0), e - 8), x);
  return fabs(result) < 0x1p128 ? result : copysign(INFINITY, x);
}

static bool is_right(uint32_t bits) {
  float x = float_of(bits);
  uint16_t y = cv_round_bf16(x);
  float wide = cv_widen_bf16(y);
  if (bits_of(wide) != (uint32_t)y << 16) return false;
  if (isnan(x)) return isnan(wide) && signbit(wide) == signbit(x);
  if (fabsf(x) < 0x1p-126f) return wide == 0 && signbit(wide) == signbit(x);
  if (isinf(x)) return wide == x;
  return (double)wide == rounded((double)x);
}

/* Every upper half, with lower halves at and around the tie. */
START_TEST(every_number_goes_to_the_nearest) {
  static const uint32_t lower[] = {0, 1, 0x1234, 0x7fff, 0x8000, 0x8001, 0xedcb, 0xffff};
  int wrong = 0;
  for (uint32_t upper = 0; upper < 0x10000; upper++) {
    for (size_t i = 0; i < COUNT(lower); i++) wrong += !is_right(upper << 16 | lower[i]);
  }
  ck_assert_int_eq(wrong, 0);
}
END_TEST

START_TEST(named_numbers) {
  static const struct {
    uint32_t from;
    uint16_t to;
  } list[] = {{0x3f800000, 0x3f80}, {0x3f808000, 0x3f80}, {0x3f818000, 0x3f82}, {0x3f808001, 0x3f81},
              {0xbf808001, 0xbf81}, {0x7f7fffff, 0x7f80}, {0x7f7f7fff, 0x7f7f}, {0x7f800000, 0x7f80},
              {0xff800000, 0xff80}, {0x7f800001, 0x7fc0}, {0xffc00000, 0xffc0}, {0x007fffff, 0x0000},
              {0x80000001, 0x8000}, {0x00800000, 0x0080}};
  for (size_t i = 0; i < COUNT(list); i++)
    ck_assert_msg(cv_round_bf16(float_of(list[i].from)) == list[i].to, "%08x: %04x, not %04x", list[i].from,
                  cv_round_bf16(float_of(list[i].from)), list[i].to);
}
END_TEST

/* ---- rows of numbers ---- */

enum { MOST = 1300 }; /* more than two blocks of any size below 600 */

/* Spread over some powers of two, of both signs. */
static void fill(int64_t count, float *x) {
  uint32_t state = 12345;
  for (int64_t i = 0; i < count; i++) {
    state = state * 1664525u + 1013904223u;
    x[i] = ldexpf((float)(int32_t)state, (int)(i % 40) - 50);
  }
}

START_TEST(rows_are_rounded_number_by_number) {
  static float x[MOST], wide[MOST + 1], again[MOST];
  static uint16_t narrow[MOST + 1];
  fill(MOST, x);
  for (int64_t count = 0; count <= MOST; count += count < 20 ? 1 : 160) {
    int wrong = 0;
    narrow[count] = 0xabcd, wide[count] = 7;
    cv_round_to_bf16(count, x, narrow);
    cv_widen_from_bf16(count, narrow, wide);
    memcpy(again, x, sizeof x);
    cv_round_through_bf16(count, again);
    for (int64_t i = 0; i < count; i++) {
      wrong += (double)wide[i] != rounded((double)x[i]);
      wrong += again[i] != wide[i];
    }
    wrong += count < MOST && again[count] != x[count];
    ck_assert_int_eq(wrong, 0);
    ck_assert(narrow[count] == 0xabcd && wide[count] == 7);
  }
}
END_TEST

/* Both ways in one place: nothing is read after it was overwritten. */
START_TEST(in_place) {
  static float x[MOST + 1], expected[MOST];
  for (int64_t count = 0; count <= MOST; count += count < 20 ? 1 : 128) {
    fill(MOST, x);
    x[count] = 7;
    memcpy(expected, x, sizeof expected);
    cv_round_through_bf16(count, expected);
    cv_round_in_place(count, x);
    for (int64_t i = 0; i < count; i++) {
      uint16_t y;
      memcpy(&y, (const char *)x + i * (int64_t)sizeof y, sizeof y);
      ck_assert(y == bits_of(expected[i]) >> 16);
    }
    cv_widen_in_place(count, x);
    ck_assert(memcmp(x, expected, (size_t)count * sizeof *x) == 0 && x[count] == 7);
  }
}
END_TEST

/* Of numbers that fill a power of two evenly the error is 2^-7 / sqrt(12) over the mean square, 1 .. 2: 1.5e-3. */
START_TEST(error_is_that_of_the_numbers) {
  static float x[MOST];
  cv_bf16_error sum = {0};
  double changes = 0, numbers = 0;
  ck_assert(cv_bf16_error_of(&sum) == 0);
  for (int64_t i = 0; i < MOST; i++) x[i] = 1 + (float)i / MOST;
  for (int64_t i = 0; i < MOST; i++) {
    changes += pow((double)x[i] - rounded((double)x[i]), 2);
    numbers += (double)x[i] * (double)x[i];
  }
  cv_bf16_error_add(3, x, &sum);
  cv_bf16_error_add(MOST - 3, x + 3, &sum);
  ck_assert_double_eq_tol(cv_bf16_error_of(&sum), sqrt(changes / numbers), 1e-12);
  ck_assert_double_eq_tol(cv_bf16_error_of(&sum), 0x1p-7 / sqrt(12) / sqrt(7.0 / 3), 1e-4);
  sum = (cv_bf16_error){0};
  cv_round_through_bf16(MOST, x);
  cv_bf16_error_add(MOST, x, &sum);
  ck_assert(cv_bf16_error_of(&sum) == 0);
}
END_TEST

int main(void) {
  const TTest *const tests[] = {every_number_goes_to_the_nearest, named_numbers, rows_are_rounded_number_by_number,
                                in_place, error_is_that_of_the_numbers};
  return suite_run("bf16", tests, COUNT(tests), NULL);
}
