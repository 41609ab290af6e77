/* What a run does between its steps: it saves, goes on from what was saved, goes back, and stops when it is told to.
 * Workers decide together, by flags that ride on the step (curvd_raise): what one of them sees before a step, all of
 * them know after it. */
#ifndef TRAIN_SESSION_H
#define TRAIN_SESSION_H

#include "train/inject.h"
#include "train/run.h"
#include "train/trainer_state.h"

/* Why a run ended before its last step. */
typedef enum session_stop { SESSION_GOES_ON, SESSION_SIGNAL, SESSION_TIME_BUDGET } session_stop;

typedef struct session {
  trainer *trainer; /* borrowed, as run */
  run *run;
  trainer_state state;
  saver *saver;
  inject inject;
  char resume_from[CV_OPTION_TEXT_MAX]; /* folder of checkpoints; "": from the beginning */
  int64_t resume_step;                  /* of one checkpoint only; -1: the newest */
  double begin_s;                       /* wall clock at the start of the process */
  double saved_s;                       /* and when the last save was begun */
  double save_cost_s;                   /* longest save so far, until it was there */
  int64_t kept_step;                    /* worker 0: of the newest checkpoint that is known to be there; -1: none */
  int64_t saved_step, skipped_step;     /* of the last save; of a step that is left out (nan rollback); -1: none */
  int64_t n_saves;
  bool is_late;         /* one is due, and waits for the last one to be written */
  bool goes_on;         /* rank 0: in a run folder that is there */
  int64_t bad_steps;    /* skipped, one behind the other */
  int64_t n_returns;    /* to an earlier step */
  int64_t checked_step; /* of the last comparison of replicas */
  uint64_t *hashes;     /* (n_workers) of the replicas */
  session_stop stop;
  cv_error failure; /* of a save, where the run shall stop for it */
} session;

/* [collective over world, before the run folder is made] Where the run goes on from, by option resume; the folder of a
 * run that it goes on in becomes run_dir. OPTION, IO, DATA: nothing to resume, but asked for. */
curvd_status session_find(session *s, trainer *t, double begin_s, cv_error *err);

/* [collective over world, with the run folder] Hooks, and the thread that writes. */
curvd_status session_open(session *s, run *r, cv_error *err);

/* [collective over the workers] Loads the newest checkpoint that is sound; tells of every one that is not. */
curvd_status session_resume(session *s, cv_error *err);

/* [local] Before a step: raises what the other workers have to know. step_s: what a step takes. */
void session_raise(session *s, double step_s);

/* [collective over the workers] After a step: saves where it is time to, and sets stop. An error ends the run. */
curvd_status session_after_step(session *s, cv_error *err);

/* [collective over the workers] A step has failed with numbers that are not finite: by option nan it is left out, the
 * run goes back, or the failure stays. OK: go on. */
curvd_status session_after_failure(session *s, cv_error *err);

/* [collective over the workers] All steps are done. */
curvd_status session_finish(session *s, cv_error *err);

/* Waits for what is being written. */
void session_close(session *s);

#endif
