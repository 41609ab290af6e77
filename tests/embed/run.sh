#!/usr/bin/env bash
# The library as its users get it. usage: tests/embed/run.sh BUILD
# Installs the build folder BUILD, moves what was installed to another place, with a blank in its name, and builds and
# runs the programs of this folder against it: by CMake (CMakeLists.txt) and by pkg-config ($programs), each with the
# shared and with the static library, on 1 and 3 ranks. Compares the library's symbols with symbols.txt; loads the module
# files where Lmod or Environment Modules are there.
#        tests/embed/run.sh --symbols BUILD    prints what symbols.txt should hold
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)

# name | compiler and its words | file | words for the linker
programs=(
  "c|mpicc -std=c11 -Wall -Wextra -Werror|embed.c|-lm"
  "cpp|mpicxx -std=c++11 -Wall -Wextra -Werror -DOMPI_SKIP_MPICXX -x c++|embed.c|-lm"
)
# languages that projects of users enable
languages=("C" "CXX" "C;CXX")

fail() {
  printf 'embed: %s\n' "$1" >&2
  exit 1
}

# public LIBRARY: names of what it exports, without their versions
public() {
  nm -D --defined-only "$1" | awk '$2 != "A" { sub(/@.*/, "", $3); print $3 }' | LC_ALL=C sort
}

if [[ ${1-} == --symbols ]]; then
  public "${2?a build folder is missing}/libcurvd.so"
  exit
fi
build=$(cd "${1?a build folder is missing: tests/embed/run.sh BUILD}" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
prefix="$work/moved tree"

install_and_move() {
  cmake --install "$build" --prefix "$work/installed" >"$work/install.log"
  lib=$(cd "$(dirname "$(find "$work/installed" -name libcurvd.so)")" && pwd)
  lib=$prefix${lib#"$work/installed"}
  mv "$work/installed" "$prefix"
  ! grep -rnE "$build|$root|$work|[\"; =]/(usr|opt|home)" "$lib/cmake" "$lib/pkgconfig" ||
    fail 'the lines above name places of the machine that has built it'
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

run_ranks() { # run_ranks PROGRAM
  local ranks
  for ranks in 1 3; do
    mpirun -n "$ranks" --oversubscribe --bind-to none --mca pml ob1 --mca btl self,vader "$1" || fail "$1 failed on $ranks ranks"
  done
}

by_pkg_config() {
  local row name compiler file link
  local -a flags libs static_libs
  # as a Makefile has it: the shell takes away the backslashes before blanks
  eval "flags=($(pkg-config --cflags curvd)) libs=($(pkg-config --libs curvd)) static_libs=($(pkg-config --static --libs curvd))"
  for row in "${programs[@]}"; do
    IFS='|' read -r name compiler file link <<<"$row"
    # shellcheck disable=SC2086 # words
    $compiler "${flags[@]}" "$here/$file" -x none "${libs[@]}" -Wl,-rpath,"$lib" $link -o "$work/${name}_shared"
    # shellcheck disable=SC2086
    $compiler "${flags[@]}" "$here/$file" -x none "${static_libs[@]/#-lcurvd/-l:libcurvd.a}" $link -o "$work/${name}_static"
    [[ $(ldd "$work/${name}_shared") == *"$lib/libcurvd.so"* ]] || fail "${name}_shared does not load the library from $lib"
    [[ $(ldd "$work/${name}_static") != *libcurvd* ]] || fail "${name}_static loads the shared library"
    run_ranks "$work/${name}_shared"
    run_ranks "$work/${name}_static"
    printf 'pkg-config: %s: ok\n' "$name"
  done
}

logged() { # logged COMMAND...: shows its words only when it fails
  "$@" >"$work/log" 2>&1 || { cat "$work/log" && fail "this failed: $*"; }
}

by_cmake() {
  local enabled folder
  for enabled in "${languages[@]}"; do
    folder="$work/cmake ${enabled//;/ }"
    logged cmake -G Ninja -S "$here" -B "$folder" -DEMBED_LANGUAGES="$enabled" -DCMAKE_PREFIX_PATH="$prefix"
    logged cmake --build "$folder"
    logged ctest --test-dir "$folder" --output-on-failure --no-tests=error
    printf 'CMake, languages %s: %s\n' "$enabled" "$(grep -o '100% tests passed.*' "$work/log")"
  done
}

# check_module NAME COMMAND...: prints what a shell is to do for "module load curvd"
check_module() {
  local name=$1 set
  shift
  set=$(MODULEPATH=$prefix/share/modulefiles "$@" bash load curvd 2>"$work/log") || { cat "$work/log" && fail "$name does not load the module"; }
  (
    eval "$set"
    [[ $(command -v curvd) == "$prefix/bin/curvd" && ":$CMAKE_PREFIX_PATH:" == *":$prefix:"* ]] || fail "$name sets other paths: $set"
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

install_and_move
by_module
export PKG_CONFIG_PATH="$lib/pkgconfig"
check_symbols
by_pkg_config
by_cmake
"$prefix/bin/curvd" --version
