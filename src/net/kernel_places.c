#include "net/kernel_places.h"

#include <inttypes.h>
#include <string.h>

enum { BLOCK = 16 }; /* rows and columns moved at a time, as many as a cache line holds */

/* Offset of `index` along one dimension. Inner blocks go from the outermost to the innermost. */
static int32_t place_of(const dnnl_memory_desc_t *layout, int dimension, int64_t index) {
  const dnnl_blocking_desc_t *blocks = &layout->format_desc.blocking;
  int64_t offset = 0, step = 1;
  for (int b = blocks->inner_nblks - 1; b >= 0; b--) {
    int64_t size = blocks->inner_blks[b];
    if (blocks->inner_idxs[b] == dimension) {
      offset += index % size * step;
      index /= size;
    }
    step *= size;
  }
  return (int32_t)(offset + index * blocks->strides[dimension]);
}

static void fill(const dnnl_memory_desc_t *layout, const nn_conv *s, nn_places *p) {
  int out = s->groups > 1, in = out + 1; /* dimensions: [groups], outputs, inputs, height, width */
  int64_t per_group = s->c_out / s->groups;
  for (int64_t r = 0; r < p->rows; r++)
    p->row[r] = place_of(layout, out, r % per_group) + (s->groups > 1 ? place_of(layout, 0, r / per_group) : 0);
  for (int64_t t = 0; t < p->taps; t++)
    p->tap[t] = place_of(layout, in + 1, t / s->kernel[1]) + place_of(layout, in + 2, t % s->kernel[1]);
  for (int64_t i = 0; i < p->columns; i++) p->column[i] = place_of(layout, in, i);
}

curvd_status nn_places_create(const dnnl_memory_desc_t *layout, const nn_conv *s, cv_memory *memory, nn_places *made,
                              cv_error *err) {
  nn_places p = {.rows = s->c_out, .taps = s->kernel[0] * s->kernel[1], .columns = s->c_in / s->groups};
  p.size = (int64_t)(dnnl_memory_desc_get_size(layout) / (layout->data_type == dnnl_bf16 ? 2 : 4));
  if (layout->format_kind != dnnl_blocked || layout->offset0 != 0 || layout->extra.flags != 0 || p.size > INT32_MAX)
    return cv_fail(err, CURVD_ERR_SIZE,
                   "oneDNN wants a weight of %" PRId64 " x %" PRId64 " in a layout of %" PRId64
                   " numbers that cannot be indexed; use the plain kernels",
                   p.rows, p.taps * p.columns, p.size);
  void *block = NULL;
  CV_TRY(cv_memory_new(memory, CV_MEMORY_WORKSPACE, p.rows + p.taps + p.columns, sizeof(int32_t), "places of a weight",
                       &block, err));
  p.row = block;
  if (block != NULL) {
    p.tap = p.row + p.rows;
    p.column = p.tap + p.taps;
    fill(layout, s, &p);
  }
  *made = p;
  return CURVD_OK;
}

void nn_places_free(cv_memory *memory, nn_places *p) {
  void *block = p->row;
  cv_memory_free(memory, &block);
  p->row = NULL;
}

static int64_t least(int64_t a, int64_t b) {
  return a < b ? a : b;
}

/* BLOCK places one after the other */
static bool adjoin(const int32_t *place) {
  for (int j = 1; j < BLOCK; j++)
    if (place[j] != place[0] + j) return false;
  return true;
}

/* (rows, columns) of w, from its row r0, tap t and column i0 within the tap on. Whole blocks have loops of their own
 * for the two layouts that oneDNN likes best: rows side by side, or columns. */
static void pack_block(const nn_places *p, const float *restrict w, int64_t ldw, int64_t r0, int64_t t, int64_t i0,
                       float *restrict packed) {
  int64_t rows = least(BLOCK, p->rows - r0), columns = least(BLOCK, p->columns - i0);
  const int32_t *row = p->row + r0, *column = p->column + i0;
  bool is_whole = rows == BLOCK && columns == BLOCK;
  w += r0 * ldw + t * p->columns + i0;
  packed += p->tap[t];
  if (is_whole && adjoin(column)) {
    for (int r = 0; r < BLOCK; r++) memcpy(packed + row[r] + column[0], w + r * ldw, BLOCK * sizeof *w);
  } else if (is_whole && adjoin(row)) {
    for (int i = 0; i < BLOCK; i++) {
      float *to = packed + row[0] + column[i];
      for (int r = 0; r < BLOCK; r++) to[r] = w[r * ldw + i];
    }
  } else {
    for (int64_t r = 0; r < rows; r++)
      for (int64_t i = 0; i < columns; i++) packed[row[r] + column[i]] = w[r * ldw + i];
  }
}

void nn_places_pack(const nn_places *p, const float *w, int64_t ldw, float *packed) {
  if (p->size > p->rows * p->taps * p->columns) memset(packed, 0, (size_t)p->size * sizeof *packed);
  for (int64_t r = 0; r < p->rows; r += BLOCK)
    for (int64_t t = 0; t < p->taps; t++)
      for (int64_t i = 0; i < p->columns; i += BLOCK) pack_block(p, w, ldw, r, t, i, packed);
}

/* tile (BLOCK, BLOCK): the block of pack_block */
static void unpack_block(const nn_places *p, const float *restrict packed, int64_t r0, int64_t t, int64_t i0,
                         float *restrict tile) {
  int64_t rows = least(BLOCK, p->rows - r0), columns = least(BLOCK, p->columns - i0);
  const int32_t *row = p->row + r0, *column = p->column + i0;
  packed += p->tap[t];
  if (rows == BLOCK && columns == BLOCK && adjoin(row)) {
    for (int i = 0; i < BLOCK; i++)
      for (int r = 0; r < BLOCK; r++) tile[r * BLOCK + i] = packed[row[0] + column[i] + r];
  } else {
    for (int64_t r = 0; r < rows; r++)
      for (int64_t i = 0; i < columns; i++) tile[r * BLOCK + i] = packed[row[r] + column[i]];
  }
}

void nn_places_add(const nn_places *p, const float *packed, float scale, float beta, float *dw, int64_t lddw) {
  float tile[BLOCK * BLOCK];
  for (int64_t r0 = 0; r0 < p->rows; r0 += BLOCK)
    for (int64_t t = 0; t < p->taps; t++)
      for (int64_t i0 = 0; i0 < p->columns; i0 += BLOCK) {
        unpack_block(p, packed, r0, t, i0, tile);
        for (int64_t r = 0; r < least(BLOCK, p->rows - r0); r++) {
          float *to = dw + (r0 + r) * lddw + t * p->columns + i0;
          for (int64_t i = 0; i < least(BLOCK, p->columns - i0); i++)
            to[i] = (beta == 0 ? 0 : beta * to[i]) + scale * tile[r * BLOCK + i];
        }
      }
}
