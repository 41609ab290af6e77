/* Inside of a checkpoint that is read. */
#ifndef SAVE_CHECKPOINT_PARTS_H
#define SAVE_CHECKPOINT_PARTS_H

#include "save/checkpoint.h"
#include "save/file.h"
#include "save/manifest.h"
#include "save/part.h"

enum { CHECKPOINT_NAME_MAX = 61 };

struct checkpoint {
  int folder;                     /* descriptor */
  char name[CHECKPOINT_NAME_MAX]; /* "step-000000100", for sentences */
  manifest manifest;
  part *part; /* part_compare's order */
  int64_t n_parts, capacity;
  checkpoint_array *array; /* names are those of the first part */
  int64_t *first;          /* n_arrays + 1: parts of array i are first[i] .. first[i + 1] - 1 */
  int64_t n_arrays;
};

/* The shard of a rank, of the size that the manifest says. IO, DATA. */
curvd_status checkpoint_open_shard(const checkpoint *cp, int64_t rank, save_file *file, cv_error *err);

/* Its header, which has to have the manifest's checksum. safetensors_free afterwards, also on failure. */
curvd_status checkpoint_read_header(const checkpoint *cp, int64_t rank, const save_file *file,
                                    safetensors_header *header, cv_error *err);

#endif
