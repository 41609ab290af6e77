/* Who runs where: launcher, MPI, hosts, cores. */
#ifndef TRAIN_DOCTOR_RANKS_H
#define TRAIN_DOCTOR_RANKS_H

#include "train/doctor.h"
#include "train/launcher.h"

enum { DOCTOR_CORES_MAX = 4096, DOCTOR_MASK_WORDS = DOCTOR_CORES_MAX / 64 };

/* What rank 0 knows of a rank. Small enough to travel in one short message. */
typedef struct doctor_rank {
  char host[DOCTOR_HOST_MAX];
  int32_t n_cores;                 /* of the host, hardware threads counted */
  int32_t blas_threads;            /* as the run would have it */
  uint64_t may[DOCTOR_MASK_WORDS]; /* cores that it may run on, core 0 in bit 0; all 0: unknown */
  int64_t plan_bytes;              /* that the service takes; 0: unknown */
  int64_t free_bytes;              /* of memory that the rank and its neighbours may take; -1: unknown */
} doctor_rank;

/* Fills host, n_cores and may. */
void doctor_rank_ask(doctor_rank *rank);

/* Number of hosts; host_of[r]: the lowest rank on the host of rank r. */
int doctor_hosts(const doctor_rank *rank, int n, int *host_of);

/* Each adds one line. library: of MPI_Get_library_version; level: as of MPI_Query_thread. */
void doctor_check_launcher(const launcher *l, int n_ranks, const char *library, doctor_findings *to);
void doctor_check_mpi(const char *library, int built_major, int built_minor, int built_release, doctor_findings *to);
void doctor_check_threads(int level, doctor_findings *to);
void doctor_check_hosts(const doctor_rank *rank, int n, doctor_findings *to);
void doctor_check_binding(const doctor_rank *rank, int n, doctor_findings *to);

#endif
