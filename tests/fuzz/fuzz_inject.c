/* A list of faults. */
#include "train/inject.h"

#include "fuzz.h"

void fuzz_inject(const uint8_t *bytes, size_t n_bytes) {
  static inject list;
  cv_error err = {.code = CURVD_OK};
  char *text = fuzz_text(bytes, n_bytes);
  curvd_status status = inject_parse(text, &list, &err);
  fuzz_outcome(status, &err);
  fuzz_require(status != CURVD_OK || strlen(text) < CV_OPTION_TEXT_MAX, "all of the text is read");
  fuzz_require(list.n >= 0 && list.n <= INJECT_MAX, "faults are in the list");
  for (int i = 0; i < list.n; i++) {
    const inject_fault *fault = &list.fault[i];
    fuzz_require(fault->kind >= 0 && fault->kind < INJECT_KINDS, "a fault has a kind");
    fuzz_require(fault->step >= 0 && fault->rank >= 0 && fault->bit >= 0, "step, rank and bit count from 0");
    fuzz_require(fault->factor == 0 || fault->factor == 1, "factors are A and G");
    fuzz_require(memchr(fault->layer, '\0', sizeof fault->layer) != NULL, "names end");
    fuzz_require(fault->seconds >= 0 && fault->seconds < 1L << 31, "seconds fit every time_t");
  }
  free(text);
}
