/* Every matrix unit that this machine has, against the portable one: layouts bit by bit, products to rounding. */
#include "linalg_reference.h"
#include "suite.h"

#include "product/unit.h"

#include <float.h>
#include <string.h>

enum { LD = 40, TILES = 3 };

/* Sizes from nothing to a whole tile, along and across. */
static const int64_t sizes[][2] = {{16, 32}, {15, 31}, {1, 1}, {16, 1}, {1, 32}, {7, 17}, {0, 32}};

static float at_edge(int i) {
  const float edges[] = {0,        -0.0f,     1,       1.00390625f, 1.01171875f, -3.0e38f, FLT_MAX,
                         INFINITY, -INFINITY, FLT_MIN, FLT_MIN / 2, 1e-45f,      NAN};
  return edges[i % (int)(sizeof edges / sizeof edges[0])];
}

static float *numbers(uint64_t seed) {
  float *x = ref_floats(LD * LD);
  ref_fill(seed, LD, LD, x, LD);
  for (int i = 0; i < LD * LD; i += 7) x[i] = at_edge(i / 7);
  return x;
}

typedef void make_tile(int64_t, int64_t, const float *, int64_t, uint16_t *, uint16_t *);

static bool is_nan(uint16_t x) {
  return (x & 0x7fff) > 0x7f80;
}

/* Which NaN it is does not matter. */
static void check_tiles(const uint16_t *x, const uint16_t *y, const char *unit, const char *what) {
  for (int i = 0; i < CV_TILE; i++)
    ck_assert_msg(x[i] == y[i] || (is_nan(x[i]) && is_nan(y[i])), "%s, %s: number %d is %04x, portable has %04x", unit,
                  what, i, x[i], y[i]);
}

static void check_layout(const cv_unit *unit, make_tile *mine, make_tile *reference, bool is_pairs) {
  float *x = numbers(1);
  for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
    uint16_t tile[4][CV_TILE];
    int64_t a = is_pairs ? sizes[s][1] : sizes[s][0], b = is_pairs ? sizes[s][0] : sizes[s][1];
    memset(tile, 0x5a, sizeof tile);
    mine(a, b, x, LD, tile[0], tile[1]);
    reference(a, b, x, LD, tile[2], tile[3]);
    check_tiles(tile[0], tile[2], unit->name, "first terms");
    check_tiles(tile[1], tile[3], unit->name, "second terms");
    memset(tile[0], 0x5a, sizeof tile[0]);
    mine(a, b, x, LD, tile[0], NULL);
    check_tiles(tile[0], tile[2], unit->name, "first terms alone");
  }
  free(x);
}

START_TEST(test_layouts) {
  for (int u = 0; cv_units[u]; u++) {
    const cv_unit *unit = cv_units[u], *portable = &cv_unit_portable;
    if (!unit->is_there()) continue;
    check_layout(unit, unit->tile_rows, portable->tile_rows, false);
    check_layout(unit, unit->tile_pairs, portable->tile_pairs, true);
  }
}
END_TEST

/* The portable rounding against arithmetic: the nearest multiple of a bf16's last place, ties to even. */
START_TEST(test_rounding) {
  float x[CV_DEPTH];
  uint16_t hi[CV_TILE], lo[CV_TILE];
  for (uint32_t round = 0; round < 4096; round++) {
    for (uint32_t t = 0; t < CV_DEPTH; t++) {
      uint32_t bits = (round * CV_DEPTH + t) * 2654435761u;
      memcpy(&x[t], &bits, sizeof bits);
    }
    cv_unit_portable.tile_rows(1, CV_DEPTH, x, CV_DEPTH, hi, lo);
    for (int t = 0; t < CV_DEPTH; t++) {
      float high = cv_widen_bf16(hi[t]), low = cv_widen_bf16(lo[t]);
      if (isnan(x[t])) {
        ck_assert(isnan(high));
      } else if (fabsf(x[t]) < FLT_MIN) {
        ck_assert(high == 0 && signbit(high) == signbit(x[t]));
      } else if (fabsf(x[t]) < 0x1.ffp127f) {
        double place = ldexp(1, ilogbf(x[t]) - 7), nearest = place * nearbyint(x[t] / place);
        ck_assert_msg((double)high == nearest, "%a became %a", (double)x[t], (double)high);
        double rest = fabs((double)x[t] - high - low);
        ck_assert_msg(rest <= fmax(ldexp(fabs((double)x[t]), -16), FLT_MIN), "%a is off by %a", (double)x[t], rest);
      }
    }
  }
}
END_TEST

START_TEST(test_transposes) {
  for (int u = 0; cv_units[u]; u++) {
    if (!cv_units[u]->is_there()) continue;
    _Alignas(64) uint16_t tile[CV_TILE];
    for (int i = 0; i < CV_TILE; i++) tile[i] = (uint16_t)i;
    cv_units[u]->transpose(tile);
    for (int i = 0; i < CV_PANEL; i++)
      for (int p = 0; p < CV_PANEL; p++)
        for (int b = 0; b < 2; b++) ck_assert_int_eq(tile[(p * CV_PANEL + i) * 2 + b], (i * CV_PANEL + p) * 2 + b);
  }
}
END_TEST

/* Two panels of TILES tiles of each kind, hi and lo: rows (32, 96) and columns (96, 32) of X. */
typedef struct operand {
  uint16_t hi[2 * TILES * CV_TILE], lo[2 * TILES * CV_TILE];
} operand;

static void fill(operand *o, bool is_pairs, const float *X, int64_t ld) {
  for (int p = 0; p < 2; p++) {
    for (int t = 0; t < TILES; t++) {
      int64_t at = (p * TILES + t) * CV_TILE;
      const float *x = is_pairs ? X + t * CV_DEPTH * ld + p * CV_PANEL : X + p * CV_PANEL * ld + t * CV_DEPTH;
      (is_pairs ? cv_unit_portable.tile_pairs : cv_unit_portable.tile_rows)(
          is_pairs ? CV_DEPTH : CV_PANEL, is_pairs ? CV_PANEL : CV_DEPTH, x, ld, o->hi + at, o->lo + at);
    }
  }
}

/* What the terms of x stand for. */
static double term(const operand *o, int terms, int64_t at) {
  return (double)cv_widen_bf16(o->hi[at]) + (terms > 1 ? (double)cv_widen_bf16(o->lo[at]) : 0);
}

static void check_product(const cv_unit *unit, int terms, bool is_more) {
  enum { K = TILES * CV_DEPTH, LDC = CV_SQUARE + 3 };
  static operand rows, pairs;
  float *A = ref_floats(CV_SQUARE * K), *B = ref_floats(K * CV_SQUARE), *C = ref_floats(CV_SQUARE * LDC);
  ref_fill(3, CV_SQUARE, K, A, K);
  ref_fill(4, K, CV_SQUARE, B, CV_SQUARE);
  fill(&rows, false, A, K);
  fill(&pairs, true, B, CV_SQUARE);
  for (int i = 0; i < CV_SQUARE * LDC; i++) C[i] = 1;
  cv_tiles left = {rows.hi, terms > 1 ? rows.lo : NULL, TILES * CV_TILE},
           right = {pairs.hi, terms > 1 ? pairs.lo : NULL, TILES * CV_TILE};
  unit->begin();
  unit->multiply(TILES, &left, &right, is_more, C, LDC);
  unit->end();
  for (int i = 0; i < CV_SQUARE; i++) {
    for (int j = 0; j < CV_SQUARE; j++) {
      double sum = is_more ? 1 : 0, size = 1;
      for (int k = 0; k < K; k++) {
        int64_t a = (i / 16 * TILES + k / 32) * CV_TILE + i % 16 * CV_DEPTH + k % 32,
                b = (j / 16 * TILES + k / 32) * CV_TILE + (k % 32 / 2 * CV_PANEL + j % 16) * 2 + k % 2;
        double x = term(&rows, terms, a), y = term(&pairs, terms, b);
        sum += x * y;
        if (terms > 1) sum -= (x - term(&rows, 1, a)) * (y - term(&pairs, 1, b)); /* lo lo is left out */
        size += fabs(x * y);
      }
      ck_assert_msg(fabs(C[i * LDC + j] - sum) <= K * FLT_EPSILON * size, "%s, %d terms: (%d, %d) is %.9g, not %.9g",
                    unit->name, terms, i, j, (double)C[i * LDC + j], sum);
    }
    for (int j = CV_SQUARE; j < LDC; j++) ck_assert(C[i * LDC + j] == 1);
  }
  free(A);
  free(B);
  free(C);
}

START_TEST(test_products) {
  for (int u = 0; cv_units[u]; u++) {
    for (int way = 0; way < 4 && cv_units[u]->is_there(); way++) check_product(cv_units[u], 1 + way / 2, way % 2);
  }
}
END_TEST

START_TEST(test_names) {
  const cv_unit *unit = NULL;
  cv_error err = {0};
  char there[128];
  ck_assert_int_eq(cv_unit_find("portable", &unit, &err), CURVD_OK);
  ck_assert_ptr_eq(unit, &cv_unit_portable);
  ck_assert_int_eq(cv_unit_find("auto", &unit, &err), CURVD_OK);
  cv_unit_list(sizeof there, there);
  ck_assert_msg(strncmp(there, unit->name, strlen(unit->name)) == 0, "auto took %s of %s", unit->name, there);
  ck_assert_ptr_nonnull(strstr(there, "portable"));
  ck_assert_int_eq(cv_unit_find("abacus", &unit, &err), CURVD_ERR_OPTION);
  ck_assert_ptr_nonnull(strstr(err.text, there));
  for (int u = 0; cv_units[u]; u++) /* the option's words */
    ck_assert_msg(strstr(CV_UNIT_NAMES, cv_units[u]->name), "%s is no word of the option", cv_units[u]->name);
}
END_TEST

int main(void) {
  const TTest *tests[] = {test_layouts, test_rounding, test_transposes, test_products, test_names};
  return suite_run("unit", tests, sizeof tests / sizeof tests[0], NULL);
}
