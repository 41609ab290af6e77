/* The state of a run as named arrays: what curvd_save hands out and curvd_load asks for (curvd.h). No MPI in here. */
#ifndef CURVD_STATE_H
#define CURVD_STATE_H

#include "curvd_status.h"

#include <stdbool.h>
#include <stdint.h>

#if defined(__GNUC__)
#define CURVD_STATE_API __attribute__((visibility("default")))
#else
#define CURVD_STATE_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef enum curvd_dtype { CURVD_F32 = 0, CURVD_F64 = 1 } curvd_dtype;

enum { CURVD_ARRAY_NAME_MAX = 160 }; /* bytes of a name, with its end */

/* Rows begin .. begin + rows - 1 of a matrix (n_rows, n_columns), where they lie in memory. Names, shapes and numbers
 * of the whole do not depend on the number of ranks or on who owns what: "curvature.fc1.A.average". A triangle is the
 * lower one of a symmetric matrix: row i has i + 1 numbers. Packed, rows follow each other without gaps. */
typedef struct curvd_array {
  const char *name; /* borrowed for the call; at most CURVD_ARRAY_NAME_MAX - 1 bytes */
  curvd_dtype dtype;
  bool is_triangle;                  /* then n_rows is n_columns */
  int64_t n_rows, n_columns;         /* of the whole */
  int64_t begin, rows;               /* of this part */
  int64_t row_stride, column_stride; /* in elements */
  void *data;                        /* element (begin, 0) */
} curvd_array;

/* [local] Numbers of the part, and bytes of one of them. */
CURVD_STATE_API int64_t curvd_array_count(const curvd_array *array);
CURVD_STATE_API int64_t curvd_dtype_bytes(curvd_dtype dtype);

/* [local] Copies the part to its packed form, and back. packed: curvd_array_count numbers of its dtype. */
CURVD_STATE_API void curvd_array_pack(const curvd_array *array, void *packed);
CURVD_STATE_API void curvd_array_unpack(const curvd_array *array, const void *packed);

/* [local] Rows begin .. begin + rows - 1 (numbers of the whole) of a part that has them. */
CURVD_STATE_API curvd_array curvd_array_rows(const curvd_array *array, int64_t begin, int64_t rows);

/* What a rank does with its part of the state, for curvd_save and curvd_load: begin, array for one array after the
 * other, end. A hook that fails ends the visit: no further arrays, then end with its status, or that of another rank.
 *   array, of a save: to be copied from before the call returns. Every part of the state comes on one rank only
 *   array, of a load: data is to be filled, with what arrays of this name held when they were saved, all ranks' parts
 *     together; DATA: there is none of this name and shape */
typedef struct curvd_state_hooks {
  curvd_status (*begin)(void *user, bool is_load, int64_t step);
  curvd_status (*array)(void *user, bool is_load, const curvd_array *array);
  curvd_status (*end)(void *user, bool is_load, curvd_status status);
} curvd_state_hooks;

#ifdef __cplusplus
}
#endif

#endif
