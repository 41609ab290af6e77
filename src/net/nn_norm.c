/* Batch normalisation: each channel minus its mean over the batch and all pixels, over its deviation, times a scale,
 * plus a shift. Evaluation takes running statistics (momentum 0.1, variance of n - 1). Statistics are those of a rank's
 * own examples, or with pass->sum those of all ranks, which makes training the same on any number of them.
 * A backward pass over fewer examples than went forward (statistics from a part of the batch) counts the others'
 * gradients as 0. Ioffe and Szegedy, arXiv:1502.03167. */
#include "net/nn.h"

#include <math.h>
#include <string.h>

static const double epsilon = 1e-5, running_share = 0.1;

typedef struct norm {
  int64_t c;
  float *mean, *inv_std, *scale, *shift; /* (c) of this pass; weights without the padding */
  float *running;                        /* (2, c) means and variances */
  float *mean_g, *mean_gx;               /* (c) of the backward pass */
  float *example_scale, *example_shift;  /* (rows_max, c) */
  double *sums;                          /* (2 c + 1) of the batch, of one example, and of this rank's examples */
  double n;                              /* pixels that went forward */
} norm;

static curvd_status norm_parts(norm *s, int64_t rows_max, cv_memory *memory, cv_error *err) {
  float **vector[] = {&s->mean, &s->inv_std, &s->scale, &s->shift, &s->mean_g, &s->mean_gx};
  for (size_t i = 0; i < sizeof vector / sizeof vector[0]; i++)
    CV_TRY(cv_floats_new(memory, CV_MEMORY_ACTIVATIONS, s->c, "a normalisation", vector[i], err));
  CV_TRY(cv_floats_new(memory, CV_MEMORY_PARAMETERS, 2 * s->c, "running statistics", &s->running, err));
  CV_TRY(cv_floats_new(memory, CV_MEMORY_ACTIVATIONS, rows_max * s->c, "a normalisation", &s->example_scale, err));
  CV_TRY(cv_floats_new(memory, CV_MEMORY_ACTIVATIONS, rows_max * s->c, "a normalisation", &s->example_shift, err));
  return cv_doubles_new(memory, CV_MEMORY_ACTIVATIONS, 3 * (2 * s->c + 1), "a normalisation", &s->sums, err);
}

static curvd_status norm_create(nn_layer *layer, int64_t rows_max, cv_memory *memory, cv_error *err) {
  CV_TRY(cv_memory_new(memory, CV_MEMORY_ACTIVATIONS, 1, sizeof(norm), "a normalisation", &layer->state, err));
  norm *s = layer->state;
  if (s == NULL) return CURVD_OK; /* dry */
  s->c = layer->spec.in.channels;
  CV_TRY(norm_parts(s, rows_max, memory, err));
  for (int64_t j = 0; j < s->c && s->running; j++) {
    s->running[s->c + j] = 1;
    layer->weight[j * layer->ld] = 1;
  }
  return CURVD_OK;
}

static void norm_release(nn_layer *layer, cv_memory *memory) {
  norm *s = layer->state;
  if (s == NULL) return;
  float **block[] = {&s->mean,    &s->inv_std, &s->scale,         &s->shift,        &s->mean_g,
                     &s->mean_gx, &s->running, &s->example_scale, &s->example_shift};
  for (size_t i = 0; i < sizeof block / sizeof block[0]; i++) cv_floats_free(memory, block[i]);
  cv_doubles_free(memory, &s->sums);
  cv_memory_free(memory, &layer->state);
}

static int64_t pixels(const nn_layer *layer) {
  return layer->spec.in.height * layer->spec.in.width;
}

/* Of the batch; all ranks together where the pass says so. A pass without an example leaves everything. */
static void take_statistics(nn_layer *layer, const nn_pass *pass, int64_t rows, const float *x) {
  norm *s = layer->state;
  double *sum = s->sums, *square = sum + s->c;
  memset(s->sums, 0, (size_t)(2 * s->c) * sizeof(double));
  if (rows > 0) layer->kernels->norm_sums(rows * pixels(layer), s->c, x, sum, square);
  s->sums[2 * s->c] = (double)(rows * pixels(layer));
  if (pass->sum) pass->sum(pass->user, 2 * s->c + 1, s->sums);
  double n = s->n = s->sums[2 * s->c];
  for (int64_t j = 0; n > 0 && j < s->c; j++) {
    double mean = sum[j] / n, variance = fmax(square[j] / n - mean * mean, 0);
    s->mean[j] = (float)mean;
    s->inv_std[j] = (float)(1 / sqrt(variance + epsilon));
    if (!isfinite(mean) || !isfinite(variance)) continue; /* the step will be refused: what was learnt stays */
    s->running[j] += (float)(running_share * (mean - s->running[j]));
    s->running[s->c + j] += (float)(running_share * (variance * n / fmax(n - 1, 1) - s->running[s->c + j]));
  }
}

static void norm_forward(nn_layer *layer, const nn_pass *pass, int64_t rows, const float *const *x, float *y) {
  norm *s = layer->state;
  if (pass->is_training) take_statistics(layer, pass, rows, x[0]);
  for (int64_t j = 0; j < s->c; j++) {
    s->scale[j] = layer->weight[j * layer->ld];
    s->shift[j] = layer->weight[j * layer->ld + 1];
    if (pass->is_training) continue;
    s->mean[j] = s->running[j];
    s->inv_std[j] = (float)(1 / sqrt(s->running[s->c + j] + epsilon));
  }
  if (rows > 0)
    layer->kernels->norm_apply(rows * pixels(layer), s->c, x[0], s->mean, s->inv_std, s->scale, s->shift, y);
}

/* Example by example: the curvature wants each of them, and the batch their sum. */
static void norm_backward_begin(nn_layer *layer, const nn_pass *pass, int64_t rows, const float *x, const float *g) {
  norm *s = layer->state;
  int64_t c = s->c, stride = pixels(layer) * c;
  double *all = s->sums, *one = all + 2 * c + 1, *own = one + 2 * c + 1;
  memset(own, 0, (size_t)(2 * c) * sizeof(double));
  for (int64_t i = 0; i < rows; i++) {
    layer->kernels->norm_backward_sums(pixels(layer), c, x + i * stride, g + i * stride, s->mean, s->inv_std, one,
                                       one + c);
    for (int64_t j = 0; j < c; j++) {
      s->example_shift[i * c + j] = (float)one[j];
      s->example_scale[i * c + j] = (float)one[c + j];
    }
    for (int64_t j = 0; j < 2 * c; j++) own[j] += one[j];
  }
  memcpy(all, own, (size_t)(2 * c) * sizeof(double));
  if (pass->sum) pass->sum(pass->user, 2 * c, all);
  for (int64_t j = 0; j < c; j++) {
    s->mean_g[j] = (float)(all[j] / fmax(s->n, 1));
    s->mean_gx[j] = (float)(all[c + j] / fmax(s->n, 1));
  }
}

static void norm_backward_weight(nn_layer *layer, int64_t rows, const float *x, const float *g, float scale,
                                 float beta) {
  const norm *s = layer->state;
  const double *shift_sum = s->sums + 2 * (2 * s->c + 1), *scale_sum = shift_sum + s->c; /* of backward_begin */
  (void)rows, (void)x, (void)g;
  for (int64_t j = 0; j < s->c; j++) {
    float *to = layer->gradient + j * layer->ld;
    to[0] = (beta == 0 ? 0 : beta * to[0]) + scale * (float)scale_sum[j];
    to[1] = (beta == 0 ? 0 : beta * to[1]) + scale * (float)shift_sum[j];
  }
}

static void norm_backward_input(nn_layer *layer, int64_t rows, const float *x, const float *y, const float *g,
                                float *dx) {
  const norm *s = layer->state;
  (void)y;
  if (rows > 0)
    layer->kernels->norm_backward_apply(rows * pixels(layer), s->c, x, g, s->mean, s->inv_std, s->scale, s->mean_g,
                                        s->mean_gx, dx);
}

void nn_norm_examples(const nn_layer *layer, const float **scale, const float **shift) {
  const norm *s = layer->state;
  *scale = s->example_scale;
  *shift = s->example_shift;
}

float *nn_norm_running(const nn_layer *layer) {
  return ((const norm *)layer->state)->running;
}

const nn_ops nn_norm = {.name = "normalisation",
                        .forward = norm_forward,
                        .backward_weight = norm_backward_weight,
                        .backward_input = norm_backward_input,
                        .create = norm_create,
                        .release = norm_release,
                        .backward_begin = norm_backward_begin};
