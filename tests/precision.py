#!/usr/bin/env python3
"""Training with products of rounded numbers (--train-precision): what it learns, what it says of itself, and that it is
the same on every matrix unit of this machine. Weights are read from checkpoints."""
import json
import math
import os
import platform
import re
import sys

import program
from program import check

TEACHER = {"data": "teacher", "teacher_samples": 6000, "network": "50-64-10", "batch": 50, "seed": 1}
IMAGES = {"data": "teacher", "teacher_samples": 240, "network": "cnn:16x16x3:5", "batch": 20, "method": "sgd"}
STEPS = 3


class Bench:
    def __init__(self, arguments, scratch):
        self.curvd, self.mpiexec, self.scratch = os.path.abspath(arguments.curvd), arguments.mpiexec, scratch
        found = {line["name"]: line["text"] for line in self.doctor()}
        self.units = found["matrix units"].split(";")[0].split(", ")
        self.has_onednn = "oneDNN" in found["convolutions"].split()

    def doctor(self):
        return json.loads(program.tool(self.curvd, "doctor", "--json")[1])["findings"]

    def run(self, name, n_ranks=0, before=(), **options):
        """Folder and log of a run; n_ranks 0: without mpirun."""
        folder = os.path.join(self.scratch, name)
        options = {"run_dir": folder, "log_every": 1, **options}
        start = [self.mpiexec, "-n", str(n_ranks), *program.MPI_FLAGS] if n_ranks else []
        job = program.Job([*start, *before, self.curvd, "train", *program.words_of(options)], f"{folder}.log")
        code = job.end()
        check(code == 0, f"{name} ended with {code}: {job.text()[-300:]}")
        return folder, job.text()

    def weights(self, name, **options):
        folder, _ = self.run(name, steps=STEPS, checkpoint_steps=STEPS, **options)
        return program.read_weights(program.checkpoint_of(folder, STEPS))


def accuracy_of(folder):
    return program.records_of(folder)[-1]["test_accuracy"]


def begun(folder):
    return next(r for r in program.records_of(folder) if r["kind"] == "run")


def apart(x, y):
    """Relative distance of the weights of two runs, the largest of all layers."""
    norm = lambda of: math.sqrt(sum(v * v for v in of))
    check(x.keys() == y.keys() and x, f"layers are {list(x)} and {list(y)}")
    return max(norm([a - b for a, b in zip(x[name], y[name])]) / norm(y[name]) for name in x)


# ---- learning ----


def learns_as_well(bench):
    """On 1000 examples two runs that are as good differ by half a point (standard deviation, some 3 % of the examples are
    answered otherwise)."""
    for method in ("sgd", "nystrom-kfac"):
        accuracy = {p: accuracy_of(bench.run(f"{method}-{p}", method=method, epochs=5, train_precision=p, **TEACHER)[0])
                    for p in ("fp32", "bf16", "bf16x3")}
        check(accuracy["fp32"] > 65, f"{method} learns nothing in fp32: {accuracy}")
        check(all(a > accuracy["fp32"] - 2 for a in accuracy.values()), f"{method}: {accuracy}")


# ---- units ----


def compare_units(bench, options, least):
    """Weights after some steps: bf16 is seen, and is the same on all units; three products are closer to fp32. Units
    differ in the order of sums, which changes a rounded number here and there."""
    fp32 = bench.weights("fp32", **options)
    rounded = {unit: bench.weights(unit, train_precision="bf16", matrix_unit=unit, **options) for unit in bench.units}
    off = {unit: apart(weights, fp32) for unit, weights in rounded.items()}
    check(off["portable"] > least, f"bf16 is not fp32 by {off} only")
    for unit, weights in rounded.items():
        distance = apart(weights, rounded["portable"])
        check(distance < off["portable"] / 10, f"{unit} and portable are {distance} apart, bf16 and fp32 {off}")
    three = apart(bench.weights("three", train_precision="bf16x3", **options), fp32)
    check(three < off["portable"] / 100, f"bf16x3 is {three} off, bf16 {off}")


def units_agree(bench):
    compare_units(bench, {**TEACHER, "method": "sgd"}, 1e-5)


def workers_agree(bench):
    options = {**TEACHER, "method": "sgd", "train_precision": "bf16"}
    one, two = bench.weights("one", n_ranks=1, **options), bench.weights("two", n_ranks=2, **options)
    off = apart(one, bench.weights("fp32", **{**options, "train_precision": "fp32"}))
    check(apart(two, one) < off / 10, f"two workers are {apart(two, one)} from one, fp32 {off}")


def convolutions(bench):
    """They are rounded by units that oneDNN has kernels for; elsewhere, and in bf16x3, the log says that they are not."""
    fp32 = bench.weights("fp32", **IMAGES)
    options = {**IMAGES, "train_precision": "bf16"}
    for unit in bench.units:
        folder, log = bench.run(f"log-{unit}", matrix_unit=unit, steps=1, **options)
        stay = begun(folder)["fp32_convolutions"]
        check(("note: convolutions that stay fp32" in log) == bool(stay), f"{unit}: the log does not say that {stay} stay")
        check(set(stay) <= set(fp32), f"{unit}: {stay} are no layers of {list(fp32)}")
        if bench.has_onednn and unit in ("amx", "avx512-bf16"):
            check("conv2" not in stay, f"{unit}: the second convolution stays fp32: {stay}")
        else:
            check("conv2" in stay, f"{unit}: {stay} does not name the second convolution")
    for more, words in (({"train_precision": "bf16x3"}, "bf16x3 is for fully connected layers"),
                        ({"kernels": "plain"}, "the plain kernels know nothing else")):
        folder, log = bench.run("stays-" + "".join(more), steps=1, **{**options, **more})
        check(words in log and len(begun(folder)["fp32_convolutions"]) == 5, f"{more}: {log[:600]}")
    off = {unit: apart(bench.weights(unit, matrix_unit=unit, **options), fp32) for unit in bench.units}
    check(all(1e-6 < distance < 1e-2 for distance in off.values()), f"bf16 is {off} from fp32")


# ---- what it says ----


def says_what_it_does(bench):
    folder, log = bench.run("plain", steps=1, **TEACHER)
    words = "products: training fp32, refresh fp32, statistics fp32, apply fp32; between ranks fp32\n"
    check(words in log, f"the log says {log[:400]}")
    check(begun(folder)["matrix_unit"] == "", f"a unit is named where none is in use: {begun(folder)}")
    best = bench.units[0]
    folder, log = bench.run("rounded", steps=1, train_precision="bf16", apply_precision="bf16x3", **TEACHER)
    words = f"products: training bf16, refresh fp32, statistics fp32, apply bf16x3 on {best}; between ranks fp32\n"
    check(words in log, f"the log says {log[:400]}")
    names = [f"{use}_precision" for use in ("train", "refresh", "statistics", "apply", "wire")]
    found = [begun(folder)[name] for name in (*names, "matrix_unit")]
    check(found == ["bf16", "fp32", "fp32", "bf16x3", "fp32", best], f"the record has {found}")


def coarse_refreshes(bench):
    """Few examples make factors of few modes, for which one term is too coarse: the curvature rank says so itself."""
    folder, log = bench.run("coarse", 2, steps=12, curvature_ranks=1, refresh_precision="bf16", eig_rank=40, oversampling=8,
                            full_share=1, **{**TEACHER, "network": "50-200-200-10", "batch": 20})
    told = re.search(r"^rank 1: layer \S+, [AG], step 0, solver randomized: bf16 changes it by .* it needs a finer one$", log,
                     re.M)
    check(told, f"rank 1 told nothing of its refreshes: {log[:600]}")
    name = "refreshes done again with finer products: refresh_precision was too coarse"
    n = program.records_of(folder)[-1]["events"][name]
    check(n > 0 and f"{name}: {n}\n" in log, f"{n} refreshes done again, and the log ends with {log[-600:]}")


def wrong_words(bench):
    for words, said in ((["--train-precision", "bf61"], "fp32|bf16|bf16x3"), (["--matrix-unit", "neon"], "auto|amx|")):
        code, text = program.tool(bench.curvd, "train", *program.words_of({**TEACHER, "run_dir": f"{bench.scratch}/x"}), *words)
        check(code == 2 and said in text and text.count("\n") == 1, f"{words}: code {code}: {text}")
    for unit in {"amx", "avx512-bf16", "avx512", "avx2"} - set(bench.units):
        options = {**TEACHER, "run_dir": f"{bench.scratch}/x", "matrix_unit": unit, "train_precision": "bf16"}
        code, text = program.tool(bench.curvd, "train", *program.words_of(options))
        check(code == 2 and f"no matrix unit '{unit}'" in text and "portable" in text, f"{unit}: code {code}: {text}")


# ---- beside other parts ----


def goes_on_with_the_same_bits(bench):
    """Nothing rounded is kept from step to step."""
    options = {**TEACHER, "train_precision": "bf16", "checkpoint_steps": 5, "lr_decay": "constant"}
    whole, _ = bench.run("whole", steps=10, **options)
    half, _ = bench.run("half", steps=5, **options)
    bench.run("half", steps=10, resume="auto", **options)
    different = program.different_bits(program.checkpoint_of(whole, 10), program.checkpoint_of(half, 10))
    check(not different, f"{len(different)} arrays are not those of an uninterrupted run, first {different[:1]}")


def without_permission(bench):
    """The kernel refuses AMX: the next unit does it."""
    if platform.machine() != "x86_64":
        return f"SKIPPED: the filter is for x86_64, this is {platform.machine()}"
    if bench.units[0] != "amx":
        return "SKIPPED: this machine has no AMX"
    refused = program.refusing(program.AMX)
    for name, options in {"flat": {**TEACHER, "steps": 3}, "images": {**IMAGES, "steps": 3}}.items():
        folder, log = bench.run(name, before=refused, train_precision="bf16", **options)
        check(f"on {bench.units[1]};" in log, f"the log says {log[:400]}")
        check(begun(folder)["matrix_unit"] == bench.units[1], f"the record has {begun(folder)['matrix_unit']}")
    return None


CASES = [learns_as_well, units_agree, workers_agree, convolutions, says_what_it_does, coarse_refreshes, wrong_words,
         goes_on_with_the_same_bits, without_permission]


if __name__ == "__main__":
    sys.exit(program.run_in_folders(__doc__, "curvd-precision-", CASES, Bench))
