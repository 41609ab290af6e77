#include "train/commands.h"
#include "train/launcher.h"
#include "train/mpi_end.h"
#include "train/trainer.h"
#include "train/watchdog.h"

#include <math.h>
#include <stdlib.h>

/* Was this Open MPI built with SLURM's older protocols? */
static bool speaks_pmi(void) {
  static const char *const components[] = {"opal_pmix_s1", "opal_pmix_s2", "opal_pmix_cray"};
  int provided = 0, index = 0;
  bool speaks = false;
  if (MPI_T_init_thread(MPI_THREAD_SINGLE, &provided) != MPI_SUCCESS) return true; /* nobody knows */
  for (size_t i = 0; i < sizeof components / sizeof components[0]; i++)
    speaks = speaks || MPI_T_category_get_index(components[i], &index) == MPI_SUCCESS;
  MPI_T_finalize();
  return speaks;
}

curvd_status command_can_start(const launcher *l, cv_error *err) {
  if (launcher_is_alone_in_step(l)) unsetenv("SLURM_STEP_ID");
  return launcher_needs_pmi(l) && !speaks_pmi() ? launcher_failed_without_pmi(l, err) : CURVD_OK;
}

/* The promise stands in each rank's own environment. */
static curvd_status check_launcher(const launcher *l, cv_error *err) {
  char library[MPI_MAX_LIBRARY_VERSION_STRING] = "";
  int n_ranks = 1, length = 0;
  MPI_Comm_size(MPI_COMM_WORLD, &n_ranks);
  MPI_Get_library_version(library, &length);
  return launcher_check(l, n_ranks, library, err);
}

/* Of interfaces that lead nowhere MPI finds out in the first messages, which are waited for without an end. */
static curvd_status first_messages(int rank, const config *c, curvd_status mine, cv_error *err) {
  static const double PATIENCE_S = 60;
  double timeout_s = mine == CURVD_OK ? fmin(PATIENCE_S, c->values.hang_timeout) : PATIENCE_S;
  watchdog guard;
  curvd_status status = watchdog_start(&guard, rank, timeout_s, err);
  watchdog_note(&guard, "first messages to the other ranks (between hosts: OMPI_MCA_btl_tcp_if_include=NAME)", NULL);
  status = trainer_agree(MPI_COMM_WORLD, mine != CURVD_OK ? mine : status, err);
  watchdog_stop(&guard);
  return status;
}

static int under_mpi(int argc, char **argv, bool needs_promised_ranks, command_of_ranks *run) {
  const launcher l = launcher_of_process();
  int provided = 0, rank = 0, code = EXIT_CODE_OK;
  cv_error err = {0};
  config c = {0};
  if (command_can_start(&l, &err) != CURVD_OK) return l.rank > 0 ? exit_code_of(err.code) : command_failed(&err);
  /* the library may move transfers by a thread of its own; less than that is fine, too */
  if (MPI_Init_thread(NULL, NULL, MPI_THREAD_MULTIPLE, &provided) != MPI_SUCCESS) return EXIT_CODE_MPI;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  curvd_status status = needs_promised_ranks ? check_launcher(&l, &err) : CURVD_OK;
  bool speaks = rank == 0 && (status == CURVD_OK || l.rank <= 0); /* of many worlds of one rank, one does */
  if (status == CURVD_OK) status = config_load(argc, argv, &c, &err);
  status = first_messages(rank, &c, status, &err);
  if (status == CURVD_OK) status = run(&c, &code, &err);
  if (status != CURVD_OK) code = speaks ? command_failed(&err) : exit_code_of(status);
  config_free(&c);
  mpi_end();
  return code;
}

int command_under_mpi(int argc, char **argv, command_of_ranks *run) {
  return under_mpi(argc, argv, true, run);
}

int command_under_any_mpi(int argc, char **argv, command_of_ranks *run) {
  return under_mpi(argc, argv, false, run);
}
