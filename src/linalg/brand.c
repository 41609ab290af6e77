/* X = P U + A Y at any time of an update: Y starts as X, loses its part in the span of U, which goes to P, and becomes
 * orthonormal rows Q = T Y, A then being R. T is applied only where Y must be projected once more, else it is part of
 * the one product that makes U'.
 *
 * The Gram matrix of [sqrt(keep D) U; sqrt(add) X] instead of a projection takes about the same time, but makes rows
 * that are orthogonal only to FLT_EPSILON sqrt(D_1 / D_r) at each update. */
#include "linalg/brand.h"

#include "base/order.h"
#include "linalg/brand_work.h"
#include "linalg/dense.h"
#include "linalg/orthonormal.h"
#include "linalg/small_eig.h"

#include <float.h>
#include <math.h>
#include <string.h>

/* Rows of U are made orthonormal anew above this; one update adds about 1e-6, so they stay within 1e-5. */
static const double ORTHONORMAL = 8e-6;

/* With X U^T in fp32 a direction of Y is off by about FLT_EPSILON times the length that X has along it. It is noise
 * when it is no longer than NOISE times that length; it is exact enough at 1 / CLOSE of it: then Q U^T is about
 * CLOSE * FLT_EPSILON. */
static const double NOISE = 4 * FLT_EPSILON, CLOSE = 10;

/* Eigenvalues below these shares of the largest are rounding: of Y Y^T in fp64, and of rows in fp32 (squared). Above
 * GRAM_CLOSE one of Y Y^T is exact to fp32. */
static const double GRAM_NOISE = 64 * DBL_EPSILON, GRAM_CLOSE = 1e-9,
                    PAIR_NOISE = 16 * (double)FLT_EPSILON * (double)FLT_EPSILON;

enum { PROJECTIONS = 4, BLOCK_MIN = 64 };

/* Flops a row are c^-1 (9 (r + c)^3 + 2 n r^2 + ...), lowest between r / 2 and r / sqrt(2), and flat there. Measured
 * for r = 74 .. 266, n = 1024 .. 4096: within 8 % of the best. */
int64_t cv_brand_block(int64_t r_max) {
  return cv_larger(BLOCK_MIN, r_max / 2);
}

static int64_t room_scratch(int64_t r_max, int64_t c) {
  int64_t k = r_max + c;
  int64_t kernels = cv_larger(cv_orthonormal_scratch(r_max).doubles, cv_gram_rows_scratch(c));
  return cv_larger(cv_larger(cv_small_eig_scratch(k), k * k), cv_larger(kernels, 2 * r_max));
}

static int64_t combination_scratch(int64_t r_max, int64_t c) {
  return cv_larger(r_max * (r_max + c), c * c);
}

cv_eig_scratch cv_brand_scratch(int64_t n, int64_t r_max, int64_t block) {
  int64_t c = block, k = r_max + c;
  return (cv_eig_scratch){.floats =
                              (c + cv_larger(r_max, c)) * cv_dense_ld(n) + c * r_max + combination_scratch(r_max, c),
                          .doubles = k * k + k + c * k + c * c + c + room_scratch(r_max, c),
                          .ints = cv_syev_iscratch(k) + r_max};
}

cv_brand_work cv_brand_carve(cv_brand *s, int64_t c, const cv_eig_work *work) {
  int64_t k = s->r_max + c, ld = cv_dense_ld(s->n);
  cv_brand_work b = {.s = s, .c = c, .k = k, .ld = ld, .Y = work->floats, .K = work->doubles};
  b.Z = b.Y + c * ld, b.P = b.Z + cv_larger(s->r_max, c) * ld, b.F = b.P + c * s->r_max;
  b.w = b.K + k * k, b.P_A = b.w + k, b.G = b.P_A + c * k, b.length = b.G + c * c;
  b.room = b.length + c;
  b.work = (cv_eig_work){b.F, b.room, work->ints};
  return b;
}

static double sum_of(int64_t count, const float *x) {
  double sum = 0;
  for (int64_t i = 0; i < count; i++) sum += x[i];
  return sum;
}

/* ---- what comes from outside ---- */

static double measure_orthogonality(const cv_brand_work *b) {
  cv_probe_orthogonality(b->s->r, b->s->n, b->s->U, b->s->ld, b->room);
  return cv_orthogonality(b->s->r, b->room);
}

/* *squares: of [X 1]. That bounds every number of an update: D' <= keep D + add *squares, P and Y <= sqrt(*squares). */
static curvd_status check_numbers(const cv_brand_work *b, const cv_brand_rows *x, double *squares,
                                  double *orthogonality, cv_error *err) {
  const cv_brand *s = b->s;
  bool is_state_good = true;
  for (int64_t i = 0; i < s->r; i++) is_state_good = is_state_good && s->D[i] >= 0 && isfinite(s->D[i]);
  *orthogonality = measure_orthogonality(b);
  if (!is_state_good || !isfinite(*orthogonality)) {
    return cv_fail(err, CURVD_ERR_NUMERIC,
                   "the %lld pairs of length %lld to update are not finite, or one is negative: start anew from none",
                   (long long)s->r, (long long)s->n);
  }
  *squares = cv_sum_squares(x->rows, x->has_one ? s->n - 1 : s->n, x->X, x->ldx) + (x->has_one ? (double)x->rows : 0);
  double largest = x->keep * sum_of(s->r, s->D) + x->add * *squares;
  if (x->keep >= 0 && x->add >= 0 && largest <= FLT_MAX && sqrt(*squares) <= FLT_MAX) return CURVD_OK;
  return cv_fail(err, CURVD_ERR_NUMERIC,
                 "an update by %lld rows of length %lld with keep %g and add %g is not finite in fp32: eigenvalues up "
                 "to %g",
                 (long long)x->rows, (long long)s->n, x->keep, x->add, largest);
}

/* ---- one block of rows ---- */

/* A (rows, y), rows k apart */
static double *behind_P(const cv_brand_work *b) {
  return b->P_A + b->s->r;
}

/* Y (rows, n) <- [X 1], P <- 0, A <- I, K <- U^T D U in the basis [U; Q] when U is orthonormal */
static void load(cv_brand_work *b, const cv_brand_rows *x, int64_t first, int64_t rows) {
  int64_t n = b->s->n;
  cv_copy_rows(rows, x->has_one ? n - 1 : n, x->X + first * x->ldx, x->ldx, b->Y, b->ld);
  memset(b->P_A, 0, (size_t)(b->c * b->k) * sizeof *b->P_A);
  memset(b->K, 0, (size_t)(b->k * b->k) * sizeof *b->K);
  for (int64_t i = 0; i < rows; i++) {
    if (x->has_one) b->Y[i * b->ld + n - 1] = 1;
    b->length[i] = cv_sum_squares(1, n, b->Y + i * b->ld, b->ld);
    behind_P(b)[i * b->k + i] = 1;
  }
  for (int64_t i = 0; i < b->s->r; i++) b->K[i * b->k + i] = b->s->D[i];
  b->q = rows;
}

/* Makes the rows of U orthonormal anew; what they were is L U, so K <- L^T D L. */
static curvd_status orthonormalise(cv_brand_work *b, cv_error *err) {
  cv_brand *s = b->s;
  int64_t r = s->r, replaced = 0;
  cv_eig_problem problem = {.n = s->n, .key = {.stream = CV_RNG_SKETCH}};
  cv_slices slices = cv_slices_whole(&problem);
  cv_copy_rows(r, s->n, s->U, s->ld, b->Z, b->ld);
  CV_TRY(cv_orthonormalise_rows(&slices, r, s->U, s->ld, &b->work, &replaced, err));
  cv_gemm(CV_N, CV_T, r, r, s->n, 1, b->Z, b->ld, s->U, s->ld, 0, b->F, r);
  cv_widen_rows(r, r, b->F, r, b->room, r);
  for (int64_t i = 0; i < r * r; i++) b->room[i] *= sqrt((double)s->D[i / r]);
  cv_gemm_f64(CV_T, CV_N, r, r, r, 1, b->room, r, b->room, r, 0, b->K, b->k);
  return CURVD_OK;
}

/* What Y has in the span of U goes to P. */
static void project(cv_brand_work *b, int64_t rows) {
  cv_brand *s = b->s;
  int64_t r = s->r, wide = cv_larger(r, 1);
  cv_gemm(CV_N, CV_T, b->y, r, s->n, 1, b->Y, b->ld, s->U, s->ld, 0, b->P, wide);
  cv_gemm(CV_N, CV_N, b->y, s->n, r, -1, b->P, wide, s->U, s->ld, 1, b->Y, b->ld);
  cv_widen_rows(b->y, r, b->P, wide, b->room, wide);
  cv_gemm_f64(CV_N, CV_N, rows, r, b->y, 1, behind_P(b), b->k, b->room, wide, 1, b->P_A, b->k);
}

/* Of the eigenvectors of Y Y^T keeps those that are no noise, at most n - r, as the last q rows of G. Is what is
 * left along each long enough for a Q that is orthonormal, and orthogonal to U? */
static bool choose_directions(cv_brand_work *b) {
  int64_t y = b->y;
  double largest = b->w[y - 1];
  bool is_enough = true;
  b->q = 0;
  for (int64_t i = y - 1; i >= 0 && b->q < b->s->n - b->s->r; i--) {
    double *v = b->G + i * y, left = b->w[i], before = 0;
    for (int64_t j = 0; j < y; j++) before += v[j] * v[j] * b->length[j];
    if (!(left > NOISE * NOISE * before && left > GRAM_NOISE * largest)) continue;
    b->q++;
    memmove(b->G + (y - b->q) * y, v, (size_t)y * sizeof *v);
    b->w[y - b->q] = left;
    is_enough = is_enough && before <= CLOSE * CLOSE * left && GRAM_CLOSE * largest <= left;
  }
  return is_enough;
}

/* Y = V^T sqrt(w) T Y for T = V / sqrt(w) of the chosen directions: A <- A V^T sqrt(w). */
static void split(cv_brand_work *b, int64_t rows) {
  int64_t y = b->y, q = b->q;
  double *V = b->G + (y - q) * y, *w = b->w + y - q, *A = behind_P(b);
  cv_gemm_f64(CV_N, CV_T, rows, q, y, 1, A, b->k, V, y, 0, b->room, cv_larger(q, 1));
  for (int64_t i = 0; i < rows * q; i++) A[i / q * b->k + i % q] = b->room[i] * sqrt(w[i % q]);
  for (int64_t i = 0; i < q * y; i++) V[i] /= sqrt(w[i / y]);
  b->T = V;
}

/* Y <- T Y */
static void apply_split(cv_brand_work *b) {
  cv_narrow_rows(b->q, b->y, b->T, b->y, b->F, b->y);
  cv_gemm(CV_N, CV_N, b->q, b->s->n, b->y, 1, b->F, b->y, b->Y, b->ld, 0, b->Z, b->ld);
  cv_copy_rows(b->q, b->s->n, b->Z, b->ld, b->Y, b->ld);
  for (int64_t i = 0; i < b->q; i++) b->length[i] = 1;
}

/* X = P U + A Q with Q = T Y: Y is projected until what is left is long enough. */
static curvd_status decompose(cv_brand_work *b, int64_t rows, cv_brand_result *result, cv_error *err) {
  bool is_enough = false;
  for (int i = 0; i < PROJECTIONS && !is_enough; i++) {
    if (i > 0) apply_split(b);
    b->y = b->q;
    project(b, rows);
    cv_gram_rows(b->y, b->s->n, b->Y, b->ld, b->G, b->room);
    CV_TRY(cv_small_eig(b->y, b->G, b->y, b->w, b->room, b->work.ints, err));
    is_enough = choose_directions(b);
    split(b, rows);
    result->projections++;
  }
  return CURVD_OK;
}

/* U (kept, n) <- the eigenvectors of K, largest first, times [U; T Y] */
static void rotate(cv_brand_work *b, int64_t kept) {
  cv_brand *s = b->s;
  int64_t r = s->r, size = r + b->q, y = cv_larger(b->y, 1);
  const double *V = b->K + (size - kept) * b->k;
  cv_gemm_f64(CV_N, CV_N, kept, b->y, b->q, 1, V + r, b->k, b->T, y, 0, b->room, y);
  for (int64_t i = 0; i < kept; i++) {
    int64_t from = kept - 1 - i;
    cv_narrow_rows(1, r, V + from * b->k, b->k, b->F + i * b->k, b->k);
    cv_narrow_rows(1, b->y, b->room + from * y, y, b->F + i * b->k + r, b->k);
  }
  cv_gemm(CV_N, CV_N, kept, s->n, r, 1, b->F, b->k, s->U, s->ld, 0, b->Z, b->ld);
  cv_gemm(CV_N, CV_N, kept, s->n, b->y, 1, b->F + r, b->k, b->Y, b->ld, 1, b->Z, b->ld);
  cv_copy_rows(kept, s->n, b->Z, b->ld, s->U, s->ld);
}

/* The r_max largest pairs of K + add [P A]^T [P A]. */
static curvd_status truncate(cv_brand_work *b, int64_t rows, double add, cv_brand_result *result, cv_error *err) {
  cv_brand *s = b->s;
  int64_t size = s->r + b->q, kept = 0;
  cv_gemm_f64(CV_T, CV_N, size, size, rows, add, b->P_A, b->k, b->P_A, b->k, 1, b->K, b->k);
  if (size > 0) CV_TRY(cv_small_eig(size, b->K, b->k, b->w, b->room, b->work.ints, err));
  const double *w = b->w + size - 1; /* downwards: descending */
  while (kept < cv_smaller(size, s->r_max) && w[-kept] > PAIR_NOISE * w[0]) kept++;
  rotate(b, kept);
  s->r = kept;
  for (int64_t i = 0; i < kept; i++) s->D[i] = (float)w[-i];
  if (kept < size) result->dropped += fmax(w[-kept], 0);
  return CURVD_OK;
}

static curvd_status absorb(cv_brand_work *b, const cv_brand_rows *x, int64_t first, int64_t rows,
                           cv_brand_result *result, cv_error *err) {
  load(b, x, first, rows);
  if (result->orthogonality > ORTHONORMAL) {
    CV_TRY(orthonormalise(b, err));
    result->orthonormalised++;
  }
  CV_TRY(decompose(b, rows, result, err));
  CV_TRY(truncate(b, rows, x->add, result, err));
  result->blocks++;
  result->orthogonality = measure_orthogonality(b);
  return CURVD_OK;
}

curvd_status cv_brand_update(cv_brand *state, const cv_brand_rows *x, const cv_eig_work *work, cv_brand_result *result,
                             cv_error *err) {
  cv_brand_work b = cv_brand_carve(state, x->block, work);
  double squares = 0;
  *result = (cv_brand_result){0};
  CV_TRY(check_numbers(&b, x, &squares, &result->orthogonality, err));
  for (int64_t i = 0; i < state->r; i++) state->D[i] = (float)(x->keep * state->D[i]);
  int64_t blocks = (x->rows + x->block - 1) / x->block;
  for (int64_t i = 0; i < blocks; i++) { /* as even as they can be */
    int64_t first = x->rows * i / blocks, end = x->rows * (i + 1) / blocks;
    CV_TRY(absorb(&b, x, first, end - first, result, err));
  }
  state->trace = x->keep * state->trace + x->add * squares;
  state->error_bound = x->keep * state->error_bound + result->dropped;
  return CURVD_OK;
}
