/* What a convolution by oneDNN keeps, for its two files: kernel_onednn_make.c, which makes it, and kernel_onednn.c. */
#ifndef NET_KERNEL_ONEDNN_H
#define NET_KERNEL_ONEDNN_H

#include "net/kernel_parts.h"
#include "net/kernel_places.h"
#include "net/kernel_taps.h"

enum { ONEDNN_COUNTS_MAX = 8, ONEDNN_NAME_MAX = 48 };

/* The primitives for one number of images, and the memory objects whose addresses a call sets. */
typedef struct onednn_count {
  int64_t rows;
  dnnl_primitive_t primitive[NN_CONV_RESULTS];
  dnnl_memory_t x[NN_CONV_RESULTS], y[NN_CONV_RESULTS], work[NN_CONV_RESULTS];
} onednn_count;

typedef struct onednn_conv {
  nn_conv shape;
  int threads, n_counts;
  int64_t rows_max, piece_max;           /* of a call; of a primitive */
  onednn_count count[ONEDNN_COUNTS_MAX]; /* one has piece_max, one 1 */
  dnnl_engine_t engine;
  dnnl_stream_t stream;
  dnnl_primitive_attr_t attributes;
  dnnl_memory_desc_t layout[NN_CONV_RESULTS]; /* of the weight, or of its gradient */
  dnnl_memory_t weight[NN_CONV_RESULTS], bias;
  nn_places places[NN_CONV_RESULTS];
  char kernel[NN_CONV_RESULTS][ONEDNN_NAME_MAX];
  float *packed, *bias_row; /* in any of the layouts; (c_out) */
  void *work;               /* what the primitives need */
  bool has_taps;            /* then those make dW, and there are no primitives for it */
  nn_taps taps;
  int64_t packed_numbers, work_bytes, work_bytes_min;
  cv_multiplier by; /* bf16, or all zero */
  bool is_rounded;  /* what goes into primitives is bf16; what comes out is fp32 in any case */
  uint16_t *rounded_x, *rounded_y, *rounded_weight; /* of a piece; in any of the layouts */
} onednn_conv;

curvd_status onednn_check(dnnl_status_t status, const onednn_conv *c, const char *what, cv_error *err);

/* oneDNN asks OpenMP for the number of threads; others who ask it must not notice. Returns the number before. */
int onednn_use_threads(int threads);

/* Has oneDNN kernels for it? */
bool onednn_has_unit(const cv_unit *unit);

const char *onednn_name(const_dnnl_primitive_desc_t description);
dnnl_status_t onednn_describe_images(const onednn_conv *c, int64_t rows, nn_conv_result d, dnnl_memory_desc_t *x,
                                     dnnl_memory_desc_t *y);

/* The primitive that makes a result for so many rows. hint: NULL forward, the forward one backward. */
dnnl_status_t onednn_find(const onednn_conv *c, int64_t rows, nn_conv_result d, dnnl_primitive_desc_t hint,
                          dnnl_primitive_desc_t *found);

/* conv_create, conv_prepare and conv_free of kernel.h */
curvd_status onednn_create(const nn_conv *shape, const nn_conv_settings *settings, cv_memory *memory, void **state,
                           cv_error *err);
curvd_status onednn_prepare(void *state, int64_t rows, cv_memory *memory, cv_error *err);
void onednn_free(cv_memory *memory, void **state);

#endif
