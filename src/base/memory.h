/* Counted, aligned, zeroed memory. Every block has a kind, so that memory per rank can be told by kind;
 * n_allocations lets a test prove that a step allocates nothing. */
#ifndef CV_BASE_MEMORY_H
#define CV_BASE_MEMORY_H

#include "base/status.h"

#include <stdbool.h>
#include <stdint.h>

typedef enum cv_memory_kind {
  CV_MEMORY_STATISTICS,     /* this step's sums of outer products */
  CV_MEMORY_FACTORS,        /* running averages */
  CV_MEMORY_PRECONDITIONER, /* bases and eigenvalues, dense inverses */
  CV_MEMORY_MOMENTUM,
  CV_MEMORY_TRANSFER, /* send and receive buffers */
  CV_MEMORY_WORKSPACE,
  CV_MEMORY_PARAMETERS, /* of the program's own model, gradients included */
  CV_MEMORY_ACTIVATIONS,
  CV_MEMORY_DATA,
  CV_MEMORY_KINDS
} cv_memory_kind;

typedef struct cv_memory {
  int64_t bytes[CV_MEMORY_KINDS]; /* live now */
  int64_t peak_bytes;             /* of the sum over kinds */
  int64_t n_allocations;          /* ever made */
  bool is_dry;                    /* blocks are counted, not made: NULL */
} cv_memory;

/* count * size zeroed bytes on a 64-byte border, never NULL on success (count 0 gives one byte) unless memory is dry.
 * CURVD_ERR_MEMORY (also on overflow of count * size) names `what`. */
curvd_status cv_memory_new(cv_memory *memory, cv_memory_kind kind, int64_t count, int64_t size, const char *what,
                           void **block, cv_error *err);

/* Frees a block of cv_memory_new and sets *block to NULL; NULL is fine. */
void cv_memory_free(cv_memory *memory, void **block);

const char *cv_memory_kind_name(cv_memory_kind kind);

/* fp32 and fp64 arrays, the common case. */
curvd_status cv_floats_new(cv_memory *memory, cv_memory_kind kind, int64_t count, const char *what, float **block,
                           cv_error *err);
curvd_status cv_doubles_new(cv_memory *memory, cv_memory_kind kind, int64_t count, const char *what, double **block,
                            cv_error *err);
void cv_floats_free(cv_memory *memory, float **block);
void cv_doubles_free(cv_memory *memory, double **block);

#endif
