/* Convolutions by oneDNN 2 (C API). Images stay channels last, as they lie: its own blocked layout makes the layers
 * of VGG16 5 % faster (AVX-512, one thread), of which the copies in and out would take back some 2 %, and twice the
 * memory. Weights change every step, so each call packs them into the layout that its primitive wants
 * (kernel_places.h); a gradient is unpacked on its way into dW, or made without oneDNN (kernel_taps.h). A primitive is
 * made for one number of images; calls with another number work in pieces.
 *
 * In bf16 each call rounds what goes in, piece by piece, so that the rounded images are still in the cache when the
 * primitive reads them; what comes out is fp32. A convolution for which oneDNN has no kernel of the unit stays fp32. */
#include "net/kernel_onednn.h"

#include "base/order.h"

#include <string.h>

/* The primitives for most images, up to rows. */
static const onednn_count *most_of(const onednn_conv *c, int64_t rows) {
  const onednn_count *most = NULL;
  for (int i = 0; i < c->n_counts; i++)
    if (c->count[i].rows <= rows && (most == NULL || c->count[i].rows > most->rows)) most = &c->count[i];
  return most;
}

static dnnl_status_t execute(const onednn_conv *c, const onednn_count *piece, nn_conv_result d) {
  static const int argument[NN_CONV_RESULTS][4] = {
      {DNNL_ARG_SRC, DNNL_ARG_DST, DNNL_ARG_WEIGHTS, DNNL_ARG_BIAS},
      {DNNL_ARG_DIFF_SRC, DNNL_ARG_DIFF_DST, DNNL_ARG_WEIGHTS, DNNL_ARG_BIAS},
      {DNNL_ARG_SRC, DNNL_ARG_DIFF_DST, DNNL_ARG_DIFF_WEIGHTS, DNNL_ARG_DIFF_BIAS}};
  const dnnl_exec_arg_t arguments[] = {{argument[d][0], piece->x[d]},
                                       {argument[d][1], piece->y[d]},
                                       {argument[d][2], c->weight[d]},
                                       {DNNL_ARG_SCRATCHPAD, piece->work[d]},
                                       {argument[d][3], c->bias}}; /* last: dx knows no bias */
  int n = (int)(sizeof arguments / sizeof *arguments) - (d == NN_CONV_DX);
  dnnl_status_t status = dnnl_primitive_execute(piece->primitive[d], c->stream, n, arguments);
  return status != dnnl_success ? status : dnnl_stream_wait(c->stream);
}

/* In tiles, which the unit rounds 512 numbers at a time. */
static void round_numbers(const onednn_conv *c, int64_t count, const float *x, uint16_t *to) {
  for (int64_t at = 0; at < count; at += CV_TILE) {
    int64_t n = cv_smaller(count - at, CV_TILE), rows = n / CV_DEPTH, rest = n % CV_DEPTH;
    c->by.unit->tile_rows(rows, CV_DEPTH, x + at, CV_DEPTH, to + at, NULL);
    if (rest == 0) continue;
    uint16_t last[CV_TILE];
    c->by.unit->tile_rows(1, rest, x + at + rows * CV_DEPTH, CV_DEPTH, last, NULL);
    memcpy(to + at + rows * CV_DEPTH, last, (size_t)rest * sizeof *to);
  }
}

/* Of x and y that one that goes into a primitive may be rounded first; returns what the primitive takes. */
static const void *rounded(const onednn_conv *c, bool goes_in, int64_t count, const float *x, uint16_t *room) {
  if (!c->is_rounded || !goes_in) return x;
  round_numbers(c, count, x, room);
  return room;
}

static curvd_status run_piece(const onednn_conv *c, const onednn_count *piece, nn_conv_result d, const float *x,
                              const float *y, cv_error *err) {
  const void *in = rounded(c, d != NN_CONV_DX, piece->rows * nn_conv_input(&c->shape), x, c->rounded_x);
  const void *out = rounded(c, d != NN_CONV_Y, piece->rows * nn_conv_output(&c->shape), y, c->rounded_y);
  dnnl_status_t status = dnnl_memory_set_data_handle(piece->x[d], (void *)in);
  if (status == dnnl_success) status = dnnl_memory_set_data_handle(piece->y[d], (void *)out);
  if (status == dnnl_success) status = dnnl_memory_set_data_handle(piece->work[d], c->work);
  int before = onednn_use_threads(c->threads);
  if (status == dnnl_success) status = execute(c, piece, d);
  onednn_use_threads(before);
  return onednn_check(status, c, "compute", err);
}

/* Those of x and y that come out are written, through pointers that their callers got as such. */
static curvd_status run_pieces(const onednn_conv *c, nn_conv_result d, int64_t rows, const float *x, const float *y,
                               cv_error *err) {
  const nn_conv *s = &c->shape;
  int64_t x_image = nn_conv_input(s), y_image = nn_conv_output(s);
  for (int64_t at = 0; at < rows;) {
    const onednn_count *piece = most_of(c, rows - at);
    CV_TRY(run_piece(c, piece, d, x + at * x_image, y + at * y_image, err));
    at += piece->rows;
  }
  return CURVD_OK;
}

static void pack_weight(const onednn_conv *c, nn_conv_result d, const float *w, int64_t ldw) {
  nn_places_pack(&c->places[d], w, ldw, c->packed);
  if (c->is_rounded) round_numbers(c, c->places[d].size, c->packed, c->rounded_weight);
}

static const char *onednn_kernel(const void *state, nn_conv_result result, cv_precision *precision) {
  const onednn_conv *c = state;
  bool is_taps = result == NN_CONV_DW && c->has_taps;
  *precision = is_taps ? c->taps.by.precision : c->is_rounded ? CV_BF16 : CV_FP32;
  return is_taps ? "products tap by tap" : c->kernel[result];
}

static curvd_status onednn_forward(void *state, int64_t rows, const float *x, const float *w, int64_t ldw,
                                   bool has_bias, float *y, cv_error *err) {
  const onednn_conv *c = state;
  int64_t d_in = nn_conv_d_in(&c->shape);
  pack_weight(c, NN_CONV_Y, w, ldw);
  for (int64_t o = 0; o < c->shape.c_out; o++) c->bias_row[o] = has_bias ? w[o * ldw + d_in] : 0;
  return run_pieces(c, NN_CONV_Y, rows, x, y, err);
}

static curvd_status onednn_backward_input(void *state, int64_t rows, const float *g, const float *w, int64_t ldw,
                                          float *dx, cv_error *err) {
  const onednn_conv *c = state;
  pack_weight(c, NN_CONV_DX, w, ldw);
  return run_pieces(c, NN_CONV_DX, rows, dx, g, err);
}

static void add_bias(const onednn_conv *c, float scale, float beta, float *dw, int64_t lddw) {
  for (int64_t o = 0; o < c->shape.c_out; o++)
    dw[o * lddw] = (beta == 0 ? 0 : beta * dw[o * lddw]) + scale * c->bias_row[o];
}

static curvd_status onednn_backward_weight(void *state, int64_t rows, const float *x, const float *g, float scale,
                                           bool has_bias, float beta, float *dw, int64_t lddw, cv_error *err) {
  const onednn_conv *c = state;
  const nn_conv *s = &c->shape;
  int64_t x_image = nn_conv_input(s), y_image = nn_conv_output(s);
  if (c->has_taps) {
    nn_taps_backward_weight(&c->taps, s, rows, x, g, scale, has_bias, beta, dw, lddw);
    return CURVD_OK;
  }
  for (int64_t at = 0; at < rows;) {
    const onednn_count *piece = most_of(c, rows - at);
    CV_TRY(run_piece(c, piece, NN_CONV_DW, x + at * x_image, g + at * y_image, err));
    nn_places_add(&c->places[NN_CONV_DW], c->packed, scale, at == 0 ? beta : 1, dw, lddw);
    if (has_bias) add_bias(c, scale, at == 0 ? beta : 1, dw + nn_conv_d_in(s), lddw);
    at += piece->rows;
  }
  return CURVD_OK;
}

const nn_kernels nn_kernels_onednn = {.name = "onednn",
                                      .conv_create = onednn_create,
                                      .conv_prepare = onednn_prepare,
                                      .conv_free = onednn_free,
                                      .conv_kernel = onednn_kernel,
                                      .conv_forward = onednn_forward,
                                      .conv_backward_input = onednn_backward_input,
                                      .conv_backward_weight = onednn_backward_weight,
                                      .pool_forward = nn_pool_forward,
                                      .pool_backward = nn_pool_backward,
                                      .norm_sums = nn_norm_sums,
                                      .norm_apply = nn_norm_apply,
                                      .norm_backward_sums = nn_norm_backward_sums,
                                      .norm_backward_apply = nn_norm_backward_apply};
