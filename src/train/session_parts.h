/* What the files of a session share. */
#ifndef TRAIN_SESSION_PARTS_H
#define TRAIN_SESSION_PARTS_H

#include "train/session.h"

static inline const train_config *session_values(const session *s) {
  return &s->trainer->config->values;
}

/* [collective over the workers] Loads the newest sound checkpoint of a step up to `before`. DATA: there is none. */
curvd_status session_load_newest(session *s, int64_t before, cv_error *err);

/* [collective over the workers] The run goes on from the step that was loaded: what is later in its folder is not of
 * it. */
curvd_status session_go_on(session *s, cv_error *err);

/* [collective over the workers] Is what all workers hold alike alike? Once a step. DAMAGE: names a worker. */
curvd_status session_check_replicas(session *s, cv_error *err);

/* What the saver's thread has done meanwhile. */
void session_take_outcomes(session *s);

#endif
