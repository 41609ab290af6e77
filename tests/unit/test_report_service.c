/* What a run's report advises: one case of every branch, and both sides of every border (2 % waited, 80 % busy, 30 %
 * idle, one rank half as busy as another). */
#include "suite.h"

#include "train/report_service.h"

#include <string.h>

#define COUNT(list) (sizeof list / sizeof list[0])

typedef struct advice {
  service_load load;
  const char *says; /* "": nothing */
} advice;

static const char add_ranks[] = "add some", move_layers[] = "rebalance_steps", raise_staleness[] = "go on meanwhile",
                  raise_more[] = "refreshes on their way", fewer[] = "fewer would do", well[] = "workers hardly waited";

static const advice cases[] = {
    {{.n_curvature = 0, .waited = 0.5, .busy_max = 1}, ""},
    {{.n_curvature = 2, .waited = 0.5, .busy_min = 0.44, .busy_max = 0.9}, move_layers},
    {{.n_curvature = 2, .waited = 0.5, .busy_min = 0.46, .busy_max = 0.9}, add_ranks},
    {{.n_curvature = 1, .waited = 0.5, .busy_min = 0.1, .busy_max = 0.9}, add_ranks},
    {{.n_curvature = 2, .is_stale = true, .waited = 0.03, .busy_min = 0.9, .busy_max = 0.81}, add_ranks},
    {{.n_curvature = 2, .waited = 0.5, .busy_max = 0.79}, raise_staleness},
    {{.n_curvature = 2, .is_stale = true, .waited = 0.5, .busy_max = 0.79}, raise_more},
    {{.n_curvature = 1, .waited = 0.03, .busy_max = 0.1}, raise_staleness}, /* who waits does not want fewer ranks */
    {{.n_curvature = 1, .is_stale = true, .waited = 0.03, .busy_max = 0.1}, raise_more},
    {{.n_curvature = 1, .is_stale = true, .waited = 0.01, .busy_max = 0.29}, fewer},
    {{.n_curvature = 1, .waited = 0, .busy_max = 0}, fewer},
    {{.n_curvature = 1, .waited = 0.01, .busy_max = 0.31}, well},
    {{.n_curvature = 1, .waited = 0.01, .busy_max = 1}, well},
};

START_TEST(advice_of_every_load) {
  for (size_t i = 0; i < COUNT(cases); i++) {
    const char *text = service_advice(&cases[i].load);
    if (cases[i].says[0] == '\0') {
      ck_assert_str_eq(text, "");
    } else if (cases[i].says == well) {
      ck_assert_str_eq(text, well); /* the sentence that advises fewer ranks begins alike */
    } else {
      ck_assert_msg(strstr(text, cases[i].says), "case %d: %s", (int)i, text);
    }
  }
}
END_TEST

int main(void) {
  const TTest *const tests[] = {advice_of_every_load};
  return suite_run("report_service", tests, COUNT(tests), NULL);
}
