/* Dropout: a unit is zero with probability drop, else divided by 1 - drop, so that evaluation needs nothing. A unit's
 * fate is a function of seed, layer, step and its example's place in the global batch, whichever rank has it.
 * Srivastava et al., Journal of Machine Learning Research 15 (2014). */
#include "base/rng.h"
#include "net/nn.h"

#include <string.h>

/* state: (rows_max, nn_size) factors */
static curvd_status dropout_create(nn_layer *layer, int64_t rows_max, cv_memory *memory, cv_error *err) {
  float *factor = NULL;
  CV_TRY(
      cv_floats_new(memory, CV_MEMORY_ACTIVATIONS, rows_max * nn_size(layer->spec.in), "dropped units", &factor, err));
  layer->state = factor;
  return CURVD_OK;
}

static void dropout_release(nn_layer *layer, cv_memory *memory) {
  cv_memory_free(memory, &layer->state);
}

/* Four units of one block; a word is below drop 2^32 with probability drop. */
static void draw(const nn_layer *layer, const nn_pass *pass, int64_t position, float *factor) {
  cv_rng rng = {pass->seed, CV_RNG_DROPOUT, (uint32_t)layer->index, (uint32_t)pass->step};
  int64_t d = nn_size(layer->spec.in), blocks = (d + 3) / 4;
  double drop = layer->spec.drop;
  float kept = (float)(1 / (1 - drop));
  for (int64_t block = 0; block < blocks; block++) {
    uint32_t word[4];
    cv_rng_block(&rng, (uint64_t)(position * blocks + block), word);
    for (int64_t j = 4 * block; j < d && j < 4 * block + 4; j++) factor[j] = word[j % 4] < drop * 0x1p32 ? 0 : kept;
  }
}

static void dropout_forward(nn_layer *layer, const nn_pass *pass, int64_t rows, const float *const *x, float *y) {
  int64_t d = nn_size(layer->spec.in), stride = nn_stride(layer->spec.in);
  if (!pass->is_training) {
    for (int64_t i = 0; i < rows; i++) memcpy(y + i * stride, x[0] + i * stride, (size_t)d * sizeof *y);
    return;
  }
  for (int64_t i = 0; i < rows; i++) {
    float *factor = (float *)layer->state + i * d;
    draw(layer, pass, pass->position ? pass->position[i] : i, factor);
    for (int64_t j = 0; j < d; j++) y[i * stride + j] = factor[j] * x[0][i * stride + j];
  }
}

static void dropout_backward_input(nn_layer *layer, int64_t rows, const float *x, const float *y, const float *g,
                                   float *dx) {
  int64_t d = nn_size(layer->spec.in), stride = nn_stride(layer->spec.in);
  (void)x, (void)y;
  for (int64_t i = 0; i < rows; i++) {
    const float *factor = (const float *)layer->state + i * d;
    for (int64_t j = 0; j < d; j++) dx[i * stride + j] = factor[j] * g[i * stride + j];
  }
}

const nn_ops nn_dropout = {.name = "dropout",
                           .forward = dropout_forward,
                           .backward_input = dropout_backward_input,
                           .create = dropout_create,
                           .release = dropout_release};
