#include "train/report_precision.h"

#include "train/precision.h"

#include <stdio.h>
#include <string.h>

static const char *unit_of(const trainer *t) {
  return t->model.by.unit != NULL ? t->model.by.unit->name : curvd_matrix_unit(t->ctx);
}

/* Has all of a convolution's results been asked for in bf16, and is one of them not? */
static bool stays_fp32(const nn_layer *layer) {
  bool stays = false;
  if (layer->spec.kind != NN_CONV || layer->by.precision == CV_FP32) return false;
  for (int r = 0; r < NN_CONV_RESULTS; r++) {
    cv_precision precision;
    layer->kernels->conv_kernel(layer->state, (nn_conv_result)r, &precision);
    stays = stays || precision == CV_FP32;
  }
  return stays;
}

static json_t *fp32_convolutions(const trainer *t) {
  json_t *names = json_array();
  for (int i = 0; i < t->model.spec.n_layers; i++)
    if (stays_fp32(&t->model.layer[i])) json_array_append_new(names, json_string(t->model.layer[i].spec.name));
  return names;
}

static const char *why_fp32(const trainer *t) {
  if (t->model.by.precision == CV_BF16X3) return "bf16x3 is for fully connected layers";
  if (strcmp(t->model.layer[0].kernels->name, "onednn") != 0) return "the plain kernels know nothing else";
  return "oneDNN has no faster kernels for them on this unit";
}

static void list_convolutions(const trainer *t, run *out, json_t *names) {
  enum { LISTED = 4 };
  size_t n = json_array_size(names);
  char list[LISTED * (NN_NAME_MAX + 2) + 32] = "";
  for (size_t i = 0; i < n && i < LISTED; i++) {
    size_t at = strlen(list);
    snprintf(list + at, sizeof list - at, "%s%s", i > 0 ? ", " : "", json_string_value(json_array_get(names, i)));
  }
  size_t at = strlen(list);
  if (n > LISTED) snprintf(list + at, sizeof list - at, " and %zu more", n - LISTED);
  if (n > 0) run_line(out, "note: convolutions that stay fp32, at least in part: %s; %s", list, why_fp32(t));
}

void report_precision(const trainer *t, run *out, json_t *record) {
  char line[160] = "products:";
  const char *unit = unit_of(t);
  for (int i = 0; i < PRECISION_USES; i++) {
    const char *value = precision_of(t->config, i);
    size_t at = strlen(line);
    if (i < PRECISION_PRODUCTS)
      snprintf(line + at, sizeof line - at, "%s %s %s", i > 0 ? "," : "", precision_use(i), value);
    json_object_set_new(record, precision_option(i), json_string(value));
  }
  json_object_set_new(record, "matrix_unit", json_string(unit));
  run_line(out, "%s%s%s; between ranks %s", line, unit[0] != '\0' ? " on " : "", unit,
           precision_of(t->config, PRECISION_PRODUCTS));
  json_t *names = fp32_convolutions(t);
  list_convolutions(t, out, names);
  json_object_set_new(record, "fp32_convolutions", names);
}
