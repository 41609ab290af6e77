/* For the tests of the streaming sketch: a stream with all it needs, and what dense fp64 says of its solves. */
#ifndef TESTS_STREAM_FIXTURE_H
#define TESTS_STREAM_FIXTURE_H

#include "linalg/dense.h"
#include "linalg/stream.h"
#include "linalg_reference.h"

#include <string.h>

enum { PROBES = CV_EIG_PROBES, PAD = 3 };

/* ---- a stream and what belongs to it ---- */

typedef struct sketch {
  cv_stream s;
  cv_eig_problem problem;
  cv_eig_work work;
  float *U, *D, *T;
  int64_t ldu;
  const cv_multiplier *by; /* of the statistics; NULL: fp32 */
  cv_eig_result result;
  cv_error err;
} sketch;

static inline cv_rng key_of(uint32_t refresh) {
  return (cv_rng){.seed = 7, .stream = CV_RNG_SKETCH, .b = refresh};
}

static inline void require(sketch *a, curvd_status status) {
  ck_assert_msg(status == CURVD_OK, "%s", a->err.text);
}

/* Rows have NaN behind them, and so has the scratch: whoever reads what it did not write shows it. */
static inline float *holes(int64_t count) {
  float *x = ref_floats(count);
  for (int64_t i = 0; i < count; i++) x[i] = NAN;
  return x;
}

static inline cv_eig_work work_of(cv_eig_scratch need) {
  cv_eig_work work = {holes(need.floats), ref_doubles(need.doubles), ref_block(need.ints, sizeof *work.ints)};
  for (int64_t i = 0; i < need.doubles; i++) work.doubles[i] = NAN;
  return work;
}

static inline sketch sketch_new(int64_t n, int64_t k, int64_t eig_rank) {
  int64_t ld = n + PAD, rows = k + PROBES;
  sketch a = {.s = {.n = n, .k = k, .ld = ld, .Omega = holes(rows * ld), .Y = holes(rows * ld)},
              .problem = {.eig_rank = eig_rank, .key = key_of(9)}, /* probes of this key are others */
              .work = work_of(cv_stream_repair_scratch(n, k)),
              .U = holes(rows * (ld + 1)),
              .D = holes(k),
              .T = holes(cv_stream_add_scratch(rows)),
              .ldu = ld + 1};
  for (int64_t i = 0; i < rows * n; i++) a.s.Y[i / n * ld + i % n] = 0;
  require(&a, cv_stream_seed(key_of(0), k, n, a.s.Omega, ld, &a.work, &a.err));
  return a;
}

static inline void sketch_free(sketch *a) {
  ref_check_padding(a->s.k + PROBES, a->s.n, a->s.Omega, a->s.ld);
  ref_check_padding(a->s.k + PROBES, a->s.n, a->s.Y, a->s.ld);
  free(a->s.Omega), free(a->s.Y), free(a->U), free(a->D), free(a->T);
  free(a->work.floats), free(a->work.doubles), free(a->work.ints);
}

static inline void add(sketch *a, double keep, const cv_stream_rows *X) {
  cv_stream_add(a->by, a->s.k + PROBES, a->s.n, a->s.Omega, a->s.ld, X, (float)keep, a->s.Y, a->s.ld, a->T);
  a->s.trace = keep * a->s.trace + cv_stream_trace(X, a->s.n);
}

static inline void solve(sketch *a) {
  require(a, cv_stream_solve(&a->s, &a->problem, &a->work, a->U, a->ldu, a->D, &a->result, &a->err));
}

/* The eigenvectors of the last solve become the seed. */
static inline void reseed(sketch *a) {
  int64_t found = a->result.found;
  require(a, cv_stream_reseed(&a->s, found, a->U, a->ldu, a->D, found, a->U, a->ldu, key_of(1), &a->work, &a->err));
}

static inline void refresh(sketch *a) {
  solve(a);
  reseed(a);
}

/* ---- dense fp64 ---- */

static inline double *wide(int64_t rows, int64_t n, const float *X, int64_t ld) {
  double *out = ref_doubles(rows * n);
  for (int64_t i = 0; i < rows * n; i++) out[i] = X[i / n * ld + i % n];
  return out;
}

/* M (n, n) -= U^T D U + tau (I - B^T B) over pairs of a's solve, for the basis B (rows, n); a NULL basis is those U. */
static inline void subtract_estimate(const sketch *a, int64_t pairs, double tau, const double *basis, int64_t rows,
                                     double *M) {
  int64_t n = a->s.n;
  double *U = wide(pairs, n, a->U, a->ldu);
  for (int64_t i = 0; i < n; i++) M[i * n + i] -= tau;
  for (int64_t l = 0; l < pairs; l++) {
    double d = a->D[l] - (basis == NULL ? tau : 0);
    for (int64_t i = 0; i < n * n; i++) M[i] -= d * U[l * n + i / n] * U[l * n + i % n];
  }
  for (int64_t l = 0; basis != NULL && l < rows; l++) {
    for (int64_t i = 0; i < n * n; i++) M[i] += tau * basis[l * n + i / n] * basis[l * n + i % n];
  }
  free(U);
}

/* Largest and smallest eigenvalue. */
static inline void range_of(int64_t n, const double *M, double *most, double *least) {
  double *w = ref_doubles(n);
  ref_eigenvalues(n, M, w);
  *most = w[0], *least = w[n - 1];
  free(w);
}

#endif
