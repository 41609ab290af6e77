/* Normal numbers: Box-Muller over a batch of words, in loops without calls and branches that the compiler vectorises.
 * Only operations that IEEE 754 rounds correctly, and none contracted to fma: the bits are the same on every processor
 * and for every vector length. */
#include "base/rng.h"

#include <string.h>

#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#elif defined(__GNUC__) && !defined(__STRICT_ANSI__)
#error "gcc contracts to fma unless it is told -std=c11; the numbers would depend on -march"
#endif

static inline uint32_t bits_of(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  return bits;
}

static inline float float_of(uint32_t bits) {
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

/* -ln u, u = (word + 1/2) 2^-32. 2^16 u = high + low, both exact, and so are their products with 2^-k that bring u to
 * 1 + f in [2^-1/2, 2^1/2]: f has one rounding, even where u is nearly 1. ln(1 + f) = f - f^2 (1/2 - f q(f)), q minimax
 * to 6e-9 of ln(1 + f). */
static inline float minus_log(uint32_t word) {
  float high = (float)(int32_t)(word >> 16), low = (float)(int32_t)(2 * (word & 0xffff) + 1) * 0x1p-17f;
  int32_t k = (int32_t)(bits_of(high + low) - 0x3f3504f3) >> 23; /* the bits of 2^-1/2 */
  float scale = float_of((uint32_t)(127 - k) << 23), halvings = (float)(16 - k);
  float f = (high * scale - 1) + low * scale;
  float q = -0x1.38b578p-4f;
  q = q * f + 0x1.055b68p-3f;
  q = q * f - 0x1.0d8542p-3f;
  q = q * f + 0x1.22da1ep-3f;
  q = q * f - 0x1.547244p-3f;
  q = q * f + 0x1.99a008p-3f;
  q = q * f - 0x1.000226p-2f;
  q = q * f + 0x1.555554p-2f;
  /* ln 2 in two parts; the product with the first is exact */
  return (halvings * 0x1.62e400p-1f - f) + (halvings * 0x1.7f7d1cp-20f + f * f * (0.5f - f * q));
}

/* (2 x)^1/2 of a normal number. Not sqrtf: gcc does not vectorise a call that may set errno. y: the usual guess of
 * (2 x)^-1/2 from halving the exponent, then Newton steps to 5e-6; the step for the root itself leaves its rounding. */
static inline float root_of_twice(float x) {
  float y = float_of(0x5ef75a86 - (bits_of(x) >> 1));
  y *= 1.5f - x * y * y;
  y *= 1.5f - x * y * y;
  float square = x + x, root = square * y;
  return root + 0.5f * y * (square - root * root);
}

/* The angle is `quarter` right angles and t, |t| <= 1/2, of one; minimax polynomials, the first coefficient of the sine
 * in two parts. An odd quarter swaps sine and cosine: by their bits, for a choice may become a branch. */
static inline void normal_pair(uint32_t word0, uint32_t word1, float *x, float *y) {
  uint32_t radius = bits_of(root_of_twice(minus_log(word0)));
  uint32_t turned = word1 + 0x20000000, quarter = turned >> 30;
  float t = (float)(2 * (int32_t)(turned & 0x3fffffff) - 0x3fffffff) * 0x1p-31f, s = t * t;
  float p = -0x1.777a5cp-25f + s * (-0x1.4abbc0p-1f + s * (0x1.466032p-4f - s * 0x1.2dd048p-8f));
  float sine = t * 0x1.921fb6p+0f + t * p;
  float cosine = 1 + s * (-0x1.3bd3ccp+0f + s * (0x1.03c1dep-2f + s * (-0x1.55c664p-6f + s * 0x1.d9f7bcp-11f)));
  uint32_t swap = (bits_of(sine) ^ bits_of(cosine)) & (0 - (quarter & 1));
  *x = float_of(radius | ((quarter + 1) & 2) << 30) * float_of(bits_of(cosine) ^ swap);
  *y = float_of(radius | (quarter & 2) << 30) * float_of(bits_of(sine) ^ swap);
}

void cv_rng_box_muller(const uint32_t word[restrict CV_RNG_BATCH], float x[restrict CV_RNG_BATCH]) {
  for (int i = 0; i < CV_RNG_BATCH; i += 2) normal_pair(word[i], word[i + 1], x + i, x + i + 1);
}

/* Always whole batches: the ends of a call go through the same code as its middle. */
void cv_rng_normal(const cv_rng *rng, uint64_t first, int64_t count, float *x) {
  while (count > 0) {
    uint32_t word[CV_RNG_BATCH];
    float batch[CV_RNG_BATCH];
    int64_t skip = (int64_t)(first % 4), take = count < CV_RNG_BATCH - skip ? count : CV_RNG_BATCH - skip;
    cv_rng_words(rng, first / 4, word);
    cv_rng_box_muller(word, batch);
    memcpy(x, batch + skip, (size_t)take * sizeof *x);
    x += take;
    first += (uint64_t)take;
    count -= take;
  }
}
