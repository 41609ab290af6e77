#include "curvature/factor_plan.h"

#include "base/order.h"

#include <string.h>

enum { STREAM_MIN_N = 4096 }; /* from here on a stream costs half of a full factor, and its error is smaller */

int64_t cv_largest_rank(const cv_settings *s) {
  int64_t adaptive = s->missing_trace > 0 ? s->eig_rank_max : 0;
  return cv_larger((int64_t)cv_schedule_max(&s->eig_rank), adaptive);
}

int64_t cv_refresh_products(const cv_settings *s) {
  const cv_schedule *iterations = s->warm_start ? &s->warm_power_iters : &s->power_iters;
  return (int64_t)iterations->piece[0].value + 1;
}

static bool wants_stream(const cv_settings *s, int64_t n, bool is_spread) {
  if (s->method != CV_METHOD_NYSTROM || s->form != CV_FORM_EIGEN) return false;
  if (s->store != CV_STORE_AUTO) return s->store == CV_STORE_STREAM;
  if (s->carrier == CV_CARRY_SKETCH) return true;
  return s->carrier == CV_CARRY_AUTO && cv_can_sketch_on_workers(s) && n >= STREAM_MIN_N && !is_spread;
}

bool cv_has_stream_ranks(const cv_settings *s) {
  bool has_rows_alone = s->carrier == CV_CARRY_COLUMNS && s->store != CV_STORE_STREAM;
  return s->method == CV_METHOD_NYSTROM && !has_rows_alone;
}

static cv_plan_carrier carrier_of(const cv_settings *s, const cv_factor_plan *plan) {
  bool is_stream = plan->store == CV_PLAN_STREAM, is_online = plan->store == CV_PLAN_ONLINE;
  if (plan->is_spread) return s->carrier == CV_CARRY_COLUMNS ? CV_PLAN_COLUMNS : CV_PLAN_TRIANGLE;
  if (s->carrier == CV_CARRY_LOCAL) return CV_PLAN_LOCAL;
  if (s->carrier == CV_CARRY_COLUMNS || is_online || (is_stream && !cv_can_sketch_on_workers(s)))
    return CV_PLAN_COLUMNS;
  return is_stream ? CV_PLAN_SKETCH : CV_PLAN_TRIANGLE;
}

cv_factor_plan cv_factor_plan_of(const cv_settings *s, int64_t n, int64_t n_owners) {
  bool may_spread = n_owners > 1 && n >= s->grid_min_n && s->form == CV_FORM_EIGEN,
       is_stream = wants_stream(s, n, may_spread), is_local = s->carrier == CV_CARRY_LOCAL;
  int64_t rank = cv_largest_rank(s),
          k = cv_smaller(rank + cv_oversampling(cv_schedule_max(&s->oversampling), rank, is_stream), n);
  cv_factor_plan plan = {.is_full = s->method == CV_METHOD_KFAC || (double)k >= s->full_share * (double)n};
  plan.k_max = plan.is_full ? n : k;
  if (!plan.is_full) plan.store = is_stream ? CV_PLAN_STREAM : cv_is_online(s) ? CV_PLAN_ONLINE : CV_PLAN_FULL;
  plan.is_spread = may_spread && plan.store == CV_PLAN_FULL && !is_local;
  plan.carrier = carrier_of(s, &plan);
  return plan;
}

/* Streams and online pairs have their products from the statistics. */
double cv_factor_plan_flops(const cv_settings *s, int64_t n, const cv_factor_plan *plan) {
  int64_t products = plan->store == CV_PLAN_FULL ? cv_refresh_products(s) : 0;
  return plan->is_spread ? 0 : cv_plan_refresh_flops(n, plan->k_max, products - 1, plan->is_full);
}

/* Does pattern match name? '*' stands for any characters. */
static bool matches(const char *pattern, size_t length, const char *name) {
  if (length == 0) return *name == '\0';
  if (*pattern == '*') {
    for (const char *rest = name;; rest++) {
      if (matches(pattern + 1, length - 1, rest)) return true;
      if (!*rest) return false;
    }
  }
  return *pattern == *name && matches(pattern + 1, length - 1, name + 1);
}

bool cv_is_skipped(const char *list, const char *name) {
  while (*list) {
    size_t length = strcspn(list, ", ");
    if (length > 0 && matches(list, length, name)) return true;
    list += length;
    list += strspn(list, ", ");
  }
  return false;
}
