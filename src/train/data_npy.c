/* npy: "\x93NUMPY", major and minor version, the length of the text (2 bytes in version 1, else 4, little-endian), the
 * text, the values. The text is a Python dictionary with exactly the keys descr, fortran_order and shape:
 * {'descr': '<f4', 'fortran_order': False, 'shape': (60000, 784), } and blanks. */
#include "train/data_parts.h"

#include <inttypes.h>
#include <string.h>

/* The part of the text that is still to be read. */
typedef struct cursor {
  const char *at, *end;
  const char *begin, *name;
  cv_error *err;
} cursor;

static curvd_status refuse(const cursor *text, const char *expected) {
  return cv_fail(text->err, CURVD_ERR_DATA, "%s: expected %s at character %d of the npy header", text->name, expected,
                 (int)(text->at - text->begin) + 1);
}

static void skip_blanks(cursor *text) {
  while (text->at < text->end && (*text->at == ' ' || *text->at == '\n')) text->at++;
}

/* Steps over the word if it is next. */
static bool take(cursor *text, const char *word) {
  size_t length = strlen(word);
  skip_blanks(text);
  if ((size_t)(text->end - text->at) < length || memcmp(text->at, word, length) != 0) return false;
  text->at += length;
  return true;
}

/* Position of the next word in the list, -1 when it is none of them. */
static int take_one_of(cursor *text, const char *const *words, int n) {
  for (int i = 0; i < n; i++)
    if (take(text, words[i])) return i;
  return -1;
}

static curvd_status parse_descr(cursor *text, data_header *header) {
  static const char *const words[] = {"'|u1'", "'<i4'", "'<f4'", "'<i8'", "'<f8'"};
  static const data_item items[] = {DATA_ITEM_U8, DATA_ITEM_I32, DATA_ITEM_F32, DATA_ITEM_I64, DATA_ITEM_F64};
  int found = take_one_of(text, words, sizeof words / sizeof *words);
  if (found < 0) return refuse(text, "one of the types '|u1', '<i4', '<f4', '<i8', '<f8' (numpy.astype changes it)");
  header->item = items[found];
  return CURVD_OK;
}

static curvd_status parse_order(cursor *text) {
  return take(text, "False") ? CURVD_OK : refuse(text, "False: C order (numpy.ascontiguousarray changes it)");
}

/* A decimal number of at most 18 digits. */
static curvd_status parse_length(cursor *text, int64_t *length) {
  skip_blanks(text);
  int n_digits = 0;
  *length = 0;
  for (; text->at < text->end && *text->at >= '0' && *text->at <= '9' && n_digits < 18; text->at++, n_digits++)
    *length = 10 * *length + (*text->at - '0');
  return n_digits > 0 ? CURVD_OK : refuse(text, "a length, a whole number of at least 1,");
}

static curvd_status parse_shape(cursor *text, data_header *header) {
  if (!take(text, "(")) return refuse(text, "( of the shape");
  for (bool is_open = true; is_open;) {
    if (header->n_dimensions == DATA_DIMENSIONS_MAX)
      return refuse(text, ") after 4 dimensions, the most that is read,");
    CV_TRY(parse_length(text, &header->shape[header->n_dimensions++]));
    bool has_comma = take(text, ",");
    is_open = !take(text, ")");
    if (!is_open && !has_comma && header->n_dimensions == 1) return refuse(text, "a comma: a shape is (60000,)");
    if (is_open && !has_comma) return refuse(text, "a comma or ) of the shape");
  }
  return CURVD_OK;
}

static curvd_status parse_text(cursor *text, data_header *header) {
  static const char *const keys[] = {"'descr'", "'fortran_order'", "'shape'"};
  bool is_seen[3] = {false, false, false};
  if (!take(text, "{")) return refuse(text, "{");
  for (int n = 0; n < 3; n++) {
    int key = take_one_of(text, keys, 3);
    if (key < 0 || is_seen[key]) return refuse(text, "each of the keys 'descr', 'fortran_order' and 'shape' once");
    is_seen[key] = true;
    if (!take(text, ":")) return refuse(text, "a colon");
    CV_TRY(key == 0 ? parse_descr(text, header) : key == 1 ? parse_order(text) : parse_shape(text, header));
    if (!take(text, ",") && n < 2) return refuse(text, "a comma");
  }
  if (!take(text, "}")) return refuse(text, "}");
  skip_blanks(text);
  return text->at == text->end ? CURVD_OK : refuse(text, "nothing but blanks");
}

curvd_status data_npy_header(const uint8_t *bytes, int64_t n_bytes, const char *name, data_header *header,
                             cv_error *err) {
  if (n_bytes < 12 || memcmp(bytes, "\x93NUMPY", 6) != 0)
    return cv_fail(err, CURVD_ERR_DATA, "%s: does not begin with the magic number of npy and a header", name);
  int version = bytes[6];
  if (version < 1 || version > 3 || bytes[7] != 0)
    return cv_fail(err, CURVD_ERR_DATA, "%s: has npy version %d.%d, expected 1.0, 2.0 or 3.0", name, version, bytes[7]);
  int64_t begin = version == 1 ? 10 : 12, length = bytes[8] | bytes[9] << 8;
  if (version > 1) length |= (int64_t)bytes[10] << 16 | (int64_t)bytes[11] << 24;
  if (length > n_bytes - begin || begin + length > DATA_HEADER_BYTES_MAX)
    return cv_fail(err, CURVD_ERR_DATA,
                   "%s: npy header of %" PRId64 " characters, expected at most %d and %" PRId64 " follow", name, length,
                   (int)(DATA_HEADER_BYTES_MAX - begin), n_bytes - begin);
  data_header parsed = {.offset = begin + length};
  const char *first = (const char *)bytes + begin;
  cursor text = {.at = first, .end = first + length, .begin = first, .name = name, .err = err};
  CV_TRY(parse_text(&text, &parsed));
  CV_TRY(data_header_sizes(name, &parsed, err));
  *header = parsed;
  return CURVD_OK;
}

curvd_status data_npy_parse(const uint8_t *bytes, int64_t n_bytes, const char *name, cv_memory *memory,
                            data_array *array, cv_error *err) {
  data_header header;
  CV_TRY(data_npy_header(bytes, n_bytes, name, &header, err));
  return data_array_make(&header, bytes, n_bytes, name, memory, array, err);
}
