/* One product of matrices, by BLAS and by every wanted multiplier, in turn. */
#ifndef PRODUCT_RUN_H
#define PRODUCT_RUN_H

#include "base/options.h"
#include "blocks.h"
#include "multiplier.h"

enum { PRODUCT_CASES_MAX = 2 * 8 };

typedef enum product_kind { PRODUCT_PLAIN, PRODUCT_PACKED, PRODUCT_GRAM } product_kind;
#define PRODUCT_KINDS "plain|packed|gram"

/* C (m, n) = op(A) op(B), op(A) (m, k), op(B) (k, n). gram: the lower triangle of C (n, n) = X^T X, X (k, n) = B. */
typedef struct product_options {
  int64_t m, n, k, rounds, block, seed;
  int32_t kind;                  /* product_kind */
  bool trans_a, trans_b;         /* does the matrix in memory have the other shape? */
  int32_t precision;             /* cv_precision; CV_FP32: all the others */
  char unit[CV_OPTION_TEXT_MAX]; /* "all": every one that is there */
} product_options;

/* One multiplier: what it costs, and its error. */
typedef struct product_case {
  cv_multiplier by;
  cv_packed packed; /* of PRODUCT_PACKED */
  uint16_t *store;
  double ms[BLOCKS_MAX]; /* of one product, block by block */
  double error;          /* Frobenius, of some columns, over that of the product */
} product_case;

/* The first case is fp32. */
typedef struct product_run {
  product_options options;
  cv_memory memory;
  int64_t lda, ldb, ldc;
  float *A, *B, *C;
  product_case cases[PRODUCT_CASES_MAX];
  int n_cases;
} product_run;

/* NUMERIC: an error beyond what the precision's rounding explains. Close it in any case. */
curvd_status product_open(product_run *run, cv_error *err);
curvd_status product_measure(product_run *run, cv_error *err);
void product_close(product_run *run);

/* Floating-point operations of one product. */
double product_flops(const product_options *options);

#endif
