/* curvd checkpoint: what is in a run's checkpoints, and whether it is whole. */
#include "base/options.h"
#include "save/checkpoint.h"
#include "save/folder.h"
#include "train/checkpoint_arrays.h"
#include "train/commands.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { PATH_MAX_HERE = 1000 };

/* ---- folders ---- */

static bool is_folder(const char *path) {
  struct stat about;
  return stat(path, &about) == 0 && S_ISDIR(about.st_mode);
}

/* A run's folder stands for the checkpoints in it. */
static void find_checkpoints(const char *given, char path[PATH_MAX_HERE]) {
  snprintf(path, PATH_MAX_HERE, "%.900s/checkpoints", given);
  if (!is_folder(path)) snprintf(path, PATH_MAX_HERE, "%.900s", given);
}

/* Names that look like checkpoints, whether they are whole or not. *step: free. */
static curvd_status all_steps(const char *path, int64_t **step, int64_t *n, cv_error *err) {
  int parent = -1;
  CV_TRY(folder_open(path, &parent, err));
  curvd_status status = folder_steps(parent, false, step, n, err);
  close(parent);
  return status;
}

/* ---- list ---- */

/* "35 s", "12 min", "3 h", "2 days" since the folder got its last file */
static void tell_age(const char *path, char text[24]) {
  struct stat about;
  double s = stat(path, &about) == 0 ? difftime(time(NULL), about.st_mtime) : 0;
  if (s < 0) s = 0;
  if (s < 100)
    snprintf(text, 24, "%.0f s", s);
  else if (s < 100 * 60)
    snprintf(text, 24, "%.0f min", s / 60);
  else if (s < 48 * 3600)
    snprintf(text, 24, "%.0f h", s / 3600);
  else
    snprintf(text, 24, "%.0f days", s / 86400);
}

static void list_line(const char *folder, int64_t step) {
  cv_error err = {.code = CURVD_OK};
  checkpoint *cp = NULL;
  char path[PATH_MAX_HERE], age[24];
  if (!checkpoint_path(folder, step, path, sizeof path)) return;
  tell_age(path, age);
  if (checkpoint_open(path, &cp, &err) == CURVD_OK)
    printf("%12lld %12.3f %10s %6lld  ok\n", (long long)step, (double)checkpoint_bytes(cp) / 1e6, age,
           (long long)checkpoint_ranks(cp));
  else
    printf("%12lld %12s %10s %6s  %s\n", (long long)step, "-", age, "-", err.text);
  checkpoint_close(&cp);
}

static int list(char **word) {
  cv_error err = {.code = CURVD_OK};
  char folder[PATH_MAX_HERE];
  int64_t *step = NULL, n = 0;
  find_checkpoints(word[0], folder);
  if (all_steps(folder, &step, &n, &err) != CURVD_OK) return command_failed(&err);
  if (n == 0) printf("%s: no checkpoints\n", folder);
  if (n > 0) printf("%12s %12s %10s %6s\n", "step", "MB", "age", "ranks");
  for (int64_t i = 0; i < n; i++) list_line(folder, step[i]);
  free(step);
  return EXIT_CODE_OK;
}

/* ---- verify ---- */

static void print_finding(void *user, const char *finding) {
  (void)user;
  printf("%s\n", finding);
}

/* One checkpoint; prints what is wrong with it. */
static curvd_status verify_one(const char *path, cv_error *err) {
  checkpoint *cp = NULL;
  curvd_status status = checkpoint_open(path, &cp, err);
  if (status != CURVD_OK) {
    print_finding(NULL, err->text);
    return status;
  }
  status = checkpoint_verify(cp, print_finding, NULL, err);
  if (status == CURVD_OK)
    printf("step %lld: ok (%lld arrays in %lld shards, %.3f MB)\n", (long long)checkpoint_step(cp),
           (long long)checkpoint_count(cp), (long long)checkpoint_ranks(cp), (double)checkpoint_bytes(cp) / 1e6);
  checkpoint_close(&cp);
  return status;
}

static curvd_status verify_all(const char *folder, const int64_t *step, int64_t n, cv_error *err) {
  int64_t n_bad = 0;
  char path[PATH_MAX_HERE];
  if (n == 0) return cv_fail(err, CURVD_ERR_DATA, "%.300s: no checkpoints", folder);
  for (int64_t i = 0; i < n; i++) {
    cv_error one = {.code = CURVD_OK};
    if (!checkpoint_path(folder, step[i], path, sizeof path) || verify_one(path, &one) != CURVD_OK) n_bad++;
  }
  if (n_bad == 0) return CURVD_OK;
  return cv_fail(err, CURVD_ERR_DATA, "%lld of %lld checkpoints are damaged", (long long)n_bad, (long long)n);
}

static curvd_status verify_folder(const char *given, cv_error *err) {
  char folder[PATH_MAX_HERE];
  int64_t *step = NULL, n = 0;
  find_checkpoints(given, folder);
  CV_TRY(all_steps(folder, &step, &n, err));
  curvd_status status = verify_all(folder, step, n, err);
  free(step);
  return status;
}

/* Is the folder itself a checkpoint, or called like one? */
static bool is_one(const char *path) {
  char manifest[PATH_MAX_HERE];
  const char *name = strrchr(path, '/') != NULL ? strrchr(path, '/') + 1 : path;
  snprintf(manifest, sizeof manifest, "%.900s/manifest.json", path);
  return access(manifest, F_OK) == 0 || strncmp(name, "step-", 5) == 0;
}

static int verify(char **word) {
  cv_error err = {.code = CURVD_OK};
  curvd_status status = is_one(word[0]) ? verify_one(word[0], &err) : verify_folder(word[0], &err);
  return status == CURVD_OK ? EXIT_CODE_OK : command_failed(&err);
}

/* ---- diff, export ---- */

static int diff(char **word) {
  cv_error err = {.code = CURVD_OK};
  checkpoint *x = NULL, *y = NULL;
  bool is_equal = false;
  curvd_status status = checkpoint_open(word[0], &x, &err);
  if (status == CURVD_OK) status = checkpoint_open(word[1], &y, &err);
  if (status == CURVD_OK) status = checkpoint_diff(x, y, &is_equal, &err);
  checkpoint_close(&x);
  checkpoint_close(&y);
  if (status != CURVD_OK) return command_failed(&err);
  return is_equal ? EXIT_CODE_OK : EXIT_CODE_DIFFERENT;
}

static int export_arrays(char **word) {
  cv_error err = {.code = CURVD_OK};
  checkpoint *cp = NULL;
  curvd_status status = checkpoint_open(word[0], &cp, &err);
  if (status == CURVD_OK) status = checkpoint_export(cp, word[1], &err);
  checkpoint_close(&cp);
  return status == CURVD_OK ? EXIT_CODE_OK : command_failed(&err);
}

/* ---- words ---- */

static const struct {
  const char *name, *words;
  int n_words;
  int (*run)(char **word);
} actions[] = {{"list", "FOLDER", 1, list},
               {"verify", "FOLDER", 1, verify},
               {"diff", "CHECKPOINT CHECKPOINT", 2, diff},
               {"export", "CHECKPOINT FOLDER", 2, export_arrays}};
enum { N_ACTIONS = sizeof actions / sizeof actions[0] };

static int unknown_word(const char *word) {
  cv_error err = {.code = CURVD_OK};
  const char *names[N_ACTIONS];
  for (int i = 0; i < N_ACTIONS; i++) names[i] = actions[i].name;
  const char *near = cv_nearest_name(word, names, N_ACTIONS);
  if (near != NULL)
    cv_fail(&err, CURVD_ERR_OPTION, "checkpoint: unknown word '%.60s'; did you mean '%s'?", word, near);
  else
    cv_fail(&err, CURVD_ERR_OPTION, "checkpoint: expected list, verify, diff or export, not '%.60s'", word);
  return command_failed(&err);
}

int cmd_checkpoint(int argc, char **argv) {
  cv_error err = {.code = CURVD_OK};
  for (int i = 0; i < N_ACTIONS && argc > 0; i++) {
    if (strcmp(argv[0], actions[i].name) != 0) continue;
    if (argc - 1 == actions[i].n_words && argv[1][0] != '-') return actions[i].run(argv + 1);
    cv_fail(&err, CURVD_ERR_OPTION, "usage: curvd checkpoint %s %s", actions[i].name, actions[i].words);
    return command_failed(&err);
  }
  return unknown_word(argc > 0 ? argv[0] : "");
}
