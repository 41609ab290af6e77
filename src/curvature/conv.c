#include "curvature/conv.h"

#include "linalg/dense.h"

static bool is_size(int64_t x) {
  return x >= 1 && x < CV_DENSE_MAX;
}

static curvd_status check_numbers(const char *name, const curvd_conv *shape, const cv_patches *p, cv_error *err) {
  static const char *const axes[] = {"height", "width"};
  if (!is_size(shape->c_in) || !is_size(shape->c_out))
    return cv_fail(err, CURVD_ERR_ARGUMENT, "layer %s: %lld input and %lld output channels are outside 1 .. %lld", name,
                   (long long)shape->c_in, (long long)shape->c_out, (long long)CV_DENSE_MAX - 1);
  if (shape->layout != CURVD_CHANNELS_LAST && shape->layout != CURVD_CHANNELS_FIRST)
    return cv_fail(err, CURVD_ERR_ARGUMENT, "layer %s: layout %d is neither CURVD_CHANNELS_LAST nor _FIRST", name,
                   (int)shape->layout);
  for (int i = 0; i < 2; i++) {
    if (is_size(p->size[i]) && is_size(p->kernel[i]) && is_size(p->stride[i]) && is_size(p->dilation[i]) &&
        p->pad[i] >= 0 && p->pad[i] < CV_DENSE_MAX)
      continue;
    return cv_fail(err, CURVD_ERR_ARGUMENT,
                   "layer %s, %s: input %lld, kernel %lld, stride %lld, pad %lld, dilation %lld: one is outside 1 .. "
                   "%lld (pad from 0; stride and dilation 0 mean 1)",
                   name, axes[i], (long long)shape->in[i], (long long)shape->kernel[i], (long long)shape->stride[i],
                   (long long)shape->pad[i], (long long)shape->dilation[i], (long long)CV_DENSE_MAX - 1);
  }
  return CURVD_OK;
}

/* Of numbers below 2^30 each. */
static bool fits_product(int64_t x, int64_t y) {
  return x * y < CV_DENSE_MAX;
}

static curvd_status check_sizes(const char *name, const cv_patches *p, cv_error *err) {
  for (int i = 0; i < 2; i++) {
    if (p->out[i] >= 1) continue;
    return cv_fail(err, CURVD_ERR_ARGUMENT,
                   "layer %s has no output: a kernel of %lld with dilation %lld does not fit into %lld pixels with pad "
                   "%lld",
                   name, (long long)p->kernel[i], (long long)p->dilation[i], (long long)p->size[i],
                   (long long)p->pad[i]);
  }
  bool fits_window = fits_product(p->kernel[0], p->kernel[1]) && fits_product(p->kernel[0] * p->kernel[1], p->channels);
  if (!fits_window || !fits_product(p->size[0], p->size[1]) || p->out[0] >= CV_DENSE_MAX || p->out[1] >= CV_DENSE_MAX ||
      !fits_product(p->out[0], p->out[1]))
    return cv_fail(
        err, CURVD_ERR_ARGUMENT,
        "layer %s: a window of %lld x %lld x %lld, an input of %lld x %lld or an output of %lld x %lld pixels "
        "exceeds %lld numbers",
        name, (long long)p->kernel[0], (long long)p->kernel[1], (long long)p->channels, (long long)p->size[0],
        (long long)p->size[1], (long long)p->out[0], (long long)p->out[1], (long long)CV_DENSE_MAX - 1);
  return CURVD_OK;
}

curvd_status cv_conv_make(const char *name, const curvd_conv *shape, cv_patches *inputs, cv_patches *outputs,
                          cv_error *err) {
  bool is_first = shape->layout == CURVD_CHANNELS_FIRST;
  *inputs = (cv_patches){.channels = shape->c_in, .is_channels_first = is_first};
  *outputs = (cv_patches){
      .channels = shape->c_out, .kernel = {1, 1}, .stride = {1, 1}, .dilation = {1, 1}, .is_channels_first = is_first};
  for (int i = 0; i < 2; i++) {
    inputs->size[i] = shape->in[i];
    inputs->kernel[i] = shape->kernel[i];
    inputs->stride[i] = shape->stride[i] == 0 ? 1 : shape->stride[i];
    inputs->pad[i] = shape->pad[i];
    inputs->dilation[i] = shape->dilation[i] == 0 ? 1 : shape->dilation[i];
  }
  CV_TRY(check_numbers(name, shape, inputs, err));
  for (int i = 0; i < 2; i++)
    inputs->out[i] = outputs->size[i] = outputs->out[i] =
        cv_patches_out(inputs->size[i], inputs->kernel[i], inputs->stride[i], inputs->pad[i], inputs->dilation[i]);
  return check_sizes(name, inputs, err);
}
