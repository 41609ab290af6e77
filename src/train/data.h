/* Data sets: readers for idx(.gz) and npy that refuse hostile files, a synthetic teacher, batches.
 * No MPI in here: each parser is a function of bytes. */
#ifndef TRAIN_DATA_H
#define TRAIN_DATA_H

#include "base/memory.h"
#include "base/status.h"

#include <stdint.h>

typedef enum data_type { DATA_U8, DATA_F32, DATA_I32 } data_type;

enum { DATA_DIMENSIONS_MAX = 4 };

/* A dense array, row-major. */
typedef struct data_array {
  data_type type;
  int n_dimensions;
  int64_t shape[DATA_DIMENSIONS_MAX];
  int64_t count; /* product of shape */
  void *values;  /* owned, from cv_memory_new */
} data_array;

/* Largest array that a reader accepts, in bytes. */
#define DATA_BYTES_MAX ((int64_t)16 << 30)

/* Parses a whole idx file (magic 0, 0, type, dimensions; big-endian sizes; types 0x08 u8, 0x0C i32, 0x0D f32).
 * name is for the sentence. CURVD_ERR_DATA: bad magic, size 0, product beyond DATA_BYTES_MAX, too short, trailing
 * bytes. */
curvd_status data_idx_parse(const uint8_t *bytes, int64_t n_bytes, const char *name, cv_memory *memory,
                            data_array *array, cv_error *err);

/* Parses a whole npy file (versions 1 to 3; '|u1', '<f4', '<i4', '<f8' and '<i8' narrowed with a range check; C order).
 */
curvd_status data_npy_parse(const uint8_t *bytes, int64_t n_bytes, const char *name, cv_memory *memory,
                            data_array *array, cv_error *err);

/* Reads path, gunzips it if it is gzip, and parses it by its first bytes, whatever its name. Takes memory only for the
 * size that the header promises, after comparing it with the file's. CURVD_ERR_IO, CURVD_ERR_DATA. */
curvd_status data_file_read(const char *path, cv_memory *memory, data_array *array, cv_error *err);
void data_array_free(cv_memory *memory, data_array *array);

typedef struct data_set {
  int64_t n;       /* examples */
  int64_t d_in;    /* features of one */
  int64_t d_out;   /* classes, or columns of targets */
  uint8_t *pixels; /* (n, d_in) or NULL: feature = (pixel / 255 - mean) / deviation */
  float *features; /* (n, d_in) or NULL: taken as they are */
  float mean, deviation;
  int32_t *labels; /* (n) in [0, d_out), or NULL */
  float *targets;  /* (n, d_out), or NULL; labels and targets both NULL: the target is pixel / 255 or the feature
                      (autoencoder) */
} data_set;

typedef struct data_pair {
  data_set train, test;
} data_pair;

/* Loads "fashion-mnist" (Debian's folder, or $CURVD_DATA_DIR), a folder (train-images-idx3-ubyte[.gz] ... or
 * train_x.npy, train_y.npy, test_x.npy, test_y.npy), or "teacher" (samples of a random two-layer network of the given
 * shape; 1/6 of them are the test set). is_autoencoder: pixels are scaled to [0, 1] without mean and deviation, and
 * labels are left out. validation > 0: the last `validation` training examples become the test set and the real test
 * set is not read. */
typedef struct data_request {
  const char *source;
  int is_autoencoder;
  int64_t validation;
  int64_t teacher_samples, teacher_d_in, teacher_d_out;
  int teacher_is_regression;
  uint64_t seed;
} data_request;
curvd_status data_load(const data_request *request, cv_memory *memory, data_pair *pair, cv_error *err);
void data_free(cv_memory *memory, data_pair *pair);

/* order[0 .. n-1]: the permutation of an epoch, a function of (seed, epoch, n) alone. */
void data_order(uint64_t seed, int64_t epoch, int64_t n, int64_t *order);

/* x[i, 0 .. d_in-1] = features of example index[i]; rows of x are ld apart; columns beyond d_in are left alone. */
void data_features(const data_set *set, const int64_t *index, int64_t rows, float *x, int64_t ld);

/* labels[i] of example index[i], or targets[i, 0 .. d_out-1] (rows ld apart): the set's targets, or 1 at the label and
 * 0 elsewhere, or the example itself (autoencoder). */
void data_labels(const data_set *set, const int64_t *index, int64_t rows, int32_t *labels);
void data_targets(const data_set *set, const int64_t *index, int64_t rows, float *targets, int64_t ld);

#endif
