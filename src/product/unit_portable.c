/* Any processor: the reference. */
#include "product/unit_body.h"

static bool is_there(void) {
  return true;
}

const cv_unit cv_unit_portable = {.name = "portable",
                                  .is_there = is_there,
                                  .tile_rows = portable_tile_rows,
                                  .tile_pairs = portable_tile_pairs,
                                  .transpose = portable_transpose,
                                  .begin = portable_nothing,
                                  .end = portable_nothing,
                                  .multiply = portable_multiply,
                                  .blend = portable_blend};
