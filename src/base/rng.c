/* Philox4x32-10 (Random123). Key: the seed. Counter: {index, stream and index, a, b}; 56 bits of index. */
#include "base/rng.h"

#include <Random123/philox.h>
#include <math.h>

void cv_rng_block(const cv_rng *rng, uint64_t index, uint32_t out[4]) {
  uint32_t high = ((uint32_t)(index >> 32) & 0xffffff) | (uint32_t)rng->stream << 24;
  philox4x32_ctr_t counter = {{(uint32_t)index, high, rng->a, rng->b}};
  philox4x32_key_t key = {{(uint32_t)rng->seed, (uint32_t)(rng->seed >> 32)}};
  philox4x32_ctr_t random = philox4x32(counter, key);
  for (int i = 0; i < 4; i++) out[i] = random.v[i];
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

/* Normal numbers 2 * index and 2 * index + 1. */
static void normal_pair(const cv_rng *rng, uint64_t index, float pair[2]) {
  uint32_t out[4];
  cv_rng_block(rng, index, out);
  double radius = sqrt(-2 * log(unit(join(out[0], out[1]))));
  double angle = 0x1.921fb54442d18p+2 * unit(join(out[2], out[3])); /* 2 pi u */
  pair[0] = (float)(radius * cos(angle));
  pair[1] = (float)(radius * sin(angle));
}

void cv_rng_normal(const cv_rng *rng, uint64_t first, int64_t count, float *x) {
  float pair[2];
  int64_t i = 0;
  if (first % 2 == 1 && count > 0) {
    normal_pair(rng, first / 2, pair);
    x[i++] = pair[1];
  }
  for (; i + 1 < count; i += 2) normal_pair(rng, (first + (uint64_t)i) / 2, x + i);
  if (i < count) {
    normal_pair(rng, (first + (uint64_t)i) / 2, pair);
    x[i] = pair[0];
  }
}
