/* Shapes, padding, repeated channels, mean and deviation, crops and flips, against explicit loops over pixels. */
#include "data_files.h"

#include <math.h>

enum { SIDE_MAX = 40, FEATURES_MAX = SIDE_MAX * SIDE_MAX * 4 };

static data_shape shape(int64_t height, int64_t width, int64_t channels) {
  return (data_shape){height, width, channels};
}

static void assert_shape(data_shape a, int64_t height, int64_t width, int64_t channels) {
  ck_assert(a.height == height && a.width == width && a.channels == channels);
}

static void write_labels(void) {
  write_npy("train_y.npy", "|u1", "2,", "\0\1", 2);
  write_npy("test_y.npy", "|u1", "2,", "\1\0", 2);
}

/* Two training and two test images of this shape with bytes 1, 2, 3 ..., modulo 256 but never 0: black is none. */
static void write_bytes(int64_t height, int64_t width, int64_t channels) {
  static uint8_t values[2 * FEATURES_MAX];
  char text[80];
  size_t bytes = (size_t)(2 * height * width * channels);
  for (size_t i = 0; i < bytes; i++) values[i] = (uint8_t)(i % 255 + 1);
  snprintf(text, sizeof text, "2, %lld, %lld, %lld", (long long)height, (long long)width, (long long)channels);
  write_npy("train_x.npy", "|u1", text, values, bytes);
  write_npy("test_x.npy", "|u1", text, values, bytes);
  write_labels();
}

static void write_reals(const char *text, size_t n) {
  static float values[2 * FEATURES_MAX];
  for (size_t i = 0; i < n; i++) values[i] = (float)i - 7.5f;
  write_npy("train_x.npy", "<f4", text, values, n * sizeof(float));
  write_npy("test_x.npy", "<f4", text, values, n * sizeof(float));
  write_labels();
}

/* What a pixel becomes; written anew here: pixel / 255, less the mean, over the deviation. */
static double normal(const data_set *set, double pixel, int64_t channel) {
  int64_t c = set->scale.n == 1 ? 0 : channel;
  return (pixel / 255 - (double)set->scale.mean[c]) / (double)set->scale.deviation[c];
}

/* Where the window lies that features are cut from: `top` rows and `left` columns into the stored image. */
typedef struct place {
  int64_t top, left;
  bool flips;
} place;

/* Feature (y, x, c) of an example that was padded, cropped and flipped one after the other. */
static double feature_at(const data_set *set, int64_t example, place at, int64_t y, int64_t x, int64_t c) {
  const data_shape in = set->stored;
  int64_t row = at.top + y, column = at.left + (at.flips ? set->shape.width - 1 - x : x);
  int64_t channel = in.channels == 1 ? 0 : c;
  bool is_inside = row >= 0 && row < in.height && column >= 0 && column < in.width;
  int64_t k = ((example * in.height + row) * in.width + column) * in.channels + channel;
  if (set->pixels == NULL) return is_inside ? set->features[k] : 0;
  return normal(set, is_inside ? set->pixels[k] : 0, channel);
}

/* Are these the features? To 1e-4, while neighbouring bytes differ by 1 / 255 / deviation, more than 0.01. */
static bool is_at(const data_set *set, int64_t example, place at, const float *features) {
  const data_shape out = set->shape;
  for (int64_t y = 0; y < out.height; y++)
    for (int64_t x = 0; x < out.width; x++)
      for (int64_t c = 0; c < out.channels; c++) {
        double expected = feature_at(set, example, at, y, x, c);
        if (!(fabs(features[(y * out.width + x) * out.channels + c] - expected) <= 1e-4)) return false;
      }
  return true;
}

START_TEST(test_shapes_of_files) {
  write_bytes(3, 4, 2);
  assert_request_loads((data_request){.seed = 0});
  assert_shape(pair.train.shape, 3, 4, 2);
  assert_shape(pair.test.stored, 3, 4, 2);
  ck_assert_int_eq(pair.train.d_in, 24);
  write_reals("2, 3, 4, 5", 120);
  assert_request_loads((data_request){.seed = 0});
  assert_shape(pair.train.shape, 3, 4, 5);
  write_reals("2, 3, 4", 24);
  assert_request_loads((data_request){.validation = 1});
  assert_shape(pair.train.shape, 3, 4, 1);
  assert_shape(pair.test.shape, 3, 4, 1);
  write_reals("2, 12", 24);
  assert_request_loads((data_request){.seed = 0});
  assert_shape(pair.train.shape, 1, 1, 12);
}
END_TEST

START_TEST(test_halves_of_other_shapes_are_refused) {
  const data_request any = {.seed = 0};
  write_reals("2, 3, 4", 24);
  write_npy("test_x.npy", "<f4", "2, 4, 3", (float[24]){0}, 96);
  assert_request_refused(any, CURVD_ERR_DATA,
                         "test examples have 4x3x1 numbers and 2 outputs, training examples 3x4x1");
  write_npy("test_x.npy", "<f4", "2, 12", (float[24]){0}, 96);
  assert_request_refused(any, CURVD_ERR_DATA, "test examples have 12 numbers");
  write_bytes(3, 4, 5);
  assert_request_refused(any, CURVD_ERR_DATA, "images of 3x4x5, expected (height, width, channels) with at most 4");
}
END_TEST

/* From a stored shape to a wished one: the image stands in the middle, an odd row or column is added at the end. */
START_TEST(test_padding_and_repetition) {
  static const int64_t cases[][6] = {{28, 28, 1, 32, 32, 3}, {28, 28, 1, 28, 28, 1}, {3, 5, 1, 8, 6, 4},
                                     {3, 5, 3, 3, 9, 3},     {1, 4, 2, 2, 4, 2},     {5, 1, 1, 5, 1, 2}};
  static float x[2 * FEATURES_MAX];
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    const int64_t *k = cases[i], d = k[3] * k[4] * k[5], index[] = {1, 0};
    const place middle = {-((k[3] - k[0]) / 2), -((k[4] - k[1]) / 2), false};
    for (int is_real = 0; is_real < 2; is_real++) {
      char text[80];
      snprintf(text, sizeof text, "2, %d, %d, %d", (int)k[0], (int)k[1], (int)k[2]);
      if (is_real) write_reals(text, (size_t)(2 * k[0] * k[1] * k[2]));
      if (!is_real) write_bytes(k[0], k[1], k[2]);
      assert_request_loads((data_request){.shape = shape(k[3], k[4], k[5])});
      ck_assert(pair.train.d_in == d && pair.test.d_in == d && pair.train.d_out == 2);
      assert_shape(pair.train.shape, k[3], k[4], k[5]);
      for (int64_t j = 0; j < 2 * (d + 3); j++) x[j] = 77;
      data_features(&pair.train, index, 2, NULL, x, d + 3);
      ck_assert(is_at(&pair.train, 1, middle, x) && is_at(&pair.train, 0, middle, x + d + 3));
      ck_assert(x[d] == 77 && x[d + 2] == 77 && x[2 * d + 5] == 77);
      assert_request_loads((data_request){.shape = shape(k[3], k[4], k[5]), .validation = 1});
      ck_assert(pair.train.d_in == d && pair.test.d_in == d && pair.test.n == 1);
      data_features(&pair.test, index + 1, 1, NULL, x + d + 3, d + 3);
      ck_assert_mem_eq(x + d + 3, x, (size_t)d * sizeof(float)); /* it was training example 1 */
    }
  }
}
END_TEST

/* A padded autoencoder's targets are its padded inputs, black being 0. */
START_TEST(test_padded_autoencoder) {
  float x[32], y[32];
  const int64_t index = 1;
  write_bytes(2, 3, 1);
  assert_request_loads((data_request){.is_autoencoder = 1, .shape = shape(4, 4, 2)});
  ck_assert(pair.train.d_in == 32 && pair.train.d_out == 32 && pair.test.d_out == 32);
  const data_augment augment = {1, 0, 1};
  for (int k = 0; k < 2; k++) {
    data_features(&pair.train, &index, 1, k == 0 ? NULL : &augment, x, 32);
    data_targets(&pair.train, &index, 1, k == 0 ? NULL : &augment, y, 32);
    ck_assert_mem_eq(x, y, sizeof x);
    if (k == 0) ck_assert(x[0] == 0 && x[8] == 7.0f / 255 && x[9] == 7.0f / 255 && x[14] == 0);
  }
}
END_TEST

/* Flat data of the right size are images, images are flat data, and every number stays what it was. */
START_TEST(test_flat_data_and_images) {
  float x[48], y[48];
  const int64_t index[] = {0, 1};
  write_bytes(2, 4, 3);
  assert_request_loads((data_request){.seed = 0});
  data_features(&pair.train, index, 2, NULL, x, 24);
  assert_request_loads((data_request){.shape = shape(1, 1, 24)});
  data_features(&pair.train, index, 2, NULL, y, 24);
  ck_assert_mem_eq(x, y, sizeof x);
  write_npy("train_x.npy", "|u1", "2, 24", "abcdefghijklmnopqrstuvwxabcdefghijklmnopqrstuvwx", 48);
  write_npy("test_x.npy", "|u1", "2, 24", "abcdefghijklmnopqrstuvwxabcdefghijklmnopqrstuvwx", 48);
  assert_request_loads((data_request){.shape = shape(2, 4, 3)});
  assert_shape(pair.train.stored, 2, 4, 3);
  data_features(&pair.train, index, 2, NULL, x, 24);
  for (int i = 0; i < 48; i++) ck_assert_double_le(fabs(x[i] - (('a' + i % 24) / 255.0 - 0.2860) / 0.3530), 1e-6);
  data_request teacher = {.source = "teacher", .teacher_samples = 60, .teacher_d_in = 24, .teacher_d_out = 3};
  teacher.shape = shape(2, 4, 3);
  data_free(&memory, &pair);
  ck_assert_int_eq(data_load(&teacher, &memory, &pair, &err), CURVD_OK);
  assert_shape(pair.test.shape, 2, 4, 3);
}
END_TEST

START_TEST(test_wishes_that_do_not_fit) {
  static const int64_t bad[][3] = {{2, 5, 3},         {3, 4, 3},
                                   {3, 5, 1},         {3, 5, 4},
                                   {3, 5, 6},         {5, 3, 3},
                                   {0, 5, 3},         {-3, 5, 3},
                                   {3, 5, INT64_MAX}, {INT64_MAX, INT64_MAX, 3},
                                   {1, 1, 44},        {9, 15, 0},
                                   {1, 1, 46},        {(int64_t)1 << 32, (int64_t)1 << 32, 3}};
  write_bytes(3, 5, 3);
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    data_request request = {.shape = shape(bad[i][0], bad[i][1], bad[i][2])};
    assert_request_refused(request, CURVD_ERR_OPTION, "has examples of 3x5x3 and the network takes");
  }
  write_reals("2, 45", 90);
  assert_request_refused((data_request){.shape = shape(8, 8, 1)}, CURVD_ERR_OPTION,
                         "examples of 45 and the network takes 8x8x1");
  assert_request_refused((data_request){.shape = shape(2, 2, 45)}, CURVD_ERR_OPTION,
                         "examples of 45 and the network takes 2x2x45");
}
END_TEST

/* Per channel over both training images; the test images, other ones, are scaled alike. */
START_TEST(test_mean_and_deviation) {
  uint8_t values[2 * 5 * 7 * 3], other[2 * 5 * 7 * 3];
  const int n = 2 * 5 * 7;
  for (int i = 0; i < n; i++) {
    values[3 * i] = (uint8_t)(i * i % 251);
    values[3 * i + 1] = (uint8_t)(40 + i % 3);
    values[3 * i + 2] = 255; /* no deviation to divide by */
  }
  memset(other, 9, sizeof other);
  write_npy("train_x.npy", "|u1", "2, 5, 7, 3", values, sizeof values);
  write_npy("test_x.npy", "|u1", "2, 5, 7, 3", other, sizeof other);
  write_labels();
  assert_request_loads((data_request){.seed = 0});
  for (int c = 0; c < 3; c++) {
    double mean = 0, variance = 0;
    for (int i = 0; i < n; i++) mean += values[3 * i + c] / 255.0 / n;
    for (int i = 0; i < n; i++) variance += pow(values[3 * i + c] / 255.0 - mean, 2) / n;
    ck_assert_double_le(fabs(pair.train.scale.mean[c] - mean), 1e-7);
    ck_assert_double_le(fabs(pair.train.scale.deviation[c] - (c == 2 ? 1 : sqrt(variance))), 1e-7);
  }
  ck_assert_int_eq(pair.train.scale.n, 3);
  ck_assert_mem_eq(&pair.test.scale, &pair.train.scale, sizeof pair.test.scale);
  assert_request_loads((data_request){.is_autoencoder = 1});
  ck_assert(pair.train.scale.mean[0] == 0 && pair.train.scale.deviation[0] == 1 && pair.train.scale.n == 1);
}
END_TEST

/* Which crop and flip did the example get? Exactly one of them explains its features. */
static place find_place(const data_set *set, int64_t example, int64_t pad, const float *features) {
  const int64_t top = -((set->shape.height - set->stored.height) / 2),
                left = -((set->shape.width - set->stored.width) / 2);
  place found = {0, 0, false};
  int n_found = 0;
  for (int64_t k = 0; k < 2 * (2 * pad + 1) * (2 * pad + 1); k++) {
    place at = {top + k / 2 / (2 * pad + 1) - pad, left + k / 2 % (2 * pad + 1) - pad, k % 2 == 1};
    if (!is_at(set, example, at, features)) continue;
    found = at;
    n_found++;
  }
  ck_assert_int_eq(n_found, 1);
  return found;
}

/* Colours keep their order and black is pixel 0 under every combination of stored image, border and crop. */
START_TEST(test_crops_and_flips) {
  static const int64_t cases[][7] = {{6, 5, 3, 6, 5, 3, 2},
                                     {5, 5, 1, 8, 9, 3, 4},
                                     {4, 3, 2, 4, 5, 2, 3},
                                     {3, 4, 1, 3, 4, 1, 0},
                                     {9, 7, 1, 9, 7, 1, 6}};
  static float x[FEATURES_MAX];
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    const int64_t *k = cases[i];
    write_bytes(k[0], k[1], k[2]);
    assert_request_loads((data_request){.shape = shape(k[3], k[4], k[5]), .augments = 1, .augment_pad = k[6]});
    int n_flips = 0;
    for (int64_t epoch = 0; epoch < 60; epoch++) {
      const data_augment augment = {.seed = 5, .epoch = epoch, .pad = k[6]};
      const int64_t example = epoch % 2;
      data_features(&pair.train, &example, 1, &augment, x, pair.train.d_in);
      n_flips += find_place(&pair.train, example, k[6], x).flips;
    }
    ck_assert(n_flips > 10 && n_flips < 50); /* 30 expected, 5 standard deviations are 19.4 */
  }
}
END_TEST

/* Reals are cropped with 0 around them. */
START_TEST(test_crops_of_reals) {
  float x[4 * 4 * 2];
  write_reals("2, 4, 4, 2", 64);
  assert_request_loads((data_request){.augments = 1, .augment_pad = 3});
  for (int64_t epoch = 0; epoch < 20; epoch++) {
    const data_augment augment = {.seed = 1, .epoch = epoch, .pad = 3};
    data_features(&pair.train, (const int64_t[]){1}, 1, &augment, x, 32);
    find_place(&pair.train, 1, 3, x);
  }
}
END_TEST

enum { PAD = 2, CELLS = 2 * (2 * PAD + 1) * (2 * PAD + 1), DRAWS = 20000 };

/* Number of the crop and flip of an example. */
static int cell_of(uint64_t seed, int64_t epoch, int64_t example) {
  float x[5 * 4];
  const data_augment augment = {.seed = seed, .epoch = epoch, .pad = PAD};
  data_features(&pair.train, &example, 1, &augment, x, 20);
  place at = find_place(&pair.train, example, PAD, x);
  return (int)(((at.top + PAD) * (2 * PAD + 1) + at.left + PAD) * 2 + at.flips);
}

/* A sum of squares over k degrees of freedom exceeds k + 2 sqrt(k t) + 2 t with probability e^-t at most (Laurent and
 * Massart, 2000, Lemma 1); t = 14 is one in a million. */
static void assert_uniform(const int *count) {
  double sum = 0, expected = (double)DRAWS / CELLS, k = CELLS - 1, t = 14;
  for (int i = 0; i < CELLS; i++) sum += pow(count[i] - expected, 2) / expected;
  ck_assert_msg(sum <= k + 2 * sqrt(k * t) + 2 * t, "chi-square %g", sum);
}

/* Number of draws in which neighbours got the same: binomial, within 5 standard deviations. */
static void assert_unrelated(int n_same) {
  double p = 1.0 / CELLS;
  ck_assert_double_le(fabs(n_same - DRAWS * p), 5 * sqrt(DRAWS * p * (1 - p)));
}

/* Along epochs, examples and seeds: all 50 places with equal frequency, and none tells the next. */
START_TEST(test_crops_are_equally_likely) {
  static uint8_t values[DRAWS * 20];
  for (size_t i = 0; i < sizeof values; i++) values[i] = (uint8_t)(1 + i % 20 * 12);
  char text[40];
  snprintf(text, sizeof text, "%d, 5, 4, 1", DRAWS);
  write_npy("train_x.npy", "|u1", text, values, sizeof values);
  for (int i = 0; i < DRAWS; i++) values[i] = (uint8_t)(i % 2);
  snprintf(text, sizeof text, "%d,", DRAWS);
  write_npy("train_y.npy", "|u1", text, values, DRAWS);
  assert_request_loads((data_request){.validation = 1});
  for (int along = 0; along < 3; along++) {
    int count[CELLS] = {0}, n_same = 0, last = -1;
    for (int i = 0; i < DRAWS; i++) {
      int cell = along == 0   ? cell_of(3, i, 11)
                 : along == 1 ? cell_of(3, 1, i % (DRAWS - 1))
                              : cell_of((uint64_t)i << 20, 1, 11);
      count[cell]++;
      n_same += cell == last;
      last = cell;
    }
    assert_uniform(count);
    assert_unrelated(n_same);
  }
}
END_TEST

/* However a batch is cut over ranks or put in order, an example's features have the same bits. */
START_TEST(test_any_split_gives_the_same_bits) {
  enum { N = 60, D = 8 * 8 * 3, LD = D + 16 };
  static uint8_t values[N * 6 * 6];
  static float whole[N * D], part[N * LD];
  int64_t order[N];
  for (size_t i = 0; i < sizeof values; i++) values[i] = (uint8_t)(i * 7 + i / 36 + 1);
  write_npy("train_x.npy", "|u1", "60, 6, 6", values, sizeof values);
  for (int i = 0; i < N; i++) values[i] = (uint8_t)(i % 2);
  write_npy("train_y.npy", "|u1", "60,", values, N);
  assert_request_loads((data_request){.validation = 1, .shape = shape(8, 8, 3), .augments = 1, .augment_pad = 4});
  const int64_t n = pair.train.n;
  const data_augment augment = {.seed = 8, .epoch = 2, .pad = 4};
  data_order(8, 2, n, order);
  data_features(&pair.train, order, n, &augment, whole, D);
  for (int ranks = 1; ranks <= 7; ranks++) {
    for (int r = ranks - 1; r >= 0; r--) {
      int64_t from = n * r / ranks, to = n * (r + 1) / ranks;
      data_features(&pair.train, order + from, to - from, &augment, part + from * LD, LD);
    }
    for (int64_t i = 0; i < n; i++) ck_assert_mem_eq(part + i * LD, whole + i * D, D * sizeof(float));
  }
  for (int64_t i = 0; i < n; i++) { /* in another order */
    data_features(&pair.train, order + n - 1 - i, 1, &augment, part, LD);
    ck_assert_mem_eq(part, whole + (n - 1 - i) * D, D * sizeof(float));
  }
}
END_TEST

START_TEST(test_refused_augmentation) {
  static const int64_t bad_pads[] = {3, 4, 65536, -1};
  data_request request = {.augments = 1}, teacher = {.source = "teacher", .augments = 1, .teacher_samples = 60};
  write_bytes(3, 5, 3);
  for (size_t i = 0; i < sizeof bad_pads / sizeof *bad_pads; i++) {
    char words[80];
    request.augment_pad = bad_pads[i];
    snprintf(words, sizeof words, "augment_pad %d would cut images of 3x5x3", (int)bad_pads[i]);
    ck_assert_int_eq(load_request(request), CURVD_ERR_OPTION);
    ck_assert_msg(strstr(err.text, words) != NULL && strstr(err.text, "at most 2") != NULL, "%s", err.text);
  }
  request.augment_pad = 2;
  assert_request_loads(request);
  write_reals("2, 12", 24);
  assert_request_refused(request, CURVD_ERR_OPTION, "flat examples of 12 numbers; set augment to none");
  teacher.teacher_d_in = 12, teacher.teacher_d_out = 2;
  cv_error_clear(&err);
  ck_assert_int_eq(data_load(&teacher, &memory, &pair, &err), CURVD_ERR_OPTION);
  ck_assert_ptr_nonnull(strstr(err.text, "teacher has flat examples"));
  ck_assert_int_eq(live_bytes(), 0);
}
END_TEST

START_TEST(test_fashion_mnist_as_colour_images) {
  static float x[32 * 32 * 3];
  data_request request = {.source = "fashion-mnist", .shape = shape(32, 32, 3), .validation = 59000};
  if (data_load(&request, &memory, &pair, &err) != CURVD_OK) {
    ck_assert_ptr_nonnull(strstr(err.text, "apt-get install dataset-fashion-mnist"));
    return;
  }
  ck_assert(pair.train.d_in == 3072 && pair.train.scale.mean[0] == 0.2860f && pair.train.scale.deviation[0] == 0.3530f);
  for (int64_t i = 0; i < 20; i++) {
    data_features(&pair.train, &i, 1, NULL, x, 3072);
    ck_assert(is_at(&pair.train, i, (place){-2, -2, false}, x));
  }
}
END_TEST

int main(void) {
  const TTest *const tests[] = {test_shapes_of_files,
                                test_halves_of_other_shapes_are_refused,
                                test_padding_and_repetition,
                                test_padded_autoencoder,
                                test_flat_data_and_images,
                                test_wishes_that_do_not_fit,
                                test_mean_and_deviation,
                                test_crops_and_flips,
                                test_crops_of_reals,
                                test_crops_are_equally_likely,
                                test_any_split_gives_the_same_bits,
                                test_refused_augmentation,
                                test_fashion_mnist_as_colour_images};
  return folder_suite_run("data_image", tests, sizeof tests / sizeof tests[0]);
}
