/* Convolutions in a test: images whose numbers depend on example, place and channel alone, in either layout, and
 * patches and factors by explicit loops in fp64, from the definition. Nothing of src/linalg is used. */
#ifndef TESTS_CONV_FIXTURE_H
#define TESTS_CONV_FIXTURE_H

#include "curvd.h"
#include "dense_reference.h"

#include <stdlib.h>

/* A pixel of an image (examples, size, channels), whichever way it lies. */
typedef struct conv_image {
  int64_t examples, size[2], channels, ld;
  curvd_layout layout;
  float *x;
} conv_image;

static inline int64_t conv_at(const conv_image *im, int64_t e, int64_t y, int64_t x, int64_t c) {
  int64_t h = im->size[0], w = im->size[1];
  return im->layout == CURVD_CHANNELS_FIRST ? e * im->ld + (c * h + y) * w + x : ((e * h + y) * w + x) * im->ld + c;
}

static inline int64_t conv_out(const curvd_conv *s, int axis) {
  int64_t stride = s->stride[axis] ? s->stride[axis] : 1, dilation = s->dilation[axis] ? s->dilation[axis] : 1, n = 0;
  for (int64_t from = -s->pad[axis]; from + dilation * (s->kernel[axis] - 1) < s->in[axis] + s->pad[axis];
       from += stride)
    n++;
  return n;
}

static inline int64_t conv_positions(const curvd_conv *s) {
  return conv_out(s, 0) * conv_out(s, 1);
}

static inline int64_t conv_columns(const curvd_conv *s) {
  return s->kernel[0] * s->kernel[1] * s->c_in;
}

/* gap: unused numbers, NaN, between pixels or examples. Channels have different lengths, as activations have. */
static inline conv_image conv_make(const int64_t size[2], int64_t channels, curvd_layout layout, int64_t examples,
                                   int64_t gap, uint64_t seed) {
  int64_t pixels = size[0] * size[1], unit = layout == CURVD_CHANNELS_FIRST ? channels * pixels : channels;
  conv_image im = {examples, {size[0], size[1]}, channels, unit + gap, layout, NULL};
  int64_t total = (layout == CURVD_CHANNELS_FIRST ? examples : examples * pixels) * im.ld;
  const cv_rng rng = {.seed = seed, .stream = CV_RNG_PROBE};
  im.x = malloc((size_t)(total > 0 ? total : 1) * sizeof *im.x);
  for (int64_t i = 0; i < total; i++) im.x[i] = NAN;
  for (int64_t i = 0; i < examples * pixels * channels; i++) {
    int64_t e = i / channels / pixels, at = i / channels % pixels, c = i % channels;
    double length = (1 + (double)(e % 5)) / (double)(1 + c);
    im.x[conv_at(&im, e, at / size[1], at % size[1], c)] =
        (float)(length * (2 * cv_rng_uniform(&rng, (uint64_t)i) - 0.8));
  }
  return im;
}

static inline conv_image conv_inputs(const curvd_conv *s, int64_t examples, int64_t gap, uint64_t seed) {
  return conv_make(s->in, s->c_in, s->layout, examples, gap, seed);
}

static inline conv_image conv_gradients(const curvd_conv *s, int64_t examples, int64_t gap, uint64_t seed) {
  const int64_t size[2] = {conv_out(s, 0), conv_out(s, 1)};
  return conv_make(size, s->c_out, s->layout, examples, gap, seed);
}

/* Column of a weight. */
static inline int64_t conv_column(const curvd_conv *s, int64_t ky, int64_t kx, int64_t c) {
  return s->layout == CURVD_CHANNELS_FIRST ? (c * s->kernel[0] + ky) * s->kernel[1] + kx
                                           : (ky * s->kernel[1] + kx) * s->c_in + c;
}

/* What the window covers at output pixel (oy, ox) of example e: row (columns + has_bias). */
static inline void conv_patch(const curvd_conv *s, const conv_image *a, bool has_bias, int64_t e, int64_t oy,
                              int64_t ox, double *row) {
  int64_t stride[2], dilation[2];
  for (int i = 0; i < 2; i++) {
    stride[i] = s->stride[i] ? s->stride[i] : 1;
    dilation[i] = s->dilation[i] ? s->dilation[i] : 1;
  }
  for (int64_t k = 0; k < conv_columns(s); k++) {
    int64_t ky = k / s->c_in / s->kernel[1], kx = k / s->c_in % s->kernel[1], c = k % s->c_in;
    int64_t y = oy * stride[0] - s->pad[0] + ky * dilation[0], x = ox * stride[1] - s->pad[1] + kx * dilation[1];
    bool is_inside = y >= 0 && y < s->in[0] && x >= 0 && x < s->in[1];
    row[conv_column(s, ky, kx, c)] = is_inside ? (double)a->x[conv_at(a, e, y, x, c)] : 0;
  }
  if (has_bias) row[conv_columns(s)] = 1;
}

static inline void conv_add_square(dense *M, double weight, const double *row) {
  for (int64_t i = 0; i < M->n; i++) {
    for (int64_t j = 0; j < M->n; j++) M->x[i][j] += weight * row[i] * row[j];
  }
}

typedef enum conv_sharing { CONV_KFC, CONV_PUBLISHED, CONV_EXPAND, CONV_REDUCE } conv_sharing;
static const char *const conv_words[] = {"kfc", "published", "expand", "reduce"};

/* A of the images: sums over positions, weighted, or the square of the mean patch; a mean over examples. */
static inline dense conv_factor_a(const curvd_conv *s, const conv_image *a, bool has_bias, conv_sharing how) {
  double T = (double)conv_positions(s), B = (double)a->examples,
         weight = how == CONV_PUBLISHED ? 1 / (T * T)
                  : how == CONV_EXPAND  ? 1 / T
                                        : 1;
  dense A = dense_zero(conv_columns(s) + has_bias, conv_columns(s) + has_bias);
  for (int64_t e = 0; e < a->examples; e++) {
    double mean[DENSE_MAX] = {0}, row[DENSE_MAX];
    for (int64_t t = 0; t < conv_positions(s); t++) {
      conv_patch(s, a, has_bias, e, t / conv_out(s, 1), t % conv_out(s, 1), row);
      for (int64_t j = 0; j < A.n; j++) mean[j] += row[j] / T;
      if (how != CONV_REDUCE) conv_add_square(&A, weight / B, row);
    }
    if (how == CONV_REDUCE) conv_add_square(&A, 1 / B, mean);
  }
  return A;
}

/* G of gradients of each example's own loss. */
static inline dense conv_factor_g(const curvd_conv *s, const conv_image *g, conv_sharing how) {
  double T = (double)conv_positions(s), B = (double)g->examples,
         weight = how == CONV_KFC         ? 1 / T
                  : how == CONV_PUBLISHED ? T
                                          : 1;
  dense G = dense_zero(s->c_out, s->c_out);
  for (int64_t e = 0; e < g->examples; e++) {
    double sum[DENSE_MAX] = {0}, row[DENSE_MAX];
    for (int64_t t = 0; t < conv_positions(s); t++) {
      for (int64_t c = 0; c < s->c_out; c++) {
        row[c] = (double)g->x[conv_at(g, e, t / g->size[1], t % g->size[1], c)];
        sum[c] += row[c];
      }
      if (how != CONV_REDUCE) conv_add_square(&G, weight / B, row);
    }
    if (how == CONV_REDUCE) conv_add_square(&G, 1 / B, sum);
  }
  return G;
}

/* Shapes with every edge: one pixel, one channel, a stride above the kernel, dilation, padding beyond the kernel,
 * uneven axes, windows that never meet the image. */
static const curvd_conv conv_shapes[] = {
    {.c_in = 3, .c_out = 4, .in = {5, 4}, .kernel = {3, 3}, .pad = {1, 1}},
    {.c_in = 5, .c_out = 3, .in = {1, 1}, .kernel = {1, 1}},
    {.c_in = 1, .c_out = 1, .in = {7, 6}, .kernel = {2, 3}, .stride = {3, 4}},
    {.c_in = 2, .c_out = 3, .in = {9, 8}, .kernel = {3, 2}, .dilation = {3, 2}, .pad = {2, 1}, .stride = {2, 1}},
    {.c_in = 2, .c_out = 2, .in = {2, 3}, .kernel = {2, 2}, .pad = {4, 3}, .stride = {1, 2}},
    {.c_in = 17, .c_out = 5, .in = {3, 4}, .kernel = {1, 2}, .pad = {0, 1}, .dilation = {1, 3}},
    {.c_in = 6, .c_out = 7, .in = {4, 5}, .kernel = {1, 1}, .stride = {2, 2}},
    {.c_in = 1, .c_out = 2, .in = {4, 30}, .kernel = {3, 20}, .pad = {1, 9}},
};
enum { CONV_SHAPES = sizeof conv_shapes / sizeof conv_shapes[0] };

#endif
