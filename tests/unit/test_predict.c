/* predict.h: small runs worked out by hand, limits in which the best run is known, and the size it is made for. */
#include "plan_fixture.h"
#include "suite.h"

#include <math.h>

enum { MANY = 200 };

static cv_memory memory;

/* Nothing takes time but what a test asks for. */
static const cv_plan_machine endless = {.gemm_flops_s = 1e30,
                                        .syrk_flops_s = 1e30,
                                        .copy_bytes_s = 1e30,
                                        .within = {0, 1e30},
                                        .between = {0, 1e30},
                                        .ranks_per_node = 8,
                                        .overlap = 1};

static void check_near(double x, double expected) {
  ck_assert_msg(fabs(x - expected) <= 1e-11 * fabs(expected), "%.17g, expected %.17g", x, expected);
}

/* A factor of 10 is full, one of 100 gets 20 pairs of 25. */
static cv_predict_case case_of(const cv_plan_machine *machine, int32_t n_layers, const cv_plan_layer *layer) {
  cv_predict_case given = {machine, cv_plan_run_default, n_layers, layer, 0, plan_choose_alike, &plan_triangles};
  given.run.eig_rank = 20;
  given.run.oversampling = 5;
  given.run.batch_rows = 50;
  given.run.statistics_rows = 40;
  given.run.grid_min_n = 0;
  return given;
}

static cv_prediction predicted(const cv_predict_case *given) {
  cv_prediction p;
  cv_error err = {0};
  ck_assert_msg(cv_predict(given, &memory, &p, &err) == CURVD_OK, "%s", err.text);
  return p;
}

static void release(cv_prediction *p) {
  cv_prediction_free(p, &memory);
  for (int i = 0; i < CV_MEMORY_KINDS; i++) ck_assert_int_eq(memory.bytes[i], 0);
}

/* ---- one run ---- */

/* One worker that owns: all it does, one after the other; nothing is sent. m = 60, n = 100 at 1 Gflop/s, 1 GB/s. */
START_TEST(one_rank_does_all) {
  const cv_plan_layer layer = {60, 100, false};
  cv_plan_machine machine = {1e9, 5e8, 1e9, {0, 1e-9}, {0, 2e-9}, {1, 1}, {1, 1}, 8, 0.3};
  cv_predict_case given = case_of(&machine, 1, &layer);
  given.run.factor_update_steps = 5;
  given.run.inv_update_steps = 10;
  double capture = 40 * (100 * 101 + 60 * 61) / 5e8, triangles = 4 * (5050 + 1830) / 1e9;
  double refresh = (2e4 * 25 + 1700 * 625 + 2 * 3600 * 25 + 1020 * 625) / 1e9 + 2 * 2e-9 * 15625 +
                   (2e4 + 7200) * 10 / 1e9 + 2 * (10000 + 3600) / 1e9; /* and certificates */
  double pairs = 4 * 20 * (101 + 61) / 1e9, train = 6 * 50 * 6000 / 1e9, pass = 36e-6;
  double apply = (4 * 6000 * 40 + 2 * 400 * 160) / 1e9;
  for (int64_t staleness = 0; staleness <= 10; staleness += 10) {
    given.run.staleness = staleness;
    cv_prediction p = predicted(&given);
    check_near(p.simulation.step_s,
               train + 2 * pass + apply + (capture + 2.5 * triangles) / 5 + (refresh + 2 * pairs) / 10);
    ck_assert(p.simulation.wait_s == 0);
    ck_assert_int_eq(p.simulation.age_max, staleness + 9);
    check_near(p.stage_s[CV_PLAN_TRAIN], train);
    check_near(p.stage_s[CV_PLAN_CAPTURE], capture);
    check_near(p.stage_s[CV_PLAN_REFRESH], refresh);
    check_near(p.stage_s[CV_PLAN_RECEIVE], pairs);
    ck_assert_int_eq(p.owner[0], 0);
    release(&p);
  }
  given.run.train_s = 3;
  cv_prediction p = predicted(&given);
  check_near(p.table.compute_s, 3);
  release(&p);
}
END_TEST

/* Three workers and a curvature rank, all but links free: bytes of two layers in one transfer each way, messages of
 * 1 s, 1 byte a second. */
START_TEST(transfers_of_an_owner_are_fused) {
  const cv_plan_layer layer[] = {{10, 100, false}, {10, 10, false}, {10, 10, true}};
  cv_plan_machine machine = endless;
  machine.within = (cv_plan_link){1, 1};
  cv_predict_case given = case_of(&machine, 3, layer);
  given.run.n_workers = 3;
  given.run.n_curvature = 1;
  given.run.header_bytes = 1000;
  given.run.event_bytes = 8;
  cv_prediction p = predicted(&given);
  double statistics = 4 * (5050 + 3 * 55 + 4 * 4), pairs = 4 * (20 * 101 + 3 * 10 * 11), gradients = 4 * 1200;
  check_near(p.times[0].up_s, 3 * (1 + statistics)); /* each as it is */
  check_near(p.times[0].down_s, 3 * (1 + pairs + 2008));
  check_near(p.table.gradients_s, 4 * (1 + gradients / 3)); /* two thirds of them, twice */
  check_near(p.table.command_s, 1);
  ck_assert(p.owner[0] == 0 && p.owner[1] == 0 && p.owner[2] == -1);
  release(&p);
}
END_TEST

/* Four equal layers over two workers: sharded, each averages and applies two, and writes all four out. */
START_TEST(sharded_layers_are_dealt_out) {
  const cv_plan_layer layer[] = {{60, 100, false}, {60, 100, false}, {60, 100, false}, {60, 100, false}};
  cv_plan_machine machine = endless;
  machine.gemm_flops_s = 1e9, machine.copy_bytes_s = 1e8;
  double pass = 1.5 * 4 * 6000 / 1e8;
  cv_predict_case given = case_of(&machine, 4, layer);
  given.run.n_workers = 2;
  cv_prediction whole = predicted(&given);
  const cv_plan_choice sharded = {.apply = CV_PLAN_SHARDED};
  given.user = &sharded;
  cv_prediction shared = predicted(&given);
  check_near(whole.table.finish_s, 4 * ((4 * 6000 * 40 + 2 * 400 * 160) / 1e9 + 2 * pass));
  check_near(shared.table.finish_s, whole.table.finish_s / 2 + 4 * pass);
  cv_prediction_free(&whole, &memory);
  release(&shared);
}
END_TEST

/* A local factor is captured by its owner: not by the worker in front of it. */
START_TEST(local_factors_are_captured_by_their_owner) {
  const cv_plan_layer layer = {10, 100, false};
  cv_plan_machine machine = endless;
  machine.syrk_flops_s = 1;
  cv_predict_case given = case_of(&machine, 1, &layer);
  given.run.n_workers = 3;
  cv_prediction p = predicted(&given);
  ck_assert(fabs(p.times[0].average_s) < 1e-9);
  check_near(p.table.capture_s, 40 * (100 * 101 + 110));
  release(&p);
  const cv_plan_choice local = {.carrier = {CV_PLAN_LOCAL, CV_PLAN_LOCAL}};
  given.user = &local;
  p = predicted(&given);
  ck_assert(p.table.capture_s == 0 && fabs(p.times[1].average_s) < 1e-9);
  check_near(p.times[0].average_s, 40 * (100 * 101 + 110));
  check_near(p.times[0].up_s + 1, 1); /* but for the four floats of each factor, nothing is sent */
  release(&p);
}
END_TEST

/* n = 1000 over 3 curvature ranks, on links of 5 us and 4 GB/s: all have the same to do, and begin together; the small
 * G has an owner. */
START_TEST(spread_factors_have_all_owners) {
  const cv_plan_layer layer = {10, 1000, false};
  cv_plan_machine machine = cv_plan_machine_default;
  cv_predict_case given = case_of(&machine, 1, &layer);
  given.run.n_workers = 2;
  given.run.n_curvature = 3;
  given.run.grid_min_n = 1000;
  given.run.header_bytes = 1000;
  given.run.event_bytes = 8;
  cv_prediction p = predicted(&given);
  ck_assert(p.table.is_spread);
  check_near(p.times[0].pack_s + p.times[1].pack_s + p.times[2].pack_s, p.stage_s[CV_PLAN_STATISTICS]);
  check_near(p.times[2].down_s,
             2 * (2e-6 + (1008 + 4 * 20 * 1003 / 3.0) / 8.5e9)); /* 3 ranks; a third of the columns */
  check_near(p.times[1].refresh_s, p.times[2].refresh_s);
  ck_assert_double_gt(p.times[0].refresh_s, p.times[1].refresh_s);
  ck_assert_double_gt(p.times[1].refresh_s, 0);
  ck_assert_int_eq(p.owner[0], 0);
  release(&p);
}
END_TEST

/* 100 x 100 and its basis of 35 rows (25 and 10 probes) with 25 eigenvalues, twice; the two layers go to two owners. */
START_TEST(owners_without_room) {
  const cv_plan_layer layer[] = {{100, 100, false}, {100, 100, false}};
  int64_t bytes = 2 * 4 * (135 * 100 + 25);
  cv_predict_case given = case_of(&endless, 2, layer);
  given.run.n_curvature = 2;
  given.owner_room_bytes = bytes;
  cv_prediction p = predicted(&given);
  ck_assert_int_eq(p.overfull, -1);
  release(&p);
  given.owner_room_bytes = bytes - 1;
  p = predicted(&given);
  ck_assert_int_eq(p.overfull, 0);
  release(&p);
  given.run.n_curvature = 1;
  given.owner_room_bytes = 2 * bytes - 1;
  p = predicted(&given);
  ck_assert_int_eq(p.overfull, 0);
  release(&p);
}
END_TEST

static cv_plan_layer many[MANY];

static void draw_layers(void) {
  for (int i = 0; i < MANY; i++) many[i] = (cv_plan_layer){64 + 37 * (i % 50), 64 + 29 * (i % 70), i % 40 == 39};
}

START_TEST(many_layers_on_many_ranks) {
  draw_layers();
  for (int32_t curvature = 0; curvature <= 512; curvature += 256) {
    cv_predict_case given = case_of(&cv_plan_machine_default, MANY, many);
    const cv_plan_choice mixed = {
        {CV_PLAN_SKETCH, CV_PLAN_COLUMNS}, curvature ? CV_PLAN_SHARDED : CV_PLAN_FACTORED, CV_PLAN_WITH_GRADIENTS};
    given.user = &mixed;
    given.run.n_workers = 4096 - curvature;
    given.run.n_curvature = curvature;
    given.run.grid_min_n = 1800;
    given.run.staleness = 10;
    cv_prediction p = predicted(&given);
    ck_assert(isfinite(p.simulation.step_s) && p.simulation.step_s > 0);
    for (int i = 0; i < MANY; i++) ck_assert_int_eq(p.owner[i] < 0, many[i].is_skipped);
    release(&p);
  }
}
END_TEST

START_TEST(arguments_out_of_range) {
  const cv_plan_layer layer = {10, 10, false}, empty = {0, 10, false};
  /* n (n + k) numbers are more than 2^63 bytes; 2^50 bytes of gradients in each of 1.2e7 steps, too */
  const cv_plan_layer wide = {1 << 30, 1 << 30, false}, large = {1 << 24, 1 << 24, false};
  cv_plan_machine slow = endless, odd = endless;
  enum { CASES = 13 };
  cv_predict_case bad[CASES];
  slow.copy_bytes_s = 0;
  odd.overlap = NAN;
  for (int i = 0; i < CASES; i++) bad[i] = case_of(&endless, 1, &layer);
  bad[0].run.n_workers = 0;
  bad[1].run.n_curvature = -1;
  bad[2].run.inv_update_steps = 0;
  bad[3].run.eig_rank = 0;
  bad[4].layer = &empty;
  bad[5].machine = &slow;
  bad[6].machine = &odd;
  bad[7].run.staleness = -1;
  bad[8].run.train_s = NAN;
  bad[9].run.inv_update_steps = CV_PREDICT_INTERVAL_MAX + 1;
  bad[10].run.factor_update_steps = CV_PREDICT_INTERVAL_MAX + 1;
  bad[11].layer = &wide;
  bad[12].layer = &large;
  bad[12].run.inv_update_steps = bad[12].run.factor_update_steps = CV_PREDICT_INTERVAL_MAX;
  for (int i = 0; i < CASES; i++) {
    cv_prediction p;
    cv_error err = {0};
    ck_assert_msg(cv_predict(&bad[i], &memory, &p, &err) == CURVD_ERR_ARGUMENT, "case %d", i);
    ck_assert(err.text[0] && !p.choice);
    release(&p);
  }
}
END_TEST

/* ---- the best run ---- */

static cv_tuning tuned(const cv_predict_case *given, int32_t n_ranks, int64_t age_max) {
  cv_tuning t;
  cv_error err = {0};
  ck_assert_msg(cv_tune(given, n_ranks, age_max, &memory, &t, &err) == CURVD_OK, "%s", err.text);
  return t;
}

static void check_trial(const cv_tuning *t, int32_t c, int64_t factor, int64_t inv, int64_t staleness) {
  const cv_tune_trial *best = &t->trial[t->best];
  ck_assert_msg(best->n_curvature == c && best->factor_update_steps == factor && best->inv_update_steps == inv &&
                    best->staleness == staleness,
                "%d ranks, intervals %d and %d, staleness %d", (int)best->n_curvature, (int)best->factor_update_steps,
                (int)best->inv_update_steps, (int)best->staleness);
}

static void release_tuning(cv_tuning *t) {
  cv_tuning_free(t, &memory);
  for (int i = 0; i < CV_MEMORY_KINDS; i++) ck_assert_int_eq(memory.bytes[i], 0);
}

/* Curvature costs nothing, so no rank is taken from the workers; of equals, the shortest intervals. */
START_TEST(free_curvature_needs_no_rank) {
  const cv_plan_layer layer[] = {{10, 100, false}, {10, 100, false}};
  cv_predict_case given = case_of(&endless, 2, layer);
  given.run.train_s = 64;
  cv_tuning t = tuned(&given, 64, 20);
  check_trial(&t, 0, 1, 1, 20);
  check_near(t.trial[t.best].step_s, 1);
  release_tuning(&t);
}
END_TEST

/* 64 s of training and refreshes of 10 s, 20 steps old at most. A worker that refreshes adds 10 / 20 s to a step of
 * 1 s; a curvature rank makes steps 64 / 63 s long, and hides a refresh every 10 steps: it takes 10 s and has 11 steps;
 * every 5 steps it could not keep up, and every 20 steps there is 1 step to hide it in. Statistics of every step would
 * fill their 8 slots while it refreshes for 10 steps; of every other step they have 6 slots for 12 steps. */
START_TEST(slow_refreshes_get_a_rank) {
  const cv_plan_layer layer = {10, 100, false};
  cv_plan_machine machine = endless;
  machine.eig_f64.cube_s = 10.0 / 15625;
  cv_predict_case given = case_of(&machine, 1, &layer);
  given.run.train_s = 64;
  cv_tuning t = tuned(&given, 64, 20);
  check_trial(&t, 1, 2, 10, 11);
  check_near(t.trial[t.best].step_s, 64.0 / 63);
  ck_assert(t.trial[t.best].wait_s == 0);
  check_near(t.trial[t.best].load_max, 10 * 63 / 640.0);
  release_tuning(&t);
  given.run.train_s = 640; /* steps of 10 s: as much to win, and more to lose */
  machine.eig_f64.cube_s = 1.0 / 15625;
  t = tuned(&given, 64, 20);
  check_trial(&t, 0, 1, 20, 1);
  check_near(t.trial[t.best].step_s, 10 + 1.0 / 20);
  release_tuning(&t);
}
END_TEST

/* Statistics alone cost: they are taken at refreshes only. */
START_TEST(costly_statistics_are_rare) {
  const cv_plan_layer layer = {10, 100, false};
  cv_plan_machine machine = endless;
  machine.syrk_flops_s = 1e6;
  cv_predict_case given = case_of(&machine, 1, &layer);
  given.run.train_s = 1;
  cv_tuning t = tuned(&given, 1, 49);
  check_trial(&t, 0, 50, 50, 0);
  check_near(t.trial[t.best].step_s, 1 + 40 * (10100 + 110) / 1e6 / 50);
  release_tuning(&t);
}
END_TEST

/* Every trial keeps the age, the best is the least of all, and predicting it again gives the same. */
START_TEST(the_least_of_all_trials) {
  draw_layers();
  cv_predict_case given = case_of(&cv_plan_machine_default, MANY, many);
  given.run.batch_rows = given.run.statistics_rows = 100000;
  cv_tuning t = tuned(&given, 1024, 30);
  int32_t most = 0;
  for (int32_t i = 0; i < t.n_trials; i++) {
    ck_assert_int_eq(t.trial[i].age_max, 30);
    ck_assert_int_eq(t.trial[i].inv_update_steps % t.trial[i].factor_update_steps, 0);
    ck_assert_double_ge(t.trial[i].step_s, t.trial[t.best].step_s * (1 - 1e-9));
    most = t.trial[i].n_curvature > most ? t.trial[i].n_curvature : most;
  }
  ck_assert_int_eq(most, 192); /* of 195 layers */
  const cv_tune_trial *best = &t.trial[t.best];
  given.run.n_curvature = best->n_curvature;
  given.run.n_workers = 1024 - best->n_curvature;
  given.run.batch_rows = given.run.statistics_rows = (100000 + given.run.n_workers - 1) / given.run.n_workers;
  given.run.factor_update_steps = best->factor_update_steps;
  given.run.inv_update_steps = best->inv_update_steps;
  given.run.staleness = best->staleness;
  cv_prediction p = predicted(&given);
  ck_assert(p.simulation.step_s == best->step_s);
  cv_prediction_free(&p, &memory);
  release_tuning(&t);
}
END_TEST

static int32_t most_ranks(const cv_predict_case *given) {
  cv_tuning t = tuned(given, 8, 5);
  int32_t most = t.trial[t.n_trials - 1].n_curvature;
  for (int32_t i = 1; i < t.n_trials; i++) ck_assert_int_ge(t.trial[i].n_curvature, t.trial[i - 1].n_curvature);
  release_tuning(&t);
  return most;
}

/* Two of three layers have factors: more than two curvature ranks have nothing to do, unless they share them. */
START_TEST(no_more_ranks_than_layers) {
  const cv_plan_layer layer[] = {{10, 100, false}, {10, 200, true}, {10, 100, false}};
  cv_predict_case given = case_of(&endless, 3, layer);
  ck_assert_int_eq(most_ranks(&given), 2);
  given.run.grid_min_n = 101;
  ck_assert_int_eq(most_ranks(&given), 2);
  given.run.grid_min_n = 100;
  ck_assert_int_eq(most_ranks(&given), 6); /* 0, 1, 2, 3, 4, 6 of 8 */
}
END_TEST

/* One owner has no room for both layers: of the runs that fit, the best; of none, none. */
START_TEST(only_runs_with_room) {
  const cv_plan_layer layer[] = {{100, 100, false}, {100, 100, false}};
  int64_t bytes = 2 * 4 * (135 * 100 + 25);
  cv_predict_case given = case_of(&endless, 2, layer);
  given.run.train_s = 1;
  given.owner_room_bytes = bytes;
  cv_tuning t = tuned(&given, 8, 5);
  ck_assert_int_eq(t.trial[t.best].n_curvature, 0); /* eight workers own two layers */
  for (int32_t i = 0; i < t.n_trials; i++) ck_assert(t.trial[i].has_room == (t.trial[i].n_curvature != 1));
  release_tuning(&t);
  given.owner_room_bytes = bytes - 1;
  t = tuned(&given, 8, 5);
  ck_assert_int_eq(t.best, -1);
  release_tuning(&t);
  cv_error err = {0};
  ck_assert_int_eq(cv_tune(&given, 0, 5, &memory, &t, &err), CURVD_ERR_ARGUMENT);
  ck_assert_int_eq(cv_tune(&given, 8, -1, &memory, &t, &err), CURVD_ERR_ARGUMENT);
}
END_TEST

int main(void) {
  const TTest *const tests[] = {one_rank_does_all,
                                transfers_of_an_owner_are_fused,
                                sharded_layers_are_dealt_out,
                                local_factors_are_captured_by_their_owner,
                                spread_factors_have_all_owners,
                                owners_without_room,
                                many_layers_on_many_ranks,
                                arguments_out_of_range,
                                free_curvature_needs_no_rank,
                                slow_refreshes_get_a_rank,
                                costly_statistics_are_rare,
                                the_least_of_all_trials,
                                no_more_ranks_than_layers,
                                only_runs_with_room};
  return suite_run("predict", tests, sizeof tests / sizeof tests[0], NULL);
}
