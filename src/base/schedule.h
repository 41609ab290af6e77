/* A number that changes over the run: "0.1, 0.05@25e, 0.01@7000" is 0.1 from the start, 0.05 from epoch 25,
 * 0.01 from step 7000. Used for damping, intervals, ranks, learning rates. */
#ifndef CV_BASE_SCHEDULE_H
#define CV_BASE_SCHEDULE_H

#include "base/status.h"

#include <stdbool.h>
#include <stdint.h>

enum { CV_SCHEDULE_MAX = 24 };

typedef struct cv_schedule {
  int n; /* pieces, >= 1 after a successful parse */
  struct {
    double value;
    double from;            /* first step, or first epoch (may be a fraction) */
    bool is_epoch;          /* unit of from */
  } piece[CV_SCHEDULE_MAX]; /* in the order given; from strictly increases within each unit */
} cv_schedule;

/* Parses text; every value must lie in [min, max]; outputs only on success. CURVD_ERR_OPTION says what is wrong. */
curvd_status cv_schedule_parse(const char *text, double min, double max, cv_schedule *schedule, cv_error *err);

/* Value at step (0-based): the last piece in the list whose start has come. steps_per_epoch <= 0: pieces in epochs
 * never start. */
double cv_schedule_at(const cv_schedule *schedule, int64_t step, double steps_per_epoch);

/* A schedule of one value. */
cv_schedule cv_schedule_constant(double value);

/* Largest (to size workspace) and smallest value in the schedule. */
double cv_schedule_max(const cv_schedule *schedule);
double cv_schedule_min(const cv_schedule *schedule);

/* Of a schedule of intervals, integers >= 1: something is due in every step that is a multiple of the step's value,
 * step 0 included. Least distance of two steps in which it is due: where the interval changes, that may be below both.
 */
int64_t cv_schedule_least_gap(const cv_schedule *schedule, double steps_per_epoch);

#endif
