/* A folder with train_x, train_y, test_x and test_y as npy or idx. Two bytes of settings, then each file: its length in
 * two bytes, low one first, and its bytes; the last file has what is left. */
#include "train/data.h"

#include "fuzz_files.h"

enum { FILES = 4 };

static const char *const names[FILES] = {"train_x.npy", "train_y.npy", "test_x.npy", "test_y.npy"};

static void write_files(const char *folder, const uint8_t *bytes, size_t n_bytes) {
  for (int i = 0; i < FILES; i++) {
    size_t n = 0;
    if (n_bytes >= 2) {
      n = bytes[0] | (size_t)bytes[1] << 8;
      bytes += 2, n_bytes -= 2;
    }
    if (n > n_bytes || i == FILES - 1) n = n_bytes;
    fuzz_file_write(folder, names[i], bytes, n);
    bytes += n, n_bytes -= n;
  }
}

/* Hands out the first and the last example, as training does. */
static void look(const data_set *set, const data_augment *augment) {
  const int64_t index[] = {0, set->n - 1};
  float *x = malloc((size_t)(2 * set->d_in) * sizeof *x), *y = malloc((size_t)(2 * set->d_out) * sizeof *y);
  int32_t label[2];
  fuzz_require(x != NULL && y != NULL, "there is memory for the harness");
  data_features(set, index, 2, augment, x, set->d_in);
  data_targets(set, index, 2, augment, y, set->d_out);
  if (set->labels != NULL) data_labels(set, index, 2, label);
  free(x);
  free(y);
}

void fuzz_folder(const uint8_t *bytes, size_t n_bytes) {
  static char folder[] = FUZZ_FOLDER;
  if (n_bytes < 2) return;
  cv_memory memory = {.n_allocations = 0};
  cv_error err = {.code = CURVD_OK};
  data_pair pair = {.train = {.n = 0}};
  const data_augment augment = {.seed = 1, .pad = bytes[1] & 3};
  const data_request request = {.source = folder,
                                .is_autoencoder = bytes[0] & 1,
                                .validation = bytes[0] & 2 ? bytes[0] >> 4 : 0,
                                .augments = bytes[0] >> 2 & 1,
                                .augment_pad = augment.pad,
                                .shape = bytes[0] & 8 ? (data_shape){bytes[1] >> 4, bytes[1] >> 4, 3}
                                                      : (data_shape){0, 0, 0}};
  fuzz_folder_make(folder);
  write_files(folder, bytes + 2, n_bytes - 2);
  curvd_status status = data_load(&request, &memory, &pair, &err);
  fuzz_folder_remove(folder, names, FILES);
  fuzz_outcome(status, &err);
  if (status == CURVD_OK) {
    fuzz_require(pair.train.d_in == pair.test.d_in && pair.train.d_out == pair.test.d_out, "both halves are as wide");
    look(&pair.train, request.augments ? &augment : NULL);
    look(&pair.test, NULL);
  }
  data_free(&memory, &pair);
  fuzz_memory(&memory, INT64_MAX);
}
