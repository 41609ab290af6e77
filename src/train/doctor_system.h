/* What only Linux and the GNU C library tell: cores of a process, libraries that are loaded, memory of neighbours. */
#ifndef TRAIN_DOCTOR_SYSTEM_H
#define TRAIN_DOCTOR_SYSTEM_H

#include "train/doctor_blas.h"
#include "train/doctor_ranks.h"

#include <sys/types.h>

/* Fills host, n_cores and may. */
void doctor_rank_ask(doctor_rank *rank);

/* Fills the paths: where functions come from, and which libraries of that kind are loaded. */
void doctor_blas_ask_paths(doctor_blas *blas);

/* Reads n bytes there in a process of this host. Returns 0, or errno. */
int doctor_read_neighbour(pid_t neighbour, void *there, void *here, size_t n);

/* Writes one block of a file that is there past the page cache. Returns 0, or errno. */
int doctor_write_directly(int folder, const char *name);

#endif
