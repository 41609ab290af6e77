#include "train/plan_report.h"

#include "train/report_service.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LAYERS_SHOWN = 8 };

/* ---- lines ---- */

static void layer_line(const run_shape *given, const curvd_prediction *p, int32_t i) {
  curvd_predicted_layer layer;
  const curvd_layer_shape *size = &given->shape.layers[i];
  char shape[48], owner[32];
  if (curvd_prediction_layer(p, i, &layer) != CURVD_OK) return;
  snprintf(shape, sizeof shape, "%lld x %lld", (long long)size->d_out, (long long)size->d_in + size->has_bias);
  if (layer.owner < 0) {
    printf("%-8s %14s  not preconditioned\n", given->layer[i].name, shape);
    return;
  }
  snprintf(owner, sizeof owner, "rank %d", layer.owner);
  printf("%-8s %14s  %-10s", given->layer[i].name, shape, owner);
  for (int f = 0; f < 2 && layer.n[f] > 0; f++) {
    char pairs[32];
    snprintf(pairs, sizeof pairs, layer.eig_rank[f] == layer.n[f] ? "all" : "%lld", (long long)layer.eig_rank[f]);
    printf("  %s %6s pairs, %-8s", f == 0 ? "A" : "G", pairs, layer.carrier[f]);
  }
  printf("  %s\n", layer.apply);
}

static void layer_lines(const run_shape *given, const curvd_prediction *p, const curvd_prediction_summary *s) {
  int32_t n = given->shape.n_layers, n_owned = 0, shown = n <= LAYERS_SHOWN + 1 ? n : LAYERS_SHOWN;
  for (int32_t i = 0; i < shown; i++) layer_line(given, p, i);
  if (shown < n) printf("... and %d more layers\n", (int)(n - shown));
  for (int32_t i = 0; i < n; i++) {
    curvd_predicted_layer layer;
    n_owned += curvd_prediction_layer(p, i, &layer) == CURVD_OK && layer.owner >= 0;
  }
  printf("%d layers with curvature, of %d owners (%s)\n", (int)n_owned, (int)s->n_owners,
         s->n_curvature > 0 ? "curvature ranks" : "workers");
}

static void time_lines(const curvd_prediction_summary *s) {
  printf("%-30s %10s\n", "each time it is done", "ms");
  for (int i = 0; i < CURVD_PREDICTED_STAGES; i++)
    if (s->stage_s[i] > 0) printf("%-30s %10.3f\n", curvd_predicted_name(i), 1e3 * s->stage_s[i]);
  printf("step %.2f ms in the mean, %.2f at most; %.2f of it for curvature, of which workers wait %.2f\n",
         1e3 * s->step_s, 1e3 * s->step_max_s, 1e3 * s->exposed_s, 1e3 * s->wait_s);
  if (s->latency_s > 0)
    printf("preconditioners: age %.1f steps in the mean, %lld in 99 %%, %lld at most; a refresh takes %.2f ms\n",
           s->age_mean, (long long)s->age_p99, (long long)s->age_max, 1e3 * s->latency_s);
  printf("owners work on curvature %.0f %% of their time, the busiest %.0f %%\n", 100 * s->load_mean,
         100 * s->load_max);
}

static void most_lines(const curvd_prediction *p) {
  curvd_predicted_rank worker = {.load = 0}, server = {.load = 0};
  double held[2] = {0, 0};
  curvd_prediction_most(p, CURVD_ROLE_WORKER, &worker);
  curvd_prediction_most(p, CURVD_ROLE_CURVATURE, &server);
  printf("%-30s %14s %14s\n", "the most of any rank", "worker", "curvature rank");
  for (int i = 0; i < CURVD_TRAFFICS; i++)
    printf("KB a step, %-19s %14.1f %14.1f\n", curvd_traffic_name(i), worker.sent_bytes[i] / 1e3,
           server.sent_bytes[i] / 1e3);
  for (int i = 0; i < CURVD_MEMORIES; i++) {
    printf("MB of %-24s %14.1f %14.1f\n", curvd_memory_name(i), (double)worker.memory_bytes[i] / 1e6,
           (double)server.memory_bytes[i] / 1e6);
    held[0] += (double)worker.memory_bytes[i], held[1] += (double)server.memory_bytes[i];
  }
  printf("%-30s %14.1f %14.1f\n", "MB in all", held[0] / 1e6, held[1] / 1e6);
}

/* What takes most of a step for nothing but curvature, and what would lower it. */
static const char *costly(const curvd_prediction_summary *s, const char *apply) {
  const double noticed = 0.1;
  double capture = s->stage_s[CURVD_PREDICTED_CAPTURE] / (double)s->factor_update_steps,
         preconditioning = s->stage_s[CURVD_PREDICTED_PROJECT] + s->stage_s[CURVD_PREDICTED_APPLY],
         own = s->n_curvature > 0 ? 0 : s->load_max * s->step_s;
  if (fmax(fmax(capture, preconditioning), own) < noticed * s->step_s) return "";
  if (own > fmax(capture, preconditioning))
    return s->n_workers > 1 ? "the owners' work costs most: refresh less often (inv_update_steps), or let ranks serve "
                              "(curvature_ranks)"
                            : "refreshes and averages cost most: raise inv_update_steps";
  if (capture > preconditioning) return "statistics cost most: raise factor_update_steps or fisher_stride";
  if (s->n_workers > 1 && strcmp(apply, "replicated") == 0)
    return "preconditioning costs most, and every worker does the same: apply auto shares it where that pays";
  return "preconditioning costs most: a smaller eig_rank makes it cheaper";
}

static void advice_lines(const config *c, const curvd_prediction_summary *s) {
  service_load load = {.n_curvature = s->n_curvature,
                       .is_stale = s->staleness != 0,
                       .waited = s->step_s > 0 ? s->wait_s / s->step_s : 0,
                       .busy_max = s->load_max};
  const char *lines[] = {service_advice(&load), costly(s, config_text(c, "apply"))};
  for (int i = 0; i < 2; i++)
    if (lines[i][0] != '\0') printf("%s\n", lines[i]);
  if (s->is_rough) printf("rough: with these options some costs are not modelled (see curvd_experimental.h)\n");
}

void plan_report_lines(const config *c, const run_shape *given, const curvd_prediction *p) {
  curvd_prediction_summary s;
  curvd_prediction_read(p, &s);
  printf("%s, predicted: %d workers, %d curvature rank%s, batch %lld\n", c->method, (int)s.n_workers,
         (int)s.n_curvature, s.n_curvature == 1 ? "" : "s", (long long)given->shape.batch_rows);
  layer_lines(given, p, &s);
  time_lines(&s);
  most_lines(p);
  advice_lines(c, &s);
}

/* ---- JSON ---- */

curvd_status json_print(json_t *object, cv_error *err) {
  char *text = object != NULL ? json_dumps(object, JSON_COMPACT) : NULL;
  json_decref(object);
  if (text == NULL) return cv_fail(err, CURVD_ERR_MEMORY, "no memory for a JSON object");
  printf("%s\n", text);
  free(text);
  return CURVD_OK;
}

static json_t *json_layer(const run_shape *given, const curvd_prediction *p, int32_t i) {
  curvd_predicted_layer l = {.owner = -1, .carrier = {"", ""}, .apply = "", .route = ""};
  curvd_prediction_layer(p, i, &l);
  json_t *layer = json_pack("{s:s,s:i}", "layer", given->layer[i].name, "owner", l.owner);
  for (int f = 0; f < 2 && l.owner >= 0 && l.n[f] > 0; f++)
    json_object_set_new(layer, f == 0 ? "A" : "G",
                        json_pack("{s:I,s:I,s:i,s:s}", "n", (json_int_t)l.n[f], "eig_rank", (json_int_t)l.eig_rank[f],
                                  "ranks", l.ranks[f], "carrier", l.carrier[f]));
  if (l.owner >= 0) json_object_update_new(layer, json_pack("{s:s,s:s}", "apply", l.apply, "route", l.route));
  return layer;
}

static json_t *json_rank(const curvd_prediction *p, curvd_role role) {
  curvd_predicted_rank most;
  if (curvd_prediction_most(p, role, &most) != CURVD_OK) return json_null();
  json_t *sent = json_object(), *held = json_object();
  for (int i = 0; i < CURVD_TRAFFICS; i++)
    json_object_set_new(sent, curvd_traffic_name(i), json_real(most.sent_bytes[i]));
  for (int i = 0; i < CURVD_MEMORIES; i++)
    json_object_set_new(held, curvd_memory_name(i), json_integer(most.memory_bytes[i]));
  return json_pack("{s:o,s:o,s:f}", "sent_bytes_per_step", sent, "memory_bytes", held, "load", most.load);
}

static json_t *json_summary(const curvd_prediction_summary *s) {
  json_t *stages = json_object();
  for (int i = 0; i < CURVD_PREDICTED_STAGES; i++)
    json_object_set_new(stages, curvd_predicted_name(i), json_real(s->stage_s[i]));
  return json_pack("{s:i,s:i,s:i,s:I,s:I,s:I,s:o,s:f,s:f,s:f,s:f,s:f,s:f,s:f,s:f,s:f,s:I,s:I,s:b}", "workers",
                   (int)s->n_workers, "curvature_ranks", (int)s->n_curvature, "owners", (int)s->n_owners,
                   "factor_update_steps", (json_int_t)s->factor_update_steps, "inv_update_steps",
                   (json_int_t)s->inv_update_steps, "staleness", (json_int_t)s->staleness, "stage_s", stages, "step_s",
                   s->step_s, "step_max_s", s->step_max_s, "exposed_s", s->exposed_s, "wait_s", s->wait_s, "load_mean",
                   s->load_mean, "load_max", s->load_max, "latency_s", s->latency_s, "latency_max_s", s->latency_max_s,
                   "age_mean", s->age_mean, "age_p99", (json_int_t)s->age_p99, "age_max", (json_int_t)s->age_max,
                   "is_rough", (int)s->is_rough);
}

curvd_status plan_report_json(const config *c, const run_shape *given, const curvd_prediction *p, cv_error *err) {
  curvd_prediction_summary s;
  curvd_prediction_read(p, &s);
  json_t *object = json_summary(&s), *layers = json_array();
  for (int32_t i = 0; i < given->shape.n_layers; i++) json_array_append_new(layers, json_layer(given, p, i));
  json_object_set_new(object, "method", json_string(c->method));
  json_object_set_new(object, "worker_most", json_rank(p, CURVD_ROLE_WORKER));
  json_object_set_new(object, "curvature_most", json_rank(p, CURVD_ROLE_CURVATURE));
  json_object_set_new(object, "layers", layers);
  return json_print(object, err);
}
