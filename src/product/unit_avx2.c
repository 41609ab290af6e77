/* x86-64 with AVX2 and FMA. */
#include "product/unit_body.h"

static bool is_there(void) {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

const cv_unit cv_unit_avx2 = {.name = "avx2",
                              .is_there = is_there,
                              .tile_rows = portable_tile_rows,
                              .tile_pairs = portable_tile_pairs,
                              .transpose = portable_transpose,
                              .begin = portable_nothing,
                              .end = portable_nothing,
                              .multiply = portable_multiply,
                              .blend = portable_blend};
