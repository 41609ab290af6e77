/* One training run on one rank: model, data, optimizer and curvd context, joined by the configuration. An embedder of
 * the library like any other. Every function that talks to other ranks says so. */
#ifndef TRAIN_TRAINER_H
#define TRAIN_TRAINER_H

#include "base/clock.h"
#include "curvd.h"
#include "net/model.h"
#include "train/config.h"
#include "train/data.h"
#include "train/optim.h"
#include "train/part.h"

#include <mpi.h>

/* Stages of the program, beside those of the library. */
typedef enum trainer_stage {
  TRAINER_BATCH,
  TRAINER_FORWARD,
  TRAINER_BACKWARD,
  TRAINER_SAMPLED, /* second backward pass for sampled targets */
  TRAINER_UPDATE,
  TRAINER_EVALUATE,
  TRAINER_STAGES
} trainer_stage;
const char *trainer_stage_name(int stage);

typedef struct trainer {
  config *config;   /* borrowed; automatic values are resolved in it */
  MPI_Comm world;   /* borrowed */
  MPI_Comm workers; /* MPI_COMM_NULL on a curvature rank */
  int rank, n_ranks, worker, n_workers;
  bool is_dry; /* only planned */
  cv_memory memory;
  data_pair data;
  model model;
  optim optim;
  curvd_ctx *ctx;
  part part[PARTS_MAX];            /* what the library calls layers */
  int first[MODEL_LAYERS_MAX + 1]; /* part of each layer of the model; the last is their number */
  curvd_gradient *gradient;        /* of each part */
  nn_layer *poisoned;              /* whose gradient an injected fault spoils in the coming step; NULL: none */
  cv_error precondition;           /* first failure of a kernel or of curvd_precondition in this step */
  float gradient_keep;             /* what the coming gradients keep of what their buffers hold */
  float gradient_momentum; /* > 0: gradients are added into their own decayed average, which saves a pass over memory */
  int64_t *order;          /* (n) of epoch order_epoch, or of an evaluation */
  int64_t *piece;          /* (rows_max) examples of the piece in the model */
  int64_t *position;       /* (rows_max) of them in the global batch */
  nn_pass pass;
  int64_t order_epoch;
  int32_t *labels; /* (rows_max) */
  float *targets;  /* (rows_max, nn_ld(d_out)) */
  int64_t steps_per_epoch, total_steps, step;
  int64_t steps_here; /* that this process has taken, those that it took again after a rollback as well */
  double loss_sum;    /* of this rank's examples since trainer_loss */
  int64_t loss_rows;
  int64_t rows_now;                   /* of the piece in the model */
  int64_t rows_fisher;                /* the first so many of them serve the statistics */
  double lr;                          /* of the last step */
  double cpu_begin_s, wall_begin_s;   /* start of training */
  double cpu_before_s, wall_before_s; /* of training before this process, in a run that was resumed */
  cv_stage stage[TRAINER_STAGES];
  cv_trace *trace; /* borrowed; NULL: nothing is recorded */
} trainer;

/* [local] Seconds of training of this process on this rank, evaluation left out. */
double trainer_wall_s(const trainer *run);
double trainer_cpu_s(const trainer *run);

/* [collective over world] From configuration to the first step: reads data on rank 0 and shares it, makes model,
 * optimizer and plan. On failure every rank returns the code of the first rank that failed, with its sentence. */
curvd_status trainer_create(config *c, MPI_Comm world, trainer *run, cv_error *err);

/* [collective over world] Only the service's plan, without memory and data: nothing can be run. */
curvd_status trainer_plan(config *c, MPI_Comm world, trainer *run, cv_error *err);
void trainer_free(trainer *run);

/* [local] Stages, and waits of its own, are recorded from now on. trace: borrowed, as long as the trainer. */
void trainer_record(trainer *run, cv_trace *trace);

/* [local] Is this rank a worker? A curvature rank calls trainer_serve instead of trainer_step. */
bool trainer_is_worker(const trainer *run);

/* [collective over the workers] One step on the next batch. */
curvd_status trainer_step(trainer *run, cv_error *err);

/* The flag of curvd_raise by which a worker that cannot take a step tells the others. */
enum { TRAINER_FLAG_BROKEN = 128 };

/* [local] The step that failed is left out: averages of gradients begin anew. */
void trainer_leave_out(trainer *run);

/* [collective: curvature ranks and workers] Curvature ranks serve until the workers call trainer_finish. */
curvd_status trainer_serve(trainer *run, cv_error *err);
curvd_status trainer_finish(trainer *run, cv_error *err);

/* [collective over the workers] Mean loss per example since the last call. */
double trainer_loss(trainer *run);

typedef struct trainer_score {
  double loss;     /* mean per example */
  double accuracy; /* percent; NaN without classes */
} trainer_score;

/* [collective over the workers] On the test set. */
trainer_score trainer_evaluate(trainer *run);

/* [collective over comm] The first failing rank's code and sentence come to all; OK when none failed. */
curvd_status trainer_agree(MPI_Comm comm, curvd_status mine, cv_error *err);

#endif
