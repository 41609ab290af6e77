/* At the end of a run: what the model of curvd_experimental.h would have said of it, beside what happened. */
#ifndef TRAIN_REPORT_PREDICTION_H
#define TRAIN_REPORT_PREDICTION_H

#include "train/run.h"
#include "train/trainer.h"

/* Seconds of a mean step. */
typedef struct run_measured {
  int64_t steps;
  double step_s;
  double train_s;   /* of a worker, forward and backward and what else the program does itself */
  double sampled_s; /* of it, the second backward pass of sampled targets: not in train_s */
  double worker_s[CURVD_STAGES], most_s[CURVD_STAGES]; /* of the service: mean over the workers, most of any rank */
} run_measured;

/* A line, and the field "predicted" of the record "end". The service's stages are predicted, from the default machine's
 * speeds; what the program does itself is taken as measured. Says nothing when the run cannot be predicted. */
void report_prediction(const trainer *t, const run_measured *measured, run *out, json_t *record);

#endif
