#include "train/session_parts.h"

#include "train/signals.h"

#include <stdio.h>
#include <string.h>

/* What a worker tells the others ahead of a step. */
enum {
  FLAG_SIGNAL = 1, /* it was asked to save and end */
  FLAG_BUDGET = 2, /* its time is up */
  FLAG_DUE = 4,    /* worker 0: a checkpoint is due by the clock */
  FLAG_BUSY = 8,   /* worker 0: the last one is still being written */
  FLAG_FAILED = 16 /* worker 0: one could not be written, and the run shall stop */
};

enum { TRIES_MAX = 64 };
static const double PATIENCE_S = 600;

static bool is_first(const session *s) {
  return s->trainer->worker == 0;
}

/* ---- begin and end ---- */

/* Rank 0 alone knows what the manifest tells. */
static json_t *about(const session *s) {
  const trainer *t = s->trainer;
  json_t *options = json_object(),
         *all = json_pack("{s:s, s:s, s:i, s:i, s:I, s:I}", "version", curvd_version(), "build", curvd_build_info(),
                          "workers", t->n_workers, "curvature_ranks", t->n_ranks - t->n_workers, "steps_per_epoch",
                          (json_int_t)t->steps_per_epoch, "total_steps", (json_int_t)t->total_steps);
  for (int i = 0; i < t->config->n; i++)
    json_object_set_new(options, t->config->entry[i].name, json_string(t->config->entry[i].text));
  json_object_set_new(all, "options", options);
  return all;
}

curvd_status session_open(session *s, run *r, cv_error *err) {
  trainer *t = s->trainer;
  s->run = r;
  s->saved_s = cv_wall_s();
  s->kept_step = s->saved_step = s->skipped_step = s->checked_step = -1;
  char folder[CV_OPTION_TEXT_MAX];
  memcpy(folder, r->folder, sizeof folder);
  MPI_Bcast(folder, (int)sizeof folder, MPI_CHAR, 0, t->world);
  snprintf(s->state.own, sizeof s->state.own, "%.*s/checkpoints", (int)sizeof s->state.own - 16, folder);
  memcpy(s->state.folder, s->resume_from[0] ? s->resume_from : s->state.own, sizeof s->state.folder);
  const saver_settings settings = {.folder = s->state.own,
                                   .rank = t->rank,
                                   .n_ranks = t->n_ranks,
                                   .keep = session_values(s)->checkpoint_keep,
                                   .patience_s = PATIENCE_S,
                                   .about = t->rank == 0 ? about(s) : NULL,
                                   .faults = inject_saver(&s->inject)};
  void *hashes = NULL;
  curvd_status status =
      cv_memory_new(&t->memory, CV_MEMORY_WORKSPACE, t->n_workers, sizeof *s->hashes, "checksums", &hashes, err);
  s->hashes = hashes;
  if (status == CURVD_OK) status = trainer_state_hook(&s->state, t, err);
  if (status == CURVD_OK) status = inject_begin(&s->inject, t, err);
  if (status == CURVD_OK) status = saver_create(&settings, &s->saver, err);
  s->state.saver = s->saver;
  return trainer_agree(t->world, status, err);
}

void session_close(session *s) {
  void *hashes = s->hashes;
  cv_memory_free(&s->trainer->memory, &hashes);
  s->hashes = NULL;
  inject_end(&s->inject);
  saver_free(&s->saver);
  s->state.saver = NULL;
}

/* ---- resume ---- */

/* What differs from the options that it was saved with. */
static void tell_options(const session *s, const checkpoint *cp) {
  const json_t *options = json_object_get(checkpoint_about(cp), "options");
  static const char *const other[] = {"resume", "run_dir", "time_budget", "hang_timeout"};
  for (int i = 0; i < s->trainer->config->n; i++) {
    const config_entry *entry = &s->trainer->config->entry[i];
    const char *before = json_string_value(json_object_get(options, entry->name));
    bool is_other = entry->is_library && !entry->is_set; /* follows from others, and from the number of ranks */
    for (size_t k = 0; k < sizeof other / sizeof other[0]; k++)
      is_other = is_other || strcmp(entry->name, other[k]) == 0 || strncmp(entry->name, "checkpoint_", 11) == 0;
    if (before && !is_other && strcmp(before, entry->text) != 0)
      run_line(s->run, "note: %s is %s, and was %s when the checkpoint was saved", entry->name, entry->text, before);
  }
}

/* The first worker looks whether it is of this network, before anybody loads anything. */
static curvd_status check_first(session *s, int64_t step, cv_error *err) {
  char path[CV_OPTION_TEXT_MAX + 64];
  checkpoint *cp = NULL;
  curvd_status status = CURVD_OK;
  if (is_first(s) && checkpoint_path(s->state.folder, step, path, sizeof path))
    status = checkpoint_open(path, &cp, err);
  if (status == CURVD_OK && cp) status = trainer_state_compare(s->trainer, cp, err);
  if (status == CURVD_OK && cp) tell_options(s, cp);
  checkpoint_close(&cp);
  return trainer_agree(s->trainer->workers, status, err);
}

/* Another network's is refused; a damaged one is not the end. */
static curvd_status try_step(session *s, int64_t step, cv_error *err) {
  CV_TRY(check_first(s, step, err));
  return trainer_state_load(&s->state, step, err);
}

/* REMOTE: on a curvature rank, which has said why. */
static bool is_file_damage(curvd_status status) {
  return status == CURVD_ERR_DATA || status == CURVD_ERR_IO || status == CURVD_ERR_REMOTE;
}

/* The newest sound one in front of a step. */
curvd_status session_load_newest(session *s, int64_t before, cv_error *err) {
  int64_t step[TRIES_MAX], n = 0;
  curvd_status status = is_first(s) ? checkpoint_list(s->state.folder, TRIES_MAX, step, &n, err) : CURVD_OK;
  CV_TRY(trainer_agree(s->trainer->workers, status, err));
  MPI_Bcast(&n, 1, MPI_INT64_T, 0, s->trainer->workers);
  MPI_Bcast(step, (int)n, MPI_INT64_T, 0, s->trainer->workers);
  for (int64_t i = 0; i < n; i++) {
    if (step[i] > before || (s->resume_step >= 0 && step[i] != s->resume_step)) continue;
    *err = (cv_error){0};
    status = try_step(s, step[i], err);
    if (status == CURVD_OK) return status;
    if (!is_file_damage(status)) return status;
    run_line(s->run, "warning: the checkpoint of step %lld is not used: %s", (long long)step[i], err->text);
  }
  *err = (cv_error){0};
  return cv_fail(err, CURVD_ERR_DATA, "%s holds no sound checkpoint to go on from", s->state.folder);
}

/* Later checkpoints are damaged, or of a run that went on from here before. */
static curvd_status set_aside(session *s, cv_error *err) {
  int64_t n = 0;
  bool is_own = strcmp(s->state.folder, s->state.own) == 0;
  curvd_status status =
      is_first(s) && is_own ? checkpoint_set_aside(s->state.own, s->trainer->step, &n, err) : CURVD_OK;
  if (n > 0)
    run_line(s->run, "note: %lld checkpoint%s of later steps set aside (step-*.aside)", (long long)n, n > 1 ? "s" : "");
  return trainer_agree(s->trainer->workers, status, err);
}

/* Rank 0 has the records. A run that was over is evaluated again. */
static curvd_status trim_records(const session *s, cv_error *err) {
  const trainer *t = s->trainer;
  bool is_over = t->step > 0 && t->step >= t->total_steps;
  return trainer_agree(t->workers, run_trim(s->run, t->step, is_over, err), err);
}

curvd_status session_go_on(session *s, cv_error *err) {
  CV_TRY(set_aside(s, err));
  s->kept_step = s->trainer->step;
  return trim_records(s, err);
}

/* A run that was ended before its first checkpoint begins again in its folder, without the records that it had. */
curvd_status session_resume(session *s, cv_error *err) {
  if (strcmp(session_values(s)->resume, "no") == 0) return CURVD_OK;
  if (s->resume_from[0] == '\0') return trim_records(s, err);
  CV_TRY(session_load_newest(s, INT64_MAX, err));
  s->saved_step = strcmp(s->resume_from, s->state.own) == 0 ? s->trainer->step : -1;
  run_line(s->run, "resumed from %s, step %lld", s->state.folder, (long long)s->trainer->step);
  return session_go_on(s, err);
}

/* ---- saves ---- */

/* What the thread has done meanwhile. */
void session_take_outcomes(session *s) {
  saver_outcome o;
  while (saver_outcome_take(s->saver, &o)) {
    if (o.error.code == CURVD_OK && o.seconds > s->save_cost_s) s->save_cost_s = o.seconds;
    if (!is_first(s)) continue;
    if (o.error.code == CURVD_OK) {
      s->kept_step = o.step;
      json_t *record = run_record_new("checkpoint", o.step);
      run_record_real(record, "seconds", o.seconds);
      run_record(s->run, record);
      run_line(s->run, "checkpoint of step %lld in %s, %.1f s", (long long)o.step, s->state.own, o.seconds);
      continue;
    }
    run_line(s->run, "warning: the checkpoint of step %lld was not written: %s; those before it are as they were",
             (long long)o.step, o.error.text);
    if (session_values(s)->checkpoint_failure == TRAIN_FAILURE_STOP) s->failure = o.error;
    if (s->failure.code == CURVD_ERR_REMOTE) s->failure.code = CURVD_ERR_IO; /* only this worker knows of it */
  }
}

static curvd_status save(session *s, cv_error *err) {
  CV_TRY(session_check_replicas(s, err));
  s->saved_s = cv_wall_s();
  curvd_status status = trainer_state_save(&s->state, err);
  if (status == CURVD_OK) s->saved_step = s->trainer->step;
  s->is_late = false;
  s->n_saves++;
  if (status == CURVD_OK || status == CURVD_ERR_MPI) return status;
  run_line(s->run, "warning: no checkpoint of step %lld: %s", (long long)s->trainer->step, err->text);
  if (session_values(s)->checkpoint_failure == TRAIN_FAILURE_STOP) return status;
  *err = (cv_error){0};
  return CURVD_OK;
}

/* Whatever is being written is there, or has failed, on all ranks that rank 0 waits for. */
static curvd_status save_and_wait(session *s, cv_error *err) {
  saver_wait(s->saver);
  if (s->saved_step != s->trainer->step) CV_TRY(save(s, err));
  saver_wait(s->saver);
  session_take_outcomes(s);
  curvd_status status = s->failure.code;
  if (status != CURVD_OK) cv_fail(err, status, "%s", s->failure.text);
  return trainer_agree(s->trainer->workers, status, err);
}

void session_raise(session *s, double step_s) {
  const train_config *v = session_values(s);
  double now = cv_wall_s(), left = s->begin_s + v->time_budget - now;
  uint32_t flags = 0;
  session_take_outcomes(s);
  inject_before_step(&s->inject, s->trainer, s->state.own);
  if (signals_asked() != 0) flags |= FLAG_SIGNAL;
  if (v->time_budget > 0 && left < 2 * step_s + 2 * s->save_cost_s + 1) flags |= FLAG_BUDGET;
  if (is_first(s)) {
    if (v->checkpoint_minutes > 0 && now - s->saved_s >= 60 * v->checkpoint_minutes) flags |= FLAG_DUE;
    if (saver_is_busy(s->saver)) flags |= FLAG_BUSY;
    if (s->failure.code != CURVD_OK) flags |= FLAG_FAILED;
  }
  curvd_raise(s->trainer->ctx, flags);
}

curvd_status session_after_step(session *s, cv_error *err) {
  const trainer *t = s->trainer;
  const train_config *v = session_values(s);
  uint32_t flags = curvd_flags(t->ctx);
  s->bad_steps = 0;
  if (v->check_steps > 0 && t->step % v->check_steps == 0) CV_TRY(session_check_replicas(s, err));
  if (flags & FLAG_FAILED) {
    bool knows = s->failure.code != CURVD_OK;
    return cv_fail(err, knows ? s->failure.code : CURVD_ERR_REMOTE, "%s", knows ? s->failure.text : "worker 0 stops");
  }
  if (flags & (FLAG_SIGNAL | FLAG_BUDGET)) s->stop = flags & FLAG_SIGNAL ? SESSION_SIGNAL : SESSION_TIME_BUDGET;
  if (s->stop != SESSION_GOES_ON) return save_and_wait(s, err);
  bool is_due = s->is_late || flags & FLAG_DUE || (v->checkpoint_steps > 0 && t->step % v->checkpoint_steps == 0);
  if (is_due && flags & FLAG_BUSY) s->is_late = true;
  return is_due && !(flags & FLAG_BUSY) && s->saved_step != t->step ? save(s, err) : CURVD_OK;
}

curvd_status session_finish(session *s, cv_error *err) {
  return s->n_saves > 0 || session_values(s)->checkpoint_steps > 0 ? save_and_wait(s, err) : CURVD_OK;
}
