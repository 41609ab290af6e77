/* The checksum of everything that is kept or sent: XXH3, 64 bits, seed 0. */
#ifndef CV_BASE_HASH_H
#define CV_BASE_HASH_H

#include <stdint.h>

uint64_t cv_hash(const void *x, int64_t bytes);

#endif
