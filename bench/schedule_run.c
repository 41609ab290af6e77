#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* RTLD_NEXT */
#endif
#include "schedule_run.h"

#include "base/clock.h"
#include "curvature/link.h"

#include "curvd.h"
#include <dlfcn.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { WIDTH = 4, FACTORS = 2, ROWS = 2, REFRESHES_MAX = SCHEDULE_STEPS_MAX };
static const double SLICE_S = 1e-3; /* of training, between two looks at what is under way */

/* ---- work that takes no processor ---- */

static void sleep_until(double end_s) {
  double left_s = end_s - cv_wall_s();
  if (left_s <= 0) return;
  nanosleep(&(struct timespec){.tv_sec = (time_t)left_s, .tv_nsec = (long)(1e9 * (left_s - floor(left_s)))}, NULL);
}

static double refresh_s; /* of a refresh: the first of its decompositions takes it, as every sleep is a bit too long */
static int64_t n_calls;  /* of all since the run began */
static double last_s;    /* when the last of them ended */

/* The executable's own stands before LAPACK's, which does the work: rows and columns are few. */
void ssyevd_(const char *jobz, const char *uplo, const int *n, float *A, const int *lda, float *w, float *work,
             const int *lwork, int *iwork, const int *liwork, int *info, size_t, size_t);
typedef void (*syevd)(const char *, const char *, const int *, float *, const int *, float *, float *, const int *,
                      int *, const int *, int *, size_t, size_t);

void ssyevd_(const char *jobz, const char *uplo, const int *n, float *A, const int *lda, float *w, float *work,
             const int *lwork, int *iwork, const int *liwork, int *info, size_t jobz_length, size_t uplo_length) {
  static syevd call;
  double begin_s = cv_wall_s();
  if (!call) {
    void *real = dlsym(RTLD_NEXT, "ssyevd_");
    memcpy(&call, &real, sizeof call);
  }
  call(jobz, uplo, n, A, lda, w, work, lwork, iwork, liwork, info, jobz_length, uplo_length);
  if (n_calls++ % FACTORS == 0) sleep_until(begin_s + refresh_s);
  last_s = cv_wall_s();
}

/* ---- simulated ---- */

curvd_status schedule_simulate(const schedule_case *c, int n_owners, cv_memory *memory, schedule_times *out,
                               cv_error *err) {
  cv_timetable_owner owner[SCHEDULE_OWNERS_MAX] = {{.refresh_s = 0}};
  cv_simulation s;
  for (int o = 0; o < n_owners; o++) owner[o].refresh_s = c->refresh_s[o];
  cv_timetable t = {.n_steps = c->steps,
                    .factor_update_steps = c->factor_update_steps,
                    .inv_update_steps = c->inv_update_steps,
                    .staleness = c->staleness,
                    .is_free = c->is_free,
                    .has_curvature = c->n_curvature > 0,
                    .compute_s = c->train_s,
                    .capture_s = c->capture_s,
                    .overlap = 1,
                    .n_owners = n_owners,
                    .owner = owner};
  CV_TRY(cv_simulate(&t, memory, &s, out->load, err));
  out->step_s = s.step_s;
  out->wait_s = s.wait_s;
  out->latency_s = s.latency_s;
  out->latency_max_s = s.latency_max_s;
  out->age_mean = s.age_mean;
  out->age_p99 = s.age_p99;
  out->age_max = s.age_max;
  return CURVD_OK;
}

/* ---- measured ---- */

/* Worker 0 watches when all parts of a refresh are here. */
typedef struct watch {
  double begin_s[REFRESHES_MAX]; /* of its step's curvd_step */
  int64_t n_begun, n_here;
  double sum_s, max_s;
} watch;

typedef struct run {
  const schedule_case *given;
  curvd_ctx *ctx;
  watch watch;
  double begin_s, end_s; /* of the workers' steps */
} run;

static curvd_status try_call(const run *r, curvd_status status, cv_error *err) {
  return status == CURVD_OK ? status : cv_fail(err, status, "%s", curvd_last_error(r->ctx));
}

/* Refreshes under way of which every owner's part is here. */
static int64_t waiting_here(const curvd_ctx *ctx, int64_t *under_way) {
  *under_way = ctx->route[0].down.n_under_way;
  for (int64_t i = 0; i < *under_way; i++) {
    for (int o = 0; o < ctx->comm.n_owners; o++) {
      const cv_downlink *down = &ctx->route[o].down;
      if (down->parcel[(down->first + i) % down->n_slots].state != CV_PARCEL_HERE) return i;
    }
  }
  return *under_way;
}

static void look(run *r) {
  watch *w = &r->watch;
  int64_t under_way = 0, here = waiting_here(r->ctx, &under_way);
  for (double now_s = cv_wall_s(); w->n_here < w->n_begun - under_way + here; w->n_here++) {
    double latency_s = now_s - w->begin_s[w->n_here];
    w->sum_s += latency_s;
    w->max_s = fmax(w->max_s, latency_s);
  }
}

static curvd_status train(run *r, double begin_s, double seconds, cv_error *err) {
  for (double now_s = begin_s; now_s < begin_s + seconds; now_s = cv_wall_s()) {
    sleep_until(fmin(begin_s + seconds, now_s + SLICE_S));
    CV_TRY(try_call(r, curvd_progress(r->ctx), err));
    look(r);
  }
  return CURVD_OK;
}

static curvd_status capture(const run *r, int64_t step, cv_error *err) {
  float a[ROWS * WIDTH], g[ROWS * WIDTH];
  for (int32_t layer = 0; layer < r->ctx->n_layers; layer++) {
    for (int i = 0; i < ROWS * WIDTH; i++) {
      a[i] = (float)sin((double)(step + 3 * i + 7 * layer));
      g[i] = (float)cos((double)(2 * step + 5 * i + layer));
    }
    CV_TRY(try_call(r, curvd_capture(r->ctx, layer, ROWS, a, WIDTH, g, WIDTH), err));
  }
  return CURVD_OK;
}

static curvd_status step(run *r, int64_t k, cv_error *err) {
  const schedule_case *c = r->given;
  float weight[SCHEDULE_OWNERS_MAX][WIDTH * WIDTH];
  curvd_gradient gradient[SCHEDULE_OWNERS_MAX];
  double begin_s = cv_wall_s(), seconds = c->train_s;
  for (int l = 0; l < r->ctx->n_layers; l++) {
    for (int i = 0; i < WIDTH * WIDTH; i++) weight[l][i] = (float)(i + 1);
    gradient[l] = (curvd_gradient){.weight = weight[l], .ld = WIDTH};
  }
  if (curvd_wants_capture(r->ctx)) {
    seconds += c->capture_s;
    CV_TRY(capture(r, k, err));
  }
  CV_TRY(train(r, begin_s, seconds, err));
  if (k % c->inv_update_steps == 0) r->watch.begin_s[r->watch.n_begun] = cv_wall_s();
  CV_TRY(try_call(r, curvd_step(r->ctx, 1e-3, gradient, r->ctx->n_layers), err));
  r->watch.n_begun += k % c->inv_update_steps == 0;
  look(r);
  return CURVD_OK;
}

/* What is under way at the end is waited for, as latencies of slow refreshes count, too. */
static curvd_status work(run *r, cv_error *err) {
  for (int64_t k = 0; k < r->given->steps; k++) CV_TRY(step(r, k, err));
  r->end_s = cv_wall_s();
  while (r->watch.n_here < r->watch.n_begun) CV_TRY(train(r, cv_wall_s(), SLICE_S, err));
  return try_call(r, curvd_finish(r->ctx), err);
}

static curvd_status open(run *r, cv_error *err) {
  const schedule_case *c = r->given;
  const char *const name[] = {"curvature_ranks", "factor_update_steps", "inv_update_steps", "staleness_max"};
  const int64_t value[] = {c->n_curvature, c->factor_update_steps, c->inv_update_steps, c->staleness};
  const char *const fixed[][2] = {{"method", "kfac"}, {"step", "plain"}, {"momentum", "0"}, {"progress", "test"}};
  char text[24];
  int n_layers = c->n_curvature; /* one for each owner */
  if (n_layers == 0) MPI_Comm_size(MPI_COMM_WORLD, &n_layers);
  CV_TRY(curvd_create(MPI_COMM_WORLD, &r->ctx));
  for (size_t i = 0; i < sizeof fixed / sizeof fixed[0]; i++)
    CV_TRY(try_call(r, curvd_set(r->ctx, fixed[i][0], fixed[i][1]), err));
  for (size_t i = 0; i < sizeof value / sizeof value[0] - !c->is_free; i++) {
    snprintf(text, sizeof text, "%lld", (long long)value[i]);
    CV_TRY(try_call(r, curvd_set(r->ctx, name[i], text), err));
  }
  snprintf(text, sizeof text, "%lld", (long long)c->staleness);
  CV_TRY(try_call(r, curvd_set(r->ctx, "staleness", c->is_free ? "free" : text), err));
  for (int i = 0; i < n_layers; i++) {
    int32_t index;
    snprintf(text, sizeof text, "layer%d", i);
    CV_TRY(try_call(r, curvd_layer_add(r->ctx, text, WIDTH, WIDTH, false, &index), err));
  }
  return try_call(r, curvd_plan(r->ctx), err);
}

/* Workers begin each step together, so that one of them that waits least has only waited for owners. */
static void gather(const run *r, schedule_times *out) {
  curvd_metrics m = {0};
  int owner = cv_comm_my_owner(&r->ctx->comm);
  double mine[SCHEDULE_OWNERS_MAX] = {0}, wait_s = INFINITY, begin_s = r->begin_s, end_s = r->end_s;
  curvd_metrics_read(r->ctx, &m);
  MPI_Bcast(&end_s, 1, MPI_DOUBLE, 0, MPI_COMM_WORLD);
  if (owner >= 0) mine[owner] = m.stage_wall_s[CURVD_STAGE_REFRESH] / (fmax(last_s, end_s) - begin_s);
  if (cv_comm_is_worker(&r->ctx->comm)) wait_s = m.stage_wall_s[CURVD_STAGE_WAIT];
  MPI_Reduce(mine, out->load, SCHEDULE_OWNERS_MAX, MPI_DOUBLE, MPI_SUM, 0, MPI_COMM_WORLD);
  MPI_Reduce(&wait_s, &out->wait_s, 1, MPI_DOUBLE, MPI_MIN, 0, MPI_COMM_WORLD);
  double steps = (double)r->given->steps;
  out->wait_s /= steps;
  out->step_s = (end_s - begin_s) / steps;
  out->latency_s = r->watch.n_here > 0 ? r->watch.sum_s / (double)r->watch.n_here : 0;
  out->latency_max_s = r->watch.max_s;
  out->age_mean = m.age_mean;
  out->age_p99 = m.age_p99;
  out->age_max = m.age_max;
}

static curvd_status check_calls(const run *r, cv_error *err) {
  const schedule_case *c = r->given;
  int64_t refreshes = (c->steps + c->inv_update_steps - 1) / c->inv_update_steps,
          expected = cv_comm_my_owner(&r->ctx->comm) < 0 ? 0 : FACTORS * refreshes;
  if (n_calls == expected) return CURVD_OK;
  return cv_fail(err, CURVD_ERR_NUMERIC, "rank %d: %lld decompositions in place of %lld", r->ctx->comm.rank,
                 (long long)n_calls, (long long)expected);
}

curvd_status schedule_agree(curvd_status status) {
  int mine = status, worst = 0;
  MPI_Allreduce(&mine, &worst, 1, MPI_INT, MPI_MAX, MPI_COMM_WORLD);
  return (curvd_status)worst;
}

static curvd_status run_all(run *r, schedule_times *out, cv_error *err) {
  CV_TRY(open(r, err));
  int owner = cv_comm_my_owner(&r->ctx->comm);
  refresh_s = owner < 0 ? 0 : r->given->refresh_s[owner];
  n_calls = 0;
  MPI_Barrier(MPI_COMM_WORLD);
  r->begin_s = last_s = cv_wall_s();
  curvd_status status = cv_comm_is_worker(&r->ctx->comm) ? work(r, err) : try_call(r, curvd_serve(r->ctx), err);
  if (status == CURVD_OK) status = check_calls(r, err);
  CV_TRY(schedule_agree(status));
  gather(r, out);
  return CURVD_OK;
}

curvd_status schedule_run(const schedule_case *c, schedule_times *out, cv_error *err) {
  static run r;
  r = (run){.given = c};
  curvd_status status = run_all(&r, out, err);
  curvd_destroy(&r.ctx);
  return status;
}
