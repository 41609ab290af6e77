#include "product/gemm.h"

#include <cblas.h>

static CBLAS_TRANSPOSE cblas_trans(cv_trans trans) {
  return trans == CV_T ? CblasTrans : CblasNoTrans;
}

bool cv_dense_fits(int64_t n) {
  return n >= 0 && n <= CV_DENSE_MAX;
}

void cv_gemm(cv_trans trans_a, cv_trans trans_b, int64_t m, int64_t n, int64_t k, float alpha, const float *A,
             int64_t lda, const float *B, int64_t ldb, float beta, float *C, int64_t ldc) {
  cblas_sgemm(CblasRowMajor, cblas_trans(trans_a), cblas_trans(trans_b), cv_narrow(m), cv_narrow(n), cv_narrow(k),
              alpha, A, cv_narrow(lda), B, cv_narrow(ldb), beta, C, cv_narrow(ldc));
}

void cv_gram_columns(int64_t n, int64_t rows, float alpha, const float *X, int64_t ldx, float beta, float *C,
                     int64_t ldc) {
  cblas_ssyrk(CblasRowMajor, CblasLower, CblasTrans, cv_narrow(n), cv_narrow(rows), alpha, X, cv_narrow(ldx), beta, C,
              cv_narrow(ldc));
}
