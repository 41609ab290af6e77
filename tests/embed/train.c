/* A user's own network by the installed library and nothing else: 2-20-20-2 with tanh tells two spirals apart.
 * usage: train [METHOD [LEARNING_RATE]]   Exit 0 when 99 % of the points are on their side; METHOD none is plain SGD.
 */
#include <curvd.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { LAYERS = 3, WIDTH = 20, POINTS = 192, STEPS = 100 };

typedef struct layer {
  int d_in, d_out;
  float w[WIDTH][WIDTH + 1], gradient[WIDTH][WIDTH + 1]; /* (d_out, d_in + 1): the bias is the last column */
  float a[POINTS][WIDTH], g[POINTS][WIDTH];              /* (rows, d_in), (rows, d_out) */
} layer;

static layer net[LAYERS] = {{.d_in = 2, .d_out = WIDTH}, {.d_in = WIDTH, .d_out = WIDTH}, {.d_in = WIDTH, .d_out = 2}};

static void check(curvd_ctx *ctx, curvd_status status) {
  if (status == CURVD_OK) return;
  fprintf(stderr, "%s: %s\n", curvd_status_name(status), curvd_last_error(ctx));
  MPI_Abort(MPI_COMM_WORLD, 1);
}

/* Uniform in (-1, 1), the same on every rank (Park and Miller 1988). */
static float draw(long long *state) {
  *state = *state * 16807 % 2147483647;
  return (float)(2 * (double)*state / 2147483647 - 1);
}

static void make_weights(void) {
  long long state = 1;
  for (int l = 0; l < LAYERS; l++) {
    for (int o = 0; o < net[l].d_out; o++) {
      for (int i = 0; i < net[l].d_in; i++) net[l].w[o][i] = draw(&state) * (float)sqrt(3.0 / net[l].d_in);
      net[l].w[o][net[l].d_in] = 0;
    }
  }
}

/* Point i, of class i % 2: one and a half turns. */
static void make_point(int i, float x[WIDTH]) {
  double r = (i / 2 + 1.0) / (POINTS / 2), angle = 3 * 3.14159265358979 * (r + i % 2 / 3.0);
  x[0] = (float)(r * cos(angle));
  x[1] = (float)(r * sin(angle));
}

/* Logits of the rows in net[0].a. */
static void forward(int rows, float z[POINTS][WIDTH]) {
  for (int l = 0; l < LAYERS; l++) {
    for (int r = 0; r < rows; r++) {
      for (int o = 0; o < net[l].d_out; o++) {
        float sum = net[l].w[o][net[l].d_in];
        for (int i = 0; i < net[l].d_in; i++) sum += net[l].w[o][i] * net[l].a[r][i];
        if (l + 1 < LAYERS)
          net[l + 1].a[r][o] = tanhf(sum);
        else
          z[r][o] = sum;
      }
    }
  }
}

/* Gradients of the mean cross-entropy of the rows, in net[l].g and net[l].gradient. */
static void backward(int rows, const int *label, float z[POINTS][WIDTH]) {
  for (int r = 0; r < rows; r++) {
    float p = 1 / (1 + expf(z[r][0] - z[r][1])); /* of class 1 */
    net[LAYERS - 1].g[r][1] = (p - (float)label[r]) / (float)rows;
    net[LAYERS - 1].g[r][0] = -net[LAYERS - 1].g[r][1];
  }
  for (int l = LAYERS - 1; l >= 0; l--) {
    for (int o = 0; o < net[l].d_out; o++) {
      for (int i = 0; i <= net[l].d_in; i++) {
        net[l].gradient[o][i] = 0;
        for (int r = 0; r < rows; r++) net[l].gradient[o][i] += net[l].g[r][o] * (i < net[l].d_in ? net[l].a[r][i] : 1);
      }
    }
    for (int r = 0; l > 0 && r < rows; r++) {
      for (int i = 0; i < net[l].d_in; i++) {
        float sum = 0;
        for (int o = 0; o < net[l].d_out; o++) sum += net[l].w[o][i] * net[l].g[r][o];
        net[l - 1].g[r][i] = sum * (1 - net[l].a[r][i] * net[l].a[r][i]);
      }
    }
  }
}

/* Every n-th point, from the first on; returns how many. */
static int take(int first, int n, int *label) {
  int rows = 0;
  for (int i = first; i < POINTS; i += n) {
    make_point(i, net[0].a[rows]);
    label[rows++] = i % 2;
  }
  return rows;
}

static void step(curvd_ctx *ctx, int rows, double lr) {
  curvd_gradient handed[LAYERS];
  for (int l = 0; l < LAYERS; l++) {
    layer *of = &net[l];
    int bias = of->d_in;
    if (curvd_wants_capture(ctx)) check(ctx, curvd_capture(ctx, l, rows, &of->a[0][0], WIDTH, &of->g[0][0], WIDTH));
    handed[l] = (curvd_gradient){.weight = &of->gradient[0][0],
                                 .ld = WIDTH + 1,
                                 .bias = &of->gradient[0][bias],
                                 .bias_stride = WIDTH + 1,
                                 .parameter = &of->w[0][0],
                                 .parameter_bias = &of->w[0][bias]};
  }
  check(ctx, curvd_step(ctx, lr, handed, LAYERS)); /* w <- w - lr * direction */
}

static int train(curvd_ctx *ctx, double lr) {
  static float z[POINTS][WIDTH];
  int label[POINTS], right = 0, rows;
  for (int s = 0; s < STEPS; s++) {
    rows = take(curvd_worker_index(ctx), curvd_worker_count(ctx), label);
    forward(rows, z);
    backward(rows, label, z);
    step(ctx, rows, lr * (1 - (double)s / STEPS));
  }
  check(ctx, curvd_finish(ctx));
  rows = take(0, 1, label);
  forward(rows, z);
  for (int r = 0; r < rows; r++) right += (z[r][1] > z[r][0]) == label[r];
  if (curvd_worker_index(ctx) == 0) printf("%d of %d points are on their side\n", right, POINTS);
  return 100 * right >= 99 * POINTS ? 0 : 1;
}

static int run(const char *curvature_ranks, const char *method, double lr) {
  static const char *const name[LAYERS] = {"fc1", "fc2", "fc3"};
  curvd_ctx *ctx = NULL;
  int failed = 0;
  make_weights();
  check(ctx, curvd_create(MPI_COMM_WORLD, &ctx));
  check(ctx, curvd_set(ctx, "curvature_ranks", curvature_ranks));
  check(ctx, curvd_set(ctx, "method", method));
  for (int l = 0; l < LAYERS; l++) check(ctx, curvd_layer_add(ctx, name[l], net[l].d_in, net[l].d_out, true, NULL));
  check(ctx, curvd_plan(ctx));
  if (curvd_role_get(ctx) == CURVD_ROLE_WORKER)
    failed = train(ctx, lr);
  else
    check(ctx, curvd_serve(ctx));
  curvd_destroy(&ctx);
  return failed;
}

int main(int argc, char **argv) {
  const char *method = argc > 1 ? argv[1] : "kfac";
  double lr = argc > 2 ? atof(argv[2]) : 0.05;
  int failed, any = 0, n_ranks = 0;
  MPI_Init(&argc, &argv);
  MPI_Comm_size(MPI_COMM_WORLD, &n_ranks);
  failed = run("0", method, lr);
  if (n_ranks > 1) failed |= run("1", method, lr);
  MPI_Allreduce(&failed, &any, 1, MPI_INT, MPI_MAX, MPI_COMM_WORLD);
  MPI_Finalize();
  return any;
}
