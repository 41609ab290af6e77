/* Tiles by AVX-512 with its conversions to bf16, for the units that have them. They round as unit_body.h does. */
#ifndef CV_PRODUCT_UNIT_VECTOR_H
#define CV_PRODUCT_UNIT_VECTOR_H

#include "product/unit_body.h"

#include <cpuid.h>
#include <immintrin.h>

enum { AHEAD = 32 }; /* floats: a tile further right */

static inline bool has_avx512_bf16(void) {
  unsigned a = 0, b = 0, c = 0, d = 0;
  bool has_state = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                   __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  return has_state && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 5 & 1);
}

/* count <= 16 numbers, zeros behind them */
static inline __m512 load_some(int64_t count, const float *x) {
  if (count >= CV_PANEL) return _mm512_loadu_ps(x);
  return count <= 0 ? _mm512_setzero_ps() : _mm512_maskz_loadu_ps((__mmask16)((1u << count) - 1), x);
}

/* 32 numbers: first, then second */
static inline __m512i round_two(__m512 first, __m512 second) {
  return (__m512i)_mm512_cvtne2ps_pbh(second, first);
}

static inline __m512 widen_first(__m512i x) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm512_castsi512_si256(x)), 16));
}

static inline __m512 widen_second(__m512i x) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(x, 1)), 16));
}

static inline __m512i rest_of_two(__m512 first, __m512 second, __m512i hi) {
  return round_two(_mm512_sub_ps(first, widen_first(hi)), _mm512_sub_ps(second, widen_second(hi)));
}

static inline void vector_tile_rows(int64_t count, int64_t depth, const float *X, int64_t ldx, uint16_t *hi,
                                    uint16_t *lo) {
  for (int64_t i = 0; i < CV_PANEL; i++) {
    const float *x = X + i * ldx;
    __m512 first = i < count ? load_some(depth, x) : _mm512_setzero_ps();
    __m512 second = i < count ? load_some(depth - CV_PANEL, x + CV_PANEL) : _mm512_setzero_ps();
    __m512i rounded = round_two(first, second);
    _mm512_storeu_si512(hi + i * CV_DEPTH, rounded);
    if (lo) _mm512_storeu_si512(lo + i * CV_DEPTH, rest_of_two(first, second, rounded));
  }
}

/* Number j of the first half goes to place 2 j, of the second to 2 j + 1. */
static inline __m512i interleave_order(void) {
  return _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5, 20, 4, 19,
                          3, 18, 2, 17, 1, 16, 0);
}

static inline void vector_tile_pairs(int64_t depth, int64_t count, const float *X, int64_t ldx, uint16_t *hi,
                                     uint16_t *lo) {
  const __m512i order = interleave_order();
  for (int64_t t = 0; t < CV_DEPTH; t += 2) {
    _mm_prefetch((const char *)(X + t * ldx + AHEAD), _MM_HINT_T0);
    _mm_prefetch((const char *)(X + (t + 1) * ldx + AHEAD), _MM_HINT_T0);
    __m512 first = t < depth ? load_some(count, X + t * ldx) : _mm512_setzero_ps();
    __m512 second = t + 1 < depth ? load_some(count, X + (t + 1) * ldx) : _mm512_setzero_ps();
    __m512i rounded = round_two(first, second);
    _mm512_storeu_si512(hi + t * CV_PANEL, _mm512_permutexvar_epi16(order, rounded));
    if (lo)
      _mm512_storeu_si512(lo + t * CV_PANEL, _mm512_permutexvar_epi16(order, rest_of_two(first, second, rounded)));
  }
}

/* 16 x 16 numbers of 32 bits: blocks of 2, 4, 8, 16 change sides in turn. */
static inline void vector_transpose(uint16_t *tile) {
  __m512i x[CV_PANEL], y[CV_PANEL];
  for (int64_t i = 0; i < 16; i++) x[i] = _mm512_loadu_si512(tile + i * CV_DEPTH);
  for (int64_t i = 0; i < 16; i += 2) {
    y[i] = _mm512_unpacklo_epi32(x[i], x[i + 1]);
    y[i + 1] = _mm512_unpackhi_epi32(x[i], x[i + 1]);
  }
  for (int64_t i = 0; i < 16; i += 4) {
    x[i] = _mm512_unpacklo_epi64(y[i], y[i + 2]);
    x[i + 1] = _mm512_unpackhi_epi64(y[i], y[i + 2]);
    x[i + 2] = _mm512_unpacklo_epi64(y[i + 1], y[i + 3]);
    x[i + 3] = _mm512_unpackhi_epi64(y[i + 1], y[i + 3]);
  }
  for (int64_t i = 0; i < 4; i++) { /* x[4 g + i]: of rows 4 g .. 4 g + 3 columns i, 4 + i, 8 + i, 12 + i */
    y[i] = _mm512_shuffle_i32x4(x[i], x[i + 4], 0x88);
    y[i + 4] = _mm512_shuffle_i32x4(x[i], x[i + 4], 0xdd);
    y[i + 8] = _mm512_shuffle_i32x4(x[i + 8], x[i + 12], 0x88);
    y[i + 12] = _mm512_shuffle_i32x4(x[i + 8], x[i + 12], 0xdd);
  }
  for (int64_t i = 0; i < 4; i++) {
    _mm512_storeu_si512(tile + i * CV_DEPTH, _mm512_shuffle_i32x4(y[i], y[i + 8], 0x88));
    _mm512_storeu_si512(tile + (i + 8) * CV_DEPTH, _mm512_shuffle_i32x4(y[i], y[i + 8], 0xdd));
    _mm512_storeu_si512(tile + (i + 4) * CV_DEPTH, _mm512_shuffle_i32x4(y[i + 4], y[i + 12], 0x88));
    _mm512_storeu_si512(tile + (i + 12) * CV_DEPTH, _mm512_shuffle_i32x4(y[i + 4], y[i + 12], 0xdd));
  }
}

#endif
