#include "page/settings.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

static bool is_name_character(char c) {
  return islower((unsigned char)c) || isdigit((unsigned char)c) || c == '_';
}

/* Appends c to text of that size, or drops it. */
static void append(char *text, size_t size, size_t *n, char c) {
  if (*n + 1 < size) text[(*n)++] = c;
  text[*n] = '\0';
}

/* 'quoted', with quotes doubled in it, or up to two blanks and a comment. Returns where it ends. */
static const char *read_value(const char *c, const char *end, char value[SETTING_TEXT_MAX]) {
  size_t n = 0;
  bool is_quoted = c < end && *c == '\'';
  value[0] = '\0';
  for (c += is_quoted; c < end; c++) {
    if (is_quoted && *c == '\'' && !(c + 1 < end && c[1] == '\'')) return c + 1;
    if (is_quoted && *c == '\'') c++;
    if (!is_quoted && end - c >= 3 && strncmp(c, "  #", 3) == 0) return c;
    append(value, SETTING_TEXT_MAX, &n, *c);
  }
  return end;
}

/* "[# ]name: value[  # origin]" */
static bool read_line(const char *c, const char *end, setting *read) {
  size_t n = 0;
  bool is_comment = end - c >= 2 && strncmp(c, "# ", 2) == 0;
  *read = (setting){.name = ""};
  if (is_comment) c += 2;
  for (; c < end && is_name_character(*c); c++) append(read->name, SETTING_NAME_MAX, &n, *c);
  if (n == 0 || end - c < 2 || strncmp(c, ": ", 2) != 0) return false;
  c = read_value(c + 2, end, read->value);
  while (c < end && (*c == ' ' || *c == '#')) c++;
  for (n = 0; c < end; c++) append(read->origin, SETTING_TEXT_MAX, &n, *c);
  read->is_chosen = !is_comment && strcmp(read->origin, "default") != 0 && strcmp(read->origin, "recipe") != 0;
  return true;
}

curvd_status settings_parse(const char *bytes, int64_t n, settings *s, cv_error *err) {
  *s = (settings){.entry = calloc(SETTINGS_MAX, sizeof *s->entry)};
  if (s->entry == NULL) return cv_fail(err, CURVD_ERR_MEMORY, "no memory for a configuration");
  for (int64_t at = 0; at < n && s->n < SETTINGS_MAX;) {
    const char *line = bytes + at, *end = memchr(line, '\n', (size_t)(n - at));
    if (end == NULL) end = bytes + n;
    at = end - bytes + 1;
    s->n += read_line(line, end, &s->entry[s->n]);
  }
  return CURVD_OK;
}

void settings_free(settings *s) {
  free(s->entry);
  *s = (settings){.n = 0};
}

const setting *settings_find(const settings *s, const char *name) {
  for (int i = 0; i < s->n; i++)
    if (strcmp(s->entry[i].name, name) == 0) return &s->entry[i];
  return NULL;
}
