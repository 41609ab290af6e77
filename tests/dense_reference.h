/* Dense fp64 matrices by value, as the oracle of the service's tests: plain loops, Gauss elimination, Jacobi's
 * eigensolver. Nothing of src/linalg is used. Sizes are at most DENSE_MAX. */
#ifndef TESTS_DENSE_REFERENCE_H
#define TESTS_DENSE_REFERENCE_H

#include "base/rng.h"

#include <check.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>

enum { DENSE_MAX = 64 };

typedef struct dense {
  int64_t m, n;
  double x[DENSE_MAX][DENSE_MAX];
} dense;

typedef struct dense_eigen {
  dense V;             /* (n, n): column j is eigenvector j */
  double w[DENSE_MAX]; /* descending */
} dense_eigen;

/* Check's own assertions write a file each: too slow for every operation. */
static inline void dense_require(bool holds) {
  if (!holds) ck_abort_msg("matrices that do not fit");
}

static inline dense dense_zero(int64_t m, int64_t n) {
  dense_require(m <= DENSE_MAX && n <= DENSE_MAX);
  return (dense){.m = m, .n = n};
}

static inline dense dense_identity(int64_t n) {
  dense I = dense_zero(n, n);
  for (int64_t i = 0; i < n; i++) I.x[i][i] = 1;
  return I;
}

/* Uniform in (-1, 1), rounded to fp32 so that the service sees exactly these numbers. */
static inline dense dense_random(uint64_t seed, int64_t m, int64_t n) {
  const cv_rng rng = {.seed = seed, .stream = CV_RNG_PROBE};
  dense X = dense_zero(m, n);
  for (int64_t i = 0; i < m; i++) {
    for (int64_t j = 0; j < n; j++) X.x[i][j] = (float)(2 * cv_rng_uniform(&rng, (uint64_t)(i * n + j)) - 1);
  }
  return X;
}

/* a A + b B */
static inline dense dense_sum(double a, dense A, double b, dense B) {
  dense_require(A.m == B.m && A.n == B.n);
  for (int64_t i = 0; i < A.m; i++) {
    for (int64_t j = 0; j < A.n; j++) A.x[i][j] = a * A.x[i][j] + b * B.x[i][j];
  }
  return A;
}

static inline dense dense_scaled(double a, dense A) {
  return dense_sum(a, A, 0, A);
}

static inline dense dense_shifted(dense A, double shift) {
  return dense_sum(1, A, shift, dense_identity(A.n));
}

static inline dense dense_transposed(dense A) {
  dense T = dense_zero(A.n, A.m);
  for (int64_t i = 0; i < A.m; i++) {
    for (int64_t j = 0; j < A.n; j++) T.x[j][i] = A.x[i][j];
  }
  return T;
}

static inline dense dense_product(dense A, dense B) {
  dense_require(A.n == B.m);
  dense C = dense_zero(A.m, B.n);
  for (int64_t i = 0; i < A.m; i++) {
    for (int64_t k = 0; k < A.n; k++) {
      for (int64_t j = 0; j < B.n; j++) C.x[i][j] += A.x[i][k] * B.x[k][j];
    }
  }
  return C;
}

/* A (x) B */
static inline dense dense_kronecker(dense A, dense B) {
  dense K = dense_zero(A.m * B.m, A.n * B.n);
  for (int64_t i = 0; i < K.m; i++) {
    for (int64_t j = 0; j < K.n; j++) K.x[i][j] = A.x[i / B.m][j / B.n] * B.x[i % B.m][j % B.n];
  }
  return K;
}

/* Columns one below the other, (m n, 1); and back. */
static inline dense dense_vec(dense X) {
  dense v = dense_zero(X.m * X.n, 1);
  for (int64_t i = 0; i < v.m; i++) v.x[i][0] = X.x[i % X.m][i / X.m];
  return v;
}

static inline dense dense_unvec(dense v, int64_t m) {
  dense X = dense_zero(m, v.m / m);
  for (int64_t i = 0; i < v.m; i++) X.x[i % m][i / m] = v.x[i][0];
  return X;
}

static inline double dense_trace(dense A) {
  double sum = 0;
  for (int64_t i = 0; i < A.n; i++) sum += A.x[i][i];
  return sum;
}

/* sum of X_ij Y_ij */
static inline double dense_dot(dense X, dense Y) {
  double sum = 0;
  for (int64_t i = 0; i < X.m; i++) {
    for (int64_t j = 0; j < X.n; j++) sum += X.x[i][j] * Y.x[i][j];
  }
  return sum;
}

static inline double dense_norm(dense X) {
  return sqrt(dense_dot(X, X));
}

static inline double dense_rms(dense X) {
  return dense_norm(X) / sqrt((double)(X.m * X.n));
}

/* ||X - Y|| / ||Y||; NaN when X holds one. */
static inline double dense_distance(dense X, dense Y) {
  return dense_norm(dense_sum(1, X, -1, Y)) / dense_norm(Y);
}

/* One column of Gauss elimination with row exchanges, in [M | B]. */
static inline void dense_eliminate(dense *M, dense *B, int64_t column) {
  int64_t pivot = column;
  for (int64_t i = column + 1; i < M->n; i++) {
    if (fabs(M->x[i][column]) > fabs(M->x[pivot][column])) pivot = i;
  }
  for (int64_t j = 0; j < DENSE_MAX; j++) {
    double t = M->x[column][j], u = B->x[column][j];
    M->x[column][j] = M->x[pivot][j], M->x[pivot][j] = t;
    B->x[column][j] = B->x[pivot][j], B->x[pivot][j] = u;
  }
  for (int64_t i = 0; i < M->n; i++) {
    double f = i == column ? 0 : M->x[i][column] / M->x[column][column];
    for (int64_t j = 0; j < M->n; j++) M->x[i][j] -= f * M->x[column][j];
    for (int64_t j = 0; j < B->n; j++) B->x[i][j] -= f * B->x[column][j];
  }
}

/* M^-1 B */
static inline dense dense_solve(dense M, dense B) {
  dense_require(M.m == M.n && M.n == B.m);
  for (int64_t c = 0; c < M.n; c++) dense_eliminate(&M, &B, c);
  for (int64_t i = 0; i < B.m; i++) {
    for (int64_t j = 0; j < B.n; j++) B.x[i][j] /= M.x[i][i];
  }
  return B;
}

/* Columns p and q of X, and rows when is_symmetric, turned by the angle of cosine c and sine s. */
static inline void dense_rotate(dense *X, int64_t p, int64_t q, double c, double s, bool is_symmetric) {
  for (int64_t i = 0; i < X->m; i++) {
    double x = X->x[i][p], y = X->x[i][q];
    X->x[i][p] = c * x - s * y, X->x[i][q] = s * x + c * y;
  }
  for (int64_t j = 0; is_symmetric && j < X->n; j++) {
    double x = X->x[p][j], y = X->x[q][j];
    X->x[p][j] = c * x - s * y, X->x[q][j] = s * x + c * y;
  }
}

/* One sweep of Jacobi's method; returns the sum of squares that it removed. */
static inline double dense_sweep(dense *M, dense *V) {
  double removed = 0;
  for (int64_t p = 0; p < M->n; p++) {
    for (int64_t q = p + 1; q < M->n; q++) {
      double off = M->x[p][q], theta = (M->x[q][q] - M->x[p][p]) / (2 * off);
      if (off == 0) continue;
      double t = copysign(1, theta) / (fabs(theta) + sqrt(theta * theta + 1)), c = 1 / sqrt(t * t + 1);
      dense_rotate(M, p, q, c, t * c, true);
      dense_rotate(V, p, q, c, t * c, false);
      removed += off * off;
    }
  }
  return removed;
}

static inline dense_eigen dense_eig(dense M) {
  enum { SWEEPS = 30 };
  dense V = dense_identity(M.n);
  double enough = 1e-30 * dense_dot(M, M);
  for (int i = 0; i < SWEEPS && dense_sweep(&M, &V) > enough; i++) {
  }
  dense_eigen e = {.V = dense_zero(M.n, M.n)};
  for (int64_t i = 0; i < M.n; i++) {
    int64_t place = 0;
    for (int64_t j = 0; j < M.n; j++) place += M.x[j][j] > M.x[i][i] || (M.x[j][j] == M.x[i][i] && j < i);
    e.w[place] = M.x[i][i];
    for (int64_t k = 0; k < M.n; k++) e.V.x[k][place] = V.x[k][i];
  }
  return e;
}

/* V diag(w) V^T */
static inline dense dense_composed(const dense_eigen *e) {
  dense scaled = e->V;
  for (int64_t i = 0; i < scaled.m; i++) {
    for (int64_t j = 0; j < scaled.n; j++) scaled.x[i][j] *= e->w[j];
  }
  return dense_product(scaled, dense_transposed(e->V));
}

/* (M + shift I)^-p of a symmetric positive definite matrix; p = 1 by elimination. */
static inline dense dense_inverse_power(dense M, double shift, double p) {
  if (p == 1) return dense_solve(dense_shifted(M, shift), dense_identity(M.n));
  dense_eigen e = dense_eig(M);
  for (int64_t i = 0; i < M.n; i++) e.w[i] = pow(e.w[i] + shift, -p);
  return dense_composed(&e);
}

#endif
