/* From a configuration to a run that can take its first step. */
#include "base/order.h"
#include "train/network.h"
#include "train/precision.h"
#include "train/run_options.h"
#include "train/run_shape.h"
#include "train/trainer.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

curvd_status trainer_agree(MPI_Comm comm, curvd_status mine, cv_error *err) {
  struct {
    int code, rank;
  } in = {mine == CURVD_OK ? 0 : mine - 1, 0}, out = {0, 0};
  MPI_Comm_rank(comm, &in.rank);
  if (mine == CURVD_ERR_REMOTE) in.code = -1; /* a rank that knows the reason speaks, if one does */
  MPI_Allreduce(&in, &out, 1, MPI_2INT, MPI_MINLOC, comm);
  if (out.code == 0) return CURVD_OK;
  MPI_Bcast(err, sizeof *err, MPI_BYTE, out.rank, comm);
  return out.code == -1 ? CURVD_ERR_REMOTE : (curvd_status)(out.code + 1);
}

/* ---- data: rank 0 reads, everyone gets the bytes ---- */

static curvd_status share_array(trainer *t, void **block, int64_t count, int64_t size, cv_error *err) {
  enum { PIECE = 1 << 30 };
  int is_there = *block != NULL;
  MPI_Bcast(&is_there, 1, MPI_INT, 0, t->world);
  if (!is_there) return CURVD_OK;
  curvd_status status = CURVD_OK;
  if (t->rank != 0) status = cv_memory_new(&t->memory, CV_MEMORY_DATA, count, size, "the data set", block, err);
  CV_TRY(trainer_agree(t->world, status, err));
  for (int64_t at = 0, all = count * size; at < all; at += PIECE) {
    MPI_Bcast((char *)*block + at, (int)(all - at < PIECE ? all - at : PIECE), MPI_BYTE, 0, t->world);
  }
  return CURVD_OK;
}

static curvd_status share_set(trainer *t, data_set *set, cv_error *err) {
  void *block[] = {set->pixels, set->features, set->labels, set->targets};
  MPI_Bcast(set, sizeof *set, MPI_BYTE, 0, t->world);
  int64_t inputs = set->n * data_shape_size(set->stored), outputs = set->n * set->d_out;
  curvd_status status = share_array(t, &block[0], inputs, 1, err);
  if (status == CURVD_OK) status = share_array(t, &block[1], inputs, sizeof(float), err);
  if (status == CURVD_OK) status = share_array(t, &block[2], set->n, sizeof(int32_t), err);
  if (status == CURVD_OK) status = share_array(t, &block[3], outputs, sizeof(float), err);
  set->pixels = block[0], set->features = block[1], set->labels = block[2], set->targets = block[3];
  return status;
}

/* Flat data are taken as they come; check_shapes compares their number. */
static data_shape wanted_shape(const model_spec *spec) {
  nn_shape in = spec->input;
  return in.is_image ? (data_shape){in.height, in.width, in.channels} : (data_shape){0, 0, 0};
}

static curvd_status load_data(trainer *t, const model_spec *spec, cv_error *err) {
  const train_config *v = &t->config->values;
  data_request request = {.source = v->data,
                          .is_autoencoder = spec->is_autoencoder,
                          .validation = v->validation_images,
                          .shape = wanted_shape(spec),
                          .augments = v->augment == TRAIN_AUGMENT_CROP_FLIP,
                          .augment_pad = v->augment_pad,
                          .teacher_samples = v->teacher_samples,
                          .teacher_d_in = nn_size(spec->input),
                          .teacher_d_out = model_output(spec).channels,
                          .teacher_is_regression = v->loss == NN_SQUARED || v->loss == NN_SIGMOID_CE,
                          .seed = (uint64_t)v->seed};
  curvd_status status = t->rank == 0 ? data_load(&request, &t->memory, &t->data, err) : CURVD_OK;
  CV_TRY(trainer_agree(t->world, status, err));
  CV_TRY(share_set(t, &t->data.train, err));
  return share_set(t, &t->data.test, err);
}

static curvd_status check_shapes(const trainer *t, const model_spec *spec, cv_error *err) {
  const data_set *set = &t->data.train;
  int64_t outputs = spec->is_autoencoder ? set->d_in : set->d_out, batch = t->config->values.batch;
  int64_t takes = nn_size(spec->input), makes = model_output(spec).channels;
  if (set->d_in != takes || outputs != makes) {
    return cv_fail(err, CURVD_ERR_OPTION,
                   "network %s takes %lld inputs to %lld outputs, the data set %s has %lld and %lld",
                   t->config->values.network, (long long)takes, (long long)makes, t->config->values.data,
                   (long long)set->d_in, (long long)outputs);
  }
  if (batch > set->n) {
    return cv_fail(err, CURVD_ERR_OPTION, "batch %lld is larger than the data set's %lld training examples",
                   (long long)batch, (long long)set->n);
  }
  return CURVD_OK;
}

/* ---- the service ---- */

static curvd_status from_library(trainer *t, curvd_status status, cv_error *err) {
  if (status != CURVD_OK) cv_fail(err, status, "%s", curvd_last_error(t->ctx));
  return status;
}

static curvd_status set_option(void *user, const char *key, const char *value, cv_error *err) {
  trainer *t = user;
  return from_library(t, curvd_set(t->ctx, key, value), err);
}

/* SGD's own momentum needs the sum over the workers first. */
static double momentum_in_gradient(const trainer *t) {
  const train_config *v = &t->config->values;
  if (!run_averages_gradients(v)) return 0;
  if (v->method == TRAIN_METHOD_SGD) return t->n_workers == 1 ? v->sgd_momentum : 0;
  return strtod(curvd_get(t->ctx, "momentum"), NULL);
}

/* What recipe and method made of the options that nobody set. */
static curvd_status read_back(trainer *t, cv_error *err) {
  config *c = t->config;
  for (int i = 0; i < c->n; i++) {
    if (!c->entry[i].is_library || c->entry[i].is_set) continue;
    CV_TRY(config_resolve(c, c->entry[i].name, curvd_get(t->ctx, c->entry[i].name), err));
  }
  return CURVD_OK;
}

static curvd_status plan_options(trainer *t, const model_spec *spec, cv_error *err) {
  curvd_status status = curvd_create(t->world, &t->ctx);
  if (status != CURVD_OK) return cv_fail(err, status, "curvd_create: %s", cv_status_text(status));
  if (t->is_dry) CV_TRY(set_option(t, "dry_run", "true", err));
  CV_TRY(run_options(t->config, t->n_ranks, t->steps_per_epoch, set_option, t, err));
  CV_TRY(part_list(spec, t->part, t->first, err));
  for (int p = 0; p < t->first[spec->n_layers]; p++) CV_TRY(from_library(t, part_add(t->ctx, spec, t->part[p]), err));
  return CURVD_OK;
}

static curvd_status make_plan(trainer *t, const model_spec *spec, cv_error *err) {
  CV_TRY(trainer_agree(t->world, plan_options(t, spec, err), err));
  CV_TRY(from_library(t, curvd_plan(t->ctx), err));
  CV_TRY(read_back(t, err));
  t->n_workers = curvd_worker_count(t->ctx);
  t->worker = curvd_worker_index(t->ctx);
  t->gradient_momentum = (float)momentum_in_gradient(t);
  MPI_Comm_split(t->world, t->worker >= 0 ? 0 : MPI_UNDEFINED, t->rank, &t->workers);
  return CURVD_OK;
}

/* ---- a worker's own ---- */

/* Rows of the largest piece that goes through the model at once. Evaluation likes long products: at least EVAL_ROWS
 * examples, or EVAL_IMAGES, of which each is many rows and fills much memory. */
static int64_t largest_piece(const trainer *t, const model_spec *spec) {
  enum { EVAL_ROWS = 256, EVAL_IMAGES = 16 };
  const train_config *v = &t->config->values;
  int64_t share = (v->batch + t->n_workers - 1) / t->n_workers;
  int64_t piece = (share + v->accumulate - 1) / v->accumulate;
  return cv_larger(piece, spec->input.is_image ? EVAL_IMAGES : EVAL_ROWS);
}

static curvd_status make_gradients(trainer *t, int n_parts, cv_error *err) {
  void *gradient = NULL;
  CV_TRY(cv_memory_new(&t->memory, CV_MEMORY_PARAMETERS, n_parts, sizeof *t->gradient, "a list of gradients", &gradient,
                       err));
  t->gradient = gradient;
  for (int p = 0; p < n_parts; p++) t->gradient[p] = part_gradient(&t->model, t->part[p]);
  return CURVD_OK;
}

static void sum_over_workers(void *user, int64_t n, double *x) {
  const trainer *t = user;
  MPI_Allreduce(MPI_IN_PLACE, x, (int)n, MPI_DOUBLE, MPI_SUM, t->workers);
}

/* Shares of a batch, their pieces, and what of these serves the statistics, differ by one at most; and the end of the
 * test set. */
static curvd_status prepare_passes(trainer *t, cv_error *err) {
  const train_config *v = &t->config->values;
  int64_t share = v->batch / t->n_workers, piece = share / v->accumulate, test = t->data.test.n / t->n_workers;
  const int64_t rows[] = {piece,
                          piece + 1,
                          piece / v->fisher_stride,
                          piece / v->fisher_stride + 1,
                          test % t->model.rows_max,
                          test % t->model.rows_max + 1};
  for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) CV_TRY(model_prepare(&t->model, rows[i], &t->memory, err));
  return CURVD_OK;
}

static curvd_status make_model(trainer *t, const model_spec *spec, cv_error *err) {
  const train_config *v = &t->config->values;
  bool is_sgd = v->method == TRAIN_METHOD_SGD;
  optim settings = {.kind = (train_optimizer)v->optimizer,
                    .momentum = is_sgd && t->gradient_momentum > 0 ? 0 : v->sgd_momentum,
                    .beta1 = 0.9,
                    .beta2 = 0.999,
                    .epsilon = 1e-8,
                    .weight_decay = v->weight_decay,
                    .decay = (optim_decay)v->weight_decay_kind};
  const nn_kernels *kernels;
  const cv_unit *unit;
  CV_TRY(nn_kernels_find(config_text(t->config, "kernels"), &kernels, err));
  CV_TRY(precision_unit(t->config, &unit, err));
  const model_settings how = {.rows_max = largest_piece(t, spec),
                              .init = (model_init)v->init,
                              .seed = (uint64_t)v->seed,
                              .kernels = kernels,
                              .threads = (int)v->blas_threads,
                              .precision = (cv_precision)v->train_precision,
                              .unit = unit};
  CV_TRY(model_create(spec, &how, &t->memory, &t->model, err));
  CV_TRY(prepare_passes(t, err));
  CV_TRY(optim_create(&settings, &t->model, &t->memory, &t->optim, err));
  return make_gradients(t, t->first[spec->n_layers], err);
}

static curvd_status make_batches(trainer *t, const model_spec *spec, cv_error *err) {
  int64_t n = t->data.train.n > t->data.test.n ? t->data.train.n : t->data.test.n, rows = t->model.rows_max;
  void *order = NULL, *piece = NULL, *position = NULL, *labels = NULL;
  t->order_epoch = -1;
  CV_TRY(cv_memory_new(&t->memory, CV_MEMORY_DATA, n, sizeof *t->order, "the order of examples", &order, err));
  t->order = order;
  CV_TRY(cv_memory_new(&t->memory, CV_MEMORY_DATA, rows, sizeof *t->piece, "a batch", &piece, err));
  t->piece = piece;
  CV_TRY(cv_memory_new(&t->memory, CV_MEMORY_DATA, rows, sizeof *t->position, "a batch", &position, err));
  t->position = position;
  bool is_alone = t->config->values.norm_statistics == TRAIN_NORM_LOCAL || t->n_workers == 1;
  t->pass = (nn_pass){.seed = (uint64_t)t->config->values.seed,
                      .position = t->position,
                      .sum = is_alone ? NULL : sum_over_workers,
                      .user = t};
  CV_TRY(cv_memory_new(&t->memory, CV_MEMORY_DATA, rows, sizeof *t->labels, "labels", &labels, err));
  t->labels = labels;
  return cv_floats_new(&t->memory, CV_MEMORY_DATA, rows * nn_stride(model_output(spec)), "targets", &t->targets, err);
}

static curvd_status make_worker(trainer *t, const model_spec *spec, cv_error *err) {
  if (t->worker < 0) return CURVD_OK;
  CV_TRY(make_model(t, spec, err));
  return make_batches(t, spec, err);
}

static curvd_status parse(trainer *t, model_spec *spec, cv_error *err) {
  const train_config *v = &t->config->values;
  CV_TRY(network_parse(v->network, (nn_activation_kind)v->activation, (nn_loss_kind)v->loss, spec, err));
  return run_resolve(t->config, spec, t->n_ranks, err);
}

static curvd_status create(trainer *t, cv_error *err) {
  model_spec spec;
  train_config *v = &t->config->values;
  CV_TRY(parse(t, &spec, err));
  CV_TRY(load_data(t, &spec, err));
  CV_TRY(check_shapes(t, &spec, err));
  t->steps_per_epoch = t->data.train.n / v->batch;
  t->total_steps = v->steps > 0 ? v->steps : (int64_t)ceil(v->epochs * (double)t->steps_per_epoch);
  CV_TRY(make_plan(t, &spec, err));
  return trainer_agree(t->world, make_worker(t, &spec, err), err);
}

static void begin(config *c, MPI_Comm world, trainer *t) {
  *t = (trainer){.config = c, .world = world, .workers = MPI_COMM_NULL};
  MPI_Comm_rank(world, &t->rank);
  MPI_Comm_size(world, &t->n_ranks);
}

curvd_status trainer_plan(config *c, MPI_Comm world, trainer *t, cv_error *err) {
  model_spec spec;
  begin(c, world, t);
  t->steps_per_epoch = 1; /* there is no data set to know it from */
  curvd_status status = parse(t, &spec, err);
  t->is_dry = true;
  if (status == CURVD_OK) status = make_plan(t, &spec, err);
  if (status != CURVD_OK) trainer_free(t);
  return status;
}

curvd_status trainer_create(config *c, MPI_Comm world, trainer *t, cv_error *err) {
  begin(c, world, t);
  curvd_status status = create(t, err);
  if (status != CURVD_OK) trainer_free(t);
  t->cpu_begin_s = cv_cpu_s();
  t->wall_begin_s = cv_wall_s();
  return status;
}

void trainer_free(trainer *t) {
  void *order = t->order, *piece = t->piece, *position = t->position, *labels = t->labels, *gradient = t->gradient;
  cv_memory_free(&t->memory, &gradient);
  t->gradient = NULL;
  cv_memory_free(&t->memory, &order);
  cv_memory_free(&t->memory, &piece);
  cv_memory_free(&t->memory, &position);
  cv_memory_free(&t->memory, &labels);
  cv_floats_free(&t->memory, &t->targets);
  t->order = t->piece = t->position = NULL, t->labels = NULL;
  optim_free(&t->memory, &t->optim);
  model_free(&t->memory, &t->model);
  data_free(&t->memory, &t->data);
  curvd_destroy(&t->ctx);
  if (t->workers != MPI_COMM_NULL) MPI_Comm_free(&t->workers);
}
