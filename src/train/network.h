/* What --network says, as a model_spec. */
#ifndef TRAIN_NETWORK_H
#define TRAIN_NETWORK_H

#include "net/model.h"

#include <stddef.h>

/* "784-1000-1000-10", "784-500:tanh-10", "784-1000x199-10" with 199 widths of 1000, or "autoencoder" =
 * 784-1000-500-250-30:linear-250-500-1000-784 with sigmoid units, sigmoid cross-entropy against its input; a named
 * network (model_names.c) as "vgg16_bn" or "vgg16_bn:32x32x3:100"; or the path of a model file (network_file.c), which
 * ends in .yaml or .yml. Layers without a name get one of their kind and number: "fc1", "conv2". CURVD_ERR_OPTION says
 * which word is wrong; IO: a file that cannot be read. */
curvd_status network_parse(const char *text, nn_activation_kind hidden, nn_loss_kind loss, model_spec *spec,
                           cv_error *err);

/* network_file.c: a YAML list of layers (README). Errors name file, line and reason. */
curvd_status network_file_read(const char *path, model_spec *spec, cv_error *err);
curvd_status network_file_parse(const char *bytes, size_t n_bytes, const char *path, model_spec *spec, cv_error *err);

#endif
