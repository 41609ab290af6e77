#include "linalg/lrps_rows.h"

#include "base/order.h"
#include "linalg/dense.h"

#include <math.h>
#include <stddef.h>

enum { MAKE_BLOCK = 64 }; /* eigenvectors scaled at a time on the way to the whole of f(M) */

static bool is_full(int64_t n, int64_t r) {
  return r == n;
}

/* ---- once per refresh ---- */

int64_t cv_lrps_rows_store(int64_t n, int64_t r) {
  return (is_full(n, r) ? n + cv_smaller(n, MAKE_BLOCK) : r) * cv_dense_ld(n);
}

int64_t cv_lrps_rows_packed(cv_precision precision, int64_t n, int64_t r) {
  return cv_packed_room(precision, n, r) + cv_packed_room(precision, r, n);
}

static curvd_status check_range(const cv_lrps *side, double damping, double exponent, cv_error *err) {
  if (side->n < 1 || side->r < 0 || side->r > side->n)
    return cv_fail(err, CURVD_ERR_ARGUMENT, "%lld eigenpairs of a factor of n = %lld", (long long)side->r,
                   (long long)side->n);
  if (!(damping >= 0 && isfinite(damping) && exponent >= 0 && exponent <= 1))
    return cv_fail(err, CURVD_ERR_ARGUMENT, "damping %g must be finite and >= 0, exponent %g in [0, 1]", damping,
                   exponent);
  return CURVD_OK;
}

/* Descending order is what lets V be subtracted and added in two pieces. */
static curvd_status check_spectrum(const cv_lrps *side, cv_error *err) {
  for (int64_t i = 0; i < side->r; i++) {
    if (!(side->D[i] >= 0 && isfinite(side->D[i]) && (i == 0 || side->D[i] <= side->D[i - 1])))
      return cv_fail(err, CURVD_ERR_NUMERIC, "eigenvalue %lld of %lld is %g: they must be finite, >= 0 and descending",
                     (long long)i, (long long)side->r, side->D[i]);
  }
  if (is_full(side->n, side->r) || (side->tau >= 0 && isfinite(side->tau))) return CURVD_OK;
  return cv_fail(err, CURVD_ERR_NUMERIC, "the tail's eigenvalue is %g: it must be finite and >= 0", side->tau);
}

/* f is largest at the smallest eigenvalue: if it is finite in fp32 there, it is everywhere. */
static curvd_status check_function(const cv_lrps *side, double damping, double exponent, cv_error *err) {
  bool has_tail = !is_full(side->n, side->r);
  double least = has_tail ? side->tau : side->D[side->r - 1];
  if (has_tail && side->r > 0) least = fmin(least, side->D[side->r - 1]);
  if (isfinite((float)pow(least + damping, -exponent))) return CURVD_OK;
  return cv_fail(err, CURVD_ERR_NUMERIC,
                 "(%g + damping %g)^-%g is not finite: a zero eigenvalue meets zero damping: raise damping", least,
                 damping, exponent);
}

/* v (n) = sqrt(weight) u */
static void scale_vector(int64_t n, double weight, const float *u, float *v) {
  cv_mix(1, n, (float)sqrt(weight), u, n, 0, v, n);
}

/* V (r, n) from the ratios f(D_i) / f(tau). */
static void make_low(const cv_lrps *side, double damping, double exponent, float *V, cv_lrps_rows *rows) {
  rows->scale = pow(side->tau + damping, -exponent);
  rows->r_minus = 0;
  for (int64_t i = 0; i < side->r; i++) {
    double more = pow(side->D[i] + damping, -exponent) / rows->scale - 1;
    if (more <= 0) rows->r_minus = i + 1;
    scale_vector(side->n, fabs(more), side->U + i * side->ld, V + i * rows->ld);
  }
}

/* F (n, n) = f(M) / f(the smallest eigenvalue), a block of eigenvectors at a time. */
static void make_full(const cv_lrps *side, double damping, double exponent, float *F, uint16_t *packed,
                      cv_lrps_rows *rows) {
  int64_t n = side->n, ld = rows->ld;
  float *block = F + n * ld;
  rows->scale = pow(side->D[n - 1] + damping, -exponent);
  for (int64_t first = 0; first < n; first += MAKE_BLOCK) {
    int64_t count = cv_smaller(n - first, MAKE_BLOCK);
    for (int64_t i = 0; i < count; i++) {
      double share = pow(side->D[first + i] + damping, -exponent) / rows->scale;
      scale_vector(n, share, side->U + (first + i) * side->ld, block + i * ld);
    }
    cv_gram_columns(n, count, 1, block, ld, first > 0 ? 1 : 0, F, ld);
  }
  cv_mirror(n, F, ld);
  rows->to_rows = cv_pack(rows->by, CV_N, n, n, F, ld, packed);
}

/* With the signs in one of the operands, pieces of both signs are one product. V keeps them. */
static void pack_low(float *V, uint16_t *packed, cv_lrps_rows *rows) {
  int64_t n = rows->n, r = rows->r, ld = rows->ld;
  rows->to_pairs = cv_pack(rows->by, CV_T, n, r, V, ld, packed);
  cv_mix(rows->r_minus, n, -1, V, ld, 0, V, ld);
  rows->to_rows = cv_pack(rows->by, CV_N, r, n, V, ld, packed + cv_packed_room(rows->by->precision, n, r));
}

curvd_status cv_lrps_rows_make(const cv_lrps *side, bool is_identity, double damping, double exponent,
                               const cv_multiplier *by, float *store, uint16_t *packed, cv_lrps_rows *rows,
                               cv_error *err) {
  CV_TRY(check_range(side, damping, exponent, err));
  cv_lrps_rows made = {.n = side->n, .r = side->r, .ld = cv_dense_ld(side->n), .V = store, .by = by, .scale = 1};
  if (is_identity || exponent == 0) {
    made.r = 0;
  } else {
    CV_TRY(check_spectrum(side, err));
    CV_TRY(check_function(side, damping, exponent, err));
    if (is_full(side->n, side->r)) {
      make_full(side, damping, exponent, store, packed, &made);
    } else {
      make_low(side, damping, exponent, store, &made);
      if (!cv_is_fp32(by)) pack_low(store, packed, &made);
    }
  }
  *rows = made;
  return CURVD_OK;
}

/* ---- every batch ---- */

int64_t cv_lrps_rows_scratch(int64_t n, int64_t r, int64_t count) {
  int64_t low = r * cv_dense_ld(count);
  return is_full(n, r) ? cv_larger(low, count * cv_dense_ld(n)) : low;
}

/* Y (count, n) = factor X or factor [X 1] */
static void lay(int64_t count, int64_t n, float factor, const float *X, int64_t ldx, bool has_one, float *Y,
                int64_t ldy) {
  if (Y != X || factor != 1) cv_mix(count, n - (has_one ? 1 : 0), factor, X, ldx, 0, Y, ldy);
  for (int64_t i = 0; has_one && i < count; i++) Y[i * ldy + n - 1] = factor;
}

/* Y (count, n) <- Y -+ (V Y^T)^T V. T (r, count): this way round is 1 to 3 % faster than (count, r). */
static void reflect(const cv_lrps_rows *rows, int64_t count, float *Y, int64_t ldy, float *T) {
  int64_t n = rows->n, minus = rows->r_minus, plus = rows->r - minus, ld = rows->ld, ldt = cv_dense_ld(count);
  const float *V = rows->V;
  if (rows->r > 0) cv_gemm(CV_N, CV_T, rows->r, count, n, 1, V, ld, Y, ldy, 0, T, ldt);
  if (minus > 0) cv_gemm(CV_T, CV_N, count, n, minus, -1, T, ldt, V, ld, 1, Y, ldy);
  if (plus > 0) cv_gemm(CV_T, CV_N, count, n, plus, 1, T + minus * ldt, ldt, V + minus * ld, ld, 1, Y, ldy);
}

/* The same with packed operands, which are right ones: T (count, r). */
static void reflect_packed(const cv_lrps_rows *rows, int64_t count, float *Y, int64_t ldy, float *T) {
  if (rows->r == 0) return;
  cv_multiply_packed(rows->by, CV_N, count, 1, Y, ldy, &rows->to_pairs, 0, T, rows->r);
  cv_multiply_packed(rows->by, CV_N, count, 1, T, rows->r, &rows->to_rows, 1, Y, ldy);
}

/* Y = factor [X 1] f(M) / scale */
static void apply(const cv_lrps_rows *rows, float factor, int64_t count, const float *X, int64_t ldx, bool has_one,
                  float *Y, int64_t ldy, float *work) {
  int64_t n = rows->n;
  if (!is_full(n, rows->r)) {
    lay(count, n, factor, X, ldx, has_one, Y, ldy);
    (cv_is_fp32(rows->by) ? reflect : reflect_packed)(rows, count, Y, ldy, work);
    return;
  }
  const float *in = X;
  int64_t ld_in = ldx;
  if (has_one || Y == X) {
    ld_in = cv_dense_ld(n);
    lay(count, n, 1, X, ldx, has_one, work, ld_in);
    in = work;
  }
  cv_multiply_packed(rows->by, CV_N, count, factor, in, ld_in, &rows->to_rows, 0, Y, ldy);
}

void cv_lrps_rows_apply(const cv_lrps_rows *rows, int64_t count, const float *X, int64_t ldx, bool has_one, float *Y,
                        int64_t ldy, float *work) {
  apply(rows, (float)rows->scale, count, X, ldx, has_one, Y, ldy, work);
}

void cv_lrps_rows_apply_unscaled(const cv_lrps_rows *rows, int64_t count, const float *X, int64_t ldx, bool has_one,
                                 float *Y, int64_t ldy, float *work) {
  apply(rows, 1, count, X, ldx, has_one, Y, ldy, work);
}

/* ---- a layer's direction ---- */

int64_t cv_lrps_rows_direction_scratch(int64_t m, int64_t r_g, int64_t n, int64_t r_a, int64_t count) {
  int64_t most = cv_smaller(count, CV_LRPS_ROWS_BLOCK);
  return most * (cv_dense_ld(m) + cv_dense_ld(n)) +
         cv_larger(cv_lrps_rows_scratch(m, r_g, most), cv_lrps_rows_scratch(n, r_a, most));
}

/* Rows with their leading dimension. */
typedef struct row_block {
  const float *x;
  int64_t ld;
} row_block;

/* A block of [X 1] f(M) / scale: X itself where nothing changes it, else made in Y, whose ld is cv_dense_ld(n). */
static row_block block_of(const cv_lrps_rows *rows, int64_t count, const float *X, int64_t ldx, bool has_one, float *Y,
                          float *work) {
  int64_t ld = cv_dense_ld(rows->n);
  if (rows->r == 0 && !has_one) return (row_block){X, ldx};
  apply(rows, 1, count, X, ldx, has_one, Y, ld, work);
  return (row_block){Y, ld};
}

/* Blocks of equal size, as short ones are slow; each of them costs the product one more pass over out. */
static int64_t block_rows(int64_t count) {
  int64_t blocks = cv_larger((count + CV_LRPS_ROWS_BLOCK - 1) / CV_LRPS_ROWS_BLOCK, 1);
  return cv_larger((count + blocks - 1) / blocks, 1);
}

curvd_status cv_lrps_rows_direction(const cv_lrps_rows *G, const cv_lrps_rows *A, int64_t count, const float *g,
                                    int64_t ldg, const float *a, int64_t lda, bool has_one, float scale, float keep,
                                    float *out, int64_t ldo, float *work, cv_error *err) {
  int64_t m = G->n, n = A->n, step = block_rows(count), most = cv_smaller(count, step), first = 0;
  float *Y = work, *Z = Y + most * cv_dense_ld(m), *rest = Z + most * cv_dense_ld(n);
  float alpha = (float)(scale * G->scale * A->scale);
  if (!isfinite(alpha))
    return cv_fail(err, CURVD_ERR_NUMERIC, "a direction is scaled by %g, %g of G and %g of A: raise damping", scale,
                   G->scale, A->scale);
  do { /* once for no rows at all: out <- keep out */
    int64_t some = cv_smaller(count - first, step);
    row_block left = block_of(G, some, g + first * ldg, ldg, false, Y, rest);
    row_block right = block_of(A, some, a + first * lda, lda, has_one, Z, rest);
    cv_multiply(A->by, CV_T, CV_N, m, n, some, alpha, left.x, left.ld, right.x, right.ld, first > 0 ? 1 : keep, out,
                ldo);
    first += some;
  } while (first < count);
  return CURVD_OK;
}
