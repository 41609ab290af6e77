/* Pooling and batch normalisation against their definitions in fp64, and gradients against central differences of
 * those: through the whole normalisation, statistics of the batch included. */
#include "net/kernel.h"

#include "suite.h"

#include <math.h>
#include <string.h>

static const nn_kernels *kernels_of(const char *name) {
  const nn_kernels *kernels = NULL;
  ck_assert_int_eq(nn_kernels_find(name, &kernels, NULL), CURVD_OK);
  return kernels;
}

/* A cheap sequence in [-1, 1). */
static double next_number(uint64_t *state) {
  *state = *state * 6364136223846793005u + 1442695040888963407u;
  return (double)(int64_t)(*state >> 11) * 0x1p-52 - 1;
}

static float *random_numbers(int64_t n, uint64_t seed) {
  float *x = malloc((size_t)(n + 1) * sizeof *x);
  for (int64_t i = 0; i <= n; i++) x[i] = (float)next_number(&seed);
  return x;
}

/* ---- pooling ---- */

static const nn_pool pools[] = {
    {NN_POOL_MAX, false, 3, {6, 8}, {0}, {2, 2}, {2, 2}, {0, 0}},
    {NN_POOL_MAX, false, 5, {7, 5}, {0}, {3, 2}, {2, 1}, {1, 0}},
    {NN_POOL_MAX, false, 70, {5, 4}, {0}, {3, 3}, {2, 2}, {1, 1}},
    {NN_POOL_MAX, false, 2, {9, 9}, {0}, {2, 2}, {3, 4}, {0, 1}},
    {NN_POOL_MAX, false, 1, {1, 1}, {0}, {1, 1}, {1, 1}, {0, 0}},
    {NN_POOL_MAX, false, 4, {2, 3}, {0}, {4, 4}, {1, 1}, {3, 2}},
    {NN_POOL_AVERAGE, false, 3, {6, 8}, {0}, {2, 2}, {2, 2}, {0, 0}},
    {NN_POOL_AVERAGE, false, 5, {7, 5}, {0}, {3, 2}, {2, 1}, {1, 0}},
    {NN_POOL_AVERAGE, true, 5, {7, 5}, {0}, {3, 2}, {2, 1}, {1, 0}},
    {NN_POOL_AVERAGE, false, 33, {4, 4}, {0}, {4, 4}, {1, 1}, {0, 0}}, /* global */
    {NN_POOL_AVERAGE, false, 1, {1, 1}, {0}, {1, 1}, {1, 1}, {0, 0}},
    {NN_POOL_AVERAGE, true, 2, {5, 5}, {0}, {2, 2}, {3, 3}, {1, 1}},
    {NN_POOL_AVERAGE, false, 4, {2, 3}, {0}, {4, 4}, {1, 1}, {3, 2}},
};
enum { N_POOLS = sizeof pools / sizeof *pools, ROWS = 2 };

/* Output `at` = ((n out_h + h) out_w + w) channels + c. */
static double pooled(const nn_pool *s, const float *x, int64_t at) {
  int64_t c = at % s->channels, w = at / s->channels % s->out[1], h = at / s->channels / s->out[1] % s->out[0],
          n = at / s->channels / s->out[1] / s->out[0];
  double largest = -INFINITY, sum = 0;
  int count = 0;
  for (int64_t a = 0; a < s->kernel[0]; a++)
    for (int64_t b = 0; b < s->kernel[1]; b++) {
      int64_t i = h * s->stride[0] + a - s->pad[0], j = w * s->stride[1] + b - s->pad[1];
      bool is_inside = i >= 0 && j >= 0 && i < s->in[0] && j < s->in[1];
      if (is_inside) {
        double value = x[((n * s->in[0] + i) * s->in[1] + j) * s->channels + c];
        largest = fmax(largest, value);
        sum += value;
      }
      count += is_inside || s->counts_padding;
    }
  return s->kind == NN_POOL_MAX ? largest : sum / count;
}

static double pool_loss(const nn_pool *s, const float *x, const float *g, int64_t n_y) {
  double sum = 0;
  for (int64_t i = 0; i < n_y; i++) sum += g[i] * pooled(s, x, i);
  return sum;
}

/* Numbers are apart by 2^-6 or more where a maximum is looked for, so that a step of 2^-8 does not change which is the
 * largest: differences are exact but for rounding. At most 16 terms of at most 1 in fp32: 16 * 16 * 2^-24. */
START_TEST(test_pools) {
  const nn_kernels *k = kernels_of("plain");
  for (int p = 0; p < N_POOLS; p++) {
    nn_pool s = pools[p];
    ck_assert_int_eq(nn_pool_size(&s, NULL), CURVD_OK);
    int64_t n_x = ROWS * s.in[0] * s.in[1] * s.channels, n_y = ROWS * s.out[0] * s.out[1] * s.channels;
    float *x = random_numbers(n_x, 1), *g = random_numbers(n_y, 2), *y = random_numbers(n_y, 3),
          *dx = random_numbers(n_x, 4), last_y = y[n_y], last_dx = dx[n_x];
    for (int64_t i = 0; i < n_x; i++) x[i] = (float)((i / s.channels * 29 + i) % 127 - 63) * 0x1p-6f;
    k->pool_forward(&s, ROWS, x, y);
    k->pool_backward(&s, ROWS, x, y, g, dx);
    for (int64_t i = 0; i < n_y; i++) ck_assert_double_le(fabs(y[i] - pooled(&s, x, i)), 256 * 0x1p-24);
    for (int64_t i = 0; i < n_x; i++) {
      const float step = 0x1p-8f, kept = x[i];
      x[i] = kept + step;
      double up = pool_loss(&s, x, g, n_y);
      x[i] = kept - step;
      double down = pool_loss(&s, x, g, n_y);
      x[i] = kept;
      ck_assert_msg(fabs(dx[i] - (up - down) / (2 * (double)step)) <= 256 * 0x1p-24, "pool %d, dx[%d]: %g, not %g", p,
                    (int)i, dx[i], (up - down) / (2 * (double)step));
    }
    ck_assert(y[n_y] == last_y && dx[n_x] == last_dx);
    free(x), free(g), free(y), free(dx);
  }
}
END_TEST

START_TEST(test_ties_and_nan) {
  const nn_kernels *k = kernels_of("plain");
  nn_pool s = {NN_POOL_MAX, false, 1, {2, 2}, {0}, {2, 2}, {2, 2}, {0, 0}};
  ck_assert_int_eq(nn_pool_size(&s, NULL), CURVD_OK);
  float x[4] = {-1, 2, 2, 2}, y = 0, g = 3, dx[4];
  k->pool_forward(&s, 1, x, &y);
  k->pool_backward(&s, 1, x, &y, &g, dx);
  ck_assert_float_eq(y, 2);
  const float first_takes_all[4] = {0, 3, 0, 0};
  ck_assert_mem_eq(dx, first_takes_all, sizeof dx);
  for (int i = 0; i < 4; i++) {
    float with_nan[4] = {1, -1, 2, 0};
    with_nan[i] = NAN;
    k->pool_forward(&s, 1, with_nan, &y);
    ck_assert(isnan(y));
  }
}
END_TEST

START_TEST(test_refused_pools) {
  const struct {
    nn_pool shape;
    curvd_status status;
    const char *words;
  } wrong[] = {{{NN_POOL_MAX, false, 0, {4, 4}, {0}, {2, 2}, {2, 2}, {0, 0}}, CURVD_ERR_ARGUMENT, "channels of 0"},
               {{NN_POOL_MAX, false, 1, {4, 4}, {0}, {2, 2}, {2, 2}, {2, 0}}, CURVD_ERR_ARGUMENT, "padding of 2"},
               {{NN_POOL_MAX, false, 1, {4, 4}, {0}, {2, 2}, {0, 2}, {0, 0}}, CURVD_ERR_ARGUMENT, "stride of 0"},
               {{NN_POOL_MAX, false, 1, {4, 4}, {0}, {2, 5}, {1, 1}, {0, 0}}, CURVD_ERR_ARGUMENT, "width 5"},
               {{NN_POOL_MAX, false, 1 << 20, {64, 64}, {0}, {2, 2}, {2, 2}, {0, 0}}, CURVD_ERR_SIZE, "1048576"}};
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
    nn_pool s = wrong[i].shape;
    cv_error err = {0};
    ck_assert_int_eq(nn_pool_size(&s, &err), wrong[i].status);
    ck_assert_msg(strstr(err.text, wrong[i].words) != NULL, "%s", err.text);
  }
}
END_TEST

/* ---- batch normalisation ---- */

static const double epsilon = 1e-5;

/* What batch normalisation says of one channel: y (rows), statistics of the batch; inv_std and mean are given back. */
static void normalise(int64_t rows, const double *x, double gamma, double beta, double *y, double *mean,
                      double *inv_std) {
  double sum = 0, square = 0;
  for (int64_t r = 0; r < rows; r++) sum += x[r];
  *mean = sum / (double)rows;
  for (int64_t r = 0; r < rows; r++) square += (x[r] - *mean) * (x[r] - *mean);
  *inv_std = 1 / sqrt(square / (double)rows + epsilon);
  for (int64_t r = 0; r < rows; r++) y[r] = gamma * (x[r] - *mean) * *inv_std + beta;
}

enum { NORM_ROWS = 37, NORM_CHANNELS_MAX = 130 };

typedef struct norm {
  int64_t c;
  float x[NORM_ROWS * NORM_CHANNELS_MAX], g[NORM_ROWS * NORM_CHANNELS_MAX], y[NORM_ROWS * NORM_CHANNELS_MAX],
      dx[NORM_ROWS * NORM_CHANNELS_MAX];
  float gamma[NORM_CHANNELS_MAX], beta[NORM_CHANNELS_MAX], mean[NORM_CHANNELS_MAX], inv_std[NORM_CHANNELS_MAX],
      mean_g[NORM_CHANNELS_MAX], mean_gx[NORM_CHANNELS_MAX];
  double sum[NORM_CHANNELS_MAX], square[NORM_CHANNELS_MAX], sum_g[NORM_CHANNELS_MAX], sum_gx[NORM_CHANNELS_MAX];
} norm;

/* As two ranks would: sums of either part of the rows are added up. */
static void forward(const nn_kernels *k, norm *n) {
  int64_t c = n->c, first = 20;
  double sum[NORM_CHANNELS_MAX], square[NORM_CHANNELS_MAX];
  k->norm_sums(first, c, n->x, n->sum, n->square);
  k->norm_sums(NORM_ROWS - first, c, n->x + first * c, sum, square);
  for (int64_t i = 0; i < c; i++) {
    double mean = (n->sum[i] + sum[i]) / NORM_ROWS, second = (n->square[i] + square[i]) / NORM_ROWS;
    n->mean[i] = (float)mean;
    n->inv_std[i] = (float)(1 / sqrt(second - mean * mean + epsilon));
  }
  k->norm_apply(NORM_ROWS, c, n->x, n->mean, n->inv_std, n->gamma, n->beta, n->y);
}

static void backward(const nn_kernels *k, norm *n) {
  k->norm_backward_sums(NORM_ROWS, n->c, n->x, n->g, n->mean, n->inv_std, n->sum_g, n->sum_gx);
  for (int64_t i = 0; i < n->c; i++) {
    n->mean_g[i] = (float)(n->sum_g[i] / NORM_ROWS);
    n->mean_gx[i] = (float)(n->sum_gx[i] / NORM_ROWS);
  }
  k->norm_backward_apply(NORM_ROWS, n->c, n->x, n->g, n->mean, n->inv_std, n->gamma, n->mean_g, n->mean_gx, n->dx);
}

static norm *make_norm(int64_t c) {
  norm *n = calloc(1, sizeof *n);
  uint64_t state = 5;
  n->c = c;
  for (int64_t i = 0; i < NORM_ROWS * c; i++) {
    n->x[i] = (float)(3 * next_number(&state) + (double)(i % c) / 10);
    n->g[i] = (float)next_number(&state);
  }
  for (int64_t i = 0; i < c; i++)
    n->gamma[i] = (float)(1.5 + next_number(&state)), n->beta[i] = (float)next_number(&state);
  return n;
}

/* loss = sum g y of one channel, in fp64 */
static double norm_loss(const norm *n, int64_t channel, const double *x, double gamma, double beta) {
  double y[NORM_ROWS], mean, inv_std, sum = 0;
  normalise(NORM_ROWS, x, gamma, beta, y, &mean, &inv_std);
  for (int64_t r = 0; r < NORM_ROWS; r++) sum += n->g[r * n->c + channel] * y[r];
  return sum;
}

/* Rounding: a handful of operations on numbers of sizes |x| and |mean| <= 16 and factors <= 2.5 of inv_std < 1, so that
 * 8 * 2^-24 * 2.5 * 32 < 4e-5 bounds y and dx (|g| <= 1, |xhat| <= 6). Differences with h = 1e-4 are off by h^2 and
 * 1e-16 / h. */
static void check_channel(const norm *n, int64_t channel) {
  const double most = 4e-5, h = 1e-4;
  double x[NORM_ROWS], y[NORM_ROWS], mean, inv_std, gamma = n->gamma[channel], beta = n->beta[channel];
  for (int64_t r = 0; r < NORM_ROWS; r++) x[r] = n->x[r * n->c + channel];
  normalise(NORM_ROWS, x, gamma, beta, y, &mean, &inv_std);
  for (int64_t r = 0; r < NORM_ROWS; r++) {
    ck_assert_double_le(fabs(n->y[r * n->c + channel] - y[r]), most);
    double kept = x[r];
    x[r] = kept + h;
    double up = norm_loss(n, channel, x, gamma, beta);
    x[r] = kept - h;
    double down = norm_loss(n, channel, x, gamma, beta);
    x[r] = kept;
    ck_assert_double_le(fabs(n->dx[r * n->c + channel] - (up - down) / (2 * h)), most);
  }
  double by_gamma = norm_loss(n, channel, x, gamma + 1, beta) - norm_loss(n, channel, x, gamma, beta),
         by_beta = norm_loss(n, channel, x, gamma, beta + 1) - norm_loss(n, channel, x, gamma, beta);
  ck_assert_double_le(fabs(n->sum_gx[channel] - by_gamma), NORM_ROWS * most);
  ck_assert_double_le(fabs(n->sum_g[channel] - by_beta), 1e-11);
}

START_TEST(test_normalisation) {
  const int64_t channels[] = {1, 3, 64, 130};
  const nn_kernels *k = kernels_of("plain");
  for (size_t i = 0; i < sizeof channels / sizeof *channels; i++) {
    norm *n = make_norm(channels[i]);
    forward(k, n);
    backward(k, n);
    for (int64_t c = 0; c < n->c; c++) check_channel(n, c);
    free(n);
  }
}
END_TEST

START_TEST(test_normalisation_in_place) {
  const nn_kernels *k = kernels_of("plain");
  norm *n = make_norm(19), *same = make_norm(19);
  size_t bytes = (size_t)(NORM_ROWS * n->c) * sizeof *n->x;
  forward(k, n), backward(k, n);
  forward(k, same), backward(k, same);
  k->norm_backward_apply(NORM_ROWS, 19, same->x, same->g, same->mean, same->inv_std, same->gamma, same->mean_g,
                         same->mean_gx, same->g);
  ck_assert_mem_eq(same->g, n->dx, bytes);
  k->norm_apply(NORM_ROWS, 19, same->x, same->mean, same->inv_std, same->gamma, same->beta, same->x);
  ck_assert_mem_eq(same->x, n->y, bytes);
  free(n), free(same);
}
END_TEST

/* A mean of 1000 standard deviations: squares of 1e6 with 1 left of them. fp64 keeps 1e6 * 2^-53 * a few; fp32 nothing.
 */
START_TEST(test_variance_beside_a_large_mean) {
  enum { N = 1000 };
  float x[N];
  double sum, square, expected = 0, mean = 0;
  uint64_t state = 9;
  for (int i = 0; i < N; i++) x[i] = (float)(1000 + next_number(&state)), mean += (double)x[i] / N;
  for (int i = 0; i < N; i++) expected += (x[i] - mean) * (x[i] - mean) / N;
  kernels_of("plain")->norm_sums(N, 1, x, &sum, &square);
  ck_assert_double_le(fabs(square / N - sum / N * (sum / N) - expected), 1e-7);
}
END_TEST

int main(void) {
  const TTest *const tests[] = {test_pools,         test_ties_and_nan,           test_refused_pools,
                                test_normalisation, test_normalisation_in_place, test_variance_beside_a_large_mean};
  return suite_run("kernel layers", tests, sizeof tests / sizeof *tests, NULL);
}
