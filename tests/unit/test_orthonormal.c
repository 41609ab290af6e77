/* Orthonormal rows, the estimate of how orthonormal they are, and the random rows of a sketch. */
#include "linalg/orthonormal.h"
#include "linalg_reference.h"
#include "suite.h"

#include <string.h>

typedef curvd_status orthonormalise(const cv_slices *, int64_t, float *, int64_t, const cv_eig_work *, int64_t *,
                                    cv_error *);

/* Rows of length n on this rank, without a matrix. */
static cv_slices rows_of_length(int64_t n, const cv_eig_problem *problem) {
  return (cv_slices){.columns = {.n = n, .block = n, .parts = 1}, .mine = n, .is_first = true, .problem = problem};
}

static curvd_status orthonormal(orthonormalise *function, int64_t k, int64_t n, float *Q, int64_t ld, int64_t *replaced,
                                cv_error *err) {
  cv_eig_problem problem = {.n = n, .key = {.seed = 3, .stream = CV_RNG_SKETCH}};
  cv_slices slices = rows_of_length(n, &problem);
  cv_eig_scratch need = cv_orthonormal_scratch(k);
  cv_eig_work work = {.floats = ref_floats(need.floats), .doubles = ref_doubles(need.doubles)};
  for (int64_t i = 0; i < need.floats; i++) work.floats[i] = NAN;
  for (int64_t i = 0; i < need.doubles; i++) work.doubles[i] = NAN;
  *replaced = 0;
  curvd_status status = function(&slices, k, Q, ld, &work, replaced, err);
  free(work.floats), free(work.doubles);
  return status;
}

/* Largest entry of |Q Q^T - I| of what the function makes of Q. */
static double defect_of(orthonormalise *function, int64_t k, int64_t n, float *Q, int64_t *replaced) {
  cv_error err = {0};
  ck_assert_msg(orthonormal(function, k, n, Q, n, replaced, &err) == CURVD_OK, "%s", err.text);
  return ref_orthogonality(k, n, Q, n);
}

/* X = T B with orthonormal rows B (k, n); singular values from 1 down to 1 / condition; then row i is scaled by
 * scale^i. */
static float *rows_of_condition(int64_t k, int64_t n, double condition, double scale, const double *B) {
  double *T = ref_doubles(k * k), *X = ref_doubles(k * n), *W = ref_doubles(k * k);
  float *narrow = ref_floats(k * n);
  ref_basis(8, k, k, W);
  for (int64_t i = 0; i < k * k; i++) T[i] = W[i] * pow(condition, -(double)(i % k) / (double)(k > 1 ? k - 1 : 1));
  ref_multiply(k, n, k, T, B, X);
  for (int64_t i = 0; i < k * n; i++) narrow[i] = (float)(X[i] * pow(scale, (double)(i / n)));
  free(T), free(X), free(W);
  return narrow;
}

/* Largest distance of a row of B from the span of the rows of Q. */
static double span_error(int64_t k, int64_t n, const float *Q, const double *B) {
  double worst = 0, *outside = ref_doubles(n);
  for (int64_t i = 0; i < k; i++) {
    for (int64_t j = 0; j < n; j++) outside[j] = B[i * n + j];
    for (int64_t l = 0; l < k; l++) {
      double dot = 0;
      for (int64_t j = 0; j < n; j++) dot += B[i * n + j] * Q[l * n + j];
      for (int64_t j = 0; j < n; j++) outside[j] -= dot * Q[l * n + j];
    }
    worst = fmax(worst, ref_norm(n, outside));
  }
  free(outside);
  return worst;
}

/* From orthonormal rows to rows that fp32 cannot tell from dependent ones, well and badly scaled: always orthonormal,
 * and the span is kept as far as the rounding of the rows allows, which is 6e-8 times the condition. */
START_TEST(test_rows_of_any_condition) {
  const struct {
    double condition, scale;
  } cases[] = {{1, 1}, {1e2, 1}, {1e4, 1}, {1e4, 0.1}, {1e6, 10}, {1e9, 1}, {INFINITY, 1}};
  const int64_t shapes[][2] = {{1, 1}, {1, 50}, {5, 5}, {20, 50}, {30, 600}};
  for (int t = 0; t < 7 * 5; t++) {
    int64_t k = shapes[t % 5][0], n = shapes[t % 5][1], replaced;
    double *B = ref_doubles(k * n), condition = cases[t / 5].condition;
    ref_basis(9, k, n, B);
    for (int cheap = 0; cheap < 2; cheap++) {
      float *Q = rows_of_condition(k, n, condition, cases[t / 5].scale, B);
      double defect = defect_of(cheap ? cv_separate_rows : cv_orthonormalise_rows, k, n, Q, &replaced);
      ck_assert_msg(defect <= (cheap ? 2e-3 : 2e-6), "k %d, n %d, case %d: %.1e", (int)k, (int)n, t / 5, defect);
      if (condition <= 1e4 && !cheap) ck_assert(span_error(k, n, Q, B) <= 1e-6 * condition);
      if (condition <= 1e4) ck_assert_int_eq(replaced, 0);
      free(Q);
    }
    free(B);
  }
}
END_TEST

/* A row that depends on those above is drawn anew and counted; the others stay in the span, and those above it stay. */
START_TEST(test_dependent_and_zero_rows) {
  enum { K = 6, N = 40 };
  double B[K * N];
  float Q[K * N];
  for (int zeros = 0; zeros < 2; zeros++) {
    int64_t replaced;
    ref_basis(4, K, N, B);
    for (int i = 0; i < K * N; i++) Q[i] = (float)B[i];
    for (int j = 0; j < N; j++) {
      Q[3 * N + j] = zeros ? 0 : 0.5f * Q[j];
      Q[5 * N + j] = zeros ? 0 : Q[4 * N + j] - 2 * Q[N + j];
    }
    double defect = defect_of(cv_orthonormalise_rows, K, N, Q, &replaced), moved = 0;
    ck_assert_msg(defect <= 2e-6, "%.1e", defect);
    ck_assert_int_eq(replaced, 2);
    for (int i = 0; i < 3 * N; i++) moved = fmax(moved, fabs(Q[i] - B[i]));
    ck_assert_msg(moved < 1e-6 && span_error(3, N, Q, B) < 1e-6, "a row above moved by %.1e", moved);
    memcpy(B + 3 * N, B + 4 * N, N * sizeof *B), memcpy(B + 5 * N, B + 4 * N, N * sizeof *B);
    ck_assert_msg(span_error(K, N, Q, B) < 2e-6, "the span lost a row: %.1e", span_error(K, N, Q, B));
  }
}
END_TEST

/* Only dependent rows at all, as many rows as columns, and all of it twice with the same bits. */
START_TEST(test_nothing_but_dependent_rows) {
  enum { N = 12 };
  float Q[2][N * N];
  for (int twice = 0; twice < 2; twice++) {
    int64_t replaced;
    for (int i = 0; i < N * N; i++) Q[twice][i] = (float)(1 + i / N);
    double defect = defect_of(cv_orthonormalise_rows, N, N, Q[twice], &replaced);
    ck_assert_msg(defect <= 2e-6, "%.1e", defect);
    ck_assert_int_ge(replaced, N - 1);
  }
  ck_assert(memcmp(Q[0], Q[1], sizeof Q[0]) == 0);
}
END_TEST

START_TEST(test_rows_that_are_not_finite) {
  enum { K = 5, N = 20, LD = 23 };
  const float bad[] = {NAN, INFINITY, -INFINITY};
  for (int t = 0; t < 6; t++) {
    float Q[K * LD];
    int64_t replaced;
    cv_error err = {0};
    ref_fill(1, K, N, Q, LD);
    Q[2 * LD + 7] = bad[t % 3];
    orthonormalise *function = t < 3 ? cv_orthonormalise_rows : cv_separate_rows;
    ck_assert_int_eq(orthonormal(function, K, N, Q, LD, &replaced, &err), CURVD_ERR_NUMERIC);
    ck_assert_msg(strstr(err.text, "row 2") && strstr(err.text, "not finite"), "%s", err.text);
    ref_check_padding(K, N, Q, LD);
  }
}
END_TEST

static double orthogonality(int64_t k, int64_t n, const float *Q) {
  double *y = ref_doubles(k + 1);
  cv_probe_orthogonality(k, n, Q, n, y);
  double estimate = cv_orthogonality(k, y);
  free(y);
  return estimate;
}

/* One bad pair of rows among good ones shows in full, and so does a single NaN. */
START_TEST(test_orthogonality_shows_every_defect) {
  enum { K = 30, N = 700 };
  double *B = ref_doubles(K * N);
  float *Q = ref_floats(K * N);
  ref_basis(3, K, N, B);
  for (int i = 0; i < K * N; i++) Q[i] = (float)B[i];
  ck_assert(orthogonality(K, N, Q) < 2e-6);
  for (int bad = 0; bad < K - 1; bad++) {
    for (int j = 0; j < N; j++) Q[bad * N + j] = (float)(B[bad * N + j] + 1e-3 * B[(K - 1) * N + j]);
    double estimate = orthogonality(K, N, Q);
    ck_assert(estimate > 0.9e-3 && estimate < 2.5e-3);
    Q[bad * N + 20 * bad] = NAN;
    ck_assert(isnan(orthogonality(K, N, Q)));
    for (int j = 0; j < N; j++) Q[bad * N + j] = (float)B[bad * N + j];
  }
  ck_assert(orthogonality(0, N, Q) == 0);
  free(B), free(Q);
}
END_TEST

/* The parts of y over pieces of the columns add up to y of all. */
START_TEST(test_orthogonality_in_parts) {
  enum { K = 7, N = 300, CUT = 123 };
  float *Q = ref_floats(K * N);
  double all[K], parts[2][K], worst = 0;
  ref_fill(5, K, N, Q, N);
  cv_probe_orthogonality(K, N, Q, N, all);
  cv_probe_orthogonality(K, CUT, Q, N, parts[0]);
  cv_probe_orthogonality(K, N - CUT, Q + CUT, N, parts[1]);
  for (int i = 0; i < K; i++) worst = fmax(worst, fabs(parts[0][i] + parts[1][i] - all[i]));
  ck_assert_msg(worst < 1e-4, "%g", worst); /* of sums of about 100 */
  free(Q);
}
END_TEST

/* ---- random rows ---- */

/* Entry (number, column) of a sketch depends on these two alone: drawn in pieces it is the same, row by row and over
 * every deal of the columns; rows and keys differ. */
START_TEST(test_draw_depends_on_row_and_column_alone) {
  enum { K = 7, PARTS = 3 };
  const int64_t ns[] = {1, 2, 63, 64, 65, 201};
  const cv_rng key = {.seed = 5, .stream = CV_RNG_SKETCH, .a = 1};
  for (int t = 0; t < 6; t++) {
    int64_t n = ns[t];
    cv_slices all = rows_of_length(n, NULL);
    float *Q = ref_floats(K * n), *part = ref_floats(K * n);
    cv_slices_draw(&all, key, 10, K, Q, n);
    for (int i = 0; i < K; i++) {
      cv_slices_draw(&all, key, 10 + i, 1, part, n);
      ck_assert(memcmp(part, Q + i * n, (size_t)n * sizeof *Q) == 0);
    }
    for (int p = 0; p < PARTS; p++) {
      cv_slices s = {.columns = {.n = n, .block = 64, .parts = PARTS, .part = p}};
      s.mine = cv_cyclic_count(&s.columns);
      cv_slices_draw(&s, key, 10, K, part, n);
      bool is_same = true;
      for (int64_t i = 0; i < K * s.mine; i++) {
        int64_t row = i / s.mine, col = i % s.mine;
        is_same &= part[row * n + col] == Q[row * n + cv_cyclic_global(&s.columns, col)];
      }
      ck_assert_msg(is_same, "n %d, part %d", (int)n, p);
    }
    free(Q), free(part);
  }
}
END_TEST

/* No number comes twice: neighbouring rows of odd lengths, and other keys. */
START_TEST(test_draws_differ) {
  enum { K = 40, N = 33 };
  float Q[2][K * N];
  cv_rng key = {.seed = 5, .stream = CV_RNG_SKETCH, .a = 1};
  cv_slices all = rows_of_length(N, NULL);
  double squares = 0, products = 0;
  cv_slices_draw(&all, key, 0, K, Q[0], N);
  key.a = 2;
  cv_slices_draw(&all, key, 0, K, Q[1], N);
  int repeats = 0;
  for (int i = 0; i < K * N; i++) {
    squares += Q[0][i] * Q[0][i], products += Q[0][i] * Q[1][i];
    for (int j = i + 1; j < i + N + 2 && j < K * N; j++) repeats += Q[0][i] == Q[0][j];
  }
  ck_assert_int_le(repeats, 1);
  ck_assert(fabs(squares / (K * N) - 1) < 4 * sqrt(2. / (K * N)) && fabs(products / (K * N)) < 4 / sqrt(K * N));
}
END_TEST

int main(void) {
  const TTest *const tests[] = {
      test_rows_of_any_condition,
      test_dependent_and_zero_rows,
      test_nothing_but_dependent_rows,
      test_rows_that_are_not_finite,
      test_orthogonality_shows_every_defect,
      test_orthogonality_in_parts,
      test_draw_depends_on_row_and_column_alone,
      test_draws_differ,
  };
  return suite_run("orthonormal", tests, sizeof tests / sizeof tests[0], NULL);
}
