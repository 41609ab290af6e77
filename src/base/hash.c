#include "base/hash.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

uint64_t cv_hash(const void *x, int64_t bytes) {
  return XXH3_64bits(x, (size_t)bytes);
}
