/* From a configuration to a prediction, as `curvd plan` goes: two bytes of the number of ranks, the others are the
 * file. Every size of a run is computed on the way, and nothing that it needs is allocated. */
#include "train/run_shape.h"

#include "fuzz.h"

#include <math.h>

enum { RANKS_MAX = 64, TEXT = 480 };

static void check_prediction(const curvd_prediction *p, int n_ranks) {
  curvd_prediction_summary summary;
  curvd_predicted_rank rank;
  curvd_prediction_read(p, &summary);
  fuzz_require(isfinite(summary.step_s) && summary.step_s >= 0, "a step takes a time");
  fuzz_require(summary.n_workers >= 1 && summary.n_workers + summary.n_curvature == n_ranks, "ranks are split");
  for (int r = 0; r < n_ranks; r++) {
    fuzz_require(curvd_prediction_rank(p, r, &rank) == CURVD_OK, "every rank is predicted");
    for (int kind = 0; kind < CURVD_MEMORIES; kind++)
      fuzz_require(rank.memory_bytes[kind] >= 0, "bytes of memory are counted without overflow");
  }
}

static void predict(config *c, int n_ranks) {
  run_shape *run = NULL;
  curvd_prediction *p = NULL;
  cv_error err = {.code = CURVD_OK};
  curvd_status status = run_shape_make(c, n_ranks, &run, &err);
  fuzz_outcome(status, &err);
  fuzz_require(status != CURVD_ERR_STATE, "there is room for all options");
  if (status == CURVD_OK) {
    err.code = curvd_predict(&run->shape, &p, err.text, TEXT);
    fuzz_outcome(err.code, &err);
    if (err.code == CURVD_OK) check_prediction(p, n_ranks);
  }
  curvd_prediction_free(&p);
  free(run);
}

void fuzz_plan(const uint8_t *bytes, size_t n_bytes) {
  config c;
  cv_error err = {.code = CURVD_OK};
  if (n_bytes < 2) return;
  int n_ranks = 1 + (bytes[0] | bytes[1] << 8) % RANKS_MAX;
  char *text = fuzz_text(bytes + 2, n_bytes - 2);
  curvd_status status = config_parse(text, n_bytes - 2, "hostile.yaml", 0, NULL, &c, &err);
  fuzz_outcome(status, &err);
  if (status == CURVD_OK) {
    bool is_path = strstr(c.values.network, ".y") != NULL; /* of a model file: none of this harness's business */
    if (!is_path) predict(&c, n_ranks);
    config_free(&c);
  }
  free(text);
}
