/* Signals that ask a run to end, as a process gets them. Every case is a child of its own: it takes them for good. */
#include "train/signals.h"

#include "suite.h"

#include <signal.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void nothing(void) {}

/* Exit code of a child that runs `body`; 128 + signal when one has ended it. */
static int run(int (*body)(void)) {
  int status = 0;
  pid_t child = fork();
  ck_assert_int_ge(child, 0);
  if (child == 0) {
    alarm(20);
    _exit(body());
  }
  ck_assert_int_eq(waitpid(child, &status, 0), child);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static int body_none(void) {
  signals_install();
  return signals_asked();
}

static int body_usr1(void) {
  signals_install();
  raise(SIGUSR1);
  raise(SIGUSR1); /* as often as it likes */
  return signals_asked();
}

static int body_term(void) {
  signals_install();
  raise(SIGTERM);
  return signals_asked();
}

static int body_usr1_then_term(void) {
  signals_install();
  raise(SIGUSR1);
  raise(SIGTERM);
  return signals_asked();
}

static int body_term_then_usr1(void) {
  signals_install();
  raise(SIGTERM);
  raise(SIGUSR1);
  return signals_asked();
}

static int body_two_terms(void) {
  signals_install();
  raise(SIGTERM);
  raise(SIGTERM);
  return 0;
}

static int body_others(void) {
  signals_install();
  raise(SIGUSR2);
  return 0;
}

START_TEST(test_remembers) {
  ck_assert_int_eq(run(body_none), 0);
  ck_assert_int_eq(run(body_usr1), SIGUSR1);
  ck_assert_int_eq(run(body_term), SIGTERM);
  ck_assert_int_eq(run(body_usr1_then_term), SIGTERM);
  ck_assert_int_eq(run(body_term_then_usr1), SIGTERM);
}
END_TEST

START_TEST(test_ends) {
  ck_assert_int_eq(run(body_two_terms), 128 + SIGTERM);
  ck_assert_int_eq(run(body_others), 128 + SIGUSR2);
}
END_TEST

/* A read that a signal interrupts goes on: libraries do not expect otherwise. */
static int body_restart(void) {
  int ends[2];
  char byte = 0;
  signals_install();
  if (pipe(ends) != 0) return 1;
  pid_t parent = getpid();
  pid_t child = fork();
  if (child == 0) {
    struct timespec pause = {.tv_nsec = 100000000};
    nanosleep(&pause, NULL);
    kill(parent, SIGUSR1);
    kill(parent, SIGTERM);
    nanosleep(&pause, NULL);
    _exit(write(ends[1], "x", 1) == 1 ? 0 : 1);
  }
  ssize_t n = read(ends[0], &byte, 1);
  return n == 1 && byte == 'x' && signals_asked() == SIGTERM ? 0 : 2;
}

START_TEST(test_system_calls_go_on) {
  ck_assert_int_eq(run(body_restart), 0);
}
END_TEST

int main(void) {
  const TTest *const tests[] = {test_remembers, test_ends, test_system_calls_go_on};
  return suite_run("signals", tests, sizeof tests / sizeof tests[0], nothing);
}
