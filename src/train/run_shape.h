/* A configuration as the library's predictions take it. No MPI, no data. */
#ifndef TRAIN_RUN_SHAPE_H
#define TRAIN_RUN_SHAPE_H

#include "net/model.h"
#include "train/config.h"
#include "train/part.h"

#include "curvd_experimental.h"

enum { RUN_SHAPE_OPTIONS_MAX = 96 };

/* Too large for the stack. */
typedef struct run_shape {
  curvd_run_shape shape; /* borrows from the rest: it does not move */
  model_spec spec;
  part part[PARTS_MAX];
  int first[MODEL_LAYERS_MAX + 1];
  curvd_layer_shape layer[PARTS_MAX];
  char name[PARTS_MAX][NN_NAME_MAX];
  curvd_option_value option[RUN_SHAPE_OPTIONS_MAX];
  char value[RUN_SHAPE_OPTIONS_MAX][CV_OPTION_TEXT_MAX];
} run_shape;

/* Resolves c's automatic values for n_ranks. Seconds of training are left at those of its flops. *made: to be freed. */
curvd_status run_shape_make(config *c, int n_ranks, run_shape **made, cv_error *err);

#endif
