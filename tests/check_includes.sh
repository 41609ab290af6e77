#!/usr/bin/env bash
# Who may include and call what (src/ has six floors: base < product < comm, linalg, plan < curvature; net, save, page and train are the program, an embedder).
# usage: tests/check_includes.sh [ROOT]        prints FILE:LINE: RULE and exits 1, or one line when all is well
#        tests/check_includes.sh --self-test   breaks every rule once in a temporary tree and looks for each report
set -euo pipefail

# Drops comments and the insides of string and character constants, and keeps the lines; include lines stay as they are.
code_of() {
  awk '{
    if (!inside && $0 ~ /^[ \t]*#[ \t]*include/) { print; next }
    out = ""
    for (i = 1; i <= length($0); i++) {
      c = substr($0, i, 1); two = substr($0, i, 2)
      if (inside) { if (two == "*/") { inside = 0; i++ } }
      else if (quote != "") { if (c == "\\") i++; else if (c == quote) { quote = ""; out = out c } }
      else if (two == "/*") { inside = 1; i++; out = out " " }
      else if (two == "//") break
      else { if (c == "\"" || c == "\047") quote = c; out = out c }
    }
    quote = ""; print out
  }' "$1"
}

broken=0
report() { # report FILE LINE RULE
  printf '%s:%s: %s\n' "$1" "$2" "$3"
  broken=$((broken + 1))
}

# refuse FILE CODE PATTERN RULE: no line of CODE may match
refuse() {
  local line
  while IFS=: read -r line _; do
    report "$1" "$line" "$4"
  done < <(grep -nE "$3" <<<"$2" || true)
}

# allow FILE CODE PATTERN RULE: every quoted include must match
allow() {
  local line name
  while IFS=: read -r line name; do
    name=${name#*\"}
    name=${name%%\"*}
    [[ $name =~ ^($3)$ ]] || report "$1" "$line" "$4"
  done < <(grep -nE '^[[:space:]]*#[[:space:]]*include[[:space:]]*"' <<<"$2" || true)
}

include='^[[:space:]]*#[[:space:]]*include[[:space:]]*[<"]'
lapack_call='\b(p?[sdcz][a-z0-9]{3,8}_|cblas_[a-z0-9_]+|LAPACKE_[a-z0-9_]+)[[:space:]]*\('
leave_call='\b(exit|_exit|_Exit|quick_exit|abort|MPI_Abort)[[:space:]]*\('
print_call='\b(printf|vprintf|puts|putchar|perror)[[:space:]]*\(|\b(stdout|stderr)\b'

check_folder_includes() { # FILE CODE FOLDER
  case $3 in
    base) allow "$1" "$2" 'base/.*|curvd_(status|state)\.h' 'src/base includes only base/, curvd_status.h and curvd_state.h' ;;
    product) allow "$1" "$2" '(base|product)/.*' 'src/product includes only base/ and product/' ;;
    comm) allow "$1" "$2" '(base|comm)/.*|product/bf16\.h|curvd_status\.h' 'src/comm includes only base/, comm/, product/bf16.h and curvd_status.h' ;;
    linalg)
      if [[ $1 == *_dist.c ]]; then
        allow "$1" "$2" '(base|product|linalg)/.*|curvd_status\.h|comm/grid\.h' \
          'src/linalg/*_dist.c includes only base/, product/, linalg/, comm/grid.h and curvd_status.h'
      else
        allow "$1" "$2" '(base|product|linalg)/.*|curvd_status\.h' 'src/linalg includes only base/, product/, linalg/ and curvd_status.h'
      fi
      ;;
    plan) allow "$1" "$2" 'base/.*|plan/.*|curvd_status\.h' 'src/plan includes only base/, plan/ and curvd_status.h' ;;
    curvature)
      allow "$1" "$2" '(base|product|comm|linalg|plan|curvature)/.*|curvd(_status|_state|_experimental)?\.h' \
        'src/curvature includes only base/, product/, comm/, linalg/, plan/, curvature/ and include/'
      ;;
    net)
      allow "$1" "$2" '(base|product|net)/.*|curvd_status\.h' 'src/net includes only base/, product/, net/ and curvd_status.h'
      refuse "$1" "$2" "$include(mpi|yaml|jansson|zlib)\.h" 'src/net knows no MPI and no files'
      ;;
    save)
      allow "$1" "$2" '(base|save)/.*|curvd_(status|state)\.h' 'src/save includes only base/, save/, curvd_status.h and curvd_state.h'
      refuse "$1" "$2" "$include(mpi|yaml)\.h" 'src/save knows no MPI and no YAML'
      ;;
    page)
      allow "$1" "$2" '(base|page)/.*|curvd(_status)?\.h' 'src/page includes only base/, page/, curvd.h and curvd_status.h'
      refuse "$1" "$2" "$include(mpi|yaml)\.h" 'src/page knows no MPI and no YAML'
      ;;
    train)
      allow "$1" "$2" '(base|product|net|save|page|train)/.*|curvd(_status|_state|_experimental)?\.h' \
        'src/train includes only base/, product/, net/, save/, page/, train/ and include/'
      ;;
    *) report "$1" 1 'src/ has the folders base, product, comm, linalg, plan, curvature, net, save, page and train' ;;
  esac
}

check_library() { # FILE CODE FOLDER
  refuse "$1" "$2" "$include(yaml|jansson|zlib)\.h" 'only the program reads files and writes JSON'
  refuse "$1" "$2" "$leave_call" 'the library never exits or aborts'
  refuse "$1" "$2" "$print_call" 'the library never prints'
  refuse "$1" "$2" '\bMPI_(Init|Init_thread|Finalize)[[:space:]]*\(' 'the library never initialises or finalises MPI'
  if [[ $3 != comm ]]; then
    refuse "$1" "$2" "${include}mpi\.h" 'only src/comm includes mpi.h'
    refuse "$1" "$2" '\bMPI_[A-Z][A-Za-z_]*[[:space:]]*\(' 'only src/comm calls MPI'
    refuse "$1" "$2" '\b(C?blacs_[a-z0-9_]+|Csys2blacs[a-z_]*)[[:space:]]*\(' 'only src/comm calls BLACS'
  fi
  if [[ $3 != linalg && $3 != product ]]; then
    refuse "$1" "$2" "$include(cblas|lapack|lapacke)\.h" 'only src/linalg and src/product include cblas.h or lapack.h'
    refuse "$1" "$2" "$lapack_call" 'only src/linalg and src/product call BLAS, LAPACK and ScaLAPACK'
  fi
}

check_tree() { # ROOT
  local file code folder n=0
  cd "$1"
  while read -r file; do
    n=$((n + 1))
    code=$(code_of "$file")
    folder=${file#src/}
    folder=${folder%%/*}
    check_folder_includes "$file" "$code" "$folder"
    [[ $folder == train || $folder == net || $folder == save || $folder == page ]] || check_library "$file" "$code" "$folder"
  done < <(find src -name '*.[ch]' | sort)
  ((n > 0)) || report src 1 'no source files found'
  ((broken == 0)) || return 1
  printf 'includes and calls: %d files keep the rules\n' "$n"
}

# path | a line that breaks a rule | words of the report
violations() {
  cat <<'TEXT'
src/base/a.c|#include "comm/comm.h"|src/base includes only
src/base/b.h|#include "curvd.h"|src/base includes only
src/base/c.c|#include <mpi.h>|only src/comm includes mpi.h
src/base/d.c|  # include <cblas.h>|only src/linalg and src/product include cblas.h
src/base/e.c|#include <yaml.h>|only the program reads files
src/base/f.c|if (x) exit(1);|never exits
src/base/g.c|abort ();|never exits
src/base/h.c|/* a */ printf("x");|never prints
src/base/i.c|return "/*", puts(x);|never prints
src/base/j.c|fprintf(stderr, "x");|never prints
src/product/a.c|#include "linalg/dense.h"|src/product includes only
src/comm/a.c|#include "product/gemm.h"|src/comm includes only
src/comm/b.c|#include "curvd.h"|src/comm includes only
src/comm/c.c|MPI_Abort(comm, 1);|never exits
src/comm/d.c|MPI_Init_thread(NULL, NULL, 0, &p);|never initialises
src/comm/e.c|cblas_sscal(1, 2.0f, x, 1);|only src/linalg and src/product call BLAS
src/linalg/a.c|#include "comm/grid.h"|src/linalg includes only
src/linalg/b_dist.c|#include "comm/coll.h"|src/linalg/*_dist.c includes only
src/linalg/c.c|#include "curvature/step.h"|src/linalg includes only
src/linalg/d_dist.c|#include <mpi.h>|only src/comm includes mpi.h
src/linalg/e_dist.c|Cblacs_gridinit(&i, "R", 1, 1);|only src/comm calls BLACS
src/curvature/a.c|#include "net/model.h"|src/curvature includes only
src/curvature/b.c|#include <mpi.h>|only src/comm includes mpi.h
src/curvature/c.c|MPI_Allreduce(a, b, 1, t, o, c);|only src/comm calls MPI
src/curvature/d.c|ssyevd_("V", "L", &n, a, &n);|only src/linalg and src/product call BLAS
src/curvature/e.c|pssyevd_("V", "L", &n, a);|only src/linalg and src/product call BLAS
src/plan/a.c|#include "comm/coll.h"|src/plan includes only
src/plan/b.h|#include "linalg/lrps.h"|src/plan includes only
src/plan/c.c|#include "curvature/settings.h"|src/plan includes only
src/plan/d.c|MPI_Wtime();|only src/comm calls MPI
src/net/a.c|#include "train/config.h"|src/net includes only
src/net/b.c|#include "curvd.h"|src/net includes only
src/net/c.c|#include <mpi.h>|src/net knows no MPI
src/save/a.c|#include "train/config.h"|src/save includes only
src/save/b.c|#include "curvd.h"|src/save includes only
src/save/c.c|#include <mpi.h>|src/save knows no MPI
src/page/a.c|#include "train/config.h"|src/page includes only
src/page/b.c|#include "curvd_state.h"|src/page includes only
src/page/c.c|#include <mpi.h>|src/page knows no MPI
src/train/a.c|#include "curvature/step.h"|src/train includes only
src/train/b.c|#include "comm/comm.h"|src/train includes only
src/other/a.c|int x;|src/ has the folders
TEXT
}

# Nothing in here breaks a rule.
write_clean_tree() { # ROOT
  mkdir -p "$1"/src/{base,product,comm,linalg,plan,curvature,net,save,page,train,other}
  cat >"$1/src/base/clean.c" <<'TEXT'
#include "base/status.h" /* not "comm/comm.h" */
#include "curvd_status.h"
#include <stdio.h>
/* exit(1), abort(), printf("x"),
 * MPI_Abort(comm, 1) and cblas_sgemm() are for others */
void say(FILE *to, int n) __attribute__((format(printf, 1, 2))); // puts("x")
void f(void) { snprintf(t, 9, "exit(1) \" puts("); fprintf(to, "/*"); on_exit_of(x); }
TEXT
  printf '#include "base/status.h"\n#include "comm/comm.h"\n#include "product/bf16.h"\n#include <mpi.h>\nMPI_Send(a);\nCblacs_exit(1);\n' >"$1/src/comm/clean.c"
  printf '#include "comm/grid.h"\n#include "linalg/eig.h"\n#include <cblas.h>\npssyevd_(a);\n' >"$1/src/linalg/clean_dist.c"
  printf '#include "curvd.h"\n#include "linalg/eig.h"\nMPI_Comm c = MPI_COMM_NULL;\n' >"$1/src/curvature/clean.c"
  printf '#include "base/status.h"\n#include "plan/model.h"\n' >"$1/src/plan/clean.c"
  printf '#include "base/rng.h"\n#include "net/nn.h"\n#include <cblas.h>\ncblas_sgemm(a);\n' >"$1/src/net/clean.c"
  printf '#include "curvd.h"\n#include "net/nn.h"\n#include <jansson.h>\n#include <mpi.h>\nint main(void) { MPI_Finalize(); printf("x"); exit(1); }\n' >"$1/src/train/clean.c"
}

self_test() {
  local tree path text words status=0 output n=0
  tree=$(mktemp -d)
  # shellcheck disable=SC2064 # the folder's name as it is now
  trap "rm -rf '$tree'" EXIT
  write_clean_tree "$tree"
  output=$("$0" "$tree") || { printf 'self-test: rules that nothing breaks are reported:\n%s\n' "$output" && return 1; }
  while IFS='|' read -r path text words; do
    n=$((n + 1))
    printf '/* line 1 */\n%s\n' "$text" >"$tree/$path"
  done < <(violations)
  ! output=$("$0" "$tree") || { printf 'self-test: no failure on a tree with %d violations\n' "$n" && return 1; }
  while IFS='|' read -r path text words; do
    grep -E "^$path:[12]: " <<<"$output" | grep -qF "$words" || {
      printf 'self-test: not reported: %s: %s (%s)\n' "$path" "$text" "$words"
      status=1
    }
  done < <(violations)
  if (($(wc -l <<<"$output") != n)); then
    printf 'self-test: %d violations gave these reports:\n%s\n' "$n" "$output"
    status=1
  fi
  rm -rf "$tree"/src/*
  ! "$0" "$tree" >/dev/null || { printf 'self-test: an empty tree passes\n' && return 1; }
  ((status)) || printf 'self-test: %d violations, %d reports, none without one\n' "$n" "$n"
  return "$status"
}

if [[ ${1-} == --self-test ]]; then
  self_test
else
  check_tree "${1-$(dirname "$0")/..}"
fi
