/* Online low-rank updates against dense fp64: the running average itself, its truncated eigendecompositions by LAPACK,
 * the published bound of what truncation loses, and Rayleigh-Ritz. */
#include "lapack_faults.h"

#include "linalg/brand.h"
#include "linalg/dense.h"
#include "linalg_reference.h"
#include "suite.h"

#include <float.h>
#include <string.h>

enum { PAD = 3, GUARD = 4 };

/* A state and, in fp64, the matrix that it follows. */
typedef struct tracked {
  cv_brand s;
  int64_t block;
  double *M; /* (n, n) */
  cv_eig_work work;
  cv_eig_scratch need;
  cv_brand_result result;
  cv_error err;
} tracked;

static void fill_scratch(tracked *t, float garbage) {
  for (int64_t i = 0; i < t->need.floats + GUARD; i++) t->work.floats[i] = garbage;
  for (int64_t i = 0; i < t->need.doubles + GUARD; i++) t->work.doubles[i] = garbage;
  for (int64_t i = 0; i < t->need.ints + GUARD; i++) t->work.ints[i] = -7;
}

static tracked tracked_new(int64_t n, int64_t r_max, int64_t block, float garbage) {
  tracked t = {.s = {.n = n, .r_max = r_max, .ld = n + PAD}, .block = block};
  t.s.U = ref_floats(r_max * t.s.ld), t.s.D = ref_floats(r_max);
  ref_fill(0, r_max, n, t.s.U, t.s.ld);
  t.M = ref_doubles(n * n);
  t.need = cv_brand_scratch(n, r_max, block);
  t.work = (cv_eig_work){ref_floats(t.need.floats + GUARD), ref_doubles(t.need.doubles + GUARD),
                         ref_block(t.need.ints + GUARD, sizeof(int32_t))};
  fill_scratch(&t, garbage);
  return t;
}

static void tracked_free(tracked *t) {
  free(t->s.U), free(t->s.D), free(t->M);
  free(t->work.floats), free(t->work.doubles), free(t->work.ints);
}

/* Rows that come to an update: numbers in X (rows, n), padding NaN. */
static cv_brand_rows rows_of(const tracked *t, int64_t rows, const float *X, double keep, double add) {
  return (cv_brand_rows){.rows = rows, .ldx = t->s.ld, .X = X, .keep = keep, .add = add, .block = t->block};
}

/* M <- keep M + add X^T X in fp64 */
static void average(int64_t n, const cv_brand_rows *x, double *M) {
  for (int64_t i = 0; i < n * n; i++) M[i] *= x->keep;
  for (int64_t l = 0; l < x->rows; l++) {
    const float *row = x->X + l * x->ldx;
    for (int64_t i = 0; i < n; i++) {
      double xi = x->add * (x->has_one && i == n - 1 ? 1 : row[i]);
      for (int64_t j = 0; j < n; j++) M[i * n + j] += xi * (x->has_one && j == n - 1 ? 1 : row[j]);
    }
  }
}

/* Nothing behind the scratch is written, and the state is in order. */
static void check_state(const tracked *t, float garbage) {
  const cv_brand *s = &t->s;
  for (int64_t i = 0; i < GUARD; i++) {
    float x = t->work.floats[t->need.floats + i];
    double y = t->work.doubles[t->need.doubles + i];
    bool is_kept = isnan(garbage) ? isnan(x) && isnan(y) : x == garbage && y == garbage;
    ck_assert(is_kept && t->work.ints[t->need.ints + i] == -7);
  }
  ref_check_padding(s->r_max, s->n, s->U, s->ld);
  ck_assert(s->r >= 0 && s->r <= s->r_max);
  for (int64_t i = 0; i < s->r; i++) ck_assert(s->D[i] >= 0 && (i == 0 || s->D[i] <= s->D[i - 1]));
}

static void update(tracked *t, const cv_brand_rows *x) {
  t->err = (cv_error){0};
  curvd_status status = cv_brand_update(&t->s, x, &t->work, &t->result, &t->err);
  ck_assert_msg(status == CURVD_OK, "%s", t->err.text);
  average(t->s.n, x, t->M);
}

/* E = M - U^T D U of the first r pairs */
static double *error_matrix(const tracked *t, int64_t r) {
  const cv_brand *s = &t->s;
  double *E = ref_doubles(s->n * s->n);
  memcpy(E, t->M, (size_t)(s->n * s->n) * sizeof *E);
  for (int64_t l = 0; l < r; l++) {
    const float *u = s->U + l * s->ld;
    for (int64_t i = 0; i < s->n; i++) {
      double factor = (double)s->D[l] * u[i];
      for (int64_t j = 0; j < s->n; j++) E[i * s->n + j] -= factor * u[j];
    }
  }
  return E;
}

static double error_norm(const tracked *t) {
  double *E = error_matrix(t, t->s.r), norm = ref_norm(t->s.n * t->s.n, E);
  free(E);
  return norm;
}

static double trace_of(int64_t n, const double *M) {
  double trace = 0;
  for (int64_t i = 0; i < n; i++) trace += M[i * n + i];
  return trace;
}

/* ---- updates ---- */

/* What one update may be off by, Frobenius norm over trace: the rows of X = P U + A Q, of U' and of [U; Q] are rounded
 * to fp32, each of which changes a product by 2 units of roundoff (FLT_EPSILON) of its rows' length, D by half of one;
 * and twice that for sums in fp32. Errors of earlier updates stay. */
static const double ROUNDING = 8 * FLT_EPSILON;

/* Largest entry of |U U^T - I| of a basis that is rounded once. */
static const double ORTHONORMAL = 2e-6;

/* While nothing is dropped U^T D U is M: from no pair to all n, with fewer rows than r_max and more than n, with
 * blocks that divide the rows or do not, with and without a constant column. */
START_TEST(test_updates_are_exact_without_truncation) {
  const struct {
    int64_t n, r_max, rows, block;
    bool has_one;
  } cases[] = {{40, 40, 7, 7, false},  {40, 35, 7, 64, true}, {24, 24, 60, 100, false}, {24, 24, 60, 7, true},
               {24, 24, 24, 1, false}, {1, 1, 3, 2, false},   {1, 1, 3, 2, true},       {600, 30, 6, 4, true}};
  enum { UPDATES = 5 };
  for (int c = 0; c < 8; c++) {
    tracked t = tracked_new(cases[c].n, cases[c].r_max, cases[c].block, NAN);
    float *X = ref_floats(cases[c].rows * t.s.ld);
    for (int u = 0; u < UPDATES; u++) {
      ref_fill((uint64_t)(10 * c + u), cases[c].rows, t.s.n - cases[c].has_one, X, t.s.ld);
      cv_brand_rows x = rows_of(&t, cases[c].rows, X, u % 2 ? 0.9 : 1, 0.3);
      x.has_one = cases[c].has_one;
      update(&t, &x);
      check_state(&t, NAN);
      double trace = trace_of(t.s.n, t.M), error = error_norm(&t);
      ck_assert_msg(error <= (u + 1) * ROUNDING * trace, "case %d, update %d: %.1e", c, u, error / trace);
      ck_assert_double_eq_tol(t.s.trace, trace, 1e-12 * trace);
      double defect = ref_orthogonality(t.s.r, t.s.n, t.s.U, t.s.ld);
      ck_assert_msg(defect <= ORTHONORMAL * (double)t.result.blocks, "case %d, update %d: %.1e", c, u, defect);
      ck_assert_int_eq(t.s.r, fmin((double)t.s.n, (double)(cases[c].rows * (u + 1))));
      ck_assert_int_eq(t.result.blocks, (cases[c].rows + t.block - 1) / t.block);
      ck_assert(t.s.error_bound <= 1e-12 * trace);
    }
    free(X), tracked_free(&t);
  }
}
END_TEST

/* Keeps the r largest pairs of M (n, n); returns the next eigenvalue. */
static double truncate_dense(int64_t n, int64_t r, double *M, double *w) {
  double *V = ref_doubles(n * n);
  ref_eig(n, M, V, w);
  ref_compose(r, n, V, w, M);
  free(V);
  return w[r];
}

/* Decaying columns, so that there is something to track. */
static void decaying_rows(uint64_t seed, int64_t rows, int64_t n, float *X, int64_t ld) {
  ref_fill(seed, rows, n, X, ld);
  for (int64_t i = 0; i < rows; i++) {
    for (int64_t j = 0; j < n; j++) X[i * ld + j] *= powf(0.9f, (float)j);
  }
}

/* Each truncated update against LAPACK: D and error_bound are those of the same sequence in fp64, E is
 * semidefinite, and its norm below the bound, which says something. */
START_TEST(test_truncation_is_that_of_lapack_and_bounded) {
  enum { N = 50, R = 8, ROWS = 6, UPDATES = 40 };
  tracked t = tracked_new(N, R, ROWS, NAN);
  double *dense = ref_doubles(N * N), w[N], bound = 0, largest = 0;
  float *X = ref_floats(ROWS * t.s.ld);
  for (int u = 0; u < UPDATES; u++) {
    decaying_rows((uint64_t)u, ROWS, N, X, t.s.ld);
    cv_brand_rows x = rows_of(&t, ROWS, X, 0.9, 0.1);
    update(&t, &x);
    check_state(&t, NAN);
    average(N, &x, dense);
    bound = 0.9 * bound + truncate_dense(N, R, dense, w);
    double off = ROUNDING * fmin(u + 1, 10) * t.s.trace; /* earlier errors decay: 1 / (1 - keep) = 10 */
    ck_assert_double_eq_tol(t.s.error_bound, bound, 10 * off);
    for (int i = 0; i < t.s.r; i++) ck_assert_double_eq_tol(t.s.D[i], w[i], off);
    double *E = error_matrix(&t, t.s.r);
    ref_eigenvalues(N, E, w);
    ck_assert_msg(w[N - 1] >= -off && w[0] <= t.s.error_bound + off, "%g .. %g, bound %g", w[N - 1], w[0],
                  t.s.error_bound);
    largest = fmax(largest, w[0] / t.s.error_bound);
    free(E);
  }
  ck_assert_msg(largest > 0.1, "the bound is %g times too large", 1 / largest);
  free(dense), free(X), tracked_free(&t);
}
END_TEST

/* With a truncation after each block there is more to lose, and the bound covers it. */
START_TEST(test_bound_over_blocks) {
  enum { N = 40, R = 6, ROWS = 33 };
  tracked t = tracked_new(N, R, 5, NAN);
  float *X = ref_floats(ROWS * t.s.ld);
  double w[N];
  for (int u = 0; u < 10; u++) {
    decaying_rows((uint64_t)u, ROWS, N, X, t.s.ld);
    cv_brand_rows x = rows_of(&t, ROWS, X, 0.5, 0.5);
    double before = t.s.error_bound;
    update(&t, &x);
    double *E = error_matrix(&t, t.s.r), off = 7 * 2 * ROUNDING * t.s.trace;
    ref_eigenvalues(N, E, w);
    ck_assert_int_eq(t.result.blocks, 7);
    ck_assert(w[N - 1] >= -off && w[0] <= t.s.error_bound + off);
    ck_assert_double_eq_tol(t.s.error_bound, 0.5 * before + t.result.dropped, 1e-12 * t.s.trace);
    free(E);
  }
  free(X), tracked_free(&t);
}
END_TEST

/* ---- rows that bring little or nothing new ---- */

enum { NEAR_N = 60, NEAR_R = 20, NEAR_ROWS = 10 };

/* X (NEAR_ROWS, n) = 100 times combinations of the rows of U, plus `outside` times random rows */
static void rows_near_span(const tracked *t, float outside, float *X) {
  for (int64_t i = 0; i < NEAR_ROWS; i++) {
    for (int64_t j = 0; j < NEAR_N; j++) {
      double sum = outside * ref_random(77, i * NEAR_N + j);
      for (int64_t l = 0; l < t->s.r; l++) sum += ref_random(78, i * NEAR_R + l) * t->s.U[l * t->s.ld + j];
      X[i * t->s.ld + j] = (float)(100 * sum);
    }
  }
}

/* From rows far outside of the span of U down to rows that rounding cannot tell from it: exact, orthonormal, and
 * projected again exactly where one projection leaves too little. */
START_TEST(test_rows_near_the_span) {
  const float outside[] = {1, 1e-2f, 1e-3f, 1e-4f, 1e-5f, 1e-6f, 1e-7f, 0};
  for (int c = 0; c < 8; c++) {
    tracked t = tracked_new(NEAR_N, NEAR_R + NEAR_ROWS, NEAR_ROWS, NAN);
    float *X = ref_floats(NEAR_R * t.s.ld);
    ref_fill(5, NEAR_ROWS, NEAR_N, X, t.s.ld);
    cv_brand_rows x = rows_of(&t, NEAR_ROWS, X, 1, 1);
    update(&t, &x);
    rows_near_span(&t, outside[c], X);
    x.add = 1e-3; /* the new rows are most of M */
    update(&t, &x);
    check_state(&t, NAN);
    double error = error_norm(&t) / t.s.trace, defect = ref_orthogonality(t.s.r, NEAR_N, t.s.U, t.s.ld);
    ck_assert_msg(error <= 2 * ROUNDING && defect <= ORTHONORMAL, "outside %g: error %.1e, orthogonality %.1e",
                  outside[c], error, defect);
    if (outside[c] == 1 || outside[c] == 0) ck_assert_int_eq(t.result.projections, 1);
    if (outside[c] <= 1e-2f && outside[c] >= 1e-5f) ck_assert_int_eq(t.result.projections, 2);
    if (outside[c] >= 1e-5f || outside[c] == 0) ck_assert_int_eq(t.s.r, (outside[c] > 0 ? 2 : 1) * NEAR_ROWS);
    free(X), tracked_free(&t);
  }
}
END_TEST

/* Zero rows, equal rows, rows of very different lengths; nothing but zeros; no rows at all. */
START_TEST(test_dependent_rows) {
  enum { N = 30, ROWS = 8 };
  for (int c = 0; c < 6; c++) {
    tracked t = tracked_new(N, N, ROWS, NAN);
    float *X = ref_floats(ROWS * t.s.ld);
    ref_fill((uint64_t)c, ROWS, N, X, t.s.ld);
    for (int64_t i = 0; i < ROWS * t.s.ld; i++) {
      int64_t row = i / t.s.ld;
      if (c == 0 && row % 2) X[i] = X[i - t.s.ld];
      if (c == 1) X[i] = X[i % t.s.ld];
      if (c == 2 && row % 2) X[i] *= 0;
      if (c == 3) X[i] *= powf(0.01f, (float)row);
      if (c == 4 && row == 5) X[i] = X[i - t.s.ld] - 2 * X[i - 4 * t.s.ld];
      if (c == 5) X[i] *= 0;
    }
    const int64_t rank[] = {4, 1, 4, -1, 7, 0};
    for (int u = 0; u < 3; u++) {
      cv_brand_rows x = rows_of(&t, u < 2 ? ROWS : 0, X, 0.5, 1);
      update(&t, &x);
      check_state(&t, NAN);
      ck_assert_msg(error_norm(&t) <= (u + 1) * ROUNDING * t.s.trace, "case %d: %.1e", c, error_norm(&t) / t.s.trace);
      double defect = ref_orthogonality(t.s.r, N, t.s.U, t.s.ld);
      ck_assert_msg(defect <= ORTHONORMAL, "case %d, update %d: %.1e", c, u, defect);
      if (u == 0 && c != 3) ck_assert_int_eq(t.result.projections, 1); /* what is 0 needs no second one */
      if (rank[c] >= 0) ck_assert_msg(t.s.r == rank[c], "case %d, update %d: rank %d", c, u, (int)t.s.r);
    }
    free(X), tracked_free(&t);
  }
}
END_TEST

/* More rows at a time than pairs, and so alike that they need a second projection. */
START_TEST(test_more_rows_than_pairs) {
  enum { N = 40, R = 2, ROWS = 30 };
  tracked t = tracked_new(N, R, ROWS, NAN);
  float *X = ref_floats(ROWS * t.s.ld);
  double w[N];
  ref_fill(6, ROWS, N, X, t.s.ld);
  for (int64_t i = t.s.ld; i < ROWS * t.s.ld; i++) X[i] = X[i % t.s.ld] + 1e-5f * X[i];
  cv_brand_rows x = rows_of(&t, ROWS, X, 1, 1);
  update(&t, &x);
  check_state(&t, NAN);
  double *E = error_matrix(&t, t.s.r), off = ROUNDING * t.s.trace;
  ref_eigenvalues(N, E, w);
  ck_assert(t.result.projections == 2 && t.s.r == R && fabs(w[0]) <= off && fabs(w[N - 1]) <= off);
  ck_assert(ref_orthogonality(R, N, t.s.U, t.s.ld) <= ORTHONORMAL);
  free(E), free(X), tracked_free(&t);
}
END_TEST

/* ---- orthogonality ---- */

/* A basis that is far from orthonormal still stands for U^T D U: it becomes orthonormal, and the sum stays. */
START_TEST(test_a_skewed_basis_becomes_orthonormal) {
  enum { N = 50, R = 12, ROWS = 4 };
  const double skew[] = {0, 2e-5, 1e-3, 0.3};
  for (int c = 0; c < 4; c++) {
    tracked t = tracked_new(N, R + ROWS, ROWS, NAN);
    double B[R * N];
    float *X = ref_floats(ROWS * t.s.ld);
    ref_basis(3, R, N, B);
    for (int i = 0; i < R * N; i++) t.s.U[i / N * t.s.ld + i % N] = (float)(B[i] + skew[c] * B[(i + N) % (R * N)]);
    for (int i = 0; i < R; i++) t.s.D[i] = 1 / (1 + (float)i);
    t.s.r = R;
    double *minus = error_matrix(&t, R); /* M is 0: this is -U^T D U */
    for (int i = 0; i < N * N; i++) t.M[i] = -minus[i];
    t.s.trace = trace_of(N, t.M);
    ref_fill(9, ROWS, N, X, t.s.ld);
    cv_brand_rows x = rows_of(&t, ROWS, X, 0.9, 0.1);
    update(&t, &x);
    ck_assert_int_eq(t.result.orthonormalised, c > 0);
    double error = error_norm(&t) / t.s.trace, defect = ref_orthogonality(t.s.r, N, t.s.U, t.s.ld);
    ck_assert_msg(error <= 2 * ROUNDING && defect <= ORTHONORMAL, "skew %g: error %.1e, orthogonality %.1e", skew[c],
                  error, defect);
    free(minus), free(X), tracked_free(&t);
  }
}
END_TEST

/* A full basis has no room for more rows, although a little of X seems to lie outside when U is slightly skewed: that
 * is left out. U U^T - I is at most 2 skew, so X is off by that share, and X^T X by twice that. */
START_TEST(test_a_full_basis_takes_no_more_rows) {
  enum { N = 30, ROWS = 4 };
  const double skew = 3e-6;
  tracked t = tracked_new(N, N, ROWS, NAN);
  double B[N * N];
  float *X = ref_floats(ROWS * t.s.ld);
  ref_basis(3, N, N, B);
  for (int i = 0; i < N * N; i++) t.s.U[i / N * t.s.ld + i % N] = (float)(B[i] + skew * B[(i + N) % (N * N)]);
  t.s.r = N;
  ref_fill(9, ROWS, N, X, t.s.ld);
  for (int i = 0; i < N; i++) t.s.D[i] = 1;
  double *minus = error_matrix(&t, N);
  for (int i = 0; i < N * N; i++) t.M[i] = -minus[i];
  cv_brand_rows x = rows_of(&t, ROWS, X, 1, 1);
  update(&t, &x);
  double error = error_norm(&t), defect = ref_orthogonality(t.s.r, N, t.s.U, t.s.ld);
  ck_assert_int_eq(t.result.orthonormalised, 0);
  ck_assert_int_eq(t.result.projections, 1);
  ck_assert_msg(error <= (4 * skew + ROUNDING) * trace_of(N, t.M) && defect <= 1e-5, "error %.1e, orthogonality %.1e",
                error, defect);
  free(minus), free(X), tracked_free(&t);
}
END_TEST

/* 1e-5 over hundreds of updates; unchecked, these reach it after some tens. */
START_TEST(test_hundreds_of_updates_stay_orthonormal) {
  enum { N = 160, R = 80, ROWS = 20, UPDATES = 300 };
  tracked t = tracked_new(N, R, ROWS, NAN);
  float *X = ref_floats(ROWS * t.s.ld);
  int64_t orthonormalised = 0;
  double worst = 0;
  for (int u = 0; u < UPDATES; u++) {
    decaying_rows((uint64_t)u, ROWS, N, X, t.s.ld);
    cv_brand_rows x = rows_of(&t, ROWS, X, 0.98, 0.02);
    t.err = (cv_error){0};
    ck_assert_int_eq(cv_brand_update(&t.s, &x, &t.work, &t.result, &t.err), CURVD_OK);
    orthonormalised += t.result.orthonormalised;
    worst = fmax(worst, t.result.orthogonality);
    if (u % 20 == 19) ck_assert(ref_orthogonality(t.s.r, N, t.s.U, t.s.ld) <= 1e-5);
  }
  ck_assert_msg(worst <= 1e-5 && orthonormalised > 0 && orthonormalised < UPDATES / 5, "%.1e, %d times", worst,
                (int)orthonormalised);
  free(X), tracked_free(&t);
}
END_TEST

/* ---- how well it follows ---- */

enum { DRIFT_N = 256, DRIFT_RANK = 48, DRIFT_OVER = 10, DRIFT_BATCH = 64, DRIFT_UPDATES = 10 };

/* The rows of V turn by 0.1 rad in planes of random pairs. */
static void drift(int refresh, double *V) {
  int64_t order[DRIFT_N];
  for (int64_t i = 0; i < DRIFT_N; i++) order[i] = i;
  for (int64_t i = DRIFT_N - 1; i > 0; i--) {
    const cv_rng rng = {.seed = (uint64_t)refresh, .stream = CV_RNG_PROBE, .a = 1};
    int64_t j = (int64_t)cv_rng_below(&rng, (uint64_t)i, (uint64_t)i + 1), swap = order[i];
    order[i] = order[j], order[j] = swap;
  }
  for (int64_t p = 0; p < DRIFT_N; p += 2) {
    double *x = V + order[p] * DRIFT_N, *y = V + order[p + 1] * DRIFT_N;
    for (int64_t j = 0; j < DRIFT_N; j++) {
      double turned = cos(0.1) * x[j] - sin(0.1) * y[j];
      y[j] = sin(0.1) * x[j] + cos(0.1) * y[j], x[j] = turned;
    }
  }
}

/* Rows of covariance V^T diag((1 + i / 10)^-1.5) V */
static void drifting_rows(uint64_t seed, const double *V, float *X, int64_t ld) {
  double *z = ref_doubles(DRIFT_BATCH * DRIFT_N), *x = ref_doubles(DRIFT_BATCH * DRIFT_N);
  for (int64_t i = 0; i < DRIFT_BATCH * DRIFT_N; i++)
    z[i] = ref_random(seed, i) * sqrt(3) * pow(1 + (double)(i % DRIFT_N) / 10, -0.75);
  ref_multiply(DRIFT_BATCH, DRIFT_N, DRIFT_N, z, V, x);
  for (int64_t i = 0; i < DRIFT_BATCH * DRIFT_N; i++) X[i / DRIFT_N * ld + i % DRIFT_N] = (float)x[i];
  free(z), free(x);
}

/* Frobenius error of the leading pairs over that of the best ones. */
static double error_over_optimum(const tracked *t) {
  double *E = error_matrix(t, DRIFT_RANK), *w = ref_doubles(DRIFT_N);
  ref_eigenvalues(DRIFT_N, t->M, w);
  double ratio = ref_norm(DRIFT_N * DRIFT_N, E) / ref_norm(DRIFT_N - DRIFT_RANK, w + DRIFT_RANK);
  free(E), free(w);
  return ratio;
}

/* While the average turns, ten pairs more than wanted keep the error within 5 % of the optimum at any time. */
START_TEST(test_follows_a_drifting_average) {
  enum { REFRESHES = 12 };
  tracked t = tracked_new(DRIFT_N, DRIFT_RANK + DRIFT_OVER, DRIFT_BATCH, NAN);
  double *V = ref_doubles(DRIFT_N * DRIFT_N), worst = 0;
  float *X = ref_floats(DRIFT_BATCH * t.s.ld);
  ref_cosines(5, DRIFT_N, V);
  for (int refresh = 0; refresh < REFRESHES; refresh++) {
    if (refresh > 0) drift(refresh, V);
    for (int u = 0; u < DRIFT_UPDATES; u++) {
      drifting_rows((uint64_t)(refresh * DRIFT_UPDATES + u), V, X, t.s.ld);
      cv_brand_rows x = rows_of(&t, DRIFT_BATCH, X, 0.95, 0.05 / DRIFT_BATCH);
      update(&t, &x);
    }
    double ratio = error_over_optimum(&t);
    ck_assert_msg(ratio >= 1 - 1e-6, "below the optimum: %g", ratio);
    worst = fmax(worst, ratio);
  }
  ck_assert_msg(worst <= 1.05 && worst > 1.001, "%.4f", worst);
  free(V), free(X), tracked_free(&t);
}
END_TEST

/* ---- correction ---- */

enum { RITZ_N = 40, RITZ_R = 12, RITZ_LD = RITZ_N + 5 };

/* A state that has lost something. */
static tracked truncated_state(void) {
  tracked t = tracked_new(RITZ_N, RITZ_R, 5, NAN);
  float *X = ref_floats(5 * t.s.ld);
  for (int u = 0; u < 15; u++) {
    decaying_rows((uint64_t)u, 5, RITZ_N, X, t.s.ld);
    cv_brand_rows x = rows_of(&t, 5, X, 0.9, 0.1);
    update(&t, &x);
  }
  free(X);
  return t;
}

static void narrow_matrix(const tracked *t, float *M) {
  for (int64_t i = 0; i < RITZ_N * RITZ_LD; i++)
    M[i] = i % RITZ_LD < RITZ_N ? (float)t->M[i / RITZ_LD * RITZ_N + i % RITZ_LD] : NAN;
}

static int64_t correct(tracked *t, double phi, uint64_t seed, const float *M) {
  int64_t corrected;
  t->err = (cv_error){0};
  curvd_status status = cv_brand_correct(&t->s, M, RITZ_LD, phi, (cv_rng){.seed = seed, .stream = CV_RNG_SKETCH},
                                         t->block, &t->work, &corrected, &t->err);
  ck_assert_msg(status == CURVD_OK, "%s", t->err.text);
  check_state(t, NAN);
  return corrected;
}

/* Row i of U (rows, n) that no row of Other equals, in order; returns how many. */
static int64_t rows_not_in(const float *U, const float *Other, int64_t ld, int64_t *where) {
  int64_t count = 0;
  for (int64_t i = 0; i < RITZ_R; i++) {
    bool is_there = false;
    for (int64_t j = 0; j < RITZ_R; j++)
      is_there = is_there || memcmp(U + i * ld, Other + j * ld, RITZ_N * sizeof *U) == 0;
    if (!is_there) where[count++] = i;
  }
  return count;
}

/* H (m, m) = Q M Q^T of the rows of U at `where` */
static void ritz_matrix(const tracked *t, const float *U, int64_t m, const int64_t *where, double *H) {
  for (int64_t i = 0; i < m * m; i++) {
    const float *x = U + where[i / m] * t->s.ld, *y = U + where[i % m] * t->s.ld;
    H[i] = 0;
    for (int64_t j = 0; j < RITZ_N * RITZ_N; j++) H[i] += x[j / RITZ_N] * t->M[j] * y[j % RITZ_N];
  }
}

/* The rows that changed are the Ritz vectors of those that were there: their eigenvalues are those of the dense H,
 * and M is diagonal on them. The others stay, to the bit. With orthonormal rows the squared error falls by
 * ||H - diag(D)||^2 exactly; its spectral norm keeps the bound. */
START_TEST(test_correction_is_rayleigh_ritz) {
  const double phi[] = {0.2, 0.5, 1, 0.1};
  for (int c = 0; c < 4; c++) {
    tracked t = truncated_state();
    float M[RITZ_N * RITZ_LD], D[RITZ_R], *U = ref_floats(RITZ_R * t.s.ld);
    int64_t old[RITZ_R], now[RITZ_R];
    memcpy(U, t.s.U, (size_t)(RITZ_R * t.s.ld) * sizeof *U), memcpy(D, t.s.D, sizeof D);
    narrow_matrix(&t, M);
    double before = error_norm(&t), off = 4 * ROUNDING * t.s.trace, bound = t.s.error_bound;
    int64_t m = correct(&t, phi[c], 3, M);
    ck_assert_int_eq(m, fmin(round(phi[c] * RITZ_R + 1), RITZ_R));
    ck_assert_int_eq(rows_not_in(U, t.s.U, t.s.ld, old), m);
    ck_assert_int_eq(rows_not_in(t.s.U, U, t.s.ld, now), m);
    double H[RITZ_R * RITZ_R], w[RITZ_N], gain = 0;
    ritz_matrix(&t, U, m, old, H);
    ref_eigenvalues(m, H, w);
    for (int64_t i = 0; i < m; i++) ck_assert_double_eq_tol(t.s.D[now[i]], w[i], off);
    for (int64_t i = 0; i < m * m; i++) gain += pow(H[i] - (i / m == i % m ? D[old[i / m]] : 0), 2);
    ritz_matrix(&t, t.s.U, m, now, H);
    for (int64_t i = 0; i < m * m; i++) ck_assert_double_eq_tol(H[i], i / m == i % m ? t.s.D[now[i / m]] : 0, off);
    double after = error_norm(&t), *E = error_matrix(&t, RITZ_R);
    ck_assert_double_eq_tol(after * after, before * before - gain, 4 * before * off);
    ck_assert(gain > 0 && after <= before + off);
    ck_assert(ref_orthogonality(RITZ_R, RITZ_N, t.s.U, t.s.ld) <= ORTHONORMAL);
    ref_eigenvalues(RITZ_N, E, w);
    ck_assert(t.s.is_corrected && t.s.error_bound == bound && fmax(w[0], -w[RITZ_N - 1]) <= bound + off);
    free(E), free(U), tracked_free(&t);
  }
}
END_TEST

/* Corrections and updates in turn: the bound holds, and grows by the stated factor. */
START_TEST(test_bound_after_many_corrections) {
  tracked t = truncated_state();
  float M[RITZ_N * RITZ_LD], *X = ref_floats(5 * t.s.ld);
  double w[RITZ_N];
  for (int u = 0; u < 30; u++) {
    decaying_rows((uint64_t)(100 + u), 5, RITZ_N, X, t.s.ld);
    cv_brand_rows x = rows_of(&t, 5, X, 0.9, 0.1);
    update(&t, &x);
    narrow_matrix(&t, M);
    double before = t.s.error_bound;
    correct(&t, 0.3, (uint64_t)u, M);
    ck_assert_double_eq_tol(t.s.error_bound, before * (u > 0 ? 2 / sqrt(3) : 1), 1e-12 * before);
    double *E = error_matrix(&t, t.s.r), off = 20 * ROUNDING * t.s.trace;
    ref_eigenvalues(RITZ_N, E, w);
    ck_assert(fmax(w[0], -w[RITZ_N - 1]) <= t.s.error_bound + off);
    free(E);
  }
  free(X), tracked_free(&t);
}
END_TEST

/* Over many keys every row is chosen as often as another: 4 of 12 (phi 0.25), 300 times; a count is binomial with mean
 * 100 and deviation 8.2, of which 5 are allowed. */
START_TEST(test_rows_are_chosen_uniformly) {
  enum { KEYS = 300 };
  tracked t = truncated_state();
  float M[RITZ_N * RITZ_LD], D[RITZ_R], *U = ref_floats(RITZ_R * t.s.ld);
  int count[RITZ_R] = {0};
  narrow_matrix(&t, M);
  memcpy(U, t.s.U, (size_t)(RITZ_R * t.s.ld) * sizeof *U), memcpy(D, t.s.D, sizeof D);
  for (int key = 0; key < KEYS; key++) {
    int64_t old[RITZ_R];
    memcpy(t.s.U, U, (size_t)(RITZ_R * t.s.ld) * sizeof *U), memcpy(t.s.D, D, sizeof D);
    ck_assert_int_eq(correct(&t, 0.25, (uint64_t)key, M), 4);
    ck_assert_int_eq(rows_not_in(U, t.s.U, t.s.ld, old), 4);
    for (int i = 0; i < 4; i++) count[old[i]]++;
  }
  for (int i = 0; i < RITZ_R; i++) ck_assert_msg(abs(count[i] - KEYS / 3) <= 41, "row %d: %d times", i, count[i]);
  free(U), tracked_free(&t);
}
END_TEST

/* ---- what is refused ---- */

static void expect_refusal(tracked *t, const cv_brand_rows *x, const char *word) {
  cv_brand s = t->s;
  size_t bytes = (size_t)(s.r_max * s.ld) * sizeof *s.U;
  float *U = ref_floats(s.r_max * s.ld), D[RITZ_R];
  memcpy(U, s.U, bytes), memcpy(D, s.D, sizeof D);
  t->err = (cv_error){0};
  ck_assert_int_eq(cv_brand_update(&t->s, x, &t->work, &t->result, &t->err), CURVD_ERR_NUMERIC);
  ck_assert_msg(strstr(t->err.text, word), "%s", t->err.text);
  ck_assert(memcmp(&s, &t->s, sizeof s) == 0 && memcmp(U, s.U, bytes) == 0 && memcmp(D, s.D, sizeof D) == 0);
  free(U);
}

START_TEST(test_what_is_not_finite_is_refused) {
  tracked t = truncated_state();
  float *X = ref_floats(20 * t.s.ld);
  const float bad[] = {NAN, INFINITY, -INFINITY, 1e38f};
  for (int i = 0; i < 4; i++) {
    ref_fill(4, 20, RITZ_N, X, t.s.ld);
    X[17 * t.s.ld + 30] = bad[i]; /* in the last of four blocks */
    cv_brand_rows x = rows_of(&t, 20, X, 0.9, 1);
    expect_refusal(&t, &x, "20 rows of length 40");
  }
  ref_fill(4, 20, RITZ_N, X, t.s.ld);
  const double weights[][2] = {{NAN, 1}, {1, NAN}, {-0.1, 1}, {1, -0.1}, {INFINITY, 1}, {1, INFINITY}};
  for (int i = 0; i < 6; i++) {
    cv_brand_rows x = rows_of(&t, 20, X, weights[i][0], weights[i][1]);
    expect_refusal(&t, &x, "keep");
  }
  cv_brand_rows x = rows_of(&t, 20, X, 0.9, 1);
  for (int i = 0; i < 5; i++) {
    float *place = i < 2 ? t.s.U + 3 * t.s.ld + 7 : t.s.D + 3, good = *place;
    *place = i < 4 ? bad[i % 2] : -1;
    expect_refusal(&t, &x, "pairs");
    *place = good;
  }
  for (int64_t i = 0; i < 20 * t.s.ld; i++) X[i] = 3e38f; /* rows of length 1.9e39 */
  cv_brand_rows light = rows_of(&t, 20, X, 1, 1e-50);
  expect_refusal(&t, &light, "20 rows of length 40");
  ref_fill(4, 20, RITZ_N, X, t.s.ld);
  update(&t, &x);
  free(X), tracked_free(&t);
}
END_TEST

static void expect_refused_matrix(tracked *t, const float *M, const char *word) {
  float D[RITZ_R], *U = ref_floats(RITZ_R * t->s.ld);
  int64_t corrected;
  memcpy(U, t->s.U, (size_t)(RITZ_R * t->s.ld) * sizeof *U), memcpy(D, t->s.D, sizeof D);
  t->err = (cv_error){0};
  ck_assert_int_eq(
      cv_brand_correct(&t->s, M, RITZ_LD, 0.2, (cv_rng){.seed = 1}, t->block, &t->work, &corrected, &t->err),
      CURVD_ERR_NUMERIC);
  ck_assert_msg(strstr(t->err.text, word), "%s", t->err.text);
  ck_assert(memcmp(U, t->s.U, (size_t)(RITZ_R * t->s.ld) * sizeof *U) == 0 && memcmp(D, t->s.D, sizeof D) == 0);
  ck_assert(!t->s.is_corrected);
  free(U);
}

START_TEST(test_a_matrix_that_is_not_finite_is_refused) {
  tracked t = truncated_state();
  float M[RITZ_N * RITZ_LD];
  const float bad[] = {NAN, INFINITY};
  for (int i = 0; i < 2; i++) {
    narrow_matrix(&t, M);
    M[33 * RITZ_LD + 33] = bad[i];
    expect_refused_matrix(&t, M, "not finite");
  }
  /* M = 2.5e37 everywhere, U one constant row: U M is below 2e38, the eigenvalue 1e39 beyond fp32 */
  for (int64_t j = 0; j < RITZ_N * RITZ_LD; j++) M[j] = 2.5e37f;
  for (int64_t j = 0; j < RITZ_N; j++) t.s.U[j] = 1 / sqrtf(RITZ_N);
  t.s.r = 1;
  expect_refused_matrix(&t, M, "1e+39");
  tracked_free(&t);
}
END_TEST

/* The two calls of dsyevd in an update, and the one in a correction, may fail or return garbage with info 0. */
START_TEST(test_a_broken_eigensolver_is_noticed) {
  for (int f = 0; f < FAULT_KINDS * 3; f++) {
    int64_t corrected;
    tracked t = truncated_state();
    float M[RITZ_N * RITZ_LD], *X = ref_floats(5 * t.s.ld);
    decaying_rows(50, 5, RITZ_N, X, t.s.ld);
    narrow_matrix(&t, M);
    cv_brand_rows x = rows_of(&t, 5, X, 0.9, 0.1);
    t.err = (cv_error){0};
    fault_arm(&fault_dsyevd, (fault_kind)(f / 3), f % 3 == 1, f % 3 == 1);
    curvd_status status =
        f % 3 < 2 ? cv_brand_update(&t.s, &x, &t.work, &t.result, &t.err)
                  : cv_brand_correct(&t.s, M, RITZ_LD, 0.5, (cv_rng){0}, t.block, &t.work, &corrected, &t.err);
    ck_assert_int_eq(fault_dsyevd.spoilt, 1);
    fault_disarm();
    ck_assert_msg(status == CURVD_ERR_NUMERIC, "%s in call %d is not noticed", fault_name[f / 3], f % 3);
    ck_assert_msg(strstr(t.err.text, f / 3 == FAULT_INFO ? "info 3" : "info 0"), "%s", t.err.text);
    free(X), tracked_free(&t);
  }
}
END_TEST

START_TEST(test_bits_do_not_depend_on_the_scratch) {
  enum { N = 60, R = 15, ROWS = 22 };
  const float garbage[] = {NAN, 1e30f, 0};
  float *U[3], *D[3];
  for (int g = 0; g < 3; g++) {
    tracked t = tracked_new(N, R, 8, garbage[g]);
    float *X = ref_floats(ROWS * t.s.ld);
    for (int u = 0; u < 4; u++) {
      decaying_rows((uint64_t)u, ROWS, N, X, t.s.ld);
      for (int64_t j = 0; j < N && u > 1; j++) X[j] = t.s.U[j] + 1e-3f * X[j]; /* needs a second projection */
      for (int64_t j = 0; j < N && u > 2; j++) t.s.U[j] *= 1.001f;             /* needs a new basis */
      cv_brand_rows x = rows_of(&t, ROWS, X, 0.9, 0.1);
      fill_scratch(&t, garbage[g]);
      update(&t, &x);
      check_state(&t, garbage[g]);
      ck_assert_int_eq(t.result.orthonormalised, u > 2);
      ck_assert(u < 2 || t.result.projections > t.result.blocks);
    }
    U[g] = ref_floats(R * t.s.ld), D[g] = ref_floats(R);
    for (int64_t i = 0; i < R * N; i++) U[g][i] = t.s.U[i / N * t.s.ld + i % N];
    memcpy(D[g], t.s.D, R * sizeof *D[g]);
    ck_assert(memcmp(U[0], U[g], R * N * sizeof *U[g]) == 0 && memcmp(D[0], D[g], R * sizeof *D[g]) == 0);
    free(X), tracked_free(&t);
  }
  for (int g = 0; g < 3; g++) free(U[g]), free(D[g]);
}
END_TEST

START_TEST(test_products_in_fp64) {
  enum { M = 5, N = 7, K = 3, LD = 9 };
  double A[LD * LD], B[LD * LD], C[M * LD];
  for (int t = 0; t < 4; t++) {
    for (int i = 0; i < LD * LD; i++) A[i] = ref_random(1, i), B[i] = ref_random(2, i);
    for (int i = 0; i < M * LD; i++) C[i] = i % LD < N ? 1 : NAN;
    cv_gemm_f64(t & 1 ? CV_T : CV_N, t & 2 ? CV_T : CV_N, M, N, K, 2, A, LD, B, LD, 3, C, LD);
    for (int i = 0; i < M * LD; i++) {
      double sum = 3;
      for (int l = 0; l < K; l++)
        sum += 2 * A[t & 1 ? l * LD + i / LD : i / LD * LD + l] * B[t & 2 ? i % LD * LD + l : l * LD + i % LD];
      if (i % LD >= N) ck_assert(isnan(C[i]));
      if (i % LD < N) ck_assert_double_eq_tol(C[i], sum, 1e-14);
    }
  }
}
END_TEST

int main(void) {
  const TTest *const tests[] = {
      test_updates_are_exact_without_truncation,
      test_truncation_is_that_of_lapack_and_bounded,
      test_bound_over_blocks,
      test_rows_near_the_span,
      test_dependent_rows,
      test_more_rows_than_pairs,
      test_a_skewed_basis_becomes_orthonormal,
      test_a_full_basis_takes_no_more_rows,
      test_hundreds_of_updates_stay_orthonormal,
      test_follows_a_drifting_average,
      test_correction_is_rayleigh_ritz,
      test_bound_after_many_corrections,
      test_rows_are_chosen_uniformly,
      test_what_is_not_finite_is_refused,
      test_a_matrix_that_is_not_finite_is_refused,
      test_a_broken_eigensolver_is_noticed,
      test_bits_do_not_depend_on_the_scratch,
      test_products_in_fp64,
  };
  return suite_run("brand", tests, sizeof tests / sizeof tests[0], NULL);
}
