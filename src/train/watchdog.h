/* The watchdog: a thread that ends this rank when it stands still.
 *
 * A rank gets on while the flight recorder of the service (curvd_heartbeat) or the program's own advances. When neither
 * has for the time-out, the thread writes both into RUN_FOLDER/hang-rank-N.txt and one line to stderr, waits 2 s so
 * that ranks which hang on the same thing can do so, too, and ends the process with EXIT_CODE_HANG. mpirun then ends
 * the others. A curvature rank that waits for its next command is not what holds the others up: it never ends a job.
 *
 * Told to end (signals.h), a rank that has stood still or been idle for half the time-out writes what it has and goes
 * on: mpirun tells the ranks that are left before it kills them. Time in which the process itself is stopped counts as
 * at most a second. */
#ifndef TRAIN_WATCHDOG_H
#define TRAIN_WATCHDOG_H

#include "base/trace.h"
#include "curvd.h"
#include "train/config.h"

#include <pthread.h>
#include <stdbool.h>

typedef struct watchdog {
  cv_trace trace; /* what the program does; written by the rank's own thread, like that of the service */
  uint64_t phase; /* of watchdog_note */
  /* under lock */
  pthread_mutex_t lock;
  pthread_cond_t changed;
  bool is_stopping;
  const curvd_ctx *ctx;
  char role[48], folder[CV_OPTION_TEXT_MAX];
  /* the thread's own */
  pthread_t thread;
  bool is_running, has_told;
  int rank;
  double timeout_s, looked_s, still_s;
  uint64_t beats;
} watchdog;

/* timeout_s 0: only records. MEMORY: no thread. */
curvd_status watchdog_start(watchdog *w, int rank, double timeout_s, cv_error *err);
void watchdog_stop(watchdog *w);

/* The program comes to another phase, which lasts until the next one; stages are nested in it. layer: NULL, or a name
 * that lives as long as the watchdog. */
void watchdog_note(watchdog *w, const char *what, const char *layer);

/* The service to look after: after curvd_plan, and NULL before curvd_destroy. */
void watchdog_look_after(watchdog *w, const curvd_ctx *ctx);

/* Where the report goes; without (or where it cannot be written) there is only the line on stderr. */
void watchdog_folder(watchdog *w, const char *folder);

#endif
