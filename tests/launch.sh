#!/usr/bin/env bash
# The scripts of launch/ with stand-ins for what they start: nothing is installed, built or trained.
set -euo pipefail

unset OMPI_MCA_mca_base_param_files
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
bin=$work/bin
# a copy, so that nothing is written into or removed from this tree's own build folders
root=$work/tree
mkdir -p "$root/src/base" "$root/build-coverage"
cp -R "$(dirname "$0")"/../{launch,docker,.ci,include,tests} "$root"
touch "$root/src/base/array.c"
n=0

fail() {
  printf 'launch: %s\n' "$1" >&2
  exit 1
}

stand_in() { # stand_in NAME: its body comes from stdin
  rm -f "$bin/$1" # may be a link to the machine's own tool
  { printf '#!/bin/sh\n' && cat; } >"$bin/$1"
  chmod +x "$bin/$1"
}

# expect STATUS TEXT COMMAND...: the command, with only the stand-ins and $tools on its path, ends so and says so
expect() {
  local status=0 wanted=$1 text=$2 output
  shift 2
  output=$(cd "$work" && PATH=$bin "$@" 2>&1 </dev/null) || status=$?
  n=$((n + 1))
  [[ $status == "$wanted" ]] || fail "$* ended with $status, not $wanted: $output"
  [[ $output == *"$text"* ]] || fail "$* did not say '$text' but: $output"
}

tools=(bash cat cp chmod dirname env find grep head mkdir mktemp mv paste realpath rm sed sh sort tail tr wc xargs)
reset_bin() {
  local tool
  rm -rf "$bin"
  mkdir "$bin"
  for tool in "${tools[@]}"; do ln -s "$(type -P "$tool")" "$bin/$tool"; done
  stand_in nproc <<'TEXT'
echo "${OMP_NUM_THREADS-8}"
TEXT
  stand_in apt-get <<<"echo \"apt-get \$*\" >>'$work/apt'; echo noise"
  # three packages are not there: one unknown, one removed, one that tests alone need
  stand_in dpkg-query <<'TEXT'
for package; do
  case $package in
    -*) ;;
    check | iproute2) status=1 ;;
    gcc) echo "config-files $package" ;;
    *) echo "installed $package" ;;
  esac
done
exit ${status-0}
TEXT
  stand_in cmake <<<"echo \"cmake \$*\" >>'$work/cmake'"
  stand_in mpirun <<'TEXT'
[ "$1" != --version ] || { echo "mpirun (Open MPI) 4.1.4"; exit; }
echo "threads $OPENBLAS_NUM_THREADS $OMP_NUM_THREADS in $PWD"
echo "settings $OMPI_MCA_mca_base_param_files"
for word; do echo "<$word>"; done
exit 7
TEXT
  stand_in ctest <<<'echo "ctest $*"; echo "100% tests passed, 0 tests failed out of 3"'
  # in place of a fuzzer: says how often it ran
  stand_in timeout <<'TEXT'
echo "stat::number_of_executed_units: 1234"
echo "stat::average_exec_per_sec:     56"
TEXT
  stand_in clang-tidy <<<'exit 0'
  stand_in gcovr <<<'echo "gcovr $*"'
}

all_installed() {
  stand_in dpkg-query <<'TEXT'
shift 2
for package; do echo "installed $package"; done
TEXT
}

bash_files=(launch/run launch/batch launch/hosts launch/test launch/fuzz launch/coverage launch/lint launch/setup.sh launch/mpi.sh
  launch/slurm/{job.sh,agent,train.sbatch,hetero.sbatch,sweep.sbatch} launch/packages/build-deb docker/build-daemonless
  docker/node .ci/run tests/check_includes.sh tests/launch.sh)
for script in "${bash_files[@]}"; do
  bash -n "$root/$script" || fail "$script is not bash"
done
for script in launch/run launch/batch launch/hosts launch/test launch/fuzz launch/coverage launch/lint launch/packages/build-deb \
  docker/build-daemonless docker/node .ci/run; do
  [[ -x $root/$script ]] || fail "$script is not executable"
done

# what Open MPI itself makes of the settings: no word of them may be unknown to it
if command -v ompi_info >/dev/null; then
  known=$(OMPI_MCA_mca_base_param_files=$root/launch/openmpi.conf ompi_info --all --level 9 --parsable)
  while read -r name _ value; do
    [[ $known == *":param:$name:value:$value"$'\n'* ]] || fail "openmpi.conf: Open MPI does not take $name = $value"
    [[ $known == *":param:$name:source:file ($root/launch/openmpi.conf:"* ]] || fail "openmpi.conf: $name comes from elsewhere"
    n=$((n + 1))
  done < <(grep -E '^[a-z]' "$root/launch/openmpi.conf")
fi

# arguments
reset_bin
expect 0 'usage: launch/run' "$root/launch/run" --help
expect 0 'usage: launch/test' "$root/launch/test" --help
expect 0 'usage: launch/fuzz' "$root/launch/fuzz" --help
expect 0 'usage: launch/coverage' "$root/launch/coverage" --help
expect 0 'usage: launch/lint' "$root/launch/lint" --help
expect 0 'usage: launch/packages/build-deb' "$root/launch/packages/build-deb" --help
expect 0 'usage: launch/batch' "$root/launch/batch" --help
expect 0 'usage: docker/build-daemonless' "$root/docker/build-daemonless" --help
expect 2 "unknown argument '--steps'" "$root/launch/batch" --steps 3
expect 2 '--output needs a path' "$root/docker/build-daemonless" --output
expect 2 "unknown argument 'curvd'" "$root/docker/build-daemonless" curvd
expect 2 "unknown argument '--all'" "$root/launch/fuzz" --all
expect 2 "unknown argument 'debs'" "$root/launch/packages/build-deb" debs
expect 2 '--output needs a folder' "$root/launch/packages/build-deb" --output
expect 2 'is no git repository' "$root/launch/packages/build-deb" --dry-run
expect 2 "no harness 'main': there are checkpoint cifar" "$root/launch/fuzz" main
expect 2 "--seconds needs a number from 1, not '1h'" "$root/launch/fuzz" --seconds 1h
expect 2 "unknown argument 'quick'" "$root/launch/coverage" quick
expect 2 "--ranks needs a count from 1, not '0'" "$root/launch/coverage" --ranks 0
expect 2 "unknown argument '--fix'" "$root/launch/lint" --fix
expect 2 "unknown argument '--lr'" "$root/launch/run" --lr 1
expect 2 "--ranks needs a count from 1, not '0'" "$root/launch/run" --ranks 0
expect 2 "--ranks needs a count from 1, not ''" "$root/launch/run" --ranks
expect 2 "unknown argument 'quick'" "$root/launch/test" quick
expect 2 'leave nothing to run' "$root/launch/test" --quick --sanitize-only

# what would be done
expect 0 'apt-get install -y --no-install-recommends gcc check -o' "$root/launch/run" --dry-run
expect 0 'apt-get install -y --no-install-recommends gcc check iproute2 -o' "$root/launch/test" --dry-run
expect 0 '--pull-always' "$root/docker/build-daemonless" --dry-run
expect 0 '--pull-never --build-arg BASE=localhost/bookworm-slim' "$root/docker/build-daemonless" --dry-run --bootstrap
job="env CURVD_HOME=$root CURVD_PROGRAM=$root/build/curvd \
sbatch --wait -N 2 -n 4 -o $work/curvd-batch.out $root/launch/slurm/train.sbatch --curvature-ranks 1"
expect 0 "$root/tests/cluster/slurm.py 2 -- $job --lr 1" "$root/launch/batch" --dry-run -- --lr 1
stand_in sinfo <<<'exit 1' # a SLURM that does not answer
expect 0 "$root/tests/cluster/slurm.py 2 -- $job" "$root/launch/batch" --dry-run
stand_in sinfo <<<'exit 0'
expect 0 $'\n'"${job/build/build-batch}" "$root/launch/batch" --dry-run
expect 0 "-B $root/build-batch -DCMAKE_BUILD_TYPE=Release -DCURVD_NATIVE=OFF" "$root/launch/batch" --dry-run
expect 0 " CURVD_PROGRAM=/mine/curvd sbatch" env CURVD_PROGRAM=/mine/curvd "$root/launch/batch" --dry-run
rm "$bin/sinfo"
expect 0 "mpirun -n 8 --oversubscribe" "$root/launch/run" --dry-run
expect 0 "OMPI_MCA_mca_base_param_files=$root/launch/openmpi.conf" "$root/launch/run" --dry-run
mkdir -p "$work/etc" "$work/home/.openmpi"
touch "$work/etc/openmpi-mca-params.conf" "$work/home/.openmpi/mca-params.conf"
stand_in ompi_info <<<"echo 'path:sysconfdir:$work/etc'"
expect 0 "openmpi.conf\,$work/home/.openmpi/mca-params.conf\,$work/etc/openmpi-mca-params.conf" env "HOME=$work/home" \
  "$root/launch/run" --dry-run
rm "$bin/ompi_info"
expect 0 "mpirun -n 8 " env OMP_NUM_THREADS=3 "$root/launch/run" --dry-run
expect 0 'mpirun -n 3 ' "$root/launch/run" --dry-run --ranks 3
expect 0 'train --curvature-ranks 1 --lr 1e-3\ x' "$root/launch/run" --dry-run -- --lr '1e-3 x'
expect 0 'train --curvature-ranks 0' "$root/launch/run" --ranks 1 --dry-run
expect 0 'train --method sgd' "$root/launch/run" --dry-run -- --method sgd
expect 0 'train --epochs 2 --method=adamw' "$root/launch/run" --dry-run -- --epochs 2 --method=adamw
expect 0 'train --config run.yaml' "$root/launch/run" --dry-run -- --config run.yaml
expect 0 'train --curvature-ranks 2' "$root/launch/run" --dry-run -- --curvature-ranks 2
expect 0 'train --curvature-ranks 1 --method kfac --sgd-momentum 0' \
  "$root/launch/run" --dry-run -- --method kfac --sgd-momentum 0
expect 0 'build-asan --output-on-failure' "$root/launch/test" --dry-run
expect 0 'fuzz_npy -max_total_time=3 ' "$root/launch/test" --dry-run
expect 0 'fuzz_idx -max_total_time=3600 ' "$root/launch/fuzz" --dry-run --seconds 3600 npy idx
expect 0 '-DCURVD_RANKS_MAX=2 ' "$root/launch/coverage" --dry-run --ranks 2
expect 0 '--fail-under-line 90 ' "$root/launch/coverage" --dry-run
expect 0 "clang-tidy --quiet -p $root/build-lint $root/src/base/array.c" "$root/launch/lint" --dry-run
stand_in git <<'TEXT'
case $3 in status) echo " M README.md" ;; *) echo .git ;; esac
TEXT
expect 0 'dpkg-buildpackage -us -uc' "$root/launch/packages/build-deb" --dry-run
expect 0 'changes that are not committed are left out' "$root/launch/packages/build-deb" --dry-run
sed -i 's/^\(#define CURVD_VERSION_MINOR\) .*/\1 99/' "$root/include/curvd.h"
expect 1 'curvd.h has version 0.99.0, launch/packages/debian/changelog 0.1.0: write an entry there' "$root/launch/packages/build-deb" --dry-run
[[ ! -e $work/apt && ! -e $work/cmake ]] || fail '--dry-run started something'
stand_in nproc <<<'echo 1'
expect 0 'mpirun -n 2 ' "$root/launch/run" --dry-run

# installing: as root it is done, else the line to type is shown
reset_bin
if ((EUID == 0)); then
  expect 7 'installing gcc check ...' "$root/launch/run"
  grep -qx 'apt-get .* update' "$work/apt" || fail 'no apt-get update'
  grep -q '^apt-get install -y .* gcc check ' "$work/apt" || fail 'no apt-get install'
  stand_in apt-get <<<'echo "E: no network"; exit 100'
  expect 1 'E: no network' "$root/launch/run"
else
  expect 2 'sudo apt-get update && sudo apt-get install -y --no-install-recommends gcc check' "$root/launch/run"
  [[ ! -e $work/apt ]] || fail 'apt-get started without being root'
fi

# all installed: nothing is fetched; the program's words and exit status come through, from the user's folder
reset_bin
rm -f "$work/apt" "$work/cmake"
all_installed
expect 7 $'<train>\n<--curvature-ranks>\n<1>\n<--lr>\n<1e-3 x>\n<>' "$root/launch/run" -- --lr '1e-3 x' ''
expect 7 "threads 1 1 in $work" "$root/launch/run"
expect 7 "settings $root/launch/openmpi.conf" "$root/launch/run"
[[ ! -e $work/apt ]] || fail 'apt-get started although nothing is missing'
grep -q -- "-B $root/build -DCMAKE_BUILD_TYPE=Release" "$work/cmake" || fail 'not configured in Release'
expect 0 '100% tests passed, 0 tests failed out of 3' "$root/.ci/run"
expect 0 'npy: 1234 runs, 56 a second, nothing found' "$root/.ci/run"
grep -q -- "-B $root/build-asan .*-DCURVD_SANITIZE=address,undefined" "$work/cmake" || fail '.ci/run left the sanitizers out'
grep -q -- "-B $root/build-fuzz .*-DCURVD_FUZZ=ON" "$work/cmake" || fail '.ci/run left fuzzing out'
expect 0 'nothing found in 1 files' "$root/launch/lint" "$root/src/base/array.c"

# what is found makes them fail, and does not keep the other harnesses from running
stand_in clang-tidy <<<'echo "a.c:1: error: x"; exit 1'
expect 1 'a.c:1: error: x' "$root/launch/lint" "$root/src/base/array.c"
stand_in gcovr <<<'echo "lines: 89.9%"; exit 2'
expect 2 'lines: 89.9%' "$root/launch/coverage"
stand_in timeout <<'TEXT'
echo "stat::number_of_executed_units: 9"
case $2 in *_idx) echo 'fuzz: not so: two and two is five' && exit 77 ;; esac
TEXT
expect 1 'idx: 9 runs, ' "$root/launch/fuzz" idx npy
expect 1 'not so: two and two is five' "$root/launch/fuzz" idx npy
expect 1 'npy: 9 runs, ' "$root/launch/fuzz" idx npy
expect 0 'nothing found' "$root/launch/fuzz" npy
stand_in ctest <<<'echo "1 tests failed"; exit 8'
expect 8 '1 tests failed' "$root/.ci/run"
stand_in cmake <<<'echo "error: x.c:1"; exit 1'
expect 1 'error: x.c:1' "$root/launch/run"
expect 1 'configuring build failed: cmake -G Ninja' "$root/launch/test"

# a batch job of the first kind, whose code comes through; a signal reaches the command that waits for it
tools+=(sleep)
reset_bin
all_installed
stand_in sinfo <<<'exit 0'
stand_in sbatch <<'TEXT'
case "$*" in *slow*) ;; *) echo "by $CURVD_PROGRAM"; exit 85 ;; esac
trap 'echo "sbatch was told"; exit 99' TERM
echo began
n=0
while [ $((n += 1)) -lt 200 ]; do sleep 0.1; done
TEXT
expect 85 "by $root/build-batch/curvd" "$root/launch/batch"
# SIGINT is ignored in what runs in the background, unless it is set back
cat >"$work/tell" <<'TEXT'
: >said
env --default-signal=INT "$2" -- slow >>said 2>&1 &
job=$!
until grep -q began said; do sleep 0.1; done
kill -"$1" "$job"
code=0
wait "$job" || code=$?
cat said
exit "$code"
TEXT
for signal in INT TERM; do expect 99 'sbatch was told' bash "$work/tell" "$signal" "$root/launch/batch"; done
expect 129 'job ended with exit code 129' bash "$work/tell" HUP "$root/launch/batch"

# packages land in a folder that is named from where the user stands
reset_bin
all_installed
sed -i 's/^\(#define CURVD_VERSION_MINOR\) .*/\1 1/' "$root/include/curvd.h"
stand_in git <<<'exit 0'
stand_in tar <<'TEXT'
tests=$4/curvd-0.1.0/launch/packages/debian/tests
mkdir -p "$tests"
for name in train embed; do printf '#!/bin/sh\n' >"$tests/$name"; chmod +x "$tests/$name"; done
TEXT
stand_in dpkg-buildpackage <<<': >../curvd_0.1.0-1_all.changes; : >../curvd_0.1.0-1_all.deb'
stand_in dpkg <<<'exit 0'
stand_in lintian <<<'exit 0'
expect 0 "in $work/debs:
curvd_0.1.0-1_all.deb 0 KiB" "$root/launch/packages/build-deb" --output debs

# an image is written where there is none, no folder even, and again
stand_in buildah <<'TEXT'
case "$*" in
  *' from '*) echo working-container ;;
  *' push '*)
    for word; do :; done
    file=${word#docker-archive:}
    file=${file%:curvd:latest}
    [ ! -e "$file" ] || { echo "docker-archive doesn't support modifying existing images"; exit 125; }
    echo "$#" >"$file" ;;
esac
case "$*" in *--name*) echo "that name is already in use"; exit 125 ;; esac
TEXT
stand_in debootstrap <<<'exit 0'
if ((EUID == 0)); then
  for more in '' --bootstrap; do
    expect 0 "writing $work/new/image.tar" "$root/docker/build-daemonless" --output new/image.tar ${more:+"$more"}
    [[ -s $work/new/image.tar && ! -e $work/new/image.tar.new ]] || fail 'docker/build-daemonless wrote no image'
    printf 'half an image' >"$work/new/image.tar.new"
  done
fi

# nodes of a container: a first start that was interrupted keeps nobody waiting, and all take the keys of the first
sed -i "s,/usr/sbin/sshd,$bin/sshd," "$root/docker/node"
tools+=(install)
reset_bin
stand_in sshd <<'TEXT'
read -r key <"$HOME/.ssh/id_ed25519"
echo "sshd: $key"
TEXT
stand_in ssh-keygen <<'TEXT'
while [ "$1" != -f ]; do shift; done
make() { echo "key of $who" >"$1" && echo "public key of $who" >"$1.pub"; }
make "$2"
case $2 in
  */host) ;;
  *)
    [ "$who" != interrupted ] || exit 143
    [ "$who" != second ] || { mkdir "$KEYS/made"; who=first; make "$KEYS/made/user"; make "$KEYS/made/host"; } ;;
esac
TEXT
node() { # node STATUS TEXT WHO: as the node of that name, in a container that is new
  rm -rf "${work:?}/home"
  expect "$1" "$2" "$(type -P timeout)" 10 env "HOME=$work/home" "KEYS=$work/$keys" "who=$3" "$root/docker/node"
}
keys=keys
node 143 '' interrupted
node 0 'sshd: key of one' one
node 0 'sshd: key of one' two
keys="keys of two"
node 0 'sshd: key of first' second
[[ -z $(find "$work/$keys" -name 'making*') ]] || fail 'docker/node left keys behind that nobody uses'

# batch scripts, in what they take for a job
tools+=(printf)
reset_bin
for script in train hetero sweep; do
  expect 0 "launch/slurm/$script.sbatch " "$root/launch/slurm/$script.sbatch" --help
  expect 2 'this is no job of SLURM' "$root/launch/slurm/$script.sbatch" --epochs 3
done
job=(env "CURVD_HOME=$root" SLURM_JOB_ID=12 SLURM_JOB_NAME=name SLURM_NTASKS=4 SLURM_CPUS_PER_TASK=2)
expect 2 "no program $root/build/curvd on" "${job[@]}" bash "$root/launch/slurm/train.sbatch"
expect 2 'type sbatch in the clone of curvd, or export CURVD_HOME=' "${job[@]}" "CURVD_HOME=$work" \
  bash "$root/launch/slurm/train.sbatch"
mkdir -p "$root/build"
stand_in srun <<'TEXT'
echo "threads $OPENBLAS_NUM_THREADS $OMP_NUM_THREADS by $SLURM_MPI_TYPE $SLURM_PMIX_FENCE"
for word; do echo "<$word>"; done
exit ${status-7}
TEXT
cp "$bin/srun" "$root/build/curvd"
stand_in scontrol <<'TEXT'
case $1 in
  show) [ "$3" = 'n[1-3]' ] && printf '%s\n' n1 n2 n3 || echo "$3" ;;
  *) echo "scontrol $*" ;;
esac
TEXT
train=(bash "$root/launch/slurm/train.sbatch")
expect 2 "CURVD_LAUNCHER is srun or mpirun, not 'mpiexec'" "${job[@]}" CURVD_LAUNCHER=mpiexec "${train[@]}"
expect 7 $'threads 2 2 by pmix ring\n<--cpus-per-task=2>\n' "${job[@]}" "${train[@]}"
expect 7 $'<runs/name-12>\n<--resume>\n<auto>\n<--lr>\n<1e-3 x>\n<>' "${job[@]}" "${train[@]}" --lr '1e-3 x' ''
expect 7 'by none' "${job[@]}" SLURM_MPI_TYPE=none "${train[@]}"
expect 7 'mpirun -n 4 --map-by slot:PE=2 --bind-to core' "${job[@]}" CURVD_LAUNCHER=mpirun "${train[@]}"
parts=("${job[@]}" SLURM_HET_SIZE=2 'SLURM_JOB_NODELIST_HET_GROUP_0=n[1-3]' 'SLURM_TASKS_PER_NODE_HET_GROUP_0=2(x2),1'
  SLURM_NTASKS_HET_GROUP_0=5 SLURM_JOB_NODELIST_HET_GROUP_1=a7 SLURM_TASKS_PER_NODE_HET_GROUP_1=4 SLURM_NTASKS_HET_GROUP_1=4)
expect 7 $'<--host>\n<n1:2,n2:2,n3:1,a7:4>\n<-n>\n<9>\n' "${parts[@]}" bash "$root/launch/slurm/hetero.sbatch"
expect 7 $'<--curvature-ranks>\n<4>\n' "${parts[@]}" bash "$root/launch/slurm/hetero.sbatch"
expect 2 'a heterogeneous job is started by mpirun' "${parts[@]}" CURVD_LAUNCHER=srun bash "$root/launch/slurm/hetero.sbatch"
expect 7 $'<--het-group=0>\n' "${parts[@]}" "$root/launch/slurm/agent" -x n2 orted 'a b'
expect 7 $'<--het-group=1>\n' "${parts[@]}" "$root/launch/slurm/agent" a7 orted
expect 2 'n9 is in no part of this job' "${parts[@]}" "$root/launch/slurm/agent" n9 orted
expect 2 'mpirun calls launch/slurm/agent' "$root/launch/slurm/agent" n2 orted
expect 85 'scontrol requeue 12' "${job[@]}" status=85 "${train[@]}"
expect 85 'not queued again after 100 restarts' "${job[@]}" status=85 SLURM_RESTART_COUNT=100 "${train[@]}"
job+=(SLURM_ARRAY_JOB_ID=10 SLURM_ARRAY_TASK_ID=2)
printf '%s\n' '--seed 1' "--seed 2 --network 'a b'" >"$work/lines"
expect 2 "no file of options 'none'" "${job[@]}" bash "$root/launch/slurm/sweep.sbatch" none
expect 2 "no file of options ''" "${job[@]}" bash "$root/launch/slurm/sweep.sbatch"
expect 2 'line 3 of lines is empty or missing: --array=1-2 takes all' "${job[@]}" SLURM_ARRAY_TASK_ID=3 bash "$root/launch/slurm/sweep.sbatch" lines
expect 7 $'<runs/name-10/2>\n<--resume>\n<auto>\n<--epochs>\n<3>\n<--seed>\n<2>\n<--network>\n<a b>' \
  "${job[@]}" bash "$root/launch/slurm/sweep.sbatch" lines --epochs 3
printf '%s\n' "--seed 1 --network 'a b" "--seed ''" >"$work/open"
expect 2 'line 1 of open: a quote is open' "${job[@]}" SLURM_ARRAY_TASK_ID=1 bash "$root/launch/slurm/sweep.sbatch" open
expect 7 $'<--seed>\n<>' "${job[@]}" bash "$root/launch/slurm/sweep.sbatch" open
expect 85 'scontrol requeue 10_2' "${job[@]}" status=85 bash "$root/launch/slurm/sweep.sbatch" lines

# no apt-get: the packages are named; the build goes on when all is found
rm "$bin/apt-get" "$bin/mpirun"
expect 2 'libscalapack-openmpi-dev' "$root/launch/run"
expect 2 'not found: ninja cc pkg-config mpicc mpirun openblas.pc' "$root/launch/run"
for name in ninja cc mpicc pkg-config mpirun cmake; do stand_in "$name" <<<'exit 0'; done
expect 0 'building build ...' "$root/launch/run"
expect_option() { # expect_option TEXT SCRIPT: the last line that is configured in build/ ends so
  rm -f "$work/cmake"
  expect 0 'building build ...' "$2"
  [[ $(grep -- "-B $root/build " "$work/cmake") == *"$1" ]] || fail "$2 was not configured with '$1': $(<"$work/cmake")"
}
stand_in cmake <<<"echo \"cmake \$*\" >>'$work/cmake'"
expect_option CMAKE_BUILD_TYPE=Release "$root/launch/run"
# without what only tests need, and a ScaLAPACK that has no file for pkg-config
stand_in pkg-config <<'TEXT'
case $2 in check | scalapack*) exit 1 ;; esac
TEXT
expect_option -DCURVD_TESTS=OFF "$root/launch/run"
expect 0 '' "$root/launch/test" --quick
[[ $(tail -n 2 "$work/cmake") == *-DCURVD_TESTS=ON$'\n'* ]] || fail 'launch/test was configured without tests'

# apt-get, but no root: the line to type, unless all is found that the build looks for
stand_in apt-get <<<'exit 1'
stand_in dpkg-query <<<'exit 1'
as_user=()
if ((EUID == 0)); then
  as_user=("$(type -P setpriv)" --reuid=65534 --regid=65534 --clear-groups)
  chmod -R a+rwX "$work"
fi
expect 0 'Should it fail, type:
sudo apt-get update && sudo apt-get install -y --no-install-recommends cmake ' "${as_user[@]}" "$root/launch/run"
expect 2 'packages are missing. Type this line' "${as_user[@]}" "$root/launch/test" --quick
stand_in pkg-config <<'TEXT'
[ "$2" != jansson ]
TEXT
expect 2 'packages are missing. Type this line' "${as_user[@]}" "$root/launch/run"

# ---- launch/hosts: over hosts a to d, of which each has 4 cores of 8 hardware threads; ssh answers in their place ----

reset_bin
stand_in uname <<<'echo front.cluster'
stand_in hostname <<<'echo 10.1.1.1'
stand_in getent <<<'echo "10.0.0.9 STREAM"'
stand_in lscpu <<<'printf "#\n0,0\n0,0\n0,1\n0,1\n0,2\n0,2\n0,3\n0,3\n"'
stand_in orted <<<'exit 0'
stand_in timeout <<<'shift; exec "$@"'
stand_in ssh <<'TEXT'
while [ "$1" = -o ] || [ "$1" = -p ]; do shift 2; done
case $1 in
  [a-d]) exec sh -c "$2" ;;
  old) echo "Welcome"; echo "cores 4 mpirun (Open MPI) 4.0.3" ;;
  bare) echo mpi ;;
  prefix) PATH=$PREFIX_PATH exec sh -c "$2" ;;
  *) echo "ssh: Could not resolve hostname $1: Name or service not known" >&2; exit 255 ;;
esac
TEXT
mkdir -p "$root/build"
cat >"$root/build/curvd" <<'TEXT'
#!/bin/sh
case "$*" in check*--epoch\ *) echo "curvd: unknown option --epoch" >&2; exit 2 ;; esac
TEXT
chmod +x "$root/build/curvd"
printf '# two racks\na slots=2\n\nb slots=3 max_slots=8 # new\nc' >"$work/hosts.txt"
printf 'a slot=2\n' >"$work/typo.txt"
launch=$root/launch/hosts

expect 0 'usage: launch/hosts' "$launch" --help
expect 2 'which hosts?' "$launch" -- train
expect 2 "unknown argument '--host'" "$launch" --host a -- train
expect 2 "--hosts needs a value" "$launch" --hosts --ranks 3
expect 2 "--ranks needs a count from 1, not 'all'" "$launch" --hosts a --ranks all
expect 2 'exclude each other' "$launch" --hosts a --ranks 2 --ranks-per-host 2 -- train
expect 2 '--curvature-last-host needs --curvature-ranks C' "$launch" --hosts a,b --curvature-last-host -- train
expect 2 "not 'eth0;reboot'" "$launch" --hosts a --network 'eth0;reboot' -- train
expect 2 'what shall it do?' "$launch" --hosts a
expect 2 '--curvature-ranks is there twice' "$launch" --hosts a --curvature-ranks 1 -- train --curvature_ranks=2
expect 2 'curvd: unknown option --epoch' "$launch" --hosts e -- train --epoch 3
expect 2 'there is no program /nowhere/curvd: build it' "$launch" --hosts a --program /nowhere/curvd -- train
expect 2 'the host file ./none.txt cannot be read' "$launch" --hosts ./none.txt -- train
expect 2 "typo.txt, line 1: 'slot=2' is neither slots=N nor max_slots=N" "$launch" --hosts typo.txt -- train
expect 2 'a is named twice' "$launch" --hosts a,b,a -- train
expect 2 "'-oProxyCommand=x' is no host's name" "$launch" --hosts a,-oProxyCommand=x -- train
expect 2 "'two' is no count of ranks on a" "$launch" --hosts a:two -- train
expect 7 'e cannot be reached (ssh: Could not resolve hostname e: Name or service not known): try ssh e true' \
  "$launch" --hosts a,e -- train
expect 7 'none.txt cannot be reached (ssh: ' "$launch" --hosts none.txt -- train
expect 7 'and there is no such file' "$launch" --hosts none.txt -- train
expect 2 'old has mpirun (Open MPI) 4.0.3 and this host mpirun (Open MPI) 4.1.4: install the same' "$launch" --hosts old -- train
expect 2 "bare has neither orted nor prted: install Open MPI there (Debian: openmpi-bin), in $bin as here" "$launch" --hosts bare -- train
expect 2 'a has no interface nosuch0: ' "$launch" --hosts a --network nosuch0 -- train
expect 2 'the hosts take 6 ranks, not 7' "$launch" --hosts a:2,b --ranks 7 -- train
expect 2 'of 2 ranks 2 cannot be curvature ranks' "$launch" --hosts a,b --ranks 2 --curvature-ranks 2 --curvature-last-host -- train
expect 2 'needs a host for the workers' "$launch" --hosts a --curvature-ranks 1 --curvature-last-host -- train

bound='--map-by slot:PE=1 --bind-to core'
unbound='--map-by slot --bind-to none'
threads='-x OPENBLAS_NUM_THREADS -x OMP_NUM_THREADS'
expect 0 "mpirun $bound -n 8 --host a:4\,b:4 $threads $root/build/curvd train --lr 1e-3\\ x" \
  "$launch" --hosts a,b --dry-run -- train --lr '1e-3 x'
expect 0 "-n 9 --host a:2\,b:3\,c:4 " "$launch" --hosts hosts.txt --dry-run -- train
expect 0 "-n 3 --host a:2\,b:1 " "$launch" --hosts hosts.txt --ranks 3 --dry-run -- train
expect 0 "-n 6 --host a:2\,b:2\,c:2 " "$launch" --hosts hosts.txt --ranks-per-host 2 --dry-run -- train
expect 0 "OPENBLAS_NUM_THREADS=2 OMP_NUM_THREADS=2 " "$launch" --hosts a,b --threads 2 --dry-run -- train
expect 0 "--map-by slot:PE=2 --bind-to core -n 4 --host a:2\,b:2 " "$launch" --hosts a,b --threads 2 --dry-run -- train
expect 0 "mpirun $unbound -n 4 --host a:3\,b:1 " "$launch" --hosts a:3,b:2 --ranks 4 --threads 2 --dry-run -- train
expect 0 "mpirun $unbound -n 5 --host a:5 " "$launch" --hosts a:5 --dry-run -- train
expect 0 "mpirun $unbound -n 4 --host a:4 " "$launch" --hosts a --no-binding --dry-run -- train
expect 0 "-n 6 --host a:4\,b:2 $threads $root/build/curvd train --curvature-ranks 2 --steps 9" \
  "$launch" --hosts a,b --ranks 6 --curvature-ranks 2 --dry-run -- train --steps 9
expect 0 "-n 7 --host a:4\,b:1\,d:2 " "$launch" --hosts a,b,c,d --ranks 7 --curvature-ranks 2 --curvature-last-host --dry-run -- train
expect 0 "-n 10 --host a:4\,b:4\,c:2 " "$launch" --hosts a,b,c --curvature-ranks 2 --curvature-last-host --dry-run -- train
expect 0 '--mca oob_tcp_if_include 10.1.0.0/16 --mca btl_tcp_if_include 10.1.0.0/16 ' \
  "$launch" --hosts a --network 10.1.0.0/16 --dry-run -- train
expect 0 '-x CURVD_SEED ' env CURVD_SEED=3 "$launch" --hosts a --dry-run -- train
expect 0 "mpirun $bound -n 4 --host a:4 " env OMPI_MCA_plm_rsh_agent="ssh -p 22" "$launch" --hosts a --dry-run -- train
expect 0 "/bin/true 2" "$launch" --hosts a --curvature-ranks 1 --program /bin/true --dry-run -- 2
expect 0 "$bound -n 5 --host a:4\,b:1 $threads /bin/true : -n 4 --host front:4 $threads /bin/true" \
  "$launch" --hosts a,b:1,front,c --ranks 9 --program /bin/true --dry-run
expect 0 "$bound -n 8 --host front:4\,b:4 $threads /bin/true" "$launch" --hosts front,b --program /bin/true --dry-run
expect 7 "settings $root/launch/openmpi.conf" "$launch" --hosts a -- train
expect 7 $'<train>\n<--lr>\n<1e-3 x>\n<>' "$launch" --hosts a -- train --lr '1e-3 x' ''
expect 7 "threads 3 3 in $work" "$launch" --hosts a,b --threads 3 -- train

# Open MPI that is not on a host's PATH, but where this host has it: mpirun is called by its path
cp -R "$bin" "$work/others"
rm "$work/others"/{mpirun,orted}
export PREFIX_PATH=$work/others
expect 0 " $bin/mpirun $bound -n 8 --host a:4\,prefix:4 " "$launch" --hosts a,prefix --dry-run -- train
# Open MPI 5 has another daemon, and ends jobs by rules of its own
said=$(cd "$work" && PATH=$bin "$launch" --hosts a --dry-run -- train 2>&1)
[[ $said != *measured* ]] || fail "launch/hosts warns of Open MPI 4: $said"
mv "$bin/orted" "$bin/prted"
expect 0 " $bin/mpirun $bound " "$launch" --hosts prefix --dry-run -- train
stand_in mpirun <<<'echo "mpirun (Open MPI) 5.0.3"'
expect 0 " mpirun $bound -n 4 --host a:4 " "$launch" --hosts a --dry-run -- train
expect 0 'this is mpirun (Open MPI) 5.0.3; when and with which code' "$launch" --hosts a --dry-run -- train
rm "$bin/prted"
expect 2 'a has neither orted nor prted' "$launch" --hosts a -- train
expect 2 'prefix has neither orted nor prted' "$launch" --hosts prefix -- train

printf 'launch: %d cases\n' "$n"
