/* Normalisation layers over the ranks: every split and staleness gives the directions of the dense block-diagonal
 * Fisher matrix in fp64, moved layers keep their history, and predicted bytes are those that are counted. */
#include "mpi_service.h"
#include "norm_fixture.h"

#include "curvature/forecast.h"
#include "curvature/method.h"
#include "curvature/rebalance.h"

#define COUNT(list) (sizeof list / sizeof list[0])

enum { ROWS = 10, STEPS = 13, LAYERS = 3, BN = 1, NOWHERE = -1 };

static int size, rank;

/* Two owners begin as {fc0} and {fc1, bn}. */
static const service_layer layers[LAYERS] = {
    {"fc0", 24, 20, true}, {"bn", 1, NORM_CHANNELS, true}, {"fc1", 16, 12, false}};

typedef dense directions[STEPS][LAYERS];

typedef struct setting {
  const char *options;
  int n_curvature, staleness;
  int bad_step; /* worker 0 captures NaN then; NOWHERE: never */
  bool is_costly;
} setting;

static dense gradient_of(int step, int l) {
  return l == BN ? norm_gradient(step)
                 : dense_random((uint64_t)(100 * step + l), layers[l].d_out, service_columns(&layers[l]));
}

/* ---- a run ---- */

/* By each row one layer of the owner that has two moves, and then comes the next row's turn. Work is only said to have
 * been done: so many seconds that what the machine really takes does not count. */
static const double cost_s[3][LAYERS] = {{50, 200, 250}, {200, 250, 50}, {250, 50, 200}};

static void spend(const curvd_ctx *ctx, cv_layer *layer, int32_t index) {
  cv_rebalance_note(layer, cost_s[ctx->step / 3 % 3][index]);
}

static void costly_kfac(curvd_ctx *ctx, cv_layer *layer, int32_t index) {
  spend(ctx, layer, index);
  cv_method_kfac.refresh(ctx, layer, index);
}

static void costly_unit(curvd_ctx *ctx, cv_layer *layer, int32_t index) {
  spend(ctx, layer, index);
  cv_method_unit.refresh(ctx, layer, index);
}

static curvd_ctx *open_run(MPI_Comm comm, const setting *s) {
  static cv_method kfac, unit;
  char options[400];
  snprintf(options, sizeof options,
           "factor_update_steps=1 inv_update_steps=1 step=plain momentum=0 factor_decay=0.5 loss_reduction=sum "
           "grad_reduction=sum curvature_ranks=%d staleness=%d %s",
           s->n_curvature, s->staleness, s->options);
  curvd_ctx *ctx = norm_make(comm, options, LAYERS, layers, BN);
  mpi_assert_msg(curvd_plan(ctx) == CURVD_OK, "%s", curvd_last_error(ctx));
  kfac = cv_method_kfac, unit = cv_method_unit;
  kfac.refresh = costly_kfac, unit.refresh = costly_unit;
  for (int l = 0; l < LAYERS && s->is_costly; l++) ctx->layer[l].method = l == BN ? &unit : &kfac;
  return ctx;
}

static curvd_status capture(curvd_ctx *ctx, const setting *s, int step) {
  int n = curvd_worker_count(ctx), w = curvd_worker_index(ctx);
  int64_t from = run_cut(ROWS, n, w), to = run_cut(ROWS, n, w + 1);
  curvd_status status = CURVD_OK;
  for (int l = 0; l < LAYERS && status == CURVD_OK; l++) {
    dense a = l == BN ? norm_rows(step, ROWS, 0) : dense_random((uint64_t)(500 * step + l), ROWS, layers[l].d_in),
          g = l == BN ? norm_rows(step, ROWS, 1) : dense_random((uint64_t)(700 * step + l), ROWS, layers[l].d_out);
    bool is_bad = l == BN && step == s->bad_step && w == 0;
    if (is_bad) a.x[from][1] = NAN; /* worker 0 has a row when all do: see the test */
    status = service_capture_part(ctx, l, a, g, from, to);
  }
  return status;
}

/* Its share of the gradients; V: the directions. */
static curvd_status step_run(curvd_ctx *ctx, int step, dense *V) {
  int n = curvd_worker_count(ctx), w = curvd_worker_index(ctx);
  double share = (double)(run_cut(ROWS, n, w + 1) - run_cut(ROWS, n, w)) / ROWS;
  for (int l = 0; l < LAYERS; l++) V[l] = dense_scaled(share, gradient_of(step, l));
  return service_try(ctx, 0.1, SERVICE_APART, LAYERS, layers, V);
}

typedef struct outcome {
  curvd_status status;
  curvd_metrics metrics;
  int moves; /* of bn, as a worker sees them */
} outcome;

static int owner_of_norm(const curvd_ctx *ctx) {
  curvd_layer_metrics layer;
  return curvd_layer_metrics_read(ctx, BN, &layer) == CURVD_OK ? layer.owner : -2;
}

/* V: on a worker the directions of all steps, zero elsewhere. */
static outcome live(MPI_Comm comm, const setting *s, directions V) {
  outcome o = {.status = CURVD_OK};
  memset(V, 0, sizeof(directions));
  curvd_ctx *ctx = open_run(comm, s);
  bool is_worker = run_is_worker(ctx);
  for (int step = 0, owner = owner_of_norm(ctx); step < STEPS && is_worker && o.status == CURVD_OK; step++) {
    o.status = capture(ctx, s, step);
    if (o.status == CURVD_OK) o.status = step_run(ctx, step, V[step]);
    o.moves += owner != owner_of_norm(ctx);
    owner = owner_of_norm(ctx);
  }
  if (is_worker && o.status == CURVD_OK) o.status = curvd_finish(ctx);
  o.metrics = service_metrics(ctx);
  curvd_destroy(&ctx);
  return o;
}

/* ---- what its directions must be ---- */

/* From the statistics up to step - staleness, bad ones left out. */
static dense expected(const setting *s, int step) {
  static const kfac_case c = {"relative-mean", "norm", "eigen", 0.1, 0.5, 0.5, 0.5};
  dense S[STEPS], V = norm_gradient(step);
  int n = 0;
  for (int i = 0; i <= step - s->staleness; i++) {
    if (i != s->bad_step) S[n++] = norm_statistic(i, ROWS);
  }
  return n > 0 ? norm_direction(&c, n, S, V) : V;
}

static double norm_error(const setting *s, directions V) {
  double worst = 0;
  for (int step = 0; step < STEPS; step++) {
    double distance = dense_distance(V[step][BN], expected(s, step));
    worst = isfinite(distance) ? fmax(worst, distance) : INFINITY;
  }
  return worst;
}

static double distance_of(directions V, directions W) {
  double worst = 0;
  for (int i = 0; i < STEPS * LAYERS; i++) {
    double distance = dense_distance(V[i / LAYERS][i % LAYERS], W[i / LAYERS][i % LAYERS]);
    worst = isfinite(distance) ? fmax(worst, distance) : INFINITY;
  }
  return worst;
}

static directions V, alone, other;

/* Neighbouring versions must be far apart, or a refresh that lands too late could pass. */
START_TEST(versions_differ) {
  setting now = {.staleness = 0, .bad_step = NOWHERE}, late = {.staleness = 1, .bad_step = NOWHERE};
  double least = INFINITY;
  for (int step = 0; step < STEPS; step++)
    least = fmin(least, dense_distance(expected(&now, step), expected(&late, step)));
  mpi_assert_msg(least > 100 * NORM_TOLERANCE, "%.1e", least);
}
END_TEST

static void check_splits(const char *options, int staleness) {
  setting s = {.options = options, .staleness = staleness, .bad_step = NOWHERE};
  outcome one = live(MPI_COMM_SELF, &s, alone);
  mpi_assert(one.status == CURVD_OK);
  for (s.n_curvature = 0; s.n_curvature < size; s.n_curvature++) {
    bool is_worker = rank < size - s.n_curvature;
    outcome o = live(MPI_COMM_WORLD, &s, V);
    double error = is_worker ? norm_error(&s, V) : 0, distance = is_worker ? distance_of(V, alone) : 0;
    mpi_assert_msg(o.status == CURVD_OK, "%s: %s", options, curvd_status_name(o.status));
    mpi_assert_msg(error < NORM_TOLERANCE, "%s, staleness %d, %d curvature ranks: %.1e", options, staleness,
                   s.n_curvature, error);
    mpi_assert_msg(distance < 1e-4, "%s, staleness %d, %d curvature ranks: %.1e from one rank", options, staleness,
                   s.n_curvature, distance);
    memcpy(other, V, sizeof V);
    MPI_Bcast(other, sizeof other, MPI_BYTE, 0, MPI_COMM_WORLD);
    mpi_assert_msg(!is_worker || memcmp(V, other, sizeof V) == 0, "%s: other bits than on rank 0", options);
  }
}

START_TEST(every_split_and_staleness_gives_the_same_directions) {
  static const int staleness[] = {0, 1, 5};
  static const char *const options[] = {"method=kfac", "method=kfac apply=sharded", "method=kfac route=gradients",
                                        "method=kfac carrier=columns capture_rows=10", "method=kfac grid_min_n=8"};
  for (size_t i = 0; i < COUNT(staleness) * COUNT(options); i++)
    check_splits(options[i / COUNT(staleness)], staleness[i % COUNT(staleness)]);
}
END_TEST

/* With four workers and more rows are few, but worker 0 captures one as long as there are no more workers than rows. */
START_TEST(a_bad_statistic_of_one_worker_is_refused) {
  for (int c = 0; c < size; c++) {
    setting s = {.options = "method=kfac", .n_curvature = c, .staleness = 1, .bad_step = 4};
    bool is_worker = rank < size - c;
    outcome o = live(MPI_COMM_WORLD, &s, V);
    double error = is_worker ? norm_error(&s, V) : 0;
    mpi_assert_msg(o.status == CURVD_OK && error < NORM_TOLERANCE, "%d curvature ranks: %.1e", c, error);
    int64_t refused = o.metrics.events[CURVD_EVENT_REFUSED_STATISTICS];
    mpi_assert_msg(!is_worker || refused == 1, "%d curvature ranks: %lld refused", c, (long long)refused);
  }
}
END_TEST

/* ---- owners that change ---- */

static void check_moves(int n_curvature, int staleness) {
  setting still = {.options = "method=kfac", .n_curvature = n_curvature, .staleness = staleness, .bad_step = NOWHERE},
          moving = still;
  bool is_worker = rank < size - n_curvature;
  moving.options = "method=kfac rebalance_steps=3";
  moving.is_costly = true;
  outcome a = live(MPI_COMM_WORLD, &moving, V), b = live(MPI_COMM_WORLD, &still, other);
  mpi_assert(a.status == CURVD_OK && b.status == CURVD_OK);
  mpi_assert_msg(!is_worker || (a.moves >= 1 && b.moves == 0), "%d curvature ranks: bn moved %d times", n_curvature,
                 a.moves);
  double error = is_worker ? norm_error(&moving, V) : 0, distance = is_worker ? distance_of(V, other) : 0;
  mpi_assert_msg(error < NORM_TOLERANCE, "%d curvature ranks: %.1e", n_curvature, error);
  mpi_assert_msg(n_curvature > 0 ? distance == 0 : distance < 1e-4, "%d curvature ranks: %.1e", n_curvature, distance);
}

/* Its blocks cost next to nothing, however many they are: owners and workers with the smallest layer take it, too. */
START_TEST(owners_and_workers_are_dealt_by_cost) {
  static const service_layer wide[LAYERS] = {{"fc0", 300, 300, true}, {"bn", 1, 6000, true}, {"fc1", 200, 200, true}};
  char options[100];
  if (size < 2) return;
  snprintf(options, sizeof options, "method=kfac apply=sharded dry_run=true curvature_ranks=%d", size > 3 ? 2 : 0);
  curvd_ctx *ctx = norm_make(MPI_COMM_WORLD, options, LAYERS, wide, BN);
  mpi_assert_msg(curvd_plan(ctx) == CURVD_OK, "%s", curvd_last_error(ctx));
  const cv_layer *l = ctx->layer;
  bool is_shared = size != 2 && size != 4;
  mpi_assert(l[0].owner != l[2].owner && l[0].shard != l[2].shard);
  mpi_assert(is_shared || (l[BN].owner == l[2].owner && l[BN].shard == l[2].shard));
  curvd_destroy(&ctx);
}
END_TEST

START_TEST(moved_layers_keep_their_history) {
  static const int staleness[] = {0, 1, 5};
  for (size_t i = 0; i < COUNT(staleness); i++) {
    if (size == 2) check_moves(0, staleness[i]);
    if (size > 2) check_moves(2, staleness[i]);
  }
}
END_TEST

/* ---- predictions ---- */

typedef struct prediction {
  cv_forecast forecast;
  cv_prediction made;
} prediction;

static void predict(const char *options, int n, const curvd_layer_shape *shapes, prediction *p) {
  static char text[400];
  curvd_option_value given[16];
  int n_given = 0;
  cv_error err = {0};
  snprintf(text, sizeof text, "%s", options);
  for (char *word = strtok(text, " "); word; word = strtok(NULL, " ")) {
    char *value = strchr(word, '=');
    *value++ = '\0';
    given[n_given++] = (curvd_option_value){word, value};
  }
  const curvd_run_shape shape = {.layers = shapes,
                                 .n_layers = n,
                                 .options = given,
                                 .n_options = n_given,
                                 .n_ranks = size,
                                 .batch_rows = ROWS,
                                 .statistics_rows = ROWS};
  mpi_assert_msg(cv_forecast_make(&shape, &p->forecast, &err) == CURVD_OK, "%s", err.text);
  mpi_assert_msg(cv_predict(&p->forecast.given, &p->forecast.memory, &p->made, &err) == CURVD_OK, "%s", err.text);
}

static void forget(prediction *p) {
  cv_prediction_free(&p->made, &p->forecast.memory);
  cv_forecast_free(&p->forecast);
}

/* Every worker captures all ROWS; a factored layer's rows are preconditioned. */
static curvd_status train(curvd_ctx *ctx, int n_steps) {
  static float a[LAYERS][ROWS * 32], g[LAYERS][ROWS * 32], gradient[LAYERS][32 * 32];
  curvd_status status = CURVD_OK;
  for (int step = 0; step < n_steps && status == CURVD_OK; step++) {
    curvd_gradient view[LAYERS];
    for (int l = 0; l < LAYERS && status == CURVD_OK; l++) {
      const cv_rng rng = {.seed = (uint64_t)(10 * step + l), .stream = CV_RNG_PROBE};
      for (int i = 0; i < ROWS * 32; i++) a[l][i] = (float)cv_rng_uniform(&rng, (uint64_t)i) - 0.5f, g[l][i] = a[l][i];
      for (int i = 0; i < 32 * 32; i++) gradient[l][i] = (float)cv_rng_uniform(&rng, (uint64_t)i);
      view[l] = (curvd_gradient){.weight = gradient[l], .ld = 32, .bias = gradient[l] + 31, .bias_stride = 32};
      status = curvd_capture(ctx, l, ROWS, a[l], 32, g[l], 32);
      if (status == CURVD_OK && curvd_is_factored(ctx, l))
        status = curvd_precondition(ctx, l, ROWS, a[l], 32, g[l], 32, 1, 0, &view[l]);
    }
    if (status == CURVD_OK) status = curvd_step(ctx, 0.1, view, LAYERS);
  }
  return status;
}

static const char *options_with(const char *options, int n_curvature) {
  static char text[400];
  snprintf(text, sizeof text, "%s curvature_ranks=%d", options, n_curvature);
  return text;
}

static const curvd_layer_shape shapes[LAYERS] = {
    {.name = "fc0", .d_in = 24, .d_out = 20, .has_bias = true},
    {.name = "bn", .d_in = 1, .d_out = NORM_CHANNELS, .has_bias = true, .kind = CURVD_LAYER_NORM},
    {.name = "fc1", .d_in = 16, .d_out = 12}};

static void check_bytes(const char *base, int n_curvature) {
  enum { N_STEPS = 5 };
  const char *options = options_with(base, n_curvature);
  prediction p;
  int64_t bytes[CV_PLAN_TRAFFICS];
  predict(options, LAYERS, shapes, &p);
  curvd_ctx *ctx = norm_make(MPI_COMM_WORLD, options, LAYERS, layers, BN);
  mpi_assert_msg(curvd_plan(ctx) == CURVD_OK, "%s", curvd_last_error(ctx));
  bool is_worker = curvd_role_get(ctx) == CURVD_ROLE_WORKER, is_same = true;
  for (int l = 0; l < LAYERS; l++)
    is_same = is_same && ctx->layer[l].owner == p.made.owner[l] && ctx->layer[l].shard == p.made.shard[l];
  curvd_status status = is_worker ? train(ctx, N_STEPS) : curvd_serve(ctx);
  if (is_worker) curvd_finish(ctx);
  mpi_assert_msg(status == CURVD_OK && is_same, "%s: %s", options, curvd_last_error(ctx));
  cv_plan_layout layout = cv_prediction_layout(&p.made);
  cv_plan_traffic_of(&layout, rank, N_STEPS, bytes);
  curvd_metrics metrics = service_metrics(ctx);
  forget(&p);
  curvd_destroy(&ctx);
  for (int i = 0; i < CURVD_TRAFFICS; i++)
    mpi_assert_msg(metrics.sent_bytes[i] == bytes[i], "%s, %d ranks: %s: %lld bytes, not %lld", options, size,
                   curvd_traffic_name(i), (long long)metrics.sent_bytes[i], (long long)bytes[i]);
}

START_TEST(predicted_bytes_are_those_counted) {
  static const char *const options[] = {"method=kfac factor_update_steps=2 inv_update_steps=3",
                                        "method=kfac factor_update_steps=1 apply=sharded",
                                        "method=kfac factor_update_steps=2 apply=factored",
                                        "method=kfac factor_update_steps=2 carrier=columns capture_rows=10",
                                        "method=kfac factor_update_steps=1 route=gradients",
                                        "method=kfac factor_update_steps=1 skip=bn",
                                        "method=kfac factor_update_steps=1 grid_min_n=8",
                                        "method=nystrom-kfac factor_update_steps=1 inv_update_steps=2 eig_rank=4"};
  for (int c = 0; c < size; c++) {
    for (size_t i = 0; i < COUNT(options); i++) check_bytes(options[i], c);
  }
  check_bytes("method=kfac factor_update_steps=1 carrier=local", 0);
}
END_TEST

/* Of a layer so wide that requests and headers, below 64 KiB, are small beside it. Nothing of it is padded. */
static void check_memory(const char *base, int n_curvature) {
  enum { WIDE = 60000 };
  static const curvd_layer_shape wide = {
      .name = "bn", .d_in = 1, .d_out = WIDE, .has_bias = true, .kind = CURVD_LAYER_NORM};
  const char *options = options_with(base, n_curvature);
  prediction p;
  int64_t bytes[CV_MEMORY_KINDS];
  predict(options, 1, &wide, &p);
  curvd_ctx *ctx = service_make(MPI_COMM_WORLD, options, 0, NULL);
  mpi_assert(curvd_layer_add_norm(ctx, "bn", WIDE, NULL) == CURVD_OK);
  mpi_assert_msg(curvd_plan(ctx) == CURVD_OK, "%s", curvd_last_error(ctx));
  cv_plan_layout layout = cv_prediction_layout(&p.made);
  cv_plan_memory_of(&layout, rank, bytes);
  curvd_metrics metrics = service_metrics(ctx);
  forget(&p);
  curvd_destroy(&ctx);
  for (int i = 0; i < CURVD_MEMORIES; i++) {
    int64_t more = metrics.memory_bytes[i] - bytes[i];
    mpi_assert_msg(more >= 0 && more < 65536, "%s: %s: %lld bytes, %lld expected", options, curvd_memory_name(i),
                   (long long)metrics.memory_bytes[i], (long long)bytes[i]);
  }
}

START_TEST(predicted_memory_is_that_of_a_dry_plan) {
  for (int c = 0; c < size; c++) {
    check_memory("method=kfac dry_run=true apply=replicated", c);
    check_memory("method=kfac dry_run=true apply=sharded staleness=15", c);
    check_memory("method=nystrom-kfac dry_run=true apply=replicated route=gradients", c);
  }
  check_memory("method=kfac dry_run=true apply=replicated carrier=local", 0);
}
END_TEST

/* Of a layer alone: at least a copy of what is captured, averaged, looked at and received, and at most three. */
START_TEST(predicted_costs_are_those_of_passes_over_memory) {
  enum { CHANNELS = 300 };
  const curvd_layer_shape bn = {.name = "bn", .d_in = 1, .d_out = CHANNELS, .has_bias = true, .kind = CURVD_LAYER_NORM};
  const double copy_s = sizeof(float) / cv_plan_machine_default.copy_bytes_s, blocks = 3.0 * CHANNELS;
  const struct {
    cv_plan_stage stage;
    double floats;
  } expected_of[] = {{CV_PLAN_CAPTURE, 2.0 * ROWS * CHANNELS},
                     {CV_PLAN_AVERAGE, blocks},
                     {CV_PLAN_REFRESH, blocks},
                     {CV_PLAN_RECEIVE, blocks},
                     {CV_PLAN_PROJECT, 2.0 * CHANNELS}};
  prediction p;
  predict("method=kfac", 1, &bn, &p);
  for (size_t i = 0; i < COUNT(expected_of); i++) {
    double seconds = p.made.stage_s[expected_of[i].stage], least = copy_s * expected_of[i].floats;
    mpi_assert_msg(seconds >= 0.99 * least && seconds <= 3 * least, "stage %d: %g s, at least %g", (int)i, seconds,
                   least);
  }
  forget(&p);
}
END_TEST

START_TEST(predicted_layers_and_shapes) {
  const curvd_option_value options[] = {{"apply", "factored"}};
  char message[200];
  curvd_prediction *p = NULL;
  curvd_predicted_layer fc, bn;
  curvd_layer_shape layer[LAYERS] = {shapes[0], shapes[1], shapes[2]}, *norm = &layer[BN];
  curvd_run_shape shape = {
      .layers = layer, .n_layers = LAYERS, .options = options, .n_options = 1, .n_ranks = 4, .batch_rows = ROWS};
  norm->d_out = 300; /* nystrom-kfac would keep 64 pairs of a Kronecker factor */
  mpi_assert(curvd_predict(&shape, &p, NULL, 0) == CURVD_OK);
  mpi_assert(curvd_prediction_layer(p, 0, &fc) == CURVD_OK && curvd_prediction_layer(p, BN, &bn) == CURVD_OK);
  curvd_prediction_free(&p);
  mpi_assert(bn.n[0] == 600 && bn.n[1] == 0 && bn.eig_rank[0] == 600);
  mpi_assert(strcmp(bn.carrier[0], "units") == 0 && strcmp(bn.carrier[1], "") == 0);
  mpi_assert(bn.ranks[0] == 1 && bn.ranks[1] == 0);
  mpi_assert(strcmp(fc.apply, "factored") == 0 && strcmp(bn.apply, "replicated") == 0);
  norm->d_in = 2;
  mpi_assert(curvd_shape_check(&shape, message, sizeof message) == CURVD_ERR_ARGUMENT && strstr(message, "bn"));
  norm->d_in = 1, norm->has_bias = false;
  mpi_assert(curvd_shape_check(&shape, message, sizeof message) == CURVD_ERR_ARGUMENT);
}
END_TEST

/* Many units are spread over nobody: beyond the one owner more curvature ranks have nothing to do. */
START_TEST(tuning_knows_that_blocks_have_one_owner) {
  enum { ROOM = 8 };
  const curvd_layer_shape bn = {.name = "bn", .d_in = 1, .d_out = 5000, .has_bias = true, .kind = CURVD_LAYER_NORM};
  const curvd_run_shape shape = {.layers = &bn, .n_layers = 1, .n_ranks = ROOM, .batch_rows = ROWS};
  curvd_trial trial[ROOM];
  char message[200] = "";
  int32_t n = 0, n_tried = 0, most = 0;
  mpi_assert_msg(curvd_tune(&shape, 100, ROOM, trial, &n, &n_tried, message, sizeof message) == CURVD_OK, "%s",
                 message);
  for (int32_t i = 0; i < n; i++) most = trial[i].n_curvature > most ? trial[i].n_curvature : most;
  mpi_assert_msg(n == 2 && most == 1, "%d trials, up to %d curvature ranks", (int)n, (int)most);
}
END_TEST

static Suite *make_suite(void) {
  const TTest *const tests[] = {versions_differ,
                                every_split_and_staleness_gives_the_same_directions,
                                a_bad_statistic_of_one_worker_is_refused,
                                owners_and_workers_are_dealt_by_cost,
                                moved_layers_keep_their_history,
                                predicted_bytes_are_those_counted,
                                predicted_memory_is_that_of_a_dry_plan,
                                predicted_costs_are_those_of_passes_over_memory,
                                predicted_layers_and_shapes,
                                tuning_knows_that_blocks_have_one_owner};
  size = run_size(MPI_COMM_WORLD);
  rank = run_rank(MPI_COMM_WORLD);
  return service_suite("norm ranks", tests, COUNT(tests));
}

int main(int argc, char **argv) {
  return mpi_test_main(argc, argv, make_suite);
}
