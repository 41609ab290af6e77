/* The lines of a run's config.yaml as they were written (config_write): name, value in force, and where it came from.
 */
#ifndef PAGE_SETTINGS_H
#define PAGE_SETTINGS_H

#include "base/status.h"

#include <stdbool.h>
#include <stdint.h>

enum { SETTINGS_MAX = 256, SETTING_TEXT_MAX = 512, SETTING_NAME_MAX = 64 };

typedef struct setting {
  char name[SETTING_NAME_MAX], value[SETTING_TEXT_MAX], origin[SETTING_TEXT_MAX];
  bool is_chosen; /* by somebody, not by the program: no default, no recipe, no comment */
} setting;

/* All zeros: none. */
typedef struct settings {
  setting *entry;
  int n;
} settings;

/* Lines of another form are passed over: the page shows a configuration, it does not run it. MEMORY. */
curvd_status settings_parse(const char *bytes, int64_t n, settings *s, cv_error *err);
void settings_free(settings *s);

/* NULL: it is not there. */
const setting *settings_find(const settings *s, const char *name);

#endif
