#!/usr/bin/env bash
# The directions of one run, started at three levels of thread support, are the same bits.
# usage: tests/mpi_levels.sh MPIRUN... PROGRAM
set -euo pipefail
first=
for level in multiple funneled single; do
  line=$("$@" "$level" hash)
  [[ $line =~ ^directions\ [0-9a-f]{16}$ ]] || { printf '%s: no hash: %s\n' "$level" "$line" && exit 1; }
  [[ $line == "${first:=$line}" ]] || { printf '%s: %s, not %s\n' "$level" "$line" "$first" && exit 1; }
done
printf '%s at every level\n' "$first"
