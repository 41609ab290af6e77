/* bf16, the upper half of an fp32 number: 8 bits of precision, and fp32's range. To the nearest number, ties to even,
 * so off by at most 2^-8 of it (on average, root mean square, 1.7e-3); NaN stays NaN, a finite number above the largest
 * becomes infinite, and what is below the least normal number of fp32 counts as 0, with its sign. */
#ifndef CV_PRODUCT_BF16_H
#define CV_PRODUCT_BF16_H

#include <stdint.h>

/* Largest relative change of a number. */
#define CV_BF16_ROUNDING 0x1p-8

static inline float cv_widen_bf16(uint16_t x) {
  union {
    uint32_t bits;
    float value;
  } wide = {(uint32_t)x << 16};
  return wide.value;
}

static inline uint16_t cv_round_bf16(float x) {
  union {
    float value;
    uint32_t bits;
  } from = {x};
  uint32_t bits = from.bits, size = bits & 0x7fffffff;
  uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
  rounded = size < 0x00800000 ? bits >> 31 << 15 : rounded;
  return (uint16_t)(size > 0x7f800000 ? bits >> 16 | 0x40 : rounded);
}

/* out (count) = x (count), two arrays. */
void cv_round_to_bf16(int64_t count, const float *x, uint16_t *out);
void cv_widen_from_bf16(int64_t count, const uint16_t *x, float *out);

/* The same in place: count numbers of one kind at x become numbers of the other; x has room for count floats. */
void cv_round_in_place(int64_t count, void *x);
void cv_widen_in_place(int64_t count, void *x);

/* x (count) <- the nearest numbers that bf16 has. */
void cv_round_through_bf16(int64_t count, float *x);

/* How far rounding takes numbers from themselves, as sums of squares. */
typedef struct cv_bf16_error {
  double changes, numbers;
} cv_bf16_error;

/* Adds that of x (count). */
void cv_bf16_error_add(int64_t count, const float *x, cv_bf16_error *sum);

/* Relative, in the Frobenius norm; 0 of nothing. */
double cv_bf16_error_of(const cv_bf16_error *sum);

#endif
