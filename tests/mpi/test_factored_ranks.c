/* The factored way to apply over the ranks: each worker preconditions its own rows, and every (workers, curvature
 * ranks) gives the directions of one rank, and those of dense fp64, at every staleness.
 *
 * Tolerance against dense fp64: factors of n <= 25 damped by a tenth of the mean eigenvalue have a condition of at most
 * 251; two sides, eps = 6e-8, two roundings each: 6e-5. Between splits only the order of fp32 sums differs: below. */
#include "mpi_service.h"

#include "train/trainer.h"

#define COUNT(list) (sizeof list / sizeof list[0])

enum { STEPS = 8 };

static const double TOLERANCE = 6e-5;

static dense V[STEPS][RUN_LAYERS], alone[STEPS][RUN_LAYERS], again[STEPS][RUN_LAYERS];

/* ---- a run ---- */

static dense inputs(int step, int l, int64_t rows) {
  return run_data(3, step, l, rows, run_layer[l].d_in);
}

static dense output_gradients(int step, int l, int64_t rows) {
  return run_data(4, step, l, rows, run_layer[l].d_out);
}

/* This worker's rows, in two pieces; to: NaN before the first step, the average afterwards. */
static curvd_status precondition(curvd_ctx *ctx, const service_run *run, int step, int l, float scale, float keep,
                                 const curvd_gradient *to) {
  static float a[DENSE_MAX * SERVICE_LD_MAX], g[DENSE_MAX * SERVICE_LD_MAX];
  int n = curvd_worker_count(ctx), w = curvd_worker_index(ctx);
  int64_t from = run_cut(run->rows, n, w), end = run_cut(run->rows, n, w + 1), middle = (from + end) / 2;
  for (int piece = 0; piece < 2; piece++) {
    int64_t first = piece ? middle : from, last = piece ? end : middle;
    service_floats(inputs(step, l, run->rows), first, last, a);
    service_floats(output_gradients(step, l, run->rows), first, last, g);
    CV_TRY(curvd_precondition(ctx, l, last - first, a, run_layer[l].d_in + SERVICE_PAD, g,
                              run_layer[l].d_out + SERVICE_PAD, scale, piece ? 1 : keep, to));
  }
  return CURVD_OK;
}

/* is_caller: the gradients' memory is the average, with momentum 0.9, and parameters take the update. */
static curvd_status one_step(curvd_ctx *ctx, const service_run *run, int step, bool is_caller, dense *D) {
  static service_gradient g[RUN_LAYERS], W[RUN_LAYERS];
  curvd_gradient view[RUN_LAYERS] = {{.weight = NULL}};
  CV_TRY(run_capture(ctx, run, step));
  for (int l = 0; l < RUN_LAYERS; l++) {
    dense zero = dense_zero(run_layer[l].d_out, service_columns(&run_layer[l]));
    service_layout layout = l % 2 ? SERVICE_JOINED : SERVICE_APART;
    service_put(&run_layer[l], layout, zero, &W[l]);
    if (!is_caller || step == 0) service_put(&run_layer[l], layout, zero, &g[l]);
    CV_TRY(precondition(ctx, run, step, l, is_caller ? 0.1f : 1, is_caller ? 0.9f : 0, &g[l].view));
    view[l] = g[l].view;
    if (is_caller) view[l].parameter = W[l].view.weight, view[l].parameter_bias = W[l].view.bias;
  }
  CV_TRY(curvd_step(ctx, 1, view, RUN_LAYERS));
  for (int l = 0; l < RUN_LAYERS; l++) D[l] = service_take(&run_layer[l], is_caller ? &W[l] : &g[l]);
  return CURVD_OK;
}

static curvd_status run_factored(const service_run *run, dense (*D)[RUN_LAYERS]) {
  curvd_ctx *ctx = run_open(run);
  curvd_status status = CURVD_OK;
  bool is_worker = run_is_worker(ctx), is_caller = strstr(run->options, "caller") != NULL;
  for (int step = 0; step < STEPS && is_worker && status == CURVD_OK; step++)
    status = one_step(ctx, run, step, is_caller, D[step]);
  run_close(&ctx);
  return status;
}

/* On every split of MPI_COMM_WORLD: V, the same bits twice, and on all workers. */
static bool run_split(const char *options, int64_t rows, int n_curvature, bool is_repeated) {
  service_run run = run_of(options, n_curvature);
  bool is_worker = run_rank(MPI_COMM_WORLD) < run_size(MPI_COMM_WORLD) - n_curvature;
  run.rows = rows;
  memset(V, 0, sizeof V);
  memset(again, 0, sizeof again);
  mpi_assert(run_factored(&run, V) == CURVD_OK);
  if (is_repeated) mpi_assert(run_factored(&run, again) == CURVD_OK);
  mpi_assert_msg(!is_repeated || memcmp(V, again, sizeof V) == 0, "%s, %d curvature ranks: other bits the second time",
                 options, n_curvature);
  memcpy(again, V, sizeof V);
  MPI_Bcast(again, sizeof again, MPI_BYTE, 0, MPI_COMM_WORLD);
  mpi_assert_msg(!is_worker || memcmp(V, again, sizeof V) == 0, "%s: other bits than on rank 0", options);
  return is_worker;
}

/* ---- against dense fp64 ---- */

static const kfac_case half = {"relative-mean", "norm", "eigen", 0.1, 0.5, 0.5, 0.95};

/* g^T [a 1] of the global batch, preconditioned by the refresh of the newest due step that has landed: not before the
 * next step, whatever the staleness. */
static dense expected(int step, int l, int64_t rows, int staleness, int interval) {
  static dense S_A[STEPS], S_G[STEPS];
  dense a = inputs(step, l, rows), b = dense_zero(rows, service_columns(&run_layer[l]));
  int newest = step - (staleness > 1 ? staleness : 1);
  for (int64_t i = 0; i < rows; i++) {
    for (int64_t j = 0; j < b.n; j++) b.x[i][j] = j < a.n ? a.x[i][j] : 1;
  }
  dense gradient = dense_product(dense_transposed(output_gradients(step, l, rows)), b);
  if (newest < 0) return gradient;
  newest -= newest % interval;
  for (int i = 0; i <= newest; i++) {
    S_A[i] = kfac_statistic(run_inputs(i, l, rows), run_layer[l].has_bias);
    S_G[i] = kfac_statistic(run_output_gradients(i, l, rows), false);
  }
  return kfac_direction(&half, newest + 1, S_A, S_G, gradient);
}

START_TEST(directions_at_every_staleness) {
  static const int staleness[] = {0, 1, 2, 5}, intervals[] = {1, 3};
  for (size_t i = 0; i < COUNT(staleness) * COUNT(intervals); i++) {
    int s = staleness[i / 2], interval = intervals[i % 2];
    char options[256];
    snprintf(options, sizeof options,
             "method=kfac apply=factored step=plain momentum=0 factor_update_steps=1 inv_update_steps=%d staleness=%d",
             interval, s);
    for (int step = 0; step < STEPS; step++) {
      for (int l = 0; l < RUN_LAYERS; l++) alone[step][l] = expected(step, l, 10, s, interval);
    }
    for (int c = 0; c < run_size(MPI_COMM_WORLD); c++) {
      double distance = run_split(options, 10, c, true) ? run_distance(STEPS, V, alone) : 0;
      mpi_assert_msg(distance < TOLERANCE, "%s, %d curvature ranks: %.1e", options, c, distance);
    }
  }
}
END_TEST

/* ---- against one rank ---- */

/* More workers than rows from 3 ranks on. */
START_TEST(every_split_gives_the_directions_of_one_rank) {
  static const char *const some[] = {
      "method=kfac step=kl-clip kl_clip=1e-4 momentum=0.9",
      "method=kfac exponent_a=1 staleness=5",
      "method=nystrom-kfac eig_rank=4 oversampling=3 damping=1",
      "method=nystrom-kfac eig_rank=4 oversampling=3 damping=1 step=rms-clip kl_clip=0.1 staleness=2",
      "method=kfac skip=none momentum_place=caller",
      "method=kfac momentum_place=caller staleness=5 step=kl-clip"};
  for (size_t i = 0; i < 2 * COUNT(some); i++) {
    char options[256];
    int64_t rows = i % 2 ? 10 : 2;
    snprintf(options, sizeof options, "apply=factored factor_update_steps=1 inv_update_steps=1 %s", some[i / 2]);
    service_run one = run_of(options, 0);
    one.comm = MPI_COMM_SELF, one.rows = rows;
    mpi_assert(run_factored(&one, alone) == CURVD_OK);
    for (int c = 0; c < run_size(MPI_COMM_WORLD); c++) {
      double distance = run_split(options, rows, c, false) ? run_distance(STEPS, V, alone) : 0;
      mpi_assert_msg(distance < 1e-4, "%s, %d rows, %d curvature ranks: %.1e", options, (int)rows, c, distance);
    }
  }
}
END_TEST

/* When a refresh lands is a matter of timing, but it does on all workers together. */
START_TEST(free_running_workers_agree) {
  for (int c = 0; c < run_size(MPI_COMM_WORLD); c++)
    run_split("method=kfac apply=factored factor_update_steps=1 inv_update_steps=2 staleness=free staleness_max=3", 10,
              c, false);
}
END_TEST

/* A worker that has not preconditioned stops the step on all of them, before anything has happened. */
START_TEST(a_step_is_refused_on_all_workers) {
  service_run run = run_of("method=kfac apply=factored factor_update_steps=1 inv_update_steps=1", 0);
  int size = run_size(MPI_COMM_WORLD), rank = run_rank(MPI_COMM_WORLD);
  curvd_ctx *ctx = run_open(&run);
  curvd_gradient view[RUN_LAYERS];
  service_gradient g[RUN_LAYERS];
  curvd_status status = CURVD_OK;
  for (int l = 0; l < RUN_LAYERS; l++) {
    service_put(&run_layer[l], SERVICE_JOINED, dense_zero(run_layer[l].d_out, service_columns(&run_layer[l])), &g[l]);
    view[l] = g[l].view;
    if (rank != size - 1 || l != 1) status = precondition(ctx, &run, 0, l, 1, 0, &view[l]);
    mpi_assert(status == CURVD_OK);
  }
  status = curvd_step(ctx, 1, view, RUN_LAYERS);
  mpi_assert(status == (rank == size - 1 ? CURVD_ERR_STATE : CURVD_ERR_REMOTE));
  status = precondition(ctx, &run, 0, 1, 1, 0, &view[1]);
  mpi_assert(status == CURVD_OK);
  status = curvd_step(ctx, 1, view, RUN_LAYERS);
  mpi_assert(status == CURVD_OK);
  run_close(&ctx);
}
END_TEST

/* ---- the trainer ---- */

enum { TRAIN_STEPS = 60 };

typedef struct training {
  double loss[TRAIN_STEPS];
  trainer_score before, after; /* of the test set */
} training;

static curvd_status train_worker(trainer *t, training *out, cv_error *err) {
  out->before = trainer_evaluate(t);
  for (int i = 0; i < TRAIN_STEPS; i++) {
    CV_TRY(trainer_step(t, err));
    out->loss[i] = trainer_loss(t);
  }
  out->after = trainer_evaluate(t);
  return trainer_finish(t, err);
}

/* On a worker, out is the run. */
static curvd_status train(MPI_Comm comm, const char *more, int n_curvature, training *out, cv_error *err) {
  static trainer t;
  char text[512], *words[64];
  int n = 0;
  config c;
  snprintf(text, sizeof text,
           "--data teacher --teacher-samples 3000 --network 32-48-24-5 --activation tanh --steps %d --seed 3 "
           "--eig-rank 8 --curvature-ranks %d %s",
           (int)TRAIN_STEPS, n_curvature, more);
  for (char *word = strtok(text, " "); word; word = strtok(NULL, " ")) words[n++] = word;
  CV_TRY(config_load(n, words, &c, err));
  curvd_status status = trainer_create(&c, comm, &t, err);
  if (status == CURVD_OK) status = trainer_is_worker(&t) ? train_worker(&t, out, err) : trainer_serve(&t, err);
  trainer_free(&t);
  config_free(&c);
  return status;
}

static training replicated, factored, split, in_one_piece;

/* NaN counts as infinite. */
static double loss_distance(const training *x, const training *y) {
  double worst = 0;
  for (int i = 0; i < TRAIN_STEPS; i++) {
    double distance = fabs(x->loss[i] / y->loss[i] - 1);
    worst = isfinite(distance) ? fmax(worst, distance) : INFINITY;
  }
  return worst;
}

/* Losses of two splits part only by rounding, which smooth training at small steps does not amplify beyond 1e-4. */
static void check_split(const char *more, int n_curvature) {
  cv_error err = {0};
  memset(&split, 0, sizeof split);
  curvd_status status = train(MPI_COMM_WORLD, more, n_curvature, &split, &err);
  bool is_worker = run_rank(MPI_COMM_WORLD) < run_size(MPI_COMM_WORLD) - n_curvature;
  mpi_assert_msg(status == CURVD_OK, "%s: %s", more, err.text);
  double worst = is_worker ? loss_distance(&split, &factored) : 0;
  mpi_assert_msg(worst < 1e-4, "%s, %d curvature ranks: %.1e", more, n_curvature, worst);
}

START_TEST(training_learns_and_does_not_depend_on_the_split) {
  static const char *const some[] = {"--batch 50", "--batch 50 --accumulate 2",
                                     "--batch 50 --weight-decay-kind coupled-after", "--batch 50 --staleness 5",
                                     "--batch 2"}; /* workers without examples, from 3 on */
  for (size_t i = 0; i < COUNT(some); i++) {
    char more[128];
    cv_error err = {0};
    snprintf(more, sizeof more, "--lr 2e-4 --lr-decay constant --apply factored %s", some[i]);
    mpi_assert_msg(train(MPI_COMM_SELF, more, 0, &factored, &err) == CURVD_OK, "%s", err.text);
    if (i == 0) in_one_piece = factored;
    mpi_assert_msg(i != 1 || loss_distance(&factored, &in_one_piece) < 1e-4, "pieces make another run: %.1e",
                   loss_distance(&factored, &in_one_piece));
    for (int c = 0; c < run_size(MPI_COMM_WORLD); c++) check_split(more, c);
  }
}
END_TEST

/* At a learning rate that teaches: the factored run ends near the replicated one. 60 steps of the normalised recipe
 * halve the loss; momentum before or after preconditioning is worth a few points. */
START_TEST(training_is_about_as_good_as_the_replicated) {
  cv_error err = {0};
  const char *common = "--batch 50 --lr 5e-3", *more = "--batch 50 --lr 5e-3 --apply factored";
  mpi_assert_msg(train(MPI_COMM_SELF, common, 0, &replicated, &err) == CURVD_OK, "%s", err.text);
  mpi_assert_msg(train(MPI_COMM_SELF, more, 0, &factored, &err) == CURVD_OK, "%s", err.text);
  mpi_assert_msg(factored.after.loss < 0.7 * factored.before.loss, "the loss went from %g to %g", factored.before.loss,
                 factored.after.loss);
  mpi_assert_msg(factored.after.accuracy > replicated.after.accuracy - 3, "%g %%, replicated %g %%",
                 factored.after.accuracy, replicated.after.accuracy);
}
END_TEST

START_TEST(coupled_decay_is_refused) {
  cv_error err = {0};
  curvd_status status =
      train(MPI_COMM_SELF, "--apply factored --weight-decay-kind coupled --weight-decay 0.1", 0, &factored, &err);
  mpi_assert_msg(status == CURVD_ERR_OPTION && strstr(err.text, "coupled"), "%d: %s", (int)status, err.text);
}
END_TEST

/* ---- sketched statistics ---- */

enum { SKETCH_STEPS = 12, FACTORS = 2, NUMBERS = SKETCH_STEPS * RUN_LAYERS * FACTORS };

/* What is known of every factor after every step. Layers are captured on both sides of the first precondition call,
 * which is where a refresh lands. */
static curvd_status sketched_run(const char *apply, int n_curvature, double *lambda) {
  static service_gradient g[RUN_LAYERS];
  char options[256];
  snprintf(
      options, sizeof options,
      "method=nystrom-kfac carrier=sketch eig_rank=4 damping=1 momentum=0 factor_update_steps=2 inv_update_steps=4 "
      "staleness=2 apply=%s",
      apply);
  service_run run = run_of(options, n_curvature);
  curvd_ctx *ctx = run_open(&run);
  curvd_gradient view[RUN_LAYERS];
  curvd_status status = CURVD_OK;
  bool is_factored = kfac_is(apply, "factored"), is_worker = run_is_worker(ctx);
  for (int step = 0; is_worker && step < SKETCH_STEPS && status == CURVD_OK; step++) {
    for (int l = 0; l < RUN_LAYERS && status == CURVD_OK; l++) {
      service_put(&run_layer[l], SERVICE_JOINED, run_gradient(step, l, 0, run.rows), &g[l]);
      view[l] = g[l].view;
      if (is_factored) status = precondition(ctx, &run, step, l, 1, 0, &view[l]);
      int n = curvd_worker_count(ctx), w = curvd_worker_index(ctx);
      if (status == CURVD_OK)
        status = service_capture_part(ctx, l, run_inputs(step, l, run.rows), run_output_gradients(step, l, run.rows),
                                      run_cut(run.rows, n, w), run_cut(run.rows, n, w + 1));
    }
    if (status == CURVD_OK) status = curvd_step(ctx, 1, view, RUN_LAYERS);
    for (int i = 0; i < RUN_LAYERS * FACTORS; i++) *lambda++ = service_factor(ctx, i / FACTORS, i % FACTORS).lambda_max;
  }
  run_close(&ctx);
  return status;
}

/* Refreshes of steps 0, 4, 8 land in 2, 6, 10, which have statistics, too: in a factored run before the rows are
 * captured, otherwise after. What the owner makes of the rows is the same. */
START_TEST(sketches_do_not_depend_on_when_a_refresh_lands) {
  static double replicated_lambda[NUMBERS], factored_lambda[NUMBERS];
  for (int c = 0; c < run_size(MPI_COMM_WORLD); c++) {
    memset(replicated_lambda, 0, sizeof replicated_lambda);
    memset(factored_lambda, 0, sizeof factored_lambda);
    curvd_status one = sketched_run("replicated", c, replicated_lambda),
                 other = sketched_run("factored", c, factored_lambda);
    bool is_worker = run_rank(MPI_COMM_WORLD) < run_size(MPI_COMM_WORLD) - c;
    mpi_assert(one == CURVD_OK && other == CURVD_OK);
    mpi_assert(!is_worker || replicated_lambda[NUMBERS - FACTORS] > 0);
    mpi_assert_msg(memcmp(replicated_lambda, factored_lambda, sizeof factored_lambda) == 0,
                   "%d curvature ranks: other eigenvalues", c);
  }
}
END_TEST

static Suite *make_suite(void) {
  const TTest *const tests[] = {directions_at_every_staleness,
                                every_split_gives_the_directions_of_one_rank,
                                free_running_workers_agree,
                                sketches_do_not_depend_on_when_a_refresh_lands,
                                a_step_is_refused_on_all_workers,
                                training_learns_and_does_not_depend_on_the_split,
                                training_is_about_as_good_as_the_replicated,
                                coupled_decay_is_refused};
  return service_suite("factored ranks", tests, COUNT(tests));
}

int main(int argc, char **argv) {
  return mpi_test_main(argc, argv, make_suite);
}
