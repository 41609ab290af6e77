/* A temporary folder for the files of a data set, and what is loaded from it. */
#ifndef TESTS_UNIT_DATA_FILES_H
#define TESTS_UNIT_DATA_FILES_H

#include "train/data.h"

#include "suite.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static cv_memory memory;
static cv_error err;
static data_pair pair;
static char folder[] = "/tmp/curvd_test_set_XXXXXX";

static inline const char *in_folder(const char *name) {
  static char path[400];
  snprintf(path, sizeof path, "%s/%s", folder, name);
  return path;
}

static inline void after_each(void) {
  DIR *files = opendir(folder);
  for (struct dirent *file; (file = readdir(files)) != NULL;)
    if (file->d_name[0] != '.') remove(in_folder(file->d_name));
  closedir(files);
  data_free(&memory, &pair);
  cv_error_clear(&err);
}

static inline int64_t live_bytes(void) {
  int64_t sum = 0;
  for (int kind = 0; kind < CV_MEMORY_KINDS; kind++) sum += memory.bytes[kind];
  return sum;
}

static inline void write_parts(const char *name, const void *head, size_t n_head, const void *values, size_t n_values) {
  FILE *file = fopen(in_folder(name), "wb");
  ck_assert_ptr_nonnull(file);
  ck_assert_uint_eq(fwrite(head, 1, n_head, file), n_head);
  ck_assert_uint_eq(fwrite(values, 1, n_values, file), n_values);
  ck_assert_int_eq(fclose(file), 0);
}

static inline void write_npy(const char *name, const char *type, const char *shape, const void *values,
                             size_t n_bytes) {
  char head[200] = "\x93NUMPY\1";
  int length = snprintf(head + 10, 150, "{'descr': '%s', 'fortran_order': False, 'shape': (%s), }\n", type, shape);
  head[7] = 0;
  head[8] = (char)length;
  head[9] = 0;
  write_parts(name, head, 10 + (size_t)length, values, n_bytes);
}

/* Loads the folder. */
static inline curvd_status load_request(data_request request) {
  request.source = folder;
  data_free(&memory, &pair);
  cv_error_clear(&err);
  return data_load(&request, &memory, &pair, &err);
}

static inline void assert_request_loads(data_request request) {
  curvd_status status = load_request(request);
  ck_assert_msg(status == CURVD_OK, "%s", err.text);
}

/* A refusal has this code, names the folder or file, says `words` and leaves nothing behind. */
static inline void assert_request_refused(data_request request, curvd_status code, const char *words) {
  ck_assert_int_eq(load_request(request), code);
  ck_assert_msg(strstr(err.text, folder) != NULL && strstr(err.text, words) != NULL, "\"%s\" not in: %s", words,
                err.text);
  ck_assert_int_eq(pair.train.n, 0);
  ck_assert_int_eq(live_bytes(), 0);
}

static inline int folder_suite_run(const char *name, const TTest *const *tests, size_t n_tests) {
  if (mkdtemp(folder) == NULL) return EXIT_FAILURE;
  int code = suite_run(name, tests, n_tests, after_each);
  rmdir(folder);
  return code;
}

#endif
