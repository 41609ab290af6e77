#include "base/number.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* strtod and strtoll take more than we do; this says what may stand in text at all. */
static bool has_only(const char *text, const char *allowed) {
  return text[0] != '\0' && text[strspn(text, allowed)] == '\0';
}

bool cv_integer_parse(const char *text, int64_t *value) {
  if (!has_only(text, "0123456789+-")) return false;
  char *end;
  errno = 0;
  long long parsed = strtoll(text, &end, 10);
  if (errno == ERANGE || end == text || *end != '\0') return false;
  *value = parsed;
  return true;
}

bool cv_real_parse(const char *text, double *value) {
  if (!has_only(text, "0123456789+-.eE")) return false;
  char *end;
  double parsed = strtod(text, &end);
  if (end == text || *end != '\0' || !isfinite(parsed)) return false;
  *value = parsed;
  return true;
}
