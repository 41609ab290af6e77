#include "base/clock.h"

#include <time.h>

static double seconds(clockid_t clock) {
  struct timespec now;
  if (clock_gettime(clock, &now) != 0) return 0;
  return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

double cv_wall_s(void) {
  return seconds(CLOCK_MONOTONIC);
}

int64_t cv_wall_ns(void) {
  struct timespec now;
  if (clock_gettime(CLOCK_MONOTONIC, &now) != 0) return 0;
  return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

double cv_cpu_s(void) {
  return seconds(CLOCK_PROCESS_CPUTIME_ID);
}

void cv_stage_begin(cv_stage *stage) {
  stage->operation = cv_trace_begin(stage->trace, CV_TRACE_PHASE, stage->name, NULL, CV_PEER_NONE, 0);
  stage->wall_begin = cv_wall_s();
  stage->cpu_begin = cv_cpu_s();
}

void cv_stage_end(cv_stage *stage) {
  stage->wall_s += cv_wall_s() - stage->wall_begin;
  stage->cpu_s += cv_cpu_s() - stage->cpu_begin;
  stage->calls++;
  cv_trace_end(stage->trace, stage->operation);
}
