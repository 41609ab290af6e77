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

static cv_rng known_key(size_t i) {
  const uint32_t *counter = known[i].counter, *key = known[i].key;
  return (cv_rng){.seed = (uint64_t)key[1] << 32 | key[0],
                  .stream = (cv_rng_stream)(counter[1] >> 24),
                  .a = counter[2],
                  .b = counter[3]};
}

static uint64_t known_index(size_t i) {
  return (uint64_t)(known[i].counter[1] & 0xffffff) << 32 | known[i].counter[0];
}

START_TEST(test_known_answers) {
  for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
    cv_rng rng = known_key(i);
    uint32_t out[4];
    cv_rng_block(&rng, known_index(i), out);
    for (int j = 0; j < 4; j++) ck_assert_uint_eq(out[j], known[i].result[j]);
  }
}
END_TEST

START_TEST(test_known_answers_in_every_lane) {
  for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
    for (int lane = 0; lane < CV_RNG_LANES; lane++) {
      cv_rng rng = known_key(i);
      uint32_t word[CV_RNG_BATCH];
      cv_rng_words(&rng, known_index(i) - (uint64_t)lane, word);
      for (int j = 0; j < 4; j++) ck_assert_uint_eq(word[4 * lane + j], known[i].result[j]);
    }
}
END_TEST

/* Also where the low half of an index overflows within the batch, and where its 56 bits end. */
START_TEST(test_words_are_those_of_the_blocks) {
  const uint64_t ends[] = {0, (uint64_t)1 << 32, (uint64_t)7 << 32, (uint64_t)1 << 55, (uint64_t)1 << 56};
  const cv_rng rng = {.seed = 0x123456789abcdef0, .stream = CV_RNG_SKETCH, .a = 77, .b = 0x80000001};
  for (size_t e = 0; e < sizeof ends / sizeof ends[0]; e++)
    for (int before = 0; before <= CV_RNG_LANES; before++) {
      uint64_t first = ends[e] - (uint64_t)before;
      uint32_t word[CV_RNG_BATCH], block[4];
      cv_rng_words(&rng, first, word);
      for (int lane = 0; lane < CV_RNG_LANES; lane++) {
        cv_rng_block(&rng, first + (uint64_t)lane, block);
        ck_assert_mem_eq(word + 4 * lane, block, sizeof block);
      }
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
  ck_assert(cv_rng_uniform(&base, 9) == cv_rng_uniform(&base, 9 + ((uint64_t)1 << 57))); /* two to a block, 56 bits */
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

/* Largest distance of a batch from Box-Muller in fp64 with libm. */
static double box_muller_error(const uint32_t *word) {
  float x[CV_RNG_BATCH];
  double worst = 0;
  cv_rng_box_muller(word, x);
  for (int i = 0; i < CV_RNG_BATCH; i += 2) {
    double radius = sqrt(-2 * log((word[i] + 0.5) * 0x1p-32));
    double angle = 0x1.921fb54442d18p+2 * ((word[i + 1] + 0.5) * 0x1p-32);
    worst = fmax(worst, fmax(fabs(x[i] - radius * cos(angle)), fabs(x[i + 1] - radius * sin(angle))));
  }
  return worst;
}

START_TEST(test_box_muller_of_random_words) {
  const cv_rng rng = {.seed = 8, .stream = CV_RNG_PROBE};
  uint32_t word[CV_RNG_BATCH];
  for (uint64_t i = 0; i < 10000; i++) {
    cv_rng_words(&rng, i * CV_RNG_LANES, word);
    ck_assert_double_le(box_muller_error(word), 1e-6);
  }
}
END_TEST

/* Radii in both tails, 2^-32 to 2^-1 from either end, with random angles. */
START_TEST(test_box_muller_of_extreme_radii) {
  const cv_rng rng = {.seed = 9, .stream = CV_RNG_PROBE};
  uint32_t word[CV_RNG_BATCH];
  for (uint64_t n = 0; n < 10000; n++) {
    cv_rng_words(&rng, n * CV_RNG_LANES, word);
    for (int i = 0; i < CV_RNG_BATCH; i += 2) word[i] >>= i / 2 % 32;
    ck_assert_double_le(box_muller_error(word), 1e-6);
    for (int i = 0; i < CV_RNG_BATCH; i += 2) word[i] = ~word[i];
    ck_assert_double_le(box_muller_error(word), 1e-6);
  }
}
END_TEST

/* The words next to every eighth of a turn, where the formulas change. */
START_TEST(test_box_muller_next_to_the_eighths) {
  uint32_t word[CV_RNG_BATCH];
  for (uint32_t radius = 0; radius < 64; radius++) {
    for (uint32_t i = 0; i < CV_RNG_BATCH; i += 2) {
      word[i] = radius << 26 | radius;
      word[i + 1] = (i / 2 % 8 << 29) + i / 16 - 4;
    }
    ck_assert_double_le(box_muller_error(word), 1e-6);
  }
}
END_TEST

START_TEST(test_tail_reaches_the_last_word) {
  uint32_t word[CV_RNG_BATCH] = {0};
  float x[CV_RNG_BATCH];
  for (uint32_t i = 0; i < 4; i++) word[2 * i + 1] = i << 30; /* along x, y, -x, -y */
  cv_rng_box_muller(word, x);
  const double far = sqrt(2 * 33 * log(2.0)); /* u = 2^-33 */
  const double expected[] = {far, 0, 0, far, -far, 0, 0, -far};
  ck_assert_double_gt(far, 6.7);
  for (int i = 0; i < 8; i++) ck_assert_double_eq_tol(x[i], expected[i], 1e-6);
}
END_TEST

enum { N_NORMAL = 1000000 };
static float normal[N_NORMAL];

/* Means over N_NORMAL numbers within five standard errors; var x^p = E x^2p - (E x^p)^2: 1, 2, 15, 96. */
START_TEST(test_normal_moments) {
  const cv_rng rng = {.seed = 11, .stream = CV_RNG_SKETCH, .a = 4};
  const double expected[] = {1, 0, 1, 0, 3}, variance[] = {0, 1, 2, 15, 96};
  double moment[5] = {0};
  cv_rng_normal(&rng, 0, N_NORMAL, normal);
  for (int i = 0; i < N_NORMAL; i++) {
    double x = normal[i], power = 1;
    for (int p = 1; p < 5; p++) moment[p] += (power *= x) / N_NORMAL;
  }
  for (int p = 1; p < 5; p++) ck_assert_double_eq_tol(moment[p], expected[p], 5 * sqrt(variance[p] / N_NORMAL));
}
END_TEST

/* Neither numbers i and i + lag nor their squares (a pair shares its radius), i = 0, stride, ...; five standard errors.
 */
static void check_uncorrelated(int lag, int stride) {
  double product = 0, squares = 0, n = 0;
  for (int i = 0; i < N_NORMAL - lag; i += stride, n++) {
    double x = normal[i], y = normal[i + lag];
    product += x * y;
    squares += (x * x - 1) * (y * y - 1);
  }
  ck_assert_double_eq_tol(product / n, 0, 5 * sqrt(1 / n));
  ck_assert_double_eq_tol(squares / n, 0, 5 * sqrt(4 / n));
}

START_TEST(test_normal_is_uncorrelated) {
  const cv_rng rng = {.seed = 13, .stream = CV_RNG_SKETCH, .b = 9};
  const int lags[] = {1, 2, 3, 4, CV_RNG_LANES, CV_RNG_BATCH};
  cv_rng_normal(&rng, 0, N_NORMAL, normal);
  check_uncorrelated(1, 2); /* sine and cosine of one angle */
  for (size_t k = 0; k < sizeof lags / sizeof lags[0]; k++) check_uncorrelated(lags[k], 1);
}
END_TEST

/* Kolmogorov-Smirnov against the normal distribution function. */
static int by_value(const void *x, const void *y) {
  float a = *(const float *)x, b = *(const float *)y;
  return (a > b) - (a < b);
}

START_TEST(test_normal_distribution) {
  const cv_rng rng = {.seed = 12, .stream = CV_RNG_INIT};
  double worst = 0;
  cv_rng_normal(&rng, 0, N_NORMAL, normal);
  qsort(normal, N_NORMAL, sizeof *normal, by_value);
  for (int i = 0; i < N_NORMAL; i++) {
    double phi = 0.5 * erfc(-normal[i] / sqrt(2.0));
    worst = fmax(worst, fmax(fabs(phi - (double)i / N_NORMAL), fabs(phi - (double)(i + 1) / N_NORMAL)));
  }
  ck_assert_double_lt(worst * sqrt((double)N_NORMAL), 2.23); /* p = 1e-4 */
}
END_TEST

/* How many lie beyond 2, 3 and 4: binomial, within five standard deviations. */
START_TEST(test_normal_tails) {
  const cv_rng rng = {.seed = 15, .stream = CV_RNG_INIT, .a = 1};
  cv_rng_normal(&rng, 0, N_NORMAL, normal);
  for (int sigma = 2; sigma <= 4; sigma++) {
    double tail = 0.5 * erfc(sigma / sqrt(2.0)), mean = N_NORMAL * tail, above = 0, below = 0;
    for (int i = 0; i < N_NORMAL; i++) {
      above += normal[i] > (float)sigma;
      below += normal[i] < (float)-sigma;
    }
    ck_assert_double_eq_tol(above, mean, 5 * sqrt(mean * (1 - tail)));
    ck_assert_double_eq_tol(below, mean, 5 * sqrt(mean * (1 - tail)));
  }
}
END_TEST

/* First indices: even and odd, where the low half of a block's index overflows, at the last of its 56 bits. */
static const uint64_t firsts[] = {
    0, 1, 6, ((uint64_t)1 << 34) - 1001, ((uint64_t)1 << 56) - 3, ((uint64_t)1 << 58) - 502};

START_TEST(test_normal_of_an_index_is_its_number_alone) {
  enum { N = 2000 };
  static float all[N];
  const cv_rng rng = {.seed = 2, .stream = CV_RNG_TEACHER, .b = 1};
  for (size_t f = 0; f < sizeof firsts / sizeof firsts[0]; f++) {
    cv_rng_normal(&rng, firsts[f], N, all);
    for (int i = 0; i < N; i++) {
      float alone;
      cv_rng_normal(&rng, firsts[f] + (uint64_t)i, 1, &alone);
      ck_assert_mem_eq(&alone, all + i, sizeof alone);
    }
  }
}
END_TEST

/* Fills part by calls of random lengths, half of them short; no call writes behind its end. */
static void fill_by_random_calls(const cv_rng *rng, uint64_t first, int64_t n, uint64_t trial, float *part) {
  const cv_rng split = {.seed = 21, .stream = CV_RNG_PROBE, .a = (uint32_t)trial};
  int64_t length;
  for (int64_t i = 0, call = 0; i < n; i += length, call++) {
    uint64_t bound = cv_rng_below(&split, 2 * (uint64_t)call, 2) == 0 ? 8 : 3 * CV_RNG_BATCH;
    length = (int64_t)cv_rng_below(&split, 2 * (uint64_t)call + 1, bound); /* none is a call too */
    if (length > n - i) length = n - i;
    part[i + length] = 100;
    cv_rng_normal(rng, first + (uint64_t)i, length, part + i);
    ck_assert(part[i + length] == 100);
  }
}

START_TEST(test_normal_does_not_depend_on_the_calls) {
  enum { N = 3000, TRIALS = 200 };
  static float all[N], part[N + 1];
  const cv_rng rng = {.seed = 2, .stream = CV_RNG_SKETCH, .a = 5};
  for (size_t f = 0; f < sizeof firsts / sizeof firsts[0]; f++) {
    cv_rng_normal(&rng, firsts[f], N, all);
    for (uint64_t trial = 0; trial < TRIALS; trial++) {
      memset(part, 0, sizeof part);
      fill_by_random_calls(&rng, firsts[f], N, trial, part);
      ck_assert_mem_eq(part, all, sizeof all);
    }
  }
}
END_TEST

int main(void) {
  const TTest *const tests[] = {
      test_known_answers,
      test_known_answers_in_every_lane,
      test_words_are_those_of_the_blocks,
      test_every_part_of_the_key_counts,
      test_uniform_and_below_from_a_known_word,
      test_uniform_moments,
      test_below_is_even,
      test_box_muller_of_random_words,
      test_box_muller_of_extreme_radii,
      test_box_muller_next_to_the_eighths,
      test_tail_reaches_the_last_word,
      test_normal_moments,
      test_normal_is_uncorrelated,
      test_normal_distribution,
      test_normal_tails,
      test_normal_of_an_index_is_its_number_alone,
      test_normal_does_not_depend_on_the_calls,
  };
  return suite_run("rng", tests, sizeof tests / sizeof tests[0], NULL);
}
