/* Whole arrays of checkpoints, for people: compared, and written for other programs. */
#ifndef TRAIN_CHECKPOINT_ARRAYS_H
#define TRAIN_CHECKPOINT_ARRAYS_H

#include "base/status.h"
#include "save/checkpoint.h"

#include <stdbool.h>

/* Prints a line for every array that is not the same in bits. */
curvd_status checkpoint_diff(const checkpoint *x, const checkpoint *y, bool *is_equal, cv_error *err);

/* FOLDER/NAME.npy for every array; a triangle as the full symmetric matrix. The folder is made; what is in it stays. */
curvd_status checkpoint_export(const checkpoint *cp, const char *folder, cv_error *err);

#endif
