#include "linalg/lrps.h"

#include "linalg/dense.h"

#include <math.h>
#include <string.h>

static bool is_full(const cv_lrps *side) { return side->r == side->n; }

int64_t cv_lrps_points(const cv_lrps *side) { return side->r + (is_full(side) ? 0 : 1); }

static double point(const cv_lrps *side, int64_t i) { return i < side->r ? side->D[i] : side->tau; }

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
  bool is_finite = true;
  for (int64_t i = 0; i < rows; i++) {
    double g = f->is_joint ? 0 : side_value(G, i, f->identity_g, f->damping_g, f->exponent_g);
    for (int64_t j = 0; j < cols; j++) {
      double h = f->is_joint ? joint_value(f, G, i, A, j)
                             : g * side_value(A, j, f->identity_a, f->damping_a, f->exponent_a);
      H[i * cols + j] = (float)h;
      is_finite = is_finite && isfinite(H[i * cols + j]);
    }
  }
  if (is_finite) return CURVD_OK;
  return cv_fail(err, CURVD_ERR_NUMERIC, "a zero eigenvalue meets zero damping: raise damping");
}

static void multiply(int64_t m, int64_t n, float *X, int64_t ldx, const float *H) {
  for (int64_t i = 0; i < m; i++) {
    for (int64_t j = 0; j < n; j++) X[i * ldx + j] *= H[i * n + j];
  }
}

static void scaled_copy(int64_t m, int64_t n, float scale, const float *X, int64_t ldx, float *out, int64_t ldo) {
  if (X == out && scale == 1) return;
  for (int64_t i = 0; i < m; i++) {
    for (int64_t j = 0; j < n; j++) out[i * ldo + j] = scale * X[i * ldx + j];
  }
}

/* Both sides full: into the eigenbases, times H, and back. */
static void apply_full(const cv_lrps *G, const cv_lrps *A, const float *H, float scale, const float *X, int64_t ldx,
                       float *out, int64_t ldo, const cv_pair_work *work) {
  int64_t m = G->n, n = A->n, ld = cv_dense_ld(n);
  float *T = work->plane, *S = work->plane + m * ld;
  cv_gemm(CV_N, CV_N, m, n, m, 1, G->U, G->ld, X, ldx, 0, T, ld);
  cv_gemm(CV_N, CV_T, m, n, n, 1, T, ld, A->U, A->ld, 0, S, ld);
  multiply(m, n, S, ld, H);
  cv_gemm(CV_T, CV_N, m, n, m, 1, G->U, G->ld, S, ld, 0, T, ld);
  cv_gemm(CV_N, CV_N, m, n, n, scale, T, ld, A->U, A->ld, 0, out, ldo);
}

/* G full, A of low rank: row i of U_G X sees the one-sided function H[i, :]. */
static void apply_full_g(const cv_lrps *G, const cv_lrps *A, const float *H, float scale, const float *X, int64_t ldx,
                         float *out, int64_t ldo, const cv_pair_work *work) {
  int64_t m = G->n, n = A->n, r = A->r, ld = cv_dense_ld(n);
  float *T = work->plane, *P = work->plane + m * ld; /* (m, n), (m, r) */
  cv_gemm(CV_N, CV_N, m, n, m, 1, G->U, G->ld, X, ldx, 0, T, ld);
  if (r > 0) cv_gemm(CV_N, CV_T, m, r, n, 1, T, ld, A->U, A->ld, 0, P, ld);
  for (int64_t i = 0; i < m; i++) {
    const float *h = H + i * (r + 1);
    for (int64_t j = 0; j < n; j++) T[i * ld + j] *= h[r];
    for (int64_t j = 0; j < r; j++) P[i * ld + j] *= h[j] - h[r];
  }
  if (r > 0) cv_gemm(CV_N, CV_N, m, n, r, 1, P, ld, A->U, A->ld, 1, T, ld);
  cv_gemm(CV_T, CV_N, m, n, m, scale, G->U, G->ld, T, ld, 0, out, ldo);
}

/* A full, G of low rank: the mirror image. */
static void apply_full_a(const cv_lrps *G, const cv_lrps *A, const float *H, float scale, const float *X, int64_t ldx,
                         float *out, int64_t ldo, const cv_pair_work *work) {
  int64_t m = G->n, n = A->n, r = G->r, ld = cv_dense_ld(n);
  float *T = work->plane, *P = work->plane + m * ld; /* (m, n), (r, n) */
  const float *tail = H + r * n;
  cv_gemm(CV_N, CV_T, m, n, n, 1, X, ldx, A->U, A->ld, 0, T, ld);
  if (r > 0) cv_gemm(CV_N, CV_N, r, n, m, 1, G->U, G->ld, T, ld, 0, P, ld);
  for (int64_t i = 0; i < m; i++) {
    for (int64_t j = 0; j < n; j++) T[i * ld + j] *= tail[j];
  }
  for (int64_t i = 0; i < r; i++) {
    for (int64_t j = 0; j < n; j++) P[i * ld + j] *= H[i * n + j] - tail[j];
  }
  if (r > 0) cv_gemm(CV_T, CV_N, m, n, r, 1, G->U, G->ld, P, ld, 1, T, ld);
  cv_gemm(CV_N, CV_N, m, n, n, scale, T, ld, A->U, A->ld, 0, out, ldo);
}

/* Both sides of low rank. P lies before U_A and R behind U_G, so that [U_G; R]^T [P; U_A] is one product. */
static void apply_low(const cv_lrps *G, const cv_lrps *A, const float *H, float scale, const float *X, int64_t ldx,
                      float *out, int64_t ldo, const cv_pair_work *work) {
  int64_t m = G->n, n = A->n, r_g = G->r, r_a = A->r, cols = r_a + 1;
  float *P = A->U - r_g * A->ld, *R = G->U + r_g * G->ld, *Z = work->core; /* (r_g, n), (r_a, m), (r_g, r_a) */
  const float *tail = H + r_g * cols;
  float h = tail[r_a];
  if (r_g > 0) cv_gemm(CV_N, CV_N, r_g, n, m, 1, G->U, G->ld, X, ldx, 0, P, A->ld);
  if (r_a > 0) cv_gemm(CV_N, CV_T, r_a, m, n, 1, A->U, A->ld, X, ldx, 0, R, G->ld);
  if (r_g > 0 && r_a > 0) cv_gemm(CV_N, CV_T, r_g, r_a, n, 1, P, A->ld, A->U, A->ld, 0, Z, r_a);
  for (int64_t i = 0; i < r_g; i++) {
    float h_it = H[i * cols + r_a];
    for (int64_t j = 0; j < n; j++) P[i * A->ld + j] *= h_it - h;
    for (int64_t j = 0; j < r_a; j++) Z[i * r_a + j] *= H[i * cols + j] - h_it - tail[j] + h;
  }
  for (int64_t j = 0; j < r_a; j++) {
    for (int64_t i = 0; i < m; i++) R[j * G->ld + i] *= tail[j] - h;
  }
  if (r_g > 0 && r_a > 0) cv_gemm(CV_T, CV_N, r_a, m, r_g, 1, Z, r_a, G->U, G->ld, 1, R, G->ld);
  scaled_copy(m, n, scale * h, X, ldx, out, ldo);
  if (r_g + r_a > 0) cv_gemm(CV_T, CV_N, m, n, r_g + r_a, scale, G->U, G->ld, P, A->ld, 1, out, ldo);
}

void cv_pair_apply(const cv_lrps *G, const cv_lrps *A, const float *H, float scale, const float *X, int64_t ldx, float *out,
                   int64_t ldo, const cv_pair_work *work) {
  if (is_full(G) && is_full(A)) {
    apply_full(G, A, H, scale, X, ldx, out, ldo, work);
  } else if (is_full(G)) {
    apply_full_g(G, A, H, scale, X, ldx, out, ldo, work);
  } else if (is_full(A)) {
    apply_full_a(G, A, H, scale, X, ldx, out, ldo, work);
  } else {
    apply_low(G, A, H, scale, X, ldx, out, ldo, work);
  }
}
