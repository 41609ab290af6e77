/* The watchdog over processes that hang, get on, or are idle. A recorder stands in for the service: ranks, peers and
 * layers are those of the operations that it is fed. */
#include "train/watchdog.h"

#include "base/clock.h"
#include "suite.h"
#include "train/commands.h"
#include "train/signals.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const double TIMEOUT_S = 0.5;
static watchdog dog;
static char folder[64], said[4096], written[65536];

static void make_folder(void) {
  snprintf(folder, sizeof folder, "/tmp/watchdog-XXXXXX");
  ck_assert_ptr_nonnull(mkdtemp(folder));
}

static void path_of(const char *name, char path[128]) {
  snprintf(path, 128, "%s/%s", folder, name);
}

/* "" where there is none. */
static void read_text(const char *name, char *text, size_t size) {
  char path[128];
  path_of(name, path);
  FILE *file = fopen(path, "r");
  text[0] = '\0';
  if (!file) return;
  text[fread(text, 1, size - 1, file)] = '\0';
  fclose(file);
}

static void clean(void) {
  static const char *const names[] = {"stderr", "hang-rank-3.txt"};
  char path[128];
  for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
    path_of(names[i], path);
    unlink(path);
  }
  rmdir(folder);
}

static void pause_for(double seconds) {
  nanosleep(&(struct timespec){.tv_sec = (time_t)seconds, .tv_nsec = (long)(1e9 * (seconds - (double)(time_t)seconds))},
            NULL);
}

/* Exit code of a child that is watched while it runs `body`; seconds: how long that took. */
static int run(int (*body)(void), bool has_folder, double *seconds) {
  int status = 0;
  char path[128];
  make_folder();
  path_of("stderr", path);
  double begin_s = cv_wall_s();
  fflush(NULL);
  pid_t child = fork();
  ck_assert_int_ge(child, 0);
  if (child == 0) {
    cv_error err = {0};
    alarm(20);
    if (!freopen(path, "w", stderr) || watchdog_start(&dog, 3, TIMEOUT_S, &err) != CURVD_OK) _exit(100);
    if (has_folder) watchdog_folder(&dog, folder);
    int code = body();
    watchdog_stop(&dog);
    fflush(NULL);
    _exit(code);
  }
  ck_assert_int_eq(waitpid(child, &status, 0), child);
  *seconds = cv_wall_s() - begin_s;
  read_text("stderr", said, sizeof said);
  read_text("hang-rank-3.txt", written, sizeof written);
  clean();
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* ---- hangs ---- */

static int64_t step = 517;

static int body_hang(void) {
  dog.trace.step = &step;
  watchdog_note(&dog, "forward", "fc0");
  watchdog_note(&dog, "step", NULL);
  for (int i = 0; i < 1000; i++)
    cv_trace_end(&dog.trace, cv_trace_begin(&dog.trace, CV_TRACE_WAIT, "call", NULL, CV_PEER_WORKERS, 8));
  cv_trace_begin(&dog.trace, CV_TRACE_TRANSFER, "send", NULL, 6, 77);
  cv_trace_begin(&dog.trace, CV_TRACE_WAIT, "receive statistics", "fc2", 4, 4096);
  pause_for(10);
  return 0;
}

START_TEST(test_hang) {
  double seconds;
  char host[256] = "", expected[512];
  ck_assert_int_eq(run(body_hang, true, &seconds), EXIT_CODE_HANG);
  /* the time-out, a look, two seconds for the others; the rest is a busy machine's */
  ck_assert_msg(seconds >= TIMEOUT_S + 2 && seconds < 4, "%g s", seconds);
  gethostname(host, sizeof host - 1);
  snprintf(expected, sizeof expected, "rank 3 on %s stands still since 0.", host);
  ck_assert_msg(strncmp(written, expected, strlen(expected)) == 0, "%s", written);
  /* operation 1: forward, 2: step, 3 .. 1002: calls, 1003: send */
  const char *where = " in \"step: receive statistics\" (layer fc2, operation 1004, peer rank 4)";
  ck_assert_ptr_nonnull(strstr(written, where));
  ck_assert_ptr_nonnull(strstr(written, "rank 3, step 517\n"));
  ck_assert_ptr_nonnull(strstr(written, "(behind) send, peer rank 6\n"));
  ck_assert_ptr_nonnull(strstr(written, "  receive statistics, layer fc2, peer rank 4\n"));
  ck_assert_ptr_nonnull(strstr(written, "  call, peer all workers\n"));
  ck_assert_ptr_nonnull(strstr(written, "         2 "));
  ck_assert_ptr_null(strstr(written, "\n         1 ")); /* ended, and long past */
  /* one line, which names the file */
  ck_assert_msg(strncmp(said, "curvd: rank 3 on ", 17) == 0 && strchr(said, '\n') == said + strlen(said) - 1, "%s",
                said);
  ck_assert_ptr_nonnull(strstr(said, where));
  ck_assert_ptr_nonnull(strstr(said, "/hang-rank-3.txt\n"));
}
END_TEST

START_TEST(test_without_folder) {
  double seconds;
  ck_assert_int_eq(run(body_hang, false, &seconds), EXIT_CODE_HANG);
  ck_assert_ptr_nonnull(strstr(said, "operation 1004, peer rank 4)\n"));
  ck_assert_str_eq(written, "");
  ck_assert_int_ne(access("hang-rank-3.txt", F_OK), 0);
}
END_TEST

static int body_lost_folder(void) {
  watchdog_folder(&dog, "/nowhere/at/all");
  return body_hang();
}

START_TEST(test_folder_cannot_be_written) {
  double seconds;
  ck_assert_int_eq(run(body_lost_folder, true, &seconds), EXIT_CODE_HANG);
  ck_assert_ptr_nonnull(strstr(said, "/nowhere/at/all/hang-rank-3.txt cannot be written: No such file"));
}
END_TEST

/* ---- no hangs ---- */

static int body_gets_on(void) {
  for (int i = 0; i < 20; i++) {
    watchdog_note(&dog, "batch", NULL);
    pause_for(0.1);
  }
  return 0;
}

static int body_off(void) {
  cv_error err = {0};
  watchdog_stop(&dog);
  if (watchdog_start(&dog, 3, 0, &err) != CURVD_OK) return 101;
  pause_for(1.5);
  return 0;
}

START_TEST(test_gets_on) {
  double seconds;
  ck_assert_int_eq(run(body_gets_on, true, &seconds), 0);
  ck_assert_str_eq(said, "");
  ck_assert_str_eq(written, "");
  ck_assert_int_eq(run(body_off, true, &seconds), 0);
}
END_TEST

/* Time in which a process is stopped does not count: only what the watchdog sees. */
static int body_stopped(void) {
  pid_t me = getpid();
  watchdog_note(&dog, "batch", NULL);
  dog.timeout_s = 1.5; /* a stop counts as a second */
  if (fork() == 0) {
    kill(me, SIGSTOP);
    pause_for(3);
    kill(me, SIGCONT);
    _exit(0);
  }
  pause_for(0.2);
  for (int i = 0; i < 10; i++) {
    watchdog_note(&dog, "batch", NULL);
    pause_for(0.1);
  }
  return 0;
}

START_TEST(test_stopped) {
  double seconds;
  ck_assert_int_eq(run(body_stopped, true, &seconds), 0);
  ck_assert_double_gt(seconds, 3);
  ck_assert_str_eq(said, "");
}
END_TEST

/* ---- told to end ---- */

/* Half the time-out has passed: it writes, and goes on. Once. */
static int body_told(void) {
  signals_install();
  dog.timeout_s = 2;
  watchdog_note(&dog, "waiting", NULL);
  raise(SIGTERM);
  pause_for(0.6);
  if (access(folder, F_OK) != 0) return 102;
  char path[128];
  path_of("hang-rank-3.txt", path);
  if (access(path, F_OK) == 0) return 103; /* too early */
  pause_for(1);
  return access(path, F_OK) == 0 ? 0 : 104;
}

START_TEST(test_told_to_end) {
  double seconds;
  ck_assert_int_eq(run(body_told, true, &seconds), 0);
  ck_assert_ptr_nonnull(strstr(written, "in \"waiting\" (operation 1)"));
  ck_assert_ptr_eq(strchr(said, '\n'), said + strlen(said) - 1);
}
END_TEST

int main(void) {
  const TTest *const tests[] = {test_hang,    test_without_folder, test_folder_cannot_be_written,
                                test_gets_on, test_stopped,        test_told_to_end};
  return suite_run("watchdog", tests, sizeof tests / sizeof tests[0], NULL);
}
