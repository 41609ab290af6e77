/* curvd plan: what a run under this mpirun would take, before it takes it (rank 0 speaks); or, with --ranks, what a run
 * on any number of ranks would be like, from a model and without MPI. */
#include "train/commands.h"
#include "train/plan_report.h"
#include "train/trainer.h"
#include "train/words.h"

#include <stdio.h>
#include <stdlib.h>

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
    if (layer.factor[1].n > 0) print_factor("", "G", &layer.factor[1], layer.owner);
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

static curvd_status plan(config *c, int *code, cv_error *err) {
  (void)code;
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

/* ---- without ranks ---- */

static curvd_status predict(const config *c, run_shape *run, bool is_json, cv_error *err) {
  curvd_prediction *p = NULL;
  char message[sizeof err->text] = "";
  curvd_status status = curvd_predict(&run->shape, &p, message, sizeof message);
  if (status != CURVD_OK) return cv_fail(err, status, "%s", message);
  if (is_json) status = plan_report_json(c, run, p, err);
  if (!is_json) plan_report_lines(c, run, p);
  curvd_prediction_free(&p);
  return status;
}

static curvd_status predict_for(const words *w, int64_t n_ranks, bool is_json, cv_error *err) {
  config c;
  run_shape *run = NULL;
  CV_TRY(config_load(w->argc, w->argv, &c, err));
  curvd_status status = run_shape_make(&c, (int)n_ranks, &run, err);
  if (status == CURVD_OK) status = predict(&c, run, is_json, err);
  free(run);
  config_free(&c);
  return status;
}

int cmd_plan(int argc, char **argv) {
  words w = {argc, argv};
  cv_error err = {.code = CURVD_OK};
  int64_t n_ranks = 0;
  bool is_json = words_take_switch(&w, "--json");
  curvd_status status = words_take_integer(&w, "--ranks", 1, CURVD_PREDICTED_RANKS_MAX, &n_ranks, &err);
  if (status == CURVD_OK && is_json && n_ranks == 0)
    status = cv_fail(&err, CURVD_ERR_OPTION, "--json tells of predicted ranks: add --ranks N");
  if (status == CURVD_OK && n_ranks == 0) return command_under_mpi(w.argc, w.argv, plan);
  if (status == CURVD_OK) status = predict_for(&w, n_ranks, is_json, &err);
  return status == CURVD_OK ? EXIT_CODE_OK : command_failed(&err);
}
