#include "train/optim.h"

#include <math.h>

static const double pi = 0x1.921fb54442d18p+1;

static int64_t weight_count(const nn_layer *layer) {
  return layer->d_out * layer->ld;
}

static curvd_status moments_new(const optim *opt, const nn_layer *layer, cv_memory *memory, float **first,
                                float **second, cv_error *err) {
  int64_t count = weight_count(layer);
  if (opt->kind == TRAIN_ADAMW || opt->momentum != 0)
    CV_TRY(cv_floats_new(memory, CV_MEMORY_MOMENTUM, count, "the optimizer's momentum", first, err));
  if (opt->kind == TRAIN_ADAMW)
    CV_TRY(cv_floats_new(memory, CV_MEMORY_MOMENTUM, count, "the optimizer's second moments", second, err));
  return CURVD_OK;
}

curvd_status optim_create(const optim *settings, const model *net, cv_memory *memory, optim *opt, cv_error *err) {
  *opt = *settings;
  opt->step = 0;
  for (int i = 0; i < MODEL_LAYERS_MAX; i++) opt->first[i] = opt->second[i] = NULL;
  curvd_status status = CURVD_OK;
  for (int i = 0; i < net->spec.n_layers && status == CURVD_OK; i++)
    if (net->layer[i].weight) status = moments_new(opt, &net->layer[i], memory, &opt->first[i], &opt->second[i], err);
  if (status != CURVD_OK) optim_free(memory, opt);
  return status;
}

void optim_free(cv_memory *memory, optim *opt) {
  for (int i = 0; i < MODEL_LAYERS_MAX; i++) {
    cv_floats_free(memory, &opt->first[i]);
    cv_floats_free(memory, &opt->second[i]);
  }
}

static void add_scaled(int64_t count, float scale, const float *restrict x, float *restrict y) {
  for (int64_t i = 0; i < count; i++) y[i] += scale * x[i];
}

bool optim_decays(const nn_layer *layer) {
  return layer->weight != NULL && layer->spec.kind != NN_NORM;
}

void optim_couple_decay(const optim *opt, model *net, double share) {
  float scale = (float)(share * opt->weight_decay);
  if (opt->decay != OPTIM_COUPLED_BEFORE || scale == 0) return;
  for (int i = 0; i < net->spec.n_layers; i++) {
    nn_layer *layer = &net->layer[i];
    if (!optim_decays(layer)) continue;
    add_scaled(weight_count(layer), scale, layer->weight, layer->gradient);
  }
}

/* The numbers of one step that every weight shares. */
typedef struct step_scales {
  float keep;   /* W's own factor: 1 - lr * weight_decay when decoupled */
  float couple; /* weight_decay when coupled after preconditioning */
  float lr;
} step_scales;

/* One pass each over gradient g, moments and weight w. Padding columns are 0 in all of them and stay 0. */
static void sgd_plain(int64_t count, step_scales s, const float *restrict g, float *restrict w) {
  for (int64_t i = 0; i < count; i++) w[i] = s.keep * w[i] - s.lr * (g[i] + s.couple * w[i]);
}

static void sgd_momentum(int64_t count, step_scales s, float momentum, const float *restrict g, float *restrict m,
                         float *restrict w) {
  for (int64_t i = 0; i < count; i++) {
    m[i] = momentum * m[i] + (g[i] + s.couple * w[i]);
    w[i] = s.keep * w[i] - s.lr * m[i];
  }
}

/* Loshchilov and Hutter, Decoupled Weight Decay Regularization, 2019. s.lr is lr / (1 - beta1^t);
 * correction is 1 / (1 - beta2^t). */
static void adamw(int64_t count, step_scales s, const optim *opt, float correction, const float *restrict g,
                  float *restrict m, float *restrict v, float *restrict w) {
  float beta1 = (float)opt->beta1, rest1 = (float)(1 - opt->beta1);
  float beta2 = (float)opt->beta2, rest2 = (float)(1 - opt->beta2), epsilon = (float)opt->epsilon;
  for (int64_t i = 0; i < count; i++) {
    float d = g[i] + s.couple * w[i];
    m[i] = beta1 * m[i] + rest1 * d;
    v[i] = beta2 * v[i] + rest2 * d * d;
    w[i] = s.keep * w[i] - s.lr * m[i] / (sqrtf(v[i] * correction) + epsilon);
  }
}

void optim_step(optim *opt, model *net, double lr) {
  opt->step++;
  double t = (double)opt->step;
  step_scales all = {.keep = (float)(opt->decay == OPTIM_DECOUPLED ? 1 - lr * opt->weight_decay : 1),
                     .couple = (float)(opt->decay == OPTIM_COUPLED_AFTER ? opt->weight_decay : 0),
                     .lr = (float)(opt->kind == TRAIN_ADAMW ? lr / (1 - pow(opt->beta1, t)) : lr)};
  float correction = opt->kind == TRAIN_ADAMW ? (float)(1 / (1 - pow(opt->beta2, t))) : 1;
  for (int i = 0; i < net->spec.n_layers; i++) {
    nn_layer *layer = &net->layer[i];
    int64_t count = weight_count(layer);
    step_scales s = all;
    if (layer->weight == NULL) continue;
    if (!optim_decays(layer)) s.keep = 1, s.couple = 0;
    if (opt->kind == TRAIN_ADAMW)
      adamw(count, s, opt, correction, layer->gradient, opt->first[i], opt->second[i], layer->weight);
    else if (opt->first[i] != NULL)
      sgd_momentum(count, s, (float)opt->momentum, layer->gradient, opt->first[i], layer->weight);
    else
      sgd_plain(count, s, layer->gradient, layer->weight);
  }
}

static double warmup_factor(int64_t warmup, int64_t step) {
  return step < warmup ? (double)(step + 1) / (double)warmup : 1;
}

static double decay_factor(int decay, int64_t step, int64_t total) {
  if (decay == 0 || total <= 0) return 1;
  double t = step < total ? (double)step / (double)total : 1;
  return decay == 1 ? 1 - t : 0.5 * (1 + cos(pi * t));
}

double optim_lr(const cv_schedule *lr, int decay, int64_t warmup, int64_t step, int64_t total, double steps_per_epoch) {
  return cv_schedule_at(lr, step, steps_per_epoch) * warmup_factor(warmup, step) * decay_factor(decay, step, total);
}
