/* curvd plan: what a run under this mpirun would take, before it takes it. Rank 0 speaks. */
#include "train/commands.h"
#include "train/trainer.h"

#include <stdio.h>

static void print_factor(const char *layer, const char *which, const curvd_factor_metrics *f, int owner) {
  char place[48];
  if (f->ranks > 1) {
    snprintf(place, sizeof place, "over %d ranks", f->ranks);
  } else {
    snprintf(place, sizeof place, "rank %d", owner);
  }
  printf("%-12s %-3s %10lld  %s\n", layer, which, (long long)f->n, place);
}

static void print_owners(const trainer *t) {
  printf("%-12s %-3s %10s  %s\n", "layer", "", "n", "owner");
  for (int32_t i = 0; i < curvd_layer_count(t->ctx); i++) {
    curvd_layer_metrics layer;
    if (curvd_layer_metrics_read(t->ctx, i, &layer) != CURVD_OK) continue;
    if (layer.owner < 0) {
      printf("%-12s not preconditioned: %s\n", layer.name, layer.reason);
      continue;
    }
    print_factor(layer.name, "A", &layer.factor[0], layer.owner);
    print_factor("", "G", &layer.factor[1], layer.owner);
  }
}

/* [collective] */
static void print_memory(const trainer *t) {
  enum { ALL = CURVD_MEMORIES + 1 };
  double mine[ALL] = {0}, least[ALL], sum[ALL], most[ALL];
  curvd_metrics metrics = {0};
  curvd_metrics_read(t->ctx, &metrics);
  for (int i = 0; i < CURVD_MEMORIES; i++) mine[i] = (double)metrics.memory_bytes[i] / 1e6;
  for (int i = 0; i < CURVD_MEMORIES; i++) mine[CURVD_MEMORIES] += mine[i];
  MPI_Reduce(mine, least, ALL, MPI_DOUBLE, MPI_MIN, 0, t->world);
  MPI_Reduce(mine, sum, ALL, MPI_DOUBLE, MPI_SUM, 0, t->world);
  MPI_Reduce(mine, most, ALL, MPI_DOUBLE, MPI_MAX, 0, t->world);
  if (t->rank != 0) return;
  printf("%-28s %10s %10s %10s\n", "service, MB on a rank", "min", "mean", "max");
  for (int i = 0; i < ALL; i++) {
    printf("%-28s %10.1f %10.1f %10.1f\n", i < CURVD_MEMORIES ? curvd_memory_name(i) : "all", least[i],
           sum[i] / t->n_ranks, most[i]);
  }
}

static curvd_status plan(config *c, cv_error *err) {
  trainer t;
  CV_TRY(trainer_plan(c, MPI_COMM_WORLD, &t, err));
  if (t.rank == 0) {
    printf("%d workers, %d curvature ranks\n", t.n_workers, t.n_ranks - t.n_workers);
    print_owners(&t);
  }
  print_memory(&t);
  trainer_free(&t);
  return CURVD_OK;
}

int cmd_plan(int argc, char **argv) {
  return command_under_mpi(argc, argv, plan);
}
