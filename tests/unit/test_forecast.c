/* Predictions as callers get them: without MPI, for any number of ranks. */
#include "suite.h"

#include "curvature/factor_plan.h"
#include "curvature/forecast.h"
#include "plan/predict.h"

#include <math.h>
#include <mpi.h>
#include <stdio.h>
#include <string.h>

#define COUNT(list) (sizeof list / sizeof list[0])

static const curvd_layer_shape layers[] = {
    {"fc1", 784, 1000, true}, {"fc2", 1000, 1000, true}, {"fc3", 1000, 10, true}};
static curvd_option_value options[8];
static char message[480];

/* As pairs of key and value, up to a NULL. */
static curvd_run_shape shape_of(int n_ranks, const char *const *words) {
  curvd_run_shape shape = {
      .layers = layers, .n_layers = COUNT(layers), .options = options, .n_ranks = n_ranks, .batch_rows = 512};
  for (; words[2 * shape.n_options]; shape.n_options++)
    options[shape.n_options] = (curvd_option_value){words[2 * shape.n_options], words[2 * shape.n_options + 1]};
  return shape;
}
#define SHAPE(n_ranks, ...) shape_of(n_ranks, (const char *const[]){__VA_ARGS__, NULL})

static curvd_prediction *predicted(const curvd_run_shape *shape) {
  curvd_prediction *p = NULL;
  ck_assert_msg(curvd_predict(shape, &p, message, sizeof message) == CURVD_OK, "%s", message);
  return p;
}

static curvd_prediction_summary summary_of(const curvd_run_shape *shape) {
  curvd_prediction *p = predicted(shape);
  curvd_prediction_summary summary;
  curvd_prediction_read(p, &summary);
  curvd_prediction_free(&p);
  ck_assert_ptr_null(p);
  return summary;
}

/* ---- arguments ---- */

static void check_refused(const curvd_run_shape *shape, curvd_status code, const char *words) {
  curvd_prediction *p = (curvd_prediction *)message;
  message[0] = '\0';
  ck_assert_int_eq(curvd_predict(shape, &p, message, sizeof message), code);
  ck_assert_ptr_null(p);
  ck_assert_msg(strstr(message, words) != NULL, "'%s' without '%s'", message, words);
  ck_assert_int_eq(curvd_predict(shape, &p, NULL, 0), code);
}

START_TEST(what_is_refused) {
  curvd_run_shape shape = SHAPE(0, NULL);
  check_refused(&shape, CURVD_ERR_ARGUMENT, "use 1 to 4096");
  shape.n_ranks = CURVD_PREDICTED_RANKS_MAX + 1;
  check_refused(&shape, CURVD_ERR_ARGUMENT, "use 1 to 4096");
  shape = SHAPE(4, "curvature_rank", "1");
  check_refused(&shape, CURVD_ERR_OPTION, "did you mean 'curvature_ranks'");
  shape = SHAPE(4, "eig_rank", "-1");
  check_refused(&shape, CURVD_ERR_OPTION, "eig_rank");
  shape = SHAPE(4, "curvature_ranks", "4");
  check_refused(&shape, CURVD_ERR_LAYOUT, "at most 3");
  shape = SHAPE(4, "carrier", "sketch", "store", "full");
  check_refused(&shape, CURVD_ERR_OPTION, "store stream");
  shape = SHAPE(4, NULL);
  shape.train_s = NAN;
  check_refused(&shape, CURVD_ERR_ARGUMENT, "seconds of training");
  const curvd_layer_shape empty = {"fc1", 0, 10, true};
  shape = SHAPE(4, NULL);
  shape.layers = &empty, shape.n_layers = 1;
  check_refused(&shape, CURVD_ERR_ARGUMENT, "layer 0");
  curvd_machine stopped;
  curvd_machine_default(&stopped);
  stopped.gemm_flops_s = 0;
  shape = SHAPE(4, NULL);
  shape.machine = &stopped;
  check_refused(&shape, CURVD_ERR_ARGUMENT, "speeds");
  ck_assert_int_eq(curvd_predict(NULL, NULL, NULL, 0), CURVD_ERR_ARGUMENT);
}
END_TEST

START_TEST(ranks_and_layers_out_of_range) {
  curvd_run_shape shape = SHAPE(3, "curvature_ranks", "0");
  curvd_prediction *p = predicted(&shape);
  curvd_predicted_rank rank;
  curvd_predicted_layer layer;
  ck_assert_int_eq(curvd_prediction_rank(p, 3, &rank), CURVD_ERR_ARGUMENT);
  ck_assert_int_eq(curvd_prediction_rank(p, -1, &rank), CURVD_ERR_ARGUMENT);
  ck_assert_int_eq(curvd_prediction_layer(p, 3, &layer), CURVD_ERR_ARGUMENT);
  ck_assert_int_eq(curvd_prediction_most(p, CURVD_ROLE_CURVATURE, &rank), CURVD_ERR_ARGUMENT);
  ck_assert_str_eq(curvd_predicted_name(CURVD_PREDICTED_STAGES), "?");
  ck_assert_str_eq(curvd_predicted_name(CURVD_PREDICTED_REFRESH), "refresh");
  curvd_prediction_free(&p);
}
END_TEST

/* ---- numbers ---- */

/* Rows and seconds are those of all workers: 3 of 4 ranks share them. */
START_TEST(work_is_shared) {
  curvd_run_shape shape = SHAPE(4, "curvature_ranks", "1", "method", "none");
  shape.train_s = 0.3;
  curvd_prediction_summary s = summary_of(&shape);
  ck_assert(s.n_workers == 3 && s.n_curvature == 1);
  ck_assert_double_eq_tol(s.stage_s[CURVD_PREDICTED_TRAIN], 0.1, 1e-12);
  ck_assert(s.stage_s[CURVD_PREDICTED_REFRESH] == 0 && s.stage_s[CURVD_PREDICTED_CAPTURE] == 0);
  shape = SHAPE(1, "method", "none", "momentum_place", "caller");
  s = summary_of(&shape);
  double weights = 1000.0 * 785 + 1000.0 * 1001 + 10.0 * 1001;
  ck_assert_double_eq_tol(s.stage_s[CURVD_PREDICTED_TRAIN], 6 * 512 * weights / 1.2e11, 1e-9);
  /* gradients are looked at in 0.8 of a copy's time, and mixed into parameters in 1.5 of it; 8 GB/s */
  ck_assert_double_eq_tol(s.stage_s[CURVD_PREDICTED_MOMENTUM], 0.8 * weights * 4 / 8e9, 1e-9);
  ck_assert_double_eq_tol(s.exposed_s, (0.8 + 1.5) * weights * 4 / 8e9, 1e-9);
}
END_TEST

START_TEST(seconds_of_a_second_backward_pass) {
  curvd_run_shape shape = SHAPE(2, "factor_update_steps", "5", "curvature_ranks", "0");
  double without = summary_of(&shape).step_s;
  shape.capture_train_s = 0.02; /* 10 ms of each worker, in every fifth step */
  ck_assert_double_eq_tol(summary_of(&shape).step_s - without, 0.002, 1e-9);
}
END_TEST

/* One worker of 8 rows: 2 rows (m + n) (r_G + r_A) flops a step, and whole projections in every tenth. */
START_TEST(projections_that_follow) {
  const curvd_layer_shape one = {"fc1", 1000, 1000, false};
  curvd_run_shape shape = SHAPE(1, "eig_rank", "50", "inv_update_steps", "10");
  shape.layers = &one, shape.n_layers = 1, shape.batch_rows = 8;
  double whole = 2 * 1e6 * 100 + 2 * 50 * 50 * 1000, followed = 2 * 8 * 2000 * 100;
  ck_assert_double_eq_tol(summary_of(&shape).stage_s[CURVD_PREDICTED_PROJECT], whole / 1.2e11, 1e-12);
  shape.captures_gradients = true;
  ck_assert_double_eq_tol(summary_of(&shape).stage_s[CURVD_PREDICTED_PROJECT], (followed + whole / 10) / 1.2e11, 1e-12);
  shape.batch_rows = 600; /* no gain: 600 2000 > 1000 1000 */
  ck_assert_double_eq_tol(summary_of(&shape).stage_s[CURVD_PREDICTED_PROJECT], whole / 1.2e11, 1e-12);
}
END_TEST

START_TEST(the_most_of_all_ranks) {
  for (int c = 0; c < 6; c++) {
    char servers[16];
    snprintf(servers, sizeof servers, "%d", c);
    curvd_run_shape shape = SHAPE(9, "curvature_ranks", servers);
    curvd_prediction *p = predicted(&shape);
    for (int role = 0; role < 2; role++) {
      curvd_predicted_rank most, one;
      double sent = 0, load = 0;
      int64_t held = 0;
      if (curvd_prediction_most(p, (curvd_role)role, &most) != CURVD_OK) continue;
      for (int r = role == 0 ? 0 : 9 - c; r < (role == 0 ? 9 - c : 9); r++) {
        ck_assert_int_eq(curvd_prediction_rank(p, r, &one), CURVD_OK);
        sent = fmax(sent, one.sent_bytes[CURVD_TRAFFIC_STATISTICS]);
        load = fmax(load, one.load);
        if (one.memory_bytes[CURVD_MEMORY_TRANSFER] > held) held = one.memory_bytes[CURVD_MEMORY_TRANSFER];
      }
      ck_assert(most.sent_bytes[CURVD_TRAFFIC_STATISTICS] == sent && most.load == load);
      ck_assert_int_eq(most.memory_bytes[CURVD_MEMORY_TRANSFER], held);
    }
    curvd_prediction_free(&p);
  }
}
END_TEST

START_TEST(thousands_of_ranks) {
  curvd_run_shape shape = SHAPE(CURVD_PREDICTED_RANKS_MAX, "curvature_ranks", "96");
  curvd_prediction_summary s = summary_of(&shape);
  ck_assert(s.n_workers == 4000 && s.n_owners == 96 && isfinite(s.step_s) && s.step_s > 0);
  int is_initialised = 1;
  MPI_Initialized(&is_initialised);
  ck_assert(!is_initialised);
}
END_TEST

/* ---- choices ---- */

static const char *const worlds[][11] = {
    {NULL},
    {"store", "stream", NULL},
    {"carrier", "sketch", "full_share", "0.5", NULL},
    {"carrier", "sketch", "staleness", "3", NULL},
    {"carrier", "columns", NULL},
    {"carrier", "columns", "store", "stream", NULL},
    {"carrier", "local", NULL},
    {"carrier", "local", "store", "stream", NULL},
    {"carrier", "local", "method", "b-kfac", NULL},
    {"staleness", "free", "store", "stream", NULL},
    {"method", "kfac", NULL},
    {"method", "b-kfac", "eig_rank", "20", NULL},
    {"staleness", "10", NULL},
    {"method", "rs-kfac", "grid_min_n", "500", NULL},
    {"method", "kfac", "form", "cholesky", "exponent_a", "1", "exponent_g", "1", NULL},
    {"oversampling", "30", "store", "stream", NULL},
    {"capture_rows", "5", NULL},
    {"capture_rows", "40", "method", "rs-kfac", "grid_min_n", "500", NULL},
    {"capture_rows", "5", "method", "b-kfac", "grid_min_n", "500", NULL},
    {"capture_rows", "5", "method", "kfac", "form", "cholesky", "exponent_a", "1", "exponent_g", "1", NULL},
};

/* What the model makes of sizes is what the service does (factor_plan.c), from the smallest factors to spread ones. */
START_TEST(model_and_service_agree_on_sizes) {
  static const int64_t n[] = {2, 10, 64, 90, 96, 97, 98, 120, 126, 127, 128, 129, 200, 499, 500, 4095, 4096, 9000};
  cv_error err = {.code = CURVD_OK};
  for (size_t w = 0; w < COUNT(worlds); w++) {
    for (int owners = 1; owners <= 3; owners++) {
      curvd_run_shape shape = shape_of(owners, worlds[w]);
      cv_forecast f;
      ck_assert_msg(cv_forecast_make(&shape, &f, &err) == CURVD_OK, "%zu: %s", w, err.text);
      for (size_t i = 0; i < COUNT(n); i++) {
        const cv_plan_run *run = &f.given.run;
        cv_factor_plan plan = cv_factor_plan_of(&f.book.values, run, &(cv_plan_layer){.m = 1, .n = n[i]}, CV_PLAN_A);
        ck_assert_msg(cv_plan_is_full(run, n[i], plan.carrier) == plan.is_full, "world %zu, n %d: full", w, (int)n[i]);
        ck_assert_msg(cv_plan_basis(run, n[i], plan.carrier) == plan.k_max, "world %zu, n %d: %d rows, not %d", w,
                      (int)n[i], (int)cv_plan_basis(run, n[i], plan.carrier), (int)plan.k_max);
        ck_assert_msg(cv_plan_is_spread(run, n[i], plan.carrier) == plan.is_spread, "world %zu, n %d: spread", w,
                      (int)n[i]);
      }
      cv_forecast_free(&f);
    }
  }
}
END_TEST

static cv_plan_carrier carrier_with(int n_ranks, int64_t n, const char *const *words) {
  cv_forecast f;
  cv_error err = {.code = CURVD_OK};
  curvd_run_shape shape = shape_of(n_ranks, words);
  ck_assert_msg(cv_forecast_make(&shape, &f, &err) == CURVD_OK, "%s", err.text);
  cv_plan_carrier carrier =
      cv_factor_plan_of(&f.book.values, &f.given.run, &(cv_plan_layer){.m = 1, .n = n}, CV_PLAN_A).carrier;
  cv_forecast_free(&f);
  return carrier;
}
#define CARRIER(n_ranks, n, ...) carrier_with(n_ranks, n, (const char *const[]){__VA_ARGS__, NULL})

/* One rank, at 8 GB/s: a triangle of n (n + 1) / 2 floats is copied, and mixed in at 1.5 of a copy; rows are copied
 * twice; outer products are the same. So rows cost less below 5 / 8 of n + 1 of them: 625 of n = 1000. */
START_TEST(rows_travel_where_that_costs_less) {
  ck_assert_int_eq(CARRIER(1, 1000, "capture_rows", "625"), CV_PLAN_COLUMNS);
  ck_assert_int_eq(CARRIER(1, 1000, "capture_rows", "626"), CV_PLAN_TRIANGLE);
  ck_assert_int_eq(CARRIER(1, 1000, "capture_rows", "5000", "sample_rows", "100"), CV_PLAN_COLUMNS);
  ck_assert_int_eq(CARRIER(1, 1000, "capture_rows", "100", "sample_rows", "5000"), CV_PLAN_COLUMNS);
  ck_assert_int_eq(CARRIER(1, 1000, "sample_rows", "5"), CV_PLAN_TRIANGLE); /* 1024 rows, as far as is known */
  ck_assert_int_eq(CARRIER(1, 5000, "sample_rows", "5", "store", "full"), CV_PLAN_TRIANGLE);
  ck_assert_int_eq(CARRIER(1, 1000, "capture_rows", "5", "carrier", "triangle"), CV_PLAN_TRIANGLE);
  ck_assert_int_eq(CARRIER(1, 4096, "capture_rows", "5"), CV_PLAN_SKETCH);                    /* no average is kept */
  ck_assert_int_eq(CARRIER(1, 60, "capture_rows", "5", "method", "b-kfac"), CV_PLAN_COLUMNS); /* a full one */
  /* of two workers an owner has two products of rows to make, which each made by itself: few rows are worth that */
  ck_assert_int_eq(CARRIER(3, 1000, "capture_rows", "20", "curvature_ranks", "1"), CV_PLAN_COLUMNS);
  ck_assert_int_eq(CARRIER(3, 1000, "capture_rows", "256", "curvature_ranks", "1"), CV_PLAN_TRIANGLE);
  /* two owners: rows of each worker to both, where blocks are waited for */
  ck_assert_int_eq(CARRIER(2, 6000, "capture_rows", "100", "method", "kfac"), CV_PLAN_COLUMNS);
  ck_assert_int_eq(CARRIER(2, 6000, "method", "kfac"), CV_PLAN_TRIANGLE);
  /* 2^31 - 1 bytes of rows, of all layers: 4797 wide, 4 (rows + 2) bytes each */
  ck_assert_int_eq(CARRIER(1, 1000000, "capture_rows", "111916", "store", "full"), CV_PLAN_COLUMNS);
  ck_assert_int_eq(CARRIER(1, 1000000, "capture_rows", "111917", "store", "full"), CV_PLAN_TRIANGLE);
}
END_TEST

static bool is_rough(const char *const *words) {
  curvd_run_shape shape = shape_of(3, words);
  return summary_of(&shape).is_rough;
}

START_TEST(what_is_rough) {
  for (size_t w = 0; w < COUNT(worlds); w++) ck_assert(!is_rough(worlds[w]));
  ck_assert(is_rough((const char *const[]){"method", "b-r-kfac", NULL}));
  ck_assert(is_rough((const char *const[]){"method", "b-r-c-kfac", NULL}));
  ck_assert(is_rough((const char *const[]){"carrier", "columns", "store", "stream", "window_rows", "64", NULL}));
  ck_assert(is_rough((const char *const[]){"skip_error", "0.1", NULL}));
  ck_assert(is_rough((const char *const[]){"missing_trace", "0.1", "eig_rank_max", "100", NULL}));
}
END_TEST

/* Nothing takes long here, so a refresh is used in the next step, whatever the largest age. */
START_TEST(free_running_is_simulated) {
  curvd_run_shape shape = SHAPE(4, "curvature_ranks", "1", "staleness", "free", "staleness_max", "25",
                                "inv_update_steps", "10", "factor_update_steps", "10");
  shape.train_s = 400; /* 133 s a step */
  curvd_prediction_summary s = summary_of(&shape);
  ck_assert_int_eq(s.staleness, 25);
  ck_assert_int_eq(s.age_max, 1 + 9);
  curvd_machine slow;
  curvd_machine_default(&slow);
  slow.eig64_cube_s = 1e-2; /* a refresh takes hours, and is waited for at the largest age */
  shape.machine = &slow;
  s = summary_of(&shape);
  ck_assert_int_eq(s.age_max, 25 + 9);
  ck_assert(s.wait_s > 0);
}
END_TEST

/* ---- tuning ---- */

/* Kept as a stream, unless it is to be used later than the next refresh begins. */
static const curvd_layer_shape wide = {"wide", 4500, 4300, true};

static double step_with(int n_ranks, const curvd_trial *trial) {
  char text[4][24];
  snprintf(text[0], sizeof text[0], "%d", (int)trial->n_curvature);
  snprintf(text[1], sizeof text[1], "%d", (int)trial->factor_update_steps);
  snprintf(text[2], sizeof text[2], "%d", (int)trial->inv_update_steps);
  snprintf(text[3], sizeof text[3], "%d", (int)trial->staleness);
  curvd_run_shape shape = SHAPE(n_ranks, "curvature_ranks", text[0], "factor_update_steps", text[1], "inv_update_steps",
                                text[2], "staleness", text[3], "grid_min_n", "10000");
  shape.layers = &wide, shape.n_layers = 1;
  curvd_prediction_summary s = summary_of(&shape);
  ck_assert_int_eq(s.age_max, trial->age_max);
  return s.step_s;
}

START_TEST(tuned_runs_are_predicted_ones) {
  curvd_run_shape shape = SHAPE(6, "grid_min_n", "10000");
  shape.layers = &wide, shape.n_layers = 1;
  curvd_trial trial[3];
  int32_t n = 0, n_tried = 0;
  ck_assert_int_eq(curvd_tune(&shape, 15, 3, trial, &n, &n_tried, NULL, 0), CURVD_OK);
  ck_assert(n == 2 && n_tried > 3); /* none or one of the ranks: there is one layer */
  for (int i = 0; i < n; i++) {
    ck_assert(trial[i].age_max <= 15);
    ck_assert_double_eq_tol(step_with(6, &trial[i]), trial[i].step_s, 1e-12);
    ck_assert(i == 0 || trial[i].step_s >= trial[i - 1].step_s * (1 - 1e-9));
    for (int before = 0; before < i; before++) ck_assert_int_ne(trial[i].n_curvature, trial[before].n_curvature);
  }
  curvd_run_shape local = SHAPE(6, "carrier", "local");
  ck_assert_int_eq(curvd_tune(&local, 15, 3, trial, &n, &n_tried, message, sizeof message), CURVD_ERR_OPTION);
  ck_assert_ptr_nonnull(strstr(message, "carrier local"));
  shape = SHAPE(6, "seed", "3");
  ck_assert_int_eq(curvd_tune(&shape, -1, 3, trial, &n, &n_tried, message, sizeof message), CURVD_ERR_ARGUMENT);
  ck_assert_int_eq(curvd_tune(&shape, 15, 0, trial, &n, &n_tried, NULL, 0), CURVD_ERR_ARGUMENT);
}
END_TEST

/* Bounds that any machine keeps, in any state: 10 Mflop/s to 10 Tflop/s. */
START_TEST(a_measured_machine) {
  curvd_machine machine, initial;
  curvd_machine_default(&initial);
  ck_assert_int_eq(curvd_machine_measure(&machine, message, sizeof message), CURVD_OK);
  ck_assert(machine.gemm_flops_s > 1e7 && machine.gemm_flops_s < 1e13);
  ck_assert(machine.syrk_flops_s > 1e7 && machine.syrk_flops_s < 1e13);
  ck_assert(machine.copy_bytes_s > 1e6 && machine.copy_bytes_s < 1e13);
  double small = machine.eig64_square_s * 1e4 + machine.eig64_cube_s * 1e6;
  ck_assert(small > 1e-5 && small < 10 && machine.eig32_cube_s >= 0 && machine.eig32_square_s >= 0);
  ck_assert(machine.within_bytes_s == initial.within_bytes_s && machine.overlap == initial.overlap);
  ck_assert_int_eq(curvd_machine_measure(NULL, NULL, 0), CURVD_ERR_ARGUMENT);
}
END_TEST

int main(void) {
  const TTest *const tests[] = {what_is_refused,
                                ranks_and_layers_out_of_range,
                                work_is_shared,
                                seconds_of_a_second_backward_pass,
                                projections_that_follow,
                                the_most_of_all_ranks,
                                thousands_of_ranks,
                                model_and_service_agree_on_sizes,
                                rows_travel_where_that_costs_less,
                                what_is_rough,
                                free_running_is_simulated,
                                tuned_runs_are_predicted_ones,
                                a_measured_machine};
  return suite_run("forecast", tests, COUNT(tests), NULL);
}
