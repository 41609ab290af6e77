/* A thread that moves transfers on while their rank computes. It posts nothing and ends nothing: it only enters MPI
 * again and again while something is under way, since Open MPI moves messages only inside its calls. Asleep
 * otherwise. */
#ifndef CV_COMM_PROGRESS_H
#define CV_COMM_PROGRESS_H

#include "base/status.h"

#include <mpi.h>
#include <pthread.h>
#include <stdbool.h>

typedef struct cv_progress {
  pthread_t thread;
  pthread_mutex_t lock; /* of the two below */
  pthread_cond_t changed;
  bool is_wanted, is_stopping;
  bool is_running, was_wanted; /* of the rank's own thread */
  MPI_Comm own;                /* of this rank alone; nothing is ever sent on it */
} cv_progress;

/* Has MPI been started with MPI_THREAD_MULTIPLE? */
bool cv_progress_is_possible(void);

/* The thread takes no signals. progress must stay where it is until cv_progress_stop. STATE without
 * MPI_THREAD_MULTIPLE; MEMORY: no thread to be had. */
curvd_status cv_progress_start(cv_progress *progress, cv_error *err);

/* Is something under way? Returns at once, also where no thread runs. */
void cv_progress_want(cv_progress *progress, bool is_wanted);

/* Waits for the thread's end; fine when none runs. */
void cv_progress_stop(cv_progress *progress);

#endif
