/* The wire of a layer's preconditioner, from one owner to the workers: a header with the states of its factors; then,
 * of each factor that is new and that this owner holds, D (r) and U (r, or more for a seed; the owner's columns), or
 * the inverse's lower rows, or a unit layer's blocks. The members of cv_method that a method of this kind puts into its
 * table.
 *
 * With wire_precision bf16 U is rounded, and the owner, if it trains, uses what came as all others do. Three things
 * stay fp32. U of a factor that is carried as sketches: it is the test matrix of both ends, which must be the same
 * numbers and orthonormal to fp32 rounding. Inverses: an error of 2^-8 of their largest eigenvalue, where a factor is
 * small, is more than the smallest, where it is large, once its condition is above 2^8. And blocks of units, which are
 * few. */
#ifndef CV_CURVATURE_WIRE_H
#define CV_CURVATURE_WIRE_H

#include "curvature/internal.h"

enum { CV_WIRE_STATE_BYTES = sizeof(cv_factor_state), CV_WIRE_HEADER_BYTES = CV_FACTORS * CV_WIRE_STATE_BYTES };

int64_t cv_wire_payload_most(const curvd_ctx *ctx, const cv_layer *layer, int owner);
void cv_wire_publish_header(const cv_layer *layer, int owner, char *header);

/* Bytes of factor f in the payload, and of all of the layer, as the header tells. */
int64_t cv_wire_factor_bytes(const curvd_ctx *ctx, const cv_factor *factor, int owner, const char *header, int f);
int64_t cv_wire_payload_bytes(const curvd_ctx *ctx, const cv_layer *layer, int owner, const char *header);
/* Where U begins in a factor's payload; and it, (rows, columns) of one owner, as floats U: out of a payload, and into
 * it. */
char *cv_wire_vectors(const cv_factor_state *state, char *payload);
void cv_wire_vectors_get(const cv_factor *factor, int64_t rows, int64_t columns, const char *from, float *U);
void cv_wire_vectors_put(const cv_factor *factor, int64_t rows, int64_t columns, const float *U, char *to);

void cv_wire_publish(const curvd_ctx *ctx, const cv_layer *layer, int owner, char *payload);
void cv_wire_receive(curvd_ctx *ctx, cv_layer *layer, int owner, const char *header, const char *payload);

#endif
