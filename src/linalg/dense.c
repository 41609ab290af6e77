#include "linalg/dense.h"

#include <cblas.h>
#include <math.h>
#include <stddef.h>
#include <string.h>

/* LAPACK's Fortran symbols: Debian's OpenBLAS has no LAPACKE. String lengths trail as size_t (gfortran's ABI). */
void ssyevd_(const char *jobz, const char *uplo, const int *n, float *a, const int *lda, float *w, float *work,
             const int *lwork, int *iwork, const int *liwork, int *info, size_t, size_t);
void dsyevd_(const char *jobz, const char *uplo, const int *n, double *a, const int *lda, double *w, double *work,
             const int *lwork, int *iwork, const int *liwork, int *info, size_t, size_t);
void spotrf_(const char *uplo, const int *n, float *a, const int *lda, int *info, size_t);
void dpotrf_(const char *uplo, const int *n, double *a, const int *lda, int *info, size_t);
void dtrtri_(const char *uplo, const char *diag, const int *n, double *a, const int *lda, int *info, size_t, size_t);
void spotri_(const char *uplo, const int *n, float *a, const int *lda, int *info, size_t);

enum {
  WIDE_BLOCK = 512, /* columns converted to fp64 at a time */
  STRIP = 96,       /* rows of a symmetric product at a time */
  MIRROR_BLOCK = 32,
  SUM_CHUNK = 512,
  SUM_LANES = 32
};

static CBLAS_TRANSPOSE cblas_trans(cv_trans trans) {
  return trans == CV_T ? CblasTrans : CblasNoTrans;
}

int64_t cv_dense_ld(int64_t n) {
  int64_t ld = n > 0 ? (n + 15) / 16 * 16 : 16; /* BLAS refuses 0 even where there is nothing */
  return ld % 512 == 0 ? ld + 16 : ld;
}

void cv_gemm_f64(cv_trans trans_a, cv_trans trans_b, int64_t m, int64_t n, int64_t k, double alpha, const double *A,
                 int64_t lda, const double *B, int64_t ldb, double beta, double *C, int64_t ldc) {
  cblas_dgemm(CblasRowMajor, cblas_trans(trans_a), cblas_trans(trans_b), cv_narrow(m), cv_narrow(n), cv_narrow(k),
              alpha, A, cv_narrow(lda), B, cv_narrow(ldb), beta, C, cv_narrow(ldc));
}

void cv_column_sums(int64_t rows, int64_t n, float alpha, const float *X, int64_t ldx, float *y) {
  for (int64_t i = 0; i < rows; i++) {
    for (int64_t j = 0; j < n; j++) y[j] += alpha * X[i * ldx + j];
  }
}

void cv_copy_rows(int64_t m, int64_t n, const float *X, int64_t ldx, float *out, int64_t ldo) {
  for (int64_t i = 0; i < m; i++) memcpy(out + i * ldo, X + i * ldx, (size_t)n * sizeof *out);
}

void cv_widen_rows(int64_t m, int64_t n, const float *X, int64_t ldx, double *out, int64_t ldo) {
  for (int64_t i = 0; i < m; i++) {
    for (int64_t j = 0; j < n; j++) out[i * ldo + j] = X[i * ldx + j];
  }
}

void cv_narrow_rows(int64_t m, int64_t n, const double *X, int64_t ldx, float *out, int64_t ldo) {
  for (int64_t i = 0; i < m; i++) {
    for (int64_t j = 0; j < n; j++) out[i * ldo + j] = (float)X[i * ldx + j];
  }
}

int64_t cv_gram_rows_scratch(int64_t k) {
  return k * WIDE_BLOCK;
}

void cv_gram_rows(int64_t k, int64_t n, const float *X, int64_t ldx, double *C, double *block) {
  int kk = cv_narrow(k);
  if (n == 0) memset(C, 0, (size_t)(k * k) * sizeof *C);
  for (int64_t j = 0; j < n; j += WIDE_BLOCK) {
    int64_t cols = n - j < WIDE_BLOCK ? n - j : WIDE_BLOCK;
    cv_widen_rows(k, cols, X + j, ldx, block, WIDE_BLOCK);
    cblas_dsyrk(CblasRowMajor, CblasLower, CblasNoTrans, kk, cv_narrow(cols), 1, block, WIDE_BLOCK, j ? 1 : 0, C, kk);
  }
  for (int64_t i = 0; i < k; i++) {
    for (int64_t j = 0; j < i; j++) C[j * k + i] = C[i * k + j];
  }
}

void cv_symmetric_product(int64_t k, int64_t n, const float *X, int64_t ldx, const float *Y, int64_t ldy, float *C,
                          int64_t ldc) {
  for (int64_t i = 0; i < k; i += STRIP) {
    int64_t rows = k - i < STRIP ? k - i : STRIP;
    cv_gemm(CV_N, CV_T, rows, i + rows, n, 1, X + i * ldx, ldx, Y, ldy, 0, C + i * ldc, ldc);
  }
}

void cv_mirror(int64_t n, float *A, int64_t lda) {
  for (int64_t ib = 0; ib < n; ib += MIRROR_BLOCK) {
    int64_t i_end = ib + MIRROR_BLOCK < n ? ib + MIRROR_BLOCK : n;
    for (int64_t jb = 0; jb <= ib; jb += MIRROR_BLOCK) {
      for (int64_t i = ib; i < i_end; i++) {
        int64_t j_end = jb + MIRROR_BLOCK < i ? jb + MIRROR_BLOCK : i;
        for (int64_t j = jb; j < j_end; j++) A[j * lda + i] = A[i * lda + j];
      }
    }
  }
}

void cv_mix(int64_t m, int64_t n, float scale, const float *X, int64_t ldx, float keep, float *out, int64_t ldo) {
  for (int64_t i = 0; i < m; i++) {
    const float *x = X + i * ldx;
    float *y = out + i * ldo;
    if (keep == 0) { /* not 0 * y: that would keep a NaN */
      for (int64_t j = 0; j < n; j++) y[j] = scale * x[j];
    } else {
      for (int64_t j = 0; j < n; j++) y[j] = scale * x[j] + keep * y[j];
    }
  }
}

/* Sixteen partial sums in fp64, so that the compiler may use vectors without reordering anything itself. */
static double dot_row(int64_t n, const float *x, const float *y) {
  double sum[16] = {0};
  int64_t j = 0;
  for (; j + 16 <= n; j += 16) {
    for (int l = 0; l < 16; l++) sum[l] += (double)x[j + l] * (double)y[j + l];
  }
  for (; j < n; j++) sum[j % 16] += (double)x[j] * (double)y[j];
  double total = 0;
  for (int l = 0; l < 16; l++) total += sum[l];
  return total;
}

double cv_dot(int64_t m, int64_t n, const float *X, int64_t ldx, const float *Y, int64_t ldy) {
  double total = 0;
  for (int64_t i = 0; i < m; i++) total += dot_row(n, X + i * ldx, Y + i * ldy);
  return total;
}

double cv_sum_squares(int64_t m, int64_t n, const float *X, int64_t ldx) {
  return cv_dot(m, n, X, ldx, X, ldx);
}

/* Chains of SUM_CHUNK / SUM_LANES fp32 sums, then fp64, lane by lane: lanes meet once, at the end. */
static void squares_row_f32(int64_t n, const float *x, double total[SUM_LANES]) {
  for (int64_t chunk = 0; chunk < n; chunk += SUM_CHUNK) {
    int64_t end = n - chunk < SUM_CHUNK ? n : chunk + SUM_CHUNK, j = chunk;
    float sum[SUM_LANES] = {0};
    for (; j + SUM_LANES <= end; j += SUM_LANES) {
      for (int l = 0; l < SUM_LANES; l++) sum[l] += x[j + l] * x[j + l];
    }
    for (int l = 0; j < end; j++, l++) sum[l] += x[j] * x[j];
    for (int l = 0; l < SUM_LANES; l++) total[l] += sum[l];
  }
}

double cv_sum_squares_f32(int64_t m, int64_t n, const float *X, int64_t ldx) {
  double total[SUM_LANES] = {0}, all = 0;
  for (int64_t i = 0; i < m; i++) squares_row_f32(n, X + i * ldx, total);
  for (int l = 0; l < SUM_LANES; l++) all += total[l];
  return all;
}

double cv_largest_magnitude(int64_t n, const double *x) {
  double largest = 0;
  for (int64_t i = 0; i < n; i++) {
    if (isnan(x[i])) return x[i];
    largest = fmax(largest, fabs(x[i]));
  }
  return largest;
}

int64_t cv_syev_scratch(int64_t n) {
  return 1 + 6 * n + 2 * n * n;
}
int64_t cv_syev_iscratch(int64_t n) {
  return 3 + 5 * n;
}

curvd_status cv_syev_fits(int64_t n, cv_error *err) {
  if (n <= CV_SYEV_MAX) return CURVD_OK;
  return cv_fail(err, CURVD_ERR_SIZE,
                 "the exact eigensolver takes at most n = %d on one rank, not %lld: use a randomized method",
                 CV_SYEV_MAX, (long long)n);
}

/* zero: sum of x - x over the entries that the solver reads. With infinity or NaN among them LAPACK might not return.
 */
static curvd_status check_syev_finite(int64_t n, double zero, cv_error *err) {
  if (zero == 0) return CURVD_OK;
  return cv_fail(err, CURVD_ERR_NUMERIC, "a %lld x %lld matrix is not finite", (long long)n, (long long)n);
}

static curvd_status check_syev_info(int64_t n, int info, cv_error *err) {
  if (info == 0) return CURVD_OK;
  return cv_fail(err, CURVD_ERR_NUMERIC, "syevd of a %lld x %lld matrix returned info %d", (long long)n, (long long)n,
                 info);
}

/* Column-major 'U' is our row-major lower triangle; LAPACK's eigenvector columns are our rows. */
curvd_status cv_syev_f32(int64_t n, float *A, int64_t lda, float *w, float *work, int32_t *iwork, cv_error *err) {
  CV_TRY(cv_syev_fits(n, err));
  int nn = cv_narrow(n), ld = cv_narrow(lda), lwork = cv_narrow(cv_syev_scratch(n)),
      liwork = cv_narrow(cv_syev_iscratch(n)), info = 0;
  float zero = 0;
  for (int64_t i = 0; i < n; i++) {
    for (int64_t j = 0; j <= i; j++) zero += A[i * lda + j] - A[i * lda + j];
  }
  CV_TRY(check_syev_finite(n, zero, err));
  ssyevd_("V", "U", &nn, A, &ld, w, work, &lwork, iwork, &liwork, &info, 1, 1);
  return check_syev_info(n, info, err);
}

curvd_status cv_syev_f64(int64_t n, double *A, int64_t lda, double *w, double *work, int32_t *iwork, cv_error *err) {
  CV_TRY(cv_syev_fits(n, err));
  int nn = cv_narrow(n), ld = cv_narrow(lda), lwork = cv_narrow(cv_syev_scratch(n)),
      liwork = cv_narrow(cv_syev_iscratch(n)), info = 0;
  double zero = 0;
  for (int64_t i = 0; i < n; i++) {
    for (int64_t j = 0; j <= i; j++) zero += A[i * lda + j] - A[i * lda + j];
  }
  CV_TRY(check_syev_finite(n, zero, err));
  dsyevd_("V", "U", &nn, A, &ld, w, work, &lwork, iwork, &liwork, &info, 1, 1);
  return check_syev_info(n, info, err);
}

static curvd_status check_definite(int64_t n, int info, double diagonal_sum, cv_error *err) {
  if (info == 0 && isfinite(diagonal_sum)) return CURVD_OK;
  if (info == 0)
    return cv_fail(err, CURVD_ERR_NUMERIC, "a %lld x %lld matrix is not finite", (long long)n, (long long)n);
  return cv_fail(err, CURVD_ERR_NUMERIC, "a %lld x %lld matrix is not positive definite (pivot %d)", (long long)n,
                 (long long)n, info);
}

/* OpenBLAS' potrf lets NaN pass with info 0, but no NaN or infinity of the matrix misses the diagonal of the factor. */
curvd_status cv_cholesky_f64(int64_t n, double *A, int64_t lda, cv_error *err) {
  int nn = cv_narrow(n), ld = cv_narrow(lda), info = 0;
  dpotrf_("U", &nn, A, &ld, &info, 1);
  double sum = 0;
  for (int64_t i = 0; i < n; i++) sum += A[i * lda + i];
  return check_definite(n, info, sum, err);
}

bool cv_cholesky_matches(int64_t k, const double *L, const double *d, int64_t stride, double shift) {
  bool matches = true;
  for (int64_t i = 0; i < k && matches; i++) {
    double sum = 0;
    for (int64_t j = 0; j <= i; j++) sum += L[i * k + j] * L[i * k + j];
    matches = fabs(sum - d[i * stride] - shift) <= 1e-12 * (double)k * sum;
  }
  return matches;
}

void cv_invert_lower_f64(int64_t k, double *L) {
  int kk = cv_narrow(k), info = 0;
  dtrtri_("U", "N", &kk, L, &kk, &info, 1, 1);
}

void cv_congruence_f64(int64_t k, const double *T, double *C) {
  int kk = cv_narrow(k);
  cblas_dtrmm(CblasRowMajor, CblasLeft, CblasLower, CblasNoTrans, CblasNonUnit, kk, kk, 1, T, kk, C, kk);
  cblas_dtrmm(CblasRowMajor, CblasRight, CblasLower, CblasTrans, CblasNonUnit, kk, kk, 1, T, kk, C, kk);
}

void cv_times_lower_f64(int64_t m, int64_t k, const double *T, double *X, int64_t ldx) {
  cblas_dtrmm(CblasRowMajor, CblasRight, CblasLower, CblasNoTrans, CblasNonUnit, cv_narrow(m), cv_narrow(k), 1, T,
              cv_narrow(k), X, cv_narrow(ldx));
}

void cv_lower_times(int64_t k, int64_t n, const float *T, float *X, int64_t ldx) {
  int kk = cv_narrow(k);
  cblas_strmm(CblasRowMajor, CblasLeft, CblasLower, CblasNoTrans, CblasNonUnit, kk, cv_narrow(n), 1, T, kk, X,
              cv_narrow(ldx));
}

curvd_status cv_spd_inverse(int64_t n, float *A, int64_t lda, cv_error *err) {
  int nn = cv_narrow(n), ld = cv_narrow(lda), info = 0;
  spotrf_("U", &nn, A, &ld, &info, 1);
  double sum = 0;
  for (int64_t i = 0; i < n; i++) sum += A[i * lda + i];
  CV_TRY(check_definite(n, info, sum, err));
  spotri_("U", &nn, A, &ld, &info, 1);
  CV_TRY(check_definite(n, info, 0, err));
  cv_mirror(n, A, lda);
  return CURVD_OK;
}

const char *cv_blas_name(void) {
  return openblas_get_config();
}
