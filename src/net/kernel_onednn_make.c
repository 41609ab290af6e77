#include "base/order.h"
#include "net/kernel_onednn.h"

#include <inttypes.h>
#include <omp.h>
#include <stdio.h>
#include <string.h>

/* x and y of a piece of rounded images: half of what a second cache of 2 MB holds */
enum { ROUNDED_NUMBERS = 1 << 19 };

curvd_status onednn_check(dnnl_status_t status, const onednn_conv *c, const char *what, cv_error *err) {
  if (status == dnnl_success) return CURVD_OK;
  const nn_conv *s = &c->shape;
  return cv_fail(err, status == dnnl_out_of_memory ? CURVD_ERR_MEMORY : CURVD_ERR_ARGUMENT,
                 "oneDNN failed (status %d) to %s a convolution of %" PRId64 " x %" PRId64 " x %" PRId64 " to %" PRId64
                 " x %" PRId64 " x %" PRId64 ", kernel %" PRId64 " x %" PRId64 ", %" PRId64
                 " groups; use the plain kernels",
                 (int)status, what, s->in[0], s->in[1], s->c_in, s->out[0], s->out[1], s->c_out, s->kernel[0],
                 s->kernel[1], s->groups);
}

int onednn_use_threads(int threads) {
  int before = omp_get_max_threads();
  omp_set_num_threads(threads);
  return before;
}

/* A failure leaves the block as it was. */
static curvd_status fit_work(onednn_conv *c, cv_memory *memory, cv_error *err) {
  if (c->work_bytes >= c->work_bytes_min) return CURVD_OK;
  void *block = NULL;
  CV_TRY(
      cv_memory_new(memory, CV_MEMORY_WORKSPACE, c->work_bytes_min, 1, "a convolution's working memory", &block, err));
  cv_memory_free(memory, &c->work);
  c->work = block;
  c->work_bytes = c->work_bytes_min;
  return CURVD_OK;
}

/* The layout of the first primitive of a direction is that of all. */
static curvd_status take_layout(onednn_conv *c, nn_conv_result d, dnnl_primitive_desc_t description, cv_memory *memory,
                                cv_error *err) {
  if (c->layout[d].ndims != 0) return CURVD_OK;
  const dnnl_memory_desc_t *layout = dnnl_primitive_desc_query_md(
      description, d == NN_CONV_DW ? dnnl_query_diff_weights_md : dnnl_query_weights_md, 0);
  if (layout == NULL) return onednn_check(dnnl_invalid_arguments, c, "lay out the weight of", err);
  c->layout[d] = *layout;
  CV_TRY(nn_places_create(layout, &c->shape, memory, &c->places[d], err));
  c->packed_numbers = cv_larger(c->packed_numbers, c->places[d].size);
  return CURVD_OK;
}

static curvd_status make_primitive(onednn_conv *c, onednn_count *made, nn_conv_result d,
                                   dnnl_primitive_desc_t description, cv_memory *memory, cv_error *err) {
  CV_TRY(take_layout(c, d, description, memory, err));
  snprintf(c->kernel[d], sizeof c->kernel[d], "%s", onednn_name(description));
  const dnnl_memory_desc_t *work = dnnl_primitive_desc_query_md(description, dnnl_query_scratchpad_md, 0);
  int64_t bytes = (int64_t)dnnl_memory_desc_get_size(work);
  if (bytes > c->work_bytes_min) c->work_bytes_min = bytes;
  if (memory->is_dry) return CURVD_OK;
  CV_TRY(onednn_check(dnnl_memory_create(&made->work[d], work, c->engine, DNNL_MEMORY_NONE), c, "keep", err));
  return onednn_check(dnnl_primitive_create(&made->primitive[d], description), c, "make", err);
}

/* Results that primitives make. */
static int results_of(const onednn_conv *c) {
  return c->has_taps ? NN_CONV_DW : NN_CONV_RESULTS;
}

/* The forward description is a hint for the backward ones. */
static dnnl_status_t find_all(const onednn_conv *c, int64_t rows, dnnl_primitive_desc_t *description) {
  dnnl_status_t status = dnnl_success;
  for (int d = 0; d < results_of(c) && status == dnnl_success; d++)
    status = onednn_find(c, rows, (nn_conv_result)d, d == NN_CONV_Y ? NULL : description[NN_CONV_Y], &description[d]);
  return status;
}

static void free_descriptions(dnnl_primitive_desc_t *description) {
  for (int d = 0; d < NN_CONV_RESULTS; d++)
    if (description[d] != NULL) dnnl_primitive_desc_destroy(description[d]);
}

static curvd_status make_primitives(onednn_conv *c, onednn_count *made, cv_memory *memory, cv_error *err) {
  dnnl_primitive_desc_t description[NN_CONV_RESULTS] = {NULL};
  curvd_status status = onednn_check(find_all(c, made->rows, description), c, "find", err);
  for (int d = 0; d < results_of(c) && status == CURVD_OK; d++)
    status = make_primitive(c, made, (nn_conv_result)d, description[d], memory, err);
  free_descriptions(description);
  return status;
}

static curvd_status make_images(const onednn_conv *c, onednn_count *made, cv_error *err) {
  for (int d = 0; d < results_of(c); d++) {
    dnnl_memory_desc_t x, y;
    CV_TRY(onednn_check(onednn_describe_images(c, made->rows, (nn_conv_result)d, &x, &y), c, "describe", err));
    CV_TRY(onednn_check(dnnl_memory_create(&made->x[d], &x, c->engine, DNNL_MEMORY_NONE), c, "keep", err));
    CV_TRY(onednn_check(dnnl_memory_create(&made->y[d], &y, c->engine, DNNL_MEMORY_NONE), c, "keep", err));
  }
  return CURVD_OK;
}

static void free_memory(dnnl_memory_t memory) {
  if (memory != NULL) dnnl_memory_destroy(memory);
}

static void free_count(onednn_count *made) {
  for (int d = 0; d < NN_CONV_RESULTS; d++) {
    if (made->primitive[d] != NULL) dnnl_primitive_destroy(made->primitive[d]);
    free_memory(made->work[d]);
    free_memory(made->x[d]);
    free_memory(made->y[d]);
  }
}

/* Unless it is there, or too many are. */
static curvd_status add_count(onednn_conv *c, int64_t rows, cv_memory *memory, cv_error *err) {
  onednn_count made = {.rows = rows};
  if (c->n_counts == ONEDNN_COUNTS_MAX) return CURVD_OK;
  for (int i = 0; i < c->n_counts; i++)
    if (c->count[i].rows == rows) return CURVD_OK;
  int before = onednn_use_threads(c->threads);
  curvd_status status = make_primitives(c, &made, memory, err);
  if (status == CURVD_OK) status = make_images(c, &made, err);
  onednn_use_threads(before);
  if (status == CURVD_OK)
    c->count[c->n_counts++] = made;
  else
    free_count(&made);
  return status;
}

/* Whole pieces of a call with this many rows, and what is left. */
static curvd_status add_pieces(onednn_conv *c, int64_t rows, cv_memory *memory, cv_error *err) {
  int64_t rest = rows % c->piece_max;
  if (rows >= c->piece_max) CV_TRY(add_count(c, c->piece_max, memory, err));
  return rest > 0 ? add_count(c, rest, memory, err) : CURVD_OK;
}

static curvd_status make_weights(onednn_conv *c, cv_memory *memory, cv_error *err) {
  const dnnl_dims_t bias_dims = {c->shape.c_out};
  dnnl_memory_desc_t bias;
  CV_TRY(
      cv_floats_new(memory, CV_MEMORY_WORKSPACE, c->packed_numbers, "a convolution's packed weight", &c->packed, err));
  CV_TRY(cv_floats_new(memory, CV_MEMORY_WORKSPACE, c->shape.c_out, "a convolution's bias", &c->bias_row, err));
  if (memory->is_dry) return CURVD_OK;
  CV_TRY(onednn_check(dnnl_memory_desc_init_by_tag(&bias, 1, bias_dims, dnnl_f32, dnnl_x), c, "describe", err));
  CV_TRY(onednn_check(dnnl_memory_create(&c->bias, &bias, c->engine, c->bias_row), c, "keep", err));
  for (int d = 0; d < (c->has_taps ? NN_CONV_DW : NN_CONV_RESULTS); d++)
    CV_TRY(onednn_check(dnnl_memory_create(&c->weight[d], &c->layout[d], c->engine,
                                           c->is_rounded && d != NN_CONV_DW ? (void *)c->rounded_weight : c->packed),
                        c, "keep", err));
  return CURVD_OK;
}

static curvd_status new_rounded(cv_memory *memory, int64_t count, uint16_t **made, cv_error *err) {
  void *block = NULL;
  int64_t whole = cv_divide_up(count, CV_TILE) * CV_TILE; /* tiles are written as a whole */
  CV_TRY(
      cv_memory_new(memory, CV_MEMORY_WORKSPACE, whole, sizeof **made, "a convolution's rounded numbers", &block, err));
  *made = block;
  return CURVD_OK;
}

static curvd_status make_rounded(onednn_conv *c, cv_memory *memory, cv_error *err) {
  if (!c->is_rounded) return CURVD_OK;
  CV_TRY(new_rounded(memory, c->piece_max * nn_conv_input(&c->shape), &c->rounded_x, err));
  CV_TRY(new_rounded(memory, c->piece_max * nn_conv_output(&c->shape), &c->rounded_y, err));
  return new_rounded(memory, c->packed_numbers, &c->rounded_weight, err);
}

/* dW by "jit:avx512_core_amx_bf16" is wrong for some dilations, and for some kernels, strides or paddings as large as
 * the image (version 2.6), which networks hardly have. */
static bool is_usual(const nn_conv *s, int axis) {
  return s->dilation[axis] == 1 && s->pad[axis] < s->kernel[axis] && s->kernel[axis] <= s->in[axis] &&
         s->stride[axis] <= s->in[axis];
}

/* Not images of at most 4 pixels: bf16 goes through the weights for each of them, and takes 1.5 times as long as fp32
 * (512 channels, 64 images of 2 x 2, AMX). */
static bool may_round(const nn_conv *s, const cv_unit *unit) {
  return onednn_has_unit(unit) && is_usual(s, 0) && is_usual(s, 1) && s->out[0] * s->out[1] > 4;
}

static void choose_pieces(onednn_conv *c) {
  int64_t image = nn_conv_input(&c->shape) + nn_conv_output(&c->shape);
  c->piece_max = c->is_rounded ? cv_larger(1, cv_smaller(c->rows_max, ROUNDED_NUMBERS / image)) : c->rows_max;
}

static curvd_status make(onednn_conv *c, const nn_conv_settings *settings, cv_memory *memory, cv_error *err) {
  CV_TRY(onednn_check(dnnl_engine_create(&c->engine, dnnl_cpu, 0), c, "start", err));
  CV_TRY(onednn_check(dnnl_stream_create(&c->stream, c->engine, dnnl_stream_default_flags), c, "start", err));
  CV_TRY(onednn_check(dnnl_primitive_attr_create(&c->attributes), c, "start", err));
  CV_TRY(
      onednn_check(dnnl_primitive_attr_set_scratchpad_mode(c->attributes, dnnl_scratchpad_mode_user), c, "start", err));
  choose_pieces(c);
  CV_TRY(add_pieces(c, c->rows_max, memory, err));
  CV_TRY(add_count(c, 1, memory, err));
  CV_TRY(fit_work(c, memory, err));
  if (c->has_taps) CV_TRY(nn_taps_create(&c->shape, settings, memory, &c->taps, err));
  CV_TRY(make_rounded(c, memory, err));
  return make_weights(c, memory, err);
}

static void release(onednn_conv *c, cv_memory *memory) {
  for (int i = 0; i < c->n_counts; i++) free_count(&c->count[i]);
  for (int d = 0; d < NN_CONV_RESULTS; d++) {
    free_memory(c->weight[d]);
    nn_places_free(memory, &c->places[d]);
  }
  free_memory(c->bias);
  if (c->attributes != NULL) dnnl_primitive_attr_destroy(c->attributes);
  if (c->stream != NULL) dnnl_stream_destroy(c->stream);
  if (c->engine != NULL) dnnl_engine_destroy(c->engine);
  nn_taps_free(memory, &c->taps);
  cv_floats_free(memory, &c->packed);
  cv_floats_free(memory, &c->bias_row);
  cv_memory_free(memory, &c->work);
  void *rounded[] = {c->rounded_x, c->rounded_y, c->rounded_weight};
  for (int i = 0; i < 3; i++) cv_memory_free(memory, &rounded[i]);
}

void onednn_free(cv_memory *memory, void **state) {
  if (*state == NULL) return;
  release(*state, memory);
  cv_memory_free(memory, state);
}

static curvd_status attempt(const nn_conv *shape, const nn_conv_settings *settings, bool rounds, cv_memory *memory,
                            onednn_conv *made, cv_error *err) {
  *made = (onednn_conv){.shape = *shape,
                        .threads = settings->threads > 1 ? settings->threads : 1,
                        .rows_max = settings->rows_max,
                        .has_taps = nn_taps_pay(shape),
                        .by = settings->by,
                        .is_rounded = rounds};
  curvd_status status = make(made, settings, memory, err);
  if (status != CURVD_OK) release(made, memory);
  return status;
}

/* Rounded, unless oneDNN has no kernels of the unit for one of the results. */
curvd_status onednn_create(const nn_conv *shape, const nn_conv_settings *given, cv_memory *memory, void **state,
                           cv_error *err) {
  nn_conv_settings settings = *given;
  onednn_conv made;
  curvd_status status = CURVD_ERR_ARGUMENT;
  *state = NULL;
  CV_TRY(nn_conv_check(shape, settings.rows_max, err));
  if (settings.by.precision != CV_BF16) settings.by = (cv_multiplier){CV_FP32};
  if (may_round(shape, settings.by.unit)) status = attempt(shape, &settings, true, memory, &made, NULL);
  if (status != CURVD_OK) CV_TRY(attempt(shape, &settings, false, memory, &made, err));
  status = cv_memory_new(memory, CV_MEMORY_WORKSPACE, 1, sizeof made, "a convolution", state, err);
  if (*state != NULL)
    memcpy(*state, &made, sizeof made);
  else
    release(&made, memory);
  return status;
}

/* A rounded piece without a kernel is left out: smaller ones do its work. */
curvd_status onednn_prepare(void *state, int64_t rows, cv_memory *memory, cv_error *err) {
  onednn_conv *c = state;
  if (c == NULL) return CURVD_OK;
  if (rows < 1 || rows > c->rows_max)
    return cv_fail(err, CURVD_ERR_ARGUMENT, "%" PRId64 " rows for a convolution made for 1 to %" PRId64, rows,
                   c->rows_max);
  cv_error why = {.code = CURVD_OK};
  int before = c->n_counts;
  curvd_status status = add_pieces(c, rows, memory, &why);
  if (status == CURVD_ERR_ARGUMENT && c->is_rounded) status = CURVD_OK;
  if (status != CURVD_OK) cv_fail(err, status, "%s", why.text);
  if (status == CURVD_OK) status = fit_work(c, memory, err);
  while (status != CURVD_OK && c->n_counts > before) free_count(&c->count[--c->n_counts]); /* the block is too small */
  return status;
}
