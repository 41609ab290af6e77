/* The context and what it holds. Only step.c calls the stages; no stage calls the next. */
#ifndef CV_CURVATURE_INTERNAL_H
#define CV_CURVATURE_INTERNAL_H

#include "base/clock.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/trace.h"
#include "comm/coll.h"
#include "comm/comm.h"
#include "comm/grid.h"
#include "comm/progress.h"
#include "curvature/ages.h"
#include "curvature/factor_plan.h"
#include "curvature/settings.h"
#include "curvd.h"
#include "curvd_experimental.h"
#include "linalg/brand.h"
#include "linalg/eig.h"
#include "linalg/lrps_rows.h"
#include "linalg/pair.h"
#include "linalg/patches.h"
#include "linalg/stream.h"
#include "product/bf16.h"
#include "product/multiply.h"

enum {
  CV_THIN_ROWS = 128,
  CV_NAME_MAX = 64,
  CV_A = 0,
  CV_G = 1,
  CV_FACTORS = 2,
  CV_OWNER_EVENTS = CURVD_EVENT_KEPT_PREVIOUS + 1
};

typedef enum cv_factor_kind { CV_KIND_IDENTITY, CV_KIND_EIGEN, CV_KIND_INVERSE, CV_KIND_UNITS } cv_factor_kind;

/* What travels ahead of a refreshed factor, and what is known of it everywhere. */
typedef struct cv_factor_state {
  int64_t is_new;          /* a refresh succeeded: what follows replaces the one in force */
  int64_t kind;            /* cv_factor_kind */
  int64_t r;               /* eigenpairs that follow */
  int64_t statistics_step; /* -1: no statistics yet */
  int64_t refused;
  int64_t products;  /* with the factor, by the refresh */
  int64_t precision; /* of them: cv_precision */
  int64_t rows;      /* of the basis that follow: r, or of a stream all that make up a seed */
  double trace, lambda_max, lambda_min, tau;
  double kept_sum; /* of the eigenvalues that follow, from the first on */
  double missing_trace, error_bound, error_norm, residual, orthogonality, drift, seconds; /* cv_eig_result */
  double wire_error;    /* of the eigenvectors that follow, by rounding: relative, in the Frobenius norm */
  double work_s;        /* wall seconds that owners have spent on the factor's layer, on its factor A */
  double extra_damping; /* rho^updates of average "zero", else 0 */
} cv_factor_state;

/* M <- keep M + add S */
typedef struct cv_weights {
  double keep, add;
} cv_weights;

/* window.h */
typedef struct cv_window {
  int64_t room, rows, ld;
  float *X;          /* (room, n), of which rows are in use */
  double weight;     /* of their squares, now */
  bool is_whole;     /* all of them are here */
  cv_stream history; /* room for a second stream */
} cv_window;

struct cv_carrier; /* carrier.h */
struct cv_store;   /* store.h */

/* Worker: what the carrier makes of this step's rows. */
typedef struct cv_captured {
  float *statistic;
  int64_t rows;               /* in it; 0: statistic holds anything */
  int64_t examples;           /* that they stand for: more when they were sampled */
  bool is_bad;                /* what was captured is not finite: it goes nowhere */
  bool is_rounded;            /* rows that are kept: their product is to be made by statistics_by */
  double trace;               /* of a sketch */
  double trace_off;           /* what the trace of sampled rows misses */
  cv_bf16_error wire_squares; /* of the numbers that are sent ... */
  double wire_error;          /* ... and, relative, of those that were sent last */
  float *seed;                /* (k_max + probes, ld) test matrix of a sketch ... */
  float *seed_next;           /* ... and what has landed in this step: in force from the next one on */
  bool has_seed_next;
} cv_captured;

/* Owner: the running average and its decomposition. Its numbers mean the same on every rank, so that all of it can move
 * to another owner (store.h names the arrays). */
typedef struct cv_owned {
  int64_t cols;   /* of average and basis on this rank: n, or its share */
  int64_t ld;     /* of them */
  float *average; /* (n, cols) lower triangle (spread: upper), mirrored before a refresh */
  double weight;  /* of EA_NORM */
  int64_t updates;
  cv_weights due;     /* of blocks or rows that are on their way; add 0: refused, or none */
  cv_stream stream;   /* instead of average */
  bool is_reseed_due; /* basis is its next test matrix, by the refresh of reseed_step ... */
  int64_t reseed_step;
  bool has_absorbed;  /* ... and statistics have come since */
  cv_window window;   /* of the stream, where it gets rows */
  cv_brand online;    /* whose pairs are basis and eigenvalues */
  int64_t refreshes;  /* of online pairs */
  float *basis;       /* (k_max + probes, cols) pairs of the last refresh, start of the next; or the dense inverse */
  float *eigenvalues; /* (k_max) */
  int64_t eig_rank;   /* adaptive rank; 0: not yet chosen */
  int64_t finer_left; /* refreshes in `finer`, a cv_precision, before another in refresh_precision, which was ... */
  int64_t finer_last; /* ... too coarse, after so many; 0: it was not */
  int64_t finer;
  cv_eig_result last;    /* of the pairs in basis; found 0: none */
  cv_factor_state fresh; /* of the refresh being sent */
  uint64_t hash;         /* of all arrays, when last left (guard.h) */
} cv_owned;

/* Worker: the preconditioner in force. */
typedef struct cv_applied {
  cv_factor_state state;
  cv_lrps side;          /* U of (k_max, ld) inside the layer's planes */
  float *inverse;        /* (n, ld), form cholesky */
  float *units;          /* of a unit layer the averaged blocks, (3, n / 2) as method_unit.c has them */
  cv_lrps_rows function; /* of a factored layer: the damped inverse power, in kept; valid unless its table is due */
  float *kept;           /* of a unit layer the damped inverse power of its blocks, (3, n / 2) */
  uint16_t *packed;      /* of function, where apply_precision packs it */
  double damping;        /* of the last step */
  uint64_t hash;         /* of all that came, when it came (guard.h) */
  bool is_fresh;         /* it has come, and has not been looked at */
} cv_applied;

/* One Kronecker factor, (n, n), or all n / 2 blocks of a unit layer. Parts that a rank's role does not need hold no
 * memory. A spread factor lies over all owners (comm/grid.h, one grid column): no rank holds it, or its statistic, as a
 * whole (spread.c). */
typedef struct cv_factor {
  int64_t n, ld;
  int64_t k_max; /* most pairs that a refresh finds: n when it is decomposed exactly */
  bool is_full, is_spread;
  cv_rows_rule rule;
  int64_t rows_room;               /* most rows of a worker, where they are kept */
  bool seeds_workers;              /* its basis is the test matrix of the workers' sketches */
  bool sends_bf16, publishes_bf16; /* its statistics, and its eigenvectors, travel rounded */
  int wire_roundings;              /* of a sum of its statistics, one after the other, at most; 0: it is not rounded */
  bool is_rounding_told;
  const struct cv_carrier *carrier;
  const struct cv_store *store;
  cv_captured captured;
  cv_owned own;
  cv_applied applied;
} cv_factor;

/* Floats of a unit layer's blocks: of each unit F_gamma_gamma, F_gamma_beta, F_beta_beta. */
static inline int64_t cv_unit_floats(const cv_factor *factor) {
  return 3 * (factor->n / 2);
}

struct cv_method;

typedef struct cv_layer {
  curvd_layer_kind kind;
  char name[CV_NAME_MAX];
  char reason[96];               /* why it is not preconditioned; "" when it is */
  int64_t d_in, d_out, m, n, ld; /* ld: of our own (m, n) buffers */
  bool has_bias;
  int64_t positions;              /* output pixels of a convolution; 0: fully connected */
  cv_patches window[CV_FACTORS];  /* of a convolution: its images, and their gradients, as rows of A and G */
  const struct cv_method *method; /* NULL: identity */
  int owner;                      /* owner number, -1 without */
  int64_t bucket_at;              /* place of its gradient in the bucket */
  int shard;                      /* the worker that applies it; -1: all do */
  int n_factors;                  /* in use: A and G, or the blocks of a unit layer, or none */
  cv_factor factor[CV_FACTORS];
  float *own; /* (m, ld) momentum, or a direction that must not overwrite the gradient yet */
  float *X;   /* (m, n), rows ldx apart: what is preconditioned; own, or the combined gradient where it lies */
  int64_t ldx;
  double squares_x;       /* sum of squares of X */
  bool follows;           /* it is a gain that projections of X follow it from step to step (follow.c) */
  float *P, *R;           /* those projections; NULL without */
  bool is_following;      /* P and R are projections of X onto the bases in force */
  int64_t followed_rows;  /* examples that this step's captured gradients have added to P and R */
  float *rows_n, *rows_m; /* planes of pair.h: room above U_A and below U_G */
  bool is_factored;       /* each worker preconditions its rows before they make a gradient (factored.c) */
  int64_t factored_step;  /* last step for which it has done so; -1: none */
  float *H;               /* spectral table; of a factored layer that of the inverse, NULL unless a clip needs it */
  bool table_is_due;      /* a refresh came since H was made */
  double table_damping;   /* damping that H was made with */
  cv_pair_sums sums;      /* of this step's unscaled direction */
  double scale;           /* of it, by the clip or the normalisation */
  double direction_rms;
  double balanced_s; /* its work_s when owners were last compared */
} cv_layer;

/* Which owners a comparison proposes (rebalance.h); NULL where owners never change. */
typedef struct cv_balance {
  int32_t *owner; /* [n_layers], and scratch of as many three times */
  double *cost;   /* [n_layers + n_owners] */
} cv_balance;

/* Layers that are applied by one worker each (shard.c); count NULL: there are none. */
typedef struct cv_shards {
  int *count, *begin; /* [n_workers] floats of the bucket */
  int64_t n_floats;   /* all of them: what comes behind in the bucket is summed on every worker */
  float *mine;        /* summed gradients of this worker's layers */
  double *sums;       /* (sharded layers, 2) */
} cv_shards;

/* Statistics on their way to one owner: a ring of slots, taken in turn. A curvature rank has one. */
typedef struct cv_uplink {
  int64_t n_floats;  /* of one step's statistics */
  int64_t n_rounded; /* of them that travel as bf16, behind the others; 0: all travel as they are */
  int64_t n_slots, next;
  int64_t slot_floats;   /* room of a slot: what is sent, or at the owner the sums */
  float *slots;          /* (n_slots, slot_floats) */
  float *wide;           /* room for what any of the links rounds, before and after; on the link with most of it */
  cv_transfer *transfer; /* [n_slots] */
  /* rows of the factors that are carried as columns: of each their number, then the rows */
  int64_t row_bytes; /* most of one worker */
  char *rows;        /* (n_slots, row_bytes) */
  char *inbox;       /* owner: rows, or all of one step's statistics, of another worker */
  cv_transfer *rows_way;
} cv_uplink;

/* What one refresh of an owner brings: a header of fixed size, then a payload whose size the header tells. */
typedef enum cv_parcel_state { CV_PARCEL_AWAITED, CV_PARCEL_HEADER, CV_PARCEL_PAYLOAD, CV_PARCEL_HERE } cv_parcel_state;

typedef struct cv_parcel {
  cv_parcel_state state; /* not yet asked for; header or payload under way; all of it here */
  int64_t step;          /* of the refresh */
  double begin_s;        /* wall clock then */
  char *header, *payload;
  cv_transfer header_way, payload_way;
} cv_parcel;

/* A ring of parcels, opened in turn. */
typedef struct cv_downlink {
  int64_t header_bytes, payload_bytes; /* payload: most that a refresh sends; header 0: this rank takes no part */
  int64_t n_slots, first, n_under_way;
  cv_parcel *parcel;               /* [n_slots] */
  char *headers, *payloads;        /* their memory */
  int64_t events[CV_OWNER_EVENTS]; /* of this owner, as last heard */
} cv_downlink;

typedef struct cv_route {
  cv_uplink up;
  cv_downlink down;
} cv_route;

/* Faults that curvd_inject has ordered. */
enum { CV_FAULTS_MAX = 16 };
typedef struct cv_faults {
  int n;
  curvd_fault list[CV_FAULTS_MAX];
  bool is_done[CV_FAULTS_MAX];
} cv_faults;

/* A worker's transfers behind its back, on the clock. A wait is counted by begin and end. */
typedef struct cv_flight {
  bool is_under_way; /* something, when last looked at ... */
  double looked_s;   /* ... at this time */
  int waits;         /* 1 while the worker waits for one of them */
  double wait_begin_s;
  double transfer_s, exposed_s;
} cv_flight;

struct curvd_ctx {
  cv_error error;
  cv_log log;
  cv_trace trace;
  cv_memory memory;
  cv_comm comm;
  cv_settings_book book;
  bool is_planned, is_broken, is_finished;
  cv_layer *layer;
  int32_t n_layers, layers_room;
  cv_route *route; /* [n_owners] */
  cv_flight flight;
  cv_progress progress;
  curvd_progress_kind progress_kind;
  double overlap_measured; /* -1: not measured */
  int64_t bucket_floats;
  float *bucket; /* every layer's gradient (m, n), one after the other, votes, and perhaps every owner's statistics;
                    NULL with one worker */
  int64_t bucket_votes;      /* floats: one for each refresh that may be under way (free-running), else one */
  int64_t bucket_statistics; /* floats of the latter; 0: they go straight to their owners */
  cv_shards shards;
  cv_balance balance;
  int64_t here_everywhere;       /* of the oldest refreshes under way, how many every worker has (free-running) */
  float *plane, *core, *scatter; /* workspace of pair.h, and (m, ld) for what may not go to its place at once */
  bool is_factored;              /* some layer is */
  float *rows_work;              /* of lrps_rows.h, for CV_LRPS_ROWS_BLOCK rows */
  float *thin;                   /* (CV_THIN_ROWS, largest k_max): columns of a gradient in an eigenbasis */
  bool has_grid;                 /* some factor is spread */
  cv_grid grid;                  /* owners only */
  float *block, *block_inbox;    /* (n, CV_GRID_BLOCK) of a spread factor's statistic */
  float *sketched;               /* scratch of cv_stream_add */
  float *tile;                   /* (CV_ROWS_TILE, ld) sampled rows, or patches */
  double *row_norms, *pixels;    /* squared lengths of rows that are drawn from, and of one image's pixels */
  double *row_weights;           /* of rows that are drawn, with their numbers */
  int64_t *row_index;
  cv_eig_work eig_work;
  const cv_unit *unit; /* of bf16 products; NULL: there are none */
  uint16_t *unit_room;
  cv_multiplier refresh_by, refresh_finer_by, statistics_by, sketch_by, apply_by;
  float *rounding; /* room of rounding.h, and the distance of its rows */
  int64_t rounding_ld;
  const cv_eig_ops *solver, *spread_solver; /* first rung of the ladder, of factors on one rank and of spread ones */
  int64_t step;
  int64_t my_events[CURVD_EVENTS];
  int64_t events_before[CURVD_EVENTS]; /* of the run that this one goes on with */
  curvd_state_hooks hooks;             /* of the caller; array NULL: none */
  void *hooks_user;
  uint32_t flags_mine, flags; /* raised here for the coming step, and by anybody for the last one */
  cv_error damage;            /* worker: found on this rank (guard.h); the next step tells all workers */
  int64_t damaged_factor;     /* owner: the first factor whose numbers have changed, as in cv_seal; 0: none */
  cv_faults faults;           /* inject.h */
  cv_stage stage[CURVD_STAGES];
  int64_t sent_bytes[CURVD_TRAFFICS];
  double clip_scale;
  cv_ages ages;                    /* of preconditioners in use */
  double latency_s, latency_max_s; /* of refreshes */
  int64_t n_latencies;
};

static inline const cv_settings *cv_settings_of(const curvd_ctx *ctx) {
  return &ctx->book.values;
}

/* Value of a schedule in the current step. */
static inline double cv_now(const curvd_ctx *ctx, const cv_schedule *schedule) {
  return cv_schedule_at(schedule, ctx->step, ctx->book.values.steps_per_epoch);
}

static inline bool cv_owns(const curvd_ctx *ctx, const cv_layer *layer) {
  return layer->owner >= 0 && layer->owner == cv_comm_my_owner(&ctx->comm);
}

/* Does this rank pass anything to or from owner o? */
static inline bool cv_is_linked(const curvd_ctx *ctx, int o) {
  return cv_comm_is_worker(&ctx->comm) || cv_comm_my_owner(&ctx->comm) == o;
}

/* plan.c: memory, owners, buffers, after the ranks are split; eig_work for the factors that this rank holds; and the
 * run as the rules of factor_plan.h see it. */
cv_plan_run cv_planned_run(const curvd_ctx *ctx);
cv_plan_layer cv_planned_layer(const cv_layer *layer);
curvd_status cv_plan_make(curvd_ctx *ctx);
curvd_status cv_plan_solver_room(curvd_ctx *ctx);
void cv_plan_free(curvd_ctx *ctx);

/* operations.c: stages and transfers are recorded from now on. */
void cv_record(curvd_ctx *ctx);

/* step.c: the algorithm. */
bool cv_step_wants_statistics(const curvd_ctx *ctx);
curvd_status cv_step_precondition(curvd_ctx *ctx, cv_layer *layer, int64_t rows, const float *a, int64_t lda,
                                  const float *g, int64_t ldg, float scale, float keep, const curvd_gradient *to);
curvd_status cv_step_run(curvd_ctx *ctx, double lr, const curvd_gradient *gradients);
curvd_status cv_step_serve(curvd_ctx *ctx);
curvd_status cv_step_finish(curvd_ctx *ctx);

/* Does owner o hold the factor, or a piece of it? And some factor of the layer? */
static inline bool cv_holds_factor(const cv_layer *layer, const cv_factor *factor, int o) {
  return layer->method && o >= 0 && (factor->is_spread || layer->owner == o);
}

static inline bool cv_holds(const cv_layer *layer, int o) {
  return cv_holds_factor(layer, &layer->factor[CV_A], o) || cv_holds_factor(layer, &layer->factor[CV_G], o);
}

/* shard.c: which worker applies a layer (planned before the bucket is made), and what passes between workers then. */
curvd_status cv_shard_plan(curvd_ctx *ctx);
curvd_status cv_shard_allocate(curvd_ctx *ctx);
void cv_shard_free(curvd_ctx *ctx);
bool cv_shard_applies(const curvd_ctx *ctx, const cv_layer *layer); /* does this worker? */
curvd_status cv_shard_sum(curvd_ctx *ctx);
float *cv_shard_gradient(const curvd_ctx *ctx, const cv_layer *layer); /* (m, n), of a layer that it applies */
curvd_status cv_shard_share_sums(curvd_ctx *ctx);
curvd_status cv_shard_gather(curvd_ctx *ctx);

/* factors.c: what the records call a factor; its statistics on the wire, and running averages. */
const char *cv_factor_name(const cv_layer *layer, const cv_factor *factor);
int64_t cv_factor_wire_floats(const cv_factor *factor);
int64_t cv_factor_rounded(const cv_factor *factor); /* of them, the first ones, that travel as bf16 */
void cv_factor_pack(cv_factor *factor, int worker, float *wire);
void cv_factor_forget(cv_factor *factor); /* what was captured has gone */
void cv_factor_absorb(curvd_ctx *ctx, const cv_layer *layer, cv_factor *factor, const float *wire);
void cv_factor_absorb_rows(curvd_ctx *ctx, const cv_layer *layer, cv_factor *factor, int64_t rows, const float *X);

/* factors.c: the same of all factors of a layer that an owner holds: the members of cv_method of every method that
 * keeps factors. */
int64_t cv_factors_floats(const cv_layer *layer, int owner);
int64_t cv_factors_rounded(const cv_layer *layer, int owner);
float *cv_factors_pack(curvd_ctx *ctx, cv_layer *layer, int owner, float *wire);
const float *cv_factors_absorb(curvd_ctx *ctx, cv_layer *layer, const float *wire);

/* spread.c: statistics of spread factors, as rows on a worker, and block by block on their way to the owners. */
cv_cyclic cv_spread_piece(const curvd_ctx *ctx, const cv_factor *factor, int owner);
int64_t cv_spread_block_floats(const cv_cyclic *piece, int64_t local);
void cv_spread_pack(const curvd_ctx *ctx, const cv_factor *factor, const cv_cyclic *piece, int64_t local, float *block);
void cv_spread_absorb(cv_factor *factor, const cv_cyclic *piece, int64_t local, const float *block);

/* solve.c: one decomposition, with the ladder that it climbs when a solver fails. false: the previous one stays. */
curvd_status cv_solver_room_new(curvd_ctx *ctx, cv_eig_scratch need, cv_eig_work *work);
void cv_solver_room_free(curvd_ctx *ctx, cv_eig_work *work);
const cv_eig_ops *cv_solver_of(const curvd_ctx *ctx, const cv_factor *factor);
const cv_multiplier *cv_refresh_by(const curvd_ctx *ctx, const cv_factor *factor);
bool cv_solve(curvd_ctx *ctx, const cv_layer *layer, cv_factor *factor, const cv_eig_problem *problem);
curvd_status cv_solve_check(const cv_factor *factor, const cv_eig_result *result, cv_error *why); /* is it sound? */
void cv_solve_tell(curvd_ctx *ctx, const cv_layer *layer, const cv_factor *factor, const char *solver,
                   const cv_error *why);
void cv_count(curvd_ctx *ctx, const cv_layer *layer, curvd_event event);

/* sketch.c: the test matrix of a cold start, the same on all ranks. */
curvd_status cv_sketch_seed(curvd_ctx *ctx, const cv_factor *factor, int32_t index, float *Omega);
void cv_sketch_change_seeds(curvd_ctx *ctx); /* worker, between steps: to what has landed */

/* refresh.c: new preconditioners of the factors of a layer that this rank holds; index: the layer's number, part of the
 * sketch's key. [collective over the owners where a factor is spread] */
void cv_refresh_layer(curvd_ctx *ctx, cv_layer *layer, int32_t index);

/* refresh.c: is there an average to decompose? Without statistics nothing is new, without a trace the identity is. */
bool cv_refresh_begin(cv_factor *factor);

/* precond.c: are whole matrices projected onto the layer's eigenvectors (of a factored layer only for its clip); brings
 * what depends on the damping up to date; first half (sums; may write the unscaled direction to out)
 * and second half (out = keep * out + scale * direction) of a layer's direction from layer->X; damping of factor which.
 * Of a factored layer X is the direction already: there the halves apply the inverse to it, for its clip. */
bool cv_precond_has_pair(const curvd_ctx *ctx, const cv_layer *layer);
curvd_status cv_precond_damp(curvd_ctx *ctx, cv_layer *layer);
curvd_status cv_precond_project(curvd_ctx *ctx, cv_layer *layer, float *out, int64_t ldo, cv_pair_sums *sums);
void cv_precond_expand(curvd_ctx *ctx, cv_layer *layer, float scale, float keep, float *out, int64_t ldo);
double cv_damping_of(const cv_settings *settings, double damping, const cv_factor_state *A, const cv_factor_state *G,
                     int64_t n, int64_t m, int which);

/* factored.c: the damped inverse powers that rows are multiplied by, and to = keep * to + scale * (P_G g)^T P_A [a 1].
 */
curvd_status cv_factored_make(const curvd_ctx *ctx, cv_layer *layer, cv_error *why);
curvd_status cv_factored_precondition(curvd_ctx *ctx, cv_layer *layer, int64_t rows, const float *a, int64_t lda,
                                      const float *g, int64_t ldg, float scale, float keep, const curvd_gradient *to);

/* follow.c: projections that follow the momentum at a cost linear in the layer's width. */
bool cv_follow_is_gain(const curvd_ctx *ctx, const cv_layer *layer, int64_t rows);
void cv_follow_gradient(curvd_ctx *ctx, cv_layer *layer, int64_t rows, const float *a, int64_t lda, const float *g,
                        int64_t ldg, float scale);
void cv_follow_forget(curvd_ctx *ctx);
bool cv_follow_take(curvd_ctx *ctx, cv_layer *layer, const cv_pair *pair);

/* momentum.c: X <- momentum X + (1 - momentum) gradient; NUMERIC when that is not finite. */
curvd_status cv_momentum_gather(curvd_ctx *ctx, const curvd_gradient *gradients);

/* direction.c: every layer's direction, scaled by the clip, in place of its gradient or subtracted from its parameters;
 * and, for method none, the combined gradient as the direction. */
curvd_status cv_direction_write(curvd_ctx *ctx, double lr, const curvd_gradient *gradients);
void cv_direction_hand_back(curvd_ctx *ctx, double lr, const curvd_gradient *gradients);

/* clip.c: scale of each layer's direction from the sums of all. */
void cv_clip_scales(curvd_ctx *ctx, double lr);

#endif
