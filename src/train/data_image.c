/* What makes images of examples: their shape, and the mean and deviation of each channel. */
#include "train/data_parts.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

/* ---- Shapes ---- */

int64_t data_shape_size(data_shape shape) {
  return shape.height * shape.width * shape.channels;
}

bool data_shape_is_same(data_shape a, data_shape b) {
  return a.height == b.height && a.width == b.width && a.channels == b.channels;
}

static bool is_flat(data_shape shape) {
  return shape.height == 1 && shape.width == 1;
}

const char *data_shape_text(data_shape shape, char text[DATA_SHAPE_TEXT]) {
  if (is_flat(shape))
    snprintf(text, DATA_SHAPE_TEXT, "%" PRId64, shape.channels);
  else
    snprintf(text, DATA_SHAPE_TEXT, "%" PRId64 "x%" PRId64 "x%" PRId64, shape.height, shape.width, shape.channels);
  return text;
}

/* Products of sizes from a model file may leave 64 bits. */
static bool is_sane(data_shape shape) {
  int64_t rest = DATA_BYTES_MAX / (int64_t)sizeof(float);
  if (shape.height < 1 || shape.width < 1 || shape.channels < 1) return false;
  return shape.channels <= rest / shape.height / shape.width;
}

static curvd_status fit_wish(const data_request *request, data_set *set, cv_error *err) {
  const data_shape wish = request->shape, have = set->stored;
  bool can_pad = wish.height >= have.height && wish.width >= have.width;
  bool can_repeat = wish.channels == have.channels || have.channels == 1;
  if (is_sane(wish) && (is_flat(wish) || is_flat(have)) && data_shape_size(wish) == data_shape_size(have)) {
    set->stored = wish; /* the same numbers in the same order */
  } else if (!is_sane(wish) || is_flat(have) || !can_pad || !can_repeat) {
    char has[DATA_SHAPE_TEXT], wants[DATA_SHAPE_TEXT];
    return cv_fail(
        err, CURVD_ERR_OPTION,
        "the data set %s has examples of %s and the network takes %s (height x width x channels): images are "
        "padded and one channel is repeated, but nothing is cut; change the network's input or the data",
        request->source, data_shape_text(have, has), data_shape_text(wish, wants));
  }
  set->shape = wish;
  set->d_in = data_shape_size(wish);
  if (set->labels == NULL && set->targets == NULL) set->d_out = set->d_in;
  return CURVD_OK;
}

static curvd_status check_augment(const data_request *request, const data_set *set, cv_error *err) {
  const data_shape shape = set->shape;
  char text[DATA_SHAPE_TEXT];
  data_shape_text(shape, text);
  if (is_flat(shape))
    return cv_fail(err, CURVD_ERR_OPTION,
                   "augment needs images, but the data set %s has flat examples of %s numbers; set augment to none",
                   request->source, text);
  int64_t side = shape.height < shape.width ? shape.height : shape.width;
  if (request->augment_pad < 0 || request->augment_pad >= side)
    return cv_fail(err, CURVD_ERR_OPTION,
                   "augment_pad %" PRId64 " would cut images of %s away entirely; use at most %" PRId64,
                   request->augment_pad, text, side - 1);
  return CURVD_OK;
}

curvd_status data_shape_fit(const data_request *request, data_set *set, cv_error *err) {
  const data_shape none = {0, 0, 0};
  if (!data_shape_is_same(request->shape, none)) CV_TRY(fit_wish(request, set, err));
  return request->augments ? check_augment(request, set, err) : CURVD_OK;
}

/* ---- Mean and deviation ---- */

void data_scale_set(int64_t n, const float *mean, const float *deviation, data_scale *scale) {
  *scale = (data_scale){.n = n};
  for (int64_t c = 0; c < n; c++) {
    float factor = 1 / deviation[c];
    scale->mean[c] = mean[c];
    scale->deviation[c] = deviation[c];
    for (int p = 0; p < 256; p++) scale->level[c][p] = ((float)p / 255 - mean[c]) * factor;
  }
}

/* The sums are whole numbers below 2^51, so nothing is rounded before the last lines. */
void data_scale_measure(const data_set *set, data_scale *scale) {
  const int64_t channels = set->stored.channels, pixels = set->n * set->stored.height * set->stored.width;
  float mean[DATA_CHANNELS_MAX], deviation[DATA_CHANNELS_MAX];
  for (int64_t c = 0; c < channels; c++) {
    int64_t sum = 0, squares = 0;
    for (int64_t i = 0; i < pixels; i++) {
      int64_t pixel = set->pixels[i * channels + c];
      sum += pixel;
      squares += pixel * pixel;
    }
    double average = (double)sum / (double)pixels;
    double variance = (double)squares / (double)pixels - average * average;
    mean[c] = (float)(average / 255);
    /* equal pixels: the difference of two numbers up to 255^2 is 0 but for their rounding, 1.5e-11 */
    deviation[c] = variance > 1e-9 ? (float)(sqrt(variance) / 255) : 1;
  }
  data_scale_set(channels, mean, deviation, scale);
}
