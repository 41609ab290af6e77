/* curvd doctor: what is wrong, or slow, with what a run stands on. All ranks look; rank 0 hears, judges what concerns
 * several of them, and tells. */
#include "train/commands.h"
#include "train/doctor_blas.h"
#include "train/doctor_folder.h"
#include "train/doctor_machine.h"
#include "train/doctor_network.h"
#include "train/doctor_ranks.h"
#include "train/doctor_system.h"
#include "train/doctor_transfers.h"
#include "train/doctor_units.h"
#include "train/launcher.h"
#include "train/plan_report.h"
#include "train/trainer.h"
#include "train/watchdog.h"
#include "train/words.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const double PATIENCE_S = 20; /* with any one question */

typedef struct visit {
  config *config;
  bool is_json;
  launcher launcher;
  char library[MPI_MAX_LIBRARY_VERSION_STRING];
  int rank, n_ranks, n_hosts, level;
  MPI_Comm node; /* the ranks of this host, rank 0 of which answers for it */
  int node_rank, n_node;
  doctor_rank *ranks; /* rank 0: of all; others: their own */
  int *host_of;       /* rank 0: who answers for each rank's host */
  doctor_network network;
  doctor_folder folder;
  cv_error plan; /* why the configuration has no plan */
  double checkpoint_bytes;
  int unseen_by;
  doctor_skew skew;
  doctor_overlap overlap;
  cv_error overlap_failure;
  doctor_findings found; /* by this rank */
  watchdog watchdog;     /* a file system that answers nobody is a finding, too */
} visit;

/* ---- what the configuration needs ---- */

static double parameter_bytes(const trainer *t) {
  double bytes = 0;
  curvd_layer_metrics layer;
  for (int32_t i = 0; i < curvd_layer_count(t->ctx); i++)
    if (curvd_layer_metrics_read(t->ctx, i, &layer) == CURVD_OK)
      bytes += (double)sizeof(float) * (double)(layer.d_in + layer.has_bias) * (double)layer.d_out;
  return bytes;
}

/* [collective] What owners keep is saved once each, and what all workers hold alike once. */
static void read_plan(visit *v, const trainer *t) {
  curvd_metrics metrics = {0};
  curvd_metrics_read(t->ctx, &metrics);
  const int64_t *bytes = metrics.memory_bytes;
  double owned = (double)bytes[CURVD_MEMORY_FACTORS], held = 0, all[2] = {0, 0};
  held = (double)(bytes[CURVD_MEMORY_PRECONDITIONERS] + bytes[CURVD_MEMORY_MOMENTUM]) + parameter_bytes(t);
  for (int i = 0; i < CURVD_MEMORIES; i++) v->ranks[0].plan_bytes += bytes[i];
  MPI_Allreduce(&owned, &all[0], 1, MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD);
  MPI_Allreduce(&held, &all[1], 1, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD);
  v->checkpoint_bytes = (double)(v->config->values.checkpoint_keep + 1) * (all[0] + all[1]);
}

/* [collective] */
static void make_plan(visit *v) {
  trainer t;
  if (trainer_plan(v->config, MPI_COMM_WORLD, &t, &v->plan) != CURVD_OK) return;
  read_plan(v, &t);
  trainer_free(&t);
}

/* ---- who is where ---- */

static void ask_self(visit *v) {
  doctor_rank *mine = &v->ranks[0];
  doctor_rank_ask(mine);
  mine->blas_threads = (int32_t)v->config->values.blas_threads;
  mine->free_bytes = doctor_memory_free();
}

/* [collective] Rank 0 hears of all, and tells each who answers for its host. */
static void meet(visit *v) {
  MPI_Comm world = MPI_COMM_WORLD;
  int leader = 0;
  const doctor_rank mine = v->ranks[0];
  MPI_Gather(&mine, (int)sizeof mine, MPI_BYTE, v->ranks, (int)sizeof mine, MPI_BYTE, 0, world);
  if (v->rank == 0) v->n_hosts = doctor_hosts(v->ranks, v->n_ranks, v->host_of);
  MPI_Scatter(v->host_of, 1, MPI_INT, &leader, 1, MPI_INT, 0, world);
  MPI_Bcast(&v->n_hosts, 1, MPI_INT, 0, world);
  MPI_Comm_split(world, leader, v->rank, &v->node);
  MPI_Comm_rank(v->node, &v->node_rank);
  MPI_Comm_size(v->node, &v->n_node);
}

/* ---- what each rank finds ---- */

static void ask_libraries(visit *v) {
  doctor_blas blas;
  doctor_units units;
  doctor_check_mpi(v->library, OMPI_MAJOR_VERSION, OMPI_MINOR_VERSION, OMPI_RELEASE_VERSION, &v->found);
  doctor_check_threads(v->level, &v->found);
  doctor_blas_ask((int)v->config->values.blas_threads, &blas);
  doctor_check_blas(&blas, &v->found);
  doctor_check_pools(&blas, &v->found);
  doctor_check_convolutions(config_text(v->config, "kernels"), &v->found);
  doctor_units_ask(v->config, &units);
  doctor_check_units(&units, &v->found);
}

/* [collective] */
static void ask_host(visit *v) {
  doctor_processor processor;
  doctor_processor_ask(&processor);
  doctor_check_processor(&processor, &v->found);
  doctor_check_clock(&processor, &v->found);
  doctor_network_ask(v->node, &v->network);
  doctor_check_network(&v->network, v->n_hosts, &v->found);
  doctor_check_shared_memory(&v->network, v->n_node, &v->found);
  if (v->node_rank == 0) doctor_folder_ask(v->config->values.run_dir, &v->folder);
  MPI_Bcast(&v->folder, (int)sizeof v->folder, MPI_BYTE, 0, v->node);
  doctor_check_folder(&v->folder, v->checkpoint_bytes, &v->found);
}

/* [collective] */
static void ask_together(visit *v) {
  v->unseen_by = doctor_folder_compare(MPI_COMM_WORLD, &v->folder, v->node_rank == 0);
  v->skew = doctor_skew_ask(MPI_COMM_WORLD, v->node_rank == 0, v->host_of);
  if (v->n_ranks > 1 && v->plan.code == CURVD_OK)
    doctor_overlap_ask(MPI_COMM_WORLD, v->config->values.curvature_ranks, &v->overlap, &v->overlap_failure);
}

/* ---- rank 0 ---- */

static bool is_crowded(const doctor_findings *binding) {
  return binding->line[binding->n - 1].level != DOCTOR_OK;
}

static void judge_plan(const visit *v, doctor_findings *to) {
  if (v->plan.code != CURVD_OK)
    doctor_add_failure(to, "plan", &v->plan);
  else
    doctor_add(to, DOCTOR_OK, "plan", "workers: %lld, curvature ranks: %lld, %s",
               (long long)v->n_ranks - v->config->values.curvature_ranks, (long long)v->config->values.curvature_ranks,
               v->config->method);
}

/* found: by all ranks. */
static void judge(const visit *v, const doctor_findings *found, const char (*host)[DOCTOR_HOST_MAX],
                  doctor_findings *to) {
  doctor_check_launcher(&v->launcher, v->n_ranks, v->library, to);
  doctor_check_hosts(v->ranks, v->n_ranks, to);
  doctor_check_binding(v->ranks, v->n_ranks, to);
  bool crowded = is_crowded(to);
  doctor_merge(found, host, v->n_ranks, to);
  doctor_check_sharing(v->unseen_by, host[v->unseen_by >= 0 ? v->unseen_by : 0], v->n_hosts, &v->folder, to);
  doctor_check_skew(&v->skew, v->n_hosts, host[v->skew.rank], to);
  judge_plan(v, to);
  doctor_check_memory(v->ranks, v->n_ranks, to);
  if (v->overlap_failure.code != CURVD_OK)
    doctor_add_failure(to, "overlap", &v->overlap_failure);
  else
    doctor_check_overlap(&v->overlap, v->level, crowded, to);
}

static curvd_status tell(const visit *v, const doctor_findings *all, cv_error *err) {
  if (v->is_json) return json_print(doctor_json(all, v->n_ranks), err);
  doctor_print(all, v->n_ranks, stdout);
  return CURVD_OK;
}

/* [collective] all, host: rank 0's, of every rank. Whoever was promised neighbours and has none leaves speaking to the
 * first of them. */
static curvd_status report(const visit *v, doctor_findings *all, char (*host)[DOCTOR_HOST_MAX], int *code,
                           cv_error *err) {
  doctor_findings merged = {.n = 0};
  curvd_status status = CURVD_OK;
  MPI_Gather(&v->found, (int)sizeof v->found, MPI_BYTE, all, (int)sizeof v->found, MPI_BYTE, 0, MPI_COMM_WORLD);
  if (v->rank == 0) {
    for (int r = 0; r < v->n_ranks; r++) memcpy(host[r], v->ranks[r].host, DOCTOR_HOST_MAX);
    judge(v, all, (const char(*)[DOCTOR_HOST_MAX])host, &merged);
    *code = doctor_exit_code(&merged);
    if (v->n_ranks > 1 || v->launcher.rank <= 0) status = tell(v, &merged, err);
  }
  MPI_Bcast(code, 1, MPI_INT, 0, MPI_COMM_WORLD);
  return trainer_agree(MPI_COMM_WORLD, status, err);
}

/* [collective] */
static void look_around(visit *v) {
  watchdog_note(&v->watchdog, "plan without memory", NULL);
  make_plan(v);
  ask_self(v);
  watchdog_note(&v->watchdog, "hear of all ranks", NULL);
  meet(v);
  watchdog_note(&v->watchdog, "look at libraries and host", NULL);
  ask_libraries(v);
  ask_host(v);
  watchdog_note(&v->watchdog, "compare clocks and folders, try transfers", NULL);
  ask_together(v);
}

static curvd_status examine(visit *v, int *code, cv_error *err) {
  size_t n = v->rank == 0 ? (size_t)v->n_ranks : 1;
  v->ranks = calloc(n, sizeof *v->ranks);
  v->host_of = calloc(n, sizeof *v->host_of);
  doctor_findings *all = calloc(n, sizeof *all);
  char(*host)[DOCTOR_HOST_MAX] = calloc(n, sizeof *host);
  curvd_status status = v->ranks && v->host_of && all && host ? CURVD_OK : CURVD_ERR_MEMORY;
  if (status != CURVD_OK) cv_fail(err, status, "no memory for what %d ranks find", v->n_ranks);
  status = trainer_agree(MPI_COMM_WORLD, status, err);
  if (status == CURVD_OK) {
    look_around(v);
    watchdog_note(&v->watchdog, "tell what all ranks have found", NULL);
    status = report(v, all, host, code, err);
    MPI_Comm_free(&v->node);
  }
  free(v->ranks);
  free(v->host_of);
  free(all);
  free(host);
  return status;
}

static visit the_visit;

static curvd_status doctor(config *c, int *code, cv_error *err) {
  visit *v = &the_visit;
  int length = 0;
  v->config = c;
  MPI_Comm_rank(MPI_COMM_WORLD, &v->rank);
  MPI_Comm_size(MPI_COMM_WORLD, &v->n_ranks);
  MPI_Query_thread(&v->level);
  MPI_Get_library_version(v->library, &length);
  curvd_status status = watchdog_start(&v->watchdog, v->rank, fmin(PATIENCE_S, c->values.hang_timeout), err);
  status = trainer_agree(MPI_COMM_WORLD, status, err);
  if (status == CURVD_OK) status = examine(v, code, err);
  watchdog_stop(&v->watchdog);
  return status;
}

/* Without MPI there is one thing to say. */
static int tell_why_not(const visit *v, const cv_error *why) {
  doctor_findings all = {.n = 0};
  cv_error err = {0};
  doctor_add_failure(&all, "launcher", why);
  if (v->launcher.rank <= 0 && tell(v, &all, &err) != CURVD_OK) return command_failed(&err);
  return doctor_exit_code(&all);
}

int cmd_doctor(int argc, char **argv) {
  words w = {argc, argv};
  cv_error err = {0};
  /* before MPI, which sets variables of its own for a single process */
  the_visit = (visit){.launcher = launcher_of_process(), .n_ranks = 1, .is_json = words_take_switch(&w, "--json")};
  if (command_can_start(&the_visit.launcher, &err) != CURVD_OK) return tell_why_not(&the_visit, &err);
  return command_under_any_mpi(w.argc, w.argv, doctor);
}
