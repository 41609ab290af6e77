/* A whole idx file. */
#include "fuzz_array.h"

void fuzz_idx(const uint8_t *bytes, size_t n_bytes) {
  cv_memory memory = {.n_allocations = 0};
  cv_error err = {.code = CURVD_OK};
  data_array array = {.values = NULL};
  curvd_status status = data_idx_parse(bytes, (int64_t)n_bytes, "hostile.idx", &memory, &array, &err);
  fuzz_outcome(status, &err);
  fuzz_array(&memory, status, &array);
  fuzz_memory(&memory, (int64_t)n_bytes);
}
