#include "train/trainer_state.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { STEP, MOMENTUM_PARTS, WORKERS, OPTIM_STEPS, RUN_NUMBERS };
enum { WALL_S, CPU_S, CLOCK_NUMBERS };
enum { LOSS_SUM, LOSS_ROWS, PART_NUMBERS };

/* A visit of the program's own arrays. */
typedef struct visit {
  trainer_state *state;
  bool is_load;
  double run[RUN_NUMBERS];     /* after a load those of the saved run */
  double clock[CLOCK_NUMBERS]; /* in an array of their own: two runs that are the same have other ones */
} visit;

/* How the parts of workers make up one array, and what this rank has of it. */
typedef enum part_kind {
  PART_OF_SUM, /* this worker's part of a sum */
  WHOLE_SUM,   /* the sum of all parts */
  OWN_OR_MEAN  /* this worker's own, or the mean of all of them */
} part_kind;

static curvd_status visit_array(trainer_state *s, bool is_load, const curvd_array *a) {
  return is_load ? checkpoint_read(s->from, a, &s->error) : saver_add(s->saver, a, &s->error);
}

static curvd_status visit_numbers(const visit *v, const char *name, double *x, int64_t count) {
  const curvd_array a = {.name = name,
                         .dtype = CURVD_F64,
                         .n_rows = 1,
                         .n_columns = count,
                         .rows = 1,
                         .row_stride = count,
                         .column_stride = 1,
                         .data = x};
  return visit_array(v->state, v->is_load, &a);
}

/* What all workers hold alike is saved by one of them after the other. */
static bool is_mine(const visit *v, int layer) {
  const trainer *t = v->state->trainer;
  return v->is_load || layer % t->n_workers == t->worker;
}

static curvd_array array_of(float *x, int64_t rows, int64_t columns, int64_t ld) {
  return (curvd_array){
      .n_rows = rows, .n_columns = columns, .rows = rows, .row_stride = ld, .column_stride = 1, .data = x};
}

/* A layer's weight, or what is laid out as it is. */
static curvd_array matrix_of(const nn_layer *layer, float *x) {
  return array_of(x, layer->d_out, layer->d_in + layer->spec.has_bias, layer->ld);
}

static curvd_status visit_matrix(const visit *v, int i, const char *what, float *x) {
  const nn_layer *layer = &v->state->trainer->model.layer[i];
  char name[CURVD_ARRAY_NAME_MAX];
  curvd_array a = matrix_of(layer, x);
  if (!x || !is_mine(v, i)) return CURVD_OK;
  snprintf(name, sizeof name, "model.%s.%s", layer->spec.name, what);
  a.name = name;
  return visit_array(v->state, v->is_load, &a);
}

/* ---- parts ---- */

static void add_array(const curvd_array *from, const curvd_array *to) {
  for (int64_t i = 0; i < to->rows; i++) {
    const float *x = (const float *)from->data + i * from->row_stride;
    float *y = (float *)to->data + i * to->row_stride;
    for (int64_t j = 0; j < to->n_columns; j++) y[j] += x[j];
  }
}

static void scale_array(const curvd_array *to, float factor) {
  for (int64_t i = 0; i < to->rows; i++) {
    float *y = (float *)to->data + i * to->row_stride;
    for (int64_t j = 0; j < to->n_columns; j++) y[j] = factor == 0 ? 0 : factor * y[j];
  }
}

static curvd_status read_part(const visit *v, const char *stem, int64_t number, curvd_array to) {
  char name[CURVD_ARRAY_NAME_MAX];
  snprintf(name, sizeof name, "%.120s.part%lld", stem, (long long)number);
  to.name = name;
  return checkpoint_read(v->state->from, &to, &v->state->error);
}

/* The sum of parts first, first + step, ... */
static curvd_status read_sum(const visit *v, const char *stem, int64_t first, int64_t step, int64_t n,
                             const curvd_array *to) {
  curvd_array one = array_of(v->state->scratch, to->rows, to->n_columns, to->n_columns);
  if (first < n && first + step >= n) return read_part(v, stem, first, *to); /* alone: the same bits */
  scale_array(to, 0);
  for (int64_t p = first; p < n; p += step) {
    CV_TRY(read_part(v, stem, p, one));
    add_array(&one, to);
  }
  return CURVD_OK;
}

static curvd_status read_parts(const visit *v, const char *stem, part_kind kind, int64_t n, const curvd_array *to) {
  const trainer *t = v->state->trainer;
  if (kind == PART_OF_SUM) return read_sum(v, stem, t->worker, t->n_workers, n, to);
  if (kind == OWN_OR_MEAN && n == t->n_workers) return read_part(v, stem, t->worker, *to);
  CV_TRY(read_sum(v, stem, 0, 1, n, to));
  if (kind == OWN_OR_MEAN) scale_array(to, 1 / (float)n);
  return CURVD_OK;
}

/* n: parts that were saved. */
static curvd_status visit_parts(const visit *v, int i, const char *what, part_kind kind, int64_t n, curvd_array a) {
  const trainer *t = v->state->trainer;
  char stem[CURVD_ARRAY_NAME_MAX], name[CURVD_ARRAY_NAME_MAX];
  snprintf(stem, sizeof stem, "model.%s.%s", t->model.layer[i].spec.name, what);
  if (v->is_load) return read_parts(v, stem, kind, n, &a);
  if (kind == WHOLE_SUM && !is_mine(v, i)) return CURVD_OK;
  snprintf(name, sizeof name, "%.120s.part%d", stem, kind == WHOLE_SUM ? 0 : t->worker);
  a.name = name;
  return visit_array(v->state, false, &a);
}

/* ---- layers ---- */

static curvd_status visit_momentum(const visit *v, int i) {
  trainer *t = v->state->trainer;
  nn_layer *layer = &t->model.layer[i];
  int64_t n = (int64_t)v->run[MOMENTUM_PARTS];
  if (t->optim.kind == TRAIN_ADAMW) {
    CV_TRY(visit_matrix(v, i, "first", t->optim.first[i]));
    return visit_matrix(v, i, "second", t->optim.second[i]);
  }
  if (t->gradient_momentum > 0) return visit_parts(v, i, "momentum", PART_OF_SUM, n, matrix_of(layer, layer->gradient));
  if (!t->optim.first[i]) return CURVD_OK;
  return visit_parts(v, i, "momentum", WHOLE_SUM, n, matrix_of(layer, t->optim.first[i]));
}

static curvd_status visit_layer(const visit *v, int i) {
  nn_layer *layer = &v->state->trainer->model.layer[i];
  if (!layer->weight) return CURVD_OK;
  CV_TRY(visit_matrix(v, i, "weight", layer->weight));
  CV_TRY(visit_momentum(v, i));
  if (layer->spec.kind != NN_NORM) return CURVD_OK;
  return visit_parts(v, i, "running", OWN_OR_MEAN, (int64_t)v->run[WORKERS],
                     array_of(nn_norm_running(layer), 2, layer->d_out, layer->d_out));
}

static curvd_status visit_layers(const visit *v) {
  for (int i = 0; i < v->state->trainer->model.spec.n_layers; i++) CV_TRY(visit_layer(v, i));
  return CURVD_OK;
}

/* ---- numbers ---- */

static curvd_status check_run(const visit *v) {
  const double *run = v->run, most = 1 << 20;
  bool is_sound = run[MOMENTUM_PARTS] >= 1 && run[MOMENTUM_PARTS] <= most && run[WORKERS] >= 1 &&
                  run[WORKERS] <= most && run[OPTIM_STEPS] >= 0 && run[OPTIM_STEPS] <= 0x1p53 && run[STEP] >= 0 &&
                  run[STEP] <= 0x1p53;
  if (is_sound) return CURVD_OK;
  return cv_fail(&v->state->error, CURVD_ERR_DATA, "train.run: %g parts, %g workers, %g and %g steps",
                 run[MOMENTUM_PARTS], run[WORKERS], run[OPTIM_STEPS], run[STEP]);
}

static curvd_status visit_run(visit *v) {
  trainer *t = v->state->trainer;
  v->run[STEP] = (double)t->step;
  v->run[MOMENTUM_PARTS] = t->gradient_momentum > 0 ? t->n_workers : 1;
  v->run[WORKERS] = t->n_workers;
  v->run[OPTIM_STEPS] = (double)t->optim.step;
  v->clock[WALL_S] = t->wall_before_s + trainer_wall_s(t);
  v->clock[CPU_S] = t->cpu_before_s + trainer_cpu_s(t);
  if (v->is_load || t->worker == 0) CV_TRY(visit_numbers(v, "train.run", v->run, RUN_NUMBERS));
  if (v->is_load || t->worker == 0) CV_TRY(visit_numbers(v, "train.seconds", v->clock, CLOCK_NUMBERS));
  return v->is_load ? check_run(v) : CURVD_OK;
}

/* Losses are only printed: on another number of workers the first one goes on with all of them. */
static curvd_status visit_losses(const visit *v) {
  trainer *t = v->state->trainer;
  double x[PART_NUMBERS] = {[LOSS_SUM] = t->loss_sum, [LOSS_ROWS] = (double)t->loss_rows}, sum[PART_NUMBERS] = {0};
  int64_t saved = (int64_t)v->run[WORKERS], first = t->worker, end = t->worker + 1;
  if (v->is_load && saved != t->n_workers) first = 0, end = t->worker == 0 ? saved : 0;
  for (int64_t p = first; p < end; p++) {
    char name[CURVD_ARRAY_NAME_MAX];
    snprintf(name, sizeof name, "train.part%lld", (long long)p);
    CV_TRY(visit_numbers(v, name, x, PART_NUMBERS));
    for (int i = 0; i < PART_NUMBERS; i++) sum[i] += x[i];
  }
  if (!v->is_load) return CURVD_OK;
  t->loss_sum = sum[LOSS_SUM];
  t->loss_rows = sum[LOSS_ROWS] >= 0 && sum[LOSS_ROWS] <= 0x1p53 ? (int64_t)sum[LOSS_ROWS] : 0;
  return CURVD_OK;
}

/* What has been loaded counts from now on; seconds that a rollback has lost stay spent. */
static void take_run(const visit *v) {
  trainer *t = v->state->trainer;
  t->step = (int64_t)v->run[STEP];
  t->optim.step = (int64_t)v->run[OPTIM_STEPS];
  t->order_epoch = -1;
  if (t->steps_here > 0) return;
  t->wall_before_s = v->clock[WALL_S] - trainer_wall_s(t);
  t->cpu_before_s = v->clock[CPU_S] - trainer_cpu_s(t);
}

static curvd_status make_scratch(trainer_state *s, cv_error *err) {
  int64_t most = 1;
  for (int i = 0; i < s->trainer->model.spec.n_layers; i++) {
    const nn_layer *layer = &s->trainer->model.layer[i];
    if (layer->weight && layer->d_out * layer->ld > most) most = layer->d_out * layer->ld;
    if (layer->spec.kind == NN_NORM && 2 * layer->d_out > most) most = 2 * layer->d_out;
  }
  return cv_floats_new(&s->trainer->memory, CV_MEMORY_WORKSPACE, most, "a part of a checkpoint", &s->scratch, err);
}

static curvd_status visit_program(trainer_state *s, bool is_load) {
  visit v = {.state = s, .is_load = is_load};
  if (!trainer_is_worker(s->trainer)) return CURVD_OK;
  CV_TRY(visit_run(&v));
  CV_TRY(visit_losses(&v));
  if (is_load) CV_TRY(make_scratch(s, &s->error));
  curvd_status status = visit_layers(&v);
  cv_floats_free(&s->trainer->memory, &s->scratch);
  if (is_load && status == CURVD_OK) take_run(&v);
  return status;
}

/* ---- hooks ---- */

static curvd_status begin(void *user, bool is_load, int64_t step) {
  trainer_state *s = user;
  char path[CV_OPTION_TEXT_MAX + 64];
  s->error = (cv_error){0};
  if (!is_load) {
    memcpy(s->folder, s->own, sizeof s->folder);
    CV_TRY(saver_begin(s->saver, step, &s->error));
  } else {
    checkpoint_close(&s->from);
    if (!checkpoint_path(s->folder, step, path, sizeof path))
      return cv_fail(&s->error, CURVD_ERR_IO, "%s: the path of its checkpoints is too long", s->folder);
    CV_TRY(checkpoint_open(path, &s->from, &s->error));
  }
  return visit_program(s, is_load);
}

static curvd_status array(void *user, bool is_load, const curvd_array *a) {
  return visit_array(user, is_load, a);
}

/* A curvature rank's failure is not told by the workers' calls. */
static curvd_status end(void *user, bool is_load, curvd_status status) {
  trainer_state *s = user;
  if (status != CURVD_OK) cv_fail(&s->error, status, "%s", curvd_last_error(s->trainer->ctx));
  if (is_load) {
    checkpoint_close(&s->from);
  } else if (status == CURVD_OK) {
    saver_commit(s->saver);
  } else {
    saver_cancel(s->saver, s->error.text);
  }
  if (is_load && status != CURVD_OK && !trainer_is_worker(s->trainer))
    fprintf(stderr, "curvd: rank %d: %s\n", s->trainer->rank, s->error.text);
  return CURVD_OK;
}

curvd_status trainer_state_hook(trainer_state *s, trainer *t, cv_error *err) {
  static const curvd_state_hooks hooks = {begin, array, end};
  s->trainer = t;
  curvd_status status = curvd_on_state(t->ctx, &hooks, s);
  return status == CURVD_OK ? status : cv_fail(err, status, "%s", curvd_last_error(t->ctx));
}

/* The hooks' own sentence says more than the library's. */
static curvd_status agree(trainer_state *s, curvd_status status, cv_error *err) {
  if (status != CURVD_OK) {
    bool is_own = s->error.code != CURVD_OK;
    cv_fail(err, is_own ? s->error.code : status, "%s", is_own ? s->error.text : curvd_last_error(s->trainer->ctx));
    status = err->code;
  }
  status = trainer_agree(s->trainer->workers, status, err);
  return status;
}

curvd_status trainer_state_save(trainer_state *s, cv_error *err) {
  s->error = (cv_error){0};
  return agree(s, curvd_save(s->trainer->ctx), err);
}

curvd_status trainer_state_load(trainer_state *s, int64_t step, cv_error *err) {
  s->error = (cv_error){0};
  return agree(s, curvd_load(s->trainer->ctx, step), err);
}
