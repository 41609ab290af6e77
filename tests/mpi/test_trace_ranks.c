/* The flight recorder of real runs: every rank has what it did, in order; and a rank whose peer does not come shows
 * with whom, and in what, while its own thread is still inside. */
#include "base/clock.h"
#include "curvd_experimental.h"
#include "mpi_service.h"
#include "train/watchdog.h"

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

enum { STEPS = 3, FEW = 3 };
static const double LATE_S = 0.6, LOOK_S = 0.02, STILL_S = 0.2;

static curvd_operation last[CURVD_OPERATIONS];

static void pause_for(double seconds) {
  nanosleep(&(struct timespec){.tv_nsec = (long)(1e9 * seconds)}, NULL);
}

/* ---- what must be there ---- */

typedef struct expected {
  const char *what, *layer; /* NULL: any */
  curvd_operation_kind kind;
  int32_t peer;
  bool is_there;
} expected;

static bool fits(const curvd_operation *o, const expected *e, int64_t step) {
  return strcmp(o->what, e->what) == 0 && o->kind == e->kind && o->peer == e->peer &&
         (!e->layer || (o->layer && strcmp(o->layer, e->layer) == 0)) && o->step == step;
}

/* The first one that does not come behind those before it, in each of the steps; NULL: all do. */
static const char *missing(int n, const expected *list, int n_expected) {
  int at = 0;
  for (int64_t step = 0; step < STEPS; step++) {
    for (int i = 0; i < n_expected; i++) {
      if (!list[i].is_there) continue;
      while (at < n && !fits(&last[at], &list[i], step)) at++;
      if (at++ == n) return list[i].what;
    }
  }
  return NULL;
}

/* Numbers without a gap, times in order, everything ended. */
static bool is_clean(int n) {
  bool holds = n > 0;
  for (int i = 0; i < n; i++) {
    holds = holds && last[i].number == last[0].number + (uint64_t)i && last[i].end_s >= last[i].begin_s;
    holds = holds && (i == 0 || last[i].begin_s >= last[i - 1].begin_s);
  }
  return holds;
}

static const char *missing_of_worker(int n, int workers, int rank, int owner) {
  const char *up = workers > FEW ? "sum statistics" : "send statistics";
  const expected list[] = {{"agree on the step", NULL, CURVD_OPERATION_WAIT, CURVD_PEER_WORKERS, workers > 1},
                           {"reduce gradients", NULL, CURVD_OPERATION_PHASE, CURVD_PEER_NONE, true},
                           {"sum gradients", NULL, CURVD_OPERATION_WAIT, CURVD_PEER_WORKERS, workers > 1},
                           {"tell a command", NULL, CURVD_OPERATION_WAIT, owner, rank == 0 && owner >= workers},
                           {"reduce statistics", NULL, CURVD_OPERATION_PHASE, CURVD_PEER_NONE, true},
                           {up, NULL, CURVD_OPERATION_TRANSFER, owner, owner >= workers},
                           {"average", "fc0", CURVD_OPERATION_PHASE, CURVD_PEER_NONE, workers == 1 && owner < workers},
                           {"refresh", "fc2", CURVD_OPERATION_PHASE, CURVD_PEER_NONE, workers == 1 && owner < workers},
                           {"broadcast header", NULL, CURVD_OPERATION_TRANSFER, owner, owner >= workers},
                           {"wait for curvature", NULL, CURVD_OPERATION_PHASE, CURVD_PEER_NONE, true},
                           {"broadcast preconditioners", NULL, CURVD_OPERATION_TRANSFER, owner, owner >= workers},
                           {"receive preconditioners", NULL, CURVD_OPERATION_PHASE, CURVD_PEER_NONE, true},
                           {"momentum", NULL, CURVD_OPERATION_PHASE, CURVD_PEER_NONE, true},
                           {"precondition", NULL, CURVD_OPERATION_PHASE, CURVD_PEER_NONE, true}};
  return missing(n, list, sizeof list / sizeof list[0]);
}

/* Step numbers come with a command: hearing it belongs to the step before. */
static const char *missing_of_owner(int n, int workers) {
  bool is_few = workers <= FEW;
  const expected list[] = {{"reduce statistics", NULL, CURVD_OPERATION_PHASE, CURVD_PEER_NONE, true},
                           {"receive statistics", NULL, CURVD_OPERATION_TRANSFER, 0, is_few},
                           {"receive statistics", NULL, CURVD_OPERATION_TRANSFER, workers - 1, is_few && workers > 1},
                           {"sum statistics", NULL, CURVD_OPERATION_TRANSFER, CURVD_PEER_WORKERS, !is_few},
                           {"running average", NULL, CURVD_OPERATION_PHASE, CURVD_PEER_NONE, true},
                           {"average", "fc0", CURVD_OPERATION_PHASE, CURVD_PEER_NONE, true},
                           {"average", "fc1", CURVD_OPERATION_PHASE, CURVD_PEER_NONE, true},
                           {"average", "fc2", CURVD_OPERATION_PHASE, CURVD_PEER_NONE, true},
                           {"refresh", NULL, CURVD_OPERATION_PHASE, CURVD_PEER_NONE, true},
                           {"refresh", "fc0", CURVD_OPERATION_PHASE, CURVD_PEER_NONE, true},
                           {"refresh", "fc2", CURVD_OPERATION_PHASE, CURVD_PEER_NONE, true},
                           {"broadcast header", NULL, CURVD_OPERATION_TRANSFER, CURVD_PEER_WORKERS, true},
                           {"broadcast preconditioners", NULL, CURVD_OPERATION_TRANSFER, CURVD_PEER_WORKERS, true},
                           {"wait for workers", NULL, CURVD_OPERATION_PHASE, CURVD_PEER_NONE, true},
                           {"hear a command", NULL, CURVD_OPERATION_IDLE, 0, true}};
  return missing(n, list, sizeof list / sizeof list[0]);
}

static void check_run(int n_curvature) {
  service_run run = run_of(run_kfac, n_curvature);
  dense V[RUN_LAYERS];
  int rank = run_rank(run.comm), workers = run_size(run.comm) - n_curvature;
  curvd_ctx *ctx = run_open(&run);
  curvd_status status = CURVD_OK;
  bool is_worker = run_is_worker(ctx);
  for (int step = 0; step < STEPS && is_worker && status == CURVD_OK; step++) status = run_step(ctx, &run, step, V);
  if (is_worker) curvd_finish(ctx);
  int n = curvd_trace_read(ctx, last, CURVD_OPERATIONS);
  const char *lost =
      is_worker ? missing_of_worker(n, workers, rank, n_curvature > 0 ? workers : 0) : missing_of_owner(n, workers);
  mpi_assert(status == CURVD_OK && is_clean(n));
  mpi_assert_msg(!lost, "%s is missing, %d operations", lost ? lost : "", n);
  mpi_assert(curvd_heartbeat(ctx) >= 2 * (uint64_t)n && !curvd_is_idle(ctx));
  run_close(&ctx);
}

START_TEST(test_workers_that_own) {
  check_run(0);
}
END_TEST

START_TEST(test_with_a_curvature_rank) {
  if (run_size(MPI_COMM_WORLD) > 1) check_run(1);
}
END_TEST

/* ---- a peer that does not come ---- */

/* Another thread, which looks for one thing in a rank that has stood still for STILL_S. */
typedef struct witness {
  const curvd_ctx *ctx;
  expected wanted;
  atomic_bool is_over;
  bool has_seen, was_idle; /* was_idle: then */
  pthread_t thread;
} witness;

static void look(witness *w) {
  curvd_operation room[CURVD_OPERATIONS], *innermost = NULL;
  int n = curvd_trace_read(w->ctx, room, CURVD_OPERATIONS);
  for (int i = 0; i < n; i++) {
    if (room[i].end_s == 0 && room[i].kind != CURVD_OPERATION_TRANSFER) innermost = &room[i];
  }
  if (w->has_seen || !innermost || !fits(innermost, &w->wanted, 0)) return;
  w->has_seen = true;
  w->was_idle = curvd_is_idle(w->ctx);
}

static void *watch(void *arg) {
  witness *w = arg;
  uint64_t beats = 0;
  double since_s = cv_wall_s();
  while (!atomic_load(&w->is_over)) {
    uint64_t now = curvd_heartbeat(w->ctx);
    if (now != beats) since_s = cv_wall_s();
    beats = now;
    if (cv_wall_s() - since_s > STILL_S) look(w);
    pause_for(LOOK_S);
  }
  return NULL;
}

static bool witness_start(witness *w, const curvd_ctx *ctx, expected wanted) {
  *w = (witness){.ctx = ctx, .wanted = wanted};
  return pthread_create(&w->thread, NULL, watch, w) == 0;
}

static void witness_stop(witness *w) {
  atomic_store(&w->is_over, true);
  pthread_join(w->thread, NULL);
}

/* One step to which the last rank comes late; rank 0 must be seen to wait for it. */
static void check_late(int n_curvature, const char *what, int32_t peer) {
  service_run run = run_of(run_kfac, n_curvature);
  dense V[RUN_LAYERS];
  witness w;
  int rank = run_rank(run.comm);
  curvd_ctx *ctx = run_open(&run);
  mpi_assert(witness_start(&w, ctx, (expected){what, NULL, CURVD_OPERATION_WAIT, peer, true}));
  if (rank == run_size(run.comm) - 1) pause_for(LATE_S);
  curvd_status status = run_is_worker(ctx) ? run_step(ctx, &run, 0, V) : CURVD_OK;
  if (curvd_role_get(ctx) == CURVD_ROLE_WORKER) curvd_finish(ctx);
  witness_stop(&w);
  mpi_assert(status == CURVD_OK);
  mpi_assert(rank > 0 || (w.has_seen && !w.was_idle));
  run_close(&ctx);
}

START_TEST(test_late_curvature_rank) {
  int size = run_size(MPI_COMM_WORLD);
  if (size > 1) check_late(1, "wait for preconditioners", size - 1);
}
END_TEST

START_TEST(test_late_worker) {
  if (run_size(MPI_COMM_WORLD) > 1) check_late(0, "agree on the step", CURVD_PEER_WORKERS);
}
END_TEST

/* A curvature rank without a command is idle, and no watchdog ends it. */
START_TEST(test_idle) {
  static watchdog dog;
  witness w;
  service_run run = run_of(run_kfac, 1);
  cv_error err = {0};
  if (run_size(run.comm) == 1) return;
  int rank = run_rank(run.comm);
  bool is_curvature = rank == run_size(run.comm) - 1;
  curvd_ctx *ctx = run_open(&run);
  mpi_assert(witness_start(&w, ctx, (expected){"hear a command", NULL, CURVD_OPERATION_IDLE, 0, true}));
  curvd_status status = watchdog_start(&dog, rank, is_curvature ? LATE_S / 2 : 0, &err);
  watchdog_look_after(&dog, ctx);
  if (run_is_worker(ctx)) {
    pause_for(LATE_S);
    curvd_finish(ctx);
  }
  watchdog_stop(&dog);
  witness_stop(&w);
  mpi_assert(status == CURVD_OK);
  mpi_assert(!is_curvature || (w.has_seen && w.was_idle));
  run_close(&ctx);
}
END_TEST

static Suite *make_suite(void) {
  Suite *suite = suite_create("trace_ranks");
  TCase *tcase = tcase_create("trace_ranks");
  tcase_add_test(tcase, test_workers_that_own);
  tcase_add_test(tcase, test_with_a_curvature_rank);
  tcase_add_test(tcase, test_late_curvature_rank);
  tcase_add_test(tcase, test_late_worker);
  tcase_add_test(tcase, test_idle);
  suite_add_tcase(suite, tcase);
  return suite;
}

int main(int argc, char **argv) {
  return mpi_test_main(argc, argv, make_suite);
}
