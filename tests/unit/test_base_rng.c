/* Random numbers: published vectors of Philox4x32-10, then what is built on them. */
#include "base/rng.h"

#include "suite.h"

#include <math.h>
#include <string.h>

/* Known answers from the kat_vectors file of Random123: counter, key, result. */
static const struct {
  uint32_t counter[4], key[2], result[4];
} known[] = {
    {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
    {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
     {0xffffffff, 0xffffffff},
     {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
    {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
     {0xa4093822, 0x299f31d0},
     {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
};

START_TEST(test_known_answers) {
  for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
    const uint32_t *counter = known[i].counter, *key = known[i].key;
    cv_rng rng = {.seed = (uint64_t)key[1] << 32 | key[0],
                  .stream = (cv_rng_stream)(counter[1] >> 24),
                  .a = counter[2],
                  .b = counter[3]};
    uint32_t out[4];
    cv_rng_block(&rng, (uint64_t)(counter[1] & 0xffffff) << 32 | counter[0], out);
    for (int j = 0; j < 4; j++) ck_assert_uint_eq(out[j], known[i].result[j]);
  }
}
END_TEST

START_TEST(test_every_part_of_the_key_counts) {
  const cv_rng base = {.seed = 5, .stream = CV_RNG_SKETCH, .a = 1, .b = 2};
  cv_rng other[5] = {base, base, base, base, base};
  other[0].seed ^= 1;
  other[1].seed ^= (uint64_t)1 << 63;
  other[2].stream = CV_RNG_PROBE;
  other[3].a ^= 1;
  other[4].b ^= 1;
  for (int i = 0; i < 5; i++) ck_assert(cv_rng_uniform(&base, 9) != cv_rng_uniform(&other[i], 9));
  ck_assert(cv_rng_uniform(&base, 9) != cv_rng_uniform(&base, 9 + ((uint64_t)1 << 40)));
}
END_TEST

/* A 64-bit word built from the published answer for counter 0, key 0. */
START_TEST(test_uniform_and_below_from_a_known_word) {
  const cv_rng zero = {.seed = 0, .stream = (cv_rng_stream)0};
  const uint64_t word0 = 0xe169c58d6627e8d5, word1 = 0x9b00dbd8bc57ac4c;
  ck_assert_double_eq_tol(cv_rng_uniform(&zero, 0), (double)word0 / 0x1p64, 0x1p-51);
  ck_assert_double_eq_tol(cv_rng_uniform(&zero, 1), (double)word1 / 0x1p64, 0x1p-51);
  const uint64_t bounds[] = {1, 2, 10, 60000, 0x100000001, 0x8000000000000001, UINT64_MAX};
  for (size_t i = 0; i < sizeof bounds / sizeof bounds[0]; i++) {
    __extension__ typedef unsigned __int128 wide;
    ck_assert_uint_eq(cv_rng_below(&zero, 0, bounds[i]), (uint64_t)((wide)word0 * bounds[i] >> 64));
    ck_assert_uint_eq(cv_rng_below(&zero, 1, bounds[i]), (uint64_t)((wide)word1 * bounds[i] >> 64));
  }
}
END_TEST

START_TEST(test_uniform_moments) {
  enum { N = 200000 };
  const cv_rng rng = {.seed = 1, .stream = CV_RNG_PROBE};
  double sum = 0, squares = 0, previous = 0, product = 0;
  for (int i = 0; i < N; i++) {
    double u = cv_rng_uniform(&rng, (uint64_t)i);
    ck_assert(u > 0 && u < 1);
    sum += u;
    squares += (u - 0.5) * (u - 0.5);
    product += (u - 0.5) * (previous - 0.5);
    previous = u;
  }
  /* five standard errors: sd(u) = 12^-1/2, sd((u - 1/2)^2) = 180^-1/2, sd(product) = 1/12 */
  ck_assert_double_eq_tol(sum / N, 0.5, 5 * sqrt(1.0 / 12 / N));
  ck_assert_double_eq_tol(squares / N, 1.0 / 12, 5 * sqrt(1.0 / 180 / N));
  ck_assert_double_eq_tol(product / N, 0, 5 * sqrt(1.0 / 144 / N));
}
END_TEST

START_TEST(test_below_is_even) {
  enum { N = 70000, BOUND = 7 };
  const cv_rng rng = {.seed = 3, .stream = CV_RNG_ORDER};
  double count[BOUND] = {0}, chi2 = 0;
  for (int i = 0; i < N; i++) {
    uint64_t k = cv_rng_below(&rng, (uint64_t)i, BOUND);
    ck_assert_uint_lt(k, BOUND);
    count[k]++;
  }
  for (int k = 0; k < BOUND; k++) chi2 += (count[k] - N / BOUND) * (count[k] - N / BOUND) / (N / BOUND);
  ck_assert_double_lt(chi2, 27.9); /* 6 degrees of freedom, p = 1e-4 */
}
END_TEST

START_TEST(test_normal_moments) {
  enum { N = 200000 };
  static float x[N];
  const cv_rng rng = {.seed = 11, .stream = CV_RNG_SKETCH, .a = 4};
  cv_rng_normal(&rng, 0, N, x);
  double moment[5] = {0}, neighbours = 0;
  for (int i = 0; i < N; i++) {
    for (int p = 1; p < 5; p++) moment[p] += pow(x[i], p) / N;
    if (i > 0) neighbours += (double)x[i] * x[i - 1] / N;
  }
  /* five standard errors; var x^p = E x^2p - (E x^p)^2: 1, 2, 15, 96 */
  ck_assert_double_eq_tol(moment[1], 0, 5 * sqrt(1.0 / N));
  ck_assert_double_eq_tol(moment[2], 1, 5 * sqrt(2.0 / N));
  ck_assert_double_eq_tol(moment[3], 0, 5 * sqrt(15.0 / N));
  ck_assert_double_eq_tol(moment[4], 3, 5 * sqrt(96.0 / N));
  ck_assert_double_eq_tol(neighbours, 0, 5 * sqrt(1.0 / N));
}
END_TEST

/* Kolmogorov-Smirnov against the normal distribution function. */
static int by_value(const void *x, const void *y) {
  float a = *(const float *)x, b = *(const float *)y;
  return (a > b) - (a < b);
}

START_TEST(test_normal_distribution) {
  enum { N = 50000 };
  static float x[N];
  const cv_rng rng = {.seed = 12, .stream = CV_RNG_INIT};
  double worst = 0;
  cv_rng_normal(&rng, 0, N, x);
  qsort(x, N, sizeof *x, by_value);
  for (int i = 0; i < N; i++) {
    double phi = 0.5 * erfc(-x[i] / sqrt(2.0));
    worst = fmax(worst, fmax(fabs(phi - (double)i / N), fabs(phi - (double)(i + 1) / N)));
  }
  ck_assert_double_lt(worst * sqrt((double)N), 2.23); /* p = 1e-4 */
}
END_TEST

START_TEST(test_normal_of_an_index_does_not_depend_on_first_or_count) {
  float all[64], part[64];
  const cv_rng rng = {.seed = 2, .stream = CV_RNG_TEACHER, .b = 1};
  const uint64_t far = ((uint64_t)1 << 33) + 5;
  for (int from = 0; from < 2; from++) {
    uint64_t base = from == 0 ? 0 : far;
    cv_rng_normal(&rng, base, 64, all);
    for (int first = 0; first < 8; first++)
      for (int count = 0; count + first <= 64; count += 5) {
        memset(part, 0, sizeof part);
        cv_rng_normal(&rng, base + (uint64_t)first, count, part);
        ck_assert_mem_eq(part, all + first, (size_t)count * sizeof *part);
        if (count < 64) ck_assert(part[count] == 0); /* nothing is written behind the end */
      }
  }
}
END_TEST

int main(void) {
  const TTest *const tests[] = {
      test_known_answers,
      test_every_part_of_the_key_counts,
      test_uniform_and_below_from_a_known_word,
      test_uniform_moments,
      test_below_is_even,
      test_normal_moments,
      test_normal_distribution,
      test_normal_of_an_index_does_not_depend_on_first_or_count,
  };
  return suite_run("rng", tests, sizeof tests / sizeof tests[0], NULL);
}
