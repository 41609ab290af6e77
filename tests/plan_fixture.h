/* A chooser for predict.h: every layer as it is wished, and triangles where a factor cannot come so. */
#ifndef TESTS_PLAN_FIXTURE_H
#define TESTS_PLAN_FIXTURE_H

#include "plan/predict.h"

static const cv_plan_choice plan_triangles = {
    {CV_PLAN_TRIANGLE, CV_PLAN_TRIANGLE}, CV_PLAN_REPLICATED, CV_PLAN_TO_OWNER};

/* Flops of a refresh of what the layer's owner would hold alone. */
static inline double plan_alone_flops(const cv_plan_run *run, const cv_plan_layer *layer,
                                      const cv_plan_choice *choice) {
  double flops = 0;
  for (int f = 0; f < CV_PLAN_FACTORS; f++) {
    int64_t n = f == CV_PLAN_A ? layer->n : layer->m;
    cv_plan_carrier carrier = choice->carrier[f];
    bool has_products = cv_plan_store_of(run, n, carrier) == CV_PLAN_FULL;
    if (cv_plan_is_spread(run, n, carrier)) continue;
    flops += cv_plan_refresh_flops(n, cv_plan_basis(run, n, carrier), has_products ? run->products - 1 : -1,
                                   cv_plan_is_full(run, n, carrier));
  }
  return flops;
}

/* user: a cv_plan_choice */
static inline void plan_choose_alike(const void *user, const cv_plan_run *run, cv_plan_draft *draft) {
  const cv_plan_choice *wish = user;
  for (int32_t i = 0; i < draft->n_layers; i++) {
    const cv_plan_layer *layer = &draft->layer[i];
    cv_plan_choice *choice = &draft->choice[i];
    *choice = layer->is_skipped ? plan_triangles : *wish;
    if (!cv_plan_can_carry(run, layer->n, choice->carrier[CV_PLAN_A])) choice->carrier[CV_PLAN_A] = CV_PLAN_TRIANGLE;
    if (!cv_plan_can_carry(run, layer->m, choice->carrier[CV_PLAN_G])) choice->carrier[CV_PLAN_G] = CV_PLAN_TRIANGLE;
    draft->flops[i] = plan_alone_flops(run, layer, choice);
  }
  cv_plan_deal_shards(run, draft);
}

#endif
