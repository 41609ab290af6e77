/* Where a run ran: what somebody else needs to run it again, for the record "run". */
#ifndef TRAIN_REPORT_ENVIRONMENT_H
#define TRAIN_REPORT_ENVIRONMENT_H

#include <jansson.h>

enum { PLACE_HOST_MAX = 64, PLACE_CPUS_MAX = 64 };

/* Of one rank; plain bytes, sent to rank 0. */
typedef struct rank_place {
  char host[PLACE_HOST_MAX], cpus[PLACE_CPUS_MAX]; /* name; processors that it may run on: "0-1,4" */
} rank_place;

void rank_place_read(rank_place *place);

/* The object "environment", made on rank 0 out of every rank's place. NULL: out of memory. */
json_t *report_environment(const rank_place *places, int n_ranks);

#endif
