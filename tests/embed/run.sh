#!/usr/bin/env bash
# The library as its users get it.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)

usage() {
  cat <<'TEXT'
usage: tests/embed/run.sh BUILD                   all steps, in a temporary folder
       tests/embed/run.sh BUILD FOLDER STEP...    some of them; FOLDER stays, and install comes first
       tests/embed/run.sh --symbols BUILD         prints what symbols.txt should hold

Builds and runs the programs of this folder against the installed build folder BUILD, on 1 and 3 ranks (CMake: 3):
  install         installs BUILD, and moves that to another place, with a blank in its name
  module          loads the module files, where Lmod or Environment Modules are there
  launch          starts the installed program by the installed batch script
  symbols         compares the library's symbols with symbols.txt
  c cpp fortran   programs by pkg-config, with the shared and with the static library
  cmake           the same by CMake, for several sets of languages
  python torch    programs with numpy and mpi4py; with PyTorch
  interfaces      compares the Fortran and Python modules with the headers
Status 77, and why, when one of the steps that were named lacks what it needs.
TEXT
}

# step | name | compiler and its words | files; with @ of the installed headers | words for the linker
programs=(
  "c|embed_c|mpicc -std=c11 -Wall -Wextra -Werror|embed.c|-lm"
  "c|train_c|mpicc -std=c11 -Wall -Wextra -Werror|train.c|-lm"
  "cpp|embed_cpp|mpicxx -std=c++11 -Wall -Wextra -Werror -DOMPI_SKIP_MPICXX -x c++|embed.c|-lm"
  "cpp|train_cpp|mpicxx -std=c++17 -Wall -Wextra -Werror -DOMPI_SKIP_MPICXX|train.cpp|"
  "fortran|train_fortran|mpif90 -std=f2008 -ffree-line-length-132 -Wall -Wextra -Werror|@curvd.f90 train.f90|"
)
# languages that projects of users enable
languages=("C" "CXX" "Fortran" "C;CXX;Fortran")

fail() {
  printf 'embed: %s\n' "$1" >&2
  exit 1
}

skipped=0
skip() {
  printf 'SKIPPED: %s\n' "$1"
  skipped=1
}

# public LIBRARY: names of what it exports, without their versions
public() {
  nm -D --defined-only "$1" | awk '$2 != "A" { sub(/@.*/, "", $3); print $3 }' | LC_ALL=C sort
}

if [[ ${1-} == --symbols ]]; then
  public "${2?a build folder is missing}/libcurvd.so"
  exit
fi
if [[ ${1-} == --help || ${1-} == -h ]]; then
  usage
  exit
fi
build=$(cd "${1?a build folder is missing (see tests/embed/run.sh --help)}" && pwd)
shift
steps=(install module launch symbols c cpp fortran cmake python torch interfaces)
named=0
if (($# == 0)); then
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
else
  named=1
  mkdir -p "$1"
  work=$(cd "$1" && pwd)
  steps=("${@:2}")
fi
prefix="$work/moved tree"
log=$work/log.$$

install_and_move() {
  rm -rf "$work/installed" "$prefix"
  cmake --install "$build" --prefix "$work/installed" >"$work/install.log"
  lib=$(cd "$(dirname "$(find "$work/installed" -name libcurvd.so)")" && pwd)
  lib=$prefix${lib#"$work/installed"}
  mv "$work/installed" "$prefix"
  ! grep -rnE "$build|$root|$work|[\"; =]/(usr|opt|home)" "$lib/cmake" "$lib/pkgconfig" ||
    fail 'the lines above name places of the machine that has built it'
}

start_installed() {
  mkdir -p "$work/stand-ins"
  # shellcheck disable=SC2016 # the stand-in expands it
  printf '#!/bin/sh\nfor word; do echo "<$word>"; done\n' >"$work/stand-ins/srun"
  chmod +x "$work/stand-ins/srun"
  PATH=$work/stand-ins:$PATH CURVD_HOME=$prefix/share/curvd SLURM_JOB_ID=1 SLURM_JOB_NAME=job \
    bash "$prefix/share/curvd/launch/slurm/train.sbatch" --epochs 2 >"$log" 2>&1 || { cat "$log" && fail 'train.sbatch does not start'; }
  [[ $(<"$log") == *"<$prefix/bin/curvd>"*'<--epochs>'* ]] || { cat "$log" && fail 'train.sbatch starts something else'; }
}

check_symbols() {
  local renew="If this is meant, write tests/embed/run.sh --symbols BUILD >tests/embed/symbols.txt, and raise
CURVD_VERSION_MINOR (include/curvd.h) where a symbol that was released is gone or has another meaning."
  public "$lib/libcurvd.so" >"$work/symbols"
  diff -u "$here/symbols.txt" "$work/symbols" || fail "the library's public symbols (+) are not those of symbols.txt (-). $renew"
  # the headers are the reference of both
  grep -hE '^CURVD(_STATE)?_API ' "$prefix"/include/*.h | sed 's/(.*//; s/.*[ *]//' | LC_ALL=C sort >"$work/declared"
  diff -u "$work/declared" "$work/symbols" || fail 'the headers declare (-) other functions than the library has (+)'
  local version
  version=$(pkg-config --modversion curvd)
  [[ $(nm -D "$lib/libcurvd.so") == *" curvd_create@@curvd_${version%.*}"* ]] || fail "curvd_create has not the version curvd_${version%.*}"
  [[ $(readelf -d "$lib/libcurvd.so") == *"[libcurvd.so.${version%.*}]"* ]] || fail "the library's SONAME is not libcurvd.so.${version%.*}"
}

mpi_flags=(--oversubscribe --bind-to none --mca pml ob1 --mca btl 'self,vader')
run_ranks() { # run_ranks COMMAND...
  local ranks
  for ranks in 1 3; do
    logged mpirun -n "$ranks" "${mpi_flags[@]}" "$@"
  done
}

# The target is one that plain SGD does not reach in as many steps.
sgd_falls_short() {
  local lr
  for lr in 0.3 1 2 5 10; do
    ! "$work/train_c_shared" none "$lr" >"$log" 2>&1 || fail "plain SGD reaches the target, too, with learning rate $lr: it is no target"
    grep -q 'points are on their side' "$log" || { cat "$log" && fail 'train_c does not run by plain SGD'; }
  done
}

by_pkg_config() { # by_pkg_config STEP
  local row step name compiler file files link include
  local -a flags libs static_libs sources
  # as a Makefile has it: the shell takes away the backslashes before blanks
  eval "include=$(pkg-config --variable=includedir curvd) flags=($(pkg-config --cflags curvd)) libs=($(pkg-config --libs curvd)) static_libs=($(pkg-config --static --libs curvd))"
  mkdir -p "$work/by $1"
  cd "$work/by $1" # where Fortran's modules go
  for row in "${programs[@]}"; do
    IFS='|' read -r step name compiler files link <<<"$row"
    [[ $step == "$1" ]] || continue
    sources=()
    for file in $files; do
      [[ $file == @* ]] && sources+=("$include/${file#@}") || sources+=("$here/$file")
    done
    # shellcheck disable=SC2086 # words
    $compiler "${flags[@]}" "${sources[@]}" -x none "${libs[@]}" -Wl,-rpath,"$lib" $link -o "$work/${name}_shared"
    # shellcheck disable=SC2086
    $compiler "${flags[@]}" "${sources[@]}" -x none "${static_libs[@]/#-lcurvd/-l:libcurvd.a}" $link -o "$work/${name}_static"
    [[ $(ldd "$work/${name}_shared") == *"$lib/libcurvd.so"* ]] || fail "${name}_shared does not load the library from $lib"
    [[ $(ldd "$work/${name}_static") != *libcurvd* ]] || fail "${name}_static loads the shared library"
    run_ranks "$work/${name}_shared"
    run_ranks "$work/${name}_static"
    printf 'pkg-config: %s: ok\n' "$name"
  done
}

logged() { # logged COMMAND...: shows its words only when it fails
  "$@" >"$log" 2>&1 || { cat "$log" && fail "this failed: $*"; }
}

by_cmake() {
  local enabled folder
  for enabled in "${languages[@]}"; do
    if [[ $enabled == *Fortran* ]] && ! has_fortran; then
      skip "CMake, languages $enabled: no Fortran compiler (Debian: gfortran)"
      continue
    fi
    folder="$work/cmake ${enabled//;/ }"
    logged cmake -G Ninja -S "$here" -B "$folder" -DEMBED_LANGUAGES="$enabled" -DCMAKE_PREFIX_PATH="$prefix"
    logged cmake --build "$folder"
    logged ctest --test-dir "$folder" --output-on-failure --no-tests=error
    printf 'CMake, languages %s: %s\n' "$enabled" "$(grep -o '100% tests passed.*' "$log")"
  done
}

# check_module NAME COMMAND...: prints what a shell is to do for "module load curvd"
check_module() {
  local name=$1 set
  shift
  set=$(MODULEPATH=$prefix/share/modulefiles "$@" bash load curvd 2>"$log") || { cat "$log" && fail "$name does not load the module"; }
  (
    eval "$set"
    [[ $(command -v curvd) == "$prefix/bin/curvd" && ":$CMAKE_PREFIX_PATH:" == *":$prefix:"* ]] || fail "$name sets other paths: $set"
    [[ ":$PYTHONPATH:" == *":$prefix/share/curvd/python:"* ]] || fail "$name does not lead Python to curvd: $set"
    pkg-config --exists curvd || fail "$name does not lead pkg-config to curvd"
  )
  printf 'module load: %s: ok\n' "$name"
}

by_module() {
  local lmod=${LMOD_CMD:-/usr/share/lmod/lmod/libexec/lmod} modules
  modules=$(command -v modulecmd || ls /usr/lib/*/modulecmd.tcl 2>/dev/null || true)
  [[ ! -x $lmod ]] || LMOD_DIR=$(dirname "$lmod") check_module Lmod "$lmod"
  [[ -z $modules ]] || check_module 'Environment Modules' "$modules"
  [[ -x $lmod || -n $modules ]] || printf 'module load: SKIPPED: neither Lmod nor Environment Modules is installed\n'
}

has_fortran() {
  mpif90 --version >"$log" 2>&1
}

python_with() { # python_with MODULE...: sets python to one that has them
  local modules=$*
  for python in python3 /usr/bin/python3; do
    ! "$python" -c "import ${modules// /, }" >"$log" 2>&1 || return 0
  done
  return 1
}

by_python() { # by_python FILE MODULE...
  local file=$1 status=0
  shift
  python_with "$@" || { skip "no python3 imports ${*} (Debian: ${*/#/python3-})" && return; }
  export PYTHONPATH=$prefix/share/curvd/python PYTHONDONTWRITEBYTECODE=1
  unset CURVD_LIBRARY
  run_ranks "$python" -m mpi4py "$here/$file"
  printf '%s: ok\n' "$file"
}

# What a rank that fails alone does to the others; and a module that has lost its library.
try_python_failures() {
  local status=0
  timeout 60 mpirun -n 3 "${mpi_flags[@]}" "$python" -m mpi4py "$here/train.py" --leave >"$log" 2>&1 || status=$?
  ((status != 0 && status != 124)) || fail "a rank that fails in Python does not end the job (status $status)"
  grep -q 'FileNotFoundError: a file of rank 0' "$log" || { cat "$log" && fail 'the error of the rank that failed is not seen'; }
  mkdir -p "$work/alone"
  cp "$PYTHONPATH/curvd.py" "$work/alone"
  ! PYTHONPATH=$work/alone LD_LIBRARY_PATH='' "$python" -c 'import curvd' >"$log" 2>&1 || fail 'curvd.py was loaded without its library'
  grep -q 'ImportError.*Set CURVD_LIBRARY to its path' "$log" || { cat "$log" && fail 'what to do without a library is not said'; }
  PYTHONPATH=$work/alone CURVD_LIBRARY=$lib/libcurvd.so "$python" -c 'import curvd' || fail 'CURVD_LIBRARY is not obeyed'
}

check_interfaces() {
  has_fortran || { skip 'interfaces: no Fortran compiler (Debian: gfortran)' && return; }
  python_with numpy mpi4py || { skip 'interfaces: no python3 imports numpy and mpi4py (Debian: python3-numpy python3-mpi4py)' && return; }
  "$python" "$here/interfaces.py" "$prefix/include" "$prefix/share/curvd/python"
}

run_step() { # no && between functions: they would go on behind a command that fails
  case $1 in
    install)
      install_and_move
      "$prefix/bin/curvd" --version
      ;;
    module) by_module ;;
    launch) start_installed ;;
    symbols) check_symbols ;;
    c)
      by_pkg_config c
      sgd_falls_short
      ;;
    cpp) by_pkg_config cpp ;;
    fortran)
      if has_fortran; then
        by_pkg_config fortran
      else
        skip 'no Fortran compiler (Debian: gfortran)'
      fi
      ;;
    cmake) by_cmake ;;
    python)
      by_python train.py numpy mpi4py
      if ((!skipped)); then
        try_python_failures
      fi
      ;;
    torch) by_python train_torch.py numpy mpi4py torch ;;
    interfaces) check_interfaces ;;
    *) fail "there is no step '$1' (see tests/embed/run.sh --help)" ;;
  esac
}

for step in "${steps[@]}"; do
  if [[ $step != install ]]; then
    [[ -d $prefix ]] || fail "nothing is installed in $work: step install comes first"
    lib=$(dirname "$(find "$prefix" -name libcurvd.so)")
    export PKG_CONFIG_PATH="$lib/pkgconfig"
  fi
  run_step "$step"
done
((!named || !skipped)) || exit 77
