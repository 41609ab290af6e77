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

/* Tiles 0 .. 3 hold the sums; 4, 5 rows, 6, 7 pairs. Loads between products, as late as they may be. */
static inline void add(const uint16_t *rows, int64_t rows_panel, const uint16_t *pairs, int64_t pairs_panel) {
  _tile_loadd(4, rows, LINE);
  _tile_loadd(6, pairs, LINE);
  _tile_loadd(7, pairs + pairs_panel, LINE);
  _tile_dpbf16ps(0, 4, 6);
  _tile_dpbf16ps(1, 4, 7);
  _tile_loadd(5, rows + rows_panel, LINE);
  _tile_dpbf16ps(2, 5, 6);
  _tile_dpbf16ps(3, 5, 7);
}

static void multiply(int64_t n_tiles, const cv_tiles *rows, const cv_tiles *pairs, bool is_more, float *C,
                     int64_t ldc) {
  int64_t step = ldc * (int64_t)sizeof *C; /* bytes */
  float *below = C + CV_PANEL * ldc;
  if (is_more) {
    _tile_loadd(0, C, step);
    _tile_loadd(1, C + CV_PANEL, step);
    _tile_loadd(2, below, step);
    _tile_loadd(3, below + CV_PANEL, step);
  } else {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }
  bool is_split = rows->lo && pairs->lo;
  for (int64_t at = 0; at < n_tiles * CV_TILE; at += CV_TILE) {
    add(rows->hi + at, rows->panel, pairs->hi + at, pairs->panel);
    if (!is_split) continue;
    add(rows->hi + at, rows->panel, pairs->lo + at, pairs->panel);
    add(rows->lo + at, rows->panel, pairs->hi + at, pairs->panel);
  }
  _tile_stored(0, C, step);
  _tile_stored(1, C + CV_PANEL, step);
  _tile_stored(2, below, step);
  _tile_stored(3, below + CV_PANEL, step);
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
