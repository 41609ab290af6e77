/* What model.h says of a run, against what the service itself counts: owners and bytes sent to the byte, on every rank
 * and for every split of the ranks; memory to the padding that model.h leaves out. */
#include "mpi_assert.h"
#include "plan_fixture.h"
#include "service_fixture.h"

#include "base/rng.h"
#include "curvature/forecast.h"
#include "curvature/guard.h"
#include "curvature/internal.h"
#include "curvature/wire.h"

#define COUNT(list) (sizeof list / sizeof list[0])

enum { LAYERS = 4, ROWS = 40, WIDEST = 200 };

_Static_assert((int)CV_PLAN_TRAFFICS == (int)CURVD_TRAFFICS &&
                   (int)CV_PLAN_TRAFFIC_CONTROL == (int)CURVD_TRAFFIC_CONTROL &&
                   (int)CV_PLAN_TRAFFIC_STATISTICS == (int)CURVD_TRAFFIC_STATISTICS,
               "model.h has the public order");
_Static_assert((int)CV_PLAN_PROBES == (int)CV_EIG_PROBES && (int)CV_PLAN_SPREAD_BLOCK == (int)CV_GRID_BLOCK,
               "model.h has the sizes of eig.h and grid.h");
_Static_assert((int)CV_PLAN_SQUARE == (int)CV_SQUARE && (int)CV_PLAN_SQUARE == (int)CV_DEPTH &&
                   (int)CV_PLAN_ROWS_BLOCK == (int)CV_LRPS_ROWS_BLOCK,
               "model.h has the sizes of unit.h and lrps_rows.h");

/* fc3 is so small that its factors are decomposed exactly. */
static const service_layer small_layer[LAYERS] = {
    {"fc0", 129, 70, true}, {"fc1", 200, 20, false}, {"fc2", 64, 128, true}, {"fc3", 20, 10, true}};
static const service_layer wide_layer[LAYERS] = {
    {"fc0", 1500, 1000, true}, {"fc1", 1000, 700, true}, {"fc2", 700, 900, false}, {"fc3", 900, 600, true}};

static int size, rank;

typedef struct test_case {
  const char *options; /* without curvature_ranks */
  bool is_exact;
  int64_t factor, inv, staleness, eig_rank, oversampling, grid_min_n;
  int n_steps;
} test_case;

static const test_case cases[] = {
    {"method=nystrom-kfac eig_rank=8", false, 1, 1, 0, 8, 4, 0, 3},
    {"method=nystrom-kfac eig_rank=8", false, 2, 3, 0, 8, 4, 0, 8},
    {"method=kfac", true, 3, 2, 5, 64, 4, 0, 7},
    {"method=nystrom-kfac eig_rank=12", false, 2, 2, 3, 12, 4, 100, 6},
    {"method=kfac", true, 1, 4, 1, 64, 4, 65, 5},
    {"method=rs-kfac skip=fc1 eig_rank=6", false, 1, 2, 4, 6, 4, 70, 5},
    {"method=nystrom-kfac eig_rank=8", false, 1, 2, 20, 8, 4, 0, 3}, /* more slots than there are */
    {"method=kfac route=gradients", true, 2, 3, 2, 64, 4, 0, 7},
    {"method=nystrom-kfac route=gradients skip=fc1 eig_rank=8", false, 3, 2, 0, 8, 4, 0, 7},
    {"method=kfac wire_precision=bf16", true, 1, 2, 3, 64, 4, 0, 4},
    {"method=kfac wire_precision=bf16", true, 2, 1, 0, 64, 4, 65, 3},
    {"method=kfac wire_precision=bf16 route=gradients", true, 2, 3, 2, 64, 4, 0, 7},
    {"method=nystrom-kfac wire_precision=bf16 eig_rank=2", false, 1, 2, 1, 2, 1, 0, 5}, /* some triangles are rounded */
};

static bool is_skipped(const test_case *c, const service_layer *layer) {
  return strstr(c->options, "skip=") && strstr(c->options, layer->name);
}

static curvd_ctx *service_of(const test_case *c, int n_curvature, const service_layer *layers, const char *more) {
  char options[512];
  snprintf(options, sizeof options,
           "%s curvature_ranks=%d factor_update_steps=%d inv_update_steps=%d staleness=%d oversampling=%d "
           "grid_min_n=%d capture_rows=%d apply=replicated carrier=triangle missing_trace=0 drift_products=0 %s",
           c->options, n_curvature, (int)c->factor, (int)c->inv, (int)c->staleness, (int)c->oversampling,
           c->grid_min_n ? (int)c->grid_min_n : 1 << 20, (int)ROWS, more);
  return service_open(MPI_COMM_WORLD, options, LAYERS, layers);
}

static cv_prediction prediction_of(const test_case *c, int n_curvature, const service_layer *layers,
                                   cv_memory *memory) {
  static cv_plan_layer layer[LAYERS];
  cv_plan_choice choice = plan_triangles;
  cv_predict_case given = {&cv_plan_machine_default, cv_plan_run_default, LAYERS, layer, 0, plan_choose_alike, &choice};
  cv_prediction p;
  cv_error err = {0};
  for (int i = 0; i < LAYERS; i++)
    layer[i] = (cv_plan_layer){layers[i].d_out, service_columns(&layers[i]), is_skipped(c, &layers[i])};
  if (strstr(c->options, "route=gradients")) choice.route = CV_PLAN_WITH_GRADIENTS;
  given.run.n_workers = size - n_curvature;
  given.run.n_curvature = n_curvature;
  given.run.factor_update_steps = c->factor;
  given.run.inv_update_steps = c->inv;
  given.run.staleness = c->staleness;
  given.run.is_exact = c->is_exact;
  given.run.is_bf16 = strstr(c->options, "wire_precision=bf16") != NULL;
  given.run.eig_rank = c->eig_rank;
  given.run.oversampling = c->oversampling;
  given.run.grid_min_n = c->grid_min_n;
  given.run.capture_rows = ROWS;
  given.run.header_bytes = CV_WIRE_HEADER_BYTES;
  given.run.event_bytes = sizeof((cv_downlink *)NULL)->events + sizeof(cv_seal);
  mpi_assert_msg(cv_predict(&given, memory, &p, &err) == CURVD_OK, "%s", err.text);
  return p;
}

/* Rows of full rank, so that a refresh keeps all the pairs that it may. */
static const float *numbers(uint64_t seed, float *x, int64_t n) {
  const cv_rng rng = {.seed = seed, .stream = CV_RNG_PROBE};
  for (int64_t i = 0; i < n; i++) x[i] = (float)cv_rng_uniform(&rng, (uint64_t)i) - 0.5f;
  return x;
}

static curvd_status train(curvd_ctx *ctx, const service_layer *layers, int n_steps) {
  static float a[ROWS * WIDEST], g[ROWS * WIDEST], gradient[LAYERS][WIDEST * WIDEST];
  curvd_status status = CURVD_OK;
  for (int step = 0; step < n_steps && status == CURVD_OK; step++) {
    curvd_gradient view[LAYERS];
    for (int l = 0; l < LAYERS && status == CURVD_OK; l++) {
      const service_layer *layer = &layers[l];
      uint64_t seed = (uint64_t)(100 * step + 10 * l + 1);
      view[l] = (curvd_gradient){.weight = gradient[l],
                                 .ld = service_columns(layer),
                                 .bias = gradient[l] + layer->d_in,
                                 .bias_stride = service_columns(layer)};
      numbers(seed + 5, gradient[l], layer->d_out * service_columns(layer));
      status = curvd_capture(ctx, l, ROWS, numbers(seed, a, ROWS * layer->d_in), layer->d_in,
                             numbers(seed + 1, g, ROWS * layer->d_out), layer->d_out);
    }
    if (status == CURVD_OK) status = curvd_step(ctx, 0.1, view, LAYERS);
  }
  return status;
}

static void check_owners(const curvd_ctx *ctx, const cv_prediction *p) {
  for (int32_t i = 0; i < LAYERS; i++) {
    curvd_layer_metrics layer;
    mpi_assert(curvd_layer_metrics_read(ctx, i, &layer) == CURVD_OK);
    int expected = p->owner[i] < 0 ? -1 : p->owner[i] + (p->run.n_curvature > 0 ? p->run.n_workers : 0);
    mpi_assert_msg(layer.owner == expected, "layer %d: owner %d, not %d", (int)i, layer.owner, expected);
  }
}

static void check_traffic(const test_case *c, int n_curvature) {
  cv_memory memory = {0};
  curvd_ctx *ctx = service_of(c, n_curvature, small_layer, "");
  cv_prediction p = prediction_of(c, n_curvature, small_layer, &memory);
  int64_t bytes[CV_PLAN_TRAFFICS];
  check_owners(ctx, &p);
  bool is_worker = curvd_role_get(ctx) == CURVD_ROLE_WORKER;
  curvd_status status = is_worker ? train(ctx, small_layer, c->n_steps) : curvd_serve(ctx);
  if (is_worker) curvd_finish(ctx);
  mpi_assert_msg(status == CURVD_OK, "%s", curvd_last_error(ctx));
  cv_plan_layout layout = cv_prediction_layout(&p);
  cv_plan_traffic_of(&layout, rank, c->n_steps, bytes);
  curvd_metrics metrics = service_metrics(ctx);
  for (int i = 0; i < CURVD_TRAFFICS; i++) {
    mpi_assert_msg(metrics.sent_bytes[i] == bytes[i], "%s, %d of %d ranks serve: %s: %lld bytes sent, %lld expected",
                   c->options, n_curvature, size, curvd_traffic_name(i), (long long)metrics.sent_bytes[i],
                   (long long)bytes[i]);
  }
  cv_prediction_free(&p, &memory);
  curvd_destroy(&ctx);
}

START_TEST(bytes_sent_are_those_of_the_service) {
  for (size_t i = 0; i < COUNT(cases); i++) {
    for (int c = 0; c < size; c++) check_traffic(&cases[i], c);
  }
}
END_TEST

/* ---- some layers are applied by one worker, others by all ---- */

/* Exact factors of 140 and more are worth sharing; a skipped layer is not, unless all are told to be. */
static const service_layer mixed_layer[LAYERS] = {
    {"fc0", 150, 150, true}, {"fc1", 200, 20, false}, {"fc2", 160, 150, true}, {"fc3", 150, 140, false}};

static void check_mixed(const char *apply, const char *carrier, const char *wire, int c, int n_own, int n_rows) {
  enum { STEPS = 5 };
  char options[256], servers[16], rows[16];
  snprintf(servers, sizeof servers, "%d", c);
  snprintf(rows, sizeof rows, "%d", (int)ROWS);
  snprintf(options, sizeof options,
           "method=kfac skip=fc1 factor_update_steps=2 curvature_ranks=%d apply=%s carrier=%s capture_rows=%d "
           "wire_precision=%s",
           c, apply, carrier, (int)ROWS, wire);
  const curvd_option_value given[] = {
      {"method", "kfac"}, {"skip", "fc1"},      {"factor_update_steps", "2"}, {"curvature_ranks", servers},
      {"apply", apply},   {"carrier", carrier}, {"capture_rows", rows},       {"wire_precision", wire}};
  curvd_layer_shape shapes[LAYERS];
  for (int i = 0; i < LAYERS; i++)
    shapes[i] =
        (curvd_layer_shape){mixed_layer[i].name, mixed_layer[i].d_in, mixed_layer[i].d_out, mixed_layer[i].has_bias};
  const curvd_run_shape shape = {.layers = shapes,
                                 .n_layers = LAYERS,
                                 .options = given,
                                 .n_options = COUNT(given),
                                 .n_ranks = size,
                                 .batch_rows = ROWS};
  cv_forecast f;
  cv_prediction p;
  cv_error err = {0};
  mpi_assert_msg(cv_forecast_make(&shape, &f, &err) == CURVD_OK, "%s", err.text);
  mpi_assert_msg(cv_predict(&f.given, &f.memory, &p, &err) == CURVD_OK, "%s", err.text);
  curvd_ctx *ctx = service_open(MPI_COMM_WORLD, options, LAYERS, mixed_layer);
  int found = 0, of_rows = 0;
  bool is_worker = curvd_role_get(ctx) == CURVD_ROLE_WORKER, is_same = true;
  for (int i = 0; i < LAYERS; i++) {
    is_same = is_same && ctx->layer[i].shard == p.shard[i];
    found += p.shard[i] >= 0;
    for (int which = 0; which < CV_FACTORS; which++) {
      of_rows += ctx->layer[i].method && p.choice[i].carrier[which] == CV_PLAN_COLUMNS;
    }
  }
  curvd_status status = is_worker ? train(ctx, mixed_layer, STEPS) : curvd_serve(ctx);
  if (is_worker) curvd_finish(ctx);
  cv_plan_layout layout = cv_prediction_layout(&p);
  int64_t bytes[CV_PLAN_TRAFFICS];
  cv_plan_traffic_of(&layout, rank, STEPS, bytes);
  curvd_metrics metrics = service_metrics(ctx);
  cv_prediction_free(&p, &f.memory);
  cv_forecast_free(&f);
  curvd_destroy(&ctx);
  mpi_assert(status == CURVD_OK && is_same);
  mpi_assert_msg(of_rows == n_rows, "carrier %s, %d of %d ranks serve: %d factors by rows", carrier, c, size, of_rows);
  mpi_assert_msg(found == n_own, "apply %s, %d of %d ranks serve: %d layers have a worker", apply, c, size, found);
  for (int i = 0; i < CURVD_TRAFFICS; i++)
    mpi_assert_msg(metrics.sent_bytes[i] == bytes[i], "apply %s, %d of %d ranks serve: %s: %lld bytes, not %lld", apply,
                   c, size, curvd_traffic_name(i), (long long)metrics.sent_bytes[i], (long long)bytes[i]);
}

START_TEST(bytes_of_mixed_layouts) {
  for (int c = 0; c < size; c++) {
    bool is_several = size - c > 1;
    int n_own = is_several ? LAYERS - 1 : 0;
    check_mixed("auto", "triangle", "fp32", c, n_own, 0);
    check_mixed("sharded", "triangle", "fp32", c, is_several ? LAYERS : 0, 0);
    check_mixed("replicated", "triangle", "fp32", c, 0, 0);
    check_mixed("auto", "columns", "fp32", c, n_own, 6);
    check_mixed("sharded", "triangle", "bf16", c, is_several ? LAYERS : 0, 0);
    check_mixed("replicated", "columns", "bf16", c, 0, 6);
    if (!is_several) check_mixed("auto", "auto", "fp32", c, n_own, 6); /* 40 rows, against triangles of 140 and more */
  }
}
END_TEST

/* Rows of 600 and more are padded by at most 31: never less than expected, and at most 31 / 600 more, twice where a
 * matrix is padded both ways; requests and headers are below 64 KiB. Scratch of solvers is a bound of its own kind: at
 * least the matrix that the model counts, at most twice as much. */
static void check_memory(const test_case *c, int n_curvature) {
  cv_memory memory = {0};
  test_case wide = *c;
  if (c->grid_min_n > 0) wide.grid_min_n = 1000;
  curvd_ctx *ctx = service_of(&wide, n_curvature, wide_layer, "dry_run=true");
  cv_prediction p = prediction_of(&wide, n_curvature, wide_layer, &memory);
  cv_plan_layout layout = cv_prediction_layout(&p);
  int64_t bytes[CV_MEMORY_KINDS];
  cv_plan_memory_of(&layout, rank, bytes);
  curvd_metrics metrics = service_metrics(ctx);
  for (int i = 0; i < CURVD_MEMORIES; i++) {
    double real = (double)metrics.memory_bytes[i], expected = (double)bytes[i];
    double most = expected * (i == CURVD_MEMORY_WORKSPACE ? 2 : 1 + 62.0 / 600) + 65536;
    mpi_assert_msg(real >= expected && real <= most, "%s, %d of %d ranks serve: %s: %.0f bytes, %.0f expected",
                   c->options, n_curvature, size, curvd_memory_name(i), real, expected);
  }
  cv_prediction_free(&p, &memory);
  curvd_destroy(&ctx);
}

START_TEST(memory_is_that_of_a_dry_plan) {
  for (size_t i = 0; i < COUNT(cases); i++) {
    for (int c = 0; c < size; c++) check_memory(&cases[i], c);
  }
}
END_TEST

/* ---- a factored apply, with its packed operands ---- */

typedef struct held {
  int64_t real[CURVD_MEMORIES], expected[CURVD_MEMORIES];
} held;

/* What a dry plan holds on this rank, and what a forecast by the same options says. */
static held held_by(int n_options, const curvd_option_value *given) {
  curvd_layer_shape shapes[LAYERS];
  for (int i = 0; i < LAYERS; i++)
    shapes[i] =
        (curvd_layer_shape){wide_layer[i].name, wide_layer[i].d_in, wide_layer[i].d_out, wide_layer[i].has_bias};
  const curvd_run_shape shape = {.layers = shapes,
                                 .n_layers = LAYERS,
                                 .options = given,
                                 .n_options = n_options,
                                 .n_ranks = size,
                                 .batch_rows = ROWS};
  cv_forecast f;
  cv_prediction p;
  cv_error err = {0};
  mpi_assert_msg(cv_forecast_make(&shape, &f, &err) == CURVD_OK, "%s", err.text);
  mpi_assert_msg(cv_predict(&f.given, &f.memory, &p, &err) == CURVD_OK, "%s", err.text);
  curvd_ctx *ctx = service_make(MPI_COMM_WORLD, "dry_run=true", LAYERS, wide_layer);
  for (int i = 0; i < n_options; i++) ck_assert_int_eq(curvd_set(ctx, given[i].key, given[i].value), CURVD_OK);
  mpi_assert_msg(curvd_plan(ctx) == CURVD_OK, "%s", curvd_last_error(ctx));
  cv_plan_layout layout = cv_prediction_layout(&p);
  curvd_metrics metrics = service_metrics(ctx);
  held h;
  int64_t bytes[CV_MEMORY_KINDS];
  cv_plan_memory_of(&layout, rank, bytes);
  for (int i = 0; i < CURVD_MEMORIES; i++) h.real[i] = metrics.memory_bytes[i], h.expected[i] = bytes[i];
  cv_prediction_free(&p, &f.memory);
  cv_forecast_free(&f);
  curvd_destroy(&ctx);
  return h;
}

/* Padded as in check_memory. What a precision adds to fp32 is exact, on curvature ranks, too. */
static void check_precision(const char *method, const char *step, const char *refresh, int c) {
  static const char *const precisions[] = {"fp32", "bf16", "bf16x3"};
  char servers[16];
  held h[COUNT(precisions)];
  snprintf(servers, sizeof servers, "%d", c);
  for (size_t i = 0; i < COUNT(precisions); i++) {
    const curvd_option_value given[] = {{"method", method},
                                        {"eig_rank", "22"},
                                        {"step", step},
                                        {"apply", "factored"},
                                        {"carrier", "triangle"},
                                        {"capture_rows", "40"},
                                        {"curvature_ranks", servers},
                                        {"refresh_precision", refresh},
                                        {"apply_precision", precisions[i]}};
    h[i] = held_by(COUNT(given), given);
    for (int k = 0; k < CURVD_MEMORIES; k++) {
      double real = (double)h[i].real[k], expected = (double)h[i].expected[k],
             most = expected * (k == CURVD_MEMORY_WORKSPACE ? 2 : 1 + 62.0 / 600) + 65536;
      mpi_assert_msg(real >= expected && real <= most,
                     "%s, %s, %s, %d of %d ranks serve: %s: %.0f bytes, %.0f expected", method, step, precisions[i], c,
                     size, curvd_memory_name(k), real, expected);
      mpi_assert_msg(h[i].real[k] - h[0].real[k] == h[i].expected[k] - h[0].expected[k],
                     "%s, %s, %s, %d of %d ranks serve: %s: %lld bytes more than fp32, %lld expected", method, step,
                     precisions[i], c, size, curvd_memory_name(k), (long long)(h[i].real[k] - h[0].real[k]),
                     (long long)(h[i].expected[k] - h[0].expected[k]));
    }
    mpi_assert(i == 0 || rank >= size - c ||
               h[i].real[CURVD_MEMORY_PRECONDITIONERS] > h[i - 1].real[CURVD_MEMORY_PRECONDITIONERS]);
  }
}

/* Of statistics: room for the unit, in three terms for sketches; in bf16 some rows to measure rounding with, padded. */
static void check_statistics_precision(const char *store, int c) {
  static const char *const precisions[] = {"fp32", "bf16", "bf16x3"};
  char servers[16];
  held h[COUNT(precisions)];
  snprintf(servers, sizeof servers, "%d", c);
  for (size_t i = 0; i < COUNT(precisions); i++) {
    const curvd_option_value given[] = {
        {"method", "nystrom-kfac"}, {"eig_rank", "22"},           {"store", store},
        {"capture_rows", "40"},     {"curvature_ranks", servers}, {"statistics_precision", precisions[i]}};
    h[i] = held_by(COUNT(given), given);
    for (int k = 0; k < CURVD_MEMORIES; k++) {
      double more = (double)(h[i].real[k] - h[0].real[k]), expected = (double)(h[i].expected[k] - h[0].expected[k]);
      mpi_assert_msg(more >= expected && more <= expected + 4 * 40 * 63,
                     "%s, %d of %d ranks serve: %s: %s: %.0f bytes more than fp32, %.0f expected", store, c, size,
                     precisions[i], curvd_memory_name(k), more, expected);
    }
  }
}

START_TEST(memory_of_every_precision) {
  for (int c = 0; c < size; c++) {
    check_statistics_precision("full", c);
    check_statistics_precision("stream", c);
  }
  for (int c = 0; c < size; c++) {
    check_precision("nystrom-kfac", "normalised", "fp32", c);
    check_precision("nystrom-kfac", "kl-clip", "bf16x3", c);
    check_precision("kfac", "plain", "bf16", c);
    check_precision("kfac", "norm-constraint", "fp32", c);
  }
}
END_TEST

/* ---- rounded transfers ---- */

/* What bf16 takes and saves is exact, but for slots that end in the middle of a float, one an owner, and the 4 numbers
 * of each spread factor, which the model leaves out. */
static void check_wire(const char *method, const char *carrier, const char *grid, int c) {
  static const char *const precisions[] = {"fp32", "bf16"};
  char servers[16];
  held h[COUNT(precisions)];
  snprintf(servers, sizeof servers, "%d", c);
  for (size_t i = 0; i < COUNT(precisions); i++) {
    const curvd_option_value given[] = {{"method", method},
                                        {"eig_rank", "22"},
                                        {"carrier", carrier},
                                        {"capture_rows", "40"},
                                        {"grid_min_n", grid},
                                        {"staleness", "1"},
                                        {"factor_update_steps", "2"},
                                        {"inv_update_steps", "2"},
                                        {"apply", "replicated"},
                                        {"curvature_ranks", servers},
                                        {"wire_precision", precisions[i]}};
    h[i] = held_by(COUNT(given), given);
  }
  for (int k = 0; k < CURVD_MEMORIES; k++) {
    int64_t real = h[1].real[k] - h[0].real[k], expected = h[1].expected[k] - h[0].expected[k];
    mpi_assert_msg(real >= expected && real <= expected + 2 * size + 16 * LAYERS * CV_FACTORS,
                   "%s, %s, grid %s, %d of %d ranks serve: %s: bf16 takes %lld bytes more, not %lld", method, carrier,
                   grid, c, size, curvd_memory_name(k), (long long)real, (long long)expected);
  }
}

START_TEST(memory_of_rounded_transfers) {
  for (int c = 0; c < size; c++) {
    check_wire("kfac", "triangle", "100000", c);
    check_wire("kfac", "columns", "100000", c);
    check_wire("kfac", "triangle", "1000", c);
    check_wire("kfac", "columns", "1000", c);
    check_wire("nystrom-kfac", "triangle", "100000", c);
    check_wire("nystrom-kfac", "sketch", "100000", c);
  }
}
END_TEST

static Suite *make_suite(void) {
  const TTest *const tests[] = {bytes_sent_are_those_of_the_service, bytes_of_mixed_layouts,
                                memory_is_that_of_a_dry_plan, memory_of_every_precision, memory_of_rounded_transfers};
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  return service_suite("plan bytes", tests, COUNT(tests));
}

int main(int argc, char **argv) {
  return mpi_test_main(argc, argv, make_suite);
}
