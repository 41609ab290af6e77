/* Convolutions as loops over channels: no patches are written, and no sum needs relaxed arithmetic to become vector
 * code. Letters: n image, p output pixel (p[0] row, p[1] column), q input pixel, k tap of the kernel, o and i channels
 * within a group. */
#include "net/kernel_parts.h"

#include <string.h>

enum {
  LANES = 32,        /* channels summed side by side, in registers */
  OUTPUTS = 4,       /* output channels of a tile of the weight's gradient: (OUTPUTS, LANES) sums in registers */
  CHUNK_PIXELS = 256 /* output pixels, about, that such a tile sums before it is added to the gradient */
};

typedef struct conv {
  nn_conv shape;
  int64_t c_in, c_out; /* of a group */
  float *panel; /* (kh kw, channels that are summed over, LANES): a slice of the weight that stays in the cache while
                   all pixels pass by; lanes beyond the last channel are 0 */
  double *bias; /* (c_out of all groups): sums of g */
} conv;

static void plain_free(cv_memory *memory, void **state) {
  conv *c = *state;
  if (c == NULL) return;
  cv_floats_free(memory, &c->panel);
  cv_doubles_free(memory, &c->bias);
  cv_memory_free(memory, state);
}

static curvd_status plain_create(const nn_conv *shape, const nn_conv_settings *settings, cv_memory *memory,
                                 void **state, cv_error *err) {
  *state = NULL;
  CV_TRY(nn_conv_check(shape, settings->rows_max, err));
  conv made = {.shape = *shape, .c_in = shape->c_in / shape->groups, .c_out = shape->c_out / shape->groups};
  int64_t depth = made.c_in > made.c_out ? made.c_in : made.c_out;
  void *block = NULL;
  CV_TRY(cv_memory_new(memory, CV_MEMORY_WORKSPACE, 1, sizeof made, "a convolution", &block, err));
  curvd_status status = cv_floats_new(memory, CV_MEMORY_WORKSPACE, shape->kernel[0] * shape->kernel[1] * depth * LANES,
                                      "a convolution's panel", &made.panel, err);
  if (status == CURVD_OK)
    status = cv_doubles_new(memory, CV_MEMORY_WORKSPACE, shape->c_out, "a convolution's bias sums", &made.bias, err);
  if (block != NULL) memcpy(block, &made, sizeof made);
  *state = block;
  if (status != CURVD_OK) plain_free(memory, state);
  return status;
}

static curvd_status plain_prepare(void *state, int64_t rows, cv_memory *memory, cv_error *err) {
  (void)state, (void)rows, (void)memory, (void)err; /* all counts are alike */
  return CURVD_OK;
}

static const char *plain_kernel(const void *state, nn_conv_result result, cv_precision *precision) {
  (void)state, (void)result;
  *precision = CV_FP32;
  return "plain";
}

/* ---- pixels ---- */

static int64_t least(int64_t a, int64_t b) {
  return a < b ? a : b;
}

static bool pixel_under(const nn_conv *s, int axis, int64_t p, int64_t k, int64_t *q) {
  return nn_window_pixel(s->in[axis], s->stride[axis], s->pad[axis], s->dilation[axis], p, k, q);
}

/* The output pixel whose window has q under tap k. */
static bool pixel_over(const nn_conv *s, int axis, int64_t q, int64_t k, int64_t *p) {
  int64_t first = q + s->pad[axis] - k * s->dilation[axis];
  *p = first / s->stride[axis];
  return first >= 0 && first % s->stride[axis] == 0 && *p < s->out[axis];
}

/* sum (LANES) += a (depth) times panel (depth, LANES) */
static inline void accumulate(int64_t depth, const float *restrict a, const float *restrict panel,
                              float *restrict sum) {
  float s[LANES];
  memcpy(s, sum, sizeof s);
  for (int64_t t = 0; t < depth; t++)
    for (int j = 0; j < LANES; j++) s[j] += a[t] * panel[t * LANES + j];
  memcpy(sum, s, sizeof s);
}

/* ---- y = patches W^T + bias ---- */

static void pack_outputs(conv *c, int64_t first, int64_t n, const float *w, int64_t ldw) {
  int64_t d_in = nn_conv_d_in(&c->shape);
  for (int64_t t = 0; t < d_in; t++)
    for (int64_t j = 0; j < LANES; j++) c->panel[t * LANES + j] = j < n ? w[(first + j) * ldw + t] : 0;
}

/* x: the image's first channel of the group */
static void patch_times_panel(const conv *c, const float *x, int64_t p0, int64_t p1, float *sum) {
  const nn_conv *s = &c->shape;
  int64_t q0, q1;
  for (int64_t k0 = 0; k0 < s->kernel[0]; k0++) {
    if (!pixel_under(s, 0, p0, k0, &q0)) continue;
    for (int64_t k1 = 0; k1 < s->kernel[1]; k1++)
      if (pixel_under(s, 1, p1, k1, &q1))
        accumulate(c->c_in, x + (q0 * s->in[1] + q1) * s->c_in, c->panel + (k0 * s->kernel[1] + k1) * c->c_in * LANES,
                   sum);
  }
}

static curvd_status plain_forward(void *state, int64_t rows, const float *x, const float *w, int64_t ldw, bool has_bias,
                                  float *y, cv_error *err) {
  (void)err;
  conv *c = state;
  const nn_conv *s = &c->shape;
  int64_t out = s->out[0] * s->out[1], image = s->in[0] * s->in[1] * s->c_in, d_in = nn_conv_d_in(s);
  for (int64_t first = 0, n; first < s->c_out; first += n) {
    int64_t group = first / c->c_out;
    n = least(LANES, (group + 1) * c->c_out - first);
    pack_outputs(c, first, n, w, ldw);
    float bias[LANES] = {0};
    for (int64_t j = 0; has_bias && j < n; j++) bias[j] = w[(first + j) * ldw + d_in];
    for (int64_t p = 0; p < rows * out; p++) {
      float sum[LANES];
      memcpy(sum, bias, sizeof sum);
      patch_times_panel(c, x + p / out * image + group * c->c_in, p % out / s->out[1], p % s->out[1], sum);
      memcpy(y + p * s->c_out + first, sum, (size_t)n * sizeof *y);
    }
  }
  return CURVD_OK;
}

/* ---- dx = g W, tap by tap ---- */

/* first: channel of the input, all groups counted */
static void pack_inputs(conv *c, int64_t first, int64_t n, const float *w, int64_t ldw) {
  int64_t taps = c->shape.kernel[0] * c->shape.kernel[1], group = first / c->c_in, i = first % c->c_in;
  for (int64_t k = 0; k < taps; k++)
    for (int64_t o = 0; o < c->c_out; o++)
      for (int64_t j = 0; j < LANES; j++)
        c->panel[(k * c->c_out + o) * LANES + j] = j < n ? w[(group * c->c_out + o) * ldw + k * c->c_in + i + j] : 0;
}

/* g: the image's first output channel of the group */
static void gradients_times_panel(const conv *c, const float *g, int64_t q0, int64_t q1, float *sum) {
  const nn_conv *s = &c->shape;
  int64_t p0, p1;
  for (int64_t k0 = 0; k0 < s->kernel[0]; k0++) {
    if (!pixel_over(s, 0, q0, k0, &p0)) continue;
    for (int64_t k1 = 0; k1 < s->kernel[1]; k1++)
      if (pixel_over(s, 1, q1, k1, &p1))
        accumulate(c->c_out, g + (p0 * s->out[1] + p1) * s->c_out,
                   c->panel + (k0 * s->kernel[1] + k1) * c->c_out * LANES, sum);
  }
}

static curvd_status plain_backward_input(void *state, int64_t rows, const float *g, const float *w, int64_t ldw,
                                         float *dx, cv_error *err) {
  (void)err;
  conv *c = state;
  const nn_conv *s = &c->shape;
  int64_t in = s->in[0] * s->in[1], image = s->out[0] * s->out[1] * s->c_out;
  for (int64_t first = 0, n; first < s->c_in; first += n) {
    int64_t group = first / c->c_in;
    n = least(LANES, (group + 1) * c->c_in - first);
    pack_inputs(c, first, n, w, ldw);
    for (int64_t q = 0; q < rows * in; q++) {
      float sum[LANES] = {0};
      gradients_times_panel(c, g + q / in * image + group * c->c_out, q % in / s->in[1], q % s->in[1], sum);
      memcpy(dx + q * s->c_in + first, sum, (size_t)n * sizeof *dx);
    }
  }
  return CURVD_OK;
}

/* ---- dW = beta dW + scale g^T patches ---- */

/* Images [begin, end) at one tap, and the channels of one tile. */
typedef struct tile {
  int64_t begin, end, k0, k1;
  int n_out, n_in;
  const float *x, *g; /* at image 0, the tile's first channels */
} tile;

/* sum (OUTPUTS, LANES) += g^T x over the pixels. n_out and n_in are those of the tile, as constants where it is whole.
 */
static inline void tile_sums(const nn_conv *s, const tile *t, int n_out, int n_in, float sum[OUTPUTS][LANES]) {
  int64_t q0, q1;
  float r[OUTPUTS][LANES] = {{0}};
  for (int64_t n = t->begin; n < t->end; n++)
    for (int64_t p0 = 0; p0 < s->out[0]; p0++) {
      if (!pixel_under(s, 0, p0, t->k0, &q0)) continue;
      for (int64_t p1 = 0; p1 < s->out[1]; p1++) {
        if (!pixel_under(s, 1, p1, t->k1, &q1)) continue;
        const float *g = t->g + ((n * s->out[0] + p0) * s->out[1] + p1) * s->c_out;
        const float *x = t->x + ((n * s->in[0] + q0) * s->in[1] + q1) * s->c_in;
        for (int o = 0; o < n_out; o++)
          for (int i = 0; i < n_in; i++) r[o][i] += g[o] * x[i];
      }
    }
  memcpy(sum, r, sizeof r);
}

/* dw: at the tile's first row and column */
static void add_tile(const nn_conv *s, const tile *t, float scale, float beta, float *dw, int64_t lddw) {
  float sum[OUTPUTS][LANES];
  if (t->n_out == OUTPUTS && t->n_in == LANES)
    tile_sums(s, t, OUTPUTS, LANES, sum);
  else
    tile_sums(s, t, t->n_out, t->n_in, sum);
  for (int o = 0; o < t->n_out; o++)
    for (int i = 0; i < t->n_in; i++) {
      float *at = dw + o * lddw + i;
      *at = (beta == 0 ? 0 : beta * *at) + scale * sum[o][i];
    }
}

/* All tiles at one tap; t has images and tap. */
static void add_tap(const conv *c, tile t, const float *x, const float *g, float scale, float beta, float *dw,
                    int64_t lddw) {
  int64_t column = (t.k0 * c->shape.kernel[1] + t.k1) * c->c_in;
  for (int64_t o = 0; o < c->shape.c_out; o += t.n_out) {
    int64_t group = o / c->c_out;
    t.n_out = (int)least(OUTPUTS, (group + 1) * c->c_out - o);
    t.g = g + o;
    for (int64_t i = 0; i < c->c_in; i += t.n_in) {
      t.n_in = (int)least(LANES, c->c_in - i);
      t.x = x + group * c->c_in + i;
      add_tile(&c->shape, &t, scale, beta, dw + o * lddw + column + i, lddw);
    }
  }
}

static void add_bias(const conv *c, int64_t rows, const float *g, float scale, float beta, float *dw, int64_t lddw) {
  int64_t c_out = c->shape.c_out, pixels = rows * c->shape.out[0] * c->shape.out[1];
  memset(c->bias, 0, (size_t)c_out * sizeof *c->bias);
  for (int64_t p = 0; p < pixels; p++)
    for (int64_t o = 0; o < c_out; o++) c->bias[o] += g[p * c_out + o];
  for (int64_t o = 0; o < c_out; o++) dw[o * lddw] = (beta == 0 ? 0 : beta * dw[o * lddw]) + scale * (float)c->bias[o];
}

static curvd_status plain_backward_weight(void *state, int64_t rows, const float *x, const float *g, float scale,
                                          bool has_bias, float beta, float *dw, int64_t lddw, cv_error *err) {
  (void)err;
  const conv *c = state;
  const nn_conv *s = &c->shape;
  int64_t out = s->out[0] * s->out[1], step = out < CHUNK_PIXELS ? CHUNK_PIXELS / out : 1;
  for (int64_t begin = 0; begin < rows; begin += step)
    for (int64_t k0 = 0; k0 < s->kernel[0]; k0++)
      for (int64_t k1 = 0; k1 < s->kernel[1]; k1++) {
        tile t = {.begin = begin, .end = least(begin + step, rows), .k0 = k0, .k1 = k1};
        add_tap(c, t, x, g, scale, begin == 0 ? beta : 1, dw, lddw);
      }
  if (has_bias) add_bias(c, rows, g, scale, beta, dw + nn_conv_d_in(s), lddw);
  return CURVD_OK;
}

const nn_kernels nn_kernels_plain = {.name = "plain",
                                     .conv_create = plain_create,
                                     .conv_prepare = plain_prepare,
                                     .conv_free = plain_free,
                                     .conv_kernel = plain_kernel,
                                     .conv_forward = plain_forward,
                                     .conv_backward_input = plain_backward_input,
                                     .conv_backward_weight = plain_backward_weight,
                                     .pool_forward = nn_pool_forward,
                                     .pool_backward = nn_pool_backward,
                                     .norm_sums = nn_norm_sums,
                                     .norm_apply = nn_norm_apply,
                                     .norm_backward_sums = nn_norm_backward_sums,
                                     .norm_backward_apply = nn_norm_backward_apply};
