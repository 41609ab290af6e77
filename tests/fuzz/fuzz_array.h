/* What every reader of arrays promises. */
#ifndef TESTS_FUZZ_FUZZ_ARRAY_H
#define TESTS_FUZZ_FUZZ_ARRAY_H

#include "train/data.h"

#include "fuzz.h"

/* Looks at every value, so that the address sanitizer sees a block that is too short, and frees them. */
static inline void fuzz_array(cv_memory *memory, curvd_status status, data_array *array) {
  if (status != CURVD_OK) {
    fuzz_require(array->values == NULL, "a refused array is not made");
    return;
  }
  int64_t count = 1;
  fuzz_require(array->n_dimensions >= 1 && array->n_dimensions <= DATA_DIMENSIONS_MAX, "1 to 4 dimensions");
  for (int i = 0; i < array->n_dimensions; i++) count *= array->shape[i];
  fuzz_require(count == array->count && count >= 1, "count is the product of the shape");
  const unsigned char *values = array->values;
  static volatile unsigned char seen;
  for (int64_t i = 0, n = count * (array->type == DATA_U8 ? 1 : 4); i < n; i++) seen = values[i];
  (void)seen;
  data_array_free(memory, array);
}

#endif
