#include "plan/simulate.h"

#include "base/order.h"

#include <math.h>
#include <stdlib.h>

/* A refresh of all owners that is on its way to the workers. */
typedef struct parcel {
  int64_t step;
  double here_s; /* when the last owner's part is here */
} parcel;

typedef struct simulation {
  const cv_timetable *table;
  int64_t step;
  double now_s;          /* the workers' clock */
  double ahead_s;        /* of it, the clock of the first worker, since they last met */
  double summed_s;       /* when the first worker began to sum the gradients of this step, and voted on what is here */
  double *clock_s;       /* [n_owners] */
  double *busy_s;        /* [n_owners] since begin */
  double *begin_clock_s; /* [n_owners] when means begin */
  double *gone_s;        /* [n_owners] when the last parcel has left */
  double *taken_s;       /* [n_owners][n_slots] when the statistics in a slot have been taken */
  int64_t n_slots, slot;
  parcel *ring; /* [ring_size] oldest first, from `first` on */
  int64_t ring_size, first, n_under_way;
  int64_t in_force; /* step of the refresh in use; -1: none */
  double begin_s, wait_s, step_max_s, latency_s, latency_max_s;
  int64_t n_refreshes;
  double *age; /* [n_steps] of the steps that count and have a preconditioner */
  int64_t n_ages, n_without;
} simulation;

static bool is_due(const simulation *s, int64_t interval) {
  return s->step % interval == 0;
}

/* ---- memory ---- */

static void release(simulation *s, cv_memory *memory) {
  double **block[] = {&s->clock_s, &s->busy_s, &s->begin_clock_s, &s->gone_s, &s->taken_s, &s->age};
  for (size_t i = 0; i < sizeof block / sizeof block[0]; i++) cv_doubles_free(memory, block[i]);
  void *ring = s->ring;
  cv_memory_free(memory, &ring);
}

static curvd_status make(simulation *s, cv_memory *memory, cv_error *err) {
  const cv_timetable *t = s->table;
  double **block[] = {&s->clock_s, &s->busy_s, &s->begin_clock_s, &s->gone_s, &s->taken_s, &s->age};
  int64_t count[] = {t->n_owners, t->n_owners, t->n_owners, t->n_owners, t->n_owners * s->n_slots, t->n_steps};
  void *ring = NULL;
  for (size_t i = 0; i < sizeof block / sizeof block[0]; i++)
    CV_TRY(cv_doubles_new(memory, CV_MEMORY_WORKSPACE, count[i], "the simulation", block[i], err));
  CV_TRY(cv_memory_new(memory, CV_MEMORY_WORKSPACE, s->ring_size, sizeof *s->ring, "the simulation", &ring, err));
  s->ring = ring;
  return CURVD_OK;
}

/* ---- owners ---- */

static void work(simulation *s, int32_t o, double seconds) {
  s->clock_s[o] += seconds;
  s->busy_s[o] += seconds;
}

/* Curvature ranks: the worker waits for a slot, pays its share of the transfer, and goes on. */
static void send_to_curvature(simulation *s) {
  const cv_timetable *t = s->table;
  for (int32_t o = 0; o < t->n_owners; o++) {
    const cv_timetable_owner *owner = &t->owner[o];
    double *taken_s = &s->taken_s[o * s->n_slots + s->slot];
    s->wait_s += fmax(*taken_s - s->now_s, 0);
    s->now_s = fmax(*taken_s, s->now_s) + owner->pack_s + (1 - t->overlap) * owner->up_s;
    *taken_s = s->clock_s[o] = fmax(s->clock_s[o], s->now_s) + t->overlap * owner->up_s;
    work(s, o, owner->average_s);
  }
  s->slot = (s->slot + 1) % s->n_slots;
}

/* Blocks of spread factors go one by one, and every worker waits for each (cv_up_blocks): the latest owner holds all
 * up, and what they average they have only then. */
static void wait_for_blocks(simulation *s) {
  double latest = s->now_s;
  for (int32_t o = 0; o < s->table->n_owners; o++) latest = fmax(latest, s->clock_s[o] - s->table->owner[o].average_s);
  for (int32_t o = 0; o < s->table->n_owners; o++) s->clock_s[o] = latest + s->table->owner[o].average_s;
  s->wait_s += latest - s->now_s;
  s->now_s = latest;
}

/* Workers that own: every one takes part in all reductions before it can average. */
static void send_to_workers(simulation *s) {
  const cv_timetable *t = s->table;
  for (int32_t o = 0; o < t->n_owners; o++) s->now_s += t->owner[o].pack_s + t->owner[o].up_s;
  for (int32_t o = 0; o < t->n_owners; o++) {
    s->clock_s[o] = s->now_s;
    work(s, o, t->owner[o].average_s);
  }
}

static void meet(simulation *s) {
  double latest = 0;
  for (int32_t o = 0; o < s->table->n_owners; o++) latest = fmax(latest, s->clock_s[o]);
  for (int32_t o = 0; o < s->table->n_owners; o++) s->clock_s[o] = latest;
}

/* heard_s: when the workers told of the step. */
static void refresh(simulation *s, double heard_s) {
  const cv_timetable *t = s->table;
  parcel *last = &s->ring[(s->first + s->n_under_way++) % s->ring_size];
  *last = (parcel){.step = s->step};
  for (int32_t o = 0; o < t->n_owners; o++) s->clock_s[o] = fmax(s->clock_s[o], heard_s);
  if (t->is_spread) meet(s);
  for (int32_t o = 0; o < t->n_owners; o++) {
    work(s, o, t->owner[o].refresh_s);
    if (t->has_curvature) s->clock_s[o] = fmax(s->clock_s[o], s->gone_s[o]);
    work(s, o, t->owner[o].publish_s);
    s->gone_s[o] = s->clock_s[o] + t->overlap * t->owner[o].down_s;
    last->here_s = fmax(last->here_s, s->gone_s[o]);
  }
  if (s->step < t->n_skipped) return;
  s->n_refreshes++;
  s->latency_s += last->here_s - heard_s;
  s->latency_max_s = fmax(s->latency_max_s, last->here_s - heard_s);
}

/* ---- workers ---- */

static bool is_here_everywhere(const simulation *s) {
  return s->table->is_free && s->n_under_way > 0 && s->ring[s->first].here_s <= s->summed_s;
}

static void land(simulation *s, bool is_voted_for) {
  const cv_timetable *t = s->table;
  const parcel *oldest = &s->ring[s->first];
  if (s->n_under_way == 0 || (!is_voted_for && s->step - oldest->step < t->staleness)) return;
  s->wait_s += fmax(oldest->here_s - s->now_s, 0);
  s->now_s = fmax(s->now_s, oldest->here_s);
  for (int32_t o = 0; o < t->n_owners; o++) s->now_s += (1 - t->overlap) * t->owner[o].down_s + t->owner[o].receive_s;
  s->in_force = oldest->step;
  s->first = (s->first + 1) % s->ring_size;
  s->n_under_way--;
}

/* Workers that own meet again at the next sum of gradients. */
static void wait_for_owners(simulation *s) {
  double first_s = INFINITY;
  for (int32_t o = 0; o < s->table->n_owners; o++) {
    s->now_s = fmax(s->now_s, s->clock_s[o]);
    first_s = fmin(first_s, s->clock_s[o]);
  }
  s->ahead_s = s->table->n_owners > 0 ? s->now_s - first_s : 0;
}

static void serve(simulation *s) {
  const cv_timetable *t = s->table;
  bool has_statistics = is_due(s, t->factor_update_steps), has_refresh = is_due(s, t->inv_update_steps);
  if (!has_statistics && !has_refresh) return;
  s->now_s += t->command_s;
  double heard_s = s->now_s;
  if (has_statistics && t->has_curvature) send_to_curvature(s);
  if (has_statistics && t->has_curvature && t->is_spread) wait_for_blocks(s);
  if (has_statistics && !t->has_curvature) send_to_workers(s);
  if (has_refresh) refresh(s, heard_s);
  if (!t->has_curvature) wait_for_owners(s);
}

static void note_age(simulation *s) {
  int64_t statistics = s->in_force - s->in_force % s->table->factor_update_steps;
  s->n_without += s->in_force < 0;
  if (s->in_force < 0 || s->step < s->table->n_skipped) return;
  s->age[s->n_ages++] = (double)(s->step - statistics);
}

static void run_step(simulation *s) {
  const cv_timetable *t = s->table;
  double before_s = s->now_s;
  s->now_s += t->compute_s + (is_due(s, t->factor_update_steps) ? t->capture_s : 0);
  s->summed_s = s->now_s - s->ahead_s;
  s->now_s += t->gradients_s;
  s->ahead_s = 0;
  land(s, is_here_everywhere(s));
  serve(s);
  land(s, false); /* without staleness */
  note_age(s);
  s->now_s += t->finish_s;
  if (s->step >= t->n_skipped) s->step_max_s = fmax(s->step_max_s, s->now_s - before_s);
}

static void begin_means(simulation *s) {
  s->begin_s = s->now_s;
  s->wait_s = 0;
  for (int32_t o = 0; o < s->table->n_owners; o++) {
    s->busy_s[o] = 0;
    s->begin_clock_s[o] = s->clock_s[o];
  }
}

/* ---- results ---- */

static int by_size(const void *x, const void *y) {
  double a = *(const double *)x, b = *(const double *)y;
  return (a > b) - (a < b);
}

static void tell_ages(simulation *s, cv_simulation *out) {
  if (s->n_ages == 0) return;
  qsort(s->age, (size_t)s->n_ages, sizeof *s->age, by_size);
  for (int64_t i = 0; i < s->n_ages; i++) out->age_mean += s->age[i] / (double)s->n_ages;
  out->age_p99 = (int64_t)s->age[cv_divide_up(99 * s->n_ages, 100) - 1];
  out->age_max = (int64_t)s->age[s->n_ages - 1];
}

/* An owner that lags behind works on after the workers' last step: its time ends when it has done what it was told. */
static void tell_loads(const simulation *s, cv_simulation *out, double *load) {
  for (int32_t o = 0; o < s->table->n_owners; o++) {
    double time_s = fmax(s->now_s, s->clock_s[o]) - fmax(s->begin_s, s->begin_clock_s[o]);
    double share = time_s > 0 ? s->busy_s[o] / time_s : 0;
    out->load_mean += share / s->table->n_owners;
    out->load_max = fmax(out->load_max, share);
    if (load) load[o] = share;
  }
}

static void tell(simulation *s, cv_simulation *out, double *load) {
  double steps = (double)(s->table->n_steps - s->table->n_skipped);
  *out = (cv_simulation){.step_s = (s->now_s - s->begin_s) / steps,
                         .step_max_s = s->step_max_s,
                         .wait_s = s->wait_s / steps,
                         .latency_s = s->n_refreshes > 0 ? s->latency_s / (double)s->n_refreshes : 0,
                         .latency_max_s = s->latency_max_s,
                         .n_without = s->n_without};
  tell_ages(s, out);
  tell_loads(s, out, load);
}

/* ---- arguments ---- */

static bool are_times(const double *seconds, size_t n) {
  for (size_t i = 0; i < n; i++) {
    if (!isfinite(seconds[i]) || seconds[i] < 0) return false;
  }
  return true;
}

static bool has_times(const cv_timetable *t) {
  const double all[] = {t->compute_s, t->capture_s, t->gradients_s, t->command_s, t->finish_s, t->overlap};
  for (int32_t o = 0; o < t->n_owners; o++) {
    const cv_timetable_owner *w = &t->owner[o];
    const double each[] = {w->pack_s, w->up_s, w->average_s, w->refresh_s, w->publish_s, w->down_s, w->receive_s};
    if (!are_times(each, sizeof each / sizeof each[0])) return false;
  }
  return are_times(all, sizeof all / sizeof all[0]) && t->overlap <= 1;
}

static curvd_status check(const cv_timetable *t, cv_error *err) {
  if (t->n_steps < 1 || t->n_skipped < 0 || t->n_skipped >= t->n_steps || t->n_owners < 0)
    return cv_fail(err, CURVD_ERR_ARGUMENT, "a simulation of %lld steps, %lld of them skipped, and %d owners",
                   (long long)t->n_steps, (long long)t->n_skipped, (int)t->n_owners);
  if (t->factor_update_steps < 1 || t->inv_update_steps < 1 || t->staleness < 0)
    return cv_fail(err, CURVD_ERR_ARGUMENT, "a simulation with intervals of %lld and %lld steps and staleness %lld",
                   (long long)t->factor_update_steps, (long long)t->inv_update_steps, (long long)t->staleness);
  if (!has_times(t))
    return cv_fail(err, CURVD_ERR_ARGUMENT, "a simulation with times that are negative, not finite, or an overlap > 1");
  return CURVD_OK;
}

curvd_status cv_simulate(const cv_timetable *table, cv_memory *memory, cv_simulation *out, double *load,
                         cv_error *err) {
  CV_TRY(check(table, err));
  simulation s = {.table = table, .in_force = -1};
  int64_t refreshes = cv_divide_up(table->n_steps, table->inv_update_steps);
  s.n_slots =
      cv_larger(cv_smaller(cv_divide_up(table->staleness, table->factor_update_steps), CV_PLAN_UP_SLOTS_MAX), 1);
  s.ring_size = cv_smaller(table->staleness / table->inv_update_steps + 2, refreshes + 1);
  curvd_status status = make(&s, memory, err);
  for (; status == CURVD_OK && s.step < table->n_steps; s.step++) {
    if (s.step == table->n_skipped) begin_means(&s);
    run_step(&s);
  }
  if (status == CURVD_OK) tell(&s, out, load);
  release(&s, memory);
  return status;
}
