/* Checksums as they stand in files: 16 hexadecimal digits in small letters. Texts are compared, never numbers: a digit
 * in a capital letter is a damaged one. */
#ifndef SAVE_CHECKSUM_H
#define SAVE_CHECKSUM_H

#include "base/hash.h"

#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>

enum { CHECKSUM_MAX = 17 }; /* with its end */

static inline void checksum(const void *bytes, int64_t n, char text[CHECKSUM_MAX]) {
  snprintf(text, CHECKSUM_MAX, "%016" PRIx64, cv_hash(bytes, n));
}

#endif
