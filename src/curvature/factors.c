/* Running averages of a factor (spec of the conventions: kfac-jax, kfac-pytorch, Puiu 2022, Martens and Grosse 2015).
 * Wire of a factor: what its carrier sums over the workers, then its trace, examples in it, number of workers whose
 * statistic is not finite, and the sum of (their number + 1). Blocks and rows follow on their own. */
#include "curvature/carrier.h"
#include "curvature/inject.h"
#include "curvature/store.h"
#include "plan/rows.h"

#include <math.h>
#include <string.h>

enum { WIRE_TRACE, WIRE_ROWS, WIRE_BAD, WIRE_WHO, WIRE_EXTRA };

const char *cv_factor_name(const cv_layer *layer, const cv_factor *factor) {
  if (layer->kind == CURVD_LAYER_NORM) return "its blocks";
  return factor == &layer->factor[CV_A] ? "A" : "G";
}

int64_t cv_factor_wire_floats(const cv_factor *factor) {
  return factor->carrier->summed(factor) + WIRE_EXTRA;
}

int64_t cv_factor_rounded(const cv_factor *factor) {
  return factor->sends_bf16 ? factor->carrier->summed(factor) : 0;
}

void cv_factor_forget(cv_factor *factor) {
  factor->captured.rows = factor->captured.examples = 0;
  factor->captured.trace_off = 0;
  factor->captured.wire_squares = (cv_bf16_error){0};
  factor->captured.is_bad = false;
}

/* Can it be sent? No number of a triangle is larger than its trace. */
static bool is_sendable(const cv_factor *factor, float trace) {
  return isfinite(factor->sends_bf16 ? cv_widen_bf16(cv_round_bf16(trace)) : trace);
}

/* Rounds what is packed; returns the trace that goes with it: of the rounded numbers, where it can be seen in them. */
static float round_sum(cv_factor *factor, float *wire, float trace) {
  int64_t rounded = cv_factor_rounded(factor);
  cv_bf16_error_add(rounded, wire, &factor->captured.wire_squares);
  cv_round_through_bf16(rounded, wire);
  if (rounded == 0 || !factor->carrier->trace_of) return trace;
  return (float)(factor->carrier->trace_of(factor, wire) + factor->captured.trace_off);
}

/* A bad rank takes part with nothing. Rows stay until they have left, too. */
void cv_factor_pack(cv_factor *factor, int worker, float *wire) {
  const cv_carrier *carrier = factor->carrier;
  int64_t summed = carrier->summed(factor);
  float *extra = wire + summed, trace = 0;
  if (factor->captured.rows > 0) trace = (float)(carrier->trace(factor) + factor->captured.trace_off);
  if (!is_sendable(factor, trace)) factor->captured.is_bad = true;
  if (factor->captured.is_bad) factor->captured.rows = factor->captured.examples = 0, trace = 0;
  if (factor->captured.rows == 0) memset(wire, 0, (size_t)summed * sizeof *wire);
  if (factor->captured.rows > 0) {
    carrier->pack(factor, wire);
    trace = round_sum(factor, wire, trace);
    factor->captured.wire_error = cv_bf16_error_of(&factor->captured.wire_squares);
  }
  extra[WIRE_TRACE] = trace;
  extra[WIRE_ROWS] = (float)factor->captured.examples;
  extra[WIRE_BAD] = factor->captured.is_bad;
  extra[WIRE_WHO] = factor->captured.is_bad ? (float)(worker + 1) : 0;
  if (!carrier->keeps_rows) cv_factor_forget(factor);
}

static cv_weights average_weights(const cv_settings *s, cv_factor *factor) {
  double rho = s->factor_decay, eps;
  int64_t k = factor->own.updates + 1; /* this update, counted from 1 */
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
  factor->own.weight = rho * factor->own.weight + 1;
  return (cv_weights){1 - 1 / factor->own.weight, 1 / factor->own.weight};
}

static void refuse(curvd_ctx *ctx, const cv_layer *layer, cv_factor *factor, const float *extra) {
  factor->own.fresh.refused++;
  cv_count(ctx, layer, CURVD_EVENT_REFUSED_STATISTICS);
  if (!cv_owns(ctx, layer)) return; /* the layer's owner tells */
  const char *which = cv_factor_name(layer, factor);
  if (extra[WIRE_BAD] == 1) {
    cv_log_line(&ctx->log, CV_LOG_WARNING, "layer %s: statistics of %s in step %lld refused: not finite on rank %d",
                layer->name, which, (long long)ctx->step, (int)extra[WIRE_WHO] - 1);
  } else {
    cv_log_line(&ctx->log, CV_LOG_WARNING, "layer %s: statistics of %s in step %lld refused: not finite on %d ranks",
                layer->name, which, (long long)ctx->step, (int)extra[WIRE_BAD]);
  }
}

/* Drawn rows have another trace than all of them. */
static bool is_drawn(const cv_factor *factor) {
  const cv_rows_rule *rule = &factor->rule;
  bool is_image = rule->positions > 0 && !rule->is_reduced;
  return rule->sample_rows > 0 || (is_image && rule->sample_rows != CV_ROWS_ALL);
}

/* Workers send the trace beside the statistic: both sums are of fp32 numbers >= 0, so they agree but for rounding, the
 * number of workers times 6e-8. Of numbers that each worker has rounded the trace is theirs; then sums are rounded on
 * their way, each to CV_BF16_ROUNDING of itself. */
static bool is_as_sent(const curvd_ctx *ctx, const cv_factor *factor, const float *wire, double trace) {
  int roundings = factor->wire_roundings > 1 ? factor->wire_roundings - 1 : 0;
  const double slack = 1e-6 * (4 + ctx->comm.n_workers) + CV_BF16_ROUNDING * roundings;
  if (cv_settings_of(ctx)->integrity == CV_INTEGRITY_OFF || !factor->carrier->trace_of || is_drawn(factor)) return true;
  return fabs(factor->carrier->trace_of(factor, wire) - trace) <= slack * fabs(trace);
}

static void refuse_changed(curvd_ctx *ctx, const cv_layer *layer, cv_factor *factor) {
  factor->own.fresh.refused++;
  cv_count(ctx, layer, CURVD_EVENT_REFUSED_STATISTICS);
  ctx->my_events[CURVD_EVENT_DAMAGED]++;
  cv_log_line(
      &ctx->log, CV_LOG_WARNING,
      "layer %s: statistics of %s in step %lld refused: their diagonal is not the trace that was sent with them",
      layer->name, cv_factor_name(layer, factor), (long long)ctx->step);
}

static void lose(curvd_ctx *ctx, const cv_layer *layer, const cv_factor *factor, const cv_error *why) {
  cv_count(ctx, layer, CURVD_EVENT_LOST_STATISTICS);
  cv_solve_tell(ctx, layer, factor, "update", why);
}

/* false: the statistic is lost, and what is kept is as before. */
static bool mix(curvd_ctx *ctx, const cv_layer *layer, cv_factor *factor, cv_weights w, const float *wire) {
  cv_error why = {0};
  if (factor->store->mix(ctx, factor, w, wire, &why) == CURVD_OK) return true;
  lose(ctx, layer, factor, &why);
  return false;
}

void cv_factor_absorb(curvd_ctx *ctx, const cv_layer *layer, cv_factor *factor, const float *wire) {
  const cv_settings *s = cv_settings_of(ctx);
  const float *extra = wire + factor->carrier->summed(factor);
  double weight = factor->own.weight, trace = factor->own.fresh.trace;
  factor->own.due = (cv_weights){1, 0};
  if (extra[WIRE_BAD] > 0 || !isfinite(extra[WIRE_TRACE])) {
    refuse(ctx, layer, factor, extra);
    return;
  }
  if (!(extra[WIRE_ROWS] > 0)) return; /* nobody captured anything */
  if (!is_as_sent(ctx, factor, wire, (double)extra[WIRE_TRACE])) {
    refuse_changed(ctx, layer, factor);
    return;
  }
  if (factor->own.updates == 0 && s->average == CV_AVERAGE_ID) {
    factor->store->begin_with_identity(ctx, factor);
    factor->own.fresh.trace = (double)factor->n;
  }
  cv_weights w = average_weights(s, factor);
  w.add /= extra[WIRE_ROWS];
  factor->own.fresh.trace = w.keep * factor->own.fresh.trace + w.add * extra[WIRE_TRACE];
  if (factor->carrier->keeps_rows) {
    factor->own.due = w;
  } else if (!mix(ctx, layer, factor, w, wire)) {
    factor->own.weight = weight, factor->own.fresh.trace = trace;
    return;
  }
  factor->own.updates++;
  factor->own.fresh.statistics_step = ctx->step;
  factor->own.fresh.extra_damping =
      s->average == CV_AVERAGE_ZERO ? pow(s->factor_decay, (double)factor->own.updates) : 0;
}

/* Rows of one worker, packed. The first of a statistic decay what is there. */
void cv_factor_absorb_rows(curvd_ctx *ctx, const cv_layer *layer, cv_factor *factor, int64_t rows, const float *X) {
  cv_error why = {0};
  if (factor->own.due.add == 0 || rows == 0) return;
  if (factor->store->add_rows(ctx, factor, factor->own.due, rows, X, factor->n, &why) != CURVD_OK)
    lose(ctx, layer, factor, &why);
  factor->own.due.keep = 1;
}

/* ---- all factors of a layer ---- */

int64_t cv_factors_floats(const cv_layer *layer, int owner) {
  int64_t floats = 0;
  for (int f = 0; f < layer->n_factors; f++) {
    if (cv_holds_factor(layer, &layer->factor[f], owner)) floats += cv_factor_wire_floats(&layer->factor[f]);
  }
  return floats;
}

int64_t cv_factors_rounded(const cv_layer *layer, int owner) {
  int64_t rounded = 0;
  for (int f = 0; f < layer->n_factors; f++) {
    if (cv_holds_factor(layer, &layer->factor[f], owner)) rounded += cv_factor_rounded(&layer->factor[f]);
  }
  return rounded;
}

float *cv_factors_pack(curvd_ctx *ctx, cv_layer *layer, int owner, float *wire) {
  for (int f = 0; f < layer->n_factors; f++) {
    cv_factor *factor = &layer->factor[f];
    if (!cv_holds_factor(layer, factor, owner)) continue;
    cv_factor_pack(factor, ctx->comm.rank, wire);
    wire += cv_factor_wire_floats(factor);
  }
  return wire;
}

const float *cv_factors_absorb(curvd_ctx *ctx, cv_layer *layer, const float *wire) {
  for (int f = 0; f < layer->n_factors; f++) {
    cv_factor *factor = &layer->factor[f];
    if (!cv_holds_factor(layer, factor, cv_comm_my_owner(&ctx->comm))) continue;
    cv_inject_statistic(ctx, factor, wire);
    cv_factor_absorb(ctx, layer, factor, wire);
    wire += cv_factor_wire_floats(factor);
  }
  return wire;
}
