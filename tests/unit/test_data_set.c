/* Data sets: folders written by hand, the real Fashion-MNIST, the synthetic teacher; orders and batches. */
#include "data_files.h"

#include <math.h>

static const char *const all_names[] = {"train-images-idx3-ubyte",
                                        "train-labels-idx1-ubyte",
                                        "t10k-images-idx3-ubyte",
                                        "t10k-labels-idx1-ubyte",
                                        "train_x.npy",
                                        "train_y.npy",
                                        "test_x.npy",
                                        "test_y.npy"};

/* n images of 1 x 3 pixels. */
static void write_images(const char *name, uint8_t n, const void *pixels) {
  uint8_t head[16] = {0, 0, 8, 3, 0, 0, 0, n, 0, 0, 0, 1, 0, 0, 0, 3};
  write_parts(name, head, 16, pixels, (size_t)n * 3);
}

static void write_labels(const char *name, uint8_t n, const void *labels) {
  uint8_t head[8] = {0, 0, 8, 1, 0, 0, 0, n};
  write_parts(name, head, 8, labels, n);
}

static void write_good_idx(void) {
  write_images(all_names[0], 4,
               "\0\x33\xff"
               "\1\2\3"
               "\4\5\6"
               "\7\x08\x09");
  write_labels(all_names[1], 4, "\0\2\1\0");
  write_images(all_names[2], 2,
               "\x0a\x0b\x0c"
               "\xfd\xfe\xff");
  write_labels(all_names[3], 2, "\2\1");
}

static const float train_x[8] = {0, 1, 0.5f, 0.25f, 1, 0, 0.75f, 0.125f}, test_x[4] = {1, 1, 0, 0};

/* Four training and two test examples of two features, classes 0 to 2. */
static void write_good_npy(void) {
  write_npy("train_x.npy", "<f4", "4, 2", train_x, sizeof train_x);
  write_npy("train_y.npy", "<i4", "4,", (int32_t[]){0, 2, 1, 0}, 16);
  write_npy("test_x.npy", "<f4", "2, 2", test_x, sizeof test_x);
  write_npy("test_y.npy", "|u1", "2,", "\1\2", 2);
}

static data_request request_for(int is_autoencoder, int64_t validation) {
  return (data_request){.is_autoencoder = is_autoencoder, .validation = validation};
}

static curvd_status load(int is_autoencoder, int64_t validation) {
  return load_request(request_for(is_autoencoder, validation));
}

static void assert_loads(int is_autoencoder, int64_t validation) {
  assert_request_loads(request_for(is_autoencoder, validation));
}

static void assert_refused(int is_autoencoder, curvd_status code, const char *words) {
  assert_request_refused(request_for(is_autoencoder, 0), code, words);
}

START_TEST(test_idx_classes) {
  write_good_idx();
  assert_loads(0, 0);
  ck_assert(pair.train.n == 4 && pair.train.d_in == 3 && pair.train.d_out == 3);
  ck_assert(pair.test.n == 2 && pair.test.d_in == 3 && pair.test.d_out == 3);
  float x[2 * 5] = {7, 7, 7, 7, 7, 7, 7, 7, 7, 7};
  const int64_t index[] = {2, 0};
  data_features(&pair.train, index, 2, NULL, x, 5);
  const double pixels[] = {4, 5, 6, 0, 51, 255};
  /* of the 12 training pixels 0, 51, 255 and 1 to 9: the sum is 351, the sum of squares 67911 */
  const double mean = 351.0 / 12, deviation = sqrt(67911.0 / 12 - mean * mean);
  for (int i = 0; i < 10; i++) {
    double expected = i % 5 > 2 ? 7 : (pixels[i / 5 * 3 + i % 5] / 255 - mean / 255) / (deviation / 255);
    ck_assert_double_le(fabs(x[i] - expected), 1e-5); /* 3 roundings of numbers up to 3.5 */
  }
  int32_t labels[2];
  data_labels(&pair.train, index, 2, labels);
  ck_assert(labels[0] == 1 && labels[1] == 0);
  float targets[2 * 4] = {7, 7, 7, 7, 7, 7, 7, 7}; /* one-hot */
  data_targets(&pair.train, index, 2, NULL, targets, 4);
  const float expected[] = {0, 1, 0, 7, 1, 0, 0, 7};
  ck_assert_mem_eq(targets, expected, sizeof targets);
  data_labels(&pair.test, (const int64_t[]){0, 1}, 2, labels);
  ck_assert(labels[0] == 2 && labels[1] == 1);
}
END_TEST

START_TEST(test_idx_autoencoder) {
  write_good_idx();
  unlink(in_folder(all_names[1])); /* needs no labels */
  unlink(in_folder(all_names[3]));
  assert_loads(1, 0);
  ck_assert(pair.train.d_out == 3 && pair.train.labels == NULL && pair.train.targets == NULL);
  float x[3], targets[3];
  const int64_t index[] = {0};
  data_features(&pair.train, index, 1, NULL, x, 3);
  data_targets(&pair.train, index, 1, NULL, targets, 3);
  ck_assert(x[0] == 0 && x[1] == 0.2f && x[2] == 1);
  ck_assert_mem_eq(x, targets, sizeof x);
}
END_TEST

START_TEST(test_npy_classes) {
  write_good_npy();
  assert_loads(0, 0);
  ck_assert(pair.train.n == 4 && pair.train.d_in == 2 && pair.train.d_out == 3 && pair.test.n == 2);
  float x[4];
  int32_t label;
  data_features(&pair.train, (const int64_t[]){3, 1}, 2, NULL, x, 2);
  ck_assert(x[0] == 0.75f && x[1] == 0.125f && x[2] == 0.5f && x[3] == 0.25f);
  data_labels(&pair.test, (const int64_t[]){1}, 1, &label);
  ck_assert_int_eq(label, 2);
}
END_TEST

START_TEST(test_npy_targets) {
  write_good_npy();
  const double targets[] = {1, 2, 3, 4, 5, 6, 7, 8};
  write_npy("train_y.npy", "<f8", "4, 2", targets, 64);
  write_npy("test_y.npy", "<f8", "2, 2", targets, 32);
  assert_loads(0, 0);
  float y[2];
  data_targets(&pair.train, (const int64_t[]){2}, 1, NULL, y, 2);
  ck_assert(pair.train.d_out == 2 && pair.train.labels == NULL && y[0] == 5 && y[1] == 6);
  write_npy("train_y.npy", "<f4", "4,", train_x, 16); /* one dimension: one target */
  write_npy("test_y.npy", "<f4", "2,", train_x, 8);
  assert_loads(0, 0);
  ck_assert(pair.train.d_out == 1 && pair.train.targets[1] == 1);
  write_npy("test_y.npy", "<f4", "2, 2", train_x, 16);
  assert_refused(0, CURVD_ERR_DATA, "test examples have 2 numbers and 2 outputs, training examples 2 numbers and 1");
  write_npy("test_y.npy", "<i4", "2,", train_x, 8);
  assert_refused(0, CURVD_ERR_DATA, "holds labels, but the training half holds real targets");
  write_npy("test_y.npy", "<f4", "2,", (float[]){1, NAN}, 8);
  assert_refused(0, CURVD_ERR_DATA, "value 1 is nan");
}
END_TEST

START_TEST(test_validation_examples) {
  write_good_idx();
  unlink(in_folder(all_names[2])); /* the test half is not read */
  assert_loads(0, 1);
  ck_assert(pair.train.n == 3 && pair.test.n == 1 && pair.test.d_in == 3 && pair.test.d_out == 3);
  ck_assert_mem_eq(pair.test.pixels, "\7\x08\x09", 3);
  ck_assert_int_eq(pair.test.labels[0], 0);
  ck_assert_mem_eq(&pair.test.scale, &pair.train.scale, sizeof pair.test.scale);
  ck_assert_mem_eq(&pair.test.shape, &pair.train.shape, sizeof pair.test.shape);
  for (int64_t validation = 4; validation < 6; validation++) {
    ck_assert_int_eq(load(0, validation), CURVD_ERR_OPTION);
    ck_assert_int_eq(live_bytes(), 0);
  }
  write_npy("train_x.npy", "<f4", "4, 2", train_x, sizeof train_x);
  write_npy("train_y.npy", "<f4", "4, 2", train_x, sizeof train_x);
  unlink(in_folder(all_names[0]));
  unlink(in_folder(all_names[1]));
  assert_loads(0, 3);
  ck_assert(pair.train.n == 1 && pair.test.n == 3);
  ck_assert_mem_eq(pair.test.features, train_x + 2, 6 * sizeof(float));
  ck_assert_mem_eq(pair.test.targets, train_x + 2, 6 * sizeof(float));
}
END_TEST

START_TEST(test_refused_idx_folders) {
  write_good_idx();
  write_labels(all_names[1], 3, "\0\2\1");
  assert_refused(0, CURVD_ERR_DATA, "has 3 labels for 4 examples");
  write_labels(all_names[1], 4, "\0\0\0\0");
  assert_refused(0, CURVD_ERR_DATA, "all 4 labels are 0");
  write_labels(all_names[1], 4, "\0\2\1\0");
  write_labels(all_names[3], 2, "\2\3");
  assert_refused(0, CURVD_ERR_DATA, "label 1 is 3, expected 0 to 2, as in the training labels");
  write_labels(all_names[3], 2, "\2\1");
  write_parts(all_names[2], "\0\0\x08\3\0\0\0\2\0\0\0\1\0\0\0\4", 16, "abcdefgh", 8);
  assert_refused(0, CURVD_ERR_DATA,
                 "test examples have 1x4x1 pixels and 3 outputs, training examples 1x3x1 pixels and 3");
  assert_refused(1, CURVD_ERR_DATA,
                 "test examples have 1x4x1 pixels and 4 outputs, training examples 1x3x1 pixels and 3");
  write_parts(all_names[2], "\0\0\x08\3\0\0\0\2\0\0\0\1\0\0\0\4", 16, "abcdefg", 7);
  assert_refused(0, CURVD_ERR_DATA, "t10k-images-idx3-ubyte: has 23 bytes, but its header promises 24");
  unlink(in_folder(all_names[2]));
  assert_refused(0, CURVD_ERR_IO, "no t10k-images-idx3-ubyte.gz, t10k-images-idx3-ubyte or test_x.npy");
  unlink(in_folder(all_names[1]));
  assert_refused(0, CURVD_ERR_IO, "no train-labels-idx1-ubyte.gz");
}
END_TEST

START_TEST(test_refused_npy_folders) {
  write_good_npy();
  write_npy("train_y.npy", "<i4", "4,", (int32_t[]){0, -1, 1, 0}, 16);
  assert_refused(0, CURVD_ERR_DATA, "label 1 is -1, expected 0 to 65535");
  write_npy("train_y.npy", "<i4", "4,", (int32_t[]){0, 65536, 1, 0}, 16);
  assert_refused(0, CURVD_ERR_DATA, "label 1 is 65536");
  write_npy("train_y.npy", "<i4", "4, 2", train_x, 32);
  assert_refused(0, CURVD_ERR_DATA, "train_y.npy: has 2 dimensions");
  write_good_npy();
  write_npy("train_x.npy", "<f4", "8,", train_x, 32);
  assert_refused(0, CURVD_ERR_DATA, "train_x.npy: has 1 dimensions");
  write_npy("train_x.npy", "<i4", "4, 2", train_x, 32);
  assert_refused(0, CURVD_ERR_DATA, "dimensions of integers");
  write_npy("train_x.npy", "|u1", "4, 2", "abcdefgh", 8);
  assert_refused(0, CURVD_ERR_DATA, "test examples have 2 numbers and 3 outputs, training examples 2 pixels and 3");
  write_npy("train_x.npy", "<f4", "4, 2", (float[]){0, 0, 0, INFINITY, 0, 0, 0, 0}, 32);
  assert_refused(0, CURVD_ERR_DATA, "value 3 is inf, expected a finite number");
  write_npy("train_x.npy", "<f4", "4, 2", (float[]){0, 0, 0, 0, 0, 1.5f, 0, 0}, 32);
  assert_refused(1, CURVD_ERR_DATA, "value 5 is 1.5, expected 0 to 1 for an autoencoder");
  assert_loads(0, 0);
}
END_TEST

START_TEST(test_missing_fashion_mnist_says_how_to_get_it) {
  data_request request = {.source = "fashion-mnist"};
  setenv("CURVD_DATA_DIR", folder, 1);
  ck_assert_int_eq(data_load(&request, &memory, &pair, &err), CURVD_ERR_IO);
  ck_assert_ptr_nonnull(strstr(err.text, folder));
  ck_assert_ptr_nonnull(strstr(err.text, "apt-get install dataset-fashion-mnist"));
  write_good_idx();
  cv_error_clear(&err);
  ck_assert_int_eq(data_load(&request, &memory, &pair, &err), CURVD_OK); /* the folder replaces Debian's */
  ck_assert_int_eq(pair.train.n, 4);
  unsetenv("CURVD_DATA_DIR");
}
END_TEST

/* Against the published facts of the data set; without the package only the sentence can be checked. */
START_TEST(test_fashion_mnist) {
  data_request request = {.source = "fashion-mnist"};
  if (data_load(&request, &memory, &pair, &err) != CURVD_OK) {
    ck_assert_ptr_nonnull(strstr(err.text, "apt-get install dataset-fashion-mnist"));
    return;
  }
  ck_assert(pair.train.n == 60000 && pair.test.n == 10000 && pair.train.d_in == 784 && pair.train.d_out == 10);
  static const int32_t first_train[] = {9, 0, 0, 3, 0, 2, 7, 2, 5, 5}, first_test[] = {9, 2, 1, 1, 6, 1, 4, 6, 5, 7};
  ck_assert_mem_eq(pair.train.labels, first_train, sizeof first_train);
  ck_assert_mem_eq(pair.test.labels, first_test, sizeof first_test);
  int64_t n_of_class[10] = {0};
  for (int64_t i = 0; i < 60000; i++) n_of_class[pair.train.labels[i]]++;
  for (int c = 0; c < 10; c++) ck_assert_int_eq(n_of_class[c], 6000);
  double sum = 0, squares = 0;
  float x[784];
  for (int64_t i = 0; i < 60000; i += 7) {
    data_features(&pair.train, &i, 1, NULL, x, 784);
    for (int j = 0; j < 784; j++) sum += x[j], squares += (double)x[j] * x[j];
  }
  double n = ceil(60000.0 / 7) * 784, mean = sum / n;
  ck_assert_double_le(fabs(mean), 0.01);
  ck_assert_double_le(fabs(squares / n - mean * mean - 1), 0.01);
}
END_TEST

static data_request teacher(uint64_t seed) {
  return (data_request){
      .source = "teacher", .teacher_samples = 1200, .teacher_d_in = 12, .teacher_d_out = 5, .seed = seed};
}

static void load_teacher(const data_request *request, data_pair *loaded) {
  ck_assert_msg(data_load(request, &memory, loaded, &err) == CURVD_OK, "%s", err.text);
}

START_TEST(test_teacher_classes) {
  data_request request = teacher(3);
  load_teacher(&request, &pair);
  ck_assert(pair.train.n == 1000 && pair.test.n == 200 && pair.train.d_in == 12 && pair.train.d_out == 5);
  int n_of_class[5] = {0};
  double sum = 0, squares = 0;
  for (int i = 0; i < 1000; i++) n_of_class[pair.train.labels[i]]++;
  for (int c = 0; c < 5; c++) ck_assert_int_gt(n_of_class[c], 20);
  for (int i = 0; i < 12000; i++) {
    sum += pair.train.features[i];
    squares += pair.train.features[i] * pair.train.features[i];
  }
  ck_assert_double_le(fabs(sum / 12000), 5 / sqrt(12000));
  ck_assert_double_le(fabs(squares / 12000 - 1), 5 * sqrt(2.0 / 12000));
  ck_assert_mem_ne(pair.train.features, pair.test.features, 200 * 12 * sizeof(float));
}
END_TEST

/* The label is the largest of the targets that the same network gives for regression. */
START_TEST(test_teacher_regression) {
  data_pair regression;
  data_request request = teacher(3);
  load_teacher(&request, &pair);
  request.teacher_is_regression = 1;
  load_teacher(&request, &regression);
  ck_assert_mem_eq(pair.train.features, regression.train.features, 12000 * sizeof(float));
  ck_assert_ptr_null(regression.train.labels);
  for (int i = 0; i < 1000; i++)
    for (int j = 0; j < 5; j++)
      ck_assert(regression.train.targets[5 * i + j] <= regression.train.targets[5 * i + pair.train.labels[i]]);
  data_free(&memory, &regression);
}
END_TEST

START_TEST(test_teacher_autoencoder) {
  data_request request = teacher(3);
  request.is_autoencoder = 1;
  load_teacher(&request, &pair);
  ck_assert(pair.train.d_out == 12 && pair.train.labels == NULL && pair.train.targets == NULL);
  double smallest = 1, largest = 0;
  for (int i = 0; i < 12000; i++) {
    smallest = fmin(smallest, pair.train.features[i]);
    largest = fmax(largest, pair.train.features[i]);
  }
  ck_assert(smallest >= 0 && smallest < 0.1 && largest <= 1 && largest > 0.9);
  ck_assert_mem_ne(pair.train.features, pair.test.features, 12 * sizeof(float)); /* other examples */
}
END_TEST

START_TEST(test_teacher_is_a_function_of_the_seed) {
  data_pair again, other;
  data_request request = teacher(3), other_request = teacher(4), validation = teacher(3);
  load_teacher(&request, &pair);
  load_teacher(&request, &again);
  load_teacher(&other_request, &other);
  ck_assert_mem_eq(pair.test.features, again.test.features, 200 * 12 * sizeof(float));
  ck_assert_mem_eq(pair.test.labels, again.test.labels, 200 * sizeof(int32_t));
  ck_assert_mem_ne(pair.test.features, other.test.features, 200 * 12 * sizeof(float));
  data_free(&memory, &again);
  data_free(&memory, &other);
  validation.validation = 100;
  load_teacher(&validation, &again);
  ck_assert(again.train.n == 900 && again.test.n == 100);
  ck_assert_mem_eq(again.test.features, pair.train.features + 900 * 12, 100 * 12 * sizeof(float));
  data_free(&memory, &again);
}
END_TEST

START_TEST(test_refused_teachers) {
  data_request request = teacher(1);
  request.teacher_samples = 5;
  ck_assert_int_eq(data_load(&request, &memory, &pair, &err), CURVD_ERR_OPTION);
  ck_assert_ptr_nonnull(strstr(err.text, "teacher_samples 5"));
  cv_error_clear(&err);
  request.teacher_samples = INT64_MAX / 2;
  ck_assert_int_eq(data_load(&request, &memory, &pair, &err), CURVD_ERR_OPTION);
  ck_assert_ptr_nonnull(strstr(err.text, "exceed"));
  ck_assert_int_eq(live_bytes(), 0);
}
END_TEST

START_TEST(test_order_is_a_permutation) {
  enum { N = 1000 };
  int64_t order[N], other[N];
  const struct {
    uint64_t seed;
    int64_t epoch;
  } keys[] = {{1, 0}, {1, 1}, {2, 0}};
  for (int k = 0; k < 3; k++) {
    int count[N] = {0}, n_same = 0;
    data_order(keys[k].seed, keys[k].epoch, N, order);
    for (int i = 0; i < N; i++) count[order[i]]++;
    for (int i = 0; i < N; i++) ck_assert_int_eq(count[i], 1);
    data_order(keys[(k + 1) % 3].seed, keys[(k + 1) % 3].epoch, N, other);
    for (int i = 0; i < N; i++) n_same += order[i] == other[i];
    ck_assert_int_lt(n_same, 10); /* 1 is expected */
    data_order(keys[k].seed, keys[k].epoch, N, other);
    ck_assert_mem_eq(order, other, sizeof order);
  }
  data_order(1, 0, 1, order);
  ck_assert_int_eq(order[0], 0);
}
END_TEST

/* Each of the 6 orders of 3 examples is as frequent as the others, within 5 standard errors. */
START_TEST(test_orders_are_equally_likely) {
  int count[27] = {0}, n_seen = 0;
  for (int64_t epoch = 0; epoch < 6000; epoch++) {
    int64_t order[3];
    data_order(9, epoch, 3, order);
    count[9 * order[0] + 3 * order[1] + order[2]]++;
  }
  for (int i = 0; i < 27; i++) {
    if (count[i] == 0) continue;
    ck_assert_double_le(fabs(count[i] - 1000.0), 5 * sqrt(6000.0 * 5 / 36));
    n_seen++;
  }
  ck_assert_int_eq(n_seen, 6);
}
END_TEST

int main(void) {
  const TTest *const tests[] = {test_idx_classes,
                                test_idx_autoencoder,
                                test_npy_classes,
                                test_npy_targets,
                                test_validation_examples,
                                test_refused_idx_folders,
                                test_refused_npy_folders,
                                test_missing_fashion_mnist_says_how_to_get_it,
                                test_fashion_mnist,
                                test_teacher_classes,
                                test_teacher_regression,
                                test_teacher_autoencoder,
                                test_teacher_is_a_function_of_the_seed,
                                test_refused_teachers,
                                test_order_is_a_permutation,
                                test_orders_are_equally_likely};
  return folder_suite_run("data_set", tests, sizeof tests / sizeof tests[0]);
}
