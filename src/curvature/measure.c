/* The constants of this rank, measured: the least wall clock of several repeats, so that other programs on the machine
 * disturb little. */
#include "base/clock.h"
#include "base/rng.h"
#include "curvature/forecast.h"
#include "linalg/dense.h"

#include <math.h>
#include <string.h>

enum {
  N = 1024,
  ROWS = 512,       /* sizes of a common layer and batch */
  COPIED = 1 << 23, /* floats: beyond most caches */
  REPEATS = 9,
  EIG_SMALL = 96,
  EIG_LARGE = 288
};

typedef struct bench {
  float *X, *Y, *Z; /* (N, N), and together room for COPIED floats to copy from and to */
  double *D, *work;
  float *work32;
  int32_t *iwork;
  int64_t n; /* of an eigenproblem */
  cv_error *err;
  curvd_status status;
} bench;

static void multiply(bench *b) {
  cv_gemm(CV_N, CV_T, ROWS, N, N, 1, b->X, N, b->Y, N, 0, b->Z, N);
}

static void add_products(bench *b) {
  cv_gram_columns(N, ROWS, 1, b->X, N, 0, b->Z, N);
}

static void copy(bench *b) {
  memcpy(b->Z, b->X, COPIED * sizeof(float));
}

/* A symmetric matrix of full rank, anew each time: the last call left eigenvectors. */
static double entry(int64_t i, int64_t j, int64_t n) {
  return i == j ? 2 + (double)i / (double)n : sin((double)(i + j) * 1.7) / (double)n;
}

static void decompose32(bench *b) {
  float *w = b->X + b->n * b->n;
  for (int64_t i = 0; i < b->n * b->n; i++) b->X[i] = (float)entry(i / b->n, i % b->n, b->n);
  if (b->status == CURVD_OK) b->status = cv_syev_f32(b->n, b->X, b->n, w, b->work32, b->iwork, b->err);
}

static void decompose64(bench *b) {
  double *w = b->D + b->n * b->n;
  for (int64_t i = 0; i < b->n * b->n; i++) b->D[i] = entry(i / b->n, i % b->n, b->n);
  if (b->status == CURVD_OK) b->status = cv_syev_f64(b->n, b->D, b->n, w, b->work, b->iwork, b->err);
}

static double least_s(void (*run)(bench *), bench *b) {
  double least = INFINITY;
  run(b); /* warms caches and BLAS */
  for (int i = 0; i < REPEATS; i++) {
    double begin = cv_wall_s();
    run(b);
    least = fmin(least, cv_wall_s() - begin);
  }
  return fmax(least, 1e-9);
}

/* square n^2 + cube n^3 through two sizes; both stay positive on a noisy machine. */
static void fit(void (*run)(bench *), bench *b, double *square, double *cube) {
  const double small = EIG_SMALL, large = EIG_LARGE;
  b->n = EIG_SMALL;
  double a = least_s(run, b) / (small * small);
  b->n = EIG_LARGE;
  double c = least_s(run, b) / (large * large);
  *cube = fmax((c - a) / (large - small), 0);
  *square = fmax(a - *cube * small, 0);
  if (*cube == 0) *square = c;
}

static void measure(bench *b, curvd_machine *out) {
  const double n = N, rows = ROWS;
  out->gemm_flops_s = 2 * rows * n * n / least_s(multiply, b);
  out->syrk_flops_s = rows * n * (n + 1) / least_s(add_products, b);
  out->copy_bytes_s = sizeof(float) * (double)COPIED / least_s(copy, b);
  fit(decompose32, b, &out->eig32_square_s, &out->eig32_cube_s);
  fit(decompose64, b, &out->eig64_square_s, &out->eig64_cube_s);
}

static curvd_status make(bench *b, cv_memory *memory, cv_error *err) {
  const int64_t matrix = (int64_t)EIG_LARGE * (EIG_LARGE + 1), scratch = cv_syev_scratch(EIG_LARGE);
  const cv_rng rng = {.seed = 1, .stream = CV_RNG_PROBE};
  void *ints = NULL;
  CV_TRY(cv_floats_new(memory, CV_MEMORY_WORKSPACE, COPIED, "a measurement", &b->X, err));
  CV_TRY(cv_floats_new(memory, CV_MEMORY_WORKSPACE, (int64_t)N * N, "a measurement", &b->Y, err));
  CV_TRY(cv_floats_new(memory, CV_MEMORY_WORKSPACE, COPIED, "a measurement", &b->Z, err));
  CV_TRY(cv_floats_new(memory, CV_MEMORY_WORKSPACE, scratch, "a measurement", &b->work32, err));
  CV_TRY(cv_doubles_new(memory, CV_MEMORY_WORKSPACE, matrix, "a measurement", &b->D, err));
  CV_TRY(cv_doubles_new(memory, CV_MEMORY_WORKSPACE, scratch, "a measurement", &b->work, err));
  CV_TRY(cv_memory_new(memory, CV_MEMORY_WORKSPACE, cv_syev_iscratch(EIG_LARGE), sizeof *b->iwork, "a measurement",
                       &ints, err));
  b->iwork = ints;
  for (int64_t i = 0; i < COPIED; i++) b->X[i] = (float)cv_rng_uniform(&rng, (uint64_t)i) - 0.5f;
  memcpy(b->Y, b->X, (size_t)N * N * sizeof(float));
  return CURVD_OK;
}

static void release(bench *b, cv_memory *memory) {
  float **floats[] = {&b->X, &b->Y, &b->Z, &b->work32};
  void *ints = b->iwork;
  for (size_t i = 0; i < sizeof floats / sizeof floats[0]; i++) cv_floats_free(memory, floats[i]);
  cv_doubles_free(memory, &b->D);
  cv_doubles_free(memory, &b->work);
  cv_memory_free(memory, &ints);
}

curvd_status curvd_machine_measure(curvd_machine *machine, char *message, size_t size) {
  cv_error err = {.code = CURVD_OK};
  cv_memory memory = {0};
  bench b = {.err = &err};
  curvd_machine measured;
  if (!machine) return CURVD_ERR_ARGUMENT;
  curvd_machine_default(&measured);
  curvd_status status = make(&b, &memory, &err);
  if (status == CURVD_OK) {
    measure(&b, &measured);
    status = b.status;
  }
  release(&b, &memory);
  if (status != CURVD_OK) return cv_forecast_fail(&err, status, message, size);
  *machine = measured;
  return CURVD_OK;
}
