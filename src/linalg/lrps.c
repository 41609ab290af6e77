#include "linalg/lrps.h"

#include <math.h>

static bool is_full(const cv_lrps *side) {
  return side->r == side->n;
}

int64_t cv_lrps_points(const cv_lrps *side) {
  return side->r + (is_full(side) ? 0 : 1);
}

static double point(const cv_lrps *side, int64_t i) {
  return i < side->r ? side->D[i] : side->tau;
}

/* x^-p; the exponents in use are powers of 1/2, where square roots are much cheaper than pow. */
static double inverse_power(double x, double p) {
  if (p == 1) return 1 / x;
  if (p == 0.5) return 1 / sqrt(x);
  if (p == 0.25) return 1 / sqrt(sqrt(x));
  return p == 0 ? 1 : pow(x, -p);
}

static double side_value(const cv_lrps *side, int64_t i, bool is_identity, double damping, double exponent) {
  return is_identity ? 1 : inverse_power(point(side, i) + damping, exponent);
}

static double joint_value(const cv_spectral *f, const cv_lrps *G, int64_t i, const cv_lrps *A, int64_t j) {
  double x = f->identity_g ? 1 : point(G, i), y = f->identity_a ? 1 : point(A, j);
  return inverse_power(x * y + f->damping_joint, f->exponent_a);
}

curvd_status cv_spectral_table(const cv_spectral *f, const cv_lrps *G, const cv_lrps *A, float *H, cv_error *err) {
  int64_t rows = cv_lrps_points(G), cols = cv_lrps_points(A);
  float *last = H + (rows - 1) * cols; /* holds A's values until its own turn comes */
  bool is_finite = true;
  for (int64_t j = 0; j < cols; j++) last[j] = (float)side_value(A, j, f->identity_a, f->damping_a, f->exponent_a);
  for (int64_t i = 0; i < rows; i++) {
    float g = (float)side_value(G, i, f->identity_g, f->damping_g, f->exponent_g);
    for (int64_t j = 0; j < cols; j++) {
      H[i * cols + j] = f->is_joint ? (float)joint_value(f, G, i, A, j) : g * last[j];
      is_finite = is_finite && isfinite(H[i * cols + j]);
    }
  }
  if (is_finite) return CURVD_OK;
  return cv_fail(err, CURVD_ERR_NUMERIC, "a zero eigenvalue meets zero damping: raise damping");
}
