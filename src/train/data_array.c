/* From a header and the bytes behind it to an array, whatever the byte order of the file and of this machine. */
#include "train/data_parts.h"

#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>

static const int64_t item_bytes[] = {
    [DATA_ITEM_U8] = 1, [DATA_ITEM_I32] = 4, [DATA_ITEM_F32] = 4, [DATA_ITEM_I64] = 8, [DATA_ITEM_F64] = 8};

static data_type type_of(data_item item) {
  if (item == DATA_ITEM_U8) return DATA_U8;
  return item == DATA_ITEM_I32 || item == DATA_ITEM_I64 ? DATA_I32 : DATA_F32;
}

curvd_status data_header_sizes(const char *name, data_header *header, cv_error *err) {
  int64_t count = 1, count_max = DATA_BYTES_MAX / item_bytes[header->item];
  for (int i = 0; i < header->n_dimensions; i++) {
    int64_t length = header->shape[i];
    if (length < 1)
      return cv_fail(err, CURVD_ERR_DATA, "%s: dimension %d has length %" PRId64 ", expected at least 1", name, i + 1,
                     length);
    if (length > count_max / count)
      return cv_fail(err, CURVD_ERR_DATA,
                     "%s: dimension %d of length %" PRId64 " after %" PRId64 " values exceeds %" PRId64
                     " bytes; split the file",
                     name, i + 1, length, count, DATA_BYTES_MAX);
    count *= length;
  }
  header->count = count;
  header->total_bytes = header->offset + count * item_bytes[header->item];
  return CURVD_OK;
}

static uint32_t load_32(const uint8_t *bytes, bool is_big_endian) {
  uint32_t b0 = bytes[0], b1 = bytes[1], b2 = bytes[2], b3 = bytes[3];
  return is_big_endian ? b0 << 24 | b1 << 16 | b2 << 8 | b3 : b3 << 24 | b2 << 16 | b1 << 8 | b0;
}

static uint64_t load_64(const uint8_t *bytes, bool is_big_endian) {
  uint64_t first = load_32(bytes, is_big_endian), second = load_32(bytes + 4, is_big_endian);
  return is_big_endian ? first << 32 | second : second << 32 | first;
}

static void copy_32(const data_header *header, const uint8_t *bytes, uint32_t *values) {
  for (int64_t i = 0; i < header->count; i++) values[i] = load_32(bytes + 4 * i, header->is_big_endian);
}

static curvd_status narrow_i64(const data_header *header, const uint8_t *bytes, const char *name, int32_t *values,
                               cv_error *err) {
  for (int64_t i = 0; i < header->count; i++) {
    uint64_t word = load_64(bytes + 8 * i, header->is_big_endian);
    int64_t value;
    memcpy(&value, &word, sizeof value);
    if (value < INT32_MIN || value > INT32_MAX)
      return cv_fail(err, CURVD_ERR_DATA, "%s: value %" PRId64 " is %" PRId64 ", beyond 32 bits", name, i, value);
    values[i] = (int32_t)value;
  }
  return CURVD_OK;
}

static curvd_status narrow_f64(const data_header *header, const uint8_t *bytes, const char *name, float *values,
                               cv_error *err) {
  for (int64_t i = 0; i < header->count; i++) {
    uint64_t word = load_64(bytes + 8 * i, header->is_big_endian);
    double value;
    memcpy(&value, &word, sizeof value);
    if (isfinite(value) && fabs(value) > FLT_MAX)
      return cv_fail(err, CURVD_ERR_DATA, "%s: value %" PRId64 " is %g, beyond single precision", name, i, value);
    values[i] = (float)value;
  }
  return CURVD_OK;
}

static curvd_status convert(const data_header *header, const uint8_t *bytes, const char *name, void *values,
                            cv_error *err) {
  switch (header->item) {
  case DATA_ITEM_U8:
    memcpy(values, bytes, (size_t)header->count);
    break;
  case DATA_ITEM_I32:
  case DATA_ITEM_F32:
    copy_32(header, bytes, values);
    break;
  case DATA_ITEM_I64:
    return narrow_i64(header, bytes, name, values, err);
  case DATA_ITEM_F64:
    return narrow_f64(header, bytes, name, values, err);
  }
  return CURVD_OK;
}

curvd_status data_array_make(const data_header *header, const uint8_t *bytes, int64_t n_bytes, const char *name,
                             cv_memory *memory, data_array *array, cv_error *err) {
  if (n_bytes < header->total_bytes)
    return cv_fail(err, CURVD_ERR_DATA, "%s: has %" PRId64 " bytes, but its header promises %" PRId64, name, n_bytes,
                   header->total_bytes);
  if (n_bytes > header->total_bytes)
    return cv_fail(err, CURVD_ERR_DATA, "%s: goes on after the %" PRId64 " bytes that its header promises", name,
                   header->total_bytes);
  data_array made = {.type = type_of(header->item), .n_dimensions = header->n_dimensions, .count = header->count};
  memcpy(made.shape, header->shape, sizeof made.shape);
  CV_TRY(cv_memory_new(memory, CV_MEMORY_DATA, made.count, made.type == DATA_U8 ? 1 : 4, name, &made.values, err));
  curvd_status status = convert(header, bytes + header->offset, name, made.values, err);
  if (status == CURVD_OK)
    *array = made;
  else
    data_array_free(memory, &made);
  return status;
}

void data_array_free(cv_memory *memory, data_array *array) {
  cv_memory_free(memory, &array->values);
}
