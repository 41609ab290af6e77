/* One file of CIFAR: the first byte says which of the two (its last bit), the others are the file. */
#include "train/data.h"

#include "fuzz.h"

static void check_labels(data_cifar kind, const int32_t *labels, int64_t n) {
  for (int64_t i = 0; i < n; i++)
    fuzz_require(labels[i] >= 0 && labels[i] < (kind == DATA_CIFAR_10 ? 10 : 100), "labels are classes");
}

void fuzz_cifar(const uint8_t *bytes, size_t n_bytes) {
  cv_error err = {.code = CURVD_OK};
  int64_t n = 0;
  if (n_bytes == 0) return;
  data_cifar kind = bytes[0] & 1 ? DATA_CIFAR_100 : DATA_CIFAR_10;
  curvd_status status = data_cifar_count(kind, (int64_t)n_bytes - 1, "hostile.bin", &n, &err);
  fuzz_outcome(status, &err);
  if (status != CURVD_OK) return;
  uint8_t *pixels = malloc((size_t)n * DATA_CIFAR_PIXELS);
  int32_t *labels = malloc((size_t)n * sizeof *labels);
  fuzz_require(pixels != NULL && labels != NULL, "there is memory for the harness");
  status = data_cifar_parse(kind, bytes + 1, 0, n, "hostile.bin", pixels, labels, &err);
  fuzz_outcome(status, &err);
  if (status == CURVD_OK) check_labels(kind, labels, n);
  free(pixels);
  free(labels);
}
