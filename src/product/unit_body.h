/* The portable functions of unit.h. Each unit without instructions of its own is these, translated for its processor
 * (CMakeLists.txt has the flags), so they are static. */
#ifndef CV_PRODUCT_UNIT_BODY_H
#define CV_PRODUCT_UNIT_BODY_H

#include "product/unit.h"

#include <string.h>

enum { BODY_STRIP = 4, PAIRS = CV_DEPTH / 2 };

/* hi[0 .. count) and lo of x */
static inline void split(int64_t count, const float *restrict x, uint16_t *restrict hi, uint16_t *restrict lo) {
  for (int64_t t = 0; t < count; t++) hi[t] = cv_round_bf16(x[t]);
  for (int64_t t = 0; lo && t < count; t++) lo[t] = cv_round_bf16(x[t] - cv_widen_bf16(hi[t]));
}

static inline void portable_tile_rows(int64_t count, int64_t depth, const float *X, int64_t ldx, uint16_t *hi,
                                      uint16_t *lo) {
  if (count < CV_PANEL || depth < CV_DEPTH) {
    memset(hi, 0, CV_TILE * sizeof *hi);
    if (lo) memset(lo, 0, CV_TILE * sizeof *lo);
  }
  for (int64_t i = 0; i < count; i++) split(depth, X + i * ldx, hi + i * CV_DEPTH, lo ? lo + i * CV_DEPTH : NULL);
}

/* As 16 rows of 32-bit pairs; the lower address comes first in both layouts. */
static inline void portable_transpose(uint16_t *tile) {
  uint16_t from[CV_TILE];
  memcpy(from, tile, sizeof from);
  for (int64_t i = 0; i < CV_PANEL; i++)
    for (int64_t p = 0; p < PAIRS; p++)
      memcpy(tile + (p * CV_PANEL + i) * 2, from + (i * PAIRS + p) * 2, 2 * sizeof *tile);
}

static inline void interleave(uint16_t *tile) {
  uint16_t from[CV_TILE]; /* (32, 16) */
  memcpy(from, tile, sizeof from);
  for (int64_t t = 0; t < CV_DEPTH; t++)
    for (int64_t j = 0; j < CV_PANEL; j++) tile[(t / 2 * CV_PANEL + j) * 2 + t % 2] = from[t * CV_PANEL + j];
}

static inline void portable_tile_pairs(int64_t depth, int64_t count, const float *X, int64_t ldx, uint16_t *hi,
                                       uint16_t *lo) {
  if (count < CV_PANEL || depth < CV_DEPTH) {
    memset(hi, 0, CV_TILE * sizeof *hi);
    if (lo) memset(lo, 0, CV_TILE * sizeof *lo);
  }
  for (int64_t t = 0; t < depth; t++) split(count, X + t * ldx, hi + t * CV_PANEL, lo ? lo + t * CV_PANEL : NULL);
  interleave(hi);
  if (lo) interleave(lo);
}

static inline void portable_nothing(void) {}

static inline void portable_blend(int64_t m, int64_t n, float alpha, const float *restrict C, float beta,
                                  float *restrict out, int64_t ldo) {
  for (int64_t i = 0; i < m; i++) {
    const float *restrict c = C + i * CV_SQUARE;
    float *restrict y = out + i * ldo;
    if (beta == 0) {
      for (int64_t j = 0; j < n; j++) y[j] = alpha * c[j];
    } else {
      for (int64_t j = 0; j < n; j++) y[j] = alpha * c[j] + beta * y[j];
    }
  }
}

/* C (BODY_STRIP, 16) += rows of a tile times pairs of another. */
static inline void add_strip(const uint16_t *rows, const uint16_t *pairs, float *restrict C, int64_t ldc) {
  float sum[BODY_STRIP][CV_PANEL];
  for (int64_t i = 0; i < BODY_STRIP; i++)
    for (int64_t j = 0; j < CV_PANEL; j++) sum[i][j] = C[i * ldc + j];
  for (int64_t p = 0; p < PAIRS; p++) {
    float even[CV_PANEL], odd[CV_PANEL];
    for (int64_t j = 0; j < CV_PANEL; j++) {
      even[j] = cv_widen_bf16(pairs[(p * CV_PANEL + j) * 2]);
      odd[j] = cv_widen_bf16(pairs[(p * CV_PANEL + j) * 2 + 1]);
    }
    for (int64_t i = 0; i < BODY_STRIP; i++) {
      float a = cv_widen_bf16(rows[i * CV_DEPTH + 2 * p]), b = cv_widen_bf16(rows[i * CV_DEPTH + 2 * p + 1]);
      for (int64_t j = 0; j < CV_PANEL; j++) sum[i][j] += a * even[j] + b * odd[j];
    }
  }
  for (int64_t i = 0; i < BODY_STRIP; i++)
    for (int64_t j = 0; j < CV_PANEL; j++) C[i * ldc + j] = sum[i][j];
}

static inline void add_tiles(const uint16_t *rows, int64_t rows_panel, const uint16_t *pairs, int64_t pairs_panel,
                             float *C, int64_t ldc) {
  for (int64_t i = 0; i < 2; i++)
    for (int64_t j = 0; j < 2; j++)
      for (int64_t s = 0; s < CV_PANEL; s += BODY_STRIP)
        add_strip(rows + i * rows_panel + s * CV_DEPTH, pairs + j * pairs_panel,
                  C + (i * CV_PANEL + s) * ldc + j * CV_PANEL, ldc);
}

static inline void portable_multiply(int64_t n_tiles, const cv_tiles *rows, const cv_tiles *pairs, bool is_more,
                                     float *C, int64_t ldc) {
  for (int64_t i = 0; i < CV_SQUARE && !is_more; i++) memset(C + i * ldc, 0, CV_SQUARE * sizeof *C);
  for (int64_t t = 0; t < n_tiles; t++) {
    int64_t at = t * CV_TILE;
    add_tiles(rows->hi + at, rows->panel, pairs->hi + at, pairs->panel, C, ldc);
    if (!rows->lo || !pairs->lo) continue;
    add_tiles(rows->hi + at, rows->panel, pairs->lo + at, pairs->panel, C, ldc);
    add_tiles(rows->lo + at, rows->panel, pairs->hi + at, pairs->panel, C, ldc);
  }
}

#endif
