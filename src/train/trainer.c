#include "train/trainer.h"

#include "base/order.h"

#include <math.h>
#include <string.h>

static const char *const stage_name[] = {"make batch",     "forward", "backward", "backward for sampled targets",
                                         "update weights", "evaluate"};

const char *trainer_stage_name(int stage) {
  return stage >= 0 && stage < TRAINER_STAGES ? stage_name[stage] : "?";
}

void trainer_record(trainer *t, cv_trace *trace) {
  t->trace = trace;
  trace->step = &t->step;
  for (int i = 0; i < TRAINER_STAGES; i++) {
    t->stage[i].trace = trace;
    t->stage[i].name = stage_name[i];
  }
}

double trainer_wall_s(const trainer *t) {
  return cv_wall_s() - t->wall_begin_s - t->stage[TRAINER_EVALUATE].wall_s;
}

double trainer_cpu_s(const trainer *t) {
  return cv_cpu_s() - t->cpu_begin_s - t->stage[TRAINER_EVALUATE].cpu_s;
}

bool trainer_is_worker(const trainer *t) {
  return t->worker >= 0;
}

/* Part p of n things cut into `parts` nearly equal pieces. */
static int64_t cut(int64_t n, int64_t parts, int64_t p) {
  return n * p / parts;
}

/* Training examples are augmented, where that was asked for, by their number and the epoch. */
static void load_batch(trainer *t, const data_set *set, const int64_t *index, int64_t rows, bool is_training) {
  const train_config *v = &t->config->values;
  nn_shape out = model_output(&t->model.spec);
  data_augment crops = {(uint64_t)v->seed, t->step / t->steps_per_epoch, v->augment_pad};
  const data_augment *augment = is_training && v->augment == TRAIN_AUGMENT_CROP_FLIP ? &crops : NULL;
  data_features(set, index, rows, augment, t->model.x[0], nn_stride(t->model.spec.input));
  if (t->model.spec.loss == NN_SOFTMAX_CE) {
    data_labels(set, index, rows, t->labels);
  } else {
    data_targets(set, index, rows, augment, t->targets, nn_stride(out));
  }
}

static int parts_of(const trainer *t, int layer) {
  return t->first[layer + 1] - t->first[layer];
}

static bool capture(void *user, int layer) {
  trainer *t = user;
  for (int p = t->first[layer]; p < t->first[layer + 1]; p++) {
    part_rows rows = part_look(&t->model, t->part[p]);
    curvd_capture(t->ctx, p, t->rows_fisher, rows.a, rows.lda, rows.g, rows.ldg);
  }
  return false;
}

/* The mean over the global batch, entering the average where the gradient's buffer is one. Plain SGD's momentum is a
 * sum. */
static float gradient_scale(const trainer *t) {
  bool is_average = t->gradient_momentum > 0 && t->config->values.method != TRAIN_METHOD_SGD;
  return (is_average ? 1 - t->gradient_momentum : 1) / (float)t->config->values.batch;
}

/* A failure is told by trainer_step, which fails on all workers then. */
static void precondition(trainer *t, int p, int64_t rows) {
  part_rows at = part_look(&t->model, t->part[p]);
  curvd_status status = curvd_precondition(t->ctx, p, rows, at.a, at.lda, at.g, at.ldg, gradient_scale(t),
                                           t->gradient_keep, &t->gradient[p]);
  if (status != CURVD_OK) cv_fail(&t->precondition, status, "%s", curvd_last_error(t->ctx));
}

/* During the backward pass of the real loss: the library makes the gradients of factored layers, which are of one part.
 * Coupled decay changes a gradient later, so nothing is told of it then. */
static bool gradient_ready(void *user, int layer) {
  trainer *t = user;
  int p = t->first[layer];
  bool is_sampled = t->config->values.fisher == 1;
  if (curvd_wants_capture(t->ctx) && !is_sampled) capture(user, layer);
  if (curvd_is_factored(t->ctx, p)) {
    precondition(t, p, t->rows_now);
    return true;
  }
  bool is_coupled = t->optim.weight_decay > 0 && t->optim.decay == OPTIM_COUPLED_BEFORE;
  if (is_coupled || t->model.layer[layer].spec.kind != NN_DENSE) return false;
  part_rows at = part_look(&t->model, t->part[p]);
  curvd_capture_gradient(t->ctx, p, t->rows_now, at.a, at.lda, at.g, at.ldg, gradient_scale(t));
  return false;
}

/* Examples first .. first + rows - 1 of the batch: those of the statistics (every stride-th of the whole batch,
 * whichever worker has them) in front, so that they are one block of rows. Returns the number in the strided batch of
 * the first of them. */
static int64_t arrange(trainer *t, const int64_t *batch, int64_t first, int64_t rows) {
  int64_t stride = t->config->values.fisher_stride, front = 0, back = 0;
  int64_t number = (first + stride - 1) / stride;
  t->rows_fisher = (first + rows + stride - 1) / stride - number;
  for (int64_t i = first; i < first + rows; i++) {
    int64_t place = i % stride == 0 ? front++ : t->rows_fisher + back++;
    t->piece[place] = batch[i];
    t->position[place] = i;
  }
  return number;
}

/* Forward, loss, backward on one piece; number: of its first example among those of the statistics. */
static void run_piece(trainer *t, int64_t number, int64_t rows, bool is_first) {
  model *m = &t->model;
  int top = m->spec.n_layers;
  int64_t d = model_output(&m->spec).channels, hits = 0;
  bool wants = curvd_wants_capture(t->ctx), is_sampled = t->config->values.fisher == 1;
  t->rows_now = rows;
  cv_stage_begin(&t->stage[TRAINER_FORWARD]);
  t->pass.is_training = true;
  t->pass.step = t->step;
  model_forward(m, &t->pass, rows);
  curvd_progress(t->ctx); /* as the captures do between the layers of the backward pass */
  t->loss_sum += nn_loss(m->spec.loss, rows, d, m->x[top], nn_ld(d), t->labels, t->targets, nn_ld(d), m->g[top], &hits);
  t->loss_rows += rows;
  cv_stage_end(&t->stage[TRAINER_FORWARD]);
  cv_stage_begin(&t->stage[TRAINER_BACKWARD]);
  t->gradient_keep = is_first ? t->gradient_momentum : 1;
  model_backward(m, &t->pass, rows, true, gradient_scale(t), t->gradient_keep, gradient_ready, t);
  cv_stage_end(&t->stage[TRAINER_BACKWARD]);
  if (!wants || !is_sampled) return;
  cv_stage_begin(&t->stage[TRAINER_SAMPLED]);
  nn_loss_sampled(m->spec.loss, t->rows_fisher, d, m->x[top], nn_ld(d), (uint64_t)t->config->values.seed, t->step,
                  number, m->g[top]);
  model_backward(m, &t->pass, t->rows_fisher, false, 0, 0, capture, t);
  cv_stage_end(&t->stage[TRAINER_SAMPLED]);
}

/* A worker without examples: its average only decays. */
static void decay_gradients(trainer *t) {
  t->gradient_keep = t->gradient_momentum;
  for (int i = 0; i < t->model.spec.n_layers; i++) {
    nn_layer *layer = &t->model.layer[i];
    if (parts_of(t, i) == 0) continue;
    if (curvd_is_factored(t->ctx, t->first[i])) {
      precondition(t, t->first[i], 0);
      continue;
    }
    for (int64_t j = 0; j < layer->d_out * layer->ld; j++) layer->gradient[j] *= t->gradient_momentum;
  }
}

/* This worker's examples of piece p of the global batch. Its share is cut into pieces; where normalisations see the
 * examples of all workers, the batch is cut first, so that they see the same ones together on any number of workers. */
static void find_piece(const trainer *t, int64_t p, int64_t *first, int64_t *rows) {
  const train_config *v = &t->config->values;
  bool is_all = v->norm_statistics == TRAIN_NORM_ALL;
  int64_t outer = is_all ? v->accumulate : t->n_workers, inner = is_all ? t->n_workers : v->accumulate;
  int64_t i = is_all ? p : t->worker, j = is_all ? t->worker : p;
  int64_t from = cut(v->batch, outer, i), n = cut(v->batch, outer, i + 1) - from;
  *first = from + cut(n, inner, j);
  *rows = from + cut(n, inner, j + 1) - *first;
}

/* This worker's share of the global batch, in accumulate pieces. */
static void run_batch(trainer *t) {
  const train_config *v = &t->config->values;
  int64_t epoch = t->step / t->steps_per_epoch, base = (t->step % t->steps_per_epoch) * v->batch, share = 0;
  bool is_first = true;
  if (t->order_epoch != epoch) data_order((uint64_t)v->seed, epoch, t->data.train.n, t->order);
  t->order_epoch = epoch;
  for (int64_t p = 0; p < v->accumulate; p++) {
    int64_t first, rows;
    find_piece(t, p, &first, &rows);
    share += rows;
    if (rows == 0 && !t->pass.sum) continue; /* others may wait for its share of their statistics */
    cv_stage_begin(&t->stage[TRAINER_BATCH]);
    int64_t number = arrange(t, t->order + base, first, rows);
    load_batch(t, &t->data.train, t->piece, rows, true);
    cv_stage_end(&t->stage[TRAINER_BATCH]);
    run_piece(t, number, rows, is_first);
    is_first = false;
  }
  if (is_first) decay_gradients(t);
  optim_couple_decay(&t->optim, &t->model, (double)share / (double)v->batch);
}

/* With nothing to do between direction and weights, the library subtracts the one from the other itself. */
static bool updates_in_step(const trainer *t) {
  const optim *o = &t->optim;
  return o->kind == TRAIN_SGD && o->momentum == 0 && (o->weight_decay == 0 || o->decay != OPTIM_COUPLED_AFTER);
}

static void hand_parameters(trainer *t) {
  for (int p = 0; p < t->first[t->model.spec.n_layers]; p++) {
    const nn_layer *layer = &t->model.layer[t->part[p].layer];
    bool shrinks = t->optim.decay == OPTIM_DECOUPLED && optim_decays(layer);
    t->gradient[p].parameter = part_weight(&t->model, t->part[p]);
    t->gradient[p].parameter_bias = t->gradient[p].parameter + layer->d_in;
    t->gradient[p].shrink = shrinks ? (float)(t->lr * t->optim.weight_decay) : 0;
  }
}

curvd_status trainer_step(trainer *t, cv_error *err) {
  const train_config *v = &t->config->values;
  t->lr = optim_lr(&v->lr, v->lr_decay, v->lr_warmup_steps, t->step, t->total_steps, (double)t->steps_per_epoch);
  t->precondition = (cv_error){0};
  run_batch(t);
  model_check(&t->model, &t->precondition);
  if (updates_in_step(t)) hand_parameters(t);
  if (t->poisoned) t->poisoned->gradient[0] = NAN;
  t->poisoned = NULL;
  if (t->precondition.code != CURVD_OK) curvd_raise(t->ctx, TRAINER_FLAG_BROKEN);
  curvd_status status = curvd_step(t->ctx, t->lr, t->gradient, t->first[t->model.spec.n_layers]);
  if (t->precondition.code != CURVD_OK) return cv_fail(err, t->precondition.code, "%s", t->precondition.text);
  if (status != CURVD_OK) return cv_fail(err, status, "%s", curvd_last_error(t->ctx));
  if (curvd_flags(t->ctx) & TRAINER_FLAG_BROKEN)
    return cv_fail(err, CURVD_ERR_REMOTE, "another worker could not take the step");
  cv_stage_begin(&t->stage[TRAINER_UPDATE]);
  if (!updates_in_step(t)) optim_step(&t->optim, &t->model, t->lr);
  cv_stage_end(&t->stage[TRAINER_UPDATE]);
  t->step++, t->steps_here++;
  return CURVD_OK;
}

void trainer_leave_out(trainer *t) {
  for (int i = 0; i < t->model.spec.n_layers; i++) {
    nn_layer *layer = &t->model.layer[i];
    if (layer->gradient) memset(layer->gradient, 0, (size_t)(layer->d_out * layer->ld) * sizeof(float));
  }
  if (!isfinite(t->loss_sum)) t->loss_sum = 0, t->loss_rows = 0;
  t->step++, t->steps_here++;
}

curvd_status trainer_serve(trainer *t, cv_error *err) {
  curvd_status status = curvd_serve(t->ctx);
  return status == CURVD_OK ? status : cv_fail(err, status, "%s", curvd_last_error(t->ctx));
}

curvd_status trainer_finish(trainer *t, cv_error *err) {
  curvd_status status = curvd_finish(t->ctx);
  return status == CURVD_OK ? status : cv_fail(err, status, "%s", curvd_last_error(t->ctx));
}

double trainer_loss(trainer *t) {
  double in[2] = {t->loss_sum, (double)t->loss_rows}, out[2];
  uint64_t operation = cv_trace_begin(t->trace, CV_TRACE_WAIT, "sum losses", NULL, CV_PEER_WORKERS, sizeof in);
  MPI_Allreduce(in, out, 2, MPI_DOUBLE, MPI_SUM, t->workers);
  cv_trace_end(t->trace, operation);
  t->loss_sum = 0;
  t->loss_rows = 0;
  return out[0] / out[1];
}

/* The mean of what the workers have seen goes on as the mean of what they will see. A worker without examples, of a
 * batch smaller than the number of workers, has seen nothing. */
static void share_running(trainer *t) {
  int64_t batch = t->config->values.batch;
  int64_t share = cut(batch, t->n_workers, t->worker + 1) - cut(batch, t->n_workers, t->worker);
  for (int i = 0; i < t->model.spec.n_layers && t->n_workers > 1 && !t->pass.sum; i++) {
    const nn_layer *layer = &t->model.layer[i];
    if (layer->spec.kind != NN_NORM) continue;
    float *running = nn_norm_running(layer);
    int count = (int)(2 * layer->d_out);
    for (int j = 0; j < count && share == 0; j++) running[j] = 0;
    MPI_Allreduce(MPI_IN_PLACE, running, count, MPI_FLOAT, MPI_SUM, t->workers);
    for (int j = 0; j < count; j++) running[j] /= (float)cv_smaller(t->n_workers, batch);
  }
}

trainer_score trainer_evaluate(trainer *t) {
  model *m = &t->model;
  const data_set *set = &t->data.test;
  int top = m->spec.n_layers;
  int64_t d = model_output(&m->spec).channels, to = cut(set->n, t->n_workers, t->worker + 1);
  double in[2] = {0, 0}, out[2];
  cv_stage_begin(&t->stage[TRAINER_EVALUATE]);
  t->order_epoch = -1;
  t->pass.is_training = false;
  share_running(t);
  for (int64_t i = 0; i < set->n; i++) t->order[i] = i;
  for (int64_t at = cut(set->n, t->n_workers, t->worker), rows; at < to; at += rows) {
    int64_t hits = 0;
    rows = to - at < m->rows_max ? to - at : m->rows_max;
    load_batch(t, set, t->order + at, rows, false);
    model_forward(m, &t->pass, rows);
    in[0] += nn_loss(m->spec.loss, rows, d, m->x[top], nn_ld(d), t->labels, t->targets, nn_ld(d), m->g[top], &hits);
    in[1] += (double)hits;
  }
  MPI_Allreduce(in, out, 2, MPI_DOUBLE, MPI_SUM, t->workers);
  cv_stage_end(&t->stage[TRAINER_EVALUATE]);
  bool has_classes = m->spec.loss == NN_SOFTMAX_CE;
  return (trainer_score){out[0] / (double)set->n, has_classes ? 100 * out[1] / (double)set->n : NAN};
}
