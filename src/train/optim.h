/* What is done with a direction: SGD with momentum, AdamW, weight decay; and learning-rate schedules. */
#ifndef TRAIN_OPTIM_H
#define TRAIN_OPTIM_H

#include "net/model.h"
#include "train/config.h"

typedef enum optim_decay { OPTIM_DECOUPLED, OPTIM_COUPLED_BEFORE, OPTIM_COUPLED_AFTER } optim_decay;

typedef struct optim {
  train_optimizer kind;
  double momentum;              /* after preconditioning; m <- momentum m + d, W <- W - lr m */
  double beta1, beta2, epsilon; /* AdamW: 0.9, 0.999, 1e-8 */
  double weight_decay;
  optim_decay decay;
  int64_t step;                    /* steps done */
  float *first[MODEL_LAYERS_MAX];  /* momentum (d_out, ld) of each layer, NULL when momentum is 0 */
  float *second[MODEL_LAYERS_MAX]; /* AdamW's second moments, else NULL */
} optim;

curvd_status optim_create(const optim *settings, const model *net, cv_memory *memory, optim *opt, cv_error *err);
void optim_free(cv_memory *memory, optim *opt);

/* gradient <- gradient + share * weight_decay * W: coupled decay before preconditioning; share is this worker's part of
 * the batch, so that the sum over workers adds it once. Does nothing for other kinds of decay. */
void optim_couple_decay(const optim *opt, model *net, double share);

/* Weight decay leaves scales and shifts of normalisations alone. */
bool optim_decays(const nn_layer *layer);

/* W <- W - lr * (what the kind makes of net->layer[i].gradient); decoupled: W <- (1 - lr * weight_decay) W first. */
void optim_step(optim *opt, model *net, double lr);

/* Learning rate of a step (0-based): schedule x warm-up ((step + 1) / warmup, at most 1) x decay to 0 at
 * `total` steps; total <= 0: no decay.
 * decay: 0 constant, 1 linear 1 - t / T, 2 cosine (1 + cos(pi t / T)) / 2, t = step and T = total. */
double optim_lr(const cv_schedule *lr, int decay, int64_t warmup, int64_t step, int64_t total, double steps_per_epoch);

#endif
