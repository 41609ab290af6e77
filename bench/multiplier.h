/* Multipliers of product/multiply.h with room of their own, one for each measured precision. */
#ifndef BENCH_MULTIPLIER_H
#define BENCH_MULTIPLIER_H

#include "product/multiply.h"

enum { MULTIPLIERS = CV_BF16X3 + 1 };
extern const char *const multiplier_precisions[MULTIPLIERS];

/* OPTION: this machine has no such unit. Of fp32 a multiplier without unit and room, whose products are BLAS. */
curvd_status multiplier_open(cv_precision precision, const char *unit, cv_memory *memory, cv_multiplier *by,
                             cv_error *err);
void multiplier_close(cv_memory *memory, cv_multiplier *by);

/* "": fp32 */
const char *multiplier_unit(const cv_multiplier *by);

#endif
