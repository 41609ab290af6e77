#!/usr/bin/env python3
"""Kills runs at random instants and goes on with them, until they finish: nothing may be lost, and nothing wrong taken.

Each run trains a small network by one of METHODS on a random split of at most 4 ranks. At an instant that is uniform
over the length of an uninterrupted run (of what is left of it) one rank, all ranks, mpirun, or all of them get SIGKILL;
then the run goes on with --resume auto on another split or the same one, is perhaps killed again, and in the end
finishes. Held against uninterrupted runs of the same method on the same split:

  after a kill  every checkpoint verifies, none is listed that is not whole, and one that was reported is only gone
                where checkpoint_keep newer ones are there
  on resuming   the newest checkpoint is what counts
  in the end    exit code 0; one record of every step and evaluation; on one split the same bits of all arrays (but
                clocks) and of all losses, on several the bounds below

Prints the seed that repeats a failure, and exits with 1."""
import argparse
import math
import os
import random
import shutil
import sys
import tempfile
import time

import program
from program import check

STEPS, CHECKPOINT_STEPS, KEEP, KILLS_MAX = 300, 5, 2, 4
SPLITS = [(1, 0), (2, 0), (3, 0), (4, 0), (1, 1), (2, 1), (3, 1), (1, 2), (2, 2), (1, 3)]

# Smooth networks at small constant learning rates do not amplify rounding: losses stay within the bound of
# tests/mpi/test_layouts.c. Weights are held against the way that training moved them: a part of the momentum that is
# lost once, or one batch taken twice, changes that by about one step in STEPS, 3e-3; fp32 sums in another order by
# some 1e-6 a step.
LOSS_BOUND, WEIGHT_BOUND = 1e-4, 1e-3

COMMON = {"data": "teacher", "teacher_samples": 3000, "batch": 480, "steps": STEPS, "seed": 3, "lr_decay": "constant",
          "checkpoint_steps": CHECKPOINT_STEPS, "checkpoint_minutes": 0, "activation": "tanh", "hang_timeout": 60}
DENSE = {**COMMON, "network": "200-96-48-10", "lr": 2e-4, "eig_rank": 16}

NORM = """- input: 8x8x3
- conv: 6
  kernel: 3
  pad: 1
- norm: batch
  activation: tanh
- flatten: image
- dense: 10
"""

METHODS = {
    "nystrom": DENSE,
    "sgd": {**DENSE, "method": "sgd", "sgd_momentum": 0.9, "lr": 1e-3, "log_every": 4},
    "adamw": {**DENSE, "method": "adamw", "weight_decay": 0.01},
    "stale": {**DENSE, "method": "kfac", "staleness": 7, "factor_update_steps": 2, "inv_update_steps": 4},
    "sketch": {**DENSE, "carrier": "sketch", "store": "stream", "log_every": 3},
    "online": {**DENSE, "method": "b-r-c-kfac", "factor_update_steps": 3, "inv_update_steps": 3},
    "factored": {**DENSE, "method": "kfac", "apply": "factored", "factor_update_steps": 4},
    "norm": {**COMMON, "network": "norm.yaml", "norm_statistics": "all", "batch": 120, "lr": 2e-4, "eig_rank": 16},
}
FIRST_ORDER = ("sgd", "adamw")
# Without kills, three workers' updates of an online basis are not those of one, two or four to rounding, but to some
# 6e-4 of the loss: there splits with and without three workers are not compared.
OF_THREE = ("online",)


class Matrix:
    def __init__(self, arguments, scratch):
        self.curvd, self.mpiexec, self.scratch = os.path.abspath(arguments.curvd), arguments.mpiexec, scratch
        self.n_started, self.references = 0, {}  # (method, split): Reference
        self.kinds = arguments.kinds.split(",")
        self.kills = {kind: 0 for kind in self.kinds}
        self.n_in_save = self.n_in_training = self.n_too_late = self.n_resumed = self.n_exact = self.n_stuck = 0
        self.loss_distance = self.weight_distance = 0.0
        with open(os.path.join(scratch, "norm.yaml"), "w") as f:
            f.write(NORM)

    def start(self, method, split, run_dir, **more):
        options = {"log_every": 1, "checkpoint_keep": KEEP, **METHODS[method], "run_dir": run_dir, "resume": "auto",
                   "curvature_ranks": split[1], **more}
        if options["network"].endswith(".yaml"):
            options["network"] = os.path.join(self.scratch, options["network"])
        self.n_started += 1
        log = os.path.join(self.scratch, f"log-{self.n_started}")
        return program.Run(self.curvd, self.mpiexec, sum(split), options, log)

    def reference(self, method, split):
        """An uninterrupted run: {"folder", "seconds"}."""
        key = (method, split)
        if key not in self.references:
            folder = os.path.join(self.scratch, f"reference-{method}-{split[0]}-{split[1]}")
            run = self.start(method, split, folder, checkpoint_keep=1000)
            code = run.end()
            check(code == 0, f"the uninterrupted run of {method} on {split} ended with {code}: {run.text()[-600:]}")
            self.references[key] = {"folder": folder, "seconds": run.seconds}
        return self.references[key]


# ---- one kill ----


def strike(run, kind, rng):
    """Pids that get SIGKILL."""
    ranks = run.ranks()
    if kind == "rank":
        return [rng.choice(sorted(ranks.values()))] if ranks else []
    return {"ranks": list(ranks.values()), "mpirun": [run.launcher.pid], "all": run.pids()}[kind]


def reported_in(run, run_dir):
    """Steps whose checkpoints the run has told of."""
    told = {int(word.split()[3]) for word in run.text().split("\n") if word.startswith("checkpoint of step ")}
    return told | {r["step"] for r in program.records_of(run_dir) if r["kind"] == "checkpoint"}


def check_checkpoints(matrix, run_dir, reported):
    steps = program.steps_in(run_dir)
    for step in reported - set(steps):
        check(sum(s > step for s in steps) >= KEEP, f"the checkpoint of step {step} was reported, and is gone: {steps}")
    if not os.path.isdir(os.path.join(run_dir, "checkpoints")):
        return
    code, text = program.tool(matrix.curvd, "checkpoint", "list", run_dir)
    listed = [line.split() for line in text.split("\n")[1:] if line]
    check(code == 0 and all(words[-1] == "ok" for words in listed), f"listed, but not whole: {text}")
    check(not steps or sorted(int(words[0]) for words in listed) == steps, f"{steps} are there, listed are: {text}")
    code, text = program.tool(matrix.curvd, "checkpoint", "verify", run_dir)
    check(code == (0 if steps else 3), f"verify ends with {code}: {text}")


def check_resumed(text, before):
    """before: steps that were there when it began; None: somebody may still have written some."""
    found = [int(line.split()[-1]) for line in text.split("\n") if line.startswith("resumed from ")]
    if before is not None and found:
        check(found == before[-1:], f"it went on from {found}, and there were {before}")
    return len(found)


# ---- the end ----


def check_records(reference, run_dir, is_exact):
    """Returns the largest relative distance of the losses."""
    worst = program.check_losses(reference, run_dir, 0 if is_exact else LOSS_BOUND)
    check(sum(r["kind"] == "end" for r in program.records_of(run_dir)) == 1, "not one record of the end")
    return worst


def distance_of(x, y):
    return math.sqrt(math.fsum((a - b) ** 2 for a, b in zip(x, y)))


def check_weights(reference, run_dir):
    """Largest distance of a layer's weights, in units of the way they went."""
    first = program.read_weights(program.checkpoint_of(reference, CHECKPOINT_STEPS))
    last = program.read_weights(program.checkpoint_of(reference, STEPS))
    mine = program.read_weights(program.checkpoint_of(run_dir, STEPS))
    check(mine.keys() == last.keys(), f"layers are {list(mine)}")
    check(all(len(mine[k]) == len(last[k]) for k in last), "layers have other sizes")
    worst = max(distance_of(mine[k], last[k]) / distance_of(first[k], last[k]) for k in last)
    check(worst <= WEIGHT_BOUND, f"weights are {worst:.1e} of their way off")
    return worst


def check_end(matrix, method, splits, run_dir):
    check(STEPS in program.steps_in(run_dir), f"no checkpoint of the last step: {program.steps_in(run_dir)}")
    reference = matrix.reference(method, splits[0])["folder"]
    is_exact = len(set(splits)) == 1
    loss = check_records(reference, run_dir, is_exact)
    matrix.loss_distance = max(matrix.loss_distance, loss)
    if is_exact:
        matrix.n_exact += 1
        different = program.different_bits(program.checkpoint_of(reference, STEPS),
                                           program.checkpoint_of(run_dir, STEPS))
        check(not different, f"{len(different)} arrays are not the uninterrupted run's, first {different[:1]}")
    matrix.weight_distance = max(matrix.weight_distance, check_weights(reference, run_dir))


# ---- runs ----


def kill_once(matrix, run, method, split, rng, seen, run_dir):
    """Returns what was struck; "": the run was over before."""
    kind = rng.choice(matrix.kinds)
    left = 1 - max(program.steps_in(run_dir), default=0) / STEPS
    instant = rng.uniform(0, matrix.reference(method, split)["seconds"] * (0.4 + 0.6 * left))  # 0.4: it begins
    time.sleep(max(0, run.begin_s + instant - time.monotonic()))
    pids = strike(run, kind, rng) if run.launcher.poll() is None else []
    run.kill(pids)
    if not pids:
        return ""
    matrix.kills[kind] += 1
    if kind != "mpirun" or rng.random() < 0.5:  # else its ranks are still there when the next one begins
        is_stuck = run.end(60) is None
        matrix.n_stuck += is_stuck
        kind += " (mpirun stuck)" if is_stuck else ""
        left = program.unfinished_in(run_dir) - seen
        matrix.n_in_save += bool(left)
        seen |= left
        matrix.n_in_training += any(r["kind"] == "step" for r in program.records_of(run_dir))
    return kind


def one_run(matrix, number, rng):
    """Every method has its turn, on one split and then on several."""
    method, is_one_split = list(METHODS)[number % len(METHODS)], (number + number // len(METHODS)) % 2 == 0
    allowed = [s for s in SPLITS if s[1] == 0 or method not in FIRST_ORDER]
    if method in OF_THREE and not is_one_split:
        allowed = [s for s in allowed if s[0] != 3]
    run_dir = os.path.join(matrix.scratch, f"run-{number}")
    split = rng.choice(allowed)
    splits, history, reported, seen, orphans = [], [], set(), set(), []
    for trial in range(KILLS_MAX + 1):
        splits.append(split)
        before = None if orphans else program.steps_in(run_dir)
        matrix.reference(method, split)
        run = matrix.start(method, split, run_dir)
        is_last = trial == KILLS_MAX or (trial > 0 and rng.random() < 0.5)
        struck = "" if is_last else kill_once(matrix, run, method, split, rng, seen, run_dir)
        history.append((split, struck))
        is_running = struck and run.launcher.poll() is not None and run.pids()
        if not struck or not is_running:
            code = run.end()
            reported |= reported_in(run, run_dir)
            matrix.n_resumed += check_resumed(run.text(), before)
            for orphan in orphans:
                orphan.end()
            orphans = []
            check_checkpoints(matrix, run_dir, reported)
        else:
            orphans.append(run)
        if not struck or (not is_running and code == 0):
            matrix.n_too_late += not is_last
            check(code == 0, f"{method} {history} ended with {code}: {run.text()[-900:]}")
            break
        split = split if is_one_split else rng.choice([s for s in allowed if s != split])
    try:
        check_end(matrix, method, splits, run_dir)
    except program.Failure as failure:
        raise program.Failure(f"{method} {history}: {failure}") from None
    shutil.rmtree(run_dir)
    return f"{method}: " + ", ".join(f"{w}+{c} {kind or 'done'}" for (w, c), kind in history)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("curvd", metavar="CURVD")
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--first", type=int, default=0, help="number of the first run, to repeat one")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kinds", default="rank,ranks,mpirun,all", help="what is killed")
    parser.add_argument("--mpiexec", default="mpirun")
    arguments = parser.parse_args()
    scratch = tempfile.mkdtemp(prefix="kill-matrix-")
    matrix = Matrix(arguments, scratch)
    begin, n_failed = time.monotonic(), 0
    for i in range(arguments.first, arguments.first + arguments.runs):
        try:
            line = one_run(matrix, i, random.Random(f"{arguments.seed}/{i}"))
        except program.Failure as failure:
            n_failed += 1
            line = f"FAILED (again with --seed {arguments.seed} --first {i} --runs 1): {failure}"
        done = i - arguments.first + 1
        left = (time.monotonic() - begin) / done * (arguments.runs - done)
        print(f"{done}/{arguments.runs} {line}; {left:.0f} s left", flush=True)
    kills = ", ".join(f"{n} {kind}" for kind, n in matrix.kills.items())
    print(f"{arguments.runs} runs ({matrix.n_exact} on one split), {sum(matrix.kills.values())} kills ({kills}), "
          f"{matrix.n_in_training} behind the first step, {matrix.n_in_save} inside a save; {matrix.n_resumed} resumed, "
          f"{matrix.n_too_late} done before the kill, {matrix.n_stuck} launchers stuck; losses within "
          f"{matrix.loss_distance:.1e}, weights within {matrix.weight_distance:.1e} of their way; {n_failed} failed; "
          f"{time.monotonic() - begin:.0f} s")
    if n_failed == 0:
        shutil.rmtree(scratch)
    else:
        print(f"folders and logs are in {scratch}")
    return 1 if n_failed else 0


if __name__ == "__main__":
    sys.exit(main())
