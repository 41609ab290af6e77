/* How good a decomposition is, from products of M with a few random vectors that had no part in it.
 *
 * With w Gaussian and E = M - U^T D U - tau (I - U^T U): the mean of ||E w||^2 is ||E||_F^2, and the spectral norm of E
 * is at most 2 sqrt(2/pi) max ||E w||, but for a chance of 2^-probes (Halko, Martinsson, Tropp 2011, lemma 4.1). The
 * mean of ||(U M - D U) w||^2 is the squared residual of the pairs. */
#ifndef CV_LINALG_CERTIFY_H
#define CV_LINALG_CERTIFY_H

#include "linalg/slices.h"

/* Scratch for k rows, and room for products of the probes with M where the caller has none of its own. */
cv_eig_scratch cv_certify_scratch(int64_t k);

/* Draws W (CV_EIG_PROBES, mine), or copies the probes that the slices have. */
void cv_certify_draw(const cv_slices *s, float *W, int64_t ldw);

/* Random rows W (CV_EIG_PROBES, mine) with their products. */
typedef struct cv_probed {
  const float *W;
  int64_t ldw;
  float *MW; /* W M, overwritten */
  int64_t ldm;
  const float *rounded; /* W times the rounded M of which the pairs are made, rows ldm apart; NULL: M itself */
} cv_probed;

/* Fills result (all but found, drift, products, replaced, seconds) for U (found, mine), D, and probes. kept and tau are
 * chosen here, or with keep_tau those of *result stay. Bad numbers show in the result; they are no failure. Two sums of
 * a few numbers a row. */
curvd_status cv_certify(const cv_slices *s, const float *U, int64_t ldu, const float *D, const cv_probed *probed,
                        bool keep_tau, const cv_eig_work *work, cv_eig_result *result, cv_error *err);

#endif
