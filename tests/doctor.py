#!/usr/bin/env python3
"""curvd doctor on this machine, and what the program says when a launcher promised other ranks than MPI has. Promises
are made by environments: those of mpirun, and of SLURM as its own cluster sets them. With root, two hosts of network
namespaces show what concerns several hosts."""
import json
import os
import platform
import subprocess
import sys
import tempfile

import program
from program import check

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "cluster"))
import hosts

LIMIT_S = 60
LINES = ["launcher", "hosts", "binding", "MPI", "MPI threads", "BLAS", "thread pools", "convolutions", "matrix units",
         "processor", "clock", "network", "shared memory", "run folder", "shared folder", "clocks", "plan", "memory", "overlap"]

# What SLURM 22.05 sets: for a task of `srun -N 2 -n 4`, in a batch script, and in one that a task has submitted.
JOB = {"SLURM_JOB_ID": "7", "SLURM_JOBID": "7", "SLURM_NODELIST": "n[1-2]", "SLURM_NODEID": "0", "SLURM_PROCID": "0"}
TASK = {**JOB, "SLURM_STEP_ID": "0", "SLURM_STEPID": "0", "SLURM_NTASKS": "4", "SLURM_STEP_NUM_TASKS": "4",
        "SLURM_STEP_TASKS_PER_NODE": "2(x2)", "SLURM_GTIDS": "0,1"}
SHELL = {**TASK, "SLURM_STEP_NUM_TASKS": "1", "SLURM_STEP_TASKS_PER_NODE": "1", "SLURM_GTIDS": "0"}
BATCH = {**JOB, "SLURM_NTASKS": "4", "SLURM_GTIDS": "0"}
BATCH_OF_TASK = {**TASK, "SLURM_NTASKS": "1", "SLURM_GTIDS": "0"}
MPIRUN = {"OMPI_COMM_WORLD_SIZE": "3", "OMPI_COMM_WORLD_RANK": "0"}
MPICH = {"PMI_SIZE": "2", "PMI_RANK": "0"}


class Bench:
    def __init__(self, arguments, scratch):
        self.curvd, self.mpiexec, self.scratch = os.path.abspath(arguments.curvd), arguments.mpiexec, scratch

    def run(self, words, environment=None):
        """Exit code, stdout and stderr."""
        done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=LIMIT_S, cwd=self.scratch,
                              env={**os.environ, **program.ENVIRONMENT, **(environment or {})})
        return done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")

    def doctor(self, code, ranks=0, before=(), options=(), environment=None, launcher=None):
        """{name: (level, text)}; ranks 0: without mpirun."""
        start = [self.mpiexec, "-n", str(ranks), *program.MPI_FLAGS] if ranks else []
        words = [*(launcher or start), *before, self.curvd, "doctor", "--json", *options]
        ended, out, errors = self.run(words, environment)
        check(ended == code, f"ended with {ended}, not {code}: {out} {errors}")
        report = json.loads(out)
        found = {line["name"]: (line["level"], line["text"]) for line in report["findings"]}
        check(report["exit_code"] == code, f"it tells exit code {report['exit_code']} and ends with {code}")
        check(len(found) == len(report["findings"]), f"a name comes twice: {list(found)}")
        return found

    def trains(self, environment):
        return self.run([self.curvd, "train", "--data", "teacher", "--teacher-samples", "600", "--network", "20-8-4",
                         "--batch", "60", "--steps", "2", "--run-dir", os.path.join(self.scratch, "run")], environment)


def expect(found, name, level, words):
    check(found[name][0] == level and words in found[name][1], f"{name}: not {level} '{words}' but {found[name]}")


# ---- the report ----


def alone(bench):
    found = bench.doctor(0)
    check(list(found) == LINES, f"lines are {list(found)}")
    expect(found, "launcher", "ok", "none: 1 rank")
    expect(found, "BLAS", "ok", "OpenBLAS")
    expect(found, "plan", "ok", "workers: 1, curvature ranks: 0")
    megabytes = bench.run([bench.curvd, "plan"])[1].split()[-1]
    expect(found, "memory", "ok", f"the service takes {megabytes} MB of ")
    check(os.listdir(bench.scratch) == [], f"it leaves {os.listdir(bench.scratch)}")


def for_people(bench):
    code, out, errors = bench.run([bench.curvd, "doctor"])
    lines = out.splitlines()
    check(code == 0 and errors == "", f"code {code}: {errors}")
    check(lines[0].startswith("ok       launcher       none"), f"it begins with {lines[0]}")
    check(lines[-1].startswith("1 rank; errors: 0, "), f"it ends with {lines[-1]}")
    check(all(len(line) <= 110 or " " not in line[24:] for line in lines), f"a line is too long: {out}")


def three_ranks(bench):
    found = bench.doctor(0, ranks=3, options=["--curvature-ranks", "1"])
    check(list(found) == LINES, f"lines are {list(found)}")
    expect(found, "launcher", "ok", "3 ranks, as promised")
    expect(found, "hosts", "ok", "(rank 0, 1, 2)")
    expect(found, "plan", "ok", "workers: 2, curvature ranks: 1")
    level = "ok" if os.cpu_count() >= 3 else "warning"
    check(found["binding"][0] == level, f"binding is {found['binding']}")
    check(found["overlap"][1] != "not tried", "overlap was not tried")


def bound_to_one_core(bench):
    if os.cpu_count() < 2:
        return
    core = str(max(os.sched_getaffinity(0)))
    found = bench.doctor(11, ranks=2, before=["taskset", "-c", core])
    expect(found, "binding", "error", f"2 ranks are bound to 1 core ({core})")


def more_threads_than_cores(bench):
    found = bench.doctor(0, ranks=2, options=["--blas-threads", "64"])
    expect(found, "binding", "warning", "BLAS threads")
    expect(found, "BLAS", "ok", "(64 a rank)")


def no_plan(bench):
    found = bench.doctor(4, ranks=2, options=["--curvature-ranks", "2"])
    expect(found, "plan", "error", "2 curvature ranks leave no worker among 2 ranks")
    expect(found, "overlap", "ok", "not tried")


def no_folder(bench):
    found = bench.doctor(11, ranks=2, options=["--run-dir", "/proc/nowhere"])
    expect(found, "run folder", "error", "/proc (of an unknown kind) cannot be written")
    expect(found, "shared folder", "ok", "not tried")


def copied_twice(bench):
    found = bench.doctor(0, ranks=2, environment={"OMPI_MCA_btl_vader_single_copy_mechanism": "none"})
    expect(found, "shared memory", "warning", "every message is copied twice (single_copy_mechanism none)")


def refused_copies(bench):
    if platform.machine() != "x86_64":
        return f"SKIPPED: the filter is for x86_64, this is {platform.machine()}"
    found = bench.doctor(0, ranks=3, before=program.refusing(program.COPIES))
    expect(found, "shared memory", "warning", "the system refuses copies between processes (CMA): Operation not permitted;")
    return None


def matrix_units(bench):
    fast, slow = ("amx", "avx512-bf16"), ("avx512", "avx2", "portable")
    units = bench.doctor(0)["matrix units"][1].split(";")[0].split(", ")
    check(units[-1] == "portable" and set(units) <= {*fast, *slow}, f"units are {units}")
    with open("/proc/cpuinfo") as f:
        flags = f.read().split()
    for unit, flag in (("amx", "amx_bf16"), ("avx512-bf16", "avx512_bf16"), ("avx2", "avx2")):
        check(unit not in units or flag in flags, f"{unit} is there, and /proc/cpuinfo has no {flag}")
    expect(bench.doctor(0), "matrix units", "ok", "none is in use, all is fp32")
    for unit in units:
        for option in ("--train-precision", "--apply-precision"):
            found = bench.doctor(0, options=["--matrix-unit", unit, option, "bf16"])
            if unit in fast:
                expect(found, "matrix units", "ok", f"in use: {unit}")
            else:
                words = f"{option[2:].replace('-', '_')} asks for bf16, for which {unit} has no instructions: fp32 is faster"
                expect(found, "matrix units", "warning", words)
        expect(bench.doctor(0, options=["--matrix-unit", unit]), "matrix units", "ok", "none is in use")
    for unit in {*fast, *slow} - set(units):
        expect(bench.doctor(2, options=["--matrix-unit", unit]), "matrix units", "error", f"no matrix unit '{unit}'")


def refused_amx(bench):
    if platform.machine() != "x86_64":
        return f"SKIPPED: the filter is for x86_64, this is {platform.machine()}"
    if not bench.doctor(0)["matrix units"][1].startswith("amx"):
        return "SKIPPED: this machine has no AMX"
    found = bench.doctor(0, before=program.refusing(program.AMX))
    expect(found, "matrix units", "warning", "the processor has AMX, and the kernel does not permit it")
    check(not found["matrix units"][1].startswith("amx"), f"AMX is there: {found['matrix units']}")
    found = bench.doctor(2, before=program.refusing(program.AMX), options=["--matrix-unit", "amx"])
    expect(found, "matrix units", "error", "no matrix unit 'amx'")
    return None


def wrong_words(bench):
    code, out, errors = bench.run([bench.curvd, "doctor", "--jason"])
    check((code, out) == (2, "") and "unknown option --jason" in errors, f"code {code}: {out} {errors}")
    code, out, errors = bench.run([bench.curvd, "doctor", "--config", "missing.yaml"])
    check((code, out) == (3, "") and "missing.yaml" in errors, f"code {code}: {out} {errors}")
    code, out, _ = bench.run([bench.curvd, "doctor", "--help"])
    check(code == 0 and "11" in out and "curvd doctor [--json]" in out, f"help is {out}")


# ---- promises ----


def broken_promises(bench):
    cases = [(TASK, "srun started 4 tasks", "srun --mpi=pmix"), (MPIRUN, "mpirun started 3 ranks, but MPI has 1", "Open MPI"),
             (MPICH, "(MPICH, Intel MPI) started 2 ranks, but MPI has 1", "mpirun")]
    for environment, words, cure in cases:
        runs = {"train": bench.trains(environment), "plan": bench.run([bench.curvd, "plan"], environment),
                "tune": bench.run([bench.curvd, "tune"], environment)}
        for command, (code, out, errors) in runs.items():
            check(code == 4 and words in errors and cure in errors and out == "", f"{command}: code {code}: {out} {errors}")
            check(errors.count("\n") == 1, f"{command}: more than a sentence: {errors}")
        expect(bench.doctor(4, environment=environment), "launcher", "error", words)
    check(os.listdir(bench.scratch) == [], f"{os.listdir(bench.scratch)} is there, though nothing ran")


def one_of_many_speaks(bench):
    for environment, words in ((TASK, {"SLURM_PROCID": "1"}), (MPIRUN, {"OMPI_COMM_WORLD_RANK": "2"}), (MPICH, {"PMI_RANK": "1"})):
        code, out, errors = bench.run([bench.curvd, "plan"], {**environment, **words})
        check((code, out, errors) == (4, "", ""), f"code {code}: {out} {errors}")


def kept_promises(bench):
    """No run is ended that may be as it is meant."""
    for name, environment in {"batch": BATCH, "shell": SHELL, "batch of task": BATCH_OF_TASK}.items():
        code, out, errors = bench.trains(environment)
        check(code == 0, f"{name}: code {code}: {errors}")
        bench.run(["rm", "-rf", os.path.join(bench.scratch, "run")])
    expect(bench.doctor(0, environment=BATCH), "launcher", "warning", "none: 1 rank in a job of 4 tasks")
    expect(bench.doctor(0, environment=BATCH_OF_TASK), "launcher", "ok", "none: 1 rank")
    for environment in (BATCH, TASK):
        found = bench.doctor(0, ranks=2, environment={**environment, "OMPI_MCA_plm": "isolated", "OMPI_MCA_ras": "simulator"})
        expect(found, "launcher", "ok", "2 ranks, as promised")


# ---- several hosts ----


def two_hosts(bench):
    why = hosts.reason_not()
    if why:
        return f"SKIPPED: {why}"
    own = os.path.join(bench.scratch, "own")
    os.mkdir(own)
    with tempfile.TemporaryDirectory(prefix="curvd-doctor-") as folder, hosts.Hosts(2, folder) as two:
        start = two.words("n0", [bench.mpiexec, "-n", "4"])
        found = bench.doctor(0, launcher=start, environment=two.environment())
        expect(found, "hosts", "ok", "2: n0 (rank 0, 1), n1 (rank 2, 3)")
        expect(found, "network", "ok", "TCP by eth0")
        expect(found, "shared folder", "ok", "seen by all 2 hosts")
        expect(found, "clocks", "ok", "ms apart (n1")
        mount = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none "$0" && exec "$@"', own]
        found = bench.doctor(11, launcher=start, before=mount, options=["--run-dir", own], environment=two.environment())
        expect(found, "shared folder", "error", "rank 2 on n1 does not see")
        expect(found, "run folder", "warning", "is tmpfs")
        # both hosts have that address: MPI waits for itself
        wrong = {**two.environment(), "OMPI_MCA_btl_tcp_if_include": "lo,eth0"}
        for command in ("doctor", "train"):
            code, _, errors = bench.run([*start, bench.curvd, command, "--hang-timeout", "4", "--run-dir", own], wrong)
            check(code == 8 and 'in "first messages to the other ranks' in errors, f"{command}: code {code}: {errors}")
    os.rmdir(own)
    return None


CASES = [alone, for_people, three_ranks, bound_to_one_core, more_threads_than_cores, no_plan, no_folder, copied_twice,
         refused_copies, matrix_units, refused_amx, wrong_words, broken_promises, one_of_many_speaks, kept_promises, two_hosts]


if __name__ == "__main__":
    sys.exit(program.run_in_folders(__doc__, "curvd-doctor-", CASES, Bench))
