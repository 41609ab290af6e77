/* Products in every precision, by every unit that this machine has, against plain fp64 loops. */
#include "linalg_reference.h"
#include "suite.h"

#include "linalg/dense.h"
#include "product/multiply.h"

#include <float.h>
#include <string.h>

enum { PAD = 3 };

static const cv_precision precisions[] = {CV_FP32, CV_BF16, CV_BF16X3};
enum { PRECISIONS = 3 };

static const int64_t sizes[][3] = {{1, 1, 1},  {2, 1, 7}, {1, 17, 2},     {33, 7, 100},   {32, 64, 256},
                                   {40, 0, 5}, {5, 6, 0}, {64, 600, 300}, {530, 33, 270}, {96, 96, 32}};
enum { SIZES = sizeof sizes / sizeof sizes[0] };

/* What rounding of both factors, and of a sum of k products, may do to sum |x y|. */
static double share(cv_precision precision, int64_t k) {
  double rounding = precision == CV_FP32 ? 0 : precision == CV_BF16 ? 0x1.02p-7 : 3 * 0x1p-16;
  return rounding + (double)(3 * k + 4) * FLT_EPSILON;
}

static float at(cv_trans trans, const float *X, int64_t ld, int64_t i, int64_t j) {
  return trans == CV_T ? X[j * ld + i] : X[i * ld + j];
}

/* X (m, n) or its transpose; what pads it is not a number. */
static float *operand(uint64_t seed, cv_trans trans, int64_t m, int64_t n, int64_t *ld) {
  int64_t rows = trans == CV_T ? n : m, cols = trans == CV_T ? m : n;
  *ld = cols + PAD;
  float *X = ref_floats(rows * *ld + 1);
  ref_fill(seed, rows, cols, X, *ld);
  return X;
}

static cv_multiplier multiplier(const cv_unit *unit, cv_precision precision) {
  cv_multiplier by = {precision, unit, ref_block(cv_multiplier_room(precision) + 1, sizeof(uint16_t))};
  return by;
}

/* What one product was, and what of it: all, its lower triangle, and whether its right operand is packed. */
typedef struct product {
  cv_trans trans_a, trans_b;
  int64_t m, n, k, lda, ldb, ldc;
  float alpha, beta;
  const float *A, *B, *before, *C;
  bool is_lower;
} product;

/* Relative Frobenius error; every number against its own bound. (An assertion that holds costs Check a microsecond.) */
static double check(const cv_multiplier *by, const product *p) {
  double error = 0, norm = 0;
  for (int64_t i = 0; i < p->m; i++) {
    for (int64_t j = 0; j < p->n; j++) {
      float c = p->C[i * p->ldc + j], before = p->before[i * p->ldc + j];
      double sum = p->beta == 0 ? 0 : p->beta * (double)before, size = fabs(sum);
      for (int64_t l = 0; l < p->k; l++) {
        double x = (double)at(p->trans_a, p->A, p->lda, i, l) * at(p->trans_b, p->B, p->ldb, l, j);
        sum += p->alpha * x, size += fabs(p->alpha * x);
      }
      bool is_above = p->is_lower && j > i; /* left alone */
      if (is_above ? c != before : !(fabs(c - sum) <= share(by->precision, p->k) * size))
        ck_abort_msg("%s %s, %d x %d x %d: (%d, %d) is %.9g, not %.9g", by->unit->name,
                     cv_precision_name(by->precision), (int)p->m, (int)p->n, (int)p->k, (int)i, (int)j, (double)c,
                     is_above ? (double)before : sum);
      if (is_above) continue;
      error += (c - sum) * (c - sum), norm += sum * sum;
    }
  }
  ref_check_padding(p->m, p->n, p->C, p->ldc);
  return norm > 0 ? sqrt(error / norm) : 0;
}

typedef enum kind { PLAIN, PACKED, GRAM } kind;

static void run(const cv_multiplier *by, kind way, const product *p, float *C) {
  if (way == PLAIN)
    cv_multiply(by, p->trans_a, p->trans_b, p->m, p->n, p->k, p->alpha, p->A, p->lda, p->B, p->ldb, p->beta, C, p->ldc);
  if (way == GRAM) cv_multiply_gram(by, p->n, p->k, p->alpha, p->B, p->ldb, p->beta, C, p->ldc);
  if (way != PACKED) return;
  uint16_t *store = ref_block(cv_packed_room(by->precision, p->k, p->n) + 1, sizeof *store);
  cv_packed B = cv_pack(by, p->trans_b, p->k, p->n, p->B, p->ldb, store);
  cv_multiply_packed(by, p->trans_a, p->m, p->alpha, p->A, p->lda, &B, p->beta, C, p->ldc);
  free(store);
}

static double check_way(const cv_multiplier *by, kind way, const int64_t size[3], int trans, float alpha, float beta) {
  product p = {.trans_a = (cv_trans)(trans / 2),
               .trans_b = (cv_trans)(trans % 2),
               .m = size[0],
               .n = size[1],
               .k = size[2],
               .alpha = alpha,
               .beta = beta,
               .is_lower = way == GRAM};
  if (way == GRAM) p.m = p.n, p.trans_a = CV_T, p.trans_b = CV_N;
  float *B = operand(2, p.trans_b, p.k, p.n, &p.ldb), *A = operand(1, p.trans_a, p.m, p.k, &p.lda);
  float *C = operand(3, CV_N, p.m, p.n, &p.ldc), *before = operand(3, CV_N, p.m, p.n, &p.ldc);
  if (beta == 0 && p.m * p.n > 0) C[0] = NAN; /* not read */
  p.A = way == GRAM ? B : A, p.B = B, p.C = C, p.before = before;
  if (way == GRAM) p.lda = p.ldb;
  run(by, way, &p, C);
  double error = check(by, &p);
  free(A);
  free(B);
  free(C);
  free(before);
  return error;
}

static void check_unit(const cv_unit *unit) {
  for (int p = 0; p < PRECISIONS; p++) {
    cv_multiplier by = multiplier(unit, precisions[p]);
    for (int s = 0; s < SIZES; s++) {
      check_way(&by, PLAIN, sizes[s], 0, 1, 0);
      check_way(&by, PACKED, sizes[s], 0, 0.5f, -1);
      check_way(&by, PLAIN, sizes[s], 1, 0.5f, -1);
      check_way(&by, PACKED, sizes[s], 1, 1, 0);
      check_way(&by, PLAIN, sizes[s], 2, 1, 1);
      check_way(&by, PACKED, sizes[s], 3, 1, 1);
      check_way(&by, GRAM, sizes[s], 0, 1, 0);
      check_way(&by, GRAM, sizes[s], 0, 0.5f, 1);
    }
    free(by.room);
  }
}

START_TEST(test_every_unit) {
  for (int u = 0; cv_units[u]; u++)
    if (cv_units[u]->is_there()) check_unit(cv_units[u]);
}
END_TEST

static cv_multiplier best(cv_precision precision) {
  const cv_unit *unit = NULL;
  ck_assert_int_eq(cv_unit_find("auto", &unit, NULL), CURVD_OK);
  return multiplier(unit, precision);
}

/* Rounding of random numbers: of both factors sqrt(2) times that of one. The measure is the one of cv_precision_error.
 */
START_TEST(test_error_is_that_of_the_precision) {
  const int64_t size[3] = {100, 120, 500};
  double error[PRECISIONS];
  for (int p = 0; p < PRECISIONS; p++) {
    cv_multiplier by = best(precisions[p]);
    error[p] = check_way(&by, PLAIN, size, 0, 1, 0);
    free(by.room);
  }
  ck_assert_msg(error[0] < 1e-6, "fp32 %.1e", error[0]);
  double expected = sqrt(2) * cv_precision_error(CV_BF16);
  ck_assert_msg(error[1] > 0.8 * expected && error[1] < 1.25 * expected, "bf16 %.1e, not %.1e", error[1], expected);
  expected = sqrt(3) * cv_precision_error(CV_BF16X3); /* two roundings, and lo lo */
  ck_assert_msg(error[2] > 0.5 * expected && error[2] < 1.5 * expected, "bf16x3 %.1e, not %.1e", error[2], expected);
}
END_TEST

/* More rows than the room holds at once, and a deeper sum. */
START_TEST(test_large_sizes) {
  const int64_t large[][3] = {{4400, 2, 1000}, {3, 5, 66000}};
  for (int p = 0; p < PRECISIONS; p++) {
    cv_multiplier by = best(precisions[p]);
    for (int s = 0; s < 2; s++) {
      check_way(&by, PLAIN, large[s], s, 1, 1);
      check_way(&by, PACKED, large[s], 2 - s, 1, 0);
    }
    free(by.room);
  }
}
END_TEST

START_TEST(test_nothing_finite_is_invented) {
  cv_multiplier by = best(CV_BF16X3);
  float A[2] = {INFINITY, 1}, B[2] = {1, 1}, C[4] = {0};
  cv_multiply(&by, CV_N, CV_N, 2, 2, 1, 1, A, 1, B, 2, 0, C, 2);
  ck_assert(!isfinite(C[0]) && !isfinite(C[1]));
  ck_assert(C[2] == 1 && C[3] == 1);
  free(by.room);
}
END_TEST

/* Rounded rows change no product by them. */
START_TEST(test_round_rows) {
  const int64_t m = 35, n = 70;
  for (int p = 0; p < PRECISIONS; p++) {
    cv_multiplier by = best(precisions[p]);
    int64_t ld, ldb;
    float *X = operand(1, CV_N, m, n, &ld), *before = operand(1, CV_N, m, n, &ld), *B = operand(2, CV_N, n, m, &ldb);
    float *C = ref_floats(m * m), *D = ref_floats(m * m);
    cv_multiply(&by, CV_N, CV_N, m, m, n, 1, X, ld, B, ldb, 0, C, m);
    cv_round_rows(&by, m, n, X, ld);
    cv_multiply(&by, CV_N, CV_N, m, m, n, 1, X, ld, B, ldb, 0, D, m);
    ck_assert(memcmp(C, D, (size_t)(m * m) * sizeof *C) == 0);
    bool is_changed = false;
    for (int64_t i = 0; i < m * n; i++) is_changed |= X[i / n * ld + i % n] != before[i / n * ld + i % n];
    ck_assert(is_changed == (precisions[p] == CV_BF16));
    ref_check_padding(m, n, X, ld);
    free(X);
    free(before);
    free(B);
    free(C);
    free(D);
    free(by.room);
  }
}
END_TEST

int main(void) {
  const TTest *tests[] = {test_every_unit, test_error_is_that_of_the_precision, test_large_sizes,
                          test_nothing_finite_is_invented, test_round_rows};
  return suite_run("multiply", tests, sizeof tests / sizeof tests[0], NULL);
}
