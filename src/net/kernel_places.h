/* Weights between our rows (c_out, kh kw c_in / groups), ld apart, and a blocked layout of oneDNN. That splits each
 * index by itself, so the place of a number is row[its row] + tap[its tap] + column[its column within the tap]. */
#ifndef NET_KERNEL_PLACES_H
#define NET_KERNEL_PLACES_H

#include "net/kernel.h"

#include <dnnl.h>

typedef struct nn_places {
  int32_t *row, *tap, *column; /* one block */
  int64_t rows, taps, columns;
  int64_t size; /* numbers in the blocked layout; more than rows * taps * columns when blocks are padded with zeros */
} nn_places;

curvd_status nn_places_create(const dnnl_memory_desc_t *layout, const nn_conv *shape, cv_memory *memory,
                              nn_places *made, cv_error *err);
void nn_places_free(cv_memory *memory, nn_places *p);

/* packed = w, zeros in what pads the blocks, as oneDNN demands */
void nn_places_pack(const nn_places *p, const float *w, int64_t ldw, float *packed);

/* dw = beta dw + scale packed; beta 0 does not read dw */
void nn_places_add(const nn_places *p, const float *packed, float scale, float beta, float *dw, int64_t lddw);

#endif
