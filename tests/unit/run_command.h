/* Runs a command of the program as a shell would: its exit code, and what it writes. */
#ifndef TESTS_UNIT_RUN_COMMAND_H
#define TESTS_UNIT_RUN_COMMAND_H

#include "train/commands.h"

#include <check.h>
#include <stdint.h>
#include <stdio.h>
#include <unistd.h>

enum { TEXT_MAX = 60000 };
static char out[TEXT_MAX], errors[TEXT_MAX]; /* of the last run */

/* Sends a descriptor into a file that has no name; returns a copy of what it was. */
static inline int divert(int descriptor, FILE *into) {
  int kept = dup(descriptor);
  ck_assert_int_ge(kept, 0);
  ck_assert_int_ge(dup2(fileno(into), descriptor), 0);
  return kept;
}

static inline void restore(int kept, int descriptor, FILE *from, char text[TEXT_MAX]) {
  dup2(kept, descriptor);
  close(kept);
  rewind(from);
  text[fread(text, 1, TEXT_MAX - 1, from)] = '\0';
  fclose(from);
}

static inline int run(int argc, const char *const *argv) {
  char *words[16];
  for (int i = 0; i < argc; i++) words[i] = (char *)(uintptr_t)argv[i];
  FILE *out_file = tmpfile(), *error_file = tmpfile();
  ck_assert(out_file != NULL && error_file != NULL);
  fflush(stdout);
  int kept_out = divert(STDOUT_FILENO, out_file), kept_error = divert(STDERR_FILENO, error_file);
  int code = commands_run(argc, words);
  fflush(stdout);
  restore(kept_out, STDOUT_FILENO, out_file, out);
  restore(kept_error, STDERR_FILENO, error_file, errors);
  return code;
}

#define RUN(...)                                                                                                       \
  run((int)(sizeof((const char *const[]){"curvd", __VA_ARGS__}) / sizeof(char *)),                                     \
      (const char *const[]){"curvd", __VA_ARGS__})

#endif
