/* The value of an option: the first two bytes choose one of program and library, the others are the text. And the same
 * text as a schedule. */
#include "base/schedule.h"
#include "train/config_parts.h"

#include "fuzz.h"

static void check_schedule(const char *text) {
  cv_error err = {.code = CURVD_OK};
  cv_schedule schedule;
  curvd_status status = cv_schedule_parse(text, 1, 1e9, &schedule, &err); /* the range of all intervals */
  fuzz_outcome(status, &err);
  if (status != CURVD_OK) return;
  double least = cv_schedule_min(&schedule), most = cv_schedule_max(&schedule);
  static const double epochs[] = {0, 1, 351.25, 1e15};
  for (int i = 0; i < 4; i++) {
    for (int64_t step = 0; step < INT64_MAX / 1000; step = 1000 * step + 7) {
      double value = cv_schedule_at(&schedule, step, epochs[i]);
      fuzz_require(value >= least && value <= most, "a schedule stays between its least and its greatest value");
    }
    fuzz_require(cv_schedule_least_gap(&schedule, epochs[i]) >= 1, "two steps are at least one apart");
  }
}

static void check_program(const char *text, unsigned choice) {
  int n;
  const cv_option *table = config_table(&n);
  train_config values;
  cv_error err = {.code = CURVD_OK};
  curvd_status status = cv_option_set(&table[choice % (unsigned)n], &values, text, &err);
  fuzz_outcome(status, &err);
}

static void check_library(const char *text, unsigned choice) {
  curvd_option_info info;
  cv_error err = {.code = CURVD_OK};
  fuzz_require(curvd_option_get((int)(choice % (unsigned)curvd_option_count()), &info) == CURVD_OK,
               "options by number");
  err.code = curvd_option_check(info.name, text, err.text, sizeof err.text);
  fuzz_outcome(err.code, &err);
  curvd_option_check(text, "1", err.text, sizeof err.text);
}

void fuzz_options(const uint8_t *bytes, size_t n_bytes) {
  if (n_bytes < 2) return;
  char *text = fuzz_text(bytes + 2, n_bytes - 2);
  check_program(text, bytes[0]);
  check_library(text, bytes[1]);
  check_schedule(text);
  free(text);
}
