# shellcheck shell=bash
# Sourced by the batch scripts of this folder: how the ranks of a job are started, told to save, and started again.
# Variables that a user may set: CURVD_HOME (in the scripts), CURVD_PROGRAM, CURVD_LAUNCHER, CURVD_RESTARTS, SLURM_MPI_TYPE.
# shellcheck source=launch/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/../setup.sh"
# shellcheck source=launch/mpi.sh
source "$(dirname "${BASH_SOURCE[0]}")/../mpi.sh"

# By hand a batch script shows its first comment.
if [[ -z ${SLURM_JOB_ID-} ]]; then
  sed -n '2,/^#SBATCH/{/^#SBATCH/!s/^# \{0,1\}//p}' "$0"
  [[ ${1-} == --help ]] || die 2 "this is no job of SLURM: submit the script, sbatch $0 ARGUMENT..."
  exit 0
fi

program=${CURVD_PROGRAM:-$(default_program)}
[[ -x $program ]] || die 2 "no program $program on $HOSTNAME: build it there, or name it with CURVD_PROGRAM=/path/to/curvd"

threads=${SLURM_CPUS_PER_TASK:-1} # cores of a rank
mpi_settings "$threads"
export "${settings[@]}" "SLURM_MPI_TYPE=${SLURM_MPI_TYPE:-pmix}"
# SLURM 22.05's own choice for barriers, a tree, lets ranks out of MPI_Init before others are in it: what they send then
# crashes these. Of 260 starts of three ranks on busy cores 6 died so, of 280 by a ring none.
export SLURM_PMIX_FENCE=${SLURM_PMIX_FENCE:-ring}

# "2(x3),1" -> 2, 2, 2, 1, a line each
each_task_count() {
  local n times i
  tr ',' '\n' <<<"$1" | while IFS='(x)' read -r n _ times _; do
    for ((i = 0; i < ${times:-1}; i++)); do printf '%s\n' "$n"; done
  done
}

# n1:2,n2:2,n7:1: the nodes of a heterogeneous job and their ranks, those of the first part first
all_parts() {
  local part nodes tasks
  for ((part = 0; part < SLURM_HET_SIZE; part++)); do
    nodes=SLURM_JOB_NODELIST_HET_GROUP_$part tasks=SLURM_TASKS_PER_NODE_HET_GROUP_$part
    paste -d : <(scontrol show hostnames "${!nodes}") <(each_task_count "${!tasks}")
  done | paste -sd ,
}

# Sets launcher. Since SLURM 22.05 srun does not ask sbatch for the cores of a rank. When a rank has ended, the others get 10 s
# to end with their own exit codes, whatever the site's KillOnBadExit: the job's is the highest, and that of a rank that was
# killed for it would be. Open MPI 4 sees the first part of a heterogeneous job only, unless it is told.
choose_launcher() {
  local n=${SLURM_NTASKS:-1}
  case $1 in
    srun)
      [[ -z ${SLURM_HET_SIZE-} ]] || die 2 "a heterogeneous job is started by mpirun: leave CURVD_LAUNCHER=srun away"
      launcher=(srun "--cpus-per-task=$threads" --cpu-bind=cores --kill-on-bad-exit=0 --wait=10)
      ;;
    mpirun)
      launcher=(mpirun)
      if [[ -n ${SLURM_HET_SIZE-} ]]; then
        n=$((SLURM_NTASKS_HET_GROUP_0 + SLURM_NTASKS_HET_GROUP_1))
        launcher+=(--mca ras ^slurm --mca plm rsh --mca plm_rsh_agent "$root/launch/slurm/agent" --host "$(all_parts)")
      fi
      launcher+=(-n "$n" --map-by "slot:PE=$threads" --bind-to core)
      ;;
    *) die 2 "CURVD_LAUNCHER is srun or mpirun, not '$1'" ;;
  esac
}

# SLURM sends SIGUSR1 to this shell alone, not to the ranks: it hands the signal on. SIGTERM (scancel, preemption, the time
# limit) goes to all processes of the job: the shell waits for the others.
is_told=0
is_cancelled=0
step=
tell_ranks() {
  is_told=1
  [[ -z $step ]] || kill -USR1 "$step" 2>/dev/null || true
}
trap tell_ranks USR1
trap 'is_told=1 is_cancelled=1' TERM

# The exit code of a command that runs on while signals come: each of them ends a wait, but not the command.
wait_for_step() {
  local code
  while :; do
    is_told=0 code=0
    wait "$step" || code=$?
    ((is_told)) || return "$code"
  done
}

# The id under which SLURM knows this job alone: the number of an array's last task is that of the whole array, too.
job_name() {
  if [[ -n ${SLURM_ARRAY_TASK_ID-} ]]; then
    printf '%s_%s\n' "$SLURM_ARRAY_JOB_ID" "$SLURM_ARRAY_TASK_ID"
  else
    printf '%s\n' "$SLURM_JOB_ID"
  fi
}

# Code 85: stopped, and saved. What somebody has cancelled stays cancelled; what comes to nothing is given up some day.
queue_again() {
  ((!is_cancelled)) || return 0
  if ((${SLURM_RESTART_COUNT:-0} >= ${CURVD_RESTARTS:-100})); then
    printf 'launch: not queued again after %d restarts (CURVD_RESTARTS)\n' "${SLURM_RESTART_COUNT:-0}" >&2
  else
    scontrol requeue "$(job_name)" || true
  fi
}

# run_job COMMAND...: the program's command and options, on all ranks. Ends the script with its exit code.
run_job() {
  local code=0 launcher
  choose_launcher "${CURVD_LAUNCHER:-srun}"
  print_command "${launcher[@]}" "$program" "$@"
  if ((is_told)); then
    code=85
  else
    "${launcher[@]}" "$program" "$@" &
    step=$!
    wait_for_step || code=$?
  fi
  ((code != 85)) || queue_again
  exit "$code"
}
