# shellcheck shell=bash
# Sourced by launch/run and launch/test: installs what is missing, configures and builds.
# Commands are quiet unless they fail; with dry_run=1 they are printed instead.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
dry_run=0

# Debian 12 names.
packages=(cmake ninja-build gcc g++ libc6-dev pkg-config openmpi-bin libopenmpi-dev libopenblas-pthread-dev
  libscalapack-openmpi-dev check libyaml-dev zlib1g-dev libjansson-dev librandom123-dev libxxhash-dev
  dataset-fashion-mnist python3 libdnnl-dev)
# A SLURM cluster of one's own: launch/batch.
slurm_packages=(iproute2 slurm-client slurmctld slurmd munge)
# Tests alone need them: launch/test installs them, too.
test_packages=("${slurm_packages[@]}" gfortran python3-numpy python3-mpi4py)
# What the build of the program cannot do without, where packages have other names. ScaLAPACK is looked for by CMake alone.
commands=(cmake ninja cc pkg-config mpicc mpirun)
modules=(openblas yaml-0.1 jansson zlib libxxhash)

die() { # die STATUS TEXT
  printf 'launch: %s\n' "$2" >&2
  exit "$1"
}

need_count() { # need_count OPTION VALUE
  [[ $2 =~ ^[1-9][0-9]{0,5}$ ]] || die 2 "$1 needs a count from 1, not '$2'"
}

print_command() {
  local word line=
  for word in "$@"; do
    line+=${line:+ }$(printf '%q' "$word")
  done
  printf '%s\n' "$line"
}

quietly() { # quietly WHAT COMMAND...
  local what=$1 log
  shift
  if ((dry_run)); then
    print_command "$@"
    return
  fi
  printf '%s ...\n' "$what"
  log=$(mktemp)
  if ! "$@" >"$log" 2>&1 </dev/null; then
    tail -n 40 "$log" >&2
    die 1 "$what failed: $(print_command "$@") (whole log: $log)"
  fi
  rm -f "$log"
}

missing_packages() {
  local package installed
  installed=$(dpkg-query -W -f='${db:Status-Status} ${Package}\n' "${packages[@]}" 2>/dev/null || true)
  for package in "${packages[@]}"; do
    grep -qx "installed $package" <<<"$installed" || printf '%s\n' "$package"
  done
}

absent_needs() { # which of commands and modules are not there, a line each
  local name
  for name in "${commands[@]}"; do
    command -v "$name" >/dev/null || printf '%s\n' "$name"
  done
  for name in "${modules[@]}"; do
    pkg-config --exists "$name" 2>/dev/null || printf '%s\n' "$name.pc"
  done
}

setup_debian() { # setup_debian PACKAGE...: without these there is no other way
  local missing line absent name
  mapfile -t missing < <(missing_packages)
  ((${#missing[@]})) || return 0
  local install=(apt-get install -y --no-install-recommends "${missing[@]}")
  if ((EUID != 0 && !dry_run)); then
    line="sudo apt-get update && sudo $(print_command "${install[@]}")"
    absent=$(absent_needs)
    for name in "$@"; do
      [[ " ${missing[*]} " != *" $name "* ]] || absent+=" $name"
    done
    [[ -z $absent ]] || die 2 "packages are missing. Type this line, then start again:
$line"
    printf 'launch: packages are missing, but what the build looks for is there. Should it fail, type:\n%s\n' "$line" >&2
    return
  fi
  quietly "updating the list of packages" apt-get -o DPkg::Lock::Timeout=300 update
  quietly "installing ${missing[*]}" env DEBIAN_FRONTEND=noninteractive "${install[@]}" -o DPkg::Lock::Timeout=300
}

# No apt-get: say what is needed, go on when the build would find it.
setup_other() {
  local absent
  mapfile -t absent < <(absent_needs)
  printf 'no apt-get here: what the Debian packages %s hold must be installed\n' "${packages[*]}"
  ((${#absent[@]} == 0 || dry_run)) || die 2 "not found: ${absent[*]}. Install them, then start again."
}

setup_packages() { # setup_packages PACKAGE...: these, and what the build needs
  packages+=("$@")
  if command -v apt-get >/dev/null && command -v dpkg-query >/dev/null; then
    setup_debian "$@"
  else
    setup_other
  fi
}

setup_build() { # setup_build FOLDER TARGET CMAKE-OPTION...
  local folder=$root/$1 target=$2 options=("${@:3}")
  # the program alone can do without Check; where it is there, the folder is left as it is: with its tests, or without
  if [[ $target != curvd ]]; then
    options+=(-DCURVD_TESTS=ON)
  elif ! pkg-config --exists check 2>/dev/null; then
    options+=(-DCURVD_TESTS=OFF)
  fi
  quietly "configuring ${folder##*/}" cmake -G Ninja -S "$root" -B "$folder" -DCMAKE_BUILD_TYPE=Release "${options[@]}"
  quietly "building ${folder##*/}" cmake --build "$folder" --target "$target"
}
