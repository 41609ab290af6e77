/* The state of a run in memory: hooks that keep what curvd_save hands out, gathered over the ranks of a communicator,
 * and give it back to curvd_load on any others. */
#ifndef TESTS_STATE_FIXTURE_H
#define TESTS_STATE_FIXTURE_H

#include "mpi_service.h"

enum { STATE_PARTS_MAX = 4096 };

typedef struct state_part {
  char name[CURVD_ARRAY_NAME_MAX];
  curvd_array array; /* name and data mean nothing */
  int64_t at;        /* place in bytes */
} state_part;

typedef struct state_store {
  int n;
  state_part part[STATE_PARTS_MAX];
  char *bytes;
  int64_t n_bytes;
  int begun, ended;
  int64_t step;
  const char *refused; /* name of an array that the hook fails at */
} state_store;

static inline void state_clear(state_store *s) {
  free(s->bytes);
  *s = (state_store){0};
}

static inline int64_t state_size(const curvd_array *a) {
  return curvd_array_count(a) * curvd_dtype_bytes(a->dtype);
}

static inline curvd_status state_begin(void *user, bool is_load, int64_t step) {
  state_store *s = user;
  s->begun++;
  if (is_load) return CURVD_OK;
  s->n = 0;
  s->n_bytes = 0;
  s->step = step;
  return CURVD_OK;
}

static inline curvd_status state_keep(state_store *s, const curvd_array *a) {
  dense_require(s->n < STATE_PARTS_MAX && strlen(a->name) < CURVD_ARRAY_NAME_MAX);
  state_part *part = &s->part[s->n++];
  s->bytes = realloc(s->bytes, (size_t)(s->n_bytes + state_size(a)));
  snprintf(part->name, sizeof part->name, "%s", a->name);
  part->array = *a;
  part->at = s->n_bytes;
  curvd_array_pack(a, s->bytes + s->n_bytes);
  s->n_bytes += state_size(a);
  return CURVD_OK;
}

/* Rows of a saved part that are wanted. */
static inline int64_t state_give(const state_store *s, const state_part *part, const curvd_array *wanted) {
  int64_t begin = part->array.begin > wanted->begin ? part->array.begin : wanted->begin,
          end = part->array.begin + part->array.rows, end_wanted = wanted->begin + wanted->rows;
  if (end_wanted < end) end = end_wanted;
  if (begin >= end) return 0;
  curvd_array before = part->array, to = curvd_array_rows(wanted, begin, end - begin);
  before.rows = begin - part->array.begin;
  curvd_array_unpack(&to, s->bytes + part->at + state_size(&before));
  return end - begin;
}

static inline curvd_status state_find(state_store *s, const curvd_array *wanted) {
  int64_t rows = 0;
  for (int i = 0; i < s->n; i++) {
    const curvd_array *a = &s->part[i].array;
    if (strcmp(s->part[i].name, wanted->name) != 0) continue;
    if (a->dtype != wanted->dtype || a->is_triangle != wanted->is_triangle || a->n_rows != wanted->n_rows ||
        a->n_columns != wanted->n_columns)
      return CURVD_ERR_DATA;
    rows += state_give(s, &s->part[i], wanted);
  }
  return rows == wanted->rows ? CURVD_OK : CURVD_ERR_DATA;
}

static inline curvd_status state_array(void *user, bool is_load, const curvd_array *a) {
  state_store *s = user;
  if (s->refused && strstr(a->name, s->refused)) return CURVD_ERR_IO;
  return is_load ? state_find(s, a) : state_keep(s, a);
}

static inline curvd_status state_end(void *user, bool is_load, curvd_status status) {
  state_store *s = user;
  (void)is_load, (void)status;
  s->ended++;
  return CURVD_OK;
}

static inline void state_hook(curvd_ctx *ctx, state_store *s) {
  static const curvd_state_hooks hooks = {state_begin, state_array, state_end};
  ck_assert_int_eq(curvd_on_state(ctx, &hooks, s), CURVD_OK);
}

/* [collective] What all ranks have kept comes to all of them. */
static inline void state_gather(MPI_Comm comm, state_store *s) {
  static state_store all;
  state_clear(&all);
  for (int r = 0; r < run_size(comm); r++) {
    int64_t head[2] = {s->n, s->n_bytes};
    MPI_Bcast(head, 2, MPI_INT64_T, r, comm);
    dense_require(all.n + head[0] <= STATE_PARTS_MAX);
    all.bytes = realloc(all.bytes, (size_t)(all.n_bytes + head[1] + 1));
    state_part *parts = all.part + all.n;
    if (r == run_rank(comm)) {
      memcpy(parts, s->part, (size_t)s->n * sizeof *parts);
      if (s->n_bytes > 0) memcpy(all.bytes + all.n_bytes, s->bytes, (size_t)s->n_bytes);
    }
    MPI_Bcast(parts, (int)(head[0] * (int64_t)sizeof *parts), MPI_BYTE, r, comm);
    MPI_Bcast(all.bytes + all.n_bytes, (int)head[1], MPI_BYTE, r, comm);
    for (int64_t i = 0; i < head[0]; i++) parts[i].at += all.n_bytes;
    all.n += (int)head[0];
    all.n_bytes += head[1];
  }
  free(s->bytes);
  all.step = s->step;
  *s = all;
  all.bytes = NULL;
}

/* Is every row of every array there once? Returns the name of one that is not, or NULL. */
static inline const char *state_torn(const state_store *s) {
  for (int i = 0; i < s->n; i++) {
    const curvd_array *a = &s->part[i].array;
    int64_t rows = 0, first = 0; /* sums over parts of their rows and of the rows' numbers */
    for (int j = 0; j < s->n; j++) {
      const curvd_array *b = &s->part[j].array;
      if (strcmp(s->part[i].name, s->part[j].name) != 0) continue;
      rows += b->rows;
      first += b->rows * b->begin + b->rows * (b->rows - 1) / 2;
    }
    if (rows != a->n_rows || first != rows * (rows - 1) / 2) return s->part[i].name;
  }
  return NULL;
}

#endif
