/* What is true of M, and how far a decomposition is from it. All of it on rank 0, by means that no solver has. */
#ifndef EIG_SCORE_H
#define EIG_SCORE_H

#include "eig_source.h"

/* Eigenvalues of M in fp64 where that is affordable, by fp32 LAPACK beyond. */
enum { EIG_FP64_MAX = 2048 };

/* damping of the inverse, over the largest eigenvalue */
#define EIG_DAMPING 1e-2

typedef struct eig_truth {
  const eig_source *source;
  cv_memory *memory;
  double *lambda; /* (n) eigenvalues, descending */
  double norm;    /* of M, Frobenius */
  /* timed: LAPACK's ssyevd on a copy of M */
  double cpu_ms, wall_ms;
  bool has_vectors;
  float *V;       /* (n, ld) its eigenvectors, ascending */
  float *w;       /* (n) */
  float *residue; /* (n, ld) */
  float *scaled;  /* (k_max, ld), or (rows, k_max) */
  double *gram, *gram_room;
  float *examples, *inverse, *out; /* (rows, ld): new examples, and the exact inverse applied to them */
  float *work;
  double *work64;
  int32_t *ints;
} eig_truth;

typedef struct eig_score {
  double error, optimum;             /* Frobenius norm of M - U^T D U, kept pairs; and of the best of that rank */
  double orthogonality;              /* largest entry of U U^T - I, found pairs */
  double inverse, inverse_truncated; /* error of the inverse applied to new examples; of the exact pairs */
  double inverse_no_tail;            /* the same with tau 0 */
} eig_score;

curvd_status eig_truth_open(const eig_source *source, int64_t k_max, cv_memory *memory, eig_truth *truth,
                            cv_error *err);
void eig_truth_close(eig_truth *truth);

/* Reads the source's M: eigenvalues, and with_ssyevd its time and vectors. NUMERIC when they do not add up. */
curvd_status eig_truth_take(eig_truth *truth, eig_source *source, bool with_ssyevd, cv_error *err);

/* Scores U (found, ld), D, tau, of which kept pairs are in use, against the best eig_rank pairs. */
void eig_truth_score(eig_truth *truth, int64_t eig_rank, int64_t found, int64_t kept, const float *U, const float *D,
                     double tau, eig_score *score);

#endif
