/* What file_put writes is what one reads, in blocks past the page cache or not, on any file system. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* O_DIRECT */
#endif
#include "save/file.h"

#include "save_fixture.h"
#include "suite.h"

#include <errno.h>

enum { PLACES = 3 * FILE_BLOCK };

static const file_watch nobody = {.faults = NULL};

static unsigned char byte_at(int64_t i) {
  return (unsigned char)(i * 167 >> 4);
}

/* Two pieces in memory `shift` bytes after a block's begin. */
static void put_and_read(const char *path, int64_t shift, int64_t n_first, int64_t n_second, file_watch watch) {
  cv_error err = {.code = CURVD_OK};
  char *memory = aligned_alloc(FILE_BLOCK, 5 * PLACES);
  unsigned char *first = (unsigned char *)memory + shift, *second = first + 2 * PLACES, seen;
  for (int64_t i = 0; i < n_first; i++) first[i] = byte_at(i);
  for (int64_t i = 0; i < n_second; i++) second[i] = byte_at(n_first + i);
  const file_piece piece[] = {{first, n_first}, {second, n_second}};
  int folder = open(path, O_RDONLY | O_DIRECTORY);
  ck_assert_int_eq(file_put(folder, "folder", "data", piece, 2, watch, &err), CURVD_OK);
  save_file file;
  ck_assert_int_eq(file_open(folder, "folder", "data", &file, &err), CURVD_OK);
  ck_assert_int_eq(file.bytes, n_first + n_second);
  for (int64_t i = 0; i < file.bytes; i++) {
    ck_assert_int_eq(file_read(&file, i, &seen, 1, &err), CURVD_OK);
    ck_assert_msg(seen == byte_at(i), "byte %lld of %lld + %lld, shift %lld", (long long)i, (long long)n_first,
                  (long long)n_second, (long long)shift);
  }
  file_close(&file);
  ck_assert_int_eq(unlinkat(folder, "data", 0), 0);
  close(folder);
  free(memory);
}

static void put_sizes(const char *path, file_watch watch) {
  const int64_t sizes[] = {0, 1, FILE_BLOCK - 1, FILE_BLOCK, FILE_BLOCK + 1, PLACES};
  for (int first = 0; first < 6; first++)
    for (int second = 0; second < 6; second++)
      for (int64_t shift = 0; shift <= 64; shift += 64) put_and_read(path, shift, sizes[first], sizes[second], watch);
}

START_TEST(test_sizes) {
  make_folder();
  put_sizes(save_folder, nobody);
  put_sizes("/dev/shm", nobody);
}
END_TEST

/* As a file system answers that opens files for writing past the page cache, and then does not. */
static int refuse_first(void *user, int64_t step) {
  bool *is_refused = user;
  (void)step;
  return (*is_refused = !*is_refused) ? EINVAL : 0;
}

START_TEST(test_refused_blocks) {
  make_folder();
  int fd = open(in_folder("probe"), O_WRONLY | O_CREAT | O_DIRECT, 0600);
  if (fd < 0) return; /* here nothing is tried that could be refused */
  close(fd);
  bool is_refused = false;
  const saver_faults faults = {refuse_first, NULL, &is_refused};
  put_and_read(save_folder, 0, FILE_BLOCK, 0, (file_watch){&faults, 1});
  put_and_read(save_folder, 0, PLACES + 5, 0, (file_watch){&faults, 1});
}
END_TEST

int main(void) {
  const TTest *const tests[] = {test_sizes, test_refused_blocks};
  return suite_run("file", tests, sizeof tests / sizeof tests[0], remove_folder);
}
