#include "train/report_service.h"

static const double NOTICED = 0.02, BUSY = 0.8, IDLE = 0.3, UNEVEN = 0.5;

const char *service_advice(const service_load *load) {
  if (load->n_curvature == 0) return "";
  if (load->waited > NOTICED && load->busy_max > BUSY && load->n_curvature > 1 &&
      load->busy_min < UNEVEN * load->busy_max)
    return "workers waited for a busy curvature rank while another one idled: rebalance_steps moves layers from one to "
           "the other";
  if (load->waited > NOTICED && load->busy_max > BUSY)
    return "workers waited for busy curvature ranks: add some, or raise inv_update_steps or factor_update_steps";
  if (load->waited > NOTICED && !load->is_stale)
    return "workers waited for each refresh: raise staleness, and they go on meanwhile";
  if (load->waited > NOTICED) return "workers waited for refreshes on their way: raise staleness";
  if (load->busy_max < IDLE)
    return "workers hardly waited, and curvature ranks idled: fewer would do, or refresh more often (inv_update_steps)";
  return "workers hardly waited";
}

void report_service(const trainer *t, const service_load *load, run *out, json_t *record) {
  curvd_metrics m = {0};
  curvd_metrics_read(t->ctx, &m);
  run_record_real(record, "waited_share", load->waited);
  run_record_real(record, "age_mean", m.age_mean);
  json_object_set_new(record, "age_p99", json_integer(m.age_p99));
  json_object_set_new(record, "age_max", json_integer(m.age_max));
  json_object_set_new(record, "refreshes_arrived", json_integer(m.refreshes_arrived));
  run_record_real(record, "latency_mean_s", m.latency_mean_s);
  run_record_real(record, "latency_max_s", m.latency_max_s);
  if (m.events[CURVD_EVENT_REFRESHES] == 0) return;
  run_line(out,
           "preconditioners: age %.1f steps in the mean, %lld in 99 %%, %lld at most; refreshes took %.1f ms, %.1f "
           "at most",
           m.age_mean, (long long)m.age_p99, (long long)m.age_max, 1e3 * m.latency_mean_s, 1e3 * m.latency_max_s);
  if (load->n_curvature == 0) return;
  run_record_real(record, "curvature_busy_min", load->busy_min);
  run_record_real(record, "curvature_busy_max", load->busy_max);
  run_line(out, "workers waited %.1f %% of the time, curvature ranks were busy %.0f to %.0f %%: %s", 100 * load->waited,
           100 * load->busy_min, 100 * load->busy_max, service_advice(load));
}
