/* The header of a safetensors file (https://github.com/huggingface/safetensors, "Format"): bytes, no files.
 *   8 bytes             N, little-endian
 *   N bytes             JSON: {"__metadata__": {texts}, NAME: {"dtype": "F32", "shape": [rows, columns],
 *                       "data_offsets": [begin, end]}, ...}, then blanks
 *   the rest            numbers, little-endian; offsets count from here, and cover it without holes */
#ifndef SAVE_SAFETENSORS_H
#define SAVE_SAFETENSORS_H

#include "base/status.h"

#include <jansson.h>
#include <stdint.h>

enum {
  SAFETENSORS_DIMENSIONS_MAX = 8,
  SAFETENSORS_NAME_MAX = 200, /* bytes of a name, with its end */
  SAFETENSORS_LENGTH_BYTES = 8,
  SAFETENSORS_ALIGNMENT = 4096,     /* of the first number, in what is built: a block of the file's */
  SAFETENSORS_JSON_MAX = 100000000, /* bytes; the reference implementation's limit */
};

typedef struct safetensors_tensor {
  char name[SAFETENSORS_NAME_MAX];
  const char *dtype; /* static: "F32", "F64", or another of the format */
  int n_dimensions;
  int64_t shape[SAFETENSORS_DIMENSIONS_MAX];
  int64_t begin, end; /* bytes */
} safetensors_tensor;

typedef struct safetensors_header {
  int64_t bytes;      /* in front of the numbers */
  int64_t data_bytes; /* of all numbers */
  int64_t n_tensors;
  safetensors_tensor *tensor; /* by begin */
  json_t *metadata;           /* an object of texts */
} safetensors_header;

/* Bytes of the JSON, from the first 8 bytes of a file that sentences call `name`. DATA: too long. */
curvd_status safetensors_length(const void *bytes, const char *name, int64_t *length, cv_error *err);

/* Reads the first `n` bytes of a file, at least its header; the file has to have header->bytes + header->data_bytes.
 * DATA names what is wrong; MEMORY. safetensors_free afterwards, also on failure. */
curvd_status safetensors_parse(const void *bytes, int64_t n, const char *name, safetensors_header *header,
                               cv_error *err);
void safetensors_free(safetensors_header *header);

/* header->tensor in order of their offsets, and header->metadata, as bytes (free). ARGUMENT: a name twice, or not
 * UTF-8; SIZE: too many; MEMORY. */
curvd_status safetensors_build(const safetensors_header *header, char **bytes, int64_t *n, cv_error *err);

#endif
