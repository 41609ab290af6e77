/* manifest.json: what a checkpoint is made of. Bytes, no files.
 *   {"manifest": {"about": {...}, "format": "curvd-checkpoint", "n_shards": 2, "shards": [{"bytes": 4160, "file":
 *    "shard-00000.safetensors", "header_xxh3": "..."}, ...], "step": 100, "version": 1}, "xxh3": "..."}
 * xxh3 is that of the inner object as compact JSON with sorted keys; the file is the one text that json_dumps makes of
 * all (sorted keys, one blank of indentation, a newline), so that not one of its bits can be another. */
#ifndef SAVE_MANIFEST_H
#define SAVE_MANIFEST_H

#include "base/status.h"
#include "save/checksum.h"

#include <jansson.h>
#include <stdint.h>

#define MANIFEST_FILE "manifest.json"

enum {
  MANIFEST_VERSION = 1,
  MANIFEST_BYTES_MAX = 1 << 26,
  MANIFEST_SHARDS_MAX = 1 << 20,
  SHARD_NAME_MAX = 40,
};

typedef struct manifest_shard {
  int64_t bytes;                  /* of the file */
  char header_xxh3[CHECKSUM_MAX]; /* of its header, with the 8 bytes in front */
} manifest_shard;

typedef struct manifest {
  int64_t step, n_shards;
  manifest_shard *shard; /* by rank */
  json_t *about;         /* an object */
} manifest;

/* The only name that the shard of a rank can have: "shard-00003.safetensors". */
void manifest_shard_name(int64_t rank, char name[SHARD_NAME_MAX]);

/* text: free. */
curvd_status manifest_build(const manifest *m, char **text, int64_t *n, cv_error *err);

/* A text that sentences call `name`. DATA, MEMORY. manifest_free afterwards, also on failure. */
curvd_status manifest_parse(const void *text, int64_t n, const char *name, manifest *m, cv_error *err);
void manifest_free(manifest *m);

#endif
