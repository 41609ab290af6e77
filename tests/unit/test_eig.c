/* The seam eig.h: one body that every backend passes, then what is particular to some of them.
 * Oracle: dsyevd on the same fp32 matrix. To add a backend, add it to the list. */
#include "linalg/dense.h"
#include "linalg/eig.h"
#include "linalg/orthonormal.h"
#include "linalg_reference.h"
#include "suite.h"

#include <string.h>

static const cv_eig_ops *const backends[] = {&cv_eig_exact, &cv_eig_exact_f64, &cv_eig_rsvd, &cv_eig_sre,
                                             &cv_eig_nystrom};
enum { BACKENDS = sizeof backends / sizeof backends[0], PAD = 5 };

/* ---- problems ---- */

typedef enum spectrum {
  POLYNOMIAL,  /* (1 + i / 10)^-1.5, as the running averages of trained layers have it */
  EXPONENTIAL, /* e^(-i / 4) */
  STEEP,       /* (1 + i)^-5 */
  DEFICIENT,   /* exactly 4 modes */
  RANK_ONE,
  ZERO,
  FLAT,
  INDEFINITE, /* POLYNOMIAL, its last third -1e-7 */
  TINY,       /* POLYNOMIAL times 1e-12 */
  HUGE_VALUES /* POLYNOMIAL times 1e12 */
} spectrum;
enum { SPECTRA = HUGE_VALUES + 1 };

static double eigenvalue(spectrum kind, int64_t i, int64_t n) {
  double polynomial = pow(1 + (double)i / 10, -1.5);
  switch (kind) {
  case POLYNOMIAL:
    return polynomial;
  case EXPONENTIAL:
    return exp(-(double)i / 4);
  case STEEP:
    return pow(1 + (double)i, -5);
  case DEFICIENT:
    return i < 4 ? 1 / (1 + (double)i) : 0;
  case RANK_ONE:
    return i == 0;
  case ZERO:
    return 0;
  case FLAT:
    return 1;
  case INDEFINITE:
    return 3 * i >= 2 * n && i > 0 ? -1e-7 : polynomial;
  case TINY:
    return 1e-12 * polynomial;
  case HUGE_VALUES:
    return 1e12 * polynomial;
  }
  return NAN;
}

typedef struct matrix {
  int64_t n, ld;
  float *M;     /* (n, ld), padding NaN */
  double *wide; /* (n, n): the same numbers */
  double *w;    /* (n) eigenvalues of wide, descending */
  double norm, trace;
} matrix;

static void matrix_measure(matrix *a) {
  double *V = ref_doubles(a->n * a->n);
  a->trace = 0;
  for (int64_t i = 0; i < a->n; i++) {
    for (int64_t j = 0; j < a->n; j++) a->wide[i * a->n + j] = a->M[i * a->ld + j];
    a->trace += a->M[i * a->ld + i];
  }
  ref_eig(a->n, a->wide, V, a->w);
  a->norm = ref_norm(a->n * a->n, a->wide);
  free(V);
}

static matrix matrix_empty(int64_t n) {
  matrix a = {.n = n, .ld = n + PAD, .M = ref_floats(n * (n + PAD)), .wide = ref_doubles(n * n), .w = ref_doubles(n)};
  ref_fill(0, n, n, a.M, a.ld);
  return a;
}

static matrix matrix_of_values(int64_t n, const double *values) {
  matrix a = matrix_empty(n);
  double *Q = ref_doubles(n * n);
  ref_basis((uint64_t)n, n, n, Q);
  ref_compose(n, n, Q, values, a.wide);
  for (int64_t i = 0; i < n * n; i++) {
    int64_t row = i / n, col = i % n;
    a.M[row * a.ld + col] = (float)(row > col ? a.wide[i] : a.wide[col * n + row]);
  }
  matrix_measure(&a);
  free(Q);
  return a;
}

static matrix matrix_new(spectrum kind, int64_t n) {
  double *values = ref_doubles(n);
  for (int64_t i = 0; i < n; i++) values[i] = eigenvalue(kind, i, n);
  matrix a = matrix_of_values(n, values);
  free(values);
  return a;
}

static void matrix_free(matrix *a) {
  free(a->M);
  free(a->wide);
  free(a->w);
}

/* Smallest Frobenius error of any matrix of rank r. */
static double optimal_error(const matrix *a, int64_t r) {
  return ref_norm(a->n - r, a->w + r);
}

/* ---- solutions ---- */

typedef struct solution {
  int64_t rows; /* of U that the backend may write */
  int64_t n, ldu;
  float *U, *D;
  cv_eig_work work;
  cv_eig_scratch need;
  cv_eig_result result;
  cv_error err;
} solution;

static cv_eig_problem problem_of(const matrix *a, int64_t eig_rank, int64_t oversampling, int64_t power_iters) {
  return (cv_eig_problem){.n = a->n,
                          .M = a->M,
                          .ld = a->ld,
                          .eig_rank = eig_rank,
                          .oversampling = oversampling,
                          .power_iters = power_iters,
                          .key = {.seed = 17, .stream = CV_RNG_SKETCH, .a = 3, .b = 9}};
}

/* All memory holds garbage. */
static solution solution_new(const cv_eig_ops *ops, const cv_eig_problem *p, float garbage) {
  int64_t k = p->eig_rank + p->oversampling;
  solution s = {.rows = ops->is_exact ? p->n : k, .n = p->n, .ldu = p->n + 2, .need = ops->scratch(p->n, k)};
  s.U = ref_floats(s.rows * s.ldu);
  s.D = ref_floats(s.rows);
  s.work = (cv_eig_work){ref_floats(s.need.floats + 1), ref_doubles(s.need.doubles + 1),
                         ref_block(s.need.ints + 1, sizeof(int32_t))};
  for (int64_t i = 0; i < s.rows * s.ldu; i++) s.U[i] = garbage;
  for (int64_t i = 0; i <= s.need.floats; i++) s.work.floats[i] = garbage;
  for (int64_t i = 0; i <= s.need.doubles; i++) s.work.doubles[i] = garbage;
  for (int64_t i = 0; i <= s.need.ints; i++) s.work.ints[i] = -77;
  return s;
}

static void solution_free(solution *s) {
  free(s->U);
  free(s->D);
  free(s->work.floats);
  free(s->work.doubles);
  free(s->work.ints);
}

static curvd_status solve(const cv_eig_ops *ops, const cv_eig_problem *p, solution *s) {
  s->err = (cv_error){0};
  curvd_status status = ops->solve(p, &s->work, s->U, s->ldu, s->D, &s->result, &s->err);
  ck_assert_int_eq(s->work.ints[s->need.ints], -77); /* scratch is as large as it says */
  return status;
}

/* ||M - U^T D U|| with the first r pairs. */
static double error_of(const matrix *a, const solution *s, int64_t r) {
  int64_t n = a->n;
  double *rest = ref_doubles(n * n), sum;
  memcpy(rest, a->wide, (size_t)(n * n) * sizeof *rest);
  for (int64_t l = 0; l < r; l++) {
    const float *u = s->U + l * s->ldu;
    for (int64_t i = 0; i < n; i++) {
      for (int64_t j = 0; j < n; j++) rest[i * n + j] -= (double)s->D[l] * u[i] * u[j];
    }
  }
  sum = ref_norm(n * n, rest);
  free(rest);
  return sum;
}

static void check_shape(const cv_eig_ops *ops, const matrix *a, const solution *s) {
  const cv_eig_result *result = &s->result;
  ck_assert_int_le(result->found, s->rows);
  if (ops->is_exact) ck_assert_int_eq(result->found, a->n);
  double worst = ref_orthogonality(result->found, a->n, s->U, s->ldu), allowed = ops == &cv_eig_exact ? 4e-6 : 2e-6;
  ck_assert_msg(worst <= allowed, "%s, n %d: orthogonality %.1e", ops->name, (int)a->n, worst);
  ck_assert(result->orthogonality >= 0 && result->orthogonality <= 1e-5);
  for (int64_t i = 0; i < result->found; i++) {
    ck_assert(s->D[i] >= 0 && isfinite(s->D[i]));
    if (i > 0) ck_assert(s->D[i] <= s->D[i - 1]);
  }
  for (int64_t i = 0; i < s->rows; i++) { /* padding of U */
    for (int64_t j = s->n; j < s->ldu; j++) ck_assert(s->U[i * s->ldu + j] == 1e30f);
  }
}

/* ---- the body that every backend passes ---- */

static void check_conformance(const cv_eig_ops *ops, spectrum kind, const matrix *a) {
  int64_t n = a->n, r = n < 33 ? (n + 1) / 2 : n / 6, p = n - r < 10 ? n - r : 10;
  cv_eig_problem problem = problem_of(a, r, p, 2);
  solution s = solution_new(ops, &problem, 1e30f);
  ck_assert_msg(solve(ops, &problem, &s) == CURVD_OK, "%s, spectrum %d, n %d: %s", ops->name, kind, (int)n, s.err.text);
  check_shape(ops, a, &s);
  int64_t kept = ops->is_exact ? n : s.result.found < r ? s.result.found : r;
  double allowed = ops->is_exact ? 2e-6 * a->norm : 1.08 * optimal_error(a, r) + 2e-6 * a->norm;
  ck_assert_msg(error_of(a, &s, kept) <= allowed, "%s, spectrum %d, n %d, rank %d: error %.3e, optimal %.3e, norm %.3e",
                ops->name, kind, (int)n, (int)kept, error_of(a, &s, kept), optimal_error(a, kept), a->norm);
  if (!ops->is_exact && kind == DEFICIENT) ck_assert_int_eq(s.result.found, n < 4 ? n : r + p < 4 ? r + p : 4);
  if (!ops->is_exact && kind == RANK_ONE) ck_assert_int_eq(s.result.found, 1);
  if (!ops->is_exact && kind == ZERO) ck_assert_int_eq(s.result.found, 0);
  if (kind == ZERO) ck_assert(ops->is_exact ? s.D[0] == 0 : true);
  solution_free(&s);
}

START_TEST(test_conformance) {
  const int64_t ns[] = {1, 2, 5, 33, 200};
  for (int kind = 0; kind < SPECTRA; kind++) {
    for (int t = 0; t < 5; t++) {
      matrix a = matrix_new((spectrum)kind, ns[t]);
      for (int b = 0; b < BACKENDS; b++) check_conformance(backends[b], (spectrum)kind, &a);
      matrix_free(&a);
    }
  }
}
END_TEST

/* RK-2, for all: with as many columns as the matrix has, nothing is lost. */
START_TEST(test_full_sketch_reproduces_the_matrix) {
  const int64_t ns[] = {1, 5, 33, 100};
  for (int t = 0; t < 4 * SPECTRA; t++) {
    matrix a = matrix_new((spectrum)(t / 4), ns[t % 4]);
    for (int b = 0; b < BACKENDS; b++) {
      cv_eig_problem problem = problem_of(&a, a.n, 0, 1);
      solution s = solution_new(backends[b], &problem, 1e30f);
      ck_assert_int_eq(solve(backends[b], &problem, &s), CURVD_OK);
      check_shape(backends[b], &a, &s);
      double error = error_of(&a, &s, s.result.found);
      ck_assert_msg(error <= 1e-5 * a.norm, "%s, spectrum %d, n %d: error %.1e", backends[b]->name, t / 4, (int)a.n,
                    error / a.norm);
      solution_free(&s);
    }
    matrix_free(&a);
  }
}
END_TEST

START_TEST(test_products_are_what_the_header_says) {
  matrix a = matrix_new(POLYNOMIAL, 33);
  for (int64_t q = 0; q < 4; q++) {
    const int64_t expected[BACKENDS] = {0, 0, 2 * q + 2, q + 1, q + 1};
    for (int b = 0; b < BACKENDS; b++) {
      cv_eig_problem problem = problem_of(&a, 5, 5, q);
      solution s = solution_new(backends[b], &problem, 1e30f);
      ck_assert_int_eq(solve(backends[b], &problem, &s), CURVD_OK);
      ck_assert_int_eq(s.result.products, expected[b]);
      ck_assert(!s.result.used_householder);
      solution_free(&s);
    }
  }
  matrix_free(&a);
}
END_TEST

/* Whatever memory holds; and the key of the sketch counts. */
START_TEST(test_same_bits_twice) {
  matrix a = matrix_new(POLYNOMIAL, 100);
  for (int b = 0; b < BACKENDS; b++) {
    cv_eig_problem problem = problem_of(&a, 20, 10, 1);
    solution s[3] = {solution_new(backends[b], &problem, 1e30f), solution_new(backends[b], &problem, NAN),
                     solution_new(backends[b], &problem, 0)};
    for (int t = 0; t < 3; t++) {
      problem.key.b = t < 2 ? 1 : 2;
      ck_assert_int_eq(solve(backends[b], &problem, &s[t]), CURVD_OK);
    }
    ck_assert_int_eq(s[0].result.found, s[1].result.found);
    for (int64_t i = 0; i < s[0].result.found; i++) {
      ck_assert_mem_eq(s[0].U + i * s[0].ldu, s[1].U + i * s[1].ldu, (size_t)a.n * sizeof(float));
    }
    ck_assert_mem_eq(s[0].D, s[1].D, (size_t)s[0].result.found * sizeof(float));
    ck_assert_int_eq(memcmp(s[0].U, s[2].U, (size_t)a.n * sizeof(float)) == 0, backends[b]->is_exact);
    for (int t = 0; t < 3; t++) solution_free(&s[t]);
  }
  matrix_free(&a);
}
END_TEST

START_TEST(test_not_finite_is_an_error) {
  const float bad[] = {NAN, INFINITY, -INFINITY};
  const int64_t places[][2] = {{0, 0}, {32, 32}, {20, 3}};
  matrix a = matrix_new(POLYNOMIAL, 33);
  for (int t = 0; t < 9 * BACKENDS; t++) {
    const cv_eig_ops *ops = backends[t / 9];
    int64_t i = places[t % 3][0], j = places[t % 3][1];
    float kept = a.M[i * a.ld + j];
    a.M[i * a.ld + j] = a.M[j * a.ld + i] = bad[t % 9 / 3];
    for (int64_t q = 0; q < 2; q++) {
      cv_eig_problem problem = problem_of(&a, 5, 5, q);
      solution s = solution_new(ops, &problem, 1e30f);
      ck_assert_msg(solve(ops, &problem, &s) == CURVD_ERR_NUMERIC, "%s took %g", ops->name, (double)bad[t % 9 / 3]);
      ck_assert_ptr_nonnull(strstr(s.err.text, "not finite"));
      solution_free(&s);
    }
    a.M[i * a.ld + j] = a.M[j * a.ld + i] = kept;
  }
  matrix_free(&a);
}
END_TEST

/* ---- randomized backends ---- */

START_TEST(test_a_start_that_is_not_finite_is_an_error) {
  matrix a = matrix_new(POLYNOMIAL, 33);
  for (int b = 0; b < BACKENDS; b++) {
    if (backends[b]->is_exact) continue;
    cv_eig_problem problem = problem_of(&a, 5, 5, 0);
    solution s = solution_new(backends[b], &problem, NAN);
    problem.n_start = 10;
    ck_assert_int_eq(solve(backends[b], &problem, &s), CURVD_ERR_NUMERIC);
    solution_free(&s);
  }
  matrix_free(&a);
}
END_TEST

/* A basis that found fewer pairs than wanted starts the next refresh; the missing rows are drawn. More rows than k do
 * no harm. */
START_TEST(test_warm_start_with_fewer_rows) {
  matrix poor = matrix_new(DEFICIENT, 100), rich = matrix_new(POLYNOMIAL, 100);
  for (int b = 0; b < BACKENDS; b++) {
    if (backends[b]->is_exact) continue;
    cv_eig_problem problem = problem_of(&poor, 20, 10, 2);
    solution s = solution_new(backends[b], &problem, 1e30f);
    ck_assert_int_eq(solve(backends[b], &problem, &s), CURVD_OK);
    ck_assert_int_eq(s.result.found, 4);
    problem = problem_of(&rich, 20, 10, 2);
    problem.n_start = s.result.found;
    ck_assert_int_eq(solve(backends[b], &problem, &s), CURVD_OK);
    check_shape(backends[b], &rich, &s);
    ck_assert_int_eq(s.result.found, 30);
    ck_assert(error_of(&rich, &s, 20) <= 1.08 * optimal_error(&rich, 20));
    problem.eig_rank = 15, problem.oversampling = 5, problem.n_start = 30;
    ck_assert_int_eq(solve(backends[b], &problem, &s), CURVD_OK);
    ck_assert_int_eq(s.result.found, 20);
    ck_assert(error_of(&rich, &s, 15) <= 1.02 * optimal_error(&rich, 15));
    solution_free(&s);
  }
  matrix_free(&poor), matrix_free(&rich);
}
END_TEST

/* Halko, Martinsson, Tropp, theorem 10.5: E ||M - Q^T Q M|| <= sqrt(1 + k / (p - 1)) times the optimal error, Frobenius
 * norm; and for Nystrom in the nuclear norm, which for U^T D U <= M is the missing trace: E <= (1 + k / (p - 1)) times
 * the rest of the trace. */
START_TEST(test_mean_errors_keep_the_bounds) {
  enum { N = 200, K = 10, P = 8, SEEDS = 60 };
  double values[N], mean_range = 0, mean_trace = 0;
  for (int i = 0; i < N; i++) values[i] = pow(1 + i, -1.5);
  matrix a = matrix_of_values(N, values);
  double rest = 0;
  for (int i = K; i < N; i++) rest += a.w[i];
  cv_eig_problem range = problem_of(&a, K, P, 1), sketch = problem_of(&a, K, P, 0);
  solution s = solution_new(&cv_eig_sre, &range, 1e30f), t = solution_new(&cv_eig_nystrom, &sketch, 1e30f);
  for (int seed = 0; seed < SEEDS; seed++) {
    range.key.seed = sketch.key.seed = (uint64_t)seed;
    ck_assert_int_eq(solve(&cv_eig_sre, &range, &s), CURVD_OK);
    ck_assert_int_eq(solve(&cv_eig_nystrom, &sketch, &t), CURVD_OK);
    double outside = a.norm * a.norm, trace = a.trace; /* ||M||^2 - ||U M||^2 */
    for (int64_t i = 0; i < (K + P) * N; i++) {
      double sum = 0;
      for (int64_t j = 0; j < N; j++) sum += (double)s.U[i / N * s.ldu + j] * a.wide[j * N + i % N];
      outside -= sum * sum;
    }
    for (int64_t i = 0; i < t.result.found; i++) trace -= t.D[i];
    mean_range += sqrt(outside) / SEEDS;
    mean_trace += trace / SEEDS;
  }
  ck_assert_msg(mean_range <= sqrt(1 + K / (P - 1.)) * optimal_error(&a, K), "%g", mean_range);
  ck_assert_msg(mean_range >= optimal_error(&a, K + P), "%g", mean_range);
  ck_assert_msg(mean_trace <= (1 + K / (P - 1.)) * rest && mean_trace > 0, "%g", mean_trace);
  solution_free(&s), solution_free(&t);
  matrix_free(&a);
}
END_TEST

/* Largest relative error of the eigenvalues first .. last - 1. */
static double eigenvalue_error(const matrix *a, const solution *s, int64_t first, int64_t last) {
  double worst = 0;
  for (int64_t i = first; i < last; i++) worst = fmax(worst, fabs((i < s->result.found ? s->D[i] : 0) / a->w[i] - 1));
  return worst;
}

/* The published SRE-KFAC multiplies power_iters times without orthonormalising: in fp32 the modes below
 * lambda_1 * (6e-8)^(1/4) = 1.6e-2 lambda_1 drown, here from about mode 29 on. */
START_TEST(test_sre_in_the_published_order_loses_small_modes) {
  enum { N = 200, RANK = 70 };
  double values[N], error[2];
  for (int i = 0; i < N; i++) values[i] = exp(-i / 7.);
  matrix a = matrix_of_values(N, values);
  for (int t = 0; t < 2; t++) {
    cv_eig_problem problem = problem_of(&a, RANK, 10, 4);
    problem.orthonormalise = t == 0 ? CV_ORTHONORMALISE_EACH : CV_ORTHONORMALISE_LAST;
    solution s = solution_new(&cv_eig_sre, &problem, 1e30f);
    ck_assert_int_eq(solve(&cv_eig_sre, &problem, &s), CURVD_OK);
    check_shape(&cv_eig_sre, &a, &s);
    ck_assert(eigenvalue_error(&a, &s, 0, 15) < 1e-4);
    error[t] = eigenvalue_error(&a, &s, 15, 60);
    solution_free(&s);
  }
  ck_assert_msg(error[0] < 5e-3 && error[1] > 0.05, "each %.1e, last %.1e", error[0], error[1]);
  matrix_free(&a);
}
END_TEST

START_TEST(test_nystrom_never_exceeds_the_matrix) {
  const spectrum kinds[] = {POLYNOMIAL, EXPONENTIAL, STEEP, DEFICIENT, FLAT};
  for (int t = 0; t < 5; t++) {
    matrix a = matrix_new(kinds[t], 100);
    cv_eig_problem problem = problem_of(&a, 20, 10, 0);
    solution s = solution_new(&cv_eig_nystrom, &problem, 1e30f);
    ck_assert_int_eq(solve(&cv_eig_nystrom, &problem, &s), CURVD_OK);
    for (int64_t i = 0; i < s.result.found; i++) ck_assert(s.D[i] <= a.w[i] + 2e-6 * a.w[0]);
    solution_free(&s);
    matrix_free(&a);
  }
}
END_TEST

/* A slightly indefinite matrix needs a larger shift, which the eigenvalues must not show. */
START_TEST(test_nystrom_takes_its_shift_back) {
  enum { N = 40 };
  double values[N];
  for (int i = 0; i < N; i++) values[i] = i == 7 ? -3e-5 : pow(0.9, i);
  matrix a = matrix_of_values(N, values);
  cv_eig_problem problem = problem_of(&a, N, 0, 1);
  solution s = solution_new(&cv_eig_nystrom, &problem, 1e30f);
  ck_assert_int_eq(solve(&cv_eig_nystrom, &problem, &s), CURVD_OK);
  check_shape(&cv_eig_nystrom, &a, &s);
  ck_assert_int_eq(s.result.found, N - 1);
  for (int i = 0; i < N - 1; i++) ck_assert_msg(fabs(s.D[i] - a.w[i]) <= 3e-6, "%d: %.7g, not %.7g", i, s.D[i], a.w[i]);
  solution_free(&s);
  matrix_free(&a);
}
END_TEST

START_TEST(test_nystrom_refuses_what_is_not_semidefinite) {
  enum { N = 40 };
  const double wrong[] = {-1, -0.5, -0.02}; /* one eigenvalue; all others 1; then all of them */
  for (int t = 0; t < 6; t++) {
    double values[N];
    for (int i = 0; i < N; i++) values[i] = t >= 3 || i == 7 ? wrong[t % 3] : 1;
    matrix a = matrix_of_values(N, values);
    cv_eig_problem problem = problem_of(&a, N - 5, 5, 1);
    solution s = solution_new(&cv_eig_nystrom, &problem, 1e30f);
    ck_assert_int_eq(solve(&cv_eig_nystrom, &problem, &s), CURVD_ERR_NUMERIC);
    ck_assert_ptr_nonnull(strstr(s.err.text, "semidefinite"));
    solution_free(&s);
    matrix_free(&a);
  }
}
END_TEST

/* ---- warm start under drift ---- */

enum { DRIFT_N = 300, DRIFT_BATCH = 64, DRIFT_UPDATES = 10, DRIFT_ANGLE_PLANES = DRIFT_N / 2 };

/* Turns the rows of V (n, n) by 0.1 rad in n / 2 planes of rows paired at random. */
static void drift_rotate(int refresh, double *V) {
  int64_t order[DRIFT_N];
  for (int64_t i = 0; i < DRIFT_N; i++) order[i] = i;
  for (int64_t i = DRIFT_N - 1; i > 0; i--) {
    int64_t j = (int64_t)((ref_random(1000 + (uint64_t)refresh, i) + 1) / 2 * (double)(i + 1)), t = order[i];
    order[i] = order[j], order[j] = t;
  }
  for (int64_t p = 0; p < DRIFT_ANGLE_PLANES; p++) {
    double *x = V + order[2 * p] * DRIFT_N, *y = V + order[2 * p + 1] * DRIFT_N;
    for (int64_t j = 0; j < DRIFT_N; j++) {
      double t = cos(0.1) * x[j] - sin(0.1) * y[j];
      y[j] = sin(0.1) * x[j] + cos(0.1) * y[j], x[j] = t;
    }
  }
}

/* M <- 0.95 M + 0.05 X^T X / batch, rows of X with covariance V^T diag((1 + i / 10)^-1.5) V. */
static void drift_update(uint64_t seed, const double *V, matrix *a) {
  double *z = ref_doubles(DRIFT_BATCH * DRIFT_N), *x = ref_doubles(DRIFT_BATCH * DRIFT_N);
  float *X = ref_floats(DRIFT_BATCH * DRIFT_N);
  for (int64_t i = 0; i < DRIFT_BATCH * DRIFT_N; i++) {
    z[i] = ref_random(seed, i) * sqrt(3 * eigenvalue(POLYNOMIAL, i % DRIFT_N, DRIFT_N));
  }
  ref_multiply(DRIFT_BATCH, DRIFT_N, DRIFT_N, z, V, x);
  for (int64_t i = 0; i < DRIFT_BATCH * DRIFT_N; i++) X[i] = (float)x[i];
  cv_gram_columns(DRIFT_N, DRIFT_BATCH, 0.05f / DRIFT_BATCH, X, DRIFT_N, 0.95f, a->M, a->ld);
  free(z), free(x), free(X);
}

/* 20 refreshes of one product each, from the last basis: Nystrom stays within 5 % of the optimum every time, which a
 * cold start of one product does not come near; sre, which stays in the span of its start, is left behind. */
START_TEST(test_warm_start_follows_a_drifting_average) {
  enum { RANK = 40, OVER = 10, REFRESHES = 20 };
  matrix a = matrix_empty(DRIFT_N);
  double *V = ref_doubles(DRIFT_N * DRIFT_N), worst = 0, stuck = 0;
  ref_basis(5, DRIFT_N, DRIFT_N, V);
  for (int64_t i = 0; i < DRIFT_N; i++) memset(a.M + i * a.ld, 0, DRIFT_N * sizeof *a.M);
  for (int u = 0; u < 60; u++) drift_update((uint64_t)u, V, &a);
  cv_mirror(DRIFT_N, a.M, a.ld);
  cv_eig_problem problem = problem_of(&a, RANK, OVER, 2);
  solution warm = solution_new(&cv_eig_nystrom, &problem, 1e30f), cold = solution_new(&cv_eig_nystrom, &problem, 1e30f);
  solution sre = solution_new(&cv_eig_sre, &problem, 1e30f);
  ck_assert_int_eq(solve(&cv_eig_nystrom, &problem, &warm), CURVD_OK);
  ck_assert_int_eq(solve(&cv_eig_sre, &problem, &sre), CURVD_OK);
  problem.power_iters = 0;
  for (int refresh = 0; refresh < REFRESHES; refresh++) {
    drift_rotate(refresh, V);
    for (int u = 0; u < DRIFT_UPDATES; u++) drift_update((uint64_t)(100 + refresh * DRIFT_UPDATES + u), V, &a);
    cv_mirror(DRIFT_N, a.M, a.ld);
    matrix_measure(&a);
    problem.n_start = RANK + OVER;
    ck_assert_int_eq(solve(&cv_eig_nystrom, &problem, &warm), CURVD_OK);
    ck_assert_int_eq(solve(&cv_eig_sre, &problem, &sre), CURVD_OK);
    check_shape(&cv_eig_nystrom, &a, &warm);
    ck_assert_int_eq(warm.result.found, RANK + OVER);
    ck_assert_int_eq(warm.result.products, 1);
    stuck = error_of(&a, &sre, RANK) / optimal_error(&a, RANK);
    worst = fmax(worst, error_of(&a, &warm, RANK) / optimal_error(&a, RANK));
  }
  problem.n_start = 0;
  ck_assert_int_eq(solve(&cv_eig_nystrom, &problem, &cold), CURVD_OK);
  double from_nothing = error_of(&a, &cold, RANK) / optimal_error(&a, RANK);
  ck_assert_msg(worst <= 1.05 && from_nothing > 1.3 && stuck > 1.3, "warm %.3f, cold %.3f, sre %.3f", worst,
                from_nothing, stuck);
  solution_free(&warm), solution_free(&cold), solution_free(&sre);
  matrix_free(&a);
  free(V);
}
END_TEST

/* ---- orthonormal rows ---- */

typedef curvd_status orthonormalise(int64_t, int64_t, float *, int64_t, const cv_eig_work *, bool *, cv_error *);

/* Q <- the function's result; returns the largest entry of |Q Q^T - I|. */
static double orthonormal(orthonormalise *function, int64_t k, int64_t n, float *Q, bool *used_householder) {
  cv_eig_scratch need = cv_orthonormal_scratch(k);
  cv_eig_work work = {.floats = ref_floats(need.floats), .doubles = ref_doubles(need.doubles)};
  *used_householder = false;
  ck_assert_int_eq(function(k, n, Q, n, &work, used_householder, NULL), CURVD_OK);
  free(work.floats), free(work.doubles);
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
START_TEST(test_orthonormal_rows_of_any_condition) {
  const struct {
    double condition, scale;
  } cases[] = {{1, 1}, {1e2, 1}, {1e4, 1}, {1e4, 0.1}, {1e6, 10}, {1e9, 1}, {INFINITY, 1}};
  const int64_t shapes[][2] = {{1, 1}, {1, 50}, {5, 5}, {20, 50}, {30, 600}};
  for (int t = 0; t < 7 * 5; t++) {
    int64_t k = shapes[t % 5][0], n = shapes[t % 5][1];
    double *B = ref_doubles(k * n), condition = cases[t / 5].condition;
    bool used_householder;
    ref_basis(9, k, n, B);
    for (int cheap = 0; cheap < 2; cheap++) {
      float *Q = rows_of_condition(k, n, condition, cases[t / 5].scale, B);
      double defect = orthonormal(cheap ? cv_separate_rows : cv_orthonormalise_rows, k, n, Q, &used_householder);
      ck_assert_msg(defect <= (cheap ? 1e-2 : 2e-6), "k %d, n %d, case %d: %.1e", (int)k, (int)n, t / 5, defect);
      if (condition <= 1e4 && !cheap) ck_assert(span_error(k, n, Q, B) <= 1e-6 * condition);
      if (condition <= 1e4) ck_assert(!used_householder);
      free(Q);
    }
    free(B);
  }
}
END_TEST

START_TEST(test_orthonormal_rows_of_dependent_and_zero_rows) {
  enum { K = 6, N = 40 };
  float Q[K * N];
  bool used_householder;
  for (int zeros = 0; zeros < 2; zeros++) {
    ref_fill(1, K, N, Q, N);
    for (int j = 0; j < N; j++) Q[3 * N + j] = zeros ? 0 : Q[j], Q[5 * N + j] = zeros ? 0 : -2 * Q[N + j];
    ck_assert(orthonormal(cv_orthonormalise_rows, K, N, Q, &used_householder) <= 2e-6);
    if (zeros) ck_assert(used_householder);
  }
}
END_TEST

START_TEST(test_unit_rows) {
  enum { K = 4, N = 30 };
  const float scales[K] = {1e-30f, 3, 1e37f, 0};
  float X[K * N], Q[K * N];
  ref_fill(2, K, N, X, N);
  for (int i = 0; i < K * N; i++) X[i] *= scales[i / N];
  ck_assert_int_eq(cv_unit_rows(K, N, X, N, Q, N, NULL), CURVD_OK);
  for (int i = 0; i < K; i++) {
    double norm = 0;
    for (int j = 0; j < N; j++) norm += (double)Q[i * N + j] * Q[i * N + j];
    ck_assert(fabs(norm - (scales[i] > 0)) < 1e-6);
  }
  X[2 * N + 5] = NAN;
  cv_error err = {0};
  ck_assert_int_eq(cv_unit_rows(K, N, X, N, Q, N, &err), CURVD_ERR_NUMERIC);
  ck_assert_ptr_nonnull(strstr(err.text, "row 2"));
}
END_TEST

/* One bad pair of rows among good ones shows in full, and so does a single NaN. */
START_TEST(test_orthogonality_shows_every_defect) {
  enum { K = 30, N = 700 };
  double *B = ref_doubles(K * N), defect[K];
  float *Q = ref_floats(K * N);
  ref_basis(3, K, N, B);
  for (int i = 0; i < K * N; i++) Q[i] = (float)B[i];
  ck_assert(cv_orthogonality(K, N, Q, N, defect) < 2e-6);
  for (int bad = 0; bad < K - 1; bad++) {
    for (int j = 0; j < N; j++) Q[bad * N + j] = (float)(B[bad * N + j] + 1e-3 * B[(K - 1) * N + j]);
    double estimate = cv_orthogonality(K, N, Q, N, defect);
    ck_assert(estimate > 0.9e-3 && estimate < 2.5e-3);
    Q[bad * N + 20 * bad] = NAN;
    ck_assert(isnan(cv_orthogonality(K, N, Q, N, defect)));
    for (int j = 0; j < N; j++) Q[bad * N + j] = (float)B[bad * N + j];
  }
  ck_assert(cv_orthogonality(0, N, Q, N, defect) == 0);
  free(B), free(Q);
}
END_TEST

int main(void) {
  const TTest *const tests[] = {
      test_conformance,
      test_full_sketch_reproduces_the_matrix,
      test_products_are_what_the_header_says,
      test_same_bits_twice,
      test_not_finite_is_an_error,
      test_a_start_that_is_not_finite_is_an_error,
      test_warm_start_with_fewer_rows,
      test_mean_errors_keep_the_bounds,
      test_sre_in_the_published_order_loses_small_modes,
      test_nystrom_never_exceeds_the_matrix,
      test_nystrom_takes_its_shift_back,
      test_nystrom_refuses_what_is_not_semidefinite,
      test_warm_start_follows_a_drifting_average,
      test_orthonormal_rows_of_any_condition,
      test_orthonormal_rows_of_dependent_and_zero_rows,
      test_unit_rows,
      test_orthogonality_shows_every_defect,
  };
  return suite_run("eig", tests, sizeof tests / sizeof tests[0], NULL);
}
