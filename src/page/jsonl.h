/* Files of JSON lines, one object a line, from programs that may have been killed while they wrote. */
#ifndef PAGE_JSONL_H
#define PAGE_JSONL_H

#include "base/status.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

/* Called for each object; line counts from 1. */
typedef curvd_status (*jsonl_take)(void *user, json_t *object, int64_t line, cv_error *err);

/* Hands the objects of n bytes to take, in their order; blank lines are passed over. *is_cut: the last line has no end
 * and is no object, as when its writer was killed. DATA: "name:line: ...". */
curvd_status jsonl_each(const char *bytes, int64_t n, const char *name, jsonl_take take, void *user, bool *is_cut,
                        cv_error *err);

/* A number of an object that a page can show: within 1e30 in size, 0 below 1e-300; NaN for everything else, a missing
 * key too. */
double jsonl_number(const json_t *object, const char *key);

/* A text of an object; "" for everything else. */
const char *jsonl_text(const json_t *object, const char *key);

/* All of a regular file of up to 1 GB, with a NUL behind it; free it. IO, DATA, MEMORY: one sentence that names it. */
curvd_status jsonl_file_read(const char *path, char **bytes, int64_t *n, cv_error *err);

#endif
