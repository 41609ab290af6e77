#include "curvature/forecast.h"
#include "curvature/guard.h"

#include "base/order.h"
#include "curvature/factor_plan.h"
#include "curvature/internal.h"
#include "curvature/link.h"
#include "curvature/wire.h"
#include "linalg/dense.h"

#include <math.h>
#include <stdio.h>

/* ---- options ---- */

static curvd_status read_options(const curvd_run_shape *shape, cv_settings_book *book, cv_error *err) {
  cv_settings_init(book);
  for (int32_t i = 0; i < shape->n_options; i++) {
    CV_TRY(cv_settings_put(book, shape->options[i].key, shape->options[i].value, err));
  }
  CV_TRY(cv_settings_resolve(book, err));
  if (book->values.curvature_ranks < shape->n_ranks) return CURVD_OK;
  return cv_fail(err, CURVD_ERR_LAYOUT, "curvature_ranks %lld of %d ranks leave no worker: use at most %d",
                 (long long)book->values.curvature_ranks, (int)shape->n_ranks, (int)shape->n_ranks - 1);
}

bool cv_forecast_is_rough(const cv_settings *s) {
  return s->method == CV_METHOD_BR || s->method == CV_METHOD_BRC || s->missing_trace > 0 || s->window_rows > 0 ||
         s->skip_error > 0;
}

/* ---- the machine ---- */

static cv_plan_machine machine_of(const curvd_machine *m) {
  return (cv_plan_machine){.gemm_flops_s = m->gemm_flops_s,
                           .syrk_flops_s = m->syrk_flops_s,
                           .copy_bytes_s = m->copy_bytes_s,
                           .eig_f32 = {m->eig32_square_s, m->eig32_cube_s},
                           .eig_f64 = {m->eig64_square_s, m->eig64_cube_s},
                           .within = {m->within_latency_s, m->within_bytes_s},
                           .between = {m->between_latency_s, m->between_bytes_s},
                           .ranks_per_node = m->ranks_per_node,
                           .overlap = m->overlap};
}

void curvd_machine_default(curvd_machine *out) {
  const cv_plan_machine *m = &cv_plan_machine_default;
  if (!out) return;
  *out = (curvd_machine){.gemm_flops_s = m->gemm_flops_s,
                         .syrk_flops_s = m->syrk_flops_s,
                         .copy_bytes_s = m->copy_bytes_s,
                         .eig32_square_s = m->eig_f32.square_s,
                         .eig32_cube_s = m->eig_f32.cube_s,
                         .eig64_square_s = m->eig_f64.square_s,
                         .eig64_cube_s = m->eig_f64.cube_s,
                         .within_latency_s = m->within.latency_s,
                         .within_bytes_s = m->within.bytes_s,
                         .between_latency_s = m->between.latency_s,
                         .between_bytes_s = m->between.bytes_s,
                         .ranks_per_node = m->ranks_per_node,
                         .overlap = m->overlap};
}

/* ---- the run ---- */

static cv_plan_run run_of(const curvd_run_shape *shape, const cv_settings *s, const cv_plan_layer *layer) {
  cv_plan_run run = cv_plan_run_of(s, shape->n_ranks - (int32_t)s->curvature_ranks);
  for (int32_t i = 0; i < shape->n_layers; i++) run.row_bytes += cv_plan_row_bytes(&run, &layer[i]);
  run.batch_rows = shape->batch_rows;
  run.statistics_rows = shape->statistics_rows > 0 ? shape->statistics_rows : shape->batch_rows;
  run.train_s = shape->train_s;
  run.capture_train_s = shape->capture_train_s;
  run.follows = shape->captures_gradients && s->apply != CV_APPLY_FACTORED;
  run.header_bytes = CV_WIRE_HEADER_BYTES;
  run.event_bytes = sizeof((cv_downlink *)NULL)->events + sizeof(cv_seal);
  return run;
}

/* user: the settings, but for what the run says of ranks, intervals and staleness. */
static void choose(const void *user, const cv_plan_run *run, cv_plan_draft *draft) {
  cv_settings s = *(const cv_settings *)user;
  s.curvature_ranks = run->n_curvature;
  s.staleness = run->is_free ? CV_STALENESS_FREE : run->staleness;
  s.inv_update_steps = cv_schedule_constant((double)run->inv_update_steps);
  cv_layers_plan(&s, run, draft);
}

/* ---- together ---- */

static curvd_status check(const curvd_run_shape *shape, cv_error *err) {
  if (shape->n_ranks < 1 || shape->n_ranks > CURVD_PREDICTED_RANKS_MAX)
    return cv_fail(err, CURVD_ERR_ARGUMENT, "a prediction for %d ranks: use 1 to %d", (int)shape->n_ranks,
                   CURVD_PREDICTED_RANKS_MAX);
  if (shape->n_layers < 0 || shape->n_options < 0 || shape->batch_rows < 0 || shape->statistics_rows < 0)
    return cv_fail(err, CURVD_ERR_ARGUMENT, "a prediction with a negative count");
  for (int32_t i = 0; i < shape->n_layers; i++) {
    const curvd_layer_shape *layer = &shape->layers[i];
    bool is_size = layer->d_in >= 1 && layer->d_out >= 1 && layer->d_in < CV_DENSE_MAX && layer->d_out < CV_DENSE_MAX;
    if (layer->positions < 0 || layer->positions >= CV_DENSE_MAX)
      return cv_fail(err, CURVD_ERR_ARGUMENT, "layer %d of a prediction: %lld positions, use 0 .. %lld", (int)i,
                     (long long)layer->positions, (long long)CV_DENSE_MAX - 1);
    if (!layer->name || !is_size)
      return cv_fail(err, CURVD_ERR_ARGUMENT, "layer %d of a prediction, %lld x %lld: a name and sizes of 1 .. %lld",
                     (int)i, (long long)layer->d_out, (long long)layer->d_in, (long long)CV_DENSE_MAX - 1);
    if (layer->kind == CURVD_LAYER_NORM && (layer->d_in != 1 || !layer->has_bias))
      return cv_fail(err, CURVD_ERR_ARGUMENT,
                     "layer %s of a prediction normalises: its d_in is 1, its d_out the channels, with a bias",
                     layer->name);
  }
  return CURVD_OK;
}

static curvd_status make(const curvd_run_shape *shape, cv_forecast *out, cv_error *err) {
  void *layers = NULL;
  CV_TRY(check(shape, err));
  CV_TRY(read_options(shape, &out->book, err));
  const cv_settings *s = &out->book.values;
  CV_TRY(cv_memory_new(&out->memory, CV_MEMORY_WORKSPACE, shape->n_layers, sizeof *out->layer, "the prediction",
                       &layers, err));
  out->layer = layers;
  for (int32_t i = 0; i < shape->n_layers; i++) {
    const curvd_layer_shape *layer = &shape->layers[i];
    out->layer[i] = (cv_plan_layer){.m = layer->d_out,
                                    .n = layer->d_in + layer->has_bias,
                                    .is_unit = layer->kind == CURVD_LAYER_NORM,
                                    .positions = layer->positions,
                                    .is_skipped = s->method == CV_METHOD_NONE || cv_is_skipped(s->skip, layer->name)};
  }
  out->machine = shape->machine ? machine_of(shape->machine) : cv_plan_machine_default;
  out->given = (cv_predict_case){.machine = &out->machine,
                                 .run = run_of(shape, s, out->layer),
                                 .n_layers = shape->n_layers,
                                 .layer = out->layer,
                                 .choose = choose,
                                 .user = s};
  return CURVD_OK;
}

curvd_status cv_forecast_make(const curvd_run_shape *shape, cv_forecast *out, cv_error *err) {
  *out = (cv_forecast){.layer = NULL};
  curvd_status status = make(shape, out, err);
  if (status != CURVD_OK) cv_forecast_free(out);
  return status;
}

void cv_forecast_free(cv_forecast *f) {
  void *layers = f->layer;
  cv_memory_free(&f->memory, &layers);
  f->layer = NULL;
}

curvd_status cv_forecast_fail(const cv_error *err, curvd_status status, char *message, size_t size) {
  if (message && size > 0) snprintf(message, size, "%s", err->text);
  return status;
}
