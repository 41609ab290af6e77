/* What each step of this process took on this rank: the last ones for the progress line, all for the end record. */
#ifndef TRAIN_STEP_TIMES_H
#define TRAIN_STEP_TIMES_H

#include <stdint.h>

enum { STEP_TIMES_MAX = 65536 };

/* All zeros: none yet. A long run keeps its last STEP_TIMES_MAX steps. */
typedef struct step_times {
  float s[STEP_TIMES_MAX]; /* of step i at i % STEP_TIMES_MAX */
  float sorted[STEP_TIMES_MAX];
  int64_t n;
} step_times;

void step_times_add(step_times *times, double seconds);

/* The least of the last `last` times that share (0 to 1) of them do not exceed; NaN without any. */
double step_times_quantile(step_times *times, int64_t last, double share);

#endif
