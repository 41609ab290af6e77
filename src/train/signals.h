/* Signals that ask a run to save and end: SIGUSR1 (batch systems send it ahead of the time limit) and SIGTERM. They are
 * only remembered here; the training loop looks between two steps. */
#ifndef TRAIN_SIGNALS_H
#define TRAIN_SIGNALS_H

/* Takes both signals from now on, in any thread that does not block them; system calls go on. A second SIGTERM ends the
 * program at once, as if it had never been taken. */
void signals_install(void);

/* The signal that has come: SIGTERM once it has, else SIGUSR1; 0: none. */
int signals_asked(void);

#endif
