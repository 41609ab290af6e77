/* thin.h: moments over many seeds against exact formulas, and a dense K-FAC direction from sampled statistics. */
#include "dense_reference.h"
#include "linalg/dense.h"
#include "linalg/thin.h"
#include "linalg_reference.h"
#include "suite.h"

#include <float.h>
#include <string.h>

enum { N = 5, ROWS = 120, SAMPLES = 15, SEEDS = 4000, PARTS = 4 };

/* X (rows, n), or (rows, n - 1) and a 1 behind each row, with what is exactly known of it. */
typedef struct batch {
  int64_t rows, n, ld;
  bool has_one;
  float *X;
  double *norms, *gram; /* (rows), (n, n) */
  double total, gram_squares;
} batch;

static double value(const batch *b, int64_t i, int64_t j) {
  return b->has_one && j == b->n - 1 ? 1 : (double)b->X[i * b->ld + j];
}

/* After X has been filled. */
static void batch_measure(batch *b) {
  int64_t n = b->n;
  b->total = 0;
  memset(b->gram, 0, (size_t)(n * n) * sizeof *b->gram);
  for (int64_t i = 0; i < b->rows; i++) {
    for (int64_t j = 0; j < n * n; j++) b->gram[j] += value(b, i, j / n) * value(b, i, j % n);
  }
  for (int64_t j = 0; j < n; j++) b->total += b->gram[j * n + j];
  b->gram_squares = pow(ref_norm(n * n, b->gram), 2);
  cv_thin_norms(b->rows, n, b->X, b->ld, b->has_one, b->norms);
}

/* Random rows whose lengths are spread over two decades; NaN in the padding. */
static batch batch_new(uint64_t seed, int64_t rows, int64_t n, bool has_one) {
  batch b = {.rows = rows, .n = n, .ld = n + 2, .has_one = has_one};
  b.X = ref_floats(rows * b.ld + 1), b.norms = ref_doubles(rows + 1), b.gram = ref_doubles(n * n);
  ref_fill(seed, rows, n - (has_one ? 1 : 0), b.X, b.ld);
  for (int64_t i = 0; i < rows; i++) {
    float length = (float)pow(10, ref_random(seed + 1, i));
    for (int64_t j = 0; j < b.ld; j++) b.X[i * b.ld + j] *= length;
  }
  batch_measure(&b);
  return b;
}

static void batch_free(batch *b) {
  free(b->X), free(b->norms), free(b->gram);
}

static cv_rng key_of(uint64_t seed) {
  return (cv_rng){.seed = seed, .stream = CV_RNG_PROBE, .a = 7};
}

/* The probabilities of thin.h, written down once more. */
static double probability(const batch *b, int64_t i) {
  return 0.9 * b->norms[i] / b->total + 0.1 / (double)b->rows;
}

/* S (n, n) += sum of weight x x^T over the chosen rows, through the gathered block. No assertions in what runs for
 * every seed: Check writes a file for each. */
static void add_gathered(const batch *b, int64_t first, int64_t count, const int64_t *index, const double *weight,
                         double *S) {
  int64_t n = b->n, ld = n + 1;
  float *block = ref_floats(count * ld + 1);
  ref_fill(1, count, 0, block, ld);
  cv_thin_gather(count, n, b->X + first * b->ld, b->ld, b->has_one, index, weight, block, ld);
  for (int64_t k = 0; k < count; k++) {
    for (int64_t j = 0; j < n * n; j++) S[j] += (double)block[k * ld + j / n] * (double)block[k * ld + j % n];
  }
  for (int64_t k = 0; k < count; k++) {
    if (!isnan(block[k * ld + n])) ck_abort_msg("padding of row %d was written", (int)k);
  }
  free(block);
}

/* An estimate of the Gram matrix from c rows. */
typedef void estimator(const batch *b, uint64_t seed, int64_t c, double *S);

static void estimate_part(const batch *b, int64_t first, int64_t rows, uint64_t seed, int64_t c, double *S) {
  int64_t *index = ref_block(c, sizeof *index);
  double *weight = ref_doubles(c);
  if (cv_thin_choose(rows, b->norms + first, c, key_of(seed), index, weight, NULL) != CURVD_OK) ck_abort();
  add_gathered(b, first, c < rows ? c : rows, index, weight, S);
  free(index), free(weight);
}

static void thinned(const batch *b, uint64_t seed, int64_t c, double *S) {
  estimate_part(b, 0, b->rows, seed, c, S);
}

/* Four workers with a tenth to four tenths of the rows, each with its share of the samples. */
static void thinned_in_parts(const batch *b, uint64_t seed, int64_t c, double *S) {
  int64_t first = 0;
  for (int64_t q = 1; q <= PARTS; q++) {
    int64_t rows = b->rows * q / 10;
    double total = 0;
    for (int64_t i = first; i < first + rows; i++) total += b->norms[i];
    estimate_part(b, first, rows, PARTS * seed + (uint64_t)q, (int64_t)ceil((double)c * total / b->total), S);
    first += rows;
  }
  if (first != b->rows) ck_abort();
}

/* c independent draws: the sampling that the formula is exact for. */
static void independent(const batch *b, uint64_t seed, int64_t c, double *S) {
  int64_t *index = ref_block(c, sizeof *index);
  double *weight = ref_doubles(c);
  cv_rng key = key_of(seed);
  for (int64_t k = 0; k < c; k++) {
    double point = cv_rng_uniform(&key, (uint64_t)k) - probability(b, 0);
    for (index[k] = 0; point > 0 && index[k] < b->rows - 1;) point -= probability(b, ++index[k]);
    weight[k] = 1 / ((double)c * probability(b, index[k]));
  }
  add_gathered(b, 0, c, index, weight, S);
  free(index), free(weight);
}

/* Sums over seeds: of every entry and the trace (at n n) with their squares, and of |S - gram|^2. */
typedef struct moments {
  double sum[N * N + 1], squares[N * N + 1], error;
} moments;

static moments observe(const batch *b, estimator *estimate, int64_t c) {
  moments all = {0};
  for (uint64_t seed = 0; seed < SEEDS; seed++) {
    double S[N * N + 1] = {0};
    estimate(b, seed, c, S);
    for (int j = 0; j < N; j++) S[N * N] += S[j * N + j];
    for (int j = 0; j <= N * N; j++) all.sum[j] += S[j], all.squares[j] += S[j] * S[j];
    for (int j = 0; j < N * N; j++) all.error += pow(S[j] - b->gram[j], 2) / SEEDS;
  }
  return all;
}

/* Every entry and the trace within 3 standard errors of the mean; 1e-6 for the fp32 block where there is no spread. */
static void check_mean(const batch *b, const moments *all) {
  for (int j = 0; j <= N * N; j++) {
    double mean = all->sum[j] / SEEDS, want = j < N * N ? b->gram[j] : b->total;
    double variance = fmax(all->squares[j] / SEEDS - mean * mean, 0) / SEEDS;
    ck_assert_msg(fabs(mean - want) <= 3 * sqrt(variance) + 1e-6 * b->total, "entry %d: %g, not %g +- %g", j, mean,
                  want, sqrt(variance));
  }
}

START_TEST(test_unbiased) {
  for (int has_one = 0; has_one < 2; has_one++) {
    batch b = batch_new(1, ROWS, N, has_one);
    moments all = observe(&b, thinned, SAMPLES), few = observe(&b, thinned, 1), parts;
    check_mean(&b, &all), check_mean(&b, &few);
    parts = observe(&b, thinned_in_parts, SAMPLES);
    check_mean(&b, &parts);
    batch_free(&b);
  }
}
END_TEST

/* ---- variance ---- */

/* E |S - gram|^2 of c independent draws. */
static double variance_independent(const batch *b, int64_t c) {
  double sum = 0;
  for (int64_t i = 0; i < b->rows; i++) sum += b->norms[i] * b->norms[i] / probability(b, i);
  return (sum - b->gram_squares) / (double)c;
}

/* The same with one draw in each stratum [k / c, (k + 1) / c): the sum over strata of E |x x^T / (c p)|^2 - |E x x^T /
 * (c p)|^2, the rows weighted by how much of the stratum they cover. */
static double variance_stratified(const batch *b, int64_t c) {
  double variance = 0;
  for (int64_t k = 0; k < c; k++) {
    double low = (double)k / (double)c, high = (double)(k + 1) / (double)c, start = 0, mean[N * N] = {0};
    for (int64_t i = 0; i < b->rows; i++) {
      double p = probability(b, i), share = (double)c * (fmin(start + p, high) - fmax(start, low));
      start += p;
      if (share <= 0) continue;
      variance += share * pow(b->norms[i] / ((double)c * p), 2);
      for (int j = 0; j < N * N; j++) mean[j] += share * value(b, i, j / N) * value(b, i, j % N) / ((double)c * p);
    }
    variance -= pow(ref_norm(N * N, mean), 2);
  }
  return variance;
}

/* |S - gram|^2 has a relative standard deviation of about 1, so the mean of 4000 is right to 1.6 %: 5 % is 3 s.e. */
static void check_variance(const char *what, double got, double want) {
  ck_assert_msg(fabs(got - want) <= 0.05 * want, "%s: %g, not %g", what, got, want);
}

START_TEST(test_variance) {
  for (int has_one = 0; has_one < 2; has_one++) {
    batch b = batch_new(3, ROWS, N, has_one);
    double drawn = variance_independent(&b, SAMPLES), stratified = variance_stratified(&b, SAMPLES);
    double srf2 = b.total * b.total / b.gram_squares;
    moments ours = observe(&b, thinned, SAMPLES), reference = observe(&b, independent, SAMPLES);
    moments parts = observe(&b, thinned_in_parts, SAMPLES);
    check_variance("independent draws", reference.error, drawn);
    check_variance("strata", ours.error, stratified);
    ck_assert_msg(ours.error <= drawn, "%g above %g", ours.error, drawn);
    ck_assert(drawn <= pow(cv_thin_error(srf2, SAMPLES), 2) * b.gram_squares);
    ck_assert(parts.error <= pow(cv_thin_error(srf2, SAMPLES), 2) * b.gram_squares);
    batch_free(&b);
  }
}
END_TEST

/* Rows that alternate, two to a stratum. Each stratum is then as varied as the whole and gains nothing; a draw shared
 * by all strata would take one kind only, with c times the variance. */
START_TEST(test_variance_of_rows_in_step_with_the_strata) {
  batch b = batch_new(3, 2 * SAMPLES, N, false);
  for (int64_t i = 0; i < b.rows * b.ld; i++) b.X[i] = i % b.ld == i / b.ld % 2;
  batch_measure(&b);
  moments ours = observe(&b, thinned, SAMPLES);
  check_variance("alternating", ours.error, variance_independent(&b, SAMPLES));
  check_mean(&b, &ours);
  batch_free(&b);
}
END_TEST

/* ---- the choice itself ---- */

/* Point k of the unit interval, (k + u_k) / c, in the cumulative probabilities; in long double and from the start. */
static void check_choice(const batch *b, uint64_t seed, int64_t c) {
  int64_t *index = ref_block(c, sizeof *index), at = 0;
  double *weight = ref_doubles(c);
  long double end = probability(b, 0);
  cv_rng key = key_of(seed);
  ck_assert_int_eq(cv_thin_choose(b->rows, b->norms, c, key, index, weight, NULL), CURVD_OK);
  for (int64_t k = 0; k < c; k++) {
    long double point = ((long double)k + cv_rng_uniform(&key, (uint64_t)k)) / c;
    while (at < b->rows - 1 && point >= end) end += probability(b, ++at);
    double want = 1 / ((double)c * probability(b, at));
    if (index[k] != at) ck_abort_msg("sample %d: row %d, not %d", (int)k, (int)index[k], (int)at);
    if (fabs(weight[k] - want) > 1e-13 * want) ck_abort_msg("row %d weighs %g, not %g", (int)at, weight[k], want);
    if (weight[k] > 10 * (double)b->rows / (double)c * (1 + 1e-12)) ck_abort_msg("weight %g", weight[k]);
    if (weight[k] * b->norms[at] > b->total / (0.9 * (double)c) * (1 + 1e-12)) ck_abort_msg("row %d", (int)at);
  }
  free(index), free(weight);
}

START_TEST(test_choice_is_the_stratified_one) {
  const int64_t sizes[][2] = {{2, 1}, {100, 1}, {100, 7}, {100, 99}, {1000, 300}, {200000, 5000}, {200000, 199999}};
  for (int k = 0; k < 7; k++) {
    batch b = batch_new((uint64_t)k, sizes[k][0], 2, false);
    for (uint64_t seed = 0; seed < 3; seed++) check_choice(&b, seed, sizes[k][1]);
    batch_free(&b);
  }
}
END_TEST

/* One row a million times as long as the others, which are drawn as often as they should. */
START_TEST(test_short_rows_are_reached) {
  enum { FEW = 40 };
  double norms[FEW], weight[FEW], total = 1e12 + FEW - 1;
  int64_t index[FEW], times[FEW] = {0};
  for (int i = 0; i < FEW; i++) norms[i] = i == 17 ? 1e12 : 1;
  for (uint64_t seed = 0; seed < SEEDS; seed++) {
    if (cv_thin_choose(FEW, norms, 10, key_of(seed), index, weight, NULL) != CURVD_OK) ck_abort();
    for (int k = 0; k < 10; k++) times[index[k]]++;
  }
  for (int i = 0; i < FEW; i++) {
    double mean = SEEDS * 10 * (0.9 * norms[i] / total + 0.1 / FEW); /* Poisson at most: 4 standard deviations */
    ck_assert_msg(fabs((double)times[i] - mean) <= 4 * sqrt(mean), "row %d: %d times, not %g", i, (int)times[i], mean);
  }
}
END_TEST

START_TEST(test_equal_rows_and_rows_of_zeros) {
  enum { EACH = 6 };
  double norms[EACH * SAMPLES], weight[SAMPLES];
  int64_t index[SAMPLES];
  for (int length = 0; length < 3; length++) {
    for (int i = 0; i < EACH * SAMPLES; i++) norms[i] = length == 2 ? 1e-300 : length;
    ck_assert_int_eq(cv_thin_choose(EACH * SAMPLES, norms, SAMPLES, key_of(1), index, weight, NULL), CURVD_OK);
    for (int k = 0; k < SAMPLES; k++) {
      ck_assert_int_eq(index[k] / EACH, k); /* one in each stratum */
      ck_assert(fabs(weight[k] - EACH) <= 1e-12 * EACH);
    }
  }
}
END_TEST

START_TEST(test_all_rows_when_enough_are_asked_for) {
  double norms[] = {3, 0, 1e20, 1e-20}, weight[4];
  int64_t index[4];
  for (int64_t c = 4; c < 7; c++) {
    memset(index, -1, sizeof index);
    ck_assert_int_eq(cv_thin_choose(4, norms, c == 6 ? INT64_MAX : c, key_of(1), index, weight, NULL), CURVD_OK);
    for (int i = 0; i < 4; i++) ck_assert(index[i] == i && weight[i] == 1);
  }
  ck_assert_int_eq(cv_thin_choose(0, NULL, 3, key_of(1), NULL, NULL, NULL), CURVD_OK);
}
END_TEST

START_TEST(test_key_decides) {
  batch b = batch_new(1, 500, 3, false);
  int64_t index[3][40];
  double weight[40];
  for (int k = 0; k < 3; k++) {
    ck_assert_int_eq(cv_thin_choose(500, b.norms, 40, key_of(k == 2), index[k], weight, NULL), CURVD_OK);
  }
  ck_assert(memcmp(index[0], index[1], sizeof index[0]) == 0);
  ck_assert(memcmp(index[0], index[2], sizeof index[0]) != 0);
  batch_free(&b);
}
END_TEST

static void check_refused(const double *norms, int64_t rows, int64_t c, curvd_status status, const char *words) {
  int64_t index[4] = {-1, -1, -1, -1};
  double weight[4] = {0};
  cv_error err = {0};
  ck_assert_int_eq(cv_thin_choose(rows, norms, c, key_of(1), index, weight, &err), status);
  ck_assert_msg(strstr(err.text, words) != NULL, "%s", err.text);
  for (int k = 0; k < 4; k++) ck_assert(index[k] == -1 && weight[k] == 0);
}

START_TEST(test_refusals) {
  const double bad[] = {NAN, INFINITY, -1, -INFINITY}, good[] = {1, 1, 1, 1};
  for (int k = 0; k < 4; k++) {
    const double norms[] = {1, 2, bad[k], 3};
    check_refused(norms, 4, 2, CURVD_ERR_NUMERIC, "row 2 of 4");
    check_refused(norms, 4, 4, CURVD_ERR_NUMERIC, "row 2 of 4"); /* all are taken: still no statistics */
  }
  const double huge[] = {DBL_MAX, DBL_MAX, 1, 1};
  check_refused(huge, 4, 2, CURVD_ERR_NUMERIC, "infinity");
  check_refused(good, 4, 0, CURVD_ERR_ARGUMENT, "0 samples");
  check_refused(good, 4, -3, CURVD_ERR_ARGUMENT, "-3 samples");
  check_refused(good, -1, 3, CURVD_ERR_ARGUMENT, "-1 rows");
}
END_TEST

START_TEST(test_norms) {
  for (int has_one = 0; has_one < 2; has_one++) {
    for (int64_t n = 1; n < 40; n += 19) {
      batch b = batch_new(5, 9, n, has_one);
      for (int64_t i = 0; i < 9; i++) {
        double want = 0;
        for (int64_t j = 0; j < n; j++) want += pow(value(&b, i, j), 2);
        ck_assert(fabs(b.norms[i] - want) <= 1e-14 * want);
      }
      b.X[4 * b.ld] = NAN;
      cv_thin_norms(9, n, b.X, b.ld, has_one, b.norms);
      ck_assert(n == has_one ? b.norms[4] == 1 : isnan(b.norms[4]));
      batch_free(&b);
    }
  }
}
END_TEST

/* The smallest count that keeps the bound. */
START_TEST(test_count_for_a_tolerance) {
  const double tolerances[] = {0.01, 0.1, 0.3, 1};
  for (double srf2 = 1; srf2 < 1e6; srf2 *= 3.7) {
    for (int t = 0; t < 4; t++) {
      int64_t c = cv_thin_count(srf2, tolerances[t]);
      ck_assert(c >= 1 && cv_thin_error(srf2, c) <= tolerances[t] * (1 + 1e-12));
      ck_assert(c == 1 || cv_thin_error(srf2, c - 1) > tolerances[t]);
    }
  }
  ck_assert_int_eq(cv_thin_count(9, 0.5), 36); /* (9 / 0.9 - 1) / 0.25 */
  ck_assert_int_eq(cv_thin_count(0.5, 0.1), 1);
  ck_assert_int_eq(cv_thin_count(9, 0), INT64_MAX);
  ck_assert_int_eq(cv_thin_count(9, 1e-12), INT64_MAX);
  ck_assert_int_eq(cv_thin_count(NAN, 0.1), INT64_MAX);
  ck_assert_int_eq(cv_thin_count(INFINITY, 0.1), INT64_MAX);
}
END_TEST

/* ---- a direction from sampled statistics ---- */

/* Rows with covariance eigenvalues (1 + i)^-1.5 in random directions. */
static batch decaying(uint64_t seed, int64_t rows, int64_t n) {
  batch b = batch_new(seed, rows, n, false);
  double *Q = ref_doubles(n * n);
  ref_basis(seed, n, n, Q);
  for (int64_t b_row = 0; b_row < rows; b_row++) {
    float *x = b.X + b_row * b.ld;
    for (int64_t j = 0; j < n; j++) x[j] = 0;
    for (int64_t i = 0; i < n; i++) {
      double z = ref_random(seed + 2, b_row * n + i) * pow(1 + (double)i, -0.75);
      for (int64_t j = 0; j < n; j++) x[j] += (float)(z * Q[i * n + j]);
    }
  }
  batch_measure(&b);
  free(Q);
  return b;
}

/* S (n, n) / rows, damped and to the power -1/2, the default of the service. */
typedef struct damping {
  bool of_largest; /* unit: the largest eigenvalue, else their mean */
  double size;
} damping;

static dense damped_inverse(const batch *b, const double *S, damping how) {
  dense M = dense_zero(b->n, b->n);
  for (int64_t j = 0; j < b->n * b->n; j++) M.x[j / b->n][j % b->n] = S[j] / (double)b->rows;
  double unit = how.of_largest ? dense_eig(M).w[0] : dense_trace(M) / (double)b->n;
  return dense_inverse_power(M, how.size * unit, 0.5);
}

static dense inverse_from_samples(const batch *b, uint64_t seed, double per_srf2, damping how) {
  double *S = ref_doubles(b->n * b->n);
  int64_t c = (int64_t)ceil(per_srf2 * b->total * b->total / b->gram_squares);
  ck_assert(4 * c < b->rows);
  thinned(b, seed, c, S);
  dense inverse = damped_inverse(b, S, how);
  free(S);
  return inverse;
}

/* 1 - cosine between G^-1/2 V A^-1/2 from all rows and from samples, V = g^T a / rows; mean and largest of 10 seeds. */
static double direction_loss(const batch *g, const batch *a, double per_srf2, damping how, double *worst) {
  enum { TIMES = 10 };
  dense V = dense_zero(g->n, a->n);
  for (int64_t i = 0; i < g->rows; i++) {
    for (int64_t j = 0; j < V.m * V.n; j++) V.x[j / V.n][j % V.n] += value(g, i, j / V.n) * value(a, i, j % V.n);
  }
  dense full = dense_product(dense_product(damped_inverse(g, g->gram, how), V), damped_inverse(a, a->gram, how));
  double mean = 0;
  *worst = 0;
  for (uint64_t seed = 0; seed < TIMES; seed++) {
    dense left = inverse_from_samples(g, seed, per_srf2, how);
    dense thin = dense_product(dense_product(left, V), inverse_from_samples(a, 100 + seed, per_srf2, how));
    double loss = 1 - dense_dot(full, thin) / (dense_norm(full) * dense_norm(thin));
    *worst = fmax(*worst, loss), mean += loss / TIMES;
  }
  return mean;
}

/* With strong damping a cosine of 0.99 takes 16 srf2 rows. With a tenth of the mean eigenvalue it takes more: the loss
 * is of second order in the error of the statistics, so it falls as 1 / c. */
START_TEST(test_direction_from_samples) {
  const damping strong = {true, 1}, usual = {false, 0.1};
  batch a = decaying(11, 4000, 24), g = decaying(12, 4000, 16);
  double worst, few, many;
  direction_loss(&g, &a, 16, strong, &worst);
  ck_assert_msg(worst <= 0.01, "cosine %g", 1 - worst);
  few = direction_loss(&g, &a, 16, usual, &worst);
  many = direction_loss(&g, &a, 64, usual, &worst);
  ck_assert_msg(few > 2.5 * many && few < 6 * many, "%g with 16, %g with 64", few, many);
  ck_assert_msg(worst <= 0.03, "cosine %g", 1 - worst);
  direction_loss(&g, &a, 200, usual, &worst);
  ck_assert_msg(worst <= 0.01, "cosine %g", 1 - worst);
  batch_free(&a), batch_free(&g);
}
END_TEST

int main(void) {
  const TTest *const tests[] = {
      test_unbiased,
      test_variance,
      test_variance_of_rows_in_step_with_the_strata,
      test_choice_is_the_stratified_one,
      test_short_rows_are_reached,
      test_equal_rows_and_rows_of_zeros,
      test_all_rows_when_enough_are_asked_for,
      test_key_decides,
      test_refusals,
      test_norms,
      test_count_for_a_tolerance,
      test_direction_from_samples,
  };
  return suite_run("thin", tests, sizeof tests / sizeof tests[0], NULL);
}
