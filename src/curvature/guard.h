/* Numbers that change in memory or on their way are found and named (option integrity).
 *
 *   transfers   a refresh carries checksums of its header and payload; eigenpairs that come are looked at, too: finite,
 *               descending, of the sum that they had, and orthonormal where a random vector looks
 *   all         owners check what they keep of a factor before each use, workers what is in force in curvd_check
 *
 * Nothing is repaired here. A worker that finds something tells all others with the next step, which fails on all of
 * them; an owner tells the workers with its next refresh. What helps is an earlier state (curvd_load). */
#ifndef CV_CURVATURE_GUARD_H
#define CV_CURVATURE_GUARD_H

#include "curvature/internal.h"

/* Behind the layers and the owner's counts in a header. header: of all bytes in front of it. */
typedef struct cv_seal {
  int64_t damaged; /* what the owner has found: factors, counted over all layers, from 1 on; 0: nothing */
  uint64_t payload, header;
} cv_seal;

/* Something has been found on this rank; the first sentence stays. */
void cv_guard_tell(curvd_ctx *ctx, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Owner: seals a parcel; any rank: is its header, and is its payload what was sealed? Without the option: yes. */
void cv_guard_seal(curvd_ctx *ctx, const cv_downlink *down, cv_parcel *parcel, int64_t payload_bytes);
bool cv_guard_header_is_sound(const curvd_ctx *ctx, const cv_downlink *down, const cv_parcel *parcel);
void cv_guard_check_parcel(curvd_ctx *ctx, int owner, const cv_downlink *down, const cv_parcel *parcel,
                           int64_t payload_bytes);

/* Worker: are the pairs of a factor that has just come what eigenpairs must be? */
void cv_guard_check_pairs(curvd_ctx *ctx, const cv_layer *layer, const cv_factor *factor);

/* Owner: checksums of all that it keeps of its factors, behind its work; and before it: what has changed since. */
void cv_guard_note_owned(curvd_ctx *ctx);
void cv_guard_check_owned(curvd_ctx *ctx);

/* DAMAGE: something that this rank would save has changed. Once loaded, nobody could tell it from what is sound. */
curvd_status cv_guard_allow_save(curvd_ctx *ctx);

/* Worker: the same of what is in force of a layer, and of all layers. */
void cv_guard_note_applied(curvd_ctx *ctx, cv_layer *layer);
void cv_guard_check_applied(curvd_ctx *ctx);

/* Everything on this rank is as it should be: planned, or loaded. */
void cv_guard_note_all(curvd_ctx *ctx);

/* Worker: checksum of what all workers hold alike. */
uint64_t cv_guard_replica(const curvd_ctx *ctx);

/* Nothing has been found: another state has been loaded. */
void cv_guard_forget(curvd_ctx *ctx);

#endif
