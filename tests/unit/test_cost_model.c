/* model.h against numbers worked out by hand on a machine with round constants, and choices against all alternatives.
 */
#include "plan/model.h"

#include "suite.h"

#include <math.h>
#include <string.h>

/* 1 Gflop/s of products, half of that of outer products, 1 GB/s of copies, links of 1 us and 1 GB/s, 10 us and
 * 100 MB/s; 8 ranks a node; eigenproblems of 1 ns k^3 and 2 ns k^3. */
static const cv_plan_machine machine = {.gemm_flops_s = 1e9,
                                        .syrk_flops_s = 5e8,
                                        .copy_bytes_s = 1e9,
                                        .eig_f32 = {0, 1e-9},
                                        .eig_f64 = {0, 2e-9},
                                        .within = {1e-6, 1e9},
                                        .between = {1e-5, 1e8},
                                        .ranks_per_node = 8,
                                        .overlap = 0};

/* 4 workers, 2 curvature ranks, rank 20 with 5 more: k = 25 for triangles, 30 for sketches and columns. */
static cv_plan_run run_of(void) {
  cv_plan_run run = cv_plan_run_default;
  run.n_workers = 4;
  run.n_curvature = 2;
  run.batch_rows = 50;
  run.statistics_rows = 40;
  run.eig_rank = 20;
  run.oversampling = 5;
  run.grid_min_n = 0;
  return run;
}

static void check_near(double x, double expected) {
  ck_assert_msg(fabs(x - expected) <= 1e-12 * fabs(expected), "%.17g, expected %.17g", x, expected);
}

static const cv_plan_carrier carriers[] = {CV_PLAN_TRIANGLE, CV_PLAN_SKETCH, CV_PLAN_COLUMNS, CV_PLAN_LOCAL};

/* ---- sizes ---- */

START_TEST(floats_of_every_carrier) {
  cv_plan_run run = run_of();
  static const int64_t expected[] = {100 * 101 / 2 + 4, 40 * 100 + 4, 40 * 100 + 4, 0}; /* (30 + 10) n; 40 rows */
  for (int c = 0; c < CV_PLAN_CARRIERS; c++) {
    ck_assert_int_eq(cv_plan_statistic_floats(&run, 100, carriers[c], 0), expected[c]);
    ck_assert_int_eq(cv_plan_statistic_floats(&run, 100, carriers[c], 1), expected[c]);
  }
  run.statistics_rows = 7;
  ck_assert_int_eq(cv_plan_statistic_floats(&run, 100, CV_PLAN_COLUMNS, 0), 704);
}
END_TEST

/* 25 rows of a basis: 34 * 5 sqrt(roundings), 170 at a curvature rank that adds up two or three workers; 4 roundings of
 * 4 owning workers make it 340. */
START_TEST(what_travels_rounded) {
  cv_plan_run run = run_of();
  const cv_plan_route straight = CV_PLAN_TO_OWNER, riding = CV_PLAN_WITH_GRADIENTS;
  run.n_workers = 3, run.n_curvature = 1;
  ck_assert(!cv_plan_sends_bf16(&run, 1000, CV_PLAN_TRIANGLE, straight));
  ck_assert(!cv_plan_publishes_bf16(&run, CV_PLAN_TRIANGLE));
  run.is_bf16 = true;
  ck_assert(cv_plan_sends_bf16(&run, 170, CV_PLAN_TRIANGLE, straight));
  ck_assert(!cv_plan_sends_bf16(&run, 169, CV_PLAN_TRIANGLE, straight));
  ck_assert(cv_plan_sends_bf16(&run, 30, CV_PLAN_TRIANGLE, straight)); /* full */
  ck_assert(!cv_plan_sends_bf16(&run, 1000, CV_PLAN_TRIANGLE, riding));
  ck_assert(cv_plan_sends_bf16(&run, 40, CV_PLAN_COLUMNS, riding));
  ck_assert(!cv_plan_sends_bf16(&run, 5000, CV_PLAN_SKETCH, straight));
  ck_assert(!cv_plan_sends_bf16(&run, 1000, CV_PLAN_LOCAL, straight));
  ck_assert(!cv_plan_sends_bf16(&run, 1000, CV_PLAN_UNITS, straight));
  ck_assert(cv_plan_publishes_bf16(&run, CV_PLAN_COLUMNS) && cv_plan_publishes_bf16(&run, CV_PLAN_LOCAL));
  ck_assert(!cv_plan_publishes_bf16(&run, CV_PLAN_SKETCH) && !cv_plan_publishes_bf16(&run, CV_PLAN_UNITS));
  run.n_workers = 4, run.n_curvature = 0;
  ck_assert(cv_plan_sends_bf16(&run, 340, CV_PLAN_TRIANGLE, straight));
  ck_assert(!cv_plan_sends_bf16(&run, 339, CV_PLAN_TRIANGLE, straight));
  run.n_workers = 1;
  ck_assert(!cv_plan_sends_bf16(&run, 1000, CV_PLAN_COLUMNS, straight));
  ck_assert(!cv_plan_publishes_bf16(&run, CV_PLAN_TRIANGLE));
  run.n_workers = 2, run.is_inverse = true;
  ck_assert(!cv_plan_publishes_bf16(&run, CV_PLAN_TRIANGLE));
}
END_TEST

START_TEST(bytes_of_rounded_numbers) {
  cv_plan_run run = run_of();
  run.n_workers = 2, run.n_curvature = 1, run.is_bf16 = true;
  cv_plan_up up = cv_plan_up_bytes(&run, 200, CV_PLAN_TRIANGLE, CV_PLAN_TO_OWNER, 0);
  ck_assert(up.reduced == 2 * (200 * 201 / 2) + 16 && up.columns == 0 && up.summed == 0);
  up = cv_plan_up_bytes(&run, 200, CV_PLAN_COLUMNS, CV_PLAN_TO_OWNER, 0);
  ck_assert(up.reduced == 16 && up.columns == 2 * 40 * 200);
  ck_assert_int_eq(cv_plan_rounded(&run, 200, CV_PLAN_TRIANGLE, CV_PLAN_TO_OWNER, 0), 200 * 201 / 2);
  ck_assert_int_eq(cv_plan_rounded(&run, 200, CV_PLAN_COLUMNS, CV_PLAN_TO_OWNER, 0), 0);
  ck_assert_int_eq(cv_plan_refresh_bytes(&run, 200, CV_PLAN_TRIANGLE, 200), 4 * 20 + 2 * 20 * 200);
  ck_assert_int_eq(cv_plan_refresh_bytes(&run, 200, CV_PLAN_SKETCH, 200), 4 * 20 + 4 * 30 * 200);
  ck_assert_int_eq(cv_plan_pairs_bytes(&run, CV_PLAN_TRIANGLE, 3, 3, 5), 4 * 3 + 32); /* up to a float */
}
END_TEST

START_TEST(pairs_of_every_carrier) {
  cv_plan_run run = run_of();
  static const int64_t basis[] = {25, 30, 30, 25}, pairs[] = {20, 20, 20, 20};
  for (int c = 0; c < CV_PLAN_CARRIERS; c++) {
    ck_assert_int_eq(cv_plan_basis(&run, 100, carriers[c]), basis[c]);
    ck_assert_int_eq(cv_plan_pairs(&run, 100, carriers[c]), pairs[c]);
    ck_assert(!cv_plan_is_full(&run, 100, carriers[c]));
  }
  /* 25 is three quarters of 33.3, 30 of 40 */
  ck_assert(cv_plan_is_full(&run, 33, CV_PLAN_TRIANGLE) && !cv_plan_is_full(&run, 34, CV_PLAN_TRIANGLE));
  ck_assert(cv_plan_is_full(&run, 40, CV_PLAN_SKETCH) && !cv_plan_is_full(&run, 41, CV_PLAN_SKETCH));
  ck_assert_int_eq(cv_plan_pairs(&run, 33, CV_PLAN_TRIANGLE), 33);
  run.is_exact = true;
  ck_assert_int_eq(cv_plan_pairs(&run, 100, CV_PLAN_TRIANGLE), 100);
}
END_TEST

START_TEST(what_can_be_carried) {
  cv_plan_run run = run_of();
  ck_assert(cv_plan_can_carry(&run, 41, CV_PLAN_SKETCH) && cv_plan_can_carry(&run, 41, CV_PLAN_COLUMNS));
  ck_assert(!cv_plan_can_carry(&run, 40, CV_PLAN_SKETCH) && !cv_plan_can_carry(&run, 40, CV_PLAN_COLUMNS));
  ck_assert(cv_plan_can_carry(&run, 40, CV_PLAN_TRIANGLE));
  ck_assert(!cv_plan_can_carry(&run, 100, CV_PLAN_LOCAL)); /* no curvature rank has rows of its own */
  run.n_curvature = 0;
  ck_assert(cv_plan_can_carry(&run, 100, CV_PLAN_LOCAL));
  run.is_exact = true;
  ck_assert(!cv_plan_can_carry(&run, 100, CV_PLAN_SKETCH));
}
END_TEST

/* Blocks of 64 columns dealt out to 2 owners; a block goes from row 0 to its last column. n = 200: owner 0 has columns
 * 0 .. 63 and 128 .. 191, owner 1 has 64 .. 127 and 192 .. 199. */
START_TEST(spread_factors_come_in_blocks) {
  cv_plan_run run = run_of();
  run.grid_min_n = 200;
  ck_assert(cv_plan_is_spread(&run, 200, CV_PLAN_TRIANGLE) && !cv_plan_is_spread(&run, 199, CV_PLAN_TRIANGLE));
  ck_assert(!cv_plan_is_spread(&run, 200, CV_PLAN_SKETCH));
  ck_assert_int_eq(cv_plan_statistic_floats(&run, 200, CV_PLAN_TRIANGLE, 0), 64 * 64 + 192 * 64 + 4);
  ck_assert_int_eq(cv_plan_statistic_floats(&run, 200, CV_PLAN_TRIANGLE, 1), 128 * 64 + 200 * 8 + 4);
  run.n_curvature = 1; /* nobody to share with */
  ck_assert(!cv_plan_is_spread(&run, 200, CV_PLAN_TRIANGLE));
}
END_TEST

/* Column j of n lies in block j / 64 with owner (j / 64) % owners, and goes down to the block's last one. */
static int64_t counted_floats(int64_t n, int64_t owners, int64_t owner) {
  int64_t floats = 0;
  for (int64_t j = 0; j < n; j++) {
    int64_t block = j / 64, end = 64 * (block + 1);
    if (block % owners == owner) floats += end < n ? end : n;
  }
  return floats;
}

static cv_plan_run spread_run_of(int32_t owners, int64_t min_n) {
  cv_plan_run run = run_of();
  run.n_workers = owners;
  run.n_curvature = 0;
  run.grid_min_n = min_n;
  run.header_bytes = 1000;
  run.event_bytes = 8;
  return run;
}

static const int64_t spread_sizes[] = {64, 127, 200, 1000, 4097};
static const int32_t spread_owners[] = {2, 3, 7, 100};

START_TEST(blocks_of_many_owners) {
  for (int i = 0; i < 5 * 4; i++) {
    int64_t n = spread_sizes[i % 5], sum = 0;
    int32_t owners = spread_owners[i / 5];
    cv_plan_run run = spread_run_of(owners, n);
    for (int32_t o = 0; o < owners; o++) {
      ck_assert_int_eq(cv_plan_statistic_floats(&run, n, CV_PLAN_TRIANGLE, o), counted_floats(n, owners, o) + 4);
      sum += counted_floats(n, owners, o) + 4;
    }
    ck_assert(cv_plan_all_up_bytes(&run, n, CV_PLAN_TRIANGLE, CV_PLAN_TO_OWNER).reduced == 4 * (double)sum);
    ck_assert(cv_plan_all_up_bytes(&run, n, CV_PLAN_TRIANGLE, CV_PLAN_WITH_GRADIENTS).summed == 4 * (double)sum);
    run.spreads_rows = true; /* every owner has all rows */
    run.columns_store = CV_PLAN_FULL;
    cv_plan_up rows = cv_plan_all_up_bytes(&run, n, CV_PLAN_COLUMNS, CV_PLAN_TO_OWNER);
    ck_assert(rows.columns == owners * 160.0 * (double)n && rows.reduced == 16 * owners);
  }
}
END_TEST

/* One layer, A spread and G with owner 1: a rank sends blocks to all others, and G's triangle unless it is owner 1. It
 * receives a part of 25 pairs of A from every owner, the eigenvalues with each of them, a header and a list of events;
 * and from owner 1 its 25 pairs of G. */
START_TEST(ranks_of_spread_factors) {
  for (int i = 0; i < 5 * 4; i++) {
    int64_t n = spread_sizes[i % 5], bytes[CV_PLAN_TRAFFICS], held[CV_MEMORY_KINDS];
    int32_t owners = spread_owners[i / 5];
    const int32_t owner = 1, rank = owners - 1;
    cv_plan_run run = spread_run_of(owners, n);
    const cv_plan_layer layer = {60, n, false};
    const cv_plan_choice choice = {{CV_PLAN_TRIANGLE, CV_PLAN_TRIANGLE}, CV_PLAN_REPLICATED, CV_PLAN_TO_OWNER};
    const int32_t everywhere = -1;
    const cv_plan_layout layout = {&run, 1, &layer, &choice, &owner, &everywhere};
    cv_plan_traffic_of(&layout, rank, 1, bytes);
    int64_t sent = rank == 1 ? 0 : 60 * 61 / 2 + 4;
    for (int32_t o = 0; o < owners - 1; o++) sent += counted_floats(n, owners, o) + 4;
    ck_assert_int_eq(bytes[CV_PLAN_TRAFFIC_STATISTICS], 4 * sent);
    cv_plan_memory_of(&layout, rank, held);
    int64_t parcels = 4 * 25 * (n + owners) + 4 * 25 * 61 + owners * 1008, gradients = 4 * (60 * n + 1);
    ck_assert_int_eq(held[CV_MEMORY_TRANSFER], gradients + 4 * (60 * 61 / 2 + 4) + parcels + 4 * 64 * n);
  }
}
END_TEST

/* ---- transfers ---- */

/* Messages of 1 us and 1 ms, additions of 1.5 ms, copies of 1 ms. */
START_TEST(seconds_of_transfers) {
  const double us = 1e-6, ms = 1e-3;
  for (int kind = CV_PLAN_SUM; kind <= CV_PLAN_SEND; kind++)
    ck_assert(cv_plan_transfer_s(&machine, (cv_plan_transfer)kind, 1, 1e6) == 0);
  check_near(cv_plan_transfer_s(&machine, CV_PLAN_SUM, 2, 1e6), 2 * us + (2 + 1.5) * 0.5 * ms);
  check_near(cv_plan_transfer_s(&machine, CV_PLAN_SUM, 4, 1e6), 4 * us + (2 + 1.5) * 0.75 * ms);
  check_near(cv_plan_transfer_s(&machine, CV_PLAN_SUM, 5, 1e6), 6 * us + (2 + 1.5) * 0.8 * ms); /* three rounds */
  /* 123 pieces of at most 8192 bytes; halves, and quarters, and eighths, there and back */
  check_near(cv_plan_transfer_s(&machine, CV_PLAN_REDUCE, 2, 1e6), 246 * us + (1 + 1.5) * ms);
  check_near(cv_plan_transfer_s(&machine, CV_PLAN_REDUCE, 4, 1e6), 4 * us + (2 + 1.5) * 0.75 * ms);
  check_near(cv_plan_transfer_s(&machine, CV_PLAN_REDUCE, 8, 1e6), 6 * us + (2 + 1.5) * 0.875 * ms);
  /* of 3 ranks one shares with another first, half each way */
  check_near(cv_plan_transfer_s(&machine, CV_PLAN_REDUCE, 3, 1e6), 4 * us + 2 * (1 + 0.75) * ms);
  check_near(cv_plan_transfer_s(&machine, CV_PLAN_REDUCE, 2, 1e4), us + 0.025 * ms);
  check_near(cv_plan_transfer_s(&machine, CV_PLAN_REDUCE, 5, 1e4), 3 * us + 0.075 * ms);
  check_near(cv_plan_transfer_s(&machine, CV_PLAN_BROADCAST, 4, 1e6), 3 * us + 3 * ms);
  check_near(cv_plan_transfer_s(&machine, CV_PLAN_BROADCAST, 5, 1e6), 3 * us + 3 * ms);
  check_near(cv_plan_transfer_s(&machine, CV_PLAN_BROADCAST, 16, 1e6), 40 * us + 40 * ms); /* leaves the node */
  check_near(cv_plan_transfer_s(&machine, CV_PLAN_SEND, 4096, 1e6), 1e-5 + 1e-2);
  check_near(cv_plan_transfer_s(&machine, CV_PLAN_SEND, 8, 0), 1e-6);
}
END_TEST

/* n = 100, 4 workers and a curvature rank: 3 rounds of short messages. */
START_TEST(seconds_to_the_owner) {
  cv_plan_run run = run_of();
  double triangle = 4 * 5054, columns = 4 * 4000;
  cv_plan_up up = cv_plan_up_bytes(&run, 100, CV_PLAN_TRIANGLE, CV_PLAN_TO_OWNER, 0);
  ck_assert(up.reduced == triangle && up.summed == 0 && up.columns == 0);
  check_near(cv_plan_up_s(&machine, &run, &up), 3e-6 + 3 * 2.5 * triangle / 1e9);
  run.n_workers = 3; /* as they are, and two are added to the first */
  check_near(cv_plan_up_s(&machine, &run, &up), 3e-6 + (3 + 2 * 1.5) * triangle / 1e9);
  run.n_workers = 1;
  check_near(cv_plan_up_s(&machine, &run, &up), 1e-6 + triangle / 1e9);
  run.n_workers = 4;
  up = cv_plan_up_bytes(&run, 100, CV_PLAN_TRIANGLE, CV_PLAN_WITH_GRADIENTS, 0);
  ck_assert(up.reduced == 0 && up.summed == triangle && up.columns == 0);
  check_near(cv_plan_up_s(&machine, &run, &up), (2 + 1.5) * 0.75 * triangle / 1e9 + 1e-6 + triangle / 1e9);
  up = cv_plan_up_bytes(&run, 100, CV_PLAN_COLUMNS, CV_PLAN_TO_OWNER, 0);
  ck_assert(up.reduced == 16 && up.summed == 0 && up.columns == columns);
  check_near(cv_plan_up_s(&machine, &run, &up), 3e-6 + 3 * 2.5 * 16e-9 + 1e-6 + 4 * columns / 1e9); /* in turn */
  check_near(cv_plan_down_s(&machine, &run, 1e6), 3e-6 + 3e-3);
  run.n_curvature = 0; /* a worker has the sum already */
  up = cv_plan_up_bytes(&run, 100, CV_PLAN_TRIANGLE, CV_PLAN_WITH_GRADIENTS, 0);
  check_near(cv_plan_up_s(&machine, &run, &up), (2 + 1.5) * 0.75 * triangle / 1e9);
}
END_TEST

/* ---- stages ---- */

static cv_plan_cost factor_cost(const cv_plan_run *run, int64_t n, cv_plan_carrier carrier, cv_plan_stage stage) {
  cv_plan_cost cost[CV_PLAN_STAGES];
  cv_plan_factor_costs(&machine, run, n, carrier, cost);
  return cost[stage];
}

static void check_cost(cv_plan_cost cost, double flops, double seconds, double bytes) {
  check_near(cost.flops, flops);
  check_near(cost.seconds, seconds);
  check_near(cost.bytes, bytes);
}

START_TEST(stages_of_a_triangle) {
  cv_plan_run run = run_of();
  run.products = 3;
  double whole = 3 * 2 * 1e4 * 25, thin = 10 * 100 * 625, refresh = whole + thin, small = 9 * 15625;
  double certificate = 2e4 * 10 / 1e9 + 4 * 5000 / 1e9; /* 10 probes, and half of the matrix mirrored */
  check_cost(factor_cost(&run, 100, CV_PLAN_TRIANGLE, CV_PLAN_CAPTURE), 40 * 100 * 101, 404000 / 5e8, 0);
  check_cost(factor_cost(&run, 100, CV_PLAN_TRIANGLE, CV_PLAN_STATISTICS), 0, 20200e-9, 20216);
  check_cost(factor_cost(&run, 100, CV_PLAN_TRIANGLE, CV_PLAN_AVERAGE), 15150, 1.5 * 20200e-9, 0);
  check_cost(factor_cost(&run, 100, CV_PLAN_TRIANGLE, CV_PLAN_REFRESH), refresh + small,
             (whole + 1.7 * thin) / 1e9 + certificate + 2e-9 * 15625, 0);
  check_cost(factor_cost(&run, 100, CV_PLAN_TRIANGLE, CV_PLAN_PUBLISH), 0, 8080e-9, 8080); /* 20 pairs of 101 */
  check_cost(factor_cost(&run, 100, CV_PLAN_TRIANGLE, CV_PLAN_RECEIVE), 0, 8080e-9, 8080);
  check_near(refresh + small, cv_plan_refresh_flops(100, 25, 2, false)); /* one unit with the owners' loads */
  run.is_exact = true;
  check_cost(factor_cost(&run, 100, CV_PLAN_TRIANGLE, CV_PLAN_REFRESH), 9e6, 1e-3, 0);
  check_cost(factor_cost(&run, 100, CV_PLAN_TRIANGLE, CV_PLAN_PUBLISH), 0, 40400e-9, 40400);
}
END_TEST

START_TEST(stages_of_a_sketch) {
  cv_plan_run run = run_of();
  check_cost(factor_cost(&run, 100, CV_PLAN_SKETCH, CV_PLAN_CAPTURE), 4.0 * 40 * 100 * 40, 640000e-9, 0);
  check_cost(factor_cost(&run, 100, CV_PLAN_SKETCH, CV_PLAN_STATISTICS), 0, 16000e-9, 16016);
  check_cost(factor_cost(&run, 100, CV_PLAN_SKETCH, CV_PLAN_AVERAGE), 12000, 24000e-9, 0);
  /* finish 10 n k k in 1.7 times its flops' time, new seed 4 n k k, small problem */
  check_cost(factor_cost(&run, 100, CV_PLAN_SKETCH, CV_PLAN_REFRESH), 14.0 * 100 * 900 + 9 * 27000,
             (17.0 + 4) * 100 * 900e-9 + 2e-9 * 27000, 0);
  check_cost(factor_cost(&run, 100, CV_PLAN_SKETCH, CV_PLAN_PUBLISH), 0, 12080e-9,
             12080); /* 30 rows, 20 of them pairs */
}
END_TEST

/* 160 rows of all workers in blocks of 64: 2.5 updates of (30 + 64)^3. */
START_TEST(stages_of_columns) {
  cv_plan_run run = run_of();
  double one = 4.0 * 100 * 30 * 64 + 2.0 * 100 * 64 * 64 + 2.0 * 100 * 30 * 94, cube = 94.0 * 94 * 94;
  check_cost(factor_cost(&run, 100, CV_PLAN_COLUMNS, CV_PLAN_CAPTURE), 0, 16000e-9, 0);
  check_cost(factor_cost(&run, 100, CV_PLAN_COLUMNS, CV_PLAN_STATISTICS), 0, 16000e-9, 16016);
  check_cost(factor_cost(&run, 100, CV_PLAN_COLUMNS, CV_PLAN_AVERAGE), 2.5 * (one + 9 * cube),
             2.5 * (one / 1e9 + 2e-9 * cube), 0);
  check_cost(factor_cost(&run, 100, CV_PLAN_COLUMNS, CV_PLAN_REFRESH), 0, 0, 0);
  run.statistics_rows = 0;
  check_cost(factor_cost(&run, 100, CV_PLAN_COLUMNS, CV_PLAN_AVERAGE), 0, 0, 0);
}
END_TEST

/* Columns of which the owner keeps the average, k = 25: outer products of the rows of all 4 workers, a refresh as of a
 * triangle. As a sketch, k = 30 and 10 probes: 4 flops a row, number and pair; a refresh as of a sketch. */
START_TEST(stages_of_columns_by_store) {
  cv_plan_run run = run_of(), small = run_of();
  cv_plan_cost of_triangle = factor_cost(&run, 100, CV_PLAN_TRIANGLE, CV_PLAN_REFRESH),
               of_sketch = factor_cost(&run, 100, CV_PLAN_SKETCH, CV_PLAN_REFRESH);
  run.columns_store = CV_PLAN_STREAM;
  ck_assert_int_eq(cv_plan_pairs(&run, 100, CV_PLAN_COLUMNS), 20);
  check_cost(factor_cost(&run, 100, CV_PLAN_COLUMNS, CV_PLAN_CAPTURE), 0, 16000e-9, 0);
  check_cost(factor_cost(&run, 100, CV_PLAN_COLUMNS, CV_PLAN_AVERAGE), 4.0 * 160 * 100 * 40, 2560000 / 1e9, 0);
  check_cost(factor_cost(&run, 100, CV_PLAN_COLUMNS, CV_PLAN_REFRESH), of_sketch.flops, of_sketch.seconds, 0);
  check_cost(factor_cost(&run, 100, CV_PLAN_COLUMNS, CV_PLAN_PUBLISH), 0, 8080e-9, 8080); /* no seed for workers */
  run.columns_store = CV_PLAN_FULL;
  run.stream_oversampling = 5;
  check_cost(factor_cost(&run, 100, CV_PLAN_COLUMNS, CV_PLAN_STATISTICS), 0, 16000e-9, 16016);
  check_cost(factor_cost(&run, 100, CV_PLAN_COLUMNS, CV_PLAN_AVERAGE), 160.0 * 100 * 101, 1616000 / 5e8, 0);
  check_cost(factor_cost(&run, 100, CV_PLAN_COLUMNS, CV_PLAN_REFRESH), of_triangle.flops, of_triangle.seconds, 0);
  small.columns_store = CV_PLAN_STREAM; /* 30 pairs of 40 are all: the average is kept, and decomposed exactly */
  ck_assert_int_eq(cv_plan_store_of(&small, 40, CV_PLAN_COLUMNS), CV_PLAN_FULL);
  check_cost(factor_cost(&small, 40, CV_PLAN_COLUMNS, CV_PLAN_AVERAGE), 160.0 * 40 * 41, 262400 / 5e8, 0);
  check_cost(factor_cost(&small, 40, CV_PLAN_COLUMNS, CV_PLAN_REFRESH), 9.0 * 64000, 64e-6, 0);
  /* spread over 2 owners: all have all rows, and each multiplies for its blocks */
  run.grid_min_n = 200;
  run.spreads_rows = true;
  double floats = 64 * 64 + 192 * 64 + 128 * 64 + 200 * 8;
  check_cost(factor_cost(&run, 200, CV_PLAN_COLUMNS, CV_PLAN_STATISTICS), 0, 4 * 2 * 40 * 200e-9, 4 * 2 * (8000 + 4));
  check_cost(factor_cost(&run, 200, CV_PLAN_COLUMNS, CV_PLAN_AVERAGE), 160 * floats, 160 * floats / 1e9, 0);
}
END_TEST

/* Owners' own 40 rows, whatever the others have. */
START_TEST(stages_of_local_rows) {
  cv_plan_run run = run_of();
  run.n_curvature = 0;
  run.local_store = CV_PLAN_STREAM;
  ck_assert_int_eq(cv_plan_basis(&run, 100, CV_PLAN_LOCAL), 30);
  check_cost(factor_cost(&run, 100, CV_PLAN_LOCAL, CV_PLAN_CAPTURE), 0, 16000e-9, 0);
  check_cost(factor_cost(&run, 100, CV_PLAN_LOCAL, CV_PLAN_AVERAGE), 4.0 * 40 * 100 * 40, 640000 / 1e9, 0);
  check_cost(factor_cost(&run, 100, CV_PLAN_LOCAL, CV_PLAN_REFRESH), 14.0 * 100 * 900 + 9 * 27000,
             (17.0 + 4) * 100 * 900e-9 + 2e-9 * 27000, 0);
  run.local_store = CV_PLAN_ONLINE; /* k = 25, one block of all 40 rows */
  double one = 4.0 * 100 * 25 * 40 + 2.0 * 100 * 40 * 40 + 2.0 * 100 * 25 * 65, cube = 65.0 * 65 * 65;
  check_cost(factor_cost(&run, 100, CV_PLAN_LOCAL, CV_PLAN_AVERAGE), one + 9 * cube, one / 1e9 + 2e-9 * cube, 0);
  check_cost(factor_cost(&run, 100, CV_PLAN_LOCAL, CV_PLAN_REFRESH), 0, 0, 0);
}
END_TEST

START_TEST(stages_of_a_local_factor) {
  cv_plan_run run = run_of();
  run.n_curvature = 0;
  check_cost(factor_cost(&run, 100, CV_PLAN_LOCAL, CV_PLAN_CAPTURE), 404000, 404000 / 5e8, 0);
  check_cost(factor_cost(&run, 100, CV_PLAN_LOCAL, CV_PLAN_STATISTICS), 0, 0, 0);
  check_cost(factor_cost(&run, 100, CV_PLAN_LOCAL, CV_PLAN_AVERAGE), 15150, 1.5 * 20200e-9, 0);
}
END_TEST

/* n = 200 over 2 owners, 26176 floats in blocks: the work is halved, but for the small problem, and each owner sends
 * its half of the columns with all eigenvalues. */
START_TEST(stages_of_a_spread_factor) {
  cv_plan_run run = run_of();
  run.grid_min_n = 200;
  double floats = 64 * 64 + 192 * 64 + 128 * 64 + 200 * 8;
  check_cost(factor_cost(&run, 200, CV_PLAN_TRIANGLE, CV_PLAN_CAPTURE), 0, 4 * 40 * 200e-9, 0);
  check_cost(factor_cost(&run, 200, CV_PLAN_TRIANGLE, CV_PLAN_STATISTICS), 2 * 40 * floats, 80 * floats / 1e9,
             4 * (floats + 8));
  check_cost(factor_cost(&run, 200, CV_PLAN_TRIANGLE, CV_PLAN_AVERAGE), 3 * floats / 2, 1.5 * 2e-9 * floats, 0);
  check_near(factor_cost(&run, 200, CV_PLAN_TRIANGLE, CV_PLAN_REFRESH).flops, 4e4 * 25 + 5 * 200 * 625 + 9 * 15625);
  check_cost(factor_cost(&run, 200, CV_PLAN_TRIANGLE, CV_PLAN_PUBLISH), 0, 8080e-9, 8080);
  check_cost(factor_cost(&run, 200, CV_PLAN_TRIANGLE, CV_PLAN_RECEIVE), 0, 16160e-9, 16160);
}
END_TEST

static void check_layer(cv_plan_run run, cv_plan_choice choice, double project, double apply) {
  const cv_plan_layer layer = {60, 100, false};
  cv_plan_cost cost[CV_PLAN_STAGES];
  cv_plan_layer_costs(&machine, &run, &layer, &choice, cost);
  check_cost(cost[CV_PLAN_TRAIN], 6 * 50 * 6000, 1.8e-3, 0);
  check_cost(cost[CV_PLAN_GRADIENTS], 0, 24000e-9, 24000);
  check_cost(cost[CV_PLAN_MOMENTUM], 18000, 36000e-9, 0);
  check_cost(cost[CV_PLAN_PROJECT], project, project / 1e9, 0);
  check_cost(cost[CV_PLAN_APPLY], apply + 18000, apply / 1e9 + 36000e-9, 0);
}

/* n n n flops at 1 / 0.64 of the products' speed, and 22 copies; half of the matrix is sent; one product a side. */
START_TEST(stages_of_an_inverse) {
  cv_plan_run run = run_of();
  const cv_plan_layer layer = {60, 100, false};
  const cv_plan_choice choice = {{CV_PLAN_TRIANGLE, CV_PLAN_TRIANGLE}, CV_PLAN_REPLICATED, CV_PLAN_TO_OWNER};
  const int32_t owner = 0;
  const int32_t everywhere = -1;
  const cv_plan_layout layout = {&run, 1, &layer, &choice, &owner, &everywhere};
  int64_t bytes[CV_PLAN_TRAFFICS], held[CV_MEMORY_KINDS];
  run.is_exact = run.is_inverse = true;
  check_cost(factor_cost(&run, 100, CV_PLAN_TRIANGLE, CV_PLAN_REFRESH), 1e6, 0.64e-3 + 22 * 40000e-9, 0);
  check_cost(factor_cost(&run, 100, CV_PLAN_TRIANGLE, CV_PLAN_PUBLISH), 0, 20200e-9, 20200);
  check_cost(factor_cost(&run, 100, CV_PLAN_COLUMNS, CV_PLAN_REFRESH), 1e6, 0.64e-3 + 22 * 40000e-9, 0);
  check_layer(run, choice, 2 * 6000 * 160, 0);
  cv_plan_traffic_of(&layout, 4, 1, bytes);
  ck_assert_int_eq(bytes[CV_PLAN_TRAFFIC_PRECONDITIONERS], 4 * (5050 + 1830));
  cv_plan_memory_of(&layout, 0, held);
  ck_assert_int_eq(held[CV_MEMORY_PRECONDITIONER], 4 * (10000 + 3600));
}
END_TEST

/* m = 60, n = 100: 20 pairs a side, by sketch, too. */
START_TEST(stages_of_a_layer) {
  cv_plan_run run = run_of(), exact = run_of();
  double core = 2 * 20 * 20 * 160, half = 2 * 6000 * 40 + core / 2;
  exact.is_exact = true;
  check_layer(run, (cv_plan_choice){{CV_PLAN_TRIANGLE, CV_PLAN_TRIANGLE}, CV_PLAN_REPLICATED, CV_PLAN_TO_OWNER}, half,
              half);
  check_layer(run, (cv_plan_choice){{CV_PLAN_TRIANGLE, CV_PLAN_TRIANGLE}, CV_PLAN_SHARDED, CV_PLAN_TO_OWNER}, half,
              half);
  check_layer(run, (cv_plan_choice){{CV_PLAN_SKETCH, CV_PLAN_TRIANGLE}, CV_PLAN_REPLICATED, CV_PLAN_TO_OWNER}, half,
              half);
  /* 50 rows on their own sides: 4 rows (100 20 + 60 20), or 2 rows (100^2 + 60^2) */
  check_layer(run, (cv_plan_choice){{CV_PLAN_TRIANGLE, CV_PLAN_TRIANGLE}, CV_PLAN_FACTORED, CV_PLAN_TO_OWNER},
              4 * 50 * 3200, 0);
  check_layer(exact, (cv_plan_choice){{CV_PLAN_TRIANGLE, CV_PLAN_TRIANGLE}, CV_PLAN_FACTORED, CV_PLAN_TO_OWNER},
              2 * 50 * 13600, 0);
  check_layer(exact, (cv_plan_choice){{CV_PLAN_TRIANGLE, CV_PLAN_TRIANGLE}, CV_PLAN_REPLICATED, CV_PLAN_TO_OWNER},
              4 * 6000 * 160, 0);
}
END_TEST

START_TEST(one_worker_sums_nothing) {
  cv_plan_run run = run_of();
  const cv_plan_layer layer = {60, 100, true};
  const cv_plan_choice choice = {{CV_PLAN_TRIANGLE, CV_PLAN_TRIANGLE}, CV_PLAN_REPLICATED, CV_PLAN_TO_OWNER};
  cv_plan_cost cost[CV_PLAN_STAGES];
  run.n_workers = 1;
  cv_plan_layer_costs(&machine, &run, &layer, &choice, cost);
  check_cost(cost[CV_PLAN_GRADIENTS], 0, 0, 0);
  check_cost(cost[CV_PLAN_PROJECT], 0, 0, 0); /* a skipped layer only moves */
  check_cost(cost[CV_PLAN_APPLY], 18000, 36000e-9, 0);
}
END_TEST

/* ---- what a way costs ---- */

/* The sum that cv_plan_factor_seconds is documented to be, written down once more from its public parts; no transfer is
 * hidden here. */
static double way_seconds(const cv_plan_run *run, int64_t n, cv_plan_carrier carrier, cv_plan_route route) {
  cv_plan_cost cost[CV_PLAN_STAGES];
  cv_plan_up up = cv_plan_up_bytes(run, n, carrier, route, 0);
  double captures = carrier == CV_PLAN_LOCAL ? run->n_workers : 1, owners = cv_plan_owner_count(run);
  cv_plan_factor_costs(&machine, run, n, carrier, cost);
  double statistic = cost[CV_PLAN_CAPTURE].seconds / captures + cost[CV_PLAN_STATISTICS].seconds +
                     cv_plan_up_s(&machine, run, &up) + cost[CV_PLAN_AVERAGE].seconds / owners;
  double refresh = (cost[CV_PLAN_REFRESH].seconds + cost[CV_PLAN_PUBLISH].seconds) / owners +
                   cv_plan_down_s(&machine, run, cost[CV_PLAN_PUBLISH].bytes) + cost[CV_PLAN_RECEIVE].seconds;
  return statistic / (double)run->factor_update_steps + refresh / (double)run->inv_update_steps;
}

START_TEST(seconds_of_every_way) {
  static const int64_t sizes[] = {10, 35, 60, 400, 5000};
  for (int i = 0; i < 5 * 4 * 2 * 2; i++) {
    cv_plan_run run = run_of();
    int64_t n = sizes[i % 5];
    cv_plan_carrier carrier = carriers[i / 5 % 4];
    cv_plan_route route = (cv_plan_route)(i / 20 % 2);
    if (i / 40 == 1) run.n_curvature = 0;
    run.factor_update_steps = 1 + i % 7;
    if (!cv_plan_can_carry(&run, n, carrier)) continue;
    check_near(cv_plan_factor_seconds(&machine, &run, n, carrier, route), way_seconds(&run, n, carrier, route));
  }
}
END_TEST

/* Of a spread factor, transfers of blocks are seen whole, those of rows are not; refreshes are left out. */
START_TEST(blocks_are_waited_for) {
  cv_plan_run run = spread_run_of(3, 200);
  cv_plan_machine hides = machine;
  hides.overlap = 0.9;
  run.columns_store = CV_PLAN_FULL;
  run.spreads_rows = true;
  run.factor_update_steps = 1;
  run.inv_update_steps = 1000000000000;
  for (int c = 0; c < 2; c++) {
    cv_plan_carrier carrier = c == 0 ? CV_PLAN_TRIANGLE : CV_PLAN_COLUMNS;
    cv_plan_up up = cv_plan_up_bytes(&run, 400, carrier, CV_PLAN_TO_OWNER, 0);
    double shown = cv_plan_factor_seconds(&machine, &run, 400, carrier, CV_PLAN_TO_OWNER),
           less = shown - cv_plan_factor_seconds(&hides, &run, 400, carrier, CV_PLAN_TO_OWNER),
           expected = c == 0 ? 0 : 0.9 * 3 * cv_plan_up_s(&machine, &run, &up);
    ck_assert(fabs(less - expected) < 1e-9 * shown);
  }
}
END_TEST

/* ---- who applies what ---- */

enum { MOST = 4, WORKERS_MOST = 512 };
static cv_plan_choice chosen[MOST];
static int32_t shard_of[MOST];

static void choose_applies(const cv_plan_run *run, int32_t n, const cv_plan_layer *layer) {
  static double flops[MOST], cost[MOST], load[WORKERS_MOST];
  static int32_t order[2 * MOST];
  cv_plan_draft draft = {n, layer, chosen, shard_of, flops, cost, load, order};
  memset(chosen, 0, sizeof chosen);
  cv_plan_choose_applies(run, &draft);
  for (int32_t i = 0; i < n; i++) ck_assert_int_eq(chosen[i].apply == CV_PLAN_SHARDED, shard_of[i] >= 0);
}

/* By the default machine, of an exact layer: 4 m n (m + n) flops, and two passes over its weights at 8 GB/s, of which
 * each reads twice and writes once; one more pass writes a sharded layer out. */
static double pass_s(const cv_plan_layer *layer) {
  return 1.5 * 4 * (double)(layer->m * layer->n) / 8e9;
}

static double whole_s(const cv_plan_layer *layer) {
  double flops = 4.0 * (double)(layer->m * layer->n * (layer->m + layer->n));
  return (layer->is_skipped ? 0 : flops / 1.2e11) + 2 * pass_s(layer);
}

/* What it costs as it is dealt out; short sums of W ranks on a node take 2 log2 W times 2 us. */
static double shared_s(int32_t n, const cv_plan_layer *layer, int32_t workers) {
  double load[WORKERS_MOST] = {0}, busiest = 0, sum = 0;
  int n_own = 0;
  for (int32_t i = 0; i < n; i++) {
    sum += shard_of[i] < 0 ? whole_s(&layer[i]) : pass_s(&layer[i]);
    n_own += shard_of[i] >= 0;
    if (shard_of[i] >= 0) load[shard_of[i]] += whole_s(&layer[i]);
  }
  for (int32_t w = 0; w < workers; w++) busiest = fmax(busiest, load[w]);
  return sum + busiest + (n_own == n ? 3 : 4) * 2 * ceil(log2(workers)) * 2e-6;
}

static void check_applies(int32_t workers, int32_t n, const cv_plan_layer *layer, int n_own) {
  cv_plan_run run = cv_plan_run_default;
  int found = 0;
  double replicated = 0;
  run.is_exact = true;
  run.n_workers = workers;
  choose_applies(&run, n, layer);
  for (int32_t i = 0; i < n; i++) {
    ck_assert(shard_of[i] >= -1 && shard_of[i] < workers);
    found += shard_of[i] >= 0;
    replicated += whole_s(&layer[i]);
  }
  ck_assert_msg(found == n_own, "%d workers: %d of %d layers are sharded, not %d", (int)workers, found, (int)n, n_own);
  ck_assert(found == 0 || shared_s(n, layer, workers) < replicated);
}

START_TEST(layers_are_shared_where_that_pays) {
  const cv_plan_layer equal[] = {{500, 500, false}, {500, 500, false}, {500, 500, false}, {500, 500, false}};
  check_applies(1, 4, equal, 0);
  check_applies(2, 4, equal, 4);
  ck_assert(shard_of[0] + shard_of[1] + shard_of[2] + shard_of[3] == 2); /* two each */
  check_applies(4, 4, equal, 4);
  check_applies(9, 4, equal, 4);
  check_applies(2, 1, equal, 0); /* one alone makes others wait */
  check_applies(9, 1, equal, 0);
  /* three short sums take 12 us; sharing saves 7 us less 2 us for writing out, or 137 us less 22 us */
  const cv_plan_layer small[] = {{40, 40, false}, {40, 40, false}}, larger[] = {{120, 120, false}, {120, 120, false}};
  check_applies(2, 2, small, 0);
  check_applies(2, 2, larger, 2);
  check_applies(512, 2, larger, 0); /* 1.6 ms between nodes */
  const cv_plan_layer mixed[] = {{500, 500, false}, {500, 500, true}, {500, 500, false}};
  check_applies(2, 3, mixed, 2);
  ck_assert_int_eq(shard_of[1], -1);
  /* the short one is over long before the long one is */
  const cv_plan_layer uneven[] = {{1500, 1500, false}, {40, 40, false}};
  check_applies(2, 2, uneven, 0);
}
END_TEST

/* With momentum of the caller a gradient is only looked at, 0.8 of a copy: pairs decide. */
START_TEST(few_pairs_are_not_worth_sharing) {
  const cv_plan_layer layer[] = {{2000, 2000, false}, {2000, 2000, false}};
  cv_plan_run run = cv_plan_run_default;
  run.n_workers = 2;
  run.momentum_is_callers = true;
  run.oversampling = 0;
  for (int64_t rank = 1; rank < 12; rank++) {
    run.eig_rank = rank;
    choose_applies(&run, 2, layer);
    double pairs = 2 * (double)rank, weights = 4e6,
           work = (4 * weights * pairs + 2 * (double)(rank * rank) * 4000) / 1.2e11 + (0.8 + 1.5) * 4 * weights / 8e9,
           write = 1.5 * 4 * weights / 8e9;
    ck_assert_int_eq(shard_of[0] >= 0, work - 2 * write > 30e-6); /* of both, half of it, less three short sums */
  }
}
END_TEST

/* 2^31 - 1 floats fit: three layers of 6.25e8. */
START_TEST(what_does_not_fit_into_a_gather_is_replicated) {
  const cv_plan_layer huge[] = {
      {25000, 25000, false}, {25000, 25000, false}, {25000, 25000, false}, {25000, 25000, false}};
  check_applies(3, 4, huge, 3);
  ck_assert_int_eq(shard_of[3], -1);
}
END_TEST

/* ---- ranks ---- */

/* Two layers: (60, 100) of owner 1, (50, 80) of owner 0; 4 workers, 2 curvature ranks; statistics in steps 0, 2, 4, 6,
 * refreshes in steps 0, 3, 6: 5 of 7 steps tell something, and the end. A service of today is in test_plan_bytes.c. */
START_TEST(traffic_of_other_carriers) {
  cv_plan_run run = run_of();
  const cv_plan_layer layer[] = {{60, 100, false}, {50, 80, false}};
  const cv_plan_choice choice[] = {{{CV_PLAN_SKETCH, CV_PLAN_COLUMNS}, CV_PLAN_REPLICATED, CV_PLAN_TO_OWNER},
                                   {{CV_PLAN_TRIANGLE, CV_PLAN_SKETCH}, CV_PLAN_SHARDED, CV_PLAN_WITH_GRADIENTS}};
  const int32_t owner[] = {1, 0};
  const int32_t shard[] = {-1, 3};
  const cv_plan_layout layout = {&run, 2, layer, choice, owner, shard};
  int64_t bytes[CV_PLAN_TRAFFICS], own = 40 * 100 + 4 + 40 * 60 + 4 + 2 /* rows, and a count of 8 bytes */,
                                   riding = 80 * 81 / 2 + 4 + 40 * 50 + 4;
  run.factor_update_steps = 2;
  run.inv_update_steps = 3;
  run.header_bytes = 1000;
  run.event_bytes = 8;
  for (int32_t rank = 0; rank < 4; rank++) {
    cv_plan_traffic_of(&layout, rank, 7, bytes);
    /* gathered from 3; a vote's place lies before statistics that ride */
    ck_assert_int_eq(bytes[CV_PLAN_TRAFFIC_GRADIENTS], 7 * 4 * (6000 + (rank == 3 ? 8000 : 4000)) + 4 * 4);
    ck_assert_int_eq(bytes[CV_PLAN_TRAFFIC_STATISTICS], 4 * 4 * (own + riding * (rank == 0 ? 2 : 1)));
    ck_assert_int_eq(bytes[CV_PLAN_TRAFFIC_PRECONDITIONERS], 0);
    ck_assert_int_eq(bytes[CV_PLAN_TRAFFIC_CONTROL], rank == 0 ? 2 * 8 * (5 + 1) : 0);
  }
  cv_plan_traffic_of(&layout, 4, 7, bytes);
  ck_assert_int_eq(bytes[CV_PLAN_TRAFFIC_PRECONDITIONERS], 3 * (1008 + 4 * (20 * 81 + 30 * 50 + 20)));
  ck_assert_int_eq(bytes[CV_PLAN_TRAFFIC_STATISTICS] + bytes[CV_PLAN_TRAFFIC_GRADIENTS], 0);
  cv_plan_traffic_of(&layout, 5, 7, bytes);
  ck_assert_int_eq(bytes[CV_PLAN_TRAFFIC_PRECONDITIONERS], 3 * (1008 + 4 * (30 * 100 + 20 + 20 * 61)));
}
END_TEST

/* A sketch needs no n x n matrix anywhere, columns none but the pairs. */
START_TEST(memory_of_other_carriers) {
  cv_plan_run run = run_of();
  const cv_plan_layer layer = {60, 5000, false};
  cv_plan_choice choice = {{CV_PLAN_SKETCH, CV_PLAN_COLUMNS}, CV_PLAN_REPLICATED, CV_PLAN_TO_OWNER};
  const int32_t owner = 1, shard = -1;
  const cv_plan_layout layout = {&run, 1, &layer, &choice, &owner, &shard};
  int64_t bytes[CV_MEMORY_KINDS];
  cv_plan_memory_of(&layout, 0, bytes);
  ck_assert_int_eq(bytes[CV_MEMORY_STATISTICS], 4 * (120 * 5000 + 1024 * 60)); /* sketch and its seed; room */
  ck_assert_int_eq(bytes[CV_MEMORY_FACTORS], 0);
  ck_assert_int_eq(bytes[CV_MEMORY_MOMENTUM], 4 * 300000);
  ck_assert_int_eq(bytes[CV_MEMORY_PRECONDITIONER], 4 * (60 * 5000 + 60 * 60 + 60 + 31 * 31));
  cv_plan_memory_of(&layout, 5, bytes);
  ck_assert_int_eq(bytes[CV_MEMORY_FACTORS], 4 * (80 * 5000 + 40 * 5000 + 30 + 40 * 60 + 30));
  ck_assert_int_eq(bytes[CV_MEMORY_FACTORS], cv_plan_factor_bytes(&run, &layer, &choice));
  cv_plan_memory_of(&layout, 4, bytes);
  for (int i = 0; i < CV_MEMORY_KINDS; i++) ck_assert_int_eq(bytes[i], 0); /* owns nothing */
  choice.carrier[CV_PLAN_A] = CV_PLAN_TRIANGLE;
  ck_assert_int_ge(cv_plan_factor_bytes(&run, &layer, &choice), 4 * (int64_t)5000 * 5000);
}
END_TEST

int main(void) {
  const TTest *const tests[] = {floats_of_every_carrier,
                                what_travels_rounded,
                                bytes_of_rounded_numbers,
                                pairs_of_every_carrier,
                                what_can_be_carried,
                                spread_factors_come_in_blocks,
                                blocks_of_many_owners,
                                ranks_of_spread_factors,
                                seconds_of_transfers,
                                seconds_to_the_owner,
                                stages_of_a_triangle,
                                stages_of_a_sketch,
                                stages_of_columns,
                                stages_of_columns_by_store,
                                stages_of_local_rows,
                                stages_of_an_inverse,
                                stages_of_a_local_factor,
                                stages_of_a_spread_factor,
                                stages_of_a_layer,
                                one_worker_sums_nothing,
                                seconds_of_every_way,
                                blocks_are_waited_for,
                                layers_are_shared_where_that_pays,
                                few_pairs_are_not_worth_sharing,
                                what_does_not_fit_into_a_gather_is_replicated,
                                traffic_of_other_carriers,
                                memory_of_other_carriers};
  return suite_run("cost model", tests, sizeof tests / sizeof tests[0], NULL);
}
