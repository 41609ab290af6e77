/* exp, tanh and the normal distribution as straight-line fp32 code, which the compiler turns into vector code of any
 * width without a vector library and without relaxed arithmetic, so that NaN and infinity keep their meaning.
 * Errors are the largest ones over all fp32 inputs, measured by tests/unit/test_nn.c against fp64. */
#ifndef NET_NN_MATH_H
#define NET_NN_MATH_H

#include <math.h>
#include <stdint.h>

/* x = k ln 2 + r with |r| <= ln 2 / 2; returns e^r - 1. |x| <= 88, or NaN: then k is anything and the result is NaN. */
static inline float nn_exp_reduced(float x, int32_t *k) {
  const float round = 0x1.8p23f; /* adding it leaves an integer in the low bits */
  union {
    float value;
    uint32_t bits;
  } shifted = {x * 0x1.715476p+0f + round}, zero = {round};
  *k = (int32_t)(shifted.bits - zero.bits);
  float n = shifted.value - round;
  float r =
      (x - n * 0x1.62ep-1f) - n * 0x1.0bfbe8p-15f; /* ln 2 in two parts, the first of 12 bits: n times it is exact */
  float p = 0x1.a1256cp-13f;
  p = p * r + 0x1.6d43b0p-10f;
  p = p * r + 0x1.1110e0p-7f;
  p = p * r + 0x1.5554e8p-5f;
  p = p * r + 0x1.555556p-3f;
  p = p * r + 0.5f;
  return r + r * r * p;
}

/* 2^k, -126 <= k <= 127. */
static inline float nn_power_of_two(int32_t k) {
  union {
    uint32_t bits;
    float value;
  } power = {(uint32_t)(k + 127) << 23};
  return power.value;
}

/* e^x for x <= 0: 1 ulp; 0 below -87.3, where fp32 has no normal numbers (those below are slow). */
static inline float nn_exp_negative(float x) {
  const float lowest = -87.3f;
  int32_t k;
  float q = nn_exp_reduced(x < lowest ? lowest : x, &k);
  float e = (1 + q) * nn_power_of_two(k);
  return x < lowest ? 0 : e;
}

/* 1 / (1 + e^-x) from e = e^-|x|: 3 ulp. */
static inline float nn_sigmoid_from(float x, float e) {
  return (x < 0 ? e : 1) / (1 + e);
}

/* tanh x = -t / (t + 2), t = e^(-2 |x|) - 1 for x >= 0: 3 ulp. */
static inline float nn_tanh(float x) {
  float y = -2 * fabsf(x);
  y = y < -40 ? -40 : y;
  int32_t k;
  float q = nn_exp_reduced(y, &k), power = nn_power_of_two(k);
  float t = power * q + (power - 1);
  return copysignf(-t / (t + 2), x);
}

/* Phi(x) = (1 + erf(x / sqrt 2)) / 2 from e = e^(-x^2 / 2): e times a polynomial in 1 / (1 + 0.35 |x|) is Phi(-|x|).
 * Relative error 4e-7 (1 + x^2 / 2), most of it that of e. */
static inline float nn_normal_from(float x, float e) {
  float t = 1 / (1 + 0.35f * fabsf(x));
  float p = -0.029702518f;
  p = p * t + 0.14665037f;
  p = p * t - 0.26116023f;
  p = p * t + 0.16525672f;
  p = p * t - 0.027171873f;
  p = p * t + 0.10716011f;
  p = p * t + 0.1194354f;
  p = p * t + 0.13991333f;
  p = p * t + 0.13961867f;
  float tail = e * t * p;
  return x < 0 ? tail : 1 - tail;
}

#endif
