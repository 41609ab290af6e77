/* Products of fp32 matrices whose numbers are rounded to bf16 on their way into a matrix unit, tile by tile: nothing of
 * that is stored but what the cache holds. Sums are fp32.
 *
 *   fp32     sgemm
 *   bf16     one term; the error of a product of random numbers is 2.4e-3 of its size
 *   bf16x3   each number in two terms, three products (the fourth is below rounding): 4.4e-6
 *
 * A product of m x n x k takes the unit's time for whole squares of 32 x 32 and k in steps of 32, and a pass over each
 * operand to round it. One thread. Not for what is thinner than 16: there sgemm is as fast. */
#ifndef CV_PRODUCT_MULTIPLY_H
#define CV_PRODUCT_MULTIPLY_H

#include "base/memory.h"
#include "product/gemm.h"
#include "product/unit.h"

typedef enum cv_precision { CV_FP32, CV_BF16, CV_BF16X3 } cv_precision;
#define CV_PRECISION_NAMES "fp32|bf16|bf16x3"

const char *cv_precision_name(cv_precision precision);

/* Root mean square of the relative error that rounding makes of numbers of all sizes: 2^-8 / sqrt(3) times that of 1 /
 * x over [1, 2), x being log-uniform; of two terms, its square. 0 for fp32. */
double cv_precision_error(cv_precision precision);

/* How to multiply, and room to do it, which one product at a time may use. All zero: fp32. */
typedef struct cv_multiplier {
  cv_precision precision;
  const cv_unit *unit;
  uint16_t *room; /* cv_multiplier_room(precision) numbers; NULL for fp32 */
} cv_multiplier;

int64_t cv_multiplier_room(cv_precision precision);

static inline bool cv_is_fp32(const cv_multiplier *by) {
  return !by || by->precision == CV_FP32;
}

/* C (m, n) = alpha op(A) op(B) + beta C, as cv_gemm; op(A) is (m, k), op(B) is (k, n). by NULL: fp32. */
void cv_multiply(const cv_multiplier *by, cv_trans trans_a, cv_trans trans_b, int64_t m, int64_t n, int64_t k,
                 float alpha, const float *A, int64_t lda, const float *B, int64_t ldb, float beta, float *C,
                 int64_t ldc);

/* Lower triangle of C (n, n) = alpha X^T X + beta C, as cv_gram_columns; X is (rows, n). Entries above the diagonal are
 * left as they are. */
void cv_multiply_gram(const cv_multiplier *by, int64_t n, int64_t rows, float alpha, const float *X, int64_t ldx,
                      float beta, float *C, int64_t ldc);

/* A right operand that is rounded once and used often. Of fp32 it is B itself, which must stay. */
typedef struct cv_packed {
  cv_trans trans;
  int64_t k, n, ldb;
  const float *B;
  cv_tiles tiles;
} cv_packed;

/* Numbers of store; 0 for fp32. Grows with k and n. */
int64_t cv_packed_room(cv_precision precision, int64_t k, int64_t n);
cv_packed cv_pack(const cv_multiplier *by, cv_trans trans_b, int64_t k, int64_t n, const float *B, int64_t ldb,
                  uint16_t *store);

/* C (m, n) = alpha op(A) op(B) + beta C; B packed with the same precision and unit. */
void cv_multiply_packed(const cv_multiplier *by, cv_trans trans_a, int64_t m, float alpha, const float *A, int64_t lda,
                        const cv_packed *B, float beta, float *C, int64_t ldc);

/* X (m, n) <- X as the precision's first operand sees it: rounded to bf16 for CV_BF16, as it is for the others. */
void cv_round_rows(const cv_multiplier *by, int64_t m, int64_t n, float *X, int64_t ldx);

#endif
