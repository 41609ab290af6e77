#include "save/part.h"

#include "base/number.h"
#include "save/shard.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Of a triangle; its numbers are counted in 64 bits then. */
static const int64_t triangle_rows_max = (int64_t)1 << 31;

static curvd_status refuse(const char *place, const part *p, const char *reason, cv_error *err) {
  return cv_fail(err, CURVD_ERR_DATA, "%.120s: tensor %.200s: %s", place, p->tensor, reason);
}

bool part_strip_triangle(const char *name, char stripped[SAFETENSORS_NAME_MAX]) {
  size_t length = strlen(name), tail = strlen(SHARD_TRIANGLE_SUFFIX);
  if (length <= tail || length >= SAFETENSORS_NAME_MAX || strcmp(name + length - tail, SHARD_TRIANGLE_SUFFIX) != 0)
    return false;
  memcpy(stripped, name, length - tail);
  stripped[length - tail] = '\0';
  return true;
}

/* Takes "[begin:end]" off the name; only as it is written, no blanks or zeros in front. */
static bool take_rows(char *name, int64_t *begin, int64_t *end) {
  char *open = strrchr(name, '['), again[48];
  if (open == NULL) return false;
  char *colon = strchr(open, ':');
  *begin = strtoll(open + 1, NULL, 10);
  *end = colon != NULL ? strtoll(colon + 1, NULL, 10) : -1;
  snprintf(again, sizeof again, "[%lld:%lld]", (long long)*begin, (long long)*end);
  if (*begin < 0 || *end <= *begin || strcmp(open, again) != 0) return false;
  *open = '\0';
  return true;
}

static int64_t triangle_count(int64_t begin, int64_t end) {
  return end * (end + 1) / 2 - begin * (begin + 1) / 2;
}

static curvd_status describe_triangle(const safetensors_tensor *t, const char *place, part *p, cv_error *err) {
  char stripped[SAFETENSORS_NAME_MAX];
  if (p->n_rows > triangle_rows_max) return refuse(place, p, "a triangle of more than 2^31 rows", err);
  if (!part_strip_triangle(p->name, stripped)) return refuse(place, p, "a triangle whose name has no _lower", err);
  snprintf(p->name, sizeof p->name, "%s", stripped);
  p->n_columns = p->n_rows;
  if (t->shape[0] != triangle_count(p->begin, p->begin + p->rows))
    return refuse(place, p, "its rows do not have so many numbers", err);
  return CURVD_OK;
}

/* n_rows is text: rows of the whole, which a triangle and a part need; NULL: a matrix that is whole. */
static curvd_status describe_rows(const safetensors_tensor *t, const char *n_rows, const char *place, part *p,
                                  cv_error *err) {
  int64_t end = 0;
  p->n_rows = p->rows = t->shape[0];
  p->n_columns = t->shape[1];
  if (n_rows == NULL) return CURVD_OK;
  if (!cv_integer_parse(n_rows, &p->n_rows) || p->n_rows < 0) return refuse(place, p, "n_rows is no size", err);
  bool is_part = take_rows(p->name, &p->begin, &end);
  if (!is_part && !p->is_triangle) return refuse(place, p, "n_rows of a part, but no [begin:end] in its name", err);
  p->rows = is_part ? end - p->begin : p->n_rows;
  if (p->begin > p->n_rows - p->rows) return refuse(place, p, "rows outside of the whole", err);
  if (!p->is_triangle && p->rows != t->shape[0]) return refuse(place, p, "its rows are not those of its name", err);
  return p->is_triangle ? describe_triangle(t, place, p, err) : CURVD_OK;
}

static bool is_hexadecimal(const char *text) {
  return strlen(text) == CHECKSUM_MAX - 1 && strspn(text, "0123456789abcdef") == CHECKSUM_MAX - 1;
}

/* Names are printed, and a terminal would obey some of these. */
static bool is_printable(const char *name) {
  while ((unsigned char)*name >= ' ' && *name != 127) name++;
  return *name == '\0';
}

curvd_status part_describe(const safetensors_header *header, const safetensors_tensor *tensor, const char *place,
                           part *p, cv_error *err) {
  const char *sum = shard_metadata(header, "xxh3:", tensor->name);
  const char *n_rows = shard_metadata(header, "n_rows:", tensor->name);
  bool is_number = strcmp(tensor->dtype, "F32") == 0 || strcmp(tensor->dtype, "F64") == 0;
  *p = (part){.at = header->bytes + tensor->begin, .bytes = tensor->end - tensor->begin};
  snprintf(p->tensor, sizeof p->tensor, "%s", tensor->name);
  snprintf(p->name, sizeof p->name, "%s", tensor->name);
  if (!is_printable(p->name)) return refuse(place, p, "a control character in its name", err);
  if (sum == NULL || !is_hexadecimal(sum)) return refuse(place, p, "its checksum is missing", err);
  snprintf(p->xxh3, sizeof p->xxh3, "%s", sum);
  p->is_triangle = tensor->n_dimensions == 1 && n_rows != NULL;
  p->is_readable = is_number && (p->is_triangle || tensor->n_dimensions == 2);
  p->dtype = strcmp(tensor->dtype, "F64") == 0 ? CURVD_F64 : CURVD_F32;
  return p->is_readable ? describe_rows(tensor, n_rows, place, p, err) : CURVD_OK;
}

int part_compare(const void *x, const void *y) {
  const part *a = x, *b = y;
  if (a->is_readable != b->is_readable) return a->is_readable ? -1 : 1;
  int by_name = strcmp(a->name, b->name);
  if (by_name != 0) return by_name;
  if (a->begin != b->begin) return a->begin < b->begin ? -1 : 1;
  if (a->rows != b->rows) return a->rows < b->rows ? -1 : 1;
  return (a->shard > b->shard) - (a->shard < b->shard);
}

bool part_follows(const part *first, const part *second) {
  return first->dtype == second->dtype && first->is_triangle == second->is_triangle &&
         first->n_rows == second->n_rows && first->n_columns == second->n_columns &&
         second->begin >= first->begin + first->rows;
}
