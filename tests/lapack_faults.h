/* LAPACK that fails, or returns garbage with info 0, in the calls that a test chooses. The executable's own ssyevd_,
 * dsyevd_ and dpotrf_ stand before OpenBLAS's, which do the work. Included once, before everything else. */
#ifndef TESTS_LAPACK_FAULTS_H
#define TESTS_LAPACK_FAULTS_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* RTLD_NEXT */
#endif
#include <check.h>
#include <dlfcn.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

typedef enum fault_kind {
  FAULT_INFO,       /* info 3, and garbage */
  FAULT_UNTOUCHED,  /* info 0, as all that follow: nothing was written */
  FAULT_ZERO,       /* values and vectors 0 */
  FAULT_NO_VECTORS, /* vectors 0, right values */
  FAULT_RANDOM,     /* random vectors */
  FAULT_NAN,
  FAULT_NAN_VALUE, /* the largest eigenvalue is NaN */
  FAULT_SWAPPED,   /* the two largest values, but not their vectors */
  FAULT_REVERSED,  /* right pairs, largest first */
  FAULT_SCALED,    /* values 0.9 of what they are */
  FAULT_ROTATED,   /* the two leading vectors turned by 0.2 */
  FAULT_TWICE,     /* the second vector is the first */
  FAULT_KINDS
} fault_kind;

static const char *const fault_name[FAULT_KINDS] = {"info 3",   "untouched", "zero",      "no vectors",
                                                    "random",   "NaN",       "NaN value", "swapped",
                                                    "reversed", "scaled",    "rotated",   "twice"};

/* Calls first .. last of a routine are spoilt, counted from 0 since fault_arm; with a clock, those of its hour alone.
 */
typedef struct fault {
  fault_kind kind;
  int64_t first, last, calls, spoilt;
  const int64_t *clock;
  int64_t hour;
} fault;

static fault fault_ssyevd = {.last = -1}, fault_dsyevd = {.last = -1}, fault_dpotrf = {.last = -1};

static inline void fault_arm(fault *f, fault_kind kind, int64_t first, int64_t last) {
  *f = (fault){.kind = kind, .first = first, .last = last};
}

static inline void fault_disarm(void) {
  fault_ssyevd = fault_dsyevd = fault_dpotrf = (fault){.last = -1};
}

static inline bool fault_is_now(fault *f) {
  if (f->clock && *f->clock != f->hour) return false;
  bool is_now = f->calls >= f->first && f->calls <= f->last;
  f->calls++;
  f->spoilt += is_now;
  return is_now;
}

static inline void *fault_real(const char *symbol) {
  void *real = dlsym(RTLD_NEXT, symbol);
  if (!real) ck_abort_msg("no %s behind this one", symbol);
  return real;
}

static inline double fault_noise(int64_t i) {
  return sin(12.9898 * (double)(i + 1)) * 0.7;
}

/* The eigensolvers in both precisions: vectors are the rows of A (n, lda), w ascends. */
#define FAULT_SYEVD(NAME, REAL, FAULT)                                                                                 \
  void NAME(const char *jobz, const char *uplo, const int *n, REAL *A, const int *lda, REAL *w, REAL *work,            \
            const int *lwork, int *iwork, const int *liwork, int *info, size_t, size_t);                               \
  typedef void (*NAME##type)(const char *, const char *, const int *, REAL *, const int *, REAL *, REAL *,             \
                             const int *, int *, const int *, int *, size_t, size_t);                                  \
                                                                                                                       \
  static void NAME##swap(REAL *x, REAL *y) {                                                                           \
    REAL t = *x;                                                                                                       \
    *x = *y, *y = t;                                                                                                   \
  }                                                                                                                    \
                                                                                                                       \
  static void NAME##fill(fault_kind kind, int64_t n, int64_t lda, REAL *A, REAL *w) {                                  \
    for (int64_t i = 0; i < n; i++) {                                                                                  \
      if (kind == FAULT_ZERO) w[i] = 0;                                                                                \
      if (kind == FAULT_NAN) w[i] = (REAL)NAN;                                                                         \
      if (kind == FAULT_SCALED) w[i] *= (REAL)0.9;                                                                     \
      for (int64_t j = 0; j < n; j++) {                                                                                \
        REAL *x = &A[i * lda + j];                                                                                     \
        if (kind == FAULT_ZERO || kind == FAULT_NO_VECTORS) *x = 0;                                                    \
        if (kind == FAULT_RANDOM || kind == FAULT_INFO) *x = (REAL)fault_noise(i * n + j);                             \
        if (kind == FAULT_NAN) *x = (REAL)NAN;                                                                         \
      }                                                                                                                \
    }                                                                                                                  \
  }                                                                                                                    \
                                                                                                                       \
  static void NAME##reverse(int64_t n, int64_t lda, REAL *A, REAL *w) {                                                \
    for (int64_t i = 0; i < n / 2; i++) {                                                                              \
      NAME##swap(&w[i], &w[n - 1 - i]);                                                                                \
      for (int64_t j = 0; j < n; j++) NAME##swap(&A[i * lda + j], &A[(n - 1 - i) * lda + j]);                          \
    }                                                                                                                  \
  }                                                                                                                    \
                                                                                                                       \
  static void NAME##turn(fault_kind kind, int64_t n, REAL *first, REAL *second) {                                      \
    const REAL c = (REAL)cos(0.2), s = (REAL)sin(0.2);                                                                 \
    for (int64_t j = 0; j < n; j++) {                                                                                  \
      REAL x = first[j], y = second[j];                                                                                \
      if (kind == FAULT_ROTATED) first[j] = c * x - s * y, second[j] = s * x + c * y;                                  \
      if (kind == FAULT_TWICE) second[j] = x;                                                                          \
    }                                                                                                                  \
  }                                                                                                                    \
                                                                                                                       \
  static void NAME##spoil(fault_kind kind, int64_t n, int64_t lda, REAL *A, REAL *w) {                                 \
    NAME##fill(kind, n, lda, A, w);                                                                                    \
    if (kind == FAULT_NAN_VALUE) w[n - 1] = (REAL)NAN;                                                                 \
    if (kind == FAULT_REVERSED) NAME##reverse(n, lda, A, w);                                                           \
    if (n < 2) return;                                                                                                 \
    if (kind == FAULT_SWAPPED) NAME##swap(&w[n - 1], &w[n - 2]);                                                       \
    NAME##turn(kind, n, A + (n - 1) * lda, A + (n - 2) * lda);                                                         \
  }                                                                                                                    \
                                                                                                                       \
  void NAME(const char *jobz, const char *uplo, const int *n, REAL *A, const int *lda, REAL *w, REAL *work,            \
            const int *lwork, int *iwork, const int *liwork, int *info, size_t a, size_t b) {                          \
    bool is_now = fault_is_now(&FAULT);                                                                                \
    *info = 0;                                                                                                         \
    if (is_now && FAULT.kind == FAULT_UNTOUCHED) return;                                                               \
    void *real = fault_real(#NAME);                                                                                    \
    NAME##type call;                                                                                                   \
    memcpy(&call, &real, sizeof call);                                                                                 \
    call(jobz, uplo, n, A, lda, w, work, lwork, iwork, liwork, info, a, b);                                            \
    if (is_now) NAME##spoil(FAULT.kind, *n, *lda, A, w);                                                               \
    if (is_now && FAULT.kind == FAULT_INFO) *info = 3;                                                                 \
  }

FAULT_SYEVD(ssyevd_, float, fault_ssyevd)
FAULT_SYEVD(dsyevd_, double, fault_dsyevd)

/* Cholesky, lower triangle of the row-major A: kinds that make no sense for it do what the nearest one does. */
void dpotrf_(const char *uplo, const int *n, double *A, const int *lda, int *info, size_t);
typedef void (*dpotrf_type)(const char *, const int *, double *, const int *, int *, size_t);

static inline void dpotrf_spoil(fault_kind kind, int64_t n, int64_t lda, double *A) {
  for (int64_t i = 0; i < n; i++) {
    for (int64_t j = 0; j <= i; j++) {
      double *x = &A[i * lda + j];
      if (kind == FAULT_ZERO || kind == FAULT_NO_VECTORS) *x = 0;
      if (kind == FAULT_NAN || kind == FAULT_NAN_VALUE) *x = NAN;
      if (kind == FAULT_RANDOM || kind == FAULT_INFO) *x = fault_noise(i * n + j) + (i == j);
      if (kind >= FAULT_SWAPPED) *x *= 0.9;
    }
  }
}

void dpotrf_(const char *uplo, const int *n, double *A, const int *lda, int *info, size_t a) {
  bool is_now = fault_is_now(&fault_dpotrf);
  *info = 0;
  if (is_now && fault_dpotrf.kind == FAULT_UNTOUCHED) return;
  void *real = fault_real("dpotrf_");
  dpotrf_type call;
  memcpy(&call, &real, sizeof call);
  call(uplo, n, A, lda, info, a);
  if (!is_now) return;
  dpotrf_spoil(fault_dpotrf.kind, *n, *lda, A);
  *info = fault_dpotrf.kind == FAULT_INFO ? 3 : 0;
}

#endif
