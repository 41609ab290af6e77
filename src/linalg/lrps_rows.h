/* A function of a low-rank-plus-scalar factor applied to the rows of a batch, and the preconditioned gradient of a
 * layer made from them. A gradient that is a sum over rows, g^T a, needs no product with the (m, n) gradient:
 *
 *   f(G) (g^T [a 1]) f(A) = (g f(G))^T ([a 1] f(A)),   f(x) = (x + damping)^-exponent,
 *
 * 4 rows (m r_G + n r_A) flops where pair.h takes 4 m n (r_G + r_A): better on a side for rows below the size of the
 * OTHER side. Only for damping that is separable (lrps.h), and before anything else is added to the gradient (weight
 * decay).
 *
 * With v_i = sqrt|f(D_i) / f(tau) - 1| u_i, once per refresh, a row costs two products and no pass:
 *
 *   y = f(tau) (x -+ V^T V x),   minus where f(D_i) < f(tau)
 *
 * f(tau) is left out of V so that it can be left to whoever scales the result anyway. With r = n the whole of f(M) is
 * made instead and a row costs 2 n n flops.
 *
 * A multiplier of bf16 numbers gets V and V^T packed, also once per refresh. What its rounding adds to a row is a share
 * of the row's length times the largest f: what f damps a thousandfold is not known to a thousandth. */
#ifndef CV_LINALG_LRPS_ROWS_H
#define CV_LINALG_LRPS_ROWS_H

#include "linalg/lrps.h"
#include "product/multiply.h"

/* f(M) of one side, in the caller's memory; needs nothing of the cv_lrps it was made of. */
typedef struct cv_lrps_rows {
  int64_t n, r;            /* r = 0: scale times the identity */
  int64_t r_minus;         /* the first of V's rows, which are subtracted */
  int64_t ld;              /* of V */
  const float *V;          /* (r, n) */
  const cv_multiplier *by; /* all products are its */
  cv_packed to_pairs;      /* V^T (n, r), and ... */
  cv_packed to_rows;       /* ... V (r, n) with its signs, of a multiplier that packs; with r = n: f(M) / scale */
  double scale;            /* f(tau); with r = n the largest f(D_i) */
} cv_lrps_rows;

/* f(M) of a side, or of the identity side (lrps.h: f = 1). by: who will multiply; NULL: fp32. store:
 * cv_lrps_rows_store(n, r) floats, packed: cv_lrps_rows_packed(precision, n, r) bf16 numbers (fp32: none, and NULL);
 * both grow with r, and are kept, as by is, as long as *rows is used. ARGUMENT: sizes, damping or exponent out of range
 * (exponent in [0, 1], damping finite and >= 0). NUMERIC: tau or D not finite, negative or not descending, or f not
 * finite in fp32: zero eigenvalue and zero damping. *rows is untouched then, store and packed are not. */
int64_t cv_lrps_rows_store(int64_t n, int64_t r);
int64_t cv_lrps_rows_packed(cv_precision precision, int64_t n, int64_t r);
curvd_status cv_lrps_rows_make(const cv_lrps *side, bool is_identity, double damping, double exponent,
                               const cv_multiplier *by, float *store, uint16_t *packed, cv_lrps_rows *rows,
                               cv_error *err);

/* Y (count, n) = X f(M), X (count, n), or with has_one [X 1] f(M), X (count, n - 1). Y may be X with the same ld (with
 * has_one: of at least n), else they must not overlap. work: cv_lrps_rows_scratch(n, r, count) floats, which grows with
 * r and count. */
int64_t cv_lrps_rows_scratch(int64_t n, int64_t r, int64_t count);
void cv_lrps_rows_apply(const cv_lrps_rows *rows, int64_t count, const float *X, int64_t ldx, bool has_one, float *Y,
                        int64_t ldy, float *work);

/* The same without the factor rows->scale: saves a pass over Y when it is X. */
void cv_lrps_rows_apply_unscaled(const cv_lrps_rows *rows, int64_t count, const float *X, int64_t ldx, bool has_one,
                                 float *Y, int64_t ldy, float *work);

/* out (m, n) = keep out + scale (g f(G))^T (a f(A)), g (count, m), a (count, n) or, with has_one, [a 1] from (count, n
 * - 1). With keep 0 out may hold anything. In blocks of at most CV_LRPS_ROWS_BLOCK rows; g and a stay as they are.
 * Whoever may overwrite them saves the copies: cv_lrps_rows_apply_unscaled in place on both, then one product of scale
 * times both factors' scales. Both sides were made for the same multiplier, which makes that product, too. work:
 * cv_lrps_rows_direction_scratch floats, which grows with each size. NUMERIC: scale times both factors' scales is not
 * finite in fp32; out is untouched then. */
enum { CV_LRPS_ROWS_BLOCK = 512 };
int64_t cv_lrps_rows_direction_scratch(int64_t m, int64_t r_g, int64_t n, int64_t r_a, int64_t count);
curvd_status cv_lrps_rows_direction(const cv_lrps_rows *G, const cv_lrps_rows *A, int64_t count, const float *g,
                                    int64_t ldg, const float *a, int64_t lda, bool has_one, float scale, float keep,
                                    float *out, int64_t ldo, float *work, cv_error *err);

#endif
