#include "save/manifest.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char format_name[] = "curvd-checkpoint";

/* Of the objects in it; one with more is of a version that is not known. */
enum { INNER_KEYS = 6, SHARD_KEYS = 3 };

void manifest_shard_name(int64_t rank, char name[SHARD_NAME_MAX]) {
  snprintf(name, SHARD_NAME_MAX, "shard-%05lld.safetensors", (long long)rank);
}

/* ---- building ---- */

static json_t *shards_json(const manifest *m) {
  json_t *list = json_array();
  for (int64_t i = 0; i < m->n_shards; i++) {
    char name[SHARD_NAME_MAX];
    manifest_shard_name(i, name);
    json_t *one = json_pack("{s:s,s:I,s:s}", "file", name, "bytes", (json_int_t)m->shard[i].bytes, "header_xxh3",
                            m->shard[i].header_xxh3);
    if (json_array_append_new(list, one) != 0) {
      json_decref(list);
      return NULL;
    }
  }
  return list;
}

/* Checksum of the inner object; false: no memory. */
static bool inner_checksum(const json_t *inner, char text[CHECKSUM_MAX]) {
  char *dump = json_dumps(inner, JSON_COMPACT | JSON_SORT_KEYS);
  if (dump == NULL) return false;
  checksum(dump, (int64_t)strlen(dump), text);
  free(dump);
  return true;
}

/* The file that holds this; NULL: no memory. */
static char *canonical(const json_t *all, int64_t *n) {
  char *dump = json_dumps(all, JSON_INDENT(1) | JSON_SORT_KEYS);
  if (dump == NULL) return NULL;
  size_t length = strlen(dump);
  char *text = realloc(dump, length + 2);
  if (text == NULL) {
    free(dump);
    return NULL;
  }
  memcpy(text + length, "\n", 2);
  *n = (int64_t)length + 1;
  return text;
}

curvd_status manifest_build(const manifest *m, char **text, int64_t *n, cv_error *err) {
  char sum[CHECKSUM_MAX];
  json_t *inner =
      json_pack("{s:s,s:i,s:I,s:I,s:o,s:O}", "format", format_name, "version", MANIFEST_VERSION, "step",
                (json_int_t)m->step, "n_shards", (json_int_t)m->n_shards, "shards", shards_json(m), "about", m->about);
  bool is_made = inner != NULL && inner_checksum(inner, sum);
  json_t *all = is_made ? json_pack("{s:O,s:s}", "manifest", inner, "xxh3", sum) : NULL;
  char *made = all != NULL ? canonical(all, n) : NULL;
  json_decref(all);
  json_decref(inner);
  if (made == NULL)
    return cv_fail(err, CURVD_ERR_MEMORY, "no memory for a manifest of %lld shards", (long long)m->n_shards);
  *text = made;
  return CURVD_OK;
}

/* ---- reading ---- */

static bool read_integer(const json_t *object, const char *key, int64_t least, int64_t most, int64_t *value) {
  const json_t *json = json_object_get(object, key);
  if (!json_is_integer(json) || json_integer_value(json) < least || json_integer_value(json) > most) return false;
  *value = json_integer_value(json);
  return true;
}

static bool has_text(const json_t *object, const char *key, const char *expected) {
  const char *text = json_string_value(json_object_get(object, key));
  return text != NULL && strcmp(text, expected) == 0;
}

/* Is the text what its contents are written as, and does the checksum fit? */
static curvd_status check_bytes(const json_t *all, const void *text, int64_t n, const char *name, cv_error *err) {
  char sum[CHECKSUM_MAX];
  const json_t *inner = json_object_get(all, "manifest");
  if (json_object_size(all) != 2 || !json_is_object(inner))
    return cv_fail(err, CURVD_ERR_DATA, "%.160s: expected an object with manifest and xxh3", name);
  int64_t length = 0;
  char *again = canonical(all, &length);
  bool has_sum = again != NULL && inner_checksum(inner, sum);
  bool is_canonical = again != NULL && length == n && memcmp(again, text, (size_t)n) == 0;
  free(again);
  if (!has_sum) return cv_fail(err, CURVD_ERR_MEMORY, "%.160s: no memory to check it", name);
  if (!is_canonical || !has_text(all, "xxh3", sum))
    return cv_fail(err, CURVD_ERR_DATA, "%.160s: damaged: its checksum is not %s, or its text is not as it was written",
                   name, sum);
  return CURVD_OK;
}

static curvd_status read_shard(const json_t *json, int64_t i, const char *name, manifest_shard *shard, cv_error *err) {
  char file[SHARD_NAME_MAX];
  const char *sum = json_string_value(json_object_get(json, "header_xxh3"));
  manifest_shard_name(i, file);
  if (!has_text(json, "file", file))
    return cv_fail(err, CURVD_ERR_DATA, "%.160s: shard %lld has another name than %s", name, (long long)i, file);
  if (!read_integer(json, "bytes", 1, INT64_MAX, &shard->bytes) || sum == NULL || strlen(sum) != CHECKSUM_MAX - 1 ||
      json_object_size(json) != SHARD_KEYS)
    return cv_fail(err, CURVD_ERR_DATA, "%.160s: %s: bytes or header_xxh3 is missing or wrong, or there is more", name,
                   file);
  snprintf(shard->header_xxh3, sizeof shard->header_xxh3, "%s", sum);
  return CURVD_OK;
}

static curvd_status read_shards(const json_t *list, const char *name, manifest *m, cv_error *err) {
  if (!json_is_array(list) || (int64_t)json_array_size(list) != m->n_shards)
    return cv_fail(err, CURVD_ERR_DATA, "%.160s: its list of shards has not n_shards %lld of them", name,
                   (long long)m->n_shards);
  m->shard = calloc((size_t)m->n_shards, sizeof *m->shard);
  if (m->shard == NULL) return cv_fail(err, CURVD_ERR_MEMORY, "%.160s: no memory for its list of shards", name);
  for (int64_t i = 0; i < m->n_shards; i++)
    CV_TRY(read_shard(json_array_get(list, (size_t)i), i, name, &m->shard[i], err));
  return CURVD_OK;
}

static curvd_status read_inner(const json_t *inner, const char *name, manifest *m, cv_error *err) {
  int64_t version = 0;
  if (!has_text(inner, "format", format_name))
    return cv_fail(err, CURVD_ERR_DATA, "%.160s: its format is not %s", name, format_name);
  if (!read_integer(inner, "version", 1, INT64_MAX, &version) || version != MANIFEST_VERSION)
    return cv_fail(err, CURVD_ERR_DATA, "%.160s: version %lld of the format; this program reads version %d", name,
                   (long long)version, MANIFEST_VERSION);
  if (!read_integer(inner, "step", 0, INT64_MAX, &m->step) ||
      !read_integer(inner, "n_shards", 1, MANIFEST_SHARDS_MAX, &m->n_shards))
    return cv_fail(err, CURVD_ERR_DATA, "%.160s: step or n_shards is missing or out of range", name);
  if (!json_is_object(json_object_get(inner, "about")))
    return cv_fail(err, CURVD_ERR_DATA, "%.160s: about is no object", name);
  m->about = json_incref(json_object_get(inner, "about"));
  CV_TRY(read_shards(json_object_get(inner, "shards"), name, m, err));
  if (json_object_size(inner) == INNER_KEYS) return CURVD_OK;
  return cv_fail(err, CURVD_ERR_DATA, "%.160s: there is more than about, format, n_shards, shards, step and version",
                 name);
}

curvd_status manifest_parse(const void *text, int64_t n, const char *name, manifest *m, cv_error *err) {
  json_error_t why;
  *m = (manifest){.step = 0};
  json_t *all = json_loadb(text, (size_t)n, JSON_REJECT_DUPLICATES, &why);
  if (all == NULL) return cv_fail(err, CURVD_ERR_DATA, "%.160s: damaged: no JSON: %.160s", name, why.text);
  curvd_status status = check_bytes(all, text, n, name, err);
  if (status == CURVD_OK) status = read_inner(json_object_get(all, "manifest"), name, m, err);
  json_decref(all);
  return status;
}

void manifest_free(manifest *m) {
  free(m->shard);
  json_decref(m->about);
  *m = (manifest){.step = 0};
}
