/* What the user sees of a run: the run folder, metrics.jsonl, log lines or a redrawn progress line, the end table.
 * Only rank 0 opens one and writes; the functions do nothing on a run that is all zeros or closed. */
#ifndef TRAIN_RUN_H
#define TRAIN_RUN_H

#include "base/status.h"
#include "train/config.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

typedef struct run {
  bool is_open;
  char folder[CV_OPTION_TEXT_MAX];
  size_t made_length; /* of the shortest folder that run_open made (prefix of folder); 0: none */
  int lock;           /* the folder, open, so that nobody else on this host writes into it; -1: none */
  int lock_file;      /* the file `lock` in it, open, so that nobody on other hosts does; -1: none */
  int lock_trouble;   /* errno: why that is not locked; 0: it is */
  bool made_lock_file;
  FILE *metrics;     /* metrics.jsonl, one flushed line per record; NULL after a failed write */
  bool is_terminal;  /* stdout: redraw one line; otherwise plain lines */
  bool line_is_open; /* a redrawn line waits for its end */
  bool is_unread;    /* nobody takes lines from stdout any more */
  double begin_s;
  double last_line_s; /* redraws are limited to 5 a second */
} run;

/* Makes the folder ("auto": runs/<UTC date-time>-<method>-s<seed>, made unique by -2, -3, ...), writes config.yaml,
 * opens an empty metrics.jsonl. A folder that was there is fine unless it holds a run. Prints nothing. CURVD_ERR_IO,
 * CURVD_ERR_OPTION: names the path and the reason; nothing is left behind, *run is not open. */
curvd_status run_open(const config *config, const char *method, int64_t seed, run *run, cv_error *err);

/* Opens a folder that holds a run already, or makes it: config.yaml is replaced, metrics.jsonl goes on. Errors as
 * run_open; what was there stays then. A run that still writes there, because what
 * started it was killed before it, is waited for up to 10 s. */
curvd_status run_reopen(const config *config, run *run, cv_error *err);

/* One line when the file system has no locks, so that nothing keeps another run out of the folder. */
void run_tell_lock(run *run);

/* Drops the records of later steps, and a line that was cut off: the run goes on behind this step. evaluates_again:
 * also those of this step's evaluation, which follows. IO. */
curvd_status run_trim(run *run, int64_t step, bool evaluates_again, cv_error *err);

/* Ends the redrawn line, closes the files. remove: delete what run_open made (a run that failed before its first step).
 */
void run_close(run *run, bool remove);

/* A record with what all have: "kind" ("run", "step", "epoch", "layer", "end") and "step" (steps done). NULL: out of
 * memory. */
json_t *run_record_new(const char *kind, int64_t step);

/* Sets a number of a record; one that is not finite becomes null. */
void run_record_real(json_t *record, const char *key, double value);

/* Appends one JSON object as one line and flushes; takes over the reference of record. When that fails (full disk) it
 * says so once and leaves the file alone from then on. Schema in bench/README.md ("metrics.jsonl"). */
void run_record(run *run, json_t *record);

typedef struct run_progress {
  int64_t step, total_steps;
  double epoch, epochs;
  double loss, lr; /* loss: mean per example since the last line */
  double step_s;   /* median of the last steps */
} run_progress;

/* Terminal: redraws "epoch 1/3 step 40/351 loss 0.512 lr 0.001 71 ms/step 0:21 left" with a bar; else prints the plain
 * line when is_due. */
void run_progress_show(run *run, const run_progress *progress, bool is_due);

/* A plain line on stdout (ends a redrawn line first). */
void run_line(run *run, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* "rank 3: line", by any rank: those that have no run folder speak, too. */
void run_line_of_rank(run *run, int rank, const char *line);

/* One row of the end table: seconds of one stage on every rank. */
typedef struct run_stage {
  const char *name;
  double min_s, mean_s, max_s; /* over the ranks that have the stage */
  double share;                /* mean over the run's wall clock, [0, 1] */
} run_stage;
void run_stages(run *run, const run_stage *stage, int n, double wall_s);

#endif
