/* What passes between workers and the owners of factors, behind the workers' backs.
 *
 *   worker, step k:  statistics -> a slot of the owner's uplink, on their way             (cv_up_send)
 *                    a parcel is expected: what the refresh of step k will bring           (cv_down_expect)
 *   owner:           takes the statistics of k in, averages, refreshes, publishes          (cv_up_take,
 * cv_down_publish) worker, k + S:   the parcel is opened, at exactly this step on every worker (cv_down_land)
 *
 * Slots and parcels are rings, so an owner that is late holds workers up only when a parcel is due, or all slots are on
 * their way. What is begun, and in which order, depends on the step number alone. */
#ifndef CV_CURVATURE_LINK_H
#define CV_CURVATURE_LINK_H

#include "curvature/internal.h"

/* Is something of this interval due in a step? */
bool cv_is_due(const curvd_ctx *ctx, const cv_schedule *interval, int64_t step);

/* Most steps between a refresh and its use. */
int64_t cv_staleness_bound(const cv_settings *s);

/* Do statistics come with the gradients' sum? */
bool cv_is_with_gradients(const curvd_ctx *ctx);

/* [collective over all ranks] Communicators of the owners that have layers. */
curvd_status cv_links_connect(curvd_ctx *ctx);

/* Routes [n_owners] without links; memory of both links of every owner, as long as its layers ask for: all ranks agree
 * on the sizes; and all of that freed. */
curvd_status cv_routes_new(curvd_ctx *ctx, cv_route **routes);
curvd_status cv_links_allocate(curvd_ctx *ctx);
void cv_routes_free(curvd_ctx *ctx, cv_route **routes);

/* Worker: this step's statistics of all owners' layers are packed and sent. cv_up_pack: packs them, owner by owner, for
 * the gradients' sum; cv_up_send then hands the sums over. */
void cv_up_pack(curvd_ctx *ctx, float *wire);
curvd_status cv_up_send(curvd_ctx *ctx);

/* Waits for a transfer of an uplink; what else is under way moves on meanwhile, for it may hold the owner up. */
curvd_status cv_up_wait(curvd_ctx *ctx, cv_transfer *transfer, cv_wait how);

/* Are statistics on their way, as far as was seen when last looked at? */
bool cv_up_is_sending(const curvd_ctx *ctx);

/* Waits until a slot of an uplink is free. */
curvd_status cv_up_wait_for_slot(curvd_ctx *ctx, cv_uplink *up, int64_t slot);

/* Owner: sum over the workers; *wire: it, for the running averages. Then, once those know the weights, the rows of the
 * factors that are carried as columns, into them. */
curvd_status cv_up_take(curvd_ctx *ctx, const float **wire);
curvd_status cv_up_take_rows(curvd_ctx *ctx);

/* Statistics of spread factors, block by block: summed over the workers, into the owners' averages. Every rank waits.
 */
curvd_status cv_up_blocks(curvd_ctx *ctx);

/* Worker: a refresh of this step will come. */
curvd_status cv_down_expect(curvd_ctx *ctx);

/* Owner: what its layers' last refresh made, to the workers. */
curvd_status cv_down_publish(curvd_ctx *ctx);

/* Parcels of the oldest refresh under way: its step, -1 without; waits until they are here (_all: until all are); and,
 * on a worker, waits and opens them. cv_down_here: of how many refreshes, from the oldest on, all parcels are here. */
int64_t cv_down_oldest(const curvd_ctx *ctx);
int64_t cv_down_here(const curvd_ctx *ctx);
bool cv_down_is_awaited(const cv_downlink *down); /* any parcel of it */
curvd_status cv_down_wait(curvd_ctx *ctx);
curvd_status cv_down_wait_all(curvd_ctx *ctx);
curvd_status cv_down_land(curvd_ctx *ctx);

/* Parcel i of those under way, from the oldest on; and one more behind them, as of a refresh of step, whose header and
 * payload are for the caller to fill: it is here. */
cv_parcel *cv_down_parcel(const cv_downlink *down, int64_t i);
cv_parcel *cv_down_put(curvd_ctx *ctx, cv_downlink *down, int64_t step);

/* The newest counts of an owner that are here, in parcels that are not open yet, too. */
void cv_down_events(const curvd_ctx *ctx, int owner, int64_t events[CV_OWNER_EVENTS]);

/* Forgets all parcels, which are here. */
void cv_down_forget(curvd_ctx *ctx);

/* Floats of a worker's votes on what is here. */
int64_t cv_down_votes(const curvd_ctx *ctx);

/* Of one owner: moves its parcels on; forgets the oldest one, which is here, but for the owner's counts. */
curvd_status cv_down_advance(curvd_ctx *ctx, int owner);
void cv_down_skip(curvd_ctx *ctx, int owner);

/* Places in a parcel's header and payload. */
typedef struct cv_cursor {
  char *header, *payload;
} cv_cursor;

/* Worker: what came by the routes of other owners (owner: of each layer) and is not open yet, as if the owners of now
 * had sent it. cursors: [2 n_owners]. */
void cv_down_repack(curvd_ctx *ctx, const cv_route *old, const int32_t *owner, cv_cursor *cursors);

/* Moves what is under way on, without waiting. */
curvd_status cv_links_advance(curvd_ctx *ctx);

/* Something was begun or has ended: for the clock, and for the thread that moves transfers on. And around a worker's
 * wait for one of them. */
void cv_links_note(curvd_ctx *ctx);
void cv_links_wait_begin(curvd_ctx *ctx);
void cv_links_wait_end(curvd_ctx *ctx);

/* Waits until all that is under way has come; workers keep what they have not opened yet. */
curvd_status cv_links_settle(curvd_ctx *ctx);

/* Waits until nothing is under way: the end of a run. */
curvd_status cv_links_drain(curvd_ctx *ctx);

#endif
