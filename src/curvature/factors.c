/* Running averages of a factor (spec of the conventions: kfac-jax, kfac-pytorch, Puiu 2022, Martens and Grosse 2015).
 * Wire of a factor: packed lower triangle of the sum of outer products (nothing of a spread factor: its blocks follow),
 * then its trace, examples in it, number of workers whose statistic is not finite, and the sum of (their number + 1).
 */
#include "curvature/internal.h"
#include "linalg/dense.h"

#include <math.h>
#include <string.h>

enum { WIRE_TRACE, WIRE_ROWS, WIRE_BAD, WIRE_WHO, WIRE_EXTRA };

static int64_t triangle(const cv_factor *factor) {
  return factor->is_spread ? 0 : factor->n * (factor->n + 1) / 2;
}

int64_t cv_factor_wire_floats(const cv_factor *factor) {
  return triangle(factor) + WIRE_EXTRA;
}

/* By Cauchy-Schwarz, a sum of outer products is finite when its diagonal, and so its trace is; NaN or Inf in the data
 * reaches it. */
static double trace_of(const cv_factor *factor) {
  if (factor->is_spread) return cv_sum_squares(factor->rows, factor->n, factor->statistic, factor->ld);
  double sum = 0;
  for (int64_t i = 0; i < factor->n; i++) sum += factor->statistic[i * factor->ld + i];
  return sum;
}

void cv_factor_forget(cv_factor *factor) {
  factor->rows = 0;
  factor->is_bad = false;
}

/* A bad rank takes part with nothing. */
void cv_factor_pack(cv_factor *factor, int worker, float *wire) {
  float *extra = wire + triangle(factor), trace = factor->rows > 0 ? (float)trace_of(factor) : 0;
  if (!isfinite(trace)) factor->is_bad = true, factor->rows = 0;
  if (factor->rows == 0) memset(wire, 0, (size_t)triangle(factor) * sizeof *wire);
  for (int64_t i = 0, at = 0; i < factor->n && factor->rows > 0 && !factor->is_spread; at += ++i)
    memcpy(wire + at, factor->statistic + i * factor->ld, (size_t)(i + 1) * sizeof *wire);
  extra[WIRE_TRACE] = factor->rows > 0 ? trace : 0;
  extra[WIRE_ROWS] = (float)factor->rows;
  extra[WIRE_BAD] = factor->is_bad;
  extra[WIRE_WHO] = factor->is_bad ? (float)(worker + 1) : 0;
  if (!factor->is_spread) cv_factor_forget(factor); /* a spread one is packed for other owners, and its rows, too */
}

static cv_weights average_weights(const cv_settings *s, cv_factor *factor) {
  double rho = s->factor_decay, eps;
  int64_t k = factor->updates + 1; /* this update, counted from 1 */
  switch ((cv_average)s->average) {
  case CV_AVERAGE_ID:
  case CV_AVERAGE_ZERO:
    return (cv_weights){rho, 1 - rho};
  case CV_AVERAGE_FIRST:
    return k == 1 ? (cv_weights){0, 1} : (cv_weights){rho, 1 - rho};
  case CV_AVERAGE_MG:
    eps = fmin(1 - 1 / (double)k, 0.95);
    return (cv_weights){eps, 1 - eps};
  case CV_AVERAGE_SUM:
    return (cv_weights){rho, 1};
  case CV_AVERAGE_NORM:
    break;
  }
  factor->weight = rho * factor->weight + 1;
  return (cv_weights){1 - 1 / factor->weight, 1 / factor->weight};
}

static void refuse(curvd_ctx *ctx, const cv_layer *layer, cv_factor *factor, const float *extra) {
  factor->fresh.refused++;
  cv_count(ctx, layer, CURVD_EVENT_REFUSED_STATISTICS);
  if (!cv_owns(ctx, layer)) return; /* the layer's owner tells */
  const char *which = factor == &layer->factor[CV_A] ? "A" : "G";
  if (extra[WIRE_BAD] == 1) {
    cv_log_line(&ctx->log, CV_LOG_WARNING, "layer %s: statistics of %s in step %lld refused: not finite on rank %d",
                layer->name, which, (long long)ctx->step, (int)extra[WIRE_WHO] - 1);
  } else {
    cv_log_line(&ctx->log, CV_LOG_WARNING, "layer %s: statistics of %s in step %lld refused: not finite on %d ranks",
                layer->name, which, (long long)ctx->step, (int)extra[WIRE_BAD]);
  }
}

/* An identity to begin with (average id): this rank's ones. */
static void begin_with_identity(cv_factor *factor, const cv_cyclic *piece) {
  for (int64_t i = 0; i < factor->mine; i++) factor->average[cv_cyclic_global(piece, i) * factor->own_ld + i] = 1;
  factor->fresh.trace = (double)factor->n;
}

/* The whole lower triangle; returns its trace. */
static double mix_triangle(cv_factor *factor, cv_weights w, const float *wire) {
  float keep = (float)w.keep, add = (float)w.add;
  double trace = 0;
  for (int64_t i = 0, at = 0; i < factor->n; at += ++i) {
    float *row = factor->average + i * factor->own_ld;
    for (int64_t j = 0; j <= i; j++) row[j] = keep * row[j] + add * wire[at + j];
    trace += row[i];
  }
  return trace;
}

void cv_factor_absorb(curvd_ctx *ctx, const cv_layer *layer, cv_factor *factor, const float *wire) {
  const cv_settings *s = cv_settings_of(ctx);
  const float *extra = wire + triangle(factor);
  cv_cyclic piece = cv_spread_piece(ctx, factor, cv_comm_my_owner(&ctx->comm));
  factor->due = (cv_weights){1, 0};
  if (extra[WIRE_BAD] > 0 || !isfinite(extra[WIRE_TRACE])) {
    refuse(ctx, layer, factor, extra);
    return;
  }
  if (!(extra[WIRE_ROWS] > 0)) return; /* nobody captured anything */
  if (factor->updates == 0 && s->average == CV_AVERAGE_ID) begin_with_identity(factor, &piece);
  cv_weights w = average_weights(s, factor);
  w.add /= extra[WIRE_ROWS];
  if (factor->is_spread) {
    factor->due = w;
    factor->fresh.trace = w.keep * factor->fresh.trace + w.add * extra[WIRE_TRACE];
  } else {
    factor->fresh.trace = mix_triangle(factor, w, wire);
  }
  factor->updates++;
  factor->fresh.statistics_step = ctx->step;
  factor->fresh.extra_damping = s->average == CV_AVERAGE_ZERO ? pow(s->factor_decay, (double)factor->updates) : 0;
}
