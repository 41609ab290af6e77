#include "save/folder.h"

#include "base/number.h"
#include "save/manifest.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

void folder_name(int64_t step, const char *suffix, char name[FOLDER_NAME_MAX]) {
  snprintf(name, FOLDER_NAME_MAX, "step-%09lld%s", (long long)step, suffix);
}

curvd_status folder_open(const char *path, int *fd, cv_error *err) {
  *fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (*fd < 0) return cv_fail(err, CURVD_ERR_IO, "folder %.300s cannot be opened: %s", path, strerror(errno));
  return CURVD_OK;
}

/* A stream of its own, from the beginning. */
static DIR *list_begin(int parent) {
  int fd = openat(parent, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR *list = fd >= 0 ? fdopendir(fd) : NULL;
  if (list == NULL && fd >= 0) close(fd);
  return list;
}

/* "step-000000100" followed by this suffix, and nothing that only looks like it. */
static bool step_of(const char *name, const char *suffix, int64_t *step) {
  char digits[FOLDER_NAME_MAX] = "", again[FOLDER_NAME_MAX];
  size_t length = strlen(name), tail = strlen(suffix);
  if (strncmp(name, "step-", 5) != 0 || length < 5 + tail || length - 5 - tail >= sizeof digits) return false;
  memcpy(digits, name + 5, length - 5 - tail);
  const char *first = digits + strspn(digits, "0");
  if (!cv_integer_parse(*first != '\0' ? first : "0", step) || *step < 0) return false;
  folder_name(*step, suffix, again);
  return strcmp(name, again) == 0;
}

curvd_status folder_set_aside(int parent, int64_t step, cv_error *err) {
  enum { TRIES = 100 };
  char from[FOLDER_NAME_MAX], to[FOLDER_NAME_MAX + 16];
  struct stat about;
  folder_name(step, "", from);
  for (int i = 1; i <= TRIES; i++) {
    snprintf(to, sizeof to, i == 1 ? "%s.aside" : "%s.aside%d", from, i);
    if (fstatat(parent, to, &about, AT_SYMLINK_NOFOLLOW) == 0) continue;
    if (renameat(parent, from, parent, to) == 0) return CURVD_OK;
    break;
  }
  return cv_fail(err, CURVD_ERR_IO, "%s cannot be renamed to %s: %s", from, to, strerror(errno));
}

/* ---- which are there ---- */

static bool is_checkpoint(int parent, const char *name, bool needs_manifest) {
  char path[FOLDER_NAME_MAX + sizeof MANIFEST_FILE];
  struct stat about;
  if (fstatat(parent, name, &about, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISDIR(about.st_mode)) return false;
  snprintf(path, sizeof path, "%.39s/%s", name, MANIFEST_FILE);
  return !needs_manifest || (fstatat(parent, path, &about, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(about.st_mode));
}

static int newest_first(const void *x, const void *y) {
  int64_t a = *(const int64_t *)x, b = *(const int64_t *)y;
  return (a < b) - (a > b);
}

static bool append(int64_t **list, int64_t *n, int64_t *capacity, int64_t step) {
  if (*n == *capacity) {
    int64_t more = 2 * *capacity + 16;
    int64_t *grown = realloc(*list, (size_t)more * sizeof *grown);
    if (grown == NULL) return false;
    *list = grown, *capacity = more;
  }
  (*list)[(*n)++] = step;
  return true;
}

curvd_status folder_steps(int parent, bool needs_manifest, int64_t **step, int64_t *n, cv_error *err) {
  int64_t *found = NULL, n_found = 0, capacity = 0, one = 0;
  DIR *list = list_begin(parent);
  if (list == NULL) return cv_fail(err, CURVD_ERR_IO, "a folder of checkpoints cannot be read: %s", strerror(errno));
  bool has_memory = true;
  for (const struct dirent *entry; has_memory && (entry = readdir(list)) != NULL;)
    if (step_of(entry->d_name, "", &one) && is_checkpoint(parent, entry->d_name, needs_manifest))
      has_memory = append(&found, &n_found, &capacity, one);
  closedir(list);
  if (!has_memory) {
    free(found);
    return cv_fail(err, CURVD_ERR_MEMORY, "no memory for a list of %lld checkpoints", (long long)n_found);
  }
  if (n_found > 0) qsort(found, (size_t)n_found, sizeof *found, newest_first);
  *step = found, *n = n_found;
  return CURVD_OK;
}

/* ---- removing ---- */

void folder_remove(int parent, const char *name) {
  int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0) return;
  DIR *list = list_begin(fd);
  for (const struct dirent *entry; list != NULL && (entry = readdir(list)) != NULL;)
    if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) unlinkat(fd, entry->d_name, 0);
  if (list != NULL) closedir(list);
  close(fd);
  unlinkat(parent, name, AT_REMOVEDIR);
}

void folder_trash(int parent, int64_t step) {
  char whole[FOLDER_NAME_MAX], trash[FOLDER_NAME_MAX];
  folder_name(step, "", whole);
  folder_name(step, ".trash", trash);
  folder_remove(parent, trash);
  if (renameat(parent, whole, parent, trash) == 0) folder_remove(parent, trash);
}

static void bring_back(int parent, int64_t step) {
  char whole[FOLDER_NAME_MAX], old[FOLDER_NAME_MAX];
  folder_name(step, "", whole);
  folder_name(step, ".old", old);
  if (is_checkpoint(parent, whole, true)) {
    folder_remove(parent, old);
  } else {
    renameat(parent, old, parent, whole);
  }
}

void folder_tidy(int parent) {
  int64_t step;
  DIR *list = list_begin(parent);
  for (const struct dirent *entry; list != NULL && (entry = readdir(list)) != NULL;) {
    if (step_of(entry->d_name, ".tmp", &step) || step_of(entry->d_name, ".trash", &step))
      folder_remove(parent, entry->d_name);
    if (step_of(entry->d_name, ".old", &step)) bring_back(parent, step);
  }
  if (list != NULL) closedir(list);
}

/* ---- publishing: errno or 0 ---- */

static int move(int parent, const char *from, const char *to) {
  return renameat(parent, from, parent, to) == 0 ? 0 : errno;
}

static int exchange_at_once(int parent, const char *x, const char *y) {
#ifdef RENAME_EXCHANGE
  return renameat2(parent, x, parent, y, RENAME_EXCHANGE) == 0 ? 0 : errno;
#else
  (void)parent, (void)x, (void)y;
  return ENOSYS;
#endif
}

static int exchange_by_three(int parent, int64_t step, const char *tmp, const char *whole) {
  char old[FOLDER_NAME_MAX];
  folder_name(step, ".old", old);
  folder_remove(parent, old);
  int why = move(parent, whole, old);
  if (why != 0) return why;
  why = move(parent, tmp, whole);
  move(parent, old, why == 0 ? tmp : whole);
  return why;
}

static int exchange(int parent, int64_t step, bool is_at_once) {
  char tmp[FOLDER_NAME_MAX], whole[FOLDER_NAME_MAX];
  folder_name(step, ".tmp", tmp);
  folder_name(step, "", whole);
  int why = is_at_once ? exchange_at_once(parent, tmp, whole) : ENOSYS;
  return why == ENOSYS || why == EINVAL ? exchange_by_three(parent, step, tmp, whole) : why;
}

static bool is_there(int parent, const char *name) {
  struct stat about;
  return fstatat(parent, name, &about, AT_SYMLINK_NOFOLLOW) == 0;
}

curvd_status folder_publish(int parent, int64_t step, bool is_at_once, cv_error *err) {
  char tmp[FOLDER_NAME_MAX], whole[FOLDER_NAME_MAX];
  folder_name(step, ".tmp", tmp);
  folder_name(step, "", whole);
  int why = is_there(parent, whole) ? exchange(parent, step, is_at_once) : move(parent, tmp, whole);
  if (why == 0) return CURVD_OK;
  return cv_fail(err, CURVD_ERR_IO, "%s cannot be renamed to %s: %s", tmp, whole, strerror(why));
}

void folder_withdraw(int parent, int64_t step, bool is_at_once) {
  char tmp[FOLDER_NAME_MAX], whole[FOLDER_NAME_MAX];
  folder_name(step, ".tmp", tmp);
  folder_name(step, "", whole);
  if (is_there(parent, tmp))
    exchange(parent, step, is_at_once);
  else
    move(parent, whole, tmp);
}
