/* What tests of `curvd doctor` share: the finding that a check has just added. */
#ifndef TESTS_UNIT_DOCTOR_FIXTURE_H
#define TESTS_UNIT_DOCTOR_FIXTURE_H

#include "train/commands.h"
#include "train/doctor.h"

#include <check.h>
#include <string.h>

static doctor_findings found;

static inline void forget(void) {
  found.n = 0;
}

/* One line since the last look, of that level and name, with these words in it. Warnings and errors have a cure: more
 * than one clause. */
static inline void assert_line(doctor_level level, const char *name, const char *words) {
  ck_assert_int_eq(found.n, 1);
  const doctor_line *line = &found.line[0];
  ck_assert_msg(line->level == level, "%s, not %s: %s", doctor_level_name(line->level), doctor_level_name(level),
                line->text);
  ck_assert_str_eq(line->name, name);
  ck_assert_msg(strstr(line->text, words) != NULL, "not '%s' in '%s'", words, line->text);
  if (level != DOCTOR_OK) ck_assert_msg(strpbrk(line->text, ";:") != NULL, "no cure in '%s'", line->text);
  ck_assert_int_eq(line->code == EXIT_CODE_OK, level != DOCTOR_ERROR);
  forget();
}

#endif
