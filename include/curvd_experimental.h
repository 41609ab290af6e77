/* What a run will be like, before it runs: seconds, bytes and memory by rank. Everything here is [local], needs neither
 * MPI nor a context, and may change with any version.
 *
 * The service's own rules say who owns what, how it travels and how it is applied; a model of its stages says what that
 * costs on a machine; and the schedule is simulated: who waits for whom, and how old preconditioners are. Predictions
 * of renewals and corrections of online methods, and of missing_trace, skip_error and window_rows, are rough: is_rough
 * is set then. With staleness free ages are a prediction, too: they depend on who is how fast. */
#ifndef CURVD_EXPERIMENTAL_H
#define CURVD_EXPERIMENTAL_H

#include "curvd.h"

#ifdef __cplusplus
extern "C" {
#endif

#define CURVD_PREDICTED_RANKS_MAX 4096

/* Speed of one rank with one BLAS thread, fp32. */
typedef struct curvd_machine {
  double gemm_flops_s;                       /* of products, 2 flops a multiplication with addition */
  double syrk_flops_s;                       /* of sums of outer products, n (n + 1) flops a row of n */
  double copy_bytes_s;                       /* bytes copied: each read once and written once */
  double eig32_square_s, eig32_cube_s;       /* ssyevd of n: square n^2 + cube n^3 seconds */
  double eig64_square_s, eig64_cube_s;       /* dsyevd */
  double within_latency_s, within_bytes_s;   /* two ranks on one node: until the first byte, bytes a second behind it */
  double between_latency_s, between_bytes_s; /* on two nodes */
  int32_t ranks_per_node;
  double overlap; /* share of a transfer that goes on while its ranks compute, 0 .. 1 */
} curvd_machine;

/* Measured on one machine (2 cores of an AVX-512 Xeon, shared memory); 10 Gbit/s between nodes is assumed. */
CURVD_API void curvd_machine_default(curvd_machine *machine);

/* This rank's own speeds, in about a second and 70 MB; transfers, ranks_per_node and overlap are those of the default.
 * Errors: ARGUMENT, MEMORY, NUMERIC, with their sentence in message (may be NULL). */
CURVD_API curvd_status curvd_machine_measure(curvd_machine *machine, char *message, size_t size);

typedef struct curvd_layer_shape {
  const char *name;
  int64_t d_in, d_out;
  bool has_bias;
  curvd_layer_kind kind; /* CURVD_LAYER_NORM: d_in 1, d_out channels, with a bias */
  int64_t positions;     /* output pixels of a convolution, whose d_in is kh kw c_in; 0: fully connected */
} curvd_layer_shape;

typedef struct curvd_option_value {
  const char *key, *value;
} curvd_option_value;

/* Fields left out are 0. */
typedef struct curvd_run_shape {
  const curvd_layer_shape *layers;
  int32_t n_layers;
  const curvd_option_value *options; /* as for curvd_set; curvature_ranks among them */
  int32_t n_options;
  int32_t n_ranks;         /* 1 .. CURVD_PREDICTED_RANKS_MAX */
  int64_t batch_rows;      /* examples of a step, over all workers */
  int64_t statistics_rows; /* of them, those that are captured; 0: all */
  double train_s;          /* seconds of forward and backward of batch_rows on one rank; 0: 6 rows d_in d_out flops,
                            * times the positions */
  double capture_train_s;  /* further ones in a step with statistics: a second backward pass */
  bool captures_gradients; /* curvd_capture_gradient is called */
  const curvd_machine *machine; /* NULL: the default */
} curvd_run_shape;

/* X(name, text): predicted stages. Up to RECEIVE of a step with statistics or a refresh; then of every step. */
#define CURVD_PREDICTED_LIST(X)                                                                                        \
  X(CURVD_PREDICTED_TRAIN, "forward and backward")                                                                     \
  X(CURVD_PREDICTED_CAPTURE, "capture statistics")                                                                     \
  X(CURVD_PREDICTED_STATISTICS, "pack statistics")                                                                     \
  X(CURVD_PREDICTED_AVERAGE, "running average")                                                                        \
  X(CURVD_PREDICTED_REFRESH, "refresh")                                                                                \
  X(CURVD_PREDICTED_PUBLISH, "pack preconditioners")                                                                   \
  X(CURVD_PREDICTED_RECEIVE, "unpack preconditioners")                                                                 \
  X(CURVD_PREDICTED_GRADIENTS, "reduce gradients")                                                                     \
  X(CURVD_PREDICTED_MOMENTUM, "momentum")                                                                              \
  X(CURVD_PREDICTED_PROJECT, "project onto eigenvectors")                                                              \
  X(CURVD_PREDICTED_APPLY, "precondition and update")                                                                  \
  X(CURVD_PREDICTED_UP, "statistics on their way")                                                                     \
  X(CURVD_PREDICTED_DOWN, "preconditioners on their way")

#define CURVD_PREDICTED_ENUM(name, text) name,
typedef enum curvd_predicted_stage {
  CURVD_PREDICTED_LIST(CURVD_PREDICTED_ENUM) CURVD_PREDICTED_STAGES
} curvd_predicted_stage;
#undef CURVD_PREDICTED_ENUM
CURVD_API const char *curvd_predicted_name(int stage);

/* Would a plan take this shape, its options together? Predicts nothing. Errors: ARGUMENT, OPTION, LAYOUT, MEMORY, with
 * their sentence in message (may be NULL). */
CURVD_API curvd_status curvd_shape_check(const curvd_run_shape *shape, char *message, size_t size);

#define CURVD_PREDICTED_INTERVAL_MAX 1000000

typedef struct curvd_prediction curvd_prediction;

/* Errors, with their sentence in message (may be NULL): ARGUMENT (sizes, counts or speeds out of range, intervals above
 * CURVD_PREDICTED_INTERVAL_MAX steps), OPTION, LAYOUT (no worker left), MEMORY. *prediction is NULL then. */
CURVD_API curvd_status curvd_predict(const curvd_run_shape *shape, curvd_prediction **prediction, char *message,
                                     size_t size);
CURVD_API void curvd_prediction_free(curvd_prediction **prediction);

/* Means are over a steady part of the run, at the first values of its schedules. */
typedef struct curvd_prediction_summary {
  int32_t n_workers, n_curvature, n_owners;
  int64_t factor_update_steps, inv_update_steps, staleness; /* free: the most */
  /* Each time the stage is done: seconds of a worker, or of the slowest owner; the sum of gradients with its transfer;
   * transfers from or to the slowest owner, without what hides them. */
  double stage_s[CURVD_PREDICTED_STAGES];
  double step_s, step_max_s;       /* of a step, mean and longest */
  double exposed_s;                /* of a mean step, what it takes beyond training and the sum of gradients */
  double wait_s;                   /* of that, what workers wait for owners */
  double load_mean, load_max;      /* share of its time that an owner works on curvature */
  double latency_s, latency_max_s; /* of a refresh: from its step until all of it is there */
  double age_mean;                 /* steps from the statistics of a preconditioner to its use */
  int64_t age_p99, age_max;
  bool is_rough;
} curvd_prediction_summary;
CURVD_API void curvd_prediction_read(const curvd_prediction *prediction, curvd_prediction_summary *summary);

typedef struct curvd_predicted_layer {
  int owner;              /* rank; -1: skipped */
  int64_t n[2];           /* of A and G; of a normalisation layer 2 channels and 0 */
  int64_t eig_rank[2];    /* pairs that are sent */
  int ranks[2];           /* that hold the factor */
  const char *carrier[2]; /* triangle, sketch, columns, local, blocks, units; "" of an empty factor */
  const char *apply;      /* replicated, sharded, factored */
  const char *route;      /* owner, gradients */
} curvd_predicted_layer;
/* ARGUMENT: no such layer. */
CURVD_API curvd_status curvd_prediction_layer(const curvd_prediction *prediction, int32_t layer,
                                              curvd_predicted_layer *out);

typedef struct curvd_predicted_rank {
  double sent_bytes[CURVD_TRAFFICS];    /* of a mean step */
  int64_t memory_bytes[CURVD_MEMORIES]; /* without padding and small change */
  double load;                          /* owners: share of its time that it works on curvature */
} curvd_predicted_rank;
/* ARGUMENT: no such rank. */
CURVD_API curvd_status curvd_prediction_rank(const curvd_prediction *prediction, int32_t rank,
                                             curvd_predicted_rank *out);

/* The largest of each number over all ranks of a role. ARGUMENT: there is none. */
CURVD_API curvd_status curvd_prediction_most(const curvd_prediction *prediction, curvd_role role,
                                             curvd_predicted_rank *out);

typedef struct curvd_trial {
  int32_t n_curvature;
  int64_t factor_update_steps, inv_update_steps, staleness;
  double step_s, wait_s, load_max;
  int64_t age_max;
} curvd_trial;

/* How many of the shape's ranks should serve, and how often factors should be refreshed, so that steps are shortest
 * while no preconditioner is older than age_max steps; curvature_ranks, factor_update_steps, inv_update_steps and
 * staleness of the shape are not looked at. trial[0]: the best; then the best of the other numbers of curvature ranks,
 * by rising step_s; *n of them, at most room. *n_tried: of all that were simulated. Errors: as curvd_predict. */
CURVD_API curvd_status curvd_tune(const curvd_run_shape *shape, int64_t age_max, int32_t room, curvd_trial *trial,
                                  int32_t *n, int32_t *n_tried, char *message, size_t size);

/* ---- Injected faults --------------------------------------------------------------------------------------------- */

/* What curvd does when hardware or a solver fails can be tried: each fault happens once, on the rank that ordered it.
 */
typedef enum curvd_fault_kind {
  CURVD_FAULT_SOLVER = 0,   /* owner: the first rung of the solvers' ladder fails in the refresh of step */
  CURVD_FAULT_FACTOR = 1,   /* owner: a bit of what it keeps changes, between uses, before step */
  CURVD_FAULT_TRANSFER = 2, /* worker: a bit of the payload with the layer changes, of what lands in step or next */
  CURVD_FAULT_PRECONDITIONER = 3, /* worker: a bit of what is in force changes, before step */
  CURVD_FAULT_STATISTIC = 4,      /* owner: a bit of a factor's summed statistic changes on its way, in step */
} curvd_fault_kind;

typedef struct curvd_fault {
  curvd_fault_kind kind;
  int64_t step;
  int32_t layer;
  int factor;  /* 0: A, 1: G */
  int64_t bit; /* number in the array, modulo its bits */
} curvd_fault;

/* [local, any rank, after curvd_plan] Errors: ARGUMENT (no such layer or factor), STATE, SIZE (more than 16). A fault
 * of something that the rank does not hold never happens. */
CURVD_API curvd_status curvd_inject(curvd_ctx *ctx, const curvd_fault *fault);

/* ---- The flight recorder ---------------------------------------------------------------------------------------- */

/* What a rank does inside the library, for watchdogs and post-mortems: its last operations, always recorded, some tens
 * of nanoseconds each. The functions below are [any thread], while another one is inside any call of the same context
 * but curvd_create and curvd_destroy: a thread that looks now and then finds out what the rank hangs in. */
#define CURVD_OPERATIONS 256 /* that are kept */

typedef enum curvd_operation_kind {
  CURVD_OPERATION_PHASE = 0,   /* the rank's own work, and what is nested in it */
  CURVD_OPERATION_WAIT = 1,    /* for peer, in a call that returns afterwards */
  CURVD_OPERATION_IDLE = 2,    /* a curvature rank's wait for its next command */
  CURVD_OPERATION_TRANSFER = 3 /* to or from peer, behind the rank's back; ends when that is noticed */
} curvd_operation_kind;

/* peer: a rank of the context's communicator, or one of these. */
#define CURVD_PEER_WORKERS (-1)
#define CURVD_PEER_ALL (-2)
#define CURVD_PEER_OWNERS (-3)
#define CURVD_PEER_NONE (-4)

typedef struct curvd_operation {
  uint64_t number;   /* 1, 2, 3, ... on this rank */
  const char *what;  /* "reduce gradients", "wait for preconditioners"; static */
  const char *layer; /* NULL: of none, or of several; borrowed, as long as the context */
  curvd_operation_kind kind;
  int32_t peer;
  int64_t bytes;         /* 0: not a transfer of its own */
  int64_t step;          /* in which it began */
  double begin_s, end_s; /* CLOCK_MONOTONIC, seconds; end_s 0: it has not ended */
} curvd_operation;

/* [any thread] The last operations, oldest first, n at most; older ones that have not ended, transfers apart, take the
 * first places. Returns how many they are; 0 without a context. */
CURVD_API int curvd_trace_read(const curvd_ctx *ctx, curvd_operation *last, int n);

/* [any thread] A number that grows whenever this rank begins or ends an operation. It stands still while the rank waits
 * for something that does not come, however busily it looks for it; and while it is outside of the library. */
CURVD_API uint64_t curvd_heartbeat(const curvd_ctx *ctx);

/* [any thread] Is this a curvature rank that waits for its next command? Then it is not what holds others up. */
CURVD_API bool curvd_is_idle(const curvd_ctx *ctx);

#ifdef __cplusplus
}
#endif

#endif
