/* Faults that are ordered by curvd_inject, each where its real one would strike. */
#ifndef CV_CURVATURE_INJECT_H
#define CV_CURVATURE_INJECT_H

#include "curvature/internal.h"

/* Does the first solver of the factor fail in this refresh? */
bool cv_inject_solver(curvd_ctx *ctx, const cv_factor *factor);

/* Owner, before it uses its factors, and of a sum that has come; worker, of an owner's payload that has come, and
 * before a step. */
void cv_inject_owned(curvd_ctx *ctx);
void cv_inject_statistic(curvd_ctx *ctx, const cv_factor *factor, const float *wire);
void cv_inject_transfer(curvd_ctx *ctx, int owner, char *payload, int64_t bytes);
void cv_inject_applied(curvd_ctx *ctx);

#endif
