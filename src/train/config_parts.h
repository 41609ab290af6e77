/* The parts of the configuration that stand in their own files: the program's option table and the file reader. */
#ifndef TRAIN_CONFIG_PARTS_H
#define TRAIN_CONFIG_PARTS_H

#include "train/config.h"

/* The program's own options; offsets are those of train_config. */
const cv_option *config_table(int *n);

/* Options of the library that say what the caller hands over: the program knows that itself and sets them, the user
 * must not. */
bool config_is_reserved(const char *name);

/* One "key: value" of a file. */
typedef struct config_pair {
  const char *key, *value; /* borrowed for the call */
  const char *file;
  long key_line, key_column, value_line, value_column; /* from 1 */
  int64_t item;                                        /* of a list, from 0 */
} config_pair;
typedef curvd_status (*config_take)(void *user, const config_pair *pair, cv_error *err);

enum { CONFIG_FILE_MAX = 1 << 20 }; /* bytes */

typedef enum config_form { CONFIG_MAPPING, CONFIG_LIST } config_form;

/* Hands every pair of a YAML text to take, which may refuse it. One flat mapping of words and numbers, or a list of
 * such mappings, or nothing at all: other nesting, anchors, aliases, tags and second documents are refused.
 * CURVD_ERR_OPTION: file:line:column. */
curvd_status config_yaml_parse(const char *bytes, size_t n_bytes, const char *file, config_form form, config_take take,
                               void *user, cv_error *err);

/* The same for a file of at most CONFIG_FILE_MAX bytes. CURVD_ERR_IO names the path and the reason. */
curvd_status config_yaml_read(const char *path, config_form form, config_take take, void *user, cv_error *err);

#endif
