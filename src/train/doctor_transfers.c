#include "train/doctor_transfers.h"

#include <math.h>
#include <string.h>
#include <time.h>

static const double SKEW_MAX_S = 1, OVERLAP_MIN = 0.5;

/* ---- clocks ---- */

static double calendar_s(void) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

enum { QUESTIONS = 10 };

/* The answer of the shortest round trip was given in the middle of it. */
static doctor_skew ask_one(MPI_Comm world, int other) {
  doctor_skew best = {.within = INFINITY, .rank = other};
  for (int i = 0; i < QUESTIONS; i++) {
    double theirs = 0, begin = calendar_s();
    MPI_Send(NULL, 0, MPI_BYTE, other, 0, world);
    MPI_Recv(&theirs, 1, MPI_DOUBLE, other, 0, world, MPI_STATUS_IGNORE);
    double end = calendar_s(), within = (end - begin) / 2;
    if (within < best.within) best.within = within, best.seconds = theirs - (begin + end) / 2;
  }
  return best;
}

static void answer(MPI_Comm world) {
  for (int i = 0; i < QUESTIONS; i++) {
    MPI_Recv(NULL, 0, MPI_BYTE, 0, 0, world, MPI_STATUS_IGNORE);
    double mine = calendar_s();
    MPI_Send(&mine, 1, MPI_DOUBLE, 0, 0, world);
  }
}

doctor_skew doctor_skew_ask(MPI_Comm world, bool leads, const int *host_of) {
  doctor_skew worst = {.rank = 0};
  int rank = 0, n = 1;
  MPI_Comm_rank(world, &rank);
  MPI_Comm_size(world, &n);
  if (rank > 0 && leads) answer(world);
  for (int r = 1; r < n && rank == 0; r++) {
    if (host_of[r] != r) continue;
    doctor_skew skew = ask_one(world, r);
    if (fabs(skew.seconds) >= fabs(worst.seconds)) worst = skew;
  }
  return worst;
}

void doctor_check_skew(const doctor_skew *skew, int n_hosts, const char *host, doctor_findings *to) {
  if (n_hosts == 1)
    doctor_add(to, DOCTOR_OK, "clocks", "1 host");
  else if (fabs(skew->seconds) > SKEW_MAX_S)
    doctor_add(
        to, DOCTOR_WARNING, "clocks",
        "the clock of %s is %.1f s %s that of rank 0's host, and times in files and logs are, too; let chrony or "
        "ntp set both",
        host, fabs(skew->seconds), skew->seconds > 0 ? "before" : "behind");
  else
    doctor_add(to, DOCTOR_OK, "clocks", "at most %.2g ms apart (%s; known to %.2g ms)", 1e3 * fabs(skew->seconds), host,
               1e3 * skew->within);
}

/* ---- overlap ---- */

static curvd_status set_up(curvd_ctx *ctx, int64_t curvature_ranks) {
  enum { WIDTH = 1024 };
  static const char *const names[] = {"first", "second"};
  char ranks[24];
  snprintf(ranks, sizeof ranks, "%lld", (long long)curvature_ranks);
  const char *const options[][2] = {
      {"curvature_ranks", ranks}, {"staleness", "5"}, {"progress", "auto"}, {"capture_rows", "256"}};
  for (size_t i = 0; i < sizeof options / sizeof options[0]; i++) CV_TRY(curvd_set(ctx, options[i][0], options[i][1]));
  for (int i = 0; i < 2; i++) {
    int32_t layer;
    CV_TRY(curvd_layer_add(ctx, names[i], WIDTH, WIDTH, true, &layer));
  }
  return curvd_plan(ctx);
}

curvd_status doctor_overlap_ask(MPI_Comm world, int64_t curvature_ranks, doctor_overlap *overlap, cv_error *err) {
  curvd_ctx *ctx = NULL;
  curvd_metrics metrics = {0};
  *overlap = (doctor_overlap){.is_tried = true, .share = -1};
  curvd_status status = curvd_create(world, &ctx);
  if (status != CURVD_OK) return cv_fail(err, status, "curvd_create: %s", cv_status_text(status));
  status = set_up(ctx, curvature_ranks);
  if (status != CURVD_OK) cv_fail(err, status, "%s", curvd_last_error(ctx));
  if (status == CURVD_OK && curvd_metrics_read(ctx, &metrics) == CURVD_OK)
    overlap->share = metrics.overlap_measured, overlap->by = metrics.progress;
  curvd_destroy(&ctx);
  return status;
}

void doctor_check_overlap(const doctor_overlap *overlap, int level, bool is_crowded, doctor_findings *to) {
  static const char *const ways[] = {"nothing", "calls of the program", "a thread"};
  const char *by = ways[overlap->by <= CURVD_PROGRESS_THREAD ? overlap->by : 0];
  if (!overlap->is_tried)
    doctor_add(to, DOCTOR_OK, "overlap", "not tried");
  else if (overlap->share < 0)
    doctor_add(to, DOCTOR_OK, "overlap", "transfers are too short to measure");
  else if (overlap->share < OVERLAP_MIN)
    doctor_add(to, DOCTOR_WARNING, "overlap", "%.0f %% of a transfer hides behind products, moved on by %s; %s",
               100 * overlap->share, by,
               is_crowded                    ? "give every rank a core of its own"
               : level < MPI_THREAD_MULTIPLE ? "an MPI with MPI_THREAD_MULTIPLE lets a thread do it"
                                             : "leave a core of each host free for the thread (one rank fewer on it), "
                                               "or measure again on a machine that nobody else uses");
  else
    doctor_add(to, DOCTOR_OK, "overlap", "%.0f %% of a transfer hides behind products, moved on by %s",
               100 * overlap->share, by);
}
