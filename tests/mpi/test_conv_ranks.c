/* Convolutions beside a fully connected layer, over every split of the ranks and by every carrier: the directions of
 * one rank, the bytes that are predicted, and sampling that repeats itself.
 *
 * Tolerance of directions: as in test_layouts.c, fp32 sums in another order (eps sqrt(rows), 1e-6 for 300 rows), which
 * an inverse root damped by a tenth of the mean eigenvalue amplifies by 200 at most. */
#include "conv_fixture.h"
#include "mpi_service.h"

#include "curvature/forecast.h"
#include "curvature/internal.h"

#define COUNT(list) (sizeof list / sizeof list[0])

enum { LAYERS = 3, STEPS = 3, BATCH = 10, SHARE = 6 };

/* conv1 is as PyTorch has it; fc has 24 = 4 x 3 x 2 inputs. */
static const curvd_conv conv[2] = {
    {.c_in = 2, .c_out = 3, .in = {6, 5}, .kernel = {3, 3}, .pad = {1, 1}},
    {.c_in = 3, .c_out = 4, .in = {6, 5}, .kernel = {2, 2}, .stride = {2, 2}, .layout = CURVD_CHANNELS_FIRST}};
static const service_layer layers[LAYERS] = {{"conv0", 18, 3, true}, {"conv1", 12, 4, false}, {"fc", 24, 20, true}};

static int size, rank;

static const struct {
  const char *options;
  bool is_local; /* each owner's own rows: not those of one rank */
} cases[] = {
    {"method=kfac carrier=triangle", false},
    {"method=kfac carrier=columns capture_rows=10", false},
    {"method=kfac carrier=triangle weight_sharing=reduce", false},
    {"method=kfac carrier=columns weight_sharing=reduce capture_rows=10", false},
    {"method=kfac carrier=columns weight_sharing=published capture_rows=10", false},
    {"method=kfac grid_min_n=12 weight_sharing=expand capture_rows=10", false},
    {"method=kfac grid_min_n=12 carrier=columns capture_rows=10", false},
    {"method=kfac route=gradients", false},
    {"method=kfac apply=sharded", false},
    {"method=nystrom-kfac eig_rank=5 oversampling=3 carrier=sketch full_share=1", false},
    {"method=nystrom-kfac eig_rank=5 oversampling=3 carrier=columns store=stream full_share=1 capture_rows=10", false},
    {"method=b-kfac eig_rank=5 capture_rows=10", false},
    {"method=kfac carrier=local", true},
};

static curvd_ctx *open_run(MPI_Comm comm, const char *options, int n_curvature, int factor, int inv, const char *more) {
  char text[512];
  curvd_ctx *ctx;
  snprintf(text, sizeof text,
           "factor_update_steps=%d inv_update_steps=%d step=plain momentum=0 loss_reduction=sum grad_reduction=sum "
           "curvature_ranks=%d %s %s",
           factor, inv, n_curvature, options, more);
  ctx = service_make(comm, text, 0, NULL);
  for (int l = 0; l < LAYERS; l++) {
    curvd_status status =
        l < 2 ? curvd_layer_add_conv(ctx, layers[l].name, &conv[l], layers[l].has_bias, NULL)
              : curvd_layer_add(ctx, layers[l].name, layers[l].d_in, layers[l].d_out, layers[l].has_bias, NULL);
    ck_assert_msg(status == CURVD_OK, "%s", curvd_last_error(ctx));
  }
  ck_assert_msg(curvd_plan(ctx) == CURVD_OK, "%s: %s", options, curvd_last_error(ctx));
  return ctx;
}

/* This worker's examples of a batch. */
static curvd_status capture_share(curvd_ctx *ctx, int step, int l, int64_t rows) {
  int n = curvd_worker_count(ctx), w = curvd_worker_index(ctx);
  int64_t from = run_cut(rows, n, w), to = run_cut(rows, n, w + 1);
  uint64_t seed = (uint64_t)(100 * step + 10 * l);
  if (l == 2)
    return service_capture_part(ctx, l, dense_random(seed, rows, 24), dense_random(seed + 1, rows, 20), from, to);
  conv_image a = conv_inputs(&conv[l], rows, 1, seed), g = conv_gradients(&conv[l], rows, 2, seed + 1);
  const float *a_from = a.x + (from < rows ? conv_at(&a, from, 0, 0, 0) : 0),
              *g_from = g.x + (from < rows ? conv_at(&g, from, 0, 0, 0) : 0);
  curvd_status status = curvd_capture(ctx, l, to - from, a_from, a.ld, g_from, g.ld);
  free(a.x), free(g.x);
  return status;
}

static curvd_status train_step(curvd_ctx *ctx, int step, int64_t rows, dense *V) {
  curvd_status status = CURVD_OK;
  for (int l = 0; l < LAYERS && status == CURVD_OK; l++) {
    V[l] = dense_random((uint64_t)(7 + step), layers[l].d_out, service_columns(&layers[l]));
    V[l] = dense_scaled(1.0 / curvd_worker_count(ctx), V[l]);
    status = capture_share(ctx, step, l, rows);
  }
  return status == CURVD_OK ? service_try(ctx, 0.1, SERVICE_APART, LAYERS, layers, V) : status;
}

/* A whole life; its bytes in *metrics. */
static curvd_status train(curvd_ctx *ctx, int n_steps, int64_t rows, dense (*V)[LAYERS], curvd_metrics *metrics) {
  curvd_status status = CURVD_OK;
  bool is_worker = run_is_worker(ctx);
  for (int step = 0; step < n_steps && is_worker && status == CURVD_OK; step++)
    status = train_step(ctx, step, rows, V[step]);
  if (is_worker) curvd_finish(ctx);
  *metrics = service_metrics(ctx);
  curvd_destroy(&ctx);
  return status;
}

static dense alone[STEPS][LAYERS], V[STEPS][LAYERS], again[STEPS][LAYERS];

static double distance(dense (*X)[LAYERS], dense (*Y)[LAYERS]) {
  double worst = 0;
  for (int i = 0; i < STEPS * LAYERS; i++)
    worst = fmax(worst, dense_distance(X[i / LAYERS][i % LAYERS], Y[i / LAYERS][i % LAYERS]));
  return worst;
}

START_TEST(every_split_gives_the_directions_of_one_rank) {
  curvd_metrics metrics;
  for (size_t i = 0; i < COUNT(cases); i++) {
    const char *options = cases[i].options;
    if (cases[i].is_local || strstr(options, "b-kfac")) continue; /* b-kfac truncates worker by worker */
    mpi_assert(train(open_run(MPI_COMM_SELF, options, 0, 1, 1, "sample_rows=0"), STEPS, BATCH, alone, &metrics) ==
               CURVD_OK);
    for (int c = 0; c < size; c++) {
      bool is_worker = rank < size - c;
      mpi_assert(train(open_run(MPI_COMM_WORLD, options, c, 1, 1, "sample_rows=0"), STEPS, BATCH, V, &metrics) ==
                 CURVD_OK);
      double off = is_worker ? distance(V, alone) : 0;
      mpi_assert_msg(off < 1e-4, "%s, %d of %d ranks serve: %.1e", options, c, size, off);
    }
  }
}
END_TEST

/* Draws are a function of seed, step, layer, factor and worker. */
START_TEST(sampling_repeats_itself) {
  curvd_metrics metrics;
  for (size_t i = 0; i < 2 * COUNT(cases); i++) {
    const char *options = cases[i / 2].options;
    int c = i % 2 ? size / 2 : 0;
    if (cases[i / 2].is_local && c > 0) continue;
    memset(V, 0, sizeof V);
    memset(again, 0, sizeof again);
    mpi_assert(train(open_run(MPI_COMM_WORLD, options, c, 1, 1, "sample_rows=7"), STEPS, BATCH, V, &metrics) ==
               CURVD_OK);
    mpi_assert(train(open_run(MPI_COMM_WORLD, options, c, 1, 1, "sample_rows=7"), STEPS, BATCH, again, &metrics) ==
               CURVD_OK);
    mpi_assert_msg(memcmp(V, again, sizeof V) == 0, "%s: other bits the second time", options);
    MPI_Bcast(again, sizeof again, MPI_BYTE, 0, MPI_COMM_WORLD);
    mpi_assert_msg(rank >= size - c || memcmp(V, again, sizeof V) == 0, "%s: other bits than on rank 0", options);
  }
}
END_TEST

/* Workers with the same images draw different patches of them: or the mean over workers would be one worker's. */
START_TEST(workers_draw_by_themselves) {
  const curvd_conv s = conv[0];
  double A[2] = {0, 0};
  for (int k = 0; k < 2; k++) {
    curvd_ctx *ctx = service_make(k ? MPI_COMM_WORLD : MPI_COMM_SELF,
                                  "method=kfac sample_rows=9 factor_update_steps=1 inv_update_steps=1", 0, NULL);
    ck_assert(curvd_layer_add_conv(ctx, "conv0", &s, true, NULL) == CURVD_OK && curvd_plan(ctx) == CURVD_OK);
    conv_image a = conv_inputs(&s, BATCH, 0, 1), g = conv_gradients(&s, BATCH, 0, 2);
    dense D = dense_random(3, 3, 19);
    curvd_status status = curvd_capture(ctx, 0, BATCH, a.x, a.ld, g.x, g.ld);
    if (status == CURVD_OK) status = service_try(ctx, 0.1, SERVICE_APART, 1, layers, &D);
    if (ctx->layer[0].factor[CV_A].own.average) A[k] = (double)ctx->layer[0].factor[CV_A].own.average[0];
    curvd_finish(ctx);
    curvd_destroy(&ctx);
    free(a.x), free(g.x);
    mpi_assert(status == CURVD_OK);
  }
  MPI_Bcast(A, 2, MPI_DOUBLE, 0, MPI_COMM_WORLD); /* rank 0 owns the only layer */
  mpi_assert_msg(size == 1 ? A[1] == A[0] : fabs(A[1] / A[0] - 1) > 1e-3, "%g and %g", A[0], A[1]);
}
END_TEST

/* Every number of a shape is compared over the ranks. */
START_TEST(ranks_with_other_shapes_are_found) {
  for (int i = 0; i < 7; i++) {
    curvd_conv s = {.c_in = 4, .c_out = 3, .in = {8, 8}, .kernel = {2, 2}, .stride = {2, 2}}, other = s;
    if (i == 0) other.stride[0] = 3;
    if (i == 1) other.pad[1] = 1;
    if (i == 2) other.dilation[0] = 2;
    if (i == 3) other.layout = CURVD_CHANNELS_FIRST;
    if (i == 4) other.in[1] = 9;
    if (i == 5) other.c_in = 8, other.kernel[0] = 1; /* d_in is the same */
    if (i == 6) other.kernel[0] = 4, other.kernel[1] = 1;
    curvd_ctx *ctx = service_make(MPI_COMM_WORLD, "", 0, NULL);
    mpi_assert(curvd_layer_add_conv(ctx, "conv", rank == size - 1 ? &other : &s, true, NULL) == CURVD_OK);
    curvd_status status = curvd_plan(ctx);
    curvd_destroy(&ctx);
    mpi_assert_msg(size == 1 ? status == CURVD_OK : status == CURVD_ERR_MISMATCH, "difference %d", i);
  }
}
END_TEST

/* ---- predictions ---- */

/* Of a run's options as text, all of them in one list. */
static int option_list(char *text, curvd_option_value *list) {
  int n = 0;
  for (char *word = strtok(text, " "); word; word = strtok(NULL, " ")) {
    char *value = strchr(word, '=');
    *value++ = '\0';
    list[n++] = (curvd_option_value){word, value};
  }
  return n;
}

static void predict(const char *options, int c, const char *more, cv_forecast *f, cv_prediction *p) {
  static char text[512];
  curvd_option_value list[32];
  curvd_layer_shape shapes[LAYERS];
  cv_error err = {0};
  snprintf(text, sizeof text, "factor_update_steps=2 inv_update_steps=3 momentum=0 curvature_ranks=%d %s %s", c,
           options, more);
  for (int l = 0; l < LAYERS; l++)
    shapes[l] = (curvd_layer_shape){.name = layers[l].name,
                                    .d_in = layers[l].d_in,
                                    .d_out = layers[l].d_out,
                                    .has_bias = layers[l].has_bias,
                                    .positions = l < 2 ? conv_positions(&conv[l]) : 0};
  const curvd_run_shape shape = {.layers = shapes,
                                 .n_layers = LAYERS,
                                 .options = list,
                                 .n_options = option_list(text, list),
                                 .n_ranks = size,
                                 .batch_rows = SHARE * (size - c)};
  mpi_assert_msg(cv_forecast_make(&shape, f, &err) == CURVD_OK, "%s", err.text);
  cv_plan_share(&f->given.run, f->given.run.n_workers);
  mpi_assert_msg(cv_predict(&f->given, &f->memory, p, &err) == CURVD_OK, "%s", err.text);
}

static void check_choices(const char *options, const curvd_ctx *ctx, const cv_prediction *p) {
  bool is_same = true;
  for (int l = 0; l < LAYERS; l++) {
    is_same = is_same && ctx->layer[l].owner == p->owner[l] && ctx->layer[l].shard == p->shard[l];
    for (int which = 0; which < CV_FACTORS; which++) {
      cv_plan_run run = cv_plan_factor_run(&p->run, &p->layer[l], which);
      const cv_factor *factor = &ctx->layer[l].factor[which];
      is_same = is_same && run.capture_rows == factor->rows_room &&
                cv_plan_is_spread(&run, factor->n, p->choice[l].carrier[which]) == factor->is_spread;
    }
  }
  mpi_assert_msg(is_same, "%s: owners, shards, spread factors or room for rows differ", options);
}

static void check_bytes(const char *options, int c, const char *more) {
  enum { N_STEPS = 7 };
  static dense D[N_STEPS][LAYERS];
  cv_forecast f;
  cv_prediction p;
  curvd_metrics metrics;
  int64_t bytes[CV_PLAN_TRAFFICS];
  predict(options, c, more, &f, &p);
  curvd_ctx *ctx = open_run(MPI_COMM_WORLD, options, c, 2, 3, more);
  check_choices(options, ctx, &p);
  curvd_status status = train(ctx, N_STEPS, SHARE * (size - c), D, &metrics);
  cv_plan_layout layout = cv_prediction_layout(&p);
  cv_plan_traffic_of(&layout, rank, N_STEPS, bytes);
  cv_prediction_free(&p, &f.memory);
  cv_forecast_free(&f);
  mpi_assert(status == CURVD_OK);
  for (int i = 0; i < CURVD_TRAFFICS; i++)
    mpi_assert_msg(metrics.sent_bytes[i] == bytes[i], "%s %s, %d of %d ranks serve: %s: %lld bytes, not %lld", options,
                   more, c, size, curvd_traffic_name(i), (long long)metrics.sent_bytes[i], (long long)bytes[i]);
}

START_TEST(bytes_are_those_predicted) {
  static const char *const more[] = {"sample_rows=0", "sample_rows=12", "sample_rows=auto", "capture_rows=6"};
  for (size_t i = 0; i < COUNT(cases); i++) {
    for (int c = 0; c < (cases[i].is_local ? 1 : size); c++) {
      for (size_t k = 0; k < COUNT(more); k++) check_bytes(cases[i].options, c, more[k]);
    }
  }
}
END_TEST

/* ---- memory, of a wider net in a dry plan ---- */

static const curvd_conv wide_conv[2] = {
    {.c_in = 64, .c_out = 600, .in = {14, 14}, .kernel = {3, 3}, .pad = {1, 1}},
    {.c_in = 128, .c_out = 640, .in = {7, 7}, .kernel = {3, 3}, .pad = {1, 1}, .layout = CURVD_CHANNELS_FIRST}};

/* Padding of at most 31 floats of 577, and small change; as in test_plan_bytes.c. */
static void check_memory(const char *options, int c) {
  char text[512];
  curvd_layer_shape shapes[2];
  curvd_option_value list[32];
  curvd_prediction *p = NULL;
  curvd_predicted_rank said;
  snprintf(text, sizeof text, "curvature_ranks=%d dry_run=true %s", c, options);
  curvd_ctx *ctx = service_make(MPI_COMM_WORLD, text, 0, NULL);
  for (int l = 0; l < 2; l++) {
    mpi_assert(curvd_layer_add_conv(ctx, layers[l].name, &wide_conv[l], true, NULL) == CURVD_OK);
    shapes[l] = (curvd_layer_shape){.name = layers[l].name,
                                    .d_in = conv_columns(&wide_conv[l]),
                                    .d_out = wide_conv[l].c_out,
                                    .has_bias = true,
                                    .positions = conv_positions(&wide_conv[l])};
  }
  mpi_assert_msg(curvd_plan(ctx) == CURVD_OK, "%s", curvd_last_error(ctx));
  const curvd_run_shape shape = {.layers = shapes,
                                 .n_layers = 2,
                                 .options = list,
                                 .n_options = option_list(text, list),
                                 .n_ranks = size,
                                 .batch_rows = 64 * (size - c)};
  char why[256] = "";
  mpi_assert_msg(curvd_predict(&shape, &p, why, sizeof why) == CURVD_OK, "%s", why);
  mpi_assert(curvd_prediction_rank(p, rank, &said) == CURVD_OK);
  curvd_metrics metrics = service_metrics(ctx);
  for (int l = 0; l < 2; l++) {
    curvd_layer_metrics real;
    curvd_predicted_layer said_of;
    mpi_assert(curvd_layer_metrics_read(ctx, l, &real) == CURVD_OK);
    mpi_assert(curvd_prediction_layer(p, l, &said_of) == CURVD_OK);
    mpi_assert_msg(strcmp(real.apply, said_of.apply) == 0, "%s: %s, predicted %s", options, real.apply, said_of.apply);
    for (int f = 0; f < 2; f++)
      mpi_assert_msg(strcmp(real.factor[f].carrier, said_of.carrier[f]) == 0, "%s: %s, predicted %s", options,
                     real.factor[f].carrier, said_of.carrier[f]);
  }
  for (int i = 0; i < CURVD_MEMORIES; i++) {
    double real = (double)metrics.memory_bytes[i], expected = (double)said.memory_bytes[i];
    if (i == CURVD_MEMORY_WORKSPACE && !strstr(options, "method=kfac"))
      continue; /* scratch of streams is small change */
    double most =
        expected * (i == CURVD_MEMORY_WORKSPACE && !strstr(options, "cholesky") ? 2 : 1 + 62.0 / 577) + 262144;
    mpi_assert_msg(real >= expected && real <= most, "%s, %d of %d ranks serve: %s: %.0f bytes, %.0f expected", options,
                   c, size, curvd_memory_name(i), real, expected);
  }
  curvd_prediction_free(&p);
  curvd_destroy(&ctx);
}

START_TEST(memory_is_that_of_a_dry_plan) {
  static const char *const list[] = {"method=kfac",
                                     "method=kfac sample_rows=0 capture_rows=64",
                                     "method=kfac carrier=columns capture_rows=64",
                                     "method=kfac carrier=columns capture_rows=64 sample_rows=0",
                                     "method=nystrom-kfac capture_rows=64",
                                     "method=nystrom-kfac store=stream carrier=columns capture_rows=64",
                                     "method=nystrom-kfac grid_min_n=577 capture_rows=64",
                                     "method=kfac form=cholesky exponent_a=1 exponent_g=1", /* no solver's scratch */
                                     "method=nystrom-kfac apply=factored capture_rows=64",
                                     "method=b-kfac capture_rows=64",
                                     "method=kfac weight_sharing=reduce carrier=columns capture_rows=64"};
  for (size_t i = 0; i < COUNT(list); i++) {
    for (int c = 0; c < size; c++) check_memory(list[i], c);
  }
}
END_TEST

static Suite *make_suite(void) {
  const TTest *const tests[] = {every_split_gives_the_directions_of_one_rank,
                                sampling_repeats_itself,
                                workers_draw_by_themselves,
                                ranks_with_other_shapes_are_found,
                                bytes_are_those_predicted,
                                memory_is_that_of_a_dry_plan};
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  return service_suite("conv ranks", tests, COUNT(tests));
}

int main(int argc, char **argv) {
  return mpi_test_main(argc, argv, make_suite);
}
