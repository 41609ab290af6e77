#include "linalg/certify.h"

#include "linalg/dense.h"
#include "linalg/orthonormal.h"

#include <math.h>
#include <string.h>

enum { PROBES = CV_EIG_PROBES };
static const double PI = 3.14159265358979323846;

/* Partial sums over columns, in this order: the trace, ||W M||^2, W U^T, (W M) U^T, U U^T z, and (W R) U^T, R being
 * what rounding changed in M. */
typedef struct sums {
  int64_t found;
  double *trace, *norm, *WU, *MU, *signs, *RU, *squares; /* squares (PROBES): of the rows of E W, later */
} sums;

/* floats: a product (PROBES, k) */
cv_eig_scratch cv_certify_scratch(int64_t k) {
  return (cv_eig_scratch){.floats = PROBES * k, .doubles = 2 + k * 3 * PROBES + k + PROBES};
}

static sums carve(int64_t found, const cv_eig_work *work) {
  double *at = work->doubles;
  return (sums){.found = found,
                .trace = at,
                .norm = at + 1,
                .WU = at + 2,
                .MU = at + 2 + PROBES * found,
                .signs = at + 2 + found * 2 * PROBES,
                .RU = at + 2 + found * 2 * PROBES + found,
                .squares = at + 2 + found * 3 * PROBES + found};
}

void cv_certify_draw(const cv_slices *s, float *W, int64_t ldw) {
  if (s->probes) {
    cv_mix(PROBES, s->mine, 1, s->probes, s->probes_ld, 0, W, ldw);
    return;
  }
  cv_rng key = s->problem->key;
  key.stream = CV_RNG_PROBE;
  cv_slices_draw(s, key, 0, PROBES, W, ldw);
}

/* out (PROBES, k) = X (PROBES, n) U^T */
static void project(int64_t k, int64_t n, const float *X, int64_t ldx, const float *U, int64_t ldu, float *room,
                    double *out) {
  if (k == 0) return;
  cv_gemm(CV_N, CV_T, PROBES, k, n, 1, X, ldx, U, ldu, 0, room, k);
  for (int64_t i = 0; i < PROBES * k; i++) out[i] = room[i];
}

/* Pairs to keep, and tau of the rest. */
static void choose_kept(const cv_eig_problem *p, const float *D, cv_eig_result *r) {
  bool is_free = p->tolerance > 0;
  int64_t wanted = is_free ? p->kept_max : p->eig_rank, most = wanted < r->found ? wanted : r->found;
  double kept = 0;
  for (r->kept = 0; r->kept < most; kept += D[r->kept++]) {
    if (is_free && r->kept >= p->kept_min && r->trace - kept <= p->tolerance * r->trace) break;
  }
  double rest = fmax(r->trace - kept, 0);
  r->tau = 0;
  if (r->kept < p->n && p->tail == CV_TAIL_MEAN) r->tau = rest / (double)(p->n - r->kept);
  if (r->kept < p->n && r->kept > 0 && p->tail == CV_TAIL_MIN) r->tau = D[r->kept - 1];
}

/* Symmetric R has at most twice in the span of the kept pairs, on one side or both, what U R has. */
static double rounding_of(const sums *x, int64_t kept) {
  double squares = 0;
  for (int64_t i = 0; i < PROBES * x->found; i++) squares += i % x->found < kept ? x->RU[i] * x->RU[i] : 0;
  return sqrt(2 * squares / PROBES);
}

/* On the first rank. WU becomes W U^T (D - tau), row by row over the kept pairs. */
static void judge(const cv_eig_problem *p, const sums *x, const float *D, bool keep_tau, cv_eig_result *r) {
  double residual = 0, size = 0, kept = 0;
  r->trace = *x->trace;
  r->norm = sqrt(*x->norm / PROBES);
  r->orthogonality = cv_orthogonality(x->found, x->signs);
  if (!keep_tau) choose_kept(p, D, r);
  for (int64_t i = 0; i < r->kept; i++) kept += D[i], size += (double)D[i] * D[i];
  for (int64_t i = 0; i < PROBES * x->found; i++) {
    int64_t j = i % x->found;
    if (j >= r->kept) continue;
    double rest = x->MU[i] - D[j] * x->WU[i];
    residual += rest * rest;
    x->WU[i] *= D[j] - r->tau;
  }
  r->rounding = rounding_of(x, r->kept);
  r->residual = size > 0 ? sqrt(residual / PROBES / size) : residual > 0 ? INFINITY : 0;
  r->missing_trace = r->kept < p->n && r->trace > 0 ? fmax(r->trace - kept, 0) / r->trace : 0;
}

/* MW <- this rank's columns of E W, and the squares of its rows. */
static void residuals(const cv_slices *s, const sums *x, const float *U, int64_t ldu, const float *W, int64_t ldw,
                      float *MW, int64_t ldm, float *room, const cv_eig_result *r) {
  for (int64_t i = 0; i < PROBES * x->found; i++) room[i] = (float)x->WU[i];
  cv_mix(PROBES, s->mine, (float)-r->tau, W, ldw, 1, MW, ldm);
  if (r->kept > 0) cv_gemm(CV_N, CV_N, PROBES, s->mine, r->kept, -1, room, x->found, U, ldu, 1, MW, ldm);
  for (int i = 0; i < PROBES; i++) x->squares[i] = cv_sum_squares(1, s->mine, MW + i * ldm, ldm);
}

/* One NaN makes both NaN. */
static void bound(const sums *x, cv_eig_result *r) {
  double sum = 0;
  for (int i = 0; i < PROBES; i++) sum += x->squares[i];
  r->error_norm = sqrt(sum / PROBES);
  r->error_bound = 2 * sqrt(2 / PI * cv_largest_magnitude(PROBES, x->squares));
}

/* RU <- (W R) U^T */
static void project_rounding(const cv_slices *s, const cv_probed *probed, const float *U, int64_t ldu, float *room,
                             const sums *x) {
  memset(x->RU, 0, (size_t)(PROBES * x->found) * sizeof *x->RU);
  if (probed->rounded == NULL) return;
  project(x->found, s->mine, probed->rounded, probed->ldm, U, ldu, room, x->RU);
  for (int64_t i = 0; i < PROBES * x->found; i++) x->RU[i] -= x->MU[i];
}

curvd_status cv_certify(const cv_slices *s, const float *U, int64_t ldu, const float *D, const cv_probed *probed,
                        bool keep_tau, const cv_eig_work *work, cv_eig_result *result, cv_error *err) {
  int64_t found = result->found;
  const float *W = probed->W;
  float *MW = probed->MW;
  sums x = carve(found, work);
  *x.trace = s->trace;
  *x.norm = cv_sum_squares(PROBES, s->mine, MW, probed->ldm);
  project(found, s->mine, W, probed->ldw, U, ldu, work->floats, x.WU);
  project(found, s->mine, MW, probed->ldm, U, ldu, work->floats, x.MU);
  project_rounding(s, probed, U, ldu, work->floats, &x);
  cv_probe_orthogonality(found, s->mine, U, ldu, x.signs);
  CV_TRY(cv_slices_sum(s, work->doubles, 2 + (3 * PROBES + 1) * found, err));
  if (s->is_first) judge(s->problem, &x, D, keep_tau, result);
  CV_TRY(cv_slices_share(s, result, sizeof *result, err));
  CV_TRY(cv_slices_share(s, x.WU, PROBES * found * (int64_t)sizeof *x.WU, err));
  residuals(s, &x, U, ldu, W, probed->ldw, MW, probed->ldm, work->floats, result);
  CV_TRY(cv_slices_sum(s, x.squares, PROBES, err));
  if (s->is_first) bound(&x, result);
  return cv_slices_share(s, result, sizeof *result, err);
}
