#include "save/saver.h"

#include "base/clock.h"
#include "save/folder.h"
#include "save/gather.h"
#include "save/shard.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FOLDER_PATH_MAX = 4000 };

/* Who may touch a shard: its owner's calls while it is filled, the thread while it is written. */
typedef enum phase { PHASE_IDLE, PHASE_FILLED, PHASE_WRITTEN } phase;

struct saver {
  char folder[FOLDER_PATH_MAX];
  saver_settings set; /* folder: the one above */
  pthread_t thread;
  pthread_mutex_t mutex;
  pthread_cond_t changed;
  phase phase;
  bool is_ending, has_outcome;
  saver_outcome outcome;

  shard shard;
  shard_origin origin;
  cv_error failed; /* of an add, or why it was cancelled */
  double commit_s;
  manifest_shard *listed; /* n_ranks, used by rank 0 */
  bool *is_there;         /* the same */
  int64_t failed_step;    /* rank 0: may have left a folder, filled by a rank that came late; -1: none */
};

/* ---- the thread ---- */

static void remove_unfinished(int parent, int64_t step) {
  char name[FOLDER_NAME_MAX];
  folder_name(step, ".tmp", name);
  folder_remove(parent, name);
}

/* Newer ones, left from before a rollback, are not counted: training comes by and replaces them. */
static void remove_older(const saver *s, int parent) {
  int64_t *step = NULL, n = 0, n_kept = 1;
  if (folder_steps(parent, true, &step, &n, NULL) != CURVD_OK) return;
  for (int64_t i = 0; i < n; i++)
    if (step[i] < s->origin.step && n_kept++ >= s->set.keep) folder_trash(parent, step[i]);
  free(step);
}

static gather gather_of(const saver *s, int parent, int tmp, const char *tmp_name) {
  return (gather){.path = s->folder,
                  .parent = parent,
                  .tmp = tmp,
                  .tmp_name = tmp_name,
                  .origin = &s->origin,
                  .patience_s = s->set.patience_s,
                  .about = s->set.about,
                  .shard = s->listed,
                  .is_there = s->is_there,
                  .watch = {&s->set.faults, s->origin.step}};
}

/* This rank's shard, and on rank 0 the checkpoint. */
static curvd_status write_into(saver *s, int parent, int tmp, const char *tmp_name, int64_t *bytes, cv_error *err) {
  file_watch watch = {&s->set.faults, s->origin.step};
  curvd_status status = s->failed.code;
  if (status == CURVD_OK) status = shard_write(&s->shard, &s->origin, tmp, tmp_name, watch, bytes, err);
  if (status != CURVD_OK) cv_fail(err, status, "%s", s->failed.text);
  if (s->origin.rank != 0) {
    if (status != CURVD_OK) gather_tell(tmp, tmp_name, &s->origin, err->text);
    return status;
  }
  gather all = gather_of(s, parent, tmp, tmp_name);
  if (status == CURVD_OK) status = gather_publish(&all, err);
  if (status != CURVD_OK) gather_settle(&all);
  return status;
}

static curvd_status open_unfinished(const saver *s, int parent, char name[FOLDER_NAME_MAX], int *tmp, cv_error *err) {
  folder_name(s->origin.step, ".tmp", name);
  bool is_made = mkdirat(parent, name, 0777) == 0 || errno == EEXIST;
  *tmp = is_made ? openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC) : -1;
  if (*tmp >= 0) return CURVD_OK;
  return cv_fail(err, CURVD_ERR_IO, "folder %.200s/%s cannot be made: %s", s->folder, name, strerror(errno));
}

static curvd_status save(saver *s, int parent, int64_t *bytes, cv_error *err) {
  char tmp_name[FOLDER_NAME_MAX];
  int tmp = -1;
  if (s->failed_step >= 0 && s->failed_step != s->origin.step) remove_unfinished(parent, s->failed_step);
  s->failed_step = -1;
  curvd_status status = open_unfinished(s, parent, tmp_name, &tmp, err);
  if (status == CURVD_OK) status = write_into(s, parent, tmp, tmp_name, bytes, err);
  if (tmp >= 0) close(tmp);
  if (s->origin.rank != 0) return status;
  remove_unfinished(parent, s->origin.step); /* of a failed save; or the checkpoint that the new one replaces */
  if (status == CURVD_OK) remove_older(s, parent);
  if (status != CURVD_OK) s->failed_step = s->origin.step;
  return status;
}

static saver_outcome run_save(saver *s) {
  saver_outcome outcome = {.step = s->origin.step};
  int parent = -1;
  cv_error_clear(&outcome.error);
  if (folder_open(s->folder, &parent, &outcome.error) == CURVD_OK) {
    save(s, parent, &outcome.bytes, &outcome.error);
    close(parent);
  }
  outcome.seconds = cv_wall_s() - s->commit_s;
  return outcome;
}

static void *work(void *user) {
  saver *s = user;
  pthread_mutex_lock(&s->mutex);
  for (;;) {
    while (s->phase != PHASE_WRITTEN && !s->is_ending) pthread_cond_wait(&s->changed, &s->mutex);
    if (s->phase != PHASE_WRITTEN) break;
    pthread_mutex_unlock(&s->mutex);
    saver_outcome outcome = run_save(s);
    pthread_mutex_lock(&s->mutex);
    s->outcome = outcome;
    s->has_outcome = true;
    s->phase = PHASE_IDLE;
    pthread_cond_broadcast(&s->changed);
  }
  pthread_mutex_unlock(&s->mutex);
  return NULL;
}

/* ---- begin and end ---- */

/* Signals stay with the threads that the program meant to get them. */
static int start_thread(saver *s) {
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  int why = pthread_create(&s->thread, NULL, work, s);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  return why;
}

/* Rank 0 makes the folder, and clears it of what unfinished saves have left. */
static curvd_status prepare_folder(const saver *s, cv_error *err) {
  int parent = -1;
  if (s->set.rank != 0) return CURVD_OK;
  if (mkdir(s->folder, 0777) != 0 && errno != EEXIST)
    return cv_fail(err, CURVD_ERR_IO, "folder %.300s cannot be made: %s", s->folder, strerror(errno));
  CV_TRY(folder_open(s->folder, &parent, err));
  folder_tidy(parent);
  close(parent);
  return CURVD_OK;
}

static curvd_status make_lists(saver *s, cv_error *err) {
  if (s->set.about == NULL) s->set.about = json_object();
  s->listed = calloc((size_t)s->set.n_ranks, sizeof *s->listed);
  s->is_there = calloc((size_t)s->set.n_ranks, sizeof *s->is_there);
  if (s->set.about != NULL && s->listed != NULL && s->is_there != NULL) return CURVD_OK;
  return cv_fail(err, CURVD_ERR_MEMORY, "no memory for a saver of %d ranks", s->set.n_ranks);
}

static void release(saver *s) {
  pthread_cond_destroy(&s->changed);
  pthread_mutex_destroy(&s->mutex);
  shard_free(&s->shard);
  json_decref(s->set.about);
  free(s->listed);
  free(s->is_there);
  free(s);
}

static curvd_status check_settings(const saver_settings *set, cv_error *err) {
  if (strlen(set->folder) >= FOLDER_PATH_MAX)
    return cv_fail(err, CURVD_ERR_ARGUMENT, "the path of the folder of checkpoints is longer than %d bytes",
                   FOLDER_PATH_MAX - 1);
  if (set->n_ranks < 1 || set->n_ranks > MANIFEST_SHARDS_MAX || set->rank < 0 || set->rank >= set->n_ranks ||
      set->keep < 1)
    return cv_fail(err, CURVD_ERR_ARGUMENT, "rank %d of %d, and %lld checkpoints that stay: impossible", set->rank,
                   set->n_ranks, (long long)set->keep);
  return CURVD_OK;
}

curvd_status saver_create(const saver_settings *settings, saver **made, cv_error *err) {
  curvd_status status = check_settings(settings, err);
  saver *s = status == CURVD_OK ? calloc(1, sizeof *s) : NULL;
  if (s == NULL) {
    json_decref(settings->about);
    return status != CURVD_OK ? status : cv_fail(err, CURVD_ERR_MEMORY, "no memory for a saver");
  }
  s->set = *settings;
  snprintf(s->folder, sizeof s->folder, "%s", settings->folder);
  s->set.folder = s->folder;
  s->origin = (shard_origin){.rank = settings->rank, .n_ranks = settings->n_ranks};
  s->failed_step = -1;
  pthread_mutex_init(&s->mutex, NULL);
  pthread_cond_init(&s->changed, NULL);
  status = make_lists(s, err);
  if (status == CURVD_OK) status = prepare_folder(s, err);
  int why = status == CURVD_OK ? start_thread(s) : 0;
  if (why != 0) status = cv_fail(err, CURVD_ERR_MEMORY, "no thread for a saver: %s", strerror(why));
  if (status == CURVD_OK) *made = s;
  if (status != CURVD_OK) release(s);
  return status;
}

void saver_free(saver **s) {
  if (s == NULL || *s == NULL) return;
  saver_wait(*s);
  pthread_mutex_lock(&(*s)->mutex);
  (*s)->is_ending = true;
  pthread_cond_broadcast(&(*s)->changed);
  pthread_mutex_unlock(&(*s)->mutex);
  pthread_join((*s)->thread, NULL);
  release(*s);
  *s = NULL;
}

/* ---- a shard ---- */

curvd_status saver_begin(saver *s, int64_t step, cv_error *err) {
  saver_wait(s);
  s->origin.save++;
  s->origin.step = step;
  shard_clear(&s->shard);
  cv_error_clear(&s->failed);
  if (step < 0) return cv_fail(err, CURVD_ERR_ARGUMENT, "step %lld cannot be saved", (long long)step);
  pthread_mutex_lock(&s->mutex);
  s->phase = PHASE_FILLED;
  pthread_mutex_unlock(&s->mutex);
  return CURVD_OK;
}

curvd_status saver_add(saver *s, const curvd_array *array, cv_error *err) {
  if (s->phase != PHASE_FILLED) return cv_fail(err, CURVD_ERR_STATE, "saver_add before saver_begin");
  curvd_status status = shard_add(&s->shard, array, &s->failed);
  return status == CURVD_OK ? CURVD_OK : cv_fail(err, status, "%s", s->failed.text);
}

static void hand_over(saver *s) {
  pthread_mutex_lock(&s->mutex);
  s->commit_s = cv_wall_s();
  s->phase = PHASE_WRITTEN;
  pthread_cond_broadcast(&s->changed);
  pthread_mutex_unlock(&s->mutex);
}

void saver_commit(saver *s) {
  if (s->phase == PHASE_FILLED) hand_over(s);
}

void saver_cancel(saver *s, const char *why) {
  if (s->phase != PHASE_FILLED) return;
  cv_fail(&s->failed, CURVD_ERR_STATE, "step %lld was not saved: %.400s", (long long)s->origin.step, why);
  hand_over(s);
}

/* ---- how it goes ---- */

bool saver_is_busy(saver *s) {
  pthread_mutex_lock(&s->mutex);
  bool is_busy = s->phase == PHASE_WRITTEN;
  pthread_mutex_unlock(&s->mutex);
  return is_busy;
}

void saver_wait(saver *s) {
  pthread_mutex_lock(&s->mutex);
  while (s->phase == PHASE_WRITTEN) pthread_cond_wait(&s->changed, &s->mutex);
  pthread_mutex_unlock(&s->mutex);
}

bool saver_outcome_take(saver *s, saver_outcome *outcome) {
  pthread_mutex_lock(&s->mutex);
  bool is_new = s->has_outcome;
  if (is_new) *outcome = s->outcome;
  s->has_outcome = false;
  pthread_mutex_unlock(&s->mutex);
  return is_new;
}
