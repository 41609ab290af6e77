/* Normalisation layers from their definition: the Fisher matrix of (gamma_0, beta_0, gamma_1, beta_1, ...) as a sum
 * over examples, all of it but the 2 by 2 blocks on its diagonal struck out, in dense fp64.
 *
 * Tolerance: the service works in fp32. Sums over 24 rows and averages are wrong by some eps (6e-8) of a block's norm,
 * which an inverse amplifies by the condition number at most: with a damping of a tenth of the mean eigenvalue of all
 * 2 C = 10 parameters at most 10 * 10 + 1 (the largest eigenvalue is at most the trace): 6e-6 for each eps. 1e-4 leaves
 * sixteen of them. */
#ifndef TESTS_NORM_FIXTURE_H
#define TESTS_NORM_FIXTURE_H

#include "kfac_reference.h"
#include "service_fixture.h"

enum { NORM_CHANNELS = 5 };

static const double NORM_TOLERANCE = 1e-4;
static const service_layer norm_layer = {"bn", 1, NORM_CHANNELS, true};

/* Per-example gradients of gamma (what 0) and beta (1), (rows, C). They are correlated, and units differ in size. */
static inline dense norm_rows(int step, int64_t rows, int what) {
  dense X = dense_random((uint64_t)(9000 + step), rows, NORM_CHANNELS),
        Y = dense_random((uint64_t)(9500 + step), rows, NORM_CHANNELS);
  for (int64_t i = 0; i < rows; i++) {
    for (int64_t j = 0; j < NORM_CHANNELS; j++) {
      double common = X.x[i][j], own = Y.x[i][j];
      X.x[i][j] = (float)((what == 0 ? common : 0.6 * common + 0.5 * own + 0.1) / (double)(1 + j));
    }
  }
  return X;
}

/* E[v v^T] of v = (gamma_0, beta_0, gamma_1, ...), and of it the blocks alone. */
static inline dense norm_fisher(dense gamma, dense beta) {
  int64_t n = 2 * gamma.n;
  dense F = dense_zero(n, n);
  for (int64_t e = 0; e < gamma.m; e++) {
    double v[DENSE_MAX];
    for (int64_t i = 0; i < n; i++) v[i] = i % 2 == 0 ? gamma.x[e][i / 2] : beta.x[e][i / 2];
    for (int64_t i = 0; i < n; i++) {
      for (int64_t j = 0; j < n; j++) F.x[i][j] += i / 2 == j / 2 ? v[i] * v[j] / (double)gamma.m : 0;
    }
  }
  return F;
}

static inline dense norm_statistic(int step, int64_t rows) {
  return norm_fisher(norm_rows(step, rows, 0), norm_rows(step, rows, 1));
}

static inline double norm_damping(const kfac_case *c, int k, dense F) {
  double leak = kfac_is(c->average, "zero") ? pow(c->decay, k) : 0, max = dense_eig(F).w[0];
  if (kfac_is(c->mode, "scalar")) return c->damping;
  if (kfac_is(c->mode, "pi")) return c->damping + leak;
  if (kfac_is(c->mode, "product-max")) return c->damping * max;
  if (kfac_is(c->mode, "relative-max")) return c->damping * max + leak;
  return c->damping * dense_trace(F) / (double)F.n + leak;
}

static inline double norm_exponent(const kfac_case *c) {
  return (c->exponent_a + c->exponent_g) / 2;
}

/* Direction of V (C, 2), whose rows lie one after the other in F's order, from k statistics. */
static inline dense norm_direction(const kfac_case *c, int k, const dense *S, dense V) {
  dense F = kfac_average(c, k, S), P = dense_inverse_power(F, norm_damping(c, k, F), norm_exponent(c)),
        D = dense_zero(V.m, 2);
  for (int64_t i = 0; i < F.n; i++) {
    for (int64_t j = 0; j < F.n; j++) D.x[i / 2][i % 2] += P.x[i][j] * V.x[j / 2][j % 2];
  }
  return D;
}

static inline dense norm_gradient(int step) {
  return dense_random((uint64_t)(300 + step), NORM_CHANNELS, 2);
}

/* Fully connected layers, but for layer bn. */
static inline curvd_ctx *norm_make(MPI_Comm comm, const char *options, int n, const service_layer *layers, int bn) {
  curvd_ctx *ctx = service_make(comm, options, bn, layers);
  for (int32_t i = bn, index = -1; i < n; i++) {
    const service_layer *l = &layers[i];
    curvd_status status = i == bn ? curvd_layer_add_norm(ctx, l->name, l->d_out, &index)
                                  : curvd_layer_add(ctx, l->name, l->d_in, l->d_out, l->has_bias, &index);
    ck_assert_msg(status == CURVD_OK && index == i, "%s", curvd_last_error(ctx));
  }
  return ctx;
}

#endif
