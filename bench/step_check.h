/* What must hold before bench_step may print a time. */
#ifndef BENCH_STEP_CHECK_H
#define BENCH_STEP_CHECK_H

#include "net/model.h"

/* One step of method sgd on a small network: the new weights against gradients from plain fp64 loops.
 * CURVD_ERR_NUMERIC: says which weight is off, and by how much. */
curvd_status step_check_sgd(cv_error *err);

/* products_run against model_forward and model_backward on a model of these widths with linear activations. net has
 * just been through products_run; seed is that of its weights and of products_fill. */
curvd_status step_check_products(const model *net, int64_t rows, uint64_t seed, cv_error *err);

#endif
