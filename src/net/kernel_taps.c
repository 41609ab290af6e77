#include "net/kernel_taps.h"

#include "net/kernel_parts.h"

#include <string.h>

enum { PAIRS = 1024 }; /* gathered at a time: enough for a matrix product, few enough for the cache */

bool nn_taps_pay(const nn_conv *s) {
  return s->groups == 1 && s->out[0] * s->out[1] <= 16 && s->c_in >= 64 && s->c_out >= 64;
}

curvd_status nn_taps_create(const nn_conv *s, const nn_conv_settings *settings, cv_memory *memory, nn_taps *made,
                            cv_error *err) {
  int64_t pixels = s->out[0] * s->out[1];
  *made = (nn_taps){.images = pixels < PAIRS ? PAIRS / pixels : 1, .by = settings->by};
  if (made->images > settings->rows_max) made->images = settings->rows_max;
  CV_TRY(cv_floats_new(memory, CV_MEMORY_WORKSPACE, made->images * pixels * s->c_in, "a convolution's inputs", &made->x,
                       err));
  CV_TRY(cv_floats_new(memory, CV_MEMORY_WORKSPACE, made->images * pixels * s->c_out, "a convolution's gradients",
                       &made->g, err));
  return cv_doubles_new(memory, CV_MEMORY_WORKSPACE, 2 * s->c_out, "a convolution's bias sums", &made->sums, err);
}

void nn_taps_free(cv_memory *memory, nn_taps *taps) {
  cv_floats_free(memory, &taps->x);
  cv_floats_free(memory, &taps->g);
  cv_doubles_free(memory, &taps->sums);
}

/* Returns how many pairs of an input and an output pixel meet at the tap. */
static int64_t gather(const nn_taps *taps, const nn_conv *s, int64_t images, int64_t k0, int64_t k1, const float *x,
                      const float *g) {
  int64_t n = 0, q0, q1;
  for (int64_t image = 0; image < images; image++)
    for (int64_t p0 = 0; p0 < s->out[0]; p0++) {
      if (!nn_window_pixel(s->in[0], s->stride[0], s->pad[0], s->dilation[0], p0, k0, &q0)) continue;
      for (int64_t p1 = 0; p1 < s->out[1]; p1++) {
        if (!nn_window_pixel(s->in[1], s->stride[1], s->pad[1], s->dilation[1], p1, k1, &q1)) continue;
        int64_t p = (image * s->out[0] + p0) * s->out[1] + p1, q = (image * s->in[0] + q0) * s->in[1] + q1;
        memcpy(taps->x + n * s->c_in, x + q * s->c_in, (size_t)s->c_in * sizeof *x);
        memcpy(taps->g + n * s->c_out, g + p * s->c_out, (size_t)s->c_out * sizeof *g);
        n++;
      }
    }
  return n;
}

static void add_images(const nn_taps *taps, const nn_conv *s, int64_t images, const float *x, const float *g,
                       float scale, float beta, float *dw, int64_t lddw) {
  for (int64_t k0 = 0; k0 < s->kernel[0]; k0++)
    for (int64_t k1 = 0; k1 < s->kernel[1]; k1++) {
      int64_t n = gather(taps, s, images, k0, k1, x, g); /* 0: the product still multiplies by beta */
      cv_multiply(&taps->by, CV_T, CV_N, s->c_out, s->c_in, n, scale, taps->g, s->c_out, taps->x, s->c_in, beta,
                  dw + (k0 * s->kernel[1] + k1) * s->c_in, lddw);
    }
}

void nn_taps_backward_weight(const nn_taps *taps, const nn_conv *s, int64_t rows, const float *x, const float *g,
                             float scale, bool has_bias, float beta, float *dw, int64_t lddw) {
  int64_t in = s->in[0] * s->in[1] * s->c_in, out = s->out[0] * s->out[1] * s->c_out, images;
  for (int64_t at = 0; at < rows; at += images) {
    images = rows - at < taps->images ? rows - at : taps->images;
    add_images(taps, s, images, x + at * in, g + at * out, scale, at == 0 ? beta : 1, dw, lddw);
  }
  if (!has_bias) return;
  float *bias = dw + nn_conv_d_in(s);
  nn_norm_sums(rows * s->out[0] * s->out[1], s->c_out, g, taps->sums, taps->sums + s->c_out);
  for (int64_t o = 0; o < s->c_out; o++)
    bias[o * lddw] = (beta == 0 ? 0 : beta * bias[o * lddw]) + scale * (float)taps->sums[o];
}
