/* Is a checkpoint that of the network? */
#include "train/trainer_state.h"

#include <stdio.h>
#include <string.h>

static void append(char *text, size_t size, const char *more) {
  size_t n = strlen(text);
  if (n + strlen(more) + 8 < size) {
    snprintf(text + n, size - n, "%s%s", n > 0 ? "; " : "", more);
  } else if (n > 3 && strcmp(text + n - 3, "...") != 0) {
    snprintf(text + n, size - n, "; ...");
  }
}

static bool is_weight(const char *name, char layer[NN_NAME_MAX]) {
  static const char front[] = "model.", back[] = ".weight";
  size_t n = strlen(name), a = sizeof front - 1, b = sizeof back - 1;
  if (n <= a + b || n - a - b >= NN_NAME_MAX) return false;
  if (strncmp(name, front, a) != 0 || strcmp(name + n - b, back) != 0) return false;
  snprintf(layer, NN_NAME_MAX, "%.*s", (int)(n - a - b), name + a);
  return true;
}

static const nn_layer_spec *layer_named(const model_spec *spec, const char *name) {
  for (int i = 0; i < spec->n_layers; i++) {
    if (nn_weight_rows(&spec->layer[i]) > 0 && strcmp(spec->layer[i].name, name) == 0) return &spec->layer[i];
  }
  return NULL;
}

curvd_status trainer_state_compare(const trainer *t, const checkpoint *cp, cv_error *err) {
  const model_spec *spec = &t->model.spec;
  char list[360] = "", one[200], name[CURVD_ARRAY_NAME_MAX], layer[NN_NAME_MAX];
  checkpoint_array a;
  for (int i = 0; i < spec->n_layers; i++) {
    const nn_layer_spec *s = &spec->layer[i];
    int64_t rows = nn_weight_rows(s), columns = nn_weight_columns(s) + s->has_bias;
    if (rows == 0) continue;
    snprintf(name, sizeof name, "model.%s.weight", s->name);
    if (!checkpoint_find(cp, name, &a)) {
      snprintf(one, sizeof one, "%s is not in it", s->name);
      append(list, sizeof list, one);
    } else if (a.n_rows != rows || a.n_columns != columns) {
      snprintf(one, sizeof one, "%s is %lld x %lld, the network has %lld x %lld", s->name, (long long)a.n_rows,
               (long long)a.n_columns, (long long)rows, (long long)columns);
      append(list, sizeof list, one);
    }
  }
  for (int64_t i = 0; i < checkpoint_count(cp); i++) {
    if (!is_weight(checkpoint_at(cp, i).name, layer) || layer_named(spec, layer)) continue;
    snprintf(one, sizeof one, "%s is not in the network", layer);
    append(list, sizeof list, one);
  }
  if (list[0] == '\0') return CURVD_OK;
  return cv_fail(err, CURVD_ERR_OPTION, "the checkpoint is of another network: %s", list);
}
