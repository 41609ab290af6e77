/* The seam eig.h on one rank: the body that every backend passes, what every backend does with bad input, scratch and
 * keys, and how far its certificate can be trusted. Oracle: fp64 eigenvalues of the same fp32 matrix. */
#include "eig_conformance.h"
#include "suite.h"

static const contender *const backends = eig_on_one_rank;
enum { BACKENDS = ON_ONE_RANK };

/* ---- the body that every backend passes ---- */

static const int64_t sizes[] = {1, 2, 3, 33, 100, 201};
enum { SIZES = sizeof sizes / sizeof sizes[0] };

START_TEST(test_conformance) {
  bound_count bounds = {0, 0};
  for (int t = 0; t < SPECTRA * SIZES; t++) {
    matrix a = matrix_new(&eig_here, (spectrum)(t / SIZES), sizes[t % SIZES]);
    for (int b = 0; b < BACKENDS; b++) {
      verdict v = conform_both(&backends[b], &a, t + b, &bounds);
      ck_assert_msg(!v.text[0], "%s, spectrum %d, n %d: %s", backends[b].name, t / SIZES, (int)a.n, v.text);
    }
    matrix_free(&a);
  }
  ck_assert_msg(bounds.failed <= 4, "%d of %d error bounds are too small", bounds.failed, bounds.seen);
}
END_TEST

/* RK-2, for all: with as many columns as the matrix has, nothing is lost. */
START_TEST(test_full_sketch_reproduces_the_matrix) {
  bound_count bounds = {0, 0};
  for (int t = 0; t < SPECTRA * (SIZES - 1); t++) {
    matrix a = matrix_new(&eig_here, (spectrum)(t / (SIZES - 1)), sizes[t % (SIZES - 1)]);
    for (int b = 0; b < BACKENDS; b++) {
      verdict v = conform_full(&backends[b], &a, &bounds);
      ck_assert_msg(!v.text[0], "%s, spectrum %d, n %d: %s", backends[b].name, t / (SIZES - 1), (int)a.n, v.text);
    }
    matrix_free(&a);
  }
}
END_TEST

/* Eigenvalues below the rounding of a product are not found, all others are; D and U of nothing hold anything. */
START_TEST(test_found_is_the_numerical_rank) {
  const struct {
    spectrum kind;
    int64_t rank;
  } cases[] = {{DEFICIENT, 4}, {RANK_ONE, 1}, {ZERO, 0}, {FLAT, 30}, {IDENTITY, 30}};
  for (int t = 0; t < 5 * BACKENDS; t++) {
    const contender *c = &backends[t / 5];
    matrix a = matrix_new(&eig_here, cases[t % 5].kind, 100);
    cv_eig_problem problem = problem_of(c, &a, 20, 10, 1);
    solution s = solution_new(c, &problem, &eig_here, 1e30f);
    solve_here(&problem, &s);
    int64_t rank = c->ops->is_exact ? 30 : cases[t % 5].rank;
    ck_assert_msg(s.result.found == rank, "%s, spectrum %d: found %d", c->name, cases[t % 5].kind, (int)s.result.found);
    if (cases[t % 5].kind == ZERO) {
      ck_assert(s.result.error_bound == 0 && s.result.error_norm == 0 && s.result.tau == 0 && s.result.residual == 0);
    }
    solution_free(&s);
    matrix_free(&a);
  }
}
END_TEST

START_TEST(test_products_are_what_the_header_says) {
  matrix a = matrix_new(&eig_here, POLYNOMIAL, 33);
  for (int64_t q = 0; q < 4; q++) {
    for (int b = 0; b < BACKENDS; b++) {
      cv_eig_problem problem = problem_of(&backends[b], &a, 5, 5, q);
      solution s = solution_new(&backends[b], &problem, &eig_here, 1e30f);
      solve_here(&problem, &s);
      ck_assert_int_eq(s.result.products, products_of(&backends[b], &problem));
      ck_assert_int_eq(s.result.replaced, 0);
      solution_free(&s);
    }
  }
  matrix_free(&a);
}
END_TEST

/* ---- bits ---- */

static bool same_result(cv_eig_result x, cv_eig_result y) {
  x.seconds = y.seconds = 0;
  return memcmp(&x, &y, sizeof x) == 0;
}

/* Whatever memory holds; and the key of the sketch counts. */
START_TEST(test_same_bits_twice) {
  matrix a = matrix_new(&eig_here, POLYNOMIAL, 100);
  for (int b = 0; b < BACKENDS; b++) {
    cv_eig_problem problem = problem_of(&backends[b], &a, 20, 10, 1);
    const float garbage[] = {1e30f, NAN, 0, 0};
    solution s[4];
    for (int t = 0; t < 4; t++) {
      s[t] = solution_new(&backends[b], &problem, &eig_here, garbage[t]);
      problem.key.b = t < 3 ? 1 : 2;
      solve_here(&problem, &s[t]);
    }
    size_t bytes = (size_t)(s[0].result.found * a.n) * sizeof(float);
    for (int t = 1; t < 3; t++) {
      ck_assert_msg(same_result(s[0].result, s[t].result), "%s", backends[b].name);
      ck_assert(memcmp(s[0].full, s[t].full, bytes) == 0);
      ck_assert(memcmp(s[0].D, s[t].D, (size_t)s[0].result.found * sizeof(float)) == 0);
    }
    ck_assert_int_eq(memcmp(s[0].full, s[3].full, bytes) == 0, backends[b].ops->is_exact);
    ck_assert(s[0].result.error_norm != s[3].result.error_norm); /* other probes */
    for (int t = 0; t < 4; t++) solution_free(&s[t]);
  }
  matrix_free(&a);
}
END_TEST

/* M is not changed, and the padding behind its rows (NaN) is not read. */
START_TEST(test_the_matrix_stays) {
  matrix a = matrix_new(&eig_here, POLYNOMIAL, 100);
  size_t bytes = (size_t)(a.n * a.piece_ld) * sizeof(float);
  float *before = ref_floats(a.n * a.piece_ld);
  memcpy(before, a.piece, bytes);
  for (int b = 0; b < BACKENDS; b++) {
    cv_eig_problem problem = problem_of(&backends[b], &a, 20, 10, 1);
    solution s = solution_new(&backends[b], &problem, &eig_here, 1e30f);
    solve_here(&problem, &s);
    ck_assert_msg(memcmp(before, a.piece, bytes) == 0, "%s", backends[b].name);
    solution_free(&s);
  }
  free(before);
  matrix_free(&a);
}
END_TEST

/* ---- bad input ---- */

/* The sentence says so. */
static void check_refused(const contender *c, const cv_eig_problem *problem, solution *s, double bad) {
  ck_assert_msg(solve(problem, s) == CURVD_ERR_NUMERIC, "%s took %g", c->name, bad);
  ck_assert_int_eq(s->err.code, CURVD_ERR_NUMERIC);
  ck_assert_msg(strstr(s->err.text, "not finite") != NULL, "%s: %s", c->name, s->err.text);
  ck_assert_msg(!s->v.text[0], "%s: %s", c->name, s->v.text);
}

START_TEST(test_not_finite_is_an_error) {
  const float bad[] = {NAN, INFINITY, -INFINITY};
  const int64_t places[][2] = {{0, 0}, {32, 32}, {20, 3}, {32, 0}};
  matrix a = matrix_new(&eig_here, POLYNOMIAL, 33);
  for (int t = 0; t < 12 * BACKENDS; t++) {
    const contender *c = &backends[t / 12];
    int64_t i = places[t % 4][0], j = places[t % 4][1];
    float kept = a.piece[i * a.piece_ld + j], wrong = bad[t % 12 / 4];
    a.piece[i * a.piece_ld + j] = a.piece[j * a.piece_ld + i] = wrong;
    for (int64_t q = 0; q < 3; q++) { /* q = 2: from a start */
      cv_eig_problem problem = problem_of(c, &a, 5, 5, q % 2);
      solution s = solution_new(c, &problem, &eig_here, 1e30f);
      solution_start(&s, 10, a.V);
      if (q == 2) problem.n_start = 10;
      check_refused(c, &problem, &s, wrong);
      solution_free(&s);
    }
    a.piece[i * a.piece_ld + j] = a.piece[j * a.piece_ld + i] = kept;
  }
  matrix_free(&a);
}
END_TEST

START_TEST(test_a_start_that_is_not_finite_is_an_error) {
  const float bad[] = {NAN, INFINITY, -INFINITY};
  matrix a = matrix_new(&eig_here, POLYNOMIAL, 33);
  for (int t = 0; t < 12 * BACKENDS; t++) {
    const contender *c = &backends[t / 12];
    cv_eig_problem problem = problem_of(c, &a, 5, 5, t % 2);
    solution s = solution_new(c, &problem, &eig_here, 1e30f);
    problem.n_start = t % 12 < 6 ? 10 : 4;
    solution_start(&s, problem.n_start, a.V);
    s.U[3 * s.ldu + 20] = bad[t % 3];
    if (c->ops->is_exact) {
      solve_here(&problem, &s);
    } else {
      check_refused(c, &problem, &s, bad[t % 3]);
    }
    solution_free(&s);
  }
  matrix_free(&a);
}
END_TEST

/* ---- the certificate ---- */

/* Means over many keys hit the true norms, and the bound fails as rarely as it says: an error of rank one, where it is
 * tightest, included. In check as well as in solve. */
static void check_certificates(const contender *c, spectrum kind, cv_tail tail) {
  enum { SEEDS = 120, N = 60 };
  matrix a = matrix_new(&eig_here, kind, N);
  int failed = 0;
  double mean = 0, residual = 0, noise = 1e-6 * a.norm;
  cv_eig_problem problem = problem_of(c, &a, kind == DEFICIENT ? 3 : 10, 5, 2);
  problem.tail = tail;
  solution s = solution_new(c, &problem, &eig_here, 1e30f);
  solve_here(&problem, &s); /* one solution, judged with many probes */
  error_norms e = error_norms_of(&a, &s);
  for (int seed = 0; seed < SEEDS; seed++) {
    problem.key.seed = 100 + (uint64_t)seed;
    ck_assert_int_eq(check(&problem, &s), CURVD_OK);
    failed += s.result.error_bound < e.spectral - noise;
    mean += s.result.error_norm * s.result.error_norm / SEEDS;
    residual += s.result.residual * s.result.residual / SEEDS;
  }
  double near = 3 * e.deviation / sqrt(SEEDS) + noise * noise, truth = e.frobenius * e.frobenius;
  ck_assert_msg(fabs(mean - truth) <= near, "%s, spectrum %d: mean square %.5g, not %.5g +- %.2g", c->name, kind, mean,
                truth, near);
  ck_assert_msg(failed <= 2, "%s, spectrum %d: %d of %d bounds failed", c->name, kind, failed, (int)SEEDS);
  double pairs = residual_of(&a, &s); /* 1200 draws of chi squared over at least one mode */
  ck_assert_msg(fabs(sqrt(residual) - pairs) <= 0.15 * pairs + 1e-6, "%s: residual %.3g, not %.3g", c->name,
                sqrt(residual), pairs);
  solution_free(&s);
  matrix_free(&a);
}

START_TEST(test_certificate_tells_the_true_error) {
  const spectrum kinds[] = {POLYNOMIAL, SLOW, DEFICIENT, EXPONENTIAL, FLAT};
  for (int t = 0; t < 5 * BACKENDS; t++) {
    check_certificates(&backends[t / 5], kinds[t % 5], (cv_tail)(t % 3));
  }
}
END_TEST

/* The probes had no part in the sketch: bounds of solve, each of another sketch, fail as rarely. */
START_TEST(test_bounds_of_many_solves) {
  enum { SEEDS = 100, N = 60 };
  for (int b = 0; b < BACKENDS; b++) {
    matrix a = matrix_new(&eig_here, EXPONENTIAL, N);
    int failed = 0;
    double ratio = 0;
    for (int seed = 0; seed < SEEDS; seed++) {
      cv_eig_problem problem = problem_of(&backends[b], &a, 8, 4, 0);
      problem.key.seed = (uint64_t)seed;
      solution s = solution_new(&backends[b], &problem, &eig_here, 1e30f);
      solve_here(&problem, &s);
      error_norms e = error_norms_of(&a, &s);
      failed += s.result.error_bound < e.spectral;
      ratio += s.result.error_norm * s.result.error_norm / (e.frobenius * e.frobenius) / SEEDS;
      solution_free(&s);
    }
    ck_assert_msg(failed <= 2, "%s: %d of %d bounds failed", backends[b].name, failed, (int)SEEDS);
    ck_assert_msg(fabs(ratio - 1) < 0.15, "%s: mean square of error_norm over the truth %.3f", backends[b].name, ratio);
    matrix_free(&a);
  }
}
END_TEST

/* check: on the matrix of the solve its error, on a drifted one the larger error there; only rows behind k_max of U
 * change, and found, kept, tau stay. */
static void check_check(const contender *c) {
  enum { N = 100 };
  matrix a = matrix_new(&eig_here, POLYNOMIAL, N), other = matrix_empty(&eig_here, N);
  double values[N];
  for (int i = 0; i < N; i++) values[i] = eigenvalue(POLYNOMIAL, N - 1 - i, N); /* the eigenvectors change places */
  memcpy(other.V, a.V, N * N * sizeof *a.V);
  matrix_compose(&other, values), matrix_measure(&other);
  cv_eig_problem problem = problem_of(c, &a, 20, 10, 2), drifted;
  problem.k_max = 40; /* rows between found and there stay, too */
  drifted = problem, drifted.M = other.piece, drifted.key.seed = 99;
  solution s = solution_new(c, &problem, &eig_here, 1e30f);
  solve_here(&problem, &s);
  cv_eig_result first = s.result;
  size_t rows = (size_t)(problem.k_max * s.ldu) * sizeof(float), numbers = (size_t)problem.k_max * sizeof(float);
  float *U = ref_block(problem.k_max * s.ldu, sizeof *U), *D = ref_block(problem.k_max, sizeof *D);
  memcpy(U, s.U, rows), memcpy(D, s.D, numbers);
  ck_assert_int_eq(check(&problem, &s), CURVD_OK);
  ck_assert_msg(fabs(s.result.error_norm / first.error_norm - 1) < 1e-4 && s.result.trace == first.trace &&
                    s.result.missing_trace == first.missing_trace,
                "%s: %.6g, then %.6g", c->name, first.error_norm, s.result.error_norm);
  ck_assert_int_eq(check(&drifted, &s), CURVD_OK);
  error_norms e = error_norms_of(&other, &s);
  check_error_norm(&e, other.norm, s.result.error_norm, &s.v);
  ck_assert_msg(!s.v.text[0], "%s: %s", c->name, s.v.text);
  ck_assert(s.result.error_norm > 3 * first.error_norm && s.result.error_bound >= e.spectral);
  ck_assert(fabs(s.result.residual / residual_of(&other, &s) - 1) < 0.3 && s.result.trace == other.trace);
  ck_assert(s.result.found == first.found && s.result.kept == first.kept && s.result.tau == first.tau);
  ck_assert(s.result.products == first.products && s.result.replaced == first.replaced);
  ck_assert_msg(memcmp(U, s.U, rows) == 0 && memcmp(D, s.D, numbers) == 0, "%s", c->name);
  free(U), free(D);
  solution_free(&s);
  matrix_free(&a), matrix_free(&other);
}

START_TEST(test_check_judges_an_old_solution) {
  for (int b = 0; b < BACKENDS; b++) check_check(&backends[b]);
}
END_TEST

/* Bad numbers show in what check says. */
START_TEST(test_check_shows_what_is_not_finite) {
  for (int t = 0; t < 3 * BACKENDS; t++) {
    const contender *c = &backends[t / 3];
    matrix a = matrix_new(&eig_here, POLYNOMIAL, 33);
    cv_eig_problem problem = problem_of(c, &a, 5, 5, 1);
    solution s = solution_new(c, &problem, &eig_here, 1e30f);
    solve_here(&problem, &s);
    if (t % 3 == 0) s.U[4 * s.ldu + 7] = NAN;
    if (t % 3 == 1) a.piece[3 * a.piece_ld + 3] = INFINITY;
    if (t % 3 == 2) s.D[2] = NAN;
    ck_assert_int_eq(check(&problem, &s), CURVD_OK);
    ck_assert_msg(!isfinite(s.result.error_norm) && !isfinite(s.result.error_bound), "%s, case %d", c->name, t % 3);
    if (t % 3 == 0) ck_assert(isnan(s.result.orthogonality));
    solution_free(&s);
    matrix_free(&a);
  }
}
END_TEST

int main(void) {
  const TTest *const tests[] = {
      test_conformance,
      test_full_sketch_reproduces_the_matrix,
      test_found_is_the_numerical_rank,
      test_products_are_what_the_header_says,
      test_same_bits_twice,
      test_the_matrix_stays,
      test_not_finite_is_an_error,
      test_a_start_that_is_not_finite_is_an_error,
      test_certificate_tells_the_true_error,
      test_bounds_of_many_solves,
      test_check_judges_an_old_solution,
      test_check_shows_what_is_not_finite,
  };
  return suite_run("eig", tests, sizeof tests / sizeof tests[0], NULL);
}
