#include "train/run_shape.h"

#include "base/order.h"
#include "train/network.h"
#include "train/optim.h"
#include "train/run_options.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static curvd_status add_option(void *user, const char *key, const char *value, cv_error *err) {
  run_shape *to = user;
  int32_t at = to->shape.n_options++;
  if (at == RUN_SHAPE_OPTIONS_MAX)
    return cv_fail(err, CURVD_ERR_STATE, "more than %d options; raise RUN_SHAPE_OPTIONS_MAX",
                   (int)RUN_SHAPE_OPTIONS_MAX);
  snprintf(to->value[at], sizeof to->value[at], "%s", value);
  to->option[at] = (curvd_option_value){key, to->value[at]};
  return CURVD_OK;
}

static curvd_status add_layers(run_shape *to, cv_error *err) {
  CV_TRY(part_list(&to->spec, to->part, to->first, err));
  for (int p = 0; p < to->first[to->spec.n_layers]; p++) to->layer[p] = part_shape(&to->spec, to->part[p], to->name[p]);
  return CURVD_OK;
}

/* The second backward pass, of sampled targets, makes no gradients of weights: 2 rows d_in d_out flops a layer and
 * position. */
static double sampled_seconds(const run_shape *to) {
  curvd_machine machine;
  double flops = 0;
  curvd_machine_default(&machine);
  for (int i = 0; i < to->shape.n_layers; i++) {
    const curvd_layer_shape *l = &to->layer[i];
    double positions = l->positions > 0 ? (double)l->positions : 1;
    flops += 2 * (double)to->shape.statistics_rows * positions * (double)l->d_in * (double)l->d_out;
  }
  return flops / machine.gemm_flops_s;
}

static curvd_status fill(config *c, int n_ranks, run_shape *to, cv_error *err) {
  const train_config *v = &c->values;
  CV_TRY(network_parse(v->network, (nn_activation_kind)v->activation, (nn_loss_kind)v->loss, &to->spec, err));
  CV_TRY(run_resolve(c, &to->spec, n_ranks, err));
  bool is_coupled = v->weight_decay > 0 && v->weight_decay_kind == OPTIM_COUPLED_BEFORE;
  CV_TRY(add_layers(to, err));
  to->shape = (curvd_run_shape){.layers = to->layer,
                                .n_layers = to->first[to->spec.n_layers],
                                .options = to->option,
                                .n_ranks = n_ranks,
                                .batch_rows = v->batch,
                                .statistics_rows = cv_divide_up(v->batch, v->fisher_stride),
                                .captures_gradients = !run_is_first_order(c) && !is_coupled};
  if (v->fisher == 1 && !run_is_first_order(c)) to->shape.capture_train_s = sampled_seconds(to);
  return run_options(c, n_ranks, 1, add_option, to, err); /* epochs are as long as a data set has them: unknown */
}

curvd_status run_shape_make(config *c, int n_ranks, run_shape **made, cv_error *err) {
  run_shape *to = calloc(1, sizeof *to);
  if (to == NULL) return cv_fail(err, CURVD_ERR_MEMORY, "no memory for the shape of a run");
  curvd_status status = fill(c, n_ranks, to, err);
  if (status != CURVD_OK) {
    free(to);
    return status;
  }
  *made = to;
  return CURVD_OK;
}
