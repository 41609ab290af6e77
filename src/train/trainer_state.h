/* The whole state of a run, as named arrays in checkpoints: the library's (curvd_save) and the program's own.
 *
 *   train.run                 step, parts of momentum, workers, the optimizer's steps
 *   train.seconds             wall and CPU seconds of training so far
 *   train.part0               of worker 0: sum and number of losses since the last line of the log
 *   model.LAYER.weight        (d_out, d_in [+ 1])
 *   model.LAYER.momentum.part0    where gradients are added into their own average every worker has its part of it, and
 *                             their sum counts; the optimizer's momentum is one part
 *   model.LAYER.first, .second    AdamW's moments
 *   model.LAYER.running.part0 a worker's running statistics of a normalisation; their mean counts
 *
 * On as many workers as before each takes its own part again; others share the parts out. */
#ifndef TRAIN_TRAINER_STATE_H
#define TRAIN_TRAINER_STATE_H

#include "save/checkpoint.h"
#include "save/saver.h"
#include "train/trainer.h"

typedef struct trainer_state {
  trainer *trainer;                /* borrowed */
  saver *saver;                    /* borrowed; NULL: nothing can be saved */
  char own[CV_OPTION_TEXT_MAX];    /* folder that the saver writes to */
  char folder[CV_OPTION_TEXT_MAX]; /* of the checkpoints that are loaded; own, once something has been saved */
  checkpoint *from;                /* while one is loaded */
  cv_error error;                  /* of the last visit, on this rank */
  float *scratch;                  /* one part, while it is loaded */
} trainer_state;

/* [local] Hooks into the trainer's context. state must stay where it is as long as the trainer. */
curvd_status trainer_state_hook(trainer_state *state, trainer *t, cv_error *err);

/* [collective over the workers; curvature ranks take part while they serve] Copies everything for the saver's thread;
 * reads the checkpoint of a step in state->folder. After a load that failed another one can be loaded. The first
 * failing worker's sentence comes to all workers. */
curvd_status trainer_state_save(trainer_state *state, cv_error *err);
curvd_status trainer_state_load(trainer_state *state, int64_t step, cv_error *err);

/* [local] Lists where the layers of a checkpoint differ from the network's, in one sentence. OPTION when they do. */
curvd_status trainer_state_compare(const trainer *t, const checkpoint *cp, cv_error *err);

#endif
