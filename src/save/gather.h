/* Rank 0's part of a save: waits for all shards in step-N.tmp, writes the manifest, makes a checkpoint of it. */
#ifndef SAVE_GATHER_H
#define SAVE_GATHER_H

#include "base/status.h"
#include "save/file.h"
#include "save/manifest.h"
#include "save/shard.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct gather {
  const char *path;           /* of the folder of checkpoints */
  int parent, tmp;            /* that folder, and step-N.tmp, open */
  const char *tmp_name;       /* "step-000000100.tmp" */
  const shard_origin *origin; /* of rank 0's own shard */
  double patience_s;
  json_t *about;
  manifest_shard *shard; /* n_ranks, for the call's use */
  bool *is_there;        /* the same */
  file_watch watch;
} gather;

/* IO, DATA, MEMORY; REMOTE: a rank's shard failed. */
curvd_status gather_publish(const gather *g, cv_error *err);

/* After a save that failed: waits a little (2 s at most) for the ranks that have not come to the end of theirs, so that
 * none of them makes the folder again that rank 0 removes. */
void gather_settle(const gather *g);

/* Tells rank 0 of a failed shard: shard-00003.failed. */
void gather_tell(int tmp, const char *tmp_name, const shard_origin *origin, const char *why);

#endif
