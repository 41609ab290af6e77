#include "train/manual.h"

#include <string.h>

static const struct {
  const char *name;
  void (*print)(FILE *out, const config *c);
} formats[] = {{"man", manual_man}, {"markdown", manual_markdown}, {"bash", manual_bash}, {"zsh", manual_zsh}};
enum { N_FORMATS = sizeof formats / sizeof formats[0] };

curvd_status manual_print(FILE *out, const char *format, cv_error *err) {
  config defaults;
  for (int i = 0; i < N_FORMATS && format != NULL; i++) {
    if (strcmp(format, formats[i].name) != 0) continue;
    CV_TRY(config_defaults(&defaults, err));
    formats[i].print(out, &defaults);
    config_free(&defaults);
    return CURVD_OK;
  }
  return cv_fail(err, CURVD_ERR_OPTION, "--format: expected man, markdown, bash or zsh, not '%.60s'",
                 format != NULL ? format : "");
}
