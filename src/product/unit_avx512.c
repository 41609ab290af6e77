/* x86-64 with AVX-512, as of Skylake servers. */
#include "product/unit_body.h"

static bool is_there(void) {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
}

const cv_unit cv_unit_avx512 = {.name = "avx512",
                                .is_there = is_there,
                                .tile_rows = portable_tile_rows,
                                .tile_pairs = portable_tile_pairs,
                                .transpose = portable_transpose,
                                .begin = portable_nothing,
                                .end = portable_nothing,
                                .multiply = portable_multiply,
                                .blend = portable_blend};
