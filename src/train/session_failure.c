/* A step has failed: numbers that are not finite (option nan), or that have changed (option damage). */
#include "train/session_parts.h"

enum { SKIPS_MAX = 10, RETURNS_MAX = 10 };

static curvd_status skip(session *s, cv_error *err) {
  trainer *t = s->trainer;
  if (++s->bad_steps > SKIPS_MAX)
    return cv_fail(err, CURVD_ERR_NUMERIC, "%d steps one behind the other were not finite: lower lr (%g now)",
                   (int)SKIPS_MAX, t->lr);
  trainer_leave_out(t);
  return CURVD_OK;
}

/* To the newest checkpoint that is sound. */
static curvd_status go_back(session *s, const cv_error *why, cv_error *err) {
  trainer *t = s->trainer;
  int64_t bad = t->step;
  saver_wait(s->saver);
  session_take_outcomes(s);
  s->resume_step = -1;
  if (++s->n_returns > RETURNS_MAX)
    return cv_fail(err, why->code, "went back %d times, and again: %s", (int)RETURNS_MAX, why->text);
  CV_TRY(session_load_newest(s, bad, err));
  s->saved_step = t->step;
  s->checked_step = -1;
  run_line(s->run, "warning: back from step %lld to step %lld: %s", (long long)bad, (long long)t->step, why->text);
  return session_go_on(s, err);
}

/* Without a checkpoint the failure itself is told. */
static curvd_status try_to_go_back(session *s, const cv_error *why, cv_error *err) {
  curvd_status status = go_back(s, why, err);
  if (status != CURVD_ERR_DATA) return status;
  cv_error none = *err;
  *err = (cv_error){0};
  return cv_fail(err, why->code, "%.240s (no way back: %.200s)", why->text, none.text);
}

curvd_status session_after_failure(session *s, cv_error *err) {
  const trainer *t = s->trainer;
  const train_config *v = session_values(s);
  curvd_metrics metrics = {0};
  if (err->code == CURVD_ERR_MPI) return err->code;
  trainer_agree(t->workers, err->code, err); /* all workers have failed: the first one's sentence comes to all */
  cv_error why = *err;
  curvd_metrics_read(t->ctx, &metrics);
  bool is_counted = metrics.step == t->step + 1 && !(curvd_flags(t->ctx) & TRAINER_FLAG_BROKEN),
       is_nan = why.code == CURVD_ERR_NUMERIC && v->nan != TRAIN_NAN_STOP,
       is_damage = why.code == CURVD_ERR_DAMAGE && v->damage == TRAIN_DAMAGE_ROLLBACK;
  if (!is_nan && !is_damage) return why.code;
  *err = (cv_error){0};
  if (is_damage) return try_to_go_back(s, &why, err);
  if (v->nan == TRAIN_NAN_ROLLBACK && s->skipped_step != t->step) {
    s->skipped_step = t->step;
    return try_to_go_back(s, &why, err);
  }
  if (!is_counted) return cv_fail(err, why.code, "%s", why.text);
  run_line(s->run, "warning: step %lld is left out: %s", (long long)t->step, why.text);
  return skip(s, err);
}
