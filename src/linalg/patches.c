#include "linalg/patches.h"

#include "base/order.h"
#include "linalg/dense.h"

#include <math.h>
#include <string.h>

int64_t cv_patches_out(int64_t size, int64_t kernel, int64_t stride, int64_t pad, int64_t dilation) {
  int64_t room = size + 2 * pad - dilation * (kernel - 1) - 1;
  return room < 0 ? 0 : room / stride + 1;
}

int64_t cv_patches_positions(const cv_patches *p) {
  return p->out[0] * p->out[1];
}

int64_t cv_patches_columns(const cv_patches *p) {
  return p->kernel[0] * p->kernel[1] * p->channels;
}

bool cv_patches_are_rows(const cv_patches *p) {
  bool is_pixel = !p->is_channels_first;
  for (int i = 0; i < 2; i++) is_pixel = is_pixel && p->kernel[i] == 1 && p->stride[i] == 1 && p->pad[i] == 0;
  return is_pixel;
}

/* ---- where the image lies ---- */

/* Distances in floats. */
typedef struct steps {
  int64_t example, y, x, channel;
} steps;

static steps steps_of(const cv_patches *p, int64_t ld) {
  int64_t h = p->size[0], w = p->size[1];
  return p->is_channels_first ? (steps){ld, w, 1, h * w} : (steps){h * w * ld, w * ld, ld, 1};
}

int64_t cv_patches_example(const cv_patches *p, int64_t ld) {
  return steps_of(p, ld).example;
}

/* The window's part inside the image along an axis: taps begin .. end - 1, the first of which is on pixel `at`. */
typedef struct span {
  int64_t begin, end, at;
} span;

static span span_of(const cv_patches *p, int axis, int64_t out) {
  int64_t from = out * p->stride[axis] - p->pad[axis], d = p->dilation[axis], size = p->size[axis], begin = 0, end = 0;
  if (d == 1) { /* no division */
    begin = from < 0 ? -from : 0, end = size - from;
  } else {
    begin = from < 0 ? cv_divide_up(-from, d) : 0;
    end = from < size ? cv_divide_up(size - from, d) : 0;
  }
  end = cv_smaller(end, p->kernel[axis]);
  begin = cv_smaller(begin, p->kernel[axis]);
  return (span){begin, cv_larger(begin, end), from + begin * d};
}

/* ---- one patch ---- */

static void zero(float *x, int64_t n) {
  for (int64_t i = 0; i < n; i++) x[i] = 0;
}

static void copy(float *to, const float *from, int64_t n) {
  enum { SHORT = 16 }; /* below, a call costs more than the loop */
  if (n >= SHORT) {
    memcpy(to, from, (size_t)n * sizeof *to);
  } else {
    for (int64_t i = 0; i < n; i++) to[i] = from[i];
  }
}

/* One line of a window, channels last; from: its first pixel inside. */
static void line_last(const cv_patches *p, const float *from, int64_t ld, span x, float *to) {
  int64_t c = p->channels, step = p->dilation[1] * ld;
  zero(to, x.begin * c);
  zero(to + x.end * c, (p->kernel[1] - x.end) * c);
  if (step == c) {
    copy(to + x.begin * c, from, (x.end - x.begin) * c);
  } else {
    for (int64_t k = x.begin; k < x.end; k++, from += step) copy(to + k * c, from, c);
  }
}

static void patch_last(const cv_patches *p, const float *image, int64_t ld, span y, span x, float *to) {
  int64_t line = p->kernel[1] * p->channels, down = p->dilation[0] * p->size[1] * ld;
  const float *from = image + (y.at * p->size[1] + x.at) * ld;
  zero(to, y.begin * line);
  zero(to + y.end * line, (p->kernel[0] - y.end) * line);
  if (x.begin == x.end) y.end = (zero(to, p->kernel[0] * line), y.begin);
  for (int64_t k = y.begin; k < y.end; k++, from += down) line_last(p, from, ld, x, to + k * line);
}

static void patch_first(const cv_patches *p, const float *image, span y, span x, float *to) {
  int64_t w = p->size[1], plane = p->size[0] * w, window = p->kernel[0] * p->kernel[1];
  for (int64_t c = 0; c < p->channels; c++, to += window) {
    zero(to, window);
    for (int64_t i = y.begin; i < y.end; i++) {
      const float *from = image + c * plane + (y.at + (i - y.begin) * p->dilation[0]) * w + x.at;
      for (int64_t j = x.begin; j < x.end; j++) to[i * p->kernel[1] + j] = from[(j - x.begin) * p->dilation[1]];
    }
  }
}

/* image: of the row's example. */
static void patch(const cv_patches *p, const float *image, int64_t ld, span y, span x, float *to) {
  if (p->is_channels_first) {
    patch_first(p, image, y, x, to);
  } else {
    patch_last(p, image, ld, y, x, to);
  }
}

/* ---- many ---- */

void cv_patches_write(const cv_patches *p, const float *image, int64_t ld, bool has_one, int64_t first, int64_t count,
                      float *out, int64_t ldo) {
  int64_t positions = cv_patches_positions(p), n = cv_patches_columns(p), example = steps_of(p, ld).example,
          at = first % positions, oy = at / p->out[1], ox = at % p->out[1];
  span y = span_of(p, 0, oy);
  image += first / positions * example;
  for (int64_t i = 0; i < count; i++, out += ldo) {
    patch(p, image, ld, y, span_of(p, 1, ox), out);
    if (has_one) out[n] = 1;
    if (++ox < p->out[1]) continue;
    ox = 0;
    if (++oy == p->out[0]) oy = 0, image += example;
    y = span_of(p, 0, oy);
  }
}

void cv_patches_gather(const cv_patches *p, const float *image, int64_t ld, bool has_one, int64_t count,
                       const int64_t *index, const double *weight, float *out, int64_t ldo) {
  int64_t positions = cv_patches_positions(p), n = cv_patches_columns(p), example = steps_of(p, ld).example;
  for (int64_t k = 0; k < count; k++, out += ldo) {
    int64_t at = index[k] % positions;
    float scale = (float)sqrt(weight[k]);
    patch(p, image + index[k] / positions * example, ld, span_of(p, 0, at / p->out[1]), span_of(p, 1, at % p->out[1]),
          out);
    for (int64_t j = 0; j < n; j++) out[j] *= scale;
    if (has_one) out[n] = scale;
  }
}

/* ---- lengths ---- */

/* Channels first: in the order of memory, plane by plane. */
static void square_pixels(const cv_patches *p, const float *image, int64_t ld, double *pixels) {
  int64_t count = p->size[0] * p->size[1];
  if (!p->is_channels_first) {
    for (int64_t i = 0; i < count; i++) pixels[i] = cv_sum_squares_f32(1, p->channels, image + i * ld, p->channels);
    return;
  }
  for (int64_t i = 0; i < count; i++) pixels[i] = 0;
  for (int64_t c = 0; c < p->channels; c++, image += count) {
    for (int64_t i = 0; i < count; i++) pixels[i] += (double)image[i] * (double)image[i];
  }
}

static double sum_window(const cv_patches *p, const double *pixels, span y, span x) {
  double sum = 0;
  for (int64_t i = y.begin; i < y.end; i++) {
    const double *from = pixels + (y.at + (i - y.begin) * p->dilation[0]) * p->size[1] + x.at;
    for (int64_t j = x.begin; j < x.end; j++) sum += from[(j - x.begin) * p->dilation[1]];
  }
  return sum;
}

void cv_patches_norms(const cv_patches *p, const float *image, int64_t ld, bool has_one, int64_t examples,
                      double *pixels, double *norms) {
  for (int64_t e = 0; e < examples; e++, image += steps_of(p, ld).example) {
    square_pixels(p, image, ld, pixels);
    for (int64_t oy = 0; oy < p->out[0]; oy++) {
      span y = span_of(p, 0, oy);
      for (int64_t ox = 0; ox < p->out[1]; ox++)
        *norms++ = (has_one ? 1 : 0) + sum_window(p, pixels, y, span_of(p, 1, ox));
    }
  }
}

/* ---- sums ---- */

/* The pixels that one tap of the window meets along an axis: at output pixels begin .. end - 1. */
static span met_by(const cv_patches *p, int axis, int64_t tap) {
  int64_t from = tap * p->dilation[axis] - p->pad[axis], s = p->stride[axis];
  int64_t begin = from < 0 ? cv_divide_up(-from, s) : 0,
          end = from < p->size[axis] ? cv_divide_up(p->size[axis] - from, s) : 0;
  begin = cv_smaller(begin, p->out[axis]);
  end = cv_larger(cv_smaller(end, p->out[axis]), begin);
  return (span){begin, end, from + begin * s};
}

/* out[c stride] = scale * sum over the pixels that the tap (ty, tx) meets. */
static void sum_tap(const cv_patches *p, const float *image, steps at, int64_t ty, int64_t tx, float scale, float *out,
                    int64_t stride) {
  span y = met_by(p, 0, ty), x = met_by(p, 1, tx);
  for (int64_t c = 0; c < p->channels; c++) out[c * stride] = 0;
  for (int64_t i = 0; i < y.end - y.begin; i++) {
    for (int64_t j = 0; j < x.end - x.begin; j++) {
      const float *from = image + (y.at + i * p->stride[0]) * at.y + (x.at + j * p->stride[1]) * at.x;
      for (int64_t c = 0; c < p->channels; c++) out[c * stride] += from[c * at.channel];
    }
  }
  for (int64_t c = 0; c < p->channels; c++) out[c * stride] *= scale;
}

void cv_patches_sums(const cv_patches *p, const float *image, int64_t ld, bool has_one, int64_t first, int64_t count,
                     float scale, float *out, int64_t ldo) {
  int64_t taps = p->kernel[0] * p->kernel[1], n = cv_patches_columns(p);
  steps at = steps_of(p, ld);
  image += first * at.example;
  for (int64_t k = 0; k < count; k++, image += at.example, out += ldo) {
    for (int64_t t = 0; t < taps; t++) {
      int64_t ty = t / p->kernel[1], tx = t % p->kernel[1];
      sum_tap(p, image, at, ty, tx, scale, p->is_channels_first ? out + t : out + t * p->channels,
              p->is_channels_first ? taps : 1);
    }
    if (has_one) out[n] = 1;
  }
}
