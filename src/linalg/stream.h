/* The seeded streaming sketch: the low-rank part of a running average M (n, n) that is never made.
 *
 * Kept are Omega (k, n) with orthonormal rows (the seed), Y = Omega M (k, n) and the trace of M. M being linear in its
 * statistics, so is Y: M <- keep M + add X^T X means Y <- keep Y + add (Omega X^T) X, 4 n k rows flops and no more
 * memory than 2 n k. A solve is one Nystrom finish of (Omega, Y): U, D with U^T D U <= M and Omega U^T D U = Y. What it
 * misses, M - U^T D U, is therefore orthogonal to Omega, and its isotropic estimate gives
 *
 *   M^ = U^T D U + tau (I - Omega^T Omega),   tau = (trace - sum D) / (n - k)
 *
 * which has the trace of M and Omega M^ = Y. On any other seed Omega' the history is expressed anew as
 *
 *   Y' = Omega' M^ = (Omega' U^T) D U + tau (Omega' - (Omega' Omega^T) Omega),   for Omega' = U:
 *   Y' = D U + tau (U - (U Omega^T) Omega)
 *
 * U is the better seed: k = 1.5 times the kept pairs holds the error within a few per cent of the best low-rank
 * approximation while the eigenvectors turn. Where the rows of the window since the last reseed are at hand, a second
 * product with them repairs what a jump spoils. Behind the k rows of Omega lie CV_EIG_PROBES Gaussian rows W that never
 * change: their products with M are exact at any time and certify what a solve found (certify.h); as the same W judge
 * every solve, a bound that fails may fail for several solves in a row. Bad when the spectrum decays slowly within k
 * modes. Source of the finish: Tropp, Yurtsever, Udell, Cevher, NeurIPS 2017 (fixed-rank Nystrom from streams). */
#ifndef CV_LINALG_STREAM_H
#define CV_LINALG_STREAM_H

#include "linalg/eig.h"

/* Omega, Y: (k + CV_EIG_PROBES, n), rows ld apart; the rows behind k are the probes and their products. */
typedef struct cv_stream {
  int64_t n, k, ld; /* 1 <= k <= n */
  float *Omega, *Y;
  double trace; /* of M */
} cv_stream;

/* Scratch of every function below but cv_stream_add and cv_stream_repair. */
cv_eig_scratch cv_stream_scratch(int64_t n, int64_t k);

/* Omega (k + CV_EIG_PROBES, n) of a cold start: k Gaussian rows made orthonormal, and the probes. Depends on key, k and
 * n alone. NUMERIC: as cv_orthonormalise_rows. */
curvd_status cv_stream_seed(cv_rng key, int64_t k, int64_t n, float *Omega, int64_t ld, const cv_eig_work *work,
                            cv_error *err);

/* Some rows of statistics and their weight in M: X (rows, n) or, with has_one, (rows, n - 1) with a 1 behind each row.
 * rows may be 0. */
typedef struct cv_stream_rows {
  int64_t rows, ld;
  const float *X;
  bool has_one;
  double weight;
} cv_stream_rows;

/* S (rows_s, n) = beta S + weight (Omega X^T) X; beta 0: S holds anything. rows_s: rows of Omega, k + CV_EIG_PROBES of
 * a stream. T: scratch of cv_stream_add_scratch(rows_s) floats. Sums over workers of S are S of the sum.
 * by: NULL, fp32 or bf16x3, of the first k rows; the probes certify, so theirs are fp32. One term would not do: Omega
 * X^T and X are rounded apart, so that Y = Omega M of no semidefinite M, by 1e-3; where the spectrum ends within the k
 * rows, a solve divides that by an eigenvalue of rounding and fails. Three terms leave 4e-6, which its shift forgives.
 */
int64_t cv_stream_add_scratch(int64_t rows_s);
void cv_stream_add(const cv_multiplier *by, int64_t rows_s, int64_t n, const float *Omega, int64_t ldo,
                   const cv_stream_rows *X, float beta, float *S, int64_t lds, float *T);

/* Trace of weight X^T X. */
double cv_stream_trace(const cv_stream_rows *X, int64_t n);

/* Y <- keep Y + add S, trace <- keep trace + add trace_s. */
void cv_stream_mix(cv_stream *stream, double keep, double add, const float *S, int64_t lds, double trace_s);

/* U (k + CV_EIG_PROBES, ldu), D (k): eigenpairs of the estimate, as of cv_eig_ops.solve. Of the problem eig_rank, tail,
 * tolerance, kept_min, kept_max and key matter; of the result products is 0. The stream stays as it is. NUMERIC: Omega,
 * Y or the trace are not finite, or the finish failed as in eig.h; U, D, *result then hold anything. */
curvd_status cv_stream_solve(const cv_stream *stream, const cv_eig_problem *problem, const cv_eig_work *work, float *U,
                             int64_t ldu, float *D, cv_eig_result *result, cv_error *err);

/* Draws the rows of a seed (k, n) behind its first `given`, which are orthonormal, and makes them orthonormal to those.
 * NUMERIC: as cv_orthonormalise_rows. */
curvd_status cv_stream_complete(int64_t n, int64_t k, int64_t given, float *seed, int64_t ld, cv_rng key,
                                const cv_eig_work *work, cv_error *err);

/* Expresses the history on a new seed: U (found, n), D are what cv_stream_solve made of this stream, Omega' is seed
 * (given, n), orthonormal, given <= k, and rows drawn from key and made orthonormal to it. seed may be U. Probes, their
 * products and the trace stay. NUMERIC: as cv_orthonormalise_rows, with given < k; the stream then stays as it is. */
curvd_status cv_stream_reseed(cv_stream *stream, int64_t found, const float *U, int64_t ldu, const float *D,
                              int64_t given, const float *seed, int64_t lds, cv_rng key, const cv_eig_work *work,
                              cv_error *err);

/* A second product, in fp32. M is history + window: the history is a stream without the window's rows, decayed to now
 * (Y and trace less those of the window: cv_stream_add and cv_stream_trace with negative weights); U (found) is what
 * cv_stream_solve made of the sum. The history's estimate is expressed on the seed U and the window's rows are added to
 * it: history <- U (M^ of the history + window), and U, D, *result <- its solve. Then the stream can be reseeded.
 * NUMERIC: as cv_stream_solve, for the history or the sum; the history and U, D, *result then hold anything. */
cv_eig_scratch cv_stream_repair_scratch(int64_t n, int64_t k);
curvd_status cv_stream_repair(cv_stream *history, int64_t n_window, const cv_stream_rows *window,
                              const cv_eig_problem *problem, const cv_eig_work *work, int64_t found, float *U,
                              int64_t ldu, float *D, cv_eig_result *result, cv_error *err);

#endif
