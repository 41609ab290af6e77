/* A folder with a manifest and one or two shards, read as `curvd checkpoint` does. The last bit of the first byte says
 * which: 0: as they lie on a disk, each behind its length in two bytes, low one first, the last with what is left;
 * 1: manifest and JSON of each shard's header, each ended by a byte 0xFF, which no UTF-8 has. Then lengths, sizes and
 * checksums are made to fit, and numbers up to NUMBERS_MAX bytes are put behind the headers. */
#include "save/checkpoint.h"
#include "save/manifest.h"
#include "save/safetensors.h"

#include "fuzz_files.h"
#include "fuzz_repair.h"

enum { SHARDS_MAX = 2, FILES = SHARDS_MAX + 1, END = 0xFF, NUMBERS_MAX = 1 << 16, ARRAY_MAX = 1 << 20 };

static const char *const names[FILES] = {MANIFEST_FILE, "shard-00000.safetensors", "shard-00001.safetensors"};

typedef struct piece {
  char *bytes;
  size_t n;
} piece;

static void write_pieces(const char *folder, piece *p, int n) {
  for (int i = 0; i < n; i++) {
    fuzz_file_write(folder, names[i], p[i].bytes, p[i].n);
    free(p[i].bytes);
  }
}

/* ---- files as they lie on a disk ---- */

static int split(const uint8_t *bytes, size_t n_bytes, piece p[FILES]) {
  int i = 0;
  for (; i < FILES && n_bytes > 2; i++) {
    size_t n = bytes[0] | (size_t)bytes[1] << 8;
    bytes += 2, n_bytes -= 2;
    if (n > n_bytes || i == FILES - 1) n = n_bytes;
    p[i] = (piece){fuzz_text(bytes, n), n};
    bytes += n, n_bytes -= n;
  }
  return i;
}

/* ---- files that are made to fit ---- */

/* Overwrites the 16 digits of "xxh3:NAME":"...". */
static void repair_tensor(char *json, const safetensors_tensor *t, const char *numbers) {
  char key[SAFETENSORS_NAME_MAX + 16], sum[CHECKSUM_MAX];
  snprintf(key, sizeof key, "\"xxh3:%s\":\"", t->name);
  char *at = strstr(json, key);
  if (at == NULL || strlen(at) < strlen(key) + CHECKSUM_MAX) return;
  checksum(numbers, t->end - t->begin, sum);
  memcpy(at + strlen(key), sum, CHECKSUM_MAX - 1);
}

/* The file of a header's JSON, which has n bytes; sum: of its header. */
static piece build_shard(const uint8_t *json, size_t n, char sum[CHECKSUM_MAX]) {
  safetensors_header header;
  size_t front = SAFETENSORS_LENGTH_BYTES + n;
  char *bytes = calloc(front + 1 + NUMBERS_MAX, 1), *numbers = bytes + front + 1;
  fuzz_require(bytes != NULL, "there is memory for the harness");
  for (int i = 0; i < SAFETENSORS_LENGTH_BYTES; i++) bytes[i] = (char)(n >> (8 * i));
  if (n > 0) memcpy(bytes + SAFETENSORS_LENGTH_BYTES, json, n);
  for (int i = 0; i < NUMBERS_MAX; i++) numbers[i] = (char)(i * 7 + i / 251);
  curvd_status status = safetensors_parse(bytes, (int64_t)front, "built", &header, NULL);
  bool is_small = status == CURVD_OK && header.data_bytes <= NUMBERS_MAX;
  size_t n_numbers = is_small ? (size_t)header.data_bytes : 0;
  for (int64_t i = 0; i < header.n_tensors && is_small; i++)
    repair_tensor(bytes + SAFETENSORS_LENGTH_BYTES, &header.tensor[i], numbers + header.tensor[i].begin);
  safetensors_free(&header);
  checksum(bytes, (int64_t)front, sum);
  memmove(bytes + front, numbers, n_numbers);
  return (piece){bytes, front + n_numbers};
}

static void describe_shard(json_t *shard, const piece *p, const char *sum) {
  json_object_set_new(shard, "bytes", json_integer((json_int_t)p->n));
  json_object_set_new(shard, "header_xxh3", json_string(sum));
}

static size_t word_length(const uint8_t *bytes, size_t n_bytes) {
  const uint8_t *end = n_bytes > 0 ? memchr(bytes, END, n_bytes) : NULL;
  return end != NULL ? (size_t)(end - bytes) : n_bytes;
}

static int build(const uint8_t *bytes, size_t n_bytes, piece p[FILES]) {
  size_t n = word_length(bytes, n_bytes), at = n + 1;
  int i = 1;
  json_t *json = fuzz_manifest_json(bytes, n), *list = json_object_get(json_object_get(json, "manifest"), "shards");
  p[0] = (piece){fuzz_text(bytes, n), n};
  for (; i < FILES && at < n_bytes; i++) {
    char sum[CHECKSUM_MAX];
    n = word_length(bytes + at, n_bytes - at);
    p[i] = build_shard(bytes + at, n, sum);
    describe_shard(json_array_get(list, (size_t)i - 1), &p[i], sum);
    at += n + 1;
  }
  if (json != NULL) {
    free(p[0].bytes);
    p[0].bytes = fuzz_manifest_text(json);
    p[0].n = strlen(p[0].bytes);
    json_decref(json);
  }
  return i;
}

/* ---- reading ---- */

/* Row by row, packed without gaps: a triangle's rows are as long as those of its square. data: free; NULL: too large.
 */
static curvd_array whole(const checkpoint_array *a) {
  int64_t size = curvd_dtype_bytes(a->dtype);
  bool is_small = a->n_columns == 0 || a->n_rows <= ARRAY_MAX / size / a->n_columns;
  char *data = is_small ? calloc(1, (size_t)(a->n_rows * a->n_columns * size)) : NULL;
  fuzz_require(!is_small || data != NULL, "there is memory for the harness");
  return (curvd_array){a->name, a->dtype, a->is_triangle, a->n_rows, a->n_columns, 0, a->n_rows, a->n_columns, 1, data};
}

/* Rows alone, from a file whose checksum is known by now, are what they were with all others. */
static void check_rows(const checkpoint *cp, const curvd_array *all) {
  cv_error err = {.code = CURVD_OK};
  int64_t begin = all->n_rows / 2, rows = all->n_rows / 4 + (all->n_rows > 0);
  curvd_array some = curvd_array_rows(all, begin, rows);
  size_t bytes = (size_t)(some.rows * some.row_stride * curvd_dtype_bytes(some.dtype));
  const void *expected = some.data;
  some.data = calloc(1, bytes);
  fuzz_require(some.data != NULL, "there is memory for the harness");
  fuzz_require(checkpoint_read(cp, &some, &err) == CURVD_OK, "rows of an array that was read can be read");
  fuzz_require(memcmp(some.data, expected, bytes) == 0, "rows alone are the rows of the whole");
  free(some.data);
}

static void read_array(const checkpoint *cp, int64_t i) {
  cv_error err = {.code = CURVD_OK};
  checkpoint_array a = checkpoint_at(cp, i), found;
  fuzz_printable(a.name);
  fuzz_require(a.n_rows >= 0 && a.n_columns >= 0 && (!a.is_triangle || a.n_rows == a.n_columns), "shapes are sizes");
  fuzz_require(checkpoint_find(cp, a.name, &found) && found.name == a.name, "what is listed is found");
  curvd_array all = whole(&a);
  if (all.data == NULL) return;
  curvd_status status = checkpoint_read(cp, &all, &err);
  fuzz_outcome(status, &err);
  if (status == CURVD_OK) check_rows(cp, &all);
  free(all.data);
}

static void look_at_finding(void *user, const char *finding) {
  *(int64_t *)user += 1;
  fuzz_printable(finding);
}

static void look(const checkpoint *cp, bool verifies_first) {
  cv_error err = {.code = CURVD_OK};
  int64_t findings = 0;
  fuzz_require(checkpoint_step(cp) >= 0 && checkpoint_ranks(cp) >= 1 && checkpoint_bytes(cp) >= 1, "sizes are sizes");
  fuzz_require(json_is_object(checkpoint_about(cp)), "a checkpoint tells about itself");
  if (!verifies_first)
    for (int64_t i = 0; i < checkpoint_count(cp); i++) read_array(cp, i);
  curvd_status status = checkpoint_verify(cp, look_at_finding, &findings, &err);
  fuzz_outcome(status, &err);
  fuzz_require((status == CURVD_OK) == (findings == 0), "every finding is told");
  for (int64_t i = 0; verifies_first && i < checkpoint_count(cp); i++) read_array(cp, i);
}

void fuzz_checkpoint(const uint8_t *bytes, size_t n_bytes) {
  static char folder[] = FUZZ_FOLDER;
  cv_error err = {.code = CURVD_OK};
  checkpoint *cp = NULL;
  piece p[FILES];
  if (n_bytes == 0) return;
  int n = bytes[0] & 1 ? build(bytes + 1, n_bytes - 1, p) : split(bytes + 1, n_bytes - 1, p);
  fuzz_folder_make(folder);
  write_pieces(folder, p, n);
  curvd_status status = checkpoint_open(folder, &cp, &err);
  fuzz_outcome(status, &err);
  if (status == CURVD_OK) look(cp, bytes[0] & 2);
  checkpoint_close(&cp);
  fuzz_folder_remove(folder, names, FILES);
}
