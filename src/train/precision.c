#include "train/precision.h"

#include <string.h>

static const struct {
  const char *option, *use;
} uses[PRECISION_USES] = {{"train_precision", "training"},
                          {"refresh_precision", "refresh"},
                          {"statistics_precision", "statistics"},
                          {"apply_precision", "apply"},
                          {"wire_precision", "wire"}};

/* A library's option has no text before its plan. */
static const char *text_or(const char *text, const char *otherwise) {
  return text == NULL || text[0] == '\0' ? otherwise : text;
}

const char *precision_option(int use) {
  return uses[use].option;
}

const char *precision_use(int use) {
  return uses[use].use;
}

const char *precision_of(const config *c, int use) {
  return text_or(config_text(c, uses[use].option), "fp32");
}

curvd_status precision_unit(const config *c, const cv_unit **unit, cv_error *err) {
  return cv_unit_find(text_or(config_text(c, "matrix_unit"), "auto"), unit, err);
}

const char *precision_asked(const config *c) {
  for (int i = 0; i < PRECISION_PRODUCTS; i++)
    if (strcmp(precision_of(c, i), "fp32") != 0) return uses[i].option;
  return NULL;
}
