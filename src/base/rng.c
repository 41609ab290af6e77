/* Philox4x32-10 (Random123). Key: the seed. Counter: {index, stream and index, a, b}; 56 bits of index. */
#include "base/rng.h"

#include <Random123/philox.h>

static philox4x32_key_t key_of(const cv_rng *rng) {
  return (philox4x32_key_t){{(uint32_t)rng->seed, (uint32_t)(rng->seed >> 32)}};
}

static philox4x32_ctr_t counter_of(const cv_rng *rng, uint64_t index) {
  uint32_t high = ((uint32_t)(index >> 32) & 0xffffff) | (uint32_t)rng->stream << 24;
  return (philox4x32_ctr_t){{(uint32_t)index, high, rng->a, rng->b}};
}

void cv_rng_block(const cv_rng *rng, uint64_t index, uint32_t out[4]) {
  philox4x32_ctr_t random = philox4x32(counter_of(rng, index), key_of(rng));
  for (int i = 0; i < 4; i++) out[i] = random.v[i];
}

/* Round by round over all lanes, so that the loops vectorise and no lane waits for its own multiplications. */
void cv_rng_words(const cv_rng *rng, uint64_t first, uint32_t word[CV_RNG_BATCH]) {
  philox4x32_key_t key = key_of(rng);
  uint32_t v[4][CV_RNG_LANES];
  for (int i = 0; i < CV_RNG_LANES; i++) {
    philox4x32_ctr_t x = counter_of(rng, first + (uint64_t)i);
    for (int j = 0; j < 4; j++) v[j][i] = x.v[j];
  }
  for (int round = 0; round < philox4x32_rounds; round++) {
    for (int i = 0; i < CV_RNG_LANES; i++) {
      philox4x32_ctr_t x = {{v[0][i], v[1][i], v[2][i], v[3][i]}};
      x = philox4x32_R(1, x, key);
      for (int j = 0; j < 4; j++) v[j][i] = x.v[j];
    }
    key.v[0] += PHILOX_W32_0;
    key.v[1] += PHILOX_W32_1;
  }
  for (int i = 0; i < CV_RNG_LANES; i++)
    for (int j = 0; j < 4; j++) word[4 * i + j] = v[j][i];
}

static uint64_t join(uint32_t low, uint32_t high) {
  return (uint64_t)high << 32 | low;
}

/* Odd multiples of 2^-53 in (0, 1): exact in fp64, unlike (k + 1/2) 2^-53, which rounds to 1 at the end. */
static double unit(uint64_t word) {
  return (double)((word >> 12) * 2 + 1) * 0x1p-53;
}

/* 64-bit word `index`: two to a block. */
static uint64_t word_at(const cv_rng *rng, uint64_t index) {
  uint32_t out[4];
  cv_rng_block(rng, index / 2, out);
  return index % 2 == 0 ? join(out[0], out[1]) : join(out[2], out[3]);
}

double cv_rng_uniform(const cv_rng *rng, uint64_t index) {
  return unit(word_at(rng, index));
}

/* Upper half of the 128-bit product. */
static uint64_t multiply_high(uint64_t x, uint64_t y) {
  uint64_t x0 = (uint32_t)x, x1 = x >> 32, y0 = (uint32_t)y, y1 = y >> 32;
  uint64_t middle = x1 * y0 + (x0 * y0 >> 32);
  uint64_t carry = (x0 * y1 + (uint32_t)middle) >> 32;
  return x1 * y1 + (middle >> 32) + carry;
}

uint64_t cv_rng_below(const cv_rng *rng, uint64_t index, uint64_t bound) {
  return multiply_high(word_at(rng, index), bound);
}
