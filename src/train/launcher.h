/* What started this process, and how many ranks it promised, by the environment alone. A launcher that MPI cannot talk
 * to gives every process a world of its own: N runs of one rank, each the whole job, in the same folder. */
#ifndef TRAIN_LAUNCHER_H
#define TRAIN_LAUNCHER_H

#include "base/status.h"

#include <stdbool.h>
#include <stdint.h>

typedef enum launcher_kind {
  LAUNCHER_NONE,   /* a shell, that of a batch job included */
  LAUNCHER_MPIRUN, /* Open MPI's */
  LAUNCHER_SRUN,   /* a step of SLURM */
  LAUNCHER_PMI,    /* another MPI's mpiexec */
  LAUNCHER_PMIX    /* something else that speaks PMIx */
} launcher_kind;

typedef struct launcher {
  launcher_kind kind;
  int64_t n_ranks;       /* that it promised; 0: it does not say */
  int64_t rank;          /* -1: it does not say */
  int64_t job_tasks;     /* of the SLURM job whose batch script we are in; 0: none */
  bool has_pmix;         /* somebody answers who speaks PMIx */
  bool has_step_id;      /* SLURM_STEP_ID is set, though perhaps by a step that is none of ours */
  bool has_ring;         /* of a step: its PMIx barriers are a ring */
  char pmix_version[32]; /* "": unknown */
} launcher;

/* As getenv. */
typedef const char *launcher_getenv(void *user, const char *name);

launcher launcher_find(launcher_getenv *get, void *user);
launcher launcher_of_process(void);

/* "mpirun", "srun", ... */
const char *launcher_name(const launcher *l);

/* Has this process ranks beside it, or should it have? */
bool launcher_has_ranks(const launcher *l);

/* Tasks of srun, without PMIx: only an MPI that speaks PMI can join them, and any other ends the process in MPI_Init.
 */
bool launcher_needs_pmi(const launcher *l);
curvd_status launcher_failed_without_pmi(const launcher *l, cv_error *err); /* LAYOUT */

/* Open MPI takes whoever has SLURM_STEP_ID for a task that srun told how to find the others, and ends it in MPI_Init
 * when nobody did. Is this one process, which has nobody to find? */
bool launcher_is_alone_in_step(const launcher *l);

/* LAYOUT: the world of n_ranks that MPI has made is smaller than promised; library: MPI_Get_library_version's words. */
curvd_status launcher_check(const launcher *l, int n_ranks, const char *library, cv_error *err);

#endif
