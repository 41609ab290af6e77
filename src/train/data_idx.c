/* idx: two bytes 0, the type, the number of dimensions, their lengths as big-endian 32-bit numbers, the values. */
#include "train/data_parts.h"

#include <stddef.h>

static curvd_status item_of(uint8_t code, const char *name, data_item *item, cv_error *err) {
  switch (code) {
  case 0x08:
    *item = DATA_ITEM_U8;
    return CURVD_OK;
  case 0x0C:
    *item = DATA_ITEM_I32;
    return CURVD_OK;
  case 0x0D:
    *item = DATA_ITEM_F32;
    return CURVD_OK;
  default:
    return cv_fail(err, CURVD_ERR_DATA,
                   "%s: idx type 0x%02X, expected 0x08 (bytes), 0x0C (32-bit integers) or 0x0D (single precision)",
                   name, code);
  }
}

curvd_status data_idx_header(const uint8_t *bytes, int64_t n_bytes, const char *name, data_header *header,
                             cv_error *err) {
  if (n_bytes < 4)
    return cv_fail(err, CURVD_ERR_DATA, "%s: has %d bytes, expected at least the 4 of an idx magic number", name,
                   (int)n_bytes);
  if (bytes[0] != 0 || bytes[1] != 0)
    return cv_fail(err, CURVD_ERR_DATA, "%s: begins with bytes 0x%02X 0x%02X, expected 0 0 of an idx magic number",
                   name, bytes[0], bytes[1]);
  data_header parsed = {.is_big_endian = true, .n_dimensions = bytes[3]};
  CV_TRY(item_of(bytes[2], name, &parsed.item, err));
  if (parsed.n_dimensions < 1 || parsed.n_dimensions > DATA_DIMENSIONS_MAX)
    return cv_fail(err, CURVD_ERR_DATA, "%s: has %d dimensions, expected 1 to %d", name, parsed.n_dimensions,
                   (int)DATA_DIMENSIONS_MAX);
  parsed.offset = 4 + 4 * parsed.n_dimensions;
  if (n_bytes < parsed.offset)
    return cv_fail(err, CURVD_ERR_DATA, "%s: has %d bytes, fewer than the %d of an idx header with %d dimensions", name,
                   (int)n_bytes, (int)parsed.offset, parsed.n_dimensions);
  for (int i = 0; i < parsed.n_dimensions; i++) {
    const uint8_t *length = bytes + 4 + (ptrdiff_t)4 * i;
    parsed.shape[i] = (int64_t)length[0] << 24 | length[1] << 16 | length[2] << 8 | length[3];
  }
  CV_TRY(data_header_sizes(name, &parsed, err));
  *header = parsed;
  return CURVD_OK;
}

curvd_status data_idx_parse(const uint8_t *bytes, int64_t n_bytes, const char *name, cv_memory *memory,
                            data_array *array, cv_error *err) {
  data_header header;
  CV_TRY(data_idx_header(bytes, n_bytes, name, &header, err));
  return data_array_make(&header, bytes, n_bytes, name, memory, array, err);
}
