/* A configuration file and flags: YAML up to the first byte 0xFF, which no UTF-8 text has, then words of the command
 * line, each ended by another 0xFF. What was accepted is written and read back: nothing may change. */
#include "train/config.h"

#include "fuzz.h"

enum { WORDS_MAX = 16, END = 0xFF };

typedef struct writing {
  char text[1 << 18];
  size_t length;
} writing;

static void write_line(void *user, const char *text) {
  writing *to = user;
  int n = snprintf(to->text + to->length, sizeof to->text - to->length, "%s\n", text);
  fuzz_require(n >= 0 && to->length + (size_t)n < sizeof to->text, "a configuration is at most 256 kB");
  to->length += (size_t)n;
}

static void check_way_back(const config *c) {
  static writing written;
  config again;
  cv_error err = {.code = CURVD_OK};
  for (int with_origins = 0; with_origins < 2; with_origins++) {
    written.length = 0;
    config_write(c, write_line, &written, with_origins);
    curvd_status status = config_parse(written.text, written.length, "written.yaml", 0, NULL, &again, &err);
    if (status != CURVD_OK) fprintf(stderr, "%s\n%s\n", err.text, written.text);
    fuzz_require(status == CURVD_OK, "what is written can be read");
    for (int i = 0; i < c->n; i++)
      fuzz_require(strcmp(again.entry[i].text, c->entry[i].text) == 0, "values survive writing and reading");
    config_free(&again);
  }
}

void fuzz_config(const uint8_t *bytes, size_t n_bytes) {
  config c;
  cv_error err = {.code = CURVD_OK};
  char *text = fuzz_text(bytes, n_bytes), *words[WORDS_MAX], *end = memchr(text, END, n_bytes);
  size_t n_yaml = end == NULL ? n_bytes : (size_t)(end - text);
  int n_words = 0;
  while (end != NULL && n_words < WORDS_MAX) {
    *end = '\0';
    words[n_words++] = end + 1;
    end = memchr(end + 1, END, n_bytes - (size_t)(end + 1 - text));
  }
  curvd_status status = config_parse(text, n_yaml, "hostile.yaml", n_words, words, &c, &err);
  fuzz_outcome(status, &err);
  if (status == CURVD_OK) {
    check_way_back(&c);
    config_free(&c);
  }
  free(text);
}
