/* What is said of a predicted run: lines for a person, or one JSON object. */
#ifndef TRAIN_PLAN_REPORT_H
#define TRAIN_PLAN_REPORT_H

#include "train/config.h"
#include "train/run_shape.h"

#include <jansson.h>

/* To stdout. */
void plan_report_lines(const config *c, const run_shape *given, const curvd_prediction *p);
curvd_status plan_report_json(const config *c, const run_shape *given, const curvd_prediction *p, cv_error *err);

/* Writes one JSON object as one line to stdout and frees it; MEMORY when there is none. */
curvd_status json_print(json_t *object, cv_error *err);

#endif
