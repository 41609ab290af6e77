/* How a run multiplies: precisions and matrix unit. */
#ifndef TRAIN_REPORT_PRECISION_H
#define TRAIN_REPORT_PRECISION_H

#include "train/run.h"
#include "train/trainer.h"

/* [local] A line, and the options' values and the unit as fields of the record "run". Convolutions that stay fp32 where
 * train_precision says otherwise are named. */
void report_precision(const trainer *t, run *out, json_t *record);

#endif
