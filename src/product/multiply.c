/* Blocks as of Goto and van de Geijn (TOMS 2008): the left operand is rounded once, as many rows of it as the room
 * holds; of the right one a block of DEPTH x COLUMNS at a time stays in the second cache, and a panel pair of it in the
 * first, while squares of C are made with it. */
#include "product/multiply.h"

#include "base/order.h"

#include <stddef.h>

enum {
  DEPTH = 256,
  COLUMNS = 512,
  ROWS = 512,          /* of the left operand that stay in the second cache */
  LEFT_ROOM = 4 << 20, /* numbers */
  RIGHT_ROOM = DEPTH * COLUMNS,
  LEFT_DEPTH = 64 * 1024, /* most k at once, so that the room holds some rows */
};

/* Stands for one operand: op(X) is (m, k) on the left and (k, n) on the right. */
typedef struct operand {
  bool is_left;
  cv_trans trans;
  const float *X;
  int64_t ld;
} operand;

/* op(X) has k side by side in memory. */
static bool lies_along(const operand *x) {
  return x->is_left == (x->trans == CV_N);
}

const char *cv_precision_name(cv_precision precision) {
  static const char *const names[] = {[CV_FP32] = "fp32", [CV_BF16] = "bf16", [CV_BF16X3] = "bf16x3"};
  return names[precision];
}

double cv_precision_error(cv_precision precision) {
  const double one_term = 1.66e-3;
  return precision == CV_FP32 ? 0 : precision == CV_BF16 ? one_term : one_term * one_term;
}

static int terms_of(cv_precision precision) {
  return precision == CV_BF16X3 ? 2 : 1;
}

int64_t cv_multiplier_room(cv_precision precision) {
  return precision == CV_FP32 ? 0 : (LEFT_ROOM + RIGHT_ROOM) * (int64_t)terms_of(precision);
}

static int64_t round_up(int64_t n, int64_t step) {
  return cv_divide_up(n, step) * step;
}

/* Places for `panels` panels of depth k from store on. */
static cv_tiles tiles_at(cv_precision precision, uint16_t *store, int64_t panels, int64_t k) {
  int64_t panel = round_up(k, CV_DEPTH) * CV_PANEL;
  return (cv_tiles){.hi = store, .lo = terms_of(precision) > 1 ? store + panels * panel : NULL, .panel = panel};
}

/* ---- rounding ---- */

/* The tile of panel p, number t along k. What lies beyond the operand is 0. */
static void pack_tile(const cv_unit *unit, const operand *x, int64_t count, int64_t k, int64_t p, int64_t t,
                      const cv_tiles *to) {
  int64_t first = p * CV_PANEL, depth = cv_smaller(k - t * CV_DEPTH, CV_DEPTH), at = p * to->panel + t * CV_TILE;
  int64_t some = cv_larger(cv_smaller(count - first, CV_PANEL), 0);
  uint16_t *hi = (uint16_t *)to->hi + at, *lo = to->lo ? (uint16_t *)to->lo + at : NULL;
  const float *X =
      some == 0 ? x->X : x->X + (lies_along(x) ? first * x->ld + t * CV_DEPTH : t * CV_DEPTH * x->ld + first);
  (lies_along(x) ? unit->tile_rows : unit->tile_pairs)(lies_along(x) ? some : depth, lies_along(x) ? depth : some, X,
                                                       x->ld, hi, lo);
  if (lies_along(x) == x->is_left) return;
  unit->transpose(hi);
  if (lo) unit->transpose(lo);
}

/* Tiles of `count` rows (left) or columns (right) of depth k, in the order in which they lie in memory. */
static void pack(const cv_unit *unit, const operand *x, int64_t count, int64_t k, const cv_tiles *to) {
  int64_t panels = round_up(count, CV_SQUARE) / CV_PANEL, depths = cv_divide_up(k, CV_DEPTH);
  if (lies_along(x)) {
    for (int64_t p = 0; p < panels; p++)
      for (int64_t t = 0; t < depths; t++) pack_tile(unit, x, count, k, p, t, to);
  } else {
    for (int64_t t = 0; t < depths; t++)
      for (int64_t p = 0; p < panels; p++) pack_tile(unit, x, count, k, p, t, to);
  }
}

/* The operand from row i, depth t on (left), or from depth t, column j on (right). */
static operand part_of(const operand *x, int64_t which, int64_t t) {
  operand part = *x;
  part.X += lies_along(x) ? which * x->ld + t : t * x->ld + which;
  return part;
}

static cv_tiles tiles_from(const cv_tiles *tiles, int64_t which, int64_t t) {
  int64_t at = which / CV_PANEL * tiles->panel + t / CV_DEPTH * CV_TILE;
  return (cv_tiles){tiles->hi + at, tiles->lo ? tiles->lo + at : NULL, tiles->panel};
}

/* ---- squares ---- */

/* Where a product goes. */
typedef struct target {
  float alpha, beta;
  float *C;
  int64_t ld;
  bool is_lower; /* only the lower triangle */
} target;

/* A square of C, (m, n) at (i, j) of the whole, that is not just a sum of products. */
static void put(const cv_unit *unit, int64_t m, int64_t n, int64_t i, int64_t j, const float *square, float beta,
                const target *to) {
  float *C = to->C + i * to->ld + j;
  if (!to->is_lower || j + n <= i + 1) {
    unit->blend(m, n, to->alpha, square, beta, C, to->ld);
    return;
  }
  for (int64_t row = 0; row < m; row++) {
    int64_t some = cv_smaller(n, i + row + 1 - j);
    if (some > 0) unit->blend(1, some, to->alpha, square + row * CV_SQUARE, beta, C + row * to->ld, to->ld);
  }
}

/* Whole, and a sum of products as it comes. */
static bool is_plain(int64_t m, int64_t n, int64_t i, int64_t j, float beta, const target *to) {
  bool is_below = !to->is_lower || j + n <= i + 1;
  return m == CV_SQUARE && n == CV_SQUARE && is_below && to->alpha == 1 && (beta == 0 || beta == 1);
}

/* C at (i, j), (m, n), from tiles of one block of k. */
static void multiply_block(const cv_unit *unit, int64_t m, int64_t n, int64_t k, int64_t i, int64_t j,
                           const cv_tiles *left, const cv_tiles *right, float beta, const target *to) {
  _Alignas(64) float square[CV_SQUARE * CV_SQUARE];
  int64_t depths = cv_divide_up(k, CV_DEPTH);
  for (int64_t column = 0; column < n; column += CV_SQUARE) {
    cv_tiles pairs = tiles_from(right, column, 0);
    for (int64_t row = 0; row < m; row += CV_SQUARE) {
      int64_t high = cv_smaller(m - row, CV_SQUARE), wide = cv_smaller(n - column, CV_SQUARE);
      if (to->is_lower && i + row + high <= j + column) continue;
      cv_tiles rows = tiles_from(left, row, 0);
      if (is_plain(high, wide, i + row, j + column, beta, to)) {
        unit->multiply(depths, &rows, &pairs, beta == 1, to->C + (i + row) * to->ld + j + column, to->ld);
      } else {
        unit->multiply(depths, &rows, &pairs, false, square, CV_SQUARE);
        put(unit, high, wide, i + row, j + column, square, beta, to);
      }
    }
  }
}

/* ---- products ---- */

/* One product: operands, sizes, where it goes; packed: the right one, if it is. */
typedef struct product {
  const cv_multiplier *by;
  int64_t m, n, k;
  operand left, right;
  const cv_tiles *packed;
  target to;
} product;

/* Rows i .. i + m - 1 of C, depth t .. t + k - 1. */
static void multiply_rows(const product *p, int64_t i, int64_t m, int64_t t, int64_t k) {
  const cv_multiplier *by = p->by;
  int64_t panels = round_up(m, CV_SQUARE) / CV_PANEL;
  cv_tiles left = tiles_at(by->precision, by->room, panels, k);
  uint16_t *behind = by->room + (int64_t)LEFT_ROOM * terms_of(by->precision);
  operand rows = part_of(&p->left, i, t);
  pack(by->unit, &rows, m, k, &left);
  for (int64_t j = 0; j < p->n; j += COLUMNS) {
    int64_t wide = cv_smaller(p->n - j, COLUMNS);
    for (int64_t s = 0; s < k; s += DEPTH) {
      int64_t deep = cv_smaller(k - s, DEPTH);
      cv_tiles right = tiles_at(by->precision, behind, COLUMNS / CV_PANEL, deep);
      if (p->packed) {
        right = tiles_from(p->packed, j, t + s);
      } else {
        operand columns = part_of(&p->right, j, t + s);
        pack(by->unit, &columns, wide, deep, &right);
      }
      for (int64_t r = 0; r < m; r += ROWS) {
        cv_tiles some = tiles_from(&left, r, s);
        multiply_block(by->unit, cv_smaller(m - r, ROWS), wide, deep, i + r, j, &some, &right,
                       t + s > 0 ? 1 : p->to.beta, &p->to);
      }
    }
  }
}

/* out <- beta out, where there is nothing to multiply */
static void decay(const product *p) {
  for (int64_t i = 0; i < p->m; i++) {
    int64_t n = p->to.is_lower ? cv_smaller(i + 1, p->n) : p->n;
    float *C = p->to.C + i * p->to.ld;
    for (int64_t j = 0; j < n; j++) C[j] = p->to.beta == 0 ? 0 : p->to.beta * C[j];
  }
}

static void multiply(const product *p) {
  if (p->k == 0) decay(p);
  p->by->unit->begin();
  for (int64_t t = 0; t < p->k; t += LEFT_DEPTH) {
    int64_t deep = cv_smaller(p->k - t, LEFT_DEPTH),
            most = LEFT_ROOM / round_up(deep, CV_DEPTH) / CV_SQUARE * CV_SQUARE;
    for (int64_t i = 0; i < p->m; i += most) multiply_rows(p, i, cv_smaller(p->m - i, most), t, deep);
  }
  p->by->unit->end();
}

void cv_multiply(const cv_multiplier *by, cv_trans trans_a, cv_trans trans_b, int64_t m, int64_t n, int64_t k,
                 float alpha, const float *A, int64_t lda, const float *B, int64_t ldb, float beta, float *C,
                 int64_t ldc) {
  if (cv_is_fp32(by)) {
    cv_gemm(trans_a, trans_b, m, n, k, alpha, A, lda, B, ldb, beta, C, ldc);
    return;
  }
  multiply(
      &(product){by, m, n, k, {true, trans_a, A, lda}, {false, trans_b, B, ldb}, NULL, {alpha, beta, C, ldc, false}});
}

void cv_multiply_gram(const cv_multiplier *by, int64_t n, int64_t rows, float alpha, const float *X, int64_t ldx,
                      float beta, float *C, int64_t ldc) {
  if (cv_is_fp32(by)) {
    cv_gram_columns(n, rows, alpha, X, ldx, beta, C, ldc);
    return;
  }
  multiply(&(product){by, n, n, rows, {true, CV_T, X, ldx}, {false, CV_N, X, ldx}, NULL, {alpha, beta, C, ldc, true}});
}

/* ---- a packed operand ---- */

int64_t cv_packed_room(cv_precision precision, int64_t k, int64_t n) {
  return precision == CV_FP32 ? 0 : round_up(k, CV_DEPTH) * round_up(n, CV_SQUARE) * terms_of(precision);
}

cv_packed cv_pack(const cv_multiplier *by, cv_trans trans_b, int64_t k, int64_t n, const float *B, int64_t ldb,
                  uint16_t *store) {
  cv_packed made = {.trans = trans_b, .k = k, .n = n, .ldb = ldb, .B = B};
  if (cv_is_fp32(by)) return made;
  operand right = {false, trans_b, B, ldb};
  made.tiles = tiles_at(by->precision, store, round_up(n, CV_SQUARE) / CV_PANEL, k);
  made.B = NULL;
  pack(by->unit, &right, n, k, &made.tiles);
  return made;
}

void cv_multiply_packed(const cv_multiplier *by, cv_trans trans_a, int64_t m, float alpha, const float *A, int64_t lda,
                        const cv_packed *B, float beta, float *C, int64_t ldc) {
  if (cv_is_fp32(by)) {
    cv_gemm(trans_a, B->trans, m, B->n, B->k, alpha, A, lda, B->B, B->ldb, beta, C, ldc);
    return;
  }
  multiply(&(product){
      by, m, B->n, B->k, {true, trans_a, A, lda}, {.is_left = false}, &B->tiles, {alpha, beta, C, ldc, false}});
}

/* ---- rounding in place ---- */

void cv_round_rows(const cv_multiplier *by, int64_t m, int64_t n, float *X, int64_t ldx) {
  if (by == NULL || by->precision != CV_BF16) return;
  uint16_t tile[CV_TILE];
  for (int64_t i = 0; i < m; i += CV_PANEL) {
    int64_t rows = cv_smaller(m - i, CV_PANEL);
    for (int64_t j = 0; j < n; j += CV_DEPTH) {
      int64_t columns = cv_smaller(n - j, CV_DEPTH);
      by->unit->tile_rows(rows, columns, X + i * ldx + j, ldx, tile, NULL);
      for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < columns; c++) X[(i + r) * ldx + j + c] = cv_widen_bf16(tile[r * CV_DEPTH + c]);
    }
  }
}
