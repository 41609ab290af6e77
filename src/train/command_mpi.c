#include "train/commands.h"
#include "train/trainer.h"

int command_under_mpi(int argc, char **argv, curvd_status (*run)(config *c, int *code, cv_error *err)) {
  int provided = 0, rank = 0, code = EXIT_CODE_OK;
  cv_error err = {0};
  config c = {0};
  /* the library may move transfers by a thread of its own; less than that is fine, too */
  if (MPI_Init_thread(NULL, NULL, MPI_THREAD_MULTIPLE, &provided) != MPI_SUCCESS) return EXIT_CODE_MPI;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  curvd_status status = trainer_agree(MPI_COMM_WORLD, config_load(argc, argv, &c, &err), &err);
  if (status == CURVD_OK) status = run(&c, &code, &err);
  if (status != CURVD_OK) code = rank == 0 ? command_failed(&err) : exit_code_of(status);
  config_free(&c);
  MPI_Finalize();
  return code;
}
