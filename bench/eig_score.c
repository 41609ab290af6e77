#include "eig_score.h"

#include "base/clock.h"
#include "linalg/dense.h"

#include <math.h>
#include <string.h>

/* LAPACK as dense.h does not have it: eigenvalues alone, and solves. */
void dsyevd_(const char *jobz, const char *uplo, const int *n, double *a, const int *lda, double *w, double *work,
             const int *lwork, int *iwork, const int *liwork, int *info, size_t, size_t);
void ssyevd_(const char *jobz, const char *uplo, const int *n, float *a, const int *lda, float *w, float *work,
             const int *lwork, int *iwork, const int *liwork, int *info, size_t, size_t);
void spotrf_(const char *uplo, const int *n, float *a, const int *lda, int *info, size_t);
void spotrs_(const char *uplo, const int *n, const int *nrhs, const float *a, const int *lda, float *b, const int *ldb,
             int *info, size_t);

/* ---- memory ---- */

static curvd_status floats(eig_truth *t, int64_t count, float **block, cv_error *err) {
  return cv_floats_new(t->memory, CV_MEMORY_WORKSPACE, count, "the checks", block, err);
}

static curvd_status doubles(eig_truth *t, int64_t count, double **block, cv_error *err) {
  return cv_doubles_new(t->memory, CV_MEMORY_WORKSPACE, count, "the checks", block, err);
}

curvd_status eig_truth_open(const eig_source *source, int64_t k_max, cv_memory *memory, eig_truth *t, cv_error *err) {
  int64_t n = source->n, ld = source->ld;
  *t = (eig_truth){.source = source, .memory = memory};
  CV_TRY(doubles(t, n, &t->lambda, err));
  CV_TRY(floats(t, n * ld, &t->V, err));
  CV_TRY(floats(t, n, &t->w, err));
  CV_TRY(floats(t, n * ld, &t->residue, err));
  CV_TRY(floats(t, k_max * (ld > source->rows ? ld : source->rows), &t->scaled, err));
  CV_TRY(doubles(t, k_max * k_max, &t->gram, err));
  CV_TRY(doubles(t, cv_gram_rows_scratch(k_max), &t->gram_room, err));
  CV_TRY(floats(t, 3 * source->rows * ld, &t->examples, err));
  t->inverse = t->examples + source->rows * ld;
  t->out = t->inverse + source->rows * ld;
  CV_TRY(floats(t, cv_syev_scratch(n), &t->work, err));
  if (n <= EIG_FP64_MAX) CV_TRY(doubles(t, n * n + cv_syev_scratch(n), &t->work64, err));
  return cv_memory_new(memory, CV_MEMORY_WORKSPACE, cv_syev_iscratch(n), sizeof *t->ints, "the checks",
                       (void **)&t->ints, err);
}

void eig_truth_close(eig_truth *t) {
  float **const single[] = {&t->V, &t->w, &t->residue, &t->scaled, &t->examples, &t->work};
  double **const wide[] = {&t->lambda, &t->gram, &t->gram_room, &t->work64};
  if (t->memory == NULL) return;
  for (size_t i = 0; i < sizeof single / sizeof *single; i++) cv_floats_free(t->memory, single[i]);
  for (size_t i = 0; i < sizeof wide / sizeof *wide; i++) cv_doubles_free(t->memory, wide[i]);
  cv_memory_free(t->memory, (void **)&t->ints);
}

/* ---- what is true ---- */

static void copy_matrix(const eig_source *s, float *to) {
  memcpy(to, s->M, (size_t)(s->n * s->ld) * sizeof *to);
}

static curvd_status run_ssyevd(eig_truth *t, cv_error *err) {
  int64_t n = t->source->n;
  copy_matrix(t->source, t->V);
  double cpu = cv_cpu_s(), wall = cv_wall_s();
  CV_TRY(cv_syev_f32(n, t->V, t->source->ld, t->w, t->work, t->ints, err));
  t->cpu_ms = 1e3 * (cv_cpu_s() - cpu);
  t->wall_ms = 1e3 * (cv_wall_s() - wall);
  t->has_vectors = true;
  return CURVD_OK;
}

static curvd_status values_only(eig_truth *t, cv_error *err) {
  int64_t n = t->source->n, ld = t->source->ld;
  const int size = (int)n, lwork = (int)cv_syev_scratch(n), liwork = (int)cv_syev_iscratch(n), lda = (int)ld;
  int info = 0;
  if (n <= EIG_FP64_MAX) {
    for (int64_t i = 0; i < n * n; i++) t->work64[i] = t->source->M[i / n * ld + i % n];
    dsyevd_("N", "U", &size, t->work64, &size, t->lambda, t->work64 + n * n, &lwork, t->ints, &liwork, &info, 1, 1);
    if (info == 0) return CURVD_OK;
  } else {
    if (!t->has_vectors) {
      copy_matrix(t->source, t->residue);
      ssyevd_("N", "U", &size, t->residue, &lda, t->w, t->work, &lwork, t->ints, &liwork, &info, 1, 1);
    }
    for (int64_t i = 0; i < n; i++) t->lambda[i] = t->w[i];
    if (info == 0) return CURVD_OK;
  }
  return cv_fail(err, CURVD_ERR_NUMERIC, "syevd returned info %d", info);
}

static void descend(int64_t n, double *x) {
  for (int64_t i = 0; i < n / 2; i++) {
    double kept = x[i];
    x[i] = x[n - 1 - i], x[n - 1 - i] = kept;
  }
}

/* Trace and Frobenius norm know the eigenvalues without a solver. */
static curvd_status check_sums(const eig_truth *t, cv_error *err) {
  int64_t n = t->source->n;
  double trace = 0, sum = 0, squares = 0;
  for (int64_t i = 0; i < n; i++) {
    trace += t->source->M[i * t->source->ld + i];
    sum += t->lambda[i];
    squares += t->lambda[i] * t->lambda[i];
  }
  if (fabs(sum / trace - 1) < 1e-4 && fabs(sqrt(squares) / t->norm - 1) < 1e-4) return CURVD_OK;
  return cv_fail(err, CURVD_ERR_NUMERIC,
                 "check truth: eigenvalues of a %lld x %lld matrix of trace %.9g and norm %.9g have sum %.9g and norm "
                 "%.9g",
                 (long long)n, (long long)n, trace, t->norm, sum, sqrt(squares));
}

/* inverse = (M + damping)^-1 examples */
static curvd_status invert(eig_truth *t, eig_source *source, cv_error *err) {
  int64_t n = source->n, ld = source->ld;
  const int size = (int)n, lda = (int)ld, rows = (int)source->rows;
  int info = 0;
  source->examples(source, t->examples);
  memcpy(t->inverse, t->examples, (size_t)(source->rows * ld) * sizeof *t->inverse);
  copy_matrix(source, t->residue);
  for (int64_t i = 0; i < n; i++) t->residue[i * ld + i] += (float)(EIG_DAMPING * t->lambda[0]);
  spotrf_("U", &size, t->residue, &lda, &info, 1);
  if (info == 0) spotrs_("U", &size, &rows, t->residue, &lda, t->inverse, &lda, &info, 1);
  if (info == 0) return CURVD_OK;
  return cv_fail(err, CURVD_ERR_NUMERIC, "a damped %d x %d matrix has no Cholesky factor (info %d)", size, size, info);
}

curvd_status eig_truth_take(eig_truth *t, eig_source *source, bool with_ssyevd, cv_error *err) {
  t->has_vectors = false;
  t->norm = sqrt(cv_sum_squares(source->n, source->n, source->M, source->ld));
  if (with_ssyevd) CV_TRY(run_ssyevd(t, err));
  CV_TRY(values_only(t, err));
  descend(source->n, t->lambda);
  CV_TRY(check_sums(t, err));
  return with_ssyevd && source->examples ? invert(t, source, err) : CURVD_OK;
}

/* ---- scores ---- */

static double largest_off_identity(eig_truth *t, int64_t k, const float *U) {
  if (k == 0) return 0;
  cv_gram_rows(k, t->source->n, U, t->source->ld, t->gram, t->gram_room);
  for (int64_t i = 0; i < k; i++) t->gram[i * k + i] -= 1;
  return cv_largest_magnitude(k * k, t->gram);
}

/* Norm of M - U^T D U, entry by entry: no sum of squares of M from which large numbers would cancel. */
static double low_rank_error(eig_truth *t, int64_t k, const float *U, const float *D) {
  int64_t n = t->source->n, ld = t->source->ld;
  copy_matrix(t->source, t->residue);
  for (int64_t i = 0; i < k; i++) cv_mix(1, n, D[i], U + i * ld, ld, 0, t->scaled + i * ld, ld);
  if (k > 0) cv_gemm(CV_T, CV_N, n, n, k, -1, t->scaled, ld, U, ld, 1, t->residue, ld);
  return sqrt(cv_sum_squares(n, n, t->residue, ld));
}

/* Norm of U^T (D + damping)^-1 U x + (tau + damping)^-1 (x - U^T U x) minus the exact inverse, over the examples x. */
static double inverse_error(eig_truth *t, int64_t k, const float *U, const float *D, double tau) {
  int64_t n = t->source->n, ld = t->source->ld, rows = t->source->rows;
  double damping = EIG_DAMPING * t->lambda[0], rest = 1 / (tau + damping);
  float *P = t->scaled; /* (rows, k) */
  cv_mix(rows, n, (float)rest, t->examples, ld, 0, t->out, ld);
  cv_mix(rows, n, -1, t->inverse, ld, 1, t->out, ld);
  if (k > 0) cv_gemm(CV_N, CV_T, rows, k, n, 1, t->examples, ld, U, ld, 0, P, k);
  for (int64_t i = 0; i < rows * k; i++) P[i] *= (float)(1 / (D[i % k] + damping) - rest);
  if (k > 0) cv_gemm(CV_N, CV_N, rows, n, k, 1, P, k, U, ld, 1, t->out, ld);
  return sqrt(cv_sum_squares(rows, n, t->out, ld));
}

/* The exact pairs lie ascending at the end of V. */
static double truncated_inverse_error(eig_truth *t, int64_t eig_rank) {
  int64_t n = t->source->n;
  double rest = 0;
  for (int64_t i = eig_rank; i < n; i++) rest += t->lambda[i];
  double tau = eig_rank < n ? fmax(rest, 0) / (double)(n - eig_rank) : 0;
  return inverse_error(t, eig_rank, t->V + (n - eig_rank) * t->source->ld, t->w + n - eig_rank, tau);
}

void eig_truth_score(eig_truth *t, int64_t eig_rank, int64_t found, int64_t kept, const float *U, const float *D,
                     double tau, eig_score *score) {
  double squares = 0;
  for (int64_t i = t->source->n - 1; i >= eig_rank; i--) squares += t->lambda[i] * t->lambda[i];
  *score = (eig_score){.error = low_rank_error(t, kept, U, D),
                       .optimum = sqrt(squares),
                       .orthogonality = largest_off_identity(t, found, U)};
  if (!t->has_vectors || t->source->examples == NULL) return;
  score->inverse = inverse_error(t, kept, U, D, tau);
  score->inverse_no_tail = inverse_error(t, kept, U, D, 0);
  score->inverse_truncated = truncated_inverse_error(t, eig_rank);
}
