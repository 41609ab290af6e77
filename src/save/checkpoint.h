/* Checkpoints for reading: a folder with a manifest and the ranks' shards (saver.h). No MPI: any rank may read any
 * shard. Everything in these files is hostile: sizes are checked in 64 bits before anything is allocated, names of
 * files cannot leave the folder, every byte is covered by a checksum (manifest: itself; header of a shard: manifest;
 * tensor: header), and a failure names file, tensor and reason. */
#ifndef SAVE_CHECKPOINT_H
#define SAVE_CHECKPOINT_H

#include "base/status.h"
#include "curvd_state.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct checkpoint checkpoint;

/* Reads manifest and headers, and compares all sizes. folder: copied. IO, DATA, MEMORY. */
curvd_status checkpoint_open(const char *folder, checkpoint **made, cv_error *err);
void checkpoint_close(checkpoint **cp);

int64_t checkpoint_step(const checkpoint *cp);
int64_t checkpoint_ranks(const checkpoint *cp);       /* that wrote it: its shards */
int64_t checkpoint_bytes(const checkpoint *cp);       /* of all shards */
const json_t *checkpoint_about(const checkpoint *cp); /* what saver_settings.about was; borrowed */

/* Its arrays, sorted by name: parts of one name are one. rows, columns of the whole; a triangle's are equal. */
typedef struct checkpoint_array {
  const char *name;
  curvd_dtype dtype;
  bool is_triangle;
  int64_t n_rows, n_columns;
} checkpoint_array;
int64_t checkpoint_count(const checkpoint *cp);
checkpoint_array checkpoint_at(const checkpoint *cp, int64_t i);
bool checkpoint_find(const checkpoint *cp, const char *name, checkpoint_array *found);

/* Fills wanted->data from the parts of that name, whose checksums it compares. DATA: no such array, another shape or
 * dtype, rows that no part has, a damaged tensor. */
curvd_status checkpoint_read(const checkpoint *cp, const curvd_array *wanted, cv_error *err);

/* Compares every byte of every shard; tells each finding. DATA when there was one. */
curvd_status checkpoint_verify(const checkpoint *cp, void (*tell)(void *user, const char *finding), void *user,
                               cv_error *err);

/* Steps of the complete checkpoints in a folder of them, newest first; at most `most`. IO: the folder cannot be read (a
 * folder that is not there holds none). */
curvd_status checkpoint_list(const char *folder, int64_t most, int64_t *step, int64_t *n, cv_error *err);

/* Checkpoints of later steps are of a future that will be another one: they become step-N.aside, which nobody takes for
 * a checkpoint. *n: how many. IO. */
curvd_status checkpoint_set_aside(const char *folder, int64_t after, int64_t *n, cv_error *err);

/* "FOLDER/step-000000100"; false: too long. */
bool checkpoint_path(const char *folder, int64_t step, char *path, int64_t size);

#endif
