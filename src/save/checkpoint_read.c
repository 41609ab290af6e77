/* Numbers of a checkpoint, and the checksums they are under. */
#include "save/checkpoint_parts.h"
#include "save/shard.h"

#include "base/order.h"

#include <stdlib.h>
#include <string.h>

/* ---- finding ---- */

static int compare_name(const void *name, const void *array) {
  return strcmp(name, ((const checkpoint_array *)array)->name);
}

/* A triangle saved as "x_lower" is "x", and is found under both. Position, or -1. */
static int64_t find(const checkpoint *cp, const char *name) {
  char stripped[SAFETENSORS_NAME_MAX];
  size_t n = (size_t)cp->n_arrays;
  const checkpoint_array *found = bsearch(name, cp->array, n, sizeof *found, compare_name);
  if (found == NULL && part_strip_triangle(name, stripped)) {
    found = bsearch(stripped, cp->array, n, sizeof *found, compare_name);
    if (found != NULL && !found->is_triangle) found = NULL;
  }
  return found != NULL ? found - cp->array : -1;
}

bool checkpoint_find(const checkpoint *cp, const char *name, checkpoint_array *found) {
  int64_t i = find(cp, name);
  if (i >= 0) *found = cp->array[i];
  return i >= 0;
}

/* ---- reading ---- */

static curvd_array as_array(const part *p) {
  return (curvd_array){.name = p->name,
                       .dtype = p->dtype,
                       .is_triangle = p->is_triangle,
                       .n_rows = p->n_rows,
                       .n_columns = p->n_columns,
                       .begin = p->begin,
                       .rows = p->rows};
}

/* Bytes of the rows of a part in front of row `row` of the whole; rows lie one behind the other in the file. */
static int64_t bytes_before(const part *p, int64_t row) {
  curvd_array front = as_array(p);
  front.rows = row - p->begin;
  return curvd_array_count(&front) * curvd_dtype_bytes(p->dtype);
}

static curvd_status new_buffer(const save_file *file, const part *p, int64_t bytes, char **buffer, cv_error *err) {
  *buffer = malloc((size_t)bytes + 1);
  if (*buffer != NULL) return CURVD_OK;
  return cv_fail(err, CURVD_ERR_MEMORY, "%.120s: tensor %.200s: no memory for %lld bytes of it", file->place, p->tensor,
                 (long long)bytes);
}

static curvd_status check_sum(const save_file *file, part *p, const char *bytes, cv_error *err) {
  char sum[CHECKSUM_MAX];
  checksum(bytes, p->bytes, sum);
  p->is_verified = strcmp(sum, p->xxh3) == 0;
  if (p->is_verified) return CURVD_OK;
  return cv_fail(err, CURVD_ERR_DATA, "%.120s: tensor %.200s: damaged: XXH3 %s, not %s", file->place, p->tensor, sum,
                 p->xxh3);
}

/* Numbers of the rows that part and wanted have in common, from bytes which begin with row `first` of the part. */
static void copy_rows(const part *p, const curvd_array *wanted, const char *bytes, int64_t first) {
  int64_t begin = cv_larger(p->begin, wanted->begin),
          end = cv_smaller(p->begin + p->rows, wanted->begin + wanted->rows);
  curvd_array target = curvd_array_rows(wanted, begin, end - begin);
  curvd_array_unpack(&target, bytes + bytes_before(p, begin) - bytes_before(p, first));
}

/* All of it when its checksum has not been compared yet, else only the rows that are wanted. */
static curvd_status read_part(const save_file *file, part *p, const curvd_array *wanted, cv_error *err) {
  int64_t first = p->is_verified ? cv_larger(p->begin, wanted->begin) : p->begin,
          end = p->is_verified ? cv_smaller(p->begin + p->rows, wanted->begin + wanted->rows) : p->begin + p->rows,
          skipped = bytes_before(p, first), bytes = bytes_before(p, end) - skipped;
  char *buffer = NULL;
  CV_TRY(new_buffer(file, p, bytes, &buffer, err));
  curvd_status status = file_read(file, p->at + skipped, buffer, bytes, err);
  if (status == CURVD_OK && !p->is_verified) status = check_sum(file, p, buffer, err);
  if (status == CURVD_OK) copy_rows(p, wanted, buffer, first);
  free(buffer);
  return status;
}

static bool overlaps(const part *p, const curvd_array *wanted) {
  return p->begin < wanted->begin + wanted->rows && wanted->begin < p->begin + p->rows;
}

static curvd_status check_wanted(const checkpoint *cp, const checkpoint_array *a, const curvd_array *wanted,
                                 cv_error *err) {
  bool is_same = a->dtype == wanted->dtype && a->is_triangle == wanted->is_triangle && a->n_rows == wanted->n_rows &&
                 a->n_columns == wanted->n_columns;
  if (!is_same)
    return cv_fail(err, CURVD_ERR_DATA,
                   "%s: array %.160s is %s(%lld, %lld) of %d bytes a number, not %s(%lld, %lld) of %d", cp->name,
                   a->name, a->is_triangle ? "a triangle " : "", (long long)a->n_rows, (long long)a->n_columns,
                   (int)curvd_dtype_bytes(a->dtype), wanted->is_triangle ? "a triangle " : "",
                   (long long)wanted->n_rows, (long long)wanted->n_columns, (int)curvd_dtype_bytes(wanted->dtype));
  if (wanted->begin < 0 || wanted->rows < 0 || wanted->begin > wanted->n_rows - wanted->rows)
    return cv_fail(err, CURVD_ERR_ARGUMENT, "array %.160s has no rows %lld + %lld", a->name, (long long)wanted->begin,
                   (long long)wanted->rows);
  return CURVD_OK;
}

/* Parts lie in order and do not overlap. */
static curvd_status check_cover(const checkpoint *cp, int64_t i, const curvd_array *wanted, cv_error *err) {
  int64_t next = wanted->begin, end = wanted->begin + wanted->rows;
  for (int64_t j = cp->first[i]; j < cp->first[i + 1] && next < end; j++) {
    const part *p = &cp->part[j];
    if (p->begin <= next && next < p->begin + p->rows) next = p->begin + p->rows;
  }
  if (next >= end) return CURVD_OK;
  return cv_fail(err, CURVD_ERR_DATA, "%s: array %.160s: no shard has its row %lld", cp->name, cp->array[i].name,
                 (long long)next);
}

curvd_status checkpoint_read(const checkpoint *cp, const curvd_array *wanted, cv_error *err) {
  int64_t i = find(cp, wanted->name);
  if (i < 0) return cv_fail(err, CURVD_ERR_DATA, "%s has no array %.160s", cp->name, wanted->name);
  CV_TRY(check_wanted(cp, &cp->array[i], wanted, err));
  CV_TRY(check_cover(cp, i, wanted, err));
  for (int64_t j = cp->first[i]; j < cp->first[i + 1]; j++) {
    save_file file;
    if (!overlaps(&cp->part[j], wanted)) continue;
    CV_TRY(checkpoint_open_shard(cp, cp->part[j].shard, &file, err));
    curvd_status status = read_part(&file, &cp->part[j], wanted, err);
    file_close(&file);
    if (status != CURVD_OK) return status;
  }
  return CURVD_OK;
}

/* ---- verifying ---- */

typedef struct findings {
  void (*tell)(void *user, const char *finding);
  void *user;
  int64_t n;
  cv_error *first;
} findings;

static void note(findings *f, const cv_error *found) {
  if (found->code == CURVD_OK) return;
  cv_fail(f->first, found->code, "%s", found->text);
  f->n++;
  if (f->tell != NULL) f->tell(f->user, found->text);
}

static curvd_status verify_part(const save_file *file, part *p, cv_error *err) {
  char *buffer = NULL;
  CV_TRY(new_buffer(file, p, p->bytes, &buffer, err));
  curvd_status status = file_read(file, p->at, buffer, p->bytes, err);
  if (status == CURVD_OK) status = check_sum(file, p, buffer, err);
  free(buffer);
  return status;
}

/* Everything behind the header is some tensor's. */
static void verify_shard(const checkpoint *cp, int64_t rank, findings *f) {
  cv_error err = {.code = CURVD_OK};
  safetensors_header header = {.bytes = 0};
  save_file file;
  if (checkpoint_open_shard(cp, rank, &file, &err) == CURVD_OK) {
    checkpoint_read_header(cp, rank, &file, &header, &err);
    safetensors_free(&header);
    note(f, &err);
    for (int64_t j = 0; j < cp->n_parts; j++) {
      if (cp->part[j].shard != rank) continue;
      cv_error_clear(&err);
      verify_part(&file, &cp->part[j], &err);
      note(f, &err);
    }
    file_close(&file);
  } else {
    note(f, &err);
  }
}

curvd_status checkpoint_verify(const checkpoint *cp, void (*tell)(void *user, const char *finding), void *user,
                               cv_error *err) {
  cv_error first = {.code = CURVD_OK};
  findings f = {tell, user, 0, &first};
  for (int64_t rank = 0; rank < cp->manifest.n_shards; rank++) verify_shard(cp, rank, &f);
  if (f.n == 0) return CURVD_OK;
  return cv_fail(err, CURVD_ERR_DATA, "%s is damaged (%lld findings): %.360s", cp->name, (long long)f.n, first.text);
}
