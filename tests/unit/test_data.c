/* Readers of data files: bytes written by hand, damaged in every way that a file can be. */
#include "train/data.h"

#include "suite.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

static cv_memory memory;
static cv_error err;
static data_array array;
static char folder[] = "/tmp/curvd_test_data_XXXXXX";

static void after_each(void) {
  data_array_free(&memory, &array);
  cv_error_clear(&err);
}

static const char *in_folder(const char *name) {
  static char path[200];
  snprintf(path, sizeof path, "%s/%s", folder, name);
  return path;
}

static void write_file(const char *path, const void *bytes, size_t n) {
  FILE *file = fopen(path, "wb");
  ck_assert_ptr_nonnull(file);
  ck_assert_uint_eq(fwrite(bytes, 1, n, file), n);
  ck_assert_int_eq(fclose(file), 0);
}

static void write_gzip(const char *path, const void *bytes, size_t n) {
  gzFile file = gzopen(path, "wb9");
  ck_assert_ptr_nonnull(file);
  ck_assert_int_eq(gzwrite(file, bytes, (unsigned)n), (int)n);
  ck_assert_int_eq(gzclose(file), Z_OK);
}

typedef curvd_status (*parser)(const uint8_t *, int64_t, const char *, cv_memory *, data_array *, cv_error *);

/* The parser gets a copy of exactly n bytes, so that the address sanitizer sees every byte read beyond. */
static curvd_status parse(parser parse_bytes, const void *bytes, size_t n) {
  uint8_t *copy = malloc(n == 0 ? 1 : n);
  memcpy(copy, bytes, n);
  cv_error_clear(&err);
  curvd_status status = parse_bytes(copy, (int64_t)n, "digits.bin", &memory, &array, &err);
  free(copy);
  return status;
}

static int64_t live_bytes(void) {
  int64_t sum = 0;
  for (int kind = 0; kind < CV_MEMORY_KINDS; kind++) sum += memory.bytes[kind];
  return sum;
}

/* A refusal names the file, says `words` and leaves nothing behind. */
static void assert_refused(curvd_status status, const char *words) {
  ck_assert_int_eq(status, CURVD_ERR_DATA);
  ck_assert_int_eq(err.code, CURVD_ERR_DATA);
  ck_assert_msg(strstr(err.text, "digits") != NULL && strstr(err.text, words) != NULL, "\"%s\" not in: %s", words,
                err.text);
  ck_assert_ptr_null(array.values);
  ck_assert_int_eq(live_bytes(), 0);
}

#define PARSE_LITERAL(parse_bytes, text) parse(parse_bytes, text, sizeof(text) - 1)

static const char idx_u8[] = "\0\0\x08\x03\0\0\0\2\0\0\0\1\0\0\0\3"
                             "abcdef";

START_TEST(test_idx_bytes) {
  ck_assert_int_eq(PARSE_LITERAL(data_idx_parse, idx_u8), CURVD_OK);
  ck_assert(array.type == DATA_U8 && array.n_dimensions == 3 && array.count == 6);
  ck_assert(array.shape[0] == 2 && array.shape[1] == 1 && array.shape[2] == 3);
  ck_assert_mem_eq(array.values, "abcdef", 6);
}
END_TEST

START_TEST(test_idx_numbers) {
  ck_assert_int_eq(PARSE_LITERAL(data_idx_parse, "\0\0\x0C\1\0\0\0\2\xff\xff\xff\xfe\0\1\2\3"), CURVD_OK);
  const int32_t *integers = array.values;
  ck_assert(array.type == DATA_I32 && integers[0] == -2 && integers[1] == 0x010203);
  data_array_free(&memory, &array);
  ck_assert_int_eq(PARSE_LITERAL(data_idx_parse, "\0\0\x0D\1\0\0\0\2\x3f\xc0\0\0\xc2\xf6\xe9\x79"), CURVD_OK);
  const float *reals = array.values;
  ck_assert(array.type == DATA_F32 && reals[0] == 1.5f && reals[1] == -123.456f);
}
END_TEST

START_TEST(test_idx_refusals) {
  assert_refused(PARSE_LITERAL(data_idx_parse, "\1\0\x08\1\0\0\0\1a"), "0x01 0x00");
  assert_refused(PARSE_LITERAL(data_idx_parse, "\0\0\x09\1\0\0\0\1a"), "type 0x09");
  assert_refused(PARSE_LITERAL(data_idx_parse, "\0\0\x0E\1\0\0\0\1aaaaaaaa"), "type 0x0E");
  assert_refused(PARSE_LITERAL(data_idx_parse, "\0\0\x08\0a"), "0 dimensions");
  assert_refused(PARSE_LITERAL(data_idx_parse, "\0\0\x08\5\0\0\0\1\0\0\0\1\0\0\0\1\0\0\0\1\0\0\0\1a"), "5 dimensions");
  assert_refused(PARSE_LITERAL(data_idx_parse, "\0\0\x08\2\0\0\0\1\0\0\0\0"), "dimension 2 has length 0");
  assert_refused(PARSE_LITERAL(data_idx_parse, "\0\0\x08\1\0\0\0\2abc"), "goes on after the 10 bytes");
  assert_refused(PARSE_LITERAL(data_idx_parse, "\0\0\x08\1\xff\xff\xff\xff"
                                               "abc"),
                 "promises 4294967303");
  /* (2^32 - 1)^2 and its like: as a 64-bit product it would be negative, or small again */
  assert_refused(PARSE_LITERAL(data_idx_parse, "\0\0\x0D\2\xff\xff\xff\xff\xff\xff\xff\xff"
                                               "abc"),
                 "exceeds");
  assert_refused(PARSE_LITERAL(data_idx_parse, "\0\0\x08\4\x80\0\0\0\x80\0\0\0\0\0\0\4\0\0\0\1a"), "exceeds");
}
END_TEST

START_TEST(test_idx_cut_at_every_byte) {
  for (size_t n = 0; n < sizeof idx_u8 - 1; n++) assert_refused(parse(data_idx_parse, idx_u8, n), "digits.bin: has ");
}
END_TEST

/* A version 1 npy file with this text as its header. */
static size_t npy_bytes(uint8_t *bytes, const char *text, const void *values, size_t n_values) {
  size_t length = strlen(text);
  memcpy(bytes, "\x93NUMPY\1\0", 8);
  bytes[8] = (uint8_t)length;
  bytes[9] = (uint8_t)(length >> 8);
  memcpy(bytes + 10, text, length);
  memcpy(bytes + 10 + length, values, n_values);
  return 10 + length + n_values;
}

static curvd_status parse_npy(const char *text, const void *values, size_t n_values) {
  uint8_t bytes[1000];
  return parse(data_npy_parse, bytes, npy_bytes(bytes, text, values, n_values));
}

START_TEST(test_npy_types) {
  ck_assert_int_eq(parse_npy("{'descr': '|u1', 'fortran_order': False, 'shape': (2, 3), }  \n", "abcdef", 6), CURVD_OK);
  ck_assert(array.type == DATA_U8 && array.n_dimensions == 2 && array.shape[0] == 2 && array.shape[1] == 3);
  ck_assert_mem_eq(array.values, "abcdef", 6);
  data_array_free(&memory, &array);
  ck_assert_int_eq(parse_npy("{'shape':(2,),'fortran_order':False,'descr':'<f4'}", "\0\0\xc0\x3f\x79\xe9\xf6\xc2", 8),
                   CURVD_OK); /* any order, no blanks */
  ck_assert(array.type == DATA_F32 && array.n_dimensions == 1);
  ck_assert(((float *)array.values)[0] == 1.5f && ((float *)array.values)[1] == -123.456f);
  data_array_free(&memory, &array);
  ck_assert_int_eq(parse_npy("{'descr': '<i4', 'fortran_order': False, 'shape': (1, 1, 1, 1)}", "\xfe\xff\xff\xff", 4),
                   CURVD_OK);
  ck_assert(array.type == DATA_I32 && array.n_dimensions == 4 && *(int32_t *)array.values == -2);
}
END_TEST

START_TEST(test_npy_narrowed_types) {
  const char *text = "{'descr': '<i8', 'fortran_order': False, 'shape': (2,), }\n";
  ck_assert_int_eq(parse_npy(text, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f\0\0\0\0", 16), CURVD_OK);
  ck_assert(((int32_t *)array.values)[0] == -1 && ((int32_t *)array.values)[1] == INT32_MAX);
  data_array_free(&memory, &array);
  assert_refused(parse_npy(text, "\1\0\0\0\0\0\0\0\0\0\0\x80\0\0\0\0", 16), "value 1 is 2147483648");
  assert_refused(parse_npy(text, "\xff\xff\xff\x7f\xff\xff\xff\xff\0\0\0\0\0\0\0\0", 16), "value 0 is -2147483649");
  text = "{'descr': '<f8', 'fortran_order': False, 'shape': (2,), }\n";
  ck_assert_int_eq(parse_npy(text, "\0\0\0\0\0\0\xf8\x3f\0\0\0\0\0\0\xf0\x7f", 16), CURVD_OK); /* 1.5, infinity */
  ck_assert(((float *)array.values)[0] == 1.5f && isinf(((float *)array.values)[1]));
  data_array_free(&memory, &array);
  assert_refused(parse_npy(text, "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\xf0\x47", 16), "beyond single precision"); /* 2^128 */
}
END_TEST

START_TEST(test_npy_versions) {
  const char head[] = "\x93NUMPY\2\0\x37\0\0\0{'descr': '|u1', 'fortran_order': False, 'shape': (3,)}";
  char bytes[200];
  size_t n = sizeof head - 1;
  for (char version = 1; version <= 4; version++) {
    memcpy(bytes, head, n);
    memcpy(bytes + n, "abc", 3);
    bytes[6] = version;
    curvd_status status = parse(data_npy_parse, bytes, n + 3);
    if (version == 1) assert_refused(status, "expected { at character 1");
    if (version == 2 || version == 3) {
      ck_assert_int_eq(status, CURVD_OK);
      ck_assert_mem_eq(array.values, "abc", 3);
    }
    if (version == 4) assert_refused(status, "version 4.0");
    data_array_free(&memory, &array);
  }
}
END_TEST

START_TEST(test_npy_refusals) {
  static const char *const refused[][2] = {
      {"{'descr': '|u1', 'fortran_order': False, 'shape': (3,)", "expected }"},
      {"{'descr': '|u1', 'fortran_order': False, 'shape': (3,", "a length"},
      {"'descr': '|u1', 'fortran_order': False, 'shape': (3,)}", "expected {"},
      {"{'descr': '|u1', 'fortran_order': True, 'shape': (3,)}", "C order"},
      {"{'descr': '|O', 'fortran_order': False, 'shape': (3,)}", "one of the types"},
      {"{'descr': '>f4', 'fortran_order': False, 'shape': (3,)}", "one of the types"},
      {"{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (3,)}", "one of the types"},
      {"{'descr': '|u1', 'fortran_order': False, 'shape': (-3,)}", "a length"},
      {"{'descr': '|u1', 'fortran_order': False, 'shape': (0,)}", "dimension 1 has length 0"},
      {"{'descr': '|u1', 'fortran_order': False, 'shape': ()}", "a length"},
      {"{'descr': '|u1', 'fortran_order': False, 'shape': (3)}", "a comma"},
      {"{'descr': '|u1', 'fortran_order': False, 'shape': (1 3,)}", "a comma"},
      {"{'descr': '|u1', 'fortran_order': False, 'shape': (1,1,1,1,3)}", "4 dimensions"},
      {"{'descr': '|u1', 'fortran_order': False, 'shape': (4294967296,4294967296)}", "exceeds"},
      {"{'descr': '|u1', 'fortran_order': False, 'shape': (99999999999999999999,)}", "a comma"},
      {"{'descr': '|u1', 'fortran_order': False, 'shape': (999999999,)}", "promises 10000000"},
      {"{'descr': '|u1', 'fortran_order': False}", "a comma"},
      {"{'descr': '|u1', 'descr': '|u1', 'shape': (3,)}", "once"},
      {"{'descr': '|u1', 'fortran_order': False, 'shape': (3,), 'x': 1}", "expected }"},
      {"{'descr' '|u1', 'fortran_order': False, 'shape': (3,)}", "a colon"},
      {"{'descr': '|u1' 'fortran_order': False, 'shape': (3,)}", "a comma"},
      {"{'descr': '|u1', 'fortran_order': False, 'shape': (3,)} import os", "blanks"},
      {"{'descr': '|u1', 'fortran_order': False, 'shape': (2,)}", "goes on after"},
      {"{'descr': '|u1', 'fortran_order': False, 'shape': (4,)}", "promises"},
  };
  for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
    assert_refused(parse_npy(refused[i][0], "abc", 3), refused[i][1]);
  assert_refused(PARSE_LITERAL(data_npy_parse, "\x93NUMPX\1\0\4\0{}ab"), "magic");
  assert_refused(PARSE_LITERAL(data_npy_parse, "\x93NUMPY\1\0\xff\xff{}ab"), "65535 characters");
  assert_refused(PARSE_LITERAL(data_npy_parse, "\x93NUMPY\2\0\xff\xff\xff\xff{}ab"), "4294967295 characters");
}
END_TEST

START_TEST(test_npy_cut_at_every_byte) {
  uint8_t bytes[200];
  size_t n = npy_bytes(bytes, "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2), }\n", "abcdefgh", 8);
  for (size_t cut = 0; cut < n; cut++) assert_refused(parse(data_npy_parse, bytes, cut), "digits.bin: ");
  ck_assert_int_eq(parse(data_npy_parse, bytes, n), CURVD_OK);
}
END_TEST

/* Random damage: every outcome but a crash is fine; what is accepted is consistent. */
START_TEST(test_random_damage) {
  uint8_t npy[200], bytes[200];
  size_t n_npy =
      npy_bytes(npy, "{'descr': '<i8', 'fortran_order': False, 'shape': (1, 2), }\n", "abc\0\0\0\0\0efg\0\0\0\0\0", 16);
  uint32_t state = 1;
  int n_accepted = 0;
  for (int round = 0; round < 200000; round++) {
    int is_npy = round % 2;
    size_t n = is_npy ? n_npy : sizeof idx_u8 - 1;
    memcpy(bytes, is_npy ? (const void *)npy : idx_u8, n);
    for (int flips = 0; flips < 1 + round % 3; flips++) {
      state = state * 1664525 + 1013904223;
      bytes[(state >> 8) % n] ^= (uint8_t)(1 << (state >> 29));
    }
    if (parse(is_npy ? data_npy_parse : data_idx_parse, bytes, n) == CURVD_OK) {
      int64_t count = 1;
      for (int i = 0; i < array.n_dimensions; i++) count *= array.shape[i];
      ck_assert_int_eq(count, array.count);
      ck_assert_int_eq(live_bytes(), array.count * (array.type == DATA_U8 ? 1 : 4));
      n_accepted++;
      data_array_free(&memory, &array);
    }
    ck_assert_int_eq(live_bytes(), 0);
  }
  ck_assert(n_accepted > 1000 && n_accepted < 190000);
}
END_TEST

START_TEST(test_files_plain_and_gzip) {
  uint8_t npy[200];
  size_t n_npy = npy_bytes(npy, "{'descr': '|u1', 'fortran_order': False, 'shape': (6,), }\n", "abcdef", 6);
  for (int i = 0; i < 4; i++) {
    const char *path = in_folder("digits.ubyte");
    const void *bytes = i < 2 ? (const void *)idx_u8 : npy;
    size_t n = i < 2 ? sizeof idx_u8 - 1 : n_npy;
    (i % 2 == 0 ? write_file : write_gzip)(path, bytes, n); /* the name does not tell what it is */
    ck_assert_msg(data_file_read(path, &memory, &array, &err) == CURVD_OK, "%s", err.text);
    ck_assert(array.n_dimensions == (i < 2 ? 3 : 1) && array.count == 6);
    ck_assert_mem_eq(array.values, "abcdef", 6);
    ck_assert_int_eq(live_bytes(), 6);
    data_array_free(&memory, &array);
  }
}
END_TEST

static size_t read_back(const char *path, uint8_t *bytes, size_t n_max) {
  FILE *file = fopen(path, "rb");
  ck_assert_ptr_nonnull(file);
  size_t n = fread(bytes, 1, n_max, file);
  fclose(file);
  return n;
}

static void assert_file_refused(const void *bytes, size_t n, const char *words) {
  const char *path = in_folder("digits.gz");
  write_file(path, bytes, n);
  cv_error_clear(&err);
  assert_refused(data_file_read(path, &memory, &array, &err), words);
}

START_TEST(test_damaged_gzip) {
  uint8_t bytes[300];
  write_gzip(in_folder("digits.gz"), idx_u8, sizeof idx_u8 - 1);
  size_t n = read_back(in_folder("digits.gz"), bytes, sizeof bytes);
  for (size_t cut = 0; cut < n; cut++) assert_file_refused(bytes, cut, "digits.gz: ");
  bytes[n - 8] ^= 1;
  assert_file_refused(bytes, n, "damaged gzip data"); /* checksum */
  bytes[n - 8] ^= 1;
  bytes[n - 4] ^= 1;
  assert_file_refused(bytes, n, "damaged gzip data"); /* length */
}
END_TEST

START_TEST(test_files_that_promise_too_much) {
  static const char head[] = "\0\0\x08\2\0\0\x40\0\0\0\x40\0"; /* 2^28 bytes */
  assert_file_refused(head, sizeof head - 1, "has 12 bytes, but its header promises 268435468");
  write_gzip(in_folder("digits.gz"), head, sizeof head - 1);
  cv_error_clear(&err);
  assert_refused(data_file_read(in_folder("digits.gz"), &memory, &array, &err), "promises 268435468 bytes, more than");
  ck_assert_int_lt(memory.peak_bytes, 1 << 20); /* nothing was taken for them */
}
END_TEST

/* A bomb: 64 MiB of zeros behind a header that promises one byte. */
START_TEST(test_gzip_bomb) {
  static char zeros[1 << 16];
  gzFile file = gzopen(in_folder("digits.gz"), "wb9");
  gzwrite(file, "\0\0\x08\1\0\0\0\1", 8);
  for (int i = 0; i < 1024; i++) gzwrite(file, zeros, sizeof zeros);
  gzclose(file);
  assert_refused(data_file_read(in_folder("digits.gz"), &memory, &array, &err), "goes on after the 9 bytes");
  ck_assert_int_lt(memory.peak_bytes, 1 << 20);
}
END_TEST

START_TEST(test_a_file_longer_than_the_first_piece) {
  enum { N = 300000 };
  static uint8_t bytes[8 + N] = {0, 0, 8, 1, 0, N >> 16, (N >> 8) & 255, N & 255};
  for (int i = 0; i < N; i++) bytes[8 + i] = (uint8_t)(i * 31);
  write_gzip(in_folder("digits.gz"), bytes, sizeof bytes);
  ck_assert_int_eq(data_file_read(in_folder("digits.gz"), &memory, &array, &err), CURVD_OK);
  ck_assert_mem_eq(array.values, bytes + 8, N);
  data_array_free(&memory, &array);
  assert_file_refused(bytes, sizeof bytes - 1, "has 300007 bytes, but its header promises 300008");
}
END_TEST

START_TEST(test_files_of_no_known_kind) {
  assert_file_refused("", 0, "neither");
  assert_file_refused("\x89PNG....", 8, "neither");
  assert_file_refused("P", 1, "neither");
  const char *paths[] = {in_folder(""), "/nonexistent/digits"};
  for (int i = 0; i < 2; i++) {
    cv_error_clear(&err);
    ck_assert_int_eq(data_file_read(paths[i], &memory, &array, &err), CURVD_ERR_IO);
    ck_assert_ptr_nonnull(strstr(err.text, i == 0 ? "not a regular file" : strerror(ENOENT)));
  }
  ck_assert_int_eq(live_bytes(), 0);
}
END_TEST

int main(void) {
  const TTest *const tests[] = {test_idx_bytes,
                                test_idx_numbers,
                                test_idx_refusals,
                                test_idx_cut_at_every_byte,
                                test_npy_types,
                                test_npy_narrowed_types,
                                test_npy_versions,
                                test_npy_refusals,
                                test_npy_cut_at_every_byte,
                                test_random_damage,
                                test_files_plain_and_gzip,
                                test_damaged_gzip,
                                test_files_that_promise_too_much,
                                test_gzip_bomb,
                                test_a_file_longer_than_the_first_piece,
                                test_files_of_no_known_kind};
  if (mkdtemp(folder) == NULL) return EXIT_FAILURE;
  int code = suite_run("data", tests, sizeof tests / sizeof tests[0], after_each);
  unlink(in_folder("digits.gz"));
  unlink(in_folder("digits.ubyte"));
  rmdir(folder);
  return code;
}
