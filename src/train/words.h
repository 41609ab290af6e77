/* Words of the command line that belong to one command alone, taken out before the configuration reads the rest; and
 * words for the terminal. */
#ifndef TRAIN_WORDS_H
#define TRAIN_WORDS_H

#include "base/status.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

typedef struct words {
  int argc;
  char **argv;
} words;

/* "--name": is it there? */
bool words_take_switch(words *w, const char *name);

/* "--name TEXT" or "--name=TEXT", which stays in argv; *value stays as it is without. OPTION: it is missing or empty.
 */
curvd_status words_take_text(words *w, const char *name, const char **value, cv_error *err);

/* "--name VALUE" or "--name=VALUE": an integer of [least, most]; *value stays as it is without. OPTION: anything else.
 */
curvd_status words_take_integer(words *w, const char *name, int64_t least, int64_t most, int64_t *value, cv_error *err);

/* Writes text and a newline, broken at blanks before that many columns. What stands in the line already takes `indent`
 * of them; further lines begin with as many blanks. */
void words_wrap(FILE *out, const char *text, int indent, int columns);

#endif
