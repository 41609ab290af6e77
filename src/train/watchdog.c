#include "train/watchdog.h"

#include "base/clock.h"
#include "curvd_experimental.h"
#include "train/commands.h"
#include "train/signals.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { LOOK_NS = 100000000, OTHERS_S = 2, LEVELS_MAX = 2 * CV_TRACE_DEPTH };

/* ---- what is known ---- */

typedef struct record {
  curvd_operation operation[CURVD_OPERATIONS];
  int n;
} record;

typedef struct report {
  record service, program;
  char host[256], sentence[1024];
  double now_s;
} report;

static void read_program(const watchdog *w, record *r) {
  cv_operation own[CV_TRACE_ROOM];
  r->n = cv_trace_read(&w->trace, own, CV_TRACE_ROOM);
  for (int i = 0; i < r->n; i++) {
    const cv_operation *o = &own[i];
    r->operation[i] = (curvd_operation){.number = o->number,
                                        .what = o->what,
                                        .layer = o->layer,
                                        .kind = (curvd_operation_kind)o->kind,
                                        .peer = o->peer,
                                        .bytes = o->bytes,
                                        .step = o->step,
                                        .begin_s = o->begin_s,
                                        .end_s = o->end_s};
  }
}

static bool is_open(const curvd_operation *o) {
  return o->end_s == 0 && o->kind != CURVD_OPERATION_TRANSFER;
}

/* From the outermost to the innermost. */
static int open_ones(const record *r, const curvd_operation *list[LEVELS_MAX]) {
  int n = 0;
  for (int i = 0; i < r->n && n < LEVELS_MAX; i++) {
    if (is_open(&r->operation[i])) list[n++] = &r->operation[i];
  }
  return n;
}

__attribute__((format(printf, 3, 4))) static void append(char *text, size_t size, const char *format, ...) {
  size_t length = strlen(text);
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text + length, size - length, format, arguments);
  va_end(arguments);
}

/* "reduce statistics: receive statistics" (layer fc2, operation 1234, peer rank 4). What the service is in is inside
 * of what the program is in. */
static void place_text(const report *r, char *text, size_t size) {
  const curvd_operation *open[LEVELS_MAX], *last;
  char peer[24];
  int n = open_ones(&r->service, open);
  if (n == 0) n = open_ones(&r->program, open);
  if (n == 0) {
    append(text, size, " outside of all recorded phases");
    return;
  }
  last = open[n - 1];
  append(text, size, " in \"");
  for (int i = 0; i < n; i++) append(text, size, "%s%s", i > 0 ? ": " : "", open[i]->what);
  append(text, size, "\" (");
  if (last->layer) append(text, size, "layer %s, ", last->layer);
  append(text, size, "operation %llu", (unsigned long long)last->number);
  if (last->peer != CURVD_PEER_NONE) append(text, size, ", peer %s", cv_trace_peer_text(last->peer, peer));
  append(text, size, ")");
}

static void make_report(const watchdog *w, report *r) {
  r->now_s = cv_wall_s();
  r->service.n = curvd_trace_read(w->ctx, r->service.operation, CURVD_OPERATIONS);
  read_program(w, &r->program);
  if (gethostname(r->host, sizeof r->host) != 0) r->host[0] = '\0';
  r->host[sizeof r->host - 1] = '\0';
  snprintf(r->sentence, sizeof r->sentence, "rank %d on %s %s since %.3g s", w->rank, r->host,
           curvd_is_idle(w->ctx) ? "is idle" : "stands still", w->still_s);
  place_text(r, r->sentence, sizeof r->sentence);
}

/* ---- where it is told ---- */

static void write_operation(FILE *file, const curvd_operation *o, double now_s) {
  char took[32] = "-", peer[24];
  if (o->end_s > 0) snprintf(took, sizeof took, "%.6f", o->end_s - o->begin_s);
  fprintf(file, "%10llu %12.3f %12s %8lld %12lld  %s%s%s", (unsigned long long)o->number, now_s - o->begin_s, took,
          (long long)o->step, (long long)o->bytes, o->kind == CURVD_OPERATION_TRANSFER ? "(behind) " : "", o->what,
          o->layer ? ", layer " : "");
  fprintf(file, "%s%s%s\n", o->layer ? o->layer : "", o->peer != CURVD_PEER_NONE ? ", peer " : "",
          cv_trace_peer_text(o->peer, peer));
}

static void write_record(FILE *file, const char *whose, const record *r, double now_s) {
  fprintf(file, "\n%s, oldest first; what has not ended took -\n%10s %12s %12s %8s %12s  what\n", whose, "number",
          "seconds ago", "took s", "step", "bytes");
  for (int i = 0; i < r->n; i++) write_operation(file, &r->operation[i], now_s);
}

static long long step_of(const report *r) {
  const record *told = r->service.n > 0 ? &r->service : &r->program;
  return told->n > 0 ? (long long)told->operation[told->n - 1].step : 0;
}

static bool write_file(const watchdog *w, const report *r, const char *path) {
  FILE *file = fopen(path, "w");
  if (!file) return false;
  fprintf(file, "%s\n\nhost %s, process %ld, rank %d%s%s, step %lld\n", r->sentence, r->host, (long)getpid(), w->rank,
          w->role[0] ? ", " : "", w->role, step_of(r));
  write_record(file, "The service's last operations", &r->service, r->now_s);
  write_record(file, "The program's last phases", &r->program, r->now_s);
  bool is_written = !ferror(file);
  return fclose(file) == 0 && is_written;
}

/* The process may end without flushing. */
static void tell(const watchdog *w) {
  static report r;
  char path[CV_OPTION_TEXT_MAX + 32];
  make_report(w, &r);
  snprintf(path, sizeof path, "%s/hang-rank-%d.txt", w->folder, w->rank);
  if (w->folder[0] == '\0') {
    fprintf(stderr, "curvd: %s\n", r.sentence);
  } else if (write_file(w, &r, path)) {
    fprintf(stderr, "curvd: %s: see %s\n", r.sentence, path);
  } else {
    fprintf(stderr, "curvd: %s; %s cannot be written: %s\n", r.sentence, path, strerror(errno));
  }
  fflush(stderr);
}

/* ---- the thread ---- */

static void measure_stillness(watchdog *w) {
  double now_s = cv_wall_s(), passed_s = now_s - w->looked_s;
  uint64_t beats = cv_trace_beats(&w->trace) + curvd_heartbeat(w->ctx);
  w->looked_s = now_s;
  w->still_s += passed_s < 1 ? passed_s : 1;
  if (beats == w->beats) return;
  w->beats = beats;
  w->still_s = 0;
  w->has_told = false;
}

static void look(watchdog *w) {
  measure_stillness(w);
  if (w->still_s >= w->timeout_s && !curvd_is_idle(w->ctx)) {
    tell(w);
    sleep(OTHERS_S);
    _exit(EXIT_CODE_HANG);
  }
  if (signals_asked() != SIGTERM || w->has_told || w->still_s < w->timeout_s / 2) return;
  w->has_told = true;
  tell(w);
}

static void *run(void *arg) {
  watchdog *w = arg;
  pthread_mutex_lock(&w->lock);
  while (!w->is_stopping) {
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += LOOK_NS;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    pthread_cond_timedwait(&w->changed, &w->lock, &until);
    if (!w->is_stopping) look(w);
  }
  pthread_mutex_unlock(&w->lock);
  return NULL;
}

/* Signals are for the program's own threads. */
static int create_without_signals(watchdog *w) {
  sigset_t all, before;
  sigfillset(&all);
  int code = pthread_sigmask(SIG_SETMASK, &all, &before);
  if (code != 0) return code;
  code = pthread_create(&w->thread, NULL, run, w);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  return code;
}

curvd_status watchdog_start(watchdog *w, int rank, double timeout_s, cv_error *err) {
  pthread_condattr_t attributes;
  memset(w, 0, sizeof *w);
  w->rank = rank;
  w->timeout_s = timeout_s;
  w->looked_s = cv_wall_s();
  pthread_mutex_init(&w->lock, NULL);
  pthread_condattr_init(&attributes);
  pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
  pthread_cond_init(&w->changed, &attributes);
  pthread_condattr_destroy(&attributes);
  if (timeout_s == 0) return CURVD_OK;
  int code = create_without_signals(w);
  w->is_running = code == 0;
  if (w->is_running) return CURVD_OK;
  return cv_fail(err, CURVD_ERR_MEMORY, "no thread for the watchdog (%s): hang_timeout 0 does without", strerror(code));
}

void watchdog_stop(watchdog *w) {
  if (!w->is_running) return;
  pthread_mutex_lock(&w->lock);
  w->is_stopping = true;
  pthread_cond_signal(&w->changed);
  pthread_mutex_unlock(&w->lock);
  pthread_join(w->thread, NULL);
  w->is_running = false;
}

void watchdog_note(watchdog *w, const char *what, const char *layer) {
  cv_trace_end(&w->trace, w->phase);
  w->phase = cv_trace_begin(&w->trace, CV_TRACE_PHASE, what, layer, CV_PEER_NONE, 0);
}

void watchdog_look_after(watchdog *w, const curvd_ctx *ctx) {
  pthread_mutex_lock(&w->lock);
  w->ctx = ctx;
  if (ctx && curvd_role_get(ctx) == CURVD_ROLE_CURVATURE) {
    snprintf(w->role, sizeof w->role, "a curvature rank");
  } else if (ctx) {
    snprintf(w->role, sizeof w->role, "worker %d of %d", curvd_worker_index(ctx), curvd_worker_count(ctx));
  }
  w->still_s = 0;
  pthread_mutex_unlock(&w->lock);
}

void watchdog_folder(watchdog *w, const char *folder) {
  pthread_mutex_lock(&w->lock);
  snprintf(w->folder, sizeof w->folder, "%s", folder);
  pthread_mutex_unlock(&w->lock);
}
