/* The command line as a shell sees it: exit codes, stdout, stderr; and MPI stays asleep. */
#include "train/commands.h"
#include "train/config.h"

#include "run_command.h"
#include "suite.h"

#include <jansson.h>
#include <mpi.h>
#include <string.h>
#include <unistd.h>

/* ---- Helpers ---- */

static void assert_said(int code, int expected, const char *sentence) {
  ck_assert_int_eq(code, expected);
  ck_assert_str_eq(errors, sentence);
  ck_assert_str_eq(out, "");
}

static void assert_columns(int max) {
  for (const char *line = out; *line != '\0';) {
    int n = (int)strcspn(line, "\n");
    ck_assert_msg(n <= max, "%d columns: %.*s", n, n, line);
    line += n + (line[n] == '\n');
  }
}

/* ---- Tests ---- */

START_TEST(test_exit_codes) {
  static const struct {
    curvd_status status;
    int code;
  } codes[] = {{CURVD_OK, 0},         {CURVD_ERR_ARGUMENT, 1}, {CURVD_ERR_STATE, 1},   {CURVD_ERR_REMOTE, 1},
               {CURVD_ERR_OPTION, 2}, {CURVD_ERR_MISMATCH, 2}, {CURVD_ERR_SIZE, 2},    {CURVD_ERR_IO, 3},
               {CURVD_ERR_DATA, 3},   {CURVD_ERR_LAYOUT, 4},   {CURVD_ERR_NUMERIC, 5}, {CURVD_ERR_MEMORY, 6},
               {CURVD_ERR_MPI, 7},    {(curvd_status)99, 1}};
  for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++)
    ck_assert_int_eq(exit_code_of(codes[i].status), codes[i].code);
}
END_TEST

START_TEST(test_help_and_version) {
  ck_assert_int_eq(RUN("--help"), 0);
  ck_assert_str_eq(errors, "");
  assert_columns(100);
  static const char *const words[] = {"curvd train",
                                      "curvd plan [--ranks N",
                                      "curvd tune [--ranks N]",
                                      "curvd options",
                                      "curvd check",
                                      "curvd report [--output FILE.html] PATH...",
                                      "CURVD_",
                                      "Exit codes",
                                      "  7  MPI"};
  for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) ck_assert_ptr_nonnull(strstr(out, words[i]));
  ck_assert_int_eq(RUN("--version"), 0);
  ck_assert_ptr_nonnull(strstr(out, curvd_version()));
  ck_assert_ptr_nonnull(strstr(out, curvd_build_info()));
  ck_assert_int_eq(RUN("check", "-h"), 0);
  ck_assert_ptr_nonnull(strstr(out, "curvd check --config FILE"));
  ck_assert_int_eq(RUN("train", "--lr", "nonsense", "--help"), 0); /* help comes before any check */
}
END_TEST

static void assert_every_option_is_listed(void) {
  config defaults;
  ck_assert_int_eq(config_defaults(&defaults, NULL), CURVD_OK);
  for (int i = 0; i < defaults.n; i++) {
    char flag[100] = "\n  --";
    strcat(flag, defaults.entry[i].name);
    strcat(flag, " ");
    for (char *c = flag; *c != '\0'; c++)
      if (*c == '_') *c = '-';
    const char *found = strstr(out, flag);
    ck_assert_msg(found != NULL, "no%s", flag);
    ck_assert_ptr_null(strstr(found + 1, flag));
  }
  config_free(&defaults);
}

START_TEST(test_options_are_listed) {
  ck_assert_int_eq(RUN("train", "--help"), 0);
  assert_columns(100);
  assert_every_option_is_listed();
  ck_assert_int_eq(RUN("options"), 0);
  ck_assert_str_eq(errors, "");
  assert_columns(100);
  assert_every_option_is_listed();
}
END_TEST

START_TEST(test_origins) {
  setenv("CURVD_EPOCHS", "2", 1);
  ck_assert_int_eq(RUN("options", "--origins", "--batch=64"), 0);
  unsetenv("CURVD_EPOCHS");
  static const char *const lines[][3] = {{"\nbatch ", " 64 ", "--batch"}, {"\nepochs ", " 2 ", "environment"}};
  for (size_t i = 0; i < 2; i++) {
    const char *line = strstr(out, lines[i][0]);
    ck_assert_ptr_nonnull(line);
    const char *value = strstr(line, lines[i][1]), *origin = strstr(line, lines[i][2]), *end = strchr(line + 1, '\n');
    ck_assert(value != NULL && origin != NULL && value < origin && origin < end);
  }
}
END_TEST

START_TEST(test_manual_of_a_format) {
  ck_assert_int_eq(RUN("options", "--format", "man"), 0);
  ck_assert_ptr_nonnull(strstr(out, "\n.TH CURVD 1 "));
  ck_assert_int_eq(RUN("options", "--format=bash"), 0);
  ck_assert_ptr_nonnull(strstr(out, "\ncomplete -F _curvd curvd\n"));
  assert_said(RUN("options", "--format", "html"), 2,
              "curvd: --format: expected man, markdown, bash or zsh, not 'html'\n");
  assert_said(RUN("options", "--format"), 2, "curvd: --format: expected man, markdown, bash or zsh, not ''\n");
  assert_said(RUN("options", "--format=man", "--lr"), 2, "curvd: unexpected word '--lr': --format NAME stands alone\n");
  ck_assert_int_eq(RUN("options", "--formats=man"), 2);
}
END_TEST

START_TEST(test_check) {
  ck_assert_int_eq(RUN("check", "--batch", "64", "--no-warm-start"), 0);
  ck_assert_str_eq(out, "command line: ok (2 values set)\n");
  char path[] = "/tmp/curvd_test_commands_XXXXXX", expected[80];
  int descriptor = mkstemp(path);
  ck_assert_int_ge(descriptor, 0);
  ck_assert_int_eq(write(descriptor, "lr: 1e-3\n", 9), 9);
  close(descriptor);
  int code = RUN("check", "--config", path);
  unlink(path);
  ck_assert_int_eq(code, 0);
  snprintf(expected, sizeof expected, "%s: ok (1 value set)\n", path);
  ck_assert_str_eq(out, expected);
  ck_assert_int_eq(RUN("check", "--network", "784-oops-10"), 2);
  ck_assert_msg(strncmp(errors, "curvd: ", 7) == 0 && strstr(errors, "oops") != NULL, "%s", errors);
  ck_assert_str_eq(out, "");
}
END_TEST

/* Values that are fine one by one. */
START_TEST(test_check_of_combinations) {
  assert_said(RUN("check", "--carrier", "local", "--curvature-ranks", "1"), 2,
              "curvd: carrier local needs owners that are workers: curvature_ranks 0\n");
  assert_said(RUN("check", "--carrier", "sketch", "--method", "kfac"), 2,
              "curvd: carrier sketch needs method nystrom-kfac\n");
  ck_assert_int_eq(RUN("check", "--curvature-ranks", "3", "--staleness", "5"), 0);
  ck_assert_int_eq(RUN("check", "--method", "sgd"), 0);
  ck_assert_int_eq(RUN("check", "--inv-update-steps", "1000000000"), 0); /* too long to be predicted, not to be run */
}
END_TEST

START_TEST(test_wrong_words) {
  assert_said(run(1, (const char *const[]){"curvd"}), 2,
              "curvd: a command is missing; `curvd --help` lists the commands\n");
  assert_said(RUN("trian"), 2, "curvd: unknown command 'trian'; did you mean 'train'?\n");
  assert_said(RUN("optoins", "--origins"), 2, "curvd: unknown command 'optoins'; did you mean 'options'?\n");
  assert_said(RUN("zzz"), 2, "curvd: unknown command 'zzz'; `curvd --help` lists the commands\n");
  assert_said(RUN("check", "--dampng=1"), 2, "curvd: unknown option --dampng; did you mean --damping?\n");
  assert_said(RUN("check", "--config", "/nonexistent"), 3,
              "curvd: cannot open /nonexistent: No such file or directory\n");
  ck_assert_int_eq(RUN("options", "--orgins"), 2);
  ck_assert_int_eq(RUN("options", "--origins", "--lr", "x"), 2);
}
END_TEST

/* 3 workers and a curvature rank by themselves; 200 layers; no MPI, no data. */
START_TEST(test_plan_of_ranks_that_are_not_there) {
  ck_assert_int_eq(RUN("plan", "--ranks", "4"), 0);
  ck_assert_str_eq(errors, "");
  assert_columns(140);
  static const char *const words[] = {
      "3 workers, 1 curvature rank", "\nfc3 ",    "rank 3",   "triangle", "sharded", "\nrefresh ", "\nstep ",
      "preconditioners: age",        "MB in all", "KB a step"};
  for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
    ck_assert_msg(strstr(out, words[i]) != NULL, "no '%s' in %s", words[i], out);
  ck_assert_int_eq(RUN("plan", "--network=16x201", "--ranks=4096", "--curvature-ranks", "96"), 0);
  ck_assert_ptr_nonnull(strstr(out, "4000 workers, 96 curvature ranks"));
  ck_assert_ptr_nonnull(strstr(out, "... and 192 more layers"));
  ck_assert_int_eq(RUN("plan", "--ranks", "2", "--method", "sgd"), 0);
  ck_assert_ptr_nonnull(strstr(out, "not preconditioned"));
}
END_TEST

START_TEST(test_plan_as_json) {
  json_error_t why;
  ck_assert_int_eq(RUN("plan", "--ranks", "3", "--json", "--curvature-ranks", "1", "--staleness", "2"), 0);
  json_t *plan = json_loads(out, 0, &why);
  ck_assert_msg(plan != NULL, "%s: %s", why.text, out);
  ck_assert_int_eq(json_integer_value(json_object_get(plan, "workers")), 2);
  ck_assert_int_eq(json_integer_value(json_object_get(plan, "age_max")), 11); /* interval 10, 2 stale: 9 + 2 */
  ck_assert(json_real_value(json_object_get(plan, "step_s")) > 0);
  json_t *layer = json_array_get(json_object_get(plan, "layers"), 2), *G = json_object_get(layer, "G");
  ck_assert_str_eq(json_string_value(json_object_get(layer, "layer")), "fc3");
  ck_assert_int_eq(json_integer_value(json_object_get(layer, "owner")), 2);
  ck_assert_int_eq(json_integer_value(json_object_get(G, "eig_rank")), 10);
  /* gradients of 2 workers, 4 bytes each; one of them makes the direction of fc2, the other those of fc1 and fc3 */
  json_t *sent = json_object_get(json_object_get(plan, "worker_most"), "sent_bytes_per_step");
  ck_assert(json_number_value(json_object_get(sent, "gradients")) ==
            4.0 * (1000 * 785 + 1000 * 1001 + 10 * 1001 + 1000 * 1001));
  json_decref(plan);
}
END_TEST

START_TEST(test_wrong_plans) {
  assert_said(RUN("plan", "--ranks", "0"), 2, "curvd: --ranks: '0' is no integer of 1 to 4096\n");
  assert_said(RUN("plan", "--ranks=4097"), 2, "curvd: --ranks: '4097' is no integer of 1 to 4096\n");
  assert_said(RUN("plan", "--ranks"), 2, "curvd: --ranks: a value is missing\n");
  assert_said(RUN("plan", "--json"), 2, "curvd: --json tells of predicted ranks: add --ranks N\n");
  assert_said(RUN("plan", "--ranks", "4", "--dampng=1"), 2,
              "curvd: unknown option --dampng; did you mean --damping?\n");
  assert_said(RUN("plan", "--ranks", "2", "--curvature-ranks", "2"), 4,
              "curvd: curvature_ranks 2 of 2 ranks leave no worker: use at most 1\n");
  assert_said(RUN("tune", "--age-max", "-1"), 2, "curvd: --age-max: '-1' is no integer of 0 to 1000000\n");
  assert_said(RUN("tune", "--method", "sgd"), 2, "curvd: method sgd has no curvature to tune\n");
  ck_assert_int_eq(RUN("tune", "--ranks", "4", "--lrr", "1"), 2);
  ck_assert_int_eq(RUN("tune", "--help"), 0);
  ck_assert_ptr_nonnull(strstr(out, "--age-max"));
}
END_TEST

START_TEST(test_tune) {
  ck_assert_int_eq(RUN("tune", "--ranks", "4", "--network", "20-30-10", "--batch", "40", "--age-max", "9"), 0);
  static const char *const words[] = {"products ", "(default); of two nodes", "4 ranks", "at most 9 steps old",
                                      "\nuse: --curvature-ranks "};
  for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
    ck_assert_msg(strstr(out, words[i]) != NULL, "no '%s' in %s", words[i], out);
  ck_assert_ptr_nonnull(strstr(errors, "curvd tune: ")); /* progress */
  ck_assert_int_eq(RUN("tune", "--json", "--ranks", "3", "--network", "20-30-10", "--batch", "40"), 0);
  json_t *tuned = json_loads(out, 0, NULL), *best = json_array_get(json_object_get(tuned, "best"), 0);
  ck_assert_msg(best != NULL, "%s", out);
  ck_assert_int_le(json_integer_value(json_object_get(best, "age_max")), 20);
  ck_assert(json_real_value(json_object_get(tuned, "train_s")) > 0);
  ck_assert(json_is_false(json_object_get(json_object_get(tuned, "machine"), "within_is_measured")));
  json_decref(tuned);
}
END_TEST

START_TEST(test_full_disk_is_an_error) {
  FILE *full = fopen("/dev/full", "w"), *error_file = tmpfile();
  ck_assert(full != NULL && error_file != NULL);
  char program[] = "curvd", word[] = "options";
  char *argv[] = {program, word};
  fflush(stdout);
  int kept_out = divert(STDOUT_FILENO, full), kept_error = divert(STDERR_FILENO, error_file);
  int code = commands_run(2, argv);
  dup2(kept_out, STDOUT_FILENO);
  close(kept_out);
  fclose(full);
  restore(kept_error, STDERR_FILENO, error_file, errors);
  clearerr(stdout);
  ck_assert_int_eq(code, 3);
  ck_assert_ptr_nonnull(strstr(errors, "cannot be written"));
}
END_TEST

/* Runs last. */
START_TEST(test_none_of_this_used_mpi) {
  int is_initialised = 1;
  MPI_Initialized(&is_initialised);
  ck_assert(!is_initialised);
}
END_TEST

int main(void) {
  const TTest *const tests[] = {
      test_exit_codes,
      test_help_and_version,
      test_options_are_listed,
      test_origins,
      test_manual_of_a_format,
      test_check,
      test_check_of_combinations,
      test_wrong_words,
      test_plan_of_ranks_that_are_not_there,
      test_plan_as_json,
      test_wrong_plans,
      test_tune,
      test_full_disk_is_an_error,
      test_none_of_this_used_mpi,
  };
  return suite_run("commands", tests, sizeof tests / sizeof tests[0], NULL);
}
