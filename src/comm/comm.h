/* Ranks and communicators. With coll.h the only library code that calls MPI.
 *
 * World rank r < n_workers is worker r; the last n_curvature ranks are curvature ranks. An owner of layers is a
 * curvature rank, or a worker when there is none. Each owner has a group: all workers and the owner, so no other
 * curvature rank takes part in what passes between them. It has two communicators, statistics going up to the owner
 * and preconditioners down from it: transfers of one kind never wait for their turn behind the other kind. */
#ifndef CV_COMM_COMM_H
#define CV_COMM_COMM_H

#include "base/memory.h"
#include "base/status.h"
#include "base/trace.h"

#include <mpi.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct cv_comm {
  MPI_Comm world;   /* our own duplicate, errors returned */
  MPI_Comm workers; /* MPI_COMM_NULL on a curvature rank */
  MPI_Comm owners;  /* all owners, by number: the curvature ranks, or the workers; MPI_COMM_NULL elsewhere */
  MPI_Comm *up;     /* [n_owners]: workers and that owner; MPI_COMM_NULL where this rank is not in it, or without use */
  MPI_Comm *down;   /* the same ranks again */
  MPI_Op add_bf16;  /* of MPI_UINT16_T: sums in fp32, rounded */
  MPI_Request *commands; /* [n_curvature] worker 0: the last command to each curvature rank */
  int64_t *words;        /* [n_curvature] and its word */
  int rank, n_ranks;
  int n_workers, n_curvature;
  int n_owners;    /* n_curvature, or n_workers when there is none */
  cv_trace *trace; /* borrowed; NULL: nothing is recorded */
} cv_comm;

/* [collective over user] STATE: MPI is not initialised or already finalised. */
curvd_status cv_comm_create(MPI_Comm user, cv_comm *comm, cv_error *err);

/* [collective] LAYOUT when no worker is left. */
curvd_status cv_comm_split(cv_comm *comm, int64_t n_curvature, cv_memory *memory, cv_error *err);

/* [collective] The two communicators of an owner; an owner without layers needs none. */
curvd_status cv_comm_connect(cv_comm *comm, int owner, cv_error *err);

void cv_comm_free(cv_comm *comm, cv_memory *memory);

bool cv_comm_is_worker(const cv_comm *comm);

/* World rank of owner o, and the owner number of this rank, -1 when it is none. */
int cv_comm_owner_rank(const cv_comm *comm, int owner);
int cv_comm_my_owner(const cv_comm *comm);

/* [collective over all ranks] MISMATCH unless every rank passes the same number. One reduction of (x, -x). */
curvd_status cv_comm_same(const cv_comm *comm, uint64_t x, const char *what, cv_error *err);

/* [collective over all ranks, or over the workers] The agreement point: returns `mine` where it failed, REMOTE (naming
 * the rank) where only others did, OK when all are well. */
typedef enum cv_scope { CV_ALL_RANKS, CV_WORKERS } cv_scope;
curvd_status cv_comm_agree(const cv_comm *comm, cv_scope scope, curvd_status mine, cv_error *err);

/* [collective over the workers] The same, and flags that any of them has raised come to all. */
enum { CV_FLAGS = 9 };
curvd_status cv_comm_agree_flags(const cv_comm *comm, curvd_status mine, uint32_t flags, uint32_t *all, cv_error *err);

/* Translates an MPI return code. */
curvd_status cv_comm_check(int code, const char *what, cv_error *err);

/* One line: the MPI library. */
const char *cv_comm_library(void);

#endif
