/* Arrays of the state (curvd_state.h): packed and back. */
#include "curvd_state.h"

#include <string.h>

enum { TILE = 32 }; /* a transposed copy goes tile by tile, or every number would be a cache line */

static int64_t row_length(const curvd_array *a, int64_t row) {
  return a->is_triangle ? a->begin + row + 1 : a->n_columns;
}

/* Numbers in front of a row of the part. */
static int64_t packed_at(const curvd_array *a, int64_t row) {
  return a->is_triangle ? row * a->begin + row * (row + 1) / 2 : row * a->n_columns;
}

int64_t curvd_array_count(const curvd_array *a) {
  return packed_at(a, a->rows);
}

int64_t curvd_dtype_bytes(curvd_dtype dtype) {
  return dtype == CURVD_F64 ? (int64_t)sizeof(double) : (int64_t)sizeof(float);
}

curvd_array curvd_array_rows(const curvd_array *a, int64_t begin, int64_t rows) {
  curvd_array part = *a;
  int64_t skipped = (begin - a->begin) * a->row_stride * curvd_dtype_bytes(a->dtype);
  part.begin = begin;
  part.rows = rows;
  part.data = (char *)a->data + skipped;
  return part;
}

/* One number, either way. */
static void move(char *memory, char *packed, int64_t bytes, bool is_packing) {
  memcpy(is_packing ? packed : memory, is_packing ? memory : packed, (size_t)bytes);
}

static void move_rows(const curvd_array *a, char *packed, bool is_packing) {
  int64_t size = curvd_dtype_bytes(a->dtype);
  for (int64_t i = 0; i < a->rows; i++)
    move((char *)a->data + i * a->row_stride * size, packed + packed_at(a, i) * size, row_length(a, i) * size,
         is_packing);
}

static void move_tile(const curvd_array *a, int64_t row, int64_t column, char *packed, bool is_packing) {
  int64_t size = curvd_dtype_bytes(a->dtype);
  for (int64_t i = row; i < row + TILE && i < a->rows; i++) {
    int64_t length = row_length(a, i);
    char *memory = (char *)a->data + i * a->row_stride * size, *to = packed + packed_at(a, i) * size;
    for (int64_t j = column; j < column + TILE && j < length; j++)
      move(memory + j * a->column_stride * size, to + j * size, size, is_packing);
  }
}

static void move_all(const curvd_array *a, char *packed, bool is_packing) {
  int64_t columns = a->rows > 0 ? row_length(a, a->rows - 1) : 0;
  if (columns == 0) return; /* however many rows a hostile file tells of */
  if (a->column_stride == 1) {
    move_rows(a, packed, is_packing);
    return;
  }
  for (int64_t i = 0; i < a->rows; i += TILE) {
    for (int64_t j = 0; j < columns; j += TILE) move_tile(a, i, j, packed, is_packing);
  }
}

void curvd_array_pack(const curvd_array *a, void *packed) {
  move_all(a, packed, true);
}

void curvd_array_unpack(const curvd_array *a, const void *packed) {
  move_all(a, (char *)(uintptr_t)packed, false);
}
