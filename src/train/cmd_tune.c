/* curvd tune: measures this machine, and names the split of the ranks and the intervals with the shortest step. Under
 * mpirun also transfers are measured; without, MPI is not touched. */
#include "train/commands.h"
#include "train/launcher.h"
#include "train/plan_report.h"
#include "train/probe.h"
#include "train/run_options.h"
#include "train/trainer.h"
#include "train/words.h"

#include <cblas.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum { SHOWN = 6, AGE_MAX = 20 };

typedef struct tuning {
  int64_t n_ranks, age_max; /* n_ranks 0: those of mpirun, or the processors */
  bool is_json, is_under_mpi, knows_nodes;
  int rank, n_launched;
  config *config;
  run_shape *given;
  curvd_machine machine;
  probe_links links;
  curvd_trial trial[SHOWN];
  int32_t n, n_tried;
} tuning;

/* ---- measuring ---- */

/* Progress, on a channel of its own: stdout is for what was asked for. */
static void tell(const tuning *t, const char *what) {
  if (t->rank == 0) fprintf(stderr, "curvd tune: %s ...\n", what);
}

static curvd_status agree(const tuning *t, curvd_status mine, cv_error *err) {
  return t->is_under_mpi ? trainer_agree(MPI_COMM_WORLD, mine, err) : mine;
}

/* Rank 0 alone measures what a rank does: others would take its memory bandwidth, but not as a run would. */
static curvd_status measure_rank(tuning *t, cv_error *err) {
  char message[sizeof err->text] = "";
  if (t->rank != 0) return CURVD_OK;
  tell(t, "products, copies, eigenproblems");
  curvd_status status = curvd_machine_measure(&t->machine, message, sizeof message);
  if (status != CURVD_OK) return cv_fail(err, status, "%s", message);
  tell(t, "a forward and a backward pass");
  int n_workers = (int)(t->n_ranks > 1 ? t->n_ranks - 1 : 1);
  return probe_training(t->config, t->given, n_workers, t->machine.gemm_flops_s, err);
}

/* A rank that waits inside MPI would spin, and take what rank 0 measures. */
static void let_rank_0_measure(void) {
  const struct timespec pause = {.tv_nsec = 5000000};
  MPI_Request request;
  int is_done = 0;
  MPI_Ibarrier(MPI_COMM_WORLD, &request);
  for (MPI_Test(&request, &is_done, MPI_STATUS_IGNORE); !is_done; MPI_Test(&request, &is_done, MPI_STATUS_IGNORE))
    nanosleep(&pause, NULL);
}

static curvd_status measure(tuning *t, cv_error *err) {
  curvd_machine_default(&t->machine);
  int32_t most_on_a_node = t->machine.ranks_per_node;
  openblas_set_num_threads((int)t->config->values.blas_threads);
  curvd_status status = measure_rank(t, err);
  if (t->is_under_mpi) let_rank_0_measure();
  CV_TRY(agree(t, status, err));
  if (!t->is_under_mpi) return CURVD_OK;
  tell(t, "transfers between ranks");
  t->links = probe_transfers(MPI_COMM_WORLD, &t->machine);
  t->knows_nodes = t->links.has_between || t->n_ranks <= t->n_launched;
  if (!t->knows_nodes) t->machine.ranks_per_node = most_on_a_node; /* nobody knows where further ranks would be */
  return CURVD_OK;
}

/* ---- results ---- */

static void machine_lines(const tuning *t) {
  const curvd_machine *m = &t->machine;
  const char *origin[] = {"default", "measured"};
  printf("products %.1f Gflop/s, sums of outer products %.1f Gflop/s, copies %.1f GB/s (measured)\n",
         m->gemm_flops_s / 1e9, m->syrk_flops_s / 1e9, m->copy_bytes_s / 1e9);
  printf("eigenproblems of n = 256: %.2f ms in fp32, %.2f ms in fp64 (measured)\n",
         1e3 * 65536 * (m->eig32_square_s + 256 * m->eig32_cube_s),
         1e3 * 65536 * (m->eig64_square_s + 256 * m->eig64_cube_s));
  printf("ranks of a node: %.1f us and %.2f GB/s (%s); of two nodes: %.1f us and %.2f GB/s (%s)\n",
         1e6 * m->within_latency_s, m->within_bytes_s / 1e9, origin[t->links.has_within], 1e6 * m->between_latency_s,
         m->between_bytes_s / 1e9, origin[t->links.has_between]);
  printf("%d ranks on a node (%s), %.0f %% of transfers hidden (default)\n", (int)m->ranks_per_node,
         origin[t->knows_nodes], 100 * m->overlap);
  printf("forward and backward of %lld examples on one rank: %.2f ms (measured)\n",
         (long long)t->given->shape.batch_rows, 1e3 * t->given->shape.train_s);
}

static void trial_lines(const tuning *t) {
  printf(
      "%s on %s, batch %lld, %lld ranks, preconditioners at most %lld steps old; %d runs simulated, the best of each "
      "number of curvature ranks:\n",
      t->config->method, t->config->values.network, (long long)t->given->shape.batch_rows, (long long)t->n_ranks,
      (long long)t->age_max, (int)t->n_tried);
  printf("%15s %19s %16s %9s %9s %9s %5s %4s\n", "curvature ranks", "factor_update_steps", "inv_update_steps",
         "staleness", "ms a step", "ms waited", "load", "age");
  for (int32_t i = 0; i < t->n; i++) {
    const curvd_trial *r = &t->trial[i];
    printf("%15d %19lld %16lld %9lld %9.3f %9.3f %4.0f%% %4lld\n", (int)r->n_curvature,
           (long long)r->factor_update_steps, (long long)r->inv_update_steps, (long long)r->staleness, 1e3 * r->step_s,
           1e3 * r->wait_s, 100 * r->load_max, (long long)r->age_max);
  }
  const curvd_trial *best = &t->trial[0];
  printf("use: --curvature-ranks %d --factor-update-steps %lld --inv-update-steps %lld --staleness %lld\n",
         (int)best->n_curvature, (long long)best->factor_update_steps, (long long)best->inv_update_steps,
         (long long)best->staleness);
}

static json_t *machine_json(const tuning *t) {
  const curvd_machine *m = &t->machine;
  return json_pack("{s:f,s:f,s:f,s:[f,f],s:[f,f],s:[f,f],s:[f,f],s:i,s:f,s:b,s:b}", "gemm_flops_s", m->gemm_flops_s,
                   "syrk_flops_s", m->syrk_flops_s, "copy_bytes_s", m->copy_bytes_s, "eig32", m->eig32_square_s,
                   m->eig32_cube_s, "eig64", m->eig64_square_s, m->eig64_cube_s, "within", m->within_latency_s,
                   m->within_bytes_s, "between", m->between_latency_s, m->between_bytes_s, "ranks_per_node",
                   (int)m->ranks_per_node, "overlap", m->overlap, "within_is_measured", (int)t->links.has_within,
                   "between_is_measured", (int)t->links.has_between);
}

static curvd_status print_json(const tuning *t, cv_error *err) {
  json_t *trials = json_array();
  for (int32_t i = 0; i < t->n; i++) {
    const curvd_trial *r = &t->trial[i];
    json_array_append_new(trials, json_pack("{s:i,s:I,s:I,s:I,s:f,s:f,s:f,s:I}", "curvature_ranks", (int)r->n_curvature,
                                            "factor_update_steps", (json_int_t)r->factor_update_steps,
                                            "inv_update_steps", (json_int_t)r->inv_update_steps, "staleness",
                                            (json_int_t)r->staleness, "step_s", r->step_s, "wait_s", r->wait_s,
                                            "load_max", r->load_max, "age_max", (json_int_t)r->age_max));
  }
  return json_print(json_pack("{s:I,s:I,s:i,s:f,s:f,s:o,s:o}", "ranks", (json_int_t)t->n_ranks, "age_limit",
                              (json_int_t)t->age_max, "tried", (int)t->n_tried, "train_s", t->given->shape.train_s,
                              "capture_train_s", t->given->shape.capture_train_s, "machine", machine_json(t), "best",
                              trials),
                    err);
}

static curvd_status report(tuning *t, cv_error *err) {
  char message[sizeof err->text] = "";
  t->given->shape.machine = &t->machine;
  curvd_status status =
      curvd_tune(&t->given->shape, t->age_max, SHOWN, t->trial, &t->n, &t->n_tried, message, sizeof message);
  if (status != CURVD_OK) return cv_fail(err, status, "%s", message);
  if (t->is_json) return print_json(t, err);
  machine_lines(t);
  trial_lines(t);
  return CURVD_OK;
}

/* ---- the command ---- */

static curvd_status run_tuning(tuning *t, cv_error *err) {
  curvd_status status = run_shape_make(t->config, (int)t->n_ranks, &t->given, err);
  if (status == CURVD_OK && run_is_first_order(t->config))
    status = cv_fail(err, CURVD_ERR_OPTION, "method %s has no curvature to tune", t->config->method);
  status = agree(t, status, err);
  if (status == CURVD_OK) status = measure(t, err);
  if (status == CURVD_OK && t->rank == 0) status = report(t, err);
  status = agree(t, status, err);
  free(t->given);
  t->given = NULL;
  return status;
}

static tuning the_tuning;

static curvd_status tune_with_mpi(config *c, int *code, cv_error *err) {
  (void)code;
  tuning *t = &the_tuning;
  MPI_Comm_rank(MPI_COMM_WORLD, &t->rank);
  MPI_Comm_size(MPI_COMM_WORLD, &t->n_launched);
  t->config = c;
  t->is_under_mpi = true;
  if (t->n_ranks == 0) t->n_ranks = t->n_launched;
  return run_tuning(t, err);
}

static curvd_status tune_alone(const words *w, tuning *t, cv_error *err) {
  config c;
  CV_TRY(config_load(w->argc, w->argv, &c, err));
  t->config = &c;
  if (t->n_ranks == 0) t->n_ranks = sysconf(_SC_NPROCESSORS_ONLN);
  curvd_status status = run_tuning(t, err);
  config_free(&c);
  return status;
}

int cmd_tune(int argc, char **argv) {
  tuning *t = &the_tuning;
  words w = {argc, argv};
  cv_error err = {.code = CURVD_OK};
  const launcher l = launcher_of_process();
  *t = (tuning){.age_max = AGE_MAX, .is_json = words_take_switch(&w, "--json")};
  curvd_status status = words_take_integer(&w, "--ranks", 1, CURVD_PREDICTED_RANKS_MAX, &t->n_ranks, &err);
  if (status == CURVD_OK) status = words_take_integer(&w, "--age-max", 0, 1000000, &t->age_max, &err);
  if (status == CURVD_OK && launcher_has_ranks(&l)) return command_under_mpi(w.argc, w.argv, tune_with_mpi);
  if (status == CURVD_OK) status = tune_alone(&w, t, &err);
  return status == CURVD_OK ? EXIT_CODE_OK : command_failed(&err);
}
