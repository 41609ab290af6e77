#include "train/usage.h"

#include <stdio.h>
#include <string.h>

const char *usage_words(const char *usage) {
  usage += strcspn(usage, " ");
  usage += strspn(usage, " ");
  return usage + strcspn(usage, " ");
}

/* Copies the word at *at, and moves behind it. */
static void take(const char **at, char *word, size_t size) {
  int n = (int)strcspn(*at, " []");
  snprintf(word, size, "%.*s", n, *at);
  *at += n;
}

bool usage_next(const char **usage, usage_word *word) {
  *word = (usage_word){.flag = ""};
  do {
    *usage += strspn(*usage, " []");
    if (**usage == '\0') return false;
    take(usage, word->value, sizeof word->value);
  } while (strcmp(word->value, "...") == 0);
  if (word->value[0] != '-') return true;
  snprintf(word->flag, sizeof word->flag, "%.63s", word->value);
  word->value[0] = '\0';
  bool has_value = (*usage)[0] == ' ' && strchr("-[", (*usage)[1]) == NULL;
  if (has_value) {
    *usage += 1;
    take(usage, word->value, sizeof word->value);
  }
  return true;
}

bool usage_is_all_options(const usage_word *word) {
  return strcmp(word->flag, "--name") == 0;
}

bool usage_is_choice(const usage_word *word) {
  return strchr(word->value, '|') != NULL;
}

bool usage_is_path(const usage_word *word) {
  bool is_named = strncmp(word->value, "FILE", 4) == 0 || strncmp(word->value, "FOLDER", 6) == 0;
  return is_named || (word->flag[0] == '\0' && !usage_is_choice(word));
}

void usage_flag(const char *name, char *text, size_t size) {
  snprintf(text, size, "--%s", name);
  for (char *c = text; *c != '\0'; c++)
    if (*c == '_') *c = '-';
}

void usage_spread(const char *text, const char *between, char *spread, size_t size) {
  size_t n = 0, n_between = strlen(between);
  for (; *text != '\0' && n + n_between + 1 < size; text++) {
    bool is_bar = *text == '|';
    memcpy(spread + n, is_bar ? between : text, is_bar ? n_between : 1);
    n += is_bar ? n_between : 1;
  }
  spread[n] = '\0';
}
