/* Clocks and stage counters. */
#ifndef CV_BASE_CLOCK_H
#define CV_BASE_CLOCK_H

#include "base/trace.h"

#include <stdint.h>

double cv_wall_s(void); /* monotonic */
int64_t cv_wall_ns(void);
double cv_cpu_s(void); /* CPU seconds of this process, all threads */

/* Seconds spent in one stage: add up intervals between begin and end. */
typedef struct cv_stage {
  double wall_s, cpu_s;
  int64_t calls;
  double wall_begin, cpu_begin;
  cv_trace *trace; /* NULL; or where it is recorded, as `name` */
  const char *name;
  uint64_t operation;
} cv_stage;

void cv_stage_begin(cv_stage *stage);
void cv_stage_end(cv_stage *stage);

#endif
