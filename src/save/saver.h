/* Writes checkpoints behind the trainer's back: a rank copies its arrays into a shard in memory, a thread of its own
 * writes that. No MPI: ranks meet in the file system.
 *
 *   FOLDER/step-000000100.tmp/shard-00000.safetensors ...   each rank's, hashed, written, fsynced, renamed from .part
 *   FOLDER/step-000000100.tmp/manifest.json                 rank 0, when all shards are there and their headers fit
 *   FOLDER/step-000000100/                                  renamed into place, FOLDER fsynced; then older ones go
 *
 * A rank whose shard fails leaves shard-00003.failed with one sentence, so that rank 0 need not wait. Rank 0 removes
 * the unfinished folder then; checkpoints that were there stay as they are. */
#ifndef SAVE_SAVER_H
#define SAVE_SAVER_H

#include "base/status.h"
#include "curvd_state.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

/* How bytes get to a disk; NULL: the system's own. For injected faults. Each returns 0 or an errno. */
typedef struct saver_faults {
  int (*write)(void *user, int64_t step); /* asked before every write and fsync of a shard or manifest of that step */
  int (*sync)(void *user, int64_t step);
  void *user;
} saver_faults;

typedef struct saver_settings {
  const char *folder; /* of all checkpoints; rank 0 makes it; copied */
  int rank, n_ranks;
  int64_t keep;      /* complete checkpoints that stay, >= 1 */
  double patience_s; /* rank 0 waits so long for the other ranks' shards */
  json_t *about;     /* rank 0: an object of texts and integers for the manifest; its reference is taken over, also on
                        failure */
  saver_faults faults;
} saver_settings;

typedef struct saver saver;

/* Starts the thread, which takes no signals. Rank 0 removes what unfinished saves have left. IO, MEMORY. */
curvd_status saver_create(const saver_settings *settings, saver **made, cv_error *err);

/* A shard of this step: waits until the last one of this rank is written; then arrays are copied, one call each; then
 * it goes to the thread (commit), or is dropped (cancel). MEMORY from add: the shard can only be dropped. Arrays of one
 * name may come in parts, on one rank or several. After the first shard of a size nothing is allocated by these. */
curvd_status saver_begin(saver *s, int64_t step, cv_error *err);
curvd_status saver_add(saver *s, const curvd_array *array, cv_error *err);
void saver_commit(saver *s);
void saver_cancel(saver *s, const char *why); /* other ranks are told as of a shard that failed */

/* Is a shard of this rank, on rank 0 a whole checkpoint, still under way? And waits until none is. */
bool saver_is_busy(saver *s);
void saver_wait(saver *s);

/* How the last save of this rank (rank 0: of all) ended; each outcome is told once: false without a new one. */
typedef struct saver_outcome {
  int64_t step, bytes; /* bytes of this rank's shard */
  double seconds;      /* from commit to its end */
  cv_error error;      /* code OK: it is there */
} saver_outcome;
bool saver_outcome_take(saver *s, saver_outcome *outcome);

/* Waits for what is under way. NULL is fine. */
void saver_free(saver **s);

#endif
