/* curvd train: under mpirun, or alone. Rank 0 speaks. */
#include "train/commands.h"
#include "train/report.h"
#include "train/run.h"
#include "train/session.h"
#include "train/signals.h"
#include "train/step_times.h"
#include "train/trainer.h"
#include "train/watchdog.h"

#include <cblas.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { STEPS_SHOWN = 32 }; /* in the step time of the progress line */

/* What the loop keeps besides the trainer. */
typedef struct loop {
  trainer trainer;
  run run;
  watchdog watchdog;
  step_times times;
  double begin_s; /* of the process, nearly */
  double loss;    /* mean per example of the last line */
  int64_t next_eval;
  session session;
  trainer_score score;
  train_goal goal;
} loop;

static void log_line(void *user, int level, const char *line) {
  (void)level;
  loop *l = user;
  run_line_of_rank(&l->run, l->trainer.rank, line);
}

static int64_t step_of_eval(const trainer *t, int64_t count) {
  return (int64_t)ceil((double)count * t->config->values.eval_every * (double)t->steps_per_epoch);
}

static void evaluate(loop *l) {
  trainer *t = &l->trainer;
  l->score = trainer_evaluate(t);
  double target = t->config->values.target_accuracy;
  report_epoch(t, &l->run, &l->score);
  if (target > 0 && l->score.accuracy >= target) report_goal(t, &l->goal);
}

static double median_step(loop *l) {
  return l->times.n > 0 ? step_times_quantile(&l->times, STEPS_SHOWN, 0.5) : 0;
}

static void show(loop *l, double loss, bool is_due) {
  const trainer *t = &l->trainer;
  run_progress progress = {.step = t->step,
                           .total_steps = t->total_steps,
                           .epoch = (double)t->step / (double)t->steps_per_epoch,
                           .epochs = (double)t->total_steps / (double)t->steps_per_epoch,
                           .loss = loss,
                           .lr = t->lr,
                           .step_s = median_step(l)};
  run_progress_show(&l->run, &progress, is_due);
}

static curvd_status log_step(loop *l, cv_error *err) {
  trainer *t = &l->trainer;
  bool is_due = t->step % t->config->values.log_every == 0 || t->step == t->total_steps;
  if (is_due) {
    l->loss = trainer_loss(t);
    report_step(t, &l->run, l->loss);
    if (!isfinite(l->loss)) {
      return cv_fail(err, CURVD_ERR_NUMERIC, "the loss is not finite in step %lld or shortly before: lower lr (%g now)",
                     (long long)t->step, t->lr);
    }
  }
  show(l, l->loss, is_due);
  return CURVD_OK;
}

static void find_next_eval(loop *l) {
  int64_t evals = 1;
  do l->next_eval = step_of_eval(&l->trainer, evals++);
  while (l->next_eval <= l->trainer.step);
}

static curvd_status after_failure(loop *l, cv_error *err) {
  CV_TRY(session_after_failure(&l->session, err));
  find_next_eval(l);
  return CURVD_OK;
}

/* Checkpoints come behind evaluations, so that a run that goes on has had all of them. */
static curvd_status train_step(loop *l, cv_error *err) {
  trainer *t = &l->trainer;
  double begin = cv_wall_s();
  session_raise(&l->session, median_step(l));
  if (trainer_step(t, err) != CURVD_OK) return after_failure(l, err);
  step_times_add(&l->times, cv_wall_s() - begin);
  CV_TRY(log_step(l, err));
  if (t->step >= l->next_eval || t->step == t->total_steps) {
    evaluate(l);
    find_next_eval(l);
  }
  return session_after_step(&l->session, err) == CURVD_OK ? CURVD_OK : after_failure(l, err);
}

static curvd_status train_worker(loop *l, cv_error *err) {
  trainer *t = &l->trainer;
  session *s = &l->session;
  l->loss = NAN;
  CV_TRY(session_resume(s, err));
  find_next_eval(l);
  if (t->step >= t->total_steps) evaluate(l); /* nothing is left to do but to tell how good it is */
  while (t->step < t->total_steps && !l->goal.is_reached && s->stop == SESSION_GOES_ON) CV_TRY(train_step(l, err));
  if (s->stop == SESSION_GOES_ON) CV_TRY(session_finish(s, err));
  return trainer_finish(t, err);
}

/* A worker that failed leaves curvature ranks waiting: it releases them first. */
static curvd_status train_roles(loop *l, cv_error *err) {
  trainer *t = &l->trainer;
  if (!trainer_is_worker(t)) return trainer_serve(t, err);
  curvd_status status = train_worker(l, err);
  cv_error ignored = {0};
  if (status != CURVD_OK && status != CURVD_ERR_MPI) trainer_finish(t, &ignored);
  return status;
}

/* Every rank's watchdog writes into the run folder, which rank 0 has chosen. */
static void share_folder(loop *l) {
  char folder[CV_OPTION_TEXT_MAX];
  memcpy(folder, l->run.folder, sizeof folder);
  MPI_Bcast(folder, (int)sizeof folder, MPI_CHAR, 0, l->trainer.world);
  watchdog_folder(&l->watchdog, folder);
}

static curvd_status open_run(loop *l, config *c, cv_error *err) {
  trainer *t = &l->trainer;
  if (t->rank > 0) return CURVD_OK;
  CV_TRY(l->session.goes_on ? run_reopen(c, &l->run, err) : run_open(c, c->method, c->values.seed, &l->run, err));
  run_tell_lock(&l->run);
  return CURVD_OK;
}

/* Curvature ranks do not know why the workers have ended. */
static int exit_code_agreed(loop *l) {
  int is_stopped = l->session.stop != SESSION_GOES_ON;
  MPI_Bcast(&is_stopped, 1, MPI_INT, 0, l->trainer.world);
  if (!is_stopped) return EXIT_CODE_OK;
  long long step = l->trainer.step, kept = l->session.kept_step;
  const char *why = l->session.stop == SESSION_SIGNAL ? "asked to stop" : "the time budget is used up";
  if (kept == step)
    run_line(&l->run, "%s: saved in front of step %lld; go on with --resume %s", why, step, l->run.folder);
  else
    run_line(&l->run, "%s in front of step %lld, which could not be saved; the newest checkpoint is of step %lld", why,
             step, kept);
  return EXIT_CODE_PREEMPTED;
}

/* What the others wait for will not come: there is no agreeing on an end. */
static void end_all(const loop *l, const cv_error *err) {
  fprintf(stderr, "curvd: rank %d: %s\n", l->trainer.rank, err->text);
  fflush(NULL);
  MPI_Abort(MPI_COMM_WORLD, EXIT_CODE_MPI);
}

static curvd_status train(loop *l, config *c, int *code, cv_error *err) {
  trainer *t = &l->trainer;
  openblas_set_num_threads((int)c->values.blas_threads);
  CV_TRY(trainer_create(c, MPI_COMM_WORLD, t, err));
  trainer_record(t, &l->watchdog.trace);
  watchdog_look_after(&l->watchdog, t->ctx);
  curvd_status status = session_find(&l->session, t, l->begin_s, err);
  if (status == CURVD_OK) status = trainer_agree(t->world, open_run(l, c, err), err);
  if (status == CURVD_OK) {
    curvd_log_to(t->ctx, log_line, l, t->rank == 0 ? 2 : 1); /* of what all ranks notice, one tells */
    share_folder(l);
    status = session_open(&l->session, &l->run, err);
  }
  if (status == CURVD_OK) {
    report_begin(t, &l->run);
    watchdog_note(&l->watchdog, "train", NULL);
    status = train_roles(l, err);
    if (status == CURVD_ERR_MPI) end_all(l, err);
    watchdog_note(&l->watchdog, "end the run", NULL);
    status = trainer_agree(t->world, status, err);
    if (status == CURVD_OK) report_end(t, &l->run, &l->score, &l->goal, &l->times);
    if (status == CURVD_OK) *code = exit_code_agreed(l);
  }
  session_close(&l->session);
  run_close(&l->run, status != CURVD_OK && t->step == 0 && !l->session.goes_on);
  watchdog_look_after(&l->watchdog, NULL);
  trainer_free(t);
  return status;
}

static curvd_status train_once(config *c, int *code, cv_error *err) {
  static loop l;
  l.begin_s = cv_wall_s();
  int rank = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  curvd_status status = watchdog_start(&l.watchdog, rank, c->values.hang_timeout, err);
  watchdog_note(&l.watchdog, "set up", NULL);
  status = trainer_agree(MPI_COMM_WORLD, status, err);
  if (status == CURVD_OK) status = train(&l, c, code, err);
  watchdog_stop(&l.watchdog);
  return status;
}

/* Signals that come while MPI starts are remembered, too, and acted on behind the first step. */
int cmd_train(int argc, char **argv) {
  signals_install();
  return command_under_mpi(argc, argv, train_once);
}
