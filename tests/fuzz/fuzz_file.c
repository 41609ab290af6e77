/* A file of unknown kind, gzipped or not, as it lies on a disk. */
#include "fuzz_array.h"

#include <unistd.h>

enum { GZIP_EXPANSION_MAX = 1032, HALVES = 2 }; /* deflate makes no more of a byte; the file's bytes and the values */

void fuzz_file(const uint8_t *bytes, size_t n_bytes) {
  cv_memory memory = {.n_allocations = 0};
  cv_error err = {.code = CURVD_OK};
  data_array array = {.values = NULL};
  char path[] = "/dev/shm/curvd_fuzz_XXXXXX";
  int file = mkstemp(path);
  fuzz_require(file >= 0 && write(file, bytes, n_bytes) == (ssize_t)n_bytes && close(file) == 0, "a file is written");
  curvd_status status = data_file_read(path, &memory, &array, &err);
  unlink(path);
  fuzz_outcome(status, &err);
  fuzz_array(&memory, status, &array);
  fuzz_memory(&memory, HALVES * GZIP_EXPANSION_MAX * ((int64_t)n_bytes + 1));
}
