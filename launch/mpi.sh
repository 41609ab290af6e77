# shellcheck shell=bash
# Sourced behind setup.sh by the scripts that start mpirun.

start_mpi() { # start_mpi THREADS COMMAND...: in the place of this shell, or printed
  local threads=$1 settings
  shift
  settings=(OPENBLAS_NUM_THREADS="$threads" OMP_NUM_THREADS="$threads"
    "OMPI_MCA_mca_base_param_files=${OMPI_MCA_mca_base_param_files:-$root/launch/openmpi.conf}")
  ((EUID != 0)) || settings+=(OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1)
  if ((dry_run)); then
    print_command env "${settings[@]}" "$@"
  else
    exec env "${settings[@]}" "$@"
  fi
}
