/* A folder in memory for one input: made, filled, removed. */
#ifndef TESTS_FUZZ_FUZZ_FILES_H
#define TESTS_FUZZ_FUZZ_FILES_H

#include "fuzz.h"

#include <fcntl.h>
#include <unistd.h>

#define FUZZ_FOLDER "/dev/shm/curvd_fuzz_XXXXXX"
enum { FUZZ_PATH_MAX = 600 }; /* of any run folder, and a name in it */

/* path: FUZZ_FOLDER, or what it was made before. */
static inline void fuzz_folder_make(char *path) {
  strcpy(path + strlen(path) - 6, "XXXXXX");
  fuzz_require(mkdtemp(path) != NULL, "a folder is made");
}

static inline void fuzz_file_write(const char *folder, const char *name, const void *bytes, size_t n_bytes) {
  char path[FUZZ_PATH_MAX];
  snprintf(path, sizeof path, "%s/%s", folder, name);
  int file = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
  fuzz_require(file >= 0 && write(file, bytes, n_bytes) == (ssize_t)n_bytes && close(file) == 0, "a file is written");
}

/* Removes it with the files of these names, as far as they are there. */
static inline void fuzz_folder_remove(const char *folder, const char *const *name, int n) {
  char path[FUZZ_PATH_MAX];
  for (int i = 0; i < n; i++) {
    snprintf(path, sizeof path, "%s/%s", folder, name[i]);
    unlink(path);
  }
  fuzz_require(rmdir(folder) == 0, "nothing else is left in the folder");
}

#endif
