/* Readers of what a page shows: metrics.jsonl, scaling lines, config.yaml; as runs write them, and as they should not
 * be. */
#include "suite.h"

#include "page/history.h"
#include "page/scaling.h"
#include "page/settings.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define COUNT(list) (sizeof list / sizeof list[0])

static curvd_status parse(const char *text, history *h, cv_error *err) {
  *err = (cv_error){.code = CURVD_OK};
  return history_parse(text, (int64_t)strlen(text), "m", h, err);
}

static history parsed(const char *text) {
  cv_error err;
  history h;
  ck_assert_msg(parse(text, &h, &err) == CURVD_OK, "%s", err.text);
  return h;
}

#define RUN_OF(workers, curvature, threads)                                                                            \
  "{\"kind\":\"run\",\"step\":0,\"schema\":1,\"workers\":" #workers ",\"curvature_ranks\":" #curvature                 \
  ",\"threads\":" #threads "}\n"

START_TEST(test_a_run) {
  history h = parsed(RUN_OF(
      3, 1, 2) "{\"kind\":\"step\",\"step\":10,\"loss\":1.5,\"wall_s\":2}\n\n"
               "{\"kind\":\"step\",\"step\":20,\"loss\":null,\"wall_s\":5}\r\n"
               "{\"kind\":\"epoch\",\"step\":20,\"epoch\":1,\"test_loss\":0.5,\"test_accuracy\":80,\"wall_s\":5}\n"
               "{\"kind\":\"layer\",\"step\":20,\"layer\":\"fc1\",\"A\":{\"n\":4,\"eig_rank\":2,\"trace\":6,\"lambda_"
               "max\":3},\"G\":{\"n\":2,\"eig_rank\":0,\"lambda_max\":0}}\n"
               "{\"kind\":\"new one\",\"step\":20}\n"
               "{\"kind\":\"end\",\"step\":20,\"wall_s\":5}");
  ck_assert(h.n_starts == 1 && h.end != NULL && !h.is_cut);
  ck_assert(h.steps.n == 2 && h.scores.n == 1 && h.n_layers == 1);
  ck_assert_double_eq(series_at(&h.steps, 0, HISTORY_LOSS), 1.5);
  ck_assert(isnan(series_at(&h.steps, 1, HISTORY_LOSS)));
  ck_assert_double_eq(series_at(&h.steps, 0, HISTORY_CORE), 16); /* (3 + 1) ranks of 2 threads, 2 s */
  ck_assert_double_eq(series_at(&h.steps, 1, HISTORY_CORE), 40);
  ck_assert_double_eq(series_at(&h.scores, 0, HISTORY_ACCURACY), 80);
  ck_assert_double_eq(series_at(&h.layer[0].factor[0], 0, FACTOR_EFFECTIVE), 2);
  ck_assert(isnan(series_at(&h.layer[0].factor[1], 0, FACTOR_EFFECTIVE)));
  ck_assert(isnan(series_at(&h.layer[0].factor[1], 0, FACTOR_LAMBDA_MAX))); /* never decomposed */
  history_free(&h);
}
END_TEST

/* A run that goes on from step 20 with other ranks repeats steps: what came later counts, and it has not ended. */
START_TEST(test_resumed) {
  history h = parsed(RUN_OF(2, 0, 1) "{\"kind\":\"step\",\"step\":10,\"loss\":3,\"wall_s\":10}\n"
                                     "{\"kind\":\"step\",\"step\":20,\"loss\":2,\"wall_s\":20}\n"
                                     "{\"kind\":\"step\",\"step\":30,\"loss\":1,\"wall_s\":30}\n"
                                     "{\"kind\":\"end\",\"step\":30}\n" RUN_OF(
                                         4, 1, 1) "{\"kind\":\"step\",\"step\":20,\"loss\":2.5,\"wall_s\":19}\n"
                                                  "{\"kind\":\"step\",\"step\":25,\"loss\":2.2,\"wall_s\":21}\n");
  ck_assert(h.n_starts == 2 && h.end == NULL && h.steps.n == 3);
  static const double steps[] = {10, 20, 25}, losses[] = {3, 2.5, 2.2}, cores[] = {20, 65, 75};
  for (int i = 0; i < 3; i++) {
    ck_assert_double_eq(series_at(&h.steps, i, SERIES_STEP), steps[i]);
    ck_assert_double_eq(series_at(&h.steps, i, HISTORY_LOSS), losses[i]);
    ck_assert_double_eq(series_at(&h.steps, i, HISTORY_CORE), cores[i]); /* 2 ranks for 10 s, then 5 */
  }
  history_free(&h);
}
END_TEST

/* 8 workers for 90 s, then 2 for 10 s: steps and evaluations tell of each other when the cores changed. */
START_TEST(test_cores_of_both_kinds) {
  history h = parsed(RUN_OF(8, 0, 1) "{\"kind\":\"step\",\"step\":45,\"loss\":3,\"wall_s\":45}\n"
                                     "{\"kind\":\"step\",\"step\":90,\"loss\":2,\"wall_s\":90}\n" RUN_OF(
                                         2, 0, 1) "{\"kind\":\"step\",\"step\":100,\"loss\":1,\"wall_s\":100}\n"
                                                  "{\"kind\":\"epoch\",\"step\":100,\"wall_s\":100}\n");
  ck_assert_double_eq(series_at(&h.steps, 2, HISTORY_CORE), 740);
  ck_assert_double_eq(series_at(&h.scores, 0, HISTORY_CORE), 740);
  history_free(&h);
  /* the part of 2 workers begins with another evaluation of the same step, and its first step comes late */
  h = parsed(RUN_OF(8, 0, 1) "{\"kind\":\"step\",\"step\":45,\"wall_s\":45}\n"
                             "{\"kind\":\"step\",\"step\":90,\"wall_s\":90}\n"
                             "{\"kind\":\"epoch\",\"step\":90,\"wall_s\":90}\n" RUN_OF(
                                 2, 0, 1) "{\"kind\":\"epoch\",\"step\":90,\"wall_s\":90}\n"
                                          "{\"kind\":\"epoch\",\"step\":95,\"wall_s\":null}\n"
                                          "{\"kind\":\"step\",\"step\":100,\"wall_s\":100}\n");
  ck_assert_double_eq(series_at(&h.scores, 0, HISTORY_CORE), 720);
  ck_assert(isnan(series_at(&h.scores, 1, HISTORY_CORE)));
  ck_assert_double_eq(series_at(&h.steps, 2, HISTORY_CORE), 740);
  history_free(&h);
  /* of the first part only an evaluation is left; the last one is done again sooner, without what came behind it */
  h = parsed(RUN_OF(8, 0, 1) "{\"kind\":\"epoch\",\"step\":50,\"wall_s\":50}\n"
                             "{\"kind\":\"epoch\",\"step\":90,\"wall_s\":90}\n" RUN_OF(
                                 2, 0, 1) "{\"kind\":\"step\",\"step\":60,\"wall_s\":80}\n");
  ck_assert_double_eq(series_at(&h.steps, 0, HISTORY_CORE), 460); /* 8 for 50 s, 2 for 30 s */
  history_free(&h);
  /* the same of a second part that writes its first record at a later step, but sooner */
  h = parsed(RUN_OF(8, 0, 1) "{\"kind\":\"epoch\",\"step\":50,\"wall_s\":50}\n"
                             "{\"kind\":\"epoch\",\"step\":90,\"wall_s\":90}\n" RUN_OF(
                                 2, 0, 1) "{\"kind\":\"step\",\"step\":95,\"wall_s\":80}\n");
  ck_assert_double_eq(series_at(&h.steps, 0, HISTORY_CORE), 460);
  history_free(&h);
}
END_TEST

/* Numbers next to nothing are nothing, very large ones are none. */
START_TEST(test_extreme_numbers) {
  static const char *const texts[] = {"5e-324", "-9e-301", "1e-300", "-1e-300", "1e30", "2e30"};
  static const double values[] = {0, 0, 1e-300, -1e-300, 1e30, NAN};
  for (size_t i = 0; i < COUNT(texts); i++) {
    char text[100];
    snprintf(text, sizeof text, "{\"kind\":\"step\",\"step\":1,\"loss\":%s}\n", texts[i]);
    history h = parsed(text);
    double loss = series_at(&h.steps, 0, HISTORY_LOSS);
    ck_assert_msg(loss == values[i] || (isnan(loss) && isnan(values[i])), "%s: %g", texts[i], loss);
    history_free(&h);
  }
}
END_TEST

START_TEST(test_cut_off) {
  history h = parsed(RUN_OF(1, 0, 1) "{\"kind\":\"step\",\"step\":10,\"lo");
  ck_assert(h.is_cut && h.steps.n == 0);
  history_free(&h);
  h = parsed(RUN_OF(1, 0, 1) "{\"kind\":\"step\",\"step\":10,\"loss\":1}");
  ck_assert(!h.is_cut && h.steps.n == 1); /* only its newline is lost */
  history_free(&h);
}
END_TEST

static const struct {
  const char *text, *says;
} refused[] = {
    {"", "m: no record of a run"},
    {"\n\n", "m: no record of a run"},
    {"{\"kind\":\"step\"", "m: no record of a run"},
    {RUN_OF(1, 0, 1) "{\"kind\":\"st\n{\"kind\":\"end\",\"step\":1}\n", "m:2: no JSON object"},
    {RUN_OF(1, 0, 1) "\n[1]\n", "m:3: no JSON object"},
    {"{\"step\":1}\n", "m:1: a record without a text \"kind\""},
    {"{\"kind\":7,\"step\":1}\n", "m:1: a record without a text \"kind\""},
    {"{\"kind\":\"step\",\"step\":-1}\n", "m:1: a record without a \"step\""},
    {"{\"kind\":\"step\",\"step\":1.5}\n", "m:1: a record without a \"step\""},
    {"{\"kind\":\"step\",\"step\":9007199254740993}\n", "m:1: a record without a \"step\""},
    {"{\"kind\":\"step\",\"step\":99999999999999999999}\n", "m:1: no JSON object"},
    {"{\"kind\":\"run\",\"step\":0,\"schema\":2}\n", "m:1: its schema is another than 1"},
    {"{\"kind\":\"layer\",\"step\":0}\n", "m:1: a record of kind layer without"},
    {"{\"kind\":\"step\",\"step\":1,\"loss\":\"\xff\"}\n", "m:1: no JSON object"},
};

START_TEST(test_refused) {
  for (size_t i = 0; i < COUNT(refused); i++) {
    cv_error err;
    history h;
    ck_assert_int_eq(parse(refused[i].text, &h, &err), CURVD_ERR_DATA);
    ck_assert_msg(strncmp(err.text, refused[i].says, strlen(refused[i].says)) == 0, "%d: %s", (int)i, err.text);
    ck_assert(h.run == NULL && h.steps.cell == NULL && h.layer == NULL);
  }
}
END_TEST

START_TEST(test_zero_byte) {
  static const char text[] = "{\"kind\":\"step\",\"step\":1}\0\n{\"kind\":\"step\",\"step\":2}\n";
  cv_error err = {.code = CURVD_OK};
  history h;
  ck_assert_int_eq(history_parse(text, sizeof text - 1, "m", &h, &err), CURVD_ERR_DATA);
  ck_assert(strncmp(err.text, "m:1: no JSON object", 19) == 0);
}
END_TEST

/* ---- several runs as one curve ---- */

static series series_of(int n, const double (*row)[3]) {
  cv_error err = {.code = CURVD_OK};
  series s = {.width = 3};
  for (int i = 0; i < n; i++) ck_assert_int_eq(series_add(&s, row[i], &err), CURVD_OK);
  return s;
}

/* Rows: step, seconds, loss. b has no step 3 and no seconds at 5, c ends at 7. */
START_TEST(test_curve) {
  const double rows_a[][3] = {{1, 10, 5}, {2, 20, 4}, {4, 40, 1}, {5, 50, 1}, {7, 70, 3}, {8, 80, 1}, {9, 90, 1}},
               rows_b[][3] = {{1, 1, 3}, {2, 2, NAN}, {4, 4, 2}, {5, NAN, 2}, {7, 7, 4}, {8, 8, 1}, {9, 9, 1}},
               rows_c[][3] = {{1, 2, 9}, {2, 4, 7}, {3, 6, 7}, {4, 8, 8}, {5, 10, 9}, {7, 14, 8}};
  series a = series_of(7, rows_a), b = series_of(7, rows_b), c = series_of(6, rows_c);
  const series *const all[2][3] = {{&a, &b, &c}, {&c, &a, &b}};
  cv_error err = {.code = CURVD_OK};
  curve made;
  static const double expected[5][5] = {
      {1, 2, 5, 3, 9}, {2, 4, 5.5, 4, 7}, {4, 8, 2, 1, 8}, {5, NAN, 2, 1, 9}, {7, 14, 4, 3, 8}};
  for (int order = 0; order < 2; order++) {
    ck_assert_int_eq(curve_make(all[order], 3, 1, 2, &made, &err), CURVD_OK);
    ck_assert_int_eq(made.n, 5);
    for (int i = 0; i < 5; i++) {
      ck_assert(made.step[i] == expected[i][0] && (made.x[i] == expected[i][1] || (i == 3 && isnan(made.x[i]))));
      ck_assert(made.y[i] == expected[i][2] && made.low[i] == expected[i][3] && made.high[i] == expected[i][4]);
    }
    curve_free(&made);
  }
  ck_assert_int_eq(curve_make(all[0], 0, 1, 2, &made, &err), CURVD_OK);
  ck_assert_int_eq(made.n, 0);
  curve_free(&made);
  series_free(&a), series_free(&b), series_free(&c);
}
END_TEST

/* ---- scaling lines ---- */

static void line_text(char *text, size_t size, const char *kind, int workers, int curvature, int batch, double step_s) {
  size_t n = strlen(text);
  snprintf(text + n, size - n,
           "{\"bench\":\"scale\",\"schema\":1,\"kind\":\"%s\",\"method\":\"m\",\"network\":\"2-2\",\"ranks\":%d,"
           "\"workers\":%d,"
           "\"curvature_ranks\":%d,\"hosts\":1,\"threads\":1,\"batch\":%d,\"steps\":10,\"wall_s\":%.9g,\"step_s\":7,"
           "\"target_s\":null}\n",
           kind, workers + curvature, workers, curvature, batch, 10 * step_s);
}

START_TEST(test_points) {
  cv_error err = {.code = CURVD_OK};
  scaling s = {.n_lines = 0};
  char text[4000] = "";
  line_text(text, sizeof text, "weak", 2, 0, 256, 0.4);
  line_text(text, sizeof text, "strong", 4, 0, 128, 0.1);
  strcat(text, "{\"bench\":\"tune\"}\n"); /* of another benchmark */
  line_text(text, sizeof text, "strong", 1, 0, 128, 0.3);
  line_text(text, sizeof text, "strong", 1, 0, 128, 0.2);
  line_text(text, sizeof text, "strong", 1, 0, 128, 0.25);
  line_text(text, sizeof text, "weak", 1, 0, 128, 0.3);
  ck_assert_int_eq(scaling_parse(text, (int64_t)strlen(text), "s", &s, &err), CURVD_OK);
  ck_assert_int_eq(scaling_points(&s, &err), CURVD_OK);
  ck_assert_int_eq(s.n_points, 4);
  /* the same on 2 hosts, or with 2 threads, is another point */
  char *hosts = strstr(text, "\"hosts\":1"), *threads = strstr(strchr(text, '\n'), "\"threads\":1");
  hosts[8] = '2', threads[10] = '2';
  scaling other = {.n_lines = 0};
  line_text(text, sizeof text, "weak", 2, 0, 256, 0.4);
  line_text(text, sizeof text, "strong", 4, 0, 128, 0.1);
  line_text(text, sizeof text, "strong", 3, 1, 128, 0.1);
  ck_assert_int_eq(scaling_parse(text, (int64_t)strlen(text), "s", &other, &err), CURVD_OK);
  ck_assert_int_eq(scaling_points(&other, &err), CURVD_OK);
  ck_assert_int_eq(other.n_points, 7);
  scaling_free(&other);
  const scaling_point *p = s.point;
  ck_assert(p[0].key.workers == 1 && p[0].measure[SCALING_STEP_S].n == 3 &&
            p[0].measure[SCALING_STEP_S].median == 0.25);
  ck_assert(p[0].measure[SCALING_STEP_S].low == 0.2 && p[0].measure[SCALING_STEP_S].high == 0.3);
  ck_assert(p[1].key.workers == 4 && strcmp(p[2].key.kind, "weak") == 0 && p[2].key.batch == 128);
  ck_assert(p[0].measure[SCALING_TARGET_S].n == 0 && isnan(p[0].measure[SCALING_TARGET_S].median));
  /* by hand: 0.25 s on 1, 0.1 s on 4: 62.5 %; with a batch twice as large 0.3 s and 0.4 s: 75 % */
  ck_assert_double_eq_tol(scaling_efficiency(&p[1], 4, &p[0], 1), 0.625, 1e-12);
  ck_assert_double_eq_tol(scaling_efficiency(&p[3], 2, &p[2], 1), 0.75, 1e-12);
  scaling_free(&s);
}
END_TEST

/* What distinguishes experiments distinguishes points; of as many ranks the one with fewer curvature ranks comes first,
 * on fewer hosts. */
START_TEST(test_experiments) {
  static const char *const told[] = {"",
                                     "\"options\":\"--a 1\",",
                                     "\"options\":\"--a 2\",",
                                     "\"lr\":\"0.1\",",
                                     "\"length\":\"2 epochs\",",
                                     "\"target\":89,",
                                     "\"target\":90,",
                                     "\"options\":7,\"lr\":null,\"length\":[],\"target\":null,"}; /* as the first */
  cv_error err = {.code = CURVD_OK};
  scaling s = {.n_lines = 0};
  char text[8000] = "", plain[1000];
  for (size_t i = 0; i < COUNT(told); i++) {
    plain[0] = '\0';
    line_text(plain, sizeof plain, "strong", 1, 1, 128, 0.1);
    snprintf(text + strlen(text), sizeof text - strlen(text), "{%s%s", told[i], plain + 1);
  }
  line_text(text, sizeof text, "strong", 2, 0, 128, 0.1);
  ck_assert_int_eq(scaling_parse(text, (int64_t)strlen(text), "s", &s, &err), CURVD_OK);
  ck_assert_int_eq(scaling_points(&s, &err), CURVD_OK);
  ck_assert_int_eq(s.n_points, (int64_t)COUNT(told));
  const scaling_key *first = &s.point[0].key, *second = &s.point[1].key;
  ck_assert_int_eq(s.point[1].n_runs, 2);
  ck_assert(first->workers == 2 && second->workers == 1 && second->curvature_ranks == 1);
  ck_assert_str_eq(first->length, "10 steps");
  ck_assert_str_eq(first->options, "");
  ck_assert_str_eq(s.point[s.n_points - 1].key.options, "--a 2");
  scaling_free(&s);
}
END_TEST

static const struct {
  const char *text, *says;
} refused_lines[] = {
    {"{\"bench\":\"tune\"}\n", "s: no line of bench/scale"},
    {"{\"bench\":\"tune\"}\n{}\n", "s:2: no line of a benchmark"},
    {"{\"bench\":\"scale\",\"schema\":2}\n", "s:1: its schema"},
    {"{\"bench\":\"scale\",\"schema\":1}\n", "s:1: \"ranks\" is missing"},
    {"{\"bench\":\"scale\",\"schema\":1,\"ranks\":0}\n", "s:1: \"ranks\" is missing or out of range"},
    {"{\"bench\":\"scale\",\"schema\":1,\"ranks\":1,\"workers\":1,\"curvature_ranks\":0,\"hosts\":1,\"threads\":1,"
     "\"batch\":1}\n",
     "s:1: \"kind\" is missing"},
};

START_TEST(test_refused_lines) {
  for (size_t i = 0; i < COUNT(refused_lines); i++) {
    cv_error err = {.code = CURVD_OK};
    scaling s = {.n_lines = 0};
    const char *text = refused_lines[i].text;
    ck_assert_int_eq(scaling_parse(text, (int64_t)strlen(text), "s", &s, &err), CURVD_ERR_DATA);
    ck_assert_msg(strncmp(err.text, refused_lines[i].says, strlen(refused_lines[i].says)) == 0, "%s", err.text);
    scaling_free(&s);
  }
}
END_TEST

/* ---- config.yaml ---- */

START_TEST(test_settings) {
  static const char text[] = "# data\n"
                             "batch: 128  # --batch\n"
                             "lr: 0.001  # default\n"
                             "# eig_rank: 64  # default\n"
                             "inject: 'it''s #1: x'  # run.yaml:3\n"
                             "a line of another form\n"
                             "seed: 4";
  cv_error err = {.code = CURVD_OK};
  settings s;
  ck_assert_int_eq(settings_parse(text, sizeof text - 1, &s, &err), CURVD_OK);
  ck_assert_int_eq(s.n, 5);
  ck_assert_str_eq(settings_find(&s, "batch")->value, "128");
  ck_assert_str_eq(settings_find(&s, "batch")->origin, "--batch");
  ck_assert(settings_find(&s, "batch")->is_chosen && !settings_find(&s, "lr")->is_chosen);
  ck_assert(!settings_find(&s, "eig_rank")->is_chosen);
  ck_assert_str_eq(settings_find(&s, "inject")->value, "it's #1: x");
  ck_assert_str_eq(settings_find(&s, "inject")->origin, "run.yaml:3");
  ck_assert_str_eq(settings_find(&s, "seed")->value, "4");
  ck_assert(settings_find(&s, "nothing") == NULL);
  settings_free(&s);
}
END_TEST

int main(void) {
  const TTest *const tests[] = {test_a_run,   test_resumed,     test_cores_of_both_kinds, test_extreme_numbers,
                                test_cut_off, test_refused,     test_zero_byte,           test_curve,
                                test_points,  test_experiments, test_refused_lines,       test_settings};
  return suite_run("history", tests, COUNT(tests), NULL);
}
