/* Errors: a code and one sentence. The first function that knows what is wrong writes the sentence
 * (what, which numbers, what to do); everybody above forwards the code silently. */
#ifndef CV_BASE_STATUS_H
#define CV_BASE_STATUS_H

#include "curvd_status.h"

typedef struct cv_error {
  curvd_status code; /* CURVD_OK while nothing has failed */
  char text[480];    /* one sentence, NUL terminated */
} cv_error;

/* Records code and sentence unless *err already holds a failure (the first one wins); returns code.
 * err may be NULL: the sentence is dropped. */
curvd_status cv_fail(cv_error *err, curvd_status code, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Forgets a recorded failure. */
void cv_error_clear(cv_error *err);

/* Name ("CURVD_ERR_DATA") and general text of a code; never NULL. */
const char *cv_status_name(curvd_status code);
const char *cv_status_text(curvd_status code);

/* Forwards a failure; only for functions that own nothing at that point. */
#define CV_TRY(call)                                                                                                   \
  do {                                                                                                                 \
    curvd_status cv_try_status_ = (call);                                                                              \
    if (cv_try_status_ != CURVD_OK) return cv_try_status_;                                                             \
  } while (0)

#endif
