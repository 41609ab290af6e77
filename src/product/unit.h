/* The processor's units for products of bf16 numbers, and the layouts that they work on.
 *
 * bf16 is the upper half of an fp32 number: 8 bits of precision, so that rounding changes a number by up to 2^-8 of it,
 * and its range. A number split into two terms, hi + lo, is known to 2^-16. What is below the least normal number of
 * fp32 counts as 0.
 *
 * A tile holds 16 x 32 numbers, CV_TILE of them one after the other:
 *   rows    tile[i][t]:    16 rows of a left operand (m, k), 32 of its k
 *   pairs   tile[t/2][j][t%2]: 16 columns of a right operand (k, n), 32 of its k, which come in pairs
 * The two are transposes of each other, of 32-bit pairs. A panel is the tiles of the same 16 rows or columns along k,
 * one behind the other; two panels side by side are worked on at once, and what is not there is zero.
 *
 * To add a unit: fill a cv_unit in unit_<name>.c, declare it here, name it in unit.c. Every unit passes
 * tests/unit/test_unit.c, which compares it with the portable one. */
#ifndef CV_PRODUCT_UNIT_H
#define CV_PRODUCT_UNIT_H

#include "base/status.h"
#include "product/bf16.h"

#include <stdbool.h>
#include <stdint.h>

enum { CV_PANEL = 16, CV_DEPTH = 32, CV_TILE = CV_PANEL * CV_DEPTH, CV_SQUARE = 2 * CV_PANEL };

/* Where an operand's tiles lie: two panels of it, each term of them. lo NULL: one term. */
typedef struct cv_tiles {
  const uint16_t *hi, *lo;
  int64_t panel; /* numbers from a panel to the next */
} cv_tiles;

typedef struct cv_unit {
  const char *name;
  bool (*is_there)(void); /* in this processor, and the kernel lets us; costs a system call */

  /* tile (rows) of X (count <= 16, depth <= 32), rows ldx apart; lo may be NULL; count may be 0. */
  void (*tile_rows)(int64_t count, int64_t depth, const float *X, int64_t ldx, uint16_t *hi, uint16_t *lo);
  /* tile (pairs) of X (depth <= 32, count <= 16), rows ldx apart; lo may be NULL. */
  void (*tile_pairs)(int64_t depth, int64_t count, const float *X, int64_t ldx, uint16_t *hi, uint16_t *lo);
  /* One layout of a tile into the other, in place. */
  void (*transpose)(uint16_t *tile);

  /* A thread's state around any number of the next calls. */
  void (*begin)(void);
  void (*end)(void);
  /* C (32, 32), rows ldc apart, = two panels of rows times two panels of pairs, n_tiles of each: hi hi, and where both
   * have lo, + hi lo + lo hi; with is_more added to C. Sums are fp32. */
  void (*multiply)(int64_t n_tiles, const cv_tiles *rows, const cv_tiles *pairs, bool is_more, float *C, int64_t ldc);
  /* out (m, n) = alpha C + beta out, m and n up to 32, rows of C 32 apart; beta 0 does not read out. */
  void (*blend)(int64_t m, int64_t n, float alpha, const float *C, float beta, float *out, int64_t ldo);
} cv_unit;

/* From the best on; NULL ends the list. */
extern const cv_unit *const cv_units[];

/* "auto": the best one that is there. OPTION: no such unit, or this machine has none; the sentence says which there
 * are. */
curvd_status cv_unit_find(const char *name, const cv_unit **unit, cv_error *err);

/* "amx, avx512-bf16, ...": those that are there. */
void cv_unit_list(int64_t size, char *text);

/* The words of cv_unit_find, for tables of options. */
#define CV_UNIT_NAMES "auto|amx|avx512-bf16|avx512|avx2|portable"

extern const cv_unit cv_unit_amx, cv_unit_avx512_bf16, cv_unit_avx512, cv_unit_avx2, cv_unit_portable;

#endif
