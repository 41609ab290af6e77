/* What moves transfers while workers compute, and how well: chosen once, by a trial. */
#ifndef CV_CURVATURE_OVERLAP_H
#define CV_CURVATURE_OVERLAP_H

#include "curvature/internal.h"

/* [collective, all ranks, at the end of curvd_plan] Starts the workers' threads, all or none. STATE: progress thread
 * without MPI_THREAD_MULTIPLE. */
curvd_status cv_overlap_choose(curvd_ctx *ctx);

#endif
