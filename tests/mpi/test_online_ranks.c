/* Online methods over the ranks: rows come worker by worker, and after each of them the pairs are truncated. Every
 * split (workers, curvature ranks) gives what dense fp64 makes of the same blocks.
 *
 * Tolerance: an update is exact to about 1e-6 of the trace (linalg/brand.h), the gap behind the last pair kept, above
 * GAP here, makes 1e-6 / GAP of it, and damping by half of the mean eigenvalue n / 0.5 = 50 times that: 5e-3. */
#include "mpi_service.h"
#include "online_fixture.h"

#define COUNT(list) (sizeof list / sizeof list[0])

enum { STEPS = 6, ROWS = 10, RANK = 5, OVER = 2 };

static const double TOLERANCE = 5e-3, GAP = 0.01;
static const kfac_case plain = {"relative-mean", "norm", "eigen", 0.5, 0.5, 0.5, 0.8};
static const char base[] = "step=plain momentum=0 eig_rank=5 oversampling=2 damping=0.5 factor_decay=0.8 "
                           "full_share=0.75 factor_update_steps=1";
static const char *const methods[] = {"b-kfac", "b-r-kfac", "b-r-c-kfac"};

static int size, rank;
static dense V[STEPS][RUN_LAYERS], again[STEPS][RUN_LAYERS], expected[STEPS][RUN_LAYERS];

/* On MPI_COMM_WORLD: the same bits twice, and on all workers. */
static bool live(const char *options, int n_curvature) {
  service_run run = run_of(options, n_curvature);
  bool is_worker = rank < size - n_curvature;
  run.n_steps = STEPS;
  memset(V, 0, sizeof V);
  memset(again, 0, sizeof again);
  curvd_status status = run_all(&run, V);
  mpi_assert_msg(status == CURVD_OK, "%s: %s", options, curvd_status_name(status));
  mpi_assert(run_all(&run, again) == CURVD_OK);
  mpi_assert_msg(memcmp(V, again, sizeof V) == 0, "%s: other bits the second time", options);
  memcpy(again, V, sizeof V);
  MPI_Bcast(again, sizeof again, MPI_BYTE, 0, MPI_COMM_WORLD);
  mpi_assert_msg(!is_worker || memcmp(V, again, sizeof V) == 0, "%s: other bits than on rank 0", options);
  return is_worker;
}

/* ---- dense fp64 ---- */

/* A factor of size n whose estimate is exact where the sketch would be most of it (full_share), as G of layer 2 is. */
static dense estimate(const online *o, dense whole) {
  return RANK + OVER >= 0.75 * (double)whole.n ? whole : online_estimate(o, RANK, "mean");
}

static dense side(const kfac_case *c, const online *o, dense whole) {
  return dense_inverse_power(estimate(o, whole), c->damping * dense_trace(whole) / (double)whole.n, c->exponent_a);
}

/* Directions of layer l, refreshes in every step and used in the same one; returns the smallest gap. */
static double emulate(const kfac_case *c, int l, int n_workers) {
  static dense S_A[STEPS], S_G[STEPS];
  const service_layer *layer = &run_layer[l];
  online A = online_new(c, service_columns(layer), RANK + OVER);
  online G = online_new(c, layer->d_out, layer->d_out > RANK + OVER ? RANK + OVER : layer->d_out - 1);
  for (int step = 0; step < STEPS; step++) {
    dense a = run_inputs(step, l, ROWS), g = run_output_gradients(step, l, ROWS);
    S_A[step] = kfac_statistic(a, layer->has_bias), S_G[step] = kfac_statistic(g, false);
    online_update(&A, c, step + 1, a, layer->has_bias, n_workers);
    online_update(&G, c, step + 1, g, false, n_workers);
    dense right = side(c, &A, kfac_average(c, step + 1, S_A)), left = side(c, &G, kfac_average(c, step + 1, S_G));
    expected[step][l] = dense_product(dense_product(left, run_gradient(step, l, 0, ROWS)), right);
  }
  return fmin(A.least_gap, layer->d_out > RANK + OVER ? G.least_gap : 1);
}

START_TEST(updates_come_worker_by_worker) {
  static const char *const averages[] = {"norm", "first", "sum", "id"};
  for (size_t i = 0; i < COUNT(averages) * (size_t)size; i++) {
    kfac_case c = plain;
    char options[300];
    int n_curvature = (int)(i / COUNT(averages));
    double gap = 1;
    c.average = averages[i % COUNT(averages)];
    snprintf(options, sizeof options, "method=b-kfac %s average=%s inv_update_steps=1", base, c.average);
    for (int l = 0; l < RUN_LAYERS; l++) gap = fmin(gap, emulate(&c, l, size - n_curvature));
    double distance = live(options, n_curvature) ? run_distance(STEPS, V, expected) : 0;
    mpi_assert_msg(gap > GAP, "%s, %d curvature ranks: a gap of %g", options, n_curvature, gap);
    mpi_assert_msg(distance < TOLERANCE, "%s, %d curvature ranks: %.1e", options, n_curvature, distance);
  }
}
END_TEST

/* While the rank holds all that has come, nothing is truncated and the split does not matter: two rows in each of six
 * steps, and pairs for 14. Tolerance as between splits of kfac. */
START_TEST(splits_agree_while_nothing_is_lost) {
  static const char *const more[] = {"staleness=0 inv_update_steps=1", "staleness=1 inv_update_steps=2 step=kl-clip",
                                     "staleness=5 inv_update_steps=1", "apply=sharded inv_update_steps=1",
                                     "route=gradients inv_update_steps=2 staleness=2"};
  for (size_t i = 0; i < COUNT(more) * COUNT(methods); i++) {
    char options[400];
    snprintf(options, sizeof options, "method=%s %s full_share=1 eig_rank=12 online_renew=3 %s", methods[i % 3], base,
             more[i / 3]);
    service_run one = run_of(options, 0);
    one.comm = MPI_COMM_SELF, one.rows = 2, one.n_steps = STEPS;
    mpi_assert(run_all(&one, expected) == CURVD_OK);
    int c = (int)i % size;
    service_run run = run_of(options, c);
    run.rows = 2, run.n_steps = STEPS;
    memset(V, 0, sizeof V);
    mpi_assert(run_all(&run, V) == CURVD_OK);
    double distance = rank < size - c ? run_distance(STEPS, V, expected) : 0;
    mpi_assert_msg(distance < 1e-4, "%s, %d curvature ranks: %.1e", options, c, distance);
  }
}
END_TEST

/* When a refresh lands is a matter of timing, but it does on all workers together. */
START_TEST(free_running_workers_agree) {
  for (size_t i = 0; i < COUNT(methods); i++) {
    char options[300];
    int c = (int)i % size;
    snprintf(options, sizeof options, "method=%s %s inv_update_steps=2 staleness=free staleness_max=2", methods[i],
             base);
    service_run run = run_of(options, c);
    run.n_steps = STEPS;
    memset(V, 0, sizeof V);
    mpi_assert(run_all(&run, V) == CURVD_OK);
    memcpy(again, V, sizeof V);
    MPI_Bcast(again, sizeof again, MPI_BYTE, 0, MPI_COMM_WORLD);
    mpi_assert_msg(rank >= size - c || memcmp(V, again, sizeof V) == 0, "%s: other bits than on rank 0", options);
  }
}
END_TEST

/* NaN among the last worker's rows: nobody's rows of that factor enter, and the next statistic does. */
START_TEST(bad_rows_of_one_worker_are_refused_everywhere) {
  for (size_t i = 0; i < COUNT(methods) * (size_t)size; i++) {
    char options[300];
    int c = (int)(i / COUNT(methods)), n = size - c;
    snprintf(options, sizeof options, "method=%s %s inv_update_steps=1", methods[i % COUNT(methods)], base);
    service_run run = run_of(options, c);
    curvd_ctx *ctx = run_open(&run);
    bool ok = true, is_worker = run_is_worker(ctx);
    for (int step = 0; step < 3 && is_worker; step++) {
      for (int l = 0; l < RUN_LAYERS; l++) {
        dense a = run_inputs(step, l, ROWS);
        if (step == 1 && l == 0 && rank == n - 1) a.x[ROWS - 1][2] = NAN;
        ok = ok && service_capture_part(ctx, l, a, run_output_gradients(step, l, ROWS), run_cut(ROWS, n, rank),
                                        run_cut(ROWS, n, rank + 1)) == CURVD_OK;
      }
      run_gradients(ctx, &run, step, V[step]);
      ok = ok && service_try(ctx, 0.1, SERVICE_APART, RUN_LAYERS, run_layer, V[step]) == CURVD_OK;
      curvd_factor_metrics A = service_factor(ctx, 0, 0), G = service_factor(ctx, 0, 1);
      ok = ok && A.refused == (step > 0) && A.statistics_step == (step == 1 ? 0 : step);
      ok = ok && G.refused == 0 && G.statistics_step == step;
      for (int l = 0; l < RUN_LAYERS; l++) ok = ok && isfinite(dense_norm(V[step][l]));
    }
    run_close(&ctx);
    mpi_assert_msg(ok, "%s, %d curvature ranks", options, c);
  }
}
END_TEST

static Suite *make_suite(void) {
  const TTest *const tests[] = {updates_come_worker_by_worker, splits_agree_while_nothing_is_lost,
                                free_running_workers_agree, bad_rows_of_one_worker_are_refused_everywhere};
  size = run_size(MPI_COMM_WORLD);
  rank = run_rank(MPI_COMM_WORLD);
  return service_suite("online ranks", tests, COUNT(tests));
}

int main(int argc, char **argv) {
  return mpi_test_main(argc, argv, make_suite);
}
