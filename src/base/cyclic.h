/* Block-cyclic distribution of one dimension, as ScaLAPACK has it: blocks are dealt out in turn, the first to part 0.
 */
#ifndef CV_BASE_CYCLIC_H
#define CV_BASE_CYCLIC_H

#include <stdint.h>

typedef struct cv_cyclic {
  int64_t n, block;
  int64_t parts, part; /* part: whose share the functions below tell */
} cv_cyclic;

/* Things in this part's share (ScaLAPACK: numroc). */
static inline int64_t cv_cyclic_count(const cv_cyclic *c) {
  int64_t round = c->block * c->parts, rest = c->n % round - c->part * c->block;
  return c->n / round * c->block + (rest < 0 ? 0 : rest < c->block ? rest : c->block);
}

/* Global index of the share's thing number `local` (ScaLAPACK: indxl2g). */
static inline int64_t cv_cyclic_global(const cv_cyclic *c, int64_t local) {
  return (local / c->block * c->parts + c->part) * c->block + local % c->block;
}

/* Things of the share whose global index is below `end`. */
static inline int64_t cv_cyclic_below(const cv_cyclic *c, int64_t end) {
  cv_cyclic shorter = *c;
  shorter.n = end < c->n ? end : c->n;
  return cv_cyclic_count(&shorter);
}

/* How many things, from `local` on, lie one after the other globally, too. */
static inline int64_t cv_cyclic_run(const cv_cyclic *c, int64_t local) {
  int64_t run = c->block - local % c->block, left = cv_cyclic_count(c) - local;
  return run < left ? run : left;
}

#endif
