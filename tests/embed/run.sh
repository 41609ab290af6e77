#!/usr/bin/env bash
# Installs the build in $1 into a temporary prefix and builds tests/embed/embed.c against it as a user would: C and C++, shared and
# static library, 1 and 3 ranks.
set -euo pipefail
build=$1
here=$(cd "$(dirname "$0")" && pwd)
prefix=$(mktemp -d)
trap 'rm -rf "$prefix"' EXIT

cmake --install "$build" --prefix "$prefix" >"$prefix/install.log"
lib=$(dirname "$(find "$prefix" -name libcurvd.so)")
flags=(-Wall -Wextra -Werror -DOMPI_SKIP_MPICXX -I"$prefix/include")
scalapack=$(sed -n 's/^SCALAPACK_LIBRARY:FILEPATH=//p' "$build/CMakeCache.txt")
read -r -a blas < <(pkg-config --libs openblas)

mpicc -std=c11 "${flags[@]}" "$here/embed.c" -L"$lib" -lcurvd -Wl,-rpath,"$lib" -lm -o "$prefix/c_shared"
mpicc -std=c11 "${flags[@]}" "$here/embed.c" "$lib/libcurvd.a" "$scalapack" "${blas[@]}" -lm -o "$prefix/c_static"
mpicxx -x c++ -std=c++11 "${flags[@]}" "$here/embed.c" -x none -L"$lib" -lcurvd -Wl,-rpath,"$lib" -lm -o "$prefix/cpp_shared"

# only the public functions leave the shared library
if nm -D --defined-only "$lib/libcurvd.so" | awk '{print $3}' | grep -v '^curvd_'; then
  echo "the symbols above are not public" >&2
  exit 1
fi

for program in c_shared c_static cpp_shared; do
  "$prefix/$program"
  mpirun -n 3 --oversubscribe --bind-to none --mca pml ob1 --mca btl self,vader "$prefix/$program"
  echo "$program: ok"
done
"$prefix/bin/curvd" --version
