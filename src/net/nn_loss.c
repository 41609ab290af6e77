/* Losses with their gradients in the logits, and gradients of targets drawn from the model. */
#include "base/rng.h"
#include "net/nn.h"
#include "net/nn_math.h"

/* p = softmax(z), not yet divided by the sum that is returned, times e^-max(z); *max is max(z). */
static double softmax_unscaled(int64_t d, const float *restrict z, float *restrict p, float *max) {
  float top = z[0];
  for (int64_t j = 1; j < d; j++) top = z[j] > top ? z[j] : top;
  for (int64_t j = 0; j < d; j++) p[j] = nn_exp_negative(z[j] - top);
  double sum = 0;
  for (int64_t j = 0; j < d; j++) sum += p[j];
  *max = top;
  return sum;
}

static void scale_row(int64_t d, float *restrict x, float scale) {
  for (int64_t j = 0; j < d; j++) x[j] *= scale;
}

/* Is z[label] the first largest number? Never for a row with a NaN (sum is NaN then). */
static int is_hit(int64_t d, const float *z, int64_t label, double sum) {
  int64_t best = 0;
  for (int64_t j = 1; j < d; j++) best = z[j] > z[best] ? j : best;
  return best == label && !isnan(sum);
}

static double softmax_loss(int64_t d, const float *z, int32_t label, float *dz, int64_t *n_correct) {
  float max;
  double sum = softmax_unscaled(d, z, dz, &max);
  scale_row(d, dz, (float)(1 / sum));
  dz[label] -= 1;
  *n_correct += is_hit(d, z, label, sum);
  return log(sum) + ((double)max - z[label]);
}

/* Cross-entropy of one unit: max(z, 0) - z t + log(1 + e), e = e^-|z|. The logarithms of a stretch of units are taken
 * at once, of a product of at most 2^512. e is in dz. */
static double sigmoid_entropy(int64_t d, const float *z, const float *target, const float *dz) {
  double sum = 0, product = 1;
  for (int64_t j = 0; j < d; j++) {
    sum += (z[j] < 0 ? 0 : (double)z[j]) - (double)z[j] * target[j];
    product *= 1 + (double)dz[j];
    if (j % 512 == 511) {
      sum += log(product);
      product = 1;
    }
  }
  return sum + log(product);
}

static double sigmoid_loss(int64_t d, const float *restrict z, const float *restrict target, float *restrict dz) {
  for (int64_t j = 0; j < d; j++) dz[j] = nn_exp_negative(-fabsf(z[j]));
  double loss = sigmoid_entropy(d, z, target, dz);
  for (int64_t j = 0; j < d; j++) dz[j] = nn_sigmoid_from(z[j], dz[j]) - target[j];
  return loss;
}

static double squared_loss(int64_t d, const float *restrict z, const float *restrict target, float *restrict dz) {
  double sum = 0;
  for (int64_t j = 0; j < d; j++) dz[j] = z[j] - target[j];
  for (int64_t j = 0; j < d; j++) sum += (double)dz[j] * dz[j];
  return sum / 2;
}

double nn_loss(nn_loss_kind kind, int64_t rows, int64_t d, const float *z, int64_t ld, const int32_t *labels,
               const float *targets, int64_t ld_targets, float *dz, int64_t *n_correct) {
  double sum = 0;
  int64_t hits = 0;
  for (int64_t i = 0; i < rows; i++) {
    const float *row = z + i * ld;
    if (kind == NN_SOFTMAX_CE) sum += softmax_loss(d, row, labels[i], dz + i * ld, &hits);
    if (kind == NN_SIGMOID_CE) sum += sigmoid_loss(d, row, targets + i * ld_targets, dz + i * ld);
    if (kind == NN_SQUARED) sum += squared_loss(d, row, targets + i * ld_targets, dz + i * ld);
  }
  *n_correct = hits;
  return sum;
}

/* dz = p - e_y, y ~ Cat(p): y is the first class whose cumulative probability exceeds a uniform number. */
static void softmax_sampled(const cv_rng *rng, uint64_t row, int64_t d, const float *z, float *dz) {
  float max;
  double sum = softmax_unscaled(d, z, dz, &max);
  double rest = cv_rng_uniform(rng, row) * sum;
  int64_t y = 0;
  while (y < d - 1 && rest >= dz[y]) rest -= dz[y++];
  scale_row(d, dz, (float)(1 / sum));
  dz[y] -= 1;
}

/* dz = p - y, y ~ Bern(p) for each unit, four units from one block of random words. */
static void sigmoid_sampled(const cv_rng *rng, uint64_t row, int64_t d, const float *restrict z, float *restrict dz) {
  uint64_t block = row * (uint64_t)((d + 3) / 4);
  for (int64_t j = 0; j < d; j++) dz[j] = nn_sigmoid_from(z[j], nn_exp_negative(-fabsf(z[j])));
  for (int64_t j = 0; j < d; j += 4, block++) {
    uint32_t word[4];
    cv_rng_block(rng, block, word);
    for (int64_t k = j; k < d && k < j + 4; k++) dz[k] -= ((double)word[k - j] + 0.5) * 0x1p-32 < dz[k];
  }
}

/* t = z + N(0, 1), so dz = z - t is minus the noise; NaN in z stays. */
static void squared_sampled(const cv_rng *rng, uint64_t row, int64_t d, const float *restrict z, float *restrict dz) {
  cv_rng_normal(rng, row * (uint64_t)d, d, dz);
  for (int64_t j = 0; j < d; j++) dz[j] = isnan(z[j]) ? z[j] : -dz[j];
}

void nn_loss_sampled(nn_loss_kind kind, int64_t rows, int64_t d, const float *z, int64_t ld, uint64_t seed,
                     int64_t step, int64_t first, float *dz) {
  cv_rng rng = {.seed = seed, .stream = CV_RNG_TARGET, .a = (uint32_t)step, .b = (uint32_t)((uint64_t)step >> 32)};
  for (int64_t i = 0; i < rows; i++) {
    uint64_t row = (uint64_t)(first + i);
    const float *logits = z + i * ld;
    if (kind == NN_SOFTMAX_CE) softmax_sampled(&rng, row, d, logits, dz + i * ld);
    if (kind == NN_SIGMOID_CE) sigmoid_sampled(&rng, row, d, logits, dz + i * ld);
    if (kind == NN_SQUARED) squared_sampled(&rng, row, d, logits, dz + i * ld);
  }
}
