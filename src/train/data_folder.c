/* Data sets that are a folder of files: Fashion-MNIST, or a user's own. */
#include "train/data_parts.h"

#include <float.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { CLASSES_MAX = 65536 };

static const float fashion_mean[] = {0.2860f}, fashion_deviation[] = {0.3530f}; /* of its training images */
static const char *const fashion_folder = "/usr/share/datasets/fashion-mnist";

/* The files of one half of a data set, in the order in which they are looked for. */
enum { N_CANDIDATES = 3 };
typedef struct file_names {
  const char *examples[N_CANDIDATES], *labels[N_CANDIDATES];
} file_names;
static const file_names train_names = {{"train-images-idx3-ubyte.gz", "train-images-idx3-ubyte", "train_x.npy"},
                                       {"train-labels-idx1-ubyte.gz", "train-labels-idx1-ubyte", "train_y.npy"}};
static const file_names test_names = {{"t10k-images-idx3-ubyte.gz", "t10k-images-idx3-ubyte", "test_x.npy"},
                                      {"t10k-labels-idx1-ubyte.gz", "t10k-labels-idx1-ubyte", "test_y.npy"}};

bool data_folder_has(const char *folder, const char *name, char path[DATA_PATH_BYTES]) {
  struct stat info;
  int length = snprintf(path, DATA_PATH_BYTES, "%s/%s", folder, name);
  return length < DATA_PATH_BYTES && stat(path, &info) == 0;
}

static bool has_one(const char *folder, const char *const names[N_CANDIDATES], char path[DATA_PATH_BYTES]) {
  for (int i = 0; i < N_CANDIDATES; i++)
    if (data_folder_has(folder, names[i], path)) return true;
  return false;
}

static curvd_status find_file(const char *folder, const char *const names[N_CANDIDATES], const char *hint, char *path,
                              cv_error *err) {
  if (has_one(folder, names, path)) return CURVD_OK;
  return cv_fail(err, CURVD_ERR_IO, "no %s, %s or %s in the folder %s; %s", names[0], names[1], names[2], folder, hint);
}

static curvd_status check_numbers(const data_array *array, float min, float max, const char *path, const char *expected,
                                  cv_error *err) {
  const float *values = array->values;
  for (int64_t i = 0; i < array->count; i++)
    if (!(values[i] >= min && values[i] <= max))
      return cv_fail(err, CURVD_ERR_DATA, "%s: value %" PRId64 " is %g, expected %s", path, i, (double)values[i],
                     expected);
  return CURVD_OK;
}

typedef struct place {
  const char *path;
  const char *hint; /* what to do when a file is missing */
  int is_autoencoder;
  bool is_fashion;
} place;

/* (examples, features), (examples, height, width) or (examples, height, width, channels). */
static data_shape shape_of(const data_array *array) {
  const int64_t *length = array->shape;
  if (array->n_dimensions == 2) return (data_shape){1, 1, length[1]};
  return (data_shape){length[1], length[2], array->n_dimensions == 3 ? 1 : length[3]};
}

static curvd_status check_examples(const data_array *array, const place *from, const char *path, cv_error *err) {
  if (array->n_dimensions < 2 || array->type == DATA_I32)
    return cv_fail(err, CURVD_ERR_DATA,
                   "%s: has %d dimensions of %s, expected at least 2 (examples, features) of bytes or real numbers",
                   path, array->n_dimensions, array->type == DATA_I32 ? "integers" : "numbers");
  if (array->type == DATA_F32) {
    float min = from->is_autoencoder ? 0 : -FLT_MAX, max = from->is_autoencoder ? 1 : FLT_MAX;
    return check_numbers(array, min, max, path, from->is_autoencoder ? "0 to 1 for an autoencoder" : "a finite number",
                         err);
  }
  if (array->n_dimensions == 4 && array->shape[3] > DATA_CHANNELS_MAX)
    return cv_fail(err, CURVD_ERR_DATA,
                   "%s: has images of %" PRId64 "x%" PRId64 "x%" PRId64
                   ", expected (height, width, channels) with at most %d channels; move the axis of the channels last",
                   path, array->shape[1], array->shape[2], array->shape[3], (int)DATA_CHANNELS_MAX);
  return CURVD_OK;
}

/* Both halves are scaled alike; train is NULL while its own scale is sought. */
static void scale_examples(const place *from, bool is_flat, const data_set *train, data_set *set) {
  if (from->is_autoencoder || set->pixels == NULL)
    data_scale_set(1, (const float[]){0}, (const float[]){1}, &set->scale);
  else if (train != NULL)
    set->scale = train->scale;
  else if (from->is_fashion || is_flat)
    data_scale_set(1, fashion_mean, fashion_deviation, &set->scale);
  else
    data_scale_measure(set, &set->scale);
}

/* Moves the array into the set, or leaves it alone when it refuses it. */
static curvd_status take_examples(data_array *array, const place *from, const char *path, const data_set *train,
                                  data_set *set, cv_error *err) {
  CV_TRY(check_examples(array, from, path, err));
  set->n = array->shape[0];
  set->d_in = set->d_out = array->count / set->n;
  set->shape = set->stored = shape_of(array);
  if (array->type == DATA_U8)
    set->pixels = array->values;
  else
    set->features = array->values;
  array->values = NULL;
  scale_examples(from, array->n_dimensions == 2, train, set);
  return CURVD_OK;
}

/* Labels in [0, n_classes); n_classes 0: the largest label says how many there are. */
static curvd_status check_labels(const int32_t *labels, int64_t n, int64_t n_classes, const char *path, int64_t *found,
                                 cv_error *err) {
  int64_t bound = n_classes == 0 ? CLASSES_MAX : n_classes, max = 0;
  for (int64_t i = 0; i < n; i++) {
    if (labels[i] < 0 || labels[i] >= bound)
      return cv_fail(err, CURVD_ERR_DATA, "%s: label %" PRId64 " is %d, expected 0 to %" PRId64 "%s", path, i,
                     (int)labels[i], bound - 1, n_classes == 0 ? "" : ", as in the training labels");
    if (labels[i] > max) max = labels[i];
  }
  if (n_classes == 0 && max == 0)
    return cv_fail(err, CURVD_ERR_DATA, "%s: all %" PRId64 " labels are 0, expected at least 2 classes", path, n);
  *found = n_classes == 0 ? max + 1 : n_classes;
  return CURVD_OK;
}

static curvd_status widen_bytes(data_array *array, cv_memory *memory, cv_error *err) {
  void *wide = NULL;
  CV_TRY(cv_memory_new(memory, CV_MEMORY_DATA, array->count, sizeof(int32_t), "labels", &wide, err));
  const uint8_t *bytes = array->values;
  int32_t *labels = wide;
  for (int64_t i = 0; i < array->count; i++) labels[i] = bytes[i];
  data_array_free(memory, array);
  array->values = wide;
  array->type = DATA_I32;
  return CURVD_OK;
}

/* Moves the array into the set as labels (whole numbers, one dimension) or targets (real numbers). */
static curvd_status take_labels(data_array *array, const data_set *train, const char *path, cv_memory *memory,
                                data_set *set, cv_error *err) {
  if (array->shape[0] != set->n)
    return cv_fail(err, CURVD_ERR_DATA, "%s: has %" PRId64 " labels for %" PRId64 " examples", path, array->shape[0],
                   set->n);
  bool is_real = array->type == DATA_F32;
  if (is_real ? array->n_dimensions > 2 : array->n_dimensions > 1)
    return cv_fail(err, CURVD_ERR_DATA, "%s: has %d dimensions, expected 1 of whole numbers or 1 or 2 of real ones",
                   path, array->n_dimensions);
  if (train != NULL && is_real != (train->targets != NULL))
    return cv_fail(err, CURVD_ERR_DATA, "%s: holds %s, but the training half holds %s", path,
                   is_real ? "real targets" : "labels", is_real ? "labels" : "real targets");
  if (is_real) {
    CV_TRY(check_numbers(array, -FLT_MAX, FLT_MAX, path, "a finite number", err));
    set->d_out = array->count / set->n;
    set->targets = array->values;
  } else {
    if (array->type == DATA_U8) CV_TRY(widen_bytes(array, memory, err));
    CV_TRY(check_labels(array->values, set->n, train == NULL ? 0 : train->d_out, path, &set->d_out, err));
    set->labels = array->values;
  }
  array->values = NULL;
  return CURVD_OK;
}

static curvd_status check_widths(const data_set *train, const data_set *set, const char *folder, cv_error *err) {
  bool is_same =
      data_shape_is_same(set->shape, train->shape) && set->d_out == train->d_out && !set->pixels == !train->pixels;
  if (is_same) return CURVD_OK;
  char mine[DATA_SHAPE_TEXT], theirs[DATA_SHAPE_TEXT];
  return cv_fail(err, CURVD_ERR_DATA,
                 "%s: test examples have %s %s and %" PRId64 " outputs, training examples %s %s and %" PRId64, folder,
                 data_shape_text(set->shape, mine), set->pixels == NULL ? "numbers" : "pixels", set->d_out,
                 data_shape_text(train->shape, theirs), train->pixels == NULL ? "numbers" : "pixels", train->d_out);
}

static curvd_status load_labels(const place *from, const file_names *names, const data_set *train, cv_memory *memory,
                                data_set *set, cv_error *err) {
  char path[DATA_PATH_BYTES];
  data_array array = {.values = NULL};
  CV_TRY(find_file(from->path, names->labels, from->hint, path, err));
  CV_TRY(data_file_read(path, memory, &array, err));
  curvd_status status = take_labels(&array, train, path, memory, set, err);
  data_array_free(memory, &array);
  return status;
}

/* One half of the data set; train is the other half when this is the test half, else NULL. */
static curvd_status load_half(const place *from, const file_names *names, const data_set *train, cv_memory *memory,
                              data_set *set, cv_error *err) {
  char path[DATA_PATH_BYTES];
  data_array array = {.values = NULL};
  CV_TRY(find_file(from->path, names->examples, from->hint, path, err));
  CV_TRY(data_file_read(path, memory, &array, err));
  curvd_status status = take_examples(&array, from, path, train, set, err);
  data_array_free(memory, &array);
  if (status == CURVD_OK && !from->is_autoencoder) status = load_labels(from, names, train, memory, set, err);
  return status == CURVD_OK && train != NULL ? check_widths(train, set, from->path, err) : status;
}

curvd_status data_folder_load(const data_request *request, cv_memory *memory, data_pair *pair, cv_error *err) {
  place from = {.path = request->source,
                .hint = "name a folder that has it, or the .bin files of CIFAR",
                .is_autoencoder = request->is_autoencoder,
                .is_fashion = strcmp(request->source, "fashion-mnist") == 0};
  char path[DATA_PATH_BYTES];
  data_cifar cifar;
  if (from.is_fashion) {
    const char *named = getenv("CURVD_DATA_DIR");
    from.path = named == NULL || named[0] == '\0' ? fashion_folder : named;
    from.hint = "apt-get install dataset-fashion-mnist, or set CURVD_DATA_DIR to the folder that has it";
  } else if (!has_one(from.path, train_names.examples, path) && data_cifar_find(from.path, &cifar)) {
    return data_cifar_load(cifar, request, memory, pair, err);
  }
  CV_TRY(load_half(&from, &train_names, NULL, memory, &pair->train, err));
  if (request->validation > 0) return CURVD_OK;
  return load_half(&from, &test_names, &pair->train, memory, &pair->test, err);
}
