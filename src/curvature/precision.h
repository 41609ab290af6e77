/* The precisions that the options ask for, as multipliers of the context: refresh_by, statistics_by, apply_by. */
#ifndef CV_CURVATURE_PRECISION_H
#define CV_CURVATURE_PRECISION_H

#include "curvature/settings.h"
#include "curvd.h"

/* Numbers of the room that products of all these precisions need; 0: they are fp32. */
int64_t cv_precision_room(const cv_settings *settings);

/* Finds the matrix unit and its room. OPTION: this machine has no such unit. */
curvd_status cv_precision_make(curvd_ctx *ctx);
void cv_precision_free(curvd_ctx *ctx);

/* What rounding of a factor's numbers changes in its pairs may be this share of what they miss; both are Frobenius
 * norms. They add up as squares do: the error grows by at most half a per cent. */
#define CV_ROUNDING_MAX 0.1

#endif
