/* lrps_rows.h against f(M) in fp64, made from LAPACK's eigenvectors of the dense M. */
#include "linalg/dense.h"
#include "linalg/lrps_rows.h"
#include "linalg_reference.h"
#include "precision_fixture.h"
#include "suite.h"

#include <float.h>
#include <string.h>

static const float SENTINEL = 12345;

/* count floats of NaN and a sentinel behind them. */
static float *guarded(int64_t count) {
  float *x = ref_floats(count + 1);
  for (int64_t i = 0; i < count; i++) x[i] = NAN;
  x[count] = SENTINEL;
  return x;
}

static void guarded_free(float *x, int64_t count) {
  ck_assert_msg(x[count] == SENTINEL, "written behind %d floats", (int)count);
  free(x);
}

/* A factor with its matrix. */
typedef struct factor {
  cv_lrps lrps;
  double *M; /* (n, n) */
} factor;

/* Eigenvalues 1, 0.7, 0.49, ... of the first r of n random directions, tau of the others. A full one has a tau of NaN,
 * which must not matter. */
static factor factor_new(uint64_t seed, int64_t n, int64_t r, double tau) {
  factor f = {.lrps = {.n = n, .r = r, .ld = n + 2, .tau = r == n ? NAN : tau}, .M = ref_doubles(n * n)};
  double *Q = ref_doubles(n * n), *values = ref_doubles(n);
  f.lrps.U = ref_floats(r * f.lrps.ld + 1), f.lrps.D = ref_floats(r + 1);
  ref_basis(seed, n, n, Q);
  for (int64_t i = 0; i < n; i++) values[i] = i < r ? (double)(float)pow(0.7, (double)i) : tau;
  ref_compose(n, n, Q, values, f.M);
  for (int64_t i = 0; i < r; i++) {
    f.lrps.D[i] = (float)values[i];
    for (int64_t j = 0; j < f.lrps.ld; j++) f.lrps.U[i * f.lrps.ld + j] = j < n ? (float)Q[i * n + j] : NAN;
  }
  free(Q), free(values);
  return f;
}

static void factor_free(factor *f) {
  free(f->lrps.U), free(f->lrps.D), free(f->M);
}

/* F (n, n) = (M + damping)^-exponent, or I; returns its largest eigenvalue. */
static double function_of(const factor *f, bool is_identity, double damping, double exponent, double *F) {
  int64_t n = f->lrps.n;
  double *V = ref_doubles(n * n), *w = ref_doubles(n), largest = 0;
  ref_eig(n, f->M, V, w);
  for (int64_t i = 0; i < n; i++) {
    w[i] = is_identity || exponent == 0 ? 1 : pow(fmax(w[i], 0) + damping, -exponent);
    largest = fmax(largest, w[i]);
  }
  ref_compose(n, n, V, w, F);
  free(V), free(w);
  return largest;
}

/* fp32 rows in fp64, with the 1 behind them. */
static double *widened(int64_t count, int64_t n, const float *X, int64_t ld, bool has_one) {
  double *wide = ref_doubles(count * n + 1);
  for (int64_t i = 0; i < count; i++) {
    for (int64_t j = 0; j < n; j++) wide[i * n + j] = has_one && j == n - 1 ? 1 : (double)X[i * ld + j];
  }
  return wide;
}

static float *store_of(const factor *f) {
  return guarded(cv_lrps_rows_store(f->lrps.n, f->lrps.r));
}

static void store_free(float *store, const factor *f) {
  guarded_free(store, cv_lrps_rows_store(f->lrps.n, f->lrps.r));
}

static int64_t packed_count(const factor *f, const cv_multiplier *by) {
  return cv_lrps_rows_packed(by ? by->precision : CV_FP32, f->lrps.n, f->lrps.r);
}

/* As many bf16 numbers, none with a value, and a sentinel behind them. */
static uint16_t *packed_of(const factor *f, const cv_multiplier *by) {
  int64_t count = packed_count(f, by);
  uint16_t *packed = malloc((size_t)(count + 1) * sizeof *packed);
  ck_assert_ptr_nonnull(packed);
  for (int64_t i = 0; i <= count; i++) packed[i] = 0x7fff;
  return packed;
}

static void packed_free(uint16_t *packed, const factor *f, const cv_multiplier *by) {
  ck_assert_int_eq(packed[packed_count(f, by)], 0x7fff);
  free(packed);
}

typedef struct way {
  bool is_identity, has_one, in_place, is_unscaled;
  const cv_multiplier *by;
} way;

/* Both products sum n or r terms, and U is rounded: (n + r) eps of the largest f, by row. bf16 rounds four operands, V
 * twice, and sqrt(r) |V| is above the norm of V's absolute values; |V|^2 is at most the largest f. */
static void check_rows(const factor *f, const way *how, double top, int64_t count, const double *x, const double *F,
                       double scale, const float *Y, int64_t ld) {
  int64_t n = f->lrps.n;
  double *want = ref_doubles(count * n + 1), r = (double)f->lrps.r;
  double tolerance = ((double)n + r) * FLT_EPSILON * top + 4 * sqrt(r) * precision_rounding(how->by) * top;
  ref_multiply(count, n, n, x, F, want);
  for (int64_t i = 0; i < count; i++) {
    double error = 0;
    for (int64_t j = 0; j < n; j++) error = fmax(error, fabs(scale * Y[i * ld + j] - want[i * n + j]));
    ck_assert_msg(error <= tolerance * ref_norm(n, x + i * n), "n %d r %d tau %g identity %d one %d place %d: %g",
                  (int)n, (int)f->lrps.r, f->lrps.tau, how->is_identity, how->has_one, how->in_place, error);
  }
  ref_check_padding(count, n, Y, ld);
  free(want);
}

static void check_apply(const factor *f, double damping, double exponent, int64_t count, way how) {
  int64_t n = f->lrps.n, ld = n + 5, floats = cv_lrps_rows_scratch(n, f->lrps.r, count);
  float *store = store_of(f), *X = ref_floats(count * ld + 1), *Y = how.in_place ? X : guarded(count * ld);
  float *work = guarded(floats);
  uint16_t *packed = packed_of(f, how.by);
  double *F = ref_doubles(n * n), top = function_of(f, how.is_identity, damping, exponent, F);
  cv_lrps_rows rows;
  ck_assert_int_eq(cv_lrps_rows_make(&f->lrps, how.is_identity, damping, exponent, how.by, store, packed, &rows, NULL),
                   CURVD_OK);
  ref_fill(9, count, n - how.has_one, X, ld); /* what has_one adds is not there */
  double *x = widened(count, n, X, ld, how.has_one);
  if (how.is_unscaled) {
    cv_lrps_rows_apply_unscaled(&rows, count, X, ld, how.has_one, Y, ld, work);
  } else {
    cv_lrps_rows_apply(&rows, count, X, ld, how.has_one, Y, ld, work);
  }
  check_rows(f, &how, top, count, x, F, how.is_unscaled ? rows.scale : 1, Y, ld);
  guarded_free(work, floats), store_free(store, f), packed_free(packed, f, how.by);
  if (!how.in_place) guarded_free(Y, count * ld);
  free(X), free(x), free(F);
}

/* Every power, from no kept pairs to all of them; tau 0, below the kept ones, and among them (signs of both kinds). */
static void check_against_dense(const cv_multiplier *by) {
  const double exponents[] = {1, 0.5, 0.25, 0, 0.7}, taus[] = {0, 0.01, 0.5};
  const int64_t sizes[][2] = {{1, 0}, {1, 1}, {37, 0}, {37, 5}, {37, 36}, {37, 37}, {130, 130}};
  for (int c = 0; c < 7 * 3; c++) {
    factor f = factor_new(3, sizes[c / 3][0], sizes[c / 3][1], taus[c % 3]);
    for (int k = 0; k < 5 * 8; k++) {
      check_apply(&f, 0.05, exponents[k / 8], 11, (way){false, k & 1, k & 2, k & 4, by});
    }
    factor_free(&f);
  }
}

START_TEST(test_rows_against_dense) {
  check_against_dense(NULL);
}
END_TEST

START_TEST(test_rows_of_every_precision) {
  for (int i = 0; i < PRECISION_CASES; i++) {
    cv_multiplier by = precision_case(i);
    check_against_dense(&by);
    precision_free(&by);
  }
}
END_TEST

/* Frobenius norm of what a precision makes of 40 rows less what fp64 does, relative to that. */
static double error_of(const factor *f, cv_precision precision, const float *X, const double *want) {
  int64_t n = f->lrps.n, count = 40;
  cv_multiplier by = precision_new(precision, "auto");
  float *store = store_of(f), *Y = ref_floats(count * n), *work = guarded(cv_lrps_rows_scratch(n, f->lrps.r, count));
  uint16_t *packed = packed_of(f, &by);
  double *off = ref_doubles(count * n);
  cv_lrps_rows rows;
  ck_assert_int_eq(cv_lrps_rows_make(&f->lrps, false, 0.3, 1, &by, store, packed, &rows, NULL), CURVD_OK);
  cv_lrps_rows_apply(&rows, count, X, n, false, Y, n, work);
  for (int64_t i = 0; i < count * n; i++) off[i] = (double)Y[i] - want[i];
  double error = ref_norm(count * n, off) / ref_norm(count * n, want);
  free(store), free(Y), free(work), free(packed), free(off), precision_free(&by);
  return error;
}

/* Both precisions are there: random numbers in bf16 are off by some 1e-3, in three products at least 100 times less.
 * tau lies among the kept eigenvalues, so both signs have their share. */
START_TEST(test_precisions_differ) {
  const int64_t n = 130, kept[] = {30, 130};
  for (int c = 0; c < 2; c++) {
    factor f = factor_new(3, n, kept[c], 0.2);
    float *X = ref_floats(40 * n);
    double *F = ref_doubles(n * n), *want = ref_doubles(40 * n);
    ref_fill(9, 40, n, X, n);
    double *x = widened(40, n, X, n, false);
    function_of(&f, false, 0.3, 1, F);
    ref_multiply(40, n, n, x, F, want);
    double fp32 = error_of(&f, CV_FP32, X, want), bf16 = error_of(&f, CV_BF16, X, want),
           three = error_of(&f, CV_BF16X3, X, want);
    ck_assert_msg(fp32 < 1e-6 && bf16 > 2e-4 && bf16 < 5e-3 && three < bf16 / 100, "r %d: %.1e, %.1e, %.1e",
                  (int)kept[c], fp32, bf16, three);
    free(X), free(x), free(F), free(want), factor_free(&f);
  }
}
END_TEST

START_TEST(test_identity_side) {
  factor f = factor_new(3, 20, 6, 0), full = factor_new(4, 20, 20, 0);
  for (int k = 0; k < 8; k++) {
    check_apply(&f, 0, 1, 7, (way){true, k & 1, k & 2, k & 4});
    check_apply(&full, 0, 1, 7, (way){true, k & 1, k & 2, k & 4});
  }
  factor_free(&f), factor_free(&full);
}
END_TEST

START_TEST(test_no_rows_and_one_row) {
  const int64_t kept[] = {0, 4, 12};
  for (int c = 0; c < 3; c++) {
    factor f = factor_new(3, 12, kept[c], 0.02);
    for (int k = 0; k < 8; k++) check_apply(&f, 0.1, 0.5, k & 1, (way){false, k & 2, k & 4, false});
    factor_free(&f);
  }
}
END_TEST

/* Factors so large and so small that f is 1e-30 and 1e30, whose squares fp32 does not hold. */
START_TEST(test_extreme_scales) {
  const double sizes[] = {1e30, 1e-30};
  for (int c = 0; c < 2 * 2; c++) {
    factor f = factor_new(3, 12, c / 2 ? 12 : 4, 0.01);
    f.lrps.tau *= sizes[c % 2];
    for (int64_t i = 0; i < f.lrps.r; i++) f.lrps.D[i] *= (float)sizes[c % 2];
    for (int64_t i = 0; i < 12 * 12; i++) f.M[i] *= sizes[c % 2];
    check_apply(&f, 0.05 * sizes[c % 2], 1, 5, (way){0});
    factor_free(&f);
  }
}
END_TEST

/* ---- what is refused ---- */

static void check_refused(const factor *f, double damping, double exponent, curvd_status status, const char *words) {
  float *store = store_of(f);
  cv_lrps_rows rows = {.n = -7};
  cv_error err = {0};
  ck_assert_int_eq(cv_lrps_rows_make(&f->lrps, false, damping, exponent, NULL, store, NULL, &rows, &err), status);
  ck_assert_msg(strstr(err.text, words) != NULL, "%s", err.text);
  ck_assert_int_eq(rows.n, -7);
  store_free(store, f);
}

START_TEST(test_refuses_a_function_that_is_not_finite) {
  factor low = factor_new(3, 12, 4, 0), none = factor_new(3, 12, 0, 0), full = factor_new(4, 12, 12, 0);
  check_refused(&low, 0, 1, CURVD_ERR_NUMERIC, "raise damping");
  check_refused(&low, 0, 0.25, CURVD_ERR_NUMERIC, "raise damping");
  check_refused(&none, 0, 0.5, CURVD_ERR_NUMERIC, "raise damping");
  check_refused(&low, 1e-39, 1, CURVD_ERR_NUMERIC, "raise damping"); /* finite in fp64 only */
  check_apply(&low, 0, 0, 5, (way){0});                              /* 0^0 = 1 */
  check_apply(&full, 0, 1, 5, (way){0});
  full.lrps.D[11] = 0;
  check_refused(&full, 0, 1, CURVD_ERR_NUMERIC, "raise damping");
  low.lrps.tau = 0.1, low.lrps.D[3] = 0;
  check_refused(&low, 0, 1, CURVD_ERR_NUMERIC, "raise damping");
  factor_free(&low), factor_free(&none), factor_free(&full);
}
END_TEST

START_TEST(test_refuses_bad_spectra) {
  const float bad[] = {INFINITY, NAN, -1e-6f, 0.9f}; /* the last: above its predecessor */
  const int places[] = {0, 2, 3, 2};
  const char *const words[] = {"eigenvalue 0 of 4", "eigenvalue 2 of 4", "eigenvalue 3 of 4", "eigenvalue 2 of 4"};
  factor f = factor_new(3, 12, 4, 0.1);
  for (int k = 0; k < 4; k++) {
    float good = f.lrps.D[places[k]];
    f.lrps.D[places[k]] = bad[k];
    check_refused(&f, 0.1, 1, CURVD_ERR_NUMERIC, words[k]);
    f.lrps.D[places[k]] = good;
  }
  const double tails[] = {NAN, INFINITY, -1e-6};
  for (int k = 0; k < 3; k++) {
    f.lrps.tau = tails[k];
    check_refused(&f, 0.1, 1, CURVD_ERR_NUMERIC, "tail");
  }
  factor_free(&f);
}
END_TEST

START_TEST(test_refuses_arguments_out_of_range) {
  factor f = factor_new(3, 12, 4, 0.1);
  const double bad[][2] = {{-0.1, 1}, {NAN, 1}, {INFINITY, 1}, {0.1, -0.1}, {0.1, 1.1}, {0.1, NAN}};
  for (int k = 0; k < 6; k++) check_refused(&f, bad[k][0], bad[k][1], CURVD_ERR_ARGUMENT, "damping");
  float *store = store_of(&f);
  cv_lrps_rows rows;
  const int64_t sizes[][2] = {{0, 0}, {3, 4}, {12, -1}};
  for (int k = 0; k < 3; k++) {
    f.lrps.n = sizes[k][0], f.lrps.r = sizes[k][1];
    ck_assert_int_eq(cv_lrps_rows_make(&f.lrps, true, 0.1, 1, NULL, store, NULL, &rows, NULL), CURVD_ERR_ARGUMENT);
  }
  f.lrps.n = 12, f.lrps.r = 4;
  store_free(store, &f), factor_free(&f);
}
END_TEST

/* ---- a layer's direction ---- */

typedef struct layer_case {
  int64_t m, r_g, n, r_a, count;
  bool identity_g, identity_a, has_one;
  double keep;
  const cv_multiplier *by;
} layer_case;

/* want (m, n) = keep old + scale F_G (g^T a) F_A */
static void dense_direction(const layer_case *c, const double *F_G, const double *F_A, const double *g, const double *a,
                            double scale, const float *old, double *want) {
  int64_t m = c->m, n = c->n;
  double *V = ref_doubles(m * n), *W = ref_doubles(m * n);
  for (int64_t b = 0; b < c->count; b++) {
    for (int64_t i = 0; i < m * n; i++) V[i] += g[b * m + i / n] * a[b * n + i % n];
  }
  ref_multiply(m, n, m, F_G, V, W);
  ref_multiply(m, n, n, W, F_A, want);
  for (int64_t i = 0; i < m * n; i++) want[i] = scale * want[i] + (c->keep == 0 ? 0 : c->keep * old[i]);
  free(V), free(W);
}

/* A sum of count products of two rows, each right to (size + r) eps as above, and one rounding of out. bf16 rounds each
 * row as above, and once more for the sum. */
static double direction_tolerance(const layer_case *c, double top, double norms) {
  double roundings = 2 + 4 * sqrt((double)c->r_g) + 4 * sqrt((double)c->r_a);
  return FLT_EPSILON * (norms * top * (double)(c->count + c->m + c->r_g + c->n + c->r_a) + 2) +
         1.01 * precision_rounding(c->by) * roundings * norms * top; /* 1.01: errors of errors */
}

static void check_direction(const layer_case *c) {
  int64_t m = c->m, n = c->n, ldg = m + 1, lda = n + 2, ldo = n + 3, one = c->has_one ? 1 : 0;
  int64_t floats = cv_lrps_rows_direction_scratch(m, c->r_g, n, c->r_a, c->count);
  factor G = factor_new(5, m, c->r_g, 0.02), A = factor_new(6, n, c->r_a, 0.6);
  float *store_g = store_of(&G), *store_a = store_of(&A), *work = guarded(floats), *out = ref_floats(m * ldo);
  float *g = ref_floats(c->count * ldg + 1), *a = ref_floats(c->count * lda + 1);
  double *F_G = ref_doubles(m * m), *F_A = ref_doubles(n * n), *want = ref_doubles(m * n), scale = -0.3;
  double top = function_of(&G, c->identity_g, 0.1, 0.5, F_G) * function_of(&A, c->identity_a, 0.05, 1, F_A);
  uint16_t *packed_g = packed_of(&G, c->by), *packed_a = packed_of(&A, c->by);
  cv_lrps_rows of_g, of_a;
  ck_assert_int_eq(cv_lrps_rows_make(&G.lrps, c->identity_g, 0.1, 0.5, c->by, store_g, packed_g, &of_g, NULL),
                   CURVD_OK);
  ck_assert_int_eq(cv_lrps_rows_make(&A.lrps, c->identity_a, 0.05, 1, c->by, store_a, packed_a, &of_a, NULL), CURVD_OK);
  ref_fill(1, c->count, m, g, ldg), ref_fill(2, c->count, n - one, a, lda), ref_fill(3, m, n, out, ldo);
  double *wide_g = widened(c->count, m, g, ldg, false), *wide_a = widened(c->count, n, a, lda, c->has_one);
  double *old = widened(m, n, out, ldo, false), norms = ref_norm(c->count * m, wide_g) * ref_norm(c->count * n, wide_a);
  float *narrow_old = ref_floats(m * n);
  for (int64_t i = 0; i < m * n; i++) narrow_old[i] = (float)old[i];
  if (c->keep == 0) ref_fill(3, m, 0, out, ldo); /* NaN everywhere */
  dense_direction(c, F_G, F_A, wide_g, wide_a, (float)scale, narrow_old, want);
  ck_assert_int_eq(cv_lrps_rows_direction(&of_g, &of_a, c->count, g, ldg, a, lda, c->has_one, (float)scale,
                                          (float)c->keep, out, ldo, work, NULL),
                   CURVD_OK);
  for (int64_t i = 0; i < m * n; i++) {
    double error = fabs(out[i / n * ldo + i % n] - want[i]);
    ck_assert_msg(error <= direction_tolerance(c, top, norms), "count %d r %d %d keep %g: %g", (int)c->count,
                  (int)c->r_g, (int)c->r_a, c->keep, error);
  }
  ref_check_padding(m, n, out, ldo);
  ref_check_padding(c->count, m, g, ldg), ref_check_padding(c->count, n - one, a, lda);
  guarded_free(work, floats), store_free(store_g, &G), store_free(store_a, &A);
  packed_free(packed_g, &G, c->by), packed_free(packed_a, &A, c->by);
  factor_free(&G), factor_free(&A);
  free(out), free(g), free(a), free(F_G), free(F_A), free(want), free(wide_g), free(wide_a), free(old);
  free(narrow_old);
}

/* No rows, one, one block, the last row of a block, two and three blocks. */
static void check_directions(const cv_multiplier *by) {
  const int64_t counts[] = {0, 1, 9, CV_LRPS_ROWS_BLOCK, CV_LRPS_ROWS_BLOCK + 1, 2 * CV_LRPS_ROWS_BLOCK + 3};
  const int64_t kept[][2] = {{4, 5}, {0, 5}, {13, 5}, {4, 17}, {13, 17}};
  for (int k = 0; k < 6 * 5 * 4; k++) {
    const int64_t *r = kept[k / 24];
    check_direction(
        &(layer_case){13, r[0], 17, r[1], counts[k % 6], .has_one = k / 6 & 1, .keep = k / 12 & 1 ? 0.5 : 0, .by = by});
  }
}

START_TEST(test_direction_against_dense) {
  check_directions(NULL);
}
END_TEST

START_TEST(test_direction_of_every_precision) {
  for (int i = 0; i < PRECISION_CASES; i++) {
    cv_multiplier by = precision_case(i);
    check_directions(&by);
    precision_free(&by);
  }
}
END_TEST

START_TEST(test_direction_with_identity_sides) {
  cv_multiplier by = precision_new(CV_BF16, "auto");
  for (int k = 0; k < 32; k++) {
    check_direction(&(layer_case){13, 4, 17, 5, k & 8 ? 700 : 6, k & 1, k & 2, k & 4, 0.5, k & 16 ? &by : NULL});
  }
  precision_free(&by);
}
END_TEST

/* Error of g^T a alone, both sides the identity, relative to its size. */
static double gradient_error(cv_precision precision, int64_t count, int64_t n, const float *g, const float *a) {
  factor f = factor_new(3, n, 0, 0.1);
  cv_multiplier by = precision_new(precision, "auto");
  float *store = store_of(&f), *out = ref_floats(n * n),
        *work = guarded(cv_lrps_rows_direction_scratch(n, 0, n, 0, count));
  double *off = ref_doubles(n * n), *want = ref_doubles(n * n);
  cv_lrps_rows rows;
  ck_assert_int_eq(cv_lrps_rows_make(&f.lrps, true, 0, 1, &by, store, NULL, &rows, NULL), CURVD_OK);
  ck_assert_int_eq(cv_lrps_rows_direction(&rows, &rows, count, g, n, a, n, false, 1, 0, out, n, work, NULL), CURVD_OK);
  for (int64_t i = 0; i < n * n; i++) {
    for (int64_t b = 0; b < count; b++) want[i] += (double)g[b * n + i / n] * a[b * n + i % n];
    off[i] = out[i] - want[i];
  }
  double error = ref_norm(n * n, off) / ref_norm(n * n, want);
  free(store), free(out), free(work), free(off), free(want), precision_free(&by), factor_free(&f);
  return error;
}

/* The last product has the precision, too: 2.4e-3 of random numbers (multiply.h). */
START_TEST(test_gradient_has_the_precision) {
  enum { COUNT = 50, N = 40 };
  float g[COUNT * N], a[COUNT * N];
  ref_fill(1, COUNT, N, g, N), ref_fill(2, COUNT, N, a, N);
  double fp32 = gradient_error(CV_FP32, COUNT, N, g, a), bf16 = gradient_error(CV_BF16, COUNT, N, g, a),
         three = gradient_error(CV_BF16X3, COUNT, N, g, a);
  ck_assert_msg(fp32 < 1e-6 && bf16 > 1e-3 && bf16 < 5e-3 && three < bf16 / 100, "%.1e, %.1e, %.1e", fp32, bf16, three);
}
END_TEST

START_TEST(test_direction_refuses_an_infinite_scale) {
  factor f = factor_new(3, 6, 2, 0);
  float *store = store_of(&f), x[16] = {0}, out[36], *work = guarded(cv_lrps_rows_direction_scratch(6, 2, 6, 2, 1));
  for (int i = 0; i < 36; i++) out[i] = 7;
  cv_lrps_rows rows;
  cv_error err = {0};
  ck_assert_int_eq(cv_lrps_rows_make(&f.lrps, false, 1e-20, 1, NULL, store, NULL, &rows, NULL), CURVD_OK);
  ck_assert_int_eq(cv_lrps_rows_direction(&rows, &rows, 1, x, 6, x, 6, false, 1, 0, out, 6, work, &err),
                   CURVD_ERR_NUMERIC);
  ck_assert_msg(strstr(err.text, "raise damping") != NULL, "%s", err.text);
  for (int i = 0; i < 36; i++) ck_assert(out[i] == 7);
  guarded_free(work, cv_lrps_rows_direction_scratch(6, 2, 6, 2, 1)), store_free(store, &f), factor_free(&f);
}
END_TEST

int main(void) {
  const TTest *const tests[] = {
      test_rows_against_dense,
      test_rows_of_every_precision,
      test_precisions_differ,
      test_identity_side,
      test_no_rows_and_one_row,
      test_extreme_scales,
      test_refuses_a_function_that_is_not_finite,
      test_refuses_bad_spectra,
      test_refuses_arguments_out_of_range,
      test_direction_against_dense,
      test_direction_of_every_precision,
      test_direction_with_identity_sides,
      test_gradient_has_the_precision,
      test_direction_refuses_an_infinite_scale,
  };
  return suite_run("lrps_rows", tests, sizeof tests / sizeof tests[0], NULL);
}
