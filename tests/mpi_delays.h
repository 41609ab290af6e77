/* MPI calls that sleep now and then, and counts of what is under way. The executable's own MPI functions stand before
 * those of the library, which do the work under their PMPI names. Included once in a program.
 *
 * A sleep is as likely in every call of a kind and differs between ranks and seeds; how often a waiting rank looks
 * depends on the time, so a seed names a kind of weather, not a sequence that comes again. */
#ifndef TESTS_MPI_DELAYS_H
#define TESTS_MPI_DELAYS_H

#include "base/rng.h"

#include <mpi.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

/* Sleeps of this rank; all 0: none. */
typedef struct delay_plan {
  uint64_t seed;
  double call_share, look_share; /* of the calls that begin something or wait for it; of the looks at it */
  double longest_s;              /* random, a third of it on average */
  double always_s;               /* and this before every broadcast and reduction that this rank begins */
} delay_plan;

/* Of this rank, since it started. */
typedef struct mpi_counts {
  int64_t begun, ended; /* requests */
  int64_t live;         /* communicators made and not freed */
  double slept_s;       /* by always_s */
} mpi_counts;

static delay_plan delay;
static mpi_counts counts;
static uint64_t delay_draws;

static inline void delay_sleep(double s) {
  struct timespec t = {.tv_sec = (time_t)s, .tv_nsec = (long)(1e9 * (s - (double)(time_t)s))};
  if (s > 0) nanosleep(&t, NULL);
}

static inline void delay_by(double share) {
  if (share == 0) return;
  const cv_rng rng = {.seed = delay.seed, .stream = CV_RNG_PROBE};
  uint64_t draw = 2 * delay_draws++;
  double height = cv_rng_uniform(&rng, draw + 1);
  if (cv_rng_uniform(&rng, draw) < share) delay_sleep(delay.longest_s * height * height);
}

static inline void delay_call(void) {
  delay_by(delay.call_share);
}

static inline void delay_transfer(void) {
  delay_call();
  delay_sleep(delay.always_s);
  counts.slept_s += delay.always_s;
}

/* ---- what begins something ---- */

static inline int count_begun(int code) {
  counts.begun += code == MPI_SUCCESS;
  return code;
}

int MPI_Ireduce(const void *in, void *out, int n, MPI_Datatype type, MPI_Op op, int root, MPI_Comm comm,
                MPI_Request *request) {
  delay_transfer();
  return count_begun(PMPI_Ireduce(in, out, n, type, op, root, comm, request));
}

int MPI_Ibcast(void *x, int n, MPI_Datatype type, int root, MPI_Comm comm, MPI_Request *request) {
  delay_transfer();
  return count_begun(PMPI_Ibcast(x, n, type, root, comm, request));
}

int MPI_Isend(const void *x, int n, MPI_Datatype type, int to, int tag, MPI_Comm comm, MPI_Request *request) {
  delay_call();
  return count_begun(PMPI_Isend(x, n, type, to, tag, comm, request));
}

int MPI_Irecv(void *x, int n, MPI_Datatype type, int from, int tag, MPI_Comm comm, MPI_Request *request) {
  delay_call();
  return count_begun(PMPI_Irecv(x, n, type, from, tag, comm, request));
}

/* ---- what ends it ---- */

static inline int64_t requests_of(int n, const MPI_Request *request) {
  int64_t live = 0;
  for (int i = 0; i < n; i++) live += request[i] != MPI_REQUEST_NULL;
  return live;
}

int MPI_Testall(int n, MPI_Request *request, int *is_done, MPI_Status *status) {
  delay_by(delay.look_share);
  int64_t live = requests_of(n, request);
  int code = PMPI_Testall(n, request, is_done, status);
  if (code == MPI_SUCCESS && *is_done) counts.ended += live;
  return code;
}

int MPI_Waitall(int n, MPI_Request *request, MPI_Status *status) {
  delay_call();
  int64_t live = requests_of(n, request);
  int code = PMPI_Waitall(n, request, status);
  if (code == MPI_SUCCESS) counts.ended += live;
  return code;
}

int MPI_Allreduce(const void *in, void *out, int n, MPI_Datatype type, MPI_Op op, MPI_Comm comm) {
  delay_call();
  return PMPI_Allreduce(in, out, n, type, op, comm);
}

int MPI_Reduce_scatter(const void *in, void *out, const int n[], MPI_Datatype type, MPI_Op op, MPI_Comm comm) {
  delay_call();
  return PMPI_Reduce_scatter(in, out, n, type, op, comm);
}

int MPI_Allgatherv(const void *in, int n_in, MPI_Datatype type_in, void *out, const int n[], const int begin[],
                   MPI_Datatype type, MPI_Comm comm) {
  delay_call();
  return PMPI_Allgatherv(in, n_in, type_in, out, n, begin, type, comm);
}

/* ---- communicators ---- */

static inline int count_made(int code, const MPI_Comm *made) {
  counts.live += code == MPI_SUCCESS && *made != MPI_COMM_NULL;
  return code;
}

int MPI_Comm_dup(MPI_Comm comm, MPI_Comm *made) {
  return count_made(PMPI_Comm_dup(comm, made), made);
}

int MPI_Comm_split(MPI_Comm comm, int color, int key, MPI_Comm *made) {
  return count_made(PMPI_Comm_split(comm, color, key, made), made);
}

int MPI_Comm_free(MPI_Comm *comm) {
  counts.live--;
  return PMPI_Comm_free(comm);
}

/* ---- weather ---- */

/* Some calls of every rank are late, by up to 2 ms; shares keep a run of some steps within tens of milliseconds. */
static inline void delay_at_random(uint64_t schedule, int rank) {
  delay = (delay_plan){
      .seed = 1000 * schedule + (uint64_t)rank + 1, .call_share = 0.06, .look_share = 0.002, .longest_s = 2e-3};
}

static inline void delay_never(void) {
  delay = (delay_plan){0};
}

#endif
