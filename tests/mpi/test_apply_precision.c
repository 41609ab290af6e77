/* apply_precision on every split of the ranks, for every way to apply: directions in bf16 are those of fp32 to what
 * rounding explains, and not the same; three products come 100 times closer. Packed operands are made anew from what a
 * checkpoint brings.
 *
 * Bound: products of random bf16 numbers are off by 2.4e-3 of their size (multiply.h). Factors of n <= 25, damped by
 * their mean eigenvalue, have a condition of at most 26, of half powers 5.1; both sides may make an error 26 times as
 * long as the shortest direction of a gradient. */
#include "state_fixture.h"

#include "base/status.h"

#define COUNT(list) (sizeof list / sizeof list[0])

enum { STEPS = 6, ROWS = 10, SAVED = 3 };

static const double BF16_BOUND = 2.4e-3 * 26, BF16_LEAST = 2e-4;

static const char base[] = "factor_update_steps=1 inv_update_steps=2 damping=1 exponent_a=0.5 exponent_g=0.5";
static const char *const ways[] = {"apply=replicated", "apply=sharded", "apply=factored"};

/* Both sides full; both low; only one; and lengths that a clip or the norm sets. */
static const char *const kinds[] = {
    "method=kfac step=plain momentum=0",
    "method=nystrom-kfac eig_rank=4 oversampling=2 full_share=1 step=plain momentum=0",
    "method=nystrom-kfac eig_rank=14 oversampling=2 step=normalised momentum=0.9",
    "method=rs-kfac eig_rank=4 oversampling=2 full_share=1 step=kl-clip kl_clip=1e-4 staleness=1"};

static int size, rank;
static dense fp32[STEPS][RUN_LAYERS], mine[STEPS][RUN_LAYERS], other[STEPS][RUN_LAYERS];
static state_store saved;

/* ---- a run ---- */

static dense summed(dense a, dense g, const service_layer *layer) {
  dense one = dense_zero(a.m, service_columns(layer));
  for (int64_t i = 0; i < a.m; i++) {
    for (int64_t j = 0; j < one.n; j++) one.x[i][j] = j < a.n ? a.x[i][j] : 1;
  }
  return dense_product(dense_transposed(g), one);
}

static dense rows_of(dense X, int64_t from, int64_t to) {
  dense Y = dense_zero(to - from, X.n);
  for (int64_t i = from; i < to; i++) memcpy(Y.x[i - from], X.x[i], sizeof X.x[i]);
  return Y;
}

/* This worker's rows, preconditioned or told of with the sum over them. */
static curvd_status give_rows(curvd_ctx *ctx, int step, int l, service_gradient *to) {
  static float a[DENSE_MAX * SERVICE_LD_MAX], g[DENSE_MAX * SERVICE_LD_MAX];
  const service_layer *layer = &run_layer[l];
  int n = curvd_worker_count(ctx), w = curvd_worker_index(ctx);
  int64_t from = run_cut(ROWS, n, w), end = run_cut(ROWS, n, w + 1);
  dense inputs = rows_of(run_inputs(100 + step, l, ROWS), from, end),
        outputs = rows_of(run_output_gradients(100 + step, l, ROWS), from, end);
  int64_t lda = layer->d_in + SERVICE_PAD, ldg = layer->d_out + SERVICE_PAD;
  service_floats(inputs, 0, end - from, a);
  service_floats(outputs, 0, end - from, g);
  service_put(layer, SERVICE_APART, summed(inputs, outputs, layer), to);
  if (curvd_is_factored(ctx, l)) return curvd_precondition(ctx, l, end - from, a, lda, g, ldg, 1, 0, &to->view);
  return curvd_capture_gradient(ctx, l, end - from, a, lda, g, ldg, 1);
}

static curvd_status one_step(curvd_ctx *ctx, const service_run *run, int step, dense *D) {
  static service_gradient g[RUN_LAYERS];
  curvd_gradient view[RUN_LAYERS] = {{.weight = NULL}};
  CV_TRY(run_capture(ctx, run, step));
  for (int l = 0; l < RUN_LAYERS; l++) {
    CV_TRY(give_rows(ctx, step, l, &g[l]));
    view[l] = g[l].view;
  }
  CV_TRY(curvd_step(ctx, 0.1, view, RUN_LAYERS));
  for (int l = 0; l < RUN_LAYERS; l++) D[l] = service_take(&run_layer[l], &g[l]);
  return CURVD_OK;
}

static curvd_status steps(curvd_ctx *ctx, const service_run *run, int from, int save, dense (*D)[RUN_LAYERS]) {
  for (int step = from; step < STEPS; step++) {
    if (step == save) CV_TRY(curvd_save(ctx));
    CV_TRY(one_step(ctx, run, step, D[step]));
  }
  return CURVD_OK;
}

typedef enum beginning { FROM_BEGINNING, FROM_CHECKPOINT, BACK_TO_CHECKPOINT } beginning;

/* All steps, or those behind a load, by a new context or one that has done them all; no step allocates. */
static curvd_status live(const service_run *run, beginning from, int save, dense (*D)[RUN_LAYERS]) {
  curvd_ctx *ctx = run_make(run);
  ck_assert_msg(curvd_plan(ctx) == CURVD_OK, "%s: %s", run->options, curvd_last_error(ctx));
  state_hook(ctx, &saved);
  curvd_status status = CURVD_OK;
  bool is_worker = run_is_worker(ctx);
  if (is_worker && from == BACK_TO_CHECKPOINT) status = steps(ctx, run, 0, -1, D);
  if (is_worker && from != FROM_BEGINNING && status == CURVD_OK) status = curvd_load(ctx, SAVED);
  int64_t before = service_metrics(ctx).n_allocations;
  if (is_worker && status == CURVD_OK) status = steps(ctx, run, from == FROM_BEGINNING ? 0 : SAVED, save, D);
  if (status != CURVD_OK) fprintf(stderr, "rank %d: %s\n", rank, curvd_last_error(ctx));
  if (is_worker && save < 0) ck_assert_int_eq(service_metrics(ctx).n_allocations, before);
  run_close(&ctx);
  return status;
}

static void spell(char text[512], const char *kind, const char *way, const char *precision, const char *unit) {
  snprintf(text, 512, "%s %s %s apply_precision=%s matrix_unit=%s", base, kind, way, precision, unit);
}

/* Distance from fp32 on this worker; 0 on others. Every worker has the same bits. */
static double distance_of(const char *kind, const char *way, const char *precision, const char *unit, int c) {
  static dense of_rank_0[STEPS][RUN_LAYERS];
  char text[512];
  bool is_worker = rank < size - c;
  spell(text, kind, way, precision, unit);
  service_run run = run_of(text, c);
  memset(mine, 0, sizeof mine);
  mpi_assert_msg(live(&run, FROM_BEGINNING, -1, mine) == CURVD_OK, "%s", text);
  memcpy(of_rank_0, mine, sizeof of_rank_0);
  MPI_Bcast(of_rank_0, sizeof of_rank_0, MPI_BYTE, 0, MPI_COMM_WORLD);
  mpi_assert_msg(!is_worker || memcmp(of_rank_0, mine, sizeof mine) == 0, "%s: other bits than on rank 0", text);
  return is_worker ? run_distance(STEPS, mine, fp32) : 0;
}

/* ---- tests ---- */

static void check_precisions(const char *kind, const char *way, int c) {
  char text[512];
  bool is_worker = rank < size - c;
  spell(text, kind, way, "fp32", "auto");
  service_run run = run_of(text, c);
  mpi_assert_msg(live(&run, FROM_BEGINNING, -1, fp32) == CURVD_OK, "%s", text);
  double bf16 = distance_of(kind, way, "bf16", "auto", c), portable = distance_of(kind, way, "bf16", "portable", c),
         three = distance_of(kind, way, "bf16x3", "auto", c);
  mpi_assert_msg(!is_worker || (bf16 > BF16_LEAST && bf16 < BF16_BOUND), "%s, %d curvature ranks: bf16 off by %.1e",
                 text, c, bf16);
  mpi_assert_msg(!is_worker || (portable > BF16_LEAST && portable < BF16_BOUND),
                 "%s, %d curvature ranks: portable off by %.1e", text, c, portable);
  mpi_assert_msg(!is_worker || three < bf16 / 100, "%s, %d curvature ranks: %.1e, three products %.1e", text, c, bf16,
                 three);
}

/* All splits for one kind, another one of them for each of the others. */
START_TEST(directions_are_those_of_fp32) {
  for (size_t i = 0; i < COUNT(kinds) * COUNT(ways); i++) {
    for (int c = 0; c < size; c++) {
      if (i / COUNT(ways) == 1 || c == (int)(i % (size_t)size))
        check_precisions(kinds[i / COUNT(ways)], ways[i % COUNT(ways)], c);
    }
  }
}
END_TEST

START_TEST(inverses_are_multiplied_alike) {
  static const char dense_inverse[] = "method=kfac form=cholesky damping_mode=pi damping=1 exponent_a=1 exponent_g=1 "
                                      "step=plain momentum=0";
  for (int i = 0; i < 2; i++) check_precisions(dense_inverse, ways[i], 0);
}
END_TEST

/* Saved between two refreshes, so that those in force come by load alone. */
static void check_load(const char *kind, const char *way, const char *precision, int c) {
  char text[512];
  bool is_worker = rank < size - c;
  spell(text, kind, way, precision, "auto");
  service_run run = run_of(text, c);
  state_clear(&saved);
  mpi_assert_msg(live(&run, FROM_BEGINNING, SAVED, mine) == CURVD_OK, "%s", text);
  state_gather(MPI_COMM_WORLD, &saved);
  for (int back = 0; back < 2; back++) {
    memset(other, 0, sizeof other);
    mpi_assert_msg(live(&run, back ? BACK_TO_CHECKPOINT : FROM_CHECKPOINT, -1, other) == CURVD_OK, "%s", text);
    mpi_assert_msg(!is_worker || memcmp(mine[SAVED], other[SAVED], sizeof mine[0] * (STEPS - SAVED)) == 0,
                   "%s, %d curvature ranks: other bits after a load, back %d", text, c, back);
  }
}

START_TEST(a_checkpoint_goes_on_with_the_same_bits) {
  for (size_t i = 0; i < 2 * COUNT(ways); i++)
    check_load(kinds[i % 2], ways[i / 2], i % 2 ? "bf16" : "bf16x3", (int)(i % (size_t)size));
}
END_TEST

static Suite *make_suite(void) {
  const TTest *const tests[] = {directions_are_those_of_fp32, inverses_are_multiplied_alike,
                                a_checkpoint_goes_on_with_the_same_bits};
  size = run_size(MPI_COMM_WORLD);
  rank = run_rank(MPI_COMM_WORLD);
  return service_suite("apply precision", tests, COUNT(tests));
}

int main(int argc, char **argv) {
  return mpi_test_main(argc, argv, make_suite);
}
