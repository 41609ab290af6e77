/* Small eigendecompositions in fp64: known ones are found, and what a failing LAPACK returns is refused. */
#include "lapack_faults.h"

#include "linalg/dense.h"
#include "linalg/small_eig.h"
#include "linalg_reference.h"
#include "suite.h"

#include <float.h>

enum { K_MAX = 40, PAD = 3 };

typedef struct small {
  int64_t k, lda;
  double A[K_MAX * (K_MAX + PAD)], w[K_MAX], *work;
  double M[K_MAX * K_MAX]; /* (k, k) what A was */
  int32_t *ints;
  cv_error err;
} small;

/* A: symmetric, random, with NaN above the diagonal and behind the rows. */
static small small_new(int64_t k, uint64_t seed) {
  small s = {.k = k, .lda = k + PAD};
  s.work = ref_doubles(cv_small_eig_scratch(k));
  s.ints = ref_block(cv_syev_iscratch(k), sizeof *s.ints);
  for (int64_t i = 0; i < k; i++) {
    for (int64_t j = 0; j < s.lda; j++) s.A[i * s.lda + j] = j <= i ? ref_random(seed, i * k + j) : NAN;
    for (int64_t j = 0; j <= i; j++) s.M[i * k + j] = s.M[j * k + i] = s.A[i * s.lda + j];
  }
  return s;
}

static curvd_status solve(small *s) {
  return cv_small_eig(s->k, s->A, s->lda, s->w, s->work, s->ints, &s->err);
}

static void small_free(small *s) {
  free(s->work), free(s->ints);
}

/* The rows v of A are orthonormal and M v = w v, to 100 times the rounding of sums of k products of numbers below 1. */
static void check_pairs(const small *s) {
  int64_t k = s->k;
  double tolerance = 100 * DBL_EPSILON * (double)k;
  for (int64_t i = 0; i < k; i++) {
    const double *v = s->A + i * s->lda;
    ck_assert(i == 0 || s->w[i] >= s->w[i - 1]);
    for (int64_t j = 0; j < k; j++) {
      double rest = -s->w[i] * v[j], dot = i == j ? -1 : 0;
      for (int64_t l = 0; l < k; l++) rest += s->M[j * k + l] * v[l], dot += v[l] * s->A[j * s->lda + l];
      ck_assert_msg(fabs(rest) < tolerance && fabs(dot) < tolerance, "%d, %d: %g, %g", (int)i, (int)j, rest, dot);
    }
    for (int64_t j = k; j < s->lda; j++) ck_assert(isnan(v[j]));
  }
}

START_TEST(test_pairs_are_those_of_the_lower_triangle) {
  const int64_t sizes[] = {1, 2, 3, 17, K_MAX};
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    small s = small_new(sizes[i], 1 + i);
    ck_assert_msg(solve(&s) == CURVD_OK, "%s", s.err.text);
    check_pairs(&s);
    small_free(&s);
  }
}
END_TEST

START_TEST(test_a_zero_matrix) {
  small s = small_new(4, 1);
  for (int64_t i = 0; i < 4; i++) {
    for (int64_t j = 0; j <= i; j++) s.A[i * s.lda + j] = 0;
  }
  for (int64_t i = 0; i < 16; i++) s.M[i] = 0;
  ck_assert_int_eq(solve(&s), CURVD_OK);
  check_pairs(&s);
  small_free(&s);
}
END_TEST

START_TEST(test_garbage_is_refused) {
  const int64_t sizes[] = {2, 17, K_MAX};
  for (int i = 0; i < 3 * FAULT_KINDS; i++) {
    small s = small_new(sizes[i / FAULT_KINDS], 7);
    fault_arm(&fault_dsyevd, (fault_kind)(i % FAULT_KINDS), 0, 0);
    ck_assert_msg(solve(&s) == CURVD_ERR_NUMERIC, "%s, k %d", fault_name[i % FAULT_KINDS], (int)s.k);
    ck_assert_int_eq(fault_dsyevd.spoilt, 1);
    ck_assert_ptr_nonnull(strstr(s.err.text, i % FAULT_KINDS == FAULT_INFO ? "info 3" : "info 0"));
    fault_disarm();
    small_free(&s);
  }
}
END_TEST

START_TEST(test_what_is_not_finite_is_refused) {
  const double bad[] = {NAN, INFINITY, -INFINITY};
  for (int i = 0; i < 3; i++) {
    small s = small_new(5, 3);
    s.A[4 * s.lda + 1] = bad[i];
    ck_assert_int_eq(solve(&s), CURVD_ERR_NUMERIC);
    ck_assert_ptr_nonnull(strstr(s.err.text, "not finite"));
    small_free(&s);
  }
}
END_TEST

int main(void) {
  const TTest *const tests[] = {test_pairs_are_those_of_the_lower_triangle, test_a_zero_matrix, test_garbage_is_refused,
                                test_what_is_not_finite_is_refused};
  return suite_run("small_eig", tests, sizeof tests / sizeof tests[0], fault_disarm);
}
