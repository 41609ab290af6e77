/* The scratch of one online update or correction (brand.h), cut into its matrices. */
#ifndef CV_LINALG_BRAND_WORK_H
#define CV_LINALG_BRAND_WORK_H

#include "linalg/brand.h"

/* k = r_max + c */
typedef struct cv_brand_work {
  cv_brand *s;
  int64_t c, k, ld;
  float *Y;         /* (c, n) */
  float *Z;         /* (r_max or c, n) */
  float *P;         /* (c, r_max) */
  float *F;         /* (r_max, k) or (c, c): combinations of rows, as U' = F [U; Y] */
  double *K, *w;    /* (k, k) the small matrix, its eigenvectors; (k) eigenvalues, ascending */
  double *P_A;      /* (c, k): P (c, r), and A behind it */
  double *G;        /* (m, m) for m rows of Y: Y Y^T, its eigenvectors; its last rows become T */
  double *length;   /* (c) squares of what the rows of Y were before they were projected */
  double *room;     /* of the kernels, and for products of small matrices */
  int64_t y, q;     /* rows of Y, and of Q */
  const double *T;  /* (q, y) */
  cv_eig_work work; /* of orthonormal.h and the eigensolver: F, room and the integers */
} cv_brand_work;

/* work: of cv_brand_scratch with block c. */
cv_brand_work cv_brand_carve(cv_brand *state, int64_t c, const cv_eig_work *work);

#endif
