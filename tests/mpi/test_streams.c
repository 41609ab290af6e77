/* Streams in the service: what workers and owners make of sketches together, over all splits of the ranks, for all
 * kinds of intervals, against dense fp64. */
#include "lapack_faults.h"

#include "stream_emulation.h"

#define COUNT(list) (sizeof list / sizeof list[0])

static int size, rank;

static dense V[EMU_STEPS][RUN_LAYERS], W[EMU_STEPS][RUN_LAYERS];
static emu_factor emulated[RUN_LAYERS][CV_FACTORS];

static const char plain[] = "method=nystrom-kfac step=plain momentum=0 damping_mode=relative-mean exponent_a=1 "
                            "exponent_g=1 store=stream full_share=1";

/* ---- against the emulation ----
 *
 * With 48 examples in a step all k pairs are found, and the k-th eigenvalue is above 1 / 100 of the first. Rounding of
 * a product with the statistics, eps sqrt(48) of the first eigenvalue, is 1e-4 of the k-th one, which the history takes
 * over with the weight of the decay; damping by the mean eigenvalue divides that by the ratio of the first to the mean
 * one (10) in directions. A statistic in the wrong place, or of the wrong test matrix, changes directions by a tenth.
 */

static const double TOLERANCE = 1e-4;

static const emu_case usual = {.average = "norm", .decay = 0.7, .damping = 1, .r = 6, .k = 9};

/* text: (TEXT) the run's options */
enum { TEXT = 640 };

static carrier_run run_with(const emu_case *c, int n_steps, char *text) {
  snprintf(text, TEXT,
           "%s carrier=%s average=%s factor_decay=%.17g damping=%.17g eig_rank=%d oversampling=%d "
           "factor_update_steps=%d inv_update_steps=%d staleness=%d",
           plain, c->has_rows ? "columns" : "sketch", c->average, c->decay, c->damping, (int)c->r, (int)(c->k - c->r),
           c->statistics, c->refreshes, c->staleness);
  return (carrier_run){
      .base = {.comm = MPI_COMM_WORLD, .options = text, .n_steps = n_steps, .rows = 48}, .n_captures = 2, .turn = 2};
}

/* Of a service of this process alone: its test matrices are those of any layout. */
static void begin_emulation(const emu_case *c) {
  char text[TEXT];
  emu_case cold = *c;
  cold.has_rows = false, cold.staleness = 0;
  carrier_run run = run_with(&cold, 0, text);
  run.base.comm = MPI_COMM_SELF;
  curvd_ctx *ctx = carrier_open(&run);
  for (int i = 0; i < RUN_LAYERS * CV_FACTORS; i++) {
    const cv_factor *factor = &ctx->layer[i / CV_FACTORS].factor[i % CV_FACTORS];
    emu_begin(c, factor->n, factor->seed, factor->ld, &emulated[i / CV_FACTORS][i % CV_FACTORS]);
  }
  run_close(&ctx);
}

static void emulate(const emu_case *c, const carrier_run *run) {
  begin_emulation(c);
  for (int step = 0; step < run->base.n_steps; step++) emu_step(c, run, emulated, step, W[step]);
}

/* Directions of a split of the ranks are those of W. */
static void check_split(const emu_case *c, carrier_run run, int n_curvature) {
  run.base.n_curvature = n_curvature;
  curvd_status status = carrier_all(&run, V);
  mpi_assert_msg(status == CURVD_OK, "%s: %s", run.base.options, curvd_status_name(status));
  bool is_worker = rank < size - n_curvature;
  for (int step = 0; step < run.base.n_steps; step++) {
    double distance = is_worker ? run_distance(1, V + step, W + step) : 0;
    mpi_assert_msg(distance < TOLERANCE,
                   "%s, statistics %d, refreshes %d, staleness %d, %d curvature ranks, step %d: "
                   "%.1e",
                   c->has_rows ? "rows" : "sketches", c->statistics, c->refreshes, c->staleness, n_curvature, step,
                   distance);
  }
}

typedef struct intervals {
  int statistics, refreshes, staleness;
} intervals;

static emu_case case_of(const emu_case *of, intervals i, bool has_rows) {
  emu_case c = *of;
  c.statistics = i.statistics, c.refreshes = i.refreshes, c.staleness = i.staleness, c.has_rows = has_rows;
  return c;
}

/* Number i of a list, with one split of the ranks. */
static void check_intervals(const emu_case *of, intervals now, bool has_rows, size_t i) {
  emu_case c = case_of(of, now, has_rows);
  char text[TEXT];
  carrier_run run = run_with(&c, 24, text);
  emulate(&c, &run);
  check_split(&c, run, (int)i % size);
}

START_TEST(sketches_between_all_kinds_of_intervals) {
  static const intervals list[] = {{1, 1, 0},  {1, 3, 0},  {2, 3, 0},  {3, 2, 0},  {5, 2, 0},  {4, 4, 0},
                                   {1, 2, 1},  {3, 2, 1},  {5, 3, 1},  {1, 6, 1},  {2, 6, 1},  {3, 6, 1},
                                   {1, 6, 5},  {2, 6, 5},  {3, 6, 5},  {7, 6, 5},  {1, 10, 1}, {2, 10, 1},
                                   {3, 10, 1}, {1, 10, 5}, {2, 10, 5}, {3, 10, 5}, {6, 4, 3},  {4, 6, 2}};
  for (size_t i = 0; i < COUNT(list); i++) check_intervals(&usual, list[i], false, i);
}
END_TEST

START_TEST(rows_between_all_kinds_of_intervals) {
  static const intervals list[] = {{1, 1, 0}, {2, 3, 0}, {3, 2, 0}, {1, 6, 5}, {3, 10, 5}, {1, 2, 5}, {2, 3, 7}};
  for (size_t i = 0; i < COUNT(list); i++) check_intervals(&usual, list[i], true, i);
}
END_TEST

static Suite *make_suite(void) {
  const TTest *const tests[] = {sketches_between_all_kinds_of_intervals, rows_between_all_kinds_of_intervals};
  size = run_size(MPI_COMM_WORLD);
  rank = run_rank(MPI_COMM_WORLD);
  return service_suite("streams", tests, COUNT(tests));
}

int main(int argc, char **argv) {
  return mpi_test_main(argc, argv, make_suite);
}
