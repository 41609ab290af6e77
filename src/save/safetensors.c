#include "save/safetensors.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
  const char *name;
  int bits;
} dtypes[] = {{"F32", 32},    {"F64", 64},    {"F16", 16},    {"BF16", 16},   {"I64", 64}, {"I32", 32}, {"I16", 16},
              {"I8", 8},      {"U64", 64},    {"U32", 32},    {"U16", 16},    {"U8", 8},   {"BOOL", 8}, {"F8_E5M2", 8},
              {"F8_E4M3", 8}, {"F8_E8M0", 8}, {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"F4", 4},   {"C64", 64}};

/* ---- reading ---- */

/* The tensor that is read: for sentences. */
typedef struct place {
  const char *file, *tensor;
  cv_error *err;
} place;

static curvd_status refuse(const place *at, const char *reason) {
  return cv_fail(at->err, CURVD_ERR_DATA, "%.120s: tensor %.200s: %s", at->file, at->tensor, reason);
}

curvd_status safetensors_length(const void *bytes, const char *name, int64_t *length, cv_error *err) {
  uint64_t n = 0;
  for (int i = SAFETENSORS_LENGTH_BYTES - 1; i >= 0; i--) n = n << 8 | ((const unsigned char *)bytes)[i];
  if (n < 2 || n > SAFETENSORS_JSON_MAX)
    return cv_fail(err, CURVD_ERR_DATA, "%.120s: no safetensors file: a header of %llu bytes (2 to %d are possible)",
                   name, (unsigned long long)n, SAFETENSORS_JSON_MAX);
  *length = (int64_t)n;
  return CURVD_OK;
}

/* A whole number that is not negative. */
static bool read_size(const json_t *json, int64_t *size) {
  if (!json_is_integer(json) || json_integer_value(json) < 0) return false;
  *size = json_integer_value(json);
  return true;
}

/* bits * product of the shape, as bytes. */
static bool shape_bytes(const safetensors_tensor *t, int bits, int64_t *bytes) {
  int64_t n = bits;
  for (int i = 0; i < t->n_dimensions; i++) {
    if (t->shape[i] > 0 && n > INT64_MAX / t->shape[i]) return false;
    n *= t->shape[i];
  }
  *bytes = n / 8;
  return n % 8 == 0;
}

static curvd_status read_shape(const place *at, const json_t *json, safetensors_tensor *t) {
  if (!json_is_array(json)) return refuse(at, "its shape is no list");
  if (json_array_size(json) > SAFETENSORS_DIMENSIONS_MAX) return refuse(at, "it has more than 8 dimensions");
  t->n_dimensions = (int)json_array_size(json);
  for (int i = 0; i < t->n_dimensions; i++)
    if (!read_size(json_array_get(json, (size_t)i), &t->shape[i]))
      return refuse(at, "a length in its shape is no size");
  return CURVD_OK;
}

static curvd_status read_offsets(const place *at, const json_t *json, safetensors_tensor *t) {
  if (!json_is_array(json) || json_array_size(json) != 2 || !read_size(json_array_get(json, 0), &t->begin) ||
      !read_size(json_array_get(json, 1), &t->end) || t->begin > t->end)
    return refuse(at, "its offsets are not [begin, end]");
  return CURVD_OK;
}

static curvd_status read_tensor(const place *at, const json_t *json, safetensors_tensor *t) {
  const char *dtype = json_string_value(json_object_get(json, "dtype"));
  int64_t bytes = 0;
  int bits = 0;
  if (json_object_size(json) != 3 || dtype == NULL) return refuse(at, "expected dtype, shape and data_offsets");
  for (size_t i = 0; i < sizeof dtypes / sizeof dtypes[0]; i++)
    if (strcmp(dtype, dtypes[i].name) == 0) t->dtype = dtypes[i].name, bits = dtypes[i].bits;
  if (bits == 0) return refuse(at, "its dtype is not known");
  CV_TRY(read_shape(at, json_object_get(json, "shape"), t));
  CV_TRY(read_offsets(at, json_object_get(json, "data_offsets"), t));
  if (!shape_bytes(t, bits, &bytes)) return refuse(at, "its shape has more bytes than 64 bits count");
  if (bytes != t->end - t->begin) return refuse(at, "its shape does not have the bytes between its offsets");
  return CURVD_OK;
}

static int by_offset(const void *x, const void *y) {
  const safetensors_tensor *a = x, *b = y;
  if (a->begin != b->begin) return a->begin < b->begin ? -1 : 1;
  if (a->end != b->end) return a->end < b->end ? -1 : 1;
  return strcmp(a->name, b->name);
}

static curvd_status check_cover(const char *file, safetensors_header *h, cv_error *err) {
  for (int64_t i = 0; i < h->n_tensors; i++) {
    const safetensors_tensor *t = &h->tensor[i];
    if (t->begin != h->data_bytes)
      return cv_fail(err, CURVD_ERR_DATA, "%.120s: tensor %.200s: begins at byte %lld, but the one before ends at %lld",
                     file, t->name, (long long)t->begin, (long long)h->data_bytes);
    h->data_bytes = t->end;
  }
  return CURVD_OK;
}

static curvd_status check_metadata(const char *file, json_t *metadata, cv_error *err) {
  const char *key;
  json_t *value;
  if (!json_is_object(metadata)) return cv_fail(err, CURVD_ERR_DATA, "%.120s: __metadata__ is no object", file);
  json_object_foreach(metadata, key, value) {
    if (!json_is_string(value))
      return cv_fail(err, CURVD_ERR_DATA, "%.120s: __metadata__: %.200s is no text", file, key);
  }
  return CURVD_OK;
}

static curvd_status read_all(const char *file, json_t *json, safetensors_header *h, cv_error *err) {
  const char *key;
  json_t *value;
  h->tensor = calloc(json_object_size(json) + 1, sizeof *h->tensor);
  if (h->tensor == NULL) return cv_fail(err, CURVD_ERR_MEMORY, "%.120s: no memory for its list of tensors", file);
  json_object_foreach(json, key, value) {
    safetensors_tensor *t = &h->tensor[h->n_tensors];
    place at = {file, key, err};
    if (strcmp(key, "__metadata__") == 0) {
      CV_TRY(check_metadata(file, value, err));
      h->metadata = json_incref(value);
      continue;
    }
    if (strlen(key) >= sizeof t->name) return refuse(&at, "its name is longer than 199 bytes");
    snprintf(t->name, sizeof t->name, "%s", key);
    CV_TRY(read_tensor(&at, value, t));
    h->n_tensors++;
  }
  if (h->metadata == NULL) h->metadata = json_object();
  if (h->metadata == NULL) return cv_fail(err, CURVD_ERR_MEMORY, "%.120s: no memory for its metadata", file);
  qsort(h->tensor, (size_t)h->n_tensors, sizeof *h->tensor, by_offset);
  return check_cover(file, h, err);
}

curvd_status safetensors_parse(const void *bytes, int64_t n, const char *name, safetensors_header *header,
                               cv_error *err) {
  const char *text = (const char *)bytes + SAFETENSORS_LENGTH_BYTES;
  int64_t length = 0;
  json_error_t why;
  *header = (safetensors_header){.bytes = 0};
  if (n < SAFETENSORS_LENGTH_BYTES)
    return cv_fail(err, CURVD_ERR_DATA, "%.120s: it ends after %lld bytes", name, (long long)n);
  CV_TRY(safetensors_length(bytes, name, &length, err));
  if (length > n - SAFETENSORS_LENGTH_BYTES)
    return cv_fail(err, CURVD_ERR_DATA, "%.120s: it ends after %lld bytes, within its header of %lld", name,
                   (long long)n, (long long)(SAFETENSORS_LENGTH_BYTES + length));
  json_t *json = text[0] == '{' ? json_loadb(text, (size_t)length, JSON_REJECT_DUPLICATES, &why) : NULL;
  if (json == NULL)
    return cv_fail(err, CURVD_ERR_DATA, "%.120s: its header is no JSON object: %.160s", name,
                   text[0] == '{' ? why.text : "it does not begin with {");
  header->bytes = SAFETENSORS_LENGTH_BYTES + length;
  curvd_status status = read_all(name, json, header, err);
  json_decref(json);
  return status;
}

void safetensors_free(safetensors_header *header) {
  free(header->tensor);
  json_decref(header->metadata);
  *header = (safetensors_header){.bytes = 0};
}

/* ---- building ---- */

static json_t *tensor_json(const safetensors_tensor *t) {
  json_t *shape = json_array();
  for (int i = 0; i < t->n_dimensions; i++) json_array_append_new(shape, json_integer(t->shape[i]));
  return json_pack("{s:s,s:o,s:[I,I]}", "dtype", t->dtype, "shape", shape, "data_offsets", (json_int_t)t->begin,
                   (json_int_t)t->end);
}

static curvd_status header_json(const safetensors_header *h, json_t *json, cv_error *err) {
  if (json_object_set(json, "__metadata__", h->metadata) != 0)
    return cv_fail(err, CURVD_ERR_MEMORY, "no memory for the header of a shard");
  for (int64_t i = 0; i < h->n_tensors; i++) {
    const safetensors_tensor *t = &h->tensor[i];
    if (json_object_get(json, t->name) != NULL)
      return cv_fail(err, CURVD_ERR_ARGUMENT, "array %.200s was saved twice", t->name);
    if (json_object_set_new(json, t->name, tensor_json(t)) != 0)
      return cv_fail(err, CURVD_ERR_ARGUMENT, "array %.200s: its name is not UTF-8, or there is no memory", t->name);
  }
  return CURVD_OK;
}

/* The length, the text, and blanks up to the border. */
static curvd_status frame(const char *text, char **bytes, int64_t *n, cv_error *err) {
  int64_t length = (int64_t)strlen(text), used = SAFETENSORS_LENGTH_BYTES + length,
          all = (used + SAFETENSORS_ALIGNMENT - 1) / SAFETENSORS_ALIGNMENT * SAFETENSORS_ALIGNMENT;
  if (all > SAFETENSORS_JSON_MAX)
    return cv_fail(err, CURVD_ERR_SIZE, "a shard's header of %lld bytes: at most %d are possible", (long long)all,
                   SAFETENSORS_JSON_MAX);
  char *made = malloc((size_t)all);
  if (made == NULL) return cv_fail(err, CURVD_ERR_MEMORY, "no memory for the header of a shard");
  for (int i = 0; i < SAFETENSORS_LENGTH_BYTES; i++)
    made[i] = (char)(unsigned char)((uint64_t)(all - SAFETENSORS_LENGTH_BYTES) >> (8 * i));
  memset(made + SAFETENSORS_LENGTH_BYTES, ' ', (size_t)(all - SAFETENSORS_LENGTH_BYTES));
  memcpy(made + SAFETENSORS_LENGTH_BYTES, text, (size_t)length);
  *bytes = made;
  *n = all;
  return CURVD_OK;
}

curvd_status safetensors_build(const safetensors_header *header, char **bytes, int64_t *n, cv_error *err) {
  json_t *json = json_object();
  curvd_status status = header_json(header, json, err);
  char *text = status == CURVD_OK ? json_dumps(json, JSON_COMPACT) : NULL;
  json_decref(json);
  if (status != CURVD_OK) return status;
  if (text == NULL) return cv_fail(err, CURVD_ERR_MEMORY, "no memory for the header of a shard");
  status = frame(text, bytes, n, err);
  free(text);
  return status;
}
