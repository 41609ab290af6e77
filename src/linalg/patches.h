/* A convolution's inputs as rows of a matrix: one row, a patch, for each output pixel of each example, n = kernel[0]
 * kernel[1] channels numbers long, 0 where the window lies over the edge. The matrix has kernel[0] kernel[1] /
 * (stride[0] stride[1]) times the numbers of the images, so it is never made as a whole: callers ask for tiles of it,
 * for chosen rows, for the lengths of all rows, or for their sum over an example.
 *
 * Images are (examples, h, w, channels), pixels ld apart and lines and examples without gaps, and the columns of a
 * patch (kernel[0], kernel[1], channels); or with is_channels_first (examples, channels, h, w), examples ld apart, and
 * columns (channels, kernel[0], kernel[1]). With ld above the channels an image may be a group of channels of a larger
 * one. Output gradients are patches of a window of one pixel. Row r is of example r / T at pixel r % T, T = out[0]
 * out[1].
 *
 * Cost: n numbers a row, copied from images that mostly are in cache; channels first by single numbers, which takes
 * several times as long. */
#ifndef CV_LINALG_PATCHES_H
#define CV_LINALG_PATCHES_H

#include <stdbool.h>
#include <stdint.h>

/* Axis 0 is the height. out >= 1, size >= 1, the others as of any convolution. */
typedef struct cv_patches {
  int64_t channels;
  int64_t size[2], kernel[2], stride[2], pad[2], dilation[2], out[2];
  bool is_channels_first;
} cv_patches;

/* Pixels of the output along an axis: (size + 2 pad - dilation (kernel - 1) - 1) / stride + 1, 0 where the window is
 * larger than the padded image. */
int64_t cv_patches_out(int64_t size, int64_t kernel, int64_t stride, int64_t pad, int64_t dilation);

/* T and n, the latter without the constant 1. */
int64_t cv_patches_positions(const cv_patches *p);
int64_t cv_patches_columns(const cv_patches *p);

/* Floats from one example to the next. */
int64_t cv_patches_example(const cv_patches *p, int64_t ld);

/* Are the images such a matrix already, (examples * T, n) with rows ld apart? */
bool cv_patches_are_rows(const cv_patches *p);

/* out (count, n) = rows first .. first + count - 1; with has_one (count, n + 1), with a 1 behind each row. */
void cv_patches_write(const cv_patches *p, const float *image, int64_t ld, bool has_one, int64_t first, int64_t count,
                      float *out, int64_t ldo);

/* out (count, n or n + 1): row k = sqrt(weight[k]) times row index[k], the 1 included. index ascending is fastest. */
void cv_patches_gather(const cv_patches *p, const float *image, int64_t ld, bool has_one, int64_t count,
                       const int64_t *index, const double *weight, float *out, int64_t ldo);

/* norms (examples * T) = squared lengths of the first examples' rows, the 1 included: sums of the pixels' over the
 * windows. pixels: scratch of size[0] size[1]. Relative error 2e-6 (cv_sum_squares_f32). */
void cv_patches_norms(const cv_patches *p, const float *image, int64_t ld, bool has_one, int64_t examples,
                      double *pixels, double *norms);

/* out (count, n or n + 1): row k = scale times the sum of the T rows of example first + k; the 1 behind it stays 1.
 * Sums of fp32: relative error up to T 6e-8 of the sum of magnitudes. */
void cv_patches_sums(const cv_patches *p, const float *image, int64_t ld, bool has_one, int64_t first, int64_t count,
                     float scale, float *out, int64_t ldo);

#endif
