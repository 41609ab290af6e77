/* Which BLAS computes, with which threads, and what else is loaded beside it. */
#ifndef TRAIN_DOCTOR_BLAS_H
#define TRAIN_DOCTOR_BLAS_H

#include "train/doctor.h"

enum { DOCTOR_LIBRARIES_MAX = 16 };

/* As of openblas_get_parallel. */
typedef enum doctor_pool { DOCTOR_POOL_NONE, DOCTOR_POOL_PTHREAD, DOCTOR_POOL_OPENMP } doctor_pool;

typedef struct doctor_blas {
  char config[DOCTOR_PATH_MAX]; /* "OpenBLAS 0.3.21 DYNAMIC_ARCH ..." */
  char core[64];                /* whose kernels are in use */
  doctor_pool pool;
  int n_threads; /* that the run would have */
  /* Paths, links followed, of what has the functions that C calls, that ScaLAPACK calls, and that sets threads. */
  char c_calls[DOCTOR_PATH_MAX], fortran_calls[DOCTOR_PATH_MAX], sets_threads[DOCTOR_PATH_MAX];
  /* Loaded libraries for linear algebra and threads. */
  char library[DOCTOR_LIBRARIES_MAX][DOCTOR_PATH_MAX];
  int n_libraries;
} doctor_blas;

/* Sets BLAS threads as the run would, and asks. */
void doctor_blas_ask(int n_threads, doctor_blas *blas);

/* Each adds one line. */
void doctor_check_blas(const doctor_blas *blas, doctor_findings *to);
void doctor_check_pools(const doctor_blas *blas, doctor_findings *to);

/* kernels: the option's word. */
void doctor_check_convolutions(const char *kernels, doctor_findings *to);

#endif
