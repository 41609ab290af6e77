/* Status codes, errors, log lines and clocks. */
#include "base/clock.h"
#include "base/log.h"
#include "base/status.h"

#include "suite.h"

#include <stdbool.h>
#include <string.h>
#include <time.h>

START_TEST(test_first_failure_wins) {
  cv_error err = {.code = CURVD_OK};
  ck_assert_int_eq(cv_fail(&err, CURVD_ERR_IO, "file %s, line %d", "a.idx", 7), CURVD_ERR_IO);
  ck_assert_int_eq(cv_fail(&err, CURVD_ERR_DATA, "later"), CURVD_ERR_DATA);
  ck_assert_int_eq(err.code, CURVD_ERR_IO);
  ck_assert_str_eq(err.text, "file a.idx, line 7");
  cv_error_clear(&err);
  ck_assert_int_eq(err.code, CURVD_OK);
  ck_assert_str_eq(err.text, "");
  cv_fail(&err, CURVD_ERR_DATA, "later");
  ck_assert_str_eq(err.text, "later");
}
END_TEST

START_TEST(test_error_without_a_place_keeps_the_code) {
  ck_assert_int_eq(cv_fail(NULL, CURVD_ERR_SIZE, "%d", 1), CURVD_ERR_SIZE);
  cv_error_clear(NULL);
}
END_TEST

START_TEST(test_long_sentences_are_cut) {
  char text[2000];
  memset(text, 'x', sizeof text - 1);
  text[sizeof text - 1] = '\0';
  cv_error err = {.code = CURVD_OK};
  cv_fail(&err, CURVD_ERR_IO, "%s", text);
  ck_assert_uint_eq(strlen(err.text), sizeof err.text - 1);
}
END_TEST

START_TEST(test_a_sentence_is_one_line_of_text) {
  cv_error err = {.code = CURVD_OK};
  cv_fail(&err, CURVD_ERR_OPTION, "unknown '%s'", "a\x1b[31m\nb\t\x7f\xc3\xa9");
  ck_assert_str_eq(err.text, "unknown 'a?[31m?b??\xc3\xa9'");
}
END_TEST

static curvd_status fails_when_told(bool fails, int *n_after) {
  CV_TRY(fails ? CURVD_ERR_LAYOUT : CURVD_OK);
  ++*n_after;
  return CURVD_OK;
}

START_TEST(test_try_forwards) {
  int n_after = 0;
  ck_assert_int_eq(fails_when_told(true, &n_after), CURVD_ERR_LAYOUT);
  ck_assert_int_eq(n_after, 0);
  ck_assert_int_eq(fails_when_told(false, &n_after), CURVD_OK);
  ck_assert_int_eq(n_after, 1);
}
END_TEST

START_TEST(test_names_and_texts) {
  ck_assert_str_eq(cv_status_name(CURVD_OK), "CURVD_OK");
  ck_assert_str_eq(cv_status_name(CURVD_ERR_DATA), "CURVD_ERR_DATA");
  ck_assert_str_eq(cv_status_text(CURVD_ERR_MEMORY), "out of memory");
  for (int code = CURVD_OK; code >= CURVD_ERR_REMOTE; code--)
    for (int other = CURVD_OK; other > code; other--) {
      ck_assert_str_ne(cv_status_name((curvd_status)code), cv_status_name((curvd_status)other));
      ck_assert_str_ne(cv_status_text((curvd_status)code), cv_status_text((curvd_status)other));
    }
  ck_assert_str_eq(cv_status_name((curvd_status)99), "CURVD_ERR_UNKNOWN");
  ck_assert_ptr_nonnull(cv_status_text((curvd_status)99));
}
END_TEST

typedef struct heard {
  int n, level;
  char line[2048];
} heard;

static void hear(void *user, int level, const char *line) {
  heard *h = user;
  h->n++;
  h->level = level;
  strncpy(h->line, line, sizeof h->line - 1);
}

START_TEST(test_log_levels) {
  heard h = {.n = 0};
  cv_log log = {.write = hear, .user = &h, .level = CV_LOG_NOTE};
  cv_log_line(&log, CV_LOG_DEBUG, "dropped");
  ck_assert_int_eq(h.n, 0);
  cv_log_line(&log, CV_LOG_NOTE, "layer %s rank %d", "fc1", 3);
  ck_assert_int_eq(h.n, 1);
  ck_assert_int_eq(h.level, 2);
  ck_assert_str_eq(h.line, "layer fc1 rank 3");
  cv_log_line(&log, CV_LOG_WARNING, "w");
  ck_assert_int_eq(h.n, 2);
  log.level = 0;
  cv_log_line(&log, CV_LOG_WARNING, "w");
  ck_assert_int_eq(h.n, 2);
  cv_log_line(&(cv_log){.level = CV_LOG_DEBUG}, CV_LOG_WARNING, "silent");
  cv_log_line(NULL, CV_LOG_WARNING, "silent");
}
END_TEST

START_TEST(test_clocks) {
  struct timespec pause = {.tv_nsec = 30000000};
  cv_stage stage = {.calls = 0};
  cv_stage_begin(&stage);
  nanosleep(&pause, NULL);
  cv_stage_end(&stage);
  ck_assert_double_ge(stage.wall_s, 0.0299);
  ck_assert_double_lt(stage.cpu_s, 0.0299); /* sleeping costs no CPU */
  double slept_s = stage.wall_s;
  double begin = cv_cpu_s();
  cv_stage_begin(&stage);
  while (cv_cpu_s() - begin < 0.02) continue;
  cv_stage_end(&stage);
  ck_assert_double_ge(stage.cpu_s, 0.0199);
  ck_assert_double_gt(stage.wall_s, slept_s);
  ck_assert_int_eq(stage.calls, 2);
}
END_TEST

int main(void) {
  const TTest *const tests[] = {
      test_first_failure_wins,
      test_error_without_a_place_keeps_the_code,
      test_long_sentences_are_cut,
      test_a_sentence_is_one_line_of_text,
      test_try_forwards,
      test_names_and_texts,
      test_log_levels,
      test_clocks,
  };
  return suite_run("status", tests, sizeof tests / sizeof tests[0], NULL);
}
