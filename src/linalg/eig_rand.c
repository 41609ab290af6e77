/* Randomized eigendecompositions. k rows, of which eig_rank are wanted; Q (k, n) orthonormal, or nearly.
 *
 *   find a range   Q = Gaussian, or the previous basis; some times Q = orth(Q M); krylov: Q = orth(Q, Q M, Q M^2, ...)
 *   last product   Y = Q M
 *   finish         a small matrix on the first rank, its eigenpairs V w, and U = C times rows that all ranks have:
 *     rsvd         Y Y^T = V^T w V:                      D = sqrt(w),  U = w^-1/2 V Y
 *     sre          Q Y^T = V^T w V:                      D = w,        U = V Q
 *     nystrom      Q Y^T + nu = L L^T, L^-1 Y Y^T L^-T = V^T w V:      U = w^-1/2 V L^-1 Y
 *                  an eigenvalue x of M gives w = x^2 / (x + nu), so D = (w + sqrt(w^2 + 4 w nu)) / 2
 *
 * Each finish needs the rows once for its Gram matrices and once for U: 2 n^2 k flops a product, O(n k^2) the rest, and
 * over slices one sum a product. Matrices (k, k) are fp64. Bad when the spectrum decays slowly within k modes: raise
 * eig_rank or power_iters. Sources: Halko, Martinsson, Tropp, SIAM Review 2011; Musco and Musco, NIPS 2015 (Krylov);
 * Tropp, Yurtsever, Udell, Cevher, NeurIPS 2017; Frangella, Tropp, Udell, SIMAX 2023 (the shift nu, growth). */
#include "linalg/eig_rand.h"

#include "base/clock.h"
#include "base/order.h"
#include "linalg/certify.h"
#include "linalg/dense.h"
#include "linalg/eig_finish.h"
#include "linalg/orthonormal.h"

#include <string.h>

/* One solve. Scratch of orthonormal.h, certify.h and the sums share one place: each is used between the others. */
typedef struct rand_solve {
  const cv_slices *s;
  const cv_eig_problem *p;
  cv_eig_work work; /* without w */
  int64_t k;        /* rows now */
  float *U;         /* (k_max + probes, mine): k rows, then the probes */
  int64_t ldu;
  float *Y; /* (k_max + probes, mine): their products with M; behind them those of the probes with a rounded M */
  int64_t ldy;
  float *C;  /* (k, k) */
  double *w; /* (k) eigenvalues, descending */
  cv_eig_result *result;
} rand_solve;

static cv_eig_scratch shared_scratch(int64_t k) {
  cv_eig_scratch a = cv_orthonormal_scratch(k), b = cv_certify_scratch(k);
  return (cv_eig_scratch){.floats = cv_larger(cv_larger(a.floats, b.floats), k * k),
                          .doubles = cv_larger(cv_larger(a.doubles, b.doubles), cv_finish_scratch(k)),
                          .ints = cv_syev_iscratch(k)};
}

curvd_status cv_eig_rand_fits(int64_t k_max, int64_t most, cv_error *err) {
  if (k_max <= most) return CURVD_OK;
  return cv_fail(err, CURVD_ERR_SIZE, "a sketch of %lld rows is above the limit of %lld: lower eig_rank",
                 (long long)k_max, (long long)most);
}

cv_eig_scratch cv_eig_rand_scratch(int64_t mine, int64_t k_max) {
  cv_eig_scratch need = shared_scratch(k_max);
  need.floats += (k_max + (int64_t)2 * CV_EIG_PROBES) * cv_dense_ld(mine);
  need.doubles += k_max;
  return need;
}

static rand_solve carve(const cv_slices *s, const cv_eig_work *work, float *U, int64_t ldu, cv_eig_result *result) {
  const cv_eig_problem *p = s->problem;
  return (rand_solve){.s = s,
                      .p = p,
                      .work = {work->floats, work->doubles + p->k_max, work->ints},
                      .U = U,
                      .ldu = ldu,
                      .Y = work->floats + shared_scratch(p->k_max).floats,
                      .ldy = cv_dense_ld(s->mine),
                      .C = work->floats,
                      .w = work->doubles,
                      .result = result};
}

/* ---- the range ---- */

static curvd_status separate(const rand_solve *r, cv_error *err) {
  return cv_separate_rows(r->s, r->k, r->U, r->ldu, &r->work, &r->result->replaced, err);
}

/* Y (rows, mine) = U M for the rows from `from` on */
static curvd_status product(const rand_solve *r, const cv_multiplier *by, int64_t from, int64_t rows, cv_error *err) {
  return r->s->product(r->s, by, rows, r->U + from * r->ldu, r->ldu, r->Y + from * r->ldy, r->ldy, err);
}

static curvd_status counted_product(const rand_solve *r, cv_error *err) {
  r->result->products++;
  return product(r, r->p->by, 0, r->k, err);
}

/* times: U <- orth(U M) */
static curvd_status power(const rand_solve *r, int64_t times, bool is_separated, cv_error *err) {
  for (int64_t t = 0; t < times; t++) {
    CV_TRY(counted_product(r, err));
    cv_copy_rows(r->k, r->s->mine, r->Y, r->ldy, r->U, r->ldu);
    if (is_separated) CV_TRY(separate(r, err));
  }
  return CURVD_OK;
}

/* Rows from .. k - 1: blocks, each the product of the one above with M; the first is Gaussian when nothing is given. */
static curvd_status krylov(rand_solve *r, int64_t from, cv_error *err) {
  int64_t k = r->k, block = cv_larger((k - from + r->p->power_iters) / (r->p->power_iters + 1), 1);
  if (from == 0) {
    from = cv_smaller(block, k);
    cv_slices_draw(r->s, r->p->key, 0, from, r->U, r->ldu);
    if (from == k) return separate(r, err);
  }
  for (; from < k; from = r->k) {
    int64_t rows = cv_smaller(cv_smaller(block, from), k - from);
    CV_TRY(product(r, r->p->by, from - rows, rows, err));
    cv_copy_rows(rows, r->s->mine, r->Y + (from - rows) * r->ldy, r->ldy, r->U + from * r->ldu, r->ldu);
    r->k = from + rows;
    CV_TRY(separate(r, err));
  }
  r->result->products++; /* all blocks together are one product of k rows */
  return CURVD_OK;
}

/* U (k, n) from its first `from` rows on. */
static curvd_status find_range(rand_solve *r, int64_t from, cv_error *err) {
  const cv_eig_problem *p = r->p;
  bool is_separated = p->method != CV_EIG_SRE || p->orthonormalise == CV_ORTHONORMALISE_EACH;
  if (p->method == CV_EIG_KRYLOV && from < r->k) return krylov(r, from, err);
  if (from < r->k) cv_slices_draw(r->s, p->key, from, r->k - from, r->U + from * r->ldu, r->ldu);
  int64_t times = p->method == CV_EIG_RSVD ? 2 * p->power_iters + 1 : p->method == CV_EIG_KRYLOV ? 0 : p->power_iters;
  if (times == 0 && from < r->k) CV_TRY(separate(r, err));
  CV_TRY(power(r, times, is_separated, err));
  if (p->method != CV_EIG_RSVD && p->method != CV_EIG_SRE) return CURVD_OK;
  return cv_orthonormalise_rows(r->s, r->k, r->U, r->ldu, &r->work, &r->result->replaced, err);
}

/* ---- one solve ---- */

/* The symmetric matrix whose lower triangle is in C. */
static void widen_symmetric(int64_t k, const float *C, double *H) {
  for (int64_t i = 0; i < k; i++) {
    for (int64_t j = 0; j <= i; j++) H[i * k + j] = H[j * k + i] = C[i * k + j];
  }
}

static float *rounded_probes(const rand_solve *r) {
  return r->Y + (r->p->k_max + CV_EIG_PROBES) * r->ldy;
}

/* Y = Q M; probes see M itself, and M rounded, for which they must be numbers of bf16: the two tell what rounding M
 * did. That of the basis is a little of its span. */
static curvd_status product_with_probes(const rand_solve *r, cv_error *err) {
  const cv_multiplier *by = r->p->by;
  int64_t k = r->k, all = k + CV_EIG_PROBES, mine = r->s->mine;
  if (cv_is_fp32(by)) return product(r, NULL, 0, all, err);
  cv_round_rows(by, CV_EIG_PROBES, mine, r->U + k * r->ldu, r->ldu);
  CV_TRY(product(r, by, 0, all, err));
  cv_copy_rows(CV_EIG_PROBES, mine, r->Y + k * r->ldy, r->ldy, rounded_probes(r), r->ldy);
  return product(r, NULL, k, CV_EIG_PROBES, err);
}

/* Y = Q M, for the probes as well, and the sums that the finish needs. */
static curvd_status last_product(const rand_solve *r, const cv_finish *f, cv_error *err) {
  int64_t k = r->k, mine = r->s->mine;
  r->result->products++;
  cv_certify_draw(r->s, r->U + k * r->ldu, r->ldu);
  CV_TRY(product_with_probes(r, err));
  memset(f->G, 0, (size_t)(2 * k * k) * sizeof *f->G);
  if (r->p->method != CV_EIG_SRE) cv_gram_rows(k, mine, r->Y, r->ldy, f->G, f->room);
  if (r->p->method != CV_EIG_RSVD) {
    cv_symmetric_product(k, mine, r->Y, r->ldy, r->U, r->ldu, r->C, k);
    widen_symmetric(k, r->C, f->H);
  }
  for (int64_t i = 0; i < k; i++) f->squares[i] = cv_sum_squares(1, mine, r->Y + i * r->ldy, r->ldy);
  *f->trace = r->s->trace;
  return cv_slices_sum(r->s, f->G, cv_finish_sums(k), err);
}

/* U = C Y, or C U. Large numbers cancel in the rows of small eigenvalues, which then are not orthogonal: Cholesky QR,
 * row after row, mends them from those above and leaves the large ones alone. */
static curvd_status rotate(const rand_solve *r, const cv_verdict *v, cv_error *err) {
  int64_t k = r->k, mine = r->s->mine, found = v->found;
  if (r->p->method == CV_EIG_SRE) cv_copy_rows(k, mine, r->U, r->ldu, r->Y, r->ldy);
  cv_gemm(CV_N, CV_N, found, mine, k, 1, r->C, k, r->Y, r->ldy, 0, r->U, r->ldu);
  if (!v->is_mixed) return CURVD_OK;
  return cv_orthonormalise_rows(r->s, found, r->U, r->ldu, &r->work, &r->result->replaced, err);
}

/* A product, and what the first rank makes of it, on all. */
static curvd_status attempt(const rand_solve *r, cv_verdict *v, float *D, cv_error *err) {
  cv_finish f = cv_finish_at(r->p, r->k, r->work.doubles, r->w, r->work.ints);
  *v = (cv_verdict){0};
  CV_TRY(last_product(r, &f, err));
  f.products = r->result->products;
  if (r->s->is_first) cv_finish_solve(&f, v, err);
  CV_TRY(cv_slices_agree(r->s, err));
  CV_TRY(cv_slices_share(r->s, v, sizeof *v, err));
  for (int64_t i = 0; i < v->found; i++) D[i] = (float)r->w[i];
  for (int64_t i = 0; i < v->found * r->k; i++) r->C[i] = (float)f.G[i];
  CV_TRY(cv_slices_share(r->s, D, v->found * (int64_t)sizeof *D, err));
  r->result->drift = v->drift;
  r->result->found = v->found;
  return cv_slices_share(r->s, r->C, v->found * r->k * (int64_t)sizeof *r->C, err);
}

/* The basis of the next attempt: one power of this one, with new rows below if it is to grow. */
static curvd_status go_on(rand_solve *r, const cv_verdict *v, cv_error *err) {
  int64_t from = r->k;
  cv_copy_rows(from, r->s->mine, r->Y, r->ldy, r->U, r->ldu);
  CV_TRY(separate(r, err));
  r->k = v->rows;
  return r->k > from ? find_range(r, from, err) : CURVD_OK;
}

static curvd_status solve(rand_solve *r, float *D, cv_error *err) {
  const cv_eig_problem *p = r->p;
  cv_verdict v;
  r->k = p->eig_rank + p->oversampling;
  CV_TRY(find_range(r, cv_smaller(p->n_start, r->k), err));
  CV_TRY(attempt(r, &v, D, err));
  while (!v.is_done) {
    CV_TRY(go_on(r, &v, err));
    CV_TRY(attempt(r, &v, D, err));
  }
  return rotate(r, &v, err);
}

static curvd_status certify(const rand_solve *r, const float *D, bool is_old, cv_error *err) {
  cv_probed probed = {.W = r->U + r->k * r->ldu, .ldw = r->ldu, .MW = r->Y + r->k * r->ldy, .ldm = r->ldy};
  if (!cv_is_fp32(r->p->by) && !is_old) probed.rounded = rounded_probes(r);
  return cv_certify(r->s, r->U, r->ldu, D, &probed, is_old, &r->work, r->result, err);
}

curvd_status cv_eig_rand_solve(const cv_slices *slices, const cv_eig_work *work, float *U, int64_t ldu, float *D,
                               cv_eig_result *result, cv_error *err) {
  double begin = cv_cpu_s();
  rand_solve r = carve(slices, work, U, ldu, result);
  *result = (cv_eig_result){0};
  CV_TRY(solve(&r, D, err));
  CV_TRY(certify(&r, D, false, err));
  result->seconds = cv_cpu_s() - begin;
  return CURVD_OK;
}

curvd_status cv_eig_rand_check(const cv_slices *slices, const cv_eig_work *work, float *U, int64_t ldu, const float *D,
                               cv_eig_result *result, cv_error *err) {
  double begin = cv_cpu_s();
  rand_solve r = carve(slices, work, U, ldu, result);
  r.k = slices->problem->k_max;
  cv_certify_draw(slices, U + r.k * ldu, ldu);
  CV_TRY(product(&r, NULL, r.k, CV_EIG_PROBES, err));
  CV_TRY(certify(&r, D, true, err));
  result->seconds = cv_cpu_s() - begin;
  return CURVD_OK;
}
