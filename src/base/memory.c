#include "base/memory.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { BORDER = 64 }; /* bytes: a cache line, and the widest vector */

/* Stands in the BORDER bytes before each block. */
typedef struct header {
  int64_t bytes;
  cv_memory_kind kind;
} header;

static header *header_of(void *block) {
  return (header *)(void *)((char *)block - BORDER);
}

static int64_t live_bytes(const cv_memory *memory) {
  int64_t sum = 0;
  for (int kind = 0; kind < CV_MEMORY_KINDS; kind++) sum += memory->bytes[kind];
  return sum;
}

curvd_status cv_memory_new(cv_memory *memory, cv_memory_kind kind, int64_t count, int64_t size, const char *what,
                           void **block, cv_error *err) {
  const int64_t bytes_max = INT64_MAX - BORDER - BORDER;
  bool fits = count >= 0 && size >= 1 && count <= bytes_max / size;
  int64_t bytes = !fits ? 0 : count == 0 ? 1 : count * size;
  size_t padded = ((size_t)bytes + BORDER - 1) / BORDER * BORDER;
  bool is_dry = fits && memory->is_dry;
  char *base = fits && !is_dry ? aligned_alloc(BORDER, BORDER + padded) : NULL;
  if (base == NULL && !is_dry)
    return cv_fail(err, CURVD_ERR_MEMORY,
                   "no memory for %s: %" PRId64 " x %" PRId64 " bytes, with %" PRId64
                   " bytes in use; use smaller layers or batches, or more ranks",
                   what, count, size, live_bytes(memory));
  *block = NULL;
  if (!is_dry) {
    memset(base, 0, BORDER + padded);
    *block = base + BORDER;
    *header_of(*block) = (header){.bytes = bytes, .kind = kind};
  }
  memory->bytes[kind] += bytes;
  memory->n_allocations++;
  int64_t live = live_bytes(memory);
  if (live > memory->peak_bytes) memory->peak_bytes = live;
  return CURVD_OK;
}

void cv_memory_free(cv_memory *memory, void **block) {
  if (block == NULL || *block == NULL) return;
  header *head = header_of(*block);
  memory->bytes[head->kind] -= head->bytes;
  free(head);
  *block = NULL;
}

const char *cv_memory_kind_name(cv_memory_kind kind) {
  static const char *const names[CV_MEMORY_KINDS] = {[CV_MEMORY_STATISTICS] = "statistics",
                                                     [CV_MEMORY_FACTORS] = "factors",
                                                     [CV_MEMORY_PRECONDITIONER] = "preconditioners",
                                                     [CV_MEMORY_MOMENTUM] = "momentum",
                                                     [CV_MEMORY_TRANSFER] = "transfer",
                                                     [CV_MEMORY_WORKSPACE] = "workspace",
                                                     [CV_MEMORY_PARAMETERS] = "parameters",
                                                     [CV_MEMORY_ACTIVATIONS] = "activations",
                                                     [CV_MEMORY_DATA] = "data"};
  return (int)kind >= 0 && kind < CV_MEMORY_KINDS ? names[kind] : "?";
}

curvd_status cv_floats_new(cv_memory *memory, cv_memory_kind kind, int64_t count, const char *what, float **block,
                           cv_error *err) {
  void *made = NULL;
  CV_TRY(cv_memory_new(memory, kind, count, sizeof(float), what, &made, err));
  *block = made;
  return CURVD_OK;
}

curvd_status cv_doubles_new(cv_memory *memory, cv_memory_kind kind, int64_t count, const char *what, double **block,
                            cv_error *err) {
  void *made = NULL;
  CV_TRY(cv_memory_new(memory, kind, count, sizeof(double), what, &made, err));
  *block = made;
  return CURVD_OK;
}

void cv_floats_free(cv_memory *memory, float **block) {
  void *freed = *block;
  cv_memory_free(memory, &freed);
  *block = NULL;
}

void cv_doubles_free(cv_memory *memory, double **block) {
  void *freed = *block;
  cv_memory_free(memory, &freed);
  *block = NULL;
}
