/* Gathers the options of program and library in one list, and fills it from defaults < file < environment < flags. */
#include "train/config_parts.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

extern char **environ;

enum { OPTIONS_MAX = 256 }; /* of program and library together */

static const char environment_prefix[] = "CURVD_";
/* No options: where the data sets lie; and what the batch scripts of launch/slurm read, which hand their environment
 * on. */
static const char *const environment_others[] = {"CURVD_DATA_DIR", "CURVD_HOME", "CURVD_PROGRAM", "CURVD_LAUNCHER",
                                                 "CURVD_RESTARTS"};

/* ---- The list of options ---- */

static const cv_option *table_row(const char *name) {
  int n;
  const cv_option *table = config_table(&n);
  return cv_option_find(table, n, name);
}

static config_entry entry_of_row(const cv_option *row) {
  config_entry made = {.name = row->name};
  made.info = (curvd_option_info){.name = row->name,
                                  .type = cv_option_type_name(row->type),
                                  .group = row->group,
                                  .unit = row->unit,
                                  .initial = row->initial,
                                  .help = row->help};
  cv_option_range(row, made.range, sizeof made.range);
  return made;
}

static config_entry entry_of_library(const curvd_option_info *info) {
  return (config_entry){.name = info->name, .info = *info, .is_library = true};
}

/* Brings the options of each group together, groups in the order of their first option. */
static void group_together(const config_entry *from, int n, config_entry *to) {
  int n_placed = 0;
  for (int i = 0; i < n; i++) {
    bool is_first = true;
    for (int j = 0; j < i && is_first; j++) is_first = strcmp(from[j].info.group, from[i].info.group) != 0;
    for (int j = i; j < n && is_first; j++)
      if (strcmp(from[j].info.group, from[i].info.group) == 0) to[n_placed++] = from[j];
  }
}

static curvd_status entries_make(config *made, cv_error *err) {
  int n_rows, n = 0, n_library = curvd_option_count();
  const cv_option *table = config_table(&n_rows);
  if (n_rows + n_library > OPTIONS_MAX)
    return cv_fail(err, CURVD_ERR_STATE, "%d options are more than %d; raise OPTIONS_MAX", n_rows + n_library,
                   (int)OPTIONS_MAX);
  size_t n_max = (size_t)n_rows + (size_t)n_library;
  config_entry *entry = calloc(n_max, sizeof *entry);
  made->entry = calloc(n_max, sizeof *entry);
  if (entry == NULL || made->entry == NULL) {
    free(entry);
    cv_fail(err, CURVD_ERR_MEMORY, "no memory for %zu options", n_max);
    return CURVD_ERR_MEMORY;
  }
  for (int i = 0; i < n_rows; i++) entry[n++] = entry_of_row(&table[i]);
  for (int i = 0; i < n_library; i++) {
    curvd_option_info info;
    if (curvd_option_get(i, &info) == CURVD_OK && table_row(info.name) == NULL && !config_is_reserved(info.name))
      entry[n++] = entry_of_library(&info);
  }
  group_together(entry, n, made->entry);
  made->n = n;
  for (int i = 0; i < n; i++)
    if (!made->entry[i].is_library) made->entry[i].info.range = made->entry[i].range;
  free(entry);
  return CURVD_OK;
}

static config_entry *entry_find(const config *from, const char *name) {
  for (int i = 0; i < from->n; i++)
    if (cv_option_same_name(from->entry[i].name, name)) return &from->entry[i];
  return NULL;
}

/* ---- Setting a value ---- */

typedef enum spelling { SPELL_KEY, SPELL_FLAG, SPELL_ENVIRONMENT } spelling;

/* Where a value comes from. The places begin the sentence about a name or a value, "run.yaml:14:5: " or "". */
typedef struct source {
  spelling spelling;
  const char *name_place, *value_place, *origin;
} source;

/* 'lr_decay', --lr-decay, CURVD_LR_DECAY */
static void spell(spelling how, const char *name, char *text, size_t size) {
  static const char *const formats[] = {
      [SPELL_KEY] = "'%.60s'", [SPELL_FLAG] = "--%.60s", [SPELL_ENVIRONMENT] = "CURVD_%.60s"};
  snprintf(text, size, formats[how], name);
  for (char *c = text; *c != '\0'; c++) {
    if (how == SPELL_FLAG && *c == '_') *c = '-';
    if (how == SPELL_ENVIRONMENT) *c = (char)toupper((unsigned char)*c);
  }
}

static curvd_status unknown(const config *known, const source *from, const char *name, cv_error *err) {
  const char *names[OPTIONS_MAX + 1], *what = from->spelling == SPELL_ENVIRONMENT ? "environment variable" : "option";
  for (int i = 0; i < known->n; i++) names[i] = known->entry[i].name;
  names[known->n] = "config";
  const char *near = cv_nearest_name(name, names, known->n + (from->spelling == SPELL_FLAG));
  char spelt[80], near_spelt[80];
  spell(from->spelling, name, spelt, sizeof spelt);
  if (near == NULL)
    return cv_fail(err, CURVD_ERR_OPTION, "%sunknown %s %s; `curvd options` lists all", from->name_place, what, spelt);
  spell(from->spelling, near, near_spelt, sizeof near_spelt);
  return cv_fail(err, CURVD_ERR_OPTION, "%sunknown %s %s; did you mean %s?", from->name_place, what, spelt, near_spelt);
}

/* Checks text and stores it; *err holds the option's own sentence when it is refused. */
static curvd_status entry_set(config *to, config_entry *entry, const char *text, cv_error *err) {
  if (strlen(text) >= sizeof entry->text)
    return cv_fail(err, CURVD_ERR_OPTION, "%s is longer than %zu characters", entry->name, sizeof entry->text - 1);
  if (entry->is_library) {
    char message[sizeof err->text] = "";
    curvd_status status = curvd_option_check(entry->name, text, message, sizeof message);
    if (status != CURVD_OK) return cv_fail(err, status, "%s", message);
  } else {
    CV_TRY(cv_option_set(table_row(entry->name), &to->values, text, err));
  }
  snprintf(entry->text, sizeof entry->text, "%s", text);
  return CURVD_OK;
}

/* Sets what the user gave. */
static curvd_status put(config *to, const source *from, const char *name, const char *text, cv_error *err) {
  config_entry *entry = entry_find(to, name);
  if (entry == NULL) return unknown(to, from, name, err);
  cv_error why = {.code = CURVD_OK};
  curvd_status status = entry_set(to, entry, text, &why);
  if (status != CURVD_OK) return cv_fail(err, status, "%.240s%.230s", from->value_place, why.text);
  snprintf(entry->origin, sizeof entry->origin, "%s", from->origin);
  entry->is_set = true;
  return CURVD_OK;
}

/* ---- File, environment, flags ---- */

static curvd_status take_pair(void *user, const config_pair *pair, cv_error *err) {
  config *to = user;
  bool is_run_file = to->file[0] == '\0'; /* whose places are those of --resume now */
  if (is_run_file && (strcmp(pair->key, "run_dir") == 0 || strcmp(pair->key, "resume") == 0)) return CURVD_OK;
  char name_place[240], value_place[240], origin[240];
  snprintf(name_place, sizeof name_place, "%.180s:%ld:%ld: ", pair->file, pair->key_line, pair->key_column);
  snprintf(value_place, sizeof value_place, "%.180s:%ld:%ld: ", pair->file, pair->value_line, pair->value_column);
  snprintf(origin, sizeof origin, "%.200s:%ld", pair->file, pair->key_line);
  /* the file comes first, so whatever has been set was set by the file */
  const config_entry *entry = entry_find(to, pair->key);
  if (entry != NULL && entry->is_set)
    return cv_fail(err, CURVD_ERR_OPTION, "%s%s is set twice, first at %s", name_place, entry->name, entry->origin);
  return put(to, &(source){SPELL_KEY, name_place, value_place, origin}, pair->key, pair->value, err);
}

static bool is_no_option(const char *variable, size_t n) {
  const int n_others = sizeof environment_others / sizeof *environment_others;
  for (int i = 0; i < n_others; i++)
    if (strlen(environment_others[i]) == n && strncmp(variable, environment_others[i], n) == 0) return true;
  return false;
}

/* Sets from "CURVD_NAME=text"; other variables are none of our business. */
static curvd_status put_variable(config *to, const char *variable, cv_error *err) {
  const size_t n_prefix = sizeof environment_prefix - 1, n_variable = strcspn(variable, "=");
  char name[80] = "", place[120];
  if (strncmp(variable, environment_prefix, n_prefix) != 0 || variable[n_variable] == '\0') return CURVD_OK;
  if (is_no_option(variable, n_variable)) return CURVD_OK;
  for (size_t i = 0; i + 1 < sizeof name && n_prefix + i < n_variable; i++)
    name[i] = (char)tolower((unsigned char)variable[n_prefix + i]);
  snprintf(place, sizeof place, "environment %.*s: ", (int)(n_variable < 80 ? n_variable : 80), variable);
  return put(to, &(source){SPELL_ENVIRONMENT, "", place, "environment"}, name, variable + n_variable + 1, err);
}

/* One flag as words of the command line give it. */
typedef struct flag {
  char name[80];    /* of the option, without "--" and "no-" */
  char spelt[88];   /* "--lr", for origins */
  const char *text; /* its value */
  int n_words;      /* 1, or 2 when the value is a word of its own */
} flag;

static bool is_switch(const config *known, const char *name) {
  const config_entry *entry = entry_find(known, name);
  return entry != NULL && strcmp(entry->info.type, "switch") == 0;
}

/* Understands argv[0] (and argv[1]). */
static curvd_status flag_read(int argc, char *const *argv, const config *known, flag *given, cv_error *err) {
  const char *word = argv[0];
  if (strncmp(word, "--", 2) != 0 || word[2] == '\0')
    return cv_fail(err, CURVD_ERR_OPTION,
                   "unexpected word '%.80s': options are --name value or --name=value, switches --name or --no-name",
                   word);
  int n = (int)strcspn(word, "=");
  snprintf(given->spelt, sizeof given->spelt, "%.*s", n, word);
  snprintf(given->name, sizeof given->name, "%.*s", n - 2, word + 2);
  given->n_words = 1;
  if (word[n] == '=') {
    given->text = word + n + 1;
  } else if (is_switch(known, given->name)) {
    given->text = "true";
  } else if (strncmp(given->name, "no-", 3) == 0 && is_switch(known, given->name + 3)) {
    memmove(given->name, given->name + 3, strlen(given->name + 3) + 1);
    given->text = "false";
  } else if (argc > 1 && strncmp(argv[1], "--", 2) != 0) {
    given->text = argv[1];
    given->n_words = 2;
  } else {
    given->text = NULL;
  }
  return CURVD_OK;
}

static curvd_status put_flag(config *to, const flag *given, cv_error *err) {
  char place[96];
  snprintf(place, sizeof place, "%s: ", given->spelt);
  const source from = {SPELL_FLAG, "", place, given->spelt};
  if (entry_find(to, given->name) == NULL) return unknown(to, &from, given->name, err);
  if (given->text == NULL) return cv_fail(err, CURVD_ERR_OPTION, "%sa value is missing", place);
  return put(to, &from, given->name, given->text, err);
}

/* Remembers the path of --config. */
static curvd_status file_name(config *to, const flag *given, cv_error *err) {
  if (given->text == NULL || given->text[0] == '\0')
    return cv_fail(err, CURVD_ERR_OPTION, "--config: the path of a file is missing");
  if (to->file[0] != '\0') return cv_fail(err, CURVD_ERR_OPTION, "--config is given twice; write one file");
  if (strlen(given->text) >= sizeof to->file)
    return cv_fail(err, CURVD_ERR_OPTION, "--config: the path is longer than %zu characters", sizeof to->file - 1);
  if (!cv_text_is_printable(given->text)) /* it is written beside the values */
    return cv_fail(err, CURVD_ERR_OPTION, "--config: the path has bytes that are no printable UTF-8");
  snprintf(to->file, sizeof to->file, "%s", given->text);
  return CURVD_OK;
}

/* The configuration of the run that --resume goes on with: of a run folder, or of the one around a checkpoint. */
static void file_of_run(config *to, const flag *given) {
  static const char *const places[] = {"config.yaml", "../../config.yaml"};
  if (given->text == NULL || strcmp(given->text, "no") == 0 || strcmp(given->text, "auto") == 0) return;
  for (size_t i = 0; i < sizeof places / sizeof places[0] && to->run_file[0] == '\0'; i++) {
    snprintf(to->run_file, sizeof to->run_file, "%.480s/%s", given->text, places[i]);
    if (access(to->run_file, R_OK) != 0) to->run_file[0] = '\0';
  }
}

/* Goes through all flags: only those that name a file (for_file), or all but --config. */
static curvd_status flags_read(int argc, char *const *argv, bool for_file, config *to, cv_error *err) {
  flag given = {.n_words = 1};
  for (int i = 0; i < argc; i += given.n_words) {
    CV_TRY(flag_read(argc - i, argv + i, to, &given, err));
    bool is_file = strcmp(given.name, "config") == 0;
    if (is_file && for_file) CV_TRY(file_name(to, &given, err));
    if (for_file && strcmp(given.name, "resume") == 0) file_of_run(to, &given);
    if (!is_file && !for_file) CV_TRY(put_flag(to, &given, err));
  }
  return CURVD_OK;
}

/* ---- Checks that need more than one value ---- */

static curvd_status config_check(const config *made, cv_error *err) {
  const train_config *values = &made->values;
  bool is_first_order = values->method == TRAIN_METHOD_SGD || values->method == TRAIN_METHOD_ADAMW;
  if (values->accumulate > values->batch)
    return cv_fail(err, CURVD_ERR_OPTION,
                   "accumulate %s (%.120s) cuts a batch of %s (%.120s) into pieces without examples; use at most batch",
                   config_text(made, "accumulate"), entry_find(made, "accumulate")->origin, config_text(made, "batch"),
                   entry_find(made, "batch")->origin);
  if (values->steps == 0 && values->epochs == 0)
    return cv_fail(err, CURVD_ERR_OPTION, "epochs 0 and steps 0 leave nothing to do; set one of them");
  if ((values->method == TRAIN_METHOD_SGD && values->optimizer == TRAIN_ADAMW) ||
      (values->method == TRAIN_METHOD_ADAMW && values->optimizer == TRAIN_SGD))
    return cv_fail(err, CURVD_ERR_OPTION, "method %s contradicts optimizer %s (%.120s); leave optimizer at auto",
                   made->method, config_text(made, "optimizer"), entry_find(made, "optimizer")->origin);
  if (is_first_order && values->curvature_ranks > 0)
    return cv_fail(err, CURVD_ERR_OPTION,
                   "method %s has no curvature for %s curvature_ranks (%.120s); use 0 or auto, or another method",
                   made->method, config_text(made, "curvature_ranks"), entry_find(made, "curvature_ranks")->origin);
  return CURVD_OK;
}

/* ---- Public functions ---- */

static curvd_status defaults_set(config *to, cv_error *err) {
  for (int i = 0; i < to->n; i++) {
    config_entry *entry = &to->entry[i];
    if (!entry->is_library) CV_TRY(entry_set(to, entry, entry->info.initial, err));
    snprintf(entry->text, sizeof entry->text, "%s", entry->info.initial);
    snprintf(entry->origin, sizeof entry->origin, "default");
  }
  return CURVD_OK;
}

static curvd_status sources_read(int argc, char *const *argv, config *to, cv_error *err) {
  CV_TRY(flags_read(argc, argv, true, to, err));
  const char *file = to->file[0] != '\0' ? to->file : to->run_file;
  if (file[0] != '\0') CV_TRY(config_yaml_read(file, CONFIG_MAPPING, take_pair, to, err));
  for (char **variable = environ; variable != NULL && *variable != NULL; variable++)
    CV_TRY(put_variable(to, *variable, err));
  return flags_read(argc, argv, false, to, err);
}

/* Without environment and files. */
static curvd_status bytes_read(const char *bytes, size_t n_bytes, int argc, char *const *argv, config *to,
                               cv_error *err) {
  CV_TRY(config_yaml_parse(bytes, n_bytes, to->file, CONFIG_MAPPING, take_pair, to, err));
  return flags_read(argc, argv, false, to, err);
}

static void method_copy(config *to) {
  snprintf(to->method, sizeof to->method, "%.31s", config_text(to, "method"));
}

curvd_status config_defaults(config *made, cv_error *err) {
  *made = (config){.n = 0};
  curvd_status status = entries_make(made, err);
  if (status == CURVD_OK) status = defaults_set(made, err);
  if (status != CURVD_OK) {
    config_free(made);
    return status;
  }
  method_copy(made);
  return CURVD_OK;
}

/* What follows the reading of all sources. */
static curvd_status finish(config *loaded, curvd_status status, cv_error *err) {
  method_copy(loaded);
  if (status == CURVD_OK) status = config_check(loaded, err);
  if (status != CURVD_OK) config_free(loaded);
  return status;
}

curvd_status config_load(int argc, char *const *argv, config *loaded, cv_error *err) {
  CV_TRY(config_defaults(loaded, err));
  return finish(loaded, sources_read(argc, argv, loaded, err), err);
}

curvd_status config_parse(const char *bytes, size_t n_bytes, const char *file, int argc, char *const *argv,
                          config *loaded, cv_error *err) {
  CV_TRY(config_defaults(loaded, err));
  snprintf(loaded->file, sizeof loaded->file, "%s", file);
  return finish(loaded, bytes_read(bytes, n_bytes, argc, argv, loaded, err), err);
}

void config_free(config *freed) {
  free(freed->entry);
  *freed = (config){.n = 0};
}

const char *config_text(const config *from, const char *name) {
  const config_entry *entry = entry_find(from, name);
  return entry == NULL ? NULL : entry->text;
}

curvd_status config_resolve(config *to, const char *name, const char *text, cv_error *err) {
  config_entry *entry = entry_find(to, name);
  if (entry == NULL) return cv_fail(err, CURVD_ERR_OPTION, "no option %s to resolve", name);
  if (strcmp(entry->text, text) == 0) return CURVD_OK;
  bool was_auto = strcmp(entry->text, "auto") == 0;
  char origin[CV_OPTION_TEXT_MAX];
  snprintf(origin, sizeof origin, "%.200s: auto -> %.200s", entry->origin, text);
  CV_TRY(entry_set(to, entry, text, err));
  snprintf(entry->origin, sizeof entry->origin, "%s", was_auto ? origin : "recipe");
  return CURVD_OK;
}
