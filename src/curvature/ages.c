#include "curvature/ages.h"

#include "base/order.h"

#include <math.h>

void cv_ages_add(cv_ages *ages, int64_t age) {
  ages->count[cv_smaller(age, CV_AGES - 1)]++;
  ages->n++;
  ages->sum += (double)age;
  ages->most = cv_larger(ages->most, age);
}

double cv_ages_mean(const cv_ages *ages) {
  return ages->n > 0 ? ages->sum / (double)ages->n : 0;
}

int64_t cv_ages_quantile(const cv_ages *ages, double share) {
  int64_t wanted = (int64_t)ceil(share * (double)ages->n), below = 0;
  for (int64_t age = 0; age < CV_AGES - 1; age++) {
    below += ages->count[age];
    if (below >= wanted) return age;
  }
  return ages->most;
}
