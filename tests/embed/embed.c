/* A user's own trainer, in a few lines that are C and C++ alike: fits y = W x with the installed library and nothing
 * else. Exit 0 when the loss fell a hundredfold on every rank. */
#include <curvd.h>
#include <curvd_experimental.h>

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { ROWS = 32, D_IN = 5, D_OUT = 3, STEPS = 300 };

static void check(curvd_ctx *ctx, curvd_status status) {
  if (status == CURVD_OK) return;
  fprintf(stderr, "%s: %s\n", curvd_status_name(status), curvd_last_error(ctx));
  MPI_Abort(MPI_COMM_WORLD, 1);
}

/* Inputs and the outputs to learn, anything deterministic. */
static void make_data(int rank, float x[ROWS][D_IN], float y[ROWS][D_OUT]) {
  for (int i = 0; i < ROWS; i++) {
    for (int j = 0; j < D_IN; j++) x[i][j] = (float)sin(1.7 * (rank * ROWS + i) + 2.3 * j * (i + 1));
    for (int o = 0; o < D_OUT; o++) {
      y[i][o] = (float)o;
      for (int j = 0; j < D_IN; j++) y[i][o] += x[i][j] * (float)cos(o + 2.0 * j);
    }
  }
}

/* Mean loss over the rows; g: gradients in the outputs of the mean; gradient (D_OUT, D_IN + 1), bias last. */
static float backward(float x[ROWS][D_IN], float y[ROWS][D_OUT], float w[D_OUT][D_IN + 1], float g[ROWS][D_OUT],
                      float gradient[D_OUT][D_IN + 1]) {
  float loss = 0;
  for (int o = 0; o < D_OUT; o++) {
    for (int j = 0; j <= D_IN; j++) gradient[o][j] = 0;
    for (int i = 0; i < ROWS; i++) {
      float z = w[o][D_IN];
      for (int j = 0; j < D_IN; j++) z += w[o][j] * x[i][j];
      g[i][o] = (z - y[i][o]) / ROWS;
      loss += (z - y[i][o]) * (z - y[i][o]) / (2 * ROWS);
      for (int j = 0; j < D_IN; j++) gradient[o][j] += g[i][o] * x[i][j];
      gradient[o][D_IN] += g[i][o];
    }
  }
  return loss;
}

static int train(curvd_ctx *ctx) {
  static float x[ROWS][D_IN], y[ROWS][D_OUT], w[D_OUT][D_IN + 1], g[ROWS][D_OUT], gradient[D_OUT][D_IN + 1];
  float first = 0, loss = 0;
  make_data(curvd_worker_index(ctx), x, y);
  for (int step = 0; step < STEPS; step++) {
    curvd_gradient handed = {&gradient[0][0], D_IN + 1, &gradient[0][D_IN], D_IN + 1, &w[0][0], &w[0][D_IN], 0};
    double lr = 0.05 * (1 - (double)step / STEPS);
    loss = backward(x, y, w, g, gradient);
    if (step == 0) first = loss;
    if (curvd_wants_capture(ctx)) check(ctx, curvd_capture(ctx, 0, ROWS, &x[0][0], D_IN, &g[0][0], D_OUT));
    check(ctx, curvd_step(ctx, lr, &handed, 1)); /* w <- w - lr * direction */
  }
  check(ctx, curvd_finish(ctx));
  return loss < first / 100 ? 0 : 1;
}

/* What it will be like on 100 ranks; before MPI. */
static int predict(void) {
  curvd_layer_shape layer;
  memset(&layer, 0, sizeof layer);
  layer.name = "only", layer.d_in = D_IN, layer.d_out = D_OUT, layer.has_bias = true;
  curvd_option_value servers = {"curvature_ranks", "10"};
  curvd_run_shape shape = {&layer, 1, &servers, 1, 100, 100 * ROWS, 0, 0, 0, false, NULL};
  curvd_prediction *prediction = NULL;
  curvd_prediction_summary summary;
  char why[480];
  if (curvd_predict(&shape, &prediction, why, sizeof why) != CURVD_OK) {
    fprintf(stderr, "%s\n", why);
    return 1;
  }
  curvd_prediction_read(prediction, &summary);
  curvd_prediction_free(&prediction);
  return summary.n_workers == 90 && summary.step_s > 0 ? 0 : 1;
}

int main(int argc, char **argv) {
  if (predict() != 0) return 1;
  curvd_ctx *ctx = NULL;
  int32_t layer = 0;
  int failed = 0, any = 0, n_ranks = 0;
  MPI_Init(&argc, &argv);
  MPI_Comm_size(MPI_COMM_WORLD, &n_ranks);
  if (curvd_create(MPI_COMM_WORLD, &ctx) != CURVD_OK) MPI_Abort(MPI_COMM_WORLD, 1);
  check(ctx, curvd_set(ctx, "curvature_ranks", n_ranks > 1 ? "1" : "0"));
  check(ctx, curvd_layer_add(ctx, "only", D_IN, D_OUT, true, &layer));
  check(ctx, curvd_plan(ctx));
  if (curvd_role_get(ctx) == CURVD_ROLE_WORKER) {
    failed = train(ctx);
  } else {
    check(ctx, curvd_serve(ctx));
  }
  MPI_Allreduce(&failed, &any, 1, MPI_INT, MPI_MAX, MPI_COMM_WORLD);
  curvd_destroy(&ctx);
  MPI_Finalize();
  return any;
}
