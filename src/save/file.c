#include "save/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A write of more than 2 GB is cut short by Linux anyway. */
enum { WRITE_MAX = 1 << 24 };

void file_place(const char *folder_name, const char *name, char place[FILE_PLACE_MAX]) {
  snprintf(place, FILE_PLACE_MAX, "%.60s/%.50s", folder_name, name);
}

static curvd_status io_failed(const char *place, const char *what, int why, cv_error *err) {
  return cv_fail(err, CURVD_ERR_IO, "%.120s cannot be %s: %s", place, what, strerror(why));
}

curvd_status file_open(int folder, const char *folder_name, const char *name, save_file *file, cv_error *err) {
  struct stat about;
  file_place(folder_name, name, file->place);
  file->fd = openat(folder, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
  if (file->fd < 0) return io_failed(file->place, "opened", errno, err);
  if (fstat(file->fd, &about) == 0 && S_ISREG(about.st_mode)) {
    file->bytes = about.st_size;
    return CURVD_OK;
  }
  file_close(file);
  return cv_fail(err, CURVD_ERR_DATA, "%.120s is no regular file", file->place);
}

void file_close(save_file *file) {
  if (file->fd >= 0) close(file->fd);
  file->fd = -1;
}

curvd_status file_read(const save_file *file, int64_t at, void *bytes, int64_t n, cv_error *err) {
  for (int64_t done = 0; done < n;) {
    ssize_t got = pread(file->fd, (char *)bytes + done, (size_t)(n - done), at + done);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return io_failed(file->place, "read", errno, err);
    if (got == 0)
      return cv_fail(err, CURVD_ERR_DATA, "%.120s ends at byte %lld; %lld more belong there", file->place,
                     (long long)(at + done), (long long)(n - done));
    done += got;
  }
  return CURVD_OK;
}

/* ---- writing: errno or 0 ---- */

static int write_all(int fd, const char *bytes, int64_t n, file_watch watch, int64_t *done) {
  while (*done < n) {
    int64_t left = n - *done, most = left < WRITE_MAX ? left : WRITE_MAX;
    int fault =
        watch.faults != NULL && watch.faults->write != NULL ? watch.faults->write(watch.faults->user, watch.step) : 0;
    if (fault != 0) return fault;
    ssize_t put = write(fd, bytes + *done, (size_t)most);
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) return errno;
    if (put == 0) return EIO;
    *done += put;
  }
  return 0;
}

static bool pass_by_page_cache(int fd, bool is_passed_by) {
  int flags = fcntl(fd, F_GETFL);
  return flags >= 0 && fcntl(fd, F_SETFL, is_passed_by ? flags | O_DIRECT : flags & ~O_DIRECT) == 0;
}

/* Fresh pages of the page cache cost a step more CPU than hashing does. Aligned blocks pass them by, where the file
 * system can: others refuse at once (tmpfs), or at the first write with EINVAL. */
static int write_piece(int fd, int64_t at, const file_piece *piece, file_watch watch) {
  bool is_aligned = at % FILE_BLOCK == 0 && (uintptr_t)piece->bytes % FILE_BLOCK == 0;
  int64_t done = 0, in_blocks = is_aligned ? piece->n - piece->n % FILE_BLOCK : 0;
  if (in_blocks > 0 && pass_by_page_cache(fd, true)) {
    int why = write_all(fd, piece->bytes, in_blocks, watch, &done);
    pass_by_page_cache(fd, false);
    if (why != 0 && why != EINVAL) return why;
  }
  return write_all(fd, piece->bytes, piece->n, watch, &done);
}

int file_sync(int fd, file_watch watch) {
  int fault =
      watch.faults != NULL && watch.faults->sync != NULL ? watch.faults->sync(watch.faults->user, watch.step) : 0;
  if (fault != 0) return fault;
  while (fsync(fd) != 0)
    if (errno != EINTR) return errno;
  return 0;
}

static int write_pieces(int folder, const char *part, const file_piece *piece, int n_pieces, file_watch watch) {
  if (unlinkat(folder, part, 0) != 0 && errno != ENOENT) return errno;
  int fd = openat(folder, part, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666), why = 0;
  if (fd < 0) return errno;
  int64_t at = 0;
  for (int i = 0; i < n_pieces && why == 0; at += piece[i++].n) why = write_piece(fd, at, &piece[i], watch);
  if (why == 0) why = file_sync(fd, watch);
  if (close(fd) != 0 && why == 0 && errno != EINTR) why = errno;
  return why;
}

curvd_status file_put(int folder, const char *folder_name, const char *name, const file_piece *piece, int n_pieces,
                      file_watch watch, cv_error *err) {
  char part[80], place[FILE_PLACE_MAX];
  int64_t bytes = 0;
  snprintf(part, sizeof part, "%.60s.part", name);
  file_place(folder_name, name, place);
  for (int i = 0; i < n_pieces; i++) bytes += piece[i].n;
  int why = write_pieces(folder, part, piece, n_pieces, watch);
  if (why == 0 && renameat(folder, part, folder, name) != 0) why = errno;
  if (why == 0) why = file_sync(folder, watch);
  if (why == 0) return CURVD_OK;
  unlinkat(folder, part, 0);
  return cv_fail(err, CURVD_ERR_IO, "%.120s cannot be written (%lld bytes): %s", place, (long long)bytes,
                 strerror(why));
}
