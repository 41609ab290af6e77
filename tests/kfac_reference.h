/* K-FAC written from its definition, in dense fp64: averages as explicit sums of statistics, joint damping on the whole
 * Kronecker product, inverse powers by elimination or Jacobi. */
#ifndef TESTS_KFAC_REFERENCE_H
#define TESTS_KFAC_REFERENCE_H

#include "dense_reference.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* Words as curvd_set takes them. */
typedef struct kfac_case {
  const char *mode, *average, *form;
  double damping, exponent_a, exponent_g, decay;
} kfac_case;

static inline const char *kfac_options(const kfac_case *c, const char *more) {
  static char text[1024];
  snprintf(text, sizeof text,
           "method=kfac step=plain momentum=0 factor_update_steps=1 inv_update_steps=1 damping_mode=%s average=%s "
           "form=%s damping=%.17g exponent_a=%g exponent_g=%g factor_decay=%g%s%s",
           c->mode, c->average, c->form, c->damping, c->exponent_a, c->exponent_g, c->decay, *more ? " " : "", more);
  return text;
}

/* X^T X / rows, with a column of ones when there is a bias. */
static inline dense kfac_statistic(dense X, bool has_bias) {
  dense Y = dense_zero(X.m, X.n + has_bias);
  for (int64_t i = 0; i < X.m; i++) {
    for (int64_t j = 0; j < Y.n; j++) Y.x[i][j] = j < X.n ? X.x[i][j] : 1;
  }
  return dense_scaled(1 / (double)X.m, dense_product(dense_transposed(Y), Y));
}

static inline bool kfac_is(const char *x, const char *y) {
  return strcmp(x, y) == 0;
}

/* Weight of statistic i in the average after k of them, i < k. */
static inline double kfac_weight(const kfac_case *c, int i, int k) {
  double age = pow(c->decay, k - 1 - i), weight = 1;
  if (kfac_is(c->average, "sum")) return age;
  if (kfac_is(c->average, "norm")) return age * (1 - c->decay) / (1 - pow(c->decay, k));
  if (kfac_is(c->average, "first")) return i == 0 ? age : (1 - c->decay) * age;
  if (!kfac_is(c->average, "mg")) return (1 - c->decay) * age;
  for (int j = i; j < k; j++) { /* the update of number j + 1, from 1 */
    double keep = fmin(1 - 1 / (double)(j + 1), 0.95);
    weight *= j == i ? 1 - keep : keep;
  }
  return weight;
}

/* After k statistics. */
static inline dense kfac_average(const kfac_case *c, int k, const dense *S) {
  dense M = dense_zero(S[0].n, S[0].n);
  for (int i = 0; i < k; i++) M = dense_sum(1, M, kfac_weight(c, i, k), S[i]);
  return kfac_is(c->average, "id") ? dense_shifted(M, pow(c->decay, k)) : M;
}

/* What is added to the eigenvalues of A (which 0) or G (1); to those of the product in the joint modes. */
static inline double kfac_damping(const kfac_case *c, int k, dense A, dense G, int which) {
  double mean_a = dense_trace(A) / (double)A.n, mean_g = dense_trace(G) / (double)G.n, pi = sqrt(mean_a / mean_g);
  double leak = kfac_is(c->average, "zero") ? pow(c->decay, k) : 0;
  if (kfac_is(c->mode, "scalar")) return c->damping;
  if (kfac_is(c->mode, "product-max")) return c->damping * dense_eig(A).w[0] * dense_eig(G).w[0];
  if (kfac_is(c->mode, "pi")) return sqrt(c->damping) * (which == 0 ? pi : 1 / pi) + leak;
  if (kfac_is(c->mode, "relative-mean")) return c->damping * (which == 0 ? mean_a : mean_g) + leak;
  return c->damping * dense_eig(which == 0 ? A : G).w[0] + leak;
}

static inline bool kfac_is_joint(const kfac_case *c) {
  return kfac_is(c->mode, "scalar") || kfac_is(c->mode, "product-max");
}

/* Direction of V (m, n) from averages A (n, n) and G (m, m) of k updates. */
static inline dense kfac_apply(const kfac_case *c, int k, dense A, dense G, dense V) {
  double damping_a = kfac_damping(c, k, A, G, 0), damping_g = kfac_damping(c, k, A, G, 1);
  if (kfac_is_joint(c)) {
    dense P = dense_inverse_power(dense_kronecker(A, G), damping_a, c->exponent_a);
    return dense_unvec(dense_product(P, dense_vec(V)), V.m);
  }
  dense left = dense_product(dense_inverse_power(G, damping_g, c->exponent_g), V);
  return dense_product(left, dense_inverse_power(A, damping_a, c->exponent_a));
}

static inline dense kfac_direction(const kfac_case *c, int k, const dense *S_A, const dense *S_G, dense V) {
  return kfac_apply(c, k, kfac_average(c, k, S_A), kfac_average(c, k, S_G), V);
}

#endif
