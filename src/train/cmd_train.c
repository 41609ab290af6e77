/* curvd train: under mpirun, or alone. Rank 0 speaks. */
#include "train/commands.h"
#include "train/report.h"
#include "train/run.h"
#include "train/trainer.h"
#include "train/watchdog.h"

#include <cblas.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { STEP_TIMES = 32 };

/* What the loop keeps besides the trainer. */
typedef struct loop {
  trainer trainer;
  run run;
  watchdog watchdog;
  double step_s[STEP_TIMES]; /* the last ones */
  int64_t next_eval;
  trainer_score score;
  train_goal goal;
} loop;

static void log_line(void *user, int level, const char *line) {
  (void)level;
  loop *l = user;
  run_line(&l->run, "rank %d: %s", l->trainer.rank, line);
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

static double median_step(const loop *l) {
  double sorted[STEP_TIMES];
  int n = l->trainer.step < STEP_TIMES ? (int)l->trainer.step : STEP_TIMES;
  for (int i = 0; i < n; i++) {
    int j = i;
    for (; j > 0 && sorted[j - 1] > l->step_s[i]; j--) sorted[j] = sorted[j - 1];
    sorted[j] = l->step_s[i];
  }
  return n > 0 ? sorted[n / 2] : 0;
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

static curvd_status train_worker(loop *l, cv_error *err) {
  trainer *t = &l->trainer;
  double loss = NAN;
  int64_t evals = 1;
  l->next_eval = step_of_eval(t, evals);
  while (t->step < t->total_steps && !l->goal.is_reached) {
    double begin = cv_wall_s();
    CV_TRY(trainer_step(t, err));
    l->step_s[(t->step - 1) % STEP_TIMES] = cv_wall_s() - begin;
    bool is_due = t->step % t->config->values.log_every == 0 || t->step == t->total_steps;
    if (is_due) {
      loss = trainer_loss(t);
      report_step(t, &l->run, loss);
      if (!isfinite(loss)) {
        return cv_fail(err, CURVD_ERR_NUMERIC,
                       "the loss is not finite in step %lld or shortly before: lower lr (%g now)", (long long)t->step,
                       t->lr);
      }
    }
    show(l, loss, is_due);
    if (t->step < l->next_eval && t->step < t->total_steps) continue;
    evaluate(l);
    while (l->next_eval <= t->step) l->next_eval = step_of_eval(t, ++evals);
  }
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

static curvd_status train(loop *l, config *c, cv_error *err) {
  trainer *t = &l->trainer;
  openblas_set_num_threads((int)c->values.blas_threads);
  CV_TRY(trainer_create(c, MPI_COMM_WORLD, t, err));
  trainer_record(t, &l->watchdog.trace);
  watchdog_look_after(&l->watchdog, t->ctx);
  curvd_status status = t->rank == 0 ? run_open(c, c->method, c->values.seed, &l->run, err) : CURVD_OK;
  status = trainer_agree(t->world, status, err);
  if (status == CURVD_OK) {
    curvd_log_to(t->ctx, log_line, l, 2);
    share_folder(l);
    report_begin(t, &l->run);
    watchdog_note(&l->watchdog, "train", NULL);
    status = train_roles(l, err);
    watchdog_note(&l->watchdog, "end the run", NULL);
    status = trainer_agree(t->world, status, err);
    if (status == CURVD_OK) report_end(t, &l->run, &l->score, &l->goal);
  }
  run_close(&l->run, status != CURVD_OK && t->step == 0);
  watchdog_look_after(&l->watchdog, NULL);
  trainer_free(t);
  return status;
}

static curvd_status train_once(config *c, cv_error *err) {
  static loop l;
  int rank = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  curvd_status status = watchdog_start(&l.watchdog, rank, c->values.hang_timeout, err);
  watchdog_note(&l.watchdog, "set up", NULL);
  status = trainer_agree(MPI_COMM_WORLD, status, err);
  if (status == CURVD_OK) status = train(&l, c, err);
  watchdog_stop(&l.watchdog);
  return status;
}

int cmd_train(int argc, char **argv) {
  return command_under_mpi(argc, argv, train_once);
}
