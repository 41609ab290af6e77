"""What a scaling benchmark runs: its points, the runs of each, and what tells one run from another."""
import dataclasses
import hashlib
import json
import math
import os
import shlex

from train_run import FIRST_ORDER, MPI_FLAGS, Request, command

KINDS = ("strong", "weak", "curvature", "tune")
LEFT_OUT = 10000  # training images that `tune` evaluates on: rates are not chosen by the test set

# `tune` tries as many rates for every method; in the middle, what the program takes by itself for fully connected layers
RATES = {"sgd": "0.01:0.02:0.05:0.1:0.2:0.5", "adamw": "1e-4:3e-4:1e-3:2e-3:5e-3:1e-2"}
RATES_SECOND_ORDER = "1e-4:3e-4:1e-3:2e-3:5e-3:1e-2"


@dataclasses.dataclass(frozen=True)
class Point:
    kind: str
    method: str
    network: str
    workers: int
    curvature_ranks: int
    threads: int
    batch: int  # of all workers
    lr: str | None  # None: the program decides

    @property
    def ranks(self):
        return self.workers + self.curvature_ranks

    def name(self):
        rate = f", lr {self.lr}" if self.lr else ""
        return f"{self.method}, {ranks_text(self.workers, self.curvature_ranks)}, batch {self.batch}{rate}"


@dataclasses.dataclass(frozen=True)
class Run:
    point: Point
    seed: int
    repeat: int

    def name(self):
        return f"{self.point.kind}: {self.point.name()}, seed {self.seed}, repeat {self.repeat}"


def ranks_text(workers, curvature_ranks):
    return f"{workers} worker{'s'[:workers > 1]} + {curvature_ranks} curvature rank{'s'[:curvature_ranks != 1]}"


def splits(given, method):
    """Pairs of workers and curvature ranks. Methods of first order are measured with as many workers, and with as many
    workers as the others have ranks in all: a rank that keeps curvature could train instead."""
    pairs = [(w, c) for w in given.workers for c in given.curvature_ranks]
    if method not in FIRST_ORDER:
        return pairs
    is_alone = all(m in FIRST_ORDER for m in given.methods)
    return [(n, 0) for n in sorted({*given.workers} | (set() if is_alone else {w + c for w, c in pairs}))]


def rates(given, method):
    if given.kind != "tune":
        return given.rates.get(method, [None])
    return given.rates.get(method) or RATES.get(method, RATES_SECOND_ORDER).split(":")


def points(given):
    """All of a benchmark, in the order in which they are numbered."""
    return [Point(given.kind, method, given.network, workers, curvature_ranks, given.threads,
                  given.batch * (workers if given.kind == "weak" else 1), rate)
            for method in given.methods for workers, curvature_ranks in splits(given, method)
            for rate in rates(given, method)]


def runs(given, chosen):
    """Repeat 0 of all points, then repeat 1, ...: what slows the machine for a while slows all of them alike."""
    return [Run(point, seed, repeat) for repeat in range(given.repeats) for seed in range(1, given.seeds + 1)
            for point in chosen]


# ---- commands ----


def nodes_words(ranks):
    """By itself srun puts few ranks on all nodes of the job; here as many on each as the job's own tasks would be."""
    tasks, nodes = (int(os.environ.get(name, 0)) for name in ("SLURM_NTASKS", "SLURM_JOB_NUM_NODES"))
    return ["-N", str(min(nodes, math.ceil(ranks / math.ceil(tasks / nodes))))] if tasks and nodes else []


def launch_words(given, ranks):
    """What starts so many ranks. All points start alike, also one of one rank: what binds ranks binds all."""
    if given.launcher == "srun":
        return ["srun", "--mpi=pmix", "-n", str(ranks), *nodes_words(ranks), "-c", str(given.threads), "--cpu-bind=cores",
                *shlex.split(given.srun_flags or "")]
    words = ["mpirun", "-n", str(ranks)]
    if given.hosts:
        words += ["--host", given.hosts, "-x", "OPENBLAS_NUM_THREADS", "-x", "OMP_NUM_THREADS"]
    if given.mpirun_flags is not None:
        return words + shlex.split(given.mpirun_flags)
    return words + (["--map-by", f"slot:PE={given.threads}", "--bind-to", "core"] if given.hosts else MPI_FLAGS)


def request_of(run, given):
    p = run.point
    more = (["--lr", p.lr] if p.lr else []) + (["--validation-images", str(LEFT_OUT)] if p.kind == "tune" else [])
    return Request(method=p.method, seed=run.seed, network=p.network, batch=p.batch, epochs=given.epochs or 1, steps=given.steps,
                   eval_every=given.eval_every, target=given.target, ranks=p.ranks, curvature_ranks=p.curvature_ranks,
                   threads=p.threads, launch=launch_words(given, p.ranks), build=given.build,
                   must_learn=p.kind != "tune", more=more + given.more)


def key_of(run, given):
    """Equal for two runs that would do the same: a line with it need not be measured again."""
    told = {"kind": run.point.kind, "repeat": run.repeat, "target": given.target,
            "command": command(request_of(run, given), "RUN")}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:12]


def folder_name(run, given):
    p = run.point
    rate = f"-lr{p.lr}" if p.lr else ""
    return f"{p.kind}-{p.method}-w{p.workers}-c{p.curvature_ranks}{rate}-s{run.seed}-r{run.repeat}-{key_of(run, given)}"
