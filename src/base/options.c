#include "base/options.h"

#include "base/number.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WORD_MAX = 64 }; /* longest word that spelling help looks at */

static char folded(char c) {
  return c == '-' ? '_' : c;
}

bool cv_option_same_name(const char *x, const char *y) {
  while (*x != '\0' && folded(*x) == folded(*y)) x++, y++;
  return *x == '\0' && *y == '\0';
}

const cv_option *cv_option_find(const cv_option *table, int n, const char *name) {
  for (int i = 0; i < n; i++)
    if (cv_option_same_name(table[i].name, name)) return &table[i];
  return NULL;
}

/* Position of text in "a|b|c"; -1: not there. */
static int choice_index(const char *choices, const char *text) {
  size_t n = strlen(text);
  int index = 0;
  for (const char *word = choices;; word++, index++) {
    size_t n_word = strcspn(word, "|");
    if (n_word == n && memcmp(word, text, n) == 0) return index;
    word += n_word;
    if (*word == '\0') return -1;
  }
}

/* Value of text in "auto=-1|all=0". */
static bool word_value(const char *words, const char *text, double *value) {
  size_t n = strlen(text);
  for (const char *word = words; word != NULL; word = strchr(word, '|')) {
    if (*word == '|') word++;
    if (strncmp(word, text, n) == 0 && word[n] == '=') {
      *value = strtod(word + n + 1, NULL);
      return true;
    }
  }
  return false;
}

static bool switch_parse(const char *text, bool *value) {
  static const char *const words[] = {"false", "true", "no", "yes", "off", "on", "0", "1"};
  for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
    if (strcmp(words[i], text) == 0) {
      *value = i % 2 == 1;
      return true;
    }
  return false;
}

/* Bytes of the UTF-8 character at text, and its number; 0: there is none, it is cut, or longer than it need be. */
static int character_at(const unsigned char *text, uint32_t *number) {
  static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
  int n = text[0] < 0x80 ? 1 : text[0] >> 5 == 6 ? 2 : text[0] >> 4 == 14 ? 3 : text[0] >> 3 == 30 ? 4 : 0;
  *number = n < 2 ? text[0] : text[0] & (0x7Fu >> n);
  for (int i = 1; i < n; i++) {
    if (text[i] >> 6 != 2) return 0;
    *number = *number << 6 | (text[i] & 0x3F);
  }
  return n > 0 && *number >= least[n] ? n : 0;
}

/* Neither controls nor what YAML takes for a line's end or for no text: a file must give back what was written. */
static bool is_printable(uint32_t c) {
  if (c < 0x7F) return c >= ' ';
  return c >= 0xA0 && c != 0x2028 && c != 0x2029 && (c < 0xD800 || c >= 0xE000) && c != 0xFEFF && c != 0xFFFE &&
         c != 0xFFFF && c <= 0x10FFFF;
}

bool cv_text_is_printable(const char *text) {
  const unsigned char *at = (const unsigned char *)text;
  uint32_t number;
  for (int n; *at != '\0'; at += n) {
    n = character_at(at, &number);
    if (n == 0 || !is_printable(number)) return false;
  }
  return true;
}

static curvd_status refuse(const cv_option *option, const char *text, const char *why, cv_error *err) {
  char range[160];
  cv_option_range(option, range, sizeof range);
  return cv_fail(err, CURVD_ERR_OPTION, "%s = '%.80s': %s%sexpected %s, %s", option->name, text, why, *why ? "; " : "",
                 cv_option_type_name(option->type), range);
}

static bool in_range(const cv_option *option, double value) {
  return value >= option->min && value <= option->max;
}

static void store(const cv_option *option, void *settings, const void *value, size_t size) {
  if (settings != NULL) memcpy((char *)settings + option->offset, value, size);
}

static curvd_status set_integer(const cv_option *option, void *settings, const char *text, cv_error *err) {
  int64_t value;
  double word;
  if (word_value(option->choices, text, &word))
    value = (int64_t)word;
  else if (!cv_integer_parse(text, &value) || !in_range(option, (double)value))
    return refuse(option, text, "", err);
  store(option, settings, &value, sizeof value);
  return CURVD_OK;
}

static curvd_status set_real(const cv_option *option, void *settings, const char *text, cv_error *err) {
  double value;
  if (!word_value(option->choices, text, &value) && (!cv_real_parse(text, &value) || !in_range(option, value)))
    return refuse(option, text, "", err);
  store(option, settings, &value, sizeof value);
  return CURVD_OK;
}

static curvd_status set_schedule(const cv_option *option, void *settings, const char *text, cv_error *err) {
  cv_schedule value;
  cv_error why = {.code = CURVD_OK};
  double word;
  if (word_value(option->choices, text, &word))
    value = cv_schedule_constant(word);
  else if (cv_schedule_parse(text, option->min, option->max, &value, &why) != CURVD_OK)
    return refuse(option, text, why.text, err);
  store(option, settings, &value, sizeof value);
  return CURVD_OK;
}

static curvd_status set_text(const cv_option *option, void *settings, const char *text, cv_error *err) {
  char value[CV_OPTION_TEXT_MAX] = "";
  size_t n = strlen(text);
  if (n >= sizeof value || !cv_text_is_printable(text)) return refuse(option, text, "", err);
  memcpy(value, text, n + 1);
  store(option, settings, value, sizeof value);
  return CURVD_OK;
}

curvd_status cv_option_set(const cv_option *option, void *settings, const char *text, cv_error *err) {
  switch (option->type) {
  case CV_OPTION_INTEGER:
    return set_integer(option, settings, text, err);
  case CV_OPTION_REAL:
    return set_real(option, settings, text, err);
  case CV_OPTION_SCHEDULE:
    return set_schedule(option, settings, text, err);
  case CV_OPTION_TEXT:
    return set_text(option, settings, text, err);
  case CV_OPTION_SWITCH: {
    bool value;
    if (!switch_parse(text, &value)) return refuse(option, text, "", err);
    store(option, settings, &value, sizeof value);
    return CURVD_OK;
  }
  case CV_OPTION_CHOICE: {
    int32_t value = choice_index(option->choices, text);
    if (value < 0) return refuse(option, text, "", err);
    store(option, settings, &value, sizeof value);
    return CURVD_OK;
  }
  }
  return cv_fail(err, CURVD_ERR_ARGUMENT, "option %s has no known type (%d)", option->name, (int)option->type);
}

curvd_status cv_options_defaults(const cv_option *table, int n, void *settings, cv_error *err) {
  for (int i = 0; i < n; i++) CV_TRY(cv_option_set(&table[i], settings, table[i].initial, err));
  return CURVD_OK;
}

static int min_of(int x, int y) {
  return x < y ? x : y;
}

/* Letters to insert, delete, replace or swap with their neighbour to get from x to y, '-' and '_' being the same;
 * WORD_MAX when a word is too long to be a slip. */
static int edit_distance(const char *x, const char *y) {
  int row[3][WORD_MAX + 1]; /* row[i % 3][j]: distance of the first i characters of x to the first j of y */
  int m = (int)strnlen(x, WORD_MAX), n = (int)strnlen(y, WORD_MAX);
  if (m == WORD_MAX || n == WORD_MAX) return WORD_MAX;
  for (int j = 0; j <= n; j++) row[0][j] = j;
  for (int i = 1; i <= m; i++) {
    int *now = row[i % 3], *above = row[(i + 2) % 3], *two_above = row[(i + 1) % 3];
    now[0] = i;
    for (int j = 1; j <= n; j++) {
      char a = folded(x[i - 1]), b = folded(y[j - 1]);
      now[j] = min_of(above[j - 1] + (a != b), 1 + min_of(above[j], now[j - 1]));
      if (i > 1 && j > 1 && a == folded(y[j - 2]) && b == folded(x[i - 2]))
        now[j] = min_of(now[j], two_above[j - 2] + 1);
    }
  }
  return row[m % 3][n];
}

const char *cv_nearest_name(const char *word, const char *const *names, int n) {
  const char *nearest = NULL;
  int best = min_of(2, ((int)strnlen(word, WORD_MAX) - 1) / 2); /* less than half of the length */
  for (int i = 0; i < n; i++) {
    int distance = edit_distance(word, names[i]);
    if (distance < best || (distance == best && nearest == NULL)) {
      nearest = names[i];
      best = distance;
    }
  }
  return nearest;
}

const char *cv_option_type_name(cv_option_type type) {
  switch (type) {
  case CV_OPTION_INTEGER:
    return "integer";
  case CV_OPTION_REAL:
    return "real";
  case CV_OPTION_SWITCH:
    return "switch";
  case CV_OPTION_CHOICE:
    return "choice";
  case CV_OPTION_TEXT:
    return "text";
  case CV_OPTION_SCHEDULE:
    return "schedule";
  }
  return "?";
}

/* Appends " or auto" for every word of "auto=-1|all=0". */
static void words_append(const char *words, char *text, size_t size) {
  for (const char *word = words; word != NULL && *word != '\0';) {
    size_t n = strlen(text);
    snprintf(text + n, size - n, "%s%.*s", n > 0 ? " or " : "", (int)strcspn(word, "="), word);
    word = strchr(word, '|');
    if (word != NULL) word++;
  }
}

/* A border that nobody reaches is not worth showing. */
static bool is_open(double border) {
  return fabs(border) >= 0x1p53;
}

void cv_option_range(const cv_option *option, char *text, size_t size) {
  switch (option->type) {
  case CV_OPTION_SWITCH:
    snprintf(text, size, "true|false");
    return;
  case CV_OPTION_CHOICE:
    snprintf(text, size, "%s", option->choices);
    return;
  case CV_OPTION_TEXT:
    snprintf(text, size, "at most %d bytes of printable UTF-8", CV_OPTION_TEXT_MAX - 1);
    return;
  default:
    break;
  }
  if (is_open(option->min) && is_open(option->max))
    snprintf(text, size, "any");
  else if (is_open(option->max))
    snprintf(text, size, ">= %.15g", option->min);
  else if (is_open(option->min))
    snprintf(text, size, "<= %.15g", option->max);
  else
    snprintf(text, size, "[%.15g, %.15g]", option->min, option->max);
  words_append(option->choices, text, size);
}
