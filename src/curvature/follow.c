/* Projections of the momentum that follow it. The momentum is linear in the gradients, and a gradient is g^T [a 1] of a
 * batch, so P = U_G X <- mu P + nu (g U_G^T)^T [a 1],   R = U_A X^T <- mu R + nu ([a 1] U_A^T)^T g costs 2 rows (m + n)
 * (r_G + r_A) flops in place of 2 m n (r_G + r_A): a gain for batches below m n / (m + n). After a refresh the
 * projections are computed whole once. One worker only: others would have to send their parts. */
#include "curvature/internal.h"
#include "linalg/dense.h"

#include <string.h>

enum { CHECK_EVERY = 8 };

/* By which P and R may miss the projections of X: bf16 rounds both operands of each product by 2^-9, root mean
 * square. */
static double check_tolerance(const curvd_ctx *ctx) {
  return ctx->apply_by.precision == CV_BF16 ? 1e-2 : 1e-3;
}

/* rows 0: may it be a gain for some batch? */
bool cv_follow_is_gain(const curvd_ctx *ctx, const cv_layer *layer, int64_t rows) {
  return ctx->comm.n_workers == 1 && rows * (layer->m + layer->n) < layer->m * layer->n;
}

static void decay(int64_t r, int64_t n, float mu, float *X, int64_t ldx) {
  for (int64_t i = 0; i < r; i++) {
    for (int64_t j = 0; j < n; j++) X[i * ldx + j] *= mu;
  }
}

/* R (r_A, m) += nu ([a 1] U_A^T)^T g for one thin piece; T (rows, r_A). */
static void add_inputs(const cv_multiplier *by, const cv_layer *layer, int64_t rows, const float *a, int64_t lda,
                       const float *g, int64_t ldg, float nu, float *T) {
  const cv_lrps *A = &layer->factor[CV_A].applied.side;
  for (int64_t i = 0; layer->has_bias && i < rows; i++) {
    for (int64_t j = 0; j < A->r; j++) T[i * A->r + j] = A->U[j * A->ld + layer->d_in];
  }
  cv_multiply(by, CV_N, CV_T, rows, A->r, layer->d_in, 1, a, lda, A->U, A->ld, layer->has_bias ? 1 : 0, T, A->r);
  cv_multiply(by, CV_T, CV_N, A->r, layer->m, rows, nu, T, A->r, g, ldg, 1, layer->R, layer->factor[CV_G].ld);
}

/* P (r_G, n) += nu (g U_G^T)^T [a 1]; T (rows, r_G). */
static void add_outputs(const cv_multiplier *by, const cv_layer *layer, int64_t rows, const float *a, int64_t lda,
                        const float *g, int64_t ldg, float nu, float *T) {
  const cv_lrps *G = &layer->factor[CV_G].applied.side;
  int64_t ld = layer->factor[CV_A].ld;
  cv_multiply(by, CV_N, CV_T, rows, G->r, layer->m, 1, g, ldg, G->U, G->ld, 0, T, G->r);
  cv_multiply(by, CV_T, CV_N, G->r, layer->d_in, rows, nu, T, G->r, a, lda, 1, layer->P, ld);
  for (int64_t i = 0; layer->has_bias && i < rows; i++) {
    for (int64_t j = 0; j < G->r; j++) layer->P[j * ld + layer->d_in] += nu * T[i * G->r + j];
  }
}

void cv_follow_gradient(curvd_ctx *ctx, cv_layer *layer, int64_t rows, const float *a, int64_t lda, const float *g,
                        int64_t ldg, float scale) {
  const cv_lrps *A = &layer->factor[CV_A].applied.side, *G = &layer->factor[CV_G].applied.side;
  double mu = cv_settings_of(ctx)->momentum, nu = (1 - cv_momentum_here(cv_settings_of(ctx))) * (double)scale;
  if (!layer->P || !layer->is_following || rows == 0) return;
  if (A->r == 0 || G->r == 0 || !cv_follow_is_gain(ctx, layer, layer->followed_rows + rows)) {
    layer->is_following = false; /* one part left out spoils the sum: this step computes them whole */
    return;
  }
  if (layer->followed_rows == 0) {
    decay(G->r, layer->n, (float)mu, layer->P, layer->factor[CV_A].ld);
    decay(A->r, layer->m, (float)mu, layer->R, layer->factor[CV_G].ld);
  }
  for (int64_t i = 0; i < rows; i += CV_THIN_ROWS) {
    int64_t piece = rows - i < CV_THIN_ROWS ? rows - i : CV_THIN_ROWS;
    add_inputs(&ctx->apply_by, layer, piece, a + i * lda, lda, g + i * ldg, ldg, (float)nu, ctx->thin);
    add_outputs(&ctx->apply_by, layer, piece, a + i * lda, lda, g + i * ldg, ldg, (float)nu, ctx->thin);
  }
  layer->followed_rows += rows;
}

/* |(sum of +-rows of U) X - (sum of +-rows of P)|^2, and the same of R with X transposed: every row takes part in one
 * product. */
static double probe(cv_trans trans, const cv_lrps *side, int64_t n, const float *X, int64_t ldx, const float *P,
                    int64_t ldp, float *work) {
  float *w = work, *row = work + side->n;
  double defect = 0;
  memset(work, 0, (size_t)(side->n + n) * sizeof *work);
  for (int64_t i = 0; i < side->r; i++) {
    float sign = ((uint64_t)i * 0x9e3779b97f4a7c15u) >> 63 ? 1 : -1;
    for (int64_t j = 0; j < side->n; j++) w[j] += sign * side->U[i * side->ld + j];
    for (int64_t j = 0; j < n; j++) row[j] -= sign * P[i * ldp + j];
  }
  cv_gemm(CV_N, trans, 1, n, side->n, 1, w, side->n, X, ldx, 1, row, n);
  for (int64_t j = 0; j < n; j++) defect += (double)row[j] * (double)row[j];
  return defect / (double)side->r; /* |w|^2 = r */
}

/* Do P and R still agree with X? They do not when the caller captured another gradient than it handed to the step. */
static bool is_right(curvd_ctx *ctx, const cv_layer *layer) {
  const cv_lrps *G = &layer->factor[CV_G].applied.side, *A = &layer->factor[CV_A].applied.side;
  if (ctx->step % CHECK_EVERY != CHECK_EVERY - 1) return true;
  double tolerance = check_tolerance(ctx),
         defect = probe(CV_N, G, layer->n, layer->X, layer->ldx, layer->P, A->ld, ctx->thin);
  defect += probe(CV_T, A, layer->m, layer->X, layer->ldx, layer->R, G->ld, ctx->thin);
  return defect <= tolerance * tolerance * layer->squares_x;
}

/* After a step that ended without a direction nothing is known of P and R. */
void cv_follow_forget(curvd_ctx *ctx) {
  for (int32_t i = 0; i < ctx->n_layers; i++) {
    ctx->layer[i].is_following = false;
    ctx->layer[i].followed_rows = 0;
  }
}

/* Are P and R the projections of X now? Computes them where they do not follow; false where that is no gain. */
bool cv_follow_take(curvd_ctx *ctx, cv_layer *layer, const cv_pair *pair) {
  bool has_followed = layer->is_following && layer->followed_rows > 0;
  layer->followed_rows = 0;
  if (!layer->P) return false;
  if (has_followed && is_right(ctx, layer)) return true;
  if (has_followed) {
    cv_log_line(
        &ctx->log, CV_LOG_WARNING,
        "layer %s, step %lld: the captured gradient is not the one handed to the step; projections are computed whole",
        layer->name, (long long)ctx->step);
  }
  cv_pair_projections(pair, layer->X, layer->ldx, layer->P, layer->R);
  layer->is_following = true;
  return true;
}
