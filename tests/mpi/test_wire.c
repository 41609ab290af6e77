/* wire_precision bf16 on every split of the ranks: sums, directions against those of fp32, what is said of the error,
 * and what stays fp32. Bytes are those of the plan (test_plan_bytes.c, test_carriers.c); saved states and changed bits
 * have their own tests (test_state.c, test_guard.c).
 *
 * Bound of directions: a rounded number is off by 1.7e-3 of itself, root mean square, a sum that is rounded r times by
 * sqrt(r) times that: at most 2.4e-3 as with two ranks, 3.4e-3 with four. Factors of n <= 25, damped by their mean
 * eigenvalue, have a condition of at most 26; half of the powers' own, 13, on both sides. */
#include "spread_fixture.h"
#include "state_fixture.h"

#include "comm/coll.h"
#include "product/bf16.h"

#define COUNT(list) (sizeof list / sizeof list[0])

enum { STEPS = 5, ROWS = 10 };

static const double BOUND = 3.4e-3 * 26, LEAST = 1e-4;

static int size, rank;
static dense fp32[STEPS][RUN_LAYERS], bf16[STEPS][RUN_LAYERS];

/* ---- sums ---- */

enum { EXACT = 5, ROUNDED = 70001 };

/* Number i of worker w, one that bf16 has. */
static float number(int w, int64_t i) {
  const cv_rng rng = {.seed = 7, .stream = CV_RNG_PROBE};
  double x = 2 * cv_rng_uniform(&rng, (uint64_t)(w * ROUNDED + i)) - 1;
  return (float)ldexp(rint(ldexp(x, 8)), -8 + (int)(i % 5));
}

/* Has more digits than bf16; sums over 16 workers have fewer than 2^24. */
static float exact_number(int w, int64_t i) {
  return (float)(100003 * (w + 1) + i);
}

typedef struct sum_case {
  cv_comm comm;
  cv_memory memory;
  float *x, *inbox;
  double error; /* largest, over the sum of the magnitudes */
  int n_off;    /* sums that are not fp32's */
  int n_wrong;  /* of numbers that are never rounded */
} sum_case;

static void fill(sum_case *s) {
  int w = s->comm.rank;
  memset(s->x, 0, (EXACT + ROUNDED) * sizeof *s->x);
  if (!cv_comm_is_worker(&s->comm)) return;
  uint16_t *rounded = (uint16_t *)(void *)(s->x + EXACT);
  for (int64_t i = 0; i < EXACT; i++) s->x[i] = exact_number(w, i);
  for (int64_t i = 0; i < ROUNDED; i++) rounded[i] = cv_round_bf16(number(w, i));
}

static void judge(sum_case *s) {
  int n = s->comm.n_workers;
  for (int64_t i = 0; i < EXACT; i++) {
    double sum = 0;
    for (int w = 0; w < n; w++) sum += (double)exact_number(w, i);
    s->n_wrong += (double)s->x[i] != sum;
  }
  for (int64_t i = 0; i < ROUNDED; i++) {
    double sum = 0, all = 0;
    for (int w = 0; w < n; w++) sum += number(w, i), all += fabs((double)number(w, i));
    double error = fabs((double)s->x[EXACT + i] - sum);
    s->n_off += error > 0;
    if (all > 0) s->error = fmax(s->error, error / all);
  }
}

static void check_sum(int n_curvature) {
  sum_case s = {.x = malloc((EXACT + ROUNDED) * sizeof *s.x), .inbox = malloc((EXACT + ROUNDED) * sizeof *s.x)};
  cv_error err = {0};
  cv_transfer transfer;
  ck_assert_int_eq(cv_comm_create(MPI_COMM_WORLD, &s.comm, &err), CURVD_OK);
  ck_assert_int_eq(cv_comm_split(&s.comm, n_curvature, &s.memory, &err), CURVD_OK);
  ck_assert_int_eq(cv_comm_connect(&s.comm, 0, &err), CURVD_OK);
  bool is_owner = cv_comm_my_owner(&s.comm) == 0, takes_part = cv_comm_is_worker(&s.comm) || is_owner;
  fill(&s);
  curvd_status status = CURVD_OK;
  if (takes_part) {
    status = cv_coll_begin_reduce(&s.comm, 0, s.x, s.inbox, EXACT, ROUNDED, &transfer, &err);
    if (status == CURVD_OK) status = cv_coll_end(&transfer, CV_WAIT_ACTIVE, &err);
  }
  bool is_any = size > 1 && is_owner, is_of_parts = cv_coll_sums_parts(&s.comm);
  if (is_any) judge(&s);
  int roundings = cv_coll_roundings(&s.comm), n_workers = s.comm.n_workers;
  cv_comm_free(&s.comm, &s.memory);
  free(s.x);
  free(s.inbox);
  mpi_assert_msg(status == CURVD_OK, "%s", err.text);
  mpi_assert_msg(s.n_wrong == 0, "%d curvature ranks: %d sums of fp32 numbers are wrong", n_curvature, s.n_wrong);
  mpi_assert_msg(!is_any || s.error <= roundings * CV_BF16_ROUNDING, "%d curvature ranks: error %.1e in %d roundings",
                 n_curvature, s.error, roundings);
  bool is_rounded = is_any && !is_of_parts && n_workers > 1;
  mpi_assert_msg((s.n_off > 0) == is_rounded, "%d curvature ranks: %d sums are not fp32's", n_curvature, s.n_off);
}

START_TEST(sums_are_off_by_their_roundings) {
  for (int c = 0; c < size; c++) check_sum(c);
}
END_TEST

/* ---- runs ---- */

typedef enum rounded { NOTHING = 0, STATISTIC = 1, BASIS = 2, BOTH = 3 } rounded;

/* What of factor A of fc0 (n = 25) is rounded. Ranks of randomized solvers are so large for this n that triangles stay
 * fp32. */
static const struct {
  const char *options;
  rounded what;
  bool is_local;
} kinds[] = {{"method=kfac carrier=triangle", BOTH, false},
             {"method=kfac carrier=columns", BOTH, false},
             {"method=kfac carrier=local", BASIS, true},
             {"method=kfac carrier=triangle route=gradients", BASIS, false},
             {"method=kfac carrier=columns route=gradients", BOTH, false},
             {"method=kfac carrier=triangle form=cholesky exponent_a=1 exponent_g=1", STATISTIC, false},
             {"method=kfac carrier=triangle apply=sharded staleness=1 inv_update_steps=2", BOTH, false},
             {"method=nystrom-kfac eig_rank=4 carrier=triangle full_share=1", BASIS, false},
             {"method=rs-kfac eig_rank=4 carrier=columns store=full full_share=1 staleness=2", BOTH, false},
             {"method=nystrom-kfac eig_rank=4 carrier=columns store=stream full_share=1", BOTH, false},
             {"method=nystrom-kfac eig_rank=4 carrier=sketch full_share=1", NOTHING, false},
             {"method=b-kfac eig_rank=6 full_share=1", BOTH, false},
             {"method=b-r-c-kfac eig_rank=6 full_share=1 staleness=1 average=id", BOTH, false}};

static void spell(char text[400], size_t kind, const char *precision) {
  snprintf(text, 400,
           "factor_update_steps=1 inv_update_steps=1 step=plain momentum=0 capture_rows=10 damping=1 exponent_a=0.5 "
           "exponent_g=0.5 integrity=all wire_precision=%s %s",
           precision, kinds[kind].options);
}

/* Every step's directions; and what the last one says of factor A of fc0. Workers compare what is in force. */
static curvd_factor_metrics live(size_t kind, const char *precision, int c, dense (*V)[RUN_LAYERS]) {
  char text[400];
  spell(text, kind, precision);
  service_run run = run_of(text, c);
  uint64_t hash = 0, of_first;
  curvd_ctx *ctx = run_open(&run);
  curvd_status status = CURVD_OK;
  bool is_worker = run_is_worker(ctx);
  memset(V, 0, STEPS * sizeof *V);
  for (int step = 0; step < STEPS && is_worker && status == CURVD_OK; step++) {
    status = run_step(ctx, &run, step, V[step]);
    if (status == CURVD_OK) status = curvd_check(ctx, &hash);
  }
  curvd_factor_metrics A = service_factor(ctx, 0, 0);
  curvd_metrics m = service_metrics(ctx);
  char why[480];
  snprintf(why, sizeof why, "%s", curvd_last_error(ctx));
  run_close(&ctx);
  of_first = hash;
  MPI_Bcast(&of_first, 1, MPI_UINT64_T, 0, MPI_COMM_WORLD);
  mpi_assert_msg(status == CURVD_OK, "%s, %d curvature ranks: %s", text, c, why);
  mpi_assert_msg(!is_worker || hash == of_first, "%s, %d curvature ranks: other bits than on rank 0", text, c);
  int64_t bad = m.events[CURVD_EVENT_REFUSED_STATISTICS] + m.events[CURVD_EVENT_LOST_STATISTICS] +
                m.events[CURVD_EVENT_EXACT_FALLBACK] + m.events[CURVD_EVENT_KEPT_PREVIOUS] +
                m.events[CURVD_EVENT_DAMAGED];
  mpi_assert_msg(bad == 0, "%s, %d curvature ranks: %d refusals or failures", text, c, (int)bad);
  return A;
}

/* Of one rounding of numbers without a pattern. */
static bool is_error(double error, bool is_rounded) {
  return is_rounded ? error > 0x1p-14 && error <= CV_BF16_ROUNDING : error == 0;
}

/* Other layers have factors of other sizes. */
static bool is_same_of_fc0(void) {
  bool is_same = true;
  for (int step = 0; step < STEPS; step++)
    is_same = is_same && memcmp(&fp32[step][0], &bf16[step][0], sizeof fp32[0][0]) == 0;
  return is_same;
}

static void check_kind(size_t kind, int c) {
  live(kind, "fp32", c, fp32);
  curvd_factor_metrics A = live(kind, "bf16", c, bf16);
  bool is_worker = rank<size - c, is_any = size> 1 && is_worker;
  bool is_route = strstr(kinds[kind].options, "gradients"), rides = is_route && size - c > 1;
  /* one worker's statistics ride on nothing */
  bool is_summed = (kinds[kind].what & STATISTIC) || (is_route && !rides);
  double distance = is_worker ? run_distance(STEPS, fp32, bf16) : 0;
  mpi_assert_msg(distance <= BOUND, "%s, %d curvature ranks: %.1e from fp32", kinds[kind].options, c, distance);
  bool differs = is_any && (is_summed || (kinds[kind].what & BASIS));
  mpi_assert_msg(!is_worker || (differs ? distance > LEAST : is_same_of_fc0()),
                 "%s, %d curvature ranks: %.1e from fp32", kinds[kind].options, c, distance);
  mpi_assert_msg(!is_worker || is_error(A.wire_error_statistics, is_any && is_summed),
                 "%s, %d curvature ranks: statistics are off by %.1e", kinds[kind].options, c, A.wire_error_statistics);
  mpi_assert_msg(!is_worker || is_error(A.wire_error_basis, is_any && (kinds[kind].what & BASIS)),
                 "%s, %d curvature ranks: eigenvectors are off by %.1e", kinds[kind].options, c, A.wire_error_basis);
}

START_TEST(every_carrier_and_store) {
  for (size_t i = 0; i < COUNT(kinds); i++) {
    for (int c = 0; c < (kinds[i].is_local ? 1 : size); c++) check_kind(i, c);
  }
}
END_TEST

/* ---- numbers that are rounded alike ---- */

/* All of them up, by 2e-3: eigenvalues grow with them, which solvers are only let do if the trace does, too. */
static void check_alike(const char *carrier, int c) {
  const float up = 1.0059f;
  char text[256];
  dense a = dense_zero(ROWS, run_layer[0].d_in), g = dense_zero(ROWS, run_layer[0].d_out);
  snprintf(text, sizeof text, "%s capture_rows=%d carrier=%s wire_precision=bf16", run_kfac, (int)ROWS, carrier);
  for (int64_t i = 0; i < ROWS; i++) {
    for (int64_t j = 0; j < a.n; j++) a.x[i][j] = up;
    for (int64_t j = 0; j < g.n; j++) g.x[i][j] = up;
  }
  service_run run = run_of(text, c);
  curvd_ctx *ctx = run_open(&run);
  curvd_status status = CURVD_OK;
  if (run_is_worker(ctx)) {
    int w = curvd_worker_index(ctx), n = curvd_worker_count(ctx);
    status = service_capture_part(ctx, 0, a, g, run_cut(ROWS, n, w), run_cut(ROWS, n, w + 1));
    run_gradients(ctx, &run, 0, bf16[0]);
    if (status == CURVD_OK) status = service_try(ctx, 0.1, SERVICE_APART, RUN_LAYERS, run_layer, bf16[0]);
  }
  curvd_metrics m = service_metrics(ctx);
  curvd_factor_metrics A = service_factor(ctx, 0, 0);
  bool is_worker = curvd_role_get(ctx) == CURVD_ROLE_WORKER;
  run_close(&ctx);
  mpi_assert(status == CURVD_OK);
  mpi_assert_msg(!is_worker ||
                     (m.events[CURVD_EVENT_KEPT_PREVIOUS] == 0 && m.events[CURVD_EVENT_RETRIED] == 0 &&
                      m.events[CURVD_EVENT_EXACT_FALLBACK] == 0 && m.events[CURVD_EVENT_REFUSED_STATISTICS] == 0),
                 "%s: a refresh was refused", text);
  mpi_assert_msg(!is_worker || (A.eig_rank == A.n && A.lambda_max <= A.trace * 1.001), "%s: %g of trace %g", text,
                 A.lambda_max, A.trace);
}

START_TEST(numbers_that_are_rounded_alike) {
  for (int c = 0; c < size; c++) {
    check_alike("triangle", c);
    check_alike("columns", c);
  }
}
END_TEST

/* ---- spread factors ---- */

static spread_directions whole, other, of_first;

/* Factors of 130, 70, 200 and 20; all modes are kept, so that rank is no matter. */
static void check_spread(const char *more, int c) {
  char options[256];
  snprintf(options, sizeof options, "grid_min_n=60 capture_rows=%d damping=1 exponent_a=0.5 exponent_g=0.5 %s",
           (int)SPREAD_ROWS, more);
  spread_run run = spread_run_of(&spread_plain, c, options);
  bool is_worker = rank < size - c;
  mpi_assert_msg(spread_all(&run, &whole) == CURVD_OK, "%s", run.options);
  strcat(run.options, " wire_precision=bf16");
  mpi_assert_msg(spread_all(&run, &other) == CURVD_OK, "%s", run.options);
  memcpy(&of_first, &other, sizeof other);
  MPI_Bcast(&of_first, sizeof of_first, MPI_BYTE, 0, MPI_COMM_WORLD);
  mpi_assert_msg(!is_worker || memcmp(&other, &of_first, sizeof other) == 0, "%s: other bits than on rank 0",
                 run.options);
  double distance = is_worker ? spread_distance(&run, &whole, &other) : 0;
  bool differs = size > 1 && is_worker;
  mpi_assert_msg(distance <= BOUND && (differs ? distance > LEAST : distance == 0), "%s: %.1e from fp32", run.options,
                 distance);
}

START_TEST(spread_factors) {
  static const char *const list[] = {"method=kfac", "method=kfac carrier=columns staleness=1",
                                     "method=rs-kfac carrier=columns", "method=rs-kfac", "method=nystrom-kfac"};
  for (size_t i = 0; i < COUNT(list); i++) {
    for (int c = 0; c < size; c++) check_spread(list[i], c);
  }
}
END_TEST

/* ---- states ---- */

static state_store saved;

/* Steps from .. STEPS - 1, saved in front of step save. */
static curvd_status steps(const char *options, int c, int from, int save, dense (*V)[RUN_LAYERS]) {
  service_run run = run_of(options, c);
  curvd_ctx *ctx = run_make(&run);
  ck_assert_msg(curvd_plan(ctx) == CURVD_OK, "%s: %s", options, curvd_last_error(ctx));
  state_hook(ctx, &saved);
  bool is_worker = run_is_worker(ctx);
  curvd_status status = is_worker && from > 0 ? curvd_load(ctx, from) : CURVD_OK;
  for (int step = from; step < STEPS && is_worker && status == CURVD_OK; step++) {
    if (step == save) status = curvd_save(ctx);
    if (status == CURVD_OK) status = run_step(ctx, &run, step, V[step]);
  }
  if (status != CURVD_OK) fprintf(stderr, "rank %d: %s\n", rank, curvd_last_error(ctx));
  run_close(&ctx);
  return status;
}

/* With a refresh under way: what was saved in one precision goes on in the other, near where it would have gone. */
START_TEST(a_state_goes_on_in_the_other_precision) {
  enum { SAVED = 3, AFTER = STEPS - SAVED };
  static const char *const precision[] = {"fp32", "bf16"};
  for (int i = 0; i < 2 * size; i++) {
    char text[2][400];
    int c = i / 2;
    for (int j = 0; j < 2; j++)
      snprintf(text[j], sizeof text[j],
               "method=kfac carrier=triangle factor_update_steps=1 inv_update_steps=1 staleness=2 step=plain "
               "momentum=0 damping=1 exponent_a=0.5 exponent_g=0.5 wire_precision=%s",
               precision[(i + j) % 2]);
    state_clear(&saved);
    mpi_assert(steps(text[0], c, 0, SAVED, fp32) == CURVD_OK);
    state_gather(MPI_COMM_WORLD, &saved);
    mpi_assert_msg(steps(text[1], c, SAVED, -1, bf16) == CURVD_OK, "%s", text[1]);
    double distance = rank < size - c ? run_distance(AFTER, fp32 + SAVED, bf16 + SAVED) : 0;
    mpi_assert_msg(distance <= BOUND, "%s: %.1e", text[1], distance);
  }
}
END_TEST

static Suite *make_suite(void) {
  const TTest *const tests[] = {sums_are_off_by_their_roundings, every_carrier_and_store,
                                numbers_that_are_rounded_alike, spread_factors, a_state_goes_on_in_the_other_precision};
  size = run_size(MPI_COMM_WORLD);
  rank = run_rank(MPI_COMM_WORLD);
  return service_suite("wire", tests, COUNT(tests));
}

int main(int argc, char **argv) {
  return mpi_test_main(argc, argv, make_suite);
}
