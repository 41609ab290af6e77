/* For the tests of the seam eig.h: matrices of known spectra, the places where they are decomposed, solutions, and what
 * dense fp64 says of them. On several ranks all build the same matrix; the pieces of U are joined, and one rank judges.
 */
#ifndef TESTS_EIG_FIXTURE_H
#define TESTS_EIG_FIXTURE_H

#include "base/cyclic.h"
#include "linalg/eig.h"
#include "linalg_reference.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { EIG_PAD = 5, EIG_GUARD = 8, EIG_GUARD_BYTE = 0x5a };

/* ---- verdicts ---- */

/* The first thing that does not hold; "" while all does. */
typedef struct verdict {
  char text[400];
} verdict;

__attribute__((format(printf, 3, 4))) static inline void expect(verdict *v, bool holds, const char *format, ...) {
  if (holds || v->text[0]) return;
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(v->text, sizeof v->text, format, arguments);
  va_end(arguments);
}

/* ---- places ---- */

/* How M and U are dealt out. join: x becomes the sum over the ranks of a grid column, on all of them; false when the
 * grid columns do not agree on it. is_same: every rank has these bytes. */
typedef struct place place;
struct place {
  char name[32];
  const struct cv_grid *grid;
  bool is_judge;
  cv_cyclic (*rows)(const place *at, int64_t n); /* of M, and columns of U */
  cv_cyclic (*columns)(const place *at, int64_t n);
  bool (*join)(const place *at, float *x, int64_t count);
  bool (*is_same)(const place *at, const void *x, size_t bytes);
};

static inline cv_cyclic eig_all(const place *at, int64_t n) {
  (void)at;
  return (cv_cyclic){.n = n, .block = n, .parts = 1};
}

static inline bool eig_nothing_to_join(const place *at, float *x, int64_t count) {
  (void)at, (void)x, (void)count;
  return true;
}

static inline bool eig_nobody_differs(const place *at, const void *x, size_t bytes) {
  (void)at, (void)x, (void)bytes;
  return true;
}

static const place eig_here = {"one rank", NULL, true, eig_all, eig_all, eig_nothing_to_join, eig_nobody_differs};

/* ---- matrices ---- */

typedef enum spectrum {
  POLYNOMIAL,  /* (1 + i / 10)^-1.5, as the running averages of trained layers have it */
  EXPONENTIAL, /* e^(-i / 4) */
  STEEP,       /* (1 + i)^-5 */
  SLOW,        /* (1 + i)^-1/2 */
  DEFICIENT,   /* exactly 4 modes */
  RANK_ONE,
  ZERO,
  FLAT,       /* 1, but for rounding */
  IDENTITY,   /* exactly */
  INDEFINITE, /* POLYNOMIAL, its last third -1e-7 */
  TINY,       /* POLYNOMIAL times 1e-12 */
  HUGE_VALUES /* POLYNOMIAL times 1e12 */
} spectrum;
enum { SPECTRA = HUGE_VALUES + 1 };

static inline double eigenvalue(spectrum kind, int64_t i, int64_t n) {
  double polynomial = pow(1 + (double)i / 10, -1.5);
  switch (kind) {
  case POLYNOMIAL:
    return polynomial;
  case EXPONENTIAL:
    return exp(-(double)i / 4);
  case STEEP:
    return pow(1 + (double)i, -5);
  case SLOW:
    return pow(1 + (double)i, -0.5);
  case DEFICIENT:
    return i < 4 ? 1 / (1 + (double)i) : 0;
  case RANK_ONE:
    return i == 0;
  case ZERO:
    return 0;
  case FLAT:
  case IDENTITY:
    return 1;
  case INDEFINITE:
    return 3 * i >= 2 * n && i > 0 ? -1e-7 : polynomial;
  case TINY:
    return 1e-12 * polynomial;
  case HUGE_VALUES:
    return 1e12 * polynomial;
  }
  return NAN;
}

typedef struct matrix {
  int64_t n, ld;
  float *M;     /* (n, ld), padding NaN */
  double *wide; /* (n, n): the same numbers */
  double *V;    /* (n, n): row i is eigenvector i before M was rounded */
  double *w;    /* (n) eigenvalues of wide, descending */
  double norm, trace;
  const place *at;
  float *piece; /* (columns, piece_ld) of this rank, padding NaN */
  int64_t piece_ld;
} matrix;

static inline int64_t eig_at_least_1(int64_t x) {
  return x > 0 ? x : 1;
}

/* piece <- this rank's entries of M. */
static inline void matrix_deal(matrix *a) {
  cv_cyclic rows = a->at->rows(a->at, a->n), columns = a->at->columns(a->at, a->n);
  for (int64_t j = 0; j < cv_cyclic_count(&columns); j++) {
    const float *column = a->M + cv_cyclic_global(&columns, j) * a->ld; /* M is symmetric */
    float *to = a->piece + j * a->piece_ld;
    for (int64_t i = 0; i < a->piece_ld; i++) {
      to[i] = i < cv_cyclic_count(&rows) ? column[cv_cyclic_global(&rows, i)] : NAN;
    }
  }
}

/* Everything that follows from the numbers in M. */
static inline void matrix_measure(matrix *a) {
  a->trace = 0;
  for (int64_t i = 0; i < a->n; i++) {
    for (int64_t j = 0; j < a->n; j++) a->wide[i * a->n + j] = a->M[i * a->ld + j];
    a->trace += a->M[i * a->ld + i];
  }
  ref_eigenvalues(a->n, a->wide, a->w);
  a->norm = ref_norm(a->n * a->n, a->wide);
  matrix_deal(a);
}

static inline matrix matrix_empty(const place *at, int64_t n) {
  cv_cyclic rows = at->rows(at, n), columns = at->columns(at, n);
  matrix a = {.n = n, .ld = n + EIG_PAD, .at = at, .piece_ld = cv_cyclic_count(&rows) + EIG_PAD};
  a.M = ref_floats(n * a.ld);
  a.wide = ref_doubles(n * n), a.V = ref_doubles(n * n), a.w = ref_doubles(n);
  a.piece = ref_floats(eig_at_least_1(cv_cyclic_count(&columns)) * a.piece_ld);
  ref_fill(0, n, n, a.M, a.ld);
  return a;
}

/* M <- V^T diag(values) V, exactly symmetric. */
static inline void matrix_compose(matrix *a, const double *values) {
  int64_t n = a->n;
  ref_compose(n, n, a->V, values, a->wide);
  for (int64_t i = 0; i < n * n; i++) {
    int64_t row = i / n, col = i % n;
    a->M[row * a->ld + col] = (float)(row > col ? a->wide[i] : a->wide[col * n + row]);
  }
}

static inline matrix matrix_of_values(const place *at, int64_t n, const double *values) {
  matrix a = matrix_empty(at, n);
  ref_cosines((uint64_t)n, n, a.V);
  matrix_compose(&a, values);
  matrix_measure(&a);
  return a;
}

static inline matrix matrix_new(const place *at, spectrum kind, int64_t n) {
  double *values = ref_doubles(n);
  for (int64_t i = 0; i < n; i++) values[i] = eigenvalue(kind, i, n);
  matrix a = matrix_of_values(at, n, values);
  free(values);
  if (kind != IDENTITY) return a;
  for (int64_t i = 0; i < n * n; i++) a.M[i / n * a.ld + i % n] = i / n == i % n;
  matrix_measure(&a);
  return a;
}

static inline void matrix_free(matrix *a) {
  free(a->M), free(a->wide), free(a->V), free(a->w), free(a->piece);
}

/* Smallest Frobenius error of any matrix of rank r. */
static inline double optimal_error(const matrix *a, int64_t r) {
  return ref_norm(a->n - r, a->w + r);
}

/* ---- problems and solutions ---- */

typedef struct contender {
  const char *name;
  const cv_eig_ops *ops;
  cv_eig_method method;
} contender;

static inline cv_eig_problem problem_of(const contender *c, const matrix *a, int64_t eig_rank, int64_t oversampling,
                                        int64_t power_iters) {
  return (cv_eig_problem){.n = a->n,
                          .grid = a->at->grid,
                          .M = a->piece,
                          .ld = a->piece_ld,
                          .method = c->method,
                          .eig_rank = eig_rank,
                          .oversampling = oversampling,
                          .k_max = eig_rank + oversampling,
                          .power_iters = power_iters,
                          .key = {.seed = 17, .stream = CV_RNG_SKETCH, .a = 3, .b = 9}};
}

typedef struct solution {
  const contender *by;
  const place *at;
  int64_t n, rows; /* of U, room for the probes included */
  int64_t mine, ldu;
  float *U, *D;
  float *full; /* (rows, n): U, from all ranks */
  cv_eig_work work;
  cv_eig_scratch need;
  cv_eig_result result;
  cv_error err;
  verdict v;
} solution;

/* count + EIG_GUARD numbers; the first ones hold garbage. */
static inline void *eig_guarded(int64_t count, size_t size, const void *garbage) {
  char *block = ref_block(count + EIG_GUARD, size);
  for (int64_t i = 0; i < count; i++) memcpy(block + (size_t)i * size, garbage, size);
  memset(block + (size_t)count * size, EIG_GUARD_BYTE, EIG_GUARD * size);
  return block;
}

static inline bool eig_is_untouched(const void *block, size_t from, size_t bytes) {
  const unsigned char *at = (const unsigned char *)block + from;
  for (size_t i = 0; i < bytes; i++) {
    if (at[i] != EIG_GUARD_BYTE) return false;
  }
  return true;
}

static inline solution solution_new(const contender *by, const cv_eig_problem *p, const place *at, float garbage) {
  cv_cyclic rows = at->rows(at, p->n);
  double wide = garbage;
  int32_t number = garbage == 0 ? 0 : -77;
  solution s = {.by = by, .at = at, .n = p->n, .rows = p->k_max + CV_EIG_PROBES, .mine = cv_cyclic_count(&rows)};
  s.ldu = s.mine + 2;
  s.need = by->ops->scratch(p->n, p->k_max, p->grid);
  s.U = eig_guarded(s.rows * s.ldu, sizeof(float), &garbage);
  s.D = eig_guarded(p->k_max, sizeof(float), &garbage);
  s.full = ref_floats(s.rows * s.n);
  s.work = (cv_eig_work){eig_guarded(s.need.floats, sizeof(float), &garbage),
                         eig_guarded(s.need.doubles, sizeof(double), &wide),
                         eig_guarded(s.need.ints, sizeof(int32_t), &number)};
  for (int64_t i = 0; i < s.rows; i++) memset(s.U + i * s.ldu + s.mine, EIG_GUARD_BYTE, 2 * sizeof(float));
  return s;
}

static inline void solution_free(solution *s) {
  free(s->U), free(s->D), free(s->full);
  free(s->work.floats), free(s->work.doubles), free(s->work.ints);
}

/* full <- the pieces of U */
static inline void solution_join(solution *s) {
  cv_cyclic columns = s->at->rows(s->at, s->n);
  memset(s->full, 0, (size_t)(s->rows * s->n) * sizeof *s->full);
  for (int64_t i = 0; i < s->result.found; i++) {
    for (int64_t j = 0; j < s->mine; j++) s->full[i * s->n + cv_cyclic_global(&columns, j)] = s->U[i * s->ldu + j];
  }
  expect(&s->v, s->at->join(s->at, s->full, s->rows * s->n), "grid columns have different pairs");
}

/* U <- this rank's columns of the first k rows of Q (k, n). */
static inline void solution_start(solution *s, int64_t k, const double *Q) {
  cv_cyclic columns = s->at->rows(s->at, s->n);
  for (int64_t i = 0; i < k; i++) {
    for (int64_t j = 0; j < s->mine; j++) s->U[i * s->ldu + j] = (float)Q[i * s->n + cv_cyclic_global(&columns, j)];
  }
}

static inline void check_borders(const cv_eig_problem *p, solution *s) {
  const cv_eig_work *w = &s->work;
  bool floats = eig_is_untouched(w->floats, (size_t)s->need.floats * sizeof(float), EIG_GUARD * sizeof(float));
  bool doubles = eig_is_untouched(w->doubles, (size_t)s->need.doubles * sizeof(double), EIG_GUARD * sizeof(double));
  bool ints = eig_is_untouched(w->ints, (size_t)s->need.ints * sizeof(int32_t), EIG_GUARD * sizeof(int32_t));
  expect(&s->v, floats && doubles && ints, "wrote behind its scratch: floats %d, doubles %d, ints %d", !floats,
         !doubles, !ints);
  expect(&s->v, eig_is_untouched(s->D, (size_t)p->k_max * sizeof(float), EIG_GUARD * sizeof(float)),
         "wrote behind k_max numbers of D");
  for (int64_t i = 0; i < s->rows; i++) {
    bool is_kept = eig_is_untouched(s->U + i * s->ldu + s->mine, 0, 2 * sizeof(float));
    expect(&s->v, is_kept, "wrote into the padding of row %d of U", (int)i);
  }
}

/* [collective] Everybody gets the same status, sentence and numbers; else REMOTE on all ranks. */
static inline curvd_status check_agreement(curvd_status status, solution *s) {
  cv_error err = {.code = status};
  cv_eig_result result = s->result;
  result.seconds = 0;
  snprintf(err.text, sizeof err.text, "%s", s->err.text);
  bool is_agreed = s->at->is_same(s->at, &err, sizeof err);
  expect(&s->v, is_agreed, "ranks differ: %s: %s", cv_status_name(status), s->err.text);
  if (!is_agreed || status != CURVD_OK) return is_agreed ? status : CURVD_ERR_REMOTE;
  is_agreed =
      s->at->is_same(s->at, &result, sizeof result) && s->at->is_same(s->at, s->D, (size_t)result.found * sizeof *s->D);
  expect(&s->v, is_agreed, "ranks have different results");
  return is_agreed ? CURVD_OK : CURVD_ERR_REMOTE;
}

static inline curvd_status solve(const cv_eig_problem *p, solution *s) {
  s->err = (cv_error){0};
  curvd_status status = s->by->ops->solve(p, &s->work, s->U, s->ldu, s->D, &s->result, &s->err);
  check_borders(p, s);
  status = check_agreement(status, s);
  if (status == CURVD_OK) solution_join(s);
  return status;
}

static inline curvd_status check(const cv_eig_problem *p, solution *s) {
  s->err = (cv_error){0};
  curvd_status status = s->by->ops->check(p, &s->work, s->U, s->ldu, s->D, &s->result, &s->err);
  check_borders(p, s);
  return check_agreement(status, s);
}

/* Where one rank does all; for tests of one process. */
static inline void solve_here(const cv_eig_problem *p, solution *s) {
  curvd_status status = solve(p, s);
  ck_assert_msg(status == CURVD_OK && !s->v.text[0], "%s: %s%s", s->by->name, s->err.text, s->v.text);
}

/* ---- what dense fp64 says ---- */

/* rest (n, n) -= the pairs first .. last - 1, less tau each. */
static inline void subtract_pairs(const solution *s, int64_t first, int64_t last, double tau, double *rest) {
  int64_t n = s->n;
  for (int64_t l = first; l < last; l++) {
    const float *u = s->full + l * n;
    for (int64_t i = 0; i < n; i++) {
      double factor = (s->D[l] - tau) * u[i];
      for (int64_t j = 0; j < n; j++) rest[i * n + j] -= factor * u[j];
    }
  }
}

/* E = M - U^T D U - tau (I - U^T U) of the first r pairs; the caller frees. */
static inline double *error_matrix(const matrix *a, const solution *s, int64_t r, double tau) {
  double *E = ref_doubles(a->n * a->n);
  memcpy(E, a->wide, (size_t)(a->n * a->n) * sizeof *E);
  subtract_pairs(s, 0, r, tau, E);
  for (int64_t i = 0; i < a->n; i++) E[i * a->n + i] -= tau;
  return E;
}

/* ||M - U^T D U|| with the first r pairs. */
static inline double error_of(const matrix *a, const solution *s, int64_t r) {
  double *E = error_matrix(a, s, r, 0), norm = ref_norm(a->n * a->n, E);
  free(E);
  return norm;
}

/* Norms of E as the result has it; deviation: of error_norm^2, a mean of ||E w||^2 over the probes. */
typedef struct error_norms {
  double spectral, frobenius, deviation;
} error_norms;

static inline error_norms norms_of(int64_t n, const double *E) {
  double *w = ref_doubles(n), squares = 0, fourths = 0;
  ref_eigenvalues(n, E, w);
  error_norms norms = {.spectral = fmax(fabs(w[0]), fabs(w[n - 1]))};
  for (int64_t i = 0; i < n; i++) squares += w[i] * w[i], fourths += w[i] * w[i] * w[i] * w[i];
  norms.frobenius = sqrt(squares);
  norms.deviation = sqrt(2 * fourths / CV_EIG_PROBES);
  free(w);
  return norms;
}

static inline error_norms error_norms_of(const matrix *a, const solution *s) {
  double *E = error_matrix(a, s, s->result.kept, s->result.tau);
  error_norms norms = norms_of(a->n, E);
  free(E);
  return norms;
}

/* ||U M - D U|| / ||D U|| of the kept pairs. */
static inline double residual_of(const matrix *a, const solution *s) {
  int64_t n = a->n, kept = s->result.kept;
  double rest = 0, size = 0;
  for (int64_t l = 0; l < kept; l++) {
    const float *u = s->full + l * n;
    for (int64_t i = 0; i < n; i++) {
      double sum = -(double)s->D[l] * u[i];
      for (int64_t j = 0; j < n; j++) sum += a->wide[i * n + j] * u[j];
      rest += sum * sum;
      size += (double)s->D[l] * u[i] * s->D[l] * u[i];
    }
  }
  return size > 0 ? sqrt(rest / size) : 0;
}

#endif
