/* All ways through the service crossed with each other: how statistics travel, how layers are applied, by which route
 * sums go, and how stale a refresh may be, on every split into W workers and C curvature ranks. Each gives the
 * directions of one rank that goes the plain way (apply replicated, route owner), and the same bits again when calls
 * are late at random.
 *
 * Tolerance: as in test_staleness.c and, for these data, in test_streams.c. Only the order of fp32 sums differs
 * between splits. Rounding of a sum over 48 examples, eps sqrt(48) of the first eigenvalue, is 1e-4 of the k-th one,
 * which a stream's history takes over; damping by the mean eigenvalue divides that by 10 in directions. A
 * preconditioner of another step changes them by a hundred times as much, which is checked.
 *
 * carrier local: an owner uses its own batch, so workers with different batches have other statistics than one rank, by
 * design. Here they all capture the whole batch. Sketches need refreshes that are further apart than their staleness.
 */
#include "carrier_fixture.h"
#include "mpi_delays.h"

#define COUNT(list) (sizeof list / sizeof list[0])

enum { STEPS = 13, ROWS = 48, WIDEST = 25, WEIGHTS = 20 * WIDEST };

static const double TOLERANCE = 1e-4;

static int size, rank;

/* ---- ways ---- */

typedef enum carried { TRIANGLE, SKETCH, COLUMNS, COLUMNS_STREAM, LOCAL, CARRIERS } carried;
typedef enum applied { REPLICATED, SHARDED, FACTORED, APPLIES } applied;
typedef enum routed { OWNER, GRADIENTS, ROUTES } routed;

static const char *const carrier_text[CARRIERS] = {"carrier=triangle store=full", "carrier=sketch store=stream",
                                                   "carrier=columns store=full", "carrier=columns store=stream",
                                                   "carrier=local store=full"};
static const char *const apply_text[APPLIES] = {"replicated", "sharded", "factored"};
static const char *const route_text[ROUTES] = {"owner", "gradients"};

typedef struct way {
  carried carrier;
  applied apply;
  routed route;
  int staleness;
} way;

/* Steps after which a refresh serves: layers that are factored have been preconditioned when it comes. */
static int age_of(const way *w) {
  return w->apply == FACTORED && w->staleness == 0 ? 1 : w->staleness;
}

static int interval_of(const way *w) {
  return w->carrier == SKETCH ? age_of(w) + 1 : 1;
}

static const char *options_of(const way *w, int n_curvature) {
  static char text[512];
  snprintf(text, sizeof text,
           "method=nystrom-kfac eig_rank=6 oversampling=3 full_share=1 step=plain momentum=0 exponent_a=1 exponent_g=1 "
           "damping_mode=relative-mean damping=1 factor_decay=0.7 factor_update_steps=1 inv_update_steps=%d "
           "staleness=%d loss_reduction=sum grad_reduction=sum curvature_ranks=%d apply=%s route=%s %s",
           interval_of(w), w->staleness, n_curvature, apply_text[w->apply], route_text[w->route],
           carrier_text[w->carrier]);
  return text;
}

/* ---- data ---- */

/* Of one step and layer: inputs and two kinds of output gradients, of the captured loss and of the real one. */
typedef struct examples {
  float a[ROWS * WIDEST], g[ROWS * WIDEST], real[ROWS * WIDEST];
} examples;

static examples data[STEPS][RUN_LAYERS];

static void copy_rows(dense X, float *to) {
  for (int64_t i = 0; i < X.m * X.n; i++) to[i] = (float)X.x[i / X.n][i % X.n];
}

static void make_data(void) {
  const carrier_run run = {.base = {.rows = ROWS}, .turn = 2};
  for (int i = 0; i < STEPS * RUN_LAYERS; i++) {
    int step = i / RUN_LAYERS, l = i % RUN_LAYERS;
    copy_rows(carrier_examples(&run, step, l, CV_A), data[step][l].a);
    copy_rows(carrier_examples(&run, step, l, CV_G), data[step][l].g);
    copy_rows(dense_random(7000 + (uint64_t)i, ROWS, run_layer[l].d_out), data[step][l].real);
  }
}

/* Examples of one worker: from .. to. */
typedef struct share {
  int64_t from, to;
} share;

static share share_of(const curvd_ctx *ctx) {
  int n = curvd_worker_count(ctx), w = curvd_worker_index(ctx);
  return (share){run_cut(ROWS, n, w), run_cut(ROWS, n, w + 1)};
}

/* V (d_out, n) = real^T [a 1] over the share. */
static void multiply(int step, int l, share mine, float *V) {
  const examples *x = &data[step][l];
  int64_t d_in = run_layer[l].d_in, d_out = run_layer[l].d_out, n = service_columns(&run_layer[l]);
  for (int64_t i = 0; i < d_out; i++) {
    for (int64_t j = 0; j < n; j++) {
      double sum = 0;
      for (int64_t e = mine.from; e < mine.to; e++)
        sum += (double)x->real[e * d_out + i] * (j < d_in ? (double)x->a[e * d_in + j] : 1);
      V[i * n + j] = (float)sum;
    }
  }
}

/* ---- runs ---- */

typedef float directions[STEPS][RUN_LAYERS][WEIGHTS];

static curvd_status capture(curvd_ctx *ctx, const way *w, int step, int l) {
  const examples *x = &data[step][l];
  int64_t d_in = run_layer[l].d_in, d_out = run_layer[l].d_out;
  share mine = w->carrier == LOCAL ? (share){0, ROWS} : share_of(ctx);
  return curvd_capture(ctx, l, mine.to - mine.from, x->a + mine.from * d_in, d_in, x->g + mine.from * d_out, d_out);
}

/* The gradient, or with apply factored its direction. */
static curvd_status make_gradient(curvd_ctx *ctx, const way *w, int step, int l, const curvd_gradient *to) {
  const examples *x = &data[step][l];
  int64_t d_in = run_layer[l].d_in, d_out = run_layer[l].d_out;
  share mine = share_of(ctx);
  if (w->apply == FACTORED)
    return curvd_precondition(ctx, l, mine.to - mine.from, x->a + mine.from * d_in, d_in, x->real + mine.from * d_out,
                              d_out, 1, 0, to);
  multiply(step, l, mine, to->weight);
  return CURVD_OK;
}

/* Layers are captured on both sides of the call at which a refresh lands. */
static curvd_status take_step(curvd_ctx *ctx, const way *w, int step, float (*V)[WEIGHTS]) {
  curvd_gradient view[RUN_LAYERS] = {{.weight = NULL}};
  for (int l = 0; l < RUN_LAYERS; l++) {
    int64_t n = service_columns(&run_layer[l]);
    view[l] = (curvd_gradient){.weight = V[l], .ld = n, .bias = V[l] + run_layer[l].d_in, .bias_stride = n};
    if (l % 2 == 0) CV_TRY(capture(ctx, w, step, l));
    CV_TRY(make_gradient(ctx, w, step, l, &view[l]));
    if (l % 2 == 1) CV_TRY(capture(ctx, w, step, l));
  }
  return curvd_step(ctx, 0.1, view, RUN_LAYERS);
}

/* On a worker D are the directions, elsewhere zero. */
static curvd_status live(MPI_Comm comm, const way *w, int n_curvature, directions D) {
  curvd_ctx *ctx = service_open(comm, options_of(w, n_curvature), RUN_LAYERS, run_layer);
  curvd_status status = CURVD_OK;
  memset(D, 0, sizeof(directions));
  bool is_worker = run_is_worker(ctx);
  for (int step = 0; step < STEPS && is_worker && status == CURVD_OK; step++) status = take_step(ctx, w, step, D[step]);
  run_close(&ctx);
  return status;
}

/* ---- one rank ---- */

static void make_reference(const way *w, directions expected) {
  way plainly = {w->carrier, REPLICATED, OWNER, age_of(w)};
  mpi_assert(live(MPI_COMM_SELF, &plainly, 0, expected) == CURVD_OK);
}

static double distance(const float *x, const float *y) {
  double rest = 0, whole = 0;
  for (int i = 0; i < WEIGHTS; i++) {
    double gap = (double)x[i] - (double)y[i];
    rest += gap * gap, whole += (double)y[i] * (double)y[i];
  }
  return isfinite(rest) ? sqrt(rest / whole) : INFINITY;
}

static double worst_distance(directions x, directions y) {
  double worst = 0;
  for (int i = 0; i < STEPS * RUN_LAYERS; i++)
    worst = fmax(worst, distance(x[i / RUN_LAYERS][i % RUN_LAYERS], y[i / RUN_LAYERS][i % RUN_LAYERS]));
  return worst;
}

/* ---- the matrix ---- */

static bool is_allowed(const way *w) {
  return w->carrier != LOCAL || w->route == OWNER; /* nothing travels */
}

static void check_split(const way *w, int n_curvature, directions expected) {
  static directions once, again;
  static uint64_t weather = 0;
  const char *options = options_of(w, n_curvature);
  curvd_status status = live(MPI_COMM_WORLD, w, n_curvature, once);
  mpi_assert_msg(status == CURVD_OK, "%s: %s", options, curvd_status_name(status));
  double worst = rank < size - n_curvature ? worst_distance(once, expected) : 0;
  mpi_assert_msg(worst < TOLERANCE, "%s: %.1e", options_of(w, n_curvature), worst);
  delay_at_random(weather++, rank);
  status = live(MPI_COMM_WORLD, w, n_curvature, again);
  delay_never();
  mpi_assert_msg(status == CURVD_OK && memcmp(once, again, sizeof once) == 0, "%s: other bits the second time",
                 options);
}

/* Many ranks share a few cores: there each way meets one split, and each split some ways. */
static void check_carrier(carried carrier) {
  static const int staleness[] = {0, 1, 5};
  static directions expected;
  int turn = (int)carrier;
  for (int i = 0; i < APPLIES * ROUTES * (int)COUNT(staleness); i++) {
    way w = {carrier, (applied)(i % APPLIES), (routed)(i / APPLIES % ROUTES), staleness[i / APPLIES / ROUTES]};
    if (!is_allowed(&w)) continue;
    make_reference(&w, expected);
    for (int c = 0; c < size && (carrier != LOCAL || c == 0); c++) {
      if (size <= 3 || carrier == LOCAL || (turn + c) % size == 0) check_split(&w, c, expected);
    }
    turn++;
  }
}

START_TEST(triangles) {
  check_carrier(TRIANGLE);
}
END_TEST

START_TEST(sketches) {
  check_carrier(SKETCH);
}
END_TEST

START_TEST(columns) {
  check_carrier(COLUMNS);
}
END_TEST

START_TEST(columns_of_streams) {
  check_carrier(COLUMNS_STREAM);
}
END_TEST

START_TEST(local_statistics) {
  check_carrier(LOCAL);
}
END_TEST

/* Otherwise these data could not tell one staleness from another. */
START_TEST(preconditioners_of_neighbouring_steps_differ) {
  static directions now, later;
  for (int carrier = 0; carrier < CARRIERS; carrier++) {
    double least = INFINITY;
    make_reference(&(way){(carried)carrier, REPLICATED, OWNER, 0}, now);
    make_reference(&(way){(carried)carrier, FACTORED, OWNER, 0}, later);
    for (int i = 0; i < STEPS * RUN_LAYERS; i++)
      least = fmin(least, distance(now[i / RUN_LAYERS][i % RUN_LAYERS], later[i / RUN_LAYERS][i % RUN_LAYERS]));
    mpi_assert_msg(least > 100 * TOLERANCE, "%s: %.1e", carrier_text[carrier], least);
  }
}
END_TEST

static Suite *make_suite(void) {
  const TTest *const tests[] = {triangles,          sketches,         columns,
                                columns_of_streams, local_statistics, preconditioners_of_neighbouring_steps_differ};
  size = run_size(MPI_COMM_WORLD);
  rank = run_rank(MPI_COMM_WORLD);
  make_data();
  return service_suite("ways", tests, COUNT(tests));
}

int main(int argc, char **argv) {
  return mpi_test_main(argc, argv, make_suite);
}
