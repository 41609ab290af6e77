#!/usr/bin/env python3
"""The batch scripts of launch/slurm, as they are, in a SLURM cluster of six nodes: on one node and on two, under srun
and mpirun, heterogeneous, as an array, with ranks that die, signals, and new starts. Whatever becomes of a run, its last
checkpoint has the bits of one that mpirun started on this machine and nobody disturbed. Ends with 77 where there can be
no such cluster."""
import copy
import os
import re
import shutil
import sys
import tempfile
import threading
import time

import slurm
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
import program
from program import check

ROOT = os.path.abspath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
LIMIT_S = 60  # of one job, its new starts included, while others run on the same two cores
STEPS = 40
# Two workers and a curvature rank everywhere.
OPTIONS = {"data": "teacher", "teacher_samples": 1200, "batch": 120, "network": "40-24-10", "activation": "tanh",
           "steps": STEPS, "seed": 3, "lr": 2e-4, "lr_decay": "constant", "eig_rank": 8, "log_every": 1,
           "factor_update_steps": 5, "checkpoint_steps": 10, "checkpoint_minutes": 0, "checkpoint_keep": 10,
           "curvature_ranks": 1, "hang_timeout": 60}
RANKS = ["-n", "3"]
PAUSE = "delay@15:seconds=3"  # long enough to be struck in, behind the first checkpoint
MPIRUN = {"CURVD_LAUNCHER": "mpirun"}


def processes_of(job, cluster):
    """{pid: environment} of what runs for a job, on any node."""
    mine = {b"SLURM_JOB_ID": job.encode(), b"SLURM_CONF": cluster.file("slurm.conf").encode()}
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/environ", "rb") as f:
                words = dict(w.split(b"=", 1) for w in f.read().split(b"\0") if b"=" in w)
        except OSError:
            continue
        if mine.items() <= words.items():
            found[int(pid)] = {name.decode(): value.decode(errors="replace") for name, value in words.items()}
    return found


class Job:
    """One submission, or one task of an array."""

    def __init__(self, bench, number, run_dir):
        self.bench, self.number, self.run_dir = bench, number, run_dir

    def facts(self):
        """As SLURM tells them: {"JobState": "RUNNING", ...}"""
        code, lines = self.bench.cluster.type("scontrol", "-o", "show", "job", self.number)
        check(code == 0, f"scontrol does not know job {self.number}: {lines}")
        return dict(word.split("=", 1) for word in lines[0].split() if "=" in word)

    def wait(self, what, is_so):
        """Until the facts are so, which are returned."""
        limit = time.monotonic() + LIMIT_S
        while True:
            facts = self.facts()
            if is_so(facts):
                return facts
            check(time.monotonic() < limit, f"job {self.number} is never {what}: {facts.get('JobState')} "
                  f"{facts.get('Reason')}; {self.text()[-600:]}")
            time.sleep(0.1)

    def wait_for_checkpoint(self):
        self.wait("saved", lambda _: program.steps_in(self.run_dir))

    def ends(self, state, code, n_starts=1):
        """Ends in this state, with this exit code, and leaves no process anywhere. Returns its text."""
        ended = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")
        facts = self.wait(f"ended in its start {n_starts}", lambda f: f.get("JobState") in ended and
                          int(f["Restarts"]) >= n_starts - 1)
        text = self.text()
        check((facts["JobState"], facts["ExitCode"], int(facts["Restarts"])) == (state, code, n_starts - 1),
              f"{facts['JobState']} {facts['ExitCode']} after {facts['Restarts']} restarts, not {state} {code} after "
              f"{n_starts - 1}: {text[-900:]}")
        self.wait("gone", lambda _: not processes_of(facts["JobId"], self.bench.cluster))
        return text

    def text(self):
        path = self.facts().get("StdOut", "")
        if not os.path.exists(path):
            return ""
        with open(path, errors="replace") as f:
            return f.read()

    def signal_shell(self):
        """What --signal=B:USR1@... does ahead of the time limit."""
        self.bench.cluster.type("scancel", "--batch", "--signal=USR1", self.number)


class Bench:
    def __init__(self, arguments, scratch, cluster):
        self.curvd, self.mpiexec, self.scratch, self.cluster = os.path.abspath(arguments.curvd), arguments.mpiexec, scratch, cluster
        self.typed_in, self.making = scratch, threading.Lock()

    def on(self, cluster):
        """The same on another cluster, whose jobs have the same numbers."""
        other = copy.copy(self)
        other.cluster, other.typed_in = cluster, cluster.folder
        return other

    def folder(self, name):
        return os.path.join(self.scratch, name)

    def submit(self, run_dir, sbatch=RANKS, script="train", words=(), environment=None, where=None, **more):
        """sbatch, typed on n0; options left out are None."""
        options = {**OPTIONS, "run_dir": self.folder(run_dir) if run_dir else None, **more}
        options = {name: value for name, value in options.items() if value is not None}
        variables = {"CURVD_HOME": ROOT, "CURVD_PROGRAM": self.curvd, **(environment or {})}
        line = ["env", "-C", where or self.typed_in, *(f"{n}={v}" for n, v in variables.items()), "sbatch", "--parsable", *sbatch,
                os.path.join(ROOT, "launch", "slurm", script + ".sbatch"), *words, *program.words_of(options)]
        code, lines = self.cluster.type(*line)
        check(code == 0, f"{line} ends with {code}: {lines}")
        return Job(self, lines[-1], self.folder(run_dir) if run_dir else None)

    def undisturbed(self, n_ranks):
        with self.making:
            folder = self.folder(f"reference-{n_ranks}")
            if not os.path.isdir(folder):
                run = program.Run(self.curvd, self.mpiexec, n_ranks, {**OPTIONS, "run_dir": folder}, folder + ".log")
                check(run.end() == 0, f"the undisturbed run fails: {run.text()[-600:]}")
        return folder

    def check_same(self, run_dir, n_ranks=3):
        """It has come to the end, and to the bits of the undisturbed run."""
        different = program.different_bits(program.checkpoint_of(self.undisturbed(n_ranks), STEPS),
                                           program.checkpoint_of(self.folder(run_dir), STEPS))
        check(not different, f"{len(different)} arrays are not an undisturbed run's, first {different[:1]}")


# ---- starts ----


def one_node(bench):
    """As README.md has it: from the clone itself, into the folder that the script chooses."""
    job = bench.submit(None, ["-N", "1", "-n", "2", "--chdir", bench.scratch], where=ROOT, environment={"CURVD_HOME": ""})
    text = job.ends("COMPLETED", "0:0")
    check("1 worker, 1 curvature rank" in text, f"other ranks: {text[:600]}")
    bench.check_same(f"runs/curvd-{job.number}", 2)


def places_of(job, n_ranks, numbers):
    """The nodes of the ranks of a job, whose parts have these numbers, while it pauses. Each rank has a core for itself."""
    def look(_):
        for pid, variables in (p for number in numbers for p in processes_of(number, job.bench.cluster).items()):
            if "PMIX_RANK" in variables:
                places[int(variables["PMIX_RANK"])] = variables["SLURMD_NODENAME"], os.sched_getaffinity(pid)
        return len(places) == n_ranks

    places = {}
    job.wait("placed", look)
    cores = [(node, core) for node, own in places.values() for core in own]
    check(len(cores) == len(set(cores)) == n_ranks, f"not a core for each rank: {places}")
    return [places[rank][0] for rank in range(n_ranks)]


def check_two_nodes(bench, run_dir, environment=None):
    job = bench.submit(run_dir, ["-N", "2", *RANKS], environment=environment, inject="delay@20:seconds=3")
    nodes = places_of(job, 3, [job.number])
    check(len(set(nodes)) == 2, f"ranks are on {nodes}")
    job.ends("COMPLETED", "0:0")
    bench.check_same(run_dir)


def two_nodes(bench):
    check_two_nodes(bench, "two")


def two_nodes_by_mpirun(bench):
    check_two_nodes(bench, "two-mpirun", MPIRUN)


def heterogeneous(bench):
    """A rank on each node, of which the last is the second part: it has the last rank, whose curvature it is."""
    nodes = ["n3", "n4", "n2"]
    parts = ["-w", "n3,n4", "-N", "2", "-n", "2", ":", "-w", "n2", "-N", "1", "-n", "1"]
    job = bench.submit("hetero", parts, "hetero", curvature_ranks=None, inject="delay@20:seconds=3")
    places = places_of(job, 3, [job.number, str(int(job.number) + 1)])
    check(places == nodes, f"ranks are on {places}, parts on {nodes}")
    text = job.ends("COMPLETED", "0:0")
    check("2 workers, 1 curvature rank" in text, f"other ranks: {text[:600]}")
    bench.check_same("hetero")


def array(bench):
    """A line for each task; the last, whose number SLURM also gives to the whole array, starts again alone."""
    with open(bench.folder("lines"), "w") as f:
        f.write(f"\n--seed 4\n--seed 5 --activation 'relu'\n--inject {PAUSE}\n")
    job = bench.submit(None, [*RANKS, "--array=1-4"], "sweep", ["lines"])
    tasks = [Job(bench, f"{job.number}_{i}", bench.folder(f"runs/sweep-{job.number}/{i}")) for i in range(1, 5)]
    tasks[3].wait_for_checkpoint()
    tasks[3].signal_shell()
    tasks[3].ends("COMPLETED", "0:0", n_starts=2)
    text = tasks[0].ends("FAILED", "2:0")
    check("line 1 of lines is empty or missing: --array=1-4 takes all" in text, f"says: {text}")
    for task, words in ((tasks[1], ["seed: 4", "activation: tanh"]), (tasks[2], ["seed: 5", "activation: relu"])):
        task.ends("COMPLETED", "0:0")
        with open(os.path.join(task.run_dir, "config.yaml")) as f:
            text = f.read()
        check(all(re.search(f"^{word}\\b", text, re.M) for word in words), f"not {words}: {text}")
    bench.check_same(f"runs/sweep-{job.number}/4")


# ---- ends ----


def check_killed(bench, run_dir, environment=None):
    job = bench.submit(run_dir, ["-N", "2", *RANKS], environment=environment, inject="kill@25:rank=1")
    job.ends("FAILED", "137:0")
    steps = program.steps_in(job.run_dir)
    check(steps and steps[-1] <= 25, f"saved: {steps}")
    text = bench.submit(run_dir, environment=environment).ends("COMPLETED", "0:0")
    check(re.search(rf"resumed from .*, step {steps[-1]}\n", text), f"not resumed: {text[-600:]}")
    bench.check_same(run_dir)


def killed_rank(bench):
    check_killed(bench, "killed")


def killed_rank_of_mpirun(bench):
    check_killed(bench, "killed-mpirun", MPIRUN)


def wrong_option(bench):
    """The program's exit code is the job's."""
    text = bench.submit("wrong", words=["--epoch", "3"]).ends("FAILED", "2:0")
    check("did you mean --epochs?" in text, f"says: {text}")


def hung_rank(bench):
    """srun tells the highest code: that of ranks which are killed because others have ended."""
    text = bench.submit("hung", inject="hang@25:rank=1", hang_timeout=2).ends("FAILED", "137:0")
    check("stands still since" in text, f"says: {text[-600:]}")


def srun_without_pmix(bench):
    """Ranks that do not find each other would all train alone."""
    text = bench.submit("apart", environment={"SLURM_MPI_TYPE": "none"}).ends("FAILED", "4:0")
    check("start them with `srun --mpi=pmix`" in text, f"says: {text[-600:]}")
    check(not os.path.exists(bench.folder("apart")), "there is a run folder")


def not_finite(bench):
    text = bench.submit("nan", inject="nan@25:rank=1").ends("FAILED", "5:0")
    check("the gradient of rank 1 is not finite" in text, f"says: {text[-600:]}")


def check_requeued(bench, run_dir, environment=None):
    """USR1, a checkpoint, code 85, a new start, the end."""
    job = bench.submit(run_dir, environment=environment, inject=PAUSE)
    job.wait_for_checkpoint()
    job.signal_shell()
    text = job.ends("COMPLETED", "0:0", n_starts=2)
    step = re.search(r"asked to stop: saved in front of step (\d+);", text)
    check(step and f", step {step.group(1)}\n" in text.split(step.group(0))[1], f"does not go on where it was: {text[-900:]}")
    bench.check_same(run_dir)


def requeued(bench):
    check_requeued(bench, "again")


def requeued_by_mpirun(bench):
    check_requeued(bench, "again-mpirun", MPIRUN)


def check_cancelled(bench, run_dir, environment=None):
    """SLURM ends the job, which does not come again. Returns its text."""
    job = bench.submit(run_dir, environment=environment, inject="delay@15:seconds=1")
    job.wait_for_checkpoint()
    bench.cluster.type("scancel", job.number)
    job.wait("cancelled", lambda f: f["JobState"] == "CANCELLED")
    job.wait("gone", lambda _: not processes_of(job.number, bench.cluster))
    time.sleep(2)  # a new start would be in the queue by now
    facts = job.facts()
    check((facts["JobState"], facts["Restarts"]) == ("CANCELLED", "0"), f"it is {facts['JobState']} again")
    return job.text()


def cancelled(bench):
    text = check_cancelled(bench, "cancelled")
    check("asked to stop: saved in front of step" in text, f"did not save: {text[-600:]}")


def cancelled_mpirun(bench):
    check_cancelled(bench, "cancelled-mpirun", MPIRUN)


def time_limit(bench):
    """SLURM itself sends the signal, between 10 s and 60 s before the end of the minute; the run would take two."""
    slow = ",".join(f"delay@{step}:seconds=8" for step in range(1, 17))
    job = bench.submit("limit", [*RANKS, "--time=1", "--signal=B:USR1@30"], environment={"CURVD_RESTARTS": "0"}, inject=slow)
    text = job.ends("FAILED", "85:0")
    check("asked to stop: saved in front of step" in text, f"did not save: {text[-600:]}")


def given_up(bench):
    """No more restarts are allowed."""
    job = bench.submit("given-up", environment={"CURVD_RESTARTS": "0"}, inject=PAUSE)
    job.wait_for_checkpoint()
    job.signal_shell()
    check("not queued again after 0 restarts" in job.ends("FAILED", "85:0"), f"says: {job.text()[-600:]}")


def requeued_by_the_site(bench):
    """RequeueExit=85 in slurm.conf does without the script."""
    with slurm.Slurm(2, bench.folder("site"), more="RequeueExit=85\n") as cluster:
        check_requeued(bench.on(cluster), "again-site", {"CURVD_RESTARTS": "0"})


def lost_node(bench):
    """A node loses its power: SLURM starts the job again without it. In a cluster of its own, which has a node less then."""
    with slurm.Slurm(3, bench.folder("lost")) as cluster:
        job = bench.on(cluster).submit("after-loss", ["-N", "2", *RANKS], inject="delay@15:seconds=18") # SlurmdTimeout is 10 s
        job.wait_for_checkpoint()
        nodes = places_of(job, 3, [job.number])
        cluster.power_off(nodes[-1])
        job.wait("started again", lambda f: f["Restarts"] == "1" and f["JobState"] == "RUNNING")
        job.ends("COMPLETED", "0:0", n_starts=2)
        bench.check_same("after-loss")


CASES = [lost_node, time_limit, array, requeued_by_mpirun, killed_rank_of_mpirun, requeued, requeued_by_the_site, heterogeneous,
         killed_rank, two_nodes, two_nodes_by_mpirun, cancelled, cancelled_mpirun, given_up, one_node,
         wrong_option, srun_without_pmix, hung_rank, not_finite]


def main():
    arguments = program.parser_of(__doc__, 6).parse_args()
    why = slurm.reason_not()
    if why:
        print(f"SKIPPED: {why}")
        return 77
    folder = tempfile.mkdtemp(prefix="slurm-")
    scratch = os.path.join(folder, "runs")
    os.mkdir(scratch)
    with slurm.Slurm(6, os.path.join(folder, "cluster")) as cluster:
        bench = Bench(arguments, scratch, cluster)
        cases = [(f.__name__.replace("_", " "), lambda f=f: f(bench)) for f in CASES]
        code = program.run_cases(cases, arguments, scratch)
    if code == 0:
        shutil.rmtree(folder)
    return code


if __name__ == "__main__":
    sys.exit(main())
