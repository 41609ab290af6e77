/* The beginning of a safetensors file. What was accepted is built and read back: nothing may change. */
#include "save/safetensors.h"

#include "fuzz.h"

static void check_header(const safetensors_header *h, size_t n_bytes) {
  int64_t next = 0;
  fuzz_require(h->bytes > SAFETENSORS_LENGTH_BYTES && (size_t)h->bytes <= n_bytes, "the header is in the file");
  fuzz_require(json_is_object(h->metadata), "there is metadata");
  for (int64_t i = 0; i < h->n_tensors; i++) {
    const safetensors_tensor *t = &h->tensor[i];
    fuzz_require(memchr(t->name, '\0', sizeof t->name) != NULL && t->dtype != NULL, "a tensor has name and dtype");
    fuzz_require(t->n_dimensions >= 0 && t->n_dimensions <= SAFETENSORS_DIMENSIONS_MAX, "0 to 8 dimensions");
    for (int d = 0; d < t->n_dimensions; d++) fuzz_require(t->shape[d] >= 0, "lengths are sizes");
    fuzz_require(t->begin == next && t->end >= t->begin, "tensors cover the numbers without holes");
    next = t->end;
  }
  fuzz_require(next == h->data_bytes, "tensors cover all numbers");
}

static void check_same(const safetensors_header *x, const safetensors_header *y) {
  fuzz_require(x->n_tensors == y->n_tensors && x->data_bytes == y->data_bytes, "as many tensors and bytes");
  fuzz_require(json_equal(x->metadata, y->metadata), "the same metadata");
  for (int64_t i = 0; i < x->n_tensors; i++) {
    const safetensors_tensor *a = &x->tensor[i], *b = &y->tensor[i];
    fuzz_require(strcmp(a->name, b->name) == 0 && a->dtype == b->dtype && a->begin == b->begin && a->end == b->end,
                 "the same tensors");
    fuzz_require(a->n_dimensions == b->n_dimensions &&
                     memcmp(a->shape, b->shape, (size_t)a->n_dimensions * sizeof *a->shape) == 0,
                 "the same shapes");
  }
}

static void check_way_back(const safetensors_header *h) {
  cv_error err = {.code = CURVD_OK};
  safetensors_header again;
  char *built = NULL;
  int64_t n = 0;
  fuzz_require(safetensors_build(h, &built, &n, &err) == CURVD_OK, "what is read can be built");
  fuzz_require(n % SAFETENSORS_ALIGNMENT == 0, "numbers are aligned");
  fuzz_require(safetensors_parse(built, n, "built", &again, &err) == CURVD_OK, "what is built can be read");
  check_same(h, &again);
  safetensors_free(&again);
  free(built);
}

void fuzz_safetensors(const uint8_t *bytes, size_t n_bytes) {
  safetensors_header header;
  cv_error err = {.code = CURVD_OK};
  curvd_status status = safetensors_parse(bytes, (int64_t)n_bytes, "hostile.safetensors", &header, &err);
  fuzz_outcome(status, &err);
  if (status == CURVD_OK) {
    check_header(&header, n_bytes);
    check_way_back(&header);
  }
  safetensors_free(&header);
}
