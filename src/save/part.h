/* What the tensors of all shards are: parts of arrays. */
#ifndef SAVE_PART_H
#define SAVE_PART_H

#include "base/status.h"
#include "save/checkpoint.h"
#include "save/checksum.h"
#include "save/safetensors.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct part {
  int64_t shard;
  char tensor[SAFETENSORS_NAME_MAX]; /* name in the file */
  int64_t at, bytes;                 /* in the file */
  char xxh3[CHECKSUM_MAX];
  bool is_verified;

  bool is_readable; /* a matrix or triangle of a dtype that arrays have; what follows is only then */
  char name[SAFETENSORS_NAME_MAX];
  curvd_dtype dtype;
  bool is_triangle;
  int64_t n_rows, n_columns, begin, rows;
} part;

/* What a tensor of an opened file is. DATA: no checksum, or name and shape contradict each other. */
curvd_status part_describe(const safetensors_header *header, const safetensors_tensor *tensor, const char *place,
                           part *p, cv_error *err);

/* Readable ones first, by name, then by rows. */
int part_compare(const void *x, const void *y);

/* Do two parts of one name belong to one array, the second behind the first? */
bool part_follows(const part *first, const part *second);

/* "fc1.A_lower" without its end; false: it has none. */
bool part_strip_triangle(const char *name, char stripped[SAFETENSORS_NAME_MAX]);

#endif
