/* What run.c and run_folder.c share of a run's folder and its terminal. */
#ifndef TRAIN_RUN_FOLDER_H
#define TRAIN_RUN_FOLDER_H

#include "train/run.h"

bool run_is_on_terminal(void);

/* Removes what run_open made, as far as nothing else is in it. */
void run_remove(const run *r);

/* Others may write into the folder from now on. */
void run_unlock(run *r);

#endif
