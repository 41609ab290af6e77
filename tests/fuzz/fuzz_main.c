/* libFuzzer's entry; FUZZ_TARGET is the harness that this program runs (CMakeLists.txt). */
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes) {
  FUZZ_TARGET(bytes, n_bytes);
  return 0;
}
