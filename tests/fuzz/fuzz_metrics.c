/* A run's metrics.jsonl that is cut back: two bytes of the step, low one first, then the file. The
 * first of the 16 bits says whether the step is evaluated again. */
#include "train/run.h"

#include "fuzz_files.h"

static const char *const names[] = {"metrics.jsonl", "metrics.jsonl.new"};

static char *read_metrics(const char *folder, size_t *n) {
  char path[FUZZ_PATH_MAX];
  snprintf(path, sizeof path, "%.40s/%s", folder, names[0]);
  FILE *file = fopen(path, "rb");
  fuzz_require(file != NULL && fseek(file, 0, SEEK_END) == 0, "the file is there");
  *n = (size_t)ftell(file);
  rewind(file);
  char *text = malloc(*n + 1);
  fuzz_require(text != NULL && fread(text, 1, *n, file) == *n, "the file can be read");
  fclose(file);
  return text;
}

static void trim(run *r, int64_t step, bool evaluates_again) {
  cv_error err = {.code = CURVD_OK};
  curvd_status status = run_trim(r, step, evaluates_again, &err);
  fuzz_outcome(status, &err);
  fuzz_require(status == CURVD_OK && r->metrics != NULL, "a file that can be written is cut back and open again");
  fclose(r->metrics);
  r->metrics = NULL;
}

static void check_line(const char *line, size_t n, int64_t step, bool evaluates_again) {
  json_t *record = memchr(line, '\0', n) == NULL ? json_loadb(line, n, 0, NULL) : NULL;
  const json_t *at = json_object_get(record, "step");
  fuzz_require(json_is_integer(at) && json_integer_value(at) <= step, "every line is a record up to the step");
  const char *kind = json_string_value(json_object_get(record, "kind"));
  fuzz_require(kind != NULL && strcmp(kind, "end") != 0, "a run that goes on has not ended");
  fuzz_require(!evaluates_again || json_integer_value(at) < step || strcmp(kind, "epoch") != 0,
               "an evaluation that comes again is not there yet");
  json_decref(record);
}

void fuzz_metrics(const uint8_t *bytes, size_t n_bytes) {
  static run r = {.is_open = true, .folder = FUZZ_FOLDER};
  size_t n = 0, n_again = 0;
  if (n_bytes < 2) return;
  int64_t step = bytes[0] | (bytes[1] & 127) << 8;
  bool evaluates_again = bytes[1] >> 7;
  fuzz_folder_make(r.folder);
  fuzz_file_write(r.folder, names[0], bytes + 2, n_bytes - 2);
  trim(&r, step, evaluates_again);
  char *text = read_metrics(r.folder, &n);
  for (const char *line = text, *end; line < text + n; line = end + 1) {
    end = memchr(line, '\n', (size_t)(text + n - line));
    fuzz_require(end != NULL, "the next record begins a line of its own");
    check_line(line, (size_t)(end - line), step, evaluates_again);
  }
  trim(&r, step, evaluates_again);
  char *again = read_metrics(r.folder, &n_again);
  fuzz_require(n == n_again && memcmp(text, again, n) == 0, "what is kept once is kept twice");
  fuzz_folder_remove(r.folder, names, 2);
  free(text);
  free(again);
}
