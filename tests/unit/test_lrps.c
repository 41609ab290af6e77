/* lrps.h and pair.h: spectral functions of a Kronecker product of two low-rank-plus-scalar factors, against the m n x m
 * n matrix in fp64. */
#include "linalg/dense.h"
#include "linalg/eig.h"
#include "linalg/pair.h"
#include "linalg_reference.h"
#include "precision_fixture.h"
#include "suite.h"

#include <float.h>
#include <string.h>

/* One side with everything a test knows about it. */
typedef struct side {
  cv_lrps lrps;
  float *block;   /* rows_before, r and rows_after rows of lrps.ld */
  double *basis;  /* (n, n): the rows of U, completed */
  double *values; /* (n): D, then tau */
} side;

/* Eigenvalues 1, 0.6, 0.36, ... and tau below the last. The rooms before and after U hold NaN. */
static side side_new(uint64_t seed, int64_t n, int64_t r, int64_t rows_before, int64_t rows_after) {
  side s = {.lrps = {.n = n, .r = r, .ld = n + 3}};
  int64_t rows = rows_before + r + rows_after;
  s.block = ref_floats(rows * s.lrps.ld + 1);
  for (int64_t i = 0; i < rows * s.lrps.ld; i++) s.block[i] = NAN;
  s.lrps.U = s.block + rows_before * s.lrps.ld;
  s.lrps.D = ref_floats(n);
  s.lrps.tau = 0.5 * pow(0.6, (double)r);
  s.basis = ref_doubles(n * n);
  s.values = ref_doubles(n);
  ref_basis(seed, n, n, s.basis);
  for (int64_t i = 0; i < n; i++) s.values[i] = i < r ? (double)(float)pow(0.6, (double)i) : s.lrps.tau;
  for (int64_t i = 0; i < r; i++) {
    s.lrps.D[i] = (float)s.values[i];
    for (int64_t j = 0; j < n; j++) s.lrps.U[i * s.lrps.ld + j] = (float)s.basis[i * n + j];
  }
  return s;
}

static void side_free(side *s) {
  free(s->block);
  free(s->lrps.D);
  free(s->basis);
  free(s->values);
}

/* The function of lrps.h, written down once more in fp64. */
static double function_value(const cv_spectral *f, double x, double y) {
  if (f->identity_g) x = 1;
  if (f->identity_a) y = 1;
  if (f->is_joint) return pow(x * y + f->damping_joint, -f->exponent_a);
  double g = f->identity_g ? 1 : pow(x + f->damping_g, -f->exponent_g);
  return g * (f->identity_a ? 1 : pow(y + f->damping_a, -f->exponent_a));
}

/* F (m n, m n) = sum over pairs of f(x_i, y_j) (v_i (x) w_j) (v_i (x) w_j)^T; returns the largest f. */
static double dense_function(const cv_spectral *f, const side *G, const side *A, double *F) {
  int64_t m = G->lrps.n, n = A->lrps.n, mn = m * n;
  double *pairs = ref_doubles(mn * mn), *values = ref_doubles(mn), largest = 0;
  for (int64_t i = 0; i < m; i++) {
    for (int64_t j = 0; j < n; j++) {
      values[i * n + j] = function_value(f, G->values[i], A->values[j]);
      largest = fmax(largest, fabs(values[i * n + j]));
      for (int64_t l = 0; l < mn; l++) pairs[(i * n + j) * mn + l] = G->basis[i * m + l / n] * A->basis[j * n + l % n];
    }
  }
  ref_compose(mn, mn, pairs, values, F);
  free(pairs);
  free(values);
  return largest;
}

/* In one call, or in two halves with the projections made before. */
typedef struct application {
  double scale;
  bool in_place, in_halves;
  double keep; /* of what out held, in halves that write at the end */
  const cv_multiplier *by;
} application;

static bool keeps(const cv_lrps *G, const cv_lrps *A, const application *how) {
  return how->in_halves && !how->in_place && G->r < G->n && A->r < A->n;
}

/* Both halves by hand, projections included; returns what the first one promises. */
static cv_pair_sums apply_halves(const cv_pair *pair, const application *how, const float *X, float *out, int64_t ld) {
  float scale = (float)how->scale, keep = keeps(pair->G, pair->A, how) ? (float)how->keep : 0;
  int64_t m = pair->G->n, n = pair->A->n;
  float *P = ref_floats(pair->G->r * pair->A->ld + 1), *R = ref_floats(pair->A->r * pair->G->ld + 1);
  double squares_x = 0;
  for (int64_t i = 0; i < m; i++) {
    for (int64_t j = 0; j < n; j++) squares_x += (double)X[i * ld + j] * X[i * ld + j];
  }
  cv_pair_projections(pair, X, ld, P, R);
  cv_pair_sums sums = cv_pair_project(pair, X, ld, squares_x, P, R, out, ld);
  ck_assert_int_eq(sums.is_written, pair->G->r == m || pair->A->r == n);
  if (!sums.is_written) cv_pair_expand(pair, scale, X, ld, keep, out, ld);
  for (int64_t i = 0; i < m && sums.is_written; i++) {
    for (int64_t j = 0; j < n; j++) out[i * ld + j] *= scale;
  }
  free(P);
  free(R);
  return sums;
}

/* Both halves: out = scale * result. */
static void apply_at_once(const cv_pair *pair, float scale, const float *X, int64_t ldx, float *out, int64_t ldo) {
  cv_pair_sums sums = cv_pair_project(pair, X, ldx, 0, NULL, NULL, out, ldo);
  if (sums.is_written) {
    cv_mix(pair->G->n, pair->A->n, scale, out, ldo, 0, out, ldo);
  } else {
    cv_pair_expand(pair, scale, X, ldx, 0, out, ldo);
  }
}

/* out = scale f(G (x) A) X by the code under test; X and out (m, n + 3), padding NaN. The sums are those of the halves.
 */
static cv_pair_sums apply(const cv_spectral *f, side *G, side *A, const application *how, float *X, float *out) {
  int64_t m = G->lrps.n, n = A->lrps.n, ld = n + 3;
  float *H = ref_floats((m + 1) * (n + 1));
  cv_pair pair = {&G->lrps, &A->lrps, H, ref_floats(2 * m * cv_dense_ld(n)), ref_floats(G->lrps.r * A->lrps.r + 1),
                  how->by};
  cv_pair_sums sums = {0};
  for (int64_t i = 0; i < 2 * m * cv_dense_ld(n); i++) pair.plane[i] = NAN;
  for (int64_t i = 0; i < G->lrps.r * A->lrps.r; i++) pair.core[i] = NAN;
  ck_assert_int_eq(cv_spectral_table(f, &G->lrps, &A->lrps, H, NULL), CURVD_OK);
  if (how->in_place) memcpy(out, X, (size_t)(m * ld) * sizeof *X);
  const float *in = how->in_place ? out : X;
  if (how->in_halves) {
    sums = apply_halves(&pair, how, in, out, ld);
  } else {
    apply_at_once(&pair, (float)how->scale, in, ld, out, ld);
  }
  free(H);
  free(pair.plane);
  free(pair.core);
  return sums;
}

/* Sums of the unscaled result y = F x, when the code vouches for them. */
static void check_sums(const cv_multiplier *by, const cv_pair_sums *sums, int64_t count, const double *x,
                       const double *y) {
  double squares = 0, dot = 0, promised = by && by->precision == CV_BF16 ? 1e-2 : 1e-3;
  for (int64_t i = 0; i < count; i++) squares += y[i] * y[i], dot += x[i] * y[i];
  if (!sums->is_certain) return;
  ck_assert_msg(fabs(sums->squares - squares) <= promised * squares, "squares %g, not %g", sums->squares, squares);
  ck_assert_msg(fabs(sums->dot - dot) <= promised * fabs(dot), "dot %g, not %g", sums->dot, dot);
}

/* fp32: a few sums of up to 9 products. bf16: up to four products one after the other round two operands each; |U| has
 * a norm of at most sqrt(n), and sums of entries of H are at most twice the largest. */
static double relative_tolerance(const cv_multiplier *by, int64_t m, int64_t n) {
  return 4e-6 + 16 * precision_rounding(by) * sqrt(fmax((double)m, (double)n));
}

static void check_apply(const cv_spectral *f, int64_t m, int64_t n, int64_t r_g, int64_t r_a, const application *how) {
  side G = side_new(1, m, r_g, 0, r_a), A = side_new(2, n, r_a, r_g, 0);
  int64_t ld = n + 3, mn = m * n;
  float *X = ref_floats(m * ld), *out = ref_floats(m * ld), *before = ref_floats(m * ld);
  double *F = ref_doubles(mn * mn), *x = ref_doubles(mn), *y = ref_doubles(mn);
  double keep = keeps(&G.lrps, &A.lrps, how) ? how->keep : 0;
  ref_fill(3, m, n, X, ld);
  ref_fill(4, m, n, out, ld);
  ref_fill(4, m, n, before, ld);
  double largest = dense_function(f, &G, &A, F);
  for (int64_t i = 0; i < mn; i++) x[i] = X[i / n * ld + i % n];
  ref_multiply(mn, 1, mn, F, x, y);
  cv_pair_sums sums = apply(f, &G, &A, how, X, out);
  if (how->in_halves) check_sums(how->by, &sums, mn, x, y);
  double tolerance =
      4e-6 * fabs(keep) + relative_tolerance(how->by, m, n) * fabs(how->scale) * largest * ref_norm(mn, x);
  for (int64_t i = 0; i < mn; i++) {
    int64_t at = i / n * ld + i % n;
    double error = fabs(out[at] - (how->scale * y[i] + keep * before[at]));
    ck_assert_msg(error <= tolerance, "m %d n %d r_g %d r_a %d in place %d: error %.2e above %.2e", (int)m, (int)n,
                  (int)r_g, (int)r_a, how->in_place, error, tolerance);
  }
  ref_check_padding(m, n, out, ld);
  side_free(&G), side_free(&A);
  free(X), free(out), free(before), free(F), free(x), free(y);
}

static const cv_spectral functions[] = {
    {.damping_g = 0.1, .damping_a = 0.03, .exponent_g = 1, .exponent_a = 1},
    {.damping_g = 0.01, .damping_a = 0.2, .exponent_g = 0.5, .exponent_a = 0.5},
    {.damping_g = 0.1, .damping_a = 0.1, .exponent_g = 0.25, .exponent_a = 1},
    {.damping_g = 0.1, .damping_a = 0.1, .exponent_g = 0, .exponent_a = 0.5},
    {.damping_g = 0.1, .damping_a = 0.1, .exponent_g = 1. / 3, .exponent_a = 0.7},
    {.is_joint = true, .damping_joint = 0.02, .exponent_a = 1},
    {.is_joint = true, .damping_joint = 0.1, .exponent_a = 0.5},
    {.damping_g = 0.1, .damping_a = 0.1, .exponent_g = 1, .exponent_a = 1, .identity_g = true},
    {.damping_g = 0.1, .damping_a = 0.1, .exponent_g = 1, .exponent_a = 1, .identity_a = true},
    {.exponent_g = 1, .exponent_a = 1, .identity_g = true, .identity_a = true},
    {.is_joint = true, .damping_joint = 0.1, .exponent_a = 1, .identity_g = true},
    {.is_joint = true, .damping_joint = 0.1, .exponent_a = 0.5, .identity_a = true},
};
enum { FUNCTIONS = sizeof functions / sizeof functions[0] };

/* LRPS-1: low or full rank on each side, none, all but one; every function; odd shapes. */
static void check_all(const cv_multiplier *by) {
  const int64_t shapes[][2] = {{5, 7}, {7, 5}, {1, 7}, {5, 1}, {1, 1}, {9, 4}};
  const application how[] = {{1, false, false, 0},    {1, true, true, 0},     {-0.7, false, true, 0},
                             {-0.7, true, false, 0},  {1, true, false, 0},    {1, false, true, 2},
                             {-0.7, false, false, 0}, {-0.7, false, true, -1}};
  for (int t = 0; t < 6; t++) {
    int64_t m = shapes[t][0], n = shapes[t][1];
    const int64_t ranks_g[] = {0, m / 2, m - 1, m}, ranks_a[] = {0, n / 2, n - 1, n};
    for (int f = 0; f < FUNCTIONS; f++) {
      for (int c = 0; c < 16; c++) {
        application one = how[(c + f) % 8];
        one.by = by;
        check_apply(&functions[f], m, n, ranks_g[c / 4], ranks_a[c % 4], &one);
      }
    }
  }
}

START_TEST(test_apply_is_the_function_of_the_dense_matrix) {
  check_all(NULL);
}
END_TEST

START_TEST(test_apply_in_every_precision) {
  for (int i = 0; i < PRECISION_CASES; i++) {
    cv_multiplier by = precision_case(i);
    check_all(&by);
    precision_free(&by);
  }
}
END_TEST

/* Frobenius norm of what a precision makes of X less y, relative to that of y. */
static double error_of(cv_precision precision, const cv_spectral *f, side *G, side *A, float *X, const double *y) {
  int64_t mn = G->lrps.n * A->lrps.n, n = A->lrps.n, ld = n + 3;
  cv_multiplier by = precision_new(precision, "auto");
  const application how = {1, false, true, 0, &by};
  float *out = ref_floats(G->lrps.n * ld);
  double *off = ref_doubles(mn);
  apply(f, G, A, &how, X, out);
  for (int64_t i = 0; i < mn; i++) off[i] = out[i / n * ld + i % n] - y[i];
  double error = ref_norm(mn, off) / ref_norm(mn, y);
  free(out), free(off), precision_free(&by);
  return error;
}

/* Both precisions are there: random numbers in bf16 are off by some 1e-3, in three products at least 100 times less. */
START_TEST(test_precisions_differ) {
  enum { M = 18, N = 21, MN = M * N, LD = N + 3 };
  const int64_t kept[][2] = {{6, 7}, {M, 7}, {6, N}, {M, N}};
  float X[M * LD];
  double *F = ref_doubles(MN * MN), x[MN], y[MN];
  ref_fill(3, M, N, X, LD);
  for (int i = 0; i < MN; i++) x[i] = X[i / N * LD + i % N];
  for (int c = 0; c < 4; c++) {
    side G = side_new(1, M, kept[c][0], 0, kept[c][1]), A = side_new(2, N, kept[c][1], kept[c][0], 0);
    dense_function(&functions[1], &G, &A, F);
    ref_multiply(MN, 1, MN, F, x, y);
    double fp32 = error_of(CV_FP32, &functions[1], &G, &A, X, y), bf16 = error_of(CV_BF16, &functions[1], &G, &A, X, y),
           three = error_of(CV_BF16X3, &functions[1], &G, &A, X, y);
    ck_assert_msg(fp32 < 2e-6 && bf16 > 2e-4 && bf16 < 1e-2 && three < bf16 / 100, "r %d %d: %.1e, %.1e, %.1e",
                  (int)kept[c][0], (int)kept[c][1], fp32, bf16, three);
    side_free(&G), side_free(&A);
  }
  free(F);
}
END_TEST

/* scale h = 1 leaves X as it is: the copy may be left out, the rest may not. */
START_TEST(test_apply_with_a_neutral_tail) {
  const application how = {1, true, false, 0};
  for (int64_t r = 0; r <= 4; r++) check_apply(&functions[9], 5, 7, r, r, &how);
}
END_TEST

/* X inside the kept spans, where the function is 1, while the tail is multiplied by 1e6 and more: the energy outside is
 * the rounding of a difference. The sums must be right or not vouched for; with half of X outside they are wanted. */
START_TEST(test_sums_under_cancellation) {
  enum { M = 9, N = 14, LD = N + 3, MN = M * N };
  const application how = {1, false, true, 0};
  float X[M * LD], out[M * LD];
  double *F = ref_doubles(MN * MN), x[MN], y[MN];
  for (int outside = 0; outside < 2; outside++) {
    side G = side_new(1, M, 3, 0, 4), A = side_new(2, N, 4, 3, 0);
    G.lrps.tau = A.lrps.tau = 1e-6;
    for (int i = 3; i < M; i++) G.values[i] = 1e-6;
    for (int j = 4; j < N; j++) A.values[j] = 1e-6;
    const cv_spectral f = {.damping_g = 1e-9, .damping_a = 1e-9, .exponent_g = 1, .exponent_a = 1};
    dense_function(&f, &G, &A, F);
    for (int i = 0; i < M * LD; i++) {
      int row = i / LD, col = i % LD;
      double inside = G.basis[row] * A.basis[col % N], tail = outside * G.basis[5 * M + row] * A.basis[7 * N + col % N];
      X[i] = col < N ? (float)(inside + tail) : NAN;
      if (col < N) x[row * N + col] = X[i];
    }
    ref_multiply(MN, 1, MN, F, x, y);
    cv_pair_sums sums = apply(&f, &G, &A, &how, X, out);
    check_sums(NULL, &sums, MN, x, y);
    ck_assert_int_eq(sums.is_certain, outside);
    side_free(&G), side_free(&A);
  }
  free(F);
}
END_TEST

START_TEST(test_table_has_the_tail_in_the_last_row_and_column) {
  side G = side_new(1, 5, 2, 0, 0), A = side_new(2, 7, 7, 0, 0);
  float H[3 * 7];
  ck_assert_int_eq(cv_lrps_points(&G.lrps), 3);
  ck_assert_int_eq(cv_lrps_points(&A.lrps), 7);
  for (int f = 0; f < FUNCTIONS; f++) {
    ck_assert_int_eq(cv_spectral_table(&functions[f], &G.lrps, &A.lrps, H, NULL), CURVD_OK);
    for (int i = 0; i < 3; i++) {
      for (int j = 0; j < 7; j++) {
        double expected = function_value(&functions[f], i < 2 ? G.values[i] : G.lrps.tau, A.values[j]);
        ck_assert(fabs(H[i * 7 + j] - expected) <= 2 * FLT_EPSILON * expected);
      }
    }
  }
  side_free(&G), side_free(&A);
}
END_TEST

/* In place x <- K^-1 x by Gaussian elimination with pivoting; K (n, n) is spoilt. */
static void gauss(int64_t n, double *K, double *x) {
  for (int64_t c = 0; c < n; c++) {
    int64_t pivot = c;
    for (int64_t i = c + 1; i < n; i++) pivot = fabs(K[i * n + c]) > fabs(K[pivot * n + c]) ? i : pivot;
    for (int64_t j = 0; j < n; j++) {
      double t = K[c * n + j];
      K[c * n + j] = K[pivot * n + j], K[pivot * n + j] = t;
    }
    double t = x[c];
    x[c] = x[pivot], x[pivot] = t;
    for (int64_t i = 0; i < n; i++) {
      double ratio = i == c ? 0 : K[i * n + c] / K[c * n + c];
      for (int64_t j = 0; j < n; j++) K[i * n + j] -= ratio * K[c * n + j];
      x[i] -= ratio * x[c];
    }
  }
  for (int64_t i = 0; i < n; i++) x[i] /= K[i * n + i];
}

/* S (n, n) = X^T X / rows of rows random vectors, in fp64 and fp32. */
static void statistic(uint64_t seed, int64_t n, double *S, float *narrow) {
  enum { ROWS = 20 };
  for (int64_t i = 0; i < n * n; i++) {
    S[i] = 0;
    for (int64_t b = 0; b < ROWS; b++) S[i] += ref_random(seed, b * n + i / n) * ref_random(seed, b * n + i % n) / ROWS;
    S[i] = narrow[i] = (float)S[i];
  }
}

/* All eigenpairs by the solver that the service uses. */
static side decomposed(int64_t n, const float *M) {
  side s = side_new(1, n, n, 0, CV_EIG_PROBES);
  cv_eig_scratch need = cv_eig_exact.scratch(n, n, NULL);
  cv_eig_work work = {ref_floats(need.floats), ref_doubles(need.doubles), ref_block(need.ints, sizeof(int32_t))};
  cv_eig_problem problem = {.n = n, .M = M, .ld = n, .eig_rank = n, .k_max = n};
  cv_eig_result result;
  cv_error err = {.code = CURVD_OK};
  curvd_status status = cv_eig_exact.solve(&problem, &work, s.lrps.U, s.lrps.ld, s.lrps.D, &result, &err);
  ck_assert_msg(status == CURVD_OK && result.kept == n, "%s", err.text);
  free(work.floats), free(work.doubles), free(work.ints);
  return s;
}

/* KF-1: (A (x) G + lambda I)^-1 by elimination. Bases, table and gradient are fp32 numbers, which alone is 6e-8
 * relative each, amplified by the condition (1 + x_max / lambda), so the 1e-10 of an fp64 reference cannot hold here.
 */
START_TEST(test_joint_inverse_against_elimination) {
  enum { M = 5, N = 7, MN = M * N };
  double G[M * M], A[N * N], x[MN];
  float G32[M * M], A32[N * N], X[M * (N + 3)], out[M * (N + 3)];
  double *K = ref_doubles(MN * MN);
  const cv_spectral f = {.is_joint = true, .damping_joint = 0.01, .exponent_a = 1};
  const application how = {1, false, false, 0};
  statistic(11, M, G, G32);
  statistic(12, N, A, A32);
  ref_fill(13, M, N, X, N + 3);
  for (int i = 0; i < MN; i++) {
    x[i] = X[i / N * (N + 3) + i % N];
    for (int j = 0; j < MN; j++) K[i * MN + j] = G[i / N * M + j / N] * A[i % N * N + j % N] + (i == j ? 0.01 : 0);
  }
  gauss(MN, K, x);
  side g = decomposed(M, G32), a = decomposed(N, A32);
  apply(&f, &g, &a, &how, X, out);
  double error = 0;
  for (int i = 0; i < MN; i++) error = fmax(error, fabs(out[i / N * (N + 3) + i % N] - x[i]));
  ck_assert_msg(error <= 1e-5 * ref_norm(MN, x), "error %.2e, norm %.2e", error, ref_norm(MN, x));
  side_free(&g), side_free(&a);
  free(K);
}
END_TEST

static double inner(int64_t m, int64_t n, const float *X, const float *Y) {
  double sum = 0;
  for (int64_t i = 0; i < m; i++) {
    for (int64_t j = 0; j < n; j++) sum += (double)X[i * (n + 3) + j] * Y[i * (n + 3) + j];
  }
  return sum;
}

/* LRPS-3: linear, symmetric, of norm at most the largest value, which an eigenvector reaches. */
START_TEST(test_apply_is_linear_symmetric_and_bounded) {
  enum { M = 9, N = 14, LD = N + 3, COUNT = M * LD };
  const int64_t ranks[][2] = {{3, 4}, {9, 4}, {3, 14}, {9, 14}, {0, 4}, {0, 0}};
  const application how = {1, false, false, 0};
  float X[COUNT], Y[COUNT], Z[COUNT], fx[COUNT], fy[COUNT], fz[COUNT];
  for (int t = 0; t < 6 * FUNCTIONS; t++) {
    const cv_spectral *f = &functions[t % FUNCTIONS];
    side G = side_new(1, M, ranks[t / FUNCTIONS][0], 0, ranks[t / FUNCTIONS][1]);
    side A = side_new(2, N, ranks[t / FUNCTIONS][1], ranks[t / FUNCTIONS][0], 0);
    ref_fill(21, M, N, X, LD);
    ref_fill(22, M, N, Y, LD);
    for (int i = 0; i < COUNT; i++) Z[i] = 0.5f * X[i] - 3 * Y[i];
    apply(f, &G, &A, &how, X, fx), apply(f, &G, &A, &how, Y, fy), apply(f, &G, &A, &how, Z, fz);
    double largest = 0, norm = sqrt(inner(M, N, X, X));
    for (int i = 0; i < M * N; i++) largest = fmax(largest, function_value(f, G.values[i / N], A.values[i % N]));
    for (int i = 0; i < COUNT; i++) {
      if (i % LD < N) ck_assert(fabs(fz[i] - (0.5 * fx[i] - 3 * fy[i])) <= 1e-5 * largest * norm);
    }
    ck_assert(fabs(inner(M, N, Y, fx) - inner(M, N, fy, X)) <= 1e-5 * largest * norm * norm);
    ck_assert(sqrt(inner(M, N, fx, fx)) <= largest * norm * (1 + 1e-5));
    for (int i = 0; i < COUNT; i++)
      X[i] = i % LD < N ? (float)(G.basis[i / LD] * A.basis[i % LD]) : NAN; /* first eigenvectors */
    apply(f, &G, &A, &how, X, fx);
    double h = function_value(f, G.values[0], A.values[0]);
    for (int i = 0; i < COUNT; i++) {
      if (i % LD < N) ck_assert(fabs(fx[i] - h * X[i]) <= 4e-6 * largest);
    }
    side_free(&G), side_free(&A);
  }
}
END_TEST

/* RK-8: with damping relative to the largest eigenvalue, A -> c A divides the direction by c. */
START_TEST(test_relative_damping_is_scale_free) {
  enum { M = 6, N = 10, LD = N + 3 };
  const double c[] = {1e-6, 1e6};
  const application how = {1, false, false, 0};
  float X[M * LD], out[M * LD], scaled[M * LD];
  ref_fill(31, M, N, X, LD);
  for (int t = 0; t < 2; t++) {
    side G = side_new(1, M, 3, 0, 4), A = side_new(2, N, 4, 3, 0);
    cv_spectral f = {.damping_g = 0.1, .damping_a = 0.1 * A.lrps.D[0], .exponent_g = 1, .exponent_a = 1};
    apply(&f, &G, &A, &how, X, out);
    for (int i = 0; i < 4; i++) A.lrps.D[i] *= (float)c[t];
    A.lrps.tau *= c[t];
    f.damping_a = 0.1 * A.lrps.D[0];
    apply(&f, &G, &A, &how, X, scaled);
    for (int i = 0; i < M; i++) {
      for (int j = 0; j < N; j++) ck_assert(fabs(scaled[i * LD + j] * c[t] - out[i * LD + j]) <= 1e-4);
    }
    ck_assert(sqrt(inner(M, N, out, out)) > 1);
    side_free(&G), side_free(&A);
  }
}
END_TEST

START_TEST(test_a_zero_eigenvalue_needs_damping) {
  side G = side_new(1, 5, 2, 0, 0), A = side_new(2, 7, 3, 0, 0);
  float H[3 * 4];
  cv_error err = {0};
  A.lrps.tau = 0;
  cv_spectral separable = {.damping_g = 0.1, .exponent_g = 1, .exponent_a = 0.5},
              joint = {.is_joint = true, .exponent_a = 1};
  ck_assert_int_eq(cv_spectral_table(&separable, &G.lrps, &A.lrps, H, &err), CURVD_ERR_NUMERIC);
  ck_assert_ptr_nonnull(strstr(err.text, "damping"));
  ck_assert_int_eq(cv_spectral_table(&joint, &G.lrps, &A.lrps, H, NULL), CURVD_ERR_NUMERIC);
  separable.exponent_a = 0.3;
  ck_assert_int_eq(cv_spectral_table(&separable, &G.lrps, &A.lrps, H, NULL), CURVD_ERR_NUMERIC);
  separable.exponent_a = 0; /* 0 to the power 0 is 1 */
  ck_assert_int_eq(cv_spectral_table(&separable, &G.lrps, &A.lrps, H, NULL), CURVD_OK);
  separable.exponent_a = 1, separable.identity_a = true;
  ck_assert_int_eq(cv_spectral_table(&separable, &G.lrps, &A.lrps, H, NULL), CURVD_OK);
  joint.damping_joint = 1e-3;
  ck_assert_int_eq(cv_spectral_table(&joint, &G.lrps, &A.lrps, H, NULL), CURVD_OK);
  A.lrps.D[1] = NAN;
  ck_assert_int_eq(cv_spectral_table(&joint, &G.lrps, &A.lrps, H, NULL), CURVD_ERR_NUMERIC);
  A.lrps.D[1] = 0.5f, joint.damping_joint = -0.5; /* a negative number has no power */
  joint.exponent_a = 0.5;
  ck_assert_int_eq(cv_spectral_table(&joint, &G.lrps, &A.lrps, H, NULL), CURVD_ERR_NUMERIC);
  side_free(&G), side_free(&A);
}
END_TEST

int main(void) {
  const TTest *const tests[] = {
      test_apply_is_the_function_of_the_dense_matrix,
      test_apply_in_every_precision,
      test_precisions_differ,
      test_apply_with_a_neutral_tail,
      test_sums_under_cancellation,
      test_table_has_the_tail_in_the_last_row_and_column,
      test_joint_inverse_against_elimination,
      test_apply_is_linear_symmetric_and_bounded,
      test_relative_damping_is_scale_free,
      test_a_zero_eigenvalue_needs_damping,
  };
  return suite_run("lrps", tests, sizeof tests / sizeof tests[0], NULL);
}
