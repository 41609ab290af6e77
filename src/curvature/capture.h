/* Captured rows on their way to a factor's carrier: all of them or some drawn by their length, of a fully connected
 * layer as they lie, of a convolution as patches of its images, tile by tile. */
#ifndef CV_CURVATURE_CAPTURE_H
#define CV_CURVATURE_CAPTURE_H

#include "curvature/internal.h"

/* What one call brings of one factor: rows (examples, n), or of a convolution (window not NULL) images. With has_one a
 * 1 stands behind each row. The statistic is scale times the mean over examples of x x^T, or of the sum over positions
 * of it; with is_reduced of the outer product of row_scale times the sum over positions. */
typedef struct cv_source {
  const cv_patches *window;
  const float *X;
  int64_t examples, ld;
  bool has_one, is_reduced;
  float scale, row_scale;
} cv_source;

/* SIZE: no room for so many rows. */
curvd_status cv_capture_check(curvd_ctx *ctx, const cv_layer *layer, const cv_factor *factor, const cv_source *x);

void cv_capture_add(curvd_ctx *ctx, const cv_layer *layer, cv_factor *factor, const cv_source *x);

/* Workspace of a worker, for all layers; and refuses rows that no carrier could keep. */
curvd_status cv_capture_fits(curvd_ctx *ctx);
curvd_status cv_capture_allocate(curvd_ctx *ctx);
void cv_capture_free(curvd_ctx *ctx);

#endif
