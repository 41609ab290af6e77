#include "curvature/factor_plan.h"

#include "base/order.h"
#include "curvature/precision.h"
#include "curvature/rounding.h"
#include "product/multiply.h"

#include <string.h>

enum { STREAM_MIN_N = 4096 }; /* from here on a stream costs half of a full factor, and its error is smaller */

int64_t cv_largest_rank(const cv_settings *s) {
  int64_t adaptive = s->missing_trace > 0 ? s->eig_rank_max : 0;
  return cv_larger((int64_t)cv_schedule_max(&s->eig_rank), adaptive);
}

int64_t cv_refresh_products(const cv_settings *s) {
  const cv_schedule *iterations = s->warm_start ? &s->warm_power_iters : &s->power_iters;
  return (int64_t)iterations->piece[0].value + 1;
}

static bool wants_stream(const cv_settings *s, int64_t n, bool is_spread) {
  if (s->method != CV_METHOD_NYSTROM || s->form != CV_FORM_EIGEN) return false;
  if (s->store != CV_STORE_AUTO) return s->store == CV_STORE_STREAM;
  if (s->carrier == CV_CARRY_SKETCH) return true;
  return s->carrier == CV_CARRY_AUTO && cv_can_sketch_on_workers(s) && n >= STREAM_MIN_N && !is_spread;
}

bool cv_has_stream_ranks(const cv_settings *s) {
  bool has_rows_alone = s->carrier == CV_CARRY_COLUMNS && s->store != CV_STORE_STREAM;
  return s->method == CV_METHOD_NYSTROM && !has_rows_alone;
}

static cv_plan_route route_of(const cv_settings *s, const cv_plan_run *run) {
  bool rides = s->route == CV_ROUTE_GRADIENTS && run->n_workers > 1;
  return rides ? CV_PLAN_WITH_GRADIENTS : CV_PLAN_TO_OWNER;
}

/* Into a running average; the rows of all layers go into one message. run: of the factor. */
static bool rows_cost_less(const cv_settings *s, const cv_plan_run *run, int64_t captured, int64_t n) {
  const cv_plan_machine *machine = &cv_plan_machine_default;
  cv_plan_run rows = *run;
  if (s->carrier != CV_CARRY_AUTO || !s->knows_rows || run->row_bytes > INT32_MAX) return false;
  rows.statistics_rows = captured;
  return cv_plan_factor_seconds(machine, &rows, n, CV_PLAN_COLUMNS, route_of(s, run)) <
         cv_plan_factor_seconds(machine, &rows, n, CV_PLAN_TRIANGLE, route_of(s, run));
}

static cv_plan_carrier carrier_of(const cv_settings *s, const cv_plan_run *run, int64_t captured, int64_t n,
                                  const cv_factor_plan *plan) {
  bool is_stream = plan->store == CV_PLAN_STREAM, is_online = plan->store == CV_PLAN_ONLINE;
  if (plan->store == CV_PLAN_FULL && rows_cost_less(s, run, captured, n)) return CV_PLAN_COLUMNS;
  if (plan->is_spread) return s->carrier == CV_CARRY_COLUMNS ? CV_PLAN_COLUMNS : CV_PLAN_TRIANGLE;
  if (s->carrier == CV_CARRY_LOCAL) return CV_PLAN_LOCAL;
  if (s->carrier == CV_CARRY_COLUMNS || is_online || (is_stream && !cv_can_sketch_on_workers(s)))
    return CV_PLAN_COLUMNS;
  return is_stream ? CV_PLAN_SKETCH : CV_PLAN_TRIANGLE;
}

cv_factor_plan cv_factor_plan_of(const cv_settings *s, const cv_plan_run *all, const cv_plan_layer *layer, int which) {
  const cv_plan_run of_factor = cv_plan_factor_run(all, layer, which), *run = &of_factor;
  const cv_rows_rule rule = cv_plan_rule(all, layer, which);
  int64_t n = rule.n, captured = cv_rows_captured(&rule, s->capture_rows);
  bool may_spread = cv_plan_owner_count(run) > 1 && n >= s->grid_min_n && s->form == CV_FORM_EIGEN &&
                    run->capture_rows <= CV_ROWS_MAX,
       is_stream = wants_stream(s, n, may_spread), is_local = s->carrier == CV_CARRY_LOCAL;
  int64_t rank = cv_largest_rank(s),
          k = cv_smaller(rank + cv_oversampling(cv_schedule_max(&s->oversampling), rank, is_stream), n);
  cv_factor_plan plan = {.is_full = s->method == CV_METHOD_KFAC || (double)k >= s->full_share * (double)n};
  plan.k_max = plan.is_full ? n : k;
  if (!plan.is_full) plan.store = is_stream ? CV_PLAN_STREAM : cv_is_online(s) ? CV_PLAN_ONLINE : CV_PLAN_FULL;
  plan.is_spread = may_spread && plan.store == CV_PLAN_FULL && !is_local;
  plan.carrier = carrier_of(s, run, captured, n, &plan);
  plan.sends_bf16 = cv_plan_sends_bf16(run, n, plan.carrier, route_of(s, run));
  plan.publishes_bf16 = cv_plan_publishes_bf16(run, plan.carrier);
  return plan;
}

/* Streams and online pairs have their products from the statistics. */
double cv_factor_plan_flops(const cv_settings *s, int64_t n, const cv_factor_plan *plan) {
  int64_t products = plan->store == CV_PLAN_FULL ? cv_refresh_products(s) : 0;
  return plan->is_spread ? 0 : cv_plan_refresh_flops(n, plan->k_max, products - 1, plan->is_full);
}

/* A statistic and a refresh of 2 by 2 blocks: a mixture and an eigenproblem each. */
double cv_unit_plan_flops(int64_t units) {
  return 50 * (double)units;
}

/* ---- the run, and its layers ---- */

static int64_t first_value(const cv_schedule *schedule) {
  return (int64_t)schedule->piece[0].value;
}

/* What owners keep of rows, where a factor is not full. */
static cv_plan_store store_of_rows(const cv_settings *s) {
  if (cv_is_online(s)) return CV_PLAN_ONLINE;
  return s->store == CV_STORE_STREAM ? CV_PLAN_STREAM : CV_PLAN_FULL;
}

/* Streams of small factors are full up to a larger size than other factors are. */
static int64_t largest_full(const cv_settings *s, int64_t rows) {
  bool takes_all = s->carrier == CV_CARRY_SKETCH || s->store == CV_STORE_STREAM;
  return takes_all && s->full_share > 0 ? (int64_t)((double)rows / s->full_share) : 0;
}

cv_plan_run cv_plan_run_of(const cv_settings *s, int32_t n_workers) {
  cv_plan_run run = cv_plan_run_default;
  double oversampling = cv_schedule_max(&s->oversampling);
  run.n_curvature = (int32_t)s->curvature_ranks;
  run.n_workers = n_workers;
  run.factor_update_steps = first_value(&s->factor_update_steps);
  run.inv_update_steps = first_value(&s->inv_update_steps);
  run.is_free = s->staleness == CV_STALENESS_FREE;
  run.staleness = run.is_free ? s->staleness_max : s->staleness;
  run.is_exact = s->method == CV_METHOD_KFAC;
  run.is_inverse = s->form == CV_FORM_CHOLESKY;
  run.columns_store = run.local_store = store_of_rows(s);
  run.eig_rank = cv_largest_rank(s);
  run.oversampling = cv_oversampling(oversampling, run.eig_rank, false);
  run.spreads_rows = s->store != CV_STORE_STREAM && s->form == CV_FORM_EIGEN;
  run.stream_oversampling = cv_oversampling(oversampling, run.eig_rank, cv_has_stream_ranks(s));
  run.full_n = largest_full(s, run.eig_rank + run.stream_oversampling);
  run.products = cv_refresh_products(s);
  run.full_share = s->full_share;
  run.grid_min_n = s->form == CV_FORM_EIGEN ? s->grid_min_n : 0;
  run.capture_rows = s->capture_rows;
  run.sample_rows = s->sample_rows;
  run.reduces = s->weight_sharing == CV_SHARING_REDUCE;
  run.momentum_is_callers = cv_momentum_here(s) == 0;
  run.clips_by_dot = cv_clip_needs_dot(s);
  run.square_bytes = cv_packed_room((cv_precision)s->apply_precision, 1, 1) * (int64_t)sizeof(uint16_t);
  run.unit_room_bytes = cv_precision_room(s) * (int64_t)sizeof(uint16_t);
  run.is_bf16 = s->wire_precision == CV_BF16;
  run.rounding_rows = cv_rounding_rows(s);
  return run;
}

static cv_plan_apply apply_of(const cv_settings *s, const cv_plan_run *run) {
  bool is_sharded = s->apply == CV_APPLY_SHARDED && run->n_workers > 1 && s->method != CV_METHOD_NONE;
  if (s->apply == CV_APPLY_FACTORED) return CV_PLAN_FACTORED;
  return is_sharded ? CV_PLAN_SHARDED : CV_PLAN_REPLICATED;
}

/* Blocks are small whatever the options say; rows are never preconditioned by them. */
static cv_plan_choice unit_choice(const cv_settings *s, cv_plan_choice choice) {
  bool is_local = s->carrier == CV_CARRY_LOCAL;
  choice.carrier[CV_PLAN_A] = choice.carrier[CV_PLAN_G] = is_local ? CV_PLAN_LOCAL_UNITS : CV_PLAN_UNITS;
  if (choice.apply == CV_PLAN_FACTORED) choice.apply = CV_PLAN_REPLICATED;
  return choice;
}

static cv_plan_choice choice_of(const cv_settings *s, const cv_plan_run *run, const cv_plan_layer *layer,
                                double *flops) {
  cv_plan_choice choice = {.apply = apply_of(s, run), .route = route_of(s, run)};
  if (layer->is_unit && !layer->is_skipped) {
    *flops = cv_unit_plan_flops(layer->m);
    return unit_choice(s, choice);
  }
  if (choice.apply == CV_PLAN_FACTORED && layer->positions > 0) choice.apply = CV_PLAN_REPLICATED;
  *flops = 0;
  for (int f = 0; f < CV_PLAN_FACTORS && !layer->is_skipped; f++) {
    cv_factor_plan plan = cv_factor_plan_of(s, run, layer, f);
    choice.carrier[f] = plan.carrier;
    *flops += cv_factor_plan_flops(s, f == CV_PLAN_A ? layer->n : layer->m, &plan);
  }
  return choice;
}

void cv_layers_plan(const cv_settings *s, const cv_plan_run *run, cv_plan_draft *draft) {
  bool is_open = s->apply == CV_APPLY_AUTO && run->n_workers > 1 && s->method != CV_METHOD_NONE &&
                 s->grad_reduction != CV_GRAD_NONE;
  for (int32_t i = 0; i < draft->n_layers; i++)
    draft->choice[i] = choice_of(s, run, &draft->layer[i], &draft->flops[i]);
  if (is_open) {
    cv_plan_choose_applies(run, draft);
  } else {
    cv_plan_deal_shards(run, draft);
  }
}

/* Does pattern match name? '*' stands for any characters. */
static bool matches(const char *pattern, size_t length, const char *name) {
  if (length == 0) return *name == '\0';
  if (*pattern == '*') {
    for (const char *rest = name;; rest++) {
      if (matches(pattern + 1, length - 1, rest)) return true;
      if (!*rest) return false;
    }
  }
  return *pattern == *name && matches(pattern + 1, length - 1, name + 1);
}

bool cv_is_skipped(const char *list, const char *name) {
  while (*list) {
    size_t length = strcspn(list, ", ");
    if (length > 0 && matches(list, length, name)) return true;
    list += length;
    list += strspn(list, ", ");
  }
  return false;
}
