/* Owners change during a run, by what their layers were measured to cost.
 *
 * Every refresh tells the workers what its layer has cost its owners so far, so that at a step of rebalance_steps all
 * of them, by the same numbers, propose the same owners (planner.h), without a message. Only where that is a gain the
 * owners are told, and all ranks meet: what is under way arrives, the moved layers' averages, bases and counts go from
 * owner to owner as they are, and parcels that have come but are not open yet are sorted anew. Nothing is dropped and
 * nothing is computed differently: with curvature ranks a move changes no bit. Layers with a spread factor stay.
 *
 * This is the one place that makes memory in a step: the links are as large as their owners' layers ask for. */
#ifndef CV_CURVATURE_REBALANCE_H
#define CV_CURVATURE_REBALANCE_H

#include "curvature/internal.h"

/* A word of worker 0 to the curvature ranks, in place of a step's number. */
enum { CV_WORD_MOVE = -2 };

curvd_status cv_rebalance_allocate(curvd_ctx *ctx);
void cv_rebalance_free(curvd_ctx *ctx);

/* An owner has spent so much on a layer. */
static inline void cv_rebalance_note(cv_layer *layer, double seconds) {
  layer->factor[CV_A].own.fresh.work_s += seconds;
}

/* [collective over the workers] Looks whether moves are due and a gain. */
bool cv_rebalance_is_gain(curvd_ctx *ctx);

/* [collective over all ranks] Moves as worker 0 has proposed. Where a rank has no memory for it all stays as it was. */
curvd_status cv_rebalance(curvd_ctx *ctx);

#endif
