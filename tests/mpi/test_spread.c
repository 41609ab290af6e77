/* Factors that lie over all owners: every method, average, product and split of the ranks gives dense K-FAC, and the
 * directions of the same run with whole factors. Each test goes through every number of curvature ranks that leaves a
 * worker. Tolerances: that of few modes in unit/test_curvature_faults.c, and that between splits of test_layouts.c. */
#include "spread_fixture.h"

#define COUNT(list) (sizeof list / sizeof list[0])

static int size, rank;
static spread_directions V, other;

static bool is_worker(const spread_run *run) {
  return rank < size - run->n_curvature;
}

/* Of many cases and splits a share that meets each case with some split: a test takes seconds. */
static bool is_tried(int c, size_t i) {
  return ((size_t)c + i) % (size_t)(size < 3 ? 1 : (size + 1) / 2) == 0;
}

/* ---- dense K-FAC ---- */

/* Every worker has the bits of rank 0, whose directions are compared with references. */
static void check_same(const spread_run *run) {
  if (rank == 0) other = V;
  MPI_Bcast(&other, sizeof other, MPI_BYTE, 0, MPI_COMM_WORLD);
  mpi_assert_msg(!is_worker(run) || memcmp(&V, &other, sizeof V) == 0, "%s: other bits than rank 0", run->options);
}

/* Of the last step: it has seen the averages of all. */
static void check_dense(const spread_run *run, const kfac_case *c) {
  int last = run->n_steps - 1;
  curvd_status status = spread_all(run, &V);
  mpi_assert_msg(status == CURVD_OK, "%s: %s", run->options, curvd_status_name(status));
  check_same(run);
  double error = rank == 0 ? spread_step_error(run, c, run->n_steps, last, V.x[last]) : 0;
  mpi_assert_msg(error < spread_tolerance, "%s: %.1e", run->options, error);
}

/* grid_min_n: 2 spreads every factor, 100 only A of both layers, 60 all but G of the second. A Krylov space has blocks
 * of as many rows as there are modes. */
START_TEST(every_method_gives_dense_kfac) {
  static const char *const options[] = {
      "method=kfac grid_min_n=2",
      "method=kfac grid_min_n=100",
      "method=rs-kfac grid_min_n=2 grid_product=slab",
      "method=rs-kfac grid_min_n=100 grid_product=scalapack",
      "method=sre-kfac grid_min_n=2 grid_product=scalapack warm_power_iters=1",
      "method=nystrom-kfac grid_min_n=60 grid_product=slab",
      "method=nystrom-kfac grid_min_n=2 grid_product=scalapack",
      "method=nystrom-kfac grid_min_n=2 grid_product=auto range_finder=krylov oversampling=14",
      "method=nystrom-kfac grid_min_n=2 grid_product=scalapack range_finder=krylov oversampling=14 warm_start=false",
      "method=kfac grid_min_n=2 carrier=columns",
      "method=nystrom-kfac grid_min_n=60 carrier=columns grid_product=slab",
      "method=nystrom-kfac grid_min_n=2 full_share=0.1"}; /* randomized A, exact G */
  for (int c = 0; c < size; c++) {
    for (size_t i = 0; i < COUNT(options); i++) {
      if (!is_tried(c, i)) continue;
      spread_run run = spread_run_of(&spread_plain, c, options[i]);
      check_dense(&run, &spread_plain);
    }
  }
}
END_TEST

/* ||piece - average||^2 and ||average||^2 of this owner's columns, down to the diagonal, into off. */
static void compare_piece(const curvd_ctx *ctx, const spread_run *run, int l, int f, double off[2]) {
  static double M[SPREAD_MAX * SPREAD_MAX];
  const cv_factor *factor = &ctx->layer[l].factor[f];
  cv_cyclic piece = cv_spread_piece(ctx, factor, cv_comm_my_owner(&ctx->comm));
  int64_t n = factor->n;
  memset(M, 0, (size_t)(n * n) * sizeof *M);
  for (int i = 0; i < run->n_steps; i++)
    spread_add_statistic(run, i, l, f, kfac_weight(&spread_plain, i, run->n_steps), M);
  for (int64_t j = 0; j < factor->own.cols; j++) {
    int64_t column = cv_cyclic_global(&piece, j);
    for (int64_t i = 0; i <= column; i++) {
      double right = M[i * n + column], rest = factor->own.average[i * factor->own.ld + j] - right;
      off[0] += rest * rest, off[1] += right * right;
    }
  }
}

/* [collective] ||pieces - averages|| / ||averages|| of all spread factors. */
static double pieces_error(const spread_run *run) {
  double off[2] = {0};
  curvd_ctx *ctx = spread_open(run);
  curvd_status status;
  if (spread_is_worker(ctx, &status)) {
    for (int step = 0; step < run->n_steps && status == CURVD_OK; step++)
      status = spread_feed(ctx, run, step, V.x[step]);
    curvd_finish(ctx);
  }
  for (int i = 0; i < SPREAD_LAYERS * CV_FACTORS; i++) {
    const cv_factor *factor = &ctx->layer[i / CV_FACTORS].factor[i % CV_FACTORS];
    if (factor->is_spread && factor->own.average) compare_piece(ctx, run, i / CV_FACTORS, i % CV_FACTORS, off);
  }
  curvd_destroy(&ctx);
  mpi_assert(status == CURVD_OK);
  MPI_Allreduce(MPI_IN_PLACE, off, 2, MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD);
  return sqrt(off[0] / off[1]);
}

/* Two pairs of six modes are kept, so that rounding counts little. One term is off by 2.4e-3 in a product of random
 * numbers, three by 4.4e-6. */
START_TEST(pieces_in_every_precision) {
  static const char *const carriers[] = {"auto", "columns"}, *const precisions[] = {"fp32", "bf16", "bf16x3"};
  for (int c = 0; c < size; c++) {
    for (size_t k = 0; k < COUNT(carriers); k++) {
      double off[COUNT(precisions)];
      if (!is_tried(c, 2 * k) || (c > 0 ? c : size) < 2) continue; /* one owner has all of a factor */
      for (size_t i = 0; i < COUNT(precisions); i++) {
        char more[192];
        snprintf(more, sizeof more,
                 "method=nystrom-kfac grid_min_n=60 grid_product=slab eig_rank=2 oversampling=2 carrier=%s "
                 "statistics_precision=%s",
                 carriers[k], precisions[i]);
        spread_run run = spread_run_of(&spread_plain, c, more);
        off[i] = pieces_error(&run);
      }
      mpi_assert_msg(off[0] < 5e-7, "%s: fp32 is off by %.1e", carriers[k], off[0]);
      mpi_assert_msg(off[2] > 2 * off[0] && off[2] < 4.4e-6, "%s: bf16x3 is off by %.1e", carriers[k], off[2]);
      mpi_assert_msg(off[1] > 100 * off[2] && off[1] < 2.4e-3, "%s: bf16 is off by %.1e", carriers[k], off[1]);
    }
  }
}
END_TEST

/* With average id a factor has all modes: exact only. Examples come in three pieces, and as means. */
START_TEST(every_average_gives_dense_kfac) {
  static const char *const averages[] = {"norm", "id", "zero", "first", "mg", "sum"};
  for (int c = 0; c < size; c++) {
    for (size_t i = 0; i < COUNT(averages); i++) {
      if (!is_tried(c, i)) continue;
      kfac_case plain = spread_plain;
      plain.average = averages[i];
      bool is_exact = (c + i) % 2 == 0 || kfac_is(averages[i], "id");
      spread_run run = spread_run_of(&plain, c, is_exact ? "grid_min_n=2" : "method=nystrom-kfac grid_min_n=2");
      run.n_captures = 3;
      run.is_mean = true;
      strcat(run.options, " loss_reduction=mean");
      check_dense(&run, &plain);
    }
  }
}
END_TEST

/* From three workers on, some have no example. Of one row all statistics are of rank one: twice in different steps. */
START_TEST(workers_without_rows) {
  for (int c = 0; c < size; c++) {
    spread_run run = spread_run_of(&spread_plain, c, c % 2 ? "grid_min_n=2" : "method=rs-kfac grid_min_n=2");
    run.rows = 2;
    check_dense(&run, &spread_plain);
    run.rows = 1;
    check_dense(&run, &spread_plain);
    run = spread_run_of(&spread_plain, c, "grid_min_n=2 carrier=columns");
    run.rows = 2;
    check_dense(&run, &spread_plain);
  }
}
END_TEST

/* G of one layer and then of the other is zero: the identity. */
START_TEST(zero_factors) {
  for (int i = 0; i < 2 * size; i++) {
    spread_run run = spread_run_of(&spread_plain, i % size, i % 3 ? "grid_min_n=2" : "method=sre-kfac grid_min_n=2");
    run.is_dead_g[i / size] = true;
    check_dense(&run, &spread_plain);
  }
}
END_TEST

/* ---- whole factors ---- */

/* Twice, and with whole factors. */
static void check_whole(const char *more, int n_curvature) {
  char options[512];
  snprintf(options, sizeof options, "eig_rank=4 damping=0.1 exponent_a=0.5 exponent_g=0.5 %s", more);
  spread_run run = spread_run_of(&spread_plain, n_curvature, options);
  run.n_modes = SPREAD_ROWS;
  mpi_assert_msg(spread_all(&run, &V) == CURVD_OK, "%s", run.options);
  mpi_assert(spread_all(&run, &other) == CURVD_OK);
  mpi_assert_msg(memcmp(&V, &other, sizeof V) == 0, "%s: other bits the second time", run.options);
  check_same(&run);
  strcat(run.options, " grid_min_n=1000000");
  mpi_assert(spread_all(&run, &other) == CURVD_OK);
  double distance = rank == 0 ? spread_distance(&run, &V, &other) : 0;
  mpi_assert_msg(distance < 1e-4, "%s: %.1e", run.options, distance);
}

/* More modes than are kept: every tail, and the step as it is by default. */
START_TEST(directions_are_those_of_whole_factors_twice) {
  static const char *const options[] = {"method=kfac grid_min_n=2 damping_mode=product-max",
                                        "method=rs-kfac grid_min_n=100 tail=min",
                                        "method=sre-kfac grid_min_n=2 tail=zero grid_product=scalapack",
                                        "method=nystrom-kfac grid_min_n=2 tail=mean step=normalised momentum=0.9",
                                        "method=nystrom-kfac grid_min_n=2 tail=min range_finder=krylov",
                                        "method=nystrom-kfac grid_min_n=2 tail=mean missing_trace=0.5 eig_rank_min=2 "
                                        "eig_rank_max=12 drift_max=0.1 grid_product=scalapack"};
  for (int c = 0; c < size; c++) {
    for (size_t i = 0; i < COUNT(options); i++) {
      if (is_tried(c, i)) check_whole(options[i], c);
    }
  }
}
END_TEST

/* Refreshes seldom, and none where the old pairs still fit: the owners agree on it. */
START_TEST(refreshes_now_and_then) {
  for (int c = 0; c < size; c++) {
    check_whole("method=nystrom-kfac grid_min_n=2 tail=mean inv_update_steps=2 skip_error=0.2", c);
    check_whole("method=kfac grid_min_n=60 factor_update_steps=2 skip_error=1", c);
    check_whole("method=kfac grid_min_n=60 factor_update_steps=2 carrier=columns staleness=2", c);
  }
}
END_TEST

static Suite *make_suite(void) {
  const TTest *const tests[] = {every_method_gives_dense_kfac,
                                pieces_in_every_precision,
                                every_average_gives_dense_kfac,
                                workers_without_rows,
                                zero_factors,
                                refreshes_now_and_then,
                                directions_are_those_of_whole_factors_twice};
  size = spread_size();
  rank = spread_rank();
  return service_suite("spread factors", tests, COUNT(tests));
}

int main(int argc, char **argv) {
  return mpi_test_main(argc, argv, make_suite);
}
