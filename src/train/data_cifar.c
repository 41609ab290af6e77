/* CIFAR-10 and CIFAR-100 in their binary versions (Krizhevsky, www.cs.toronto.edu/~kriz/cifar.html). */
#include "train/data_parts.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { LABELS_MAX = 2, TRAIN_FILES_MAX = 5, RECORDS_MAX = 1 << 20, RECORDS_AT_ONCE = 256 };

typedef struct cifar {
  const char *name, *archive;
  int n_labels, n_train_files;
  int classes[LABELS_MAX]; /* of each label byte; the last one is the label */
  const char *train[TRAIN_FILES_MAX], *test[1];
} cifar;

static const cifar kinds[] = {
    [DATA_CIFAR_10] = {.name = "CIFAR-10",
                       .archive = "cifar-10-binary.tar.gz",
                       .n_labels = 1,
                       .n_train_files = 5,
                       .classes = {10},
                       .train = {"data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin",
                                 "data_batch_5.bin"},
                       .test = {"test_batch.bin"}},
    [DATA_CIFAR_100] = {.name = "CIFAR-100",
                        .archive = "cifar-100-binary.tar.gz",
                        .n_labels = 2,
                        .n_train_files = 1,
                        .classes = {20, 100},
                        .train = {"train.bin"},
                        .test = {"test.bin"}},
};

static const float cifar_10_mean[] = {0.4914f, 0.4822f, 0.4465f}, cifar_10_deviation[] = {0.2470f, 0.2435f, 0.2616f};

static int record_bytes(const cifar *kind) {
  return kind->n_labels + DATA_CIFAR_PIXELS;
}

/* ---- One file ---- */

curvd_status data_cifar_count(data_cifar which, int64_t n_bytes, const char *name, int64_t *n, cv_error *err) {
  const cifar *kind = &kinds[which];
  int bytes = record_bytes(kind);
  if (n_bytes < bytes || n_bytes % bytes != 0)
    return cv_fail(err, CURVD_ERR_DATA,
                   "%s: has %" PRId64 " bytes, expected a multiple of the %d of a %s record; unpack %s again", name,
                   n_bytes, bytes, kind->name, kind->archive);
  if (n_bytes / bytes > RECORDS_MAX)
    return cv_fail(err, CURVD_ERR_DATA,
                   "%s: has %" PRId64 " bytes, %" PRId64 " records, expected at most %d; use npy for larger sets", name,
                   n_bytes, n_bytes / bytes, (int)RECORDS_MAX);
  *n = n_bytes / bytes;
  return CURVD_OK;
}

curvd_status data_cifar_parse(data_cifar which, const uint8_t *bytes, int64_t first, int64_t n, const char *name,
                              uint8_t *pixels, int32_t *labels, cv_error *err) {
  enum { PLANE = DATA_CIFAR_SIDE * DATA_CIFAR_SIDE };
  const cifar *kind = &kinds[which];
  for (int64_t i = 0; i < n; i++) {
    const uint8_t *record = bytes + i * record_bytes(kind), *planes = record + kind->n_labels;
    uint8_t *image = pixels + i * DATA_CIFAR_PIXELS;
    for (int k = 0; k < kind->n_labels; k++)
      if (record[k] >= kind->classes[k])
        return cv_fail(err, CURVD_ERR_DATA,
                       "%s: label byte %d of record %" PRId64 " is %d, expected 0 to %d; unpack %s again", name, k + 1,
                       first + i, record[k], kind->classes[k] - 1, kind->archive);
    if (labels != NULL) labels[i] = record[kind->n_labels - 1];
    for (int p = 0; p < PLANE; p++)
      for (int c = 0; c < DATA_CIFAR_CHANNELS; c++) image[p * DATA_CIFAR_CHANNELS + c] = planes[c * PLANE + p];
  }
  return CURVD_OK;
}

/* Reads n records from path into pixels and labels; block holds RECORDS_AT_ONCE of them. */
static curvd_status read_records(data_cifar which, FILE *file, const char *path, int64_t n, uint8_t *block,
                                 uint8_t *pixels, int32_t *labels, cv_error *err) {
  const size_t bytes = (size_t)record_bytes(&kinds[which]);
  for (int64_t at = 0; at < n; at += RECORDS_AT_ONCE) {
    int64_t piece = n - at < RECORDS_AT_ONCE ? n - at : RECORDS_AT_ONCE;
    size_t got = fread(block, bytes, (size_t)piece, file);
    if (got != (size_t)piece)
      return cv_fail(err, CURVD_ERR_IO, "cannot read %s beyond record %" PRId64 ": %s", path, at + (int64_t)got,
                     ferror(file) ? strerror(errno) : "it ends early");
    CV_TRY(data_cifar_parse(which, block, at, piece, path, pixels + at * DATA_CIFAR_PIXELS,
                            labels == NULL ? NULL : labels + at, err));
  }
  return CURVD_OK;
}

static curvd_status read_file(data_cifar which, const char *path, int64_t n, uint8_t *block, uint8_t *pixels,
                              int32_t *labels, cv_error *err) {
  FILE *file = fopen(path, "rb");
  if (file == NULL) return cv_fail(err, CURVD_ERR_IO, "cannot open %s: %s", path, strerror(errno));
  curvd_status status = read_records(which, file, path, n, block, pixels, labels, err);
  fclose(file);
  return status;
}

/* ---- One half of the data set: n_files files with equally many records ---- */

static curvd_status find_files(data_cifar which, const char *folder, const char *const *names, int n_files, int64_t *n,
                               cv_error *err) {
  char path[DATA_PATH_BYTES];
  for (int i = 0; i < n_files; i++) {
    int64_t bytes = 0, records = 0;
    if (!data_folder_has(folder, names[i], path))
      return cv_fail(err, CURVD_ERR_IO, "no %s in the folder %s, which has other files of %s; unpack %s again",
                     names[i], folder, kinds[which].name, kinds[which].archive);
    CV_TRY(data_file_size(path, &bytes, err));
    CV_TRY(data_cifar_count(which, bytes, path, &records, err));
    if (i > 0 && records != *n)
      return cv_fail(err, CURVD_ERR_DATA, "%s: has %" PRId64 " records, but %s has %" PRId64 "; unpack %s again", path,
                     records, names[0], *n, kinds[which].archive);
    *n = records;
  }
  return CURVD_OK;
}

static curvd_status arrays_new(int is_autoencoder, cv_memory *memory, data_set *set, cv_error *err) {
  void *pixels = NULL, *labels = NULL;
  CV_TRY(cv_memory_new(memory, CV_MEMORY_DATA, set->n, DATA_CIFAR_PIXELS, "images", &pixels, err));
  set->pixels = pixels;
  if (is_autoencoder) return CURVD_OK;
  CV_TRY(cv_memory_new(memory, CV_MEMORY_DATA, set->n, sizeof(int32_t), "labels", &labels, err));
  set->labels = labels;
  return CURVD_OK;
}

static curvd_status read_files(data_cifar which, const char *folder, const char *const *names, int n_files,
                               uint8_t *block, const data_set *set, cv_error *err) {
  char path[DATA_PATH_BYTES];
  int64_t n = set->n / n_files;
  for (int i = 0; i < n_files; i++) {
    if (!data_folder_has(folder, names[i], path))
      return cv_fail(err, CURVD_ERR_IO, "%s in the folder %s is gone", names[i], folder);
    CV_TRY(read_file(which, path, n, block, set->pixels + i * n * DATA_CIFAR_PIXELS,
                     set->labels == NULL ? NULL : set->labels + i * n, err));
  }
  return CURVD_OK;
}

static curvd_status load_half(data_cifar which, const data_request *request, const char *const *names, int n_files,
                              cv_memory *memory, data_set *set, cv_error *err) {
  const data_shape shape = {DATA_CIFAR_SIDE, DATA_CIFAR_SIDE, DATA_CIFAR_CHANNELS};
  const cifar *kind = &kinds[which];
  int64_t n = 0;
  void *block = NULL;
  CV_TRY(find_files(which, request->source, names, n_files, &n, err));
  *set = (data_set){.n = n * n_files, .d_in = DATA_CIFAR_PIXELS, .shape = shape, .stored = shape};
  set->d_out = request->is_autoencoder ? set->d_in : kind->classes[kind->n_labels - 1];
  CV_TRY(arrays_new(request->is_autoencoder, memory, set, err));
  CV_TRY(cv_memory_new(memory, CV_MEMORY_DATA, RECORDS_AT_ONCE, record_bytes(kind), "records", &block, err));
  curvd_status status = read_files(which, request->source, names, n_files, block, set, err);
  cv_memory_free(memory, &block);
  return status;
}

/* ---- The whole ---- */

bool data_cifar_find(const char *folder, data_cifar *which) {
  char path[DATA_PATH_BYTES];
  for (int k = 0; k < (int)(sizeof kinds / sizeof *kinds); k++) {
    bool is_there = data_folder_has(folder, kinds[k].test[0], path);
    for (int i = 0; i < kinds[k].n_train_files; i++) is_there |= data_folder_has(folder, kinds[k].train[i], path);
    *which = (data_cifar)k;
    if (is_there) return true;
  }
  return false;
}

curvd_status data_cifar_load(data_cifar which, const data_request *request, cv_memory *memory, data_pair *pair,
                             cv_error *err) {
  const cifar *kind = &kinds[which];
  data_scale *scale = &pair->train.scale;
  CV_TRY(load_half(which, request, kind->train, kind->n_train_files, memory, &pair->train, err));
  if (request->is_autoencoder)
    data_scale_set(1, (const float[]){0}, (const float[]){1}, scale);
  else if (which == DATA_CIFAR_10)
    data_scale_set(DATA_CIFAR_CHANNELS, cifar_10_mean, cifar_10_deviation, scale);
  else
    data_scale_measure(&pair->train, scale);
  if (request->validation > 0) return CURVD_OK;
  CV_TRY(load_half(which, request, kind->test, 1, memory, &pair->test, err));
  pair->test.scale = *scale;
  return CURVD_OK;
}
