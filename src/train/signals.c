#include "train/signals.h"

#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>

_Static_assert(ATOMIC_INT_LOCK_FREE == 2, "a signal handler may touch lock-free atomics only");
static atomic_int asked;

/* SIGTERM is the more urgent one, whichever came first, in whichever thread. */
static void remember(int number) {
  int none = 0;
  if (number == SIGTERM) {
    atomic_store(&asked, number);
  } else {
    atomic_compare_exchange_strong(&asked, &none, number);
  }
}

void signals_install(void) {
  struct sigaction action = {.sa_handler = remember, .sa_flags = SA_RESTART};
  sigemptyset(&action.sa_mask);
  atomic_store(&asked, 0);
  sigaction(SIGUSR1, &action, NULL);
  action.sa_flags |= (int)SA_RESETHAND;
  sigaction(SIGTERM, &action, NULL);
}

int signals_asked(void) {
  return atomic_load(&asked);
}
