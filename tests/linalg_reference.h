/* References for the tests of src/linalg: plain fp64 loops, and LAPACK's dsyevd as the oracle of eigenvalues.
 * All matrices are row-major; n is small. */
#ifndef TESTS_LINALG_REFERENCE_H
#define TESTS_LINALG_REFERENCE_H

#include "base/rng.h"

#include <check.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>

void dsyevd_(const char *jobz, const char *uplo, const int *n, double *a, const int *lda, double *w, double *work,
             const int *lwork, int *iwork, const int *liwork, int *info, size_t, size_t);

/* count zeroed fp64 or fp32 numbers; the caller frees. */
static inline void *ref_block(int64_t count, size_t size) {
  ck_assert(count > 0 && count < INT32_MAX);
  void *block = calloc((size_t)count, size);
  ck_assert_ptr_nonnull(block);
  return block;
}

static inline double *ref_doubles(int64_t count) {
  return ref_block(count, sizeof(double));
}
static inline float *ref_floats(int64_t count) {
  return ref_block(count, sizeof(float));
}

/* Uniform in (-1, 1). */
static inline double ref_random(uint64_t seed, int64_t index) {
  const cv_rng rng = {.seed = seed, .stream = CV_RNG_PROBE};
  return 2 * cv_rng_uniform(&rng, (uint64_t)index) - 1;
}

/* X (m, n), rows ld apart, with NaN in the padding: whoever reads that shows it. */
static inline void ref_fill(uint64_t seed, int64_t m, int64_t n, float *X, int64_t ld) {
  for (int64_t i = 0; i < m; i++) {
    for (int64_t j = 0; j < ld; j++) X[i * ld + j] = j < n ? (float)ref_random(seed, i * n + j) : NAN;
  }
}

static inline void ref_check_padding(int64_t m, int64_t n, const float *X, int64_t ld) {
  for (int64_t i = 0; i < m; i++) {
    for (int64_t j = n; j < ld; j++) ck_assert_msg(isnan(X[i * ld + j]), "padding of row %d was written", (int)i);
  }
}

/* C (m, n) = A B with A (m, k), B (k, n). */
static inline void ref_multiply(int64_t m, int64_t n, int64_t k, const double *A, const double *B, double *C) {
  for (int64_t i = 0; i < m * n; i++) C[i] = 0;
  for (int64_t i = 0; i < m; i++) {
    for (int64_t l = 0; l < k; l++) {
      for (int64_t j = 0; j < n; j++) C[i * n + j] += A[i * k + l] * B[l * n + j];
    }
  }
}

static inline double ref_norm(int64_t count, const double *x) {
  double sum = 0;
  for (int64_t i = 0; i < count; i++) sum += x[i] * x[i];
  return sqrt(sum);
}

/* Q (k, n): random orthonormal rows, by Gram-Schmidt done twice. */
static inline void ref_basis(uint64_t seed, int64_t k, int64_t n, double *Q) {
  for (int64_t i = 0; i < k; i++) {
    double *q = Q + i * n;
    for (int64_t j = 0; j < n; j++) q[j] = ref_random(seed, i * n + j);
    for (int64_t l = 0; l < 2 * i; l++) {
      const double *other = Q + l % i * n;
      double dot = 0;
      for (int64_t j = 0; j < n; j++) dot += q[j] * other[j];
      for (int64_t j = 0; j < n; j++) q[j] -= dot * other[j];
    }
    double norm = ref_norm(n, q);
    for (int64_t j = 0; j < n; j++) q[j] /= norm;
  }
}

/* Q (n, n): orthonormal rows, none of them sparse: cosines with random signs. Much faster than ref_basis. */
static inline void ref_cosines(uint64_t seed, int64_t n, double *Q) {
  const double pi = 3.14159265358979323846, size = sqrt(2 / (double)n);
  for (int64_t i = 0; i < n; i++) {
    for (int64_t j = 0; j < n; j++) {
      double x = i > 0 ? size * cos(pi * (double)(i * (2 * j + 1) % (4 * n)) / (double)(2 * n)) : size / sqrt(2);
      Q[i * n + j] = ref_random(seed, j) < 0 ? -x : x;
    }
  }
}

/* M (n, n) = Q^T diag(lambda) Q with Q (k, n). */
static inline void ref_compose(int64_t k, int64_t n, const double *Q, const double *lambda, double *M) {
  for (int64_t i = 0; i < n * n; i++) M[i] = 0;
  for (int64_t l = 0; l < k; l++) {
    const double *q = Q + l * n;
    for (int64_t i = 0; i < n; i++) {
      for (int64_t j = 0; j < n; j++) M[i * n + j] += lambda[l] * q[i] * q[j];
    }
  }
}

/* rows (n, n) <- eigenvectors, or with job "N" anything; w ascending. */
static inline void ref_dsyevd(const char *job, int64_t n, double *rows, double *w) {
  int nn = (int)n, lwork = (int)(1 + 6 * n + 2 * n * n), liwork = (int)(3 + 5 * n), info = 0;
  double *work = ref_doubles(lwork);
  int *iwork = ref_block(liwork, sizeof *iwork);
  dsyevd_(job, "U", &nn, rows, &nn, w, work, &lwork, iwork, &liwork, &info, 1, 1);
  ck_assert_int_eq(info, 0);
  free(iwork);
  free(work);
}

/* w (n) descending, row i of V (n, n) the eigenvector of w[i]. */
static inline void ref_eig(int64_t n, const double *M, double *V, double *w) {
  double *ascending = ref_doubles(n), *rows = ref_doubles(n * n);
  for (int64_t i = 0; i < n * n; i++) rows[i] = M[i];
  ref_dsyevd("V", n, rows, ascending);
  for (int64_t i = 0; i < n; i++) {
    w[i] = ascending[n - 1 - i];
    for (int64_t j = 0; j < n; j++) V[i * n + j] = rows[(n - 1 - i) * n + j];
  }
  free(rows);
  free(ascending);
}

/* w (n) descending. */
static inline void ref_eigenvalues(int64_t n, const double *M, double *w) {
  double *rows = ref_doubles(n * n);
  for (int64_t i = 0; i < n * n; i++) rows[i] = M[i];
  ref_dsyevd("N", n, rows, w);
  for (int64_t i = 0; i < n / 2; i++) {
    double t = w[i];
    w[i] = w[n - 1 - i], w[n - 1 - i] = t;
  }
  free(rows);
}

/* Largest entry of |Q Q^T - I|, Q (k, n) in fp32. */
static inline double ref_orthogonality(int64_t k, int64_t n, const float *Q, int64_t ld) {
  double worst = 0;
  for (int64_t i = 0; i < k; i++) {
    for (int64_t j = 0; j <= i; j++) {
      double dot = i == j ? -1 : 0;
      for (int64_t l = 0; l < n; l++) dot += (double)Q[i * ld + l] * Q[j * ld + l];
      ck_assert(isfinite(dot));
      worst = fmax(worst, fabs(dot));
    }
  }
  return worst;
}

#endif
