/* How close the streaming sketch of linalg/stream.h stays to the best low-rank approximation of an average that drifts,
 * and what it costs beside a full factor with a warm refresh. One size a run; prints one JSON line. */
#include "base/number.h"
#include "curvd.h"
#include "stream_run.h"

#include <cblas.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int help(void) {
  puts("usage: bench_stream errors|costs [--name value ...]\n\n"
       "A running average (0.95) of batches with eigenvalues (1 + i/10)^-1.5, 10 batches a refresh, between two of "
       "which\n"
       "every direction turns by 0.1 rad; the sketch has 1.5 times the kept rows and starts empty, with a Gaussian "
       "seed.\n"
       "errors: Frobenius error of the kept pairs over the least possible, refresh by refresh; and that of a warm\n"
       "Nystrom refresh of the full matrix, with one product and 10 further rows. The least comes from subspace\n"
       "iteration with the full matrix, checked against the exact eigenvalues at every 25th refresh.\n"
       "costs: CPU milliseconds of a window, updates and refresh; and those of the full factor (ssyrk, mirror, one "
       "warm\n"
       "Nystrom refresh with 10 further rows), in turn.\n\n"
       "  --n N            (default 1024)\n"
       "  --eig-rank N     kept pairs (default 128)\n"
       "  --batch N        rows (default 128)\n"
       "  --refreshes N    counted (default 100)\n"
       "  --settle N       refreshes before them (default 5)\n"
       "  --jump RADIANS   errors: then turn by so much once (default 0: no)\n"
       "  --repair yes|no  a second product with the window's rows in every refresh (default no)\n"
       "  --precision NAME of the sketch's updates: fp32, bf16 or bf16x3 (default fp32)\n"
       "  --unit NAME      matrix unit of those that are not fp32: auto or one of bench_product --list (default auto)\n"
       "  --seed N         (default 1)\n\n"
       "Exit code 1, a sentence and no line when a check fails, 2 for wrong usage.");
  return 0;
}

/* ---- command line ---- */

typedef struct stream_words {
  stream_options options;
  cv_precision precision;
  const char *unit;
} stream_words;

static curvd_status read_precision(const char *text, cv_precision *precision, cv_error *err) {
  for (int i = 0; i < MULTIPLIERS; i++) {
    *precision = (cv_precision)i;
    if (strcmp(text, multiplier_precisions[i]) == 0) return CURVD_OK;
  }
  return cv_fail(err, CURVD_ERR_OPTION, "--precision is fp32, bf16 or bf16x3, not '%s'", text);
}

static curvd_status read_word(stream_words *w, const char *name, const char *text, cv_error *err) {
  static const char *const names[] = {"--n",    "--eig-rank", "--batch", "--refreshes", "--settle",
                                      "--seed", "--repair",   "--jump",  "--precision", "--unit"};
  enum { INTEGERS = 6, REPAIR = 6, JUMP, PRECISION, UNIT, NAMES };
  stream_options *o = &w->options;
  int64_t *const values[INTEGERS] = {&o->n, &o->eig_rank, &o->batch, &o->refreshes, &o->settle, &o->seed};
  const int64_t least[INTEGERS] = {16, 2, 1, 1, 0, 0}, most[INTEGERS] = {32766, 16000, 8192, 900, 100, INT32_MAX};
  int at = 0;
  while (at < NAMES && strcmp(name, names[at]) != 0) at++;
  if (at == NAMES) return cv_fail(err, CURVD_ERR_OPTION, "no option %s; see --help", name);
  if (text == NULL) return cv_fail(err, CURVD_ERR_OPTION, "%s needs a value", name);
  if (at == PRECISION) return read_precision(text, &w->precision, err);
  if (at == UNIT) {
    w->unit = text;
  } else if (at == REPAIR && (strcmp(text, "yes") == 0 || strcmp(text, "no") == 0)) {
    o->is_repaired = *text == 'y';
  } else if (at == JUMP) {
    char *end;
    o->jump = strtod(text, &end);
    if (end == text || *end || !(o->jump >= 0 && o->jump <= 3.2))
      return cv_fail(err, CURVD_ERR_OPTION, "--jump needs radians from 0 to 3.2, not '%s'", text);
  } else if (at == REPAIR || !cv_integer_parse(text, values[at]) || *values[at] < least[at] || *values[at] > most[at]) {
    return cv_fail(err, CURVD_ERR_OPTION, "%s takes no '%s'; see --help", name, text);
  }
  return CURVD_OK;
}

static curvd_status read_words(stream_words *w, int argc, char **argv, cv_error *err) {
  const stream_options *o = &w->options;
  for (int i = 0; i < argc; i += 2) CV_TRY(read_word(w, argv[i], i + 1 < argc ? argv[i + 1] : NULL, err));
  int64_t rows = o->eig_rank + (o->eig_rank / 2 > 10 ? o->eig_rank / 2 : 10);
  if (rows <= o->n) return CURVD_OK;
  return cv_fail(err, CURVD_ERR_OPTION, "%lld rows for --eig-rank %lld are more than n = %lld", (long long)rows,
                 (long long)o->eig_rank, (long long)o->n);
}

/* ---- lines ---- */

static int by_size(const void *x, const void *y) {
  double a = *(const double *)x, b = *(const double *)y;
  return (a > b) - (a < b);
}

static json_t *least_median_most(const double *x, int64_t n) {
  double sorted[STREAM_REFRESHES_MAX];
  memcpy(sorted, x, (size_t)n * sizeof *x);
  qsort(sorted, (size_t)n, sizeof *sorted, by_size);
  double median = (sorted[(n - 1) / 2] + sorted[n / 2]) / 2;
  return json_pack("{s:f, s:f, s:f}", "min", sorted[0], "median", median, "max", sorted[n - 1]);
}

static json_t *list_of(const double *x, int64_t n) {
  json_t *list = json_array();
  for (int64_t i = 0; i < n; i++) json_array_append_new(list, json_real(x[i]));
  return list;
}

static json_t *head_of(const stream_options *o, const char *what) {
  return json_pack("{s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:b, s:s, s:s}", "bench", "stream", "build",
                   curvd_build_info(), "what", what, "n", (json_int_t)o->n, "eig_rank", (json_int_t)o->eig_rank, "rows",
                   (json_int_t)(o->eig_rank + o->eig_rank / 2), "batch", (json_int_t)o->batch, "refreshes",
                   (json_int_t)o->refreshes, "seed", (json_int_t)o->seed, "is_repaired", (int)o->is_repaired,
                   "precision", multiplier_precisions[o->by.precision], "unit", multiplier_unit(&o->by));
}

static void print_line(json_t *line) {
  json_dumpf(line, stdout, JSON_REAL_PRECISION(6));
  putchar('\n');
  json_decref(line);
}

/* over_optimum: refresh by refresh */
static void add_errors(json_t *to, const stream_options *o, const double *over_optimum) {
  const double *settled = over_optimum + o->settle;
  json_object_set_new(to, "cold", list_of(over_optimum, o->settle));
  json_object_set_new(to, "settled", list_of(settled, o->refreshes));
  json_object_set_new(to, "error_over_optimum", least_median_most(settled, o->refreshes));
  if (o->jump > 0) json_object_set_new(to, "after_jump", list_of(settled + o->refreshes, STREAM_AFTER));
}

static curvd_status run_errors(const stream_options *o, cv_memory *memory, cv_error *err) {
  static stream_errors e;
  CV_TRY(stream_run_errors(o, memory, &e, err));
  json_t *line = head_of(o, "errors"), *full = json_object();
  add_errors(line, o, e.over_optimum);
  add_errors(full, o, e.full_over_optimum);
  json_object_set_new(line, "full", full);
  json_object_set_new(line, "jump", json_real(o->jump));
  json_object_set_new(line, "reference_off", json_real(e.reference_off));
  print_line(line);
  return CURVD_OK;
}

static curvd_status run_costs(const stream_options *o, cv_memory *memory, cv_error *err) {
  static stream_costs c;
  double ratio[STREAM_REFRESHES_MAX], updates[STREAM_REFRESHES_MAX];
  CV_TRY(stream_run_costs(o, memory, &c, err));
  for (int64_t i = 0; i < o->refreshes; i++) {
    ratio[i] = (c.update_ms[i] + c.refresh_ms[i]) / (c.full_update_ms[i] + c.full_refresh_ms[i]);
    updates[i] = c.update_ms[i] / c.full_update_ms[i];
  }
  json_t *line = head_of(o, "costs");
  json_object_set_new(line, "over_full", least_median_most(ratio, o->refreshes));
  json_object_set_new(line, "updates_over_full", least_median_most(updates, o->refreshes));
  json_object_set_new(line, "updates_ms", least_median_most(c.update_ms, o->refreshes));
  json_object_set_new(line, "refresh_ms", least_median_most(c.refresh_ms, o->refreshes));
  json_object_set_new(line, "full_updates_ms", least_median_most(c.full_update_ms, o->refreshes));
  json_object_set_new(line, "full_refresh_ms", least_median_most(c.full_refresh_ms, o->refreshes));
  print_line(line);
  return CURVD_OK;
}

static curvd_status bench_main(int argc, char **argv, cv_error *err) {
  stream_words w = {{.n = 1024, .eig_rank = 128, .batch = 128, .updates = 10, .refreshes = 100, .settle = 5, .seed = 1},
                    CV_FP32,
                    "auto"};
  stream_options *o = &w.options;
  cv_memory memory = {0};
  bool is_errors = argc > 0 && strcmp(argv[0], "errors") == 0;
  if (!is_errors && (argc == 0 || strcmp(argv[0], "costs") != 0))
    return cv_fail(err, CURVD_ERR_OPTION, "the first word is errors or costs; see --help");
  CV_TRY(read_words(&w, argc - 1, argv + 1, err));
  CV_TRY(multiplier_open(w.precision, w.unit, &memory, &o->by, err));
  openblas_set_num_threads(1);
  curvd_status status = is_errors ? run_errors(o, &memory, err) : run_costs(o, &memory, err);
  multiplier_close(&memory, &o->by);
  return status;
}

int main(int argc, char **argv) {
  cv_error err = {.code = CURVD_OK};
  for (int i = 1; i < argc; i++)
    if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) return help();
  curvd_status status = bench_main(argc - 1, argv + 1, &err);
  if (status != CURVD_OK) fprintf(stderr, "bench_stream: %s\n", err.text);
  return status == CURVD_OK ? 0 : status == CURVD_ERR_OPTION ? 2 : 1;
}
