/* One typed table is the source of flags, config file, environment, help and checks.
 * A row says name, type, unit, range, default and meaning, and where in a struct the value lives. */
#ifndef CV_BASE_OPTIONS_H
#define CV_BASE_OPTIONS_H

#include "base/schedule.h"
#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { CV_OPTION_TEXT_MAX = 512 }; /* bytes of a CV_OPTION_TEXT value with its NUL */

typedef enum cv_option_type {
  CV_OPTION_INTEGER, /* int64_t; "12", "-1"; no fraction, no trailing characters */
  CV_OPTION_REAL,    /* double; "1e-3"; finite */
  CV_OPTION_SWITCH,  /* bool; true|false|yes|no|on|off|1|0 */
  CV_OPTION_CHOICE,  /* int32_t: position in the list `choices` */
  CV_OPTION_TEXT,    /* char[CV_OPTION_TEXT_MAX] */
  CV_OPTION_SCHEDULE /* cv_schedule */
} cv_option_type;

typedef struct cv_option {
  const char *name; /* one word: key in a file, --name with '_' as '-', CURVD_NAME in the environment */
  cv_option_type type;
  const char *group;   /* heading in the help */
  const char *unit;    /* "" when it has none */
  double min, max;     /* inclusive; of INTEGER, REAL and each value of a SCHEDULE */
  const char *choices; /* CHOICE: "a|b|c". INTEGER, REAL, SCHEDULE: words that stand for a value, which may lie outside
                        * the range ("auto=-1"), or NULL */
  const char *initial; /* default, as text */
  const char *help;    /* one sentence */
  size_t offset;       /* of the value in the settings struct */
} cv_option;

/* Are two names the same? '-' and '_' are. */
bool cv_option_same_name(const char *x, const char *y);

/* Row with this name; '-' and '_' are the same. NULL when there is none. */
const cv_option *cv_option_find(const cv_option *table, int n, const char *name);

/* Checks text against the row and stores it at (char *)settings + offset. settings may be NULL: only checks.
 * CURVD_ERR_OPTION: a sentence with name, value, what is allowed. */
curvd_status cv_option_set(const cv_option *option, void *settings, const char *text, cv_error *err);

/* Stores every row's default. */
curvd_status cv_options_defaults(const cv_option *table, int n, void *settings, cv_error *err);

/* UTF-8 without control characters and ends of lines. */
bool cv_text_is_printable(const char *text);

/* The nearest of n names (edit distance at most 2 and less than half of the length), NULL when none is near. */
const char *cv_nearest_name(const char *word, const char *const *names, int n);

/* "integer", "real", "switch", "choice", "text", "schedule" */
const char *cv_option_type_name(cv_option_type type);

/* Allowed values as text: "[0, 1]", ">= 0", ">= 0 or auto", "kfac|rs-kfac", "any". */
void cv_option_range(const cv_option *option, char *text, size_t size);

#endif
