/* Shared by the data_*.c files only: what a file's header says, and making an array of it. */
#ifndef TRAIN_DATA_PARTS_H
#define TRAIN_DATA_PARTS_H

#include "train/data.h"

#include <stdbool.h>

enum { DATA_HEADER_BYTES_MAX = 1 << 16 }; /* of an npy header, its first bytes included */

typedef enum data_item { DATA_ITEM_U8, DATA_ITEM_I32, DATA_ITEM_F32, DATA_ITEM_I64, DATA_ITEM_F64 } data_item;

typedef struct data_header {
  data_item item; /* as in the file */
  bool is_big_endian;
  int n_dimensions;
  int64_t shape[DATA_DIMENSIONS_MAX];
  int64_t count;       /* product of shape */
  int64_t offset;      /* of the first value, bytes */
  int64_t total_bytes; /* that the whole file must have */
} data_header;

/* Reads the header at the start of a file's bytes; n_bytes may be fewer than the file has. CURVD_ERR_DATA. */
curvd_status data_idx_header(const uint8_t *bytes, int64_t n_bytes, const char *name, data_header *header,
                             cv_error *err);
curvd_status data_npy_header(const uint8_t *bytes, int64_t n_bytes, const char *name, data_header *header,
                             cv_error *err);

/* Sets count and total_bytes from item, shape and offset. CURVD_ERR_DATA: a size below 1, more than DATA_BYTES_MAX. */
curvd_status data_header_sizes(const char *name, data_header *header, cv_error *err);

/* Makes the array from all bytes of the file. CURVD_ERR_DATA: n_bytes is not total_bytes, a value does not fit its
 * type. */
curvd_status data_array_make(const data_header *header, const uint8_t *bytes, int64_t n_bytes, const char *name,
                             cv_memory *memory, data_array *array, cv_error *err);

/* Both halves from a folder, the test half only if no validation examples are asked for. After a failure *pair holds
 * what was read until then. */
curvd_status data_folder_load(const data_request *request, cv_memory *memory, data_pair *pair, cv_error *err);

/* Examples first .. first + n - 1 of the synthetic data set. After a failure *set holds what was made until then. */
curvd_status data_teacher_make(const data_request *request, int64_t first, int64_t n, cv_memory *memory, data_set *set,
                               cv_error *err);

#endif
