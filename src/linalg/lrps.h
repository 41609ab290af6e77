/* Low rank plus scalar: M = U^T diag(D) U + tau (I - U^T U), the rows of U orthonormal. What every method broadcasts
 * and applies. With r = n it is a full eigendecomposition and tau does not matter. */
#ifndef CV_LINALG_LRPS_H
#define CV_LINALG_LRPS_H

#include "base/status.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct cv_lrps {
  int64_t n, r;
  int64_t ld; /* of U */
  float *U;   /* (r, n): row i is eigenvector i */
  float *D;   /* (r) eigenvalues, descending, >= 0 */
  double tau; /* eigenvalue of the rest, >= 0 */
} cv_lrps;

/* Points of the spectrum: r eigenvalues, and tau as one more unless the decomposition is full. */
int64_t cv_lrps_points(const cv_lrps *side);

/* How damping enters the inverse power of the Kronecker product of two factors with eigenvalues x (of G) and y (of A):
 *   separable: (x + damping_g)^-exponent_g (y + damping_a)^-exponent_a;  joint: (x y + damping_joint)^-exponent_a.
 * An identity side (never refreshed, or zero) contributes the factor 1, and counts as eigenvalue 1 in the joint form.
 */
typedef struct cv_spectral {
  bool is_joint;
  double damping_g, damping_a, damping_joint;
  double exponent_g, exponent_a; /* in [-1, 1]; negative: the inverse of that function */
  bool identity_g, identity_a;
} cv_spectral;

/* H (points of G, points of A) = the function at every pair of points; the last row and column are those of tau.
 * NUMERIC when a value is not finite: zero eigenvalue and zero damping. */
curvd_status cv_spectral_table(const cv_spectral *f, const cv_lrps *G, const cv_lrps *A, float *H, cv_error *err);

#endif
