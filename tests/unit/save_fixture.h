/* A temporary folder of checkpoints, and arrays whose numbers are known from name, row and column alone. */
#ifndef TESTS_UNIT_SAVE_FIXTURE_H
#define TESTS_UNIT_SAVE_FIXTURE_H

#include "base/order.h"
#include "save/checkpoint.h"
#include "save/saver.h"

#include <check.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char save_folder[] = "/tmp/curvd_test_save_XXXXXX";

/* ---- files ---- */

static inline void remove_tree(const char *path) {
  DIR *list = opendir(path);
  for (const struct dirent *entry; list != NULL && (entry = readdir(list)) != NULL;) {
    char inner[600];
    if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
    snprintf(inner, sizeof inner, "%.300s/%s", path, entry->d_name);
    if (unlink(inner) != 0) remove_tree(inner);
  }
  if (list != NULL) closedir(list);
  rmdir(path);
}

static inline void make_folder(void) {
  strcpy(save_folder + strlen(save_folder) - 6, "XXXXXX");
  ck_assert_ptr_nonnull(mkdtemp(save_folder));
}

static inline void remove_folder(void) {
  remove_tree(save_folder);
}

/* "/tmp/.../name" of the folder; one of two buffers in turn. */
static inline const char *in_folder(const char *name) {
  static char paths[2][400];
  static int turn;
  char *path = paths[turn = !turn];
  snprintf(path, sizeof paths[0], "%.100s/%.250s", save_folder, name);
  return path;
}

static inline bool exists(const char *name) {
  struct stat about;
  return lstat(in_folder(name), &about) == 0;
}

/* Names in the folder that are not whole checkpoints. */
static inline int count_unfinished(void) {
  DIR *list = opendir(save_folder);
  int n = 0;
  ck_assert_ptr_nonnull(list);
  for (const struct dirent *entry; (entry = readdir(list)) != NULL;)
    n += entry->d_name[0] != '.' && strchr(entry->d_name, '.') != NULL;
  closedir(list);
  return n;
}

static inline char *read_bytes(const char *name, int64_t *n) {
  struct stat about;
  int fd = open(in_folder(name), O_RDONLY);
  ck_assert_msg(fd >= 0 && fstat(fd, &about) == 0, "%s", name);
  char *bytes = malloc((size_t)about.st_size + 1);
  ck_assert_int_eq(read(fd, bytes, (size_t)about.st_size), about.st_size);
  close(fd);
  bytes[about.st_size] = '\0';
  *n = about.st_size;
  return bytes;
}

static inline void write_bytes(const char *name, const void *bytes, int64_t n) {
  unlink(in_folder(name));
  int fd = open(in_folder(name), O_WRONLY | O_CREAT | O_TRUNC, 0644);
  ck_assert_msg(fd >= 0, "%s", name);
  ck_assert_int_eq(write(fd, bytes, (size_t)n), n);
  close(fd);
}

/* ---- arrays ---- */

/* Exact in fp32. */
static inline double number_at(const char *name, int64_t step, int64_t row, int64_t column) {
  return (double)(1000 * (int)name[0] + 17 * step + 31 * row) + (double)column / 64;
}

static inline double get_number(const curvd_array *a, int64_t row, int64_t column) {
  int64_t at = (row - a->begin) * a->row_stride + column * a->column_stride;
  return a->dtype == CURVD_F64 ? ((const double *)a->data)[at] : (double)((const float *)a->data)[at];
}

static inline int64_t columns_of(const curvd_array *a, int64_t row) {
  return a->is_triangle ? row + 1 : a->n_columns;
}

static inline void fill_array(const curvd_array *a, int64_t step) {
  for (int64_t i = a->begin; i < a->begin + a->rows; i++) {
    for (int64_t j = 0; j < columns_of(a, i); j++) {
      int64_t at = (i - a->begin) * a->row_stride + j * a->column_stride;
      if (a->dtype == CURVD_F64) ((double *)a->data)[at] = number_at(a->name, step, i, j);
      if (a->dtype == CURVD_F32) ((float *)a->data)[at] = (float)number_at(a->name, step, i, j);
    }
  }
}

static inline void assert_filled(const curvd_array *a, int64_t step) {
  for (int64_t i = a->begin; i < a->begin + a->rows; i++)
    for (int64_t j = 0; j < columns_of(a, i); j++)
      ck_assert_msg(get_number(a, i, j) == number_at(a->name, step, i, j), "%s (%d, %d): %g", a->name, (int)i, (int)j,
                    get_number(a, i, j));
}

/* Rows of an array of the fixture, in memory of its own (free data); rows lie n_columns + 3 apart, or columns
 * n_rows + 2 apart. */
static inline curvd_array new_array(const char *name, curvd_dtype dtype, bool is_triangle, int64_t n_rows,
                                    int64_t n_columns, int64_t begin, int64_t rows, bool is_transposed) {
  curvd_array a = {name, dtype, is_triangle, n_rows, n_columns, begin, rows, n_columns + 3, 1, NULL};
  if (is_transposed) a.row_stride = 1, a.column_stride = n_rows + 2;
  a.data = calloc((size_t)((n_rows + 3) * (n_columns + 3)), sizeof(double));
  ck_assert_ptr_nonnull(a.data);
  return a;
}

typedef struct known_array {
  const char *name;
  curvd_dtype dtype;
  bool is_triangle, is_transposed;
  int64_t n_rows, n_columns;
  int64_t cut[4]; /* rows cut[r] .. cut[r + 1] - 1 are rank r's, of 3 ranks */
} known_array;

static const known_array known[] = {
    {"weights", CURVD_F32, false, false, 17, 5, {0, 6, 12, 17}},
    {"bias", CURVD_F32, false, false, 1, 13, {0, 0, 1, 1}},
    {"factor.A", CURVD_F64, true, false, 9, 9, {0, 4, 4, 9}},
    {"gram_lower", CURVD_F32, true, true, 40, 40, {0, 33, 34, 40}},
    {"transposed", CURVD_F64, false, true, 35, 66, {0, 20, 34, 35}},
    {"empty", CURVD_F32, false, false, 0, 7, {0, 0, 0, 0}},
};
enum { N_KNOWN = sizeof known / sizeof known[0] };

static inline curvd_array known_rows(int k, int64_t begin, int64_t end) {
  const known_array *a = &known[k];
  return new_array(a->name, a->dtype, a->is_triangle, a->n_rows, a->n_columns, begin, end - begin, a->is_transposed);
}

/* ---- savers ---- */

static inline saver *new_saver(int rank, int n_ranks, int64_t keep, saver_faults faults) {
  cv_error err = {.code = CURVD_OK};
  saver *made = NULL;
  saver_settings set = {save_folder, rank, n_ranks, keep, 20, NULL, faults};
  if (rank == 0) set.about = json_pack("{s:s,s:i}", "network", "20-30-10", "seed", 7);
  ck_assert_msg(saver_create(&set, &made, &err) == CURVD_OK, "%s", err.text);
  return made;
}

/* This rank's parts of all known arrays; rank 0 of 1 has all rows. */
static inline void fill_shard(saver *s, int rank, int n_ranks, int64_t step) {
  cv_error err = {.code = CURVD_OK};
  ck_assert_msg(saver_begin(s, step, &err) == CURVD_OK, "%s", err.text);
  for (int k = 0; k < N_KNOWN; k++) {
    const int64_t *cut = known[k].cut;
    if (known[k].n_rows == 0 && rank > 0) continue;
    curvd_array a = n_ranks == 1 ? known_rows(k, 0, known[k].n_rows) : known_rows(k, cut[rank], cut[rank + 1]);
    fill_array(&a, step);
    ck_assert_msg(saver_add(s, &a, &err) == CURVD_OK, "%s", err.text);
    free(a.data);
  }
}

static inline saver_outcome outcome_of(saver *s) {
  saver_outcome outcome;
  saver_wait(s);
  ck_assert(saver_outcome_take(s, &outcome));
  return outcome;
}

static inline void save_alone(saver *s, int64_t step) {
  fill_shard(s, 0, 1, step);
  saver_commit(s);
  saver_outcome outcome = outcome_of(s);
  ck_assert_msg(outcome.error.code == CURVD_OK, "%s", outcome.error.text);
}

/* Three ranks in one process; the last one commits first. */
static inline void save_by_three(int64_t step) {
  saver *s[3];
  for (int r = 0; r < 3; r++) s[r] = new_saver(r, 3, 2, (saver_faults){.user = NULL});
  for (int r = 0; r < 3; r++) fill_shard(s[r], r, 3, step);
  for (int r = 2; r >= 0; r--) saver_commit(s[r]);
  for (int r = 0; r < 3; r++) {
    saver_outcome outcome = outcome_of(s[r]);
    ck_assert_msg(outcome.error.code == CURVD_OK, "%s", outcome.error.text);
    saver_free(&s[r]);
  }
}

/* ---- checkpoints ---- */

static inline checkpoint *open_step(int64_t step) {
  cv_error err = {.code = CURVD_OK};
  checkpoint *cp = NULL;
  char path[200];
  ck_assert(checkpoint_path(save_folder, step, path, sizeof path));
  ck_assert_msg(checkpoint_open(path, &cp, &err) == CURVD_OK, "%s", err.text);
  return cp;
}

/* Opens, verifies and reads all of it. */
static inline void assert_whole(int64_t step) {
  cv_error err = {.code = CURVD_OK};
  checkpoint *cp = open_step(step);
  ck_assert_int_eq(checkpoint_step(cp), step);
  ck_assert_msg(checkpoint_verify(cp, NULL, NULL, &err) == CURVD_OK, "%s", err.text);
  for (int k = 0; k < N_KNOWN; k++) {
    curvd_array a = known_rows(k, 0, known[k].n_rows);
    ck_assert_msg(checkpoint_read(cp, &a, &err) == CURVD_OK, "%s", err.text);
    assert_filled(&a, step);
    free(a.data);
  }
  checkpoint_close(&cp);
}

#endif
