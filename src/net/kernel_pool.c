/* Pooling: the inner loops go over channels, which lie side by side. */
#include "net/kernel_parts.h"

#include <string.h>

enum { LANES = 64 }; /* channels whose gradients are given away side by side */

/* Pixels [begin, end) of the image under the window of output pixel p, along one axis; never empty. */
typedef struct span {
  int64_t begin, end;
} span;

static span window_of(const nn_pool *s, int axis, int64_t p) {
  int64_t begin = p * s->stride[axis] - s->pad[axis], end = begin + s->kernel[axis];
  return (span){begin < 0 ? 0 : begin, end > s->in[axis] ? s->in[axis] : end};
}

static float share_of(const nn_pool *s, span rows, span columns) {
  int64_t n = s->counts_padding ? s->kernel[0] * s->kernel[1] : (rows.end - rows.begin) * (columns.end - columns.begin);
  return 1 / (float)n;
}

static void largest(int64_t c, const float *restrict x, float *restrict y) {
  for (int64_t i = 0; i < c; i++) y[i] = ((x[i] > y[i]) | (x[i] != x[i])) ? x[i] : y[i]; /* NaN wins and stays */
}

static void add(int64_t c, float share, const float *restrict x, float *restrict y) {
  for (int64_t i = 0; i < c; i++) y[i] += share * x[i];
}

/* x: an image; y: one pixel */
static void pool_pixel(const nn_pool *s, const float *x, span rows, span columns, float *y) {
  int64_t c = s->channels;
  float share = share_of(s, rows, columns);
  if (s->kind == NN_POOL_AVERAGE)
    memset(y, 0, (size_t)c * sizeof *y);
  else
    memcpy(y, x + (rows.begin * s->in[1] + columns.begin) * c, (size_t)c * sizeof *y);
  for (int64_t q0 = rows.begin; q0 < rows.end; q0++)
    for (int64_t q1 = columns.begin; q1 < columns.end; q1++) {
      const float *pixel = x + (q0 * s->in[1] + q1) * c;
      if (s->kind == NN_POOL_AVERAGE)
        add(c, share, pixel, y);
      else
        largest(c, pixel, y);
    }
}

void nn_pool_forward(const nn_pool *s, int64_t rows, const float *x, float *y) {
  int64_t image = s->in[0] * s->in[1] * s->channels;
  for (int64_t n = 0; n < rows; n++)
    for (int64_t p0 = 0; p0 < s->out[0]; p0++)
      for (int64_t p1 = 0; p1 < s->out[1]; p1++, y += s->channels)
        pool_pixel(s, x + n * image, window_of(s, 0, p0), window_of(s, 1, p1), y);
}

/* Channels [first, first + n) of one window: the first pixel that equals y takes what is left of g. */
static void give(const nn_pool *s, int n, const float *x, const float *y, const float *g, float *dx, span rows,
                 span columns) {
  float left[LANES];
  memcpy(left, g, (size_t)n * sizeof *left);
  for (int64_t q0 = rows.begin; q0 < rows.end; q0++)
    for (int64_t q1 = columns.begin; q1 < columns.end; q1++) {
      int64_t at = (q0 * s->in[1] + q1) * s->channels;
      for (int i = 0; i < n; i++) {
        float taken = x[at + i] == y[i] ? left[i] : 0;
        dx[at + i] += taken;
        left[i] = x[at + i] == y[i] ? 0 : left[i];
      }
    }
}

static void pool_pixel_backward(const nn_pool *s, const float *x, const float *y, const float *g, float *dx, span rows,
                                span columns) {
  int64_t c = s->channels;
  float share = share_of(s, rows, columns);
  if (s->kind == NN_POOL_MAX) {
    for (int64_t i = 0; i < c; i += LANES)
      give(s, (int)(c - i < LANES ? c - i : LANES), x + i, y + i, g + i, dx + i, rows, columns);
    return;
  }
  for (int64_t q0 = rows.begin; q0 < rows.end; q0++)
    for (int64_t q1 = columns.begin; q1 < columns.end; q1++) add(c, share, g, dx + (q0 * s->in[1] + q1) * c);
}

void nn_pool_backward(const nn_pool *s, int64_t rows, const float *x, const float *y, const float *g, float *dx) {
  int64_t image = s->in[0] * s->in[1] * s->channels;
  memset(dx, 0, (size_t)(rows * image) * sizeof *dx);
  for (int64_t n = 0; n < rows; n++)
    for (int64_t p0 = 0; p0 < s->out[0]; p0++)
      for (int64_t p1 = 0; p1 < s->out[1]; p1++, y += s->channels, g += s->channels)
        pool_pixel_backward(s, x + n * image, y, g, dx + n * image, window_of(s, 0, p0), window_of(s, 1, p1));
}
