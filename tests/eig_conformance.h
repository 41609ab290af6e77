/* The body that every backend of the seam eig.h passes. To add a backend, add it to one of the lists. */
#ifndef TESTS_EIG_CONFORMANCE_H
#define TESTS_EIG_CONFORMANCE_H

#include "eig_fixture.h"

static const contender eig_on_one_rank[] = {
    {"exact", &cv_eig_exact, CV_EIG_RSVD},     {"exact-fp64", &cv_eig_exact_f64, CV_EIG_RSVD},
    {"rsvd", &cv_eig_rand, CV_EIG_RSVD},       {"sre", &cv_eig_rand, CV_EIG_SRE},
    {"nystrom", &cv_eig_rand, CV_EIG_NYSTROM}, {"krylov", &cv_eig_rand, CV_EIG_KRYLOV}};
enum { ON_ONE_RANK = sizeof eig_on_one_rank / sizeof eig_on_one_rank[0] };

/* The slabs last: they need a grid of one column. */
static const contender eig_over_grids[] = {{"exact over a grid", &cv_eig_exact_dist, CV_EIG_RSVD},
                                           {"rsvd over a grid", &cv_eig_rand_dist, CV_EIG_RSVD},
                                           {"sre over a grid", &cv_eig_rand_dist, CV_EIG_SRE},
                                           {"nystrom over a grid", &cv_eig_rand_dist, CV_EIG_NYSTROM},
                                           {"krylov over a grid", &cv_eig_rand_dist, CV_EIG_KRYLOV},
                                           {"rsvd over slabs", &cv_eig_rand_slab, CV_EIG_RSVD},
                                           {"sre over slabs", &cv_eig_rand_slab, CV_EIG_SRE},
                                           {"nystrom over slabs", &cv_eig_rand_slab, CV_EIG_NYSTROM},
                                           {"krylov over slabs", &cv_eig_rand_slab, CV_EIG_KRYLOV}};
enum { OVER_GRIDS = sizeof eig_over_grids / sizeof eig_over_grids[0], OVER_WIDE_GRIDS = OVER_GRIDS - 4 };

static inline bool eig_is_nystrom(const contender *c) {
  return !c->ops->is_exact && (c->method == CV_EIG_NYSTROM || c->method == CV_EIG_KRYLOV);
}

/* Bounds that failed, of all that were looked at: one in 2^CV_EIG_PROBES may. */
typedef struct bound_count {
  int seen, failed;
} bound_count;

/* How much more than the smallest possible error is allowed: of a cold start whose basis is multiplied twice before the
 * product that is decomposed (sre, which decomposes Q M Q^T, needs one more for that), and after one product of a start
 * that is 0.1 rad off. */
#define EIG_COLD 1.08
#define EIG_WARM 1.05

/* ---- what is checked; rounding of fp32 products adds about 1e-7 of the norm of M to everything ---- */

/* found, kept, the order of D, and that U is orthonormal */
static inline void check_shape(const cv_eig_problem *p, const matrix *a, solution *s) {
  const cv_eig_result *r = &s->result;
  bool is_exact = s->by->ops->is_exact, is_f32 = is_exact && s->by->ops != &cv_eig_exact_f64;
  int64_t rows = p->eig_rank + p->oversampling, clear = 0;
  while (clear < a->n && a->w[clear] > 1e-5 * a->norm) clear++;
  if (is_exact) expect(&s->v, r->found == p->k_max, "found %d of %d", (int)r->found, (int)p->k_max);
  if (is_exact || p->tolerance > 0) rows = p->k_max;
  int64_t least = p->tolerance > 0 ? 0 : clear < rows ? clear : rows;
  expect(&s->v, r->found >= least && r->found <= rows, "found %d, not %d .. %d", (int)r->found, (int)least, (int)rows);
  if (s->v.text[0]) return;
  if (p->tolerance == 0) {
    int64_t kept = r->found < p->eig_rank ? r->found : p->eig_rank;
    expect(&s->v, r->kept == kept, "kept %d, not %d", (int)r->kept, (int)kept);
  }
  double worst = ref_orthogonality(r->found, a->n, s->full, a->n), allowed = is_f32 ? 4e-6 : 2e-6;
  expect(&s->v, worst <= allowed, "orthogonality %.2e", worst);
  expect(&s->v, r->orthogonality >= 0 && r->orthogonality <= 1e-5, "says orthogonality %.1e", r->orthogonality);
  for (int64_t i = 0; i < r->found; i++) {
    bool is_fine = s->D[i] >= 0 && isfinite(s->D[i]) && (i == 0 || s->D[i] <= s->D[i - 1]);
    expect(&s->v, is_fine, "D[%d] = %g", (int)i, s->D[i]);
    expect(&s->v, s->D[i] <= a->w[i] + 3e-6 * a->w[0], "D[%d] = %.9g exceeds %.9g", (int)i, s->D[i], a->w[i]);
  }
}

/* trace, missing_trace and tau */
static inline void check_tail(const cv_eig_problem *p, const matrix *a, solution *s) {
  const cv_eig_result *r = &s->result;
  double rest = a->trace, tau = 0;
  for (int64_t i = 0; i < r->kept * a->n; i++) rest -= s->D[i / a->n] * (double)s->full[i] * s->full[i];
  rest = fmax(rest, 0);
  if (p->tail == CV_TAIL_MEAN) tau = rest / (double)(r->kept < a->n ? a->n - r->kept : 1);
  if (p->tail == CV_TAIL_MIN && r->kept > 0) tau = s->D[r->kept - 1];
  if (r->kept == a->n) tau = rest = 0;
  double missing = a->trace > 0 ? rest / a->trace : 0, size = fabs(a->trace);
  expect(&s->v, fabs(r->trace - a->trace) <= 1e-12 * size, "trace %.15g, not %.15g", r->trace, a->trace);
  expect(&s->v, fabs(r->missing_trace - missing) <= 4e-6, "missing trace %.9g, not %.9g", r->missing_trace, missing);
  expect(&s->v, fabs(r->tau - tau) <= 4e-6 * size / (double)eig_at_least_1(a->n - r->kept), "tail %d: tau %g, not %g",
         p->tail, r->tau, tau);
}

/* |estimate^2 - truth^2| for a mean of squares over the probes; the lower side is the thinner one. */
static inline void check_error_norm(const error_norms *e, double norm, double estimate, verdict *v) {
  double low = sqrt(fmax(e->frobenius * e->frobenius - 3 * e->deviation, 0)) - 2e-6 * norm;
  double high = sqrt(e->frobenius * e->frobenius + 5 * e->deviation) + 2e-6 * norm;
  expect(v, estimate >= low && estimate <= high, "error norm %.4g, not %.4g (%.4g .. %.4g)", estimate, e->frobenius,
         low, high);
}

/* The certificate against the error that dense fp64 finds. */
static inline void check_certificate(const matrix *a, solution *s, bound_count *bounds) {
  const cv_eig_result *r = &s->result;
  error_norms e = error_norms_of(a, s);
  check_error_norm(&e, a->norm, r->error_norm, &s->v);
  expect(&s->v, r->error_bound >= 0 && isfinite(r->error_bound), "error bound %g", r->error_bound);
  bounds->seen++;
  bounds->failed += r->error_bound < e.spectral - 1e-6 * a->norm;
  double residual = residual_of(a, s); /* ten probes: chi squared of ten times the rank, at least */
  expect(&s->v, r->residual >= 0.3 * residual - 3e-6 && r->residual <= 2.2 * residual + 3e-6, "residual %.3g, not %.3g",
         r->residual, residual);
}

/* No vector x has x^T (U^T D U) x > x^T M x. */
static inline void check_never_exceeds(const matrix *a, solution *s) {
  double *E = error_matrix(a, s, s->result.found, 0), *w = ref_doubles(a->n);
  ref_eigenvalues(a->n, E, w);
  expect(&s->v, w[a->n - 1] >= -1e-5 * fmax(a->w[0], 0), "M - U^T D U has the eigenvalue %.2e, M has %.2e", w[a->n - 1],
         a->w[0]);
  free(E), free(w);
}

static inline void check_pairs(const cv_eig_problem *p, const matrix *a, double allowed, solution *s) {
  const cv_eig_result *r = &s->result;
  double error = error_of(a, s, r->kept), optimal = optimal_error(a, p->eig_rank);
  double rounding = s->by->ops == &cv_eig_exact_f64 ? 1e-6 : 4e-6; /* of fp32 sums over n = 201: 2 eps sqrt(n) */
  expect(&s->v, error <= allowed * optimal + rounding * a->norm, "error %.4e, optimal %.4e, norm %.3e", error, optimal,
         a->norm);
  for (int64_t i = 0; s->by->ops->is_exact && i < r->found; i++) {
    double distance = fabs(s->D[i] - fmax(a->w[i], 0)), near = s->by->ops == &cv_eig_exact_f64 ? 1e-7 : 3e-6;
    expect(&s->v, distance <= near * a->norm, "D[%d] = %.9g, not %.9g", (int)i, s->D[i], a->w[i]);
  }
}

static inline void check_solution(const cv_eig_problem *p, const matrix *a, double allowed, solution *s,
                                  bound_count *bounds) {
  if (!s->at->is_judge) return;
  check_shape(p, a, s);
  if (s->v.text[0]) return; /* nothing else makes sense */
  check_tail(p, a, s);
  check_pairs(p, a, allowed, s);
  check_certificate(a, s, bounds);
  if (eig_is_nystrom(s->by)) check_never_exceeds(a, s);
  expect(&s->v, eig_is_nystrom(s->by) || s->result.drift == 0, "drift %g", s->result.drift);
}

/* ---- one solve, cold and warm ---- */

/* All blocks of a Krylov space together are one product; a start of all rows, or a single block, needs none. */
static inline int64_t products_of(const contender *c, const cv_eig_problem *p) {
  int64_t k = p->eig_rank + p->oversampling, start = p->n_start < k ? p->n_start : k;
  if (c->ops->is_exact) return 0;
  if (c->method == CV_EIG_RSVD) return 2 * p->power_iters + 2;
  if (c->method != CV_EIG_KRYLOV) return p->power_iters + 1;
  return start == k || (start == 0 && (k == 1 || p->power_iters == 0)) ? 1 : 2;
}

/* Rows of a basis (k, n) 0.1 rad off the leading eigenvectors, each towards one that is not among them. */
static inline double *eig_start_near(const matrix *a, int64_t k) {
  int64_t n = a->n;
  double *Q = ref_doubles(k * n);
  for (int64_t i = 0; i < k; i++) {
    bool has_partner = i + k < n;
    for (int64_t j = 0; j < n; j++) {
      double x = a->V[i * n + j];
      Q[i * n + j] = has_partner ? cos(0.1) * x + sin(0.1) * a->V[(i + k) * n + j] : x;
    }
  }
  return Q;
}

/* Solves and checks; the caller asserts that the verdict is empty, on all ranks together. */
static inline verdict conform(const contender *c, const cv_eig_problem *p, const matrix *a, double allowed,
                              bound_count *bounds) {
  solution s = solution_new(c, p, a->at, 1e30f);
  if (p->n_start > 0) {
    double *start = eig_start_near(a, p->n_start);
    solution_start(&s, p->n_start, start);
    free(start);
  }
  curvd_status status = solve(p, &s);
  expect(&s.v, status == CURVD_OK, "%s", s.err.text);
  if (status == CURVD_OK) {
    check_solution(p, a, allowed, &s, bounds);
    expect(&s.v, s.result.products == products_of(c, p), "%d products", (int)s.result.products);
  }
  verdict v = s.v;
  solution_free(&s);
  return v;
}

/* A sixth of the eigenpairs, or half of few; the room and the tail change from case to case. A Krylov space of depth 2
 * has three blocks: with each as large as the basis of the other methods it contains theirs. */
static inline cv_eig_problem eig_case(const contender *c, const matrix *a, int number) {
  int64_t n = a->n, r = n < 10 ? (n + 1) / 2 : n / 6, k = r + 10;
  if (!c->ops->is_exact && c->method == CV_EIG_KRYLOV) k *= 3;
  if (k > n) k = n;
  cv_eig_problem problem = problem_of(c, a, r, k - r, !c->ops->is_exact && c->method == CV_EIG_SRE ? 3 : 2);
  if (number % 2 == 1) problem.k_max = n;
  problem.tail = (cv_tail)(number % 3);
  problem.key.seed = (uint64_t)number;
  return problem;
}

/* Both starts of one contender on one matrix; an exact one has no start. Goes on after a failure: only one rank judges.
 */
static inline verdict conform_both(const contender *c, const matrix *a, int number, bound_count *bounds) {
  cv_eig_problem cold = eig_case(c, a, number), warm = cold;
  verdict first = conform(c, &cold, a, c->ops->is_exact ? 1 : EIG_COLD, bounds), second;
  if (c->ops->is_exact) return first;
  warm.n_start = warm.eig_rank + warm.oversampling;
  warm.power_iters = c->method == CV_EIG_SRE ? 1 : 0;
  second = conform(c, &warm, a, EIG_WARM, bounds);
  return first.text[0] ? first : second;
}

/* All eigenpairs asked for: nothing is lost. */
static inline verdict conform_full(const contender *c, const matrix *a, bound_count *bounds) {
  cv_eig_problem problem = problem_of(c, a, a->n, 0, 1);
  return conform(c, &problem, a, 1, bounds);
}

#endif
