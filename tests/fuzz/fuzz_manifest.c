/* A manifest: the first byte says whether its checksum is made to fit. What was accepted is built again, and has to be
 * the same bytes. */
#include "save/manifest.h"

#include "fuzz_repair.h"

static void check_way_back(const manifest *m, const char *text, size_t n_bytes) {
  cv_error err = {.code = CURVD_OK};
  char *built = NULL;
  int64_t n = 0;
  fuzz_require(m->n_shards >= 1 && m->step >= 0, "a checkpoint has a step and shards");
  for (int64_t i = 0; i < m->n_shards; i++)
    fuzz_require(m->shard[i].bytes >= 1 && strlen(m->shard[i].header_xxh3) == CHECKSUM_MAX - 1, "shards are described");
  fuzz_require(manifest_build(m, &built, &n, &err) == CURVD_OK, "what is read can be built");
  fuzz_require((size_t)n == n_bytes && memcmp(built, text, n_bytes) == 0,
               "an accepted manifest is built byte for byte");
  free(built);
}

void fuzz_manifest(const uint8_t *bytes, size_t n_bytes) {
  cv_error err = {.code = CURVD_OK};
  manifest m;
  if (n_bytes == 0) return;
  size_t n = n_bytes - 1;
  json_t *json = bytes[0] & 1 ? fuzz_manifest_json(bytes + 1, n) : NULL;
  char *text = json != NULL ? fuzz_manifest_text(json) : fuzz_text(bytes + 1, n);
  if (json != NULL) n = strlen(text);
  curvd_status status = manifest_parse(text, (int64_t)n, "hostile/manifest.json", &m, &err);
  fuzz_outcome(status, &err);
  if (status == CURVD_OK) check_way_back(&m, text, n);
  manifest_free(&m);
  json_decref(json);
  free(text);
}
