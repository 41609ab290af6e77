#include "conv_bare.h"

#include <dnnl.h>
#include <stdlib.h>

enum { FORWARD, INPUT, WEIGHT, DIRECTIONS };

struct conv_bare {
  nn_conv shape;
  int64_t rows;
  dnnl_engine_t engine;
  dnnl_stream_t stream;
  dnnl_primitive_desc_t description[DIRECTIONS];
  dnnl_primitive_t primitive[DIRECTIONS], turn_weight;
  dnnl_memory_t x, y, w, bias, g, dx, w_input, dw, dbias; /* w_input: w for the gradient in x */
};

/* Our layouts as oneDNN says them. */
static bool ours(const conv_bare *c, dnnl_memory_desc_t *x, dnnl_memory_desc_t *y, dnnl_memory_desc_t *w,
                 dnnl_memory_desc_t *bias) {
  const nn_conv *s = &c->shape;
  int64_t d_in = nn_conv_d_in(s);
  const dnnl_dims_t x_dims = {c->rows, s->c_in, s->in[0], s->in[1]}, y_dims = {c->rows, s->c_out, s->out[0], s->out[1]},
                    w_dims = {s->c_out, s->c_in, s->kernel[0], s->kernel[1]},
                    w_strides = {d_in + 1, 1, s->kernel[1] * s->c_in, s->c_in}, bias_dims = {s->c_out},
                    bias_strides = {d_in + 1};
  return dnnl_memory_desc_init_by_tag(x, 4, x_dims, dnnl_f32, dnnl_nhwc) == dnnl_success &&
         dnnl_memory_desc_init_by_tag(y, 4, y_dims, dnnl_f32, dnnl_nhwc) == dnnl_success &&
         dnnl_memory_desc_init_by_strides(w, 4, w_dims, dnnl_f32, w_strides) == dnnl_success &&
         dnnl_memory_desc_init_by_strides(bias, 1, bias_dims, dnnl_f32, bias_strides) == dnnl_success;
}

static dnnl_memory_desc_t any_layout(const dnnl_memory_desc_t *of) {
  dnnl_memory_desc_t any;
  dnnl_memory_desc_init_by_tag(&any, of->ndims, of->dims, dnnl_f32, of->ndims == 1 ? dnnl_x : dnnl_format_tag_any);
  return any;
}

static const dnnl_memory_desc_t *layout(const conv_bare *c, int direction, dnnl_query_t what) {
  return dnnl_primitive_desc_query_md(c->description[direction], what, 0);
}

/* The library's favourite of all. The backward passes take images as the forward pass left them. */
static bool describe(conv_bare *c) {
  const nn_conv *s = &c->shape;
  const dnnl_dims_t steps = {s->stride[0], s->stride[1]}, pad = {s->pad[0], s->pad[1]};
  dnnl_memory_desc_t x, y, w, bias;
  dnnl_convolution_desc_t operation;
  if (!ours(c, &x, &y, &w, &bias)) return false;
  x = any_layout(&x), y = any_layout(&y), w = any_layout(&w), bias = any_layout(&bias);
  if (dnnl_convolution_forward_desc_init(&operation, dnnl_forward_training, dnnl_convolution_direct, &x, &w, &bias, &y,
                                         steps, pad, pad) != dnnl_success ||
      dnnl_primitive_desc_create(&c->description[FORWARD], &operation, NULL, c->engine, NULL) != dnnl_success)
    return false;
  dnnl_primitive_desc_t hint = c->description[FORWARD];
  y = *layout(c, FORWARD, dnnl_query_dst_md);
  if (dnnl_convolution_backward_data_desc_init(&operation, dnnl_convolution_direct, &x, &w, &y, steps, pad, pad) !=
          dnnl_success ||
      dnnl_primitive_desc_create(&c->description[INPUT], &operation, NULL, c->engine, hint) != dnnl_success)
    return false;
  x = *layout(c, FORWARD, dnnl_query_src_md);
  return dnnl_convolution_backward_weights_desc_init(&operation, dnnl_convolution_direct, &x, &w, &bias, &y, steps, pad,
                                                     pad) == dnnl_success &&
         dnnl_primitive_desc_create(&c->description[WEIGHT], &operation, NULL, c->engine, hint) == dnnl_success;
}

static bool make_memory(const conv_bare *c, const dnnl_memory_desc_t *as, dnnl_memory_t *made) {
  return dnnl_memory_create(made, as, c->engine, DNNL_MEMORY_ALLOCATE) == dnnl_success;
}

static bool make_memories(conv_bare *c) {
  dnnl_memory_desc_t x, y, w, bias;
  if (!ours(c, &x, &y, &w, &bias)) return false;
  bias = any_layout(&bias);
  return make_memory(c, layout(c, FORWARD, dnnl_query_src_md), &c->x) &&
         make_memory(c, layout(c, FORWARD, dnnl_query_dst_md), &c->y) &&
         make_memory(c, layout(c, FORWARD, dnnl_query_weights_md), &c->w) && make_memory(c, &bias, &c->bias) &&
         make_memory(c, layout(c, FORWARD, dnnl_query_dst_md), &c->g) &&
         make_memory(c, layout(c, INPUT, dnnl_query_diff_src_md), &c->dx) &&
         make_memory(c, layout(c, INPUT, dnnl_query_weights_md), &c->w_input) &&
         make_memory(c, layout(c, WEIGHT, dnnl_query_diff_weights_md), &c->dw) && make_memory(c, &bias, &c->dbias);
}

static bool execute(const conv_bare *c, dnnl_primitive_t primitive, int n, const dnnl_exec_arg_t *arguments) {
  return dnnl_primitive_execute(primitive, c->stream, n, arguments) == dnnl_success &&
         dnnl_stream_wait(c->stream) == dnnl_success;
}

static bool make_copy(const conv_bare *c, dnnl_memory_t from, dnnl_memory_t to, dnnl_primitive_t *copy) {
  const dnnl_memory_desc_t *source, *target;
  dnnl_primitive_desc_t description;
  if (dnnl_memory_get_memory_desc(from, &source) != dnnl_success ||
      dnnl_memory_get_memory_desc(to, &target) != dnnl_success ||
      dnnl_reorder_primitive_desc_create(&description, source, c->engine, target, c->engine, NULL) != dnnl_success)
    return false;
  bool is_made = dnnl_primitive_create(copy, description) == dnnl_success;
  dnnl_primitive_desc_destroy(description);
  return is_made;
}

static bool run_copy(const conv_bare *c, dnnl_primitive_t copy, dnnl_memory_t from, dnnl_memory_t to) {
  const dnnl_exec_arg_t arguments[] = {{DNNL_ARG_FROM, from}, {DNNL_ARG_TO, to}};
  return execute(c, copy, 2, arguments);
}

/* Between a memory of the library and an array in our layout; is_read: from the memory to the array. */
static bool exchange(const conv_bare *c, dnnl_memory_t memory, const dnnl_memory_desc_t *as, float *array,
                     bool is_read) {
  dnnl_memory_t outside;
  dnnl_primitive_t copy;
  if (dnnl_memory_create(&outside, as, c->engine, array) != dnnl_success) return false;
  dnnl_memory_t from = is_read ? memory : outside, to = is_read ? outside : memory;
  bool is_done = make_copy(c, from, to, &copy);
  if (is_done) {
    is_done = run_copy(c, copy, from, to);
    dnnl_primitive_destroy(copy);
  }
  dnnl_memory_destroy(outside);
  return is_done;
}

conv_bare *conv_bare_new(const nn_conv *shape, int64_t rows, const float *x, const float *w, const float *g,
                         bool has_input) {
  conv_bare *c = calloc(1, sizeof *c);
  dnnl_memory_desc_t x_ours, y_ours, w_ours, bias_ours;
  if (c == NULL) return NULL;
  c->shape = *shape, c->rows = rows;
  bool is_made = dnnl_engine_create(&c->engine, dnnl_cpu, 0) == dnnl_success &&
                 dnnl_stream_create(&c->stream, c->engine, dnnl_stream_default_flags) == dnnl_success && describe(c) &&
                 make_memories(c) && ours(c, &x_ours, &y_ours, &w_ours, &bias_ours) &&
                 exchange(c, c->x, &x_ours, (float *)x, false) && exchange(c, c->w, &w_ours, (float *)w, false) &&
                 exchange(c, c->bias, &bias_ours, (float *)w + nn_conv_d_in(shape), false) &&
                 exchange(c, c->g, &y_ours, (float *)g, false) && make_copy(c, c->w, c->w_input, &c->turn_weight);
  for (int d = 0; d < DIRECTIONS && is_made; d++)
    if (d != INPUT || has_input) is_made = dnnl_primitive_create(&c->primitive[d], c->description[d]) == dnnl_success;
  if (is_made) return c;
  conv_bare_free(c);
  return NULL;
}

void conv_bare_free(conv_bare *c) {
  const dnnl_memory_t memories[] = {c->x, c->y, c->w, c->bias, c->g, c->dx, c->w_input, c->dw, c->dbias};
  for (size_t i = 0; i < sizeof memories / sizeof *memories; i++)
    if (memories[i] != NULL) dnnl_memory_destroy(memories[i]);
  for (int d = 0; d < DIRECTIONS; d++) {
    if (c->primitive[d] != NULL) dnnl_primitive_destroy(c->primitive[d]);
    if (c->description[d] != NULL) dnnl_primitive_desc_destroy(c->description[d]);
  }
  if (c->turn_weight != NULL) dnnl_primitive_destroy(c->turn_weight);
  if (c->stream != NULL) dnnl_stream_destroy(c->stream);
  if (c->engine != NULL) dnnl_engine_destroy(c->engine);
  free(c);
}

bool conv_bare_run(conv_bare *c) {
  const dnnl_exec_arg_t forward[] = {
      {DNNL_ARG_SRC, c->x}, {DNNL_ARG_WEIGHTS, c->w}, {DNNL_ARG_BIAS, c->bias}, {DNNL_ARG_DST, c->y}};
  const dnnl_exec_arg_t input[] = {
      {DNNL_ARG_DIFF_DST, c->g}, {DNNL_ARG_WEIGHTS, c->w_input}, {DNNL_ARG_DIFF_SRC, c->dx}};
  const dnnl_exec_arg_t weight[] = {
      {DNNL_ARG_SRC, c->x}, {DNNL_ARG_DIFF_DST, c->g}, {DNNL_ARG_DIFF_WEIGHTS, c->dw}, {DNNL_ARG_DIFF_BIAS, c->dbias}};
  if (!execute(c, c->primitive[FORWARD], 4, forward) || !execute(c, c->primitive[WEIGHT], 4, weight)) return false;
  return c->primitive[INPUT] == NULL ||
         (run_copy(c, c->turn_weight, c->w, c->w_input) && execute(c, c->primitive[INPUT], 3, input));
}

bool conv_bare_read(const conv_bare *c, float *y, float *dx, float *dw) {
  dnnl_memory_desc_t x_ours, y_ours, w_ours, bias_ours;
  return ours(c, &x_ours, &y_ours, &w_ours, &bias_ours) && exchange(c, c->y, &y_ours, y, true) &&
         (dx == NULL || exchange(c, c->dx, &x_ours, dx, true)) && exchange(c, c->dw, &w_ours, dw, true) &&
         exchange(c, c->dbias, &bias_ours, dw + nn_conv_d_in(&c->shape), true);
}
