/* A part is what the library knows as one layer: a weight of the network, or of a grouped convolution the rows that
 * belong to one group. Layers without weights have none. */
#ifndef TRAIN_PART_H
#define TRAIN_PART_H

#include "curvd.h"
#include "curvd_experimental.h"
#include "net/model.h"

enum { PARTS_MAX = 4096 };

typedef struct part {
  int layer;
  int64_t group;
} part;

/* In the order of layers and groups. first[i]: the first one of layer i, first[n_layers]: their number, at most
 * PARTS_MAX. OPTION: more. */
curvd_status part_list(const model_spec *spec, part list[PARTS_MAX], int first[MODEL_LAYERS_MAX + 1], cv_error *err);

/* Adds it to the library, and tells predictions of it; name: borrowed from text. */
curvd_status part_add(curvd_ctx *ctx, const model_spec *spec, part p);
curvd_layer_shape part_shape(const model_spec *spec, part p, char text[NN_NAME_MAX]);

/* Its rows of the layer's gradient. */
curvd_gradient part_gradient(const model *net, part p);

/* Its parameters, laid out as part_gradient. */
float *part_weight(const model *net, part p);

/* What curvd_capture takes, during a backward pass. */
typedef struct part_rows {
  const float *a, *g;
  int64_t lda, ldg;
} part_rows;
part_rows part_look(const model *net, part p);

#endif
