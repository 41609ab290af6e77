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

/* Size of a regular file. CURVD_ERR_IO. */
curvd_status data_file_size(const char *path, int64_t *bytes, cv_error *err);

/* "28x28x1", or "784" of flat data. */
enum { DATA_SHAPE_TEXT = 64 };
const char *data_shape_text(data_shape shape, char text[DATA_SHAPE_TEXT]);
bool data_shape_is_same(data_shape a, data_shape b);

/* Makes the set hand out what the request wants. CURVD_ERR_OPTION: it cannot. */
curvd_status data_shape_fit(const data_request *request, data_set *set, cv_error *err);

/* n means and deviations; and those of the set's pixels, channel by channel, 1 for the deviation of a channel that is
 * the same everywhere. */
void data_scale_set(int64_t n, const float *mean, const float *deviation, data_scale *scale);
void data_scale_measure(const data_set *set, data_scale *scale);

enum { DATA_PATH_BYTES = 4096 };

/* Is there a file of this name? Its path, if it is not too long. */
bool data_folder_has(const char *folder, const char *name, char path[DATA_PATH_BYTES]);

/* Does one of the files of CIFAR-10 or of CIFAR-100 lie in the folder? */
bool data_cifar_find(const char *folder, data_cifar *kind);

/* As data_folder_load, for a folder with one of CIFAR's files. */
curvd_status data_cifar_load(data_cifar kind, const data_request *request, cv_memory *memory, data_pair *pair,
                             cv_error *err);

/* Both halves from a folder, the test half only if no validation examples are asked for. After a failure *pair holds
 * what was read until then. */
curvd_status data_folder_load(const data_request *request, cv_memory *memory, data_pair *pair, cv_error *err);

/* Examples first .. first + n - 1 of the synthetic data set. After a failure *set holds what was made until then. */
curvd_status data_teacher_make(const data_request *request, int64_t first, int64_t n, cv_memory *memory, data_set *set,
                               cv_error *err);

#endif
