#include "train/step_times.h"

#include <math.h>
#include <stdlib.h>

void step_times_add(step_times *times, double seconds) {
  times->s[times->n++ % STEP_TIMES_MAX] = (float)seconds;
}

static int compare(const void *a, const void *b) {
  float x = *(const float *)a, y = *(const float *)b;
  return (x > y) - (x < y);
}

double step_times_quantile(step_times *times, int64_t last, double share) {
  int64_t kept = times->n < STEP_TIMES_MAX ? times->n : STEP_TIMES_MAX, n = last < kept ? last : kept;
  if (n <= 0) return NAN;
  for (int64_t i = 0; i < n; i++) times->sorted[i] = times->s[(times->n - n + i) % STEP_TIMES_MAX];
  qsort(times->sorted, (size_t)n, sizeof times->sorted[0], compare);
  int64_t rank = (int64_t)ceil(share * (double)n);
  return times->sorted[rank < 1 ? 0 : rank > n ? n - 1 : rank - 1];
}
