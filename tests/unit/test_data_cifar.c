/* CIFAR's binary files, written by hand and damaged; the loops here write planes, the reader hands out channels last.
 */
#include "data_files.h"

#include <math.h>
#include <sys/stat.h>

enum { SIDE = 32, PLANE = SIDE * SIDE, PIXELS = 3 * PLANE, N_MAX = 300, COARSE = 19 };

static uint8_t records[N_MAX * (2 + PIXELS)];

static uint8_t pixel_at(int image, int channel, int y, int x) {
  return (uint8_t)(image * 101 + channel * 67 + y * 31 + x * 7 + (x * y) % 13);
}

/* n records of images first .. first + n - 1; image i has label i mod classes. Returns their bytes. */
static size_t make_records(data_cifar kind, int first, int n) {
  uint8_t *at = records;
  for (int i = first; i < first + n; i++) {
    if (kind == DATA_CIFAR_100) *at++ = COARSE;
    *at++ = (uint8_t)(i % (kind == DATA_CIFAR_10 ? 10 : 100));
    for (int c = 0; c < 3; c++)
      for (int y = 0; y < SIDE; y++)
        for (int x = 0; x < SIDE; x++) *at++ = pixel_at(i, c, y, x);
  }
  return (size_t)(at - records);
}

static void write_records(const char *name, data_cifar kind, int first, int n) {
  size_t bytes = make_records(kind, first, n);
  write_parts(name, "", 0, records, bytes);
}

static const char *const train_names[] = {"data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin",
                                          "data_batch_4.bin", "data_batch_5.bin"};

static void write_cifar_10(int n) {
  for (int i = 0; i < 5; i++) write_records(train_names[i], DATA_CIFAR_10, i * n, n);
  write_records("test_batch.bin", DATA_CIFAR_10, 5 * n, n);
}

static void write_cifar_100(int n_train, int n_test) {
  write_records("train.bin", DATA_CIFAR_100, 0, n_train);
  write_records("test.bin", DATA_CIFAR_100, n_train, n_test);
}

static void assert_images(const uint8_t *pixels, int first, int n) {
  for (int i = 0; i < n; i++)
    for (int p = 0; p < PLANE; p++)
      for (int c = 0; c < 3; c++)
        ck_assert_int_eq(pixels[i * PIXELS + p * 3 + c], pixel_at(first + i, c, p / SIDE, p % SIDE));
}

/* The parser gets a copy of exactly so many bytes, so that the address sanitizer sees every byte read beyond. */
static curvd_status parse(data_cifar kind, int64_t first, int64_t n, uint8_t *pixels, int32_t *labels) {
  size_t bytes = (size_t)n * (PIXELS + (kind == DATA_CIFAR_10 ? 1 : 2));
  uint8_t *copy = malloc(bytes);
  memcpy(copy, records, bytes);
  cv_error_clear(&err);
  curvd_status status = data_cifar_parse(kind, copy, first, n, "batch.bin", pixels, labels, &err);
  free(copy);
  return status;
}

START_TEST(test_records) {
  uint8_t pixels[3 * PIXELS];
  int32_t labels[3];
  make_records(DATA_CIFAR_10, 8, 3);
  ck_assert_int_eq(parse(DATA_CIFAR_10, 0, 3, pixels, labels), CURVD_OK);
  assert_images(pixels, 8, 3);
  ck_assert(labels[0] == 8 && labels[1] == 9 && labels[2] == 0);
  make_records(DATA_CIFAR_100, 98, 3); /* the fine label, not the coarse one */
  ck_assert_int_eq(parse(DATA_CIFAR_100, 0, 3, pixels, labels), CURVD_OK);
  assert_images(pixels, 98, 3);
  ck_assert(labels[0] == 98 && labels[1] == 99 && labels[2] == 0);
}
END_TEST

START_TEST(test_labels_out_of_range) {
  static const struct {
    data_cifar kind;
    int at; /* byte of the second record */
    uint8_t label;
    const char *words;
  } bad[] = {{DATA_CIFAR_10, 0, 10, "batch.bin: label byte 1 of record 41 is 10, expected 0 to 9"},
             {DATA_CIFAR_10, 0, 255, "label byte 1 of record 41 is 255"},
             {DATA_CIFAR_100, 0, 20, "label byte 1 of record 41 is 20, expected 0 to 19"},
             {DATA_CIFAR_100, 1, 100, "label byte 2 of record 41 is 100, expected 0 to 99; unpack cifar-100-binary"}};
  uint8_t pixels[2 * PIXELS];
  int32_t labels[2];
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    size_t record = make_records(bad[i].kind, 0, 2) / 2;
    records[record + (size_t)bad[i].at] = bad[i].label;
    for (int wants_labels = 0; wants_labels < 2; wants_labels++) {
      ck_assert_int_eq(parse(bad[i].kind, 40, 2, pixels, wants_labels ? labels : NULL), CURVD_ERR_DATA);
      ck_assert_msg(strstr(err.text, bad[i].words) != NULL, "\"%s\" not in: %s", bad[i].words, err.text);
    }
  }
}
END_TEST

START_TEST(test_sizes_of_files) {
  static const int64_t good[][3] = {{DATA_CIFAR_10, 3073, 1},
                                    {DATA_CIFAR_10, 30730000, 10000}, /* of the real files */
                                    {DATA_CIFAR_100, 153700000, 50000},
                                    {DATA_CIFAR_100, (int64_t)3074 << 20, 1 << 20}};
  static const int64_t bad[][2] = {
      {DATA_CIFAR_10, 0},     {DATA_CIFAR_10, 3072},      {DATA_CIFAR_10, 3074},
      {DATA_CIFAR_10, 6145},  {DATA_CIFAR_10, 153700000}, {DATA_CIFAR_10, (int64_t)3073 * ((1 << 20) + 1)},
      {DATA_CIFAR_100, 3073}, {DATA_CIFAR_100, -3074},    {DATA_CIFAR_100, INT64_MAX},
      {DATA_CIFAR_100, 6147}, {DATA_CIFAR_100, 30730000}, {DATA_CIFAR_100, INT64_MAX / 3074 * 3074}};
  for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
    int64_t n = 0;
    ck_assert_int_eq(data_cifar_count((data_cifar)good[i][0], good[i][1], "batch.bin", &n, &err), CURVD_OK);
    ck_assert_int_eq(n, good[i][2]);
  }
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    int64_t n = -1;
    char bytes[40];
    snprintf(bytes, sizeof bytes, "batch.bin: has %lld bytes", (long long)bad[i][1]);
    cv_error_clear(&err);
    ck_assert_int_eq(data_cifar_count((data_cifar)bad[i][0], bad[i][1], "batch.bin", &n, &err), CURVD_ERR_DATA);
    ck_assert_msg(strstr(err.text, bytes) != NULL && n == -1, "%s", err.text);
  }
}
END_TEST

START_TEST(test_cifar_10) {
  static const double mean[] = {0.4914, 0.4822, 0.4465}, deviation[] = {0.2470, 0.2435, 0.2616};
  float x[PIXELS];
  write_cifar_10(3);
  assert_request_loads((data_request){.seed = 0});
  const data_set *train = &pair.train, *test = &pair.test;
  ck_assert(train->n == 15 && test->n == 3 && train->d_in == PIXELS && train->d_out == 10 && test->d_out == 10);
  ck_assert(train->shape.height == SIDE && train->shape.width == SIDE && train->shape.channels == 3);
  assert_images(train->pixels, 0, 15);
  assert_images(test->pixels, 15, 3);
  for (int i = 0; i < 15; i++) ck_assert_int_eq(train->labels[i], i % 10);
  ck_assert(test->labels[0] == 5 && test->labels[2] == 7);
  for (int half = 0; half < 2; half++) { /* image 7 is training example 7, image 16 is test example 1 */
    const int64_t index = half == 0 ? 7 : 1;
    data_features(half == 0 ? train : test, &index, 1, NULL, x, PIXELS);
    for (int j = 0; j < PIXELS; j++) {
      double pixel = pixel_at(half == 0 ? 7 : 16, j % 3, j / 3 / SIDE, j / 3 % SIDE);
      ck_assert_double_le(fabs(x[j] - (pixel / 255 - mean[j % 3]) / deviation[j % 3]), 2e-6); /* a few ulp of 2.3 */
    }
  }
}
END_TEST

/* A file of 300 records is read in two pieces. */
START_TEST(test_cifar_100) {
  write_cifar_100(300, 2);
  assert_request_loads((data_request){.seed = 0});
  ck_assert(pair.train.n == 300 && pair.test.n == 2 && pair.train.d_out == 100 && pair.test.d_out == 100);
  assert_images(pair.train.pixels, 0, 300);
  assert_images(pair.test.pixels, 300, 2);
  for (int i = 0; i < 300; i++) ck_assert_int_eq(pair.train.labels[i], i % 100);
  ck_assert_mem_eq(&pair.test.scale, &pair.train.scale, sizeof pair.test.scale);
  for (int c = 0; c < 3; c++) { /* of the training images */
    double sum = 0, squares = 0, n = 300 * PLANE;
    for (int i = 0; i < 300 * PLANE; i++) sum += pixel_at(i / PLANE, c, i % PLANE / SIDE, i % SIDE) / 255.0;
    for (int i = 0; i < 300 * PLANE; i++)
      squares += pow(pixel_at(i / PLANE, c, i % PLANE / SIDE, i % SIDE) / 255.0 - sum / n, 2);
    ck_assert_double_le(fabs(pair.train.scale.mean[c] - sum / n), 1e-7);
    ck_assert_double_le(fabs(pair.train.scale.deviation[c] - sqrt(squares / n)), 1e-7);
  }
}
END_TEST

START_TEST(test_parts_of_cifar) {
  float x[PIXELS], y[PIXELS];
  const int64_t index = 4;
  write_cifar_10(2);
  unlink(in_folder("test_batch.bin")); /* not read */
  assert_request_loads((data_request){.validation = 3});
  ck_assert(pair.train.n == 7 && pair.test.n == 3);
  assert_images(pair.test.pixels, 7, 3);
  ck_assert_mem_eq(&pair.test.scale, &pair.train.scale, sizeof pair.test.scale);
  assert_request_loads((data_request){.is_autoencoder = 1, .validation = 3});
  ck_assert(pair.train.labels == NULL && pair.train.d_out == PIXELS);
  data_features(&pair.train, &index, 1, NULL, x, PIXELS);
  data_targets(&pair.train, &index, 1, NULL, y, PIXELS);
  ck_assert_mem_eq(x, y, sizeof x);
  for (int j = 0; j < PIXELS; j++) ck_assert(x[j] == (float)pixel_at(4, j % 3, j / 3 / SIDE, j / 3 % SIDE) / 255);
}
END_TEST

START_TEST(test_refused_folders) {
  const data_request any = {.seed = 0};
  write_cifar_10(2);
  unlink(in_folder("data_batch_3.bin"));
  assert_request_refused(any, CURVD_ERR_IO, "no data_batch_3.bin in the folder");
  write_cifar_10(2);
  unlink(in_folder("data_batch_1.bin"));
  assert_request_refused(any, CURVD_ERR_IO, "no data_batch_1.bin in the folder");
  write_cifar_10(2);
  unlink(in_folder("test_batch.bin"));
  assert_request_refused(any, CURVD_ERR_IO, "no test_batch.bin in the folder");
  write_cifar_10(2);
  write_records("data_batch_4.bin", DATA_CIFAR_10, 0, 1); /* cut at the end of a record */
  assert_request_refused(any, CURVD_ERR_DATA, "data_batch_4.bin: has 1 records, but data_batch_1.bin has 2");
  write_parts("data_batch_4.bin", "", 0, records, 3073 + 3072);
  assert_request_refused(any, CURVD_ERR_DATA, "data_batch_4.bin: has 6145 bytes, expected a multiple of the 3073");
  write_parts("data_batch_4.bin", "", 0, records, 0);
  assert_request_refused(any, CURVD_ERR_DATA, "data_batch_4.bin: has 0 bytes");
  ck_assert_int_eq(truncate(in_folder("data_batch_4.bin"), (off_t)3073 * ((1 << 20) + 1)), 0); /* a hole */
  assert_request_refused(any, CURVD_ERR_DATA, "expected at most 1048576");
  make_records(DATA_CIFAR_10, 0, 2);
  records[3073] = 10;
  write_parts("data_batch_4.bin", "", 0, records, 2 * 3073);
  assert_request_refused(any, CURVD_ERR_DATA, "data_batch_4.bin: label byte 1 of record 1 is 10");
  unlink(in_folder("data_batch_4.bin"));
  ck_assert_int_eq(mkdir(in_folder("data_batch_4.bin"), 0700), 0);
  assert_request_refused(any, CURVD_ERR_IO, "data_batch_4.bin: it is not a regular file");
}
END_TEST

/* The record's number counts from the start of the file, beyond the first piece too. */
START_TEST(test_late_bad_label) {
  size_t bytes = make_records(DATA_CIFAR_100, 0, 300);
  records[299 * 3074 + 1] = 100;
  write_parts("train.bin", "", 0, records, bytes);
  assert_request_refused((data_request){.seed = 0}, CURVD_ERR_DATA, "train.bin: label byte 2 of record 299 is 100");
  make_records(DATA_CIFAR_10, 0, 300); /* the other kind under this name */
  write_parts("train.bin", "", 0, records, (size_t)300 * 3073);
  assert_request_refused((data_request){.seed = 0}, CURVD_ERR_DATA, "expected a multiple of the 3074");
}
END_TEST

START_TEST(test_other_files_come_first) {
  write_npy("train_x.npy", "<f4", "2, 1", (float[]){1, 2}, 8);
  write_npy("train_y.npy", "|u1", "2,", "\0\1", 2);
  write_npy("test_x.npy", "<f4", "1, 1", (float[]){1}, 4);
  write_npy("test_y.npy", "|u1", "1,", "\1", 1);
  write_parts("test.bin", "", 0, "x", 1);
  assert_request_loads((data_request){.seed = 0});
  ck_assert(pair.train.d_in == 1);
  unlink(in_folder("train_x.npy"));
  assert_request_refused((data_request){.seed = 0}, CURVD_ERR_IO, "no train.bin in the folder");
  unlink(in_folder("test.bin"));
  assert_request_refused((data_request){.seed = 0}, CURVD_ERR_IO, "or the .bin files of CIFAR");
}
END_TEST

int main(void) {
  const TTest *const tests[] = {test_records,         test_labels_out_of_range, test_sizes_of_files,
                                test_cifar_10,        test_cifar_100,           test_parts_of_cifar,
                                test_refused_folders, test_late_bad_label,      test_other_files_come_first};
  return folder_suite_run("data_cifar", tests, sizeof tests / sizeof tests[0]);
}
