/* Parameters handed to the step, averages kept by the caller, and captured gradients, when several workers share a
 * step. */
#include "mpi_service.h"
#include "update_fixture.h"

#define COUNT(list) (sizeof list / sizeof list[0])

enum { ROWS = 10, STEPS = 4 };

static const char base[] = "factor_update_steps=1 inv_update_steps=2 eig_rank=4 oversampling=3 kl_clip=0.001";
static const char *const methods[] = {
    "method=none", "method=kfac", "method=kfac form=cholesky exponent_a=1 exponent_g=1 damping_mode=pi damping=0.01",
    "method=nystrom-kfac step=kl-clip", "method=sre-kfac step=plain skip=fc1"};
static const char *const momenta[] = {"momentum=0", "momentum=0.9", "momentum=0.9 momentum_place=caller"};
static const char *const reductions[] = {"sum", "mean", "none"};

static int size, rank;

static bool is_worker(const curvd_ctx *ctx) {
  return curvd_worker_index(ctx) >= 0;
}

static bool is_caller(const char *momentum) {
  return strstr(momentum, "caller") != NULL;
}

/* Ends a context whose workers are done. */
static void finish(curvd_ctx **ctx) {
  if (is_worker(*ctx)) curvd_finish(*ctx);
  curvd_destroy(ctx);
}

static void start(dense *W, double scale) {
  for (int l = 0; l < RUN_LAYERS; l++) {
    W[l] = dense_scaled(scale, dense_random(7 + (uint64_t)l, run_layer[l].d_out, service_columns(&run_layer[l])));
  }
}

/* What the caller hands over: its share of the gradient, or its own average M of its shares. */
static void hand(const curvd_ctx *ctx, const service_run *run, int step, bool averages, dense *M, dense *V) {
  run_gradients(ctx, run, step, V);
  for (int l = 0; l < RUN_LAYERS && averages; l++) {
    update_average(0.9, V[l], &M[l]);
    V[l] = M[l];
  }
}

/* What one worker finds in a run with parameters beside its twin. */
typedef struct finding {
  bool ok, is_left_alone;
  double excess;
  dense W[RUN_LAYERS];
} finding;

static void work(curvd_ctx *ctx, curvd_ctx *twin, const service_run *run, service_layout layout, bool averages,
                 finding *f) {
  static dense M[RUN_LAYERS], V[RUN_LAYERS], direction[RUN_LAYERS], old[RUN_LAYERS];
  const double lr = 0.3;
  const float shrink = 0.01F;
  start(M, 0);
  start(f->W, 1);
  for (int step = 0; step < STEPS; step++) {
    f->ok = f->ok && run_capture(ctx, run, step) == CURVD_OK && run_capture(twin, run, step) == CURVD_OK;
    hand(ctx, run, step, averages, M, V);
    memcpy(direction, V, sizeof V);
    memcpy(old, f->W, sizeof old);
    update_result result = update_try(ctx, lr, layout, RUN_LAYERS, run_layer, V, shrink, f->W);
    f->ok = f->ok && result.status == CURVD_OK;
    f->ok = f->ok && service_try(twin, lr, layout, RUN_LAYERS, run_layer, direction) == CURVD_OK;
    f->is_left_alone = f->is_left_alone && result.is_left_alone;
    for (int l = 0; l < RUN_LAYERS; l++)
      f->excess = fmax(f->excess, update_excess(f->W[l], old[l], shrink, lr, direction[l]));
  }
}

static finding findings(const char *method, const char *momentum, const char *reduction, service_layout layout) {
  static finding f, of_rank_0;
  char options[384];
  snprintf(options, sizeof options, "%s %s %s", base, method, momentum);
  service_run run = {.comm = MPI_COMM_WORLD, .options = options, .rows = ROWS, .grad_reduction = reduction};
  curvd_ctx *ctx = run_open(&run), *twin = run_open(&run);
  memset(&f, 0, sizeof f);
  f.ok = f.is_left_alone = true;
  work(ctx, twin, &run, layout, is_caller(momentum), &f);
  finish(&ctx);
  finish(&twin);
  memcpy(&of_rank_0, &f, sizeof f);
  MPI_Bcast(of_rank_0.W, sizeof of_rank_0.W, MPI_BYTE, 0, MPI_COMM_WORLD);
  mpi_assert_msg(memcmp(of_rank_0.W, f.W, sizeof f.W) == 0, "%s %s %s: other parameters than on rank 0", method,
                 momentum, reduction);
  return f;
}

START_TEST(step_subtracts_its_direction_on_every_worker) {
  for (size_t i = 0; i < COUNT(methods) * COUNT(momenta) * COUNT(reductions); i++) {
    const char *method = methods[i % 5], *momentum = momenta[i / 5 % 3], *reduction = reductions[i / 15];
    finding f = findings(method, momentum, reduction, i % 2 ? SERVICE_APART : SERVICE_JOINED);
    mpi_assert_msg(f.ok && f.excess <= 1, "%s %s %s: %.1f times rounding", method, momentum, reduction, f.excess);
  }
}
END_TEST

static void check_left_alone(const char *reduction) {
  for (size_t i = 0; i < 2 * COUNT(methods); i++) {
    finding f = findings(methods[i / 2], momenta[2], reduction, i % 2 ? SERVICE_APART : SERVICE_JOINED);
    mpi_assert_msg(f.is_left_alone, "%s %s, layout %d: the caller's averages were written", methods[i / 2], reduction,
                   (int)(i % 2));
  }
}

START_TEST(averages_of_the_caller_are_left_alone_when_summed) {
  check_left_alone("sum");
}
END_TEST

START_TEST(averages_of_the_caller_are_left_alone_in_a_mean) {
  check_left_alone("mean");
}
END_TEST

/* Directions with averages kept by each worker of its own shares, against those of the step's own average. Rounding,
 * 6e-8 of numbers of one size, is amplified by the condition of the damped inverse roots, 200 here. */
START_TEST(caller_averages_as_the_step_does) {
  for (size_t i = 0; i < COUNT(reductions) * (COUNT(methods) - 1) * (size_t)size; i++) {
    const char *method = methods[1 + i % 4];
    char here[384], there[384];
    snprintf(here, sizeof here, "%s %s %s", base, method, momenta[1]);
    snprintf(there, sizeof there, "%s %s %s", base, method, momenta[2]);
    service_run run = {.comm = MPI_COMM_WORLD, .options = here, .rows = ROWS, .grad_reduction = reductions[i / 4 % 3]};
    run.n_curvature = (int)i / 12;
    service_run other = run;
    other.options = there;
    run.n_steps = STEPS;
    static dense by_step[STEPS][RUN_LAYERS], by_caller[STEPS][RUN_LAYERS], M[RUN_LAYERS];
    mpi_assert(run_all(&run, by_step) == CURVD_OK);
    curvd_ctx *ctx = run_open(&other);
    bool ok = is_worker(ctx) || curvd_serve(ctx) == CURVD_OK;
    start(M, 0);
    for (int step = 0; step < STEPS && is_worker(ctx); step++) {
      ok = ok && run_capture(ctx, &other, step) == CURVD_OK;
      hand(ctx, &other, step, true, M, by_caller[step]);
      ok = ok && service_try(ctx, 0.1, SERVICE_APART, RUN_LAYERS, run_layer, by_caller[step]) == CURVD_OK;
    }
    double distance = is_worker(ctx) ? run_distance(STEPS, by_caller, by_step) : 0;
    finish(&ctx);
    mpi_assert(ok);
    mpi_assert_msg(distance < 2e-5, "%s, %s, %d curvature ranks: %.1e", method, run.grad_reduction, run.n_curvature,
                   distance);
  }
}
END_TEST

/* The last worker's share is not finite: nobody's parameters change. */
static void check_bad_gradient(const char *method) {
  for (size_t i = 0; i < 2 * COUNT(momenta); i++) {
    char options[384];
    dense V[RUN_LAYERS], W[RUN_LAYERS], old[RUN_LAYERS];
    snprintf(options, sizeof options, "%s %s %s", base, method, momenta[i / 2]);
    service_run run = {.comm = MPI_COMM_WORLD, .options = options, .rows = ROWS, .grad_reduction = reductions[i % 2]};
    curvd_ctx *ctx = run_open(&run);
    bool ok = run_capture(ctx, &run, 0) == CURVD_OK;
    run_gradients(ctx, &run, 0, V);
    start(W, 1);
    start(old, 1);
    if (rank == size - 1) V[2].x[2][16] = NAN;
    update_result result =
        update_try(ctx, 0.3, i % 2 ? SERVICE_APART : SERVICE_JOINED, RUN_LAYERS, run_layer, V, 0.01F, W);
    for (int l = 0; l < RUN_LAYERS; l++) ok = ok && dense_distance(W[l], old[l]) == 0;
    finish(&ctx);
    mpi_assert_msg(result.status == CURVD_ERR_NUMERIC, "%s: %s", options, curvd_status_name(result.status));
    mpi_assert_msg(ok, "%s: parameters changed", options);
  }
}

START_TEST(bad_share_changes_no_parameter) {
  for (size_t i = 1; i < COUNT(methods); i++) check_bad_gradient(methods[i]);
}
END_TEST

/* Each worker tells its own share of the gradient, and a wrong one: with others to sum over, none of it may count. */
START_TEST(captured_gradients_do_not_count_with_several_workers) {
  static dense told[STEPS][RUN_LAYERS], quiet[STEPS][RUN_LAYERS];
  const float a[24] = {1}, g[20] = {1};
  service_run run = {.comm = MPI_COMM_WORLD, .options = "method=nystrom-kfac eig_rank=4 oversampling=2", .rows = ROWS};
  run.n_steps = STEPS;
  mpi_assert(run_all(&run, quiet) == CURVD_OK);
  curvd_ctx *ctx = run_open(&run);
  bool ok = true;
  for (int step = 0; step < STEPS; step++) {
    for (int l = 0; l < RUN_LAYERS && size > 1; l++)
      ok = ok && curvd_capture_gradient(ctx, l, 1, a, 24, g, 20, 1) == CURVD_OK;
    ok = ok && run_step(ctx, &run, step, told[step]) == CURVD_OK;
  }
  finish(&ctx);
  mpi_assert(ok);
  mpi_assert(memcmp(told, quiet, sizeof told) == 0);
}
END_TEST

static Suite *make_suite(void) {
  const TTest *const tests[] = {step_subtracts_its_direction_on_every_worker,
                                averages_of_the_caller_are_left_alone_when_summed,
                                averages_of_the_caller_are_left_alone_in_a_mean,
                                caller_averages_as_the_step_does,
                                bad_share_changes_no_parameter,
                                captured_gradients_do_not_count_with_several_workers};
  size = run_size(MPI_COMM_WORLD);
  rank = run_rank(MPI_COMM_WORLD);
  return service_suite("update_ranks", tests, COUNT(tests));
}

int main(int argc, char **argv) {
  return mpi_test_main(argc, argv, make_suite);
}
