/* Which of oneDNN's kernels makes a result. */
#include "net/kernel_onednn.h"

#include <string.h>

static dnnl_data_type_t type_of(const onednn_conv *c, bool goes_in) {
  return c->is_rounded && goes_in ? dnnl_bf16 : dnnl_f32;
}

dnnl_status_t onednn_describe_images(const onednn_conv *c, int64_t rows, nn_conv_result d, dnnl_memory_desc_t *x,
                                     dnnl_memory_desc_t *y) {
  const nn_conv *s = &c->shape;
  const dnnl_dims_t in = {rows, s->c_in, s->in[0], s->in[1]}, out = {rows, s->c_out, s->out[0], s->out[1]};
  dnnl_status_t status = dnnl_memory_desc_init_by_tag(x, 4, in, type_of(c, d != NN_CONV_DX), dnnl_nhwc);
  if (status != dnnl_success) return status;
  return dnnl_memory_desc_init_by_tag(y, 4, out, type_of(c, d != NN_CONV_Y), dnnl_nhwc);
}

/* (c_out, c_in, kh, kw), behind the groups when there are several; the layout is left to the primitive. */
static dnnl_status_t describe_weight(const onednn_conv *c, nn_conv_result d, dnnl_memory_desc_t *w) {
  const nn_conv *s = &c->shape;
  int64_t c_out = s->c_out / s->groups, c_in = s->c_in / s->groups;
  const dnnl_dims_t whole = {c_out, c_in, s->kernel[0], s->kernel[1]};
  const dnnl_dims_t grouped = {s->groups, c_out, c_in, s->kernel[0], s->kernel[1]};
  bool has_groups = s->groups > 1;
  return dnnl_memory_desc_init_by_tag(w, has_groups ? 5 : 4, has_groups ? grouped : whole, type_of(c, d != NN_CONV_DW),
                                      dnnl_format_tag_any);
}

/* Stops at the first failure. */
static dnnl_status_t describe_operation(const onednn_conv *c, int64_t rows, nn_conv_result d,
                                        dnnl_convolution_desc_t *operation) {
  const nn_conv *s = &c->shape;
  const dnnl_dims_t holes = {s->dilation[0] - 1, s->dilation[1] - 1}, bias_dims = {s->c_out};
  const dnnl_dims_t steps = {s->stride[0], s->stride[1]}, pad = {s->pad[0], s->pad[1]};
  dnnl_memory_desc_t x, y, w = c->layout[d], b;
  dnnl_status_t status = onednn_describe_images(c, rows, d, &x, &y);
  if (status == dnnl_success && w.ndims == 0) status = describe_weight(c, d, &w);
  if (status == dnnl_success) status = dnnl_memory_desc_init_by_tag(&b, 1, bias_dims, dnnl_f32, dnnl_x);
  if (status != dnnl_success) return status;
  if (d == NN_CONV_Y)
    return dnnl_dilated_convolution_forward_desc_init(operation, dnnl_forward_training, dnnl_convolution_direct, &x, &w,
                                                      &b, &y, steps, holes, pad, pad);
  if (d == NN_CONV_DX)
    return dnnl_dilated_convolution_backward_data_desc_init(operation, dnnl_convolution_direct, &x, &w, &y, steps,
                                                            holes, pad, pad);
  return dnnl_dilated_convolution_backward_weights_desc_init(operation, dnnl_convolution_direct, &x, &w, &b, &y, steps,
                                                             holes, pad, pad);
}

const char *onednn_name(const_dnnl_primitive_desc_t description) {
  const char *name = "";
  dnnl_primitive_desc_query(description, dnnl_query_impl_info_str, 0, (void *)&name);
  return name;
}

static bool names(dnnl_primitive_desc_t description, const char *part) {
  return strstr(onednn_name(description), part) != NULL;
}

/* Its favourite, but no "brgconv" when there is another one of vector code: that goes through the weights image by
 * image and takes 1.5 to 3.5 times as long where images are small (512 channels, 4 x 4 and 2 x 2), and is no faster
 * elsewhere (fp32, AVX-512, version 2.6). */
static dnnl_primitive_desc_t choose(dnnl_primitive_desc_iterator_t at) {
  dnnl_primitive_desc_t first = dnnl_primitive_desc_iterator_fetch(at), other = first;
  while (other != NULL && names(other, "brg")) {
    if (other != first) dnnl_primitive_desc_destroy(other);
    other = dnnl_primitive_desc_iterator_next(at) == dnnl_success ? dnnl_primitive_desc_iterator_fetch(at) : NULL;
  }
  bool is_vector_code = other != NULL && names(other, "jit") && !names(other, "gemm");
  dnnl_primitive_desc_t unused = is_vector_code ? first : other;
  if (unused != NULL && first != other) dnnl_primitive_desc_destroy(unused);
  return is_vector_code ? other : first;
}

/* The part of their names that kernels of a unit have in common; NULL: none are known. Of version 2.6, tried on
 * thousands of shapes with guarded pages around all memory, "jit_1x1:avx512_core_amx_bf16" reads x and writes y beyond
 * their ends (1 x 1, 6 x 6 pixels), and making a "brgconv:avx512_core_amx_bf16" reads beyond its own memory (32
 * channels, one image of 2 x 3); these do neither, and take 10 % longer at most. */
static const char *unit_part(const cv_unit *unit) {
  if (unit == NULL) return NULL;
  if (strcmp(unit->name, "amx") == 0) return "jit:avx512_core_amx_bf16";
  return strcmp(unit->name, "avx512-bf16") == 0 ? "jit_bf16" : NULL;
}

bool onednn_has_unit(const cv_unit *unit) {
  return unit_part(unit) != NULL;
}

/* The first one that runs on the multiplier's unit; NULL: there is none. */
static dnnl_primitive_desc_t choose_unit(const onednn_conv *c, dnnl_primitive_desc_iterator_t at) {
  do {
    dnnl_primitive_desc_t one = dnnl_primitive_desc_iterator_fetch(at);
    if (one == NULL || names(one, unit_part(c->by.unit))) return one;
    dnnl_primitive_desc_destroy(one);
  } while (dnnl_primitive_desc_iterator_next(at) == dnnl_success);
  return NULL;
}

dnnl_status_t onednn_find(const onednn_conv *c, int64_t rows, nn_conv_result d, dnnl_primitive_desc_t hint,
                          dnnl_primitive_desc_t *found) {
  dnnl_convolution_desc_t operation;
  dnnl_primitive_desc_iterator_t at;
  dnnl_status_t status = describe_operation(c, rows, d, &operation);
  if (status == dnnl_success)
    status = dnnl_primitive_desc_iterator_create(&at, &operation, c->attributes, c->engine, hint);
  if (status != dnnl_success) return status;
  *found = c->is_rounded ? choose_unit(c, at) : choose(at);
  dnnl_primitive_desc_iterator_destroy(at);
  return *found != NULL ? dnnl_success : dnnl_unimplemented;
}
