# shellcheck shell=bash
# Sourced behind setup.sh by the scripts that start ranks.

# What is started unless another program is named: this clone's, or that of the installed tree in which these files lie.
default_program() {
  if [[ -d $root/src ]]; then
    printf '%s\n' "$root/build/curvd"
  else
    realpath -m -s "$root/../../bin/curvd"
  fi
}

settings=()
mpi_settings() { # mpi_settings THREADS: the environment of ranks, in settings
  settings=(OPENBLAS_NUM_THREADS="$1" OMP_NUM_THREADS="$1"
    "OMPI_MCA_mca_base_param_files=${OMPI_MCA_mca_base_param_files:-$root/launch/openmpi.conf}")
  ((EUID != 0)) || settings+=(OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1)
}

start_mpi() { # start_mpi THREADS COMMAND...: in the place of this shell, or printed
  mpi_settings "$1"
  shift
  if ((dry_run)); then
    print_command env "${settings[@]}" "$@"
  else
    exec env "${settings[@]}" "$@"
  fi
}
