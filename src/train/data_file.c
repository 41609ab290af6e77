/* Reading a file that may be gzip. Memory is taken only for the size that the file's header promises, and only after
 * that size was compared with the file's own: a decompression bomb costs nothing. */
#include "train/data_parts.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <zlib.h>

enum { GZIP_EXPANSION_MAX = 1032, GZIP_PIECE = 1 << 30 }; /* of deflate; bytes of one call */

static curvd_status header_parse(const uint8_t *bytes, int64_t n_bytes, const char *name, data_header *header,
                                 cv_error *err) {
  if (n_bytes >= 6 && memcmp(bytes, "\x93NUMPY", 6) == 0) return data_npy_header(bytes, n_bytes, name, header, err);
  if (n_bytes >= 2 && bytes[0] == 0 && bytes[1] == 0) return data_idx_header(bytes, n_bytes, name, header, err);
  return cv_fail(err, CURVD_ERR_DATA, "%s: its first bytes are neither those of idx (0 0) nor of npy, gzipped or not",
                 name);
}

/* Appends to bytes[0 .. *n - 1] until there are `wanted` bytes or the file ends, and then the checksum has been
 * compared. */
static curvd_status read_until(gzFile file, const char *path, int64_t wanted, uint8_t *bytes, int64_t *n,
                               cv_error *err) {
  int got = 1, code = Z_OK;
  while (*n < wanted && got > 0) {
    int64_t piece = wanted - *n < GZIP_PIECE ? wanted - *n : GZIP_PIECE;
    got = gzread(file, bytes + *n, (unsigned)piece);
    const char *reason = gzerror(file, &code);
    if (code == Z_ERRNO) return cv_fail(err, CURVD_ERR_IO, "cannot read %s: %s", path, strerror(errno));
    if (code != Z_OK || got < 0)
      return cv_fail(err, CURVD_ERR_DATA, "%s: damaged gzip data after %" PRId64 " bytes (%s); fetch the file again",
                     path, *n, reason);
    *n += got;
  }
  return CURVD_OK;
}

/* Is the promised size possible for a file of so many bytes? */
static curvd_status check_promise(gzFile file, const char *path, int64_t promised, int64_t file_bytes, cv_error *err) {
  bool is_gzip = !gzdirect(file);
  if (!is_gzip && promised > file_bytes)
    return cv_fail(err, CURVD_ERR_DATA, "%s: has %" PRId64 " bytes, but its header promises %" PRId64, path, file_bytes,
                   promised);
  if (is_gzip && promised / GZIP_EXPANSION_MAX > file_bytes)
    return cv_fail(err, CURVD_ERR_DATA,
                   "%s: its header promises %" PRId64 " bytes, more than %" PRId64 " bytes of gzip can hold", path,
                   promised, file_bytes);
  return CURVD_OK;
}

/* Reads one byte more than promised, to see whether there is one. */
static curvd_status read_array(gzFile file, const char *path, int64_t file_bytes, cv_memory *memory, data_array *array,
                               cv_error *err) {
  uint8_t head[DATA_HEADER_BYTES_MAX];
  int64_t n_head = 0;
  data_header header = {.count = 0};
  CV_TRY(read_until(file, path, sizeof head, head, &n_head, err));
  CV_TRY(header_parse(head, n_head, path, &header, err));
  CV_TRY(check_promise(file, path, header.total_bytes, file_bytes, err));
  void *block = NULL;
  int64_t wanted = header.total_bytes + 1, n = n_head < wanted ? n_head : wanted;
  CV_TRY(cv_memory_new(memory, CV_MEMORY_DATA, wanted, 1, path, &block, err));
  memcpy(block, head, (size_t)n);
  curvd_status status = read_until(file, path, wanted, block, &n, err);
  if (status == CURVD_OK) status = data_array_make(&header, block, n, path, memory, array, err);
  cv_memory_free(memory, &block);
  return status;
}

curvd_status data_file_size(const char *path, int64_t *bytes, cv_error *err) {
  struct stat info;
  if (stat(path, &info) != 0) return cv_fail(err, CURVD_ERR_IO, "cannot open %s: %s", path, strerror(errno));
  if (!S_ISREG(info.st_mode)) return cv_fail(err, CURVD_ERR_IO, "cannot read %s: it is not a regular file", path);
  *bytes = info.st_size;
  return CURVD_OK;
}

curvd_status data_file_read(const char *path, cv_memory *memory, data_array *array, cv_error *err) {
  int64_t bytes = 0;
  CV_TRY(data_file_size(path, &bytes, err));
  gzFile file = gzopen(path, "rb");
  if (file == NULL) return cv_fail(err, CURVD_ERR_IO, "cannot open %s: %s", path, strerror(errno));
  gzbuffer(file, 1 << 17);
  curvd_status status = read_array(file, path, bytes, memory, array, err);
  gzclose_r(file);
  return status;
}
