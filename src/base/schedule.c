#include "base/schedule.h"

#include "base/number.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { PIECE_TEXT_MAX = 64 };

/* Copies one piece without the blanks around it; false when it is empty or too long. */
static bool piece_copy(const char *begin, size_t n, char copy[PIECE_TEXT_MAX]) {
  while (n > 0 && (*begin == ' ' || *begin == '\t')) begin++, n--;
  while (n > 0 && (begin[n - 1] == ' ' || begin[n - 1] == '\t')) n--;
  if (n == 0 || n >= PIECE_TEXT_MAX) return false;
  memcpy(copy, begin, n);
  copy[n] = '\0';
  return true;
}

/* Reads "25e" or "7000". */
static bool start_parse(char *text, double *from, bool *is_epoch) {
  size_t n = strlen(text);
  *is_epoch = n > 0 && text[n - 1] == 'e';
  if (*is_epoch) {
    text[n - 1] = '\0';
    return cv_real_parse(text, from);
  }
  int64_t step;
  if (!cv_integer_parse(text, &step)) return false;
  *from = (double)step;
  return true;
}

/* Start of the last piece so far with the unit; the first value starts both units at 0. */
static double last_start(const cv_schedule *schedule, bool is_epoch) {
  double last = 0;
  for (int i = 0; i < schedule->n; i++)
    if (schedule->piece[i].is_epoch == is_epoch) last = schedule->piece[i].from;
  return last;
}

static curvd_status piece_add(char *text, double min, double max, cv_schedule *schedule, cv_error *err) {
  char *start = strchr(text, '@');
  double value, from = 0;
  bool is_epoch = false;
  if (start != NULL) *start++ = '\0';
  if (!cv_real_parse(text, &value)) return cv_fail(err, CURVD_ERR_OPTION, "'%s' is not a number", text);
  if (value < min || value > max) return cv_fail(err, CURVD_ERR_OPTION, "%g is out of range", value);
  if ((start == NULL) != (schedule->n == 0))
    return cv_fail(err, CURVD_ERR_OPTION,
                   "the first value stands alone and every later one says when it starts, "
                   "as in \"0.1, 0.05@25e, 0.01@7000\" (epoch 25, step 7000)");
  if (start != NULL && !start_parse(start, &from, &is_epoch))
    return cv_fail(err, CURVD_ERR_OPTION, "'@%s' is not a step (@7000) or an epoch (@25e)", start);
  if (start != NULL && from <= last_start(schedule, is_epoch))
    return cv_fail(err, CURVD_ERR_OPTION, "start %g%s does not come after the one before it", from,
                   is_epoch ? "e" : "");
  schedule->piece[schedule->n].value = value;
  schedule->piece[schedule->n].from = from;
  schedule->piece[schedule->n].is_epoch = is_epoch;
  schedule->n++;
  return CURVD_OK;
}

curvd_status cv_schedule_parse(const char *text, double min, double max, cv_schedule *schedule, cv_error *err) {
  cv_schedule made = {.n = 0};
  char piece[PIECE_TEXT_MAX];
  for (const char *begin = text;; begin++) {
    size_t n = strcspn(begin, ",");
    if (made.n == CV_SCHEDULE_MAX) return cv_fail(err, CURVD_ERR_OPTION, "more than %d values", (int)CV_SCHEDULE_MAX);
    if (!piece_copy(begin, n, piece))
      return cv_fail(err, CURVD_ERR_OPTION, "value %d of the list is empty or longer than %d characters", made.n + 1,
                     PIECE_TEXT_MAX - 1);
    CV_TRY(piece_add(piece, min, max, &made, err));
    begin += n;
    if (*begin == '\0') break;
  }
  *schedule = made;
  return CURVD_OK;
}

/* In steps; 1.1 epochs of 10 steps are 11 steps, although 1.1 * 10 is a little more in binary. */
static double start_of(const cv_schedule *schedule, int i, double steps_per_epoch) {
  double from = schedule->piece[i].from;
  if (!schedule->piece[i].is_epoch) return from;
  return steps_per_epoch > 0 ? from * steps_per_epoch * (1 - 1e-12) : 0x1p1000;
}

double cv_schedule_at(const cv_schedule *schedule, int64_t step, double steps_per_epoch) {
  double value = schedule->piece[0].value;
  for (int i = 1; i < schedule->n; i++) {
    if ((double)step >= start_of(schedule, i, steps_per_epoch)) value = schedule->piece[i].value;
  }
  return value;
}

cv_schedule cv_schedule_constant(double value) {
  cv_schedule schedule = {.n = 1};
  schedule.piece[0].value = value;
  return schedule;
}

double cv_schedule_max(const cv_schedule *schedule) {
  double max = schedule->piece[0].value;
  for (int i = 1; i < schedule->n; i++)
    if (schedule->piece[i].value > max) max = schedule->piece[i].value;
  return max;
}

double cv_schedule_min(const cv_schedule *schedule) {
  double min = schedule->piece[0].value;
  for (int i = 1; i < schedule->n; i++)
    if (schedule->piece[i].value < min) min = schedule->piece[i].value;
  return min;
}

/* The next step after `step` in which a piece starts; INT64_MAX without one that a run could reach. */
static int64_t next_start(const cv_schedule *schedule, int64_t step, double steps_per_epoch) {
  double next = 0x1p62;
  for (int i = 1; i < schedule->n; i++) {
    double from = ceil(start_of(schedule, i, steps_per_epoch));
    if (from > (double)step && from < next) next = from;
  }
  return next < 0x1p62 ? (int64_t)next : INT64_MAX;
}

int64_t cv_schedule_least_gap(const cv_schedule *schedule, double steps_per_epoch) {
  int64_t least = INT64_MAX, last = 0; /* due */
  for (int64_t from = 0, until; from < INT64_MAX; from = until) {
    int64_t every = (int64_t)cv_schedule_at(schedule, from, steps_per_epoch);
    int64_t after = from > last ? from : last + 1, first = (after + every - 1) / every * every;
    until = next_start(schedule, from, steps_per_epoch);
    if (first >= until) continue;
    if (first - last < least) least = first - last;
    last = (until - 1) / every * every;
    if (last > first && every < least) least = every;
  }
  return least;
}
