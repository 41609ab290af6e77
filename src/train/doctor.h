/* What `curvd doctor` finds: one line for each check, whose level says whether a run can go on like that. Checks are
 * small functions in doctor_THEME.c: one half asks MPI, the system and the libraries, the other judges the answers and
 * knows nothing but them. */
#ifndef TRAIN_DOCTOR_H
#define TRAIN_DOCTOR_H

#include "base/status.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

typedef enum doctor_level { DOCTOR_OK, DOCTOR_WARNING, DOCTOR_ERROR } doctor_level;
enum { DOCTOR_TEXT_MAX = 480, DOCTOR_LINES_MAX = 24, DOCTOR_HOST_MAX = 64, DOCTOR_PATH_MAX = 256 };

typedef struct doctor_line {
  doctor_level level;
  int32_t code; /* the program's exit code, of an error */
  char name[24];
  char text[DOCTOR_TEXT_MAX]; /* what was found; of warnings and errors, with the cure */
} doctor_line;

typedef struct doctor_findings {
  int32_t n;
  doctor_line line[DOCTOR_LINES_MAX];
} doctor_findings;

const char *doctor_level_name(doctor_level level);

/* An error's code is EXIT_CODE_UNFIT. */
void doctor_add(doctor_findings *to, doctor_level level, const char *name, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* An error with the code of that failure, and its sentence. */
void doctor_add_failure(doctor_findings *to, const char *name, const cv_error *err);

/* Lines that every rank has found, in the same order, become one each: the worst, and whose it is where others differ.
 * found, host: of n_ranks ranks. */
void doctor_merge(const doctor_findings *found, const char (*host)[DOCTOR_HOST_MAX], int n_ranks, doctor_findings *to);

/* 0 without errors; otherwise that of the first one. */
int doctor_exit_code(const doctor_findings *findings);

void doctor_print(const doctor_findings *findings, int n_ranks, FILE *out);

/* NULL: no memory. */
json_t *doctor_json(const doctor_findings *findings, int n_ranks);

/* "1.5 GB" */
enum { DOCTOR_BYTES_MAX = 24 };
const char *doctor_bytes(double bytes, char text[DOCTOR_BYTES_MAX]);

/* Reads a small file of the system as text, without its last newline; false and "" when there is none. */
bool doctor_read(const char *path, char *text, size_t size);

#endif
