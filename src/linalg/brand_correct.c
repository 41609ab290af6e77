/* Rayleigh-Ritz of M itself on some rows of U, which truncation left too small: see brand.h. */
#include "base/order.h"
#include "linalg/brand_work.h"
#include "linalg/dense.h"
#include "linalg/small_eig.h"

#include <float.h>
#include <math.h>
#include <string.h>

/* chosen (m) <- different numbers below r, uniformly: the first m of a shuffle */
static void choose_rows(int64_t r, int64_t m, const cv_rng *key, int32_t *chosen) {
  for (int64_t i = 0; i < r; i++) chosen[i] = (int32_t)i;
  for (int64_t i = 0; i < m; i++) {
    int64_t j = i + (int64_t)cv_rng_below(key, (uint64_t)i, (uint64_t)(r - i));
    int32_t t = chosen[i];
    chosen[i] = chosen[j], chosen[j] = t;
  }
}

/* K (m, m), lower triangle, = Q M Q^T with Q in Z, by c rows of Q M at a time */
static void project_matrix(const cv_brand_work *b, int64_t m, const float *M, int64_t ldm) {
  int64_t n = b->s->n;
  for (int64_t first = 0; first < m; first += b->c) {
    int64_t rows = cv_smaller(b->c, m - first);
    cv_gemm(CV_N, CV_N, rows, n, n, 1, b->Z + first * b->ld, b->ld, M, ldm, 0, b->Y, b->ld);
    for (int64_t i = 0; i < rows; i++) {
      for (int64_t j = 0; j <= first + i; j++)
        b->K[(first + i) * m + j] = cv_dot(1, n, b->Y + i * b->ld, b->ld, b->Z + j * b->ld, b->ld);
    }
  }
}

/* The chosen rows <- eigenvectors (rows of K) times Q in Z, by c at a time */
static void rotate_chosen(const cv_brand_work *b, int64_t m, const int32_t *chosen) {
  cv_brand *s = b->s;
  cv_narrow_rows(m, m, b->K, m, b->F, m);
  for (int64_t first = 0; first < m; first += b->c) {
    int64_t rows = cv_smaller(b->c, m - first);
    cv_gemm(CV_N, CV_N, rows, s->n, m, 1, b->F + first * m, m, b->Z, b->ld, 0, b->Y, b->ld);
    for (int64_t i = 0; i < rows; i++) {
      cv_copy_rows(1, s->n, b->Y + i * b->ld, b->ld, s->U + chosen[first + i] * s->ld, s->ld);
      s->D[chosen[first + i]] = (float)fmax(b->w[first + i], 0);
    }
  }
}

/* Pairs by eigenvalue, largest first. */
static void sort_pairs(const cv_brand_work *b, int32_t *order) {
  cv_brand *s = b->s;
  for (int64_t i = 0; i < s->r; i++) {
    int64_t j = i;
    for (; j > 0 && s->D[order[j - 1]] < s->D[i]; j--) order[j] = order[j - 1];
    order[j] = (int32_t)i;
  }
  for (int64_t i = 0; i < s->r; i++) {
    cv_copy_rows(1, s->n, s->U + order[i] * s->ld, s->ld, b->Z + i * b->ld, b->ld);
    b->F[i] = s->D[order[i]];
  }
  cv_copy_rows(s->r, s->n, b->Z, b->ld, s->U, s->ld);
  memcpy(s->D, b->F, (size_t)s->r * sizeof *s->D);
}

curvd_status cv_brand_correct(cv_brand *state, const float *M, int64_t ldm, double phi, cv_rng key, int64_t block,
                              const cv_eig_work *work, int64_t *corrected, cv_error *err) {
  cv_brand_work b = cv_brand_carve(state, block, work);
  int64_t r = state->r, m = cv_smaller(llround(phi * (double)r + 1), r);
  int32_t *chosen = work->ints + cv_syev_iscratch(b.k);
  *corrected = m;
  if (m == 0) return CURVD_OK;
  choose_rows(r, m, &key, chosen);
  for (int64_t i = 0; i < m; i++)
    cv_copy_rows(1, state->n, state->U + chosen[i] * state->ld, state->ld, b.Z + i * b.ld, b.ld);
  project_matrix(&b, m, M, ldm);
  CV_TRY(cv_small_eig(m, b.K, m, b.w, b.room, b.work.ints, err));
  if (!(b.w[m - 1] <= FLT_MAX)) {
    return cv_fail(err, CURVD_ERR_NUMERIC,
                   "a factor of %lld x %lld has an eigenvalue of %g, which is not finite in fp32", (long long)state->n,
                   (long long)state->n, b.w[m - 1]);
  }
  rotate_chosen(&b, m, chosen);
  sort_pairs(&b, chosen);
  /* Of E = M - U^T D U the correction removes H, its part on these rows. 0 <= E <= bound gives |E - H| <= bound. For
   * |E| <= bound only, look at E - H on the two directions that its leading eigenvector has inside and outside of the
   * rows: a (2, 2) matrix of norm <= 1 loses one diagonal entry, which leaves a norm of at most 2 / sqrt(3). */
  if (state->is_corrected) state->error_bound *= 2 / sqrt(3);
  state->is_corrected = true;
  return CURVD_OK;
}
