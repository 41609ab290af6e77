/* A data set as a whole: loading it, cutting validation examples off, and its batches. */
#include "base/rng.h"
#include "train/data_parts.h"

#include <inttypes.h>
#include <string.h>

static void set_free(cv_memory *memory, data_set *set) {
  void *blocks[] = {set->pixels, set->features, set->labels, set->targets};
  for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++) cv_memory_free(memory, &blocks[i]);
  *set = (data_set){0};
}

void data_free(cv_memory *memory, data_pair *pair) {
  set_free(memory, &pair->train);
  set_free(memory, &pair->test);
}

/* Copies rows first .. first + n - 1 to a block of their own; rows may be NULL. */
static curvd_status copy_rows(const void *rows, int64_t first, int64_t n, int64_t row_bytes, cv_memory *memory,
                              void **copy, cv_error *err) {
  *copy = NULL;
  if (rows == NULL) return CURVD_OK;
  CV_TRY(cv_memory_new(memory, CV_MEMORY_DATA, n, row_bytes, "validation examples", copy, err));
  memcpy(*copy, (const char *)rows + first * row_bytes, (size_t)(n * row_bytes));
  return CURVD_OK;
}

/* Moves the last n examples of the training half to the empty test half. */
static curvd_status split(data_pair *pair, int64_t n, cv_memory *memory, cv_error *err) {
  data_set *train = &pair->train, *test = &pair->test;
  if (n >= train->n)
    return cv_fail(err, CURVD_ERR_OPTION, "validation_images %" PRId64 " of %" PRId64 " training examples; leave some",
                   n, train->n);
  train->n -= n;
  *test = (data_set){.n = n,
                     .d_in = train->d_in,
                     .d_out = train->d_out,
                     .shape = train->shape,
                     .stored = train->stored,
                     .scale = train->scale};
  int64_t real = sizeof(float), d = data_shape_size(train->stored);
  void *copy;
  CV_TRY(copy_rows(train->pixels, train->n, n, d, memory, &copy, err));
  test->pixels = copy;
  CV_TRY(copy_rows(train->features, train->n, n, d * real, memory, &copy, err));
  test->features = copy;
  CV_TRY(copy_rows(train->labels, train->n, n, sizeof(int32_t), memory, &copy, err));
  test->labels = copy;
  CV_TRY(copy_rows(train->targets, train->n, n, train->d_out * real, memory, &copy, err));
  test->targets = copy;
  return CURVD_OK;
}

static curvd_status load_teacher(const data_request *request, cv_memory *memory, data_pair *pair, cv_error *err) {
  int64_t n_test = request->teacher_samples / 6, n_train = request->teacher_samples - n_test;
  if (n_test < 1)
    return cv_fail(err, CURVD_ERR_OPTION, "teacher_samples %" PRId64 ", expected at least 6: one in 6 is for the test",
                   request->teacher_samples);
  CV_TRY(data_teacher_make(request, 0, n_train, memory, &pair->train, err));
  if (request->validation > 0) return CURVD_OK;
  return data_teacher_make(request, n_train, n_test, memory, &pair->test, err);
}

curvd_status data_load(const data_request *request, cv_memory *memory, data_pair *pair, cv_error *err) {
  data_pair loaded = {.train = {.n = 0}};
  bool is_teacher = strcmp(request->source, "teacher") == 0;
  curvd_status status = (is_teacher ? load_teacher : data_folder_load)(request, memory, &loaded, err);
  if (status == CURVD_OK) status = data_shape_fit(request, &loaded.train, err);
  if (status == CURVD_OK && request->validation == 0) status = data_shape_fit(request, &loaded.test, err);
  if (status == CURVD_OK && request->validation > 0) status = split(&loaded, request->validation, memory, err);
  if (status == CURVD_OK)
    *pair = loaded;
  else
    data_free(memory, &loaded);
  return status;
}

/* Fisher and Yates. */
void data_order(uint64_t seed, int64_t epoch, int64_t n, int64_t *order) {
  cv_rng rng = {.seed = seed, .stream = CV_RNG_ORDER, .a = (uint32_t)epoch};
  for (int64_t i = 0; i < n; i++) order[i] = i;
  for (int64_t i = n - 1; i > 0; i--) {
    int64_t j = (int64_t)cv_rng_below(&rng, (uint64_t)i, (uint64_t)i + 1), swapped = order[i];
    order[i] = order[j];
    order[j] = swapped;
  }
}

void data_labels(const data_set *set, const int64_t *index, int64_t rows, int32_t *labels) {
  for (int64_t i = 0; i < rows; i++) labels[i] = set->labels[index[i]];
}

void data_targets(const data_set *set, const int64_t *index, int64_t rows, const data_augment *augment, float *targets,
                  int64_t ld) {
  if (set->labels == NULL && set->targets == NULL) {
    data_features(set, index, rows, augment, targets, ld);
    return;
  }
  for (int64_t i = 0; i < rows; i++) {
    float *row = targets + i * ld;
    if (set->targets != NULL) {
      memcpy(row, set->targets + index[i] * set->d_out, (size_t)set->d_out * sizeof(float));
    } else {
      for (int64_t j = 0; j < set->d_out; j++) row[j] = 0;
      row[set->labels[index[i]]] = 1;
    }
  }
}
