#include "plan/predict.h"

#include "base/order.h"

#include <math.h>
#include <stddef.h>

enum { REFRESHES_MIN = 10, STEPS_MIN = 100 }; /* that a mean is taken over */

/* Bytes between the workers and one owner, each time. */
typedef struct wires {
  cv_plan_up up;
  double down;
} wires;

typedef struct prediction {
  const cv_predict_case *given;
  cv_prediction *out;
  cv_memory *memory;
  wires *wire;    /* [n_owners] */
  double *number; /* [2 n_layers + owners or workers] costs, bytes, and what owners have of them */
  int32_t *which; /* [4 n_layers] numbers of layers with an owner, their owners, scratch */
} prediction;

/* ---- memory ---- */

static curvd_status block_new(prediction *p, int64_t count, size_t size, void **block, cv_error *err) {
  return cv_memory_new(p->memory, CV_MEMORY_WORKSPACE, count, (int64_t)size, "the prediction", block, err);
}

static curvd_status make(prediction *p, cv_error *err) {
  cv_prediction *out = p->out;
  int64_t n = out->n_layers, ranks = cv_larger(out->n_owners, out->run.n_workers);
  void *choice = NULL, *owner = NULL, *shard = NULL, *times = NULL, *wire = NULL, *which = NULL;
  curvd_status status = block_new(p, n, sizeof *out->choice, &choice, err);
  if (status == CURVD_OK) status = block_new(p, n, sizeof *out->owner, &owner, err);
  if (status == CURVD_OK) status = block_new(p, n, sizeof *out->shard, &shard, err);
  if (status == CURVD_OK) status = block_new(p, out->n_owners, sizeof *out->times, &times, err);
  if (status == CURVD_OK) status = block_new(p, out->n_owners, sizeof *p->wire, &wire, err);
  if (status == CURVD_OK) status = block_new(p, 4 * n, sizeof *p->which, &which, err);
  out->choice = choice, out->owner = owner, out->shard = shard, out->times = times, p->wire = wire, p->which = which;
  CV_TRY(status);
  CV_TRY(cv_doubles_new(p->memory, CV_MEMORY_WORKSPACE, out->n_owners, "the prediction", &out->load, err));
  return cv_doubles_new(p->memory, CV_MEMORY_WORKSPACE, 2 * n + ranks, "the prediction", &p->number, err);
}

static void release_scratch(prediction *p) {
  void *wire = p->wire, *which = p->which;
  cv_memory_free(p->memory, &wire);
  cv_memory_free(p->memory, &which);
  cv_doubles_free(p->memory, &p->number);
}

void cv_prediction_free(cv_prediction *p, cv_memory *memory) {
  void *block[] = {p->choice, p->owner, p->shard, p->times};
  for (size_t i = 0; i < sizeof block / sizeof block[0]; i++) cv_memory_free(memory, &block[i]);
  cv_doubles_free(memory, &p->load);
  *p = (cv_prediction){0};
}

cv_plan_layout cv_prediction_layout(const cv_prediction *p) {
  return (cv_plan_layout){&p->run, p->n_layers, p->layer, p->choice, p->owner, p->shard};
}

/* ---- owners ---- */

/* Each layer's choice, and in number[] its flops. */
static void choose(prediction *p) {
  int32_t n = p->out->n_layers;
  cv_plan_draft draft = {
      n,       p->out->layer, p->out->choice, p->out->shard, p->number, p->number + n, p->number + (ptrdiff_t)2 * n,
      p->which};
  p->given->choose(p->given->user, &p->out->run, &draft);
}

static void assign_owners(prediction *p) {
  cv_prediction *out = p->out;
  int32_t *which = p->which, *owner = which + out->n_layers, used = 0;
  double *cost = p->number, *bytes = cost + out->n_layers, *load = bytes + out->n_layers;
  for (int32_t i = 0; i < out->n_layers; i++) {
    out->owner[i] = -1;
    if (out->layer[i].is_skipped) continue;
    cost[used] = cost[i]; /* used <= i */
    which[used++] = i;
  }
  cv_plan_owners(cost, used, out->n_owners, owner, load, owner + out->n_layers);
  for (int32_t i = 0; i < used; i++) {
    out->owner[which[i]] = owner[i];
    bytes[i] = (double)cv_plan_factor_bytes(&out->run, &out->layer[which[i]], &out->choice[which[i]]);
  }
  double room = p->given->owner_room_bytes > 0 ? (double)p->given->owner_room_bytes : INFINITY;
  out->overfull = cv_plan_overfull(bytes, owner, used, out->n_owners, room, load);
}

/* ---- times ---- */

/* What owner o has to do with a factor, which costs each owner the same. run: of the factor. */
static void add_factor(prediction *p, const cv_plan_run *run, int32_t o, int64_t n, const cv_plan_choice *choice, int f,
                       const cv_plan_cost *cost) {
  cv_plan_carrier carrier = choice->carrier[f];
  cv_timetable_owner *t = &p->out->times[o];
  cv_plan_up up = cv_plan_up_bytes(run, n, carrier, choice->route, o);
  double owners = cv_plan_is_spread(run, n, carrier) ? p->out->n_owners : 1;
  t->pack_s += cost[CV_PLAN_STATISTICS].seconds / owners;
  t->average_s += cost[CV_PLAN_AVERAGE].seconds;
  if (cv_plan_is_local(carrier)) t->average_s += cost[CV_PLAN_CAPTURE].seconds; /* nobody else captures it */
  t->refresh_s += cost[CV_PLAN_REFRESH].seconds;
  t->publish_s += cost[CV_PLAN_PUBLISH].seconds;
  t->receive_s += cost[CV_PLAN_RECEIVE].seconds / owners;
  p->wire[o].up.reduced += up.reduced;
  p->wire[o].up.summed += up.summed;
  p->wire[o].up.columns += up.columns;
  p->wire[o].down += cost[CV_PLAN_PUBLISH].bytes;
  p->out->stage_s[CV_PLAN_RECEIVE] += cost[CV_PLAN_RECEIVE].seconds / owners;
  p->out->stage_s[CV_PLAN_STATISTICS] += cost[CV_PLAN_STATISTICS].seconds / owners;
}

static void add_layer_of_owners(prediction *p, int32_t i) {
  cv_prediction *out = p->out;
  const cv_plan_choice *choice = &out->choice[i];
  bool is_any_spread = false;
  for (int f = 0; f < CV_PLAN_FACTORS; f++) {
    int64_t n = cv_plan_size(&out->layer[i], f);
    if (n == 0) continue;
    cv_plan_run run = cv_plan_factor_run(&out->run, &out->layer[i], f);
    bool is_spread = cv_plan_is_spread(&run, n, choice->carrier[f]);
    cv_plan_cost cost[CV_PLAN_STAGES];
    cv_plan_factor_costs(p->given->machine, &run, n, choice->carrier[f], cost);
    if (!cv_plan_is_local(choice->carrier[f])) out->stage_s[CV_PLAN_CAPTURE] += cost[CV_PLAN_CAPTURE].seconds;
    if (!is_spread) add_factor(p, &run, out->owner[i], n, choice, f, cost);
    for (int32_t o = 0; is_spread && o < out->n_owners; o++) add_factor(p, &run, o, n, choice, f, cost);
    is_any_spread = is_any_spread || is_spread;
  }
  for (int32_t o = 0; o < out->n_owners; o++) {
    if (is_any_spread || o == out->owner[i]) p->wire[o].down += (double)cv_plan_header_bytes(&out->run, &out->layer[i]);
  }
  out->table.is_spread = out->table.is_spread || is_any_spread;
}

static void time_owners(prediction *p) {
  cv_prediction *out = p->out;
  const cv_plan_machine *machine = p->given->machine;
  for (int32_t i = 0; i < out->n_layers; i++) {
    if (!out->layer[i].is_skipped) add_layer_of_owners(p, i);
  }
  for (int32_t o = 0; o < out->n_owners; o++) {
    cv_timetable_owner *t = &out->times[o];
    double down = p->wire[o].down > 0 ? p->wire[o].down + (double)out->run.event_bytes : 0;
    t->up_s = cv_plan_up_s(machine, &out->run, &p->wire[o].up);
    t->down_s = cv_plan_down_s(machine, &out->run, down);
    out->stage_s[CV_PLAN_AVERAGE] = fmax(out->stage_s[CV_PLAN_AVERAGE], t->average_s);
    out->stage_s[CV_PLAN_REFRESH] = fmax(out->stage_s[CV_PLAN_REFRESH], t->refresh_s);
    out->stage_s[CV_PLAN_PUBLISH] = fmax(out->stage_s[CV_PLAN_PUBLISH], t->publish_s);
  }
}

/* The worker with the most to do for sharded layers; -1: there are none. */
static int32_t busiest_worker(prediction *p) {
  cv_prediction *out = p->out;
  double *load = p->number + (ptrdiff_t)2 * out->n_layers;
  int32_t busiest = -1;
  for (int32_t w = 0; w < out->run.n_workers; w++) load[w] = 0;
  for (int32_t i = 0; i < out->n_layers; i++) {
    cv_plan_cost cost[CV_PLAN_STAGES];
    int32_t w = out->shard[i];
    if (w < 0) continue;
    cv_plan_layer_costs(p->given->machine, &out->run, &out->layer[i], &out->choice[i], cost);
    for (int s = CV_PLAN_MOMENTUM; s <= CV_PLAN_APPLY; s++) load[w] += cost[s].seconds;
    if (busiest < 0 || load[w] > load[busiest]) busiest = w;
  }
  return busiest;
}

/* What a worker does in every step. The busiest one counts; sharded layers are written out by all. */
static void time_workers(prediction *p) {
  cv_prediction *out = p->out;
  const cv_plan_machine *machine = p->given->machine;
  int32_t busiest = busiest_worker(p);
  double bytes = 0;
  for (int32_t i = 0; i < out->n_layers; i++) {
    cv_plan_cost cost[CV_PLAN_STAGES];
    cv_plan_layer_costs(machine, &out->run, &out->layer[i], &out->choice[i], cost);
    out->stage_s[CV_PLAN_TRAIN] += cost[CV_PLAN_TRAIN].seconds;
    out->stage_s[CV_PLAN_GRADIENTS] += cost[CV_PLAN_GRADIENTS].seconds;
    bool applies = out->shard[i] < 0 || out->shard[i] == busiest;
    for (int s = CV_PLAN_MOMENTUM; s <= CV_PLAN_APPLY && applies; s++) out->stage_s[s] += cost[s].seconds;
    if (out->shard[i] >= 0) out->stage_s[CV_PLAN_APPLY] += cv_plan_write_seconds(machine, &out->run, &out->layer[i]);
    bytes += cost[CV_PLAN_GRADIENTS].bytes;
  }
  if (out->run.train_s > 0) out->stage_s[CV_PLAN_TRAIN] = out->run.train_s;
  out->table.gradients_s = out->stage_s[CV_PLAN_GRADIENTS];
  if (bytes > 0) out->table.gradients_s += cv_plan_transfer_s(machine, CV_PLAN_SUM, out->run.n_workers, bytes);
}

/* As many refreshes as are under way at once are skipped, and one interval more. */
static int64_t skipped_steps(const cv_plan_run *run) {
  return (run->staleness / run->inv_update_steps + 2) * run->inv_update_steps;
}

static int64_t all_steps(const cv_plan_run *run) {
  int64_t inv = run->inv_update_steps;
  return skipped_steps(run) + cv_larger((STEPS_MIN + inv - 1) / inv, REFRESHES_MIN) * inv;
}

static void fill_table(prediction *p) {
  cv_prediction *out = p->out;
  cv_timetable *t = &out->table;
  const cv_plan_run *run = &out->run;
  t->n_steps = all_steps(run);
  t->n_skipped = skipped_steps(run);
  t->factor_update_steps = run->factor_update_steps;
  t->inv_update_steps = run->inv_update_steps;
  t->staleness = run->staleness;
  t->is_free = run->is_free;
  t->has_curvature = run->n_curvature > 0;
  t->compute_s = out->stage_s[CV_PLAN_TRAIN];
  t->capture_s = out->stage_s[CV_PLAN_CAPTURE] + run->capture_train_s;
  t->finish_s = out->stage_s[CV_PLAN_MOMENTUM] + out->stage_s[CV_PLAN_PROJECT] + out->stage_s[CV_PLAN_APPLY];
  if (t->has_curvature)
    t->command_s = cv_plan_transfer_s(p->given->machine, CV_PLAN_SEND, run->n_workers + run->n_curvature, 0);
  t->overlap = p->given->machine->overlap;
  t->n_owners = out->n_owners;
  t->owner = out->times;
}

/* ---- arguments ---- */

static bool is_machine(const cv_plan_machine *m) {
  const double above_zero[] = {m->gemm_flops_s, m->syrk_flops_s, m->copy_bytes_s, m->within.bytes_s,
                               m->between.bytes_s};
  for (size_t i = 0; i < sizeof above_zero / sizeof above_zero[0]; i++) {
    if (!(above_zero[i] > 0)) return false;
  }
  return m->ranks_per_node >= 1 && m->overlap >= 0 && m->overlap <= 1;
}

/* Bytes are counted in 64 bits, those of transfers over all steps. Of m + n rows and columns a rank holds less than 20
 * squares of 4 bytes, and sends less than 4 in each refresh or statistic; gradients go at most twice. */
static curvd_status check_sizes(const cv_predict_case *given, cv_error *err) {
  const cv_plan_run *r = &given->run;
  double squares = 0, weights = 0, n_steps = (double)all_steps(r);
  for (int32_t i = 0; i < given->n_layers; i++) {
    double m = (double)given->layer[i].m, n = (double)given->layer[i].n;
    squares += (m + n) * (m + n);
    weights += m * n;
  }
  double events = n_steps / fmin((double)r->factor_update_steps, (double)r->inv_update_steps) + 1;
  if (fmax(fmax(20, 4 * events) * squares, 2 * n_steps * weights) < 0x1p62 / sizeof(float)) return CURVD_OK;
  return cv_fail(
      err, CURVD_ERR_ARGUMENT,
      "a prediction of %g weights over %g steps: the bytes of %d layers exceed 64 bits; use smaller layers or "
      "shorter intervals",
      weights, n_steps, (int)given->n_layers);
}

static curvd_status check(const cv_predict_case *given, cv_error *err) {
  const cv_plan_run *r = &given->run;
  if (r->n_workers < 1 || r->n_curvature < 0 || given->n_layers < 0)
    return cv_fail(err, CURVD_ERR_ARGUMENT, "a prediction for %d workers, %d curvature ranks and %d layers",
                   (int)r->n_workers, (int)r->n_curvature, (int)given->n_layers);
  if (r->factor_update_steps < 1 || r->inv_update_steps < 1 || r->staleness < 0 || r->batch_rows < 0 ||
      r->statistics_rows < 0 || r->eig_rank < 1 || r->oversampling < 0 || r->products < 0)
    return cv_fail(err, CURVD_ERR_ARGUMENT,
                   "a prediction with intervals %lld and %lld, staleness %lld, eig_rank %lld: one is out of its range",
                   (long long)r->factor_update_steps, (long long)r->inv_update_steps, (long long)r->staleness,
                   (long long)r->eig_rank);
  if (r->factor_update_steps > CV_PREDICT_INTERVAL_MAX || r->inv_update_steps > CV_PREDICT_INTERVAL_MAX)
    return cv_fail(err, CURVD_ERR_ARGUMENT, "a prediction with intervals of %lld and %lld steps: use at most %d",
                   (long long)r->factor_update_steps, (long long)r->inv_update_steps, (int)CV_PREDICT_INTERVAL_MAX);
  if (!isfinite(r->train_s) || r->train_s < 0 || !isfinite(r->capture_train_s) || r->capture_train_s < 0)
    return cv_fail(err, CURVD_ERR_ARGUMENT, "a prediction with %g and %g seconds of training in a step", r->train_s,
                   r->capture_train_s);
  if (!is_machine(given->machine))
    return cv_fail(err, CURVD_ERR_ARGUMENT,
                   "a machine whose speeds are not above 0, or whose overlap is not in [0, 1]");
  for (int32_t i = 0; i < given->n_layers; i++) {
    if (given->layer[i].m < 1 || given->layer[i].n < 1)
      return cv_fail(err, CURVD_ERR_ARGUMENT, "layer %d of a prediction is (%lld, %lld)", (int)i,
                     (long long)given->layer[i].m, (long long)given->layer[i].n);
  }
  return check_sizes(given, err);
}

static curvd_status predict(prediction *p, cv_error *err) {
  cv_prediction *out = p->out;
  CV_TRY(make(p, err));
  choose(p);
  assign_owners(p);
  time_owners(p);
  time_workers(p);
  fill_table(p);
  return cv_simulate(&out->table, p->memory, &out->simulation, out->load, err);
}

curvd_status cv_predict(const cv_predict_case *given, cv_memory *memory, cv_prediction *out, cv_error *err) {
  *out = (cv_prediction){.run = given->run, .n_layers = given->n_layers, .layer = given->layer, .overfull = -1};
  CV_TRY(check(given, err));
  out->n_owners = cv_plan_owner_count(&given->run);
  prediction p = {.given = given, .out = out, .memory = memory};
  curvd_status status = predict(&p, err);
  release_scratch(&p);
  if (status != CURVD_OK) cv_prediction_free(out, memory);
  return status;
}
