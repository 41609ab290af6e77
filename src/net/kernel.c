#include "net/kernel.h"

#include "net/kernel_parts.h"

#include <inttypes.h>
#include <string.h>

/* ---- sizes ---- */

static curvd_status check_range(const char *what, int64_t value, int64_t least, cv_error *err) {
  if (value >= least && value < INT32_MAX) return CURVD_OK;
  return cv_fail(err, CURVD_ERR_ARGUMENT, "a %s of %" PRId64 "; it must be %" PRId64 " or more, and below 2^31 - 1",
                 what, value, least);
}

/* Everything below 2^31, so that no product of two overflows. */
static curvd_status window_size(const int64_t *in, const int64_t *kernel, const int64_t *stride, const int64_t *pad,
                                const int64_t *dilation, int64_t *out, cv_error *err) {
  static const char *const axes[2] = {"height", "width"};
  for (int a = 0; a < 2; a++) {
    CV_TRY(check_range(axes[a], in[a], 1, err));
    CV_TRY(check_range("kernel", kernel[a], 1, err));
    CV_TRY(check_range("stride", stride[a], 1, err));
    CV_TRY(check_range("padding", pad[a], 0, err));
    CV_TRY(check_range("dilation", dilation[a], 1, err));
    int64_t window = dilation[a] * (kernel[a] - 1) + 1, room = in[a] + 2 * pad[a] - window;
    if (room < 0)
      return cv_fail(err, CURVD_ERR_ARGUMENT,
                     "a window of %s %" PRId64 " does not fit into an image of %" PRId64 " with %" PRId64
                     " of padding on either side; use a smaller kernel or dilation, or more padding",
                     axes[a], window, in[a], pad[a]);
    out[a] = room / stride[a] + 1;
  }
  return CURVD_OK;
}

/* a * b * c < 2^31, of positive numbers */
static bool is_small(int64_t a, int64_t b, int64_t c) {
  return a <= INT32_MAX / b && a * b <= INT32_MAX / c;
}

static curvd_status check_images(const int64_t *in, int64_t c_in, const int64_t *out, int64_t c_out, cv_error *err) {
  if (is_small(in[0], in[1], c_in) && is_small(out[0], out[1], c_out)) return CURVD_OK;
  return cv_fail(err, CURVD_ERR_SIZE,
                 "images of %" PRId64 " x %" PRId64 " x %" PRId64 " to %" PRId64 " x %" PRId64 " x %" PRId64
                 " have 2^31 numbers or more; use smaller images, or fewer channels",
                 in[0], in[1], c_in, out[0], out[1], c_out);
}

curvd_status nn_conv_size(nn_conv *s, cv_error *err) {
  CV_TRY(check_range("number of input channels", s->c_in, 1, err));
  CV_TRY(check_range("number of output channels", s->c_out, 1, err));
  if (s->groups < 1 || s->c_in % s->groups != 0 || s->c_out % s->groups != 0)
    return cv_fail(err, CURVD_ERR_ARGUMENT,
                   "%" PRId64 " groups do not divide %" PRId64 " input and %" PRId64 " output channels", s->groups,
                   s->c_in, s->c_out);
  CV_TRY(window_size(s->in, s->kernel, s->stride, s->pad, s->dilation, s->out, err));
  CV_TRY(check_images(s->in, s->c_in, s->out, s->c_out, err));
  if (!is_small(s->kernel[0], s->kernel[1], s->c_in / s->groups) || !is_small(nn_conv_d_in(s), s->c_out, 1))
    return cv_fail(err, CURVD_ERR_SIZE,
                   "a weight of %" PRId64 " x (%" PRId64 " x %" PRId64 " x %" PRId64
                   ") has 2^31 numbers or more; use fewer channels, or more groups",
                   s->c_out, s->kernel[0], s->kernel[1], s->c_in / s->groups);
  return CURVD_OK;
}

curvd_status nn_pool_size(nn_pool *s, cv_error *err) {
  const int64_t near[2] = {1, 1};
  CV_TRY(check_range("number of channels", s->channels, 1, err));
  CV_TRY(window_size(s->in, s->kernel, s->stride, s->pad, near, s->out, err));
  for (int a = 0; a < 2; a++)
    if (s->pad[a] >= s->kernel[a])
      return cv_fail(err, CURVD_ERR_ARGUMENT,
                     "a padding of %" PRId64 " leaves windows of a pool of %" PRId64 " without any pixel; use less",
                     s->pad[a], s->kernel[a]);
  return check_images(s->in, s->channels, s->out, s->channels, err);
}

int64_t nn_conv_d_in(const nn_conv *s) {
  return s->kernel[0] * s->kernel[1] * (s->c_in / s->groups);
}

curvd_status nn_conv_check(const nn_conv *shape, int64_t rows_max, cv_error *err) {
  nn_conv sized = *shape;
  CV_TRY(nn_conv_size(&sized, err));
  if (sized.out[0] != shape->out[0] || sized.out[1] != shape->out[1])
    return cv_fail(err, CURVD_ERR_ARGUMENT,
                   "a convolution to %" PRId64 " x %" PRId64 " pixels said it had %" PRId64 " x %" PRId64
                   "; call nn_conv_size",
                   sized.out[0], sized.out[1], shape->out[0], shape->out[1]);
  return check_range("number of rows", rows_max, 1, err);
}

/* ---- the table's name ---- */

curvd_status nn_kernels_find(const char *name, const nn_kernels **kernels, cv_error *err) {
  bool is_auto = strcmp(name, "auto") == 0;
  if (strcmp(name, "plain") == 0) {
    *kernels = &nn_kernels_plain;
    return CURVD_OK;
  }
  if (!is_auto && strcmp(name, "onednn") != 0)
    return cv_fail(err, CURVD_ERR_OPTION, "no kernels '%s'; there are auto, plain and onednn", name);
#ifdef CURVD_HAS_ONEDNN
  *kernels = &nn_kernels_onednn;
#else
  if (!is_auto)
    return cv_fail(err, CURVD_ERR_OPTION,
                   "this build has no oneDNN; install version 2 of it (Debian: libdnnl-dev) and configure with "
                   "-DCURVD_ONEDNN=ON, or use the plain kernels");
  *kernels = &nn_kernels_plain;
#endif
  return CURVD_OK;
}
