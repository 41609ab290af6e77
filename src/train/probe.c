#include "train/probe.h"

#include "base/clock.h"
#include "base/order.h"
#include "net/model.h"
#include "train/precision.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>

/* ---- transfers ---- */

enum { NOBODY = -INT_MAX, SMALL = 8, LARGE = 1 << 22, SMALL_TIMES = 200, LARGE_TIMES = 20, ROUNDS = 5 };

/* [rank 0 and other] Seconds of one way of a message, the least of some rounds. */
static double one_way_s(MPI_Comm world, int rank, int other, char *bytes, int size, int times) {
  double least = INFINITY;
  for (int round = 0; round < ROUNDS; round++) {
    double begin = cv_wall_s();
    for (int i = 0; i < times; i++) {
      if (rank == 0) MPI_Send(bytes, size, MPI_BYTE, other, 0, world);
      MPI_Recv(bytes, size, MPI_BYTE, rank == 0 ? other : 0, 0, world, MPI_STATUS_IGNORE);
      if (rank == other) MPI_Send(bytes, size, MPI_BYTE, 0, 0, world);
    }
    least = fmin(least, (cv_wall_s() - begin) / times / 2);
  }
  return least;
}

/* latency_s, bytes_s of the path between rank 0 and other, told to all. */
static void path(MPI_Comm world, int other, char *bytes, double *latency_s, double *bytes_s) {
  int rank = 0;
  double both[2] = {0, 0};
  MPI_Comm_rank(world, &rank);
  if (rank == 0 || rank == other) {
    both[0] = one_way_s(world, rank, other, bytes, SMALL, SMALL_TIMES);
    both[1] = LARGE / fmax(one_way_s(world, rank, other, bytes, LARGE, LARGE_TIMES) - both[0], 1e-9);
  }
  MPI_Bcast(both, 2, MPI_DOUBLE, 0, world);
  *latency_s = both[0], *bytes_s = both[1];
}

probe_links probe_transfers(MPI_Comm world, curvd_machine *machine) {
  MPI_Comm node;
  int rank = 0, on_node = 0, mine[2], other[2], has_room = 0;
  char *bytes = malloc(LARGE);
  MPI_Comm_rank(world, &rank);
  MPI_Comm_split_type(world, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &node);
  MPI_Comm_size(node, &on_node);
  int leader = rank;
  MPI_Bcast(&leader, 1, MPI_INT, 0, node);
  mine[0] = leader == 0 && rank != 0 ? -rank : NOBODY; /* the lowest ranks, by their negative */
  mine[1] = leader != 0 ? -rank : NOBODY;
  MPI_Allreduce(mine, other, 2, MPI_INT, MPI_MAX, world);
  MPI_Allreduce(MPI_IN_PLACE, &on_node, 1, MPI_INT, MPI_MAX, world);
  int room = bytes != NULL;
  MPI_Allreduce(&room, &has_room, 1, MPI_INT, MPI_MIN, world);
  probe_links found = {has_room && other[0] > NOBODY, has_room && other[1] > NOBODY};
  machine->ranks_per_node = on_node;
  if (found.has_within) path(world, -other[0], bytes, &machine->within_latency_s, &machine->within_bytes_s);
  if (found.has_between) path(world, -other[1], bytes, &machine->between_latency_s, &machine->between_bytes_s);
  MPI_Comm_free(&node);
  free(bytes);
  return found;
}

/* ---- training ---- */

enum { REPEATS = 7 };
static const double LONGEST_S = 5;

typedef struct stepper {
  model net;
  nn_pass pass;
  int64_t rows, rows_fisher;
  nn_loss_kind loss;
  int32_t *labels;
  float *targets;
} stepper;

static void forward_backward(stepper *s) {
  model *m = &s->net;
  int top = m->spec.n_layers;
  int64_t d = model_output(&m->spec).channels, hits = 0;
  model_forward(m, &s->pass, s->rows);
  nn_loss(s->loss, s->rows, d, m->x[top], nn_ld(d), s->labels, s->targets, nn_ld(d), m->g[top], &hits);
  model_backward(m, &s->pass, s->rows, true, 1.0f / (float)s->rows, 0, NULL, NULL);
}

static void backward_sampled(stepper *s) {
  model *m = &s->net;
  int top = m->spec.n_layers;
  int64_t d = model_output(&m->spec).channels;
  nn_loss_sampled(s->loss, s->rows_fisher, d, m->x[top], nn_ld(d), 1, 1, 0, m->g[top]);
  model_backward(m, &s->pass, s->rows_fisher, false, 0, 0, NULL, NULL);
}

static int by_size(const void *x, const void *y) {
  double a = *(const double *)x, b = *(const double *)y;
  return (a > b) - (a < b);
}

/* Of all repeats the median: a step in the middle of a run does not have the machine for itself, either. */
static double median_s(void (*run)(stepper *), stepper *s) {
  double seconds[REPEATS];
  run(s);
  for (int i = 0; i < REPEATS; i++) {
    double begin = cv_wall_s();
    run(s);
    seconds[i] = cv_wall_s() - begin;
  }
  qsort(seconds, REPEATS, sizeof seconds[0], by_size);
  return seconds[REPEATS / 2];
}

static curvd_status make(const config *c, const run_shape *given, stepper *s, cv_memory *memory, cv_error *err) {
  int64_t inputs = nn_stride(given->spec.input);
  void *labels = NULL;
  s->loss = given->spec.loss;
  const cv_unit *unit;
  CV_TRY(precision_unit(c, &unit, err));
  const model_settings settings = {.rows_max = s->rows,
                                   .init = (model_init)c->values.init,
                                   .seed = 1,
                                   .precision = (cv_precision)c->values.train_precision,
                                   .unit = unit};
  CV_TRY(model_create(&given->spec, &settings, memory, &s->net, err));
  CV_TRY(cv_memory_new(memory, CV_MEMORY_DATA, s->rows, sizeof *s->labels, "labels", &labels, err));
  s->labels = labels;
  CV_TRY(cv_floats_new(memory, CV_MEMORY_DATA, s->rows * nn_stride(model_output(&given->spec)), "targets", &s->targets,
                       err));
  for (int64_t i = 0; i < s->rows; i++) {
    for (int64_t j = 0; j < nn_size(given->spec.input); j++)
      s->net.x[0][i * inputs + j] = (float)((i * 7 + j * 13) % 17) / 17;
  }
  return CURVD_OK;
}

/* Rows of a worker's share, or as many as go through REPEATS times within LONGEST_S. */
static int64_t rows_of(const run_shape *given, int n_workers, double gemm_flops_s) {
  int64_t share = cv_divide_up(given->shape.batch_rows, n_workers);
  double flops = 6 * (double)model_parameters(&given->spec), most = LONGEST_S / (REPEATS + 1) * gemm_flops_s / flops;
  return cv_larger((double)share <= most ? share : (int64_t)most, 1);
}

curvd_status probe_training(const config *c, run_shape *given, int n_workers, double gemm_flops_s, cv_error *err) {
  cv_memory memory = {0};
  stepper s = {.pass = {.is_training = true}, .rows = rows_of(given, n_workers, gemm_flops_s)};
  s.rows_fisher = cv_divide_up(s.rows, c->values.fisher_stride);
  curvd_status status = make(c, given, &s, &memory, err);
  if (status == CURVD_OK) {
    double batch = (double)given->shape.batch_rows;
    given->shape.train_s = median_s(forward_backward, &s) * batch / (double)s.rows;
    if (given->shape.capture_train_s > 0)
      given->shape.capture_train_s = median_s(backward_sampled, &s) * batch / (double)s.rows;
  }
  void *labels = s.labels;
  cv_memory_free(&memory, &labels);
  cv_floats_free(&memory, &s.targets);
  model_free(&memory, &s.net);
  return status;
}
