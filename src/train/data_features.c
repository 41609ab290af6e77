/* From stored examples to features, inside the training step: pixels through a table, padding, repeated channels, crops
 * and flips. */
#include "base/rng.h"
#include "train/data_parts.h"

#include <string.h>

/* Where an example's features are cut from the stored image: row and column of the first one, negative in the black
 * border. */
typedef struct window {
  int64_t top, left;
  bool is_mirrored;
} window;

/* Uniform in 0 .. bound - 1 to bound / 2^32. */
static int64_t below(uint32_t word, int64_t bound) {
  return (int64_t)((uint64_t)word * (uint64_t)bound >> 32);
}

static window window_of(const data_set *set, int64_t example, const data_augment *augment) {
  window cut = {.top = -((set->shape.height - set->stored.height) / 2),
                .left = -((set->shape.width - set->stored.width) / 2)};
  if (augment == NULL) return cut;
  const cv_rng rng = {.seed = augment->seed, .stream = CV_RNG_AUGMENT, .a = (uint32_t)augment->epoch};
  uint32_t word[4];
  cv_rng_block(&rng, (uint64_t)example, word);
  cut.top += below(word[0], 2 * augment->pad + 1) - augment->pad;
  cut.left += below(word[1], 2 * augment->pad + 1) - augment->pad;
  cut.is_mirrored = below(word[2], 2) == 1;
  return cut;
}

/* x[0 .. count-1] = features of count stored values from `first` on, which belongs to channel 0. */
static void convert(const data_set *set, int64_t first, int64_t count, float *restrict x) {
  if (set->pixels == NULL) {
    memcpy(x, set->features + first, (size_t)count * sizeof(float));
    return;
  }
  const uint8_t *restrict pixels = set->pixels + first;
  const int64_t n = set->scale.n;
  for (int64_t c = 0; c < n; c++) {
    const float *restrict level = set->scale.level[c];
    for (int64_t j = c; j < count; j += n) x[j] = level[pixels[j]];
  }
}

/* Pixels from .. to - 1 of a row of features. */
static void blacken(const data_set *set, int64_t from, int64_t to, float *x) {
  const int64_t channels = set->shape.channels;
  for (int64_t c = 0; c < channels; c++) {
    float black = set->pixels == NULL ? 0 : set->scale.level[c % set->scale.n][0];
    for (int64_t j = from; j < to; j++) x[j * channels + c] = black;
  }
}

/* From one value per pixel to as many as there are channels, in place: the last pixel first. */
static void repeat(int64_t pixels, int64_t channels, float *x) {
  for (int64_t i = pixels - 1; i >= 0; i--) {
    float value = x[i];
    for (int64_t c = 0; c < channels; c++) x[i * channels + c] = value;
  }
}

static void mirror(int64_t pixels, int64_t channels, float *x) {
  for (int64_t i = 0, k = pixels - 1; i < k; i++, k--) {
    for (int64_t c = 0; c < channels; c++) {
      float swapped = x[i * channels + c];
      x[i * channels + c] = x[k * channels + c];
      x[k * channels + c] = swapped;
    }
  }
}

static int64_t clamp(int64_t value, int64_t low, int64_t high) {
  return value < low ? low : value > high ? high : value;
}

/* One row of features from row y of the stored image. */
static void fill_row(const data_set *set, int64_t example, int64_t y, const window *cut, float *x) {
  const data_shape in = set->stored, out = set->shape;
  bool is_inside = y >= 0 && y < in.height;
  int64_t from = is_inside ? clamp(-cut->left, 0, out.width) : out.width;
  int64_t to = is_inside ? clamp(in.width - cut->left, from, out.width) : out.width;
  blacken(set, 0, from, x);
  blacken(set, to, out.width, x);
  if (from < to) {
    int64_t first = ((example * in.height + y) * in.width + cut->left + from) * in.channels;
    convert(set, first, (to - from) * in.channels, x + from * out.channels);
    if (in.channels != out.channels) repeat(to - from, out.channels, x + from * out.channels);
  }
  if (cut->is_mirrored) mirror(out.width, out.channels, x);
}

void data_features(const data_set *set, const int64_t *index, int64_t rows, const data_augment *augment, float *x,
                   int64_t ld) {
  bool is_whole = augment == NULL && data_shape_is_same(set->shape, set->stored);
  for (int64_t i = 0; i < rows; i++) {
    float *row = x + i * ld;
    if (is_whole) {
      convert(set, index[i] * set->d_in, set->d_in, row);
      continue;
    }
    window cut = window_of(set, index[i], augment);
    for (int64_t y = 0; y < set->shape.height; y++)
      fill_row(set, index[i], y + cut.top, &cut, row + y * set->shape.width * set->shape.channels);
  }
}
