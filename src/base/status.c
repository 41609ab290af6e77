#include "base/status.h"

#include <assert.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

static const struct {
  curvd_status code;
  const char *name, *text;
} statuses[] = {
#define STATUS_ROW(name, value, text) {name, #name, text},
    CURVD_STATUS_LIST(STATUS_ROW)
#undef STATUS_ROW
};

curvd_status cv_fail(cv_error *err, curvd_status code, const char *format, ...) {
  assert(code != CURVD_OK);
  if (err == NULL || err->code != CURVD_OK) return code;
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(err->text, sizeof err->text, format, arguments);
  va_end(arguments);
  /* a word of a hostile file may be quoted, but not obeyed by a terminal or taken for a further line of a log */
  for (char *c = err->text; *c != '\0'; c++)
    if ((unsigned char)*c < ' ' || *c == 127) *c = '?';
  err->code = code;
  return code;
}

void cv_error_clear(cv_error *err) {
  if (err == NULL) return;
  err->code = CURVD_OK;
  err->text[0] = '\0';
}

const char *cv_status_name(curvd_status code) {
  for (size_t i = 0; i < sizeof statuses / sizeof statuses[0]; i++)
    if (statuses[i].code == code) return statuses[i].name;
  return "CURVD_ERR_UNKNOWN";
}

const char *cv_status_text(curvd_status code) {
  for (size_t i = 0; i < sizeof statuses / sizeof statuses[0]; i++)
    if (statuses[i].code == code) return statuses[i].text;
  return "an unknown status code";
}
