/* Counter-based random numbers: Philox4x32-10 (Salmon et al., SC 2011; Random123).
 * A draw is a pure function of (seed, stream, a, b, index): no state, so no number depends on the rank
 * count, on the order of the calls or on a restart. */
#ifndef CV_BASE_RNG_H
#define CV_BASE_RNG_H

#include <stdint.h>

/* What the numbers are for; part of the counter, so two uses never share a draw. */
typedef enum cv_rng_stream {
  CV_RNG_INIT = 1, /* initial parameters: a = layer */
  CV_RNG_ORDER,    /* order of the samples: a = epoch */
  CV_RNG_TARGET,   /* targets sampled from the model: a = step, index = position in the global batch */
  CV_RNG_SKETCH,   /* test matrices: a = 2 * layer + factor, b = refresh */
  CV_RNG_TEACHER,  /* synthetic data set: a = what */
  CV_RNG_PROBE,    /* estimators, tests */
  CV_RNG_ROWS,     /* rows of a capture: a = 2 * layer + factor + 2 * layers * rows before it, b = step */
  CV_RNG_AUGMENT,  /* crops and flips: a = epoch, block = example */
  CV_RNG_DROPOUT   /* a = layer, b = step, block = position in the global batch times its blocks, plus that of a unit */
} cv_rng_stream;

typedef struct cv_rng {
  uint64_t seed;
  cv_rng_stream stream;
  uint32_t a, b;
} cv_rng;

/* Four 32-bit words of block `index`. */
void cv_rng_block(const cv_rng *rng, uint64_t index, uint32_t out[4]);

/* Word `index` as a uniform number in (0, 1), 53 bits: never 0, never 1. */
double cv_rng_uniform(const cv_rng *rng, uint64_t index);

/* Uniform integer in [0, bound), bound >= 1, without modulo bias (bias < 2^-64 * bound). */
uint64_t cv_rng_below(const cv_rng *rng, uint64_t index, uint64_t bound);

/* x[i] = standard normal number of index first + i, i < count; |x| < 6.8. Numbers 4 k to 4 k + 3 come from block k.
 * The bits of a number depend on rng and its index alone: not on first, on count or on the vectors of the processor. */
void cv_rng_normal(const cv_rng *rng, uint64_t first, int64_t count, float *x);

/* What normal numbers are made of, a batch at a time. */
enum { CV_RNG_LANES = 32, CV_RNG_BATCH = 4 * CV_RNG_LANES };

/* The words of CV_RNG_LANES blocks from block `first` on, four to a block: what cv_rng_block gives. */
void cv_rng_words(const cv_rng *rng, uint64_t first, uint32_t word[CV_RNG_BATCH]);

/* x[i], x[i + 1] = r cos t, r sin t for even i, where r^2 = -2 ln u(word[i]), t = 2 pi u(word[i + 1]) and
 * u(w) = (w + 1/2) 2^-32; in fp32, to 1e-6 absolute. */
void cv_rng_box_muller(const uint32_t word[restrict CV_RNG_BATCH], float x[restrict CV_RNG_BATCH]);

#endif
