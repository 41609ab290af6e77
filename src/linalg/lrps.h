/* Low rank plus scalar: M = U^T diag(D) U + tau (I - U^T U), the rows of U orthonormal. What every method broadcasts and applies.
 * With r = n it is a full eigendecomposition and tau does not matter. */
#ifndef CV_LINALG_LRPS_H
#define CV_LINALG_LRPS_H

#include "base/status.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct cv_lrps {
  int64_t n, r;
  int64_t ld;  /* of U */
  float *U;    /* (r, n): row i is eigenvector i */
  float *D;    /* (r) eigenvalues, descending, >= 0 */
  double tau;  /* eigenvalue of the rest, >= 0 */
} cv_lrps;

/* Points of the spectrum: r eigenvalues, and tau as one more unless the decomposition is full. */
int64_t cv_lrps_points(const cv_lrps *side);

/* How damping enters the inverse power of the Kronecker product of two factors with eigenvalues x (of G) and y (of A):
 *   separable: (x + damping_g)^-exponent_g (y + damping_a)^-exponent_a;  joint: (x y + damping_joint)^-exponent_a.
 * An identity side (never refreshed, or zero) contributes the factor 1, and counts as eigenvalue 1 in the joint form. */
typedef struct cv_spectral {
  bool is_joint;
  double damping_g, damping_a, damping_joint;
  double exponent_g, exponent_a; /* in [0, 1] */
  bool identity_g, identity_a;
} cv_spectral;

/* H (points of G, points of A) = the function at every pair of points; the last row and column are those of tau.
 * NUMERIC when a value is not finite: zero eigenvalue and zero damping. */
curvd_status cv_spectral_table(const cv_spectral *f, const cv_lrps *G, const cv_lrps *A, float *H, cv_error *err);

/* Workspace of an apply, in the places where the last product wants it: G->U is followed by room for A->r more rows of the same ld,
 * A->U is preceded by room for G->r rows of the same ld. plane is needed when a side is full, core when none is:
 * the small product Z. */
typedef struct cv_pair_work {
  float *plane; /* 2 * m * cv_dense_ld(n) */
  float *core;  /* G->r * A->r */
} cv_pair_work;

/* out (m, n) = scale * f(G (x) A) applied to X (m, n): the component of X along eigenvector i of G and j of A is multiplied by H[i, j].
 * X and out may be the same; both rows ld apart. Costs 4 m n (r_G + r_A) flops when both sides are of low rank:
 *   P = U_G X, R = U_A X^T, Z = P U_A^T;
 *   out = h X + U_G^T [(H_it - h) .* P] + [(H_tj - h) .* R + ((H - H_it - H_tj + h) .* Z)^T U_G]^T U_A,  h = H_tt,
 * in which the two last terms are one product of inner size r_G + r_A. */
void cv_pair_apply(const cv_lrps *G, const cv_lrps *A, const float *H, float scale, const float *X, int64_t ldx, float *out,
                   int64_t ldo, const cv_pair_work *work);

#endif
