/* Matrices to decompose, one refresh after the other. */
#ifndef EIG_SOURCE_H
#define EIG_SOURCE_H

#include "base/memory.h"

#include <stdbool.h>

/* A synthetic one: running average of batch covariances with eigenvalues (1 + i/10)^-alpha in a hidden basis. Between
 * two refreshes come `more` batches, and every direction of the basis turns by `turn` towards a random other one. */
typedef struct eig_kind {
  const char *name;
  double alpha, keep; /* keep: what a batch leaves of the average before it */
  int first, more;    /* batches before the first refresh, and between two */
  int64_t rows;       /* of a batch */
  double turn;        /* radians */
} eig_kind;

enum { EIG_KINDS = 4 };
extern const eig_kind eig_kinds[EIG_KINDS];

typedef struct eig_source eig_source;
struct trainer;
struct cv_factor;
struct eig_source {
  const char *name;
  int64_t n, ld, rows;
  float *M; /* (n, ld), both triangles */
  /* M of the next refresh; before the first call M holds nothing */
  curvd_status (*next)(eig_source *source, cv_error *err);
  /* X (rows, ld): examples that had no part in M. NULL: there are none. */
  void (*examples)(eig_source *source, float *X);
  void (*close)(eig_source *source);
  cv_memory *memory;
  /* synthetic */
  const eig_kind *kind;
  uint64_t seed;
  uint32_t batches, turns; /* so far */
  float *basis;            /* (n, ld) orthonormal directions */
  float *weights;          /* (rows, ld) of the directions, in the batch being made */
  float *batch;            /* (rows, ld) */
  int64_t *order;          /* (n) */
  /* real */
  struct trainer *trainer;
  const struct cv_factor *factor;
  bool is_running;
};

curvd_status eig_source_open(const eig_kind *kind, int64_t n, uint64_t seed, cv_memory *memory, eig_source *source,
                             cv_error *err);

#endif
