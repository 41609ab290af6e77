/* The options that say which products are computed from rounded numbers, and by what. */
#ifndef TRAIN_PRECISION_H
#define TRAIN_PRECISION_H

#include "product/multiply.h"
#include "train/config.h"

/* Uses of products, each with its option; the last one is of numbers on their way between ranks. */
enum { PRECISION_USES = 5, PRECISION_PRODUCTS = PRECISION_USES - 1 };

/* "train_precision" and "training" */
const char *precision_option(int use);
const char *precision_use(int use);

/* The option's word; before the service has been planned, its default. */
const char *precision_of(const config *c, int use);

/* The unit of option matrix_unit. OPTION: this machine has none of that name. */
curvd_status precision_unit(const config *c, const cv_unit **unit, cv_error *err);

/* The first option that asks for products of rounded numbers; NULL: all are fp32. */
const char *precision_asked(const config *c);

#endif
