/* Online low-rank updates in dense fp64: the truncated average as a matrix, and the direction that it gives. */
#ifndef TESTS_ONLINE_FIXTURE_H
#define TESTS_ONLINE_FIXTURE_H

#include "kfac_reference.h"

/* L (n, n) of rank r_max stands for a running average whose trace is known. */
typedef struct online {
  int64_t r_max;
  dense L;
  double trace;
  double least_gap; /* of all truncations: (l_r - l_(r + 1)) / l_r at r = r_max, how well they are determined */
} online;

static inline online online_new(const kfac_case *c, int64_t n, int64_t r_max) {
  return (online){r_max, dense_zero(n, n), kfac_is(c->average, "id") ? (double)n : 0, 1};
}

/* Eigenvalues from number r on replaced by tau. */
static inline dense online_cut(dense M, int64_t r, double tau) {
  dense_eigen e = dense_eig(M);
  for (int64_t i = r; i < M.n; i++) e.w[i] = tau;
  return dense_composed(&e);
}

/* Rows from .. to of X, with the 1 of a bias. */
static inline dense online_rows(dense X, bool has_bias, int64_t from, int64_t to) {
  dense Y = dense_zero(to - from, X.n + has_bias);
  for (int64_t i = from; i < to; i++) {
    for (int64_t j = 0; j < Y.n; j++) Y.x[i - from][j] = j < X.n ? X.x[i][j] : 1;
  }
  return Y;
}

/* M <- keep M + add Y^T Y, of which the r_max largest pairs stay. */
static inline void online_block(online *o, double keep, double add, dense Y) {
  o->L = dense_sum(keep, o->L, add, dense_product(dense_transposed(Y), Y));
  o->trace = keep * o->trace + add * dense_dot(Y, Y);
  dense_eigen e = dense_eig(o->L);
  double gap = 1 - e.w[o->r_max] / e.w[o->r_max - 1];
  if (e.w[o->r_max] > 1e-12 * e.w[0]) o->least_gap = fmin(o->least_gap, gap);
  o->L = online_cut(o->L, o->r_max, 0);
}

/* Update number k (from 1) with X, whose rows come in n_parts pieces: those of as many workers. */
static inline void online_update(online *o, const kfac_case *c, int k, dense X, bool has_bias, int n_parts) {
  double add = kfac_weight(c, k - 1, k), keep = k > 1 ? kfac_weight(c, 0, k) / kfac_weight(c, 0, k - 1) : 0;
  if (k == 1 && kfac_is(c->average, "id")) keep = c->decay;
  for (int w = 0; w < n_parts; w++) {
    int64_t from = X.m * w / n_parts, to = X.m * (w + 1) / n_parts;
    if (from == to) continue;
    online_block(o, keep, add / (double)X.m, online_rows(X, has_bias, from, to));
    keep = 1;
  }
}

/* Rayleigh-Ritz with the whole average M on all pairs. */
static inline void online_correct(online *o, dense M) {
  dense_eigen e = dense_eig(o->L);
  for (int64_t i = 0; i < M.n; i++) e.w[i] = i < o->r_max && e.w[i] > 1e-12 * e.w[0];
  dense P = dense_composed(&e);
  o->L = dense_product(dense_product(P, M), P);
}

/* The whole average as it is estimated: eig_rank pairs, and what tail says for the rest. */
static inline dense online_estimate(const online *o, int64_t eig_rank, const char *tail) {
  dense_eigen e = dense_eig(o->L);
  double rest = o->trace;
  int64_t kept = 0;
  while (kept < eig_rank && kept < o->r_max && e.w[kept] > 1e-12 * e.w[0]) rest -= e.w[kept++];
  double tau = kfac_is(tail, "mean") ? fmax(rest, 0) / (double)(e.V.n - kept) : 0;
  if (kfac_is(tail, "min")) tau = e.w[kept - 1];
  return online_cut(o->L, kept, tau);
}

/* Direction of V from estimates of rank eig_rank, damped by a share of the mean eigenvalue. */
static inline dense online_direction(const kfac_case *c, const online *A, const online *G, double leak,
                                     int64_t eig_rank, const char *tail, dense V) {
  double damping_a = c->damping * A->trace / (double)A->L.n + leak;
  double damping_g = c->damping * G->trace / (double)G->L.n + leak;
  dense left = dense_inverse_power(online_estimate(G, eig_rank, tail), damping_g, c->exponent_g);
  dense right = dense_inverse_power(online_estimate(A, eig_rank, tail), damping_a, c->exponent_a);
  return dense_product(dense_product(left, V), right);
}

#endif
