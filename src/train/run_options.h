/* From a configuration to what the library is told: automatic values resolved, and its options one by one. For a run
 * and for predictions of one. No MPI in here. */
#ifndef TRAIN_RUN_OPTIONS_H
#define TRAIN_RUN_OPTIONS_H

#include "net/model.h"
#include "train/config.h"

bool run_is_first_order(const config *c);

/* Can gradients be added into their own decayed average by the products that make them? */
bool run_averages_gradients(const train_config *v);

/* Replaces automatic values by those of a run on n_ranks ranks. OPTION: combinations that mean nothing. */
curvd_status run_resolve(config *c, const model_spec *spec, int n_ranks, cv_error *err);

/* Calls put with every option that the library is to be given, the later ones over the earlier. c is resolved. */
typedef curvd_status option_put(void *user, const char *key, const char *value, cv_error *err);
curvd_status run_options(const config *c, int n_ranks, int64_t steps_per_epoch, option_put *put, void *user,
                         cv_error *err);

#endif
