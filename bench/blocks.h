/* Times of blocks of steps that took turns. */
#ifndef BENCH_BLOCKS_H
#define BENCH_BLOCKS_H

#include <jansson.h>

enum { BLOCKS_MAX = 1000 };

double blocks_median(const double *x, int n);

/* {"median", "min"} of n blocks; and of one over the other, block by block and of the least of each. */
json_t *blocks_times(const double *ms, int n);
json_t *blocks_ratio(const double *ms, const double *over, int n);

#endif
