/* The cheapest way of each kind for a layer: all that are allowed and possible are tried. */
#include "curvature/model.h"

#include <math.h>

/* Of one factor, in a mean step. */
static double factor_seconds(const cv_plan_machine *machine, const cv_plan_run *run, int64_t n, cv_plan_carrier carrier,
                             cv_plan_route route) {
  cv_plan_cost cost[CV_PLAN_STAGES];
  bool is_spread = cv_plan_is_spread(run, n, carrier);
  double owners = is_spread ? cv_plan_owner_count(run) : 1, shown = 1 - machine->overlap,
         capturers = carrier == CV_PLAN_LOCAL ? run->n_workers : 1;
  cv_plan_up up = cv_plan_up_bytes(run, n, carrier, route, 0);
  cv_plan_factor_costs(machine, run, n, carrier, cost);
  double statistic = cost[CV_PLAN_CAPTURE].seconds / capturers + cost[CV_PLAN_STATISTICS].seconds +
                     shown * owners * cv_plan_up_s(machine, run, &up);
  double receive =
      cost[CV_PLAN_RECEIVE].seconds + shown * owners * cv_plan_down_s(machine, run, cost[CV_PLAN_PUBLISH].bytes);
  double share = owners / cv_plan_owner_count(run);
  statistic += share * cost[CV_PLAN_AVERAGE].seconds;
  receive += share * (cost[CV_PLAN_REFRESH].seconds + cost[CV_PLAN_PUBLISH].seconds);
  return statistic / (double)run->factor_update_steps + receive / (double)run->inv_update_steps;
}

static double apply_seconds(const cv_plan_machine *machine, const cv_plan_run *run, const cv_plan_layer *layer,
                            const cv_plan_choice *choice) {
  cv_plan_cost cost[CV_PLAN_STAGES];
  cv_plan_layer_costs(machine, run, layer, choice, cost);
  double seconds = cost[CV_PLAN_PROJECT].seconds + cost[CV_PLAN_APPLY].seconds;
  return choice->apply == CV_PLAN_SHARDED ? seconds / run->n_workers : seconds;
}

static bool may(uint32_t allowed, int value) {
  return allowed >> value & 1;
}

typedef struct best {
  cv_plan_choice choice;
  double seconds;
} best;

/* All ways to apply, for given carriers and route. */
static void try_applies(const cv_plan_machine *machine, const cv_plan_run *run, const cv_plan_layer *layer,
                        uint32_t applies, cv_plan_choice choice, double carried, best *found) {
  for (int apply = 0; apply < CV_PLAN_APPLIES; apply++) {
    if (!may(applies, apply)) continue;
    choice.apply = (cv_plan_apply)apply;
    double seconds = carried + apply_seconds(machine, run, layer, &choice);
    if (seconds < found->seconds) *found = (best){choice, seconds};
  }
}

/* Carriers that are allowed and possible; the triangle where there is none. */
static uint32_t possible(const cv_plan_run *run, int64_t n, uint32_t allowed) {
  uint32_t bits = 0;
  for (int carrier = 0; carrier < CV_PLAN_CARRIERS; carrier++) {
    if (may(allowed, carrier) && cv_plan_can_carry(run, n, (cv_plan_carrier)carrier)) bits |= 1u << carrier;
  }
  return bits ? bits : 1u << CV_PLAN_TRIANGLE;
}

static void try_carriers(const cv_plan_machine *machine, const cv_plan_run *run, const cv_plan_layer *layer,
                         const cv_plan_allowed *allowed, cv_plan_route route, best *found) {
  uint32_t of_a = possible(run, layer->n, allowed->carriers), of_g = possible(run, layer->m, allowed->carriers);
  double seconds_a[CV_PLAN_CARRIERS], seconds_g[CV_PLAN_CARRIERS];
  for (int c = 0; c < CV_PLAN_CARRIERS; c++) {
    if (may(of_a, c)) seconds_a[c] = factor_seconds(machine, run, layer->n, (cv_plan_carrier)c, route);
    if (may(of_g, c)) seconds_g[c] = factor_seconds(machine, run, layer->m, (cv_plan_carrier)c, route);
  }
  for (int a = 0; a < CV_PLAN_CARRIERS; a++) {
    for (int g = 0; g < CV_PLAN_CARRIERS && may(of_a, a); g++) {
      cv_plan_choice choice = {{(cv_plan_carrier)a, (cv_plan_carrier)g}, CV_PLAN_REPLICATED, route};
      if (may(of_g, g)) try_applies(machine, run, layer, allowed->applies, choice, seconds_a[a] + seconds_g[g], found);
    }
  }
}

cv_plan_choice cv_plan_choose(const cv_plan_machine *machine, const cv_plan_run *run, const cv_plan_layer *layer,
                              const cv_plan_allowed *allowed) {
  best found = {.seconds = INFINITY};
  for (int route = 0; route < CV_PLAN_ROUTES && !layer->is_skipped; route++) {
    if (may(allowed->routes, route)) try_carriers(machine, run, layer, allowed, (cv_plan_route)route, &found);
  }
  return found.choice;
}
