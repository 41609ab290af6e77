/* The larger and the smaller of two sizes, and a quotient rounded up. */
#ifndef CV_BASE_ORDER_H
#define CV_BASE_ORDER_H

#include <stdint.h>

static inline int64_t cv_larger(int64_t x, int64_t y) {
  return x > y ? x : y;
}

static inline int64_t cv_smaller(int64_t x, int64_t y) {
  return x < y ? x : y;
}

/* x >= 0, by >= 1 */
static inline int64_t cv_divide_up(int64_t x, int64_t by) {
  return x / by + (x % by > 0);
}

#endif
