/* curvd: a distributed curvature service for second-order training of neural networks.
 *
 * The ranks of one communicator split into workers, which train, and curvature ranks, which own the layers'
 * Kronecker factors, decompose them and send refreshed preconditioners back. With no curvature rank the
 * workers own the factors themselves.
 *
 *   every rank:      curvd_create -> curvd_set ... -> curvd_layer_add ... -> curvd_plan
 *   a worker:        { [curvd_capture ...] [curvd_capture_gradient ...] curvd_step } ... -> curvd_finish
 *                    with factored layers { [curvd_capture ...] curvd_precondition ... curvd_step } ...
 *   a curvature rank: curvd_serve (returns after the workers' curvd_finish)
 *   every rank:      curvd_metrics_read ... -> curvd_destroy
 *
 * Letters: a layer has a weight W (d_out, d_in); m = d_out; n = d_in, plus 1 when it has a bias, which then is the last
 * column of W. A = E[a a^T] (n, n) of the layer's inputs a (a constant 1 appended for the bias), G = E[g g^T] (m, m) of
 * the gradients g of one example's loss in the layer's outputs. Arrays are row-major fp32, batch first, as in numpy and
 * PyTorch; ld is the distance of two rows in elements. Sizes are 64-bit.
 *
 * [collective]: every rank named in the description must call it, in the same order. [local]: any rank, any time.
 * Every function that can fail returns a curvd_status; curvd_last_error has the sentence (what, where, what to do).
 * A collective function returns a failure on every rank when it fails on one (CURVD_ERR_REMOTE on the others).
 * Outputs are set on success only. The library never initialises, finalises or aborts MPI, exits, prints, installs
 * signal handlers or changes BLAS threads. MPI_THREAD_FUNNELED is enough (MPI_THREAD_MULTIPLE
 * lets a worker have a thread that moves transfers on: option progress); one thread at a time may use a context. */
#ifndef CURVD_H
#define CURVD_H

#include "curvd_state.h"
#include "curvd_status.h"

#include <mpi.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CURVD_VERSION_MAJOR 0
#define CURVD_VERSION_MINOR 1
#define CURVD_VERSION_PATCH 0

#if defined(__GNUC__)
#define CURVD_API __attribute__((visibility("default")))
#else
#define CURVD_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef struct curvd_ctx curvd_ctx; /* one service; several per process are fine */

/* ---- Life cycle ------------------------------------------------------------------------------------------------ */

/* [collective over comm] Makes a context with default options. comm is duplicated, never used directly; MPI must be
 * initialised. Errors: ARGUMENT (ctx is NULL), STATE (MPI not initialised), MEMORY, MPI. On error *ctx is NULL. */
CURVD_API curvd_status curvd_create(MPI_Comm comm, curvd_ctx **ctx);

/* [collective] curvd_create for callers that hold a Fortran handle (mpi4py's comm.py2f(), Julia, Fortran). */
CURVD_API curvd_status curvd_create_f(MPI_Fint comm, curvd_ctx **ctx);

/* [collective] Frees everything and sets *ctx to NULL, after curvd_finish where that was not called. NULL, and a
 * context that failed half-way, are fine. */
CURVD_API void curvd_destroy(curvd_ctx **ctx);

/* [local] Sets one option, before curvd_plan; every rank must set the same (curvd_plan compares).
 * Errors: OPTION (unknown key: names the nearest; value out of range), STATE (after curvd_plan). The old value stays.
 */
CURVD_API curvd_status curvd_set(curvd_ctx *ctx, const char *key, const char *value);

/* [local] Adds a fully connected layer, before curvd_plan; every rank adds the same layers in the same order.
 * name: copied; unique; at most 63 characters. d_in, d_out >= 1. *layer: 0, 1, 2, ... in order of adding.
 * Errors: ARGUMENT, STATE, MEMORY. The context is as before. */
CURVD_API curvd_status curvd_layer_add(curvd_ctx *ctx, const char *name, int64_t d_in, int64_t d_out, bool has_bias,
                                       int32_t *layer);

/* [local] Adds a normalisation layer (batch or layer normalisation): `channels` units, each with a scale gamma and a
 * shift beta, y = gamma x + beta. Its weight is gamma, (channels, 1), its bias beta: d_in 1, d_out channels, with a
 * bias. In place of Kronecker factors it has one block of its Fisher matrix for each unit, the 2 by 2 matrix
 * F = E[(d gamma, d beta)^T (d gamma, d beta)] of one example's gradients, and its direction is (F + damping)^-p
 * (d gamma, d beta)^T, unit by unit, with p the mean of exponent_a and exponent_g: small matrices that are always
 * decomposed exactly, whatever the method, carrier and store. Damping: relative-mean, relative-max: of the mean or the
 * largest eigenvalue of all blocks of the layer; product-max: the same as relative-max; pi and scalar: as it is. It is
 * never factored (curvd_is_factored). Errors: as curvd_layer_add. */
CURVD_API curvd_status curvd_layer_add_norm(curvd_ctx *ctx, const char *name, int64_t channels, int32_t *layer);

/* How images lie in memory, and the columns of a convolution's weight:
 *   channels last:  a (rows, h, w, c_in), g (rows, oh, ow, c_out), weight (c_out, kh kw c_in), columns (kh, kw, c_in)
 *   channels first: a (rows, c_in, h, w), g (rows, c_out, oh, ow), weight columns (c_in, kh, kw), as in PyTorch */
typedef enum curvd_layout { CURVD_CHANNELS_LAST = 0, CURVD_CHANNELS_FIRST = 1 } curvd_layout;

/* Pairs are (height, width). Fields left out are 0; a stride or dilation of 0 means 1. Output pixels along an axis:
 * (in + 2 pad - dilation (kernel - 1) - 1) / stride + 1, rounded down. */
typedef struct curvd_conv {
  int64_t c_in, c_out;
  int64_t in[2], kernel[2], stride[2], pad[2], dilation[2];
  curvd_layout layout;
} curvd_conv;

/* [local] Adds a convolution: a layer with d_in = kh kw c_in, whose gradient is that of its weight (c_out, d_in) and
 * its bias. Every group of a grouped convolution is a layer of its own, given pointers into the whole images.
 * Statistics are those of patches, what the window covers at an output pixel (KFC, Grosse and Martens 2016), weighted
 * as option weight_sharing says, of sampled patches as option sample_rows says. No matrix of all patches is made.
 * Convolutions are never factored, and curvd_capture_gradient leaves them alone.
 * Errors: as curvd_layer_add; ARGUMENT also for a shape without output. */
CURVD_API curvd_status curvd_layer_add_conv(curvd_ctx *ctx, const char *name, const curvd_conv *shape, bool has_bias,
                                            int32_t *layer);

/* [collective, all ranks] Splits the ranks, assigns the layers to owners, sizes all memory. Nothing is allocated later.
 * With dry_run nothing is allocated now, either: layer and memory metrics tell what would be, and nothing can be run.
 * Errors: LAYOUT (no worker left), MISMATCH (ranks differ in options or layers), OPTION, SIZE, MEMORY, MPI.
 * After an error only curvd_last_error and curvd_destroy may be called. */
CURVD_API curvd_status curvd_plan(curvd_ctx *ctx);

typedef enum curvd_layer_kind {
  CURVD_LAYER_DENSE = 0, /* curvd_layer_add */
  CURVD_LAYER_NORM = 1   /* curvd_layer_add_norm */
} curvd_layer_kind;

typedef enum curvd_role { CURVD_ROLE_WORKER = 0, CURVD_ROLE_CURVATURE = 1 } curvd_role;

/* [local] What this rank is, after curvd_plan. The last curvature_ranks ranks are curvature ranks. */
CURVD_API curvd_role curvd_role_get(const curvd_ctx *ctx);

/* [local] Number of workers, and this rank's position among them (-1 on a curvature rank), after curvd_plan. */
CURVD_API int curvd_worker_count(const curvd_ctx *ctx);
CURVD_API int curvd_worker_index(const curvd_ctx *ctx);

/* ---- Training -------------------------------------------------------------------------------------------------- */

/* [local, workers] Will the coming curvd_step use statistics? If not, curvd_capture may be left out. */
CURVD_API bool curvd_wants_capture(const curvd_ctx *ctx);

/* [local, workers] Adds rows examples to the statistics of the coming step; call it several times when a batch comes in
 * pieces. A call in a step that wants no capture does nothing.
 *   a: (rows, d_in) layer inputs, without the constant 1;  lda >= d_in.  NULL: leaves A alone.
 *   g: (rows, d_out) gradients in the layer's outputs;     ldg >= d_out. NULL: leaves G alone.
 *      loss_reduction "sum": of each example's own loss; "mean": of the mean over the rows of this call.
 * Of a normalisation layer a and g are the gradients of one example's loss in gamma and in beta, each (rows, channels),
 * summed over the positions of the example, with lda, ldg >= channels, and scaled as g is. It needs both.
 * Of a convolution rows are examples, and a and g their images: with channels last lda and ldg are the distances of two
 * pixels (at least c_in and c_out; lines and examples lie without gaps), with channels first those of two examples (at
 * least c_in h w and c_out oh ow).
 * Both are read before the call returns. Give A and G the same rows in total. Every worker may pass another number of
 * rows, 0 included. Errors: ARGUMENT, STATE (a curvature rank, or before curvd_plan), SIZE (more than capture_rows rows
 * in a step, of a layer with a factor that is spread over the owners or carried as columns). Statistics are as before.
 * Set option capture_rows to the most rows that a worker captures in a step: then carrier auto may let the rows travel,
 * where these are fewer numbers than their products. Left alone, it only limits spread factors and carrier columns. */
CURVD_API curvd_status curvd_capture(curvd_ctx *ctx, int32_t layer, int64_t rows, const float *a, int64_t lda,
                                     const float *g, int64_t ldg);

/* [local, workers] Optional, any number of times before a step: the gradient that curvd_step will get of this layer is
 * the sum over calls of scale * g^T [a 1], plus momentum times its last value where momentum_place is caller. Lets a
 * randomized method follow the gradient at a cost linear in the layer's width, which pays when rows < m n / (m + n);
 * ignored where it does not, with several workers, and of convolutions and normalisation layers. a (rows, d_in), g
 * (rows, d_out): as for curvd_capture, but of the real loss, scaled as the gradient is. Do not call it when the
 * gradient is changed otherwise (gradient clipping, coupled weight decay): a check every few steps notices, logs a
 * warning, and repairs. Errors: as curvd_capture. */
CURVD_API curvd_status curvd_capture_gradient(curvd_ctx *ctx, int32_t layer, int64_t rows, const float *a, int64_t lda,
                                              const float *g, int64_t ldg, float scale);

/* [local, workers] Optional: moves transfers on that go on behind the worker's back (Open MPI moves them only inside
 * its calls). Takes about a microsecond; a call between the layers of the forward and the backward pass is enough.
 * Errors: STATE, MPI. */
CURVD_API curvd_status curvd_progress(curvd_ctx *ctx);

/* The gradient of one layer, in the caller's memory, and perhaps the parameters that it belongs to. Fields left out are
 * 0. */
typedef struct curvd_gradient {
  float *weight;         /* (d_out, d_in), rows ld apart */
  int64_t ld;            /* >= d_in */
  float *bias;           /* d_out numbers bias_stride apart; ignored when the layer has no bias.
                          * weight + d_in with stride ld: the bias as the last column of W (fastest) */
  int64_t bias_stride;   /* >= 1 */
  float *parameter;      /* NULL; or W, laid out as weight is: then the step itself does
                          * W <- (1 - shrink) W - lr * direction, which saves passes over memory, and leaves anything in
                          * weight and bias (with momentum_place caller, or momentum 0: leaves them as they are) */
  float *parameter_bias; /* with parameter: the layer's bias, laid out as bias is */
  float shrink;          /* with parameter: decoupled weight decay, learning rate included */
} curvd_gradient;

/* [local, after curvd_plan] Is the layer's gradient to be made by curvd_precondition? With option apply factored: every
 * layer that is preconditioned but convolutions. false without such a layer. */
CURVD_API bool curvd_is_factored(const curvd_ctx *ctx, int32_t layer);

/* [local, workers] Of a factored layer, in place of the caller's own product for the weight's gradient:
 *   to = keep * to + scale * (P_G g)^T (P_A [a 1])
 * which is the preconditioned scale * g^T [a 1], at a cost linear in the layer's width: workers precondition their own
 * rows, before they are summed. a (rows, d_in), g (rows, d_out): as for curvd_capture, but of the real loss; read only,
 * before the call returns. to: what curvd_step gets as this layer's gradient (parameter is ignored); may hold anything
 * when keep is 0. At least once a step on every worker, with 0 rows (a and g may be NULL) where it has none; keep 1
 * adds further pieces. curvd_step combines it over the workers, averages (momentum), scales and writes it, and does not
 * precondition again:
 *   - momentum comes AFTER preconditioning, so with momentum the update is another one than the replicated one's. With
 *     momentum_place caller, keep is the momentum and scale holds 1 - momentum;
 *   - nothing may be added to the gradient before preconditioning (coupled weight decay), nor can it be clipped there;
 *   - kl-clip and norm-constraint take <direction, gradient> as <D, P^-1 D>, D the direction and P the preconditioner
 *     in force. That is <D, gradient> without momentum, and costs the projection of D that this way of applying saves;
 *   - a preconditioner holds for a whole step: the first call of step k waits for what is due in step k. With staleness
 *     0 the refresh of step k is used from step k + 1 on, as with staleness 1;
 *   - all its products, that of g and a included, are of apply_precision.
 * Errors: ARGUMENT, STATE (the layer is not factored; a curvature rank; before curvd_plan), NUMERIC (damping cannot
 * make P finite: to is as it was), MPI. */
CURVD_API curvd_status curvd_precondition(curvd_ctx *ctx, int32_t layer, int64_t rows, const float *a, int64_t lda,
                                          const float *g, int64_t ldg, float scale, float keep,
                                          const curvd_gradient *to);

/* [collective, workers; the curvature ranks take part through curvd_serve] One step: combines the workers' gradients
 * (grad_reduction), brings due statistics to their owners, refreshes due preconditioners, and overwrites every gradient
 * by the step's direction: the caller does W <- W - lr * direction, or hands the parameters over in
 * gradients[i].parameter. lr: the learning rate of this step, >= 0 (the KL clip and the norm constraint need it)
 *   gradients: n_layers of them, in layer order; borrowed until return.
 * Errors: ARGUMENT, STATE (also: no curvd_precondition of a factored layer in this step), NUMERIC (a gradient is not
 * finite: names layer and rank; method none, which only combines, does not look), MPI, REMOTE, DAMAGE (option
 * integrity: something has changed in memory or on its way; only curvd_load and curvd_finish help). After ARGUMENT,
 * STATE, DAMAGE and REMOTE nothing has happened: captures stay, so the step can be repeated without them. After the
 * others the step has been counted, gradients hold anything, parameters are unchanged, preconditioners and averages are
 * those of before or after it. */
CURVD_API curvd_status curvd_step(curvd_ctx *ctx, double lr, const curvd_gradient *gradients, int32_t n_layers);

/* [collective, curvature ranks] Serves the workers until they call curvd_finish; waits without spinning.
 * Returns at once on a worker. Errors: STATE, MPI, MEMORY. */
CURVD_API curvd_status curvd_serve(curvd_ctx *ctx);

/* [collective, workers] Ends training: curvd_serve returns on the curvature ranks. Does nothing when called twice. */
CURVD_API curvd_status curvd_finish(curvd_ctx *ctx);

/* ---- State: saving and resuming ---------------------------------------------------------------------------------- */

/* [local, every rank, any time] What curvd_save and curvd_load do on this rank. hooks: copied. user: borrowed, as long
 * as the context. Errors: ARGUMENT. */
CURVD_API curvd_status curvd_on_state(curvd_ctx *ctx, const curvd_state_hooks *hooks, void *user);

/* [collective, workers, between two steps; the curvature ranks take part through curvd_serve] Visits all that the
 * service would need to go on from here as if nothing had happened: momentum, statistics' averages and sketches,
 * decompositions, preconditioners in force and those under way, adaptive ranks, counts. Every number comes on one rank.
 * A worker waits for refreshes that are under way to arrive; a curvature rank visits when it comes to it, which nobody
 * waits for. Not visited are the parameters, and gradients that the caller averages (momentum_place caller). Errors:
 * ARGUMENT (no hooks), STATE (captured statistics wait for their step; a curvature rank), DAMAGE (integrity all: a
 * factor of this owner has changed), MPI; what a hook returned on this worker, REMOTE where it did so on another one.
 * The run can go on after all of them but MPI. */
CURVD_API curvd_status curvd_save(curvd_ctx *ctx);

/* [collective, workers, between two steps or before the first one; the curvature ranks take part through curvd_serve]
 * Takes what was saved in front of step `step`, on any number of ranks: the run goes on with that step. The same
 * numbers of workers and curvature ranks go on with the same bits, others to rounding. Options may differ as long as
 * shapes do not (eig_rank, method, ...), and with at least as many refreshes under way allowed (staleness). Errors: as
 * curvd_save; DATA from a hook when something has another shape or is not there. After an error some of the state has
 * been taken: load another one, or end. */
CURVD_API curvd_status curvd_load(curvd_ctx *ctx, int64_t step);

/* [local, workers, between two steps] Compares what is in force with checksums from when it came (option integrity
 * all), and tells the checksum of all that every worker holds alike (preconditioners in force, averaged gradients):
 * replicas that differ in it have parted. replica may be NULL. Errors: STATE, DAMAGE (layer and factor; the next
 * curvd_step fails on all workers). */
CURVD_API curvd_status curvd_check(curvd_ctx *ctx, uint64_t *replica);

/* [local, workers] Flags that all workers learn of without a message of their own: what any worker raised before
 * curvd_step is told by curvd_flags after it, on every worker the same. flags: bits 0 .. CURVD_FLAGS - 1. */
enum { CURVD_FLAGS = 8 };
CURVD_API void curvd_raise(curvd_ctx *ctx, uint32_t flags);
CURVD_API uint32_t curvd_flags(const curvd_ctx *ctx);

/* ---- What it is doing ------------------------------------------------------------------------------------------- */

/* X(name, text): stages of a step, as in the end table */
#define CURVD_STAGE_LIST(X)                                                                                            \
  X(CURVD_STAGE_CAPTURE, "capture statistics")                                                                         \
  X(CURVD_STAGE_FOLLOW, "project gradients")                                                                           \
  X(CURVD_STAGE_GRADIENTS, "reduce gradients")                                                                         \
  X(CURVD_STAGE_STATISTICS, "reduce statistics")                                                                       \
  X(CURVD_STAGE_AVERAGE, "running average")                                                                            \
  X(CURVD_STAGE_REFRESH, "refresh")                                                                                    \
  X(CURVD_STAGE_WAIT, "wait for curvature")                                                                            \
  X(CURVD_STAGE_BROADCAST, "receive preconditioners")                                                                  \
  X(CURVD_STAGE_MOMENTUM, "momentum")                                                                                  \
  X(CURVD_STAGE_PRECONDITION, "precondition")                                                                          \
  X(CURVD_STAGE_MOVE, "move factors")                                                                                  \
  X(CURVD_STAGE_IDLE, "wait for workers")

/* X(name, text): what is sent */
#define CURVD_TRAFFIC_LIST(X)                                                                                          \
  X(CURVD_TRAFFIC_GRADIENTS, "gradients")                                                                              \
  X(CURVD_TRAFFIC_STATISTICS, "statistics")                                                                            \
  X(CURVD_TRAFFIC_PRECONDITIONERS, "preconditioners")                                                                  \
  X(CURVD_TRAFFIC_CONTROL, "control")                                                                                  \
  X(CURVD_TRAFFIC_MOVES, "moved factors")

/* X(name, text): memory by kind */
#define CURVD_MEMORY_LIST(X)                                                                                           \
  X(CURVD_MEMORY_STATISTICS, "statistics")                                                                             \
  X(CURVD_MEMORY_FACTORS, "factors")                                                                                   \
  X(CURVD_MEMORY_PRECONDITIONERS, "preconditioners")                                                                   \
  X(CURVD_MEMORY_MOMENTUM, "momentum")                                                                                 \
  X(CURVD_MEMORY_TRANSFER, "transfer")                                                                                 \
  X(CURVD_MEMORY_WORKSPACE, "workspace")

/* X(name, text): events, all owners together as far as this rank has heard of them */
#define CURVD_EVENT_LIST(X)                                                                                            \
  X(CURVD_EVENT_REFRESHES, "factors refreshed")                                                                        \
  X(CURVD_EVENT_SKIPPED, "refreshes skipped because the old preconditioner still fits")                                \
  X(CURVD_EVENT_REFUSED_STATISTICS, "statistics refused (not finite)")                                                 \
  X(CURVD_EVENT_LOST_STATISTICS, "statistics, or one worker's rows of them, lost in an update that failed")            \
  X(CURVD_EVENT_RETRIED, "decompositions retried in fp64")                                                             \
  X(CURVD_EVENT_EXACT_FALLBACK, "decompositions done by the exact solver instead")                                     \
  X(CURVD_EVENT_REPAIRED, "sketches repaired by a second product with the window")                                     \
  X(CURVD_EVENT_WIDENED, "refreshes done again with finer products: refresh_precision was too coarse")                 \
  X(CURVD_EVENT_KEPT_PREVIOUS, "preconditioners kept because all solvers failed")                                      \
  X(CURVD_EVENT_CLIPPED, "steps shortened by a clip")                                                                  \
  X(CURVD_EVENT_MOVED, "layers moved to another owner")                                                                \
  X(CURVD_EVENT_DAMAGED, "numbers found changed in memory or on their way")

#define CURVD_LIST_ENUM(name, text) name,
typedef enum curvd_stage { CURVD_STAGE_LIST(CURVD_LIST_ENUM) CURVD_STAGES } curvd_stage;
typedef enum curvd_traffic { CURVD_TRAFFIC_LIST(CURVD_LIST_ENUM) CURVD_TRAFFICS } curvd_traffic;
typedef enum curvd_memory { CURVD_MEMORY_LIST(CURVD_LIST_ENUM) CURVD_MEMORIES } curvd_memory;
typedef enum curvd_event { CURVD_EVENT_LIST(CURVD_LIST_ENUM) CURVD_EVENTS } curvd_event;
#undef CURVD_LIST_ENUM

/* What moves transfers while workers compute: nothing to move; looks inside the library's calls; a thread. */
typedef enum curvd_progress_kind {
  CURVD_PROGRESS_NONE = 0,
  CURVD_PROGRESS_TEST = 1,
  CURVD_PROGRESS_THREAD = 2
} curvd_progress_kind;

/* Sums since curvd_plan, of this rank. */
typedef struct curvd_metrics {
  int64_t step; /* steps done */
  double stage_wall_s[CURVD_STAGES];
  double stage_cpu_s[CURVD_STAGES]; /* process CPU, all threads */
  int64_t stage_calls[CURVD_STAGES];
  int64_t sent_bytes[CURVD_TRAFFICS]; /* payload handed to MPI by this rank: what it contributes or is root of */
  int64_t events[CURVD_EVENTS];
  int64_t memory_bytes[CURVD_MEMORIES]; /* live now */
  int64_t memory_peak_bytes;
  int64_t n_allocations; /* ever; constant after curvd_plan, but for rebalance_steps */
  double clip_scale;     /* of the last step: 1 where nothing was clipped; smallest over layers */
  /* Workers: steps from the statistics of a preconditioner to its use, over all factors and steps so far; and wall
   * seconds from the step of a refresh until all of it was here, as far as this rank has looked. */
  double age_mean;
  int64_t age_p99, age_max;
  int64_t refreshes_arrived; /* of every owner */
  double latency_mean_s, latency_max_s;
  curvd_progress_kind progress;
  double overlap_measured; /* share of a transfer's time that curvd_plan's trial hid behind products; -1: no trial */
  double transfer_s;       /* wall seconds in which statistics of this worker were on their way, or a refresh was asked
                            * for and not here yet; as far as it has looked */
  double exposed_s;        /* those of them in which it waited */
} curvd_metrics;

/* [local] CURVD_ERR_ARGUMENT if a pointer is NULL. */
CURVD_API curvd_status curvd_metrics_read(const curvd_ctx *ctx, curvd_metrics *metrics);

/* One Kronecker factor as its last refresh left it. All blocks of a normalisation layer are one factor, the first, n =
 * eig_rank = 2 channels; its second one is empty: n is 0, carrier and store are "". */
typedef struct curvd_factor_metrics {
  int64_t n;               /* rows of the factor */
  int64_t eig_rank;        /* eigenpairs kept; n: all; 0: identity, never refreshed */
  int64_t statistics_step; /* step of its newest statistics, -1: none yet; age = step - statistics_step */
  double trace;            /* of the running average */
  double lambda_max;       /* largest eigenvalue */
  double lambda_min;       /* smallest kept eigenvalue */
  double tau;              /* eigenvalue assumed outside the kept span */
  double missing_trace;    /* share of the trace outside the kept span, [0, 1] */
  /* How well {U, D, tau} fits the average that it was made from, E being the difference. Statistics that are made in
   * bf16 (statistics_precision) add less than a tenth of error_norm to it, or they would be fp32. */
  double error_bound;    /* the spectral norm of E is below it, but for a chance of 2^-10 */
  double error_norm;     /* estimate of the Frobenius norm of E */
  double residual;       /* of the kept pairs: ||U M - D U|| over ||D U||, an estimate */
  double orthogonality;  /* largest row norm of U U^T - I, an estimate */
  double drift;          /* share of the last product with the factor outside the span it began with (nystrom-kfac) */
  int64_t products;      /* with the factor, in its last refresh */
  double refresh_s;      /* process CPU seconds of its last refresh, on the rank that sent it */
  int ranks;             /* that hold it: 1, or all owners; 0 without an owner */
  double damping;        /* added to its eigenvalues in the last step; 0 before any */
  int64_t refused;       /* statistics refused so far */
  const char *carrier;   /* how its statistics travel: triangle, sketch, columns, blocks, units; "" without an owner */
  const char *store;     /* what its owner keeps: full, stream, online, units */
  const char *precision; /* of the products of its last refresh: fp32, bf16, bf16x3 */
  /* What rounding on the wire (wire_precision) has done, relative, in the Frobenius norm; 0: nothing was rounded. */
  double wire_error_statistics; /* to this worker's last statistic; 0 on a curvature rank */
  double wire_error_basis;      /* to the eigenvectors that its last refresh sent */
} curvd_factor_metrics;

typedef struct curvd_layer_metrics {
  const char *name;   /* borrowed, as long as the context */
  const char *method; /* "kfac", ..., "unit" of a normalisation layer, or "none" */
  const char *reason; /* why the layer is not preconditioned; "" when it is */
  int64_t d_in, d_out;
  bool has_bias;
  int owner;                      /* rank in the communicator of curvd_create; -1 without an owner */
  const char *apply;              /* replicated, sharded, factored: who makes its direction, and of what */
  double share;                   /* of all layers' parameters, [0, 1] */
  curvd_factor_metrics factor[2]; /* A, G */
  double direction_rms;           /* root mean square of the last direction, before lr */
  double owner_s;                 /* wall seconds that owners have spent on averages and refreshes, as last heard */
} curvd_layer_metrics;

/* [local] Errors: ARGUMENT (no such layer), STATE (before curvd_plan). */
CURVD_API curvd_status curvd_layer_metrics_read(const curvd_ctx *ctx, int32_t layer, curvd_layer_metrics *metrics);
CURVD_API int32_t curvd_layer_count(const curvd_ctx *ctx);

/* [local] What multiplies bf16 numbers on this rank, "amx" for one; "" where all products are fp32, or before
 * curvd_plan. */
CURVD_API const char *curvd_matrix_unit(const curvd_ctx *ctx);

/* [local] Texts of the lists above; "?" outside the range. */
CURVD_API const char *curvd_stage_name(int stage);
CURVD_API const char *curvd_traffic_name(int traffic);
CURVD_API const char *curvd_memory_name(int kind);
CURVD_API const char *curvd_event_name(int event);

/* [local] Lines of the library go here; silent without. level: 1 warning, 2 note, 3 debug. */
CURVD_API curvd_status curvd_log_to(curvd_ctx *ctx, void (*write)(void *user, int level, const char *line), void *user,
                                    int level);

/* ---- Options --------------------------------------------------------------------------------------------------- */

typedef struct curvd_option_info {
  const char *name, *type, *group, *unit, *range, *initial, *help; /* static texts */
} curvd_option_info;

/* [local, no context, no MPI] The options that curvd_set takes: index 0 .. count - 1. ARGUMENT outside. */
CURVD_API int curvd_option_count(void);
CURVD_API curvd_status curvd_option_get(int index, curvd_option_info *info);

/* [local, no context, no MPI] Would curvd_set accept it? Writes the sentence to message (may be NULL) if not. */
CURVD_API curvd_status curvd_option_check(const char *key, const char *value, char *message, size_t size);

/* [local] The value in force, as text: what was set, or what recipe and method imply (after curvd_plan), or the
 * default. Borrowed until the next call with this context; NULL for an unknown key. */
CURVD_API const char *curvd_get(const curvd_ctx *ctx, const char *key);

/* ---- Errors and version ------------------------------------------------------------------------------------------ */

/* [local] The sentence of the last failure; "" when there was none. ctx NULL: the general text of nothing, "". */
CURVD_API const char *curvd_last_error(const curvd_ctx *ctx);

/* [local] "CURVD_ERR_DATA", and the general text of a code; never NULL. */
CURVD_API const char *curvd_status_name(curvd_status code);
CURVD_API const char *curvd_status_text(curvd_status code);

/* [local] "0.1.0", and one line: version, MPI, BLAS as loaded now. */
CURVD_API const char *curvd_version(void);
CURVD_API const char *curvd_build_info(void);

#ifdef __cplusplus
}
#endif

#endif
