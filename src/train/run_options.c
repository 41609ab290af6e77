#include "train/run_options.h"

#include "base/order.h"
#include "train/optim.h"

#include <stdio.h>
#include <string.h>

/* ---- automatic values ---- */

bool run_is_first_order(const config *c) {
  return c->values.method == TRAIN_METHOD_SGD || c->values.method == TRAIN_METHOD_ADAMW;
}

static bool is_published(const config *c) {
  return strcmp(config_text(c, "recipe"), "published") == 0;
}

/* Automatic values: what the recipe's authors use, else the field's common choice. */
static bool has_convolutions(const model_spec *spec) {
  for (int i = 0; i < spec->n_layers; i++) {
    if (spec->layer[i].kind == NN_CONV) return true;
  }
  return false;
}

static double auto_lr(const config *c, const model_spec *spec) {
  bool is_smooth = spec->layer[0].activation == NN_SIGMOID || spec->layer[0].activation == NN_TANH;
  if (c->values.method == TRAIN_METHOD_SGD) return has_convolutions(spec) ? 0.02 : 0.1; /* 0.1 diverges on cnn */
  if (c->values.method == TRAIN_METHOD_ADAMW) return 1e-3;
  if (is_published(c)) return 0.1;
  if (has_convolutions(spec)) return 5e-4;
  return is_smooth ? 4e-3 : 1e-3;
}

static double auto_momentum(const config *c) {
  bool is_kfac = c->values.method == TRAIN_METHOD_KFAC;
  return c->values.method == TRAIN_METHOD_SGD || (is_kfac && is_published(c)) ? 0.9 : 0;
}

/* The normalised step never shrinks weights by itself; classifiers grow over-confident within a few epochs without
 * decay. */
static double auto_weight_decay(const config *c, const model_spec *spec) {
  return !run_is_first_order(c) && !is_published(c) && spec->loss == NN_SOFTMAX_CE ? 2 : 0;
}

static curvd_status resolve_number(config *c, const char *name, double value, cv_error *err) {
  char text[40];
  snprintf(text, sizeof text, "%.9g", value);
  return strcmp(config_text(c, name), "auto") == 0 ? config_resolve(c, name, text, err) : CURVD_OK;
}

/* Rows are preconditioned before they make a gradient, so there is none that coupled decay could be added to. */
static curvd_status check_factored(const config *c, cv_error *err) {
  const train_config *v = &c->values;
  bool is_factored = !run_is_first_order(c) && strcmp(config_text(c, "apply"), "factored") == 0;
  if (!is_factored || v->weight_decay == 0 || v->weight_decay_kind != OPTIM_COUPLED_BEFORE) return CURVD_OK;
  return cv_fail(err, CURVD_ERR_OPTION,
                 "apply factored makes no gradient that weight_decay_kind coupled could be added to: use decoupled, "
                 "coupled-after, or apply replicated");
}

curvd_status run_resolve(config *c, const model_spec *spec, int n_ranks, cv_error *err) {
  CV_TRY(resolve_number(c, "lr", auto_lr(c, spec), err));
  CV_TRY(resolve_number(c, "sgd_momentum", auto_momentum(c), err));
  CV_TRY(resolve_number(c, "weight_decay", auto_weight_decay(c, spec), err));
  CV_TRY(resolve_number(c, "curvature_ranks", !run_is_first_order(c) && n_ranks > 1, err));
  if (strcmp(config_text(c, "optimizer"), "auto") == 0)
    CV_TRY(config_resolve(c, "optimizer", c->values.method == TRAIN_METHOD_ADAMW ? "adamw" : "sgd", err));
  return check_factored(c, err);
}

/* ---- what the library is told ---- */

/* Can gradients be added into their own decayed average by the products that make them? Not where coupled decay would
 * enter the average, nor where an optimizer needs the direction in the gradient's place. */
bool run_averages_gradients(const train_config *v) {
  bool is_decay_apart = v->weight_decay == 0 || v->weight_decay_kind == OPTIM_DECOUPLED;
  bool is_subtracted = v->optimizer == TRAIN_SGD && v->sgd_momentum == 0;
  return is_decay_apart && (v->method == TRAIN_METHOD_SGD || (v->method != TRAIN_METHOD_ADAMW && is_subtracted));
}

typedef struct listener {
  option_put *put;
  void *user;
  cv_error *err;
} listener;

static curvd_status put_number(const listener *to, const char *key, double value) {
  char text[40];
  snprintf(text, sizeof text, "%.17g", value);
  return to->put(to->user, key, text, to->err);
}

/* The most that a worker captures in one step: every fisher_stride-th example of its share of the batch, or of its
 * share of each piece (trainer.c, find_piece); unless the user says otherwise. */
static curvd_status put_capture_rows(const config *c, int n_ranks, const listener *to) {
  const train_config *v = &c->values;
  int64_t workers = cv_larger(n_ranks - v->curvature_ranks, 1);
  int64_t pieces = v->norm_statistics == TRAIN_NORM_ALL ? v->accumulate : 1;
  int64_t share = cv_divide_up(cv_divide_up(v->batch, pieces), workers);
  return put_number(to, "capture_rows", (double)(pieces * cv_divide_up(share, v->fisher_stride)));
}

static curvd_status put_user_options(const config *c, const listener *to) {
  for (int i = 0; i < c->n; i++) {
    const config_entry *entry = &c->entry[i];
    if (entry->is_library && entry->is_set) CV_TRY(to->put(to->user, entry->name, entry->text, to->err));
  }
  return CURVD_OK;
}

curvd_status run_options(const config *c, int n_ranks, int64_t steps_per_epoch, option_put *put, void *user,
                         cv_error *err) {
  const listener to = {put, user, err};
  CV_TRY(put_capture_rows(c, n_ranks, &to));
  CV_TRY(put_user_options(c, &to));
  CV_TRY(put(user, "method", run_is_first_order(c) ? "none" : c->method, err));
  CV_TRY(put(user, "grad_reduction", "sum", err));
  CV_TRY(put(user, "loss_reduction", "sum", err));
  CV_TRY(put(user, "momentum_place", run_averages_gradients(&c->values) ? "caller" : "step", err));
  CV_TRY(put_number(&to, "seed", (double)c->values.seed));
  CV_TRY(put_number(&to, "curvature_ranks", (double)c->values.curvature_ranks));
  return put_number(&to, "steps_per_epoch", (double)steps_per_epoch);
}
