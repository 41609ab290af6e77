/* What a product of matrices costs in bf16, one term or three, over BLAS in fp32, and how far it is off. Prints one
 * JSON line a precision and matrix unit. */
#include "curvd.h"
#include "product_run.h"

#include <cblas.h>
#include <stdio.h>
#include <string.h>

#define AT(member) offsetof(product_options, member)
static const cv_option table[] = {
    {"product", CV_OPTION_CHOICE, "", "", 0, 0, PRODUCT_KINDS, "plain",
     "C = op(A) op(B); the same, op(B) rounded once before; or the lower triangle of C (n, n) = X^T X, X (k, n)",
     AT(kind)},
    {"m", CV_OPTION_INTEGER, "", "rows", 1, 65536, NULL, "266", "rows of op(A); gram: n", AT(m)},
    {"n", CV_OPTION_INTEGER, "", "columns", 1, 65536, NULL, "4096", "columns of op(B)", AT(n)},
    {"k", CV_OPTION_INTEGER, "", "", 1, 65536, NULL, "4096", "columns of op(A), rows of op(B)", AT(k)},
    {"trans_a", CV_OPTION_SWITCH, "", "", 0, 0, NULL, "no", "A lies in memory as (k, m)", AT(trans_a)},
    {"trans_b", CV_OPTION_SWITCH, "", "", 0, 0, NULL, "no", "B lies in memory as (n, k)", AT(trans_b)},
    {"precision", CV_OPTION_CHOICE, "", "", 0, 0, "all|bf16|bf16x3", "all", "beside fp32", AT(precision)},
    {"unit", CV_OPTION_TEXT, "", "", 0, 0, NULL, "auto", "all|" CV_UNIT_NAMES "; all: every one that is there",
     AT(unit)},
    {"rounds", CV_OPTION_INTEGER, "", "", 1, BLOCKS_MAX, NULL, "11", "blocks of each that are timed", AT(rounds)},
    {"block", CV_OPTION_INTEGER, "", "products", 1, 1000000, NULL, "1", "in a block; more for small ones", AT(block)},
    {"seed", CV_OPTION_INTEGER, "", "", 0, INT32_MAX, NULL, "1", "of the random matrices", AT(seed)},
};
enum { OPTIONS = sizeof table / sizeof *table };

static int help(void) {
  puts("usage: bench_product [--name value ...]\n"
       "       bench_product --list     names of the matrix units that this machine has, the best one first\n\n"
       "CPU milliseconds of a product of random matrices, one thread: by BLAS in fp32, and in bf16, in blocks that "
       "take\n"
       "turns; and its error against fp64. One JSON line a precision and matrix unit.\n");
  for (int i = 0; i < OPTIONS; i++) {
    char name[16], range[256] = "name";
    if (table[i].type != CV_OPTION_TEXT) cv_option_range(&table[i], range, sizeof range);
    snprintf(name, sizeof name, "%s", table[i].name);
    for (char *dash = name; (dash = strchr(dash, '_')) != NULL;) *dash = '-';
    printf("  --%-10s %s (%s; default %s)\n", name, table[i].help, range, table[i].initial);
  }
  puts("\nExit code 1, a sentence and no line when an error is beyond what rounding explains, 2 for wrong usage.");
  return 0;
}

static int list(void) {
  for (int i = 0; cv_units[i]; i++)
    if (cv_units[i]->is_there()) puts(cv_units[i]->name);
  return 0;
}

/* ---- command line ---- */

static curvd_status read_word(product_options *o, const char *word, const char *value, cv_error *err) {
  const char *names[OPTIONS];
  for (int i = 0; i < OPTIONS; i++) names[i] = table[i].name;
  const char *name = strncmp(word, "--", 2) == 0 ? word + 2 : word;
  const cv_option *row = name == word ? NULL : cv_option_find(table, OPTIONS, name);
  if (row == NULL) {
    const char *near = cv_nearest_name(name, names, OPTIONS);
    return cv_fail(err, CURVD_ERR_OPTION, "no option %s%s%s", word, near ? "; did you mean --" : "; see --help",
                   near ? near : "");
  }
  if (value == NULL) return cv_fail(err, CURVD_ERR_OPTION, "%s needs a value", word);
  return cv_option_set(row, o, value, err);
}

static curvd_status read_words(product_options *o, int argc, char **argv, cv_error *err) {
  CV_TRY(cv_options_defaults(table, OPTIONS, o, err));
  for (int i = 0; i < argc; i += 2) CV_TRY(read_word(o, argv[i], i + 1 < argc ? argv[i + 1] : NULL, err));
  if (o->kind == PRODUCT_GRAM && (o->trans_a || o->trans_b))
    return cv_fail(err, CURVD_ERR_OPTION, "--product gram takes no --trans-a and no --trans-b: it is X^T X");
  return CURVD_OK;
}

/* ---- lines ---- */

static double gflops(const product_run *run, const product_case *c) {
  return product_flops(&run->options) / blocks_median(c->ms, (int)run->options.rounds) / 1e6;
}

static void print_case(const product_run *run, const product_case *c) {
  static const char *const kinds[] = {"plain", "packed", "gram"};
  const product_options *o = &run->options;
  const product_case *fp32 = &run->cases[0];
  int n = (int)o->rounds;
  json_t *line = json_pack("{s:s, s:s, s:s, s:I, s:I, s:I, s:b, s:b, s:s, s:s, s:I, s:I}", "bench", "product", "build",
                           curvd_build_info(), "product", kinds[o->kind], "m", (json_int_t)o->m, "n", (json_int_t)o->n,
                           "k", (json_int_t)o->k, "trans_a", (int)o->trans_a, "trans_b", (int)o->trans_b, "precision",
                           cv_precision_name(c->by.precision), "unit", multiplier_unit(&c->by), "rounds",
                           (json_int_t)o->rounds, "block", (json_int_t)o->block);
  json_object_set_new(line, "fp32_ms", blocks_times(fp32->ms, n));
  json_object_set_new(line, "ms", blocks_times(c->ms, n));
  json_object_set_new(line, "fp32_over", blocks_ratio(fp32->ms, c->ms, n));
  json_object_set_new(line, "fp32_gflops", json_real(gflops(run, fp32)));
  json_object_set_new(line, "gflops", json_real(gflops(run, c)));
  json_object_set_new(line, "fp32_error", json_real(fp32->error));
  json_object_set_new(line, "error", json_real(c->error));
  json_dumpf(line, stdout, JSON_REAL_PRECISION(6));
  putchar('\n');
  json_decref(line);
}

static curvd_status bench_main(product_run *run, int argc, char **argv, cv_error *err) {
  CV_TRY(read_words(&run->options, argc, argv, err));
  openblas_set_num_threads(1);
  curvd_status status = product_open(run, err);
  if (status == CURVD_OK) status = product_measure(run, err);
  for (int i = 1; i < run->n_cases && status == CURVD_OK; i++) print_case(run, &run->cases[i]);
  product_close(run);
  return status;
}

int main(int argc, char **argv) {
  static product_run run;
  cv_error err = {.code = CURVD_OK};
  for (int i = 1; i < argc; i++)
    if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) return help();
  if (argc == 2 && strcmp(argv[1], "--list") == 0) return list();
  curvd_status status = bench_main(&run, argc - 1, argv + 1, &err);
  if (status != CURVD_OK) fprintf(stderr, "bench_product: %s\n", err.text);
  return status == CURVD_OK ? 0 : status == CURVD_ERR_OPTION ? 2 : 1;
}
