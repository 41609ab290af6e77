#include "page/jsonl.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static const int64_t FILE_BYTES_MAX = (int64_t)1 << 30;
static const double SHOWN_MAX = 1e30;   /* differences and squares of such numbers are still finite */
static const double SHOWN_MIN = 1e-300; /* parts of such numbers still have all their digits */

static bool is_blank(const char *line, int64_t n) {
  for (int64_t i = 0; i < n; i++)
    if (line[i] != ' ' && line[i] != '\t' && line[i] != '\r') return false;
  return true;
}

static json_t *object_of(const char *line, int64_t n) {
  json_t *object = json_loadb(line, (size_t)n, 0, NULL);
  if (json_is_object(object)) return object;
  json_decref(object);
  return NULL;
}

static curvd_status take_line(const char *line, int64_t n, int64_t number, const char *name, jsonl_take take,
                              void *user, cv_error *err) {
  json_t *object = object_of(line, n);
  if (object == NULL)
    return cv_fail(err, CURVD_ERR_DATA, "%.200s:%lld: no JSON object; remove the line if it was cut off", name,
                   (long long)number);
  curvd_status status = take(user, object, number, err);
  json_decref(object);
  return status;
}

curvd_status jsonl_each(const char *bytes, int64_t n, const char *name, jsonl_take take, void *user, bool *is_cut,
                        cv_error *err) {
  int64_t number = 1;
  *is_cut = false;
  for (int64_t at = 0; at < n; number++) {
    const char *line = bytes + at, *end = memchr(line, '\n', (size_t)(n - at));
    int64_t length = end != NULL ? end - line : n - at;
    at += length + 1;
    if (is_blank(line, length)) continue;
    if (end == NULL) { /* whole, or cut off? */
      json_t *object = object_of(line, length);
      *is_cut = object == NULL;
      json_decref(object);
      if (*is_cut) break;
    }
    CV_TRY(take_line(line, length, number, name, take, user, err));
  }
  return CURVD_OK;
}

double jsonl_number(const json_t *object, const char *key) {
  const json_t *value = json_object_get(object, key);
  double number = json_is_number(value) ? json_number_value(value) : NAN;
  if (fabs(number) < SHOWN_MIN) return 0;
  return fabs(number) <= SHOWN_MAX ? number : NAN;
}

const char *jsonl_text(const json_t *object, const char *key) {
  const char *text = json_string_value(json_object_get(object, key));
  return text != NULL ? text : "";
}

/* ---- files ---- */

static curvd_status read_open(FILE *file, const char *path, char **bytes, int64_t *n, cv_error *err) {
  struct stat about;
  if (fstat(fileno(file), &about) != 0 || !S_ISREG(about.st_mode))
    return cv_fail(err, CURVD_ERR_DATA, "%.300s: no regular file; give a run folder, or a file of JSON lines", path);
  if (about.st_size > FILE_BYTES_MAX)
    return cv_fail(err, CURVD_ERR_DATA, "%.300s: %lld bytes; a page takes files of up to %lld", path,
                   (long long)about.st_size, (long long)FILE_BYTES_MAX);
  char *read = malloc((size_t)about.st_size + 1);
  if (read == NULL)
    return cv_fail(err, CURVD_ERR_MEMORY, "%.300s: no memory for its %lld bytes", path, (long long)about.st_size);
  *n = (int64_t)fread(read, 1, (size_t)about.st_size, file); /* a run may still write: later lines are left */
  if (ferror(file)) {
    free(read);
    return cv_fail(err, CURVD_ERR_IO, "%.300s: cannot be read: %s", path, strerror(errno));
  }
  read[*n] = '\0';
  *bytes = read;
  return CURVD_OK;
}

curvd_status jsonl_file_read(const char *path, char **bytes, int64_t *n, cv_error *err) {
  int descriptor = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC); /* a pipe without a writer is not waited for */
  FILE *file = descriptor >= 0 ? fdopen(descriptor, "rb") : NULL;
  if (file == NULL) return cv_fail(err, CURVD_ERR_IO, "%.300s: %s", path, strerror(errno));
  curvd_status status = read_open(file, path, bytes, n, err);
  fclose(file);
  return status;
}
