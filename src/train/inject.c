#include "train/inject.h"

#include "base/number.h"
#include "base/options.h"
#include "save/checkpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static const char *const names[INJECT_KINDS] = {"kill",     "hang",           "delay",    "nan",    "weight",
                                                "shard",    "disk",           "sync",     "solver", "factor",
                                                "transfer", "preconditioner", "statistic"};

/* ---- words ---- */

static const double SECONDS_MAX = 1e9; /* 32 years: fits every time_t */

static curvd_status refuse(const char *word, cv_error *err) {
  return cv_fail(err, CURVD_ERR_OPTION,
                 "inject: '%.60s' is no fault: KIND@STEP, and behind it :rank=R, :layer=NAME, :factor=A, :bit=N or "
                 ":seconds=S; kinds are kill, hang, delay, nan, weight, factor, preconditioner, transfer, statistic, "
                 "solver, disk, sync, shard",
                 word);
}

static bool read_count(const char *text, int64_t *x) {
  return cv_integer_parse(text, x) && *x >= 0;
}

static bool read_seconds(const char *text, double *x) {
  return cv_real_parse(text, x) && *x >= 0 && *x <= SECONDS_MAX;
}

static bool read_detail(char *word, inject_fault *fault) {
  char *value = strchr(word, '=');
  int64_t x = 0;
  if (!value) return false;
  *value++ = '\0';
  if (strcmp(word, "rank") == 0 && read_count(value, &x) && x < 1 << 30) return fault->rank = (int)x, true;
  if (strcmp(word, "bit") == 0) return read_count(value, &fault->bit);
  if (strcmp(word, "factor") == 0 && (strcmp(value, "A") == 0 || strcmp(value, "G") == 0))
    return fault->factor = *value == 'G', true;
  if (strcmp(word, "seconds") == 0) return read_seconds(value, &fault->seconds);
  if (strcmp(word, "layer") != 0 || strlen(value) >= sizeof fault->layer) return false;
  snprintf(fault->layer, sizeof fault->layer, "%s", value);
  return true;
}

static bool read_fault(char *word, inject_fault *fault) {
  char *rest = NULL, *first = strtok_r(word, ":", &rest), *at = first ? strchr(first, '@') : NULL;
  *fault = (inject_fault){.seconds = 1, .kind = INJECT_KINDS};
  if (!at) return false;
  *at = '\0';
  for (int k = 0; k < INJECT_KINDS; k++) {
    if (strcmp(first, names[k]) == 0) fault->kind = (inject_kind)k;
  }
  if (fault->kind == INJECT_KINDS || !read_count(at + 1, &fault->step)) return false;
  for (char *detail; (detail = strtok_r(NULL, ":", &rest));) {
    if (!read_detail(detail, fault)) return false;
  }
  return true;
}

curvd_status inject_parse(const char *text, inject *list, cv_error *err) {
  char words[CV_OPTION_TEXT_MAX], *rest = NULL;
  list->n = 0;
  if (snprintf(words, sizeof words, "%s", text) >= (int)sizeof words)
    return cv_fail(err, CURVD_ERR_OPTION, "inject: %zu bytes are more than %d", strlen(text), CV_OPTION_TEXT_MAX - 1);
  for (char *word = strtok_r(words, ", ", &rest); word; word = strtok_r(NULL, ", ", &rest)) {
    char whole[CV_OPTION_TEXT_MAX];
    snprintf(whole, sizeof whole, "%s", word);
    if (list->n == INJECT_MAX) return cv_fail(err, CURVD_ERR_OPTION, "inject: more than %d faults", (int)INJECT_MAX);
    if (!read_fault(word, &list->fault[list->n])) return refuse(whole, err);
    list->n++;
  }
  return CURVD_OK;
}

/* ---- a rank that is ended, or held up ---- */

static _Atomic double held_s;

static void sleep_for(double seconds) {
  struct timespec left = {(time_t)seconds, (long)((seconds - floor(seconds)) * 1e9)};
  while (nanosleep(&left, &left) != 0 && errno == EINTR) continue;
}

/* Runs on the rank's own thread, wherever that is. */
static void hold(int signal_number) {
  (void)signal_number;
  double seconds = held_s;
  do sleep_for(seconds >= 0 ? seconds : 1);
  while (seconds < 0);
}

static void strike(const inject_fault *fault, pthread_t rank) {
  if (fault->kind == INJECT_KILL) raise(SIGKILL);
  held_s = fault->kind == INJECT_HANG ? -1 : fault->seconds;
  pthread_kill(rank, SIGUSR2);
}

static bool is_due(const inject *list, inject_fault *fault, int64_t step) {
  return !fault->is_done && fault->rank == list->trainer->rank && step >= fault->step;
}

static bool is_strike(const inject_fault *fault) {
  return fault->kind == INJECT_KILL || fault->kind == INJECT_HANG || fault->kind == INJECT_DELAY;
}

/* A curvature rank is inside curvd_serve: what it does is known from its recorder. */
static void *watch(void *arg) {
  inject *list = arg;
  curvd_operation last;
  while (!list->is_stopping) {
    for (int i = 0; i < list->n && curvd_trace_read(list->trainer->ctx, &last, 1) == 1; i++) {
      inject_fault *fault = &list->fault[i];
      if (!is_strike(fault) || !is_due(list, fault, last.step)) continue;
      fault->is_done = true;
      strike(fault, list->rank);
    }
    sleep_for(1e-3);
  }
  return NULL;
}

/* ---- life ---- */

static curvd_status find_layer(const trainer *t, const char *name, int *layer, cv_error *err) {
  for (int i = 0; i < t->model.spec.n_layers; i++) {
    const nn_layer_spec *spec = &t->model.spec.layer[i];
    if (nn_weight_rows(spec) == 0 || (name[0] != '\0' && strcmp(spec->name, name) != 0)) continue;
    *layer = i;
    return CURVD_OK;
  }
  return cv_fail(err, CURVD_ERR_OPTION, "inject: the network has no layer %s", name);
}

static curvd_status order(inject_fault *fault, trainer *t, cv_error *err) {
  static const curvd_fault_kind of[INJECT_KINDS] = {[INJECT_SOLVER] = CURVD_FAULT_SOLVER,
                                                    [INJECT_FACTOR] = CURVD_FAULT_FACTOR,
                                                    [INJECT_TRANSFER] = CURVD_FAULT_TRANSFER,
                                                    [INJECT_PRECONDITIONER] = CURVD_FAULT_PRECONDITIONER,
                                                    [INJECT_STATISTIC] = CURVD_FAULT_STATISTIC};
  int32_t layer = 0;
  for (int32_t i = 0; i < curvd_layer_count(t->ctx) && fault->layer[0] != '\0'; i++) {
    curvd_layer_metrics metrics;
    if (curvd_layer_metrics_read(t->ctx, i, &metrics) == CURVD_OK && strcmp(metrics.name, fault->layer) == 0) layer = i;
  }
  const curvd_fault ordered = {of[fault->kind], fault->step, layer, fault->factor, fault->bit};
  fault->is_done = true;
  if (curvd_inject(t->ctx, &ordered) == CURVD_OK) return CURVD_OK;
  return cv_fail(err, CURVD_ERR_OPTION, "inject: %s", curvd_last_error(t->ctx));
}

curvd_status inject_begin(inject *list, trainer *t, cv_error *err) {
  bool strikes = false;
  list->trainer = t;
  list->rank = pthread_self();
  list->is_stopping = false;
  for (int i = 0; i < list->n; i++) {
    inject_fault *fault = &list->fault[i];
    if (fault->rank != t->rank) continue;
    strikes = strikes || is_strike(fault);
    if (fault->kind >= INJECT_SOLVER) CV_TRY(order(fault, t, err));
  }
  if (!strikes) return CURVD_OK;
  sigaction(SIGUSR2, &(struct sigaction){.sa_handler = hold, .sa_flags = SA_RESTART}, NULL);
  if (trainer_is_worker(t)) return CURVD_OK;
  int code = pthread_create(&list->thread, NULL, watch, list);
  list->has_thread = code == 0;
  return code == 0 ? CURVD_OK : cv_fail(err, CURVD_ERR_MEMORY, "no thread for injected faults: %s", strerror(code));
}

void inject_end(inject *list) {
  if (!list->has_thread) return;
  list->is_stopping = true;
  pthread_join(list->thread, NULL);
  list->has_thread = false;
}

/* ---- steps ---- */

static void flip_weight(trainer *t, const inject_fault *fault) {
  cv_error ignored = {0};
  int i = 0;
  if (find_layer(t, fault->layer, &i, &ignored) != CURVD_OK) return;
  unsigned char *x = (unsigned char *)t->model.layer[i].weight;
  int64_t bit = fault->bit % (32 * t->model.layer[i].d_in); /* of the first row: behind it may be padding */
  x[bit / 8] ^= (unsigned char)(1u << bit % 8);
}

/* Of this rank, in the newest checkpoint that is there. */
static void flip_shard(const trainer *t, const inject_fault *fault, const char *folder) {
  int64_t step, n = 0;
  char path[CV_OPTION_TEXT_MAX], file[CV_OPTION_TEXT_MAX + 64];
  unsigned char byte;
  struct stat about;
  cv_error ignored = {0};
  if (checkpoint_list(folder, 1, &step, &n, &ignored) != CURVD_OK || n == 0) return;
  if (!checkpoint_path(folder, step, path, sizeof path)) return;
  snprintf(file, sizeof file, "%s/shard-%05d.safetensors", path, t->rank);
  int fd = open(file, O_RDWR);
  if (fd < 0) return;
  if (fstat(fd, &about) == 0 && about.st_size > 0) {
    off_t bit = (off_t)fault->bit % (8 * about.st_size);
    if (pread(fd, &byte, 1, bit / 8) == 1) {
      byte ^= (unsigned char)(1u << bit % 8);
      if (pwrite(fd, &byte, 1, bit / 8) != 1) fprintf(stderr, "curvd: %s cannot be written\n", file);
    }
  }
  close(fd);
}

static void poison(trainer *t, const inject_fault *fault) {
  cv_error ignored = {0};
  int i = 0;
  if (find_layer(t, fault->layer, &i, &ignored) == CURVD_OK) t->poisoned = &t->model.layer[i];
}

void inject_before_step(inject *list, trainer *t, const char *folder) {
  for (int i = 0; i < list->n; i++) {
    inject_fault *fault = &list->fault[i];
    if (!is_due(list, fault, t->step) || fault->kind == INJECT_DISK || fault->kind == INJECT_SYNC) continue;
    fault->is_done = true;
    if (is_strike(fault)) strike(fault, list->rank);
    if (fault->kind == INJECT_NAN) poison(t, fault);
    if (fault->kind == INJECT_WEIGHT) flip_weight(t, fault);
    if (fault->kind == INJECT_SHARD) flip_shard(t, fault, folder);
  }
}

/* ---- files ---- */

static int answer(const inject *list, inject_kind kind, int64_t step, int code) {
  for (int i = 0; i < list->n; i++) {
    const inject_fault *fault = &list->fault[i];
    if (fault->kind == kind && fault->rank == list->trainer->rank && step >= fault->step) return code;
  }
  return 0;
}

static int on_write(void *user, int64_t step) {
  return answer(user, INJECT_DISK, step, ENOSPC);
}

static int on_sync(void *user, int64_t step) {
  return answer(user, INJECT_SYNC, step, EIO);
}

saver_faults inject_saver(inject *list) {
  return (saver_faults){on_write, on_sync, list};
}
