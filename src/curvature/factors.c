/* Running averages of a factor (spec of the conventions: kfac-jax, kfac-pytorch, Puiu 2022, Martens and Grosse 2015).
 * Wire of a factor: packed lower triangle of the sum of outer products, then examples in it, number of workers whose
 * statistic is not finite, and the sum of (their number + 1). */
#include "curvature/internal.h"

#include <math.h>
#include <string.h>

enum { WIRE_ROWS, WIRE_BAD, WIRE_WHO, WIRE_EXTRA };

static int64_t triangle(int64_t n) {
  return n * (n + 1) / 2;
}

int64_t cv_factor_wire_floats(int64_t n) {
  return triangle(n) + WIRE_EXTRA;
}

/* By Cauchy-Schwarz, a sum of outer products is finite when its diagonal is; NaN or Inf in the data reaches it. */
static bool diagonal_is_finite(const cv_factor *factor) {
  double sum = 0;
  for (int64_t i = 0; i < factor->n; i++) sum += factor->statistic[i * factor->ld + i];
  return isfinite(sum);
}

void cv_factor_pack(cv_factor *factor, int worker, float *wire) {
  int64_t n = factor->n;
  float *extra = wire + triangle(n);
  bool is_bad = factor->rows > 0 && !diagonal_is_finite(factor);
  if (factor->rows > 0 && !is_bad) {
    for (int64_t i = 0, at = 0; i < n; at += ++i) {
      memcpy(wire + at, factor->statistic + i * factor->ld, (size_t)(i + 1) * sizeof *wire);
    }
  } else {
    memset(wire, 0, (size_t)triangle(n) * sizeof *wire); /* a bad rank takes part with nothing */
  }
  extra[WIRE_ROWS] = is_bad ? 0 : (float)factor->rows;
  extra[WIRE_BAD] = is_bad;
  extra[WIRE_WHO] = is_bad ? (float)(worker + 1) : 0;
  factor->rows = 0;
}

/* M <- keep M + add S */
typedef struct weights {
  double keep, add;
} weights;

static weights average_weights(const cv_settings *s, cv_factor *factor) {
  double rho = s->factor_decay, eps;
  int64_t k = factor->updates + 1; /* this update, counted from 1 */
  switch ((cv_average)s->average) {
  case CV_AVERAGE_ID:
  case CV_AVERAGE_ZERO:
    return (weights){rho, 1 - rho};
  case CV_AVERAGE_FIRST:
    return k == 1 ? (weights){0, 1} : (weights){rho, 1 - rho};
  case CV_AVERAGE_MG:
    eps = fmin(1 - 1 / (double)k, 0.95);
    return (weights){eps, 1 - eps};
  case CV_AVERAGE_SUM:
    return (weights){rho, 1};
  case CV_AVERAGE_NORM:
    break;
  }
  factor->weight = rho * factor->weight + 1;
  return (weights){1 - 1 / factor->weight, 1 / factor->weight};
}

static void refuse(curvd_ctx *ctx, const cv_layer *layer, cv_factor *factor, const float *extra) {
  factor->fresh.refused++;
  ctx->my_events[CURVD_EVENT_REFUSED_STATISTICS]++;
  const char *which = factor == &layer->factor[CV_A] ? "A" : "G";
  if (extra[WIRE_BAD] == 1) {
    cv_log_line(&ctx->log, CV_LOG_WARNING, "layer %s: statistics of %s in step %lld refused: not finite on rank %d",
                layer->name, which, (long long)ctx->step, (int)extra[WIRE_WHO] - 1);
  } else {
    cv_log_line(&ctx->log, CV_LOG_WARNING, "layer %s: statistics of %s in step %lld refused: not finite on %d ranks",
                layer->name, which, (long long)ctx->step, (int)extra[WIRE_BAD]);
  }
}

static bool sum_is_finite(int64_t n, const float *wire) {
  double sum = 0;
  for (int64_t i = 0, at = 0; i < n; at += ++i) sum += wire[at + i];
  return isfinite(sum);
}

void cv_factor_absorb(curvd_ctx *ctx, const cv_layer *layer, cv_factor *factor, const float *wire) {
  int64_t n = factor->n;
  const float *extra = wire + triangle(n);
  if (extra[WIRE_BAD] > 0 || !sum_is_finite(n, wire)) {
    refuse(ctx, layer, factor, extra);
    return;
  }
  if (!(extra[WIRE_ROWS] > 0)) return; /* nobody captured anything */
  const cv_settings *s = cv_settings_of(ctx);
  if (factor->updates == 0 && s->average == CV_AVERAGE_ID) {
    for (int64_t i = 0; i < n; i++) factor->average[i * factor->ld + i] = 1;
  }
  weights w = average_weights(s, factor);
  float keep = (float)w.keep, add = (float)(w.add / extra[WIRE_ROWS]);
  double trace = 0;
  for (int64_t i = 0, at = 0; i < n; at += ++i) {
    float *row = factor->average + i * factor->ld;
    for (int64_t j = 0; j <= i; j++) row[j] = keep * row[j] + add * wire[at + j];
    trace += row[i];
  }
  factor->updates++;
  factor->fresh.trace = trace;
  factor->fresh.statistics_step = ctx->step;
  factor->fresh.extra_damping = s->average == CV_AVERAGE_ZERO ? pow(s->factor_decay, (double)factor->updates) : 0;
}
