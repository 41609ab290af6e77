/* What a factor's way costs in a mean step, and who applies which layer. */
#include "base/order.h"
#include "plan/model.h"

#include <math.h>

double cv_plan_factor_seconds(const cv_plan_machine *machine, const cv_plan_run *run, int64_t n,
                              cv_plan_carrier carrier, cv_plan_route route) {
  cv_plan_cost cost[CV_PLAN_STAGES];
  bool is_spread = cv_plan_is_spread(run, n, carrier);
  double owners = is_spread ? cv_plan_owner_count(run) : 1, shown = 1 - machine->overlap,
         seen = is_spread && carrier == CV_PLAN_TRIANGLE ? 1 : shown,
         capturers = carrier == CV_PLAN_LOCAL ? run->n_workers : 1;
  cv_plan_up up = cv_plan_up_bytes(run, n, carrier, route, 0);
  cv_plan_factor_costs(machine, run, n, carrier, cost);
  double statistic = cost[CV_PLAN_CAPTURE].seconds / capturers + cost[CV_PLAN_STATISTICS].seconds +
                     seen * owners * cv_plan_up_s(machine, run, &up);
  double receive =
      cost[CV_PLAN_RECEIVE].seconds + shown * owners * cv_plan_down_s(machine, run, cost[CV_PLAN_PUBLISH].bytes);
  double share = owners / cv_plan_owner_count(run);
  statistic += share * cost[CV_PLAN_AVERAGE].seconds;
  receive += share * (cost[CV_PLAN_REFRESH].seconds + cost[CV_PLAN_PUBLISH].seconds);
  return statistic / (double)run->factor_update_steps + receive / (double)run->inv_update_steps;
}

/* From a summed gradient to a direction in its place. */
static double direction_seconds(const cv_plan_run *run, const cv_plan_layer *layer, const cv_plan_choice *choice) {
  cv_plan_cost cost[CV_PLAN_STAGES];
  cv_plan_layer_costs(&cv_plan_machine_default, run, layer, choice, cost);
  return cost[CV_PLAN_MOMENTUM].seconds + cost[CV_PLAN_PROJECT].seconds + cost[CV_PLAN_APPLY].seconds;
}

double cv_plan_write_seconds(const cv_plan_machine *machine, const cv_plan_run *run, const cv_plan_layer *layer) {
  const cv_plan_layer bare = {.m = layer->m, .n = layer->n, .is_skipped = true};
  cv_plan_cost cost[CV_PLAN_STAGES];
  cv_plan_layer_costs(machine, run, &bare, &(cv_plan_choice){.apply = CV_PLAN_SHARDED}, cost);
  return cost[CV_PLAN_APPLY].seconds;
}

/* Layers that are not sharded are dealt out at no cost, and then forgotten. */
double cv_plan_deal_shards(const cv_plan_run *run, cv_plan_draft *draft) {
  double busiest = 0;
  for (int32_t i = 0; i < draft->n_layers; i++) {
    bool is_sharded = run->n_workers > 1 && draft->choice[i].apply == CV_PLAN_SHARDED;
    draft->cost[i] = is_sharded ? direction_seconds(run, &draft->layer[i], &draft->choice[i]) : 0;
  }
  cv_plan_owners(draft->cost, draft->n_layers, run->n_workers, draft->shard, draft->load, draft->order);
  for (int32_t i = 0; i < draft->n_layers; i++) {
    if (!(draft->cost[i] > 0)) draft->shard[i] = -1;
  }
  for (int32_t w = 0; w < run->n_workers; w++) busiest = fmax(busiest, draft->load[w]);
  return busiest;
}

/* Votes on gradients and directions, the sums of a clip, and the second sum where some layers are not sharded. */
static double message_seconds(const cv_plan_run *run, bool is_mixed) {
  return (is_mixed ? 4 : 3) * cv_plan_transfer_s(&cv_plan_machine_default, CV_PLAN_SUM, run->n_workers, 0);
}

void cv_plan_choose_applies(const cv_plan_run *run, cv_plan_draft *draft) {
  double gain = 0, even = (double)cv_smaller(run->n_workers, draft->n_layers);
  int64_t floats = 0;
  bool is_mixed = false;
  for (int32_t i = 0; i < draft->n_layers; i++) {
    const cv_plan_layer *layer = &draft->layer[i];
    double whole = direction_seconds(run, layer, &draft->choice[i]),
           write = cv_plan_write_seconds(&cv_plan_machine_default, run, layer);
    bool fits = layer->m * layer->n <= CV_PLAN_GATHER_MAX - floats,
         is_sharded = !layer->is_skipped && fits && whole > whole / even + write;
    draft->choice[i].apply = is_sharded ? CV_PLAN_SHARDED : CV_PLAN_REPLICATED;
    is_mixed = is_mixed || !is_sharded;
    if (is_sharded) floats += layer->m * layer->n, gain += whole - write;
  }
  if (gain > cv_plan_deal_shards(run, draft) + message_seconds(run, is_mixed)) return;
  for (int32_t i = 0; i < draft->n_layers; i++) draft->choice[i].apply = CV_PLAN_REPLICATED, draft->shard[i] = -1;
}
