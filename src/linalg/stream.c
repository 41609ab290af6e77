#include "linalg/stream.h"

#include "base/order.h"
#include "linalg/certify.h"
#include "linalg/dense.h"
#include "linalg/eig_rand.h"
#include "linalg/orthonormal.h"

#include <math.h>
#include <string.h>

/* Rows of X at a time: fewer read and write S more often (64 rows cost 10 % more), more gain less than 2 %. */
enum { ADD_BLOCK = 256 };

static int64_t rows_of(int64_t k) {
  return k + CV_EIG_PROBES;
}

/* That of a randomized solve: its small matrices, which serve orthonormal.h as well, and k + probes rows of n. */
cv_eig_scratch cv_stream_scratch(int64_t n, int64_t k) {
  return cv_eig_rand_scratch(n, k);
}

curvd_status cv_stream_seed(cv_rng key, int64_t k, int64_t n, float *Omega, int64_t ld, const cv_eig_work *work,
                            cv_error *err) {
  cv_eig_problem problem = {.n = n, .key = key};
  cv_slices s = cv_slices_whole(&problem);
  int64_t replaced = 0;
  cv_slices_draw(&s, key, 0, k, Omega, ld);
  cv_certify_draw(&s, Omega + k * ld, ld);
  return cv_orthonormalise_rows(&s, k, Omega, ld, work, &replaced, err);
}

/* ---- statistics ---- */

int64_t cv_stream_add_scratch(int64_t rows_s) {
  return rows_s * ADD_BLOCK;
}

/* What the constant 1 behind every row adds to T (rows_s, rows), and the last column of S. */
static void add_ones(int64_t rows_s, int64_t n, const float *Omega, int64_t ldo, int64_t rows, float weight, float beta,
                     float *S, int64_t lds, float *T, int64_t ldt) {
  for (int64_t i = 0; i < rows_s; i++) {
    float one = Omega[i * ldo + n - 1], *last = S + i * lds + n - 1, sum = 0;
    for (int64_t j = 0; j < rows; j++) sum += T[i * ldt + j] += one;
    *last = beta == 0 ? weight * sum : beta * *last + weight * sum;
  }
}

/* C (rows_s, n) = alpha A op(B) + beta C, A (rows_s, k), of which the last rows belong to the probes. */
static void multiply(const cv_multiplier *by, cv_trans trans_b, int64_t rows_s, int64_t n, int64_t k, float alpha,
                     const float *A, int64_t lda, const float *B, int64_t ldb, float beta, float *C, int64_t ldc) {
  int64_t rows = cv_is_fp32(by) ? rows_s : rows_s - CV_EIG_PROBES;
  cv_multiply(by, CV_N, trans_b, rows, n, k, alpha, A, lda, B, ldb, beta, C, ldc);
  if (rows < rows_s)
    cv_gemm(CV_N, trans_b, rows_s - rows, n, k, alpha, A + rows * lda, lda, B, ldb, beta, C + rows * ldc, ldc);
}

void cv_stream_add(const cv_multiplier *by, int64_t rows_s, int64_t n, const float *Omega, int64_t ldo,
                   const cv_stream_rows *X, float beta, float *S, int64_t lds, float *T) {
  int64_t cols = n - X->has_one, at = 0;
  float weight = (float)X->weight;
  do { /* once without rows, too: then S <- beta S */
    int64_t rows = cv_smaller(X->rows - at, ADD_BLOCK), ldt = cv_larger(rows, 1);
    const float *block = X->X + at * X->ld;
    multiply(by, CV_T, rows_s, rows, cols, 1, Omega, ldo, block, X->ld, 0, T, ldt);
    if (X->has_one) add_ones(rows_s, n, Omega, ldo, rows, weight, beta, S, lds, T, ldt);
    multiply(by, CV_N, rows_s, cols, rows, weight, T, ldt, block, X->ld, beta, S, lds);
    beta = 1;
    at += rows;
  } while (at < X->rows);
}

double cv_stream_trace(const cv_stream_rows *X, int64_t n) {
  double ones = X->has_one ? (double)X->rows : 0;
  return X->weight * (cv_sum_squares_f32(X->rows, n - X->has_one, X->X, X->ld) + ones);
}

void cv_stream_mix(cv_stream *stream, double keep, double add, const float *S, int64_t lds, double trace_s) {
  cv_mix(rows_of(stream->k), stream->n, (float)add, S, lds, (float)keep, stream->Y, stream->ld);
  stream->trace = keep * stream->trace + add * trace_s;
}

/* ---- solve ---- */

/* The product with M that the stream has ready: Q is its Omega, or the probes alone. */
static curvd_status stored_product(const cv_slices *s, const cv_multiplier *by, int64_t k, const float *Q, int64_t ldq,
                                   float *Y, int64_t ldy, cv_error *err) {
  const cv_stream *stream = s->part;
  (void)by, (void)Q, (void)ldq, (void)err;
  cv_copy_rows(k, stream->n, stream->Y, stream->ld, Y, ldy);
  return CURVD_OK;
}

/* One product, which is there already, from the start Omega. */
static cv_eig_problem problem_of(const cv_stream *stream, const cv_eig_problem *wanted) {
  int64_t eig_rank = cv_smaller(wanted->eig_rank, stream->k);
  return (cv_eig_problem){.n = stream->n,
                          .method = CV_EIG_NYSTROM,
                          .eig_rank = eig_rank,
                          .oversampling = stream->k - eig_rank,
                          .k_max = stream->k,
                          .n_start = stream->k,
                          .tolerance = wanted->tolerance,
                          .kept_min = wanted->kept_min,
                          .kept_max = wanted->kept_max,
                          .tail = wanted->tail,
                          .key = wanted->key};
}

static curvd_status check_finite(const cv_stream *stream, const char *what, double value, cv_error *err) {
  if (isfinite(value) && value >= 0) return CURVD_OK;
  return cv_fail(
      err, CURVD_ERR_NUMERIC,
      "%s of a factor of %lld x %lld is %g: its statistics or its seed are not finite, or weights are negative", what,
      (long long)stream->n, (long long)stream->n, value);
}

curvd_status cv_stream_solve(const cv_stream *stream, const cv_eig_problem *wanted, const cv_eig_work *work, float *U,
                             int64_t ldu, float *D, cv_eig_result *result, cv_error *err) {
  cv_eig_problem problem = problem_of(stream, wanted);
  cv_slices s = cv_slices_whole(&problem);
  s.trace = stream->trace;
  s.probes = stream->Omega + stream->k * stream->ld;
  s.probes_ld = stream->ld;
  s.part = (void *)stream;
  s.product = stored_product;
  CV_TRY(check_finite(stream, "the trace", stream->trace, err));
  cv_copy_rows(stream->k, stream->n, stream->Omega, stream->ld, U, ldu);
  CV_TRY(cv_eig_rand_solve(&s, work, U, ldu, D, result, err));
  result->products = 0;
  return check_finite(stream, "the certificate", result->error_bound, err);
}

/* ---- a new seed ---- */

/* Y (k, n) <- (Omega' U^T) D U for Omega' = next (k, n). Rows of Omega' that are rows of U need no product; the others
 * are orthogonal to them. Z: room for (k, found). */
static void express_pairs(cv_stream *stream, int64_t found, const float *U, int64_t ldu, const float *D, bool is_U,
                          const float *next, int64_t ld, float *Z) {
  int64_t k = stream->k, n = stream->n;
  if (is_U || found == 0) {
    for (int64_t i = 0; i < found; i++) cv_mix(1, n, D[i], U + i * ldu, ldu, 0, stream->Y + i * stream->ld, stream->ld);
    for (int64_t i = found; i < k; i++) memset(stream->Y + i * stream->ld, 0, (size_t)n * sizeof *stream->Y);
    return;
  }
  cv_gemm(CV_N, CV_T, k, found, n, 1, next, ld, U, ldu, 0, Z, found);
  for (int64_t i = 0; i < k * found; i++) Z[i] *= D[i % found];
  cv_gemm(CV_N, CV_N, k, n, found, 1, Z, found, U, ldu, 0, stream->Y, stream->ld);
}

/* Y += tau (Omega' - (Omega' Omega^T) Omega); P: room for (k, k) */
static void express_tail(cv_stream *stream, float tau, const float *next, int64_t ld, float *P) {
  int64_t k = stream->k, n = stream->n;
  cv_mix(k, n, tau, next, ld, 1, stream->Y, stream->ld);
  cv_gemm(CV_N, CV_T, k, k, n, 1, next, ld, stream->Omega, stream->ld, 0, P, k);
  cv_gemm(CV_N, CV_N, k, n, k, -tau, P, k, stream->Omega, stream->ld, 1, stream->Y, stream->ld);
}

/* Mean of what the pairs miss over the directions that Omega leaves; below 0 by rounding alone. */
static double tail_of(const cv_stream *stream, int64_t found, const float *D) {
  double rest = stream->trace;
  for (int64_t i = 0; i < found; i++) rest -= D[i];
  return stream->k < stream->n ? rest / (double)(stream->n - stream->k) : 0;
}

curvd_status cv_stream_complete(int64_t n, int64_t k, int64_t given, float *seed, int64_t ld, cv_rng key,
                                const cv_eig_work *work, cv_error *err) {
  int64_t replaced = 0;
  if (given == k) return CURVD_OK;
  cv_eig_problem problem = {.n = n, .key = key};
  cv_slices s = cv_slices_whole(&problem);
  cv_slices_draw(&s, key, given, k - given, seed + given * ld, ld);
  return cv_orthonormalise_rows(&s, k, seed, ld, work, &replaced, err);
}

curvd_status cv_stream_reseed(cv_stream *stream, int64_t found, const float *U, int64_t ldu, const float *D,
                              int64_t given, const float *seed, int64_t lds, cv_rng key, const cv_eig_work *work,
                              cv_error *err) {
  int64_t k = stream->k;
  bool is_U = seed == U && given == found;
  float *small = work->floats, *room = small + k * k, tau = (float)tail_of(stream, found, D);
  if (given < k) {
    cv_copy_rows(given, stream->n, seed, lds, room, cv_dense_ld(stream->n));
    seed = room, lds = cv_dense_ld(stream->n);
    CV_TRY(cv_stream_complete(stream->n, k, given, room, lds, key, work, err));
  }
  express_pairs(stream, found, U, ldu, D, is_U, seed, lds, small);
  if (tau > 0) express_tail(stream, tau, seed, lds, small);
  cv_copy_rows(k, stream->n, seed, lds, stream->Omega, stream->ld);
  return CURVD_OK;
}

/* ---- a second product ---- */

/* Behind the scratch of a solve, which has room for the sums of cv_stream_add: the history's U and D. */
cv_eig_scratch cv_stream_repair_scratch(int64_t n, int64_t k) {
  cv_eig_scratch need = cv_stream_scratch(n, k);
  need.floats = cv_larger(need.floats, cv_stream_add_scratch(rows_of(k))) + rows_of(k) * cv_dense_ld(n) + k;
  return need;
}

curvd_status cv_stream_repair(cv_stream *history, int64_t n_window, const cv_stream_rows *window,
                              const cv_eig_problem *problem, const cv_eig_work *work, int64_t found, float *U,
                              int64_t ldu, float *D, cv_eig_result *result, cv_error *err) {
  int64_t n = history->n, k = history->k, ld = cv_dense_ld(n);
  float *U_history = work->floats, *D_history = U_history + rows_of(k) * ld;
  cv_eig_work rest = {D_history + k, work->doubles, work->ints};
  cv_eig_result past;
  CV_TRY(cv_stream_solve(history, problem, &rest, U_history, ld, D_history, &past, err));
  CV_TRY(cv_stream_reseed(history, past.found, U_history, ld, D_history, found, U, ldu, problem->key, &rest, err));
  for (int64_t i = 0; i < n_window; i++) {
    cv_stream_add(NULL, rows_of(k), n, history->Omega, history->ld, &window[i], 1, history->Y, history->ld,
                  rest.floats);
    history->trace += cv_stream_trace(&window[i], n);
  }
  return cv_stream_solve(history, problem, &rest, U, ldu, D, result, err);
}
