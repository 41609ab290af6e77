#include "linalg/pair.h"

#include "linalg/dense.h"

#include <math.h>
#include <string.h>

/* Below this share of h^2 |X|^2 the subtraction in the tail's energy has eaten too many digits of the products.
 * Energies are off by twice what a product is: fp32 by 1e-6 in all. bf16 rounds both operands by 2^-9, root mean
 * square; two terms are off by 2^-17 each, and their last product, 2^-18, is left out. The share is that over what the
 * sums are promised to.
 */
static double certain_share(const cv_multiplier *by) {
  static const double share[] = {[CV_FP32] = 1e-3, [CV_BF16] = 2 * 0x1p-8 / 1e-2, [CV_BF16X3] = 2 * 0x5p-18 / 1e-3};
  return share[by ? by->precision : CV_FP32];
}

static bool is_full(const cv_lrps *side) {
  return side->r == side->n;
}

/* S (m, n) <- S .* H with the sums over the result: rotations keep both. */
static cv_pair_sums multiply(int64_t m, int64_t n, float *S, int64_t ld, const float *H) {
  cv_pair_sums sums = {0, 0, true, true};
  for (int64_t i = 0; i < m; i++) {
    for (int64_t j = 0; j < n; j++) {
      double s = S[i * ld + j], t = s * H[i * n + j];
      sums.squares += t * t;
      sums.dot += s * t;
      S[i * ld + j] = (float)t;
    }
  }
  return sums;
}

/* Of sums over a result that is rotated back: top is the largest of H that matters. */
static bool is_dot_certain(const cv_pair *pair, const cv_pair_sums *sums, double top, double squares_x) {
  return sums->dot >= certain_share(pair->by) * top * squares_x;
}

static double largest(int64_t count, const float *H) {
  double top = 0;
  for (int64_t i = 0; i < count; i++) top = fmax(top, H[i]);
  return top;
}

/* Both sides full: into the eigenbases, times H, and back. What bf16 puts where H is large may outweigh all of X. */
static cv_pair_sums project_full(const cv_pair *pair, const float *X, int64_t ldx, double squares_x, float *out,
                                 int64_t ldo) {
  const cv_lrps *G = pair->G, *A = pair->A;
  int64_t m = G->n, n = A->n, ld = cv_dense_ld(n);
  float *T = pair->plane, *S = pair->plane + m * ld;
  cv_multiply(pair->by, CV_N, CV_N, m, n, m, 1, G->U, G->ld, X, ldx, 0, T, ld);
  cv_multiply(pair->by, CV_N, CV_T, m, n, n, 1, T, ld, A->U, A->ld, 0, S, ld);
  cv_pair_sums sums = multiply(m, n, S, ld, pair->H);
  sums.is_certain = cv_is_fp32(pair->by) || is_dot_certain(pair, &sums, largest(m * n, pair->H), squares_x);
  cv_multiply(pair->by, CV_T, CV_N, m, n, m, 1, G->U, G->ld, S, ld, 0, T, ld);
  cv_multiply(pair->by, CV_N, CV_N, m, n, n, 1, T, ld, A->U, A->ld, 0, out, ldo);
  return sums;
}

/* Energies of X: E_tt outside both kept spans, E_it, E_tj, E_ij inside. The function multiplies each component by H, so
 * |result|^2 = sum H^2 E and <result, X> = sum H E. */
static void add_energy(cv_pair_sums *sums, double h, double energy) {
  double e = energy > 0 ? energy : 0; /* a difference of two fp32 results may round below 0 */
  sums->squares += h * h * e;
  sums->dot += h * e;
}

static bool is_certain(const cv_pair *pair, const cv_pair_sums *sums, double h, double squares_x) {
  return sums->squares >= certain_share(pair->by) * h * h * squares_x && is_dot_certain(pair, sums, h, squares_x);
}

/* G full, A of low rank: row i of T = U_G X sees the one-sided function H[i, :]. */
static cv_pair_sums project_full_g(const cv_pair *pair, const float *X, int64_t ldx, float *out, int64_t ldo) {
  const cv_lrps *G = pair->G, *A = pair->A;
  int64_t m = G->n, n = A->n, r = A->r, ld = cv_dense_ld(n);
  float *T = pair->plane, *P = pair->plane + m * ld; /* (m, n), (m, r) */
  cv_pair_sums sums = {0, 0, true, true};
  double squares_x = 0, tail_most = 0;
  cv_multiply(pair->by, CV_N, CV_N, m, n, m, 1, G->U, G->ld, X, ldx, 0, T, ld);
  if (r > 0) cv_multiply(pair->by, CV_N, CV_T, m, r, n, 1, T, ld, A->U, A->ld, 0, P, ld);
  for (int64_t i = 0; i < m; i++) {
    const float *h = pair->H + i * (r + 1);
    double rest = cv_sum_squares(1, n, T + i * ld, ld);
    squares_x += rest;
    tail_most = fmax(tail_most, h[r]);
    for (int64_t j = 0; j < r; j++) {
      double energy = (double)P[i * ld + j] * (double)P[i * ld + j];
      add_energy(&sums, h[j], energy);
      rest -= energy;
      P[i * ld + j] *= h[j] - h[r];
    }
    add_energy(&sums, h[r], rest);
    for (int64_t j = 0; j < n; j++) T[i * ld + j] *= h[r];
  }
  if (r > 0) cv_multiply(pair->by, CV_N, CV_N, m, n, r, 1, P, ld, A->U, A->ld, 1, T, ld);
  sums.squares = cv_sum_squares(m, n, T, ld); /* a rotation away from the result: exact */
  sums.is_certain = is_dot_certain(pair, &sums, tail_most, squares_x);
  cv_multiply(pair->by, CV_T, CV_N, m, n, m, 1, G->U, G->ld, T, ld, 0, out, ldo);
  return sums;
}

/* A full, G of low rank: column j of T = X U_A^T sees the function H[:, j]. */
static cv_pair_sums project_full_a(const cv_pair *pair, const float *X, int64_t ldx, float *out, int64_t ldo) {
  const cv_lrps *G = pair->G, *A = pair->A;
  int64_t m = G->n, n = A->n, r = G->r, ld = cv_dense_ld(n);
  float *T = pair->plane, *P = pair->plane + m * ld; /* (m, n), (r, n) */
  const float *tail = pair->H + r * n;
  cv_pair_sums sums = {0, 0, true, true};
  double squares_x = 0, tail_most = largest(n, tail);
  cv_multiply(pair->by, CV_N, CV_T, m, n, n, 1, X, ldx, A->U, A->ld, 0, T, ld);
  if (r > 0) cv_multiply(pair->by, CV_N, CV_N, r, n, m, 1, G->U, G->ld, T, ld, 0, P, ld);
  for (int64_t i = 0; i < m; i++) {
    for (int64_t j = 0; j < n; j++) {
      double t = T[i * ld + j];
      squares_x += t * t;
      sums.dot += tail[j] * t * t;
      T[i * ld + j] *= tail[j];
    }
  }
  for (int64_t i = 0; i < r; i++) {
    const float *h = pair->H + i * n;
    for (int64_t j = 0; j < n; j++) {
      double p = P[i * ld + j];
      sums.dot += ((double)h[j] - tail[j]) * p * p;
      P[i * ld + j] *= h[j] - tail[j];
    }
  }
  if (r > 0) cv_multiply(pair->by, CV_T, CV_N, m, n, r, 1, G->U, G->ld, P, ld, 1, T, ld);
  sums.squares = cv_sum_squares(m, n, T, ld);
  sums.is_certain = is_dot_certain(pair, &sums, tail_most, squares_x);
  cv_multiply(pair->by, CV_N, CV_N, m, n, n, 1, T, ld, A->U, A->ld, 0, out, ldo);
  return sums;
}

/* ---- both sides of low rank ---- */

static float *rows_p(const cv_pair *pair) {
  return pair->A->U - pair->G->r * pair->A->ld;
} /* (r_G, n) */
static float *rows_r(const cv_pair *pair) {
  return pair->G->U + pair->G->r * pair->G->ld;
} /* (r_A, m) */

void cv_pair_projections(const cv_pair *pair, const float *X, int64_t ldx, float *P, float *R) {
  const cv_lrps *G = pair->G, *A = pair->A;
  if (G->r > 0) cv_multiply(pair->by, CV_N, CV_N, G->r, A->n, G->n, 1, G->U, G->ld, X, ldx, 0, P, A->ld);
  if (A->r > 0) cv_multiply(pair->by, CV_N, CV_T, A->r, G->n, A->n, 1, A->U, A->ld, X, ldx, 0, R, G->ld);
}

/* out = scale * in over one row; returns the sum of squares of in. */
static double scale_row(int64_t n, float scale, const float *in, float *out) {
  double squares = cv_sum_squares_f32(1, n, in, n);
  for (int64_t j = 0; j < n; j++) out[j] = scale * in[j];
  return squares;
}

/* P and R become the rows of the last product, Z its share of R. */
static cv_pair_sums weigh(const cv_pair *pair, double squares_x, const float *P_in, const float *R_in, float *P,
                          float *R) {
  const cv_lrps *G = pair->G, *A = pair->A;
  int64_t cols = A->r + 1;
  float *Z = pair->core;
  const float *tail = pair->H + G->r * cols;
  float h = tail[A->r];
  double rest = squares_x;
  cv_pair_sums sums = {0, 0, false, false};
  for (int64_t j = 0; j < A->r; j++) {
    double energy = scale_row(G->n, tail[j] - h, R_in + j * G->ld, R + j * G->ld);
    rest -= energy;
    for (int64_t i = 0; i < G->r; i++) energy -= (double)Z[i * A->r + j] * (double)Z[i * A->r + j];
    add_energy(&sums, tail[j], energy);
  }
  for (int64_t i = 0; i < G->r; i++) {
    const float *h_i = pair->H + i * cols;
    double energy = scale_row(A->n, h_i[A->r] - h, P_in + i * A->ld, P + i * A->ld);
    for (int64_t j = 0; j < A->r; j++) {
      float *z = &Z[i * A->r + j];
      double inside = (double)*z * (double)*z;
      add_energy(&sums, h_i[j], inside);
      energy -= inside;
      *z *= h_i[j] - h_i[A->r] - tail[j] + h;
    }
    rest -= energy;
    add_energy(&sums, h_i[A->r], energy);
  }
  add_energy(&sums, h, rest);
  sums.is_certain = is_certain(pair, &sums, h, squares_x);
  return sums;
}

static cv_pair_sums project_low(const cv_pair *pair, const float *X, int64_t ldx, double squares_x, const float *P_in,
                                const float *R_in) {
  const cv_lrps *G = pair->G, *A = pair->A;
  float *P = rows_p(pair), *R = rows_r(pair), *Z = pair->core;
  bool has_core = G->r > 0 && A->r > 0;
  if (!P_in || !R_in) {
    cv_pair_projections(pair, X, ldx, P, R);
    P_in = P, R_in = R;
  }
  if (has_core) cv_multiply(pair->by, CV_N, CV_T, G->r, A->r, A->n, 1, P_in, A->ld, A->U, A->ld, 0, Z, A->r);
  cv_pair_sums sums = weigh(pair, squares_x, P_in, R_in, P, R);
  if (has_core) cv_multiply(pair->by, CV_T, CV_N, A->r, G->n, G->r, 1, Z, A->r, G->U, G->ld, 1, R, G->ld);
  return sums;
}

cv_pair_sums cv_pair_project(const cv_pair *pair, const float *X, int64_t ldx, double squares_x, const float *P,
                             const float *R, float *out, int64_t ldo) {
  bool full_g = is_full(pair->G), full_a = is_full(pair->A);
  if (full_g && full_a) return project_full(pair, X, ldx, squares_x, out, ldo);
  if (full_g) return project_full_g(pair, X, ldx, out, ldo);
  if (full_a) return project_full_a(pair, X, ldx, out, ldo);
  return project_low(pair, X, ldx, squares_x, P, R);
}

void cv_pair_expand(const cv_pair *pair, float scale, const float *X, int64_t ldx, float keep, float *out,
                    int64_t ldo) {
  const cv_lrps *G = pair->G, *A = pair->A;
  int64_t r = G->r + A->r;
  float h = pair->H[(G->r + 1) * (A->r + 1) - 1];
  cv_mix(G->n, A->n, scale * h, X, ldx, keep, out, ldo);
  if (r > 0) cv_multiply(pair->by, CV_T, CV_N, G->n, A->n, r, scale, G->U, G->ld, rows_p(pair), A->ld, 1, out, ldo);
}
