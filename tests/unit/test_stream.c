/* The streaming sketch against dense fp64: what it accumulates, and what a solve, a new seed and a second product make
 * of it. */
#include "stream_fixture.h"
#include "suite.h"

#include <float.h>

enum { PARTS_MAX = 6 };

/* ---- dense fp64 ---- */

/* X (rows, n) of statistics, a constant 1 behind each row included. */
static double *wide_rows(const cv_stream_rows *X, int64_t n) {
  double *out = ref_doubles(X->rows * n + 1);
  for (int64_t i = 0; i < X->rows * n; i++) {
    int64_t j = i % n;
    out[i] = X->has_one && j == n - 1 ? 1 : X->X[i / n * X->ld + j];
  }
  return out;
}

/* M (n, n) = keep M + weight X^T X; of absolute values with is_size. */
static void dense_add(double keep, const cv_stream_rows *X, int64_t n, bool is_size, double *M) {
  double *x = wide_rows(X, n);
  for (int64_t i = 0; i < X->rows * n; i++) x[i] = is_size ? fabs(x[i]) : x[i];
  for (int64_t i = 0; i < n * n; i++) M[i] *= keep;
  for (int64_t b = 0; b < X->rows; b++) {
    for (int64_t i = 0; i < n * n; i++) M[i] += X->weight * x[b * n + i / n] * x[b * n + i % n];
  }
  free(x);
}

/* Largest |Y - Omega M| over the share u of |Omega| size, entry by entry of `rows` rows from `from` on, where size
 * bounds M: at most 1 when every entry of Y is as good as sums of fp32 numbers with u / 2^-24 operations in a row are.
 */
static double product_error(const sketch *a, int64_t from, int64_t rows, const double *M, const double *size,
                            double u) {
  int64_t n = a->s.n;
  const float *found = a->s.Y + from * a->s.ld;
  double *Omega = wide(rows, n, a->s.Omega + from * a->s.ld, a->s.ld), *Y = ref_doubles(rows * n),
         *bound = ref_doubles(rows * n);
  ref_multiply(rows, n, n, Omega, M, Y);
  for (int64_t i = 0; i < rows * n; i++) Omega[i] = fabs(Omega[i]);
  ref_multiply(rows, n, n, Omega, size, bound);
  double worst = 0;
  for (int64_t i = 0; i < rows * n; i++) {
    double off = fabs(found[i / n * a->s.ld + i % n] - Y[i]) / (u * bound[i]);
    worst = isnan(worst) || off <= worst ? worst : off;
  }
  free(Omega), free(Y), free(bound);
  return worst;
}

/* ||Y - Omega M|| / ||M|| over `rows` rows from `from` on, Frobenius norms. */
static double relative_off(const sketch *a, int64_t from, int64_t rows, const double *M) {
  int64_t n = a->s.n;
  double *Omega = wide(rows, n, a->s.Omega + from * a->s.ld, a->s.ld), *Y = ref_doubles(rows * n);
  ref_multiply(rows, n, n, Omega, M, Y);
  for (int64_t i = 0; i < rows * n; i++) Y[i] -= a->s.Y[(from + i / n) * a->s.ld + i % n];
  double off = ref_norm(rows * n, Y) / ref_norm(n * n, M);
  free(Omega), free(Y);
  return off;
}

/* M^ (n, n) of the header, from the last solve and the Omega of its stream. */
static double *estimate_of(const sketch *a) {
  int64_t n = a->s.n, k = a->s.k;
  double rest = a->s.trace, *M = ref_doubles(n * n), *Omega = wide(k, n, a->s.Omega, a->s.ld);
  for (int64_t i = 0; i < a->result.found; i++) rest -= a->D[i];
  subtract_estimate(a, a->result.found, k < n ? rest / (double)(n - k) : 0, Omega, k, M);
  for (int64_t i = 0; i < n * n; i++) M[i] = -M[i];
  free(Omega);
  return M;
}

static double trace_of(int64_t n, const double *M) {
  double sum = 0;
  for (int64_t i = 0; i < n; i++) sum += M[i * n + i];
  return sum;
}

/* ---- statistics ---- */

/* Rows without a pattern, or with covariances (1 + j)^-power in some directions. */
static cv_stream_rows rows_new(uint64_t seed, int64_t rows, int64_t n, bool has_one, double weight, double power) {
  int64_t ld = n + PAD;
  float *X = holes(rows * ld + 1);
  ref_fill(seed, rows, n - has_one, X, ld);
  for (int64_t i = 0; i < rows * (n - has_one); i++) {
    int64_t j = i % (n - has_one);
    X[i / (n - has_one) * ld + j] *= (float)pow(1 + (double)j, -power / 2);
  }
  return (cv_stream_rows){.rows = rows, .ld = ld, .X = X, .has_one = has_one, .weight = weight};
}

static void rows_free(const cv_stream_rows *X) {
  free((void *)X->X);
}

/* Averages of some parts with decay between them, by the stream and in fp64. */
static void accumulate(sketch *a, int parts, bool has_one, double *M, double *size) {
  const int64_t rows[PARTS_MAX] = {7, 0, 300, 1, 256, 257}; /* blocks of 256: none, one, some with a rest */
  for (int i = 0; i < parts; i++) {
    cv_stream_rows X = rows_new(10 + (uint64_t)i, rows[i], a->s.n, has_one, 0.05, 1);
    add(a, 0.95, &X);
    dense_add(0.95, &X, a->s.n, false, M);
    if (size) dense_add(0.95, &X, a->s.n, true, size);
    rows_free(&X);
  }
}

/* ||Y - Omega M|| / ||M|| of the k rows, and of the probes. */
typedef struct accuracy {
  double rows, probes;
} accuracy;

/* Y = Omega M to rounding: every entry is n + 823 products and sums, and 3 more a part; in three terms each of the two
 * products is off by another 3 2^-16. For the probes as well, which are fp32 in any case. The trace has fp32 sums of at
 * most 16 squares. */
static accuracy check_accumulation(const cv_multiplier *by, int64_t n, int64_t k, bool has_one) {
  sketch a = sketch_new(n, k, 1);
  double *M = ref_doubles(n * n), *size = ref_doubles(n * n);
  a.by = by;
  accumulate(&a, PARTS_MAX, has_one, M, size);
  double u = (double)(n + 823 + 3 * PARTS_MAX) * FLT_EPSILON / 2, rounding = by ? 6 * 0x1p-16 : 0;
  double off = product_error(&a, 0, k, M, size, u + rounding), off_probes = product_error(&a, k, PROBES, M, size, u);
  ck_assert_msg(off <= 1 && off_probes <= 1, "n %d: %g, probes %g", (int)n, off, off_probes);
  ck_assert_double_eq_tol(a.s.trace, trace_of(n, M), 2e-6 * a.s.trace);
  accuracy found = {relative_off(&a, 0, k, M), relative_off(&a, k, PROBES, M)};
  free(M), free(size);
  sketch_free(&a);
  return found;
}

START_TEST(test_history_is_the_product_with_the_average) {
  check_accumulation(NULL, 60, 12, false);
  check_accumulation(NULL, 61, 12, true);
  check_accumulation(NULL, 20, 20, true);
  check_accumulation(NULL, 1, 1, false);
  check_accumulation(NULL, 1, 1, true); /* the 1 alone */
}
END_TEST

static cv_multiplier three_terms(const cv_unit *unit) {
  return (cv_multiplier){CV_BF16X3, unit, ref_block(cv_multiplier_room(CV_BF16X3), sizeof(uint16_t))};
}

/* Two products, each off by 4.4e-6 of its size (multiply.h), which is at most that of M. */
START_TEST(test_history_in_three_terms) {
  accuracy fp32 = check_accumulation(NULL, 60, 12, false);
  for (const cv_unit *const *unit = cv_units; *unit; unit++) {
    if (!(*unit)->is_there()) continue;
    cv_multiplier by = three_terms(*unit);
    check_accumulation(&by, 61, 12, true), check_accumulation(&by, 1, 1, true);
    accuracy now = check_accumulation(&by, 60, 12, false);
    ck_assert_msg(now.rows < 8.8e-6 && now.rows > 5 * fp32.rows, "%s: off by %g, fp32 by %g", (*unit)->name, now.rows,
                  fp32.rows);
    ck_assert_msg(now.probes < 2 * fp32.probes, "%s: probes off by %g", (*unit)->name, now.probes);
    free(by.room);
  }
}
END_TEST

/* Four workers, each with a part of the rows; their sums, mixed into a stream, are the sketch of all rows. */
START_TEST(test_sums_of_workers_are_the_sketch_of_the_sum) {
  enum { N = 50, K = 10, WORKERS = 4, ROWS = K + PROBES };
  sketch a = sketch_new(N, K, 1);
  float *S = ref_floats(WORKERS * ROWS * N);
  double *M = ref_doubles(N * N), *size = ref_doubles(N * N), trace = 0;
  accumulate(&a, 3, true, M, size);
  for (int64_t i = 0; i < N * N; i++) M[i] *= 0.9, size[i] *= 0.9;
  for (int w = 0; w < WORKERS; w++) {
    float *own = S + w * ROWS * N;
    cv_stream_rows X = rows_new(70 + (uint64_t)w, 40 * w, N, true, 1.0 / 240, 1);
    for (int64_t i = 0; i < ROWS * N; i++) own[i] = NAN; /* beta 0 */
    cv_stream_add(NULL, ROWS, N, a.s.Omega, a.s.ld, &X, 0, own, N, a.T);
    trace += cv_stream_trace(&X, N);
    X.weight *= 0.1;
    dense_add(1, &X, N, false, M), dense_add(1, &X, N, true, size);
    rows_free(&X);
    for (int64_t i = 0; w > 0 && i < ROWS * N; i++) S[i] += own[i];
  }
  cv_stream_mix(&a.s, 0.9, 0.1, S, N, trace);
  double off = product_error(&a, 0, ROWS, M, size, (N + 300 + 240 + 20) * FLT_EPSILON / 2); /* as above */
  ck_assert_msg(off <= 1, "%g", off);
  ck_assert_double_eq_tol(a.s.trace, trace_of(N, M), 2e-6 * a.s.trace);
  free(S), free(M), free(size);
  sketch_free(&a);
}
END_TEST

START_TEST(test_seed_is_orthonormal_and_reproducible) {
  enum { N = 70, K = 30, LD = N + PAD };
  sketch a = sketch_new(N, K, 1), b = sketch_new(N, K, 1), c = sketch_new(N, K + 8, 1);
  ck_assert(ref_orthogonality(K, N, a.s.Omega, LD) <= 2e-6);
  ck_assert(memcmp(a.s.Omega, b.s.Omega, (K + PROBES) * LD * sizeof *a.s.Omega) == 0);
  for (int64_t i = 0; i < PROBES; i++) /* of any k */
    ck_assert(memcmp(a.s.Omega + (K + i) * LD, c.s.Omega + (K + 8 + i) * LD, N * sizeof *a.s.Omega) == 0);
  require(&b, cv_stream_seed(key_of(1), K, N, b.s.Omega, LD, &b.work, &b.err));
  double dot = cv_dot(1, N, a.s.Omega, LD, b.s.Omega, LD);
  ck_assert_msg(fabs(dot) < 0.9, "%g", dot);
  sketch_free(&a), sketch_free(&b), sketch_free(&c);
}
END_TEST

/* ---- solve ---- */

/* Rank 12 in k = 20 rows, and k = n: the pairs are those of LAPACK in fp64, and nothing is missing. Rounding of Y,
 * about 3e-7 of the norm, counts as much more as Omega sees the modes smaller: 1e-5 allows a smallest singular value of
 * Omega V^T of 0.2. Three terms round 20 times as much. */
static void check_exact(const cv_multiplier *by, int64_t n, int64_t k, int64_t rows, int64_t found) {
  sketch a = sketch_new(n, k, found);
  double tolerance = by ? 20e-5 : 1e-5;
  a.by = by;
  double *M = ref_doubles(n * n), *V = ref_doubles(n * n), *w = ref_doubles(n);
  cv_stream_rows X = rows_new(3, rows, n, true, 0.1, 1);
  add(&a, 0, &X);
  dense_add(0, &X, n, false, M);
  ref_eig(n, M, V, w);
  solve(&a);
  ck_assert_int_eq(a.result.found, found);
  ck_assert_int_eq(a.result.kept, found);
  ck_assert_int_eq(a.result.products, 0);
  for (int64_t i = 0; i < found; i++) ck_assert_double_eq_tol(a.D[i], w[i], tolerance * w[0]);
  ck_assert(ref_orthogonality(found, n, a.U, a.ldu) <= 2e-6);
  subtract_estimate(&a, found, 0, NULL, 0, M);
  ck_assert_msg(ref_norm(n * n, M) <= tolerance * w[0], "%g of %g", ref_norm(n * n, M), w[0]);
  ck_assert(a.result.missing_trace <= tolerance && a.result.error_bound <= 10 * tolerance * w[0]);
  rows_free(&X);
  free(M), free(V), free(w);
  sketch_free(&a);
}

START_TEST(test_solve_is_exact_within_k_modes) {
  check_exact(NULL, 60, 20, 12, 12);
  check_exact(NULL, 24, 24, 100, 24);
}
END_TEST

/* The first is what rounding to one term makes indefinite. */
START_TEST(test_solve_of_three_terms_is_exact_within_k_modes) {
  for (const cv_unit *const *unit = cv_units; *unit; unit++) {
    if (!(*unit)->is_there()) continue;
    cv_multiplier by = three_terms(*unit);
    check_exact(&by, 60, 20, 12, 12);
    check_exact(&by, 24, 24, 100, 24);
    free(by.room);
  }
}
END_TEST

/* Before any reseed: 0 <= U^T D U <= M, Omega U^T D U = Y, and the certificate is above the true spectral error, whose
 * chance to fail is 2^-10. Rounding: 2e-6 of the norm. */
START_TEST(test_estimate_does_not_exceed_the_average) {
  enum { N = 80, K = 16 };
  sketch a = sketch_new(N, K, K);
  double *M = ref_doubles(N * N), norm, most, least;
  accumulate(&a, PARTS_MAX, true, M, NULL);
  range_of(N, M, &norm, &least);
  solve(&a);
  ck_assert_int_eq(a.result.found, K);
  double rest = trace_of(N, M);
  for (int64_t i = 0; i < K; i++) rest -= a.D[i];
  ck_assert_double_eq_tol(a.result.tau, rest / (N - K), 2e-6 * norm);
  ck_assert_double_eq_tol(a.result.missing_trace * a.s.trace, rest, 2e-6 * a.s.trace);
  double *hat = estimate_of(&a);
  ck_assert(relative_off(&a, 0, K, hat) <= 2e-6);
  ck_assert_double_eq_tol(trace_of(N, hat), a.s.trace, 1e-6 * a.s.trace);
  double *E = ref_doubles(N * N);
  memcpy(E, M, N * N * sizeof *E);
  subtract_estimate(&a, K, 0, NULL, 0, E);
  range_of(N, E, &most, &least);
  ck_assert_msg(least >= -2e-6 * norm && most > 1e-3 * norm, "%g .. %g of %g", least, most, norm);
  subtract_estimate(&a, K, a.result.tau, NULL, 0, M);
  range_of(N, M, &most, &least);
  double error = fmax(most, -least);
  ck_assert_msg(a.result.error_bound >= error, "%g, not %g", a.result.error_bound, error);
  ck_assert_msg(a.result.error_bound <= 20 * error, "%g for %g", a.result.error_bound, error);
  free(M), free(E), free(hat);
  sketch_free(&a);
}
END_TEST

/* What the problem asks of kept pairs and tail is done; a rank above k is k. */
START_TEST(test_problem_decides_what_is_kept) {
  enum { N = 60, K = 12 };
  sketch a = sketch_new(N, K, 5);
  double *M = ref_doubles(N * N), kept = 0;
  accumulate(&a, 3, false, M, NULL);
  a.problem.tail = CV_TAIL_MIN;
  solve(&a);
  ck_assert_int_eq(a.result.kept, 5);
  ck_assert(a.result.tau == a.D[4]);
  a.problem.eig_rank = N, a.problem.tail = CV_TAIL_ZERO;
  solve(&a);
  ck_assert_int_eq(a.result.kept, K);
  ck_assert(a.result.tau == 0);
  a.problem.tolerance = 0.7, a.problem.kept_min = 2, a.problem.kept_max = K;
  solve(&a);
  for (int64_t i = 0; i < a.result.kept; i++) kept += a.D[i];
  ck_assert(kept >= 0.3 * a.s.trace && kept - a.D[a.result.kept - 1] < 0.3 * a.s.trace);
  ck_assert(a.result.kept > 2 && a.result.kept < K - 1);
  a.problem.kept_min = K - 1;
  solve(&a);
  ck_assert_int_eq(a.result.kept, K - 1);
  free(M);
  sketch_free(&a);
}
END_TEST

/* Of what comes from outside nothing is believed; the stream stays as it is. */
static void check_refused(float *place, double trace, sketch *a, const char *what) {
  float kept = *place;
  double kept_trace = a->s.trace;
  if (isnan(trace) || trace < 0)
    a->s.trace = trace;
  else
    *place = isinf(trace) ? INFINITY : NAN;
  curvd_status status = cv_stream_solve(&a->s, &a->problem, &a->work, a->U, a->ldu, a->D, &a->result, &a->err);
  ck_assert_int_eq(status, CURVD_ERR_NUMERIC);
  ck_assert_msg(strstr(a->err.text, what), "%s", a->err.text);
  cv_error_clear(&a->err);
  *place = kept, a->s.trace = kept_trace;
}

START_TEST(test_numbers_that_are_not_finite_are_refused) {
  enum { N = 40, K = 8 };
  sketch a = sketch_new(N, K, 4);
  double *M = ref_doubles(N * N);
  accumulate(&a, 3, false, M, NULL);
  check_refused(a.s.Y + 5 * a.s.ld + 7, 0, &a, "product with a factor of 40 x 40 is not finite");
  check_refused(a.s.Y + 5 * a.s.ld + 7, INFINITY, &a, "product with a factor of 40 x 40 is not finite");
  check_refused(a.s.Omega + 3 * a.s.ld, 0, &a, "the start is not");
  check_refused(a.s.Omega + (K - 1) * a.s.ld + N - 1, INFINITY, &a, "the start is not");
  check_refused(a.s.Omega + (K + 2) * a.s.ld, 0, &a, "its seed");
  check_refused(a.s.Y + (K + 2) * a.s.ld, 0, &a, "certificate");
  check_refused(a.s.Y, NAN, &a, "trace");
  check_refused(a.s.Y, -1, &a, "trace");
  solve(&a);
  ck_assert_int_eq(a.result.found, K);
  free(M);
  sketch_free(&a);
}
END_TEST

/* Nothing seen yet: no pair, no error, and a seed that is drawn. */
START_TEST(test_an_empty_stream) {
  enum { N = 30, K = 6 };
  sketch a = sketch_new(N, K, 4);
  refresh(&a);
  ck_assert_int_eq(a.result.found, 0);
  ck_assert(a.result.tau == 0 && a.result.error_bound == 0);
  ck_assert(ref_orthogonality(K, N, a.s.Omega, a.s.ld) <= 2e-6);
  for (int64_t i = 0; i < K * N; i++) ck_assert(a.s.Y[i / N * a.s.ld + i % N] == 0);
  sketch_free(&a);
}
END_TEST

/* ---- a new seed ---- */

/* Y' = Omega' M^ for what Omega' became; its first rows are those given. Two fp32 products of at most n terms: 3e-6 of
 * the norm. Probes and their products stay, so do the pairs: the estimate has at most k - rank(tail) of them exactly,
 * so only the product is compared. */
static void check_reseed(sketch *a, int64_t given, const float *seed, int64_t lds) {
  int64_t n = a->s.n, k = a->s.k, ld = a->s.ld;
  double *hat = estimate_of(a);
  float *probes = ref_floats(2 * PROBES * ld);
  memcpy(probes, a->s.Omega + k * ld, (size_t)(PROBES * ld) * sizeof *probes);
  memcpy(probes + PROBES * ld, a->s.Y + k * ld, (size_t)(PROBES * ld) * sizeof *probes);
  require(a,
          cv_stream_reseed(&a->s, a->result.found, a->U, a->ldu, a->D, given, seed, lds, key_of(3), &a->work, &a->err));
  double off = relative_off(a, 0, k, hat);
  ck_assert_msg(off <= 3e-6, "given %d: %g", (int)given, off);
  ck_assert(ref_orthogonality(k, n, a->s.Omega, ld) <= 3e-6);
  for (int64_t i = 0; i < given * n; i++)
    ck_assert_float_eq_tol(a->s.Omega[i / n * ld + i % n], seed[i / n * lds + i % n], 1e-6f);
  ck_assert(memcmp(probes, a->s.Omega + k * ld, (size_t)(PROBES * ld) * sizeof *probes) == 0);
  ck_assert(memcmp(probes + PROBES * ld, a->s.Y + k * ld, (size_t)(PROBES * ld) * sizeof *probes) == 0);
  free(hat), free(probes);
}

/* rows of statistics decide how many pairs are found: fewer than k where there are fewer. */
static void check_seeds(int64_t n, int64_t k, int64_t rows) {
  double *Q = ref_doubles(k * n);
  float *seed = ref_floats(k * n);
  ref_basis(5, k, n, Q);
  for (int64_t i = 0; i < k * n; i++) seed[i] = (float)Q[i];
  for (int64_t given = -1; given <= k; given += k / 2 + 1) {
    sketch a = sketch_new(n, k, k);
    cv_stream_rows X = rows_new(3, rows, n, false, 0.1, 1);
    add(&a, 0, &X);
    solve(&a);
    ck_assert_int_eq(a.result.found, rows < k ? rows : k);
    if (given < 0)
      check_reseed(&a, a.result.found, a.U, a.ldu);
    else
      check_reseed(&a, given, seed, n);
    rows_free(&X);
    sketch_free(&a);
  }
  free(Q), free(seed);
}

START_TEST(test_reseed_expresses_the_estimate) {
  check_seeds(50, 13, 200);
  check_seeds(50, 13, 9);
  check_seeds(13, 13, 200);
}
END_TEST

/* history + window on the seed U, by dense fp64; and the pairs are closer to M than those of one product. */
START_TEST(test_repair_is_a_second_product) {
  enum { N = 60, K = 12 };
  sketch a = sketch_new(N, K, 8), past = sketch_new(N, K, 8);
  double *M = ref_doubles(N * N), before, after;
  accumulate(&past, 4, true, M, NULL);
  solve(&past);
  double *hat = estimate_of(&past);
  cv_stream_rows window[2] = {rows_new(90, 40, N, true, 0.02, 1), rows_new(91, 300, N, true, 0.01, 0.5)};
  memcpy(a.s.Y, past.s.Y, (K + PROBES) * (N + PAD) * sizeof *a.s.Y);
  a.s.trace = past.s.trace;
  for (int i = 0; i < 2; i++) {
    add(&a, 1, &window[i]);
    dense_add(1, &window[i], N, false, M), dense_add(1, &window[i], N, false, hat);
  }
  solve(&a);
  double *E = ref_doubles(N * N);
  memcpy(E, M, N * N * sizeof *E);
  subtract_estimate(&a, a.result.kept, 0, NULL, 0, E);
  before = ref_norm(N * N, E);
  float *U = ref_floats(K * N);
  for (int64_t i = 0; i < K * N; i++) U[i] = a.U[i / N * a.ldu + i % N];
  require(&a, cv_stream_repair(&past.s, 2, window, &a.problem, &a.work, a.result.found, a.U, a.ldu, a.D, &a.result,
                               &a.err));
  for (int64_t i = 0; i < K * N; i++) ck_assert(past.s.Omega[i / N * past.s.ld + i % N] == U[i]);
  double off = relative_off(&past, 0, K, hat);
  ck_assert_msg(off <= 3e-6, "%g", off); /* as for a reseed */
  ck_assert_double_eq_tol(past.s.trace, a.s.trace, 1e-6 * a.s.trace);
  memcpy(E, M, N * N * sizeof *E);
  subtract_estimate(&a, a.result.kept, 0, NULL, 0, E);
  after = ref_norm(N * N, E);
  ck_assert_msg(after < before, "%g after %g", after, before);
  rows_free(&window[0]), rows_free(&window[1]);
  free(M), free(hat), free(E), free(U);
  sketch_free(&a), sketch_free(&past);
}
END_TEST

int main(void) {
  const TTest *const tests[] = {
      test_history_is_the_product_with_the_average,
      test_history_in_three_terms,
      test_sums_of_workers_are_the_sketch_of_the_sum,
      test_seed_is_orthonormal_and_reproducible,
      test_solve_is_exact_within_k_modes,
      test_solve_of_three_terms_is_exact_within_k_modes,
      test_estimate_does_not_exceed_the_average,
      test_numbers_that_are_not_finite_are_refused,
      test_an_empty_stream,
      test_reseed_expresses_the_estimate,
      test_problem_decides_what_is_kept,
      test_repair_is_a_second_product,
  };
  return suite_run("stream", tests, sizeof tests / sizeof tests[0], NULL);
}
