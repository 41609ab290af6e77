/* x86-64 with AVX-512 BF16 (Cooper Lake, Zen 4): vdpbf16ps, one row's pair times the pairs of 16 columns. */
#include "product/unit_vector.h"

enum { STRIP = 8 };

/* C (STRIP, 32), += rows of a panel times two panels of pairs, over n_tiles. */
static void dot_strip(int64_t n_tiles, const uint16_t *rows, const uint16_t *pairs, int64_t panel, float *C,
                      int64_t ldc) {
  __m512 left[STRIP], right[STRIP];
  for (int64_t i = 0; i < STRIP; i++) {
    left[i] = _mm512_loadu_ps(C + i * ldc);
    right[i] = _mm512_loadu_ps(C + i * ldc + CV_PANEL);
  }
  for (int64_t t = 0; t < n_tiles; t++, rows += CV_TILE, pairs += CV_TILE) {
    for (int64_t p = 0; p < PAIRS; p++) {
      __m512bh first = (__m512bh)_mm512_loadu_si512(pairs + p * CV_DEPTH);
      __m512bh second = (__m512bh)_mm512_loadu_si512(pairs + panel + p * CV_DEPTH);
      for (int64_t i = 0; i < STRIP; i++) {
        int32_t pair;
        memcpy(&pair, rows + i * CV_DEPTH + 2 * p, sizeof pair);
        __m512bh both = (__m512bh)_mm512_set1_epi32(pair);
        left[i] = _mm512_dpbf16_ps(left[i], both, first);
        right[i] = _mm512_dpbf16_ps(right[i], both, second);
      }
    }
  }
  for (int64_t i = 0; i < STRIP; i++) {
    _mm512_storeu_ps(C + i * ldc, left[i]);
    _mm512_storeu_ps(C + i * ldc + CV_PANEL, right[i]);
  }
}

static void dot(int64_t n_tiles, const uint16_t *rows, int64_t rows_panel, const uint16_t *pairs, int64_t pairs_panel,
                float *C, int64_t ldc) {
  for (int64_t s = 0; s < CV_SQUARE; s += STRIP)
    dot_strip(n_tiles, rows + s / CV_PANEL * rows_panel + s % CV_PANEL * CV_DEPTH, pairs, pairs_panel, C + s * ldc,
              ldc);
}

static void multiply(int64_t n_tiles, const cv_tiles *rows, const cv_tiles *pairs, bool is_more, float *C,
                     int64_t ldc) {
  for (int64_t i = 0; i < CV_SQUARE && !is_more; i++) memset(C + i * ldc, 0, CV_SQUARE * sizeof *C);
  dot(n_tiles, rows->hi, rows->panel, pairs->hi, pairs->panel, C, ldc);
  if (!rows->lo || !pairs->lo) return;
  dot(n_tiles, rows->hi, rows->panel, pairs->lo, pairs->panel, C, ldc);
  dot(n_tiles, rows->lo, rows->panel, pairs->hi, pairs->panel, C, ldc);
}

const cv_unit cv_unit_avx512_bf16 = {.name = "avx512-bf16",
                                     .is_there = has_avx512_bf16,
                                     .tile_rows = vector_tile_rows,
                                     .tile_pairs = vector_tile_pairs,
                                     .transpose = vector_transpose,
                                     .begin = portable_nothing,
                                     .end = portable_nothing,
                                     .multiply = multiply,
                                     .blend = portable_blend};
