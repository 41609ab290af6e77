/* Factors of a network that trains. */
#ifndef EIG_FACTORS_H
#define EIG_FACTORS_H

#include "eig_run.h"

/* [collective over all ranks] Every factor of 784-1000-1000-10 on Fashion-MNIST that has room for the largest rank. */
curvd_status eig_factors_run(const eig_options *options, eig_place *places, int n_places, cv_memory *memory,
                             cv_error *err);

#endif
