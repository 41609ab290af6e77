/* Data sets: readers for idx(.gz), npy and CIFAR that refuse hostile files, a synthetic teacher, batches.
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

/* CIFAR's binary files: records of labels, one byte each (CIFAR-10: the class; CIFAR-100: the coarse class, then the
 * fine one, which is taken), and 32 rows of 32 bytes of red, then of green, then of blue. */
typedef enum data_cifar { DATA_CIFAR_10, DATA_CIFAR_100 } data_cifar;
enum { DATA_CIFAR_SIDE = 32, DATA_CIFAR_CHANNELS = 3, DATA_CIFAR_PIXELS = 32 * 32 * 3 };

/* *n = records in a file of n_bytes. CURVD_ERR_DATA: not a whole number of them, none, more than 2^20. */
curvd_status data_cifar_count(data_cifar kind, int64_t n_bytes, const char *name, int64_t *n, cv_error *err);

/* Unpacks n records: pixels (n, 32, 32, 3), labels (n) or NULL. first is the number of the first record in its file,
 * for the sentence. CURVD_ERR_DATA: a label out of range, looked at even if labels are not wanted. */
curvd_status data_cifar_parse(data_cifar kind, const uint8_t *bytes, int64_t first, int64_t n, const char *name,
                              uint8_t *pixels, int32_t *labels, cv_error *err);

/* Of one example, channels last: (height, width, channels) row-major. Flat data are 1 x 1 x width. */
typedef struct data_shape {
  int64_t height, width, channels;
} data_shape;
int64_t data_shape_size(data_shape shape);

/* feature = (pixel / 255 - mean) / deviation, per channel or (n = 1) the same everywhere. */
enum { DATA_CHANNELS_MAX = 4 }; /* of pixels */
typedef struct data_scale {
  int64_t n; /* value j of an example belongs to channel j mod n */
  float mean[DATA_CHANNELS_MAX], deviation[DATA_CHANNELS_MAX];
  float level[DATA_CHANNELS_MAX][256]; /* feature of each pixel value */
} data_scale;

typedef struct data_set {
  int64_t n;         /* examples */
  int64_t d_in;      /* features of one: the size of shape */
  int64_t d_out;     /* classes, or columns of targets */
  data_shape shape;  /* of the features that are handed out */
  data_shape stored; /* of pixels or features below; on handing out the rest of shape around it becomes black (pixel 0,
                        or feature 0), half of it on each side, the odd row or column below or on the right, and a
                        single channel is repeated */
  uint8_t *pixels;   /* (n, stored) or NULL */
  float *features;   /* (n, stored) or NULL: taken as they are */
  data_scale scale;  /* of pixels */
  int32_t *labels;   /* (n) in [0, d_out), or NULL */
  float *targets;    /* (n, d_out), or NULL; labels and targets both NULL: the target is pixel / 255 or the feature
                        (autoencoder) */
} data_set;

typedef struct data_pair {
  data_set train, test;
} data_pair;

/* Loads "fashion-mnist" (Debian's folder, or $CURVD_DATA_DIR), "teacher" (samples of a random two-layer network of the
 * given widths; 1/6 of them are the test set), or a folder with one of
 *   train-images-idx3-ubyte[.gz], train-labels-idx1-ubyte[.gz], t10k-images-..., t10k-labels-...
 *   train_x.npy, train_y.npy, test_x.npy, test_y.npy
 *   data_batch_1.bin to data_batch_5.bin, test_batch.bin (CIFAR-10)
 *   train.bin, test.bin (CIFAR-100)
 * idx and npy examples are flat (n, d) or images (n, height, width) or (n, height, width, channels); real numbers are
 * taken as they are. Pixels are scaled by the published mean and deviation of each channel of Fashion-MNIST and
 * CIFAR-10, by those of all training images found in other folders, and flat ones by Fashion-MNIST's.
 * is_autoencoder: pixels are scaled to [0, 1] without mean and deviation, and labels are left out.
 * validation > 0: the last `validation` training examples become the test set and the real test set is not read.
 * shape: what the network wants, all 0 for what the data have. Images no larger than that are padded, one channel is
 * repeated, flat data of the same size are taken for images and the reverse. CURVD_ERR_OPTION: anything else.
 * augments: data_augment with this pad will be asked for. CURVD_ERR_OPTION: flat data, pad not below both sides. */
typedef struct data_request {
  const char *source;
  int is_autoencoder;
  int64_t validation;
  data_shape shape;
  int augments;
  int64_t augment_pad;
  int64_t teacher_samples, teacher_d_in, teacher_d_out;
  int teacher_is_regression;
  uint64_t seed;
} data_request;
curvd_status data_load(const data_request *request, cv_memory *memory, data_pair *pair, cv_error *err);
void data_free(cv_memory *memory, data_pair *pair);

/* order[0 .. n-1]: the permutation of an epoch, a function of (seed, epoch, n) alone. */
void data_order(uint64_t seed, int64_t epoch, int64_t n, int64_t *order);

/* Random crop and flip: the image is surrounded by pad black pixels on each side, cut to its old size at one of the
 * (2 pad + 1)^2 places and in every second case mirrored about its vertical axis. What an example gets depends on
 * (seed, epoch, its number in the set) alone: neither on the rank that hands it out nor on its place in the batch. */
typedef struct data_augment {
  uint64_t seed;
  int64_t epoch, pad;
} data_augment;

/* x[i, 0 .. d_in-1] = features of example index[i], augmented or (NULL) as they are; rows of x are ld apart; columns
 * beyond d_in are left alone. */
void data_features(const data_set *set, const int64_t *index, int64_t rows, const data_augment *augment, float *x,
                   int64_t ld);

/* labels[i] of example index[i], or targets[i, 0 .. d_out-1] (rows ld apart): the set's targets, or 1 at the label and
 * 0 elsewhere, or the example itself (autoencoder), augmented alike. */
void data_labels(const data_set *set, const int64_t *index, int64_t rows, int32_t *labels);
void data_targets(const data_set *set, const int64_t *index, int64_t rows, const data_augment *augment, float *targets,
                  int64_t ld);

#endif
