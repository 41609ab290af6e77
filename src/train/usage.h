/* The words of flags and usages, for help, the manual and completion. A usage is "curvd NAME" and then flags, values of
 * flags, and values alone, in brackets where they may be left out: "curvd plan [--ranks N [--json]] [--name value
 * ...]". "a|b" stands for one of these words, FILE, FILE.html and FOLDER for a path; "--name value" for every option.
 */
#ifndef TRAIN_USAGE_H
#define TRAIN_USAGE_H

#include <stdbool.h>
#include <stddef.h>

typedef struct usage_word {
  char flag[64];   /* "--ranks"; "": a value alone */
  char value[128]; /* "N"; "": a flag without a value */
} usage_word;

/* What follows "curvd NAME". */
const char *usage_words(const char *usage);

/* Takes the next word off *usage; false: there is none. "..." is passed over. */
bool usage_next(const char **usage, usage_word *word);

/* Does it stand for every option? */
bool usage_is_all_options(const usage_word *word);

/* Is the value a path? Those that stand alone are, unless they are a choice. */
bool usage_is_path(const usage_word *word);

/* Is it one of several words? */
bool usage_is_choice(const usage_word *word);

/* "lr_decay" as "--lr-decay". */
void usage_flag(const char *name, char *text, size_t size);

/* Copies text with every '|' replaced by these characters. */
void usage_spread(const char *text, const char *between, char *spread, size_t size);

#endif
