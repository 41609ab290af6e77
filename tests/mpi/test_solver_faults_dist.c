/* Solvers over a grid that fail, or return garbage with info 0, on all owners or on one; averages that went bad in
 * memory on some: all ranks go on together, with the right preconditioner or the previous one. Each test goes through
 * every number of curvature ranks that leaves a worker. */
#include "lapack_faults.h"

#include "spread_fixture.h"

#define COUNT(list) (sizeof list / sizeof list[0])

static int size, rank;
static spread_directions V;

/* Each case with one split of the ranks: a test takes seconds. */
static bool is_tried(int c, int i) {
  return (i + c) % size == 0;
}

/* ---- pssyevd_ ---- */

static fault fault_pssyevd = {.last = -1};

void pssyevd_(const char *jobz, const char *uplo, const int *n, float *A, const int *ia, const int *ja,
              const int *desc_a, float *w, float *Z, const int *iz, const int *jz, const int *desc_z, float *work,
              const int *lwork, int *iwork, const int *liwork, int *info, size_t, size_t);
typedef void (*pssyevd_type)(const char *, const char *, const int *, float *, const int *, const int *, const int *,
                             float *, float *, const int *, const int *, const int *, float *, const int *, int *,
                             const int *, int *, size_t, size_t);

/* All n columns of Z are here, `ld` apart; pairs ascend, so the last ones lead. It is collective: also a call that is
 * to leave everything untouched is made, and its results thrown away. */
void pssyevd_(const char *jobz, const char *uplo, const int *n, float *A, const int *ia, const int *ja,
              const int *desc_a, float *w, float *Z, const int *iz, const int *jz, const int *desc_z, float *work,
              const int *lwork, int *iwork, const int *liwork, int *info, size_t a, size_t b) {
  bool is_now = fault_is_now(&fault_pssyevd);
  fault_kind kind = fault_pssyevd.kind == FAULT_UNTOUCHED ? FAULT_ZERO : fault_pssyevd.kind;
  void *real = fault_real("pssyevd_");
  pssyevd_type call;
  memcpy(&call, &real, sizeof call);
  call(jobz, uplo, n, A, ia, ja, desc_a, w, Z, iz, jz, desc_z, work, lwork, iwork, liwork, info, a, b);
  if (!is_now) return;
  for (int64_t i = 0; i < *n; i++) w[i] = kind == FAULT_SCALED && w[i] < 0 ? 0 : w[i];
  ssyevd_spoil(kind, *n, desc_z[8], Z, w);
  if (kind == FAULT_INFO) *info = 3;
}

/* ---- runs with faults in their second step ---- */

typedef struct log_lines {
  int n;
  char text[16][480];
} log_lines;

static void keep_line(void *user, int level, const char *line) {
  log_lines *lines = user;
  (void)level;
  if (lines->n < (int)COUNT(lines->text)) snprintf(lines->text[lines->n++], sizeof lines->text[0], "%s", line);
}

typedef struct outcome {
  curvd_status status;
  double error[3];              /* of the steps: before, spoilt, after */
  bool is_kept;                 /* the direction of the spoilt step has the bits of that before */
  int64_t events[CURVD_EVENTS]; /* after the spoilt step */
} outcome;

static double right[SPREAD_LAYERS][SPREAD_FLOATS]; /* directions of step 0, in every run here */

static void make_reference(void) {
  spread_run run = spread_run_of(&spread_plain, 0, "");
  for (int l = 0; l < SPREAD_LAYERS; l++) spread_reference(&run, &spread_plain, 1, 0, l, right[l]);
}

static double error_of(float (*x)[SPREAD_FLOATS]) {
  double worst = 0;
  for (int l = 0; l < SPREAD_LAYERS; l++)
    worst = fmax(worst, spread_error(spread_n(l, CV_A) * spread_n(l, CV_G), x[l], right[l]));
  return worst;
}

typedef void (*injury)(curvd_ctx *ctx, bool is_begin); /* on workers, around the second step */

/* The statistics of step 0 in every step, and its gradient: all directions are equal when all is well. */
static outcome live(curvd_ctx *ctx, const spread_run *run, injury hurt) {
  outcome o = {.status = CURVD_OK};
  for (int step = 0; step < 3 && o.status == CURVD_OK; step++) {
    if (hurt && step > 0) hurt(ctx, step == 1);
    o.status = spread_capture(ctx, run, 0);
    if (o.status == CURVD_OK) o.status = spread_step(ctx, 0, V.x[step]);
    o.error[step] = error_of(V.x[step]);
    if (step == 1) memcpy(o.events, service_metrics(ctx).events, sizeof o.events);
  }
  o.is_kept = memcmp(V.x[0], V.x[1], sizeof V.x[0]) == 0;
  return o;
}

static outcome check_life(const spread_run *run, injury hurt, fault *routine, log_lines *lines) {
  outcome o = {.status = CURVD_OK};
  curvd_ctx *ctx = spread_open(run);
  if (routine) routine->clock = &ctx->step, routine->hour = 1;
  curvd_log_to(ctx, keep_line, lines, 1);
  if (spread_is_worker(ctx, &o.status)) {
    o = live(ctx, run, hurt);
    curvd_finish(ctx);
  }
  curvd_destroy(&ctx);
  fault_disarm();
  fault_pssyevd = (fault){.last = -1};
  return o;
}

/* Workers have heard the same. */
static void check_same_events(const outcome *o, const spread_run *run) {
  int64_t of_first[CURVD_EVENTS];
  memcpy(of_first, o->events, sizeof of_first);
  MPI_Bcast(of_first, CURVD_EVENTS, MPI_INT64_T, 0, MPI_COMM_WORLD);
  bool is_worker = rank < size - run->n_curvature;
  mpi_assert_msg(!is_worker || memcmp(of_first, o->events, sizeof of_first) == 0, "%s: other events than on rank 0",
                 run->options);
}

static void check_well(const outcome *o, const spread_run *run, const char *what) {
  mpi_assert_msg(o->status == CURVD_OK, "%s, %s: %s", run->options, what, curvd_status_name(o->status));
  for (int i = 0; i < 3; i++)
    mpi_assert_msg(o->error[i] < spread_tolerance, "%s, %s, step %d: %.1e", run->options, what, i, o->error[i]);
  check_same_events(o, run);
}

static bool is_hit(int which, int n_owners, int owner) {
  return owner >= 0 && (which == 2 || owner == (which == 0 ? 0 : n_owners - 1));
}

static const char *const hit_name[] = {"the first owner", "the last owner", "all owners"};

/* Every fault of the first owner, who decides, and every code of any. */
static bool is_heard(int which, fault_kind kind) {
  return which != 1 || kind == FAULT_INFO;
}

/* Nothing stands behind the exact solver over a grid: the previous preconditioner is kept, bit by bit. What the last
 * owner returns may not matter: its values, or an empty piece. */
static void check_exact(int c, int which, fault_kind kind) {
  spread_run run = spread_run_of(&spread_plain, c, "method=kfac grid_min_n=2");
  int n_owners = spread_owners(&run), owner = c == 0 ? rank : rank - (size - c);
  log_lines lines = {0};
  char what[80];
  int64_t counts[2], most[2];
  snprintf(what, sizeof what, "pssyevd %s on %s", fault_name[kind], hit_name[which]);
  fault_arm(&fault_pssyevd, kind, 0, is_hit(which, n_owners, owner) ? 1000 : -1);
  outcome o = check_life(&run, NULL, &fault_pssyevd, &lines);
  check_well(&o, &run, what);
  counts[0] = o.events[CURVD_EVENT_KEPT_PREVIOUS], counts[1] = lines.n;
  MPI_Allreduce(counts, most, 1, MPI_INT64_T, MPI_MAX, MPI_COMM_WORLD);
  MPI_Allreduce(counts + 1, most + 1, 1, MPI_INT64_T, MPI_SUM, MPI_COMM_WORLD);
  bool is_worker = rank < size - c, is_lost = most[0] == SPREAD_LAYERS * CV_FACTORS;
  mpi_assert_msg(is_lost || n_owners == 1 || !is_heard(which, kind), "%s, %d curvature ranks: %d kept", what, c,
                 (int)most[0]);
  mpi_assert_msg(!is_worker || !is_lost || o.is_kept, "%s: the direction moved", what);
  mpi_assert_msg(most[1] == most[0], "%s: %d lines, %d kept", what, (int)most[1], (int)most[0]);
  mpi_assert(lines.n == 0 || (strstr(lines.text[0], "layer fc") && strstr(lines.text[0], "step 1,") &&
                              strstr(lines.text[0], "exact over a grid")));
}

START_TEST(exact_solver_over_the_grid_is_spoilt) {
  for (int c = 0; c < size; c++) {
    for (int i = 0; i < 3 * FAULT_KINDS; i++) {
      if (is_tried(c, i)) check_exact(c, i / FAULT_KINDS, (fault_kind)(i % FAULT_KINDS));
    }
  }
}
END_TEST

/* The small matrices of a sketch live on the first owner; the exact solver over the grid stands behind. */
static void check_sketch(const char *method, int c, fault *routine, fault_kind kind) {
  spread_run run = spread_run_of(&spread_plain, c, method);
  log_lines lines = {0};
  fault_arm(routine, kind, 0, 1000);
  outcome o = check_life(&run, NULL, routine, &lines);
  bool is_worker = rank < size - c;
  check_well(&o, &run, fault_name[kind]);
  int64_t kept = is_worker && spread_owners(&run) > 1 ? o.events[CURVD_EVENT_KEPT_PREVIOUS] : 0;
  mpi_assert_msg(kept == 0, "%s: %d kept", run.options, (int)kept);
  mpi_assert(kind != FAULT_INFO || routine != &fault_dsyevd || !is_worker || spread_owners(&run) == 1 ||
             o.events[CURVD_EVENT_EXACT_FALLBACK] == 4);
}

START_TEST(sketches_over_the_grid_are_spoilt) {
  static const char *const some[] = {"method=rs-kfac grid_min_n=2 grid_product=slab",
                                     "method=nystrom-kfac grid_min_n=2 grid_product=scalapack",
                                     "method=sre-kfac grid_min_n=2 grid_product=auto"};
  for (int c = 0; c < size; c++) {
    for (int i = 0; i < 2 * FAULT_KINDS; i++) {
      if (is_tried(c, i / 2))
        check_sketch(some[i % (int)COUNT(some)], c, i % 2 ? &fault_dpotrf : &fault_dsyevd, (fault_kind)(i / 2));
    }
  }
}
END_TEST

/* ---- averages that went bad ---- */

static int n_bad;
static float good[2];

/* The first number of A of fc1 on the first n_bad owners, where it has a piece. */
static void spoil_average(curvd_ctx *ctx, bool is_begin) {
  cv_factor *A = &ctx->layer[1].factor[CV_A];
  int owner = cv_comm_my_owner(&ctx->comm);
  if (owner < 0 || owner >= n_bad || A->own.cols == 0 || !A->own.average) return;
  if (is_begin) good[0] = A->own.average[0];
  A->own.average[0] = is_begin ? (owner % 2 ? INFINITY : NAN) : good[0];
}

/* Workers own the factors: the average can be mended before the third step. */
START_TEST(average_that_is_bad_on_some_owners) {
  static const char *const some[] = {"method=kfac grid_min_n=100",
                                     "method=nystrom-kfac grid_min_n=100 grid_product=slab",
                                     "method=rs-kfac grid_min_n=100 grid_product=scalapack",
                                     "method=sre-kfac grid_min_n=100 grid_product=slab skip_error=0.1"};
  for (n_bad = 1; size > 1 && n_bad <= size && n_bad <= 4; n_bad++) {
    for (size_t i = (size_t)n_bad % 2; i < COUNT(some); i += 2) {
      spread_run run = spread_run_of(&spread_plain, 0, some[i]);
      log_lines lines = {0};
      outcome o = check_life(&run, spoil_average, NULL, &lines);
      check_well(&o, &run, "bad average");
      mpi_assert_msg(o.events[CURVD_EVENT_KEPT_PREVIOUS] == 1, "%s, %d bad: %d kept", run.options, n_bad,
                     (int)o.events[CURVD_EVENT_KEPT_PREVIOUS]);
      mpi_assert(o.events[CURVD_EVENT_EXACT_FALLBACK] == (i > 0));
    }
  }
}
END_TEST

/* On curvature ranks from the beginning, for ever (average zero keeps it): that side stays the identity. */
START_TEST(average_that_is_bad_from_the_beginning) {
  for (int c = 2; c < size; c++) {
    spread_run run = spread_run_of(&spread_plain, c,
                                   c % 2 ? "method=kfac grid_min_n=2 average=zero"
                                         : "method=nystrom-kfac grid_min_n=2 average=zero");
    curvd_status status;
    int64_t kept = 3, rank_of_a = 0, rank_of_g = 1;
    curvd_ctx *ctx = spread_open(&run);
    n_bad = 1 + c / 2;
    spoil_average(ctx, true);
    if (spread_is_worker(ctx, &status)) {
      for (int step = 0; step < 3 && status == CURVD_OK; step++) status = spread_feed(ctx, &run, step, V.x[step]);
      kept = service_metrics(ctx).events[CURVD_EVENT_KEPT_PREVIOUS];
      rank_of_a = service_factor(ctx, 1, CV_A).eig_rank;
      rank_of_g = service_factor(ctx, 1, CV_G).eig_rank;
      curvd_finish(ctx);
    }
    curvd_destroy(&ctx);
    mpi_assert(status == CURVD_OK);
    mpi_assert_msg(kept == 3 && rank_of_a == 0 && rank_of_g > 0, "%d kept, ranks %d and %d", (int)kept, (int)rank_of_a,
                   (int)rank_of_g);
  }
}
END_TEST

static Suite *make_suite(void) {
  const TTest *const tests[] = {exact_solver_over_the_grid_is_spoilt, sketches_over_the_grid_are_spoilt,
                                average_that_is_bad_on_some_owners, average_that_is_bad_from_the_beginning};
  size = spread_size();
  rank = spread_rank();
  make_reference();
  return service_suite("solver faults over a grid", tests, COUNT(tests));
}

int main(int argc, char **argv) {
  return mpi_test_main(argc, argv, make_suite);
}
