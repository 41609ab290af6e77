/* Checksums guard every byte of a checkpoint, so that hardly a mutation would get behind them. These make them fit what
 * is there, from the description of the files alone (save/manifest.h, save/shard.h). */
#ifndef TESTS_FUZZ_FUZZ_REPAIR_H
#define TESTS_FUZZ_FUZZ_REPAIR_H

#include "save/checksum.h"

#include "fuzz.h"

#include <jansson.h>

static inline char *fuzz_dump(const json_t *json, size_t flags) {
  char *text = json_dumps(json, flags | JSON_SORT_KEYS);
  fuzz_require(text != NULL, "there is memory for the harness");
  return text;
}

/* A manifest whose own checksum is set, as the text that it is written as; free() it. all: an object with "manifest".
 */
static inline char *fuzz_manifest_text(json_t *all) {
  char sum[CHECKSUM_MAX], *inner = fuzz_dump(json_object_get(all, "manifest"), JSON_COMPACT | JSON_ENCODE_ANY);
  checksum(inner, (int64_t)strlen(inner), sum);
  free(inner);
  json_object_set_new(all, "xxh3", json_string(sum));
  char *text = fuzz_dump(all, JSON_INDENT(1)), *line = realloc(text, strlen(text) + 2);
  fuzz_require(line != NULL, "there is memory for the harness");
  return strcat(line, "\n");
}

/* The object of a text, when it is one with "manifest"; json_decref() it. */
static inline json_t *fuzz_manifest_json(const void *text, size_t n_bytes) {
  json_t *all = json_loadb(text, n_bytes, JSON_REJECT_DUPLICATES, NULL);
  if (json_object_get(all, "manifest") != NULL) return all;
  json_decref(all);
  return NULL;
}

#endif
