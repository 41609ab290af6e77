/* What the library tells: metrics, options, version. */
#include "curvature/carrier.h"
#include "curvature/internal.h"
#include "curvature/method.h"
#include "curvature/store.h"
#include "linalg/dense.h"

#include <stdio.h>
#include <string.h>

_Static_assert((int)CURVD_MEMORIES <= (int)CV_MEMORY_KINDS, "the public kinds of memory come first in base/memory.h");

curvd_status curvd_metrics_read(const curvd_ctx *ctx, curvd_metrics *out) {
  if (!ctx || !out) return CURVD_ERR_ARGUMENT;
  *out = (curvd_metrics){.step = ctx->step,
                         .memory_peak_bytes = ctx->memory.peak_bytes,
                         .n_allocations = ctx->memory.n_allocations,
                         .clip_scale = ctx->clip_scale,
                         .age_mean = cv_ages_mean(&ctx->ages),
                         .age_p99 = cv_ages_quantile(&ctx->ages, 0.99),
                         .age_max = ctx->ages.most,
                         .latency_mean_s = ctx->n_latencies > 0 ? ctx->latency_s / (double)ctx->n_latencies : 0,
                         .refreshes_arrived = ctx->n_latencies,
                         .latency_max_s = ctx->latency_max_s,
                         .progress = ctx->progress_kind,
                         .overlap_measured = ctx->overlap_measured,
                         .transfer_s = ctx->flight.transfer_s,
                         .exposed_s = ctx->flight.exposed_s};
  for (int i = 0; i < CURVD_STAGES; i++) {
    out->stage_wall_s[i] = ctx->stage[i].wall_s;
    out->stage_cpu_s[i] = ctx->stage[i].cpu_s;
    out->stage_calls[i] = ctx->stage[i].calls;
  }
  for (int i = 0; i < CURVD_TRAFFICS; i++) out->sent_bytes[i] = ctx->sent_bytes[i];
  for (int i = 0; i < CURVD_MEMORIES; i++) out->memory_bytes[i] = ctx->memory.bytes[i];
  for (int i = 0; i < CURVD_EVENTS; i++)
    out->events[i] = ctx->events_before[i] + (i < CV_OWNER_EVENTS ? 0 : ctx->my_events[i]);
  for (int o = 0; ctx->route && o < ctx->comm.n_owners; o++) {
    for (int i = 0; i < CV_OWNER_EVENTS; i++) out->events[i] += ctx->route[o].down.events[i];
  }
  return CURVD_OK;
}

static curvd_factor_metrics factor_metrics(const curvd_ctx *ctx, const cv_layer *layer, const cv_factor *factor) {
  const cv_factor_state *s = &factor->applied.state;
  return (curvd_factor_metrics){.n = factor->n,
                                .eig_rank = s->r,
                                .statistics_step = s->statistics_step,
                                .trace = s->trace,
                                .lambda_max = s->lambda_max,
                                .lambda_min = s->lambda_min,
                                .tau = s->tau,
                                .missing_trace = s->missing_trace,
                                .error_bound = s->error_bound,
                                .error_norm = s->error_norm,
                                .residual = s->residual,
                                .orthogonality = s->orthogonality,
                                .drift = s->drift,
                                .products = s->products,
                                .precision = cv_precision_name((cv_precision)s->precision),
                                .refresh_s = s->seconds,
                                .ranks = layer->owner < 0 || factor->n == 0 ? 0
                                         : factor->is_spread                ? ctx->comm.n_owners
                                                                            : 1,
                                .damping = factor->applied.damping,
                                .refused = s->refused,
                                .carrier = factor->carrier ? factor->carrier->name : "",
                                .store = factor->store ? factor->store->name : "",
                                .wire_error_statistics = factor->captured.wire_error,
                                .wire_error_basis = s->wire_error};
}

curvd_status curvd_layer_metrics_read(const curvd_ctx *ctx, int32_t index, curvd_layer_metrics *out) {
  if (!ctx || !out || index < 0 || index >= ctx->n_layers) return CURVD_ERR_ARGUMENT;
  if (!ctx->is_planned || ctx->is_broken) return CURVD_ERR_STATE;
  const cv_layer *layer = &ctx->layer[index];
  const char *method = layer->kind == CURVD_LAYER_NORM ? "unit" : curvd_get(ctx, "method");
  double all = 0;
  for (int32_t i = 0; i < ctx->n_layers; i++) all += (double)ctx->layer[i].m * (double)ctx->layer[i].n;
  *out = (curvd_layer_metrics){.name = layer->name,
                               .method = layer->method ? method : "none",
                               .reason = layer->reason,
                               .d_in = layer->d_in,
                               .d_out = layer->d_out,
                               .has_bias = layer->has_bias,
                               .owner = layer->owner < 0 ? -1 : cv_comm_owner_rank(&ctx->comm, layer->owner),
                               .apply = layer->is_factored  ? "factored"
                                        : layer->shard >= 0 ? "sharded"
                                                            : "replicated",
                               .share = (double)layer->m * (double)layer->n / all,
                               .direction_rms = layer->direction_rms,
                               .owner_s = layer->factor[CV_A].applied.state.work_s};
  for (int f = 0; f < CV_FACTORS; f++) out->factor[f] = factor_metrics(ctx, layer, &layer->factor[f]);
  return CURVD_OK;
}

int32_t curvd_layer_count(const curvd_ctx *ctx) {
  return ctx ? ctx->n_layers : 0;
}

/* ---- texts of the public lists ---- */

#define LIST_TEXT(name, text) text,
static const char *const stage_text[] = {CURVD_STAGE_LIST(LIST_TEXT)};
static const char *const traffic_text[] = {CURVD_TRAFFIC_LIST(LIST_TEXT)};
static const char *const memory_text[] = {CURVD_MEMORY_LIST(LIST_TEXT)};
static const char *const event_text[] = {CURVD_EVENT_LIST(LIST_TEXT)};

static const char *text_of(const char *const *list, int n, int i) {
  return i >= 0 && i < n ? list[i] : "?";
}

const char *curvd_stage_name(int stage) {
  return text_of(stage_text, CURVD_STAGES, stage);
}
const char *curvd_traffic_name(int traffic) {
  return text_of(traffic_text, CURVD_TRAFFICS, traffic);
}
const char *curvd_memory_name(int kind) {
  return text_of(memory_text, CURVD_MEMORIES, kind);
}
const char *curvd_event_name(int event) {
  return text_of(event_text, CURVD_EVENTS, event);
}

/* ---- options ---- */

int curvd_option_count(void) {
  return cv_settings_count;
}

curvd_status curvd_option_get(int index, curvd_option_info *info) {
  static char range[CV_SETTINGS_MAX][160];
  if (!info || index < 0 || index >= cv_settings_count) return CURVD_ERR_ARGUMENT;
  const cv_option *option = &cv_settings_table[index];
  cv_option_range(option, range[index], sizeof range[index]);
  *info = (curvd_option_info){
      option->name, cv_option_type_name(option->type), option->group, option->unit, range[index], option->initial,
      option->help};
  return CURVD_OK;
}

curvd_status curvd_option_check(const char *key, const char *value, char *message, size_t size) {
  int row = 0;
  cv_error err = {0};
  curvd_status status = cv_settings_row(key, &row, &err);
  if (status == CURVD_OK && !value) status = cv_fail(&err, CURVD_ERR_ARGUMENT, "the value of option '%s' is NULL", key);
  if (status == CURVD_OK) status = cv_option_set(&cv_settings_table[row], NULL, value, &err);
  if (message && size > 0) snprintf(message, size, "%s", err.text);
  return status;
}

/* ---- version ---- */

#define TEXT_OF(x) #x
#define TEXT(x) TEXT_OF(x)

const char *curvd_version(void) {
  return TEXT(CURVD_VERSION_MAJOR) "." TEXT(CURVD_VERSION_MINOR) "." TEXT(CURVD_VERSION_PATCH);
}

const char *curvd_build_info(void) {
  static char text[512];
  snprintf(text, sizeof text, "curvd %s; %s; %s", curvd_version(), cv_comm_library(), cv_blas_name());
  return text;
}
