/* The same sketch and the same pairs, wherever they are computed. */
#ifndef EIG_GRIDS_H
#define EIG_GRIDS_H

#include "eig_run.h"

/* [collective over all ranks] Prints a line for each grid that the ranks can form. */
curvd_status eig_grids_run(const eig_options *options, cv_memory *memory, cv_error *err);

#endif
