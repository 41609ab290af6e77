#include "linalg/eig_finish.h"

#include "base/order.h"
#include "linalg/dense.h"
#include "linalg/small_eig.h"

#include <float.h>
#include <math.h>
#include <string.h>

/* How much longer terms of U = C Y than their sum may be: rows are then orthogonal to fp32 rounding times that. */
static const double MIXED_MAX = 8;

/* Share of the largest singular value below which its square in fp64 says too little of one. */
static const double SQUARED_MIN = 1e-5;

int64_t cv_finish_sums(int64_t k) {
  return 2 * k * k + k + 1;
}

int64_t cv_finish_scratch(int64_t k) {
  return cv_finish_sums(k) + cv_larger(cv_gram_rows_scratch(k), cv_small_eig_scratch(k));
}

cv_finish cv_finish_at(const cv_eig_problem *problem, int64_t k, double *sums, double *w, int32_t *ints) {
  double *H = sums + k * k, *squares = H + k * k, *trace = squares + k;
  return (cv_finish){.problem = problem,
                     .k = k,
                     .G = sums,
                     .H = H,
                     .squares = squares,
                     .trace = trace,
                     .room = trace + 1,
                     .w = w,
                     .ints = ints};
}

/* Rows of G become eigenvectors of it, descending by eigenvalue, w likewise. */
static curvd_status descending_eig(const cv_finish *f, cv_error *err) {
  int64_t k = f->k;
  double *V = f->G;
  CV_TRY(cv_small_eig(k, V, k, f->w, f->room, f->ints, err));
  for (int64_t i = 0; i < k / 2; i++) {
    int64_t j = k - 1 - i;
    double t = f->w[i];
    f->w[i] = f->w[j], f->w[j] = t;
    for (int64_t c = 0; c < k; c++) {
      t = V[i * k + c];
      V[i * k + c] = V[j * k + c], V[j * k + c] = t;
    }
  }
  return CURVD_OK;
}

/* The leading pairs that stand above the noise; NaN does not. w is descending. */
static int64_t count_above(const cv_finish *f, double noise) {
  int64_t found = 0;
  while (found < f->k && f->w[found] > noise) found++;
  return found;
}

/* Rows of V over the roots of their w: for U = w^-1/2 V Y. */
static void divide_by_roots(const cv_finish *f, int64_t found, double *V) {
  for (int64_t i = 0; i < found; i++) {
    double inverse = 1 / sqrt(f->w[i]);
    for (int64_t j = 0; j < f->k; j++) V[i * f->k + j] *= inverse;
  }
}

static curvd_status finish_rsvd(const cv_finish *f, double nu, cv_verdict *v, cv_error *err) {
  CV_TRY(descending_eig(f, err));
  v->found = count_above(f, nu * nu);
  divide_by_roots(f, v->found, f->G);
  for (int64_t i = 0; i < v->found; i++) f->w[i] = sqrt(f->w[i]);
  return CURVD_OK;
}

static curvd_status finish_sre(const cv_finish *f, double nu, cv_verdict *v, cv_error *err) {
  memcpy(f->G, f->H, (size_t)(f->k * f->k) * sizeof *f->G);
  CV_TRY(descending_eig(f, err));
  v->found = count_above(f, nu);
  return CURVD_OK;
}

/* H <- Cholesky factor of H + shift I, from its upper triangle and the diagonal in room. */
static curvd_status shifted_cholesky(const cv_finish *f, double shift) {
  int64_t k = f->k;
  for (int64_t i = 0; i < k; i++) {
    for (int64_t j = 0; j < i; j++) f->H[i * k + j] = f->H[j * k + i];
    f->H[i * k + i] = f->room[i] + shift;
  }
  CV_TRY(cv_cholesky_f64(k, f->H, k, NULL));
  return cv_cholesky_matches(k, f->H, f->room, 1, shift) ? CURVD_OK : CURVD_ERR_NUMERIC;
}

/* Rounding can make a semidefinite matrix indefinite, so *nu grows until H + nu I is definite; a matrix that needs more
 * than a thousandfold is not semidefinite. The shift, *nu on return, is twice that: an eigenvalue x close to -shift
 * would make x^2 / (x + shift) anything. */
static curvd_status choose_shift(const cv_finish *f, double *nu, cv_error *err) {
  enum { TRIES = 4 };
  curvd_status status = CURVD_ERR_NUMERIC;
  for (int64_t i = 0; i < f->k; i++) f->room[i] = f->H[i * f->k + i];
  for (int t = 0; t < TRIES && status != CURVD_OK; t++) {
    if (t > 0) *nu *= 10;
    status = shifted_cholesky(f, *nu);
  }
  *nu *= 2;
  if (status == CURVD_OK) status = shifted_cholesky(f, *nu);
  if (status == CURVD_OK) return CURVD_OK;
  return cv_fail(err, status,
                 "Nystrom: a factor of %lld x %lld has an eigenvalue below %.1e: it is not positive semidefinite",
                 (long long)f->problem->n, (long long)f->problem->n, -*nu / 2);
}

/* squares: a sum over numbers that come from products with M */
static curvd_status check_finite(const cv_finish *f, double squares, cv_error *err) {
  if (isfinite(squares)) return CURVD_OK;
  return cv_fail(err, CURVD_ERR_NUMERIC,
                 "a product with a factor of %lld x %lld is not finite: the factor or the start is not",
                 (long long)f->problem->n, (long long)f->problem->n);
}

static curvd_status finish_nystrom(const cv_finish *f, double nu, cv_verdict *v, cv_error *err) {
  int64_t k = f->k;
  double inside = 0, all = 0;
  for (int64_t i = 0; i < k * k; i++) inside += f->H[i] * f->H[i];
  for (int64_t i = 0; i < k; i++) all += f->squares[i];
  CV_TRY(check_finite(f, inside, err)); /* of a stream Y can be finite, and Q not */
  v->drift = sqrt(fmax(all - inside, 0) / all);
  CV_TRY(choose_shift(f, &nu, err));
  cv_invert_lower_f64(k, f->H);
  cv_congruence_f64(k, f->H, f->G);
  CV_TRY(descending_eig(f, err));
  v->found = count_above(f, 2 * nu);
  divide_by_roots(f, v->found, f->G);
  cv_times_lower_f64(v->found, k, f->H, f->G, k);
  for (int64_t i = 0; i < v->found; i++) f->w[i] = (f->w[i] + sqrt(f->w[i] * f->w[i] + 4 * f->w[i] * nu)) / 2;
  return CURVD_OK;
}

/* Does a row of U = C Y cancel terms much longer than itself? Or come from the square of a small singular value? */
static bool is_mixed(const cv_finish *f, int64_t found) {
  if (f->problem->method == CV_EIG_RSVD && found > 0 && f->w[found - 1] < SQUARED_MIN * f->w[0]) return true;
  for (int64_t i = 0; i < found; i++) {
    double terms = 0;
    for (int64_t j = 0; j < f->k; j++) terms += f->G[i * f->k + j] * f->G[i * f->k + j] * f->squares[j];
    if (terms > MIXED_MAX * MIXED_MAX) return true;
  }
  return false;
}

/* Enough products, and rows? Only nystrom asks for more. */
static void decide(const cv_finish *f, cv_verdict *v) {
  const cv_eig_problem *p = f->problem;
  bool is_unsettled = p->settle > 0 && v->drift > p->settle && f->products <= p->power_iters + p->products_more;
  double missing = *f->trace;
  int64_t most = cv_smaller(v->found, p->kept_max);
  for (int64_t i = 0; i < most; i++) missing -= f->w[i];
  bool is_short = p->tolerance > 0 && missing > p->tolerance * *f->trace && v->found == f->k && f->k < p->k_max &&
                  most < p->kept_max;
  v->rows = is_short ? cv_smaller(2 * f->k, p->k_max) : f->k;
  v->is_done = p->method != CV_EIG_NYSTROM || !(is_unsettled || is_short);
}

/* What rounding of a product may add to an eigenvalue, size being the norm of Y: that of the sums, and of M rounded
 * before the norm of a random symmetric (k, k) matrix of its errors. */
static double noise_of(const cv_finish *f, double size) {
  const cv_eig_problem *p = f->problem;
  double rounding = p->by ? cv_precision_error(p->by->precision) : 0;
  return size * (FLT_EPSILON + rounding * 2 * sqrt((double)f->k) / (double)p->n);
}

curvd_status cv_finish_solve(const cv_finish *f, cv_verdict *v, cv_error *err) {
  double sum = 0;
  for (int64_t i = 0; i < f->k; i++) sum += f->squares[i];
  CV_TRY(check_finite(f, sum, err));
  v->is_done = true;
  if (sum == 0) return CURVD_OK; /* M is zero on the span: no pair */
  double nu = noise_of(f, sqrt(sum));
  if (f->problem->method == CV_EIG_RSVD) {
    CV_TRY(finish_rsvd(f, nu, v, err));
  } else if (f->problem->method == CV_EIG_SRE) {
    CV_TRY(finish_sre(f, nu, v, err));
  } else {
    CV_TRY(finish_nystrom(f, nu, v, err));
  }
  decide(f, v);
  v->is_mixed = f->problem->method != CV_EIG_SRE && is_mixed(f, v->found);
  return CURVD_OK;
}
