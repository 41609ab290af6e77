/* fp32 products by BLAS. Everything is row-major. Sizes are 64-bit and narrowed at this border; the plan has checked
 * that they fit (cv_dense_fits). */
#ifndef CV_PRODUCT_GEMM_H
#define CV_PRODUCT_GEMM_H

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>

typedef enum cv_trans { CV_N, CV_T } cv_trans;

/* Rows and leading dimensions up to here are safe in every kernel below. */
#define CV_DENSE_MAX ((int64_t)1 << 30)
bool cv_dense_fits(int64_t n);

/* The one narrowing cast; the plan has refused larger sizes, so a violation is our own mistake. */
static inline int cv_narrow(int64_t x) {
  assert(x >= 0 && x <= INT32_MAX);
  return (int)x;
}

/* C (m, n) = alpha op(A) op(B) + beta C; op(A) is (m, k), op(B) is (k, n). */
void cv_gemm(cv_trans trans_a, cv_trans trans_b, int64_t m, int64_t n, int64_t k, float alpha, const float *A,
             int64_t lda, const float *B, int64_t ldb, float beta, float *C, int64_t ldc);

/* Lower triangle of C (n, n) = alpha X^T X + beta C; X is (rows, n). */
void cv_gram_columns(int64_t n, int64_t rows, float alpha, const float *X, int64_t ldx, float beta, float *C,
                     int64_t ldc);

#endif
