/* A function of a Kronecker product G (x) A, both sides low rank plus scalar, applied to a gradient X (m, n) in two
 * halves: projecting onto the eigenvectors tells how long the result will be, so that a clip or a normalisation costs
 * no further pass; expanding writes it.
 *
 *   P = U_G X (r_G, n), R = U_A X^T (r_A, m), Z = P U_A^T (r_G, r_A), h = H_tt:
 *   out = h X + U_G^T [(H_it - h) .* P] + [(H_tj - h) .* R + ((H - H_it - H_tj + h) .* Z)^T U_G]^T U_A
 *
 * The two last terms are one product of inner size r_G + r_A, since P is kept above U_A and R below U_G. 4 m n (r_G +
 * r_A) flops. With a full side the result is made at once, in that side's eigenbasis: 4 m n n flops for A, 4 m m n for
 * G. */
#ifndef CV_LINALG_PAIR_H
#define CV_LINALG_PAIR_H

#include "linalg/lrps.h"
#include "product/multiply.h"

/* Both sides of a layer, and the room that the halves need: G->U is followed by A->r more rows of the same ld, A->U is
 * preceded by G->r rows of the same ld. */
typedef struct cv_pair {
  const cv_lrps *G, *A;
  const float *H;          /* cv_spectral_table */
  float *plane;            /* 2 m cv_dense_ld(n) floats when a side is full */
  float *core;             /* r_G r_A floats when none is */
  const cv_multiplier *by; /* NULL: fp32 */
} cv_pair;

/* What is known of the result before it is written. */
typedef struct cv_pair_sums {
  double squares;  /* sum of squares of the unscaled result */
  double dot;      /* <result, X> */
  bool is_written; /* out holds the unscaled result already (a side is full) */
  bool is_certain; /* squares and dot are right to about 1e-3, of bf16 products 1e-2; else measure the result itself */
} cv_pair_sums;

/* P (r_G, n), rows A->ld apart, and R (r_A, m), rows G->ld apart, from X. */
void cv_pair_projections(const cv_pair *pair, const float *X, int64_t ldx, float *P, float *R);

/* First half. P, R: projections of X, or NULL: computed here. squares_x: sum of squares of X. out: written only when a
 * side is full; it may be X. */
cv_pair_sums cv_pair_project(const cv_pair *pair, const float *X, int64_t ldx, double squares_x, const float *P,
                             const float *R, float *out, int64_t ldo);

/* Second half, after a first one that did not write: out = keep * out + scale * result. With keep 0 out may hold
 * anything, and may be X. */
void cv_pair_expand(const cv_pair *pair, float scale, const float *X, int64_t ldx, float keep, float *out, int64_t ldo);

#endif
