/* The state of a run: what is saved on any split of the ranks goes on with the same bits on the same split, and to
 * rounding on any other. The reference is the run that nobody interrupted.
 *
 * Tolerance between splits: that of test_layouts.c, 1e-4, for the same reasons. */
#include "state_fixture.h"

#define COUNT(list) (sizeof list / sizeof list[0])

enum { STEPS = RUN_STEPS_MAX, ROWS = 10 };

static dense whole[STEPS][RUN_LAYERS], parts[STEPS][RUN_LAYERS];
static state_store saved;

/* Steps from .. to - 1; loads first unless from is 0, and saves in front of step save_at. */
static curvd_status run_steps(const service_run *run, int from, int save_at, state_store *s, dense (*V)[RUN_LAYERS]) {
  curvd_ctx *ctx = run_make(run);
  ck_assert_msg(curvd_plan(ctx) == CURVD_OK, "%s: %s", run->options, curvd_last_error(ctx));
  state_hook(ctx, s);
  curvd_status status = CURVD_OK;
  bool is_worker = run_is_worker(ctx);
  if (is_worker && from > 0) status = curvd_load(ctx, from);
  for (int step = from; step < run->n_steps && is_worker && status == CURVD_OK; step++) {
    if (step == save_at) status = curvd_save(ctx);
    if (status == CURVD_OK) status = run_step(ctx, run, step, V[step]);
  }
  if (status != CURVD_OK) fprintf(stderr, "rank %d: %s\n", run_rank(MPI_COMM_WORLD), curvd_last_error(ctx));
  run_close(&ctx);
  return status;
}

static service_run split(MPI_Comm comm, const char *options, int n_curvature) {
  return (service_run){.comm = comm, .options = options, .n_curvature = n_curvature, .n_steps = STEPS, .rows = ROWS};
}

/* Every step's numbers behind the save. */
static bool is_same(int from, bool is_worker) {
  return !is_worker || memcmp(whole[from], parts[from], sizeof whole[0] * (size_t)(STEPS - from)) == 0;
}

static void check_same_split(const char *options, int at) {
  int size = run_size(MPI_COMM_WORLD);
  for (int c = 0; c < size; c++) {
    service_run run = split(MPI_COMM_WORLD, options, c);
    bool is_worker = run_rank(MPI_COMM_WORLD) < size - c;
    state_clear(&saved);
    mpi_assert_msg(run_steps(&run, 0, -1, &saved, parts) == CURVD_OK, "%s", options);
    memcpy(whole, parts, sizeof whole);
    mpi_assert_msg(run_steps(&run, 0, at, &saved, parts) == CURVD_OK, "%s", options);
    mpi_assert_msg(is_same(0, is_worker), "%s, %d curvature ranks: a save in front of step %d changed bits", options, c,
                   at);
    state_gather(MPI_COMM_WORLD, &saved);
    mpi_assert_msg(!state_torn(&saved), "%s, %d curvature ranks: %s does not come once", options, c,
                   state_torn(&saved));
    memset(parts, 0, sizeof parts);
    mpi_assert_msg(run_steps(&run, at, -1, &saved, parts) == CURVD_OK, "%s", options);
    mpi_assert_msg(is_same(at, is_worker), "%s, %d curvature ranks: other bits after step %d", options, c, at);
  }
}

static double distance_from(int from) {
  double worst = 0;
  for (int step = from; step < STEPS; step++) worst = fmax(worst, run_distance(1, &whole[step], &parts[step]));
  return worst;
}

/* From one rank to every split, and from every split to one rank and to the next split. */
static void check_other_splits(const char *options, int at) {
  int size = run_size(MPI_COMM_WORLD);
  service_run one = split(MPI_COMM_SELF, options, 0);
  state_clear(&saved);
  mpi_assert(run_steps(&one, 0, at, &saved, whole) == CURVD_OK);
  for (int c = 0; c < size; c++) {
    service_run run = split(MPI_COMM_WORLD, options, c), next = split(MPI_COMM_WORLD, options, (c + 1) % size);
    mpi_assert_msg(run_steps(&run, at, -1, &saved, parts) == CURVD_OK, "%s", options);
    double distance = run_rank(MPI_COMM_WORLD) < size - c ? distance_from(at) : 0;
    mpi_assert_msg(distance < 1e-4, "%s: from one rank to %d curvature ranks: %.1e", options, c, distance);
    mpi_assert(run_steps(&run, 0, at, &saved, parts) == CURVD_OK);
    state_gather(MPI_COMM_WORLD, &saved);
    mpi_assert_msg(run_steps(&next, at, -1, &saved, parts) == CURVD_OK, "%s", options);
    distance = run_rank(MPI_COMM_WORLD) < size - next.n_curvature ? distance_from(at) : 0;
    mpi_assert_msg(distance < 1e-4, "%s: from %d curvature ranks to the next split: %.1e", options, c, distance);
    mpi_assert(run_steps(&one, at, -1, &saved, parts) == CURVD_OK);
    distance = distance_from(at);
    mpi_assert_msg(distance < 1e-4, "%s: from %d curvature ranks to one rank: %.1e", options, c, distance);
  }
}

static const char often[] = "factor_update_steps=1 inv_update_steps=1 eig_rank=4 oversampling=3";

/* What each keeps: nothing; exact pairs; an inverse; pairs with a warm start; a sketch with the workers' seeds; the
 * same from rows with a window; online pairs, with and without an average. */
static const char *const stores[] = {"method=none",
                                     "method=kfac",
                                     "method=kfac form=cholesky exponent_a=1 exponent_g=1 damping_mode=pi damping=0.01",
                                     "method=nystrom-kfac full_share=1",
                                     "method=rs-kfac full_share=1 average=zero",
                                     "method=nystrom-kfac carrier=sketch full_share=1",
                                     "method=nystrom-kfac carrier=columns store=stream capture_rows=10 full_share=1",
                                     "method=b-kfac capture_rows=10 full_share=1",
                                     "method=b-r-c-kfac capture_rows=10 online_renew=3 online_correct=2 full_share=1",
                                     "method=kfac wire_precision=bf16 staleness=2",
                                     "method=kfac wire_precision=bf16 carrier=columns capture_rows=10 staleness=1",
                                     "method=nystrom-kfac wire_precision=bf16 full_share=1 staleness=2",
                                     "method=nystrom-kfac wire_precision=bf16 carrier=sketch full_share=1"};

START_TEST(every_store_goes_on_with_the_same_bits) {
  for (size_t i = 0; i < COUNT(stores); i++) {
    char options[300];
    snprintf(options, sizeof options, "%s %s", often, stores[i]);
    check_same_split(options, 3);
  }
}
END_TEST

/* Steps 0 .. STEPS - 1 on one rank, saved in front of step 3; then those from 3 on, by what was saved. A tells of
 * factor A of fc0 in the end. */
typedef curvd_status (*one_step)(curvd_ctx *ctx, const service_run *run, int step, dense *directions);

static void check_one_rank(const char *options, one_step take_step, curvd_factor_metrics A[2]) {
  enum { SAVED = 3 };
  service_run run = split(MPI_COMM_SELF, options, 0);
  state_clear(&saved);
  for (int again = 0; again < 2; again++) {
    curvd_ctx *ctx = run_open(&run);
    state_hook(ctx, &saved);
    if (again) ck_assert_int_eq(curvd_load(ctx, SAVED), CURVD_OK);
    for (int step = again ? SAVED : 0; step < STEPS; step++) {
      if (!again && step == SAVED) ck_assert_int_eq(curvd_save(ctx), CURVD_OK);
      ck_assert_int_eq(take_step(ctx, &run, step, again ? parts[step] : whole[step]), CURVD_OK);
    }
    A[again] = service_factor(ctx, 0, 0);
    run_close(&ctx);
  }
  ck_assert(is_same(SAVED, true));
}

/* What is told of a factor goes on, too, but for clocks. */
START_TEST(certificates_go_on) {
  static const char *const kinds[] = {"method=b-r-c-kfac capture_rows=10 online_renew=3 online_correct=2 full_share=1",
                                      "method=b-kfac capture_rows=10 full_share=1", "method=nystrom-kfac full_share=1"};
  for (size_t i = 0; i < COUNT(kinds); i++) {
    char options[300];
    curvd_factor_metrics A[2];
    snprintf(options, sizeof options, "%s %s", often, kinds[i]);
    check_one_rank(options, run_step, A);
    ck_assert(A[0].error_bound == A[1].error_bound && A[0].orthogonality == A[1].orthogonality);
    ck_assert(A[0].trace == A[1].trace && A[0].missing_trace == A[1].missing_trace &&
              A[0].statistics_step == A[1].statistics_step && A[0].eig_rank == A[1].eig_rank);
  }
}
END_TEST

/* g^T [a 1] of fc0, whose 10 rows are fewer than 20 * 25 / 45: its projections follow the gradient from step to step.
 */
static dense followed_gradient(int step) {
  dense a = run_inputs(step, 0, ROWS), g = run_output_gradients(step, 0, ROWS), one = dense_zero(ROWS, a.n + 1);
  for (int64_t i = 0; i < ROWS; i++) {
    for (int64_t j = 0; j <= a.n; j++) one.x[i][j] = j < a.n ? a.x[i][j] : 1;
  }
  return dense_product(dense_transposed(g), one);
}

static curvd_status followed_step(curvd_ctx *ctx, const service_run *run, int step, dense *directions) {
  static float a[DENSE_MAX * SERVICE_LD_MAX], g[DENSE_MAX * SERVICE_LD_MAX];
  const service_layer *fc0 = &run_layer[0];
  service_floats(run_inputs(step, 0, ROWS), 0, ROWS, a);
  service_floats(run_output_gradients(step, 0, ROWS), 0, ROWS, g);
  curvd_status status =
      curvd_capture_gradient(ctx, 0, ROWS, a, fc0->d_in + SERVICE_PAD, g, fc0->d_out + SERVICE_PAD, 1);
  if (status == CURVD_OK) status = run_capture(ctx, run, step);
  run_gradients(ctx, run, step, directions);
  directions[0] = followed_gradient(step);
  return status == CURVD_OK ? service_try(ctx, 0.1, SERVICE_APART, RUN_LAYERS, run_layer, directions) : status;
}

static bool has_saved(const char *name) {
  for (int i = 0; i < saved.n; i++) {
    if (strcmp(saved.part[i].name, name) == 0) return true;
  }
  return false;
}

/* Computed anew they would have other bits. */
START_TEST(projections_that_follow_go_on) {
  curvd_factor_metrics A[2];
  check_one_rank("method=nystrom-kfac full_share=1 eig_rank=4 momentum=0.9 factor_update_steps=4 inv_update_steps=4",
                 followed_step, A);
  ck_assert(has_saved("curvature.fc0.P") && has_saved("curvature.fc0.R"));
}
END_TEST

/* One, then two refreshes under way; free ones may land at any step, so only that they go on is asked. */
START_TEST(refreshes_under_way_land_in_their_step) {
  check_same_split("method=kfac factor_update_steps=2 inv_update_steps=4 staleness=3", 5);
  check_same_split("method=kfac factor_update_steps=1 inv_update_steps=2 staleness=4", 5);
  check_same_split(
      "method=nystrom-kfac carrier=sketch full_share=1 eig_rank=4 factor_update_steps=1 inv_update_steps=3 "
      "staleness=2",
      4);
  check_same_split(
      "method=nystrom-kfac carrier=sketch full_share=1 eig_rank=4 factor_update_steps=1 inv_update_steps=2 "
      "staleness=1", /* in front of the step in which the new seed is not in use yet */
      3);
  check_same_split("method=kfac form=cholesky exponent_a=1 exponent_g=1 damping_mode=pi damping=0.01 "
                   "factor_update_steps=2 inv_update_steps=2 staleness=3",
                   5);
}
END_TEST

START_TEST(every_way_to_apply_and_to_sum) {
  static const char *const ways[] = {
      "apply=sharded method=kfac",
      "apply=sharded method=nystrom-kfac full_share=1 staleness=1",
      "apply=replicated method=nystrom-kfac full_share=1 step=kl-clip",
      "route=gradients method=kfac",
      "carrier=columns capture_rows=10 method=kfac",
      "missing_trace=0.05 eig_rank_min=2 eig_rank_max=8 method=nystrom-kfac full_share=1",
      "skip_error=0.5 method=nystrom-kfac full_share=1"};
  for (size_t i = 0; i < COUNT(ways); i++) {
    char options[300];
    snprintf(options, sizeof options, "%s %s", often, ways[i]);
    check_same_split(options, 3);
  }
}
END_TEST

/* Over two blocks of 64 nothing of this network would be spread: all of it from n = 8 on lies in one block of the first
 * owner, and the others hold none. test_state_spread has larger ones. */
START_TEST(spread_factors_of_one_block) {
  check_same_split("method=nystrom-kfac grid_min_n=8 factor_update_steps=1 inv_update_steps=1 eig_rank=4 full_share=1",
                   3);
}
END_TEST

START_TEST(another_split_goes_on_to_rounding) {
  check_other_splits("method=kfac factor_update_steps=1 inv_update_steps=1", 3);
  check_other_splits("method=kfac factor_update_steps=1 inv_update_steps=2 staleness=3", 5);
  check_other_splits("method=kfac factor_update_steps=1 inv_update_steps=1 apply=sharded", 3);
  check_other_splits("method=nystrom-kfac carrier=sketch eig_rank=4 full_share=1 factor_update_steps=1 "
                     "inv_update_steps=1",
                     3);
}
END_TEST

/* Back to an earlier step in the same run, refreshes under way or not. */
START_TEST(a_run_can_go_back) {
  int size = run_size(MPI_COMM_WORLD);
  for (int c = 0; c < size; c++) {
    service_run run = split(MPI_COMM_WORLD, "method=kfac factor_update_steps=1 inv_update_steps=2 staleness=3", c);
    state_clear(&saved);
    mpi_assert(run_steps(&run, 0, 4, &saved, whole) == CURVD_OK);
    state_gather(MPI_COMM_WORLD, &saved);
    curvd_ctx *ctx = run_open(&run);
    state_hook(ctx, &saved);
    bool is_worker = run_is_worker(ctx), is_ok = true;
    for (int step = 0; step < 6 && is_worker; step++) is_ok = is_ok && !run_step(ctx, &run, step, parts[step]);
    if (is_worker) is_ok = is_ok && curvd_load(ctx, 4) == CURVD_OK;
    for (int step = 4; step < STEPS && is_worker; step++) is_ok = is_ok && !run_step(ctx, &run, step, parts[step]);
    run_close(&ctx);
    mpi_assert_msg(is_ok && is_same(0, is_worker), "%d curvature ranks", c);
  }
}
END_TEST

static curvd_status try_load(const service_run *run, int64_t step, state_store *s, char *sentence) {
  curvd_ctx *ctx = run_open(run);
  curvd_status status = CURVD_OK;
  state_hook(ctx, s);
  if (run_is_worker(ctx)) {
    status = curvd_load(ctx, step);
    snprintf(sentence, 480, "%s", curvd_last_error(ctx));
  }
  run_close(&ctx);
  return status;
}

START_TEST(what_does_not_fit_is_refused_everywhere) {
  static const char kfac[] = "method=kfac factor_update_steps=1 inv_update_steps=2 staleness=3";
  char sentence[480] = "";
  service_run run = split(MPI_COMM_WORLD, kfac, 0), other = run;
  state_clear(&saved);
  mpi_assert(run_steps(&run, 0, 5, &saved, whole) == CURVD_OK);
  state_gather(MPI_COMM_WORLD, &saved);
  mpi_assert(try_load(&run, 5, &saved, sentence) == CURVD_OK);
  mpi_assert(try_load(&run, 4, &saved, sentence) != CURVD_OK && strstr(sentence, "step 5"));
  other.options = "method=kfac factor_update_steps=1 inv_update_steps=2";
  mpi_assert(try_load(&other, 5, &saved, sentence) != CURVD_OK && strstr(sentence, "staleness"));
  other.options = "method=nystrom-kfac eig_rank=4 full_share=1 factor_update_steps=1 inv_update_steps=2 staleness=3";
  mpi_assert(try_load(&other, 5, &saved, sentence) != CURVD_OK);
  saved.refused = "fc1.A.applied"; /* on the workers */
  mpi_assert(try_load(&run, 5, &saved, sentence) != CURVD_OK && strlen(sentence) > 0);
  saved.refused = "fc2.A.average"; /* on one owner */
  mpi_assert(try_load(&run, 5, &saved, sentence) != CURVD_OK && strlen(sentence) > 0);
  mpi_assert(saved.begun == saved.ended);
}
END_TEST

/* Whatever numbers a file holds, none of them may become a size. */
START_TEST(hostile_numbers_are_refused) {
  static const double bad[] = {NAN, INFINITY, -1, 0.5, 1e300, 9007199254740994.0, 1e6};
  service_run run = split(MPI_COMM_SELF,
                          "method=nystrom-kfac eig_rank=4 full_share=1 staleness=3 factor_update_steps=1 "
                          "inv_update_steps=2",
                          0);
  char sentence[480];
  state_clear(&saved);
  ck_assert_int_eq(run_steps(&run, 0, 5, &saved, whole), CURVD_OK);
  int refused = 0, tried = 0;
  for (int i = 0; i < saved.n; i++) {
    const state_part *part = &saved.part[i];
    if (part->array.dtype != CURVD_F64 || !strstr(part->name, "fc1.A")) continue;
    double *x = (double *)(void *)(saved.bytes + part->at);
    for (int64_t k = 0; k < part->array.n_columns; k++) {
      for (size_t b = 0; b < COUNT(bad); b++) {
        double before;
        memcpy(&before, &x[k], sizeof before);
        memcpy(&x[k], &bad[b], sizeof before);
        refused += try_load(&run, 5, &saved, sentence) != CURVD_OK; /* the sanitizers look at those that are taken */
        tried++;
        memcpy(&x[k], &before, sizeof before);
      }
    }
  }
  ck_assert_msg(refused > tried / 5 && refused < tried, "%d of %d", refused, tried);
}
END_TEST

START_TEST(the_order_of_calls_is_checked) {
  char sentence[480];
  service_run run = split(MPI_COMM_WORLD, "method=kfac factor_update_steps=1 inv_update_steps=1", 0);
  curvd_ctx *ctx = run_open(&run);
  mpi_assert(curvd_save(ctx) == CURVD_ERR_ARGUMENT);
  state_hook(ctx, &saved);
  mpi_assert(run_capture(ctx, &run, 0) == CURVD_OK);
  mpi_assert(curvd_save(ctx) == CURVD_ERR_STATE && strstr(curvd_last_error(ctx), "curvd_step"));
  mpi_assert(run_step(ctx, &run, 0, whole[0]) == CURVD_OK);
  mpi_assert(curvd_save(ctx) == CURVD_OK);
  mpi_assert(curvd_load(ctx, -1) == CURVD_ERR_ARGUMENT);
  mpi_assert(curvd_finish(ctx) == CURVD_OK && curvd_save(ctx) == CURVD_ERR_STATE);
  mpi_assert(curvd_on_state(ctx, NULL, NULL) == CURVD_ERR_ARGUMENT && curvd_save(NULL) == CURVD_ERR_ARGUMENT);
  snprintf(sentence, sizeof sentence, "%s", curvd_last_error(ctx));
  curvd_destroy(&ctx);
}
END_TEST

/* Each worker raises its own; all see all of them, in that step only. */
START_TEST(flags_come_to_all_workers) {
  int size = run_size(MPI_COMM_WORLD);
  service_run run = split(MPI_COMM_WORLD, "method=none", size > 2);
  curvd_ctx *ctx = run_open(&run);
  int n = curvd_worker_count(ctx), me = curvd_worker_index(ctx);
  bool is_right = true;
  if (run_is_worker(ctx)) {
    curvd_raise(ctx, 1u << (me % CURVD_FLAGS) | 1u << 20);
    is_right = run_step(ctx, &run, 0, whole[0]) == CURVD_OK && curvd_flags(ctx) == (1u << (n < 8 ? n : 8)) - 1;
    is_right = is_right && run_step(ctx, &run, 1, whole[1]) == CURVD_OK && curvd_flags(ctx) == 0;
  }
  run_close(&ctx);
  mpi_assert(is_right);
}
END_TEST

static Suite *make_suite(void) {
  const TTest *const tests[] = {every_store_goes_on_with_the_same_bits,  certificates_go_on,
                                projections_that_follow_go_on,           refreshes_under_way_land_in_their_step,
                                every_way_to_apply_and_to_sum,           spread_factors_of_one_block,
                                another_split_goes_on_to_rounding,       a_run_can_go_back,
                                what_does_not_fit_is_refused_everywhere, hostile_numbers_are_refused,
                                the_order_of_calls_is_checked,           flags_come_to_all_workers};
  return service_suite("state", tests, COUNT(tests));
}

int main(int argc, char **argv) {
  return mpi_test_main(argc, argv, make_suite);
}
