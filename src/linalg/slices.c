#include "linalg/slices.h"

#include "linalg/dense.h"

static curvd_status local_product(const cv_slices *s, const cv_multiplier *by, int64_t k, const float *Q, int64_t ldq,
                                  float *Y, int64_t ldy, cv_error *err) {
  const cv_eig_problem *p = s->problem;
  (void)err;
  cv_multiply(by, CV_N, CV_N, k, p->n, p->n, 1, Q, ldq, p->M, p->ld, 0, Y, ldy);
  return CURVD_OK;
}

cv_slices cv_slices_whole(const cv_eig_problem *problem) {
  int64_t n = problem->n;
  return (cv_slices){.columns = {.n = n, .block = n, .parts = 1}, .mine = n, .is_first = true, .problem = problem};
}

cv_slices cv_slices_local(const cv_eig_problem *problem) {
  cv_slices s = cv_slices_whole(problem);
  for (int64_t i = 0; i < problem->n; i++) s.trace += problem->M[i * problem->ld + i];
  s.product = local_product;
  return s;
}

curvd_status cv_slices_sum(const cv_slices *s, double *x, int64_t count, cv_error *err) {
  return s->sum ? s->sum(s, x, count, err) : CURVD_OK;
}

curvd_status cv_slices_share(const cv_slices *s, void *x, int64_t bytes, cv_error *err) {
  return s->share ? s->share(s, x, bytes, err) : CURVD_OK;
}

curvd_status cv_slices_agree(const cv_slices *s, cv_error *err) {
  CV_TRY(cv_slices_share(s, err, sizeof *err, err));
  return err->code;
}

/* A row begins at an even index: normal numbers come in pairs. */
void cv_slices_draw(const cv_slices *s, cv_rng key, int64_t number, int64_t rows, float *Q, int64_t ldq) {
  int64_t width = (s->columns.n + 1) / 2 * 2;
  for (int64_t j = 0, run; j < s->mine; j += run) {
    int64_t column = cv_cyclic_global(&s->columns, j);
    run = cv_cyclic_run(&s->columns, j);
    for (int64_t i = 0; i < rows; i++)
      cv_rng_normal(&key, (uint64_t)((number + i) * width + column), run, Q + i * ldq + j);
  }
}
