/* How statistics travel: directions of every carrier against dense fp64 K-FAC, what is sent, what is refused, and what
 * happens to numbers that are not finite. Streams have tests of their own (test_streams.c). */
#include "carrier_fixture.h"

#include "curvature/guard.h"
#include "curvature/wire.h"

#define COUNT(list) (sizeof list / sizeof list[0])

static int size, rank;

enum { STEPS = 3 };

static dense V[STEPS][RUN_LAYERS], W[STEPS][RUN_LAYERS];

/* Statistics are fp32 sums of at most 10 examples: eps sqrt(10), 2e-7. Damping of a third of the mean eigenvalue makes
 * the condition of an inverse 30 to 50 in this data, and there are two: directions are off by 2e-5 at most. */
static const double TOLERANCE = 1e-4;
static const double DAMPING = 0.3;

static kfac_case case_of(const char *average) {
  return (kfac_case){.mode = "relative-mean",
                     .average = average,
                     .form = "eigen",
                     .damping = DAMPING,
                     .exponent_a = 1,
                     .exponent_g = 1,
                     .decay = 0.8};
}

static carrier_run run_of_case(const kfac_case *c, const char *more, int n_curvature, int64_t rows) {
  return (carrier_run){.base = {.comm = MPI_COMM_WORLD,
                                .options = kfac_options(c, more),
                                .n_curvature = n_curvature,
                                .n_steps = STEPS,
                                .rows = rows}};
}

/* Examples first .. second of the global batch that the owner of a layer uses: all, or those of its own batch. */
typedef struct span {
  int64_t from, to;
} span;

static void make_reference(const kfac_case *c, const carrier_run *run, const span *used) {
  static dense S[CV_FACTORS][STEPS];
  for (int l = 0; l < RUN_LAYERS; l++) {
    for (int step = 0; step < STEPS; step++) {
      dense gradient = run_gradient(step, l, 0, run->base.rows);
      for (int f = 0; f < CV_FACTORS && used[l].to > used[l].from; f++)
        S[f][step] = carrier_statistic(run, step, l, f, used[l].from, used[l].to);
      W[step][l] = used[l].to > used[l].from ? kfac_direction(c, step + 1, S[CV_A], S[CV_G], gradient) : gradient;
    }
  }
}

/* Which examples count, as the plan has it. */
static void find_used(const carrier_run *run, bool is_local, span *used) {
  curvd_ctx *ctx = carrier_open(run);
  for (int l = 0; l < RUN_LAYERS; l++) {
    curvd_layer_metrics m;
    ck_assert_int_eq(curvd_layer_metrics_read(ctx, l, &m), CURVD_OK);
    int n = curvd_worker_count(ctx);
    used[l] = is_local ? (span){run_cut(run->base.rows, n, m.owner), run_cut(run->base.rows, n, m.owner + 1)}
                       : (span){0, run->base.rows};
  }
  run_close(&ctx);
}

static void check_directions(const kfac_case *c, const carrier_run *run, bool is_local, double tolerance) {
  span used[RUN_LAYERS];
  find_used(run, is_local, used);
  make_reference(c, run, used);
  curvd_status status = carrier_all(run, V);
  mpi_assert_msg(status == CURVD_OK, "%s: %s", run->base.options, curvd_status_name(status));
  double distance = rank < size - run->base.n_curvature ? run_distance(STEPS, V, W) : 0;
  mpi_assert_msg(distance < tolerance, "%s, %d curvature ranks, %d rows in %d calls: %.1e", run->base.options,
                 run->base.n_curvature, (int)run->base.rows, run->n_captures, distance);
}

static const char *const carriers[] = {"triangle", "columns", "local"};
enum { LOCAL = 2 };

static void check_carrier(size_t carrier, const char *average, const char *more, int n_curvature, int64_t rows,
                          int calls, bool is_mean) {
  kfac_case c = case_of(average);
  char text[128];
  snprintf(text, sizeof text, "carrier=%s %s", carriers[carrier], more);
  carrier_run run = run_of_case(&c, text, n_curvature, rows);
  run.n_captures = calls;
  run.is_mean = is_mean;
  check_directions(&c, &run, carrier == LOCAL, TOLERANCE);
}

/* 10 examples are divided evenly by 1, 2 and 5 workers only. */
START_TEST(every_average_on_every_split) {
  static const char *const averages[] = {"norm", "id", "zero", "first", "mg", "sum"};
  for (int i = 0; i < (int)COUNT(averages) * (int)COUNT(carriers); i++) {
    size_t carrier = (size_t)i % COUNT(carriers);
    int n_curvature = carrier == LOCAL ? 0 : (i / (int)COUNT(carriers)) % size;
    check_carrier(carrier, averages[i / (int)COUNT(carriers)], "store=full", n_curvature, 10, 1 + i % 3, i % 2);
  }
}
END_TEST

/* From three workers on some have no example, and calls come without rows. */
START_TEST(workers_without_rows) {
  for (size_t carrier = 0; carrier < COUNT(carriers); carrier++) {
    check_carrier(carrier, "norm", "store=auto", 0, 2, 3, false);
    if (carrier != LOCAL) check_carrier(carrier, "id", "store=auto", size / 2, 2, 2, true);
  }
}
END_TEST

/* Dense inverses by Cholesky come of the same averages. */
START_TEST(inverses) {
  for (size_t carrier = 0; carrier < COUNT(carriers); carrier++)
    check_carrier(carrier, "norm", "form=cholesky", carrier == LOCAL ? 0 : size - 1, 10, 2, false);
}
END_TEST

/* Spec RK-6: with one worker an owner's own batch is the whole one. */
START_TEST(local_with_one_worker_is_the_whole_batch) {
  kfac_case c = case_of("norm");
  carrier_run run = run_of_case(&c, "carrier=triangle", 0, 10);
  run.base.comm = MPI_COMM_SELF;
  curvd_status first = carrier_all(&run, V);
  run = run_of_case(&c, "carrier=local", 0, 10);
  run.base.comm = MPI_COMM_SELF;
  curvd_status second = carrier_all(&run, W);
  mpi_assert(first == CURVD_OK && second == CURVD_OK);
  mpi_assert(memcmp(V, W, sizeof V) == 0);
}
END_TEST

/* Examples in 5 dimensions, and the bias: a sketch of 8 rows sees all of the average, and streams are exact. */
static void check_subspace(const char *precision, double tolerance) {
  static const char *const list[] = {"sketch", "columns", "local"};
  for (size_t i = 0; i < COUNT(list); i++) {
    kfac_case c = case_of("norm");
    char text[192];
    snprintf(text, sizeof text,
             "method=nystrom-kfac eig_rank=6 oversampling=2 full_share=1 store=stream carrier=%s "
             "statistics_precision=%s",
             list[i], precision);
    carrier_run run = run_of_case(&c, text, i == LOCAL ? 0 : size / 2, 10);
    run.dim = 5;
    check_directions(&c, &run, i == LOCAL, tolerance);
  }
}

/* Sketches in three terms are off by 4.4e-6 a product, 20 times as much as in fp32, in either precision. */
START_TEST(streams_in_a_subspace) {
  check_subspace("fp32", TOLERANCE);
  check_subspace("bf16", 20 * TOLERANCE);
  check_subspace("bf16x3", 20 * TOLERANCE);
}
END_TEST

/* ---- precisions ---- */

static double sum_of_squares(int64_t count, const double *x) {
  double sum = 0;
  for (int64_t i = 0; i < count; i++) sum += x[i] * x[i];
  return sum;
}

/* ||kept - right||^2 and ||right||^2, of the average M (fp64) or, of a stream, of Omega M, into off. */
static void compare_kept(const cv_factor *factor, dense M, double off[2]) {
  const cv_stream *s = &factor->own.stream;
  int64_t n = factor->n, rows = factor->own.average ? n : s->k;
  for (int64_t i = 0; i < rows; i++) {
    double right[DENSE_MAX] = {0}, rest[DENSE_MAX];
    int64_t end = factor->own.average ? i + 1 : n;
    for (int64_t j = 0; j < end; j++) {
      for (int64_t l = 0; l < n && !factor->own.average; l++) right[j] += (double)s->Omega[i * s->ld + l] * M.x[l][j];
      if (factor->own.average) right[j] = M.x[i][j];
      rest[j] = (factor->own.average ? factor->own.average[i * factor->own.ld + j] : s->Y[i * s->ld + j]) - right[j];
    }
    off[0] += sum_of_squares(end, rest), off[1] += sum_of_squares(end, right);
  }
}

/* [collective] What owners keep after all steps, over all factors: ||kept - right|| / ||right||. */
static double kept_error(const carrier_run *run, const kfac_case *c, bool is_local) {
  static dense S[STEPS];
  span used[RUN_LAYERS];
  double off[2] = {0};
  find_used(run, is_local, used);
  curvd_ctx *ctx = carrier_open(run);
  curvd_status status = CURVD_OK;
  bool is_worker = run_is_worker(ctx);
  for (int step = 0; step < run->base.n_steps && is_worker && status == CURVD_OK; step++)
    status = carrier_step(ctx, run, step, V[step]);
  if (is_worker) curvd_finish(ctx);
  for (int i = 0; i < RUN_LAYERS * CV_FACTORS; i++) {
    int l = i / CV_FACTORS, f = i % CV_FACTORS;
    const cv_factor *factor = &ctx->layer[l].factor[f];
    if (!cv_owns(ctx, &ctx->layer[l]) || factor->is_full) continue;
    for (int step = 0; step < run->base.n_steps; step++)
      S[step] = carrier_statistic(run, step, l, f, used[l].from, used[l].to);
    compare_kept(factor, kfac_average(c, run->base.n_steps, S), off);
  }
  curvd_destroy(&ctx);
  mpi_assert(status == CURVD_OK);
  MPI_Allreduce(MPI_IN_PLACE, off, 2, MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD);
  return sqrt(off[0] / off[1]);
}

/* Every carrier into every store. Two of three statistics are rounded: the first one meets no pairs. One term is off by
 * 2.4e-3 in a product of random numbers, and less where errors average out; three by 4.4e-6 a product. Sketches are
 * made in three terms in either precision, from the first statistic on; with the second their history is an estimate.
 */
static void check_precisions(const char *kept, bool is_stream, bool is_local, int n_curvature, const char *unit) {
  static const char *const precisions[] = {"fp32", "bf16", "bf16x3"};
  kfac_case c = case_of("norm");
  double off[COUNT(precisions)];
  for (size_t i = 0; i < COUNT(precisions); i++) {
    char text[256];
    snprintf(text, sizeof text,
             "method=nystrom-kfac eig_rank=2 oversampling=2 full_share=0.9 inv_update_steps=100 capture_rows=24 %s "
             "matrix_unit=%s statistics_precision=%s",
             kept, unit, precisions[i]);
    carrier_run run = run_of_case(&c, text, n_curvature, 24);
    if (is_stream) run.base.n_steps = 1;
    off[i] = kept_error(&run, &c, is_local);
  }
  mpi_assert_msg(off[0] < 3e-7, "%s: fp32 is off by %.1e", kept, off[0]);
  mpi_assert_msg(off[2] > 2 * off[0] && off[2] < 8.8e-6, "%s, %s: bf16x3 is off by %.1e", kept, unit, off[2]);
  if (is_stream)
    mpi_assert_msg(off[1] == off[2], "%s, %s: sketches in bf16 are off by %.1e", kept, unit, off[1]);
  else
    mpi_assert_msg(off[1] > 100 * off[2] && off[1] < 2.4e-3, "%s, %s: bf16 is off by %.1e", kept, unit, off[1]);
}

START_TEST(averages_in_every_precision) {
  static const char *const units[] = {"auto", "portable"};
  for (size_t u = 0; u < COUNT(units); u++) {
    check_precisions("carrier=triangle store=full", false, false, size / 2, units[u]);
    check_precisions("carrier=columns store=full", false, false, size - 1, units[u]);
    check_precisions("carrier=sketch store=stream", true, false, size / 2, units[u]);
    check_precisions("carrier=columns store=stream", true, false, 0, units[u]);
    check_precisions("carrier=local store=full", false, true, 0, units[u]);
    check_precisions("carrier=local store=stream", true, true, 0, units[u]);
  }
}
END_TEST

/* ---- bytes ---- */

typedef enum kind { TRIANGLE, SKETCH, COLUMNS, NOTHING } kind;

/* Every worker of 7 has enough examples for RANK pairs. */
enum { BATCH = 56, RANK = 4, SKETCH_ROWS = 6 /* auto oversampling: half of the rank */, PROBES = 10, EXTRA = 4 };

/* A sketch has six rows, so n = 3 is no stream. */
static int64_t bytes_up(kind k, bool is_bf16, int64_t n, int64_t rows) {
  int64_t number = is_bf16 && size > 1 ? 2 : 4;
  if (k == NOTHING) return 0;
  if (k == COLUMNS) return 8 + number * rows * n + 4 * EXTRA;
  if (k == SKETCH && n > SKETCH_ROWS) return 4 * ((SKETCH_ROWS + PROBES) * n + EXTRA);
  return number * (n * (n + 1) / 2) + 4 * EXTRA;
}

/* Without the header. Sketching workers get a whole seed. */
static int64_t bytes_down(bool is_stream, kind k, bool is_bf16, int64_t n) {
  int64_t rows = RANK, pairs = RANK;
  bool is_seed = k == SKETCH && n > SKETCH_ROWS;
  if (!is_stream || n <= SKETCH_ROWS) rows = pairs = n;
  if (is_seed) rows = SKETCH_ROWS;
  return 4 * pairs + (is_bf16 && !is_seed ? (2 * rows * n + 3) / 4 * 4 : 4 * rows * n);
}

/* One step with statistics and a refresh; every byte of it. */
static void check_bytes(const char *options, kind k, bool is_stream, int n_curvature) {
  carrier_run run = {.base = run_of(options, n_curvature)};
  bool is_bf16 = strstr(options, "bf16");
  run.base.rows = BATCH;
  curvd_ctx *ctx = carrier_open(&run);
  curvd_status status = CURVD_OK;
  if (run_is_worker(ctx)) {
    status = carrier_step(ctx, &run, 0, V[0]);
    curvd_finish(ctx);
  }
  bool is_worker = curvd_role_get(ctx) == CURVD_ROLE_WORKER;
  int workers = curvd_worker_count(ctx);
  int64_t up = 0, down = 0, rows = is_worker ? run_cut(BATCH, workers, rank + 1) - run_cut(BATCH, workers, rank) : 0;
  for (int l = 0; l < RUN_LAYERS; l++) {
    curvd_layer_metrics m = {.owner = -1};
    curvd_layer_metrics_read(ctx, l, &m);
    bool is_mine = m.owner == rank;
    for (int f = 0; f < CV_FACTORS; f++) {
      int64_t n = m.factor[f].n;
      if (is_worker && !is_mine) up += bytes_up(k, is_bf16, n, rows);
      if (is_mine && size > 1) down += bytes_down(is_stream, k, is_bf16, n);
    }
    if (is_mine && size > 1) down += CV_WIRE_HEADER_BYTES;
  }
  if (down > 0) down += CV_OWNER_EVENTS * (int64_t)sizeof(int64_t) + (int64_t)sizeof(cv_seal);
  curvd_metrics m = service_metrics(ctx);
  curvd_destroy(&ctx);
  mpi_assert(status == CURVD_OK);
  mpi_assert_msg(m.sent_bytes[CURVD_TRAFFIC_STATISTICS] == up, "%s: %lld bytes up, not %lld", options,
                 (long long)m.sent_bytes[CURVD_TRAFFIC_STATISTICS], (long long)up);
  mpi_assert_msg(m.sent_bytes[CURVD_TRAFFIC_PRECONDITIONERS] == down, "%s: %lld bytes down, not %lld", options,
                 (long long)m.sent_bytes[CURVD_TRAFFIC_PRECONDITIONERS], (long long)down);
}

#define EACH_STEP " factor_update_steps=1 inv_update_steps=1"
#define STREAM "method=nystrom-kfac eig_rank=4 full_share=0.6 store=stream"

START_TEST(bytes_are_those_that_are_documented) {
  for (int c = 0; c < size; c++) {
    check_bytes("method=kfac carrier=triangle" EACH_STEP, TRIANGLE, false, c);
    check_bytes("method=kfac carrier=columns" EACH_STEP, COLUMNS, false, c);
    check_bytes(STREAM " carrier=sketch" EACH_STEP, SKETCH, true, c);
    check_bytes(STREAM " carrier=columns" EACH_STEP, COLUMNS, true, c);
    check_bytes("method=kfac carrier=triangle wire_precision=bf16" EACH_STEP, TRIANGLE, false, c);
    check_bytes("method=kfac carrier=columns wire_precision=bf16" EACH_STEP, COLUMNS, false, c);
    check_bytes(STREAM " carrier=sketch wire_precision=bf16" EACH_STEP, SKETCH, true, c);
    check_bytes(STREAM " carrier=columns wire_precision=bf16" EACH_STEP, COLUMNS, true, c);
  }
  check_bytes("method=kfac carrier=local" EACH_STEP, NOTHING, false, 0);
  check_bytes(STREAM " carrier=local" EACH_STEP, NOTHING, true, 0);
}
END_TEST

/* ---- refusals ---- */

/* cure: a word of the sentence */
static void check_refused(const char *options, int n_curvature, curvd_status code, const char *cure) {
  service_run run = run_of(options, n_curvature);
  curvd_ctx *ctx = run_make(&run);
  curvd_status status = curvd_plan(ctx);
  bool is_told = strstr(curvd_last_error(ctx), cure) != NULL;
  int mine = status == code && is_told, any = 0;
  MPI_Allreduce(&mine, &any, 1, MPI_INT, MPI_MAX, MPI_COMM_WORLD);
  mpi_assert_msg(mine || (any && code == CURVD_ERR_SIZE && status == CURVD_ERR_REMOTE), "%s: %s, '%s'", options,
                 curvd_status_name(status), curvd_last_error(ctx));
  curvd_destroy(&ctx);
}

START_TEST(settings_that_exclude_each_other) {
  static const struct {
    const char *options, *cure;
  } list[] = {{"method=kfac carrier=sketch", "method nystrom-kfac"},
              {"method=rs-kfac carrier=sketch", "method nystrom-kfac"},
              {"method=sre-kfac carrier=sketch", "method nystrom-kfac"},
              {"method=kfac store=stream", "method nystrom-kfac"},
              {"method=rs-kfac store=stream carrier=columns", "method nystrom-kfac"},
              {"method=nystrom-kfac carrier=sketch store=full", "store stream"},
              {"method=nystrom-kfac carrier=triangle store=stream", "sketch or columns"},
              {"method=nystrom-kfac carrier=sketch staleness=10 inv_update_steps=10", "columns"},
              {"method=nystrom-kfac carrier=sketch staleness=12 inv_update_steps=10", "columns"},
              {"method=nystrom-kfac carrier=sketch staleness=free inv_update_steps=10", "columns"},
              {"method=nystrom-kfac carrier=sketch apply=factored staleness=0 inv_update_steps=1", "columns"}};
  for (size_t i = 0; i < COUNT(list); i++) check_refused(list[i].options, 0, CURVD_ERR_OPTION, list[i].cure);
  if (size > 1) check_refused("method=kfac carrier=local", 1, CURVD_ERR_OPTION, "curvature_ranks 0");
}
END_TEST

START_TEST(message_that_mpi_cannot_count) {
  static const char *const list[] = {"method=kfac carrier=columns capture_rows=1073741824 dry_run=true",
                                     STREAM " carrier=columns capture_rows=1073741824 dry_run=true"};
  for (size_t i = 0; i < COUNT(list); i++) check_refused(list[i], size - 1, CURVD_ERR_SIZE, "lower capture_rows");
  service_run open = run_of("method=kfac capture_rows=1073741824 dry_run=true", size - 1); /* auto has another way */
  curvd_ctx *ctx = run_make(&open);
  curvd_status status = curvd_plan(ctx);
  curvd_destroy(&ctx);
  mpi_assert(status == CURVD_OK);
}
END_TEST

/* Auto takes rows only as far as it knows them: then 1250 of them, more than capture_rows is by itself, are no mistake.
 */
START_TEST(auto_takes_rows_that_it_knows_of) {
  for (int known = 0; known < 2; known++) {
    carrier_run run = {.base = run_of(known ? "method=kfac sample_rows=5 capture_rows=10" EACH_STEP
                                            : "method=kfac sample_rows=5" EACH_STEP,
                                      0)};
    curvd_ctx *ctx = carrier_open(&run);
    curvd_status status = CURVD_OK;
    const char *expected = known && size == 1 ? "columns" : "triangle"; /* short messages cost more than these rows */
    bool is_right = true;
    for (int l = 0; l < RUN_LAYERS - 1; l++) {
      is_right = is_right && kfac_is(service_factor(ctx, l, CV_A).carrier, expected);
    }
    for (int i = 0; i < 250 && status == CURVD_OK; i++) status = carrier_capture_part(ctx, &run, 0, 1, 0, 10);
    if (known && size == 1) is_right = is_right && status == CURVD_ERR_SIZE, status = CURVD_OK;
    run_close(&ctx);
    mpi_assert_msg(is_right && status == CURVD_OK, "%s: %s", run.base.options, curvd_status_name(status));
  }
}
END_TEST

/* Rows of some factors and triangles of others, in one run. */
START_TEST(auto_is_the_same_average) {
  for (int i = 0; i < 3; i++) {
    static const char *const more[] = {"capture_rows=10", "capture_rows=3 store=full", "capture_rows=10 form=cholesky"};
    kfac_case c = case_of(i == 1 ? "id" : "norm");
    carrier_run run = run_of_case(&c, more[i], i % size, i == 1 ? 3 : 10);
    check_directions(&c, &run, false, TOLERANCE);
  }
}
END_TEST

/* The last worker captures 4 rows in a room of 4 but for a call that does not fit: that one is refused, and the others
 * count. */
START_TEST(more_rows_than_there_is_room_for) {
  static const char *const list[] = {"method=kfac carrier=columns capture_rows=4" EACH_STEP,
                                     STREAM " carrier=columns capture_rows=4" EACH_STEP};
  for (size_t i = 0; i < 2 * COUNT(list); i++) {
    carrier_run run = {.base = run_of(list[i / 2], i % 2 ? size - 1 : 0)};
    bool is_refused = true, is_told = true;
    curvd_status status[2] = {CURVD_OK, CURVD_OK};
    for (int with = 0; with < 2; with++) {
      curvd_ctx *ctx = carrier_open(&run);
      if (run_is_worker(ctx)) {
        int last = curvd_worker_count(ctx) - 1;
        status[with] = carrier_capture_part(ctx, &run, 0, 1, 0, 3);
        if (with && curvd_worker_index(ctx) == last) {
          is_refused = carrier_capture_part(ctx, &run, 0, 1, 3, 5) == CURVD_ERR_SIZE;
          is_told = strstr(curvd_last_error(ctx), "capture_rows") && strstr(curvd_last_error(ctx), "fc1");
        }
        if (status[with] == CURVD_OK) status[with] = carrier_capture_part(ctx, &run, 0, 1, 5, 6);
        run_gradients(ctx, &run.base, 0, with ? W[0] : V[0]);
        if (status[with] == CURVD_OK)
          status[with] = service_try(ctx, 0.1, SERVICE_APART, RUN_LAYERS, run_layer, with ? W[0] : V[0]);
        curvd_finish(ctx);
      }
      run_close(&ctx);
    }
    mpi_assert(status[0] == CURVD_OK && status[1] == CURVD_OK);
    mpi_assert(is_refused);
    mpi_assert(is_told);
    bool is_worker = rank < size - run.base.n_curvature;
    mpi_assert_msg(!is_worker || memcmp(V[0], W[0], sizeof V[0]) == 0, "%s", list[i / 2]);
  }
}
END_TEST

/* ---- faults, and allocations ---- */

static const char *const all_kinds[] = {"method=kfac carrier=triangle" EACH_STEP,
                                        "method=kfac carrier=columns" EACH_STEP,
                                        STREAM " carrier=sketch" EACH_STEP,
                                        STREAM " carrier=columns" EACH_STEP,
                                        "method=kfac carrier=triangle wire_precision=bf16" EACH_STEP,
                                        "method=kfac carrier=columns wire_precision=bf16" EACH_STEP,
                                        "method=kfac carrier=local" EACH_STEP,
                                        STREAM " carrier=local capture_rows=12" EACH_STEP};

enum { FIRST_LOCAL = 6 };

static int owner_of(const curvd_ctx *ctx, int l) {
  curvd_layer_metrics m = {.owner = -1};
  curvd_layer_metrics_read(ctx, l, &m);
  return m.owner;
}

typedef struct outcome {
  curvd_status status;
  bool is_counted, is_kept, is_fresh, is_finite;
  int64_t n_allocations; /* in steps */
} outcome;

/* Steps 0, 1 and 2; in step 1 the statistic of A of fc1 is bad, so that average stays what it was: its trace, bit by
 * bit, and, to rounding, its largest eigenvalue. (A stream's estimate changes with its seed: see test_streams.c.) */
static outcome live(curvd_ctx *ctx, const carrier_run *run) {
  outcome o = {.is_finite = true};
  double trace[STEPS] = {0}, largest[STEPS] = {0};
  int64_t before = service_metrics(ctx).n_allocations;
  bool is_stream = strstr(run->base.options, "store=stream") != NULL;
  for (int step = 0; step < STEPS && o.status == CURVD_OK; step++) {
    o.status = carrier_step(ctx, run, step, V[step]);
    curvd_factor_metrics m = service_factor(ctx, CARRIER_BAD_LAYER, CV_A);
    trace[step] = m.trace, largest[step] = m.lambda_max;
    for (int l = 0; l < RUN_LAYERS; l++) o.is_finite = o.is_finite && isfinite(dense_norm(V[step][l]));
  }
  o.n_allocations = service_metrics(ctx).n_allocations - before;
  o.is_counted = service_factor(ctx, CARRIER_BAD_LAYER, CV_A).refused == 1 &&
                 service_factor(ctx, CARRIER_BAD_LAYER, CV_G).refused == 0 &&
                 service_metrics(ctx).events[CURVD_EVENT_REFUSED_STATISTICS] == 1;
  o.is_kept = trace[1] == trace[0] && trace[2] != trace[0] && trace[0] > 0 &&
              (is_stream || fabs(largest[1] - largest[0]) < 1e-5 * largest[0]);
  o.is_fresh = service_factor(ctx, CARRIER_BAD_LAYER, CV_A).statistics_step == 2;
  return o;
}

static void check_bad(size_t i, int n_curvature, int bad_worker) {
  carrier_run run = {.base = run_of(all_kinds[i], n_curvature), .bad_step = 1, .bad_worker = bad_worker};
  outcome o = {CURVD_OK, true, true, true, true, 0};
  carrier_log lines = {0};
  char who[32];
  curvd_ctx *ctx = carrier_open(&run);
  curvd_log_to(ctx, carrier_keep_line, &lines, 1);
  int owner = owner_of(ctx, CARRIER_BAD_LAYER);
  if (i >= FIRST_LOCAL) run.bad_worker = owner; /* nobody else captures that layer */
  snprintf(who, sizeof who, "on rank %d", run.bad_worker);
  if (run_is_worker(ctx)) {
    o = live(ctx, &run);
    curvd_finish(ctx);
  }
  curvd_destroy(&ctx);
  mpi_assert_msg(o.status == CURVD_OK && o.is_finite, "%s", all_kinds[i]);
  mpi_assert_msg(o.is_counted, "%s: not counted once", all_kinds[i]);
  mpi_assert_msg(o.is_kept && o.is_fresh, "%s: the average did not stay, or did not go on", all_kinds[i]);
  mpi_assert_msg(o.n_allocations == 0, "%s: %d allocations", all_kinds[i], (int)o.n_allocations);
  mpi_assert(lines.n == (owner == rank));
  mpi_assert_msg(lines.n == 0 || (strstr(lines.text[0], "fc1") && strstr(lines.text[0], " A ") &&
                                  strstr(lines.text[0], "step 1 ") && strstr(lines.text[0], who)),
                 "%s", lines.text[0]);
}

/* The first worker spoils it, and the last. Nobody keeps rows of factors whose owner does not ask for them: three steps
 * of them would not fit in 12. */
START_TEST(statistic_that_is_bad_on_one_worker) {
  for (size_t i = 0; i < COUNT(all_kinds); i++) {
    int n_curvature = i < FIRST_LOCAL ? (int)i % size : 0;
    check_bad(i, 0, 0);
    check_bad(i, n_curvature, size - n_curvature - 1);
  }
}
END_TEST

/* G of fc1 is zero: its side is the identity, A's is not. */
START_TEST(factor_that_is_dead) {
  for (size_t carrier = 0; carrier < COUNT(carriers); carrier++) {
    kfac_case c = case_of("norm");
    char text[64];
    snprintf(text, sizeof text, "carrier=%s", carriers[carrier]);
    carrier_run run = run_of_case(&c, text, carrier == LOCAL ? 0 : (int)carrier % size, 10);
    run.dead_to = STEPS;
    span used[RUN_LAYERS];
    find_used(&run, carrier == LOCAL, used);
    curvd_status status = carrier_all(&run, V);
    dense S =
        carrier_statistic(&run, 0, CARRIER_BAD_LAYER, CV_A, used[CARRIER_BAD_LAYER].from, used[CARRIER_BAD_LAYER].to);
    dense right = dense_product(run_gradient(0, CARRIER_BAD_LAYER, 0, 10),
                                dense_inverse_power(S, DAMPING * dense_trace(S) / (double)S.n, 1));
    double distance = rank < size - run.base.n_curvature ? dense_distance(V[0][CARRIER_BAD_LAYER], right) : 0;
    mpi_assert(status == CURVD_OK);
    mpi_assert_msg(distance < TOLERANCE, "%s: %.1e", carriers[carrier], distance);
  }
}
END_TEST

static Suite *make_suite(void) {
  const TTest *const tests[] = {every_average_on_every_split,
                                workers_without_rows,
                                inverses,
                                streams_in_a_subspace,
                                averages_in_every_precision,
                                local_with_one_worker_is_the_whole_batch,
                                bytes_are_those_that_are_documented,
                                settings_that_exclude_each_other,
                                message_that_mpi_cannot_count,
                                auto_takes_rows_that_it_knows_of,
                                auto_is_the_same_average,
                                more_rows_than_there_is_room_for,
                                statistic_that_is_bad_on_one_worker,
                                factor_that_is_dead};
  size = run_size(MPI_COMM_WORLD);
  rank = run_rank(MPI_COMM_WORLD);
  return service_suite("carriers", tests, COUNT(tests));
}

int main(int argc, char **argv) {
  return mpi_test_main(argc, argv, make_suite);
}
