#include "curvd.h"
#include "eig_run.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- checks ---- */

/* An error below this share of M's norm is rounding, and no ratio of two such errors says anything. */
static const double ROUNDING = 1e-5;
static const double ORTHOGONALITY_MAX = 1e-5, RATIO_MIN = 0.999;

/* No solver is that bad where it is right: a first warm start in a steep spectrum is 2e-3 of the norm off. */
static double error_max(const eig_run *run, bool is_exact, double optimum) {
  return is_exact ? 1.001 * optimum + ROUNDING * run->truth.norm : 5 * optimum + 1e-2 * run->truth.norm;
}

static bool is_ratio(const eig_run *run, const eig_score *s) {
  return s->optimum > ROUNDING * run->truth.norm;
}

static curvd_status complain(const eig_run *run, const eig_lane *l, int64_t round, const char *what, double value,
                             cv_error *err) {
  return cv_fail(err, CURVD_ERR_NUMERIC, "check %s: %s of %s, n %lld, rank %lld, %s, in round %lld: %.4g", what,
                 eig_solver_names[l->solver], run->matrix, (long long)run->n, (long long)l->problem.eig_rank,
                 eig_start_names[l->is_warm], (long long)round + 1, value);
}

curvd_status eig_lane_check(const eig_run *run, const eig_lane *l, int64_t round, cv_error *err) {
  const eig_score *s = &l->scores[round];
  bool is_exact = l->solver == EIG_EXACT || l->solver == EIG_EXACT_DIST;
  if (!(s->orthogonality <= ORTHOGONALITY_MAX)) return complain(run, l, round, "orthogonality", s->orthogonality, err);
  if (is_ratio(run, s) && s->error < RATIO_MIN * s->optimum)
    return complain(run, l, round, "error over optimum", s->error / s->optimum, err);
  if (!(s->error <= error_max(run, is_exact, s->optimum)))
    return complain(run, l, round, "error over optimum", s->error / s->optimum, err);
  for (int64_t i = 0; i < l->result.kept; i++)
    if (!(l->D[i] >= 0 && (i == 0 || l->D[i] <= l->D[i - 1])))
      return complain(run, l, round, "order of eigenvalues", l->D[i], err);
  return CURVD_OK;
}

/* ---- statistics ---- */

static int by_size(const void *x, const void *y) {
  double a = *(const double *)x, b = *(const double *)y;
  return (a > b) - (a < b);
}

/* q: 0 least, 0.5 median, 1 largest */
static double quantile(const double *x, int n, double q) {
  double sorted[EIG_ROUNDS_MAX * EIG_REPEATS_MAX], at = q * (n - 1);
  int below = (int)at;
  memcpy(sorted, x, (size_t)n * sizeof *x);
  qsort(sorted, (size_t)n, sizeof *sorted, by_size);
  return below + 1 < n ? sorted[below] + (at - below) * (sorted[below + 1] - sorted[below]) : sorted[below];
}

static double round_median(const eig_times *t, int round) {
  return quantile(t->cpu_ms + round * t->per_round, t->per_round, 0.5);
}

/* Of x over y: the median over rounds, in which they took turns. */
static json_t *json_ratio(const eig_times *x, const eig_times *y) {
  double ratio[EIG_ROUNDS_MAX];
  int rounds = x->count / x->per_round;
  for (int i = 0; i < rounds; i++) ratio[i] = round_median(x, i) / round_median(y, i);
  return json_pack("{s:f, s:f, s:f, s:f}", "median", quantile(ratio, rounds, 0.5), "min", quantile(ratio, rounds, 0),
                   "max", quantile(ratio, rounds, 1), "of_minima",
                   quantile(x->cpu_ms, x->count, 0) / quantile(y->cpu_ms, y->count, 0));
}

static json_t *json_times(const double *ms, int n) {
  return json_pack("{s:f, s:f}", "median", quantile(ms, n, 0.5), "min", quantile(ms, n, 0));
}

/* Solves that another program interrupted: their wall clock ran on. */
static double disturbed(const eig_times *t) {
  int count = 0;
  for (int i = 0; i < t->count; i++) count += t->wall_ms[i] > 1.1 * t->cpu_ms[i] + 0.5;
  return (double)count / t->count;
}

static double spread(const eig_times *t) {
  return (quantile(t->cpu_ms, t->count, 0.75) - quantile(t->cpu_ms, t->count, 0.25)) /
         quantile(t->cpu_ms, t->count, 0.5);
}

/* ---- lines ---- */

/* Flops of the matrix products of a refresh, thin ones included: with M (and the probes), two Gram matrices of which
 * half is needed, U = C Y, and between two products a Gram matrix and a triangular product. */
static double product_flops(const eig_lane *l) {
  double n = (double)l->problem.n, k = (double)l->problem.k_max, products = (double)l->result.products;
  return 2 * n * n * (k * products + CV_EIG_PROBES) + n * k * k * (4 + 2 * (products - 1));
}

static double all_products_ms(const eig_run *run, const eig_lane *l) {
  const eig_times *t = run->products[l->at];
  double n = (double)run->n, k = (double)l->problem.k_max;
  return quantile(t->cpu_ms, t->count, 0.5) * product_flops(l) / (2 * n * n * k);
}

static const eig_lane *lane_like(const eig_run *run, const eig_lane *l, eig_solver solver, int nprow, int npcol) {
  for (int i = 0; i < run->n_lanes; i++) {
    const eig_lane *x = run->lane[i];
    bool is_exact = solver == EIG_EXACT || solver == EIG_EXACT_DIST;
    bool is_same = is_exact || (x->at == l->at && x->is_warm == l->is_warm && x->precision == l->precision);
    if (x != l && x->solver == solver && is_same && x->place->nprow == nprow && x->place->npcol == npcol) return x;
  }
  return NULL;
}

static void set(json_t *line, const char *key, json_t *value) {
  json_object_set_new(line, key, value);
}

static void ratio_to(json_t *line, const char *key, const eig_lane *x, const eig_lane *y) {
  if (x && y) set(line, key, json_ratio(&x->times, &y->times));
}

static void add_ratios(const eig_run *run, const eig_lane *l, json_t *line) {
  const eig_place *p = l->place;
  bool is_exact = l->solver == EIG_EXACT || l->solver == EIG_EXACT_DIST;
  if (run->ssyevd.count > 0) {
    set(line, "ssyevd_ms", json_times(run->ssyevd.cpu_ms, run->ssyevd.count));
    set(line, "ssyevd_over", json_ratio(&run->ssyevd, &l->times));
  }
  if (p->nprow * p->npcol > 1) ratio_to(line, "one_rank_over", lane_like(run, l, l->solver, 1, 1), l);
  if (p->nprow * p->npcol == 1)
    ratio_to(line, "over_local", l, lane_like(run, l, is_exact ? EIG_EXACT : EIG_RAND, 0, 0));
  if (is_exact) return;
  ratio_to(line, "exact_over", lane_like(run, l, p->nprow ? EIG_EXACT_DIST : EIG_EXACT, p->nprow, p->npcol), l);
  set(line, "over_product", json_ratio(&l->times, run->products[l->at]));
  set(line, "product_ms", json_times(run->products[l->at]->cpu_ms, run->products[l->at]->count));
  if (p->nprow * p->npcol <= 1 && run->options->method == CV_EIG_NYSTROM)
    set(line, "over_all_products", json_real(quantile(l->times.cpu_ms, l->times.count, 0.5) / all_products_ms(run, l)));
}

enum { ERROR, RATIO, OVER_NORM, ORTHOGONALITY, INVERSE, INVERSE_TAIL, RESIDUAL, BOUND, NORM, MISSING, DRIFT, SCORES };
static const char *const score_names[SCORES] = {"error",
                                                "error_over_optimum",
                                                "error_over_norm",
                                                "orthogonality",
                                                "inverse_over_truncation",
                                                "inverse_tail_over_none",
                                                "residual",
                                                "error_bound",
                                                "error_norm_estimate",
                                                "missing_trace",
                                                "drift"};

/* NaN: this matrix has no such score. */
static double score_of(const eig_run *run, const eig_lane *l, int round, int which) {
  const eig_score *s = &l->scores[round];
  const cv_eig_result *r = &l->results[round];
  const double all[SCORES] = {s->error,
                              is_ratio(run, s) ? s->error / s->optimum : NAN,
                              s->error / run->truth.norm,
                              s->orthogonality,
                              s->inverse / s->inverse_truncated,
                              s->inverse / s->inverse_no_tail,
                              r->residual,
                              r->error_bound,
                              r->error_norm,
                              r->missing_trace,
                              r->drift};
  return all[which];
}

static void add_scores(const eig_run *run, const eig_lane *l, json_t *line) {
  int rounds = (int)run->options->rounds;
  for (int which = 0; which < SCORES; which++) {
    double x[EIG_ROUNDS_MAX];
    bool is_known = true;
    for (int i = 0; i < rounds; i++) {
      x[i] = score_of(run, l, i, which);
      is_known = is_known && isfinite(x[i]);
    }
    set(line, score_names[which],
        is_known ? json_pack("{s:f, s:f}", "median", quantile(x, rounds, 0.5), "max", quantile(x, rounds, 1))
                 : json_null());
  }
}

/* Of the case itself, but in fp32. */
static const eig_lane *lane_in_fp32(const eig_run *run, const eig_lane *l) {
  for (int i = 0; i < run->n_lanes; i++) {
    const eig_lane *x = run->lane[i];
    if (x->precision == CV_FP32 && x->solver == l->solver && x->place == l->place && x->at == l->at &&
        x->is_warm == l->is_warm)
      return x;
  }
  return NULL;
}

/* Beside the case in fp32: how many times faster, and its error over that one's, round by round. */
static void add_fp32(const eig_run *run, const eig_lane *l, json_t *line) {
  const eig_lane *fp32 = lane_in_fp32(run, l);
  int rounds = (int)run->options->rounds;
  double ratio[EIG_ROUNDS_MAX];
  if (fp32 == NULL || fp32 == l) return;
  for (int i = 0; i < rounds; i++) ratio[i] = l->scores[i].error / fp32->scores[i].error;
  ratio_to(line, "fp32_over", fp32, l);
  set(line, "error_over_fp32",
      json_pack("{s:f, s:f, s:f}", "median", quantile(ratio, rounds, 0.5), "min", quantile(ratio, rounds, 0), "max",
                quantile(ratio, rounds, 1)));
}

static json_t *head_of(const eig_run *run, const eig_lane *l) {
  const eig_options *o = run->options;
  const eig_place *p = l->place;
  bool is_exact = l->solver == EIG_EXACT || l->solver == EIG_EXACT_DIST;
  char grid[32] = "none";
  if (p->nprow > 0) snprintf(grid, sizeof grid, "%dx%d", p->nprow, p->npcol);
  json_t *line =
      json_pack("{s:s, s:s, s:s, s:I, s:I, s:I, s:s, s:s, s:I, s:I}", "bench", "eig", "build", curvd_build_info(),
                "matrix", run->matrix, "n", (json_int_t)run->n, "eig_rank", (json_int_t)l->problem.eig_rank,
                "oversampling", (json_int_t)o->oversampling, "solver", eig_solver_names[l->solver], "grid", grid,
                "rounds", (json_int_t)o->rounds, "repeats", (json_int_t)l->times.per_round);
  if (is_exact) return line;
  set(line, "method", json_string(eig_method_names[o->method]));
  set(line, "start", json_string(eig_start_names[l->is_warm]));
  set(line, "power_iters", json_integer(l->problem.power_iters));
  set(line, "products", json_integer(l->result.products));
  set(line, "precision", json_string(multiplier_precisions[l->precision]));
  set(line, "unit", json_string(multiplier_unit(&run->by[l->precision])));
  return line;
}

static void print_lane(const eig_run *run, const eig_lane *l) {
  const eig_times *t = &l->times;
  json_t *line = head_of(run, l);
  set(line, "found", json_integer(l->result.found));
  set(line, "kept", json_integer(l->result.kept));
  set(line, "replaced", json_integer(l->result.replaced));
  set(line, "cpu_ms", json_times(t->cpu_ms, t->count));
  set(line, "wall_ms", json_times(t->wall_ms, t->count));
  set(line, "disturbed", json_real(disturbed(t)));
  set(line, "spread", json_real(spread(t)));
  set(line, "is_noisy", json_boolean(disturbed(t) > 0.25 || spread(t) > 0.25));
  add_ratios(run, l, line);
  add_scores(run, l, line);
  add_fp32(run, l, line);
  json_dumpf(line, stdout, JSON_REAL_PRECISION(6));
  putchar('\n');
  json_decref(line);
}

void eig_print(const eig_run *run) {
  for (int i = 0; i < run->n_lanes; i++) print_lane(run, run->lane[i]);
  fflush(stdout);
}
