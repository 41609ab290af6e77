/* A network: the first byte says whether the others are a model file ('f') or the words of
 * --network. */
#include "net/model_build.h"
#include "train/network.h"
#include "train/part.h"

#include "fuzz.h"

/* The sizes that are computed from a network before memory is taken for it. */
static void measure(const model_spec *spec) {
  static part list[PARTS_MAX];
  int first[MODEL_LAYERS_MAX + 1];
  cv_error err = {.code = CURVD_OK};
  fuzz_require(spec->n_layers >= 1 && spec->n_layers <= MODEL_LAYERS_MAX, "1 to 256 layers");
  fuzz_require(model_parameters(spec) >= 1, "a network has parameters");
  for (int i = 0; i < spec->n_layers; i++) {
    const nn_shape out = spec->layer[i].out;
    fuzz_require(out.height >= 1 && out.width >= 1 && out.channels >= 1, "no layer is empty");
    fuzz_require(memchr(spec->layer[i].name, '\0', NN_NAME_MAX) != NULL, "names end");
    fuzz_require(spec->layer[i].from[0] >= 0 && spec->layer[i].from[0] <= i, "layers take what is there");
  }
  curvd_status status = part_list(spec, list, first, &err);
  fuzz_outcome(status, &err);
  for (int i = 0; status == CURVD_OK && i < first[spec->n_layers]; i++) {
    char text[NN_NAME_MAX];
    curvd_layer_shape shape = part_shape(spec, list[i], text);
    fuzz_require(shape.d_in >= 1 && shape.d_out >= 1, "no factor is empty");
  }
}

/* A path of a model file is none of the parser's business here. */
static bool is_path(const char *text) {
  size_t n = strlen(text);
  return (n > 4 && strcmp(text + n - 4, ".yml") == 0) || (n > 5 && strcmp(text + n - 5, ".yaml") == 0);
}

void fuzz_network(const uint8_t *bytes, size_t n_bytes) {
  static model_spec spec;
  cv_error err = {.code = CURVD_OK};
  if (n_bytes == 0) return;
  char *text = fuzz_text(bytes + 1, n_bytes - 1);
  curvd_status status = CURVD_OK;
  bool is_file = bytes[0] == 'f', is_skipped = !is_file && is_path(text);
  if (is_file)
    status = network_file_parse(text, n_bytes - 1, "hostile.yaml", &spec, &err);
  else if (!is_skipped)
    status = network_parse(text, NN_RELU, NN_LOSS_AUTO, &spec, &err);
  fuzz_outcome(status, &err);
  if (status == CURVD_OK && !is_skipped) measure(&spec);
  free(text);
}
