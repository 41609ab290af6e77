/* What the tables of commands and options say, as a man page, as Markdown, and as completion for shells. */
#ifndef TRAIN_MANUAL_H
#define TRAIN_MANUAL_H

#include "train/config.h"

#include <stdio.h>

/* format: man, markdown, bash or zsh. OPTION: none of them. */
curvd_status manual_print(FILE *out, const char *format, cv_error *err);

/* Parts of it. c: all options at their defaults. */
void manual_man(FILE *out, const config *c);
void manual_markdown(FILE *out, const config *c);
void manual_bash(FILE *out, const config *c);
void manual_zsh(FILE *out, const config *c);

#endif
