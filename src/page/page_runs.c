/* The tables of a page: what came out of each configuration, and what each run was. */
#include "page/page_parts.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { DEPTH_MAX = 6 };

/* ---- what came out ---- */

/* The last number of a column; NaN: none. */
static double last_of(const series *s, int column) {
  for (int64_t i = s->n - 1; i >= 0; i--)
    if (!isnan(series_at(s, i, column))) return series_at(s, i, column);
  return NAN;
}

typedef struct outcome {
  int column;
  bool is_score;
} outcome;

/* Of the evaluations, or of the training steps where there are none. */
static double outcome_of(const page_run *run, const void *user) {
  const outcome *wanted = user;
  const series *s =
      wanted->is_score || run->history.scores.n > run->history.steps.n ? &run->history.scores : &run->history.steps;
  return last_of(s, wanted->column);
}

static double step_ms(const page_run *run, const void *user) {
  (void)user;
  const outcome step = {SERIES_STEP, false}, wall = {HISTORY_WALL, false};
  return 1e3 * outcome_of(run, &wall) / outcome_of(run, &step);
}

static double waited(const page_run *run, const void *user) {
  (void)user;
  return 100 * jsonl_number(run->history.end, "waited_share");
}

static double age(const page_run *run, const void *user) {
  (void)user;
  return jsonl_number(run->history.end, "age_mean");
}

/* "88.1 (87.9 to 88.3)": accuracies of all seeds */
static void accuracy_cell(page *p, int group) {
  const outcome accuracy = {HISTORY_ACCURACY, true};
  chart_range range = chart_nothing;
  for (int i = page_next_run(p->data, group, -1); i >= 0; i = page_next_run(p->data, group, i))
    chart_range_add(&range, outcome_of(&p->data->run[i], &accuracy));
  double median = page_group_median(p->data, group, outcome_of, &accuracy);
  markup_put(p->out, "<td class=\"n\">");
  if (isnan(median)) markup_put(p->out, "\xE2\x80\x93");
  if (!isnan(median)) markup_put(p->out, "%.2f", median);
  if (range.least < range.most) markup_put(p->out, " (%.2f to %.2f)", range.least, range.most);
  markup_put(p->out, "</td>");
}

static void summary_row(page *p, int g) {
  const page_group *group = &p->data->group[g];
  const json_t *run = p->data->run[group->first].history.run;
  const outcome step = {SERIES_STEP, false}, loss = {HISTORY_LOSS, true}, wall = {HISTORY_WALL, false},
                core = {HISTORY_CORE, false};
  markup_put(p->out, "<tr><td>");
  chart_key(p->out, group->style);
  markup_text(p->out, group->label);
  markup_put(p->out, "</td>");
  markup_number_cell(p->out, group->n_runs);
  markup_number_cell(p->out, jsonl_number(run, "workers"));
  markup_number_cell(p->out, jsonl_number(run, "curvature_ranks"));
  markup_number_cell(p->out, jsonl_number(run, "batch"));
  markup_number_cell(p->out, page_group_median(p->data, g, outcome_of, &step));
  accuracy_cell(p, g);
  markup_number_cell(p->out, page_group_median(p->data, g, outcome_of, &loss));
  markup_number_cell(p->out, page_group_median(p->data, g, outcome_of, &wall));
  markup_number_cell(p->out, page_group_median(p->data, g, outcome_of, &core));
  markup_number_cell(p->out, page_group_median(p->data, g, step_ms, NULL));
  markup_percent_cell(p->out, page_group_median(p->data, g, waited, NULL));
  markup_number_cell(p->out, page_group_median(p->data, g, age, NULL));
  markup_put(p->out, "</tr>\n");
}

void page_summary(page *p) {
  static const char *const heads[] = {"runs",      "W",       "C",      "batch",     "steps",    "accuracy (%)",
                                      "test loss", "seconds", "core-s", "ms / step", "wait (%)", "age"};
  if (p->data->n_groups == 0) return;
  page_section_begin(p, "summary", "What came out");
  markup_put(p->out, "<div class=\"wide\"><table><thead><tr><th>configuration</th>");
  for (size_t i = 0; i < sizeof heads / sizeof *heads; i++) markup_element(p->out, "th class=\"n\"", heads[i]);
  markup_put(p->out, "</tr></thead><tbody>\n");
  for (int g = 0; g < p->data->n_groups; g++) summary_row(p, g);
  markup_put(p->out, "</tbody></table></div>\n");
  page_caption(
      p, "Medians over the runs of a configuration, which differ in their seeds alone; accuracy with the least and the "
         "largest. W workers, C curvature ranks; wait: share of the workers' wall clock; age of preconditioners in "
         "steps.");
  page_section_end(p);
}

/* ---- what each run was ---- */

static void value_text(const json_t *value, char *text, size_t size) {
  char number[NUMBER_TEXT_MAX];
  if (json_is_number(value)) number_text(json_number_value(value), number);
  snprintf(text, size, "%s",
           json_is_string(value)   ? json_string_value(value)
           : json_is_number(value) ? number
           : json_is_true(value)   ? "yes"
           : json_is_false(value)  ? "no"
                                   : "\xE2\x80\x93");
}

static void value_rows(markup *m, const char *name, const json_t *value, int depth);

static void object_rows(markup *m, const char *name, const json_t *object, int depth) {
  char inner[200];
  const char *key;
  json_t *value;
  json_object_foreach((json_t *)(uintptr_t)object, key, value) {
    snprintf(inner, sizeof inner, "%s%s%s", name, name[0] != '\0' ? ", " : "", key);
    value_rows(m, inner, value, depth + 1);
  }
}

/* A row of name and value; of an object or a list a row for each of its parts. */
static void value_rows(markup *m, const char *name, const json_t *value, int depth) {
  char text[1000];
  if (depth > DEPTH_MAX) return;
  if (json_is_object(value)) {
    object_rows(m, name, value, depth);
    return;
  }
  if (json_is_array(value)) {
    for (size_t i = 0; i < json_array_size(value); i++) value_rows(m, name, json_array_get(value, i), depth + 1);
    return;
  }
  value_text(value, text, sizeof text);
  markup_put(m, "<tr>");
  markup_element(m, "td", name);
  markup_element(m, "td", text);
  markup_put(m, "</tr>\n");
}

static void environment_table(page *p, const json_t *run) {
  static const char *const heads[] = {"what", "value", NULL};
  static const char *const hidden[] = {"kind", "step", "schema", "memory_bytes"};
  const char *key;
  json_t *value;
  page_table_begin(p, "What ran, and where", heads, 2);
  json_object_foreach((json_t *)(uintptr_t)run, key, value) {
    bool is_hidden = false;
    for (size_t i = 0; i < sizeof hidden / sizeof *hidden; i++) is_hidden = is_hidden || strcmp(key, hidden[i]) == 0;
    if (!is_hidden) value_rows(p->out, strcmp(key, "environment") == 0 ? "" : key, value, 0);
  }
  page_table_end(p);
}

static void settings_table(page *p, const settings *s) {
  static const char *const heads[] = {"option", "value", "where it came from", NULL};
  page_table_begin(p, "Configuration in force", heads, 3);
  for (int i = 0; i < s->n; i++) {
    markup_put(p->out, "<tr>");
    markup_element(p->out, "td", s->entry[i].name);
    markup_element(p->out, "td", s->entry[i].value);
    markup_element(p->out, "td", s->entry[i].origin);
    markup_put(p->out, "</tr>\n");
  }
  page_table_end(p);
}

static void run_notes(page *p, const page_run *run) {
  if (run->history.n_starts > 1)
    page_caption(p, "The run was resumed; of steps that were repeated the later records count.");
  if (run->history.end == NULL)
    page_caption(p, "The run has no record of its end: it still trains, or was broken off.");
  if (run->history.is_cut) page_caption(p, "The last line of metrics.jsonl was cut off, and is left out.");
  if (run->history.run == NULL)
    page_caption(p, "The run has no record of its beginning: what ran, and where, is not known.");
}

static void write_run(page *p, const page_run *run) {
  markup_put(p->out, "<h3>");
  chart_key(p->out, p->data->group[run->group].style);
  markup_text(p->out, run->path);
  markup_put(p->out, "</h3>\n");
  run_notes(p, run);
  if (run->history.run != NULL) environment_table(p, run->history.run);
  if (run->settings.n > 0) settings_table(p, &run->settings);
}

static void scaling_environment(page *p) {
  static const char *const heads[] = {"what", "value", NULL};
  const scaling *s = &p->data->scaling;
  if (s->environment == NULL) return;
  markup_put(p->out, "<h3>Benchmark</h3>\n");
  if (s->has_environments) page_caption(p, "The lines differ in their environment; this is the first one's.");
  page_table_begin(p, "What ran, and where", heads, 2);
  value_rows(p->out, "", s->environment, 0);
  page_table_end(p);
}

void page_runs(page *p) {
  if (p->data->n_runs == 0 && p->data->scaling.environment == NULL) return;
  page_section_begin(p, "runs", "The runs");
  for (int i = 0; i < p->data->n_runs; i++) write_run(p, &p->data->run[i]);
  scaling_environment(p);
  page_section_end(p);
}
