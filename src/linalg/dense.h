/* Dense kernels: with product/gemm.h the only place that calls BLAS and LAPACK. Everything is row-major; a row-major
 * (rows, n) buffer is LAPACK's column-major (n, rows). */
#ifndef CV_LINALG_DENSE_H
#define CV_LINALG_DENSE_H

#include "base/status.h"
#include "product/gemm.h"

#include <stdbool.h>
#include <stdint.h>

/* Padded row length: a multiple of 16 floats and never of 512, which would map every row to the same cache sets. */
int64_t cv_dense_ld(int64_t n);

/* cv_gemm in fp64, for small matrices. */
void cv_gemm_f64(cv_trans trans_a, cv_trans trans_b, int64_t m, int64_t n, int64_t k, double alpha, const double *A,
                 int64_t lda, const double *B, int64_t ldb, double beta, double *C, int64_t ldc);

/* y (n) += alpha * column sums of X (rows, n). */
void cv_column_sums(int64_t rows, int64_t n, float alpha, const float *X, int64_t ldx, float *y);

/* C (k, k) = X X^T in fp64 from fp32 rows, both triangles; X (k, n). block: scratch of cv_gram_rows_scratch(k) doubles.
 */
int64_t cv_gram_rows_scratch(int64_t k);
void cv_gram_rows(int64_t k, int64_t n, const float *X, int64_t ldx, double *C, double *block);

/* Lower triangle of C (k, k) = X Y^T; X and Y (k, n). For products that are symmetric, at little more than half the
 * cost; entries above the diagonal are left holding anything. */
void cv_symmetric_product(int64_t k, int64_t n, const float *X, int64_t ldx, const float *Y, int64_t ldy, float *C,
                          int64_t ldc);

/* Copies the lower triangle of A (n, n) to the upper one. */
void cv_mirror(int64_t n, float *A, int64_t lda);

/* out (m, n) = scale * X + keep * out; with keep 0 out may hold anything, and may be X. */
void cv_mix(int64_t m, int64_t n, float scale, const float *X, int64_t ldx, float keep, float *out, int64_t ldo);

/* out (m, n) = X. */
void cv_copy_rows(int64_t m, int64_t n, const float *X, int64_t ldx, float *out, int64_t ldo);

/* The same from fp32 to fp64, and back with rounding. */
void cv_widen_rows(int64_t m, int64_t n, const float *X, int64_t ldx, double *out, int64_t ldo);
void cv_narrow_rows(int64_t m, int64_t n, const double *X, int64_t ldx, float *out, int64_t ldo);

/* Sum of squares of X (m, n) in fp64; NaN and infinity show in the result. The second is nearly twice as fast, has a
 * relative error of up to 2e-6, and is infinite where a square is above fp32. */
double cv_sum_squares_f32(int64_t m, int64_t n, const float *X, int64_t ldx);
double cv_sum_squares(int64_t m, int64_t n, const float *X, int64_t ldx);

/* Largest |x| of x (n); one NaN makes it NaN. */
double cv_largest_magnitude(int64_t n, const double *x);

/* Sum over entries of X .* Y in fp64. */
double cv_dot(int64_t m, int64_t n, const float *X, int64_t ldx, const float *Y, int64_t ldy);

/* Eigendecomposition of symmetric A (n, n), lower triangle, in place: row i of A becomes eigenvector i, w ascending.
 * work, iwork: scratch of cv_syev_scratch(n) numbers of the type, and cv_syev_iscratch(n) ints. SIZE: n > 32766, the
 * 32-bit border of LAPACK's workspace. NUMERIC: the triangle is not finite (it is looked at first: LAPACK might not
 * return), or LAPACK's info > 0. */
enum { CV_SYEV_MAX = 32766 }; /* the workspace length, 1 + 6 n + 2 n^2, is a 32-bit int */
curvd_status cv_syev_fits(int64_t n, cv_error *err);
int64_t cv_syev_scratch(int64_t n);
int64_t cv_syev_iscratch(int64_t n);
curvd_status cv_syev_f32(int64_t n, float *A, int64_t lda, float *w, float *work, int32_t *iwork, cv_error *err);
curvd_status cv_syev_f64(int64_t n, double *A, int64_t lda, double *w, double *work, int32_t *iwork, cv_error *err);

/* Cholesky A = L L^T, lower triangle, in place. NUMERIC when A is not positive definite or not finite. */
curvd_status cv_cholesky_f64(int64_t n, double *A, int64_t lda, cv_error *err);

/* Is L (k, k) lower a Cholesky factor of a matrix with the diagonal d + shift, d being every stride-th number, to
 * rounding? A look at what a library returned: k^2 flops. */
bool cv_cholesky_matches(int64_t k, const double *L, const double *d, int64_t stride, double shift);

/* L <- L^-1, L (k, k) lower with a non-zero diagonal; what lies above it stays. */
void cv_invert_lower_f64(int64_t k, double *L);

/* C <- T C T^T, C (k, k) symmetric, both triangles; T lower. */
void cv_congruence_f64(int64_t k, const double *T, double *C);

/* X (m, k) <- X T, T (k, k) lower. */
void cv_times_lower_f64(int64_t m, int64_t k, const double *T, double *X, int64_t ldx);

/* X (k, n) <- T X, T (k, k) lower. */
void cv_lower_times(int64_t k, int64_t n, const float *T, float *X, int64_t ldx);

/* Inverse of symmetric positive definite A (n, n), lower triangle in, both triangles out. NUMERIC when not positive
 * definite or not finite. */
curvd_status cv_spd_inverse(int64_t n, float *A, int64_t lda, cv_error *err);

/* The BLAS in this process and how it was built: "OpenBLAS 0.3.21 ... SkylakeX MAX_THREADS=64". */
const char *cv_blas_name(void);

#endif
