/* Checkpoints of three ranks, read whole and in other parts; and damaged, cut, forged ones. */
#include "save/checkpoint.h"

#include "save/manifest.h"
#include "save/safetensors.h"
#include "save_fixture.h"
#include "suite.h"

static void set_up(void) {
  make_folder();
  save_by_three(100);
}

/* ---- reading ---- */

START_TEST(test_whole_arrays) {
  set_up();
  assert_whole(100);
  checkpoint *cp = open_step(100);
  ck_assert_int_eq(checkpoint_count(cp), N_KNOWN);
  for (int64_t i = 1; i < N_KNOWN; i++)
    ck_assert_int_lt(strcmp(checkpoint_at(cp, i - 1).name, checkpoint_at(cp, i).name), 0);
  checkpoint_array found;
  ck_assert(checkpoint_find(cp, "gram", &found));
  ck_assert(found.is_triangle && found.dtype == CURVD_F32 && found.n_rows == 40 && found.n_columns == 40);
  ck_assert(checkpoint_find(cp, "gram_lower", &found));
  ck_assert_str_eq(found.name, "gram");
  ck_assert(!checkpoint_find(cp, "weights_lower", &found) && !checkpoint_find(cp, "weight", &found));
  ck_assert(checkpoint_find(cp, "empty", &found) && found.n_rows == 0 && found.n_columns == 7);
  ck_assert_str_eq(json_string_value(json_object_get(checkpoint_about(cp), "network")), "20-30-10");
  ck_assert_int_eq(json_integer_value(json_object_get(checkpoint_about(cp), "seed")), 7);
  checkpoint_close(&cp);
}
END_TEST

/* Every range of rows, of a checkpoint that has not been verified and of one that has. */
START_TEST(test_other_ranges) {
  cv_error err = {.code = CURVD_OK};
  set_up();
  checkpoint *cp = open_step(100);
  for (int k = 0; k < N_KNOWN; k++) {
    for (int64_t begin = 0; begin <= known[k].n_rows; begin += 1 + begin / 7) {
      for (int64_t end = begin; end <= known[k].n_rows; end += 1 + end / 5) {
        curvd_array a = known_rows(k, begin, end);
        ck_assert_msg(checkpoint_read(cp, &a, &err) == CURVD_OK, "%s", err.text);
        assert_filled(&a, 100);
        free(a.data);
      }
    }
  }
  checkpoint_close(&cp);
}
END_TEST

/* What is not asked for stays as it is: above the diagonal, between rows. */
START_TEST(test_nothing_else_is_written) {
  cv_error err = {.code = CURVD_OK};
  set_up();
  checkpoint *cp = open_step(100);
  curvd_array a = known_rows(2, 2, 7);
  double *data = a.data;
  for (int i = 0; i < 12 * 12; i++) data[i] = -1;
  ck_assert_int_eq(checkpoint_read(cp, &a, &err), CURVD_OK);
  assert_filled(&a, 100);
  for (int i = 0; i < 12; i++)
    for (int j = 0; j < 12; j++)
      if (i >= 5 || j > i + 2) ck_assert_msg(data[i * 12 + j] == -1, "%d %d", i, j);
  free(a.data);
  checkpoint_close(&cp);
}
END_TEST

START_TEST(test_wrong_wishes) {
  static const struct {
    const char *name;
    curvd_dtype dtype;
    bool is_triangle;
    int64_t n_rows, n_columns, begin, rows;
    const char *said;
  } wishes[] = {{"weightz", CURVD_F32, false, 17, 5, 0, 17, "has no array weightz"},
                {"weights", CURVD_F64, false, 17, 5, 0, 17, "weights is (17, 5) of 4 bytes a number, not (17, 5) of 8"},
                {"weights", CURVD_F32, false, 18, 5, 0, 17, "not (18, 5)"},
                {"weights", CURVD_F32, false, 17, 6, 0, 17, "not (17, 6)"},
                {"factor.A", CURVD_F64, false, 9, 9, 0, 9, "is a triangle (9, 9)"},
                {"weights", CURVD_F32, false, 17, 5, 10, 8, "has no rows 10 + 8"}};
  set_up();
  checkpoint *cp = open_step(100);
  for (size_t i = 0; i < sizeof wishes / sizeof wishes[0]; i++) {
    cv_error err = {.code = CURVD_OK};
    curvd_array a = new_array(wishes[i].name, wishes[i].dtype, wishes[i].is_triangle, wishes[i].n_rows,
                              wishes[i].n_columns, wishes[i].begin, wishes[i].rows, false);
    ck_assert_int_ne(checkpoint_read(cp, &a, &err), CURVD_OK);
    ck_assert_msg(strstr(err.text, wishes[i].said) != NULL, "%s", err.text);
    free(a.data);
  }
  checkpoint_close(&cp);
}
END_TEST

/* ---- damaged ---- */

typedef struct told {
  int n;
  char text[480]; /* the last one */
} told;

static void hear(void *user, const char *finding) {
  told *t = user;
  t->n++;
  snprintf(t->text, sizeof t->text, "%s", finding);
}

/* What opening or else verifying says; "" when all is well. */
static told examine(void) {
  cv_error err = {.code = CURVD_OK};
  checkpoint *cp = NULL;
  told heard = {0, ""};
  curvd_status status = checkpoint_open(in_folder("step-000000100"), &cp, &err);
  if (status == CURVD_OK) {
    status = checkpoint_verify(cp, hear, &heard, &err);
    ck_assert_int_eq(heard.n > 0, status != CURVD_OK);
    ck_assert(heard.n == 0 || strstr(err.text, heard.text) != NULL || heard.n > 1);
  } else {
    hear(&heard, err.text);
  }
  ck_assert(status == CURVD_OK || status == CURVD_ERR_DATA || status == CURVD_ERR_IO);
  checkpoint_close(&cp);
  return heard;
}

/* Name of the tensor that has this byte, by the header itself; "": none. */
static void tensor_at(const char *bytes, int64_t n, int64_t at, char name[SAFETENSORS_NAME_MAX]) {
  safetensors_header h;
  name[0] = '\0';
  ck_assert_int_eq(safetensors_parse(bytes, n, "", &h, NULL), CURVD_OK);
  for (int64_t i = 0; i < h.n_tensors; i++)
    if (at - h.bytes >= h.tensor[i].begin && at - h.bytes < h.tensor[i].end) strcpy(name, h.tensor[i].name);
  safetensors_free(&h);
}

START_TEST(test_flipped_bits) {
  unsigned random = 4711;
  int n_in_tensors = 0;
  set_up();
  for (int i = 0; i < 100; i++) {
    char file[80], short_file[40], tensor[SAFETENSORS_NAME_MAX];
    int64_t n = 0;
    snprintf(short_file, sizeof short_file, "shard-%05d.safetensors", i % 3);
    snprintf(file, sizeof file, "step-000000100/%s", short_file);
    char *bytes = read_bytes(file, &n);
    random = random * 1664525 + 1013904223;
    int64_t at = (random >> 4) % (unsigned)n;
    tensor_at(bytes, n, at, tensor);
    n_in_tensors += tensor[0] != '\0';
    bytes[at] = (char)(bytes[at] ^ 1 << (i % 8));
    write_bytes(file, bytes, n);
    told heard = examine();
    ck_assert_msg(heard.n == 1 && strstr(heard.text, short_file) != NULL, "byte %d: %s", (int)at, heard.text);
    ck_assert_msg(strstr(heard.text, tensor) != NULL, "byte %d is of %s: %s", (int)at, tensor, heard.text);
    bytes[at] = (char)(bytes[at] ^ 1 << (i % 8));
    write_bytes(file, bytes, n);
    free(bytes);
  }
  ck_assert(n_in_tensors > 20 && n_in_tensors < 100);
  ck_assert_int_eq(examine().n, 0);
}
END_TEST

/* Only what is read is told of: a damaged tensor keeps nobody from the others. */
START_TEST(test_reading_a_damaged_tensor) {
  cv_error err = {.code = CURVD_OK};
  int64_t n = 0;
  static const char file[] = "step-000000100/shard-00002.safetensors";
  set_up();
  char *bytes = read_bytes(file, &n), tensor[SAFETENSORS_NAME_MAX];
  tensor_at(bytes, n, n - 1, tensor);
  ck_assert_str_eq(tensor, "transposed[34:35]");
  bytes[n - 1] ^= 1;
  write_bytes(file, bytes, n);
  free(bytes);
  checkpoint *cp = open_step(100);
  for (int k = 0; k < N_KNOWN; k++) {
    bool is_damaged = strcmp(known[k].name, "transposed") == 0;
    for (int i = 0; i < 2; i++) {
      int64_t end = is_damaged && i == 0 ? 34 : known[k].n_rows;
      curvd_array a = known_rows(k, 0, end);
      curvd_status status = checkpoint_read(cp, &a, &err);
      ck_assert_int_eq(status, is_damaged && i == 1 ? CURVD_ERR_DATA : CURVD_OK);
      free(a.data);
    }
  }
  ck_assert_ptr_nonnull(strstr(err.text, "step-000000100/shard-00002.safetensors: tensor transposed[34:35]: damaged"));
  checkpoint_close(&cp);
}
END_TEST

START_TEST(test_truncated_at_every_length) {
  cv_error err = {.code = CURVD_OK};
  static float data[4] = {1, 2, 3, 4};
  curvd_array a = {"a", CURVD_F32, false, 2, 2, 0, 2, 2, 1, data};
  int64_t n = 0;
  make_folder();
  saver *s = new_saver(0, 1, 1, (saver_faults){.user = NULL});
  ck_assert_int_eq(saver_begin(s, 100, &err), CURVD_OK);
  ck_assert_int_eq(saver_add(s, &a, &err), CURVD_OK);
  saver_commit(s);
  saver_free(&s);
  static const char *const files[] = {"shard-00000.safetensors", "manifest.json"};
  for (int f = 0; f < 2; f++) {
    char path[80];
    snprintf(path, sizeof path, "step-000000100/%s", files[f]);
    char *bytes = read_bytes(path, &n);
    for (int64_t length = 0; length < n; length++) {
      write_bytes(path, bytes, length);
      told heard = examine();
      ck_assert_msg(heard.n == 1 && strstr(heard.text, files[f]) != NULL, "%d: %s", (int)length, heard.text);
    }
    write_bytes(path, bytes, n);
    ck_assert_int_eq(examine().n, 0);
    free(bytes);
  }
}
END_TEST

static void assert_heard(const char *words) {
  told heard = examine();
  ck_assert_msg(heard.n == 1 && strstr(heard.text, words) != NULL, "%s", heard.text);
}

START_TEST(test_files_that_do_not_belong) {
  static const char second[] = "step-000000100/shard-00001.safetensors";
  int64_t n = 0;
  set_up();
  char *bytes = read_bytes(second, &n);
  unlink(in_folder(second));
  assert_heard("shard-00001.safetensors cannot be opened: No such file");
  ck_assert_int_eq(symlink("shard-00000.safetensors", in_folder(second)), 0);
  assert_heard("shard-00001.safetensors cannot be opened: Too many levels of symbolic links");
  unlink(in_folder(second));
  mkdir(in_folder(second), 0777);
  assert_heard("shard-00001.safetensors is no regular file");
  rmdir(in_folder(second));
  ck_assert_int_eq(mkfifo(in_folder(second), 0600), 0);
  assert_heard("shard-00001.safetensors is no regular file");
  char *other = malloc((size_t)n);
  memset(other, 'x', (size_t)n);
  write_bytes(second, other, n);
  assert_heard("shard-00001.safetensors: no safetensors file");
  free(other);
  write_bytes(second, bytes, n);
  write_bytes("step-000000100/notes.txt", "mine", 4); /* nobody reads it */
  ck_assert_int_eq(examine().n, 0);
  free(bytes);
}
END_TEST

/* A shard of another save: all of it is right by itself. */
START_TEST(test_shard_of_another_checkpoint) {
  int64_t n = 0;
  make_folder();
  save_by_three(101);
  char *bytes = read_bytes("step-000000101/shard-00001.safetensors", &n);
  save_by_three(100);
  write_bytes("step-000000100/shard-00001.safetensors", bytes, n);
  assert_heard("shard-00001.safetensors: its header is damaged, or not of this checkpoint");
  free(bytes);
}
END_TEST

/* ---- forged ---- */

/* A checkpoint of one shard with this header, all checksums right but those of tensors, which texts give; listed:
 * bytes that the manifest gives the file beyond what it has. */
static void write_forged(const char *json, int64_t data_bytes, int64_t listed) {
  cv_error err = {.code = CURVD_OK};
  int64_t length = (int64_t)strlen(json), n = 8 + length + data_bytes, n_text = 0;
  char *bytes = calloc((size_t)n, 1), *text = NULL;
  for (int i = 0; i < 8; i++) bytes[i] = (char)(length >> (8 * i));
  memcpy(bytes + 8, json, (size_t)length);
  manifest_shard shard = {n + listed, ""};
  checksum(bytes, 8 + length, shard.header_xxh3);
  manifest m = {100, 1, &shard, json_object()};
  ck_assert_int_eq(manifest_build(&m, &text, &n_text, &err), CURVD_OK);
  mkdir(in_folder("step-000000100"), 0777);
  write_bytes("step-000000100/shard-00000.safetensors", bytes, n);
  write_bytes("step-000000100/manifest.json", text, n_text);
  json_decref(m.about);
  free(text);
  free(bytes);
}

#define SUM "\"0123456789abcdef\""

START_TEST(test_forged_headers) {
  static const struct {
    const char *name, *texts, *dtype, *shape;
    int bytes;
    const char *said;
  } forged[] = {
      {"a", "\"xxh3:a\":" SUM, "F32", "[1,1]", 4, "tensor a: damaged"},
      {"a", "\"xxh3:b\":" SUM, "F32", "[1,1]", 4, "tensor a: its checksum is missing"},
      {"a", "\"xxh3:a\":\"0123456789ABCDEF\"", "F32", "[1,1]", 4, "checksum is missing"},
      {"a", "\"xxh3:a\":" SUM ",\"n_rows:a\":\"2\"", "F32", "[1,1]", 4, "no [begin:end] in its name"},
      {"a[0:1]", "\"xxh3:a[0:1]\":" SUM ",\"n_rows:a[0:1]\":\"x\"", "F32", "[1,1]", 4, "n_rows is no size"},
      {"a[0:1]", "\"xxh3:a[0:1]\":" SUM ",\"n_rows:a[0:1]\":\"-1\"", "F32", "[1,1]", 4, "n_rows is no size"},
      {"a[0:2]", "\"xxh3:a[0:2]\":" SUM ",\"n_rows:a[0:2]\":\"9\"", "F32", "[1,1]", 4, "not those of its name"},
      {"a[9:10]", "\"xxh3:a[9:10]\":" SUM ",\"n_rows:a[9:10]\":\"9\"", "F32", "[1,1]", 4, "outside of the whole"},
      {"a[01:2]", "\"xxh3:a[01:2]\":" SUM ",\"n_rows:a[01:2]\":\"9\"", "F32", "[1,1]", 4, "no [begin:end]"},
      {"a[1:1]", "\"xxh3:a[1:1]\":" SUM ",\"n_rows:a[1:1]\":\"9\"", "F32", "[0,1]", 0, "no [begin:end]"},
      {"a_lower", "\"xxh3:a_lower\":" SUM ",\"n_rows:a_lower\":\"2\"", "F32", "[4]", 16, "so many numbers"},
      {"a", "\"xxh3:a\":" SUM ",\"n_rows:a\":\"2\"", "F32", "[3]", 12, "no _lower"},
      {"a_lower", "\"xxh3:a_lower\":" SUM ",\"n_rows:a_lower\":\"4294967296\"", "F32", "[0]", 0, "more than 2^31"},
      {"a", "\"xxh3:a\":" SUM, "I64", "[1]", 8, "tensor a: damaged"},
      {"a", "\"xxh3:a\":" SUM, "F32", "[1,1,1]", 4, "tensor a: damaged"},
  };
  make_folder();
  for (size_t i = 0; i < sizeof forged / sizeof forged[0]; i++) {
    char json[600];
    snprintf(json, sizeof json,
             "{\"__metadata__\":{%s},\"%s\":{\"dtype\":\"%s\",\"shape\":%s,\"data_offsets\":[0,%d]}}", forged[i].texts,
             forged[i].name, forged[i].dtype, forged[i].shape, forged[i].bytes);
    write_forged(json, forged[i].bytes, 0);
    assert_heard(forged[i].said);
  }
}
END_TEST

/* The size of a file by itself, by its header, by the manifest. */
START_TEST(test_forged_sizes) {
  static const char json[] = "{\"__metadata__\":{\"xxh3:a\":" SUM "},"
                             "\"a\":{\"dtype\":\"F32\",\"shape\":[1,1],\"data_offsets\":[0,4]}}";
  make_folder();
  write_forged(json, 5, 0);
  assert_heard("shard-00000.safetensors has 5 bytes of numbers, but 4 by its header");
  write_forged(json, 3, 0);
  assert_heard("shard-00000.safetensors has 3 bytes of numbers, but 4 by its header");
  write_forged(json, 4, 1);
  assert_heard("by the manifest");
}
END_TEST

/* Types and shapes that no array has are verified, and are not arrays; rows that nobody has are told of. */
START_TEST(test_what_is_no_array) {
  cv_error err = {.code = CURVD_OK};
  checkpoint *cp = NULL;
  checkpoint_array found;
  char json[700], zeros[16] = "", sum4[CHECKSUM_MAX], sum8[CHECKSUM_MAX];
  float data[2];
  checksum(zeros, 4, sum4);
  checksum(zeros, 8, sum8);
  make_folder();
  snprintf(json, sizeof json,
           "{\"__metadata__\":{\"xxh3:i\":\"%s\",\"xxh3:cube\":\"%s\",\"xxh3:a[1:3]\":\"%s\",\"n_rows:a[1:3]\":\"4\"},"
           "\"i\":{\"dtype\":\"I64\",\"shape\":[1,1],\"data_offsets\":[0,8]},"
           "\"cube\":{\"dtype\":\"F32\",\"shape\":[1,1,1],\"data_offsets\":[8,12]},"
           "\"a[1:3]\":{\"dtype\":\"F32\",\"shape\":[2,1],\"data_offsets\":[12,20]}}",
           sum8, sum4, sum8);
  write_forged(json, 20, 0);
  ck_assert_int_eq(examine().n, 0);
  ck_assert_int_eq(checkpoint_open(in_folder("step-000000100"), &cp, &err), CURVD_OK);
  ck_assert(checkpoint_count(cp) == 1 && !checkpoint_find(cp, "i", &found) && !checkpoint_find(cp, "cube", &found));
  for (int64_t begin = 0; begin < 3; begin++) {
    cv_error why = {.code = CURVD_OK};
    curvd_array a = {"a", CURVD_F32, false, 4, 1, begin, 2, 1, 1, data};
    ck_assert_int_eq(checkpoint_read(cp, &a, &why), begin == 1 ? CURVD_OK : CURVD_ERR_DATA);
    if (begin != 1) ck_assert_msg(strstr(why.text, begin == 0 ? "row 0" : "row 3") != NULL, "%s", why.text);
  }
  checkpoint_close(&cp);
}
END_TEST

START_TEST(test_lists) {
  cv_error err = {.code = CURVD_OK};
  int64_t step[3], n = 7;
  char path[20];
  set_up();
  mkdir(in_folder("step-000000300"), 0777); /* no manifest in it */
  mkdir(in_folder("step-000000200.tmp"), 0777);
  write_bytes("step-000000400", "x", 1);
  save_by_three(90);
  ck_assert_int_eq(checkpoint_list(save_folder, 3, step, &n, &err), CURVD_OK);
  ck_assert(n == 2 && step[0] == 100 && step[1] == 90);
  ck_assert_int_eq(checkpoint_list(save_folder, 1, step, &n, &err), CURVD_OK);
  ck_assert(n == 1 && step[0] == 100);
  ck_assert_int_eq(checkpoint_list(in_folder("nothing"), 3, step, &n, &err), CURVD_OK);
  ck_assert_int_eq(n, 0);
  ck_assert_int_eq(checkpoint_list(in_folder("step-000000400"), 3, step, &n, &err), CURVD_ERR_IO);
  ck_assert(checkpoint_path("f", 100, path, 17) && strcmp(path, "f/step-000000100") == 0);
  ck_assert(!checkpoint_path("f", 100, path, 16) && checkpoint_path("f", 1234567890123, path, 20) == false);
}
END_TEST

int main(void) {
  const TTest *const tests[] = {
      test_whole_arrays,
      test_other_ranges,
      test_nothing_else_is_written,
      test_wrong_wishes,
      test_flipped_bits,
      test_reading_a_damaged_tensor,
      test_truncated_at_every_length,
      test_files_that_do_not_belong,
      test_shard_of_another_checkpoint,
      test_forged_headers,
      test_forged_sizes,
      test_what_is_no_array,
      test_lists,
  };
  return suite_run("checkpoint", tests, sizeof tests / sizeof tests[0], remove_folder);
}
