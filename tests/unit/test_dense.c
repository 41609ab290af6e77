/* Every kernel of dense.h against plain fp64 loops, at odd sizes and padded rows. */
#include "linalg/dense.h"
#include "linalg_reference.h"
#include "suite.h"

#include <float.h>
#include <string.h>

enum { PAD = 3 };

static const int64_t sizes[][3] = {{1, 1, 1},    {2, 1, 7},    {1, 17, 2},  {17, 33, 2},
                                   {33, 7, 100}, {100, 7, 33}, {7, 100, 17}};
enum { SIZES = sizeof sizes / sizeof sizes[0] };

static float at(cv_trans trans, const float *X, int64_t ld, int64_t i, int64_t j) {
  return trans == CV_T ? X[j * ld + i] : X[i * ld + j];
}

/* X (m, n) or its transpose, with padding. */
static float *operand(uint64_t seed, cv_trans trans, int64_t m, int64_t n, int64_t *ld) {
  int64_t rows = trans == CV_T ? n : m, cols = trans == CV_T ? m : n;
  *ld = cols + PAD;
  float *X = ref_floats(rows * *ld);
  ref_fill(seed, rows, cols, X, *ld);
  return X;
}

/* |x - reference| against rounding of a sum of k products. */
static void check_near(double x, double reference, int64_t k, double eps) {
  double tolerance = eps * (double)(k + 4) * (1 + fabs(reference));
  ck_assert_msg(fabs(x - reference) <= tolerance, "%.9g is not %.9g (tolerance %.1e)", x, reference, tolerance);
}

static void check_gemm(const int64_t size[3], cv_trans trans_a, cv_trans trans_b, float alpha, float beta) {
  int64_t m = size[0], n = size[1], k = size[2], lda, ldb, ldc;
  float *A = operand(1, trans_a, m, k, &lda), *B = operand(2, trans_b, k, n, &ldb);
  float *C = operand(3, CV_N, m, n, &ldc), *before = operand(3, CV_N, m, n, &ldc);
  if (beta == 0) C[0] = NAN; /* not read */
  cv_gemm(trans_a, trans_b, m, n, k, alpha, A, lda, B, ldb, beta, C, ldc);
  for (int64_t i = 0; i < m; i++) {
    for (int64_t j = 0; j < n; j++) {
      double sum = beta * (double)before[i * ldc + j];
      for (int64_t l = 0; l < k; l++) sum += alpha * (double)at(trans_a, A, lda, i, l) * at(trans_b, B, ldb, l, j);
      check_near(C[i * ldc + j], sum, k, FLT_EPSILON);
    }
  }
  ref_check_padding(m, n, C, ldc);
  free(A);
  free(B);
  free(C);
  free(before);
}

START_TEST(test_gemm) {
  const cv_trans trans[] = {CV_N, CV_T};
  for (int s = 0; s < SIZES; s++) {
    for (int t = 0; t < 4; t++) {
      check_gemm(sizes[s], trans[t / 2], trans[t % 2], 1, 0);
      check_gemm(sizes[s], trans[t / 2], trans[t % 2], 0.5f, -1);
    }
  }
}
END_TEST

START_TEST(test_gram_columns_touches_the_lower_triangle_only) {
  for (int s = 0; s < SIZES; s++) {
    int64_t n = sizes[s][0], rows = sizes[s][2], ldx, ldc;
    float *X = operand(1, CV_N, rows, n, &ldx), *C = operand(2, CV_N, n, n, &ldc),
          *before = operand(2, CV_N, n, n, &ldc);
    cv_gram_columns(n, rows, 0.25f, X, ldx, 0.75f, C, ldc);
    for (int64_t i = 0; i < n; i++) {
      for (int64_t j = 0; j < n; j++) {
        double sum = 0.75 * before[i * ldc + j];
        for (int64_t l = 0; l < rows; l++) sum += 0.25 * X[l * ldx + i] * X[l * ldx + j];
        if (j <= i)
          check_near(C[i * ldc + j], sum, rows, FLT_EPSILON);
        else
          ck_assert(C[i * ldc + j] == before[i * ldc + j]);
      }
    }
    ref_check_padding(n, n, C, ldc);
    free(X);
    free(C);
    free(before);
  }
}
END_TEST

START_TEST(test_column_sums_are_added) {
  int64_t rows = 33, n = 17, ld;
  float *X = operand(1, CV_N, rows, n, &ld), y[17];
  for (int64_t j = 0; j < n; j++) y[j] = (float)j;
  cv_column_sums(rows, n, 0.5f, X, ld, y);
  for (int64_t j = 0; j < n; j++) {
    double sum = (double)j;
    for (int64_t i = 0; i < rows; i++) sum += 0.5 * X[i * ld + j];
    check_near(y[j], sum, 20 * rows, FLT_EPSILON);
  }
  free(X);
}
END_TEST

/* Lengths around the borders of the kernels' blocks of columns. */
static const int64_t lengths[] = {1, 2, 17, 511, 512, 513, 1100};
enum { LENGTHS = sizeof lengths / sizeof lengths[0] };

static double row_dot(int64_t n, const float *x, const float *y) {
  double sum = 0;
  for (int64_t j = 0; j < n; j++) sum += (double)x[j] * y[j];
  return sum;
}

START_TEST(test_gram_rows_is_exact_to_fp64) {
  int64_t k = 33, ld;
  double *C = ref_doubles(k * k), *block = ref_doubles(cv_gram_rows_scratch(k));
  for (int t = 0; t < LENGTHS; t++) {
    float *X = operand(1, CV_N, k, lengths[t], &ld);
    for (int64_t i = 0; i < k * k; i++) C[i] = NAN;
    cv_gram_rows(k, lengths[t], X, ld, C, block);
    for (int64_t i = 0; i < k * k; i++) {
      check_near(C[i], row_dot(lengths[t], X + i / k * ld, X + i % k * ld), lengths[t], DBL_EPSILON);
    }
    free(X);
  }
  free(C);
  free(block);
}
END_TEST

START_TEST(test_symmetric_product_gives_the_lower_triangle) {
  const int64_t ks[] = {1, 2, 33, 96, 97, 200};
  for (int t = 0; t < 6; t++) {
    int64_t k = ks[t], n = 100, ld, ldc;
    float *X = operand(1, CV_N, k, n, &ld), *Y = operand(2, CV_N, k, n, &ld), *C = operand(3, CV_N, k, k, &ldc);
    cv_symmetric_product(k, n, X, ld, Y, ld, C, ldc); /* not symmetric here: so that swapped operands show */
    for (int64_t i = 0; i < k; i++) {
      for (int64_t j = 0; j <= i; j++) check_near(C[i * ldc + j], row_dot(n, X + i * ld, Y + j * ld), n, FLT_EPSILON);
    }
    ref_check_padding(k, k, C, ldc);
    free(X);
    free(Y);
    free(C);
  }
}
END_TEST

START_TEST(test_mirror_copies_lower_to_upper) {
  const int64_t ns[] = {1, 2, 31, 32, 33, 100};
  for (int t = 0; t < 6; t++) {
    int64_t n = ns[t], ld;
    float *A = operand(1, CV_N, n, n, &ld), *before = operand(1, CV_N, n, n, &ld);
    cv_mirror(n, A, ld);
    for (int64_t i = 0; i < n; i++) {
      for (int64_t j = 0; j < n; j++) ck_assert(A[i * ld + j] == (j <= i ? before[i * ld + j] : before[j * ld + i]));
    }
    ref_check_padding(n, n, A, ld);
    free(A);
    free(before);
  }
}
END_TEST

START_TEST(test_mix) {
  const float keeps[] = {0, 1, -0.5f}, scales[] = {1, 1, 3};
  for (int t = 0; t < SIZES * 3; t++) {
    int64_t m = sizes[t / 3][0], n = sizes[t / 3][2], ld, ldo;
    float *X = operand(1, CV_N, m, n, &ld), *out = operand(2, CV_N, m, n, &ldo), *before = operand(2, CV_N, m, n, &ldo);
    if (keeps[t % 3] == 0) out[0] = NAN; /* not read */
    cv_mix(m, n, scales[t % 3], X, ld, keeps[t % 3], out, ldo);
    for (int64_t i = 0; i < m * n; i++) {
      double expected = scales[t % 3] * X[i / n * ld + i % n] + keeps[t % 3] * before[i / n * ldo + i % n];
      check_near(out[i / n * ldo + i % n], expected, 0, FLT_EPSILON);
    }
    ref_check_padding(m, n, out, ldo);
    cv_mix(m, n, 2, X, ld, 0, X, ld); /* in place */
    ck_assert(X[(m - 1) * ld + n - 1] == 2 * (float)ref_random(1, m * n - 1));
    free(X), free(out), free(before);
  }
}
END_TEST

/* Copies are exact, also from fp32 to fp64; back there is one rounding. */
START_TEST(test_rows_are_copied_to_either_precision) {
  for (int t = 0; t < SIZES; t++) {
    int64_t m = sizes[t][0], n = sizes[t][2], ld, ldo = n + 1;
    float *X = operand(1, CV_N, m, n, &ld), *copy = operand(2, CV_N, m, n, &ld), *narrow = operand(3, CV_N, m, n, &ld);
    double *wide = ref_doubles(m * ldo);
    for (int64_t i = 0; i < m; i++) wide[i * ldo + n] = 7;
    cv_copy_rows(m, n, X, ld, copy, ld);
    cv_widen_rows(m, n, X, ld, wide, ldo);
    for (int64_t i = 0; i < m * n; i++) {
      double *w = &wide[i / n * ldo + i % n];
      ck_assert(copy[i / n * ld + i % n] == X[i / n * ld + i % n] && *w == X[i / n * ld + i % n]);
      *w = ref_random(4, i);
    }
    cv_narrow_rows(m, n, wide, ldo, narrow, ld);
    for (int64_t i = 0; i < m * n; i++) ck_assert(narrow[i / n * ld + i % n] == (float)ref_random(4, i));
    for (int64_t i = 0; i < m; i++) ck_assert(wide[i * ldo + n] == 7);
    ref_check_padding(m, n, copy, ld);
    ref_check_padding(m, n, narrow, ld);
    free(X), free(copy), free(narrow), free(wide);
  }
}
END_TEST

START_TEST(test_dot_and_sum_of_squares) {
  for (int s = 0; s < SIZES; s++) {
    int64_t m = sizes[s][0], n = sizes[s][2], ld;
    float *X = operand(1, CV_N, m, n, &ld), *Y = operand(2, CV_N, m, n, &ld);
    double dot = 0, squares = 0;
    for (int64_t i = 0; i < m; i++)
      dot += row_dot(n, X + i * ld, Y + i * ld), squares += row_dot(n, X + i * ld, X + i * ld);
    check_near(cv_dot(m, n, X, ld, Y, ld), dot, m * n, DBL_EPSILON);
    check_near(cv_sum_squares(m, n, X, ld), squares, m * n, DBL_EPSILON);
    /* chains of 16 fp32 sums of rounded products */
    ck_assert(fabs(cv_sum_squares_f32(m, n, X, ld) - squares) <= 17 * FLT_EPSILON * squares);
    free(X);
    free(Y);
  }
}
END_TEST

/* The service's finite check: no entry may hide a NaN, and finite numbers may not overflow. */
START_TEST(test_sum_of_squares_shows_what_is_not_finite) {
  int64_t m = 3, n = 37, ld;
  float *X = operand(1, CV_N, m, n, &ld);
  const float bad[] = {NAN, INFINITY, -INFINITY};
  for (int64_t i = 0; i < m * n; i++) {
    float *x = X + i / n * ld + i % n, kept = *x;
    for (int b = 0; b < 3; b++) {
      *x = bad[b];
      ck_assert(!isfinite(cv_sum_squares(m, n, X, ld)));
      ck_assert(!isfinite(cv_sum_squares_f32(m, n, X, ld)));
    }
    *x = kept;
  }
  for (int64_t i = 0; i < m; i++) {
    for (int64_t j = 0; j < n; j++) X[i * ld + j] = FLT_MAX;
  }
  ck_assert(isfinite(cv_sum_squares(m, n, X, ld)));
  free(X);
}
END_TEST

/* Neither a larger nor a smaller number behind a NaN may hide it. */
START_TEST(test_largest_magnitude_shows_what_is_not_a_number) {
  enum { N = 5 };
  const double x[N] = {1, -3, 0, 2, -0.5};
  ck_assert(cv_largest_magnitude(N, x) == 3 && cv_largest_magnitude(1, x) == 1 && cv_largest_magnitude(0, x) == 0);
  for (int at = 0; at < N; at++) {
    double y[N];
    for (int i = 0; i < N; i++) y[i] = i == at ? NAN : x[i];
    ck_assert_msg(isnan(cv_largest_magnitude(N, y)), "NaN at %d is hidden", at);
    y[at] = -INFINITY;
    ck_assert(isinf(cv_largest_magnitude(N, y)));
    y[(at + 1) % N] = NAN;
    ck_assert_msg(isnan(cv_largest_magnitude(N, y)), "infinity at %d hides a NaN", at);
  }
}
END_TEST

/* M = Q^T diag(w) Q of known w, NaN in the upper triangle of what the solver gets. */
static void check_syev(int64_t n) {
  int64_t ld = n + PAD;
  double *Q = ref_doubles(n * n), *M = ref_doubles(n * n), *known = ref_doubles(n), *wide = ref_doubles(n * ld);
  double *w = ref_doubles(n), *work = ref_doubles(cv_syev_scratch(n));
  float *narrow = ref_floats(n * ld), *w32 = ref_floats(n), *work32 = ref_floats(cv_syev_scratch(n));
  int32_t *iwork = calloc((size_t)cv_syev_iscratch(n), sizeof *iwork);
  for (int64_t i = 0; i < n; i++) known[i] = (double)(i - n / 3) / (double)n; /* ascending, some negative */
  ref_basis(1, n, n, Q);
  ref_compose(n, n, Q, known, M);
  for (int64_t i = 0; i < n; i++) {
    for (int64_t j = 0; j < ld; j++) narrow[i * ld + j] = (float)(wide[i * ld + j] = j <= i ? M[i * n + j] : NAN);
  }
  ck_assert_int_eq(cv_syev_f64(n, wide, ld, w, work, iwork, NULL), CURVD_OK);
  ck_assert_int_eq(cv_syev_f32(n, narrow, ld, w32, work32, iwork, NULL), CURVD_OK);
  for (int64_t i = 0; i < n; i++) {
    ck_assert(fabs(w[i] - known[i]) < 1e-13 && fabs(w32[i] - known[i]) < 2e-6);
    double dot = 0, dot32 = 0; /* eigenvalues are simple: row i is row i of Q up to its sign */
    for (int64_t j = 0; j < n; j++) dot += wide[i * ld + j] * Q[i * n + j], dot32 += narrow[i * ld + j] * Q[i * n + j];
    ck_assert_msg(fabs(fabs(dot) - 1) < 1e-12 && fabs(fabs(dot32) - 1) < 1e-5, "row %d of %d: %g %g", (int)i, (int)n,
                  dot, dot32);
  }
  ref_check_padding(n, n, narrow, ld);
  free(Q), free(M), free(known), free(wide), free(w), free(work), free(narrow), free(w32), free(work32), free(iwork);
}

START_TEST(test_syev_finds_a_known_decomposition) {
  const int64_t ns[] = {1, 2, 17, 33, 100};
  for (int t = 0; t < 5; t++) check_syev(ns[t]);
}
END_TEST

/* LAPACK's workspace length is a 32-bit int: 1 + 6 n + 2 n^2. */
START_TEST(test_syev_refuses_what_overflows) {
  cv_error err = {0};
  ck_assert(cv_syev_scratch(32766) <= INT32_MAX && cv_syev_scratch(32767) > INT32_MAX);
  ck_assert_int_eq(cv_syev_f32(32767, NULL, 32767, NULL, NULL, NULL, &err), CURVD_ERR_SIZE);
  ck_assert_ptr_nonnull(strstr(err.text, "32767"));
  ck_assert_int_eq(cv_syev_f64((int64_t)1 << 40, NULL, 1, NULL, NULL, NULL, NULL), CURVD_ERR_SIZE);
  ck_assert_int_eq(cv_syev_fits(32766, NULL), CURVD_OK);
  ck_assert_int_eq(cv_syev_fits(32767, NULL), CURVD_ERR_SIZE);
}
END_TEST

/* Seen before LAPACK is called, which might not return: A stays as it was. */
START_TEST(test_syev_refuses_what_is_not_finite) {
  enum { N = 20 };
  const float bad[] = {NAN, INFINITY, -INFINITY};
  float A[N * N], w[N], work[1 + 6 * N + 2 * N * N];
  double wide[N * N], w64[N], work64[1 + 6 * N + 2 * N * N];
  int32_t iwork[3 + 5 * N];
  for (int t = 0; t < 3 * 3; t++) {
    int place = (const int[]){0, N * N - 1, 7 * N + 3}[t / 3];
    cv_error err = {0};
    for (int i = 0; i < N * N; i++) wide[i] = A[i] = i == place ? bad[t % 3] : (float)ref_random(1, i % N + i / N);
    ck_assert_int_eq(cv_syev_f32(N, A, N, w, work, iwork, &err), CURVD_ERR_NUMERIC);
    ck_assert_ptr_nonnull(strstr(err.text, "not finite"));
    ck_assert_int_eq(cv_syev_f64(N, wide, N, w64, work64, iwork, NULL), CURVD_ERR_NUMERIC);
    ck_assert(A[1 * N] == (float)ref_random(1, 1) && wide[1 * N] == A[1 * N]);
  }
}
END_TEST

/* A = X X^T / k + I in the lower triangle, NaN above. */
static double *definite(int64_t n) {
  double *A = ref_doubles(n * n);
  for (int64_t i = 0; i < n; i++) {
    for (int64_t j = 0; j < n; j++) {
      double sum = i == j;
      for (int64_t l = 0; l < n; l++) sum += ref_random(5, i * n + l) * ref_random(5, j * n + l) / (double)n;
      A[i * n + j] = j <= i ? sum : NAN;
    }
  }
  return A;
}

/* L (n, n) lower with NaN above, its diagonal from 1 to 2. */
static double *lower(int64_t n) {
  double *L = ref_doubles(n * n);
  for (int64_t i = 0; i < n * n; i++) {
    int64_t row = i / n, col = i % n;
    L[i] = col > row ? NAN : col == row ? 1 + fabs(ref_random(8, i)) : ref_random(8, i) / (double)n;
  }
  return L;
}

static const int64_t triangles[] = {1, 2, 17, 33, 100};
enum { TRIANGLES = sizeof triangles / sizeof triangles[0] };

START_TEST(test_cholesky) {
  for (int t = 0; t < TRIANGLES; t++) {
    int64_t n = triangles[t];
    double *A = definite(n), *L = definite(n);
    ck_assert_int_eq(cv_cholesky_f64(n, L, n, NULL), CURVD_OK);
    for (int64_t i = 0; i < n; i++) {
      for (int64_t j = 0; j <= i; j++) {
        double sum = 0;
        for (int64_t l = 0; l <= j; l++) sum += L[i * n + l] * L[j * n + l];
        check_near(sum, A[i * n + j], n, DBL_EPSILON);
      }
    }
    free(A), free(L);
  }
}
END_TEST

START_TEST(test_invert_lower) {
  for (int t = 0; t < TRIANGLES; t++) {
    int64_t n = triangles[t];
    double *L = lower(n), *inverse = lower(n), worst = 0;
    cv_invert_lower_f64(n, inverse);
    for (int64_t i = 0; i < n; i++) {
      for (int64_t j = 0; j <= i; j++) {
        double sum = i == j ? -1 : 0;
        for (int64_t l = j; l <= i; l++) sum += L[i * n + l] * inverse[l * n + j];
        worst = fmax(worst, fabs(sum));
      }
      for (int64_t j = i + 1; j < n; j++) ck_assert(isnan(inverse[i * n + j])); /* stays */
    }
    ck_assert_msg(worst <= 1e-14 * (double)(n + 4), "L L^-1 - I: %g", worst);
    free(L), free(inverse);
  }
}
END_TEST

/* NaN above the triangle is not read. */
START_TEST(test_congruence_with_a_triangle) {
  for (int t = 0; t < TRIANGLES; t++) {
    int64_t k = triangles[t];
    double *T = lower(k), *C = ref_doubles(k * k), *before = ref_doubles(k * k), *half = ref_doubles(k * k), worst = 0;
    for (int64_t i = 0; i < k * k; i++) C[i] = before[i] = ref_random(9, i / k + i % k);
    cv_congruence_f64(k, T, C);
    for (int64_t i = 0; i < k * k; i++) { /* T C */
      for (int64_t l = 0; l <= i / k; l++) half[i] += T[i / k * k + l] * before[l * k + i % k];
    }
    for (int64_t i = 0; i < k * k; i++) {
      double sum = -C[i];
      for (int64_t l = 0; l <= i % k; l++) sum += half[i / k * k + l] * T[i % k * k + l];
      worst = fmax(worst, fabs(sum));
    }
    ck_assert_msg(worst <= 1e-14 * (double)(k + 4), "k %d: %g", (int)k, worst);
    free(T), free(C), free(before), free(half);
  }
}
END_TEST

START_TEST(test_times_lower) {
  for (int t = 0; t < TRIANGLES; t++) {
    int64_t k = triangles[t], m = 1 + k / 2, ld = k + PAD;
    double *T = lower(k), *X = ref_doubles(m * ld), worst = 0;
    for (int64_t i = 0; i < m * ld; i++) X[i] = i % ld < k ? ref_random(3, i) : 77;
    cv_times_lower_f64(m, k, T, X, ld);
    for (int64_t i = 0; i < m; i++) {
      for (int64_t j = 0; j < k; j++) {
        double sum = -X[i * ld + j];
        for (int64_t l = j; l < k; l++) sum += ref_random(3, i * ld + l) * T[l * k + j];
        worst = fmax(worst, fabs(sum));
      }
      for (int64_t j = k; j < ld; j++) ck_assert(X[i * ld + j] == 77);
    }
    ck_assert_msg(worst <= 1e-14 * (double)(k + 4), "k %d: %g", (int)k, worst);
    free(T), free(X);
  }
}
END_TEST

START_TEST(test_lower_times) {
  for (int t = 0; t < TRIANGLES; t++) {
    int64_t k = triangles[t], cols = 7, ld;
    double *wide = lower(k);
    float *T = ref_floats(k * k), *X = operand(6, CV_N, k, cols, &ld), *before = operand(6, CV_N, k, cols, &ld);
    for (int64_t i = 0; i < k * k; i++) T[i] = (float)wide[i];
    cv_lower_times(k, cols, T, X, ld);
    for (int64_t i = 0; i < k; i++) {
      for (int64_t c = 0; c < cols; c++) {
        double sum = 0;
        for (int64_t l = 0; l <= i; l++) sum += (double)T[i * k + l] * before[l * ld + c];
        check_near(X[i * ld + c], sum, k, FLT_EPSILON);
      }
    }
    ref_check_padding(k, cols, X, ld);
    free(wide), free(T), free(X), free(before);
  }
}
END_TEST

START_TEST(test_cholesky_refuses_indefinite) {
  cv_error err = {0};
  double A[9] = {1, 0, 0, 2, 1, 0, 0, 0, 1};
  ck_assert_int_eq(cv_cholesky_f64(3, A, 3, &err), CURVD_ERR_NUMERIC);
  ck_assert_ptr_nonnull(strstr(err.text, "3 x 3"));
  double with_nan[4] = {1, 0, NAN, 1};
  ck_assert_int_eq(cv_cholesky_f64(2, with_nan, 2, NULL), CURVD_ERR_NUMERIC);
}
END_TEST

START_TEST(test_spd_inverse) {
  const int64_t ns[] = {1, 2, 17, 33, 100};
  for (int t = 0; t < 5; t++) {
    int64_t n = ns[t], ld = n + PAD;
    double *A = definite(n);
    float *inverse = ref_floats(n * ld);
    for (int64_t i = 0; i < n; i++) {
      for (int64_t j = 0; j < ld; j++) inverse[i * ld + j] = j < n ? (float)A[i * n + j] : NAN;
    }
    ck_assert_int_eq(cv_spd_inverse(n, inverse, ld, NULL), CURVD_OK);
    for (int64_t i = 0; i < n; i++) {
      for (int64_t j = 0; j < n; j++) {
        double sum = i == j ? -1 : 0;
        for (int64_t l = 0; l < n; l++) sum += A[i >= l ? i * n + l : l * n + i] * inverse[l * ld + j];
        ck_assert_msg(fabs(sum) < 5e-6, "A A^-1 - I at %d, %d: %g", (int)i, (int)j, sum);
      }
    }
    ref_check_padding(n, n, inverse, ld);
    free(A), free(inverse);
  }
  float indefinite[4] = {1, 0, 2, 1}, singular[4] = {1, 0, 1, 1}, with_nan[4] = {NAN, 0, 0, 1};
  cv_error err = {0};
  ck_assert_int_eq(cv_spd_inverse(2, indefinite, 2, &err), CURVD_ERR_NUMERIC);
  ck_assert_ptr_nonnull(strstr(err.text, "not positive definite"));
  ck_assert_int_eq(cv_spd_inverse(2, singular, 2, NULL), CURVD_ERR_NUMERIC);
  ck_assert_int_eq(cv_spd_inverse(2, with_nan, 2, NULL), CURVD_ERR_NUMERIC);
}
END_TEST

START_TEST(test_sizes_and_padding) {
  ck_assert(cv_dense_fits(0) && cv_dense_fits(CV_DENSE_MAX));
  ck_assert(!cv_dense_fits(-1) && !cv_dense_fits(CV_DENSE_MAX + 1) && !cv_dense_fits(INT64_MAX));
  for (int64_t n = 1; n < 3000; n++) {
    int64_t ld = cv_dense_ld(n);
    ck_assert(ld >= n && ld % 16 == 0 && ld % 512 != 0 && ld < n + 32);
  }
  ck_assert_ptr_nonnull(strstr(cv_blas_name(), "OpenBLAS"));
}
END_TEST

int main(void) {
  const TTest *const tests[] = {
      test_gemm,
      test_gram_columns_touches_the_lower_triangle_only,
      test_column_sums_are_added,
      test_gram_rows_is_exact_to_fp64,
      test_symmetric_product_gives_the_lower_triangle,
      test_mirror_copies_lower_to_upper,
      test_mix,
      test_rows_are_copied_to_either_precision,
      test_dot_and_sum_of_squares,
      test_sum_of_squares_shows_what_is_not_finite,
      test_largest_magnitude_shows_what_is_not_a_number,
      test_syev_finds_a_known_decomposition,
      test_syev_refuses_what_overflows,
      test_syev_refuses_what_is_not_finite,
      test_cholesky,
      test_cholesky_refuses_indefinite,
      test_spd_inverse,
      test_invert_lower,
      test_congruence_with_a_triangle,
      test_times_lower,
      test_lower_times,
      test_sizes_and_padding,
  };
  return suite_run("dense", tests, sizeof tests / sizeof tests[0], NULL);
}
