/* The geometry of a convolution as a caller gives it: checked, and as patches of its images. */
#ifndef CV_CURVATURE_CONV_H
#define CV_CURVATURE_CONV_H

#include "base/status.h"
#include "linalg/patches.h"

#include "curvd.h"

/* inputs: of the images; outputs: of their gradients, a window of one pixel. ARGUMENT: a shape that has no output, or
 * sizes that do not fit (32-bit BLAS). */
curvd_status cv_conv_make(const char *name, const curvd_conv *shape, cv_patches *inputs, cv_patches *outputs,
                          cv_error *err);

#endif
