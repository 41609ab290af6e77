/* Sums of statistics that travel in bf16 (option wire_precision). What is packed for an owner, factor by factor, lies
 * in fp32 before and after; on its way the numbers that are never rounded (traces, counts, sketches, blocks of units)
 * come first, and behind them all others as bf16. */
#ifndef CV_CURVATURE_UPLINK_BF16_H
#define CV_CURVATURE_UPLINK_BF16_H

#include "curvature/internal.h"

/* Numbers of the link that travel as they are; floats that hold all of what travels. */
int64_t cv_rounded_exact(const cv_uplink *up);
int64_t cv_rounded_floats(const cv_uplink *up);

/* Room for what the links of this rank, and the rows of its factors, need before and after they are rounded; NULL where
 * nothing is. */
curvd_status cv_rounded_allocate(curvd_ctx *ctx);
float *cv_rounded_room(const curvd_ctx *ctx);

/* Rank 0: how many factors travel rounded, where that was asked for. */
void cv_rounded_tell(curvd_ctx *ctx);

/* Worker: wide (n_floats), as it was packed, into a slot. Owner: a slot of sums (n_floats) into wide, as it was packed.
 */
void cv_rounded_send(const curvd_ctx *ctx, int owner, const float *wide, float *slot);
void cv_rounded_take(const curvd_ctx *ctx, int owner, const float *slot, float *wide);

#endif
