/* A harness hands hostile bytes to one parser and checks what a caller relies on. fuzz_main.c gives it to libFuzzer,
 * fuzz_corpus.c runs the seeds of corpus/NAME through it in every test run. A new one: fuzz_NAME.c, a line here, a line
 * in fuzz_corpus.c, seeds. Nothing in here starts MPI. */
#ifndef TESTS_FUZZ_FUZZ_H
#define TESTS_FUZZ_FUZZ_H

#include "base/memory.h"
#include "base/status.h"

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void fuzz_checkpoint(const uint8_t *bytes, size_t n_bytes);
void fuzz_cifar(const uint8_t *bytes, size_t n_bytes);
void fuzz_config(const uint8_t *bytes, size_t n_bytes);
void fuzz_file(const uint8_t *bytes, size_t n_bytes);
void fuzz_folder(const uint8_t *bytes, size_t n_bytes);
void fuzz_history(const uint8_t *bytes, size_t n_bytes);
void fuzz_idx(const uint8_t *bytes, size_t n_bytes);
void fuzz_inject(const uint8_t *bytes, size_t n_bytes);
void fuzz_manifest(const uint8_t *bytes, size_t n_bytes);
void fuzz_metrics(const uint8_t *bytes, size_t n_bytes);
void fuzz_network(const uint8_t *bytes, size_t n_bytes);
void fuzz_npy(const uint8_t *bytes, size_t n_bytes);
void fuzz_options(const uint8_t *bytes, size_t n_bytes);
void fuzz_plan(const uint8_t *bytes, size_t n_bytes);
void fuzz_safetensors(const uint8_t *bytes, size_t n_bytes);

/* A finding, as a sanitizer's are. */
static inline void fuzz_require(bool holds, const char *what) {
  if (holds) return;
  fprintf(stderr, "fuzz: not so: %s\n", what);
  abort();
}

/* A refusal says why, in one line that no terminal obeys; success leaves no sentence. */
static inline void fuzz_outcome(curvd_status status, const cv_error *err) {
  fuzz_require(err->code == status, "the sentence belongs to the code");
  if (status == CURVD_OK) return;
  size_t length = strnlen(err->text, sizeof err->text);
  fuzz_require(length > 0 && length < sizeof err->text, "a refusal is a sentence");
  for (size_t i = 0; i < length; i++)
    fuzz_require((unsigned char)err->text[i] >= ' ' && err->text[i] != 127, "a sentence has no control characters");
}

/* A name of a file that is printed as it is. */
static inline void fuzz_printable(const char *name) {
  for (const char *c = name; *c != '\0'; c++)
    fuzz_require((unsigned char)*c >= ' ' && *c != 127, "a name has no control characters");
}

/* Blocks live at one time never took more than `most` bytes, and all are freed. */
static inline void fuzz_memory(const cv_memory *memory, int64_t most) {
  fuzz_require(memory->peak_bytes <= most, "memory is only taken for bytes that are there");
  for (int kind = 0; kind < CV_MEMORY_KINDS; kind++) fuzz_require(memory->bytes[kind] == 0, "all memory is freed");
}

/* Copies bytes into a text with its NUL; free() it. */
static inline char *fuzz_text(const uint8_t *bytes, size_t n_bytes) {
  char *text = malloc(n_bytes + 1);
  fuzz_require(text != NULL, "there is memory for the harness");
  if (n_bytes > 0) memcpy(text, bytes, n_bytes);
  text[n_bytes] = '\0';
  return text;
}

#endif
