#include "save/shard.h"

#include "save/manifest.h"

#include <stdlib.h>
#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "numbers go to files as they lie in memory");

void shard_clear(shard *s) {
  s->bytes = 0;
  s->n_tensors = 0;
}

void shard_free(shard *s) {
  free(s->data);
  free(s->tensor);
  free(s->n_rows);
  *s = (shard){.data = NULL};
}

/* ---- adding ---- */

/* Half of 2^63 bytes, so that sums of two sizes cannot overflow. */
static const int64_t bytes_max = INT64_MAX / 2;

static bool has_possible_sizes(const curvd_array *a) {
  int64_t longest = a->is_triangle ? a->n_rows : a->n_columns, size = curvd_dtype_bytes(a->dtype);
  if (a->n_rows < 0 || a->n_columns < 0 || a->begin < 0 || a->rows < 0 || a->begin > a->n_rows - a->rows) return false;
  if (a->is_triangle && a->n_rows != a->n_columns) return false;
  return longest == 0 || a->n_rows <= bytes_max / size / longest;
}

static bool ends_with(const char *text, const char *tail) {
  size_t n = strlen(text), n_tail = strlen(tail);
  return n >= n_tail && strcmp(text + n - n_tail, tail) == 0;
}

static bool tensor_name(const curvd_array *a, bool is_part, char name[SAFETENSORS_NAME_MAX]) {
  const char *suffix = a->is_triangle && !ends_with(a->name, SHARD_TRIANGLE_SUFFIX) ? SHARD_TRIANGLE_SUFFIX : "";
  char rows[48] = "";
  if (is_part) snprintf(rows, sizeof rows, "[%lld:%lld]", (long long)a->begin, (long long)(a->begin + a->rows));
  return snprintf(name, SAFETENSORS_NAME_MAX, "%s%s%s", a->name, suffix, rows) < SAFETENSORS_NAME_MAX;
}

static void describe(const curvd_array *a, int64_t begin, safetensors_tensor *t) {
  t->dtype = a->dtype == CURVD_F64 ? "F64" : "F32";
  t->begin = begin;
  t->end = begin + curvd_array_count(a) * curvd_dtype_bytes(a->dtype);
  t->n_dimensions = a->is_triangle ? 1 : 2;
  t->shape[0] = a->is_triangle ? curvd_array_count(a) : a->rows;
  t->shape[1] = a->n_columns;
}

/* In whole blocks, at the begin of one: file_put writes such data without a copy. */
static bool grow_bytes(shard *s, int64_t needed) {
  if (needed <= s->capacity && s->data != NULL) return true;
  int64_t more = (needed > 2 * s->capacity ? needed : 2 * s->capacity) / FILE_BLOCK * FILE_BLOCK + FILE_BLOCK;
  char *grown = aligned_alloc(FILE_BLOCK, (size_t)more);
  if (grown == NULL) return false;
  if (s->data != NULL) memcpy(grown, s->data, (size_t)s->bytes);
  free(s->data);
  s->data = grown, s->capacity = more;
  return true;
}

static bool grow_list(shard *s) {
  if (s->n_tensors < s->tensor_capacity) return true;
  int64_t more = 2 * s->tensor_capacity + 64;
  safetensors_tensor *tensor = realloc(s->tensor, (size_t)more * sizeof *tensor);
  if (tensor == NULL) return false;
  s->tensor = tensor;
  int64_t *n_rows = realloc(s->n_rows, (size_t)more * sizeof *n_rows);
  if (n_rows == NULL) return false;
  s->n_rows = n_rows, s->tensor_capacity = more;
  return true;
}

curvd_status shard_add(shard *s, const curvd_array *array, cv_error *err) {
  bool is_part = array->rows != array->n_rows;
  const char *name = array->name != NULL ? array->name : "";
  if (name[0] == '\0' || strlen(name) >= CURVD_ARRAY_NAME_MAX || !has_possible_sizes(array))
    return cv_fail(err, CURVD_ERR_ARGUMENT, "array '%.160s': impossible: rows %lld + %lld of %lld, columns %lld", name,
                   (long long)array->begin, (long long)array->rows, (long long)array->n_rows,
                   (long long)array->n_columns);
  if (is_part && array->rows == 0) return CURVD_OK;
  if (!grow_list(s)) return cv_fail(err, CURVD_ERR_MEMORY, "no memory to save array %.160s", name);
  safetensors_tensor *t = &s->tensor[s->n_tensors];
  if (!tensor_name(array, is_part, t->name))
    return cv_fail(err, CURVD_ERR_ARGUMENT, "array '%.160s': with its rows the name is longer than %d bytes", name,
                   SAFETENSORS_NAME_MAX - 1);
  describe(array, s->bytes, t);
  if (t->end > bytes_max || !grow_bytes(s, t->end))
    return cv_fail(err, CURVD_ERR_MEMORY, "no memory for %lld bytes to save, with array %.160s", (long long)t->end,
                   name);
  curvd_array_pack(array, s->data + t->begin);
  s->n_rows[s->n_tensors++] = is_part || array->is_triangle ? array->n_rows : -1;
  s->bytes = t->end;
  return CURVD_OK;
}

/* ---- writing ---- */

enum { KEY_MAX = SAFETENSORS_NAME_MAX + 8 };

static bool set_text(json_t *metadata, const char *prefix, const char *name, const char *text) {
  char key[KEY_MAX];
  snprintf(key, sizeof key, "%s%s", prefix, name);
  return json_object_set_new(metadata, key, json_string(text)) == 0;
}

static bool set_number(json_t *metadata, const char *prefix, const char *name, int64_t number) {
  char text[24];
  snprintf(text, sizeof text, "%lld", (long long)number);
  return set_text(metadata, prefix, name, text);
}

static curvd_status describe_all(const shard *s, const shard_origin *origin, json_t *metadata, cv_error *err) {
  bool is_set = set_text(metadata, "", "format", SHARD_FORMAT) && set_number(metadata, "", "step", origin->step) &&
                set_number(metadata, "", "rank", origin->rank) && set_number(metadata, "", "ranks", origin->n_ranks) &&
                set_number(metadata, "", "save", origin->save);
  for (int64_t i = 0; i < s->n_tensors && is_set; i++) {
    const safetensors_tensor *t = &s->tensor[i];
    char sum[CHECKSUM_MAX];
    checksum(s->data + t->begin, t->end - t->begin, sum);
    is_set = set_text(metadata, "xxh3:", t->name, sum) &&
             (s->n_rows[i] < 0 || set_number(metadata, "n_rows:", t->name, s->n_rows[i]));
    if (!is_set)
      return cv_fail(err, CURVD_ERR_ARGUMENT, "array %.200s: its name is not UTF-8, or there is no memory", t->name);
  }
  return is_set ? CURVD_OK : cv_fail(err, CURVD_ERR_MEMORY, "no memory for the header of a shard");
}

curvd_status shard_write(const shard *s, const shard_origin *origin, int folder, const char *folder_name,
                         file_watch watch, int64_t *bytes, cv_error *err) {
  safetensors_header header = {.n_tensors = s->n_tensors, .tensor = s->tensor, .metadata = json_object()};
  char *text = NULL, name[SHARD_NAME_MAX];
  int64_t n = 0;
  curvd_status status = describe_all(s, origin, header.metadata, err);
  if (status == CURVD_OK) status = safetensors_build(&header, &text, &n, err);
  json_decref(header.metadata);
  if (status != CURVD_OK) return status;
  manifest_shard_name(origin->rank, name);
  file_piece piece[] = {{text, n}, {s->data, s->bytes}};
  status = file_put(folder, folder_name, name, piece, 2, watch, err);
  free(text);
  *bytes = n + s->bytes;
  return status;
}

/* ---- reading ---- */

curvd_status shard_header_read(const save_file *file, safetensors_header *header, char xxh3[CHECKSUM_MAX],
                               cv_error *err) {
  unsigned char head[SAFETENSORS_LENGTH_BYTES];
  int64_t length = 0;
  *header = (safetensors_header){.bytes = 0};
  CV_TRY(file_read(file, 0, head, sizeof head, err));
  CV_TRY(safetensors_length(head, file->place, &length, err));
  length += SAFETENSORS_LENGTH_BYTES;
  if (length > file->bytes)
    return cv_fail(err, CURVD_ERR_DATA, "%.120s ends at byte %lld, within its header of %lld", file->place,
                   (long long)file->bytes, (long long)length);
  char *bytes = malloc((size_t)length);
  if (bytes == NULL)
    return cv_fail(err, CURVD_ERR_MEMORY, "%.120s: no memory for its header of %lld bytes", file->place,
                   (long long)length);
  curvd_status status = file_read(file, 0, bytes, length, err);
  if (status == CURVD_OK) status = safetensors_parse(bytes, length, file->place, header, err);
  if (status == CURVD_OK) checksum(bytes, length, xxh3);
  free(bytes);
  if (status == CURVD_OK && header->data_bytes != file->bytes - header->bytes)
    return cv_fail(err, CURVD_ERR_DATA, "%.120s has %lld bytes of numbers, but %lld by its header", file->place,
                   (long long)(file->bytes - header->bytes), (long long)header->data_bytes);
  return status;
}

const char *shard_metadata(const safetensors_header *header, const char *prefix, const char *tensor) {
  char key[KEY_MAX];
  snprintf(key, sizeof key, "%s%s", prefix, tensor);
  return json_string_value(json_object_get(header->metadata, key));
}

static bool says(const safetensors_header *header, const char *key, int64_t number) {
  char text[24];
  const char *said = shard_metadata(header, "", key);
  snprintf(text, sizeof text, "%lld", (long long)number);
  return said != NULL && strcmp(said, text) == 0;
}

bool shard_is_of(const safetensors_header *header, const shard_origin *origin) {
  return says(header, "step", origin->step) && says(header, "rank", origin->rank) &&
         says(header, "ranks", origin->n_ranks) && says(header, "save", origin->save);
}
