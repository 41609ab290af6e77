/* apply sharded: each layer's gradient is summed, averaged and preconditioned on one worker, and its direction comes
 * back to all. Every split of the ranks gives the updates of apply replicated on the same split.
 *
 * Tolerance: both ways use the same preconditioners, bit for bit, so they part only in the order of the gradient's fp32
 * sums, eps = 6e-8 in size. A direction is linear in the gradient: the condition of both damped sides together, about
 * 250 for roots at a tenth of the mean eigenvalue of n <= 25, amplifies that to 1.5e-5; doubled for the lengths that
 * scale it. The inverses of form cholesky with pi are damped by 0.1 of the mean, too: 250^2 in the worst case, 4e-3,
 * which no gradient here comes near; so they are held to the same number. */
#include "mpi_service.h"
#include "update_fixture.h"

#include "base/rng.h"
#include "curvature/internal.h"

#define COUNT(list) (sizeof list / sizeof list[0])

enum { STEPS = 6, ROWS = 10 };

static const double TOLERANCE = 3e-5;

static const char base[] = "factor_update_steps=1 eig_rank=4 oversampling=3 damping=0.1";
static const char *const lengths[] = {"step=normalised", "step=kl-clip kl_clip=1e-4", "step=rms-clip kl_clip=0.1",
                                      "step=norm-constraint kl_clip=1e-4", "step=plain"};
static const char *const methods[] = {
    "method=kfac", "method=nystrom-kfac",
    "method=kfac form=cholesky exponent_a=1 exponent_g=1 damping_mode=pi damping=0.01",
    "method=kfac damping_mode=scalar damping=0.01 skip=fc1"};
static const char *const momenta[] = {"momentum=0", "momentum=0.9", "momentum=0.9 momentum_place=caller"};
static const char *const delays[] = {"staleness=0 inv_update_steps=2", "staleness=1 inv_update_steps=1",
                                     "staleness=5 inv_update_steps=1"};

static int size, rank;
static dense mine[STEPS][RUN_LAYERS], other[STEPS][RUN_LAYERS], again[STEPS][RUN_LAYERS];

/* ---- a run: directions, or the parameters after each step ---- */

typedef struct way {
  service_layout layout;
  bool has_parameters;
} way;

typedef struct outcome {
  curvd_status status;
  bool is_left_alone; /* what was given with the parameters */
} outcome;

static void one_step(curvd_ctx *ctx, const service_run *run, int step, way how, dense *W, dense *D, outcome *out) {
  static dense V[RUN_LAYERS];
  out->status = run_capture(ctx, run, step);
  run_gradients(ctx, run, step, V);
  if (out->status != CURVD_OK) return;
  if (how.has_parameters) {
    update_result result = update_try(ctx, 0.3, how.layout, RUN_LAYERS, run_layer, V, 0.01F, W);
    out->status = result.status;
    out->is_left_alone = out->is_left_alone && result.is_left_alone;
    memcpy(D, W, RUN_LAYERS * sizeof *W);
  } else {
    out->status = service_try(ctx, 0.3, how.layout, RUN_LAYERS, run_layer, V);
    memcpy(D, V, sizeof V);
  }
}

static outcome live(const service_run *run, way how, dense (*D)[RUN_LAYERS]) {
  static dense W[RUN_LAYERS];
  curvd_ctx *ctx = run_open(run);
  outcome out = {CURVD_OK, true};
  bool is_worker = run_is_worker(ctx);
  for (int l = 0; l < RUN_LAYERS; l++)
    W[l] = dense_random(7 + (uint64_t)l, run_layer[l].d_out, service_columns(&run_layer[l]));
  memset(D, 0, STEPS * RUN_LAYERS * sizeof(dense));
  for (int step = 0; step < STEPS && is_worker && out.status == CURVD_OK; step++)
    one_step(ctx, run, step, how, W, D[step], &out);
  run_close(&ctx);
  return out;
}

/* Sharded on MPI_COMM_WORLD into D: the same bits on every worker. */
static outcome live_sharded(const char *options, int n_curvature, const char *reduction, way how,
                            dense (*D)[RUN_LAYERS]) {
  static dense of_rank_0[STEPS][RUN_LAYERS];
  char text[420];
  snprintf(text, sizeof text, "%s apply=sharded", options);
  service_run run = {MPI_COMM_WORLD, text, n_curvature, STEPS, ROWS, reduction};
  outcome out = live(&run, how, D);
  mpi_assert_msg(out.status == CURVD_OK, "%s: %s", text, curvd_status_name(out.status));
  memcpy(of_rank_0, D, sizeof of_rank_0);
  MPI_Bcast(of_rank_0, sizeof of_rank_0, MPI_BYTE, 0, MPI_COMM_WORLD);
  mpi_assert_msg(rank >= size - n_curvature || memcmp(of_rank_0, D, sizeof of_rank_0) == 0,
                 "%s, %d curvature ranks: other bits than on rank 0", text, n_curvature);
  return out;
}

/* ---- against the replicated way ---- */

/* Case i of all combinations; 5, 4 and 3 share no factor, so 60 cases hold every triple of the first three. */
static void spell(size_t i, char *text, size_t room) {
  snprintf(text, room, "%s %s %s %s %s", base, methods[i % 4], lengths[i % 5], momenta[i % 3], delays[i / 3 % 3]);
}

START_TEST(updates_are_those_of_the_replicated_way) {
  for (size_t i = 0; i < 60; i++) {
    char text[400];
    int c = (int)((i / 2 + i / 20) % (size_t)size);
    way how = {i / 4 % 2 ? SERVICE_JOINED : SERVICE_APART, i % 2 == 1};
    const char *reduction = i / 5 % 2 ? "mean" : "sum";
    spell(i, text, sizeof text);
    service_run replicated = {MPI_COMM_WORLD, text, c, STEPS, ROWS, reduction};
    outcome expected = live(&replicated, how, other);
    mpi_assert(expected.status == CURVD_OK);
    outcome out = live_sharded(text, c, reduction, how, mine);
    double distance = rank < size - c ? run_distance(STEPS, mine, other) : 0;
    mpi_assert_msg(distance < TOLERANCE, "%s, %d curvature ranks: %.1e", text, c, distance);
    bool is_caller = i % 3 != 1; /* nothing to write but the parameters */
    mpi_assert_msg(!how.has_parameters || !is_caller || (out.is_left_alone && expected.is_left_alone),
                   "%s: gradients beside parameters were written", text);
  }
}
END_TEST

START_TEST(same_bits_twice) {
  for (size_t i = 0; i < 6; i++) {
    char text[400];
    way how = {SERVICE_APART, i % 2 == 1};
    spell(7 * i, text, sizeof text);
    live_sharded(text, (int)i % size, "sum", how, mine);
    live_sharded(text, (int)i % size, "sum", how, again);
    mpi_assert_msg(memcmp(mine, again, sizeof mine) == 0, "%s: other bits the second time", text);
  }
}
END_TEST

/* Dense fp64, so that both ways cannot be wrong together: refreshes of every step, roots, factors of condition 251, two
 * roundings of eps each on two sides. */
START_TEST(directions_are_those_of_dense_fp64) {
  static const kfac_case half = {"relative-mean", "norm", "eigen", 0.1, 0.5, 0.5, 0.95};
  static dense S_A[STEPS], S_G[STEPS];
  for (int l = 0; l < RUN_LAYERS; l++) {
    for (int step = 0; step < STEPS; step++) {
      S_A[step] = kfac_statistic(run_inputs(step, l, ROWS), run_layer[l].has_bias);
      S_G[step] = kfac_statistic(run_output_gradients(step, l, ROWS), false);
      other[step][l] = kfac_direction(&half, step + 1, S_A, S_G, run_gradient(step, l, 0, ROWS));
    }
  }
  for (int c = 0; c < size; c++) {
    live_sharded(run_kfac, c, "sum", (way){SERVICE_JOINED, false}, mine);
    double distance = rank < size - c ? run_distance(STEPS, mine, other) : 0;
    mpi_assert_msg(distance < 6e-5, "%d curvature ranks: %.1e", c, distance);
  }
}
END_TEST

/* When a refresh lands is a matter of timing, but it does on all workers together: live_sharded compares their bits. */
START_TEST(free_running_workers_agree) {
  for (int c = 0; c < size; c++)
    live_sharded("method=kfac factor_update_steps=1 inv_update_steps=2 staleness=free staleness_max=3 step=kl-clip", c,
                 "sum", (way){SERVICE_APART, false}, mine);
}
END_TEST

/* ---- layers of one worker beside layers of all ---- */

enum { MIXED = 4, MIXED_STEPS = 4, MIXED_ROWS = 12, WIDEST = 161, LARGEST = 150 * 161 };

/* Exact factors of 140 and more are worth sharing by auto, and a skipped layer is not. */
static const service_layer mixed_layer[MIXED] = {
    {"fc0", 150, 150, true}, {"fc1", 30, 20, false}, {"fc2", 160, 150, true}, {"fc3", 150, 140, false}};

typedef float mixed_run[MIXED_STEPS][MIXED][LARGEST];
static mixed_run mixed_mine, mixed_other, mixed_first;

/* Numbers in [-1, 1] of a step, layer and worker. */
static const float *numbers(uint64_t seed, float *x, int64_t n) {
  const cv_rng rng = {.seed = seed, .stream = CV_RNG_PROBE};
  for (int64_t i = 0; i < n; i++) x[i] = 2 * (float)cv_rng_uniform(&rng, (uint64_t)i) - 1;
  return x;
}

/* Directions are written over the gradients; parameters are what the step left. */
static curvd_status mixed_step(curvd_ctx *ctx, int step, bool has_parameters, mixed_run D) {
  static float a[MIXED_ROWS * WIDEST], g[MIXED_ROWS * WIDEST], V[MIXED][LARGEST];
  curvd_gradient view[MIXED];
  curvd_status status = CURVD_OK;
  for (int l = 0; l < MIXED && status == CURVD_OK; l++) {
    const service_layer *layer = &mixed_layer[l];
    int64_t n = service_columns(layer);
    uint64_t seed = (uint64_t)(1000 * step + 100 * l + 3 * curvd_worker_index(ctx));
    numbers(seed, V[l], layer->d_out * n);
    if (has_parameters && step > 0) memcpy(D[step][l], D[step - 1][l], sizeof D[step][l]);
    view[l] = (curvd_gradient){.weight = has_parameters ? V[l] : D[step][l], .ld = n, .bias_stride = n};
    view[l].bias = view[l].weight + layer->d_in;
    if (has_parameters) view[l].parameter = D[step][l], view[l].parameter_bias = D[step][l] + layer->d_in;
    if (!has_parameters) memcpy(D[step][l], V[l], sizeof V[l]);
    status = curvd_capture(ctx, l, MIXED_ROWS, numbers(seed + 1, a, MIXED_ROWS * layer->d_in), layer->d_in,
                           numbers(seed + 2, g, MIXED_ROWS * layer->d_out), layer->d_out);
  }
  return status == CURVD_OK ? curvd_step(ctx, 0.3, view, MIXED) : status;
}

static void live_mixed(const char *options, const char *apply, int c, bool has_parameters, mixed_run D, int *n_own) {
  char text[400];
  snprintf(text, sizeof text, "%s skip=fc1 apply=%s curvature_ranks=%d", options, apply, c);
  curvd_ctx *ctx = service_open(MPI_COMM_WORLD, text, MIXED, mixed_layer);
  curvd_status status = CURVD_OK;
  *n_own = 0;
  memset(D, 0, sizeof(mixed_run));
  for (int l = 0; l < MIXED; l++) *n_own += ctx->layer[l].shard >= 0;
  bool is_worker = run_is_worker(ctx);
  for (int step = 0; step < MIXED_STEPS && is_worker && status == CURVD_OK; step++)
    status = mixed_step(ctx, step, has_parameters, D);
  run_close(&ctx);
  mpi_assert_msg(status == CURVD_OK, "%s: %s", text, curvd_status_name(status));
  memcpy(mixed_first, D, sizeof mixed_first);
  for (int step = 0; step < MIXED_STEPS; step++)
    MPI_Bcast(mixed_first[step], sizeof mixed_first[step], MPI_BYTE, 0, MPI_COMM_WORLD);
  mpi_assert_msg(!is_worker || memcmp(mixed_first, D, sizeof mixed_first) == 0, "%s: other bits than on rank 0", text);
}

/* Largest ||X - Y|| / ||Y|| of a layer in a step; NaN counts as infinite. */
static double mixed_distance(mixed_run X, mixed_run Y) {
  double worst = 0;
  for (int i = 0; i < MIXED_STEPS * MIXED; i++) {
    const float *x = X[i / MIXED][i % MIXED], *y = Y[i / MIXED][i % MIXED];
    double apart = 0, whole = 0;
    for (int64_t j = 0; j < LARGEST; j++)
      apart += pow((double)x[j] - (double)y[j], 2), whole += (double)y[j] * (double)y[j];
    double distance = sqrt(apart / whole);
    worst = isfinite(distance) ? fmax(worst, distance) : INFINITY;
  }
  return worst;
}

/* As above, with n <= 161: roots at a tenth of the mean eigenvalue have condition sqrt(1 + 1610) = 40 on a side at
 * most, so 1600 eps = 1e-4 together, doubled for the lengths. */
START_TEST(mixed_layouts_are_those_of_the_replicated_way) {
  static const char *const kinds[] = {"staleness=0 step=kl-clip kl_clip=1e-4 momentum=0.9",
                                      "staleness=1 step=normalised momentum=0 route=gradients",
                                      "staleness=2 step=rms-clip kl_clip=0.1 momentum_place=caller",
                                      "staleness=0 step=norm-constraint kl_clip=1e-5 momentum=0 route=gradients",
                                      "staleness=1 step=plain momentum=0.9"};
  for (int i = 0; i < 5 * size; i++) {
    char text[300];
    int c = i / 5, n_mixed = 0, n_none = 0;
    snprintf(text, sizeof text, "method=kfac factor_update_steps=1 inv_update_steps=2 damping=0.1 %s", kinds[i % 5]);
    live_mixed(text, "replicated", c, i % 2, mixed_other, &n_none);
    live_mixed(text, "auto", c, i % 2, mixed_mine, &n_mixed);
    mpi_assert_msg(n_none == 0 && n_mixed == (size - c > 1 ? MIXED - 1 : 0), "%s, %d curvature ranks: %d of %d", text,
                   c, n_mixed, n_none);
    double distance = rank < size - c ? mixed_distance(mixed_mine, mixed_other) : 0;
    mpi_assert_msg(distance < 2e-4, "%s, %d curvature ranks: %.1e", text, c, distance);
  }
}
END_TEST

/* The vote lies behind the layers of all. */
START_TEST(free_running_workers_agree_on_mixed_layouts) {
  for (int c = 0; c < size; c++) {
    int n_mixed = 0;
    live_mixed("method=kfac factor_update_steps=1 inv_update_steps=1 staleness=free staleness_max=2 step=kl-clip",
               "auto", c, c % 2, mixed_mine, &n_mixed);
  }
}
END_TEST

/* ---- a gradient that is not finite ---- */

/* Three steps, the last worker's share of layer bad not finite in the second: D, the status of each, the sentence. */
static void stumble(const service_run *run, int bad, dense (*D)[RUN_LAYERS], curvd_status *status, char *sentence,
                    size_t room) {
  curvd_ctx *ctx = run_open(run);
  bool is_worker = run_is_worker(ctx);
  memset(D, 0, STEPS * RUN_LAYERS * sizeof(dense));
  for (int step = 0; step < 3 && is_worker; step++) {
    status[step] = run_capture(ctx, run, step);
    run_gradients(ctx, run, step, D[step]);
    if (step == 1 && curvd_worker_index(ctx) == curvd_worker_count(ctx) - 1) D[step][bad].x[1][2] = NAN;
    if (status[step] == CURVD_OK) status[step] = service_try(ctx, 0.1, SERVICE_APART, RUN_LAYERS, run_layer, D[step]);
    if (step == 1) snprintf(sentence, room, "%s", curvd_last_error(ctx));
  }
  memset(D[1], 0, sizeof D[1]);
  run_close(&ctx);
}

START_TEST(bad_gradient_is_told_alike_everywhere_and_training_goes_on) {
  for (int i = 0; i < 2 * RUN_LAYERS * size; i++) {
    int bad = i / 2 % RUN_LAYERS, c = i / 2 / RUN_LAYERS, last = size - c - 1;
    char text[256], sharded[300], sentence[512] = "", expected[64];
    curvd_status status[3] = {CURVD_OK}, same[3] = {CURVD_OK};
    snprintf(text, sizeof text, "%s method=nystrom-kfac inv_update_steps=1 momentum=%s", base, i % 2 ? "0" : "0.9");
    snprintf(sharded, sizeof sharded, "%s apply=sharded", text);
    service_run run = run_of(sharded, c), replicated = run_of(text, c);
    stumble(&replicated, bad, other, same, sentence, sizeof sentence);
    stumble(&run, bad, mine, status, sentence, sizeof sentence);
    snprintf(expected, sizeof expected, "layer %s, step 1: the gradient of rank %d ", run_layer[bad].name, last);
    bool is_worker = rank <= last;
    mpi_assert_msg(!is_worker || (status[0] == CURVD_OK && status[1] == CURVD_ERR_NUMERIC && status[2] == CURVD_OK),
                   "%s, %d curvature ranks: %s, then %s", sharded, c, curvd_status_name(status[1]),
                   curvd_status_name(status[2]));
    mpi_assert_msg(!is_worker || strncmp(sentence, expected, strlen(expected)) == 0, "'%s', not '%s'", sentence,
                   expected);
    double distance = is_worker ? fmax(run_distance(1, mine, other), run_distance(1, mine + 2, other + 2)) : 0;
    mpi_assert_msg(distance < TOLERANCE, "%s, %d curvature ranks: %.1e afterwards", sharded, c, distance);
  }
}
END_TEST

/* Damping that cannot make one layer's direction finite, on the worker that applies it alone: no worker hangs, and none
 * has succeeded. Rank-one statistics with tail zero and damping 0 have no inverse. */
START_TEST(singular_layer_fails_the_step_on_every_worker) {
  for (int c = 0; c < size; c++) {
    service_run run = {
        MPI_COMM_WORLD,
        "method=nystrom-kfac eig_rank=4 oversampling=0 tail=zero damping=0,0.1@1 apply=sharded skip=fc0,fc2 "
        "factor_update_steps=1 inv_update_steps=1",
        c,
        STEPS,
        2,
        NULL};
    curvd_ctx *ctx = run_open(&run);
    curvd_status status[2] = {CURVD_OK, CURVD_OK};
    bool is_worker = run_is_worker(ctx), is_mine = cv_shard_applies(ctx, &ctx->layer[1]);
    for (int step = 0; step < 2 && is_worker; step++) status[step] = run_step(ctx, &run, step, mine[step]);
    run_close(&ctx);
    curvd_status expected = !is_worker ? CURVD_OK : is_mine ? CURVD_ERR_NUMERIC : CURVD_ERR_REMOTE;
    mpi_assert_msg(status[0] == expected, "%d curvature ranks: %s", c, curvd_status_name(status[0]));
    mpi_assert_msg(status[1] == CURVD_OK, "%d curvature ranks: %s", c, curvd_status_name(status[1]));
  }
}
END_TEST

/* ---- what is sent and kept ---- */

static int64_t floats_of(int l) {
  return run_layer[l].d_out * service_columns(&run_layer[l]);
}

/* Every worker scatters all gradients, and gathers out its own layers' directions. Those layers it finds by the
 * momentum that it keeps. */
static void check_bytes(const char *options, int n_curvature) {
  service_run run = run_of(options, n_curvature);
  curvd_ctx *ctx = run_open(&run);
  bool is_worker = run_is_worker(ctx), is_several = size - n_curvature > 1, ok = true;
  int64_t all = 0, own = 0, momentum = 0;
  int copies[RUN_LAYERS], total[RUN_LAYERS];
  curvd_metrics before = service_metrics(ctx);
  for (int step = 0; step < 3 && is_worker; step++) ok = ok && run_step(ctx, &run, step, mine[step]) == CURVD_OK;
  curvd_metrics metrics = service_metrics(ctx);
  for (int l = 0; l < RUN_LAYERS; l++) {
    copies[l] = ctx->layer[l].own != NULL;
    all += floats_of(l);
    own += copies[l] * floats_of(l);
    momentum += copies[l] * ctx->layer[l].m * ctx->layer[l].ld * (int64_t)sizeof(float);
  }
  run_close(&ctx);
  MPI_Allreduce(copies, total, RUN_LAYERS, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
  for (int l = 0; l < RUN_LAYERS; l++) mpi_assert(total[l] == 1);
  mpi_assert(ok && metrics.n_allocations == before.n_allocations);
  mpi_assert(metrics.memory_bytes[CURVD_MEMORY_MOMENTUM] - momentum <= RUN_LAYERS &&
             metrics.memory_bytes[CURVD_MEMORY_MOMENTUM] >= momentum);
  int64_t expected = is_worker && is_several ? 3 * (int64_t)sizeof(float) * (all + own) : 0;
  mpi_assert_msg(metrics.sent_bytes[CURVD_TRAFFIC_GRADIENTS] == expected, "%s, %d curvature ranks: %lld, not %lld",
                 options, n_curvature, (long long)metrics.sent_bytes[CURVD_TRAFFIC_GRADIENTS], (long long)expected);
}

START_TEST(bytes_are_a_scatter_of_all_and_a_gather_of_the_own_part) {
  for (int c = 0; c < size; c++) {
    check_bytes("method=kfac apply=sharded factor_update_steps=1 inv_update_steps=2", c);
    check_bytes("method=nystrom-kfac eig_rank=4 apply=sharded factor_update_steps=2 inv_update_steps=2 step=plain", c);
  }
}
END_TEST

static int64_t preconditioner_bytes(const char *options, int n_curvature) {
  service_run run = run_of(options, n_curvature);
  curvd_ctx *ctx = run_open(&run);
  int64_t bytes = service_metrics(ctx).memory_bytes[CURVD_MEMORY_PRECONDITIONERS];
  run_close(&ctx);
  return bytes;
}

/* Workers together keep what one of them kept of everything; each may keep a number per eigenvalue of the others, and
 * blocks of nothing count a byte. */
START_TEST(workers_keep_preconditioners_of_their_own_layers_only) {
  for (size_t i = 0; i < (size_t)size * COUNT(methods); i++) {
    char text[300], sharded[340];
    int c = (int)(i / COUNT(methods));
    snprintf(text, sizeof text, "%s %s inv_update_steps=1", base, methods[i % COUNT(methods)]);
    snprintf(sharded, sizeof sharded, "%s apply=sharded", text);
    int64_t whole = preconditioner_bytes(text, c), part = preconditioner_bytes(sharded, c), sum = 0, eigenvalues = 0;
    for (int l = 0; l < RUN_LAYERS; l++) eigenvalues += 4 * (service_columns(&run_layer[l]) + run_layer[l].d_out) + 16;
    MPI_Allreduce(&part, &sum, 1, MPI_INT64_T, MPI_SUM, MPI_COMM_WORLD);
    bool is_right = rank >= size - c || (sum >= whole && sum <= whole + (size - c) * eigenvalues);
    mpi_assert_msg(is_right, "%s, %d curvature ranks: %lld bytes together, replicated %lld each", sharded, c,
                   (long long)sum, (long long)whole);
  }
}
END_TEST

START_TEST(combined_gradients_are_refused) {
  service_run run = run_of("apply=sharded", 0);
  run.grad_reduction = "none";
  curvd_ctx *ctx = run_make(&run);
  curvd_status status = curvd_plan(ctx);
  bool is_told = strstr(curvd_last_error(ctx), "grad_reduction sum or mean") != NULL;
  curvd_destroy(&ctx);
  mpi_assert(status == CURVD_ERR_OPTION && is_told);
}
END_TEST

static Suite *make_suite(void) {
  const TTest *const tests[] = {updates_are_those_of_the_replicated_way,
                                same_bits_twice,
                                directions_are_those_of_dense_fp64,
                                free_running_workers_agree,
                                mixed_layouts_are_those_of_the_replicated_way,
                                free_running_workers_agree_on_mixed_layouts,
                                bad_gradient_is_told_alike_everywhere_and_training_goes_on,
                                singular_layer_fails_the_step_on_every_worker,
                                bytes_are_a_scatter_of_all_and_a_gather_of_the_own_part,
                                workers_keep_preconditioners_of_their_own_layers_only,
                                combined_gradients_are_refused};
  size = run_size(MPI_COMM_WORLD);
  rank = run_rank(MPI_COMM_WORLD);
  return service_suite("shards", tests, COUNT(tests));
}

int main(int argc, char **argv) {
  return mpi_test_main(argc, argv, make_suite);
}
