/* run.h: what is written where, read back as a user would: files, lines on a pipe, lines on a terminal. */
#define _XOPEN_SOURCE 700 /* posix_openpt */

#include "train/run.h"

#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <math.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static char folder[] = "/tmp/curvd_test_run_XXXXXX";
static config settings;
static run r;
static cv_error error;

/* ---- Helpers ---- */

static void enter_folder(void) {
  memcpy(folder + strlen(folder) - 6, "XXXXXX", 6);
  ck_assert_ptr_nonnull(mkdtemp(folder));
  ck_assert_int_eq(chdir(folder), 0);
  unsetenv("COLUMNS");
  setenv("TERM", "xterm", 1);
  cv_error_clear(&error);
  memset(&r, 0, sizeof r);
  ck_assert_int_eq(config_defaults(&settings, &error), CURVD_OK);
}

static void leave_folder(void) {
  char command[sizeof folder + 16];
  run_close(&r, false);
  config_free(&settings);
  snprintf(command, sizeof command, "rm -rf %s", folder);
  ck_assert_int_eq(chdir("/"), 0);
  ck_assert_int_eq(system(command), 0);
}

static curvd_status open_run(const char *run_dir) {
  snprintf(settings.values.run_dir, sizeof settings.values.run_dir, "%s", run_dir);
  return run_open(&settings, "kfac", 7, &r, &error);
}

/* Whole file as a string. */
static const char *contents(const char *path) {
  static char text[65536];
  FILE *file = fopen(path, "r");
  ck_assert_msg(file, "%s: %s", path, strerror(errno));
  size_t n = fread(text, 1, sizeof text - 1, file);
  fclose(file);
  text[n] = '\0';
  return text;
}

static bool exists(const char *path) {
  return access(path, F_OK) == 0;
}

static int n_entries(const char *path) {
  int n = 0;
  DIR *list = opendir(path);
  ck_assert_msg(list, "%s: %s", path, strerror(errno));
  while (readdir(list)) n++;
  closedir(list);
  return n - 2;
}

/* stdout goes to a file until it is read. */
static int kept_stdout = -1;

static void stdout_to(int descriptor) {
  fflush(stdout);
  kept_stdout = dup(STDOUT_FILENO);
  ck_assert_int_ge(dup2(descriptor, STDOUT_FILENO), 0);
}

static void stdout_back(void) {
  fflush(stdout);
  dup2(kept_stdout, STDOUT_FILENO);
  close(kept_stdout);
}

static void stdout_to_file(void) {
  int file = open("stdout", O_WRONLY | O_CREAT | O_TRUNC, 0600);
  ck_assert_int_ge(file, 0);
  stdout_to(file);
  close(file);
}

/* A terminal that is `columns` wide; what is written there is read from the descriptor that comes back. */
static int stdout_to_terminal(unsigned short columns) {
  int master = posix_openpt(O_RDWR | O_NOCTTY);
  ck_assert_int_ge(master, 0);
  ck_assert_int_eq(grantpt(master) | unlockpt(master), 0);
  int slave = open(ptsname(master), O_RDWR | O_NOCTTY);
  ck_assert_int_ge(slave, 0);
  struct winsize size = {.ws_row = 24, .ws_col = columns};
  ck_assert_int_eq(ioctl(slave, TIOCSWINSZ, &size), 0);
  stdout_to(slave);
  close(slave);
  return master;
}

/* Ends the terminal: what was written is read up to the end that shows when nobody has it open any more. */
static const char *terminal_contents(int master) {
  static char text[16384];
  size_t length = 0;
  stdout_back();
  for (ssize_t n; (n = read(master, text + length, sizeof text - 1 - length)) > 0;) length += (size_t)n;
  text[length] = '\0';
  close(master);
  return text;
}

static int count(const char *text, const char *what) {
  int n = 0;
  for (const char *at = strstr(text, what); at; at = strstr(at + strlen(what), what)) n++;
  return n;
}

static const run_progress half = {
    .step = 40, .total_steps = 80, .epoch = 0.5, .epochs = 3, .loss = 0.5123456, .lr = 1e-3, .step_s = 0.0714};
static const char half_text[] = "epoch 1/3 step 40/80 loss 0.5123 lr 0.001 71 ms/step 0:03 left";

/* ---- Folder ---- */

START_TEST(test_auto_folder_is_named_and_unique) {
  char first[CV_OPTION_TEXT_MAX], expected[CV_OPTION_TEXT_MAX];
  struct tm utc = {.tm_isdst = 0};
  time_t before = time(NULL);
  setenv("TZ", "Asia/Tokyo", 1); /* names are UTC wherever one is */
  ck_assert_int_eq(open_run("auto"), CURVD_OK);
  bool is_named = false;
  for (time_t t = before; t <= time(NULL); t++) {
    gmtime_r(&t, &utc);
    strftime(expected, sizeof expected, "runs/%Y%m%d-%H%M%S-kfac-s7", &utc);
    if (strcmp(expected, r.folder) == 0) is_named = true;
  }
  ck_assert_msg(is_named, "%s", r.folder);
  ck_assert_int_eq(n_entries(r.folder), 3); /* and `lock` */
  snprintf(first, sizeof first, "%s", r.folder);
  run_close(&r, false);
  /* every name of the next seconds is taken */
  for (time_t t = time(NULL), end = t + 5; t < end; t++) {
    gmtime_r(&t, &utc);
    strftime(expected, sizeof expected, "runs/%Y%m%d-%H%M%S-kfac-s7", &utc);
    mkdir(expected, 0700);
    strcat(expected, "-2");
    mkdir(expected, 0700);
  }
  ck_assert_int_eq(open_run("auto"), CURVD_OK);
  ck_assert_str_eq(r.folder + strlen(r.folder) - 5, "-s7-3");
  ck_assert_int_eq(strlen(r.folder), strlen(first) + 2);
}
END_TEST

static void append_line(void *user, const char *text) {
  strcat(user, text);
  strcat(user, "\n");
}

START_TEST(test_folder_holds_configuration_and_empty_metrics) {
  ck_assert_int_eq(open_run("a/b//c/"), CURVD_OK);
  ck_assert_str_eq(r.folder, "a/b//c");
  ck_assert_str_eq(contents("a/b/c/metrics.jsonl"), "");
  char expected[65536] = "";
  config_write(&settings, append_line, expected, true);
  ck_assert_str_eq(contents("a/b/c/config.yaml"), expected);
  ck_assert_ptr_nonnull(strstr(expected, "\nseed: 1"));
  ck_assert_int_eq(n_entries("a/b/c"), 3); /* and `lock` */
}
END_TEST

START_TEST(test_close_removes_what_was_made_only) {
  mkdir("a", 0700);
  ck_assert_int_eq(open_run("a/b/c"), CURVD_OK);
  run_close(&r, true);
  ck_assert(!r.is_open);
  ck_assert(exists("a") && !exists("a/b"));
  mkdir("a/b", 0700);
  ck_assert_int_eq(open_run("a/b"), CURVD_OK);
  run_close(&r, true);
  ck_assert_int_eq(n_entries("a/b"), 0);
  ck_assert_int_eq(open_run("a/b/d"), CURVD_OK);
  FILE *mine = fopen("a/b/d/mine", "w");
  ck_assert_ptr_nonnull(mine);
  fclose(mine);
  run_close(&r, true);
  ck_assert_int_eq(n_entries("a/b/d"), 1);
  ck_assert_int_eq(open_run("auto"), CURVD_OK);
  run_close(&r, true);
  ck_assert(!exists("runs"));
  ck_assert_int_eq(open_run("auto"), CURVD_OK);
  run_close(&r, false);
  ck_assert_int_eq(n_entries("runs"), 1);
}
END_TEST

/* What somebody else calls so stays. */
START_TEST(test_lock_of_somebody_else_is_not_removed) {
  mkdir("a", 0700);
  FILE *mine = fopen("a/lock", "w");
  ck_assert_ptr_nonnull(mine);
  fputs("mine", mine);
  fclose(mine);
  ck_assert_int_eq(open_run("a"), CURVD_OK);
  run_close(&r, true);
  ck_assert_str_eq(contents("a/lock"), "mine");
  ck_assert_int_eq(n_entries("a"), 1);
}
END_TEST

/* fcntl(2) has no such lock any more in this process, as on a file system without. */
static bool forbid_locks(void) {
  enum { F_OFD_SETLK_LINUX = 37 };
  struct sock_filter steps[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_fcntl, 0, 3),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[1])), /* low half: little endian */
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, F_OFD_SETLK_LINUX, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOLCK),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  struct sock_fprog program = {.len = sizeof steps / sizeof steps[0], .filter = steps};
  return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

/* A process of its own, which cannot take the filter back. */
static int open_without_locks(void) {
  if (!forbid_locks()) return 2;
  if (open_run("a") != CURVD_OK) return 3;
  run_tell_lock(&r);
  run_close(&r, false);
  return 0;
}

START_TEST(test_no_locks_are_a_warning) {
  int status = 0;
  stdout_to_file();
  pid_t child = fork();
  if (child == 0) _exit(open_without_locks());
  waitpid(child, &status, 0);
  ck_assert_int_eq(open_run("b"), CURVD_OK);
  run_tell_lock(&r); /* nothing to tell */
  stdout_back();
  ck_assert_msg(WIFEXITED(status), "ended by signal %d", WTERMSIG(status));
  ck_assert_int_eq(WEXITSTATUS(status), 0);
  const char *text = contents("stdout");
  ck_assert_int_eq(count(text, "warning: a/lock cannot be locked: No locks available; nothing keeps another run"), 1);
  ck_assert_int_eq(count(text, "warning:"), 1);
}
END_TEST

START_TEST(test_second_run_in_a_folder_is_refused) {
  ck_assert_int_eq(open_run("a"), CURVD_OK);
  run_record(&r, run_record_new("run", 0));
  run_close(&r, false);
  char config_before[65536];
  snprintf(config_before, sizeof config_before, "%s", contents("a/config.yaml"));
  ck_assert_int_eq(open_run("a"), CURVD_ERR_IO);
  ck_assert(!r.is_open);
  ck_assert_ptr_nonnull(strstr(error.text, "a/config.yaml"));
  ck_assert_ptr_nonnull(strstr(error.text, "--run-dir"));
  ck_assert_str_eq(contents("a/config.yaml"), config_before);
  /* the metrics alone are enough: then the new config.yaml goes again */
  unlink("a/config.yaml");
  cv_error_clear(&error);
  ck_assert_int_eq(open_run("a"), CURVD_ERR_IO);
  ck_assert_ptr_nonnull(strstr(error.text, "a/metrics.jsonl"));
  ck_assert_str_eq(contents("a/metrics.jsonl"), "{\"kind\":\"run\",\"step\":0}\n");
  ck_assert_int_eq(n_entries("a"), 2); /* and `lock` of the first run */
}
END_TEST

START_TEST(test_impossible_folders_leave_nothing) {
  char deep[CV_OPTION_TEXT_MAX];
  FILE *file = fopen("file", "w");
  ck_assert_ptr_nonnull(file);
  fclose(file);
  ck_assert_int_eq(open_run("file"), CURVD_ERR_IO);
  ck_assert_ptr_nonnull(strstr(error.text, "file"));
  cv_error_clear(&error);
  ck_assert_int_eq(open_run("file/x/y"), CURVD_ERR_IO);
  ck_assert_ptr_nonnull(strstr(error.text, strerror(ENOTDIR)));
  cv_error_clear(&error);
  ck_assert_int_eq(open_run(""), CURVD_ERR_OPTION);
  /* new/new2 can be made, the part behind is too long for a name */
  memset(deep, 'x', sizeof deep);
  memcpy(deep, "new/new2/", 9);
  deep[sizeof deep - 1] = '\0';
  memcpy(deep + 400, "/y", 3);
  cv_error_clear(&error);
  ck_assert_int_eq(open_run(deep), CURVD_ERR_IO);
  ck_assert_ptr_nonnull(strstr(error.text, strerror(ENAMETOOLONG)));
  ck_assert(!r.is_open);
  ck_assert_int_eq(n_entries("."), 1);
}
END_TEST

/* What a full disk does, by the limit on a file's size. */
static void files_end_at(rlim_t bytes) {
  struct rlimit limit;
  signal(SIGXFSZ, SIG_IGN);
  ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &limit), 0);
  limit.rlim_cur = bytes;
  ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

START_TEST(test_full_disk_at_the_start_leaves_nothing) {
  files_end_at(10);
  curvd_status status = open_run("auto");
  files_end_at(RLIM_INFINITY);
  ck_assert_int_eq(status, CURVD_ERR_IO);
  ck_assert_ptr_nonnull(strstr(error.text, "config.yaml"));
  ck_assert_ptr_nonnull(strstr(error.text, strerror(EFBIG)));
  ck_assert_int_eq(n_entries("."), 0);
}
END_TEST

/* ---- metrics.jsonl ---- */

START_TEST(test_records_are_lines_of_json) {
  ck_assert_int_eq(open_run("a"), CURVD_OK);
  json_t *record = run_record_new("step", INT64_C(5000000000));
  run_record_real(record, "loss", 0.1);
  run_record_real(record, "bad", NAN);
  run_record_real(record, "worse", -INFINITY);
  run_record(&r, record);
  run_record(&r, run_record_new("end", 2));
  /* both are on disk before the file is closed */
  ck_assert_str_eq(contents("a/metrics.jsonl"),
                   "{\"kind\":\"step\",\"step\":5000000000,\"loss\":0.1,\"bad\":null,\"worse\":null}\n"
                   "{\"kind\":\"end\",\"step\":2}\n");
}
END_TEST

START_TEST(test_record_reference_is_taken) {
  ck_assert_int_eq(open_run("a"), CURVD_OK);
  json_t *record = run_record_new("step", 1);
  json_incref(record);
  run_record(&r, record);
  ck_assert_int_eq(record->refcount, 1);
  run_close(&r, false);
  json_incref(record);
  run_record(&r, record);
  ck_assert_int_eq(record->refcount, 1);
  json_decref(record);
}
END_TEST

START_TEST(test_missing_record_is_a_warning) {
  ck_assert_int_eq(open_run("a"), CURVD_OK);
  stdout_to_file();
  run_record(&r, NULL);
  stdout_back();
  run_record(&r, run_record_new("end", 3));
  ck_assert_ptr_nonnull(strstr(contents("stdout"), "warning: a record is left out"));
  ck_assert_str_eq(contents("a/metrics.jsonl"), "{\"kind\":\"end\",\"step\":3}\n");
}
END_TEST

START_TEST(test_full_disk_is_said_once) {
  ck_assert_int_eq(open_run("a"), CURVD_OK);
  run_record(&r, run_record_new("run", 0));
  int master = stdout_to_terminal(80); /* a terminal's size has no limit */
  files_end_at(30);
  for (int i = 0; i < 3; i++) run_record(&r, run_record_new("step", i));
  run_line(&r, "training goes on");
  files_end_at(RLIM_INFINITY);
  const char *text = terminal_contents(master);
  ck_assert_int_eq(count(text, "warning: a/metrics.jsonl ends here: "), 1);
  ck_assert_int_eq(count(text, strerror(EFBIG)), 1);
  ck_assert_int_eq(count(text, "training goes on"), 1);
  run_close(&r, true); /* the file is closed already; removing still works */
  ck_assert(!exists("a"));
}
END_TEST

/* ---- Lines ---- */

START_TEST(test_pipe_gets_plain_lines_when_due) {
  run_stage stage[] = {{"refresh", 0.5, 1, 1.5, 0.25}, {"a stage with a long name", 100, 1000, 99999.5, 1}};
  stdout_to_file();
  ck_assert_int_eq(open_run("a"), CURVD_OK);
  ck_assert(!r.is_terminal);
  for (int i = 0; i < 100; i++) run_progress_show(&r, &half, false);
  run_progress_show(&r, &half, true);
  run_line(&r, "%d %s", 3, "words");
  run_stages(&r, stage, 2, 12.3456);
  run_close(&r, false);
  stdout_back();
  const char *text = contents("stdout");
  char expected[1024], *unit;
  snprintf(expected, sizeof expected, " s  %s\n3 words\n", half_text);
  double seconds = strtod(text, &unit);
  ck_assert_str_eq(strstr(text, "stage "), "stage                          min s      mean s       max s    share\n"
                                           "refresh                        0.500       1.000       1.500   25.0 %\n"
                                           "a stage with a long name     100.000    1000.000   99999.500  100.0 %\n"
                                           "wall clock                                12.346\n");
  ck_assert(seconds >= 0 && seconds < 60);
  ck_assert_int_eq(unit - text, 9);
  ck_assert_msg(strncmp(unit, expected, strlen(expected)) == 0, "%s", text);
  ck_assert_ptr_null(strchr(text, '\r'));
  ck_assert_ptr_null(strchr(text, '\033'));
}
END_TEST

START_TEST(test_mpirun_terminal_without_width_is_a_pipe) {
  int master = stdout_to_terminal(0);
  ck_assert_int_eq(open_run("a"), CURVD_OK);
  run_progress_show(&r, &half, false);
  run_progress_show(&r, &half, true);
  const char *text = terminal_contents(master);
  ck_assert_int_eq(count(text, half_text), 1);
  ck_assert_int_eq(count(text, "\r"), count(text, "\r\n")); /* the terminal's own */
  ck_assert_ptr_null(strchr(text, '\033'));
}
END_TEST

START_TEST(test_terminal_is_redrawn_with_a_bar) {
  int master = stdout_to_terminal(100);
  ck_assert_int_eq(open_run("a"), CURVD_OK);
  ck_assert(r.is_terminal);
  run_progress_show(&r, &half, false);
  run_line(&r, "a line of its own");
  run_progress last = half;
  last.step = last.total_steps;
  last.epoch = last.epochs;
  run_progress_show(&r, &last, false); /* the last step is never left out */
  run_close(&r, false);
  const char *text = terminal_contents(master);
  char expected[1024];
  /* 99 columns: 62 of text, a space, and brackets around 34 */
  snprintf(expected, sizeof expected,
           "\r%s [#################.................]\033[K\r\na line of its own\r\n"
           "\repoch 3/3 step 80/80 loss 0.5123 lr 0.001 71 ms/step 0:00 left "
           "[##################################]\033[K\r\n",
           half_text);
  ck_assert_str_eq(text, expected);
}
END_TEST

START_TEST(test_redraws_are_five_a_second) {
  int master = stdout_to_terminal(100);
  ck_assert_int_eq(open_run("a"), CURVD_OK);
  struct timespec begin, now;
  clock_gettime(CLOCK_MONOTONIC, &begin);
  double seconds = 0;
  while (seconds < 0.5) {
    run_progress_show(&r, &half, false);
    clock_gettime(CLOCK_MONOTONIC, &now);
    seconds = (double)(now.tv_sec - begin.tv_sec) + 1e-9 * (double)(now.tv_nsec - begin.tv_nsec);
  }
  nanosleep(&(struct timespec){.tv_nsec = 250000000}, NULL);
  run_progress_show(&r, &half, false);
  run_close(&r, false);
  int n = count(terminal_contents(master), half_text);
  ck_assert_msg(n >= 2 && n <= 2 + (int)(seconds / 0.2), "%d redraws in %g s", n, seconds);
}
END_TEST

START_TEST(test_narrow_terminal_is_not_overrun) {
  int master = stdout_to_terminal(100);
  setenv("COLUMNS", "30", 1); /* wins over the terminal's word */
  ck_assert_int_eq(open_run("a"), CURVD_OK);
  run_progress_show(&r, &half, false);
  char expected[64];
  snprintf(expected, sizeof expected, "\r%.29s\033[K\r\n", half_text);
  run_close(&r, false);
  ck_assert_str_eq(terminal_contents(master), expected);
}
END_TEST

START_TEST(test_dumb_terminal_gets_plain_lines) {
  int master = stdout_to_terminal(100);
  setenv("TERM", "dumb", 1);
  ck_assert_int_eq(open_run("a"), CURVD_OK);
  ck_assert(!r.is_terminal);
  terminal_contents(master);
}
END_TEST

START_TEST(test_odd_numbers_are_shown_as_such) {
  stdout_to_file();
  ck_assert_int_eq(open_run("a"), CURVD_OK);
  run_progress odd = {.step = 0, .total_steps = 100000, .epoch = 0, .epochs = 0.5, .loss = NAN, .lr = 2e-5};
  run_progress_show(&r, &odd, true); /* before the first step is timed */
  odd.step_s = 0.4;
  run_progress_show(&r, &odd, true);
  odd.step_s = 0.00123;
  run_progress_show(&r, &odd, true);
  stdout_back();
  const char *text = contents("stdout");
  ck_assert_int_eq(count(text, "epoch 1/1 step 0/100000 loss nan lr 2e-05 0.00 ms/step ? left\n"), 1);
  ck_assert_int_eq(count(text, " 400 ms/step 11:06:40 left\n"), 1);
  ck_assert_int_eq(count(text, " 1.23 ms/step 2:03 left\n"), 1);
}
END_TEST

START_TEST(test_other_ranks_do_nothing) {
  run_stage stage = {.name = "refresh"};
  stdout_to_file();
  run_line(&r, "nothing");
  run_progress_show(&r, &half, true);
  run_stages(&r, &stage, 1, 1);
  run_record(&r, run_record_new("step", 1));
  run_record(&r, NULL);
  run_close(&r, true);
  stdout_back();
  ck_assert_str_eq(contents("stdout"), "");
  ck_assert_int_eq(n_entries("."), 1);
}
END_TEST

int main(void) {
  const TTest *tests[] = {
      test_auto_folder_is_named_and_unique,  test_folder_holds_configuration_and_empty_metrics,
      test_close_removes_what_was_made_only, test_lock_of_somebody_else_is_not_removed,
      test_no_locks_are_a_warning,           test_second_run_in_a_folder_is_refused,
      test_impossible_folders_leave_nothing, test_full_disk_at_the_start_leaves_nothing,
      test_records_are_lines_of_json,        test_record_reference_is_taken,
      test_missing_record_is_a_warning,      test_full_disk_is_said_once,
      test_pipe_gets_plain_lines_when_due,   test_mpirun_terminal_without_width_is_a_pipe,
      test_terminal_is_redrawn_with_a_bar,   test_redraws_are_five_a_second,
      test_narrow_terminal_is_not_overrun,   test_dumb_terminal_gets_plain_lines,
      test_odd_numbers_are_shown_as_such,    test_other_ranks_do_nothing,
  };
  Suite *suite = suite_create("run");
  TCase *tcase = tcase_create("run");
  tcase_add_checked_fixture(tcase, enter_folder, leave_folder);
  for (size_t i = 0; i < sizeof tests / sizeof tests[0]; i++) tcase_add_test(tcase, tests[i]);
  suite_add_tcase(suite, tcase);
  SRunner *runner = srunner_create(suite);
  srunner_set_fork_status(runner, CK_NOFORK);
  srunner_run_all(runner, CK_NORMAL);
  int failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
