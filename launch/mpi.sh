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

# Naming a file of settings switches off those that Open MPI reads by itself: the user's, and the site's, which may
# leave out a transport or a network. They stay, behind ours.
settings_files() {
  local file files=$root/launch/openmpi.conf folder
  folder=$(ompi_info --path sysconfdir --parsable 2>/dev/null) || folder=
  for file in "${HOME-}/.openmpi/mca-params.conf" "${folder#*sysconfdir:}/openmpi-mca-params.conf"; do
    [[ ! -r $file ]] || files+=,$file
  done
  printf '%s\n' "$files"
}

settings=()
mpi_settings() { # mpi_settings THREADS: the environment of ranks, in settings
  settings=(OPENBLAS_NUM_THREADS="$1" OMP_NUM_THREADS="$1"
    "OMPI_MCA_mca_base_param_files=${OMPI_MCA_mca_base_param_files:-$(settings_files)}")
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
