/* Statistics from c sampled rows in place of all: X (rows, n) becomes S (c, n) with E[S^T S] = X^T X, at c / rows of
 * the flops of the full product. For convolutions, where every position of every image is a row.
 *
 * Row i is drawn with p_i = 0.9 |x_i|^2 / |X|_F^2 + 0.1 / rows and weighs 1 / (c p_i). The first term keeps the sampled
 * rows short, w |x|^2 <= |X|_F^2 / (0.9 c); the second keeps the shortest rows within reach, w <= 10 rows / c.
 *
 * c independent draws have exactly
 *   E |S^T S - X^T X|_F^2 = (sum_i |x_i|^4 / p_i - |X^T X|_F^2) / c <= (|X|_F^4 / 0.9 - |X^T X|_F^2) / c,
 * for p_i >= 0.9 |x_i|^2 / |X|_F^2. Here the cumulative p is cut into c strata of equal mass with one draw in each: the
 * mean stays, and the variance is the mean of the variances inside the strata, which by the law of total variance never
 * exceeds that of independent draws. (One shared draw for all strata would not keep that promise: rows that repeat
 * with the period of the strata are then all taken or all missed.)
 *
 * Many workers: each thins its own X_q to c_q rows, and the sum of the products has the mean of one process. With
 * c_q >= c |X_q|_F^2 / |X|_F^2 it keeps the bound above, too, as x^2 is convex.
 * Bad when the effective rank is high: the error falls as 1 / sqrt(c) only. And a small error of X^T X is no promise
 * for a preconditioned direction: 16 srf2 rows (below) keep its cosine above 0.99 when damping is as large as the
 * largest eigenvalue, but with a tenth of the mean eigenvalue and exponent 1/2 it was 0.91 to 0.985; its distance from
 * 1 falls as 1 / c.
 *
 * Sources: Drineas, Kannan, Mahoney, SIAM J. Comput. 36 (2006), for lengths as probabilities;
 * Cochran, Sampling Techniques, 1977, chapter 5, for strata. */
#ifndef CV_LINALG_THIN_H
#define CV_LINALG_THIN_H

#include "base/rng.h"
#include "base/status.h"

#include <stdbool.h>
#include <stdint.h>

/* norms[i] = squared length of row i of X (rows, n), or with has_one of X (rows, n - 1) with a 1 behind each row. Their
 * sum is the trace of X^T X, exact where a sampled one would not be. */
void cv_thin_norms(int64_t rows, int64_t n, const float *X, int64_t ldx, bool has_one, double *norms);

/* A function of norms, c and key alone. index, weight (smaller of c and rows): chosen rows, ascending and possibly
 * repeated, and what their squares weigh; with c >= rows every row once with weight 1. ARGUMENT: c < 1 or rows < 0.
 * NUMERIC: a norm is negative or not finite, or their sum is not finite; index and weight are untouched then. */
curvd_status cv_thin_choose(int64_t rows, const double *norms, int64_t c, cv_rng key, int64_t *index, double *weight,
                            cv_error *err);

/* out (count, n), row k = sqrt(weight[k]) times row index[k] of X (rows, n) or, with has_one, of [X 1]. out must not
 * overlap X. */
void cv_thin_gather(int64_t count, int64_t n, const float *X, int64_t ldx, bool has_one, const int64_t *index,
                    const double *weight, float *out, int64_t ldo);

/* srf2 = |X|_F^4 / |X^T X|_F^2, at least 1: square of the effective rank of X^T X. Bound of the root mean square error
 * |S^T S - X^T X|_F / |X^T X|_F of c samples, and the fewest samples, at least 1, for which the bound is at most
 * tolerance: ceil((srf2 / 0.9 - 1) / tolerance^2). INT64_MAX, which keeps all rows, where that is not a number or too
 * large. */
double cv_thin_error(double srf2, int64_t c);
int64_t cv_thin_count(double srf2, double tolerance);

#endif
