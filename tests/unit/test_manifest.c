/* Manifests: built, parsed, and every flipped bit and every shorter text refused. */
#include "save/manifest.h"

#include "suite.h"

#include <stdbool.h>
#include <string.h>

static char *new_text(int64_t *n) {
  cv_error err = {.code = CURVD_OK};
  manifest_shard shard[] = {{4160, "0123456789abcdef"}, {77, "fedcba9876543210"}};
  manifest m = {100, 2, shard,
                json_pack("{s:s,s:I,s:s}", "network", "20-\"30\"-10 \xc3\xa9", "seed", (json_int_t)-7, "a", "")};
  char *text = NULL;
  ck_assert_int_eq(manifest_build(&m, &text, n, &err), CURVD_OK);
  json_decref(m.about);
  return text;
}

static bool is_refused(const char *text, int64_t n) {
  cv_error err = {.code = CURVD_OK};
  manifest m;
  curvd_status status = manifest_parse(text, n, "step-1/manifest.json", &m, &err);
  bool is_named = strstr(err.text, "step-1/manifest.json") != NULL;
  manifest_free(&m);
  return status == CURVD_ERR_DATA && is_named;
}

START_TEST(test_round_trip) {
  cv_error err = {.code = CURVD_OK};
  int64_t n = 0;
  manifest m;
  char *text = new_text(&n);
  ck_assert_msg(manifest_parse(text, n, "m", &m, &err) == CURVD_OK, "%s", err.text);
  ck_assert(m.step == 100 && m.n_shards == 2 && m.shard[0].bytes == 4160 && m.shard[1].bytes == 77);
  ck_assert_str_eq(m.shard[0].header_xxh3, "0123456789abcdef");
  ck_assert_str_eq(m.shard[1].header_xxh3, "fedcba9876543210");
  ck_assert_str_eq(json_string_value(json_object_get(m.about, "network")), "20-\"30\"-10 \xc3\xa9");
  ck_assert_int_eq(json_integer_value(json_object_get(m.about, "seed")), -7);
  manifest_free(&m);
  free(text);
}
END_TEST

START_TEST(test_every_bit) {
  int64_t n = 0;
  char *text = new_text(&n);
  for (int64_t bit = 0; bit < 8 * n; bit++) {
    text[bit / 8] = (char)(text[bit / 8] ^ 1 << bit % 8);
    ck_assert_msg(is_refused(text, n), "bit %d of byte %d: %s", (int)(bit % 8), (int)(bit / 8), text);
    text[bit / 8] = (char)(text[bit / 8] ^ 1 << bit % 8);
  }
  free(text);
}
END_TEST

START_TEST(test_every_length) {
  int64_t n = 0;
  char *text = new_text(&n);
  for (int64_t length = 0; length < n; length++) {
    char *cut = malloc((size_t)length + (length == 0));
    memcpy(cut, text, (size_t)length);
    ck_assert_msg(is_refused(cut, length), "%d of %d bytes", (int)length, (int)n);
    free(cut);
  }
  char *longer = realloc(text, (size_t)n + 1);
  longer[n] = '\n';
  ck_assert(is_refused(longer, n + 1));
  free(longer);
}
END_TEST

/* With a right checksum: what a forger can write. */
static char *forge(const json_t *inner, int64_t *n) {
  char sum[CHECKSUM_MAX], *dump = json_dumps(inner, JSON_COMPACT | JSON_SORT_KEYS);
  checksum(dump, (int64_t)strlen(dump), sum);
  json_t *all = json_pack("{s:O,s:s}", "manifest", inner, "xxh3", sum);
  char *text = json_dumps(all, JSON_INDENT(1) | JSON_SORT_KEYS), *line = malloc(strlen(text) + 2);
  *n = sprintf(line, "%s\n", text);
  json_decref(all);
  free(text);
  free(dump);
  return line;
}

/* json NULL: the key is missing. */
static void assert_forgery_refused(const char *key, json_t *json, const char *said) {
  cv_error err = {.code = CURVD_OK};
  int64_t n = 0;
  manifest m;
  char *text = new_text(&n);
  json_t *all = json_loads(text, 0, NULL), *inner = json_object_get(all, "manifest");
  free(text);
  if (json != NULL) json_object_set_new(inner, key, json);
  if (json == NULL) json_object_del(inner, key);
  text = forge(inner, &n);
  curvd_status status = manifest_parse(text, n, "m", &m, &err);
  ck_assert_msg(status == CURVD_ERR_DATA && strstr(err.text, said) != NULL, "%s: %s: %s", key, said, err.text);
  manifest_free(&m);
  json_decref(all);
  free(text);
}

static json_t *two_shards(const char *file, json_t *bytes, const char *sum) {
  return json_pack("[{s:s,s:i,s:s},{s:s,s:o,s:s}]", "file", "shard-00000.safetensors", "bytes", 4160, "header_xxh3",
                   "0123456789abcdef", "file", file, "bytes", bytes, "header_xxh3", sum);
}

START_TEST(test_forged) {
  static const char good[] = "0123456789abcdef", right[] = "shard-00001.safetensors";
  static const char *const names[] = {"../shard-00001.safetensors", "/etc/passwd",         "shard-00000.safetensors",
                                      "a/shard-00001.safetensors",  "shard-1.safetensors", ""};
  for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
    assert_forgery_refused("shards", two_shards(names[i], json_integer(1), good), "another name than shard-00001");
  assert_forgery_refused("shards", two_shards(right, json_integer(0), good), "bytes or header_xxh3");
  assert_forgery_refused("shards", two_shards(right, json_integer(-5), good), "bytes or header_xxh3");
  assert_forgery_refused("shards", two_shards(right, json_real(5), good), "bytes or header_xxh3");
  assert_forgery_refused("shards", two_shards(right, json_integer(5), "01234567"), "bytes or header_xxh3");
  assert_forgery_refused("shards", two_shards(right, json_integer(5), "0123456789abcdef0"), "bytes or header_xxh3");
  assert_forgery_refused("shards", json_array(), "list of shards");
  assert_forgery_refused("shards", NULL, "list of shards");
  assert_forgery_refused("n_shards", json_integer(3), "list of shards");
  assert_forgery_refused("n_shards", json_integer(1), "list of shards");
  assert_forgery_refused("n_shards", json_integer(0), "n_shards");
  assert_forgery_refused("n_shards", json_integer(INT64_MAX), "n_shards");
  assert_forgery_refused("step", json_integer(-1), "step");
  assert_forgery_refused("step", NULL, "step");
  assert_forgery_refused("format", json_string("zip"), "format");
  assert_forgery_refused("version", json_integer(2), "this program reads version 1");
  assert_forgery_refused("about", json_array(), "about");
}
END_TEST

/* Nothing but brackets: parsers that call themselves must not fall. */
START_TEST(test_deep) {
  enum { DEEP = 1000000 };
  char *text = malloc(DEEP);
  memset(text, '[', DEEP);
  ck_assert(is_refused(text, DEEP));
  free(text);
  ck_assert(is_refused("[]", 2));
  ck_assert(is_refused("{\"manifest\":7,\"xxh3\":\"\"}", 25));
}
END_TEST

int main(void) {
  const TTest *const tests[] = {test_round_trip, test_every_bit, test_every_length, test_forged, test_deep};
  return suite_run("manifest", tests, sizeof tests / sizeof tests[0], NULL);
}
