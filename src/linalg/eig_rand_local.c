/* Randomized eigendecompositions on one rank. k = eig_rank + oversampling rows; Q (k, n) has orthonormal rows.
 *
 *   rsvd     Q = orth(Omega M); power_iters times twice Q = orth(Q M); C = Q M = W S V^T; keeps V^T, S     [Puiu 2022,
 * RS-KFAC] sre      Q = Omega; power_iters times Q = orth(Q M); S = Q M Q^T = P D P^T; keeps P^T Q, D [SRE-KFAC]
 *   nystrom  Q as in sre; Y = Q M + nu Q; L L^T = Y Q^T; B = L^-1 Y = W S V^T; keeps V^T, D = S^2 - nu     [Tropp et
 * al. 2017]
 *
 * Omega is Gaussian on a cold start and the previous basis on a warm one. Cost 2 n^2 k flops a product plus O(n k^2).
 * M is symmetric: Q M is one row-major product. Small matrices (k, k) are decomposed in fp64, whatever n is.
 * Bad when the spectrum decays slowly within k modes: raise eig_rank or power_iters. Sources: Halko, Martinsson, Tropp,
 * SIAM Review 2011; Tropp, Yurtsever, Udell, Cevher, NeurIPS 2017; Frangella, Tropp, Udell, SIMAX 2023 (the shift nu).
 */
#include "linalg/dense.h"
#include "linalg/eig.h"
#include "linalg/orthonormal.h"

#include <float.h>
#include <math.h>
#include <string.h>

/* One solve: the problem, its basis and its scratch. Scratch of orthonormal.h comes first and is shared: between its
 * uses, small (its Gram matrix), L and block are free. */
typedef struct rand_solve {
  const cv_eig_problem *p;
  const cv_eig_work *work;
  int64_t k;
  float *U; /* (k, n) */
  int64_t ldu;
  float *Y; /* (k, n): the last product */
  int64_t ldy;
  float *L;      /* (k, k) */
  double *small; /* (k, k) */
  double *w;     /* (k) eigenvalues of small, descending */
  double *block; /* of the kernels of dense.h */
  cv_eig_result *result;
} rand_solve;

/* Of fp32 rows that are orthogonal up to their own rounding. */
static const double ORTHOGONALITY_ENOUGH = 2e-6;

static int64_t larger(int64_t x, int64_t y) {
  return x > y ? x : y;
}

static cv_eig_scratch scratch(int64_t n, int64_t k) {
  int64_t block = larger(cv_gram_rows_scratch(k), cv_syev_scratch(k));
  return (cv_eig_scratch){.floats = cv_orthonormal_scratch(k).floats + k * cv_dense_ld(n),
                          .doubles = k * k + k + block,
                          .ints = cv_syev_iscratch(k)};
}

static rand_solve carve(const cv_eig_problem *p, const cv_eig_work *work, float *U, int64_t ldu,
                        cv_eig_result *result) {
  int64_t k = p->eig_rank + p->oversampling;
  *result = (cv_eig_result){0};
  return (rand_solve){.p = p,
                      .work = work,
                      .k = k,
                      .U = U,
                      .ldu = ldu,
                      .Y = work->floats + cv_orthonormal_scratch(k).floats,
                      .ldy = cv_dense_ld(p->n),
                      .L = work->floats,
                      .small = work->doubles,
                      .block = work->doubles + k * k,
                      .w = work->doubles + scratch(p->n, k).doubles - k,
                      .result = result};
}

/* Y = U M */
static void product(const rand_solve *s) {
  cv_gemm(CV_N, CV_N, s->k, s->p->n, s->p->n, 1, s->U, s->ldu, s->p->M, s->p->ld, 0, s->Y, s->ldy);
  s->result->products++;
}

/* U: the start rows that the caller left and Gaussian ones below, then `products` times U <- unit rows of U M,
 * separated after each product unless the problem asks for the published order. A row's numbers depend on its index
 * alone, not on k. */
static curvd_status find_range(const rand_solve *s, int64_t products, bool separate, cv_error *err) {
  const cv_eig_problem *p = s->p;
  bool *householder = &s->result->used_householder;
  for (int64_t i = p->n_start; i < s->k; i++) {
    cv_rng_normal(&p->key, (uint64_t)(i * ((p->n + 1) / 2 * 2)), p->n, s->U + i * s->ldu);
  }
  if (p->n_start < s->k && products == 0) CV_TRY(cv_separate_rows(s->k, p->n, s->U, s->ldu, s->work, householder, err));
  for (int64_t t = 0; t < products; t++) {
    product(s);
    CV_TRY(cv_unit_rows(s->k, p->n, s->Y, s->ldy, s->U, s->ldu, err));
    if (separate) CV_TRY(cv_separate_rows(s->k, p->n, s->U, s->ldu, s->work, householder, err));
  }
  return CURVD_OK;
}

/* Eigenpairs of small, in place: rows of small descending by eigenvalue, w likewise. */
static curvd_status small_eig(const rand_solve *s, cv_error *err) {
  int64_t k = s->k;
  CV_TRY(cv_syev_f64(k, s->small, k, s->w, s->block, s->work->ints, err));
  for (int64_t i = 0; i < k / 2; i++) {
    int64_t j = k - 1 - i;
    double t = s->w[i];
    s->w[i] = s->w[j], s->w[j] = t;
    for (int64_t c = 0; c < k; c++) {
      t = s->small[i * k + c];
      s->small[i * k + c] = s->small[j * k + c], s->small[j * k + c] = t;
    }
  }
  return CURVD_OK;
}

/* The leading pairs that stand above the noise; NaN does not. w is descending. */
static int64_t count_above(const rand_solve *s, double noise) {
  int64_t found = 0;
  while (found < s->k && s->w[found] > noise) found++;
  return found;
}

/* U = the leading rows of small times Y. When the pairs differ by orders of magnitude, large numbers cancel in the rows
 * of the small ones, which then are not orthogonal: Cholesky QR, row after row, mends them from those above and leaves
 * the large ones alone. */
static curvd_status rotate(const rand_solve *s, int64_t found, cv_error *err) {
  int64_t n = s->p->n, k = s->k;
  cv_eig_result *result = s->result;
  for (int64_t i = 0; i < found * k; i++) s->L[i] = (float)s->small[i];
  cv_gemm(CV_N, CV_N, found, n, k, 1, s->L, k, s->Y, s->ldy, 0, s->U, s->ldu);
  result->found = found;
  result->orthogonality = cv_orthogonality(found, n, s->U, s->ldu, s->block);
  if (result->orthogonality <= ORTHOGONALITY_ENOUGH) return CURVD_OK;
  CV_TRY(cv_orthonormalise_rows(found, n, s->U, s->ldu, s->work, &result->used_householder, err));
  result->orthogonality = cv_orthogonality(found, n, s->U, s->ldu, s->block);
  return CURVD_OK;
}

/* U = right singular vectors of Y (k, n), from Y Y^T = W w W^T: U = w^-1/2 W^T Y. Only pairs with w above the noise. */
static curvd_status right_singular(const rand_solve *s, double noise, cv_error *err) {
  int64_t k = s->k;
  cv_gram_rows(k, s->p->n, s->Y, s->ldy, s->small, s->block);
  CV_TRY(small_eig(s, err));
  int64_t found = count_above(s, noise);
  for (int64_t i = 0; i < found; i++) {
    double inverse = 1 / sqrt(s->w[i]);
    for (int64_t j = 0; j < k; j++) s->small[i * k + j] *= inverse;
  }
  return rotate(s, found, err);
}

/* What rounding of a product with M may add to an eigenvalue, from the norm of the product. */
static curvd_status rounding_of_product(const rand_solve *s, double *nu, cv_error *err) {
  *nu = FLT_EPSILON * sqrt(cv_sum_squares(s->k, s->p->n, s->Y, s->ldy));
  if (isfinite(*nu)) return CURVD_OK;
  return cv_fail(err, CURVD_ERR_NUMERIC,
                 "a product with a factor of %lld x %lld is not finite: the factor or the start is not",
                 (long long)s->p->n, (long long)s->p->n);
}

static curvd_status solve_rsvd(const cv_eig_problem *p, const cv_eig_work *work, float *U, int64_t ldu, float *D,
                               cv_eig_result *result, cv_error *err) {
  rand_solve s = carve(p, work, U, ldu, result);
  double nu;
  CV_TRY(find_range(&s, 2 * p->power_iters + 1, true, err));
  CV_TRY(cv_orthonormalise_rows(s.k, p->n, U, ldu, work, &result->used_householder, err));
  product(&s);
  CV_TRY(rounding_of_product(&s, &nu, err));
  CV_TRY(right_singular(&s, nu * nu, err));
  for (int64_t i = 0; i < result->found; i++) D[i] = (float)sqrt(s.w[i]);
  return CURVD_OK;
}

/* small = the symmetric matrix whose lower triangle is in L */
static void widen_symmetric(const rand_solve *s) {
  for (int64_t i = 0; i < s->k; i++) {
    for (int64_t j = 0; j <= i; j++) s->small[i * s->k + j] = s->small[j * s->k + i] = s->L[i * s->k + j];
  }
}

static curvd_status solve_sre(const cv_eig_problem *p, const cv_eig_work *work, float *U, int64_t ldu, float *D,
                              cv_eig_result *result, cv_error *err) {
  rand_solve s = carve(p, work, U, ldu, result);
  double nu;
  CV_TRY(find_range(&s, p->power_iters, p->orthonormalise == CV_ORTHONORMALISE_EACH, err));
  CV_TRY(cv_orthonormalise_rows(s.k, p->n, U, ldu, work, &result->used_householder, err));
  product(&s);
  CV_TRY(rounding_of_product(&s, &nu, err));
  cv_symmetric_product(s.k, p->n, s.Y, s.ldy, U, ldu, s.L, s.k);
  widen_symmetric(&s);
  CV_TRY(small_eig(&s, err));
  for (int64_t i = 0; i < s.k; i++) memcpy(s.Y + i * s.ldy, U + i * ldu, (size_t)p->n * sizeof *U);
  CV_TRY(rotate(&s, count_above(&s, nu), err));
  for (int64_t i = 0; i < result->found; i++) D[i] = (float)s.w[i];
  return CURVD_OK;
}

/* small <- Cholesky factor of L + nu I. Rounding can make a semidefinite matrix indefinite, so nu grows until it is
 * definite; a matrix that needs more than a thousandfold is not semidefinite. */
static curvd_status shifted_cholesky(const rand_solve *s, double *nu, cv_error *err) {
  enum { TRIES = 4 };
  curvd_status status = CURVD_ERR_NUMERIC;
  for (int t = 0; t < TRIES && status != CURVD_OK; t++) {
    if (t > 0) *nu *= 10;
    widen_symmetric(s);
    for (int64_t i = 0; i < s->k; i++) s->small[i * s->k + i] += *nu;
    status = cv_cholesky_f64(s->k, s->small, s->k, NULL);
  }
  if (status == CURVD_OK) return CURVD_OK;
  return cv_fail(err, status,
                 "Nystrom: a factor of %lld x %lld has an eigenvalue below %.1e: it is not positive semidefinite",
                 (long long)s->p->n, (long long)s->p->n, -*nu);
}

static curvd_status solve_nystrom(const cv_eig_problem *p, const cv_eig_work *work, float *U, int64_t ldu, float *D,
                                  cv_eig_result *result, cv_error *err) {
  rand_solve s = carve(p, work, U, ldu, result);
  double nu;
  CV_TRY(find_range(&s, p->power_iters, true, err));
  product(&s);
  CV_TRY(rounding_of_product(&s, &nu, err));
  if (nu == 0) return CURVD_OK; /* M is zero on the span: no pair */
  cv_symmetric_product(s.k, p->n, s.Y, s.ldy, U, ldu, s.L, s.k);
  CV_TRY(shifted_cholesky(&s, &nu, err));
  for (int64_t i = 0; i < s.k; i++) {
    for (int64_t j = 0; j < p->n; j++) s.Y[i * s.ldy + j] += (float)nu * U[i * ldu + j];
  }
  cv_solve_lower(s.k, p->n, s.small, s.L, s.Y, s.ldy);
  CV_TRY(right_singular(&s, 4 * nu, err));
  for (int64_t i = 0; i < result->found; i++) D[i] = (float)(s.w[i] - nu);
  return CURVD_OK;
}

const cv_eig_ops cv_eig_rsvd = {"rsvd", false, scratch, solve_rsvd};
const cv_eig_ops cv_eig_sre = {"sre", false, scratch, solve_sre};
const cv_eig_ops cv_eig_nystrom = {"nystrom", false, scratch, solve_nystrom};
