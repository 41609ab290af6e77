#include "train/report_prediction.h"

#include "train/run_shape.h"

#include <stdlib.h>

typedef struct pair {
  const char *name;
  double predicted_s, measured_s; /* of a mean step */
} pair;

enum { PAIRS = 6 };

/* Stages that both the service and the model have. */
static void compare(const curvd_prediction_summary *p, const run_measured *m, pair pairs[PAIRS]) {
  const double *s = p->stage_s;
  double factor = (double)p->factor_update_steps, inv = (double)p->inv_update_steps;
  const pair made[PAIRS] = {
      {"capture", s[CURVD_PREDICTED_CAPTURE] / factor, m->worker_s[CURVD_STAGE_CAPTURE]},
      {"gradients", s[CURVD_PREDICTED_GRADIENTS], m->worker_s[CURVD_STAGE_GRADIENTS]},
      {"average", s[CURVD_PREDICTED_AVERAGE] / factor, m->most_s[CURVD_STAGE_AVERAGE]},
      {"refresh", s[CURVD_PREDICTED_REFRESH] / inv, m->most_s[CURVD_STAGE_REFRESH]},
      {"momentum", s[CURVD_PREDICTED_MOMENTUM], m->worker_s[CURVD_STAGE_MOMENTUM]},
      {"precondition", s[CURVD_PREDICTED_PROJECT] + s[CURVD_PREDICTED_APPLY],
       m->worker_s[CURVD_STAGE_FOLLOW] + m->worker_s[CURVD_STAGE_PRECONDITION]},
  };
  for (int i = 0; i < PAIRS; i++) pairs[i] = made[i];
}

static void write_pairs(const curvd_prediction_summary *p, const run_measured *m, run *out, json_t *record) {
  pair pairs[PAIRS];
  json_t *stages = json_object();
  compare(p, m, pairs);
  for (int i = 0; i < PAIRS; i++)
    json_object_set_new(stages, pairs[i].name,
                        json_pack("{s:f,s:f}", "predicted_s", pairs[i].predicted_s, "measured_s", pairs[i].measured_s));
  json_object_set_new(record, "predicted",
                      json_pack("{s:f,s:f,s:f,s:f,s:b,s:o}", "step_s", p->step_s, "measured_step_s", m->step_s,
                                "wait_s", p->wait_s, "age_mean", p->age_mean, "is_rough", (int)p->is_rough, "stages",
                                stages));
  run_line(out,
           "predicted step %.2f ms, measured %.2f; of it capture %.2f, %.2f; gradients %.2f, %.2f; refresh %.2f, %.2f; "
           "precondition %.2f, %.2f%s",
           1e3 * p->step_s, 1e3 * m->step_s, 1e3 * pairs[0].predicted_s, 1e3 * pairs[0].measured_s,
           1e3 * pairs[1].predicted_s, 1e3 * pairs[1].measured_s, 1e3 * pairs[3].predicted_s, 1e3 * pairs[3].measured_s,
           1e3 * pairs[5].predicted_s, 1e3 * pairs[5].measured_s, p->is_rough ? " (rough)" : "");
}

void report_prediction(const trainer *t, const run_measured *m, run *out, json_t *record) {
  cv_error err = {.code = CURVD_OK};
  run_shape *given = NULL;
  curvd_prediction *p = NULL;
  if (run_shape_make(t->config, t->n_ranks, &given, &err) != CURVD_OK) return;
  const char *interval = curvd_get(t->ctx, "factor_update_steps");
  given->shape.train_s = m->train_s * t->n_workers;
  given->shape.capture_train_s = m->sampled_s * t->n_workers * strtod(interval, NULL);
  if (curvd_predict(&given->shape, &p, NULL, 0) == CURVD_OK) {
    curvd_prediction_summary summary;
    curvd_prediction_read(p, &summary);
    write_pairs(&summary, m, out, record);
  }
  curvd_prediction_free(&p);
  free(given);
}
