/* x86-64 with AMX (Sapphire Rapids): tiles of 16 x 32 bf16 numbers, 1024 operations a cycle. Four of the eight tile
 * registers hold the sums of a square, two the rows, two the pairs. Linux hands the registers out when a process asks.
 */
#include "product/unit_vector.h"

#include <sys/syscall.h>
#include <unistd.h>

enum { ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18, LINE = 64 /* bytes of a tile's row */ };

/* The operand of ldtilecfg: palette 1, 8 tiles of 16 rows of 64 bytes. */
typedef struct tile_config {
  uint8_t palette, start_row, reserved[14];
  uint16_t row_bytes[16];
  uint8_t rows[16];
} tile_config;

static const tile_config CONFIG = {
    .palette = 1,
    .row_bytes = {LINE, LINE, LINE, LINE, LINE, LINE, LINE, LINE},
    .rows = {CV_PANEL, CV_PANEL, CV_PANEL, CV_PANEL, CV_PANEL, CV_PANEL, CV_PANEL, CV_PANEL}};

static bool is_there(void) {
  unsigned a = 0, b = 0, c = 0, d = 0;
  bool has_tiles = __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d >> 22 & 1) && (d >> 24 & 1);
  return has_tiles && has_avx512_bf16() && syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
}

static void begin(void) {
  _tile_loadconfig(&CONFIG);
}

static void end(void) {
  _tile_release();
}

/* Tiles 0 .. 3 hold the sums; 4, 5 rows, 6, 7 pairs. */
static inline void load_rows(const uint16_t *rows, int64_t panel) {
  _tile_loadd(4, rows, LINE);
  _tile_loadd(5, rows + panel, LINE);
}

static inline void load_pairs(const uint16_t *pairs, int64_t panel) {
  _tile_loadd(6, pairs, LINE);
  _tile_loadd(7, pairs + panel, LINE);
}

static inline void multiply_four(void) {
  _tile_dpbf16ps(0, 4, 6);
  _tile_dpbf16ps(1, 4, 7);
  _tile_dpbf16ps(2, 5, 6);
  _tile_dpbf16ps(3, 5, 7);
}

static void multiply(int64_t n_tiles, const cv_tiles *rows, const cv_tiles *pairs, float *C) {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  bool is_split = rows->lo && pairs->lo;
  for (int64_t at = 0; at < n_tiles * CV_TILE; at += CV_TILE) {
    load_rows(rows->hi + at, rows->panel);
    load_pairs(pairs->hi + at, pairs->panel);
    multiply_four();
    if (!is_split) continue;
    load_pairs(pairs->lo + at, pairs->panel);
    multiply_four();
    load_rows(rows->lo + at, rows->panel);
    load_pairs(pairs->hi + at, pairs->panel);
    multiply_four();
  }
  _tile_stored(0, C, CV_SQUARE * sizeof *C);
  _tile_stored(1, C + CV_PANEL, CV_SQUARE * sizeof *C);
  _tile_stored(2, C + CV_PANEL * CV_SQUARE, CV_SQUARE * sizeof *C);
  _tile_stored(3, C + CV_PANEL * CV_SQUARE + CV_PANEL, CV_SQUARE * sizeof *C);
}

const cv_unit cv_unit_amx = {.name = "amx",
                             .is_there = is_there,
                             .tile_rows = vector_tile_rows,
                             .tile_pairs = vector_tile_pairs,
                             .transpose = vector_transpose,
                             .begin = begin,
                             .end = end,
                             .multiply = multiply,
                             .blend = portable_blend};
