/* Faults on order (option inject), each once, in one step on one rank: what a run does then can be tried and is tested.
 *
 *   kill@STEP           SIGKILL                           hang@STEP          the rank stands still
 *   delay@STEP          it comes so many seconds later    nan@STEP           a gradient of layer is not finite
 *   weight@STEP         a bit of a weight of layer        factor@STEP        a bit of an owner's factor
 *   preconditioner@STEP a bit of one in force             transfer@STEP      a bit of one on its way to this worker
 *   statistic@STEP      a bit of a sum on its way to an owner
 *   solver@STEP         an owner's solver fails           disk@STEP          writing a checkpoint from STEP on: disk
 * full sync@STEP           the same: fsync fails             shard@STEP         a bit of the newest shard in the file
 * system
 *
 * with :rank=R (0), :layer=NAME (the first), :factor=A or G, :bit=N (0), :seconds=S (1); several with commas between.
 */
#ifndef TRAIN_INJECT_H
#define TRAIN_INJECT_H

#include "save/saver.h"
#include "train/trainer.h"

#include <pthread.h>

enum { INJECT_MAX = 16 };

typedef enum inject_kind {
  INJECT_KILL,
  INJECT_HANG,
  INJECT_DELAY,
  INJECT_NAN,
  INJECT_WEIGHT,
  INJECT_SHARD,
  INJECT_DISK,
  INJECT_SYNC,
  INJECT_SOLVER,
  INJECT_FACTOR,
  INJECT_TRANSFER,
  INJECT_PRECONDITIONER,
  INJECT_STATISTIC,
  INJECT_KINDS
} inject_kind;

typedef struct inject_fault {
  inject_kind kind;
  int64_t step, bit;
  int rank, factor;
  char layer[NN_NAME_MAX]; /* "": the first */
  double seconds;
  bool is_done;
} inject_fault;

typedef struct inject {
  int n;
  inject_fault fault[INJECT_MAX];
  /* a curvature rank's own thread, for faults that strike while it serves */
  trainer *trainer;
  pthread_t thread, rank;
  bool has_thread;
  _Atomic bool is_stopping;
} inject;

/* No MPI. OPTION: names the word. */
curvd_status inject_parse(const char *text, inject *list, cv_error *err);

/* [local] After trainer_create: the library's own faults of this rank; and, on a curvature rank, the thread. OPTION: a
 * layer that the network does not have. list must stay where it is until inject_end. */
curvd_status inject_begin(inject *list, trainer *t, cv_error *err);
void inject_end(inject *list);

/* [local, worker] What is due before a step; folder: of the run's checkpoints. */
void inject_before_step(inject *list, trainer *t, const char *folder);

/* For the saver of this rank. */
saver_faults inject_saver(inject *list);

#endif
