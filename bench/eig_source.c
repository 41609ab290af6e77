#include "eig_source.h"

#include "base/rng.h"
#include "linalg/dense.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

const eig_kind eig_kinds[EIG_KINDS] = {
    {"drift", 1.5, 0.95, 60, 10, 256, 0.1}, /* what a training run hands to a refresh */
    {"steep", 5, 0.95, 60, 10, 256, 0.1},   /* most eigenvalues lie below fp32 rounding */
    {"batch", 1.5, 0, 1, 1, 256, 0.1},      /* of rank 256, and another one every time */
    {"one", 1.5, 0, 1, 1, 1, 0.1},          /* of rank one */
};

/* What the numbers of stream CV_RNG_TEACHER are for. */
enum { FOR_SIGNS, FOR_PLACES, FOR_PAIRS, FOR_WEIGHTS };

static cv_rng numbers(const eig_source *s, uint32_t what, uint32_t which) {
  return (cv_rng){.seed = s->seed, .stream = CV_RNG_TEACHER, .a = what, .b = which};
}

/* order (n) = a random permutation */
static void shuffle(const eig_source *s, cv_rng rng) {
  for (int64_t i = 0; i < s->n; i++) s->order[i] = i;
  for (int64_t i = s->n - 1; i > 0; i--) {
    int64_t j = (int64_t)cv_rng_below(&rng, (uint64_t)i, (uint64_t)i + 1), kept = s->order[i];
    s->order[i] = s->order[j], s->order[j] = kept;
  }
}

/* Cosines (DCT-II) in random order, columns with random signs: orthonormal, dense, and n^2 table look-ups instead of a
 * QR decomposition of n^3. */
static void fill_basis(eig_source *s) {
  const double pi = 3.14159265358979323846;
  cv_rng signs = numbers(s, FOR_SIGNS, 0);
  shuffle(s, numbers(s, FOR_PLACES, 0));
  for (int64_t j = 0; j < s->n; j++) {
    double sign = cv_rng_uniform(&signs, (uint64_t)j) < 0.5 ? -1 : 1;
    for (int64_t i = 0; i < s->n; i++) {
      double angle = pi / (2 * (double)s->n) * (double)((2 * j + 1) * i % (4 * s->n));
      s->basis[s->order[i] * s->ld + j] = (float)(sign * sqrt((i ? 2.0 : 1.0) / (double)s->n) * cos(angle));
    }
  }
}

/* Plane rotations of random disjoint pairs of directions: every direction turns, for 3 n^2 flops. */
static void turn_basis(eig_source *s) {
  const float c = (float)cos(s->kind->turn), sine = (float)sin(s->kind->turn);
  shuffle(s, numbers(s, FOR_PAIRS, s->turns++));
  for (int64_t i = 0; i + 1 < s->n; i += 2) {
    float *x = s->basis + s->order[i] * s->ld, *y = s->basis + s->order[i + 1] * s->ld;
    for (int64_t j = 0; j < s->n; j++) {
      float old = x[j];
      x[j] = c * old + sine * y[j];
      y[j] = c * y[j] - sine * old;
    }
  }
}

static void draw_examples(eig_source *s, float *X) {
  cv_rng rng = numbers(s, FOR_WEIGHTS, s->batches++);
  for (int64_t i = 0; i < s->rows; i++) cv_rng_normal(&rng, (uint64_t)(i * s->ld), s->n, s->weights + i * s->ld);
  for (int64_t j = 0; j < s->n; j++) {
    float deviation = (float)pow(1 + (double)j / 10, -s->kind->alpha / 2);
    for (int64_t i = 0; i < s->rows; i++) s->weights[i * s->ld + j] *= deviation;
  }
  cv_gemm(CV_N, CV_N, s->rows, s->n, s->n, 1, s->weights, s->ld, s->basis, s->ld, 0, X, s->ld);
}

static curvd_status next_average(eig_source *s, cv_error *err) {
  (void)err;
  bool is_first = s->batches == 0;
  if (!is_first) turn_basis(s);
  float keep = (float)s->kind->keep;
  for (int i = 0; i < (is_first ? s->kind->first : s->kind->more); i++) {
    draw_examples(s, s->batch);
    cv_gram_columns(s->n, s->rows, (1 - keep) / (float)s->rows, s->batch, s->ld, keep, s->M, s->ld);
  }
  cv_mirror(s->n, s->M, s->ld);
  return CURVD_OK;
}

static void close_average(eig_source *s) {
  cv_floats_free(s->memory, &s->M);
  cv_floats_free(s->memory, &s->basis);
  cv_floats_free(s->memory, &s->weights);
  cv_floats_free(s->memory, &s->batch);
  cv_memory_free(s->memory, (void **)&s->order);
}

static curvd_status floats_new(eig_source *s, int64_t rows, float **block, cv_error *err) {
  return cv_floats_new(s->memory, CV_MEMORY_DATA, rows * s->ld, "a test matrix", block, err);
}

curvd_status eig_source_open(const eig_kind *kind, int64_t n, uint64_t seed, cv_memory *memory, eig_source *source,
                             cv_error *err) {
  *source = (eig_source){.name = kind->name,
                         .n = n,
                         .ld = cv_dense_ld(n),
                         .rows = kind->rows,
                         .next = next_average,
                         .examples = draw_examples,
                         .close = close_average,
                         .memory = memory,
                         .kind = kind,
                         .seed = seed};
  CV_TRY(floats_new(source, n, &source->M, err));
  CV_TRY(floats_new(source, n, &source->basis, err));
  CV_TRY(floats_new(source, kind->rows, &source->weights, err));
  CV_TRY(floats_new(source, kind->rows, &source->batch, err));
  CV_TRY(
      cv_memory_new(memory, CV_MEMORY_DATA, n, sizeof *source->order, "a test matrix", (void **)&source->order, err));
  fill_basis(source);
  return CURVD_OK;
}
