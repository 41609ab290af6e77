/* Convolutions by oneDNN 2 (C API). Images stay channels last, as they lie: its own blocked layout makes the layers
 * of VGG16 5 % faster (AVX-512, one thread), of which the copies in and out would take back some 2 %, and twice the
 * memory. Weights change every step, so each call packs them into the layout that its primitive wants
 * (kernel_places.h); a gradient is unpacked on its way into dW, or made without oneDNN (kernel_taps.h). A primitive is
 * made for one number of images; calls with another number work in pieces. */
#include "net/kernel_parts.h"
#include "net/kernel_places.h"
#include "net/kernel_taps.h"

#include <inttypes.h>
#include <omp.h>
#include <string.h>

enum { COUNTS_MAX = 8 };

typedef enum direction { FORWARD, INPUT, WEIGHT, DIRECTIONS } direction; /* what comes out: y, dx, dW */

/* The primitives for one number of images, and the memory objects whose addresses a call sets. */
typedef struct counted {
  int64_t rows;
  dnnl_primitive_t primitive[DIRECTIONS];
  dnnl_memory_t x, y, work[DIRECTIONS];
} counted;

typedef struct conv {
  nn_conv shape;
  int threads, n_counts;
  counted count[COUNTS_MAX]; /* the first one has rows_max, another one 1 */
  dnnl_engine_t engine;
  dnnl_stream_t stream;
  dnnl_primitive_attr_t attributes;
  dnnl_memory_desc_t layout[DIRECTIONS]; /* of the weight, or of its gradient */
  dnnl_memory_t weight[DIRECTIONS], bias;
  nn_places places[DIRECTIONS];
  float *packed, *bias_row; /* in any of the layouts; (c_out) */
  void *work;               /* what the primitives need */
  bool has_taps;            /* then those make dW, and there are no primitives for it */
  nn_taps taps;
  int64_t packed_bytes, work_bytes, work_bytes_min;
} conv;

static curvd_status check(dnnl_status_t status, const conv *c, const char *what, cv_error *err) {
  if (status == dnnl_success) return CURVD_OK;
  const nn_conv *s = &c->shape;
  return cv_fail(err, status == dnnl_out_of_memory ? CURVD_ERR_MEMORY : CURVD_ERR_ARGUMENT,
                 "oneDNN failed (status %d) to %s a convolution of %" PRId64 " x %" PRId64 " x %" PRId64 " to %" PRId64
                 " x %" PRId64 " x %" PRId64 ", kernel %" PRId64 " x %" PRId64 ", %" PRId64
                 " groups; use the plain kernels",
                 (int)status, what, s->in[0], s->in[1], s->c_in, s->out[0], s->out[1], s->c_out, s->kernel[0],
                 s->kernel[1], s->groups);
}

/* oneDNN asks OpenMP for the number of threads; others who ask it must not notice. Returns the number before. */
static int use_threads(int threads) {
  int before = omp_get_max_threads();
  omp_set_num_threads(threads);
  return before;
}

/* ---- descriptions ---- */

static dnnl_status_t describe_images(const conv *c, int64_t rows, dnnl_memory_desc_t *x, dnnl_memory_desc_t *y) {
  const nn_conv *s = &c->shape;
  const dnnl_dims_t in = {rows, s->c_in, s->in[0], s->in[1]}, out = {rows, s->c_out, s->out[0], s->out[1]};
  dnnl_status_t status = dnnl_memory_desc_init_by_tag(x, 4, in, dnnl_f32, dnnl_nhwc);
  return status != dnnl_success ? status : dnnl_memory_desc_init_by_tag(y, 4, out, dnnl_f32, dnnl_nhwc);
}

/* (c_out, c_in, kh, kw), behind the groups when there are several; the layout is left to the primitive. */
static dnnl_status_t describe_weight(const conv *c, dnnl_memory_desc_t *w) {
  const nn_conv *s = &c->shape;
  int64_t c_out = s->c_out / s->groups, c_in = s->c_in / s->groups;
  const dnnl_dims_t whole = {c_out, c_in, s->kernel[0], s->kernel[1]};
  const dnnl_dims_t grouped = {s->groups, c_out, c_in, s->kernel[0], s->kernel[1]};
  bool has_groups = s->groups > 1;
  return dnnl_memory_desc_init_by_tag(w, has_groups ? 5 : 4, has_groups ? grouped : whole, dnnl_f32,
                                      dnnl_format_tag_any);
}

/* Stops at the first failure. */
static dnnl_status_t describe_operation(const conv *c, int64_t rows, direction d, dnnl_convolution_desc_t *operation) {
  const nn_conv *s = &c->shape;
  const dnnl_dims_t holes = {s->dilation[0] - 1, s->dilation[1] - 1}, bias_dims = {s->c_out};
  const dnnl_dims_t steps = {s->stride[0], s->stride[1]}, pad = {s->pad[0], s->pad[1]};
  dnnl_memory_desc_t x, y, w = c->layout[d], b;
  dnnl_status_t status = describe_images(c, rows, &x, &y);
  if (status == dnnl_success && w.ndims == 0) status = describe_weight(c, &w);
  if (status == dnnl_success) status = dnnl_memory_desc_init_by_tag(&b, 1, bias_dims, dnnl_f32, dnnl_x);
  if (status != dnnl_success) return status;
  if (d == FORWARD)
    return dnnl_dilated_convolution_forward_desc_init(operation, dnnl_forward_training, dnnl_convolution_direct, &x, &w,
                                                      &b, &y, steps, holes, pad, pad);
  if (d == INPUT)
    return dnnl_dilated_convolution_backward_data_desc_init(operation, dnnl_convolution_direct, &x, &w, &y, steps,
                                                            holes, pad, pad);
  return dnnl_dilated_convolution_backward_weights_desc_init(operation, dnnl_convolution_direct, &x, &w, &b, &y, steps,
                                                             holes, pad, pad);
}

static bool names(dnnl_primitive_desc_t description, const char *part) {
  const char *name = "";
  dnnl_primitive_desc_query(description, dnnl_query_impl_info_str, 0, (void *)&name);
  return strstr(name, part) != NULL;
}

/* Its favourite, but no "brgconv" when there is another one of vector code: that goes through the weights image by
 * image and takes 1.5 to 3.5 times as long where images are small (512 channels, 4 x 4 and 2 x 2), and is no faster
 * elsewhere (fp32, AVX-512, version 2.6). */
static dnnl_status_t choose(const conv *c, const dnnl_convolution_desc_t *operation, dnnl_primitive_desc_t hint,
                            dnnl_primitive_desc_t *chosen) {
  dnnl_primitive_desc_iterator_t at;
  dnnl_status_t status = dnnl_primitive_desc_iterator_create(&at, operation, c->attributes, c->engine, hint);
  if (status != dnnl_success) return status;
  dnnl_primitive_desc_t other = *chosen = dnnl_primitive_desc_iterator_fetch(at);
  while (other != NULL && names(other, "brg")) {
    if (other != *chosen) dnnl_primitive_desc_destroy(other);
    other = dnnl_primitive_desc_iterator_next(at) == dnnl_success ? dnnl_primitive_desc_iterator_fetch(at) : NULL;
  }
  bool is_vector_code = other != NULL && names(other, "jit") && !names(other, "gemm");
  dnnl_primitive_desc_t unused = is_vector_code ? *chosen : other;
  if (is_vector_code) *chosen = other;
  if (unused != NULL && unused != *chosen) dnnl_primitive_desc_destroy(unused);
  dnnl_primitive_desc_iterator_destroy(at);
  return *chosen != NULL ? dnnl_success : dnnl_out_of_memory;
}

/* ---- making ---- */

/* A failure leaves the block as it was. */
static curvd_status fit_work(conv *c, cv_memory *memory, cv_error *err) {
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
static curvd_status take_layout(conv *c, direction d, dnnl_primitive_desc_t description, cv_memory *memory,
                                cv_error *err) {
  if (c->layout[d].ndims != 0) return CURVD_OK;
  const dnnl_memory_desc_t *layout =
      dnnl_primitive_desc_query_md(description, d == WEIGHT ? dnnl_query_diff_weights_md : dnnl_query_weights_md, 0);
  if (layout == NULL) return check(dnnl_invalid_arguments, c, "lay out the weight of", err);
  c->layout[d] = *layout;
  int64_t bytes = (int64_t)dnnl_memory_desc_get_size(layout);
  if (bytes > c->packed_bytes) c->packed_bytes = bytes;
  return nn_places_create(layout, &c->shape, memory, &c->places[d], err);
}

static curvd_status make_primitive(conv *c, counted *made, direction d, dnnl_primitive_desc_t description,
                                   cv_memory *memory, cv_error *err) {
  CV_TRY(take_layout(c, d, description, memory, err));
  const dnnl_memory_desc_t *work = dnnl_primitive_desc_query_md(description, dnnl_query_scratchpad_md, 0);
  int64_t bytes = (int64_t)dnnl_memory_desc_get_size(work);
  if (bytes > c->work_bytes_min) c->work_bytes_min = bytes;
  if (memory->is_dry) return CURVD_OK;
  CV_TRY(check(dnnl_memory_create(&made->work[d], work, c->engine, DNNL_MEMORY_NONE), c, "keep", err));
  return check(dnnl_primitive_create(&made->primitive[d], description), c, "make", err);
}

/* The forward description is a hint for the backward ones. */
static curvd_status make_primitives(conv *c, counted *made, cv_memory *memory, cv_error *err) {
  dnnl_primitive_desc_t description[DIRECTIONS] = {NULL};
  curvd_status status = CURVD_OK;
  for (direction d = FORWARD; d < (c->has_taps ? WEIGHT : DIRECTIONS) && status == CURVD_OK; d++) {
    dnnl_convolution_desc_t operation;
    status = check(describe_operation(c, made->rows, d, &operation), c, "describe", err);
    if (status == CURVD_OK)
      status =
          check(choose(c, &operation, d == FORWARD ? NULL : description[FORWARD], &description[d]), c, "find", err);
    if (status == CURVD_OK) status = make_primitive(c, made, d, description[d], memory, err);
  }
  for (int d = 0; d < DIRECTIONS; d++)
    if (description[d] != NULL) dnnl_primitive_desc_destroy(description[d]);
  return status;
}

static void free_count(counted *made) {
  for (int d = 0; d < DIRECTIONS; d++) {
    if (made->primitive[d] != NULL) dnnl_primitive_destroy(made->primitive[d]);
    if (made->work[d] != NULL) dnnl_memory_destroy(made->work[d]);
  }
  if (made->x != NULL) dnnl_memory_destroy(made->x);
  if (made->y != NULL) dnnl_memory_destroy(made->y);
}

static curvd_status add_count(conv *c, int64_t rows, cv_memory *memory, cv_error *err) {
  counted made = {.rows = rows};
  dnnl_memory_desc_t x, y;
  int before = use_threads(c->threads);
  curvd_status status = make_primitives(c, &made, memory, err);
  if (status == CURVD_OK) status = check(describe_images(c, rows, &x, &y), c, "describe", err);
  if (status == CURVD_OK) status = check(dnnl_memory_create(&made.x, &x, c->engine, DNNL_MEMORY_NONE), c, "keep", err);
  if (status == CURVD_OK) status = check(dnnl_memory_create(&made.y, &y, c->engine, DNNL_MEMORY_NONE), c, "keep", err);
  use_threads(before);
  if (status == CURVD_OK)
    c->count[c->n_counts++] = made;
  else
    free_count(&made);
  return status;
}

static curvd_status make_weights(conv *c, cv_memory *memory, cv_error *err) {
  int64_t bytes = c->packed_bytes;
  const dnnl_dims_t bias_dims = {c->shape.c_out};
  dnnl_memory_desc_t bias;
  CV_TRY(cv_floats_new(memory, CV_MEMORY_WORKSPACE, (bytes + 3) / 4, "a convolution's packed weight", &c->packed, err));
  CV_TRY(cv_floats_new(memory, CV_MEMORY_WORKSPACE, c->shape.c_out, "a convolution's bias", &c->bias_row, err));
  if (memory->is_dry) return CURVD_OK;
  CV_TRY(check(dnnl_memory_desc_init_by_tag(&bias, 1, bias_dims, dnnl_f32, dnnl_x), c, "describe", err));
  CV_TRY(check(dnnl_memory_create(&c->bias, &bias, c->engine, c->bias_row), c, "keep", err));
  for (int d = 0; d < (c->has_taps ? WEIGHT : DIRECTIONS); d++)
    CV_TRY(check(dnnl_memory_create(&c->weight[d], &c->layout[d], c->engine, c->packed), c, "keep", err));
  return CURVD_OK;
}

static curvd_status make(conv *c, int64_t rows_max, cv_memory *memory, cv_error *err) {
  CV_TRY(check(dnnl_engine_create(&c->engine, dnnl_cpu, 0), c, "start", err));
  CV_TRY(check(dnnl_stream_create(&c->stream, c->engine, dnnl_stream_default_flags), c, "start", err));
  CV_TRY(check(dnnl_primitive_attr_create(&c->attributes), c, "start", err));
  CV_TRY(check(dnnl_primitive_attr_set_scratchpad_mode(c->attributes, dnnl_scratchpad_mode_user), c, "start", err));
  CV_TRY(add_count(c, rows_max, memory, err));
  if (rows_max > 1) CV_TRY(add_count(c, 1, memory, err));
  CV_TRY(fit_work(c, memory, err));
  if (c->has_taps) CV_TRY(nn_taps_create(&c->shape, rows_max, memory, &c->taps, err));
  return make_weights(c, memory, err);
}

static void release(conv *c, cv_memory *memory) {
  for (int i = 0; i < c->n_counts; i++) free_count(&c->count[i]);
  for (int d = 0; d < DIRECTIONS; d++) {
    if (c->weight[d] != NULL) dnnl_memory_destroy(c->weight[d]);
    nn_places_free(memory, &c->places[d]);
  }
  if (c->bias != NULL) dnnl_memory_destroy(c->bias);
  if (c->attributes != NULL) dnnl_primitive_attr_destroy(c->attributes);
  if (c->stream != NULL) dnnl_stream_destroy(c->stream);
  if (c->engine != NULL) dnnl_engine_destroy(c->engine);
  nn_taps_free(memory, &c->taps);
  cv_floats_free(memory, &c->packed);
  cv_floats_free(memory, &c->bias_row);
  cv_memory_free(memory, &c->work);
}

static void onednn_free(cv_memory *memory, void **state) {
  if (*state == NULL) return;
  release(*state, memory);
  cv_memory_free(memory, state);
}

static curvd_status onednn_create(const nn_conv *shape, int64_t rows_max, int threads, cv_memory *memory, void **state,
                                  cv_error *err) {
  *state = NULL;
  CV_TRY(nn_conv_check(shape, rows_max, err));
  conv made = {.shape = *shape, .threads = threads > 1 ? threads : 1, .has_taps = nn_taps_pay(shape)};
  curvd_status status = make(&made, rows_max, memory, err);
  if (status == CURVD_OK)
    status = cv_memory_new(memory, CV_MEMORY_WORKSPACE, 1, sizeof made, "a convolution", state, err);
  if (*state != NULL)
    memcpy(*state, &made, sizeof made);
  else
    release(&made, memory);
  return status;
}

static curvd_status onednn_prepare(void *state, int64_t rows, cv_memory *memory, cv_error *err) {
  conv *c = state;
  if (c == NULL || c->n_counts == COUNTS_MAX) return CURVD_OK;
  if (rows < 1 || rows > c->count[0].rows)
    return cv_fail(err, CURVD_ERR_ARGUMENT, "%" PRId64 " rows for a convolution made for 1 to %" PRId64, rows,
                   c->count[0].rows);
  for (int i = 0; i < c->n_counts; i++)
    if (c->count[i].rows == rows) return CURVD_OK;
  CV_TRY(add_count(c, rows, memory, err));
  curvd_status status = fit_work(c, memory, err);
  if (status != CURVD_OK) free_count(&c->count[--c->n_counts]); /* it would run beyond the block */
  return status;
}

/* ---- running ---- */

/* The primitives for most images, up to rows. */
static const counted *most_of(const conv *c, int64_t rows) {
  const counted *most = NULL;
  for (int i = 0; i < c->n_counts; i++)
    if (c->count[i].rows <= rows && (most == NULL || c->count[i].rows > most->rows)) most = &c->count[i];
  return most;
}

static dnnl_status_t execute(const conv *c, const counted *piece, direction d) {
  static const int argument[DIRECTIONS][4] = {
      {DNNL_ARG_SRC, DNNL_ARG_DST, DNNL_ARG_WEIGHTS, DNNL_ARG_BIAS},
      {DNNL_ARG_DIFF_SRC, DNNL_ARG_DIFF_DST, DNNL_ARG_WEIGHTS, DNNL_ARG_BIAS},
      {DNNL_ARG_SRC, DNNL_ARG_DIFF_DST, DNNL_ARG_DIFF_WEIGHTS, DNNL_ARG_DIFF_BIAS}};
  const dnnl_exec_arg_t arguments[] = {{argument[d][0], piece->x},
                                       {argument[d][1], piece->y},
                                       {argument[d][2], c->weight[d]},
                                       {DNNL_ARG_SCRATCHPAD, piece->work[d]},
                                       {argument[d][3], c->bias}}; /* last: dx knows no bias */
  int n = (int)(sizeof arguments / sizeof *arguments) - (d == INPUT);
  dnnl_status_t status = dnnl_primitive_execute(piece->primitive[d], c->stream, n, arguments);
  return status != dnnl_success ? status : dnnl_stream_wait(c->stream);
}

static curvd_status run_piece(const conv *c, const counted *piece, direction d, const float *x, const float *y,
                              cv_error *err) {
  dnnl_status_t status = dnnl_memory_set_data_handle(piece->x, (void *)x);
  if (status == dnnl_success) status = dnnl_memory_set_data_handle(piece->y, (void *)y);
  if (status == dnnl_success) status = dnnl_memory_set_data_handle(piece->work[d], c->work);
  int before = use_threads(c->threads);
  if (status == dnnl_success) status = execute(c, piece, d);
  use_threads(before);
  return check(status, c, "compute", err);
}

/* Those of x and y that come out are written, through pointers that their callers got as such. */
static curvd_status run_pieces(const conv *c, direction d, int64_t rows, const float *x, const float *y,
                               cv_error *err) {
  const nn_conv *s = &c->shape;
  int64_t x_image = s->in[0] * s->in[1] * s->c_in, y_image = s->out[0] * s->out[1] * s->c_out;
  for (int64_t at = 0; at < rows;) {
    const counted *piece = most_of(c, rows - at);
    CV_TRY(run_piece(c, piece, d, x + at * x_image, y + at * y_image, err));
    at += piece->rows;
  }
  return CURVD_OK;
}

static void pack_weight(const conv *c, direction d, const float *w, int64_t ldw) {
  nn_places_pack(&c->places[d], w, ldw, c->packed);
}

static curvd_status onednn_forward(void *state, int64_t rows, const float *x, const float *w, int64_t ldw,
                                   bool has_bias, float *y, cv_error *err) {
  const conv *c = state;
  int64_t d_in = nn_conv_d_in(&c->shape);
  pack_weight(c, FORWARD, w, ldw);
  for (int64_t o = 0; o < c->shape.c_out; o++) c->bias_row[o] = has_bias ? w[o * ldw + d_in] : 0;
  return run_pieces(c, FORWARD, rows, x, y, err);
}

static curvd_status onednn_backward_input(void *state, int64_t rows, const float *g, const float *w, int64_t ldw,
                                          float *dx, cv_error *err) {
  const conv *c = state;
  pack_weight(c, INPUT, w, ldw);
  return run_pieces(c, INPUT, rows, dx, g, err);
}

static void add_bias(const conv *c, float scale, float beta, float *dw, int64_t lddw) {
  for (int64_t o = 0; o < c->shape.c_out; o++)
    dw[o * lddw] = (beta == 0 ? 0 : beta * dw[o * lddw]) + scale * c->bias_row[o];
}

static curvd_status onednn_backward_weight(void *state, int64_t rows, const float *x, const float *g, float scale,
                                           bool has_bias, float beta, float *dw, int64_t lddw, cv_error *err) {
  const conv *c = state;
  const nn_conv *s = &c->shape;
  int64_t x_image = s->in[0] * s->in[1] * s->c_in, y_image = s->out[0] * s->out[1] * s->c_out;
  if (c->has_taps) {
    nn_taps_backward_weight(&c->taps, s, rows, x, g, scale, has_bias, beta, dw, lddw);
    return CURVD_OK;
  }
  for (int64_t at = 0; at < rows;) {
    const counted *piece = most_of(c, rows - at);
    CV_TRY(run_piece(c, piece, WEIGHT, x + at * x_image, g + at * y_image, err));
    nn_places_add(&c->places[WEIGHT], c->packed, scale, at == 0 ? beta : 1, dw, lddw);
    if (has_bias) add_bias(c, scale, at == 0 ? beta : 1, dw + nn_conv_d_in(s), lddw);
    at += piece->rows;
  }
  return CURVD_OK;
}

const nn_kernels nn_kernels_onednn = {.name = "onednn",
                                      .conv_create = onednn_create,
                                      .conv_prepare = onednn_prepare,
                                      .conv_free = onednn_free,
                                      .conv_forward = onednn_forward,
                                      .conv_backward_input = onednn_backward_input,
                                      .conv_backward_weight = onednn_backward_weight,
                                      .pool_forward = nn_pool_forward,
                                      .pool_backward = nn_pool_backward,
                                      .norm_sums = nn_norm_sums,
                                      .norm_apply = nn_norm_apply,
                                      .norm_backward_sums = nn_norm_backward_sums,
                                      .norm_backward_apply = nn_norm_backward_apply};
