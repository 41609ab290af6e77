/* A rank's part of a checkpoint in memory, and what a shard's file tells about itself.
 * Tensors in the file: a matrix is NAME with 2 dimensions; a triangle is NAME_lower, packed, with one; rows begin ..
 * end - 1 of more are NAME[begin:end] or NAME_lower[begin:end]. Texts in __metadata__:
 *   xxh3:TENSOR      checksum of its bytes
 *   n_rows:TENSOR    rows of the whole, for triangles and parts
 *   format, step, rank, ranks, save */
#ifndef SAVE_SHARD_H
#define SAVE_SHARD_H

#include "base/status.h"
#include "curvd_state.h"
#include "save/checksum.h"
#include "save/file.h"
#include "save/safetensors.h"

#include <stdbool.h>
#include <stdint.h>

#define SHARD_FORMAT "curvd-shard"
#define SHARD_TRIANGLE_SUFFIX "_lower"

/* Who wrote it, when. save: counts those of its process, so that a shard which an earlier try of the same step
 * has left is not taken for a new one. */
typedef struct shard_origin {
  int64_t step, rank, n_ranks, save;
} shard_origin;

/* ---- in memory ---- */

typedef struct shard {
  char *data;
  int64_t bytes, capacity;
  safetensors_tensor *tensor;
  int64_t *n_rows; /* of each tensor's array; -1: the tensor tells */
  int64_t n_tensors, tensor_capacity;
} shard;

void shard_clear(shard *s); /* keeps its memory */
void shard_free(shard *s);

/* Copies the part; one without rows of an array with some is left out. ARGUMENT: impossible sizes or name; MEMORY. */
curvd_status shard_add(shard *s, const curvd_array *array, cv_error *err);

/* Hashes everything, and writes the file of that name. bytes: of the file. IO, MEMORY, ARGUMENT. */
curvd_status shard_write(const shard *s, const shard_origin *origin, int folder, const char *folder_name,
                         file_watch watch, int64_t *bytes, cv_error *err);

/* ---- in a file ---- */

/* Header of an open file whose size fits it, and the checksum of its bytes. safetensors_free afterwards, also on
 * failure. IO, DATA, MEMORY. */
curvd_status shard_header_read(const save_file *file, safetensors_header *header, char xxh3[CHECKSUM_MAX],
                               cv_error *err);

/* What an entry of metadata says; NULL: there is none. "xxh3:" + "fc1.A_lower" */
const char *shard_metadata(const safetensors_header *header, const char *prefix, const char *tensor);

/* Does the header say that it is from there? */
bool shard_is_of(const safetensors_header *header, const shard_origin *origin);

#endif
