#include "product_run.h"

#include "base/clock.h"
#include "base/rng.h"
#include "linalg/dense.h"

#include <math.h>
#include <string.h>

enum { COLUMNS = 8 }; /* of C that are compared */

/* ---- set-up ---- */

static cv_trans trans_of(bool is_transposed) {
  return is_transposed ? CV_T : CV_N;
}

static curvd_status matrix_new(product_run *run, uint32_t which, int64_t rows, int64_t columns, int64_t *ld, float **X,
                               cv_error *err) {
  cv_rng rng = {.seed = (uint64_t)run->options.seed, .stream = CV_RNG_PROBE, .a = which};
  *ld = cv_dense_ld(columns);
  CV_TRY(cv_floats_new(&run->memory, CV_MEMORY_DATA, rows * *ld, "a matrix", X, err));
  for (int64_t i = 0; i < rows; i++) cv_rng_normal(&rng, (uint64_t)(i * columns), columns, *X + i * *ld);
  return CURVD_OK;
}

static curvd_status case_open(product_run *run, cv_precision precision, const char *unit, cv_error *err) {
  const product_options *o = &run->options;
  product_case *c = &run->cases[run->n_cases++];
  void *store = NULL;
  CV_TRY(multiplier_open(precision, unit, &run->memory, &c->by, err));
  if (o->kind != PRODUCT_PACKED) return CURVD_OK;
  CV_TRY(cv_memory_new(&run->memory, CV_MEMORY_WORKSPACE, cv_packed_room(precision, o->k, o->n), sizeof *c->store,
                       "a packed matrix", &store, err));
  c->store = store;
  c->packed = cv_pack(&c->by, trans_of(o->trans_b), o->k, o->n, run->B, run->ldb, c->store);
  return CURVD_OK;
}

static curvd_status cases_open(product_run *run, const char *unit, cv_error *err) {
  const int32_t wanted = run->options.precision;
  for (int32_t p = CV_BF16; p < MULTIPLIERS; p++)
    if (wanted == 0 || wanted == p) CV_TRY(case_open(run, (cv_precision)p, unit, err));
  return CURVD_OK;
}

static curvd_status units_open(product_run *run, cv_error *err) {
  const char *wanted = run->options.unit;
  if (strcmp(wanted, "all") != 0) return cases_open(run, wanted, err);
  for (int i = 0; cv_units[i]; i++)
    if (cv_units[i]->is_there()) CV_TRY(cases_open(run, cv_units[i]->name, err));
  return CURVD_OK;
}

curvd_status product_open(product_run *run, cv_error *err) {
  product_options *o = &run->options;
  bool is_gram = o->kind == PRODUCT_GRAM;
  if (is_gram) o->m = o->n;
  if (!is_gram) {
    CV_TRY(matrix_new(run, 0, o->trans_a ? o->k : o->m, o->trans_a ? o->m : o->k, &run->lda, &run->A, err));
  }
  CV_TRY(matrix_new(run, 1, o->trans_b ? o->n : o->k, o->trans_b ? o->k : o->n, &run->ldb, &run->B, err));
  CV_TRY(matrix_new(run, 2, o->m, o->n, &run->ldc, &run->C, err));
  CV_TRY(case_open(run, CV_FP32, "", err));
  return units_open(run, err);
}

void product_close(product_run *run) {
  for (int i = 0; i < run->n_cases; i++) {
    void *store = run->cases[i].store;
    multiplier_close(&run->memory, &run->cases[i].by);
    cv_memory_free(&run->memory, &store);
  }
  cv_floats_free(&run->memory, &run->A);
  cv_floats_free(&run->memory, &run->B);
  cv_floats_free(&run->memory, &run->C);
}

/* ---- the error ---- */

static double left(const product_run *run, int64_t i, int64_t t) {
  const product_options *o = &run->options;
  if (o->kind == PRODUCT_GRAM) return run->B[t * run->ldb + i];
  return o->trans_a ? run->A[t * run->lda + i] : run->A[i * run->lda + t];
}

static double right(const product_run *run, int64_t t, int64_t j) {
  return run->options.trans_b ? run->B[j * run->ldb + t] : run->B[t * run->ldb + j];
}

/* Of some columns of C that random numbers choose, against fp64. */
static double error_of(const product_run *run) {
  const product_options *o = &run->options;
  cv_rng rng = {.seed = (uint64_t)o->seed, .stream = CV_RNG_PROBE, .a = 3};
  double off = 0, norm = 0;
  for (uint64_t s = 0; s < COLUMNS; s++) {
    int64_t j = (int64_t)cv_rng_below(&rng, s, (uint64_t)o->n);
    for (int64_t i = o->kind == PRODUCT_GRAM ? j : 0; i < o->m; i++) {
      double sum = 0;
      for (int64_t t = 0; t < o->k; t++) sum += left(run, i, t) * right(run, t, j);
      off += (run->C[i * run->ldc + j] - sum) * (run->C[i * run->ldc + j] - sum);
      norm += sum * sum;
    }
  }
  return sqrt(off / norm);
}

/* Both operands are rounded, and fp32 sums of k terms are off by about sqrt(k) 2^-24; twice that is a wrong product. */
static curvd_status check_error(const product_run *run, const product_case *c, cv_error *err) {
  double sums = sqrt((double)run->options.k) * ldexp(1, -24);
  double expected = sqrt(2) * cv_precision_error(c->by.precision) + sums;
  if (c->error <= 2 * expected) return CURVD_OK;
  return cv_fail(err, CURVD_ERR_NUMERIC, "check error: %s by %s is off by %.3g of its norm; rounding explains %.3g",
                 cv_precision_name(c->by.precision), c->by.unit ? c->by.unit->name : "BLAS", c->error, expected);
}

/* ---- measuring ---- */

static void multiply(product_run *run, const product_case *c) {
  const product_options *o = &run->options;
  if (o->kind == PRODUCT_GRAM)
    cv_multiply_gram(&c->by, o->n, o->k, 1, run->B, run->ldb, 0, run->C, run->ldc);
  else if (o->kind == PRODUCT_PACKED)
    cv_multiply_packed(&c->by, trans_of(o->trans_a), o->m, 1, run->A, run->lda, &c->packed, 0, run->C, run->ldc);
  else
    cv_multiply(&c->by, trans_of(o->trans_a), trans_of(o->trans_b), o->m, o->n, o->k, 1, run->A, run->lda, run->B,
                run->ldb, 0, run->C, run->ldc);
}

static double block_ms(product_run *run, const product_case *c) {
  double begin = cv_cpu_s();
  for (int64_t i = 0; i < run->options.block; i++) multiply(run, c);
  return 1e3 * (cv_cpu_s() - begin) / (double)run->options.block;
}

/* The first product of each is not timed: it is compared. */
curvd_status product_measure(product_run *run, cv_error *err) {
  for (int i = 0; i < run->n_cases; i++) {
    product_case *c = &run->cases[i];
    multiply(run, c);
    c->error = error_of(run);
    CV_TRY(check_error(run, c, err));
  }
  for (int64_t round = 0; round < run->options.rounds; round++)
    for (int i = 0; i < run->n_cases; i++) run->cases[i].ms[round] = block_ms(run, &run->cases[i]);
  return CURVD_OK;
}

double product_flops(const product_options *o) {
  double n = (double)o->n, k = (double)o->k;
  return o->kind == PRODUCT_GRAM ? n * (n + 1) * k : 2 * (double)o->m * n * k;
}
