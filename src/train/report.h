/* Records and tables of a run. Functions marked [collective] gather from other ranks; rank 0 writes. */
#ifndef TRAIN_REPORT_H
#define TRAIN_REPORT_H

#include "train/run.h"
#include "train/step_times.h"
#include "train/trainer.h"

/* When the target accuracy was first seen. */
typedef struct train_goal {
  bool is_reached;
  int64_t step;
} train_goal;

/* [collective over world] Header lines: ranks, model, where each layer's curvature is (coverage table), memory. Record
 * "run". */
void report_begin(const trainer *t, run *out);

/* Record "step"; loss: mean per example since the last one. */
void report_step(const trainer *t, run *out, double loss);

/* Line and record "epoch" after an evaluation, and a record "layer" for each layer. */
void report_epoch(const trainer *t, run *out, const trainer_score *score);

void report_goal(const trainer *t, train_goal *goal);

/* [collective over world] Record "end", and the tables: stages, traffic, memory, events. times: of this rank, sorted
 * here. */
void report_end(const trainer *t, run *out, const trainer_score *score, const train_goal *goal, step_times *times);

#endif
