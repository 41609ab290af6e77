/* What a run costs, before it runs: flops, seconds, bytes sent and memory, by stage and by rank. Pure functions of
 * sizes and of the machine's constants; no MPI, no BLAS.
 *
 * A convolution with T output pixels has T rows for each example, or as many as are drawn of them (rows.h), so each
 * factor has a run of its own (cv_plan_factor_run), which every function below that takes a run with a factor's size
 * means.
 *
 * A layer has factors A (n, n) and G (m, m), n with the bias. W workers, each with batch_rows rows a step, of which it
 * captures statistics_rows; C curvature ranks; owners are these, or the workers when C is 0. Of a factor of size n:
 *
 *   carrier    floats to its owner, of each statistic   what the owner keeps       pairs (r) sent back
 *   triangle   n (n + 1) / 2, reduced                   the average (n, n)         eig_rank; n where it is full
 *   sketch     (k + 10) n, reduced                      a seeded sketch (stream.h) eig_rank, in k rows
 *   columns    rows n, from each worker                 as the run says            eig_rank; n where it is full
 *   local      none: of the owner's own rows            as the run says            as columns
 *   units      3 a unit, reduced                        the same                   the same 3 a unit
 *
 * with k = eig_rank + stream_oversampling and 4 more floats (trace, rows, two flags), reduced. By columns or local an
 * owner keeps the average, a sketch of k rows, or pairs that rows update (brand.h). A factor is full when its pairs
 * would be full_share of n: then its average is decomposed exactly, or inverted. A refresh brings r (n + 1) floats to
 * every worker, an inverse n (n + 1) / 2. A full or large factor whose average is kept may be spread over all owners,
 * as spread.c has it. */
#ifndef CV_PLAN_MODEL_H
#define CV_PLAN_MODEL_H

#include "base/cyclic.h"
#include "base/memory.h"
#include "plan/planner.h"
#include "plan/rows.h"

typedef struct cv_plan_layer {
  int64_t m, n;
  bool is_skipped; /* not preconditioned */
  bool is_unit;    /* m units with n = 2 parameters each: their blocks are one factor of size 2 m, its carrier units */
  int64_t positions; /* output pixels of a convolution; 0: fully connected */
} cv_plan_layer;

enum { CV_PLAN_A, CV_PLAN_G, CV_PLAN_FACTORS };

/* Rows of the certificates behind a sketch (eig.h), and columns in a block of a spread factor (grid.h). */
enum { CV_PLAN_PROBES = 10, CV_PLAN_SPREAD_BLOCK = 64 };

/* Side of the squares that packed numbers come in, and most rows that are preconditioned at once (lrps_rows.h). */
enum { CV_PLAN_SQUARE = 32, CV_PLAN_ROWS_BLOCK = 512 };

/* Up to so many workers send their statistics to a curvature rank as they are, and it adds them up (coll.h). */
enum { CV_PLAN_PARTS_MAX = 3 };

/* Most floats that sharded layers have together, as in coll.h. */
#define CV_PLAN_GATHER_MAX ((int64_t)INT32_MAX)

typedef enum cv_plan_carrier {
  CV_PLAN_TRIANGLE,
  CV_PLAN_SKETCH,
  CV_PLAN_COLUMNS,
  CV_PLAN_LOCAL,
  CV_PLAN_CARRIERS, /* of Kronecker factors; those of unit layers come behind: */
  CV_PLAN_UNITS,
  CV_PLAN_LOCAL_UNITS
} cv_plan_carrier;

/* What an owner keeps of a factor, as in store.h: its average, a seeded sketch of it, or pairs that rows update. */
typedef enum cv_plan_store { CV_PLAN_FULL, CV_PLAN_STREAM, CV_PLAN_ONLINE } cv_plan_store;

typedef enum cv_plan_apply {
  CV_PLAN_REPLICATED, /* every worker, to the summed gradient */
  CV_PLAN_SHARDED,    /* one worker a layer, between a scattering and a gathering of the gradients */
  CV_PLAN_FACTORED,   /* every worker, to its own rows before the sum (lrps_rows.h) */
  CV_PLAN_APPLIES
} cv_plan_apply;

typedef enum cv_plan_route {
  CV_PLAN_TO_OWNER,       /* statistics are reduced straight to their owner */
  CV_PLAN_WITH_GRADIENTS, /* they ride on the gradients' sum; worker 0 hands them to a curvature rank */
  CV_PLAN_ROUTES
} cv_plan_route;

typedef struct cv_plan_choice {
  cv_plan_carrier carrier[CV_PLAN_FACTORS];
  cv_plan_apply apply;
  cv_plan_route route;
} cv_plan_choice;

typedef struct cv_plan_run {
  int32_t n_workers, n_curvature;
  int64_t batch_rows, statistics_rows;           /* examples of one worker in one step; of a factor: rows */
  int64_t factor_update_steps, inv_update_steps; /* >= 1 */
  int64_t staleness;                             /* steps; is_free: the most */
  bool is_exact;                                 /* method kfac: every factor is decomposed exactly */
  bool is_inverse;                               /* form cholesky: and inverted instead */
  bool is_free;                                  /* staleness free: as cv_timetable has it */
  int64_t eig_rank, oversampling;
  int64_t stream_oversampling; /* of sketches and columns; -1: half of eig_rank */
  int64_t full_n;              /* factors of this size and below are full, whatever full_share says; 0: none */
  int64_t products;            /* with a factor by one refresh: further power iterations + 1 */
  double full_share;           /* as the option */
  int64_t grid_min_n;          /* triangles of this size and above are spread over several owners; 0: none */
  int64_t capture_rows;        /* the option: examples; of a factor (cv_plan_factor_run): rows that there is room for */
  int64_t sample_rows;         /* the option, as cv_rows_rule has it */
  bool reduces;                /* convolutions have one row an example */
  bool makes_patches;          /* of a factor: its rows are patches */
  double row_bytes;            /* of a worker's messages, were all factors carried as columns */
  cv_plan_store columns_store, local_store; /* of factors that are not full */
  bool is_bf16;                             /* wire_precision bf16 */
  bool spreads_rows;      /* columns of factors of grid_min_n and above go to all owners, as whole averages */
  double train_s;         /* measured seconds of forward and backward in one step; 0: from flops, 6 rows m n a layer */
  double capture_train_s; /* further ones in a step with statistics: a second backward pass */
  bool momentum_is_callers; /* the step only looks at gradients, and averages none */
  bool follows;             /* one worker tells of its rows, so that projections follow the gradient (follow.c) */
  bool clips_by_dot;        /* the step asks each direction for its product with the gradient */
  int64_t square_bytes;     /* of 32 x 32 packed numbers that rows are multiplied by (lrps_rows.h); 0: they are fp32 */
  int64_t unit_room_bytes;  /* of every rank, for products of bf16 numbers; 0: there are none */
  int64_t rounding_rows;    /* numbers for each column of the widest factor, on every rank, to measure rounding with */
  int64_t header_bytes;     /* of one refreshed layer of two factors: CV_WIRE_HEADER_BYTES */
  int64_t event_bytes;      /* of one parcel: sizeof of cv_downlink's events and of cv_seal */
} cv_plan_run;

/* The options' initial values, on one worker; no sizes of headers. */
extern const cv_plan_run cv_plan_run_default;

/* Stages of layers and factors, each time they are done. */
typedef enum cv_plan_stage {
  CV_PLAN_TRAIN,      /* worker, a step: forward and backward */
  CV_PLAN_CAPTURE,    /* worker, a statistic */
  CV_PLAN_STATISTICS, /* worker, a statistic: packing; bytes to all owners of the factor */
  CV_PLAN_AVERAGE,    /* each owner of the factor, a statistic */
  CV_PLAN_REFRESH,    /* each owner, a refresh */
  CV_PLAN_PUBLISH,    /* each owner, a refresh: packing; bytes to the workers */
  CV_PLAN_RECEIVE,    /* worker, a refresh: unpacking; bytes from all owners of the factor */
  CV_PLAN_GRADIENTS,  /* worker, a step: packing; bytes of the sum */
  CV_PLAN_MOMENTUM,   /* worker, a step */
  CV_PLAN_PROJECT,    /* worker (sharded: one of them), a step */
  CV_PLAN_APPLY,      /* the same */
  CV_PLAN_STAGES
} cv_plan_stage;

/* seconds: computing and copying; the transfer of bytes is cv_plan_transfer_s. */
typedef struct cv_plan_cost {
  double flops, seconds, bytes;
} cv_plan_cost;

/* ---- rows ---- */

cv_rows_rule cv_plan_rule(const cv_plan_run *run, const cv_plan_layer *layer, int which);

/* The run with the rows of one factor in place of examples. */
cv_plan_run cv_plan_factor_run(const cv_plan_run *run, const cv_plan_layer *layer, int which);

/* Of the layer's rows with their counts, where its factors are carried as columns. */
double cv_plan_row_bytes(const cv_plan_run *run, const cv_plan_layer *layer);

/* ---- sizes ---- */

int32_t cv_plan_owner_count(const cv_plan_run *run);

/* Of a layer's factor; 0: it has none of this kind. Bytes of the layer's header. Do its statistics stay at their owner?
 */
int64_t cv_plan_size(const cv_plan_layer *layer, int which);
int64_t cv_plan_header_bytes(const cv_plan_run *run, const cv_plan_layer *layer);
bool cv_plan_is_local(cv_plan_carrier carrier);

/* Can this factor come so? Else it comes as a triangle. No sketch of a factor that is decomposed exactly, nor columns
 * unless they enter an average; local only when the workers own. */
bool cv_plan_can_carry(const cv_plan_run *run, int64_t n, cv_plan_carrier carrier);

/* Largest basis of a refresh, the pairs of it that are used, and what one owner sends, who has so many columns of them:
 * pairs; with a sketch all of the basis, which workers sketch with; or an inverse's triangle. */
int64_t cv_plan_basis(const cv_plan_run *run, int64_t n, cv_plan_carrier carrier);
int64_t cv_plan_pairs(const cv_plan_run *run, int64_t n, cv_plan_carrier carrier);
int64_t cv_plan_refresh_floats(const cv_plan_run *run, int64_t n, cv_plan_carrier carrier, int64_t columns);

bool cv_plan_is_full(const cv_plan_run *run, int64_t n, cv_plan_carrier carrier);
cv_plan_store cv_plan_store_of(const cv_plan_run *run, int64_t n, cv_plan_carrier carrier);
bool cv_plan_is_spread(const cv_plan_run *run, int64_t n, cv_plan_carrier carrier);

/* Do statistics, and eigenvectors, travel as bf16? Rows do, and triangles on their way straight to their owner, but for
 * 4 numbers of each; not what rides on the gradients' sum, nor anything on one rank. Nor sketches: an estimate divides
 * by their core, which rounding makes indefinite. Nor triangles so small that a randomized solver meets the same: n <
 * 34 sqrt(k roundings), k the basis, roundings 1 of parts that a curvature rank adds up and 2 + log2(ranks) of other
 * sums. Eigenvectors do unless workers sketch with them; inverses do not, nor blocks of units. */
bool cv_plan_sends_bf16(const cv_plan_run *run, int64_t n, cv_plan_carrier carrier, cv_plan_route route);
bool cv_plan_publishes_bf16(const cv_plan_run *run, cv_plan_carrier carrier);

/* Of one refresh, from an owner that has so many columns of it: pairs of which it sends rows. */
int64_t cv_plan_refresh_bytes(const cv_plan_run *run, int64_t n, cv_plan_carrier carrier, int64_t columns);
int64_t cv_plan_pairs_bytes(const cv_plan_run *run, cv_plan_carrier carrier, int64_t pairs, int64_t rows,
                            int64_t columns);

/* Floats of one statistic on the way to one owner: a sum over the workers, or, of columns, from each worker (plus the 4
 * reduced ones, counted here). owner: its number, which matters for a spread factor only. */
int64_t cv_plan_statistic_floats(const cv_plan_run *run, int64_t n, cv_plan_carrier carrier, int32_t owner);

/* ---- seconds ---- */

/* cost[stage] of one factor for CAPTURE .. RECEIVE, the others 0. A local factor is captured by its owner alone. */
void cv_plan_factor_costs(const cv_plan_machine *machine, const cv_plan_run *run, int64_t n, cv_plan_carrier carrier,
                          cv_plan_cost cost[CV_PLAN_STAGES]);

/* cost[stage] of one layer for TRAIN and GRADIENTS .. APPLY, the others 0. */
void cv_plan_layer_costs(const cv_plan_machine *machine, const cv_plan_run *run, const cv_plan_layer *layer,
                         const cv_plan_choice *choice, cv_plan_cost cost[CV_PLAN_STAGES]);

typedef enum cv_plan_transfer { CV_PLAN_SUM, CV_PLAN_REDUCE, CV_PLAN_BROADCAST, CV_PLAN_SEND } cv_plan_transfer;

/* Seconds of a transfer of so many bytes from (or to) each of the ranks, as Open MPI 4.1 does it. Sums over all: by
 * halves, or round a ring: 2 (p - 1) / p of the bytes, half of them added, and 2 log2 p messages. To one rank, where
 * callers do not wait: by halves, 2 (q - 1) / q of the bytes, half of them added, and 2 log2 q messages, q the power of
 * two up to p; between two ranks in pieces of 8 KiB; short ones up a tree. From one rank: down a tree. Over the links
 * within a node when so many ranks fit on one. 0 with one rank. */
double cv_plan_transfer_s(const cv_plan_machine *machine, cv_plan_transfer kind, int64_t ranks, double bytes);

/* Seconds until one owner has a statistic: bytes that are reduced straight to it, bytes that ride on the gradients' sum
 * (no messages of their own, but for the hand-over to a curvature rank), and columns from each worker. */
typedef struct cv_plan_up {
  double reduced, summed, columns; /* bytes from one worker */
} cv_plan_up;
cv_plan_up cv_plan_up_bytes(const cv_plan_run *run, int64_t n, cv_plan_carrier carrier, cv_plan_route route,
                            int32_t owner);
int64_t cv_plan_rounded(const cv_plan_run *run, int64_t n, cv_plan_carrier carrier, cv_plan_route route,
                        int32_t owner); /* numbers in it that are rounded, and summed */
cv_plan_up cv_plan_all_up_bytes(const cv_plan_run *run, int64_t n, cv_plan_carrier carrier,
                                cv_plan_route route); /* to all owners of the factor */
double cv_plan_up_s(const cv_plan_machine *machine, const cv_plan_run *run, const cv_plan_up *up);

/* Of so many bytes from one owner to all workers. */
double cv_plan_down_s(const cv_plan_machine *machine, const cv_plan_run *run, double bytes);

/* Of one factor in a mean step: a worker's seconds, and the owners' over their number. Behind a worker's back goes what
 * the machine overlaps, but blocks of spread factors, which it waits for. */
double cv_plan_factor_seconds(const cv_plan_machine *machine, const cv_plan_run *run, int64_t n,
                              cv_plan_carrier carrier, cv_plan_route route);

/* Of writing a sharded layer's direction out, which every worker does. */
double cv_plan_write_seconds(const cv_plan_machine *machine, const cv_plan_run *run, const cv_plan_layer *layer);

/* Layers and what is chosen for them, with scratch. */
typedef struct cv_plan_draft {
  int32_t n_layers;
  const cv_plan_layer *layer; /* [n_layers] */
  cv_plan_choice *choice;     /* [n_layers] */
  int32_t *shard;             /* [n_layers] the worker that applies a sharded layer; -1: every worker does */
  double *flops;              /* [n_layers] by which owners are chosen */
  double *cost, *load;        /* scratch: [n_layers], [n_workers] */
  int32_t *order;             /* scratch: [2 n_layers] */
} cv_plan_draft;

/* Deals the layers whose choice is sharded out to the workers, as layers are to owners: by the default machine's
 * seconds of averaging and applying, so on every rank alike. Returns those of the busiest worker. With one worker shard
 * is -1 everywhere. */
double cv_plan_deal_shards(const cv_plan_run *run, cv_plan_draft *draft);

/* choice[].apply, replicated or sharded, and shard, by the default machine's seconds of a step. A replicated layer is
 * averaged and applied by every worker. Sharded ones by one each, the busiest of whom counts; then every worker writes
 * their directions out, and some short messages are sent. Layers that would gain if work were dealt out evenly are
 * sharded, when together they gain as it is dealt out. Skipped layers never are: there is no work to share. */
void cv_plan_choose_applies(const cv_plan_run *run, cv_plan_draft *draft);

/* ---- a whole run: layers with their choices and owners (-1: skipped) ---- */

typedef struct cv_plan_layout {
  const cv_plan_run *run;
  int32_t n_layers;
  const cv_plan_layer *layer;   /* [n_layers] */
  const cv_plan_choice *choice; /* [n_layers] */
  const int32_t *owner;         /* [n_layers] */
  const int32_t *shard;         /* [n_layers] as in cv_plan_draft */
} cv_plan_layout;

/* In the order of CURVD_TRAFFIC_LIST. */
typedef enum cv_plan_traffic {
  CV_PLAN_TRAFFIC_GRADIENTS,
  CV_PLAN_TRAFFIC_STATISTICS,
  CV_PLAN_TRAFFIC_PRECONDITIONERS,
  CV_PLAN_TRAFFIC_CONTROL,
  CV_PLAN_TRAFFIC_MOVES, /* not predicted: 0 */
  CV_PLAN_TRAFFICS
} cv_plan_traffic;

/* Bytes that a rank has sent after n_steps steps and curvd_finish, as curvd_metrics counts them: what it contributes or
 * is root of. Of a refresh that kept all its pairs. */
void cv_plan_traffic_of(const cv_plan_layout *layout, int32_t rank, int64_t n_steps, int64_t bytes[CV_PLAN_TRAFFICS]);

/* Bytes that a rank holds, without the padding of rows (at most 31 floats each) and without what is small: scratch of
 * small matrices, requests. */
void cv_plan_memory_of(const cv_plan_layout *layout, int32_t rank, int64_t bytes[CV_MEMORY_KINDS]);

/* Of them, those of the factors that the layer's owner holds alone. */
int64_t cv_plan_factor_bytes(const cv_plan_run *run, const cv_plan_layer *layer, const cv_plan_choice *choice);

#endif
