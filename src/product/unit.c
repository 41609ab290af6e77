#include "product/unit.h"

#include <stdio.h>
#include <string.h>

const cv_unit *const cv_units[] = {
#ifdef __x86_64__
    &cv_unit_amx,      &cv_unit_avx512_bf16,
    &cv_unit_avx512,   &cv_unit_avx2,
#endif
    &cv_unit_portable, NULL};

void cv_unit_list(int64_t size, char *text) {
  text[0] = 0;
  for (int i = 0; cv_units[i]; i++) {
    int64_t used = (int64_t)strlen(text);
    if (cv_units[i]->is_there())
      snprintf(text + used, (size_t)(size - used), "%s%s", used > 0 ? ", " : "", cv_units[i]->name);
  }
}

curvd_status cv_unit_find(const char *name, const cv_unit **unit, cv_error *err) {
  bool is_auto = strcmp(name, "auto") == 0;
  char there[128];
  for (int i = 0; cv_units[i]; i++) {
    if (!is_auto && strcmp(cv_units[i]->name, name) != 0) continue;
    if (!cv_units[i]->is_there()) continue;
    *unit = cv_units[i];
    return CURVD_OK;
  }
  cv_unit_list(sizeof there, there);
  return cv_fail(err, CURVD_ERR_OPTION, "this machine has no matrix unit '%.40s'; it has %s", name, there);
}
