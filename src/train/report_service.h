/* What the workers noticed of the service, and what to change. */
#ifndef TRAIN_REPORT_SERVICE_H
#define TRAIN_REPORT_SERVICE_H

#include "train/run.h"
#include "train/trainer.h"

/* Seconds over a run, and how it was laid out. */
typedef struct service_load {
  int n_curvature;
  bool is_stale; /* refreshes are used later than in their own step */
  double waited; /* workers' wait for curvature over their wall clock, mean over workers, [0, 1] */
  double busy_min,
      busy_max; /* curvature ranks: share of the time of training in which they averaged, refreshed or sent */
} service_load;

/* One sentence. Without curvature ranks there is nothing to say: "". */
const char *service_advice(const service_load *load);

/* Lines and fields of the record "end". */
void report_service(const trainer *t, const service_load *load, run *out, json_t *record);

#endif
