/* What `curvd tune` measures: this machine, and a step of the configured network on it. */
#ifndef TRAIN_PROBE_H
#define TRAIN_PROBE_H

#include "train/config.h"
#include "train/run_shape.h"

#include <mpi.h>

/* [collective over world, 2 ranks and more] Latency and bandwidth between rank 0 and a rank of its node, and of another
 * node; ranks_per_node. What does not exist stays as it is. The same on every rank. */
typedef struct probe_links {
  bool has_within, has_between;
} probe_links;
probe_links probe_transfers(MPI_Comm world, curvd_machine *machine);

/* Seconds of forward and backward, and of the second backward pass of sampled targets, of the shape's batch, from a
 * worker's share of it among n_workers. Weights and examples are random: times do not depend on them. A network that
 * would take longer than a few seconds is measured on fewer rows. MEMORY. */
curvd_status probe_training(const config *c, run_shape *given, int n_workers, double gemm_flops_s, cv_error *err);

#endif
