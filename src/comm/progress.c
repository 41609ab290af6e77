#include "comm/progress.h"

#include "comm/comm.h"

#include <signal.h>
#include <string.h>
#include <time.h>

/* A look takes about a microsecond; the kernel adds about 60 us of its own to a sleep. A look moves one segment of a
 * collective that Open MPI cuts into segments, so a few of them follow each other. */
enum { PAUSE_NS = 200000, LOOKS = 8 };

bool cv_progress_is_possible(void) {
  int level = MPI_THREAD_SINGLE;
  return MPI_Query_thread(&level) == MPI_SUCCESS && level >= MPI_THREAD_MULTIPLE;
}

/* A probe that finds nothing runs MPI's progress engine once, for all communicators. */
static void look(const cv_progress *progress) {
  int is_there = 0;
  MPI_Iprobe(MPI_ANY_SOURCE, MPI_ANY_TAG, progress->own, &is_there, MPI_STATUS_IGNORE);
}

static void *run(void *arg) {
  cv_progress *progress = arg;
  pthread_mutex_lock(&progress->lock);
  while (!progress->is_stopping) {
    if (!progress->is_wanted) {
      pthread_cond_wait(&progress->changed, &progress->lock);
      continue;
    }
    pthread_mutex_unlock(&progress->lock);
    for (int i = 0; i < LOOKS; i++) look(progress);
    nanosleep(&(struct timespec){.tv_nsec = PAUSE_NS}, NULL);
    pthread_mutex_lock(&progress->lock);
  }
  pthread_mutex_unlock(&progress->lock);
  return NULL;
}

/* Signals are for the program's own threads. */
static int create_without_signals(cv_progress *progress) {
  sigset_t all, before;
  sigfillset(&all);
  int code = pthread_sigmask(SIG_SETMASK, &all, &before);
  if (code != 0) return code;
  code = pthread_create(&progress->thread, NULL, run, progress);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  return code;
}

curvd_status cv_progress_start(cv_progress *progress, cv_error *err) {
  *progress = (cv_progress){.own = MPI_COMM_NULL};
  if (!cv_progress_is_possible()) {
    return cv_fail(err, CURVD_ERR_STATE,
                   "progress thread needs MPI_Init_thread with MPI_THREAD_MULTIPLE: ask for it, or use progress test");
  }
  CV_TRY(cv_comm_check(MPI_Comm_dup(MPI_COMM_SELF, &progress->own), "MPI_Comm_dup", err));
  MPI_Comm_set_errhandler(progress->own, MPI_ERRORS_RETURN);
  pthread_mutex_init(&progress->lock, NULL);
  pthread_cond_init(&progress->changed, NULL);
  int code = create_without_signals(progress);
  progress->is_running = code == 0;
  if (progress->is_running) return CURVD_OK;
  pthread_cond_destroy(&progress->changed);
  pthread_mutex_destroy(&progress->lock);
  MPI_Comm_free(&progress->own);
  return cv_fail(err, CURVD_ERR_MEMORY, "no thread for transfers (%s): use progress test", strerror(code));
}

void cv_progress_want(cv_progress *progress, bool is_wanted) {
  if (!progress->is_running || progress->was_wanted == is_wanted) return;
  progress->was_wanted = is_wanted;
  pthread_mutex_lock(&progress->lock);
  progress->is_wanted = is_wanted;
  if (is_wanted) pthread_cond_signal(&progress->changed);
  pthread_mutex_unlock(&progress->lock);
}

void cv_progress_stop(cv_progress *progress) {
  if (!progress->is_running) return;
  pthread_mutex_lock(&progress->lock);
  progress->is_stopping = true;
  pthread_cond_signal(&progress->changed);
  pthread_mutex_unlock(&progress->lock);
  pthread_join(progress->thread, NULL);
  progress->is_running = false;
  pthread_cond_destroy(&progress->changed);
  pthread_mutex_destroy(&progress->lock);
  MPI_Comm_free(&progress->own);
}
