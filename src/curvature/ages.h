/* How old the preconditioners in force were, step by step: a count of every age. */
#ifndef CV_CURVATURE_AGES_H
#define CV_CURVATURE_AGES_H

#include <stdint.h>

enum { CV_AGES = 1024 }; /* the last place counts all older ones */

typedef struct cv_ages {
  int64_t count[CV_AGES];
  int64_t n, most;
  double sum;
} cv_ages;

void cv_ages_add(cv_ages *ages, int64_t age);
double cv_ages_mean(const cv_ages *ages); /* 0 without any */

/* Smallest age that at least this share of them do not exceed; exact below CV_AGES - 1, else the largest of all. */
int64_t cv_ages_quantile(const cv_ages *ages, double share);

#endif
