/* A curvd context in a test: options in one line of text, layers, captures and gradients as dense matrices.
 * Whatever lies between the rows of an array is NaN, so that reading it shows and writing it is found. */
#ifndef TESTS_SERVICE_FIXTURE_H
#define TESTS_SERVICE_FIXTURE_H

#include "curvd.h"
#include "dense_reference.h"

#include <stdlib.h>
#include <string.h>

enum { SERVICE_LAYERS_MAX = 4, SERVICE_PAD = 3, SERVICE_LD_MAX = DENSE_MAX + SERVICE_PAD };

typedef struct service_layer {
  const char *name;
  int64_t d_in, d_out;
  bool has_bias;
} service_layer;

typedef enum service_layout {
  SERVICE_JOINED, /* the bias is the weight's last column */
  SERVICE_APART   /* as in PyTorch; every second number of an array */
} service_layout;

typedef struct service_gradient {
  float weight[DENSE_MAX * SERVICE_LD_MAX], bias[2 * DENSE_MAX];
  curvd_gradient view;
} service_gradient;

static inline int64_t service_columns(const service_layer *layer) {
  return layer->d_in + layer->has_bias;
}

/* "key=value key=value", no blanks inside; the first failure ends it. */
static inline curvd_status service_set(curvd_ctx *ctx, const char *options) {
  curvd_status status = CURVD_OK;
  for (size_t length; status == CURVD_OK && *options; options += length + (options[length] != '\0')) {
    char word[256] = "", *value;
    length = strcspn(options, " ");
    dense_require(length < sizeof word);
    memcpy(word, options, length);
    value = strchr(word, '=');
    if (!value) ck_abort_msg("'%s' has no value", word);
    *value++ = '\0';
    status = curvd_set(ctx, word, value);
  }
  return status;
}

/* Everything before curvd_plan. */
static inline curvd_ctx *service_make(MPI_Comm comm, const char *options, int n, const service_layer *layers) {
  curvd_ctx *ctx = NULL;
  ck_assert_int_eq(curvd_create(comm, &ctx), CURVD_OK);
  ck_assert_msg(service_set(ctx, options) == CURVD_OK, "%s", curvd_last_error(ctx));
  for (int i = 0; i < n; i++) {
    int32_t index = -1;
    curvd_status status =
        curvd_layer_add(ctx, layers[i].name, layers[i].d_in, layers[i].d_out, layers[i].has_bias, &index);
    ck_assert_msg(status == CURVD_OK && index == i, "%s", curvd_last_error(ctx));
  }
  return ctx;
}

static inline curvd_ctx *service_open(MPI_Comm comm, const char *options, int n, const service_layer *layers) {
  curvd_ctx *ctx = service_make(comm, options, n, layers);
  ck_assert_msg(curvd_plan(ctx) == CURVD_OK, "%s", curvd_last_error(ctx));
  return ctx;
}

static inline void service_close(curvd_ctx **ctx) {
  if (curvd_role_get(*ctx) == CURVD_ROLE_WORKER) ck_assert_int_eq(curvd_finish(*ctx), CURVD_OK);
  curvd_destroy(ctx);
  ck_assert_ptr_null(*ctx);
}

/* Rows from .. to of X in fp32. */
static inline void service_floats(dense X, int64_t from, int64_t to, float *out) {
  for (int64_t i = from; i < to; i++) {
    for (int64_t j = 0; j < X.n + SERVICE_PAD; j++) *out++ = j < X.n ? (float)X.x[i][j] : NAN;
  }
}

/* Examples from .. to of a (rows, d_in) and g (rows, d_out). */
static inline curvd_status service_capture_part(curvd_ctx *ctx, int32_t layer, dense a, dense g, int64_t from,
                                                int64_t to) {
  static float a_rows[DENSE_MAX * SERVICE_LD_MAX], g_rows[DENSE_MAX * SERVICE_LD_MAX];
  service_floats(a, from, to, a_rows);
  service_floats(g, from, to, g_rows);
  return curvd_capture(ctx, layer, to - from, a_rows, a.n + SERVICE_PAD, g_rows, g.n + SERVICE_PAD);
}

static inline void service_capture(curvd_ctx *ctx, int32_t layer, dense a, dense g) {
  ck_assert_int_eq(service_capture_part(ctx, layer, a, g, 0, a.m), CURVD_OK);
}

/* Lays out V (d_out, d_in + has_bias) as a caller would. */
static inline void service_put(const service_layer *layer, service_layout layout, dense V, service_gradient *g) {
  int64_t d_in = layer->d_in, ld = V.n + SERVICE_PAD;
  bool is_apart = layout == SERVICE_APART;
  for (size_t i = 0; i < sizeof g->weight / sizeof g->weight[0]; i++) g->weight[i] = NAN;
  for (size_t i = 0; i < sizeof g->bias / sizeof g->bias[0]; i++) g->bias[i] = NAN;
  g->view = (curvd_gradient){
      .weight = g->weight, .ld = ld, .bias = is_apart ? g->bias : g->weight + d_in, .bias_stride = is_apart ? 2 : ld};
  for (int64_t i = 0; i < V.m; i++) {
    for (int64_t j = 0; j < d_in; j++) g->view.weight[i * ld + j] = (float)V.x[i][j];
    if (layer->has_bias) g->view.bias[i * g->view.bias_stride] = (float)V.x[i][d_in];
  }
}

/* Reads it back, and checks that nothing else was written. */
static inline dense service_take(const service_layer *layer, service_gradient *g) {
  dense V = dense_zero(layer->d_out, service_columns(layer));
  for (int64_t i = 0; i < V.m; i++) {
    for (int64_t j = 0; j < V.n; j++) {
      float *x = j < layer->d_in ? &g->view.weight[i * g->view.ld + j] : &g->view.bias[i * g->view.bias_stride];
      V.x[i][j] = *x;
      *x = NAN;
    }
  }
  bool is_clean = true;
  for (size_t i = 0; i < sizeof g->weight / sizeof g->weight[0]; i++) is_clean = is_clean && isnan(g->weight[i]);
  for (size_t i = 0; i < sizeof g->bias / sizeof g->bias[0]; i++) is_clean = is_clean && isnan(g->bias[i]);
  ck_assert_msg(is_clean, "layer %s: numbers between the rows were written", layer->name);
  return V;
}

/* V: n gradients, replaced by directions when the step succeeds. */
static inline curvd_status service_try(curvd_ctx *ctx, double lr, service_layout layout, int n,
                                       const service_layer *layers, dense *V) {
  static service_gradient g[SERVICE_LAYERS_MAX];
  curvd_gradient view[SERVICE_LAYERS_MAX] = {{.weight = NULL}};
  for (int i = 0; i < n; i++) {
    service_put(&layers[i], layout, V[i], &g[i]);
    view[i] = g[i].view;
  }
  curvd_status status = curvd_step(ctx, lr, view, n);
  for (int i = 0; i < n && status == CURVD_OK; i++) V[i] = service_take(&layers[i], &g[i]);
  return status;
}

/* One layer, a step that must succeed: the direction of V. */
static inline dense service_step(curvd_ctx *ctx, const service_layer *layer, dense V) {
  curvd_status status = service_try(ctx, 1, SERVICE_JOINED, 1, layer, &V);
  ck_assert_msg(status == CURVD_OK, "%s", curvd_last_error(ctx));
  return V;
}

static inline curvd_metrics service_metrics(const curvd_ctx *ctx) {
  curvd_metrics metrics;
  ck_assert_int_eq(curvd_metrics_read(ctx, &metrics), CURVD_OK);
  return metrics;
}

static inline curvd_factor_metrics service_factor(const curvd_ctx *ctx, int32_t layer, int which) {
  curvd_layer_metrics metrics;
  ck_assert_int_eq(curvd_layer_metrics_read(ctx, layer, &metrics), CURVD_OK);
  return metrics.factor[which];
}

/* ---- captures whose statistic has a spectrum that the test lays down ---- */

typedef double (*service_spectrum)(int64_t i); /* eigenvalue number i, from 0 */

/* Random orthonormal columns. */
static inline dense service_basis(uint64_t seed, int64_t n) {
  dense R = dense_random(seed, n, n);
  return dense_eig(dense_sum(1, R, 1, dense_transposed(R))).V;
}

/* X (rows, n) in fp32 with X^T X / rows = Q diag(lambda) Q^T; rows beyond n are zero. */
static inline dense service_rows_of(int64_t rows, dense Q, service_spectrum lambda) {
  dense X = dense_zero(rows, Q.n);
  for (int64_t i = 0; i < Q.n; i++) {
    for (int64_t j = 0; j < Q.n; j++) X.x[i][j] = (float)(sqrt((double)rows * lambda(i)) * Q.x[j][i]);
  }
  return X;
}

static inline Suite *service_suite(const char *name, const TTest *const *tests, size_t n) {
  Suite *suite = suite_create(name);
  TCase *tcase = tcase_create(name);
  for (size_t i = 0; i < n; i++) tcase_add_test(tcase, tests[i]);
  suite_add_tcase(suite, tcase);
  return suite;
}

#endif
