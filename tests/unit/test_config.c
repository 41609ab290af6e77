/* The program's configuration: precedence, origins, spelling help, the strict YAML reader, and the way back. */
#include "train/config_parts.h"
#include "train/run_shape.h"

#include "suite.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static char path[] = "/tmp/curvd_test_config_XXXXXX";
static cv_error err;
static config loaded;

/* ---- Helpers ---- */

static void file_write(const char *text) {
  FILE *file = fopen(path, "wb");
  ck_assert_ptr_nonnull(file);
  ck_assert_uint_eq(fwrite(text, 1, strlen(text), file), strlen(text));
  fclose(file);
}

static curvd_status load(int argc, const char *const *argv) {
  char *words[16];
  for (int i = 0; i < argc; i++) words[i] = (char *)(uintptr_t)argv[i];
  cv_error_clear(&err);
  return config_load(argc, words, &loaded, &err);
}

#define LOAD(...)                                                                                                      \
  load((int)(sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *)), (const char *const[]){__VA_ARGS__})

static void assert_loads(curvd_status status) {
  ck_assert_msg(status == CURVD_OK, "%s", err.text);
}

static void assert_refused(curvd_status status, const char *sentence) {
  ck_assert_int_eq(status, CURVD_ERR_OPTION);
  ck_assert_str_eq(err.text, sentence);
  ck_assert_ptr_null(loaded.entry); /* nothing to free */
}

static const config_entry *entry_of(const char *name) {
  for (int i = 0; i < loaded.n; i++)
    if (strcmp(loaded.entry[i].name, name) == 0) return &loaded.entry[i];
  ck_abort_msg("no option %s", name);
}

/* "<path><rest>", as sentences about the file begin. */
static const char *in_file(const char *rest) {
  static char text[400];
  snprintf(text, sizeof text, "%s%s", path, rest);
  return text;
}

/* ---- Table ---- */

START_TEST(test_defaults) {
  ck_assert_int_eq(config_defaults(&loaded, &err), CURVD_OK);
  ck_assert_str_eq(loaded.values.data, "fashion-mnist");
  ck_assert_str_eq(loaded.method, "nystrom-kfac");
  ck_assert_int_eq(loaded.values.method, TRAIN_METHOD_NYSTROM_KFAC);
  ck_assert_int_eq(loaded.values.optimizer, TRAIN_OPTIMIZER_AUTO);
  ck_assert_int_eq(loaded.values.curvature_ranks, -1);
  ck_assert(loaded.values.sgd_momentum == -1 && loaded.values.weight_decay == -1);
  ck_assert(loaded.values.augment == TRAIN_AUGMENT_NONE && loaded.values.augment_pad == 4);
  ck_assert(loaded.values.lr.n == 1 && loaded.values.lr.piece[0].value == 0);
  ck_assert_str_eq(config_text(&loaded, "lr"), "auto");
  ck_assert_str_eq(config_text(&loaded, "curvature-ranks"), "auto");
  ck_assert_ptr_null(config_text(&loaded, "no_such"));
  for (int i = 0; i < loaded.n; i++) {
    ck_assert_str_eq(loaded.entry[i].origin, "default");
    ck_assert_str_eq(loaded.entry[i].text, loaded.entry[i].info.initial);
    ck_assert(!loaded.entry[i].is_set);
  }
  config_free(&loaded);
  config_free(&loaded); /* empty by now */
}
END_TEST

START_TEST(test_every_option_is_listed_once_and_explained) {
  ck_assert_int_eq(config_defaults(&loaded, &err), CURVD_OK);
  int n_library = 0;
  for (int i = 0; i < loaded.n; i++) {
    const config_entry *entry = &loaded.entry[i];
    for (int j = 0; j < i; j++) {
      ck_assert_msg(!cv_option_same_name(loaded.entry[j].name, entry->name), "%s is listed twice", entry->name);
      if (strcmp(loaded.entry[j].info.group, entry->info.group) == 0) /* groups stand together */
        ck_assert_str_eq(loaded.entry[i - 1].info.group, entry->info.group);
    }
    ck_assert_uint_gt(strlen(entry->info.help), 5);
    ck_assert_uint_gt(strlen(entry->info.range), 0);
    ck_assert_uint_gt(strlen(entry->info.type), 0);
    ck_assert_ptr_nonnull(entry->info.unit);
    n_library += entry->is_library;
    if (entry->is_library)
      ck_assert_msg(curvd_option_check(entry->name, entry->info.initial, NULL, 0) == CURVD_OK,
                    "the default of %s is refused", entry->name);
  }
  ck_assert_int_eq(n_library, curvd_option_count() - 3 - 5); /* three shared names, five reserved ones */
  ck_assert(!entry_of("method")->is_library && !entry_of("seed")->is_library);
  ck_assert(entry_of("damping")->is_library && entry_of("momentum")->is_library);
  ck_assert_ptr_null(config_text(&loaded, "loss_reduction"));
  ck_assert_ptr_null(config_text(&loaded, "dry_run"));
  config_free(&loaded);
}
END_TEST

START_TEST(test_augmentation_options) {
  assert_loads(LOAD("--augment", "crop-flip", "--augment-pad", "0"));
  ck_assert(loaded.values.augment == TRAIN_AUGMENT_CROP_FLIP && loaded.values.augment_pad == 0);
  config_free(&loaded);
  ck_assert_int_eq(LOAD("--augment", "crop"), CURVD_ERR_OPTION);
  ck_assert_int_eq(LOAD("--augment-pad", "-1"), CURVD_ERR_OPTION);
}
END_TEST

/* ---- Precedence ---- */

START_TEST(test_later_sources_win_and_are_named) {
  file_write("# comment\nlr: 1e-3\nbatch: 64\nlog-every: 5\nmomentum: 0.5\n");
  setenv("CURVD_BATCH", "128", 1);
  setenv("CURVD_LOG_EVERY", "6", 1);
  setenv("CURVD_DATA_DIR", "/data", 1); /* no options, but known */
  setenv("CURVD_LAUNCHER", "mpirun", 1);
  setenv("CURVDX", "1", 1); /* not ours */
  assert_loads(LOAD("--seed", "9", "--config", path, "--log-every=7", "--momentum", "0.25"));
  ck_assert(loaded.values.lr.piece[0].value == 1e-3);
  ck_assert_str_eq(entry_of("lr")->origin, in_file(":2"));
  ck_assert_int_eq(loaded.values.batch, 128);
  ck_assert_str_eq(entry_of("batch")->origin, "environment");
  ck_assert_int_eq(loaded.values.log_every, 7);
  ck_assert_str_eq(entry_of("log_every")->origin, "--log-every");
  ck_assert_int_eq(loaded.values.seed, 9);
  ck_assert_str_eq(entry_of("momentum")->text, "0.25");
  ck_assert_str_eq(entry_of("momentum")->origin, "--momentum");
  ck_assert(entry_of("lr")->is_set && !entry_of("epochs")->is_set);
  ck_assert_str_eq(loaded.file, path);
  config_free(&loaded);
}
END_TEST

START_TEST(test_forms_of_flags) {
  assert_loads(LOAD("--lr", "0.1, 0.01@3e", "--no-warm-start", "--skip=", "--method=sre-kfac", "--batch", "8",
                    "--batch", "9", "--validation_images", "5000"));
  ck_assert_int_eq(loaded.values.lr.n, 2);
  ck_assert_str_eq(config_text(&loaded, "warm_start"), "false");
  ck_assert_str_eq(entry_of("warm_start")->origin, "--no-warm-start");
  ck_assert_str_eq(config_text(&loaded, "skip"), "");
  ck_assert_str_eq(loaded.method, "sre-kfac");
  ck_assert_int_eq(loaded.values.batch, 9); /* the last one counts */
  ck_assert_int_eq(loaded.values.validation_images, 5000);
  config_free(&loaded);
  assert_loads(LOAD("--no-warm-start", "--warm-start", "--steps", "3"));
  ck_assert_str_eq(config_text(&loaded, "warm_start"), "true");
  config_free(&loaded);
  assert_loads(load(0, NULL));
  config_free(&loaded);
}
END_TEST

START_TEST(test_wrong_flags) {
  assert_refused(LOAD("--dampng", "1"), "unknown option --dampng; did you mean --damping?");
  assert_refused(LOAD("--weight_decy=1"), "unknown option --weight-decy; did you mean --weight-decay?");
  assert_refused(LOAD("--confg", "x"), "unknown option --confg; did you mean --config?");
  assert_refused(LOAD("--zzzzzz"), "unknown option --zzzzzz; `curvd options` lists all");
  assert_refused(LOAD("--no-lr"), "unknown option --no-lr; `curvd options` lists all");
  assert_refused(LOAD("--grad-reduction", "sum"), "unknown option --grad-reduction; `curvd options` lists all");
  assert_refused(LOAD("--lr"), "--lr: a value is missing");
  assert_refused(LOAD("--lr", "--batch", "3"), "--lr: a value is missing");
  assert_refused(LOAD("--batch", "0"), "--batch: batch = '0': expected integer, >= 1");
  assert_refused(LOAD("--lr", "0"), "--lr: lr = '0': 0 is out of range; expected schedule, [1e-12, 1000000] or auto");
  assert_refused(LOAD("--config"), "--config: the path of a file is missing");
  assert_refused(LOAD("--config", path, "--config", path), "--config is given twice; write one file");
  ck_assert_int_eq(LOAD("lr", "1"), CURVD_ERR_OPTION);
  ck_assert_int_eq(LOAD("-lr", "1"), CURVD_ERR_OPTION);
  ck_assert_int_eq(LOAD("--"), CURVD_ERR_OPTION);
  ck_assert_int_eq(LOAD("--warm-start", "false"), CURVD_ERR_OPTION);
  ck_assert_int_eq(LOAD("--momentum", "2"), CURVD_ERR_OPTION);
  ck_assert_msg(strncmp(err.text, "--momentum: ", 12) == 0, "%s", err.text);
}
END_TEST

START_TEST(test_long_words_are_refused) {
  char word[2000] = "--skip=";
  memset(word + 7, 'x', sizeof word - 8);
  word[sizeof word - 1] = '\0';
  ck_assert_int_eq(LOAD(word), CURVD_ERR_OPTION);
  memcpy(word, "--data=", 7);
  ck_assert_int_eq(LOAD(word), CURVD_ERR_OPTION);
  memcpy(word, "--xxxxx", 7);
  ck_assert_int_eq(LOAD(word), CURVD_ERR_OPTION);
  ck_assert_int_eq(LOAD("--config", word), CURVD_ERR_OPTION);
}
END_TEST

START_TEST(test_wrong_environment) {
  setenv("CURVD_DAMPNG", "1", 1);
  assert_refused(load(0, NULL), "unknown environment variable CURVD_DAMPNG; did you mean CURVD_DAMPING?");
  unsetenv("CURVD_DAMPNG");
  setenv("CURVD_CONFIG", "x", 1);
  assert_refused(load(0, NULL), "unknown environment variable CURVD_CONFIG; `curvd options` lists all");
  unsetenv("CURVD_CONFIG");
  setenv("CURVD_EPOCHS", "many", 1);
  assert_refused(load(0, NULL), "environment CURVD_EPOCHS: epochs = 'many': expected real, [0, 1000000000]");
  unsetenv("CURVD_EPOCHS");
  setenv("CURVD_", "1", 1);
  ck_assert_int_eq(load(0, NULL), CURVD_ERR_OPTION);
}
END_TEST

START_TEST(test_combinations) {
  assert_refused(LOAD("--batch", "4", "--accumulate", "8"), "accumulate 8 (--accumulate) cuts a batch of 4 (--batch) "
                                                            "into pieces without examples; use at most batch");
  assert_refused(LOAD("--method", "sgd", "--curvature-ranks", "1"),
                 "method sgd has no curvature for 1 curvature_ranks (--curvature-ranks); use 0 or auto, or another "
                 "method");
  assert_refused(LOAD("--method", "adamw", "--optimizer", "sgd"),
                 "method adamw contradicts optimizer sgd (--optimizer); leave optimizer at auto");
  ck_assert_int_eq(LOAD("--method", "sgd", "--optimizer", "adamw"), CURVD_ERR_OPTION);
  ck_assert_int_eq(LOAD("--epochs", "0"), CURVD_ERR_OPTION);
  assert_loads(LOAD("--epochs", "0", "--steps", "1", "--method", "sgd", "--curvature-ranks", "0", "--batch", "8",
                    "--accumulate", "8"));
  config_free(&loaded);
}
END_TEST

/* ---- YAML ---- */

START_TEST(test_yaml_forms) {
  file_write("---\n\"lr\": 0.5 # half\n'data': 'it''s here'\nnetwork: 784-500:tanh-10\n? batch\n: 7\nskip: ''\n...\n");
  assert_loads(LOAD("--config", path));
  ck_assert(loaded.values.lr.piece[0].value == 0.5);
  ck_assert_str_eq(loaded.values.data, "it's here");
  ck_assert_str_eq(loaded.values.network, "784-500:tanh-10");
  ck_assert_int_eq(loaded.values.batch, 7);
  ck_assert_str_eq(entry_of("skip")->text, "");
  config_free(&loaded);
  static const char *const empty[] = {"", "# nothing\n", "---\n", "{}\n"};
  for (int i = 0; i < 4; i++) {
    file_write(empty[i]);
    assert_loads(LOAD("--config", path));
    config_free(&loaded);
  }
}
END_TEST

START_TEST(test_yaml_refusals) {
  static const struct {
    const char *text, *place, *word; /* the sentence begins "<path><place>" and holds word */
  } refused[] = {
      {"lr: 1\nbatch: 2\nlr: 3\n", ":3:1: ", "lr is set twice, first at"},
      {"lr-decay: linear\nlr_decay: cosine\n", ":2:1: ", "twice"},
      {"\ndampng: 1\n", ":2:1: ", "unknown option 'dampng'; did you mean 'damping'?"},
      {"seed: 2\nbatch:   1.5\n", ":2:10: ", "batch = '1.5'"},
      {"lr: !!float 1\n", ":1:5: ", "tag"},
      {"!!str lr: 1\n", ":1:1: ", "tag"},
      {"lr: &a 1\n", ":1:5: ", "anchor"},
      {"lr: *a\n", ":1:5: ", "alias"},
      {"lr: &a 1\nbatch: *a\n", ":1:5: ", "anchor"},
      {"*a : 1\n", ":1:1: ", "alias"},
      {"lr: [1, 2]\n", ":1:5: ", "list"},
      {"training:\n  lr: 1\n", ":2:3: ", "nesting"},
      {"{a: 1}: 2\n", ":1:1: ", "nesting"},
      {"- lr\n", ":1:1: ", "name: value"},
      {"lr\n", ":1:1: ", "name: value"},
      {"&a\n", ":1:1: ", "name: value"},
      {"&a {lr: 1}\n", ":1:1: ", "anchor"},
      {"!t {lr: 1}\n", ":1:1: ", "tag"},
      {"lr: 1\n---\nbatch: 2\n", ":2:1: ", "second document"},
      {"lr:\n", ":1:4: ", "missing"},
      {": 1\n", ":1:1: ", "not YAML"},
      {"? \n: 1\n", ":1:2: ", "missing"},
      {"lr: 1\n\tbatch: 2\n", ":2:1: ", "not YAML"},
      {"lr: \"1\n", ":2:1: ", "not YAML"},
      {"lr: 1: 2\n", ":1:6: ", "not YAML"},
      {"lr: \"1\\0\"\n", ":1:5: ", "zero byte"},
      {"data: \"a\\nb\"\n", ":1:7: ", "data"},
      {"lr: \xff\n", ": byte 5: ", "UTF-8"},
      {"<<: 1\n", ":1:1: ", "unknown option '<<'"},
      {"config: x\n", ":1:1: ", "unknown option 'config'"},
  };
  for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
    file_write(refused[i].text);
    ck_assert_msg(LOAD("--config", path) == CURVD_ERR_OPTION, "accepted: %s", refused[i].text);
    const char *place = in_file(refused[i].place);
    ck_assert_msg(strncmp(err.text, place, strlen(place)) == 0, "%s\nin place of %s", err.text, place);
    ck_assert_msg(strstr(err.text, refused[i].word) != NULL, "%s\nlacks %s", err.text, refused[i].word);
  }
}
END_TEST

static curvd_status count_pairs(void *user, const config_pair *pair, cv_error *error) {
  (void)error;
  ck_assert_str_eq(pair->key, "k");
  ++*(int *)user;
  return CURVD_OK;
}

START_TEST(test_yaml_deep_nesting_and_size) {
  static char text[CONFIG_FILE_MAX + 2];
  int n = 0;
  memset(text, '[', sizeof text - 1);
  ck_assert_int_eq(config_yaml_parse(text, CONFIG_FILE_MAX, "deep", CONFIG_MAPPING, count_pairs, &n, NULL),
                   CURVD_ERR_OPTION);
  memset(text, '#', sizeof text - 1);
  memcpy(text, "k: v\n", 5);
  ck_assert_int_eq(config_yaml_parse(text, CONFIG_FILE_MAX, "full", CONFIG_MAPPING, count_pairs, &n, NULL), CURVD_OK);
  ck_assert_int_eq(n, 1);
  ck_assert_int_eq(config_yaml_parse(text, CONFIG_FILE_MAX + 1, "large", CONFIG_MAPPING, count_pairs, &n, NULL),
                   CURVD_ERR_OPTION);
  file_write(text);
  ck_assert_int_eq(LOAD("--config", path), CURVD_ERR_OPTION);
  ck_assert_str_eq(err.text, in_file(" is larger than 1048576 bytes"));
}
END_TEST

/* Every prefix of a file ends in a verdict, never in a crash (the sanitizers watch). */
START_TEST(test_yaml_prefixes) {
  static const char text[] = "k: 'a'\n\"k\": |\n  b\n  c\nk: >-\n  d\n? k\n: \"\\u00e9\\x41\"\n...\n";
  for (size_t n = 0; n < sizeof text; n++) {
    int count = 0;
    char *copy = malloc(n + 1); /* so that reading behind the end is seen */
    memcpy(copy, text, n);
    curvd_status status = config_yaml_parse(copy, n, "prefix", CONFIG_MAPPING, count_pairs, &count, NULL);
    ck_assert(status == CURVD_OK || status == CURVD_ERR_OPTION);
    free(copy);
    if (n == sizeof text - 1) ck_assert(status == CURVD_OK && count == 4);
  }
}
END_TEST

START_TEST(test_unreadable_files) {
  ck_assert_int_eq(LOAD("--config", "/nonexistent/run.yaml"), CURVD_ERR_IO);
  ck_assert_str_eq(err.text, "cannot open /nonexistent/run.yaml: No such file or directory");
  ck_assert_int_eq(LOAD("--config", "/tmp"), CURVD_ERR_IO);
  ck_assert_str_eq(err.text, "cannot read /tmp: Is a directory");
}
END_TEST

/* ---- Resolving and writing ---- */

START_TEST(test_resolve) {
  assert_loads(LOAD("--batch", "64", "--sgd-momentum=auto"));
  ck_assert_int_eq(config_resolve(&loaded, "lr", "0.001", &err), CURVD_OK);
  ck_assert(loaded.values.lr.piece[0].value == 0.001);
  ck_assert_str_eq(entry_of("lr")->origin, "default: auto -> 0.001");
  ck_assert_int_eq(config_resolve(&loaded, "sgd_momentum", "0", &err), CURVD_OK);
  ck_assert_str_eq(entry_of("sgd_momentum")->origin, "--sgd-momentum: auto -> 0");
  ck_assert_int_eq(config_resolve(&loaded, "optimizer", "sgd", &err), CURVD_OK);
  ck_assert_int_eq(loaded.values.optimizer, TRAIN_SGD);
  ck_assert_int_eq(config_resolve(&loaded, "batch", "64", &err), CURVD_OK);
  ck_assert_str_eq(entry_of("batch")->origin, "--batch"); /* nothing changed */
  ck_assert_int_eq(config_resolve(&loaded, "damping", "0.003", &err), CURVD_OK);
  ck_assert_str_eq(entry_of("damping")->origin, "recipe");
  ck_assert_str_eq(config_text(&loaded, "damping"), "0.003");
  ck_assert_int_eq(config_resolve(&loaded, "epochs", "-1", &err), CURVD_ERR_OPTION);
  ck_assert_str_eq(config_text(&loaded, "epochs"), "1");
  ck_assert_int_eq(config_resolve(&loaded, "no_such", "1", NULL), CURVD_ERR_OPTION);
  config_free(&loaded);
}
END_TEST

static void append_line(void *user, const char *text) {
  fprintf(user, "%s\n", text);
}

static void assert_same(const config *x, const config *y) {
  ck_assert_int_eq(x->n, y->n);
  for (int i = 0; i < x->n; i++) {
    ck_assert_str_eq(x->entry[i].name, y->entry[i].name);
    ck_assert_str_eq(x->entry[i].text, y->entry[i].text);
    if (x->entry[i].is_library)
      ck_assert_int_eq(x->entry[i].is_set || x->entry[i].origin[0] == 'r', y->entry[i].is_set);
  }
  ck_assert_mem_eq(&x->values.lr.piece[0], &y->values.lr.piece[0], sizeof x->values.lr.piece[0]);
  ck_assert_str_eq(x->values.data, y->values.data);
  ck_assert_str_eq(x->method, y->method);
}

START_TEST(test_written_configuration_reads_back) {
  static const char *const texts[] = {"it's: {odd} # not a comment",
                                      "- dash",
                                      "~",
                                      "*star",
                                      " blanks ",
                                      "\"quotes\"",
                                      "!tag",
                                      "plain/path.d-1_x",
                                      "",
                                      "a: b",
                                      "%x",
                                      "\xc3\xa9t\xc3\xa9",
                                      "null"};
  for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
    for (int with_origins = 0; with_origins < 2; with_origins++) {
      char data[100];
      snprintf(data, sizeof data, "--data=%s", texts[i]);
      assert_loads(LOAD(data, "--lr", "0.1, 0.05@2e", "--damping", "0.1, 0.01@30", "--method", "kfac"));
      ck_assert_int_eq(config_resolve(&loaded, "momentum", "0.5", &err), CURVD_OK);
      config first = loaded;
      FILE *file = fopen(path, "wb");
      ck_assert_ptr_nonnull(file);
      ck_assert_int_eq(config_write(&first, append_line, file, with_origins), CURVD_OK);
      fclose(file);
      assert_loads(LOAD("--config", path));
      assert_same(&first, &loaded);
      config_free(&first);
      config_free(&loaded);
    }
}
END_TEST

static void collect(void *user, const char *text) {
  char *all = user;
  snprintf(all + strlen(all), 20000 - strlen(all), "%s\n", text);
}

START_TEST(test_written_lines) {
  static char all[20000];
  assert_loads(LOAD("--batch", "64", "--lr", "0.1, 0.05@2e", "--momentum", "0.5"));
  ck_assert_int_eq(config_write(&loaded, collect, all, true), CURVD_OK);
  ck_assert_ptr_nonnull(strstr(all, "\nbatch: 64  # --batch\n"));
  ck_assert_ptr_nonnull(strstr(all, "\nlr: '0.1, 0.05@2e'  # --lr\n"));
  ck_assert_ptr_nonnull(strstr(all, "\nlr_decay: linear  # default\n"));
  ck_assert_ptr_nonnull(strstr(all, "\nmomentum: 0.5  # --momentum\n"));
  ck_assert_ptr_nonnull(strstr(all, "\n# damping: ")); /* setting it would override the recipe */
  config_free(&loaded);
}
END_TEST

/* ---- Suite ---- */

static void clear_environment(void) {
  static const char *const names[] = {"CURVD_BATCH",  "CURVD_LOG_EVERY", "CURVD_DATA_DIR", "CURVDX", "CURVD_DAMPNG",
                                      "CURVD_CONFIG", "CURVD_EPOCHS",    "CURVD_LAUNCHER", "CURVD_"};
  for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) unsetenv(names[i]);
}

/* ---- what the library is told ---- */

/* The last value counts, as for curvd_set. */
static void assert_captured(int n_ranks, curvd_status status, const char *rows) {
  run_shape *made = NULL;
  const char *found = "";
  assert_loads(status);
  ck_assert_msg(run_shape_make(&loaded, n_ranks, &made, &err) == CURVD_OK, "%s", err.text);
  for (int i = 0; i < made->shape.n_options; i++)
    if (strcmp(made->option[i].key, "capture_rows") == 0) found = made->option[i].value;
  ck_assert_str_eq(found, rows);
  free(made);
  config_free(&loaded);
}

/* 500 examples on 3 workers are 167 on one of them, of which every second, or fourth, is captured: from the first on.
 */
START_TEST(test_rows_that_a_worker_captures) {
  assert_captured(3, LOAD("--batch", "500", "--curvature-ranks", "0"), "84");
  assert_captured(4, LOAD("--batch", "500", "--curvature-ranks", "1", "--fisher-stride", "4"), "42");
  assert_captured(1, LOAD("--batch", "500", "--fisher-stride", "1"), "500");
  assert_captured(3, LOAD("--batch", "500", "--capture-rows", "1000"), "1000");
}
END_TEST

int main(void) {
  const TTest *const tests[] = {
      test_defaults,
      test_every_option_is_listed_once_and_explained,
      test_augmentation_options,
      test_later_sources_win_and_are_named,
      test_forms_of_flags,
      test_wrong_flags,
      test_long_words_are_refused,
      test_wrong_environment,
      test_combinations,
      test_yaml_forms,
      test_yaml_refusals,
      test_yaml_deep_nesting_and_size,
      test_yaml_prefixes,
      test_unreadable_files,
      test_resolve,
      test_rows_that_a_worker_captures,
      test_written_configuration_reads_back,
      test_written_lines,
  };
  int file = mkstemp(path);
  if (file < 0) return EXIT_FAILURE;
  close(file);
  int code = suite_run("config", tests, sizeof tests / sizeof tests[0], clear_environment);
  unlink(path);
  return code;
}
