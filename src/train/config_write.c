/* Writes a configuration as YAML that the reader takes back. */
#include "train/config.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

/* May text stand without quotes? Only where no YAML reader could see anything but one scalar. */
static bool is_plain(const char *text) {
  if (!isalnum((unsigned char)text[0]) && !(strchr("./-", text[0]) != NULL && isdigit((unsigned char)text[1])))
    return false;
  for (const char *c = text; *c != '\0'; c++)
    if (!isalnum((unsigned char)*c) && strchr("._/+-@", *c) == NULL) return false;
  return true;
}

/* Appends 'text' with every quote doubled. */
static void quote(const char *text, char *line, size_t size) {
  size_t n = strlen(line);
  line[n++] = '\'';
  for (; *text != '\0' && n + 4 < size; text++) {
    if (*text == '\'') line[n++] = '\'';
    line[n++] = *text;
  }
  line[n++] = '\'';
  line[n] = '\0';
}

static void entry_write(const config_entry *entry, void (*line)(void *user, const char *text), void *user,
                        bool with_origins) {
  char text[3 * CV_OPTION_TEXT_MAX];
  bool follows_ranks = strcmp(entry->name, "capture_rows") == 0,
       is_comment = entry->is_library && !entry->is_set && (follows_ranks || strcmp(entry->origin, "default") == 0);
  snprintf(text, sizeof text, "%s%s: ", is_comment ? "# " : "", entry->name);
  size_t n = strlen(text);
  if (is_plain(entry->text))
    snprintf(text + n, sizeof text - n, "%s", entry->text);
  else
    quote(entry->text, text, sizeof text);
  n = strlen(text);
  if (with_origins) snprintf(text + n, sizeof text - n, "  # %s", entry->origin);
  line(user, text);
}

curvd_status config_write(const config *written, void (*line)(void *user, const char *text), void *user,
                          bool with_origins) {
  const char *group = "";
  for (int i = 0; i < written->n; i++) {
    const config_entry *entry = &written->entry[i];
    if (strcmp(group, entry->info.group) != 0) {
      char heading[80];
      group = entry->info.group;
      snprintf(heading, sizeof heading, "# %.60s", group);
      if (i > 0) line(user, "");
      line(user, heading);
    }
    entry_write(entry, line, user, with_origins);
  }
  return CURVD_OK;
}
