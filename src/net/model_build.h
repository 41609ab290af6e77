/* Building a network's description layer by layer; every shape is found and checked here. */
#ifndef NET_MODEL_BUILD_H
#define NET_MODEL_BUILD_H

#include "net/model.h"

void model_build_begin(model_spec *spec, nn_shape input);

/* Appends a layer and returns OK with its output's shape filled in. Of wanted the caller gives kind, name ("": a short
 * one of its kind and number), from (0 stands for the layer before, as a first input), activation, and what the kind
 * needs. A fully connected layer behind an image gets a layer that flattens it in between. OPTION: a sentence that
 * begins with the layer's name. */
curvd_status model_build_add(model_spec *spec, const nn_layer_spec *wanted, cv_error *err);

/* After the last layer: is there one, and are its outputs logits? */
curvd_status model_build_end(const model_spec *spec, cv_error *err);

/* "784": flat, "32x32x3": an image. false: neither. */
bool model_shape_parse(const char *text, nn_shape *shape);

/* false: no activation of this name; *nearest is the likeliest one, or NULL. */
bool model_activation_parse(const char *name, nn_activation_kind *activation, const char **nearest);

/* model_names.c: is there a network of this name (before a ':'), and what is it? */
bool model_has_name(const char *text);
curvd_status model_named(const char *text, model_spec *spec, cv_error *err);

#endif
